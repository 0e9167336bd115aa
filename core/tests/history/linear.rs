//! Linearizability: whether one order of all operations explains what every client saw.
//!
//! Each client calls one operation after the other. An order explains a history if every operation stands somewhere
//! between its call and its reply, and, executed in that order by a sequential model, each gives the reply that was
//! recorded. The search is Wing and Gong's, with the memory of refuted states that Lowe added to it: of the operations
//! that come next at their clients, any may come next that was called before the first of them was answered. Where it
//! stands is said by how many operations of each client are placed, and by the model's state, so a history may be as
//! long as it likes; what costs time is how many ways there are to order what overlaps.

use std::collections::HashSet;
use std::hash::Hash;

/// An operation of a client, as recorded. Times are of any one clock.
pub trait Operation<S> {
    fn called_at(&self) -> u64;

    /// `None`: its client never got a reply, so it took effect at any time after its call, or never.
    fn replied_at(&self) -> Option<u64>;

    /// The states that it may leave behind if it takes effect in this one and has the reply that was recorded.
    fn outcomes(&self, state: &S) -> Vec<S>;
}

/// Why a history has no order.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// None explains it. The longest attempt placed so many operations of each client.
    NotLinearizable { placed: Vec<usize> },
    /// The search was given up after so many states.
    TooHard { states: usize },
}

/// A search that visits more states than this is given up.
const STATES_MAX: usize = 4_000_000;

/// A state on the path that is being tried.
struct Step<S> {
    /// Whose operation led here.
    client: usize,
    /// What may come next, the best guess last: (client, the state it leaves).
    choices: Vec<(usize, S)>,
}

/// Looks for an order of the operations of `clients`, each in the order of their calls, that begins in `initial`.
///
/// # Errors
/// There is none, or it was not found in time.
pub fn linearize<S: Clone + Eq + Hash, O: Operation<S>>(
    initial: &S,
    clients: &[Vec<O>],
) -> Result<(), Refusal> {
    let mut placed = vec![0; clients.len()];
    let mut longest = placed.clone();
    let mut visited = HashSet::new();
    let mut path: Vec<Step<S>> = Vec::new();
    let Some(choices) = possible(clients, &placed, initial) else { return Ok(()) };
    path.push(Step { client: 0, choices });
    while let Some(step) = path.last_mut() {
        let Some((client, state)) = step.choices.pop() else {
            let tried = path.pop().expect("it was there just now");
            if !path.is_empty() {
                placed[tried.client] -= 1;
            }
            continue;
        };
        placed[client] += 1;
        if placed.iter().sum::<usize>() > longest.iter().sum() {
            longest.clone_from(&placed);
        }
        let Some(choices) = possible(clients, &placed, &state) else { return Ok(()) };
        if visited.insert((placed.clone(), state)) {
            path.push(Step { client, choices });
        } else {
            placed[client] -= 1;
        }
        if visited.len() > STATES_MAX {
            return Err(Refusal::TooHard { states: visited.len() });
        }
    }
    Err(Refusal::NotLinearizable { placed: longest })
}

/// What may come next, earliest reply last. `None`: everything that was answered is placed.
fn possible<S, O: Operation<S>>(clients: &[Vec<O>], placed: &[usize], state: &S) -> Option<Vec<(usize, S)>> {
    let next = || {
        let open = clients.iter().zip(placed).enumerate();
        open.filter_map(|(client, (operations, &n))| operations.get(n).map(|operation| (client, operation)))
    };
    let first_reply = next().filter_map(|(_, operation)| operation.replied_at()).min()?;
    let mut may_come: Vec<(usize, &O)> =
        next().filter(|(_, operation)| operation.called_at() <= first_reply).collect();
    may_come.sort_by_key(|(_, operation)| std::cmp::Reverse(operation.replied_at().unwrap_or(u64::MAX)));
    let outcomes = may_come.into_iter().flat_map(|(client, operation)| {
        operation.outcomes(state).into_iter().map(move |state| (client, state))
    });
    Some(outcomes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written or read.
    struct Access {
        times: (u64, Option<u64>),
        write: Option<u32>,
        read: u32,
    }

    impl Operation<u32> for Access {
        fn called_at(&self) -> u64 {
            self.times.0
        }

        fn replied_at(&self) -> Option<u64> {
            self.times.1
        }

        fn outcomes(&self, &state: &u32) -> Vec<u32> {
            match self.write {
                Some(written) => vec![written],
                None if self.read == state => vec![state],
                None => Vec::new(),
            }
        }
    }

    fn write(called_at: u64, replied_at: u64, value: u32) -> Access {
        Access { times: (called_at, Some(replied_at)), write: Some(value), read: 0 }
    }

    fn read(called_at: u64, replied_at: u64, value: u32) -> Access {
        Access { times: (called_at, Some(replied_at)), write: None, read: value }
    }

    #[test]
    fn what_overlaps_may_be_seen_in_either_order_and_what_does_not_in_one() {
        let overlapping = |seen| [vec![write(1, 5, 1)], vec![write(2, 6, 2)], vec![read(7, 8, seen)]];
        assert_eq!(linearize(&0, &overlapping(1)), Ok(()));
        assert_eq!(linearize(&0, &overlapping(2)), Ok(()));
        assert_eq!(linearize(&0, &overlapping(0)), Err(Refusal::NotLinearizable { placed: vec![1, 1, 0] }));
        let stale = [vec![write(1, 2, 1), write(3, 4, 2)], vec![read(5, 6, 1)]];
        assert!(linearize(&0, &stale).is_err(), "a read of what was overwritten before its call");
        let backwards = [vec![write(1, 9, 1)], vec![read(2, 3, 1), read(4, 5, 0)]];
        assert!(linearize(&0, &backwards).is_err(), "what was seen once is not unseen");
    }

    #[test]
    fn an_operation_without_a_reply_took_effect_late_or_never() {
        let unanswered = |first, second| {
            let lost = Access { times: (1, None), write: Some(7), read: 0 };
            [vec![lost], vec![read(2, 3, first), read(4, 5, second)]]
        };
        assert_eq!(linearize(&0, &unanswered(0, 0)), Ok(()));
        assert_eq!(linearize(&0, &unanswered(0, 7)), Ok(()));
        assert_eq!(linearize(&0, &unanswered(7, 7)), Ok(()));
        assert!(linearize(&0, &unanswered(7, 0)).is_err());
    }

    #[test]
    fn long_histories_are_no_deeper_than_short_ones() {
        let clients: Vec<Vec<Access>> = (0..2)
            .map(|client| {
                let turn = |n: u64| 4 * n + 2 * client;
                (0..50_000).map(|n| write(turn(n), turn(n) + 5, n as u32)).collect()
            })
            .collect();
        assert_eq!(linearize(&0, &clients), Ok(()));
    }
}
