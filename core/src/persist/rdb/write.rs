//! Writing: the primitives, values, and what is around them in a file. All of it is appended to a vector.

use super::file::SavedAccess;
use super::{VERSION, ValueKind, container, encoding, length, opcode};
use crate::persist::crc64::Crc64;
use crate::protocol::number::parse_i64;
use crate::types::lzf;
use crate::types::module::{KeyPlace, ModuleValue};
use crate::types::{Object, PackedKind, ValueRef};

/// The longest string of digits that is written as an integer.
const INTEGER_LEN_MAX: usize = 11;
/// Strings are compressed if they are longer, and if that saves [`COMPRESSION_GAIN`] bytes.
const UNCOMPRESSED_LEN_MAX: usize = 20;
pub const COMPRESSION_GAIN: usize = 4;

/// Appends what is written to a vector.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// rdbcompression
    compress: bool,
    /// Of the value that is written next. Only modules ask for it.
    pub(super) place: KeyPlace<'a>,
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>, compress: bool) -> Writer<'a> {
        Writer { out, compress, place: KeyPlace::default() }
    }

    /// Tells where the value is that is written next.
    #[must_use]
    pub fn at(self, place: KeyPlace<'a>) -> Writer<'a> {
        Writer { place, ..self }
    }

    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub fn length(&mut self, len: u64) {
        match len {
            0..64 => self.out.push(len as u8),
            64..16_384 => self.out.extend_from_slice(&[length::BITS_14 | (len >> 8) as u8, len as u8]),
            16_384..=0xFFFF_FFFF => {
                self.out.push(length::BITS_32);
                self.out.extend_from_slice(&(len as u32).to_be_bytes());
            }
            _ => {
                self.out.push(length::BITS_64);
                self.out.extend_from_slice(&len.to_be_bytes());
            }
        }
    }

    /// A string: as an integer or compressed, if that is shorter.
    pub fn string(&mut self, bytes: &[u8]) {
        if bytes.len() <= INTEGER_LEN_MAX
            && let Some(number) = parse_i64(bytes)
            && self.encoded_integer(number)
        {
            return;
        }
        if !(self.compress && bytes.len() > UNCOMPRESSED_LEN_MAX && self.compressed(bytes)) {
            self.plain(bytes);
        }
    }

    /// The string of an integer's digits.
    pub fn integer(&mut self, number: i64) {
        if !self.encoded_integer(number) {
            self.plain(itoa::Buffer::new().format(number).as_bytes());
        }
    }

    fn plain(&mut self, bytes: &[u8]) {
        self.length(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn encoded_integer(&mut self, number: i64) -> bool {
        let (encoding, len) = if i8::try_from(number).is_ok() {
            (encoding::INT8, 1)
        } else if i16::try_from(number).is_ok() {
            (encoding::INT16, 2)
        } else if i32::try_from(number).is_ok() {
            (encoding::INT32, 4)
        } else {
            return false;
        };
        self.out.push(length::ENCODED | encoding);
        self.out.extend_from_slice(&number.to_le_bytes()[..len]);
        true
    }

    fn compressed(&mut self, bytes: &[u8]) -> bool {
        let mut packed = Vec::new();
        if !lzf::compress(bytes, COMPRESSION_GAIN, &mut packed) {
            return false;
        }
        self.already_compressed(&packed, bytes.len());
        true
    }

    /// A string of `len` bytes that was compressed before.
    pub fn already_compressed(&mut self, packed: &[u8], len: usize) {
        self.begin_compressed(packed.len(), len);
        self.out.extend_from_slice(packed);
    }

    /// What precedes the compressed bytes of a string.
    pub fn begin_compressed(&mut self, packed_len: usize, len: usize) {
        self.out.push(length::ENCODED | encoding::LZF);
        self.length(packed_len as u64);
        self.length(len as u64);
    }

    pub fn double(&mut self, number: f64) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    /// Unix time.
    pub fn milliseconds(&mut self, ms: i64) {
        self.out.extend_from_slice(&ms.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn kind(&mut self, kind: ValueKind) {
        self.out.push(kind as u8);
    }

    /// The beginning of a file.
    pub fn header(&mut self) {
        self.out.extend_from_slice(format!("REDIS{VERSION:04}").as_bytes());
    }

    /// What the server says of itself.
    pub fn aux(&mut self, name: &str, value: &str) {
        self.out.push(opcode::AUX);
        self.string(name.as_bytes());
        self.string(value.as_bytes());
    }

    /// The keys that follow are of this database.
    pub fn select_db(&mut self, db: u32) {
        self.out.push(opcode::SELECT_DB);
        self.length(u64::from(db));
    }

    /// How many keys, and how many of them with an expiry, the database has.
    pub fn resize_db(&mut self, keys: u64, expires: u64) {
        self.out.push(opcode::RESIZE_DB);
        self.length(keys);
        self.length(expires);
    }

    /// A library of functions, by its text.
    pub fn library(&mut self, text: &[u8]) {
        self.out.push(opcode::LIBRARY);
        self.string(text);
    }

    /// What precedes the kind of a key's value.
    fn attributes(&mut self, expire_at_ms: Option<i64>, access: SavedAccess) {
        if let Some(at_ms) = expire_at_ms {
            self.out.push(opcode::EXPIRE_MS);
            self.milliseconds(at_ms);
        }
        match access {
            SavedAccess::None => {}
            SavedAccess::IdleSeconds(seconds) => {
                self.out.push(opcode::IDLE);
                self.length(seconds);
            }
            SavedAccess::Frequency(counter) => self.out.extend_from_slice(&[opcode::FREQ, counter]),
        }
    }

    /// The beginning of a big collection's record, which precedes the elements. Returns how many there are. `None`: nothing is
    /// written, because the value is not written element by element.
    pub fn begin_record(
        &mut self,
        key: &[u8],
        object: &Object,
        expire_at_ms: Option<i64>,
        access: SavedAccess,
    ) -> Option<usize> {
        let (kind, len) = super::objects::kind_and_len(object)?;
        self.attributes(expire_at_ms, access);
        self.kind(kind);
        self.string(key);
        self.length(len as u64);
        Some(object.element_count())
    }

    /// The beginning of a string's record, which precedes the bytes: these are not compressed. Returns where the length is.
    pub fn begin_string(
        &mut self,
        key: &[u8],
        len: usize,
        expire_at_ms: Option<i64>,
        access: SavedAccess,
    ) -> usize {
        self.attributes(expire_at_ms, access);
        self.kind(ValueKind::String);
        self.string(key);
        let length_at = self.out.len();
        self.length(len as u64);
        length_at
    }

    /// The beginning of the record of a module's value, which precedes the value.
    pub fn begin_module(&mut self, key: &[u8], expire_at_ms: Option<i64>, access: SavedAccess) {
        self.attributes(expire_at_ms, access);
        self.kind(ValueKind::Module2);
        self.string(key);
    }

    /// A key with its value.
    pub fn record(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: SavedAccess,
    ) {
        self.attributes(expire_at_ms, access);
        let kind_at = self.out.len();
        self.out.push(0);
        self.string(key);
        self.out[kind_at] = self.contents(value) as u8;
    }

    /// A value with its kind before it, as in the payload of DUMP.
    pub fn value(&mut self, value: ValueRef<'_>) {
        let kind_at = self.out.len();
        self.out.push(0);
        self.out[kind_at] = self.contents(value) as u8;
    }

    /// A value of a module with its kind before it.
    pub fn module_value(&mut self, value: &ModuleValue) {
        self.kind(ValueKind::Module2);
        super::module::write_value(self, value);
    }

    /// A value without its kind, which is returned.
    fn contents(&mut self, value: ValueRef<'_>) -> ValueKind {
        match value {
            ValueRef::Int(number) => {
                self.integer(number);
                ValueKind::String
            }
            ValueRef::Str(bytes) => {
                self.string(bytes);
                ValueKind::String
            }
            ValueRef::Packed(kind, bytes) => self.packed(kind, bytes),
            ValueRef::Object(object) => super::objects::write(self, object),
        }
    }

    fn packed(&mut self, kind: PackedKind, bytes: &[u8]) -> ValueKind {
        match kind {
            PackedKind::List => {
                self.length(1);
                self.length(container::PACKED);
                self.string(bytes);
                ValueKind::ListQuicklist2
            }
            PackedKind::Hash => {
                self.string(bytes);
                ValueKind::HashListpack
            }
            PackedKind::ZSet => {
                self.string(bytes);
                ValueKind::ZSetListpack
            }
            PackedKind::IntSet => {
                self.string(bytes);
                ValueKind::SetIntset
            }
            // Version 10 knows no set in a listpack.
            PackedKind::Set => {
                let listpack = crate::types::listpack::Listpack::new(bytes);
                self.length(listpack.len() as u64);
                for (_, item) in listpack.iter() {
                    match item {
                        crate::types::listpack::Item::Int(number) => self.integer(number),
                        crate::types::listpack::Item::Str(string) => self.string(string),
                    }
                }
                ValueKind::Set
            }
        }
    }
}

/// The end of a file, whose bytes so far have this checksum. `None`: it gets none (rdbchecksum no).
pub fn end_of_file(checksum: Option<Crc64>) -> [u8; 9] {
    let mut end = [opcode::EOF, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(mut checksum) = checksum {
        checksum.update(&end[..1]);
        end[1..].copy_from_slice(&checksum.value().to_le_bytes());
    }
    end
}
