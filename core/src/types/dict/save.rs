//! Saving a dict: a sweep in the order of the hashes, which stays the same however pages are split and merged. See
//! [`save`](crate::types::save).

use super::{Dict, Place, dict_hash};
use crate::types::directory::end_of_prefix;
use crate::types::save::{Element, Record, Sweep};

fn element<'a, const VALUES: bool>(key: &'a [u8], value: &'a [u8]) -> Element<'a> {
    if VALUES { Element::Field(key, value) } else { Element::Member(key) }
}

impl Sweep<Option<u64>> {
    fn is_behind(&self, hash: u64) -> bool {
        self.position.is_some_and(|position| hash >= position)
    }
}

impl<const VALUES: bool> Dict<VALUES> {
    pub(in crate::types) fn begin_saving(&mut self, record: Record) {
        self.saving.set(Sweep::new(record, Some(0)));
    }

    pub(in crate::types) fn record(&self) -> Option<&Record> {
        self.saving.record()
    }

    pub(in crate::types) fn end_saving(&mut self) -> Option<Record> {
        self.saving.end()
    }

    /// Writes page after page until `is_over` says that it is enough, which is asked before each, and returns what is written.
    pub(in crate::types) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut saving = self.saving.take();
        let Some(sweep) = saving.get_mut() else { return Vec::new() };
        while !sweep.record.is_complete() && !is_over() {
            let from = sweep.position.expect("all elements lie before the end");
            let leaf = self.leaf(from);
            let page = self.page(Self::page_of_leaf(leaf));
            for slot in 0..page.count() {
                let (key, value) = self.split_element(page.get(slot));
                // Pages may have been merged since the last slice.
                if sweep.is_behind(dict_hash(key)) {
                    sweep.visit(key, element::<VALUES>(key, value));
                }
            }
            sweep.position = end_of_prefix(from, leaf.ilog2());
        }
        let written = sweep.take();
        self.saving = saving;
        written
    }

    #[cold]
    pub(super) fn note_new(&mut self, hash: u64, key: &[u8]) {
        let Some(sweep) = self.saving.get_mut() else { return };
        if sweep.is_behind(hash) {
            sweep.note(key);
        }
    }

    #[cold]
    pub(super) fn save_before_change(&mut self, place: Place) {
        self.save_before(place, |sweep, key| sweep.note(key));
    }

    #[cold]
    pub(super) fn save_before_removal(&mut self, place: Place) {
        self.save_before(place, |sweep, key| {
            sweep.forget(key);
        });
    }

    fn save_before(&mut self, place: Place, then: impl FnOnce(&mut Sweep<Option<u64>>, &[u8])) {
        let mut saving = self.saving.take();
        let (key, value) = self.at(place);
        if let Some(sweep) = saving.get_mut().filter(|sweep| sweep.is_behind(dict_hash(key))) {
            sweep.before_change(key, element::<VALUES>(key, value));
            then(sweep, key);
        }
        self.saving = saving;
    }
}
