//! The sections of INFO, one function each.

use super::Lines;
use super::memory::{Human, MemoryFigures};
use crate::command::admission;
use crate::config::{Config, Percentiles};
use crate::modules::loaded;
use crate::pubsub::Kind;
use crate::runtime::allocator::allocator_name;
use crate::runtime::host::{self, CpuScope};
use crate::runtime::supervisor::{Supervisor, supervisor};
use crate::shard::program_stats::{ProgramCounts, dearest};
use crate::shard::stats::{CommandStats, DbStats, ShardStats};
use crate::worker::link::{LinkState, Master};
use crate::worker::snapshot::Purpose;
use crate::worker::{Globals, Worker, show_replicas};
use crate::{REDIS_VERSION, SHARDIS_VERSION};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the values come from.
pub struct Source<'a> {
    worker: &'a Worker,
    globals: &'a Globals,
    config: &'a Config,
    now_ms: i64,
}

impl<'a> Source<'a> {
    pub fn new(worker: &'a Worker) -> Source<'a> {
        // Not the shard's time, which stands still while an append-only file is loaded.
        let now_ms = worker.clock().wall_ms();
        Source { worker, globals: worker.globals, config: &worker.shard.config, now_ms }
    }

    /// Sum over the shards.
    fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.globals.sum(counter)
    }

    /// Maximum over the shards.
    fn max(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.globals.stats.iter().map(|shard| counter(shard)).max().unwrap_or(0)
    }
}

pub fn server(source: &Source<'_>, lines: &mut Lines) {
    let globals = source.globals;
    let uptime_s = (source.now_ms - globals.started_at_ms).max(0) / 1000;
    lines.field("redis_version", REDIS_VERSION);
    lines.fixed(&[("redis_git_sha1", "00000000"), ("redis_git_dirty", "0")]);
    lines.field("redis_build_id", build_id());
    lines.field("redis_mode", "standalone");
    lines.field("os", host::system_name());
    lines.field("arch_bits", usize::BITS);
    lines.field(
        "monotonic_clock",
        if cfg!(target_arch = "x86_64") { "X86 TSC" } else { "POSIX clock_gettime" },
    );
    lines.field("multiplexing_api", globals.io_backend);
    // Redis writes the second where a compiler other than gcc made it.
    lines.fixed(&[("atomicvar_api", "c11-builtin"), ("gcc_version", "0.0.0")]);
    lines.field("process_id", std::process::id());
    let supervised = match supervisor() {
        None => "no",
        Some(Supervisor::Upstart) => "upstart",
        Some(Supervisor::Systemd) => "systemd",
    };
    lines.field("process_supervised", supervised);
    lines.field("run_id", &globals.run_id);
    lines.field("tcp_port", source.config.shown_port());
    lines.field("server_time_usec", source.worker.clock().wall_us());
    lines.field("uptime_in_seconds", uptime_s);
    lines.field("uptime_in_days", uptime_s / 86_400);
    lines.field("hz", source.config.hz);
    lines.field("configured_hz", source.config.hz);
    lines.field("lru_clock", source.worker.shard.access.clock());
    lines.field("executable", &globals.executable);
    lines.field("config_file", &source.config.config_file);
    lines.field("io_threads_active", 0);
    if let Some(until_ms) = globals.shutdown.until_ms() {
        lines.field("shutdown_in_milliseconds", (until_ms - source.now_ms).max(0));
    }
    lines.field("server_name", "shardis");
    lines.field("shardis_version", SHARDIS_VERSION);
    lines.field("shards", globals.stats.len());
    lines.field("io_backend", globals.io_backend);
}

/// Sixteen hexadecimal digits that tell this version from others (FNV-1a of its number).
fn build_id() -> String {
    let hash = SHARDIS_VERSION.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

pub fn clients(source: &Source<'_>, lines: &mut Lines) {
    // As in Redis, replicas are none.
    let replica_count = source.globals.stream.replica_count() as u64;
    lines.field("connected_clients", source.sum(|shard| shard.clients.get()).saturating_sub(replica_count));
    lines.field("cluster_connections", 0);
    lines.field("maxclients", source.config.maxclients);
    lines.field("client_recent_max_input_buffer", source.max(|shard| shard.client_input_max_bytes.get()));
    lines.field("client_recent_max_output_buffer", source.max(|shard| shard.client_output_max_bytes.get()));
    lines.field("blocked_clients", source.sum(|shard| shard.blocked_clients.get()));
    lines.field("tracking_clients", source.globals.tracking.clients());
    lines.field("clients_in_timeout_table", source.sum(|shard| shard.clients_with_deadline.get()));
}

pub fn memory(source: &Source<'_>, lines: &mut Lines) {
    let figures = MemoryFigures::take(source.globals);
    let total = host::total_memory_bytes();
    let with_human = |lines: &mut Lines, name: &str, bytes: u64| {
        lines.field(name, bytes);
        lines.field(format_args!("{name}_human"), Human(bytes));
    };
    with_human(lines, "used_memory", figures.used);
    with_human(lines, "used_memory_rss", figures.rss);
    with_human(lines, "used_memory_peak", figures.peak);
    lines.field("used_memory_peak_perc", format_args!("{:.2}%", figures.peak_percent()));
    lines.field("used_memory_overhead", figures.overhead());
    lines.field("used_memory_startup", figures.startup);
    lines.field("used_memory_dataset", figures.dataset());
    lines.field("used_memory_dataset_perc", format_args!("{:.2}%", figures.dataset_percent()));
    lines.field("allocator_allocated", figures.allocator.allocated);
    lines.field("allocator_active", figures.allocator.active);
    lines.field("allocator_resident", figures.allocator.resident);
    with_human(lines, "total_system_memory", total);
    script_memory(source, &figures, lines);
    with_human(lines, "maxmemory", source.config.maxmemory_bytes);
    lines.field("maxmemory_policy", source.config.maxmemory_policy.as_str());
    lines.field("allocator_frag_ratio", format_args!("{:.2}", figures.frag_ratio()));
    lines.field("allocator_frag_bytes", figures.frag_bytes());
    lines.field("allocator_rss_ratio", format_args!("{:.2}", figures.allocator_rss_ratio()));
    lines.field("allocator_rss_bytes", figures.allocator_rss_bytes());
    lines.field("rss_overhead_ratio", format_args!("{:.2}", figures.rss_overhead_ratio()));
    lines.field("rss_overhead_bytes", figures.rss_overhead_bytes());
    lines.field("mem_fragmentation_ratio", format_args!("{:.2}", figures.total_ratio()));
    lines.field("mem_fragmentation_bytes", figures.total_bytes());
    lines.field("mem_not_counted_for_evict", source.globals.all_bytes_not_counted_for_eviction());
    lines.field("mem_replication_backlog", figures.replication_backlog);
    lines.field("mem_total_replication_buffers", figures.replication_buffers());
    lines.field("mem_clients_slaves", figures.clients_slaves);
    lines.field("mem_clients_normal", figures.clients);
    lines.field("mem_cluster_links", 0);
    lines.field("mem_aof_buffer", figures.aof_buffer);
    lines.field("mem_allocator", allocator_name());
    lines.field("active_defrag_running", 0);
    let pending = |shard: &ShardStats| shard.lazyfree_pending_objects.get() + shard.garbage_objects.get();
    lines.field("lazyfree_pending_objects", source.sum(pending));
    lines.field("lazyfreed_objects", source.sum(|shard| shard.lazyfreed_objects.get()));
}

fn script_memory(source: &Source<'_>, figures: &MemoryFigures, lines: &mut Lines) {
    let (_, functions) = source.globals.scripts.functions.get();
    let vms = figures.script_vms + figures.function_vms;
    lines.field("used_memory_lua", figures.script_vms);
    lines.field("used_memory_vm_eval", figures.script_vms);
    lines.field("used_memory_lua_human", Human(figures.script_vms));
    lines.field("used_memory_scripts_eval", figures.scripts);
    lines.field("number_of_cached_scripts", source.globals.scripts.scripts.len());
    lines.field("number_of_functions", functions.function_count());
    lines.field("number_of_libraries", functions.libraries().len());
    lines.field("used_memory_vm_functions", figures.function_vms);
    lines.field("used_memory_vm_total", vms);
    lines.field("used_memory_vm_total_human", Human(vms));
    lines.field("used_memory_functions", figures.functions);
    lines.field("used_memory_scripts", figures.scripts + figures.functions);
    lines.field("used_memory_scripts_human", Human(figures.scripts + figures.functions));
}

pub fn persistence(source: &Source<'_>, lines: &mut Lines) {
    let persistence = &source.globals.persistence;
    let (loading, snapshots) = (&persistence.loading, &persistence.snapshots);
    let saves = snapshots.figures(Purpose::Save, source.now_ms);
    let rewrites = snapshots.figures(Purpose::Rewrite, source.now_ms);
    lines.field("loading", u8::from(loading.is_on()));
    lines.field("async_loading", u8::from(loading.is_async()));
    snapshot_fields(source, lines);
    let changes = source.sum(|shard| shard.dirty.get());
    lines.field("rdb_changes_since_last_save", persistence.unsaved_changes(changes));
    lines.field("rdb_bgsave_in_progress", u8::from(saves.is_under_way));
    lines.field("rdb_last_save_time", persistence.last_save_at_s());
    lines.field("rdb_last_bgsave_status", if persistence.has_last_save_failed() { "err" } else { "ok" });
    lines.field("rdb_last_bgsave_time_sec", saves.last_duration_s);
    lines.field("rdb_current_bgsave_time_sec", saves.running_s);
    lines.field("rdb_saves", persistence.save_count());
    lines.field("rdb_last_cow_size", saves.last_forced_bytes);
    lines.field("rdb_last_load_keys_expired", loading.keys_expired());
    lines.field("rdb_last_load_keys_loaded", loading.keys_loaded());
    let aof = &source.globals.aof;
    lines.field("aof_enabled", u8::from(aof.is_on()));
    lines.field("aof_rewrite_in_progress", u8::from(rewrites.is_under_way));
    lines.field("aof_rewrite_scheduled", u8::from(rewrites.is_scheduled));
    lines.field("aof_last_rewrite_time_sec", rewrites.last_duration_s);
    lines.field("aof_current_rewrite_time_sec", rewrites.running_s);
    lines.field("aof_last_bgrewrite_status", if rewrites.failures_in_a_row > 0 { "err" } else { "ok" });
    lines.field("aof_rewrites", rewrites.begun_count);
    lines.field("aof_rewrites_consecutive_failures", rewrites.failures_in_a_row);
    lines.field("aof_last_write_status", if aof.has_error() { "err" } else { "ok" });
    lines.field("aof_last_cow_size", rewrites.last_forced_bytes);
    lines.fixed(&[("module_fork_in_progress", "0"), ("module_fork_last_cow_size", "0")]);
    if aof.is_on() {
        lines.field("aof_current_size", aof.current_bytes());
        lines.field("aof_base_size", aof.base_bytes());
        lines.field("aof_pending_rewrite", u8::from(rewrites.is_scheduled));
        lines.field("aof_buffer_length", aof.queued_bytes());
        lines.field("aof_pending_bio_fsync", 0);
        lines.field("aof_delayed_fsync", aof.delayed_fsyncs());
    }
    if loading.is_under_way() {
        loading_fields(source, lines);
    }
}

/// How far the snapshot is that is under way. What Redis calls copied on write is what was saved because it was about
/// to change.
fn snapshot_fields(source: &Source<'_>, lines: &mut Lines) {
    let snapshots = &source.globals.persistence.snapshots;
    let total = snapshots.keys_total();
    let (keys, forced_bytes) = match snapshots.is_under_way() {
        true => (
            source.sum(|shard| shard.snapshot_keys.get()),
            source.sum(|shard| shard.snapshot_forced_bytes.get()),
        ),
        false => (0, 0),
    };
    lines.field("current_cow_peak", forced_bytes);
    lines.field("current_cow_size", forced_bytes);
    lines.field("current_cow_size_age", 0);
    lines.field("current_fork_perc", format_args!("{:.2}", keys as f64 * 100.0 / total.max(1) as f64));
    lines.field("current_save_keys_processed", keys);
    lines.field("current_save_keys_total", total);
}

/// For how long shards have now had more to evict than they may at once, in milliseconds.
fn eviction_exceeded_ms(source: &Source<'_>) -> u64 {
    let now_ms = source.now_ms.max(0) as u64;
    source.sum(|shard| match shard.eviction_exceeded_since_ms.get() {
        0 => 0,
        since_ms => now_ms.saturating_sub(since_ms),
    })
}

/// How far loading is.
fn loading_fields(source: &Source<'_>, lines: &mut Lines) {
    let loading = &source.globals.persistence.loading;
    let (total_bytes, loaded_bytes) = (loading.total_bytes(), loading.loaded_bytes());
    let elapsed_s = source.now_ms / 1000 - loading.started_at_s();
    let share = loaded_bytes as f64 / total_bytes.max(1) as f64;
    let eta_s = match elapsed_s {
        0 => 1,
        _ if loaded_bytes == 0 => -1,
        _ => {
            (elapsed_s as f64 * (total_bytes - loaded_bytes.min(total_bytes)) as f64 / loaded_bytes as f64)
                as i64
        }
    };
    lines.field("loading_start_time", loading.started_at_s());
    lines.field("loading_total_bytes", total_bytes);
    lines.field("loading_rdb_used_mem", loading.used_mem_bytes());
    lines.field("loading_loaded_bytes", loaded_bytes);
    lines.field("loading_loaded_perc", format_args!("{:.2}", share * 100.0));
    lines.field("loading_eta_seconds", eta_s);
}

pub fn stats(source: &Source<'_>, lines: &mut Lines) {
    let kib = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let shard_count = source.globals.stats.len() as f64;
    lines.field("total_connections_received", source.sum(|shard| shard.connections_received.get()));
    lines.field("total_commands_processed", source.sum(|shard| shard.commands_processed.get()));
    lines.field("instantaneous_ops_per_sec", source.sum(|shard| shard.ops_per_sec.get()));
    // As in Redis, the totals have what is of replication among them.
    let (repl_input, repl_input_rate) =
        (source.globals.link.input_bytes(), source.sum(|shard| shard.repl_input_bytes_per_sec.get()));
    lines.field("total_net_input_bytes", source.sum(|shard| shard.input_bytes.get()) + repl_input);
    lines.field("total_net_output_bytes", source.sum(|shard| shard.output_bytes.get()));
    lines.field("total_net_repl_input_bytes", repl_input);
    lines.field("total_net_repl_output_bytes", source.sum(|shard| shard.repl_output_bytes.get()));
    let input_rate = source.sum(|shard| shard.input_bytes_per_sec.get());
    lines.field("instantaneous_input_kbps", kib(input_rate + repl_input_rate));
    lines.field("instantaneous_output_kbps", kib(source.sum(|shard| shard.output_bytes_per_sec.get())));
    let repl_output_rate = source.sum(|shard| shard.repl_output_bytes_per_sec.get());
    lines.field("instantaneous_input_repl_kbps", kib(repl_input_rate));
    lines.field("instantaneous_output_repl_kbps", kib(repl_output_rate));
    lines.field("rejected_connections", source.sum(|shard| shard.rejected_connections.get()));
    lines.field("sync_full", source.sum(|shard| shard.sync_full.get()));
    lines.field("sync_partial_ok", source.sum(|shard| shard.sync_partial_ok.get()));
    lines.field("sync_partial_err", source.sum(|shard| shard.sync_partial_err.get()));
    lines.field("expired_keys", source.sum(|shard| shard.expired_keys.get()));
    let stale_percent = source.sum(|shard| shard.expired_stale_perc_x100.get()) as f64 / 100.0 / shard_count;
    lines.field("expired_stale_perc", format_args!("{stale_percent:.2}"));
    lines.field("expired_time_cap_reached_count", source.sum(|shard| shard.expired_time_cap_reached.get()));
    lines.field("expire_cycle_cpu_milliseconds", source.sum(|shard| shard.expire_cycle_micros.get()) / 1000);
    lines.field("evicted_keys", source.sum(|shard| shard.evicted_keys.get()));
    lines.field("evicted_clients", source.sum(|shard| shard.evicted_clients.get()));
    lines.field("evicted_scripts", source.globals.scripts.scripts.count_evicted());
    let exceeded_ms = eviction_exceeded_ms(source);
    let total_ms = source.sum(|shard| shard.eviction_exceeded_ms.get()) + exceeded_ms;
    lines.field("total_eviction_exceeded_time", total_ms);
    lines.field("current_eviction_exceeded_time", exceeded_ms);
    lines.field("keyspace_hits", source.sum(|shard| shard.keyspace_hits.get()));
    lines.field("keyspace_misses", source.sum(|shard| shard.keyspace_misses.get()));
    let names = |kind| source.globals.directory.name_count(kind);
    lines.field("pubsub_channels", names(Kind::Channel));
    lines.field("pubsub_patterns", names(Kind::Pattern));
    lines.field("pubsubshard_channels", names(Kind::ShardChannel));
    lines.field("latest_fork_usec", source.globals.persistence.snapshots.barrier_us());
    lines.field("total_forks", source.globals.persistence.snapshots.count());
    // Ours: what the longest turn of a shard has spent on the last one, in microseconds of its thread's CPU time.
    let slices = source.globals.stats.iter().map(|shard| shard.snapshot_slice_us_max.get());
    lines.field("snapshot_slice_usec_max", slices.max().unwrap_or(0));
    lines.field("migrate_cached_sockets", source.globals.peers.count());
    lines.field("slave_expires_tracked_keys", source.sum(|shard| shard.local_expires.get()));
    lines.fixed(&[
        ("active_defrag_hits", 0),
        ("active_defrag_misses", 0),
        ("active_defrag_key_hits", 0),
        ("active_defrag_key_misses", 0),
        ("total_active_defrag_time", 0),
        ("current_active_defrag_time", 0),
    ]);
    lines.field("tracking_total_keys", source.globals.tracking.keys());
    lines.field("tracking_total_items", source.globals.tracking.items());
    lines.field("tracking_total_prefixes", names(Kind::KeyPrefix));
    lines.field("unexpected_error_replies", source.globals.unexpected_errors());
    lines.field("total_error_replies", source.sum(|shard| shard.error_replies.get()));
    lines.field("dump_payload_sanitizations", 0);
    lines.field("total_reads_processed", source.sum(|shard| shard.reads_processed.get()));
    lines.field("total_writes_processed", source.sum(|shard| shard.writes_processed.get()));
    lines.fixed(&[("io_threaded_reads_processed", 0), ("io_threaded_writes_processed", 0)]);
    lines.field("reply_buffer_shrinks", source.sum(|shard| shard.reply_buffer_shrinks.get()));
    lines.field("reply_buffer_expands", source.sum(|shard| shard.reply_buffer_expands.get()));
}

pub fn replication(source: &Source<'_>, lines: &mut Lines) {
    let stream = &source.globals.stream;
    let replicas = stream.replicas();
    match source.globals.link.master().filter(|_| source.globals.link.is_replica()) {
        None => lines.field("role", "master"),
        Some(master) => link_to_master(source, &master, lines),
    }
    lines.field("connected_slaves", replicas.len());
    if admission::needs_replicas(source.config) {
        lines.field("min_slaves_good_slaves", stream.good_replicas(source.config, source.now_ms));
    }
    show_replicas(&replicas, source.now_ms, &mut |n, value| {
        lines.field_of_bytes(format_args!("slave{n}"), value);
    });
    let (ids, backlog) = (stream.ids(), stream.backlog.figures());
    lines.field("master_failover_state", source.globals.failover.state().name());
    lines.field("master_replid", ids.id);
    lines.field("master_replid2", ids.id2);
    lines.field("master_repl_offset", stream.offset());
    lines.field("second_repl_offset", ids.second_offset);
    lines.field("repl_backlog_active", u8::from(backlog.is_active));
    lines.field("repl_backlog_size", source.config.repl_backlog_size_bytes);
    // Offsets count from 1 on there.
    let first = if backlog.is_active { backlog.first + 1 } else { 0 };
    lines.field("repl_backlog_first_byte_offset", first);
    lines.field("repl_backlog_histlen", backlog.len_bytes);
}

/// What a replica knows of its master.
fn link_to_master(source: &Source<'_>, master: &Master, lines: &mut Lines) {
    let (link, stream, now_ms) = (&source.globals.link, &source.globals.stream, source.now_ms);
    let figures = link.figures();
    let seconds_since = |then_ms: i64| (now_ms - then_ms).max(0) / 1000;
    let is_up = link.is_connected();
    lines.field("role", "slave");
    lines.field("master_host", &master.host);
    lines.field("master_port", master.port);
    lines.field("master_link_status", if is_up { "up" } else { "down" });
    let last_io_s = if is_up { seconds_since(figures.last_io_ms) } else { -1 };
    lines.field("master_last_io_seconds_ago", last_io_s);
    let is_syncing = figures.state == LinkState::Sync;
    lines.field("master_sync_in_progress", u8::from(is_syncing));
    lines.field("slave_read_repl_offset", link.read_offset().max(stream.offset()));
    lines.field("slave_repl_offset", stream.offset());
    if is_syncing {
        let (total, read) = (figures.sync_total_bytes, figures.sync_read_bytes);
        lines.field("master_sync_total_bytes", total);
        lines.field("master_sync_read_bytes", read);
        lines.field("master_sync_left_bytes", total as i64 - read as i64);
        let percent = if total == 0 { 0.0 } else { read as f64 * 100.0 / total as f64 };
        lines.field("master_sync_perc", format_args!("{percent:.2}"));
        lines.field("master_sync_last_io_seconds_ago", seconds_since(figures.last_io_ms));
    }
    if !is_up {
        lines.field("master_link_down_since_seconds", seconds_since(figures.down_since_ms));
    }
    let config = source.config;
    lines.field("slave_priority", config.replica_priority);
    lines.field("slave_read_only", u8::from(config.replica_read_only));
    lines.field("replica_announced", u8::from(config.replica_announced));
}

pub fn cpu(_source: &Source<'_>, lines: &mut Lines) {
    let seconds = |time: Duration| format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    // What is a main thread to Redis is here the shard that answers.
    for (suffix, scope) in
        [("", CpuScope::Process), ("_children", CpuScope::Children), ("_main_thread", CpuScope::Thread)]
    {
        let times = host::cpu_times(scope);
        lines.field(format_args!("used_cpu_sys{suffix}"), seconds(times.system));
        lines.field(format_args!("used_cpu_user{suffix}"), seconds(times.user));
    }
}

pub fn modules(_source: &Source<'_>, lines: &mut Lines) {
    for module in loaded() {
        lines.field("module", module.info_line());
    }
}

/// The name of a command in the name of a field, which ends at the first colon.
fn field_name(name: &str) -> Cow<'_, str> {
    const UNSAFE: [char; 4] = ['#', ':', '\n', '\r'];
    if name.contains(UNSAFE) { name.replace(UNSAFE, "_").into() } else { name.into() }
}

pub fn commandstats(source: &Source<'_>, lines: &mut Lines) {
    for entry in source.worker.table.all() {
        let sum = |counter: fn(&CommandStats) -> u64| source.sum(|shard| counter(shard.command(entry.id)));
        let (calls, rejected) = (sum(|stats| stats.calls.get()), sum(|stats| stats.rejected.get()));
        let failed = sum(|stats| stats.failed.get());
        if calls == 0 && rejected == 0 && failed == 0 {
            continue;
        }
        let usec = sum(|stats| stats.nanos.get()) / 1000;
        let usec_per_call = if calls == 0 { 0.0 } else { usec as f64 / calls as f64 };
        lines.field(
            format_args!("cmdstat_{}", field_name(&entry.full_name)),
            format_args!(
                "calls={calls},usec={usec},usec_per_call={usec_per_call:.2},rejected_calls={rejected},\
                 failed_calls={failed}"
            ),
        );
    }
}

pub fn errorstats(source: &Source<'_>, lines: &mut Lines) {
    let mut sums = BTreeMap::new();
    source.globals.stats.iter().for_each(|shard| shard.errors_into(&mut sums));
    for (code, count) in sums {
        lines.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

pub fn latencystats(source: &Source<'_>, lines: &mut Lines) {
    if !source.config.latency_tracking {
        return;
    }
    let percentiles = &source.config.latency_tracking_info_percentiles.0;
    for entry in source.worker.table.all() {
        let Some(counts) = source.globals.latency_counts(entry.id) else { continue };
        let values: Vec<String> = percentiles
            .iter()
            .map(|&percentile| {
                let micros = counts.percentile_nanos(percentile) as f64 / 1000.0;
                format!("p{}={micros:.3}", Percentiles::name(percentile))
            })
            .collect();
        lines.field(
            format_args!("latency_percentiles_usec_{}", field_name(&entry.full_name)),
            values.join(","),
        );
    }
}

pub fn cluster(_source: &Source<'_>, lines: &mut Lines) {
    lines.field("cluster_enabled", 0);
}

pub fn keyspace(source: &Source<'_>, lines: &mut Lines) {
    for db in 0..source.worker.shard.db_count() {
        let sum = |counter: fn(&DbStats) -> u64| source.sum(|shard| counter(&shard.dbs[db]));
        let (keys, expires) = (sum(|stats| stats.keys.get()), sum(|stats| stats.expires.get()));
        if keys == 0 && expires == 0 {
            continue;
        }
        let ttl_sum_ms = sum(|stats| stats.avg_ttl_ms.get() * stats.expires.get());
        let avg_ttl_ms = ttl_sum_ms.checked_div(expires).unwrap_or(0);
        lines.field(
            format_args!("db{db}"),
            format_args!("keys={keys},expires={expires},avg_ttl={avg_ttl_ms}"),
        );
    }
}

/// Times are in microseconds. What finds a key locked waits, once, and is not tried again; a retry is a command that was
/// woken for a key (BLMOVE and its kin) and found it taken when it had the locks it needs besides, a pipeline of
/// commands over several shards that could not go together, or a transaction that took locks ahead of its turn and had
/// to give them up.
pub fn transactions(source: &Source<'_>, lines: &mut Lines) {
    let max = |counter: fn(&ShardStats) -> u64| {
        source.globals.stats.iter().map(|shard| counter(shard)).max().unwrap_or(0)
    };
    lines.field("transactions", source.sum(|shard| shard.transactions.get()));
    lines.field("transactions_of_1_shard", source.sum(|shard| shard.transactions_of_1.get()));
    lines.field("transactions_of_2_shards", source.sum(|shard| shard.transactions_of_2.get()));
    lines.field("transactions_of_3_4_shards", source.sum(|shard| shard.transactions_of_3_4.get()));
    lines.field("transactions_of_5_8_shards", source.sum(|shard| shard.transactions_of_5_8.get()));
    lines.field("transactions_of_more_shards", source.sum(|shard| shard.transactions_of_more.get()));
    lines.field("transaction_wait_usec", source.sum(|shard| shard.transaction_wait_nanos.get()) / 1000);
    lines.field("transaction_wait_usec_max", max(|shard| shard.transaction_wait_max_nanos.get()) / 1000);
    lines.field("transaction_retries", source.sum(|shard| shard.transaction_retries.get()));
    lines.field("exec_aborted_by_watch", source.sum(|shard| shard.exec_aborted_by_watch.get()));
    lines.field("exec_aborted_by_error", source.sum(|shard| shard.exec_aborted_by_error.get()));
    lines.field("lock_waits", source.sum(|shard| shard.lock_waits.get()));
    lines.field("lock_wait_usec", source.sum(|shard| shard.lock_wait_nanos.get()) / 1000);
    lines.field("lock_wait_usec_max", max(|shard| shard.lock_wait_max_nanos.get()) / 1000);
    lines.field("lock_held_usec_max", max(|shard| shard.lock_held_max_nanos.get()) / 1000);
}

/// Who holds the token, and how many wait for it; and the programs that wait for it longest, or leave their declared keys most:
/// scripts by their SHA-1, and functions. Times are in microseconds.
pub fn programs(source: &Source<'_>, lines: &mut Lines) {
    let mut holders = source.globals.stats.iter().filter_map(|shard| shard.programs.token_holder());
    lines.field("token_holder", holders.next().map_or(String::new(), |name| name.to_string()));
    lines.field("token_waiting", source.sum(|shard| shard.token_waiting.get()));
    let shards = source.globals.stats.iter().map(|shard| &shard.programs);
    for (name, counts) in dearest(shards) {
        let ProgramCounts { left_keys, calls_elsewhere, restarts, token_waits, token_wait_nanos } = counts;
        let token_wait_usec = token_wait_nanos / 1000;
        lines.field(
            format_args!("program_{name}"),
            format_args!(
                "left_keys={left_keys},calls_elsewhere={calls_elsewhere},restarts={restarts},\
                 token_waits={token_waits},token_wait_usec={token_wait_usec}"
            ),
        );
    }
}

pub fn shards(source: &Source<'_>, lines: &mut Lines) {
    for (index, shard) in source.globals.stats.iter().enumerate() {
        let keys: u64 = shard.dbs.iter().map(|db| db.keys.get()).sum();
        let hop_usec = shard.hop_nanos.get().checked_div(shard.hops.get()).unwrap_or(0) as f64 / 1000.0;
        lines.field(
            format_args!("shard{index}"),
            format_args!(
                "clients={},keys={keys},used_memory={},commands={},commands_remote={},ops_per_sec={},mesh_batches={},\
                 mesh_commands={},mesh_queue_depth={},hop_usec={hop_usec:.3},transactions={},lock_waits={},turns={}",
                shard.clients.get(),
                shard.used_memory(),
                shard.commands_processed.get(),
                shard.commands_remote.get(),
                shard.ops_per_sec.get(),
                shard.mesh_batches.get(),
                shard.mesh_commands.get(),
                shard.mesh_queue_depth.get(),
                shard.transactions.get(),
                shard.lock_waits.get(),
                shard.turns.get(),
            ),
        );
    }
}

/// Commands that held their shards for more than a millisecond: how often, and the longest time.
pub fn holds(source: &Source<'_>, lines: &mut Lines) {
    for entry in source.worker.table.all() {
        let of = |counter: fn(&CommandStats) -> u64| {
            source.globals.stats.iter().map(move |shard| counter(shard.command(entry.id)))
        };
        let calls: u64 = of(|stats| stats.long_calls.get()).sum();
        if calls == 0 {
            continue;
        }
        let usec_max = of(|stats| stats.longest_nanos.get()).max().unwrap_or(0) / 1000;
        lines.field(
            format_args!("hold_{}", entry.full_name),
            format_args!("calls={calls},usec_max={usec_max}"),
        );
    }
}
