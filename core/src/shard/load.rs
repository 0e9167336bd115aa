//! Keys from an RDB file: they enter the tables without events, effects, or a count of changes.

use super::Shard;
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
