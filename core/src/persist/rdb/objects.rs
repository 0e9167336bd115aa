//! Writing big collections: as a whole, or element by element.

use super::stream::{write_consumer, write_counters, write_group, write_node, write_pending};
use super::write::Writer;
use super::{ValueKind, container};
use crate::types::list::NodeRef;
use crate::types::module::KeyPlace;
use crate::types::save::{Element, ElementWriter};
use crate::types::{Collection, Object};

/// Writes the elements of a collection whose record was begun by [`Writer::begin_record`].
pub struct RecordElements {
    /// rdbcompression
    pub compress: bool,
}

impl ElementWriter for RecordElements {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        write_element(&mut Writer::new(out, self.compress), element);
    }

    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// Writes a module's value whose record was begun by [`Writer::begin_module`].
pub struct RecordModule {
    db: u32,
    key: Box<[u8]>,
    compress: bool,
}

impl RecordModule {
    /// Of the value under this key.
    pub fn new(db: u32, key: &[u8], compress: bool) -> RecordModule {
        RecordModule { db, key: key.into(), compress }
    }
}

impl ElementWriter for RecordModule {
    fn write(&mut self, element: Element<'_>, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, self.compress).at(KeyPlace::of(self.db, &self.key));
        write_element(&mut writer, element);
    }

    fn end(&mut self, _out: &mut Vec<u8>) {}
}

/// The kind of a collection that is written element by element, and the length that precedes them. `None`: it is none.
pub(super) fn kind_and_len(object: &Object) -> Option<(ValueKind, usize)> {
    match object {
        Object::List(list) => Some((ValueKind::ListQuicklist2, list.node_count())),
        Object::Set(members) => Some((ValueKind::Set, members.len())),
        Object::Hash(hash) => Some((ValueKind::Hash, hash.len())),
        Object::ZSet(zset) => Some((ValueKind::ZSet2, zset.len())),
        Object::Stream(stream) => Some((ValueKind::Stream2, stream.log.node_count())),
        Object::Module(_) => None,
    }
}

/// Writes a big collection without its kind, which is returned.
pub(super) fn write(writer: &mut Writer<'_>, object: &Object) -> ValueKind {
    if let Object::Module(value) = object {
        return super::module::write_value(writer, value);
    }
    let (kind, len) = kind_and_len(object).expect("all others are written element by element");
    writer.length(len as u64);
    object.each_element(|element| write_element(writer, element));
    kind
}

fn write_element(writer: &mut Writer<'_>, element: Element<'_>) {
    match element {
        Element::Field(field, value) => {
            writer.string(field);
            writer.string(value);
        }
        Element::Member(member) => writer.string(member),
        Element::Scored(member, score) => {
            writer.string(member);
            writer.double(score);
        }
        Element::Bytes(piece) => writer.bytes(piece),
        Element::Module(value) => {
            super::module::write_value(writer, value);
        }
        Element::Entries(key, node) => write_node(writer, key, node),
        Element::Counters(counters, group_count) => write_counters(writer, counters, group_count),
        Element::Group(group) => write_group(writer, group),
        Element::Pending(some) => write_pending(writer, some),
        Element::Consumers(group) => writer.length(group.consumers.len() as u64),
        Element::Consumer(_, consumer) => write_consumer(writer, consumer),
        Element::ConsumerPending(_, _, some) => some.iter().for_each(|(id, _)| writer.bytes(&id.to_bytes())),
        Element::Node(NodeRef::Packed(listpack)) => {
            writer.length(container::PACKED);
            writer.string(listpack.as_bytes());
        }
        Element::Node(NodeRef::Plain(element)) => {
            writer.length(container::PLAIN);
            writer.string(element);
        }
    }
}
