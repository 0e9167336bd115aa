//! Builds a new set, in the form in which Redis would have it after the same members were added one after the other.

use super::algebra::BATCH_LEN;
use super::{Added, FEW_LEN_MAX, Grown, Member, SetLimits, SetRef, add_to_few, add_to_ints, grown};
use crate::types::dict::{DictSet, dict_hash};
use crate::types::entry::{OwnedValue, PackedKind};
use crate::types::intset::IntSet;
use crate::types::listpack::{Digits, Listpack};
use crate::types::object::Object;
use smallvec::SmallVec;

enum Form {
    Packed(PackedKind, Vec<u8>),
    Many(DictSet),
}

/// See the module's documentation.
pub struct SetBuilder {
    form: Form,
    limits: SetLimits,
}

impl SetBuilder {
    pub fn new(limits: SetLimits) -> SetBuilder {
        SetBuilder { form: Form::Packed(PackedKind::IntSet, PackedKind::IntSet.empty().to_vec()), limits }
    }

    /// A set that Redis would have as a hash table, whatever members it gets.
    pub fn new_table() -> SetBuilder {
        SetBuilder {
            form: Form::Packed(PackedKind::Set, PackedKind::Set.empty().to_vec()),
            limits: SetLimits::new(0),
        }
    }

    /// Begins with the members of `set`.
    pub fn from_copy(set: SetRef<'_>, limits: SetLimits) -> SetBuilder {
        match set {
            SetRef::Many(dict) if dict.len() > FEW_LEN_MAX && !SetBuilder::stays_intset(set, limits) => {
                SetBuilder { form: Form::Many(dict.clone()), limits }
            }
            SetRef::Ints(_) | SetRef::Few(_) | SetRef::Many(_) => {
                let mut builder = SetBuilder::new(limits);
                set.each(|member| {
                    builder.add(member);
                });
                builder
            }
        }
    }

    /// Whether a new set with the members of `set` is an intset.
    pub fn stays_intset(set: SetRef<'_>, limits: SetLimits) -> bool {
        set.len() <= limits.ints_max && set.has_only_ints()
    }

    /// Adds all members of a set. Their look-ups overlap in batches.
    pub fn add_all(&mut self, set: SetRef<'_>) {
        let mut batch = SmallVec::<[(u64, Member<'_>); BATCH_LEN]>::new();
        let mut digits = Digits::new();
        set.each(|member| {
            let Form::Many(dict) = &mut self.form else {
                self.add(member);
                return;
            };
            let hash = dict_hash(member.bytes(&mut digits));
            dict.prefetch(hash);
            batch.push((hash, member));
            if batch.len() == BATCH_LEN {
                for (hash, member) in batch.drain(..) {
                    dict.insert_hashed(hash, member.bytes(&mut digits));
                }
            }
        });
        for (_, member) in batch {
            self.add(member);
        }
    }

    /// Adds a member. Returns whether it is new.
    #[inline]
    pub fn add(&mut self, member: Member<'_>) -> bool {
        let mut digits = Digits::new();
        let added = match &mut self.form {
            Form::Packed(PackedKind::IntSet, bytes) => add_to_ints(bytes, member, self.limits),
            Form::Packed(_, bytes) => add_to_few(bytes, member.bytes(&mut digits)),
            Form::Many(dict) => return dict.insert(member.bytes(&mut digits)),
        };
        if added == Added::Outgrown {
            match grown(self.get(), member.bytes(&mut digits)) {
                Grown::Few(bytes) => self.form = Form::Packed(PackedKind::Set, bytes),
                Grown::Many(dict) => self.form = Form::Many(dict),
            }
        }
        added != Added::Known
    }

    /// What was built so far.
    #[inline]
    pub fn get(&self) -> SetRef<'_> {
        match &self.form {
            Form::Packed(PackedKind::IntSet, bytes) => SetRef::Ints(IntSet::new(bytes)),
            Form::Packed(_, bytes) => SetRef::Few(Listpack::new(bytes)),
            Form::Many(dict) => SetRef::Many(dict),
        }
    }

    pub fn into_value(self) -> OwnedValue {
        match self.form {
            Form::Packed(kind, bytes) => OwnedValue::Packed(kind, bytes),
            Form::Many(dict) => OwnedValue::Object(Box::new(Object::Set(dict))),
        }
    }
}
