//! Keys that no command removes while modules are told of it: they have expired, or are evicted.
//!
//! What a module does then comes right before the removal in the stream of effects, and it may come to any key. So the keys are
//! removed by [tasks](super::task), which tell of it within. A look-up, and a cycle of active expiry, leave an expired key where it
//! is and note it; to everybody it is gone already. A key that a command replaces, or would change, is removed by that.
//!
//! Redis writes what an active cycle removes, and what is evicted, without MULTI, and so it is here. A key that a look-up has found
//! is a unit with what is done because of it.
//!
//! More memory than [`GROWTH_BYTES_MAX`] does not come to be in use while a task that evicts waits for its turn: then keys are
//! evicted at once, and modules are told later.

use super::ProgramCtx;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, flag};
use crate::command::{CommandResult, Ctx};
use crate::shard::evict::Look;
use crate::shard::observe::{DUE_EXPIRED_MAX, DueExpired};
use crate::worker::evict::VAIN_LOOKS_MAX;
use crate::worker::{TURN_INTERVAL_MS_MAX, Worker};

const GROWTH_BYTES_MAX: i64 = 1 << 20;

/// The tasks of a worker that remove keys.
#[derive(Default)]
pub(super) struct Removals {
    /// How many remove expired keys.
    expiring: usize,
    /// Such a task has as many keys as may be noted: there are more.
    has_more_expired: bool,
    /// One evicts keys; what was in use when it was added.
    evicting: Option<i64>,
}

impl Worker {
    /// At the end of a turn in which expired keys were noted.
    #[cold]
    pub(in crate::worker) fn remove_due_expired(&mut self) {
        if self.programs.removals.expiring > 0 {
            return;
        }
        let due = self.shard.observers.take_due_expired();
        let is_full = due.len() >= DUE_EXPIRED_MAX;
        let (looked_up, found): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| due.was_looked_up);
        self.programs.removals.has_more_expired = is_full && !found.is_empty();
        self.programs.removals.expiring = looked_up.len() + usize::from(!found.is_empty());
        for due in looked_up {
            self.add_task(Box::new(move |program| {
                expire(program, &due);
                program.worker().has_expired();
            }));
        }
        if !found.is_empty() {
            self.add_task(Box::new(move |program| {
                program.worker().shard.effects.be_apart();
                found.iter().for_each(|due| expire(program, due));
                program.worker().has_expired();
            }));
        }
    }

    /// A task has removed expired keys.
    fn has_expired(&mut self) {
        let removals = &mut self.programs.removals;
        removals.expiring -= 1;
        if removals.expiring == 0 && std::mem::take(&mut removals.has_more_expired) && self.expires_actively()
        {
            self.run_expire_cycle(TURN_INTERVAL_MS_MAX);
        }
    }

    /// Whether keys are evicted by a task now.
    pub(in crate::worker) fn evicts_by_program(&self) -> bool {
        let began_with = self.programs.removals.evicting;
        let has_grown = began_with.is_some_and(|used| self.counted_memory() > used + GROWTH_BYTES_MAX);
        self.shard.observers.tells_evicted() && !has_grown
    }

    /// Has a task evict keys, unless there is one.
    pub(in crate::worker) fn begin_eviction(&mut self) {
        if self.programs.removals.evicting.is_none() {
            self.programs.removals.evicting = Some(self.counted_memory());
            self.add_task(Box::new(evict_excess));
        }
    }
}

/// Removes a key if it has expired.
fn expire(program: &mut ProgramCtx<'_>, due: &DueExpired) {
    remove(program, EXPIRE.name, due.db, &due.key);
}

/// Evicts keys as far as there is time.
fn evict_excess(program: &mut ProgramCtx<'_>) {
    let worker = program.worker();
    worker.shard.effects.be_apart();
    let began_ticks = worker.time.clock.ticks();
    let mut vain_looks = 0;
    loop {
        let worker = program.worker();
        if !worker.must_evict_own() || worker.has_evicted_for_long(began_ticks) {
            break;
        }
        let victim = match worker.shard.find_victim() {
            Look::Found(victim) => victim,
            Look::Unfinished => continue,
            Look::InVain => {
                vain_looks += 1;
                if vain_looks < VAIN_LOOKS_MAX {
                    continue;
                }
                worker.tell_freed(u64::MAX);
                break;
            }
        };
        let used = worker.counted_memory();
        remove(program, EVICT.name, victim.db, &victim.key);
        let worker = program.worker();
        let freed = used - worker.counted_memory();
        worker.tell_freed(freed.max(0) as u64);
    }
    let worker = program.worker();
    worker.sample_eviction(began_ticks);
    worker.programs.removals.evicting = None;
}

/// Runs one of the commands below.
fn remove(program: &mut ProgramCtx<'_>, name: &str, db: u32, key: &[u8]) {
    program.select(db);
    if program.bring(db, key) {
        program.await_brought();
    }
    // It replies nothing of interest, and a program that is told to stop returns soon.
    let _ = program.call_hidden(&[name.as_bytes(), key], &mut Vec::new());
}

pub(super) const EXPIRE: Command = hidden("remove-expired", remove_expired, "Removes a key that has expired");
pub(super) const EVICT: Command = hidden("remove-evicted", remove_evicted, "Removes a key to make room");

const KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RM | key_flag::DELETE)];

const fn hidden(
    name: &'static str,
    run: fn(&mut Ctx<'_>) -> CommandResult,
    summary: &'static str,
) -> Command {
    Command::keys(name, 2, run)
        .flags(flag::WRITE | flag::SKIP_MONITOR | flag::SKIP_SLOWLOG)
        .at(KEY)
        .hidden()
        .docs(Docs::new("server", "7.0.0", summary).complexity("O(1)").arguments("key#0").internal())
}

/// REMOVE-EXPIRED key. Reply: OK. O(1).
fn remove_expired(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    ctx.shard.remove_if_expired(ctx.call.db, key);

    ctx.no_effect();
    ctx.reply.ok();
    Ok(())
}

/// REMOVE-EVICTED key. Reply: OK. O(1).
fn remove_evicted(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);

    ctx.shard.evict_if_there(ctx.call.db, key);

    ctx.no_effect();
    ctx.reply.ok();
    Ok(())
}
