//! A run: one execution of a script or function, on a Lua thread of its own.
//!
//! Several runs of one VM may be under way, each on its own C stack, suspended within [`Host::call`] or
//! [`Host::tick`]. What belongs to one run lies in its [`Run`]; the VM knows which one is on
//! ([`Shared::current`]), and that is set anew whenever the host gives control back.
//!
//! **A run that has to end ends.** [`Ending`] says why; every way by which a script can catch an error (pcall, xpcall,
//! coroutine.resume, load) and every tick and call raises it again, until the script has unwound. It is raised as Lua's
//! "not enough memory", by an allocation that is refused, because that is the one error which calls no handler: an
//! xpcall's handler for an error out of a hook would run with hooks off, and could not be stopped.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::args::ArgBuffer;
use crate::ffi::*;
use crate::fold::stood_for;
use crate::host::{CallOptions, Control, Host, LogLevel, ReplTargets, Resp, TICK_INSTRUCTIONS};
use crate::library::Loading;
use crate::reply::until_nul;
use crate::vm::{Kind, ScriptError, Shared};
use crate::{reply, vm};

/// Why a run has to end before its script does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    None,
    /// The host said so, with this text.
    Stopped(&'static str),
    /// It allocated more than a run may.
    Memory,
}

impl Ending {
    fn text(self) -> Option<&'static str> {
        match self {
            Ending::None => None,
            Ending::Stopped(text) => Some(text),
            Ending::Memory => Some("ERR Script used more memory than a script may"),
        }
    }
}

/// What belongs to one run, and buffers that are used by the next one again.
pub(crate) struct Run {
    /// Each run has another number, from 1.
    pub(crate) id: u64,
    /// The Lua thread. While the run is not on, its stack has `kept_slots` values: the error handler, and for a script KEYS and
    /// ARGV.
    pub(crate) thread: *mut lua_State,
    pub(crate) kept_slots: c_int,
    /// For how many values KEYS and ARGV were made, and the hash part of tables that have none.
    pub(crate) list_lens: [usize; 2],
    pub(crate) no_hash_part: *mut c_void,
    /// How many times one of the two tables was made anew.
    pub(crate) lists_made: u64,
    /// The registry's reference to the thread, and to the globals of a script with its own KEYS and ARGV: what the
    /// script sees, and the table behind it. `LUA_NOREF` for a function's.
    pub(crate) thread_ref: c_int,
    pub(crate) globals_ref: c_int,
    pub(crate) real_globals_ref: c_int,
    pub(crate) kind: Kind,
    host: Option<*mut dyn Host>,
    /// The version that the script sees replies in.
    pub(crate) resp: Resp,
    pub(crate) repl: ReplTargets,
    pub(crate) ending: Ending,
    /// Where the script was when its end was raised first, as in the text of an error.
    ending_place: Vec<u8>,
    /// KEYS and ARGV as the host has handed them in, while the run is under way.
    pub(crate) lists: [*const [&'static [u8]]; 2],
    /// What the script returns is the reply to the command that it called last, which is in `reply`.
    pub(crate) passes_reply_on: bool,
    /// The next allocation is refused.
    pub(crate) refuses_next: bool,
    /// What it allocated less what was freed while it was on.
    used_bytes: isize,
    limit_bytes: isize,
    /// How many coroutines it resumed.
    pub(crate) resumes: u32,
    pub(crate) loading: *mut Loading,
    pub(crate) args: ArgBuffer,
    pub(crate) reply: Vec<u8>,
    frames: Vec<reply::Frame>,
}

const NO_LISTS: [*const [&[u8]]; 2] = [&[], &[]];

/// How many bytes of the buffer for replies are kept for the next run.
const KEPT_REPLY_BYTES: usize = 64 << 10;

impl Run {
    pub(crate) fn new(id: u64, kind: Kind, thread: *mut lua_State, thread_ref: c_int) -> Run {
        Run {
            id,
            thread,
            kept_slots: match kind {
                Kind::Script => 3,
                Kind::Function => 1,
            },
            list_lens: [0; 2],
            no_hash_part: std::ptr::null_mut(),
            lists_made: 0,
            thread_ref,
            globals_ref: LUA_NOREF,
            real_globals_ref: LUA_NOREF,
            kind,
            host: None,
            resp: Resp::V2,
            repl: ReplTargets::ALL,
            ending: Ending::None,
            ending_place: Vec::new(),
            lists: NO_LISTS,
            passes_reply_on: false,
            refuses_next: false,
            used_bytes: 0,
            limit_bytes: isize::MAX,
            resumes: 0,
            loading: std::ptr::null_mut(),
            args: ArgBuffer::default(),
            reply: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// The element that an address stands for; `None`: it stands for none, or there is none.
    ///
    /// # Safety
    /// The lists are those of a run that is under way.
    #[inline]
    pub(crate) unsafe fn element<'a>(
        lists: [*const [&'static [u8]]; 2],
        address: *mut c_void,
    ) -> Option<&'a [u8]> {
        let (list, index) = stood_for(address)?;
        // SAFETY: by the contract.
        let elements: &'a [&'a [u8]] = unsafe { &*lists[list as usize] };
        elements.get(index.checked_sub(1)?).copied()
    }

    /// Whether `len` bytes more are more than the run may have.
    #[inline]
    pub(crate) fn exceeds(&self, len: usize) -> bool {
        self.used_bytes.saturating_add(len as isize) > self.limit_bytes
    }

    #[inline]
    pub(crate) fn count_memory(&mut self, old_len: usize, new_len: usize) {
        self.used_bytes += new_len as isize - old_len as isize;
    }

    fn begin(&mut self, host: &mut dyn Host, limit_bytes: usize) {
        // SAFETY: only the lifetime changes; `end` takes the pointer out before the borrow ends.
        self.host = Some(unsafe { std::mem::transmute::<&mut dyn Host, &'static mut dyn Host>(host) });
        self.resp = Resp::V2;
        self.repl = ReplTargets::ALL;
        self.ending = Ending::None;
        self.ending_place.clear();
        self.passes_reply_on = false;
        self.refuses_next = false;
        self.used_bytes = 0;
        self.limit_bytes = isize::try_from(limit_bytes).unwrap_or(isize::MAX);
        self.resumes = 0;
    }

    fn end(&mut self) {
        self.host = None;
        self.lists = NO_LISTS;
        self.loading = std::ptr::null_mut();
        self.args.clear();
        self.reply.clear();
        if self.reply.capacity() > KEPT_REPLY_BYTES {
            self.reply = Vec::new();
        }
    }

    /// The host of a run that is on.
    fn host(&self) -> *mut dyn Host {
        self.host.expect("a run that is on has a host")
    }

    /// Logs what lies in `self.reply`.
    pub(crate) fn log(&mut self, level: LogLevel) {
        // SAFETY: the host is borrowed exclusively by `Shared::execute` from `begin` to `end`.
        unsafe { (*self.host()).log(level, &self.reply) }
    }

    /// Whether the user may run the command `self.args`.
    pub(crate) fn may_call(&mut self) -> Option<bool> {
        // SAFETY: as in `log`.
        unsafe { (*self.host()).may_call(self.args.as_args()) }
    }

    /// Runs the command `self.args`, whose reply is then in `self.reply`.
    pub(crate) fn call(&mut self, shared: &Shared) {
        self.reply.clear();
        let options = CallOptions { resp: self.resp, repl: self.repl };
        let host = self.host();
        shared.current.set(std::ptr::null_mut());
        // SAFETY: as in `log`.
        let control = unsafe { (*host).call(self.args.as_args(), options, &mut self.reply) };
        shared.current.set(self);
        self.obey(control);
    }

    /// Lets the host have control.
    pub(crate) fn tick(&mut self, shared: &Shared) {
        if self.ending != Ending::None {
            return;
        }
        shared.current.set(std::ptr::null_mut());
        // SAFETY: as in `log`.
        let control = unsafe { (*self.host()).tick() };
        shared.current.set(self);
        self.obey(control);
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::GoOn => {}
            Control::Stop(text) => self.ending = Ending::Stopped(text),
        }
    }
}

/// Raises the end of the run that is on, if it has to end.
///
/// # Safety
/// Called from a C function or hook of `lua`, in a function that holds nothing with a destructor.
#[inline]
pub(crate) unsafe fn check_ending(lua: *mut lua_State, shared: &Shared) {
    let run = shared.current.get();
    // SAFETY: the run that is on lives until it ends.
    unsafe {
        if !run.is_null() && (*run).ending != Ending::None {
            raise_ending(lua, run);
        }
    }
}

#[cold]
unsafe fn raise_ending(lua: *mut lua_State, run: *mut Run) -> ! {
    // SAFETY: as for `check_ending`.
    unsafe {
        if (*run).ending_place.is_empty() {
            append_place(lua, &mut (*run).ending_place);
        }
        (*run).refuses_next = true;
        lua_newuserdata(lua, 1);
    }
    unreachable!("the allocation was refused");
}

/// Appends the source and line of the Lua function that runs, which may have called a C function.
unsafe fn append_place(lua: *mut lua_State, text: &mut Vec<u8>) {
    let mut frame = std::mem::MaybeUninit::<lua_Debug>::uninit();
    for level in 0..2 {
        // SAFETY: Lua fills in the frame, and its strings live as long as the function.
        unsafe {
            if lua_getstack(lua, level, frame.as_mut_ptr()) == 0
                || lua_getinfo(lua, c"Sl".as_ptr(), frame.as_mut_ptr()) == 0
            {
                return;
            }
            let frame = frame.assume_init_ref();
            if *frame.what.cast::<u8>() != b'C' {
                text.extend_from_slice(CStr::from_ptr(frame.source).to_bytes());
                text.push(b':');
                reply::append_integer(text, i64::from(frame.currentline));
                return;
            }
        }
    }
}

/// The count hook.
pub(crate) unsafe extern "C-unwind" fn tick_hook(lua: *mut lua_State, _: *mut lua_Debug) {
    // SAFETY: called by Lua, on a thread of this VM.
    unsafe {
        let shared = Shared::of(lua);
        let run = shared.current.get();
        if !run.is_null() {
            (*run).tick(shared);
            check_ending(lua, shared);
        }
    }
}

impl Shared {
    /// Calls the function that lies on the thread's stack, with `argc` arguments above it, and appends the reply; or
    /// the error that it ended with.
    ///
    /// # Safety
    /// `run` is of this VM and not on; its thread holds what a run keeps there, the function and the arguments, and nothing else.
    pub(crate) unsafe fn execute(
        &self,
        run: &mut Run,
        argc: c_int,
        name: &[u8],
        options: vm::RunOptions,
        host: &mut dyn Host,
        out: &mut Vec<u8>,
    ) -> Result<(), ScriptError> {
        // SAFETY: by the contract.
        unsafe {
            let lua = run.thread;
            let failed = self.protected_call(run, argc, host);
            let result = if failed || run.ending != Ending::None {
                Err(error_of(lua, run, name))
            } else if run.passes_reply_on {
                out.extend_from_slice(&run.reply);
                Ok(())
            } else if reply::append_plain(lua, out) {
                Ok(())
            } else if let Some(error) = reply::returned_error(lua) {
                Err(error)
            } else {
                // How deep a reply may be nested depends on where in the stack it lies: at 2, as in Redis.
                let main = self.main.get();
                lua_pushnil(main);
                lua_xmove(lua, main, 1);
                let mut frames = std::mem::take(&mut run.frames);
                reply::append(
                    main,
                    reply::Versions { client: options.client_resp, script: run.resp },
                    &mut frames,
                    host,
                    out,
                );
                run.frames = frames;
                lua_settop(main, 0);
                Ok(())
            };
            lua_settop(lua, run.kept_slots);
            if run.ending == Ending::Memory {
                // What it took may be most of the memory there is; the collector would let it lie until it doubles.
                lua_gc(self.main.get(), LUA_GCCOLLECT, 0);
            }
            run.end();
            result
        }
    }

    /// As [`Shared::execute`], but leaves the result or the error on the stack and `run` to be ended.
    unsafe fn protected_call(&self, run: &mut Run, argc: c_int, host: &mut dyn Host) -> bool {
        run.begin(host, self.run_limit_bytes.get());
        // SAFETY: by the contract of `execute`.
        unsafe {
            // Setting it starts the count anew.
            lua_sethook(run.thread, Some(tick_hook), LUA_MASKCOUNT, TICK_INSTRUCTIONS as c_int);
            self.current.set(run);
            let status = lua_pcall(run.thread, argc, 1, 1);
            self.current.set(std::ptr::null_mut());
            status != LUA_OK
        }
    }

    /// Runs the chunk on the thread's stack that registers a library's functions. The error is the text alone.
    ///
    /// # Safety
    /// As [`Shared::execute`].
    pub(crate) unsafe fn execute_loading(
        &self,
        run: &mut Run,
        loading: *mut Loading,
        host: &mut dyn Host,
    ) -> Result<(), Vec<u8>> {
        // SAFETY: by the contract.
        unsafe {
            let lua = run.thread;
            run.loading = loading;
            let failed = self.protected_call(run, 0, host);
            let result = if failed || run.ending != Ending::None {
                Err(match run.ending.text() {
                    Some(text) => text.as_bytes().to_vec(),
                    None => error_text(lua).0,
                })
            } else {
                Ok(())
            };
            lua_settop(lua, 1);
            run.end();
            result
        }
    }
}

/// The text of the error on top of the stack, and whether its table has the mark of an error that was counted.
unsafe fn error_text(lua: *mut lua_State) -> (Vec<u8>, bool) {
    // SAFETY: the stack has a value, and room for more.
    unsafe {
        let top = lua_gettop(lua);
        if lua_type(lua, top) != LUA_TTABLE {
            let text = bytes_at(lua, top).unwrap_or(b"execution failure");
            return ([b"ERR ".as_slice(), until_nul(text)].concat(), false);
        }
        raw_field(lua, top, c"err");
        let text = until_nul(bytes_at(lua, -1).unwrap_or(b"ERR unknown error")).to_vec();
        raw_field(lua, top, c"ignore_error_stats_update");
        let already_counted = lua_toboolean(lua, -1) != 0;
        lua_settop(lua, top);
        (text, already_counted)
    }
}

/// What the client gets for the run that failed with the error on top of the stack.
#[cold]
unsafe fn error_of(lua: *mut lua_State, run: &Run, name: &[u8]) -> ScriptError {
    let mut already_counted = false;
    let mut text = Vec::new();
    let mut place = run.ending_place.clone();
    if let Some(ending) = run.ending.text() {
        text.extend_from_slice(ending.as_bytes());
    } else {
        // SAFETY: as for `error_text`.
        unsafe {
            (text, already_counted) = error_text(lua);
            let top = lua_gettop(lua);
            if lua_type(lua, top) == LUA_TTABLE {
                raw_field(lua, top, c"source");
                raw_field(lua, top, c"line");
                if let (Some(source), Some(line)) = (bytes_at(lua, -2), bytes_at(lua, -1)) {
                    place = [source, b":", line].concat();
                }
            }
        }
    }
    if !place.is_empty() {
        for part in [b" script: ".as_slice(), name, b", on ", &place, b"."] {
            text.extend_from_slice(part);
        }
    }
    ScriptError { text: one_line(text), already_counted }
}

/// A reply's line has no line ends in it.
pub(crate) fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    text
}

/// The chunk's name as `luaL_loadbuffer` takes it, which has to stay on the stack while the chunk is parsed: the
/// parser keeps an unanchored string of it (CVE-2025-49844).
///
/// # Safety
/// The name ends with NUL; the stack has room for one value.
pub(crate) unsafe fn anchor_chunk_name(lua: *mut lua_State, name: *const c_char) {
    // SAFETY: by the contract. Strings are interned: the parser gets this very one.
    unsafe { lua_pushstring_(lua, name) }
}
