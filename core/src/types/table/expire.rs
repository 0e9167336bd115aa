//! The active expiry cycle: finds expired keys without looking at the others.
//!
//! Table, pages, segments and buckets each keep a lower bound of the first expiry below them. Setting an expiry
//! lowers the bounds; only this cycle raises them, after it has looked at the entries. So everything below a bound that
//! is not in the past is skipped, and a key whose expiry was removed or postponed costs at most one useless look.

use super::super::directory::end_of_prefix;
use super::{Entry, MERGE_TRY_LEN, Table};

/// What one call of [`Table::expire_due`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireProgress {
    /// Entries with a time to live that were looked at.
    pub looked_at: usize,
    pub removed: usize,
    /// The limit was reached: there may be more to do now.
    pub more: bool,
}

impl Table {
    /// Passes the entries whose expiry is at or before `now_ms` to `due`, and removes those for which it returns true.
    /// Stops at the end of a segment once it has looked at `limit` entries and segments, and continues there the next
    /// time.
    pub fn expire_due(
        &mut self,
        now_ms: i64,
        limit: usize,
        due: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> ExpireProgress {
        let mut progress = ExpireProgress::default();
        self.last_now_ms = now_ms;
        if self.next_expiry_ms > now_ms || self.directory.is_empty() {
            return progress;
        }
        let started_at = self.expire_cursor;
        let mut removed = Vec::new();
        let mut next = Some(started_at);
        let mut segments_seen = 0;
        while let Some(hash) = next {
            if progress.looked_at + segments_seen >= limit {
                self.expire_cursor = hash;
                progress.more = true;
                return progress;
            }
            let (page_expiry_ms, page_depth) = self.directory.page_expiry(hash);
            if page_expiry_ms > now_ms {
                next = end_of_prefix(hash, page_depth);
                continue;
            }
            let segment = self.directory.segment(hash);
            // SAFETY: the directory's segments are live.
            if unsafe { (*segment).next_expiry_ms() } <= now_ms {
                self.save_before_expiry(segment, now_ms);
            }
            // SAFETY: as above, and `&mut self` is the only way to them.
            let segment = unsafe { &mut *segment };
            next = end_of_prefix(hash, segment.depth());
            segments_seen += 1;
            let mut shrunk = false;
            if segment.next_expiry_ms() <= now_ms {
                let mut decide = |entry| due(Entry::new(entry));
                progress.looked_at += segment.expire_due(now_ms, &mut decide, &mut removed);
                progress.removed += removed.len();
                shrunk = !removed.is_empty() && segment.len() <= MERGE_TRY_LEN;
                for entry in removed.drain(..) {
                    self.forget(entry);
                    self.free_entry(entry);
                }
            }
            if end_of_prefix(hash, page_depth) == next {
                self.directory.refresh_page_expiry(hash);
            }
            // Merging may merge pages as well; the cycle continues by hash, so that does not disturb it.
            if shrunk {
                self.merge(hash);
            }
        }
        // The end of the table. What lies before the start was handled last time, or has become due since.
        self.expire_cursor = 0;
        self.next_expiry_ms = self.directory.first_expiry();
        progress.more = started_at != 0 && self.next_expiry_ms <= now_ms;
        progress
    }
}
