//! Values of a module's own type: how they are saved, loaded, copied and freed.

use crate::abi::*;
use crate::api::api;
use crate::context::{LogLevel, log};
use crate::current;
use crate::error::Error;
use crate::io::{Aof, Defrag, Digest, Loading, Saver};
use crate::key::{Key, KeyKind, WriteKey};
use crate::module::{Loader, c_string};
use crate::string::ModuleStr;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A type of values. Keys hold them as they hold strings and lists.
///
/// The server calls these functions on whatever thread the value is on, and frees large values in the background.
pub trait DataType: Send + Sync + Sized + 'static {
    /// Nine letters, digits, `-` or `_`: it stands in RDB files, so nobody else is to use it.
    const NAME: &'static str;
    /// The version of what `save` writes, from 0 to 1023.
    const VERSION: i32;

    /// Writes the value, for RDB files and DUMP.
    fn save(&self, to: &mut Saver<'_>);

    /// Reads what `save` of this or an earlier version wrote. None refuses the data.
    fn load(from: &mut Loading<'_>, version: i32) -> Option<Self>;

    /// Emits commands that make the value, for a rewrite of the append-only file: what it emits is all that is left of the
    /// value there.
    fn rewrite(&self, key: ModuleStr<'_>, aof: &mut Aof<'_>);

    /// How much memory it takes, for MEMORY USAGE.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }

    /// Adds what it consists of to the digest of DEBUG DIGEST.
    fn digest(&self, _digest: &mut Digest<'_>) {}

    /// A copy, for COPY; None if there can be none.
    fn copy(&self) -> Option<Self> {
        None
    }

    /// How much work it is to free it, in allocations: values of much work are freed in the background.
    fn free_effort(&self) -> usize {
        1
    }

    /// It leaves its key, and is freed soon, maybe on another thread.
    fn unlinked(&self, _key: ModuleStr<'_>) {}

    /// Moves its strings to where memory is less fragmented. False if there is more to do: then it is called again.
    fn defrag(&mut self, _defrag: &mut Defrag<'_>) -> bool {
        true
    }

    /// Whether `save_aux` and `load_aux` are called, once for each RDB file: before its keys and behind them.
    const HAS_AUX: bool = false;

    /// Writes what belongs to no key.
    fn save_aux(_to: &mut Saver<'_>, _is_before_keys: bool) {}

    /// Reads what `save_aux` wrote. None refuses the data.
    fn load_aux(_from: &mut Loading<'_>, _version: i32, _is_before_keys: bool) -> Option<()> {
        Some(())
    }
}

/// A static that stands for a type: the module registers it, and finds values of that type by it.
pub struct TypeHandle<T> {
    /// The server's; NULL until it is registered.
    registered: AtomicPtr<RedisModuleType>,
    _values: PhantomData<fn() -> T>,
}

impl<T: DataType> TypeHandle<T> {
    #[allow(clippy::new_without_default, reason = "it is for statics, which need a constant")]
    pub const fn new() -> TypeHandle<T> {
        const { assert!(T::NAME.len() == 9, "the name of a type has nine characters") };
        TypeHandle { registered: AtomicPtr::new(std::ptr::null_mut()), _values: PhantomData }
    }

    fn as_ptr(&self) -> *mut RedisModuleType {
        self.registered.load(Ordering::Relaxed)
    }
}

impl Loader<'_> {
    /// Registers a type.
    /// Errors: there is one of this name.
    pub fn data_type<T: DataType>(&mut self, handle: &'static TypeHandle<T>) -> Result<(), Error> {
        let triggers = if T::HAS_AUX { REDISMODULE_AUX_BEFORE_RDB | REDISMODULE_AUX_AFTER_RDB } else { 0 };
        let mut methods = RedisModuleTypeMethods {
            version: REDISMODULE_TYPE_METHOD_VERSION,
            rdb_load: Some(load::<T>),
            rdb_save: Some(save::<T>),
            aof_rewrite: Some(rewrite::<T>),
            mem_usage: Some(memory_usage::<T>),
            digest: Some(digest::<T>),
            free: Some(free::<T>),
            aux_load: if T::HAS_AUX { Some(load_aux::<T>) } else { None },
            aux_save: if T::HAS_AUX { Some(save_aux::<T>) } else { None },
            aux_save_triggers: triggers,
            free_effort: Some(free_effort::<T>),
            unlink: Some(unlink::<T>),
            copy: Some(copy::<T>),
            defrag: Some(defrag::<T>),
            mem_usage2: None,
            free_effort2: None,
            unlink2: None,
            copy2: None,
            aux_save2: None,
        };
        let name = c_string(T::NAME)?;
        let ctx = self.context().as_ptr();
        // SAFETY: the context is that of OnLoad; the server copies name and methods, which are for values of this type.
        let made = unsafe { api!(CreateDataType)(ctx, name.as_ptr(), T::VERSION, &raw mut methods) };
        if made.is_null() {
            return Err(Error::new(format!("ERR the type {} cannot be created", T::NAME)));
        }
        handle.registered.store(made, Ordering::Relaxed);
        Ok(())
    }
}

impl Key<'_> {
    /// A value of this type. Errors: WRONGTYPE.
    pub fn value<T: DataType>(&self, handle: &TypeHandle<T>) -> Result<Option<&T>, Error> {
        // SAFETY: the value stays while the key is borrowed: nothing is open for writing.
        Ok(self.find(handle)?.map(|value| unsafe { value.as_ref() }))
    }

    /// A value of this type is a `T` that `set_value` or `load` put into a box.
    fn find<T: DataType>(&self, handle: &TypeHandle<T>) -> Result<Option<NonNull<T>>, Error> {
        let Some(key) = self.typed(KeyKind::Module)? else { return Ok(None) };
        // SAFETY: the key is open and holds a value of a module.
        unsafe {
            if api!(ModuleTypeGetType)(key.as_ptr()) != handle.as_ptr() {
                return Err(Error::WRONG_TYPE);
            }
            Ok(NonNull::new(api!(ModuleTypeGetValue)(key.as_ptr()).cast::<T>()))
        }
    }
}

impl WriteKey<'_> {
    /// A value of this type, to be changed. To borrow it is to change it. Errors: WRONGTYPE.
    pub fn value_mut<T: DataType>(&mut self, handle: &TypeHandle<T>) -> Result<Option<&mut T>, Error> {
        let Some(mut value) = self.find(handle)? else { return Ok(None) };
        self.set_changed();
        // SAFETY: the value stays while the key is borrowed, and no other key is open that could be the same.
        Ok(Some(unsafe { value.as_mut() }))
    }

    /// Makes this its value, whatever it held. It does not expire then.
    /// Errors: the type is not registered.
    pub fn set_value<T: DataType>(&mut self, handle: &TypeHandle<T>, value: T) -> Result<(), Error> {
        let value = Box::into_raw(Box::new(value));
        // SAFETY: the key is open for writing, and the value is of the type's.
        let result =
            unsafe { api!(ModuleTypeSetValue)(self.raw().as_ptr(), handle.as_ptr(), value.cast::<c_void>()) };
        if result != REDISMODULE_OK {
            // SAFETY: the server did not take it.
            drop(unsafe { Box::from_raw(value) });
            return Err(Error::from_text(c"ERR the value cannot be set"));
        }
        self.set_changed();
        Ok(())
    }
}

/// The value behind a pointer that the server keeps for us.
///
/// # Safety
/// `value` is a value of this type, which nobody changes during `'v`.
unsafe fn value_of<'v, T: DataType>(value: *const c_void) -> &'v T {
    // SAFETY: as promised; it was made by `Box::into_raw`.
    unsafe { &*value.cast::<T>() }
}

/// # Safety
/// `key` is NULL or a string that lives during `'k`.
unsafe fn name_of<'k>(key: *mut RedisModuleString) -> Option<ModuleStr<'k>> {
    // SAFETY: as promised.
    NonNull::new(key).map(|key| unsafe { ModuleStr::from_raw(key) })
}

// What the server calls for values of the type `T`. Each may be called with a value of that type and with what its
// signature in `RedisModuleTypeMethods` says.

unsafe extern "C" fn load<T: DataType>(rdb: *mut RedisModuleIO, version: c_int) -> *mut c_void {
    let _callback = current::Callback::enter_for(T::NAME, "load");
    // SAFETY: the file is open until this returns.
    let mut from = unsafe { Loading::from_raw(rdb) };
    if version > T::VERSION {
        let text = format!("{}: data of version {version}, and this is {}", T::NAME, T::VERSION);
        log(std::ptr::null_mut(), LogLevel::Warning, &text);
        return std::ptr::null_mut();
    }
    match T::load(&mut from, version) {
        Some(value) => Box::into_raw(Box::new(value)).cast(),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn save<T: DataType>(rdb: *mut RedisModuleIO, value: *mut c_void) {
    let _callback = current::Callback::enter_for(T::NAME, "save");
    // SAFETY: the file is open and the value stays until this returns.
    unsafe { value_of::<T>(value).save(&mut Saver::from_raw(rdb)) };
}

unsafe extern "C" fn load_aux<T: DataType>(rdb: *mut RedisModuleIO, version: c_int, when: c_int) -> c_int {
    let _callback = current::Callback::enter_for(T::NAME, "load of auxiliary data");
    // SAFETY: the file is open until this returns.
    let mut from = unsafe { Loading::from_raw(rdb) };
    match T::load_aux(&mut from, version, when == REDISMODULE_AUX_BEFORE_RDB) {
        Some(()) => REDISMODULE_OK,
        None => REDISMODULE_ERR,
    }
}

unsafe extern "C" fn save_aux<T: DataType>(rdb: *mut RedisModuleIO, when: c_int) {
    let _callback = current::Callback::enter_for(T::NAME, "save of auxiliary data");
    // SAFETY: the file is open until this returns.
    let mut to = unsafe { Saver::from_raw(rdb) };
    T::save_aux(&mut to, when == REDISMODULE_AUX_BEFORE_RDB);
}

unsafe extern "C" fn rewrite<T: DataType>(
    aof: *mut RedisModuleIO,
    key: *mut RedisModuleString,
    value: *mut c_void,
) {
    let _callback = current::Callback::enter_for(T::NAME, "rewrite");
    // SAFETY: all of it is there until this returns.
    unsafe {
        if let Some(key) = name_of(key) {
            value_of::<T>(value).rewrite(key, &mut Aof::from_raw(aof));
        }
    }
}

unsafe extern "C" fn memory_usage<T: DataType>(value: *const c_void) -> usize {
    let _callback = current::Callback::enter_for(T::NAME, "memory usage");
    // SAFETY: the value stays until this returns.
    unsafe { value_of::<T>(value).memory_bytes() }
}

unsafe extern "C" fn digest<T: DataType>(digest: *mut RedisModuleDigest, value: *mut c_void) {
    let _callback = current::Callback::enter_for(T::NAME, "digest");
    // SAFETY: both are there until this returns.
    unsafe { value_of::<T>(value).digest(&mut Digest::from_raw(digest)) };
}

unsafe extern "C" fn free<T: DataType>(value: *mut c_void) {
    let _callback = current::Callback::enter_for(T::NAME, "free");
    // SAFETY: the server gives the value back, which was made by `Box::into_raw`.
    drop(unsafe { Box::from_raw(value.cast::<T>()) });
}

unsafe extern "C" fn free_effort<T: DataType>(_key: *mut RedisModuleString, value: *const c_void) -> usize {
    let _callback = current::Callback::enter_for(T::NAME, "free effort");
    // SAFETY: the value stays until this returns.
    unsafe { value_of::<T>(value).free_effort() }
}

unsafe extern "C" fn unlink<T: DataType>(key: *mut RedisModuleString, value: *const c_void) {
    let _callback = current::Callback::enter_for(T::NAME, "unlink");
    // SAFETY: both are there until this returns.
    unsafe {
        if let Some(key) = name_of(key) {
            value_of::<T>(value).unlinked(key);
        }
    }
}

unsafe extern "C" fn copy<T: DataType>(
    _from: *mut RedisModuleString,
    _to: *mut RedisModuleString,
    value: *const c_void,
) -> *mut c_void {
    let _callback = current::Callback::enter_for(T::NAME, "copy");
    // SAFETY: the value stays until this returns.
    match unsafe { value_of::<T>(value).copy() } {
        Some(copy) => Box::into_raw(Box::new(copy)).cast(),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn defrag<T: DataType>(
    ctx: *mut RedisModuleDefragCtx,
    _key: *mut RedisModuleString,
    value: *mut *mut c_void,
) -> c_int {
    let _callback = current::Callback::enter_for(T::NAME, "defragmentation");
    // SAFETY: the server has nobody else use the value until this returns.
    let is_done = unsafe { (*(*value).cast::<T>()).defrag(&mut Defrag::from_raw(ctx)) };
    c_int::from(!is_done)
}
