//! Which callback of a module runs on this thread, for the message of a crash.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { of: "", what: "" }) };
}

/// A callback: of which command, type or directive it is, if it is of one, and what it does.
#[derive(Clone, Copy)]
struct Current {
    of: &'static str,
    what: &'static str,
}

/// The callback of an SDK module that runs on this thread ("geoadd: command"); empty if none does.
pub fn current_callback() -> String {
    match CURRENT.get() {
        Current { of: "", what } => what.to_string(),
        Current { of, what } => format!("{of}: {what}"),
    }
}

/// While it lives, a callback runs.
pub(crate) struct Callback {
    outer: Current,
}

impl Callback {
    /// A callback of the module.
    #[inline]
    pub(crate) fn enter(what: &'static str) -> Callback {
        Callback::enter_for("", what)
    }

    /// A callback of a command, a type or a directive.
    #[inline]
    pub(crate) fn enter_for(of: &'static str, what: &'static str) -> Callback {
        Callback { outer: CURRENT.replace(Current { of, what }) }
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
