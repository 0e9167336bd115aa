//! Shard 0's part of the link: what has been applied of the stream goes into the backlog.

use super::super::Worker;
use crate::shard::message::StreamMessage;
use std::sync::atomic::Ordering;

impl Worker {
    /// The next units of the master's stream have been applied on all shards.
    pub(in crate::worker) fn stream_applied(&mut self, units: &[u8]) {
        self.begin_turn();
        let (link, stream) = (&self.globals.link, &self.globals.stream);
        stream.backlog.append(units);
        self.trim_stream();
        let offset = stream.backlog.end();
        let wanted = link.ack_wanted.load(Ordering::SeqCst);
        if wanted > 0 && offset >= wanted {
            link.ack_wanted.store(0, Ordering::SeqCst);
            // As Redis has it, which counts the question only afterwards.
            link.acknowledge(offset);
        }
        self.tell_servers(&|| StreamMessage::Grown);
        self.begin_due_sync();
    }
}
