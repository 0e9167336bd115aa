//! Requests of programs. A program that is suspended, or that asks for keys as it goes, may hold its keys for long. So
//! its request is marked as a program's, and no other request waits behind it in a line, where it would hold other keys
//! or keep others from them meanwhile. A request that would have to wait in a line in which a program's request stands
//! *meets* the program, and waits *outside* the lines, without holding or blocking anything, until all programs that it
//! met have released their requests. Then it starts anew: a command or an EXEC of this shard takes its place in the lines
//! at once, in order of arrival; a transaction's plan begins at its first shard ([`LockEvent::Again`]).
//!
//! A request may be marked later, when its owner is suspended ([`LockTable::mark`]). The requests that wait behind it
//! then are sent outside ([`LockEvent::Away`]).
//!
//! Commands of one client keep their order: one that waits outside is followed there by all later ones of its client. In the
//! lines, later ones over other keys go ahead, unless they are *in turn*: each request of a unit also wants a lock that is its
//! client's, shared, or exclusively if it is in turn.
//!
//! The holder of the token ([`token`](crate::shard::token)) asks with priority: plans' requests that are not granted in whole
//! are sent outside. It waits for the commands and EXECs of this shard that stand in its lines, or for one of these that wants
//! the whole keyspace: they end by themselves, and later commands of their clients, over other keys, may have run already. It
//! may also extend a request that it holds, and wait for the further keys. A plan that has the token only to get its locks waits
//! for programs outside, too, and is the first to be let in ([`LockTable::request_first_outside`]).
//!
//! A handoff's request is exempt: it wants one key, and whoever waits behind it in that key's line meets the program,
//! too.

use super::{Barrier, Deferred, Intent, KeyLock, Line, LockRequestId, LockSet, LockTable, Request, merged};
use crate::call::ClientId;
use smallvec::SmallVec;

/// Whose request it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A transaction over several shards, which may hold locks of other shards.
    Plan,
    /// A command or EXEC of this shard alone, of this client.
    Unit(ClientId),
    /// The handoff of a key.
    Handoff,
    /// A program, or the holder of the token.
    Program,
}

/// The outcome of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    Now,
    /// It waits in its lines.
    Later,
    /// It has met programs, and waits outside.
    Outside,
}

/// What the owner of a request has to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockEvent {
    /// A plan's request was sent outside.
    Away(LockRequestId),
    /// The programs that a plan met have ended. Its request, for these locks, is gone: the plan has to start anew.
    Again(LockRequestId, LockSet),
    /// A unit has met programs too often, and waits for the token: see [`LockTable::admit_with_token`].
    NeedsToken(LockRequestId),
}

/// Who has met programs this often takes the token before it starts again.
pub const MEETINGS_MAX: u32 = 2;

/// A plan with the token that has met programs this often waits in their lines, and holds what it has.
pub const MEETINGS_WITH_TOKEN_MAX: u32 = 4;

/// A request that waits outside the lines.
pub(super) struct Outside {
    id: LockRequestId,
    set: LockSet,
    owner: Owner,
    /// The programs' requests that it has met and that are still there.
    programs: Programs,
    meetings: u32,
    awaits_token: bool,
    /// Of a plan with the token: when the programs have ended it gets its place before all others.
    is_first: bool,
}

type Programs = SmallVec<[LockRequestId; 2]>;

/// Which requests leave their lines for a program's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Yields {
    /// It comes behind them.
    Plans,
    /// It stands before them.
    PlansAndUnits,
}

impl Yields {
    fn has(self, owner: Owner) -> bool {
        match owner {
            Owner::Plan => true,
            Owner::Unit(_) => self == Yields::PlansAndUnits,
            Owner::Handoff | Owner::Program => false,
        }
    }
}

impl Line {
    /// Puts an intent of a program at a place. Returns whether it is granted.
    fn insert_program(&mut self, place: usize, lock_request: LockRequestId, exclusive: bool) -> bool {
        let granted = place == 0 || !exclusive && self.iter().take(place).all(|intent| !intent.exclusive);
        let intent = Intent { lock_request, exclusive, granted };
        let others = self.others.get_or_insert_default();
        match place.checked_sub(1) {
            Some(place) => others.insert(place, intent),
            None => others.push_front(std::mem::replace(&mut self.first, intent)),
        }
        granted
    }
}

impl LockTable {
    /// Queues a request of a plan or a unit.
    pub fn request_by(&mut self, set: LockSet, owner: Owner) -> (LockRequestId, Grant) {
        let lock_request = self.next_id();
        let grant = self.admit_or_defer(lock_request, set, owner);
        (lock_request, grant)
    }

    pub(super) fn admit_or_defer(&mut self, id: LockRequestId, set: LockSet, owner: Owner) -> Grant {
        debug_assert!(owner != Owner::Program, "a program's request is placed first");
        if owner != Owner::Handoff && (self.program_count > 0 || !self.outside.is_empty()) {
            let programs = self.met_by(&set);
            if !programs.is_empty() || self.is_client_outside(owner) {
                let meetings = u32::from(!programs.is_empty());
                self.outside.push(Outside { programs, meetings, ..Outside::new(id, set, owner) });
                return Grant::Outside;
            }
        }
        if self.barrier.is_some() {
            self.deferred.push_back(Deferred { id, set, owner });
            return Grant::Later;
        }
        if self.admit(id, set, owner) { Grant::Now } else { Grant::Later }
    }

    /// Whether a command that wants `keys` only for the moment of its run has to queue up instead. `client`: whose it
    /// is.
    pub fn is_in_the_way(&self, keys: &[KeyLock], client: ClientId) -> bool {
        self.conflicts(keys) || self.is_client_outside(Owner::Unit(client))
    }

    /// Whether an earlier command or EXEC of the same client waits, or has waited and is about to run.
    pub fn awaits_unit_of(&self, client: ClientId) -> bool {
        self.keys.contains_key(&client_lock(client)) || self.is_client_outside(Owner::Unit(client))
    }

    /// Queues a request of a unit. `in_turn`: it is granted after all earlier ones of its client.
    pub fn request_by_unit(
        &mut self,
        mut set: LockSet,
        client: ClientId,
        in_turn: bool,
    ) -> (LockRequestId, Grant) {
        if let LockSet::Keys(keys) = &mut set {
            keys.push(KeyLock { id: client_lock(client), exclusive: in_turn });
        }
        self.request_by(set, Owner::Unit(client))
    }

    /// Whether an earlier request of the same client waits outside.
    fn is_client_outside(&self, owner: Owner) -> bool {
        matches!(owner, Owner::Unit(_)) && self.outside.iter().any(|other| other.owner == owner)
    }

    /// Whether it is of a program's request. Such a request is one for all its keys, also for those that were added to it.
    fn is_programs(&self, intent: &Intent) -> bool {
        self.requests[&intent.lock_request].owner == Owner::Program
    }

    /// The programs' requests that stand in the lines in which a request would have to wait.
    fn met_by(&self, set: &LockSet) -> Programs {
        let mut met = Programs::new();
        if self.program_count == 0 {
            return met;
        }
        if let Some(barrier) = &self.barrier
            && barrier.owner == Owner::Program
        {
            met.push(barrier.id);
            return met;
        }
        match set {
            LockSet::Whole => {
                let programs = self.requests.iter().filter(|(_, request)| request.owner == Owner::Program);
                met.extend(programs.map(|(&id, _)| id));
            }
            LockSet::Keys(keys) => {
                for key in keys {
                    let Some(line) = self.keys.get(&key.id) else { continue };
                    if !line.lets_share(key.exclusive) {
                        let programs = line.iter().filter(|other| self.is_programs(other));
                        met.extend(programs.map(|other| other.lock_request));
                    }
                }
            }
        }
        met.sort_unstable();
        met.dedup();
        met
    }

    /// The same, for a plan that holds the token.
    fn met_by_plan_with_token(&self, set: &LockSet) -> Programs {
        let mut met = self.met_by(set);
        met.retain(|program| !self.plans_with_token.contains(program));
        met
    }

    /// Marks the granted `lock_request`, and what was split off it, as a program's, and sends those that wait behind it outside. Appends the
    /// requests that are granted thereby to `granted`.
    pub fn mark(&mut self, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        let mut marked: Vec<LockRequestId> = vec![lock_request];
        let split_off = self.requests.iter().filter(|(_, request)| request.split_off == Some(lock_request));
        marked.extend(split_off.map(|(&id, _)| id));
        marked.sort_unstable();
        for id in marked {
            self.plans_with_token.retain(|plan| *plan != id);
            self.mark_one(id, granted);
        }
    }

    fn mark_one(&mut self, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        let set = self.set_of(lock_request);
        let mut is_new = false;
        if let Some(barrier) = self.barrier.as_mut().filter(|barrier| barrier.id == lock_request) {
            is_new |= std::mem::replace(&mut barrier.owner, Owner::Program) != Owner::Program;
        }
        if let Some(request) = self.requests.get_mut(&lock_request) {
            debug_assert_eq!(request.blocked_on, 0, "only granted requests are marked");
            is_new |= std::mem::replace(&mut request.owner, Owner::Program) != Owner::Program;
        }
        if is_new {
            self.program_count += 1;
            let away = self.take_ungranted(&set, Yields::PlansAndUnits, granted);
            self.put_outside(away, granted);
        }
    }

    /// Queues a request of the holder of the token: behind units, and before plans that are not granted in whole, which are
    /// sent outside. Returns its id, and whether it is granted at once; if not, a later [`LockTable::release`] returns the id. Appends
    /// other requests that are granted thereby to `granted`.
    pub fn request_first(&mut self, set: LockSet, granted: &mut Vec<LockRequestId>) -> (LockRequestId, bool) {
        let lock_request = self.next_id();
        let grant = self.place_first(lock_request, set, granted);
        (lock_request, grant == Grant::Now)
    }

    /// The same of a plan that holds the token, and is no part of a wide transaction: it has its locks for a moment, when it has got
    /// them all.
    pub fn request_first_by_plan(
        &mut self,
        set: LockSet,
        granted: &mut Vec<LockRequestId>,
    ) -> (LockRequestId, bool) {
        let (lock_request, is_granted) = self.request_first(set, granted);
        self.plans_with_token.push(lock_request);
        (lock_request, is_granted)
    }

    /// Queues a request of a plan that holds the token. If it meets programs, it waits outside for their end, and is then granted
    /// before all that came behind them. Plans that have held the token before it, and have their locks still, are none: it waits in
    /// line for these. Appends other requests that are granted thereby to `granted`.
    pub fn request_first_outside(
        &mut self,
        set: LockSet,
        granted: &mut Vec<LockRequestId>,
    ) -> (LockRequestId, Grant) {
        let programs = self.met_by_plan_with_token(&set);
        if programs.is_empty() {
            let (id, is_granted) = self.request_first_by_plan(set, granted);
            return (id, if is_granted { Grant::Now } else { Grant::Later });
        }
        let id = self.next_id();
        self.outside.push(Outside { programs, is_first: true, ..Outside::new(id, set, Owner::Plan) });
        (id, Grant::Outside)
    }

    /// Lets a unit in that waits outside for the token, and holds it now: see [`LockTable::request_first`].
    pub fn admit_with_token(
        &mut self,
        lock_request: LockRequestId,
        granted: &mut Vec<LockRequestId>,
    ) -> bool {
        let at = self.outside.iter().position(|other| other.id == lock_request);
        let Outside { set, .. } = self.outside.remove(at.expect("it waits for the token"));
        let is_granted = self.place_first(lock_request, set, granted) == Grant::Now;
        self.let_in(granted);
        is_granted
    }

    pub(super) fn place_first(
        &mut self,
        id: LockRequestId,
        set: LockSet,
        granted: &mut Vec<LockRequestId>,
    ) -> Grant {
        let owner = Owner::Program;
        let is_waited_for = |barrier: &Barrier| barrier.granted || matches!(barrier.owner, Owner::Unit(_));
        if self.barrier.as_ref().is_some_and(is_waited_for) {
            self.deferred.push_back(Deferred { id, set, owner });
            return Grant::Later;
        }
        let away = self.take_ungranted(&set, Yields::Plans, granted);
        self.program_count += 1;
        let is_granted = match set {
            LockSet::Whole => {
                let is_granted = !self.is_held_by_other(id);
                self.barrier = Some(Barrier { id, granted: is_granted, owner });
                is_granted
            }
            LockSet::Keys(keys) => {
                let keys = merged(keys);
                let blocked_on = keys.iter().filter(|key| !self.insert_first(id, **key)).count();
                self.requests.insert(id, Request { keys, blocked_on, owner, split_off: None });
                blocked_on == 0
            }
        };
        self.put_outside(away, granted);
        if is_granted { Grant::Now } else { Grant::Later }
    }

    /// Extends the granted `lock_request`, which is a program's, with the priority of the token's holder. Returns whether
    /// it holds all of `set` at once; if not, a later [`LockTable::release`] returns the id again.
    pub fn extend_first(
        &mut self,
        lock_request: LockRequestId,
        set: LockSet,
        granted: &mut Vec<LockRequestId>,
    ) -> bool {
        if self.is_barrier(lock_request) {
            return true;
        }
        let away = self.take_ungranted(&set, Yields::Plans, granted);
        let is_granted = match set {
            LockSet::Whole => {
                debug_assert!(self.barrier.is_none(), "a barrier is not granted beside a request");
                let is_granted = !self.is_held_by_other(lock_request);
                self.barrier = Some(Barrier { id: lock_request, granted: is_granted, owner: Owner::Program });
                is_granted
            }
            LockSet::Keys(keys) => {
                let request =
                    self.requests.get_mut(&lock_request).expect("a request that is extended exists");
                debug_assert!(request.blocked_on == 0 && request.owner == Owner::Program);
                let mut held = std::mem::take(&mut request.keys);
                let mut blocked_on = 0;
                for key in merged(keys) {
                    if self.is_in_hand(lock_request, key) {
                        continue;
                    }
                    let line = self.keys.get(&key.id);
                    let is_shared = line
                        .is_some_and(|line| line.iter().any(|intent| intent.lock_request == lock_request));
                    if is_shared {
                        let held = held.iter_mut().find(|held| held.id == key.id);
                        held.expect("an intent belongs to a request").exclusive = true;
                        self.leave(key.id, lock_request);
                    } else {
                        held.push(key);
                    }
                    blocked_on += usize::from(!self.insert_first(lock_request, key));
                }
                let request = self.requests.get_mut(&lock_request).expect("it was there just now");
                (request.keys, request.blocked_on) = (held, blocked_on);
                blocked_on == 0
            }
        };
        self.put_outside(away, granted);
        is_granted
    }

    /// Whether another request holds keys. Those of handoffs that wait behind `id`, or for its end, do not count.
    pub(super) fn is_held_by_other(&self, id: LockRequestId) -> bool {
        let is_others = |request: &Request| request.blocked_on == 0 && request.split_off != Some(id);
        self.requests.iter().any(|(&other, request)| other != id && is_others(request))
    }

    /// Whether a program, which has the token, waits for the granted `lock_request` of a handoff.
    pub fn keeps_program_waiting(&self, lock_request: LockRequestId) -> bool {
        let waits = |intent: &Intent| !intent.granted && self.is_programs(intent);
        let is_waited_for = |key: &KeyLock| self.keys.get(&key.id).is_some_and(|line| line.iter().any(waits));
        let barrier = self.barrier.as_ref();
        let has_met = |request: &Outside| request.is_first && request.programs.contains(&lock_request);
        barrier.is_some_and(|barrier| barrier.owner == Owner::Program && !barrier.granted)
            || self.held_by(lock_request).iter().any(is_waited_for)
            || self.outside.iter().any(has_met)
    }

    /// Whether the granted `lock_request` holds a key, or did until that was split off.
    pub fn is_in_hand(&self, lock_request: LockRequestId, key: KeyLock) -> bool {
        let is_own = |intent: &Intent| {
            intent.lock_request == lock_request && (intent.exclusive || !key.exclusive)
                || self.requests[&intent.lock_request].split_off == Some(lock_request)
        };
        self.is_barrier(lock_request) || self.keys.get(&key.id).is_some_and(|line| line.iter().any(is_own))
    }

    /// Puts a request into a key's line, behind those that are granted and behind units. Returns whether it is granted there.
    fn insert_first(&mut self, id: LockRequestId, key: KeyLock) -> bool {
        let KeyLock { id: key, exclusive } = key;
        if let Some(line) = self.keys.get_mut(&key) {
            let is_before = |intent: &Intent| {
                intent.granted || matches!(self.requests[&intent.lock_request].owner, Owner::Unit(_))
            };
            let last = line.iter().enumerate().filter(|(_, intent)| is_before(intent)).last();
            return line.insert_program(last.map_or(0, |(place, _)| place + 1), id, exclusive);
        }
        let first = Intent { lock_request: id, exclusive, granted: true };
        self.keys.insert(key, Line { first, others: None });
        true
    }

    /// Takes the requests of `yielding` that are not granted in whole and stand in the lines of `set` out of all their lines,
    /// and those that their clients have made after them; also the barrier, if it is such a request. For the whole keyspace:
    /// all of `yielding` that are not granted.
    fn take_ungranted(
        &mut self,
        set: &LockSet,
        yielding: Yields,
        granted: &mut Vec<LockRequestId>,
    ) -> Vec<Outside> {
        let yields = |request: &Request| request.blocked_on > 0 && yielding.has(request.owner);
        let mut ids: Vec<LockRequestId> = match set {
            LockSet::Whole => {
                self.requests.iter().filter(|(_, request)| yields(request)).map(|(&id, _)| id).collect()
            }
            LockSet::Keys(keys) => {
                let lines = keys.iter().filter_map(|key| self.keys.get(&key.id));
                let all = lines.flat_map(Line::iter).map(|intent| intent.lock_request);
                all.filter(|id| yields(&self.requests[id])).collect()
            }
        };
        let clients: Vec<(Owner, LockRequestId)> = ids
            .iter()
            .map(|&id| (self.requests[&id].owner, id))
            .filter(|(owner, _)| matches!(owner, Owner::Unit(_)))
            .collect();
        if !clients.is_empty() {
            let follows = |id: LockRequestId, owner| {
                clients.iter().any(|&(other, earlier)| other == owner && earlier < id)
            };
            let waiting = self.requests.iter().filter(|(_, request)| yields(request));
            ids.extend(waiting.filter(|(id, request)| follows(**id, request.owner)).map(|(&id, _)| id));
        }
        ids.sort_unstable();
        ids.dedup();

        let mut left: Vec<u64> = Vec::new();
        let mut away: Vec<Outside> = Vec::new();
        for id in ids {
            let Request { keys, owner, .. } = self.requests.remove(&id).expect("it was found there");
            left.extend(keys.iter().filter(|key| self.leave(key.id, id)).map(|key| key.id));
            away.push(Outside::new(id, LockSet::Keys(keys), owner));
        }
        left.iter().for_each(|&key| self.grant(key, granted));
        let is_waiting = |barrier: &mut Barrier| !barrier.granted && yielding.has(barrier.owner);
        if let Some(barrier) = self.barrier.take_if(is_waiting) {
            away.push(Outside::new(barrier.id, LockSet::Whole, barrier.owner));
        }
        away
    }

    /// Puts requests that were taken out of their lines outside. Then lets in what does not have to wait there.
    fn put_outside(&mut self, away: Vec<Outside>, granted: &mut Vec<LockRequestId>) {
        for mut request in away {
            request.programs = self.met_by(&request.set);
            if request.owner == Owner::Plan {
                self.events.push(LockEvent::Away(request.id));
            }
            self.outside.push(request);
        }
        self.outside.sort_unstable_by_key(|request| request.id);
        self.defer_behind_program(granted);
        self.let_in(granted);
    }

    /// The barrier has gone, or is a program's now: lets what was deferred behind it into the lines, or sends it outside.
    fn defer_behind_program(&mut self, granted: &mut Vec<LockRequestId>) {
        match &self.barrier {
            None => self.open_barrier(granted),
            Some(barrier) if barrier.owner == Owner::Program => {
                for Deferred { id, set, owner } in std::mem::take(&mut self.deferred) {
                    if owner == Owner::Program {
                        self.deferred.push_back(Deferred { id, set, owner });
                        continue;
                    }
                    let grant = self.admit_or_defer(id, set, owner);
                    self.note_deferred(id, owner, grant, granted);
                }
            }
            Some(_) => {}
        }
    }

    /// A request that was deferred has got its place.
    pub(super) fn note_deferred(
        &mut self,
        id: LockRequestId,
        owner: Owner,
        grant: Grant,
        granted: &mut Vec<LockRequestId>,
    ) {
        match grant {
            Grant::Now => granted.push(id),
            Grant::Later => {}
            Grant::Outside if owner == Owner::Plan => self.events.push(LockEvent::Away(id)),
            Grant::Outside => {}
        }
    }

    /// A program's request was released.
    pub(super) fn program_ended(&mut self, id: LockRequestId) {
        self.plans_with_token.retain(|plan| *plan != id);
        self.outside.iter_mut().for_each(|request| request.programs.retain(|program| *program != id));
    }

    /// Starts the requests outside anew whose programs have ended, in order of arrival; that of the token's holder is the first.
    pub(super) fn let_in(&mut self, granted: &mut Vec<LockRequestId>) {
        self.let_first_in(granted);
        let mut at = 0;
        while let Some(request) = self.outside.get(at) {
            let is_unit = matches!(request.owner, Owner::Unit(_));
            let follows = is_unit && self.outside[..at].iter().any(|other| other.owner == request.owner);
            if follows || request.awaits_token || request.is_first || !request.programs.is_empty() {
                at += 1;
                continue;
            }
            if request.owner == Owner::Plan {
                let Outside { id, set, .. } = self.outside.remove(at);
                self.events.push(LockEvent::Again(id, set));
                continue;
            }
            let programs = self.met_by(&request.set);
            if programs.is_empty() {
                let Outside { id, set, owner, .. } = self.outside.remove(at);
                if self.barrier.is_some() {
                    self.deferred.push_back(Deferred { id, set, owner });
                } else if self.admit(id, set, owner) {
                    granted.push(id);
                }
                continue;
            }
            let request = &mut self.outside[at];
            request.meetings += 1;
            request.programs = programs;
            if request.meetings > MEETINGS_MAX {
                request.awaits_token = true;
                self.events.push(LockEvent::NeedsToken(request.id));
            }
            at += 1;
        }
    }

    /// The same for the plan that holds the token. It waits outside for programs that have come meanwhile, too, but not for ever.
    fn let_first_in(&mut self, granted: &mut Vec<LockRequestId>) {
        let is_due = |request: &Outside| request.is_first && request.programs.is_empty();
        let Some(at) = self.outside.iter().position(is_due) else { return };
        let programs = self.met_by_plan_with_token(&self.outside[at].set);
        let request = &mut self.outside[at];
        if !programs.is_empty() && request.meetings < MEETINGS_WITH_TOKEN_MAX {
            request.meetings += 1;
            request.programs = programs;
            return;
        }
        let Outside { id, set, .. } = self.outside.remove(at);
        self.plans_with_token.push(id);
        if self.place_first(id, set, granted) == Grant::Now {
            granted.push(id);
        }
    }

    /// Takes back a request that is not granted. Appends the requests that are granted thereby to `granted`.
    pub fn withdraw(&mut self, lock_request: LockRequestId, granted: &mut Vec<LockRequestId>) {
        if let Some(at) = self.outside.iter().position(|other| other.id == lock_request) {
            self.outside.remove(at);
            self.let_in(granted);
        } else if let Some(at) = self.deferred.iter().position(|other| other.id == lock_request) {
            self.deferred.remove(at);
        } else {
            self.release(lock_request, granted);
        }
    }

    /// Takes what the owners of requests have to be told, in order. To be called after each change of the table.
    pub fn take_events(&mut self) -> Vec<LockEvent> {
        std::mem::take(&mut self.events)
    }
}

/// The lock of a client, among those of keys. If a key has this hash, some requests wait that need not.
fn client_lock(client: ClientId) -> u64 {
    // The table uses the highest bits of a hash, and the lowest.
    client.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ client
}

impl Outside {
    /// One that has met programs for the first time.
    fn new(id: LockRequestId, set: LockSet, owner: Owner) -> Outside {
        Outside {
            id,
            set,
            owner,
            programs: Programs::new(),
            meetings: 1,
            awaits_token: false,
            is_first: false,
        }
    }
}

#[cfg(test)]
mod tests;
