//! What clients called and what they got, and whether one order of all of it explains that.
//!
//! The search is Wing and Gong's: of the operations that are not placed yet, any one may come next that was called before
//! the first of them was answered. States (operations placed, model) that led nowhere are remembered. Beyond what
//! `tests/history/linear.rs` does for clients that call one thing after the other, it knows pipelines, which a connection
//! keeps in order only in part, and operations that line up and are served later.
//!
//! # What is left open, and why
//!
//! *Pipelines.* Commands of a pipeline over different keys, each of one shard, may take effect in any order: the README
//! says so, and so does every cluster client ([`Request::is_before`]).
//!
//! *Which key serves.* A blocking command takes effect at one moment between its call and its reply, as any other, from
//! any of its keys that is there at that moment: where it has waited, it is served by the one that was offered first, and
//! from outside nobody can tell whether it has. Who is served first is checked apart ([`Fifo`]). Who waits for one key, and
//! takes from it alone, is held to more: see [`Waiting::AtOnce`].
//!
//! *Who ends another's waiting.* CLIENT UNBLOCK and CLIENT KILL are held to what Redis does where commands take effect
//! [`Waiting::AtOnce`]: who waits at that moment waits no more, and who has been served has been served.
//!
//! *The dead.* An operation whose client died may have taken effect or not; but only until a moment at which nothing is
//! under way, and not at all if the server had not got it yet, or if it waited and nothing was on offer to it.
//!
//! # What is not tried, and why that leaves nothing out
//!
//! Two operations that have no key in common, of which one writes, can change places. So of all that may come next, only
//! those matter that have to do, directly or through others, with the one that has to come first of all: in every order
//! that goes on from here, the first of these can as well stand here, before others that have nothing to do with it. And
//! what only reads, whatever the state, can as well come as soon as it may. (It does not do to see that it changes
//! nothing *here*: a FLUSHALL of nothing may be the one that flushed something later.) A test compares this with a search
//! that tries everything.

use super::cluster::Cluster;
use super::model::{DB_COUNT, KEYS, Model, Request, bulk};
use shardis_core::shard::blocking::WaitId;
use shardis_core::shard::slot::shard_of;
use std::collections::{HashMap, HashSet};

#[derive(Clone)]
pub struct Operation {
    pub client: usize,
    /// The database that its client has selected.
    pub db: usize,
    pub request: Request,
    /// There is one shard: a count of all keys is of one moment.
    pub is_on_one_shard: bool,
    pub called_at: usize,
    /// Earlier ones of the same pipeline which take effect before it.
    pub behind: Vec<usize>,
    /// The step in which its reply came, and the reply. `None`: its client died.
    pub replied: Option<(usize, String)>,
    /// Its client died before the server had it.
    pub is_void: bool,
    /// Its client died, and after this step nothing was under way: it has taken effect or never will.
    pub over_at: Option<usize>,
    /// The first step after which it was seen waiting for a key.
    pub waits_at: Option<usize>,
}

impl Operation {
    fn reply(&self) -> Option<&str> {
        self.replied.as_ref().map(|(_, reply)| reply.as_str())
    }

    fn replied_at(&self) -> usize {
        self.replied.as_ref().map_or(usize::MAX, |(step, _)| *step)
    }

    /// The key that it was served by. `None`: by none, or nobody knows.
    fn served_by(&self) -> Option<&str> {
        let reply = self.reply().filter(|_| !self.request.awaited().is_empty())?;
        reply.strip_prefix("*2\r\n").and_then(|rest| rest.split("\r\n").nth(1))
    }

    /// Whether it leaves every state as it is in which it may have its reply.
    fn only_reads(&self, waiting: Waiting) -> bool {
        let (Request::One(command), Some(reply)) = (&self.request, self.reply()) else { return false };
        match command[0].as_str() {
            "GET" | "MGET" | "EXISTS" | "DBSIZE" | "KEYS" | "SCAN" | "RANDOMKEY" | "DEBUG" | "SELECT" => true,
            "DEL" | "MSETNX" | "COPY" | "MOVE" => reply.starts_with('-') || reply == ":0\r\n",
            "RENAME" => reply.starts_with('-'),
            "TTAKE" => reply == "$-1\r\n",
            // At once it lines up, until somebody ends that.
            "BTAKE" | "BMOVE" => reply == "*-1\r\n" && waiting == Waiting::SomeTime,
            _ => false,
        }
    }

    /// The keys that it may look at or change, as far as its reply leaves that open.
    fn touched(&self, waiting: Waiting) -> Touched {
        let place = |(db, key): &(usize, String)| {
            db * KEYS.len() + KEYS.iter().position(|other| other == key).expect("it is one of them")
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

    /// The models that it may leave behind, if it takes effect now.
    fn effects(&self, model: &Model) -> Vec<Model> {
        let mut models = Vec::new();
        let mut consider = |effect: &dyn Fn(&mut Model) -> String| {
            let mut next = model.clone();
            let reply = effect(&mut next);
            if self.reply().is_none_or(|expected| expected == reply) {
                models.push(next);
            }
        };
        let is_there = |key: &&String| model.has(self.db, key);
        match &self.request {
            // They see each shard at a moment of its own.
            Request::One(command)
                if !self.is_on_one_shard && matches!(command[0].as_str(), "DBSIZE" | "RANDOMKEY") =>
            {
                models.push(model.clone());
            }
            // Any of them.
            Request::One(command) if command[0] == "RANDOMKEY" && !model.names(self.db).is_empty() => {
                model.names(self.db).iter().for_each(|key| consider(&|_| bulk(Some(key))));
            }
            Request::One(command) if self.awaits_what_is_in(model) => {
                for key in self.request.awaited().iter().filter(is_there) {
                    consider(&|model| model.apply_to(self.db, command, std::slice::from_ref(key)));
                }
            }
            request => consider(&|model| model.request(self.client, self.db, request)),
        }
        models
    }

    fn awaits_what_is_in(&self, model: &Model) -> bool {
        self.request.awaited().iter().any(|key| model.has(self.db, key))
    }

    /// Whether it ends the waiting of another one, if it takes effect now and that one waits. `None`: that is not what
    /// their replies say.
    fn ends(&self, other: &Operation) -> Option<bool> {
        match (&self.request, self.reply()) {
            // Who is killed gets no reply.
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

/// What a history is held to about commands that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// They take effect at some time before their reply.
    SomeTime,
    /// As in Redis: they line up at one moment, and who makes a key that they wait for serves them before anything else
    /// sees it. That is promised to who waits for one key, and takes from it alone.
    AtOnce,
}

/// No order explains a history.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed")]
pub struct Refusal {
    /// Where the longest attempt ended.
    state: State,
    /// What was not placed then.
    open: Vec<usize>,
    /// One of these had to come next, and none fits.
    nexts: Vec<usize>,
}

/// A search that comes through more states than this is given up.
const STATES_MAX: usize = 1_000_000;

/// Looks for one order of the operations that respects call and reply times and the model.
///
/// # Errors
/// There is none. Says how far the longest attempt came.
///
/// # Panics
/// The search takes too long to say.
pub fn linearize(operations: &[Operation], waiting: Waiting) -> Result<(), Box<Refusal>> {
    Search::new(operations, waiting).run()
}

/// For each operation, a bit for each that was over when it was called.
fn given_up(operations: &[Operation], waiting: Waiting) -> Vec<u128> {
    let over = |called_at: usize| {
        let over = operations
            .iter()
            .enumerate()
            .filter(|(_, other)| other.over_at.is_some_and(|at| at <= called_at));
        over.fold(0, |mask, (n, _)| mask | 1 << n)
    };
    // What only reads may be placed early, which must not take from others the time until then.
    operations
        .iter()
        .map(|operation| if operation.only_reads(waiting) { 0 } else { over(operation.called_at) })
        .collect()
}

/// For each operation, a bit for each that it may not change places with.
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

/// How far a search has come.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct State {
    placed: u128,
    /// Those of them that wait, in order.
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
    /// Tries all that may come next, and not only those of which one may as well.
    is_thorough: bool,
    /// Those that must have taken effect.
    all: u128,
    related: Vec<u128>,
    given_up: Vec<u128>,
    longest: State,
    refuted: HashSet<State>,
}

impl Search<'_> {
    fn new(operations: &[Operation], waiting: Waiting) -> Search<'_> {
        assert!(operations.len() < 128);
        // Who was seen waiting lined up, also if it got no reply.
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
            // What never changes anything and may come now may as well come first of all.
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

    /// The operations of which one comes next if any order goes on from here, the likeliest first.
    fn next_ones(&self, state: &State) -> Vec<usize> {
        let operations = self.operations;
        let open = || (0..operations.len()).filter(|n| state.placed & (1 << n) == 0);
        // What is not placed has to be before anything that was called after it was answered, or was seen waiting.
        let begins = open().map(|n| match self.waiting {
            Waiting::SomeTime => (operations[n].replied_at(), n),
            Waiting::AtOnce => {
                (operations[n].waits_at.unwrap_or(usize::MAX).min(operations[n].replied_at()), n)
            }
        });
        let ends = state.queue.iter().map(|&n| (operations[n].replied_at(), n));
        let (first, pressing) = begins.chain(ends).min().expect("one is open");
        let candidates =
            open().filter(|&n| operations[n].called_at < first).fold(0u128, |mask, n| mask | 1 << n);
        let queued = state.queue.iter().fold(0u128, |mask, n| mask | 1 << n);
        // Only these can come before the pressing one, or, if that waits, be what it waits for. Of them, those matter that
        // have to do with it, or with others that do: the first of these in any order can as well come now.
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

    /// The states in which it may be when operation `n` comes next.
    fn place(&self, state: &State, n: usize) -> Vec<State> {
        let operation = &self.operations[n];
        let placed = state.placed | 1 << n | self.given_up[n];
        let finds_nothing =
            !operation.request.awaited().is_empty() && !operation.awaits_what_is_in(&state.model);
        if self.waiting == Waiting::AtOnce && finds_nothing {
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

    /// A client that waits does so no more, by operation `n`. `None`: that is not what it got.
    fn end_wait(&self, mut state: State, n: usize, client: usize) -> Option<State> {
        if self.waiting == Waiting::SomeTime {
            return Some(state);
        }
        let operation = &self.operations[n];
        match state.queue.iter().position(|&waiting| self.operations[waiting].client == client) {
            Some(place) => {
                let is_ended = operation.ends(&self.operations[state.queue[place]])?;
                state.queue.retain(|&waiting| !is_ended || self.operations[waiting].client != client);
                Some(state)
            }
            // There is nobody whom CLIENT UNBLOCK could have ended; CLIENT KILL may have closed a connection.
            None if matches!(operation.request, Request::Unblock { .. }) => {
                operation.reply().is_none_or(|reply| reply == ":0\r\n").then_some(state)
            }
            None => Some(state),
        }
    }

    /// Who waits for a key that is there takes from it. `None`: that is not what it got.
    fn serve(&self, mut state: State) -> Option<State> {
        let is_there = |state: &State, n: usize| self.operations[n].awaits_what_is_in(&state.model);
        while let Some(place) = (0..state.queue.len()).find(|&place| is_there(&state, state.queue[place])) {
            let n = state.queue.remove(place);
            state.model = self.operations[n].effects(&state.model).pop()?;
        }
        Some(state)
    }
}

/// Somebody left a key's queue while others stood before him.
struct Passing {
    db: usize,
    key: &'static str,
    who: usize,
    before: Vec<usize>,
}

/// First come, first served: watches the queues of those who wait.
///
/// Who is served by a key stood before all others who wait for it, but for those who were being served by another of
/// their keys at that time. For BTAKE that means that they were served by that one; BMOVE may find it emptied again.
pub struct Fifo {
    keys: &'static [&'static str],
    /// For each key of each database, who waits, in the order in which they were seen coming.
    queues: Vec<Vec<WaitId>>,
    /// The operation behind a wait.
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

    /// An operation was seen waiting under this name. One that is served at once never is, and is left out here.
    pub fn note(&mut self, id: WaitId, operation: usize) {
        self.operations.insert(id, operation);
    }

    /// Looks at the queues after a step.
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

    /// Who was overtaken, by whom, for which key.
    pub fn overtaken(&self, operations: &[Operation]) -> Option<(usize, usize, &'static str)> {
        for Passing { db, key, who, before } in &self.passings {
            if operations[*who].served_by() != Some(key) || operations[*who].db != *db {
                continue;
            }
            let is_elsewhere = |other: usize| {
                let other = &operations[other];
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
