//! Counters of one shard. Only its own thread writes them; any thread may read them at any time.
//!
//! A [`Counter`] is an atomic that is written by plain load and store: a single writer needs no locked instruction.
//! So counting costs as much as with a plain integer, and INFO or a scrape reads the counters of all shards without
//! sending them messages.

use super::latency::LatencyHistogram;
use super::program_stats::ProgramStats;
use crate::call::CommandId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// A number with one writer and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[inline]
    pub fn max(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// No command holds its shard for longer, unless it walks a million elements.
pub const LONG_NANOS: u64 = 1_000_000;

/// One command's calls on one shard.
#[derive(Default)]
pub struct CommandStats {
    pub calls: Counter,
    /// Time in the handler.
    pub nanos: Counter,
    pub rejected: Counter,
    pub failed: Counter,
    /// How many calls held their shards for longer than [`LONG_NANOS`], and the longest of them.
    pub long_calls: Counter,
    pub longest_nanos: Counter,
    latency: OnceLock<Box<LatencyHistogram>>,
}

impl CommandStats {
    #[inline]
    pub fn record(&self, nanos: u64, track_latency: bool) {
        self.record_all(1, nanos, track_latency);
    }

    /// Records so many calls that have each taken `nanos`.
    #[inline]
    pub fn record_all(&self, count: u64, nanos: u64, track_latency: bool) {
        self.calls.add(count);
        self.nanos.add(count * nanos);
        if nanos > LONG_NANOS {
            self.record_long(count, nanos);
        }
        if track_latency {
            self.latency.get_or_init(|| Box::new(LatencyHistogram::new())).record(count, nanos);
        }
    }

    /// So much time was spent on a call that has been recorded already.
    pub fn record_later(&self, nanos: u64, track_latency: bool) {
        self.nanos.add(nanos);
        if track_latency {
            self.latency.get_or_init(|| Box::new(LatencyHistogram::new())).record(1, nanos);
        }
    }

    #[cold]
    fn record_long(&self, count: u64, nanos: u64) {
        self.long_calls.add(count);
        self.longest_nanos.max(nanos);
    }

    /// `None` until the first recorded call.
    pub fn latency(&self) -> Option<&LatencyHistogram> {
        self.latency.get().map(|boxed| &**boxed)
    }

    fn counters(&self) -> [&Counter; 6] {
        let Self { calls, nanos, rejected, failed, long_calls, longest_nanos, latency: _ } = self;
        [calls, nanos, rejected, failed, long_calls, longest_nanos]
    }

    /// Counts on from where another has come to. Nothing was counted here yet.
    fn continue_from(&self, other: &CommandStats) {
        for (own, other) in self.counters().iter().zip(other.counters()) {
            own.set(other.get());
        }
        if let Some(latency) = other.latency() {
            let own = self.latency.get_or_init(|| Box::new(LatencyHistogram::new()));
            own.continue_from(latency);
        }
    }

    fn reset(&self) {
        self.counters().iter().for_each(|counter| counter.set(0));
        if let Some(latency) = self.latency.get() {
            latency.reset();
        }
    }
}

/// One numbered database of one shard.
#[derive(Default)]
pub struct DbStats {
    pub keys: Counter,
    pub expires: Counter,
    pub avg_ttl_ms: Counter,
}

macro_rules! shard_stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All counters of one shard, written by its thread alone.
        #[repr(align(128))]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Counter,)*
            /// The commands that existed at the start, by id.
            commands: Vec<CommandStats>,
            /// Commands that were added later: pages by id, allocated at the first use.
            late_commands: [OnceLock<Box<[CommandStats]>>; COMMANDS_MAX / COMMANDS_PAGE_LEN],
            pub dbs: Vec<DbStats>,
            pub programs: ProgramStats,
            /// Error replies by code. Locked on errors only.
            errors: Mutex<BTreeMap<String, u64>>,
            /// Allocated minus freed bytes of the shard's thread. May be negative, because a thread may free memory
            /// that another has allocated.
            used_memory: AtomicI64,
            /// What of that counts for eviction.
            counted_memory: AtomicI64,
        }

        impl ShardStats {
            pub fn new(command_count: usize, db_count: usize) -> ShardStats {
                ShardStats {
                    $($name: Counter::default(),)*
                    commands: (0..command_count).map(|_| CommandStats::default()).collect(),
                    late_commands: [const { OnceLock::new() }; COMMANDS_MAX / COMMANDS_PAGE_LEN],
                    dbs: (0..db_count).map(|_| DbStats::default()).collect(),
                    programs: ProgramStats::default(),
                    errors: Mutex::new(BTreeMap::new()),
                    used_memory: AtomicI64::new(0),
                    counted_memory: AtomicI64::new(0),
                }
            }
        }
    };
}

shard_stats! {
    connections_received,
    connections_closed,
    rejected_connections,
    /// Clients connected now.
    clients,
    blocked_clients,
    /// Those among them that wait no longer than until some time.
    clients_with_deadline,
    /// Handoffs under way: changed keys whose blocked clients have not all been asked yet.
    handoffs,
    /// Those among them that may be to clients that modules have blocked.
    tried_handoffs,
    /// Check-ins with changed keys: those that this shard sent as home, and those that it received as owner.
    check_ins_sent,
    check_ins_taken,
    /// Commands run on this shard, wherever their clients are.
    commands_processed,
    /// How many of these came from another shard's clients.
    commands_remote,
    input_bytes,
    output_bytes,
    /// What of the output was for replicas.
    repl_output_bytes,
    keyspace_hits,
    keyspace_misses,
    expired_keys,
    expired_time_cap_reached,
    evicted_keys,
    /// For how long this shard has had more to evict than it may at once: in all, and since when now (unix time in
    /// milliseconds; 0: it is not so).
    eviction_exceeded_ms,
    eviction_exceeded_since_ms,
    /// Estimated percentage of keys that have expired but are still stored, times 100.
    expired_stale_perc_x100,
    expire_cycle_micros,
    dirty,
    error_replies,
    reads_processed,
    writes_processed,
    /// How often a client's reply buffer was shrunk or expanded.
    reply_buffer_shrinks,
    reply_buffer_expands,
    /// Memory of the connections, as of the last walk over them.
    clients_bytes,
    client_output_limit_disconnections,
    /// Connections that were closed because of `maxmemory-clients`.
    evicted_clients,
    client_query_limit_disconnections,
    /// The largest query buffer and output buffer of a client recently.
    client_input_max_bytes,
    client_output_max_bytes,
    turns,
    /// Command batches sent to other shards, and the commands in them.
    mesh_batches,
    mesh_commands,
    mesh_queue_depth,
    /// Round trips of batches: total time and count.
    hop_nanos,
    hops,
    /// Transactions begun here (EXECs, and commands over several shards), and the sum of their numbers of shards.
    transactions,
    transaction_shards,
    /// How many of these transactions were over 1, 2, 3 or 4, 5 to 8, and more shards.
    transactions_of_1,
    transactions_of_2,
    transactions_of_3_4,
    transactions_of_5_8,
    transactions_of_more,
    /// EXECs that did not run because a watched key had changed, and those that failed because a command could not be
    /// queued or EXEC itself was refused.
    exec_aborted_by_watch,
    exec_aborted_by_error,
    /// How long transactions over several shards took in which they did not run: total and maximum.
    transaction_wait_nanos,
    transaction_wait_max_nanos,
    /// Work that had to be repeated: a command that was woken for a key and found it taken, a coalesced pipeline that
    /// was refused, locks that home took ahead and had to release.
    transaction_retries,
    /// Commands and transactions that found a key locked, and how long they waited for it: total and maximum.
    lock_waits,
    lock_wait_nanos,
    lock_wait_max_nanos,
    /// The longest time for which a transaction has held its locks on this shard.
    lock_held_max_nanos,
    /// What waits for the token now.
    token_waiting,
    lazyfreed_objects,
    /// Keys of flushed databases that are still to be freed.
    lazyfree_pending_objects,
    /// Big values of removed keys that are still to be freed.
    garbage_objects,
    /// Keys to which clients of a writable replica have given a time to live.
    local_expires,
    index_bytes,
    /// What its virtual machines take.
    script_vm_bytes,
    function_vm_bytes,
    /// Operations in the last sampled second.
    ops_per_sec,
    input_bytes_per_sec,
    output_bytes_per_sec,
    repl_input_bytes_per_sec,
    repl_output_bytes_per_sec,
    /// What the buffers of output take from which replicas are served.
    replica_output_bytes,
    /// Replicas that were synchronized in full, those that went on from where they were, and those that wanted to and could not.
    sync_full,
    sync_partial_ok,
    sync_partial_err,
    /// Of the background save that is under way, or of the last one: the keys that were saved, and the memory of those
    /// among them that had to be saved because they were about to change.
    snapshot_keys,
    snapshot_forced_bytes,
    /// Bytes of these that wait for the thread that writes the file.
    snapshot_waiting_bytes,
    /// Those among them that are removed values.
    snapshot_kept_bytes,
    /// The longest time of its own thread, in microseconds, that a turn has spent on that save.
    snapshot_slice_us_max,
    /// Bytes recorded for the effect stream.
    effect_bytes,
}

impl ShardStats {
    #[inline]
    pub fn command(&self, id: CommandId) -> &CommandStats {
        match self.commands.get(id.index()) {
            Some(stats) => stats,
            None => self.late_command(id),
        }
    }

    #[cold]
    fn late_command(&self, id: CommandId) -> &CommandStats {
        let page = &self.late_commands[id.index() / COMMANDS_PAGE_LEN];
        let new_page = || (0..COMMANDS_PAGE_LEN).map(|_| CommandStats::default()).collect();
        &page.get_or_init(new_page)[id.index() % COMMANDS_PAGE_LEN]
    }

    /// A command has taken the place of another, under the same name.
    pub fn replace_command(&self, old: CommandId, new: CommandId) {
        self.command(new).continue_from(self.command(old));
    }

    /// Counts a transaction over `width` shards.
    #[inline]
    pub fn count_transaction(&self, width: usize) {
        self.transactions.add(1);
        self.transaction_shards.add(width as u64);
        match width {
            0 | 1 => &self.transactions_of_1,
            2 => &self.transactions_of_2,
            3 | 4 => &self.transactions_of_3_4,
            5..=8 => &self.transactions_of_5_8,
            _ => &self.transactions_of_more,
        }
        .add(1);
    }

    /// Counts an error reply under its code. Codes are bounded: see `ERROR_CODES_MAX`.
    pub fn error(&self, code: &str) {
        self.error_replies.add(1);
        let mut errors = self.errors.lock().expect("no holder of the error counts panics");
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_CODES_MAX {
            errors.insert(code.to_string(), 1);
        }
    }

    /// Adds this shard's error counts to `sums`.
    pub fn errors_into(&self, sums: &mut BTreeMap<String, u64>) {
        for (code, count) in self.errors.lock().expect("no holder of the error counts panics").iter() {
            *sums.entry(code.clone()).or_insert(0) += count;
        }
    }

    pub fn set_counted_memory(&self, bytes: i64) {
        self.counted_memory.store(bytes, Ordering::Release);
    }

    pub fn counted_memory(&self) -> i64 {
        self.counted_memory.load(Ordering::Acquire)
    }

    pub fn set_used_memory(&self, bytes: i64) {
        self.used_memory.store(bytes, Ordering::Relaxed);
    }

    pub fn used_memory(&self) -> i64 {
        self.used_memory.load(Ordering::Relaxed)
    }

    /// CONFIG RESETSTAT: what Redis resets. By the owning thread only.
    pub fn reset(&self) {
        for counter in [
            &self.connections_received,
            &self.rejected_connections,
            &self.commands_processed,
            &self.commands_remote,
            &self.input_bytes,
            &self.output_bytes,
            &self.repl_output_bytes,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.expired_time_cap_reached,
            &self.evicted_keys,
            &self.eviction_exceeded_ms,
            &self.expired_stale_perc_x100,
            &self.error_replies,
            &self.reads_processed,
            &self.writes_processed,
            &self.reply_buffer_shrinks,
            &self.reply_buffer_expands,
            &self.client_output_limit_disconnections,
            &self.evicted_clients,
            &self.client_query_limit_disconnections,
            &self.lazyfreed_objects,
            &self.transactions,
            &self.transaction_shards,
            &self.transactions_of_1,
            &self.transactions_of_2,
            &self.transactions_of_3_4,
            &self.transactions_of_5_8,
            &self.transactions_of_more,
            &self.exec_aborted_by_watch,
            &self.exec_aborted_by_error,
            &self.transaction_wait_nanos,
            &self.transaction_wait_max_nanos,
            &self.transaction_retries,
            &self.lock_waits,
            &self.lock_wait_nanos,
            &self.lock_wait_max_nanos,
            &self.lock_held_max_nanos,
            &self.sync_full,
            &self.sync_partial_ok,
            &self.sync_partial_err,
        ] {
            counter.set(0);
        }
        self.commands.iter().for_each(CommandStats::reset);
        let late = self.late_commands.iter().filter_map(OnceLock::get);
        late.flat_map(|page| page.iter()).for_each(CommandStats::reset);
        self.errors.lock().expect("no holder of the error counts panics").clear();
        self.programs.reset();
    }
}

/// How many commands and subcommands a process can have, including those that were added at run time or removed.
pub const COMMANDS_MAX: usize = 1 << 14;
/// How many commands that were added at run time share one allocation of counters.
const COMMANDS_PAGE_LEN: usize = 128;

const _: () = assert!(COMMANDS_MAX.is_multiple_of(COMMANDS_PAGE_LEN) && COMMANDS_MAX < u16::MAX as usize);

/// How many different error codes are counted. The number is bounded because scripts can return any code.
const ERROR_CODES_MAX: usize = 128;
