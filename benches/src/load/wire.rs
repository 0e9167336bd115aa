//! What a connection of the generator writes to and reads from: a socket, or TLS over one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslMode, SslStream, SslVerifyMode};

/// Time for an answer outside measured windows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

pub enum Wire {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

/// Encrypts to whomever it is that answers: the server was started by this program.
pub fn tls_context() -> io::Result<SslContext> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    // What the socket does not take is written again from a buffer of its own.
    builder.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    Ok(builder.build())
}

impl Wire {
    /// A connection that does not block, with its handshake done.
    pub fn connect(address: SocketAddr, tls: Option<&SslContext>) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let wire = match tls {
            None => Wire::Plain(stream),
            Some(context) => {
                let mut stream = SslStream::new(Ssl::new(context)?, stream)?;
                stream.connect().map_err(io::Error::other)?;
                Wire::Tls(Box::new(stream))
            }
        };
        wire.socket().set_nonblocking(true)?;
        Ok(wire)
    }

    /// Sends `request`, outside measured windows, and waits for exactly `reply`.
    pub fn ask(&mut self, request: &[u8], reply: &[u8]) -> io::Result<()> {
        self.socket().set_nonblocking(false)?;
        self.socket().set_read_timeout(Some(ANSWER_TIMEOUT))?;
        self.write_all(request)?;
        let mut answer = vec![0; reply.len()];
        self.read_exact(&mut answer)?;
        self.socket().set_read_timeout(None)?;
        self.socket().set_nonblocking(true)?;
        if answer != reply {
            return Err(io::Error::other(format!("replied {:?}", String::from_utf8_lossy(&answer))));
        }
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
        }
    }

    /// Whether a read that does not fill its buffer has emptied the socket. One over TLS ends with its record.
    #[inline]
    pub fn is_emptied_by_a_short_read(&self) -> bool {
        matches!(self, Wire::Plain(_))
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

impl Read for Wire {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
