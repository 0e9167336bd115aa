//! The one table of all functions, and what is made of it.

use super::types::*;
use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uchar, c_uint, c_ulong, c_ulonglong, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Since when a function is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    V7_0,
    V7_2,
    /// An extension of Shardis. A module asks for it like for any other, and does without it in a server that lacks it.
    Shardis,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// What a module asks for: "RedisModule_Alloc".
    pub name: &'static CStr,
    pub since: Since,
}

/// A function that a server serves: its name, and a pointer whose signature was checked at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    pub name: &'static CStr,
    pub pointer: *const c_void,
}

// SAFETY: the pointer is that of a function.
unsafe impl Sync for Served {}

/// Lists functions with what serves them. A function of another signature than the table's does not compile.
///
/// ```
/// use shardis_modules_api::abi::{RedisModuleCtx, Served};
/// use shardis_modules_api::served;
/// use std::ffi::c_int;
///
/// extern "C" fn get_selected_db(_ctx: *mut RedisModuleCtx) -> c_int {
///     0
/// }
///
/// static SERVED: &[Served] = served! { GetSelectedDb = get_selected_db };
/// assert_eq!(SERVED[0].name, c"RedisModule_GetSelectedDb");
/// ```
///
/// ```compile_fail
/// # use shardis_modules_api::abi::{RedisModuleCtx, Served};
/// # use shardis_modules_api::served;
/// extern "C" fn get_selected_db(_ctx: *mut RedisModuleCtx) -> u64 {
///     0
/// }
///
/// static SERVED: &[Served] = served! { GetSelectedDb = get_selected_db };
/// ```
#[macro_export]
macro_rules! served {
    ($($name:ident = $function:expr),* $(,)?) => {
        &[$($crate::abi::Served {
            name: $crate::abi::name::$name,
            pointer: {
                let function: $crate::abi::signature::$name = $function;
                function as *const ::std::ffi::c_void
            },
        }),*]
    };
}

/// Where a module keeps the pointer to one function; empty if the server lacks the function.
pub struct Slot<F> {
    pointer: AtomicPtr<c_void>,
    _function: PhantomData<F>,
}

impl<F: Copy> Slot<F> {
    #[allow(clippy::declare_interior_mutable_const, reason = "each use is a slot of its own")]
    const EMPTY: Slot<F> = Slot { pointer: AtomicPtr::new(std::ptr::null_mut()), _function: PhantomData };

    /// The function, if the server has it. Costs a load and a comparison.
    #[inline]
    pub fn get(&self) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "F is a function pointer") };
        let pointer = self.pointer.load(Ordering::Relaxed);
        if pointer.is_null() {
            return None;
        }
        // SAFETY: `F` is the pointer type of the slot's function, and only `Api::ask` fills the slot: with what the server
        // gave for that function's name.
        Some(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&pointer) })
    }
}

/// Makes of the table: a type for each function in [`signature`], its full name in [`name`], the list [`FUNCTIONS`], and
/// [`Api`] with a slot for each.
macro_rules! functions {
    ($(
        $since:ident $prefix:literal {
            $(
                $(#[doc = $doc:literal])*
                fn $name:ident($($parameters:tt)*) $(-> $result:ty)?;
            )*
        }
    )*) => {
        /// The type of each function.
        pub mod signature {
            use super::*;
            $($(
                $(#[doc = $doc])*
                pub type $name = unsafe extern "C" fn($($parameters)*) $(-> $result)?;
            )*)*
        }

        /// What a module asks for to get each function.
        #[allow(non_upper_case_globals, reason = "the names of the functions")]
        pub mod name {
            use std::ffi::CStr;
            $($(
                pub const $name: &CStr =
                    match CStr::from_bytes_with_nul(concat!($prefix, stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("the name ends with the only zero"),
                    };
            )*)*
        }

        /// All functions there are.
        pub static FUNCTIONS: &[Function] =
            &[$($(Function { name: name::$name, since: Since::$since }),*),*];

        /// The functions as a module has them.
        #[allow(non_snake_case, reason = "the names of the functions")]
        pub struct Api {
            $($($(#[doc = $doc])* pub $name: Slot<signature::$name>,)*)*
        }

        impl Api {
            /// Before a server was asked.
            #[allow(clippy::declare_interior_mutable_const, reason = "each use is a set of its own")]
            pub const EMPTY: Api = Api { $($($name: Slot::EMPTY,)*)* };

            /// Asks the server for every function. Those it lacks stay empty.
            ///
            /// # Safety
            /// `get_api` is what stands first in a context that a server gave to the module.
            pub unsafe fn ask(&self, get_api: signature::GetApi) {
                $($(
                    let mut pointer: *mut c_void = std::ptr::null_mut();
                    // SAFETY: the server writes a pointer to where the second argument points, or leaves it.
                    unsafe { get_api(name::$name.as_ptr(), (&raw mut pointer).cast()) };
                    self.$name.pointer.store(pointer, Ordering::Relaxed);
                )*)*
            }
        }
    };
}

functions! {
    V7_0 "RedisModule_" {
        // Memory.
        fn Alloc(bytes: usize) -> *mut c_void;
        fn TryAlloc(bytes: usize) -> *mut c_void;
        fn Realloc(ptr: *mut c_void, bytes: usize) -> *mut c_void;
        fn Free(ptr: *mut c_void);
        fn Calloc(nmemb: usize, size: usize) -> *mut c_void;
        fn Strdup(string: *const c_char) -> *mut c_char;
        fn PoolAlloc(ctx: *mut RedisModuleCtx, bytes: usize) -> *mut c_void;
        fn AutoMemory(ctx: *mut RedisModuleCtx);
        fn MallocSize(ptr: *mut c_void) -> usize;
        fn MallocUsableSize(ptr: *mut c_void) -> usize;
        fn MallocSizeString(string: *mut RedisModuleString) -> usize;
        fn MallocSizeDict(dict: *mut RedisModuleDict) -> usize;
        fn GetUsedMemoryRatio() -> f32;

        // The module itself and its commands.
        fn GetApi(name: *const c_char, pointer: *mut c_void) -> c_int;
        fn SetModuleAttribs(ctx: *mut RedisModuleCtx, name: *const c_char, ver: c_int, apiver: c_int);
        fn IsModuleNameBusy(name: *const c_char) -> c_int;
        fn SetModuleOptions(ctx: *mut RedisModuleCtx, options: c_int);
        fn CreateCommand(
            ctx: *mut RedisModuleCtx, name: *const c_char, cmdfunc: RedisModuleCmdFunc, strflags: *const c_char,
            firstkey: c_int, lastkey: c_int, keystep: c_int,
        ) -> c_int;
        fn GetCommand(ctx: *mut RedisModuleCtx, name: *const c_char) -> *mut RedisModuleCommand;
        fn CreateSubcommand(
            parent: *mut RedisModuleCommand, name: *const c_char, cmdfunc: RedisModuleCmdFunc,
            strflags: *const c_char, firstkey: c_int, lastkey: c_int, keystep: c_int,
        ) -> c_int;
        fn SetCommandInfo(command: *mut RedisModuleCommand, info: *const RedisModuleCommandInfo) -> c_int;
        fn WrongArity(ctx: *mut RedisModuleCtx) -> c_int;
        fn IsKeysPositionRequest(ctx: *mut RedisModuleCtx) -> c_int;
        fn KeyAtPos(ctx: *mut RedisModuleCtx, pos: c_int);
        fn KeyAtPosWithFlags(ctx: *mut RedisModuleCtx, pos: c_int, flags: c_int);
        fn IsChannelsPositionRequest(ctx: *mut RedisModuleCtx) -> c_int;
        fn ChannelAtPosWithFlags(ctx: *mut RedisModuleCtx, pos: c_int, flags: c_int);
        fn GetCommandKeys(
            ctx: *mut RedisModuleCtx, argv: *mut *mut RedisModuleString, argc: c_int, num_keys: *mut c_int,
        ) -> *mut c_int;
        fn GetCommandKeysWithFlags(
            ctx: *mut RedisModuleCtx, argv: *mut *mut RedisModuleString, argc: c_int, num_keys: *mut c_int,
            out_flags: *mut *mut c_int,
        ) -> *mut c_int;
        fn GetCurrentCommandName(ctx: *mut RedisModuleCtx) -> *const c_char;
        fn ExportSharedAPI(ctx: *mut RedisModuleCtx, apiname: *const c_char, func: *mut c_void) -> c_int;
        fn GetSharedAPI(ctx: *mut RedisModuleCtx, apiname: *const c_char) -> *mut c_void;

        // The context of a call.
        fn GetSelectedDb(ctx: *mut RedisModuleCtx) -> c_int;
        fn SelectDb(ctx: *mut RedisModuleCtx, newid: c_int) -> c_int;
        fn GetContextFlags(ctx: *mut RedisModuleCtx) -> c_int;
        fn GetContextFlagsAll() -> c_int;
        fn AvoidReplicaTraffic() -> c_int;
        fn GetServerVersion() -> c_int;
        fn GetTypeMethodVersion() -> c_int;
        fn Yield(ctx: *mut RedisModuleCtx, flags: c_int, busy_reply: *const c_char);
        fn Log(ctx: *mut RedisModuleCtx, level: *const c_char, fmt: *const c_char, ...);
        fn LogIOError(io: *mut RedisModuleIO, levelstr: *const c_char, fmt: *const c_char, ...);
        fn _Assert(estr: *const c_char, file: *const c_char, line: c_int);
        fn LatencyAddSample(event: *const c_char, latency: mstime_t);
        fn Milliseconds() -> c_longlong;
        fn MonotonicMicroseconds() -> u64;
        fn GetRandomBytes(dst: *mut c_uchar, len: usize);
        fn GetRandomHexChars(dst: *mut c_char, len: usize);
        fn RedactClientCommandArgument(ctx: *mut RedisModuleCtx, pos: c_int) -> c_int;

        // Clients.
        fn GetClientId(ctx: *mut RedisModuleCtx) -> c_ulonglong;
        fn GetClientUserNameById(ctx: *mut RedisModuleCtx, id: u64) -> *mut RedisModuleString;
        fn GetClientInfoById(ci: *mut c_void, id: u64) -> c_int;
        fn GetClientNameById(ctx: *mut RedisModuleCtx, id: u64) -> *mut RedisModuleString;
        fn SetClientNameById(id: u64, name: *mut RedisModuleString) -> c_int;
        fn GetClientCertificate(ctx: *mut RedisModuleCtx, id: u64) -> *mut RedisModuleString;
        fn DeauthenticateAndCloseClient(ctx: *mut RedisModuleCtx, client_id: u64) -> c_int;

        // Strings.
        fn CreateString(ctx: *mut RedisModuleCtx, ptr: *const c_char, len: usize) -> *mut RedisModuleString;
        fn CreateStringFromLongLong(ctx: *mut RedisModuleCtx, ll: c_longlong) -> *mut RedisModuleString;
        fn CreateStringFromULongLong(ctx: *mut RedisModuleCtx, ull: c_ulonglong) -> *mut RedisModuleString;
        fn CreateStringFromDouble(ctx: *mut RedisModuleCtx, d: f64) -> *mut RedisModuleString;
        // A `long double` goes by value there, for which Rust has no type: the signature is not that of C.
        fn CreateStringFromLongDouble();
        fn CreateStringFromString(
            ctx: *mut RedisModuleCtx, string: *const RedisModuleString,
        ) -> *mut RedisModuleString;
        fn CreateStringFromStreamID(
            ctx: *mut RedisModuleCtx, id: *const RedisModuleStreamID,
        ) -> *mut RedisModuleString;
        fn CreateStringFromCallReply(reply: *mut RedisModuleCallReply) -> *mut RedisModuleString;
        fn CreateStringPrintf(ctx: *mut RedisModuleCtx, fmt: *const c_char, ...) -> *mut RedisModuleString;
        fn FreeString(ctx: *mut RedisModuleCtx, string: *mut RedisModuleString);
        fn RetainString(ctx: *mut RedisModuleCtx, string: *mut RedisModuleString);
        fn HoldString(ctx: *mut RedisModuleCtx, string: *mut RedisModuleString) -> *mut RedisModuleString;
        fn TrimStringAllocation(string: *mut RedisModuleString);
        fn StringPtrLen(string: *const RedisModuleString, len: *mut usize) -> *const c_char;
        fn StringToLongLong(string: *const RedisModuleString, ll: *mut c_longlong) -> c_int;
        fn StringToULongLong(string: *const RedisModuleString, ull: *mut c_ulonglong) -> c_int;
        fn StringToDouble(string: *const RedisModuleString, d: *mut f64) -> c_int;
        fn StringToLongDouble(string: *const RedisModuleString, d: *mut c_void) -> c_int;
        fn StringToStreamID(string: *const RedisModuleString, id: *mut RedisModuleStreamID) -> c_int;
        fn StringAppendBuffer(
            ctx: *mut RedisModuleCtx, string: *mut RedisModuleString, buf: *const c_char, len: usize,
        ) -> c_int;
        fn StringCompare(a: *mut RedisModuleString, b: *mut RedisModuleString) -> c_int;

        // Replies.
        fn ReplyWithLongLong(ctx: *mut RedisModuleCtx, ll: c_longlong) -> c_int;
        fn ReplyWithError(ctx: *mut RedisModuleCtx, err: *const c_char) -> c_int;
        fn ReplyWithSimpleString(ctx: *mut RedisModuleCtx, msg: *const c_char) -> c_int;
        fn ReplyWithArray(ctx: *mut RedisModuleCtx, len: c_long) -> c_int;
        fn ReplyWithMap(ctx: *mut RedisModuleCtx, len: c_long) -> c_int;
        fn ReplyWithSet(ctx: *mut RedisModuleCtx, len: c_long) -> c_int;
        fn ReplyWithAttribute(ctx: *mut RedisModuleCtx, len: c_long) -> c_int;
        fn ReplyWithNullArray(ctx: *mut RedisModuleCtx) -> c_int;
        fn ReplyWithEmptyArray(ctx: *mut RedisModuleCtx) -> c_int;
        fn ReplySetArrayLength(ctx: *mut RedisModuleCtx, len: c_long);
        fn ReplySetMapLength(ctx: *mut RedisModuleCtx, len: c_long);
        fn ReplySetSetLength(ctx: *mut RedisModuleCtx, len: c_long);
        fn ReplySetAttributeLength(ctx: *mut RedisModuleCtx, len: c_long);
        fn ReplySetPushLength(ctx: *mut RedisModuleCtx, len: c_long);
        fn ReplyWithStringBuffer(ctx: *mut RedisModuleCtx, buf: *const c_char, len: usize) -> c_int;
        fn ReplyWithCString(ctx: *mut RedisModuleCtx, buf: *const c_char) -> c_int;
        fn ReplyWithString(ctx: *mut RedisModuleCtx, string: *mut RedisModuleString) -> c_int;
        fn ReplyWithEmptyString(ctx: *mut RedisModuleCtx) -> c_int;
        fn ReplyWithVerbatimString(ctx: *mut RedisModuleCtx, buf: *const c_char, len: usize) -> c_int;
        fn ReplyWithVerbatimStringType(
            ctx: *mut RedisModuleCtx, buf: *const c_char, len: usize, ext: *const c_char,
        ) -> c_int;
        fn ReplyWithNull(ctx: *mut RedisModuleCtx) -> c_int;
        fn ReplyWithBool(ctx: *mut RedisModuleCtx, b: c_int) -> c_int;
        // A `long double` goes by value there, for which Rust has no type: the signature is not that of C.
        fn ReplyWithLongDouble();
        fn ReplyWithDouble(ctx: *mut RedisModuleCtx, d: f64) -> c_int;
        fn ReplyWithBigNumber(ctx: *mut RedisModuleCtx, bignum: *const c_char, len: usize) -> c_int;
        fn ReplyWithCallReply(ctx: *mut RedisModuleCtx, reply: *mut RedisModuleCallReply) -> c_int;

        // Calls of other commands, and their replies.
        fn Call(
            ctx: *mut RedisModuleCtx, cmdname: *const c_char, fmt: *const c_char, ...
        ) -> *mut RedisModuleCallReply;
        fn FreeCallReply(reply: *mut RedisModuleCallReply);
        fn CallReplyProto(reply: *mut RedisModuleCallReply, len: *mut usize) -> *const c_char;
        fn CallReplyType(reply: *mut RedisModuleCallReply) -> c_int;
        fn CallReplyInteger(reply: *mut RedisModuleCallReply) -> c_longlong;
        fn CallReplyDouble(reply: *mut RedisModuleCallReply) -> f64;
        fn CallReplyBool(reply: *mut RedisModuleCallReply) -> c_int;
        fn CallReplyBigNumber(reply: *mut RedisModuleCallReply, len: *mut usize) -> *const c_char;
        fn CallReplyVerbatim(
            reply: *mut RedisModuleCallReply, len: *mut usize, format: *mut *const c_char,
        ) -> *const c_char;
        fn CallReplyStringPtr(reply: *mut RedisModuleCallReply, len: *mut usize) -> *const c_char;
        fn CallReplyLength(reply: *mut RedisModuleCallReply) -> usize;
        fn CallReplyArrayElement(reply: *mut RedisModuleCallReply, idx: usize) -> *mut RedisModuleCallReply;
        fn CallReplySetElement(reply: *mut RedisModuleCallReply, idx: usize) -> *mut RedisModuleCallReply;
        fn CallReplyMapElement(
            reply: *mut RedisModuleCallReply, idx: usize, key: *mut *mut RedisModuleCallReply,
            val: *mut *mut RedisModuleCallReply,
        ) -> c_int;
        fn CallReplyAttributeElement(
            reply: *mut RedisModuleCallReply, idx: usize, key: *mut *mut RedisModuleCallReply,
            val: *mut *mut RedisModuleCallReply,
        ) -> c_int;
        fn CallReplyAttribute(reply: *mut RedisModuleCallReply) -> *mut RedisModuleCallReply;

        // Replication.
        fn Replicate(ctx: *mut RedisModuleCtx, cmdname: *const c_char, fmt: *const c_char, ...) -> c_int;
        fn ReplicateVerbatim(ctx: *mut RedisModuleCtx) -> c_int;

        // Keys of any type, and the keyspace.
        fn KeyExists(ctx: *mut RedisModuleCtx, keyname: *mut RedisModuleString) -> c_int;
        fn OpenKey(ctx: *mut RedisModuleCtx, keyname: *mut RedisModuleString, mode: c_int) -> *mut RedisModuleKey;
        fn CloseKey(kp: *mut RedisModuleKey);
        fn KeyType(kp: *mut RedisModuleKey) -> c_int;
        fn ValueLength(kp: *mut RedisModuleKey) -> usize;
        fn DeleteKey(key: *mut RedisModuleKey) -> c_int;
        fn UnlinkKey(key: *mut RedisModuleKey) -> c_int;
        fn GetExpire(key: *mut RedisModuleKey) -> mstime_t;
        fn SetExpire(key: *mut RedisModuleKey, expire: mstime_t) -> c_int;
        fn GetAbsExpire(key: *mut RedisModuleKey) -> mstime_t;
        fn SetAbsExpire(key: *mut RedisModuleKey, expire: mstime_t) -> c_int;
        fn SetLRU(key: *mut RedisModuleKey, lru_idle: mstime_t) -> c_int;
        fn GetLRU(key: *mut RedisModuleKey, lru_idle: *mut mstime_t) -> c_int;
        fn SetLFU(key: *mut RedisModuleKey, lfu_freq: c_longlong) -> c_int;
        fn GetLFU(key: *mut RedisModuleKey, lfu_freq: *mut c_longlong) -> c_int;
        fn SignalModifiedKey(ctx: *mut RedisModuleCtx, keyname: *mut RedisModuleString) -> c_int;
        fn GetKeyNameFromModuleKey(key: *mut RedisModuleKey) -> *const RedisModuleString;
        fn GetDbIdFromModuleKey(key: *mut RedisModuleKey) -> c_int;
        fn ResetDataset(restart_aof: c_int, asynchronous: c_int);
        fn DbSize(ctx: *mut RedisModuleCtx) -> c_ulonglong;
        fn RandomKey(ctx: *mut RedisModuleCtx) -> *mut RedisModuleString;

        // Keys that hold strings.
        fn StringSet(key: *mut RedisModuleKey, string: *mut RedisModuleString) -> c_int;
        fn StringDMA(key: *mut RedisModuleKey, len: *mut usize, mode: c_int) -> *mut c_char;
        fn StringTruncate(key: *mut RedisModuleKey, newlen: usize) -> c_int;

        // Keys that hold lists.
        fn ListPush(kp: *mut RedisModuleKey, place: c_int, ele: *mut RedisModuleString) -> c_int;
        fn ListPop(key: *mut RedisModuleKey, place: c_int) -> *mut RedisModuleString;
        fn ListGet(key: *mut RedisModuleKey, index: c_long) -> *mut RedisModuleString;
        fn ListSet(key: *mut RedisModuleKey, index: c_long, value: *mut RedisModuleString) -> c_int;
        fn ListInsert(key: *mut RedisModuleKey, index: c_long, value: *mut RedisModuleString) -> c_int;
        fn ListDelete(key: *mut RedisModuleKey, index: c_long) -> c_int;

        // Keys that hold sorted sets.
        fn ZsetAdd(
            key: *mut RedisModuleKey, score: f64, ele: *mut RedisModuleString, flagsptr: *mut c_int,
        ) -> c_int;
        fn ZsetIncrby(
            key: *mut RedisModuleKey, score: f64, ele: *mut RedisModuleString, flagsptr: *mut c_int,
            newscore: *mut f64,
        ) -> c_int;
        fn ZsetScore(key: *mut RedisModuleKey, ele: *mut RedisModuleString, score: *mut f64) -> c_int;
        fn ZsetRem(key: *mut RedisModuleKey, ele: *mut RedisModuleString, deleted: *mut c_int) -> c_int;
        fn ZsetRangeStop(key: *mut RedisModuleKey);
        fn ZsetFirstInScoreRange(key: *mut RedisModuleKey, min: f64, max: f64, minex: c_int, maxex: c_int) -> c_int;
        fn ZsetLastInScoreRange(key: *mut RedisModuleKey, min: f64, max: f64, minex: c_int, maxex: c_int) -> c_int;
        fn ZsetFirstInLexRange(
            key: *mut RedisModuleKey, min: *mut RedisModuleString, max: *mut RedisModuleString,
        ) -> c_int;
        fn ZsetLastInLexRange(
            key: *mut RedisModuleKey, min: *mut RedisModuleString, max: *mut RedisModuleString,
        ) -> c_int;
        fn ZsetRangeCurrentElement(key: *mut RedisModuleKey, score: *mut f64) -> *mut RedisModuleString;
        fn ZsetRangeNext(key: *mut RedisModuleKey) -> c_int;
        fn ZsetRangePrev(key: *mut RedisModuleKey) -> c_int;
        fn ZsetRangeEndReached(key: *mut RedisModuleKey) -> c_int;

        // Keys that hold hashes.
        fn HashSet(key: *mut RedisModuleKey, flags: c_int, ...) -> c_int;
        fn HashGet(key: *mut RedisModuleKey, flags: c_int, ...) -> c_int;

        // Keys that hold streams.
        fn StreamAdd(
            key: *mut RedisModuleKey, flags: c_int, id: *mut RedisModuleStreamID,
            argv: *mut *mut RedisModuleString, numfields: i64,
        ) -> c_int;
        fn StreamDelete(key: *mut RedisModuleKey, id: *mut RedisModuleStreamID) -> c_int;
        fn StreamIteratorStart(
            key: *mut RedisModuleKey, flags: c_int, startid: *mut RedisModuleStreamID,
            endid: *mut RedisModuleStreamID,
        ) -> c_int;
        fn StreamIteratorStop(key: *mut RedisModuleKey) -> c_int;
        fn StreamIteratorNextID(
            key: *mut RedisModuleKey, id: *mut RedisModuleStreamID, numfields: *mut c_long,
        ) -> c_int;
        fn StreamIteratorNextField(
            key: *mut RedisModuleKey, field_ptr: *mut *mut RedisModuleString,
            value_ptr: *mut *mut RedisModuleString,
        ) -> c_int;
        fn StreamIteratorDelete(key: *mut RedisModuleKey) -> c_int;
        fn StreamTrimByLength(key: *mut RedisModuleKey, flags: c_int, length: c_longlong) -> c_longlong;
        fn StreamTrimByID(key: *mut RedisModuleKey, flags: c_int, id: *mut RedisModuleStreamID) -> c_longlong;

        // Scans.
        fn ScanCursorCreate() -> *mut RedisModuleScanCursor;
        fn ScanCursorRestart(cursor: *mut RedisModuleScanCursor);
        fn ScanCursorDestroy(cursor: *mut RedisModuleScanCursor);
        fn Scan(
            ctx: *mut RedisModuleCtx, cursor: *mut RedisModuleScanCursor, callback: RedisModuleScanCB,
            privdata: *mut c_void,
        ) -> c_int;
        fn ScanKey(
            key: *mut RedisModuleKey, cursor: *mut RedisModuleScanCursor, callback: RedisModuleScanKeyCB,
            privdata: *mut c_void,
        ) -> c_int;

        // Values of a module's own type.
        fn CreateDataType(
            ctx: *mut RedisModuleCtx, name: *const c_char, encver: c_int, typemethods: *mut RedisModuleTypeMethods,
        ) -> *mut RedisModuleType;
        fn ModuleTypeSetValue(key: *mut RedisModuleKey, mt: *mut RedisModuleType, value: *mut c_void) -> c_int;
        fn ModuleTypeReplaceValue(
            key: *mut RedisModuleKey, mt: *mut RedisModuleType, new_value: *mut c_void,
            old_value: *mut *mut c_void,
        ) -> c_int;
        fn ModuleTypeGetType(key: *mut RedisModuleKey) -> *mut RedisModuleType;
        fn ModuleTypeGetValue(key: *mut RedisModuleKey) -> *mut c_void;
        fn GetDbIdFromOptCtx(ctx: *mut RedisModuleKeyOptCtx) -> c_int;
        fn GetToDbIdFromOptCtx(ctx: *mut RedisModuleKeyOptCtx) -> c_int;
        fn GetKeyNameFromOptCtx(ctx: *mut RedisModuleKeyOptCtx) -> *const RedisModuleString;
        fn GetToKeyNameFromOptCtx(ctx: *mut RedisModuleKeyOptCtx) -> *const RedisModuleString;

        // Saving and loading them.
        fn IsIOError(io: *mut RedisModuleIO) -> c_int;
        fn SaveUnsigned(io: *mut RedisModuleIO, value: u64);
        fn LoadUnsigned(io: *mut RedisModuleIO) -> u64;
        fn SaveSigned(io: *mut RedisModuleIO, value: i64);
        fn LoadSigned(io: *mut RedisModuleIO) -> i64;
        fn EmitAOF(io: *mut RedisModuleIO, cmdname: *const c_char, fmt: *const c_char, ...);
        fn SaveString(io: *mut RedisModuleIO, s: *mut RedisModuleString);
        fn SaveStringBuffer(io: *mut RedisModuleIO, string: *const c_char, len: usize);
        fn LoadString(io: *mut RedisModuleIO) -> *mut RedisModuleString;
        fn LoadStringBuffer(io: *mut RedisModuleIO, lenptr: *mut usize) -> *mut c_char;
        fn SaveDouble(io: *mut RedisModuleIO, value: f64);
        fn LoadDouble(io: *mut RedisModuleIO) -> f64;
        fn SaveFloat(io: *mut RedisModuleIO, value: f32);
        fn LoadFloat(io: *mut RedisModuleIO) -> f32;
        // A `long double` goes by value there, for which Rust has no type: the signature is not that of C.
        fn SaveLongDouble();
        fn LoadLongDouble();
        fn LoadDataTypeFromString(string: *const RedisModuleString, mt: *const RedisModuleType) -> *mut c_void;
        fn LoadDataTypeFromStringEncver(
            string: *const RedisModuleString, mt: *const RedisModuleType, encver: c_int,
        ) -> *mut c_void;
        fn SaveDataTypeToString(
            ctx: *mut RedisModuleCtx, data: *mut c_void, mt: *const RedisModuleType,
        ) -> *mut RedisModuleString;
        fn GetContextFromIO(io: *mut RedisModuleIO) -> *mut RedisModuleCtx;
        fn GetKeyNameFromIO(io: *mut RedisModuleIO) -> *const RedisModuleString;
        fn GetDbIdFromIO(io: *mut RedisModuleIO) -> c_int;

        // DEBUG DIGEST of them.
        fn DigestAddStringBuffer(md: *mut RedisModuleDigest, ele: *const c_char, len: usize);
        fn DigestAddLongLong(md: *mut RedisModuleDigest, ele: c_longlong);
        fn DigestEndSequence(md: *mut RedisModuleDigest);
        fn GetDbIdFromDigest(dig: *mut RedisModuleDigest) -> c_int;
        fn GetKeyNameFromDigest(dig: *mut RedisModuleDigest) -> *const RedisModuleString;

        // Defragmentation of them.
        fn RegisterDefragFunc(ctx: *mut RedisModuleCtx, func: RedisModuleDefragFunc) -> c_int;
        fn DefragAlloc(ctx: *mut RedisModuleDefragCtx, ptr: *mut c_void) -> *mut c_void;
        fn DefragRedisModuleString(
            ctx: *mut RedisModuleDefragCtx, string: *mut RedisModuleString,
        ) -> *mut RedisModuleString;
        fn DefragShouldStop(ctx: *mut RedisModuleDefragCtx) -> c_int;
        fn DefragCursorSet(ctx: *mut RedisModuleDefragCtx, cursor: c_ulong) -> c_int;
        fn DefragCursorGet(ctx: *mut RedisModuleDefragCtx, cursor: *mut c_ulong) -> c_int;
        fn GetDbIdFromDefragCtx(ctx: *mut RedisModuleDefragCtx) -> c_int;
        fn GetKeyNameFromDefragCtx(ctx: *mut RedisModuleDefragCtx) -> *const RedisModuleString;

        // Dictionaries in order of their keys.
        fn CreateDict(ctx: *mut RedisModuleCtx) -> *mut RedisModuleDict;
        fn FreeDict(ctx: *mut RedisModuleCtx, d: *mut RedisModuleDict);
        fn DictSize(d: *mut RedisModuleDict) -> u64;
        fn DictSetC(d: *mut RedisModuleDict, key: *mut c_void, keylen: usize, ptr: *mut c_void) -> c_int;
        fn DictReplaceC(d: *mut RedisModuleDict, key: *mut c_void, keylen: usize, ptr: *mut c_void) -> c_int;
        fn DictSet(d: *mut RedisModuleDict, key: *mut RedisModuleString, ptr: *mut c_void) -> c_int;
        fn DictReplace(d: *mut RedisModuleDict, key: *mut RedisModuleString, ptr: *mut c_void) -> c_int;
        fn DictGetC(d: *mut RedisModuleDict, key: *mut c_void, keylen: usize, nokey: *mut c_int) -> *mut c_void;
        fn DictGet(d: *mut RedisModuleDict, key: *mut RedisModuleString, nokey: *mut c_int) -> *mut c_void;
        fn DictDelC(d: *mut RedisModuleDict, key: *mut c_void, keylen: usize, oldval: *mut c_void) -> c_int;
        fn DictDel(d: *mut RedisModuleDict, key: *mut RedisModuleString, oldval: *mut c_void) -> c_int;
        fn DictIteratorStartC(
            d: *mut RedisModuleDict, op: *const c_char, key: *mut c_void, keylen: usize,
        ) -> *mut RedisModuleDictIter;
        fn DictIteratorStart(
            d: *mut RedisModuleDict, op: *const c_char, key: *mut RedisModuleString,
        ) -> *mut RedisModuleDictIter;
        fn DictIteratorStop(di: *mut RedisModuleDictIter);
        fn DictIteratorReseekC(
            di: *mut RedisModuleDictIter, op: *const c_char, key: *mut c_void, keylen: usize,
        ) -> c_int;
        fn DictIteratorReseek(
            di: *mut RedisModuleDictIter, op: *const c_char, key: *mut RedisModuleString,
        ) -> c_int;
        fn DictNextC(di: *mut RedisModuleDictIter, keylen: *mut usize, dataptr: *mut *mut c_void) -> *mut c_void;
        fn DictPrevC(di: *mut RedisModuleDictIter, keylen: *mut usize, dataptr: *mut *mut c_void) -> *mut c_void;
        fn DictNext(
            ctx: *mut RedisModuleCtx, di: *mut RedisModuleDictIter, dataptr: *mut *mut c_void,
        ) -> *mut RedisModuleString;
        fn DictPrev(
            ctx: *mut RedisModuleCtx, di: *mut RedisModuleDictIter, dataptr: *mut *mut c_void,
        ) -> *mut RedisModuleString;
        fn DictCompareC(di: *mut RedisModuleDictIter, op: *const c_char, key: *mut c_void, keylen: usize) -> c_int;
        fn DictCompare(di: *mut RedisModuleDictIter, op: *const c_char, key: *mut RedisModuleString) -> c_int;

        // INFO.
        fn RegisterInfoFunc(ctx: *mut RedisModuleCtx, cb: RedisModuleInfoFunc) -> c_int;
        fn InfoAddSection(ctx: *mut RedisModuleInfoCtx, name: *const c_char) -> c_int;
        fn InfoBeginDictField(ctx: *mut RedisModuleInfoCtx, name: *const c_char) -> c_int;
        fn InfoEndDictField(ctx: *mut RedisModuleInfoCtx) -> c_int;
        fn InfoAddFieldString(
            ctx: *mut RedisModuleInfoCtx, field: *const c_char, value: *mut RedisModuleString,
        ) -> c_int;
        fn InfoAddFieldCString(ctx: *mut RedisModuleInfoCtx, field: *const c_char, value: *const c_char) -> c_int;
        fn InfoAddFieldDouble(ctx: *mut RedisModuleInfoCtx, field: *const c_char, value: f64) -> c_int;
        fn InfoAddFieldLongLong(ctx: *mut RedisModuleInfoCtx, field: *const c_char, value: c_longlong) -> c_int;
        fn InfoAddFieldULongLong(ctx: *mut RedisModuleInfoCtx, field: *const c_char, value: c_ulonglong) -> c_int;
        fn GetServerInfo(ctx: *mut RedisModuleCtx, section: *const c_char) -> *mut RedisModuleServerInfoData;
        fn FreeServerInfo(ctx: *mut RedisModuleCtx, data: *mut RedisModuleServerInfoData);
        fn ServerInfoGetField(
            ctx: *mut RedisModuleCtx, data: *mut RedisModuleServerInfoData, field: *const c_char,
        ) -> *mut RedisModuleString;
        fn ServerInfoGetFieldC(data: *mut RedisModuleServerInfoData, field: *const c_char) -> *const c_char;
        fn ServerInfoGetFieldSigned(
            data: *mut RedisModuleServerInfoData, field: *const c_char, out_err: *mut c_int,
        ) -> c_longlong;
        fn ServerInfoGetFieldUnsigned(
            data: *mut RedisModuleServerInfoData, field: *const c_char, out_err: *mut c_int,
        ) -> c_ulonglong;
        fn ServerInfoGetFieldDouble(
            data: *mut RedisModuleServerInfoData, field: *const c_char, out_err: *mut c_int,
        ) -> f64;

        // Configuration.
        fn RegisterBoolConfig(
            ctx: *mut RedisModuleCtx, name: *const c_char, default_val: c_int, flags: c_uint,
            getfn: RedisModuleConfigGetBoolFunc, setfn: RedisModuleConfigSetBoolFunc,
            applyfn: RedisModuleConfigApplyFunc, privdata: *mut c_void,
        ) -> c_int;
        fn RegisterNumericConfig(
            ctx: *mut RedisModuleCtx, name: *const c_char, default_val: c_longlong, flags: c_uint, min: c_longlong,
            max: c_longlong, getfn: RedisModuleConfigGetNumericFunc, setfn: RedisModuleConfigSetNumericFunc,
            applyfn: RedisModuleConfigApplyFunc, privdata: *mut c_void,
        ) -> c_int;
        fn RegisterStringConfig(
            ctx: *mut RedisModuleCtx, name: *const c_char, default_val: *const c_char, flags: c_uint,
            getfn: RedisModuleConfigGetStringFunc, setfn: RedisModuleConfigSetStringFunc,
            applyfn: RedisModuleConfigApplyFunc, privdata: *mut c_void,
        ) -> c_int;
        fn RegisterEnumConfig(
            ctx: *mut RedisModuleCtx, name: *const c_char, default_val: c_int, flags: c_uint,
            enum_values: *mut *const c_char, int_values: *const c_int, num_enum_vals: c_int,
            getfn: RedisModuleConfigGetEnumFunc, setfn: RedisModuleConfigSetEnumFunc,
            applyfn: RedisModuleConfigApplyFunc, privdata: *mut c_void,
        ) -> c_int;
        fn LoadConfigs(ctx: *mut RedisModuleCtx) -> c_int;

        // Blocked clients.
        fn BlockClient(
            ctx: *mut RedisModuleCtx, reply_callback: RedisModuleCmdFunc, timeout_callback: RedisModuleCmdFunc,
            free_privdata: RedisModuleFreePrivDataFunc, timeout_ms: c_longlong,
        ) -> *mut RedisModuleBlockedClient;
        fn BlockClientOnKeys(
            ctx: *mut RedisModuleCtx, reply_callback: RedisModuleCmdFunc, timeout_callback: RedisModuleCmdFunc,
            free_privdata: RedisModuleFreePrivDataFunc, timeout_ms: c_longlong, keys: *mut *mut RedisModuleString,
            numkeys: c_int, privdata: *mut c_void,
        ) -> *mut RedisModuleBlockedClient;
        fn SignalKeyAsReady(ctx: *mut RedisModuleCtx, key: *mut RedisModuleString);
        fn UnblockClient(bc: *mut RedisModuleBlockedClient, privdata: *mut c_void) -> c_int;
        fn IsBlockedReplyRequest(ctx: *mut RedisModuleCtx) -> c_int;
        fn IsBlockedTimeoutRequest(ctx: *mut RedisModuleCtx) -> c_int;
        fn GetBlockedClientPrivateData(ctx: *mut RedisModuleCtx) -> *mut c_void;
        fn GetBlockedClientReadyKey(ctx: *mut RedisModuleCtx) -> *mut RedisModuleString;
        fn GetBlockedClientHandle(ctx: *mut RedisModuleCtx) -> *mut RedisModuleBlockedClient;
        fn AbortBlock(bc: *mut RedisModuleBlockedClient) -> c_int;
        fn BlockedClientMeasureTimeStart(bc: *mut RedisModuleBlockedClient) -> c_int;
        fn BlockedClientMeasureTimeEnd(bc: *mut RedisModuleBlockedClient) -> c_int;
        fn BlockedClientDisconnected(ctx: *mut RedisModuleCtx) -> c_int;
        fn SetDisconnectCallback(bc: *mut RedisModuleBlockedClient, callback: RedisModuleDisconnectFunc);

        // Threads of a module.
        fn GetThreadSafeContext(bc: *mut RedisModuleBlockedClient) -> *mut RedisModuleCtx;
        fn GetDetachedThreadSafeContext(ctx: *mut RedisModuleCtx) -> *mut RedisModuleCtx;
        fn FreeThreadSafeContext(ctx: *mut RedisModuleCtx);
        fn ThreadSafeContextLock(ctx: *mut RedisModuleCtx);
        fn ThreadSafeContextTryLock(ctx: *mut RedisModuleCtx) -> c_int;
        fn ThreadSafeContextUnlock(ctx: *mut RedisModuleCtx);

        // Timers and the event loop.
        fn CreateTimer(
            ctx: *mut RedisModuleCtx, period: mstime_t, callback: RedisModuleTimerProc, data: *mut c_void,
        ) -> RedisModuleTimerID;
        fn StopTimer(ctx: *mut RedisModuleCtx, id: RedisModuleTimerID, data: *mut *mut c_void) -> c_int;
        fn GetTimerInfo(
            ctx: *mut RedisModuleCtx, id: RedisModuleTimerID, remaining: *mut u64, data: *mut *mut c_void,
        ) -> c_int;
        fn EventLoopAdd(fd: c_int, mask: c_int, func: RedisModuleEventLoopFunc, user_data: *mut c_void) -> c_int;
        fn EventLoopDel(fd: c_int, mask: c_int) -> c_int;
        fn EventLoopAddOneShot(func: RedisModuleEventLoopOneShotFunc, user_data: *mut c_void) -> c_int;

        // Keyspace notifications and events of the server.
        fn SubscribeToKeyspaceEvents(
            ctx: *mut RedisModuleCtx, types: c_int, cb: RedisModuleNotificationFunc,
        ) -> c_int;
        fn NotifyKeyspaceEvent(
            ctx: *mut RedisModuleCtx, kind: c_int, event: *const c_char, key: *mut RedisModuleString,
        ) -> c_int;
        fn GetNotifyKeyspaceEvents() -> c_int;
        fn GetKeyspaceNotificationFlagsAll() -> c_int;
        fn SubscribeToServerEvent(
            ctx: *mut RedisModuleCtx, event: RedisModuleEvent, callback: RedisModuleEventCallback,
        ) -> c_int;
        fn IsSubEventSupported(event: RedisModuleEvent, subevent: u64) -> c_int;

        // Messages of channels.
        fn PublishMessage(
            ctx: *mut RedisModuleCtx, channel: *mut RedisModuleString, message: *mut RedisModuleString,
        ) -> c_int;
        fn PublishMessageShard(
            ctx: *mut RedisModuleCtx, channel: *mut RedisModuleString, message: *mut RedisModuleString,
        ) -> c_int;

        // Command filters.
        fn RegisterCommandFilter(
            ctx: *mut RedisModuleCtx, cb: RedisModuleCommandFilterFunc, flags: c_int,
        ) -> *mut RedisModuleCommandFilter;
        fn UnregisterCommandFilter(ctx: *mut RedisModuleCtx, filter: *mut RedisModuleCommandFilter) -> c_int;
        fn CommandFilterArgsCount(fctx: *mut RedisModuleCommandFilterCtx) -> c_int;
        fn CommandFilterArgGet(fctx: *mut RedisModuleCommandFilterCtx, pos: c_int) -> *mut RedisModuleString;
        fn CommandFilterArgInsert(
            fctx: *mut RedisModuleCommandFilterCtx, pos: c_int, arg: *mut RedisModuleString,
        ) -> c_int;
        fn CommandFilterArgReplace(
            fctx: *mut RedisModuleCommandFilterCtx, pos: c_int, arg: *mut RedisModuleString,
        ) -> c_int;
        fn CommandFilterArgDelete(fctx: *mut RedisModuleCommandFilterCtx, pos: c_int) -> c_int;

        // Processes forked by a module.
        fn Fork(cb: RedisModuleForkDoneHandler, user_data: *mut c_void) -> c_int;
        fn SendChildHeartbeat(progress: f64);
        fn ExitFromChild(retcode: c_int) -> c_int;
        fn KillForkChild(child_pid: c_int) -> c_int;

        // Users and their permissions.
        fn CreateModuleUser(name: *const c_char) -> *mut RedisModuleUser;
        fn FreeModuleUser(user: *mut RedisModuleUser);
        fn SetContextUser(ctx: *mut RedisModuleCtx, user: *const RedisModuleUser);
        fn SetModuleUserACL(user: *mut RedisModuleUser, acl: *const c_char) -> c_int;
        fn SetModuleUserACLString(
            ctx: *mut RedisModuleCtx, user: *mut RedisModuleUser, acl: *const c_char,
            error: *mut *mut RedisModuleString,
        ) -> c_int;
        fn GetModuleUserACLString(user: *mut RedisModuleUser) -> *mut RedisModuleString;
        fn GetCurrentUserName(ctx: *mut RedisModuleCtx) -> *mut RedisModuleString;
        fn GetModuleUserFromUserName(name: *mut RedisModuleString) -> *mut RedisModuleUser;
        fn ACLCheckCommandPermissions(
            user: *mut RedisModuleUser, argv: *mut *mut RedisModuleString, argc: c_int,
        ) -> c_int;
        fn ACLCheckKeyPermissions(user: *mut RedisModuleUser, key: *mut RedisModuleString, flags: c_int) -> c_int;
        fn ACLCheckChannelPermissions(
            user: *mut RedisModuleUser, ch: *mut RedisModuleString, literal: c_int,
        ) -> c_int;
        fn ACLAddLogEntry(
            ctx: *mut RedisModuleCtx, user: *mut RedisModuleUser, object: *mut RedisModuleString,
            reason: RedisModuleACLLogEntryReason,
        );
        fn AuthenticateClientWithACLUser(
            ctx: *mut RedisModuleCtx, name: *const c_char, len: usize, callback: RedisModuleUserChangedFunc,
            privdata: *mut c_void, client_id: *mut u64,
        ) -> c_int;
        fn AuthenticateClientWithUser(
            ctx: *mut RedisModuleCtx, user: *mut RedisModuleUser, callback: RedisModuleUserChangedFunc,
            privdata: *mut c_void, client_id: *mut u64,
        ) -> c_int;

        // The cluster.
        fn RegisterClusterMessageReceiver(
            ctx: *mut RedisModuleCtx, kind: u8, callback: RedisModuleClusterMessageReceiver,
        );
        fn SendClusterMessage(
            ctx: *mut RedisModuleCtx, target_id: *const c_char, kind: u8, msg: *const c_char, len: u32,
        ) -> c_int;
        fn GetClusterNodeInfo(
            ctx: *mut RedisModuleCtx, id: *const c_char, ip: *mut c_char, master_id: *mut c_char, port: *mut c_int,
            flags: *mut c_int,
        ) -> c_int;
        fn GetClusterNodesList(ctx: *mut RedisModuleCtx, numnodes: *mut usize) -> *mut *mut c_char;
        fn FreeClusterNodesList(ids: *mut *mut c_char);
        fn GetMyClusterID() -> *const c_char;
        fn GetClusterSize() -> usize;
        fn SetClusterFlags(ctx: *mut RedisModuleCtx, flags: u64);
    }

    V7_2 "RedisModule_" {
        fn SetCommandACLCategories(command: *mut RedisModuleCommand, ctgrsflags: *const c_char) -> c_int;
        fn ReplyWithErrorFormat(ctx: *mut RedisModuleCtx, fmt: *const c_char, ...) -> c_int;
        fn GetOpenKeyModesAll() -> c_int;
        fn GetModuleOptionsAll() -> c_int;
        fn Microseconds() -> ustime_t;
        fn CachedMicroseconds() -> ustime_t;
        fn CommandFilterGetClientId(fctx: *mut RedisModuleCommandFilterCtx) -> c_ulonglong;
        fn CallReplyPromiseSetUnblockHandler(
            reply: *mut RedisModuleCallReply, on_unblock: RedisModuleOnUnblocked, private_data: *mut c_void,
        );
        fn CallReplyPromiseAbort(reply: *mut RedisModuleCallReply, private_data: *mut *mut c_void) -> c_int;
        fn BlockClientOnKeysWithFlags(
            ctx: *mut RedisModuleCtx, reply_callback: RedisModuleCmdFunc, timeout_callback: RedisModuleCmdFunc,
            free_privdata: RedisModuleFreePrivDataFunc, timeout_ms: c_longlong, keys: *mut *mut RedisModuleString,
            numkeys: c_int, privdata: *mut c_void, flags: c_int,
        ) -> *mut RedisModuleBlockedClient;
        fn BlockClientGetPrivateData(blocked_client: *mut RedisModuleBlockedClient) -> *mut c_void;
        fn BlockClientSetPrivateData(blocked_client: *mut RedisModuleBlockedClient, private_data: *mut c_void);
        fn BlockClientOnAuth(
            ctx: *mut RedisModuleCtx, reply_callback: RedisModuleAuthCallback,
            free_privdata: RedisModuleFreePrivDataFunc,
        ) -> *mut RedisModuleBlockedClient;
        fn RegisterAuthCallback(ctx: *mut RedisModuleCtx, cb: RedisModuleAuthCallback);
        fn AddPostNotificationJob(
            ctx: *mut RedisModuleCtx, callback: RedisModulePostNotificationJobFunc, pd: *mut c_void,
            free_pd: RedisModuleFreeDataFunc,
        ) -> c_int;
        fn RdbStreamCreateFromFile(filename: *const c_char) -> *mut RedisModuleRdbStream;
        fn RdbStreamFree(stream: *mut RedisModuleRdbStream);
        fn RdbLoad(ctx: *mut RedisModuleCtx, stream: *mut RedisModuleRdbStream, flags: c_int) -> c_int;
        fn RdbSave(ctx: *mut RedisModuleCtx, stream: *mut RedisModuleRdbStream, flags: c_int) -> c_int;
        fn ACLAddLogEntryByUserName(
            ctx: *mut RedisModuleCtx, user: *mut RedisModuleString, object: *mut RedisModuleString,
            reason: RedisModuleACLLogEntryReason,
        );
    }

    Shardis "Shardis_" {
        /// Sets the group that COMMAND DOCS shows for a command ("geo"); that of a module's command is else "module".
        /// `REDISMODULE_ERR` if there is no such group.
        fn SetCommandGroup(command: *mut RedisModuleCommand, group: *const c_char) -> c_int;
        /// Has COMMAND DOCS show that a command is deprecated, since which version, and what is to be used instead.
        fn SetCommandDeprecated(
            command: *mut RedisModuleCommand, since: *const c_char, replaced_by: *const c_char,
        ) -> c_int;
        /// Has COMMAND DOCS show that a command is for the server itself and its tests (`syscmd`).
        fn SetCommandInternal(command: *mut RedisModuleCommand) -> c_int;
        /// Declares, while a shard-safe module is loaded, that one of its commands needs more than the keys that it declares: it
        /// calls commands with other keys, scans keys, or looks at clients. Such a command runs as that of another module does,
        /// but without excluding the callbacks of its own module. So does one with the flag `blocking`.
        fn SetCommandWide(command: *mut RedisModuleCommand) -> c_int;
        /// Whether the callback may do what needs more than the keys of its command. If not, `BlockClient` gives NULL, `Scan`
        /// finds nothing, and so on: the error number is ENOTSUP, and the log says so.
        fn IsWide(ctx: *mut RedisModuleCtx) -> c_int;
        /// Declares, while the module is loaded, that its callbacks may run on several threads at once, and that its
        /// commands open no keys and call no commands but with the keys that they declare, but for those that are
        /// declared otherwise (`SetCommandWide`). Commands of such a module run in parallel, each where its keys are; those
        /// of any other module run one at a time.
        fn DeclareShardSafe(ctx: *mut RedisModuleCtx) -> c_int;
        /// Whether anything records now what `Replicate` is given: replicas or a file. If not, `ReplicateVerbatim` does all
        /// that it would do, and costs less.
        fn RecordsEffects(ctx: *mut RedisModuleCtx) -> c_int;
        /// As `ZsetRangeCurrentElement`, without making a string of the element: its bytes, which stay as they are until
        /// the iterator moves or the key is written or closed. NULL if the iterator is not on an element.
        fn ZsetRangeCurrentBuffer(key: *mut RedisModuleKey, len: *mut usize, score: *mut f64) -> *const c_char;
        /// Calls a function with each element whose score is in a range, from the lowest, until it returns 0: the bytes,
        /// which it may look at until it returns, their length, and the score. It must not use the key. Walking over many
        /// elements costs less so than with an iterator. `REDISMODULE_ERR` if the key holds no sorted set.
        fn ZsetVisitScoreRange(
            key: *mut RedisModuleKey, min: f64, max: f64, minex: c_int, maxex: c_int, visitor: ShardisZsetVisitor,
            data: *mut c_void,
        ) -> c_int;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_has_every_function_once() {
        let count = |since| FUNCTIONS.iter().filter(|function| function.since == since).count();
        // The header of 7.0.15 declares 334, `GetApi` among them.
        assert_eq!((count(Since::V7_0), count(Since::V7_2), count(Since::Shardis)), (334, 20, 9));

        let names: HashSet<&CStr> = FUNCTIONS.iter().map(|function| function.name).collect();
        assert_eq!(names.len(), FUNCTIONS.len());
    }

    #[test]
    fn a_module_gets_what_there_is_and_does_without_the_rest() {
        unsafe extern "C" fn get_selected_db(_ctx: *mut RedisModuleCtx) -> c_int {
            7
        }
        unsafe extern "C" fn get_api(name: *const c_char, pointer: *mut c_void) -> c_int {
            static SERVED: &[Served] = served! { GetSelectedDb = get_selected_db };
            // SAFETY: `ask` gives a string and a place for a pointer.
            let (name, place) = unsafe { (CStr::from_ptr(name), &mut *pointer.cast::<*const c_void>()) };
            match SERVED.iter().find(|served| served.name == name) {
                Some(served) => {
                    *place = served.pointer;
                    0
                }
                None => 1,
            }
        }
        let api = Api::EMPTY;

        // SAFETY: `get_api` behaves as a server's.
        unsafe { api.ask(get_api) };

        let get_selected_db = api.GetSelectedDb.get().expect("it is served");
        // SAFETY: the function does not look at its argument.
        assert_eq!(unsafe { get_selected_db(std::ptr::null_mut()) }, 7);
        assert!(api.SelectDb.get().is_none());
    }
}
