//! Merges the replies of several shards into one.

use crate::command::placement::RoutedKey;
use crate::command::table::{CommandEntry, Merge};
use crate::protocol::number::parse_i64;
use crate::protocol::skip::{Elements, skip_reply, split_array};
use crate::protocol::{Argv, Reply, Resp};
use smallvec::SmallVec;

/// Merges the replies of `shards`, in their order, by the rule of the command's row, and appends the result to `out`.
/// If there are errors among them, the first one is the reply, whatever the rule. `keys`: those of the command.
pub fn merge(
    entry: &CommandEntry,
    args: Argv<'_>,
    shards: &[u16],
    keys: &[RoutedKey],
    replies: &[&[u8]],
    out: &mut Vec<u8>,
) {
    if let Some(error) = replies.iter().find(|reply| reply.first() == Some(&b'-')) {
        out.extend_from_slice(error);
        return;
    }
    match entry.row.merge {
        Merge::Sum => {
            let sum: i64 = replies.iter().map(|reply| integer(reply)).sum();
            Reply::new(out, Resp::V2).integer(sum);
        }
        Merge::AllOk => out.extend_from_slice(replies[0]),
        Merge::Gather => {
            let mut left: SmallVec<[_; 8]> = replies.iter().map(|reply| elements(reply)).collect();
            Reply::new(out, Resp::V2).array(left.iter().map(Elements::left).sum());
            for key in keys {
                let place = shards.iter().position(|&shard| shard == key.shard);
                let place = place.expect("a key's shard takes part");
                out.extend_from_slice(left[place].next().expect("an element for every key"));
            }
        }
        Merge::ConcatArrays => {
            let count = replies.iter().map(|reply| elements(reply).left()).sum();
            Reply::new(out, Resp::V2).array(count);
            for reply in replies {
                elements(reply).for_each(|element| out.extend_from_slice(element));
            }
        }
        Merge::With(rule) => rule(replies, args, out),
        Merge::CheckOut => {
            debug_assert_eq!(skip_reply(replies[0]), Some(replies[0].len()));
            out.extend_from_slice(replies[0]);
        }
    }
}

/// The elements of an array reply.
fn elements(reply: &[u8]) -> Elements<'_> {
    split_array(reply).expect("a gathered command replies with an array")
}

/// The value of an integer reply.
fn integer(reply: &[u8]) -> i64 {
    let digits = reply.strip_prefix(b":").and_then(|rest| rest.strip_suffix(b"\r\n"));
    digits.and_then(parse_i64).expect("a summed command replies with an integer")
}
