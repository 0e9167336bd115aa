//! The epoll driver: the same behaviour as `uring`, for kernels and containers without io_uring.
//!
//! Level-triggered. Every readable connection is read once a turn, into one buffer that all share, and at most
//! `READ_LEN` bytes: whatever is left makes it readable again in the next turn, behind the others. A send is written at
//! once; only what the socket does not take waits for EPOLLOUT.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::accept::Listeners;
use super::driver::{BellHandle, CloseReason, ConnId, Driver, Events, Token, shorter, shut_down};
use super::slots::{SlotName, Slots};

const KIND_CONN: u8 = 1;
const KIND_ACCEPT: u8 = 2;
const KIND_BELL: u8 = 3;

/// Bytes read from a connection in one turn, at most. One buffer of this size a driver.
const READ_LEN: usize = 128 << 10;

/// Bytes of a fill read in one turn, at most: more than READ_LEN, because nothing has to be done with them yet.
const FILL_READ_LEN: usize = 1 << 20;

/// Readiness reports taken from the kernel at a time.
const BATCH_LEN: usize = 512;

struct Fill {
    buf: Vec<u8>,
    begin: usize,
    end: usize,
}

struct Conn {
    fd: OwnedFd,
    /// What epoll watches for: EPOLLIN, EPOLLOUT.
    interest: u32,
    sending: bool,
    paused: bool,
    /// It is in the epoll set.
    watched: bool,
    /// `input_ended` was reported.
    input_ended: bool,
    /// `send_failed` was reported, or nobody needs to be told.
    send_failed: bool,
    /// The end of the input, not reported before `held` is.
    end: Option<CloseReason>,
    /// Found by a write, which happens outside of a turn; reported in the next.
    send_errno: Option<i32>,
    out: Vec<u8>,
    out_done: usize,
    fill: Option<Box<Fill>>,
    /// What a peer that is gone had sent while the connection was paused.
    held: Vec<u8>,
}

pub struct EpollDriver {
    epoll: OwnedFd,
    conns: Slots<Conn>,
    listeners: Listeners,
    /// Connections with something to report that no readiness will report: a send that was completed or failed at once,
    /// held bytes after a resume.
    ready: Vec<SlotName>,
    read_buf: Box<[u8]>,
    reports: Box<[libc::epoll_event]>,
    bell: BellHandle,
    /// Events of the turn under way.
    event_count: usize,
}

/// What a read or write on a non-blocking socket came to.
enum Moved {
    Bytes(usize),
    /// The peer will send nothing more (reads only).
    Eof,
    /// Nothing now.
    NotNow,
    Failed(i32),
}

impl Moved {
    fn of(result: isize) -> Moved {
        match result {
            1.. => Moved::Bytes(result as usize),
            0 => Moved::Eof,
            _ => match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
                libc::EAGAIN | libc::EINTR => Moved::NotNow,
                errno => Moved::Failed(errno),
            },
        }
    }
}

impl EpollDriver {
    pub fn new(bell: BellHandle) -> io::Result<EpollDriver> {
        // SAFETY: epoll_create1 takes no pointers; a non-negative result is a descriptor that nobody else owns.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let driver = EpollDriver {
            epoll,
            conns: Slots::new(),
            listeners: Listeners::default(),
            ready: Vec::new(),
            read_buf: vec![0; READ_LEN].into_boxed_slice(),
            reports: vec![libc::epoll_event { events: 0, u64: 0 }; BATCH_LEN].into_boxed_slice(),
            bell,
            event_count: 0,
        };
        // Edge-triggered: each ring is one report, and the counter need not be read.
        let interest = (libc::EPOLLIN | libc::EPOLLET) as u32;
        driver.control(libc::EPOLL_CTL_ADD, driver.bell.raw_fd(), interest, Token::numbered(KIND_BELL, 0))?;
        Ok(driver)
    }

    fn control(&self, operation: i32, fd: RawFd, interest: u32, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token.0 };
        // SAFETY: epoll_ctl reads one event, the local above.
        let outcome = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set_interest(&mut self, name: SlotName, interest: u32) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if mem::replace(&mut conn.interest, interest) == interest || !conn.watched {
            return;
        }
        let fd = conn.fd.as_raw_fd();
        if let Err(error) = self.control(libc::EPOLL_CTL_MOD, fd, interest, Token::new(KIND_CONN, name)) {
            // Out of kernel memory: a connection that is not watched would hang, so it ends.
            self.end_unwatched(name, &error);
        }
    }

    fn end_unwatched(&mut self, name: SlotName, error: &io::Error) {
        if let Some(conn) = self.conns.get_mut(name) {
            let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
            conn.end.get_or_insert(CloseReason::Errno(errno));
            self.ready.push(name);
        }
    }

    /// A connection of which both directions are over would report itself without end.
    fn unwatch(&mut self, name: SlotName) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if mem::replace(&mut conn.watched, false) {
            let fd = conn.fd.as_raw_fd();
            // Of what is not in the set any more there is nothing to take out.
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, Token::new(KIND_CONN, name));
        }
    }

    fn dispatch_ready<E: Events>(&mut self, events: &mut E) {
        for name in mem::take(&mut self.ready) {
            let Some(conn) = self.conns.get_mut(name) else { continue };
            if let Some(errno) = conn.send_errno.take() {
                self.report_send_failed(name, errno, events);
            } else if conn.sending && conn.out_done == conn.out.len() {
                self.report_sent(name, events);
            }
            let Some(conn) = self.conns.get_mut(name) else { continue };
            if conn.fill.as_ref().is_some_and(|fill| fill.buf.len() == fill.end) {
                self.report_filled(name, events);
            }
            let Some(conn) = self.conns.get_mut(name) else { continue };
            if !conn.paused && !conn.held.is_empty() {
                self.event_count += 1;
                events.received(ConnId(name), &mem::take(&mut conn.held));
            }
            if let Some(reason) = conn.end.take_if(|_| conn.held.is_empty()) {
                self.report_end(name, reason, events);
            }
        }
    }

    /// Nothing more comes, and all that came before has been reported.
    fn report_end<E: Events>(&mut self, name: SlotName, reason: CloseReason, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if mem::replace(&mut conn.input_ended, true) {
            return;
        }
        conn.fill = None;
        let interest = conn.interest & !(libc::EPOLLIN as u32);
        if reason != CloseReason::Eof {
            conn.fail_sends();
        }
        self.event_count += 1;
        events.input_ended(ConnId(name), reason);
        match reason {
            CloseReason::Eof => self.set_interest(name, interest),
            CloseReason::Errno(_) => self.unwatch(name),
        }
    }

    fn report_send_failed<E: Events>(&mut self, name: SlotName, errno: i32, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if conn.fail_sends() {
            // Whatever the error was, this ends the receiving behind what has come so far.
            shut_down(&conn.fd);
            let interest = conn.interest & !(libc::EPOLLOUT as u32);
            let is_over = conn.input_ended;
            self.event_count += 1;
            events.send_failed(ConnId(name), errno);
            self.set_interest(name, interest);
            if is_over {
                self.unwatch(name);
            }
        }
    }

    fn report_sent<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        conn.sending = false;
        conn.out_done = 0;
        let out = mem::take(&mut conn.out);
        self.event_count += 1;
        events.sent(ConnId(name), out);
    }

    fn report_filled<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if let Some(fill) = conn.fill.take() {
            self.event_count += 1;
            events.filled(ConnId(name), fill.buf);
        }
    }

    fn on_conn<E: Events>(&mut self, name: SlotName, report: u32, events: &mut E) {
        if report & libc::EPOLLOUT as u32 != 0 {
            self.on_writable(name, events);
        }
        let Some(conn) = self.conns.get(name) else { return };
        if report & !(libc::EPOLLOUT as u32) == 0 {
            return;
        }
        let is_gone = report & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        if conn.input_ended || conn.end.is_some() {
            if is_gone {
                self.report_send_failed(name, libc::EPIPE, events);
                self.unwatch(name);
            }
        } else if conn.fill.is_some() {
            self.on_fillable(name, events);
        } else if conn.paused && is_gone {
            self.take_last_words(name, events);
        } else if conn.paused {
            self.on_readable_while_paused(name, events);
        } else {
            self.on_readable(name, events);
        }
    }

    fn on_writable<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if !conn.sending {
            return;
        }
        match conn.write() {
            Some(errno) => self.report_send_failed(name, errno, events),
            None if conn.out_done == conn.out.len() => {
                let interest = conn.interest & !(libc::EPOLLOUT as u32);
                self.set_interest(name, interest);
                self.report_sent(name, events);
            }
            None => {}
        }
    }

    fn on_readable<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        // SAFETY: recv writes at most the buffer's length into it.
        let received = unsafe {
            libc::recv(conn.fd.as_raw_fd(), self.read_buf.as_mut_ptr().cast(), self.read_buf.len(), 0)
        };
        match Moved::of(received) {
            Moved::Bytes(len) => {
                self.event_count += 1;
                events.received(ConnId(name), &self.read_buf[..len]);
            }
            Moved::Eof => self.report_end(name, CloseReason::Eof, events),
            Moved::NotNow => {}
            Moved::Failed(errno) => self.report_end(name, CloseReason::Errno(errno), events),
        }
    }

    fn on_fillable<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        let Some(fill) = &mut conn.fill else { return };
        let want = (fill.end - fill.buf.len()).min(FILL_READ_LEN);
        let spare = fill.buf.spare_capacity_mut();
        assert!(want <= spare.len(), "recv_exact reserves the capacity");
        // SAFETY: recv writes at most `want` bytes into the spare capacity, and those it wrote become part of the
        // vector.
        let received = unsafe {
            let received = libc::recv(conn.fd.as_raw_fd(), spare.as_mut_ptr().cast(), want, 0);
            if received > 0 {
                fill.buf.set_len(fill.buf.len() + received as usize);
            }
            received
        };
        match Moved::of(received) {
            Moved::Bytes(_) if fill.buf.len() == fill.end => self.report_filled(name, events),
            Moved::Bytes(_) | Moved::NotNow => {}
            Moved::Eof => self.report_end(name, CloseReason::Eof, events),
            Moved::Failed(errno) => self.report_end(name, CloseReason::Errno(errno), events),
        }
    }

    /// Bytes stay in the socket; only an end with nothing before it is reported.
    fn on_readable_while_paused<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        let mut byte = 0u8;
        // SAFETY: recv writes at most one byte, the local above.
        let peeked = unsafe { libc::recv(conn.fd.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
        match Moved::of(peeked) {
            Moved::Eof => self.report_end(name, CloseReason::Eof, events),
            Moved::Failed(errno) => self.report_end(name, CloseReason::Errno(errno), events),
            Moved::NotNow => {}
            Moved::Bytes(_) => {
                let interest = conn.interest & !(libc::EPOLLIN as u32);
                self.set_interest(name, interest);
            }
        }
    }

    /// The peer of a paused connection is gone, which reports itself whatever is watched: leaving it would spin. It has
    /// sent no more than the socket holds: that is kept until the pause is over, and its end behind it.
    fn take_last_words<E: Events>(&mut self, name: SlotName, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        let reason = loop {
            // SAFETY: recv writes at most the buffer's length into it.
            let received = unsafe {
                libc::recv(conn.fd.as_raw_fd(), self.read_buf.as_mut_ptr().cast(), self.read_buf.len(), 0)
            };
            match Moved::of(received) {
                Moved::Bytes(len) => conn.held.extend_from_slice(&self.read_buf[..len]),
                Moved::Eof => break CloseReason::Eof,
                Moved::NotNow => break CloseReason::Errno(libc::ECONNRESET),
                Moved::Failed(errno) => break CloseReason::Errno(errno),
            }
        };
        if conn.held.is_empty() {
            self.report_end(name, reason, events);
        } else {
            conn.end = Some(reason);
        }
        self.report_send_failed(name, libc::EPIPE, events);
        self.unwatch(name);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        // Rounded up: a wait that ends just before a deadline would be followed by one of no length.
        let timeout_ms =
            timeout.map_or(-1, |timeout| timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32);
        // SAFETY: epoll_wait writes at most as many reports as the slice has.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.reports.as_mut_ptr(),
                self.reports.len() as i32,
                timeout_ms,
            )
        };
        match count {
            0.. => Ok(count as usize),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

impl Conn {
    /// Drops what was to be sent. Returns whether sends had not failed before.
    fn fail_sends(&mut self) -> bool {
        self.sending = false;
        self.out = Vec::new();
        self.out_done = 0;
        !mem::replace(&mut self.send_failed, true)
    }

    /// Writes what the socket takes. Returns the errno if that fails.
    fn write(&mut self) -> Option<i32> {
        while self.out_done < self.out.len() {
            let rest = &self.out[self.out_done..];
            // SAFETY: send reads at most the slice's length.
            let sent = unsafe {
                libc::send(self.fd.as_raw_fd(), rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL)
            };
            match Moved::of(sent) {
                Moved::Bytes(len) => self.out_done += len,
                Moved::NotNow | Moved::Eof => return None,
                Moved::Failed(errno) => return Some(errno),
            }
        }
        None
    }
}

impl Driver for EpollDriver {
    fn listen(&mut self, listener: OwnedFd) -> usize {
        let number = self.listeners.insert(listener);
        let interest = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let token = Token::numbered(KIND_ACCEPT, number);
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, self.listeners.raw_fd(number), interest, token)
        {
            // Out of kernel memory, at start or at CONFIG SET: whoever listens cannot do without.
            panic!("cannot watch a listener: {error}");
        }
        number
    }

    fn unlisten(&mut self, number: usize) {
        self.listeners.remove(number);
    }

    fn add(&mut self, fd: OwnedFd) -> ConnId {
        let raw_fd = fd.as_raw_fd();
        let interest = libc::EPOLLIN as u32;
        let name = self.conns.insert(Conn {
            fd,
            interest,
            sending: false,
            paused: false,
            watched: true,
            input_ended: false,
            send_failed: false,
            end: None,
            send_errno: None,
            out: Vec::new(),
            out_done: 0,
            fill: None,
            held: Vec::new(),
        });
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, raw_fd, interest, Token::new(KIND_CONN, name)) {
            self.end_unwatched(name, &error);
        }
        ConnId(name)
    }

    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        assert!(!buf.is_empty(), "nothing to send");
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        if entry.send_failed || entry.send_errno.is_some() {
            return;
        }
        assert!(!entry.sending, "a send is under way already");
        entry.sending = true;
        entry.out = buf;
        entry.out_done = 0;
        if let Some(errno) = entry.write() {
            entry.send_errno = Some(errno);
            self.ready.push(conn.0);
        } else if entry.out_done == entry.out.len() {
            self.ready.push(conn.0);
        } else {
            let interest = entry.interest | libc::EPOLLOUT as u32;
            self.set_interest(conn.0, interest);
        }
    }

    fn recv_exact(&mut self, conn: ConnId, mut buf: Vec<u8>, want: usize) {
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        if entry.input_ended {
            return;
        }
        assert!(entry.fill.is_none(), "a fill is under way already");
        let begin = buf.len();
        buf.reserve_exact(want);
        let held_len = entry.held.len().min(want);
        buf.extend(entry.held.drain(..held_len));
        if held_len == want || entry.end.is_some() {
            self.ready.push(conn.0);
        }
        entry.fill = Some(Box::new(Fill { buf, begin, end: begin + want }));
        let interest = entry.interest | libc::EPOLLIN as u32;
        self.set_interest(conn.0, interest);
    }

    fn pause(&mut self, conn: ConnId) {
        // Still watched: if the pause is over before anything arrives, it has cost nothing.
        if let Some(entry) = self.conns.get_mut(conn.0) {
            entry.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        entry.paused = false;
        if entry.end.is_some() {
            self.ready.push(conn.0);
        } else if !entry.input_ended {
            let interest = entry.interest | libc::EPOLLIN as u32;
            self.set_interest(conn.0, interest);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.remove(conn.0) {
            // By name: a duplicate of the descriptor in another process would keep it in the set.
            let _ = self.control(libc::EPOLL_CTL_DEL, entry.fd.as_raw_fd(), 0, Token::new(KIND_CONN, conn.0));
        }
    }

    fn turn<E: Events>(&mut self, timeout: Option<Duration>, events: &mut E) -> io::Result<usize> {
        self.event_count = 0;
        self.dispatch_ready(events);
        if self.event_count > 0 {
            // What waits in the kernel can wait for the next turn; what the worker does about these should not.
            return Ok(self.event_count);
        }
        let timeout = shorter(timeout, self.listeners.wait_limit());

        let count = self.wait(timeout)?;
        for at in 0..count {
            let report = self.reports[at];
            let token = Token(report.u64);
            match token.kind() {
                KIND_CONN => self.on_conn(token.name(), report.events, events),
                KIND_ACCEPT => self.listeners.notice(token.name().index as usize),
                KIND_BELL => {
                    self.event_count += 1;
                    events.bell();
                }
                kind => unreachable!("a report of kind {kind}, which is never watched"),
            }
        }
        self.event_count += self.listeners.accept(events);
        Ok(self.event_count)
    }

    fn pending_out(&self, conn: ConnId) -> usize {
        self.conns.get(conn.0).map_or(0, |conn| conn.out.len() - conn.out_done)
    }

    fn filling(&self, conn: ConnId) -> usize {
        let fill = self.conns.get(conn.0).and_then(|conn| conn.fill.as_ref());
        fill.map_or(0, |fill| fill.buf.len() - fill.begin)
    }

    fn conn_count(&self) -> usize {
        self.conns.len()
    }

    fn bell_handle(&self) -> BellHandle {
        self.bell.clone()
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}
