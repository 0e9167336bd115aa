//! The floor: a server that stores nothing. It reads, knows GET and SET by their bytes, and answers from a constant. What it
//! answers to other commands it is told before they are measured ([`ANSWER`]).
//!
//! What it costs is what the kernel's TCP and a bare epoll loop cost on this machine, whatever a server does behind
//! them. No server on epoll can be cheaper, and a figure of another server less this one is that server's own work. It
//! is measured like a peer (`--floor`) but is none: it is what own costs, and so the bars, start from.
//!
//! It knows SUBSCRIBE as well: what is published, and the keys of SETs, as events, go to all subscribers, those of a turn
//! in one piece and one write. And it replicates: SETs go to all that have sent PSYNC, as they came, in the same way; as a replica
//! (REPLICAOF) it reads what comes, and acknowledges it once a second.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::load::named::{confirmation, message};
use crate::sys::{Epoll, Event};

/// The name that it goes by, and the subcommand that starts it.
pub const NAME: &str = "floor";

/// `ANSWER command reply`: what it answers to a command from then on.
pub const ANSWER: &str = "ANSWER";

const LISTENER: usize = usize::MAX;
const READ_BUFFER_LEN_BYTES: usize = 64 * 1024;
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\n";
const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$16\r\n";
/// An RDB file without keys, whose checksum says that it has none.
const EMPTY_RDB: &[u8] = b"REDIS0010\xff\0\0\0\0\0\0\0\0";
const ACK_INTERVAL: Duration = Duration::from_secs(1);
/// A key of 16 bytes and its CRLF.
const KEY_AND_CRLF_LEN_BYTES: usize = 18;

/// Serves on `port` until it is killed.
pub fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let mut epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), LISTENER)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut answers = Answers::default();
    loop {
        let ready = epoll.wait(-1)?;
        for at in 0..ready {
            let event = epoll.event(at);
            if event.token == LISTENER {
                accept_all(&listener, &epoll, &mut peers)?;
            } else if peers[event.token].as_mut().is_some_and(|peer| peer.turn(event, &mut answers).is_err())
            {
                // Dropping the stream closes it, which takes it out of the epoll set.
                peers[event.token] = None;
                answers.channel.subscribers.retain(|&token| token != event.token);
                answers.stream.replicas.retain(|&token| token != event.token);
            }
            if std::mem::take(&mut answers.channel.is_joined) {
                answers.channel.subscribers.push(event.token);
            }
            if std::mem::take(&mut answers.stream.is_joined) {
                answers.stream.replicas.push(event.token);
            }
            if let Some(port) = answers.stream.master_port.take() {
                let stream = follow(port)?;
                add_peer(stream, Some(Instant::now()), &epoll, &mut peers)?;
            }
        }
        send_to_all(&answers.channel.subscribers, &mut answers.channel.messages, &mut peers);
        send_to_all(&answers.stream.replicas, &mut answers.stream.commands, &mut peers);
    }
}

/// Becomes a replica of the server on `port`, which has no keys as far as this one is concerned.
fn follow(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"PSYNC ? -1\r\n")?;
    let mut received = vec![0; PSYNC_ANSWER.len() + EMPTY_RDB.len()];
    stream.read_exact(&mut received)?;
    Ok(stream)
}

/// The answer to PSYNC, up to the snapshot.
const PSYNC_ANSWER: &[u8] = b"+FULLRESYNC 0000000000000000000000000000000000000000 0\r\n$18\r\n";

/// What replication needs.
#[derive(Default)]
struct Stream {
    replicas: Vec<usize>,
    /// The connection whose turn it is has sent PSYNC.
    is_joined: bool,
    /// This turn's commands.
    commands: Vec<u8>,
    /// The length of all commands so far.
    sent_bytes: u64,
    /// The port of a master that is to be followed.
    master_port: Option<u16>,
    /// What it has sent so far.
    received_bytes: u64,
}

/// Sends `bytes` to these connections, and clears them.
fn send_to_all(tokens: &[usize], bytes: &mut Vec<u8>, peers: &mut [Option<Peer>]) {
    if bytes.is_empty() {
        return;
    }
    for &token in tokens {
        if let Some(peer) = &mut peers[token] {
            // A connection that is gone is closed by its event.
            let _ = peer.send(bytes);
        }
    }
    bytes.clear();
}

/// The one channel that there is.
#[derive(Default)]
struct Channel {
    name: Vec<u8>,
    subscribers: Vec<usize>,
    /// The connection whose turn it is has subscribed.
    is_joined: bool,
    /// This turn's messages.
    messages: Vec<u8>,
}

impl Channel {
    fn publish(&mut self, payload: &[u8]) {
        self.messages.extend_from_slice(&message(&self.name, payload));
    }
}

fn accept_all(listener: &TcpListener, epoll: &Epoll, peers: &mut Vec<Option<Peer>>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        add_peer(stream, None, epoll, peers)?;
    }
}

fn add_peer(
    stream: TcpStream,
    acked_at: Option<Instant>,
    epoll: &Epoll,
    peers: &mut Vec<Option<Peer>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    epoll.add(stream.as_raw_fd(), peers.len())?;
    peers.push(Some(Peer { stream, acked_at, unparsed: Vec::new(), unsent: Vec::new() }));
    Ok(())
}

/// The constant answers. GET's has the length of the last value that came, so that it is as long as the workload's.
struct Answers {
    get: Vec<u8>,
    value_len_bytes: usize,
    /// Commands and their answers.
    told: Vec<(Vec<u8>, Vec<u8>)>,
    channel: Channel,
    stream: Stream,
    reply: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Default for Answers {
    fn default() -> Answers {
        let buffer = vec![0; READ_BUFFER_LEN_BYTES].into_boxed_slice();
        Answers {
            get: b"$0\r\n\r\n".to_vec(),
            value_len_bytes: 0,
            told: Vec::new(),
            channel: Channel::default(),
            stream: Stream::default(),
            reply: Vec::new(),
            buffer,
        }
    }
}

impl Answers {
    fn set_value(&mut self, value_and_crlf: &[u8]) {
        // Only the length matters, and it seldom changes.
        if self.value_len_bytes != value_and_crlf.len() - 2 {
            self.value_len_bytes = value_and_crlf.len() - 2;
            self.get = format!("${}\r\n", self.value_len_bytes).into_bytes();
            self.get.extend_from_slice(value_and_crlf);
        }
    }
}

struct Peer {
    stream: TcpStream,
    /// Of the master: when what it has sent was acknowledged last.
    acked_at: Option<Instant>,
    /// A command cut by the end of a read.
    unparsed: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

impl Peer {
    fn turn(&mut self, event: Event, answers: &mut Answers) -> io::Result<()> {
        if event.writable && !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
        }
        let mut more = event.readable;
        while more {
            let mut buffer = std::mem::take(&mut answers.buffer);
            let result = match self.stream.read(&mut buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) if self.acked_at.is_some() => {
                    answers.stream.received_bytes += len as u64;
                    self.acknowledge(answers.stream.received_bytes).map(|()| len == READ_BUFFER_LEN_BYTES)
                }
                Ok(len) => self.answer(&buffer[..len], answers).map(|()| len == READ_BUFFER_LEN_BYTES),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            };
            answers.buffer = buffer;
            more = result?;
        }
        Ok(())
    }

    /// Answers the commands of one read in one write.
    fn answer(&mut self, bytes: &[u8], answers: &mut Answers) -> io::Result<()> {
        let mut reply = std::mem::take(&mut answers.reply);
        reply.clear();
        if self.unparsed.is_empty() {
            let parsed = parse(bytes, answers, &mut reply)?;
            self.unparsed.extend_from_slice(&bytes[parsed..]);
        } else {
            let mut unparsed = std::mem::take(&mut self.unparsed);
            unparsed.extend_from_slice(bytes);
            let parsed = parse(&unparsed, answers, &mut reply)?;
            unparsed.drain(..parsed);
            self.unparsed = unparsed;
        }
        let sent = self.send(&reply);
        answers.reply = reply;
        sent
    }

    /// Tells the master once a second how much it has sent.
    fn acknowledge(&mut self, received_bytes: u64) -> io::Result<()> {
        let now = Instant::now();
        if self.acked_at.is_none_or(|acked_at| now - acked_at < ACK_INTERVAL) {
            return Ok(());
        }
        self.acked_at = Some(now);
        let offset = received_bytes.to_string();
        self.send(
            format!("*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n${}\r\n{offset}\r\n", offset.len()).as_bytes(),
        )
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }
}

/// Answers the whole commands at the start of `bytes`; returns their length.
fn parse(bytes: &[u8], answers: &mut Answers, reply: &mut Vec<u8>) -> io::Result<usize> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        if rest.starts_with(GET) && rest.len() >= GET.len() + KEY_AND_CRLF_LEN_BYTES {
            reply.extend_from_slice(&answers.get);
            at += GET.len() + KEY_AND_CRLF_LEN_BYTES;
        } else if rest.starts_with(SET) {
            let Some(value) = rest.get(SET.len() + KEY_AND_CRLF_LEN_BYTES..) else { return Ok(at) };
            let Some((header_len, value_len)) = bulk_header(value)? else { return Ok(at) };
            let end = header_len + value_len + 2;
            if value.len() < end {
                return Ok(at);
            }
            answers.set_value(&value[header_len..end]);
            if !answers.channel.subscribers.is_empty() {
                let key = &rest[SET.len()..SET.len() + KEY_AND_CRLF_LEN_BYTES - 2];
                answers.channel.publish(key);
            }
            reply.extend_from_slice(b"+OK\r\n");
            let len = SET.len() + KEY_AND_CRLF_LEN_BYTES + end;
            if !answers.stream.replicas.is_empty() {
                answers.stream.commands.extend_from_slice(&rest[..len]);
                answers.stream.sent_bytes += len as u64;
            }
            at += len;
        } else {
            match parse_other(rest, answers, reply)? {
                Some(len) => at += len,
                None => return Ok(at),
            }
        }
    }
}

/// Length of the line `$n\r\n` at the start of `bytes`, and n. None if the line is cut.
fn bulk_header(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(line_len) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let digits = bytes[..line_len].strip_suffix(b"\r").and_then(|line| line.get(1..));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok(Some((line_len + 1, number.ok_or(io::ErrorKind::InvalidData)?)))
}

/// What it was told the answer of, and what the benches ask outside the measured windows. Anything else is answered with
/// OK, as it changes nothing here.
fn parse_other(bytes: &[u8], answers: &mut Answers, reply: &mut Vec<u8>) -> io::Result<Option<usize>> {
    if let Some(line_len) = bytes.starts_with(b"PSYNC").then(|| memchr::memchr(b'\n', bytes)).flatten() {
        answers.stream.is_joined = true;
        reply.extend_from_slice(PSYNC_ANSWER);
        reply.extend_from_slice(EMPTY_RDB);
        return Ok(Some(line_len + 1));
    }
    let Some((mut at, args)) = bulk_header(bytes)? else { return Ok(None) };
    let mut first: [&[u8]; 3] = [b""; 3];
    for index in 0..args {
        let Some((header_len, len)) = bulk_header(&bytes[at..])? else { return Ok(None) };
        let Some(arg) = bytes.get(at + header_len..at + header_len + len + 2) else { return Ok(None) };
        if let Some(place) = first.get_mut(index) {
            *place = &arg[..len];
        }
        at += header_len + len + 2;
    }
    let [name, command, answer] = first;
    match name {
        b"PUBLISH" => {
            answers.channel.publish(answer);
            write!(reply, ":{}\r\n", answers.channel.subscribers.len())?;
            return Ok(Some(at));
        }
        b"SUBSCRIBE" => {
            answers.channel.name = command.to_vec();
            answers.channel.is_joined = true;
            reply.extend_from_slice(&confirmation(command));
            return Ok(Some(at));
        }
        b"REPLICAOF" => {
            let port = std::str::from_utf8(answer).ok().and_then(|port| port.parse().ok());
            answers.stream.master_port = Some(port.ok_or(io::ErrorKind::InvalidData)?);
            reply.extend_from_slice(b"+OK\r\n");
            return Ok(Some(at));
        }
        // An acknowledgement is not answered.
        b"REPLCONF" => return Ok(Some(at)),
        _ => {}
    }
    if let Some((_, answer)) = answers.told.iter().find(|(told, _)| told == name) {
        reply.extend_from_slice(answer);
        return Ok(Some(at));
    }
    match name {
        name if name == ANSWER.as_bytes() => {
            answers.told.retain(|(told, _)| told != command);
            answers.told.push((command.to_vec(), answer.to_vec()));
            reply.extend_from_slice(b"+OK\r\n");
        }
        b"PING" => reply.extend_from_slice(b"+PONG\r\n"),
        b"INFO" => {
            let Stream { sent_bytes, received_bytes, .. } = answers.stream;
            let info = format!(
                "process_id:{}\r\nfloor_version:1\r\nmaster_link_status:up\r\n\
                 master_repl_offset:{sent_bytes}\r\nslave_repl_offset:{received_bytes}\r\n",
                std::process::id()
            );
            write!(reply, "${}\r\n{info}\r\n", info.len())?;
        }
        _ => reply.extend_from_slice(b"+OK\r\n"),
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::named::Subscribers;
    use crate::load::workload::{Op, Pool, PoolSource, Source};
    use crate::resp::{ReplyScanner, write_command};

    fn answer(bytes: &[u8]) -> (usize, Vec<u8>) {
        let mut reply = Vec::new();
        let parsed = parse(bytes, &mut Answers::default(), &mut reply).unwrap();
        (parsed, reply)
    }

    #[test]
    fn every_command_of_the_workload_is_answered_and_a_cut_one_is_kept() {
        let mut source = PoolSource::new(Pool::build(Op::GetSet, 20, 100, 64, 1), 1);
        let mut scratch = Vec::new();
        let bytes = source.next_batch(&mut scratch).unwrap().bytes.to_vec();
        for cut in 0..=bytes.len() {
            let mut answers = Answers::default();
            let mut reply = Vec::new();
            let parsed = parse(&bytes[..cut], &mut answers, &mut reply).unwrap();
            assert!(parsed <= cut);
            let rest = parse(&bytes[parsed..], &mut answers, &mut reply).unwrap();
            assert_eq!(parsed + rest, bytes.len());
            assert_eq!(ReplyScanner::default().scan(&reply).unwrap(), 20, "cut at {cut}");
        }
    }

    #[test]
    fn a_get_is_answered_with_a_value_as_long_as_the_last_one_set() {
        for len in [1, 8, 9, 10, 64, 99, 100, 1024] {
            let mut bytes = Vec::new();
            write_command(&mut bytes, &[b"SET", b"key:000000000001", &vec![b'x'; 500]]);
            write_command(&mut bytes, &[b"SET", b"key:000000000001", &vec![b'y'; len]]);
            write_command(&mut bytes, &[b"GET", b"key:000000000001"]);
            let expected = format!("+OK\r\n+OK\r\n${len}\r\n{}\r\n", "y".repeat(len));
            assert_eq!(answer(&bytes), (bytes.len(), expected.into_bytes()));
        }
    }

    #[test]
    fn the_questions_of_the_benches_are_answered() {
        let mut bytes = Vec::new();
        write_command(&mut bytes, &[b"PING"]);
        write_command(&mut bytes, &[b"INFO", b"server"]);
        let (parsed, reply) = answer(&bytes);
        assert_eq!(parsed, bytes.len());
        assert!(reply.starts_with(b"+PONG\r\n$"));
        assert_eq!(ReplyScanner::default().scan(&reply).unwrap(), 2);
    }

    #[test]
    fn a_command_is_answered_as_it_was_told_last() {
        let mut bytes = Vec::new();
        write_command(&mut bytes, &[ANSWER.as_bytes(), b"LLEN", b":7\r\n"]);
        write_command(&mut bytes, &[b"LLEN", b"col:000000000001"]);
        write_command(&mut bytes, &[ANSWER.as_bytes(), b"LLEN", b":42\r\n"]);
        write_command(&mut bytes, &[b"LLEN", b"col:000000000001"]);
        assert_eq!(answer(&bytes), (bytes.len(), b"+OK\r\n:7\r\n+OK\r\n:42\r\n".to_vec()));
    }

    #[test]
    fn what_is_published_or_set_is_a_message_once_somebody_has_subscribed() {
        let mut answers = Answers::default();
        let mut ask = |args: &[&[u8]]| {
            let mut bytes = Vec::new();
            write_command(&mut bytes, args);
            let mut reply = Vec::new();
            parse(&bytes, &mut answers, &mut reply).unwrap();
            if std::mem::take(&mut answers.channel.is_joined) {
                answers.channel.subscribers.push(0);
            }
            (reply, std::mem::take(&mut answers.channel.messages))
        };
        assert!(ask(&[b"SET", b"key:000000000001", b"x"]).1.is_empty());
        let scene = Subscribers { count: 1, channel: "news", payload_len_bytes: 2 };
        assert_eq!(ask(&[b"SUBSCRIBE", b"news"]).0, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        let (reply, messages) = ask(&[b"PUBLISH", b"news", b"hi"]);
        assert_eq!((&reply[..], messages.len() as u64), (&b":1\r\n"[..], scene.message_len_bytes()));
        let (reply, messages) = ask(&[b"SET", b"key:000000000001", b"x"]);
        assert_eq!((&reply[..], messages), (&b"+OK\r\n"[..], message(b"news", b"key:000000000001")));
    }

    #[test]
    fn a_replica_gets_a_snapshot_and_then_what_is_set() {
        let mut answers = Answers::default();
        let mut reply = Vec::new();
        assert_eq!(parse(b"PSYNC ? -1\r\n", &mut answers, &mut reply).unwrap(), 12);
        assert_eq!(reply, [PSYNC_ANSWER, EMPTY_RDB].concat());
        assert!(std::mem::take(&mut answers.stream.is_joined) && EMPTY_RDB.len() == 18);
        answers.stream.replicas.push(0);
        let mut bytes = Vec::new();
        write_command(&mut bytes, &[b"SET", b"key:000000000001", b"x"]);
        parse(&bytes, &mut answers, &mut reply).unwrap();
        assert_eq!(answers.stream.commands, bytes);
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        assert!(parse(b"GET x\r\n", &mut Answers::default(), &mut Vec::new()).is_err());
    }
}
