//! Streams: the listpacks of their nodes, and their consumer groups.
//!
//! ```text
//! nodes { ID of the first entry (a string of 16 bytes), listpack }
//! length, last ID                                      an ID is two lengths: milliseconds and sequence number
//! first ID, greatest deleted ID, entries added         from the second version on
//! groups { name, last ID, entries read (from the second version on)
//!          pending { ID (16 bytes), delivered at (ms), deliveries }
//!          consumers { name, seen at (ms), active at (ms, from the third version on)
//!                      pending { ID (16 bytes) } } }
//! ```
//!
//! The second version is written, as Redis 7.0 does.

use super::ValueKind;
use super::packed::sound_listpack;
use super::read::{ReadError, ReadResult, Reader};
use super::write::Writer;
use crate::types::stream::{ConsumerHead, Counters, GroupHead, GroupMut, NodeRef, Pending, Stream, StreamId};
use crate::types::{Object, OwnedValue};
use std::collections::BTreeMap;

/// Reads a stream.
///
/// # Errors
/// Damage.
pub fn read_stream(reader: &mut Reader<'_>, kind: ValueKind) -> ReadResult<OwnedValue> {
    let has_counters = kind != ValueKind::Stream;
    let mut stream = Stream::default();
    for _ in 0..reader.length()? {
        let offset = reader.offset();
        let key = reader.string()?.into_vec()?;
        let key = key.try_into().map_err(|_| ReadError::Damaged {
            offset,
            what: "Stream node key entry is not the size of a stream ID",
        })?;
        let offset = reader.offset();
        const UNSOUND: &str = "Stream listpack integrity check failed.";
        let bytes = sound_listpack(reader.string()?.into_vec()?, offset, UNSOUND)?;
        stream
            .log
            .push_node(StreamId::from_bytes(key), bytes, true)
            .map_err(|_| ReadError::Damaged { offset, what: UNSOUND })?;
    }
    if reader.length()? != stream.log.len() {
        return Err(reader.damaged("Stream length inconsistent with the number of valid entries"));
    }
    // As Redis, it takes a stream whose last ID is less than that of its last entry; but what is added later must be behind
    // that.
    let last_entry_id = stream.log.last().map_or(StreamId::MIN, |entry| entry.id);
    stream.log.last_id = read_id(reader)?.max(last_entry_id);
    stream.log.entries_added = stream.log.len();
    if has_counters {
        // The first ID is that of the first entry.
        read_id(reader)?;
        stream.log.max_deleted_id = read_id(reader)?;
        stream.log.entries_added = reader.length()?;
    }
    for _ in 0..reader.length()? {
        read_group(reader, kind, &mut stream)?;
    }
    Ok(OwnedValue::Object(Box::new(Object::Stream(stream))))
}

/// An ID that is written as two lengths.
fn read_id(reader: &mut Reader<'_>) -> ReadResult<StreamId> {
    Ok(StreamId { ms: reader.length()?, seq: reader.length()? })
}

/// An ID in 16 bytes.
fn read_raw_id(reader: &mut Reader<'_>) -> ReadResult<StreamId> {
    let bytes = reader.take(size_of::<StreamId>())?;
    Ok(StreamId::from_bytes(bytes.try_into().expect("so many were taken")))
}

fn read_group(reader: &mut Reader<'_>, kind: ValueKind, stream: &mut Stream) -> ReadResult<()> {
    let mut unpacked = Vec::new();
    let name = reader.bytes(&mut unpacked)?;
    let last_id = read_id(reader)?;
    let entries_read = match kind {
        ValueKind::Stream => stream.log.count_up_to(last_id),
        // Minus one means that it is not known.
        _ => Some(reader.length()? as i64).filter(|&count| count != -1),
    };
    let Some(mut group) = stream.groups.create(name, last_id, entries_read) else {
        return Err(reader.damaged("Duplicated consumer group name"));
    };
    let mut pending = BTreeMap::new();
    for _ in 0..reader.length()? {
        let id = read_raw_id(reader)?;
        let delivery = (reader.milliseconds()?, reader.length()?);
        if pending.insert(id, delivery).is_some() {
            return Err(reader.damaged("Duplicated global PEL entry loading stream consumer group"));
        }
    }
    for _ in 0..reader.length()? {
        read_consumer(reader, kind, &mut group, &mut pending)?;
    }
    if pending.is_empty() { Ok(()) } else { Err(reader.damaged("Stream CG PEL entry without consumer")) }
}

/// `pending`: the entries of the group whose consumers have not come yet, with time and number of deliveries.
fn read_consumer(
    reader: &mut Reader<'_>,
    kind: ValueKind,
    group: &mut GroupMut<'_>,
    pending: &mut BTreeMap<StreamId, (i64, u64)>,
) -> ReadResult<()> {
    let mut unpacked = Vec::new();
    let name = reader.bytes(&mut unpacked)?;
    let seen_time_ms = reader.milliseconds()?;
    if kind == ValueKind::Stream3 {
        // The time of its last success is not kept.
        reader.milliseconds()?;
    }
    let Some(consumer) = group.create_consumer(name, seen_time_ms) else {
        return Err(reader.damaged("Duplicate stream consumer detected."));
    };
    for _ in 0..reader.length()? {
        let id = read_raw_id(reader)?;
        let Some((delivery_time_ms, delivery_count)) = pending.remove(&id) else {
            return Err(reader.damaged("Consumer entry not found in group global PEL"));
        };
        group.set_pending(id, Pending { consumer, delivery_time_ms, delivery_count });
    }
    Ok(())
}

pub(super) fn write_node(writer: &mut Writer<'_>, key: StreamId, node: NodeRef<'_>) {
    writer.string(&key.to_bytes());
    writer.string(node.as_bytes());
}

/// Writes what follows the nodes and precedes the groups.
pub(super) fn write_counters(writer: &mut Writer<'_>, counters: Counters, group_count: usize) {
    let Counters { len, first_id, last_id, max_deleted_id, entries_added } = counters;
    writer.length(len);
    write_id(writer, last_id);
    write_id(writer, first_id);
    write_id(writer, max_deleted_id);
    writer.length(entries_added);
    writer.length(group_count as u64);
}

/// Writes what precedes the pending entries of a group.
pub(super) fn write_group(writer: &mut Writer<'_>, group: &GroupHead) {
    writer.string(&group.name);
    write_id(writer, group.last_id);
    writer.length(group.entries_read.unwrap_or(-1) as u64);
    writer.length(group.pending_count as u64);
}

pub(super) fn write_pending(writer: &mut Writer<'_>, some: &[(StreamId, Pending)]) {
    for (id, pending) in some {
        writer.bytes(&id.to_bytes());
        writer.milliseconds(pending.delivery_time_ms);
        writer.length(pending.delivery_count);
    }
}

/// Writes what precedes the pending entries of a consumer.
pub(super) fn write_consumer(writer: &mut Writer<'_>, consumer: &ConsumerHead) {
    writer.string(&consumer.name);
    writer.milliseconds(consumer.seen_time_ms);
    writer.length(consumer.pending_count as u64);
}

fn write_id(writer: &mut Writer<'_>, id: StreamId) {
    writer.length(id.ms);
    writer.length(id.seq);
}
