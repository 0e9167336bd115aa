//! A thread that waits for what concerns no shard's own driver: a time, and descriptors of modules that become ready.

use super::os_error::error_text;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the watcher has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The alarm's time has come.
    Alarm,
    /// A descriptor is ready, and not watched any more.
    Ready { fd: RawFd, is_readable: bool, is_writable: bool },
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    pub readable: bool,
    pub writable: bool,
}

/// The watcher. Its thread lasts as long as the process.
pub struct Watcher {
    epoll: OwnedFd,
    /// An eventfd, by which the thread is woken.
    wake: OwnedFd,
    alarm_at: Mutex<Option<Instant>>,
}

const BATCH_LEN: usize = 16;

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller has got the descriptor from the system, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Watcher {
    /// Starts the thread, which tells `tell` of what it sees.
    ///
    /// # Errors
    /// The system's: no descriptors or threads are left.
    pub fn start(tell: Box<dyn Fn(Seen) + Send>) -> io::Result<Arc<Watcher>> {
        // SAFETY: the call takes no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        let wake = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let watcher = Arc::new(Watcher { epoll, wake, alarm_at: Mutex::new(None) });
        watcher.control(libc::EPOLL_CTL_ADD, watcher.wake.as_raw_fd(), libc::EPOLLIN as u32)?;
        let of_thread = Arc::clone(&watcher);
        thread::Builder::new().name("watcher".to_string()).spawn(move || of_thread.run(&*tell))?;
        Ok(watcher)
    }

    /// Sets when the alarm is given, in place of any earlier time. `None`: never.
    pub fn set_alarm(&self, after: Option<Duration>) {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        *self.alarm_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
        let one = 1u64.to_ne_bytes();
        // SAFETY: the eight bytes are those of the local. If it cannot be written, the thread is being woken already.
        unsafe { libc::write(self.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Watches a descriptor until it is ready for one of these, in place of what it was watched for before.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn watch(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        let readable = if interest.readable { libc::EPOLLIN as u32 } else { 0 };
        let writable = if interest.writable { libc::EPOLLOUT as u32 } else { 0 };
        let events = readable | writable | libc::EPOLLONESHOT as u32;
        match self.control(libc::EPOLL_CTL_MOD, fd, events) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.control(libc::EPOLL_CTL_ADD, fd, events)
            }
            outcome => outcome,
        }
    }

    /// Watches a descriptor no more.
    pub fn forget(&self, fd: RawFd) {
        // It may have been closed already, and so is not watched.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: epoll_ctl reads one event, the local above.
        let outcome = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Milliseconds until the alarm, rounded up; -1: there is none.
    fn timeout_ms(&self) -> libc::c_int {
        let Some(at) = *self.alarm_at.lock().unwrap_or_else(PoisonError::into_inner) else { return -1 };
        let left = at.saturating_duration_since(Instant::now());
        libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    }

    fn take_alarm(&self) -> bool {
        let mut alarm_at = self.alarm_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = alarm_at.is_some_and(|at| at <= Instant::now());
        if is_due {
            *alarm_at = None;
        }
        is_due
    }

    fn run(&self, tell: &dyn Fn(Seen)) {
        let mut reports = [libc::epoll_event { events: 0, u64: 0 }; BATCH_LEN];
        loop {
            let timeout_ms = self.timeout_ms();
            let epoll = self.epoll.as_raw_fd();
            // SAFETY: epoll_wait writes at most as many reports as the array has.
            let count = unsafe {
                libc::epoll_wait(epoll, reports.as_mut_ptr(), BATCH_LEN as libc::c_int, timeout_ms)
            };
            if count < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                let error = error_text(&io::Error::last_os_error());
                super::log::warning(format_args!(
                    "Modules are not told of ready descriptors any more: {error}"
                ));
                return;
            }
            for report in reports.iter().take(usize::try_from(count).unwrap_or(0)) {
                let (fd, events) = (report.u64 as RawFd, report.events);
                if fd == self.wake.as_raw_fd() {
                    self.empty_wake();
                    continue;
                }
                let ended = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
                tell(Seen::Ready {
                    fd,
                    is_readable: events & (libc::EPOLLIN as u32 | ended) != 0,
                    is_writable: events & (libc::EPOLLOUT as u32 | ended) != 0,
                });
            }
            if self.take_alarm() {
                tell(Seen::Alarm);
            }
        }
    }

    fn empty_wake(&self) {
        let mut count = [0u8; 8];
        // SAFETY: read writes at most eight bytes, into the local. If there is nothing to read, nothing is missed.
        unsafe { libc::read(self.wake.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    #[test]
    fn the_alarm_is_given_once_and_a_later_time_replaces_an_earlier_one() {
        let (tell, seen) = mpsc::channel();
        let watcher = Watcher::start(Box::new(move |what| tell.send(what).expect("the test waits")))
            .expect("it starts");
        watcher.set_alarm(Some(Duration::from_secs(3600)));
        watcher.set_alarm(Some(Duration::from_millis(1)));
        assert_eq!(seen.recv(), Ok(Seen::Alarm));
        watcher.set_alarm(None);
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn a_descriptor_is_reported_when_it_is_ready_and_again_only_if_it_is_watched_again() {
        let (tell, seen) = mpsc::channel();
        let watcher = Watcher::start(Box::new(move |what| tell.send(what).expect("the test waits")))
            .expect("it starts");
        let (mut near, far) = UnixStream::pair().expect("there are descriptors");
        let fd = far.as_raw_fd();
        let readable = Interest { readable: true, writable: false };
        watcher.watch(fd, readable).expect("it is a socket");
        near.write_all(b"x").expect("it is open");
        let ready = Seen::Ready { fd, is_readable: true, is_writable: false };
        assert_eq!(seen.recv(), Ok(ready));
        watcher.watch(fd, readable).expect("it is still open");
        assert_eq!(seen.recv(), Ok(ready));
        watcher.watch(fd, Interest { readable: false, writable: true }).expect("it is still open");
        assert_eq!(seen.recv(), Ok(Seen::Ready { fd, is_readable: false, is_writable: true }));
        watcher.forget(fd);
        watcher.forget(fd);
    }
}
