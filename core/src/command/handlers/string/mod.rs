//! String commands.
//!
//! A string is kept as bytes or, if it is a canonical integer, as a number; [`StringRef`](crate::command::typed)
//! hides the difference. What changes bytes in place (APPEND, SETRANGE) leaves a `raw` string behind, as OBJECT
//! ENCODING shows.

mod get;
mod lcs;
mod number;
mod range;
mod set;

use crate::command::table::Command;

pub const COMMANDS: &[Command] = &[
    get::GET,
    get::GETDEL,
    get::GETEX,
    get::MGET,
    get::STRLEN,
    lcs::LCS,
    number::DECR,
    number::DECRBY,
    number::INCR,
    number::INCRBY,
    number::INCRBYFLOAT,
    range::APPEND,
    range::GETRANGE,
    range::SETRANGE,
    range::SUBSTR,
    set::GETSET,
    set::MSET,
    set::MSETNX,
    set::PSETEX,
    set::SET,
    set::SETEX,
    set::SETNX,
];
