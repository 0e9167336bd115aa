//! ListMut: a list in its entry, of either form, to be changed.
//!
//! A packed list that outgrows the limits of a node becomes a big one. A big one that is left with a single node, which
//! is far from the limits, is packed again.

use super::node::{remove_first_equal, remove_last_equal};
use super::{End, Limits, List, ListRef};
use crate::types::listpack::{self, Item, Listpack, ListpackMut};
use crate::types::{NewValue, Object, PackedKind, ValueMut, ValueRef};

pub struct ListMut<'b, 'a> {
    value: ValueMut<'b, 'a>,
    limits: Limits,
}

impl<'b, 'a> ListMut<'b, 'a> {
    /// `value` is a list. `limits`: those of a packed list, and of one that becomes big.
    #[inline]
    pub fn new(value: ValueMut<'b, 'a>, limits: Limits) -> Self {
        ListMut { value, limits }
    }

    #[inline]
    pub fn as_ref(&self) -> ListRef<'_> {
        let value = self.value.value();
        ListRef::of(value).expect("the caller has seen a list")
    }

    /// The listpack of a packed list.
    #[inline]
    fn packed(&self) -> Option<Listpack<'_>> {
        match self.as_ref() {
            ListRef::Packed(listpack) => Some(listpack),
            ListRef::Big(_) => None,
        }
    }

    fn change_big<R>(&mut self, change: impl FnOnce(&mut List) -> R) -> R {
        match &mut *self.value.object() {
            Object::List(list) => change(list),
            other => unreachable!("{other:?} is no list"),
        }
    }

    /// Makes a packed list big.
    fn unpack(&mut self) {
        let listpack = self.packed().expect("the caller has seen a packed list");
        let list = List::from_listpack(listpack, self.limits);
        self.value.set(NewValue::Object(Box::new(Object::List(list))));
    }

    /// Packs a big list that has become small.
    fn pack_if_small(&mut self) {
        let ListRef::Big(list) = self.as_ref() else { return };
        if let Some(listpack) = list.as_small() {
            let bytes = listpack.as_bytes().to_vec();
            self.value.set(NewValue::OwnedPacked(PackedKind::List, bytes));
        }
    }

    /// Adds an element at an end.
    #[inline]
    pub fn push(&mut self, end: End, element: &[u8]) {
        let item = Item::of(element);
        if let Some(listpack) = self.packed() {
            if self.limits.allow_push(listpack, item) {
                let mut packed = self.value.packed();
                let mut listpack = ListpackMut::new(&mut packed);
                match end {
                    End::Head => listpack.push_front(item),
                    End::Tail => listpack.push_back(item),
                }
                return;
            }
            self.unpack();
        }
        self.change_big(|list| list.push(end, item));
    }

    /// Adds elements at an end, one after the other.
    pub fn push_all<'e>(&mut self, end: End, elements: impl DoubleEndedIterator<Item = &'e [u8]> + Clone) {
        let items = elements.map(Item::of);
        if let Some(listpack) = self.packed() {
            let (mut bytes_len, mut len) = (listpack.bytes_len(), listpack.len());
            let mut fits = true;
            for item in items.clone() {
                fits &= self.limits.is_packed(item);
                bytes_len += listpack::item_len(item);
                len += 1;
            }
            if fits && self.limits.allow(bytes_len, len) {
                let mut packed = self.value.packed();
                let mut listpack = ListpackMut::new(&mut packed);
                match end {
                    End::Head => listpack.prepend_many(items.rev()),
                    End::Tail => listpack.append_many(items),
                }
                return;
            }
            self.unpack();
        }
        self.change_big(|list| items.for_each(|item| list.push(end, item)));
    }

    /// Removes `count` elements, or as many as there are, at an end.
    #[inline]
    pub fn remove(&mut self, end: End, count: usize) {
        if let Some(listpack) = self.packed() {
            let index = match end {
                End::Head => 0,
                End::Tail => -(count.min(listpack.len()) as isize),
            };
            ListpackMut::new(&mut self.value.packed()).remove_range(index, count);
        } else {
            self.change_big(|list| list.remove(end, count));
            self.pack_if_small();
        }
    }

    /// Replaces element `index`, which exists.
    pub fn set(&mut self, index: usize, element: &[u8]) {
        let item = Item::of(element);
        if let Some(listpack) = self.packed() {
            let pos = listpack.seek(index as isize).expect("the caller has looked at the length");
            let old_len = listpack::item_len(listpack.at(pos));
            let bytes_len = listpack.bytes_len() - old_len + listpack::item_len(item);
            if self.limits.is_packed(item) && self.limits.allow(bytes_len, listpack.len()) {
                ListpackMut::new(&mut self.value.packed()).replace(pos, item);
                return;
            }
            self.unpack();
        }
        self.change_big(|list| list.set(index, item));
    }

    /// Inserts an element before element `index`, or at the end if there is none.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        let item = Item::of(element);
        if let Some(listpack) = self.packed() {
            if self.limits.allow_push(listpack, item) {
                let pos = listpack.seek(index as isize).unwrap_or(listpack.end());
                ListpackMut::new(&mut self.value.packed()).insert_before(pos, item);
                return;
            }
            self.unpack();
        }
        self.change_big(|list| list.insert(index, item));
    }

    /// Removes element `index`, which exists.
    pub fn remove_at(&mut self, index: usize) {
        if self.packed().is_some() {
            ListpackMut::new(&mut self.value.packed()).remove_range(index as isize, 1);
        } else {
            self.change_big(|list| list.remove_at(index));
            self.pack_if_small();
        }
    }

    /// Removes the first `count` elements, from an end, that equal `element`. Returns how many there were.
    pub fn remove_equal(&mut self, element: &[u8], from: End, count: usize) -> usize {
        if self.packed().is_some() {
            let mut packed = self.value.packed();
            let mut listpack = ListpackMut::new(&mut packed);
            match from {
                End::Head => remove_first_equal(&mut listpack, element, count),
                End::Tail => remove_last_equal(&mut listpack, element, count),
            }
        } else {
            let removed = self.change_big(|list| list.remove_equal(element, from, count));
            self.pack_if_small();
            removed
        }
    }
}

impl<'a> ListRef<'a> {
    /// `None`: the value is no list.
    #[inline]
    pub fn of(value: ValueRef<'a>) -> Option<ListRef<'a>> {
        match value {
            ValueRef::Packed(PackedKind::List, bytes) => Some(ListRef::Packed(Listpack::new(bytes))),
            ValueRef::Object(Object::List(list)) => Some(ListRef::Big(list)),
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => None,
        }
    }
}
