//! What a replica and its master say to each other before the stream begins, and the snapshot.

use super::{Ended, LinkState, LinkThread, Master};
use crate::persist::aof::rewrite::write_request;
use crate::runtime::disk::{Disk, SystemDisk, append_all, open_empty_on};
use crate::runtime::log;
use crate::runtime::outgoing::Outgoing;
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

impl Talk<'_> {
    pub(super) fn connect<'a>(thread: &'a LinkThread, master: &Master) -> Result<Talk<'a>, Ended> {
        let (_, config) = thread.globals.config();
        let link = &thread.globals.link;
        if config.tls_replication {
            return Err(Ended::Hopeless("this version does not speak TLS to a master".to_owned()));
        }
        log::notice(format_args!("Connecting to MASTER {}:{}", master.host, master.port));
        log::notice(format_args!("MASTER <-> REPLICA sync started"));
        link.set_state(LinkState::Connecting);
        let timeout = Duration::from_secs(u64::from(config.repl_timeout_s));
        let socket = Arc::new(Outgoing::connect(&master.host, master.port, timeout)?);
        socket.set_read_timeout(LOOK_INTERVAL)?;
        link.set_socket(Some(Arc::clone(&socket)));
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
                Ok(0) => return Err(Ended::Failed("the master has closed the connection".to_owned())),
                Ok(len) => {
                    self.buffer.truncate(start + len);
                    self.thread.note_input(len);
                    return Ok(());
                }
                Err(error) if is_timeout(&error) => {
                    if self.thread.clock.wall_ms() - began_ms > timeout_ms {
                        return Err(Ended::Failed("Timeout: nothing comes from the master".to_owned()));
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
        let reply = if stream.backlog.is_active() {
            log::notice(format_args!("Trying a partial resynchronization (request {}:{offset}).", ids.id));
            self.ask(&[b"PSYNC", ids.id.as_bytes(), offset.to_string().as_bytes()])?
        } else {
            log::notice(format_args!("Partial resynchronization not possible (no cached master)"));
            self.ask(&[b"PSYNC", b"?", b"-1"])?
        };
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

    /// Receives the snapshot into a file, and returns that, with its length.
    pub(super) fn receive(&mut self) -> Result<(PathBuf, u64), Ended> {
        let link = &self.thread.globals.link;
        link.set_state(LinkState::Sync);
        let line = self.line()?;
        let length = line.strip_prefix('$').ok_or_else(|| {
            Ended::Failed(format!(
                "Bad protocol from MASTER, the first byte is not '$' (we received '{line}')"
            ))
        })?;
        let mark = length.strip_prefix("EOF:").map(|mark| mark.as_bytes().to_vec());
        let total = match &mark {
            Some(mark) if mark.len() == MARK_LEN => None,
            Some(_) => return Err(Ended::Failed(format!("the mark of the snapshot is too short: {line}"))),
            None => Some(length.parse::<u64>().map_err(|_| Ended::Failed(format!("no length: {line}")))?),
        };
        match total {
            Some(total) => log::notice(format_args!(
                "MASTER <-> REPLICA sync: receiving {total} bytes from master to disk"
            )),
            None => log::notice(format_args!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to disk"
            )),
        }
        link.change_figures(|figures| {
            (figures.sync_total_bytes, figures.sync_read_bytes) = (total.unwrap_or(0), 0);
        });
        let now_s = self.thread.clock.wall_ms() / 1000;
        let path = PathBuf::from(format!("temp-{now_s}.{}.rdb", std::process::id()));
        let outcome = self.receive_into(&path, total, mark.as_deref());
        if outcome.is_err() {
            // It may not even have been made.
            let _ = SystemDisk.remove(&path);
        }
        Ok((path, outcome?))
    }

    fn receive_into(
        &mut self,
        path: &std::path::Path,
        total: Option<u64>,
        mark: Option<&[u8]>,
    ) -> Result<u64, Ended> {
        let mut file = open_empty_on(&SystemDisk, path)?;
        let mut written = 0;
        loop {
            let (take, is_last) = match (total, mark) {
                (Some(total), _) => {
                    let left = total - written;
                    let take = left.min(self.buffer.len() as u64) as usize;
                    (take, take as u64 == left)
                }
                (None, Some(mark)) if self.buffer.ends_with(mark) => (self.buffer.len() - MARK_LEN, true),
                // What may be the beginning of the mark is looked at again.
                (None, _) => (self.buffer.len().saturating_sub(MARK_LEN), false),
            };
            append_all(&mut *file, &self.buffer[..take])?;
            self.buffer.drain(..take);
            written += take as u64;
            self.thread.globals.link.change_figures(|figures| figures.sync_read_bytes = written);
            if is_last {
                if mark.is_some() {
                    self.buffer.clear();
                }
                file.sync()?;
                return Ok(written);
            }
            self.read_more()?;
        }
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
