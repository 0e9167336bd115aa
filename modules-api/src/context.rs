//! The context of a call: what a command may do besides looking at its arguments.

use crate::abi::{
    REDISMODULE_CTX_FLAGS_DENY_BLOCKING, REDISMODULE_CTX_FLAGS_LUA, REDISMODULE_CTX_FLAGS_MULTI,
    REDISMODULE_CTX_FLAGS_REPLICATED, REDISMODULE_CTX_FLAGS_RESP3, REDISMODULE_NOTIFY_ALL,
    REDISMODULE_NOTIFY_EVICTED, REDISMODULE_NOTIFY_EXPIRED, REDISMODULE_NOTIFY_GENERIC,
    REDISMODULE_NOTIFY_HASH, REDISMODULE_NOTIFY_KEY_MISS, REDISMODULE_NOTIFY_LIST, REDISMODULE_NOTIFY_LOADED,
    REDISMODULE_NOTIFY_MODULE, REDISMODULE_NOTIFY_NEW, REDISMODULE_NOTIFY_SET, REDISMODULE_NOTIFY_STREAM,
    REDISMODULE_NOTIFY_STRING, REDISMODULE_NOTIFY_ZSET, REDISMODULE_READ, REDISMODULE_WRITE, RedisModuleCtx,
};
use crate::api::{api, api_if_there};
use crate::command::{Row, may_open};
use crate::error::Error;
use crate::key::{Key, WriteKey};
use crate::reply::Reply;
use crate::string::{Args, ModuleStr};
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::ops::BitOr;
use std::ptr::NonNull;

/// What a callback may do with the server, for as long as the callback runs.
///
/// Keys are opened through it, and hold on to it: any number of keys may be open for reading, or one for writing and no
/// other. So bytes that were read in place are never changed below their reader.
pub struct Context<'c> {
    ctx: NonNull<RedisModuleCtx>,
    /// The command's row and arguments; none in other callbacks.
    command: Option<(&'static Row, Args<'c>)>,
    /// It is that of a thread of the module, which holds the server's lock.
    is_of_thread: bool,
    _call: PhantomData<&'c RedisModuleCtx>,
}

/// A class of keyspace notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum NotifyClass {
    Generic = REDISMODULE_NOTIFY_GENERIC,
    String = REDISMODULE_NOTIFY_STRING,
    List = REDISMODULE_NOTIFY_LIST,
    Set = REDISMODULE_NOTIFY_SET,
    Hash = REDISMODULE_NOTIFY_HASH,
    Zset = REDISMODULE_NOTIFY_ZSET,
    Expired = REDISMODULE_NOTIFY_EXPIRED,
    Evicted = REDISMODULE_NOTIFY_EVICTED,
    Stream = REDISMODULE_NOTIFY_STREAM,
    /// A key was looked for that is not there. It is in no set of classes unless it is named.
    KeyMiss = REDISMODULE_NOTIFY_KEY_MISS,
    /// A key was loaded from a file. Only modules are told.
    Loaded = REDISMODULE_NOTIFY_LOADED,
    Module = REDISMODULE_NOTIFY_MODULE,
    /// A key that was not there was made. It is in no set of classes unless it is named.
    New = REDISMODULE_NOTIFY_NEW,
}

impl NotifyClass {
    /// The first class among these bits.
    pub(crate) fn of_bits(bits: c_int) -> Option<NotifyClass> {
        const ALL: [NotifyClass; 13] = [
            NotifyClass::Generic,
            NotifyClass::String,
            NotifyClass::List,
            NotifyClass::Set,
            NotifyClass::Hash,
            NotifyClass::Zset,
            NotifyClass::Expired,
            NotifyClass::Evicted,
            NotifyClass::Stream,
            NotifyClass::KeyMiss,
            NotifyClass::Loaded,
            NotifyClass::Module,
            NotifyClass::New,
        ];
        ALL.into_iter().find(|class| bits & *class as c_int != 0)
    }
}

/// Classes of keyspace notifications: `NotifyClass::String | NotifyClass::Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyClasses(c_int);

impl NotifyClasses {
    /// All that clients can be notified of, but for misses and new keys.
    pub const ALL: NotifyClasses = NotifyClasses(REDISMODULE_NOTIFY_ALL);

    pub(crate) fn bits(self) -> c_int {
        self.0
    }
}

impl From<NotifyClass> for NotifyClasses {
    fn from(class: NotifyClass) -> NotifyClasses {
        NotifyClasses(class as c_int)
    }
}

impl<C: Into<NotifyClasses>> BitOr<C> for NotifyClasses {
    type Output = NotifyClasses;

    fn bitor(self, other: C) -> NotifyClasses {
        NotifyClasses(self.0 | other.into().0)
    }
}

impl<C: Into<NotifyClasses>> BitOr<C> for NotifyClass {
    type Output = NotifyClasses;

    fn bitor(self, other: C) -> NotifyClasses {
        NotifyClasses::from(self) | other
    }
}

/// Levels of the server's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

impl LogLevel {
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            LogLevel::Debug => c"debug",
            LogLevel::Verbose => c"verbose",
            LogLevel::Notice => c"notice",
            LogLevel::Warning => c"warning",
        }
    }
}

impl<'c> Context<'c> {
    /// # Safety
    /// The context lives and is this thread's to use during `'c`.
    pub(crate) unsafe fn of_callback(ctx: NonNull<RedisModuleCtx>) -> Context<'c> {
        Context { ctx, command: None, is_of_thread: false, _call: PhantomData }
    }

    /// # Safety
    /// The context was made for a thread, which holds the server's lock during `'c`.
    pub(crate) unsafe fn of_thread(ctx: NonNull<RedisModuleCtx>) -> Context<'c> {
        Context { ctx, command: None, is_of_thread: true, _call: PhantomData }
    }

    pub(crate) fn is_of_thread(&self) -> bool {
        self.is_of_thread
    }

    /// # Safety
    /// As for `of_callback`; the arguments are those of the command.
    pub(crate) unsafe fn of_command(
        ctx: NonNull<RedisModuleCtx>,
        row: &'static Row,
        args: Args<'c>,
    ) -> Context<'c> {
        Context { ctx, command: Some((row, args)), is_of_thread: false, _call: PhantomData }
    }

    /// The pointer that the ABI knows it by.
    pub fn as_ptr(&self) -> *mut RedisModuleCtx {
        self.ctx.as_ptr()
    }

    /// What writes the reply.
    #[inline]
    pub fn reply(&self) -> Reply<'c> {
        Reply::new(self.ctx)
    }

    /// Opens a key for reading. There may be nothing in it.
    /// Errors: the command does not declare this key.
    #[inline]
    pub fn open<'k>(&'k self, key: &ModuleStr<'_>) -> Result<Key<'k>, Error> {
        self.check_declared(key)?;
        // SAFETY: the context is that of the callback under way, and the name lives. `'k` borrows the context, so that the
        // key is closed before anything is opened for writing.
        unsafe { Ok(Key::from_raw(api!(OpenKey)(self.as_ptr(), key.as_ptr(), REDISMODULE_READ))) }
    }

    /// Opens a key for reading and writing. There may be nothing in it.
    /// Errors: the command does not declare this key.
    #[inline]
    pub fn open_for_writing<'k>(&'k mut self, key: &ModuleStr<'k>) -> Result<WriteKey<'k>, Error> {
        self.check_declared(key)?;
        let mode = REDISMODULE_READ | REDISMODULE_WRITE;
        // SAFETY: as for `open`. `'k` borrows the context mutably, so that no other key is open.
        unsafe { Ok(WriteKey::from_raw(self.ctx, *key, api!(OpenKey)(self.as_ptr(), key.as_ptr(), mode))) }
    }

    /// Opens a key for writing and others for reading, all at once, so that bytes may go from these to that one without a
    /// copy in between.
    /// Errors: the key is among the others, whose bytes would change below their reader; the command does not declare one of
    /// these keys.
    pub fn open_for_writing_beside<'k>(
        &'k mut self,
        key: &ModuleStr<'k>,
        others: &[ModuleStr<'_>],
    ) -> Result<(WriteKey<'k>, Vec<Key<'k>>), Error> {
        if others.contains(key) {
            return Err(Error::from_text(c"ERR a key is opened for reading and for writing"));
        }
        for name in others.iter().chain([key]) {
            self.check_declared(name)?;
        }
        let open = |name: &ModuleStr<'_>| {
            // SAFETY: as for `open`. What is opened for writing below is another key: a server keeps the bytes of a key
            // where they are until that key is written or closed.
            unsafe { Key::from_raw(api!(OpenKey)(self.as_ptr(), name.as_ptr(), REDISMODULE_READ)) }
        };
        let others = others.iter().map(open).collect();
        let mode = REDISMODULE_READ | REDISMODULE_WRITE;
        // SAFETY: as for `open_for_writing`, and the others have other names.
        let key =
            unsafe { WriteKey::from_raw(self.ctx, *key, api!(OpenKey)(self.as_ptr(), key.as_ptr(), mode)) };
        Ok((key, others))
    }

    #[inline]
    fn check_declared(&self, key: &ModuleStr<'_>) -> Result<(), Error> {
        match self.command {
            Some((row, args)) if !may_open(row, args, key) && !row.is_wide => Err(undeclared(row)),
            _ => Ok(()),
        }
    }

    /// Errors: the command keeps to its keys, and so cannot do this. `how`: what is missing in its row.
    pub(crate) fn check_wide(&self, how: &str) -> Result<(), Error> {
        // SAFETY: the context is that of the callback under way.
        if api_if_there!(IsWide).is_none_or(|is_wide| unsafe { is_wide(self.as_ptr()) } != 0) {
            return Ok(());
        }
        let name = self.command.map_or("", |(row, _)| row.name);
        Err(Error::new(format!(
            "ERR the command '{name}' needs more than its keys, and is not declared {how}"
        )))
    }

    /// Has the command, as it was called, propagated to replicas and to the append-only file: it changed something.
    #[inline]
    pub fn replicate_verbatim(&self) {
        // SAFETY: the context is that of the callback under way.
        unsafe { api!(ReplicateVerbatim)(self.as_ptr()) };
    }

    /// Whether anything records now what is propagated. If not, [`replicate_verbatim`](Self::replicate_verbatim) says all that
    /// there is to say, and a command need not make the arguments of another one. Servers that do not tell record everything.
    #[inline]
    pub fn records_effects(&self) -> bool {
        // SAFETY: the context is that of the callback under way.
        api_if_there!(RecordsEffects).is_none_or(|records| unsafe { records(self.as_ptr()) } != 0)
    }

    /// Has another command propagated instead.
    pub fn replicate(&self, name: &CStr, arguments: &[ModuleStr<'_>]) {
        // SAFETY: "v" takes an array of strings and its length.
        unsafe {
            api!(Replicate)(self.as_ptr(), name.as_ptr(), c"v".as_ptr(), arguments.as_ptr(), arguments.len())
        };
    }

    /// Tells those who watch the keyspace what happened to a key. Modules among them may change keys at once, so no key is
    /// open meanwhile.
    #[inline]
    pub fn notify(&mut self, class: NotifyClass, event: &CStr, key: &ModuleStr<'_>) {
        // SAFETY: the context is that of the callback under way, the name of the event and the key live.
        unsafe { api!(NotifyKeyspaceEvent)(self.as_ptr(), class as c_int, event.as_ptr(), key.as_ptr()) };
    }

    /// Writes a line to the server's log.
    pub fn log(&self, level: LogLevel, text: &str) {
        log(self.as_ptr(), level, text);
    }

    /// The number of the database that the client has selected.
    pub fn selected_db(&self) -> i32 {
        // SAFETY: the context is that of the callback under way.
        unsafe { api!(GetSelectedDb)(self.as_ptr()) }
    }

    /// The id of the client, or 0 if there is none.
    pub fn client_id(&self) -> u64 {
        // SAFETY: the context is that of the callback under way.
        unsafe { api!(GetClientId)(self.as_ptr()) }
    }

    /// What is so about this call, `REDISMODULE_CTX_FLAGS_*`.
    pub fn flags(&self) -> c_int {
        // SAFETY: the context is that of the callback under way.
        unsafe { api!(GetContextFlags)(self.as_ptr()) }
    }

    /// Whether the client speaks RESP3.
    pub fn is_resp3(&self) -> bool {
        self.flags() & REDISMODULE_CTX_FLAGS_RESP3 != 0
    }

    /// Whether the command stands in a script, a transaction or another command, and so cannot wait.
    pub fn may_not_block(&self) -> bool {
        let inside =
            REDISMODULE_CTX_FLAGS_DENY_BLOCKING | REDISMODULE_CTX_FLAGS_LUA | REDISMODULE_CTX_FLAGS_MULTI;
        self.flags() & inside != 0
    }

    /// Whether the command came from a master or from the append-only file.
    pub fn is_replicated(&self) -> bool {
        self.flags() & REDISMODULE_CTX_FLAGS_REPLICATED != 0
    }
}

/// Writes a line to the server's log; the context may be NULL.
pub(crate) fn log(ctx: *mut RedisModuleCtx, level: LogLevel, text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: "%s" takes a string of C.
    unsafe { api!(Log)(ctx, level.name().as_ptr(), c"%s".as_ptr(), text.as_ptr()) };
}

#[cold]
fn undeclared(row: &Row) -> Error {
    Error::new(format!("ERR the command '{}' opens a key that it does not declare", row.name))
}
