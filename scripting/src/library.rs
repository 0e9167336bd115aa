//! Libraries of functions: what `FUNCTION LOAD` compiles and runs once, and the functions that it registers.

use std::ffi::c_int;
use std::rc::Rc;

use crate::ffi::*;
use crate::host::Host;
use crate::run::{anchor_chunk_name, one_line};
use crate::vm::{Kind, RunOptions, ScriptError, Shared, Vm, push_error, push_list};
use crate::{chunk, readonly, sandbox};

/// What a function may do, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FunctionFlags(u8);

/// The flags in the order of `FUNCTION LIST`.
const FLAG_NAMES: [(&str, FunctionFlags); 5] = [
    ("no-writes", FunctionFlags::NO_WRITES),
    ("allow-oom", FunctionFlags::ALLOW_OOM),
    ("allow-stale", FunctionFlags::ALLOW_STALE),
    ("no-cluster", FunctionFlags::NO_CLUSTER),
    ("allow-cross-slot-keys", FunctionFlags::ALLOW_CROSS_SLOT_KEYS),
];

impl FunctionFlags {
    pub const NO_WRITES: FunctionFlags = FunctionFlags(1);
    pub const ALLOW_OOM: FunctionFlags = FunctionFlags(2);
    pub const ALLOW_STALE: FunctionFlags = FunctionFlags(4);
    pub const NO_CLUSTER: FunctionFlags = FunctionFlags(8);
    pub const ALLOW_CROSS_SLOT_KEYS: FunctionFlags = FunctionFlags(16);

    pub fn contains(self, flag: FunctionFlags) -> bool {
        self.0 & flag.0 == flag.0
    }

    pub fn union(self, other: FunctionFlags) -> FunctionFlags {
        FunctionFlags(self.0 | other.0)
    }

    /// The flag that is written `name` in a library, in any case.
    pub fn from_name(name: &[u8]) -> Option<FunctionFlags> {
        FLAG_NAMES
            .iter()
            .find(|(flag_name, _)| flag_name.as_bytes().eq_ignore_ascii_case(name))
            .map(|&(_, flag)| flag)
    }

    /// The names of the flags that are set, in the order of `FUNCTION LIST`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.iter().filter(move |(_, flag)| self.contains(*flag)).map(|&(name, _)| name)
    }
}

/// A registered function.
#[derive(Debug)]
pub struct Function {
    pub name: Vec<u8>,
    pub description: Option<Vec<u8>>,
    pub flags: FunctionFlags,
    /// The registry's reference to the callback.
    callback: c_int,
}

/// A loaded library. Dropping it releases it.
pub struct Library {
    shared: Rc<Shared>,
    /// In the order in which they were registered; at least one.
    functions: Vec<Function>,
}

impl Library {
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The place of the function `name` in [`Library::functions`].
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.functions.iter().position(|function| function.name == name)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        for function in &self.functions {
            self.shared.release(function.callback);
        }
    }
}

/// A library that does not load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadError {
    /// The line of the error reply without `-`.
    pub text: Vec<u8>,
}

/// What a library has registered so far.
pub(crate) struct Loading {
    functions: Vec<Function>,
    /// What `redis.register_function` is reading.
    draft: Draft,
}

#[derive(Default)]
struct Draft {
    name: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    flags: FunctionFlags,
    callback: Option<c_int>,
}

impl Vm {
    /// Loads a library. `code` begins with its `#!` line, which is passed over: the caller has read it. `host` gets
    /// control by [`Host::tick`] alone, and ends a load that takes too long with `ERR FUNCTION LOAD timeout`.
    pub fn load_library(&self, code: &[u8], host: &mut dyn Host) -> Result<Library, LoadError> {
        let shared = self.shared();
        let mut run = shared.take_run(Kind::Function);
        let mut loading = Loading { functions: Vec::new(), draft: Draft::default() };
        // SAFETY: the thread of an idle run holds the handler alone.
        let result = unsafe {
            let lua = run.thread;
            anchor_chunk_name(lua, c"@user_function".as_ptr());
            match chunk::load(lua, chunk::without_shebang(code), c"@user_function") {
                Ok(()) => {
                    // The function takes the place of the name.
                    lua_replace(lua, -2);
                    sandbox::push_library_globals(lua, shared);
                    let globals = reference_to_copy(lua);
                    lua_setfenv(lua, -2);
                    let result = shared.execute_loading(&mut run, &raw mut loading, host);
                    lua_rawgeti_(lua, LUA_REGISTRYINDEX, globals);
                    lua_rawgeti_(lua, LUA_REGISTRYINDEX, shared.refs.get().function_globals);
                    readonly::set_real_table(lua);
                    shared.release(globals);
                    result.map_err(|text| [b"ERR Error registering functions: ".as_slice(), &text].concat())
                }
                Err(text) => Err([b"ERR Error compiling function: ".as_slice(), &text].concat()),
            }
        };
        // SAFETY: as above.
        unsafe { lua_settop(run.thread, 1) };
        shared.put_run(run);
        let Loading { functions, draft } = loading;
        if let Some(callback) = draft.callback {
            shared.release(callback);
        }
        let library = Library { shared: shared.clone(), functions };
        match result {
            Ok(()) if library.functions.is_empty() => {
                Err(LoadError { text: b"ERR No functions registered".to_vec() })
            }
            Ok(()) => Ok(library),
            Err(text) => Err(LoadError { text: one_line(text) }),
        }
    }

    /// Runs the function at `position` of `library` and appends the reply, as [`Vm::run`] does.
    #[allow(clippy::too_many_arguments, reason = "what a command has, and where its reply goes")]
    pub fn call_function(
        &self,
        library: &Library,
        position: usize,
        keys: &[&[u8]],
        args: &[&[u8]],
        options: RunOptions,
        host: &mut dyn Host,
        reply: &mut Vec<u8>,
    ) -> Result<(), ScriptError> {
        let shared = self.shared();
        assert!(
            Rc::ptr_eq(shared, &library.shared),
            "a function runs in the VM that its library was loaded into"
        );
        let function = &library.functions[position];
        let mut run = shared.take_run(Kind::Function);
        // SAFETY: the thread of an idle run holds the handler alone.
        let result = unsafe {
            lua_rawgeti_(run.thread, LUA_REGISTRYINDEX, function.callback);
            push_list(run.thread, keys);
            push_list(run.thread, args);
            shared.execute(&mut run, 2, &function.name, options, host, reply)
        };
        shared.put_run(run);
        result
    }
}

/// A reference of the registry to the value on top, which stays there.
unsafe fn reference_to_copy(lua: *mut lua_State) -> c_int {
    // SAFETY: the stack has room for a value.
    unsafe {
        lua_pushvalue(lua, -1);
        luaL_ref(lua, LUA_REGISTRYINDEX)
    }
}

/// `redis.register_function(name, callback)` and `redis.register_function{function_name=, callback=, ...}`.
pub(crate) unsafe extern "C-unwind" fn register_function(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua. What has a destructor lies in `Loading`, or is gone before an error is raised.
    unsafe {
        let shared = Shared::of(lua);
        let run = shared.current.get();
        if run.is_null() || (*run).loading.is_null() {
            return refuse(lua, "ERR redis.register_function can only be called on FUNCTION LOAD command");
        }
        let loading = (*run).loading;
        if let Some(callback) = (*loading).draft.callback.take() {
            shared.release(callback);
        }
        (*loading).draft = Draft::default();
        if let Err(text) = read_draft(lua, loading).and_then(|()| accept_draft(loading)) {
            return refuse(lua, text);
        }
        0
    }
}

unsafe fn refuse(lua: *mut lua_State, text: &str) -> c_int {
    // SAFETY: called from a function that Lua called.
    unsafe {
        push_error(lua, text.as_bytes(), false);
        lua_error(lua)
    }
}

/// Reads the arguments into the draft.
unsafe fn read_draft(lua: *mut lua_State, loading: *mut Loading) -> Result<(), &'static str> {
    // SAFETY: called from `register_function`; the load's memory is touched by nobody else meanwhile.
    unsafe {
        let draft = &mut (*loading).draft;
        match lua_gettop(lua) {
            1 if lua_type(lua, 1) == LUA_TTABLE => read_named(lua, draft),
            1 => Err(
                "ERR calling redis.register_function with a single argument is only applicable to Lua table \
                 (representing named arguments).",
            ),
            2 => {
                let Some(name) = bytes_at(lua, 1) else {
                    return Err("ERR first argument to redis.register_function must be a string");
                };
                draft.name = Some(name.to_vec());
                if lua_type(lua, 2) != LUA_TFUNCTION {
                    return Err("ERR second argument to redis.register_function must be a function");
                }
                draft.callback = Some(luaL_ref(lua, LUA_REGISTRYINDEX));
                Ok(())
            }
            _ => Err("ERR wrong number of arguments to redis.register_function"),
        }
    }
}

unsafe fn read_named(lua: *mut lua_State, draft: &mut Draft) -> Result<(), &'static str> {
    // SAFETY: as for `read_draft`; the table lies at 1.
    unsafe {
        readonly::resolve(lua, 1);
        lua_pushnil(lua);
        while lua_next(lua, 1) != 0 {
            match lua_type(lua, -2) {
                LUA_TSTRING => {}
                LUA_TNUMBER => return Err("ERR unknown argument given to redis.register_function"),
                _ => return Err("ERR named argument key given to redis.register_function is not a string"),
            }
            match bytes_at(lua, -2).unwrap_or_default() {
                key if key.eq_ignore_ascii_case(b"function_name") => match bytes_at(lua, -1) {
                    Some(name) => draft.name = Some(name.to_vec()),
                    None => {
                        return Err(
                            "ERR function_name argument given to redis.register_function must be a string",
                        );
                    }
                },
                key if key.eq_ignore_ascii_case(b"description") => match bytes_at(lua, -1) {
                    Some(description) => draft.description = Some(description.to_vec()),
                    None => {
                        return Err(
                            "ERR description argument given to redis.register_function must be a string",
                        );
                    }
                },
                key if key.eq_ignore_ascii_case(b"callback") => {
                    if lua_type(lua, -1) != LUA_TFUNCTION {
                        return Err(
                            "ERR callback argument given to redis.register_function must be a function",
                        );
                    }
                    draft.callback = Some(reference_to_copy(lua));
                }
                key if key.eq_ignore_ascii_case(b"flags") => {
                    if lua_type(lua, -1) != LUA_TTABLE {
                        return Err(
                            "ERR flags argument to redis.register_function must be a table representing function flags",
                        );
                    }
                    draft.flags = read_flags(lua)?;
                }
                _ => return Err("ERR unknown argument given to redis.register_function"),
            }
            lua_settop(lua, 2);
        }
        Ok(())
    }
}

/// Reads the array of flags on top.
unsafe fn read_flags(lua: *mut lua_State) -> Result<FunctionFlags, &'static str> {
    let mut flags = FunctionFlags::default();
    for index in 1.. {
        // SAFETY: as for `read_draft`; the table lies on top.
        unsafe {
            lua_rawgeti_(lua, -1, index);
            if lua_type(lua, -1) == LUA_TNIL {
                lua_settop(lua, -2);
                break;
            }
            let flag =
                bytes_at(lua, -1).and_then(FunctionFlags::from_name).ok_or("ERR unknown flag given")?;
            flags = flags.union(flag);
            lua_settop(lua, -2);
        }
    }
    Ok(flags)
}

/// Makes the draft a function of the library.
unsafe fn accept_draft(loading: *mut Loading) -> Result<(), &'static str> {
    // SAFETY: as for `read_draft`.
    let loading = unsafe { &mut *loading };
    let Some(name) = loading.draft.name.take() else {
        return Err("ERR redis.register_function must get a function name argument");
    };
    if loading.draft.callback.is_none() {
        return Err("ERR redis.register_function must get a callback argument");
    }
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        return Err(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one \
             character long",
        );
    }
    if loading.functions.iter().any(|function| function.name == name) {
        return Err("ERR Function already exists in the library");
    }
    let draft = std::mem::take(&mut loading.draft);
    let callback = draft.callback.expect("checked above");
    loading.functions.push(Function { name, description: draft.description, flags: draft.flags, callback });
    Ok(())
}
