//! A base of commands (`aof-use-rdb-preamble no`): each key by commands that make it anew. At most [`ITEMS_MAX`] elements of
//! a collection are added by one command, so that none takes long when the file is loaded.
//!
//! Of a stream, the commands restore its entries, its counters, and its groups with their consumers and pending entries. As
//! in Redis, an entry that is pending although it was deleted is no longer pending then. A value of a module is restored
//! from its payload as of DUMP.

use crate::persist::rdb::dump::seal;
use crate::persist::rdb::write::Writer;
use crate::protocol::number::F64Text;
use crate::protocol::{Reply, Resp};
use crate::types::hash::HashRef;
use crate::types::list::{ListRef, NodeRef};
use crate::types::listpack::Digits;
use crate::types::module::{KeyPlace, ModuleValue};
use crate::types::save::{Element, ElementWriter};
use crate::types::set::SetRef;
use crate::types::stream::{ConsumerHead, Counters, GroupHead, NodeRef as NodeOfStream, Pending, StreamId};
use crate::types::zset::ZSetView;
use crate::types::{Entry, Object, ValueRef};

/// How many elements one command adds at most.
pub const ITEMS_MAX: usize = 64;

/// Appends a request.
pub fn write_request(out: &mut Vec<u8>, args: &[&[u8]]) {
    let mut request = Reply::new(out, Resp::V2);
    request.array(args.len());
    args.iter().for_each(|arg| request.bulk(arg));
}

/// Appends a request that selects a database.
pub fn write_select(out: &mut Vec<u8>, db: u32) {
    write_request(out, &[b"SELECT", itoa::Buffer::new().format(db).as_bytes()]);
}

/// Appends the commands that make the key of an entry, for the database that is selected, which is `db`. `compress`: what
/// is in the payload of a module's value.
pub fn write_entry(out: &mut Vec<u8>, db: u32, entry: Entry<'_>, compress: bool) {
    let (key, value) = (entry.key(), entry.value());
    match value {
        ValueRef::Int(number) => {
            write_request(out, &[b"SET", key, itoa::Buffer::new().format(number).as_bytes()]);
        }
        ValueRef::Str(bytes) => write_request(out, &[b"SET", key, bytes]),
        ValueRef::Object(Object::Module(of_module)) => {
            write_module(out, KeyPlace::of(db, key), key, of_module, compress);
        }
        ValueRef::Packed(..) => write_packed(out, key, value),
        ValueRef::Object(object) => {
            let (mut elements, _) = CommandElements::new(key, object, entry.expire_at_ms())
                .expect("the other objects were dealt with");
            object.each_element(|element| elements.write(element, out));
            return elements.end(out);
        }
    }
    write_expiry(out, key, entry.expire_at_ms());
}

/// A value of a module, by the commands that its type has for it, or by RESTORE.
fn write_module(out: &mut Vec<u8>, place: KeyPlace<'_>, key: &[u8], value: &ModuleValue, compress: bool) {
    let mut commands = Vec::new();
    if value.rewrite(place, &mut |words| write_request(&mut commands, words)) {
        out.append(&mut commands);
        return;
    }
    let mut payload = Vec::new();
    Writer::new(&mut payload, compress).at(place).module_value(value);
    seal(&mut payload, 0);
    write_request(out, &[b"RESTORE", key, b"0", &payload]);
}

/// A command that adds elements to a collection. It is written again for every [`ITEMS_MAX`] of them.
struct Adder {
    /// Its name and first arguments, as they are written.
    start: Vec<u8>,
    start_count: usize,
    arguments: Vec<u8>,
    argument_count: usize,
    item_count: usize,
}

impl Adder {
    fn new(words: &[&[u8]]) -> Adder {
        let mut start = Vec::new();
        words.iter().for_each(|word| Reply::new(&mut start, Resp::V2).bulk(word));
        Adder { start, start_count: words.len(), arguments: Vec::new(), argument_count: 0, item_count: 0 }
    }

    fn argument(&mut self, bytes: &[u8]) {
        Reply::new(&mut self.arguments, Resp::V2).bulk(bytes);
        self.argument_count += 1;
    }

    /// Adds an element, of which these are the arguments.
    fn item(&mut self, arguments: &[&[u8]], out: &mut Vec<u8>) {
        arguments.iter().for_each(|argument| self.argument(argument));
        self.item_count += 1;
        if self.item_count == ITEMS_MAX {
            self.end(out);
        }
    }

    /// Writes the command with the elements that it has so far.
    fn end(&mut self, out: &mut Vec<u8>) {
        if self.argument_count == 0 {
            return;
        }
        Reply::new(out, Resp::V2).array(self.start_count + self.argument_count);
        out.extend_from_slice(&self.start);
        out.append(&mut self.arguments);
        (self.argument_count, self.item_count) = (0, 0);
    }
}

/// Writes the elements of a big collection as commands that add them, and its expiry.
pub struct CommandElements {
    adder: Adder,
    key: Box<[u8]>,
    expire_at_ms: Option<i64>,
}

impl CommandElements {
    /// Of a key, and how many elements its value has. `None`: it is not written element by element.
    pub fn new(key: &[u8], object: &Object, expire_at_ms: Option<i64>) -> Option<(CommandElements, usize)> {
        let command: &[u8] = match object {
            Object::List(_) => b"RPUSH",
            Object::Set(_) => b"SADD",
            Object::ZSet(_) => b"ZADD",
            Object::Hash(_) => b"HMSET",
            Object::Stream(_) => b"XADD",
            Object::Module(_) => return None,
        };
        let elements = CommandElements { adder: Adder::new(&[command, key]), key: key.into(), expire_at_ms };
        Some((elements, object.element_count()))
    }
}

impl ElementWriter for CommandElements {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        let adder = &mut self.adder;
        match element {
            Element::Field(field, value) => adder.item(&[field, value], out),
            Element::Member(member) => adder.item(&[member], out),
            Element::Scored(member, score) => adder.item(&[F64Text::new(score).as_bytes(), member], out),
            Element::Bytes(_) | Element::Module(_) => {
                unreachable!("strings and values of modules have writers of their own")
            }
            Element::Entries(first_id, node) => write_entries(out, &self.key, first_id, node),
            Element::Counters(counters, _) => write_counters(out, &self.key, counters),
            Element::Group(group) => write_group(out, &self.key, group),
            Element::Pending(_) | Element::Consumers(_) => {}
            Element::Consumer(group, consumer) => write_consumer(out, &self.key, group, consumer),
            Element::ConsumerPending(group, consumer, some) => {
                some.iter()
                    .for_each(|(id, pending)| write_claim(out, &self.key, group, consumer, *id, *pending));
            }
            Element::Node(NodeRef::Plain(element)) => adder.item(&[element], out),
            Element::Node(NodeRef::Packed(listpack)) => {
                let mut digits = Digits::new();
                listpack.iter().for_each(|(_, item)| adder.item(&[item.bytes(&mut digits)], out));
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.adder.end(out);
        write_expiry(out, &self.key, self.expire_at_ms);
    }
}

/// Writes the bytes of a string, behind the beginning of a SET, and its expiry.
pub struct CommandBytes {
    key: Box<[u8]>,
    expire_at_ms: Option<i64>,
}

impl CommandBytes {
    /// Writes the beginning, for a string of so many bytes.
    pub fn begin(out: &mut Vec<u8>, key: &[u8], len: usize, expire_at_ms: Option<i64>) -> CommandBytes {
        let mut request = Reply::new(out, Resp::V2);
        request.array(3);
        request.bulk(b"SET");
        request.bulk(key);
        out.extend_from_slice(format!("${len}\r\n").as_bytes());
        CommandBytes { key: key.into(), expire_at_ms }
    }
}

impl ElementWriter for CommandBytes {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        if let Element::Bytes(piece) = element {
            out.extend_from_slice(piece);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        write_expiry(out, &self.key, self.expire_at_ms);
    }
}

/// Writes a value of a module, and its expiry.
pub struct CommandModule {
    db: u32,
    key: Box<[u8]>,
    expire_at_ms: Option<i64>,
    compress: bool,
}

impl CommandModule {
    /// Of the value under this key. `compress`: what is in the payload of RESTORE.
    pub fn new(db: u32, key: &[u8], expire_at_ms: Option<i64>, compress: bool) -> CommandModule {
        CommandModule { db, key: key.into(), expire_at_ms, compress }
    }
}

impl ElementWriter for CommandModule {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        if let Element::Module(value) = element {
            write_module(out, KeyPlace::of(self.db, &self.key), &self.key, value, self.compress);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        write_expiry(out, &self.key, self.expire_at_ms);
    }
}

fn write_expiry(out: &mut Vec<u8>, key: &[u8], expire_at_ms: Option<i64>) {
    if let Some(at_ms) = expire_at_ms {
        write_request(out, &[b"PEXPIREAT", key, itoa::Buffer::new().format(at_ms).as_bytes()]);
    }
}

/// A list, set, sorted set or hash that is packed.
fn write_packed(out: &mut Vec<u8>, key: &[u8], value: ValueRef<'_>) {
    let (mut first, mut second) = (Digits::new(), Digits::new());
    if let Some(list) = ListRef::of(value) {
        let mut adder = Adder::new(&[b"RPUSH", key]);
        list.walk(0, |element| {
            adder.item(&[element.bytes(&mut first)], out);
            true
        });
        adder.end(out);
    } else if let Some(set) = SetRef::of(value) {
        let mut adder = Adder::new(&[b"SADD", key]);
        set.each(|member| adder.item(&[member.bytes(&mut first)], out));
        adder.end(out);
    } else if let Some(zset) = ZSetView::of(value) {
        let mut adder = Adder::new(&[b"ZADD", key]);
        zset.for_each(0..zset.len(), false, |member, score| {
            adder.item(&[F64Text::new(score).as_bytes(), member.bytes(&mut first)], out);
        });
        adder.end(out);
    } else if let Some(hash) = HashRef::of(value) {
        let mut adder = Adder::new(&[b"HMSET", key]);
        hash.for_each(|field, value| {
            adder.item(&[field.bytes(&mut first), value.bytes(&mut second)], out);
        });
        adder.end(out);
    }
}

/// The entries of a stream's node.
fn write_entries(out: &mut Vec<u8>, key: &[u8], first_id: StreamId, node: NodeOfStream<'_>) {
    let (mut name_digits, mut value_digits) = (Digits::new(), Digits::new());
    for entry in node.entries(first_id) {
        let id = entry.id.text();
        let mut adder = Adder::new(&[b"XADD", key, id.as_bytes()]);
        for (name, value) in entry.fields() {
            adder.argument(name.bytes(&mut name_digits));
            adder.argument(value.bytes(&mut value_digits));
        }
        adder.end(out);
    }
}

/// What follows the entries of a stream and precedes its groups.
fn write_counters(out: &mut Vec<u8>, key: &[u8], counters: Counters) {
    if counters.len == 0 {
        // An entry that is not kept makes a stream without entries.
        write_request(out, &[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
    }
    write_request(
        out,
        &[
            b"XSETID",
            key,
            counters.last_id.text().as_bytes(),
            b"ENTRIESADDED",
            itoa::Buffer::new().format(counters.entries_added).as_bytes(),
            b"MAXDELETEDID",
            counters.max_deleted_id.text().as_bytes(),
        ],
    );
}

fn write_group(out: &mut Vec<u8>, key: &[u8], group: &GroupHead) {
    let entries_read = group.entries_read.unwrap_or(-1);
    write_request(
        out,
        &[
            b"XGROUP",
            b"CREATE",
            key,
            &group.name,
            group.last_id.text().as_bytes(),
            b"ENTRIESREAD",
            itoa::Buffer::new().format(entries_read).as_bytes(),
        ],
    );
}

/// A consumer that has pending entries is created by the first of them.
fn write_consumer(out: &mut Vec<u8>, key: &[u8], group: &GroupHead, consumer: &ConsumerHead) {
    if consumer.pending_count == 0 {
        write_request(out, &[b"XGROUP", b"CREATECONSUMER", key, &group.name, &consumer.name]);
    }
}

fn write_claim(
    out: &mut Vec<u8>,
    key: &[u8],
    group: &GroupHead,
    consumer: &ConsumerHead,
    id: StreamId,
    pending: Pending,
) {
    write_request(
        out,
        &[
            b"XCLAIM",
            key,
            &group.name,
            &consumer.name,
            b"0",
            id.text().as_bytes(),
            b"TIME",
            itoa::Buffer::new().format(pending.delivery_time_ms).as_bytes(),
            b"RETRYCOUNT",
            itoa::Buffer::new().format(pending.delivery_count).as_bytes(),
            b"JUSTID",
            b"FORCE",
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::aof::read::{AofItem, AofReader};

    /// The commands, as words.
    fn commands(bytes: &[u8]) -> Vec<Vec<String>> {
        let mut source = bytes;
        let mut reader = AofReader::new(&mut source, 0);
        let mut commands = Vec::new();
        while let Some(item) = reader.next_item().expect("it is sound") {
            let AofItem::Unit { commands: unit, .. } = item else { panic!("there are no annotations") };
            let words = |argv: crate::protocol::Argv<'_>| {
                argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
            };
            commands.extend(unit.iter().map(words));
        }
        commands
    }

    #[test]
    fn a_command_adds_at_most_64_elements_and_all_of_them_are_added_in_order() {
        for (item_count, lens) in [(1, &[1][..]), (64, &[64]), (65, &[64, 1]), (130, &[64, 64, 2])] {
            let (mut out, mut adder) = (Vec::new(), Adder::new(&[b"HMSET", b"key"]));
            (0..item_count).for_each(|n: usize| adder.item(&[n.to_string().as_bytes(), b"value"], &mut out));
            adder.end(&mut out);
            let commands = commands(&out);
            assert_eq!(commands.iter().map(|words| (words.len() - 2) / 2).collect::<Vec<_>>(), lens);
            assert!(commands.iter().all(|words| words[..2] == ["HMSET", "key"]));
            let fields = commands.iter().flat_map(|words| words[2..].iter().step_by(2).cloned());
            assert!(fields.eq((0..item_count).map(|n| n.to_string())));
        }
    }

    #[test]
    fn a_stream_without_entries_keeps_its_counters_and_groups() {
        let mut stream = crate::types::stream::Stream::default();
        stream.log.last_id = StreamId { ms: 7, seq: 1 };
        stream.log.max_deleted_id = StreamId { ms: 7, seq: 0 };
        stream.log.entries_added = 3;
        let mut group = stream.groups.create(b"g", StreamId { ms: 6, seq: 0 }, None).expect("it is new");
        group.create_consumer(b"idle", 0).expect("it is new");
        let busy = group.create_consumer(b"busy", 0).expect("it is new");
        let pending =
            crate::types::stream::Pending { consumer: busy, delivery_time_ms: 12, delivery_count: 2 };
        group.set_pending(StreamId { ms: 5, seq: 5 }, pending);

        let mut out = Vec::new();
        let object = Object::Stream(stream);
        let (mut elements, _) = CommandElements::new(b"s", &object, None).expect("it has elements");
        object.each_element(|element| elements.write(element, &mut out));
        let lines: Vec<String> = commands(&out).iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "XADD s MAXLEN 0 0-1 x y",
                "XSETID s 7-1 ENTRIESADDED 3 MAXDELETEDID 7-0",
                "XGROUP CREATE s g 6-0 ENTRIESREAD -1",
                "XCLAIM s g busy 0 5-5 TIME 12 RETRYCOUNT 2 JUSTID FORCE",
                "XGROUP CREATECONSUMER s g idle",
            ]
        );
    }
}
