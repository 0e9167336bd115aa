//! The string that a HyperLogLog is: a header of 16 bytes, and the registers in one of two forms.
//!
//! ```text
//! bytes 0-3    "HYLL"
//! byte  4      0 dense, 1 sparse
//! bytes 5-7    not used
//! bytes 8-15   the cardinality when it was last counted, little endian; its highest bit says that the registers have
//!              changed since
//! bytes 16-    12288 bytes of registers, or opcodes
//! ```
//!
//! What is not that is refused before anything is changed.

use crate::estimate;
use crate::hash;
use crate::registers::{self, DENSE_LEN_BYTES, Dense, REGISTER_COUNT, Registers};
use crate::sparse::{self, Corrupted, Place, Raised, Run};

/// A string that can be changed where it lies.
pub trait Growable {
    fn bytes(&self) -> &[u8];

    fn bytes_mut(&mut self) -> &mut [u8];

    /// Cuts off its end, or adds zeros to it.
    fn resize(&mut self, len_bytes: usize);
}

impl Growable for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn resize(&mut self, len_bytes: usize) {
        Vec::resize(self, len_bytes, 0);
    }
}

pub const HEADER_LEN_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"HYLL";
const ENCODING_AT: usize = 4;
const CARDINALITY_AT: usize = 8;
/// The byte with the highest bit of the cardinality.
const STALE_AT: usize = CARDINALITY_AT + 7;
const STALE: u8 = 0x80;

/// The length of every string in the dense form.
const DENSE_STRING_LEN_BYTES: usize = HEADER_LEN_BYTES + DENSE_LEN_BYTES;

/// What is wrong with a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HyperLogLog.
    Foreign,
    /// It has the header of one, and opcodes that are wrong.
    Corrupted,
}

impl From<Corrupted> for Refusal {
    fn from(_: Corrupted) -> Refusal {
        Refusal::Corrupted
    }
}

/// A well-formed string: what it holds behind its header.
#[derive(Clone, Copy)]
pub enum Content<'s> {
    Dense(&'s Dense),
    Sparse(&'s [u8]),
}

/// A HyperLogLog without elements, whose cached cardinality of 0 is right.
pub fn empty() -> [u8; HEADER_LEN_BYTES + sparse::EMPTY.len()] {
    let mut string = [0; _];
    string[..MAGIC.len()].copy_from_slice(&MAGIC);
    string[ENCODING_AT] = 1;
    string[HEADER_LEN_BYTES..].copy_from_slice(&sparse::EMPTY);
    string
}

/// Whether a string begins as a HyperLogLog does.
pub fn has_header(string: &[u8]) -> bool {
    string.len() >= HEADER_LEN_BYTES && string.starts_with(&MAGIC)
}

/// Checks a string as a whole.
pub fn open(string: &[u8]) -> Result<Content<'_>, Refusal> {
    let (header, registers) = string.split_first_chunk::<HEADER_LEN_BYTES>().ok_or(Refusal::Foreign)?;
    match (header.starts_with(&MAGIC), header[ENCODING_AT]) {
        (true, 0) => Ok(Content::Dense(registers.try_into().map_err(|_| Refusal::Foreign)?)),
        (true, 1) => {
            sparse::check(registers)?;
            Ok(Content::Sparse(registers))
        }
        _ => Err(Refusal::Foreign),
    }
}

/// The cardinality in the header of a well-formed string, if the registers are those that were counted.
pub fn cached_cardinality(string: &[u8]) -> Option<u64> {
    let bytes = string.get(CARDINALITY_AT..HEADER_LEN_BYTES)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes)).filter(|_| string[STALE_AT] & STALE == 0)
}

/// Puts the cardinality into the header of a well-formed string.
pub fn cache_cardinality(string: &mut [u8], cardinality: u64) {
    string[CARDINALITY_AT..HEADER_LEN_BYTES].copy_from_slice(&cardinality.to_le_bytes());
}

/// Says that the registers have changed since the cardinality was counted. The rest of it stays, as in Redis.
pub fn mark_stale(string: &mut [u8]) {
    string[STALE_AT] |= STALE;
}

impl Content<'_> {
    /// The estimated number of different elements.
    pub fn cardinality(self) -> u64 {
        estimate::cardinality(&match self {
            Content::Dense(dense) => {
                let mut unpacked = [0; REGISTER_COUNT];
                registers::merge(&mut unpacked, &[dense]);
                registers::histogram(&unpacked)
            }
            Content::Sparse(opcodes) => sparse::histogram(opcodes),
        })
    }

    /// Raises each of the registers to its value here, where that is greater.
    pub fn merge_into(self, registers: &mut Registers) {
        match self {
            Content::Dense(dense) => registers::merge(registers, &[dense]),
            Content::Sparse(opcodes) => sparse::merge(registers, opcodes),
        }
    }

    pub fn is_dense(self) -> bool {
        matches!(self, Content::Dense(_))
    }
}

/// Adds elements. Gives whether a register was raised. `sparse_len_max_bytes` is the longest string, with its header,
/// that keeps the sparse form.
pub fn add<'e>(
    string: &mut impl Growable,
    elements: impl IntoIterator<Item = &'e [u8]>,
    sparse_len_max_bytes: usize,
) -> Result<bool, Refusal> {
    let mut is_dense = open(string.bytes())?.is_dense();
    let mut raised_any = false;
    let mut elements = elements.into_iter().map(hash::place).peekable();
    while let (false, Some(&(index, value))) = (is_dense, elements.peek()) {
        match sparse::raise(string, &mut { Place::BEGIN }, index, value, sparse_len_max_bytes) {
            Raised::No => {}
            Raised::Yes => raised_any = true,
            Raised::NeedsDense => {
                make_dense(string)?;
                is_dense = true;
                continue;
            }
        }
        elements.next();
    }
    for (index, value) in elements {
        // Most elements raise nothing: the string is not touched before that is known.
        if registers::get(dense(string), index) < value {
            registers::set(dense_mut(string), index, value);
            raised_any = true;
        }
    }
    if raised_any {
        mark_stale(string.bytes_mut());
    }
    Ok(raised_any)
}

/// The registers of a string that is known to be in the dense form.
fn dense(string: &impl Growable) -> &Dense {
    let registers = &string.bytes()[HEADER_LEN_BYTES..];
    registers.try_into().expect("the length of a dense string was checked")
}

/// The same, to be changed.
fn dense_mut(string: &mut impl Growable) -> &mut Dense {
    let registers = &mut string.bytes_mut()[HEADER_LEN_BYTES..];
    registers.try_into().expect("the length of a dense string was checked")
}

/// Turns a string into the dense form. Gives whether it was in the sparse one.
pub fn make_dense(string: &mut impl Growable) -> Result<bool, Refusal> {
    let Content::Sparse(opcodes) = open(string.bytes())? else { return Ok(false) };
    let opcodes = opcodes.to_vec();
    string.resize(DENSE_STRING_LEN_BYTES);
    sparse::write_dense(&opcodes, dense_mut(string));
    string.bytes_mut()[ENCODING_AT] = 0;
    Ok(true)
}

/// Raises the registers of a string to these, which are at least as great as its own. It becomes dense if that is asked for,
/// or the sparse form does not take it.
pub fn raise_all(
    string: &mut impl Growable,
    registers: &Registers,
    wants_dense: bool,
    sparse_len_max_bytes: usize,
) -> Result<(), Refusal> {
    let mut is_dense = open(string.bytes())?.is_dense();
    if !is_dense && !wants_dense {
        let mut place = Place::BEGIN;
        let mut raised = registers.iter().enumerate().filter(|(_, value)| **value > 0);
        let refused = raised.find(|&(index, value)| {
            sparse::raise(string, &mut place, index, *value, sparse_len_max_bytes) == Raised::NeedsDense
        });
        is_dense = refused.is_some();
    } else {
        is_dense = true;
    }
    if is_dense {
        make_dense(string)?;
        registers::pack(registers, dense_mut(string));
    }
    mark_stale(string.bytes_mut());
    Ok(())
}

/// Raises the registers of a string in the dense form to those of others, where they are greater.
pub fn merge_dense(string: &mut impl Growable, others: &[&Dense]) {
    registers::merge_packed(dense_mut(string), others);
    mark_stale(string.bytes_mut());
}

/// Replaces the registers of a string by these, which are at least as great as its own. It becomes dense.
pub fn set_all(string: &mut impl Growable, registers: &Dense) -> Result<(), Refusal> {
    make_dense(string)?;
    dense_mut(string).copy_from_slice(registers);
    mark_stale(string.bytes_mut());
    Ok(())
}

/// The opcodes as PFDEBUG DECODE shows them: `Z:` and `z:` for zeros, `v:value,count` for other registers.
pub fn describe(opcodes: &[u8]) -> String {
    let words = sparse::runs(opcodes).map(|run| match run {
        Run::Zero { count } => format!("z:{count}"),
        Run::LongZero { count } => format!("Z:{count}"),
        Run::Value { value, count } => format!("v:{value},{count}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
