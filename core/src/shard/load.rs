//! Keys from an RDB file: they enter the tables without events, effects, or a count of changes.
//!
//! A master's snapshot is loaded *aside*: into tables of its own, which then take the place of the present ones in a unit over
//! all shards. So nothing ever sees a part of it, and if it is not whole nothing has changed.

use super::Shard;
use super::db::Databases;
use super::lazyfree::Freeing;
use crate::call::Key;
use crate::persist::rdb::file::SavedAccess;
use crate::persist::rdb::value::{Limits, PackedLimits};
use crate::types::set::SetLimits;
use crate::types::{Entry, NewValue, list};

impl Shard {
    /// Up to where collections that are read are packed.
    pub fn limits(&self) -> Limits {
        let config = &self.config;
        Limits {
            list: list::Limits::new(
                config.list_max_listpack_size,
                config.list_compress_depth,
                self.list_element_bytes_max,
            ),
            hash: PackedLimits {
                entries: config.hash_max_listpack_entries,
                value_bytes: config.hash_max_listpack_value_bytes,
            },
            zset: PackedLimits {
                entries: config.zset_max_listpack_entries,
                value_bytes: config.zset_max_listpack_value_bytes,
            },
            set: SetLimits::new(config.set_max_intset_entries),
        }
    }

    /// Makes room beside the databases for others.
    pub fn begin_aside(&mut self) {
        self.discard_aside();
        self.aside = Databases::new(self.db_count() as u32);
        self.set_new_access();
    }

    /// What is loaded beside the databases is at their place, until the next call.
    pub fn exchange_aside(&mut self) {
        debug_assert_eq!(self.aside.len(), self.dbs.len());
        std::mem::swap(&mut self.dbs, &mut self.aside);
    }

    /// Frees what was loaded beside the databases, in slices.
    pub fn discard_aside(&mut self) {
        for mut db in std::mem::take(&mut self.aside).into_all() {
            let key_count = db.table().len() as u64;
            self.free_detached(db.detach(), key_count, Freeing::Later);
        }
    }

    /// Puts what was loaded beside the databases in their place. Counts no change.
    pub fn adopt_aside(&mut self) {
        self.track_replaced();
        self.forget_local_expires();
        let loaded = std::mem::take(&mut self.aside);
        for (number, new) in (0..).zip(loaded.into_all()) {
            self.will_be_loaded(number, new.table());
            let mut old = std::mem::replace(&mut self.dbs[number as usize], new);
            let key_count = old.table().len() as u64;
            self.free_detached(old.detach(), key_count, Freeing::Later);
            self.signal_all(number);
        }
        self.set_new_access();
    }

    /// Puts an entry in, and replaces what is there.
    pub fn load(
        &mut self,
        db: u32,
        key: Key<'_>,
        value: NewValue<'_>,
        expire_at_ms: Option<i64>,
        access: u32,
    ) {
        self.observers.loaded(db, key);
        let db = &mut self.dbs[db as usize];
        db.before_change(key.hash).put_parts(key.hash, key.bytes, value, expire_at_ms, access);
        db.mark_signalled();
    }

    /// Whether a key is stored, be it an expired one.
    pub fn is_stored(&self, db: u32, key: Key<'_>) -> bool {
        self.lookup_stored(db, key).is_some()
    }

    /// What a file says of an entry's last access: what the policy for eviction goes by.
    pub fn saved_access(&self, entry: &Entry<'_>) -> SavedAccess {
        self.access.saved(self.config.maxmemory_policy, entry.access())
    }

    /// The access bits of a key of which a file, or RESTORE, says this.
    pub fn loaded_access(&self, saved: SavedAccess) -> u32 {
        match saved {
            SavedAccess::IdleSeconds(idle_s) if !self.access.is_lfu() => self.access.idle_since(idle_s),
            SavedAccess::Frequency(counter) if self.access.is_lfu() => self.access.with_frequency(counter),
            SavedAccess::None | SavedAccess::IdleSeconds(_) | SavedAccess::Frequency(_) => {
                self.access.of_new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;
    use crate::config::Config;
    use crate::shard::event::Event;
    use crate::shard::stats::ShardStats;
    use crate::types::{SetExpire, hash_key};
    use std::sync::Arc;

    fn key(name: &'static str) -> Key<'static> {
        Key { bytes: name.as_bytes(), hash: hash_key(name.as_bytes()) }
    }

    fn shard_with_one_key() -> Shard {
        let mut shard = Shard::new(0, 1, Arc::new(Config::default()), Arc::new(ShardStats::new(0, 16)), 1);
        shard.set(&Call::default(), key("old"), NewValue::Int(1), SetExpire::Clear, Event::SET);
        shard.begin_aside();
        shard.exchange_aside();
        let access = shard.access.of_new();
        shard.load(3, key("new"), NewValue::Int(2), None, access);
        shard.exchange_aside();
        shard
    }

    #[test]
    fn what_is_loaded_aside_is_seen_when_it_is_adopted_and_never_if_it_is_discarded() {
        let mut shard = shard_with_one_key();
        assert!(shard.is_stored(0, key("old")) && !shard.is_stored(3, key("new")));
        shard.adopt_aside();
        assert!(!shard.is_stored(0, key("old")) && shard.is_stored(3, key("new")));

        let mut shard = shard_with_one_key();
        shard.discard_aside();
        assert!(shard.is_stored(0, key("old")) && !shard.is_stored(3, key("new")));
    }
}
