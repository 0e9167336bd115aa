//! The interface between a shard's worker, which knows no socket, and the driver that owns all of its sockets.
//!
//! A worker calls [`Driver::turn`] in a loop. A turn hands everything that was asked for since the last one to the
//! kernel, waits until something happens, and tells the worker about all of it through [`Events`]. The worker may not
//! call the driver from inside an event (it has no reference to it there): it notes what it wants and asks after the
//! turn. That is what makes the replies to a whole pipeline, and to all connections of a turn, leave together.
//!
//! Two drivers exist, `uring` and `epoll`, with the same observable behaviour; the tests in `runtime/tests` run
//! through both. A worker is generic over its driver, so that nothing on the request path is a virtual call.
//!
//! Life of a connection:
//!
//! ```text
//! add --> received* / filled / sent* ... --> input_ended --> sent* ... --> close      the peer went first
//! add --> received* / filled / sent* ... ------------------------------> close      the worker went first
//! ```
//!
//! The two directions of a connection end apart. `input_ended` comes behind everything that was received, and a peer that
//! has only shut down its write side still reads: what is sent goes on to reach it. `send_failed` says that nothing that is
//! sent reaches it any more; what it sent before is still received, up to `input_ended`, which is then near. Behind both
//! of them no further event comes. The name stays taken until the worker calls `close`: so a worker frees its own half
//! of a connection in exactly one place.

use std::fmt;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::slots::{SLOTS_MAX, SlotName};
use super::tls::PeerCertificate;

/// Names a connection inside one driver.
///
/// `index` is dense, so a worker can key a slab of its own by it. A name whose connection was closed stays harmless:
/// the generation tells it from its successor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(pub(super) SlotName);

impl ConnId {
    /// A name made by what takes the driver's place: a simulator.
    pub fn new(index: u32, generation: u32) -> ConnId {
        ConnId(SlotName { index, generation })
    }

    #[inline]
    pub fn index(self) -> usize {
        self.0.index as usize
    }

    #[inline]
    pub fn generation(self) -> u32 {
        self.0.generation
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}.{}", self.0.index, self.0.generation)
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    Tcp(SocketAddr),
    Unix,
}

/// Why nothing more is received from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its sending side. It may still read.
    Eof,
    /// A receive failed with this errno (ECONNRESET, ETIMEDOUT, ...): nothing can be sent either.
    Errno(i32),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Eof => f.write_str("Client closed connection"),
            CloseReason::Errno(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// What a driver tells the worker, from inside [`Driver::turn`].
pub trait Events {
    /// A listener has a new connection. It belongs to no driver yet: the worker decides which shard's driver `add`s
    /// it. The socket is non-blocking and close-on-exec.
    fn accepted(&mut self, listener: usize, fd: OwnedFd, peer: PeerAddr);

    /// A listener could not accept (out of file descriptors, out of memory). The driver tries again by itself after
    /// a pause, so this is for the log.
    fn accept_failed(&mut self, listener: usize, error: io::Error);

    /// The peer has shown a certificate that was verified. Comes before anything that it sends.
    fn identified(&mut self, _conn: ConnId, _certificate: PeerCertificate) {}

    /// Bytes arrived. They are only lent: they lie in the driver's own buffer.
    fn received(&mut self, conn: ConnId, bytes: &[u8]);

    /// Bytes arrived on several connections, in this order; one may be among them twice. For drivers that know of them
    /// together, so that memory for one can be fetched while another is executed.
    fn received_many(&mut self, inputs: &[(ConnId, &[u8])]) {
        for &(conn, bytes) in inputs {
            self.received(conn, bytes);
        }
    }

    /// A [`Driver::recv_exact`] is complete: `buf` as it was given, and the wanted bytes behind.
    fn filled(&mut self, conn: ConnId, buf: Vec<u8>);

    /// A [`Driver::send`] is complete: all of `buf` is in the kernel's hands. The buffer comes back as it was, for
    /// reuse.
    fn sent(&mut self, conn: ConnId, buf: Vec<u8>);

    /// Nothing more comes from the peer: all that it sent before has been delivered. The buffer of a fill under way is
    /// dropped. After [`CloseReason::Eof`] sends go on; after an errno they are over, too, without a `send_failed`.
    fn input_ended(&mut self, conn: ConnId, reason: CloseReason);

    /// A send failed with this errno (EPIPE, ECONNRESET, ...), or would: the peer is gone. The buffer of a send under way
    /// is dropped, and further sends do nothing. Comes at most once.
    fn send_failed(&mut self, conn: ConnId, errno: i32);

    /// This driver's bell was rung, once or more often, since the last such event.
    fn bell(&mut self);
}

/// One shard's sockets. Made, used and dropped on the shard's own thread.
///
/// A method that names a connection which is no longer there does nothing.
pub trait Driver {
    /// Starts accepting. The listener must be non-blocking. Returns its number, which is never used again.
    fn listen(&mut self, listener: OwnedFd) -> usize;

    /// Stops accepting: no `accepted` names the listener any more, and its port is free for a new bind.
    fn unlisten(&mut self, listener: usize);

    /// Takes a connected, non-blocking socket and starts receiving from it.
    fn add(&mut self, fd: OwnedFd) -> ConnId;

    /// Sends the whole of `buf`, which must not be empty. One send at a time: the next may follow the `sent` event.
    fn send(&mut self, conn: ConnId, buf: Vec<u8>);

    /// Receives the next `want` bytes straight behind what `buf` holds, then resumes ordinary receiving. For big
    /// arguments: the bytes are not copied through the driver's buffers (but for those that were on their way when
    /// this was called). One at a time. A fill is not held up by `pause`.
    fn recv_exact(&mut self, conn: ConnId, buf: Vec<u8>, want: usize);

    /// Stops `received` events for the connection, and after a bounded amount of bytes the receiving itself, so that
    /// the peer feels it. The end of the input is reported behind the bytes that came before it, so it may wait for
    /// `resume`.
    fn pause(&mut self, conn: ConnId);

    /// Takes receiving up again where it was, losing nothing.
    fn resume(&mut self, conn: ConnId);

    /// Ends the connection: no further event names it, a send under way is abandoned, and the socket is closed as
    /// soon as the kernel is done with it.
    fn close(&mut self, conn: ConnId);

    /// Submits what was asked for, waits until something happens (at most `timeout`; `Some(ZERO)` only looks; `None`
    /// waits without limit), and dispatches everything that did. Returns the number of events: none after a timeout,
    /// a signal, or progress that concerns the driver alone (part of a send or fill). An error means that the driver
    /// itself does not work any more.
    fn turn<E: Events>(&mut self, timeout: Option<Duration>, events: &mut E) -> io::Result<usize>;

    /// Bytes given to `send` that the kernel has not taken yet.
    fn pending_out(&self, conn: ConnId) -> usize;

    /// Bytes a `recv_exact` under way has received so far; it moves while a slow peer uploads.
    fn filling(&self, conn: ConnId) -> usize;

    /// Connections this driver holds, those still being closed included.
    fn conn_count(&self) -> usize;

    /// The bell that interrupts this driver's `turn`.
    fn bell_handle(&self) -> BellHandle;

    /// "io_uring" or "epoll".
    fn name(&self) -> &'static str;
}

/// Wakes a driver out of its `turn`, from any thread and from signal handlers. One eventfd behind a counted reference.
///
/// It is made before the driver (and before its thread), because a mesh needs the bells of all shards to begin with.
#[derive(Clone)]
pub struct BellHandle(Arc<OwnedFd>);

impl BellHandle {
    /// Fails when the process is out of file descriptors.
    pub fn new() -> io::Result<BellHandle> {
        // Non-blocking, so that ringing can never block: the drivers watch it edge-triggered and never read it, and
        // its counter does not reach its end (2^64 - 2 rings) in anybody's lifetime.
        // SAFETY: eventfd takes no pointers; a non-negative result is a descriptor without another owner.
        unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(BellHandle(Arc::new(OwnedFd::from_raw_fd(fd))))
        }
    }

    /// Rings. Costs one write(2); does not block, allocate or change errno.
    pub fn ring(&self) {
        ring_fd(self.0.as_raw_fd());
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Rings the bell behind a descriptor. Async-signal-safe.
pub(super) fn ring_fd(bell_fd: RawFd) {
    let one: u64 = 1;
    // SAFETY: write reads the eight bytes of a local; errno belongs to this thread and is put back, because this runs
    // in signal handlers.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(bell_fd, (&raw const one).cast(), mem::size_of::<u64>());
        *libc::__errno_location() = errno;
    }
}

/// What a completion or readiness report is about, packed into the 64 bits the kernel carries for us:
/// `kind` in the upper 4 bits, index in the next 28, generation in the lower 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token(pub(super) u64);

const _: () = assert!(SLOTS_MAX <= 1 << 28);

impl Token {
    pub(super) fn new(kind: u8, name: SlotName) -> Token {
        debug_assert!(kind < 16 && name.index < 1 << 28);
        Token(u64::from(kind) << 60 | u64::from(name.index) << 32 | u64::from(name.generation))
    }

    /// For things that are numbered and never renamed: listeners, the bell.
    pub(super) fn numbered(kind: u8, number: usize) -> Token {
        Token::new(kind, SlotName { index: number as u32, generation: 0 })
    }

    #[inline]
    pub(super) fn kind(self) -> u8 {
        (self.0 >> 60) as u8
    }

    #[inline]
    pub(super) fn name(self) -> SlotName {
        SlotName { index: (self.0 >> 32) as u32 & 0x0fff_ffff, generation: self.0 as u32 }
    }
}

/// Ends both directions of a socket: a receive still finds what has arrived, and then the end.
pub(super) fn shut_down(socket: &OwnedFd) {
    // SAFETY: shutdown takes no pointers. It fails where there is nothing left to end.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// The shorter of two waits, of which each may be without limit.
pub(super) fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The address a socket is bound to, for `laddr` in CLIENT LIST.
pub fn local_addr(socket: &impl AsRawFd) -> Option<PeerAddr> {
    // SAFETY: all-zeroes is a valid sockaddr_storage, and getsockname writes at most its length.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        let mut len = mem::size_of_val(&storage) as libc::socklen_t;
        let named = libc::getsockname(socket.as_raw_fd(), (&raw mut storage).cast(), &mut len) == 0;
        named.then(|| peer_addr(&storage))
    }
}

/// Reads an address that the kernel wrote.
pub(super) fn peer_addr(storage: &libc::sockaddr_storage) -> PeerAddr {
    // SAFETY: the casts follow the family, and a sockaddr_storage is aligned and large enough for each of them.
    unsafe {
        match libc::c_int::from(storage.ss_family) {
            libc::AF_INET => {
                let v4 = &*ptr::from_ref(storage).cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                PeerAddr::Tcp(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                PeerAddr::Tcp(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => PeerAddr::Unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_kind_index_and_generation() {
        let name = SlotName { index: (SLOTS_MAX - 1) as u32, generation: u32::MAX };
        let token = Token::new(15, name);
        assert_eq!(token.kind(), 15);
        assert_eq!(token.name(), name);
        assert_eq!(Token::numbered(3, 7).name().index, 7);
        assert_eq!(Token::numbered(3, 7).kind(), 3);
    }
}
