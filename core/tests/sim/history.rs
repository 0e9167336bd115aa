//! Histories: the operations that clients called and the replies that they got, and a search for one sequential order
//! of the operations that explains the replies (a linearization).
//!
//! The search is Wing and Gong's: the next operation may be any one not placed yet that was called before the first of
//! these was answered. States (operations placed, model) that led to no order are remembered. Beyond
//! `tests/history/linear.rs`, which is for clients that call one operation after the other, it handles pipelines, whose
//! order a connection keeps only in part, and operations that block and are served later.
//!
//! # What is not checked, and why
//!
//! *Order in pipelines.* Pipelined commands over different keys, each of a single shard, may take effect in any order:
//! the README says so, and cluster clients behave the same ([`Request::is_before`]).
//!
//! *Which key serves.* A blocking command takes effect at one moment between its call and its reply, like any other,
//! from any of its keys that exists at that moment. If it was blocked, it is served by the key that was offered first,
//! but clients cannot observe whether it was. That waiters are served in order is checked separately ([`Fifo`]). For a
//! command that waits for one key and takes only from that, more is required: see [`Waiting::AtOnce`].
//!
//! *CLIENT UNBLOCK and CLIENT KILL* must behave as in Redis where commands take effect [`Waiting::AtOnce`]: a client
//! that is blocked at that moment is unblocked, and one that has been served before remains served. Only CLIENT UNBLOCK may
//! answer 0 for a client whose shard has not heard yet that it is blocked on another shard (the README says so).
//!
//! *Disconnected clients.* An operation whose client disconnected before the reply may have taken effect or not. But it
//! cannot take effect after a moment at which nothing is under way. It has no effect if the server had not received it
//! yet, or if it was blocked and no offer to it had been accepted.
//!
//! # Which orders are not tried, and why none is missed
//!
//! Two adjacent operations can be exchanged unless they share a key that one of them writes. So of all operations that
//! may come next, only those matter that are related, directly or through others, to the one that must be placed
//! soonest: in every complete order, the first of these can be moved here, before operations unrelated to it. And an
//! operation that only reads, whatever the state, can always be placed as early as possible. (That an operation changes
//! nothing *in this state* is not enough: a FLUSHALL of an empty database may be the one that had to flush something
//! later.) A test compares the results with those of a search that tries everything.

use super::cluster::Cluster;
use super::commands::{DB_COUNT, KEYS};
use super::model::{Model, bulk};
use super::request::Request;
use shardis_core::shard::blocking::WaitId;
use shardis_core::shard::slot::shard_of;
use std::collections::{HashMap, HashSet};

#[derive(Clone)]
pub struct Operation {
    pub client: usize,
    /// The database that its client had selected before it.
    pub db: usize,
    pub request: Request,
    /// There is one shard, so a count of all keys is of one moment.
    pub is_on_one_shard: bool,
    pub called_at: usize,
    /// Earlier operations of the same pipeline that take effect before it.
    pub behind: Vec<usize>,
    /// The step in which its reply came, and the reply. `None`: its client disconnected before.
    pub replied: Option<(usize, String)>,
    /// Its client disconnected so early that it cannot have taken effect.
    pub is_void: bool,
    /// Its client disconnected, and after this step nothing was under way: it has taken effect by then or never will.
    pub over_at: Option<usize>,
    /// The first step after which it was seen to be blocked.
    pub waits_at: Option<usize>,
}

impl Operation {
    fn reply(&self) -> Option<&str> {
        self.replied.as_ref().map(|(_, reply)| reply.as_str())
    }

    fn replied_at(&self) -> usize {
        self.replied.as_ref().map_or(usize::MAX, |(step, _)| *step)
    }

    /// The key that it was served by. `None`: by none, or that is unknown.
    fn served_by(&self) -> Option<&str> {
        let reply = self.reply().filter(|_| !self.request.awaited().is_empty())?;
        if reply.starts_with('$') {
            // Of BLMOVE, which has one key to take from.
            return self.request.awaited().first().map(String::as_str);
        }
        if let Request::One(command) = &self.request
            && matches!(command[0].as_str(), "XREAD" | "XREADGROUP")
        {
            let place = reply.strip_prefix("*1\r\n*2\r\n").and_then(|rest| rest.split("\r\n").nth(1));
            return place.filter(|_| command[0] == "XREADGROUP");
        }
        // BZPOPMIN returns a key, a member and a score, the others a key and what was taken.
        let rest = reply.strip_prefix("*2\r\n").or_else(|| reply.strip_prefix("*3\r\n"));
        rest.and_then(|rest| rest.split("\r\n").nth(1))
    }

    /// Whether it changes nothing in any state in which its reply is possible.
    fn only_reads(&self, waiting: Waiting) -> bool {
        let (Request::One(command), Some(reply)) = (&self.request, self.reply()) else { return false };
        match command[0].as_str() {
            "GET" | "MGET" | "EXISTS" | "DBSIZE" | "KEYS" | "SCAN" | "RANDOMKEY" | "DEBUG" | "SELECT"
            | "SCRIPT" => true,
            "DEL" | "MSETNX" | "COPY" | "MOVE" => reply.starts_with('-') || reply == ":0\r\n",
            "RENAME" => reply.starts_with('-'),
            "LRANGE" | "SMEMBERS" | "SINTER" | "HGETALL" | "XRANGE" | "XPENDING" => true,
            // Whether it blocks or not.
            "XREAD" => waiting == Waiting::SomeTime || self.request.awaited().is_empty(),
            "TTAKE" | "LPOP" | "LMOVE" => reply == "$-1\r\n" || reply.starts_with('-'),
            "TPUSH" | "TJOIN" | "RPUSH" => reply.starts_with('-'),
            // With `AtOnce` it joins the queue of waiters, which is a change of the state.
            "BTAKE" | "HTAKE" | "BMOVE" | "BLPOP" | "BLMOVE" | "BLMPOP" | "XREADGROUP" => {
                (reply == "*-1\r\n" || reply.starts_with('-')) && waiting == Waiting::SomeTime
            }
            _ => false,
        }
    }

    /// The keys that it may read or write, given its reply.
    fn touched(&self, waiting: Waiting) -> Touched {
        let place = |(db, key): &(usize, String)| {
            db * KEYS.len() + KEYS.iter().position(|other| other == key).expect("all requests are over KEYS")
        };
        let keys = self.request.keys(self.db);
        let keys = keys.map_or(u32::MAX, |keys| keys.iter().fold(0, |mask, key| mask | 1 << place(key)));
        match &self.request {
            Request::Watch(_) | Request::Unblock { .. } | Request::Kill { .. } => {
                Touched { read: keys, written: 0 }
            }
            Request::One(_) | Request::Exec { .. } if self.only_reads(waiting) => {
                Touched { read: keys, written: 0 }
            }
            Request::One(_) | Request::Exec { .. } => Touched { read: 0, written: keys },
        }
    }

    /// The possible models after it, if it takes effect now; none if its reply is impossible now.
    fn effects(&self, model: &Model) -> Vec<Model> {
        let mut models = Vec::new();
        let mut consider = |effect: &dyn Fn(&mut Model) -> String| {
            let mut next = model.clone();
            let reply = effect(&mut next);
            if self.reply().is_none_or(|expected| expected == reply) && !models.contains(&next) {
                models.push(next);
            }
        };
        match &self.request {
            // Over several shards these read each shard at a different moment, so any reply is accepted.
            Request::One(command)
                if !self.is_on_one_shard && matches!(command[0].as_str(), "DBSIZE" | "RANDOMKEY") =>
            {
                models.push(model.clone());
            }
            // Any key may have been chosen.
            Request::One(command) if command[0] == "RANDOMKEY" && !model.names(self.db).is_empty() => {
                model.names(self.db).iter().for_each(|key| consider(&|_| bulk(Some(key))));
            }
            Request::One(command) if !self.request.awaited().is_empty() => {
                // It may be its call that takes effect now, or it is served from one of its keys.
                consider(&|model| model.request(self.client, self.db, &self.request));
                let keys = self.request.awaited().iter();
                for key in keys.filter(|key| model.may_serve(command, self.db, key)) {
                    consider(&|model| model.serve(self.db, command, key));
                }
            }
            request => consider(&|model| model.request(self.client, self.db, request)),
        }
        models
    }

    /// Whether it blocks if it is called now.
    fn finds_nothing(&self, model: &Model) -> bool {
        let may_block = !self.request.awaited().is_empty();
        may_block && model.clone().request(self.client, self.db, &self.request) == "*-1\r\n"
    }

    /// The key that serves it if it is blocked.
    fn is_served_by(&self, model: &Model) -> Option<&String> {
        let Request::One(command) = &self.request else { return None };
        let serves = |key: &&String| model.is_signalled(self.db, key) && model.serves(command, self.db, key);
        self.request.awaited().iter().find(serves)
    }

    /// The model after it, if it is blocked and served from a key now. `None`: its reply contradicts that.
    fn served(&self, model: &Model, key: &String) -> Option<Model> {
        let Request::One(command) = &self.request else { return None };
        let mut next = model.clone();
        let reply = next.serve(self.db, command, key);
        self.reply().is_none_or(|expected| expected == reply).then_some(next)
    }

    /// Whether it unblocks `other`, if it takes effect now and that one is blocked. `None`: their replies contradict
    /// that.
    fn ends(&self, other: &Operation) -> Option<bool> {
        match (&self.request, self.reply()) {
            // A client that is killed gets no reply.
            (Request::Kill { .. }, None | Some(":1\r\n")) => other.replied.is_none().then_some(true),
            (Request::Unblock { .. }, None | Some(":1\r\n")) => {
                other.reply().is_none_or(|reply| reply == "*-1\r\n").then_some(true)
            }
            _ => None,
        }
    }
}

/// Keys by their places in [`KEYS`].
struct Touched {
    read: u32,
    written: u32,
}

/// What is required of blocking commands in a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// They take effect at any moment between call and reply.
    SomeTime,
    /// As in Redis: they join the queue of waiters at one moment, and when a command creates a key that they wait for,
    /// they are served before any other command sees it. That is guaranteed for commands that wait for one key and take
    /// only from that.
    AtOnce,
}

/// No order explains a history.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed")]
pub struct Refusal {
    /// The state at which the longest attempt ended.
    state: State,
    /// The operations that were not placed then.
    open: Vec<usize>,
    /// One of these had to come next, and none is possible.
    nexts: Vec<usize>,
}

/// A search that visits more states than this is given up.
const STATES_MAX: usize = 1_000_000;

/// Looks for one order of the operations that respects call and reply times and the model.
///
/// # Errors
/// There is none. The error describes how far the longest attempt came.
///
/// # Panics
/// The search takes too long.
pub fn linearize(operations: &[Operation], waiting: Waiting) -> Result<(), Box<Refusal>> {
    Search::new(operations, waiting).run()
}

/// For each operation: a bit for each operation of a disconnected client that cannot take effect after this one was
/// called.
fn given_up(operations: &[Operation], waiting: Waiting) -> Vec<u128> {
    let over = |called_at: usize| {
        let over = operations
            .iter()
            .enumerate()
            .filter(|(_, other)| other.over_at.is_some_and(|at| at <= called_at));
        over.fold(0, |mask, (n, _)| mask | 1 << n)
    };
    // An operation that only reads may be placed early, and must not shorten the time in which the others may take
    // effect.
    operations
        .iter()
        .map(|operation| if operation.only_reads(waiting) { 0 } else { over(operation.called_at) })
        .collect()
}

/// For each operation: a bit for each operation that it cannot be exchanged with.
fn related(operations: &[Operation], given_up: &[u128], waiting: Waiting) -> Vec<u128> {
    let touched: Vec<Touched> = operations.iter().map(|operation| operation.touched(waiting)).collect();
    let are_related = |n: usize, other: usize| {
        let (mine, its) = (&touched[n], &touched[other]);
        mine.written & (its.read | its.written) != 0
            || mine.read & its.written != 0
            || operations[n].request.ends_wait_of() == Some(operations[other].client)
            || operations[other].request.ends_wait_of() == Some(operations[n].client)
            || operations[n].behind.contains(&other)
            || operations[other].behind.contains(&n)
            || given_up[n] & (1 << other) != 0
            || given_up[other] & (1 << n) != 0
    };
    let all = 0..operations.len();
    all.clone()
        .map(|n| all.clone().fold(0, |mask, other| mask | u128::from(are_related(n, other)) << other))
        .collect()
}

/// A state of the search.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct State {
    placed: u128,
    /// Those of them that are blocked, in order of arrival.
    queue: Vec<usize>,
    model: Model,
}

impl State {
    fn has_ended(&self, n: usize) -> bool {
        self.placed & (1 << n) != 0 && !self.queue.contains(&n)
    }
}

struct Search<'a> {
    operations: &'a [Operation],
    waiting: Waiting,
    /// Tries all operations that may come next, not only those that matter: see the module's documentation.
    is_thorough: bool,
    /// The operations that must have taken effect.
    all: u128,
    related: Vec<u128>,
    given_up: Vec<u128>,
    longest: State,
    refuted: HashSet<State>,
}

impl Search<'_> {
    fn new(operations: &[Operation], waiting: Waiting) -> Search<'_> {
        assert!(operations.len() < 128);
        // An operation that was seen to be blocked has joined the queue, even if it got no reply.
        let has_effect = |operation: &Operation| {
            operation.replied.is_some() || waiting == Waiting::AtOnce && operation.waits_at.is_some()
        };
        let all = operations.iter().enumerate().filter(|(_, operation)| has_effect(operation));
        let all = all.fold(0u128, |all, (n, _)| all | 1 << n);
        let given_up = given_up(operations, waiting);
        let related = related(operations, &given_up, waiting);
        let (longest, refuted) = (State::default(), HashSet::new());
        Search { operations, waiting, is_thorough: false, all, related, given_up, longest, refuted }
    }

    fn run(mut self) -> Result<(), Box<Refusal>> {
        let operations = self.operations;
        let void = operations.iter().enumerate().filter(|(_, operation)| operation.is_void);
        let placed = void.fold(0u128, |placed, (n, _)| placed | 1 << n);
        if self.from(&State { placed, ..State::default() }) {
            return Ok(());
        }
        let open = (0..operations.len()).filter(|n| self.longest.placed & (1 << n) == 0).collect();
        let nexts = self.next_ones(&self.longest);
        Err(Box::new(Refusal { state: self.longest, open, nexts }))
    }

    fn from(&mut self, state: &State) -> bool {
        if state.placed & self.all == self.all && state.queue.is_empty() {
            return true;
        }
        if self.refuted.contains(state) {
            return false;
        }
        if state.placed.count_ones() > self.longest.placed.count_ones() {
            self.longest = state.clone();
        }
        assert!(self.refuted.len() < STATES_MAX, "it takes too long to tell whether an order explains this");
        let nexts = self.next_ones(state);
        let read = nexts.iter().find(|&&n| !self.is_thorough && self.operations[n].only_reads(self.waiting));
        if let Some(&n) = read {
            // An operation that only reads and is possible now can be placed first.
            let read = self.place(state, n);
            if let [next] = &read[..] {
                return self.from(next);
            }
        }
        for n in nexts {
            if self.place(state, n).iter().any(|next| self.from(next)) {
                return true;
            }
        }
        self.refuted.insert(state.clone());
        false
    }

    /// The operations of which one must come next if there is a complete order from here, the likeliest first.
    fn next_ones(&self, state: &State) -> Vec<usize> {
        let operations = self.operations;
        let open = || (0..operations.len()).filter(|n| state.placed & (1 << n) == 0);
        // An operation that is not placed must come before any that was called after it was answered or seen to be
        // blocked.
        let begins = open().map(|n| match self.waiting {
            Waiting::SomeTime => (operations[n].replied_at(), n),
            Waiting::AtOnce => {
                (operations[n].waits_at.unwrap_or(usize::MAX).min(operations[n].replied_at()), n)
            }
        });
        let ends = state.queue.iter().map(|&n| (operations[n].replied_at(), n));
        let (first, pressing) = begins.chain(ends).min().expect("there is an operation left");
        let candidates =
            open().filter(|&n| operations[n].called_at < first).fold(0u128, |mask, n| mask | 1 << n);
        let queued = state.queue.iter().fold(0u128, |mask, n| mask | 1 << n);
        // Only the candidates can come before the pressing operation or, if that is blocked, serve it. Of these, only
        // those matter that are related to it, directly or through others: the first of them in any order can be placed
        // now.
        let mut matter = if self.is_thorough { candidates } else { 1u128 << pressing };
        loop {
            let around = (0..operations.len())
                .filter(|n| matter & (1 << n) != 0)
                .fold(matter, |mask, n| mask | self.related[n] & (candidates | queued));
            if around == matter {
                break;
            }
            matter = around;
        }
        let is_ready = |n: &usize| operations[*n].behind.iter().all(|&earlier| state.has_ended(earlier));
        let mut nexts: Vec<usize> =
            open().filter(|n| (matter & candidates) & (1 << n) != 0).filter(is_ready).collect();
        nexts.sort_by_key(|&n| operations[n].replied_at());
        nexts
    }

    /// The possible states after operation `n`, if it is placed next.
    fn place(&self, state: &State, n: usize) -> Vec<State> {
        let operation = &self.operations[n];
        let placed = state.placed | 1 << n | self.given_up[n];
        if self.waiting == Waiting::AtOnce && operation.finds_nothing(&state.model) {
            let queue = [&state.queue[..], &[n]].concat();
            return vec![State { placed, queue, model: state.model.clone() }];
        }
        if let Some(client) = operation.request.ends_wait_of() {
            let state = State { placed, queue: state.queue.clone(), model: state.model.clone() };
            return self.end_wait(state, n, client).into_iter().collect();
        }
        let models = operation.effects(&state.model).into_iter();
        let states = models.map(|model| State { placed, queue: state.queue.clone(), model });
        states.filter_map(|state| self.serve(state)).collect()
    }

    /// Operation `n` unblocks a client, if that is blocked. `None`: the replies contradict that.
    fn end_wait(&self, mut state: State, n: usize, client: usize) -> Option<State> {
        if self.waiting == Waiting::SomeTime {
            return Some(state);
        }
        let operation = &self.operations[n];
        match state.queue.iter().position(|&waiting| self.operations[waiting].client == client) {
            Some(place) if self.is_unheard_of(n, state.queue[place]) => Some(state),
            Some(place) => {
                let is_ended = operation.ends(&self.operations[state.queue[place]])?;
                state.queue.retain(|&waiting| !is_ended || self.operations[waiting].client != client);
                Some(state)
            }
            // The client is not blocked, so CLIENT UNBLOCK must have replied 0. CLIENT KILL may have closed its
            // connection.
            None if matches!(operation.request, Request::Unblock { .. }) => {
                operation.reply().is_none_or(|reply| reply == ":0\r\n").then_some(state)
            }
            None => Some(state),
        }
    }

    /// Whether operation `n` is a CLIENT UNBLOCK that did not unblock `other`, because the shard of that client had not heard
    /// yet that it was blocked on another one.
    fn is_unheard_of(&self, n: usize, other: usize) -> bool {
        let operation = &self.operations[n];
        matches!(operation.request, Request::Unblock { .. })
            && operation.reply() == Some(":0\r\n")
            && self.operations[other].waits_at.is_none_or(|at| at > operation.called_at)
    }

    /// Serves the blocked operations whose keys exist, in order. `None`: their replies contradict that.
    fn serve(&self, mut state: State) -> Option<State> {
        let next = |state: &State| {
            let by = |place: usize| self.operations[state.queue[place]].is_served_by(&state.model);
            (0..state.queue.len()).find_map(|place| by(place).map(|key| (place, key)))
        };
        while let Some((place, key)) = next(&state) {
            let n = state.queue.remove(place);
            state.model = self.operations[n].served(&state.model, key)?;
        }
        state.model.forget_signals();
        Some(state)
    }
}

/// An operation left the queue of a key, in which the operations `before` were ahead of it.
struct Passing {
    db: usize,
    key: &'static str,
    who: usize,
    before: Vec<usize>,
}

/// Checks that waiters are served first come, first served, by observing the queues of waiters on each key.
///
/// An operation that is served by a key must have been the first in its queue, except for operations that were being
/// served by another of their keys at the time. A BTAKE must then have been served by that key; a BMOVE may have found
/// it empty again.
pub struct Fifo {
    keys: &'static [&'static str],
    /// For each key of each database, its waits in the order in which they were first seen.
    queues: Vec<Vec<WaitId>>,
    /// The operation that each wait belongs to.
    operations: HashMap<WaitId, usize>,
    passings: Vec<Passing>,
}

impl Fifo {
    pub fn new(keys: &'static [&'static str]) -> Fifo {
        Fifo {
            keys,
            queues: vec![Vec::new(); DB_COUNT * keys.len()],
            operations: HashMap::new(),
            passings: Vec::new(),
        }
    }

    /// Records that an operation was seen to be blocked. One that is served at once never is, and is not checked here.
    pub fn note(&mut self, id: WaitId, operation: usize) {
        self.operations.insert(id, operation);
    }

    /// Compares the queues after a step with those before it.
    pub fn look(&mut self, cluster: &Cluster) {
        let shard_count = cluster.workers.len();
        let keys = (0..DB_COUNT).flat_map(|db| self.keys.iter().map(move |&key| (db, key)));
        for (queue, (db, key)) in self.queues.iter_mut().zip(keys) {
            let shard = &cluster.workers[shard_of(key.as_bytes(), shard_count)].shard;
            let now = shard.blocking.waits_on(db as u32, key.as_bytes());
            for (place, id) in queue.iter().enumerate().filter(|(_, id)| !now.contains(id)) {
                let before = queue[..place].iter().filter(|other| now.contains(other));
                let before = before.filter_map(|other| self.operations.get(other).copied()).collect();
                if let Some(&who) = self.operations.get(id) {
                    self.passings.push(Passing { db, key, who, before });
                }
            }
            queue.retain(|id| now.contains(id));
            for id in now {
                if !queue.contains(&id) {
                    queue.push(id);
                }
            }
        }
    }

    /// An operation that was overtaken, the one that overtook it, and the key, if there are any.
    pub fn overtaken(&self, operations: &[Operation]) -> Option<(usize, usize, &'static str)> {
        for Passing { db, key, who, before } in &self.passings {
            if operations[*who].served_by() != Some(key) || operations[*who].db != *db {
                continue;
            }
            let name = |operation: &Operation| match &operation.request {
                Request::One(command) => command[0].clone(),
                _ => unreachable!("only commands block"),
            };
            let is_elsewhere = |other: usize| {
                let other = &operations[other];
                // XREAD takes nothing, and waits for another ID.
                if name(other) == "XREAD" {
                    return true;
                }
                // It goes on waiting, as far as one sees, until a second program replies, or its client is known to be gone.
                if name(other) == "HTAKE" && (other.replied.is_some() || other.over_at.is_some()) {
                    return true;
                }
                let by_other = other.served_by().is_some_and(|by| by != *key);
                let moves = matches!(&other.request, Request::One(command) if command[0] == "BMOVE");
                by_other || (other.replied.is_none() || moves) && other.request.awaited().len() > 1
            };
            if let Some(&other) = before.iter().find(|&&other| !is_elsewhere(other)) {
                return Some((other, *who, key));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
