//! Commands over single members.

use super::arguments::{KEY, MEMBER, UNIT, optional, unit_m};
use super::{GROUP, Numbers};
use crate::distance::Origin;
use crate::grid::Position;
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec, Row,
};

const READS_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))];
const MEMBERS: Argument = Argument { is_multiple: true, ..MEMBER };

/// GEODIST key member1 member2 [unit]. Reply: bulk string, the distance with four decimals; null if one of the members is
/// not there. Errors: WRONGTYPE; unknown unit.
pub struct GeoDist;

impl Command for GeoDist {
    const ROW: Row = Row {
        flags: "readonly",
        keys: READS_KEY,
        group: GROUP,
        acl_categories: GROUP,
        summary: "Returns the distance between two members of a geospatial index",
        complexity: "O(log(N))",
        since: "3.2.0",
        arguments: &[
            KEY,
            Argument::new("member1", ArgumentKind::String),
            Argument::new("member2", ArgumentKind::String),
            optional(UNIT),
        ],
        ..Row::new("geodist", -4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let unit_m = match args.len() {
            4 => 1.0,
            5 => unit_m(args[4])?,
            _ => return Err(Error::SYNTAX),
        };

        let mut key = ctx.open(&args[1])?;
        let scores = key.zset()?.and_then(|zset| Some((zset.score(args[2])?, zset.score(args[3])?)));

        match scores {
            Some((from, to)) => {
                let distance_m = Origin::new(Position::of_score(from)).distance_m(Position::of_score(to));
                Numbers::without_positions(ctx).distance(distance_m / unit_m);
            }
            None => ctx.reply().null(),
        }
        Ok(())
    }
}

/// GEOHASH key member... Reply: array of bulk strings, the members' geohashes in eleven characters; null for those that
/// are not there. Errors: WRONGTYPE.
pub struct GeoHash;

impl Command for GeoHash {
    const ROW: Row = Row {
        flags: "readonly",
        keys: READS_KEY,
        group: GROUP,
        acl_categories: GROUP,
        summary: "Returns members of a geospatial index as standard geohash strings",
        complexity: "O(log(N)) for each member requested, where N is the number of elements in the sorted set.",
        since: "3.2.0",
        arguments: &[KEY, MEMBERS],
        ..Row::new("geohash", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let members = &args[2..];

        let mut key = ctx.open(&args[1])?;
        let zset = key.zset()?;

        let reply = ctx.reply();
        reply.array(members.len());
        for &member in members {
            match zset.as_ref().and_then(|zset| zset.score(member)) {
                Some(score) => reply.bytes(&Position::of_score(score).geohash()),
                None => reply.null(),
            }
        }
        Ok(())
    }
}

/// GEOPOS key member... Reply: array of pairs, longitude and latitude; the null array for members that are not there.
/// Errors: WRONGTYPE.
pub struct GeoPos;

impl Command for GeoPos {
    const ROW: Row = Row {
        flags: "readonly",
        keys: READS_KEY,
        group: GROUP,
        acl_categories: GROUP,
        summary: "Returns longitude and latitude of members of a geospatial index",
        complexity: "O(N) where N is the number of members requested.",
        since: "3.2.0",
        arguments: &[KEY, MEMBERS],
        ..Row::new("geopos", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let members = &args[2..];

        let mut key = ctx.open(&args[1])?;
        let zset = key.zset()?;

        let reply = ctx.reply();
        let mut numbers = Numbers::new(ctx);
        reply.array(members.len());
        for &member in members {
            match zset.as_ref().and_then(|zset| zset.score(member)) {
                Some(score) => numbers.position(Position::of_score(score)),
                None => reply.null_array(),
            }
        }
        Ok(())
    }
}
