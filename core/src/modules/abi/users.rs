//! Users: those of the module, those of the server, and who the clients are.

use super::given::{ConstStr, Ctx, Given, Out, Str, Text, abi_functions, server_functions};
use super::{fail_with, status};
use crate::call::{AclContext, Forbidden, RefusedCall};
use crate::command::table::{CommandTable, Resolved};
use crate::modules::context::{Context, with_current};
use crate::modules::server;
use crate::modules::string::ModuleString;
use crate::modules::users::{self, ModuleUser};
use crate::protocol::OwnedArgv;
use crate::protocol::inline::split_words;
use crate::runtime::os_error;
use crate::worker::acl::Decision;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use smallvec::SmallVec;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

pub(super) const SERVED: &[Served] = served! {
    CreateModuleUser = create_module_user,
    FreeModuleUser = free_module_user,
    SetContextUser = set_context_user,
    SetModuleUserACL = set_module_user_acl,
    SetModuleUserACLString = set_module_user_acl_string,
    GetModuleUserACLString = get_module_user_acl_string,
    GetCurrentUserName = get_current_user_name,
    GetModuleUserFromUserName = get_module_user_from_user_name,
    ACLCheckCommandPermissions = acl_check_command_permissions,
    ACLCheckKeyPermissions = acl_check_key_permissions,
    ACLCheckChannelPermissions = acl_check_channel_permissions,
    ACLAddLogEntry = acl_add_log_entry,
    ACLAddLogEntryByUserName = acl_add_log_entry_by_user_name,
    AuthenticateClientWithACLUser = authenticate_client_with_acl_user,
    AuthenticateClientWithUser = authenticate_client_with_user,
    DeauthenticateAndCloseClient = deauthenticate_and_close_client,
};

/// A user that the module has.
pub(super) struct User(Arc<ModuleUser>);

impl Given for User {
    type Raw = *mut RedisModuleUser;

    unsafe fn take(raw: *mut RedisModuleUser) -> User {
        assert!(!raw.is_null(), "the ABI does not allow NULL here");
        // SAFETY: the module passes a user that it has not freed.
        User(unsafe { ModuleUser::share(raw) })
    }
}

/// The changes of a key that rules tell apart from reading it.
const KEY_FLAGS: c_int = (REDISMODULE_CMD_KEY_ACCESS
    | REDISMODULE_CMD_KEY_INSERT
    | REDISMODULE_CMD_KEY_DELETE
    | REDISMODULE_CMD_KEY_UPDATE) as c_int;

const CHANNEL_FLAGS: c_int = (REDISMODULE_CMD_CHANNEL_PATTERN
    | REDISMODULE_CMD_CHANNEL_PUBLISH
    | REDISMODULE_CMD_CHANNEL_SUBSCRIBE
    | REDISMODULE_CMD_CHANNEL_UNSUBSCRIBE) as c_int;

abi_functions! {
    /// The users of the module may do nothing at first.
    fn create_module_user(name: Text) -> *mut RedisModuleUser {
        ModuleUser::new(name.bytes()).into_abi()
    }

    /// Calls of commands by this context are made by the rights of the user, if the call asks for that. NULL: by those of
    /// the client.
    fn set_context_user(ctx: Ctx, user: *const RedisModuleUser) {
        // SAFETY: the module passes NULL, or a user that it has not freed.
        ctx.user = (!user.is_null()).then(|| unsafe { ModuleUser::share(user) });
    }

    fn get_current_user_name(ctx: Ctx) -> *mut RedisModuleString {
        let name = server::globals().map(|globals| globals.acl.user_of(&ctx.call).name.clone());
        ctx.keep_string(ModuleString::from_vec(name.unwrap_or_else(|| b"default".to_vec())))
    }

    /// A user of the server. NULL: there is none of this name.
    fn get_module_user_from_user_name(name: Str) -> *mut RedisModuleUser {
        ModuleUser::of_server(name.bytes()).map_or(std::ptr::null_mut(), ModuleUser::into_abi)
    }

    fn acl_check_command_permissions(user: User, argv: *mut *mut RedisModuleString, argc: c_int) -> c_int {
        let args = arguments(argv, argc);
        let args = args.as_argv();
        let Some(table) = table() else { return fail_with(os_error::NO_ENTRY) };
        let Resolved::Command(entry) = table.resolve(args) else { return fail_with(os_error::NO_ENTRY) };
        match user.0.current().check(table, entry, args) {
            Ok(()) => REDISMODULE_OK,
            Err(_) => fail_with(os_error::ACCESS),
        }
    }

    fn acl_check_key_permissions(user: User, key: Str, flags: c_int) -> c_int {
        if flags & KEY_FLAGS != flags {
            return fail_with(os_error::INVALID);
        }
        match user.0.current().allows_key(key.bytes(), flags as u32) {
            true => REDISMODULE_OK,
            false => fail_with(os_error::ACCESS),
        }
    }

    fn acl_check_channel_permissions(user: User, channel: Str, flags: c_int) -> c_int {
        if flags & CHANNEL_FLAGS != flags {
            return fail_with(os_error::INVALID);
        }
        let has = |flag: u64| flags & flag as c_int != 0;
        let is_pattern = has(REDISMODULE_CMD_CHANNEL_PATTERN);
        let is_free = has(REDISMODULE_CMD_CHANNEL_UNSUBSCRIBE);
        status(is_free || user.0.current().allows_channel(channel.bytes(), is_pattern))
    }
}

server_functions! {
    /// Clients that are logged in as the user are disconnected, if it is the module's.
    fn free_module_user(user: *mut RedisModuleUser) {
        if !user.is_null() {
            // SAFETY: the module passes a user that it has, and does not use it any more.
            unsafe { ModuleUser::take(user) }.free();
        }
    }

    /// Changes the user by one rule.
    fn set_module_user_acl(user: User, rule: Text) -> c_int {
        status(user.0.change(&[rule.bytes()]).is_ok())
    }

    /// Changes the user by rules, which stand in one string; all or none.
    fn set_module_user_acl_string(
        ctx: Option<Ctx>, user: User, rules: Text, error: Out<*mut RedisModuleString>,
    ) -> c_int {
        let words = split_words(rules.bytes()).unwrap_or_default();
        let words: Vec<&[u8]> = words.as_argv().iter().collect();
        let Err(why) = user.0.change(&words) else { return REDISMODULE_OK };
        if error.is_wanted() {
            let why = ModuleString::from_vec(why);
            error.set(ctx.map_or(ModuleString::as_abi(why), |mut ctx| ctx.keep_string(why)));
        }
        REDISMODULE_ERR
    }

    /// The rules of the user. The module frees the string.
    fn get_module_user_acl_string(user: User) -> *mut RedisModuleString {
        let rules = table().map(|table| user.0.current().rules(table)).unwrap_or_default();
        ModuleString::as_abi(ModuleString::from_vec(rules))
    }

    fn acl_add_log_entry(ctx: Ctx, user: User, object: Str, reason: RedisModuleACLLogEntryReason) {
        let name = user.0.current().name.clone();
        add_log_entry(&mut ctx, name, &object, reason);
    }

    fn acl_add_log_entry_by_user_name(
        ctx: Ctx, user: Str, object: Str, reason: RedisModuleACLLogEntryReason,
    ) {
        add_log_entry(&mut ctx, user.bytes().to_vec(), &object, reason);
    }

    fn authenticate_client_with_acl_user(
        ctx: Ctx, name: *const c_char, len: usize, callback: RedisModuleUserChangedFunc, data: *mut c_void,
        client: Out<u64>,
    ) -> c_int {
        // SAFETY: the module passes so many bytes.
        let name = unsafe { super::given::bytes_at(name, len) };
        let Some(user) = ModuleUser::of_server(name) else { return REDISMODULE_ERR };
        authenticate(&mut ctx, &user, callback, data, &client)
    }

    fn authenticate_client_with_user(
        ctx: Ctx, user: User, callback: RedisModuleUserChangedFunc, data: *mut c_void, client: Out<u64>,
    ) -> c_int {
        authenticate(&mut ctx, &user.0, callback, data, &client)
    }

    fn deauthenticate_and_close_client(_ctx: *mut RedisModuleCtx, client: u64) -> c_int {
        let is_there = with_current(|ctx| Some(ctx.worker_for("DeauthenticateAndCloseClient")?.decide(client, Decision::Close)));
        status(is_there.flatten() == Some(true))
    }
}

fn authenticate(
    ctx: &mut Context<'static>,
    user: &ModuleUser,
    callback: RedisModuleUserChangedFunc,
    data: *mut c_void,
    client: &Out<u64>,
) -> c_int {
    let Some(id) = users::authenticate(ctx, user, callback, data) else { return REDISMODULE_ERR };
    client.set(id);
    REDISMODULE_OK
}

/// The commands of the server.
fn table() -> Option<&'static CommandTable> {
    with_current(|ctx| ctx.table()).flatten().or_else(|| Some(server::globals()?.table().1))
}

fn arguments(argv: *mut *mut RedisModuleString, argc: c_int) -> OwnedArgv {
    let len = usize::try_from(argc).unwrap_or(0);
    let words: SmallVec<[&[u8]; 8]> = (0..len)
        .map(|at| {
            // SAFETY: the module passes so many strings, which are alive.
            let string: ConstStr = unsafe { Given::take((*argv.add(at)).cast_const()) };
            // SAFETY: they last for the call.
            unsafe { &*std::ptr::from_ref(string.bytes()) }
        })
        .collect();
    OwnedArgv::from_slices(&words)
}

/// Adds to ACL LOG what the callback's client was refused.
fn add_log_entry(
    ctx: &mut Context<'static>,
    user: Vec<u8>,
    object: &ModuleString,
    reason: RedisModuleACLLogEntryReason,
) {
    let what = match reason {
        REDISMODULE_ACL_LOG_AUTH => Forbidden::Auth,
        REDISMODULE_ACL_LOG_CMD => Forbidden::Command,
        REDISMODULE_ACL_LOG_KEY => Forbidden::Key,
        REDISMODULE_ACL_LOG_CHANNEL => Forbidden::Channel,
        _ => return,
    };
    let (call, object) = (ctx.call, object.bytes().to_vec());
    if let Some(worker) = ctx.worker_for("ACLAddLogEntry") {
        let refused = RefusedCall { client: call.client, context: AclContext::Module, user, what, object };
        worker.note_refused(usize::from(call.home), refused);
    }
}
