//! Reading values. What a file has in the layout of today is checked and copied, everything else is built anew; and what
//! is beyond the limits of a small collection becomes a big one, as in Redis.

use super::build::{HashBuilder, ZSetBuilder};
use super::module::Modules;
use super::packed::{from_ziplist, from_zipmap, has_duplicates, sound_listpack};
use super::read::{RdbString, ReadError, ReadResult, Reader};
use super::stream::read_stream;
use super::{ValueKind, container, ziplist};
use crate::protocol::number::parse_i64;
use crate::types::intset::{self, IntSet};
use crate::types::list::{self, End, List};
use crate::types::listpack::{Digits, Item, Listpack};
use crate::types::set::{Member, SetBuilder, SetLimits};
use crate::types::{NewValue, OwnedValue, PackedKind};

/// How many elements a packed collection may have, and how long they may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackedLimits {
    pub entries: u64,
    pub value_bytes: u64,
}

/// Up to where collections are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub list: list::Limits,
    pub hash: PackedLimits,
    pub zset: PackedLimits,
    pub set: SetLimits,
}

impl Default for Limits {
    /// Redis' defaults.
    fn default() -> Limits {
        Limits {
            list: list::Limits::new(-2, 0, list::Limits::ELEMENT_BYTES_MAX),
            hash: PackedLimits { entries: 512, value_bytes: 64 },
            zset: PackedLimits { entries: 128, value_bytes: 64 },
            set: SetLimits::new(512),
        }
    }
}

/// Reads a value.
///
/// # Errors
/// Damage; a collection without elements; a module's value that is not read.
pub fn read_value(
    reader: &mut Reader<'_>,
    kind: ValueKind,
    limits: &Limits,
    modules: &Modules<'_>,
) -> ReadResult<OwnedValue> {
    match kind {
        ValueKind::String => read_string(reader),
        ValueKind::List => read_list(reader, limits),
        ValueKind::ListQuicklist | ValueKind::ListQuicklist2 => read_quicklist(reader, kind, limits),
        ValueKind::ListZiplist => {
            let (blob, offset) = read_blob(reader)?;
            let mut list = List::new(limits.list);
            ziplist::for_each(&blob, &mut |item| list.push(End::Tail, item))
                .ok_or(ReadError::Damaged { offset, what: "List ziplist integrity check failed." })?;
            list.into_value().ok_or(ReadError::EmptyKey)
        }
        ValueKind::Set => read_set(reader, limits),
        ValueKind::SetIntset => {
            let (blob, offset) = read_blob(reader)?;
            intset_value(blob, offset, limits)
        }
        ValueKind::SetListpack => {
            let (blob, offset) = read_blob(reader)?;
            set_of_listpack(
                sound_listpack(blob, offset, "Set listpack integrity check failed.")?,
                offset,
                limits,
            )
        }
        ValueKind::Hash => read_hash(reader, limits),
        ValueKind::HashZipmap => {
            let (blob, offset) = read_blob(reader)?;
            let listpack = from_zipmap(&blob)
                .ok_or(ReadError::Damaged { offset, what: "Zipmap integrity check failed." })?;
            let is_short = Listpack::new(&listpack)
                .iter()
                .all(|(_, item)| item.len_bytes() as u64 <= limits.hash.value_bytes);
            hash_of_listpack(listpack, offset, limits, is_short)
        }
        ValueKind::HashZiplist => {
            let (blob, offset) = read_blob(reader)?;
            let listpack = from_ziplist(&blob)
                .ok_or(ReadError::Damaged { offset, what: "Hash ziplist integrity check failed." })?;
            hash_of_listpack(listpack, offset, limits, true)
        }
        ValueKind::HashListpack => {
            let (blob, offset) = read_blob(reader)?;
            hash_of_listpack(
                sound_listpack(blob, offset, "Hash listpack integrity check failed.")?,
                offset,
                limits,
                true,
            )
        }
        ValueKind::ZSet => read_zset(reader, limits, |reader| reader.text_double()),
        ValueKind::ZSet2 => read_zset(reader, limits, |reader| reader.double()),
        ValueKind::ZSetZiplist => {
            let (blob, offset) = read_blob(reader)?;
            let listpack = from_ziplist(&blob)
                .ok_or(ReadError::Damaged { offset, what: "Zset ziplist integrity check failed." })?;
            zset_of_listpack(listpack, offset, limits)
        }
        ValueKind::ZSetListpack => {
            let (blob, offset) = read_blob(reader)?;
            zset_of_listpack(
                sound_listpack(blob, offset, "Set listpack integrity check failed.")?,
                offset,
                limits,
            )
        }
        ValueKind::Stream | ValueKind::Stream2 | ValueKind::Stream3 => read_stream(reader, kind),
        ValueKind::Module2 => super::module::read_value(reader, modules),
    }
}

/// A blob, and where it lies.
fn read_blob(reader: &mut Reader<'_>) -> ReadResult<(Vec<u8>, u64)> {
    let offset = reader.offset();
    Ok((reader.string()?.into_vec()?, offset))
}

/// A string that stands in the file as it is. `None`: its bytes have to be made, or it is damaged.
pub(super) fn plain_string<'a>(reader: &mut Reader<'a>) -> Option<NewValue<'a>> {
    let Ok(RdbString::Bytes(bytes)) = reader.string() else { return None };
    Some(parse_i64(bytes).map_or(NewValue::Str(bytes), NewValue::Int))
}

fn read_string(reader: &mut Reader<'_>) -> ReadResult<OwnedValue> {
    let bytes = match reader.string()? {
        RdbString::Int(number) => return Ok(OwnedValue::Int(number)),
        string => string.into_vec()?,
    };
    Ok(match parse_i64(&bytes) {
        Some(number) => OwnedValue::Int(number),
        None => OwnedValue::Str(bytes),
    })
}

/// A count of elements; none at all is an empty key.
fn read_count(reader: &mut Reader<'_>) -> ReadResult<usize> {
    match reader.count()? {
        0 => Err(ReadError::EmptyKey),
        count => Ok(count),
    }
}

fn read_list(reader: &mut Reader<'_>, limits: &Limits) -> ReadResult<OwnedValue> {
    let count = read_count(reader)?;
    let mut list = List::new(limits.list);
    let mut unpacked = Vec::new();
    for _ in 0..count {
        list.push(End::Tail, Item::of(reader.bytes(&mut unpacked)?));
    }
    list.into_value().ok_or(ReadError::EmptyKey)
}

fn read_quicklist(reader: &mut Reader<'_>, kind: ValueKind, limits: &Limits) -> ReadResult<OwnedValue> {
    let count = read_count(reader)?;
    let mut list = List::new(limits.list);
    for _ in 0..count {
        let container = match kind {
            ValueKind::ListQuicklist2 => reader.length()?,
            _ => container::PACKED,
        };
        let (node, offset) = read_blob(reader)?;
        let damaged = |what| ReadError::Damaged { offset, what };
        if node.is_empty() {
            return Err(damaged("Quicklist integrity check failed: an empty node"));
        }
        let node = match container {
            container::PLAIN => {
                list.append_plain(node);
                continue;
            }
            container::PACKED if kind == ValueKind::ListQuicklist2 => {
                sound_listpack(node, offset, "Listpack integrity check failed.")?
            }
            container::PACKED => from_ziplist(&node).ok_or(damaged("Ziplist integrity check failed."))?,
            _ => return Err(damaged("Quicklist integrity check failed: an unknown container")),
        };
        let elements = Listpack::new(&node);
        if count == 1 && !elements.is_empty() && limits.list.allow(node.len(), elements.len()) {
            return Ok(OwnedValue::Packed(PackedKind::List, node));
        }
        if !elements.is_empty() {
            list.append_listpack(node);
        }
    }
    list.into_value().ok_or(ReadError::EmptyKey)
}

fn read_set(reader: &mut Reader<'_>, limits: &Limits) -> ReadResult<OwnedValue> {
    let count = read_count(reader)?;
    let mut set = SetBuilder::new(limits.set);
    let mut unpacked = Vec::new();
    for _ in 0..count {
        if !set.add(Member::Bytes(reader.bytes(&mut unpacked)?)) {
            return Err(reader.damaged("Duplicate set members detected"));
        }
    }
    Ok(set.into_value())
}

fn intset_value(blob: Vec<u8>, offset: u64, limits: &Limits) -> ReadResult<OwnedValue> {
    if intset::validate(&blob, true).is_err() {
        return Err(ReadError::Damaged { offset, what: "Intset integrity check failed." });
    }
    let members = IntSet::new(&blob);
    if limits.set.allow_ints(members.len()) {
        return Ok(OwnedValue::Packed(PackedKind::IntSet, blob));
    }
    let mut set = SetBuilder::new_table();
    for number in members.iter() {
        set.add(Member::Int(number));
    }
    Ok(set.into_value())
}

fn set_of_listpack(blob: Vec<u8>, offset: u64, limits: &Limits) -> ReadResult<OwnedValue> {
    let listpack = Listpack::new(&blob);
    if listpack.is_empty() {
        return Err(ReadError::EmptyKey);
    }
    let mut set = SetBuilder::new(limits.set);
    for (_, item) in listpack.iter() {
        let member = match item {
            Item::Int(number) => Member::Int(number),
            Item::Str(string) => Member::Bytes(string),
        };
        if !set.add(member) {
            return Err(ReadError::Damaged { offset, what: "Duplicate set members detected" });
        }
    }
    Ok(set.into_value())
}

const DUPLICATE_FIELD: &str =
    "Duplicate hash fields detected: hash integrity check failed, listpack with dup elements";

fn read_hash(reader: &mut Reader<'_>, limits: &Limits) -> ReadResult<OwnedValue> {
    let count = read_count(reader)?;
    let mut hash = HashBuilder::new(limits, count);
    let (mut field, mut value) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if !hash.add(reader.bytes(&mut field)?, reader.bytes(&mut value)?) {
            return Err(reader.damaged(DUPLICATE_FIELD));
        }
    }
    hash.finish().ok_or_else(|| reader.damaged(DUPLICATE_FIELD))
}

/// `fits`: nothing but the number of fields speaks against a packed hash.
fn hash_of_listpack(blob: Vec<u8>, offset: u64, limits: &Limits, fits: bool) -> ReadResult<OwnedValue> {
    let damaged = |what| Err(ReadError::Damaged { offset, what });
    let listpack = Listpack::new(&blob);
    let len = listpack.len();
    if len % 2 != 0 {
        return damaged("Hash integrity check failed: a field without a value");
    }
    if len == 0 {
        return Err(ReadError::EmptyKey);
    }
    if has_duplicates(listpack, 2) {
        return damaged(DUPLICATE_FIELD);
    }
    if fits && (len / 2) as u64 <= limits.hash.entries {
        return Ok(OwnedValue::Packed(PackedKind::Hash, blob));
    }
    let mut hash = HashBuilder::new(limits, len / 2);
    let (mut field, mut value) = (Digits::new(), Digits::new());
    let mut items = listpack.iter().map(|(_, item)| item);
    while let (Some(name), Some(content)) = (items.next(), items.next()) {
        hash.add(name.bytes(&mut field), content.bytes(&mut value));
    }
    hash.finish().map_or_else(|| damaged(DUPLICATE_FIELD), Ok)
}

const DUPLICATE_MEMBER: &str = "Duplicate zset fields detected: zset integrity check failed";
const NOT_A_SCORE: &str = "Zset with NAN score detected";

fn read_zset(
    reader: &mut Reader<'_>,
    limits: &Limits,
    read_score: fn(&mut Reader<'_>) -> ReadResult<f64>,
) -> ReadResult<OwnedValue> {
    let count = read_count(reader)?;
    let mut zset = ZSetBuilder::new(limits, count);
    let mut member = Vec::new();
    for _ in 0..count {
        let member = reader.bytes(&mut member)?;
        let score = read_score(reader)?;
        if score.is_nan() {
            return Err(reader.damaged(NOT_A_SCORE));
        }
        if !zset.add(member, score) {
            return Err(reader.damaged(DUPLICATE_MEMBER));
        }
    }
    zset.finish().ok_or_else(|| reader.damaged(DUPLICATE_MEMBER))
}

fn zset_of_listpack(blob: Vec<u8>, offset: u64, limits: &Limits) -> ReadResult<OwnedValue> {
    let damaged = |what| Err(ReadError::Damaged { offset, what });
    let listpack = Listpack::new(&blob);
    let len = listpack.len();
    if len % 2 != 0 {
        return damaged("Zset integrity check failed: a member without a score");
    }
    if len == 0 {
        return Err(ReadError::EmptyKey);
    }
    if has_duplicates(listpack, 2) {
        return damaged(DUPLICATE_MEMBER);
    }
    let is_packed = (len / 2) as u64 <= limits.zset.entries;
    let mut zset = (!is_packed).then(|| ZSetBuilder::new(limits, len / 2));
    let mut member = Digits::new();
    let mut items = listpack.iter().map(|(_, item)| item);
    // The order is that of the scores, and of the members where these are equal.
    let mut before: Option<(f64, Item<'_>)> = None;
    let mut is_ordered = true;
    while let (Some(name), Some(score)) = (items.next(), items.next()) {
        let Some(score) = score_of(score) else { return damaged(NOT_A_SCORE) };
        if let Some((before_score, before_name)) = before
            && (score < before_score || score == before_score && !is_before(before_name, name))
        {
            is_ordered = false;
        }
        before = Some((score, name));
        if let Some(zset) = &mut zset {
            zset.add(name.bytes(&mut member), score);
        }
    }
    match zset {
        Some(zset) => zset.finish().map_or_else(|| damaged(DUPLICATE_MEMBER), Ok),
        None if is_ordered => Ok(OwnedValue::Packed(PackedKind::ZSet, blob)),
        None => in_order(listpack, limits).map_or_else(|| damaged(DUPLICATE_MEMBER), Ok),
    }
}

/// A packed sorted set whose elements came in another order than theirs.
fn in_order(listpack: Listpack<'_>, limits: &Limits) -> Option<OwnedValue> {
    let mut zset = ZSetBuilder::new(limits, listpack.len() / 2);
    let mut member = Digits::new();
    let mut items = listpack.iter().map(|(_, item)| item);
    while let (Some(name), Some(score)) = (items.next(), items.next()) {
        zset.add(name.bytes(&mut member), score_of(score)?);
    }
    zset.finish()
}

/// A score as a packed sorted set has it: an integer, or the text of a double.
fn score_of(item: Item<'_>) -> Option<f64> {
    match item {
        Item::Int(number) => Some(number as f64),
        Item::Str(text) => {
            let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            (!score.is_nan()).then_some(score)
        }
    }
}

fn is_before(a: Item<'_>, b: Item<'_>) -> bool {
    a.bytes(&mut Digits::new()) < b.bytes(&mut Digits::new())
}
