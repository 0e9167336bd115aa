//! The crate's only door to the kernel beyond std: affinity, clocks, epoll, limits.
//!
//! Every `unsafe` block of the benches is in this file, behind functions that are safe to call with any argument.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn cpu_set_of(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is a plain array of integers, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &core in cores {
        assert!(core < libc::CPU_SETSIZE as usize, "core {core} does not fit a cpu_set_t");
        // SAFETY: CPU_SET writes one bit of `set`, and `core` is within it by the assertion above.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    set
}

/// Pins the calling thread to `cores`.
pub fn pin_this_thread(cores: &[usize]) -> io::Result<()> {
    let set = cpu_set_of(cores);
    // SAFETY: `set` is a live cpu_set_t of the size given; pid 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) }).map(drop)
}

/// The cores on which the calling thread may run, ascending.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let mut set = cpu_set_of(&[]);
    // SAFETY: the kernel writes at most the given size into `set`.
    check(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) })?;
    // SAFETY: CPU_ISSET reads one bit, and every core of the range lies within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Makes the process that `command` starts run on `cores` only, and die with the thread that starts it: a bench
/// that is killed, whatever the signal, leaves no server behind.
pub fn confine(command: &mut Command, cores: &[usize]) {
    let set = cpu_set_of(cores);
    let parent = std::process::id() as libc::pid_t;
    let before_exec = move || {
        // SAFETY: a system call on a live cpu_set_t; async-signal-safe, as the child of a fork requires.
        check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) })?;
        // SAFETY: prctl with these arguments touches no memory.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // SAFETY: getppid has no preconditions.
        if unsafe { libc::getppid() } != parent {
            // The parent died before the line above took effect, so the signal will never come.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and makes async-signal-safe system calls only.
    unsafe { command.pre_exec(before_exec) };
}

/// Sends `signal` to process `pid`; whether it still existed.
pub fn signal(pid: u32, signal: libc::c_int) -> bool {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(pid as libc::pid_t, signal) == 0 }
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec to write to.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Nanoseconds on the monotonic clock.
#[inline]
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux")
}

/// Nanoseconds since the epoch.
pub fn wall_clock_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME).expect("CLOCK_REALTIME exists on every Linux")
}

/// The CPU clock of another process: user and system nanoseconds of all its threads, those that ended included.
/// The kernel keeps it from the scheduler's own run times, brought up to date whenever a thread leaves its core and at
/// every tick: for a server that never sleeps it is up to a tick (1 to 10 ms) behind, which is little of a second.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub fn of(pid: u32) -> io::Result<CpuClock> {
        let mut clock = 0;
        // SAFETY: `clock` is a live clockid_t to write to.
        match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
            0 => Ok(CpuClock(clock)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Nanoseconds used so far. An error means that the process is gone.
    pub fn used_ns(self) -> io::Result<u64> {
        clock_ns(self.0)
    }
}

/// Raises the limit of open files to the hard limit; returns it.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live rlimit to read from.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Kernel clock ticks a second, the unit of `utime` and `stime`.
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: sysconf touches no memory.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as u64 }
}

/// Node name, kernel release and machine, as `uname -srm` says them.
pub fn uname() -> String {
    // SAFETY: utsname is arrays of characters, for which all zeroes are empty strings.
    let mut name: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `name` is a live utsname to write to.
    if unsafe { libc::uname(&mut name) } != 0 {
        return "unknown".to_string();
    }
    let text = |field: &[libc::c_char]| {
        field.iter().take_while(|&&c| c != 0).map(|&c| c as u8 as char).collect::<String>()
    };
    format!("{} {} {}", text(&name.sysname), text(&name.release), text(&name.machine))
}

/// One ready socket.
#[derive(Clone, Copy)]
pub struct Event {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
}

/// An edge-triggered epoll set.
pub struct Epoll {
    fd: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

/// Events taken from the kernel by one wait. Enough for every connection of the usual runs to be ready at once.
const EVENTS_PER_WAIT: usize = 1024;

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 touches no memory.
        let raw = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `raw` was just opened by us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Epoll { fd, ready: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT] })
    }

    /// Watches `fd` for both directions, once and for all: edges make no further calls necessary.
    pub fn add(&self, fd: RawFd, token: usize) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: token as u64 };
        // SAFETY: `event` is live for the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Waits for up to `timeout_ms` (0: does not wait) and returns the number of events, to be read by `event`.
    pub fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let len = self.ready.len() as libc::c_int;
        // SAFETY: the kernel writes at most `len` events into `ready`, which holds that many.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.ready.as_mut_ptr(), len, timeout_ms) };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    #[inline]
    pub fn event(&self, index: usize) -> Event {
        let event = self.ready[index];
        let flags = event.events as i32;
        Event {
            token: event.u64 as usize,
            readable: flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0,
            writable: flags & libc::EPOLLOUT != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_to_the_cores_given() {
        let core = allowed_cores().unwrap()[0];
        std::thread::spawn(move || {
            pin_this_thread(&[core]).unwrap();
            assert_eq!(allowed_cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_cpu_clock_of_this_process_advances_with_work() {
        let clock = CpuClock::of(std::process::id()).unwrap();
        let before = clock.used_ns().unwrap();
        let mut sum = 0u64;
        for i in 0..1_000_000u64 {
            sum = std::hint::black_box(sum ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        assert!(clock.used_ns().unwrap() > before, "{sum}");
    }

    #[test]
    fn a_confined_child_runs_on_its_core_only() {
        let core = allowed_cores().unwrap()[0];
        let mut command = Command::new("grep");
        command.args(["Cpus_allowed_list", "/proc/self/status"]);
        confine(&mut command, &[core]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_whitespace().last(), Some(core.to_string().as_str()));
    }
}
