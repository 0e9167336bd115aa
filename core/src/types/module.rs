//! Values of modules: a pointer that only the module understands, and the operations of its type.
//!
//! Here and in `persist` nothing is known of the module ABI. Whoever hosts modules implements [`ModuleType`] over the
//! functions that a module has registered, and adds it to the [`ModuleTypes`] of the server. A type is never dropped, as
//! values refer to it: a module that has registered one cannot be unloaded, as in Redis.
//!
//! Tables move a value as they move any object, from shard to shard too, and count only the few bytes of its
//! [`ModuleValue`]: what the module has allocated is counted where it allocates.

use super::entry::Encoding;
use super::object::Collection;
use std::ffi::c_void;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// What the module gave as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModulePtr(pub *mut c_void);

// SAFETY: nothing is read through the pointer but by the module's own functions, and whoever calls them sees to it that no
// two of them run at the same time, unless the module has declared that they may.
unsafe impl Send for ModulePtr {}
// SAFETY: as above.
unsafe impl Sync for ModulePtr {}

/// A type's number: nine characters of six bits each, and ten bits for the version of the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModuleTypeId(pub u64);

impl ModuleTypeId {
    /// Of a type's name.
    pub const NAME_LEN: usize = 9;
    pub const ENCVER_MAX: u16 = (1 << ENCVER_BITS) - 1;

    /// `None`: the name has another length, or other characters than letters, digits, `-` and `_`, or the version is too
    /// big.
    pub fn of(name: &[u8], encver: u16) -> Option<ModuleTypeId> {
        if name.len() != Self::NAME_LEN || encver > Self::ENCVER_MAX {
            return None;
        }
        let mut id = 0;
        for byte in name {
            let number = CHARACTERS.iter().position(|character| character == byte)?;
            id = id << CHARACTER_BITS | number as u64;
        }
        Some(ModuleTypeId(id << ENCVER_BITS | u64::from(encver)))
    }

    pub fn name(self) -> [u8; Self::NAME_LEN] {
        std::array::from_fn(|at| {
            let shift = ENCVER_BITS + CHARACTER_BITS * (Self::NAME_LEN - 1 - at) as u32;
            CHARACTERS[(self.0 >> shift) as usize % CHARACTERS.len()]
        })
    }

    /// The version of the encoding.
    pub fn encver(self) -> u16 {
        self.0 as u16 & Self::ENCVER_MAX
    }

    /// Whether both have the same name.
    pub fn is_same_type(self, other: ModuleTypeId) -> bool {
        self.0 >> ENCVER_BITS == other.0 >> ENCVER_BITS
    }
}

impl fmt::Display for ModuleTypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.name()))
    }
}

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const CHARACTER_BITS: u32 = 6;
const ENCVER_BITS: u32 = 10;

/// Where a value is: some modules ask for that in their callbacks. Nothing is known of a value that is in no database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyPlace<'a> {
    pub db: Option<u32>,
    pub key: Option<&'a [u8]>,
}

impl<'a> KeyPlace<'a> {
    pub fn of(db: u32, key: &'a [u8]) -> KeyPlace<'a> {
        KeyPlace { db: Some(db), key: Some(key) }
    }
}

/// Where a module writes a value to, for RDB files and DUMP.
pub trait SaveSink {
    /// Also for signed integers, whose bits are those of an unsigned one.
    fn unsigned(&mut self, number: u64);
    fn float(&mut self, number: f32);
    fn double(&mut self, number: f64);
    fn string(&mut self, bytes: &[u8]);
}

/// Where a module reads a value from. `None`: what comes next is something else, or damaged. Nothing can be read after that.
pub trait LoadSource {
    fn unsigned(&mut self) -> Option<u64>;
    fn float(&mut self) -> Option<f32>;
    fn double(&mut self) -> Option<f64>;
    fn string(&mut self) -> Option<Vec<u8>>;

    /// Whether something could not be read.
    fn has_failed(&self) -> bool;
}

/// What makes a value's digest: DEBUG DIGEST.
pub trait DigestSink {
    /// Adds an element of a sequence, whose order counts.
    fn element(&mut self, bytes: &[u8]);
    /// Ends a sequence. The order of sequences does not count.
    fn end_of_sequence(&mut self);
}

/// Whether a module's own data in a file comes before the keys or after them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AuxPlace {
    BeforeKeys = 1,
    AfterKeys = 2,
}

/// Why a value is not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCopied {
    /// The type has no such operation.
    NotSupported,
    /// The module has refused.
    Failed,
}

/// The operations of a type that a module has registered.
pub trait ModuleType: Send + Sync {
    /// Of nine characters.
    fn name(&self) -> &'static str;

    /// With the version of the encoding that is written.
    fn id(&self) -> ModuleTypeId;

    /// Whether a callback of it would run at once. That may have changed by the time of the call, which waits then.
    fn is_callable(&self) -> bool {
        true
    }

    /// Whether its callbacks may run at the same time. If not, one may have to wait for another, and may let others run that wait
    /// for it.
    fn is_concurrent(&self) -> bool {
        true
    }

    fn save(&self, value: ModulePtr, place: KeyPlace<'_>, sink: &mut dyn SaveSink);

    /// Passes the words of each command that makes a value anew to `emit`. Returns false if the type has no such operation, or
    /// it has failed: what was passed is of no use then.
    fn rewrite(&self, _value: ModulePtr, _place: KeyPlace<'_>, _emit: &mut dyn FnMut(&[&[u8]])) -> bool {
        false
    }

    /// Reads a value that was written with the version `encver`. `None`: the module has refused, or the source has failed.
    fn load(&self, source: &mut dyn LoadSource, encver: u16, place: KeyPlace<'_>) -> Option<ModulePtr>;

    /// Whether the module has data of its own at this place of a file.
    fn saves_aux(&self, when: AuxPlace) -> bool;

    fn save_aux(&self, when: AuxPlace, sink: &mut dyn SaveSink);

    /// Reads what [`ModuleType::save_aux`] wrote. Returns whether the module has accepted it.
    fn load_aux(&self, source: &mut dyn LoadSource, encver: u16, when: AuxPlace) -> bool;

    /// A copy of a value, for another place.
    ///
    /// # Errors
    /// The type has no such operation, or it has failed.
    fn copy(&self, value: ModulePtr, from: KeyPlace<'_>, to: KeyPlace<'_>) -> Result<ModulePtr, NotCopied>;

    /// Returns whether the type has such an operation.
    fn digest(&self, value: ModulePtr, place: KeyPlace<'_>, sink: &mut dyn DigestSink) -> bool;

    /// Bytes that a value takes, estimated from `samples` elements if it has more, and from all for 0. 0: not known.
    fn memory_usage(&self, value: ModulePtr, place: KeyPlace<'_>, samples: usize) -> usize;

    /// How much work it is to free a value, about 1 for each allocation. 0: it is always freed later.
    fn free_effort(&self, value: ModulePtr, place: KeyPlace<'_>) -> usize;

    /// A value is removed from its key. It is not free yet.
    fn unlink(&self, value: ModulePtr, place: KeyPlace<'_>);

    /// Frees a value, at once or later. It may be called on any thread.
    fn free(&self, value: ModulePtr);
}

/// A value of a module. Dropping it frees it.
pub struct ModuleValue {
    ptr: ModulePtr,
    of: &'static dyn ModuleType,
    /// Known from its removal on.
    free_cost: usize,
}

impl ModuleValue {
    /// Takes over a value that the module has made.
    pub fn new(of: &'static dyn ModuleType, ptr: ModulePtr) -> ModuleValue {
        ModuleValue { ptr, of, free_cost: 1 }
    }

    pub fn module_type(&self) -> &'static dyn ModuleType {
        self.of
    }

    pub fn ptr(&self) -> ModulePtr {
        self.ptr
    }

    /// Replaces what the module gave as the value. Returns what that was, which is the caller's from here on.
    pub fn replace(&mut self, ptr: ModulePtr) -> ModulePtr {
        std::mem::replace(&mut self.ptr, ptr)
    }

    pub fn save(&self, place: KeyPlace<'_>, sink: &mut dyn SaveSink) {
        self.of.save(self.ptr, place, sink);
    }

    /// See [`ModuleType::rewrite`].
    pub fn rewrite(&self, place: KeyPlace<'_>, emit: &mut dyn FnMut(&[&[u8]])) -> bool {
        self.of.rewrite(self.ptr, place, emit)
    }

    /// # Errors
    /// Those of [`ModuleType::copy`].
    pub fn copy(&self, from: KeyPlace<'_>, to: KeyPlace<'_>) -> Result<ModuleValue, NotCopied> {
        Ok(ModuleValue::new(self.of, self.of.copy(self.ptr, from, to)?))
    }

    /// Returns whether its type has such an operation.
    pub fn digest(&self, place: KeyPlace<'_>, sink: &mut dyn DigestSink) -> bool {
        self.of.digest(self.ptr, place, sink)
    }

    /// Bytes that it takes besides its [`Collection::heap_bytes`].
    pub fn memory_usage(&self, place: KeyPlace<'_>, samples: usize) -> usize {
        self.of.memory_usage(self.ptr, place, samples)
    }

    /// It goes on under another key: the module is told that it left this one.
    pub fn moved_from(&self, place: KeyPlace<'_>) {
        self.of.unlink(self.ptr, place);
    }

    /// It was removed from its key, and is freed next.
    pub(super) fn removed_from(&mut self, place: KeyPlace<'_>) {
        // Redis' order: afterwards the module may know nothing of the key any more.
        self.of.unlink(self.ptr, place);
        // To free the object itself is counted beside this.
        self.free_cost = match self.of.free_effort(self.ptr, place) {
            0 => super::garbage::FREE_AT_ONCE_MAX,
            effort => effort - 1,
        };
    }
}

impl Drop for ModuleValue {
    fn drop(&mut self) {
        self.of.free(self.ptr);
    }
}

impl Collection for ModuleValue {
    fn len(&self) -> usize {
        1
    }

    fn heap_bytes(&self) -> usize {
        size_of::<ModuleValue>()
    }

    fn free_cost(&self) -> usize {
        self.free_cost
    }

    /// The module frees a value as a whole, whatever that takes.
    fn free_some(&mut self, budget: &mut usize) -> bool {
        *budget = 0;
        self.free_cost = 0;
        false
    }

    /// Only [`ModuleValue::copy`] can make a copy, and it may fail.
    fn duplicate(&self) -> ModuleValue {
        unreachable!("a value of a module is copied by its type's operation")
    }

    fn encoding(&self) -> Encoding {
        Encoding::Raw
    }
}

/// The types that the modules of a server have registered.
#[derive(Default)]
pub struct ModuleTypes(RwLock<Vec<&'static dyn ModuleType>>);

impl ModuleTypes {
    pub const fn new() -> ModuleTypes {
        ModuleTypes(RwLock::new(Vec::new()))
    }

    /// Adds a type. Returns whether its name was free.
    pub fn add(&self, of: &'static dyn ModuleType) -> bool {
        let mut types = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_free = !types.iter().any(|other| other.id().is_same_type(of.id()));
        if is_free {
            types.push(of);
        }
        is_free
    }

    /// Removes a type of a module that could not be loaded to its end, and has made no values.
    pub fn remove(&self, id: ModuleTypeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|of| !of.id().is_same_type(id));
    }

    /// The type of this name, whatever the version of the encoding.
    pub fn find(&self, id: ModuleTypeId) -> Option<&'static dyn ModuleType> {
        self.all().into_iter().find(|of| of.id().is_same_type(id))
    }

    /// In the order in which they were added.
    pub fn all(&self) -> Vec<&'static dyn ModuleType> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_characters_of_the_name_and_the_version() {
        let id = ModuleTypeId::of(b"test___dt", 1).unwrap();
        // As redis-server 7.0.15 writes it for this type.
        assert_eq!(id.0, 0xB5EB_2DFF_FFDD_B401);
        assert_eq!((&id.name(), id.encver()), (b"test___dt", 1));
        let other = ModuleTypeId::of(b"test___dt", 1023).unwrap();
        assert!(id.is_same_type(other) && id != other);
        assert_eq!(other.to_string(), "test___dt");
        assert_eq!(ModuleTypeId::of(b"AAAAAAAAA", 0), Some(ModuleTypeId(0)));
        assert_eq!(ModuleTypeId::of(b"_________", 1023), Some(ModuleTypeId(u64::MAX)));
        for (name, encver) in
            [(&b"short"[..], 0), (b"ten_chars_", 0), (b"no blank!", 0), (b"test___dt", 1024)]
        {
            assert_eq!(ModuleTypeId::of(name, encver), None);
        }
    }
}
