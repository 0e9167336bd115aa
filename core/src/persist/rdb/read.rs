//! The primitives of reading: numbers, lengths, strings and doubles, over a slice. A reader whose slice ends too early
//! says how much it misses, so that whoever reads a file knows how much to read before it tries again.

use super::{encoding, length};
use crate::types::lzf;
use crate::types::module::ModuleTypeId;
use std::fmt;

/// Why something cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The bytes end before the item does: it takes at least `len_min` bytes in all.
    Incomplete { len_min: usize },
    /// What no server writes. `offset`: where.
    Damaged { offset: u64, what: &'static str },
    /// The checksum at the end of the file is not that of its contents.
    /// `offset`: where the file says its checksum, `said`.
    Checksum { offset: u64, said: u64, computed: u64 },
    /// A file or payload of a version that is not read.
    Version { offset: u64, version: u16 },
    /// What this version does not read.
    Unsupported { offset: u64, what: &'static str },
    /// A byte that stands for no kind of value, nor for anything else.
    UnknownType { offset: u64, byte: u8 },
    /// A collection without elements, which older versions have written at times.
    EmptyKey,
    /// No module that is loaded has registered this type.
    NoModule { name: ModuleTypeName, data: ModuleData },
    /// The module that has registered this type does not load what the file has.
    ModuleRefused { name: ModuleTypeName, data: ModuleData },
    /// The module has read less than it once wrote.
    ModuleLeftSome { name: ModuleTypeName, data: ModuleData },
}

/// The name of a module's type.
pub type ModuleTypeName = [u8; ModuleTypeId::NAME_LEN];

/// What a file has of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleData {
    /// The value of a key.
    Value,
    /// What belongs to no key.
    Aux,
}

impl ReadError {
    /// Whether the bytes may be sound, and only this server does not know what they are.
    pub fn is_of_unknown(&self) -> bool {
        matches!(
            self,
            ReadError::Version { .. }
                | ReadError::Unsupported { .. }
                | ReadError::UnknownType { .. }
                | ReadError::NoModule { .. }
        )
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Incomplete { .. } => write!(f, "it ends too early"),
            ReadError::Damaged { offset, what } => write!(f, "{what}, at byte {offset}"),
            ReadError::Checksum { offset, said, computed } => write!(
                f,
                "RDB CRC error: the checksum at byte {offset} is {said:016x}, and that of the contents {computed:016x}"
            ),
            ReadError::Version { offset, version } => {
                write!(f, "RDB version {version}, which is not read here, at byte {offset}")
            }
            ReadError::Unsupported { offset, what } => {
                write!(f, "{what}, which this version does not read, at byte {offset}")
            }
            ReadError::UnknownType { offset, byte } => {
                write!(f, "Unknown RDB type or opcode {byte}, at byte {offset}")
            }
            ReadError::EmptyKey => write!(f, "a collection without elements"),
            ReadError::NoModule { name, data: ModuleData::Value } => write!(
                f,
                "The RDB file contains module data I can't load: no matching module type '{}'",
                name.escape_ascii()
            ),
            ReadError::NoModule { name, data: ModuleData::Aux } => write!(
                f,
                "The RDB file contains AUX module data I can't load: no matching module '{}'",
                name.escape_ascii()
            ),
            ReadError::ModuleRefused { name, data: ModuleData::Value } => write!(
                f,
                "The RDB file contains module data for the module type '{}', that the responding module is not able to \
                 load. Check for modules log above for additional clues.",
                name.escape_ascii()
            ),
            ReadError::ModuleRefused { name, data: ModuleData::Aux } => write!(
                f,
                "The RDB file contains module AUX data for the module type '{}', that the responding module is not able \
                 to load. Check for modules log above for additional clues.",
                name.escape_ascii()
            ),
            ReadError::ModuleLeftSome { name, data: ModuleData::Value } => write!(
                f,
                "The RDB file contains module data for the module '{}' that is not terminated by the proper module value \
                 EOF marker",
                name.escape_ascii()
            ),
            ReadError::ModuleLeftSome { name, data: ModuleData::Aux } => write!(
                f,
                "The RDB file contains module AUX data for the module '{}' that is not terminated by the proper module \
                 value EOF marker",
                name.escape_ascii()
            ),
        }
    }
}

pub type ReadResult<T> = Result<T, ReadError>;

/// A slice that is being read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where in the file the slice begins.
    base: u64,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], base: u64) -> Reader<'a> {
        Reader { bytes, at: 0, base }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Where in the file it is.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What has been read since `start`, a former position.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// How many bytes are left: the number of things that may follow, if each takes at least a byte.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Damage at the present position.
    pub fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { offset: self.offset(), what }
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> ReadResult<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            return Err(ReadError::Incomplete { len_min: self.at.saturating_add(len) });
        };
        self.at += len;
        Ok(taken)
    }

    #[inline]
    fn take_array<const LEN: usize>(&mut self) -> ReadResult<[u8; LEN]> {
        Ok(self.take(LEN)?.try_into().expect("so many were taken"))
    }

    #[inline]
    pub fn byte(&mut self) -> ReadResult<u8> {
        Ok(self.take(1)?[0])
    }

    /// Unix time in seconds, in 4 bytes.
    pub fn seconds(&mut self) -> ReadResult<i64> {
        Ok(i64::from(i32::from_le_bytes(self.take_array()?)))
    }

    /// Unix time in milliseconds, in 8 bytes.
    pub fn milliseconds(&mut self) -> ReadResult<i64> {
        Ok(i64::from_le_bytes(self.take_array()?))
    }

    /// A length, or how a string is encoded.
    #[inline]
    fn length_or_encoding(&mut self) -> ReadResult<Result<u64, u8>> {
        let first = self.byte()?;
        Ok(match first & 0xC0 {
            0 => Ok(u64::from(first)),
            length::BITS_14 => Ok(u64::from(first & 0x3F) << 8 | u64::from(self.byte()?)),
            length::ENCODED => Err(first & 0x3F),
            _ if first == length::BITS_32 => Ok(u64::from(u32::from_be_bytes(self.take_array()?))),
            _ if first == length::BITS_64 => Ok(u64::from_be_bytes(self.take_array()?)),
            _ => return Err(self.damaged("Unknown length encoding")),
        })
    }

    /// A length, or another number that is written as one.
    #[inline]
    pub fn length(&mut self) -> ReadResult<u64> {
        let length = self.length_or_encoding()?;
        length.map_err(|_| self.damaged("An encoded string in place of a length"))
    }

    /// A number of things that follow, each of at least one byte.
    ///
    /// # Errors
    /// If these cannot follow: so whoever allocates memory for them allocates no more than the bytes justify.
    #[inline]
    pub fn count(&mut self) -> ReadResult<usize> {
        let count = usize::try_from(self.length()?).unwrap_or(usize::MAX);
        if count > self.remaining() {
            return Err(ReadError::Incomplete { len_min: self.at.saturating_add(count) });
        }
        Ok(count)
    }

    /// A string, as it stands there.
    #[inline]
    pub fn string(&mut self) -> ReadResult<RdbString<'a>> {
        match self.length_or_encoding()? {
            Ok(len) => Ok(RdbString::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)),
            Err(encoding::INT8) => Ok(RdbString::Int(i64::from(self.byte()? as i8))),
            Err(encoding::INT16) => Ok(RdbString::Int(i64::from(i16::from_le_bytes(self.take_array()?)))),
            Err(encoding::INT32) => Ok(RdbString::Int(i64::from(i32::from_le_bytes(self.take_array()?)))),
            Err(encoding::LZF) => {
                let packed_len = usize::try_from(self.length()?).unwrap_or(usize::MAX);
                let len = usize::try_from(self.length()?).unwrap_or(usize::MAX);
                let offset = self.offset();
                Ok(RdbString::Compressed { packed: self.take(packed_len)?, len, offset })
            }
            Err(_) => Err(self.damaged("Unknown RDB string encoding type")),
        }
    }

    /// A string's bytes. `unpacked` keeps them if they had to be made.
    #[inline]
    pub fn bytes<'s>(&mut self, unpacked: &'s mut Vec<u8>) -> ReadResult<&'s [u8]>
    where
        'a: 's,
    {
        self.string()?.bytes(unpacked)
    }

    /// A float in 4 bytes.
    pub fn float(&mut self) -> ReadResult<f32> {
        Ok(f32::from_le_bytes(self.take_array()?))
    }

    /// A double in 8 bytes.
    pub fn double(&mut self) -> ReadResult<f64> {
        Ok(f64::from_le_bytes(self.take_array()?))
    }

    /// A double as text, with a byte for its length, as sorted sets had them before version 8.
    pub fn text_double(&mut self) -> ReadResult<f64> {
        match self.byte()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            len => {
                let text = std::str::from_utf8(self.take(usize::from(len))?).ok();
                let number = text.and_then(|text| text.trim_start().parse().ok());
                number.ok_or_else(|| self.damaged("A score that is no number"))
            }
        }
    }
}

/// A string as it stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RdbString<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    /// With LZF. `offset`: where it is in the file.
    Compressed {
        packed: &'a [u8],
        len: usize,
        offset: u64,
    },
}

impl<'a> RdbString<'a> {
    /// Its bytes. `unpacked` keeps them if they have to be made.
    #[inline]
    pub fn bytes<'s>(self, unpacked: &'s mut Vec<u8>) -> ReadResult<&'s [u8]>
    where
        'a: 's,
    {
        if let RdbString::Bytes(bytes) = self {
            return Ok(bytes);
        }
        unpacked.clear();
        self.append_to(unpacked)?;
        Ok(unpacked)
    }

    pub fn into_vec(self) -> ReadResult<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes)?;
        Ok(bytes)
    }

    fn append_to(self, output: &mut Vec<u8>) -> ReadResult<()> {
        match self {
            RdbString::Bytes(bytes) => {
                output.reserve_exact(bytes.len());
                output.extend_from_slice(bytes);
            }
            RdbString::Int(number) => {
                output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            RdbString::Compressed { packed, len, offset } => {
                if !lzf::decompress(packed, len, output) {
                    return Err(ReadError::Damaged { offset, what: "Invalid LZF compressed string" });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'b, T>(bytes: &'b [u8], read: impl FnOnce(&mut Reader<'b>) -> ReadResult<T>) -> ReadResult<T> {
        let mut reader = Reader::new(bytes, 100);
        let outcome = read(&mut reader);
        if outcome.is_ok() {
            assert!(reader.is_at_end());
        }
        outcome
    }

    #[test]
    fn lengths_have_four_widths() {
        assert_eq!(read(&[63], Reader::length), Ok(63));
        assert_eq!(read(&[0x41, 2], Reader::length), Ok(258));
        assert_eq!(read(&[0x80, 0, 1, 0, 0], Reader::length), Ok(65_536));
        assert_eq!(read(&[0x81, 0, 0, 0, 1, 0, 0, 0, 0], Reader::length), Ok(1 << 32));
        assert!(matches!(read(&[0x82], Reader::length), Err(ReadError::Damaged { offset: 101, .. })));
        assert!(matches!(read(&[0xC0, 1], Reader::length), Err(ReadError::Damaged { .. })));
    }

    #[test]
    fn strings_are_bytes_integers_or_compressed() {
        let text = |bytes: &[u8]| read(bytes, |reader| reader.string()?.into_vec());
        assert_eq!(text(b"\x03abc"), Ok(b"abc".to_vec()));
        assert_eq!(text(&[0xC0, 0xFF]), Ok(b"-1".to_vec()));
        assert_eq!(text(&[0xC1, 0, 0x80]), Ok(b"-32768".to_vec()));
        assert_eq!(text(&[0xC2, 1, 0, 1, 0]), Ok(b"65537".to_vec()));
        assert_eq!(text(&[0xC3, 9, 60, 1, b'a', b'a', 0xE0, 47, 0, 1, b'a', b'a']), Ok(vec![b'a'; 60]));
        assert!(matches!(text(&[0xC3, 1, 60, 1]), Err(ReadError::Damaged { offset: 103, .. })));
        assert!(matches!(text(&[0xC4]), Err(ReadError::Damaged { .. })));
    }

    #[test]
    fn what_is_missing_is_told_and_not_allocated() {
        let text = |bytes: &[u8]| read(bytes, |reader| reader.string()?.into_vec());
        assert_eq!(text(b"\x0aabc"), Err(ReadError::Incomplete { len_min: 11 }));
        assert_eq!(text(&[0x80, 0x7F, 0, 0, 0]), Err(ReadError::Incomplete { len_min: 0x7F00_0005 }));
        assert!(text(&[0x81, 255, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(read(&[0x80, 0x7F, 0, 0, 0, 1], |reader| reader.count()).is_err());
        assert_eq!(text(b""), Err(ReadError::Incomplete { len_min: 1 }));
    }

    #[test]
    fn doubles_are_bytes_or_text() {
        assert_eq!(read(&1.5f64.to_le_bytes(), Reader::double), Ok(1.5));
        assert_eq!(read(b"\x031.5", Reader::text_double), Ok(1.5));
        assert_eq!(read(&[254], Reader::text_double), Ok(f64::INFINITY));
        assert_eq!(read(&[255], Reader::text_double), Ok(f64::NEG_INFINITY));
        assert!(read(&[253], Reader::text_double).is_ok_and(f64::is_nan));
        assert!(read(b"\x03abc", Reader::text_double).is_err());
    }
}
