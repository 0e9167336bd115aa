//! Accepting, for both drivers.
//!
//! Drivers watch listeners edge-triggered and `notice` them; here connections are accepted from each until none is left, a
//! turn's share is reached, or the process runs out of descriptors. In the last case the listener rests: what is in
//! its queue would be reported again and again, and could not be taken.

use super::driver::{Events, PeerAddr, peer_addr};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Connections accepted from a listener in one turn, at most.
const ACCEPTS_PER_TURN: usize = 256;

/// How long a listener rests that could not accept for want of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection waits, as far as is known.
    Quiet,
    /// A connection may wait.
    Due,
    RestingUntil(Instant),
}

struct Listener {
    fd: OwnedFd,
    state: State,
}

/// A driver's listeners. A listener's number is never used again.
#[derive(Default)]
pub(super) struct Listeners {
    listeners: Vec<Option<Listener>>,
    /// Some listener is not quiet.
    is_busy: bool,
}

impl Listeners {
    /// Takes a listener, as due: a connection may have come before it was watched.
    pub(super) fn insert(&mut self, fd: OwnedFd) -> usize {
        self.listeners.push(Some(Listener { fd, state: State::Due }));
        self.is_busy = true;
        self.listeners.len() - 1
    }

    /// Closes a listener, which frees its address at once.
    pub(super) fn remove(&mut self, number: usize) {
        if let Some(listener) = self.listeners.get_mut(number) {
            *listener = None;
        }
    }

    pub(super) fn raw_fd(&self, number: usize) -> RawFd {
        let listener = self.listeners[number].as_ref();
        listener.expect("asked for right after it was inserted").fd.as_raw_fd()
    }

    /// A connection came to one of the listeners.
    pub(super) fn notice_all(&mut self) {
        self.listeners.iter_mut().flatten().for_each(Listener::notice);
        self.is_busy = true;
    }

    /// A connection came to this listener.
    pub(super) fn notice(&mut self, number: usize) {
        if let Some(Some(listener)) = self.listeners.get_mut(number) {
            listener.notice();
            self.is_busy = true;
        }
    }

    /// How long a driver may wait without missing a connection. `None`: without limit.
    pub(super) fn wait_limit(&self) -> Option<Duration> {
        if !self.is_busy {
            return None;
        }
        let limits = self.listeners.iter().flatten().filter_map(|listener| match listener.state {
            State::Quiet => None,
            State::Due => Some(Duration::ZERO),
            State::RestingUntil(end) => Some(end.saturating_duration_since(Instant::now())),
        });
        limits.min()
    }

    /// Accepts from the listeners that are due or have rested. Returns the number of events.
    #[inline]
    pub(super) fn accept<E: Events>(&mut self, events: &mut E) -> usize {
        if self.is_busy { self.accept_from_each(events) } else { 0 }
    }

    #[cold]
    fn accept_from_each<E: Events>(&mut self, events: &mut E) -> usize {
        self.is_busy = false;
        let mut event_count = 0;
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let Some(listener) = listener else { continue };
            let is_due = match listener.state {
                State::Quiet => false,
                State::Due => true,
                State::RestingUntil(end) => Instant::now() >= end,
            };
            if is_due {
                event_count += listener.accept(number, events);
            }
            self.is_busy |= listener.state != State::Quiet;
        }
        event_count
    }
}

impl Listener {
    fn notice(&mut self) {
        if self.state == State::Quiet {
            self.state = State::Due;
        }
    }

    fn accept<E: Events>(&mut self, number: usize, events: &mut E) -> usize {
        self.state = State::Due;
        let mut event_count = 0;
        for _ in 0..ACCEPTS_PER_TURN {
            match accept_one(self.fd.as_raw_fd()) {
                Ok((fd, peer)) => {
                    event_count += 1;
                    events.accepted(number, fd, peer);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        self.state = State::Quiet;
                        break;
                    }
                    // This one is gone again; the next may not be.
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO | libc::ENETDOWN) => {}
                    _ => {
                        self.state = State::RestingUntil(Instant::now() + REST);
                        event_count += 1;
                        events.accept_failed(number, error);
                        break;
                    }
                },
            }
        }
        event_count
    }
}

fn accept_one(listener: RawFd) -> io::Result<(OwnedFd, PeerAddr)> {
    // SAFETY: all-zeroes is a valid sockaddr_storage, and accept4 writes at most its length; a non-negative result is
    // a descriptor without another owner.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        let mut len = mem::size_of_val(&storage) as libc::socklen_t;
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let fd = libc::accept4(listener, (&raw mut storage).cast(), &mut len, flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fd), peer_addr(&storage)))
    }
}
