//! Access control in a worker: who its clients are, and what becomes of them when the users change.
//!
//! The users are one value for the whole process, which never changes; a change publishes another one. Each worker takes it
//! over before it looks at what clients or other shards have sent: so whatever is sent after a change was replied to is judged by
//! the new users, on every shard. The other shards are told, also because clients that lose their rights are to be
//! disconnected, and the reply to the change, and what its client has sent behind it, waits until all have adopted it: from
//! then on no client is served, counted or connected by rights that it had before.
//!
//! A request is judged at home, when it is about to run: for an EXEC, that is all its commands at one moment, and those that
//! are not allowed any more are replaced by their error. But a command of it may change what those behind it may do (AUTH):
//! these are judged when it has run. Programs are judged where they run, each call by the users of the moment in which their
//! slice began. A blocked client whose user may not call its command any more gets an error. What waits for locks on a shard is
//! judged again when it has them, by what has become of the user that its client was when it was called; so are the commands of
//! an EXEC. A transaction over several shards whose locks are granted when the users have changed goes back home, where it is
//! judged again, and starts anew.

use super::Worker;
use super::connection::StallReason;
use crate::acl::{AclLog, AclLogEntry, User, Users};
use crate::call::{AclContext, ClientId, Forbidden, RefusedCall};
use crate::client::CommandQueue;
use crate::command::admission::{Denied, Refusal};
use crate::command::docs::Docs;
use crate::command::queue::Queue;
use crate::command::table::{Command, CommandEntry, flag};
use crate::command::{Call, CommandError, CommandResult, Ctx};
use crate::protocol::{Argv, OwnedArgv};
use crate::runtime::driver::ConnId;
use crate::shard::message::Message;
use crate::worker::client_line::{EXEC_LEN_BYTES, write_line};
use ahash::AHashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The users of the process, and who is logged in as which.
pub struct AclGlobals {
    users: Mutex<Arc<Users>>,
    version: AtomicU64,
    /// Some user may not do everything.
    has_restricted: AtomicBool,
    /// Of the clients that have logged in as another user than the default one.
    named: Mutex<AHashMap<ClientId, Arc<User>>>,
    /// What modules have decided of clients of other shards, until these shards have come to it.
    decided: Mutex<AHashMap<ClientId, Decision>>,
    log: Mutex<AclLog>,
}

impl Default for AclGlobals {
    fn default() -> AclGlobals {
        AclGlobals {
            users: Mutex::default(),
            version: AtomicU64::new(1),
            has_restricted: AtomicBool::new(false),
            named: Mutex::default(),
            decided: Mutex::default(),
            log: Mutex::default(),
        }
    }
}

/// What a module has decided of a client.
pub enum Decision {
    /// It is this user from now on.
    LogIn(Arc<User>),
    /// It is nobody any more, and its connection is closed.
    Close,
}

/// The changes of users that this shard's clients have made and other shards have not adopted yet.
#[derive(Default)]
pub(super) struct OpenChanges(Vec<OpenChange>);

struct OpenChange {
    version: u64,
    /// How many shards have not adopted it.
    missing: usize,
    /// Whose change it is.
    conn: ConnId,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AclGlobals {
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The users and their version.
    fn users(&self) -> (u64, Arc<Users>) {
        let users = lock(&self.users);
        (self.version(), Arc::clone(&users))
    }

    /// Changes the users by `change`, as a whole or not at all.
    ///
    /// # Errors
    /// Those of `change`; the users are then as before.
    pub fn update<T, E>(&self, change: impl FnOnce(&Users) -> Result<(Users, T), E>) -> Result<T, E> {
        let mut users = lock(&self.users);
        let (new, value) = change(&users)?;
        let has_restricted = !new.are_unrestricted();
        *users = Arc::new(new);
        self.has_restricted.store(has_restricted, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        Ok(value)
    }

    pub fn log(&self) -> MutexGuard<'_, AclLog> {
        lock(&self.log)
    }

    /// The user of a program's client, if it may not do everything.
    fn restricted_user_of(&self, call: &Call) -> Option<Arc<User>> {
        // A user that has been removed is none of the users, and its clients may do nothing.
        if !call.has_named_user && !self.has_restricted.load(Ordering::Acquire) {
            return None;
        }
        let user = self.user_of(call);
        (!user.is_unrestricted()).then_some(user)
    }

    /// The user of a call's client.
    pub fn user_of(&self, call: &Call) -> Arc<User> {
        let (_, users) = self.users();
        if !call.has_named_user {
            return Arc::clone(users.default_user());
        }
        let named = lock(&self.named).get(&call.client).cloned();
        // Whoever is not there any more may do nothing.
        named.and_then(|user| users.current(&user).cloned()).unwrap_or_else(|| Arc::new(User::nobody()))
    }

    fn note_named(&self, client: ClientId, user: &Arc<User>) {
        let mut named = lock(&self.named);
        if user.is_default() {
            named.remove(&client);
        } else {
            named.insert(client, Arc::clone(user));
        }
    }

    /// The user of this name.
    pub fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users().1.get(name).cloned()
    }

    /// What has become of a user, if it may not do everything.
    fn restricted_now(&self, user: &User) -> Option<Arc<User>> {
        match self.current(user) {
            Some(now) if now.is_unrestricted() => None,
            Some(now) => Some(now),
            None => Some(Arc::new(User::nobody())),
        }
    }

    /// What has become of a user.
    pub fn current(&self, user: &User) -> Option<Arc<User>> {
        self.users().1.current(user).cloned()
    }
}

// Users change.
impl Worker {
    pub fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// Changes the users: see [`AclGlobals::update`]. `caller`: the connection whose command does it.
    ///
    /// # Errors
    /// Those of `change`; the users are then as before.
    pub fn update_users<T, E>(
        &mut self,
        caller: Option<usize>,
        change: impl FnOnce(&Users) -> Result<(Users, T), E>,
    ) -> Result<T, E> {
        let value = self.globals.acl.update(change)?;
        self.spread_users(caller);
        Ok(value)
    }

    /// If the users have changed: takes them over, and has all other shards do so, before `caller` gets its reply.
    pub fn spread_users(&mut self, caller: Option<usize>) {
        if self.globals.acl.version() == self.users_version {
            return;
        }
        self.adopt_users(caller);
        let version = self.users_version;
        self.other_shards().for_each(|shard| self.send(shard, Message::Users { version }));
        let missing = self.shard.shard_count - 1;
        if missing > 0
            && let Some(connection) = caller.and_then(|at| self.connections[at].as_deref_mut())
        {
            connection.open_user_changes += 1;
            let conn = connection.conn;
            self.user_changes.0.push(OpenChange { version, missing, conn });
        }
    }

    /// Another shard goes by this version of the users: after the last one, the client that has made it gets its reply.
    pub(super) fn users_are_adopted(&mut self, version: u64) {
        let open = &mut self.user_changes.0;
        let Some(place) = open.iter().position(|change| change.version == version) else { return };
        open[place].missing -= 1;
        if open[place].missing > 0 {
            return;
        }
        let OpenChange { conn, .. } = open.swap_remove(place);
        if !self.is_current(conn) {
            return;
        }
        let at = conn.index();
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        connection.open_user_changes -= 1;
        let is_last = connection.open_user_changes == 0;
        if is_last && connection.stall == Some(StallReason::Users) {
            self.release_stall(at);
        }
        if is_last {
            self.mark_dirty(at);
        }
    }

    /// Takes the users over if they have changed. To be called between commands.
    #[inline]
    pub(super) fn follow_users(&mut self) {
        if self.globals.acl.version() != self.users_version {
            self.adopt_users(None);
        }
    }

    /// Takes the users over: clients whose user is not there any more, or may not listen any more to what it listens to, are
    /// disconnected, `caller` after the reply to its command.
    #[cold]
    pub fn adopt_users(&mut self, caller: Option<usize>) {
        (self.users_version, self.users) = self.globals.acl.users();
        self.default_is_open = self.users.default_user().is_open();
        for at in 0..self.connections.len() {
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            let client = &mut connection.client;
            if client.is_server {
                continue;
            }
            match self.users.current(client.user()) {
                Some(user) if Arc::ptr_eq(user, client.user()) => {}
                Some(user) => {
                    client.set_user(Arc::clone(user));
                    if client.may_listen() {
                        self.refuse_blocked(at);
                    } else {
                        self.close_for(caller, at);
                    }
                }
                None => {
                    let id = client.id;
                    // Its shard may have decided so, for the sake of a reply that is still to come.
                    if !self.act_on_decision(id) {
                        if caller == Some(at) {
                            // An EXEC that has removed its own user goes on.
                            self.shut_out(at);
                        }
                        self.close_for(caller, at);
                    }
                }
            }
        }
    }

    /// Disconnects a client, `caller` after the reply to its command.
    fn close_for(&mut self, caller: Option<usize>, at: usize) {
        if caller == Some(at) {
            self.close_after_reply(at);
        } else {
            self.close_now(at);
        }
    }

    /// A module has decided something of a client, which may be one of another shard. Returns whether there is such a client.
    /// Whatever this shard sends there from now on, replies too, finds it so. A client that is closed gets the replies that
    /// are under way.
    pub fn decide(&mut self, client: ClientId, decision: Decision) -> bool {
        let Some(home) = self.home_of(client).map(usize::from) else { return false };
        if home == self.shard.index {
            self.act_on(client, decision);
        } else {
            if let Decision::LogIn(user) = &decision {
                self.globals.acl.note_named(client, user);
            }
            lock(&self.globals.acl.decided).insert(client, decision);
            self.send(home, Message::Decided { client });
        }
        true
    }

    /// A module on another shard has decided something of one of this shard's clients, which may have gone since.
    pub(super) fn act_on_decision(&mut self, client: ClientId) -> bool {
        let decision = lock(&self.globals.acl.decided).remove(&client);
        let is_there = decision.is_some();
        decision.into_iter().for_each(|decision| self.act_on(client, decision));
        is_there
    }

    fn act_on(&mut self, client: ClientId, decision: Decision) {
        let Some(at) = self.find_client(client) else { return };
        match decision {
            Decision::LogIn(user) => self.become_user(at, user),
            Decision::Close => {
                self.tell_user_change(at);
                self.shut_out(at);
                self.close_after_reply(at);
            }
        }
    }

    fn shut_out(&mut self, at: usize) {
        let default_user = Arc::clone(self.users.default_user());
        if let Some(connection) = self.connections[at].as_deref_mut() {
            connection.client.shut_out(default_user);
        }
        self.note_named(at);
    }

    /// A connection's client logs in as this user.
    pub fn log_in(&mut self, at: usize, user: Arc<User>) {
        self.tell_user_change(at);
        self.become_user(at, user);
    }

    fn become_user(&mut self, at: usize, user: Arc<User>) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        let client = &mut connection.client;
        let was_named = client.has_named_user();
        client.log_in(user);
        if was_named || client.has_named_user() {
            self.note_named(at);
        }
    }

    /// A connection's client is as if it had just connected.
    pub fn log_out(&mut self, at: usize) {
        self.tell_user_change(at);
        let user = Arc::clone(self.users.default_user());
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        connection.client.log_out(user);
        self.note_named(at);
    }

    /// Lets programs on other shards know who a client is.
    fn note_named(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref() else { return };
        self.globals.acl.note_named(connection.client.id, connection.client.user());
    }

    /// A client has disconnected.
    pub(super) fn forget_named(&self, client: ClientId) {
        lock(&self.globals.acl.named).remove(&client);
    }
}

// Requests.
impl Worker {
    /// Whether a connection's user may make a request.
    ///
    /// # Errors
    /// It may not; or it asks for keys that no argument names, and may not read all keys.
    pub(super) fn check_rights(
        &self,
        at: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections[at].as_deref() else { return Ok(()) };
        self.check_rights_of(connection.client.user(), entry, args)
    }

    pub(super) fn check_rights_of(
        &self,
        user: &User,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Result<(), Refusal> {
        user.check(self.table, entry, args).map_err(Refusal::Denied)?;
        if let Some(derived) = entry.row.derived_keys
            && let Some(error) = (derived.refusal)(args)
            && !user.may_read_all_keys_for(self.table, entry, args)
        {
            return Err(Refusal::Error(error));
        }
        Ok(())
    }

    /// The client's user may not make its request: records that, and returns the error.
    #[cold]
    pub(super) fn denied(
        &mut self,
        at: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
        denied: Denied,
    ) -> CommandError {
        let is_queueing = self.connections[at].as_deref().is_some_and(|it| it.client.multi.is_some());
        let context = if is_queueing { AclContext::Multi } else { AclContext::TopLevel };
        self.log_denied_request(at, entry, args, denied, context, args.total_len_bytes());
        denied.error(&entry.full_name)
    }

    /// Somebody could not log in.
    pub fn log_auth_failure(&mut self, at: usize, user: &[u8], args: Argv<'_>) {
        let is_executing = self.connections[at].as_deref().is_some_and(|it| it.client.executing.is_some());
        let context = if is_executing { AclContext::Multi } else { AclContext::TopLevel };
        let (object, args_len_bytes) = (args.arg(0).to_vec(), args.total_len_bytes());
        self.log_denied(at, user.to_vec(), Forbidden::Auth, context, object, args_len_bytes);
    }

    /// Adds to ACL LOG that a connection's user may not make a request. `args_len_bytes`: of the request that the connection
    /// is at.
    fn log_denied_request(
        &mut self,
        at: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
        denied: Denied,
        context: AclContext,
        args_len_bytes: usize,
    ) {
        let user = self.connections[at].as_deref().map(|it| it.client.user().name.clone());
        let object = object_of(entry, args, denied);
        self.log_denied(at, user.unwrap_or_default(), denied.what, context, object, args_len_bytes);
    }

    /// Adds to ACL LOG.
    fn log_denied(
        &mut self,
        at: usize,
        user: Vec<u8>,
        what: Forbidden,
        context: AclContext,
        object: Vec<u8>,
        args_len_bytes: usize,
    ) {
        let mut client = Vec::new();
        let now_ms = self.shard.now_ms;
        if let Some(connection) = self.connections[at].as_deref() {
            write_line(&mut client, connection, self.table, now_ms, args_len_bytes, false);
            client.truncate(client.trim_ascii_end().len());
        }
        let entry = AclLogEntry { count: 1, what, context, object, user, at_ms: now_ms, client };
        self.globals.acl.log().add(entry, self.shard.config.acllog_max_len as usize);
    }

    /// Before an EXEC runs: replaces those of its commands that the user may not call any more by their errors, up to the
    /// first that may change the rights of those behind it.
    pub(super) fn recheck_queue(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref() else { return };
        if !connection.client.is_restricted() {
            return;
        }
        let Some(multi) = connection.client.multi.as_deref() else { return };
        let mut refusals = Vec::new();
        for (call, args) in multi.queue.calls() {
            let entry = self.table.entry(call.command);
            // If the EXEC has had to wait, some were replaced before.
            let is_replaced = entry.row.is_hidden;
            let refusal = if is_replaced { None } else { self.check_rights(at, entry, args).err() };
            let changes_rights = refusal.is_none() && may_change_rights(entry);
            refusals.push(refusal);
            if changes_rights {
                break;
            }
        }
        if refusals.iter().any(Option::is_some) {
            self.replace_refused(at, refusals);
        }
    }

    /// `refusals`: of the first commands; the others are not replaced.
    #[cold]
    fn replace_refused(&mut self, at: usize, refusals: Vec<Option<Refusal>>) {
        let Some(old) = self.connections[at].as_deref_mut().and_then(|it| it.client.multi.take()) else {
            return;
        };
        let errors = old.queue.calls().zip(refusals).map(|((call, args), refusal)| {
            let entry = self.table.entry(call.command);
            refusal.map(|refusal| self.error_in_exec(at, entry, args, refusal))
        });
        let errors = errors.collect();
        let new = self.with_errors(old, errors);
        if let Some(connection) = self.connections[at].as_deref_mut() {
            connection.client.multi = Some(new);
        }
    }

    /// Replaces queued commands by their errors. `errors`: of the first commands; the others are not replaced.
    fn with_errors(
        &mut self,
        old: Box<CommandQueue>,
        errors: Vec<Option<CommandError>>,
    ) -> Box<CommandQueue> {
        let (shards, db_count) = (self.shards(), self.shard.db_count());
        let mut new = self.take_command_queue();
        let refuse = self.table.hidden(REFUSED_NAME);
        new.db = old.queue.commands().first().map_or(0, |queued| queued.call.db);
        let mut errors = errors.into_iter();
        for (call, args) in old.queue.calls() {
            let entry = self.table.entry(call.command);
            let Some(error) = errors.next().flatten() else {
                new.add(self.table, entry, entry.row.flags, call, args, None, shards);
                if let Some(selects) = entry.row.selects {
                    new.db = selects(args, db_count).unwrap_or(new.db);
                }
                continue;
            };
            let (call, args) = self.call_refused(call, &error);
            new.add(self.table, refuse, refuse.row.flags, &call, args.as_argv(), None, shards);
        }
        let CommandQueue { has_failed, flags, .. } = *old;
        (new.has_failed, new.flags) = (has_failed, flags);
        self.give_command_queue(old);
        new
    }

    /// While an EXEC runs: whether a command of it may be called by the connection's user, which has changed, or may have.
    /// Returns the error if not.
    pub(super) fn refusal_in_exec(
        &mut self,
        at: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Option<CommandError> {
        if !self.connections[at].as_deref().is_some_and(|it| it.client.is_restricted()) {
            return None;
        }
        let refusal = self.check_rights(at, entry, args).err()?;
        Some(self.error_in_exec(at, entry, args, refusal))
    }

    /// The user may not call a queued command any more: records that, and returns the error.
    fn error_in_exec(
        &mut self,
        at: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
        refusal: Refusal,
    ) -> CommandError {
        let denied = match refusal {
            Refusal::Denied(denied) => denied,
            Refusal::Error(error) => return error,
            Refusal::Paused | Refusal::Subscribed => unreachable!("rights do not depend on the rest"),
        };
        self.log_denied_request(at, entry, args, denied, AclContext::Multi, EXEC_LEN_BYTES);
        denied_in_exec(denied)
    }
}

/// What a queued command is told that is not allowed any more.
fn denied_in_exec(denied: Denied) -> CommandError {
    let reason = match denied.what {
        Forbidden::Command | Forbidden::Auth => "no permission to execute the command or subcommand",
        Forbidden::Key => "no permission to touch the specified keys",
        Forbidden::Channel => "no permission to access one of the channels used as arguments to the command",
    };
    CommandError::new(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command \
         is no longer allowed for the following reason: {reason}"
    ))
}

// What has waited for locks.
impl Worker {
    /// A command has waited for locks. Whether its client's user, as it was when the wait began, may not call it any more:
    /// records that, and returns the error. `home`: the shard of its client.
    pub(super) fn refusal_after_wait(
        &mut self,
        user: &User,
        call: &Call,
        home: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Option<CommandError> {
        let now = self.restricted_after_wait(user, call)?;
        let called = entry.stands_for.map_or(entry, |id| self.table.entry(id));
        self.judge_after_wait(user, &now, call, home, called, args, AclContext::TopLevel)
    }

    /// The user by whose rights a command that has waited is judged, if it may not do everything.
    pub(super) fn restricted_after_wait(&self, user: &User, call: &Call) -> Option<Arc<User>> {
        // What the server itself repeats is not judged.
        if call.client == 0 { None } else { self.globals.acl.restricted_now(user) }
    }

    /// The same of a command of an EXEC, if `context` says that it is one. `user`: as it was when the wait began, `now`: what has
    /// become of it.
    #[allow(clippy::too_many_arguments, reason = "the caller has found out all of it")]
    pub(super) fn judge_after_wait(
        &mut self,
        user: &User,
        now: &User,
        call: &Call,
        home: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
        context: AclContext,
    ) -> Option<CommandError> {
        // What the server has put in the place of a request has its rights.
        if entry.row.is_hidden {
            return None;
        }
        let denied = match self.check_rights_of(now, entry, args).err()? {
            Refusal::Denied(denied) => denied,
            Refusal::Error(error) => return Some(error),
            Refusal::Paused | Refusal::Subscribed => unreachable!("rights do not depend on the rest"),
        };
        let (what, object, user) = (denied.what, object_of(entry, args, denied), user.name.clone());
        self.note_refused(home, RefusedCall { client: call.client, context, user, what, object });
        Some(match context {
            AclContext::Multi => denied_in_exec(denied),
            AclContext::TopLevel | AclContext::Lua | AclContext::Module => denied.error(&entry.full_name),
        })
    }

    /// An EXEC has waited for locks: replaces those of its commands by their errors that are not allowed any more.
    pub(super) fn without_refused(&mut self, user: &User, home: usize, exec: &Call, queue: Queue) -> Queue {
        let Some(now) = self.restricted_after_wait(user, exec) else { return queue };
        let mut new = Queue::default();
        for (queued, args) in queue.iter() {
            let entry = self.table.entry(queued.call.command);
            match self.judge_after_wait(user, &now, exec, home, entry, args, AclContext::Multi) {
                None => new.push_args(queued.call, queued.place, args),
                Some(error) => {
                    let (call, args) = self.call_refused(&queued.call, &error);
                    new.push_args(call, queued.place, args.as_argv());
                }
            }
        }
        new
    }

    /// The same of an EXEC over several shards.
    pub(super) fn without_refused_at_home(
        &mut self,
        user: &User,
        exec: &Call,
        old: Box<CommandQueue>,
    ) -> Box<CommandQueue> {
        let Some(now) = self.restricted_after_wait(user, exec) else { return old };
        let mut errors = Vec::new();
        for (call, args) in old.queue.calls() {
            let entry = self.table.entry(call.command);
            let home = self.shard.index;
            errors.push(self.judge_after_wait(user, &now, exec, home, entry, args, AclContext::Multi));
            // Those behind it are judged when it has run.
            if may_change_rights(entry) {
                break;
            }
        }
        if errors.iter().all(Option::is_none) { old } else { self.with_errors(old, errors) }
    }

    /// What takes the place of a queued command that is not allowed any more.
    pub(super) fn call_refused(&self, queued: &Call, error: &CommandError) -> (Call, OwnedArgv) {
        let refuse = self.table.hidden(REFUSED_NAME);
        let call = Call { command: refuse.id, hash: 0, hashed_arg: 0, ..*queued };
        (call, OwnedArgv::from_slices(&[REFUSED_NAME.as_bytes(), error.as_bytes()]))
    }
}

/// Whether the commands of an EXEC behind this one are to be judged when it has run. A module may log its client in.
pub(super) fn may_change_rights(entry: &CommandEntry) -> bool {
    entry.row.has(flag::CHANGES_RIGHTS | flag::MODULE)
}

/// The command, key or channel.
fn object_of(entry: &CommandEntry, args: Argv<'_>, denied: Denied) -> Vec<u8> {
    match denied.what {
        Forbidden::Command | Forbidden::Auth => entry.full_name.clone().into_bytes(),
        Forbidden::Key | Forbidden::Channel => args.arg(denied.at).to_vec(),
    }
}

// Programs.
impl Worker {
    /// The user by whose rights a program calls commands, if it may not do everything.
    #[inline]
    pub(super) fn restricted_user_of(&self, call: &Call) -> Option<Arc<User>> {
        self.globals.acl.restricted_user_of(call)
    }

    /// Whether a user may call a command from a script.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check_script_call(
        &mut self,
        user: &User,
        client: ClientId,
        home: usize,
        entry: &CommandEntry,
        args: Argv<'_>,
    ) -> Result<(), CommandError> {
        let denied = match self.check_rights_of(user, entry, args) {
            Ok(()) => return Ok(()),
            Err(Refusal::Denied(denied)) => denied,
            Err(Refusal::Error(error)) => return Err(error),
            Err(Refusal::Paused | Refusal::Subscribed) => unreachable!("rights do not depend on the rest"),
        };
        let object = object_of(entry, args, denied);
        let (context, user) = (AclContext::Lua, user.name.clone());
        self.note_refused(home, RefusedCall { client, context, user, what: denied.what, object });
        Err(CommandError::fixed(match denied.what {
            Forbidden::Command | Forbidden::Auth => {
                "ERR The user executing the script can't run this command or subcommand"
            }
            Forbidden::Key => {
                "ERR The user executing the script can't access at least one of the keys mentioned in the command \
                 arguments"
            }
            Forbidden::Channel => {
                "ERR The user executing the script can't publish to the channel mentioned in the command"
            }
        }))
    }

    /// A program was refused a call. `home`: the shard of its client.
    pub fn note_refused(&mut self, home: usize, refused: RefusedCall) {
        if home == self.shard.index {
            self.log_refused(refused);
        } else {
            self.send(home, Message::Refused(Box::new(refused)));
        }
    }

    /// A program of one of this shard's clients, which may have disconnected since, was refused a call.
    pub(super) fn log_refused(&mut self, refused: RefusedCall) {
        let RefusedCall { client, context, user, what, object } = refused;
        if let Some(at) = self.find_client(client) {
            self.log_denied(at, user, what, context, object, 0);
        }
    }

    /// Notes what a module's client was refused: see [`AclContext::Module`].
    pub fn note_refused_by_module(
        &mut self,
        call: &Call,
        entry: &CommandEntry,
        args: Argv<'_>,
        denied: Denied,
    ) {
        let (context, user) = (AclContext::Module, self.globals.acl.user_of(call).name.clone());
        let (what, object) = (denied.what, object_of(entry, args, denied));
        let refused = RefusedCall { client: call.client, context, user, what, object };
        self.note_refused(usize::from(call.home), refused);
    }
}

/// The row that takes the place of a queued command which is not allowed any more.
pub const REFUSED: &[Command] = &[Command::keys(REFUSED_NAME, 2, refused)
    .flags(flag::SKIP_SLOWLOG | flag::SKIP_MONITOR)
    .hidden()
    .docs(Docs::new("server", "7.0.0", "Replies with an error").complexity("O(1)").internal())];

const REFUSED_NAME: &str = "refused";

/// REFUSED error. Reply: the error.
fn refused(ctx: &mut Ctx<'_>) -> CommandResult {
    Err(CommandError::new(ctx.args.arg(1)))
}
