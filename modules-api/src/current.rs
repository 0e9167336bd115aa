//! Which callback of a module runs on this thread, for the message of a crash.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<&'static str> = const { Cell::new("") };
}

/// The command, or the kind of callback, of an SDK module that runs on this thread; empty if none does.
pub fn current_callback() -> &'static str {
    CURRENT.get()
}

/// While it lives, a callback runs.
pub(crate) struct Callback {
    outer: &'static str,
}

impl Callback {
    #[inline]
    pub(crate) fn enter(name: &'static str) -> Callback {
        Callback { outer: CURRENT.replace(name) }
    }
}

impl Drop for Callback {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// Has panics of this library say which module and callback they are of. For a library that is loaded alone: in a program
/// that modules are linked into, panics are the program's.
#[doc(hidden)]
pub fn name_module_in_panics(module: &'static str) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("module {module}, in {:?}:", current_callback());
        report(panic);
    }));
}
