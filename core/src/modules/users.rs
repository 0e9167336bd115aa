//! Users that modules make, and those of the server that they ask about.
//!
//! A user that a module makes is its own: no command knows it by its name. Only when a client logs in as that user it becomes one
//! of the server's [`Users`](crate::acl::Users), which all shards have: from then on its clients go by what the module
//! changes of it, and are disconnected when the module frees it.
//!
//! A client is logged in at its home. If the module's command runs on another shard, its home is told before it gets
//! the reply ([`Decision`]).

use super::context::{Context, with_current};
use super::module::{Module, every};
use super::server;
use super::timers::{self, Data};
use crate::acl::{RuleContext, SetUserError, User, UserId, Users};
use crate::call::ClientId;
use crate::command::table::CommandTable;
use crate::config::{AclPubsubDefault, Config};
use crate::shard::observe::KEY_EVENTS_CLIENT;
use crate::worker::Worker;
use crate::worker::acl::Decision;
use crate::worker::program::Task;
use shardis_modules_api::abi::{RedisModuleUser, RedisModuleUserChangedFunc};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A user, as a module has it.
pub(super) enum ModuleUser {
    Own(Mutex<Own>),
    /// One of the server, as it was when the module asked for it.
    OfServer(Arc<User>),
}

/// A user that the module has made.
pub(super) struct Own {
    user: Arc<User>,
    /// Clients have logged in as this user: it is one of the server's.
    is_known: bool,
}

impl ModuleUser {
    /// A user that may do nothing.
    pub(super) fn new(name: &[u8]) -> Arc<ModuleUser> {
        let all_channels = with_rules(|rules| rules.all_channels).unwrap_or(false);
        let user = Arc::new(User::of_module(name, all_channels));
        Arc::new(ModuleUser::Own(Mutex::new(Own { user, is_known: false })))
    }

    /// The server's user of this name.
    pub(super) fn of_server(name: &[u8]) -> Option<Arc<ModuleUser>> {
        let user = server::globals()?.acl.user(name)?;
        Some(Arc::new(ModuleUser::OfServer(user)))
    }

    pub(super) fn into_abi(self: Arc<ModuleUser>) -> *mut RedisModuleUser {
        Arc::into_raw(self).cast_mut().cast()
    }

    /// Another reference to the user that a module has.
    ///
    /// # Safety
    /// The module has it from [`into_abi`](ModuleUser::into_abi), and has not freed it.
    pub(super) unsafe fn share(user: *const RedisModuleUser) -> Arc<ModuleUser> {
        let user = user.cast::<ModuleUser>();
        // SAFETY: as promised, the module's own reference is there.
        unsafe { Arc::increment_strong_count(user) };
        // SAFETY: this is the reference that was added.
        unsafe { Arc::from_raw(user) }
    }

    /// The module's reference.
    ///
    /// # Safety
    /// As for [`share`](ModuleUser::share), and the module does not use it any more.
    pub(super) unsafe fn take(user: *mut RedisModuleUser) -> Arc<ModuleUser> {
        // SAFETY: as promised.
        unsafe { Arc::from_raw(user.cast::<ModuleUser>()) }
    }

    /// What it may do now.
    pub(super) fn current(&self) -> Arc<User> {
        match self {
            ModuleUser::Own(own) => Arc::clone(&lock(own).user),
            ModuleUser::OfServer(user) => {
                let now = server::globals().and_then(|globals| globals.acl.current(user));
                now.unwrap_or_else(|| Arc::new(User::nobody()))
            }
        }
    }

    /// Changes it by rules, all or none.
    ///
    /// # Errors
    /// A rule cannot be, or it is not the module's user: the text that says so.
    pub(super) fn change(&self, rules: &[&[u8]]) -> Result<(), Vec<u8>> {
        let ModuleUser::Own(own) = self else { return Err(b"The user is not one of the module".to_vec()) };
        let mut user = User::clone(&lock(own).user);
        let changed = with_rules(|context| user.change(rules, context));
        let changed = changed.ok_or_else(|| b"There are no commands yet".to_vec())?;
        changed.map_err(|error: SetUserError| error.text())?;
        let user = Arc::new(user);
        let mut own = lock(own);
        own.user = Arc::clone(&user);
        if own.is_known {
            drop(own);
            publish(user);
        }
        Ok(())
    }

    /// From now on it is one of the server's, if it is not. Returns it.
    fn publish(&self) -> Arc<User> {
        if let ModuleUser::Own(own) = self {
            let mut own = lock(own);
            let user = Arc::clone(&own.user);
            if !std::mem::replace(&mut own.is_known, true) {
                drop(own);
                publish(Arc::clone(&user));
            }
            return user;
        }
        self.current()
    }

    /// The module frees it: its clients are disconnected if the user was the module's.
    pub(super) fn free(&self) {
        let ModuleUser::Own(own) = self else { return };
        let Own { user, is_known } = &*lock(own);
        if *is_known {
            let id = user.id;
            with_current(|ctx| close_own_client(ctx, id));
            update(|users| users.remove_of_module(id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with what rules go by. `None`: the server has no commands yet.
fn with_rules<T>(act: impl FnOnce(RuleContext<'_>) -> T) -> Option<T> {
    let mut act = Some(act);
    let mut of_callback = None;
    with_current(|ctx| {
        if let Some(rules) = ctx.rules()
            && let Some(act) = act.take()
        {
            of_callback = Some(act(rules));
        }
    });
    of_callback.or_else(|| {
        let globals = server::globals()?;
        Some(act.take()?(rules(globals.table().1, &globals.config().1)))
    })
}

/// What rules go by.
pub(super) fn rules<'t>(table: &'t CommandTable, config: &Config) -> RuleContext<'t> {
    RuleContext { table, all_channels: config.acl_pubsub_default == AclPubsubDefault::AllChannels }
}

fn publish(user: Arc<User>) {
    update(|users| users.set_of_module(user));
}

/// Changes the users of the server, on all shards.
fn update(change: impl FnOnce(&mut Users)) {
    let change = |users: &Users| {
        let mut new = users.clone();
        change(&mut new);
        Ok::<_, Infallible>((new, ()))
    };
    let mut change = Some(change);
    with_current(|ctx| {
        let client = ctx.call.client;
        if let Some(worker) = ctx.worker()
            && let Some(change) = change.take()
        {
            let caller = worker.find_client(client);
            worker.update_users(caller, change).unwrap_or_else(|never| match never {});
        }
    });
    // A thread that does not have the lock: the shards take the change over when they look.
    if let (Some(change), Some(globals)) = (change, server::globals()) {
        globals.acl.update(change).unwrap_or_else(|never| match never {});
    }
}

/// The user is freed whose client has called for it: that one still gets its reply.
fn close_own_client(ctx: &mut Context<'static>, user: UserId) {
    let call = ctx.call;
    if server::globals().is_some_and(|globals| globals.acl.user_of(&call).id == user)
        && let Some(worker) = ctx.worker_for("FreeModuleUser")
    {
        worker.decide(call.client, Decision::Close);
    }
}

/// The client of a callback; `None`: it has none, or one that only stands for it.
fn client_of(ctx: &mut Context<'static>) -> Option<ClientId> {
    let is_for_client = ctx.command.is_some() || ctx.on.is_some();
    let client = ctx.call.client;
    (is_for_client && client != 0 && client != KEY_EVENTS_CLIENT).then_some(client)
}

/// What is called when a client that a module has logged in becomes another user, or goes.
struct Change {
    module: &'static Module,
    callback: unsafe extern "C" fn(u64, *mut std::ffi::c_void),
    data: Data,
}

static CHANGES: Mutex<Option<HashMap<ClientId, Change>>> = Mutex::new(None);

fn changes<T>(act: impl FnOnce(&mut HashMap<ClientId, Change>) -> T) -> T {
    act(lock(&CHANGES).get_or_insert_default())
}

/// Logs the client of a callback in. Returns the client; `None`: there is none, or the user may not be logged in as.
pub(super) fn authenticate(
    ctx: &mut Context<'static>,
    user: &ModuleUser,
    callback: RedisModuleUserChangedFunc,
    data: *mut std::ffi::c_void,
) -> Option<ClientId> {
    if !user.current().is_enabled() {
        return None;
    }
    let client = client_of(ctx)?;
    let user = user.publish();
    let (module, is_named) = (ctx.module, !user.is_default());
    let worker = ctx.worker_for("AuthenticateClientWithUser")?;
    if !worker.decide(client, Decision::LogIn(user)) {
        return None;
    }
    if let Some(task) = user_changed(client) {
        worker.add_task(task);
    }
    if let Some(callback) = callback {
        worker.globals.hooks.tell_user_changes(user_changed);
        changes(|all| all.insert(client, Change { module, callback, data: Data(data) }));
    }
    ctx.call.has_named_user = is_named;
    if let Some(program) = ctx.program() {
        program.note_named_user(is_named);
    }
    Some(client)
}

fn user_changed(client: ClientId) -> Option<Task> {
    let Change { module, callback, data } = changes(|all| all.remove(&client))?;
    Some(Box::new(move |program| {
        if !every().into_iter().any(|loaded| std::ptr::eq(loaded, module)) {
            return;
        }
        timers::call(program, module, 0, "user change", |_| {
            // The whole of it moves in here.
            let data = data;
            // SAFETY: the module has given the function to be called with this.
            unsafe { callback(client, data.0) };
        });
    }))
}

/// A module is unloaded: the clients that it has logged in are disconnected, and it is told of nothing.
pub(super) fn forget(module: &'static Module, worker: &mut Worker) {
    let mut clients = Vec::new();
    changes(|all| {
        all.retain(|&client, change| {
            let is_of_module = std::ptr::eq(change.module, module);
            clients.extend(is_of_module.then_some(client));
            !is_of_module
        });
    });
    for client in clients {
        worker.decide(client, Decision::Close);
    }
}
