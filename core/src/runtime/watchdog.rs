//! watchdog-period: a thread that looks whether a shard stands still, and has the shard's own thread log where.
//!
//! A shard makes a turn ten times a second at least, also if it has nothing to do. One whose count of turns stays the same for
//! the period gets a SIGALRM, whose handler ([`crash`]) logs the command and the stack. Nothing is added to a turn.

use super::crash;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter periods are taken as this one: an idle shard makes a turn only every 100 ms.
const PERIOD_MIN: Duration = Duration::from_millis(200);

/// The system's ids of the shards' threads.
static THREADS: Mutex<Vec<(usize, libc::pid_t)>> = Mutex::new(Vec::new());

static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// This thread is that of a shard.
pub(super) fn enter_shard(index: usize) {
    // SAFETY: gettid takes no arguments.
    let id = unsafe { libc::syscall(libc::SYS_gettid) } as libc::pid_t;
    THREADS.lock().expect("no holder of the threads' ids panics").push((index, id));
}

/// What the watchdog asks.
pub struct Watched {
    pub shard_count: usize,
    /// watchdog-period in milliseconds. With 0 the watchdog ends.
    pub period_ms: Box<dyn Fn() -> u32 + Send>,
    /// How many turns a shard has made.
    pub turns: Box<dyn Fn(usize) -> u64 + Send>,
}

/// Starts the watchdog, unless it runs.
///
/// # Errors
/// The system's.
pub fn start(watched: Watched) -> io::Result<()> {
    if IS_RUNNING.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    crash::handle_watchdog_signal()?;
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || watched.run())?;
    Ok(())
}

impl Watched {
    fn run(self) {
        loop {
            self.watch();
            IS_RUNNING.store(false, Ordering::SeqCst);
            // It may have been set again meanwhile, when this thread still counted as running.
            if (self.period_ms)() == 0 || IS_RUNNING.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    fn watch(&self) {
        let mut seen = vec![(0, Instant::now()); self.shard_count];
        loop {
            let period_ms = (self.period_ms)();
            if period_ms == 0 {
                return;
            }
            let period = Duration::from_millis(u64::from(period_ms)).max(PERIOD_MIN);
            thread::sleep((period / 4).min(Duration::from_secs(1)));
            for (shard, (turns, since)) in seen.iter_mut().enumerate() {
                let now_turns = (self.turns)(shard);
                if std::mem::replace(turns, now_turns) != now_turns {
                    *since = Instant::now();
                } else if since.elapsed() >= period {
                    *since = Instant::now();
                    signal(shard);
                }
            }
        }
    }
}

fn signal(shard: usize) {
    let threads = THREADS.lock().expect("no holder of the threads' ids panics");
    for (_, id) in threads.iter().filter(|(index, _)| *index == shard) {
        // SAFETY: the call takes no pointers. A thread that has ended is not found, and no thread of another process is meant.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *id, libc::SIGALRM) };
    }
}
