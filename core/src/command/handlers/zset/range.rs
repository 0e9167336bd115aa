//! Ranges of elements: ZRANGE, the older commands that are one of its forms, and ZRANGESTORE.

use super::bounds::{Bounds, By, Limit};
use super::{Scores, limits, reply_element, reply_elements_header};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::event::Event;
use crate::types::SetExpire;
use crate::types::listpack::Digits;
use crate::types::zset::{Builder, ZSetView, into_value};
use std::ops::Range;

const KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];

/// The complexity of them all.
const COMPLEXITY: &str =
    "O(log(N)+M), where N is the number of members and M the number of those in the range";

/// What a command takes and returns.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// `None`: the options BYSCORE and BYLEX say it, or else it is by rank.
    by: Option<By>,
    /// `None`: the option REV says it.
    reverse: Option<bool>,
    takes_withscores: bool,
}

/// A parsed request for a range.
#[derive(Debug)]
struct Request<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    limit: Limit,
    scores: Scores,
}

impl<'a> Request<'a> {
    /// `args`: the bounds, and the options behind them.
    ///
    /// # Errors
    /// Syntax; options that do not go together; bounds or a limit that are none.
    fn parse(args: Argv<'a>, form: Form) -> CommandResult<Request<'a>> {
        let (mut by, mut reverse) = (form.by, form.reverse);
        let (mut limit, mut scores) = (Limit::NONE, Scores::Without);
        let mut at = 2;
        while let Some(option) = args.get(at) {
            if form.takes_withscores && args::is(option, "withscores") {
                scores = Scores::With;
            } else if args::is(option, "limit") && at + 2 < args.len() {
                limit = Limit {
                    offset: args::integer(args.arg(at + 1))?,
                    count: args::integer(args.arg(at + 2))?,
                };
                at += 2;
            } else if reverse.is_none() && args::is(option, "rev") {
                reverse = Some(true);
            } else if by.is_none() && args::is(option, "bylex") {
                by = Some(By::Member);
            } else if by.is_none() && args::is(option, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if by == By::Rank && limit.count != -1 {
            return Err(CommandError::fixed(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if by == By::Member && scores == Scores::With {
            return Err(CommandError::fixed(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (first, second) = (args.arg(0), args.arg(1));
        // In reverse order, the highest bound comes first.
        let (min, max) = if reverse && by != By::Rank { (second, first) } else { (first, second) };
        let limit = if by == By::Rank { Limit::NONE } else { limit };
        Ok(Request { bounds: Bounds::parse(by, min, max)?, reverse, limit, scores })
    }

    /// The ranks of what is asked for, in a set.
    fn ranks(&self, set: ZSetView<'_>) -> Range<usize> {
        self.limit.apply(self.bounds.ranks(set, self.reverse), self.reverse)
    }
}

/// Replies with a range of the set at argument 1; the bounds and options follow it.
fn range(ctx: &mut Ctx<'_>, form: Form) -> CommandResult {
    let key = ctx.key(1);
    let request = Request::parse(ctx.args.slice(2..), form)?;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.empty_array();
        return Ok(());
    };
    let set = zset_of(entry.value())?;
    let ranks = request.ranks(set);

    let reply = &mut ctx.reply;
    reply_elements_header(reply, ranks.len(), request.scores);
    set.for_each(ranks, request.reverse, |member, score| reply_element(reply, member, score, request.scores));
    Ok(())
}

pub(super) const ZRANGE: Command =
    Command::keys("zrange", -4, zrange).flags(flag::READONLY).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "1.2.0", "Returns a range of members")
            .complexity(COMPLEXITY)
            .arguments(
                "key#0 start stop [sortby(BYSCORE | BYLEX)@6.2.0] [REV@6.2.0] \
                 [LIMIT{offset:int count:int}@6.2.0] [WITHSCORES]",
            )
            .history(&[("6.2.0", "Options `REV`, `BYSCORE`, `BYLEX` and `LIMIT`")]),
    );

/// ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]. Reply: array of the members in the
/// range, with their scores if asked. Errors: syntax; bounds that are none; WRONGTYPE. O(log N + members returned).
fn zrange(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: None, reverse: None, takes_withscores: true })
}

pub(super) const ZREVRANGE: Command =
    Command::keys("zrevrange", -4, zrevrange).flags(flag::READONLY).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "1.2.0", "Returns a range of members by rank, from the highest score on")
            .complexity(COMPLEXITY)
            .arguments("key#0 start:int stop:int [WITHSCORES]")
            .deprecated("6.2.0", "`ZRANGE` with `REV`"),
    );

/// ZREVRANGE key start stop [WITHSCORES]: ZRANGE with REV. O(log N + members returned).
fn zrevrange(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: Some(By::Rank), reverse: Some(true), takes_withscores: true })
}

pub(super) const ZRANGEBYSCORE: Command =
    Command::keys("zrangebyscore", -4, zrangebyscore).flags(flag::READONLY).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "1.0.5", "Returns the members of a range of scores")
            .complexity(COMPLEXITY)
            .arguments("key#0 min:double max:double [WITHSCORES@2.0.0] [LIMIT{offset:int count:int}]")
            .history(&[("2.0.0", "Option `WITHSCORES`")])
            .deprecated("6.2.0", "`ZRANGE` with `BYSCORE`"),
    );

/// ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]: ZRANGE with BYSCORE. O(log N + members returned).
fn zrangebyscore(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: Some(By::Score), reverse: Some(false), takes_withscores: true })
}

pub(super) const ZREVRANGEBYSCORE: Command = Command::keys("zrevrangebyscore", -4, zrevrangebyscore)
    .flags(flag::READONLY)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .docs(
        Docs::new("sorted-set", "2.2.0", "Returns the members of a range of scores, from the highest on")
            .complexity(COMPLEXITY)
            .arguments("key#0 max:double min:double [WITHSCORES] [LIMIT{offset:int count:int}]")
            .history(&[("2.1.6", "`min` and `max` may be exclusive")])
            .deprecated("6.2.0", "`ZRANGE` with `REV` and `BYSCORE`"),
    );

/// ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]: ZRANGE with REV and BYSCORE. O(log N + members
/// returned).
fn zrevrangebyscore(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: Some(By::Score), reverse: Some(true), takes_withscores: true })
}

pub(super) const ZRANGEBYLEX: Command =
    Command::keys("zrangebylex", -4, zrangebylex).flags(flag::READONLY).acl(acl::SORTEDSET).at(KEY).docs(
        Docs::new("sorted-set", "2.8.9", "Returns the members between two strings")
            .complexity(COMPLEXITY)
            .arguments("key#0 min max [LIMIT{offset:int count:int}]")
            .deprecated("6.2.0", "`ZRANGE` with `BYLEX`"),
    );

/// ZRANGEBYLEX key min max [LIMIT offset count]: ZRANGE with BYLEX. O(log N + members returned).
fn zrangebylex(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: Some(By::Member), reverse: Some(false), takes_withscores: true })
}

pub(super) const ZREVRANGEBYLEX: Command = Command::keys("zrevrangebylex", -4, zrevrangebylex)
    .flags(flag::READONLY)
    .acl(acl::SORTEDSET)
    .at(KEY)
    .docs(
        Docs::new("sorted-set", "2.8.9", "Returns the members between two strings, from the highest on")
            .complexity(COMPLEXITY)
            .arguments("key#0 max min [LIMIT{offset:int count:int}]")
            .deprecated("6.2.0", "`ZRANGE` with `REV` and `BYLEX`"),
    );

/// ZREVRANGEBYLEX key max min [LIMIT offset count]: ZRANGE with REV and BYLEX. O(log N + members returned).
fn zrevrangebylex(ctx: &mut Ctx<'_>) -> CommandResult {
    range(ctx, Form { by: Some(By::Member), reverse: Some(true), takes_withscores: true })
}

pub(super) const ZRANGESTORE: Command = Command::keys("zrangestore", -5, zrangestore)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::OW | key_flag::UPDATE), KeySpec::one(2, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("sorted-set", "6.2.0", "Stores a range of members in another key")
            .complexity(COMPLEXITY)
            .arguments("dst#0 src#1 min max [sortby(BYSCORE | BYLEX)] [REV] [LIMIT{offset:int count:int}]"),
    );

/// ZRANGESTORE dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]. Replaces dst by the range of src, or
/// deletes it if that is empty. Reply: integer, the number of members. Errors: syntax; bounds that are none; WRONGTYPE.
/// O(log N + members stored).
fn zrangestore(ctx: &mut Ctx<'_>) -> CommandResult {
    let source = ctx.key(2);
    let form = Form { by: None, reverse: None, takes_withscores: false };
    let request = Request::parse(ctx.args.slice(3..), form)?;

    let mut found = Builder::new();
    if let Some(entry) = ctx.shard.lookup_read(ctx.call, source) {
        let set = zset_of(entry.value())?;
        let mut digits = Digits::new();
        set.for_each(request.ranks(set), false, |member, score| {
            let member = member.bytes(&mut digits);
            found.set(found.find(member), member, score);
        });
    }

    store(ctx, found, Event::ZRANGESTORE);
    Ok(())
}

/// Stores a result at the key at argument 1, or deletes that key if the result is empty. Reply: its number of members.
pub(super) fn store(ctx: &mut Ctx<'_>, result: Builder, event: Event) {
    let key = ctx.key(1);
    let len = result.len();
    if len == 0 {
        ctx.shard.delete(ctx.call, key, Event::DEL);
    } else {
        let value = into_value(result.finish(), limits(ctx));
        ctx.shard.set(ctx.call, key, value, SetExpire::Clear, event);
    }
    ctx.reply.integer(len as i64);
}
