//! Flags and codes of `redismodule.h`, with their names there.

use super::mstime_t;
use std::ffi::{CStr, c_int, c_long, c_uint};

// Results of functions.
pub const REDISMODULE_OK: c_int = 0;
pub const REDISMODULE_ERR: c_int = 1;

// The only version of the API there is.
pub const REDISMODULE_APIVER_1: c_int = 1;

// The version of [`RedisModuleTypeMethods`](super::RedisModuleTypeMethods) in 7.0.
pub const REDISMODULE_TYPE_METHOD_VERSION: u64 = 4;

// Modes of `OpenKey`. The last four are of 7.2.
pub const REDISMODULE_READ: c_int = 1 << 0;
pub const REDISMODULE_WRITE: c_int = 1 << 1;
pub const REDISMODULE_OPEN_KEY_NOTOUCH: c_int = 1 << 16;
pub const REDISMODULE_OPEN_KEY_NONOTIFY: c_int = 1 << 17;
pub const REDISMODULE_OPEN_KEY_NOSTATS: c_int = 1 << 18;
pub const REDISMODULE_OPEN_KEY_NOEXPIRE: c_int = 1 << 19;
pub const REDISMODULE_OPEN_KEY_NOEFFECTS: c_int = 1 << 20;

// Ends of a list.
pub const REDISMODULE_LIST_HEAD: c_int = 0;
pub const REDISMODULE_LIST_TAIL: c_int = 1;

// What a key holds.
pub const REDISMODULE_KEYTYPE_EMPTY: c_int = 0;
pub const REDISMODULE_KEYTYPE_STRING: c_int = 1;
pub const REDISMODULE_KEYTYPE_LIST: c_int = 2;
pub const REDISMODULE_KEYTYPE_HASH: c_int = 3;
pub const REDISMODULE_KEYTYPE_SET: c_int = 4;
pub const REDISMODULE_KEYTYPE_ZSET: c_int = 5;
pub const REDISMODULE_KEYTYPE_MODULE: c_int = 6;
pub const REDISMODULE_KEYTYPE_STREAM: c_int = 7;

// Types of the replies of called commands. Promises are of 7.2.
pub const REDISMODULE_REPLY_UNKNOWN: c_int = -1;
pub const REDISMODULE_REPLY_STRING: c_int = 0;
pub const REDISMODULE_REPLY_ERROR: c_int = 1;
pub const REDISMODULE_REPLY_INTEGER: c_int = 2;
pub const REDISMODULE_REPLY_ARRAY: c_int = 3;
pub const REDISMODULE_REPLY_NULL: c_int = 4;
pub const REDISMODULE_REPLY_MAP: c_int = 5;
pub const REDISMODULE_REPLY_SET: c_int = 6;
pub const REDISMODULE_REPLY_BOOL: c_int = 7;
pub const REDISMODULE_REPLY_DOUBLE: c_int = 8;
pub const REDISMODULE_REPLY_BIG_NUMBER: c_int = 9;
pub const REDISMODULE_REPLY_VERBATIM_STRING: c_int = 10;
pub const REDISMODULE_REPLY_ATTRIBUTE: c_int = 11;
pub const REDISMODULE_REPLY_PROMISE: c_int = 12;

// The length of an array or a map whose length is said later.
pub const REDISMODULE_POSTPONED_ARRAY_LEN: c_long = -1;
pub const REDISMODULE_POSTPONED_LEN: c_long = -1;

// What `GetExpire` answers if there is none.
pub const REDISMODULE_NO_EXPIRE: mstime_t = -1;

// Flags of `ZsetAdd` and `ZsetIncrby`, in and out.
pub const REDISMODULE_ZADD_XX: c_int = 1 << 0;
pub const REDISMODULE_ZADD_NX: c_int = 1 << 1;
pub const REDISMODULE_ZADD_ADDED: c_int = 1 << 2;
pub const REDISMODULE_ZADD_UPDATED: c_int = 1 << 3;
pub const REDISMODULE_ZADD_NOP: c_int = 1 << 4;
pub const REDISMODULE_ZADD_GT: c_int = 1 << 5;
pub const REDISMODULE_ZADD_LT: c_int = 1 << 6;

// Flags of `HashSet` and `HashGet`.
pub const REDISMODULE_HASH_NONE: c_int = 0;
pub const REDISMODULE_HASH_NX: c_int = 1 << 0;
pub const REDISMODULE_HASH_XX: c_int = 1 << 1;
pub const REDISMODULE_HASH_CFIELDS: c_int = 1 << 2;
pub const REDISMODULE_HASH_EXISTS: c_int = 1 << 3;
pub const REDISMODULE_HASH_COUNT_ALL: c_int = 1 << 4;

// Flags of configs.
pub const REDISMODULE_CONFIG_DEFAULT: c_uint = 0;
pub const REDISMODULE_CONFIG_IMMUTABLE: c_uint = 1 << 0;
pub const REDISMODULE_CONFIG_SENSITIVE: c_uint = 1 << 1;
pub const REDISMODULE_CONFIG_HIDDEN: c_uint = 1 << 4;
pub const REDISMODULE_CONFIG_PROTECTED: c_uint = 1 << 5;
pub const REDISMODULE_CONFIG_DENY_LOADING: c_uint = 1 << 6;
pub const REDISMODULE_CONFIG_MEMORY: c_uint = 1 << 7;
pub const REDISMODULE_CONFIG_BITFLAGS: c_uint = 1 << 8;

// Flags of streams.
pub const REDISMODULE_STREAM_ADD_AUTOID: c_int = 1 << 0;
pub const REDISMODULE_STREAM_ITERATOR_EXCLUSIVE: c_int = 1 << 0;
pub const REDISMODULE_STREAM_ITERATOR_REVERSE: c_int = 1 << 1;
pub const REDISMODULE_STREAM_TRIM_APPROX: c_int = 1 << 0;

// What `GetContextFlags` answers.
pub const REDISMODULE_CTX_FLAGS_LUA: c_int = 1 << 0;
pub const REDISMODULE_CTX_FLAGS_MULTI: c_int = 1 << 1;
pub const REDISMODULE_CTX_FLAGS_MASTER: c_int = 1 << 2;
pub const REDISMODULE_CTX_FLAGS_SLAVE: c_int = 1 << 3;
pub const REDISMODULE_CTX_FLAGS_READONLY: c_int = 1 << 4;
pub const REDISMODULE_CTX_FLAGS_CLUSTER: c_int = 1 << 5;
pub const REDISMODULE_CTX_FLAGS_AOF: c_int = 1 << 6;
pub const REDISMODULE_CTX_FLAGS_RDB: c_int = 1 << 7;
pub const REDISMODULE_CTX_FLAGS_MAXMEMORY: c_int = 1 << 8;
pub const REDISMODULE_CTX_FLAGS_EVICT: c_int = 1 << 9;
pub const REDISMODULE_CTX_FLAGS_OOM: c_int = 1 << 10;
pub const REDISMODULE_CTX_FLAGS_OOM_WARNING: c_int = 1 << 11;
pub const REDISMODULE_CTX_FLAGS_REPLICATED: c_int = 1 << 12;
pub const REDISMODULE_CTX_FLAGS_LOADING: c_int = 1 << 13;
pub const REDISMODULE_CTX_FLAGS_REPLICA_IS_STALE: c_int = 1 << 14;
pub const REDISMODULE_CTX_FLAGS_REPLICA_IS_CONNECTING: c_int = 1 << 15;
pub const REDISMODULE_CTX_FLAGS_REPLICA_IS_TRANSFERRING: c_int = 1 << 16;
pub const REDISMODULE_CTX_FLAGS_REPLICA_IS_ONLINE: c_int = 1 << 17;
pub const REDISMODULE_CTX_FLAGS_ACTIVE_CHILD: c_int = 1 << 18;
pub const REDISMODULE_CTX_FLAGS_MULTI_DIRTY: c_int = 1 << 19;
pub const REDISMODULE_CTX_FLAGS_IS_CHILD: c_int = 1 << 20;
pub const REDISMODULE_CTX_FLAGS_DENY_BLOCKING: c_int = 1 << 21;
pub const REDISMODULE_CTX_FLAGS_RESP3: c_int = 1 << 22;
pub const REDISMODULE_CTX_FLAGS_ASYNC_LOADING: c_int = 1 << 23;
pub const _REDISMODULE_CTX_FLAGS_NEXT: c_int = 1 << 24;

// Classes of keyspace notifications.
pub const REDISMODULE_NOTIFY_KEYSPACE: c_int = 1 << 0;
pub const REDISMODULE_NOTIFY_KEYEVENT: c_int = 1 << 1;
pub const REDISMODULE_NOTIFY_GENERIC: c_int = 1 << 2;
pub const REDISMODULE_NOTIFY_STRING: c_int = 1 << 3;
pub const REDISMODULE_NOTIFY_LIST: c_int = 1 << 4;
pub const REDISMODULE_NOTIFY_SET: c_int = 1 << 5;
pub const REDISMODULE_NOTIFY_HASH: c_int = 1 << 6;
pub const REDISMODULE_NOTIFY_ZSET: c_int = 1 << 7;
pub const REDISMODULE_NOTIFY_EXPIRED: c_int = 1 << 8;
pub const REDISMODULE_NOTIFY_EVICTED: c_int = 1 << 9;
pub const REDISMODULE_NOTIFY_STREAM: c_int = 1 << 10;
pub const REDISMODULE_NOTIFY_KEY_MISS: c_int = 1 << 11;
pub const REDISMODULE_NOTIFY_LOADED: c_int = 1 << 12;
pub const REDISMODULE_NOTIFY_MODULE: c_int = 1 << 13;
pub const REDISMODULE_NOTIFY_NEW: c_int = 1 << 14;
pub const _REDISMODULE_NOTIFY_NEXT: c_int = 1 << 15;
pub const REDISMODULE_NOTIFY_ALL: c_int = REDISMODULE_NOTIFY_GENERIC
    | REDISMODULE_NOTIFY_STRING
    | REDISMODULE_NOTIFY_LIST
    | REDISMODULE_NOTIFY_SET
    | REDISMODULE_NOTIFY_HASH
    | REDISMODULE_NOTIFY_ZSET
    | REDISMODULE_NOTIFY_EXPIRED
    | REDISMODULE_NOTIFY_EVICTED
    | REDISMODULE_NOTIFY_STREAM
    | REDISMODULE_NOTIFY_MODULE;

// The error of a command on a key of another type.
pub const REDISMODULE_ERRORMSG_WRONGTYPE: &CStr =
    c"WRONGTYPE Operation against a key holding the wrong kind of value";

// Nodes of a cluster.
pub const REDISMODULE_NODE_ID_LEN: usize = 40;
pub const REDISMODULE_NODE_MYSELF: c_int = 1 << 0;
pub const REDISMODULE_NODE_MASTER: c_int = 1 << 1;
pub const REDISMODULE_NODE_SLAVE: c_int = 1 << 2;
pub const REDISMODULE_NODE_PFAIL: c_int = 1 << 3;
pub const REDISMODULE_NODE_FAIL: c_int = 1 << 4;
pub const REDISMODULE_NODE_NOFAILOVER: c_int = 1 << 5;

// Flags of `SetClusterFlags`.
pub const REDISMODULE_CLUSTER_FLAG_NONE: u64 = 0;
pub const REDISMODULE_CLUSTER_FLAG_NO_FAILOVER: u64 = 1 << 1;
pub const REDISMODULE_CLUSTER_FLAG_NO_REDIRECTION: u64 = 1 << 2;

// Levels of `Log`.
pub const REDISMODULE_LOGLEVEL_DEBUG: &CStr = c"debug";
pub const REDISMODULE_LOGLEVEL_VERBOSE: &CStr = c"verbose";
pub const REDISMODULE_LOGLEVEL_NOTICE: &CStr = c"notice";
pub const REDISMODULE_LOGLEVEL_WARNING: &CStr = c"warning";

// When a type saves data that belongs to no key.
pub const REDISMODULE_AUX_BEFORE_RDB: c_int = 1 << 0;
pub const REDISMODULE_AUX_AFTER_RDB: c_int = 1 << 1;

// Flags of `Yield`.
pub const REDISMODULE_YIELD_FLAG_NONE: c_int = 1 << 0;
pub const REDISMODULE_YIELD_FLAG_CLIENTS: c_int = 1 << 1;

// Flags of command filters.
pub const REDISMODULE_CMDFILTER_NOSELF: c_int = 1 << 0;

// Options of a module.
pub const REDISMODULE_OPTIONS_HANDLE_IO_ERRORS: c_int = 1 << 0;
pub const REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED: c_int = 1 << 1;
pub const REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD: c_int = 1 << 2;
/// Since 7.2.
pub const REDISMODULE_OPTIONS_ALLOW_NESTED_KEYSPACE_NOTIFICATIONS: c_int = 1 << 3;

// Flags of arguments, keys and channels of commands.
pub const REDISMODULE_CMD_ARG_NONE: c_int = 0;
pub const REDISMODULE_CMD_ARG_OPTIONAL: c_int = 1 << 0;
pub const REDISMODULE_CMD_ARG_MULTIPLE: c_int = 1 << 1;
pub const REDISMODULE_CMD_ARG_MULTIPLE_TOKEN: c_int = 1 << 2;
pub const REDISMODULE_CMD_KEY_RO: u64 = 1 << 0;
pub const REDISMODULE_CMD_KEY_RW: u64 = 1 << 1;
pub const REDISMODULE_CMD_KEY_OW: u64 = 1 << 2;
pub const REDISMODULE_CMD_KEY_RM: u64 = 1 << 3;
pub const REDISMODULE_CMD_KEY_ACCESS: u64 = 1 << 4;
pub const REDISMODULE_CMD_KEY_UPDATE: u64 = 1 << 5;
pub const REDISMODULE_CMD_KEY_INSERT: u64 = 1 << 6;
pub const REDISMODULE_CMD_KEY_DELETE: u64 = 1 << 7;
pub const REDISMODULE_CMD_KEY_NOT_KEY: u64 = 1 << 8;
pub const REDISMODULE_CMD_KEY_INCOMPLETE: u64 = 1 << 9;
pub const REDISMODULE_CMD_KEY_VARIABLE_FLAGS: u64 = 1 << 10;
pub const REDISMODULE_CMD_CHANNEL_PATTERN: u64 = 1 << 0;
pub const REDISMODULE_CMD_CHANNEL_PUBLISH: u64 = 1 << 1;
pub const REDISMODULE_CMD_CHANNEL_SUBSCRIBE: u64 = 1 << 2;
pub const REDISMODULE_CMD_CHANNEL_UNSUBSCRIBE: u64 = 1 << 3;

// What a file descriptor is watched for.
pub const REDISMODULE_EVENTLOOP_READABLE: c_int = 1;
pub const REDISMODULE_EVENTLOOP_WRITABLE: c_int = 2;

// Events of the server.
pub const REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED: u64 = 0;
pub const REDISMODULE_EVENT_PERSISTENCE: u64 = 1;
pub const REDISMODULE_EVENT_FLUSHDB: u64 = 2;
pub const REDISMODULE_EVENT_LOADING: u64 = 3;
pub const REDISMODULE_EVENT_CLIENT_CHANGE: u64 = 4;
pub const REDISMODULE_EVENT_SHUTDOWN: u64 = 5;
pub const REDISMODULE_EVENT_REPLICA_CHANGE: u64 = 6;
pub const REDISMODULE_EVENT_MASTER_LINK_CHANGE: u64 = 7;
pub const REDISMODULE_EVENT_CRON_LOOP: u64 = 8;
pub const REDISMODULE_EVENT_MODULE_CHANGE: u64 = 9;
pub const REDISMODULE_EVENT_LOADING_PROGRESS: u64 = 10;
pub const REDISMODULE_EVENT_SWAPDB: u64 = 11;
pub const REDISMODULE_EVENT_REPL_BACKUP: u64 = 12;
pub const REDISMODULE_EVENT_FORK_CHILD: u64 = 13;
pub const REDISMODULE_EVENT_REPL_ASYNC_LOAD: u64 = 14;
pub const REDISMODULE_EVENT_EVENTLOOP: u64 = 15;
pub const REDISMODULE_EVENT_CONFIG: u64 = 16;
/// Since 7.2.
pub const REDISMODULE_EVENT_KEY: u64 = 17;

// What happened, for each event.
pub const REDISMODULE_SUBEVENT_PERSISTENCE_RDB_START: u64 = 0;
pub const REDISMODULE_SUBEVENT_PERSISTENCE_AOF_START: u64 = 1;
pub const REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_RDB_START: u64 = 2;
pub const REDISMODULE_SUBEVENT_PERSISTENCE_ENDED: u64 = 3;
pub const REDISMODULE_SUBEVENT_PERSISTENCE_FAILED: u64 = 4;
pub const REDISMODULE_SUBEVENT_PERSISTENCE_SYNC_AOF_START: u64 = 5;
pub const REDISMODULE_SUBEVENT_LOADING_RDB_START: u64 = 0;
pub const REDISMODULE_SUBEVENT_LOADING_AOF_START: u64 = 1;
pub const REDISMODULE_SUBEVENT_LOADING_REPL_START: u64 = 2;
pub const REDISMODULE_SUBEVENT_LOADING_ENDED: u64 = 3;
pub const REDISMODULE_SUBEVENT_LOADING_FAILED: u64 = 4;
pub const REDISMODULE_SUBEVENT_CLIENT_CHANGE_CONNECTED: u64 = 0;
pub const REDISMODULE_SUBEVENT_CLIENT_CHANGE_DISCONNECTED: u64 = 1;
pub const REDISMODULE_SUBEVENT_MASTER_LINK_UP: u64 = 0;
pub const REDISMODULE_SUBEVENT_MASTER_LINK_DOWN: u64 = 1;
pub const REDISMODULE_SUBEVENT_REPLICA_CHANGE_ONLINE: u64 = 0;
pub const REDISMODULE_SUBEVENT_REPLICA_CHANGE_OFFLINE: u64 = 1;
pub const REDISMODULE_EVENT_REPLROLECHANGED_NOW_MASTER: u64 = 0;
pub const REDISMODULE_EVENT_REPLROLECHANGED_NOW_REPLICA: u64 = 1;
pub const REDISMODULE_SUBEVENT_FLUSHDB_START: u64 = 0;
pub const REDISMODULE_SUBEVENT_FLUSHDB_END: u64 = 1;
pub const REDISMODULE_SUBEVENT_MODULE_LOADED: u64 = 0;
pub const REDISMODULE_SUBEVENT_MODULE_UNLOADED: u64 = 1;
pub const REDISMODULE_SUBEVENT_CONFIG_CHANGE: u64 = 0;
pub const REDISMODULE_SUBEVENT_LOADING_PROGRESS_RDB: u64 = 0;
pub const REDISMODULE_SUBEVENT_LOADING_PROGRESS_AOF: u64 = 1;
pub const REDISMODULE_SUBEVENT_REPL_BACKUP_CREATE: u64 = 0;
pub const REDISMODULE_SUBEVENT_REPL_BACKUP_RESTORE: u64 = 1;
pub const REDISMODULE_SUBEVENT_REPL_BACKUP_DISCARD: u64 = 2;
pub const REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_STARTED: u64 = 0;
pub const REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_ABORTED: u64 = 1;
pub const REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_COMPLETED: u64 = 2;
pub const REDISMODULE_SUBEVENT_FORK_CHILD_BORN: u64 = 0;
pub const REDISMODULE_SUBEVENT_FORK_CHILD_DIED: u64 = 1;
pub const REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP: u64 = 0;
pub const REDISMODULE_SUBEVENT_EVENTLOOP_AFTER_SLEEP: u64 = 1;
pub const REDISMODULE_SUBEVENT_KEY_DELETED: u64 = 0;
pub const REDISMODULE_SUBEVENT_KEY_EXPIRED: u64 = 1;
pub const REDISMODULE_SUBEVENT_KEY_EVICTED: u64 = 2;
pub const REDISMODULE_SUBEVENT_KEY_OVERWRITTEN: u64 = 3;

// Flags of [`RedisModuleClientInfo`](super::RedisModuleClientInfo).
pub const REDISMODULE_CLIENTINFO_FLAG_SSL: u64 = 1 << 0;
pub const REDISMODULE_CLIENTINFO_FLAG_PUBSUB: u64 = 1 << 1;
pub const REDISMODULE_CLIENTINFO_FLAG_BLOCKED: u64 = 1 << 2;
pub const REDISMODULE_CLIENTINFO_FLAG_TRACKING: u64 = 1 << 3;
pub const REDISMODULE_CLIENTINFO_FLAG_UNIXSOCKET: u64 = 1 << 4;
pub const REDISMODULE_CLIENTINFO_FLAG_MULTI: u64 = 1 << 5;

// Types of arguments in the documentation of commands.
pub const REDISMODULE_ARG_TYPE_STRING: c_int = 0;
pub const REDISMODULE_ARG_TYPE_INTEGER: c_int = 1;
pub const REDISMODULE_ARG_TYPE_DOUBLE: c_int = 2;
pub const REDISMODULE_ARG_TYPE_KEY: c_int = 3;
pub const REDISMODULE_ARG_TYPE_PATTERN: c_int = 4;
pub const REDISMODULE_ARG_TYPE_UNIX_TIME: c_int = 5;
pub const REDISMODULE_ARG_TYPE_PURE_TOKEN: c_int = 6;
pub const REDISMODULE_ARG_TYPE_ONEOF: c_int = 7;
pub const REDISMODULE_ARG_TYPE_BLOCK: c_int = 8;

// How the search for keys begins, and how it goes on. 0 ends an array of key specs.
pub const REDISMODULE_KSPEC_BS_INVALID: c_int = 0;
pub const REDISMODULE_KSPEC_BS_UNKNOWN: c_int = 1;
pub const REDISMODULE_KSPEC_BS_INDEX: c_int = 2;
pub const REDISMODULE_KSPEC_BS_KEYWORD: c_int = 3;
pub const REDISMODULE_KSPEC_FK_OMITTED: c_int = 0;
pub const REDISMODULE_KSPEC_FK_UNKNOWN: c_int = 1;
pub const REDISMODULE_KSPEC_FK_RANGE: c_int = 2;
pub const REDISMODULE_KSPEC_FK_KEYNUM: c_int = 3;

// Why ACL LOG has an entry.
pub const REDISMODULE_ACL_LOG_AUTH: c_int = 0;
pub const REDISMODULE_ACL_LOG_CMD: c_int = 1;
pub const REDISMODULE_ACL_LOG_KEY: c_int = 2;
pub const REDISMODULE_ACL_LOG_CHANNEL: c_int = 3;

// What wakes a client that is blocked on keys (7.2).
pub const REDISMODULE_BLOCK_UNBLOCK_DEFAULT: c_int = 0;
pub const REDISMODULE_BLOCK_UNBLOCK_DELETED: c_int = 1 << 0;

// What a callback of authentication answers (7.2).
pub const REDISMODULE_AUTH_HANDLED: c_int = 0;
pub const REDISMODULE_AUTH_NOT_HANDLED: c_int = 1;
