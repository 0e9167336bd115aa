//! Convoys: commands over several shards that one client sends ahead without waiting, as one transaction.
//!
//! A command over several shards is alone in its connection's pipeline, because its locks travel on other ways than
//! commands over one key do. So a pipeline of such commands would take a round through the shards for each of them.
//! But a client that has sent several does not mind when they take effect at one moment, and neither does anybody else:
//! the order among them is kept, and every reply is what it would have been. So they, and what stands between them over
//! single keys, are locked, run and answered together, as an EXEC's queue would be.
//!
//! But for those who wait for a key that one of them changes: Redis serves these before the next command runs, which
//! may see it (LPUSH, LLEN). So a shard that has locked its keys for a convoy and finds that somebody waits for one of
//! them refuses; then nothing is done anywhere, and home sends the commands one by one.

use super::Worker;
use super::pipeline::{Flow, Prepared, arity_fits, begin_request};
use crate::client::ReplyMode;
use crate::command::Call;
use crate::command::route::{self, Placement};
use crate::command::table::{Entry, Run, flag};
use crate::protocol::ArgRange;

/// A convoy's requests have no more bytes than this: as long as it is under way, its keys are locked.
const CONVOY_BYTES_MAX: usize = 64 << 10;

/// What cannot be part of a convoy: it may wait, needs more than its keys, or is asked for more than the gate's usual.
const ALONE: u64 =
    flag::PROTECTED | flag::BLOCKING | flag::TOUCHES_ARBITRARY_KEYS | flag::RUNS_IN_MULTI | flag::NO_MULTI;

impl Worker {
    /// Starts the requests at the start of `requests` as a convoy, if the first of them is for several shards, and at
    /// least one more can go with it. Returns how many; 0: none is started.
    pub(super) fn begin_convoy(
        &mut self,
        at: usize,
        buf: &[u8],
        requests: &[Prepared],
        args: &[ArgRange],
    ) -> usize {
        let (home, shard_count) = (self.shard.index, self.shard.shard_count);
        let joins = |request: &Prepared| {
            let argv = request.argv(buf, args);
            let entry = self.table.entry(request.command?);
            let plain = matches!(entry.row.run, Run::Keys(_)) && entry.row.flags & ALONE == 0;
            if !plain || !arity_fits(entry, argv) {
                return None;
            }
            match request.shard() {
                Some(shard) => Some((entry, Placement::One(shard))),
                None => match route::place(entry, argv, home, shard_count) {
                    placement @ (Placement::One(_) | Placement::Split) => Some((entry, placement)),
                    _ => None,
                },
            }
        };
        let [first, second, ..] = requests else { return 0 };
        if !self.lets_convoys_pass(at)
            || !matches!(joins(first), Some((_, Placement::Split)))
            || joins(second).is_none()
        {
            return 0;
        }
        let start = first.start;
        let members: Vec<(&'static Entry, Placement)> = requests
            .iter()
            .take_while(|request| request.end - start <= CONVOY_BYTES_MAX)
            .map_while(joins)
            .collect();
        if members.len() < 2 {
            return 0;
        }

        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let client = &connection.client;
        let call = Call {
            command: members[0].0.id,
            db: client.db,
            resp: client.resp,
            no_touch: client.no_touch,
            in_exec: false,
            client: client.id,
            home: home as u32,
            hash: 0,
            hashed_arg: 0,
        };
        members.iter().for_each(|(entry, _)| begin_request(connection, entry.id));
        let mut multi = self.take_multi();
        for (place, (request, (entry, _))) in requests.iter().zip(&members).enumerate() {
            multi.queue.push(Call { command: entry.id, ..call }, place as u32, request.argv(buf, args));
        }
        let placements: Vec<Placement> = members.iter().map(|&(_, placement)| placement).collect();
        let count = placements.len();
        self.begin(at, members[0].0, call, multi, placements, &[]);
        let flow = self.end_request(at, Flow::Stop);
        debug_assert!(flow == Flow::Stop);
        count
    }

    /// Whether nothing stands in the way of any command over keys of this connection: see `Worker::execute`.
    fn lets_convoys_pass(&self, at: usize) -> bool {
        let Some(connection) = self.connections[at].as_deref() else { return false };
        let (client, config) = (&connection.client, &self.shard.config);
        self.shard.shard_count > 1
            && connection.pending.is_empty()
            && client.reply_mode == ReplyMode::On
            && client.multi.is_none()
            && config.maxmemory_bytes == 0
            && (client.authenticated || config.requirepass.is_empty())
            && self.globals.pause(self.shard.now_ms).is_none()
    }
}
