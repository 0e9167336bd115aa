//! What a replica and its master say to each other before the stream begins, and the snapshot.

use super::{Ended, LinkState, LinkThread, Master};
use crate::persist::aof::rewrite::write_request;
use crate::runtime::disk::{Disk, SystemDisk, append_all, open_empty_on};
use crate::runtime::log;
use crate::runtime::outgoing::{Outgoing, Target};
use crate::worker::failover::FailoverState;
use crate::worker::stream::REPLICATION_ID_LEN;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A line of the master's is not longer than this.
const LINE_LEN_MAX: usize = 64 << 10;
/// So much of the snapshot is read at once.
const CHUNK_LEN: usize = 256 << 10;
/// The length of the mark at the end of a snapshot whose length is not known beforehand.
const MARK_LEN: usize = 40;
/// While a snapshot is loaded, the master is told that this server is there so often.
const TELL_INTERVAL_MS: i64 = 1000;
/// How often a thread that waits for bytes looks for orders.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The connection to the master while it is talked to by lines.
pub(super) struct Talk<'a> {
    pub(super) thread: &'a LinkThread,
    pub(super) socket: Arc<Outgoing>,
    /// What was read and not used yet.
    pub(super) buffer: Vec<u8>,
}

/// How the stream begins.
pub(super) enum Start {
    /// With a snapshot, as of this offset of this history.
    Full { id: String, offset: u64 },
    /// Where it was left; the history may have got another name.
    Partial { id: Option<String> },
}

impl<'a> Talk<'a> {
    pub(super) fn connect(thread: &'a LinkThread, master: &Master) -> Result<Talk<'a>, Ended> {
        let (_, config) = thread.globals.config();
        let link = &thread.globals.link;
        log::notice(format_args!("MASTER <-> REPLICA sync started"));
        link.set_state(LinkState::Connecting);
        let timeout = Duration::from_secs(u64::from(config.repl_timeout_s));
        let connector = match config.tls_replication {
            true => Some(thread.globals.tls.connector().ok_or_else(|| {
                Ended::Failed("tls-replication is on, and TLS is not configured".to_owned())
            })?),
            false => None,
        };
        let source = config.bind_source_addr.to_str_lossy();
        let target = Target { host: &master.host, port: master.port, source: &source, connector, timeout };
        let socket = Arc::new(Outgoing::connect(target)?);
        socket.set_read_timeout(LOOK_INTERVAL)?;
        link.set_socket(Some(Arc::clone(&socket)));
        link.set_state(LinkState::Handshake);
        log::notice(format_args!("Non blocking connect for SYNC fired the event."));
        Ok(Talk { thread, socket, buffer: Vec::new() })
    }

    /// Reads more, and waits for it.
    pub(super) fn read_more(&mut self) -> Result<(), Ended> {
        let began_ms = self.thread.clock.wall_ms();
        let timeout_ms = i64::from(self.thread.globals.config().1.repl_timeout_s) * 1000;
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK_LEN, 0);
        loop {
            if self.thread.has_order() {
                return Err(Ended::Ordered);
            }
            match (&*self.socket).read(&mut self.buffer[start..]) {
                Ok(0) => {
                    return Err(Ended::Failed(
                        "I/O error trying to sync with MASTER: connection lost".to_owned(),
                    ));
                }
                Ok(len) => {
                    self.buffer.truncate(start + len);
                    self.thread.note_input(len);
                    return Ok(());
                }
                Err(error) if is_timeout(&error) => {
                    if self.thread.clock.wall_ms() - began_ms > timeout_ms {
                        let is_syncing = self.thread.globals.link.figures().state == LinkState::Sync;
                        return Err(Ended::Failed(match is_syncing {
                            true => "Timeout receiving bulk data from MASTER... If the problem persists try to set the \
                                     'repl-timeout' parameter in redis.conf to a larger value."
                                .to_owned(),
                            false => "Timeout connecting to the MASTER...".to_owned(),
                        }));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next line that is not empty. Masters send newlines to those that wait.
    fn line(&mut self) -> Result<String, Ended> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = line.trim_ascii_end();
                if !line.is_empty() {
                    return Ok(String::from_utf8_lossy(line).into_owned());
                }
            }
            if self.buffer.len() > LINE_LEN_MAX {
                return Err(Ended::Failed("the master sends something that is no reply".to_owned()));
            }
            self.read_more()?;
        }
    }

    fn send(&mut self, words: &[&[u8]]) -> Result<(), Ended> {
        let mut request = Vec::new();
        write_request(&mut request, words);
        (&*self.socket).write_all(&request)?;
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<String, Ended> {
        self.send(words)?;
        self.line()
    }

    /// All up to the beginning of the stream.
    pub(super) fn shake_hands(&mut self) -> Result<Start, Ended> {
        let (_, config) = self.thread.globals.config();
        let pong = self.ask(&[b"PING"])?;
        let is_refused_kindly = ["-NOAUTH", "-NOPERM", "-ERR operation not permitted"]
            .into_iter()
            .any(|error| pong.starts_with(error));
        if !pong.starts_with('+') && !is_refused_kindly {
            return Err(Ended::Failed(format!("Error reply to PING from master: '{pong}'")));
        }
        log::notice(format_args!("Master replied to PING, replication can continue..."));
        if !config.masterauth.is_empty() {
            let (user, password) = (config.masteruser.as_bytes(), config.masterauth.as_bytes());
            let reply = match user {
                b"" => self.ask(&[b"AUTH", password])?,
                user => self.ask(&[b"AUTH", user, password])?,
            };
            if reply.starts_with('-') {
                return Err(Ended::Failed(format!("Unable to AUTH to MASTER: {reply}")));
            }
        }
        let port = match config.replica_announce_port {
            0 if config.tls_replication && config.tls_port != 0 => config.tls_port,
            0 => config.port,
            port => port,
        };
        self.tell(&[b"REPLCONF", b"listening-port", port.to_string().as_bytes()])?;
        if !config.replica_announce_ip.is_empty() {
            self.tell(&[b"REPLCONF", b"ip-address", config.replica_announce_ip.as_bytes()])?;
        }
        self.tell(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"])?;
        self.psync()
    }

    /// What an old master may not understand, and need not.
    fn tell(&mut self, words: &[&[u8]]) -> Result<(), Ended> {
        let reply = self.ask(words)?;
        if reply.starts_with('-') {
            let option = words[1].escape_ascii();
            log::notice(format_args!("(Non critical) Master does not understand REPLCONF {option}: {reply}"));
        }
        Ok(())
    }

    fn psync(&mut self) -> Result<Start, Ended> {
        let stream = &self.thread.globals.stream;
        let (ids, offset) = (stream.ids(), stream.backlog.end() + 1);
        let asked_offset = offset.to_string();
        let words: &[&[u8]] = if stream.backlog.is_active() {
            log::notice(format_args!("Trying a partial resynchronization (request {}:{offset}).", ids.id));
            &[b"PSYNC", ids.id.as_bytes(), asked_offset.as_bytes(), b"FAILOVER"]
        } else {
            log::notice(format_args!("Partial resynchronization not possible (no cached master)"));
            &[b"PSYNC", b"?", b"-1", b"FAILOVER"]
        };
        let fails_over = self.thread.globals.failover.state() == FailoverState::InProgress;
        let reply = self.ask(if fails_over { words } else { &words[..3] })?;
        if fails_over {
            if !reply.starts_with("+FULLRESYNC") && !reply.starts_with("+CONTINUE") {
                log::warning(format_args!("Unexpected reply to PSYNC from master: {reply}"));
                return Err(Ended::Rejected);
            }
            self.thread.globals.failover.end(self.thread.globals);
        }
        let mut words = reply.split(' ');
        match words.next() {
            Some("+FULLRESYNC") => {
                let id = words.next().filter(|id| id.len() == REPLICATION_ID_LEN);
                let offset = words.next().and_then(|offset| offset.parse().ok());
                let (Some(id), Some(offset)) = (id, offset) else {
                    return Err(Ended::Failed(format!(
                        "Master replied with wrong +FULLRESYNC syntax: {reply}"
                    )));
                };
                log::notice(format_args!("Full resync from master: {id}:{offset}"));
                Ok(Start::Full { id: id.to_owned(), offset })
            }
            Some("+CONTINUE") => {
                log::notice(format_args!("Successful partial resynchronization with master."));
                let id = words.next().filter(|id| id.len() == REPLICATION_ID_LEN);
                Ok(Start::Partial { id: id.map(str::to_owned) })
            }
            _ if ["-NOMASTERLINK", "-LOADING"].into_iter().any(|error| reply.starts_with(error)) => {
                Err(Ended::Failed(format!(
                    "Master is currently unable to PSYNC but should be in the future: {reply}"
                )))
            }
            _ => Err(Ended::Failed(format!("Unexpected reply to PSYNC from master: {reply}"))),
        }
    }

    /// The line before the snapshot.
    pub(super) fn begin_payload(&mut self) -> Result<Payload, Ended> {
        let link = &self.thread.globals.link;
        link.set_state(LinkState::Sync);
        let line = self.line()?;
        if line.starts_with('-') {
            return Err(Ended::Failed(format!("MASTER aborted replication with an error: {}", &line[1..])));
        }
        let length = line.strip_prefix('$').ok_or_else(|| {
            Ended::Failed(format!(
                "Bad protocol from MASTER, the first byte is not '$' (we received '{line}'), are you sure the host and \
                 port are right?"
            ))
        })?;
        let payload = match length.strip_prefix("EOF:") {
            Some(mark) if mark.len() == MARK_LEN => Payload::Marked(mark.as_bytes().to_vec()),
            Some(_) => return Err(Ended::Failed(format!("the mark of the snapshot is too short: {line}"))),
            None => Payload::Length(
                length.parse::<u64>().map_err(|_| Ended::Failed(format!("no length: {line}")))?,
            ),
        };
        link.change_figures(|figures| {
            (figures.sync_total_bytes, figures.sync_read_bytes) = (payload.total_bytes(), 0);
        });
        Ok(payload)
    }

    /// Receives the snapshot into a file, and returns that, with its length.
    pub(super) fn receive(&mut self, payload: Payload) -> Result<(PathBuf, u64), Ended> {
        let now_s = self.thread.clock.wall_ms() / 1000;
        let path = PathBuf::from(format!("temp-{now_s}.{}.rdb", std::process::id()));
        let outcome = self.receive_into(&path, payload);
        if outcome.is_err() {
            // It may not even have been made.
            let _ = SystemDisk.remove(&path);
        }
        Ok((path, outcome?))
    }

    fn receive_into(&mut self, path: &std::path::Path, payload: Payload) -> Result<u64, Ended> {
        let mut file = open_empty_on(&SystemDisk, path)?;
        let mut source = self.payload_source(payload);
        while let Some(len) = source.next_piece()? {
            append_all(&mut *file, &source.talk.buffer[..len])?;
            source.consume(len);
        }
        file.sync()?;
        Ok(source.taken_bytes)
    }

    /// The snapshot itself, to be read.
    pub(super) fn payload_source<'s>(&'s mut self, payload: Payload) -> PayloadSource<'s, 'a> {
        PayloadSource { talk: self, payload, taken_bytes: 0, has_ended: false, told_at_ms: 0 }
    }
}

/// How the end of a snapshot is told.
pub(super) enum Payload {
    /// It has so many bytes.
    Length(u64),
    /// These bytes follow it.
    Marked(Vec<u8>),
}

impl Payload {
    /// 0: it is not known.
    pub(super) fn total_bytes(&self) -> u64 {
        match self {
            Payload::Length(total) => *total,
            Payload::Marked(_) => 0,
        }
    }

    pub(super) fn log(&self, is_diskless: bool) {
        let to = if is_diskless { "to parser" } else { "to disk" };
        match self {
            Payload::Length(total) => {
                log::notice(format_args!("MASTER <-> REPLICA sync: receiving {total} bytes from master {to}"))
            }
            Payload::Marked(_) => log::notice(format_args!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {to}"
            )),
        }
    }
}

/// A snapshot that comes from the master.
pub(super) struct PayloadSource<'s, 'a> {
    talk: &'s mut Talk<'a>,
    payload: Payload,
    taken_bytes: u64,
    /// The mark was seen, or the last byte.
    has_ended: bool,
    /// When the master was told last that this server is there.
    told_at_ms: i64,
}

impl PayloadSource<'_, '_> {
    /// Waits until a piece of it is at the beginning of the buffer, and returns its length; `None`: that was all.
    fn next_piece(&mut self) -> Result<Option<usize>, Ended> {
        loop {
            let buffer = &self.talk.buffer;
            let len = match &self.payload {
                _ if self.has_ended => return Ok(None),
                Payload::Length(total) => {
                    let left = total - self.taken_bytes;
                    self.has_ended = left == 0;
                    left.min(buffer.len() as u64) as usize
                }
                Payload::Marked(mark) if buffer.ends_with(mark) && buffer.len() == MARK_LEN => {
                    self.has_ended = true;
                    self.talk.buffer.clear();
                    0
                }
                // What may be the beginning of the mark is looked at again.
                Payload::Marked(mark) => buffer.len() - len_of_begun(mark, buffer),
            };
            if len > 0 {
                return Ok(Some(len));
            }
            if !self.has_ended {
                self.talk.read_more()?;
            }
        }
    }

    /// So much of the piece is used.
    fn consume(&mut self, len: usize) {
        self.talk.buffer.drain(..len);
        self.taken_bytes += len as u64;
        let taken_bytes = self.taken_bytes;
        self.talk.thread.globals.link.change_figures(|figures| figures.sync_read_bytes = taken_bytes);
        let now_ms = self.talk.thread.clock.wall_ms();
        if now_ms - self.told_at_ms >= TELL_INTERVAL_MS {
            self.told_at_ms = now_ms;
            // A master takes one that is silent for long for dead.
            self.talk.socket.try_send(b"\n");
        }
    }
}

impl Read for PayloadSource<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.next_piece().map_err(|ended| match ended {
            Ended::Failed(why) | Ended::Hopeless(why) => io::Error::other(why),
            Ended::Ordered | Ended::Again | Ended::Rejected => io::ErrorKind::ConnectionAborted.into(),
        })?;
        let len = piece.unwrap_or(0).min(buf.len());
        buf[..len].copy_from_slice(&self.talk.buffer[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// How many bytes at the end of `bytes` are the beginning of the mark.
fn len_of_begun(mark: &[u8], bytes: &[u8]) -> usize {
    (1..=mark.len()).rev().find(|&len| bytes.ends_with(&mark[..len])).unwrap_or(0)
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::len_of_begun;

    #[test]
    fn only_what_may_be_the_beginning_of_the_mark_is_kept_back() {
        let cases: [(&[u8], usize); 7] =
            [(b"", 0), (b"xyz", 0), (b"xa", 1), (b"xab", 2), (b"aba", 3), (b"abab", 4), (b"ababx", 0)];
        for (bytes, kept) in cases {
            assert_eq!(len_of_begun(b"abab", bytes), kept, "{}", bytes.escape_ascii());
        }
    }
}
