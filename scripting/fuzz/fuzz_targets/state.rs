//! The state that the targets share: one for all inputs, with a limit of memory, and a function of Lua that is called for
//! each input.

#[path = "../../tests/libs/vm.rs"]
mod vm;

use std::cell::RefCell;

pub use vm::Vm;

const LIMIT_BYTES: usize = 256 << 20;

thread_local! {
    static STATE: RefCell<Option<Vm>> = const { RefCell::new(None) };
}

/// Runs `check` with `input` as `...`. It has to return `"ok"`; it raises an error where something is wrong.
pub fn run(check: &str, input: &[u8]) {
    STATE.with_borrow_mut(|state| {
        let vm = state.get_or_insert_with(|| Vm::new(LIMIT_BYTES));
        let result = vm.call(check.as_bytes(), input);
        assert_eq!(result, Ok(b"ok".to_vec()), "{}", result.clone().unwrap_or_else(|error| error).escape_ascii());
    });
}
