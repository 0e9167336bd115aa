//! The short way: requests for one key of this shard, on a connection with nothing special about it, in a tight loop.
//!
//! What `Worker::execute` asks for each request is asked once for all of them, and the clock is read once for those that
//! take constant time. The outcome is the same.

use super::Worker;
use super::pipeline::{OUTPUT_WATCHED_BYTES, Prepared};
use crate::client::ReplyMode;
use crate::command::table::{CommandId, Run, flag};
use crate::command::{Call, Ctx};
use crate::protocol::reply::Reply;
use crate::protocol::{ArgRange, Argv};

impl Worker {
    /// The call that all straight requests of a connection share, if it has any at present: nothing that `execute`
    /// asks about connection, shard or process stands in the way of a command over one key. With it, the flags of rows
    /// that are not run this way.
    #[inline]
    fn straight_call(&self, at: usize) -> Option<(Call, u64)> {
        let connection = self.connections[at].as_deref()?;
        let client = &connection.client;
        let config = &self.shard.config;
        let plain = client.multi.is_none()
            && connection.pending.is_empty()
            && client.reply_mode == ReplyMode::On
            && (client.authenticated || config.requirepass.is_empty())
            && self.shard.locks.is_empty()
            && self.globals.pause(self.shard.now_ms).is_none();
        if !plain {
            return None;
        }
        let out_of_the_way = flag::PROTECTED | flag::BLOCKING | flag::TOUCHES_ARBITRARY_KEYS;
        let bounded = if config.maxmemory_bytes != 0 { flag::DENYOOM } else { 0 };
        let call = Call {
            command: CommandId::default(),
            db: client.db,
            resp: client.resp,
            no_touch: client.no_touch,
            in_exec: false,
            client: client.id,
            home: self.shard.index as u32,
            hash: 0,
            hashed_arg: 1,
        };
        Some((call, out_of_the_way | bounded))
    }

    /// Runs the straight requests at the start of `requests`, and returns how many. The connection may be closed then,
    /// over its output limit.
    pub(super) fn run_straight(
        &mut self,
        at: usize,
        buf: &[u8],
        requests: &[Prepared],
        args: &[ArgRange],
    ) -> usize {
        let Some((mut call, other_flags)) = self.straight_call(at) else { return 0 };
        let mut out = self.take_output(at);
        let table = self.table;
        // Nobody begins to read effects, or to wait for a key, by a straight request.
        let notes_effects = self.shard.effects.is_on();
        let is_awaited = !self.shard.blocking.is_empty();
        let argv_of = |request: &Prepared| request.argv(buf, args);
        // Commands that have run and have not been timed.
        let mut untimed = 0;
        let mut count = 0;
        for request in requests {
            let Some(id) = request.command else { break };
            let entry = table.entry(id);
            let Run::Keys(handler) = entry.row.run else { break };
            if !request.is_straight || entry.row.flags & other_flags != 0 {
                break;
            }
            if !entry.is_constant_time {
                self.time_straight(&requests[count - untimed..count], &call, argv_of);
                untimed = 0;
            }
            call.command = id;
            call.hash = request.hash;
            let start = out.len();
            let mut ctx = Ctx {
                shard: &mut self.shard,
                call: &call,
                args: argv_of(request),
                reply: Reply::new(&mut out, call.resp),
            };
            if let Err(error) = handler(&mut ctx) {
                self.fail(entry, &error, call.resp, start, &mut out);
            }
            if notes_effects {
                self.note_effects(entry, &call, argv_of(request));
            }
            count += 1;
            untimed += 1;
            if !entry.is_constant_time {
                self.time_straight(&requests[count - 1..count], &call, argv_of);
                untimed = 0;
            }
            if out.len() >= OUTPUT_WATCHED_BYTES {
                break;
            }
            // What it has changed may be locked now, for those who wait for it.
            if is_awaited && !self.shard.locks.is_empty() {
                break;
            }
        }
        self.time_straight(&requests[count - untimed..count], &call, argv_of);
        let Some(connection) = self.connections[at].as_deref_mut() else { return count };
        connection.out = out;
        if count > 0 {
            connection.client.last_command = Some(call.command);
            connection.client.command_count += count as u64;
            let is_watched = connection.out.len() >= OUTPUT_WATCHED_BYTES;
            self.mark_dirty(at);
            if is_watched {
                self.check_output_limit(at);
            }
        }
        count
    }

    /// Counts and times what has run since the clock was read last: one command, or several that take constant time.
    /// These are timed together, for reading the clock costs as much as looking a key up, and each is charged the mean.
    fn time_straight<'a>(
        &mut self,
        requests: &[Prepared],
        call: &Call,
        argv_of: impl Fn(&Prepared) -> Argv<'a>,
    ) {
        if requests.is_empty() {
            return;
        }
        let nanos = self.take_time();
        let mean = nanos / requests.len() as u64;
        let stats = &self.shard.stats;
        stats.commands_processed.add(requests.len() as u64);
        let track_latency = self.shard.config.latency_tracking;
        for id in requests.iter().filter_map(|request| request.command) {
            stats.command(id).record(mean, track_latency);
        }
        if nanos >= self.slow_from_nanos {
            // Which of several it was nobody knows; the one with the most to do is the best guess.
            let longest = requests.iter().max_by_key(|request| request.end - request.start);
            if let Some(request) = longest
                && let Some(id) = request.command
            {
                self.note_slow(argv_of(request), nanos / 1000, call, self.table.entry(id));
            }
        }
    }
}
