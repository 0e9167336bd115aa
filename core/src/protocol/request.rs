//! The request parser: RESP arrays of bulk strings, and inline lines.
//!
//! It is resumable. A request that has arrived in part leaves behind where the next unread length line or argument
//! begins, so more bytes continue the work and never repeat it: a client that sends a byte at a time costs O(n).
//! It is also oblivious to how the bytes were cut: the outcome depends on the bytes alone. (Redis decides whether a line
//! is too long by what a `read` happened to bring; here it is too long when it is.)
//!
//! Nothing is allocated on the word of a client. A declared count or length is only ever compared with a limit and with
//! the bytes that are there.
use std::borrow::Cow;
use std::fmt;

use super::argv::{ArgRange, OwnedArgv};
use super::inline;
use super::number::parse_i64;

/// Longest line (an inline request, or a count or length with its line end still to come) in bytes.
pub const INLINE_LEN_MAX: usize = 64 * 1024;
/// A client that must authenticate and has not may send so many arguments of so many bytes: AUTH and HELLO fit.
pub const UNAUTHENTICATED_MULTIBULK_LEN_MAX: i64 = 10;
pub const UNAUTHENTICATED_BULK_LEN_MAX: u64 = 16 * 1024;
/// Longest request in bytes, so that an [`ArgRange`] reaches every argument. An argument that would end past it is
/// refused as too long.
pub const REQUEST_LEN_MAX: usize = u32::MAX as usize;

const _: () = assert!(INLINE_LEN_MAX < REQUEST_LEN_MAX);

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument in bytes (`proto-max-bulk-len`).
    pub bulk_len_max: u64,
    /// Most arguments of a request, the command's name included.
    pub multibulk_len_max: i64,
    /// Longest line in bytes.
    pub inline_len_max: usize,
    /// False for a client that must authenticate first: it gets the `UNAUTHENTICATED_*` limits.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_len_max: 512 * 1024 * 1024,
            multibulk_len_max: i32::MAX as i64,
            inline_len_max: INLINE_LEN_MAX,
            authenticated: true,
        }
    }
}

/// What no request may look like. The connection gets the text as an error reply and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    TooBigInlineRequest,
    UnbalancedQuotes,
    TooBigMultibulkCountString,
    InvalidMultibulkLen,
    UnauthenticatedMultibulkLen,
    TooBigBulkCountString,
    /// Where an argument's `$` belongs stood this byte.
    ExpectedDollar(u8),
    InvalidBulkLen,
    UnauthenticatedBulkLen,
}

impl ProtocolError {
    /// The error reply's text, code included: `ERR Protocol error: invalid bulk length`. It may hold any byte but CR
    /// and LF.
    pub fn text(self) -> Cow<'static, [u8]> {
        let text: &'static str = match self {
            Self::TooBigInlineRequest => "ERR Protocol error: too big inline request",
            Self::UnbalancedQuotes => "ERR Protocol error: unbalanced quotes in request",
            Self::TooBigMultibulkCountString => "ERR Protocol error: too big mbulk count string",
            Self::InvalidMultibulkLen => "ERR Protocol error: invalid multibulk length",
            Self::UnauthenticatedMultibulkLen => "ERR Protocol error: unauthenticated multibulk length",
            Self::TooBigBulkCountString => "ERR Protocol error: too big bulk count string",
            Self::ExpectedDollar(got) => {
                let got = if matches!(got, b'\r' | b'\n') { b' ' } else { got };
                return Cow::Owned([b"ERR Protocol error: expected '$', got '", &[got][..], b"'"].concat());
            }
            Self::InvalidBulkLen => "ERR Protocol error: invalid bulk length",
            Self::UnauthenticatedBulkLen => "ERR Protocol error: unauthenticated bulk length",
        };
        Cow::Borrowed(text.as_bytes())
    }

    /// The words of the log line `Protocol error (WORDS) from client: ...`, which are not those of the reply.
    pub fn log_words(self) -> &'static str {
        match self {
            Self::TooBigInlineRequest => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in inline request",
            Self::TooBigMultibulkCountString => "too big mbulk count string",
            Self::InvalidMultibulkLen => "invalid mbulk count",
            Self::UnauthenticatedMultibulkLen => "unauth mbulk count",
            Self::TooBigBulkCountString => "too big bulk count string",
            Self::ExpectedDollar(_) => "expected $ but got something else",
            Self::InvalidBulkLen => "invalid bulk length",
            Self::UnauthenticatedBulkLen => "unauth bulk length",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().escape_ascii().fmt(f)
    }
}

impl std::error::Error for ProtocolError {}

/// What [`RequestParser::parse`] found at the start of the buffer. `consumed` counts from the buffer's start.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A request of at least one argument; its ranges were appended to `args` and lie within the first `consumed` bytes.
    Request { consumed: usize },
    /// An inline request with quotes: its arguments are not bytes of the buffer. `args` is untouched.
    Inline { consumed: usize, argv: OwnedArgv },
    /// A blank line or an array of no arguments: it is skipped and gets no reply.
    Empty { consumed: usize },
    /// The request goes on past the buffer. `args` is untouched. `missing` is set within an argument: so many bytes, its
    /// line end included, are still to come, and can be read straight into place behind the buffer.
    Incomplete { missing: Option<usize> },
    /// The stream cannot be read any further. `args` is untouched.
    Error(ProtocolError),
}

/// Finds the request a buffer starts with, over as many calls as its bytes take to arrive.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Offset of what is read next: a line's start, or an argument's first byte once its length is known.
    at: usize,
    /// No line that begins at `at` ends before this offset.
    searched_to: usize,
    /// Arguments still to come; 0 until the request's first line was read.
    args_left: u32,
    /// Length of the argument at `at`, once its line was read.
    bulk_len: Option<u32>,
    /// The ranges found by earlier calls for a request that is still incomplete.
    parked: Vec<ArgRange>,
}

impl RequestParser {
    /// Reads on in the request that `buf` starts with. Between calls that return `Incomplete`, `buf` starts at the same
    /// byte and only grows; after any other outcome the next call starts a new request at `buf`'s start.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], limits: &Limits, args: &mut Vec<ArgRange>) -> Parsed {
        match buf.first() {
            Some(b'*') => {
                if self.args_left == 0
                    && let Some(consumed) = usual_request(buf, limits, args)
                {
                    self.searched_to = 0;
                    return Parsed::Request { consumed };
                }
                self.parse_multibulk(buf, limits, args)
            }
            Some(_) => self.parse_inline(buf, limits, args),
            None => Parsed::Incomplete { missing: None },
        }
    }

    /// Whether the next request can be read by [`parse_alike`](Self::parse_alike). This does not change until one has been
    /// read in part.
    #[inline]
    pub fn may_be_alike(&self, limits: &Limits) -> bool {
        self.args_left == 0 && limits.authenticated
    }

    /// Reads a request that begins as `beginning` says, if `buf` starts with one that is whole. `None` for any other: the
    /// caller parses that one. `args` is then as before. [`may_be_alike`](Self::may_be_alike) must hold.
    #[inline]
    pub fn parse_alike(
        &mut self,
        buf: &[u8],
        beginning: &Beginning,
        limits: &Limits,
        args: &mut Vec<ArgRange>,
    ) -> Option<usize> {
        debug_assert!(self.may_be_alike(limits));
        if !beginning.begins(buf)? {
            return None;
        }
        let args_before = args.len();
        args.push(beginning.first_arg);
        let first_end = beginning.first_arg.start + beginning.first_arg.len + 2;
        let consumed = usual_args(buf, first_end as usize, beginning.args_left, limits, args);
        match consumed {
            Some(_) => self.searched_to = 0,
            None => args.truncate(args_before),
        }
        consumed
    }

    /// Forgets a request that was read in part.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Where the argument begins that is not whole yet, from the request's first byte on, and how long the arguments before
    /// it are together; 0 if its length is not known.
    pub fn begun_arg(&self) -> (usize, usize) {
        match self.bulk_len {
            Some(_) => (self.at, self.parked.iter().map(|range| range.len as usize).sum()),
            None => (0, 0),
        }
    }

    /// The heap bytes behind it, for memory accounting.
    pub fn heap_len_bytes(&self) -> usize {
        self.parked.capacity() * size_of::<ArgRange>()
    }

    #[inline(never)]
    fn parse_multibulk(&mut self, buf: &[u8], limits: &Limits, args: &mut Vec<ArgRange>) -> Parsed {
        let args_before = args.len();
        let step = if self.parked.is_empty() {
            let step = self.read_multibulk(buf, limits, args);
            if !matches!(step, Ok(Step::Done { .. })) {
                self.parked.extend_from_slice(&args[args_before..]);
                args.truncate(args_before);
            }
            step
        } else {
            // Ranges of earlier calls are not moved again before the request is whole: a million arguments that arrive
            // in a thousand pieces stay linear.
            let mut parked = std::mem::take(&mut self.parked);
            let step = self.read_multibulk(buf, limits, &mut parked);
            match step {
                Ok(Step::Done { .. }) => args.append(&mut parked),
                Ok(Step::More { .. }) | Err(_) => self.parked = parked,
            }
            step
        };

        match step {
            Ok(Step::Done { consumed }) => {
                (self.at, self.searched_to) = (0, 0);
                if args.len() == args_before {
                    Parsed::Empty { consumed }
                } else {
                    Parsed::Request { consumed }
                }
            }
            Ok(Step::More { missing }) => Parsed::Incomplete { missing },
            Err(error) => {
                self.reset();
                Parsed::Error(error)
            }
        }
    }

    /// Appends to `ranges` the arguments that are whole. Unless it returns `Done`, `self` holds where to go on; when it
    /// does, `self` is as new but for the offsets.
    fn read_multibulk(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        ranges: &mut Vec<ArgRange>,
    ) -> Result<Step, ProtocolError> {
        let mut args_left = self.args_left;
        let mut at = self.at;
        if args_left == 0 {
            let Some(line) = self.read_count(buf, limits)? else { return Ok(Step::More { missing: None }) };
            if line.value == 0 {
                return Ok(Step::Done { consumed: line.end });
            }
            args_left = line.value;
            at = line.end;
        }

        let bulk_len_max = limits.usual_bulk_len_max();
        let mut bulk_len = self.bulk_len.take();
        while args_left > 0 {
            let len = match bulk_len.take() {
                Some(len) => len,
                None => {
                    let line = match short_line(buf, at, b'$') {
                        Some(line) if u64::from(line.value) <= bulk_len_max => Some(line),
                        _ => self.read_bulk_len(buf, at, limits)?,
                    };
                    let Some(line) = line else {
                        (self.at, self.args_left) = (at, args_left);
                        return Ok(Step::More { missing: None });
                    };
                    at = line.end;
                    line.value
                }
            };
            let end = at + len as usize + 2;
            if end > buf.len() {
                if end > REQUEST_LEN_MAX {
                    return Err(ProtocolError::InvalidBulkLen);
                }
                (self.at, self.args_left, self.bulk_len) = (at, args_left, Some(len));
                return Ok(Step::More { missing: Some(end - buf.len()) });
            }
            if end > REQUEST_LEN_MAX {
                return Err(ProtocolError::InvalidBulkLen);
            }
            ranges.push(ArgRange { start: at as u32, len });
            // What stands where the line end belongs is not looked at, as in Redis.
            at = end;
            args_left -= 1;
        }
        self.args_left = 0;
        Ok(Step::Done { consumed: at })
    }

    /// The request's first line, `*COUNT`. A count below zero counts as none.
    fn read_count(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Line>, ProtocolError> {
        if let Some(line) = short_line(buf, 0, b'*')
            && i64::from(line.value) <= limits.usual_multibulk_len_max()
        {
            return Ok(Some(line));
        }
        let Some(len) = self.line_len(buf, 0, limits, ProtocolError::TooBigMultibulkCountString)? else {
            return Ok(None);
        };
        let count = parse_i64(&buf[1..len]).ok_or(ProtocolError::InvalidMultibulkLen)?;
        if count > limits.multibulk_len_max {
            return Err(ProtocolError::InvalidMultibulkLen);
        }
        if count > limits.usual_multibulk_len_max() {
            return Err(ProtocolError::UnauthenticatedMultibulkLen);
        }
        let value = u32::try_from(count.max(0)).map_err(|_| ProtocolError::InvalidMultibulkLen)?;
        Ok(Some(Line { value, end: len + 2 }))
    }

    /// An argument's length line, `$LEN`, at `at`.
    fn read_bulk_len(
        &mut self,
        buf: &[u8],
        at: usize,
        limits: &Limits,
    ) -> Result<Option<Line>, ProtocolError> {
        let Some(line_len) = self.line_len(buf, at, limits, ProtocolError::TooBigBulkCountString)? else {
            return Ok(None);
        };
        let line = &buf[at..at + line_len];
        match line.first() {
            Some(b'$') => {}
            // An empty line: what stands in the dollar's place is the line's own CR.
            None => return Err(ProtocolError::ExpectedDollar(b'\r')),
            Some(&got) => return Err(ProtocolError::ExpectedDollar(got)),
        }
        let len = parse_i64(&line[1..]).and_then(|len| u64::try_from(len).ok());
        let len = len.filter(|&len| len <= limits.bulk_len_max).ok_or(ProtocolError::InvalidBulkLen)?;
        if len > limits.usual_bulk_len_max() {
            return Err(ProtocolError::UnauthenticatedBulkLen);
        }
        let value = u32::try_from(len).map_err(|_| ProtocolError::InvalidBulkLen)?;
        Ok(Some(Line { value, end: at + line_len + 2 }))
    }

    /// Length of the line at `at` up to its CR, once the byte behind the CR has arrived too. As for Redis, that byte is
    /// any, and a line with a zero byte never ends: it is reported when it has become too long.
    fn line_len(
        &mut self,
        buf: &[u8],
        at: usize,
        limits: &Limits,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let line = &buf[at..];
        let searchable = &line[..line.len().min(limits.inline_len_max + 1)];
        let searched_len = self.searched_to.saturating_sub(at);
        match memchr::memchr2(b'\r', 0, &searchable[searched_len..]).map(|i| searched_len + i) {
            Some(i) if line[i] == b'\r' => {
                self.searched_to = at + i;
                return Ok((i + 1 < line.len()).then_some(i));
            }
            zero_or_none => self.searched_to = at + zero_or_none.unwrap_or(searchable.len()),
        }
        if line.len() > limits.inline_len_max { Err(too_big) } else { Ok(None) }
    }

    /// A request that does not start with `*`: a line of words.
    fn parse_inline(&mut self, buf: &[u8], limits: &Limits, args: &mut Vec<ArgRange>) -> Parsed {
        let searchable = &buf[..buf.len().min(limits.inline_len_max + 1)];
        let unsearched = &searchable[self.searched_to..];
        let newline = match memchr::memchr2(b'\n', 0, unsearched).map(|i| self.searched_to + i) {
            Some(i) if buf[i] == b'\n' => i,
            // As in `line_len`: no end of a line behind a zero byte.
            zero_or_none => {
                self.searched_to = zero_or_none.unwrap_or(searchable.len());
                if buf.len() <= limits.inline_len_max {
                    return Parsed::Incomplete { missing: None };
                }
                self.reset();
                return Parsed::Error(ProtocolError::TooBigInlineRequest);
            }
        };
        self.searched_to = 0;
        let line = buf[..newline].strip_suffix(b"\r").unwrap_or(&buf[..newline]);
        let consumed = newline + 1;

        if memchr::memchr2(b'"', b'\'', line).is_some() {
            return match inline::split_words(line) {
                Ok(argv) => Parsed::Inline { consumed, argv },
                Err(inline::UnbalancedQuotes) => Parsed::Error(ProtocolError::UnbalancedQuotes),
            };
        }
        let args_before = args.len();
        inline::split_unquoted(line, 0, args);
        if args.len() == args_before { Parsed::Empty { consumed } } else { Parsed::Request { consumed } }
    }
}

enum Step {
    Done { consumed: usize },
    More { missing: Option<usize> },
}

/// A count or length, and the offset behind its line's end.
struct Line {
    value: u32,
    end: usize,
}

impl Limits {
    /// Beyond this an unauthenticated client's argument gets an error of its own.
    #[inline]
    fn usual_bulk_len_max(&self) -> u64 {
        if self.authenticated {
            self.bulk_len_max
        } else {
            self.bulk_len_max.min(UNAUTHENTICATED_BULK_LEN_MAX)
        }
    }

    #[inline]
    fn usual_multibulk_len_max(&self) -> i64 {
        if self.authenticated {
            self.multibulk_len_max
        } else {
            self.multibulk_len_max.min(UNAUTHENTICATED_MULTIBULK_LEN_MAX)
        }
    }
}

/// Reads the request that `buf` starts with if it is one as nearly all are: whole, of an authenticated client, and each
/// of its lines a [`short_line`]. `None` for any other, right or wrong: the caller reads that one with care. `args` is then
/// as before.
#[inline]
fn usual_request(buf: &[u8], limits: &Limits, args: &mut Vec<ArgRange>) -> Option<usize> {
    let count = short_line(buf, 0, b'*')?;
    if !limits.authenticated || count.value == 0 || i64::from(count.value) > limits.multibulk_len_max {
        return None;
    }
    let args_before = args.len();
    let consumed = usual_args(buf, count.end, count.value, limits, args);
    if consumed.is_none() {
        args.truncate(args_before);
    }
    consumed
}

/// Reads `count` arguments from `at` on, of which each is as usual. Returns where they end.
#[inline(always)]
fn usual_args(
    buf: &[u8],
    mut at: usize,
    count: u32,
    limits: &Limits,
    args: &mut Vec<ArgRange>,
) -> Option<usize> {
    let end_max = buf.len().min(REQUEST_LEN_MAX);
    for _ in 0..count {
        let line = short_line(buf, at, b'$')?;
        let end = line.end + line.value as usize + 2;
        if end > end_max || u64::from(line.value) > limits.bulk_len_max {
            return None;
        }
        args.push(ArgRange { start: line.end as u32, len: line.value });
        at = end;
    }
    Some(at)
}

/// How a request begins: the first line, and the first argument with its line end. Requests that begin with the same bytes
/// call the same command with the same number of arguments, and most requests begin as the one before them.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// The first bytes of the request, and which of them count.
    words: [u64; WORDS],
    masks: [u64; WORDS],
    first_arg: ArgRange,
    /// Arguments behind the first.
    args_left: u32,
}

/// How many words of bytes a [`Beginning`] may have: enough for most names of commands.
const WORDS: usize = 3;
const BEGINNING_LEN_MAX: usize = WORDS * size_of::<u64>();

impl Beginning {
    /// Of a request that was parsed from the start of `buf`. `None` if it begins otherwise than usual, or with too long an
    /// argument.
    pub fn of(buf: &[u8]) -> Option<Beginning> {
        let words = words_of(buf)?;
        let count = short_line(buf, 0, b'*')?;
        let first = short_line(buf, count.end, b'$')?;
        let len = first.end + first.value as usize + 2;
        if count.value == 0 || len > BEGINNING_LEN_MAX {
            return None;
        }
        let mask = |at: usize| match len.saturating_sub(at * size_of::<u64>()) {
            0 => 0,
            bytes @ 1..8 => u64::MAX >> (u64::BITS - 8 * bytes as u32),
            _ => u64::MAX,
        };
        let first_arg = ArgRange { start: first.end as u32, len: first.value };
        Some(Beginning { words, masks: std::array::from_fn(mask), first_arg, args_left: count.value - 1 })
    }

    /// Whether `buf` starts with these bytes. `None` if it is too short to tell.
    #[inline(always)]
    fn begins(&self, buf: &[u8]) -> Option<bool> {
        let words = words_of(buf)?;
        let differing = (0..WORDS).fold(0, |bits, at| bits | (words[at] ^ self.words[at]) & self.masks[at]);
        Some(differing == 0)
    }
}

#[inline(always)]
fn words_of(buf: &[u8]) -> Option<[u64; WORDS]> {
    let bytes: &[u8; BEGINNING_LEN_MAX] = buf.first_chunk()?;
    let (words, _) = bytes.as_chunks();
    Some(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
}

/// The line nearly every request is made of: `prefix`, one to nine digits as Redis wants them, CR and a byte more.
/// `None` for any other, whole or not, right or wrong: the caller reads that one with care.
#[inline(always)]
fn short_line(buf: &[u8], at: usize, prefix: u8) -> Option<Line> {
    // Most have one digit or two.
    if let Some(&[first, tens, ones, behind, _]) = buf.get(at..)?.first_chunk() {
        if first != prefix {
            return None;
        }
        let (tens, digit) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if tens <= 9 && ones == b'\r' {
            return Some(Line { value: u32::from(tens), end: at + 4 });
        }
        if (1..=9).contains(&tens) && digit <= 9 && behind == b'\r' {
            return Some(Line { value: u32::from(tens) * 10 + u32::from(digit), end: at + 5 });
        }
    }
    longer_line(buf, at, prefix)
}

/// A short line of any number of digits.
#[inline(never)]
fn longer_line(buf: &[u8], at: usize, prefix: u8) -> Option<Line> {
    const DIGITS_MAX: usize = 9;
    let line = &buf[at..];
    if line.first() != Some(&prefix) {
        return None;
    }
    let mut value = 0u32;
    for (i, &byte) in line[1..].iter().enumerate().take(DIGITS_MAX + 1) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let leading_zero = line[1] == b'0' && i > 1;
            let whole = byte == b'\r' && i > 0 && i + 2 < line.len();
            return (whole && !leading_zero).then_some(Line { value, end: at + i + 3 });
        }
        value = value.wrapping_mul(10).wrapping_add(u32::from(digit));
    }
    None
}

#[cfg(test)]
mod tests;
