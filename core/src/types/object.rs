//! Object: the big form of a collection, in an allocation of its own.
//!
//! A small collection is *packed*: bytes in Redis' listpack or intset layout, within its entry. When it grows past the
//! limits of its type it becomes an object, which its entry points at. Tables know an object by what [`Collection`]
//! says: how much memory it takes, and how it is freed in slices.

use super::entry::Encoding;
use super::save::{Element, Record};
use std::fmt;

/// A type of values, as TYPE names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueType {
    String,
    List,
    Set,
    ZSet,
    Hash,
    Stream,
    /// A module's, by its name.
    Module(&'static str),
}

impl ValueType {
    /// The name that TYPE returns and SCAN's TYPE option takes.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::String => "string",
            ValueType::List => "list",
            ValueType::Set => "set",
            ValueType::ZSet => "zset",
            ValueType::Hash => "hash",
            ValueType::Stream => "stream",
            ValueType::Module(name) => name,
        }
    }
}

/// What a table needs to know of an object.
pub trait Collection {
    /// How many elements it has.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it takes, its own struct and all that it owns included. O(1).
    fn heap_bytes(&self) -> usize;

    /// How much work it is to free it: about 1 for each allocation or element that has to be visited.
    fn free_cost(&self) -> usize;

    /// Frees a part that costs no more than `budget`, and subtracts its cost. Returns whether nothing is left. It can only
    /// be freed further after this.
    fn free_some(&mut self, budget: &mut usize) -> bool;

    /// A copy of it: COPY.
    fn duplicate(&self) -> Self
    where
        Self: Sized;

    /// What OBJECT ENCODING reports.
    fn encoding(&self) -> Encoding;
}

/// Declares the variants of [`Object`]: a name and the structure.
macro_rules! objects {
    ($($variant:ident($structure:ty),)*) => {
        /// A big collection, or what a module makes of a value. Two of them are equal only if they are the same.
        pub enum Object {
            $($variant($structure),)*
        }

        impl Collection for Object {
            fn len(&self) -> usize {
                match *self {
                    $(Object::$variant(ref inner) => inner.len(),)*
                }
            }

            fn heap_bytes(&self) -> usize {
                // An object is as long as the longest of its variants.
                match *self {
                    $(Object::$variant(ref inner) => {
                        inner.heap_bytes() + size_of::<Object>() - size_of::<$structure>()
                    })*
                }
            }

            fn free_cost(&self) -> usize {
                match *self {
                    $(Object::$variant(ref inner) => inner.free_cost(),)*
                }
            }

            fn free_some(&mut self, budget: &mut usize) -> bool {
                match *self {
                    $(Object::$variant(ref mut inner) => inner.free_some(budget),)*
                }
            }

            fn duplicate(&self) -> Object {
                match *self {
                    $(Object::$variant(ref inner) => Object::$variant(inner.duplicate()),)*
                }
            }

            fn encoding(&self) -> Encoding {
                match *self {
                    $(Object::$variant(ref inner) => inner.encoding(),)*
                }
            }
        }
    };
}

objects! {
    List(super::list::List),
    Set(super::dict::DictSet),
    ZSet(super::zset::ZSet),
    Hash(super::hash::BigHash),
    Stream(super::stream::Stream),
    Module(super::module::ModuleValue),
}

impl Object {
    pub fn value_type(&self) -> ValueType {
        match self {
            Object::List(_) => ValueType::List,
            Object::Set(_) => ValueType::Set,
            Object::ZSet(_) => ValueType::ZSet,
            Object::Hash(_) => ValueType::Hash,
            Object::Stream(_) => ValueType::Stream,
            Object::Module(value) => ValueType::Module(value.module_type().name()),
        }
    }

    /// Visits what a collection that can be saved part by part consists of, in the order in which it is written.
    pub fn each_element(&self, mut visit: impl FnMut(Element<'_>)) {
        match self {
            Object::List(list) => list.visit_nodes(|node| visit(Element::Node(node))),
            Object::Set(members) => members.iter().for_each(|(member, _)| visit(Element::Member(member))),
            Object::Hash(hash) => {
                hash.fields().iter().for_each(|(field, value)| visit(Element::Field(field, value)));
            }
            // The greatest first, as Redis does: so each is inserted before all others.
            Object::ZSet(zset) => {
                let elements = zset.iter(0..zset.len()).rev();
                elements.for_each(|(member, score)| visit(Element::Scored(member, score)));
            }
            Object::Stream(stream) => stream.each_element(&mut visit),
            Object::Module(_) => {}
        }
    }

    /// How many parts [`Object::each_element`] visits.
    pub fn element_count(&self) -> usize {
        match self {
            Object::List(list) => list.node_count(),
            Object::Stream(stream) => stream.log.node_count() + 1,
            Object::Set(_) | Object::ZSet(_) | Object::Hash(_) => self.len(),
            Object::Module(_) => 0,
        }
    }

    /// Begins to write it part by part: see [`save`](super::save). It is of a type that can be.
    pub(super) fn begin_saving(&mut self, record: Record) {
        match self {
            Object::List(list) => list.begin_saving(record),
            Object::Set(set) => set.begin_saving(record),
            Object::ZSet(zset) => zset.begin_saving(record),
            Object::Hash(hash) => hash.fields_mut().begin_saving(record),
            Object::Stream(stream) => stream.begin_saving(record),
            Object::Module(_) => unreachable!("no record is made for such a value"),
        }
    }

    /// The record that is being written.
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            Object::List(list) => list.record(),
            Object::Set(set) => set.record(),
            Object::ZSet(zset) => zset.record(),
            Object::Hash(hash) => hash.fields().record(),
            Object::Stream(stream) => stream.record(),
            Object::Module(_) => None,
        }
    }

    /// Writes parts until `is_over` says that it is enough, and returns what is written. It is asked before each part, if there
    /// is one.
    pub(super) fn save_some(&mut self, is_over: &mut dyn FnMut() -> bool) -> Vec<u8> {
        match self {
            Object::List(list) => list.save_some(is_over),
            Object::Set(set) => set.save_some(is_over),
            Object::ZSet(zset) => zset.save_some(is_over),
            Object::Hash(hash) => hash.fields_mut().save_some(is_over),
            Object::Stream(stream) => stream.save_some(is_over),
            Object::Module(_) => Vec::new(),
        }
    }

    /// From here on changes are not watched any more.
    pub(super) fn end_saving(&mut self) -> Option<Record> {
        match self {
            Object::List(list) => list.end_saving(),
            Object::Set(set) => set.end_saving(),
            Object::ZSet(zset) => zset.end_saving(),
            Object::Hash(hash) => hash.fields_mut().end_saving(),
            Object::Stream(stream) => stream.end_saving(),
            Object::Module(_) => None,
        }
    }

    /// Whether nothing is left of it, so that its key is removed. A stream may be empty.
    pub fn is_emptied(&self) -> bool {
        match self {
            Object::List(_) | Object::Set(_) | Object::ZSet(_) | Object::Hash(_) => self.is_empty(),
            Object::Stream(_) | Object::Module(_) => false,
        }
    }
}

impl Clone for Object {
    fn clone(&self) -> Object {
        self.duplicate()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} elements", self.value_type(), self.len())
    }
}
