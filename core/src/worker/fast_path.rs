//! The fast path: a tight loop over requests with one key, on a connection in its ordinary state.
//!
//! What `Worker::execute` checks for each request is checked once for all of them. A request for a key of another shard
//! is added to the batch for that shard; one for a key of this shard runs at once. The clock is read once for several
//! commands that take constant time. The outcome is the same as that of `execute`. Commands that other shards send in
//! batches have been checked there, and run in the same manner.

use super::Worker;
use super::pipeline::Prepared;
use crate::acl::User;
use crate::client::ReplyMode;
use crate::command::table::{CommandId, flag};
use crate::command::{Call, admission};
use crate::protocol::{ArgRange, Argv};
use std::sync::Arc;

impl Worker {
    /// The call that all requests of a connection share on the fast path, the flags of commands that cannot take it, and
    /// its user, if that may not do everything. `None` if no request can take it at present: the state of the connection, the shard or the server requires
    /// the checks of `execute`.
    #[inline]
    fn fast_path_call(&self, at: usize) -> Option<(Call, u64, Option<Arc<User>>)> {
        let connection = self.connections[at].as_deref()?;
        let client = &connection.client;
        let plain = client.multi.is_none()
            && connection.pending.len() < connection.pending_max
            && client.reply_mode == ReplyMode::On
            && !client.caching_given()
            && self.shard.locks.is_empty();
        if !plain {
            return None;
        }
        debug_assert!(!self.shard.blocking.has_due(), "a key that waits to be handed off is locked");
        let checked = admission::checked_flags_of_permitted(&client.caller(), &self.conditions());
        let call = Call { hashed_arg: 1, ..client.call(self.shard.index) };
        let user = client.is_restricted().then(|| Arc::clone(client.user()));
        Some((call, checked | flag::BLOCKING | flag::TOUCHES_ARBITRARY_KEYS, user))
    }

    /// Takes the first requests of `requests` as long as they qualify for the fast path: runs them, or adds them to the
    /// batch for their shard. Returns how many. The connection may have been closed over its output limit when this
    /// returns.
    pub(super) fn run_fast_path(
        &mut self,
        at: usize,
        buf: &[u8],
        requests: &[Prepared],
        args: &[ArgRange],
    ) -> usize {
        let Some((mut call, other_flags, user)) = self.fast_path_call(at) else { return 0 };
        let Some(connection) = self.connections[at].as_deref() else { return 0 };
        let watched_bytes = connection.watched_bytes(self.output_limit_near_bytes);
        let table = self.table;
        let home = self.shard.index as u32;
        // A request on the fast path cannot block, so this does not change from false to true in the loop.
        let is_awaited = !self.shard.blocking.is_empty();
        let shared = call;
        let id_of = |request: &Prepared| request.command().unwrap_or_default();
        let call_of =
            |request: &Prepared| (Call { command: id_of(request), ..shared }, request.argv(buf, args));
        let time = |worker: &mut Worker, tally: &mut Tally, ran: &[Prepared]| {
            let ran_here = ran.iter().filter(|request| request.shard == home);
            worker.time_fast_path(std::mem::take(tally), ran_here, id_of, call_of);
        };
        // Opened for a run of requests with keys of this shard only: with many shards most are of others.
        let mut replies = None;
        // The requests before this one have been timed, and the tally is of those after it.
        let mut timed = 0;
        let mut tally = Tally::default();
        let mut count = 0;
        for request in requests {
            let Some(id) = request.command() else { break };
            let entry = table.entry(id);
            if !request.is_fast_path() || entry.row.flags & other_flags != 0 {
                break;
            }
            // `execute` finds the same, and replies with the error.
            if let Some(user) = &user
                && user.check(table, entry, request.argv(buf, args)).is_err()
            {
                break;
            }
            if request.shard == home {
                call.command = id;
                call.hash = request.hash;
                if !entry.row.is_constant_time {
                    time(self, &mut tally, &requests[timed..count]);
                    timed = count;
                }
                if replies.is_none() {
                    replies = self.open_replies(at);
                }
                let Some(Replies { out, .. }) = &mut replies else { break };
                self.run_on_fast_path(entry, &call, request.argv(buf, args), out);
                let out_len_bytes = out.len();
                tally.add(id);
                count += 1;
                if !entry.row.is_constant_time {
                    time(self, &mut tally, &requests[timed..count]);
                    timed = count;
                }
                // The key it has changed may be locked now, to be handed off to blocked clients.
                let is_locked = is_awaited && !self.shard.locks.is_empty();
                if is_locked || out_len_bytes >= watched_bytes {
                    break;
                }
            } else {
                if let Some(open) = replies.take() {
                    self.close_replies(at, open);
                }
                let Some(connection) = self.connections[at].as_deref_mut() else { break };
                if connection.pending.len() >= connection.pending_max {
                    break;
                }
                let reply_id = connection.await_reply(at);
                let argv = request.argv(buf, args);
                self.batch_request(request.shard as usize, reply_id, &shared, id, request.hash, argv);
                count += 1;
            }
        }
        time(self, &mut tally, &requests[timed..count]);
        if let Some(open) = replies {
            self.close_replies(at, open);
        }
        let Some(connection) = self.connections[at].as_deref_mut() else { return count };
        if count > 0 {
            connection.client.last_command = requests[count - 1].command();
            connection.client.command_count += count as u64;
            let is_watched = connection.output_len_bytes() >= watched_bytes;
            self.mark_dirty(at);
            if is_watched {
                self.watch_output(at);
            }
        }
        count
    }

    /// Takes the buffer to which the next replies of a connection are appended, until `close_replies`.
    #[inline]
    fn open_replies(&mut self, at: usize) -> Option<Replies> {
        let connection = self.connections[at].as_deref_mut()?;
        if connection.pending.is_empty() {
            return Some(Replies { out: self.take_output(at), waits_from: None });
        }
        connection.make_ready_room(&mut self.pools.buffers);
        let out = std::mem::take(&mut connection.ready);
        Some(Replies { waits_from: Some(out.len()), out })
    }

    #[inline]
    fn close_replies(&mut self, at: usize, replies: Replies) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        match replies.waits_from {
            None => connection.out = replies.out,
            Some(start) => {
                connection.ready = replies.out;
                if connection.ready.len() > start {
                    connection.record_ready(start);
                }
            }
        }
    }

    /// Counts and times the commands of a tally, which are those that [`run_untimed`](Self::run_untimed) has run since the
    /// clock was last read: one command, or several that take constant time. These are timed together, because reading
    /// the clock costs as much as looking up a key, and each is charged the mean. (That includes the time for adding
    /// requests between them to the batches of other shards.)
    #[inline]
    pub(super) fn time_fast_path<'c, 'a, T: 'c>(
        &mut self,
        tally: Tally,
        commands: impl Iterator<Item = &'c T> + Clone,
        id_of: impl Fn(&T) -> CommandId,
        call_of: impl Fn(&T) -> (Call, Argv<'a>),
    ) {
        let count = tally.count;
        if count == 0 {
            return;
        }
        let nanos = self.time.take_nanos();
        let stats = &self.shard.stats;
        stats.commands_processed.add(count);
        let track_latency = self.shard.config.latency_tracking;
        let record = |id, alike| stats.command(id).record_all(alike, nanos / count, track_latency);
        if tally.is_mixed {
            if tally.carried > 0 {
                record(tally.carried_id, tally.carried);
            }
            record_runs(commands.clone().map(id_of), record);
        } else {
            record(tally.last, count);
        }
        if nanos >= self.time.noted_from_nanos {
            self.note_slow_of(commands.map(call_of), nanos, nanos / count);
        }
    }

    /// Notes which of commands that were timed together was slow: all of them, if the mean is (slowlog-log-slower-than 0 asks
    /// for every command). Otherwise it is not known; the one with the longest arguments is the best guess.
    #[cold]
    fn note_slow_of<'a>(
        &mut self,
        commands: impl Iterator<Item = (Call, Argv<'a>)>,
        nanos: u64,
        mean_nanos: u64,
    ) {
        if mean_nanos >= self.time.noted_from_nanos {
            for (call, args) in commands {
                self.note_slow(args, mean_nanos, &call, self.table.entry(call.command));
            }
        } else if let Some((call, args)) = commands.max_by_key(|(_, args)| args.total_len_bytes()) {
            self.note_slow(args, nanos, &call, self.table.entry(call.command));
        }
    }
}

/// Records commands of one kind that come one behind the other together, as they often do.
#[inline(never)]
fn record_runs(ids: impl Iterator<Item = CommandId>, record: impl Fn(CommandId, u64)) {
    let (mut last, mut alike) = (CommandId::default(), 0);
    for id in ids {
        if id != last && alike > 0 {
            record(last, alike);
            alike = 0;
        }
        (last, alike) = (id, alike + 1);
    }
    record(last, alike);
}

/// How many commands have run since the clock was last read. Mostly all are of one kind, and need not be looked at again.
#[derive(Default)]
pub(super) struct Tally {
    count: u64,
    last: CommandId,
    is_mixed: bool,
    /// How many of them, the first, are of earlier batches; and their kind.
    carried_id: CommandId,
    carried: u64,
}

impl Tally {
    #[inline(always)]
    pub(super) fn add(&mut self, id: CommandId) {
        if id != self.last {
            self.is_mixed |= self.count > 0;
            self.last = id;
        }
        self.count += 1;
    }

    #[inline]
    pub(super) fn is_mixed(&self) -> bool {
        self.is_mixed
    }

    /// The tally of commands of one kind, to be continued by another batch.
    #[inline]
    pub(super) fn as_carried(&self) -> Tally {
        debug_assert!(!self.is_mixed);
        Tally {
            count: self.count,
            last: self.last,
            is_mixed: false,
            carried_id: self.last,
            carried: self.count,
        }
    }
}

/// A connection's buffer for replies, taken out while commands write to it.
struct Replies {
    out: Vec<u8>,
    /// The replies from this offset on come after replies that are still pending; `None`: none is pending, and they can
    /// be sent.
    waits_from: Option<usize>,
}
