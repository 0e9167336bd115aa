//! ZSCAN.

use crate::command::docs::Docs;
use crate::command::handlers::scan::{ScanOptions, TypeOption, parse_cursor};
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::typed::zset_of;
use crate::command::{CommandResult, Ctx};
use crate::protocol::Reply;
use crate::protocol::number::F64Text;
use crate::types::listpack::Digits;
use crate::types::zset::{CURSOR_BITS, ZSetView};

pub(super) const ZSCAN: Command = Command::keys("zscan", -3, zscan)
    .flags(flag::READONLY)
    .acl(acl::SORTEDSET)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("sorted-set", "2.8.0", "Iterates over the members of a sorted set, some at each call")
            .complexity("O(1) for a call, O(N) for a whole iteration, where N is the number of members")
            .arguments("key#0 cursor:int [MATCH pattern:pattern] [COUNT count:int]")
            .tips(&["nondeterministic_output"]),
    );

/// ZSCAN key cursor [MATCH pattern] [COUNT count]. Returns every member that is there from the first call to the last,
/// as SCAN does keys; a small set is returned by one call. Reply: the next cursor, 0 at the end, and an array of
/// members and scores. Errors: invalid cursor; WRONGTYPE; syntax, if there is a set. O(COUNT).
fn zscan(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let cursor = parse_cursor(ctx.arg(2))?;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.empty_array();
        return Ok(());
    };
    let set = zset_of(entry.value())?;
    let options = ScanOptions::parse(ctx.args.slice(3..), TypeOption::Refused)?;

    let mut found = Vec::new();
    let mut reply = Reply::new(&mut found, ctx.call.resp);
    let mut count = 0;
    let next = match set {
        ZSetView::Packed(packed) => {
            let (mut members, mut scores) = (Digits::new(), Digits::new());
            packed.each_stored(|member, score| {
                let member = member.bytes(&mut members);
                if options.pattern.matches(member) {
                    count += 2;
                    reply.bulk(member);
                    reply.bulk(score.bytes(&mut scores));
                }
            });
            0
        }
        ZSetView::Big(set) => {
            // A cursor beyond them was not returned by ZSCAN: the iteration starts anew.
            let cursor = cursor & ((1 << CURSOR_BITS) - 1);
            set.scan(cursor, usize::try_from(options.count).unwrap_or(usize::MAX), |member, score| {
                if options.pattern.matches(member) {
                    count += 2;
                    reply.bulk(member);
                    reply.bulk(F64Text::new(score).as_bytes());
                }
            })
        }
    };

    ctx.reply.array(2);
    ctx.reply.bulk_display(next);
    ctx.reply.array(count);
    ctx.reply.raw(&found);
    Ok(())
}
