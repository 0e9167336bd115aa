//! Setting scores: ZADD with its options, and ZINCRBY.

use super::limits;
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::protocol::number::parse_f64;
use crate::shard::event::Event;
use crate::types::PackedKind;
use crate::types::fetch::Sought;
use crate::types::zset::{Outcome, ZSetMut};
use smallvec::SmallVec;

const NOT_A_NUMBER: CommandError = CommandError::fixed("ERR resulting score is not a number (NaN)");

/// The options of ZADD.
#[derive(Clone, Copy, Default, Debug)]
struct Options {
    /// NX: only add.
    absent: bool,
    /// XX: only change.
    present: bool,
    /// GT: change only to a greater score.
    greater: bool,
    /// LT
    less: bool,
    /// CH: the reply counts changed members, too.
    changed: bool,
    /// INCR: the score is added to the present one.
    increment: bool,
}

impl Options {
    /// Reads the options that stand before the first score. Returns how many there are.
    fn parse<'a>(args: impl Iterator<Item = &'a [u8]>) -> (Options, usize) {
        let mut options = Options::default();
        let mut count = 0;
        for option in args {
            // A score, nearly always.
            if !option.first().is_some_and(u8::is_ascii_alphabetic) {
                break;
            }
            let flag = if args::is(option, "nx") {
                &mut options.absent
            } else if args::is(option, "xx") {
                &mut options.present
            } else if args::is(option, "ch") {
                &mut options.changed
            } else if args::is(option, "incr") {
                &mut options.increment
            } else if args::is(option, "gt") {
                &mut options.greater
            } else if args::is(option, "lt") {
                &mut options.less
            } else {
                break;
            };
            *flag = true;
            count += 1;
        }
        (options, count)
    }

    /// # Errors
    /// Options that contradict each other.
    fn check(self, pair_count: usize) -> CommandResult {
        if self.absent && self.present {
            return Err(CommandError::fixed("ERR XX and NX options at the same time are not compatible"));
        }
        if (self.greater && self.absent) || (self.less && self.absent) || (self.greater && self.less) {
            let text = "ERR GT, LT, and/or NX options at the same time are not compatible";
            return Err(CommandError::fixed(text));
        }
        if self.increment && pair_count > 1 {
            return Err(CommandError::fixed("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score to set for a member, which may be there with a score: `None` to leave it as it is.
    #[inline]
    fn decide(self, old: Option<f64>, given: f64) -> Option<f64> {
        let Some(old) = old else { return (!self.present).then_some(given) };
        let score = if self.increment { old + given } else { given };
        // NaN is an error, whatever the options.
        let keeps = self.absent || (self.greater && score <= old) || (self.less && score >= old);
        (!keeps).then_some(score)
    }
}

pub(super) const ZADD: Command = Command::keys("zadd", -4, zadd)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::UPDATE)])
    .seeks(zadd_seeks)
    .docs(
        Docs::new("sorted-set", "1.2.0", "Adds members to a sorted set, or changes their scores")
            .complexity("O(log(N)) for each member, where N is the number of members")
            .arguments(
                "key#0 [condition(NX | XX)@3.0.2] [comparison(GT | LT)@6.2.0] [change'CH'@3.0.2] [increment'INCR'@3.0.2] \
                 score_member{score:double member}...",
            )
            .history(&[
                ("2.4.0", "Takes several members"),
                ("3.0.2", "Options `XX`, `NX`, `CH` and `INCR`"),
                ("6.2.0", "Options `GT` and `LT`"),
            ]),
    );

/// The member of a request without options and with one pair.
fn zadd_seeks(args: Argv<'_>) -> Option<(&[u8], Sought)> {
    if args.len() != 4 {
        return None;
    }
    parse_f64(args.arg(2)).map(|score| (args.arg(3), Sought::NewScore(score)))
}

/// ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]. Reply: integer, how many members are new,
/// with CH also those with another score; with INCR the new score, or null if the options prevent it. Errors: syntax;
/// options that contradict each other; a score that is not a number; NaN as the sum; WRONGTYPE. O(members * log N).
fn zadd(ctx: &mut Ctx<'_>) -> CommandResult {
    let (options, option_count) = Options::parse(ctx.args.iter().skip(2));
    let first = 2 + option_count;
    let pair_args = ctx.args.len() - first;
    if pair_args == 0 || !pair_args.is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    options.check(pair_args / 2)?;

    add(ctx, options, first)
}

pub(super) const ZINCRBY: Command = Command::keys("zincrby", 4, zincrby)
    .flags(flag::WRITE | flag::DENYOOM | flag::FAST)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)])
    .seeks(zincrby_seeks)
    .docs(
        Docs::new("sorted-set", "1.2.0", "Adds a number to the score of a member")
            .complexity("O(log(N)), where N is the number of members")
            .arguments("key#0 increment:int member"),
    );

fn zincrby_seeks(args: Argv<'_>) -> Option<(&[u8], Sought)> {
    (args.len() > 3).then(|| (args.arg(3), Sought::Order))
}

/// ZINCRBY key increment member: ZADD with INCR. A member that is not there gets the increment as its score. Reply:
/// the new score. Errors: not a number; NaN as the sum; WRONGTYPE. O(log N).
fn zincrby(ctx: &mut Ctx<'_>) -> CommandResult {
    let added = add(ctx, Options { increment: true, ..Options::default() }, 2);

    // As in Redis, an option of ZADD is no number, but one that leaves no pair of score and member behind it.
    added.map_err(|error| match Options::parse(ctx.args.iter().skip(2)) {
        (_, 0) => error,
        _ => CommandError::SYNTAX,
    })
}

/// Sets the scores of the pairs of score and member from argument `first` on.
fn add(ctx: &mut Ctx<'_>, options: Options, first: usize) -> CommandResult {
    let key = ctx.key(1);
    let limits = limits(ctx);
    let parse = |at: usize| parse_f64(ctx.args.arg(at)).ok_or(CommandError::NOT_FLOAT);
    let scores =
        (first..ctx.args.len()).step_by(2).map(parse).collect::<CommandResult<SmallVec<[f64; 8]>>>()?;
    let event = if options.increment { Event::ZINCR } else { Event::ZADD };

    let guard = if options.present {
        ctx.shard.change(ctx.call, key, event)
    } else {
        Some(ctx.shard.change_or_add(ctx.call, key, event, PackedKind::ZSet))
    };
    let (mut added, mut changed, mut last) = (0, 0, None);
    if let Some(mut guard) = guard {
        zset_of(guard.value())?;
        let mut is_nan = false;
        let mut value = guard.value_mut();
        let mut set = ZSetMut::new(&mut value);
        for (pair, &given) in scores.iter().enumerate() {
            let outcome = set.update(ctx.args.arg(first + 2 * pair + 1), limits, |old| {
                last = options.decide(old, given);
                is_nan = last.is_some_and(f64::is_nan);
                last.filter(|score| !score.is_nan())
            });
            added += usize::from(outcome == Outcome::Added);
            changed += usize::from(outcome == Outcome::Changed);
        }
        guard.count(added + changed);
        if is_nan {
            // Only INCR leads to it, which is of a single pair.
            return Err(NOT_A_NUMBER);
        }
    }

    match (options.increment, last) {
        (true, Some(score)) => ctx.reply.double(score),
        (true, None) => ctx.reply.null(),
        (false, _) if options.changed => ctx.reply.integer((added + changed) as i64),
        (false, _) => ctx.reply.integer(added as i64),
    }
    Ok(())
}
