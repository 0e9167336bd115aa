//! HyperLogLog: how many different elements were added, in 12 KB at most, with a standard error of 0.81%.
//!
//! Each element is hashed. 14 bits of the hash choose one of 16384 registers (`registers.rs`); the register keeps the
//! greatest length that any run of zeros in the rest of a hash has had. The more elements there are, the longer the
//! longest runs: `estimate.rs` turns the registers into a number. Merging two sets is taking the greater of each register.
//!
//! The registers lie in an ordinary string ([`string`]), in Redis' layout, so that strings exchanged with Redis count
//! alike: 6 bits each, or, while most of them are zero, as runs (`sparse.rs`).
//!
//! The commands are those of Redis 7.0, with its errors: PFADD, PFCOUNT, PFMERGE, PFDEBUG and PFSELFTEST. Unlike there,
//! each of them checks a whole string before it does anything with it.

mod commands;
mod debug;
mod estimate;
mod hash;
mod registers;
mod sparse;
pub mod string;

use shardis_modules_api::{Args, Error, Loader, Module, ServerNumber, module};

/// The module. Argument when loaded: `PREFIX text`, with which the names of all commands begin then.
pub struct HyperLogLog;

impl Module for HyperLogLog {
    const NAME: &'static str = "hyperloglog";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        match args.as_slice() {
            [] => {}
            [option, prefix] if option.is_word("prefix") => {
                loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
            }
            _ => return Err(Error::from_text(c"ERR the one argument of this module is: PREFIX text")),
        }
        loader.follow(&SPARSE_LEN_MAX_BYTES)?;
        loader.command::<commands::PfAdd>()?;
        loader.command::<commands::PfCount>()?;
        loader.command::<commands::PfMerge>()?;
        loader.command::<debug::PfDebug>()?;
        loader.command::<debug::PfSelfTest>()
    }
}

module!(HyperLogLog);

static SPARSE_LEN_MAX_BYTES: ServerNumber = ServerNumber::new("hll-sparse-max-bytes", 3000);

/// The longest string, with its header, that keeps the sparse form.
fn sparse_len_max_bytes() -> usize {
    usize::try_from(SPARSE_LEN_MAX_BYTES.get()).unwrap_or(usize::MAX)
}

const GROUP: &str = "hyperloglog";
