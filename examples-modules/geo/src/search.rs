//! Searching: reading the ranges of scores that cover a shape, and keeping the members inside.

use crate::cover;
use crate::grid::Position;
use crate::order;
use crate::shape::Shape;
use std::ops::{ControlFlow, Range};

/// In which order results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// A member inside the shape.
#[derive(Debug, Clone)]
pub struct Hit {
    member: Range<usize>,
    pub score: f64,
    pub position: Position,
    /// From the shape's centre.
    pub distance_m: f64,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The bytes of all members, one after the other.
    members: Vec<u8>,
    pub hits: Vec<Hit>,
}

impl Found {
    pub fn member(&self, hit: &Hit) -> &[u8] {
        &self.members[hit.member.clone()]
    }

    /// Keeps `count` members, or all: the first ones by distance, or, without a direction, those that were found first.
    pub fn sort_and_keep(&mut self, direction: Option<Direction>, count: Option<usize>) {
        let count = count.unwrap_or(usize::MAX);
        let by_distance = |a: &Hit, b: &Hit| a.distance_m.total_cmp(&b.distance_m);
        match direction {
            None => {}
            Some(Direction::Ascending) => order::sort_first(&mut self.hits, count, by_distance),
            Some(Direction::Descending) => order::sort_first(&mut self.hits, count, |a, b| by_distance(b, a)),
        }
        self.hits.truncate(count);
    }
}

/// Calls its second argument for each member whose score is in a range (up to, but without, its end), in order, until
/// that breaks off.
pub trait Members {
    fn for_each_in(&mut self, scores: Range<f64>, visit: impl FnMut(f64, &[u8]) -> ControlFlow<()>);
}

/// The members inside a shape, in the order in which they are found; no more than `limit` are looked for.
pub fn search(members: &mut impl Members, shape: &Shape, limit: Option<usize>) -> Found {
    let mut found = Found::default();
    let limit = limit.unwrap_or(usize::MAX);
    for (first, end) in cover::ranges(shape) {
        members.for_each_in(first as f64..end as f64, |score, member| {
            let position = Position::of_score(score);
            if let Some(distance_m) = shape.distance_m_inside(position) {
                let start = found.members.len();
                found.members.extend_from_slice(member);
                let member = start..found.members.len();
                found.hits.push(Hit { member, score, position, distance_m });
            }
            if found.hits.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if found.hits.len() >= limit {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests;
