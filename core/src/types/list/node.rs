//! Node: a run of a big list's elements, as a listpack, which may be compressed, or one big element by itself.

use crate::types::blob::Blob;
use crate::types::listpack::{self, Item, Listpack, ListpackMut};
use crate::types::lzf;

/// Listpacks shorter than this are not compressed.
const COMPRESSED_FROM_BYTES: usize = 48;
/// What compression has to save.
const COMPRESSION_GAIN_BYTES: usize = 8;

/// How long nodes may get, and which of them are compressed: list-max-listpack-size, list-compress-depth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    node_bytes_max: usize,
    node_len_max: usize,
    /// A longer element is a node by itself, without a listpack.
    element_bytes_max: usize,
    /// So many nodes at either end are not compressed. 0: none is compressed.
    pub compress_depth: usize,
}

impl Limits {
    /// Nodes that are limited by their number of elements are limited to so many bytes, too.
    const BYTES_MAX_BY_COUNT: usize = 8192;
    const LEN_MAX: i32 = i16::MAX as i32;

    /// The element length beyond which it is not kept in a listpack. Redis' packed threshold.
    pub const ELEMENT_BYTES_MAX: usize = listpack::LEN_BYTES_MAX - 1;

    /// `node_size` is a number of elements, or if it is -1 to -5 a number of bytes: 4, 8, 16, 32 or 64 KiB. Others
    /// mean the nearest one.
    pub fn new(node_size: i32, compress_depth: u32, element_bytes_max: usize) -> Limits {
        let (node_bytes_max, node_len_max) = match node_size {
            ..0 => (4096 << (-1 - node_size.max(-5)), usize::MAX),
            0.. => (Self::BYTES_MAX_BY_COUNT, node_size.clamp(1, Self::LEN_MAX) as usize),
        };
        Limits { node_bytes_max, node_len_max, element_bytes_max, compress_depth: compress_depth as usize }
    }

    /// Whether a listpack may have so many bytes and elements. One element is always allowed.
    #[inline]
    pub fn allow(&self, bytes_len: usize, len: usize) -> bool {
        len <= 1 || (bytes_len <= self.node_bytes_max && len <= self.node_len_max)
    }

    /// Whether a listpack may take another element.
    #[inline]
    pub fn allow_push(&self, listpack: Listpack<'_>, item: Item<'_>) -> bool {
        self.is_packed(item)
            && self.allow(listpack.bytes_len() + listpack::item_len(item), listpack.len() + 1)
    }

    /// Whether an element is kept in a listpack.
    #[inline]
    pub fn is_packed(&self, item: Item<'_>) -> bool {
        match item {
            Item::Str(bytes) => bytes.len() <= self.element_bytes_max,
            Item::Int(_) => true,
        }
    }
}

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Head,
    Tail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A listpack.
    Packed,
    /// A listpack, compressed.
    Compressed,
    /// The bytes of a single element.
    Plain,
}

#[derive(Clone)]
pub(super) struct Node {
    bytes: Vec<u8>,
    /// How many elements it has.
    len: u32,
    /// The length of the listpack, if that is compressed.
    unpacked_len: u32,
    form: Form,
    /// It was tried to compress it, and nothing was gained.
    is_incompressible: bool,
    /// While the list is saved: its place among the nodes that are to be written, from 1 on; 0: it is none of them.
    pub(super) ordinal: u32,
}

const _: () = assert!(size_of::<Node>() <= 40);

/// The contents of a node.
#[derive(Clone, Copy)]
pub enum NodeRef<'a> {
    Packed(Listpack<'a>),
    /// A single element.
    Plain(&'a [u8]),
}

impl<'a> NodeRef<'a> {
    /// Calls `visit` with the elements from `index` on, until it returns false. Returns whether it never did.
    #[inline]
    pub(in crate::types) fn walk(self, index: usize, mut visit: impl FnMut(Item<'a>) -> bool) -> bool {
        match self {
            NodeRef::Packed(listpack) => match listpack.seek(index as isize) {
                Some(pos) => listpack.iter_from(pos).all(|(_, item)| visit(item)),
                None => true,
            },
            NodeRef::Plain(bytes) => visit(Item::of(bytes)),
        }
    }

    /// The same backwards, from `index` to the first one.
    #[inline]
    pub(super) fn walk_back(self, index: usize, mut visit: impl FnMut(Item<'a>) -> bool) -> bool {
        match self {
            NodeRef::Packed(listpack) => match listpack.seek(index as isize) {
                Some(pos) => listpack.iter_to(pos).rev().all(|(_, item)| visit(item)),
                None => true,
            },
            NodeRef::Plain(bytes) => visit(Item::of(bytes)),
        }
    }

    /// Whether one of the elements equals `element`.
    pub(super) fn has(self, element: &[u8]) -> bool {
        match self {
            NodeRef::Packed(listpack) => {
                listpack.first().is_some_and(|first| listpack.find(element, first, 0).is_some())
            }
            NodeRef::Plain(bytes) => bytes == element,
        }
    }

    /// The element at an end.
    pub(super) fn end(self, end: End) -> Option<Item<'a>> {
        match (self, end) {
            (NodeRef::Packed(listpack), End::Head) => listpack.first().map(|pos| listpack.at(pos)),
            (NodeRef::Packed(listpack), End::Tail) => listpack.last().map(|pos| listpack.at(pos)),
            (NodeRef::Plain(bytes), _) => Some(Item::of(bytes)),
        }
    }
}

impl Node {
    /// A node of one element.
    pub(super) fn of(item: Item<'_>, limits: &Limits) -> Node {
        match item {
            Item::Str(bytes) if !limits.is_packed(item) => Node::plain(bytes.to_vec()),
            item => {
                let mut bytes = Vec::with_capacity(listpack::EMPTY.len() + listpack::item_len(item));
                bytes.extend_from_slice(&listpack::EMPTY);
                ListpackMut::new(&mut bytes).push_back(item);
                Node::packed(bytes)
            }
        }
    }

    /// `bytes` are a valid listpack that is not empty.
    pub(super) fn packed(bytes: Vec<u8>) -> Node {
        let len = Listpack::new(&bytes).len() as u32;
        debug_assert!(len > 0);
        Node { bytes, len, unpacked_len: 0, form: Form::Packed, is_incompressible: false, ordinal: 0 }
    }

    pub(super) fn plain(bytes: Vec<u8>) -> Node {
        Node { bytes, len: 1, unpacked_len: 0, form: Form::Plain, is_incompressible: false, ordinal: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// The bytes that it owns.
    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.form == Form::Compressed
    }

    /// The contents of a node that is not compressed.
    #[inline]
    pub(super) fn contents(&self) -> NodeRef<'_> {
        match self.form {
            Form::Packed => NodeRef::Packed(Listpack::new(&self.bytes)),
            Form::Plain => NodeRef::Plain(&self.bytes),
            Form::Compressed => unreachable!("the node was decompressed before"),
        }
    }

    /// The contents; `buffer` holds them if the node is compressed.
    #[inline]
    pub(super) fn read<'a>(&'a self, buffer: &'a mut Vec<u8>) -> NodeRef<'a> {
        if !self.is_compressed() {
            return self.contents();
        }
        buffer.clear();
        self.decompress_into(buffer);
        NodeRef::Packed(Listpack::new(buffer))
    }

    fn decompress_into(&self, buffer: &mut Vec<u8>) {
        let is_whole = lzf::decompress(&self.bytes, self.unpacked_len as usize, buffer);
        assert!(is_whole, "a node is compressed by itself");
    }

    pub(super) fn decompress(&mut self) {
        if self.is_compressed() {
            let mut bytes = Vec::with_capacity(self.unpacked_len as usize);
            self.decompress_into(&mut bytes);
            self.bytes = bytes;
            self.form = Form::Packed;
        }
    }

    pub(super) fn compress(&mut self) {
        let is_short = self.bytes.len() < COMPRESSED_FROM_BYTES;
        if self.form != Form::Packed || self.is_incompressible || is_short {
            return;
        }
        let mut compressed = Vec::new();
        if !lzf::compress(&self.bytes, COMPRESSION_GAIN_BYTES, &mut compressed) {
            self.is_incompressible = true;
            return;
        }
        compressed.shrink_to_fit();
        self.unpacked_len = self.bytes.len() as u32;
        self.bytes = compressed;
        self.form = Form::Compressed;
    }

    /// The listpack of a node that is not compressed, if it is one.
    #[inline]
    pub(super) fn listpack(&self) -> Option<Listpack<'_>> {
        match self.contents() {
            NodeRef::Packed(listpack) => Some(listpack),
            NodeRef::Plain(_) => None,
        }
    }

    /// Whether it may take another element. The node is not compressed.
    #[inline]
    pub(super) fn accepts(&self, item: Item<'_>, limits: &Limits) -> bool {
        self.form == Form::Packed && {
            let bytes_len = self.bytes.len() + listpack::item_len(item);
            limits.is_packed(item) && limits.allow(bytes_len, self.len() + 1)
        }
    }

    /// Changes the listpack, of which there is one.
    #[inline]
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut ListpackMut<'_, Vec<u8>>) -> R) -> R {
        debug_assert!(self.form == Form::Packed);
        self.is_incompressible = false;
        let mut listpack = ListpackMut::new(&mut self.bytes);
        let result = change(&mut listpack);
        self.len = listpack.as_ref().len() as u32;
        result
    }

    /// Whether it is no longer than the limits allow. The node is not compressed.
    pub(super) fn is_within(&self, limits: &Limits) -> bool {
        self.form == Form::Plain || limits.allow(self.bytes.len(), self.len())
    }

    /// Makes room for another element: the capacity doubles, but not beyond the limit of nodes.
    #[inline]
    pub(super) fn reserve(&mut self, item: Item<'_>, limits: &Limits) {
        let len = self.bytes.len() + listpack::item_len(item);
        if len > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).min(limits.node_bytes_max).max(len);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// Makes room for as many elements as the limits allow.
    pub(super) fn reserve_all(&mut self, limits: &Limits) {
        if self.form == Form::Packed && self.bytes.len() < limits.node_bytes_max {
            self.bytes.reserve_exact(limits.node_bytes_max - self.bytes.len());
        }
    }

    #[inline]
    pub(super) fn push(&mut self, end: End, item: Item<'_>, limits: &Limits) {
        self.reserve(item, limits);
        self.is_incompressible = false;
        let mut listpack = ListpackMut::new(&mut self.bytes);
        match end {
            End::Head => listpack.push_front(item),
            End::Tail => listpack.push_back(item),
        }
        self.len += 1;
    }

    /// Gives back what it does not use, unless that is little.
    pub(super) fn shrink(&mut self) {
        if self.bytes.capacity() - self.bytes.len() > self.bytes.capacity() / 8 {
            self.bytes.shrink_to_fit();
        }
    }

    /// Removes `count` elements, fewer than it has, at an end.
    pub(super) fn remove_at(&mut self, end: End, count: usize) {
        let index = match end {
            End::Head => 0,
            End::Tail => -(count as isize),
        };
        self.change(|listpack| listpack.remove_range(index, count));
        if self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Removes the first `count` elements, from an end, that equal `element`. Returns how many there were. The node is not
    /// compressed; without elements it is to be dropped.
    pub(super) fn remove_equal(&mut self, element: &[u8], from: End, count: usize) -> usize {
        let len = self.len;
        if self.form == Form::Plain {
            self.len -= u32::from(self.bytes == element && count > 0);
        } else {
            self.change(|listpack| match from {
                End::Head => remove_first_equal(listpack, element, count),
                End::Tail => remove_last_equal(listpack, element, count),
            });
        }
        (len - self.len) as usize
    }

    /// Splits off the elements from `index` on, which is neither the first nor behind the last.
    pub(super) fn split_off(&mut self, index: usize) -> Node {
        let listpack = self.listpack().expect("a node of several elements is a listpack");
        let pos = listpack.seek(index as isize).expect("the index is within the node");
        let moved_len = self.bytes.len() - pos + listpack::EMPTY.len();
        let mut moved = Vec::with_capacity(moved_len);
        moved.extend_from_slice(&listpack::EMPTY);
        ListpackMut::new(&mut moved).append_many(listpack.iter_from(pos).map(|(_, item)| item));
        let count = self.len() - index;
        self.change(|listpack| listpack.remove(pos, count));
        self.bytes.shrink_to_fit();
        Node::packed(moved)
    }

    /// Whether `other`'s elements, which follow, may be appended to it. Neither is compressed.
    pub(super) fn accepts_all(&self, other: &Node, limits: &Limits) -> bool {
        let bytes_len = self.bytes.len() + other.bytes.len() - listpack::EMPTY.len();
        self.form == Form::Packed
            && other.form == Form::Packed
            && limits.allow(bytes_len, self.len() + other.len())
    }

    pub(super) fn append(&mut self, other: &Node) {
        let listpack = other.listpack().expect("the caller has asked whether it may be appended");
        self.bytes.reserve_exact(other.bytes.len());
        self.change(|to| to.append_many(listpack.iter().map(|(_, item)| item)));
    }
}

/// Removes the first `count` elements that equal `element`.
pub(super) fn remove_first_equal<B: Blob + ?Sized>(
    listpack: &mut ListpackMut<'_, B>,
    element: &[u8],
    count: usize,
) -> usize {
    let mut from = listpack.as_ref().first();
    for removed in 0..count {
        let found = from.and_then(|from| listpack.as_ref().find(element, from, 0));
        let Some(found) = found else { return removed };
        from = listpack.remove(found, 1);
    }
    count
}

/// Removes the last `count` elements that equal `element`.
pub(super) fn remove_last_equal<B: Blob + ?Sized>(
    listpack: &mut ListpackMut<'_, B>,
    element: &[u8],
    count: usize,
) -> usize {
    let needle = Item::of(element);
    let (mut at, mut removed) = (listpack.as_ref().last(), 0);
    while let Some(pos) = at.filter(|_| removed < count) {
        if listpack.as_ref().at(pos) == needle {
            listpack.remove(pos, 1);
            removed += 1;
        }
        at = listpack.as_ref().prev(pos);
    }
    removed
}
