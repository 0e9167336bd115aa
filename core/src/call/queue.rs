//! Queues of commands: those that are queued after MULTI, and those that a transaction runs on a shard.
//!
//! All arguments are ranges of one buffer, so that queueing a command takes two copies, and a reused queue allocates
//! nothing.

use crate::call::Call;
use crate::protocol::{ArgRange, Argv};

/// A command of a [`Queue`].
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    pub call: Call,
    /// Its place in the transaction, of which this queue may hold only some commands.
    pub place: u32,
    /// In a shard's batch of a transaction: how many of the batch's key hashes belong to this command.
    pub hash_count: u32,
    /// Where its arguments end in the queue's ranges; they begin where those of the previous command end.
    end: u32,
}

/// Commands in order, with their arguments.
#[derive(Clone, Default, Debug)]
pub struct Queue {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
    commands: Vec<Queued>,
}

/// A buffer bigger than this is not kept for reuse.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

impl Queue {
    /// Appends a command. The queue's bytes stay below 4 GiB: see [`Queue::has_room`].
    pub fn push(&mut self, call: Call, place: u32, args: Argv<'_>) {
        // The request is copied as it was received, with the bytes between its arguments: one copy is cheaper than
        // many.
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(args.bytes());
        self.ranges.extend(
            args.ranges().iter().map(|range| ArgRange { start: offset + range.start, len: range.len }),
        );
        self.commands.push(Queued { call, place, hash_count: 0, end: self.ranges.len() as u32 });
    }

    /// Appends a command whose arguments are far apart in their buffer.
    pub fn push_args(&mut self, call: Call, place: u32, args: Argv<'_>) {
        self.begin(call, place);
        args.iter().for_each(|arg| self.push_arg(arg));
    }

    /// Begins a command whose arguments follow by [`Queue::push_arg`].
    pub fn begin(&mut self, call: Call, place: u32) {
        self.commands.push(Queued { call, place, hash_count: 0, end: self.ranges.len() as u32 });
    }

    /// Appends an argument to the last command.
    pub fn push_arg(&mut self, arg: &[u8]) {
        self.ranges.push(ArgRange { start: self.bytes.len() as u32, len: arg.len() as u32 });
        self.bytes.extend_from_slice(arg);
        self.end_last();
    }

    /// Appends arguments to the last command, in one copy: they must be in order with little between them, as in a
    /// request.
    #[inline]
    pub fn push_span(&mut self, args: Argv<'_>) {
        let [first, .., last] = args.ranges() else {
            args.iter().for_each(|arg| self.push_arg(arg));
            return;
        };
        let (start, offset) = (first.start, self.bytes.len() as u32);
        self.bytes.extend_from_slice(&args.bytes()[start as usize..(last.start + last.len) as usize]);
        let moved =
            args.ranges().iter().map(|range| ArgRange { start: offset + (range.start - start), ..*range });
        self.ranges.extend(moved);
        self.end_last();
    }

    /// Appends the command `at` of another queue.
    pub fn push_from(&mut self, other: &Queue, at: usize) {
        let queued = &other.commands[at];
        self.begin(queued.call, queued.place);
        self.push_span(other.args(at));
    }

    fn end_last(&mut self) {
        let last = self.commands.last_mut().expect("a command was begun");
        last.end = self.ranges.len() as u32;
    }

    /// Whether a request of this many bytes can be queued.
    pub fn has_room(&self, request_len_bytes: usize) -> bool {
        u32::try_from(self.bytes.len() + request_len_bytes).is_ok()
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The commands, without their arguments.
    pub fn commands(&self) -> &[Queued] {
        &self.commands
    }

    pub fn commands_mut(&mut self) -> &mut [Queued] {
        &mut self.commands
    }

    /// The arguments of command `at`.
    pub fn args(&self, at: usize) -> Argv<'_> {
        let start = if at == 0 { 0 } else { self.commands[at - 1].end };
        Argv::new(&self.bytes, &self.ranges[start as usize..self.commands[at].end as usize])
    }

    /// The commands with their arguments, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Queued, Argv<'_>)> {
        let mut start = 0;
        self.commands.iter().map(move |queued| {
            let ranges = &self.ranges[start..queued.end as usize];
            start = queued.end as usize;
            (queued, Argv::new(&self.bytes, ranges))
        })
    }

    /// The calls with their arguments, in order.
    pub fn calls(&self) -> impl Iterator<Item = (&Call, Argv<'_>)> {
        self.iter().map(|(queued, args)| (&queued.call, args))
    }

    /// All arguments, and the buffer that contains them.
    pub fn all_args(&self) -> Argv<'_> {
        Argv::new(&self.bytes, &self.ranges)
    }

    /// Empties the queue. Its memory is kept for reuse, unless that is more than [`KEPT_BYTES_MAX`].
    pub fn clear(&mut self) {
        if self.heap_len_bytes() > KEPT_BYTES_MAX {
            *self = Queue::default();
            return;
        }
        self.bytes.clear();
        self.ranges.clear();
        self.commands.clear();
    }

    /// Bytes of the arguments, with those between them.
    pub fn args_len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its heap bytes, for memory accounting.
    pub fn heap_len_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.ranges.capacity() * size_of::<ArgRange>()
            + self.commands.capacity() * size_of::<Queued>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn words(args: Argv<'_>) -> Vec<String> {
        args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn commands_come_out_as_they_went_in() {
        let request = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
        let ranges = [ArgRange { start: 8, len: 3 }, ArgRange { start: 17, len: 1 }];
        let mut queue = Queue::default();
        queue.push(Call::default(), 0, Argv::new(request, &ranges));
        queue.begin(Call::default(), 7);
        ["MSET", "k", ""].iter().for_each(|arg| queue.push_arg(arg.as_bytes()));
        queue.push(Call::default(), 8, OwnedArgv::from_slices(&["PING"]).as_argv());

        let all: Vec<_> = queue.iter().map(|(queued, args)| (queued.place, words(args))).collect();

        let expected = [(0, vec!["GET", "a"]), (7, vec!["MSET", "k", ""]), (8, vec!["PING"])];
        assert_eq!(all.len(), expected.len());
        for ((place, args), (expected_place, expected_args)) in all.iter().zip(&expected) {
            assert_eq!(
                (place, args.iter().map(String::as_str).collect()),
                (expected_place, expected_args.clone())
            );
        }
        assert_eq!(words(queue.args(1)), ["MSET", "k", ""]);
    }

    #[test]
    fn spans_of_arguments_are_copied_with_the_bytes_between_them() {
        let request = b"*4\r\n$4\r\nMSET\r\n$1\r\na\r\n$3\r\none\r\n$0\r\n\r\n";
        let ranges = [(8, 4), (18, 1), (25, 3), (34, 0)].map(|(start, len)| ArgRange { start, len });
        let args = Argv::new(request, &ranges);
        let mut queue = Queue::default();
        queue.push(Call::default(), 3, Argv::new(b"PING", &[ArgRange { start: 0, len: 4 }]));
        queue.begin(Call::default(), 4);
        queue.push_span(args.slice(..1));
        queue.push_span(args.slice(2..));
        let mut other = Queue::default();
        other.push(Call::default(), 0, args);
        queue.push_from(&other, 0);

        assert_eq!(words(queue.args(1)), ["MSET", "one", ""]);
        assert_eq!(words(queue.args(2)), ["MSET", "a", "one", ""]);
        assert_eq!(queue.commands().iter().map(|queued| queued.place).collect::<Vec<_>>(), [3, 4, 0]);
    }

    #[test]
    fn clearing_keeps_memory_for_reuse_unless_it_is_oversized() {
        let mut queue = Queue::default();
        queue.begin(Call::default(), 0);
        queue.push_arg(b"GET");
        let room = queue.heap_len_bytes();
        queue.clear();
        assert!(queue.is_empty() && queue.heap_len_bytes() == room);

        queue.begin(Call::default(), 0);
        queue.push_arg(&vec![0; KEPT_BYTES_MAX]);
        queue.clear();
        assert_eq!(queue.heap_len_bytes(), 0);
    }
}
