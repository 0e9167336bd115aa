//! The commands. Members are elements of sorted sets, and positions are their scores.

mod add;
mod arguments;
mod options;
mod points;
mod search;
#[cfg(test)]
mod tests;

use crate::grid::Position;
use crate::search::Members;
use crate::text;
use shardis_modules_api::{Context, Error, Loader, Reply, ScoreBound, ScoreRange, Zset};
use std::ops::{ControlFlow, Range};

/// The group and the category of permissions.
const GROUP: &str = "geo";

/// Registers all commands.
pub fn register(loader: &mut Loader<'_>) -> Result<(), Error> {
    loader.command::<add::GeoAdd>()?;
    loader.command::<points::GeoDist>()?;
    loader.command::<points::GeoHash>()?;
    loader.command::<points::GeoPos>()?;
    loader.command::<search::GeoSearch>()?;
    loader.command::<search::GeoSearchStore>()?;
    loader.command::<search::GeoRadius>()?;
    loader.command::<search::GeoRadiusRo>()?;
    loader.command::<search::GeoRadiusByMember>()?;
    loader.command::<search::GeoRadiusByMemberRo>()
}

impl Members for Zset<'_> {
    fn for_each_in(&mut self, scores: Range<f64>, mut visit: impl FnMut(f64, &[u8]) -> ControlFlow<()>) {
        let range =
            ScoreRange { min: ScoreBound::Inclusive(scores.start), max: ScoreBound::Exclusive(scores.end) };
        self.visit(range, |member, score| visit(score, member));
    }
}

/// Writes numbers into a reply, with one buffer for the text of all.
struct Numbers<'c> {
    reply: Reply<'c>,
    text: Vec<u8>,
    /// Positions are doubles then.
    is_resp3: bool,
}

impl<'c> Numbers<'c> {
    fn new(ctx: &Context<'c>) -> Self {
        Self { is_resp3: ctx.is_resp3(), ..Self::without_positions(ctx) }
    }

    /// For a reply that has no positions in it.
    fn without_positions(ctx: &Context<'c>) -> Self {
        Self { reply: ctx.reply(), text: Vec::new(), is_resp3: false }
    }

    fn position(&mut self, position: Position) {
        self.reply.array(2);
        for degrees in [position.longitude, position.latitude] {
            if self.is_resp3 {
                self.reply.human_double(degrees);
            } else {
                self.text.clear();
                text::push_coordinate(&mut self.text, degrees);
                self.reply.bytes(&self.text);
            }
        }
    }

    /// A distance, which is a bulk string whatever the protocol.
    fn distance(&mut self, distance: f64) {
        self.text.clear();
        text::push_distance(&mut self.text, distance);
        self.reply.bytes(&self.text);
    }
}
