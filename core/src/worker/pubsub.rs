//! Publish and subscribe at a worker: its clients' subscriptions, and the delivery of messages to them. How messages are
//! ordered is described in [`crate::pubsub`].

use super::Worker;
use super::connection::Connection;
use crate::protocol::Reply;
use crate::pubsub::{Confirmation, Delivery, Kind, Published};
use crate::shard::message::Message;
use std::sync::Arc;

/// A subscription that has been removed: the kind and the name, and the version since which it was there.
pub type Ended = (Kind, Arc<[u8]>, u64);

// Subscriptions.
impl Worker {
    /// Before clients subscribe: what was published on this shard is delivered. Returns the position from which on they are
    /// subscribers.
    pub fn position_to_subscribe(&mut self) -> u64 {
        self.spread_published();
        self.globals.directory.position(self.shard.index)
    }

    /// A connection's client subscribes, from a position on.
    pub fn subscribe(&mut self, at: usize, kind: Kind, name: &[u8], position: u64) {
        let connection = self.connections[at].as_deref_mut().expect("its request is being executed");
        let client = &mut connection.client;
        let subscriptions = client.subscriptions.get_or_insert_default();
        if subscriptions.has(kind, name) {
            return;
        }
        let name: Arc<[u8]> = name.into();
        let since_version = self.globals.directory.add(kind, &name, self.shard.index);
        self.subscribers.add(kind, &name, (at as u32, client.id), since_version, position);
        subscriptions.add(kind, name, since_version);
    }

    /// A connection's client unsubscribes, if it had subscribed. What has counted it already still comes to it, until
    /// [`Worker::confirm`].
    pub fn unsubscribe(&mut self, at: usize, kind: Kind, name: &[u8]) -> Option<Ended> {
        let connection = self.connections[at].as_deref_mut()?;
        let subscriptions = connection.client.subscriptions.as_deref_mut()?;
        let since_version = subscriptions.remove(kind, name)?;
        if subscriptions.is_empty() {
            connection.client.subscriptions = None;
        }
        let until_version = self.globals.directory.remove(kind, name, self.shard.index);
        self.subscribers.end(kind, name, at as u32, since_version, until_version);
        Some((kind, name.into(), since_version))
    }

    /// A connection's client watches all commands, from a position on.
    pub fn begin_monitor(&mut self, at: usize, position: u64) {
        let connection = self.connections[at].as_deref_mut().expect("its request is being executed");
        let since_version = self.globals.directory.add(Kind::Commands, b"", self.shard.index);
        let client = (at as u32, connection.client.id);
        self.subscribers.add(Kind::Commands, &Arc::default(), client, since_version, position);
        connection.client.monitors_since = Some(since_version);
    }

    fn end_monitor(&mut self, at: usize) {
        let Some(connection) = self.connections[at].as_deref_mut() else { return };
        if let Some(since_version) = connection.client.monitors_since.take() {
            self.globals.directory.remove(Kind::Commands, b"", self.shard.index);
            self.subscribers.remove(Kind::Commands, b"", at as u32, since_version);
        }
    }

    /// A connection's client listens to nothing any more, and watches no commands.
    pub fn unsubscribe_all(&mut self, at: usize) {
        self.end_monitor(at);
        for kind in [Kind::Channel, Kind::Pattern, Kind::ShardChannel] {
            for name in self.subscribed_names(at, kind) {
                let ended = self.unsubscribe(at, kind, &name);
                self.end_subscriptions(at, ended.as_slice());
            }
        }
    }

    /// What a connection's client listens to.
    pub fn subscribed_names(&self, at: usize, kind: Kind) -> Vec<Arc<[u8]>> {
        let client = self.connections[at].as_deref().map(|connection| &connection.client);
        let subscriptions = client.and_then(|client| client.subscriptions.as_deref());
        subscriptions.map_or(Vec::new(), |subscriptions| subscriptions.names(kind).cloned().collect())
    }

    fn end_subscriptions(&mut self, at: usize, ended: &[Ended]) {
        for (kind, name, since_version) in ended {
            self.subscribers.remove(*kind, name, at as u32, *since_version);
        }
    }

    /// Confirms what a connection's client has asked for, when it has got all messages before `position`: as the reply to its
    /// request, which it gets also after CLIENT REPLY OFF. In an EXEC that does not wait.
    pub fn confirm(
        &mut self,
        at: usize,
        (position, ends): (u64, Vec<Ended>),
        text: Vec<u8>,
        in_exec: bool,
        reply: &mut Reply<'_>,
    ) {
        let waits = !in_exec && !self.subscribers.has_reached(position);
        let connection = self.connections[at].as_deref_mut().expect("its request is being executed");
        if waits {
            let id = connection.await_cut_reply(at);
            self.subscribers.confirm_later(Confirmation { position, id, text, ends, at: at as u32 });
            return;
        }
        if in_exec || connection.takes_reply() {
            reply.raw(&text);
        } else {
            connection.push_message(&text);
            self.mark_dirty(at);
        }
        self.end_subscriptions(at, &ends);
    }
}

// Messages.
impl Worker {
    /// Sends what this shard has published to the shards of its subscribers, and delivers what is for its own.
    #[inline]
    pub(super) fn spread_published(&mut self) {
        if self.shard.has_published() {
            self.spread_ready();
        }
    }

    /// After a command of a client: delivers what it has published to itself, which comes before the reply.
    #[inline]
    pub(super) fn spread_to_caller(&mut self, at: usize) {
        if self.shard.has_published()
            && self.connections[at].as_deref().is_some_and(|caller| caller.client.subscriptions.is_some())
        {
            self.spread_ready();
        }
    }

    #[cold]
    fn spread_ready(&mut self) {
        let mut by_shard: Vec<(usize, Vec<Delivery>)> = Vec::new();
        for (shard, delivery) in self.shard.take_published() {
            if shard == self.shard.index {
                self.subscribers.receive(delivery);
                continue;
            }
            match by_shard.iter_mut().find(|(to, _)| *to == shard) {
                Some((_, deliveries)) => deliveries.push(delivery),
                None => by_shard.push((shard, vec![delivery])),
            }
        }
        for (shard, deliveries) in by_shard {
            self.send(shard, Message::Published(deliveries));
        }
        self.deliver_published();
    }

    /// Takes in what another shard has published.
    pub(super) fn receive_published(&mut self, deliveries: Vec<Delivery>) {
        deliveries.into_iter().for_each(|delivery| self.subscribers.receive(delivery));
        self.deliver_published();
    }

    /// Delivers what is next in order, as far as it has come.
    fn deliver_published(&mut self) {
        loop {
            while let Some(confirmation) = self.subscribers.next_confirmation() {
                self.end_subscriptions(confirmation.at as usize, &confirmation.ends);
                self.fulfil(confirmation.id, &confirmation.text);
            }
            let Some(messages) = self.subscribers.next_deliveries() else { return };
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let (run, after) = rest.split_at(self.subscribers.run_len(rest));
                self.deliver_run(run);
                rest = after;
            }
        }
    }

    fn deliver_run(&mut self, run: &[(u64, Arc<Published>)]) {
        let limit_bytes = match self.shard.config.client_output_buffer_limit.pubsub.hard_bytes {
            0 => u64::MAX,
            hard_bytes => hard_bytes,
        };
        // The clients that read too slowly.
        let mut over_limit = Vec::new();
        let Worker { subscribers, connections, dirty, .. } = self;
        subscribers.each_hearer(run, |at, client, forms, first| {
            let connection = connections[at].as_deref_mut();
            let Some(connection) = connection.filter(|connection| connection.hears(client)) else { return };
            connection.push_message(forms.of(connection.client.resp, first));
            if connection.output_list_bytes() as u64 >= limit_bytes {
                over_limit.push(at);
            }
            if !std::mem::replace(&mut connection.is_dirty, true) {
                dirty.push(at as u32);
            }
        });
        for at in over_limit {
            self.check_output_limit(at);
        }
    }
}

impl Connection {
    /// Whether messages for this client are sent over it: not if that client has gone, or gets nothing more.
    fn hears(&self, client: crate::client::ClientId) -> bool {
        self.client.id == client && !self.close_after_reply && !self.peer.is_deaf
    }

    /// Sends a message that answers no request: at once, or behind the reply to an EXEC under way, by which the client may
    /// learn that it listens.
    pub(super) fn push_message(&mut self, message: &[u8]) {
        if self.client.executing.is_some() && !self.pending.is_empty() {
            self.queue_ready(message);
        } else {
            self.out.extend_from_slice(message);
        }
    }
}
