//! A worker alone, under a clock that moves only when it sleeps.

use super::*;
use crate::command::handlers::FAMILIES;
use crate::config::Config;
use crate::worker::GlobalsInit;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Sleeper(AtomicI64);

impl Clock for Sleeper {
    fn wall_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn wall_us(&self) -> i64 {
        self.wall_ms() * 1000
    }

    fn ticks(&self) -> u64 {
        0
    }

    fn ticks_to_nanos(&self, ticks: u64) -> u64 {
        ticks
    }

    fn thread_allocated_bytes(&self) -> i64 {
        0
    }

    fn sleep(&self, duration: Duration) {
        self.0.fetch_add(duration.as_millis() as i64, Ordering::Relaxed);
    }
}

#[test]
fn a_shard_sits_a_stall_out_before_it_does_anything_else() {
    let globals: &'static Globals = Box::leak(Box::new(Globals::new(GlobalsInit {
        config: Config::default(),
        table: CommandTable::new(FAMILIES, &[]).expect("nothing is renamed"),
        shard_count: 1,
        seed: 1,
        run_id: String::new(),
        started_at_ms: 0,
        io_backend: "none",
        executable: String::new(),
    })));
    let clock: &'static Sleeper = Box::leak(Box::default());
    let mut worker = Worker::new(0, globals, clock);

    globals.stall(500);
    worker.before_wait();
    worker.begin_turn();
    assert_eq!(worker.shard.now_ms, 500);

    worker.before_wait();
    worker.begin_turn();
    assert_eq!(worker.shard.now_ms, 500, "once is enough");
}
