//! State that all shards of a process share: read often, written rarely, and never written on the request path.

use crate::client::ClientId;
use crate::command::admission::PauseKind;
use crate::command::table::{CommandId, CommandTable};
use crate::config::Config;
use crate::pubsub::Directory;
use crate::runtime::clock::Clock;
use crate::runtime::listener;
use crate::runtime::tls::Tls;
use crate::script::Registry;
use crate::shard::evict::EvictionBoard;
use crate::shard::latency::LatencyCounts;
use crate::shard::message::Listeners;
use crate::shard::stats::ShardStats;
use crate::shard::tracking::TrackingTotals;
use crate::types::module::ModuleTypes;
use crate::worker::acl::AclGlobals;
use crate::worker::aof::Aof;
use crate::worker::client_memory::ClientMemoryBoard;
use crate::worker::failover::Failover;
use crate::worker::feed::FeedQueue;
use crate::worker::hooks::Hooks;
use crate::worker::latency::LatencyMonitor;
use crate::worker::link::LinkGlobals;
use crate::worker::monitor::ClientAddrs;
use crate::worker::peers::Peers;
use crate::worker::persistence::Persistence;
use crate::worker::program::{BusyPrograms, Outside};
use crate::worker::shutdown::ShutdownWait;
use crate::worker::{Closing, StreamGlobals};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The process' shared state. Lives as long as the process.
pub struct Globals {
    /// The command table at the start.
    first_table: CommandTable,
    /// The table that replaced it, if commands were added or removed since.
    later_table: Mutex<Option<&'static CommandTable>>,
    table_version: AtomicU64,
    pub stats: Vec<Arc<ShardStats>>,
    pub seed: u64,
    /// 40 hexadecimal digits, new at every start.
    pub run_id: String,
    /// Wall clock at start, in milliseconds.
    pub started_at_ms: i64,
    /// `io_uring` or `epoll`.
    pub io_backend: &'static str,
    /// As typed, for INFO.
    pub executable: String,
    config: Mutex<Arc<Config>>,
    pub acl: AclGlobals,
    config_version: AtomicU64,
    next_client_id: AtomicU64,
    /// Until when any pause is in force.
    pause_until_ms: AtomicI64,
    pauses: [Pause; PauseReason::COUNT],
    pub active_expire: AtomicBool,
    pub stream: StreamGlobals,
    /// The link to the master of this server.
    pub link: LinkGlobals,
    pub persistence: Persistence,
    pub aof: Aof,
    /// Commands that the server itself is to run: of a file, or of its master's stream.
    pub feed: FeedQueue,
    /// Scripts and libraries of functions.
    pub scripts: Registry,
    /// For each shard: what other threads hand over to it.
    pub outside: Vec<Outside>,
    /// The servers that keys are sent to.
    pub peers: Peers,
    pub hooks: Hooks,
    /// The addresses of all clients.
    pub(super) client_addrs: ClientAddrs,
    /// Who listens to what.
    pub directory: Arc<Directory>,
    pub evictions: EvictionBoard,
    /// How much clients track.
    pub tracking: Arc<TrackingTotals>,
    pub latency: Arc<LatencyMonitor>,
    pub(super) client_memory: ClientMemoryBoard,
    /// The types of values that modules have registered.
    pub module_types: Arc<ModuleTypes>,
    pub closing: Closing,
    pub shutdown: ShutdownWait,
    pub failover: Failover,
    pub busy_programs: BusyPrograms,
    stopping: AtomicBool,
    next_slowlog_id: AtomicU64,
    /// Errors of commands that must not fail: see [`divergence`](crate::worker::divergence).
    unexpected_errors: AtomicU64,
    /// Allocated bytes once all shards had started; 0 before that is known.
    startup_memory_bytes: AtomicU64,
    peak_memory_bytes: AtomicU64,
    /// Allocated by threads other than the shards'.
    other_memory_bytes: AtomicI64,
    /// All shards sleep until then (DEBUG SLEEP); unix time in milliseconds.
    stall_until_ms: AtomicI64,
    /// Scripts may call commands that they must not call otherwise (DEBUG SET-DISABLE-DENY-SCRIPTS).
    pub scripts_are_trusted: AtomicBool,
    /// DEBUG PAUSE-CRON.
    cron_paused: AtomicBool,
    /// How often a client's peak output length is reset; negative: never (DEBUG REPLYBUFFER).
    pub reply_peak_reset_ms: AtomicI64,
    /// Whether a client's reply buffer is resized to its peak (DEBUG REPLYBUFFER).
    pub reply_buffers_resize: AtomicBool,
    /// Duplicates of the TCP sockets that the server listens on, for CONFIG SET to change them.
    listeners: Mutex<Listeners>,
    /// What new connections on `tls-port` are encrypted with.
    pub tls: Tls,
}

/// Why clients are paused. Each pause is by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseReason {
    /// CLIENT PAUSE
    Client,
    /// The server ends as soon as its replicas have all of the stream.
    Shutdown,
    Failover,
}

impl PauseReason {
    const COUNT: usize = 3;
}

#[derive(Default)]
struct Pause {
    until_ms: AtomicI64,
    all: AtomicBool,
}

/// How often a client's peak output length is reset, unless DEBUG REPLYBUFFER says otherwise.
pub const REPLY_PEAK_RESET_MS: i64 = 5000;

/// The initial values of [`Globals`].
pub struct GlobalsInit {
    pub config: Config,
    pub tls: Tls,
    pub table: CommandTable,
    pub shard_count: usize,
    pub seed: u64,
    pub run_id: String,
    pub started_at_ms: i64,
    pub io_backend: &'static str,
    pub executable: String,
}

impl Globals {
    pub fn new(init: GlobalsInit) -> Globals {
        let stream = StreamGlobals::new(init.shard_count, init.seed, &init.run_id);
        let databases = init.config.databases as usize;
        let stats = (0..init.shard_count)
            .map(|_| Arc::new(ShardStats::new(init.table.id_count(), databases)))
            .collect();
        Globals {
            first_table: init.table,
            later_table: Mutex::new(None),
            table_version: AtomicU64::new(1),
            stats,
            seed: init.seed,
            run_id: init.run_id,
            started_at_ms: init.started_at_ms,
            io_backend: init.io_backend,
            executable: init.executable,
            config: Mutex::new(Arc::new(init.config)),
            config_version: AtomicU64::new(1),
            acl: AclGlobals::default(),
            next_client_id: AtomicU64::new(1),
            pause_until_ms: AtomicI64::new(0),
            pauses: Default::default(),
            active_expire: AtomicBool::new(true),
            stream,
            link: LinkGlobals::default(),
            persistence: Persistence::new(init.started_at_ms),
            aof: Aof::new(init.shard_count),
            latency: Arc::default(),
            client_memory: ClientMemoryBoard::new(init.shard_count),
            feed: FeedQueue::default(),
            scripts: Registry::default(),
            outside: (0..init.shard_count).map(|_| Outside::default()).collect(),
            peers: Peers::default(),
            hooks: Hooks::default(),
            client_addrs: ClientAddrs::default(),
            directory: Arc::new(Directory::new(init.shard_count)),
            evictions: EvictionBoard::new(init.shard_count),
            tracking: Arc::default(),
            module_types: Arc::default(),
            closing: Closing::default(),
            shutdown: ShutdownWait::default(),
            failover: Failover::default(),
            busy_programs: BusyPrograms::default(),
            stopping: AtomicBool::new(false),
            next_slowlog_id: AtomicU64::new(0),
            unexpected_errors: AtomicU64::new(0),
            startup_memory_bytes: AtomicU64::new(0),
            peak_memory_bytes: AtomicU64::new(0),
            other_memory_bytes: AtomicI64::new(0),
            stall_until_ms: AtomicI64::new(0),
            scripts_are_trusted: AtomicBool::new(false),
            cron_paused: AtomicBool::new(false),
            reply_peak_reset_ms: AtomicI64::new(REPLY_PEAK_RESET_MS),
            reply_buffers_resize: AtomicBool::new(true),
            listeners: Mutex::default(),
            tls: init.tls,
        }
    }

    #[inline]
    pub fn table_version(&self) -> u64 {
        self.table_version.load(Ordering::Acquire)
    }

    /// The command table and its version.
    pub fn table(&'static self) -> (u64, &'static CommandTable) {
        let later = self.later_table.lock().expect("no holder of the command table panics");
        (self.table_version(), later.unwrap_or(&self.first_table))
    }

    /// Adds or removes commands: `change` gets the table and returns the new one. Other shards adopt it at their next
    /// turn, which is before they read anything that a client sends after it saw the reply, and before they handle a
    /// message of a shard that has adopted it.
    ///
    /// # Errors
    /// Those of `change`; the table is then as before.
    pub fn update_table<E>(
        &'static self,
        change: impl FnOnce(&CommandTable) -> Result<CommandTable, E>,
    ) -> Result<(), E> {
        let mut later = self.later_table.lock().expect("no holder of the command table panics");
        let table = change(later.unwrap_or(&self.first_table))?;
        *later = Some(Box::leak(Box::new(table)));
        self.table_version.fetch_add(1, Ordering::Release);
        self.config_version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Whether there is a command of this name.
    pub fn knows_command(&self, name: &[u8]) -> bool {
        let later = self.later_table.lock().expect("no holder of the command table panics");
        later.unwrap_or(&self.first_table).lookup(name).is_some()
    }

    #[inline]
    pub fn config_version(&self) -> u64 {
        self.config_version.load(Ordering::Acquire)
    }

    /// The configuration and its version.
    pub fn config(&self) -> (u64, Arc<Config>) {
        let config = self.config.lock().expect("no holder of the configuration panics");
        (self.config_version(), Arc::clone(&config))
    }

    /// Changes the configuration by `change`, as a whole or not at all. Other shards see it at their next turn,
    /// which is before they read anything that a client sends after it saw the reply.
    ///
    /// # Errors
    /// Those of `change`; the configuration is then as before.
    pub fn update_config<T, E>(
        &self,
        change: impl FnOnce(&Config) -> Result<(Config, T), E>,
    ) -> Result<T, E> {
        let mut config = self.config.lock().expect("no holder of the configuration panics");
        let (new, value) = change(&config)?;
        *config = Arc::new(new);
        self.config_version.fetch_add(1, Ordering::Release);
        Ok(value)
    }

    pub fn next_client_id(&self) -> ClientId {
        self.next_client_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn next_slowlog_id(&self) -> u64 {
        self.next_slowlog_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn count_unexpected_error(&self) {
        self.unexpected_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// How many commands have failed that must not.
    pub fn unexpected_errors(&self) -> u64 {
        self.unexpected_errors.load(Ordering::Relaxed)
    }

    /// The pause in force at `now_ms`.
    #[inline]
    pub fn pause(&self, now_ms: i64) -> Option<PauseKind> {
        if self.pause_until_ms.load(Ordering::Relaxed) <= now_ms {
            return None;
        }
        let in_force = |pause: &&Pause| pause.until_ms.load(Ordering::Relaxed) > now_ms;
        let kinds = self.pauses.iter().filter(in_force).map(|pause| pause.all.load(Ordering::Relaxed));
        kinds.max().map(|all| if all { PauseKind::All } else { PauseKind::Write })
    }

    /// When the last pause ends, unix time in milliseconds.
    pub fn pause_until_ms(&self) -> i64 {
        self.pause_until_ms.load(Ordering::Relaxed)
    }

    /// Pauses clients until `until_ms`. A pause in force is never shortened nor made less strict.
    pub fn set_pause(&self, until_ms: i64, kind: PauseKind, reason: PauseReason, now_ms: i64) {
        let pause = &self.pauses[reason as usize];
        let in_force_until_ms = pause.until_ms.load(Ordering::Relaxed);
        let is_in_force = in_force_until_ms > now_ms;
        let all = kind == PauseKind::All || is_in_force && pause.all.load(Ordering::Relaxed);
        let until_ms = if is_in_force { until_ms.max(in_force_until_ms) } else { until_ms };
        pause.all.store(all, Ordering::Relaxed);
        pause.until_ms.store(until_ms, Ordering::Relaxed);
        self.pauses_have_changed();
    }

    /// Ends a pause. Shards resume their paused clients at their next turn.
    pub fn end_pause(&self, reason: PauseReason) {
        self.pauses[reason as usize].until_ms.store(0, Ordering::Relaxed);
        self.pauses_have_changed();
    }

    fn pauses_have_changed(&self) {
        let until_ms = self.pauses.iter().map(|pause| pause.until_ms.load(Ordering::Relaxed)).max();
        self.pause_until_ms.store(until_ms.unwrap_or(0), Ordering::Relaxed);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    /// How many turns each shard has begun.
    pub fn turn_counts(&self) -> Vec<u64> {
        self.stats.iter().map(|stats| stats.turns.get()).collect()
    }

    /// Whether all shards have ended the turn that they had begun then, and have begun another one.
    pub fn have_turned_since(&self, turns: &[u64]) -> bool {
        // The one behind the next one: a turn is counted when it begins, before it looks what has changed.
        self.stats.iter().zip(turns).all(|(stats, &before)| stats.turns.get() >= before + 2)
    }

    /// Wakes all shards.
    pub fn ring_all(&self) {
        (0..self.stats.len()).for_each(|shard| self.aof.ring(shard));
    }

    /// Makes all shards sleep until `until_ms`, each from its next turn on.
    pub fn stall(&self, until_ms: i64) {
        self.stall_until_ms.store(until_ms, Ordering::Relaxed);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    /// How long they sleep still.
    pub fn stall_left(&self, now_ms: i64) -> Option<Duration> {
        let left_ms = self.stall_until_ms.load(Ordering::Relaxed) - now_ms;
        u64::try_from(left_ms).ok().filter(|&left_ms| left_ms > 0).map(Duration::from_millis)
    }

    pub fn is_cron_paused(&self) -> bool {
        self.cron_paused.load(Ordering::Relaxed)
    }

    pub fn pause_cron(&self, is_paused: bool) {
        self.cron_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Updates the peak of the allocated memory, and, once all shards have reported theirs, the memory at startup.
    pub fn record_memory(&self) {
        let used = self.used_memory();
        self.peak_memory_bytes.fetch_max(used, Ordering::Relaxed);
        if self.stats.iter().all(|stats| stats.used_memory() != 0) {
            let _ = self.startup_memory_bytes.compare_exchange(0, used, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory_bytes.load(Ordering::Relaxed)
    }

    pub fn startup_memory_bytes(&self) -> u64 {
        self.startup_memory_bytes.load(Ordering::Relaxed)
    }

    /// Replaces the TCP sockets that the server listens on. `change` gets the old ones and returns the new ones, which
    /// the caller passes to the accepting shard.
    ///
    /// # Errors
    /// Those of `change`; nothing has changed then.
    pub fn change_listeners<E>(
        &self,
        change: impl FnOnce(&Listeners) -> Result<Listeners, E>,
    ) -> Result<Listeners, E> {
        let mut listeners = self.listeners.lock().expect("no holder of the listeners panics");
        let new = change(&listeners)?;
        let duplicate =
            |sockets: &[OwnedFd]| sockets.iter().filter_map(|socket| socket.try_clone().ok()).collect();
        // Their ports are free at once, and not only when the accepting shard has closed them.
        listener::refuse(listeners.tcp.iter().chain(&listeners.tls));
        *listeners = Listeners { tcp: duplicate(&new.tcp), tls: duplicate(&new.tls) };
        Ok(new)
    }

    /// The process ends. Nobody connects any more, so whoever sees its connection closed finds no server.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let listeners = self.listeners.lock().expect("no holder of the listeners panics");
        listener::refuse(listeners.tcp.iter().chain(&listeners.tls));
    }

    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sum over the shards.
    pub fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.stats.iter().map(|stats| counter(stats)).sum()
    }

    /// How long calls of a command have taken on all shards; `None`: there was none.
    pub fn latency_counts(&self, command: CommandId) -> Option<LatencyCounts> {
        LatencyCounts::of(self.stats.iter().filter_map(|shard| shard.command(command).latency()))
    }

    /// How many keys a database has: the sum of what each shard had at the end of its last turn.
    pub fn key_count(&self, db: u32) -> u64 {
        self.sum(|stats| stats.dbs[db as usize].keys.get())
    }

    /// Whether any shard has a key that changed and is being handed off to blocked clients, or will be as soon as the
    /// key is checked in. Covers every change that the caller's client can know of, because shards publish these
    /// counters before they send replies.
    pub fn has_handoffs(&self) -> bool {
        // The order of the loads matters. A shard adds to `check_ins_taken` after it has published the handoffs of the
        // check-in, so they are visible to whoever reads the new count. Home adds to `check_ins_sent` before it sends
        // the check-in, and so before any client can know of the change.
        let taken = self.sum(|stats| stats.check_ins_taken.get());
        fence(Ordering::Acquire);
        taken != self.sum(|stats| stats.check_ins_sent.get())
            || self.stats.iter().any(|stats| stats.handoffs.get() != 0)
    }

    /// Whether any shard hands off a key for which a client waits that a module has blocked.
    pub fn has_tried_handoffs(&self) -> bool {
        self.stats.iter().any(|stats| stats.tried_handoffs.get() != 0)
    }

    /// Allocated bytes: those of each shard as of the end of its last turn, and those of the main thread.
    pub fn used_memory(&self) -> u64 {
        let shards: i64 = self.stats.iter().map(|stats| stats.used_memory()).sum();
        (shards + self.other_memory_bytes.load(Ordering::Relaxed)).max(0) as u64
    }

    /// What of the used memory waits to be written to files, or to be read by replicas, in bytes. It does not count for eviction,
    /// because evicted keys would add to it.
    pub fn bytes_not_counted_for_eviction(&self) -> u64 {
        let snapshot_bytes = self.sum(|stats| stats.snapshot_waiting_bytes.get());
        self.aof.queued_bytes() + snapshot_bytes + self.stream.backlog.excess_bytes()
    }

    /// The same with what is on its way to replicas. In [`counted_memory_without`](Self::counted_memory_without), each shard has left
    /// that out itself.
    pub fn all_bytes_not_counted_for_eviction(&self) -> u64 {
        self.bytes_not_counted_for_eviction() + self.sum(|stats| stats.replica_output_bytes.get())
    }

    /// What all shards but one, and other threads, use of what counts for eviction, in bytes. May be less than that while effects
    /// are on their way to the append-only file, but not more.
    pub fn counted_memory_without(&self, shard: usize) -> i64 {
        // In this order. A shard hands effects to the writer before it publishes that it has more memory; the writer
        // publishes that it has freed them before they are no longer queued.
        let others = self.stats.iter().enumerate().filter(|&(at, _)| at != shard);
        let counted: i64 = others.map(|(_, stats)| stats.counted_memory()).sum();
        let waiting = self.bytes_not_counted_for_eviction() as i64;
        counted - waiting + self.other_memory_bytes.load(Ordering::Acquire)
    }

    /// Records what a thread that is no shard's has allocated and freed since its last call, which has left `counted`; 0 before
    /// the first. Such threads free much that shards have allocated.
    pub fn count_other_thread(&self, counted: &mut i64, clock: &dyn Clock) {
        let allocated_bytes = clock.thread_allocated_bytes();
        self.add_other_memory(allocated_bytes - *counted);
        *counted = allocated_bytes;
    }

    /// Threads that are no shards' have so many bytes more.
    pub fn add_other_memory(&self, bytes: i64) {
        self.other_memory_bytes.fetch_add(bytes, Ordering::Release);
    }
}
