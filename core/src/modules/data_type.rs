//! Data types of modules: what [`ModuleType`] asks of a type, over the functions that the module has registered.
//!
//! A module that is not shard-safe sees one of its callbacks at a time: see [`turn`](super::turn). What removes a value does
//! not wait for that: then the value is unlinked and freed by whoever has the turn.

use super::context::{Access, Context, in_turn, noted};
use super::module::Module;
use super::string::ModuleString;
use super::turn;
use crate::runtime::crash::Callback;
use crate::types::module::{
    AuxPlace, DigestSink, KeyPlace, LoadSource, ModulePtr, ModuleType, ModuleTypeId, NotCopied, SaveSink,
};
use shardis_modules_api::abi::*;
use std::ffi::c_int;

/// A data type that a module has registered. It is never freed.
pub(super) struct DataType {
    name: &'static str,
    id: ModuleTypeId,
    module: &'static Module,
    /// With nothing behind what the module's version of the structure has.
    methods: RedisModuleTypeMethods,
}

// SAFETY: the methods are functions, and the module is shared by all threads.
unsafe impl Send for DataType {}
// SAFETY: as above.
unsafe impl Sync for DataType {}

/// `RedisModuleIO`: what a value is written to or read from.
pub(super) struct Io<'a> {
    pub(super) of: &'static DataType,
    pub(super) target: Target<'a>,
    place: KeyPlace<'a>,
    /// The key's name, once it was asked for.
    key: Option<*mut ModuleString>,
    context: Option<Box<Context<'static>>>,
}

pub(super) enum Target<'a> {
    Save(&'a mut dyn SaveSink),
    Load(&'a mut dyn LoadSource),
    /// What takes the words of a command, and whether one was refused.
    Rewrite {
        emit: &'a mut dyn FnMut(&[&[u8]]),
        has_failed: bool,
    },
}

/// `RedisModuleKeyOptCtx`: which key, or keys, a callback is about.
pub(super) struct KeyOptions<'a> {
    from: KeyPlace<'a>,
    to: KeyPlace<'a>,
    names: [Option<*mut ModuleString>; 2],
}

/// `RedisModuleDigest`.
pub(super) struct DigestIo<'a> {
    pub(super) sink: &'a mut dyn DigestSink,
    place: KeyPlace<'a>,
    key: Option<*mut ModuleString>,
}

/// The name of a place's key as a string that lasts as long as `kept`; NULL without a key.
fn name_of(place: KeyPlace<'_>, kept: &mut Option<*mut ModuleString>) -> *mut ModuleString {
    match place.key {
        None => std::ptr::null_mut(),
        Some(key) => *kept.get_or_insert_with(|| ModuleString::new(key)),
    }
}

fn release(kept: Option<*mut ModuleString>) {
    if let Some(string) = kept {
        // SAFETY: it is the reference that `name_of` has made.
        unsafe { ModuleString::release(string) };
    }
}

fn db_of(place: KeyPlace<'_>) -> c_int {
    place.db.map_or(-1, |db| db as c_int)
}

impl<'a> Io<'a> {
    fn new(of: &'static DataType, target: Target<'a>, place: KeyPlace<'a>) -> Io<'a> {
        Io { of, target, place, key: None, context: None }
    }

    pub(super) fn key(&mut self) -> *mut ModuleString {
        name_of(self.place, &mut self.key)
    }

    pub(super) fn db(&self) -> c_int {
        db_of(self.place)
    }

    /// The context that the callback may ask for.
    pub(super) fn context(&mut self) -> *mut RedisModuleCtx {
        let module = self.of.module;
        self.context.get_or_insert_with(|| Box::new(Context::new(module, Access::Nothing))).as_abi()
    }

    fn as_abi(&mut self) -> *mut RedisModuleIO {
        std::ptr::from_mut(self).cast()
    }
}

impl Drop for Io<'_> {
    fn drop(&mut self) {
        if let Some(context) = &mut self.context {
            context.finish();
        }
        release(self.key);
    }
}

impl<'a> KeyOptions<'a> {
    fn new(from: KeyPlace<'a>, to: KeyPlace<'a>) -> KeyOptions<'a> {
        KeyOptions { from, to, names: [None, None] }
    }

    pub(super) fn from_key(&mut self) -> *mut ModuleString {
        name_of(self.from, &mut self.names[0])
    }

    pub(super) fn to_key(&mut self) -> *mut ModuleString {
        name_of(self.to, &mut self.names[1])
    }

    pub(super) fn from_db(&self) -> c_int {
        db_of(self.from)
    }

    pub(super) fn to_db(&self) -> c_int {
        db_of(self.to)
    }

    fn as_abi(&mut self) -> *mut RedisModuleKeyOptCtx {
        std::ptr::from_mut(self).cast()
    }
}

impl Drop for KeyOptions<'_> {
    fn drop(&mut self) {
        self.names.into_iter().for_each(release);
    }
}

impl DigestIo<'_> {
    pub(super) fn key(&mut self) -> *mut ModuleString {
        name_of(self.place, &mut self.key)
    }

    pub(super) fn db(&self) -> c_int {
        db_of(self.place)
    }
}

impl Drop for DigestIo<'_> {
    fn drop(&mut self) {
        release(self.key);
    }
}

impl DataType {
    /// `None`: the name is none, or the version of the encoding is too big.
    pub(super) fn new(
        module: &'static Module,
        name: &[u8],
        encver: u16,
        methods: RedisModuleTypeMethods,
    ) -> Option<&'static DataType> {
        let id = ModuleTypeId::of(name, encver)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some(Box::leak(Box::new(DataType { name: name.leak(), id, module, methods })))
    }

    /// The callbacks that a module has given. What is newer than the version that it knows is not there.
    ///
    /// # Safety
    /// `given` points to the structure of the version that it begins with.
    pub(super) unsafe fn methods_of(given: *const RedisModuleTypeMethods) -> RedisModuleTypeMethods {
        let empty = RedisModuleTypeMethods {
            version: 0,
            rdb_load: None,
            rdb_save: None,
            aof_rewrite: None,
            mem_usage: None,
            digest: None,
            free: None,
            aux_load: None,
            aux_save: None,
            aux_save_triggers: 0,
            free_effort: None,
            unlink: None,
            copy: None,
            defrag: None,
            mem_usage2: None,
            free_effort2: None,
            unlink2: None,
            copy2: None,
            aux_save2: None,
        };
        let mut methods = empty;
        // SAFETY: every version begins with its number.
        let version = unsafe { (&raw const (*given).version).read() };
        let len = match version {
            0 | 1 => std::mem::offset_of!(RedisModuleTypeMethods, aux_load),
            2 => std::mem::offset_of!(RedisModuleTypeMethods, free_effort),
            3 => std::mem::offset_of!(RedisModuleTypeMethods, mem_usage2),
            4 => std::mem::offset_of!(RedisModuleTypeMethods, aux_save2),
            _ => size_of::<RedisModuleTypeMethods>(),
        };
        // SAFETY: the structure of this version has so many bytes, as promised, and all of its fields may have any of the
        // values that the module gave.
        unsafe { std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut methods).cast::<u8>(), len) };
        methods
    }

    /// Runs a callback when its turn has come.
    fn in_turn<T>(&self, what: &'static str, act: impl FnOnce() -> T) -> T {
        in_turn(self.module, what, act)
    }

    /// Runs a callback at once, or has whoever has the turn run it.
    fn in_turn_or_later(&'static self, what: &'static str, act: impl FnOnce() + Send + 'static) {
        let module = self.module;
        if module.is_shard_safe() {
            in_turn(module, what, act);
        } else {
            turn::take_or_leave(Box::new(move || in_turn(module, what, act)));
        }
    }

    fn is_aux_place(&self, when: AuxPlace) -> bool {
        let has = self.methods.aux_save.is_some() || self.methods.aux_save2.is_some();
        has && self.methods.aux_save_triggers & when as c_int != 0
    }

    fn copied(
        &self,
        value: ModulePtr,
        from: KeyPlace<'_>,
        to: KeyPlace<'_>,
    ) -> Option<*mut std::ffi::c_void> {
        let mut keys = KeyOptions::new(from, to);
        match (self.methods.copy2, self.methods.copy) {
            // SAFETY: the callback is the type's, the value is one of its, and the names last as long as `keys`.
            (Some(copy), _) => Some(unsafe { copy(keys.as_abi(), value.0) }),
            (None, Some(copy)) => {
                let (from, to) = (keys.from_key().cast(), keys.to_key().cast());
                // SAFETY: as above.
                Some(unsafe { copy(from, to, value.0) })
            }
            (None, None) => None,
        }
    }
}

/// A type as its own methods need it: types live for ever.
fn forever(of: &DataType) -> &'static DataType {
    // SAFETY: `DataType::new` is the only way to make one, and never frees it.
    unsafe { &*std::ptr::from_ref(of) }
}

impl ModuleType for DataType {
    fn name(&self) -> &'static str {
        self.name
    }

    fn id(&self) -> ModuleTypeId {
        self.id
    }

    fn is_callable(&self) -> bool {
        self.module.is_shard_safe() || turn::is_free()
    }

    fn is_concurrent(&self) -> bool {
        self.module.is_shard_safe()
    }

    fn save(&self, value: ModulePtr, place: KeyPlace<'_>, sink: &mut dyn SaveSink) {
        let Some(save) = self.methods.rdb_save else { return };
        let mut io = Io::new(forever(self), Target::Save(sink), place);
        // SAFETY: the callback is the type's, and the value is one of its.
        self.in_turn("rdb_save", || unsafe { save(io.as_abi(), value.0) });
    }

    fn rewrite(&self, value: ModulePtr, place: KeyPlace<'_>, emit: &mut dyn FnMut(&[&[u8]])) -> bool {
        let Some(rewrite) = self.methods.aof_rewrite else { return false };
        let mut io = Io::new(forever(self), Target::Rewrite { emit, has_failed: false }, place);
        let key = io.key();
        // SAFETY: the callback is the type's, the value is one of its, and the key's name lasts as long as `io`.
        self.in_turn("aof_rewrite", || unsafe { rewrite(io.as_abi(), key.cast(), value.0) });
        matches!(io.target, Target::Rewrite { has_failed: false, .. })
    }

    fn load(&self, source: &mut dyn LoadSource, encver: u16, place: KeyPlace<'_>) -> Option<ModulePtr> {
        let load = self.methods.rdb_load?;
        let mut io = Io::new(forever(self), Target::Load(source), place);
        // SAFETY: the callback is the type's.
        let value = self.in_turn("rdb_load", || unsafe { load(io.as_abi(), c_int::from(encver)) });
        (!value.is_null()).then_some(ModulePtr(value))
    }

    fn saves_aux(&self, when: AuxPlace) -> bool {
        self.is_aux_place(when)
    }

    fn save_aux(&self, when: AuxPlace, sink: &mut dyn SaveSink) {
        let Some(save) = self.methods.aux_save2.or(self.methods.aux_save) else { return };
        let mut io = Io::new(forever(self), Target::Save(sink), KeyPlace::default());
        // SAFETY: the callback is the type's.
        self.in_turn("aux_save", || unsafe { save(io.as_abi(), when as c_int) });
    }

    fn load_aux(&self, source: &mut dyn LoadSource, encver: u16, when: AuxPlace) -> bool {
        let Some(load) = self.methods.aux_load else { return false };
        let mut io = Io::new(forever(self), Target::Load(source), KeyPlace::default());
        // SAFETY: the callback is the type's.
        let status =
            self.in_turn("aux_load", || unsafe { load(io.as_abi(), c_int::from(encver), when as c_int) });
        status == REDISMODULE_OK
    }

    fn copy(&self, value: ModulePtr, from: KeyPlace<'_>, to: KeyPlace<'_>) -> Result<ModulePtr, NotCopied> {
        let copy = self.in_turn("copy", || self.copied(value, from, to)).ok_or(NotCopied::NotSupported)?;
        if copy.is_null() { Err(NotCopied::Failed) } else { Ok(ModulePtr(copy)) }
    }

    fn digest(&self, value: ModulePtr, place: KeyPlace<'_>, sink: &mut dyn DigestSink) -> bool {
        let Some(digest) = self.methods.digest else { return false };
        let mut io = DigestIo { sink, place, key: None };
        let pointer = std::ptr::from_mut(&mut io).cast();
        // SAFETY: the callback is the type's, and the value is one of its.
        self.in_turn("digest", || unsafe { digest(pointer, value.0) });
        true
    }

    fn memory_usage(&self, value: ModulePtr, place: KeyPlace<'_>, samples: usize) -> usize {
        let mut keys = KeyOptions::new(place, KeyPlace::default());
        self.in_turn("mem_usage", || match (self.methods.mem_usage2, self.methods.mem_usage) {
            // SAFETY: the callback is the type's, and the value is one of its.
            (Some(usage), _) => unsafe { usage(keys.as_abi(), value.0, samples) },
            // SAFETY: as above.
            (None, Some(usage)) => unsafe { usage(value.0) },
            (None, None) => 0,
        })
    }

    fn free_effort(&self, value: ModulePtr, place: KeyPlace<'_>) -> usize {
        let mut keys = KeyOptions::new(place, KeyPlace::default());
        let callback = Callback { module: self.module.name(), what: "free_effort" };
        let ask = || {
            match (self.methods.free_effort2, self.methods.free_effort) {
                // SAFETY: the callback is the type's, and the value is one of its.
                (Some(effort), _) => unsafe { effort(keys.as_abi(), value.0) },
                (None, Some(effort)) => {
                    let key = keys.from_key().cast();
                    // SAFETY: as above.
                    unsafe { effort(key, value.0) }
                }
                (None, None) => 1,
            }
        };
        // What cannot be asked now is freed later.
        turn::try_take(self.module.is_shard_safe(), || noted(callback, ask)).unwrap_or(0)
    }

    fn unlink(&self, value: ModulePtr, place: KeyPlace<'_>) {
        if self.methods.unlink2.is_none() && self.methods.unlink.is_none() {
            return;
        }
        let of = forever(self);
        let (db, key) = (place.db, place.key.map(<[u8]>::to_vec));
        of.in_turn_or_later("unlink", move || {
            // The whole of it moves in here.
            let value = value;
            let mut keys = KeyOptions::new(KeyPlace { db, key: key.as_deref() }, KeyPlace::default());
            match (of.methods.unlink2, of.methods.unlink) {
                // SAFETY: the callback is the type's, and the value is one of its; it is freed after this.
                (Some(unlink), _) => unsafe { unlink(keys.as_abi(), value.0) },
                (None, Some(unlink)) => {
                    let key = keys.from_key().cast();
                    // SAFETY: as above.
                    unsafe { unlink(key, value.0) }
                }
                (None, None) => {}
            }
        });
    }

    fn free(&self, value: ModulePtr) {
        let Some(free) = self.methods.free else { return };
        forever(self).in_turn_or_later("free", move || {
            // The whole of it moves in here.
            let value = value;
            // SAFETY: the callback is the type's, and nothing refers to the value any more.
            unsafe { free(value.0) }
        });
    }
}
