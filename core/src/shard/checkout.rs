//! Check-out: for a command over keys of several shards, their entries are moved to the transaction's home and back.
//!
//! The move itself changes no key: it is not counted, and no observer is notified. What happens to the keys at home is
//! recorded there, and their observers on the owning shard are notified when the entries come back
//! ([`observe`](super::observe)). What a snapshot has still to write of a value is written wherever the value is then.

use super::Shard;
use super::observe::CheckedOutEvent;
use super::txn::CheckedOutKey;
use crate::types::OwnedEntry;
use crate::types::table::SavedElsewhere;

/// An entry on its way.
pub struct MovedEntry {
    entry: OwnedEntry,
    /// Of a value that a snapshot has not completely written.
    saved: Option<Box<SavedElsewhere>>,
}

impl Shard {
    /// Takes the entries of these keys of this shard out, also expired ones: the handler at home removes those, so that
    /// their DEL precedes the command in the effects.
    pub fn check_out(&mut self, keys: &[CheckedOutKey]) -> Vec<Option<MovedEntry>> {
        let take = |(db, hash, key): &CheckedOutKey| {
            let entry = self.take_unchanged(*db, *hash, key)?;
            // Two keys of one hash share a lock and count once, as at their return.
            if self.checked_out.insert((*db, *hash)) {
                self.dbs[*db as usize].checked_out_len += 1;
            }
            Some(entry)
        };
        keys.iter().map(take).collect()
    }

    /// Puts checked-out entries back, and notifies their observers of `events`.
    pub fn check_in(
        &mut self,
        keys: &[CheckedOutKey],
        entries: Vec<Option<MovedEntry>>,
        events: &[CheckedOutEvent],
    ) {
        debug_assert_eq!(keys.len(), entries.len());
        for ((db, hash, _), entry) in keys.iter().zip(entries) {
            if self.checked_out.remove(&(*db, *hash)) {
                self.dbs[*db as usize].checked_out_len -= 1;
            }
            self.put_unchanged(*db, *hash, entry);
        }
        self.tell_checked_out_events(events);
    }

    /// At home: puts checked-out entries of other shards into the tables.
    pub fn receive_checked_out(&mut self, keys: &[CheckedOutKey], entries: Vec<Option<MovedEntry>>) {
        for ((db, hash, _), entry) in keys.iter().zip(entries) {
            self.put_unchanged(*db, *hash, entry);
        }
    }

    /// At home: takes out what there is now under the checked-out keys, to be sent back to their owners.
    pub fn send_checked_out_back(&mut self, keys: &[CheckedOutKey]) -> Vec<Option<MovedEntry>> {
        keys.iter().map(|(db, hash, key)| self.take_unchanged(*db, *hash, key)).collect()
    }

    fn take_unchanged(&mut self, db: u32, hash: u64, key: &[u8]) -> Option<MovedEntry> {
        let db = &mut self.dbs[db as usize];
        let taken = db.take(hash, key);
        db.mark_signalled();
        taken.map(|(entry, saved)| MovedEntry { entry, saved })
    }

    fn put_unchanged(&mut self, db: u32, hash: u64, moved: Option<MovedEntry>) {
        let Some(MovedEntry { mut entry, saved }) = moved else { return };
        let saved = saved.filter(|saved| {
            let joins = self.joins_snapshot(saved.snapshot());
            if !joins {
                entry.value.end_saving();
            }
            joins
        });
        let db = &mut self.dbs[db as usize];
        db.put_taken(hash, entry, saved);
        db.mark_signalled();
    }
}
