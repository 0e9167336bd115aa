//! A master's stream is applied in *runs*: commands that one shard alone runs, one after the other, or a single unit over several
//! shards, which is a transaction. See the [link](super).

use super::apply::StreamChunk;
use crate::command::route::{Route, route};
use crate::command::table::CommandTable;
use crate::command::{args, gate};
use crate::persist::aof::read::Commands;
use crate::protocol::Argv;
use crate::worker::Globals;
use crate::worker::feed::{CHUNK_LEN, FEED_SHARD};

/// Makes runs of the units of a stream.
pub struct Runs {
    table: &'static CommandTable,
    shard_count: usize,
    run: Vec<u8>,
    /// The shard that alone runs the commands of the run; `None`: it has none that any shard runs.
    shard: Option<usize>,
}

/// Where a unit runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is about the connection.
    Anywhere,
    One(usize),
    /// It runs as a transaction.
    Several,
}

impl Runs {
    pub fn new(globals: &'static Globals) -> Runs {
        Runs { table: globals.table().1, shard_count: globals.stats.len(), run: Vec::new(), shard: None }
    }

    /// Adds the next unit of the stream. Runs that are complete then are handed over.
    ///
    /// # Errors
    /// That of `hand_over`.
    pub fn add<E>(
        &mut self,
        bytes: &[u8],
        commands: Commands<'_>,
        hand_over: &mut impl FnMut(StreamChunk) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut places = commands.iter().map(|argv| place_of(self.table, argv, self.shard_count));
        let place = match (places.next(), places.next()) {
            (None, _) => Place::Anywhere,
            (Some(place), None) => place,
            // Between MULTI and EXEC the connection has commands of any shard.
            (Some(_), Some(_)) => Place::Several,
        };
        let continues = match (place, self.shard) {
            (Place::Anywhere, _) => true,
            (Place::One(shard), Some(before)) => shard == before,
            (Place::One(_), None) => self.run.is_empty(),
            (Place::Several, _) => false,
        };
        if !continues || self.run.len() >= CHUNK_LEN {
            self.end(hand_over)?;
        }
        self.run.extend_from_slice(bytes);
        match place {
            Place::Anywhere => {}
            Place::One(shard) => self.shard = Some(shard),
            Place::Several => self.end(hand_over)?,
        }
        Ok(())
    }

    /// Hands over the run that would go on with the next unit.
    ///
    /// # Errors
    /// That of `hand_over`.
    pub fn end<E>(&mut self, hand_over: &mut impl FnMut(StreamChunk) -> Result<(), E>) -> Result<(), E> {
        self.shard = None;
        if self.run.is_empty() { Ok(()) } else { hand_over(std::mem::take(&mut self.run)) }
    }
}

fn place_of(table: &CommandTable, argv: Argv<'_>, shard_count: usize) -> Place {
    // One that a module has added meanwhile.
    let Ok(entry) = gate::resolve(table, argv) else { return Place::Several };
    match route(entry, argv, FEED_SHARD, shard_count) {
        Route::One(shard) => Place::One(shard),
        Route::Session if args::is(argv.arg(0), "select") || args::is(argv.arg(0), "ping") => Place::Anywhere,
        Route::Session | Route::Many | Route::Every(_) | Route::Walk { .. } | Route::Watch => Place::Several,
    }
}
