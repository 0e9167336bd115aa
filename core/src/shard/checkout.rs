//! Entries on their way between shards: a command over keys of several shards has them moved to its home, and back.
//!
//! What is moved does not change by that: nothing is counted, and nobody is told. What happens to the keys at home is
//! written down there, and told to their observers here when they come back ([`observe`](super::observe)).

use super::Shard;
use super::observe::CheckedOutEvent;
use super::txn::CheckedOutKey;
use crate::types::OwnedEntry;

impl Shard {
    /// Hands over the entries of these keys of this shard, those included whose time is up: the handler at home meets
    /// them, so that their DEL stands before the command.
    pub fn check_out(&mut self, keys: &[CheckedOutKey]) -> Vec<Option<OwnedEntry>> {
        let take = |(db, hash, key): &CheckedOutKey| {
            let entry = self.take_unchanged(*db, *hash, key)?;
            self.dbs[*db as usize].checked_out_len += 1;
            self.checked_out.insert((*db, *hash));
            Some(entry)
        };
        keys.iter().map(take).collect()
    }

    /// The entries come back that were checked out, with word of what happened to them.
    pub fn check_in(
        &mut self,
        keys: &[CheckedOutKey],
        entries: Vec<Option<OwnedEntry>>,
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

    /// Entries of other shards come to their transaction's home.
    pub fn receive_checked_out(&mut self, keys: &[CheckedOutKey], entries: Vec<Option<OwnedEntry>>) {
        for ((db, hash, _), entry) in keys.iter().zip(entries) {
            self.put_unchanged(*db, *hash, entry);
        }
    }

    /// What is there now under the keys of guests goes home.
    pub fn send_checked_out_back(&mut self, keys: &[CheckedOutKey]) -> Vec<Option<OwnedEntry>> {
        keys.iter().map(|(db, hash, key)| self.take_unchanged(*db, *hash, key)).collect()
    }

    fn take_unchanged(&mut self, db: u32, hash: u64, key: &[u8]) -> Option<OwnedEntry> {
        let db = &mut self.dbs[db as usize];
        let entry = db.take(hash, key);
        db.mark_signalled();
        entry
    }

    fn put_unchanged(&mut self, db: u32, hash: u64, entry: Option<OwnedEntry>) {
        if let Some(entry) = entry {
            let db = &mut self.dbs[db as usize];
            db.put(hash, entry);
            db.mark_signalled();
        }
    }
}
