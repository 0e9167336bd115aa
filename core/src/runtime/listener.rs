//! Sockets to listen on.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;

/// A listener on `addr:port`, non-blocking.
pub fn tcp(addr: &str, port: u16) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind((addr, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Says a last word to a client that is not served. Best effort: it may not listen.
pub fn send_and_drop(fd: OwnedFd, reply: &[u8]) {
    let mut stream = std::net::TcpStream::from(fd);
    let _ = stream.write_all(reply);
}
