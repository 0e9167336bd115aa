//! What all shards of a process share: read often, written almost never, and never on the request path.

use crate::client::ClientId;
use crate::command::admission::PauseKind;
use crate::command::table::CommandTable;
use crate::config::Config;
use crate::shard::stats::ShardStats;
use crate::worker::StreamGlobals;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

/// The process' shared state. Lives as long as the process.
pub struct Globals {
    /// The commands that were there at the start.
    first_table: CommandTable,
    /// The table that took its place, if commands have come or gone since.
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
    config_version: AtomicU64,
    next_client_id: AtomicU64,
    pause_until_ms: AtomicI64,
    pause_all: AtomicBool,
    pub active_expire: AtomicBool,
    pub stream: StreamGlobals,
    stopping: AtomicBool,
    next_slowlog_id: AtomicU64,
    /// What was allocated when nothing had been asked of the server yet; 0 before it is known.
    startup_memory_bytes: AtomicU64,
    peak_memory_bytes: AtomicU64,
    /// What other threads than the shards' have allocated.
    other_memory_bytes: AtomicI64,
    /// Until then no shard does anything (DEBUG SLEEP); unix time in milliseconds.
    pub stall_until_ms: AtomicI64,
    /// DEBUG PAUSE-CRON.
    cron_paused: AtomicBool,
    /// The longest output of a client is forgotten after so long; negative: never (DEBUG REPLYBUFFER).
    pub reply_peak_reset_ms: AtomicI64,
    /// Whether the room for a client's replies is fitted to them (DEBUG REPLYBUFFER).
    pub reply_buffers_resize: AtomicBool,
    /// Duplicates of the TCP sockets that the server listens on: who changes them needs them at hand.
    listeners: Mutex<Vec<OwnedFd>>,
}

/// How long the longest output of a client is remembered, unless DEBUG REPLYBUFFER says otherwise.
pub const REPLY_PEAK_RESET_MS: i64 = 5000;

/// How a [`Globals`] begins.
pub struct GlobalsInit {
    pub config: Config,
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
            next_client_id: AtomicU64::new(1),
            pause_until_ms: AtomicI64::new(0),
            pause_all: AtomicBool::new(false),
            active_expire: AtomicBool::new(true),
            stream: StreamGlobals::new(init.shard_count),
            stopping: AtomicBool::new(false),
            next_slowlog_id: AtomicU64::new(0),
            startup_memory_bytes: AtomicU64::new(0),
            peak_memory_bytes: AtomicU64::new(0),
            other_memory_bytes: AtomicI64::new(0),
            stall_until_ms: AtomicI64::new(0),
            cron_paused: AtomicBool::new(false),
            reply_peak_reset_ms: AtomicI64::new(REPLY_PEAK_RESET_MS),
            reply_buffers_resize: AtomicBool::new(true),
            listeners: Mutex::new(Vec::new()),
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

    /// Makes commands come or go: `change` gets the table and answers the new one. Other shards take it over at their next
    /// turn, which is before they read anything a client sends after it saw the reply, and before they look at a
    /// message of a shard that has taken it over.
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

    #[inline]
    pub fn config_version(&self) -> u64 {
        self.config_version.load(Ordering::Acquire)
    }

    /// The configuration and its version.
    pub fn config(&self) -> (u64, Arc<Config>) {
        let config = self.config.lock().expect("no holder of the configuration panics");
        (self.config_version(), Arc::clone(&config))
    }

    /// Changes the configuration by `change`, all of it or nothing. Other shards see it at their next turn,
    /// which is before they read anything a client sends after it saw the reply.
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

    /// The pause in force at `now_ms`.
    #[inline]
    pub fn pause(&self, now_ms: i64) -> Option<PauseKind> {
        if self.pause_until_ms.load(Ordering::Relaxed) <= now_ms {
            return None;
        }
        Some(if self.pause_all.load(Ordering::Relaxed) { PauseKind::All } else { PauseKind::Write })
    }

    /// When the pause ends, unix time in milliseconds.
    pub fn pause_until_ms(&self) -> i64 {
        self.pause_until_ms.load(Ordering::Relaxed)
    }

    /// Pauses until `until_ms`. A pause in force is only ever prolonged and made stricter.
    pub fn set_pause(&self, until_ms: i64, kind: PauseKind, now_ms: i64) {
        let in_force = self.pause(now_ms);
        let all = kind == PauseKind::All || in_force == Some(PauseKind::All);
        let until_ms = if in_force.is_some() { until_ms.max(self.pause_until_ms()) } else { until_ms };
        self.pause_all.store(all, Ordering::Relaxed);
        self.pause_until_ms.store(until_ms, Ordering::Relaxed);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    /// Ends the pause. Shards wake their held clients at their next turn.
    pub fn end_pause(&self) {
        self.pause_until_ms.store(0, Ordering::Relaxed);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    /// Lets no shard do anything until `until_ms`. They notice at their next turn.
    pub fn stall(&self, until_ms: i64) {
        self.stall_until_ms.store(until_ms, Ordering::Relaxed);
        self.config_version.fetch_add(1, Ordering::Release);
    }

    pub fn is_cron_paused(&self) -> bool {
        self.cron_paused.load(Ordering::Relaxed)
    }

    pub fn pause_cron(&self, is_paused: bool) {
        self.cron_paused.store(is_paused, Ordering::Relaxed);
    }

    /// Notes what is allocated now: the peak, and the first time what the server takes without data.
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

    /// Has other TCP sockets take the place of those the server listens on. `change` gets the old ones and answers the
    /// new ones, which then are for the accepting shard.
    ///
    /// # Errors
    /// Those of `change`; all is then as before.
    pub fn change_listeners<E>(
        &self,
        change: impl FnOnce(&[OwnedFd]) -> Result<Vec<OwnedFd>, E>,
    ) -> Result<Vec<OwnedFd>, E> {
        let mut listeners = self.listeners.lock().expect("no holder of the listeners panics");
        let new = change(&listeners)?;
        *listeners = new.iter().filter_map(|listener| listener.try_clone().ok()).collect();
        Ok(new)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The name of this run's data set and its changes: 40 hexadecimal digits, new at every start.
    pub fn replication_id(&self) -> String {
        self.run_id.chars().rev().collect()
    }

    /// Sum over the shards.
    pub fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.stats.iter().map(|stats| counter(stats)).sum()
    }

    /// How many keys a database has, by what each shard had at the end of its last turn.
    pub fn key_count(&self, db: u32) -> u64 {
        self.sum(|stats| stats.dbs[db as usize].keys.get())
    }

    /// Whether a key has changed on any shard, and clients that wait for it are being asked still, or will be when the key
    /// is back on its shard. Of what a client has heard of before it calls, nothing is missed: shards say so before their
    /// replies leave.
    pub fn has_handoffs(&self) -> bool {
        // In this order: what is taken is counted after it is served, and before it is sent nobody hears of it.
        let taken = self.sum(|stats| stats.check_ins_taken.get());
        fence(Ordering::Acquire);
        taken != self.sum(|stats| stats.check_ins_sent.get())
            || self.stats.iter().any(|stats| stats.handoffs.get() != 0)
    }

    /// What the allocator has given out, in bytes: each shard's part as it was at the end of its last turn, and what
    /// the process had before it had shards.
    pub fn used_memory(&self) -> u64 {
        let shards: i64 = self.stats.iter().map(|stats| stats.used_memory()).sum();
        (shards + self.other_memory_bytes.load(Ordering::Relaxed)).max(0) as u64
    }

    /// Says what the calling thread has allocated. For the main thread, when it has done its work.
    pub fn count_main_thread(&self, allocated_bytes: i64) {
        self.other_memory_bytes.store(allocated_bytes, Ordering::Relaxed);
    }
}
