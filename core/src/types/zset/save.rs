//! Saving a sorted set: a sweep from the greatest element to the least. See [`save`](crate::types::save).

use super::arena::Handle;
use super::order::{Bound, order_key};
use super::{Spot, ZSet};
use crate::types::object::Collection;
use crate::types::save::{Element, Record, Sweep};

/// So many elements are written before it is asked again whether it is enough.
const BATCH_LEN: usize = if cfg!(test) { 3 } else { 64 };

type Last = Option<(u64, Box<[u8]>)>;

impl Sweep<Last> {
    fn is_behind(&self, key: u64, member: &[u8]) -> bool {
        let is_less = |(last_key, last): &(u64, Box<[u8]>)| (key, member) < (*last_key, last);
        self.position.as_ref().is_none_or(is_less)
    }
}

impl ZSet {
    pub(in crate::types) fn begin_saving(&mut self, record: Record) {
        self.saving.set(Sweep::new(record, None));
    }

    pub(in crate::types) fn record(&self) -> Option<&Record> {
        self.saving.record()
    }

    pub(in crate::types) fn end_saving(&mut self) -> Option<Record> {
        self.saving.end()
    }

    /// Writes elements until `is_over` says that it is enough, which is asked now and then, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut saving = self.saving.take();
        let Some(sweep) = saving.get_mut() else { return Vec::new() };
        while !sweep.record.is_complete() && !is_over() {
            let end = self.rank_of_sweep(&sweep.position);
            assert!(end > 0, "what is not written is in the set");
            let mut last = None;
            for (member, score) in self.iter(end.saturating_sub(BATCH_LEN)..end).rev() {
                sweep.visit(member, Element::Scored(member, score));
                last = Some((member, score));
            }
            sweep.position = last.map(|(member, score)| (order_key(score), member.into()));
        }
        let written = sweep.take();
        self.saving = saving;
        written
    }

    /// How many elements are less than the one that was visited last.
    fn rank_of_sweep(&self, last: &Last) -> usize {
        let Some((key, member)) = last else { return self.len() };
        let count = self.tree.rank(Bound::Element { key: *key, member }, &self.arena);
        let is_last = |(of_rank, score): (&[u8], f64)| of_rank == &**member && order_key(score) == *key;
        if count > 0 && is_last(self.at(count - 1)) { count - 1 } else { count }
    }

    #[cold]
    pub(super) fn save_before_change(&mut self, spot: Spot, member: &[u8], score: f64) {
        let old_score = self.score_at(spot);
        let Some(sweep) = self.saving.get_mut() else { return };
        if let Some(old_score) = old_score.filter(|&old_score| sweep.is_behind(order_key(old_score), member))
        {
            sweep.before_change(member, Element::Scored(member, old_score));
            sweep.forget(member);
        }
        if sweep.is_behind(order_key(score), member) {
            sweep.note(member);
        }
    }

    #[cold]
    pub(super) fn save_before_removal(&mut self, handle: Handle) {
        let mut saving = self.saving.take();
        let (member, score) = (self.arena.member(handle), self.arena.score(handle));
        if let Some(sweep) = saving.get_mut().filter(|sweep| sweep.is_behind(order_key(score), member)) {
            sweep.before_change(member, Element::Scored(member, score));
            sweep.forget(member);
        }
        self.saving = saving;
    }
}
