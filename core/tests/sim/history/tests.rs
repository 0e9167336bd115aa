//! Histories that have a sequential order and histories that have none, and a comparison with a search that tries
//! everything.

use super::*;
use crate::cluster::Random;
use crate::{Run, Topic};

/// An operation of a client of its own.
fn operation(times: (usize, usize), words: &str, reply: &str) -> Operation {
    let words: Vec<String> = words.split(' ').map(str::to_string).collect();
    Operation {
        client: times.0,
        db: 0,
        request: Request::One(words),
        is_on_one_shard: false,
        called_at: times.0,
        behind: Vec::new(),
        replied: Some((times.1, format!("{reply}\r\n"))),
        is_void: false,
        over_at: None,
        waits_at: None,
    }
}

/// An operation whose client disconnected.
fn lost(called_at: usize, over_at: Option<usize>, words: &str) -> Operation {
    Operation { replied: None, over_at, ..operation((called_at, 0), words, "") }
}

fn waiting_from(waits_at: usize, operation: Operation) -> Operation {
    Operation { waits_at: Some(waits_at), ..operation }
}

fn taken(key: &str, word: &str) -> String {
    format!("*2\r\n${}\r\n{key}\r\n${}\r\n{word}", key.len(), word.len())
}

const X: &str = "$1\r\nx";
const NULL: &str = "$-1";

fn has_order(operations: &[Operation], waiting: Waiting) -> bool {
    linearize(operations, waiting).is_ok()
}

#[test]
fn what_overlaps_may_be_in_either_order_and_what_does_not_in_one() {
    let reads = |first: &str, second: &str| {
        let set = operation((0, 6), "SET a x", "+OK");
        let reads = [operation((1, 3), "GET a", first), operation((3, 5), "GET a", second)];
        has_order(&[&[set], &reads[..]].concat(), Waiting::SomeTime)
    };
    assert!(reads(NULL, NULL) && reads(NULL, X) && reads(X, X));
    assert!(!reads(X, NULL), "a later read cannot return the older value");
    let behind = Operation { behind: vec![0], ..operation((0, 9), "GET a", NULL) };
    assert!(!has_order(&[operation((0, 9), "SET a x", "+OK"), behind], Waiting::SomeTime));
}

#[test]
fn a_word_is_taken_once() {
    let push = operation((0, 1), "TPUSH a x", ":1");
    let takes = [(2, 5), (3, 6)].map(|times| operation(times, "BTAKE a 0", &taken("a", "x")));
    assert!(has_order(&[push.clone(), takes[0].clone()], Waiting::SomeTime));
    assert!(!has_order(&[&[push], &takes[..]].concat(), Waiting::SomeTime));
}

#[test]
fn a_transaction_runs_only_if_what_its_client_watches_is_as_it_was() {
    let exec = |reply: &str| {
        let keys = vec!["a".to_string()];
        let request = Request::Exec { commands: Vec::new(), watched: vec![(0, "a".to_string())] };
        let watch = Operation { request: Request::Watch(keys), ..operation((0, 1), "", "+OK") };
        let set = operation((2, 3), "SET a x", "+OK");
        let exec = Operation { client: 0, request, ..operation((4, 5), "", reply) };
        has_order(&[watch, set, exec], Waiting::SomeTime)
    };
    assert!(exec("*-1") && !exec("*0"));
}

#[test]
fn with_at_once_waiters_are_served_in_turn_and_before_others_see_the_key() {
    let both = |first: &str, second: &str| {
        [
            waiting_from(2, operation((0, 9), "BTAKE a 0", &taken("a", first))),
            waiting_from(4, operation((2, 8), "BTAKE a 0", &taken("a", second))),
            operation((4, 6), "TPUSH a x y", ":2"),
        ]
    };
    assert!(has_order(&both("x", "y"), Waiting::AtOnce));
    assert!(has_order(&both("y", "x"), Waiting::SomeTime) && !has_order(&both("y", "x"), Waiting::AtOnce));
    let seen = [
        waiting_from(1, operation((0, 9), "BTAKE a 0", &taken("a", "x"))),
        operation((2, 4), "TPUSH a x", ":1"),
        operation((4, 6), "GET a", X),
    ];
    assert!(has_order(&seen, Waiting::SomeTime) && !has_order(&seen, Waiting::AtOnce));
}

/// CLIENT UNBLOCK or CLIENT KILL of client 0.
fn ending(times: (usize, usize), is_kill: bool, reply: &str) -> Operation {
    let request = match is_kill {
        true => Request::Kill { client: 0, id: 1 },
        false => Request::Unblock { client: 0, id: 1, with_error: false },
    };
    Operation { request, ..operation(times, "", reply) }
}

#[test]
fn a_client_that_was_unblocked_takes_nothing_and_one_that_was_served_has_taken() {
    let waits = |reply: Option<&str>| {
        let waits = waiting_from(1, operation((0, 9), "BTAKE a 0", reply.unwrap_or_default()));
        if reply.is_some() { waits } else { Operation { replied: None, ..waits } }
    };
    let push = |times| operation(times, "TPUSH a x", ":1");
    let unblocked = |reply: Option<&str>, count: &str, first: bool| {
        let (push_at, end_at) = if first { ((2, 3), (4, 5)) } else { ((4, 5), (2, 3)) };
        has_order(&[waits(reply), push(push_at), ending(end_at, false, count)], Waiting::AtOnce)
    };
    assert!(unblocked(Some("*-1"), ":1", false) && unblocked(Some(&taken("a", "x")), ":0", true));
    assert!(!unblocked(Some("*-1"), ":1", true), "it was served before");
    assert!(!unblocked(Some("*-1"), ":0", false) && !unblocked(Some(&taken("a", "x")), ":1", false));
    let late = waiting_from(3, operation((0, 9), "BTAKE a 0", "*-1"));
    let missed = [late, ending((2, 4), false, ":0"), ending((5, 6), false, ":1")];
    assert!(has_order(&missed, Waiting::AtOnce), "its shard had not heard of it");
    let killed = |first: bool, read: &str| {
        let (push_at, end_at) = if first { ((2, 3), (4, 5)) } else { ((4, 5), (2, 3)) };
        let get = operation((6, 7), "GET a", read);
        has_order(&[waits(None), push(push_at), ending(end_at, true, ":1"), get], Waiting::AtOnce)
    };
    assert!(killed(false, X) && killed(true, NULL));
    assert!(!killed(true, X), "the word was taken before it was killed");
    assert!(!killed(false, NULL), "the word was not taken");
}

#[test]
fn an_operation_without_a_reply_took_effect_before_it_was_over_or_never() {
    let reads = |over_at, first: &str, second: &str| {
        let reads = [operation((4, 5), "GET a", first), operation((5, 6), "GET a", second)];
        let others = [lost(0, over_at, "SET a x"), operation((3, 4), "SET b x", "+OK")];
        has_order(&[others, reads].concat(), Waiting::SomeTime)
    };
    assert!(reads(None, NULL, NULL) && reads(None, NULL, X) && reads(None, X, X));
    assert!(reads(Some(2), NULL, NULL) && !reads(Some(2), NULL, X) && reads(Some(2), X, X));
}

/// Swaps the replies of two operations with the same command.
fn tamper(operations: &mut [Operation], random: &mut Random) {
    let kind = |operation: &Operation| operation.request.commands()[0][0].clone();
    let n = random.below(operations.len());
    let is_other = |other: &usize| {
        let (one, other) = (&operations[n], &operations[*other]);
        kind(one) == kind(other) && one.reply() != other.reply() && other.replied.is_some()
    };
    let others: Vec<usize> = (0..operations.len()).filter(is_other).collect();
    if operations[n].replied.is_none() || others.is_empty() {
        return;
    }
    let other = others[random.below(others.len())];
    let replies = [n, other].map(|n| operations[n].reply().expect("both have one").to_string());
    let mut set = |n: usize, reply: &String| {
        operations[n].replied.as_mut().expect("both have one").1.clone_from(reply);
    };
    set(n, &replies[1]);
    set(other, &replies[0]);
}

#[test]
fn the_search_agrees_with_one_that_tries_everything() {
    let mut refused = 0;
    for seed in 1..=400 {
        let mut run = Run::new(seed, if seed % 2 == 0 { Topic::Server } else { Topic::Keys });
        run.run(14);
        run.finish();
        let waiting = run.kind.waiting();
        let mut random = Random::new(seed);
        let mut operations = run.operations.clone();
        for _ in 0..4 {
            let mut thorough = Search::new(&operations, waiting);
            thorough.is_thorough = true;
            let expected = thorough.run().is_ok();
            assert_eq!(linearize(&operations, waiting).is_ok(), expected, "seed {seed}");
            refused += u32::from(!expected);
            tamper(&mut operations, &mut random);
        }
    }
    assert!((400..1200).contains(&refused), "{refused} of 1600 have no order");
}
