//! The messages between shards. They are plain data, so that they can be bounded, logged, replayed and simulated.

use crate::call::Call;
use crate::call::queue::{KEPT_BYTES_MAX, Queue};
use crate::call::{ClientId, CommandId, RefusedCall};
use crate::protocol::{ArgRange, Argv};
use crate::pubsub::Delivery;
use crate::shard::blocking::WaitMessage;
use crate::shard::effects::EffectBatch;
use crate::shard::slowlog::SlowLogEntry;
use crate::shard::token::TokenMessage;
use crate::shard::tracking::TrackingMessage;
use crate::shard::txn::TxnMessage;
use crate::types::prefetch;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A message from one shard to another.
pub enum Message {
    /// Commands whose keys you own, gathered over one turn from all connections of the sender.
    Commands(Box<Batch>),
    /// The replies to a batch of commands.
    Replies(Box<Batch>),
    Txn(TxnMessage),
    Token(TokenMessage),
    Wait(Box<WaitMessage>),
    /// A connection for you to serve.
    Adopt(Box<NewConnection>),
    /// To the accepting shard: listen on these sockets in place of the present TCP sockets.
    Listen(Box<Listeners>),
    /// Other shards want you to free memory: see [`EvictionBoard`](crate::shard::evict::EvictionBoard).
    Evict,
    /// The connections of all shards take too much, and you have to close some.
    EvictClients,
    /// A command of your client was slow here.
    Slow {
        client: ClientId,
        entry: Box<SlowLogEntry>,
    },
    /// To the shard that merges the effect stream for replicas: the effects of the sender's writes.
    Effects {
        seq: u64,
        batch: Arc<EffectBatch>,
    },
    Stream(StreamMessage),
    /// Messages for your subscribers.
    Published(Vec<Delivery>),
    /// About what clients have read, and that it has changed.
    Tracking(TrackingMessage),
    /// The users have changed, to this version.
    Users {
        version: u64,
    },
    /// Back: the shard goes by this version of the users, or a later one.
    UsersAdopted {
        version: u64,
    },
    /// A program of your client was refused a call by access control.
    Refused(Box<RefusedCall>),
    /// A module has decided something of your client.
    Decided {
        client: ClientId,
    },
    /// This client watches none of your keys any more.
    Unwatch {
        client: ClientId,
    },
    /// Take another turn, in which you look at your clients' requests, and tell me.
    Look {
        number: u64,
    },
    /// Back: that turn is over.
    Looked {
        number: u64,
    },
}
const _: () = assert!(size_of::<Message>() <= 48);

/// About the effect stream and the replicas that read it.
pub enum StreamMessage {
    /// There is more of the stream for the replicas that you serve.
    Grown,
    /// This full synchronization has begun, at this offset.
    Synced { number: u64, offset: u64 },
    /// To all shards: the stream has a gap, and those that have begun to read it cannot go on. It has ended for the full
    /// synchronizations up to this one.
    Lost { last_number: u64 },
    /// To all shards: nobody reads the stream any more, which has begun with the synchronizations up to this one.
    Ended { last_number: u64 },
    /// To the merging shard: a replica wants to be synchronized.
    Asked,
    /// To the merging shard: a replica that has the whole data set reads the stream.
    Online,
    /// To the merging shard: a replica has left.
    Left,
    /// To the merging shard: how long is the stream with all batches before this one? A client of the sender's waits for
    /// replicas that have so much.
    AskPosition { home: u32, reply_id: ReplyId, seq: u64 },
    /// Back.
    Position { reply_id: ReplyId, offset: u64 },
    /// A replica has acknowledged something, and your clients wait for that.
    Acknowledged,
}

/// Identifies a reply that is awaited: a connection of the sender's, and the place in its queue of replies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplyId {
    pub conn: u32,
    /// Tells the connection from a later one at the same index.
    pub generation: u32,
    pub place: u64,
}

impl ReplyId {
    /// No connection awaits the reply: the server itself has called, or a task of a program.
    pub const NOBODY: ReplyId = ReplyId { conn: u32::MAX, generation: 0, place: 0 };
}

/// One command of a [`Batch`].
pub struct BatchedCommand {
    pub reply_id: ReplyId,
    pub call: Call,
    /// Its arguments: a range of the batch's `ranges`.
    pub args: std::ops::Range<u32>,
    pub exec: Option<BatchedExec>,
}

/// What an EXEC in a [`Batch`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchedExec {
    /// How many commands it runs. They follow it in the batch, and have no replies of their own.
    pub len: u32,
    /// Its client watches keys.
    pub watches: bool,
}

/// Commands with their arguments; on the way back, in the same allocation, their replies. Its header is two cache lines.
#[derive(Default)]
#[repr(align(64))]
pub struct Batch {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
    pub commands: Vec<BatchedCommand>,
    /// The replies, concatenated.
    pub replies: Vec<u8>,
    /// Which reply each is, and where it ends in `replies`.
    pub answered: Vec<(ReplyId, usize)>,
    /// When the batch left, on the sender's monotonic clock.
    pub sent_at_nanos: u64,
}

const _: () = assert!(size_of::<Batch>() <= 2 * CACHE_LINE);

/// A batch is sent before the end of the turn when its arguments or replies have this many bytes.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most bytes between two arguments of a request: `\r\n$536870912\r\n`.
const ARG_GAP_BYTES_MAX: usize = 14;

/// If the arguments follow each other closely in their buffer, as in a request: where the first begins, and all bytes
/// from there to the end of the last, which can then be copied at once.
#[inline]
fn dense_span(args: Argv<'_>) -> Option<(u32, &[u8])> {
    let start = args.ranges().first()?.start;
    let mut end = start as usize;
    for range in args.ranges() {
        let begin = range.start as usize;
        if begin < end || begin > end + ARG_GAP_BYTES_MAX {
            return None;
        }
        end = begin + range.len as usize;
    }
    Some((start, args.bytes().get(start as usize..end)?))
}

/// The bytes from the first argument to the last, which lie in this order, and where they begin.
#[inline]
fn span(args: Argv<'_>) -> Option<(u32, &[u8])> {
    let (first, last) = (args.ranges().first()?, args.ranges().last()?);
    let end = last.start as usize + last.len as usize;
    Some((first.start, args.bytes().get(first.start as usize..end)?))
}

const CACHE_LINE: usize = 64;

/// How much of a batch's commands is prefetched. The processor recognises the sequential access and fetches the rest.
const PREFETCH_BYTES_MAX: usize = 8 * CACHE_LINE;

impl Batch {
    /// Whether arguments of this many bytes can be added: offsets have 32 bits.
    #[inline]
    pub fn has_room(&self, args_len_bytes: usize) -> bool {
        self.bytes.len() + args_len_bytes <= u32::MAX as usize
    }

    /// Adds a command, for which there must be [room](Self::has_room).
    pub fn push(&mut self, reply_id: ReplyId, call: Call, args: Argv<'_>) {
        self.push_spanned(reply_id, &call, call.command, call.hash, args, dense_span(args));
    }

    /// Adds a request as it was received, whose arguments lie in order. Its call is `alike` but for command and hash. These
    /// go straight to their places: to put them into a copy first, and copy that, would have the processor wait until the
    /// two small writes are in its cache.
    #[inline]
    pub fn push_request(
        &mut self,
        reply_id: ReplyId,
        alike: &Call,
        command: CommandId,
        hash: u64,
        args: Argv<'_>,
    ) {
        debug_assert!(args.ranges().windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start));
        self.push_spanned(reply_id, alike, command, hash, args, span(args));
    }

    #[inline(always)]
    fn push_spanned(
        &mut self,
        reply_id: ReplyId,
        alike: &Call,
        command: CommandId,
        hash: u64,
        args: Argv<'_>,
        span: Option<(u32, &[u8])>,
    ) {
        debug_assert!(self.has_room(args.bytes().len()));
        let first = self.ranges.len() as u32;
        if let Some((start, span)) = span {
            let offset = self.bytes.len() as u32;
            let moved = |range: &ArgRange| ArgRange { start: range.start - start + offset, len: range.len };
            self.ranges.extend(args.ranges().iter().map(moved));
            self.bytes.extend_from_slice(span);
        } else {
            for arg in args.iter() {
                self.ranges.push(ArgRange { start: self.bytes.len() as u32, len: arg.len() as u32 });
                self.bytes.extend_from_slice(arg);
            }
        }
        let args = first..self.ranges.len() as u32;
        let call = Call {
            command,
            hash,
            db: alike.db,
            resp: alike.resp,
            no_touch: alike.no_touch,
            in_exec: alike.in_exec,
            in_script: alike.in_script,
            has_named_user: alike.has_named_user,
            tracks: alike.tracks,
            client: alike.client,
            home: alike.home,
            hashed_arg: alike.hashed_arg,
            upper_letters: alike.upper_letters,
        };
        self.commands.push(BatchedCommand { reply_id, call, args, exec: None });
    }

    /// Adds an EXEC with the commands that it runs.
    pub fn push_exec(&mut self, reply_id: ReplyId, call: Call, queue: &Queue, watches: bool) {
        let (offset, mut start) = (self.bytes.len() as u32, self.ranges.len() as u32);
        let exec = Some(BatchedExec { len: queue.len() as u32, watches });
        self.commands.push(BatchedCommand { reply_id, call, args: start..start, exec });
        let all = queue.all_args();
        self.bytes.extend_from_slice(all.bytes());
        let moved = all.ranges().iter().map(|range| ArgRange { start: offset + range.start, len: range.len });
        self.ranges.extend(moved);
        for (call, args) in queue.calls() {
            let end = start + args.len() as u32;
            self.commands.push(BatchedCommand { reply_id, call: *call, args: start..end, exec: None });
            start = end;
        }
    }

    pub fn args(&self, range: &std::ops::Range<u32>) -> Argv<'_> {
        Argv::new(&self.bytes, &self.ranges[range.start as usize..range.end as usize])
    }

    /// Some of the batch's commands, which have been taken out of it, with their arguments.
    pub fn calls<'a>(
        &'a self,
        commands: &'a [BatchedCommand],
    ) -> impl Iterator<Item = (&'a Call, Argv<'a>)> + Clone {
        commands.iter().map(|command| (&command.call, self.args(&command.args)))
    }

    /// First step of reading several batches: prefetches this one's header.
    #[inline]
    pub fn prefetch_header(self: &Box<Batch>) {
        let header: *const Batch = &raw const **self;
        (0..size_of::<Batch>())
            .step_by(CACHE_LINE)
            .for_each(|at| prefetch(header.cast::<u8>().wrapping_add(at)));
    }

    /// Second step: prefetches the beginnings of its commands and replies, which another core has written.
    #[inline]
    pub fn prefetch_contents(&self) {
        let len_bytes = size_of_val(&self.commands[..]).min(PREFETCH_BYTES_MAX);
        let commands = self.commands.as_ptr().cast::<u8>();
        (0..len_bytes).step_by(CACHE_LINE).for_each(|at| prefetch(commands.wrapping_add(at)));
        if !self.commands.is_empty() {
            prefetch(self.bytes.as_ptr());
            prefetch(self.ranges.as_ptr().cast());
        }
        if !self.answered.is_empty() {
            prefetch(self.answered.as_ptr().cast());
            prefetch(self.replies.as_ptr());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.answered.is_empty()
    }

    pub fn args_len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes commands and arguments, and keeps the replies.
    pub fn clear_commands(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
        self.commands.clear();
    }

    /// Empties the batch for reuse. An oversized buffer is not kept.
    pub fn clear(&mut self) {
        self.clear_commands();
        self.replies.clear();
        self.answered.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        if self.replies.capacity() > KEPT_BYTES_MAX {
            self.replies = Vec::new();
        }
    }
}

/// The TCP sockets that the server listens on.
#[derive(Default)]
pub struct Listeners {
    pub tcp: Vec<OwnedFd>,
    /// Those on `tls-port`.
    pub tls: Vec<OwnedFd>,
}

/// An accepted connection on its way to the shard that will serve it.
pub struct NewConnection {
    pub fd: OwnedFd,
    pub addr: String,
    pub laddr: String,
    pub unix_socket: bool,
    /// The peer is to speak TLS.
    pub tls: bool,
    /// It is served one reply, that protected mode refuses it.
    pub is_denied: bool,
    /// It is the server's own: see `worker/feed`.
    pub is_server: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    #[test]
    fn arguments_arrive_whole_however_they_lay_in_the_request() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n and much else before the last word";
        let range = |start, len| ArgRange { start, len };
        let last = bytes.len() as u32 - 4;
        let layouts: [(&[ArgRange], &[&str]); 5] = [
            (&[range(8, 3), range(17, 1), range(24, 5)], &["SET", "k", "value"]),
            (&[range(8, 3), range(24, 5)], &["SET", "value"]),
            (&[range(24, 5), range(8, 3)], &["value", "SET"]),
            (&[range(8, 3), range(last, 4)], &["SET", "word"]),
            (&[range(17, 1), range(18, 0), range(17, 1)], &["k", "", "k"]),
        ];
        let call = Call::default();
        let reply_id = ReplyId { conn: 0, generation: 0, place: 0 };
        let mut batch = Batch::default();
        for (ranges, _) in layouts {
            batch.push(reply_id, call, Argv::new(bytes, ranges));
        }
        for (command, (_, words)) in batch.commands.iter().zip(layouts) {
            let args: Vec<&[u8]> = batch.args(&command.args).iter().collect();
            assert_eq!(args, words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_has_room_for_as_many_bytes_as_its_offsets_reach() {
        let mut batch = Batch::default();
        let len_max = u32::MAX as usize;
        assert!(batch.has_room(len_max));
        let args = OwnedArgv::from_slices(&[&b"GET"[..], b"key"]);
        let len = args.as_argv().iter().map(<[u8]>::len).sum::<usize>();
        batch.push(ReplyId { conn: 0, generation: 0, place: 0 }, Call::default(), args.as_argv());
        assert!(batch.has_room(len_max - len));
        assert!(!batch.has_room(len_max - len + 1));
    }
}
