//! RESP2 as a client needs it: writing commands, counting replies in a stream, and a blocking client for questions.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Appends one command to `out`.
pub fn write_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    write_header(out, b'*', args.len());
    for arg in args {
        write_header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a line of a kind and a count. By hand: loads write millions of them, and the formatting machinery would be
/// most of their cost.
fn write_header(out: &mut Vec<u8>, kind: u8, count: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = count;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// A header line longer than this is not RESP. Error texts are the longest ones that are.
const HEADER_LEN_MAX: usize = 64 * 1024;

/// Counts whole replies in a stream that arrives in arbitrary pieces. Looks at headers only: payloads are skipped by
/// their length, so a reply costs a few nanoseconds whatever its size.
#[derive(Default)]
pub struct ReplyScanner {
    /// Elements still missing from the reply under way, those of nested arrays included; 0 between replies.
    elements_missing: u64,
    /// Bytes of a bulk string still to come, its CRLF included.
    payload_missing: usize,
    /// A header line cut by the end of the last piece.
    header: Vec<u8>,
    /// Error replies seen, at any depth.
    pub errors: u64,
    /// Null replies seen, at any depth.
    pub nulls: u64,
    /// Text of the first error reply.
    pub first_error: Option<String>,
}

impl ReplyScanner {
    /// Takes the next piece of the stream; returns how many replies it completed. `InvalidData` if it is not RESP2,
    /// after which the scanner is of no more use.
    pub fn scan(&mut self, piece: &[u8]) -> io::Result<usize> {
        let mut rest = piece;
        let mut completed = 0;
        loop {
            if self.payload_missing > 0 {
                let taken = self.payload_missing.min(rest.len());
                self.payload_missing -= taken;
                rest = &rest[taken..];
                if self.payload_missing > 0 {
                    return Ok(completed);
                }
                completed += self.end_element();
            }
            if rest.is_empty() {
                return Ok(completed);
            }

            let Some(line_len) = memchr::memchr(b'\n', rest) else {
                if self.header.len() + rest.len() > HEADER_LEN_MAX {
                    return Err(not_resp(rest));
                }
                self.header.extend_from_slice(rest);
                return Ok(completed);
            };
            let (line, after) = (&rest[..line_len], &rest[line_len + 1..]);
            rest = after;
            completed += if self.header.is_empty() {
                self.take_header(line)?
            } else {
                let mut header = std::mem::take(&mut self.header);
                header.extend_from_slice(line);
                let ended = self.take_header(&header)?;
                // Keep the allocation for the next cut.
                header.clear();
                self.header = header;
                ended
            };
        }
    }

    /// True between two replies.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.elements_missing == 0 && self.payload_missing == 0 && self.header.is_empty()
    }

    /// Takes a header line without its LF; returns 1 if that ended a reply.
    fn take_header(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some((&kind, [text @ .., b'\r'])) = line.split_first() else { return Err(not_resp(line)) };
        if self.elements_missing == 0 {
            self.elements_missing = 1;
        }
        match kind {
            b'+' | b':' => Ok(self.end_element()),
            b'-' => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
                Ok(self.end_element())
            }
            b'$' | b'*' if text == b"-1" => {
                self.nulls += 1;
                Ok(self.end_element())
            }
            b'$' => {
                self.payload_missing = parse_len(text).ok_or_else(|| not_resp(line))? + 2;
                Ok(0)
            }
            b'*' => {
                self.elements_missing += parse_len(text).ok_or_else(|| not_resp(line))? as u64;
                Ok(self.end_element())
            }
            _ => Err(not_resp(line)),
        }
    }

    #[inline]
    fn end_element(&mut self) -> usize {
        self.elements_missing -= 1;
        usize::from(self.elements_missing == 0)
    }
}

fn parse_len(text: &[u8]) -> Option<usize> {
    // 15 digits are more than any reply and cannot overflow.
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    text.iter()
        .try_fold(0usize, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

fn not_resp(bytes: &[u8]) -> io::Error {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    io::Error::new(io::ErrorKind::InvalidData, format!("not a RESP2 reply: {start:?}"))
}

/// How long a question may stay unanswered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A blocking client for questions outside the measured windows.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends one command and returns the text of its simple, integer or bulk reply ("" for null). An error reply is
    /// an `Other` error with its text; an array is `InvalidData`.
    pub fn call(&mut self, args: &[&str]) -> io::Result<String> {
        let mut request = Vec::new();
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        write_command(&mut request, &args);
        self.stream.get_mut().write_all(&request)?;

        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some((&kind, [text @ .., b'\r', b'\n'])) = line.split_first() else {
            return Err(not_resp(&line));
        };
        match kind {
            b'+' | b':' => Ok(String::from_utf8_lossy(text).into_owned()),
            b'-' => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
            b'$' if text == b"-1" => Ok(String::new()),
            b'$' => {
                let len = parse_len(text).ok_or_else(|| not_resp(&line))?;
                let mut payload = vec![0; len + 2];
                self.stream.read_exact(&mut payload)?;
                payload.truncate(len);
                Ok(String::from_utf8_lossy(&payload).into_owned())
            }
            _ => Err(not_resp(&line)),
        }
    }
}

/// The value of `field` in a reply of INFO.
pub fn info_field<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"+OK\r\n$-1\r\n$5\r\na\r\nbc\r\n:12\r\n*0\r\n*-1\r\n-ERR no\r\n*3\r\n$1\r\nx\r\n*2\r\n:1\r\n\
        $0\r\n\r\n-WRONGTYPE y\r\n$0\r\n\r\n";
    const REPLIES: usize = 9;

    #[test]
    fn a_command_is_written_as_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"SET", b"k", b"a\r\nb"]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn headers_hold_counts_of_any_length() {
        for count in [0, 1, 9, 10, 99, 100, 12_345, usize::MAX] {
            let mut out = Vec::new();
            write_header(&mut out, b'$', count);
            assert_eq!(String::from_utf8(out).unwrap(), format!("${count}\r\n"));
        }
    }

    #[test]
    fn replies_are_counted_wherever_the_stream_is_cut() {
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let mut scanner = ReplyScanner::default();
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                let counted: usize = pieces.iter().map(|piece| scanner.scan(piece).unwrap()).sum();
                assert_eq!(counted, REPLIES, "cut at {first} and {second}");
                assert!(scanner.is_idle());
                assert_eq!((scanner.errors, scanner.nulls), (2, 2));
                assert_eq!(scanner.first_error.as_deref(), Some("ERR no"));
            }
        }
    }

    #[test]
    fn a_reply_counts_when_its_last_byte_is_there_and_not_before() {
        let mut scanner = ReplyScanner::default();
        for (at, byte) in STREAM[..5].iter().enumerate() {
            assert_eq!(scanner.scan(&[*byte]).unwrap(), usize::from(at == 4));
        }
        assert_eq!(scanner.scan(b"*2\r\n$3\r\nabc\r\n").unwrap(), 0);
        assert_eq!(scanner.scan(b"$3\r\nabc\r").unwrap(), 0);
        assert_eq!(scanner.scan(b"\n").unwrap(), 1);
    }

    #[test]
    fn a_transaction_of_five_counts_seven_replies() {
        let mut scanner = ReplyScanner::default();
        let mut stream = b"+OK\r\n".to_vec();
        stream.extend(b"+QUEUED\r\n".repeat(5));
        stream.extend(b"*5\r\n");
        stream.extend(b"+OK\r\n".repeat(5));
        assert_eq!(scanner.scan(&stream).unwrap(), 7);
    }

    #[test]
    fn what_is_not_resp_is_an_error() {
        for bad in
            [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b"*-2\r\n", b"\r\n", b"+OK\n", b"$9999999999999999\r\n"]
        {
            let error = ReplyScanner::default().scan(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
        let endless = vec![b'+'; HEADER_LEN_MAX + 1];
        assert!(ReplyScanner::default().scan(&endless).is_err());
    }

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let info = "# Server\r\nredis_version_x:1\r\nredis_version:7.0.15\r\n";
        assert_eq!(info_field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(info_field(info, "version"), None);
    }
}
