//! `RedisModuleKey`: a key that a module has opened. It names the key, and looks its value up whenever it is used, because a
//! value moves when it grows.

use super::context::Context;
use super::string::ModuleString;
use crate::call::{Call, Key};
use crate::command::typed::Digits;
use crate::shard::Shard;
use crate::shard::change::ChangeGuard;
use crate::shard::event::Event;
use crate::types::stream::StreamId;
use crate::types::{Entry, NewValue, PackedKind, SetExpire, ValueRef, ValueType};
use shardis_modules_api::abi::*;
use std::ffi::c_int;
use std::ops::Range;
use std::ptr::NonNull;

/// A key that a module has opened.
pub(super) struct ModuleKey {
    ctx: NonNull<Context<'static>>,
    call: Call,
    name: *mut ModuleString,
    hash: u64,
    mode: c_int,
    /// It existed before its first use; `None`: it was opened for writing, and not used yet.
    was_there: Option<bool>,
    /// Those who are blocked on the key may find something in it when it is closed, even if it was there: it was removed, or
    /// a stream has got an entry.
    pub(super) wakes: bool,
    pub(super) walk: Walk,
    /// The digits of an integer whose text the module has a pointer to.
    digits: Digits,
}

/// Where a module is in a value.
#[derive(Default)]
pub(super) enum Walk {
    #[default]
    None,
    /// In a sorted set: the ranks that it walks over, and where it is.
    ZSet { ranks: Range<usize>, at: Option<usize> },
    /// In a stream.
    Stream(StreamWalk),
}

/// A walk over entries of a stream.
pub(super) struct StreamWalk {
    pub(super) start: StreamId,
    pub(super) end: StreamId,
    pub(super) is_reverse: bool,
    /// The entry it is at.
    pub(super) current: Option<StreamId>,
    pub(super) is_at_end: bool,
    /// The names and values of that entry that have not been asked for.
    pub(super) fields: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

impl ModuleKey {
    /// Opens a key. `None`: it is opened to read, and does not exist.
    pub(super) fn open(
        ctx: &mut Context<'_>,
        name: *mut ModuleString,
        mode: c_int,
    ) -> Option<*mut ModuleKey> {
        // SAFETY: the module holds the string during the call.
        let string = unsafe { &*name };
        let mut call = ctx.call;
        call.no_touch |= mode & REDISMODULE_OPEN_KEY_NOTOUCH != 0;
        let hash = ctx.hash_of(string.bytes());
        let key = Key { bytes: string.bytes(), hash };
        let writes = mode & REDISMODULE_WRITE != 0;
        let shard = ctx.shard()?;
        if writes {
            shard.will_change(call.db, key);
        } else if shard.lookup_read(&call, key).is_none() {
            return None;
        }
        string.retain();
        // A key is closed before its context ends: the server closes those that the module leaves to it, and whoever keeps
        // another has broken the rules of the ABI.
        let ctx = NonNull::from(ctx).cast();
        let walk = Walk::None;
        let digits = Digits::new();
        let was_there = (!writes).then_some(true);
        let key = ModuleKey { ctx, call, name, hash, mode, was_there, wakes: false, walk, digits };
        Some(Box::into_raw(Box::new(key)))
    }

    /// Closes a key: if it was open to write, its observers are told that it has changed, unless the module does that.
    ///
    /// # Safety
    /// The key is open, and not used any more.
    pub(super) unsafe fn close(key: *mut ModuleKey) {
        // SAFETY: it was made by a box, and is not used any more.
        let mut key = unsafe { Box::from_raw(key) };
        if key.is_writable()
            && key.context().module.options() & REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED == 0
        {
            key.signal_modified();
        }
        // SAFETY: the reference that `open` has added.
        unsafe { ModuleString::release(key.name) };
    }

    pub(super) fn context(&mut self) -> &mut Context<'static> {
        // SAFETY: a key is used only while its context lives (see `open`).
        unsafe { self.ctx.as_mut() }
    }

    pub(super) fn stop_walk(&mut self) {
        self.walk = Walk::None;
    }

    /// Writes the digits of a number where they last until this is called again.
    pub(super) fn keep_digits(&mut self, number: i64) -> &[u8] {
        self.digits.format(number).as_bytes()
    }

    /// Sets or removes the expiry. Returns whether the key exists.
    pub(super) fn set_expire(&mut self, at_ms: Option<i64>) -> bool {
        let Some(mut guard) = self.change() else { return false };
        guard.set_expire(at_ms);
        true
    }

    pub(super) fn name(&self) -> *mut ModuleString {
        self.name
    }

    pub(super) fn db(&self) -> u32 {
        self.call.db
    }

    pub(super) fn is_writable(&self) -> bool {
        self.mode & REDISMODULE_WRITE != 0
    }

    /// The shard, the call and the key, for what is done with them together.
    #[inline]
    pub(super) fn parts(&mut self) -> (&mut Shard, &Call, Key<'_>) {
        let (shard, call, key, _) = self.parts_to_note();
        (shard, call, key)
    }

    /// The same, and where to note whether the key was there.
    #[inline]
    fn parts_to_note(&mut self) -> (&mut Shard, &Call, Key<'_>, &mut Option<bool>) {
        // SAFETY: the handle has a reference to the string.
        let bytes = unsafe { &*self.name }.bytes();
        let key = Key { bytes, hash: self.hash };
        // SAFETY: as in `context`. The call and the name are no parts of the context.
        let ctx = unsafe { self.ctx.as_mut() };
        // A command that was called in between may have taken it back to its shard.
        ctx.bring(self.call.db, bytes);
        let shard = ctx.shard().expect("a key is opened where there is a shard");
        (shard, &self.call, key, &mut self.was_there)
    }

    /// As [`parts`](Self::parts), for what may add or remove the key.
    #[inline]
    fn parts_to_replace(&mut self) -> (&mut Shard, &Call, Key<'_>) {
        let (shard, call, key, was_there) = self.parts_to_note();
        if was_there.is_none() {
            *was_there = Some(shard.exists(call.db, key));
        }
        (shard, call, key)
    }

    /// The entry, if the key exists.
    #[inline]
    pub(super) fn entry(&mut self) -> Option<Entry<'_>> {
        let (shard, call, key) = self.parts();
        shard.lookup_silent(call.db, key)
    }

    /// The value, if the key exists.
    #[inline]
    pub(super) fn value(&mut self) -> Option<ValueRef<'_>> {
        self.entry().map(|entry| entry.value())
    }

    /// What type of value the key has.
    pub(super) fn value_type(&mut self) -> Option<ValueType> {
        self.value().map(ValueRef::value_type)
    }

    /// The value to change in place. Its observers are told when the key is closed.
    #[inline]
    pub(super) fn change(&mut self) -> Option<ChangeGuard<'_>> {
        let (shard, call, key, was_there) = self.parts_to_note();
        let guard = shard.change(call, key, Event::UNNAMED);
        was_there.get_or_insert(guard.is_some());
        let mut guard = guard?;
        guard.be_unobserved();
        Some(guard)
    }

    /// The same, of a key that is given an empty collection if it does not exist.
    pub(super) fn change_or_add(&mut self, kind: PackedKind) -> ChangeGuard<'_> {
        let (shard, call, key) = self.parts_to_replace();
        let mut guard = shard.change_or_add(call, key, Event::UNNAMED, kind);
        guard.be_unobserved();
        guard
    }

    /// The same, with an empty stream.
    pub(super) fn change_or_add_stream(&mut self) -> ChangeGuard<'_> {
        use crate::types::Object;
        use crate::types::stream::Stream;
        let (shard, call, key) = self.parts_to_replace();
        let new = || Box::new(Object::Stream(Stream::default()));
        let mut guard = shard.change_or_add_object(call, key, Event::UNNAMED, new);
        guard.be_unobserved();
        guard
    }

    /// Sets the value; the key loses its expiry.
    pub(super) fn set(&mut self, value: NewValue<'_>) {
        let (shard, call, key) = self.parts_to_replace();
        shard.set_unobserved(call, key, value, SetExpire::Clear);
    }

    /// Removes the key. Returns whether it was there.
    pub(super) fn delete(&mut self) -> bool {
        self.wakes = true;
        let (shard, call, key) = self.parts_to_replace();
        shard.delete_unobserved(call, key)
    }

    /// Tells the key's observers that it has changed.
    pub(super) fn signal_modified(&mut self) {
        let wakes = self.wakes || self.was_there == Some(false);
        let (shard, call, key) = self.parts();
        if wakes {
            shard.signal_modified(call, call.db, key, Event::UNNAMED);
        } else {
            shard.signal_edited(call, call.db, key, Event::UNNAMED);
        }
    }
}
