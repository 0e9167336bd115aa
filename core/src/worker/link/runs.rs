//! A master's stream is applied in *runs*: commands that one shard alone runs, one after the other; or *joined* ones, which several
//! shards run at the same time, as transactions. See the [link](super).

use crate::command::route::{Route, route};
use crate::command::table::{CommandTable, Scope};
use crate::command::{args, gate};
use crate::persist::aof::read::Commands;
use crate::protocol::Argv;
use crate::worker::Globals;
use crate::worker::coalesce::{COALESCED_BYTES_MAX, COALESCED_REQUESTS_MAX};
use crate::worker::feed::{CHUNK_LEN, Chunk, FEED_SHARD};

/// Makes runs of the units of a stream.
pub struct Runs {
    table: &'static CommandTable,
    shard_count: usize,
    run: Vec<u8>,
    /// How many commands it has.
    count: usize,
    shards: RunShards,
}

/// Which shards run the commands of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunShards {
    /// It has none that any shard runs.
    None,
    /// This one alone.
    One(usize),
    /// Several, or one at a time: it is joined.
    Joined,
}

/// Where a unit runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is about the connection.
    Anywhere,
    One(usize),
    /// On the shards of its keys.
    Several,
    /// On other shards as well, or it is not known where: it is a run of its own.
    Alone,
}

impl Place {
    /// Of a transaction that consists of both.
    fn with(self, other: Place) -> Place {
        match (self, other) {
            (Place::One(one), Place::One(other)) if one == other => self,
            (Place::One(_) | Place::Several, Place::One(_) | Place::Several) => Place::Several,
            _ => Place::Alone,
        }
    }
}

impl RunShards {
    /// Of a run that a unit is added to.
    fn with(self, place: Place) -> RunShards {
        match (self, place) {
            (shards, Place::Anywhere) => shards,
            (RunShards::None, Place::One(shard)) => RunShards::One(shard),
            (RunShards::One(before), Place::One(shard)) if shard == before => self,
            _ => RunShards::Joined,
        }
    }
}

impl Runs {
    pub fn new(globals: &'static Globals) -> Runs {
        Runs {
            table: globals.table().1,
            shard_count: globals.stats.len(),
            run: Vec::new(),
            count: 0,
            shards: RunShards::None,
        }
    }

    /// Adds the next unit of the stream. Runs that are complete then are handed over.
    ///
    /// # Errors
    /// That of `hand_over`.
    pub fn add<E>(
        &mut self,
        bytes: &[u8],
        commands: Commands<'_>,
        hand_over: &mut impl FnMut(Chunk) -> Result<(), E>,
    ) -> Result<(), E> {
        let places = commands.iter().filter_map(|argv| place_of(self.table, argv, self.shard_count));
        let place = places.reduce(Place::with).unwrap_or(Place::Anywhere);
        let added = commands.iter().count();
        let (len, count) = (self.run.len() + bytes.len(), self.count + added);
        let goes_on = match self.shards.with(place) {
            _ if place == Place::Alone => false,
            RunShards::Joined => len <= COALESCED_BYTES_MAX && count <= COALESCED_REQUESTS_MAX,
            RunShards::None | RunShards::One(_) => self.run.len() < CHUNK_LEN,
        };
        if !goes_on {
            self.end(hand_over)?;
        }
        self.run.extend_from_slice(bytes);
        self.count += added;
        self.shards = self.shards.with(place);
        if place == Place::Alone { self.end(hand_over) } else { Ok(()) }
    }

    /// Hands over the run that would go on with the next unit.
    ///
    /// # Errors
    /// That of `hand_over`.
    pub fn end<E>(&mut self, hand_over: &mut impl FnMut(Chunk) -> Result<(), E>) -> Result<(), E> {
        let is_joined = std::mem::replace(&mut self.shards, RunShards::None) == RunShards::Joined;
        self.count = 0;
        let bytes = std::mem::take(&mut self.run);
        if bytes.is_empty() { Ok(()) } else { hand_over(Chunk { bytes, is_joined }) }
    }
}

/// Where a command runs; `None`: it begins or ends a transaction.
fn place_of(table: &CommandTable, argv: Argv<'_>, shard_count: usize) -> Option<Place> {
    // One that a module has added meanwhile.
    let Ok(entry) = gate::resolve(table, argv) else { return Some(Place::Alone) };
    if matches!(entry.row.scope, Scope::Multi | Scope::Exec) {
        return None;
    }
    Some(match route(entry, argv, FEED_SHARD, shard_count) {
        Route::One(shard) => Place::One(shard),
        Route::Many => Place::Several,
        Route::Session if args::is(argv.arg(0), "select") || args::is(argv.arg(0), "ping") => Place::Anywhere,
        Route::Session | Route::Every(_) | Route::Walk { .. } | Route::Watch => Place::Alone,
    })
}
