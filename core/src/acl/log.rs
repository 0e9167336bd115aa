//! ACL LOG: what clients tried and were refused, newest first. Alike entries within a minute are one, with a count.

use crate::call::{AclContext, Forbidden};
use std::collections::VecDeque;

/// Entries as far apart as this are not put together.
const GROUPING_MS_MAX: i64 = 60_000;

/// What somebody was refused.
pub struct AclLogEntry {
    pub count: u64,
    pub what: Forbidden,
    pub context: AclContext,
    /// The command, key or channel.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// When it happened last; unix time in milliseconds.
    pub at_ms: i64,
    /// The line of CLIENT INFO.
    pub client: Vec<u8>,
}

/// The newest entries.
#[derive(Default)]
pub struct AclLog {
    entries: VecDeque<AclLogEntry>,
}

/// Only so many of the newest entries are compared with a new one.
const COMPARED_MAX: usize = 10;

impl AclLog {
    /// Adds an entry. At most `len_max` are kept.
    pub fn add(&mut self, mut entry: AclLogEntry, len_max: usize) {
        let is_alike = |known: &AclLogEntry| {
            known.what == entry.what
                && known.context == entry.context
                && entry.at_ms - known.at_ms <= GROUPING_MS_MAX
                && known.object == entry.object
                && known.user == entry.user
        };
        if let Some(at) = self.entries.iter().take(COMPARED_MAX).position(is_alike)
            && let Some(known) = self.entries.remove(at)
        {
            entry.count += known.count;
        }
        self.entries.push_front(entry);
        self.entries.truncate(len_max);
    }

    /// Newest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &AclLogEntry> {
        self.entries.iter()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &str, at_ms: i64) -> AclLogEntry {
        AclLogEntry {
            count: 1,
            what: Forbidden::Key,
            context: AclContext::TopLevel,
            object: object.into(),
            user: b"u".to_vec(),
            at_ms,
            client: Vec::new(),
        }
    }

    #[test]
    fn alike_entries_of_a_minute_are_one_that_comes_first() {
        let mut log = AclLog::default();
        for (object, at_ms) in [("a", 0), ("b", 10), ("a", 60_000), ("a", 120_001)] {
            log.add(entry(object, at_ms), 10);
        }
        let shown: Vec<_> = log.iter().map(|entry| (entry.object.as_slice(), entry.count)).collect();
        assert_eq!(shown, [(&b"a"[..], 1), (b"a", 2), (b"b", 1)]);
        log.add(entry("c", 120_002), 2);
        assert_eq!(log.iter().len(), 2);
    }
}
