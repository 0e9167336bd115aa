//! Writing big collections.

use super::write::Writer;
use super::{ValueKind, container};
use crate::types::hash::HashRef;
use crate::types::list::NodeRef;
use crate::types::listpack::Digits;
use crate::types::{Collection, Object};

/// Writes a big collection without its kind, which is returned.
pub(super) fn write(writer: &mut Writer<'_>, object: &Object) -> ValueKind {
    match object {
        Object::List(list) => {
            writer.length(list.node_count() as u64);
            list.visit_nodes(|node| match node {
                NodeRef::Packed(listpack) => {
                    writer.length(container::PACKED);
                    writer.string(listpack.as_bytes());
                }
                NodeRef::Plain(element) => {
                    writer.length(container::PLAIN);
                    writer.string(element);
                }
            });
            ValueKind::ListQuicklist2
        }
        Object::Set(members) => {
            writer.length(members.len() as u64);
            members.iter().for_each(|(member, _)| writer.string(member));
            ValueKind::Set
        }
        Object::Hash(hash) => {
            writer.length(hash.len() as u64);
            let (mut field_digits, mut value_digits) = (Digits::new(), Digits::new());
            HashRef::Big(hash).for_each(|field, value| {
                writer.string(field.bytes(&mut field_digits));
                writer.string(value.bytes(&mut value_digits));
            });
            ValueKind::Hash
        }
        Object::ZSet(zset) => {
            writer.length(zset.len() as u64);
            // The greatest first, as Redis does: so each is inserted before all others.
            for (member, score) in zset.iter(0..zset.len()).rev() {
                writer.string(member);
                writer.double(score);
            }
            ValueKind::ZSet2
        }
        Object::Stream(stream) => super::stream::write_stream(writer, stream),
        Object::Module(value) => super::module::write_value(writer, value),
    }
}
