//! Lists. A small one is a single listpack; a big one is a [`List`], a sequence of nodes, each of which is a listpack of
//! limited length. This is Redis' quicklist, but for how the nodes are held: see `nodes`.
//!
//! With a compress depth of d, the first d and the last d nodes are as they are, and those between them are compressed
//! with LZF where that gains something. A node that is to be changed is decompressed, and compressed again at the end
//! of the change.
//!
//! [`ListRef`] reads a list of either form, and [`ListMut`] changes one in its entry.

mod edit;
mod node;
mod nodes;
mod save;
mod value;

pub use node::{End, Limits, NodeRef};
pub use value::ListMut;

use crate::types::listpack::{Item, Listpack};
use crate::types::{Collection, Encoding, Object, OwnedValue, PackedKind};
use node::Node;
use nodes::{Nodes, Place};

/// A change in the middle of a list makes at most so many nodes more.
const NEW_NODES_MAX: usize = 2;

/// A list of so many nodes is expected to grow by further ones, which get all their memory at once.
const LONG_FROM_NODES: usize = 8;

/// A big list.
#[derive(Clone)]
pub struct List {
    nodes: Nodes,
    /// As they were when it was made.
    limits: Limits,
}

impl List {
    pub fn new(limits: Limits) -> List {
        List { nodes: Nodes::default(), limits }
    }

    /// The list of a listpack's elements.
    pub fn from_listpack(listpack: Listpack<'_>, limits: Limits) -> List {
        let mut list = List::new(limits);
        list.append_listpack(listpack.as_bytes().to_vec());
        list
    }

    /// The list as a value: packed, if it is short enough. `None`: it has no elements.
    pub fn into_value(self) -> Option<OwnedValue> {
        let first = self.nodes.end(End::Head)?;
        let node = self.nodes.at(first);
        if let Some(listpack) =
            node.listpack().filter(|_| self.node_count() == 1 && node.is_within(&self.limits))
        {
            return Some(OwnedValue::Packed(PackedKind::List, listpack.as_bytes().to_vec()));
        }
        Some(OwnedValue::Object(Box::new(Object::List(self))))
    }

    pub fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// Its only node, if that is far from the limits.
    fn as_small(&self) -> Option<Listpack<'_>> {
        let place = self.nodes.end(End::Head).filter(|_| self.node_count() == 1)?;
        let listpack = self.nodes.at(place).listpack()?;
        self.limits.allow(4 * listpack.bytes_len(), 4 * listpack.len()).then_some(listpack)
    }

    /// Appends the elements of a valid listpack, as a node, which may be longer than the limits allow.
    pub fn append_listpack(&mut self, bytes: Vec<u8>) {
        if !Listpack::new(&bytes).is_empty() {
            self.push_node(End::Tail, Node::packed(bytes));
        }
    }

    /// Appends an element that is a node by itself.
    pub fn append_plain(&mut self, bytes: Vec<u8>) {
        self.push_node(End::Tail, Node::plain(bytes));
    }

    /// Calls `visit` with the contents of all nodes, in order.
    pub fn visit_nodes(&self, mut visit: impl FnMut(NodeRef<'_>)) {
        let mut buffer = Vec::new();
        self.nodes.iter().for_each(|node| visit(node.read(&mut buffer)));
    }

    /// Calls `visit` with the elements from `index` on, until it returns false.
    pub fn walk(&self, index: usize, mut visit: impl FnMut(Item<'_>) -> bool) {
        let Some((mut place, mut index)) = self.nodes.locate(index) else { return };
        let mut buffer = Vec::new();
        while self.nodes.at(place).read(&mut buffer).walk(index, &mut visit) {
            let Some(next) = self.nodes.next(place) else { return };
            (place, index) = (next, 0);
        }
    }

    /// The same backwards, from `index` to the first one.
    pub fn walk_back(&self, index: usize, mut visit: impl FnMut(Item<'_>) -> bool) {
        let Some((mut place, mut index)) = self.nodes.locate(index) else { return };
        let mut buffer = Vec::new();
        while self.nodes.at(place).read(&mut buffer).walk_back(index, &mut visit) {
            let Some(prev) = self.nodes.prev(place) else { return };
            (place, index) = (prev, self.nodes.at(prev).len() - 1);
        }
    }

    /// The element at an end.
    pub fn peek(&self, end: End) -> Option<Item<'_>> {
        // The nodes at the ends are never compressed.
        self.nodes.end(end).and_then(|place| self.nodes.at(place).contents().end(end))
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, end: End, item: Item<'_>) {
        if let Some(place) = self.nodes.end(end) {
            if self.nodes.at(place).accepts(item, &self.limits) {
                let limits = &self.limits;
                self.nodes.change(place, |node| node.push(end, item, limits));
                return;
            }
            self.nodes.change(place, Node::shrink);
        }
        let mut node = Node::of(item, &self.limits);
        if self.node_count() >= LONG_FROM_NODES {
            node.reserve_all(&self.limits);
        }
        self.push_node(end, node);
    }

    fn push_node(&mut self, end: End, node: Node) {
        self.nodes.push(end, node);
        self.compress_inner();
    }

    /// Removes `count` elements, or as many as there are, at an end.
    pub fn remove(&mut self, end: End, mut count: usize) {
        while count > 0 {
            let Some(place) = self.nodes.end(end) else { return };
            let len = self.nodes.at(place).len();
            if count < len {
                self.nodes.change(place, |node| node.remove_at(end, count));
                return;
            }
            self.remove_end_node(end);
            count -= len;
        }
    }

    /// Returns whether there was one.
    fn remove_end_node(&mut self, end: End) -> bool {
        let Some(place) = self.nodes.end(end) else { return false };
        self.nodes.remove(place);
        self.compress_inner();
        true
    }

    /// Decompresses the nodes at either end, and compresses those behind them that may have been among them.
    fn compress_inner(&mut self) {
        let depth = self.limits.compress_depth;
        if depth == 0 {
            return;
        }
        for end in [End::Head, End::Tail] {
            let mut place = self.nodes.end(end);
            for _ in 0..depth {
                let Some(at) = place else { break };
                self.decompress(at);
                place = self.nodes.away_from(end, at);
            }
            for _ in 0..NEW_NODES_MAX {
                let Some(at) = place else { break };
                self.compress(at);
                place = self.nodes.away_from(end, at);
            }
        }
    }

    fn decompress(&mut self, place: Place) {
        if self.nodes.at(place).is_compressed() {
            self.nodes.change(place, Node::decompress);
        }
    }

    /// Compresses a node if it is not one of those at the ends.
    fn compress(&mut self, place: Place) {
        let depth = self.limits.compress_depth;
        if depth == 0 || [End::Head, End::Tail].iter().any(|&end| self.is_near(end, place, depth)) {
            return;
        }
        self.nodes.change(place, Node::compress);
    }

    /// Whether a node is one of the `depth` at an end.
    fn is_near(&self, end: End, place: Place, depth: usize) -> bool {
        let mut at = self.nodes.end(end);
        for _ in 0..depth {
            match at {
                Some(near) if near == place => return true,
                Some(near) => at = self.nodes.away_from(end, near),
                None => return true,
            }
        }
        false
    }
}

impl Collection for List {
    #[inline]
    fn len(&self) -> usize {
        self.nodes.len()
    }

    fn heap_bytes(&self) -> usize {
        size_of::<List>() + self.nodes.heap_bytes()
    }

    fn free_cost(&self) -> usize {
        self.node_count()
    }

    fn free_some(&mut self, budget: &mut usize) -> bool {
        while *budget > 0 && self.remove_end_node(End::Tail) {
            *budget -= 1;
        }
        self.is_empty()
    }

    fn duplicate(&self) -> List {
        self.clone()
    }

    fn encoding(&self) -> Encoding {
        Encoding::Quicklist
    }
}

/// A list of either form, to be read.
#[derive(Clone, Copy)]
pub enum ListRef<'a> {
    Packed(Listpack<'a>),
    Big(&'a List),
}

impl<'a> ListRef<'a> {
    #[inline]
    pub fn len(self) -> usize {
        match self {
            ListRef::Packed(listpack) => listpack.len(),
            ListRef::Big(list) => list.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element at an end.
    #[inline]
    pub fn peek(self, end: End) -> Option<Item<'a>> {
        match self {
            ListRef::Packed(listpack) => NodeRef::Packed(listpack).end(end),
            ListRef::Big(list) => list.peek(end),
        }
    }

    /// Calls `visit` with the elements from `index` on, until it returns false.
    #[inline]
    pub fn walk(self, index: usize, visit: impl FnMut(Item<'_>) -> bool) {
        match self {
            ListRef::Packed(listpack) => {
                NodeRef::Packed(listpack).walk(index, visit);
            }
            ListRef::Big(list) => list.walk(index, visit),
        }
    }

    /// The same backwards, from `index` to the first one.
    pub fn walk_back(self, index: usize, visit: impl FnMut(Item<'_>) -> bool) {
        match self {
            ListRef::Packed(listpack) => {
                NodeRef::Packed(listpack).walk_back(index, visit);
            }
            ListRef::Big(list) => list.walk_back(index, visit),
        }
    }

    /// The index of the first element that equals `element`.
    pub fn position(self, element: &[u8]) -> Option<usize> {
        let element = Item::of(element);
        let (mut index, mut is_found) = (0, false);
        self.walk(0, |item| {
            is_found = item == element;
            index += usize::from(!is_found);
            !is_found
        });
        is_found.then_some(index)
    }

    /// The index of an argument that counts from the end if it is negative. `None`: there is no such element.
    pub fn index(self, index: i64) -> Option<usize> {
        let len = self.len();
        let index = if index < 0 { len.checked_sub(index.unsigned_abs() as usize)? } else { index as usize };
        (index < len).then_some(index)
    }
}

#[cfg(test)]
mod tests;
