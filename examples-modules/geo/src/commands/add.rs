//! Adding positions.

use super::GROUP;
use super::arguments::{self, KEY, LATITUDE, LONGITUDE, MEMBER, optional, token};
use shardis_modules_api::{
    AddOptions, Added, Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags,
    KeySpec, ModuleStr, ModuleString, NotifyClass, Row,
};

/// GEOADD key [NX|XX] [CH] (longitude latitude member)... Sets positions of members, as ZADD sets scores.
/// Reply: integer, how many are new; with CH, how many are new or moved.
/// Errors: WRONGTYPE; NX and XX together; a position outside of the grid.
pub struct GeoAdd;

impl Command for GeoAdd {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        group: GROUP,
        acl_categories: GROUP,
        summary: "Add one or more geospatial items in the geospatial index represented using a sorted set",
        complexity: "O(log(N)) for each item added, where N is the number of elements in the sorted set.",
        since: "3.2.0",
        history: &[("6.2.0", "Added the `CH`, `NX` and `XX` options.")],
        arguments: &[
            KEY,
            optional(Argument {
                since: "6.2.0",
                parts: &[token("nx", "NX"), token("xx", "XX")],
                ..Argument::new("condition", ArgumentKind::OneOf)
            }),
            optional(Argument { since: "6.2.0", ..token("change", "CH") }),
            Argument {
                is_multiple: true,
                parts: &[LONGITUDE, LATITUDE, MEMBER],
                ..Argument::new("longitude_latitude_member", ArgumentKind::Block)
            },
        ],
        ..Row::new("geoadd", -5)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let (options, counts_changes, points) = options(args);
        if points.is_empty() || points.len() % 3 != 0 || (options.only_new && options.only_existing) {
            return Err(Error::SYNTAX);
        }
        let mut numbers = Vec::with_capacity(points.len() / 3);
        for point in points.chunks_exact(3) {
            numbers.push(arguments::position(point[0], point[1])?.number());
        }

        let mut key = ctx.open_for_writing(&args[1])?;
        let is_empty = key.is_empty();
        let mut zset = key.zset_mut()?;

        let (mut added, mut updated) = (0, 0);
        // Nothing can be updated in no set, and asking for it must not make one.
        if !(is_empty && options.only_existing) {
            for (point, &number) in points.chunks_exact(3).zip(&numbers) {
                match zset.add(number as f64, point[2], options)? {
                    Added::New => added += 1,
                    Added::Updated => updated += 1,
                    Added::Unchanged | Added::Refused => {}
                }
            }
        }
        drop(key);

        ctx.reply().integer(if counts_changes { added + updated } else { added });
        if added + updated > 0 {
            if ctx.records_effects() {
                replicate(ctx, args, points, &numbers);
            } else {
                ctx.replicate_verbatim();
            }
            ctx.notify(NotifyClass::Zset, c"zadd", &args[1]);
        }
        Ok(())
    }
}

/// NX, XX and CH, in any order and as often as wanted; then come the points.
fn options<'c>(args: Args<'c>) -> (AddOptions, bool, &'c [ModuleStr<'c>]) {
    let (mut options, mut counts_changes, mut at) = (AddOptions::default(), false, 2);
    while let Some(word) = args.get(at) {
        if word.is_word("nx") {
            options.only_new = true;
        } else if word.is_word("xx") {
            options.only_existing = true;
        } else if word.is_word("ch") {
            counts_changes = true;
        } else {
            break;
        }
        at += 1;
    }
    (options, counts_changes, &args.as_slice()[at..])
}

/// It is repeated elsewhere as ZADD with the same options, so that nobody has to come to the same scores.
fn replicate(ctx: &Context<'_>, args: Args<'_>, points: &[ModuleStr<'_>], numbers: &[u64]) {
    let scores: Vec<ModuleString> =
        numbers.iter().map(|number| ModuleString::new(number.to_string().as_bytes())).collect();
    let before_points = &args[1..args.len() - points.len()];
    let mut arguments = Vec::with_capacity(before_points.len() + 2 * scores.len());
    arguments.extend_from_slice(before_points);
    for (point, score) in points.chunks_exact(3).zip(&scores) {
        arguments.extend([score.as_str(), point[2]]);
    }
    ctx.replicate(c"zadd", &arguments);
}
