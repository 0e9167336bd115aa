//! The sparse form: the registers as runs of equal ones, in as many opcodes as it takes.
//!
//! | name | bytes | meaning |
//! |---|---|---|
//! | ZERO | `00llllll` | l + 1 registers that are 0: 1 to 64 |
//! | XZERO | `01llllll llllllll` | l + 1 registers that are 0, the high bits first: 1 to 16384 |
//! | VAL | `1vvvvvll` | l + 1 registers, 1 to 4, that are v + 1: 1 to 32 |
//!
//! The runs of a well-formed string are those of all registers together, no fewer and no more. Raising a register splits
//! the opcode it lies in, and then joins neighbouring VALs of the same value, in the same way as Redis does: the bytes
//! come out equal.

use crate::registers::{Dense, Histogram, REGISTER_COUNT, Registers, set};
use crate::string::{Growable, HEADER_LEN_BYTES};

/// The greatest value that a VAL can have.
const VALUE_MAX: u8 = 32;

const ZERO_RUN_MAX: usize = 64;
const VAL_RUN_MAX: usize = 4;
const OPCODE_LEN_MAX_BYTES: usize = 2;

/// How many opcodes are looked at for joining, from the one before a change on.
const JOIN_STEPS: usize = 5;

/// What a change may touch: the opcode before, up to three in place of one, and those that follow as far as joining looks.
const WINDOW_LEN_BYTES: usize = 16;
const FOLLOWING_LEN_BYTES: usize = (JOIN_STEPS - 1) * OPCODE_LEN_MAX_BYTES;
const _: () = assert!(OPCODE_LEN_MAX_BYTES + 5 + FOLLOWING_LEN_BYTES <= WINDOW_LEN_BYTES);

/// All registers are 0: one XZERO over all of them.
pub const EMPTY: [u8; 2] = {
    let [high, low] = (REGISTER_COUNT as u16 - 1).to_be_bytes();
    [0x40 | high, low]
};

/// The opcodes do not add up to the registers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupted;

/// Equal registers, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Zero { count: usize },
    LongZero { count: usize },
    Value { value: u8, count: usize },
}

impl Run {
    /// The opcode at `at`. The second byte of an XZERO that is cut off reads as 0.
    fn decode(opcodes: &[u8], at: usize) -> Run {
        let byte = opcodes[at];
        if is_value(byte) {
            Run::Value { value: value(byte), count: usize::from(byte & 3) + 1 }
        } else if is_long_zero(byte) {
            let low = opcodes.get(at + 1).copied().unwrap_or(0);
            Run::LongZero { count: usize::from(u16::from_be_bytes([byte & 0x3f, low])) + 1 }
        } else {
            Run::Zero { count: usize::from(byte) + 1 }
        }
    }

    fn len_bytes(self) -> usize {
        if let Run::LongZero { .. } = self { 2 } else { 1 }
    }

    pub fn count(self) -> usize {
        let (Run::Zero { count } | Run::LongZero { count } | Run::Value { count, .. }) = self;
        count
    }

    pub fn value(self) -> u8 {
        if let Run::Value { value, .. } = self { value } else { 0 }
    }
}

fn is_value(byte: u8) -> bool {
    byte & 0x80 != 0
}

fn is_long_zero(byte: u8) -> bool {
    byte & 0xc0 == 0x40
}

fn value(byte: u8) -> u8 {
    ((byte >> 2) & 0x1f) + 1
}

fn value_opcode(value: u8, count: usize) -> u8 {
    0x80 | ((value - 1) << 2) | (count as u8 - 1)
}

/// The runs, in order; of opcodes that were [`check`]ed.
pub fn runs(opcodes: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let run = (at < opcodes.len()).then(|| Run::decode(opcodes, at))?;
        at += run.len_bytes();
        Some(run)
    })
}

/// Whether the runs are those of all registers together. Everything else here relies on that.
pub fn check(opcodes: &[u8]) -> Result<(), Corrupted> {
    let mut place = Place::BEGIN;
    // A string may be far longer than all registers take, and each opcode is one register at least.
    while place.at < opcodes.len() && place.first < REGISTER_COUNT {
        place.skip_to(opcodes, REGISTER_COUNT - 1);
        if place.at < opcodes.len() {
            place.step(opcodes, Run::decode(opcodes, place.at));
        }
    }
    if place.at == opcodes.len() && place.first == REGISTER_COUNT { Ok(()) } else { Err(Corrupted) }
}

/// An opcode, and what is before it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where it begins.
    at: usize,
    /// Its first register.
    first: usize,
    /// The opcode before it, and that one's first register.
    before: Option<(usize, usize)>,
}

impl Place {
    pub const BEGIN: Place = Place { at: 0, first: 0, before: None };

    fn step(&mut self, opcodes: &[u8], run: Run) {
        debug_assert!(self.at < opcodes.len());
        self.before = Some((self.at, self.first));
        self.at += run.len_bytes();
        self.first += run.count();
    }

    /// Goes on to the opcode in which register `index` lies, or to the end.
    fn skip_to(&mut self, opcodes: &[u8], index: usize) {
        loop {
            // Most opcodes of a string with many elements are one byte long: their runs can be added without a
            // decision at each.
            while let Some(chunk) = opcodes.get(self.at..).and_then(|rest| rest.first_chunk())
                && let Some(count) = short_runs(chunk)
                && self.first + count <= index
            {
                let last = *chunk.last().expect("it is not empty");
                self.at += chunk.len();
                self.first += count;
                let last_run = if is_value(last) { last & 3 } else { last };
                self.before = Some((self.at - 1, self.first - 1 - usize::from(last_run)));
            }
            let chunk_end = opcodes.len().min(self.at + CHUNK_LEN_BYTES);
            while self.at < chunk_end {
                let run = Run::decode(opcodes, self.at);
                if self.first + run.count() > index {
                    return;
                }
                self.step(opcodes, run);
            }
            if self.at >= opcodes.len() {
                return;
            }
        }
    }
}

const CHUNK_LEN_BYTES: usize = 16;

/// How many registers the opcodes of a chunk stand for, which begins with an opcode; `None` if one of them is an XZERO.
fn short_runs(chunk: &[u8; CHUNK_LEN_BYTES]) -> Option<usize> {
    let mut count = 0;
    let mut long_zeros = 0;
    for &byte in chunk {
        let mask = if byte & 0x80 != 0 { 3 } else { 0x3f };
        count += u32::from((byte & mask) + 1);
        long_zeros |= u8::from(is_long_zero(byte));
    }
    (long_zeros == 0).then_some(count as usize)
}

/// What became of a register that was to be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// It is as great already.
    No,
    Yes,
    /// The value, or the string that it would take, is too large for the sparse form. Nothing was changed.
    NeedsDense,
}

/// Raises a register of a string in the sparse form, whose opcodes were [`check`]ed, if `value` is greater. A string
/// longer than `len_max_bytes`, with its header, is not made. `from` is a place at or before the register, and is moved
/// on, to where the next greater register may be looked for.
pub fn raise(
    string: &mut impl Growable,
    from: &mut Place,
    index: usize,
    value: u8,
    len_max_bytes: usize,
) -> Raised {
    if value > VALUE_MAX {
        return Raised::NeedsDense;
    }
    let string_len = string.bytes().len();
    let opcodes = &string.bytes()[HEADER_LEN_BYTES..];
    from.skip_to(opcodes, index);
    let place = *from;
    let old = Run::decode(opcodes, place.at);
    if old.value() >= value {
        return Raised::No;
    }

    let mut window = Window::default();
    let begin = place.before.map_or(place.at, |(at, _)| at);
    window.extend(&opcodes[begin..place.at]);
    let before_len = window.len;
    window.split(old, index - place.first, value);
    let old_end = place.at + old.len_bytes();
    let new_len = window.len - before_len;
    if new_len > old.len_bytes() && string_len + new_len - old.len_bytes() > len_max_bytes {
        return Raised::NeedsDense;
    }
    let end = opcodes.len().min(old_end + FOLLOWING_LEN_BYTES);
    window.extend(&opcodes[old_end..end]);
    window.join();

    replace(string, HEADER_LEN_BYTES + begin, end - begin, window.bytes());
    if let Some((at, first)) = place.before {
        *from = Place { at, first, before: None };
    }
    Raised::Yes
}

/// The opcodes around a change.
#[derive(Default)]
struct Window {
    opcodes: [u8; WINDOW_LEN_BYTES],
    len: usize,
}

impl Window {
    fn bytes(&self) -> &[u8] {
        &self.opcodes[..self.len]
    }

    fn extend(&mut self, opcodes: &[u8]) {
        self.opcodes[self.len..self.len + opcodes.len()].copy_from_slice(opcodes);
        self.len += opcodes.len();
    }

    /// The same run as `old`, but for the register at `offset` within it.
    fn split(&mut self, old: Run, offset: usize, value: u8) {
        self.push(old.value(), offset);
        self.push(value, 1);
        self.push(old.value(), old.count() - offset - 1);
    }

    fn push(&mut self, value: u8, count: usize) {
        match (value, count) {
            (_, 0) => {}
            (0, 1..=ZERO_RUN_MAX) => self.extend(&[count as u8 - 1]),
            (0, _) => {
                let [high, low] = (count as u16 - 1).to_be_bytes();
                self.extend(&[0x40 | high, low]);
            }
            _ => self.extend(&[value_opcode(value, count)]),
        }
    }

    /// Joins VALs of the same value that stand side by side, as far as a VAL goes.
    fn join(&mut self) {
        let mut at = 0;
        for _ in 0..JOIN_STEPS {
            if at >= self.len {
                return;
            }
            let run = Run::decode(self.bytes(), at);
            let next = self.bytes().get(at + 1).copied().filter(|next| is_value(*next));
            if let (Run::Value { value: own, count }, Some(next)) = (run, next)
                && value(next) == own
                && count + usize::from(next & 3) < VAL_RUN_MAX
            {
                self.opcodes[at + 1] = value_opcode(own, count + usize::from(next & 3) + 1);
                self.opcodes.copy_within(at + 1..self.len, at);
                self.len -= 1;
            } else {
                at += run.len_bytes();
            }
        }
    }
}

/// Puts other bytes in place of `old_len` bytes from `at` on.
fn replace(string: &mut impl Growable, at: usize, old_len: usize, new: &[u8]) {
    let string_len = string.bytes().len();
    let new_len = string_len - old_len + new.len();
    if new_len > string_len {
        string.resize(new_len);
    }
    let bytes = string.bytes_mut();
    if new_len != string_len {
        bytes.copy_within(at + old_len..string_len, at + new.len());
    }
    bytes[at..at + new.len()].copy_from_slice(new);
    if new_len < string_len {
        string.resize(new_len);
    }
}

/// Raises each register to its value in opcodes that were [`check`]ed, where that is greater.
pub fn merge(registers: &mut Registers, opcodes: &[u8]) {
    let mut first = 0;
    for run in runs(opcodes) {
        if let Run::Value { value, count } = run {
            registers[first..first + count].iter_mut().for_each(|register| *register = value.max(*register));
        }
        first += run.count();
    }
}

/// Counts the registers of each value in opcodes that were [`check`]ed.
pub fn histogram(opcodes: &[u8]) -> Histogram {
    let mut histogram: Histogram = [0; _];
    runs(opcodes).for_each(|run| histogram[usize::from(run.value())] += run.count() as u32);
    histogram
}

/// Writes the registers of opcodes that were [`check`]ed in the dense form.
pub fn write_dense(opcodes: &[u8], dense: &mut Dense) {
    dense.fill(0);
    let mut first = 0;
    for run in runs(opcodes) {
        if let Run::Value { value, count } = run {
            (first..first + count).for_each(|index| set(dense, index, value));
        }
        first += run.count();
    }
}
