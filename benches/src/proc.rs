//! What /proc says of a process: CPU, memory, the cores it may use. Parsers take text, so that they can be tested.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::sys;

/// CPU use of a process by the three ways that the kernel tells it, to be held against each other.
#[derive(Clone, Copy, Debug)]
pub struct CpuByThreeWays {
    /// The process' CPU clock.
    pub clock_ns: u64,
    /// The sum over the threads alive of the first figure of task/*/schedstat.
    pub schedstat_ns: u64,
    /// utime + stime of /proc/PID/stat.
    pub stat_ns: u64,
}

pub fn cpu_by_three_ways(pid: u32) -> io::Result<CpuByThreeWays> {
    let mut schedstat_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => {
                schedstat_ns += parse_schedstat_run_ns(&text).ok_or_else(|| malformed("schedstat"))?
            }
            // The thread ended since the directory was listed.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (user, system) = parse_stat_cpu_ticks(&stat).ok_or_else(|| malformed("stat"))?;
    let stat_ns = (user + system) * (1_000_000_000 / sys::clock_ticks_per_second());
    Ok(CpuByThreeWays { clock_ns: sys::CpuClock::of(pid)?.used_ns()?, schedstat_ns, stat_ns })
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} has an unknown form"))
}

/// Ticks of user and of system time of a process. How the kernel divides the time between the two is sampled, so the
/// division is good over a second, not over a millisecond.
pub fn user_and_system_ticks(pid: u32) -> io::Result<(u64, u64)> {
    parse_stat_cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(|| malformed("stat"))
}

/// utime and stime, in ticks. The command's name (field 2) may hold spaces and parentheses: count from the last one.
fn parse_stat_cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    // Fields 3 (state) to 13 come first; utime is field 14, stime field 15.
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some((utime, stime))
}

/// Nanoseconds on a core, the first of the three figures.
fn parse_schedstat_run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// Nanoseconds that a thread was ready and waited for a core, the second of the three figures.
fn parse_schedstat_delay_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// How long the threads of a process waited for a core, all together. Read often, so the files stay open. Unlike the CPU
/// clock, which is brought up to date at ticks while a thread runs, this figure is exact as soon as the wait is over.
pub struct RunDelay {
    schedstats: Vec<File>,
}

impl RunDelay {
    /// Of the threads that the process has now.
    pub fn of(pid: u32) -> io::Result<RunDelay> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
        let open = |task: io::Result<fs::DirEntry>| File::open(task?.path().join("schedstat"));
        Ok(RunDelay { schedstats: tasks.map(open).collect::<io::Result<_>>()? })
    }

    /// A thread that ended no longer counts.
    pub fn total_ns(&self) -> u64 {
        let mut buffer = [0; 96];
        let delay_ns = |file: &File| {
            let len = file.read_at(&mut buffer, 0).ok()?;
            parse_schedstat_delay_ns(std::str::from_utf8(&buffer[..len]).ok()?)
        };
        self.schedstats.iter().filter_map(delay_ns).sum()
    }
}

/// A field of /proc/PID/status in kB, as bytes.
fn parse_status_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Resident bytes of a process.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_status_bytes(&status, "VmRSS").ok_or_else(|| malformed("status"))
}

/// Bytes of a process on huge pages.
pub fn huge_page_bytes(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_status_bytes(&rollup, "AnonHugePages").ok_or_else(|| malformed("smaps_rollup"))
}

/// "0-2,5" as [0, 1, 2, 5]. None if it is not such a list.
pub fn parse_core_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= libc::CPU_SETSIZE as usize {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Every core that some thread of the process may use, ascending.
pub fn cores_of(pid: u32) -> io::Result<Vec<usize>> {
    let mut cores = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        cores.extend(list.and_then(parse_core_list).ok_or_else(|| malformed("task/*/status"))?);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

/// Time of the whole machine since boot that a hypervisor gave to others, and the time of all its cores, in ticks.
pub fn steal_and_total_ticks() -> Option<(u64, u64)> {
    parse_steal_and_total(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_steal_and_total(stat: &str) -> Option<(u64, u64)> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest times are within user and nice.
    let ticks: Vec<u64> =
        fields.split_ascii_whitespace().take(8).map(|t| t.parse().ok()).collect::<Option<_>>()?;
    Some((*ticks.get(7)?, ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_a_name_with_parentheses_and_spaces() {
        let stat = "42 (a) R 1 (x) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 5 0 100 1 2";
        assert_eq!(parse_stat_cpu_ticks(stat), Some((250, 75)));
        assert_eq!(parse_stat_cpu_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn run_time_and_run_delay_are_the_first_two_figures_of_schedstat() {
        assert_eq!(parse_schedstat_run_ns("908211 17 1\n"), Some(908_211));
        assert_eq!(parse_schedstat_delay_ns("908211 17 1\n"), Some(17));
        assert_eq!(parse_schedstat_run_ns(""), None);
    }

    #[test]
    fn a_field_of_status_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    9 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(parse_status_bytes(status, "VmRSS"), Some(12 * 1024));
        assert_eq!(parse_status_bytes(status, "VmSwap"), None);
    }

    #[test]
    fn core_lists_are_ranges_and_single_cores() {
        assert_eq!(parse_core_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_core_list("3"), Some(vec![3]));
        for bad in ["", "a", "2-1", "0,", "0-99999"] {
            assert_eq!(parse_core_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn steal_is_the_eighth_figure_of_the_machine() {
        let stat = "cpu  10 1 5 100 2 0 3 7 4 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_steal_and_total(stat), Some((7, 128)));
    }

    #[test]
    fn the_three_ways_to_tell_cpu_agree_on_this_process() {
        let mut sum = 0u64;
        // Some 100 ms of work, so that a tick of 10 ms is a small part of it.
        while sys::CpuClock::of(std::process::id()).unwrap().used_ns().unwrap() < 200_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let cpu = cpu_by_three_ways(std::process::id()).unwrap();
        // Threads of other tests may have ended: the clock counts them, schedstat does not.
        assert!(cpu.schedstat_ns <= cpu.clock_ns, "{cpu:?}");
        assert!(cpu.stat_ns.abs_diff(cpu.clock_ns) < cpu.clock_ns / 4, "{cpu:?}");
    }

    #[test]
    fn the_run_delay_of_a_process_can_be_read_again_and_again() {
        // A process of its own, because a thread of this one that ends between the readings takes its share with it.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let delay = RunDelay::of(child.id()).unwrap();
        let first = delay.total_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = delay.total_ns();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!delay.schedstats.is_empty(), "a process has a thread");
        assert!(second >= first);
    }

    #[test]
    fn this_process_has_memory_and_cores() {
        assert!(rss_bytes(std::process::id()).unwrap() > 100 * 1024);
        assert!(!cores_of(std::process::id()).unwrap().is_empty());
    }
}
