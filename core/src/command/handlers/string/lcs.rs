//! LCS: the longest common subsequence of two strings.
//!
//! The textbook's dynamic programme: the length for the first i bytes of one string and the first j of the other
//! follows from those of (i-1, j), (i, j-1) and (i-1, j-1). Lengths are needed only for the row above, so two rows are
//! kept, in one array. To walk back from the end one must know at each pair of different bytes which string to
//! shorten: one bit a pair. So the whole takes a thirty-second of a table of lengths.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{Digits, StringRef};
use crate::command::{CommandError, CommandResult, Ctx, Key};

pub(super) const LCS: Command = Command::keys("lcs", -3, lcs)
    .flags(flag::READONLY)
    .acl(acl::STRING)
    .at(&[KeySpec::range(1, 1, 1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("string", "7.0.0", "Finds the longest common subsequence of two string values")
            .complexity("O(N*M), where N and M are the lengths of the two strings")
            .arguments("key1#0 key2#0 [LEN] [IDX] [MINMATCHLEN len:int] [WITHMATCHLEN]"),
    );

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]. Reply: the subsequence; with LEN its length; with IDX a
/// map of `matches`, where it lies in both strings, from the end, and `len`. Errors: a value is no string; syntax; LEN
/// with IDX; strings so long that it would take too long. O(len1 * len2).
fn lcs(ctx: &mut Ctx<'_>) -> CommandResult {
    let a = string(ctx, ctx.key(1))?;
    let b = string(ctx, ctx.key(2))?;
    let options = Options::parse(ctx)?;
    // What Redis' table of lengths takes. It bounds the time as well.
    let table_bytes = (a.len() as u128 + 1) * (b.len() as u128 + 1) * size_of::<u32>() as u128;
    if table_bytes > u128::from(ctx.shard.config.proto_max_bulk_len_bytes) {
        return Err(CommandError::fixed(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }

    let walk = Walk::new(&a, &b, options.shape != Shape::Length);
    match options.shape {
        Shape::Length => ctx.reply.integer(walk.len as i64),
        Shape::Text => {
            let mut text = Vec::with_capacity(walk.len);
            walk.matches_backwards(|range| text.extend(a[range.a_start..range.a_end()].iter().rev()));
            text.reverse();
            ctx.reply.bulk(&text);
        }
        Shape::Ranges => {
            ctx.reply.map(2);
            ctx.reply.bulk(b"matches");
            let mark = ctx.reply.begin();
            let mut count = 0;
            walk.matches_backwards(|range| {
                if range.len as u64 >= options.match_len_min {
                    count += 1;
                    reply_match(ctx, &range, options.with_match_len);
                }
            });
            ctx.reply.end_array(mark, count);
            ctx.reply.bulk(b"len");
            ctx.reply.integer(walk.len as i64);
        }
    }
    Ok(())
}

fn reply_match(ctx: &mut Ctx<'_>, range: &Match, with_len: bool) {
    ctx.reply.array(if with_len { 3 } else { 2 });
    for start in [range.a_start, range.b_start] {
        ctx.reply.array(2);
        ctx.reply.integer(start as i64);
        ctx.reply.integer((start + range.len - 1) as i64);
    }
    if with_len {
        ctx.reply.integer(range.len as i64);
    }
}

/// A copy of the string of a key; empty without one.
fn string(ctx: &mut Ctx<'_>, key: Key<'_>) -> CommandResult<Vec<u8>> {
    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else { return Ok(Vec::new()) };
    match StringRef::of(entry.value()) {
        Ok(string) => Ok(string.bytes(&mut Digits::new()).to_vec()),
        Err(_) => Err(CommandError::fixed("ERR The specified keys must contain string values")),
    }
}

/// What the reply is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Length,
    Ranges,
}

struct Options {
    shape: Shape,
    /// Shorter matches are left out of the ranges.
    match_len_min: u64,
    with_match_len: bool,
}

impl Options {
    fn parse(ctx: &Ctx<'_>) -> CommandResult<Options> {
        let (mut len, mut ranges) = (false, false);
        let mut options = Options { shape: Shape::Text, match_len_min: 0, with_match_len: false };
        let mut rest = ctx.args.iter().skip(3);
        while let Some(option) = rest.next() {
            if args::is(option, "idx") {
                ranges = true;
            } else if args::is(option, "len") {
                len = true;
            } else if args::is(option, "withmatchlen") {
                options.with_match_len = true;
            } else if args::is(option, "minmatchlen") {
                let len_min = args::integer(rest.next().ok_or(CommandError::SYNTAX)?)?;
                options.match_len_min = len_min.max(0) as u64;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        options.shape = match (len, ranges) {
            (true, true) => {
                return Err(CommandError::fixed(
                    "ERR If you want both the length and indexes, please just use IDX.",
                ));
            }
            (true, false) => Shape::Length,
            (false, true) => Shape::Ranges,
            (false, false) => Shape::Text,
        };
        Ok(options)
    }
}

/// Bytes that the strings have in common without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    a_start: usize,
    b_start: usize,
    len: usize,
}

impl Match {
    fn a_end(&self) -> usize {
        self.a_start + self.len
    }
}

/// The length of the subsequence, and the way back through the table.
struct Walk<'a> {
    a: &'a [u8],
    b: &'a [u8],
    len: usize,
    /// For each pair of bytes, in rows of `row_words`, a row a byte of `a`: whether `a` is to be shortened there. Empty
    /// if the way was not asked for.
    shorten_a: Vec<u64>,
    row_words: usize,
}

impl<'a> Walk<'a> {
    fn new(a: &'a [u8], b: &'a [u8], with_way: bool) -> Walk<'a> {
        let row_words = b.len().div_ceil(64);
        let mut shorten_a = vec![0u64; if with_way { a.len() * row_words } else { 0 }];
        // lengths[j]: up to the byte at hand the row of this byte of `a`, from there on the row of the one before.
        let mut lengths = vec![0u32; b.len() + 1];
        for (row, &byte) in a.iter().enumerate() {
            let mut diagonal = 0;
            for (column, &other) in b.iter().enumerate() {
                let above = lengths[column + 1];
                let left = lengths[column];
                lengths[column + 1] = if byte == other { diagonal + 1 } else { above.max(left) };
                if with_way && above > left {
                    shorten_a[row * row_words + column / 64] |= 1 << (column % 64);
                }
                diagonal = above;
            }
        }
        Walk { a, b, len: lengths[b.len()] as usize, shorten_a, row_words }
    }

    /// Visits the matches from the end of the strings to their beginning.
    fn matches_backwards(&self, mut visit: impl FnMut(Match)) {
        let mut open: Option<Match> = None;
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                i -= 1;
                j -= 1;
                let before = open.map_or(0, |found| found.len);
                open = Some(Match { a_start: i, b_start: j, len: before + 1 });
                continue;
            }
            if let Some(found) = open.take() {
                visit(found);
            }
            let column = j - 1;
            if self.shorten_a[(i - 1) * self.row_words + column / 64] >> (column % 64) & 1 == 1 {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        if let Some(found) = open {
            visit(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn text(a: &[u8], b: &[u8]) -> (usize, Vec<u8>) {
        let walk = Walk::new(a, b, true);
        let mut text = Vec::new();
        walk.matches_backwards(|range| {
            assert_eq!(a[range.a_start..range.a_end()], b[range.b_start..range.b_start + range.len]);
            text.extend(a[range.a_start..range.a_end()].iter().rev());
        });
        text.reverse();
        (walk.len, text)
    }

    fn is_subsequence(text: &[u8], of: &[u8]) -> bool {
        let mut rest = of.iter();
        text.iter().all(|byte| rest.any(|other| other == byte))
    }

    /// By definition, without memory: for short strings only.
    fn len_by_definition(a: &[u8], b: &[u8]) -> usize {
        match (a.split_last(), b.split_last()) {
            (Some((x, a_rest)), Some((y, b_rest))) if x == y => len_by_definition(a_rest, b_rest) + 1,
            (Some((_, a_rest)), Some((_, b_rest))) => {
                len_by_definition(a_rest, b).max(len_by_definition(a, b_rest))
            }
            _ => 0,
        }
    }

    #[test]
    fn the_subsequence_is_common_and_the_longest() {
        let mut rng = Rng::new(7);
        for round in 0..300 {
            let mut string = || -> Vec<u8> {
                let len = rng.below(10);
                (0..len).map(|_| b'a' + rng.below(3) as u8).collect()
            };
            let (a, b) = (string(), string());
            let (len, text) = text(&a, &b);
            assert_eq!(len, len_by_definition(&a, &b), "round {round}: {a:?} {b:?}");
            assert_eq!(text.len(), len, "round {round}");
            assert!(is_subsequence(&text, &a) && is_subsequence(&text, &b), "round {round}: {a:?} {b:?}");
        }
    }

    #[test]
    fn rows_longer_than_a_word_of_bits_work() {
        let a: Vec<u8> = (0..300u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut b = a.clone();
        b.retain(|byte| byte % 5 != 0);
        assert_eq!(text(&a, &b), (b.len(), b.clone()));
    }

    #[test]
    fn the_length_alone_needs_no_way_back() {
        let walk = Walk::new(b"ohmytext", b"mynewtext", false);
        assert_eq!((walk.len, walk.shorten_a.len()), (6, 0));
    }
}
