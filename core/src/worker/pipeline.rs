//! The request path, from received bytes to executed commands.
//!
//! A connection's requests are processed in groups: first, all complete ones are parsed, looked up in the command table
//! and routed, and their table buckets are prefetched; then they run in order. So the cache misses of a pipeline
//! overlap. Short inputs of several connections are gathered into one group for parsing and prefetching, so theirs
//! overlap, too.
//!
//! There are two ways to run a request, with the same outcome. `execute` is the general one; requests with one key, on
//! a connection in its ordinary state, are run by [`fast_path`](super::fast_path).
//!
//! A request that cannot run yet (CLIENT PAUSE, a transaction over several shards) stalls the connection: the bytes
//! from there on remain in its query buffer.

use super::Worker;
use super::coalesce::Ahead;
use super::connection::{Connection, StallReason};
use super::fetch::Upcoming;
use super::handoffs::HandoffWait;
use super::hooks::Filtering;
use super::program::Reach;
use super::program::made::WithMadeKeys;
use crate::client::ReplyMode;
use crate::command::admission::{self, Caller, Refusal};
use crate::command::route::{self, Route};
use crate::command::table::{
    CommandEntry, CommandId, CommandTable, KeyShape, KeyspaceLock, Run, Scope, flag,
};
use crate::command::{Call, CommandError, gate, keys};
use crate::protocol::{ArgRange, Argv, Beginning, Limits, OwnedArgv, Parsed, ProtocolError};
use crate::runtime::driver::ConnId;
use crate::shard::slot::shard_of;
use crate::types::KeyHasher;

/// The hidden command that runs in the place of PING where that replies as a message does.
pub const PING_AS_MESSAGE: &str = "ping-as-message";

/// How many requests are parsed before they are executed, and so how many cache misses overlap.
const GROUP_MAX: usize = 32;

/// A parsed request of the current group.
pub(super) struct Prepared {
    /// Its arguments in the worker's `args`.
    pub(super) args: std::ops::Range<u32>,
    /// Where it begins and ends in the buffer.
    pub(super) start: usize,
    pub(super) end: usize,
    /// `None`: its name is not known, or it has subcommands.
    lookup: Option<Lookup>,
    /// Hash and shard of its first key, and the selected database.
    pub(super) hash: u64,
    pub(super) shard: u32,
    pub(super) db: u32,
}

impl Prepared {
    /// Its arguments. It was parsed from `buf`, and `args` has the positions.
    pub(super) fn argv<'a>(&self, buf: &'a [u8], args: &'a [ArgRange]) -> Argv<'a> {
        Argv::new(&buf[self.start..self.end], &args[self.args.start as usize..self.args.end as usize])
    }

    /// The command, if its name is known and it has no subcommands.
    #[inline]
    pub(super) fn command(&self) -> Option<CommandId> {
        self.lookup.map(|lookup| lookup.command)
    }

    /// See [`Lookup`].
    #[inline]
    pub(super) fn key_arg(&self) -> u8 {
        self.lookup.map_or(0, |lookup| lookup.key_arg)
    }

    #[inline]
    pub(super) fn is_fast_path(&self) -> bool {
        self.lookup.is_some_and(|lookup| lookup.is_fast_path)
    }

    /// Hash and shard of its only key, if these are known.
    pub(super) fn key(&self) -> Option<(u64, usize)> {
        self.shard().map(|shard| (self.hash, shard))
    }

    /// The shard of its only key, if that is known.
    pub(super) fn shard(&self) -> Option<usize> {
        (self.key_arg() == 1).then_some(self.shard as usize)
    }
}

/// What is known of requests before they are parsed, because others began in the same way: most clients send a few
/// commands again and again.
pub(super) struct Alikes {
    /// The table in which the commands were looked up.
    table: &'static CommandTable,
    places: [Option<(Beginning, Lookup)>; 8],
}

impl Alikes {
    pub(super) fn new(table: &'static CommandTable) -> Alikes {
        Alikes { table, places: [None; 8] }
    }

    /// Where a request that starts like this belongs: by the number of arguments, and the first letters of the name.
    #[inline]
    fn place(&mut self, request: &[u8]) -> Option<&mut Option<(Beginning, Lookup)>> {
        let &[_, count, _, _, _, _, _, _, first, second] = request.first_chunk()?;
        let places = &mut self.places;
        let len = places.len();
        Some(&mut places[usize::from(count ^ first ^ second) % len])
    }
}

/// What a command's name and the number of arguments say of a request.
#[derive(Clone, Copy)]
struct Lookup {
    command: CommandId,
    /// Which argument is the first key. 1: it has no other key; 0: its first key is not known.
    key_arg: u8,
    /// It has one key and the right number of arguments, and its handler is a plain function over keys.
    is_fast_path: bool,
}

/// It is copied with every request.
const _: () = assert!(size_of::<Option<Lookup>>() == 4);

impl Lookup {
    /// `None` for names that are unknown, or have subcommands.
    #[inline]
    fn of(table: &CommandTable, argv: Argv<'_>) -> Option<Lookup> {
        let entry = table.lookup(argv.arg(0)).filter(|entry| entry.row.subcommands.is_empty())?;
        let key_arg = match entry.shape {
            KeyShape::First => 1,
            KeyShape::None | KeyShape::Range { .. } => 0,
            KeyShape::Complex => keys::first_counted(entry.row).unwrap_or(0),
        };
        let key_arg = if usize::from(key_arg) < argv.len() { key_arg } else { 0 };
        let is_fast_path = key_arg == 1 && entry.row.run.is_over_keys() && arity_fits(entry, argv);
        Some(Lookup { command: entry.id, key_arg, is_fast_path })
    }
}

/// A connection whose input is part of the present group.
pub(super) struct Gathered {
    at: usize,
    /// The index of its input.
    input: usize,
    /// Its requests in the group.
    prepared: std::ops::Range<usize>,
    /// The end of its requests; `None`: its input is to be appended to its query buffer first.
    group: Option<Group>,
}

/// How a connection continues after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The request has run or was sent to another shard: execute the next one.
    Next,
    /// The request has run or was started, and the following ones must wait.
    Stop,
    /// The request could not start yet: it must be executed again later.
    Retry,
}

impl Worker {
    /// Takes bytes from several clients: the first group of requests of each is parsed and prefetched before any of
    /// them runs. Takes as many inputs as form a group, at least one, and returns how many.
    pub(super) fn take_inputs(&mut self, inputs: &[(ConnId, &[u8])]) -> usize {
        self.follow_users();
        let mut gathered = std::mem::take(&mut self.gathered);
        let (mut prepared, mut args) = self.pools.take_group();
        let mut taken = 0;
        for &(conn, bytes) in inputs {
            if prepared.len() >= GROUP_MAX {
                break;
            }
            let at = conn.index();
            if self.is_current(conn) {
                if self.connections[at].as_deref().is_some_and(|connection| connection.is_gathered) {
                    break;
                }
                let first = prepared.len();
                let group = if self.record_input(at, bytes) {
                    Some(self.parse_group(at, bytes, 0, &mut prepared, &mut args))
                } else {
                    None
                };
                if let Some(connection) = self.connections[at].as_deref_mut() {
                    connection.is_gathered = true;
                }
                gathered.push(Gathered { at, input: taken, prepared: first..prepared.len(), group });
            }
            taken += 1;
        }
        self.prefetch(&prepared);
        let home = self.shard.index as u32;
        self.prefetch_elements(gathered.iter().flat_map(|gathered| {
            let here = prepared[gathered.prepared.clone()].iter().filter(|request| request.shard == home);
            here.filter_map(|request| Upcoming::of_request(request, inputs[gathered.input].1, &args))
        }));
        for Gathered { at, input, prepared: range, group } in gathered.drain(..) {
            let (conn, bytes) = inputs[input];
            // A request of another connection may have closed this one.
            if !self.is_current(conn) {
                continue;
            }
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            connection.is_gathered = false;
            if connection.close_after_reply {
                continue;
            }
            match group {
                Some(group) => {
                    let mut done = 0;
                    let consumed =
                        match self.execute_group(at, bytes, &prepared[range], &args, group, &mut done) {
                            Some(consumed) => consumed,
                            None => self.process_from(at, bytes, done),
                        };
                    self.keep_rest(at, &bytes[consumed..]);
                }
                None => {
                    connection.keep_input(bytes);
                    if connection.stall.is_none() {
                        self.process_query(at);
                    }
                }
            }
            self.after_input(at);
        }
        self.gathered = gathered;
        self.pools.give_group(prepared, args);
        taken
    }

    /// Executes the complete requests at the start of `buf`, up to one that stalls the connection. Returns how many
    /// bytes of `buf` were consumed.
    pub(super) fn process(&mut self, at: usize, buf: &[u8]) -> usize {
        self.process_from(at, buf, 0)
    }

    /// The same from byte `done` on, where a request begins.
    pub(super) fn process_from(&mut self, at: usize, buf: &[u8], mut done: usize) -> usize {
        let (mut prepared, mut args) = self.pools.take_group();
        let consumed = loop {
            let Some(connection) = self.connections[at].as_deref_mut() else { break buf.len() };
            if connection.close_after_reply {
                break buf.len();
            }
            prepared.clear();
            args.clear();
            let group = self.parse_group(at, buf, done, &mut prepared, &mut args);
            if prepared.len() > 1 {
                self.prefetch(&prepared);
                let home = self.shard.index as u32;
                let here = prepared.iter().filter(|request| request.shard == home);
                self.prefetch_elements(here.filter_map(|request| Upcoming::of_request(request, buf, &args)));
            }
            if let Some(consumed) = self.execute_group(at, buf, &prepared, &args, group, &mut done) {
                break consumed;
            }
        };
        self.pools.give_group(prepared, args);
        consumed
    }

    /// Prefetches what the requests' keys need from memory.
    fn prefetch(&self, requests: &[Prepared]) {
        let home = self.shard.index as u32;
        let here = requests.iter().filter(|request| request.shard == home);
        self.shard.prefetch(here.map(|request| (request.db, request.hash)));
    }

    /// Executes what the filters make of a request. `None`: there are none.
    #[inline]
    fn execute_filtered(&mut self, at: usize, args: Argv<'_>) -> Option<Flow> {
        let filter = self.globals.hooks.filter()?;
        Some(self.execute_by_filter(filter, at, args))
    }

    #[cold]
    fn execute_by_filter(&mut self, filter: Filtering, at: usize, args: Argv<'_>) -> Flow {
        let client = self.connections[at].as_deref().map_or(0, |connection| connection.client.id);
        let filtered = filter(client, args);
        // Without a name there is no command, and no reply.
        if filtered.is_empty() { Flow::Next } else { self.execute(at, filtered.as_argv(), None) }
    }

    /// Executes a request that is not part of a group.
    fn execute_unprepared(&mut self, at: usize, args: Argv<'_>) -> Flow {
        self.execute_filtered(at, args).unwrap_or_else(|| self.execute(at, args, None))
    }

    /// Executes a parsed group. Returns how many bytes of `buf` were consumed; or `None` if there may be more requests
    /// in it, from `done` on.
    fn execute_group(
        &mut self,
        at: usize,
        buf: &[u8],
        prepared: &[Prepared],
        args: &[ArgRange],
        group: Group,
        done: &mut usize,
    ) -> Option<usize> {
        self.make_room(prepared.len());
        let mut left = prepared;
        while let Some(request) = left.first() {
            if let Some(flow) = self.execute_filtered(at, request.argv(buf, args)) {
                if flow != Flow::Retry {
                    *done = request.end;
                }
                if flow != Flow::Next {
                    if let Some(connection) = self.connections[at].as_deref_mut() {
                        connection.parser.reset();
                    }
                    return Some(*done);
                }
                left = &left[1..];
                continue;
            }
            if request.is_fast_path() {
                let count = self.run_fast_path(at, buf, left, args);
                if count > 0 {
                    *done = left[count - 1].end;
                    left = &left[count..];
                    match self.connections[at].as_deref_mut() {
                        None => return Some(*done),
                        Some(connection) if connection.stall.is_some() => {
                            connection.parser.reset();
                            return Some(*done);
                        }
                        Some(_) => continue,
                    }
                }
            }
            let has_others = self.shard.shard_count > 1;
            let joins = has_others && self.connections[at].as_deref().is_some_and(|it| it.joins_requests);
            let coalesced = if joins || has_others && request.shard().is_none() {
                let behind = matches!(group.then, Then::Parse).then_some(group.end);
                self.begin_coalesced(at, buf, left, args, behind)
            } else {
                None
            };
            let flow = match coalesced {
                Some((flow, end)) => {
                    *done = end;
                    flow
                }
                None if joins && self.stall_behind_pending(at) => Flow::Retry,
                None => {
                    let flow = self.execute(at, request.argv(buf, args), Some(request));
                    if flow != Flow::Retry {
                        *done = request.end;
                    }
                    flow
                }
            };
            if flow != Flow::Next {
                if let Some(connection) = self.connections[at].as_deref_mut() {
                    connection.parser.reset();
                }
                return Some(*done);
            }
            left = &left[1..];
        }
        *done = group.end;
        match group.then {
            Then::Parse => {}
            Then::Wait(missing) => {
                self.fill_big_arg(at, buf, *done, missing);
                return Some(*done);
            }
            Then::Inline(argv, end) => match self.execute_unprepared(at, argv.as_argv()) {
                Flow::Next => *done = end,
                Flow::Stop => return Some(end),
                Flow::Retry => return Some(*done),
            },
            Then::Fail(error) => {
                self.fail_protocol(at, error);
                return Some(buf.len());
            }
        }
        None
    }

    /// Whether the replies to earlier requests of a connection are pending. Then it is stalled until they have come.
    #[cold]
    fn stall_behind_pending(&mut self, at: usize) -> bool {
        let connection =
            self.connections[at].as_deref_mut().filter(|connection| !connection.pending.is_empty());
        connection.map(|connection| connection.stall = Some(StallReason::Pending)).is_some()
    }

    /// Parses up to [`GROUP_MAX`] requests from `buf[from..]`, and appends them to `prepared` and `args`.
    fn parse_group(
        &mut self,
        at: usize,
        buf: &[u8],
        from: usize,
        prepared: &mut Vec<Prepared>,
        args: &mut Vec<ArgRange>,
    ) -> Group {
        let connection = self.connections[at].as_deref_mut().expect("the caller has looked it up");
        let authenticated = !admission::must_authenticate(&connection.client.caller(), self.default_is_open);
        let bulk_len_max = self.shard.string_len_max();
        let limits = Limits { bulk_len_max, authenticated, ..Limits::default() };
        // Before a client has authenticated, shorter limits apply, and each request may change that for the next one.
        let group_max = if authenticated { GROUP_MAX } else { 1 };
        let db = connection.client.db;
        if !std::ptr::eq(self.alikes.table, self.table) {
            self.alikes = Alikes::new(self.table);
        }
        let may_be_alike = connection.parser.may_be_alike(&limits);
        let hasher = KeyHasher::new();
        let len_max = prepared.len() + group_max;
        let mut end = from;
        while prepared.len() < len_max {
            let rest = &buf[end..];
            if rest.is_empty() {
                return Group { end, then: Then::Wait(None) };
            }
            let first = args.len();
            let known = self.alikes.place(rest).filter(|_| may_be_alike).and_then(|place| {
                let (beginning, lookup) = place.as_ref()?;
                let consumed = connection.parser.parse_alike(rest, beginning, &limits, args)?;
                Some((consumed, *lookup))
            });
            let parsed = match known {
                Some((consumed, _)) => Parsed::Request { consumed },
                None => connection.parser.parse(rest, &limits, args),
            };
            match parsed {
                Parsed::Request { consumed } => {
                    let argv = Argv::new(rest, &args[first..]);
                    let lookup = match known {
                        Some((_, lookup)) => Some(lookup),
                        None => {
                            let lookup = Lookup::of(self.table, argv);
                            if let Some(lookup) = lookup
                                && let Some(beginning) = Beginning::of(rest)
                                && let Some(place) = self.alikes.place(rest)
                            {
                                *place = Some((beginning, lookup));
                            }
                            lookup
                        }
                    };
                    let key_arg = lookup.map_or(0, |lookup| lookup.key_arg);
                    let (hash, shard) = match key_arg {
                        0 => (0, u32::MAX),
                        at => {
                            let key = argv.arg(usize::from(at));
                            (hasher.hash(key), shard_of(key, self.shard.shard_count) as u32)
                        }
                    };
                    prepared.push(Prepared {
                        args: first as u32..args.len() as u32,
                        start: end,
                        end: end + consumed,
                        lookup,
                        hash,
                        shard,
                        db,
                    });
                    end += consumed;
                }
                Parsed::Empty { consumed } => end += consumed,
                Parsed::Inline { consumed, argv } => {
                    return Group { end, then: Then::Inline(argv, end + consumed) };
                }
                Parsed::Incomplete { missing } => return Group { end, then: Then::Wait(missing) },
                Parsed::Error(error) => {
                    return Group { end, then: Then::Fail(error) };
                }
            }
        }
        Group { end, then: Then::Parse }
    }

    /// Parses a group of requests beyond those that are about to run, without consuming them: they may be parsed again.
    /// Returns where more requests may follow.
    pub(super) fn parse_ahead(
        &mut self,
        at: usize,
        buf: &[u8],
        from: usize,
        ahead: &mut Ahead,
    ) -> Option<usize> {
        let group = self.parse_group(at, buf, from, &mut ahead.requests, &mut ahead.args);
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        connection.parser.reset();
        matches!(group.then, Then::Parse).then_some(group.end)
    }

    fn fail_protocol(&mut self, at: usize, error: ProtocolError) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        crate::runtime::log::verbose(format_args!(
            "Protocol error ({}) from client: id={} addr={}",
            error.log_words(),
            connection.client.id,
            connection.client.addr
        ));
        self.reply_now(at, |reply| reply.error(error.text()));
        self.close_after_reply(at);
    }

    /// Runs one request of a connection, or sends it to the shards where it runs.
    fn execute(&mut self, at: usize, argv: Argv<'_>, prepared: Option<&Prepared>) -> Flow {
        let table = self.table;
        let entry = match prepared.and_then(Prepared::command) {
            Some(id) if arity_fits(table.entry(id), argv) => table.entry(id),
            _ => match gate::resolve(table, argv).or_else(|error| self.own_command(at, argv).ok_or(error)) {
                Ok(entry) => entry,
                Err(error) => {
                    let resolved = match table.resolve(argv) {
                        crate::command::table::Resolved::Command(entry) => Some(entry),
                        _ => None,
                    };
                    if let Some(entry) = resolved {
                        self.shard.stats.command(entry.id).rejected.add(1);
                    }
                    if let Some(connection) = self.connections[at].as_deref_mut() {
                        connection.client.last_command = resolved.map(|entry| entry.id);
                    }
                    return self.reject(at, argv, &error);
                }
            },
        };
        let entry = if entry.row.has(flag::TELLS_KEYS) { self.form_for(at, entry) } else { entry };
        let row = entry.row;
        self.make_room(1);
        self.serve_due_first();
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let caller = connection.client.caller();
        let (flags, admitted) = self.admit(at, entry, argv, &caller);
        if let Err(refusal) = admitted {
            return self.stall_or_reject(at, entry, argv, refusal);
        }
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        if connection.pending.len() >= connection.pending_max {
            connection.stall = Some(StallReason::Pending);
            return Flow::Retry;
        }
        let call = Call {
            command: entry.id,
            hash: prepared.map_or(0, |request| request.hash),
            hashed_arg: prepared.map_or(0, Prepared::key_arg),
            ..connection.client.call(self.shard.index)
        };
        if connection.client.multi.is_some() && !row.has(flag::RUNS_IN_MULTI) {
            return self.execute_in_multi(at, entry, flags, &call, argv, prepared);
        }
        let reach = if self.shard.shard_count > 1 { self.reach_of(entry, argv) } else { None };
        if matches!(reach, Some(Reach::Made { .. }))
            && !caller.is_restricted()
            && let Some(made) = self.with_made_keys(entry, argv)
        {
            let WithMadeKeys { entry: stand_in, args, hash, hashed_arg } = made;
            let call = Call { command: stand_in.id, hash, hashed_arg, ..call };
            let flow = self.place(at, entry.id, stand_in, &caller, call, args.as_argv(), None, false);
            self.give_made_args(args);
            return flow;
        }
        let is_wide = reach.is_some_and(Reach::is_wide);
        self.place(at, entry.id, entry, &caller, call, argv, prepared, is_wide)
    }

    /// Runs an admitted request, or sends it to the shards where it runs. `requested`: the command that the client has called.
    /// `is_wide`: it is a program that may touch keys of other shards, which are not known.
    #[allow(clippy::too_many_arguments, reason = "the caller has found out all of it")]
    #[inline(always)]
    fn place(
        &mut self,
        at: usize,
        requested: CommandId,
        entry: &'static CommandEntry,
        caller: &Caller,
        call: Call,
        argv: Argv<'_>,
        prepared: Option<&Prepared>,
        is_wide: bool,
    ) -> Flow {
        let row = entry.row;
        let (home, db) = (self.shard.index, call.db);
        let connection = self.connections[at].as_deref().expect("its requests are being executed");
        let has_pending = !connection.pending.is_empty();
        let form = if caller.is_restricted() { self.form_when_subscribed(entry) } else { entry };
        let route = match prepared {
            _ if is_wide => Route::Many,
            Some(request) if request.key_arg() == 1 => Route::One(request.shard as usize),
            _ => self.route(entry, argv, db),
        };
        let waits = has_pending
            && (admission::waits_for_replies(row, &route)
                || self.is_wide_unit(entry, argv)
                || self.may_publish(entry, argv)
                || self.is_observed() && !self.is_behind_pending(at, &route));
        let handoff_wait = match route {
            _ if is_wide => Some(HandoffWait::Tried),
            // Rows with another scope come home only for an error, which is the same at any time.
            Route::Session if row.has(flag::AFTER_HANDOFFS) && matches!(row.scope, Scope::Session) => {
                Some(HandoffWait::All)
            }
            _ => None,
        };
        if !waits && handoff_wait.is_some_and(|wait| self.stall_for_handoffs(at, wait)) {
            return Flow::Retry;
        }
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        if waits {
            connection.stall = Some(StallReason::Pending);
            return Flow::Retry;
        }
        begin_request(connection, requested);
        let entry = form;
        let flow = match route {
            Route::One(shard) if shard == home => self.run_here(at, entry, &call, argv),
            Route::Session => self.run_here(at, entry, &call, argv),
            Route::One(shard) if row.has(flag::BLOCKING) => self.send_blocking(at, entry, call, argv, shard),
            Route::One(shard) => {
                // A program that is suspended there is overtaken by what comes behind it.
                let reply_id = if matches!(row.run, Run::Program(_)) {
                    connection.await_reply(at)
                } else {
                    connection.await_reply_from(at, shard)
                };
                self.batch(shard, reply_id, &call, argv);
                Flow::Next
            }
            Route::Every(lock) if self.shard.shard_count > 1 => {
                self.begin_every(at, entry, call, argv, lock);
                Flow::Stop
            }
            Route::Every(_) => self.run_here(at, entry, &call, argv),
            Route::Many if is_wide => {
                self.begin_wide(at, entry, call, argv);
                Flow::Stop
            }
            Route::Many => {
                self.begin_transaction(at, entry, call, argv);
                Flow::Stop
            }
            Route::Watch => self.watch(at, entry, call, argv),
            Route::Walk { .. } => unreachable!("it was chosen above"),
        };
        self.end_request(at, flow)
    }

    /// A command whose row tells modules of keys, as this connection runs it. What a master has done, or what is in a file, has its
    /// place among others already: it runs as it was, and modules are told behind it.
    #[cold]
    fn form_for(&self, at: usize, entry: &'static CommandEntry) -> &'static CommandEntry {
        let is_repeated = self.connections[at].as_deref().is_some_and(|connection| connection.client.id == 0);
        entry.plain.filter(|_| is_repeated).map_or(entry, |plain| self.table.entry(plain))
    }

    /// Whether a request may run now; and the flags by which it is judged.
    #[inline(always)]
    fn admit(
        &mut self,
        at: usize,
        entry: &'static CommandEntry,
        argv: Argv<'_>,
        caller: &Caller,
    ) -> (u64, Result<(), Refusal>) {
        let checked = admission::checked_flags(caller, &self.conditions());
        // A program's own flags are looked up only where they matter.
        let is_plain = checked & !flag::PROTECTED == 0 && caller.queued_flags.is_none();
        let flags = if is_plain { entry.row.flags } else { self.call_flags(entry, argv) };
        let rights = || self.check_rights(at, entry, argv);
        let now = || self.conditions();
        (flags, admission::admit_checked(entry.row, flags, checked, caller, now, self, rights))
    }

    /// What runs for a command of a client that listens to channels by RESP2.
    #[cold]
    fn form_when_subscribed(&self, entry: &'static CommandEntry) -> &'static CommandEntry {
        if entry.row.has(flag::REPLIES_AS_MESSAGE) { self.table.hidden(PING_AS_MESSAGE) } else { entry }
    }

    /// Whether a command may send messages to channels. Then it must not run before what its client has sent before it, also
    /// where that waits on the same shard for other keys.
    fn may_publish(&mut self, entry: &CommandEntry, argv: Argv<'_>) -> bool {
        entry.row.has(flag::PUBSUB) || self.program_may_publish(entry, argv)
    }

    /// Whether a request comes to its shard behind all those of its connection whose replies are pending. If one of them waits
    /// there for locks, it waits behind that: see [`must_run_in_turn`](Self::must_run_in_turn).
    fn is_behind_pending(&self, at: usize, route: &Route) -> bool {
        let awaited = self.connections[at].as_deref().and_then(|connection| connection.awaits_only);
        matches!(route, Route::One(shard) if awaited == Some(*shard) && *shard != self.shard.index)
    }

    /// The command that the server itself calls by its name, if rename-command has taken that away.
    #[cold]
    fn own_command(&self, at: usize, argv: Argv<'_>) -> Option<&'static CommandEntry> {
        let connection = self.connections[at].as_deref()?;
        self.table.by_own_name(argv.arg(0)).filter(|_| connection.client.is_server)
    }

    /// The route of a request, which for some commands depends on the state of the server.
    fn route(&self, entry: &CommandEntry, argv: Argv<'_>, db: u32) -> Route {
        match route::route(entry, argv, self.shard.index, self.shard.shard_count) {
            // A database that fits into one call of SCAN is scanned at once, as in Redis: many clients rely on that.
            Route::Walk { keys_max, .. } if self.globals.key_count(db) <= keys_max => {
                Route::Every(KeyspaceLock::All)
            }
            Route::Walk { shard, .. } => Route::One(shard),
            Route::Every(KeyspaceLock::None)
                if entry.row.has(flag::AFTER_HANDOFFS)
                    && (self.has_handoffs() || self.is_client_limit_spreading()) =>
            {
                Route::Every(KeyspaceLock::All)
            }
            route => route,
        }
    }

    /// A request is not admitted: replies with an error, or stalls the connection until it is.
    #[cold]
    fn stall_or_reject(&mut self, at: usize, entry: &CommandEntry, argv: Argv<'_>, refusal: Refusal) -> Flow {
        if let Some(connection) = self.connections[at].as_deref_mut()
            && !matches!(refusal, Refusal::Paused)
        {
            connection.client.last_command = Some(entry.id);
        }
        match refusal {
            Refusal::Error(error) => {
                self.shard.stats.command(entry.id).rejected.add(1);
                self.reject(at, argv, &error)
            }
            Refusal::Subscribed => {
                self.shard.stats.command(entry.id).rejected.add(1);
                let error = CommandError::new(format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                     allowed in this context",
                    entry.full_name
                ));
                self.reject(at, argv, &error)
            }
            Refusal::Denied(denied) => {
                self.shard.stats.command(entry.id).rejected.add(1);
                let error = self.denied(at, entry, argv, denied);
                self.reject(at, argv, &error)
            }
            Refusal::Paused => {
                let connection =
                    self.connections[at].as_deref_mut().expect("its requests are being executed");
                connection.stall = Some(StallReason::Paused);
                self.paused.push(at as u32);
                Flow::Retry
            }
        }
    }

    /// To be called after each request that has run or was started. Returns how its connection continues.
    #[inline]
    pub(super) fn end_request(&mut self, at: usize, flow: Flow) -> Flow {
        let Some(connection) = self.connections[at].as_deref_mut() else { return Flow::Stop };
        if connection.client.reply_mode == ReplyMode::Skip {
            connection.client.reply_mode = ReplyMode::On;
        }
        let mut stops = connection.close_after_reply;
        if connection.open_user_changes > 0 {
            connection.stall.get_or_insert(StallReason::Users);
            stops = true;
        }
        if connection.client.caching_given() {
            self.end_caching(at);
        }
        if stops { Flow::Stop } else { flow }
    }

    /// Replies with an error to a request that is not run.
    pub(super) fn reject(&mut self, at: usize, argv: Argv<'_>, error: &CommandError) -> Flow {
        let instead = self.fail_multi(at, argv, error);
        let error = instead.as_ref().unwrap_or(error);
        self.shard.stats.error(error.code());
        let connection = self.connections[at].as_deref_mut().expect("its requests are being executed");
        let name = argv.arg(0);
        // This is a web browser that was tricked into connecting, not a client: none of its input may be executed.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            crate::runtime::log::warning(format_args!(
                "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands \
                 to Shardis. This is likely due to an attacker attempting to use Cross Protocol Scripting to \
                 compromise your instance. Connection from {} aborted.",
                connection.client.addr
            ));
            self.close_now(at);
            return Flow::Stop;
        }
        self.reply_now(at, |reply| reply.error(error.as_bytes()));
        self.end_caching_after(at, name.eq_ignore_ascii_case(b"client"));
        Flow::Next
    }
}

/// To be called before each request that runs or is started.
#[inline]
pub(super) fn begin_request(connection: &mut Connection, id: CommandId) {
    let client = &mut connection.client;
    if client.reply_mode == ReplyMode::SkipNext {
        client.reply_mode = ReplyMode::Skip;
    }
    client.last_command = Some(id);
    client.command_count += 1;
}

#[inline]
pub(super) fn arity_fits(entry: &CommandEntry, argv: Argv<'_>) -> bool {
    let arity = entry.row.arity;
    if arity >= 0 { argv.len() == arity as usize } else { argv.len() >= arity.unsigned_abs() as usize }
}

/// A parsed group: where it ends, and what follows it.
struct Group {
    end: usize,
    then: Then,
}

enum Then {
    /// There may be more requests.
    Parse,
    /// An incomplete request, with the missing length of its argument if that is known; or nothing.
    Wait(Option<usize>),
    /// An inline request, whose arguments are not in the buffer, and where it ends there.
    Inline(OwnedArgv, usize),
    Fail(ProtocolError),
}
