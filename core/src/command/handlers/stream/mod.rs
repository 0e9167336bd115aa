//! Stream commands: rows and their functions, a file for each kind of work.

mod add;
mod claim;
mod group;
mod ids;
mod info;
mod pending;
mod range;
mod read;
pub mod trim;

use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::Command;
use crate::command::typed::stream_of;
use crate::command::{Call, CommandError, CommandResult, Ctx, Key};
use crate::protocol::Reply;
use crate::shard::Shard;
use crate::types::listpack::Item;
use crate::types::stream::{Entry, Group, Stream, StreamId};

pub const COMMANDS: &[Command] = &[
    add::XADD,
    add::XDEL,
    add::XSETID,
    claim::XAUTOCLAIM,
    claim::XCLAIM,
    group::XGROUP,
    info::XINFO,
    pending::XACK,
    pending::XPENDING,
    range::XLEN,
    range::XRANGE,
    range::XREVRANGE,
    read::XREAD,
    read::XREADGROUP,
    trim::XTRIM,
];

const READ: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];
const UPDATE: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)];
const DELETE: &[KeySpec] = &[KeySpec::one(1, key_flag::RW | key_flag::DELETE)];

/// Looks up a stream to read. `None`: there is no such key.
fn read<'a>(shard: &'a mut Shard, call: &Call, key: Key<'_>) -> CommandResult<Option<&'a Stream>> {
    match shard.lookup_read(call, key) {
        Some(entry) => stream_of(entry.value()).map(Some),
        None => Ok(None),
    }
}

/// Looks up a stream that has a group of this name.
///
/// # Errors
/// WRONGTYPE; NOGROUP.
fn read_group<'a>(
    shard: &'a mut Shard,
    call: &Call,
    key: Key<'_>,
    group: &[u8],
) -> CommandResult<(&'a Stream, &'a Group)> {
    let stream = read(shard, call, key)?;
    let found = stream.and_then(|stream| stream.groups.get(group).map(|found| (stream, found)));
    found.ok_or_else(|| {
        let text = ["NOGROUP No such key '", "' or consumer group '", "'"];
        CommandError::quoting_two(text, [key.bytes, group])
    })
}

fn reply_id(reply: &mut Reply<'_>, id: StreamId) {
    reply.bulk(id.text().as_bytes());
}

#[inline]
fn reply_item(reply: &mut Reply<'_>, item: Item<'_>) {
    match item {
        Item::Int(number) => reply.bulk_i64(number),
        Item::Str(bytes) => reply.bulk(bytes),
    }
}

/// An entry: array of its ID, and an array of its fields' names and values in turn.
#[inline]
fn reply_entry(reply: &mut Reply<'_>, entry: &Entry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(2 * entry.field_count());
    for (name, value) in entry.fields() {
        reply_item(reply, name);
        reply_item(reply, value);
    }
}

/// Entries, up to `count` of them (`None`: all). Returns how many they were.
fn reply_entries<'a>(
    reply: &mut Reply<'_>,
    entries: impl Iterator<Item = Entry<'a>>,
    count: Option<u64>,
    about: u64,
) -> u64 {
    let about = count.unwrap_or(u64::MAX).min(about);
    let mark = reply.begin_about(about as usize);
    let mut replied = 0;
    for entry in entries.take(count.map_or(usize::MAX, |count| count as usize)) {
        reply_entry(reply, &entry);
        replied += 1;
    }
    reply.end_array(mark, replied as usize);
    replied
}

/// Records the effect that sets how far a group has read.
fn record_group_id(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    group: &[u8],
    last_id: StreamId,
    entries_read: Option<i64>,
) {
    let mut digits = itoa::Buffer::new();
    let entries_read = digits.format(entries_read.unwrap_or(-1)).as_bytes();
    let last_id = last_id.text();
    ctx.effect(&[b"XGROUP", b"SETID", key.bytes, group, last_id.as_bytes(), b"ENTRIESREAD", entries_read]);
}
