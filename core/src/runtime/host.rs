//! What the machine and the kernel say of this process: memory, CPU time, the kernel's name. Asked for by INFO and
//! MEMORY, so nothing here need be quick.

use super::log;
use crate::config::{Config, OomScoreAdj};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::time::Duration;

/// Fills a place with bytes that cannot be guessed.
pub fn fill_randomly(place: &mut [u8]) {
    let source = fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, place));
    source.expect("the system has random bytes");
}

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

/// How willingly the kernel may kill this process to win memory, from -1000 to 1000.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OomScore {
    /// As it was before it was changed.
    Original,
    /// So much more than that.
    Relative(i32),
    Absolute(i32),
}

impl OomScore {
    /// What the directives want of a replica, or of a server that is none.
    pub fn of(config: &Config, is_replica: bool) -> OomScore {
        let value = config.oom_score_adj_values.0[usize::from(is_replica)];
        match config.oom_score_adj {
            OomScoreAdj::No => OomScore::Original,
            OomScoreAdj::Relative => OomScore::Relative(value),
            OomScoreAdj::Absolute => OomScore::Absolute(value),
        }
    }
}

/// Tells the kernel how willingly a server of this role may be killed to win memory, as the directives want it. Returns whether it
/// is so; the log says why not.
pub fn follow_oom_score(config: &Config, is_replica: bool) -> bool {
    let outcome = set_oom_score(OomScore::of(config, is_replica));
    if let Err(error) = &outcome {
        log::warning(format_args!("Unable to write oom_score_adj: {error}"));
    }
    outcome.is_ok()
}

/// Sets the process' oom_score_adj. Fails where the kernel does not allow the value, as when a score is to be lowered
/// without privileges.
pub fn set_oom_score(score: OomScore) -> io::Result<()> {
    const PATH: &str = "/proc/self/oom_score_adj";
    /// While it is changed.
    static ORIGINAL: Mutex<Option<i32>> = Mutex::new(None);
    let mut original = ORIGINAL.lock().expect("no holder of the original score panics");
    let base = match *original {
        Some(base) => base,
        None if score == OomScore::Original => return Ok(()),
        None => {
            let text = fs::read_to_string(PATH)?;
            let base = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            *original = Some(base);
            base
        }
    };
    let value = match score {
        OomScore::Original => {
            *original = None;
            base
        }
        OomScore::Relative(value) => base + value,
        OomScore::Absolute(value) => value,
    };
    fs::write(PATH, value.clamp(-1000, 1000).to_string())
}

/// Ends the process as a wild pointer would, for DEBUG SEGFAULT.
pub fn segfault() -> ! {
    // SAFETY: raise takes no pointers. Its handler, ours or the kernel's, ends the process.
    unsafe { libc::raise(libc::SIGSEGV) };
    unreachable!("SIGSEGV ends the process")
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
    }

    #[test]
    fn the_oom_score_is_raised_and_restored() {
        let score = || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let original = score();
        set_oom_score(OomScore::Original).unwrap();
        assert_eq!(score(), original);
        set_oom_score(OomScore::Relative(1)).unwrap();
        assert_eq!(score(), (original + 1).min(1000));
        // Back is down, for which privileges are needed where the score was raised for good.
        if set_oom_score(OomScore::Original).is_ok() {
            assert_eq!(score(), original);
            // What is set by others while it is not changed stays, and counts from then on.
            fs::write("/proc/self/oom_score_adj", (original + 3).to_string()).unwrap();
            set_oom_score(OomScore::Original).unwrap();
            assert_eq!(score(), original + 3);
            set_oom_score(OomScore::Relative(2)).unwrap();
            assert_eq!(score(), original + 5);
            set_oom_score(OomScore::Original).unwrap();
            assert_eq!(score(), original + 3);
        }
    }

    #[test]
    fn the_system_has_a_name_of_three_parts() {
        let name = system_name();
        assert!(name.starts_with("Linux ") && name.split(' ').count() == 3, "{name}");
    }
}
