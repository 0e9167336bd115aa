//! What the machine and the kernel say of this process: memory, CPU time, limits. Asked for by INFO, CONFIG and MEMORY,
//! so nothing here need be quick.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Whose CPU time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuScope {
    Process,
    /// Its children that have ended.
    Children,
    /// The calling thread.
    Thread,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CpuTimes {
    pub user: Duration,
    pub system: Duration,
}

/// CPU time used so far.
pub fn cpu_times(scope: CpuScope) -> CpuTimes {
    let who = match scope {
        CpuScope::Process => libc::RUSAGE_SELF,
        CpuScope::Children => libc::RUSAGE_CHILDREN,
        CpuScope::Thread => libc::RUSAGE_THREAD,
    };
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure it is given, for which zeros are valid too if it should fail.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    CpuTimes { user: duration(usage.ru_utime), system: duration(usage.ru_stime) }
}

/// The process' resident memory in bytes; 0 where /proc is not there.
pub fn rss_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * page_bytes()
}

/// The machine's memory in bytes.
pub fn total_memory_bytes() -> u64 {
    // SAFETY: sysconf has no other effect than to answer.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).unwrap_or(0) * page_bytes()
}

fn page_bytes() -> u64 {
    // SAFETY: as above.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The kernel's name, release and machine: `Linux 6.1.0 x86_64`.
pub fn system_name() -> String {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname fills the structure it is given, for which zeros are valid too if it should fail.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    let text = |field: &[libc::c_char]| -> String {
        field.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect()
    };
    format!("{} {} {}", text(&names.sysname), text(&names.release), text(&names.machine))
}

/// Makes room for `wanted` open files, as far as the kernel allows, and answers how many there may be now.
pub fn raise_fd_limit(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the structure it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    // The hard limit can only be raised by root, and only where the kernel's own is higher still.
    for maximum in [limit.rlim_max.max(wanted), limit.rlim_max] {
        let raised = libc::rlimit { rlim_cur: wanted.min(maximum), rlim_max: maximum };
        // SAFETY: setrlimit reads the structure it is given.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            return Ok(raised.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_takes_memory_and_less_than_the_machine_has() {
        assert!(rss_bytes() > 0);
        assert!(rss_bytes() < total_memory_bytes());
    }

    #[test]
    fn cpu_time_only_grows() {
        let before = cpu_times(CpuScope::Process);
        let sum: u64 = (0..10_000_000u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        std::hint::black_box(sum);
        let after = cpu_times(CpuScope::Process);
        assert!(after.user + after.system >= before.user + before.system);
        assert_eq!(cpu_times(CpuScope::Children), CpuTimes::default());
    }

    #[test]
    fn the_limit_of_open_files_is_not_lowered() {
        let now = raise_fd_limit(1).unwrap();
        assert!(now >= 1);
        assert_eq!(raise_fd_limit(now).unwrap(), now);
    }

    #[test]
    fn the_system_has_a_name_of_three_parts() {
        let name = system_name();
        assert!(name.starts_with("Linux ") && name.split(' ').count() == 3, "{name}");
    }
}
