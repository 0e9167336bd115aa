//! The subscribers among a shard's clients, and the deliveries to them in the order of their positions.

use super::directory::Kind;
use super::publisher::{Delivery, Published};
use crate::call::ClientId;
use crate::protocol::{Reply, Resp};
use crate::types::glob::glob_matches;
use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a client has subscribed to: by kind, the names, each with the version of the directory's part since which it is a
/// subscriber.
#[derive(Default, Debug)]
pub struct Subscriptions([BTreeMap<Arc<[u8]>, u64>; Kind::COUNT]);

impl Subscriptions {
    pub fn count(&self, kind: Kind) -> usize {
        self.0[kind as usize].len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeMap::is_empty)
    }

    pub fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.0[kind as usize].contains_key(name)
    }

    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &Arc<[u8]>> {
        self.0[kind as usize].keys()
    }

    pub fn add(&mut self, kind: Kind, name: Arc<[u8]>, since_version: u64) {
        self.0[kind as usize].insert(name, since_version);
    }

    /// Returns the version since which it was a subscriber; `None`: it was none.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> Option<u64> {
        self.0[kind as usize].remove(name)
    }

    /// About how much memory it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        const NODE_BYTES: usize = 64;
        let names = self.0.iter().flat_map(BTreeMap::keys);
        size_of::<Subscriptions>() + names.map(|name| name.len() + NODE_BYTES).sum::<usize>()
    }
}

/// A subscription of a client of this shard.
struct Subscriber {
    client: ClientId,
    /// What was published at earlier positions is not for it.
    since_position: u64,
    /// The version of the directory's part by which it was removed. It still gets what counted it.
    until_version: u64,
}

/// The subscribers of a name, by the index of the connection, and the version since which each of them is one: a client
/// that has unsubscribed may subscribe again before all is delivered that counted it.
type Entries = BTreeMap<(u32, u64), Subscriber>;

/// The reply to SUBSCRIBE or UNSUBSCRIBE that waits until what comes before it was delivered.
pub struct Confirmation<Id> {
    /// All deliveries before this position come first.
    pub position: u64,
    pub id: Id,
    pub text: Vec<u8>,
    /// What ends then: the kinds and names, and the version since which the client has been a subscriber.
    pub ends: Vec<(Kind, Arc<[u8]>, u64)>,
    /// The index of the client's connection.
    pub at: u32,
}

/// See the module's documentation. `Id` identifies a reply.
pub struct Subscribers<Id> {
    names: [BTreeMap<Arc<[u8]>, Entries>; Kind::COUNT],
    /// The position of the next delivery.
    next_position: u64,
    /// Deliveries that came before their turn.
    early: BTreeMap<u64, Vec<Arc<Published>>>,
    /// In the order of their positions.
    confirmations: VecDeque<Confirmation<Id>>,
}

/// Bytes of messages that a subscriber is handed at most before its output is looked at, but for a single message.
const RUN_LEN_BYTES: usize = 32 * 1024;

impl<Id> Default for Subscribers<Id> {
    fn default() -> Subscribers<Id> {
        Subscribers {
            names: Default::default(),
            next_position: 0,
            early: BTreeMap::new(),
            confirmations: VecDeque::new(),
        }
    }
}

impl<Id> Subscribers<Id> {
    /// Adds a subscription, which begins at a position and a version of the directory's part.
    pub fn add(
        &mut self,
        kind: Kind,
        name: &Arc<[u8]>,
        (at, client): (u32, ClientId),
        since_version: u64,
        since_position: u64,
    ) {
        let subscriber = Subscriber { client, since_position, until_version: u64::MAX };
        let entries = self.names[kind as usize].entry(Arc::clone(name)).or_default();
        entries.insert((at, since_version), subscriber);
    }

    /// A subscription ends with this version of the directory's part.
    pub fn end(&mut self, kind: Kind, name: &[u8], at: u32, since_version: u64, until_version: u64) {
        let entries = self.names[kind as usize].get_mut(name);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&(at, since_version))) {
            entry.until_version = until_version;
        }
    }

    /// Removes a subscription.
    pub fn remove(&mut self, kind: Kind, name: &[u8], at: u32, since_version: u64) {
        let names = &mut self.names[kind as usize];
        let Some(entries) = names.get_mut(name) else { return };
        entries.remove(&(at, since_version));
        if entries.is_empty() {
            names.remove(name);
        }
    }

    /// Whether everything before a position was delivered.
    #[inline]
    pub fn has_reached(&self, position: u64) -> bool {
        self.next_position >= position
    }

    /// Keeps a confirmation until its position is reached.
    pub fn confirm_later(&mut self, confirmation: Confirmation<Id>) {
        self.confirmations.push_back(confirmation);
    }

    /// Takes the next confirmation whose position is reached.
    pub fn next_confirmation(&mut self) -> Option<Confirmation<Id>> {
        let position = self.confirmations.front()?.position;
        if self.has_reached(position) { self.confirmations.pop_front() } else { None }
    }

    /// Takes in what is to be delivered when its turn has come.
    pub fn receive(&mut self, delivery: Delivery) {
        self.early.insert(delivery.position, delivery.messages);
    }

    /// Takes what is to be delivered now: the messages that have come, up to one that is missing or that comes after a
    /// confirmation, each with its position. `None`: it has not come.
    pub fn next_deliveries(&mut self) -> Option<Vec<(u64, Arc<Published>)>> {
        let first_position = self.next_position;
        let mut deliveries = Vec::new();
        let confirmed = self.confirmations.front().map_or(u64::MAX, |confirmation| confirmation.position);
        while self.next_position < confirmed {
            let entry = self.early.first_entry().filter(|entry| *entry.key() == self.next_position);
            let Some((position, messages)) = entry.map(OccupiedEntry::remove_entry) else { break };
            self.next_position += 1;
            deliveries.extend(messages.into_iter().map(|message| (position, message)));
        }
        (self.next_position > first_position).then_some(deliveries)
    }

    /// How many of the first messages each subscriber can be handed in one piece: those that are alike, up to
    /// [`RUN_LEN_BYTES`]. A single one where patterns match, as a client may be a subscriber by these as well.
    pub fn run_len(&self, messages: &[(u64, Arc<Published>)]) -> usize {
        let (_, first) = &messages[0];
        let mut patterns = self.names[Kind::Pattern as usize].keys();
        if first.kind == Kind::Channel && patterns.any(|pattern| glob_matches(pattern, &first.channel)) {
            return 1;
        }
        let mut len_bytes = 0;
        let is_in_run = |(_, message): &&(u64, Arc<Published>)| {
            len_bytes += message.channel.len() + message.payload.len();
            len_bytes <= RUN_LEN_BYTES && message.is_alike(first)
        };
        messages.iter().take_while(is_in_run).count().max(1)
    }

    /// Calls `deliver` for every subscription that gets messages of a run, with the index of the connection, the client,
    /// the run's forms, and the first message of the run that it gets. A client that has subscribed to the channel and to
    /// patterns gets them several times.
    pub fn each_hearer(
        &self,
        run: &[(u64, Arc<Published>)],
        mut deliver: impl FnMut(usize, ClientId, &mut Forms<'_>, usize),
    ) {
        let (first_position, message) = &run[0];
        let mut tell = |entries: &Entries, version: u64, pattern: Option<&[u8]>| {
            let mut forms = Forms { run, pattern, of_resp: [None, None] };
            for (&(at, since_version), subscriber) in entries {
                let was_counted = since_version <= version && version < subscriber.until_version;
                if !was_counted {
                    continue;
                }
                let first = if subscriber.since_position <= *first_position {
                    0
                } else {
                    run.partition_point(|(position, _)| *position < subscriber.since_position)
                };
                if first < run.len() {
                    deliver(at as usize, subscriber.client, &mut forms, first);
                }
            }
        };
        if let Some(entries) = self.names[message.kind as usize].get(&*message.channel) {
            tell(entries, message.channel_version, None);
        }
        if message.kind == Kind::Channel {
            for (pattern, entries) in &self.names[Kind::Pattern as usize] {
                if glob_matches(pattern, &message.channel) {
                    tell(entries, message.pattern_version, Some(pattern));
                }
            }
        }
    }
}

/// The messages of a run as clients get them, made once for each version of the protocol.
pub struct Forms<'a> {
    run: &'a [(u64, Arc<Published>)],
    /// The pattern that the channel matches.
    pattern: Option<&'a [u8]>,
    of_resp: [Option<Form>; 2],
}

struct Form {
    bytes: Vec<u8>,
    /// Where each message begins.
    starts: Vec<usize>,
}

impl Forms<'_> {
    /// The messages from `first` on, one behind the other.
    pub fn of(&mut self, resp: Resp, first: usize) -> &[u8] {
        let Forms { run, pattern, of_resp } = self;
        let form = &mut of_resp[usize::from(resp == Resp::V3)];
        let form = form.get_or_insert_with(|| {
            let mut form = Form { bytes: Vec::new(), starts: Vec::with_capacity(run.len()) };
            for (_, message) in *run {
                form.starts.push(form.bytes.len());
                write_message(&mut form.bytes, message, *pattern, resp);
            }
            form
        });
        &form.bytes[form.starts[first]..]
    }
}

fn write_message(out: &mut Vec<u8>, message: &Published, pattern: Option<&[u8]>, resp: Resp) {
    if message.kind == Kind::Commands {
        out.extend_from_slice(&[b"+", &*message.payload, b"\r\n"].concat());
        return;
    }
    let mut push = Reply::new(out, resp);
    match pattern {
        Some(pattern) => {
            push.push(4);
            push.bulk(b"pmessage");
            push.bulk(pattern);
        }
        None => {
            push.push(3);
            push.bulk(if message.kind == Kind::ShardChannel { &b"smessage"[..] } else { b"message" });
        }
    }
    push.bulk(&message.channel);
    push.bulk(&message.payload);
}
