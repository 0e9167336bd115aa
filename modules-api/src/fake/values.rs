//! Values of the types of a fake server's module, and what such values are saved to, loaded from and measured by.

use super::keys;
use super::memory;
use super::{FakeHost, Value, all_bytes, state, strings, text};
use crate::abi::*;
use crate::data_type::DataType;
use crate::served;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_ulong, c_void};
use std::mem::transmute;
use std::sync::Mutex;

/// Something that a value wrote, to a file or to a digest.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Bytes(Vec<u8>),
}

/// A type of the module. All hosts of a process have the same, because the module has one static for it.
pub(super) struct FakeType {
    name: String,
    version: c_int,
    methods: RedisModuleTypeMethods,
}

static TYPES: Mutex<Vec<&'static FakeType>> = Mutex::new(Vec::new());

/// A value of a module's type, which is freed with this.
pub(super) struct ModuleValue {
    of: &'static FakeType,
    value: *mut c_void,
}

impl ModuleValue {
    /// Tells the module that the value leaves its key.
    pub(super) fn unlink(&self, key: &[u8]) {
        let unlink = self.of.methods.unlink.expect("the SDK gives all functions");
        let key = strings::make(key);
        // SAFETY: the value is of this type.
        unsafe {
            unlink(key, self.value);
            strings::free(key);
        }
    }
}

impl Drop for ModuleValue {
    fn drop(&mut self) {
        let free = self.of.methods.free.expect("the SDK gives all functions");
        // SAFETY: the value is of this type, and is used no more.
        unsafe { free(self.value) };
    }
}

/// A file, or what stands for it.
#[derive(Default)]
struct FakeIo {
    items: VecDeque<Item>,
    has_failed: bool,
    /// What a rewrite emits.
    commands: Vec<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct FakeDigest {
    sequences: Vec<Vec<Item>>,
    under_way: Vec<Item>,
}

#[derive(Default)]
struct FakeDefrag {
    cursor: c_ulong,
}

impl FakeHost {
    /// What the value in a key writes for a file. Panics if the key holds no value of a module's type, as all of these do.
    pub fn save(&mut self, key: &str) -> Vec<Item> {
        let mut io = FakeIo::default();
        self.with_value(key, |of, value| {
            let save = of.methods.rdb_save.expect("the SDK gives all functions");
            // SAFETY: the value is of this type.
            unsafe { save((&raw mut io).cast(), value) };
        });
        io.items.into()
    }

    /// Puts a value into a key that is loaded from what a version of the type wrote. Says whether it could be loaded; it is
    /// not if something is left, either.
    pub fn load_value<T: DataType>(&mut self, key: &str, items: &[Item], version: i32) -> bool {
        let mut io = FakeIo { items: items.to_vec().into(), ..FakeIo::default() };
        let of = self.type_of::<T>();
        let load = of.methods.rdb_load.expect("the SDK gives all functions");
        let (value, _) = self.in_context::<&[u8], _>(&[], |_ctx| {
            // SAFETY: the function takes such a file.
            unsafe { load((&raw mut io).cast(), version) }
        });
        if value.is_null() {
            return false;
        }
        let value = ModuleValue { of, value };
        let is_whole = io.items.is_empty() && !io.has_failed;
        if is_whole {
            self.locked(|state| state.replace(key.as_bytes(), Value::Module(value)));
        }
        is_whole
    }

    /// What the type writes for a file that belongs to no key.
    pub fn save_aux<T: DataType>(&mut self, is_before_keys: bool) -> Vec<Item> {
        let mut io = FakeIo::default();
        let save = self.type_of::<T>().methods.aux_save.expect("the type has auxiliary data");
        self.in_context::<&[u8], _>(&[], |_ctx| {
            // SAFETY: the function takes such a file.
            unsafe { save((&raw mut io).cast(), when(is_before_keys)) };
        });
        io.items.into()
    }

    /// Loads what `save_aux` of a version wrote. Says whether it could be loaded.
    pub fn load_aux<T: DataType>(&mut self, items: &[Item], version: i32, is_before_keys: bool) -> bool {
        let mut io = FakeIo { items: items.to_vec().into(), ..FakeIo::default() };
        let load = self.type_of::<T>().methods.aux_load.expect("the type has auxiliary data");
        let (result, _) = self.in_context::<&[u8], _>(&[], |_ctx| {
            // SAFETY: the function takes such a file.
            unsafe { load((&raw mut io).cast(), version, when(is_before_keys)) }
        });
        result == REDISMODULE_OK && io.items.is_empty()
    }

    /// The commands that make the value again, for the append-only file.
    pub fn rewrite(&mut self, key: &str) -> Vec<Vec<Vec<u8>>> {
        let mut io = FakeIo::default();
        self.with_value(key, |of, value| {
            let rewrite = of.methods.aof_rewrite.expect("the SDK gives all functions");
            let name = strings::make(key.as_bytes());
            // SAFETY: the value is of this type.
            unsafe {
                rewrite((&raw mut io).cast(), name, value);
                strings::free(name);
            }
        });
        io.commands
    }

    /// How much memory the value says that it takes.
    pub fn memory_bytes(&mut self, key: &str) -> usize {
        self.with_value(key, |of, value| {
            let memory_usage = of.methods.mem_usage.expect("the SDK gives all functions");
            // SAFETY: the value is of this type.
            unsafe { memory_usage(value) }
        })
    }

    /// How much work it is to free the value.
    pub fn free_effort(&mut self, key: &str) -> usize {
        self.with_value(key, |of, value| {
            let free_effort = of.methods.free_effort.expect("the SDK gives all functions");
            let name = strings::make(key.as_bytes());
            // SAFETY: the value is of this type.
            unsafe {
                let effort = free_effort(name, value);
                strings::free(name);
                effort
            }
        })
    }

    /// What the value adds to its digest: sequences of elements.
    pub fn digest(&mut self, key: &str) -> Vec<Vec<Item>> {
        let mut digest = FakeDigest::default();
        self.with_value(key, |of, value| {
            let add = of.methods.digest.expect("the SDK gives all functions");
            // SAFETY: the value is of this type.
            unsafe { add((&raw mut digest).cast(), value) };
        });
        assert!(digest.under_way.is_empty(), "a sequence was not ended: {:?}", digest.under_way);
        digest.sequences
    }

    /// Copies the value to another key. Says whether it can be copied.
    pub fn copy(&mut self, from: &str, to: &str) -> bool {
        let copied = self.with_value(from, |of, value| {
            let copy = of.methods.copy.expect("the SDK gives all functions");
            let (from, to) = (strings::make(from.as_bytes()), strings::make(to.as_bytes()));
            // SAFETY: the value is of this type.
            unsafe {
                let copied = copy(from, to, value);
                strings::free(from);
                strings::free(to);
                (!copied.is_null()).then(|| ModuleValue { of, value: copied })
            }
        });
        let Some(copied) = copied else { return false };
        self.locked(|state| state.replace(to.as_bytes(), Value::Module(copied)));
        true
    }

    /// Defragments the value: as the server would that has no time, it lets it do one step after the other. Gives how many
    /// calls it took.
    pub fn defrag(&mut self, key: &str) -> usize {
        let mut defrag = FakeDefrag::default();
        let mut calls = 0;
        loop {
            calls += 1;
            let is_over = self.with_value(key, |of, mut value| {
                let step = of.methods.defrag.expect("the SDK gives all functions");
                let name = strings::make(key.as_bytes());
                // SAFETY: the value is of this type, and nobody else uses it.
                unsafe {
                    let result = step((&raw mut defrag).cast(), name, &raw mut value);
                    strings::free(name);
                    result == 0
                }
            });
            if is_over {
                return calls;
            }
        }
    }

    fn type_of<T: DataType>(&self) -> &'static FakeType {
        let found = self.locked(|state| state.types.iter().find(|of| of.name == T::NAME).copied());
        found.expect("the module has registered the type")
    }

    /// Runs a callback of the module with the value in a key.
    fn with_value<R>(&self, key: &str, run: impl FnOnce(&'static FakeType, *mut c_void) -> R) -> R {
        self.in_context::<&[u8], _>(&[], |ctx| {
            // SAFETY: the context is one.
            let value = match unsafe { state(ctx) }.keys.get(key.as_bytes()) {
                Some(Value::Module(value)) => (value.of, value.value),
                _ => panic!("{key} holds no value of a module's type"),
            };
            run(value.0, value.1)
        })
        .0
    }
}

fn when(is_before_keys: bool) -> c_int {
    if is_before_keys { REDISMODULE_AUX_BEFORE_RDB } else { REDISMODULE_AUX_AFTER_RDB }
}

/// # Safety
/// `io` is a file of this server that is open.
unsafe fn file<'a>(io: *mut RedisModuleIO) -> &'a mut FakeIo {
    // SAFETY: as promised.
    unsafe { &mut *io.cast::<FakeIo>() }
}

/// # Safety
/// `digest` is one of this server that is under way.
unsafe fn under_way<'a>(digest: *mut RedisModuleDigest) -> &'a mut FakeDigest {
    // SAFETY: as promised.
    unsafe { &mut *digest.cast::<FakeDigest>() }
}

// The functions of the server: contexts are those of calls under way, keys and files are open, and bytes are as long as it is
// said.

unsafe extern "C" fn create_type(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    version: c_int,
    methods: *mut RedisModuleTypeMethods,
) -> *mut RedisModuleType {
    // SAFETY: see above.
    let (state, name, methods) = unsafe { (state(ctx), text(name), *methods) };
    if name.len() != 9 || !(0..1024).contains(&version) || state.types.iter().any(|of| of.name == name) {
        return std::ptr::null_mut();
    }
    let load = |methods: &RedisModuleTypeMethods| methods.rdb_load.map(|load| load as *const c_void);
    let mut types = TYPES.lock().expect("nothing panics with the mutex");
    let known = types
        .iter()
        .find(|of| of.name == name && of.version == version && load(&of.methods) == load(&methods));
    let of = known.copied().unwrap_or_else(|| {
        let of: &'static FakeType = Box::leak(Box::new(FakeType { name, version, methods }));
        types.push(of);
        of
    });
    state.types.push(of);
    std::ptr::from_ref(of).cast_mut().cast()
}

unsafe extern "C" fn set_value(
    key: *mut RedisModuleKey,
    of: *mut RedisModuleType,
    value: *mut c_void,
) -> c_int {
    // SAFETY: see above; the type is NULL, or one of this server's, which are never freed.
    unsafe {
        let Some(of) = of.cast::<FakeType>().as_ref() else { return REDISMODULE_ERR };
        keys::replace(key, Value::Module(ModuleValue { of, value }));
    }
    REDISMODULE_OK
}

unsafe extern "C" fn get_type(key: *mut RedisModuleKey) -> *mut RedisModuleType {
    // SAFETY: see above.
    match unsafe { keys::value(key) } {
        Some(Value::Module(value)) => std::ptr::from_ref(value.of).cast_mut().cast(),
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn get_value(key: *mut RedisModuleKey) -> *mut c_void {
    // SAFETY: see above.
    match unsafe { keys::value(key) } {
        Some(Value::Module(value)) => value.value,
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn save_unsigned(io: *mut RedisModuleIO, value: u64) {
    // SAFETY: see above.
    unsafe { file(io).items.push_back(Item::Unsigned(value)) };
}

unsafe extern "C" fn save_signed(io: *mut RedisModuleIO, value: i64) {
    // SAFETY: see above.
    unsafe { file(io).items.push_back(Item::Signed(value)) };
}

unsafe extern "C" fn save_double(io: *mut RedisModuleIO, value: f64) {
    // SAFETY: see above.
    unsafe { file(io).items.push_back(Item::Double(value)) };
}

unsafe extern "C" fn save_bytes(io: *mut RedisModuleIO, bytes: *const c_char, len: usize) {
    // SAFETY: see above.
    unsafe { file(io).items.push_back(Item::Bytes(crate::string::slice_of(bytes, len).to_vec())) };
}

/// Functions that load an item of one kind; of another, or of none, they fail.
macro_rules! loads {
    ($($name:ident -> $type:ty: $item:path;)*) => {$(
        unsafe extern "C" fn $name(io: *mut RedisModuleIO) -> $type {
            // SAFETY: see above.
            let io = unsafe { file(io) };
            match io.items.pop_front() {
                Some($item(value)) if !io.has_failed => value,
                _ => {
                    io.has_failed = true;
                    Default::default()
                }
            }
        }
    )*};
}

loads! {
    load_unsigned -> u64: Item::Unsigned;
    load_signed -> i64: Item::Signed;
    load_double -> f64: Item::Double;
}

unsafe extern "C" fn load_bytes(io: *mut RedisModuleIO, len: *mut usize) -> *mut c_char {
    // SAFETY: see above; there is room for the length, and the block is as long as the bytes.
    unsafe {
        let io = file(io);
        match io.items.pop_front() {
            Some(Item::Bytes(bytes)) if !io.has_failed => {
                *len = bytes.len();
                let block = memory::allocate(bytes.len()).cast::<u8>();
                block.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                block.cast()
            }
            _ => {
                io.has_failed = true;
                std::ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn has_failed(io: *mut RedisModuleIO) -> c_int {
    // SAFETY: see above.
    c_int::from(unsafe { file(io) }.has_failed)
}

/// `EmitAOF` with the format "v", as the SDK calls it.
unsafe extern "C" fn emit(
    io: *mut RedisModuleIO,
    name: *const c_char,
    format: *const c_char,
    arguments: *const *mut RedisModuleString,
    count: usize,
) {
    // SAFETY: see above.
    unsafe {
        assert_eq!(CStr::from_ptr(format), c"v");
        let mut command = vec![CStr::from_ptr(name).to_bytes().to_vec()];
        command.extend(all_bytes(arguments, count));
        file(io).commands.push(command);
    }
}

unsafe extern "C" fn digest_bytes(digest: *mut RedisModuleDigest, bytes: *const c_char, len: usize) {
    // SAFETY: see above.
    unsafe { under_way(digest).under_way.push(Item::Bytes(crate::string::slice_of(bytes, len).to_vec())) };
}

unsafe extern "C" fn digest_integer(digest: *mut RedisModuleDigest, value: c_longlong) {
    // SAFETY: see above.
    unsafe { under_way(digest).under_way.push(Item::Signed(value)) };
}

unsafe extern "C" fn end_sequence(digest: *mut RedisModuleDigest) {
    // SAFETY: see above.
    let digest = unsafe { under_way(digest) };
    digest.sequences.push(std::mem::take(&mut digest.under_way));
}

unsafe extern "C" fn should_stop(_defrag: *mut RedisModuleDefragCtx) -> c_int {
    1
}

unsafe extern "C" fn set_cursor(defrag: *mut RedisModuleDefragCtx, cursor: c_ulong) -> c_int {
    // SAFETY: the defragmentation is under way.
    unsafe { (*defrag.cast::<FakeDefrag>()).cursor = cursor };
    REDISMODULE_OK
}

unsafe extern "C" fn get_cursor(defrag: *mut RedisModuleDefragCtx, cursor: *mut c_ulong) -> c_int {
    // SAFETY: the defragmentation is under way, and there is room for the cursor.
    unsafe { *cursor = (*defrag.cast::<FakeDefrag>()).cursor };
    REDISMODULE_OK
}

type EmitArray = unsafe extern "C" fn(
    *mut RedisModuleIO,
    *const c_char,
    *const c_char,
    *const *mut RedisModuleString,
    usize,
);

// SAFETY: on Linux, the first integers and pointers of a call go into registers, whether the function declares them or has
// `...` for them. The SDK calls it with exactly these.
const EMIT: signature::EmitAOF = unsafe { transmute(emit as EmitArray) };

pub(super) static SERVED: &[Served] = served! {
    CreateDataType = create_type,
    ModuleTypeSetValue = set_value,
    ModuleTypeGetType = get_type,
    ModuleTypeGetValue = get_value,
    SaveUnsigned = save_unsigned,
    SaveSigned = save_signed,
    SaveDouble = save_double,
    SaveStringBuffer = save_bytes,
    LoadUnsigned = load_unsigned,
    LoadSigned = load_signed,
    LoadDouble = load_double,
    LoadStringBuffer = load_bytes,
    IsIOError = has_failed,
    EmitAOF = EMIT,
    DigestAddStringBuffer = digest_bytes,
    DigestAddLongLong = digest_integer,
    DigestEndSequence = end_sequence,
    DefragShouldStop = should_stop,
    DefragCursorSet = set_cursor,
    DefragCursorGet = get_cursor,
};
