//! Commands that come behind the [handoffs](crate::shard::blocking) under way.
//!
//! Whoever has the reply to a push may expect that a client blocked on that key is not blocked any more. With several shards it still
//! is, for some messages, and so what counts or ends waits asks first whether keys are being handed off anywhere. CLIENT UNBLOCK,
//! CLIENT KILL and DBSIZE then lock the whole keyspace. INFO only looks again, in each turn, until there are none: it must answer
//! whatever programs hold which keys, because monitors and Sentinels judge the server by it. A handoff may wait for a program, too, and then
//! its client is blocked for whoever looks: INFO does not wait longer than [`HANDOFF_WAIT_MS`].

use super::Worker;
use super::connection::StallReason;
use crate::command::table::{CommandEntry, Scope, flag};

/// How long INFO waits for handoffs. They end sooner, unless they wait for a program.
const HANDOFF_WAIT_MS: i64 = 100;

impl Worker {
    /// Whether keys are being handed off to blocked clients on any shard. This shard's own handoffs are checked
    /// directly, as they are published only at the end of the turn.
    pub(super) fn has_handoffs(&self) -> bool {
        self.shard.blocking.handoff_count() != 0 || self.globals.has_handoffs()
    }

    pub(super) fn publish_handoffs(&mut self) {
        let handoffs = self.shard.blocking.handoff_count() as u64;
        if self.shard.stats.handoffs.get() != handoffs {
            self.shard.stats.handoffs.set(handoffs);
        }
    }

    /// Whether a command that runs at home, and is about to, has to wait for handoffs. Then its connection is stalled.
    pub(super) fn stall_for_handoffs(&mut self, at: usize, entry: &CommandEntry) -> bool {
        // Rows with another scope come home only for an error, which is the same at any time.
        let counts_waits = entry.row.has(flag::AFTER_HANDOFFS) && matches!(entry.row.scope, Scope::Session);
        if !counts_waits {
            return false;
        }
        let has_handoffs = self.has_handoffs();
        let now_ms = self.shard.now_ms;
        let Some(connection) = self.connections[at].as_deref_mut() else { return false };
        if !has_handoffs || connection.handoffs_until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
            connection.handoffs_until_ms = None;
            return false;
        }
        connection.handoffs_until_ms.get_or_insert(now_ms + HANDOFF_WAIT_MS);
        connection.stall = Some(StallReason::Handoffs);
        self.behind_handoffs.push(at as u32);
        true
    }

    /// Whether one of the connections that wait for handoffs can go on.
    pub fn has_seen_handoffs_end(&self) -> bool {
        !self.behind_handoffs.is_empty()
            && (!self.has_handoffs()
                || self.behind_handoffs.iter().any(|&at| {
                    let until_ms =
                        self.connections[at as usize].as_deref().and_then(|it| it.handoffs_until_ms);
                    until_ms.is_none_or(|until_ms| self.shard.now_ms >= until_ms)
                }))
    }

    /// Executes the requests again that wait for handoffs. Those that have to wait longer are stalled again.
    pub(super) fn wake_behind_handoffs(&mut self) {
        for at in std::mem::take(&mut self.behind_handoffs) {
            let at = at as usize;
            if self.connections[at].as_deref().is_some_and(|it| it.stall == Some(StallReason::Handoffs)) {
                self.release_stall(at);
            }
        }
    }
}
