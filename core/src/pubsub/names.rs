//! The names of a part of the directory, in order. They are copied by whoever changes them while others hold them, and one part
//! has all patterns, perhaps thousands; so they are in chunks: a change copies one chunk, and a list of pointers to the others.

use smallvec::SmallVec;
use std::sync::Arc;

/// The shards with subscribers of a name, and how many each has. Never empty in the directory.
pub(super) type Counts = SmallVec<[(u16, u32); 2]>;

/// A chunk that has so many names becomes two.
const CHUNK_LEN_MAX: usize = 128;

/// Names in order; at least one.
type Chunk = Vec<(Arc<[u8]>, Counts)>;

/// See the module's documentation.
#[derive(Clone, Default)]
pub(super) struct Names {
    /// In the order of their names.
    chunks: Vec<Arc<Chunk>>,
}

impl Names {
    /// The chunk in which a name is, if it is there; the only place where it may be put.
    fn chunk_of(&self, name: &[u8]) -> usize {
        self.chunks.partition_point(|chunk| *chunk[0].0 <= *name).saturating_sub(1)
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Counts> {
        let chunk = self.chunks.get(self.chunk_of(name))?;
        Some(&chunk[place_of(chunk, name).ok()?].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Arc<[u8]>, Counts)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.iter().map(|(name, _)| name)
    }

    /// Changes the counts of a name: none, if it is not there, and it goes if none is left. Returns by how much the number of
    /// names has changed.
    pub(super) fn change(&mut self, name: &[u8], change: impl Fn(&mut Counts)) -> i64 {
        if self.chunks.is_empty() {
            self.chunks.push(Arc::default());
        }
        let at = if self.chunks[0].is_empty() { 0 } else { self.chunk_of(name) };
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let place = match place_of(chunk, name) {
            Ok(place) => place,
            Err(place) => {
                let mut counts = Counts::new();
                change(&mut counts);
                chunk.insert(place, (name.into(), counts));
                if chunk.len() == CHUNK_LEN_MAX {
                    let upper = chunk.split_off(CHUNK_LEN_MAX / 2);
                    self.chunks.insert(at + 1, Arc::new(upper));
                }
                return 1;
            }
        };
        change(&mut chunk[place].1);
        if !chunk[place].1.is_empty() {
            return 0;
        }
        chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        -1
    }
}

/// Where a name is in its chunk, or belongs.
fn place_of(chunk: &Chunk, name: &[u8]) -> Result<usize, usize> {
    chunk.binary_search_by(|(known, _)| (**known).cmp(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_seed;
    use std::collections::BTreeMap;

    #[test]
    fn names_are_those_of_a_map_and_what_others_hold_stays() {
        with_seed(|rng| {
            let (mut names, mut map) = (Names::default(), BTreeMap::new());
            let mut held = Vec::new();
            for round in 0..4000 {
                let name = format!("{}", rng.below(1000)).into_bytes();
                let is_there = map.contains_key(&name);
                let (delta, is_in) = match (is_there, rng.below(3)) {
                    (true, 0) => (names.change(&name, |counts| counts.push((1, 1))), true),
                    (true, _) => (names.change(&name, Counts::clear), false),
                    (false, _) => (names.change(&name, |counts| counts.push((0, 1))), true),
                };
                assert_eq!(delta, i64::from(is_in) - i64::from(is_there));
                match map.get_mut(&name) {
                    Some(len) if is_in => *len += 1,
                    Some(_) => drop(map.remove(&name)),
                    None => drop(map.insert(name.clone(), 1)),
                }
                assert_eq!(names.get(&name).map(SmallVec::len), map.get(&name).copied());
                if round % 500 == 0 {
                    held.push((names.clone(), map.clone()));
                }
            }
            held.push((names, map));
            for (names, map) in held {
                let found = names.iter().map(|(name, counts)| (name.to_vec(), counts.len()));
                assert!(found.eq(map), "in order");
                assert!(names.chunks.iter().all(|chunk| (1..CHUNK_LEN_MAX).contains(&chunk.len())));
            }
        });
    }

    #[test]
    fn a_change_copies_one_chunk_of_what_others_hold() {
        let mut names = Names::default();
        for number in 0..5000 {
            names.change(format!("pattern:{number}:*").as_bytes(), |counts| counts.push((0, 1)));
        }
        let held = names.clone();

        assert_eq!(names.change(b"pattern:700:*", Counts::clear), -1);

        let copied = names.chunks.iter().zip(&held.chunks).filter(|(new, old)| !Arc::ptr_eq(new, old));
        assert_eq!((copied.count(), names.chunks.len()), (1, held.chunks.len()));
    }
}
