//! Sends a sequence to all servers at the same time and compares what they answer, and what is left in the end.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::compare::{ADMIN, How, wrong_pick};
use super::drive::drive;
use super::fleet::Fleet;
use super::listen::{self, EVENTS, EVENTS_DIRECTIVE, EVENTS_PATTERN, LISTENERS_MAX};
use super::replicas::{self, Pair};
use super::resp::{Broken, Client, Reply, encode};
use super::sequence::{CLEARING, Call, Over, SETTINGS, Sequence};
use super::state::{self, Asked};

/// The first difference of a sequence.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The index of the call; the number of calls if it is in what is left in the end.
    pub at: usize,
    /// What was compared.
    pub what: String,
    /// Whose answers, and the answers.
    pub answers: [(String, String); 2],
}

impl Difference {
    /// What the reference answers, and what `label` does.
    pub fn new(at: usize, what: String, reference: String, label: &str, other: String) -> Difference {
        Difference { at, what, answers: [("redis".to_owned(), reference), (label.to_owned(), other)] }
    }
}

/// Clients of a new session.
const CLIENTS_AT_FIRST: usize = 2;
/// Clients that may be blocked at the same time.
pub const WAITERS_MAX: usize = 3;
/// How long a server may take to serve, or to block, whom the reference did.
const SETTLE_MS_MAX: u64 = 3_000;
const SETTLE_POLL_MS: u64 = 1;
/// How long servers may take to tell what is not compared.
const DEAF_FOR: Duration = Duration::from_millis(20);

/// One server's connections.
pub struct Session {
    pub label: String,
    pub port: u16,
    main: Client,
    other: Option<Client>,
    waiters: Vec<Option<Client>>,
    listeners: Vec<Option<Client>>,
    /// For questions between the calls.
    pub admin: Client,
}

impl Session {
    pub fn connect(label: &str, port: u16, resp: u8) -> Result<Session, Broken> {
        let mut admin = connect(port, 2)?;
        admin.ask(&["CLIENT", "SETNAME", ADMIN])?;
        Ok(Session {
            label: label.to_owned(),
            port,
            main: connect(port, resp)?,
            other: None,
            waiters: (0..WAITERS_MAX).map(|_| None).collect(),
            listeners: (0..=LISTENERS_MAX).map(|_| None).collect(),
            admin,
        })
    }

    /// Its clients by their addresses.
    fn addresses(&self) -> Vec<(String, String)> {
        let numbered = |role: &str, clients: &[Option<Client>]| -> Vec<(String, String)> {
            let named = |(at, client): (usize, &Option<Client>)| {
                Some((client.as_ref()?.addr(), format!("{role} {at}")))
            };
            clients.iter().enumerate().filter_map(named).collect()
        };
        let mut all = vec![(self.main.addr(), "main".to_owned()), (self.admin.addr(), ADMIN.to_owned())];
        all.extend(self.other.iter().map(|other| (other.addr(), "other".to_owned())));
        all.extend(numbered("waiter", &self.waiters));
        all.extend(numbered("listener", &self.listeners));
        all
    }

    /// Sets the directives of `sequence`, and the others of [`SETTINGS`] to their defaults.
    pub fn configure(&mut self, sequence: &Sequence) -> Result<(), Broken> {
        let mut settings = vec!["CONFIG", "SET"];
        for (name, [default, ..]) in SETTINGS {
            let chosen = sequence.settings.iter().find(|(chosen, _)| *chosen == name);
            settings.extend([name, chosen.map_or(default, |&(_, value)| value)]);
        }
        let reply = self.admin.ask(&settings)?;
        if reply.is_error() {
            return Err(Broken(format!("{}: {reply}", settings.join(" "))));
        }
        Ok(())
    }

    /// The connection of `over`, and of a `waiter` if it is over these.
    pub fn client(&mut self, over: Over, waiter: usize, resp: u8) -> Result<&mut Client, Broken> {
        let slot = match over {
            Over::Main => return Ok(&mut self.main),
            Over::Other => &mut self.other,
            Over::Waiter => &mut self.waiters[waiter],
            Over::Listener(number) => &mut self.listeners[number],
        };
        if slot.is_none() {
            let resp = if let Over::Listener(number) = over { listen::resp_of(number) } else { resp };
            *slot = Some(connect(self.port, resp)?);
        }
        slot.as_mut().ok_or_else(|| Broken("no connection".to_owned()))
    }

    fn blocked_count(&mut self) -> Result<usize, Broken> {
        self.admin.info(&["clients"])?.number("blocked_clients")
    }

    /// Waits until nobody listens to anything, and those of the sequence before are gone.
    fn wait_for_silence(&mut self) -> Result<(), Broken> {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS_MAX);
        loop {
            let patterns = self.admin.ask(&["PUBSUB", "NUMPAT"])?;
            let mut lists = Vec::new();
            for list in ["CHANNELS", "SHARDCHANNELS"] {
                lists.push(self.admin.ask(&["PUBSUB", list])?);
            }
            let is_silent = lists.iter().all(|list| list.items().is_none_or(<[Reply]>::is_empty));
            let own: usize = self.admin.info(&["clients"])?.number("connected_clients")?;
            if patterns.integer().is_none_or(|count| count == 0) && is_silent && own <= CLIENTS_AT_FIRST {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Broken("clients that have disconnected are still listening".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(SETTLE_POLL_MS));
        }
    }

    /// Waits until `count` clients are blocked. Gives how many are.
    fn wait_for_blocked(&mut self, count: usize) -> Result<usize, Broken> {
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS_MAX);
        loop {
            let blocked = self.blocked_count()?;
            if blocked == count || Instant::now() > deadline {
                return Ok(blocked);
            }
            std::thread::sleep(Duration::from_millis(SETTLE_POLL_MS));
        }
    }
}

fn connect(port: u16, resp: u8) -> Result<Client, Broken> {
    let mut client = Client::connect(port).map_err(|error| Broken(format!("connecting failed: {error}")))?;
    if resp == 3 {
        client.ask(&["HELLO", "3"])?;
    }
    Ok(client)
}

/// Runs `sequence`; with `one_by_one`, without pipelines. What the servers hold in the end is compared with their replicas'
/// if there are any, and otherwise with each other's.
pub fn run(fleet: &Fleet, sequence: &Sequence, one_by_one: bool) -> Option<Difference> {
    let mut sessions = Vec::new();
    for member in &fleet.members {
        match open(&member.label, member.port, sequence) {
            Ok(session) => sessions.push(session),
            Err(Broken(what)) => return Some(broken(0, &member.label, what)),
        }
    }
    let mut pairs = Vec::new();
    for replica in &fleet.replicas {
        match Pair::open(&fleet.members[replica.master], &replica.member, sequence) {
            Ok(pair) => pairs.push(pair),
            Err((label, Broken(what))) => return Some(broken(0, &label, what)),
        }
    }
    if !sequence.compares_replies {
        for session in &mut sessions {
            if let Err((at, Broken(what))) = drive(session, sequence, one_by_one) {
                return Some(broken(at, &session.label, what));
            }
        }
        return left(replicas::compare(&mut pairs), sequence);
    }
    let mut run = Run {
        sessions,
        resp: sequence.resp,
        queued: [None, None],
        busy: [None; WAITERS_MAX],
        calls: &sequence.calls,
        is_deaf: false,
        has_asked: false,
    };
    if let Some(difference) = run.listen_to_events(sequence) {
        return Some(difference);
    }
    let mut start = 0;
    while start < sequence.calls.len() {
        let first = &sequence.calls[start];
        let mut end = start + 1;
        let joins = |at: usize| {
            let (before, next) = (&sequence.calls[at - 1], &sequence.calls[at]);
            !one_by_one && !before.ends_batch && next.over == first.over && !next.alone
        };
        while end < sequence.calls.len() && joins(end) {
            end += 1;
        }
        let difference = match first.over {
            Over::Waiter => run.wait_with(start),
            Over::Listener(_) => run.say(start),
            _ if first.alone => run.alone(start),
            _ => run.batch(start, end),
        };
        let settled = difference.or_else(|| run.settle(end - 1)).or_else(|| run.hear(start..end));
        if let Some(difference) = settled {
            return Some(difference);
        }
        start = end;
    }
    let sorts = sequence.calls.iter().any(|call| call.name().starts_with(b"SORT"));
    if pairs.is_empty() {
        left(state::compare(&mut run.sessions, sorts), sequence)
    } else {
        left(replicas::compare(&mut pairs), sequence)
    }
}

/// A difference in what `sequence` left.
fn left(compared: Asked<Option<Difference>>, sequence: &Sequence) -> Option<Difference> {
    let at = sequence.calls.len();
    let difference = compared.unwrap_or_else(|(label, Broken(what))| Some(broken(at, &label, what)))?;
    Some(Difference { at, ..difference })
}

fn open(label: &str, port: u16, sequence: &Sequence) -> Result<Session, Broken> {
    let mut session = Session::connect(label, port, sequence.resp)?;
    session.admin.ask(&["FLUSHALL"])?;
    // Who does not have these has none either.
    session.admin.ask(&["SCRIPT", "FLUSH"])?;
    session.admin.ask(&["FUNCTION", "FLUSH"])?;
    session.admin.ask(&["ACL", "DELUSER", "u1", "u2"])?;
    session.configure(sequence)?;
    session.admin.ask(&["SLOWLOG", "RESET"])?;
    // Those whom the sequence before left blocked, or listening, have to be gone.
    session.wait_for_blocked(0)?;
    session.wait_for_silence()?;
    Ok(session)
}

fn broken(at: usize, label: &str, what: String) -> Difference {
    Difference::new(at, "the connection".to_owned(), "(goes on)".to_owned(), label, what)
}

struct Run<'a> {
    sessions: Vec<Session>,
    resp: u8,
    /// How the replies of an EXEC are compared, of Main and Other while they are in a transaction.
    queued: [Option<Vec<How>>; 2],
    /// The call that each waiter waits with.
    busy: [Option<usize>; WAITERS_MAX],
    calls: &'a [Call],
    /// What is heard next is not compared: not all servers were asked the same.
    is_deaf: bool,
    /// They were not, at some time: their logs of calls are not the same any more.
    has_asked: bool,
}

impl Run<'_> {
    /// Sends the calls of a range and compares their replies.
    fn batch(&mut self, start: usize, end: usize) -> Option<Difference> {
        let calls = &self.calls[start..end];
        let replies = match self.exchange(start, calls) {
            Ok(replies) => replies,
            Err(difference) => return Some(difference),
        };
        calls.iter().enumerate().find_map(|(offset, call)| {
            let of_call: Vec<&Reply> = replies.iter().map(|replies| &replies[offset]).collect();
            self.compare(start + offset, call, &of_call)
        })
    }

    /// Sends `calls` to all and reads a reply of each to each of them.
    fn exchange(&mut self, at: usize, calls: &[Call]) -> Result<Vec<Vec<Reply>>, Difference> {
        let (resp, over) = (self.resp, calls[0].over);
        let clearing = |call: &Call| if call.clears_errno { encode(&CLEARING) } else { Vec::new() };
        let bytes: Vec<u8> =
            calls.iter().flat_map(|call| [clearing(call), encode(&call.args)].concat()).collect();
        for session in &mut self.sessions {
            let sent = session.client(over, 0, resp).and_then(|client| client.send(&bytes));
            sent.map_err(|Broken(what)| broken(at, &session.label, what))?;
        }
        let mut all = Vec::with_capacity(self.sessions.len());
        for session in &mut self.sessions {
            let mut replies = Vec::with_capacity(calls.len());
            for (offset, call) in calls.iter().enumerate() {
                let reply = session.client(over, 0, resp).and_then(|client| {
                    if call.clears_errno {
                        client.read()?;
                    }
                    client.read()
                });
                replies.push(reply.map_err(|Broken(what)| broken(at + offset, &session.label, what))?);
            }
            all.push(replies);
        }
        Ok(all)
    }

    fn compare(&mut self, at: usize, call: &Call, replies: &[&Reply]) -> Option<Difference> {
        // The last ten entries are others where the differ has asked more often.
        let is_whole = call.args.last().is_some_and(|arg| arg == b"-1");
        let how =
            if call.how == How::Slowlog && (self.has_asked || !is_whole) { How::Kind } else { call.how };
        let queued = &mut self.queued[usize::from(call.over == Over::Other)];
        let hows = match call.name().as_slice() {
            b"EXEC" => queued.take(),
            b"DISCARD" => {
                *queued = None;
                None
            }
            b"MULTI" if replies[0].kind == b'+' => {
                *queued = Some(Vec::new());
                None
            }
            _ => {
                if let Some(hows) = queued
                    && replies[0].text() == Some(b"QUEUED")
                {
                    hows.extend(call.clears_errno.then_some(How::Scan));
                    // An EXEC over several shards logs a command when all that run with it have run.
                    hows.push(if how == How::Slowlog { How::Kind } else { how });
                }
                None
            }
        };
        let same = |other: &Reply| match (&hows, replies[0].items(), other.items()) {
            (Some(hows), Some(a), Some(b)) if a.len() == hows.len() && b.len() == hows.len() => {
                hows.iter().zip(a.iter().zip(b)).all(|(how, (a, b))| how.same(a, b))
            }
            _ => how.same(replies[0], other),
        };
        let other = (1..replies.len()).find(|&other| !same(replies[other]))?;
        let label = &self.sessions[other].label;
        Some(Difference::new(
            at,
            "the reply".to_owned(),
            replies[0].to_string(),
            label,
            replies[other].to_string(),
        ))
    }

    /// A call that is checked against what the reference held before it, and after which all hold the same again.
    fn alone(&mut self, at: usize) -> Option<Difference> {
        let call = &self.calls[at];
        if self.queued[0].is_some() {
            return None;
        }
        let source = if call.how == How::Pick { self.source(call) } else { Ok(None) };
        let source = match source {
            Ok(source) => source,
            Err(Broken(what)) => return Some(broken(at, "redis", what)),
        };
        let replies = match self.exchange(at, std::slice::from_ref(call)) {
            Ok(replies) => replies,
            Err(difference) => return Some(difference),
        };
        let of_call: Vec<&Reply> = replies.iter().map(|replies| &replies[0]).collect();
        if let Some(difference) = self.compare(at, call, &of_call) {
            return Some(difference);
        }
        let source = source?;
        let flag = |word: &[u8]| call.args.iter().any(|arg| arg.eq_ignore_ascii_case(word));
        let values = flag(b"WITHVALUES") || flag(b"WITHSCORES");
        let count = call.args.get(2).and_then(|arg| std::str::from_utf8(arg).ok()?.parse::<i64>().ok());
        let distinct = count.is_none_or(|count| count >= 0);
        for (index, reply) in of_call.iter().enumerate() {
            if let Some(what) = wrong_pick(reply, &source, distinct, values) {
                let label = &self.sessions[index].label;
                return Some(Difference::new(at, what, of_call[0].to_string(), label, reply.to_string()));
            }
        }
        if call.name() == b"SPOP" {
            return self.pop_alike(at, &of_call);
        }
        None
    }

    /// All that a random pick can be of, from the reference. None if there is no such collection.
    fn source(&mut self, call: &Call) -> Result<Option<Vec<Reply>>, Broken> {
        (self.is_deaf, self.has_asked) = (true, true);
        let key = call.args.get(1).cloned().unwrap_or_default();
        let flag = |word: &[u8]| call.args.iter().any(|arg| arg.eq_ignore_ascii_case(word));
        let mut question: Vec<Vec<u8>> = match call.name().as_slice() {
            b"RANDOMKEY" => vec![b"KEYS".to_vec(), b"*".to_vec()],
            b"HRANDFIELD" if flag(b"WITHVALUES") => vec![b"HGETALL".to_vec(), key],
            b"HRANDFIELD" => vec![b"HKEYS".to_vec(), key],
            b"ZRANDMEMBER" => vec![b"ZRANGE".to_vec(), key, b"0".to_vec(), b"-1".to_vec()],
            _ => vec![b"SMEMBERS".to_vec(), key],
        };
        if flag(b"WITHSCORES") {
            question.push(b"WITHSCORES".to_vec());
        }
        let reply = self.sessions[0].client(Over::Main, 0, self.resp)?.ask(&question)?;
        let flat = |item: &Reply| item.items().map_or_else(|| vec![item.clone()], <[Reply]>::to_vec);
        Ok(reply.items().map(|items| items.iter().flat_map(flat).collect()))
    }

    /// Gives back what the others' SPOP took, and takes what the reference's took. Where several were taken the key is
    /// deleted: the encoding may depend on which these were.
    fn pop_alike(&mut self, at: usize, replies: &[&Reply]) -> Option<Difference> {
        let Some(key) = self.calls[at].args.get(1).map(Vec::as_slice) else { return None };
        let members = |reply: &Reply| -> Vec<Vec<u8>> {
            let items = reply.items().unwrap_or(std::slice::from_ref(reply));
            items.iter().filter_map(|item| item.text().map(<[u8]>::to_vec)).collect()
        };
        let differs = replies.iter().any(|reply| reply != &replies[0]);
        if !differs || replies[0].is_error() {
            return None;
        }
        let taken = members(replies[0]);
        for (session, reply) in self.sessions.iter_mut().zip(replies) {
            let with_key = |name: &str, more: Vec<Vec<u8>>| {
                [vec![name.as_bytes().to_vec(), key.to_vec()], more].concat()
            };
            let asked = session.main.ask(&[b"EXISTS", key]).and_then(|exists| {
                // Where all were taken nothing is given back.
                if exists.integer() == Some(1) && taken.len() == 1 {
                    session.main.ask(&with_key("SADD", members(reply)))?;
                    session.main.ask(&with_key("SREM", taken.clone()))?;
                } else {
                    session.main.ask(&[b"DEL", key])?;
                }
                Ok(())
            });
            if let Err(Broken(what)) = asked {
                return Some(broken(at, &session.label, what));
            }
        }
        None
    }

    /// Has a client told what happens to keys, if servers are set to tell it.
    fn listen_to_events(&mut self, sequence: &Sequence) -> Option<Difference> {
        let is_told = |setting: &&(&str, &str)| setting.0 == EVENTS_DIRECTIVE && !setting.1.is_empty();
        sequence.settings.iter().find(is_told)?;
        for session in &mut self.sessions {
            let told = session
                .client(Over::Listener(EVENTS), 0, self.resp)
                .and_then(|client| client.ask(&["PSUBSCRIBE", EVENTS_PATTERN]));
            if let Err(Broken(what)) = told {
                return Some(broken(0, &session.label, what));
            }
        }
        None
    }

    /// Sends a call over a client that listens, whose reply is heard with all that it is told.
    fn say(&mut self, at: usize) -> Option<Difference> {
        let call = &self.calls[at];
        for session in &mut self.sessions {
            let said =
                session.client(call.over, 0, self.resp).and_then(|client| client.send(&encode(&call.args)));
            if let Err(Broken(what)) = said {
                return Some(broken(at, &session.label, what));
            }
        }
        None
    }

    /// After a batch: those who listen have been told the same by all.
    fn hear(&mut self, batch: Range<usize>) -> Option<Difference> {
        let is_deaf = std::mem::take(&mut self.is_deaf);
        let at = batch.end - 1;
        // On several shards an EXEC with commands over the session (UNWATCH), and a command of a script that has keys on
        // several, run in parallel.
        let in_parts =
            |name: &[u8]| name == b"EXEC" || name.starts_with(b"EVAL") || name.starts_with(b"FCALL");
        let calls = &self.calls[batch];
        let has_parts = calls.iter().any(|call| in_parts(&call.name()));
        // Ours tells those who track keys that all of them may have changed, Redis does not.
        let may_swap = has_parts || calls.iter().any(|call| call.name() == b"SWAPDB");
        // It has its reply before others are asked what they have been told of its call.
        let calling = if let Over::Listener(number) = calls[0].over { number } else { 0 };
        let marker = format!("heard what there was up to {at}");
        for listener in (calling..=LISTENERS_MAX).chain(0..calling) {
            let mut told: Vec<Vec<Reply>> = Vec::new();
            if is_deaf {
                // What is not waited for is not to be taken for what the next batch has to tell.
                std::thread::sleep(DEAF_FOR);
            }
            let mut closed = Vec::new();
            for session in &mut self.sessions {
                let addresses = session.addresses();
                let Some(client) = &mut session.listeners[listener] else { continue };
                let expected = if is_deaf { 0 } else { told.first().map_or(0, Vec::len) };
                match listen::heard(client, &addresses, &marker, expected) {
                    Ok(mut messages) => {
                        messages.retain(|message| !may_swap || !listen::is_of_all_keys(message));
                        if has_parts {
                            messages.sort();
                        }
                        told.push(messages);
                    }
                    Err(Broken(what)) => closed.push(broken(at, &session.label, what)),
                }
            }
            // One whose user has lost a channel is disconnected, by all of them.
            if closed.len() == self.sessions.len() {
                self.sessions.iter_mut().for_each(|session| session.listeners[listener] = None);
            } else if !closed.is_empty() {
                return closed.pop();
            }
            let other = (1..told.len()).find(|&other| told[other] != told[0] && !is_deaf);
            if let Some(other) = other {
                let text =
                    |messages: &[Reply]| messages.iter().map(Reply::to_string).collect::<Vec<_>>().join("; ");
                let who = if listener == EVENTS {
                    "who listens to events".to_owned()
                } else {
                    format!("client {listener}")
                };
                let what = format!("what {who} is told, up to the reply");
                let label = self.sessions[other].label.clone();
                return Some(Difference::new(at, what, text(&told[0]), &label, text(&told[other])));
            }
        }
        None
    }

    /// Sends a call over a free waiter and sees whether it is blocked with all servers or with none.
    fn wait_with(&mut self, at: usize) -> Option<Difference> {
        let waiter = self.busy.iter().position(Option::is_none)?;
        let blocked_before = self.busy.iter().flatten().count();
        let call = &self.calls[at];
        let resp = self.resp;
        let mut replies: Vec<Option<Reply>> = Vec::new();
        for session in &mut self.sessions {
            let sent = session
                .client(Over::Waiter, waiter, resp)
                .and_then(|client| client.send(&encode(&call.args)));
            let reply = sent.and_then(|()| {
                loop {
                    if session
                        .client(Over::Waiter, waiter, resp)?
                        .is_ready(Duration::from_millis(SETTLE_POLL_MS))?
                    {
                        return session.client(Over::Waiter, waiter, resp)?.read().map(Some);
                    }
                    if session.blocked_count()? > blocked_before {
                        return Ok(None);
                    }
                }
            });
            match reply {
                Ok(reply) => replies.push(reply),
                Err(Broken(what)) => return Some(broken(at, &session.label, what)),
            }
        }
        if replies[0].is_none() {
            self.busy[waiter] = Some(at);
        }
        self.compare_served(at, &replies)
    }

    /// After a call: whoever the reference served must have been served by the others, with the same reply.
    fn settle(&mut self, at: usize) -> Option<Difference> {
        if self.busy.iter().all(Option::is_none) {
            return None;
        }
        let mut expected = 0;
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            let blocked =
                if index == 0 { session.blocked_count() } else { session.wait_for_blocked(expected) };
            match blocked {
                Ok(blocked) if index == 0 => expected = blocked,
                Ok(blocked) if blocked == expected => {}
                Ok(blocked) => {
                    let what = "the number of blocked clients".to_owned();
                    let label = &session.label;
                    return Some(Difference::new(at, what, expected.to_string(), label, blocked.to_string()));
                }
                Err(Broken(what)) => return Some(broken(at, &session.label, what)),
            }
        }
        let resp = self.resp;
        let mut served = self.busy.iter().flatten().count() - expected;
        let deadline = Instant::now() + Duration::from_millis(SETTLE_MS_MAX);
        while served > 0 && Instant::now() < deadline {
            for waiter in 0..WAITERS_MAX {
                let Some(call_at) = self.busy[waiter] else { continue };
                let patience = Duration::from_millis(SETTLE_POLL_MS);
                match self.sessions[0]
                    .client(Over::Waiter, waiter, resp)
                    .and_then(|client| client.is_ready(patience))
                {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(Broken(what)) => return Some(broken(at, "redis", what)),
                }
                self.busy[waiter] = None;
                served -= 1;
                let mut replies = Vec::new();
                for session in &mut self.sessions {
                    match session.client(Over::Waiter, waiter, resp).and_then(Client::read) {
                        Ok(reply) => replies.push(Some(reply)),
                        Err(Broken(what)) => return Some(broken(call_at, &session.label, what)),
                    }
                }
                if let Some(mut difference) = self.compare_served(call_at, &replies) {
                    difference.at = at;
                    difference.what = format!("the reply to the waiting {}", self.calls[call_at].line());
                    return Some(difference);
                }
            }
        }
        None
    }

    fn compare_served(&self, at: usize, replies: &[Option<Reply>]) -> Option<Difference> {
        let text = |reply: &Option<Reply>| reply.as_ref().map_or("(blocked)".to_owned(), Reply::to_string);
        let how = self.calls[at].how;
        let same = |other: &Option<Reply>| match (&replies[0], other) {
            (Some(a), Some(b)) => how.same(a, b),
            (a, b) => a.is_none() == b.is_none(),
        };
        let other = (1..replies.len()).find(|&other| !same(&replies[other]))?;
        let label = &self.sessions[other].label;
        Some(Difference::new(at, "the reply".to_owned(), text(&replies[0]), label, text(&replies[other])))
    }
}
