//! One virtual machine, and the scripts that it holds.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;

use crate::ffi::*;
use crate::fold::{Folded, Known, List, fold, stand_in};
use crate::host::{Host, Resp};
use crate::random::Random;
use crate::run::{Run, anchor_chunk_name, one_line};
use crate::{alloc, chunk, layout, sandbox};

/// What a VM is made with.
#[derive(Clone, Debug)]
pub struct VmOptions {
    /// The generator behind `math.random`. VMs that are given clones of one go on from each other, as Redis' VM for
    /// EVAL and its VM for functions do.
    pub random: Random,
    /// `redis.REDIS_VERSION`, of three numbers with points between them.
    pub redis_version: &'static str,
    /// How many bytes a run may add to what the VM holds before it fails.
    pub run_limit_bytes: usize,
}

/// How a script or function is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// The client's protocol version, which its reply is written in. What the script sees starts as RESP2.
    pub client_resp: Resp,
}

/// A script that does not compile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompileError {
    /// The line of the error reply without `-`, as EVAL and SCRIPT LOAD answer it.
    pub text: Vec<u8>,
}

/// An error as the reply of a script or function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptError {
    /// The line of the error reply without `-`.
    pub text: Vec<u8>,
    /// The error is that of a command which the script called: it stands in the error statistics already.
    pub already_counted: bool,
}

/// What a run is of: the two have other globals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Script,
    Function,
}

/// A virtual machine with the sandbox of scripts and that of functions.
///
/// It belongs to one thread. All methods take `&self`, and may be called while runs are suspended in their host, also
/// on other stacks of the thread. Not from within [`Host::log`] and [`Host::may_call`]. Scripts and libraries keep the
/// VM alive; they may be dropped at any time but while they run.
pub struct Vm {
    shared: Rc<Shared>,
}

/// What the VM, its scripts and libraries share. Lua's allocator is handed its address.
pub(crate) struct Shared {
    pub(crate) main: Cell<*mut lua_State>,
    /// Of all blocks that the allocator has handed out.
    pub(crate) memory_bytes: Cell<usize>,
    pub(crate) run_limit_bytes: Cell<usize>,
    pub(crate) blocks: alloc::SmallBlocks,
    /// The run that is on, or null.
    pub(crate) current: Cell<*mut Run>,
    pub(crate) random: Random,
    pub(crate) refs: Cell<sandbox::Refs>,
    pub(crate) stock: Cell<crate::base::Stock>,
    /// What `collectgarbage` was told; it has no effect.
    pub(crate) gc_pause: Cell<i64>,
    pub(crate) gc_step_multiplier: Cell<i64>,
    /// How many runs were made.
    pub(crate) runs_made: Cell<u64>,
    #[expect(clippy::vec_box, reason = "the address of a run is kept while it runs")]
    idle_scripts: RefCell<Vec<Box<Run>>>,
    #[expect(clippy::vec_box, reason = "the address of a run is kept while it runs")]
    idle_functions: RefCell<Vec<Box<Run>>>,
}

/// The length of a block that is never touched, and so takes no memory. The collector begins a cycle whenever what it left the
/// last time has doubled. A VM that holds little would have a cycle every hundred runs, each of which goes over
/// all libraries; so there is always this much to double.
const BALLAST_BYTES: usize = 128 << 10;

/// How many idle runs, with their threads and buffers, are kept.
const KEPT_RUNS: usize = 16;

impl Vm {
    pub fn new(options: VmOptions) -> Vm {
        let shared = Rc::new(Shared {
            main: Cell::new(std::ptr::null_mut()),
            memory_bytes: Cell::new(0),
            run_limit_bytes: Cell::new(options.run_limit_bytes),
            blocks: alloc::SmallBlocks::default(),
            current: Cell::new(std::ptr::null_mut()),
            random: options.random,
            refs: Cell::new(sandbox::Refs::default()),
            stock: Cell::new(crate::base::Stock::default()),
            gc_pause: Cell::new(200),
            gc_step_multiplier: Cell::new(200),
            runs_made: Cell::new(0),
            idle_scripts: RefCell::default(),
            idle_functions: RefCell::default(),
        });
        // SAFETY: `Shared` does not move, and closes the state when it is dropped.
        unsafe {
            let main = lua_newstate(alloc::allocate, Rc::as_ptr(&shared).cast_mut().cast());
            shared.main.set(main);
            layout::check(main, Rc::as_ptr(&shared).cast_mut().cast());
            lua_atpanic(main, panic);
            sandbox::build(main, &shared, options.redis_version);
            lua_newuserdata(main, BALLAST_BYTES);
            luaL_ref(main, LUA_REGISTRYINDEX);
            // From here on the collector reckons with it.
            lua_gc(main, LUA_GCCOLLECT, 0);
        }
        Vm { shared }
    }

    /// The bytes that the VM holds: scripts, libraries, and what they made.
    pub fn memory_bytes(&self) -> usize {
        self.shared.held_bytes()
    }

    /// How many bytes a run that begins from now on may add to what the VM holds.
    pub fn set_run_limit_bytes(&self, limit_bytes: usize) {
        self.shared.run_limit_bytes.set(limit_bytes);
    }

    /// Compiles a script. A first line that begins with `#!` is passed over; lines are counted from it all the same.
    pub fn compile(&self, body: &[u8]) -> Result<Script, CompileError> {
        let main = self.shared.main.get();
        // SAFETY: no run is on in the main thread; the stack is left as it was.
        unsafe {
            anchor_chunk_name(main, c"@user_script".as_ptr());
            let loaded = chunk::load(main, chunk::without_shebang(body), c"@user_script");
            let result = match loaded {
                Ok(()) => {
                    let folded = fold(chunk::dump(main));
                    Ok(Script { shared: self.shared.clone(), folded, idle: RefCell::default() })
                }
                Err(text) => Err(CompileError {
                    text: one_line(
                        [b"ERR Error compiling script (new function): ".as_slice(), &text].concat(),
                    ),
                }),
            };
            lua_settop(main, 0);
            result
        }
    }

    /// Runs `script` with `keys` and `args` and appends the reply in the client's version. `name` is what errors call
    /// it: its SHA1 in hexadecimal digits.
    ///
    /// An error that the script raises or returns is `Err`, and nothing is appended; one within an array is part of the reply.
    #[allow(clippy::too_many_arguments, reason = "what a command has, and where its reply goes")]
    pub fn run(
        &self,
        script: &Script,
        name: &[u8],
        keys: &[&[u8]],
        args: &[&[u8]],
        options: RunOptions,
        host: &mut dyn Host,
        reply: &mut Vec<u8>,
    ) -> Result<(), ScriptError> {
        assert!(Rc::ptr_eq(&self.shared, &script.shared), "a script runs in the VM that compiled it");
        let shared = &*self.shared;
        let mut run = shared.take_run(Kind::Script);
        let mut closure = script.take_closure();
        // SAFETY: the thread of an idle run holds what a run keeps there alone.
        let result = unsafe {
            let lua = run.thread;
            let refs = shared.refs.get();
            let [needs_keys, needs_args] = script.folded.needs_lists;
            if needs_keys {
                set_list(&mut run, KEYS_SLOT, refs.keys_name, keys);
            }
            if needs_args {
                set_list(&mut run, ARGV_SLOT, refs.argv_name, args);
            }
            lua_rawgeti_(lua, LUA_REGISTRYINDEX, closure.reference);
            // The lists of a run are made anew for other scripts, too.
            let lists = if needs_keys || needs_args { run.lists_made } else { 0 };
            if closure.bound_to != (run.id, lists) {
                closure.bound_to = (run.id, lists);
                bind(&run, &script.folded, &closure.fixed);
            }
            set_elements(lua, &closure.elements, keys, args);
            // SAFETY: only the lifetime changes; the run forgets them at its end.
            run.lists =
                [keys, args].map(|list| std::mem::transmute::<*const [&[u8]], *const [&'static [u8]]>(list));
            let result = shared.execute(&mut run, 0, name, options, host, reply);
            closure.elements.iter().for_each(|slot| layout::clear_slot(slot));
            if needs_keys {
                clear_list(lua, KEYS_SLOT, keys.len());
            }
            if needs_args {
                clear_list(lua, ARGV_SLOT, args.len());
            }
            result
        };
        script.put_closure(closure);
        shared.put_run(run);
        result
    }

    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }
}

/// A compiled script. Dropping it releases it.
///
/// Several runs of one script may be under way; each has a closure of its own, because globals belong to a closure in
/// Lua 5.1 and every run has its own KEYS and ARGV.
///
/// A script sees its globals through a proxy, which refuses assignments ([`crate::readonly`]). Most scripts assign none: their
/// closures get the globals themselves, and find most things at the first look-up. They cannot get hold of that
/// table otherwise, for their `_G` is the proxy. What nearly all of them use they need not look up: see [`crate::fold`].
pub struct Script {
    shared: Rc<Shared>,
    folded: Folded,
    /// The closures that are in no run.
    idle: RefCell<Vec<Closure>>,
}

/// A closure of a script.
struct Closure {
    /// The registry's.
    reference: c_int,
    /// The run whose globals it has ([`Run::id`]; 0: of none), and which of its lists, if it needs them ([`Run::lists_made`]).
    bound_to: (u64, u64),
    /// Its constants that are the same for all runs with these globals, and those that are elements of KEYS and ARGV.
    fixed: Vec<layout::Slot>,
    elements: Vec<layout::Slot>,
}

impl Script {
    fn take_closure(&self) -> Closure {
        if let Some(closure) = self.idle.borrow_mut().pop() {
            return closure;
        }
        let main = self.shared.main.get();
        // SAFETY: the main thread's stack is left as it was.
        unsafe {
            anchor_chunk_name(main, c"@user_script".as_ptr());
            chunk::load_code(main, &self.folded.code);
            let mut slots = layout::slots(main, lua_gettop(main), &self.folded.places);
            // The same elements stand behind each other.
            slots.sort_by_key(|slot| slot.known);
            let elements =
                slots.split_off(slots.partition_point(|slot| slot.known < Known::Element(List::Keys, 0)));
            let reference = luaL_ref(main, LUA_REGISTRYINDEX);
            lua_settop(main, 0);
            Closure { reference, bound_to: (0, 0), fixed: slots, elements }
        }
    }

    fn put_closure(&self, closure: Closure) {
        self.idle.borrow_mut().push(closure);
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        for closure in self.idle.get_mut().drain(..) {
            self.shared.release(closure.reference);
        }
    }
}

impl Shared {
    /// The VM that a thread belongs to.
    #[inline]
    pub(crate) unsafe fn of<'a>(lua: *mut lua_State) -> &'a Shared {
        // SAFETY: `Vm::new` set it, and it lives as long as its threads do.
        unsafe { &*layout::allocator_data(lua).cast::<Shared>() }
    }

    #[inline]
    pub(crate) fn count_memory(&self, old_len: usize, new_len: usize) {
        self.memory_bytes.set(self.memory_bytes.get() + new_len - old_len);
        let run = self.current.get();
        if !run.is_null() {
            // SAFETY: the run that is on lives, and its memory counters are touched here alone while it runs.
            unsafe { (*run).count_memory(old_len, new_len) }
        }
    }

    /// The bytes that the VM holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.memory_bytes.get() - BALLAST_BYTES
    }

    /// Gives up a reference of the registry.
    pub(crate) fn release(&self, reference: c_int) {
        // SAFETY: the main thread's stack has room; the slot of the registry exists, so nothing is allocated.
        unsafe { luaL_unref(self.main.get(), LUA_REGISTRYINDEX, reference) }
    }

    #[expect(clippy::vec_box, reason = "the address of a run is kept while it runs")]
    fn idle(&self, kind: Kind) -> &RefCell<Vec<Box<Run>>> {
        match kind {
            Kind::Script => &self.idle_scripts,
            Kind::Function => &self.idle_functions,
        }
    }

    pub(crate) fn take_run(&self, kind: Kind) -> Box<Run> {
        let idle = self.idle(kind).borrow_mut().pop();
        idle.unwrap_or_else(|| {
            // SAFETY: the main thread's stack is left as it was.
            unsafe { sandbox::new_run(self, kind) }
        })
    }

    pub(crate) fn put_run(&self, run: Box<Run>) {
        let mut idle = self.idle(run.kind).borrow_mut();
        if idle.len() < KEPT_RUNS {
            idle.push(run);
        } else {
            for reference in [run.thread_ref, run.globals_ref, run.real_globals_ref] {
                self.release(reference);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: no run is on, and nobody else has the state.
        unsafe { lua_close(self.main.get()) }
    }
}

/// Where the thread of a script's run keeps KEYS and ARGV, which the next run fills again.
const KEYS_SLOT: c_int = 2;
const ARGV_SLOT: c_int = 3;
/// A longer KEYS or ARGV is not filled again.
const REFILLED_LEN_MAX: usize = 8;

/// Gives the closure on top of the stack the globals of a run. `fixed`: its constants that are the same as long as it has these.
unsafe fn bind(run: &Run, folded: &Folded, fixed: &[layout::Slot]) {
    let lua = run.thread;
    // SAFETY: the thread of an idle run holds its lists; the stack has room for four values more.
    unsafe {
        let globals = if folded.assigns_globals { run.globals_ref } else { run.real_globals_ref };
        lua_rawgeti_(lua, LUA_REGISTRYINDEX, globals);
        lua_setfenv(lua, -2);
        let closure = lua_gettop(lua);
        lua_rawgeti_(lua, LUA_REGISTRYINDEX, run.real_globals_ref);
        raw_field(lua, closure + 1, c"redis");
        for slot in fixed {
            match slot.known {
                Known::Call => lua_getfield_(lua, closure + 2, c"call".as_ptr()),
                Known::Pcall => lua_getfield_(lua, closure + 2, c"pcall".as_ptr()),
                Known::List(List::Keys) => lua_pushvalue(lua, KEYS_SLOT),
                Known::List(List::Argv) => lua_pushvalue(lua, ARGV_SLOT),
                Known::Argument(list, index) => lua_pushlightuserdata(lua, stand_in(list, index)),
                Known::Element(..) => unreachable!("it is no fixed one"),
            };
            layout::set_slot(lua, slot);
            lua_settop(lua, closure + 2);
        }
        lua_settop(lua, closure);
    }
}

/// Sets the constants that are elements of the two lists.
#[inline]
unsafe fn set_elements(lua: *mut lua_State, slots: &[layout::Slot], keys: &[&[u8]], args: &[&[u8]]) {
    let mut last = None;
    for slot in slots {
        let Known::Element(list, index) = slot.known else { unreachable!("these are elements") };
        let values = match list {
            List::Keys => keys,
            List::Argv => args,
        };
        // Beyond the end it is nil, as it was left.
        let Some(value) = values.get(index as usize - 1) else { continue };
        // SAFETY: the caller has an idle run with its closure on top of the stack, and room for one value.
        unsafe {
            if last != Some(slot.known) {
                if last.replace(slot.known).is_some() {
                    layout::pop(lua);
                }
                push_bytes(lua, value);
            }
            layout::set_slot(lua, slot);
        }
    }
    if last.is_some() {
        // SAFETY: one value was pushed.
        unsafe { layout::pop(lua) }
    }
}

/// Makes `values` the list that the script finds by the name `name_ref`. The list of the last run is filled again if it looks
/// as new. No script can have kept it: nothing that a script can reach outlives its run.
unsafe fn set_list(run: &mut Run, slot: c_int, name_ref: c_int, values: &[&[u8]]) {
    let lua = run.thread;
    let len = &mut run.list_lens[(slot - KEYS_SLOT) as usize];
    // SAFETY: the caller has an idle run with its lists, and room for three values.
    unsafe {
        let is_as_new = *len == values.len()
            && *len <= REFILLED_LEN_MAX
            && lua_type(lua, slot) == LUA_TTABLE
            && layout::has_parts(lua, slot, run.no_hash_part, *len);
        if !is_as_new {
            *len = values.len();
            run.lists_made += 1;
            lua_createtable(lua, values.len() as c_int, 0);
            lua_pushvalue(lua, -1);
            lua_replace(lua, slot);
            run.no_hash_part = layout::hash_part(lua, slot);
            lua_rawgeti_(lua, LUA_REGISTRYINDEX, run.real_globals_ref);
            lua_insert(lua, -2);
            lua_rawgeti_(lua, LUA_REGISTRYINDEX, name_ref);
            lua_insert(lua, -2);
            lua_rawset(lua, -3);
            lua_settop(lua, -2);
        }
        for (index, value) in values.iter().enumerate() {
            push_bytes(lua, value);
            lua_rawseti_(lua, slot, index as c_int + 1);
        }
    }
}

/// Takes the values out of a list that may be filled again. Where the script has added some, it is as no new one is.
unsafe fn clear_list(lua: *mut lua_State, slot: c_int, len: usize) {
    if len <= REFILLED_LEN_MAX {
        // SAFETY: as for `set_list`.
        unsafe { layout::clear_array_part(lua, slot) }
    }
}

/// Pushes a table with `values` at 1, 2, ...
pub(crate) unsafe fn push_list(lua: *mut lua_State, values: &[&[u8]]) {
    // SAFETY: the stack has room for two values.
    unsafe {
        lua_createtable(lua, values.len() as c_int, 0);
        for (index, value) in values.iter().enumerate() {
            push_bytes(lua, value);
            lua_rawseti_(lua, -2, index as c_int + 1);
        }
    }
}

/// Pushes an error object: a table with the text, which begins with a code.
pub(crate) unsafe fn push_error(lua: *mut lua_State, text: &[u8], already_counted: bool) {
    // SAFETY: the stack has room for three values.
    unsafe {
        lua_createtable(lua, 0, if already_counted { 4 } else { 3 });
        push_bytes(lua, text);
        set_raw_field(lua, c"err");
        if already_counted {
            lua_pushboolean(lua, 1);
            set_raw_field(lua, c"ignore_error_stats_update");
        }
    }
}

unsafe extern "C-unwind" fn panic(_: *mut lua_State) -> c_int {
    panic!("a Lua error outside of a protected call")
}
