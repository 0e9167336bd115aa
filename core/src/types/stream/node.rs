//! A node: consecutive entries of a stream in one listpack, in Redis' layout, which RDB files and DUMP copy.
//!
//! ```text
//! count   deleted   n   name 1 ... name n   0                    the master entry
//! flags   ms   seq   value 1 ... value n   elements              an entry that has the master's fields
//! flags   ms   seq   m   name 1   value 1 ...   elements         any other entry
//! ```
//!
//! `count` entries are there, `deleted` ones are marked as deleted. `ms` and `seq` are the differences to the ID of the
//! first entry, which is the node's key. `elements` is the number of elements of the entry before it, by which entries
//! are walked from the end.

use super::StreamId;
use crate::types::blob::Blob;
use crate::types::listpack::{self, Damage, Item, Listpack, ListpackMut};
use smallvec::SmallVec;

/// The flag of an entry that was deleted.
const DELETED: i64 = 1;
/// The flag of an entry that has the fields of the master entry.
const SAME_FIELDS: i64 = 2;

/// The bound of a node if stream-node-max-bytes is 0, or above it.
pub(super) const LEN_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(LEN_BYTES_MAX <= listpack::LEN_BYTES_MAX);

/// The position of the first element of a listpack: `count`.
const COUNT_AT: usize = 6;

/// How much a node may contain: stream-node-max-bytes and stream-node-max-entries; 0: any number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeLimits {
    pub max_bytes: u64,
    pub max_entries: u64,
}

/// The names and values of an entry that is to be added, in turn.
#[derive(Default)]
pub struct NewEntry<'a> {
    items: SmallVec<[Item<'a>; 8]>,
    /// Bytes of all names and values.
    len_bytes: usize,
}

impl<'a> NewEntry<'a> {
    #[inline]
    pub fn push(&mut self, name_or_value: &'a [u8]) {
        self.len_bytes += name_or_value.len();
        self.items.push(Item::of(name_or_value));
    }

    /// Bytes of all names and values.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    #[inline]
    fn names(&self) -> impl Iterator<Item = Item<'a>> + '_ {
        self.items.iter().copied().step_by(2)
    }

    #[inline]
    fn values(&self) -> impl Iterator<Item = Item<'a>> + '_ {
        self.items.iter().copied().skip(1).step_by(2)
    }
}

/// A node that can be changed.
#[derive(Clone)]
pub(super) struct Node {
    listpack: Vec<u8>,
}

/// A node to read.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    listpack: Listpack<'a>,
}

/// The master entry, and where its parts are.
#[derive(Clone, Copy)]
struct Master {
    count: i64,
    deleted: i64,
    deleted_at: usize,
    field_count: usize,
    names_at: usize,
}

#[inline]
fn after(listpack: Listpack<'_>, pos: usize) -> usize {
    listpack.next(pos).unwrap_or_else(|| listpack.end())
}

#[inline]
fn integer(listpack: Listpack<'_>, pos: usize) -> i64 {
    match listpack.at(pos) {
        Item::Int(number) => number,
        Item::Str(_) => panic!("a stream node has a number at offset {pos}"),
    }
}

impl Master {
    #[inline]
    fn of(listpack: Listpack<'_>) -> Master {
        let deleted_at = after(listpack, COUNT_AT);
        let field_count_at = after(listpack, deleted_at);
        Master {
            count: integer(listpack, COUNT_AT),
            deleted: integer(listpack, deleted_at),
            deleted_at,
            field_count: integer(listpack, field_count_at) as usize,
            names_at: after(listpack, field_count_at),
        }
    }

    /// Where the first entry begins.
    #[inline]
    fn end(&self, listpack: Listpack<'_>) -> usize {
        let mut pos = self.names_at;
        for _ in 0..=self.field_count {
            pos = after(listpack, pos);
        }
        pos
    }
}

impl Node {
    /// A node of one entry, whose names the master entry has.
    pub(super) fn of_one(id: StreamId, entry: &NewEntry<'_>) -> Node {
        let mut node = Node { listpack: listpack::EMPTY.to_vec() };
        let mut items: SmallVec<[Item<'_>; 16]> = SmallVec::new();
        items.extend([Item::Int(0), Item::Int(0), Item::Int(entry.items.len() as i64 / 2)]);
        items.extend(entry.names());
        items.push(Item::Int(0));
        ListpackMut::new(&mut node.listpack).extend(&items);
        let master = Master::of(node.listpack());
        node.push(&master, id, id, entry);
        node
    }

    /// A node of foreign bytes. Returns it with the number of its entries.
    ///
    /// # Errors
    /// They are not a node, or it has no entry. Without `deep`, only the master entry is looked at.
    pub(super) fn from_listpack(
        bytes: Vec<u8>,
        first_id: StreamId,
        deep: bool,
    ) -> Result<(Node, u64), Damage> {
        listpack::validate(&bytes, deep)?;
        let count = validate(Listpack::new(&bytes), first_id, deep)?;
        Ok((Node::of(bytes), count))
    }

    /// `listpack` is a node.
    pub(super) fn of(listpack: Vec<u8>) -> Node {
        Node { listpack }
    }

    #[inline]
    pub(super) fn as_ref(&self) -> NodeRef<'_> {
        NodeRef { listpack: self.listpack() }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.listpack
    }

    #[inline]
    fn listpack(&self) -> Listpack<'_> {
        Listpack::new(&self.listpack)
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.listpack.capacity()
    }

    /// Whether the entry fits.
    #[inline]
    fn has_room_for(&self, master: &Master, entry: &NewEntry<'_>, limits: NodeLimits) -> bool {
        let max_bytes = match limits.max_bytes {
            1..=0x4000_0000 => limits.max_bytes as usize,
            _ => LEN_BYTES_MAX,
        };
        if self.listpack.len() + entry.len_bytes >= max_bytes {
            return false;
        }
        limits.max_entries == 0 || ((master.count + master.deleted) as u64) < limits.max_entries
    }

    /// Adds an entry at the end, if it fits. `first_id`: the node's key. Returns whether it did.
    #[inline]
    pub(super) fn push_if_fits(
        &mut self,
        first_id: StreamId,
        id: StreamId,
        entry: &NewEntry<'_>,
        limits: NodeLimits,
    ) -> bool {
        let master = Master::of(self.listpack());
        let fits = self.has_room_for(&master, entry, limits);
        if fits {
            self.push(&master, first_id, id, entry);
        }
        fits
    }

    #[inline]
    fn push(&mut self, master: &Master, first_id: StreamId, id: StreamId, entry: &NewEntry<'_>) {
        let listpack = self.listpack();
        let field_count = entry.items.len() / 2;
        let is_same = master.field_count == field_count && {
            let mut pos = master.names_at;
            entry.names().all(|name| {
                let at = pos;
                pos = after(listpack, at);
                listpack.at(at) == name
            })
        };

        let mut items: SmallVec<[Item<'_>; 16]> = SmallVec::new();
        let ms = id.ms.wrapping_sub(first_id.ms) as i64;
        let seq = id.seq.wrapping_sub(first_id.seq) as i64;
        items.extend([Item::Int(if is_same { SAME_FIELDS } else { 0 }), Item::Int(ms), Item::Int(seq)]);
        if is_same {
            items.extend(entry.values());
        } else {
            items.push(Item::Int(field_count as i64));
            items.extend(entry.items.iter().copied());
        }
        items.push(Item::Int(items.len() as i64));
        ListpackMut::new(&mut self.listpack).extend(&items);
        self.set_integer(COUNT_AT, master.count + 1);
    }

    /// Replaces the number at `pos`. Nothing moves if both are small.
    #[inline]
    fn set_integer(&mut self, pos: usize, number: i64) {
        const SMALL: i64 = 128;
        if self.listpack[pos] < SMALL as u8 && (0..SMALL).contains(&number) {
            self.listpack.bytes_mut()[pos] = number as u8;
        } else {
            ListpackMut::new(&mut self.listpack).replace(pos, number);
        }
    }

    /// Marks an entry as deleted. Returns whether it was there.
    pub(super) fn delete(&mut self, first_id: StreamId, id: StreamId) -> bool {
        let mut entries = self.as_ref().entries(first_id);
        let found = entries.find(|entry| entry.id >= id).filter(|entry| entry.id == id);
        let Some(flags_at) = found.map(|entry| entry.flags_at) else { return false };
        self.mark(flags_at);
        self.count_deleted(1);
        true
    }

    fn mark(&mut self, flags_at: usize) {
        let flags = integer(self.listpack(), flags_at);
        self.set_integer(flags_at, flags | DELETED);
    }

    fn count_deleted(&mut self, deleted: i64) {
        let master = Master::of(self.listpack());
        // The later one first: the other may move it.
        self.set_integer(master.deleted_at, master.deleted + deleted);
        self.set_integer(COUNT_AT, master.count - deleted);
    }

    /// Marks the first entries as deleted, as long as `trims` says so of an entry's ID and how many were deleted before.
    /// Returns how many.
    pub(super) fn delete_first(
        &mut self,
        first_id: StreamId,
        mut trims: impl FnMut(StreamId, u64) -> bool,
    ) -> u64 {
        let mut found = Vec::new();
        for entry in self.as_ref().entries(first_id) {
            if !trims(entry.id, found.len() as u64) {
                break;
            }
            found.push(entry.flags_at);
        }
        // A mark moves nothing: flags are small numbers.
        for &flags_at in &found {
            self.mark(flags_at);
        }
        if !found.is_empty() {
            self.count_deleted(found.len() as i64);
        }
        found.len() as u64
    }
}

impl<'a> NodeRef<'a> {
    /// `bytes` are a node.
    #[inline]
    pub(super) fn of(bytes: &'a [u8]) -> NodeRef<'a> {
        NodeRef { listpack: Listpack::new(bytes) }
    }

    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.listpack.as_bytes()
    }

    /// How many entries there are, not counting deleted ones.
    #[inline]
    pub(super) fn count(self) -> u64 {
        integer(self.listpack, COUNT_AT) as u64
    }

    /// The ID of the last entry, whether it is deleted or not.
    pub(super) fn last_id(self, first_id: StreamId) -> StreamId {
        let entries = self.entries(first_id);
        entries.entry_at(entries.last_at()).0.id
    }

    /// The entries that are not deleted.
    #[inline]
    pub fn entries(self, first_id: StreamId) -> NodeEntries<'a> {
        let listpack = self.listpack;
        let master = Master::of(listpack);
        let front = master.end(listpack);
        NodeEntries { listpack, master, first_id, front, back: listpack.end() }
    }
}

/// An entry of a stream.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub id: StreamId,
    listpack: Listpack<'a>,
    flags_at: usize,
    /// Where the names are, if they are those of the master entry.
    names_at: Option<usize>,
    /// Where the first value is, or the first name.
    contents_at: usize,
    field_count: usize,
}

impl<'a> Entry<'a> {
    #[inline]
    pub fn field_count(&self) -> usize {
        self.field_count
    }

    /// Its fields, each a name and a value, in the order in which they were given.
    #[inline]
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            listpack: self.listpack,
            names_at: self.names_at,
            pos: self.contents_at,
            left: self.field_count,
        }
    }
}

/// The fields of an entry.
pub struct Fields<'a> {
    listpack: Listpack<'a>,
    names_at: Option<usize>,
    pos: usize,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name_at = self.names_at.unwrap_or(self.pos);
        let after_name = after(self.listpack, name_at);
        match &mut self.names_at {
            Some(names_at) => *names_at = after_name,
            None => self.pos = after_name,
        }
        let value_at = self.pos;
        self.pos = after(self.listpack, value_at);
        Some((self.listpack.at(name_at), self.listpack.at(value_at)))
    }
}

/// The entries of a node, from both ends.
pub struct NodeEntries<'a> {
    listpack: Listpack<'a>,
    master: Master,
    first_id: StreamId,
    front: usize,
    back: usize,
}

impl<'a> NodeEntries<'a> {
    /// Where the entry before `back` begins.
    #[inline]
    fn last_at(&self) -> usize {
        let before = |pos| self.listpack.prev(pos).expect("an entry ends with the number of its elements");
        let mut pos = before(self.back);
        for _ in 0..integer(self.listpack, pos) {
            pos = before(pos);
        }
        pos
    }

    /// The entry whose flags are at `pos`, the position behind it, and whether it is deleted.
    #[inline]
    fn entry_at(&self, flags_at: usize) -> (Entry<'a>, usize, bool) {
        let listpack = self.listpack;
        let flags = integer(listpack, flags_at);
        let ms_at = after(listpack, flags_at);
        let seq_at = after(listpack, ms_at);
        let id = StreamId {
            ms: self.first_id.ms.wrapping_add(integer(listpack, ms_at) as u64),
            seq: self.first_id.seq.wrapping_add(integer(listpack, seq_at) as u64),
        };
        let mut contents_at = after(listpack, seq_at);
        let is_same = flags & SAME_FIELDS != 0;
        let (names_at, field_count, item_count) = if is_same {
            (Some(self.master.names_at), self.master.field_count, self.master.field_count)
        } else {
            let field_count = integer(listpack, contents_at) as usize;
            contents_at = after(listpack, contents_at);
            (None, field_count, 2 * field_count)
        };
        let mut end = contents_at;
        for _ in 0..=item_count {
            end = after(listpack, end);
        }
        (Entry { id, listpack, flags_at, names_at, contents_at, field_count }, end, flags & DELETED != 0)
    }
}

impl<'a> Iterator for NodeEntries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        while self.front < self.back {
            let (entry, end, is_deleted) = self.entry_at(self.front);
            self.front = end;
            if !is_deleted {
                return Some(entry);
            }
        }
        None
    }
}

impl DoubleEndedIterator for NodeEntries<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        while self.front < self.back {
            self.back = self.last_at();
            let (entry, _, is_deleted) = self.entry_at(self.back);
            if !is_deleted {
                return Some(entry);
            }
        }
        None
    }
}

/// Checks foreign bytes, which are a valid listpack (with `deep`; else its header is). Returns the number of entries.
fn validate(listpack: Listpack<'_>, first_id: StreamId, deep: bool) -> Result<u64, Damage> {
    let mut reader = Reader { listpack, pos: COUNT_AT };
    let count = reader.count()?;
    let deleted = reader.count()?;
    let field_count = reader.count()?;
    if count == 0 {
        return Err(Damage { offset: COUNT_AT, what: "a stream node without entries" });
    }
    if !deep {
        return Ok(count);
    }
    reader.skip(field_count)?;
    reader.expect(0, "a master entry without its end")?;

    let (mut live, mut dead, mut last_id) = (0, 0, None);
    while reader.pos < listpack.end() {
        let at = reader.pos;
        let flags = reader.integer()?;
        let ms = first_id.ms.wrapping_add(reader.integer()? as u64);
        let id = StreamId { ms, seq: first_id.seq.wrapping_add(reader.integer()? as u64) };
        if last_id.is_some_and(|last_id| last_id >= id) || id < first_id {
            return Err(Damage { offset: at, what: "an entry ID that is too small" });
        }
        last_id = Some(id);
        let elements = if flags & SAME_FIELDS != 0 {
            reader.skip(field_count)?;
            3 + field_count
        } else {
            let field_count = reader.count()?;
            reader.skip(field_count.saturating_mul(2))?;
            4 + 2 * field_count
        };
        reader.expect(elements, "an entry with another number of elements")?;
        *(if flags & DELETED != 0 { &mut dead } else { &mut live }) += 1;
    }
    if (live, dead) != (count, deleted) {
        return Err(Damage { offset: COUNT_AT, what: "a stream node with another number of entries" });
    }
    Ok(count)
}

/// Reads a listpack that may not be a node.
struct Reader<'a> {
    listpack: Listpack<'a>,
    pos: usize,
}

impl Reader<'_> {
    fn integer(&mut self) -> Result<i64, Damage> {
        if self.pos >= self.listpack.end() {
            return Err(Damage { offset: self.pos, what: "a stream node that ends too early" });
        }
        match self.listpack.at(self.pos) {
            Item::Int(number) => {
                self.pos = after(self.listpack, self.pos);
                Ok(number)
            }
            Item::Str(_) => Err(Damage { offset: self.pos, what: "a string instead of a number" }),
        }
    }

    fn count(&mut self) -> Result<u64, Damage> {
        let at = self.pos;
        u64::try_from(self.integer()?).map_err(|_| Damage { offset: at, what: "a negative number" })
    }

    fn expect(&mut self, expected: u64, what: &'static str) -> Result<(), Damage> {
        let at = self.pos;
        if self.count()? == expected { Ok(()) } else { Err(Damage { offset: at, what }) }
    }

    fn skip(&mut self, elements: u64) -> Result<(), Damage> {
        for _ in 0..elements {
            if self.pos >= self.listpack.end() {
                return Err(Damage { offset: self.pos, what: "a stream node that ends too early" });
            }
            self.pos = after(self.listpack, self.pos);
        }
        Ok(())
    }
}
