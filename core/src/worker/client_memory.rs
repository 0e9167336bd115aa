//! Eviction of clients (`maxmemory-clients`): while what the connections of all shards take exceeds a limit, the largest are
//! closed.
//!
//! What a connection takes is determined at the end of each turn in which it received or sent something, and counted on a
//! board that all shards read. As in Redis, connections are in classes by the power of two of what they take. From the
//! classes' sums over all shards each shard sees which of its own have to go: all of the largest classes as far as they are
//! too much, and of the last class what the shards before it do not cover. The result does not depend on which shard looks
//! first, as what one closes lowers the excess and its own share alike. A shard looks before it handles what has come in a
//! turn, and after; if it sees that others have to close connections, it wakes them.
//!
//! When the limit changes, each shard counts at its next turn. Until all have, CLIENT LIST goes to them twice (it locks their
//! keyspaces first), so that it shows what is left.
//!
//! Without a limit none of this happens.

use super::Worker;
use super::client_line::write_line;
use super::connection::Connection;
use crate::config::{ClientMemoryLimit, Config};
use crate::runtime::log;
use crate::shard::message::Message;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Connections that take less than 2^15 bytes are the first class, those that take 2^32 or more the last.
const CLASS_BITS_MIN: u32 = 15;
const CLASS_BITS_MAX: u32 = 33;
const CLASSES: usize = (CLASS_BITS_MAX - CLASS_BITS_MIN + 1) as usize;

/// A lower limit would close every client that connects.
const LIMIT_BYTES_MIN: u64 = 128 << 10;

fn class_of(bytes: u64) -> usize {
    let bits = (u64::BITS - bytes.leading_zeros()).clamp(CLASS_BITS_MIN, CLASS_BITS_MAX);
    (bits - CLASS_BITS_MIN) as usize
}

/// The limit in bytes; 0: none.
fn limit_bytes(config: &Config) -> u64 {
    let bytes = match config.maxmemory_clients {
        ClientMemoryLimit::Bytes(bytes) => bytes,
        ClientMemoryLimit::Percent(percent) => config.maxmemory_share_bytes(percent),
    };
    if bytes == 0 { 0 } else { bytes.max(LIMIT_BYTES_MIN) }
}

/// What the connections of one shard take.
#[repr(align(128))]
struct Place {
    /// By class, of those that may be closed.
    class_bytes: [AtomicU64; CLASSES],
    /// Of those that may not.
    kept_bytes: AtomicU64,
    /// The limit by which the shard goes.
    limit_bytes: AtomicU64,
    /// It was told to look, and has not yet.
    is_told: AtomicBool,
}

/// What the connections of each shard take, for all shards to see.
pub struct ClientMemoryBoard {
    places: Box<[Place]>,
}

impl ClientMemoryBoard {
    pub fn new(shard_count: usize) -> ClientMemoryBoard {
        let place = |_| Place {
            class_bytes: [const { AtomicU64::new(0) }; CLASSES],
            kept_bytes: AtomicU64::new(0),
            limit_bytes: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        };
        ClientMemoryBoard { places: (0..shard_count).map(place).collect() }
    }

    fn counter(&self, shard: usize, class: Class) -> &AtomicU64 {
        let place = &self.places[shard];
        match class {
            Class::Kept => &place.kept_bytes,
            Class::Evictable(class) => &place.class_bytes[class],
        }
    }

    /// Whether the connections take as much as the limit.
    fn is_reached(&self, limit_bytes: u64) -> bool {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_place =
            |place: &Place| place.class_bytes.iter().map(load).sum::<u64>() + load(&place.kept_bytes);
        self.places.iter().map(of_place).sum::<u64>() >= limit_bytes
    }

    /// How many bytes each shard has to free of each class, from the largest class down, to get below the limit.
    fn duties(&self, limit_bytes: u64) -> Duties {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes: Vec<[u64; CLASSES]> =
            self.places.iter().map(|place| place.class_bytes.each_ref().map(load)).collect();
        let kept: u64 = self.places.iter().map(|place| load(&place.kept_bytes)).sum();
        let total = bytes.iter().flatten().sum::<u64>() + kept;
        let mut excess = (total + 1).saturating_sub(limit_bytes);
        let mut due = vec![[0; CLASSES]; bytes.len()];
        for class in (0..CLASSES).rev() {
            for (shard, bytes) in bytes.iter().enumerate() {
                due[shard][class] = bytes[class].min(excess);
                excess -= due[shard][class];
            }
        }
        Duties { due, is_short: excess > 0 }
    }
}

/// What has to be freed.
struct Duties {
    /// By shard and class.
    due: Vec<[u64; CLASSES]>,
    /// All that may be closed is not enough.
    is_short: bool,
}

/// Where a connection is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Kept,
    Evictable(usize),
}

/// How a connection is counted at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    class: Class,
    bytes: u64,
}

/// A shard's state of the eviction of clients.
#[derive(Default)]
pub(super) struct ClientMemory {
    /// 0: there is no limit, and nothing is counted.
    limit_bytes: u64,
    /// Connections that may take more or less than was counted.
    touched: Vec<u32>,
    /// The limit has changed, and all connections have to be counted.
    is_new: bool,
    /// It has been logged that all that may be closed is not enough.
    is_short: bool,
}

impl ClientMemory {
    #[inline]
    pub(super) fn touch(&mut self, at: usize) {
        if self.limit_bytes > 0 {
            self.touched.push(at as u32);
        }
    }
}

impl Connection {
    /// What it takes and how it is counted; `None` for replicas and for the server itself, which have limits of their own.
    fn to_be_counted(&self) -> Option<Counted> {
        let client = &self.client;
        if client.is_server || client.is_replica() {
            return None;
        }
        let bytes = self.memory_bytes() as u64;
        let class = if client.no_evict { Class::Kept } else { Class::Evictable(class_of(bytes)) };
        Some(Counted { class, bytes })
    }
}

impl Worker {
    /// Whether a shard has not counted its connections since the limit changed.
    #[inline]
    pub(super) fn is_client_limit_spreading(&self) -> bool {
        let limit_bytes = self.client_memory.limit_bytes;
        let is_old = |place: &Place| place.limit_bytes.load(Ordering::Acquire) != limit_bytes;
        self.globals.client_memory.places.iter().any(is_old)
    }

    /// To be called at the beginning of a turn: follows what the configuration says, and what others have counted.
    #[inline]
    pub(super) fn follow_client_memory(&mut self) {
        if self.client_memory.is_new {
            self.follow_client_limit();
        } else if self.client_memory.limit_bytes > 0 {
            self.evict_clients();
        }
    }

    /// Takes over what the configuration says. As a command may be under way, nothing is closed yet.
    pub(super) fn track_client_memory(&mut self) {
        let limit_bytes = limit_bytes(&self.shard.config);
        let before = std::mem::replace(&mut self.client_memory.limit_bytes, limit_bytes);
        self.client_memory.is_new |= limit_bytes != before;
    }

    /// Follows a change of the limit. To be called where no command is under way.
    fn follow_client_limit(&mut self) {
        if std::mem::take(&mut self.client_memory.is_new) {
            self.count_all_clients();
        }
    }

    #[cold]
    fn count_all_clients(&mut self) {
        let limit_bytes = self.client_memory.limit_bytes;
        self.client_memory.is_short = false;
        self.client_memory.touched.clear();
        for at in 0..self.connections.len() {
            if limit_bytes > 0 {
                self.count_client(at);
            } else {
                self.uncount_client(at);
            }
        }
        let place = &self.globals.client_memory.places[self.shard.index];
        place.limit_bytes.store(limit_bytes, Ordering::Release);
        self.evict_clients();
    }

    /// To be called at the end of a turn, where no command is under way: counts the connections that have received or sent something, and closes some if
    /// that is too much.
    #[inline]
    pub(super) fn watch_client_memory(&mut self) {
        self.follow_client_limit();
        if !self.client_memory.touched.is_empty() {
            self.count_touched();
        }
    }

    #[cold]
    fn count_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.client_memory.touched);
        for at in touched.drain(..) {
            self.count_client(at as usize);
        }
        self.client_memory.touched = touched;
        self.evict_clients();
    }

    /// Whether connections have to be closed, now that so much has been received and is to be sent in this turn.
    pub(super) fn must_close_clients(&mut self) -> bool {
        let limit_bytes = self.client_memory.limit_bytes;
        if limit_bytes == 0 {
            return false;
        }
        // Those that have output were not touched yet: that is done when it is sent.
        for next in 0..self.dirty.len() {
            self.count_client(self.dirty[next] as usize);
        }
        for next in 0..self.client_memory.touched.len() {
            self.count_client(self.client_memory.touched[next] as usize);
        }
        let board = &self.globals.client_memory;
        board.is_reached(limit_bytes)
            && board.duties(limit_bytes).due.iter().flatten().any(|&bytes| bytes > 0)
    }

    /// Determines what a connection takes.
    fn count_client(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let counted = connection.to_be_counted();
        let before = std::mem::replace(&mut connection.counted, counted);
        if before != counted {
            self.recount(before, counted);
        }
    }

    /// A connection ends, or is not counted any more.
    pub(super) fn uncount_client(&mut self, at: usize) {
        if let Some(connection) = self.connections[at].as_deref_mut()
            && let Some(before) = connection.counted.take()
        {
            self.recount(Some(before), None);
        }
    }

    fn recount(&self, before: Option<Counted>, after: Option<Counted>) {
        let (board, own) = (&self.globals.client_memory, self.shard.index);
        if let Some(Counted { class, bytes }) = after {
            board.counter(own, class).fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(Counted { class, bytes }) = before {
            board.counter(own, class).fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Closes connections of this shard as far as it is its turn, and wakes shards that have to close some.
    pub(super) fn evict_clients(&mut self) {
        let (own, globals) = (self.shard.index, self.globals);
        globals.client_memory.places[own].is_told.store(false, Ordering::Relaxed);
        let limit_bytes = self.client_memory.limit_bytes;
        if limit_bytes == 0 || !globals.client_memory.is_reached(limit_bytes) {
            self.client_memory.is_short = false;
            return;
        }
        let duties = globals.client_memory.duties(limit_bytes);
        if !std::mem::replace(&mut self.client_memory.is_short, duties.is_short) && duties.is_short {
            log::warning(format_args!("Over client maxmemory after evicting all evictable clients"));
        }
        for (shard, due) in
            duties.due.iter().enumerate().filter(|(_, due)| due.iter().any(|&bytes| bytes > 0))
        {
            if shard == own {
                self.close_largest(due);
            } else if !globals.client_memory.places[shard].is_told.swap(true, Ordering::Relaxed) {
                self.send(shard, Message::EvictClients);
            }
        }
    }

    /// Closes connections of each class until so many bytes are free, the largest first.
    #[cold]
    fn close_largest(&mut self, due: &[u64; CLASSES]) {
        let counted = |(at, connection): (usize, &Option<Box<Connection>>)| match connection
            .as_deref()?
            .counted?
        {
            Counted { class: Class::Evictable(class), bytes } if due[class] > 0 => Some((bytes, class, at)),
            Counted { .. } => None,
        };
        let mut candidates: Vec<(u64, usize, usize)> =
            self.connections.iter().enumerate().filter_map(counted).collect();
        candidates.sort_unstable_by_key(|&(bytes, _, at)| (std::cmp::Reverse(bytes), at));
        let mut due = *due;
        for (bytes, class, at) in candidates {
            if due[class] > 0 {
                due[class] = due[class].saturating_sub(bytes);
                self.evict_client(at);
            }
        }
    }

    fn evict_client(&mut self, at: usize) {
        if let Some(connection) = self.connections[at].as_deref() {
            let mut line = Vec::new();
            write_line(&mut line, connection, self.table, self.shard.now_ms, 0, false);
            log::notice(format_args!("Evicting client: {}", String::from_utf8_lossy(&line).trim_end()));
            self.shard.stats.evicted_clients.add(1);
            self.close_now(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_so_low_that_nobody_could_connect() {
        let limit = |maxmemory_clients| limit_bytes(&Config { maxmemory_clients, ..Config::default() });
        assert_eq!(limit(ClientMemoryLimit::Bytes(0)), 0);
        assert_eq!(limit(ClientMemoryLimit::Bytes(1 << 20)), 1 << 20);
        assert_eq!(limit(ClientMemoryLimit::Bytes(1)), LIMIT_BYTES_MIN);
        assert_eq!(limit(ClientMemoryLimit::Percent(7)), 0, "of no maxmemory");
    }

    #[test]
    fn classes_are_powers_of_two() {
        assert_eq!([0, 1 << 14, (1 << 15) - 1].map(class_of), [0; 3]);
        assert_eq!([1 << 15, (1 << 16) - 1, 1 << 16].map(class_of), [1, 1, 2]);
        assert_eq!([1 << 32, u64::MAX].map(class_of), [CLASSES - 1; 2]);
    }

    fn board(shards: &[&[u64]], kept: u64) -> ClientMemoryBoard {
        let board = ClientMemoryBoard::new(shards.len());
        for (shard, clients) in shards.iter().enumerate() {
            for &bytes in *clients {
                board.counter(shard, Class::Evictable(class_of(bytes))).fetch_add(bytes, Ordering::Relaxed);
            }
        }
        board.counter(0, Class::Kept).fetch_add(kept, Ordering::Relaxed);
        board
    }

    fn due_sums(duties: &Duties) -> Vec<u64> {
        duties.due.iter().map(|due| due.iter().sum()).collect()
    }

    #[test]
    fn the_largest_classes_go_first_wherever_they_are() {
        const MB: u64 = 1 << 20;
        let board = board(&[&[MB, 100_000], &[MB, 4 * MB], &[100_000]], 0);
        let total = 6 * MB + 200_000;
        assert_eq!(due_sums(&board.duties(total + 1)), [0, 0, 0]);
        // As in Redis, as much as the limit is too much.
        assert_eq!(due_sums(&board.duties(total)), [0, 1, 0]);
        assert_eq!(due_sums(&board.duties(total - 4 * MB + 1)), [0, 4 * MB, 0]);
        assert_eq!(due_sums(&board.duties(total - 5 * MB + 1)), [MB, 4 * MB, 0]);
        assert_eq!(due_sums(&board.duties(total - 5 * MB)), [MB, 4 * MB + 1, 0]);
        assert!(!board.duties(200_000).is_short);
    }

    #[test]
    fn what_one_shard_closes_leaves_the_share_of_the_others_as_it_was() {
        let limit = 500_000;
        let clients: &[u64] = &[200_000, 200_000];
        let before = board(&[clients, clients], 0).duties(limit);
        assert_eq!(due_sums(&before), [300_001, 0]);
        assert_eq!(due_sums(&board(&[&[], clients], 0).duties(limit)), [0, 0]);

        let before = board(&[clients, clients], 0).duties(300_000);
        assert_eq!(due_sums(&before), [400_000, 100_001]);
        assert_eq!(due_sums(&board(&[&[], clients], 0).duties(300_000)), [0, 100_001]);
        assert_eq!(due_sums(&board(&[clients, &[200_000]], 0).duties(300_000)), [300_001, 0]);
    }

    #[test]
    fn those_that_may_not_be_closed_count_all_the_same() {
        let board = board(&[&[50_000]], 300_000);
        let duties = board.duties(200_000);
        assert_eq!((due_sums(&duties), duties.is_short), (vec![50_000], true));
    }
}
