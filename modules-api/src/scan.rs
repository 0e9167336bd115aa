//! Scans: of the keyspace, and of one key.

use crate::abi::{RedisModuleCtx, RedisModuleKey, RedisModuleScanCursor, RedisModuleString};
use crate::api::api;
use crate::context::Context;
use crate::error::Error;
use crate::key::Key;
use crate::string::ModuleStr;
use std::ffi::c_void;
use std::ptr::NonNull;

/// The position of a scan, and whether it has come to the end.
struct Cursor(NonNull<RedisModuleScanCursor>);

impl Cursor {
    fn new() -> Cursor {
        // SAFETY: it asks for nothing.
        let cursor = unsafe { api!(ScanCursorCreate)() };
        Cursor(NonNull::new(cursor).expect("the server makes a cursor"))
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: the cursor is ours.
        unsafe { api!(ScanCursorDestroy)(self.0.as_ptr()) };
    }
}

impl Context<'_> {
    /// Calls `each` with the name of every key of the database, in no order. A key that is there from the beginning to the end
    /// comes at least once.
    /// Errors: the command is not [wide](crate::Row::is_wide).
    pub fn scan(&mut self, mut each: impl FnMut(ModuleStr<'_>)) -> Result<(), Error> {
        self.check_wide("wide")?;
        let cursor = Cursor::new();
        let mut each: &mut dyn FnMut(ModuleStr<'_>) = &mut each;
        // SAFETY: the context is that of the callback under way, and `on_key` takes such data.
        while unsafe {
            let data = (&raw mut each).cast::<c_void>();
            api!(Scan)(self.as_ptr(), cursor.0.as_ptr(), Some(on_key), data) != 0
        } {}
        Ok(())
    }
}

/// # Safety
/// The server calls it, from `Context::scan`.
unsafe extern "C" fn on_key(
    _ctx: *mut RedisModuleCtx,
    name: *mut RedisModuleString,
    _key: *mut RedisModuleKey,
    each: *mut c_void,
) {
    // SAFETY: the name lives until this returns, and the data is that of `Context::scan`.
    unsafe {
        let each = &mut *each.cast::<&mut dyn FnMut(ModuleStr<'_>)>();
        each(ModuleStr::from_raw(NonNull::new(name).expect("a key has a name")));
    }
}

impl Key<'_> {
    /// Calls `each` with every element of a set (whose value is None), field of a hash, or element of a sorted set (whose value
    /// is its score), in no order. Nothing is called for anything else.
    pub fn scan(&self, mut each: impl FnMut(ModuleStr<'_>, Option<ModuleStr<'_>>)) {
        if self.as_ptr().is_null() {
            return;
        }
        let cursor = Cursor::new();
        let mut each: &mut dyn FnMut(ModuleStr<'_>, Option<ModuleStr<'_>>) = &mut each;
        // SAFETY: the key is open, and `on_element` takes such data.
        while unsafe {
            let data = (&raw mut each).cast::<c_void>();
            api!(ScanKey)(self.as_ptr(), cursor.0.as_ptr(), Some(on_element), data) != 0
        } {}
    }
}

/// # Safety
/// The server calls it, from `Key::scan`.
unsafe extern "C" fn on_element(
    _key: *mut RedisModuleKey,
    field: *mut RedisModuleString,
    value: *mut RedisModuleString,
    each: *mut c_void,
) {
    // SAFETY: field and value live until this returns, and the data is that of `Key::scan`.
    unsafe {
        let each = &mut *each.cast::<&mut dyn FnMut(ModuleStr<'_>, Option<ModuleStr<'_>>)>();
        let field = ModuleStr::from_raw(NonNull::new(field).expect("an element has a name"));
        each(field, NonNull::new(value).map(|value| ModuleStr::from_raw(value)));
    }
}
