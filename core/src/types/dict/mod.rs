//! Dict: the big form of hashes and sets. A table of strings, each with a value or without.
//!
//! ```text
//! chunks          pages (CHUNK_LEN to a chunk)
//! [ 0 ] --------> [ ][ ][ ][ ] ... [ ] -----> the elements of a page, packed: see `page`
//! [ 1 ] --------> [ ][ ]
//! ```
//!
//! Linear hashing (Litwin, VLDB 1980), with the loads of spiral storage (Martin, 1979). Think of the pages as the leaves
//! of a binary tree, whose nodes are numbered as those of a heap: the root is 1, and the children of node y are 2y and
//! 2y + 1. The path to a page's leaf is what the hashes of its elements begin with. With n pages, the leaves are n to
//! 2n - 1. When there are more than [`SPLIT_LEN`] elements a page, or [`SPLIT_BYTES`] bytes, leaf n is split in two, which
//! are 2n and 2n + 1, whichever page the element went into. When there is less than half of that, the last two leaves are
//! merged. So no insertion or removal moves more than the elements of one page, and there is no table of pointers to be
//! copied.
//!
//! The hashes are denser at their lower end, where leaves are split first (see [`hashing`](super::hashing)): leaf n has
//! twice the elements of leaf 2n - 1, and those between go from the one to the other, at any time. If all pages were
//! about to be split at the same time, the allocator would be left with slabs for sizes that hardly any page has at present:
//! measured, 14 bytes an element of 49. An element costs its bytes, 3 more, and
//! its share of a page's slack: measured, 23 resident bytes for a member of 17.
//!
//! Elements longer than [`INLINE_LEN_MAX`] lie [`outside`] the pages. An element of a page is the length of the key in a
//! byte, the key and the value, or just the key where there are no values. Outside, the length takes 8 bytes.
//!
//! *Scans* visit the pages in the order of their elements' hashes. In that order an element keeps its position however
//! many pages there are, and the cursor is such a position; so a scan returns each element that exists from its beginning
//! to its end exactly once, except that after a merge it may return some of the merged page again.
//!
//! *Random elements* are drawn by rejection: a page and one of `count_max` slots, until there is an element in it.
//! That is as likely to be any element as any other.

mod outside;
mod page;
mod save;
#[cfg(test)]
mod tests;

use super::directory::end_of_prefix;
use super::save::{Slot, Sweep};
use super::{below, hash_key, prefetch, same_bytes};
use outside::Outside;
use page::{DATA_LEN_MAX, OUTSIDE_LEN, Page, Stored};
use smallvec::SmallVec;

/// Elements a page above which one is split.
const SPLIT_LEN: usize = 32;
/// Bytes of elements a page above which one is split.
const SPLIT_BYTES: usize = 1024;
/// Longest element that lies in a page.
const INLINE_LEN_MAX: usize = 256;

const CHUNK_BITS: u32 = 8;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

/// Bits of the hash that a scan's cursor has, and so the most that number a page.
pub const DICT_CURSOR_BITS: u32 = 40;

const _: () = assert!(INLINE_LEN_MAX * 64 < DATA_LEN_MAX, "pages are filled unevenly");

/// A set of strings.
pub type DictSet = Dict<false>;
/// A map from strings to strings.
pub type DictMap = Dict<true>;

/// See the module's documentation. Without `VALUES` all values are empty.
#[derive(Clone)]
pub struct Dict<const VALUES: bool> {
    /// All chunks but the last are full.
    chunks: Vec<Vec<Page>>,
    page_count: usize,
    outside: Outside,
    len: usize,
    /// Bytes of the elements in all pages.
    data_bytes: usize,
    /// Bytes of the pages' allocations.
    page_bytes: usize,
    /// No page has more elements, and none has had since the dict had a single page.
    count_max: usize,
    /// While it is saved: where the sweep through the hashes continues; `None`: at the end.
    saving: Slot<Sweep<Option<u64>>>,
}

/// An element that is about to be looked up.
pub(super) struct Fetch<'a, const VALUES: bool> {
    dict: &'a Dict<VALUES>,
    hash: u64,
    is_page_fetched: bool,
}

impl<'a, const VALUES: bool> Fetch<'a, VALUES> {
    #[inline]
    pub(super) fn new(dict: &'a Dict<VALUES>, key: &[u8]) -> Self {
        let hash = dict_hash(key);
        prefetch((&raw const *dict.page(dict.page_index(hash))).cast());
        Fetch { dict, hash, is_page_fetched: false }
    }

    /// Fetches what is needed next, by what has been fetched before. Returns whether there is more.
    #[inline]
    pub(super) fn step(&mut self) -> bool {
        let goes_on = !self.is_page_fetched;
        if goes_on {
            self.dict.prefetch(self.hash);
            self.is_page_fetched = true;
        } else {
            self.dict.page(self.dict.page_index(self.hash)).prefetch_first(tag_of(self.hash));
        }
        goes_on
    }
}

/// Where an element is. Valid until an element is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    page: u32,
    slot: u32,
}

/// The hash by which a dict finds an element. The density halves from the lower end to the upper one.
#[inline]
pub fn dict_hash(key: &[u8]) -> u64 {
    !hash_key(key)
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    hash as u8
}

/// An element outside: see the module's documentation.
fn outside_element<const VALUES: bool>(key: &[u8], value: &[u8]) -> Box<[u8]> {
    if VALUES { [&(key.len() as u64).to_le_bytes(), key, value].concat().into() } else { key.into() }
}

fn split_outside<const VALUES: bool>(bytes: &[u8]) -> (&[u8], &[u8]) {
    if !VALUES {
        return (bytes, &[]);
    }
    let (key_len, rest) = bytes.split_first_chunk().expect("the length of the key");
    rest.split_at(u64::from_le_bytes(*key_len) as usize)
}

impl<const VALUES: bool> Default for Dict<VALUES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const VALUES: bool> Dict<VALUES> {
    pub fn new() -> Self {
        Dict {
            chunks: vec![vec![Page::default()]],
            page_count: 1,
            outside: Outside::default(),
            len: 0,
            data_bytes: 0,
            page_bytes: 0,
            count_max: 0,
            saving: Slot::EMPTY,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the dict owns, itself included.
    pub fn heap_bytes(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        let last = self.chunks.last().map_or(0, Vec::capacity);
        size_of::<Self>()
            + self.chunks.capacity() * size_of::<Vec<Page>>()
            + (full + last) * size_of::<Page>()
            + self.page_bytes
            + self.outside.heap_bytes()
    }

    /// How many allocations there are to free.
    pub fn free_cost(&self) -> usize {
        self.page_count + self.outside.free_cost()
    }

    /// Frees a part that costs no more than `budget`, and subtracts its cost. Returns whether nothing is left. The dict
    /// can only be freed further after this.
    pub fn free_some(&mut self, budget: &mut usize) -> bool {
        self.len = 0;
        if !self.outside.free_some(budget) {
            return false;
        }
        while *budget > 0
            && let Some(chunk) = self.chunks.last_mut()
        {
            let freed = chunk.len().min(*budget);
            let pages = chunk.drain(chunk.len() - freed..);
            self.page_bytes -= pages.map(|page| page.alloc_len()).sum::<usize>();
            self.page_count -= freed;
            *budget -= freed;
            if chunk.is_empty() {
                self.chunks.pop();
            }
        }
        self.chunks.is_empty()
    }

    #[inline]
    fn page(&self, index: usize) -> &Page {
        &self.chunks[index >> CHUNK_BITS][index % CHUNK_LEN]
    }

    #[inline]
    fn page_mut(&mut self, index: usize) -> &mut Page {
        &mut self.chunks[index >> CHUNK_BITS][index % CHUNK_LEN]
    }

    /// The leaf that the path of a hash leads to.
    #[inline]
    fn leaf(&self, hash: u64) -> u64 {
        // Leaves are as deep as this, or a bit less.
        let depth = self.page_count.ilog2() + 1;
        let leaf = 1 << depth | hash >> (u64::BITS - depth);
        if leaf < 2 * self.page_count as u64 { leaf } else { leaf >> 1 }
    }

    /// The number of a leaf's page. The lower child of a leaf gets its page, the upper one a new page.
    #[inline]
    fn page_of_leaf(leaf: u64) -> usize {
        (leaf >> leaf.trailing_zeros() >> 1) as usize
    }

    /// The number of the page of a hash.
    #[inline]
    fn page_index(&self, hash: u64) -> usize {
        Self::page_of_leaf(self.leaf(hash))
    }

    /// Fetches what a look-up of this hash reads first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        // Tags and offsets of some 32 elements, up to 200 bytes.
        let address = self.page(self.page_index(hash)).address();
        prefetch(address);
        prefetch(address.wrapping_add(64));
        prefetch(address.wrapping_add(128));
    }

    /// The bytes of an element: a key and, with `VALUES`, its length before it and the value after it.
    #[inline]
    fn split_element<'a>(&'a self, stored: Stored<'a>) -> (&'a [u8], &'a [u8]) {
        match stored {
            Stored::Inline(bytes) if VALUES => bytes[1..].split_at(usize::from(bytes[0])),
            Stored::Inline(bytes) => (bytes, &[]),
            Stored::Outside(number) => split_outside::<VALUES>(self.outside.get(number)),
        }
    }

    /// Where an element is, by its [`dict_hash`] and key.
    #[inline]
    pub fn place(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let page = self.page_index(hash);
        let is_it = |stored: Stored<'_>| same_bytes(self.split_element(stored).0, key);
        let slot = self.page(page).find(tag_of(hash), is_it)?;
        Some(Place { page: page as u32, slot: slot as u32 })
    }

    /// The key and the value of an element.
    #[inline]
    pub fn at(&self, place: Place) -> (&[u8], &[u8]) {
        self.split_element(self.page(place.page as usize).get(place.slot as usize))
    }

    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.place(dict_hash(key), key).is_some()
    }

    /// Removes a key. Returns whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let place = self.place(dict_hash(key), key);
        if let Some(place) = place {
            self.remove_at(place);
        }
        place.is_some()
    }

    /// Removes the element at a place.
    pub fn remove_at(&mut self, place: Place) {
        if !self.saving.is_empty() {
            self.save_before_removal(place);
        }
        let (index, slot) = (place.page as usize, place.slot as usize);
        if let Stored::Outside(number) = self.page(index).get(slot) {
            self.outside.remove(number);
        }
        self.change_page(index, |page| page.remove(slot));
        self.len -= 1;
        self.merge_if_sparse();
    }

    /// Adds an element whose key is not there yet.
    fn add(&mut self, hash: u64, key: &[u8], value: &[u8]) {
        if !self.saving.is_empty() {
            self.note_new(hash, key);
        }
        let index = self.page_index(hash);
        let len = usize::from(VALUES) + key.len() + value.len();
        if len <= INLINE_LEN_MAX && self.page(index).has_room(len) {
            self.change_page(index, |page| {
                let bytes = page.push(tag_of(hash), len, false);
                let bytes = if VALUES {
                    bytes[0] = key.len() as u8;
                    &mut bytes[1..]
                } else {
                    bytes
                };
                bytes[..key.len()].copy_from_slice(key);
                bytes[key.len()..].copy_from_slice(value);
            });
        } else {
            assert!(self.page(index).has_room(OUTSIDE_LEN), "the hashes of a dict's keys are not random");
            let number = self.outside.add(outside_element::<VALUES>(key, value)).to_le_bytes();
            self.change_page(index, |page| {
                page.push(tag_of(hash), OUTSIDE_LEN, true).copy_from_slice(&number);
            });
        }
        self.len += 1;
        self.count_max = self.count_max.max(self.page(index).count());
        self.split_if_full();
    }

    /// Changes a page, and keeps account of its size.
    #[inline]
    fn change_page(&mut self, index: usize, change: impl FnOnce(&mut Page)) {
        let page = &mut self.chunks[index >> CHUNK_BITS][index % CHUNK_LEN];
        let (alloc_len, data_len) = (page.alloc_len(), page.data_len());
        change(page);
        self.page_bytes = self.page_bytes + page.alloc_len() - alloc_len;
        self.data_bytes = self.data_bytes + page.data_len() - data_len;
    }

    /// Splits the first leaf if the dict is full.
    #[inline]
    fn split_if_full(&mut self) {
        if self.len > self.page_count * SPLIT_LEN || self.data_bytes > self.page_count * SPLIT_BYTES {
            self.split();
        }
    }

    #[cold]
    fn split(&mut self) {
        let leaf = self.page_count as u64;
        let (index, upper_index) = (Self::page_of_leaf(leaf), self.page_count);
        let bit = 1 << (u64::BITS - 1 - leaf.ilog2());
        let page = self.page(index);
        let goes_up: SmallVec<[bool; 4 * SPLIT_LEN]> = (0..page.count())
            .map(|slot| dict_hash(self.split_element(page.get(slot)).0) & bit != 0)
            .collect();
        let [lower, upper] = page.partitioned(&goes_up);
        self.page_bytes = self.page_bytes + lower.alloc_len() + upper.alloc_len() - page.alloc_len();
        *self.page_mut(index) = lower;
        if upper_index % CHUNK_LEN == 0 {
            self.chunks.push(Vec::new());
        }
        self.chunks[upper_index >> CHUNK_BITS].push(upper);
        self.page_count += 1;
    }

    /// Merges the last two leaves if the dict is not even half full.
    #[inline]
    fn merge_if_sparse(&mut self) {
        let full = self.page_count - 1;
        if full > 0 && self.len < full * SPLIT_LEN / 2 && self.data_bytes < full * SPLIT_BYTES / 2 {
            self.merge();
        }
    }

    #[cold]
    fn merge(&mut self) {
        let upper_index = self.page_count - 1;
        let index = Self::page_of_leaf(upper_index as u64);
        let upper = std::mem::take(self.page_mut(upper_index));
        if !self.page(index).has_room_for(&upper) {
            *self.page_mut(upper_index) = upper;
            return;
        }
        self.page_bytes -= upper.alloc_len();
        self.data_bytes -= upper.data_len();
        self.change_page(index, |page| page.append(&upper));
        self.count_max = self.count_max.max(self.page(index).count());

        let chunk = &mut self.chunks[upper_index >> CHUNK_BITS];
        chunk.pop();
        if chunk.is_empty() {
            self.chunks.pop();
        } else if chunk.len() <= chunk.capacity() / 4 {
            chunk.shrink_to(2 * chunk.len());
        }
        self.page_count -= 1;
        if self.page_count == 1 {
            self.count_max = self.page(0).count();
        }
    }

    /// Visits the elements of one page, and returns the cursor of the next; 0 is both the first and the end. Any number
    /// is a valid cursor.
    pub fn scan(&self, cursor: u64, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        let hash = cursor << (u64::BITS - DICT_CURSOR_BITS);
        let leaf = self.leaf(hash);
        let page = self.page(Self::page_of_leaf(leaf));
        for slot in 0..page.count() {
            let (key, value) = self.split_element(page.get(slot));
            visit(key, value);
        }
        end_of_prefix(hash, leaf.ilog2()).map_or(0, |next| next >> (u64::BITS - DICT_CURSOR_BITS))
    }

    /// All elements, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pages = self.chunks.iter().flatten();
        pages.flat_map(|page| (0..page.count()).map(|slot| self.split_element(page.get(slot))))
    }

    /// A random element, each as likely as any other.
    pub fn random(&self, random: &mut dyn FnMut() -> u64) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        loop {
            let at = below(self.page_count * self.count_max, random());
            let (page, slot) = (at / self.count_max, at % self.count_max);
            if slot < self.page(page).count() {
                return Some(Place { page: page as u32, slot: slot as u32 });
            }
        }
    }
}

impl Dict<false> {
    /// Adds a member. Returns whether it is new.
    #[inline]
    pub fn insert(&mut self, member: &[u8]) -> bool {
        self.insert_hashed(dict_hash(member), member)
    }

    /// The same with the member's [`dict_hash`].
    #[inline]
    pub fn insert_hashed(&mut self, hash: u64, member: &[u8]) -> bool {
        let is_new = self.place(hash, member).is_none();
        if is_new {
            self.add(hash, member, &[]);
        }
        is_new
    }
}

impl Dict<true> {
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.place(dict_hash(key), key).map(|place| self.at(place).1)
    }

    /// Sets a key's value. Returns whether the key is new.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> bool {
        let hash = dict_hash(key);
        match self.place(hash, key) {
            Some(place) => {
                self.set_at(place, key, value);
                false
            }
            None => {
                self.add(hash, key, value);
                true
            }
        }
    }

    /// Replaces the value of the element at a place.
    fn set_at(&mut self, place: Place, key: &[u8], value: &[u8]) {
        if !self.saving.is_empty() {
            self.save_before_change(place);
        }
        let (index, slot) = (place.page as usize, place.slot as usize);
        let prefix_len = 1 + key.len();
        let len = prefix_len + value.len();
        let fits = len <= INLINE_LEN_MAX && self.page(index).has_room(len);
        match self.page(index).get(slot) {
            Stored::Inline(bytes) if fits && bytes.len() == len => {
                self.page_mut(index).bytes_mut(slot)[prefix_len..].copy_from_slice(value);
                return;
            }
            Stored::Inline(_) if fits => self.change_page(index, |page| {
                page.resize(slot, prefix_len, len, false)[prefix_len..].copy_from_slice(value);
            }),
            Stored::Outside(number) if fits => {
                self.outside.remove(number);
                self.change_page(index, |page| {
                    let bytes = page.resize(slot, 0, len, false);
                    bytes[0] = key.len() as u8;
                    bytes[1..prefix_len].copy_from_slice(key);
                    bytes[prefix_len..].copy_from_slice(value);
                });
            }
            Stored::Inline(_) => {
                let number = self.outside.add(outside_element::<true>(key, value)).to_le_bytes();
                self.change_page(index, |page| {
                    page.resize(slot, 0, OUTSIDE_LEN, true).copy_from_slice(&number);
                });
            }
            Stored::Outside(number) => self.outside.replace(number, outside_element::<true>(key, value)),
        }
        self.split_if_full();
    }
}
