//! Commands that come behind the [handoffs](crate::shard::blocking) under way.
//!
//! Whoever has the reply to a push may expect that a client blocked on that key is not blocked any more. With several shards it still
//! is, for some messages, and so what counts or ends waits asks first whether keys are being handed off anywhere. CLIENT UNBLOCK,
//! CLIENT KILL and DBSIZE then lock the whole keyspace. INFO only looks again, in each turn, until there are none: it must answer
//! whatever programs hold which keys, because monitors and Sentinels judge the server by it. A handoff may wait for a program, too, and then
//! its client is blocked for whoever looks: INFO does not wait longer than [`HANDOFF_WAIT_MS`].
//!
//! A wide program waits in the same way for the handoffs to clients that modules have blocked, because it could get the keys
//! before they do.

use super::Worker;
use super::connection::StallReason;

/// How long a connection waits for handoffs. They end sooner, unless they wait for a program.
const HANDOFF_WAIT_MS: i64 = 100;

/// For which handoffs a connection waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandoffWait {
    All,
    /// Those to clients that modules have blocked.
    Tried,
}

impl Worker {
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

    /// Whether a connection, whose next command is about to run, has to wait for handoffs. Then it is stalled.
    pub(super) fn stall_for_handoffs(&mut self, at: usize, wait: HandoffWait) -> bool {
        let has_handoffs = self.are_under_way(wait);
        let now_ms = self.shard.now_ms;
        let Some(connection) = self.connections[at].as_deref_mut() else { return false };
        if !has_handoffs || connection.handoffs_until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
            connection.handoffs_until_ms = None;
            return false;
        }
        connection.handoffs_until_ms.get_or_insert(now_ms + HANDOFF_WAIT_MS);
        connection.stall = Some(StallReason::Handoffs);
        self.behind_handoffs.push((at as u32, wait));
        true
    }

    /// Whether one of the connections that wait for handoffs can go on.
    pub fn has_seen_handoffs_end(&self) -> bool {
        self.behind_handoffs.iter().any(|&(at, wait)| {
            let until_ms = self.connections[at as usize].as_deref().and_then(|it| it.handoffs_until_ms);
            until_ms.is_none_or(|until_ms| self.shard.now_ms >= until_ms) || !self.are_under_way(wait)
        })
    }

    /// Executes the requests again that wait for handoffs. Those that have to wait longer are stalled again.
    pub(super) fn wake_behind_handoffs(&mut self) {
        for (at, _) in std::mem::take(&mut self.behind_handoffs) {
            let at = at as usize;
            if self.connections[at].as_deref().is_some_and(|it| it.stall == Some(StallReason::Handoffs)) {
                self.release_stall(at);
            }
        }
    }
}
