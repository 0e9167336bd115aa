//! How far a group is behind: how many entries it has not read. That is the difference of two counts, of the entries
//! ever added and of those that the group has read. The latter can be kept, or found out, only where no entry was
//! deleted that the group has not read; then the lag is unknown.

use super::{Group, Log, StreamId};

impl Log {
    /// Whether an entry was deleted from `start` on, as far as that is known. As in Redis 7.0, those before the first entry
    /// do not count, so that they count as not read.
    fn has_deleted_from(&self, start: StreamId) -> bool {
        !self.is_empty() && self.first_id() <= self.max_deleted_id && start <= self.max_deleted_id
    }

    /// How many entries were ever added up to `id`; `None`: that is not known.
    pub fn count_up_to(&self, id: StreamId) -> Option<i64> {
        let added = self.entries_added as i64;
        if added == 0 {
            return Some(0);
        }
        if id >= self.last_id {
            return (id == self.last_id).then_some(added);
        }
        if self.is_empty() {
            return Some(added);
        }
        let is_contiguous = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id();
        let before_first = added.wrapping_sub(self.len() as i64);
        if !is_contiguous || id > self.first_id() {
            return None;
        }
        Some(if id == self.first_id() { before_first.wrapping_add(1) } else { before_first })
    }

    /// How many entries a group has read when it has just read up to `id`, the entry after its last one.
    #[inline]
    pub fn count_read(&self, group: &Group, id: StreamId) -> Option<i64> {
        match group.entries_read() {
            Some(count) if !self.has_deleted_from(id) => Some(count.wrapping_add(1)),
            known if self.entries_added == 0 => known,
            _ => self.count_up_to(id),
        }
    }

    /// How many entries a group has not read; `None`: that is not known.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        let read = match group.entries_read() {
            Some(count) if !self.has_deleted_from(group.last_id()) => count,
            _ => self.count_up_to(group.last_id())?,
        };
        Some((self.entries_added as i64).wrapping_sub(read))
    }
}
