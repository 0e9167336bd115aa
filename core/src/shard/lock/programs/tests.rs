//! Requests of programs: single cases, and random operations against what must hold at any time.

use super::*;
use crate::testing::Rng;
use ahash::AHashMap;

fn keys(wanted: &[(u64, bool)]) -> LockSet {
    LockSet::Keys(wanted.iter().map(|&(id, exclusive)| KeyLock { id, exclusive }).collect())
}

fn exclusive(ids: &[u64]) -> LockSet {
    LockSet::Keys(ids.iter().map(|&id| KeyLock { id, exclusive: true }).collect())
}

fn release(table: &mut LockTable, lock_request: LockRequestId) -> Vec<LockRequestId> {
    let mut granted = Vec::new();
    table.release(lock_request, &mut granted);
    granted
}

fn mark(table: &mut LockTable, lock_request: LockRequestId) -> Vec<LockRequestId> {
    let mut granted = Vec::new();
    table.mark(lock_request, &mut granted);
    granted
}

/// A granted request of a program.
fn program(table: &mut LockTable, set: LockSet) -> LockRequestId {
    let (id, granted) = table.request_first(set, &mut Vec::new());
    assert!(granted);
    id
}

#[test]
fn a_request_that_meets_a_program_blocks_none_of_its_other_keys() {
    let mut table = LockTable::default();
    let slow = program(&mut table, exclusive(&[1]));
    let (unit, grant) = table.request_by(exclusive(&[1, 2]), Owner::Unit(7));
    assert_eq!(grant, Grant::Outside);
    assert!(!table.conflicts(&[KeyLock { id: 2, exclusive: true }]));
    let (other, grant) = table.request_by(exclusive(&[2]), Owner::Unit(8));
    assert_eq!(grant, Grant::Now);

    assert_eq!(release(&mut table, slow), vec![], "it waits for the other one now, in its line");
    assert_eq!(release(&mut table, other), vec![unit]);
    assert_eq!(release(&mut table, unit), vec![]);
    assert!(table.is_empty() && table.take_events().is_empty());
}

#[test]
fn a_whole_keyspace_request_that_waits_for_a_program_holds_nobody_up() {
    let mut table = LockTable::default();
    let (slow, _) = table.request_by(exclusive(&[1]), Owner::Unit(1));
    let (scan, grant) = table.request_by(LockSet::Whole, Owner::Unit(2));
    assert_eq!(grant, Grant::Later);
    let (set, grant) = table.request_by(exclusive(&[2]), Owner::Unit(3));
    assert_eq!(grant, Grant::Later, "it is behind a barrier");

    assert_eq!(mark(&mut table, slow), vec![set]);

    let (second, grant) = table.request_by(LockSet::Whole, Owner::Plan);
    assert_eq!(grant, Grant::Outside);
    assert_eq!(release(&mut table, set), vec![]);
    assert_eq!(release(&mut table, slow), vec![scan]);
    assert_eq!(table.take_events(), vec![LockEvent::Again(second, LockSet::Whole)]);
    assert_eq!(release(&mut table, scan), vec![]);
    assert!(table.is_empty());
}

#[test]
fn a_plan_that_waits_behind_a_request_that_becomes_a_programs_is_sent_away_and_told_when_to_start_anew() {
    let mut table = LockTable::default();
    let (slow, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    let (plan, grant) = table.request_by(exclusive(&[1, 2]), Owner::Plan);
    assert_eq!(grant, Grant::Later);
    let (behind, grant) = table.request_by(exclusive(&[2]), Owner::Plan);
    assert_eq!(grant, Grant::Later);

    assert_eq!(mark(&mut table, slow), vec![behind]);

    assert_eq!(table.take_events(), vec![LockEvent::Away(plan)]);
    assert_eq!(release(&mut table, slow), vec![]);
    assert_eq!(table.take_events(), vec![LockEvent::Again(plan, exclusive(&[1, 2]))]);
    assert_eq!(release(&mut table, behind), vec![]);
    assert!(table.is_empty());
}

#[test]
fn commands_of_one_client_do_not_overtake_one_that_waits_for_a_program() {
    let mut table = LockTable::default();
    let (slow, _) = table.request_by(exclusive(&[1]), Owner::Unit(1));
    let (holder, _) = table.request_by(exclusive(&[2]), Owner::Unit(2));
    let (first, _) = table.request_by(exclusive(&[1, 2]), Owner::Unit(3));
    let (second, _) = table.request_by(exclusive(&[2]), Owner::Unit(3));
    assert_eq!(mark(&mut table, slow), vec![]);
    assert_eq!(release(&mut table, holder), vec![], "the second one has followed the first one outside");
    assert!(table.is_in_the_way(&[KeyLock { id: 9, exclusive: true }], 3));
    let (third, grant) = table.request_by(exclusive(&[9]), Owner::Unit(3));
    assert_eq!(grant, Grant::Outside);

    assert_eq!(release(&mut table, slow), vec![first, third]);
    assert_eq!(release(&mut table, first), vec![second]);
    release(&mut table, second);
    release(&mut table, third);
    assert!(table.is_empty());
}

#[test]
fn a_unit_in_turn_waits_for_the_earlier_ones_of_its_client_and_others_do_not() {
    let mut table = LockTable::default();
    let (holder, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    assert!(!table.awaits_unit_of(3));
    let (first, grant) = table.request_by_unit(exclusive(&[1]), 3, true);
    assert_eq!(grant, Grant::Later);
    assert!(table.awaits_unit_of(3) && !table.awaits_unit_of(4));
    let (second, grant) = table.request_by_unit(exclusive(&[2]), 3, true);
    assert_eq!(grant, Grant::Later, "its key is free");
    let (other, grant) = table.request_by_unit(exclusive(&[3]), 4, true);
    assert_eq!(grant, Grant::Now);
    release(&mut table, other);
    assert_eq!(release(&mut table, holder), vec![first]);
    assert_eq!(release(&mut table, first), vec![second]);
    release(&mut table, second);

    let (holder, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    let (first, _) = table.request_by_unit(exclusive(&[1]), 3, false);
    let (second, grant) = table.request_by_unit(exclusive(&[2]), 3, false);
    assert_eq!(grant, Grant::Now);
    let (third, grant) = table.request_by_unit(exclusive(&[4]), 3, true);
    assert_eq!(grant, Grant::Later);
    release(&mut table, second);
    assert_eq!(mark(&mut table, holder), vec![], "the third one has followed the first one outside");
    assert_eq!(release(&mut table, holder), vec![first]);
    assert_eq!(release(&mut table, first), vec![third]);
    release(&mut table, third);
    assert!(table.is_empty());
}

#[test]
fn the_token_goes_before_what_is_not_granted_in_whole() {
    let mut table = LockTable::default();
    let (holder, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    // It is the first in the line of key 2, but waits for key 1.
    let (partly, _) = table.request_by(exclusive(&[1, 2]), Owner::Plan);
    let (first, granted) = table.request_first(exclusive(&[2]), &mut Vec::new());
    assert!(granted);
    assert_eq!(table.take_events(), vec![LockEvent::Away(partly)]);

    assert!(!table.extend_first(first, exclusive(&[1]), &mut Vec::new()));
    assert_eq!(release(&mut table, holder), vec![first]);
    assert!(table.extend_first(first, LockSet::Whole, &mut Vec::new()));
    assert_eq!(table.request_by(exclusive(&[5]), Owner::Unit(1)).1, Grant::Outside);
    let unit = release(&mut table, first);
    assert_eq!(unit.len(), 1);
    assert_eq!(table.take_events(), vec![LockEvent::Again(partly, exclusive(&[1, 2]))]);
    release(&mut table, unit[0]);
    assert!(table.is_empty());
}

#[test]
fn a_shared_lock_is_made_exclusive_when_the_others_that_share_it_are_released() {
    let mut table = LockTable::default();
    let (other, _) = table.request_by(keys(&[(1, false)]), Owner::Plan);
    let first = program(&mut table, keys(&[(1, false), (2, true)]));
    assert!(table.extend_first(first, keys(&[(2, false)]), &mut Vec::new()));
    assert!(!table.extend_first(first, keys(&[(1, true)]), &mut Vec::new()));
    assert_eq!(table.request_by(keys(&[(1, false)]), Owner::Unit(1)).1, Grant::Outside);
    assert_eq!(release(&mut table, other), vec![first]);
    assert!(table.split(first, 1).is_some(), "it is exclusive now");
}

#[test]
fn the_token_waits_for_a_granted_request_for_the_whole_keyspace() {
    let mut table = LockTable::default();
    let (whole, _) = table.request_by(LockSet::Whole, Owner::Plan);
    let (unit, _) = table.request_by(exclusive(&[1]), Owner::Unit(1));
    let (other, _) = table.request_by(exclusive(&[2]), Owner::Unit(2));
    let (first, granted) = table.request_first(exclusive(&[1]), &mut Vec::new());
    assert!(!granted);
    assert_eq!(release(&mut table, whole), vec![unit, other]);
    assert_eq!(release(&mut table, unit), vec![first]);
}

/// A client's later command may have run while its earlier one waits in a line. If the token's holder went before that one, it
/// would come before the one command and behind the other.
#[test]
fn the_token_waits_for_commands_that_stand_in_its_lines() {
    let mut table = LockTable::default();
    let (plan, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    let (waiting_plan, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    let (unit, _) = table.request_by(exclusive(&[1]), Owner::Unit(1));
    let (first, granted) = table.request_first(exclusive(&[1]), &mut Vec::new());
    assert!(!granted);
    assert_eq!(table.take_events(), vec![LockEvent::Away(waiting_plan)]);
    assert_eq!(
        table.request_by(exclusive(&[1]), Owner::Unit(2)).1,
        Grant::Outside,
        "it comes behind the holder"
    );
    assert_eq!(release(&mut table, plan), vec![unit]);
    assert_eq!(release(&mut table, unit), vec![first]);
}

#[test]
fn the_token_waits_for_a_command_over_the_whole_keyspace() {
    let mut table = LockTable::default();
    let (plan, _) = table.request_by(exclusive(&[1]), Owner::Plan);
    let (unit, _) = table.request_by(LockSet::Whole, Owner::Unit(1));
    let (first, granted) = table.request_first(exclusive(&[2]), &mut Vec::new());
    assert!(!granted && table.take_events().is_empty());
    assert_eq!(release(&mut table, plan), vec![unit]);
    assert_eq!(release(&mut table, unit), vec![first]);
    assert!(table.extend_first(first, LockSet::Whole, &mut Vec::new()));
}

#[test]
fn a_unit_that_meets_programs_again_and_again_takes_the_token() {
    let mut table = LockTable::default();
    let mut slow = program(&mut table, exclusive(&[1]));
    let (unit, _) = table.request_by(exclusive(&[1, 2]), Owner::Unit(9));
    for (n, next) in [2, 1, 2].into_iter().enumerate() {
        let other = program(&mut table, exclusive(&[next]));
        assert_eq!(release(&mut table, slow), vec![]);
        let expected =
            if n == MEETINGS_MAX as usize - 1 { vec![LockEvent::NeedsToken(unit)] } else { Vec::new() };
        assert_eq!(table.take_events(), expected);
        slow = other;
    }
    assert!(!table.admit_with_token(unit, &mut Vec::new()));
    assert_eq!(table.request_by(exclusive(&[1]), Owner::Plan).1, Grant::Outside);
    assert_eq!(release(&mut table, slow), vec![unit]);
}

#[test]
fn a_plan_with_the_token_waits_outside_and_is_let_in_first() {
    let mut table = LockTable::default();
    let slow = program(&mut table, exclusive(&[1]));
    let (unit, grant) = table.request_by(exclusive(&[1]), Owner::Unit(9));
    assert_eq!(grant, Grant::Outside);
    let (plan, grant) = table.request_first_outside(LockSet::Whole, &mut Vec::new());
    assert_eq!(grant, Grant::Outside);
    assert!(!table.conflicts(&[KeyLock { id: 2, exclusive: true }]), "it holds nobody up");
    assert_eq!(release(&mut table, slow), vec![plan], "before the one that came first");
    assert!(table.take_events().is_empty());
    assert_eq!(release(&mut table, plan), vec![unit]);
}

/// It would give its other locks back for one that is as good as gone, and when it had done so too often it would wait for a slow
/// program with all it had.
#[test]
fn a_plan_with_the_token_waits_in_line_for_the_one_that_had_it_before() {
    let mut table = LockTable::default();
    let (first, grant) = table.request_first_outside(LockSet::Whole, &mut Vec::new());
    assert_eq!(grant, Grant::Now);
    let (second, grant) = table.request_first_outside(exclusive(&[1]), &mut Vec::new());
    assert_eq!(grant, Grant::Later);
    assert_eq!(release(&mut table, first), vec![second]);
    // A program of its own is suspended, which may take long.
    assert_eq!(mark(&mut table, second), vec![]);
    let (third, grant) = table.request_first_outside(exclusive(&[1]), &mut Vec::new());
    assert_eq!(grant, Grant::Outside);
    assert_eq!(release(&mut table, second), vec![third]);
    let (fourth, is_granted) = table.request_first_by_plan(LockSet::Whole, &mut Vec::new());
    assert!(!is_granted);
    assert_eq!(release(&mut table, third), vec![fourth]);
    release(&mut table, fourth);
    assert!(table.is_empty() && table.program_count == 0 && table.plans_with_token.is_empty());
}

#[test]
fn a_plan_with_the_token_that_meets_programs_again_and_again_waits_in_their_lines() {
    let mut table = LockTable::default();
    let mut slow = program(&mut table, exclusive(&[1]));
    let (plan, _) = table.request_first_outside(exclusive(&[1, 2]), &mut Vec::new());
    for next in [2, 1, 2, 1].into_iter().take(MEETINGS_WITH_TOKEN_MAX as usize) {
        let other = program(&mut table, exclusive(&[next]));
        assert_eq!(release(&mut table, slow), vec![]);
        slow = other;
    }
    assert!(table.conflicts(&[KeyLock { id: 2, exclusive: true }]), "it holds what is free");
    assert_eq!(release(&mut table, slow), vec![plan]);
}

/// The lock of a handoff that has waited for a program's end goes to the transaction of a woken command, which adds the key
/// that it changes. That is handed off in its turn, to a program that waits for the token: its holder would wait for whoever
/// waited behind this key with another one in hand.
#[test]
fn a_key_added_to_a_programs_request_is_a_programs_like_the_others() {
    let mut table = LockTable::default();
    let slow = program(&mut table, exclusive(&[1]));
    let moving = table.split(slow, 1).expect("the program holds it");
    assert_eq!(release(&mut table, slow), vec![]);
    assert!(table.extend(moving, &[KeyLock { id: 2, exclusive: true }]));
    let (early, grant) = table.request_by(exclusive(&[2]), Owner::Unit(1));
    assert_eq!(grant, Grant::Outside);

    let (unit, grant) = table.request_by(exclusive(&[1, 2]), Owner::Unit(2));
    assert_eq!(grant, Grant::Outside);
    let on_offer = table.split(moving, 2).expect("it was added");
    assert_eq!(release(&mut table, moving), vec![]);
    assert_eq!(mark(&mut table, on_offer), vec![]);
    let holder = program(&mut table, exclusive(&[1]));
    assert_eq!(release(&mut table, holder), vec![]);

    assert_eq!(release(&mut table, on_offer), vec![early]);
    assert_eq!(release(&mut table, early), vec![unit]);
    release(&mut table, unit);
    assert!(table.is_empty() && table.program_count == 0);
}

/// A request of a random run.
struct Known {
    set: LockSet,
    owner: Owner,
    granted: bool,
    /// When it was made, or made anew.
    number: u64,
}

/// Random operations. At any time: no two granted requests conflict, nobody but the token's holder waits behind a program's
/// request, and that one behind units only, and units of one client that conflict are granted in order. When all granted
/// requests are released again and again, all are granted in the end.
#[test]
fn nobody_waits_behind_a_program_and_all_are_granted_in_the_end() {
    for seed in 1..40u64 {
        let mut run = Run::new(seed);
        for _ in 0..200 {
            match run.below(8) {
                0..3 => run.request(),
                3 => run.mark_one(),
                4 => run.use_token(),
                5 => run.split_one(),
                6 => run.extend_one(),
                _ => run.release_one(),
            }
            run.check(seed);
        }
        let mut steps = 0;
        while !run.known.is_empty() {
            assert!(run.known.values().any(|known| known.granted), "seed {seed}: all wait");
            run.release_one();
            run.check(seed);
            steps += 1;
            assert!(steps < 10_000, "seed {seed}: no end");
        }
        assert!(run.table.is_empty() && run.table.program_count == 0, "seed {seed}");
    }
}

struct Run {
    rng: Rng,
    table: LockTable,
    known: AHashMap<LockRequestId, Known>,
    /// The request of the token's holder.
    token: Option<LockRequestId>,
    /// Units that wait for the token.
    token_queue: Vec<LockRequestId>,
    /// Requests of handoffs, and those that they were split off and whose end they wait for.
    split_off: AHashMap<LockRequestId, LockRequestId>,
    number: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            rng: Rng::new(seed),
            table: LockTable::default(),
            known: AHashMap::new(),
            token: None,
            token_queue: Vec::new(),
            split_off: AHashMap::new(),
            number: 0,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n)
    }

    fn set(&mut self) -> LockSet {
        if self.below(10) == 0 {
            return LockSet::Whole;
        }
        let count = self.below(4);
        LockSet::Keys(
            (0..count).map(|_| KeyLock { id: self.below(5) as u64, exclusive: self.below(3) > 0 }).collect(),
        )
    }

    fn request(&mut self) {
        let set = self.set();
        let owner = match self.below(5) {
            0 | 1 => Owner::Plan,
            2 => Owner::Handoff,
            _ => Owner::Unit(self.below(3) as u64),
        };
        let set = match (owner, set) {
            (Owner::Handoff, _) => exclusive(&[self.below(5) as u64]),
            (_, set) => set,
        };
        self.ask(set, owner);
    }

    fn ask(&mut self, set: LockSet, owner: Owner) {
        let (id, grant) = self.table.request_by(set.clone(), owner);
        self.number += 1;
        self.known.insert(id, Known { set, owner, granted: grant == Grant::Now, number: self.number });
    }

    fn granted_ids(&self) -> Vec<LockRequestId> {
        let may_end = |id| self.split_off.get(id).is_none_or(|of| !self.known.contains_key(of));
        let granted = self.known.iter().filter(|(id, known)| known.granted && may_end(id));
        let mut ids: Vec<LockRequestId> = granted.map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    fn mark_one(&mut self) {
        let ids = self.granted_ids();
        if ids.is_empty() || self.below(2) == 0 {
            return;
        }
        let id = ids[self.below(ids.len())];
        self.known.get_mut(&id).expect("it is granted").owner = Owner::Program;
        let mut granted = Vec::new();
        self.table.mark(id, &mut granted);
        self.take_in(granted);
    }

    fn split_one(&mut self) {
        let ids = self.granted_ids();
        if ids.is_empty() {
            return;
        }
        let of = ids[self.below(ids.len())];
        let key = KeyLock { id: self.below(5) as u64, exclusive: true };
        let Some(new) = self.table.split(of, key.id) else { return };
        let known = self.known.get_mut(&of).expect("it is granted");
        if let LockSet::Keys(keys) = &mut known.set {
            keys.retain(|held| held.id != key.id);
        }
        let owner = if known.owner == Owner::Program { known.owner } else { Owner::Handoff };
        self.number += 1;
        let number = self.number;
        self.known.insert(new, Known { set: exclusive(&[key.id]), owner, granted: true, number });
        self.split_off.insert(new, of);
    }

    /// A handoff's lock goes to a transaction, which adds a key.
    fn extend_one(&mut self) {
        let mut ids = self.granted_ids();
        ids.retain(|id| self.known[id].owner == Owner::Handoff || self.split_off.contains_key(id));
        if ids.is_empty() {
            return;
        }
        let id = ids[self.below(ids.len())];
        let key = KeyLock { id: self.below(5) as u64, exclusive: self.below(3) > 0 };
        let LockSet::Keys(held) = &mut self.known.get_mut(&id).expect("it is granted").set else { return };
        if held.iter().all(|held| held.id != key.id) && self.table.extend(id, &[key]) {
            held.push(key);
        }
    }

    fn use_token(&mut self) {
        let mut granted = Vec::new();
        let set = self.set();
        match self.token {
            None => {
                let (id, now) = if self.below(2) == 0 {
                    self.table.request_first(set.clone(), &mut granted)
                } else {
                    let (id, grant) = self.table.request_first_outside(set.clone(), &mut granted);
                    (id, grant == Grant::Now)
                };
                self.token = Some(id);
                self.number += 1;
                let (owner, number) = (Owner::Program, self.number);
                self.known.insert(id, Known { set, owner, granted: now, number });
            }
            Some(id) if self.known[&id].granted => {
                let now = self.table.extend_first(id, set.clone(), &mut granted);
                let known = self.known.get_mut(&id).expect("the token's holder is known");
                known.granted = now;
                match (&mut known.set, set) {
                    (LockSet::Keys(held), LockSet::Keys(more)) => held.extend(more),
                    (held, LockSet::Whole) => *held = LockSet::Whole,
                    (LockSet::Whole, LockSet::Keys(_)) => {}
                }
            }
            Some(_) => {}
        }
        self.take_in(granted);
    }

    fn release_one(&mut self) {
        let ids = self.granted_ids();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.below(ids.len())];
        self.known.remove(&id);
        let mut granted = Vec::new();
        self.table.release(id, &mut granted);
        self.token.take_if(|token| *token == id);
        self.take_in(granted);
    }

    /// Takes in who was granted, and does what the events say.
    fn take_in(&mut self, granted: Vec<LockRequestId>) {
        for id in granted {
            let known = self.known.get_mut(&id).expect("a granted request exists");
            assert!(!known.granted, "granted twice");
            known.granted = true;
        }
        for event in self.table.take_events() {
            match event {
                LockEvent::Away(id) => assert!(!self.known[&id].granted),
                LockEvent::Again(id, locks) => {
                    let Known { set, owner, .. } = self.known.remove(&id).expect("it waits");
                    assert_eq!(of_set(&locks), of_set(&set));
                    self.ask(set, owner);
                }
                LockEvent::NeedsToken(id) => self.token_queue.push(id),
            }
        }
        if self.token.is_none() && !self.token_queue.is_empty() {
            let id = self.token_queue.remove(0);
            let mut granted = Vec::new();
            let now = self.table.admit_with_token(id, &mut granted);
            self.token = Some(id);
            let known = self.known.get_mut(&id).expect("it waits");
            (known.granted, known.owner) = (now, Owner::Program);
            self.take_in(granted);
        }
    }

    fn check(&self, seed: u64) {
        let granted: Vec<_> = self.known.iter().filter(|(_, known)| known.granted).collect();
        let is_part = |a, b| self.split_off.get(a) == Some(b);
        let may_share =
            |a: &LockSet, b: &LockSet| !conflict(a, b) || *a == LockSet::Whole || *b == LockSet::Whole;
        for (n, (a, known)) in granted.iter().enumerate() {
            let shares = granted[..n]
                .iter()
                .all(|(b, other)| is_part(*a, *b) || is_part(*b, *a) || may_share(&known.set, &other.set));
            assert!(shares, "seed {seed}: two hold a key");
        }
        let whole = self.known.iter().find(|(_, known)| known.granted && known.set == LockSet::Whole);
        if let Some((id, _)) = whole {
            let others = self.known.iter().filter(|(other, known)| known.granted && *other != id);
            let mut others = others.map(|(other, _)| other);
            assert!(
                others.all(|other| self.split_off.get(other) == Some(id)),
                "seed {seed}: beside the whole"
            );
        }
        for a in self.known.values().filter(|known| known.granted) {
            let overtaken = |b: &&Known| {
                matches!(a.owner, Owner::Unit(_))
                    && a.owner == b.owner
                    && !b.granted
                    && b.number < a.number
                    && conflict(&a.set, &b.set)
            };
            assert!(!self.known.values().any(|b| overtaken(&b)), "seed {seed}: a command was overtaken");
        }
        for line in self.table.keys.values() {
            let Some(program) = line.iter().position(|intent| self.table.is_programs(intent)) else {
                continue;
            };
            for (place, intent) in line.iter().enumerate().filter(|(_, intent)| !intent.granted) {
                match self.table.requests[&intent.lock_request].owner {
                    Owner::Plan => panic!("seed {seed}: a plan waits beside a program"),
                    Owner::Unit(_) => assert!(place < program, "seed {seed}: one waits for a program"),
                    Owner::Handoff | Owner::Program => {}
                }
            }
        }
        let waits = |barrier: &Barrier| !barrier.granted && barrier.owner != Owner::Program;
        assert!(
            self.table.program_count == 0 || !self.table.barrier.as_ref().is_some_and(waits),
            "seed {seed}: the whole keyspace waits for a program"
        );
    }
}

/// The keys of a set, each once; `None`: all.
fn of_set(set: &LockSet) -> Option<Vec<u64>> {
    let LockSet::Keys(keys) = set else { return None };
    let mut ids: Vec<u64> = keys.iter().map(|key| key.id).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

fn conflict(a: &LockSet, b: &LockSet) -> bool {
    match (a, b) {
        (LockSet::Keys(a), LockSet::Keys(b)) => {
            a.iter().any(|x| b.iter().any(|y| x.id == y.id && (x.exclusive || y.exclusive)))
        }
        _ => true,
    }
}
