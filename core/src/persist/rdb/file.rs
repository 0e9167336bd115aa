//! The items of a file, one after the other, over a window that its owner moves along the file.
//!
//! [`FileReader::next`] reads the item at the beginning of the window, or says how many bytes it takes: so a file is read in
//! chunks, and an item is looked at again only when the window has grown to what it takes. Values are not read, but
//! found and handed over as they stand there: whoever owns the key reads them with [`Record::read_value`].

use super::module::{AuxData, Modules, find_aux};
use super::read::{ModuleData, RdbString, ReadError, ReadResult, Reader};
use super::skip::skip_value;
use super::value::{Limits, plain_string, read_value};
use super::{REDIS_VERSION_MAX, VALKEY_VERSION, VERSION, ValueKind, opcode};
use crate::persist::crc64::Crc64;
use crate::types::module::{ModuleType, ModuleTypeId, ModuleTypes};
use crate::types::{NewValue, OwnedValue};

/// The magic and the version, in 9 bytes.
const HEADER_LEN: usize = 9;
/// From this version on there is a checksum at the end.
pub(super) const CHECKSUM_VERSION_MIN: u16 = 5;

/// What stands in a file.
#[derive(Debug)]
pub enum Item<'w> {
    /// Its beginning.
    Header {
        version: u16,
    },
    /// What the server wrote of itself.
    Aux {
        name: RdbString<'w>,
        value: RdbString<'w>,
    },
    /// The following keys are of another database.
    SelectDb {
        db: u64,
    },
    /// How many keys, and how many with an expiry, the database has.
    ResizeDb {
        keys: u64,
        expires: u64,
    },
    /// How many keys of a slot follow. Of no use here.
    SlotInfo,
    /// A library of functions.
    Library {
        text: RdbString<'w>,
    },
    /// Data of a module that belongs to no key.
    ModuleAux(AuxData<'w>),
    Record(Record<'w>),
    /// Its end. The checksum was right, if there was one.
    End,
}

/// A key with its value.
#[derive(Clone, Copy, Debug)]
pub struct Record<'w> {
    pub db: u64,
    /// Unix time in milliseconds.
    pub expire_at_ms: Option<i64>,
    pub access: SavedAccess,
    pub key: RdbString<'w>,
    pub kind: ValueKind,
    /// The value as it stands in the file.
    pub value: &'w [u8],
    /// Where in the file the value begins.
    pub offset: u64,
}

/// What a file says of a key's last access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SavedAccess {
    #[default]
    None,
    IdleSeconds(u64),
    Frequency(u8),
}

impl<'w> Record<'w> {
    /// The value, if it is a string that stands in the file as it is.
    pub fn plain_string(&self) -> Option<NewValue<'w>> {
        let mut reader = Reader::new(self.value, self.offset);
        (self.kind == ValueKind::String).then(|| plain_string(&mut reader)).flatten()
    }

    /// The type of a module's value; `None`: the value is no module's.
    ///
    /// # Errors
    /// It is of a module that is not loaded.
    pub fn module_type(&self, types: &ModuleTypes) -> ReadResult<Option<&'static dyn ModuleType>> {
        if self.kind != ValueKind::Module2 {
            return Ok(None);
        }
        let id = ModuleTypeId(Reader::new(self.value, self.offset).length()?);
        let of = types.find(id).ok_or(ReadError::NoModule { name: id.name(), data: ModuleData::Value })?;
        Ok(Some(of))
    }

    /// # Errors
    /// Damage; a collection without elements; a module's value that is not read.
    pub fn read_value(&self, limits: &Limits, modules: &Modules<'_>) -> ReadResult<OwnedValue> {
        let mut reader = Reader::new(self.value, self.offset);
        read_value(&mut reader, self.kind, limits, modules)
    }
}

/// Where in a file a reader is, and what holds for the items that follow.
pub struct FileReader {
    version: u16,
    db: u64,
    offset: u64,
    /// `None`: it is not to be checked.
    checksum: Option<Crc64>,
}

impl FileReader {
    /// At the beginning of a file.
    pub fn new(check_checksum: bool) -> FileReader {
        FileReader { version: 0, db: 0, offset: 0, checksum: check_checksum.then(Crc64::new) }
    }

    /// Behind the header of a file of the version that is written, without a checksum at its end.
    pub fn behind_header() -> FileReader {
        FileReader { version: VERSION, db: 0, offset: HEADER_LEN as u64, checksum: None }
    }

    /// The file's version; 0 before its header was read.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Where in the file the next item begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the item at the beginning of `window`, which is the file's part from [`FileReader::offset`] on. Returns it
    /// with its length, by which the window is to be moved.
    ///
    /// # Errors
    /// With `Incomplete` nothing has happened: it is to be called again with a longer window.
    pub fn next<'w>(&mut self, window: &'w [u8]) -> ReadResult<(Item<'w>, usize)> {
        let mut reader = Reader::new(window, self.offset);
        let item = if self.offset == 0 { self.header(&mut reader)? } else { self.item(&mut reader)? };
        let len = reader.position();
        if let (Some(checksum), false) = (&mut self.checksum, matches!(item, Item::End)) {
            checksum.update(&window[..len]);
        }
        self.offset += len as u64;
        Ok((item, len))
    }

    fn header(&mut self, reader: &mut Reader<'_>) -> ReadResult<Item<'static>> {
        let header = reader.take(HEADER_LEN)?;
        let number =
            |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u16>().ok());
        let signature = ReadError::Damaged { offset: 0, what: "Wrong signature trying to load DB from file" };
        let (version, is_known) = if let Some(digits) = header.strip_prefix(b"REDIS") {
            let version = number(digits).ok_or(signature)?;
            (version, (1..=REDIS_VERSION_MAX).contains(&version))
        } else if let Some(digits) = header.strip_prefix(b"VALKEY") {
            let version = number(digits).ok_or(signature)?;
            (version, version == VALKEY_VERSION)
        } else {
            return Err(signature);
        };
        if !is_known {
            // It stands behind the magic word.
            let offset = header.iter().take_while(|byte| !byte.is_ascii_digit()).count() as u64;
            return Err(ReadError::Version { offset, version });
        }
        self.version = version;
        Ok(Item::Header { version })
    }

    fn item<'w>(&mut self, reader: &mut Reader<'w>) -> ReadResult<Item<'w>> {
        let (mut expire_at_ms, mut access) = (None, SavedAccess::None);
        loop {
            let start = reader.clone();
            match reader.byte()? {
                opcode::EXPIRE_S => expire_at_ms = Some(reader.seconds()? * 1000),
                opcode::EXPIRE_MS => expire_at_ms = Some(reader.milliseconds()?),
                opcode::FREQ => access = SavedAccess::Frequency(reader.byte()?),
                opcode::IDLE => access = SavedAccess::IdleSeconds(reader.length()?),
                opcode::EOF => return self.end(reader),
                opcode::SELECT_DB => {
                    self.db = reader.length()?;
                    return Ok(Item::SelectDb { db: self.db });
                }
                opcode::RESIZE_DB => {
                    let (keys, expires) = (reader.length()?, reader.length()?);
                    return Ok(Item::ResizeDb { keys, expires });
                }
                opcode::AUX => {
                    let (name, value) = (reader.string()?, reader.string()?);
                    return Ok(Item::Aux { name, value });
                }
                opcode::LIBRARY => return Ok(Item::Library { text: reader.string()? }),
                opcode::MODULE_AUX => return Ok(Item::ModuleAux(find_aux(reader)?)),
                opcode::SLOT_INFO if self.version >= REDIS_VERSION_MAX => {
                    for _ in 0..3 {
                        reader.length()?;
                    }
                    return Ok(Item::SlotInfo);
                }
                byte => {
                    let kind = self.kind(&start, byte)?;
                    let key = reader.string()?;
                    let (at, offset) = (reader.position(), reader.offset());
                    skip_value(reader, kind)?;
                    let value = reader.since(at);
                    return Ok(Item::Record(Record {
                        db: self.db,
                        expire_at_ms,
                        access,
                        key,
                        kind,
                        value,
                        offset,
                    }));
                }
            }
        }
    }

    /// The kind of value that a byte tells. `start`: where it is.
    fn kind(&self, start: &Reader<'_>, byte: u8) -> ReadResult<ValueKind> {
        let unsupported = |what| Err(ReadError::Unsupported { offset: start.offset(), what });
        match byte {
            opcode::LIBRARY_PRE_GA => unsupported("a library of functions of a version before 7.0"),
            _ => match ValueKind::of(byte) {
                Ok(kind) => Ok(kind),
                Err(Some(what)) => unsupported(what),
                Err(None) => Err(ReadError::UnknownType { offset: start.offset(), byte }),
            },
        }
    }

    /// Reads what follows the opcode of the end.
    fn end(&mut self, reader: &mut Reader<'_>) -> ReadResult<Item<'static>> {
        if self.version < CHECKSUM_VERSION_MIN {
            return Ok(Item::End);
        }
        let until_checksum = reader.since(0);
        let offset = reader.offset();
        let said = u64::from_le_bytes(reader.take(8)?.try_into().expect("eight were taken"));
        if let Some(checksum) = &self.checksum {
            let mut checksum = checksum.clone();
            checksum.update(until_checksum);
            let computed = checksum.value();
            // Zero: the server that wrote it was told to make none.
            if said != 0 && computed != said {
                return Err(ReadError::Checksum { offset, said, computed });
            }
        }
        Ok(Item::End)
    }
}
