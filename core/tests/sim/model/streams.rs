//! Streams of the model: entries of one field whose IDs are whole milliseconds, and at most one group.

use super::{Model, Value, WRONG_TYPE, bulk, bulks, integer, ok};
use crate::request::streams;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Stream {
    /// The value of the field `f` of each entry.
    entries: BTreeMap<u64, String>,
    last_id: u64,
    group: Option<Group>,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Group {
    last_id: u64,
    /// The consumer of each pending entry.
    pending: BTreeMap<u64, String>,
}

/// The milliseconds of an ID.
fn number(id: &str) -> u64 {
    id.split('-').next().and_then(|ms| ms.parse().ok()).expect("the ID of an entry")
}

fn id(number: u64) -> String {
    format!("{number}-0")
}

fn array(items: &[String]) -> String {
    format!("*{}\r\n{}", items.len(), items.concat())
}

fn entry(number: u64, value: &str) -> String {
    let fields = bulks(&["f".to_string(), value.to_string()]);
    array(&[bulk(Some(&id(number))), fields])
}

/// XREAD's or XREADGROUP's reply about one stream.
fn stream_reply(key: &str, entries: &[String]) -> String {
    array(&[bulk(Some(&key.to_string())), array(entries)])
}

const NO_STREAM: &str = "-ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the \
                         MKSTREAM option to create an empty stream automatically.\r\n";
const BUSY_GROUP: &str = "-BUSYGROUP Consumer Group name already exists\r\n";
const SMALL_ID: &str =
    "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n";
const STREAM_IS_GONE: &str = "-UNBLOCKED the stream key no longer exists\r\n";
const GROUP_IS_GONE: &str = "-NOGROUP the consumer group this client was blocked on no longer exists\r\n";

/// How many entries the commands of a run read of a stream.
const XREAD_COUNT: usize = 2;
const XREADGROUP_COUNT: usize = 1;

impl Stream {
    /// What a command with this ID reads: `>` for what the group has not got. `None`: there is no group.
    fn read_from(&self, from: &str) -> Option<u64> {
        match from {
            ">" => self.group.as_ref().map(|group| group.last_id),
            id => Some(number(id)),
        }
    }

    /// The entries behind an ID.
    fn behind(&self, id: u64, count: usize) -> Vec<(u64, String)> {
        self.entries.range(id + 1..).take(count).map(|(&id, value)| (id, value.clone())).collect()
    }

    /// Delivers new entries to a consumer. Returns them as replied.
    fn deliver(&mut self, consumer: &str) -> Vec<String> {
        let from = self.read_from(">").expect("the group exists");
        let entries = self.behind(from, XREADGROUP_COUNT);
        let group = self.group.as_mut().expect("the group exists");
        for (id, _) in &entries {
            group.last_id = *id;
            group.pending.insert(*id, consumer.to_string());
        }
        entries.iter().map(|(id, value)| entry(*id, value)).collect()
    }

    /// XAUTOCLAIM for all entries.
    fn claim(&mut self, consumer: &str) -> String {
        let Stream { entries, group, .. } = self;
        let group = group.as_mut().expect("the group exists");
        let (claimed, deleted): (Vec<u64>, Vec<u64>) =
            group.pending.keys().partition(|id| entries.contains_key(id));
        group.pending = claimed.iter().map(|&id| (id, consumer.to_string())).collect();
        let claimed: Vec<String> = claimed.iter().map(|id| entry(*id, &entries[id])).collect();
        let deleted: Vec<String> = deleted.into_iter().map(id).collect();
        array(&[bulk(Some(&id(0))), array(&claimed), bulks(&deleted)])
    }
}

impl Group {
    /// XPENDING.
    fn summary(&self) -> String {
        let (Some((&first, _)), Some((&last, _))) =
            (self.pending.first_key_value(), self.pending.last_key_value())
        else {
            return array(&[integer(0), bulk(None), bulk(None), "*-1\r\n".to_string()]);
        };
        let consumers: BTreeSet<&String> = self.pending.values().collect();
        let count_of = |consumer: &String| self.pending.values().filter(|other| *other == consumer).count();
        let counts: Vec<String> = consumers
            .into_iter()
            .map(|consumer| bulks(&[consumer.clone(), count_of(consumer).to_string()]))
            .collect();
        array(&[integer(self.pending.len()), bulk(Some(&id(first))), bulk(Some(&id(last))), array(&counts)])
    }
}

impl Model {
    fn stream(&mut self, db: usize, key: &str) -> Option<&mut Stream> {
        match self.values.get_mut(&(db, key.to_string())) {
            Some(Value::Stream(stream)) => Some(stream),
            Some(_) | None => None,
        }
    }

    pub(super) fn apply_to_streams(&mut self, db: usize, command: &[String]) -> String {
        let args = &command[1..];
        let name = command[0].as_str();
        if let "XREAD" | "XREADGROUP" = name {
            return self.read_streams(db, command);
        }
        let key = if name == "XGROUP" { &args[1] } else { &args[0] };
        if self.is_wrong(command, db, key) {
            return WRONG_TYPE.to_string();
        }
        let no_group = || format!("-NOGROUP No such key '{key}' or consumer group 'g'\r\n");
        match name {
            "XADD" => self.add(db, key, number(&args[1]), &args[3]),
            "XRANGE" => {
                let entries =
                    self.stream(db, key).map(|stream| stream.behind(0, usize::MAX)).unwrap_or_default();
                array(&entries.iter().map(|(id, value)| entry(*id, value)).collect::<Vec<_>>())
            }
            "XDEL" => {
                let removed =
                    self.stream(db, key).and_then(|stream| stream.entries.remove(&number(&args[1])));
                if removed.is_some() {
                    self.touch_watches(db, key);
                }
                integer(usize::from(removed.is_some()))
            }
            "XGROUP" if args[0] == "DESTROY" => self.destroy_group(db, key),
            "XGROUP" => self.create_group(db, key),
            _ => {
                let Some(stream) = self.stream(db, key).filter(|stream| stream.group.is_some()) else {
                    return if name == "XACK" { integer(0) } else { no_group() };
                };
                let group = stream.group.as_mut().expect("it was looked for");
                match name {
                    "XACK" => integer(usize::from(group.pending.remove(&number(&args[2])).is_some())),
                    "XPENDING" => group.summary(),
                    "XAUTOCLAIM" => stream.claim(&args[2]),
                    other => panic!("the model does not know {other}"),
                }
            }
        }
    }

    fn add(&mut self, db: usize, key: &str, id_number: u64, value: &str) -> String {
        let mut stream = self.stream(db, key).cloned().unwrap_or_default();
        if id_number <= stream.last_id {
            return SMALL_ID.to_string();
        }
        stream.last_id = id_number;
        stream.entries.insert(id_number, value.to_string());
        self.put(db, key, Value::Stream(stream));
        bulk(Some(&id(id_number)))
    }

    fn create_group(&mut self, db: usize, key: &str) -> String {
        let Some(stream) = self.stream(db, key) else {
            let group = Some(Group::default());
            self.put(db, key, Value::Stream(Stream { group, ..Stream::default() }));
            return ok();
        };
        if stream.group.is_some() {
            return BUSY_GROUP.to_string();
        }
        stream.group = Some(Group::default());
        ok()
    }

    fn destroy_group(&mut self, db: usize, key: &str) -> String {
        let Some(stream) = self.stream(db, key) else { return NO_STREAM.to_string() };
        if stream.group.take().is_none() {
            return integer(0);
        }
        self.signalled.insert((db, key.to_string()));
        integer(1)
    }

    /// XREAD or XREADGROUP that has not waited.
    fn read_streams(&mut self, db: usize, command: &[String]) -> String {
        let (keys, ids) = streams(command);
        for key in keys {
            if self.is_wrong(command, db, key) {
                return WRONG_TYPE.to_string();
            }
            if command[0] == "XREADGROUP" && self.stream(db, key).is_none_or(|stream| stream.group.is_none())
            {
                return format!(
                    "-NOGROUP No such key '{key}' or consumer group 'g' in XREADGROUP with GROUP option\r\n"
                );
            }
        }
        let mut replies = Vec::new();
        for (key, from) in keys.iter().zip(ids) {
            let Some(stream) = self.stream(db, key) else { continue };
            let from = stream.read_from(from).expect("the group exists");
            let entries = stream.behind(from, XREAD_COUNT);
            if entries.is_empty() {
                continue;
            }
            let entries = match command[0].as_str() {
                "XREADGROUP" => stream.deliver(&command[3]),
                _ => entries.iter().map(|(id, value)| entry(*id, value)).collect(),
            };
            replies.push(stream_reply(key, &entries));
        }
        if replies.is_empty() { "*-1\r\n".to_string() } else { array(&replies) }
    }

    /// Whether a command that waits for this key has something to get: entries, or an error.
    pub(super) fn has_unread(&self, db: usize, command: &[String], key: &str) -> bool {
        let is_group = command[0] == "XREADGROUP";
        let Some(Value::Stream(stream)) = self.values.get(&(db, key.to_string())) else { return is_group };
        let (keys, ids) = streams(command);
        let at = keys.iter().position(|other| other == key).expect("it waits for this key");
        stream.read_from(&ids[at]).is_none_or(|from| stream.last_id > from)
    }

    /// The reply to a command that has waited for this key, which has something to get for it. Entries that were deleted
    /// since they were added are missing.
    pub(super) fn read_after_wait(&mut self, db: usize, command: &[String], key: &str) -> String {
        let (keys, ids) = streams(command);
        let at = keys.iter().position(|other| other == key).expect("it waits for this key");
        let Some(stream) = self.stream(db, key) else { return STREAM_IS_GONE.to_string() };
        let Some(from) = stream.read_from(&ids[at]) else { return GROUP_IS_GONE.to_string() };
        let entries = match command[0].as_str() {
            "XREADGROUP" => stream.deliver(&command[3]),
            _ => stream.behind(from, XREAD_COUNT).iter().map(|(id, value)| entry(*id, value)).collect(),
        };
        array(&[stream_reply(key, &entries)])
    }
}
