//! Client-side caching (CLIENT TRACKING): which clients have read which of a shard's keys, and what they are to be told of
//! changes.
//!
//! A client that tracks keeps what it has read, and is told by an *invalidation* when that has changed. In the default mode the
//! server remembers what each client has read: the shard of a key has the list of its readers, in [`Tracking`]. In broadcast
//! mode (BCAST) nothing is remembered, and clients are told of all changes of keys with their prefixes: the directory of
//! subscriptions ([`pubsub`](crate::pubsub)) has the prefixes, with the shards whose clients want to be told, and each shard has
//! a copy. Databases are not told apart, as in Redis.
//!
//! An invalidation goes from the shard of the key to the home of the reader, and from there, if the reader has said so
//! (REDIRECT), to the home of another client. `worker/tracking` delivers it.
//!
//! # Why no client keeps a stale value
//!
//! Let a client read a value of a key by a command that tracks, and let the key change afterwards. The claim: behind the reply
//! with the value, an invalidation of the key comes to the client, or to the one it redirects to, and never before that reply.
//!
//! 1. *Reading and registering are one step on the key's shard.* The registration is made by
//!    [`Worker::run_untimed`](crate::worker) directly behind the handler, whoever runs the command: a client of this shard or
//!    of another, an EXEC, a stage of a transaction, a program, or a blocked command that is served later. The `tracks` bit
//!    travels in the [`Call`]. Nothing runs on the shard in between. If the command runs over a checked-out entry at the home
//!    of a transaction, the read is recorded among what happened to the entry, in order with the changes, and comes to the
//!    owner with the entry itself: the key is locked until then.
//! 2. *Every change finds the registration.* Changes are reported by the one door that WATCH depends on, too
//!    ([`change`](super::change), [`observe`](super::observe)): by whatever means a key changes, expires, is evicted, or is
//!    replaced with its database. The readers are taken out of the list in the same step, and the invalidation waits in
//!    [`Tracking::take_due`]. Whoever reads the new value is registered anew. For the broadcast mode: a prefix is in the
//!    directory before its client can send a request that reads, and each shard looks at the directory's version at the
//!    beginning of a turn and before each message, hence before it runs what that client or any consequence of it asks for.
//! 3. *It does not come before the reply.* The command has its place among the pending replies of its connection before it
//!    leaves the reader's home, so before the read, and keeps it until the reply is in the connection's output. Home puts an
//!    invalidation behind all replies that are pending when it comes. That is behind the reply in question, by whatever ways
//!    the two have come: parts of it may still be under way from other shards. (A client that is blocked on keys would get it
//!    very late, so there it comes before the reply of the blocked command, which has not read yet. Of these commands XREAD
//!    alone tracks. When it is served, it reads on one shard, whose messages to home keep their order: first the reply, and
//!    then what becomes invalid afterwards.) If the command runs at home, its reply
//!    is in the output at the end of the turn, which is when invalidations leave, or when nothing runs.
//! 4. *Nor by a redirection.* If the reader redirects, its home holds the invalidation back until the driver has reported as
//!    sent all output that stands before the invalidation's place. So the bytes of the reply are on their way to the client
//!    before the shard of the other client hears of the invalidation.
//! 5. *It is not lost.* Messages are not lost between shards. Who has no connection any more, has turned tracking off, or has
//!    turned it on again in broadcast mode, is told nothing, as in Redis: it has no cache that could be stale.
//!
//! An invalidation that comes later than needed is harmless: it may drop a newer value, which its reader is registered for. So
//! is a registration too many: that of a run that was taken back, or of keys that a script has declared and not read (which Redis 7.0
//! registers as soon as the script calls any command that reads).
//!
//! FLUSHALL, FLUSHDB and SWAPDB concern all keys, and clients are told so by one message. They run on all shards under locks
//! over the whole keyspace; each shard forgets its readers, and shard 0 alone tells all homes. That is enough: nobody reads on
//! any shard between the beginning and the end of the flush, who reads later is registered by then, and the places among
//! pending replies do the rest.
//!
//! `tracking-table-max-keys` bounds the keys of all shards together. They are counted in [`TrackingTotals`]: a shard that finds
//! too many takes one off the count first and then drops a key of its own, so that together they drop no more than needed. The
//! readers are told as if the key had changed.

use super::Shard;
use crate::call::{Call, ClientId, Key};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What concerns a client that tracks.
#[derive(Clone, Debug)]
pub enum Invalidation {
    /// For a client that has read this key. `by`: who has changed it; 0: nobody, or it is not known any more who reads it.
    Key { reader: ClientId, key: Arc<[u8]>, by: ClientId },
    /// For the clients that have this prefix: the keys, each with the client that has changed it last.
    /// 0 if a script has: as in Redis, who asks not to be told of its own changes (NOLOOP) is told of those.
    Prefix { prefix: Arc<[u8]>, keys: Vec<(Arc<[u8]>, ClientId)> },
    /// For all: every key may have changed.
    All,
}

/// Which keys a client is told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invalid {
    Keys(Vec<Arc<[u8]>>),
    All,
}

/// An invalidation for a client to which another redirects.
#[derive(Debug)]
pub struct Redirected {
    pub to: ClientId,
    /// Whose it is, and where that one is served.
    pub from: ClientId,
    pub home: u16,
    pub what: Invalid,
}

/// A key that a client of shard `home` has read.
#[derive(Debug)]
pub struct TrackedRead {
    pub key: Box<[u8]>,
    pub client: ClientId,
    pub home: u16,
}

/// The messages about tracking.
#[derive(Debug)]
pub enum TrackingMessage {
    /// To the home of the readers.
    Invalid(Vec<Invalidation>),
    /// To the home of the client that is redirected to.
    Redirected(Box<Redirected>),
    /// Back from there: there is no such client any more.
    Broken { client: ClientId, redirect: ClientId },
    /// To the shard of these keys: scripts have declared them.
    Declared(Vec<TrackedRead>),
    /// To all: there may be more keys than are allowed now.
    Limit,
}

/// What all shards have together.
#[derive(Default)]
pub struct TrackingTotals {
    /// Keys with readers.
    keys: AtomicU64,
    /// Readers of keys: a client counts once for each of its keys.
    items: AtomicU64,
    /// Clients that track.
    clients: AtomicU64,
}

impl TrackingTotals {
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    pub fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::SeqCst)
    }

    pub fn add_client(&self) {
        self.clients.fetch_add(1, Ordering::SeqCst);
    }

    pub fn remove_client(&self) {
        self.clients.fetch_sub(1, Ordering::SeqCst);
    }

    /// Takes one off the number of keys if it is above `max`.
    fn take_excess_key(&self, max: u64) -> bool {
        let fewer = |keys| (keys > max).then(|| keys - 1);
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }
}

/// A key's readers, in the order of their numbers, each with its home.
type Readers = SmallVec<[(ClientId, u16); 1]>;

/// A key that has readers.
struct Tracked {
    readers: Readers,
    /// Its place in [`Tracking::order`].
    place: usize,
}

/// A prefix of clients in broadcast mode.
struct Prefix {
    bytes: Arc<[u8]>,
    /// The shards of these clients.
    homes: SmallVec<[u16; 8]>,
    /// The keys with it that have changed in this turn, each with the client that has changed it last.
    changed: BTreeMap<Arc<[u8]>, ClientId>,
}

/// Where invalidations go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Homes {
    One(u16),
    All,
}

/// The readers of one shard's keys. See the module's documentation.
#[derive(Default)]
pub struct Tracking {
    keys: AHashMap<Arc<[u8]>, Tracked>,
    /// The keys in any order, to pick one at random.
    order: Vec<Arc<[u8]>>,
    prefixes: Vec<Prefix>,
    /// The version of the directory that these are of.
    prefixes_version: u64,
    due: Vec<(Homes, Invalidation)>,
    /// Keys of other shards that scripts have declared.
    declared: Vec<TrackedRead>,
    totals: Arc<TrackingTotals>,
}

impl Tracking {
    /// Has it count what all shards have together.
    pub fn set_totals(&mut self, totals: Arc<TrackingTotals>) {
        self.totals = totals;
    }

    /// Whether changes of keys concern nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty()
    }

    /// A client of shard `home` has read a key of this shard.
    pub(super) fn read(&mut self, key: &[u8], client: ClientId, home: u16) {
        let Tracking { keys, order, totals, .. } = self;
        let tracked = match keys.get_mut(key) {
            Some(tracked) => tracked,
            None => {
                let key: Arc<[u8]> = key.into();
                let place = order.len();
                order.push(Arc::clone(&key));
                totals.keys.fetch_add(1, Ordering::Relaxed);
                keys.entry(key).or_insert(Tracked { readers: Readers::new(), place })
            }
        };
        if let Err(at) = tracked.readers.binary_search_by_key(&client, |&(reader, _)| reader) {
            tracked.readers.insert(at, (client, home));
            totals.items.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A key has changed. `by`: the client that has changed it, perhaps by a script; 0: none.
    pub(super) fn changed(&mut self, key: &[u8], by: ClientId, is_by_script: bool) {
        for prefix in &mut self.prefixes {
            if key.starts_with(&prefix.bytes) {
                prefix.changed.insert(key.into(), if is_by_script { 0 } else { by });
            }
        }
        if let Some((key, tracked)) = self.keys.remove_entry(key) {
            self.totals.keys.fetch_sub(1, Ordering::Relaxed);
            self.forgotten(key, tracked, by);
        }
    }

    /// Has the readers of a key told, which was taken out of `keys`.
    fn forgotten(&mut self, key: Arc<[u8]>, tracked: Tracked, by: ClientId) {
        self.order.swap_remove(tracked.place);
        if let Some(moved) = self.order.get(tracked.place) {
            self.keys.get_mut(moved).expect("what is in order has readers").place = tracked.place;
        }
        self.totals.items.fetch_sub(tracked.readers.len() as u64, Ordering::Relaxed);
        for (reader, home) in tracked.readers {
            self.due.push((Homes::One(home), Invalidation::Key { reader, key: Arc::clone(&key), by }));
        }
    }

    /// All keys of one or more databases are replaced. `tells`: this shard is the one that has all clients told.
    fn replaced_all(&mut self, tells: bool) {
        let items: u64 = self.keys.values().map(|tracked| tracked.readers.len() as u64).sum();
        self.totals.keys.fetch_sub(self.keys.len() as u64, Ordering::Relaxed);
        self.totals.items.fetch_sub(items, Ordering::Relaxed);
        self.keys = AHashMap::default();
        self.order = Vec::new();
        if tells && self.totals.clients() > 0 {
            self.due.push((Homes::All, Invalidation::All));
        }
    }

    /// Drops keys of this shard while all shards together have more than `max`, up to `effort` keys. Returns whether there are
    /// still too many then.
    pub(super) fn limit(&mut self, max: u64, effort: usize, mut random: impl FnMut() -> u64) -> bool {
        for _ in 0..effort {
            if self.order.is_empty() || !self.totals.take_excess_key(max) {
                return false;
            }
            let key = Arc::clone(&self.order[(random() % self.order.len() as u64) as usize]);
            let (key, tracked) = self.keys.remove_entry(&key).expect("what is in order has readers");
            self.forgotten(key, tracked, 0);
        }
        !self.order.is_empty() && self.totals.keys() > max
    }

    /// The version of the directory that the prefixes are of.
    #[inline]
    pub fn prefixes_version(&self) -> u64 {
        self.prefixes_version
    }

    /// Takes over the prefixes of a later version of the directory, each with the shards of its clients.
    fn set_prefixes(&mut self, version: u64, prefixes: Vec<(Arc<[u8]>, SmallVec<[u16; 8]>)>) {
        let earlier = std::mem::take(&mut self.prefixes).into_iter();
        let mut changed: AHashMap<_, _> = earlier.map(|prefix| (prefix.bytes, prefix.changed)).collect();
        let follow = |(bytes, homes): (Arc<[u8]>, SmallVec<[u16; 8]>)| {
            let changed = changed.remove(&bytes).unwrap_or_default();
            Prefix { bytes, homes, changed }
        };
        self.prefixes = prefixes.into_iter().map(follow).collect();
        self.prefixes_version = version;
    }

    /// Whether there is anything for [`Tracking::take_due`].
    #[inline]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty() || !self.prefixes.is_empty() || !self.declared.is_empty()
    }

    /// Takes what clients are to be told, in order.
    pub fn take_due(&mut self) -> Vec<(Homes, Invalidation)> {
        let mut due = std::mem::take(&mut self.due);
        for prefix in self.prefixes.iter_mut().filter(|prefix| !prefix.changed.is_empty()) {
            let keys: Vec<_> = std::mem::take(&mut prefix.changed).into_iter().collect();
            for &home in &prefix.homes {
                let (prefix, keys) = (Arc::clone(&prefix.bytes), keys.clone());
                due.push((Homes::One(home), Invalidation::Prefix { prefix, keys }));
            }
        }
        due
    }

    /// Takes the reads that other shards are to be told.
    pub fn take_declared(&mut self) -> Vec<TrackedRead> {
        std::mem::take(&mut self.declared)
    }

    /// A script of a client has declared a key of another shard.
    fn declare(&mut self, call: &Call, key: &[u8]) {
        self.declared.push(TrackedRead { key: key.into(), client: call.client, home: call.home });
    }
}

impl Shard {
    /// The client of a call has read a key: it is told of the key's next change.
    pub fn track_read(&mut self, call: &Call, key: Key<'_>) {
        if self.owns(key.bytes) {
            self.observers.change_tracking(|tracking| tracking.read(key.bytes, call.client, call.home));
        } else if !self.observers.record_read(call, key) {
            debug_assert!(false, "a key of another shard is read here while it is checked out");
            self.declare_read(call, key.bytes);
        }
    }

    /// A script of a client has declared a key, of this shard or another. It need not have read it: see
    /// [`Shard::track_read`] for that.
    pub fn declare_read(&mut self, call: &Call, key: &[u8]) {
        let owns = self.owns(key);
        self.observers.change_tracking(|tracking| {
            if owns { tracking.read(key, call.client, call.home) } else { tracking.declare(call, key) }
        });
    }

    /// Scripts of clients have declared these keys of this shard.
    pub fn track_declared(&mut self, reads: &[TrackedRead]) {
        self.observers.change_tracking(|tracking| {
            reads.iter().for_each(|read| tracking.read(&read.key, read.client, read.home));
        });
    }

    /// A command replaces or removes all keys of one or more databases.
    pub(super) fn track_replaced(&mut self) {
        let tells = self.index == 0;
        self.observers.change_tracking(|tracking| tracking.replaced_all(tells));
    }

    /// Takes over the prefixes of a later version of the directory.
    pub fn set_tracked_prefixes(&mut self, version: u64, prefixes: Vec<(Arc<[u8]>, SmallVec<[u16; 8]>)>) {
        self.observers.change_tracking(|tracking| tracking.set_prefixes(version, prefixes));
    }

    /// Drops tracked keys over the limit, up to `effort`. Returns whether there are still too many.
    pub fn limit_tracking(&mut self, effort: usize) -> bool {
        let max = self.config.tracking_table_max_keys;
        if max == 0 {
            return false;
        }
        let random = self.random_numbers();
        self.observers.change_tracking(|tracking| tracking.limit(max, effort, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tracking: &mut Tracking) -> Vec<(ClientId, String, ClientId)> {
        let told = tracking.take_due().into_iter().map(|(_, invalidation)| match invalidation {
            Invalidation::Key { reader, key, by } => (reader, String::from_utf8_lossy(&key).into_owned(), by),
            Invalidation::Prefix { .. } | Invalidation::All => panic!("nobody has asked for that"),
        });
        told.collect()
    }

    fn totals(tracking: &Tracking) -> (u64, u64) {
        (tracking.totals.keys(), tracking.totals.items())
    }

    #[test]
    fn a_reader_is_told_of_the_next_change_and_of_no_later_one() {
        let mut tracking = Tracking::default();
        for client in [7, 5, 7] {
            tracking.read(b"a", client, 0);
        }
        tracking.read(b"b", 5, 0);
        assert_eq!(totals(&tracking), (2, 3));

        tracking.changed(b"c", 9, false);
        tracking.changed(b"a", 9, false);
        tracking.changed(b"a", 9, false);

        assert_eq!(told(&mut tracking), [(5, "a".into(), 9), (7, "a".into(), 9)]);
        assert_eq!(totals(&tracking), (1, 1));
        tracking.changed(b"b", 0, false);
        assert_eq!(told(&mut tracking), [(5, "b".into(), 0)]);
        assert!(tracking.is_empty() && totals(&tracking) == (0, 0));
    }

    #[test]
    fn keys_over_the_limit_are_dropped_on_any_shard_and_no_more_of_them() {
        let all = Arc::new(TrackingTotals::default());
        let mut shards = [Tracking::default(), Tracking::default(), Tracking::default()];
        for (n, shard) in shards.iter_mut().enumerate() {
            shard.set_totals(Arc::clone(&all));
            (0..n * 10).for_each(|key| shard.read(format!("{n}:{key}").as_bytes(), 1, 0));
        }
        let mut next = 0;
        let mut random = || {
            next += 7;
            next
        };
        assert!(shards[2].limit(3, 5, &mut random), "it has tried five keys");
        let mut dropped = told(&mut shards[2]).len();
        assert_eq!(dropped, 5);
        for shard in &mut shards {
            assert!(!shard.limit(3, 100, &mut random));
            dropped += told(shard).len();
        }
        assert_eq!((dropped, all.keys(), all.items()), (27, 3, 3));
        let left: Vec<usize> = shards.iter().map(|shard| shard.keys.len()).collect();
        assert_eq!(left.iter().sum::<usize>(), 3);
        for shard in &mut shards {
            let keys = shard.order.clone();
            keys.iter().for_each(|key| shard.changed(key, 2, false));
            assert!(shard.is_empty() && shard.order.is_empty());
        }
        assert_eq!((all.keys(), all.items()), (0, 0));
    }

    #[test]
    fn a_prefix_has_each_key_once_with_who_has_changed_it_last() {
        let mut tracking = Tracking::default();
        let homes = SmallVec::from_slice(&[0, 2]);
        tracking.set_prefixes(1, vec![(b"a:"[..].into(), homes.clone())]);
        let changes = [("a:2", 1, false), ("a:1", 1, false), ("b:1", 1, false), ("a:2", 1, true)];
        for (key, by, is_by_script) in changes {
            tracking.changed(key.as_bytes(), by, is_by_script);
        }
        // Another prefix comes; what was to be told stays.
        tracking.set_prefixes(2, vec![(b""[..].into(), homes.clone()), (b"a:"[..].into(), homes)]);

        let due = tracking.take_due();

        let to: Vec<Homes> = due.iter().map(|(homes, _)| *homes).collect();
        assert_eq!(to, [Homes::One(0), Homes::One(2)]);
        for (_, invalidation) in due {
            let Invalidation::Prefix { prefix, keys } = invalidation else { panic!("{invalidation:?}") };
            let keys: Vec<(&[u8], ClientId)> = keys.iter().map(|(key, by)| (&**key, *by)).collect();
            assert_eq!((&*prefix, keys.as_slice()), (&b"a:"[..], &[(&b"a:1"[..], 1), (b"a:2", 0)][..]));
        }
        assert!(tracking.take_due().is_empty());
    }
}
