//! A bare Lua state with the libraries, whose memory is counted and limited, and the script that runs a case in it or on a
//! server.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use mlua::ffi;
use shardis_scripting::libs;

/// Runs the chunk in `ARGV[1]` and returns a text that tells all about its results, with tables in the order of `pairs`; or its
/// error.
pub const RUNNER: &str = include_str!("runner.lua");

pub struct Vm {
    state: *mut ffi::lua_State,
    memory: Box<Memory>,
}

struct Memory {
    used_bytes: usize,
    limit_bytes: usize,
    /// The most that was asked for at once.
    largest_bytes: usize,
}

impl Vm {
    pub fn new(limit_bytes: usize) -> Vm {
        let mut memory = Box::new(Memory { used_bytes: 0, limit_bytes, largest_bytes: 0 });
        // SAFETY: the state is used by one thread, and the memory's account outlives it.
        let state = unsafe { ffi::lua_newstate(allocate, (&raw mut *memory).cast()) };
        assert!(!state.is_null(), "no memory for a state");
        // SAFETY: the state is new and has room; nothing here has to be dropped on an error, which there is none.
        unsafe {
            ffi::luaL_openlibs(state);
            libs::cjson::open(state);
            libs::cmsgpack::open(state);
            libs::structlib::open(state);
            libs::bit::open(state);
            assert_eq!(ffi::lua_gettop(state), 0, "opening leaves nothing behind");
        }
        Vm { state, memory }
    }

    /// What `RUNNER` tells of a chunk.
    #[allow(dead_code, reason = "not every user of this file asks")]
    pub fn run(&mut self, chunk: &[u8]) -> Vec<u8> {
        // SAFETY: the state has room for these values.
        unsafe {
            ffi::lua_createtable(self.state, 1, 0);
            ffi::lua_pushlstring_(self.state, chunk.as_ptr().cast(), chunk.len());
            ffi::lua_rawseti_(self.state, -2, 1);
            ffi::lua_setglobal(self.state, c"ARGV".as_ptr());
        }
        self.eval(RUNNER.as_bytes(), c"@runner").unwrap_or_else(|error| error)
    }

    /// The string that a script returns, or its error.
    pub fn eval(&mut self, script: &[u8], name: &CStr) -> Result<Vec<u8>, Vec<u8>> {
        self.load_and_call(script, name, &[])
    }

    /// As [`Vm::eval`], with `input` as `...`.
    #[allow(dead_code, reason = "of the users of this file, only fuzz targets call it")]
    pub fn call(&mut self, script: &[u8], input: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        self.load_and_call(script, c"@check", &[input])
    }

    fn load_and_call(&mut self, script: &[u8], name: &CStr, args: &[&[u8]]) -> Result<Vec<u8>, Vec<u8>> {
        // SAFETY: the state has room for these values; errors are caught by `lua_pcall`. The string is copied while it is on
        // the stack.
        unsafe {
            let mut status =
                ffi::luaL_loadbuffer(self.state, script.as_ptr().cast(), script.len(), name.as_ptr());
            if status == 0 {
                for arg in args {
                    ffi::lua_pushlstring_(self.state, arg.as_ptr().cast(), arg.len());
                }
                status = ffi::lua_pcall(self.state, args.len() as c_int, 1, 0);
            }
            let mut len = 0;
            let start = ffi::lua_tolstring(self.state, -1, &raw mut len);
            let text = if start.is_null() {
                b"(no string)".to_vec()
            } else {
                std::slice::from_raw_parts(start.cast(), len).to_vec()
            };
            ffi::lua_settop(self.state, 0);
            if status == 0 { Ok(text) } else { Err(text) }
        }
    }

    /// What is in use when all garbage is gone.
    #[allow(dead_code, reason = "not every user of this file asks")]
    pub fn used_bytes(&mut self) -> usize {
        // At each collection Lua halves the buffer in which it concatenates.
        for _ in 0..20 {
            // SAFETY: the state is valid and no function of it is running.
            unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOLLECT, 0) };
        }
        self.memory.used_bytes
    }

    #[allow(dead_code, reason = "not every user of this file asks")]
    pub fn largest_bytes(&self) -> usize {
        self.memory.largest_bytes
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // SAFETY: nobody uses the state any more.
        unsafe { ffi::lua_close(self.state) };
        if !std::thread::panicking() {
            assert_eq!(self.memory.used_bytes, 0, "a closed state has given back its memory");
        }
    }
}

unsafe extern "C" {
    fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void;
    fn free(block: *mut c_void);
}

unsafe extern "C" fn allocate(
    context: *mut c_void,
    block: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void {
    // SAFETY: Lua hands over the context that it was given, blocks that it got here, and their sizes.
    unsafe {
        let memory: &mut Memory = &mut *context.cast();
        let rest = memory.used_bytes - old;
        memory.largest_bytes = memory.largest_bytes.max(new);
        if new == 0 {
            free(block);
            memory.used_bytes = rest;
            return ptr::null_mut();
        }
        if new > old && new > memory.limit_bytes - rest.min(memory.limit_bytes) {
            return ptr::null_mut();
        }
        let block = realloc(block, new);
        if !block.is_null() {
            memory.used_bytes = rest + new;
        }
        block
    }
}
