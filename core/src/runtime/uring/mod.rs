//! The io_uring driver.
//!
//! One ring a shard. Every connection has one multishot receive armed, which hands its bytes over in provided buffers
//! (`pool`), and at most one send; all requests of a turn go to the kernel with the enter that waits for the next
//! events, so a busy turn of any number of connections costs one system call.
//!
//! What has to be right here, each of which is a way to lose bytes or to write into freed memory:
//!
//! - A multishot ends by itself (completion without F_MORE): out of buffers, completion queue full, or the kernel's
//!   choice. `settle` arms it again, unless the connection's state says otherwise.
//! - Memory in the kernel's hands (a send's bytes, a fill's buffer) lives in the connection's entry, and the entry is
//!   kept until every request that names it has completed. `close` therefore cancels first and frees later.
//! - A descriptor is closed only with its entry, so its number cannot be another connection's while a cancellation by
//!   descriptor is on its way.
//! - Completions of one receive come in order; between two kinds there is no order.

mod pool;
mod ring;

use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};

use super::accept::Listeners;
use super::driver::{BellHandle, CloseReason, ConnId, Driver, Events, Token, shorter, shut_down};
use super::slots::{SlotName, Slots};
pub use pool::Layout;
use pool::{BUFFER_GROUP, BufferPool};
use ring::Ring;

const KIND_RECV: u8 = 1;
const KIND_FILL: u8 = 2;
const KIND_SEND: u8 = 3;
const KIND_LISTENERS: u8 = 4;
const KIND_BELL: u8 = 5;
const KIND_CANCEL: u8 = 6;

/// Completions taken from the queue at a time.
const BATCH_LEN: usize = 64;

/// The largest piece of one send or fill request, whose length is an i32 in the completion.
const REQUEST_LEN_MAX: usize = 1 << 30;

/// Ends a `Drop` that waits for the kernel to let go of our memory; each round waits up to 10 ms.
const DRAIN_ROUNDS_MAX: usize = 200;

/// What receives for a connection at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Nothing,
    Multishot,
    /// The multishot, with a cancellation on its way.
    MultishotEnding,
    /// A receive into the buffer of `fill`.
    Fill,
}

struct Fill {
    buf: Vec<u8>,
    begin: usize,
    end: usize,
}

struct Conn {
    fd: OwnedFd,
    receiving: Receiving,
    sending: bool,
    paused: bool,
    /// `input_ended` was reported.
    input_ended: bool,
    /// `send_failed` was reported, or nobody needs to be told.
    send_failed: bool,
    /// `close` was called; the entry waits for its last completion.
    closing: bool,
    /// In the driver's `ready` list.
    ready: bool,
    /// The end of the input, not reported before `held` is.
    end: Option<CloseReason>,
    out: Vec<u8>,
    out_done: usize,
    fill: Option<Box<Fill>>,
    /// Arrived while paused.
    held: Vec<u8>,
}

impl Conn {
    /// Whether bytes that arrive go straight to the worker.
    #[inline]
    fn is_plain(&self) -> bool {
        !(self.paused | self.input_ended | self.closing) && self.fill.is_none() && self.held.is_empty()
    }
}

pub struct UringDriver {
    ring: Ring,
    /// Freed only when the kernel is known to be done with it.
    pool: ManuallyDrop<BufferPool>,
    pool_ran_dry: bool,
    conns: Slots<Conn>,
    listeners: Listeners,
    /// An epoll set of the listeners, which is what the ring watches: a ring lets go of its files some time after its
    /// process has died, and a listener among them would keep its port from the next server.
    listener_set: OwnedFd,
    /// Connections with something to report that no completion will report: held bytes after a resume, a fill that
    /// held bytes completed.
    ready: Vec<SlotName>,
    bell: BellHandle,
    /// Events of the turn under way.
    event_count: usize,
    /// A ring of a single issuer belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl UringDriver {
    /// A driver on this thread's own ring. For an error in the user's terms, ask `probe` first.
    pub fn new(bell: BellHandle) -> io::Result<UringDriver> {
        match Self::with_layout(bell.clone(), Layout::Packed) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Self::with_layout(bell, Layout::Whole)
            }
            outcome => outcome,
        }
    }

    /// As `new`, with the layout of the receive buffers given. EINVAL: this kernel does not know it.
    pub fn with_layout(bell: BellHandle, layout: Layout) -> io::Result<UringDriver> {
        let ring = Ring::new()?;
        let pool = BufferPool::new(&ring, layout)?;
        let mut driver = UringDriver {
            ring,
            pool: ManuallyDrop::new(pool),
            pool_ran_dry: false,
            conns: Slots::new(),
            listeners: Listeners::default(),
            listener_set: new_epoll_set()?,
            ready: Vec::new(),
            bell,
            event_count: 0,
            _not_send: PhantomData,
        };
        driver.arm_bell();
        Ok(driver)
    }

    /// How receive buffers are laid out, for the log.
    pub fn layout(&self) -> Layout {
        self.pool.layout()
    }

    /// Queues a request under a token.
    ///
    /// # Safety
    ///
    /// As `Ring::push`: what the request points to outlives its completion.
    #[inline]
    unsafe fn push(&mut self, request: squeue::Entry, token: Token) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(&request.user_data(token.0)) };
    }

    /// Multishot and edge-triggered: each ring of the bell is one completion, and the counter need not be read.
    fn arm_bell(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.bell.raw_fd()), libc::POLLIN as u32).multi(true).build();
        // SAFETY: points to nothing; the descriptor lives as long as the driver.
        unsafe { self.push(poll, Token::numbered(KIND_BELL, 0)) };
    }

    /// Edge-triggered likewise: `accept` goes on until nobody is left.
    fn arm_listeners(&mut self) {
        let set = Fd(self.listener_set.as_raw_fd());
        let poll = opcode::PollAdd::new(set, libc::POLLIN as u32).multi(true).build();
        // SAFETY: points to nothing; the set lives as long as the driver.
        unsafe { self.push(poll, Token::numbered(KIND_LISTENERS, 0)) };
    }

    /// Brings what the kernel does for a connection in line with its state, when it does no receiving now: frees it,
    /// or arms the receive it should have.
    fn settle(&mut self, name: SlotName) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if conn.receiving != Receiving::Nothing {
            return;
        }
        if conn.closing {
            if !conn.sending {
                self.conns.remove(name);
            }
            return;
        }
        if conn.input_ended || conn.end.is_some() {
            return;
        }

        let fd = Fd(conn.fd.as_raw_fd());
        if let Some(fill) = &mut conn.fill {
            if fill.buf.len() == fill.end {
                return;
            }
            conn.receiving = Receiving::Fill;
            let want = (fill.end - fill.buf.len()).min(REQUEST_LEN_MAX) as u32;
            let spare = fill.buf.spare_capacity_mut().as_mut_ptr();
            let recv = opcode::Recv::new(fd, spare.cast(), want).build();
            // SAFETY: `recv_exact` reserved capacity up to `end`. The buffer is moved nowhere and not touched while
            // `receiving` says Fill, and its entry is kept until then.
            unsafe { self.push(recv, Token::new(KIND_FILL, name)) };
        } else if !conn.paused || conn.send_failed {
            // A peer that is gone has sent no more than the socket holds: that much is taken, to find its end.
            conn.receiving = Receiving::Multishot;
            let recv = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
            // SAFETY: points to nothing of ours but the registered pool.
            unsafe { self.push(recv, Token::new(KIND_RECV, name)) };
        }
    }

    fn end_multishot(&mut self, name: SlotName) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if conn.receiving == Receiving::Multishot {
            conn.receiving = Receiving::MultishotEnding;
            let recv = CancelBuilder::user_data(Token::new(KIND_RECV, name).0);
            let cancel = opcode::AsyncCancel2::new(recv).build();
            // SAFETY: a cancellation points to nothing.
            unsafe { self.push(cancel, Token::new(KIND_CANCEL, name)) };
        }
    }

    fn push_send(&mut self, name: SlotName) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        let rest = &conn.out[conn.out_done..];
        let len = rest.len().min(REQUEST_LEN_MAX) as u32;
        let send =
            opcode::Send::new(Fd(conn.fd.as_raw_fd()), rest.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        // SAFETY: `out` is not touched while `sending` is set, and its entry is kept until then.
        unsafe { self.push(send, Token::new(KIND_SEND, name)) };
    }

    fn make_ready(&mut self, name: SlotName) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if !mem::replace(&mut conn.ready, true) {
            self.ready.push(name);
        }
    }

    /// Reports what no completion reports.
    fn dispatch_ready<E: Events>(&mut self, events: &mut E) {
        for name in mem::take(&mut self.ready) {
            let Some(conn) = self.conns.get_mut(name) else { continue };
            conn.ready = false;
            if conn.closing || conn.input_ended {
                continue;
            }
            if conn.receiving != Receiving::Fill
                && let Some(fill) = conn.fill.take_if(|fill| fill.buf.len() == fill.end)
            {
                self.event_count += 1;
                events.filled(ConnId(name), fill.buf);
            }
            if !conn.paused && conn.fill.is_none() && !conn.held.is_empty() {
                self.event_count += 1;
                events.received(ConnId(name), &mem::take(&mut conn.held));
            }
            if conn.held.is_empty()
                && let Some(reason) = conn.end.take()
            {
                self.report_end(name, reason, events);
            }
            self.settle(name);
        }
    }

    fn dispatch<E: Events>(&mut self, events: &mut E) {
        let mut batch = [const { MaybeUninit::uninit() }; BATCH_LEN];
        let mut bell_rang = false;
        loop {
            let completions = self.ring.take(&mut batch);
            let mut next = 0;
            while let Some(completion) = completions.get(next) {
                let run = self.plain_receives(&completions[next..]);
                if run > 1 {
                    self.on_plain_receives(&completions[next..next + run], events);
                    next += run;
                    continue;
                }
                next += 1;
                let token = Token(completion.user_data());
                let result = completion.result();
                let flags = completion.flags();
                match token.kind() {
                    KIND_RECV => self.on_recv(token.name(), result, flags, events),
                    KIND_SEND => self.on_send(token.name(), result, events),
                    KIND_FILL => self.on_fill(token.name(), result, events),
                    KIND_LISTENERS => {
                        self.listeners.notice_all();
                        if !cqueue::more(flags) {
                            self.arm_listeners();
                        }
                    }
                    KIND_BELL => {
                        bell_rang = true;
                        if !cqueue::more(flags) {
                            self.arm_bell();
                        }
                    }
                    // The cancelled request reports for itself; one that was not found has done so already.
                    KIND_CANCEL => {}
                    kind => unreachable!("a completion of kind {kind}, which is never submitted"),
                }
            }
            if completions.len() < BATCH_LEN {
                break;
            }
        }
        if bell_rang {
            self.event_count += 1;
            events.bell();
        }
    }

    /// How many completions at the start of `completions` are bytes for the worker as they are.
    fn plain_receives(&self, completions: &[cqueue::Entry]) -> usize {
        let is_plain = |completion: &&cqueue::Entry| {
            let token = Token(completion.user_data());
            token.kind() == KIND_RECV
                && completion.result() > 0
                && self.conns.get(token.name()).is_some_and(Conn::is_plain)
        };
        completions.iter().take_while(is_plain).count()
    }

    /// Reports these receives together. Up to [`BATCH_LEN`].
    fn on_plain_receives<E: Events>(&mut self, completions: &[cqueue::Entry], events: &mut E) {
        let mut claims = [0; BATCH_LEN];
        for (claim, completion) in claims.iter_mut().zip(completions) {
            let bid = cqueue::buffer_select(completion.flags()).expect("a multishot receive picks a buffer");
            *claim = self.pool.claim(bid, completion.result() as usize);
        }
        let nobody = ConnId(SlotName { index: 0, generation: 0 });
        let mut inputs: [(ConnId, &[u8]); BATCH_LEN] = [(nobody, &[]); BATCH_LEN];
        for ((input, claim), completion) in inputs.iter_mut().zip(claims).zip(completions) {
            let name = Token(completion.user_data()).name();
            *input = (ConnId(name), self.pool.claimed(claim, completion.result() as usize));
        }
        self.event_count += completions.len();
        events.received_many(&inputs[..completions.len()]);
        for completion in completions.iter().filter(|completion| !cqueue::more(completion.flags())) {
            let name = Token(completion.user_data()).name();
            if let Some(conn) = self.conns.get_mut(name) {
                conn.receiving = Receiving::Nothing;
            }
            self.settle(name);
        }
    }

    fn on_recv<E: Events>(&mut self, name: SlotName, result: i32, flags: u32, events: &mut E) {
        let more = cqueue::more(flags);
        let mut end = None;
        if let Some(conn) = self.conns.get_mut(name) {
            if !more {
                conn.receiving = Receiving::Nothing;
            }
            if result > 0 {
                let bid = cqueue::buffer_select(flags).expect("a multishot receive picks a buffer");
                let bytes = self.pool.bytes(bid, result as usize);
                if conn.is_plain() {
                    self.event_count += 1;
                    events.received(ConnId(name), bytes);
                } else {
                    self.event_count += take_aside(conn, name, bytes, events);
                }
            } else {
                match -result {
                    0 => end = Some(CloseReason::Eof),
                    libc::ENOBUFS => self.pool_ran_dry = true,
                    libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
                    errno => end = Some(CloseReason::Errno(errno)),
                }
            }
        }
        // Whatever became of the connection, a buffer that was taken goes back.
        if let Some(bid) = cqueue::buffer_select(flags) {
            self.pool.consume(bid, result.max(0) as usize);
        }

        if let Some(reason) = end {
            self.report_end(name, reason, events);
        }
        if !more {
            self.settle(name);
        } else if self.conns.get(name).is_some_and(|conn| !conn.held.is_empty() && !conn.send_failed) {
            self.end_multishot(name);
        }
    }

    fn on_fill<E: Events>(&mut self, name: SlotName, result: i32, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        conn.receiving = Receiving::Nothing;
        let fill = conn.fill.as_mut().expect("a fill is kept until its receive completed");
        match result {
            1.. => {
                let len = fill.buf.len() + result as usize;
                assert!(len <= fill.end, "the kernel received more than was asked for");
                // SAFETY: the kernel wrote `result` bytes from the old length on, within the capacity.
                unsafe { fill.buf.set_len(len) };
                if len == fill.end && !conn.closing && !conn.input_ended {
                    let fill = conn.fill.take().expect("checked above");
                    self.event_count += 1;
                    events.filled(ConnId(name), fill.buf);
                }
            }
            0 => self.report_end(name, CloseReason::Eof, events),
            _ => match -result {
                libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
                errno => self.report_end(name, CloseReason::Errno(errno), events),
            },
        }
        self.settle(name);
    }

    fn on_send<E: Events>(&mut self, name: SlotName, result: i32, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if result > 0 {
            conn.out_done += result as usize;
        }
        let failed_by = match -result {
            ..=0 | libc::EAGAIN | libc::EINTR => None,
            errno => Some(errno),
        };

        if conn.closing || conn.send_failed || failed_by.is_some() {
            conn.sending = false;
            conn.out = Vec::new();
            conn.out_done = 0;
            if let Some(errno) = failed_by
                && !conn.closing
                && !mem::replace(&mut conn.send_failed, true)
            {
                // Whatever the error was, this ends the receiving behind what has come so far.
                shut_down(&conn.fd);
                self.event_count += 1;
                events.send_failed(ConnId(name), errno);
            }
            self.settle(name);
        } else if conn.out_done == conn.out.len() {
            conn.sending = false;
            conn.out_done = 0;
            let out = mem::take(&mut conn.out);
            self.event_count += 1;
            events.sent(ConnId(name), out);
        } else {
            self.push_send(name);
        }
    }

    /// Reports the end of the input behind everything that arrived before it.
    fn report_end<E: Events>(&mut self, name: SlotName, reason: CloseReason, events: &mut E) {
        let Some(conn) = self.conns.get_mut(name) else { return };
        if conn.closing || conn.input_ended {
            return;
        }
        if conn.receiving != Receiving::Fill {
            conn.fill = None;
        }
        if !conn.held.is_empty() {
            conn.end = Some(reason);
            return;
        }
        conn.input_ended = true;
        conn.send_failed |= reason != CloseReason::Eof;
        self.event_count += 1;
        events.input_ended(ConnId(name), reason);
    }
}

fn new_epoll_set() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1 takes no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Bytes that do not go straight to the worker: into a fill, what is left over to the worker or on hold.
/// Returns the number of events.
fn take_aside<E: Events>(conn: &mut Conn, name: SlotName, mut bytes: &[u8], events: &mut E) -> usize {
    let mut event_count = 0;
    if conn.closing || conn.input_ended {
        return event_count;
    }
    if let Some(fill) = &mut conn.fill {
        let len = bytes.len().min(fill.end - fill.buf.len());
        fill.buf.extend_from_slice(&bytes[..len]);
        bytes = &bytes[len..];
        if let Some(fill) = conn.fill.take_if(|fill| fill.buf.len() == fill.end) {
            event_count += 1;
            events.filled(ConnId(name), fill.buf);
        }
    }
    if bytes.is_empty() {
        return event_count;
    }
    if conn.paused || !conn.held.is_empty() {
        conn.held.extend_from_slice(bytes);
    } else {
        event_count += 1;
        events.received(ConnId(name), bytes);
    }
    event_count
}

impl Driver for UringDriver {
    fn listen(&mut self, listener: OwnedFd) -> usize {
        let number = self.listeners.insert(listener);
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        let set = self.listener_set.as_raw_fd();
        // SAFETY: epoll_ctl reads one event, the local above.
        let outcome =
            unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, self.listeners.raw_fd(number), &mut event) };
        // Out of kernel memory, at start or at CONFIG SET: whoever listens cannot do without.
        assert!(outcome == 0, "cannot watch a listener: {}", io::Error::last_os_error());
        if number == 0 {
            self.arm_listeners();
        }
        number
    }

    fn unlisten(&mut self, number: usize) {
        self.listeners.remove(number);
    }

    fn add(&mut self, fd: OwnedFd) -> ConnId {
        let name = self.conns.insert(Conn {
            fd,
            receiving: Receiving::Nothing,
            sending: false,
            paused: false,
            input_ended: false,
            send_failed: false,
            closing: false,
            ready: false,
            end: None,
            out: Vec::new(),
            out_done: 0,
            fill: None,
            held: Vec::new(),
        });
        self.settle(name);
        ConnId(name)
    }

    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        assert!(!buf.is_empty(), "nothing to send");
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        if entry.send_failed || entry.closing {
            return;
        }
        assert!(!entry.sending, "a send is under way already");
        entry.sending = true;
        entry.out = buf;
        entry.out_done = 0;
        self.push_send(conn.0);
    }

    fn recv_exact(&mut self, conn: ConnId, mut buf: Vec<u8>, want: usize) {
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        if entry.input_ended || entry.closing {
            return;
        }
        assert!(entry.fill.is_none(), "a fill is under way already");
        let begin = buf.len();
        let end = begin + want;
        buf.reserve_exact(want);
        let held_len = entry.held.len().min(want);
        buf.extend(entry.held.drain(..held_len));
        let complete = buf.len() == end;
        entry.fill = Some(Box::new(Fill { buf, begin, end }));

        if complete || entry.end.is_some() {
            self.make_ready(conn.0);
        } else if entry.receiving == Receiving::Multishot {
            self.end_multishot(conn.0);
        } else {
            self.settle(conn.0);
        }
    }

    fn pause(&mut self, conn: ConnId) {
        // The receive stays armed: if the pause is over before anything arrives, it has cost nothing.
        if let Some(entry) = self.conns.get_mut(conn.0) {
            entry.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        entry.paused = false;
        if !entry.held.is_empty() || entry.end.is_some() {
            self.make_ready(conn.0);
        }
        self.settle(conn.0);
    }

    fn close(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn.0) else { return };
        if mem::replace(&mut entry.closing, true) {
            return;
        }
        entry.held = Vec::new();
        if entry.receiving != Receiving::Nothing || entry.sending {
            let all = CancelBuilder::fd(Fd(entry.fd.as_raw_fd())).all();
            let cancel = opcode::AsyncCancel2::new(all).build();
            // SAFETY: a cancellation points to nothing; the descriptor stays open until it was carried out, because
            // what it cancels has to complete first.
            unsafe { self.push(cancel, Token::new(KIND_CANCEL, conn.0)) };
        }
        self.settle(conn.0);
    }

    fn turn<E: Events>(&mut self, timeout: Option<Duration>, events: &mut E) -> io::Result<usize> {
        self.event_count = 0;
        self.dispatch_ready(events);
        let timeout = shorter(timeout, self.listeners.wait_limit());
        let may_wait = self.event_count == 0 && timeout != Some(Duration::ZERO);
        self.ring.submit(may_wait.then_some(timeout))?;
        self.dispatch(events);
        self.event_count += self.listeners.accept(events);

        if mem::take(&mut self.pool_ran_dry) {
            self.pool.grow();
        }
        self.pool.publish();
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
        "io_uring"
    }
}

impl Drop for UringDriver {
    /// Closing a ring does not wait for its requests, and those may still write into our buffers: so cancel them all
    /// and take their completions. If the kernel does not let go within the limit, the memory is given up instead.
    fn drop(&mut self) {
        struct Nobody;
        impl Events for Nobody {
            fn accepted(&mut self, _: usize, _: OwnedFd, _: super::driver::PeerAddr) {}
            fn accept_failed(&mut self, _: usize, _: io::Error) {}
            fn received(&mut self, _: ConnId, _: &[u8]) {}
            fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
            fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
            fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
            fn send_failed(&mut self, _: ConnId, _: i32) {}
            fn bell(&mut self) {}
        }

        for name in self.conns.names() {
            self.close(ConnId(name));
        }
        for _ in 0..DRAIN_ROUNDS_MAX {
            if self.conns.len() == 0 || self.turn(Some(Duration::from_millis(10)), &mut Nobody).is_err() {
                break;
            }
        }
        if self.conns.len() > 0 {
            mem::forget(mem::replace(&mut self.conns, Slots::new()));
        } else {
            // SAFETY: dropped once, here; no receive that could pick a buffer is in flight.
            unsafe { ManuallyDrop::drop(&mut self.pool) };
        }
    }
}
