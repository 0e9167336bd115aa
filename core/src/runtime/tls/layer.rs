//! A driver over a driver: connections that were added with [`TlsLayer::add_tls`] are encrypted, all others pass through.
//!
//! The worker sees of an encrypted connection what it would see of a plain one. The handshake happens here, unseen: what is
//! sent before its end waits for it. The peer's close_notify is the end of its input, and so is the end of its TCP
//! stream without one, because a request carries its own length: a cut connection cuts none short.
//!
//! What is bounded: of a reply, [`CHUNK_BYTES`] are encrypted at a time, and the next when they are in the kernel's hands.
//! What the protocol itself wants to say to a peer that does not read ends the connection at [`PROTOCOL_BYTES_MAX`].
//! Received bytes are decrypted as they come and kept nowhere, but for what comes behind a fill on a paused
//! connection, which is at most one receive.

use super::engine::Engine;
use super::{Acceptor, Read};
use crate::runtime::driver::{BellHandle, CloseReason, ConnId, Driver, Events, PeerAddr};
use crate::runtime::log;
use smallvec::SmallVec;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How much of a reply is encrypted at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// How much the protocol may have to say (key updates, alerts) to a peer that takes nothing.
const PROTOCOL_BYTES_MAX: usize = 64 << 10;

/// The longest record, decrypted: so much is read at a time at most.
const RECORD_BYTES: usize = 16 << 10;

/// Buffers kept for encrypted output, and the largest of them.
const SPARE_COUNT_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 << 10;

/// What a record has besides its bytes, at most.
const RECORD_EXTRA_BYTES: usize = 64;

/// The largest buffer for decrypted input that is kept.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// Receives that are decrypted before the worker sees them together.
const GROUP_LEN: usize = 64;

/// What OpenSSL says of a peer that leaves in the middle of the handshake.
const UNEXPECTED_EOF: &str = "error:0A000126:SSL routines::unexpected eof while reading";

struct Fill {
    buf: Vec<u8>,
    begin: usize,
    end: usize,
}

/// An encrypted connection.
struct Session {
    conn: ConnId,
    /// The driver's descriptor, for the last word.
    fd: RawFd,
    /// Until its first byte comes.
    acceptor: Option<Acceptor>,
    engine: Option<Engine>,
    /// The handshake is complete.
    is_open: bool,
    /// The driver has a send under way.
    is_sending: bool,
    paused: bool,
    /// `input_ended` was reported.
    input_ended: bool,
    /// `send_failed` was reported, or nobody needs to be told.
    send_failed: bool,
    /// The end of the input, not reported before `held` is.
    end: Option<CloseReason>,
    /// What the worker sends, and how much of it is encrypted. Empty: it sends nothing.
    plain: Vec<u8>,
    plain_done: usize,
    fill: Option<Fill>,
    /// Came behind a fill while paused.
    held: Vec<u8>,
}

/// What the decryption of a receive came to, besides the bytes.
#[derive(Default)]
struct Decrypted {
    filled: Option<Vec<u8>>,
    end: Option<CloseReason>,
}

impl Session {
    fn new(conn: ConnId, fd: RawFd, acceptor: Acceptor) -> Session {
        Session {
            conn,
            fd,
            acceptor: Some(acceptor),
            engine: None,
            is_open: false,
            is_sending: false,
            paused: false,
            input_ended: false,
            send_failed: false,
            end: None,
            plain: Vec::new(),
            plain_done: 0,
            fill: None,
            held: Vec::new(),
        }
    }

    /// Takes encrypted bytes. What is decrypted goes to the fill under way, and else behind `into`.
    fn decrypt(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Decrypted {
        let mut decrypted = Decrypted::default();
        if self.input_ended || self.end.is_some() {
            return decrypted;
        }
        if let Some(acceptor) = self.acceptor.take() {
            match Engine::new(&acceptor) {
                Ok(engine) => self.engine = Some(engine),
                Err(why) => {
                    decrypted.end = Some(self.refuse(&why));
                    return decrypted;
                }
            }
        }
        let Some(mut engine) = self.engine.take() else { return decrypted };
        decrypted.end = engine.with_input(bytes, |engine| self.advance(engine, into, &mut decrypted.filled));
        if self.is_sending && engine.output().len() > PROTOCOL_BYTES_MAX && decrypted.end.is_none() {
            decrypted.end = Some(self.fail("the peer asks for more than it reads"));
        }
        self.engine = Some(engine);
        if decrypted.end.is_some() {
            self.fill = None;
        }
        decrypted
    }

    /// Goes on with the handshake, and decrypts what comes behind it. Returns the end of the input.
    fn advance(
        &mut self,
        engine: &mut Engine,
        into: &mut Vec<u8>,
        filled: &mut Option<Vec<u8>>,
    ) -> Option<CloseReason> {
        if !self.is_open {
            match engine.shake_hands() {
                Ok(is_open) => self.is_open = is_open,
                Err(why) => return Some(self.refuse(&why)),
            }
        }
        while self.is_open && engine.has_input() {
            let read = match &mut self.fill {
                Some(fill) => read_behind(engine, &mut fill.buf, fill.end),
                None => {
                    let end = into.len() + RECORD_BYTES;
                    read_behind(engine, into, end)
                }
            };
            match read {
                Read::Plain(_) => {
                    if let Some(fill) = self.fill.take_if(|fill| fill.buf.len() == fill.end) {
                        *filled = Some(fill.buf);
                    }
                }
                Read::NeedsMore => break,
                Read::Ended => return Some(CloseReason::Eof),
                Read::Failed(why) => return Some(self.fail(&why)),
            }
        }
        None
    }

    /// The handshake has failed.
    fn refuse(&mut self, why: &str) -> CloseReason {
        log::warning(format_args!("Error accepting a client connection: {why} (conn: fd={})", self.fd));
        self.send_failed = true;
        CloseReason::Errno(libc::EPROTO)
    }

    /// The peer breaks the protocol.
    fn fail(&mut self, why: &str) -> CloseReason {
        log::verbose(format_args!("Reading from client: {why}"));
        self.send_failed = true;
        CloseReason::Errno(libc::EPROTO)
    }

    fn has_plain(&self) -> bool {
        self.plain_done < self.plain.len()
    }

    /// Encrypts the next piece of what the worker sends, and takes what is to be sent.
    fn next_output(&mut self, spare: &mut Vec<Vec<u8>>) -> Vec<u8> {
        let Some(engine) = &mut self.engine else { return Vec::new() };
        if self.is_open && self.plain_done < self.plain.len() {
            if engine.output().capacity() == 0 {
                *engine.output() = spare.pop().unwrap_or_default();
            }
            let end = self.plain.len().min(self.plain_done + CHUNK_BYTES);
            let len = end - self.plain_done;
            engine.output().reserve(len + (1 + len / RECORD_BYTES) * RECORD_EXTRA_BYTES);
            if let Err(why) = engine.write(&self.plain[self.plain_done..end]) {
                self.held = Vec::new();
                self.end = Some(self.fail(&why));
                return Vec::new();
            }
            self.plain_done = end;
        }
        mem::take(self.engine.as_mut().expect("it is there").output())
    }

    /// Says goodbye as far as that can be done at once. The socket is closed right after.
    fn say_last_word(&mut self) {
        let Some(engine) = self.engine.as_mut().filter(|_| !self.is_sending) else { return };
        if self.is_open && !self.send_failed {
            engine.end();
        }
        let output = engine.output();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: send reads at most the vector's length. The driver has no send under way on this descriptor, which is
        // open until the driver's `close`.
        unsafe { libc::send(self.fd, output.as_ptr().cast(), output.len(), flags) };
    }
}

/// Reads into the spare room of a vector, up to the length `end`.
pub(super) fn read_behind(engine: &mut Engine, into: &mut Vec<u8>, end: usize) -> Read {
    let begin = into.len();
    into.reserve(end - begin);
    let read = engine.read(&mut into.spare_capacity_mut()[..end - begin]);
    if let Read::Plain(len) = read {
        // SAFETY: the engine has initialised so many bytes of the spare capacity.
        unsafe { into.set_len(begin + len) };
    }
    read
}

/// The encrypted connections of a driver.
#[derive(Default)]
struct Sessions {
    /// By [`ConnId::index`]; empty until there is one.
    by_index: Vec<Option<Box<Session>>>,
    count: usize,
    /// May have something for the driver, after the turn.
    to_send: Vec<ConnId>,
    /// Have something to report that no event of the driver will report.
    ready: Vec<ConnId>,
    scratch: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl Sessions {
    #[inline]
    fn get(&self, conn: ConnId) -> Option<&Session> {
        self.by_index.get(conn.index())?.as_deref().filter(|session| session.conn == conn)
    }

    #[inline]
    fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.by_index.get_mut(conn.index())?.as_deref_mut().filter(|session| session.conn == conn)
    }

    fn insert(&mut self, session: Session) {
        let at = session.conn.index();
        if self.by_index.len() <= at {
            self.by_index.resize_with(at + 1, || None);
        }
        let before = self.by_index[at].replace(Box::new(session));
        debug_assert!(before.is_none(), "a connection is closed before its place is taken again");
        self.count += 1;
    }

    fn remove(&mut self, conn: ConnId) -> Option<Box<Session>> {
        self.get(conn)?;
        self.count -= 1;
        self.by_index[conn.index()].take()
    }

    fn keep_spare(&mut self, mut buf: Vec<u8>) {
        if self.spare.len() < SPARE_COUNT_MAX && buf.capacity() <= SPARE_BYTES_MAX {
            buf.clear();
            self.spare.push(buf);
        }
    }
}

/// A driver whose connections may be encrypted.
pub struct TlsLayer<D> {
    driver: D,
    sessions: Sessions,
}

impl<D: Driver> TlsLayer<D> {
    pub fn new(driver: D) -> TlsLayer<D> {
        TlsLayer { driver, sessions: Sessions::default() }
    }

    /// As [`Driver::add`], for a peer that is to speak TLS.
    pub fn add_tls(&mut self, fd: OwnedFd, acceptor: Acceptor) -> ConnId {
        let raw_fd = fd.as_raw_fd();
        let conn = self.driver.add(fd);
        self.sessions.insert(Session::new(conn, raw_fd, acceptor));
        conn
    }

    /// Hands the driver what a connection has for it.
    fn send_next(&mut self, conn: ConnId) {
        let Sessions { by_index, spare, ready, .. } = &mut self.sessions;
        let Some(Some(session)) = by_index.get_mut(conn.index()) else { return };
        if session.conn != conn {
            return;
        }
        if session.paused && session.fill.is_none() {
            self.driver.pause(conn);
        }
        if session.is_sending || session.send_failed {
            return;
        }
        let output = session.next_output(spare);
        if session.end.is_some() {
            ready.push(conn);
        } else if !output.is_empty() {
            session.is_sending = true;
            self.driver.send(conn, output);
        }
    }
}

impl<D: Driver> Driver for TlsLayer<D> {
    fn listen(&mut self, listener: OwnedFd) -> usize {
        self.driver.listen(listener)
    }

    fn unlisten(&mut self, listener: usize) {
        self.driver.unlisten(listener);
    }

    fn add(&mut self, fd: OwnedFd) -> ConnId {
        self.driver.add(fd)
    }

    fn send(&mut self, conn: ConnId, buf: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(conn) else { return self.driver.send(conn, buf) };
        assert!(!buf.is_empty(), "nothing to send");
        if session.send_failed {
            return;
        }
        assert!(session.plain.is_empty(), "a send is under way already");
        (session.plain, session.plain_done) = (buf, 0);
        self.send_next(conn);
    }

    fn recv_exact(&mut self, conn: ConnId, mut buf: Vec<u8>, want: usize) {
        let Some(session) = self.sessions.get_mut(conn) else {
            return self.driver.recv_exact(conn, buf, want);
        };
        if session.input_ended {
            return;
        }
        assert!(session.fill.is_none(), "a fill is under way already");
        let begin = buf.len();
        buf.reserve_exact(want);
        let held_len = session.held.len().min(want);
        buf.extend(session.held.drain(..held_len));
        let is_ready = held_len == want || session.end.is_some();
        session.fill = Some(Fill { buf, begin, end: begin + want });
        if is_ready {
            self.sessions.ready.push(conn);
        } else {
            // A fill is not held up by a pause.
            self.driver.resume(conn);
        }
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.paused = true;
            if session.fill.is_some() {
                return;
            }
        }
        self.driver.pause(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.paused = false;
            if !session.held.is_empty() || session.end.is_some() {
                self.sessions.ready.push(conn);
            }
        }
        self.driver.resume(conn);
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(mut session) = self.sessions.remove(conn) {
            session.say_last_word();
        }
        self.driver.close(conn);
    }

    fn turn<E: Events>(&mut self, timeout: Option<Duration>, events: &mut E) -> io::Result<usize> {
        if self.sessions.count == 0 {
            return self.driver.turn(timeout, events);
        }
        let mut through = Through { events, sessions: &mut self.sessions, event_count: 0 };
        through.report_ready();
        let timeout = if through.event_count > 0 { Some(Duration::ZERO) } else { timeout };
        self.driver.turn(timeout, &mut through)?;
        let event_count = through.event_count;
        let mut to_send = mem::take(&mut self.sessions.to_send);
        for conn in to_send.drain(..) {
            self.send_next(conn);
        }
        self.sessions.to_send = to_send;
        Ok(event_count)
    }

    fn pending_out(&self, conn: ConnId) -> usize {
        let plain = self.sessions.get(conn).map_or(0, |session| session.plain.len() - session.plain_done);
        plain + self.driver.pending_out(conn)
    }

    fn filling(&self, conn: ConnId) -> usize {
        match self.sessions.get(conn) {
            Some(session) => session.fill.as_ref().map_or(0, |fill| fill.buf.len() - fill.begin),
            None => self.driver.filling(conn),
        }
    }

    fn conn_count(&self) -> usize {
        self.driver.conn_count()
    }

    fn bell_handle(&self) -> BellHandle {
        self.driver.bell_handle()
    }

    fn name(&self) -> &'static str {
        self.driver.name()
    }
}

/// The bytes of an event that is yet to be reported.
enum Source<'a> {
    Lent(&'a [u8]),
    /// In the scratch buffer.
    Decrypted(Range<usize>),
}

type Group<'a> = SmallVec<[(ConnId, Source<'a>); GROUP_LEN]>;

/// The driver's events on their way to the worker.
struct Through<'a, E> {
    events: &'a mut E,
    sessions: &'a mut Sessions,
    event_count: usize,
}

impl<E: Events> Through<'_, E> {
    fn report_ready(&mut self) {
        for conn in mem::take(&mut self.sessions.ready) {
            let Some(session) = self.sessions.get_mut(conn) else { continue };
            if session.input_ended {
                continue;
            }
            if let Some(fill) = session.fill.take_if(|fill| fill.buf.len() == fill.end) {
                self.event_count += 1;
                self.events.filled(conn, fill.buf);
            }
            if !session.paused && session.fill.is_none() && !session.held.is_empty() {
                self.event_count += 1;
                self.events.received(conn, &mem::take(&mut session.held));
            }
            if let Some(reason) = session.end.take_if(|_| session.held.is_empty()) {
                self.report_end(conn, reason);
            }
        }
    }

    fn report_end(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.fill = None;
        if !session.held.is_empty() {
            session.end = Some(reason);
            return;
        }
        session.input_ended = true;
        if reason != CloseReason::Eof {
            session.send_failed = true;
            (session.plain, session.plain_done) = (Vec::new(), 0);
        }
        self.event_count += 1;
        self.events.input_ended(conn, reason);
    }

    /// Reports the bytes of several connections together.
    fn report_group(&mut self, group: &mut Group<'_>) {
        let scratch = &self.sessions.scratch;
        let inputs: SmallVec<[(ConnId, &[u8]); GROUP_LEN]> = group
            .drain(..)
            .map(|(conn, source)| match source {
                Source::Lent(bytes) => (conn, bytes),
                Source::Decrypted(range) => (conn, &scratch[range]),
            })
            .collect();
        self.event_count += inputs.len();
        match inputs[..] {
            [] => {}
            [(conn, bytes)] => self.events.received(conn, bytes),
            _ => self.events.received_many(&inputs),
        }
    }

    /// Decrypts what came on an encrypted connection, and adds it to the group.
    fn take_encrypted(&mut self, conn: ConnId, bytes: &[u8], group: &mut Group<'_>) {
        let Sessions { by_index, scratch, to_send, .. } = &mut *self.sessions;
        let Some(Some(session)) = by_index.get_mut(conn.index()) else { return };
        let begin = scratch.len();
        let was_open = session.is_open;
        let Decrypted { filled, end } = session.decrypt(bytes, scratch);
        if !was_open
            && session.is_open
            && let Some(certificate) = session.engine.as_ref().and_then(Engine::peer_certificate)
        {
            self.events.identified(conn, certificate);
        }
        let has_output = session.engine.as_mut().is_some_and(|engine| !engine.output().is_empty());
        if has_output || session.has_plain() || filled.is_some() {
            to_send.push(conn);
        }
        let is_held = session.paused || !session.held.is_empty();
        if is_held {
            session.held.extend_from_slice(&scratch[begin..]);
            scratch.truncate(begin);
        }
        let range = begin..scratch.len();
        if let Some(buf) = filled {
            // What came before it is before it.
            self.report_group(group);
            self.event_count += 1;
            self.events.filled(conn, buf);
        }
        if !range.is_empty() {
            group.push((conn, Source::Decrypted(range)));
        }
        if let Some(reason) = end {
            self.report_group(group);
            self.report_end(conn, reason);
        }
    }

    fn forget_scratch(&mut self) {
        self.sessions.scratch.clear();
        if self.sessions.scratch.capacity() > SCRATCH_BYTES_MAX {
            self.sessions.scratch = Vec::new();
        }
    }
}

impl<E: Events> Events for Through<'_, E> {
    fn accepted(&mut self, listener: usize, fd: OwnedFd, peer: PeerAddr) {
        self.event_count += 1;
        self.events.accepted(listener, fd, peer);
    }

    fn accept_failed(&mut self, listener: usize, error: io::Error) {
        self.event_count += 1;
        self.events.accept_failed(listener, error);
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        self.received_many(&[(conn, bytes)]);
    }

    fn received_many(&mut self, inputs: &[(ConnId, &[u8])]) {
        let mut group = Group::new();
        for &(conn, bytes) in inputs {
            if self.sessions.get(conn).is_some() {
                self.take_encrypted(conn, bytes, &mut group);
            } else {
                group.push((conn, Source::Lent(bytes)));
            }
        }
        self.report_group(&mut group);
        self.forget_scratch();
    }

    fn filled(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.event_count += 1;
        self.events.filled(conn, buf);
    }

    fn sent(&mut self, conn: ConnId, buf: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(conn) else {
            self.event_count += 1;
            return self.events.sent(conn, buf);
        };
        session.is_sending = false;
        let has_more =
            session.has_plain() || session.engine.as_mut().is_some_and(|engine| !engine.output().is_empty());
        if !session.has_plain() && !session.plain.is_empty() {
            let plain = mem::take(&mut session.plain);
            session.plain_done = 0;
            self.event_count += 1;
            self.events.sent(conn, plain);
        }
        if has_more {
            self.sessions.to_send.push(conn);
        }
        self.sessions.keep_spare(buf);
    }

    fn input_ended(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(conn) else {
            self.event_count += 1;
            return self.events.input_ended(conn, reason);
        };
        if session.input_ended || session.end.is_some() {
            // It has said so itself before; then it was still able to read.
            if let CloseReason::Errno(errno) = reason {
                self.send_failed(conn, errno);
            }
            return;
        }
        if !session.is_open {
            let why = match reason {
                CloseReason::Eof => UNEXPECTED_EOF.to_string(),
                CloseReason::Errno(_) => reason.to_string(),
            };
            let reason = session.refuse(&why);
            return self.report_end(conn, reason);
        }
        if reason != CloseReason::Eof {
            session.send_failed = true;
        }
        self.report_end(conn, reason);
    }

    fn send_failed(&mut self, conn: ConnId, errno: i32) {
        if let Some(session) = self.sessions.get_mut(conn) {
            session.is_sending = false;
            (session.plain, session.plain_done) = (Vec::new(), 0);
            if mem::replace(&mut session.send_failed, true) {
                return;
            }
        }
        self.event_count += 1;
        self.events.send_failed(conn, errno);
    }

    fn bell(&mut self) {
        self.event_count += 1;
        self.events.bell();
    }
}
