//! Whether this process may use io_uring, and if not, why, in the operator's terms.
//!
//! Asking for features is not enough: a container's seccomp profile, a sysctl and a kernel's age all say no in
//! different places. So the probe makes a driver as a shard would, and sends bytes through it.

use super::driver::{BellHandle, CloseReason, ConnId, Driver, Events, PeerAddr};
use super::os_error::error_text;
use super::uring::{Layout, UringDriver};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What the threads of the io_uring backend need in locked memory, see `threads`.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Ends a probe whose bytes do not come: each look waits up to a tenth of a second.
const LOOKS_MAX: usize = 20;

/// io_uring works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringSupport {
    pub layout: Layout,
}

/// Tries io_uring. The error completes the sentence "io_uring is not available: ...". Never panics; leaves nothing
/// behind but, perhaps, a soft limit on locked memory raised to the hard one.
pub fn uring() -> Result<UringSupport, String> {
    raise_memlock_limit()?;
    let bell = BellHandle::new().map_err(|error| error_text(&error))?;
    let mut driver = UringDriver::new(bell).map_err(|error| explain(&error))?;
    exchange(&mut driver)?;
    Ok(UringSupport { layout: driver.layout() })
}

/// What an error of setting up a ring means.
fn explain(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring".to_string(),
        Some(libc::EPERM | libc::EACCES) => match disabled.trim() {
            "" | "0" => {
                "not permitted, probably by a seccomp profile (Docker's default one forbids it)".to_string()
            }
            value => format!("disabled by the sysctl kernel.io_uring_disabled = {value}"),
        },
        Some(libc::ENOMEM) => "too little memory may be locked (ulimit -l)".to_string(),
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            "this kernel's io_uring is too old, Linux 6.0 is needed".to_string()
        }
        _ => error_text(error),
    }
}

/// glommio, which runs the backend's threads, starts only with this much. A soft limit may be raised by anybody.
fn raise_memlock_limit() -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit, setrlimit reads one; both are the local.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) != 0 {
            return Err(error_text(&io::Error::last_os_error()));
        }
        if limit.rlim_cur < MEMLOCK_BYTES_MIN && limit.rlim_max >= MEMLOCK_BYTES_MIN {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
    if limit.rlim_cur >= MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    Err(format!(
        "only {} KiB of memory may be locked, {} are needed (ulimit -l, or LimitMEMLOCK= of the unit)",
        limit.rlim_cur >> 10,
        MEMLOCK_BYTES_MIN >> 10
    ))
}

/// Bytes there and back, twice: once to see that it works, again to see that a receive goes on by itself.
fn exchange(driver: &mut UringDriver) -> Result<(), String> {
    let (ours, mut peer) = UnixStream::pair().map_err(|error| error_text(&error))?;
    let conn = driver.add(OwnedFd::from(ours));
    let mut seen = Seen::default();
    for round in 1..=2 {
        peer.write_all(b"probe").map_err(|error| error_text(&error))?;
        seen.look(driver, |seen| seen.received == round * 5)?;
        driver.send(conn, b"probe".to_vec());
        seen.look(driver, |seen| seen.sent == round)?;
    }
    driver.close(conn);
    Ok(())
}

#[derive(Default)]
struct Seen {
    received: usize,
    sent: usize,
    failed: Option<CloseReason>,
}

impl Seen {
    fn look(&mut self, driver: &mut UringDriver, done: impl Fn(&Seen) -> bool) -> Result<(), String> {
        for _ in 0..LOOKS_MAX {
            driver.turn(Some(Duration::from_millis(100)), self).map_err(|error| explain(&error))?;
            if let Some(CloseReason::Errno(errno)) = self.failed {
                return Err(explain(&io::Error::from_raw_os_error(errno)));
            }
            if done(self) {
                return Ok(());
            }
        }
        Err("a ring was set up, but nothing goes through it".to_string())
    }
}

impl Events for Seen {
    fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
    fn accept_failed(&mut self, _: usize, _: io::Error) {}
    fn received(&mut self, _: ConnId, bytes: &[u8]) {
        self.received += bytes.len();
    }
    fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
    fn sent(&mut self, _: ConnId, _: Vec<u8>) {
        self.sent += 1;
    }
    fn input_ended(&mut self, _: ConnId, reason: CloseReason) {
        self.failed = Some(reason);
    }
    fn send_failed(&mut self, _: ConnId, errno: i32) {
        self.failed = Some(CloseReason::Errno(errno));
    }
    fn bell(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_agrees_with_what_can_be_used() {
        match uring() {
            Ok(support) => {
                let bell = BellHandle::new().unwrap();
                assert_eq!(UringDriver::new(bell).unwrap().layout(), support.layout);
            }
            Err(reason) => {
                assert!(!reason.is_empty());
                eprintln!("io_uring is not available: {reason}");
            }
        }
    }

    #[test]
    fn each_refusal_is_explained() {
        let explained = |errno| explain(&io::Error::from_raw_os_error(errno));
        assert_eq!(explained(libc::ENOSYS), "this kernel has no io_uring");
        assert!(explained(libc::EPERM).contains("permitted") || explained(libc::EPERM).contains("disabled"));
        assert!(explained(libc::ENOMEM).contains("ulimit -l"));
        assert!(explained(libc::EINVAL).contains("too old"));
        assert_eq!(explained(libc::EMFILE), "Too many open files");
    }
}
