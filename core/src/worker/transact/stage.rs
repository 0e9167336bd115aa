//! Stages: which commands of a transaction run together, and what each shard does then.

use crate::command::placement::{Placement, RoutedKey, Routes, shards_of};
use crate::command::queue::Queue;
use crate::shard::txn::{ShardBatch, Work};
use smallvec::SmallVec;
use std::ops::Range;

/// How the commands of a stage run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageKind {
    /// Each shard runs its list of commands over its own keys.
    Lists,
    /// One command runs at home over keys of other shards. In a coalesced pipeline: several, and of the others each
    /// shard runs its list.
    CheckOut,
    /// One command runs at home over the session.
    Session,
}

/// Commands that run together: a range of places in the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    pub kind: StageKind,
    pub commands: Range<usize>,
}

/// The stage that begins with command `from`; `None` after the last one.
pub fn stage_from(placements: &[Placement], from: usize) -> Option<Stage> {
    let kind = match placements.get(from)? {
        Placement::CheckOut | Placement::CheckOutDerived => StageKind::CheckOut,
        Placement::Session => StageKind::Session,
        _ => StageKind::Lists,
    };
    // A command that runs on every shard may read the session, as CLIENT LIST does. So it must be in a later stage than
    // an earlier SELECT, which home runs when it merges the replies of its stage.
    let mut has_settled = false;
    let mut ends_lists = |placement: &Placement| {
        has_settled |= *placement == Placement::SessionPrecomputed;
        match placement {
            Placement::CheckOut | Placement::CheckOutDerived | Placement::Session => true,
            Placement::Every(_) => has_settled,
            Placement::Anywhere | Placement::One(_) | Placement::Split | Placement::SessionPrecomputed => {
                false
            }
        }
    };
    let len = match kind {
        StageKind::Lists => {
            let rest = &placements[from..];
            rest.iter().position(&mut ends_lists).unwrap_or(rest.len())
        }
        StageKind::CheckOut | StageKind::Session => 1,
    };
    Some(Stage { kind, commands: from..from + len })
}

/// The stage of a coalesced pipeline, or of a part of it that runs alone: there is no other.
pub fn only_stage(placements: &[Placement]) -> Stage {
    let checks_out = placements.contains(&Placement::CheckOut);
    let kind = if checks_out { StageKind::CheckOut } else { StageKind::Lists };
    Stage { kind, commands: 0..placements.len() }
}

/// The shards on which a command of a stage runs or has keys, in ascending order. `shards` are those that take part.
pub fn command_shards(placement: Placement, keys: &[RoutedKey], shards: &[u16]) -> SmallVec<[u16; 4]> {
    match placement {
        Placement::Anywhere => SmallVec::from_slice(&shards[..1]),
        Placement::One(shard) => SmallVec::from_slice(&[shard as u16]),
        Placement::Every(_) | Placement::CheckOutDerived => SmallVec::from_slice(shards),
        // A program without keys takes its turn in the transaction on one of the shards, as a command without keys does.
        Placement::CheckOut if keys.is_empty() => SmallVec::from_slice(&shards[..1]),
        Placement::Split | Placement::CheckOut => shards_of(keys),
        Placement::Session | Placement::SessionPrecomputed => SmallVec::new(),
    }
}

/// For each of `shards`: the first command of the last stage in which it has work. `None`: it has none.
pub fn last_stages(routes: &Routes, shards: &[u16]) -> Vec<Option<usize>> {
    let mut last = vec![None; shards.len()];
    let mut stage = stage_from(routes.placements(), 0);
    while let Some(Stage { commands, .. }) = stage {
        for at in commands.clone() {
            for shard in command_shards(routes.placement(at), routes.keys(at), shards) {
                last[place_of(shards, shard)] = Some(commands.start);
            }
        }
        stage = stage_from(routes.placements(), commands.end);
    }
    last
}

/// The index of a shard in `shards`, those that take part.
pub fn place_of(shards: &[u16], shard: u16) -> usize {
    shards.iter().position(|&other| other == shard).expect("it takes part")
}

/// Builds the shard batches of a stage, one for each shard that has work. `spare`: shard batches to reuse.
pub struct Lists<'a> {
    pub shards: &'a [u16],
    pub works: Vec<Work>,
    #[allow(clippy::vec_box, reason = "they travel in their boxes")]
    pub spare: &'a mut Vec<Box<ShardBatch>>,
}

impl Lists<'_> {
    /// The shard batch of a shard; a new one if it had none.
    #[inline]
    fn of(&mut self, shard: u16) -> &mut ShardBatch {
        let work = &mut self.works[place_of(self.shards, shard)];
        if !matches!(work, Work::Run(_)) {
            *work = Work::Run(self.spare.pop().unwrap_or_default());
        }
        match work {
            Work::Run(shard_batch) => shard_batch,
            Work::Nothing | Work::CheckOut(_) => unreachable!("it was made Run above"),
        }
    }

    /// Adds the command `at` to the batches of the shards on which it runs.
    pub fn add(&mut self, queue: &Queue, routes: &Routes, at: usize) {
        match routes.placement(at) {
            Placement::Split => self.split(queue, routes.keys(at), at),
            Placement::One(shard) => {
                let shard_batch = self.of(shard as u16);
                shard_batch.queue.push_from(queue, at);
                shard_batch.push_hashes(routes.keys(at).iter().map(|key| key.hash));
            }
            placement => {
                for shard in command_shards(placement, routes.keys(at), self.shards) {
                    self.of(shard).queue.push_from(queue, at);
                }
            }
        }
    }

    /// The shards on which the command `at` would run have a turn without it: they end the stage as they would with it.
    pub fn add_nothing(&mut self, routes: &Routes, at: usize) {
        for shard in command_shards(routes.placement(at), routes.keys(at), self.shards) {
            self.of(shard);
        }
    }

    /// Splits a command whose arguments after the name repeat in groups of a key and its values (`MSET k v k v`): each
    /// shard gets the arguments before the first key, and the groups of its keys.
    fn split(&mut self, queue: &Queue, keys: &[RoutedKey], at: usize) {
        let (command, args) = (&queue.commands()[at], queue.args(at));
        let head_len = keys[0].arg as usize;
        let mut left = keys;
        while let Some(&RoutedKey { arg, shard, .. }) = left.first() {
            // Adjacent groups for the same shard are copied at once.
            let len = left.iter().take_while(|key| key.shard == shard).count();
            let (together, others) = left.split_at(len);
            left = others;
            let end = left.first().map_or(args.len(), |next| next.arg as usize);
            let shard_batch = self.of(shard);
            let list = &mut shard_batch.queue;
            if list.commands().last().is_none_or(|last| last.place != command.place) {
                list.begin(command.call, command.place);
                list.push_span(args.slice(..head_len));
            }
            list.push_span(args.slice(arg as usize..end));
            shard_batch.push_hashes(together.iter().map(|key| key.hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::KeyspaceLock;
    use Placement::{Anywhere, CheckOut, One, Session, SessionPrecomputed, Split};

    fn kinds(placements: &[Placement]) -> Vec<(StageKind, Range<usize>)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(stage) = stage_from(placements, from) {
            from = stage.commands.end;
            found.push((stage.kind, stage.commands));
        }
        found
    }

    #[test]
    fn a_transaction_is_cut_where_a_command_is_neither_of_one_shard_nor_split() {
        assert_eq!(kinds(&[One(1), Split, Anywhere, SessionPrecomputed, One(2)]), [(StageKind::Lists, 0..5)]);
        assert_eq!(
            kinds(&[CheckOut, One(0), One(1), Session, CheckOut, Split]),
            [
                (StageKind::CheckOut, 0..1),
                (StageKind::Lists, 1..3),
                (StageKind::Session, 3..4),
                (StageKind::CheckOut, 4..5),
                (StageKind::Lists, 5..6),
            ]
        );
        let every = Placement::Every(KeyspaceLock::None);
        assert_eq!(
            kinds(&[every, One(0), SessionPrecomputed, One(1), every, every]),
            [(StageKind::Lists, 0..4), (StageKind::Lists, 4..6)]
        );
        assert_eq!(kinds(&[]), []);
    }
}
