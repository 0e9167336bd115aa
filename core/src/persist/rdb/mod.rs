//! RDB: Redis' format of snapshots, and of one value in DUMP and RESTORE.
//!
//! ```text
//! file    REDIS0010  { opcode and what belongs to it | [expiry] [access] type key value }  EOF  CRC64
//! payload type value  version (2 bytes)  CRC64
//! ```
//!
//! - [`read`]: the primitives (lengths, strings, doubles), over a slice
//! - [`value`]: values, with [`packed`] for those that are one blob ([`ziplist`] and [`zipmap`] for blobs of old
//!   versions), [`build`] for those that are made of elements, [`stream`], and [`module`] for those of modules
//! - [`skip`]: finds where a value ends, without reading it
//! - [`file`]: the items of a file, read over a [`window`]; [`check`]: what redis-check-rdb says of one
//! - [`write`]: the primitives, values and the frame of a file
//! - [`dump`]: the payloads of DUMP and of FUNCTION DUMP
//!
//! Versions 1 to 11 of Redis are read, and version 80 of Valkey. Version 10 is written, as Redis 7.0 does.
//!
//! The reader never trusts a length: it allocates no more than the bytes that are there justify. Whatever a value is
//! made of is checked completely, so the structures may trust their bytes afterwards. A position in an error is the
//! one in the file.

pub mod build;
pub mod check;
pub mod dump;
pub mod file;
pub mod module;
pub mod objects;
pub mod packed;
pub mod read;
pub mod skip;
pub mod stream;
pub mod value;
pub mod window;
pub mod write;
pub mod ziplist;
pub mod zipmap;

#[cfg(test)]
mod tests;

pub use file::{FileReader, Item, Record};
pub use read::{ReadError, Reader};
pub use value::Limits;

/// The version of the files and payloads that are written.
pub const VERSION: u16 = 10;
/// The newest version of Redis' that is read.
pub const REDIS_VERSION_MAX: u16 = 11;
/// The version of Valkey's that is read.
pub const VALKEY_VERSION: u16 = 80;

/// What a value in a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ValueKind {
    String = 0,
    List = 1,
    Set = 2,
    /// Scores are text.
    ZSet = 3,
    Hash = 4,
    /// Scores are doubles.
    ZSet2 = 5,
    /// Of a module, which says what follows.
    Module2 = 7,
    HashZipmap = 9,
    ListZiplist = 10,
    SetIntset = 11,
    ZSetZiplist = 12,
    HashZiplist = 13,
    /// Of ziplists.
    ListQuicklist = 14,
    /// As of Redis 5.
    Stream = 15,
    HashListpack = 16,
    ZSetListpack = 17,
    /// Of listpacks, and of nodes that are one big element.
    ListQuicklist2 = 18,
    /// With the counters of Redis 7.0.
    Stream2 = 19,
    /// From version 11 on.
    SetListpack = 20,
    /// With the consumers' active time, from version 11 on.
    Stream3 = 21,
}

impl ValueKind {
    /// # Errors
    /// The name of a kind that is known but not read, or `None`.
    pub fn of(byte: u8) -> Result<ValueKind, Option<&'static str>> {
        Ok(match byte {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::ZSet,
            4 => Self::Hash,
            5 => Self::ZSet2,
            // Only release candidates of Redis 4.0 wrote it.
            6 => return Err(Some("a value of a module without tags")),
            7 => Self::Module2,
            9 => Self::HashZipmap,
            10 => Self::ListZiplist,
            11 => Self::SetIntset,
            12 => Self::ZSetZiplist,
            13 => Self::HashZiplist,
            14 => Self::ListQuicklist,
            15 => Self::Stream,
            16 => Self::HashListpack,
            17 => Self::ZSetListpack,
            18 => Self::ListQuicklist2,
            19 => Self::Stream2,
            20 => Self::SetListpack,
            21 => Self::Stream3,
            22..=25 => return Err(Some("a hash whose fields have a time to live")),
            _ => return Err(None),
        })
    }

    /// Redis' name, as redis-check-rdb shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list-linked",
            Self::Set => "set-hashtable",
            Self::ZSet => "zset-v1",
            Self::Hash => "hash-hashtable",
            Self::ZSet2 => "zset-v2",
            Self::Module2 => "module-v2",
            Self::HashZipmap => "hash-zipmap",
            Self::ListZiplist => "list-ziplist",
            Self::SetIntset => "set-intset",
            Self::ZSetZiplist => "zset-ziplist",
            Self::HashZiplist => "hash-ziplist",
            Self::ListQuicklist => "quicklist",
            Self::Stream => "stream",
            Self::HashListpack => "hash-listpack",
            Self::ZSetListpack => "zset-listpack",
            Self::ListQuicklist2 => "quicklist-v2",
            Self::Stream2 => "stream-v2",
            Self::SetListpack => "set-listpack",
            Self::Stream3 => "stream-v3",
        }
    }
}

/// What stands in a file besides values.
pub(super) mod opcode {
    /// Hints of how many keys of a slot follow: of servers in cluster mode.
    pub(crate) const SLOT_INFO: u8 = 244;
    /// A library of functions.
    pub(crate) const LIBRARY: u8 = 245;
    /// The same, as release candidates of Redis 7.0 wrote it.
    pub(crate) const LIBRARY_PRE_GA: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    /// Seconds since the next key was last used.
    pub(crate) const IDLE: u8 = 248;
    /// How often the next key was used: LFU's logarithmic counter.
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DB: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_S: u8 = 253;
    pub(crate) const SELECT_DB: u8 = 254;
    pub(crate) const EOF: u8 = 255;
}

/// How a length is written.
pub(super) mod length {
    pub(crate) const BITS_14: u8 = 0x40;
    pub(crate) const BITS_32: u8 = 0x80;
    pub(crate) const BITS_64: u8 = 0x81;
    /// Not a length: the low bits say how a string is encoded.
    pub(crate) const ENCODED: u8 = 0xC0;
}

/// How a string that is not its bytes is encoded.
pub(super) mod encoding {
    pub(crate) const INT8: u8 = 0;
    pub(crate) const INT16: u8 = 1;
    pub(crate) const INT32: u8 = 2;
    pub(crate) const LZF: u8 = 3;
}

/// How a quicklist's node is stored.
pub(super) mod container {
    /// One big element.
    pub(crate) const PLAIN: u64 = 1;
    /// A listpack.
    pub(crate) const PACKED: u64 = 2;
}
