//! Checking bytes that should be a listpack.

use super::{
    COUNT_UNKNOWN, ELEMENT_LEN, EMPTY, END, HEADER_LEN, INT_13, INT_16, INT_64, Listpack, STR_12, STR_32,
    backlen_len, count_in_header, decode_backlen,
};
use std::fmt;

/// What is wrong with bytes that should be a listpack, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    pub offset: usize,
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {} of a listpack", self.what, self.offset)
    }
}

/// Checks bytes from outside: the header and the end, and with `deep` each element. Reading a listpack that was only
/// checked for the former may panic.
///
/// # Errors
/// The first damage found.
pub fn validate(bytes: &[u8], deep: bool) -> Result<(), Damage> {
    let damage = |offset, what| Err(Damage { offset, what });
    if bytes.len() < EMPTY.len() {
        return damage(bytes.len(), "too few bytes");
    }
    let listpack = Listpack(bytes);
    if listpack.u32_at(0) as usize != bytes.len() {
        return damage(0, "another number of bytes");
    }
    if bytes[listpack.end()] != END {
        return damage(listpack.end(), "no end");
    }
    if !deep {
        return Ok(());
    }

    let (mut pos, mut count) = (HEADER_LEN, 0);
    while pos < listpack.end() {
        pos = validate_element(bytes, pos)?;
        count += 1;
    }
    let counted = count_in_header(bytes);
    if counted != COUNT_UNKNOWN && counted != count {
        return damage(4, "another number of elements");
    }
    Ok(())
}

/// Checks the element at `pos`, which is before the end. Returns its end.
fn validate_element(bytes: &[u8], pos: usize) -> Result<usize, Damage> {
    let damage = |what| Damage { offset: pos, what };
    let first = bytes[pos];
    // The length of a string is looked at only if it lies before the end.
    let head_len = match first {
        ..INT_13 | INT_16..=INT_64 => 1,
        INT_13..STR_32 => 2,
        STR_32 => 5,
        0xF5.. => return Err(damage("an unknown encoding")),
    };
    let end = bytes.len() - 1;
    if end - pos < head_len {
        return Err(damage("an element beyond the end"));
    }
    let body_len = match first {
        STR_12..STR_32 => 2 + (usize::from(first & 0x0F) << 8 | usize::from(bytes[pos + 1])),
        STR_32 => 5 + Listpack(bytes).u32_at(pos + 1) as usize,
        _ => usize::from(ELEMENT_LEN[usize::from(first)]) - 1,
    };
    let len = body_len + backlen_len(body_len);
    if end - pos < len {
        return Err(damage("an element beyond the end"));
    }
    match decode_backlen(bytes, pos + len) {
        Some((backlen, at)) if backlen == body_len && at == pos + body_len => Ok(pos + len),
        _ => Err(damage("an element that is longer or shorter read from its end")),
    }
}
