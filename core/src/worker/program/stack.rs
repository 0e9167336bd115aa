//! Stacks of their own for programs, so that one can be suspended in the middle and resumed later: the only place where
//! the borrow of the worker is kept by hand.
//!
//! A [`Fiber`] is a program on its stack. Whoever resumes it lends it the worker until it is suspended again or ends. The
//! program gets the worker through a [`Lent`], whose [`suspend`](Lent::suspend) needs it exclusively, so that no reference
//! into the worker outlives the loan.

use crate::worker::Worker;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::ptr::NonNull;

/// The size of a stack in bytes of address space: what a script or a module needs at most. Only the pages that a program has touched
/// take memory. Below it lies a guard page, so that a program that needs more ends the process and corrupts nothing.
const STACK_BYTES: usize = {
    if shardis_scripting::STACK_BYTES > MODULE_STACK_BYTES {
        shardis_scripting::STACK_BYTES
    } else {
        MODULE_STACK_BYTES
    }
};

/// What code of modules may count on: as much as a thread of a C program has.
const MODULE_STACK_BYTES: usize = 8 << 20;

/// How many stacks are kept for the next programs.
const SPARE_STACKS_MAX: usize = 8;

/// Stacks without a program.
#[derive(Default)]
pub(super) struct Stacks(Vec<DefaultStack>);

impl Stacks {
    /// # Panics
    /// The system has no address space left.
    pub(super) fn take(&mut self) -> DefaultStack {
        self.0.pop().unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("there is room for a stack"))
    }

    pub(super) fn give(&mut self, stack: DefaultStack) {
        if self.0.len() < SPARE_STACKS_MAX {
            self.0.push(stack);
        }
    }
}

/// A program on a stack of its own. It returns a `T`.
pub(super) struct Fiber<T: 'static>(Option<Program<T>>);

type Program<T> = Coroutine<NonNull<Worker>, (), T, DefaultStack>;

/// How a program stopped running.
pub(super) enum Stopped<T: 'static> {
    Suspended(Fiber<T>),
    /// It has ended with this result, and its stack is free.
    Ended(T, DefaultStack),
}

/// The worker, as it is lent to a running program.
pub(super) struct Lent<'a> {
    yielder: &'a Yielder<NonNull<Worker>, ()>,
    worker: NonNull<Worker>,
}

impl<T> Fiber<T> {
    /// A program that has not begun yet.
    pub(super) fn new(stack: DefaultStack, body: impl FnOnce(Lent<'_>) -> T + 'static) -> Fiber<T> {
        Fiber(Some(Coroutine::with_stack(stack, |yielder, worker| body(Lent { yielder, worker }))))
    }

    /// Runs the program until it is suspended or ends.
    pub(super) fn resume(mut self, worker: &mut Worker) -> Stopped<T> {
        let mut program = self.0.take().expect("only this and `drop` take it out");
        match program.resume(NonNull::from(worker)) {
            CoroutineResult::Yield(()) => Stopped::Suspended(Fiber(Some(program))),
            CoroutineResult::Return(result) => Stopped::Ended(result, program.into_stack()),
        }
    }
}

impl<T> Drop for Fiber<T> {
    /// A worker that ends drops the programs that are under way: they are not unwound.
    fn drop(&mut self) {
        if let Some(mut program) = self.0.take()
            && program.started()
        {
            // SAFETY: what lies on the stack is leaked, which is safe because nothing else refers to it: the body of a
            // fiber borrows nothing from outside, and a program lends nothing of its own for longer than a call.
            unsafe { program.force_reset() };
        }
    }
}

impl<'a> Lent<'a> {
    #[inline]
    pub(super) fn worker(&mut self) -> &mut Worker {
        // SAFETY: it was made from an exclusive reference, which `Fiber::resume` borrows until the program is suspended
        // or ends. The reference made here borrows `self`, and so has ended when the program is suspended.
        unsafe { self.worker.as_mut() }
    }

    /// Lends the worker to a program that runs on the same stack, until [`take_back`](Lent::take_back).
    pub(super) fn relend(&mut self) -> Lent<'a> {
        Lent { yielder: self.yielder, worker: self.worker }
    }

    /// The program has ended to which the worker was lent. It may have been suspended in between.
    pub(super) fn take_back(&mut self, lent: Lent<'_>) {
        self.worker = lent.worker;
    }

    /// Suspends the program until it is resumed.
    pub(super) fn suspend(&mut self) {
        self.worker = self.yielder.suspend(());
    }
}
