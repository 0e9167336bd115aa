//! Fields of a module in INFO.

use crate::abi::{REDISMODULE_OK, RedisModuleInfoCtx};
use crate::api::api;
use crate::callback::only_value;
use crate::current;
use crate::error::Error;
use crate::module::Loader;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;

/// What fields are added to.
pub struct Info<'i> {
    ctx: *mut RedisModuleInfoCtx,
    _call: PhantomData<&'i ()>,
}

impl Loader<'_> {
    /// Has a function called for INFO. It captures nothing.
    pub fn on_info<F: Fn(&mut Info<'_>) + Copy + 'static>(&mut self, _callback: F) -> Result<(), Error> {
        let ctx = self.context().as_ptr();
        // SAFETY: the context is that of OnLoad, and `on_info` is a function for INFO.
        match unsafe { api!(RegisterInfoFunc)(ctx, Some(on_info::<F>)) } {
            REDISMODULE_OK => Ok(()),
            _ => Err(Error::new("ERR the server takes no fields for INFO")),
        }
    }
}

impl Info<'_> {
    /// Begins a section; an empty name stands for the module's own. False if INFO was not asked for it: then there is no need
    /// to add its fields.
    pub fn section(&mut self, name: &CStr) -> bool {
        let name = if name.is_empty() { std::ptr::null::<c_char>() } else { name.as_ptr() };
        // SAFETY: INFO is under way, and the name lives.
        unsafe { api!(InfoAddSection)(self.ctx, name) == REDISMODULE_OK }
    }

    /// A field with a text.
    pub fn text(&mut self, name: &CStr, value: &str) {
        let value = CString::new(value.replace('\0', " ")).unwrap_or_default();
        // SAFETY: INFO is under way; name and value live.
        unsafe { api!(InfoAddFieldCString)(self.ctx, name.as_ptr(), value.as_ptr()) };
    }

    /// A field with an integer.
    pub fn integer(&mut self, name: &CStr, value: i64) {
        // SAFETY: INFO is under way; the name lives.
        unsafe { api!(InfoAddFieldLongLong)(self.ctx, name.as_ptr(), value) };
    }

    /// A field with a number.
    pub fn double(&mut self, name: &CStr, value: f64) {
        // SAFETY: INFO is under way; the name lives.
        unsafe { api!(InfoAddFieldDouble)(self.ctx, name.as_ptr(), value) };
    }

    /// A field that has fields: `name:a=1,b=2`. They are those that `fields` adds.
    pub fn group(&mut self, name: &CStr, fields: impl FnOnce(&mut Info<'_>)) {
        // SAFETY: INFO is under way; the name lives.
        unsafe { api!(InfoBeginDictField)(self.ctx, name.as_ptr()) };
        fields(self);
        // SAFETY: INFO is under way.
        unsafe { api!(InfoEndDictField)(self.ctx) };
    }
}

/// # Safety
/// The server calls it, as a function for INFO.
unsafe extern "C" fn on_info<F: Fn(&mut Info<'_>) + Copy + 'static>(
    ctx: *mut RedisModuleInfoCtx,
    _for_crash_report: c_int,
) {
    let _callback = current::Callback::enter("INFO");
    // SAFETY: `Loader::on_info` was given an `F`.
    let callback = unsafe { only_value::<F>() };
    callback(&mut Info { ctx, _call: PhantomData });
}
