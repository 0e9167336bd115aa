//! The deterministic simulator: the real workers and shards under seeded schedules, checked against a
//! sequential model.
//!
//! Clients on random shards send random commands over one key or several, alone, in pipelines and in transactions over
//! any number of shards, with and without WATCH; some block, with and without a timeout. Messages are delayed and
//! reordered between different pairs of shards, the clock is advanced now and then, and clients disconnect at any
//! moment; keys are held as suspended programs hold theirs. Runs about the whole server ([`Topic::Server`]) also use a
//! single shard; their clients select, flush, swap and scan databases, call programs (narrow and wide ones, also in
//! EXEC, suspended at any call), look at keys by session commands, and unblock, kill and half-close connections. Others
//! ([`Topic::Type`]) do all that with Redis' commands over lists, hashes, sets, sorted sets or streams with a consumer
//! group, over keys of two types or three, or with commands of a module ([`Topic::Modules`]).
//! Each run checks:
//!
//! - that there is one order of all operations that agrees with the times of calls and replies and with a plain map
//!   ([`history`], [`model`]): transactions are atomic, watched keys are unchanged, no word is taken twice;
//! - that blocked clients are served in the order of arrival ([`history::Fifo`]), that none gets the timeout's reply
//!   before its deadline, and, if only simple commands block, that they are served before any other client sees the
//!   key;
//! - that, whenever nothing is under way, no client is blocked on a key that exists; that all clients are served in the
//!   end; and that no lock and no wait is left.
//!
//! The seed determines [what the clients do](Kind) and the schedule. A failure prints its seed and the history. Each
//! time the same seeds are tried, and some new ones:
//!
//! ```text
//! cargo test -p shardis-core --test sim                                        # 2,200 seeds, some seconds
//! SHARDIS_SIM_SEED=1239 cargo test -p shardis-core --test sim random           # this one alone
//! SHARDIS_SIM_SEEDS=100000 cargo test -p shardis-core --test sim random        # some minutes
//! ```
//!
//! # What it finds
//!
//! To test the simulator, mistakes were made on purpose, one at a time. The number is the first seed that failed:
//!
//! | mistake | seed |
//! |---|---|
//! | a shard releases its locks when it passes a transaction on to the next one (`pass_plan_on`) | 2 |
//! | a shard releases its locks when it sends the checked-out entries (`step`) | 1 |
//! | the last shard of a transaction does not check its locks (`lock_participant`) | 7 |
//! | home does not release the locks that it took ahead (`yield_participant`) | 1 |
//! | a key that changed is unlocked before the clients blocked on it are served (`Shard::serve_waits`) | 10 |
//! | home accepts an offer for a client that is being served (`take_offer`): it is served twice | 38 |
//! | two waiters get the same word (`serve_here`) | 1 |
//! | a client that was offered a key has disconnected: the waiters behind it are not asked (`end_offer`) | 198 |
//! | the same, and its home does not answer the offer at all (`take_offer`) | 18 |
//! | the wait of a client that disconnects is removed on one of its shards only (`end_wait`) | 21 |
//! | a client that was busy with an offer that failed is not offered other keys again (`came_to_nothing`) | 418 |
//! | clients that watch a key do not notice RENAME or COPY at another shard (`tell_checked_out_events`) | 9 |
//! | a transaction loses the result of earlier shards' checks of watched keys (`ask_watches`) | 4 |
//! | watched keys are not locked (`lock_participant`) | 367 |
//! | last come, first served (`Blocking::wait`) | 1 |
//! | the third waiter is placed before the second (`Blocking::wait`) | 1 |
//!
//! In runs about the whole server:
//!
//! | mistake | seed |
//! |---|---|
//! | a command runs before the clients blocked on what the last one changed are served (`serve_due_first`) | 15 |
//! | CLIENT UNBLOCK and CLIENT KILL do not wait for handoffs on other shards (`AFTER_HANDOFFS`) | 50 |
//! | DEBUG OBJECT does not look at the lock of its key (`unlisted_key`) | 51 |
//!
//! About programs, there and beside busy ones ([`Topic::Busy`]):
//!
//! | mistake | seed | beside busy ones |
//! |---|---|---|
//! | a suspended program that keeps to its keys does not lock them (`hold_suspended_unit`) | 251 | 6 |
//! | a program begins without the token although there are locks (`must_await_token`) | 6 | 1 |
//! | the keys that a program has touched are not locked when it is suspended (`want_locks`) | none | 107 |
//! | those that it touches after that are not locked (`take_for_unit`) | 128 | 17 |
//!
//! It also found four unintended bugs, each of which has a test now:
//!
//! | bug | seed |
//! |---|---|
//! | an EXEC fails because of keys that an earlier one of its client watches, which runs (`begin_exec_here`) | 1239 |
//! | pipelined commands run as one unit, and a blocked client is served after all of them (`hold_participant`) | 500 |
//! | a checked-out key counts as missing when it is to be offered to a client again (`signal_again`) | 418 |
//! | CLIENT UNBLOCK ends a wait while the key for it is being checked in on another shard (`has_handoffs`) | new |
//!
//! And these while transactions learnt to give way to programs, and programs to call for keys of other shards:
//!
//! | bug | seed |
//! |---|---|
//! | the next call of a program overtakes the entries that the last one has checked out (`lock_for_call`) | stream: 25 |
//! | the same with those of an earlier command of its EXEC | 127 |
//! | an EXEC fails because of a program that is still under way (`Watch::locks`) | 1510 of lists |
//! | a plan that starts anew does not see that a client is blocked on its key (`start_anew`) | new |
//! | a command that waited runs before the clients blocked on what the last one changed (`resume_granted`) | 548 |
//! | the token's holder waits for a handoff that waits for it (`is_held_by_other`; the lock table's own test) | 1 |
//! | it waits for a command that waits for such a handoff (`is_programs`; the lock table's own test) | 30698 of held |

mod cluster;
mod commands;
mod history;
mod kind;
mod model;
mod module;
mod pubsub;
mod replay;
mod replica;
#[path = "../common/replies.rs"]
mod replies;
mod request;
mod rewrite;
mod snapshot;
mod stream;
mod tracking;

use cluster::random::fresh_seed;
use cluster::{Cluster, Random, request_bytes};
use commands::{
    DB_COUNT, KEYS, crowd_command, module_command, of_type, program_command, random_command, whole_command,
    with_pauses, xadd, zadd,
};
use history::{Fifo, Operation, linearize};
use kind::{KINDS, Kind, Topic};
use model::Model;
use request::{KILLED_REPLY, Key, Request, awaited, replace_killed, streams, timeout_ms, type_of, words};
use shardis_core::protocol::skip::skip_reply;
use shardis_core::shard::lock::LockRequestId;
use shardis_core::shard::slot::shard_of;
use shardis_core::types::stream::{Group, StreamId};
use shardis_core::types::{Object, ValueRef, ValueType};
use std::collections::VecDeque;

/// Seeds of random runs, from 1 on, unless the environment says otherwise.
const SEEDS: u64 = 2000;

/// New seeds in each run of the tests.
const FRESH_SEEDS: u64 = 200;

/// Operations of a run, not counting those that serve the blocked clients at its end.
const OPERATIONS: usize = 60;

/// When more operations than this are open whose clients disconnected, the run continues only when nothing is under
/// way.
const ABANDONED_MAX: usize = 4;

/// So many suspended programs there are at a time.
const SUSPENDED_MAX: usize = 3;

/// A run that takes this many steps makes no progress.
const STEPS_MAX: usize = 100_000;

/// A client of a run.
struct Caller {
    client: usize,
    /// The database that is selected for its next request.
    db: usize,
    /// The operations without a reply, in order.
    unanswered: VecDeque<usize>,
    /// How many replies of the first of them are missing.
    replies_missing: usize,
    /// When it sent its last requests, on the simulated clock.
    called_at_ms: i64,
    /// It has half-closed its connection: it sends no more, but still reads.
    has_ended: bool,
    /// The keys that it watches when its last request has run.
    watches: Vec<Key>,
}

/// One seed: random clients, random requests, random schedule.
struct Run {
    seed: u64,
    topic: Topic,
    kind: Kind,
    random: Random,
    cluster: Cluster,
    callers: Vec<Caller>,
    operations: Vec<Operation>,
    /// Operations of disconnected clients that may still be under way.
    abandoned: Vec<usize>,
    fifo: Fifo,
    unique: u32,
    step: usize,
    /// Keys that are held as suspended programs hold theirs.
    suspended: Vec<(usize, LockRequestId)>,
    /// How many requests were refused, and programs killed.
    refused: usize,
}

impl Run {
    fn new(seed: u64, topic: Topic) -> Run {
        let mut random = Random::new(seed ^ 0x5EED);
        let shard_count = match topic {
            Topic::Keys => 2 + random.below(4),
            Topic::Server | Topic::Type(_) | Topic::Busy | Topic::Held | Topic::Modules => {
                1 + random.below(4)
            }
        };
        let kind = KINDS[seed as usize % KINDS.len()];
        let caller_count = if kind == Kind::Crowd { 5 } else { 2 } + random.below(4);
        let table = if topic == Topic::Modules { module::table() } else { cluster::table() };
        let mut run = Run {
            seed,
            topic,
            kind,
            random,
            cluster: Cluster::with_table(shard_count, seed, table),
            callers: Vec::new(),
            operations: Vec::new(),
            abandoned: Vec::new(),
            fifo: Fifo::new(&KEYS),
            unique: 0,
            step: 0,
            suspended: Vec::new(),
            refused: 0,
        };
        if topic == Topic::Busy {
            let admin = run.cluster.connect(0);
            let threshold_ms = (1 + run.random.below(5)).to_string();
            run.cluster.call(admin, &["CONFIG", "SET", "busy-reply-threshold", &threshold_ms]);
            run.cluster.tick();
        }
        for _ in 0..caller_count {
            let caller = run.connect();
            run.callers.push(caller);
        }
        run
    }

    fn connect(&mut self) -> Caller {
        let shard = self.random.below(self.cluster.workers.len());
        let client = self.cluster.connect(shard);
        Caller {
            client,
            db: 0,
            unanswered: VecDeque::new(),
            replies_missing: 0,
            called_at_ms: 0,
            has_ended: false,
            watches: Vec::new(),
        }
    }

    /// Sends requests in one piece. `db`: the database that is selected before the first of them.
    fn call(&mut self, n: usize, mut db: usize, requests: Vec<Request>) {
        let shard_count = self.cluster.workers.len();
        let caller = &mut self.callers[n];
        caller.called_at_ms = self.cluster.now_ms();
        caller.replies_missing = requests[0].commands().len();
        let mut bytes = Vec::new();
        for request in requests {
            for command in request.commands() {
                bytes.extend_from_slice(&request_bytes(&command));
            }
            let is_before = |&earlier: &usize| {
                let Operation { db: earlier_db, request: earlier, .. } = &self.operations[earlier];
                earlier.is_before(*earlier_db, (db, &request), shard_count)
            };
            let behind = caller.unanswered.iter().copied().filter(is_before).collect();
            caller.unanswered.push_back(self.operations.len());
            caller.db = request.selects(db);
            self.operations.push(Operation {
                client: caller.client,
                db: std::mem::replace(&mut db, caller.db),
                request,
                is_on_one_shard: shard_count == 1,
                called_at: self.step,
                behind,
                replied: None,
                is_void: false,
                over_at: None,
                waits_at: None,
            });
        }
        self.cluster.send(caller.client, &bytes);
    }

    /// The first operation of a caller that has no reply yet.
    fn calls(&self, n: usize) -> Option<usize> {
        self.callers[n].unanswered.front().copied()
    }

    /// Disconnects a caller, and connects another one in its place.
    fn die(&mut self, n: usize) {
        let caller = &self.callers[n];
        // Requests that have not arrived are lost, and a blocked client that has accepted no offer gets nothing any
        // more.
        let waits = self.cluster.wait_of(caller.client).is_some_and(|(_, is_being_served)| !is_being_served);
        let is_void = waits || self.cluster.is_sending(caller.client);
        for &operation in &caller.unanswered {
            let operation = &mut self.operations[operation];
            operation.is_void = is_void;
            // Those before it may have been refused, which nobody sees.
            if self.topic == Topic::Busy {
                operation.behind.clear();
            }
        }
        self.cluster.disconnect(caller.client);
        self.replace(n);
    }

    /// Connects another caller in the place of one whose connection is closed.
    fn replace(&mut self, n: usize) {
        self.abandoned.extend(&self.callers[n].unanswered);
        self.callers[n] = self.connect();
    }

    /// One step of the cluster, and the processing of its replies.
    fn step(&mut self) {
        self.step += 1;
        assert!(self.step < STEPS_MAX, "no progress");
        self.cluster.step();
        for n in 0..self.callers.len() {
            self.take_replies(n);
            if !self.cluster.is_open(self.callers[n].client) {
                self.check_closed(n);
                self.replace(n);
            }
        }
        self.fifo.look(&self.cluster);
        // What waits for a suspended program is still under way.
        if !self.cluster.is_busy() && self.suspended.is_empty() {
            for operation in self.abandoned.drain(..) {
                self.operations[operation].over_at = Some(self.step);
            }
        }
    }

    /// The server has closed a connection: its client was killed, or has half-closed it and has all replies or was
    /// blocked.
    fn check_closed(&self, n: usize) {
        let Caller { client, unanswered, has_ended, .. } = &self.callers[n];
        let kills = |other: &Operation| matches!(other.request, Request::Kill { client: killed, .. } if killed == *client);
        let waits =
            unanswered.iter().any(|&operation| !self.operations[operation].request.awaited().is_empty());
        let is_due = *has_ended && (unanswered.is_empty() || waits);
        assert!(is_due || self.operations.iter().any(kills), "the server has closed client {client}");
    }

    fn take_replies(&mut self, n: usize) {
        let received = self.cluster.received(self.callers[n].client);
        let mut left = &received[..];
        while !left.is_empty() {
            let (reply, rest) = left.split_at(skip_reply(left).expect("replies are sent whole"));
            left = rest;
            self.take_reply(n, String::from_utf8(reply.to_vec()).expect("replies here are text"));
        }
        let caller = &self.callers[n];
        if let Some((wait, _)) = self.cluster.wait_of(caller.client) {
            let operation = *caller.unanswered.front().expect("a blocked client has an open operation");
            self.fifo.note(wait, operation);
            self.operations[operation].waits_at.get_or_insert(self.step);
        }
    }

    /// Whether a CLIENT UNBLOCK can have ended the first open operation of a caller.
    fn is_unblocked(&self, n: usize, is_with_error: bool) -> bool {
        let Some(operation) = self.calls(n).map(|operation| &self.operations[operation]) else {
            return false;
        };
        self.operations.iter().any(|other| match other.request {
            Request::Unblock { client, with_error, .. } => {
                client == operation.client
                    && with_error == is_with_error
                    && other.replied.as_ref().is_none_or(|(step, _)| *step >= operation.called_at)
            }
            _ => false,
        })
    }

    fn take_reply(&mut self, n: usize, mut reply: String) {
        let is_unblocked = self.is_unblocked(n, false);
        if reply.starts_with("-UNBLOCKED client") {
            assert!(self.is_unblocked(n, true), "no CLIENT UNBLOCK was called for it");
            reply = "*-1\r\n".to_string();
        }
        let is_unblocked = is_unblocked || self.is_unblocked(n, true);
        let caller = &mut self.callers[n];
        let operation = *caller.unanswered.front().expect("a reply answers a request");
        let operation = &mut self.operations[operation];
        caller.replies_missing -= 1;
        if caller.replies_missing > 0 {
            let is_first = caller.replies_missing + 1 == operation.request.commands().len();
            if self.topic == Topic::Busy && !is_first && reply.starts_with("-BUSY ") {
                return;
            }
            assert_eq!(reply, if is_first { "+OK\r\n" } else { "+QUEUED\r\n" });
            return;
        }
        if let Request::One(command) = &operation.request
            && !awaited(command).is_empty()
            && reply == "*-1\r\n"
            && !is_unblocked
        {
            let timeout_ms = timeout_ms(command);
            let waited_ms = self.cluster.now_ms() - caller.called_at_ms;
            assert!(timeout_ms > 0.0 && waited_ms as f64 >= timeout_ms, "it waited for {waited_ms} ms");
        }
        if self.topic == Topic::Busy {
            // Refused, or killed before it has written.
            operation.is_void =
                ["-BUSY ", "-EXECABORT ", KILLED_REPLY].iter().any(|text| reply.starts_with(text));
            self.refused += usize::from(operation.is_void);
            if let Request::Exec { commands, .. } = &mut operation.request {
                replace_killed(commands, &reply);
            }
        }
        operation.replied = Some((self.step, operation.request.canonical(reply)));
        caller.unanswered.pop_front();
        if let Some(&next) = caller.unanswered.front() {
            caller.replies_missing = self.operations[next].request.commands().len();
        }
    }

    /// Random requests to be sent in one piece.
    fn random_requests(&mut self, n: usize) -> Vec<Request> {
        if self.topic == Topic::Busy {
            let count = 1 + self.random.below(3) / 2;
            return (0..count).map(|_| self.request_beside_programs()).collect();
        }
        if self.topic != Topic::Keys && self.random.below(3) == 0 {
            return self.random_race(n);
        }
        let share = match self.kind {
            Kind::Mixed | Kind::Simple => 4,
            Kind::Crowd => 10,
            Kind::Transactions => 2,
        };
        let count = if self.random.below(share) == 0 { 2 + self.random.below(3) } else { 1 };
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.push(self.random_request(n));
            self.callers[n].db = requests[requests.len() - 1].selects(self.callers[n].db);
        }
        requests
    }

    /// A request of a run about busy programs.
    fn request_beside_programs(&mut self) -> Request {
        match self.random.below(8) {
            0..3 => Request::One(self.program_with_pauses()),
            3 => {
                let count = 1 + self.random.below(3);
                let mut commands: Vec<Vec<String>> = (0..count).map(|_| self.command_at_once()).collect();
                // If its client has disconnected, nobody sees whether it was killed in the midst of the EXEC.
                if self.kind == Kind::Simple && self.random.below(2) == 0 {
                    commands[count - 1] = self.program_with_pauses();
                }
                Request::Exec { commands, watched: Vec::new() }
            }
            4 => Request::One(vec!["SCRIPT".into(), "KILL".into()]),
            _ => Request::One(self.command_at_once()),
        }
    }

    fn program_with_pauses(&mut self) -> Vec<String> {
        let program = program_command(&mut self.random, &mut self.unique);
        with_pauses(&mut self.random, program)
    }

    /// A command that does not block.
    fn command_at_once(&mut self) -> Vec<String> {
        loop {
            let command = random_command(&mut self.random, &mut self.unique);
            if awaited(&command).is_empty() {
                return command;
            }
        }
    }

    /// A push to a key that a client is blocked on, if there is one, and directly after it a request whose reply
    /// depends on whether that client was served first.
    fn random_race(&mut self, n: usize) -> Vec<Request> {
        let who = self.random.below(self.callers.len());
        let waits = self.calls(who).filter(|_| self.cluster.wait_of(self.callers[who].client).is_some());
        let Some(operation) = waits else { return vec![self.server_request(n)] };
        let Operation { db, request, .. } = &self.operations[operation];
        let (db, key) = (*db, request.awaited()[0].clone());
        let push = self.push(key);
        let select = vec!["SELECT".into(), db.to_string()];
        let mut requests = vec![Request::One(push), self.server_request_about(who, n)];
        if self.callers[n].db != db {
            requests.insert(0, Request::One(select));
        }
        requests
    }

    /// A command that adds a word to a key.
    fn push(&mut self, key: String) -> Vec<String> {
        self.unique += 1;
        let word = format!("v{}", self.unique);
        match self.topic {
            Topic::Keys
            | Topic::Server
            | Topic::Busy
            | Topic::Held
            | Topic::Modules
            | Topic::Type(ValueType::String) => vec!["TPUSH".into(), key, word],
            Topic::Type(ValueType::List | ValueType::Set | ValueType::Hash) => {
                vec!["RPUSH".into(), key, word]
            }
            Topic::Type(ValueType::ZSet) => zadd(&key, &[word]),
            Topic::Type(ValueType::Stream) => xadd(&key, self.unique),
            Topic::Type(ValueType::Module(_)) => unreachable!("no command here makes values of modules"),
        }
    }

    /// A request about the whole server.
    fn server_request(&mut self, n: usize) -> Request {
        let who = self.random.below(self.callers.len());
        self.server_request_about(who, n)
    }

    /// A request about the whole server, or about client `who`.
    fn server_request_about(&mut self, who: usize, n: usize) -> Request {
        let client = self.callers[who].client;
        if who != n && self.random.below(3) == 0 {
            let id = self.cluster.client_id(client);
            return match self.random.below(4) {
                0 => Request::Kill { client, id },
                how => Request::Unblock { client, id, with_error: how == 1 },
            };
        }
        Request::One(whole_command(&mut self.random))
    }

    fn random_request(&mut self, n: usize) -> Request {
        if self.topic != Topic::Keys {
            match self.random.below(10) {
                0 | 1 => return self.server_request(n),
                2 => {
                    let program = program_command(&mut self.random, &mut self.unique);
                    return Request::One(self.of_topic(program));
                }
                3..=5 if self.topic == Topic::Modules => {
                    return Request::One(module_command(&mut self.random, &mut self.unique));
                }
                _ => {}
            }
        }
        let key = |random: &mut Random| KEYS[random.below(KEYS.len())].to_string();
        let is_often = self.kind == Kind::Transactions && self.random.below(2) == 0;
        match self.random.below(if is_often { 2 } else { 12 }) {
            0 => {
                let keys = vec![key(&mut self.random), key(&mut self.random)];
                let db = self.callers[n].db;
                self.callers[n].watches.extend(keys.iter().map(|key| (db, key.clone())));
                Request::Watch(keys)
            }
            1 => self.random_transaction(n),
            _ if !self.callers[n].watches.is_empty() && self.random.below(2) == 0 => {
                self.random_transaction(n)
            }
            _ => Request::One(self.random_command(n)),
        }
    }

    fn random_command(&mut self, n: usize) -> Vec<String> {
        let command = match self.kind {
            Kind::Mixed | Kind::Simple | Kind::Transactions => {
                random_command(&mut self.random, &mut self.unique)
            }
            Kind::Crowd => crowd_command(&mut self.random, &mut self.unique),
        };
        if awaited(&command).is_empty() {
            return self.of_topic(command);
        }
        let (key, word) = (command[1].clone(), format!("v{}", self.unique));
        let command = match (self.kind, n) {
            // The first client never blocks, or all of them could be blocked for ever.
            (Kind::Simple | Kind::Crowd, 0) => vec!["TPUSH".into(), key, word],
            (Kind::Simple, _) => vec!["BTAKE".into(), key, "0".into()],
            _ if self.topic == Topic::Held && command[0] == "BTAKE" && self.random.below(2) == 0 => {
                words("HTAKE", &command[1..], &[])
            }
            _ => command,
        };
        self.of_topic(command)
    }

    /// The command, or what it is over values of the topic's type.
    fn of_topic(&mut self, command: Vec<String>) -> Vec<String> {
        match self.topic {
            Topic::Type(value_type) => of_type(value_type, &mut self.random, self.unique, command, false),
            Topic::Keys | Topic::Server | Topic::Busy | Topic::Held | Topic::Modules => command,
        }
    }

    fn random_transaction(&mut self, n: usize) -> Request {
        let watched = std::mem::take(&mut self.callers[n].watches);
        // Short ones sometimes have all their keys on one shard.
        let count = self.random.below(if self.kind == Kind::Transactions { 3 } else { 5 });
        let mut commands = Vec::new();
        for _ in 0..count {
            let command = random_command(&mut self.random, &mut self.unique);
            commands.push(self.of_topic(command));
        }
        if self.topic != Topic::Keys && count > 0 && self.random.below(2) == 0 {
            let select = |db: usize| vec!["SELECT".to_string(), db.to_string()];
            commands.insert(self.random.below(count), select(self.random.below(DB_COUNT)));
            let program = if self.topic == Topic::Modules && self.random.below(2) == 0 {
                module_command(&mut self.random, &mut self.unique)
            } else {
                program_command(&mut self.random, &mut self.unique)
            };
            commands[count] = self.of_topic(program);
            // The transaction may not run. Selecting the client's database at the end leaves it selected in any case.
            commands.push(select(self.callers[n].db));
        }
        Request::Exec { commands, watched }
    }

    /// Whether a client with an open operation is to half-close its connection now. A client that is blocked then is
    /// freed without any command, which the model of `AtOnce` does not contain.
    fn ends_input(&mut self, n: usize) -> bool {
        let waits = |&operation: &usize| !self.operations[operation].request.awaited().is_empty();
        let may = self.kind != Kind::Simple || !self.callers[n].unanswered.iter().any(waits);
        self.topic != Topic::Keys && may && self.random.below(30) == 0
    }

    /// Whether a client with an open operation is to be disconnected now.
    fn dies(&mut self) -> bool {
        match self.kind {
            Kind::Mixed | Kind::Transactions => self.random.below(60) == 0,
            Kind::Simple => false,
            Kind::Crowd => self.random.below(20) == 0,
        }
    }

    /// Sends requests, disconnects clients and advances the clock, at random.
    fn run(&mut self, operations: usize) {
        while self.operations.len() < operations {
            let n = self.random.below(self.callers.len());
            if self.calls(n).is_none() && !self.callers[n].has_ended {
                let db = self.callers[n].db;
                let requests = self.random_requests(n);
                self.call(n, db, requests);
                if self.ends_input(n) {
                    self.callers[n].has_ended = true;
                    self.cluster.end_input(self.callers[n].client);
                }
            } else if self.dies() {
                self.die(n);
            }
            // With many open operations of disconnected clients the search for an order would take too long.
            if self.abandoned.len() > ABANDONED_MAX || self.random.below(20) == 0 {
                self.come_to_quiet();
                self.check_waiting();
            }
            if self.random.below(10) == 0 {
                let ms = 1 + self.random.below(10) as i64;
                self.cluster.clock.advance_ms(ms);
                self.cluster.tick();
            }
            self.suspend_programs();
            self.step();
        }
    }

    /// Now and then holds keys as a suspended program does, or ends that.
    fn suspend_programs(&mut self) {
        if self.random.below(8) == 0 && self.suspended.len() < SUSPENDED_MAX {
            let first = KEYS[self.random.below(KEYS.len())];
            let shard_count = self.cluster.workers.len();
            let shard = shard_of(first.as_bytes(), shard_count);
            let count = self.random.below(3);
            let others = KEYS.into_iter().filter(|key| shard_of(key.as_bytes(), shard_count) == shard);
            let keys: Vec<&str> = std::iter::once(first).chain(others.take(count)).collect();
            let exclusive = self.random.below(3) > 0;
            let held = self.cluster.suspend_program(shard, &keys, exclusive);
            self.suspended.extend(held.map(|held| (shard, held)));
        }
        if self.random.below(12) == 0 && !self.suspended.is_empty() {
            let at = self.random.below(self.suspended.len());
            let (shard, held) = self.suspended.swap_remove(at);
            self.cluster.end_program(shard, held);
        }
    }

    /// Ends the run: lets everything under way finish, then lets blocked clients time out or serves them.
    fn finish(&mut self) {
        self.come_to_rest();
        self.check_replies();
        self.check_waiting();
        let feeder = self.connect();
        self.callers.push(feeder);
        let feeder = self.callers.len() - 1;
        while let Some(waiting) = (0..feeder).find_map(|n| self.calls(n)) {
            let Request::One(command) = &self.operations[waiting].request else {
                unreachable!("check_replies: only blocked clients have no reply");
            };
            if timeout_ms(command) > 0.0 {
                self.cluster.clock.advance_ms(1000);
                self.cluster.tick();
            } else {
                let key = awaited(command)[0].clone();
                let (db, feeder_db) = (self.operations[waiting].db, self.callers[feeder].db);
                // The key may hold a value of another type.
                let delete = vec!["DEL".into(), key.clone()];
                let mut requests = vec![Request::One(self.push(key))];
                if matches!(self.topic, Topic::Type(_)) {
                    requests.insert(0, Request::One(delete));
                }
                if feeder_db != db {
                    requests.insert(0, Request::One(vec!["SELECT".into(), db.to_string()]));
                }
                self.call(feeder, feeder_db, requests);
            }
            self.come_to_rest();
            self.check_replies();
            self.check_waiting();
            assert_eq!(self.calls(feeder), None, "a push gets a reply");
        }
    }

    /// At rest, a client without a reply must be blocked.
    fn check_replies(&self) {
        for n in (0..self.callers.len()).filter(|&n| self.calls(n).is_some()) {
            assert!(self.cluster.wait_of(self.callers[n].client).is_some(), "client {n} gets no reply");
        }
    }

    /// When nothing is under way, no client may be blocked on a key that exists.
    fn check_waiting(&self) {
        for n in 0..self.callers.len() {
            let waits = self.cluster.wait_of(self.callers[n].client).is_some();
            let Some(operation) = self.calls(n).filter(|_| waits) else { continue };
            let Operation { db, request: Request::One(command), .. } = &self.operations[operation] else {
                unreachable!("only commands block");
            };
            for key in awaited(command) {
                assert!(
                    !serves(&self.cluster, command, *db, key),
                    "client {n} is blocked on {key}, which serves it"
                );
            }
        }
    }

    fn come_to_quiet(&mut self) {
        for (shard, held) in std::mem::take(&mut self.suspended) {
            self.cluster.end_program(shard, held);
        }
        // Replies to a client that sends no more may be there already.
        self.step();
        while self.cluster.is_busy() {
            self.step();
        }
    }

    fn come_to_rest(&mut self) {
        self.step();
        loop {
            self.come_to_quiet();
            // A reply may be delayed by up to a millisecond.
            self.cluster.clock.advance_ms(1);
            self.cluster.tick();
            self.step();
            if !self.cluster.is_busy() {
                return;
            }
        }
    }

    /// Checks the run as a whole.
    fn check(&self) {
        assert!(self.cluster.is_at_rest(), "a lock or a wait is left");
        let overtaken = self.fifo.overtaken(&self.operations);
        assert_eq!(overtaken, None, "an operation was overtaken: it, the one that overtook it, and the key");
        linearize(&self.operations, self.kind.waiting())
            .expect("one order of all operations explains this history");
    }
}

/// Whether a command that is blocked on a key has something to get for it.
fn serves(cluster: &Cluster, command: &[String], db: usize, key: &str) -> bool {
    cluster.see(db, key, |value| match (type_of(command), value) {
        (ValueType::String, value) => value.is_some(),
        (ValueType::Stream, Some(ValueRef::Object(Object::Stream(stream)))) => {
            let (keys, ids) = streams(command);
            let at = keys.iter().position(|other| other == key).expect("it waits for this key");
            let after = match ids[at].split_once('-') {
                Some((ms, _)) => Some(StreamId { ms: ms.parse().expect("the ID of an entry"), seq: 0 }),
                None => stream.groups.get(b"g").map(Group::last_id),
            };
            after.is_none_or(|after| stream.log.last().is_some_and(|last| last.id > after))
        }
        // Without its key it ends with an error.
        (ValueType::Stream, _) => command[0] == "XREADGROUP",
        (value_type, Some(value)) => value.value_type() == value_type,
        (_, None) => false,
    })
}

/// Prints the seed and the history of a run that fails.
impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (n, operation) in self.operations.iter().enumerate() {
            let Operation { client, db, request, called_at, replied, waits_at, over_at, .. } = operation;
            let waits_at = waits_at.map_or(String::new(), |step| format!("waits from {step}"));
            let over_at = over_at.map_or(String::new(), |step| format!("over at {step}"));
            eprintln!(
                "{n:3}: client {client}, db {db}, {called_at:4}: {request:?} -> {replied:?} {waits_at}{over_at}"
            );
        }
        let (seed, shard_count) = (self.seed, self.cluster.workers.len());
        eprintln!("seed {seed}: {shard_count} shards, {:?}, {:?}", self.topic, self.kind);
    }
}

/// The seeds to try: `count` from 1 on and some new ones, unless the environment specifies others.
fn seeds(count: u64) -> Vec<u64> {
    let number =
        |name| std::env::var(name).ok().map(|text| text.parse().expect("the number of a seed, or of seeds"));
    if let Some(seed) = number("SHARDIS_SIM_SEED") {
        return vec![seed];
    }
    let fresh = fresh_seed();
    println!("{FRESH_SEEDS} fresh seeds from {fresh} on");
    let fresh = (0..FRESH_SEEDS).map(|n| fresh.wrapping_add(n));
    (1..=number("SHARDIS_SIM_SEEDS").unwrap_or(count)).chain(fresh).collect()
}

#[test]
fn random_schedules_of_several_shards_are_linearizable() {
    run_seeds(Topic::Keys);
}

#[test]
fn random_requests_over_lists_are_linearizable() {
    run_seeds(Topic::Type(ValueType::List));
}

#[test]
fn random_requests_over_sorted_sets_are_linearizable() {
    run_seeds(Topic::Type(ValueType::ZSet));
}

#[test]
fn random_requests_over_sets_are_linearizable() {
    run_seeds(Topic::Type(ValueType::Set));
}

#[test]
fn random_requests_over_hashes_are_linearizable() {
    run_seeds(Topic::Type(ValueType::Hash));
}

#[test]
fn random_requests_over_streams_are_linearizable() {
    run_seeds(Topic::Type(ValueType::Stream));
}

#[test]
fn random_requests_about_the_whole_server_are_linearizable() {
    run_seeds(Topic::Server);
}

#[test]
fn random_requests_beside_busy_programs_are_linearizable() {
    run_seeds(Topic::Busy);
}

#[test]
fn random_requests_beside_clients_that_programs_hold_are_linearizable() {
    run_seeds(Topic::Held);
}

#[test]
fn random_requests_beside_commands_of_a_module_are_linearizable() {
    run_seeds(Topic::Modules);
}

fn run_seeds(topic: Topic) {
    let (mut waited, mut refused) = (0, 0);
    let seeds = seeds(SEEDS);
    for &seed in &seeds {
        let mut run = Run::new(seed, topic);
        run.run(OPERATIONS);
        run.finish();
        run.check();
        refused += run.refused;
        waited += run.operations.iter().filter(|operation| operation.waits_at.is_some()).count();
    }
    assert!(waited > 0 || topic == Topic::Busy || seeds.len() < 10, "no command has blocked");
    assert!(refused > 0 || topic != Topic::Busy || seeds.len() < 10, "nothing was refused");
}

#[test]
fn a_pipeline_of_one_client_is_answered_in_order_and_sees_its_own_writes() {
    for seed in 1..50 {
        let mut cluster = Cluster::new(3, seed);
        let client = cluster.connect(0);
        for n in 0..20 {
            let key = KEYS[n % KEYS.len()];
            cluster.request(client, &["SET", key, &n.to_string()]);
            cluster.request(client, &["GET", key]);
            cluster.request(client, &["MGET", key, "a", "b"]);
        }
        cluster.settle();
        let replies = String::from_utf8(cluster.received(client)).expect("text");
        let mut model = Model::default();
        let mut expected = String::new();
        for n in 0..20 {
            let key = KEYS[n % KEYS.len()].to_string();
            for command in [
                vec!["SET".to_string(), key.clone(), n.to_string()],
                vec!["GET".to_string(), key.clone()],
                vec!["MGET".to_string(), key.clone(), "a".to_string(), "b".to_string()],
            ] {
                expected += &model.apply(0, &command);
            }
        }
        assert_eq!(replies, expected, "seed {seed}");
    }
}

#[test]
fn a_client_that_disconnects_in_the_middle_leaves_no_lock() {
    for seed in 1..200 {
        let mut cluster = Cluster::new(4, seed);
        let (dying, living) = (cluster.connect(0), cluster.connect(3));
        cluster.request(dying, &["MSET", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1"]);
        cluster.request(dying, &["RENAME", "a", "b"]);
        for _ in 0..cluster.random.below(12) {
            cluster.step();
        }
        cluster.disconnect(dying);
        cluster.settle();
        cluster.tick();
        assert!(cluster.is_at_rest(), "seed {seed}");
        assert_eq!(cluster.call(living, &["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]), "+OK\r\n");
        assert_eq!(cluster.call(living, &["GET", "b"]), "$1\r\n2\r\n", "seed {seed}");
        assert!(cluster.is_at_rest(), "seed {seed}");
    }
}

#[test]
fn any_number_of_commands_may_wait_for_one_lock() {
    let mut cluster = Cluster::new(2, 1);
    let reader = cluster.connect(0);
    let crowd: Vec<usize> = (0..5000).map(|n| cluster.connect(n % 2)).collect();
    cluster.request(reader, &["MGET", "a", "b", "c", "d"]);
    while cluster.workers.iter().all(|worker| worker.shard.locks.is_empty()) {
        cluster.step();
    }
    for &client in &crowd {
        for _ in 0..8 {
            cluster.request(client, &["INCR", "a"]);
            cluster.request(client, &["INCR", "b"]);
        }
        cluster.hand_over(client);
    }
    assert!(cluster.workers.iter().any(|worker| worker.shard.locks.len() > 20_000));
    cluster.settle();
    assert!(!cluster.received(reader).is_empty());
    for key in ["a", "b"] {
        assert_eq!(cluster.call(reader, &["GET", key]), "$5\r\n40000\r\n");
    }
}

/// All requests that it had sent run, whatever was under way when the end of its input was seen, and it gets all
/// replies.
#[test]
fn a_client_that_ends_its_input_is_answered_and_leaves_no_lock() {
    for seed in 1..200 {
        let mut cluster = Cluster::new(4, seed);
        let (ending, living) = (cluster.connect(0), cluster.connect(3));
        for args in [
            &["MSET", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5"][..],
            &["GET", "b"],
            &["RENAME", "a", "b"],
            &["MULTI"],
            &["INCR", "b"],
            &["INCR", "c"],
            &["EXEC"],
            &["GET", "c"],
        ] {
            cluster.request(ending, args);
        }
        for _ in 0..cluster.random.below(12) {
            cluster.step();
        }
        cluster.end_input(ending);
        cluster.settle();
        cluster.tick();
        cluster.settle();
        let replies = String::from_utf8(cluster.received(ending)).expect("text");
        let expected = "+OK\r\n$1\r\n2\r\n+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:2\r\n:4\r\n$1\r\n4\r\n";
        assert_eq!(replies, expected, "seed {seed}");
        assert!(!cluster.is_open(ending), "seed {seed}");
        assert!(cluster.is_at_rest(), "seed {seed}");
        assert_eq!(cluster.call(living, &["MSET", "a", "2", "b", "2", "c", "2", "d", "2"]), "+OK\r\n");
    }
}
