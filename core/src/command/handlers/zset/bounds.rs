//! Ranges of elements, by rank, score or member, and the arguments that name them.

use crate::command::args;
use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_f64;
use crate::protocol::until_nul;
use crate::types::listpack::Digits;
use crate::types::zset::ZSetView;
use smallvec::SmallVec;
use std::ops::Range;

/// By what a range is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    Rank,
    Score,
    Member,
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug)]
enum MemberEnd<'a> {
    /// `-`
    Lowest,
    /// `+`
    Highest,
    At {
        member: &'a [u8],
        exclusive: bool,
    },
}

/// One end of a range of scores.
#[derive(Clone, Copy, Debug)]
struct ScoreEnd {
    score: f64,
    exclusive: bool,
}

/// A range of elements.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bounds<'a> {
    /// From one rank to another, inclusive; negative ones count from the end.
    Rank(i64, i64),
    Score(ScoreRange),
    Member(MemberRange<'a>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreRange {
    min: ScoreEnd,
    max: ScoreEnd,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct MemberRange<'a> {
    min: MemberEnd<'a>,
    max: MemberEnd<'a>,
}

impl<'a> Bounds<'a> {
    /// # Errors
    /// The arguments are not such bounds.
    pub(super) fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> CommandResult<Bounds<'a>> {
        match by {
            By::Rank => Ok(Bounds::Rank(args::integer(min)?, args::integer(max)?)),
            By::Score => {
                let error = CommandError::fixed("ERR min or max is not a float");
                let (Some(min), Some(max)) = (ScoreEnd::parse(min), ScoreEnd::parse(max)) else {
                    return Err(error);
                };
                Ok(Bounds::Score(ScoreRange { min, max }))
            }
            By::Member => {
                let error = CommandError::fixed("ERR min or max not valid string range item");
                let (Some(min), Some(max)) = (MemberEnd::parse(min), MemberEnd::parse(max)) else {
                    return Err(error);
                };
                Ok(Bounds::Member(MemberRange { min, max }))
            }
        }
    }

    /// The ranks of the elements in the range. With `reverse` it is walked from its end: ranks that are given count
    /// from the highest.
    pub(super) fn ranks(self, set: ZSetView<'_>, reverse: bool) -> Range<usize> {
        let len = set.len();
        match self {
            Bounds::Rank(first, last) => {
                let from_start = |rank: i64| if rank < 0 { rank.saturating_add(len as i64) } else { rank };
                let start = from_start(first).clamp(0, len as i64) as usize;
                let end = from_start(last).saturating_add(1).clamp(0, len as i64) as usize;
                let start = start.min(end);
                if reverse { len - end..len - start } else { start..end }
            }
            Bounds::Score(ScoreRange { min, max }) => {
                let end = set.count_to_score(max.score, !max.exclusive);
                set.count_to_score(min.score, min.exclusive).min(end)..end
            }
            Bounds::Member(range) if has_one_score(set) => range.ranks(set),
            Bounds::Member(range) => range.walk(set, reverse),
        }
    }
}

/// Whether all scores are the same, so that members are in order.
fn has_one_score(set: ZSetView<'_>) -> bool {
    set.is_empty() || set.at(0).1 == set.at(set.len() - 1).1
}

impl MemberRange<'_> {
    fn ranks(self, set: ZSetView<'_>) -> Range<usize> {
        let count = |end, is_lower| match end {
            MemberEnd::At { member, exclusive } => set.count_to_member(member, exclusive == is_lower),
            MemberEnd::Lowest => 0,
            MemberEnd::Highest => set.len(),
        };
        let end = count(self.max, false);
        count(self.min, true).min(end)..end
    }

    /// The ranks in a set whose scores differ. Members are in no order there, and the range is the one that Redis finds,
    /// which walks until a member does not belong to it. O(N).
    fn walk(self, set: ZSetView<'_>, reverse: bool) -> Range<usize> {
        let mut digits = Digits::new();
        let sides: SmallVec<[(bool, bool); 16]> = set
            .iter(0..set.len())
            .map(|(member, _)| {
                let member = member.bytes(&mut digits);
                (self.min.admits_as_min(member), self.max.admits_as_max(member))
            })
            .collect();
        let (Some((_, true)), Some((true, _))) = (sides.first(), sides.last()) else { return 0..0 };
        if reverse {
            let end = sides.iter().rposition(|side| side.1).map_or(0, |last| last + 1);
            let start = sides[..end].iter().rposition(|side| !side.0).map_or(0, |outside| outside + 1);
            start..end
        } else {
            let start = sides.iter().position(|side| side.0).unwrap_or(sides.len());
            let end = sides[start..].iter().position(|side| !side.1).map_or(sides.len(), |len| start + len);
            start..end
        }
    }
}

impl ScoreEnd {
    /// A number, or `(` and a number.
    fn parse(text: &[u8]) -> Option<ScoreEnd> {
        match text {
            [b'(', number @ ..] => Some(ScoreEnd { score: parse_end(number)?, exclusive: true }),
            number => Some(ScoreEnd { score: parse_end(number)?, exclusive: false }),
        }
    }
}

/// A number as C's `strtod` reads it, which takes blanks before it, nothing at all for zero, and what is too big or too
/// small; but not NaN.
fn parse_end(text: &[u8]) -> Option<f64> {
    let text = until_nul(text);
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let number = &text[blanks..];
    if text.is_empty() {
        return Some(0.0);
    }
    if let Some(score) = parse_f64(number) {
        return Some(score);
    }
    let score: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    (!score.is_nan()).then_some(score)
}

impl<'a> MemberEnd<'a> {
    /// Whether a range whose lower end it is may have a member.
    fn admits_as_min(self, other: &[u8]) -> bool {
        match self {
            MemberEnd::Lowest => true,
            MemberEnd::Highest => false,
            MemberEnd::At { member, exclusive: true } => other > member,
            MemberEnd::At { member, exclusive: false } => other >= member,
        }
    }

    /// Whether a range whose upper end it is may have a member.
    fn admits_as_max(self, other: &[u8]) -> bool {
        match self {
            MemberEnd::Lowest => false,
            MemberEnd::Highest => true,
            MemberEnd::At { member, exclusive: true } => other < member,
            MemberEnd::At { member, exclusive: false } => other <= member,
        }
    }

    fn parse(text: &'a [u8]) -> Option<MemberEnd<'a>> {
        match text {
            b"-" => Some(MemberEnd::Lowest),
            b"+" => Some(MemberEnd::Highest),
            [b'(', member @ ..] => Some(MemberEnd::At { member, exclusive: true }),
            [b'[', member @ ..] => Some(MemberEnd::At { member, exclusive: false }),
            _ => None,
        }
    }
}

/// LIMIT: how many elements of a range are passed over, and how many are returned then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limit {
    /// Negative: none are returned.
    pub(super) offset: i64,
    /// Negative: all.
    pub(super) count: i64,
}

impl Limit {
    pub(super) const NONE: Limit = Limit { offset: 0, count: -1 };

    /// The part of a range that is left. It is counted from the end if `reverse`.
    pub(super) fn apply(self, ranks: Range<usize>, reverse: bool) -> Range<usize> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX).min(ranks.len());
        let count = usize::try_from(self.count).unwrap_or(usize::MAX).min(ranks.len() - offset);
        if reverse {
            let end = ranks.end - offset;
            end - count..end
        } else {
            let start = ranks.start + offset;
            start..start + count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_of_scores_is_what_strtod_reads() {
        for (text, expected) in [
            (&b"1"[..], Some(1.0)),
            (b"", Some(0.0)),
            (b" \t-2.5", Some(-2.5)),
            (b"inf", Some(f64::INFINITY)),
            (b"+Infinity", Some(f64::INFINITY)),
            (b"1e999", Some(f64::INFINITY)),
            (b"1e-999", Some(0.0)),
            (b"0x10", Some(16.0)),
            (b"5\0x", Some(5.0)),
            (b"nan", None),
            (b"1x", None),
            (b"1 ", None),
            (b" ", None),
            (b"-", None),
        ] {
            assert_eq!(parse_end(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_limit_counts_from_the_end_that_comes_first() {
        let limit = |offset, count, reverse| Limit { offset, count }.apply(10..20, reverse);
        assert_eq!(Limit::NONE.apply(10..20, true), 10..20);
        assert_eq!(limit(2, 3, false), 12..15);
        assert_eq!(limit(2, 3, true), 15..18);
        assert_eq!(limit(8, 3, false), 18..20);
        assert_eq!(limit(8, -1, true), 10..12);
        assert!(
            limit(-1, 3, false).is_empty() && limit(11, 3, true).is_empty() && limit(0, 0, false).is_empty()
        );
    }
}
