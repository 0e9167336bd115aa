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

use super::ValueKind;
use super::read::{ReadError, ReadResult, Reader};
use crate::types::OwnedValue;

/// Reads a stream.
pub fn read_stream(reader: &mut Reader<'_>, _kind: ValueKind) -> ReadResult<OwnedValue> {
    Err(ReadError::Unsupported { offset: reader.offset(), what: "a stream" })
}
