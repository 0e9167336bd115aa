//! Reading lists: LLEN, LINDEX, LRANGE, LPOS.

use super::{range, reply_item, reply_range};
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::list_of;
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::protocol::Argv;
use crate::types::list::{End, ListRef};
use crate::types::listpack::Item;

const ACCESSED: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];

pub(super) const LLEN: Command = Command::keys("llen", 2, llen)
    .flags(flag::READONLY | flag::FAST)
    .acl(acl::LIST)
    .at(&[KeySpec::one(1, key_flag::RO)])
    .constant_time()
    .docs(
        Docs::new("list", "1.0.0", "Returns the number of elements of a list")
            .complexity("O(1)")
            .arguments("key#0"),
    );

/// LLEN key. Reply: integer, the number of elements; 0 if there is no list. Errors: WRONGTYPE. O(1).
fn llen(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    let len = match ctx.shard.lookup_read(ctx.call, key) {
        Some(entry) => list_of(entry.value())?.len(),
        None => 0,
    };

    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) const LINDEX: Command =
    Command::keys("lindex", 3, lindex).flags(flag::READONLY).acl(acl::LIST).at(ACCESSED).docs(
        Docs::new("list", "1.0.0", "Returns the element at an index of a list")
            .complexity("O(N), where N is the number of nodes between the element and the nearer end")
            .arguments("key#0 index:int"),
    );

/// LINDEX key index. Reply: the element, or null. Errors: WRONGTYPE; not an integer, unless there is no list. O(nodes
/// from the nearer end).
fn lindex(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let index = ctx.arg(2);

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.null();
        return Ok(());
    };
    let list = list_of(entry.value())?;
    let index = list.index(args::integer(index)?);

    match index {
        Some(index) => list.walk(index, |item| {
            reply_item(&mut ctx.reply, item);
            false
        }),
        None => ctx.reply.null(),
    }
    Ok(())
}

pub(super) const LRANGE: Command =
    Command::keys("lrange", 4, lrange).flags(flag::READONLY).acl(acl::LIST).at(ACCESSED).docs(
        Docs::new("list", "1.0.0", "Returns a range of the elements of a list")
            .complexity(
                "O(S+N), where S is the number of nodes between the start and the nearer end, and N the number of \
                 elements in the range",
            )
            .arguments("key#0 start:int stop:int"),
    );

/// LRANGE key start stop. Reply: array of the elements. Errors: not an integer; WRONGTYPE. O(nodes to the start +
/// elements).
fn lrange(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let (start, stop) = (args::integer(ctx.arg(2))?, args::integer(ctx.arg(3))?);

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.empty_array();
        return Ok(());
    };
    let list = list_of(entry.value())?;

    reply_range(&mut ctx.reply, list, range(start, stop, list.len()));
    Ok(())
}

pub(super) const LPOS: Command =
    Command::keys("lpos", -3, lpos).flags(flag::READONLY).acl(acl::LIST).at(ACCESSED).docs(
        Docs::new("list", "6.0.6", "Returns the indexes of the elements of a list that equal a value")
            .complexity("O(N), where N is the number of elements that are compared: all, or MAXLEN of them")
            .arguments("key#0 element [RANK rank:int] [COUNT num-matches:int] [MAXLEN len:int]"),
    );

/// What LPOS looks for.
struct Search {
    /// From which end, and the number of the first match that counts.
    from: End,
    rank: i64,
    /// COUNT: how many matches are returned, as an array; 0: all.
    count: Option<i64>,
    /// How many elements are compared; 0: all.
    compared_max: i64,
}

impl Search {
    /// # Errors
    /// Syntax; numbers out of range.
    fn parse(options: Argv<'_>) -> CommandResult<Search> {
        let mut search = Search { from: End::Head, rank: 1, count: None, compared_max: 0 };
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().ok_or(CommandError::SYNTAX)?;
            if args::is(option, "rank") {
                search.set_rank(args::integer(value)?)?;
            } else if args::is(option, "count") {
                search.count = Some(positive(value, "ERR COUNT can't be negative")?);
            } else if args::is(option, "maxlen") {
                search.compared_max = positive(value, "ERR MAXLEN can't be negative")?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(search)
    }

    fn set_rank(&mut self, rank: i64) -> CommandResult {
        const ZERO: CommandError = CommandError::fixed(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to \
             start from the end of the list",
        );
        self.from = match rank {
            0 => return Err(ZERO),
            1.. => End::Head,
            ..0 => End::Tail,
        };
        // The least integer has no counterpart, and is a rank that every match reaches.
        self.rank = if rank < 0 { rank.wrapping_neg() } else { rank };
        Ok(())
    }

    /// Calls `found` with the indexes of the matches that count.
    fn run(&self, list: ListRef<'_>, element: &[u8], mut found: impl FnMut(usize)) {
        let element = Item::of(element);
        let len = list.len();
        let matches_max = self.count.unwrap_or(1);
        let (mut compared, mut matches) = (0, 0i64);
        let visit = |item: Item<'_>| {
            if item == element {
                matches += 1;
                if matches >= self.rank {
                    found(if self.from == End::Head { compared } else { len - 1 - compared });
                    let counted = matches.wrapping_sub(self.rank).wrapping_add(1);
                    if self.count.is_none() || (matches_max != 0 && counted >= matches_max) {
                        return false;
                    }
                }
            }
            compared += 1;
            self.compared_max == 0 || (compared as i64) < self.compared_max
        };
        match self.from {
            End::Head => list.walk(0, visit),
            End::Tail => list.walk_back(len - 1, visit),
        }
    }
}

/// An integer that is not negative.
///
/// # Errors
/// `message` for anything else.
fn positive(arg: &[u8], message: &'static str) -> CommandResult<i64> {
    args::integer(arg).ok().filter(|&number| number >= 0).ok_or(CommandError::fixed(message))
}

/// LPOS key element [RANK rank] [COUNT matches] [MAXLEN len]. A negative rank searches from the tail. Reply: integer,
/// the index of the match, or null; with COUNT an array of all indexes. Errors: syntax; RANK 0; negative COUNT or
/// MAXLEN; WRONGTYPE. O(elements compared).
fn lpos(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let element = ctx.arg(2);
    let search = Search::parse(ctx.args.slice(3..))?;

    let entry = ctx.shard.lookup_read(ctx.call, key);
    let list = entry.map(|entry| list_of(entry.value())).transpose()?;

    let reply = &mut ctx.reply;
    if search.count.is_some() {
        let mark = reply.begin();
        let mut matches = 0;
        if let Some(list) = list {
            search.run(list, element, |index| {
                reply.integer(index as i64);
                matches += 1;
            });
        }
        reply.end_array(mark, matches);
    } else {
        let mut first = None;
        if let Some(list) = list {
            search.run(list, element, |index| first = Some(index));
        }
        match first {
            Some(index) => reply.integer(index as i64),
            None => reply.null(),
        }
    }
    Ok(())
}
