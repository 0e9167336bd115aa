//! Look-ups of elements of big collections that are about to be made: what they will need is fetched for all of them
//! together, level by level, so that their cache misses overlap.

use super::dict;
use super::object::Object;
use super::zset;
use smallvec::SmallVec;

/// What is looked up in a collection.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sought {
    /// An element.
    Element,
    /// An element, and if it is of a sorted set its place in the order.
    Order,
    /// The same, and the place that it will have with this score.
    NewScore(f64),
}

/// Look-ups that are about to be made.
#[derive(Default)]
pub struct Fetches<'a>(SmallVec<[Fetch<'a>; 16]>);

enum Fetch<'a> {
    Set(dict::Fetch<'a, false>),
    Hash(dict::Fetch<'a, true>),
    ZSet(zset::Fetch<'a>),
}

impl Fetch<'_> {
    #[inline]
    fn step(&mut self) -> bool {
        match self {
            Fetch::Set(fetch) => fetch.step(),
            Fetch::Hash(fetch) => fetch.step(),
            Fetch::ZSet(fetch) => fetch.step(),
        }
    }
}

impl<'a> Fetches<'a> {
    /// Adds the look-up of an element, and does the first step of it.
    #[inline]
    pub fn push(&mut self, object: &'a Object, element: &[u8], sought: Sought) {
        self.0.push(match object {
            Object::Set(set) => Fetch::Set(dict::Fetch::new(set, element)),
            Object::Hash(hash) => Fetch::Hash(hash.fetch(element)),
            Object::ZSet(set) => Fetch::ZSet(zset::Fetch::new(set, element, sought)),
            Object::List(_) | Object::Stream(_) | Object::Module(_) => return,
        });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Does all steps.
    pub fn finish(mut self) {
        while self.0.iter_mut().fold(false, |goes_on, fetch| fetch.step() | goes_on) {}
    }
}
