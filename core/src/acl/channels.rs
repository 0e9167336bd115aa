//! Which arguments of a command are channels.

use crate::command::table::{CommandEntry, flag};
use std::ops::Range;

/// The arguments that are channels to publish to or to subscribe to.
pub struct ChannelArgs {
    pub positions: Range<usize>,
    /// They are patterns of channels.
    pub are_patterns: bool,
}

/// The channels of a request of `len` arguments. Whoever unsubscribes needs no right to.
pub fn of_request(entry: &CommandEntry, len: usize) -> Option<ChannelArgs> {
    if !entry.row.has(flag::PUBSUB) {
        return None;
    }
    let (end, are_patterns) = match entry.full_name.as_str() {
        "publish" | "spublish" => (len.min(2), false),
        "subscribe" | "ssubscribe" => (len, false),
        "psubscribe" => (len, true),
        _ => return None,
    };
    Some(ChannelArgs { positions: 1..end, are_patterns })
}
