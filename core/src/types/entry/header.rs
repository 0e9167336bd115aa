//! Header: the first byte of an entry, which encodes the widths of the fields after it.
//!
//! ```text
//! bit 0   bits 1 to 4   bit 5        bits 6 and 7
//! wide    kind          has expire   key length of 1, 2 or 4 bytes
//! ```
//!
//! | kind    | value                                               | in the entry                                   |
//! |---------|-----------------------------------------------------|------------------------------------------------|
//! | 0       | integer                                             | 1 byte, 2 if wide                              |
//! | 1       | integer                                             | 4 bytes, 8 if wide                             |
//! | 2       | string: `embstr` or `raw` by its length             | its bytes                                      |
//! | 3       | string that is `raw` whatever its length            | its bytes                                      |
//! | 4       | big string                                          | pointer, length, capacity                      |
//! | 5       | object: big list, hash, set or sorted set; stream; a module's | owned pointer to a boxed enum        |
//! | 6       | list, one listpack and reported `quicklist`         | its bytes                                      |
//! | 7       | hash, `listpack`                                    | its bytes                                      |
//! | 8       | sorted set, `listpack`                              | its bytes                                      |
//! | 9       | set, `intset`                                       | its bytes                                      |
//! | 10      | set of few strings, kept as a listpack and reported `hashtable` | its bytes                          |
//! | 11 to 15 | as 6 to 10, too long for the entry                 | pointer, length, capacity                      |
//!
//! A value of "its bytes" has a length field before the expiry: 1 byte, 2 if wide. That is enough, because a value that
//! does not fit into a cell of the slab is stored elsewhere: in an allocation beside its entry (kinds 4 and 11 to 15), or
//! in the object that a small collection becomes.

/// Kind, place and widths of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header(pub(super) u8);

/// What a packed collection is: its type, and whether its bytes are a listpack or an intset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackedKind {
    List,
    /// Fields, each followed by its value.
    Hash,
    /// Members in order, each followed by its score.
    ZSet,
    /// A set of integers.
    IntSet,
    /// A set of few strings.
    Set,
}

impl PackedKind {
    const ALL: [PackedKind; 5] =
        [PackedKind::List, PackedKind::Hash, PackedKind::ZSet, PackedKind::IntSet, PackedKind::Set];
}

/// The type and the representation of an entry's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::types) enum Kind {
    Int,
    Str,
    Raw,
    BigString,
    Object,
    Packed(PackedKind),
    BigPacked(PackedKind),
}

/// What an entry contains of a value, by the number of its kind.
#[derive(Clone, Copy)]
enum Place {
    /// An integer of this many bytes, or twice as many if it is wide.
    Int(usize),
    /// A length field, and as many bytes.
    Inline,
    /// This many bytes, which point at the value.
    Pointer(usize),
}

/// Length of a big string's pointer, length and capacity.
pub(super) const BIG_STRING_LEN: usize = 24;
pub(super) const OBJECT_LEN: usize = size_of::<*mut u8>();

/// The numbers of [`Kind::Packed`] and [`Kind::BigPacked`] begin here.
const PACKED: u8 = 6;
const BIG_PACKED: u8 = PACKED + PackedKind::ALL.len() as u8;

const PLACES: [Place; 16] = {
    let mut places = [Place::Pointer(BIG_STRING_LEN); 16];
    places[0] = Place::Int(1);
    places[1] = Place::Int(4);
    places[2] = Place::Inline;
    places[3] = Place::Inline;
    places[5] = Place::Pointer(OBJECT_LEN);
    let mut packed = PACKED;
    while packed < BIG_PACKED {
        places[packed as usize] = Place::Inline;
        packed += 1;
    }
    places
};

const _: () = assert!(BIG_PACKED as usize + PackedKind::ALL.len() == PLACES.len());

const WIDE: u8 = 1;
const KIND_SHIFT: u32 = 1;
const KIND_MASK: u8 = 0b1111 << KIND_SHIFT;
const HAS_EXPIRE: u8 = 1 << 5;
const KEY_WIDTH_SHIFT: u32 = 6;

/// Where the key length is: behind the header and the access field.
pub(super) const KEY_LEN_AT: usize = 4;
pub(super) const EXPIRE_LEN: usize = 8;
/// The longest key length, value length and expiry.
pub(super) const HEADER_LEN_MAX: usize = KEY_LEN_AT + 4 + 2 + EXPIRE_LEN;
/// The longest value with a length field.
const INLINE_LEN_MAX: usize = u16::MAX as usize;

/// A bit for each number of a kind with a length field.
const INLINE_KINDS: u16 = {
    let mut bits = 0;
    let mut number = 0;
    while number < PLACES.len() {
        if matches!(PLACES[number], Place::Inline) {
            bits |= 1 << number;
        }
        number += 1;
    }
    bits
};

/// Where the key starts, by header.
static KEY_AT: [u8; 256] = {
    let mut table = [0; 256];
    let mut header = 0;
    while header < 256 {
        let flags = Header(header as u8);
        table[header] = (flags.expire_at() + if flags.has_expire() { EXPIRE_LEN } else { 0 }) as u8;
        header += 1;
    }
    table
};

impl Kind {
    const fn number(self) -> u8 {
        match self {
            // The number after it is taken by integers of 4 or 8 bytes.
            Kind::Int => 0,
            Kind::Str => 2,
            Kind::Raw => 3,
            Kind::BigString => 4,
            Kind::Object => 5,
            Kind::Packed(kind) => PACKED + kind as u8,
            Kind::BigPacked(kind) => BIG_PACKED + kind as u8,
        }
    }

    const fn bits(self) -> u8 {
        self.number() << KIND_SHIFT
    }
}

impl Header {
    #[inline]
    pub(super) fn of_int(number: i64, key_len: usize, has_expire: bool) -> Header {
        // The width's logarithm: kinds 0 and 1 are both integers, and `wide` is the bit below.
        let width = if i8::try_from(number).is_ok() {
            0
        } else if i16::try_from(number).is_ok() {
            1
        } else if i32::try_from(number).is_ok() {
            2
        } else {
            3
        };
        Header(Kind::Int.bits() | width).with(key_len, has_expire)
    }

    #[inline]
    pub(super) fn of_inline(kind: Kind, len: usize, key_len: usize, has_expire: bool) -> Header {
        debug_assert!(matches!(PLACES[kind.number() as usize], Place::Inline));
        Header::inline(kind.bits(), len).with(key_len, has_expire)
    }

    #[inline]
    fn inline(kind_bits: u8, len: usize) -> Header {
        assert!(len <= INLINE_LEN_MAX, "what is longer does not lie in its entry");
        Header(kind_bits | if len > 0xff { WIDE } else { 0 })
    }

    #[inline]
    pub(super) fn of_pointer(kind: Kind, key_len: usize, has_expire: bool) -> Header {
        debug_assert!(matches!(PLACES[kind.number() as usize], Place::Pointer(_)));
        Header(kind.bits()).with(key_len, has_expire)
    }

    #[inline]
    fn with(self, key_len: usize, has_expire: bool) -> Header {
        let key_width = match key_len {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            0x1_0000.. => {
                assert!(u32::try_from(key_len).is_ok(), "no string comes near 4 GiB");
                2
            }
        };
        Header(self.0 | key_width << KEY_WIDTH_SHIFT | if has_expire { HAS_EXPIRE } else { 0 })
    }

    /// As another kind with the same fields.
    #[inline]
    pub(super) fn with_kind(self, kind: Kind) -> Header {
        Header((self.0 & !KIND_MASK) | kind.bits())
    }

    #[inline]
    const fn number(self) -> u8 {
        (self.0 & KIND_MASK) >> KIND_SHIFT
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.number() {
            0 | 1 => Kind::Int,
            2 => Kind::Str,
            3 => Kind::Raw,
            4 => Kind::BigString,
            5 => Kind::Object,
            number @ PACKED..BIG_PACKED => Kind::Packed(PackedKind::ALL[usize::from(number - PACKED)]),
            number => Kind::BigPacked(PackedKind::ALL[usize::from(number - BIG_PACKED)]),
        }
    }

    /// Whether the value is a string inside the entry, as most are.
    #[inline]
    pub(super) fn is_inline_string(self) -> bool {
        const STRINGS: u8 = Kind::Str.bits() | Kind::Raw.bits();
        const COMMON: u8 = Kind::Str.bits() & Kind::Raw.bits();
        const { assert!((STRINGS ^ COMMON).count_ones() == 1) };
        self.0 & KIND_MASK & !(STRINGS ^ COMMON) == COMMON
    }

    /// Whether the value is an inline `Str`, and the entry has an expiry or none, as given.
    #[inline]
    pub(super) fn is_str(self, has_expire: bool) -> bool {
        self.0 & (KIND_MASK | HAS_EXPIRE) == Kind::Str.bits() | if has_expire { HAS_EXPIRE } else { 0 }
    }

    #[inline]
    pub(super) const fn has_expire(self) -> bool {
        self.0 & HAS_EXPIRE != 0
    }

    /// The logarithm of the key length's width.
    #[inline]
    pub(super) const fn key_width(self) -> u8 {
        self.0 >> KEY_WIDTH_SHIFT
    }

    /// The logarithm of the value length's width, where there is one.
    #[inline]
    pub(super) const fn value_width(self) -> u8 {
        self.0 & WIDE
    }

    /// Whether a value of another length would have the same header, if it is inline and has a length field.
    #[inline]
    pub(super) const fn has_room_for_len(self, len: usize) -> bool {
        (len > 0xff) == (self.value_width() != 0)
    }

    /// The logarithm of an integer's width.
    #[inline]
    pub(super) const fn int_width(self) -> u8 {
        self.0 & 0b11
    }

    /// Where the value length is, if there is one; in any case the end of the key length.
    #[inline]
    pub(super) const fn value_len_at(self) -> usize {
        KEY_LEN_AT + (1 << self.key_width())
    }

    #[inline]
    pub(super) const fn expire_at(self) -> usize {
        let has_value_len = INLINE_KINDS >> self.number() & 1 != 0;
        self.value_len_at() + if has_value_len { 1 << self.value_width() } else { 0 }
    }

    #[inline]
    pub(super) fn key_at(self) -> usize {
        usize::from(KEY_AT[usize::from(self.0)])
    }

    /// The length of the value within the entry. `inline_len` is called if the header does not determine it.
    #[inline]
    pub(super) fn value_len(self, inline_len: impl FnOnce() -> usize) -> usize {
        match PLACES[usize::from(self.number())] {
            Place::Int(len) => len << self.value_width(),
            Place::Inline => inline_len(),
            Place::Pointer(len) => len,
        }
    }

    /// Whether the value is a packed collection, in the entry or outside of it.
    #[inline]
    pub(super) fn is_packed(self) -> bool {
        self.number() >= PACKED
    }

    /// Whether the value is a packed collection in an allocation of its own.
    #[inline]
    pub(super) fn is_big_packed(self) -> bool {
        self.number() >= BIG_PACKED
    }

    /// Whether the value is a packed collection or an object.
    #[inline]
    pub(super) fn is_collection(self) -> bool {
        self.number() >= Kind::Object.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_LENS: [usize; 7] = [0, 1, 255, 256, 65_535, 65_536, 1 << 31];

    #[test]
    fn every_kind_in_every_shape_has_a_header_of_its_own_that_tells_the_widths() {
        let mut seen = std::collections::BTreeMap::new();
        for (number, place) in PLACES.iter().enumerate() {
            let bits = (number as u8) << KIND_SHIFT;
            let values: &[(Header, usize)] = match place {
                Place::Int(len) => &[(Header(bits), *len), (Header(bits | WIDE), 2 * len)],
                Place::Inline => &[
                    (Header::inline(bits, 0), 0),
                    (Header::inline(bits, 255), 255),
                    (Header::inline(bits, 256), 256),
                    (Header::inline(bits, 65_535), 65_535),
                ],
                Place::Pointer(len) => &[(Header(bits), *len)],
            };
            for &(value, value_len) in values {
                for key_len in KEY_LENS {
                    for has_expire in [false, true] {
                        let header = value.with(key_len, has_expire);
                        check(header, number, *place, key_len, value_len, has_expire);
                        let widths = (number, header.value_width(), header.key_width(), has_expire);
                        assert_eq!(*seen.entry(header.0).or_insert(widths), widths);
                    }
                }
            }
        }
        // Integers of 4 widths, 7 inline kinds of 2, and 7 pointers; each with 3 widths of key and maybe an expiry.
        assert_eq!(seen.len(), (4 + 7 * 2 + 7) * 3 * 2);
    }

    fn check(
        header: Header,
        number: usize,
        place: Place,
        key_len: usize,
        value_len: usize,
        has_expire: bool,
    ) {
        assert_eq!(usize::from(header.number()), number);
        assert_eq!(header.has_expire(), has_expire);
        assert_eq!(header.value_len(|| value_len), value_len);
        let key_width = 1usize << header.key_width();
        assert!((key_len as u128) < 1u128 << (8 * key_width), "{key_len} in {key_width} bytes");
        let value_width = match place {
            Place::Inline => 1usize << header.value_width(),
            Place::Int(_) | Place::Pointer(_) => 0,
        };
        assert!(value_width == 0 || (value_len as u128) < 1u128 << (8 * value_width));
        assert_eq!(header.value_len_at(), KEY_LEN_AT + key_width);
        assert_eq!(header.expire_at(), KEY_LEN_AT + key_width + value_width);
        assert_eq!(header.key_at(), header.expire_at() + if has_expire { EXPIRE_LEN } else { 0 });
        assert!(header.key_at() <= HEADER_LEN_MAX);
    }

    #[test]
    fn a_small_string_costs_six_bytes() {
        assert_eq!(Header::of_inline(Kind::Str, 100, 20, false).key_at(), 6);
        assert_eq!(Header::of_int(100, 20, false).key_at(), 5);
    }

    #[test]
    fn kinds_that_exist_come_back() {
        for kind in [Kind::Str, Kind::Raw] {
            let header = Header::of_inline(kind, 300, 3, true);
            assert_eq!((header.kind(), header.is_inline_string()), (kind, true));
            assert_eq!((header.is_str(true), header.is_str(false)), (kind == Kind::Str, false));
        }
        for number in [1, 1 << 8, 1 << 16, 1 << 32] {
            let header = Header::of_int(number, 3, false);
            assert_eq!((header.kind(), header.is_inline_string()), (Kind::Int, false));
        }
        for kind in PackedKind::ALL {
            let header = Header::of_inline(Kind::Packed(kind), 300, 3, true);
            assert_eq!((header.kind(), header.is_inline_string()), (Kind::Packed(kind), false));
            assert_eq!((header.is_packed(), header.is_big_packed()), (true, false));
            assert_eq!((header.has_room_for_len(256), header.has_room_for_len(255)), (true, false));
            let header = Header::of_pointer(Kind::BigPacked(kind), 3, true);
            assert_eq!((header.kind(), header.is_inline_string()), (Kind::BigPacked(kind), false));
            assert_eq!((header.is_packed(), header.is_big_packed()), (true, true));
            assert!(header.is_collection());
        }
        for kind in [Kind::BigString, Kind::Object] {
            let header = Header::of_pointer(kind, 3, false);
            assert_eq!((header.kind(), header.is_inline_string()), (kind, false));
            assert_eq!(header.is_collection(), kind == Kind::Object);
            assert!(!header.is_packed());
        }
        assert_eq!(Header::of_inline(Kind::Str, 300, 3, true).with_kind(Kind::Raw).kind(), Kind::Raw);
    }
}
