//! Coalesced pipelines: requests over several shards that a client has pipelined, run as one transaction.
//!
//! A command or an EXEC over several shards cannot overlap with other requests of its connection: its lock messages
//! take another way than the batches of single-key commands, so they could overtake each other. In a pipeline of such
//! requests each would cost a round of messages through the shards. But it is correct to let all of them take effect at
//! one moment: their order is kept, and every reply is the one that the client would have got otherwise. So they are
//! locked, run and answered together like the queue of an EXEC, along with single-key commands between them. For what
//! runs where, see [`crate::shard::txn`].
//!
//! A MULTI joins a coalesced pipeline only as a whole: everything up to its EXEC has arrived, the client watches
//! nothing, and no command of it is refused. Then no difference can be seen from commands that were queued first.
//!
//! Scripts and functions whose keys are known join a coalesced pipeline of these alone: all their keys are moved here, and they run
//! one after the other. A command of another kind ends it.
//!
//! A master's stream on a replica of several shards is run in the same way, also where each of its commands is on one shard
//! (`joins_requests` of its connection): at every moment the replica shows what the master has shown.
//!
//! There is one exception. Redis serves a client that is blocked on a key as soon as the command that changed the key
//! has run, and the next command sees the result (LPUSH, then LLEN). So a shard that has locked its keys for a
//! coalesced pipeline and finds that a client is blocked on one of those it changes refuses the transaction. Then
//! nothing runs anywhere, and home runs the commands and transactions one after the other.

use super::Worker;
use super::connection::StallReason;
use super::pipeline::{Flow, Prepared, arity_fits, begin_request};
use super::program::Reach;
use super::program::made::{Joining, WithMadeKeys};
use super::transact::{Block, Start};
use crate::client::{CommandQueue, ReplyMode};
use crate::command::placement::{Placement, RoutedKey, Routes, Shards, shards_of};
use crate::command::route::Route;
use crate::command::table::{CommandEntry, CommandTable, Run, Scope, flag};
use crate::command::{Call, admission};
use crate::protocol::{ArgRange, Argv};
use crate::shard::txn::PartOfWide;

/// The length of a coalesced pipeline's requests. Bounded because all its keys are locked until it has run.
pub(super) const COALESCED_BYTES_MAX: usize = 64 << 10;

/// The number of requests in a coalesced pipeline, bounded for the same reason.
pub(super) const COALESCED_REQUESTS_MAX: usize = 128;

/// Flags of commands that cannot be part of a coalesced pipeline: they may block, or need more than their keys.
const ALONE: u64 = flag::BLOCKING | flag::TOUCHES_ARBITRARY_KEYS | flag::RUNS_IN_MULTI | flag::NO_MULTI;

/// Requests parsed beyond the present group, to find out how many more can join the coalesced pipeline.
#[derive(Default)]
pub(super) struct Ahead {
    pub(super) requests: Vec<Prepared>,
    pub(super) args: Vec<ArgRange>,
}

/// Decides how many of a connection's requests, taken in order, form a coalesced pipeline.
struct Candidates<'a> {
    table: &'static CommandTable,
    shards: Shards,
    /// A command with one of these flags cannot join.
    alone: u64,
    /// Whether a MULTI can join.
    takes_blocks: bool,
    /// Also a pipeline that begins with requests on one shard is coalesced.
    takes_narrow: bool,
    /// Programs can join, and nothing else.
    of_programs: bool,
    /// What runs in the place of those that make keys, and of which requests.
    made: Vec<(usize, WithMadeKeys)>,
    routes: &'a mut Routes,
    blocks: Vec<Block>,
    /// A MULTI whose EXEC has not come yet: its entry, and the place of its first command in `routes`.
    open: Option<(&'static CommandEntry, usize)>,
    /// How many requests were looked at, and how many of the first ones form the coalesced pipeline, which does not end
    /// within a MULTI.
    seen: usize,
    joined: usize,
    /// How many of the routes belong to the joined requests.
    joined_routes: usize,
}

impl Candidates<'_> {
    /// Looks at the next request. Returns whether more of them may join.
    fn take(&mut self, worker: &mut Worker, request: &Prepared, argv: Argv<'_>) -> bool {
        let Some(entry) = request.command().map(|id| self.table.entry(id)) else { return false };
        if !arity_fits(entry, argv) {
            return false;
        }
        self.seen += 1;
        if self.of_programs {
            match worker.may_join_as_program(entry, argv, self.alone) {
                Joining::No => return false,
                Joining::AsCalled => self.routes.add(entry, argv, None, self.shards),
                Joining::WithMadeKeys(made) => {
                    let placement = self.routes.add(made.entry, made.args.as_argv(), None, self.shards);
                    self.made.push((self.seen - 1, made));
                    placement
                }
            };
            return self.join();
        }
        match entry.row.scope {
            Scope::Multi => {
                let nests = self.open.replace((entry, self.routes.len())).is_some();
                self.takes_blocks && !nests
            }
            Scope::Exec => {
                let Some((multi, first)) = self.open.take() else { return false };
                let len = self.routes.len() - first;
                if len == 0 {
                    return false;
                }
                self.blocks.push(Block { first, len, multi: multi.id, exec: entry.id });
                self.join()
            }
            _ => {
                if !is_plain(entry, self.alone) {
                    return false;
                }
                let placement = self.routes.add(entry, argv, request.key(), self.shards);
                // What needs no keys (PUBLISH) runs with the others.
                !matches!(placement, Placement::Every(_) | Placement::CheckOutDerived)
                    && !placement.is_over_session()
                    && (self.open.is_some() || self.join())
            }
        }
    }

    /// Makes all requests so far part of the coalesced pipeline, if the first command or transaction of it is over
    /// several shards.
    fn join(&mut self) -> bool {
        if self.joined == 0 && !self.takes_narrow && !is_wide(self.routes.keys_of(0..self.routes.len())) {
            return false;
        }
        self.joined = self.seen;
        self.joined_routes = self.routes.len();
        true
    }
}

/// Whether a command can join a coalesced pipeline, wherever its keys are.
fn is_plain(entry: &CommandEntry, alone: u64) -> bool {
    entry.row.run.is_over_keys() && entry.row.flags & alone == 0
}

fn is_wide(keys: &[RoutedKey]) -> bool {
    keys.iter().any(|key| key.shard != keys[0].shard)
}

fn is_program(entry: &CommandEntry) -> bool {
    matches!(entry.row.run, Run::Program(_))
}

impl Worker {
    /// Whether a script with the right number of arguments declares one key at most and makes none: a quick check that it is on
    /// one shard.
    fn declares_few_keys(&mut self, entry: &CommandEntry, argv: Argv<'_>) -> bool {
        argv.get(2).is_none_or(|count| matches!(count, b"0" | b"1"))
            && !matches!(self.reach_of(entry, argv), Some(Reach::Made { .. }))
    }

    /// Starts the first requests of `requests` as a coalesced pipeline, if the first one, or the transaction that it
    /// begins, is over several shards. `behind`: where in `buf` more requests may follow. Returns how the connection
    /// goes on, and where in `buf` the requests end that were taken; `None`: nothing was started.
    pub(super) fn begin_coalesced(
        &mut self,
        at: usize,
        buf: &[u8],
        requests: &[Prepared],
        args: &[ArgRange],
        behind: Option<usize>,
    ) -> Option<(Flow, usize)> {
        let first = requests.first()?;
        let entry = self.table.entry(first.command()?);
        let is_block = matches!(entry.row.scope, Scope::Multi);
        let connection = self.connections[at].as_deref()?;
        // Each of its requests is checked by itself, or tracked otherwise than the next.
        if connection.client.is_restricted() || connection.client.caching_given() {
            return None;
        }
        let checked = admission::checked_flags(&connection.client.caller(), &self.conditions());
        let alone = checked | ALONE;
        let of_programs = is_program(entry);
        if of_programs {
            if !arity_fits(entry, first.argv(buf, args)) {
                return None;
            }
            let tracks = connection.client.call(self.shard.index).tracks;
            if tracks || self.is_observed() || self.declares_few_keys(entry, first.argv(buf, args)) {
                return None;
            }
        } else if !is_block && !is_plain(entry, alone) {
            return None;
        }
        let connection = self.connections[at].as_deref()?;
        // When memory is full, even commands without DENYOOM are refused between MULTI and EXEC: queueing takes memory.
        let takes_blocks = connection.client.watching.is_empty() && checked & flag::DENYOOM == 0;
        let takes_narrow = connection.joins_requests;
        let may_be_wide = takes_narrow || !is_block || self.may_be_wide(&requests[1..]);
        if !self.may_coalesce(at, is_block) || !may_be_wide {
            return None;
        }
        let mut multi = self.take_command_queue();
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut candidates = Candidates {
            table: self.table,
            shards: self.shards(),
            alone,
            takes_blocks,
            takes_narrow,
            of_programs,
            made: Vec::new(),
            routes: &mut multi.routes,
            blocks: Vec::new(),
            open: None,
            seen: 0,
            joined: 0,
            joined_routes: 0,
        };
        let fits = |request: &Prepared| request.end - first.start <= COALESCED_BYTES_MAX;
        let mut goes_on = requests
            .iter()
            .all(|request| fits(request) && candidates.take(self, request, request.argv(buf, args)));
        let mut behind = behind;
        while goes_on
            && candidates.seen < COALESCED_REQUESTS_MAX
            && let Some(from) = behind
        {
            let known = ahead.requests.len();
            behind = self.parse_ahead(at, buf, from, &mut ahead);
            let mut new = ahead.requests[known..].iter();
            goes_on = new.all(|request| {
                fits(request) && candidates.take(self, request, request.argv(buf, &ahead.args))
            });
        }

        let Candidates { blocks, joined, joined_routes, made, .. } = candidates;
        let waits = admission::waits_for_replies(entry.row, &Route::Many);
        let is_free = !waits || self.connections[at].as_deref().is_some_and(|at| at.pending.is_empty());
        let flow = if joined == 0 {
            self.give_command_queue(multi);
            None
        } else if is_free {
            multi.routes.truncate(joined_routes);
            let own = requests.iter().map(|request| (request, request.argv(buf, args)));
            let others = ahead.requests.iter().map(|request| (request, request.argv(buf, &ahead.args)));
            let end = self.start_coalesced(at, own.chain(others).take(joined), made, multi, blocks);
            Some((Flow::Stop, end))
        } else {
            self.give_command_queue(multi);
            let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
            connection.stall = Some(StallReason::Pending);
            Some((Flow::Retry, first.start))
        };
        ahead.requests.clear();
        ahead.args.clear();
        self.ahead = ahead;
        flow
    }

    /// Starts `requests` as a transaction; `multi` has the routes of their commands. `made`: what runs in the place of some.
    /// Returns where they end.
    fn start_coalesced<'a>(
        &mut self,
        at: usize,
        requests: impl Iterator<Item = (&'a Prepared, Argv<'a>)>,
        made: Vec<(usize, WithMadeKeys)>,
        mut multi: Box<CommandQueue>,
        blocks: Vec<Block>,
    ) -> usize {
        let mut made = made.into_iter().peekable();
        let mut spent = Vec::new();
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let mut call = connection.client.call(self.shard.index);
        let mut entry = None;
        let mut end = 0;
        let mut counted = 0;
        for (nth, (request, argv)) in requests.enumerate() {
            let requested = self.table.entry(request.command().expect("only known commands can join"));
            begin_request(connection, requested.id);
            entry.get_or_insert(requested);
            end = request.end;
            match requested.row.scope {
                Scope::Multi => call.in_exec = true,
                Scope::Exec => call.in_exec = false,
                _ => {
                    let place = multi.queue.len();
                    match made.next_if(|(of, _)| *of == nth) {
                        Some((_, WithMadeKeys { entry, args, hash, hashed_arg })) => {
                            let call = Call { command: entry.id, hash, hashed_arg, ..call };
                            multi.queue.push(call, place as u32, args.as_argv());
                            spent.push(args);
                        }
                        None => {
                            let hashed_arg = request.key_arg();
                            let call = Call { command: requested.id, hash: request.hash, hashed_arg, ..call };
                            multi.queue.push(call, place as u32, argv);
                        }
                    }
                    let keys = multi.routes.keys(place);
                    let is_transaction = match multi.routes.placement(place) {
                        // A program is checked out wherever its keys are.
                        Placement::CheckOut => is_wide(keys),
                        placement => placement == Placement::Split,
                    };
                    if !call.in_exec && is_transaction {
                        self.shard.stats.count_transaction(shards_of(keys).len());
                        counted += 1;
                    }
                }
            }
        }
        spent.into_iter().for_each(|args| self.give_made_args(args));
        for block in &blocks {
            let keys = multi.routes.keys_of(block.first..block.first + block.len);
            self.shard.stats.count_transaction(shards_of(keys).len());
            counted += 1;
        }
        let entry = entry.expect("there is a request");
        multi.routes.check_out_overlapping(&multi.queue, self.shard.shard_count);
        let single_count = multi.queue.len() - blocks.iter().map(|block| block.len).sum::<usize>();
        let is_coalesced = single_count + blocks.len() > 1;
        let wide = PartOfWide::No;
        self.begin(
            at,
            Start {
                entry,
                call,
                multi,
                blocks,
                is_coalesced,
                counted,
                wide,
                is_gathered: false,
                behind: None,
            },
            &[],
        );
        let flow = self.end_request(at, Flow::Stop);
        debug_assert!(flow == Flow::Stop);
        end
    }

    /// Whether the connection's state allows its requests to be coalesced. Otherwise they run one by one: see
    /// `Worker::execute`.
    fn may_coalesce(&self, at: usize, is_block: bool) -> bool {
        let Some(connection) = self.connections[at].as_deref() else { return false };
        let client = &connection.client;
        // With replies pending, a single command runs as any other. A MULTI may be coalesced; if it has to wait for the
        // earlier replies, it is stalled as a whole.
        (is_block || connection.pending.is_empty())
            && (client.reply_mode == ReplyMode::On || connection.joins_requests)
            && client.multi.is_none()
    }

    /// A quick check whether the transaction that consists of these requests up to EXEC may be over several shards.
    /// Most are not, and need no further look.
    fn may_be_wide(&self, requests: &[Prepared]) -> bool {
        let is_exec = |id| matches!(self.table.entry(id).row.scope, Scope::Exec);
        let mut queued = requests.iter().take_while(|request| !request.command().is_some_and(is_exec));
        let Some(shard) = queued.next().map(Prepared::shard) else { return false };
        shard.is_none() || queued.any(|request| request.shard() != shard)
    }
}
