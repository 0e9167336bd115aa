//! What a shard publishes, until it leaves for the shards with subscribers.

use super::directory::{Directory, Kind, PART_COUNT, count_of};
use super::names::{Counts, Names};
use crate::types::glob::glob_matches;
use smallvec::SmallVec;
use std::sync::Arc;

/// A message as it was published. Each shard with subscribers of it makes its own forms of it.
#[derive(Debug)]
pub struct Published {
    /// Any but [`Kind::Pattern`].
    pub kind: Kind,
    pub channel: Box<[u8]>,
    pub payload: Box<[u8]>,
    /// The versions of the directory's parts by which its receivers were counted: the part of the channel, and the
    /// patterns'.
    pub(super) channel_version: u64,
    pub(super) pattern_version: u64,
}

impl Published {
    fn new(kind: Kind, channel: &[u8], payload: &[u8], versions: [u64; 2]) -> Arc<Published> {
        let [channel_version, pattern_version] = versions;
        let (channel, payload) = (channel.into(), payload.into());
        Arc::new(Published { kind, channel, payload, channel_version, pattern_version })
    }

    /// Whether it goes to the same channel as `other`, and the same subscribers have been counted.
    pub(super) fn is_alike(&self, other: &Published) -> bool {
        (self.kind, self.channel_version, self.pattern_version)
            == (other.kind, other.channel_version, other.pattern_version)
            && self.channel == other.channel
    }
}

/// What a shard delivers to its subscribers at one position; nothing, if the position is empty.
#[derive(Debug)]
pub struct Delivery {
    pub position: u64,
    pub messages: Vec<Arc<Published>>,
}

/// Shards, in ascending order.
type Shards = SmallVec<[u16; 8]>;

/// Messages that have no position yet, each with the shards that it goes to.
#[derive(Default)]
pub struct OpenMessages(Vec<(Shards, Arc<Published>)>);

impl OpenMessages {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends those of `other`, and empties it.
    pub fn append(&mut self, other: &mut OpenMessages) {
        self.0.append(&mut other.0);
    }
}

/// A part of the directory as a shard knows it.
#[derive(Clone, Default)]
struct Known {
    version: u64,
    names: Arc<Names>,
}

/// A shard as one that publishes.
pub struct Publisher {
    directory: Arc<Directory>,
    known: Vec<Known>,
    open: OpenMessages,
    /// What is published belongs to an EXEC or a program, and gets its position at the end of that.
    is_in_unit: bool,
    ready: Vec<(usize, Delivery)>,
}

/// Who receives a message.
struct Receivers {
    count: u64,
    shards: Shards,
    parts: [usize; 2],
    versions: [u64; 2],
}

impl Receivers {
    fn add(&mut self, counts: &Counts) {
        self.count += count_of(counts);
        for &(shard, _) in counts {
            if let Err(at) = self.shards.binary_search(&shard) {
                self.shards.insert(at, shard);
            }
        }
    }
}

impl Publisher {
    pub fn new(directory: Arc<Directory>) -> Publisher {
        Publisher {
            directory,
            known: vec![Known::default(); PART_COUNT],
            open: OpenMessages::default(),
            is_in_unit: false,
            ready: Vec::new(),
        }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Publishes a message, of [`Kind::Channel`] or [`Kind::ShardChannel`]. Returns how many clients get it.
    pub fn publish(&mut self, kind: Kind, channel: &[u8], payload: &[u8]) -> u64 {
        loop {
            let Some(receivers) = self.receivers(kind, channel) else { return 0 };
            let message = Published::new(kind, channel, payload, receivers.versions);
            if self.is_in_unit {
                self.open.0.push((receivers.shards, message));
                return receivers.count;
            }
            self.close();
            let positions: SmallVec<[u64; 8]> = receivers
                .shards
                .iter()
                .map(|&shard| self.directory.draw_position(usize::from(shard)))
                .collect();
            let is_counted_right =
                receivers.parts.map(|part| self.directory.version(part)) == receivers.versions;
            for (&shard, position) in receivers.shards.iter().zip(positions) {
                let messages = is_counted_right.then(|| Arc::clone(&message)).into_iter().collect();
                self.ready.push((usize::from(shard), Delivery { position, messages }));
            }
            if is_counted_right {
                return receivers.count;
            }
        }
    }

    /// Publishes a message to a channel with what else the unit publishes, or this turn. Nobody is told how many clients get it.
    pub fn publish_uncounted(&mut self, kind: Kind, channel: &[u8], payload: &[u8]) {
        let Some(receivers) = self.receivers(kind, channel) else { return };
        self.open.0.push((receivers.shards, Published::new(kind, channel, payload, receivers.versions)));
    }

    /// Who receives a message. `None`: nobody.
    fn receivers(&mut self, kind: Kind, channel: &[u8]) -> Option<Receivers> {
        let has_patterns = kind == Kind::Channel && self.directory.name_count(Kind::Pattern) > 0;
        if !has_patterns && self.directory.name_count(kind) == 0 {
            return None;
        }
        let parts = [kind.part_of(channel), Kind::Pattern.part_of(b"")];
        let versions = parts.map(|part| self.update(part));
        let mut receivers = Receivers { count: 0, shards: Shards::new(), parts, versions };
        if let Some(counts) = self.known[parts[0]].names.get(channel) {
            receivers.add(counts);
        }
        if has_patterns {
            let patterns = self.known[parts[1]].names.iter();
            patterns
                .filter(|(pattern, _)| glob_matches(pattern, channel))
                .for_each(|(_, counts)| receivers.add(counts));
        }
        (!receivers.shards.is_empty()).then_some(receivers)
    }

    /// Takes a part of the directory over if it has changed. Returns its version.
    fn update(&mut self, part: usize) -> u64 {
        let known = &mut self.known[part];
        if self.directory.version(part) != known.version {
            let (version, names) = self.directory.part(part);
            *known = Known { version, names };
        }
        known.version
    }

    /// What is published from here on belongs together, up to [`Publisher::end_unit`]. Returns whether that has to follow:
    /// not, if a unit is open, to which it belongs.
    pub fn begin_unit(&mut self) -> bool {
        if self.is_in_unit {
            return false;
        }
        self.close();
        self.is_in_unit = true;
        true
    }

    pub fn end_unit(&mut self) {
        self.is_in_unit = false;
        self.close();
    }

    /// The unit is interrupted while the shard goes on with other work. Returns its messages so far. What is shown of its
    /// commands does not wait for its end.
    pub fn suspend_unit(&mut self) -> OpenMessages {
        self.is_in_unit = false;
        let is_command = |(_, message): &mut (Shards, Arc<Published>)| message.kind == Kind::Commands;
        let commands = self.open.0.extract_if(.., is_command).collect();
        let open = std::mem::replace(&mut self.open, OpenMessages(commands));
        self.close();
        open
    }

    /// As [`Publisher::begin_unit`], with what it published before it was suspended.
    pub fn resume_unit(&mut self, open: OpenMessages) {
        assert!(self.begin_unit(), "units of programs do not nest");
        self.open = open;
    }

    /// Draws one position on each shard for what has none yet.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let first = self.ready.len();
        for (shards, message) in std::mem::take(&mut self.open).0 {
            for shard in shards.into_iter().map(usize::from) {
                match self.ready[first..].iter_mut().find(|(to, _)| *to == shard) {
                    Some((_, delivery)) => delivery.messages.push(Arc::clone(&message)),
                    None => {
                        let position = self.directory.draw_position(shard);
                        self.ready.push((shard, Delivery { position, messages: vec![Arc::clone(&message)] }));
                    }
                }
            }
        }
    }

    /// Whether there is anything to be sent.
    #[inline]
    pub fn has_something(&self) -> bool {
        !self.ready.is_empty() || !self.open.is_empty() && !self.is_in_unit
    }

    /// Takes what is to be sent, with the shard that each delivery goes to.
    pub fn take_ready(&mut self) -> Vec<(usize, Delivery)> {
        if !self.is_in_unit {
            self.close();
        }
        std::mem::take(&mut self.ready)
    }
}
