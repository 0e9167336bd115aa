//! Commands that the server itself runs: those of an append-only file that is loaded, and of a master's stream.
//!
//! They take the way of a client's, over a connection of the server to itself: so they are routed to the shards of their
//! keys, run in order where they touch the same ones, and as transactions where they need several shards. Nothing is sent
//! over the socket of that connection; it only gives it a place among the others. Replies are dropped.

use super::failover::FailoverState;
use super::{Connection, IoRequest, Worker};
use crate::client::ReplyMode;
use crate::runtime::listener;
use crate::shard::message::{NewConnection, ReplyId};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

/// The shard that runs them, or sends them to where their keys are.
pub const FEED_SHARD: usize = 0;

/// How many chunks of commands may wait for the shard.
pub const CHUNKS_WAITING_MAX: usize = 4;
/// A chunk is handed over when it has this many bytes.
pub const CHUNK_LEN: usize = 256 << 10;

/// Whole requests.
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// They run in order, whatever their shards are, as transactions of as many of them as possible: see
    /// [`coalesce`](super::coalesce). Otherwise those of different shards run at the same time.
    pub is_joined: bool,
}

/// The commands to come.
pub struct Feed {
    pub chunks: Receiver<Chunk>,
    /// Told at the end whether all of them have run.
    pub done: Sender<bool>,
    pub at_end: AtEnd,
    /// Each chunk is a run of the master's stream: the next one begins when all commands of one have run.
    pub is_stream: bool,
}

/// What happens when the last command has run, before anybody is told.
#[derive(PartialEq, Eq, Debug)]
pub enum AtEnd {
    Nothing,
    /// The data set is loaded: this reply of a client of that shard is due.
    Reload(usize, ReplyId),
    /// This server is a master from here on, and these clients get their replies.
    Promotion(Vec<(usize, ReplyId)>),
    /// These clients, of those shards, get their replies.
    Answer(Vec<(usize, ReplyId)>),
    /// This client of that shard gets this reply.
    Reply(usize, ReplyId, Vec<u8>),
}

/// Feeds that the shard has not taken yet. It takes one after the other.
#[derive(Default)]
pub struct FeedQueue {
    is_full: AtomicBool,
    feeds: Mutex<VecDeque<Feed>>,
}

impl FeedQueue {
    /// Hands a feed over. The caller wakes [`FEED_SHARD`].
    pub fn put(&self, feed: Feed) {
        let mut feeds = self.feeds.lock().expect("no holder of the feeds panics");
        feeds.push_back(feed);
        self.is_full.store(true, Ordering::Release);
    }

    /// Whether there is one.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Feed> {
        let mut feeds = self.feeds.lock().expect("no holder of the feeds panics");
        let feed = feeds.pop_front();
        self.is_full.store(!feeds.is_empty(), Ordering::Release);
        feed
    }
}

/// A feed whose commands are being run.
pub(super) struct OpenFeed {
    feed: Feed,
    /// The place of the server's connection, once it is there.
    at: Option<usize>,
    /// The run of the stream that is being applied.
    run: Option<Vec<u8>>,
    /// The other end, without which the connection would end.
    _peer: OwnedFd,
}

impl Worker {
    /// Takes the feed over that waits for this shard, if there is one.
    fn take_feed(&mut self) {
        if self.shard.index != FEED_SHARD || self.feed.is_some() || !self.globals.feed.is_full() {
            return;
        }
        let Some(feed) = self.globals.feed.take() else { return };
        let (fd, peer) = listener::pair().expect("descriptors are kept free of clients");
        let new = NewConnection {
            fd,
            addr: String::new(),
            laddr: String::new(),
            unix_socket: true,
            tls: false,
            is_denied: false,
            is_server: true,
        };
        self.requests.push(IoRequest::Adopt(Box::new(new)));
        self.feed = Some(OpenFeed { feed, at: None, run: None, _peer: peer });
    }

    /// The server's own connection has its place.
    pub(super) fn feed_connected(&mut self, at: usize) {
        let Some(open) = &mut self.feed else { return };
        open.at = Some(at);
        if open.feed.is_stream
            && let Some(connection) = self.connections[at].as_deref_mut()
        {
            // Not the fast path: see `run_for_master`.
            connection.client.reply_mode = ReplyMode::Off;
            connection.client.db = self.globals.link.stream_db();
        }
    }

    /// Runs the next chunk of commands, if there is one. Returns whether there may be more to do at once.
    pub fn run_feed(&mut self) -> bool {
        self.take_feed();
        let is_stream = self.feed.as_ref().is_some_and(|open| open.feed.is_stream);
        let is_paused = is_stream && self.is_stream_paused();
        let Some(open) = &self.feed else { return false };
        let Some(at) = open.at else { return true };
        let Some(connection) = self.connections[at].as_deref() else { return self.end_feed(false) };
        let is_idle = connection.has_run_all();
        if is_stream && is_idle && open.run.is_some() {
            return self.end_run();
        }
        let waits = is_stream && (!is_idle || self.stream.holds_feed || is_paused);
        if waits || connection.query.len() >= CHUNK_LEN {
            // What is there waits for other shards.
            return false;
        }
        match open.feed.chunks.try_recv() {
            Ok(Chunk { bytes, is_joined }) => {
                self.begin_turn();
                if let Some(connection) = self.connections[at].as_deref_mut() {
                    connection.joins_requests = is_joined;
                }
                self.take_input(at, &bytes);
                if let Some(open) = self.feed.as_mut().filter(|_| is_stream) {
                    open.run = Some(bytes);
                }
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => is_idle && self.end_feed(true),
        }
    }

    /// All commands of the run of a master's stream have run. Returns whether there was one.
    fn end_run(&mut self) -> bool {
        let Some(open) = &mut self.feed else { return false };
        let db = open.at.and_then(|at| Some(self.connections[at].as_deref()?.client.db));
        let (Some(run), Some(db)) = (open.run.take(), db) else { return false };
        self.globals.link.set_stream_db(db);
        self.stream_applied(&run);
        true
    }

    /// The shards stand still to end the server: what has been applied of a master's stream is said to be.
    pub(super) fn settle_feed(&mut self) {
        let Some(open) = self.feed.as_ref().filter(|open| open.feed.is_stream && open.run.is_some()) else {
            return;
        };
        let connection = open.at.and_then(|at| self.connections[at].as_deref());
        let is_idle = connection.is_some_and(Connection::has_run_all);
        self.globals.link.set_applying(!is_idle);
        if is_idle {
            self.end_run();
        }
    }

    /// Whether a pause holds the master's stream up. Not when REPLICAOF has ordered something else, which comes behind it.
    fn is_stream_paused(&self) -> bool {
        let now_ms = self.time.clock.wall_ms();
        self.are_clients_paused(now_ms) && !self.globals.link.has_order()
    }

    /// Whether nothing of a master's stream is being applied.
    pub(super) fn is_between_runs(&self) -> bool {
        self.feed.as_ref().is_none_or(|open| open.run.is_none())
    }

    /// All commands have run, or one of them has closed the connection: not `is_complete`.
    fn end_feed(&mut self, is_complete: bool) -> bool {
        let Some(OpenFeed { feed, at, .. }) = self.feed.take() else { return false };
        if let Some(at) = at {
            self.close_now(at);
        }
        let replies = match feed.at_end {
            AtEnd::Reload(home, reply_id) if is_complete => {
                self.globals.persistence.count_as_saved(self.globals.sum(|stats| stats.dirty.get()));
                self.globals.persistence.loading.end();
                vec![(home, reply_id)]
            }
            AtEnd::Promotion(replies) => {
                if self.globals.link.set_master(&self.shard.config) {
                    self.follow_role();
                    self.tell_link(false);
                    self.tell_role(false);
                }
                if self.globals.failover.state() == FailoverState::InProgress {
                    // It was given up.
                    self.globals.failover.end(self.globals);
                }
                // Replicas may wait for this.
                self.globals.ring_all();
                replies
            }
            AtEnd::Answer(replies) => replies,
            AtEnd::Reply(home, reply_id, reply) => {
                self.begin_turn();
                self.answer(home, reply_id, &reply);
                Vec::new()
            }
            AtEnd::Reload(..) | AtEnd::Nothing => Vec::new(),
        };
        for (home, reply_id) in replies {
            self.begin_turn();
            self.answer(home, reply_id, b"+OK\r\n");
        }
        // If nobody listens, the server stops.
        let _ = feed.done.send(is_complete);
        false
    }
}
