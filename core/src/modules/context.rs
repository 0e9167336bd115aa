//! The context that a module's callback gets: what it may do, and on whose behalf.

use super::abi::get_api;
use super::blocked;
use super::call_reply::CallReply;
use super::command::ModuleCommand;
use super::data_type::DataType;
use super::key::ModuleKey;
use super::module::{Module, every};
use super::string::ModuleString;
use super::users::{self, ModuleUser};
use super::{threads, turn};
use crate::acl::RuleContext;
use crate::call::{Call, Key};
use crate::command::keys::{ChannelPositions, KeyPositions};
use crate::command::table::CommandTable;
use crate::command::{CommandError, Ctx};
use crate::config::Config;
use crate::protocol::reply::{Mark, Resp};
use crate::protocol::{Argv, Reply};
use crate::runtime::crash::{self, Callback};
use crate::runtime::{log, os_error};
use crate::shard::Shard;
use crate::shard::effects::Readers;
use crate::shard::event::Event;
use crate::types::hashing::hash_key;
use crate::types::module::ModuleType;
use crate::worker::Worker;
use crate::worker::program::{CallOptions, ProgramCtx};
use shardis_modules_api::abi::{RedisModuleCtx, RedisModuleString, signature};
use smallvec::SmallVec;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A context. A module knows its first field, and nothing else.
#[repr(C)]
pub struct Context<'a> {
    get_api: signature::GetApi,
    pub(super) module: &'static Module,
    /// The command that runs; `None`: it is another callback.
    pub(super) command: Option<&'static ModuleCommand>,
    access: Access<'a>,
    /// The call of the command. The database is the one that the module has selected.
    pub(super) call: Call,
    /// The arguments of the command.
    pub(super) args: Argv<'a>,
    /// Where replies go; `None`: they are dropped.
    reply: Option<NonNull<Vec<u8>>>,
    resp: Resp,
    /// The errors that the command has replied with.
    pub(super) errors: Vec<CommandError>,
    /// The headers of aggregates whose lengths are still to be set.
    pub(super) open_lengths: SmallVec<[Mark; 4]>,
    /// What is freed when the callback has ended, if the module wants that.
    pub(super) automatic: Option<Box<Automatic>>,
    /// Memory that is freed when the callback has ended.
    pub(super) pool: Vec<Box<[u8]>>,
    /// The callback is only asked for the positions of the command's keys: they go there.
    pub(super) key_positions: Option<&'a mut KeyPositions>,
    /// The same of its channels.
    pub(super) channel_positions: Option<&'a mut ChannelPositions>,
    /// The user by whose rights it calls commands, if it wants that.
    pub(super) user: Option<Arc<ModuleUser>>,
    /// Which of the command's arguments the slow log does not show.
    pub(super) redacted: SmallVec<[usize; 2]>,
    /// The client that the command has blocked.
    pub(super) blocking: Option<blocked::Handle>,
    /// The callback is for a client that was blocked.
    pub(super) on: Option<blocked::On>,
}

/// What a callback can reach.
#[derive(Clone, Copy)]
pub(super) enum Access<'a> {
    /// It is, or runs within, a program: everything.
    Program(NonNull<ProgramCtx<'a>>),
    /// It is a handler over keys: its own keys.
    Native { ctx: NonNull<Ctx<'a>>, table: &'static CommandTable },
    /// It runs for a command over the server.
    Worker(NonNull<Worker>),
    /// The server is about to start with this configuration, and with these commands of its own.
    Starting { config: &'a Config, table: Option<&'a CommandTable> },
    /// It is a context of a thread, which can reach everything while it has the lock.
    Thread,
    /// Only the command's arguments are to be looked at.
    Nothing,
}

/// Strings and other things of a context that are freed with it.
#[derive(Default)]
pub(super) struct Automatic {
    pub(super) strings: Vec<*mut ModuleString>,
    pub(super) keys: Vec<*mut ModuleKey>,
    pub(super) replies: Vec<*mut CallReply>,
}

impl<'a> Context<'a> {
    /// A context without a client.
    pub(super) fn new(module: &'static Module, access: Access<'a>) -> Context<'a> {
        Context {
            get_api,
            module,
            command: None,
            access,
            call: Call::default(),
            args: Argv::new(&[], &[]),
            reply: None,
            resp: Resp::V2,
            errors: Vec::new(),
            open_lengths: SmallVec::new(),
            automatic: None,
            pool: Vec::new(),
            key_positions: None,
            channel_positions: None,
            user: None,
            redacted: SmallVec::new(),
            blocking: None,
            on: None,
        }
    }

    /// Lets the callback reply.
    pub(super) fn reply_to(&mut self, out: &mut Vec<u8>, resp: Resp) {
        self.reply = Some(NonNull::from(out));
        self.resp = resp;
    }

    pub(super) fn as_abi(&mut self) -> *mut RedisModuleCtx {
        std::ptr::from_mut(self).cast()
    }

    #[inline]
    pub(super) fn access(&self) -> Access<'a> {
        match self.access {
            Access::Thread => {
                threads::serving().map_or(Access::Nothing, |program| Access::Program(program.cast()))
            }
            access => access,
        }
    }

    /// The reply to write, if there is anyone to reply to.
    pub(super) fn reply(&mut self) -> Option<Reply<'_>> {
        let mut out = self.reply?;
        // SAFETY: whoever made the context keeps the buffer for as long as the callback runs, and leaves it alone meanwhile.
        Some(Reply::new(unsafe { out.as_mut() }, self.resp))
    }

    pub(super) fn resp(&self) -> Resp {
        self.resp
    }

    /// The shard of the keys that the callback may use.
    #[inline]
    pub(super) fn shard(&mut self) -> Option<&mut Shard> {
        match self.access() {
            // SAFETY: whoever made the context lends what it points to for as long as the callback runs, and does not use it
            // meanwhile. The reference that is returned borrows the context.
            Access::Program(mut program) => Some(&mut unsafe { program.as_mut() }.worker().shard),
            // SAFETY: as above.
            Access::Native { mut ctx, .. } => Some(unsafe { ctx.as_mut() }.shard),
            // SAFETY: as above.
            Access::Worker(mut worker) => Some(&mut unsafe { worker.as_mut() }.shard),
            Access::Starting { .. } | Access::Thread | Access::Nothing => None,
        }
    }

    /// The configuration.
    pub(super) fn config(&mut self) -> Option<&Config> {
        if let Access::Starting { config, .. } = self.access() {
            return Some(config);
        }
        self.shard().map(|shard| &*shard.config)
    }

    /// What rules of users go by.
    pub(super) fn rules(&mut self) -> Option<RuleContext<'_>> {
        if let Access::Starting { config, table } = self.access() {
            return Some(users::rules(table?, config));
        }
        let table = self.table()?;
        Some(users::rules(table, self.config()?))
    }

    /// The worker, if the callback may use it.
    pub(super) fn worker(&mut self) -> Option<&mut Worker> {
        match self.access() {
            // SAFETY: as in `shard`.
            Access::Program(mut program) => Some(unsafe { program.as_mut() }.worker()),
            // SAFETY: as in `shard`.
            Access::Worker(mut worker) => Some(unsafe { worker.as_mut() }),
            Access::Native { .. } | Access::Starting { .. } | Access::Thread | Access::Nothing => None,
        }
    }

    /// The program in which the callback runs.
    pub(super) fn program(&mut self) -> Option<&mut ProgramCtx<'a>> {
        match self.access() {
            // SAFETY: as in `shard`.
            Access::Program(mut program) => Some(unsafe { program.as_mut() }),
            Access::Native { .. }
            | Access::Worker(_)
            | Access::Starting { .. }
            | Access::Thread
            | Access::Nothing => None,
        }
    }

    /// Whether it is a handler over keys, which reaches nothing else.
    pub(super) fn keeps_to_keys(&self) -> bool {
        matches!(self.access, Access::Native { .. })
    }

    /// The program for `what`, a function of the ABI. A handler over keys, which is refused it, does not fail silently: see
    /// [`refuse`](Context::refuse).
    pub(super) fn program_for(&mut self, what: &str) -> Option<&mut ProgramCtx<'a>> {
        if self.keeps_to_keys() {
            self.refuse(what);
        }
        self.program()
    }

    /// The worker for `what`, as [`program_for`](Context::program_for) gives the program.
    pub(super) fn worker_for(&mut self, what: &str) -> Option<&mut Worker> {
        if self.keeps_to_keys() {
            self.refuse(what);
        }
        self.worker()
    }

    /// The command of a shard-safe module has called a function that reaches more than its keys: the error number says so to
    /// the module, and the log, once for each command, to whoever has written it.
    #[cold]
    pub(super) fn refuse(&self, what: &str) {
        if let Some(command) = self.command
            && !command.was_refused.swap(true, Ordering::Relaxed)
        {
            log::warning(format_args!(
                "The command '{}' of the module {} has called RedisModule_{what} in vain: it keeps to its keys, as \
                 nothing in its declaration says otherwise (Row::is_wide, or the flag blocking)",
                command.full_name.to_string_lossy(),
                self.module.name().to_string_lossy(),
            ));
        }
        os_error::set(os_error::NOT_SUPPORTED);
    }

    /// Whether the callback runs in an EXEC.
    pub(super) fn runs_in_exec(&mut self) -> bool {
        match self.program() {
            Some(program) => program.is_in_exec(),
            None => self.call.in_exec && !self.call.in_script,
        }
    }

    /// The command table, if there is one yet.
    pub(super) fn table(&mut self) -> Option<&'static CommandTable> {
        match self.access() {
            Access::Native { table, .. } => Some(table),
            Access::Program(_)
            | Access::Worker(_)
            | Access::Starting { .. }
            | Access::Thread
            | Access::Nothing => self.worker().map(|worker| worker.table),
        }
    }

    /// Has a key here, if it is of another shard: from now on, until the program ends or calls a command for it there.
    #[inline]
    pub(super) fn bring(&mut self, db: u32, key: &[u8]) {
        // The keys of a handler are all here.
        if !matches!(self.access, Access::Native { .. }) {
            self.bring_to_program(db, key);
        }
    }

    #[inline(never)]
    fn bring_to_program(&mut self, db: u32, key: &[u8]) {
        if let Some(program) = self.program()
            && program.bring(db, key)
        {
            while_suspended(|| program.await_brought());
        }
    }

    /// The hash of a key. That of the command's only key is known already.
    #[inline]
    pub(super) fn hash_of(&self, name: &[u8]) -> u64 {
        let Call { hash, hashed_arg, .. } = self.call;
        match self.args.get(usize::from(hashed_arg)) {
            Some(arg) if hashed_arg != 0 && std::ptr::eq(arg, name) => hash,
            _ => hash_key(name),
        }
    }

    /// Registers a data type of the module. Returns whether its name was free.
    pub(super) fn add_type(&mut self, of: &'static DataType) -> bool {
        let loaded = every().into_iter().chain([self.module]);
        let is_alike = |other: &&'static DataType| other.id().is_same_type(of.id());
        if loaded.flat_map(Module::types).any(|other| is_alike(&other)) {
            return false;
        }
        // Before the server has shards, the types of all modules are added when it gets them.
        if let Some(shard) = self.shard()
            && !shard.module_types.add(of)
        {
            return false;
        }
        self.module.add_type(of);
        true
    }

    /// Tells the observers of a key that it has changed.
    pub(super) fn signal_modified(&mut self, key: &[u8]) {
        let call = self.call;
        let key = Key { bytes: key, hash: hash_key(key) };
        if let Some(shard) = self.shard() {
            shard.signal_modified(&call, call.db, key, Event::UNNAMED);
        }
    }

    /// Calls a command whose reply is an integer or a string, and returns its text. `what`: as for
    /// [`program_for`](Context::program_for).
    pub(super) fn ask(&mut self, what: &str, args: &[&[u8]]) -> Option<Vec<u8>> {
        CallReply::new(self.call_silently(what, args, Resp::V2)?).text()
    }

    /// Calls a command, which leaves no effects, and returns its reply. `None`: the callback cannot call it.
    pub(super) fn call_silently(&mut self, what: &str, args: &[&[u8]], resp: Resp) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        let options = CallOptions {
            resp,
            readers: Readers::NONE,
            is_read_only: false,
            allows_oom: true,
            is_as_script: false,
        };
        let db = self.call.db;
        let program = self.program_for(what)?;
        program.select(db);
        let _ = while_suspended(|| program.try_call(args, options, &mut reply)).ok()?;
        Some(reply)
    }

    /// Has a string freed with the context, if the module wants that. Returns it.
    pub(super) fn keep_string(&mut self, string: *mut ModuleString) -> *mut RedisModuleString {
        if let Some(automatic) = &mut self.automatic {
            automatic.strings.push(string);
        }
        ModuleString::as_abi(string)
    }

    /// The module frees a string itself.
    pub(super) fn forget_string(&mut self, string: *mut ModuleString) {
        if let Some(automatic) = &mut self.automatic {
            forget(&mut automatic.strings, string);
        }
    }

    pub(super) fn forget_key(&mut self, key: *mut ModuleKey) {
        if let Some(automatic) = &mut self.automatic {
            forget(&mut automatic.keys, key);
        }
    }

    pub(super) fn forget_reply(&mut self, reply: *mut CallReply) {
        if let Some(automatic) = &mut self.automatic {
            forget(&mut automatic.replies, reply);
        }
    }

    /// Frees what the callback has left to be freed. To be called when it has ended.
    pub(super) fn finish(&mut self) {
        let Some(automatic) = self.automatic.take() else { return };
        let Automatic { strings, keys, replies } = *automatic;
        // SAFETY: the module has not freed them, or they would not be in the lists.
        keys.into_iter().for_each(|key| unsafe { ModuleKey::close(key) });
        // SAFETY: as above.
        replies.into_iter().for_each(|reply| unsafe { CallReply::free(reply) });
        // SAFETY: as above.
        strings.into_iter().for_each(|string| unsafe { ModuleString::release(string) });
    }
}

thread_local! {
    /// The context of the callback that runs on this thread.
    static CURRENT: Cell<Option<NonNull<Context<'static>>>> = const { Cell::new(None) };
}

/// Runs a callback of a module, in its turn. Functions of the ABI that get no context use this one meanwhile. `what`: what it is
/// called for. `None`: the module is unloaded.
pub(super) fn run_with<T>(
    ctx: &mut Context<'_>,
    what: &'static str,
    callback: impl FnOnce(*mut RedisModuleCtx) -> T,
) -> Option<T> {
    let (module, pointer) = (ctx.module, ctx.as_abi());
    let outer = CURRENT.replace(NonNull::new(pointer.cast()));
    let result = match (ctx.access, ctx.command) {
        // It ends within the shard's turn, and so before the library is closed.
        (Access::Native { .. }, Some(command)) => {
            (!module.is_retired()).then(|| noted(command.callback, || callback(pointer)))
        }
        _ => in_turn_while_loaded(module, what, || callback(pointer)),
    };
    CURRENT.set(outer);
    result
}

/// Has a report of a crash in a callback name it.
#[inline]
pub(super) fn noted<T>(callback: Callback, act: impl FnOnce() -> T) -> T {
    let outer = crash::set_current_callback(Some(callback));
    let result = act();
    crash::set_current_callback(outer);
    result
}

/// Runs a callback of a module in its turn, if it has one: see [`turn`]. A report of a crash names the module, and what the
/// callback is called for.
pub(super) fn in_turn<T>(module: &'static Module, what: &'static str, callback: impl FnOnce() -> T) -> T {
    let noted = || noted(Callback { module: module.name(), what }, callback);
    if module.is_shard_safe() { noted() } else { turn::take(noted) }
}

/// The same of a callback that might come after the module was unloaded: `None`, then, and it is not called. (Those of data types
/// cannot: a module with one is not unloaded.)
pub(super) fn in_turn_while_loaded<T>(
    module: &'static Module,
    what: &'static str,
    callback: impl FnOnce() -> T,
) -> Option<T> {
    // The turn first: the module may be unloaded while this waits for it.
    in_turn(module, what, || module.while_loaded(callback))
}

/// Whether a callback runs on this thread.
pub(super) fn is_in_callback() -> bool {
    CURRENT.get().is_some()
}

/// Does something that may suspend the program in which the callback runs: callbacks of others may run meanwhile.
pub(super) fn while_suspended<T>(act: impl FnOnce() -> T) -> T {
    let (current, callback) = (CURRENT.take(), crash::set_current_callback(None));
    let result = turn::pause(|| threads::set_aside(act));
    CURRENT.set(current);
    crash::set_current_callback(callback);
    result
}

/// The context of the callback that runs on this thread, for functions of the ABI that get none.
pub(super) fn with_current<T>(act: impl FnOnce(&mut Context<'static>) -> T) -> Option<T> {
    // SAFETY: it is there while the callback runs, which has called this.
    CURRENT.get().map(|mut ctx| act(unsafe { ctx.as_mut() }))
}

/// Removes something that was probably added last.
fn forget<T>(list: &mut Vec<*mut T>, item: *mut T) {
    if let Some(at) = list.iter().rposition(|&other| std::ptr::eq(other, item)) {
        list.swap_remove(at);
    }
}
