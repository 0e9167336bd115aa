//! Unions, intersections and differences of sorted sets and sets: ZUNION, ZINTER, ZDIFF, their counterparts that store
//! the result, ZINTERCARD.

use super::range::store;
use super::{Scores, reply_element, reply_elements_header};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{set_of, zset_of};
use crate::command::{CommandError, CommandResult, Ctx, Key};
use crate::protocol::number::parse_f64;
use crate::shard::event::Event;
use crate::types::Collection;
use crate::types::ValueRef;
use crate::types::listpack::{Digits, Item};
use crate::types::set::{Member, SetRef};
use crate::types::zset::{Builder, ZSetView};
use smallvec::SmallVec;
use std::ops::ControlFlow;

const INPUT: u32 = key_flag::RO | key_flag::ACCESS;
const READ_KEYS: &[KeySpec] = &[KeySpec::counted(1, INPUT)];
const STORE_KEYS: &[KeySpec] =
    &[KeySpec::one(1, key_flag::OW | key_flag::UPDATE), KeySpec::counted(2, INPUT)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores of a member in several sets become one.
#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// The sum of opposite infinities is zero.
    #[inline]
    fn combine(self, score: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => Some(score + other).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Aggregate::Min if other < score => other,
            Aggregate::Max if other > score => other,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

/// One of the sets that go into the result. The members of a plain set have a score of 1.
#[derive(Clone, Copy)]
enum Input<'a> {
    Absent,
    ZSet(ZSetView<'a>),
    Set(SetRef<'a>),
}

impl<'a> Input<'a> {
    /// # Errors
    /// WRONGTYPE: neither a sorted set nor a set.
    fn of(value: ValueRef<'a>) -> CommandResult<Input<'a>> {
        match zset_of(value) {
            Ok(set) => Ok(Input::ZSet(set)),
            Err(_) => set_of(value).map(Input::Set),
        }
    }

    fn len(self) -> usize {
        match self {
            Input::Absent => 0,
            Input::ZSet(set) => set.len(),
            Input::Set(set) => set.len(),
        }
    }

    #[inline]
    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Input::Absent => None,
            Input::ZSet(set) => set.score(member),
            Input::Set(set) => set.contains(member).then_some(1.0),
        }
    }

    /// Calls `visit` with all elements, until it breaks.
    #[inline]
    fn each(self, mut visit: impl FnMut(Item<'a>, f64) -> ControlFlow<()>) {
        let _: ControlFlow<()> = match self {
            Input::Absent => ControlFlow::Continue(()),
            Input::ZSet(set) => set.iter(0..set.len()).try_for_each(|(member, score)| visit(member, score)),
            Input::Set(set) => set.try_each(|member| match member {
                Member::Int(number) => visit(Item::Int(number), 1.0),
                Member::Bytes(bytes) => visit(Item::Str(bytes), 1.0),
            }),
        };
    }
}

/// What may stand behind the keys.
#[derive(Clone, Copy)]
struct Takes {
    /// WEIGHTS and AGGREGATE
    weights: bool,
    withscores: bool,
    limit: bool,
}

struct Options {
    /// A factor for each input.
    weights: SmallVec<[f64; 8]>,
    aggregate: Aggregate,
    scores: Scores,
    /// 0: none.
    limit: u64,
}

impl Options {
    /// # Errors
    /// Syntax; a weight that is not a number; a limit that is negative.
    fn parse(ctx: &Ctx<'_>, first: usize, numkeys: usize, takes: Takes) -> CommandResult<Options> {
        let mut options = Options {
            weights: SmallVec::from_elem(1.0, numkeys),
            aggregate: Aggregate::Sum,
            scores: Scores::Without,
            limit: 0,
        };
        let mut at = first;
        while at < ctx.args.len() {
            let option = ctx.arg(at);
            let left = ctx.args.len() - at - 1;
            if takes.weights && left >= numkeys && args::is(option, "weights") {
                for (weight, text) in options.weights.iter_mut().zip(ctx.args.iter().skip(at + 1)) {
                    *weight =
                        parse_f64(text).ok_or(CommandError::fixed("ERR weight value is not a float"))?;
                }
                at += numkeys;
            } else if takes.weights && left >= 1 && args::is(option, "aggregate") {
                at += 1;
                options.aggregate = if args::is(ctx.arg(at), "sum") {
                    Aggregate::Sum
                } else if args::is(ctx.arg(at), "min") {
                    Aggregate::Min
                } else if args::is(ctx.arg(at), "max") {
                    Aggregate::Max
                } else {
                    return Err(CommandError::SYNTAX);
                };
            } else if takes.withscores && args::is(option, "withscores") {
                options.scores = Scores::With;
            } else if takes.limit && left >= 1 && args::is(option, "limit") {
                at += 1;
                let limit = args::integer(ctx.arg(at)).ok().and_then(|limit| u64::try_from(limit).ok());
                options.limit = limit.ok_or(CommandError::fixed("ERR LIMIT can't be negative"))?;
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// The number of keys at an argument.
///
/// # Errors
/// Not an integer; not positive; more than there are arguments.
fn numkeys(ctx: &Ctx<'_>, at: usize, command: &str) -> CommandResult<usize> {
    let count = args::integer(ctx.arg(at))?;
    if count < 1 {
        return Err(CommandError::new(format!("ERR at least 1 input key is needed for '{command}' command")));
    }
    usize::try_from(count).ok().filter(|&count| count < ctx.args.len() - at).ok_or(CommandError::SYNTAX)
}

/// Calculates the result of a command whose number of keys is argument `at`.
///
/// # Errors
/// A bad number of keys; WRONGTYPE; bad options.
fn combine(
    ctx: &mut Ctx<'_>,
    command: &str,
    at: usize,
    operation: Operation,
    takes: Takes,
) -> CommandResult<(Builder, Scores)> {
    let numkeys = numkeys(ctx, at, command)?;
    let keys: SmallVec<[Key<'_>; 8]> = (at + 1..at + 1 + numkeys).map(|at| ctx.key(at)).collect();

    ctx.shard.prefetch(keys.iter().map(|key| (ctx.call.db, key.hash)));
    let options = Options::parse(ctx, at + 1 + numkeys, numkeys, takes);
    let entries = ctx.shard.lookup_read_all(ctx.call, &keys);
    let inputs: SmallVec<[Input<'_>; 8]> = entries
        .iter()
        .map(|entry| entry.as_ref().map_or(Ok(Input::Absent), |entry| Input::of(entry.value())))
        .collect::<CommandResult<_>>()?;
    // A key of another type is an error that comes first.
    let options = options?;

    let mut weighted: SmallVec<[(Input<'_>, f64); 8]> = inputs.into_iter().zip(options.weights).collect();
    if operation != Operation::Difference {
        weighted.sort_by_key(|(input, _)| input.len());
    }
    let result = match operation {
        Operation::Union => unite(&weighted, options.aggregate),
        Operation::Intersection => {
            let mut result = Builder::new();
            intersect(&weighted, options.aggregate, |member, score| {
                result.set(result.find(member), member, score);
                ControlFlow::Continue(())
            });
            result
        }
        Operation::Difference => subtract(&weighted),
    };
    Ok((result, options.scores))
}

/// A score times a weight. Zero times infinity is zero.
#[inline]
fn weigh(score: f64, weight: f64) -> f64 {
    Some(score * weight).filter(|product| !product.is_nan()).unwrap_or(0.0)
}

fn unite(inputs: &[(Input<'_>, f64)], aggregate: Aggregate) -> Builder {
    let mut result = Builder::new();
    let mut digits = Digits::new();
    for &(input, weight) in inputs {
        input.each(|member, score| {
            let (member, score) = (member.bytes(&mut digits), weigh(score, weight));
            let spot = result.find(member);
            let score = match result.score_at(spot) {
                Some(old) => aggregate.combine(old, score),
                None => score,
            };
            result.set(spot, member, score);
            ControlFlow::Continue(())
        });
    }
    result
}

/// Calls `visit` with the members that all inputs have. The first input is the smallest.
fn intersect(
    inputs: &[(Input<'_>, f64)],
    aggregate: Aggregate,
    mut visit: impl FnMut(&[u8], f64) -> ControlFlow<()>,
) {
    let Some((&(first, weight), others)) = inputs.split_first() else { return };
    let mut digits = Digits::new();
    first.each(|member, score| {
        let member = member.bytes(&mut digits);
        let in_all = others.iter().try_fold(weigh(score, weight), |total, &(other, weight)| {
            other.score(member).map(|score| aggregate.combine(total, score * weight))
        });
        in_all.map_or(ControlFlow::Continue(()), |score| visit(member, score))
    });
}

fn subtract(inputs: &[(Input<'_>, f64)]) -> Builder {
    let mut result = Builder::new();
    let Some((&(first, _), others)) = inputs.split_first() else { return result };
    let mut digits = Digits::new();
    first.each(|member, score| {
        let member = member.bytes(&mut digits);
        if others.iter().all(|(other, _)| other.score(member).is_none()) {
            result.set(result.find(member), member, score);
        }
        ControlFlow::Continue(())
    });
    result
}

/// Replies with a result in the order of its scores.
fn reply_result(ctx: &mut Ctx<'_>, (result, scores): (Builder, Scores)) {
    let set = result.finish();
    let reply = &mut ctx.reply;
    reply_elements_header(reply, set.len(), scores);
    set.iter(0..set.len()).for_each(|(member, score)| reply_element(reply, Item::Str(member), score, scores));
}

const READ: Takes = Takes { weights: true, withscores: true, limit: false };
const STORE: Takes = Takes { weights: true, withscores: false, limit: false };
const READ_DIFFERENCE: Takes = Takes { weights: false, withscores: true, limit: false };
const STORE_DIFFERENCE: Takes = Takes { weights: false, withscores: false, limit: false };
const COUNT: Takes = Takes { weights: false, withscores: false, limit: true };

const UNION_COMPLEXITY: &str =
    "O(N)+O(M*log(M)), where N is the number of members of all sets and M that of the result";
const INTERSECTION_COMPLEXITY: &str = "O(N*K)+O(M*log(M)), where N is the size of the smallest set, K the number of sets and M the size of the result";
const DIFFERENCE_COMPLEXITY: &str = "O(N*K)+O(M*log(M)), where N is the size of the first set, K the number of sets and M the size of the result";

pub(super) const ZUNION: Command = Command::keys("zunion", -3, zunion)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(READ_KEYS)
    .docs(
        Docs::new("sorted-set", "6.2.0", "Returns the union of sorted sets")
            .complexity(UNION_COMPLEXITY)
            .arguments(
                "numkeys:int key#0... [WEIGHTS weight:int...] [AGGREGATE aggregate(SUM | MIN | MAX)] [WITHSCORES]",
            ),
    );

/// ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]. Reply: array of the
/// members that any set has, in order, with their scores if asked. Errors: numkeys; syntax; a weight that is not a
/// number; WRONGTYPE. O(N + M log M).
fn zunion(ctx: &mut Ctx<'_>) -> CommandResult {
    let result = combine(ctx, "zunion", 1, Operation::Union, READ)?;

    reply_result(ctx, result);
    Ok(())
}

pub(super) const ZINTER: Command = Command::keys("zinter", -3, zinter)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(READ_KEYS)
    .docs(
        Docs::new("sorted-set", "6.2.0", "Returns the intersection of sorted sets")
            .complexity(INTERSECTION_COMPLEXITY)
            .arguments(
                "numkeys:int key#0... [WEIGHTS weight:int...] [AGGREGATE aggregate(SUM | MIN | MAX)] [WITHSCORES]",
            ),
    );

/// ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]. Reply: as ZUNION, of the
/// members that all sets have. Errors: as ZUNION. O(N * K + M log M).
fn zinter(ctx: &mut Ctx<'_>) -> CommandResult {
    let result = combine(ctx, "zinter", 1, Operation::Intersection, READ)?;

    reply_result(ctx, result);
    Ok(())
}

pub(super) const ZDIFF: Command = Command::keys("zdiff", -3, zdiff)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(READ_KEYS)
    .docs(
        Docs::new("sorted-set", "6.2.0", "Returns the difference of sorted sets")
            .complexity(DIFFERENCE_COMPLEXITY)
            .arguments("numkeys:int key#0... [WITHSCORES]"),
    );

/// ZDIFF numkeys key [key ...] [WITHSCORES]. Reply: as ZUNION, of the members that only the first set has. Errors:
/// numkeys; syntax; WRONGTYPE. O(N * K + M log M).
fn zdiff(ctx: &mut Ctx<'_>) -> CommandResult {
    let result = combine(ctx, "zdiff", 1, Operation::Difference, READ_DIFFERENCE)?;

    reply_result(ctx, result);
    Ok(())
}

pub(super) const ZUNIONSTORE: Command = Command::keys("zunionstore", -4, zunionstore)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(STORE_KEYS)
    .docs(
        Docs::new("sorted-set", "2.0.0", "Stores the union of sorted sets in a key")
            .complexity(UNION_COMPLEXITY)
            .arguments(
                "destination#0 numkeys:int key#1... [WEIGHTS weight:int...] [AGGREGATE aggregate(SUM | MIN | MAX)]",
            ),
    );

/// ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX]. Replaces destination,
/// or deletes it if the union is empty. Reply: integer, the number of members. Errors: as ZUNION. O(N + M log M).
fn zunionstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (result, _) = combine(ctx, "zunionstore", 2, Operation::Union, STORE)?;

    store(ctx, result, Event::ZUNIONSTORE);
    Ok(())
}

pub(super) const ZINTERSTORE: Command = Command::keys("zinterstore", -4, zinterstore)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(STORE_KEYS)
    .docs(
        Docs::new("sorted-set", "2.0.0", "Stores the intersection of sorted sets in a key")
            .complexity(INTERSECTION_COMPLEXITY)
            .arguments(
                "destination#0 numkeys:int key#1... [WEIGHTS weight:int...] [AGGREGATE aggregate(SUM | MIN | MAX)]",
            ),
    );

/// ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX]: as ZUNIONSTORE, of
/// the members that all sets have. O(N * K + M log M).
fn zinterstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (result, _) = combine(ctx, "zinterstore", 2, Operation::Intersection, STORE)?;

    store(ctx, result, Event::ZINTERSTORE);
    Ok(())
}

pub(super) const ZDIFFSTORE: Command = Command::keys("zdiffstore", -4, zdiffstore)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(STORE_KEYS)
    .docs(
        Docs::new("sorted-set", "6.2.0", "Stores the difference of sorted sets in a key")
            .complexity(DIFFERENCE_COMPLEXITY)
            .arguments("destination#0 numkeys:int key#1..."),
    );

/// ZDIFFSTORE destination numkeys key [key ...]: as ZUNIONSTORE, of the members that only the first set has.
/// O(N * K + M log M).
fn zdiffstore(ctx: &mut Ctx<'_>) -> CommandResult {
    let (result, _) = combine(ctx, "zdiffstore", 2, Operation::Difference, STORE_DIFFERENCE)?;

    store(ctx, result, Event::ZDIFFSTORE);
    Ok(())
}

pub(super) const ZINTERCARD: Command = Command::keys("zintercard", -3, zintercard)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SORTEDSET)
    .at(READ_KEYS)
    .docs(
        Docs::new("sorted-set", "7.0.0", "Returns the size of the intersection of sorted sets")
            .complexity("O(N*K), where N is the size of the smallest set and K the number of sets")
            .arguments("numkeys:int key#0... [LIMIT limit:int]"),
    );

/// ZINTERCARD numkeys key [key ...] [LIMIT limit]. With a limit other than 0, counts no further. Reply: integer, how
/// many members all sets have. Errors: numkeys; syntax; limit negative or not an integer; WRONGTYPE. O(N * K).
fn zintercard(ctx: &mut Ctx<'_>) -> CommandResult {
    let numkeys = numkeys(ctx, 1, "zintercard")?;
    let keys: SmallVec<[Key<'_>; 8]> = (2..2 + numkeys).map(|at| ctx.key(at)).collect();
    let options = Options::parse(ctx, 2 + numkeys, numkeys, COUNT);

    let entries = ctx.shard.lookup_read_all(ctx.call, &keys);
    let mut inputs: SmallVec<[(Input<'_>, f64); 8]> = entries
        .iter()
        .map(|entry| entry.as_ref().map_or(Ok(Input::Absent), |entry| Input::of(entry.value())))
        .map(|input| input.map(|input| (input, 1.0)))
        .collect::<CommandResult<_>>()?;
    let limit = options?.limit;

    inputs.sort_by_key(|(input, _)| input.len());
    let mut count = 0;
    intersect(&inputs, Aggregate::Sum, |_, _| {
        count += 1;
        if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ctx.reply.integer(count as i64);
    Ok(())
}
