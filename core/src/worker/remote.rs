//! Commands for keys of other shards: they are gathered over a turn and sent as one message to each shard, which sends
//! one message with the replies back.

use super::Worker;
use super::connection::{BIG_REPLY_BYTES, BIG_REQUEST_BYTES};
use super::fast_path::Tally;
use super::fetch::Upcoming;
use super::run::{Invocation, ReplyTo, Started};
use crate::command::Call;
use crate::command::queue::Queue;
use crate::command::table::{CommandEntry, CommandId};
use crate::protocol::Argv;
use crate::shard::message::{BATCH_BYTES_MAX, Batch, BatchedCommand, Message, ReplyId};

impl Worker {
    /// Adds a command to the batch for `shard`.
    pub(super) fn batch(&mut self, shard: usize, reply_id: ReplyId, call: &Call, args: Argv<'_>) {
        self.batch_by(shard, reply_id, args, |batch| batch.push(reply_id, *call, args));
    }

    /// As [`Batch::push_request`].
    #[inline]
    pub(super) fn batch_request(
        &mut self,
        shard: usize,
        reply_id: ReplyId,
        alike: &Call,
        command: CommandId,
        hash: u64,
        args: Argv<'_>,
    ) {
        self.batch_by(shard, reply_id, args, |batch| {
            batch.push_request(reply_id, alike, command, hash, args)
        });
    }

    #[inline(always)]
    fn batch_by(&mut self, shard: usize, reply_id: ReplyId, args: Argv<'_>, push: impl FnOnce(&mut Batch)) {
        let len_bytes = args.bytes().len();
        if len_bytes > BIG_REQUEST_BYTES {
            self.prepare_big_request(shard, reply_id, len_bytes);
        }
        let batch = self.outbox.batch(shard);
        push(batch);
        if batch.args_len_bytes() > BATCH_BYTES_MAX {
            self.flush_batch(shard);
        }
    }

    /// To be called before a request of so many bytes is added to a batch. Makes room for it, and has its connection wait
    /// for replies earlier. A smaller one has room: a batch with many bytes is sent at once.
    #[cold]
    fn prepare_big_request(&mut self, shard: usize, reply_id: ReplyId, len_bytes: usize) {
        if self.outbox.growing_batch(shard).is_some_and(|batch| !batch.has_room(len_bytes)) {
            self.flush_batch(shard);
        }
        if let Some(connection) = self.connections[reply_id.conn as usize].as_deref_mut() {
            connection.record_big_request(len_bytes);
        }
    }

    /// Adds an EXEC to the batch for `shard`.
    pub(super) fn batch_exec(
        &mut self,
        shard: usize,
        reply_id: ReplyId,
        call: Call,
        queue: &Queue,
        watches: bool,
    ) {
        if self.outbox.growing_batch(shard).is_some_and(|batch| !batch.has_room(queue.args_len_bytes())) {
            self.flush_batch(shard);
        }
        let batch = self.outbox.batch(shard);
        batch.push_exec(reply_id, call, queue, watches);
        if batch.args_len_bytes() > BATCH_BYTES_MAX {
            self.flush_batch(shard);
        }
    }

    /// Sends the batches gathered in this turn.
    pub(super) fn flush_batches(&mut self) {
        let mut open = self.outbox.take_open();
        for shard in open.drain(..) {
            self.flush_batch(shard as usize);
        }
        self.outbox.give_open(open);
    }

    pub(super) fn flush_batch(&mut self, shard: usize) {
        let Some(mut batch) = self.outbox.take_batch(shard) else { return };
        batch.sent_at_nanos = self.time.clock.ticks_to_nanos(self.time.ticks);
        self.shard.stats.mesh_batches.add(1);
        self.shard.stats.mesh_commands.add(batch.commands.len() as u64);
        self.outbox.send(shard, Message::Commands(batch));
    }

    /// Prefetches what the messages of a turn need from memory. With many shards each message holds few commands, whose
    /// cache misses would not overlap with others; so all messages are prefetched together, level by level, as
    /// [`Shard::prefetch`] does.
    ///
    /// [`Shard::prefetch`]: crate::shard::Shard::prefetch
    pub(super) fn prefetch_messages(&mut self, messages: &[(usize, Message)]) {
        let batches = messages.iter().filter_map(|(_, message)| match message {
            Message::Commands(batch) | Message::Replies(batch) => Some(batch),
            Message::Txn(_)
            | Message::Token(_)
            | Message::Wait(_)
            | Message::Adopt(_)
            | Message::Listen(_)
            | Message::Evict
            | Message::EvictClients
            | Message::Slow { .. }
            | Message::Effects { .. }
            | Message::Stream(_)
            | Message::Published(_)
            | Message::Tracking(_)
            | Message::Users { .. }
            | Message::UsersAdopted { .. }
            | Message::Refused(_)
            | Message::Decided { .. }
            | Message::Unwatch { .. }
            | Message::Look { .. }
            | Message::Looked { .. } => None,
        });
        if messages.len() > 1 {
            batches.clone().for_each(Batch::prefetch_header);
            batches.clone().for_each(|batch| batch.prefetch_contents());
        }
        let hashed =
            batches.clone().flat_map(|batch| &batch.commands).filter(|command| command.call.hashed_arg != 0);
        self.shard.prefetch(hashed.map(|command| (command.call.db, command.call.hash)));
        self.prefetch_elements(batches.flat_map(|batch| {
            batch.calls(&batch.commands).filter_map(|(call, args)| Upcoming::of_call(call, args))
        }));
    }

    /// Runs another shard's commands over this shard's keys and sends the replies back.
    pub(super) fn execute_batch(&mut self, from: usize, mut batch: Box<Batch>) {
        let commands = std::mem::take(&mut batch.commands);
        let mut replies = std::mem::take(&mut batch.replies);
        self.shard.stats.commands_remote.add(commands.len() as u64);
        self.make_room(commands.len());
        let mut next = 0;
        // What a master has sent runs otherwise, too: see `run`.
        let is_monitored = self.is_monitored() || self.shard.is_replica;
        // The commands before this one have been timed: see `time_fast_path`.
        let mut timed = 0;
        let mut tally = self.time.take_carried();
        while let Some(command) = commands.get(next) {
            let entry = self.table.entry(command.call.command);
            let is_plain = self.shard.locks.is_empty() && !is_monitored;
            if is_plain && entry.row.is_constant_time && is_fast_path(command, entry) {
                next += 1;
                let args = batch.args(&command.args);
                self.run_on_fast_path(entry, &command.call, args, &mut replies);
                tally.add(entry.id);
                batch.answered.push((command.reply_id, replies.len()));
                self.answer_early(from, &mut batch, &mut replies);
                continue;
            }
            self.time_batched(&mut tally, &batch, &commands[timed..next]);
            next += 1;
            if let Some(exec) = command.exec {
                let queued = &commands[next..next + exec.len as usize];
                next += queued.len();
                timed = next;
                if self.execute_remote_exec(from, command, exec.watches, &batch, queued, &mut replies) {
                    batch.answered.push((command.reply_id, replies.len()));
                }
                continue;
            }
            timed = next;
            self.serve_due_first();
            let invocation = Invocation::new(entry, &command.call, batch.args(&command.args), None);
            let to = ReplyTo::Place { home: from, reply_id: command.reply_id };
            if self.start(&invocation, to, &mut replies) != Started::Replied {
                continue;
            }
            batch.answered.push((command.reply_id, replies.len()));
            self.answer_early(from, &mut batch, &mut replies);
        }
        let len_bytes = batch.args_len_bytes() + replies.len();
        if self.outbox.has_local() || !self.time.carry(&tally, len_bytes) {
            self.time_batched(&mut tally, &batch, &commands[timed..next]);
        }
        batch.replies = replies;
        batch.commands = commands;
        batch.clear_commands();
        self.send(from, Message::Replies(batch));
    }

    /// Counts and times commands of a batch that have run on the fast path.
    #[inline]
    fn time_batched(&mut self, tally: &mut Tally, batch: &Batch, ran: &[BatchedCommand]) {
        let call_of = |command: &BatchedCommand| (command.call, batch.args(&command.args));
        self.time_fast_path(std::mem::take(tally), ran.iter(), |command| command.call.command, call_of);
    }

    /// Sends the replies to the first commands of a batch ahead of the others if they have become long.
    #[inline(always)]
    fn answer_early(&mut self, from: usize, batch: &mut Batch, replies: &mut Vec<u8>) {
        if replies.len() > BATCH_BYTES_MAX {
            self.answer_first(from, batch, replies);
        }
    }

    #[cold]
    fn answer_first(&mut self, from: usize, batch: &mut Batch, replies: &mut Vec<u8>) {
        // What took long is not timed together with another batch.
        self.time.batch_follows = false;
        let mut early = self.outbox.spare_batch();
        early.answered = std::mem::take(&mut batch.answered);
        early.replies = std::mem::take(replies);
        self.send(from, Message::Replies(early));
    }

    /// Delivers replies to the connections that wait for them.
    pub(super) fn take_replies(&mut self, mut batch: Box<Batch>) {
        if batch.sent_at_nanos != 0 {
            let now = self.time.clock.ticks_to_nanos(self.time.ticks);
            self.shard.stats.hop_nanos.add(now.saturating_sub(batch.sent_at_nanos));
            self.shard.stats.hops.add(1);
            batch.sent_at_nanos = 0;
        }
        if let [(reply_id, len_bytes @ BIG_REPLY_BYTES..)] = batch.answered[..]
            && len_bytes == batch.replies.len()
        {
            self.fulfil_owned(reply_id, std::mem::take(&mut batch.replies));
            self.outbox.give_batch(batch);
            return;
        }
        let mut start = 0;
        for &(reply_id, end) in &batch.answered {
            self.fulfil(reply_id, &batch.replies[start..end]);
            start = end;
        }
        self.outbox.give_batch(batch);
    }

    /// Sends the reply to a command that did not run with its batch: it had to wait for a lock or for a key.
    pub(super) fn answer(&mut self, home: usize, reply_id: ReplyId, reply: &[u8]) {
        if home == self.shard.index {
            self.fulfil(reply_id, reply);
            return;
        }
        let mut batch = self.outbox.spare_batch();
        batch.replies.extend_from_slice(reply);
        batch.answered.push((reply_id, reply.len()));
        self.send(home, Message::Replies(batch));
    }
}

/// Whether a command of a batch can take the fast path: see `fast_path`.
#[inline]
fn is_fast_path(command: &BatchedCommand, entry: &CommandEntry) -> bool {
    command.exec.is_none() && entry.row.run.is_over_keys()
}
