//! A thread a shard.
//!
//! With io_uring each is a glommio executor, whose single task calls the shard's loop and does not return before the
//! shard ends. Inside that loop the shard blocks in the wait of its own ring (`uring`). That would starve glommio's
//! other tasks, and is right only because there is none: nothing in this process spawns a second task on a shard's
//! executor, and glommio's own timers do nothing when nobody looks. What needs the file system works on helper
//! threads and rings the shard's bell. With epoll they are plain threads with the same entry.
//!
//! Shards are pinned only when there is one for every CPU this process may use (its affinity mask: taskset, cpusets).
//! With fewer, two servers on one machine would sit on the same first CPUs while others idle; with more, some CPUs
//! would carry two shards for good. The kernel places those better.

use super::crash;
use super::os_error::error_text;
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, ReactorErrorKind};
use std::io;
use std::mem;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// Memory that a glommio executor registers for storage I/O, which it never does for us: its minimum.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Stack of a shard's thread. Nothing recurses on a client's input; scripts have stacks of their own.
const STACK_LEN: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Uring,
    Epoll,
}

impl Backend {
    /// As the driver calls itself.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Uring => "io_uring",
            Backend::Epoll => "epoll",
        }
    }
}

/// The CPUs this process may use, by number.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: all-zeroes is a valid cpu_set_t; sched_getaffinity writes at most its size; CPU_ISSET is asked for
    // bits within it.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) != 0 {
            // More CPUs than the set has bits: the count is known all the same.
            let count = thread::available_parallelism().map_or(1, |count| count.get());
            return (0..count).collect();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Shards to start when the operator says nothing: the CPUs, or less if a cgroup grants less.
pub fn default_shard_count() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get())
}

/// Starts a thread `shard-N` for each entry and, when all of them can run, lets them run. The error is the operator's
/// line; no entry has been called then.
pub fn start<R: Send + 'static>(
    backend: Backend,
    entries: Vec<Box<dyn FnOnce() -> R + Send>>,
) -> Result<Vec<JoinHandle<Option<R>>>, String> {
    let cpus = allowed_cpus();
    let is_pinned = entries.len() == cpus.len();
    let (report, reports) = mpsc::channel();
    let mut threads = Vec::new();
    let mut starters = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let cpu = is_pinned.then(|| cpus[index]);
        let report = report.clone();
        let (starter, start) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name(format!("shard-{index}"))
            .stack_size(STACK_LEN)
            .spawn(move || {
                crash::enter_shard(index);
                let place = Place::take(backend, cpu);
                let _ = report.send(place.as_ref().map(|_| ()).map_err(String::clone));
                drop(report);
                // An error here is the starter's end: another shard cannot run.
                start.recv().ok()?;
                Some(place.ok()?.run(entry))
            })
            .map_err(|error| format!("Cannot start the thread of shard {index}: {}", error_text(&error)))?;
        threads.push(thread);
        starters.push(starter);
    }
    drop(report);

    for outcome in reports {
        outcome?;
    }
    for starter in starters {
        // A thread that has ended meanwhile is found by whoever joins it.
        let _ = starter.send(());
    }
    Ok(threads)
}

/// What a shard's thread runs on.
enum Place {
    Executor(Box<LocalExecutor>),
    Plain,
}

impl Place {
    fn take(backend: Backend, cpu: Option<usize>) -> Result<Place, String> {
        match backend {
            Backend::Uring => {
                let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
                let executor = LocalExecutorBuilder::new(placement).io_memory(IO_MEMORY_BYTES).make();
                executor.map(|executor| Place::Executor(Box::new(executor))).map_err(|error| explain(&error))
            }
            Backend::Epoll => {
                if let Some(cpu) = cpu {
                    // Where this is refused, the shard runs wherever the kernel puts it.
                    let _ = pin_to(cpu);
                }
                Ok(Place::Plain)
            }
        }
    }

    fn run<R>(self, entry: Box<dyn FnOnce() -> R + Send>) -> R {
        match self {
            Place::Executor(executor) => executor.run(async move { entry() }),
            Place::Plain => entry(),
        }
    }
}

fn explain(error: &GlommioError<()>) -> String {
    match error {
        GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(limit, min)) => format!(
            "Cannot start a shard: only {} KiB of memory may be locked, {} are needed (ulimit -l). Use \
             --io-backend epoll to do without.",
            limit >> 10,
            min >> 10
        ),
        GlommioError::IoError(error) => {
            format!(
                "Cannot start a shard: {}. Use --io-backend epoll to do without io_uring.",
                error_text(error)
            )
        }
        error => format!("Cannot start a shard: {error}. Use --io-backend epoll to do without io_uring."),
    }
}

fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: all-zeroes is a valid cpu_set_t; `cpu` came from one, so it is within; sched_setaffinity reads it.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        if libc::sched_setaffinity(0, mem::size_of_val(&set), &set) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends() -> Vec<Backend> {
        match super::super::probe::uring() {
            Ok(_) => vec![Backend::Uring, Backend::Epoll],
            Err(reason) => {
                eprintln!("left out: io_uring: {reason}");
                vec![Backend::Epoll]
            }
        }
    }

    type Entry = Box<dyn FnOnce() -> (usize, String, Vec<usize>) + Send>;

    fn entry(index: usize) -> Entry {
        Box::new(move || (index, thread::current().name().unwrap().to_string(), allowed_cpus()))
    }

    #[test]
    fn a_shard_for_every_cpu_is_pinned() {
        let cpus = allowed_cpus();
        for backend in backends() {
            let threads = start(backend, (0..cpus.len()).map(entry).collect()).unwrap();
            for (at, thread) in threads.into_iter().enumerate() {
                let (index, name, its_cpus) = thread.join().unwrap().unwrap();
                assert_eq!((index, name), (at, format!("shard-{at}")));
                assert_eq!(its_cpus, [cpus[at]], "{}", backend.name());
            }
        }
    }

    #[test]
    fn more_shards_than_cpus_go_where_the_kernel_puts_them() {
        let cpus = allowed_cpus();
        for backend in backends() {
            let threads = start(backend, (0..cpus.len() + 1).map(entry).collect()).unwrap();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap().2, cpus);
            }
        }
    }

    /// A loop that blocks on its own ring inside of its executor, as a shard does.
    #[test]
    fn a_shard_may_block_in_its_own_wait() {
        use crate::runtime::driver::{BellHandle, Driver};
        use crate::runtime::epoll::EpollDriver;
        use crate::runtime::uring::UringDriver;
        struct Nothing;
        impl crate::runtime::driver::Events for Nothing {
            fn accepted(&mut self, _: usize, _: std::os::fd::OwnedFd, _: crate::runtime::driver::PeerAddr) {}
            fn accept_failed(&mut self, _: usize, _: io::Error) {}
            fn received(&mut self, _: crate::runtime::driver::ConnId, _: &[u8]) {}
            fn filled(&mut self, _: crate::runtime::driver::ConnId, _: Vec<u8>) {}
            fn sent(&mut self, _: crate::runtime::driver::ConnId, _: Vec<u8>) {}
            fn input_ended(
                &mut self,
                _: crate::runtime::driver::ConnId,
                _: crate::runtime::driver::CloseReason,
            ) {
            }
            fn send_failed(&mut self, _: crate::runtime::driver::ConnId, _: i32) {}
            fn bell(&mut self) {}
        }
        for backend in backends() {
            let bell = BellHandle::new().unwrap();
            let its_bell = bell.clone();
            let (ready, wait) = mpsc::channel();
            let entry: Box<dyn FnOnce() -> usize + Send> = Box::new(move || {
                ready.send(()).unwrap();
                let patience = Some(std::time::Duration::from_secs(30));
                match backend {
                    Backend::Uring => {
                        UringDriver::new(its_bell).unwrap().turn(patience, &mut Nothing).unwrap()
                    }
                    Backend::Epoll => {
                        EpollDriver::new(its_bell).unwrap().turn(patience, &mut Nothing).unwrap()
                    }
                }
            });
            let threads = start(backend, vec![entry]).unwrap();
            wait.recv().unwrap();
            bell.ring();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Some(1), "{}", backend.name());
            }
        }
    }
}
