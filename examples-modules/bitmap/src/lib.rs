//! Bits of strings: single ones ([`bits`]), ranges of them ([`range`]), and integers of any number of bits ([`field`]).
//!
//! The commands are those of Redis 7.0, with its errors: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP, BITFIELD and
//! BITFIELD_RO. A string is as long as its last bit that was ever set or cleared asks for; what is past its end reads as
//! zeros.

mod bitcount;
mod bitfield;
mod bitop;
mod bits;
mod field;
mod range;
mod setbit;

use shardis_modules_api::{Args, Error, Loader, Module, ServerNumber, module, parse_integer};

/// The module. Argument when loaded: `PREFIX text`, with which the names of all commands begin then.
pub struct Bitmap;

impl Module for Bitmap {
    const NAME: &'static str = "bitmap";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        match args.as_slice() {
            [] => {}
            [option, prefix] if option.is_word("prefix") => {
                loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
            }
            _ => return Err(Error::from_text(c"ERR the one argument of this module is: PREFIX text")),
        }
        loader.follow(&STRING_LEN_MAX_BYTES)?;
        loader.command::<setbit::SetBit>()?;
        loader.command::<setbit::GetBit>()?;
        loader.command::<bitcount::BitCount>()?;
        loader.command::<bitcount::BitPos>()?;
        loader.command::<bitop::BitOp>()?;
        loader.command::<bitfield::BitField>()?;
        loader.command::<bitfield::BitFieldRo>()
    }
}

module!(Bitmap);

/// No string is made longer.
static STRING_LEN_MAX_BYTES: ServerNumber = ServerNumber::new("proto-max-bulk-len", 512 << 20);

const GROUP: &str = "bitmap";

const NOT_A_BIT_OFFSET: Error = Error::from_text(c"ERR bit offset is not an integer or out of range");

/// The number of a bit. With `#` before it, as BITFIELD takes it, it counts integers of `field_bits` bits.
/// Errors: "ERR bit offset is not an integer or out of range", also if no string may be that long.
fn parse_bit_offset(text: &[u8], field_bits: Option<u64>) -> Result<u64, Error> {
    let (digits, unit) = match (text, field_bits) {
        ([b'#', digits @ ..], Some(bits)) => (digits, bits),
        _ => (text, 1),
    };
    let number = parse_integer(digits).and_then(|number| u64::try_from(number).ok());
    let bit = number.and_then(|number| number.checked_mul(unit));
    bit.filter(|bit| bit / 8 < STRING_LEN_MAX_BYTES.get()).ok_or(NOT_A_BIT_OFFSET)
}
