//! Sockets to listen on.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

/// A listener on `addr:port`, non-blocking.
pub fn tcp(addr: &str, port: u16) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind((addr, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Sets an accepted TCP socket up for requests and replies: no Nagle delay, and keep-alive probes as
/// `tcp-keepalive` says (0: none). Unix sockets are left as they are.
pub fn tune(fd: &OwnedFd, keepalive_s: u32) {
    let set = |level: libc::c_int, name: libc::c_int, value: libc::c_int| {
        // SAFETY: setsockopt reads one int behind the pointer, and the descriptor is open.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                std::mem::size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    };
    set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    if keepalive_s > 0 {
        let seconds = keepalive_s as libc::c_int;
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (seconds / 3).max(1));
        set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3);
    }
}

/// Says a last word to a client that is not served. Best effort: it may not listen.
pub fn send_and_drop(fd: OwnedFd, reply: &[u8]) {
    let mut stream = std::net::TcpStream::from(fd);
    let _ = stream.write_all(reply);
}
