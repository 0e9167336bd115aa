//! Big collections: what the commands of a group will look up in them is fetched for all together before they run, as
//! the keys' entries are.

use super::Worker;
use super::pipeline::Prepared;
use crate::command::table::CommandId;
use crate::command::{Call, Key};
use crate::protocol::{ArgRange, Argv};
use crate::types::ValueRef;
use crate::types::fetch::Fetches;

/// How many look-ups are fetched together: as many as have room in a core's first cache, about.
const FETCHES_MAX: usize = 16;

/// After a group that looked nothing up in a big collection, so many groups are not examined. It costs a small share of a
/// command over a small collection to find out.
const UNEXAMINED_GROUPS: u32 = 15;

/// A command that is about to run.
pub(super) struct Upcoming<'a> {
    pub(super) command: CommandId,
    pub(super) db: u32,
    /// The hash of its first key, which is its first argument.
    pub(super) hash: u64,
    pub(super) args: Argv<'a>,
}

impl<'a> Upcoming<'a> {
    #[inline]
    pub(super) fn of_request(
        request: &Prepared,
        buf: &'a [u8],
        args: &'a [ArgRange],
    ) -> Option<Upcoming<'a>> {
        let command = request.command().filter(|_| request.is_fast_path())?;
        Some(Upcoming { command, db: request.db, hash: request.hash, args: request.argv(buf, args) })
    }

    #[inline]
    pub(super) fn of_call(call: &Call, args: Argv<'a>) -> Option<Upcoming<'a>> {
        (call.hashed_arg == 1).then_some(Upcoming {
            command: call.command,
            db: call.db,
            hash: call.hash,
            args,
        })
    }
}

impl Worker {
    /// Fetches what commands over keys of this shard will look up in big collections. The keys' entries have been
    /// fetched.
    #[inline]
    pub(super) fn prefetch_elements<'a>(&mut self, commands: impl Iterator<Item = Upcoming<'a>>) {
        if self.unexamined_groups > 0 {
            self.unexamined_groups -= 1;
            return;
        }
        if self.fetch_elements(commands) == Some(false) {
            self.unexamined_groups = UNEXAMINED_GROUPS;
        }
    }

    /// Returns whether any command looks something up in a big collection; `None` without a command.
    #[inline(never)]
    fn fetch_elements<'a>(&self, commands: impl Iterator<Item = Upcoming<'a>>) -> Option<bool> {
        let mut is_any = None;
        let mut fetches = Fetches::default();
        for Upcoming { command, db, hash, args } in commands {
            is_any.get_or_insert(false);
            let Some(seeks) = self.table.entry(command).row.seeks else { continue };
            let entry = self.shard.lookup_stored(db, Key { bytes: args.arg(1), hash });
            let Some(ValueRef::Object(object)) = entry.map(|entry| entry.value()) else { continue };
            let Some((element, sought)) = seeks(args) else { continue };
            is_any = Some(true);
            fetches.push(object, element, sought);
            if fetches.len() == FETCHES_MAX {
                std::mem::take(&mut fetches).finish();
            }
        }
        fetches.finish();
        is_any
    }
}
