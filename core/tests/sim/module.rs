//! A module as others write them: it does not know of several shards, and uses the server through the functions of the ABI
//! alone. Its commands open any keys and call any commands, those of scripts among them, and yield in between.
//!
//! No two of its commands may run at the same time, however long one of them is suspended. One that finds another at work
//! replies so, which no order of the operations explains.
//!
//! Mistakes that were made on purpose, and the first seed that failed:
//!
//! | mistake | seed |
//! |---|---|
//! | a command begins although there are locks (`must_await_token`) | 1 |
//! | the second key that it opens from other shards is not fetched (`bring_key`) | 5 |
//! | a key of its own shard that it opens is not locked (`bring_key`) | 170 |
//! | the only shard is not locked as a whole when it is suspended (`want_locks`) | 574 |
//! | a key that it keeps open is not fetched again after a call (`ModuleKey::parts_to_note`) | 678 |
//! | an EXEC with it does not lock the only shard as a whole (`begin`) | none of 2,000 |

use super::cluster;
use shardis_core::command::table::CommandTable;
use shardis_core::config::Config;
use shardis_core::modules::{load_linked, table_with};
use shardis_modules_api::abi::*;
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

/// The functions of the server.
static API: Api = Api::EMPTY;

macro_rules! api {
    ($name:ident) => {
        API.$name.get().expect(concat!("the server has ", stringify!($name)))
    };
}

thread_local! {
    /// The client whose command runs. A cluster runs on one thread.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The commands of the server and of the module, which is loaded once in the process.
pub fn table() -> CommandTable {
    static TABLE: OnceLock<CommandTable> = OnceLock::new();
    let load = || {
        let rows = load_linked(b"simulated", on_load, Config::defaults());
        table_with(cluster::table(), rows).expect("its names are free")
    };
    TABLE.get_or_init(load).clone()
}

/// What a library exports as `RedisModule_OnLoad`.
unsafe extern "C" fn on_load(
    ctx: *mut RedisModuleCtx,
    _argv: *mut *mut RedisModuleString,
    _argc: c_int,
) -> c_int {
    // SAFETY: the first field of a context is the pointer to `GetApi`.
    unsafe { API.ask(ctx.cast::<signature::GetApi>().read()) };
    // SAFETY: the context is that of OnLoad.
    unsafe {
        api!(SetModuleAttribs)(ctx, c"simulated".as_ptr(), 1, REDISMODULE_APIVER_1);
        // Without a type of its own it has nothing against it, and clusters without the module go by this, too.
        api!(SetModuleOptions)(ctx, REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD);
    }
    let create = |name: &CStr, key: c_int| {
        let (flags, step) = (c"write deny-oom", c_int::from(key > 0));
        // SAFETY: the context is that of OnLoad, and the server copies the texts.
        unsafe { api!(CreateCommand)(ctx, name.as_ptr(), Some(run), flags.as_ptr(), key, key, step) }
    };
    let created = [create(c"mcall", 0), create(c"mcallkey", 1)];
    if created == [REDISMODULE_OK; 2] { REDISMODULE_OK } else { REDISMODULE_ERR }
}

/// MCALL [; step [argument ...]]... and MCALLKEY key [; step [argument ...]]...
///
/// Does one step after the other, over any keys, declared or not. A step is a command to be called, or
///
/// - OPEN GET key, OPEN SET key value, OPEN DEL key, OPEN EXISTS key: what the command of this name does with one key, by
///   functions that open it;
/// - KEEP key: opens it to read, for GETs to come, and keeps it open to the end;
/// - YIELD: lets others be served.
///
/// Reply: array of the replies of all but the last two. Errors: another command of the module runs.
unsafe extern "C" fn run(ctx: *mut RedisModuleCtx, argv: *mut *mut RedisModuleString, argc: c_int) -> c_int {
    // SAFETY: the server passes so many strings, which last until the command returns.
    let argv = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
    // SAFETY: the context is that of the command.
    let client = unsafe { api!(GetClientId)(ctx) };
    if RUNNING.get().is_some_and(|other| other != client) {
        // SAFETY: as above.
        return unsafe { api!(ReplyWithError)(ctx, c"ERR another command of the module runs".as_ptr()) };
    }
    let outer = RUNNING.replace(Some(client));

    let mut steps = Steps { ctx, kept: Vec::new() };
    let (mut calls, mut count) = (argv.split(|&word| text(word) == b";"), 0);
    calls.next();
    // SAFETY: as above.
    unsafe { api!(ReplyWithArray)(ctx, REDISMODULE_POSTPONED_LEN) };
    for call in calls {
        count += i64::from(steps.take(call));
    }
    // SAFETY: as above; this is the array that was begun last, because all others have ended.
    unsafe { api!(ReplySetArrayLength)(ctx, count) };
    drop(steps);

    RUNNING.set(outer);
    REDISMODULE_OK
}

/// The bytes of a string, while it lives.
fn text<'a>(string: *mut RedisModuleString) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: all strings here are arguments of the command, which last until it returns.
    unsafe {
        let start = api!(StringPtrLen)(string, &raw mut len);
        std::slice::from_raw_parts(start.cast(), len)
    }
}

/// A command at work.
struct Steps {
    ctx: *mut RedisModuleCtx,
    /// Keys that are open to be read, and their names.
    kept: Vec<(*mut RedisModuleString, *mut RedisModuleKey)>,
}

impl Steps {
    /// Does a step. Returns whether it has replied.
    fn take(&mut self, words: &[*mut RedisModuleString]) -> bool {
        match text(words[0]) {
            b"YIELD" => {
                // SAFETY: the context is that of the command, and a text need not be given.
                unsafe { api!(Yield)(self.ctx, REDISMODULE_YIELD_FLAG_NONE, ptr::null()) };
                false
            }
            b"KEEP" => {
                let key = self.open(words[1], REDISMODULE_READ);
                if !key.is_null() {
                    self.kept.push((words[1], key));
                }
                false
            }
            b"OPEN" => {
                self.use_key(text(words[1]), &words[2..]);
                true
            }
            _ => {
                self.call(words);
                true
            }
        }
    }

    fn call(&self, words: &[*mut RedisModuleString]) {
        let name = CString::new(text(words[0])).expect("names are text");
        let args = &words[1..];
        // SAFETY: the format says that a vector and its length follow, the context is that of the command, and the reply is
        // freed once.
        unsafe {
            let reply = api!(Call)(self.ctx, name.as_ptr(), c"!vE".as_ptr(), args.as_ptr(), args.len());
            api!(ReplyWithCallReply)(self.ctx, reply);
            api!(FreeCallReply)(reply);
        }
    }

    fn open(&self, name: *mut RedisModuleString, mode: c_int) -> *mut RedisModuleKey {
        // SAFETY: the context is that of the command, and the name lives.
        unsafe { api!(OpenKey)(self.ctx, name, mode) }
    }

    fn use_key(&self, what: &[u8], args: &[*mut RedisModuleString]) {
        let (ctx, name) = (self.ctx, args[0]);
        // SAFETY: the context is that of the command, and the name lives.
        let exists = || unsafe { api!(KeyExists)(ctx, name) };
        match what {
            b"GET" => self.get(name),
            // SAFETY: as above.
            b"EXISTS" => drop(unsafe { api!(ReplyWithLongLong)(ctx, exists().into()) }),
            b"SET" => {
                let key = self.open(name, REDISMODULE_READ | REDISMODULE_WRITE);
                // SAFETY: as above; the key is open to be written, and is not used after it was closed.
                unsafe {
                    api!(StringSet)(key, args[1]);
                    api!(CloseKey)(key);
                    api!(ReplyWithSimpleString)(ctx, c"OK".as_ptr());
                }
            }
            // A key that was open to be written counts as changed.
            b"DEL" if exists() == 0 => {
                // SAFETY: as above.
                unsafe { api!(ReplyWithLongLong)(ctx, 0) };
            }
            b"DEL" => {
                let key = self.open(name, REDISMODULE_WRITE);
                // SAFETY: as for SET.
                unsafe {
                    api!(DeleteKey)(key);
                    api!(CloseKey)(key);
                    api!(ReplyWithLongLong)(ctx, 1);
                }
            }
            // SAFETY: as above.
            _ => drop(unsafe { api!(ReplyWithError)(ctx, c"ERR no such step".as_ptr()) }),
        }
    }

    /// Replies with the value of a key: as one that was kept has it, if there is one.
    fn get(&self, name: *mut RedisModuleString) {
        let kept = self.kept.iter().find(|(other, _)| text(*other) == text(name));
        let key = kept.map_or_else(|| self.open(name, REDISMODULE_READ), |&(_, key)| key);
        let mut len = 0;
        // SAFETY: the context is that of the command. The key is open, or NULL, which is empty; it is closed here if it was
        // opened here.
        unsafe {
            match api!(KeyType)(key) {
                REDISMODULE_KEYTYPE_EMPTY => api!(ReplyWithNull)(self.ctx),
                REDISMODULE_KEYTYPE_STRING => {
                    let start: *mut c_char = api!(StringDMA)(key, &raw mut len, REDISMODULE_READ);
                    api!(ReplyWithStringBuffer)(self.ctx, start, len)
                }
                _ => api!(ReplyWithError)(self.ctx, c"ERR not a string".as_ptr()),
            };
            if kept.is_none() {
                api!(CloseKey)(key);
            }
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        for (_, key) in self.kept.drain(..) {
            // SAFETY: it is open, and not used after this.
            unsafe { api!(CloseKey)(key) };
        }
    }
}
