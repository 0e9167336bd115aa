//! A shard serves its replicas: it takes what a replica is to get, first the snapshot and then the stream, and sends it piece
//! by piece, as the replica takes it.
//!
//! Only a bounded part of that is ever copied into the connection's output. The rest stands in the backlog, once for all
//! replicas; how much of it a replica still needs counts as its output, so that one that is too slow is disconnected.

use super::backlog::Backlog;
use super::payload::{Next, Payload};
use super::replicas::{ReplicaInfo, ReplicaLink, ReplicaState, SnapshotRequest};
use super::{STREAM_SHARD, Worker};
use crate::client::{ClientId, ReplicaPhase, ReplyMode};
use crate::runtime::{listener, log};
use crate::shard::message::{ReplyId, StreamMessage};
use crate::worker::link::LinkGlobals;
use crate::worker::persistence::snapshot_without_keys;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many bytes are copied into a replica's output at most, until it has taken some.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// A replica that waits for its snapshot gets a newline so often, or it would take the master for dead.
const NEWLINE_INTERVAL_MS: i64 = 1000;

/// How far a replica of this shard is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It waits for the barrier of its full synchronization.
    Waits,
    /// It gets the snapshot. `has_begun`: the line before it is in the output.
    Receives {
        has_begun: bool,
    },
    /// It has the snapshot, and begins to read the stream when it acknowledges that: until then it could not tell where the
    /// snapshot ends.
    HasSnapshot,
    Online,
    /// It wanted the snapshot alone.
    Done,
}

/// A replica that this shard serves.
pub(super) struct LocalReplica {
    pub(super) at: u32,
    client: ClientId,
    /// For the log.
    name: String,
    link: Arc<ReplicaLink>,
    phase: Phase,
    is_psync: bool,
    wants_stream: bool,
    /// It has sent an acknowledgement. One that does so before it has the snapshot finds its end by itself.
    has_acknowledged: bool,
    request: SnapshotRequest,
    /// The end of a snapshot whose length is not known beforehand.
    mark: Option<String>,
    /// It has the stream up to here, or will have it with what is in its output.
    cursor: u64,
    /// When something was last sent to it; unix time in milliseconds.
    fed_at_ms: i64,
}

/// What there was for a replica.
enum Fed {
    Some,
    Nothing,
    /// It cannot be served any more.
    Failed,
}

impl LocalReplica {
    /// Whether there may be something for it, of a stream that ends at `end`.
    fn may_be_fed(&self, end: u64) -> bool {
        match self.phase {
            Phase::Waits | Phase::HasSnapshot | Phase::Done => false,
            Phase::Receives { .. } => true,
            Phase::Online => self.cursor < end,
        }
    }

    /// Appends the next piece of its snapshot.
    fn feed_snapshot(&mut self, has_begun: bool, out: &mut Vec<u8>) -> Fed {
        let next = self.link.payload.next();
        if let Some(mark) = self.mark.as_ref().filter(|_| !has_begun)
            && matches!(next, Next::Chunk(_))
        {
            out.extend_from_slice(format!("$EOF:{mark}\r\n").as_bytes());
            self.phase = Phase::Receives { has_begun: true };
        }
        match next {
            Next::Length(len) => {
                // From a file: there is no mark.
                self.mark = None;
                out.extend_from_slice(format!("${len}\r\n").as_bytes());
            }
            Next::Chunk(chunk) => out.extend_from_slice(&chunk),
            Next::Nothing => return Fed::Nothing,
            Next::Failed => return Fed::Failed,
            Next::Complete => {
                if let Some(mark) = &self.mark {
                    out.extend_from_slice(mark.as_bytes());
                }
                self.phase = match (self.wants_stream, self.mark.is_some() && !self.has_acknowledged) {
                    (false, _) => Phase::Done,
                    (true, true) => Phase::HasSnapshot,
                    (true, false) => Phase::Online,
                };
            }
        }
        Fed::Some
    }

    /// Appends the next piece of the stream.
    fn feed_stream(&mut self, backlog: &Backlog, end: u64, room: usize, out: &mut Vec<u8>) -> Fed {
        match backlog.read(self.cursor, end, room, out) {
            None => Fed::Failed,
            Some(cursor) if cursor == self.cursor => Fed::Nothing,
            Some(cursor) => {
                self.cursor = cursor;
                Fed::Some
            }
        }
    }
}

/// A replica that has asked this server to become a master, and goes on with its stream then.
pub(in crate::worker) struct AwaitingPromotion {
    reply_id: ReplyId,
    replication_id: Vec<u8>,
    offset: i64,
}

impl Worker {
    /// PSYNC FAILOVER: this server becomes a master, and the client its replica, which has so much of the stream.
    pub fn promote_for(&mut self, at: usize, replication_id: &[u8], offset: i64) {
        let reply_id = self.reply_later(at);
        let replication_id = replication_id.to_vec();
        self.awaiting_promotion.push(AwaitingPromotion { reply_id, replication_id, offset });
        LinkGlobals::remember(self.globals, None);
        LinkGlobals::order(self.globals, self.time.clock, None, None);
    }

    /// Each turn: whether this server has become the master for which replicas wait.
    #[inline]
    pub(in crate::worker) fn watch_promotion(&mut self) {
        if self.awaiting_promotion.is_empty() || self.globals.link.is_replica() {
            return;
        }
        for awaiting in std::mem::take(&mut self.awaiting_promotion) {
            let AwaitingPromotion { reply_id, replication_id, offset } = awaiting;
            if let Some(at) = self.connection_of(reply_id) {
                self.fulfil(reply_id, b"");
                self.add_replica(at, Some((&replication_id, offset)));
            }
        }
    }

    /// SYNC, or PSYNC with what the client says that it has: the name of the history, and the offset of the next byte that it
    /// wants, from 1 on.
    pub fn add_replica(&mut self, at: usize, has: Option<(&[u8], i64)>) {
        let now_ms = self.shard.now_ms;
        let globals = self.globals;
        let connection = self.connections[at].as_deref_mut().expect("it has asked");
        let client = &mut connection.client;
        // A reply would appear in the midst of the stream.
        client.reply_mode = ReplyMode::Off;
        if self.shard.config.repl_disable_tcp_nodelay {
            listener::disable_nodelay(client.fd);
        }
        let id = client.id;
        let session = client.replica.get_or_insert_default();
        session.phase = ReplicaPhase::Asked;
        let ip = match &session.ip[..] {
            b"" => client.addr.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']'])).into(),
            ip => ip.to_vec(),
        };
        let (port, wants_stream) = (session.listening_port, !session.rdb_only);
        let request = SnapshotRequest {
            keys: !session.filters_keys,
            functions: !session.filters_functions,
            takes_mark: session.takes_mark,
        };
        let takes_new_id = session.takes_new_id;
        let name = format!("{}:{port}", String::from_utf8_lossy(&ip));
        let link = Arc::new(ReplicaLink {
            cursor: AtomicU64::new(u64::MAX),
            sync_number: AtomicU64::new(0),
            payload: Arc::new(Payload::new(globals.aof.bell(self.shard.index))),
        });
        let mut local = LocalReplica {
            at: at as u32,
            client: id,
            name,
            link: Arc::clone(&link),
            phase: Phase::Waits,
            is_psync: has.is_some(),
            wants_stream,
            has_acknowledged: false,
            request,
            mark: request.takes_mark.then(|| globals.stream.new_name(now_ms)),
            cursor: u64::MAX,
            fed_at_ms: now_ms,
        };
        let wanted = has.and_then(|(_, offset)| u64::try_from(offset).ok()?.checked_sub(1));
        // What it wants is kept from here on, if it is there.
        link.cursor.store(wanted.unwrap_or(u64::MAX), Ordering::SeqCst);
        globals.stream.add_replica(ReplicaInfo {
            client: id,
            home: self.shard.index,
            ip,
            port,
            state: ReplicaState::Online,
            ack_offset: 0,
            ack_at_ms: now_ms,
            asked_at_ms: now_ms,
            request,
            link,
        });
        if let Some((replication_id, offset)) = has
            && let Some(cursor) = wanted.filter(|_| self.can_continue(&local.name, replication_id, offset))
        {
            self.shard.stats.sync_partial_ok.add(1);
            (local.phase, local.cursor) = (Phase::Online, cursor);
            let line = match takes_new_id {
                true => format!("+CONTINUE {}\r\n", globals.stream.ids().id),
                false => "+CONTINUE\r\n".to_owned(),
            };
            let missing = globals.stream.backlog.end().saturating_sub(cursor);
            log::notice(format_args!(
                "Partial resynchronization request from {} accepted. Sending {missing} bytes of backlog starting \
                 from offset {offset}.",
                local.name
            ));
            let connection = self.connections[at].as_deref_mut().expect("as above");
            connection.out.extend_from_slice(line.as_bytes());
            connection.client.replica.get_or_insert_default().phase = ReplicaPhase::Reading;
            self.stream.replicas.push(local);
            self.mark_dirty(at);
            self.tell(STREAM_SHARD, StreamMessage::Online);
            self.tell_replica(true);
            return;
        }
        local.link.cursor.store(u64::MAX, Ordering::SeqCst);
        if has.is_some_and(|(replication_id, _)| replication_id != b"?") {
            self.shard.stats.sync_partial_err.add(1);
        }
        self.shard.stats.sync_full.add(1);
        log::notice(format_args!("Replica {} asks for synchronization", local.name));
        self.stream.replicas.push(local);
        globals.stream.change_replica(id, |replica| replica.state = ReplicaState::Waits);
        self.tell(STREAM_SHARD, StreamMessage::Asked);
    }

    /// Whether the stream can be read on from there. If not, the log says why.
    fn can_continue(&self, name: &str, replication_id: &[u8], offset: i64) -> bool {
        if replication_id == b"?" {
            log::notice(format_args!("Full resync requested by replica {name}"));
            return false;
        }
        let stream = &self.globals.stream;
        let ids = stream.ids();
        let is_second = replication_id.eq_ignore_ascii_case(ids.id2.as_bytes());
        let is_known = replication_id.eq_ignore_ascii_case(ids.id.as_bytes())
            || is_second && offset <= ids.second_offset;
        if !is_known {
            let asked = replication_id.escape_ascii();
            match is_second {
                true => log::notice(format_args!(
                    "Partial resynchronization not accepted: Requested offset for second ID was {offset}, but I can \
                     reply up to {}",
                    ids.second_offset
                )),
                false => log::notice(format_args!(
                    "Partial resynchronization not accepted: Replication ID mismatch (Replica asked for '{asked}', my \
                     replication IDs are '{}' and '{}')",
                    ids.id, ids.id2
                )),
            }
            return false;
        }
        let is_there = u64::try_from(offset - 1).is_ok_and(|offset| stream.backlog.has(offset));
        if !is_there {
            log::notice(format_args!(
                "Unable to partial resync with replica {name} for lack of backlog (Replica request was: {offset})."
            ));
        }
        is_there
    }

    /// A full synchronization has begun, at this offset of the stream.
    pub(super) fn begin_receiving(&mut self, number: u64, offset: u64) {
        let id = self.globals.stream.ids().id;
        for n in 0..self.stream.replicas.len() {
            let local = &mut self.stream.replicas[n];
            if local.phase != Phase::Waits || local.link.sync_number.load(Ordering::SeqCst) != number {
                continue;
            }
            (local.phase, local.cursor) = (Phase::Receives { has_begun: false }, offset);
            local.fed_at_ms = self.shard.now_ms;
            let (at, request) = (local.at as usize, local.request);
            let connection =
                self.connections[at].as_deref_mut().expect("a replica that leaves is removed from the list");
            connection.client.replica.get_or_insert_default().phase = ReplicaPhase::Reading;
            if local.is_psync {
                connection.out.extend_from_slice(format!("+FULLRESYNC {id} {offset}\r\n").as_bytes());
            }
            if !request.keys {
                let compresses = self.shard.config.rdbcompression;
                let snapshot = snapshot_without_keys(
                    self.globals,
                    compresses,
                    self.shard.now_ms,
                    false,
                    request.functions,
                );
                local.link.payload.give_whole(snapshot);
            }
            self.mark_dirty(at);
        }
    }

    /// Sends the replicas of this shard what there is for them.
    #[cold]
    pub(super) fn serve_replicas(&mut self) {
        let end = self.globals.stream.backlog.end();
        // What is read there may show what other shards have done.
        self.take_ticket_of(STREAM_SHARD);
        let mut n = 0;
        while let Some(local) = self.stream.replicas.get(n) {
            let at = local.at as usize;
            let is_served = self.serve_replica(n, end);
            if !is_served {
                self.close_now(at);
            } else if !self.check_output_limit(at) {
                n += 1;
            }
        }
    }

    /// Returns false if the replica is to be disconnected.
    fn serve_replica(&mut self, n: usize, end: u64) -> bool {
        let local = &mut self.stream.replicas[n];
        let at = local.at as usize;
        let connection =
            self.connections[at].as_deref_mut().expect("a replica that leaves is removed from the list");
        // One that is closing after its last reply must not get more output, or it never closes.
        if connection.close_after_reply {
            return true;
        }
        if local.may_be_fed(end) {
            connection.make_output_room(&mut self.pools.buffers);
        }
        let len_before = connection.out.len();
        let mut was_receiving = matches!(local.phase, Phase::Receives { .. });
        let is_whole = loop {
            let room = OUTPUT_BYTES_MAX.saturating_sub(connection.out.len() + connection.sending_bytes);
            let fed = match local.phase {
                _ if room == 0 => Fed::Nothing,
                Phase::Waits | Phase::HasSnapshot | Phase::Done => Fed::Nothing,
                Phase::Receives { has_begun } => local.feed_snapshot(has_begun, &mut connection.out),
                Phase::Online => {
                    local.feed_stream(&self.globals.stream.backlog, end, room, &mut connection.out)
                }
            };
            match fed {
                Fed::Some => {}
                Fed::Nothing => break true,
                Fed::Failed => break false,
            }
        };
        if connection.out.len() > len_before {
            local.fed_at_ms = self.shard.now_ms;
        }
        if local.cursor != u64::MAX {
            let needed_from = if local.wants_stream { local.cursor } else { u64::MAX };
            local.link.cursor.store(needed_from, Ordering::Release);
            if let Some(session) = &mut connection.client.replica {
                session.behind_bytes = if local.wants_stream { end.saturating_sub(local.cursor) } else { 0 };
            }
        }
        was_receiving &= local.phase == Phase::Online;
        let (client, is_done) = (local.client, local.phase == Phase::Done);
        let has_output = !connection.out.is_empty();
        if was_receiving {
            self.come_online(n);
        }
        if is_done {
            log::notice(format_args!("RDB transfer to client id={client} has ended"));
            self.close_after_reply(at);
        } else if has_output {
            self.mark_dirty(at);
        }
        is_whole
    }

    /// A replica has its snapshot, and gets the stream from here on.
    fn come_online(&mut self, n: usize) {
        let now_ms = self.shard.now_ms;
        let local = &mut self.stream.replicas[n];
        local.phase = Phase::Online;
        log::notice(format_args!("Synchronization with replica {} succeeded", local.name));
        let (client, has_keys) = (local.client, local.request.keys);
        self.globals.stream.change_replica(client, |replica| {
            replica.state = ReplicaState::Online;
            replica.ack_at_ms = now_ms;
        });
        if has_keys {
            self.tell(STREAM_SHARD, StreamMessage::Online);
        }
        self.tell_replica(true);
    }

    /// A replica says that it has the stream up to an offset.
    pub fn acknowledge(&mut self, client: ClientId, offset: u64) {
        let now_ms = self.shard.now_ms;
        self.globals.stream.change_replica(client, |replica| {
            replica.ack_offset = replica.ack_offset.max(offset);
            replica.ack_at_ms = now_ms;
        });
        self.spread_acknowledgement();
        let Some(n) = self.stream.replicas.iter().position(|local| local.client == client) else { return };
        self.stream.replicas[n].has_acknowledged = true;
        if self.stream.replicas[n].phase == Phase::HasSnapshot {
            self.come_online(n);
        }
    }

    /// Removes a replica whose connection is closed.
    pub(in crate::worker) fn end_reader(&mut self, at: usize, client: ClientId) {
        if let Some(place) = self.stream.replicas.iter().position(|local| local.at as usize == at) {
            let local = self.stream.replicas.swap_remove(place);
            if local.wants_stream && local.phase != Phase::Waits {
                log::warning(format_args!("Connection with replica {} lost.", local.name));
            }
            self.globals.stream.forget_replica(client);
            self.cancel_useless_snapshot();
            self.tell(STREAM_SHARD, StreamMessage::Left);
            if local.phase == Phase::Online {
                self.tell_replica(false);
            }
        }
    }

    /// What the buffers of output take from which this shard's replicas are served.
    pub(in crate::worker) fn replica_output_bytes(&self) -> u64 {
        let of_replica = |local: &LocalReplica| {
            let connection = self.connections[local.at as usize].as_deref();
            connection.map_or(0, |connection| connection.output_capacity_bytes() as u64)
        };
        self.stream.replicas.iter().map(of_replica).sum()
    }

    /// The stream cannot be read on: disconnects the replicas of this shard that have begun to. Returns how many they were.
    pub fn cut_replicas(&mut self) -> u64 {
        let begun = self.stream.replicas.iter().filter(|local| local.phase != Phase::Waits);
        let begun: Vec<usize> = begun.map(|local| local.at as usize).collect();
        begun.iter().for_each(|&at| self.close_now(at));
        begun.len() as u64
    }

    /// At regular times: disconnects replicas that are not heard of any more, and keeps those waiting that wait.
    pub(super) fn check_replicas(&mut self) {
        if self.stream.replicas.is_empty() {
            return;
        }
        let now_ms = self.shard.now_ms;
        let timeout_ms = i64::from(self.shard.config.repl_timeout_s) * 1000;
        let replicas = self.globals.stream.replicas();
        let mut late = Vec::new();
        for local in &mut self.stream.replicas {
            let Some(info) = replicas.iter().find(|replica| replica.client == local.client) else { continue };
            let connection = self.connections[local.at as usize].as_deref();
            let since_ms = match local.phase {
                Phase::Online if local.is_psync => info.ack_at_ms,
                // One that has taken all that there was may have to wait for others.
                Phase::Receives { .. } if connection.is_some_and(|it| it.output_len_bytes() > 0) => {
                    local.fed_at_ms
                }
                // Meanwhile it loads the snapshot, and says that it is there.
                Phase::HasSnapshot => local.fed_at_ms.max(connection.map_or(0, |it| it.client.active_at_ms)),
                Phase::Receives { .. } | Phase::Waits | Phase::Online | Phase::Done => now_ms,
            };
            if now_ms - since_ms > timeout_ms {
                let what = if local.phase == Phase::Online { "streaming" } else { "full" };
                log::warning(format_args!("Disconnecting timedout replica ({what} sync): {}", local.name));
                late.push(local.at as usize);
            }
            let waits = match local.phase {
                Phase::Waits => true,
                Phase::Receives { has_begun: false } => local.mark.is_none(),
                _ => false,
            };
            if waits && now_ms - local.fed_at_ms >= NEWLINE_INTERVAL_MS {
                local.fed_at_ms = now_ms;
                if let Some(connection) = self.connections[local.at as usize].as_deref_mut()
                    && !connection.is_dirty
                {
                    connection.out.push(b'\n');
                    connection.is_dirty = true;
                    self.dirty.push(local.at);
                }
            }
        }
        late.into_iter().for_each(|at| self.close_now(at));
    }
}

/// What INFO shows of the replicas.
pub fn show(replicas: &[ReplicaInfo], now_ms: i64, each: &mut dyn FnMut(usize, &[u8])) {
    for (n, replica) in replicas.iter().enumerate() {
        let state = replica.state.name();
        let lag_s = replica.lag_s(now_ms);
        let mut rest = String::new();
        let _ =
            write!(rest, ",port={},state={state},offset={},lag={lag_s}", replica.port, replica.ack_offset);
        each(n, &[b"ip=", &replica.ip[..], rest.as_bytes()].concat());
    }
}
