//! WAIT: a client waits until replicas have acknowledged what it has written.
//!
//! What that is, is known at the merging shard alone. When WAIT runs, all that its client knows of has left the shards, in
//! batches with lower numbers than the next one. So the shard asks for the stream's length as soon as all of these are in it;
//! the merging shard answers, and asks the replicas for acknowledgements (REPLCONF GETACK).

use super::{STREAM_SHARD, Worker};
use crate::protocol::number::parse_i64;
use crate::protocol::{Reply, Resp};
use crate::shard::message::{ReplyId, StreamMessage};
use std::sync::atomic::Ordering;

/// A client of this shard that waits.
pub(super) struct ReplicaWait {
    reply_id: ReplyId,
    wanted: i64,
    is_asked: bool,
    /// The length of the stream with all that it has written.
    target: Option<u64>,
}

/// On the merging shard: somebody wants to know the length of the stream with all batches before this one.
pub(super) struct AskedPosition {
    home: usize,
    reply_id: ReplyId,
    seq: u64,
}

impl Worker {
    /// A client of this shard begins to wait, in WAIT with these words.
    pub(in crate::worker) fn await_replicas(&mut self, reply_id: ReplyId, wanted: &[u8]) {
        let wanted = parse_i64(wanted).expect("the command has looked at it");
        self.globals.stream.waits[self.shard.index].fetch_add(1, Ordering::SeqCst);
        self.stream.waits.push(ReplicaWait { reply_id, wanted, is_asked: false, target: None });
    }

    /// Its wait has ended.
    pub(in crate::worker) fn forget_replica_wait(&mut self, reply_id: ReplyId) {
        let len = self.stream.waits.len();
        self.stream.waits.retain(|wait| wait.reply_id != reply_id);
        let ended = len - self.stream.waits.len();
        self.globals.stream.waits[self.shard.index].fetch_sub(ended, Ordering::SeqCst);
    }

    /// How many replicas have what this client has written.
    pub(in crate::worker) fn replicas_that_have(&self, reply_id: ReplyId) -> i64 {
        let wait = self.stream.waits.iter().find(|wait| wait.reply_id == reply_id);
        let target = wait.and_then(|wait| wait.target);
        target.map_or(0, |target| self.globals.stream.acknowledged(target) as i64)
    }

    /// When all effects of this turn have left: asks for the positions of clients that have begun to wait.
    pub(super) fn ask_positions(&mut self) {
        if self.stream.waits.iter().all(|wait| wait.is_asked) {
            return;
        }
        let seq = self.globals.stream.next_seq.load(Ordering::SeqCst);
        let home = self.shard.index as u32;
        let asking = self.stream.waits.iter_mut().filter(|wait| !wait.is_asked);
        let asking: Vec<ReplyId> = asking
            .map(|wait| {
                wait.is_asked = true;
                wait.reply_id
            })
            .collect();
        for reply_id in asking {
            self.tell(STREAM_SHARD, StreamMessage::AskPosition { home, reply_id, seq });
        }
    }

    pub(super) fn take_asked_position(&mut self, home: usize, reply_id: ReplyId, seq: u64) {
        self.stream.asked_positions.push(AskedPosition { home, reply_id, seq });
        self.answer_positions();
    }

    /// On the merging shard: answers those who may be answered.
    pub(super) fn answer_positions(&mut self) {
        if self.stream.asked_positions.is_empty() {
            return;
        }
        let written_seq = self.stream.merger.written_seq();
        let asked = std::mem::take(&mut self.stream.asked_positions);
        let (due, early): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.seq <= written_seq);
        self.stream.asked_positions = early;
        if due.is_empty() {
            return;
        }
        // What was written is in the backlog, or will be when this turn ends.
        let offset = match self.stream.merger.is_read() {
            true => self.stream.merger.offset(),
            false => self.globals.stream.backlog.end(),
        };
        for AskedPosition { home, reply_id, .. } in due {
            self.tell(home, StreamMessage::Position { reply_id, offset });
        }
        self.stream.wants_ack = true;
        self.ask_for_ack();
    }

    /// On the merging shard: asks the replicas how far they are, if somebody wants to know. While clients are paused, nothing
    /// is to be added to the stream.
    pub(super) fn ask_for_ack(&mut self) {
        if self.are_clients_paused(self.shard.now_ms) || !std::mem::take(&mut self.stream.wants_ack) {
            return;
        }
        if self.globals.stream.replica_count() > 0 {
            self.stream.merger.write(&[b"REPLCONF", b"GETACK", b"*"]);
        }
    }

    pub(super) fn take_position(&mut self, reply_id: ReplyId, offset: u64) {
        if let Some(wait) = self.stream.waits.iter_mut().find(|wait| wait.reply_id == reply_id) {
            wait.target = Some(offset);
            self.end_replica_waits();
        }
    }

    /// Replies to the clients whose writes enough replicas have.
    pub(super) fn end_replica_waits(&mut self) {
        let stream = &self.globals.stream;
        let ended = self.stream.waits.iter().filter_map(|wait| {
            let count = stream.acknowledged(wait.target?) as i64;
            (count >= wait.wanted).then_some((wait.reply_id, count))
        });
        for (reply_id, count) in ended.collect::<Vec<_>>() {
            let mut reply = Vec::new();
            Reply::new(&mut reply, Resp::V2).integer(count);
            self.fulfil(reply_id, &reply);
        }
    }

    /// A replica has acknowledged something: tells the shards on which clients wait.
    pub(super) fn spread_acknowledgement(&mut self) {
        for shard in 0..self.shard.shard_count {
            if self.globals.stream.waits[shard].load(Ordering::SeqCst) > 0 {
                self.tell(shard, StreamMessage::Acknowledged);
            }
        }
    }
}
