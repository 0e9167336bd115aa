//! A client that keeps replies as they came: their type bytes and their texts, nothing interpreted.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

/// One reply. Two servers answer alike if their replies are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    /// RESP's type byte.
    pub kind: u8,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Body {
    Text(Vec<u8>),
    /// A map has its fields and values in turn.
    Items(Vec<Reply>),
    /// RESP2's `$-1` and `*-1`.
    Nil,
}

impl Reply {
    pub fn is_error(&self) -> bool {
        self.kind == b'-'
    }

    pub fn text(&self) -> Option<&[u8]> {
        if let Body::Text(text) = &self.body { Some(text) } else { None }
    }

    pub fn items(&self) -> Option<&[Reply]> {
        if let Body::Items(items) = &self.body { Some(items) } else { None }
    }

    pub fn integer(&self) -> Option<i64> {
        if self.kind != b':' {
            return None;
        }
        std::str::from_utf8(self.text()?).ok()?.parse().ok()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind as char;
        match &self.body {
            Body::Nil => write!(f, "{kind}nil"),
            Body::Text(text) => write!(f, "{kind}{}", quoted(text)),
            Body::Items(items) => {
                write!(f, "{kind}[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{item}")?;
                }
                write!(f, "]")
            }
        }
    }
}

/// `bytes` as redis-cli understands them: bare where nothing is special, otherwise quoted.
pub fn quoted(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b'#');
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', *byte as char]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' => text.push(*byte as char),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

/// A connection. Any failure of it is an error of the kind `Broken`: the server died, hung or spoke no RESP.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// How a connection ended, in words.
#[derive(Debug, Clone)]
pub struct Broken(pub String);

/// What INFO tells.
pub struct Info(pub String);

impl Info {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    pub fn number<N: FromStr>(&self, name: &str) -> Result<N, Broken> {
        let number = self.field(name).and_then(|text| text.parse().ok());
        number.ok_or_else(|| Broken(format!("INFO without {name}")))
    }
}

/// A reply that takes longer hangs.
const REPLY_SECS_MAX: u64 = 10;
/// Deeper nesting than any reply of Redis: what a script returns may be about 8,000 tables deep.
const DEPTH_MAX: usize = 10_000;

impl Client {
    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(REPLY_SECS_MAX)))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Its own address, as the server shows it.
    pub fn addr(&self) -> String {
        self.stream.get_ref().local_addr().map_or_else(|error| error.to_string(), |addr| addr.to_string())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.get_mut().write_all(bytes).map_err(|error| Broken(format!("sending failed: {error}")))
    }

    pub fn read(&mut self) -> Result<Reply, Broken> {
        self.read_nested(0).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Broken(format!("no reply for {REPLY_SECS_MAX} seconds")),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                Broken("the server closed the connection".to_owned())
            }
            _ => Broken(error.to_string()),
        })
    }

    pub fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, Broken> {
        self.send(&encode(args))?;
        self.read()
    }

    /// Asks for sections of INFO.
    pub fn info(&mut self, sections: &[&str]) -> Result<Info, Broken> {
        let reply = self.ask(&[&["INFO"], sections].concat())?;
        Ok(Info(String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned()))
    }

    /// Whether a reply is there, or comes within `patience`.
    pub fn is_ready(&mut self, patience: Duration) -> Result<bool, Broken> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        let broken = |error: io::Error| Broken(error.to_string());
        self.stream.get_ref().set_read_timeout(Some(patience)).map_err(broken)?;
        let filled = self.stream.fill_buf().map(|bytes| !bytes.is_empty());
        let timeout = Some(Duration::from_secs(REPLY_SECS_MAX));
        self.stream.get_ref().set_read_timeout(timeout).map_err(broken)?;
        match filled {
            Ok(true) => Ok(true),
            Ok(false) => Err(Broken("the server closed the connection".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(broken(error)),
        }
    }

    fn read_nested(&mut self, depth: usize) -> io::Result<Reply> {
        let line = self.read_line()?;
        let Some((&kind, rest)) = line.split_first() else { return Err(no_resp(&line)) };
        let body = match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => Body::Text(rest.to_vec()),
            b'$' | b'=' | b'!' => match length(&line)? {
                None => Body::Nil,
                Some(len) => {
                    let mut text = vec![0; len + 2];
                    self.stream.read_exact(&mut text)?;
                    if !text.ends_with(b"\r\n") {
                        return Err(no_resp(&text));
                    }
                    text.truncate(len);
                    Body::Text(text)
                }
            },
            b'*' | b'~' | b'%' | b'>' if depth < DEPTH_MAX => match length(&line)? {
                None => Body::Nil,
                Some(len) => {
                    let item_count = if kind == b'%' { 2 * len } else { len };
                    Body::Items(
                        (0..item_count).map(|_| self.read_nested(depth + 1)).collect::<io::Result<_>>()?,
                    )
                }
            },
            _ => return Err(no_resp(&line)),
        };
        Ok(Reply { kind, body })
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !line.ends_with(b"\r\n") {
            return Err(no_resp(&line));
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }
}

fn no_resp(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent no RESP: {}", quoted(bytes)))
}

/// The number after the type byte; None for -1.
fn length(line: &[u8]) -> io::Result<Option<usize>> {
    match &line[1..] {
        b"-1" => Ok(None),
        digits => {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            number.map(Some).ok_or_else(|| no_resp(line))
        }
    }
}

/// A request as clients send it.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
