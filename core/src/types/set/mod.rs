//! Sets: three forms of one type, and what all of them can do.
//!
//! | form | what it is | OBJECT ENCODING |
//! |---|---|---|
//! | integers | an [intset](super::intset), up to `set-max-intset-entries` | `intset` |
//! | few | a [listpack](super::listpack), up to [`FEW_LEN_MAX`] members and [`FEW_BYTES_MAX`] bytes | `hashtable` |
//! | many | a [dict](super::dict) | `hashtable` |
//!
//! Redis 7.0 has no form between an intset and a hash table, but a listpack takes about a third of the memory, lies in
//! the entry's own allocation, and is searched as fast as a hash table that is not in the cache: so it reports the
//! encoding that Redis would have. A set grows from each form to the next and never goes back, so that which encoding
//! is reported depends on its history as it does in Redis.
//!
//! [`SetRef`] reads, [`SetMut`] changes a set that has a key, [`SetBuilder`] makes a new one, and [`algebra`] combines
//! several.

pub mod algebra;
mod builder;
mod random;
#[cfg(test)]
mod tests;

use super::blob::Blob;
use super::decimal::parse_i64;
use super::dict::DictSet;
use super::entry::{Encoding, NewValue, PackedKind, ValueRef};
use super::intset::{IntSet, IntSetMut};
use super::listpack::{self, Digits, Item, Listpack, ListpackMut};
use super::object::{Collection, Object};
use super::prefetch;
use super::value_mut::ValueMut;
use std::ops::ControlFlow;

pub use builder::SetBuilder;

/// A listpack with more members, or more bytes, becomes a dict. Measured with members of 16 bytes: a listpack takes 18
/// bytes a member at any length, a dict 38 at 10 members, 25 at 32 and 23 at 128. A look-up of a member that is not there
/// takes 20 ns, 77 ns and 340 ns in a listpack of 10, 32 and 128 members that is cached, and at 32 as many cache misses
/// as in a dict.
pub const FEW_LEN_MAX: usize = 32;
pub const FEW_BYTES_MAX: usize = 1024;

const CACHE_LINE_LEN: usize = 64;

/// An intset has no more integers than this, whatever `set-max-intset-entries` says, as in Redis.
const INTSET_LEN_MAX: u64 = 1 << 30;

/// When no more than one in so many members is kept by SPOP, those are made a new set, whose encoding is that of a new
/// set, as in Redis.
const KEPT_PART: usize = 5;

/// The bound that the configuration sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetLimits {
    ints_max: usize,
}

impl SetLimits {
    pub fn new(set_max_intset_entries: u64) -> SetLimits {
        SetLimits { ints_max: set_max_intset_entries.min(INTSET_LEN_MAX) as usize }
    }

    /// Whether so many integers may be an intset.
    pub fn allow_ints(self, len: usize) -> bool {
        len <= self.ints_max
    }
}

/// A member as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    Int(i64),
    /// Any bytes: in a dict, also those of an integer.
    Bytes(&'a [u8]),
}

impl<'a> Member<'a> {
    #[inline]
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Member::Int(number) => digits.format(number).as_bytes(),
            Member::Bytes(bytes) => bytes,
        }
    }

    /// The integer whose decimal digits it is.
    #[inline]
    fn integer(self) -> Option<i64> {
        match self {
            Member::Int(number) => Some(number),
            Member::Bytes(bytes) => parse_i64(bytes),
        }
    }
}

impl<'a> From<Item<'a>> for Member<'a> {
    #[inline]
    fn from(item: Item<'a>) -> Member<'a> {
        match item {
            Item::Int(number) => Member::Int(number),
            Item::Str(bytes) => Member::Bytes(bytes),
        }
    }
}

/// A set to read.
#[derive(Clone, Copy)]
pub enum SetRef<'a> {
    Ints(IntSet<'a>),
    Few(Listpack<'a>),
    Many(&'a DictSet),
}

impl<'a> SetRef<'a> {
    /// `None`: the value is no set.
    #[inline]
    pub fn of(value: ValueRef<'a>) -> Option<SetRef<'a>> {
        match value {
            ValueRef::Packed(PackedKind::Set, bytes) => Some(SetRef::Few(Listpack::new(bytes))),
            ValueRef::Packed(PackedKind::IntSet, bytes) => Some(SetRef::Ints(IntSet::new(bytes))),
            ValueRef::Object(Object::Set(dict)) => Some(SetRef::Many(dict)),
            ValueRef::Int(_) | ValueRef::Str(_) | ValueRef::Packed(..) | ValueRef::Object(_) => None,
        }
    }

    #[inline]
    pub fn len(self) -> usize {
        match self {
            SetRef::Ints(set) => set.len(),
            SetRef::Few(list) => list.len(),
            SetRef::Many(dict) => dict.len(),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn contains(self, member: &[u8]) -> bool {
        match self {
            SetRef::Ints(set) => parse_i64(member).is_some_and(|number| set.contains(number)),
            SetRef::Few(list) => find(list, member).is_some(),
            SetRef::Many(dict) => dict.contains(member),
        }
    }

    /// Calls `visit` with each member, in no order, until it breaks.
    #[inline]
    pub fn try_each<B>(self, mut visit: impl FnMut(Member<'a>) -> ControlFlow<B>) -> ControlFlow<B> {
        match self {
            SetRef::Ints(set) => set.iter().try_for_each(|number| visit(Member::Int(number))),
            SetRef::Few(list) => list.iter().try_for_each(|(_, item)| visit(item.into())),
            SetRef::Many(dict) => dict.iter().try_for_each(|(member, _)| visit(Member::Bytes(member))),
        }
    }

    /// Calls `visit` with each member, in no order.
    #[inline]
    pub fn each(self, mut visit: impl FnMut(Member<'a>)) {
        let _: ControlFlow<()> = self.try_each(|member| {
            visit(member);
            ControlFlow::Continue(())
        });
    }

    /// Visits some members from a cursor on, and returns the next cursor; 0 is both the beginning and the end. From the
    /// cursor 0 to the end, each member that is there all the time is visited at least once.
    pub fn scan(self, cursor: u64, visit: &mut dyn FnMut(Member<'_>)) -> u64 {
        match self {
            SetRef::Ints(_) | SetRef::Few(_) => {
                self.each(visit);
                0
            }
            SetRef::Many(dict) => dict.scan(cursor, &mut |member, _| visit(Member::Bytes(member))),
        }
    }
}

/// Where a listpack has a member.
#[inline]
fn find(list: Listpack<'_>, member: &[u8]) -> Option<usize> {
    // The walk reads one cache line after the other, and finds out where the next one begins only there.
    let bytes = list.as_bytes();
    (CACHE_LINE_LEN..bytes.len()).step_by(CACHE_LINE_LEN).for_each(|at| prefetch(&raw const bytes[at]));
    list.first().and_then(|first| list.find(member, first, 0))
}

/// What came of adding a member to a packed set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Added {
    /// It was there.
    Known,
    New,
    /// It does not fit into this form.
    Outgrown,
}

#[inline]
fn add_to_ints<B: Blob + ?Sized>(blob: &mut B, member: Member<'_>, limits: SetLimits) -> Added {
    let Some(number) = member.integer() else { return Added::Outgrown };
    let set = IntSet::new(blob.bytes());
    if set.len() >= limits.ints_max {
        return if set.contains(number) { Added::Known } else { Added::Outgrown };
    }
    if IntSetMut::new(blob).insert(number) { Added::New } else { Added::Known }
}

#[inline]
fn add_to_few<B: Blob + ?Sized>(blob: &mut B, member: &[u8]) -> Added {
    let list = Listpack::new(blob.bytes());
    if find(list, member).is_some() {
        return Added::Known;
    }
    if list.len() >= FEW_LEN_MAX || list.bytes_len() + listpack::entry_len(member) > FEW_BYTES_MAX {
        return Added::Outgrown;
    }
    ListpackMut::new(blob).push_back(member);
    Added::New
}

/// The next form of a packed set, with a member more.
enum Grown {
    Few(Vec<u8>),
    Many(DictSet),
}

#[cold]
fn grown(set: SetRef<'_>, member: &[u8]) -> Grown {
    if let SetRef::Ints(_) = set
        && set.len() < FEW_LEN_MAX
    {
        let mut bytes = listpack::EMPTY.to_vec();
        let mut list = ListpackMut::new(&mut bytes);
        set.each(|member| {
            if let Member::Int(number) = member {
                list.push_back(number);
            }
        });
        list.push_back(member);
        if bytes.len() <= FEW_BYTES_MAX {
            return Grown::Few(bytes);
        }
    }
    let mut dict = DictSet::new();
    let mut digits = Digits::new();
    set.each(|member| {
        dict.insert(member.bytes(&mut digits));
    });
    dict.insert(member);
    Grown::Many(dict)
}

/// The form in which a set begins that gets this member first.
#[inline]
pub fn first_form(member: &[u8]) -> PackedKind {
    if parse_i64(member).is_some() { PackedKind::IntSet } else { PackedKind::Set }
}

/// A set that is being changed.
pub struct SetMut<'v, 'b, 'a> {
    value: &'v mut ValueMut<'b, 'a>,
}

impl<'v, 'b, 'a> SetMut<'v, 'b, 'a> {
    /// The value is a set.
    #[inline]
    pub fn new(value: &'v mut ValueMut<'b, 'a>) -> SetMut<'v, 'b, 'a> {
        debug_assert!(SetRef::of(value.value()).is_some(), "the caller has seen a set");
        SetMut { value }
    }

    /// The set to read.
    #[inline]
    pub fn get(&self) -> SetRef<'_> {
        SetRef::of(self.value.value()).expect("it stays a set")
    }

    /// Adds members. Returns how many of them are new.
    #[inline]
    pub fn add<'m>(&mut self, mut members: impl Iterator<Item = &'m [u8]>, limits: SetLimits) -> usize {
        let mut count = 0;
        while let ValueRef::Packed(kind, _) = self.value.value() {
            let Some(member) = members.next() else { return count };
            let added = match kind {
                PackedKind::IntSet => add_to_ints(&mut self.value.packed(), Member::Bytes(member), limits),
                _ => add_to_few(&mut self.value.packed(), member),
            };
            match added {
                Added::Known => {}
                Added::New => count += 1,
                Added::Outgrown => {
                    self.outgrow(member);
                    count += 1;
                }
            }
        }
        let mut object = self.value.object();
        let dict = dict_mut(&mut object);
        count + members.filter(|member| dict.insert(member)).count()
    }

    /// Gives the set its next form, with a member more.
    #[cold]
    fn outgrow(&mut self, member: &[u8]) {
        match grown(self.get(), member) {
            Grown::Few(bytes) => self.value.set(NewValue::Packed(PackedKind::Set, &bytes)),
            Grown::Many(dict) => self.value.set(NewValue::Object(Box::new(Object::Set(dict)))),
        }
    }

    /// Removes a member. Returns whether it was there.
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self.get() {
            SetRef::Ints(_) => {
                let number = parse_i64(member);
                number.is_some_and(|number| IntSetMut::new(&mut self.value.packed()).remove(number))
            }
            SetRef::Few(list) => {
                let found = find(list, member);
                if let Some(at) = found {
                    ListpackMut::new(&mut self.value.packed()).remove(at, 1);
                }
                found.is_some()
            }
            SetRef::Many(_) => dict_mut(&mut self.value.object()).remove(member),
        }
    }

    /// Removes and returns a random member.
    pub fn pop(&mut self, random: &mut dyn FnMut() -> u64) -> Vec<u8> {
        if let ValueRef::Object(_) = self.value.value() {
            let mut object = self.value.object();
            let dict = dict_mut(&mut object);
            let place = dict.random(random).expect("an empty set is removed");
            let member = dict.at(place).0.to_vec();
            dict.remove_at(place);
            return member;
        }
        let member = self.get().random(random).bytes(&mut Digits::new()).to_vec();
        self.remove(&member);
        member
    }

    /// Removes `count` random members, fewer than there are, and calls `visit` with each.
    pub fn pop_several(
        &mut self,
        count: usize,
        limits: SetLimits,
        random: &mut dyn FnMut() -> u64,
        visit: &mut dyn FnMut(&[u8]),
    ) {
        let len = self.get().len();
        let mut digits = Digits::new();
        if (len - count) * KEPT_PART <= count {
            let mut kept = SetBuilder::new(limits);
            self.get().split(count, random, |member, is_popped| {
                if is_popped {
                    visit(member.bytes(&mut digits));
                } else {
                    kept.add(member);
                }
            });
            self.value.set(kept.into_value().into());
        } else if let ValueRef::Object(_) = self.value.value() {
            for _ in 0..count {
                visit(&self.pop(random));
            }
        } else {
            let mut popped = Vec::with_capacity(count);
            self.get().sample(count, random, |member| popped.push(member.bytes(&mut digits).to_vec()));
            for member in popped {
                self.remove(&member);
                visit(&member);
            }
        }
    }

    /// Replaces the set by one without members.
    pub fn clear(&mut self) {
        self.value.set(NewValue::Packed(PackedKind::Set, PackedKind::Set.empty()));
    }
}

impl Collection for DictSet {
    fn len(&self) -> usize {
        DictSet::len(self)
    }

    fn heap_bytes(&self) -> usize {
        DictSet::heap_bytes(self)
    }

    fn free_cost(&self) -> usize {
        DictSet::free_cost(self)
    }

    fn free_some(&mut self, budget: &mut usize) -> bool {
        DictSet::free_some(self, budget)
    }

    fn duplicate(&self) -> DictSet {
        self.clone()
    }

    fn encoding(&self) -> Encoding {
        Encoding::Hashtable
    }
}

#[inline]
fn dict_mut(object: &mut Object) -> &mut DictSet {
    let Object::Set(dict) = object else { unreachable!("the caller has seen a set") };
    dict
}
