//! The names of a part of the directory. They are copied by whoever changes them while others hold them, so those that all lie
//! in one part, the patterns, are in buckets: a change copies one bucket and a list of pointers to the others.

use crate::types::hashing::hash_key;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The shards with subscribers of a name, and how many each has. Never empty in the directory.
pub(super) type Counts = SmallVec<[(u16, u32); 2]>;

type Bucket = BTreeMap<Arc<[u8]>, Counts>;

/// See the module's documentation. In the order of the names if there is one bucket.
#[derive(Clone)]
pub(super) struct Names {
    buckets: SmallVec<[Arc<Bucket>; 1]>,
}

impl Default for Names {
    fn default() -> Names {
        Names::new(1)
    }
}

impl Names {
    pub(super) fn new(bucket_count: usize) -> Names {
        Names { buckets: (0..bucket_count).map(|_| Arc::default()).collect() }
    }

    fn bucket_of(&self, name: &[u8]) -> usize {
        match self.buckets.len() {
            1 => 0,
            count => (hash_key(name) % count as u64) as usize,
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Counts> {
        self.buckets[self.bucket_of(name)].get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Counts)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.iter().map(|(name, _)| name)
    }

    /// Changes the counts of a name: none, if it is not there, and it goes if none is left. Returns how the number of names
    /// has changed.
    pub(super) fn change(&mut self, name: &[u8], change: impl Fn(&mut Counts)) -> i64 {
        let at = self.bucket_of(name);
        let bucket = Arc::make_mut(&mut self.buckets[at]);
        let Some(counts) = bucket.get_mut(name) else {
            let mut counts = Counts::new();
            change(&mut counts);
            bucket.insert(name.into(), counts);
            return 1;
        };
        change(counts);
        if !counts.is_empty() {
            return 0;
        }
        bucket.remove(name);
        -1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_one_bucket_of_what_others_hold() {
        let mut names = Names::new(64);
        let name = |number: usize| format!("pattern:{number}:*").into_bytes();
        let add = |counts: &mut Counts| counts.push((0, 1));
        assert!((0..1000).all(|number| names.change(&name(number), add) == 1));
        let held = names.clone();

        assert_eq!(names.change(b"new", add), 1);
        assert_eq!(names.change(&name(7), Counts::clear), -1);
        assert_eq!(names.change(&name(8), add), 0);

        let copied = names.buckets.iter().zip(&held.buckets).filter(|(new, old)| !Arc::ptr_eq(new, old));
        assert!((1..=3).contains(&copied.count()));
        assert_eq!((held.iter().count(), names.keys().count()), (1000, 1000));
        assert!(held.get(b"new").is_none() && held.get(&name(7)).is_some());
        assert!(names.get(b"new").is_some() && names.get(&name(7)).is_none());
        assert_eq!([&held, &names].map(|names| names.get(&name(8)).unwrap().len()), [1, 2]);
    }
}
