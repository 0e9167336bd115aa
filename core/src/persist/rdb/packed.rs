//! Blobs: values that lie in the file as one string, in the layout that they have in memory too. Those of today
//! (listpack, intset) are checked and copied, those of old versions are made into listpacks.

use super::read::{ReadError, ReadResult};
use super::{ziplist, zipmap};
use crate::types::listpack::{self, Item, Listpack, ListpackMut};
use ahash::AHashSet;

/// How many elements may be compared each with each, to find duplicates.
const COMPARED_MAX: usize = 8;

/// Checks a listpack from outside completely. It is made anew if it has elements that are not encoded in the shortest
/// way, for the structures rely on that.
///
/// # Errors
/// Damage: `what`. `offset`: where it lies in the file.
pub fn sound_listpack(bytes: Vec<u8>, offset: u64, what: &'static str) -> ReadResult<Vec<u8>> {
    listpack::validate(&bytes, true).map_err(|_| ReadError::Damaged { offset, what })?;
    if is_canonical(Listpack::new(&bytes)) {
        return Ok(bytes);
    }
    let mut anew = listpack::EMPTY.to_vec();
    let elements = Listpack::new(&bytes).iter().map(|(_, item)| match item {
        Item::Int(number) => Item::Int(number),
        Item::Str(string) => Item::of(string),
    });
    ListpackMut::new(&mut anew).append_many(elements);
    Ok(anew)
}

/// Whether each element is encoded in the shortest way.
fn is_canonical(listpack: Listpack<'_>) -> bool {
    let mut len = listpack::EMPTY.len();
    for (_, item) in listpack.iter() {
        // The digits of an integer as a string would be shorter as an integer.
        if let Item::Str(string) = item
            && matches!(string, [b'-' | b'0'..=b'9', ..])
            && Item::of(string) != item
        {
            return false;
        }
        len += listpack::item_len(item);
    }
    len == listpack.bytes_len()
}

/// Whether one of every `step` elements, the first of each group, occurs twice: fields of a hash, members of a set.
pub fn has_duplicates(listpack: Listpack<'_>, step: usize) -> bool {
    let bytes = listpack.as_bytes();
    let mut seen: AHashSet<&[u8]> = AHashSet::new();
    let mut few: [&[u8]; COMPARED_MAX] = [&[]; COMPARED_MAX];
    let is_few = listpack.len() / step <= COMPARED_MAX;
    let mut at = listpack.first();
    let mut count = 0;
    while let Some(pos) = at {
        let end = listpack.next(pos).unwrap_or(listpack.end());
        // Equal elements have equal bytes.
        let element = &bytes[pos..end];
        let is_new = if is_few {
            let is_new = !few[..count].contains(&element);
            few[count] = element;
            is_new
        } else {
            seen.insert(element)
        };
        if !is_new {
            return true;
        }
        count += 1;
        at = Some(pos);
        for _ in 0..step {
            at = at.and_then(|pos| listpack.next(pos));
        }
    }
    false
}

/// The listpack that a ziplist's elements make, or `None` if the bytes are not a ziplist.
pub fn from_ziplist(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut made = listpack::EMPTY.to_vec();
    made.reserve(bytes.len());
    ziplist::for_each(bytes, &mut |item| ListpackMut::new(&mut made).push_back(item))?;
    Some(made)
}

/// The listpack that a zipmap's fields and values make, or `None` if the bytes are not a zipmap, or an empty one:
/// Redis never wrote these.
pub fn from_zipmap(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut made = listpack::EMPTY.to_vec();
    made.reserve(bytes.len());
    let count = zipmap::for_each(bytes, &mut |field, value| {
        let mut made = ListpackMut::new(&mut made);
        made.push_back(field);
        made.push_back(value);
    })?;
    (count > 0).then_some(made)
}
