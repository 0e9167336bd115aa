//! Connections that the server opens itself: to its master, and to servers that keys are sent to. They are read by a thread of their
//! own, which may wait.

use super::tls::{Client, Connector};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// So much is received at a time before it is decrypted.
const RECEIVED_LEN: usize = 16 << 10;

/// Where a connection goes, and how.
pub struct Target<'a> {
    pub host: &'a str,
    pub port: u16,
    /// The address of this machine that it comes from (`bind-source-addr`); empty: any. One that is not to be had is passed over, as in
    /// Redis.
    pub source: &'a str,
    /// It is encrypted.
    pub connector: Option<Connector>,
    /// For each address of the host.
    pub timeout: Duration,
}

/// A connection to another server.
pub struct Outgoing {
    stream: TcpStream,
    is_encrypted: bool,
    sender: Mutex<Sender>,
}

/// What all threads that send share.
#[derive(Default)]
struct Sender {
    client: Option<Client>,
    /// What the system has not taken yet, in the order of the stream.
    unsent: Vec<u8>,
}

impl Outgoing {
    /// # Errors
    /// Those of the system: the name is not known, nobody listens there, or it takes too long. Those of the handshake, if there is one.
    pub fn connect(target: Target<'_>) -> io::Result<Outgoing> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for address in (target.host, target.port).to_socket_addrs()? {
            outcome = open(&address, target.source, target.timeout);
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome?;
        stream.set_nodelay(true)?;
        let client = match &target.connector {
            Some(connector) => Some(shake_hands(&stream, connector, target.timeout)?),
            None => None,
        };
        let is_encrypted = client.is_some();
        Ok(Outgoing { stream, is_encrypted, sender: Mutex::new(Sender { client, unsent: Vec::new() }) })
    }

    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().expect("no holder of the sender panics")
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
        self.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Sends a few bytes without waiting. If the system has not even taken what was sent before, they are dropped.
    pub fn try_send(&self, bytes: &[u8]) {
        let mut sender = self.sender();
        self.push_out(&mut sender.unsent);
        if sender.unsent.is_empty() && sender.add(bytes).is_ok() {
            self.push_out(&mut sender.unsent);
        }
    }

    /// Sends as much as the system takes at once.
    fn push_out(&self, unsent: &mut Vec<u8>) {
        if unsent.is_empty() {
            return;
        }
        // SAFETY: the bytes are live, and the descriptor is open as long as `self` is.
        let sent_len = unsafe {
            libc::send(
                self.stream.as_raw_fd(),
                unsent.as_ptr().cast(),
                unsent.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        // Who reads hears of an error.
        unsent.drain(..usize::try_from(sent_len).unwrap_or(0));
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

    /// Reads from an encrypted connection.
    fn read_decrypted(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut received = [0; RECEIVED_LEN];
        loop {
            if let Some(len) = self.sender().client.as_mut().and_then(|client| client.take(buf)) {
                return Ok(len);
            }
            let len = (&self.stream).read(&mut received)?;
            if len == 0 {
                return Ok(0);
            }
            let mut sender = self.sender();
            sender.receive(&received[..len])?;
            self.push_out(&mut sender.unsent);
        }
    }
}

impl Sender {
    /// What is to be sent next, encrypted if the connection is.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.client {
            None => self.unsent.extend_from_slice(bytes),
            Some(client) => {
                client.write(bytes).map_err(io::Error::other)?;
                self.unsent.append(client.output());
            }
        }
        Ok(())
    }

    /// Takes what came on an encrypted connection, whose protocol may have something to say to it.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let outcome = client.receive(bytes);
        self.unsent.append(client.output());
        outcome.map_err(io::Error::other)
    }
}

fn open(address: &SocketAddr, source: &str, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    if !source.is_empty() {
        let sources = (source, 0).to_socket_addrs();
        let alike = sources.into_iter().flatten().filter(|source| source.is_ipv4() == address.is_ipv4());
        socket.set_reuse_address(true)?;
        // If none of them is this machine's, the system chooses.
        let _ = alike.map(SocketAddr::into).any(|source| socket.bind(&source).is_ok());
    }
    socket.connect_timeout(&(*address).into(), timeout)?;
    Ok(socket.into())
}

/// Waits for the end of the handshake.
fn shake_hands(mut stream: &TcpStream, connector: &Connector, timeout: Duration) -> io::Result<Client> {
    let deadline = Instant::now() + timeout;
    let mut received = [0; RECEIVED_LEN];
    let mut client = Client::new(connector).map_err(io::Error::other)?;
    loop {
        stream.write_all(client.output())?;
        client.output().clear();
        if client.is_open() {
            return Ok(client);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let len = stream.read(&mut received)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(why) = client.receive(&received[..len]) {
            // The other side is told what is wrong; that it cannot be is no news.
            let _ = stream.write_all(client.output());
            return Err(io::Error::other(why));
        }
    }
}

impl Read for &Outgoing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_encrypted { self.read_decrypted(buf) } else { (&self.stream).read(buf) }
    }
}

impl Write for &Outgoing {
    /// Takes all of it, and waits until the system has done so, too.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut sender = self.sender();
        sender.add(buf)?;
        (&self.stream).write_all(&sender.unsent)?;
        sender.unsent.clear();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn plain(port: u16, source: &str) -> Target<'_> {
        let timeout = Duration::from_secs(10);
        Target { host: "localhost", port, source, connector: None, timeout }
    }

    #[test]
    fn a_connection_that_is_shut_ends_for_its_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let outgoing = Outgoing::connect(plain(port, "")).expect("it listens");
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
        let outgoing = Outgoing::connect(plain(port, "")).expect("it listens");
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

    #[test]
    fn a_connection_comes_from_the_address_it_is_to_come_from_or_from_any() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        for (source, comes_from) in
            [("127.0.0.9", "127.0.0.9"), ("192.0.2.1", "127.0.0.1"), ("no such name", "127.0.0.1")]
        {
            let _outgoing = Outgoing::connect(plain(port, source)).expect("it listens");
            let (_, peer) = listener.accept().expect("it has connected");
            assert_eq!(peer.ip().to_string(), comes_from, "{source}");
        }
    }
}
