//! A client of a server, which reads replies as they come on the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A request: the name and the arguments.
pub type Request = Vec<Vec<u8>>;

/// A request in words.
pub fn request(text: &str) -> Request {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_nodelay(true).expect("a socket has this option");
        Client { stream: BufReader::new(stream) }
    }

    /// Sends requests at once. Gives the replies as they came.
    pub fn call_all<A: AsRef<[u8]>>(&mut self, requests: &[Vec<A>]) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        for request in requests {
            write_request(&mut bytes, request);
        }
        self.stream.get_mut().write_all(&bytes).expect("the server reads");
        requests.iter().map(|_| self.read_bytes()).collect()
    }

    /// The reply to a request, as it came.
    pub fn call<A: AsRef<[u8]>>(&mut self, request: &[A]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_request(&mut bytes, request);
        self.stream.get_mut().write_all(&bytes).expect("the server reads");
        self.read_bytes()
    }

    /// The reply to a request in words, as it came.
    pub fn line(&mut self, line: &str) -> String {
        String::from_utf8_lossy(&self.call(&request(line))).into_owned()
    }

    /// The reply to a request in words, as [`show`] writes it.
    pub fn ask(&mut self, line: &str) -> String {
        show(&self.call(&request(line)))
    }

    /// Sends a request in words whose reply comes later.
    pub fn send(&mut self, line: &str) {
        let mut bytes = Vec::new();
        write_request(&mut bytes, &request(line));
        self.stream.get_mut().write_all(&bytes).expect("the server reads");
    }

    /// The next reply, as [`show`] writes it.
    pub fn read(&mut self) -> String {
        show(&self.read_bytes())
    }

    /// Asks, and compares each reply, as [`show`] writes it, with the one that is expected.
    pub fn expect(&mut self, dialog: &[(&str, &str)]) {
        for (request, reply) in dialog {
            assert_eq!(self.ask(request), *reply, "{request}");
        }
    }

    /// The next reply as it comes; empty if the server has closed the connection.
    pub fn read_bytes(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        let mut missing = 1;
        while missing > 0 {
            missing -= 1;
            let begin = reply.len();
            // A server that dies may reset the connection.
            if !matches!(self.stream.read_until(b'\n', &mut reply), Ok(1..)) {
                return Vec::new();
            }
            let (kind, len) = header(&reply[begin..]);
            match kind {
                b'$' | b'=' | b'!' if len >= 0 => {
                    let end = reply.len();
                    reply.resize(end + len as usize + 2, 0);
                    self.stream.read_exact(&mut reply[end..]).expect("as many bytes as were announced");
                }
                b'*' | b'~' | b'>' => missing += len.max(0),
                b'%' => missing += 2 * len.max(0),
                _ => {}
            }
        }
        reply
    }
}

fn write_request<A: AsRef<[u8]>>(bytes: &mut Vec<u8>, request: &[A]) {
    bytes.extend(format!("*{}\r\n", request.len()).bytes());
    for argument in request.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend(argument);
        bytes.extend(b"\r\n");
    }
}

/// The type of a reply, and the length behind it; 0 if there is none.
fn header(line: &[u8]) -> (u8, i64) {
    let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
    (line.first().copied().unwrap_or_default(), text.trim_end().parse().unwrap_or(0))
}

/// A reply as one line: strings as they are, errors with their `-`, integers with their `:`, collections in brackets, and
/// those that only RESP3 has with their sign.
fn show(reply: &[u8]) -> String {
    if reply.is_empty() {
        return "(closed)".to_string();
    }
    show_next(&mut &reply[..])
}

fn show_next(rest: &mut &[u8]) -> String {
    let line_len = rest.windows(2).position(|end| end == b"\r\n").expect("a line ends");
    let line = String::from_utf8_lossy(&rest[..line_len]).into_owned();
    let (kind, len) = header(&rest[..line_len]);
    *rest = &rest[line_len + 2..];
    match kind {
        b'$' | b'=' if len >= 0 => {
            let (bytes, behind) = rest.split_at(len as usize);
            *rest = &behind[2..];
            let text = String::from_utf8_lossy(bytes).replace('\0', "\\0").replace("\r\n", "\\r\\n");
            if kind == b'=' { format!("={text}") } else { text }
        }
        b'*' | b'~' | b'%' | b'>' if len >= 0 => {
            let count = if kind == b'%' { 2 * len } else { len };
            let elements: Vec<String> = (0..count).map(|_| show_next(rest)).collect();
            let sign = if kind == b'*' { "" } else { &line[..1] };
            format!("{sign}[{}]", elements.join(", "))
        }
        b'+' => line[1..].to_string(),
        _ => line,
    }
}
