//! The session of one connection: the state that Redis' CLIENT commands show and set.

use crate::acl::{User, Users};
use crate::command::Call;
use crate::command::admission::{Caller, QueuedFlags};
use crate::command::placement::{Placement, Routes, Shards};
use crate::command::queue::Queue;
use crate::command::table::{CommandEntry, CommandId, CommandTable, Run, flag};
use crate::protocol::Argv;
use crate::protocol::reply::Resp;
use crate::pubsub::{Kind, Subscriptions};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

pub use crate::call::ClientId;

/// CLIENT REPLY's modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command gets no reply (CLIENT REPLY SKIP).
    SkipNext,
    /// The running command gets no reply.
    Skip,
}

/// What a client that is a replica, or is about to become one, has told by REPLCONF, and the phase it is in.
#[derive(Clone, Default, Debug)]
pub struct ReplicaSession {
    pub listening_port: u16,
    /// The address under which it wants to be listed; empty: that of its connection.
    pub ip: Vec<u8>,
    /// It can tell the end of a snapshot whose length is not known beforehand (capa eof).
    pub takes_mark: bool,
    /// It takes over a new replication id when it goes on (capa psync2).
    pub takes_new_id: bool,
    /// It wants the snapshot, and not the stream.
    pub rdb_only: bool,
    /// It wants no keys, or no libraries of functions, in the snapshot.
    pub filters_keys: bool,
    pub filters_functions: bool,
    /// How much of the stream waits for it, beside its output.
    pub behind_bytes: u64,
    pub phase: ReplicaPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ReplicaPhase {
    /// It has not asked for the effect stream.
    #[default]
    Stranger,
    /// It has asked for it, by SYNC or PSYNC.
    Asked,
    /// It gets a snapshot, or reads the stream.
    Reading,
}

/// The shards that own the keys of queued commands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ShardSpan {
    /// No command has keys so far.
    #[default]
    None,
    /// One shard owns them all.
    One(usize),
    Many,
}

impl ShardSpan {
    /// The span after a further command over keys of `shard`.
    pub fn with(self, shard: usize) -> ShardSpan {
        match self {
            ShardSpan::None => ShardSpan::One(shard),
            ShardSpan::One(known) if known == shard => self,
            ShardSpan::One(_) | ShardSpan::Many => ShardSpan::Many,
        }
    }
}

/// The commands that a client has queued since MULTI. Also used for a single command over several shards, and for a
/// coalesced pipeline.
#[derive(Default, Debug)]
pub struct CommandQueue {
    pub queue: Queue,
    /// Where the queue's commands run. The last ones may be missing if each is over one key and all keys are on one
    /// shard, because then they are nearly always not needed. See [`CommandQueue::complete_routes`].
    pub routes: Routes,
    /// A command could not be queued, so EXEC will fail.
    pub has_failed: bool,
    /// The flags of all queued commands, combined by OR.
    pub flags: u64,
    /// The flags that at least one of them lacks.
    lacked_flags: u64,
    pub span: ShardSpan,
    /// One of them is over the session.
    pub has_session: bool,
    /// One of them runs on every shard.
    pub has_every: bool,
    /// The database of the next queued command.
    pub db: u32,
    /// A queued command changes what its client tracks. All that those behind it read is tracked: too much does not harm.
    pub changes_tracking: bool,
}

impl CommandQueue {
    /// Queues a command. `flags`: those by which admission judges it. `known`: the hash and the shard of its key, if it has a single key and they are known.
    pub fn add(
        &mut self,
        table: &CommandTable,
        entry: &CommandEntry,
        flags: u64,
        call: &Call,
        args: Argv<'_>,
        known: Option<(u64, usize)>,
        shards: Shards,
    ) {
        let is_program = matches!(entry.row.run, Run::Program(_));
        let placement = match known {
            Some((_, shard)) if !is_program && self.span.with(shard) == ShardSpan::One(shard) => {
                Placement::One(shard)
            }
            _ => {
                self.complete_routes(table, shards);
                self.routes.add(entry, args, known, shards)
            }
        };
        match placement {
            Placement::Anywhere => {}
            Placement::One(shard) => self.span = self.span.with(shard),
            Placement::Split | Placement::CheckOut | Placement::CheckOutDerived => {
                self.span = ShardSpan::Many
            }
            Placement::Every(_) => {
                self.has_every = true;
                self.span = if shards.count == 1 { self.span.with(0) } else { ShardSpan::Many };
            }
            Placement::Session | Placement::SessionPrecomputed => self.has_session = true,
        }
        self.flags |= flags;
        self.lacked_flags |= !flags;
        let tracks = call.tracks || self.changes_tracking;
        self.changes_tracking |= entry.row.has(flag::CHANGES_TRACKING);
        let call = Call { db: self.db, in_exec: true, tracks, ..*call };
        self.queue.push(call, self.queue.len() as u32, args);
    }

    /// What admission asks of the queued commands.
    fn queued_flags(&self) -> QueuedFlags {
        QueuedFlags { any: self.flags, lacked: self.lacked_flags }
    }

    /// Adds the routes that are missing: see [`CommandQueue::routes`].
    pub fn complete_routes(&mut self, table: &CommandTable, shards: Shards) {
        let ShardSpan::One(shard) = self.span else { return };
        for at in self.routes.len()..self.queue.len() {
            let call = &self.queue.commands()[at].call;
            let known = Some((call.hash, shard));
            self.routes.add(table.entry(call.command), self.queue.args(at), known, shards);
        }
    }

    /// Resets it to its initial state, and keeps its memory for reuse.
    pub fn clear(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        let mut routes = std::mem::take(&mut self.routes);
        queue.clear();
        routes.clear();
        *self = CommandQueue { queue, routes, ..CommandQueue::default() };
    }
}

/// How much a client has queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSize {
    pub commands: usize,
    pub memory_bytes: usize,
}

impl QueueSize {
    pub fn of(multi: &CommandQueue) -> QueueSize {
        let memory_bytes = multi.queue.heap_len_bytes() + multi.routes.heap_len_bytes();
        QueueSize { commands: multi.queue.len(), memory_bytes }
    }
}

/// What a client has asked for by CLIENT TRACKING ON. How it is told is described in
/// [`shard::tracking`](crate::shard::tracking).
#[derive(Clone, Default, Debug)]
pub struct Tracking {
    /// The client that is told in its place, and the home of that; 0: none.
    pub redirect: ClientId,
    pub redirect_home: u16,
    /// The client that is to be told is no more.
    pub is_broken: bool,
    pub mode: TrackingMode,
    /// It is not told of its own changes.
    pub noloop: bool,
    /// In broadcast mode: of which keys it is told.
    pub prefixes: BTreeSet<Arc<[u8]>>,
}

impl Tracking {
    /// About how much memory it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        const NODE_BYTES: usize = 40;
        let prefixes = self.prefixes.iter().map(|prefix| prefix.len() + NODE_BYTES);
        size_of::<Tracking>() + prefixes.sum::<usize>()
    }
}

/// Of which keys a client is told when they change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TrackingMode {
    /// Those that it has read.
    #[default]
    Read,
    /// Those that it has read by commands behind CLIENT CACHING YES (OPTIN).
    OptIn,
    /// Those that it has read, but for commands behind CLIENT CACHING NO (OPTOUT).
    OptOut,
    /// All with its prefixes (BCAST).
    Broadcast,
}

/// The shards on which a client watches keys, in ascending order.
pub type WatchedShards = SmallVec<[u16; 4]>;

/// What a watched key takes besides its name, on its shard and for its client.
const WATCHED_KEY_BYTES: usize = 64;

/// A connected client's session.
pub struct Client {
    pub id: ClientId,
    pub db: u32,
    pub resp: Resp,
    pub authenticated: bool,
    user: Arc<User>,
    /// Its user may not do everything.
    is_restricted: bool,
    /// It is not the default user.
    has_named_user: bool,
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    pub addr: String,
    pub laddr: String,
    /// The accepted socket, as CLIENT LIST shows it.
    pub fd: i32,
    pub unix_socket: bool,
    /// It speaks TLS.
    pub tls: bool,
    /// It is connected from this machine: by a loopback address or a unix socket.
    pub is_local: bool,
    pub reply_mode: ReplyMode,
    pub no_touch: bool,
    pub no_evict: bool,
    /// Wall clock at accept, in milliseconds.
    pub created_at_ms: i64,
    /// Wall clock of the last request, in milliseconds.
    pub active_at_ms: i64,
    pub last_command: Option<CommandId>,
    pub input_total_bytes: u64,
    pub output_total_bytes: u64,
    pub command_count: u64,
    /// Between MULTI and EXEC.
    pub multi: Option<Box<CommandQueue>>,
    /// While its EXEC runs: the size of the queue.
    pub executing: Option<QueueSize>,
    /// Where it watches keys.
    pub watching: WatchedShards,
    /// What that takes on all shards, about: a key that is watched twice counts twice.
    pub watched_bytes: usize,
    /// What it listens to, if that is anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// It is told of changes of the keys that it reads.
    pub tracking: Option<Box<Tracking>>,
    /// What its next command reads is remembered for that.
    tracks_reads: bool,
    /// CLIENT CACHING has been given for its next command.
    caching_given: bool,
    /// It watches all commands: the version of the directory's part since which it does.
    pub monitors_since: Option<u64>,
    pub replica: Option<Box<ReplicaSession>>,
    /// It is the server itself: it runs the commands of a file. Not shown to other clients.
    pub is_server: bool,
}

/// The default user of a server without rules, who may do everything.
static ANYBODY: LazyLock<Arc<User>> = LazyLock::new(|| Arc::clone(Users::default().default_user()));

impl Client {
    /// A client whose connection has just been accepted. `authenticated`: it needs no password. Its user may do everything.
    pub fn new(id: ClientId, now_ms: i64, authenticated: bool) -> Client {
        Client {
            id,
            db: 0,
            resp: Resp::V2,
            authenticated,
            user: Arc::clone(&ANYBODY),
            is_restricted: false,
            has_named_user: false,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            addr: String::new(),
            laddr: String::new(),
            fd: -1,
            unix_socket: false,
            tls: false,
            is_local: false,
            reply_mode: ReplyMode::On,
            no_touch: false,
            no_evict: false,
            created_at_ms: now_ms,
            active_at_ms: now_ms,
            last_command: None,
            input_total_bytes: 0,
            output_total_bytes: 0,
            command_count: 0,
            multi: None,
            executing: None,
            watching: WatchedShards::new(),
            watched_bytes: 0,
            subscriptions: None,
            tracking: None,
            tracks_reads: false,
            caching_given: false,
            monitors_since: None,
            replica: None,
            is_server: false,
        }
    }
}

impl Client {
    /// Whether the client reads the effect stream or has asked for it. It gets no replies any more.
    pub fn is_replica(&self) -> bool {
        self.replica.as_deref().is_some_and(|replica| replica.phase != ReplicaPhase::Stranger)
    }

    /// It watches the keys of this WATCH, which are on these shards.
    pub fn add_watched(&mut self, shards: &[u16], args: Argv<'_>) {
        self.watching.extend_from_slice(shards);
        self.watching.sort_unstable();
        self.watching.dedup();
        self.watched_bytes += args.total_len_bytes() + (args.len() - 1) * WATCHED_KEY_BYTES;
    }

    /// It watches nothing any more. Returns where it did.
    pub fn take_watching(&mut self) -> WatchedShards {
        self.watched_bytes = 0;
        std::mem::take(&mut self.watching)
    }

    /// The size of what is queued since MULTI, also while EXEC runs it.
    pub fn queued(&self) -> Option<QueueSize> {
        self.multi.as_deref().map(QueueSize::of).or(self.executing)
    }

    /// A call with what all its commands have in common at present. `home`: the shard that serves it.
    #[inline]
    pub fn call(&self, home: usize) -> Call {
        Call {
            db: self.db,
            resp: self.resp,
            no_touch: self.no_touch,
            has_named_user: self.has_named_user(),
            client: self.id,
            home: home as u16,
            tracks: self.tracks_reads,
            ..Call::default()
        }
    }

    /// The server itself, when it runs the commands of a file.
    pub fn of_server(now_ms: i64) -> Client {
        Client { is_server: true, unix_socket: true, is_local: true, ..Client::new(0, now_ms, true) }
    }

    /// Sets what it has asked for by CLIENT TRACKING.
    pub fn set_tracking(&mut self, tracking: Option<Box<Tracking>>) {
        self.tracking = tracking;
        if self.tracking.is_none() {
            self.caching_given = false;
        }
        self.update_tracks_reads();
    }

    /// CLIENT CACHING was given for its next command, or no longer holds.
    pub fn set_caching_given(&mut self, is_given: bool) {
        self.caching_given = is_given;
        self.update_tracks_reads();
    }

    fn update_tracks_reads(&mut self) {
        self.tracks_reads = self.tracking.as_deref().is_some_and(|tracking| match tracking.mode {
            TrackingMode::Read => true,
            TrackingMode::OptIn => self.caching_given,
            TrackingMode::OptOut => !self.caching_given,
            TrackingMode::Broadcast => false,
        });
    }

    /// Whether its next command may be tracked otherwise than those behind it.
    #[inline(always)]
    pub fn caching_given(&self) -> bool {
        self.caching_given
    }

    /// How many bytes of requests may wait, or be queued after MULTI. `limit_bytes`: client-query-buffer-limit. A
    /// transaction in a file may be longer than what clients may send: it has the effects of a script, whatever their
    /// number.
    #[inline]
    pub fn query_len_max_bytes(&self, limit_bytes: u64) -> u64 {
        if self.is_server { u64::MAX } else { limit_bytes }
    }

    /// The client as which a module calls a command.
    pub fn of_program(now_ms: i64) -> Client {
        Client { is_local: true, ..Client::new(0, now_ms, true) }
    }

    /// The facts about it that admission needs.
    #[inline(always)]
    pub fn caller(&self) -> Caller {
        Caller {
            authenticated: self.authenticated,
            is_local: self.is_local,
            queued_flags: self.multi.as_deref().map(CommandQueue::queued_flags),
            is_server: self.is_server,
            is_subscribed: self.subscriptions.is_some(),
            is_monitor: self.monitors_since.is_some() || self.is_replica(),
            resp: self.resp,
            has_limited_user: self.is_restricted,
        }
    }

    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Whether its user may not do everything.
    #[inline(always)]
    pub fn is_restricted(&self) -> bool {
        self.is_restricted
    }

    /// Whether it has logged in as another user than the default one.
    #[inline(always)]
    pub fn has_named_user(&self) -> bool {
        self.has_named_user
    }

    pub fn set_user(&mut self, user: Arc<User>) {
        self.is_restricted = !user.is_unrestricted();
        self.has_named_user = !user.is_default();
        self.user = user;
    }

    /// Whether its user may use all that it listens to.
    pub fn may_listen(&self) -> bool {
        let Some(subscriptions) = self.subscriptions.as_deref() else { return true };
        [Kind::Channel, Kind::Pattern, Kind::ShardChannel].into_iter().all(|kind| {
            let is_pattern = kind == Kind::Pattern;
            subscriptions.names(kind).all(|name| self.user.allows_channel(name, is_pattern))
        })
    }

    /// It has given the password of this user, or need not.
    pub fn log_in(&mut self, user: Arc<User>) {
        self.authenticated = true;
        self.set_user(user);
    }

    /// It has the default user, and is logged in if that needs no password.
    pub fn log_out(&mut self, default_user: Arc<User>) {
        self.authenticated = default_user.is_open();
        self.set_user(default_user);
    }

    /// It has the default user, and may do nothing before it logs in.
    pub fn shut_out(&mut self, default_user: Arc<User>) {
        self.log_out(default_user);
        self.authenticated = false;
    }

    /// Sets its address as CLIENT LIST shows it, and whether it is connected by a unix socket.
    pub fn set_peer(&mut self, addr: String, unix_socket: bool) {
        self.is_local = unix_socket || addr.starts_with("127.0.0.1:") || addr.starts_with("[::1]:");
        (self.addr, self.unix_socket) = (addr, unix_socket);
    }
}
