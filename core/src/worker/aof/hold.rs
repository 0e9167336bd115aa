//! A shard's end of the append-only file: it sends its effects to the writer, and holds back the output of its connections
//! until what that shows is on disk, or, unless appendfsync is `always`, written.

use super::ToWriter;
use crate::config::AppendFsync;
use crate::shard::effects::{EffectBatch, PieceId};
use crate::worker::Worker;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

/// A worker's own state of the append-only file.
#[derive(Default)]
pub(in crate::worker) struct Outlet {
    /// Once there is something to send.
    sender: Option<Sender<ToWriter>>,
    /// Output is held back until it is safe, ...
    holds: bool,
    /// ... also while the writer is behind: `appendfsync always`.
    is_strict: bool,
    /// See the module's documentation.
    ticket: u64,
    /// What was safe when the held connections were last looked at, and whether more is by now.
    seen_safe_seq: u64,
    pub(in crate::worker) looks_again: bool,
    /// Connections with output that is held back. They are marked dirty.
    held: Vec<u32>,
    /// The writer is behind, and clients that write are stalled.
    pub(in crate::worker) is_behind: bool,
}

impl Outlet {
    /// Whether output is held back now.
    #[inline]
    pub(in crate::worker) fn holds_now(&self) -> bool {
        self.holds && (self.is_strict || !self.is_behind)
    }
}

impl Worker {
    /// Takes over what the configuration says of the file.
    pub(in crate::worker) fn track_aof(&mut self) {
        if !self.globals.aof.is_on() && self.shard.effects.has_file() {
            self.shard.effects.end_file();
        }
        let config = &self.shard.config;
        self.outlet.holds = self.globals.aof.is_on();
        self.outlet.is_strict = config.appendfsync == AppendFsync::Always;
    }

    /// At the beginning of a turn: looks whether the writer keeps up.
    #[inline]
    pub(in crate::worker) fn watch_writer(&mut self) {
        if self.outlet.sender.is_some() {
            let was_behind = self.outlet.is_behind;
            self.outlet.is_behind = self.globals.aof.is_behind(self.shard.now_ms);
            if was_behind && !self.outlet.is_behind {
                self.wake_paused();
            }
        }
    }

    /// Sends effects to the writer. Before anything else that this turn has produced leaves the shard.
    pub(in crate::worker) fn append_to_file(&mut self, batch: Arc<EffectBatch>) {
        let aof = &self.globals.aof;
        let sender = self.outlet.sender.get_or_insert_with(|| aof.sender());
        aof.queued_bytes.fetch_add(batch.held_bytes() as u64, Ordering::Relaxed);
        // Sequentially consistent, so that a batch sent as a consequence of this one gets a higher number.
        let seq = aof.next_seq.fetch_add(1, Ordering::SeqCst);
        // After the end of the writer nobody is told anything any more.
        let _ = sender.send(ToWriter::Batch { seq, batch });
        self.outlet.ticket = self.outlet.ticket.max(seq + 1);
    }

    /// Completes a piece of a transaction in the stream of effects.
    pub(in crate::worker) fn end_piece(&mut self, id: PieceId, pieces: u32) {
        self.shard.effects.end_piece(id, pieces, self.globals.aof.has_begun());
    }

    /// Before the messages of a turn leave.
    #[inline]
    pub(in crate::worker) fn publish_ticket(&mut self) {
        if self.outlet.holds {
            self.globals.aof.tickets[self.shard.index].store(self.outlet.ticket, Ordering::Release);
        }
    }

    /// A message of another shard has arrived: what that shard knew may now be known here.
    #[inline]
    pub(in crate::worker) fn take_ticket_of(&mut self, shard: usize) {
        if self.outlet.holds {
            let ticket = self.globals.aof.tickets[shard].load(Ordering::Acquire);
            self.outlet.ticket = self.outlet.ticket.max(ticket);
        }
    }

    /// At the beginning of the sending of a turn's output: moves the connections whose output was held back to `dirty`, if
    /// more has become safe.
    pub(in crate::worker) fn release_held(&mut self, dirty: &mut Vec<u32>) {
        if !self.outlet.holds && self.outlet.held.is_empty() {
            return;
        }
        let safe_seq = self.globals.aof.safe_seq();
        if std::mem::replace(&mut self.outlet.seen_safe_seq, safe_seq) != safe_seq || !self.outlet.holds_now()
        {
            dirty.append(&mut self.outlet.held);
        }
        self.outlet.looks_again = false;
    }

    /// Takes the output of a connection that may be sent now. `None`: all of it is held back.
    pub(in crate::worker) fn take_safe_output(&mut self, at: usize) -> Option<Vec<u8>> {
        let (ticket, safe_seq) = (self.outlet.ticket, self.outlet.seen_safe_seq);
        let connection = self.connections[at].as_deref_mut()?;
        let out = connection.take_safe_output(ticket, safe_seq);
        if !connection.out.is_empty() {
            connection.is_dirty = true;
            self.outlet.held.push(at as u32);
        }
        out
    }

    /// At the end of the sending of a turn's output: asks the writer to wake this shard if it holds output back.
    pub(in crate::worker) fn await_safety(&mut self) {
        if self.outlet.held.is_empty() {
            return;
        }
        let aof = &self.globals.aof;
        // The writer raises `safe_seq` before it looks at the flag, so either it sees the flag or this sees the number.
        aof.is_waiting[self.shard.index].store(true, Ordering::SeqCst);
        self.outlet.looks_again = aof.safe_seq() != self.outlet.seen_safe_seq;
    }
}
