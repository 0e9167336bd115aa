//! What a callback is told of its call, its client and the server.

use super::given::{Ctx, Str, Text, abi_functions, server_functions};
use crate::config::MaxmemoryPolicy;
use crate::modules::context::while_suspended;
use crate::modules::timers::{self, Data};
use crate::modules::{events, guarded, loaded, server, turn};
use crate::protocol::reply::Resp;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::log;
use crate::shard::Shard;
use crate::shard::event::Event;
use crate::types::hashing::hash_key;
use crate::worker::Globals;
use crate::worker::link::LinkState;
use crate::{REDIS_VERSION, call};
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_longlong, c_uchar, c_ulonglong, c_void};

pub(super) const SERVED: &[Served] = served! {
    AutoMemory = auto_memory,
    GetSelectedDb = get_selected_db,
    SelectDb = select_db,
    GetContextFlags = get_context_flags,
    GetContextFlagsAll = get_context_flags_all,
    AvoidReplicaTraffic = avoid_replica_traffic,
    GetServerVersion = get_server_version,
    IsKeysPositionRequest = is_keys_position_request,
    KeyAtPos = key_at_pos,
    KeyAtPosWithFlags = key_at_pos_with_flags,
    IsChannelsPositionRequest = is_channels_position_request,
    ChannelAtPosWithFlags = channel_at_pos_with_flags,
    GetCurrentCommandName = get_current_command_name,
    GetClientId = get_client_id,
    Milliseconds = milliseconds,
    Microseconds = microseconds,
    CachedMicroseconds = cached_microseconds,
    MonotonicMicroseconds = monotonic_microseconds,
    GetRandomBytes = get_random_bytes,
    GetRandomHexChars = get_random_hex_chars,
    GetOpenKeyModesAll = get_open_key_modes_all,
    NotifyKeyspaceEvent = notify_keyspace_event,
    GetKeyspaceNotificationFlagsAll = get_keyspace_notification_flags_all,
    SubscribeToServerEvent = subscribe_to_server_event,
    SubscribeToKeyspaceEvents = subscribe_to_keyspace_events,
    GetNotifyKeyspaceEvents = get_notify_keyspace_events,
    IsSubEventSupported = is_sub_event_supported,
    Yield = yield_turn,
    AddPostNotificationJob = add_post_notification_job,
};

/// `7.0.15` as 0x00070015 would read: a byte for each number.
const VERSION: c_int = {
    let text = REDIS_VERSION.as_bytes();
    let (mut at, mut number, mut version) = (0, 0, 0);
    while at < text.len() {
        if text[at] == b'.' {
            version = (version | number) << 8;
            number = 0;
        } else {
            number = number * 10 + (text[at] - b'0') as c_int;
        }
        at += 1;
    }
    version | number
};

abi_functions! {
    /// Has what the callback gets freed when it has ended.
    fn auto_memory(ctx: Ctx) {
        ctx.automatic.get_or_insert_default();
    }

    fn get_selected_db(ctx: Ctx) -> c_int {
        ctx.call.db as c_int
    }

    fn get_context_flags_all() -> c_int {
        REDISMODULE_CTX_FLAGS_ASYNC_LOADING | (REDISMODULE_CTX_FLAGS_ASYNC_LOADING - 1)
    }

    /// Whether replicas should get no more than they must: during CLIENT PAUSE.
    fn avoid_replica_traffic() -> c_int {
        c_int::from(server::is_paused())
    }

    fn get_server_version() -> c_int {
        VERSION
    }

    fn is_keys_position_request(ctx: Ctx) -> c_int {
        c_int::from(ctx.key_positions.is_some())
    }

    fn key_at_pos(ctx: Ctx, position: c_int) {
        add_key(ctx, position, REDISMODULE_CMD_KEY_RW | REDISMODULE_CMD_KEY_ACCESS | REDISMODULE_CMD_KEY_UPDATE);
    }

    fn key_at_pos_with_flags(ctx: Ctx, position: c_int, flags: c_int) {
        add_key(ctx, position, flags as u64);
    }

    fn is_channels_position_request(ctx: Ctx) -> c_int {
        c_int::from(ctx.channel_positions.is_some())
    }

    /// Whoever unsubscribes needs no right to.
    fn channel_at_pos_with_flags(ctx: Ctx, position: c_int, flags: c_int) {
        let needs_right = REDISMODULE_CMD_CHANNEL_PUBLISH | REDISMODULE_CMD_CHANNEL_SUBSCRIBE;
        let (argc, flags) = (ctx.args.len(), flags as u64);
        let position = usize::try_from(position).ok().filter(|&at| at > 0 && at < argc);
        if flags & needs_right != 0
            && let (Some(positions), Some(position)) = (&mut ctx.channel_positions, position)
        {
            positions.push((position, flags & REDISMODULE_CMD_CHANNEL_PATTERN != 0));
        }
    }

    /// The name of the command that runs, with its container's.
    fn get_current_command_name(ctx: Ctx) -> *const c_char {
        ctx.command.map_or(std::ptr::null(), |command| command.full_name.as_ptr())
    }

    fn get_client_id(ctx: Ctx) -> c_ulonglong {
        ctx.call.client
    }

    fn milliseconds() -> c_longlong {
        SystemClock::get().wall_ms()
    }

    fn microseconds() -> ustime_t {
        SystemClock::get().wall_us()
    }

    fn cached_microseconds() -> ustime_t {
        SystemClock::get().wall_us()
    }

    fn monotonic_microseconds() -> u64 {
        let clock = SystemClock::get();
        clock.ticks_to_nanos(clock.ticks()) / 1000
    }

    fn get_random_bytes(place: *mut c_uchar, len: usize) {
        // SAFETY: the module passes room for so many bytes.
        let place = unsafe { std::slice::from_raw_parts_mut(place, len) };
        crate::runtime::host::fill_randomly(place);
    }

    fn get_random_hex_chars(place: *mut c_char, len: usize) {
        // SAFETY: the module passes room for so many bytes.
        let place = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), len) };
        crate::runtime::host::fill_randomly(place);
        place.iter_mut().for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte & 15)]);
    }

    fn get_open_key_modes_all() -> c_int {
        REDISMODULE_READ | REDISMODULE_WRITE | REDISMODULE_OPEN_KEY_NOTOUCH
    }

    fn get_keyspace_notification_flags_all() -> c_int {
        REDISMODULE_NOTIFY_NEW | (REDISMODULE_NOTIFY_NEW - 1)
    }

    /// Has a function called for each event of a key of these classes.
    fn subscribe_to_keyspace_events(
        ctx: Ctx, classes: c_int, callback: RedisModuleNotificationFunc,
    ) -> c_int {
        let is_done = events::subscribe_to_keys(ctx.module, classes, callback);
        let module = ctx.module;
        // While it loads, the table is made afterwards.
        if is_done
            && loaded().iter().any(|other| std::ptr::eq(*other, module))
            && let Some(worker) = ctx.worker()
            && let Err(text) = worker.update_table(guarded::as_told)
        {
            log::warning(format_args!("What commands do to keys is told after them: {text}"));
        }
        super::status(is_done)
    }

    /// Whether there is such an event.
    fn is_sub_event_supported(event: RedisModuleEvent, subevent: u64) -> c_int {
        c_int::from(events::is_known(event.id, subevent))
    }

    /// The classes of which somebody is told.
    fn get_notify_keyspace_events() -> c_int {
        events::subscribed_classes()
    }
}

server_functions! {
    fn select_db(ctx: Ctx, db: c_int) -> c_int {
        // A thread may select one before it has the lock.
        let of_server = || server::globals().map_or(0, |globals| globals.config().1.databases as usize);
        let count = ctx.shard().map(|shard| shard.db_count()).unwrap_or_else(of_server);
        let Some(db) = usize::try_from(db).ok().filter(|&db| db < count) else { return REDISMODULE_ERR };
        ctx.call.db = db as u32;
        if let Some(program) = ctx.program() {
            program.select(db as u32);
        }
        REDISMODULE_OK
    }

    fn get_context_flags(ctx: Option<Ctx>) -> c_int {
        let mut flags = server::globals().map_or(REDISMODULE_CTX_FLAGS_MASTER, replication_flags);
        let Some(mut ctx) = ctx else { return flags };
        let mut set = |is_set: bool, flag: c_int| flags |= if is_set { flag } else { 0 };
        set(ctx.call.in_script, REDISMODULE_CTX_FLAGS_LUA);
        set(ctx.runs_in_exec(), REDISMODULE_CTX_FLAGS_MULTI);
        set(ctx.call.in_exec || ctx.call.in_script, REDISMODULE_CTX_FLAGS_DENY_BLOCKING);
        set(ctx.resp() == Resp::V3, REDISMODULE_CTX_FLAGS_RESP3);
        if let Some(shard) = ctx.shard() {
            let config = &shard.config;
            set(config.appendonly, REDISMODULE_CTX_FLAGS_AOF);
            set(!config.save.0.is_empty(), REDISMODULE_CTX_FLAGS_RDB);
            let is_limited = config.has_maxmemory();
            set(is_limited, REDISMODULE_CTX_FLAGS_MAXMEMORY);
            let evicts = config.maxmemory_policy != MaxmemoryPolicy::Noeviction;
            set(is_limited && evicts, REDISMODULE_CTX_FLAGS_EVICT);
        }
        if let Some(globals) = server::globals() {
            let used_ratio = server::used_memory_ratio();
            set(used_ratio > 1.0, REDISMODULE_CTX_FLAGS_OOM);
            set(used_ratio > 0.75, REDISMODULE_CTX_FLAGS_OOM_WARNING);
            set(globals.persistence.loading.is_on(), REDISMODULE_CTX_FLAGS_LOADING);
        }
        flags
    }

    /// Reports an event of a key to those who observe it.
    fn notify_keyspace_event(ctx: Ctx, class: c_int, event: Text, key: Str) -> c_int {
        let call = ctx.call;
        let notify = |shard: &mut Shard| {
            if shard.observers.is_on() {
                let key = call::Key { bytes: key.bytes(), hash: hash_key(key.bytes()) };
                let event = Event::of_module(events::class_of(class), &event.to_str());
                shard.notify_event(&call, call.db, key, event);
            }
        };
        if let Some(program) = ctx.program() {
            let readers = program.readers();
            program.told_within(readers, |program| notify(&mut program.worker().shard));
            return REDISMODULE_OK;
        }
        let Some(shard) = ctx.shard() else { return REDISMODULE_ERR };
        notify(shard);
        REDISMODULE_OK
    }

    /// Lets the server serve others. What the program has used stays locked. With the flag for clients they are refused what
    /// they ask for once it is over busy-reply-threshold. A callback that loads a value lets other callbacks run.
    fn yield_turn(ctx: Ctx, flags: c_int, busy_reply: Text) {
        let busy_reply = (flags & REDISMODULE_YIELD_FLAG_CLIENTS != 0).then_some(busy_reply.bytes());
        match ctx.program_for("Yield") {
            Some(program) => while_suspended(|| program.give_way(busy_reply)),
            None => turn::give_way(),
        }
    }

    /// Has a function called when what runs now has ended.
    fn add_post_notification_job(
        ctx: Ctx, callback: RedisModulePostNotificationJobFunc, data: *mut c_void,
        free: RedisModuleFreeDataFunc,
    ) -> c_int {
        let Some(callback) = callback else { return REDISMODULE_ERR };
        let (module, db, data) = (ctx.module, ctx.call.db, Data(data));
        let Some(worker) = ctx.worker_for("AddPostNotificationJob") else { return REDISMODULE_ERR };
        worker.add_task(Box::new(move |program| {
            timers::call(program, module, db, "post-notification job", |ctx| {
                // The whole of it moves in here.
                let data = data;
                // SAFETY: the module has given the function to be called with this.
                unsafe { callback(ctx, data.0) };
                if let Some(free) = free {
                    // SAFETY: as above.
                    unsafe { free(data.0) };
                }
            });
        }));
        REDISMODULE_OK
    }

    fn subscribe_to_server_event(
        ctx: Ctx, event: RedisModuleEvent, callback: RedisModuleEventCallback,
    ) -> c_int {
        super::status(events::subscribe(ctx.module, event, callback))
    }
}

/// Whether the server is a master or a replica, and how the link to its master stands.
fn replication_flags(globals: &Globals) -> c_int {
    if !globals.link.is_replica() {
        return REDISMODULE_CTX_FLAGS_MASTER;
    }
    let is_read_only = globals.config().1.replica_read_only;
    let link = match globals.link.figures().state {
        LinkState::Connect | LinkState::Connecting | LinkState::Handshake => {
            REDISMODULE_CTX_FLAGS_REPLICA_IS_CONNECTING
        }
        LinkState::Sync => REDISMODULE_CTX_FLAGS_REPLICA_IS_TRANSFERRING,
        LinkState::Connected => REDISMODULE_CTX_FLAGS_REPLICA_IS_ONLINE,
    };
    let is_stale = link != REDISMODULE_CTX_FLAGS_REPLICA_IS_ONLINE;
    REDISMODULE_CTX_FLAGS_SLAVE
        | link
        | if is_read_only { REDISMODULE_CTX_FLAGS_READONLY } else { 0 }
        | if is_stale { REDISMODULE_CTX_FLAGS_REPLICA_IS_STALE } else { 0 }
}

fn add_key(mut ctx: Ctx, position: c_int, flags: u64) {
    let argc = ctx.args.len();
    let position = usize::try_from(position).ok().filter(|&at| at > 0 && at < argc);
    if let (Some(positions), Some(position)) = (&mut ctx.key_positions, position) {
        positions.push((position, flags as u32));
    }
}
