//! Commands that come behind what is under way on other shards: [handoffs](crate::shard::blocking), and requests that were sent
//! before.
//!
//! Whoever has the reply to a push may expect that a client blocked on that key is not blocked any more. With several shards it still
//! is, for some messages, and so what counts or ends waits asks first whether keys are being handed off anywhere. CLIENT UNBLOCK,
//! CLIENT KILL and DBSIZE then lock the whole keyspace. INFO only looks again, in each turn, until there are none: it must answer
//! whatever programs hold which keys, because monitors and Sentinels judge the server by it. A handoff may wait for a program, too, and then
//! its client is blocked for whoever looks: INFO does not wait longer than [`WAIT_MS`].
//!
//! INFO also comes behind what was sent to other shards before it was: each takes a turn more, and so has executed that, or was told
//! that it blocks, and has published its figures. Whoever has sent one client's request before another's may expect that. (The counts
//! of turns, by which other threads wait for shards, would do only at a look each millisecond, and with sleeping shards woken twice.)
//!
//! A wide program waits in the same way for the handoffs to clients that modules have blocked, because it could get the keys
//! before they do.

use super::Worker;
use super::connection::StallReason;
use crate::shard::message::Message;

/// How long a connection waits. Handoffs end sooner, unless they wait for a program, and so do turns.
const WAIT_MS: i64 = 100;

/// For what a connection waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandoffWait {
    /// All handoffs, and a turn of all shards.
    All,
    /// Those to clients that modules have blocked.
    Tried,
}

/// How long a request waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitBehind {
    /// Wall clock in milliseconds.
    until_ms: i64,
    /// Of the turns that other shards were asked for; 0: of none.
    look: u64,
}

/// Turns that shards ask each other for.
pub(super) struct Looks {
    /// The number of the last ones that this shard has asked all others for, ...
    asked: u64,
    /// ... and up to which number each has taken them.
    taken: Vec<u64>,
    /// Who is to be told at the end of this turn, and of which number.
    due: Vec<(usize, u64)>,
    /// Who has asked in this turn, which may have begun before it was asked for.
    new: Vec<(usize, u64)>,
}

impl Looks {
    pub(super) fn new(shard_count: usize) -> Looks {
        Looks { asked: 0, taken: vec![0; shard_count], due: Vec::new(), new: Vec::new() }
    }

    pub(super) fn asked_for(&mut self, by: usize, number: u64) {
        self.new.push((by, number));
    }

    /// The shard `by` has taken the turns up to this one.
    pub(super) fn taken(&mut self, by: usize, number: u64) {
        self.taken[by] = number;
    }
}

impl Worker {
    /// Asks all other shards for a turn. Returns its number.
    fn ask_for_look(&mut self) -> u64 {
        self.looks.asked += 1;
        let number = self.looks.asked;
        self.other_shards().for_each(|shard| self.send(shard, Message::Look { number }));
        number
    }

    fn have_looked(&self, number: u64) -> bool {
        self.other_shards().all(|shard| self.looks.taken[shard] >= number)
    }

    /// Whether another shard waits for this one's next turn.
    pub fn owes_turn(&self) -> bool {
        !self.looks.due.is_empty()
    }

    /// At the end of a turn: tells the shards that have asked for it.
    pub(super) fn tell_looked(&mut self) {
        if self.looks.due.is_empty() && self.looks.new.is_empty() {
            return;
        }
        let new = std::mem::take(&mut self.looks.new);
        for (by, number) in std::mem::replace(&mut self.looks.due, new) {
            self.send(by, Message::Looked { number });
        }
    }

    /// Whether keys are being handed off to blocked clients on any shard. This shard's own handoffs are checked
    /// directly, as they are published only at the end of the turn.
    pub(super) fn has_handoffs(&self) -> bool {
        self.shard.blocking.handoff_count() != 0 || self.globals.has_handoffs()
    }

    fn are_under_way(&self, which: HandoffWait) -> bool {
        match which {
            HandoffWait::All => self.has_handoffs(),
            HandoffWait::Tried => {
                self.shard.blocking.tried_handoff_count() != 0 || self.globals.has_tried_handoffs()
            }
        }
    }

    pub(super) fn publish_handoffs(&mut self) {
        let (stats, blocking) = (&self.shard.stats, &self.shard.blocking);
        let handoffs = blocking.handoff_count() as u64;
        if stats.handoffs.get() != handoffs {
            stats.handoffs.set(handoffs);
        }
        let tried_handoffs = blocking.tried_handoff_count() as u64;
        if stats.tried_handoffs.get() != tried_handoffs {
            stats.tried_handoffs.set(tried_handoffs);
        }
    }

    /// Whether a connection, whose next command is about to run, has to wait for what is under way on other shards. Then it is
    /// stalled.
    pub(super) fn stall_for_handoffs(&mut self, at: usize, wait: HandoffWait) -> bool {
        let Some(connection) = self.connections[at].as_deref() else { return false };
        let behind = match connection.waits_behind {
            Some(behind) => behind,
            None => {
                let look = if wait == HandoffWait::All { self.ask_for_look() } else { 0 };
                WaitBehind { until_ms: self.shard.now_ms + WAIT_MS, look }
            }
        };
        let is_stalled = self.must_wait(behind, wait);
        let connection = self.connections[at].as_deref_mut().expect("it was there above");
        connection.waits_behind = is_stalled.then_some(behind);
        if is_stalled {
            connection.stall = Some(StallReason::Handoffs);
            self.behind_handoffs.push((at as u32, wait));
        }
        is_stalled
    }

    fn must_wait(&self, behind: WaitBehind, wait: HandoffWait) -> bool {
        self.shard.now_ms < behind.until_ms && (self.are_under_way(wait) || !self.have_looked(behind.look))
    }

    /// Whether one of the connections that wait can go on.
    pub fn has_seen_handoffs_end(&self) -> bool {
        self.behind_handoffs.iter().any(|&(at, wait)| {
            let behind = self.connections[at as usize].as_deref().and_then(|it| it.waits_behind);
            behind.is_none_or(|behind| !self.must_wait(behind, wait))
        })
    }

    /// Executes the requests again that wait. Those that have to wait longer are stalled again.
    pub(super) fn wake_behind_handoffs(&mut self) {
        for (at, _) in std::mem::take(&mut self.behind_handoffs) {
            let at = at as usize;
            if self.connections[at].as_deref().is_some_and(|it| it.stall == Some(StallReason::Handoffs)) {
                self.release_stall(at);
            }
        }
    }
}
