//! A connection as its worker sees it: the session, the bytes in and out, and the replies still awaited.

use crate::client::{Client, ReplyMode};
use crate::protocol::request::RequestParser;
use crate::runtime::driver::ConnId;
use crate::shard::message::Token;
use std::collections::VecDeque;

/// The place of one reply in a connection's output order.
pub(super) enum Slot {
    /// Another shard, or a lock, still has the command. `discard`: CLIENT REPLY left its reply out.
    Waiting { discard: bool },
    /// Replies that are complete and wait for those before them.
    Ready(Vec<u8>),
}

/// Why a connection's requests are not executed at present. They stay in its query buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    /// A command over several shards runs; it is alone in its connection's pipeline.
    Transaction,
    /// The next command starts when all earlier replies are there.
    Pending,
    /// CLIENT PAUSE.
    Paused,
    /// The driver reads a big argument straight into the query buffer.
    Filling,
}

/// A connection waits with further requests when this many replies are awaited from other shards.
pub(super) const PENDING_MAX: usize = 1024;

pub struct Connection {
    pub(super) conn: ConnId,
    pub client: Client,
    /// Bytes received and not yet executed; begins with a request's first byte.
    pub(super) query: Vec<u8>,
    pub(super) parser: RequestParser,
    /// Replies in order, ready to leave.
    pub(super) out: Vec<u8>,
    /// Bytes the driver has and has not sent yet.
    pub(super) sending_bytes: usize,
    pub(super) pending: VecDeque<Slot>,
    /// Running number of the next slot.
    pub(super) next_place: u64,
    pub(super) hold: Option<Hold>,
    /// While filling: how long `query` is when the big argument is complete.
    pub(super) fill_to_bytes: usize,
    /// Receiving is suspended because requests pile up while they are held.
    pub(super) receiving_paused: bool,
    /// Close when everything has been sent.
    pub(super) close_after_reply: bool,
    /// In the worker's list of connections with something to send.
    pub(super) is_dirty: bool,
    /// Its output was held back at the end of the last turn, for the replies that come behind it.
    pub(super) is_deferred: bool,
    /// Since when the output has been above its soft limit; wall clock in milliseconds.
    pub(super) over_soft_limit_since_ms: Option<i64>,
}

impl Connection {
    pub(super) fn new(conn: ConnId, client: Client) -> Connection {
        Connection {
            conn,
            client,
            query: Vec::new(),
            parser: RequestParser::default(),
            out: Vec::new(),
            sending_bytes: 0,
            pending: VecDeque::new(),
            next_place: 0,
            hold: None,
            fill_to_bytes: 0,
            receiving_paused: false,
            close_after_reply: false,
            is_dirty: false,
            is_deferred: false,
            over_soft_limit_since_ms: None,
        }
    }

    /// Bytes received and not yet executed.
    pub fn query_len_bytes(&self) -> usize {
        self.query.len()
    }

    pub fn query_capacity_bytes(&self) -> usize {
        self.query.capacity()
    }

    /// Bytes of replies that are ready and have not reached the socket.
    pub fn output_len_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes
    }

    /// Memory of the connection's buffers.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Connection>()
            + self.query.capacity()
            + self.out.capacity()
            + self.sending_bytes
            + self.pending.capacity() * std::mem::size_of::<Slot>()
    }

    /// Reserves the next place in the reply order.
    pub(super) fn await_reply(&mut self, index: usize) -> Token {
        let discard = !self.takes_reply();
        self.pending.push_back(Slot::Waiting { discard });
        let place = self.next_place;
        self.next_place += 1;
        Token { conn: index as u32, generation: self.conn.generation(), place }
    }

    /// Whether the running command's reply goes to the client.
    #[inline]
    pub(super) fn takes_reply(&self) -> bool {
        matches!(self.client.reply_mode, ReplyMode::On | ReplyMode::SkipNext)
    }

    /// Appends a reply that is already complete, behind those that are awaited.
    pub(super) fn queue_ready(&mut self, reply: &[u8]) {
        if let Some(Slot::Ready(bytes)) = self.pending.back_mut() {
            bytes.extend_from_slice(reply);
            return;
        }
        self.pending.push_back(Slot::Ready(reply.to_vec()));
        self.next_place += 1;
    }

    /// Fills an awaited place. Everything at the head that is now complete moves to the output.
    pub(super) fn fulfil(&mut self, place: u64, reply: &[u8]) {
        let head = self.next_place - self.pending.len() as u64;
        let index = (place - head) as usize;
        let Slot::Waiting { discard } = self.pending[index] else {
            panic!("place {place} was fulfilled twice");
        };
        let reply = if discard { &[] } else { reply };
        if index > 0 {
            self.pending[index] = Slot::Ready(reply.to_vec());
            return;
        }
        self.out.extend_from_slice(reply);
        self.pending.pop_front();
        while let Some(Slot::Ready(bytes)) = self.pending.front() {
            self.out.extend_from_slice(bytes);
            self.pending.pop_front();
        }
    }
}
