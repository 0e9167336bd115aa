//! Opaque types, callbacks, and structures that cross the boundary, as `redismodule.h` lays them out.

use std::ffi::{c_char, c_int, c_longlong, c_uchar, c_void};
use std::marker::{PhantomData, PhantomPinned};

/// Milliseconds.
#[allow(non_camel_case_types, reason = "the name in the C header")]
pub type mstime_t = c_longlong;

/// Microseconds.
#[allow(non_camel_case_types, reason = "the name in the C header")]
pub type ustime_t = c_longlong;

/// The handle of a timer.
pub type RedisModuleTimerID = u64;

/// One of the `REDISMODULE_ACL_LOG_*` codes.
pub type RedisModuleACLLogEntryReason = c_int;

/// Types that a module only ever has pointers to. Which thread may use them is the server's contract, so they are neither
/// `Send` nor `Sync`.
macro_rules! opaque {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {$(
        $(#[doc = $doc])*
        #[repr(C)]
        pub struct $name {
            _data: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque! {
    /// The context of a call. Its first field is the pointer to `GetApi`; the rest is the server's.
    RedisModuleCtx;
    /// A command of a module.
    RedisModuleCommand;
    /// An open key.
    RedisModuleKey;
    /// A string that the server owns and counts references of.
    RedisModuleString;
    /// The reply of a called command, or a part of it.
    RedisModuleCallReply;
    /// What a value is saved to or loaded from.
    RedisModuleIO;
    /// A data type of a module.
    RedisModuleType;
    /// The digest of a key under way.
    RedisModuleDigest;
    /// A client that waits for its reply.
    RedisModuleBlockedClient;
    /// A dictionary in order of its keys.
    RedisModuleDict;
    /// A position in a dictionary.
    RedisModuleDictIter;
    /// A command as a filter sees it.
    RedisModuleCommandFilterCtx;
    /// A filter of commands.
    RedisModuleCommandFilter;
    /// What INFO's fields are added to.
    RedisModuleInfoCtx;
    /// The server's own INFO, taken apart.
    RedisModuleServerInfoData;
    /// The position of a scan.
    RedisModuleScanCursor;
    /// The defragmentation of a value under way.
    RedisModuleDefragCtx;
    /// A user, with permissions.
    RedisModuleUser;
    /// The key or keys that a callback of a data type is about.
    RedisModuleKeyOptCtx;
    /// A file to save to or load from (since 7.2).
    RedisModuleRdbStream;
}

/// Types of callbacks. All of them may be NULL, hence `None`.
macro_rules! callbacks {
    ($($name:ident = fn($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {$(
        pub type $name = Option<unsafe extern "C" fn($($arg: $type),*) $(-> $ret)?>;
    )*};
}

callbacks! {
    RedisModuleCmdFunc = fn(ctx: *mut RedisModuleCtx, argv: *mut *mut RedisModuleString, argc: c_int) -> c_int;
    RedisModuleDisconnectFunc = fn(ctx: *mut RedisModuleCtx, bc: *mut RedisModuleBlockedClient);
    RedisModuleNotificationFunc = fn(
        ctx: *mut RedisModuleCtx, kind: c_int, event: *const c_char, key: *mut RedisModuleString
    ) -> c_int;
    RedisModulePostNotificationJobFunc = fn(ctx: *mut RedisModuleCtx, pd: *mut c_void);
    RedisModuleTypeLoadFunc = fn(rdb: *mut RedisModuleIO, encver: c_int) -> *mut c_void;
    RedisModuleTypeSaveFunc = fn(rdb: *mut RedisModuleIO, value: *mut c_void);
    RedisModuleTypeAuxLoadFunc = fn(rdb: *mut RedisModuleIO, encver: c_int, when: c_int) -> c_int;
    RedisModuleTypeAuxSaveFunc = fn(rdb: *mut RedisModuleIO, when: c_int);
    RedisModuleTypeRewriteFunc = fn(aof: *mut RedisModuleIO, key: *mut RedisModuleString, value: *mut c_void);
    RedisModuleTypeMemUsageFunc = fn(value: *const c_void) -> usize;
    RedisModuleTypeMemUsageFunc2 = fn(
        ctx: *mut RedisModuleKeyOptCtx, value: *const c_void, sample_size: usize
    ) -> usize;
    RedisModuleTypeDigestFunc = fn(digest: *mut RedisModuleDigest, value: *mut c_void);
    RedisModuleTypeFreeFunc = fn(value: *mut c_void);
    RedisModuleTypeFreeEffortFunc = fn(key: *mut RedisModuleString, value: *const c_void) -> usize;
    RedisModuleTypeFreeEffortFunc2 = fn(ctx: *mut RedisModuleKeyOptCtx, value: *const c_void) -> usize;
    RedisModuleTypeUnlinkFunc = fn(key: *mut RedisModuleString, value: *const c_void);
    RedisModuleTypeUnlinkFunc2 = fn(ctx: *mut RedisModuleKeyOptCtx, value: *const c_void);
    RedisModuleTypeCopyFunc = fn(
        fromkey: *mut RedisModuleString, tokey: *mut RedisModuleString, value: *const c_void
    ) -> *mut c_void;
    RedisModuleTypeCopyFunc2 = fn(ctx: *mut RedisModuleKeyOptCtx, value: *const c_void) -> *mut c_void;
    RedisModuleTypeDefragFunc = fn(
        ctx: *mut RedisModuleDefragCtx, key: *mut RedisModuleString, value: *mut *mut c_void
    ) -> c_int;
    RedisModuleClusterMessageReceiver = fn(
        ctx: *mut RedisModuleCtx, sender_id: *const c_char, kind: u8, payload: *const c_uchar, len: u32
    );
    RedisModuleTimerProc = fn(ctx: *mut RedisModuleCtx, data: *mut c_void);
    RedisModuleCommandFilterFunc = fn(filter: *mut RedisModuleCommandFilterCtx);
    RedisModuleForkDoneHandler = fn(exitcode: c_int, bysignal: c_int, user_data: *mut c_void);
    RedisModuleInfoFunc = fn(ctx: *mut RedisModuleInfoCtx, for_crash_report: c_int);
    RedisModuleScanCB = fn(
        ctx: *mut RedisModuleCtx, keyname: *mut RedisModuleString, key: *mut RedisModuleKey, privdata: *mut c_void
    );
    RedisModuleScanKeyCB = fn(
        key: *mut RedisModuleKey, field: *mut RedisModuleString, value: *mut RedisModuleString, privdata: *mut c_void
    );
    ShardisZsetVisitor = fn(data: *mut c_void, element: *const c_char, len: usize, score: f64) -> c_int;
    RedisModuleUserChangedFunc = fn(client_id: u64, privdata: *mut c_void);
    RedisModuleDefragFunc = fn(ctx: *mut RedisModuleDefragCtx) -> c_int;
    RedisModuleConfigGetStringFunc = fn(name: *const c_char, privdata: *mut c_void) -> *mut RedisModuleString;
    RedisModuleConfigGetNumericFunc = fn(name: *const c_char, privdata: *mut c_void) -> c_longlong;
    RedisModuleConfigGetBoolFunc = fn(name: *const c_char, privdata: *mut c_void) -> c_int;
    RedisModuleConfigGetEnumFunc = fn(name: *const c_char, privdata: *mut c_void) -> c_int;
    RedisModuleConfigSetStringFunc = fn(
        name: *const c_char, val: *mut RedisModuleString, privdata: *mut c_void, err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleConfigSetNumericFunc = fn(
        name: *const c_char, val: c_longlong, privdata: *mut c_void, err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleConfigSetBoolFunc = fn(
        name: *const c_char, val: c_int, privdata: *mut c_void, err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleConfigSetEnumFunc = fn(
        name: *const c_char, val: c_int, privdata: *mut c_void, err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleConfigApplyFunc = fn(
        ctx: *mut RedisModuleCtx, privdata: *mut c_void, err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleOnUnblocked = fn(
        ctx: *mut RedisModuleCtx, reply: *mut RedisModuleCallReply, private_data: *mut c_void
    );
    RedisModuleAuthCallback = fn(
        ctx: *mut RedisModuleCtx, username: *mut RedisModuleString, password: *mut RedisModuleString,
        err: *mut *mut RedisModuleString
    ) -> c_int;
    RedisModuleEventLoopFunc = fn(fd: c_int, user_data: *mut c_void, mask: c_int);
    RedisModuleEventLoopOneShotFunc = fn(user_data: *mut c_void);
    RedisModuleEventCallback = fn(
        ctx: *mut RedisModuleCtx, eid: RedisModuleEvent, subevent: u64, data: *mut c_void
    );
    RedisModuleFreePrivDataFunc = fn(ctx: *mut RedisModuleCtx, privdata: *mut c_void);
    RedisModuleFreeDataFunc = fn(pd: *mut c_void);
}

/// What a module's library exports as `RedisModule_OnLoad`: `REDISMODULE_OK` or `REDISMODULE_ERR`.
pub type RedisModuleOnLoadFunc =
    unsafe extern "C" fn(ctx: *mut RedisModuleCtx, argv: *mut *mut RedisModuleString, argc: c_int) -> c_int;

/// What a module's library may export as `RedisModule_OnUnload`: `REDISMODULE_ERR` refuses.
pub type RedisModuleOnUnloadFunc = unsafe extern "C" fn(ctx: *mut RedisModuleCtx) -> c_int;

/// The callbacks of a data type. A module may have been compiled with a header that knows fewer: what stands behind
/// `aux_save` is there only if `version` is 2 or more, and so on.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleTypeMethods {
    pub version: u64,
    pub rdb_load: RedisModuleTypeLoadFunc,
    pub rdb_save: RedisModuleTypeSaveFunc,
    pub aof_rewrite: RedisModuleTypeRewriteFunc,
    pub mem_usage: RedisModuleTypeMemUsageFunc,
    pub digest: RedisModuleTypeDigestFunc,
    pub free: RedisModuleTypeFreeFunc,
    // Version 2.
    pub aux_load: RedisModuleTypeAuxLoadFunc,
    pub aux_save: RedisModuleTypeAuxSaveFunc,
    pub aux_save_triggers: c_int,
    // Version 3.
    pub free_effort: RedisModuleTypeFreeEffortFunc,
    pub unlink: RedisModuleTypeUnlinkFunc,
    pub copy: RedisModuleTypeCopyFunc,
    pub defrag: RedisModuleTypeDefragFunc,
    // Version 4.
    pub mem_usage2: RedisModuleTypeMemUsageFunc2,
    pub free_effort2: RedisModuleTypeFreeEffortFunc2,
    pub unlink2: RedisModuleTypeUnlinkFunc2,
    pub copy2: RedisModuleTypeCopyFunc2,
    // Version 5 (7.2): as `aux_save`, but what wrote nothing leaves nothing.
    pub aux_save2: RedisModuleTypeAuxSaveFunc,
}

/// The id of an entry of a stream.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedisModuleStreamID {
    pub ms: u64,
    pub seq: u64,
}

/// One argument in the documentation of a command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleCommandArg {
    pub name: *const c_char,
    /// One of `REDISMODULE_ARG_TYPE_*`.
    pub kind: c_int,
    /// For a key, its index in `key_specs`; else -1.
    pub key_spec_index: c_int,
    pub token: *const c_char,
    pub summary: *const c_char,
    pub since: *const c_char,
    /// `REDISMODULE_CMD_ARG_*`.
    pub flags: c_int,
    pub deprecated_since: *const c_char,
    /// Ends with one whose `name` is NULL.
    pub subargs: *mut RedisModuleCommandArg,
}

/// One change in the history of a command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleCommandHistoryEntry {
    pub since: *const c_char,
    pub changes: *const c_char,
}

/// Where a command has keys.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RedisModuleCommandKeySpec {
    pub notes: *const c_char,
    /// `REDISMODULE_CMD_KEY_*`.
    pub flags: u64,
    /// One of `REDISMODULE_KSPEC_BS_*`, which says what of `bs` is valid.
    pub begin_search_type: c_int,
    pub bs: RedisModuleKeySpecBeginSearch,
    /// One of `REDISMODULE_KSPEC_FK_*`, which says what of `fk` is valid.
    pub find_keys_type: c_int,
    pub fk: RedisModuleKeySpecFindKeys,
}

/// Where the search for keys begins.
#[repr(C)]
#[derive(Clone, Copy)]
pub union RedisModuleKeySpecBeginSearch {
    pub index: RedisModuleKeySpecIndex,
    pub keyword: RedisModuleKeySpecKeyword,
}

/// At this argument.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleKeySpecIndex {
    pub pos: c_int,
}

/// Behind this word, looked for from the argument `startfrom` (if negative, from the end backwards).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleKeySpecKeyword {
    pub keyword: *const c_char,
    pub startfrom: c_int,
}

/// Which arguments are keys from there.
#[repr(C)]
#[derive(Clone, Copy)]
pub union RedisModuleKeySpecFindKeys {
    pub range: RedisModuleKeySpecRange,
    pub keynum: RedisModuleKeySpecKeyNum,
}

/// From the beginning to `lastkey` (relative to it; if negative, to the last argument), each `keystep`-th. With `lastkey`
/// -1, `limit` 2 means half of the arguments, 3 a third, and so on; 0 and 1 mean all.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleKeySpecRange {
    pub lastkey: c_int,
    pub keystep: c_int,
    pub limit: c_int,
}

/// As many as the argument `keynumidx` says, from `firstkey` on, each `keystep`-th; all relative to the beginning.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleKeySpecKeyNum {
    pub keynumidx: c_int,
    pub firstkey: c_int,
    pub keystep: c_int,
}

/// Which layout of [`RedisModuleCommandInfo`] a module was compiled with. The sizes are the distances in its arrays: a
/// server must go by them, for later headers have longer elements.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleCommandInfoVersion {
    pub version: c_int,
    pub sizeof_historyentry: usize,
    pub sizeof_keyspec: usize,
    pub sizeof_arg: usize,
}

/// The layout that this crate declares.
pub static REDISMODULE_COMMAND_INFO_VERSION: RedisModuleCommandInfoVersion = RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<RedisModuleCommandArg>(),
};

/// What a module says about a command. Strings and arrays may be NULL; an array ends with an element whose first field is
/// zero (in `key_specs`: whose `begin_search_type` is).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleCommandInfo {
    pub version: *const RedisModuleCommandInfoVersion,
    pub summary: *const c_char,
    pub complexity: *const c_char,
    pub since: *const c_char,
    pub history: *mut RedisModuleCommandHistoryEntry,
    /// Separated by spaces.
    pub tips: *const c_char,
    /// -N means N or more, the command's name included; 0 means that it is not said.
    pub arity: c_int,
    pub key_specs: *mut RedisModuleCommandKeySpec,
    pub args: *mut RedisModuleCommandArg,
}

/// A kind of event of the server.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisModuleEvent {
    /// One of `REDISMODULE_EVENT_*`.
    pub id: u64,
    /// The version of what the callback gets as `data`.
    pub dataver: u64,
}

/// A client, as the event of its connection and `GetClientInfoById` describe it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleClientInfo {
    pub version: u64,
    /// `REDISMODULE_CLIENTINFO_FLAG_*`.
    pub flags: u64,
    pub id: u64,
    /// The address, ended by a zero.
    pub addr: [c_char; 46],
    pub port: u16,
    pub db: u16,
}

/// The data of `REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleReplicationInfo {
    pub version: u64,
    pub master: c_int,
    pub masterhost: *mut c_char,
    pub masterport: c_int,
    pub replid1: *mut c_char,
    pub replid2: *mut c_char,
    pub repl1_offset: u64,
    pub repl2_offset: u64,
}

/// The data of `REDISMODULE_EVENT_FLUSHDB`. `dbnum` is -1 for all.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleFlushInfo {
    pub version: u64,
    pub sync: i32,
    pub dbnum: i32,
}

/// The data of `REDISMODULE_EVENT_MODULE_CHANGE`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleModuleChange {
    pub version: u64,
    pub module_name: *const c_char,
    pub module_version: i32,
}

/// The data of `REDISMODULE_EVENT_CONFIG`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleConfigChange {
    pub version: u64,
    pub num_changes: u32,
    pub config_names: *mut *const c_char,
}

/// The data of `REDISMODULE_EVENT_CRON_LOOP`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleCronLoopInfo {
    pub version: u64,
    pub hz: i32,
}

/// The data of `REDISMODULE_EVENT_LOADING_PROGRESS`. `progress` is out of 1024, or -1 if not known.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleLoadingProgressInfo {
    pub version: u64,
    pub hz: i32,
    pub progress: i32,
}

/// The data of `REDISMODULE_EVENT_SWAPDB`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleSwapDbInfo {
    pub version: u64,
    pub dbnum_first: i32,
    pub dbnum_second: i32,
}

/// The data of `REDISMODULE_EVENT_KEY` (7.2).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct RedisModuleKeyInfo {
    pub version: u64,
    pub key: *mut RedisModuleKey,
}

/// The version that the structures of events have, but for those of `Shutdown` and others without data.
pub const REDISMODULE_EVENT_DATA_VERSION: u64 = 1;

// The layouts on 64-bit machines, as a C compiler gives them for the header.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    // 144 in the header of 7.0, which has no `aux_save2`.
    assert!(
        size_of::<RedisModuleTypeMethods>() == 152 && offset_of!(RedisModuleTypeMethods, free_effort) == 80
    );
    assert!(size_of::<RedisModuleCommandArg>() == 64 && offset_of!(RedisModuleCommandArg, subargs) == 56);
    assert!(size_of::<RedisModuleCommandHistoryEntry>() == 16);
    assert!(size_of::<RedisModuleCommandKeySpec>() == 56);
    assert!(
        offset_of!(RedisModuleCommandKeySpec, bs) == 24 && offset_of!(RedisModuleCommandKeySpec, fk) == 44
    );
    assert!(offset_of!(RedisModuleCommandKeySpec, find_keys_type) == 40);
    assert!(size_of::<RedisModuleCommandInfoVersion>() == 32);
    assert!(size_of::<RedisModuleCommandInfo>() == 72 && offset_of!(RedisModuleCommandInfo, args) == 64);
    assert!(size_of::<RedisModuleEvent>() == 16 && size_of::<RedisModuleStreamID>() == 16);
    assert!(size_of::<RedisModuleClientInfo>() == 80 && offset_of!(RedisModuleClientInfo, port) == 70);
    assert!(size_of::<RedisModuleReplicationInfo>() == 64 && size_of::<RedisModuleFlushInfo>() == 16);
    assert!(size_of::<RedisModuleModuleChange>() == 24 && size_of::<RedisModuleConfigChange>() == 24);
    assert!(size_of::<RedisModuleCronLoopInfo>() == 16 && size_of::<RedisModuleLoadingProgressInfo>() == 16);
    assert!(size_of::<RedisModuleSwapDbInfo>() == 16);
};
