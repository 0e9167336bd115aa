//! Client-side caching at a worker: its clients that track, and the delivery of invalidations to them. How these come to be, and
//! why they come in time, is described in [`shard::tracking`](crate::shard::tracking).

use super::Worker;
use super::connection::Connection;
use crate::call::{Call, ClientId, Key};
use crate::client::{Tracking, TrackingMode};
use crate::command::keys;
use crate::command::table::{CommandEntry, KeyShape, Run, flag};
use crate::protocol::{Argv, Reply, Resp};
use crate::shard::message::Message;
use crate::shard::slot::shard_of;
use crate::shard::tracking::{Homes, Invalid, Invalidation, Redirected, TrackedRead, TrackingMessage};
use crate::types::hashing::hash_key;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The channel on which clients of RESP2 are told what others redirect to them.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// So many keys over the limit are dropped in a turn, and so many more in each turn in which that was not enough.
const DROPPED_KEYS: usize = 100;

/// A shard's clients that track.
#[derive(Default)]
pub(super) struct Trackers {
    /// The indexes of their connections.
    connections: BTreeSet<usize>,
    /// Those that hold invalidations back for other clients.
    holding: BTreeSet<usize>,
    /// The sum of [`Connection::invalidation_bytes`].
    invalidation_bytes: u64,
    /// How many turns in a row have not dropped enough keys.
    limit_turns: usize,
}

// What clients ask for.
impl Worker {
    /// A connection's client tracks from now on, or in another way.
    pub fn begin_tracking(&mut self, at: usize, mut new: Tracking) {
        let connection = self.connections[at].as_deref_mut().expect("its request is being executed");
        if let Some(earlier) = connection.client.tracking.as_deref_mut() {
            new.prefixes.append(&mut earlier.prefixes);
        } else {
            self.globals.tracking.add_client();
            self.trackers.connections.insert(at);
        }
        connection.client.set_tracking(Some(Box::new(new)));
    }

    /// Has a connection's client told of changes of keys with these prefixes, before it asks for anything else.
    pub fn track_prefixes(&mut self, at: usize, prefixes: &[&[u8]]) {
        let connection = self.connections[at].as_deref_mut().expect("its request is being executed");
        let tracking = connection.client.tracking.as_deref_mut().expect("it tracks");
        let new = prefixes.iter().filter(|&&prefix| tracking.prefixes.insert(prefix.into()));
        self.globals.directory.add_key_prefixes(new.copied(), self.shard.index);
        self.follow_prefixes();
    }

    /// A connection's client does not track any more.
    pub fn end_tracking(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let Some(tracking) = connection.client.tracking.take() else { return };
        connection.client.set_tracking(None);
        self.trackers.connections.remove(&at);
        self.globals.tracking.remove_client();
        let prefixes = tracking.prefixes.iter().map(|prefix| &**prefix);
        self.globals.directory.remove_key_prefixes(prefixes, self.shard.index);
        self.follow_prefixes();
    }

    /// The same for a connection that ends: nothing of it is left to be sent.
    pub(super) fn drop_tracking(&mut self, at: usize) {
        self.end_tracking(at);
        self.note_sent_buffer(at, usize::MAX);
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        self.trackers.holding.remove(&at);
        for held in std::mem::take(&mut connection.redirects) {
            let (to, redirected) = held.redirected;
            self.tell_tracker(to, TrackingMessage::Redirected(redirected));
        }
    }

    /// The shard that serves a client; `None`: it is not connected.
    pub fn home_of(&self, client: ClientId) -> Option<u16> {
        self.globals.client_addrs.home_of(client)
    }

    /// To be called after each request of a client for which CLIENT CACHING was given: that holds for one command, or one
    /// transaction, but CLIENT does not count.
    #[cold]
    pub(super) fn end_caching(&mut self, at: usize) {
        let last_command =
            self.connections[at].as_deref().and_then(|connection| connection.client.last_command);
        let is_client = |id| self.table.entry(id).full_name.starts_with("client|");
        self.end_caching_after(at, last_command.is_some_and(is_client));
    }

    /// The same for a request that is not run. `is_client`: it is CLIENT.
    pub(super) fn end_caching_after(&mut self, at: usize, is_client: bool) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if connection.client.multi.is_none() && !is_client {
            connection.client.set_caching_given(false);
        }
    }
}

// Reads, and the copy of the prefixes.
impl Worker {
    /// A command of a client that tracks has run.
    #[cold]
    pub(super) fn track(&mut self, entry: &CommandEntry, call: &Call, args: Argv<'_>) {
        if !entry.row.has(flag::READONLY) {
            return;
        }
        if entry.shape == KeyShape::First && call.hashed_arg == 1 {
            self.shard.track_read(call, Key { bytes: args.arg(1), hash: call.hash });
            return;
        }
        let shard = &mut self.shard;
        keys::each(entry.row, args, |at, _| {
            let bytes = args.arg(at);
            shard.track_read(call, Key { bytes, hash: hash_key(bytes) });
        });
    }

    /// A script of a client has declared the keys of this command.
    pub(super) fn track_declared(&mut self, entry: &CommandEntry, call: &Call, args: Argv<'_>) {
        let shard = &mut self.shard;
        keys::each(entry.row, args, |at, _| shard.declare_read(call, args.arg(at)));
    }

    /// Looks whether prefixes have come or gone.
    #[inline]
    pub(super) fn follow_prefixes(&mut self) {
        if self.globals.directory.key_prefixes_version() != self.shard.observers.tracking().prefixes_version()
        {
            let (version, prefixes) = self.globals.directory.key_prefixes();
            self.shard.set_tracked_prefixes(version, prefixes);
        }
    }

    /// At the end of a turn: drops tracked keys if all shards have more of them than is allowed.
    #[inline]
    pub(super) fn limit_tracking(&mut self) {
        if self.globals.tracking.keys() == 0 {
            return;
        }
        let effort = DROPPED_KEYS * (self.trackers.limit_turns + 1);
        self.trackers.limit_turns = match self.shard.limit_tracking(effort) {
            true => self.trackers.limit_turns + 1,
            false => 0,
        };
    }

    /// The configuration has changed: has all shards look whether they have too many keys now.
    pub(super) fn have_tracking_limited(&mut self) {
        let max = self.shard.config.tracking_table_max_keys;
        if max == 0 || self.globals.tracking.keys() <= max {
            return;
        }
        self.limit_tracking();
        self.spread_invalidations();
        for shard in self.other_shards() {
            self.send(shard, Message::Tracking(TrackingMessage::Limit));
        }
    }
}

// Invalidations.
impl Worker {
    /// Sends what has become invalid on this shard to the homes of the clients that are to know. The replies of commands that
    /// have run are in their places: no buffer is lent.
    #[inline]
    pub(super) fn spread_invalidations(&mut self) {
        if self.shard.observers.tracking().has_due() {
            self.spread_due();
        }
    }

    #[cold]
    fn spread_due(&mut self) {
        let (due, declared) =
            self.shard.observers.change_tracking(|tracking| (tracking.take_due(), tracking.take_declared()));
        let shard_count = self.shard.shard_count;
        let mut by_home: Vec<Vec<Invalidation>> = vec![Vec::new(); shard_count];
        for (homes, invalidation) in due {
            match homes {
                Homes::One(home) => by_home[usize::from(home)].push(invalidation),
                Homes::All => by_home.iter_mut().for_each(|list| list.push(invalidation.clone())),
            }
        }
        let mut by_owner: Vec<Vec<TrackedRead>> = (0..shard_count).map(|_| Vec::new()).collect();
        declared.into_iter().for_each(|read| by_owner[shard_of(&read.key, shard_count)].push(read));
        for (owner, reads) in by_owner.into_iter().enumerate().filter(|(_, reads)| !reads.is_empty()) {
            self.send(owner, Message::Tracking(TrackingMessage::Declared(reads)));
        }
        for (home, list) in by_home.into_iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            if home == self.shard.index {
                self.invalidate_all(&list);
            } else {
                self.send(home, Message::Tracking(TrackingMessage::Invalid(list)));
            }
        }
    }

    pub(super) fn handle_tracking(&mut self, message: TrackingMessage) {
        match message {
            TrackingMessage::Invalid(list) => self.invalidate_all(&list),
            TrackingMessage::Redirected(redirected) => self.take_redirected(&redirected),
            TrackingMessage::Broken { client, redirect } => self.redirect_is_broken(client, redirect),
            TrackingMessage::Declared(reads) => self.shard.track_declared(&reads),
            TrackingMessage::Limit => {
                self.limit_tracking();
                self.spread_invalidations();
            }
        }
    }

    fn invalidate_all(&mut self, list: &[Invalidation]) {
        for invalidation in list {
            match invalidation {
                Invalidation::Key { reader, key, by } => {
                    let Some(at) = self.find_client(*reader) else { continue };
                    let Some(tracking) = self.tracking_of(at) else { continue };
                    let is_own = tracking.noloop && by == reader;
                    if tracking.mode != TrackingMode::Broadcast && !is_own {
                        self.invalidate(at, Invalid::Keys(vec![Arc::clone(key)]));
                    }
                }
                Invalidation::Prefix { prefix, keys } => {
                    for at in self.trackers.connections.clone() {
                        let Some(tracking) = self.tracking_of(at) else { continue };
                        if !tracking.prefixes.contains(prefix) {
                            continue;
                        }
                        let client = self.connections[at].as_deref().map(|connection| connection.client.id);
                        let own = client.filter(|_| tracking.noloop);
                        let others = keys.iter().filter(|(_, by)| Some(*by) != own);
                        let others: Vec<_> = others.map(|(key, _)| Arc::clone(key)).collect();
                        if !others.is_empty() {
                            self.invalidate(at, Invalid::Keys(others));
                        }
                    }
                }
                Invalidation::All => {
                    for at in self.trackers.connections.clone() {
                        self.invalidate(at, Invalid::All);
                    }
                }
            }
        }
    }

    fn tracking_of(&self, at: usize) -> Option<&Tracking> {
        self.connections[at].as_deref()?.client.tracking.as_deref()
    }

    /// Tells a client, or the one that it redirects to, behind the replies that it awaits.
    fn invalidate(&mut self, at: usize, what: Invalid) {
        let reads_later = self.reads_later(at);
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let Some(tracking) = connection.client.tracking.as_deref() else { return };
        if tracking.redirect != 0 {
            let (to, home) = (tracking.redirect, self.shard.index as u16);
            let redirected = Box::new(Redirected { to, from: connection.client.id, home, what });
            let to_home = tracking.redirect_home;
            connection.redirect_behind_reads(reads_later, to_home, redirected);
            self.trackers.holding.insert(at);
            self.send_redirects(at);
        } else if connection.client.resp == Resp::V3 {
            let mut message = Vec::new();
            let mut reply = Reply::new(&mut message, Resp::V3);
            reply.push(2);
            reply.bulk(b"invalidate");
            write_invalid(&mut reply, &what);
            self.push_to_tracker(at, &message);
        }
    }

    /// Whether a connection waits in a command that is blocked on keys, which reads when it is served. One that a program holds
    /// may have read already.
    fn reads_later(&self, at: usize) -> bool {
        self.blocked_command(at).is_some_and(|entry| matches!(entry.row.run, Run::Blocking(_)))
    }

    fn push_to_tracker(&mut self, at: usize, message: &[u8]) {
        let reads_later = self.reads_later(at);
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if connection.takes_messages() {
            let before_bytes = connection.output_capacity_bytes();
            connection.push_behind_reads(reads_later, message, &mut self.pools.buffers);
            let grown_bytes = connection.output_capacity_bytes().saturating_sub(before_bytes);
            connection.invalidation_bytes += grown_bytes;
            self.trackers.invalidation_bytes += grown_bytes as u64;
            self.mark_dirty(at);
        }
    }

    /// By how much the buffers of output have grown for invalidations that have not been sent.
    pub(super) fn invalidation_bytes(&self) -> u64 {
        self.trackers.invalidation_bytes
    }

    /// A connection has sent a buffer of so many bytes.
    #[inline]
    pub(super) fn note_sent_buffer(&mut self, at: usize, capacity_bytes: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if connection.invalidation_bytes > 0 {
            let is_all = connection.output_len_bytes() == 0;
            let gone = connection.invalidation_bytes.min(if is_all { usize::MAX } else { capacity_bytes });
            connection.invalidation_bytes -= gone;
            self.trackers.invalidation_bytes -= gone as u64;
        }
    }

    /// Sends the invalidations to the clients that a connection's client redirects to, as far as the replies before them have
    /// been sent.
    fn send_redirects(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let mut ready = Vec::new();
        while let Some(next) = connection.next_redirect() {
            ready.push(next);
        }
        if connection.redirects.is_empty() {
            self.trackers.holding.remove(&at);
        }
        for (to, redirected) in ready {
            self.tell_tracker(to, TrackingMessage::Redirected(redirected));
        }
    }

    /// The same for all connections. Called at the end of each turn: what has been sent since is known then.
    #[inline]
    pub(super) fn send_held_redirects(&mut self) {
        if !self.trackers.holding.is_empty() {
            self.trackers.holding.clone().into_iter().for_each(|at| self.send_redirects(at));
        }
    }

    fn tell_tracker(&mut self, shard: u16, message: TrackingMessage) {
        if usize::from(shard) == self.shard.index {
            self.handle_tracking(message);
        } else {
            self.send(usize::from(shard), Message::Tracking(message));
        }
    }

    /// Another client redirects this to one of this shard.
    fn take_redirected(&mut self, redirected: &Redirected) {
        let Redirected { to, from, home, what } = redirected;
        // One whose connection is about to be closed is told nothing any more.
        let is_there = |&at: &usize| self.connections[at].as_deref().is_some_and(Connection::takes_messages);
        let Some(at) = self.find_client(*to).filter(is_there) else {
            let broken = TrackingMessage::Broken { client: *from, redirect: *to };
            self.tell_tracker(*home, broken);
            return;
        };
        let Some(connection) = self.connections[at].as_deref() else { return };
        let mut message = Vec::new();
        let mut reply = Reply::new(&mut message, connection.client.resp);
        match connection.client.resp {
            Resp::V3 => {
                reply.push(2);
                reply.bulk(b"invalidate");
            }
            // Without push messages, only who listens to channels expects anything.
            Resp::V2 if connection.client.subscriptions.is_none() => return,
            Resp::V2 => {
                reply.push(3);
                reply.bulk(b"message");
                reply.bulk(CHANNEL);
            }
        }
        write_invalid(&mut reply, what);
        // It may have changed the key itself: the reply to that comes first.
        self.push_to_tracker(at, &message);
    }

    /// The client that another redirects to is no more.
    fn redirect_is_broken(&mut self, client: ClientId, redirect: ClientId) {
        let Some(at) = self.find_client(client) else { return };
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let resp = connection.client.resp;
        let Some(tracking) = connection.client.tracking.as_deref_mut() else { return };
        if tracking.redirect != redirect {
            return;
        }
        tracking.is_broken = true;
        if resp == Resp::V3 {
            let mut message = Vec::new();
            let mut reply = Reply::new(&mut message, resp);
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            reply.integer(redirect as i64);
            self.push_to_tracker(at, &message);
        }
    }
}

impl Connection {
    /// Whether messages that are no replies reach its client.
    fn takes_messages(&self) -> bool {
        !self.close_after_reply && !self.peer.is_deaf && !self.client.is_replica()
    }
}

/// The keys, or null for all.
fn write_invalid(reply: &mut Reply<'_>, what: &Invalid) {
    match what {
        Invalid::All => reply.null(),
        Invalid::Keys(keys) => {
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
    }
}
