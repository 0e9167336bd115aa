//! Turns: a module that is not shard-safe sees one of its callbacks at a time, whatever thread calls them.
//!
//! There is one turn in the process. A program of such a module has it while its code runs, and gives it up while the module
//! waits for a command that it has called or a key that it has opened: callbacks of its types may run then, as they do within
//! such a call in Redis. Programs exclude each other anyway, by the token or, on one shard, by their locks. So whoever waits
//! for the turn waits for code that runs, and never for another shard. Threads of modules have it while they have
//! [the lock](super::threads).

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

static TURN: Mutex<()> = Mutex::new(());

/// How many threads wait for it, and how many have had it after they had waited.
static WAITING: AtomicUsize = AtomicUsize::new(0);
static SERVED: AtomicUsize = AtomicUsize::new(0);

type Left = Box<dyn FnOnce() + Send>;

/// What is to be done by whoever has the turn next.
static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// A thread's hold of the turn, and how many times it has taken it.
#[derive(Default)]
struct Hold {
    depth: u32,
    guard: Option<MutexGuard<'static, ()>>,
}

thread_local! {
    static HOLD: RefCell<Hold> = RefCell::default();
}

fn enter(guard: impl FnOnce() -> Option<MutexGuard<'static, ()>>) -> bool {
    HOLD.with_borrow_mut(|hold| {
        if hold.guard.is_none() {
            hold.guard = guard();
        }
        hold.depth += u32::from(hold.guard.is_some());
        hold.guard.is_some()
    })
}

/// Ends what `enter` has begun. The last one does first what was left for it.
fn leave() {
    let is_last = HOLD.with_borrow(|hold| hold.depth == 1);
    if is_last {
        loop {
            let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|act| act());
        }
    }
    HOLD.with_borrow_mut(|hold| {
        hold.depth -= 1;
        if hold.depth == 0 {
            hold.guard = None;
        }
    });
}

fn wait() -> Option<MutexGuard<'static, ()>> {
    no_wait().or_else(|| {
        WAITING.fetch_add(1, Ordering::Relaxed);
        let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        WAITING.fetch_sub(1, Ordering::Relaxed);
        SERVED.fetch_add(1, Ordering::Relaxed);
        Some(guard)
    })
}

fn no_wait() -> Option<MutexGuard<'static, ()>> {
    match TURN.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A thread of a module waits for the turn, and has it until [`end`].
pub(super) fn begin() {
    enter(wait);
}

/// Ends what [`begin`] has begun.
pub(super) fn end() {
    leave();
}

/// Waits for the turn, and does something in it. Within a turn of the same thread it does so at once.
pub(super) fn take<T>(act: impl FnOnce() -> T) -> T {
    enter(wait);
    let result = act();
    leave();
    result
}

/// Does something in the turn, if that is to be had at once, or if it needs none.
pub(super) fn try_take<T>(needs_none: bool, act: impl FnOnce() -> T) -> Option<T> {
    if needs_none {
        return Some(act());
    }
    enter(no_wait).then(|| {
        let result = act();
        leave();
        result
    })
}

/// Whether this thread would have the turn at once.
pub(super) fn is_free() -> bool {
    HOLD.with_borrow(|hold| hold.guard.is_some()) || no_wait().is_some()
}

/// The same for something that is done later if need be, in the order in which it was left.
pub(super) fn take_or_leave(act: Left) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(act);
    // Whoever has the turn looks before it gives it up; if it has looked already, the turn is free in a moment, and the next
    // one looks.
    if enter(no_wait) {
        leave();
    }
}

/// Gives the turn up while something is done that may suspend the program.
pub(super) fn pause<T>(act: impl FnOnce() -> T) -> T {
    let depth = HOLD.with_borrow_mut(|hold| {
        hold.guard = None;
        std::mem::take(&mut hold.depth)
    });
    let result = act();
    if depth > 0 {
        enter(wait);
        HOLD.with_borrow_mut(|hold| hold.depth = depth);
    }
    result
}

/// If this thread has the turn, lets one of those have it that wait for it, and goes on when it has it again.
pub(super) fn give_way() {
    if HOLD.with_borrow(|hold| hold.guard.is_none()) {
        return;
    }
    let served = SERVED.load(Ordering::Relaxed);
    pause(|| {
        // The lock itself may well be taken again before those who wait for it have woken up.
        while WAITING.load(Ordering::Relaxed) > 0 && SERVED.load(Ordering::Relaxed) == served {
            std::thread::yield_now();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Tests of one process share the turn.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn one_thread_at_a_time_has_the_turn_and_it_has_it_again_within() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        static INSIDE: AtomicU32 = AtomicU32::new(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..1000 {
                        take(|| {
                            assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0);
                            take(|| assert_eq!(INSIDE.load(Ordering::SeqCst), 1));
                            INSIDE.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    }

    #[test]
    fn what_is_left_is_done_in_order_by_whoever_has_the_turn() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        static DONE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        let done = |n| Box::new(move || DONE.lock().expect("nobody panics").push(n));
        take(|| {
            let other = std::thread::spawn(move || {
                take_or_leave(done(1));
                take_or_leave(done(2));
                assert_eq!(try_take(false, || ()), None);
            });
            other.join().expect("it does not wait");
            assert!(DONE.lock().expect("nobody panics").is_empty());
        });
        assert_eq!(*DONE.lock().expect("nobody panics"), [1, 2]);
        take(|| pause(|| std::thread::spawn(|| take(|| ())).join().expect("the turn is free")));
    }

    #[test]
    fn one_who_waits_has_the_turn_when_another_gives_way() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<_> = take(|| {
            let others = (0..100).map(|_| {
                let other = std::thread::spawn(|| take(|| ()));
                while WAITING.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                // It may be a thread of another test that waits.
                let served = SERVED.load(Ordering::Relaxed);
                give_way();
                assert_ne!(SERVED.load(Ordering::Relaxed), served);
                other
            });
            others.collect()
        });
        others.into_iter().for_each(|other| other.join().expect("no thread panics"));
    }
}
