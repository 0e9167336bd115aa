//! Access to values by type: every WRONGTYPE error is made here.

use crate::command::{CommandError, CommandResult};
use crate::protocol::Reply;
use crate::protocol::number::parse_i64;
use crate::types::hash::HashRef;
use crate::types::list::ListRef;
use crate::types::listpack::Item;
use crate::types::module::{KeyPlace, NotCopied};
use crate::types::set::SetRef;
use crate::types::stream::Stream;
use crate::types::zset::ZSetView;
use crate::types::{Collection, Encoding, Entry, NewValue, Object, OwnedValue, ValueRef};

/// A string value: stored as bytes, or as an integer if the bytes are its decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringRef<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// A buffer for the digits of a string that is stored as an integer.
pub type Digits = itoa::Buffer;

impl<'a> StringRef<'a> {
    /// # Errors
    /// WRONGTYPE for a value of another type.
    #[inline]
    pub fn of(value: ValueRef<'a>) -> CommandResult<StringRef<'a>> {
        match value {
            ValueRef::Int(number) => Ok(StringRef::Int(number)),
            ValueRef::Str(bytes) => Ok(StringRef::Bytes(bytes)),
            ValueRef::Packed(..) | ValueRef::Object(_) => Err(CommandError::WRONG_TYPE),
        }
    }

    #[inline]
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            StringRef::Int(number) => digits.format(number).as_bytes(),
            StringRef::Bytes(bytes) => bytes,
        }
    }

    pub fn len_bytes(self) -> usize {
        self.bytes(&mut Digits::new()).len()
    }

    /// The integer whose decimal digits the string is.
    ///
    /// # Errors
    /// It is not an integer, or beyond 64 bits.
    #[inline]
    pub fn integer(self) -> CommandResult<i64> {
        match self {
            StringRef::Int(number) => Ok(number),
            StringRef::Bytes(bytes) => parse_i64(bytes).ok_or(CommandError::NOT_INTEGER),
        }
    }

    #[inline(always)]
    pub fn reply(self, reply: &mut Reply<'_>) {
        match self {
            StringRef::Int(number) => reply.bulk_i64(number),
            StringRef::Bytes(bytes) => reply.bulk(bytes),
        }
    }
}

impl<'a> From<Item<'a>> for StringRef<'a> {
    #[inline]
    fn from(item: Item<'a>) -> StringRef<'a> {
        match item {
            Item::Int(number) => StringRef::Int(number),
            Item::Str(bytes) => StringRef::Bytes(bytes),
        }
    }
}

/// A value as a set.
///
/// # Errors
/// WRONGTYPE for a value of another type.
#[inline]
pub fn set_of(value: ValueRef<'_>) -> CommandResult<SetRef<'_>> {
    SetRef::of(value).ok_or(CommandError::WRONG_TYPE)
}

/// A value as a hash.
///
/// # Errors
/// WRONGTYPE for a value of another type.
#[inline]
pub fn hash_of(value: ValueRef<'_>) -> CommandResult<HashRef<'_>> {
    HashRef::of(value).ok_or(CommandError::WRONG_TYPE)
}

/// A value as a sorted set.
///
/// # Errors
/// WRONGTYPE for a value of another type.
#[inline]
pub fn zset_of(value: ValueRef<'_>) -> CommandResult<ZSetView<'_>> {
    ZSetView::of(value).ok_or(CommandError::WRONG_TYPE)
}

/// A value as a list.
///
/// # Errors
/// WRONGTYPE for a value of another type.
#[inline]
pub fn list_of(value: ValueRef<'_>) -> CommandResult<ListRef<'_>> {
    ListRef::of(value).ok_or(CommandError::WRONG_TYPE)
}

/// A value as a stream.
///
/// # Errors
/// WRONGTYPE for a value of another type.
#[inline]
pub fn stream_of(value: ValueRef<'_>) -> CommandResult<&Stream> {
    match value {
        ValueRef::Object(Object::Stream(stream)) => Ok(stream),
        _ => Err(CommandError::WRONG_TYPE),
    }
}

/// The stream that an object is: the caller has called [`stream_of`].
#[inline]
pub fn stream_mut(object: &mut Object) -> &mut Stream {
    match object {
        Object::Stream(stream) => stream,
        _ => unreachable!("the caller has seen a stream"),
    }
}

/// A copy of the value of a key in database `db`, for another key.
///
/// # Errors
/// It is a module's, which does not copy it.
pub fn duplicate(entry: Entry<'_>, db: u32, to: KeyPlace<'_>) -> CommandResult<OwnedValue> {
    Ok(match entry.value() {
        ValueRef::Int(number) => OwnedValue::Int(number),
        ValueRef::Str(bytes) if entry.encoding() == Encoding::Raw => OwnedValue::Raw(bytes.to_vec()),
        ValueRef::Str(bytes) => OwnedValue::Str(bytes.to_vec()),
        ValueRef::Packed(kind, bytes) => OwnedValue::Packed(kind, bytes.to_vec()),
        ValueRef::Object(Object::Module(value)) => {
            let copy = value.copy(KeyPlace::of(db, entry.key()), to).map_err(|why| match why {
                NotCopied::NotSupported => CommandError::fixed("ERR not supported for this module key"),
                NotCopied::Failed => CommandError::fixed("ERR module key failed to copy"),
            })?;
            OwnedValue::Object(Box::new(Object::Module(copy)))
        }
        ValueRef::Object(object) => OwnedValue::Object(Box::new(object.duplicate())),
    })
}

/// A client's string as it is stored: as an integer if that gives the same bytes back.
#[inline]
pub fn encode(bytes: &[u8]) -> NewValue<'_> {
    match parse_i64(bytes) {
        Some(number) => NewValue::Int(number),
        None => NewValue::Str(bytes),
    }
}
