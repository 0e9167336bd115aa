//! The driver's events: a connection is opened, has sent bytes, has taken bytes, or has ended.

use super::connection::{Connection, StallReason};
use super::stream::pile_bytes_max;
use super::{IoRequest, Worker};
use crate::client::Client;
use crate::config::BufferLimit;
use crate::runtime::driver::{CloseReason, ConnId, Events, PeerAddr, local_addr};
use crate::runtime::tls::PeerCertificate;
use crate::shard::message::{Message, NewConnection};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

impl Events for Worker {
    fn accepted(&mut self, listener: usize, fd: OwnedFd, peer: PeerAddr) {
        self.begin_turn();
        let tls = self.tls_listeners.contains(&listener);
        let connected: u64 = self.connected_total();
        if connected >= u64::from(self.shard.config.maxclients) {
            // Before the handshake nothing can be said to a peer that speaks TLS.
            self.refuse(fd, if tls { b"" } else { b"-ERR max number of clients reached\r\n" });
            return;
        }
        let local = local_addr(&fd);
        let connection = NewConnection {
            addr: self.addr_text(peer),
            laddr: local.map_or(String::new(), |local| self.addr_text(local)),
            unix_socket: peer == PeerAddr::Unix,
            tls,
            is_denied: tls && self.is_protected_from(peer),
            is_server: false,
            fd,
        };
        if !tls && self.is_protected_from(peer) {
            self.refuse(connection.fd, PROTECTED_MODE_REFUSAL);
            return;
        }
        let shard = self.least_loaded_shard();
        self.assigned[shard] += 1;
        self.send(shard, Message::Adopt(Box::new(connection)));
        self.deliver_local();
    }

    fn accept_failed(&mut self, _listener: usize, error: io::Error) {
        // A server that ends, also one whose file cannot be loaded, closes its listeners.
        if !self.globals.is_stopping() {
            crate::runtime::log::warning(format_args!("Accepting client connection: {error}"));
        }
    }

    fn identified(&mut self, conn: ConnId, certificate: PeerCertificate) {
        if self.is_current(conn) {
            let connection = self.connections[conn.index()].as_deref_mut().expect("it is current");
            connection.certificate = Some(certificate);
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        self.begin_turn();
        if self.is_current(conn) {
            self.take_input(conn.index(), bytes);
        }
    }

    fn received_many(&mut self, inputs: &[(ConnId, &[u8])]) {
        self.begin_turn();
        let mut left = inputs;
        while !left.is_empty() {
            left = &left[self.take_inputs(left)..];
        }
    }

    fn filled(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.begin_turn();
        if !self.is_current(conn) {
            return;
        }
        let at = conn.index();
        let connection = self.connections[at].as_deref_mut().expect("it is current");
        let received = connection.fill_to_bytes.min(buf.len());
        connection.client.active_at_ms = self.shard.now_ms;
        self.shard.stats.input_bytes.add(received as u64);
        debug_assert!(connection.query.is_empty());
        connection.query = buf;
        connection.in_driver_bytes = 0;
        if connection.stall == Some(StallReason::Filling) {
            self.release_stall(at);
        }
    }

    fn sent(&mut self, conn: ConnId, buf: Vec<u8>) {
        self.begin_turn();
        if !self.is_current(conn) {
            return;
        }
        let at = conn.index();
        let connection = self.connections[at].as_deref_mut().expect("it is current");
        connection.client.output_total_bytes += connection.sending_bytes as u64;
        self.shard.stats.output_bytes.add(connection.sending_bytes as u64);
        if connection.client.is_replica() {
            self.shard.stats.repl_output_bytes.add(connection.sending_bytes as u64);
        }
        (connection.sending_bytes, connection.sending_capacity) = (0, 0);
        connection.earlier_output_bytes = connection.earlier_output_bytes.min(connection.output_len_bytes());
        if !connection.out.is_empty() {
            self.mark_dirty(at);
        } else if connection.close_after_reply && connection.pending.is_empty() {
            self.close_now(at);
        }
        self.note_sent_buffer(at, buf.capacity());
        self.release_output_stall(at);
        self.pools.give_buffer(buf);
        self.client_memory.touch(at);
    }

    fn input_ended(&mut self, conn: ConnId, reason: CloseReason) {
        self.peer_ended(conn, format_args!("{reason}"), |connection| {
            connection.peer.has_ended_input = true;
            if reason != CloseReason::Eof {
                connection.drop_output();
            }
        });
    }

    fn send_failed(&mut self, conn: ConnId, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        self.peer_ended(conn, format_args!("Error writing to client: {error}"), Connection::drop_output);
    }

    fn bell(&mut self) {}
}

const PROTECTED_MODE_REFUSAL: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is \
enabled and no password is set for the default user. In this mode connections are only accepted from the \
loopback interface. If you want to connect from external computers to Redis you may adopt one of the following \
solutions: 1) Just disable protected mode sending the command 'CONFIG SET protected-mode no' from the loopback \
interface by connecting to Redis from the same host the server is running, however MAKE SURE Redis is not \
publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. 2) \
Alternatively you can just disable the protected mode by editing the Redis configuration file, and setting the \
protected mode option to 'no', and then restarting the server. 3) If you started the server manually just for \
testing, restart it with the '--protected-mode no' option. 4) Setup a an authentication password for the default \
user. NOTE: You only need to do one of the above things in order for the server to start accepting connections \
from the outside.\r\n";

/// Output of at least this length, or that has been deferred for this long, is sent even if more replies are pending.
const DEFERRED_BYTES_MAX: usize = 32 << 10;
const DEFERRED_NANOS_MAX: u64 = 1_000_000;

impl Worker {
    /// Whether the connection is still open, and its index was not given to another one.
    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        let slot = self.connections.get(conn.index()).and_then(|slot| slot.as_deref());
        slot.is_some_and(|connection| connection.conn == conn)
    }

    /// A new connection of this shard, which its driver identifies as `conn`.
    pub fn connected(&mut self, conn: ConnId, fd: i32, new: NewConnectionInfo) {
        let at = conn.index();
        if self.connections.len() <= at {
            self.connections.resize_with(at + 1, || None);
        }
        if new.is_server {
            let mut connection = Box::new(Connection::new(conn, Client::of_server(self.shard.now_ms)));
            // Nobody reads its replies.
            connection.drop_output();
            self.connections[at] = Some(connection);
            self.feed_connected(at);
            return;
        }
        self.follow_users();
        let mut client = Client::new(self.globals.next_client_id(), self.shard.now_ms, false);
        client.log_out(Arc::clone(self.users.default_user()));
        client.set_peer(new.addr, new.unix_socket);
        client.laddr = new.laddr;
        client.fd = fd;
        client.tls = new.tls;
        self.by_client.insert(client.id, at as u32);
        self.globals.client_addrs.add(&client, self.shard.index);
        self.connections[at] = Some(Box::new(Connection::new(conn, client)));
        self.shard.stats.connections_received.add(1);
        self.shard.stats.clients.add(1);
        self.tell_client_event(at, true);
        if new.is_denied {
            self.shard.stats.rejected_connections.add(1);
            let connection = self.connections[at].as_deref_mut().expect("it was put there");
            connection.out.extend_from_slice(PROTECTED_MODE_REFUSAL);
            self.close_after_reply(at);
        }
    }

    /// Closes a connection at once. Replies that are still pending are dropped when they come.
    pub fn close_now(&mut self, at: usize) {
        self.uncount_client(at);
        self.unwatch_all(at);
        self.unsubscribe_all(at);
        self.drop_tracking(at);
        self.tell_client_event(at, false);
        self.tell_user_change(at);
        let Some(connection) = self.connections[at].take() else { return };
        self.by_client.remove(&connection.client.id);
        if connection.client.has_named_user() {
            self.forget_named(connection.client.id);
        }
        self.requests.push(IoRequest::Close(connection.conn));
        self.end_wait(at);
        if connection.is_paused() {
            self.paused.retain(|&other| other as usize != at);
        }
        if connection.client.is_server {
            return;
        }
        self.globals.client_addrs.remove(connection.client.id);
        self.shard.stats.connections_closed.add(1);
        self.shard.stats.clients.set(self.shard.stats.clients.get() - 1);
        if connection.client.is_replica() {
            self.end_reader(at, connection.client.id);
        }
    }

    /// Logs that a connection's peer has ended it in a direction, which `record` notes in the connection.
    fn peer_ended(
        &mut self,
        conn: ConnId,
        what: std::fmt::Arguments<'_>,
        record: impl FnOnce(&mut Connection),
    ) {
        self.begin_turn();
        if !self.is_current(conn) {
            return;
        }
        let at = conn.index();
        let connection = self.connections[at].as_deref_mut().expect("it is current");
        crate::runtime::log::verbose(format_args!(
            "{what} id={} addr={}",
            connection.client.id, connection.client.addr
        ));
        record(connection);
        self.end_of_peer(at);
    }

    /// The peer of a connection has ended its input, or takes no more output. Requests that it sent before are still
    /// executed, as Redis would have executed them before it noticed the end, and replies are sent as long as the peer
    /// takes them.
    fn end_of_peer(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if connection.client.is_replica() || connection.close_after_reply && connection.peer.is_deaf {
            self.close_now(at);
            return;
        }
        if connection.stall == Some(StallReason::Filling) {
            // No more bytes of the big argument will come, so there is nothing to wait for.
            connection.stall = None;
        }
        self.release_output_stall(at);
        self.runnable.push(at as u32);
    }

    /// Closes a connection whose peer has ended it, as soon as none of its requests is stalled any more.
    pub(super) fn end_if_done(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref() else { return };
        // A stall may begin and end while its request is executed: the token was free. Then the rest is executed next.
        if !connection.peer.has_ended() || self.runnable.contains(&(at as u32)) {
            return;
        }
        let is_deaf = connection.peer.is_deaf;
        match connection.stall {
            // A blocked client whose peer has ended the connection gets nothing, unless it is being served already.
            Some(StallReason::Blocked) => match self.wait_of(at) {
                Some((_, true)) => {}
                Some((wait, false)) if !is_deaf => {
                    self.close_after_reply(at);
                    self.fulfil(wait.reply_id, b"");
                }
                Some((_, false)) | None => self.close_now(at),
            },
            None if connection.peer.has_ended_input && is_deaf => self.close_now(at),
            None if connection.peer.has_ended_input => self.close_after_reply(at),
            _ => {}
        }
    }

    /// Closes a connection when all its replies have been sent.
    pub fn close_after_reply(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        connection.close_after_reply = true;
        connection.query = Vec::new();
        self.mark_dirty(at);
    }

    /// Sends the output of all connections that have some, by one send each, and enforces the output buffer limits.
    pub(super) fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.append(&mut self.deferred);
        self.release_held(&mut dirty);
        let holds = self.outlet.holds_now();
        let clock = self.time.clock;
        let mut now_nanos = None;
        for &at in &dirty {
            let at = at as usize;
            self.client_memory.touch(at);
            // First, because a client that is over its limit gets nothing at all.
            if self.check_output_limit(at) {
                continue;
            }
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            connection.is_dirty = false;
            if connection.peer.is_deaf {
                connection.out.clear();
                if connection.close_after_reply && connection.pending.is_empty() {
                    self.close_now(at);
                }
                continue;
            }
            // Replies from other shards are pending: if they come soon, one send is enough for all of them. For a short
            // pipeline, a send costs more than everything else.
            if !connection.pending.is_empty()
                && connection.out.len() < DEFERRED_BYTES_MAX
                && !connection.is_blocked()
            {
                let now_nanos = *now_nanos.get_or_insert_with(|| clock.ticks_to_nanos(clock.ticks()));
                let until_nanos =
                    *connection.deferred_until_nanos.get_or_insert(now_nanos + DEFERRED_NANOS_MAX);
                if now_nanos < until_nanos {
                    connection.is_dirty = true;
                    self.deferred.push(at as u32);
                    continue;
                }
            }
            connection.deferred_until_nanos = None;
            if connection.sending_bytes > 0 || connection.open_user_changes > 0 {
                continue;
            }
            if connection.out.is_empty() {
                if connection.close_after_reply && connection.pending.is_empty() {
                    self.close_now(at);
                }
                continue;
            }
            let out = match holds {
                false => std::mem::take(&mut connection.out),
                true => match self.take_safe_output(at) {
                    Some(out) => out,
                    None => continue,
                },
            };
            let Some(connection) = self.connections[at].as_deref_mut() else { continue };
            if let Some(meter) = &mut connection.wait_meter
                && connection.pending.is_empty()
                && connection.query.is_empty()
                && connection.out.is_empty()
            {
                meter.end(clock.ticks());
            }
            (connection.sending_bytes, connection.sending_capacity) = (out.len(), out.capacity());
            connection.reply_peak_bytes = connection.reply_peak_bytes.max(connection.sending_bytes);
            self.shard.stats.writes_processed.add(1);
            self.requests.push(IoRequest::Send(connection.conn, out));
        }
        self.await_safety();
        dirty.clear();
        debug_assert!(self.dirty.is_empty());
        self.dirty = dirty;
    }

    /// Closes a client whose unsent replies exceed the limits of its class. Returns whether it is closed.
    pub(super) fn check_output_limit(&mut self, at: usize) -> bool {
        let limits = &self.shard.config.client_output_buffer_limit;
        let now_ms = self.shard.now_ms;
        let Some(connection) = self.connections[at].as_deref_mut() else { return true };
        if connection.peer.is_deaf {
            // Its requests still run, but their replies are dropped.
            connection.out.clear();
            return false;
        }
        let mut limit = if connection.client.subscriptions.is_some() { limits.pubsub } else { limits.normal };
        if connection.client.is_replica() {
            limit = BufferLimit { hard_bytes: pile_bytes_max(&self.shard.config), ..limits.replica };
        }
        let len_bytes = match connection.client.replica.as_deref().filter(|_| connection.client.is_replica())
        {
            Some(replica) => connection.output_len_bytes() as u64 + replica.behind_bytes,
            None => connection.output_list_bytes() as u64,
        };
        self.shard.stats.client_output_max_bytes.max(len_bytes);
        let over_hard = limit.hard_bytes != 0 && len_bytes >= limit.hard_bytes;
        let over_soft = limit.soft_bytes != 0 && len_bytes >= limit.soft_bytes;
        let mut over = over_hard;
        if over_soft {
            let since_ms = *connection.over_soft_limit_since_ms.get_or_insert(now_ms);
            over |= now_ms - since_ms > limit.soft_seconds as i64 * 1000;
        } else {
            connection.over_soft_limit_since_ms = None;
        }
        if over {
            crate::runtime::log::warning(format_args!(
                "Client id={} addr={} closed for overcoming of output buffer limits.",
                connection.client.id, connection.client.addr
            ));
            self.shard.stats.client_output_limit_disconnections.add(1);
            self.close_now(at);
        }
        over
    }

    fn connected_total(&self) -> u64 {
        (0..self.assigned.len()).map(|shard| self.connected_to(shard)).sum()
    }

    /// How many connections a shard has, including those that were assigned to it and have not arrived yet.
    fn connected_to(&self, shard: usize) -> u64 {
        self.assigned[shard].saturating_sub(self.globals.stats[shard].connections_closed.get())
    }

    fn least_loaded_shard(&self) -> usize {
        let shards = 0..self.assigned.len();
        shards.min_by_key(|&shard| self.connected_to(shard)).expect("there is a shard")
    }

    fn is_protected_from(&self, peer: PeerAddr) -> bool {
        let config = &self.shard.config;
        let remote = match peer {
            PeerAddr::Unix => false,
            PeerAddr::Tcp(addr) => !addr.ip().to_canonical().is_loopback(),
        };
        remote && config.protected_mode && self.users.default_user().needs_no_password()
    }

    /// Best effort: the write may fail.
    fn refuse(&mut self, fd: OwnedFd, reply: &[u8]) {
        self.shard.stats.rejected_connections.add(1);
        crate::runtime::listener::send_and_drop(fd, reply);
    }

    /// `ip:port`, `[ip6]:port`, or `path:0` for a unix socket.
    fn addr_text(&self, peer: PeerAddr) -> String {
        match peer {
            PeerAddr::Unix => format!("{}:0", self.shard.config.unixsocket),
            PeerAddr::Tcp(addr) => {
                let ip = addr.ip().to_canonical();
                if ip.is_ipv6() { format!("[{ip}]:{}", addr.port()) } else { format!("{ip}:{}", addr.port()) }
            }
        }
    }
}

/// What is known of a connection when it is accepted.
pub struct NewConnectionInfo {
    pub addr: String,
    pub laddr: String,
    pub unix_socket: bool,
    pub tls: bool,
    /// Protected mode refuses it.
    pub is_denied: bool,
    /// It is the server's own: see `feed`.
    pub is_server: bool,
}

impl NewConnectionInfo {
    /// Splits off the socket, for the driver.
    pub fn split(new: NewConnection) -> (OwnedFd, i32, NewConnectionInfo) {
        let fd = new.fd.as_raw_fd();
        let NewConnection { fd: socket, addr, laddr, unix_socket, tls, is_denied, is_server } = new;
        (socket, fd, NewConnectionInfo { addr, laddr, unix_socket, tls, is_denied, is_server })
    }
}
