//! The options of the searching commands, read in the order in which they stand: of several errors, the first one counts.

use super::arguments::{position, radius, rectangle};
use crate::grid::Position;
use crate::search::Direction;
use crate::shape::Extent;
use shardis_modules_api::{Args, Error, ModuleStr, Zset};

/// Which options a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// GEORADIUS and GEORADIUSBYMEMBER: what to search is said before the options, and STORE KEY and STOREDIST KEY are
    /// among them.
    Radius,
    /// Their read-only variants.
    RadiusReadOnly,
    /// GEOSEARCH: the options say what to search.
    Search,
    /// GEOSEARCHSTORE: STOREDIST has no key.
    SearchStore,
}

/// A search, as its arguments have it.
#[derive(Debug, Clone)]
pub struct Request {
    pub dialect: Dialect,
    /// The position to search around. If there is no sorted set, a member's may be any.
    pub centre: Option<Position>,
    /// The centre is a member's position.
    pub is_from_member: bool,
    /// How far around, and the unit in metres.
    pub extent: Option<(Extent, f64)>,
    pub direction: Option<Direction>,
    pub count: Option<usize>,
    /// The first members that are found will do.
    pub any: bool,
    pub with_position: bool,
    pub with_distance: bool,
    pub with_number: bool,
    /// The index of the key to store into.
    pub destination: Option<usize>,
    /// Distances are stored as scores, not positions.
    pub stores_distances: bool,
}

impl Request {
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            centre: None,
            is_from_member: false,
            extent: None,
            direction: None,
            count: None,
            any: false,
            with_position: false,
            with_distance: false,
            with_number: false,
            destination: None,
            stores_distances: false,
        }
    }

    /// Reads the options, which begin at an index, and checks that they fit together.
    pub fn read_options(
        &mut self,
        args: Args<'_>,
        start: usize,
        zset: Option<&Zset<'_>>,
    ) -> Result<(), Error> {
        let mut at = start;
        while at < args.len() {
            at += self.read_option(args, at, zset)?;
        }
        self.check(args)
    }

    /// Reads one option, and says how many arguments it is.
    fn read_option(&mut self, args: Args<'_>, at: usize, zset: Option<&Zset<'_>>) -> Result<usize, Error> {
        let (word, values) = (args[at], &args[at + 1..]);
        let is_search = matches!(self.dialect, Dialect::Search | Dialect::SearchStore);
        let has_no_circle = !matches!(self.extent, Some((Extent::Radius(_), _)));
        let has_no_box = !matches!(self.extent, Some((Extent::Box { .. }, _)));
        // FROMMEMBER may be said twice, but not with FROMLONLAT; so may BYRADIUS, but not with BYBOX.
        let has_no_point = self.centre.is_none() || self.is_from_member;
        let has_no_member = self.centre.is_none() || !self.is_from_member;
        match values {
            _ if word.is_word("withdist") => self.with_distance = true,
            _ if word.is_word("withhash") => self.with_number = true,
            _ if word.is_word("withcoord") => self.with_position = true,
            _ if word.is_word("any") => self.any = true,
            _ if word.is_word("asc") => self.direction = Some(Direction::Ascending),
            _ if word.is_word("desc") => self.direction = Some(Direction::Descending),
            [count, ..] if word.is_word("count") => {
                self.count = Some(positive_count(*count)?);
                return Ok(2);
            }
            [_, ..] if self.dialect == Dialect::Radius && word.is_word("store") => {
                (self.destination, self.stores_distances) = (Some(at + 1), false);
                return Ok(2);
            }
            [_, ..] if self.dialect == Dialect::Radius && word.is_word("storedist") => {
                (self.destination, self.stores_distances) = (Some(at + 1), true);
                return Ok(2);
            }
            [member, ..] if is_search && has_no_point && word.is_word("frommember") => {
                (self.centre, self.is_from_member) = (Some(position_of(*member, zset)?), true);
                return Ok(2);
            }
            [longitude, latitude, ..] if is_search && has_no_member && word.is_word("fromlonlat") => {
                self.centre = Some(position(*longitude, *latitude)?);
                return Ok(3);
            }
            [size, unit, ..] if is_search && has_no_box && word.is_word("byradius") => {
                self.extent = Some(radius(*size, *unit)?);
                return Ok(3);
            }
            [width, height, unit, ..] if is_search && has_no_circle && word.is_word("bybox") => {
                self.extent = Some(rectangle(*width, *height, *unit)?);
                return Ok(4);
            }
            _ if self.dialect == Dialect::SearchStore && word.is_word("storedist") => {
                self.stores_distances = true
            }
            _ => return Err(Error::SYNTAX),
        }
        Ok(1)
    }

    fn check(&self, args: Args<'_>) -> Result<(), Error> {
        if self.destination.is_some() && (self.with_distance || self.with_number || self.with_position) {
            return Err(Error::from_text(match self.dialect {
                Dialect::SearchStore => {
                    c"ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
                Dialect::Radius | Dialect::RadiusReadOnly | Dialect::Search => {
                    c"ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
            }));
        }
        let is_search = matches!(self.dialect, Dialect::Search | Dialect::SearchStore);
        let missing = |what: &str| {
            let text = [b"ERR exactly one of ", what.as_bytes(), b" for ", args[0].as_c_bytes()];
            Err(Error::new(text.concat()))
        };
        if is_search && self.centre.is_none() {
            return missing("FROMMEMBER or FROMLONLAT can be specified");
        }
        if is_search && self.extent.is_none() {
            return missing("BYRADIUS and BYBOX can be specified");
        }
        if self.any && self.count.is_none() {
            return Err(Error::from_text(c"ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }
}

/// The position of a member; any, if there is no sorted set. Errors: the set does not have it.
pub fn position_of(member: ModuleStr<'_>, zset: Option<&Zset<'_>>) -> Result<Position, Error> {
    const SOMEWHERE: Position = Position { longitude: 0.0, latitude: 0.0 };
    let Some(zset) = zset else { return Ok(SOMEWHERE) };
    let score = zset.score(member).ok_or(Error::from_text(c"ERR could not decode requested zset member"))?;
    Ok(Position::of_score(score))
}

fn positive_count(argument: ModuleStr<'_>) -> Result<usize, Error> {
    match usize::try_from(argument.to_integer()?) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::from_text(c"ERR COUNT must be > 0")),
    }
}
