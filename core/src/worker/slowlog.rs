//! The slow log of one shard: what ran here for longer than slowlog-log-slower-than.

use crate::protocol::Argv;
use std::collections::VecDeque;

/// An entry keeps at most this many arguments, and this much of each, as in Redis.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

#[derive(Clone, Debug)]
pub struct SlowLogEntry {
    /// Unique in the process, ascending.
    pub id: u64,
    /// When it ran, unix time in seconds.
    pub at_s: i64,
    /// Time in the handler, without waiting.
    pub micros: u64,
    pub args: Vec<Vec<u8>>,
    pub client_addr: String,
    pub client_name: Vec<u8>,
}

impl SlowLogEntry {
    /// Copies the arguments, shortened with Redis' words where they are long.
    pub fn new(
        id: u64,
        at_s: i64,
        micros: u64,
        args: Argv<'_>,
        client_addr: String,
        client_name: Vec<u8>,
    ) -> SlowLogEntry {
        let kept = args.len().min(ARGS_MAX);
        let args = (0..kept)
            .map(|at| {
                if at == ARGS_MAX - 1 && args.len() > ARGS_MAX {
                    return format!("... ({} more arguments)", args.len() - ARGS_MAX + 1).into_bytes();
                }
                let arg = args.arg(at);
                if arg.len() <= ARG_BYTES_MAX {
                    return arg.to_vec();
                }
                let mut short = arg[..ARG_BYTES_MAX].to_vec();
                short.extend_from_slice(format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX).as_bytes());
                short
            })
            .collect();
        SlowLogEntry { id, at_s, micros, args, client_addr, client_name }
    }
}

/// Newest first.
#[derive(Default)]
pub struct SlowLog {
    entries: VecDeque<SlowLogEntry>,
    len_max: usize,
}

impl SlowLog {
    pub fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
        self.entries.truncate(len_max);
    }

    pub fn push(&mut self, entry: SlowLogEntry) {
        self.entries.push_front(entry);
        self.entries.truncate(self.len_max);
    }

    pub fn iter(&self) -> impl Iterator<Item = &SlowLogEntry> {
        self.entries.iter()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
