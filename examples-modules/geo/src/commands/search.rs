//! The searching commands.

use super::arguments::{KEY, LATITUDE, LONGITUDE, MEMBER, UNIT, optional, position, radius, token};
use super::options::{Dialect, Request, position_of};
use super::{GROUP, Numbers};
use crate::search::{Direction, Found, search};
use crate::shape::Shape;
use shardis_modules_api::{
    AddOptions, Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, KeyFlags, KeySpec,
    ModuleString, NotifyClass, Row, Zset,
};

const SEARCH_COMPLEXITY: &str = "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area \
                                 around the shape provided as the filter and M is the number of items inside the shape";
const RADIUS_COMPLEXITY: &str = "O(N+log(M)) where N is the number of elements inside the bounding box of the circular \
                                 area delimited by center and radius and M is the number of items inside the index.";
const UPPERCASE_UNITS: (&str, &str) = ("7.0.0", "Added support for uppercase unit names.");
const ADDED_ANY: (&str, &str) = ("6.2.0", "Added the `ANY` option for `COUNT`.");

const READ: KeyFlags = KeyFlags::RO.and(KeyFlags::ACCESS);
const OVERWRITTEN: KeyFlags = KeyFlags::OW.and(KeyFlags::UPDATE);

/// The keys of a command that reads one sorted set and does nothing else.
const SOURCE: &[KeySpec] = &[KeySpec::at(1, READ)];

/// GEOSEARCH key FROMMEMBER member|FROMLONLAT longitude latitude BYRADIUS radius unit|BYBOX width height unit [ASC|DESC]
/// [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]. Reply: array of the members inside, each one in an array with
/// what was asked for of distance, number and position. Errors: WRONGTYPE; the member to search around is not there;
/// options that are wrong or do not fit together.
pub struct GeoSearch;

impl Command for GeoSearch {
    const ROW: Row = Row {
        flags: "readonly",
        keys: SOURCE,
        group: GROUP,
        acl_categories: GROUP,
        summary: "Query a sorted set representing a geospatial index to fetch members inside an area of a box or a circle.",
        complexity: SEARCH_COMPLEXITY,
        since: "6.2.0",
        history: &[UPPERCASE_UNITS],
        arguments: &[KEY, FROM, BY, ORDER, COUNT, WITH_COORD, WITH_DIST, WITH_HASH],
        ..Row::new("geosearch", -7)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        answer(
            ctx,
            args,
            1,
            |request, zset| request.read_options(args, 2, zset),
            Request::new(Dialect::Search),
        )
    }
}

/// GEOSEARCHSTORE destination source FROMMEMBER member|FROMLONLAT longitude latitude BYRADIUS radius unit|BYBOX width
/// height unit [ASC|DESC] [COUNT count [ANY]] [STOREDIST]. Overwrites the destination with the members inside, or deletes
/// it if there are none. Reply: integer, how many they are. Errors: those of GEOSEARCH.
pub struct GeoSearchStore;

impl Command for GeoSearchStore {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, OVERWRITTEN), KeySpec::at(2, READ)],
        group: GROUP,
        acl_categories: GROUP,
        summary: "Query a sorted set representing a geospatial index to fetch members inside an area of a box or a circle, \
                  and store the result in another key.",
        complexity: SEARCH_COMPLEXITY,
        since: "6.2.0",
        history: &[UPPERCASE_UNITS],
        arguments: &[
            Argument::new("destination", ArgumentKind::Key(0)),
            Argument::new("source", ArgumentKind::Key(1)),
            FROM,
            BY,
            ORDER,
            COUNT,
            optional(token("storedist", "STOREDIST")),
        ],
        ..Row::new("geosearchstore", -8)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let request = Request { destination: Some(1), ..Request::new(Dialect::SearchStore) };
        answer(ctx, args, 2, |request, zset| request.read_options(args, 3, zset), request)
    }
}

/// GEORADIUS key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC|DESC]
/// [STORE key|STOREDIST key]. Replies like GEOSEARCH, or, if it stores, like GEOSEARCHSTORE. Errors: those of GEOSEARCH.
pub struct GeoRadius;

impl Command for GeoRadius {
    const ROW: Row = Row {
        keys: &radius_keys(6),
        history: &[ADDED_ANY, UPPERCASE_UNITS],
        arguments: &and_store::<10, 12>(AROUND_POSITION),
        ..storing(
            around_position("georadius"),
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument",
        )
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        radius_around_position(ctx, args, Dialect::Radius)
    }
}

/// GEORADIUS_RO: [`GeoRadius`] that cannot store.
pub struct GeoRadiusRo;

impl Command for GeoRadiusRo {
    const ROW: Row = Row {
        history: &[ADDED_ANY],
        arguments: &AROUND_POSITION,
        summary: "A read-only variant for GEORADIUS",
        ..read_only(around_position("georadius_ro"), "`GEOSEARCH` with the `BYRADIUS` argument")
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        radius_around_position(ctx, args, Dialect::RadiusReadOnly)
    }
}

/// GEORADIUSBYMEMBER key member radius unit and what may follow in [`GeoRadius`]. Errors: those of GEOSEARCH.
pub struct GeoRadiusByMember;

impl Command for GeoRadiusByMember {
    const ROW: Row = Row {
        keys: &radius_keys(5),
        history: &[UPPERCASE_UNITS],
        arguments: &and_store::<9, 11>(AROUND_MEMBER),
        ..storing(
            around_member("georadiusbymember"),
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
        )
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        radius_around_member(ctx, args, Dialect::Radius)
    }
}

/// GEORADIUSBYMEMBER_RO: [`GeoRadiusByMember`] that cannot store.
pub struct GeoRadiusByMemberRo;

impl Command for GeoRadiusByMemberRo {
    const ROW: Row = Row {
        arguments: &AROUND_MEMBER,
        summary: "A read-only variant for GEORADIUSBYMEMBER",
        ..read_only(
            around_member("georadiusbymember_ro"),
            "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments",
        )
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        radius_around_member(ctx, args, Dialect::RadiusReadOnly)
    }
}

/// What the rows of GEORADIUS have in common.
const fn around_position(name: &'static str) -> Row {
    Row {
        summary: "Query a sorted set representing a geospatial index to fetch members matching a given maximum distance \
                  from a point",
        ..Row::new(name, -6)
    }
}

/// What the rows of GEORADIUSBYMEMBER have in common.
const fn around_member(name: &'static str) -> Row {
    Row {
        summary: "Query a sorted set representing a geospatial index to fetch members matching a given maximum distance \
                  from a member",
        ..Row::new(name, -5)
    }
}

/// What the rows of the commands have in common that may store. `instead` is what to use instead of them.
const fn storing(row: Row, instead: &'static str) -> Row {
    Row {
        flags: "write deny-oom getkeys-api",
        find_keys: Some(find_radius_keys),
        since: "3.2.0",
        ..of_radius(row, instead)
    }
}

/// What the rows of the commands have in common that only read.
const fn read_only(row: Row, instead: &'static str) -> Row {
    Row { flags: "readonly", keys: SOURCE, since: "3.2.10", ..of_radius(row, instead) }
}

const fn of_radius(row: Row, instead: &'static str) -> Row {
    Row {
        group: GROUP,
        acl_categories: GROUP,
        complexity: RADIUS_COMPLEXITY,
        deprecated: Some(("6.2.0", instead)),
        ..row
    }
}

/// The keys of a command whose options begin at an index.
const fn radius_keys(options_at: i32) -> [KeySpec; 3] {
    [
        KeySpec::at(1, READ),
        KeySpec::behind("STORE", options_at, OVERWRITTEN),
        KeySpec::behind("STOREDIST", options_at, OVERWRITTEN),
    ]
}

/// Of several STORE and STOREDIST the last one counts, which key specs cannot say.
fn find_radius_keys(args: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    found(1, READ);
    let (mut at, mut destination) = (5, None);
    while at + 1 < args.len() {
        if args[at].is_word("store") || args[at].is_word("storedist") {
            at += 1;
            destination = Some(at);
        }
        at += 1;
    }
    if let Some(at) = destination {
        found(at, OVERWRITTEN);
    }
}

fn radius_around_position(ctx: &mut Context<'_>, args: Args<'_>, dialect: Dialect) -> CommandResult {
    let read = |request: &mut Request, zset: Option<&Zset<'_>>| {
        request.centre = Some(position(args[2], args[3])?);
        request.extent = Some(radius(args[4], args[5])?);
        request.read_options(args, 6, zset)
    };
    answer(ctx, args, 1, read, Request::new(dialect))
}

fn radius_around_member(ctx: &mut Context<'_>, args: Args<'_>, dialect: Dialect) -> CommandResult {
    let read = |request: &mut Request, zset: Option<&Zset<'_>>| {
        request.centre = Some(position_of(args[2], zset)?);
        // Where there is nothing to search, Redis does not look at the radius.
        if zset.is_some() {
            request.extent = Some(radius(args[3], args[4])?);
        }
        request.read_options(args, 5, zset)
    };
    answer(ctx, args, 1, read, Request::new(dialect))
}

/// Reads a request, once the source is known to be a sorted set or nothing, and does what it asks for.
fn answer(
    ctx: &mut Context<'_>,
    args: Args<'_>,
    source_at: usize,
    read: impl FnOnce(&mut Request, Option<&Zset<'_>>) -> Result<(), Error>,
    mut request: Request,
) -> CommandResult {
    let mut key = ctx.open(&args[source_at])?;
    let mut zset = key.zset()?;
    read(&mut request, zset.as_ref())?;

    let unit_m = request.extent.map_or(1.0, |(_, unit_m)| unit_m);
    let found = match (&mut zset, request.centre, request.extent) {
        (Some(zset), Some(centre), Some((extent, unit_m))) => {
            find(zset, &Shape::new(centre, extent, unit_m), &request)
        }
        _ => Found::default(),
    };
    drop(key);

    match request.destination {
        Some(at) => store(ctx, args, at, &found, request.stores_distances.then_some(unit_m), request.dialect),
        None => {
            reply(ctx, &found, &request, unit_m);
            Ok(())
        }
    }
}

fn find(zset: &mut Zset<'_>, shape: &Shape, request: &Request) -> Found {
    let limit = request.count.filter(|_| request.any);
    let mut found = search(zset, shape, limit);
    // The nearest ones, not any, unless those will do.
    let default = (request.count.is_some() && !request.any).then_some(Direction::Ascending);
    found.sort_and_keep(request.direction.or(default), request.count);
    found
}

fn reply(ctx: &Context<'_>, found: &Found, request: &Request, unit_m: f64) {
    let reply = ctx.reply();
    let mut numbers = if request.with_position { Numbers::new(ctx) } else { Numbers::without_positions(ctx) };
    let details = [request.with_distance, request.with_number, request.with_position];
    let details = details.into_iter().filter(|&is_wanted| is_wanted).count();
    reply.array(found.hits.len());
    for hit in &found.hits {
        if details > 0 {
            reply.array(1 + details);
        }
        reply.bytes(found.member(hit));
        if request.with_distance {
            numbers.distance(hit.distance_m / unit_m);
        }
        if request.with_number {
            reply.integer(hit.score as i64);
        }
        if request.with_position {
            numbers.position(hit.position);
        }
    }
}

/// Stores what was found, with scores that are positions, or distances in a unit of so many metres.
fn store(
    ctx: &mut Context<'_>,
    args: Args<'_>,
    destination_at: usize,
    found: &Found,
    distance_unit_m: Option<f64>,
    dialect: Dialect,
) -> CommandResult {
    let mut key = ctx.open_for_writing(&args[destination_at])?;
    let is_deleted = key.delete();
    let mut zset = key.zset_mut()?;
    for hit in &found.hits {
        let score = distance_unit_m.map_or(hit.score, |unit_m| hit.distance_m / unit_m);
        let member = ModuleString::new(found.member(hit));
        zset.add(score, member.as_str(), AddOptions::default())?;
    }
    drop(key);

    if !found.hits.is_empty() {
        let event = match dialect {
            Dialect::SearchStore | Dialect::Search => c"geosearchstore",
            Dialect::Radius | Dialect::RadiusReadOnly => c"georadiusstore",
        };
        ctx.replicate_verbatim();
        ctx.notify(NotifyClass::Zset, event, &args[destination_at]);
    } else if is_deleted {
        ctx.replicate_verbatim();
        ctx.notify(NotifyClass::Generic, c"del", &args[destination_at]);
    }
    ctx.reply().integer(found.hits.len() as i64);
    Ok(())
}

const FROM: Argument = Argument {
    parts: &[
        Argument { token: "FROMMEMBER", ..MEMBER },
        Argument {
            token: "FROMLONLAT",
            parts: &[LONGITUDE, LATITUDE],
            ..Argument::new("longitude_latitude", ArgumentKind::Block)
        },
    ],
    ..Argument::new("from", ArgumentKind::OneOf)
};
const RADIUS: Argument = Argument::new("radius", ArgumentKind::Double);
const BY: Argument = Argument {
    parts: &[
        Argument {
            parts: &[Argument { token: "BYRADIUS", ..RADIUS }, UNIT],
            ..Argument::new("circle", ArgumentKind::Block)
        },
        Argument {
            parts: &[
                Argument { token: "BYBOX", ..Argument::new("width", ArgumentKind::Double) },
                Argument::new("height", ArgumentKind::Double),
                UNIT,
            ],
            ..Argument::new("box", ArgumentKind::Block)
        },
    ],
    ..Argument::new("by", ArgumentKind::OneOf)
};
const ORDER: Argument = optional(Argument {
    parts: &[token("asc", "ASC"), token("desc", "DESC")],
    ..Argument::new("order", ArgumentKind::OneOf)
});
const COUNT_NUMBER: Argument = Argument { token: "COUNT", ..Argument::new("count", ArgumentKind::Integer) };
const COUNT: Argument = optional(Argument {
    parts: &[COUNT_NUMBER, optional(token("any", "ANY"))],
    ..Argument::new("count", ArgumentKind::Block)
});
/// Of commands that were there before ANY was.
const COUNT_SINCE: Argument = optional(Argument {
    parts: &[COUNT_NUMBER, optional(Argument { since: "6.2.0", ..token("any", "ANY") })],
    ..Argument::new("count", ArgumentKind::Block)
});
const WITH_COORD: Argument = optional(token("withcoord", "WITHCOORD"));
const WITH_DIST: Argument = optional(token("withdist", "WITHDIST"));
const WITH_HASH: Argument = optional(token("withhash", "WITHHASH"));
const AROUND_POSITION: [Argument; 10] =
    [KEY, LONGITUDE, LATITUDE, RADIUS, UNIT, WITH_COORD, WITH_DIST, WITH_HASH, COUNT_SINCE, ORDER];
const AROUND_MEMBER: [Argument; 9] =
    [KEY, MEMBER, RADIUS, UNIT, WITH_COORD, WITH_DIST, WITH_HASH, COUNT, ORDER];

/// These arguments, and the two of commands that may store.
const fn and_store<const N: usize, const ALL: usize>(arguments: [Argument; N]) -> [Argument; ALL] {
    assert!(ALL == N + 2);
    let mut all = [STORE; ALL];
    let mut at = 0;
    while at < N {
        all[at] = arguments[at];
        at += 1;
    }
    all[N + 1] = STORE_DIST;
    all
}

const STORE: Argument = optional(Argument { token: "STORE", ..Argument::new("key", ArgumentKind::Key(1)) });
const STORE_DIST: Argument =
    optional(Argument { token: "STOREDIST", ..Argument::new("key", ArgumentKind::Key(2)) });
