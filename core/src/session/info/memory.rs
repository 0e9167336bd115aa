//! The server's memory in figures: what INFO memory, MEMORY STATS and MEMORY DOCTOR compute from.

use crate::runtime::allocator::{AllocatorStats, allocator_stats};
use crate::runtime::host;
use crate::worker::Globals;
use std::fmt;

/// All in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryFigures {
    /// What the shards have allocated: what maxmemory is compared with.
    pub used: u64,
    pub peak: u64,
    /// `used` when the server had started.
    pub startup: u64,
    /// The tables' indexes. Their free room is no part of `used`.
    pub indexes: u64,
    /// The connections and their buffers.
    pub clients: u64,
    /// The stream for replicas: what is kept for those that come back, and what others need beyond that.
    pub replication_backlog: u64,
    pub clients_slaves: u64,
    /// Effects that wait to be written to the append-only file.
    pub aof_buffer: u64,
    /// The scripts that the process knows, and its libraries of functions.
    pub scripts: u64,
    pub functions: u64,
    /// The shards' virtual machines.
    pub script_vms: u64,
    pub function_vms: u64,
    pub allocator: AllocatorStats,
    /// Of the process.
    pub rss: u64,
}

impl MemoryFigures {
    /// The figures of this moment.
    pub fn take(globals: &Globals) -> MemoryFigures {
        globals.record_memory();
        let stream_bytes = globals.stream.backlog.figures().memory_bytes;
        let replication_backlog = match globals.stream.replica_count() {
            0 => stream_bytes,
            _ => stream_bytes.min(globals.config().1.repl_backlog_size_bytes),
        };
        MemoryFigures {
            used: globals.used_memory(),
            peak: globals.peak_memory_bytes(),
            startup: globals.startup_memory_bytes(),
            indexes: globals.sum(|shard| shard.index_bytes.get()),
            clients: globals.sum(|shard| shard.clients_bytes.get()),
            replication_backlog,
            clients_slaves: stream_bytes - replication_backlog,
            aof_buffer: globals.aof.queued_bytes(),
            scripts: globals.scripts.scripts.len_bytes() as u64,
            functions: globals.scripts.functions.get().1.len_bytes() as u64,
            script_vms: globals.sum(|shard| shard.script_vm_bytes.get()),
            function_vms: globals.sum(|shard| shard.function_vm_bytes.get()),
            allocator: allocator_stats(),
            rss: host::rss_bytes(),
        }
    }

    /// What is not keys and values.
    pub fn overhead(&self) -> u64 {
        let buffers = self.replication_buffers() + self.aof_buffer;
        self.startup + self.indexes + self.clients + buffers + self.scripts + self.functions
    }

    /// The stream for replicas, which stands in memory once.
    pub fn replication_buffers(&self) -> u64 {
        self.replication_backlog + self.clients_slaves
    }

    pub fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead())
    }

    /// What came since the start.
    pub fn net(&self) -> u64 {
        self.used.saturating_sub(self.startup)
    }

    pub fn dataset_percent(&self) -> f64 {
        100.0 * ratio(self.dataset(), self.net())
    }

    pub fn peak_percent(&self) -> f64 {
        100.0 * ratio(self.used, self.peak)
    }

    /// Pages in use to bytes in use.
    pub fn frag_ratio(&self) -> f64 {
        ratio(self.allocator.active, self.allocator.allocated)
    }

    pub fn frag_bytes(&self) -> i64 {
        difference(self.allocator.active, self.allocator.allocated)
    }

    /// Pages held to pages in use.
    pub fn allocator_rss_ratio(&self) -> f64 {
        ratio(self.allocator.resident, self.allocator.active)
    }

    pub fn allocator_rss_bytes(&self) -> i64 {
        difference(self.allocator.resident, self.allocator.active)
    }

    /// The whole process to the allocator's part of it.
    pub fn rss_overhead_ratio(&self) -> f64 {
        ratio(self.rss, self.allocator.resident)
    }

    pub fn rss_overhead_bytes(&self) -> i64 {
        difference(self.rss, self.allocator.resident)
    }

    /// The whole process to what is in use.
    pub fn total_ratio(&self) -> f64 {
        ratio(self.rss, self.used)
    }

    pub fn total_bytes(&self) -> i64 {
        difference(self.rss, self.used)
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn difference(a: u64, b: u64) -> i64 {
    a as i64 - b as i64
}

/// Bytes for people: `512B`, `1.50K`, `2.00M`, up to `P`.
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.2}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_decimals_and_a_unit() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 1_015_216, 25_276_510_208, 1 << 50]
            .iter()
            .map(|&n| Human(n).to_string())
            .collect();
        assert_eq!(shown, ["0B", "1023B", "1.00K", "1.50K", "991.42K", "23.54G", "1.00P"]);
    }

    #[test]
    fn the_parts_add_up() {
        let allocator = AllocatorStats { allocated: 1000, active: 1200, resident: 1500 };
        let figures = MemoryFigures {
            used: 900,
            peak: 1000,
            startup: 100,
            indexes: 50,
            clients: 10,
            replication_backlog: 8,
            clients_slaves: 2,
            aof_buffer: 10,
            scripts: 0,
            functions: 0,
            script_vms: 0,
            function_vms: 0,
            allocator,
            rss: 3000,
        };
        assert_eq!(figures.overhead() + figures.dataset(), figures.used);
        assert_eq!((figures.net(), figures.dataset_percent(), figures.peak_percent()), (800, 90.0, 90.0));
        assert_eq!(
            (figures.frag_bytes(), figures.allocator_rss_bytes(), figures.rss_overhead_bytes()),
            (200, 300, 1500)
        );
        assert_eq!(
            (figures.frag_ratio(), figures.allocator_rss_ratio(), figures.rss_overhead_ratio()),
            (1.2, 1.25, 2.0)
        );
    }
}
