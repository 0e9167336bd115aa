//! Connections that the server opens itself: to its master. They are read by a thread of their own, which may wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A connection to another server.
pub struct Outgoing {
    stream: TcpStream,
}

impl Outgoing {
    /// # Errors
    /// Those of the system: the name is not known, nobody listens there, or it takes too long.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Outgoing> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for address in (host, port).to_socket_addrs()? {
            outcome = Outgoing::connect_to(&address, timeout);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn connect_to(address: &SocketAddr, timeout: Duration) -> io::Result<Outgoing> {
        let stream = TcpStream::connect_timeout(address, timeout)?;
        stream.set_nodelay(true)?;
        Ok(Outgoing { stream })
    }

    /// How long a read waits at most. After that it fails with `WouldBlock`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// How long a read, and a write, waits at most. After that it fails with `WouldBlock`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Sends a few bytes if the system takes them at once, and else nothing.
    pub fn try_send(&self, bytes: &[u8]) {
        // SAFETY: the bytes are live, and the descriptor is open as long as `self` is.
        unsafe {
            libc::send(
                self.stream.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            );
        }
    }

    /// Whether the other end has ended the connection, and all that it has sent was read.
    pub fn has_ended(&self) -> bool {
        let mut byte = 0u8;
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        // SAFETY: the byte is live and may be written, and the descriptor is open as long as `self` is.
        let len = unsafe { libc::recv(self.stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
        len == 0
    }

    /// The addresses of the other end and of this one, as CLIENT LIST shows them.
    pub fn ends(&self) -> Option<(String, String)> {
        Some((self.stream.peer_addr().ok()?.to_string(), self.stream.local_addr().ok()?.to_string()))
    }

    /// Ends both directions: who reads finds the end.
    pub fn shut(&self) {
        // It may have ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Read for &Outgoing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buf)
    }
}

impl Write for &Outgoing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.stream).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_connection_that_is_shut_ends_for_its_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let outgoing = Outgoing::connect("localhost", port, Duration::from_secs(10)).expect("it listens");
        outgoing.set_read_timeout(Duration::from_millis(1)).expect("a timeout");
        let (mut other, _) = listener.accept().expect("it has connected");
        outgoing.try_send(b"ping");
        let mut bytes = [0; 4];
        other.read_exact(&mut bytes).expect("it was sent");
        assert_eq!(&bytes, b"ping");
        assert!(!outgoing.has_ended());
        assert_eq!(outgoing.ends().expect("it is connected").0, format!("127.0.0.1:{port}"));
        let error = (&outgoing).read(&mut bytes).expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        outgoing.shut();
        assert_eq!((&outgoing).read(&mut bytes).expect("the end"), 0);
    }

    #[test]
    fn a_connection_has_ended_when_all_that_came_before_was_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let outgoing = Outgoing::connect("localhost", port, Duration::from_secs(10)).expect("it listens");
        let (mut other, _) = listener.accept().expect("it has connected");
        other.write_all(b"last").expect("it is open");
        drop(other);
        assert!(!outgoing.has_ended());
        let mut bytes = [0; 4];
        (&outgoing).read_exact(&mut bytes).expect("it was sent");
        while !outgoing.has_ended() {
            std::thread::yield_now();
        }
    }
}
