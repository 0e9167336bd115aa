//! Which arguments of a command are channels.

use crate::command::keys::ChannelPositions;
use crate::command::table::{CommandEntry, flag};
use crate::protocol::Argv;

/// The channels of a request. Whoever unsubscribes needs no right to.
pub fn of_request(entry: &CommandEntry, args: Argv<'_>) -> ChannelPositions {
    let mut found = ChannelPositions::new();
    if let Some(find_channels) = entry.row.find_channels {
        find_channels(args, &mut found);
    }
    if entry.row.has(flag::PUBSUB) {
        let len = args.len();
        let (end, are_patterns) = match entry.full_name.as_str() {
            "publish" | "spublish" => (len.min(2), false),
            "subscribe" | "ssubscribe" => (len, false),
            "psubscribe" => (len, true),
            _ => (1, false),
        };
        found.extend((1..end).map(|at| (at, are_patterns)));
    }
    found
}
