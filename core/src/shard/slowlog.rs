//! The slow log of one shard: the commands that ran here for longer than slowlog-log-slower-than.

use crate::protocol::Argv;
use std::collections::VecDeque;

/// An entry keeps at most this many arguments, and this much of each, as in Redis.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

#[derive(Clone, PartialEq, Debug)]
pub struct SlowLogEntry {
    /// Unique in the process, ascending.
    pub id: u64,
    /// When it ran, unix time in seconds.
    pub at_s: i64,
    /// Time in the handler, without the time for which it was blocked or queued.
    pub micros: u64,
    pub args: Vec<Vec<u8>>,
    pub client_addr: String,
    pub client_name: Vec<u8>,
}

/// What is shown in the place of a secret argument.
pub const REDACTED: &[u8] = b"(redacted)";

impl SlowLogEntry {
    /// Copies the arguments. Long ones are shortened and secret ones redacted, with Redis' texts.
    pub fn new(id: u64, at_s: i64, micros: u64, args: Argv<'_>, secrets: &[usize]) -> SlowLogEntry {
        let kept = args.len().min(ARGS_MAX);
        let args: Vec<Vec<u8>> = (0..kept)
            .map(|at| {
                if at == ARGS_MAX - 1 && args.len() > ARGS_MAX {
                    return format!("... ({} more arguments)", args.len() - ARGS_MAX + 1).into_bytes();
                }
                if secrets.contains(&at) {
                    return REDACTED.to_vec();
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
        SlowLogEntry { id, at_s, micros, args, client_addr: String::new(), client_name: Vec::new() }
    }
}

/// The entries, newest first.
pub struct SlowLog {
    entries: VecDeque<SlowLogEntry>,
    len_max: usize,
}

impl SlowLog {
    pub fn new(len_max: usize) -> SlowLog {
        SlowLog { entries: VecDeque::new(), len_max }
    }

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

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn entry(args: &[&str], secrets: &[usize]) -> SlowLogEntry {
        SlowLogEntry::new(0, 0, 0, OwnedArgv::from_slices(args).as_argv(), secrets)
    }

    #[test]
    fn long_arguments_and_long_lists_of_them_are_shortened() {
        let mut args = vec!["SET".to_string(), "x".repeat(130)];
        args.extend((0..40).map(|n| n.to_string()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();

        let entry = entry(&args, &[]);

        assert_eq!(entry.args.len(), ARGS_MAX);
        assert_eq!(entry.args[1], format!("{}... (2 more bytes)", "x".repeat(128)).into_bytes());
        assert_eq!(entry.args[31], b"... (11 more arguments)");
    }

    #[test]
    fn secrets_are_not_kept() {
        assert_eq!(entry(&["AUTH", "me", "pw"], &[1, 2]).args, [&b"AUTH"[..], b"(redacted)", b"(redacted)"]);
    }

    #[test]
    fn the_log_keeps_the_newest() {
        let mut log = SlowLog::new(2);
        (0..5).for_each(|id| log.push(SlowLogEntry { id, ..entry(&["PING"], &[]) }));
        assert_eq!(log.iter().map(|entry| entry.id).collect::<Vec<_>>(), [4, 3]);
        log.set_len_max(1);
        assert_eq!(log.len(), 1);
    }
}
