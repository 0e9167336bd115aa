//! Scans of a fake server: the first call of a scan gives everything.

use super::{Value, state, strings};
use crate::abi::*;
use crate::served;
use std::ffi::{c_int, c_void};

/// The position of a scan.
struct Cursor {
    is_over: bool,
}

unsafe extern "C" fn create_cursor() -> *mut RedisModuleScanCursor {
    Box::into_raw(Box::new(Cursor { is_over: false })).cast()
}

unsafe extern "C" fn destroy_cursor(cursor: *mut RedisModuleScanCursor) {
    // SAFETY: it was made above, and is used no more.
    drop(unsafe { Box::from_raw(cursor.cast::<Cursor>()) });
}

/// Whether the scan is over already; it is, from now on.
///
/// # Safety
/// `cursor` was made above.
unsafe fn end(cursor: *mut RedisModuleScanCursor) -> bool {
    // SAFETY: as promised.
    std::mem::replace(unsafe { &mut (*cursor.cast::<Cursor>()).is_over }, true)
}

unsafe extern "C" fn scan(
    ctx: *mut RedisModuleCtx,
    cursor: *mut RedisModuleScanCursor,
    each: RedisModuleScanCB,
    data: *mut c_void,
) -> c_int {
    let each = each.expect("a scan has a function");
    // SAFETY: the context is that of the call under way, the cursor was made above, and the function takes a name, no key,
    // and its data.
    unsafe {
        if end(cursor) {
            return 0;
        }
        let names: Vec<Vec<u8>> = state(ctx).keys.keys().cloned().collect();
        for name in names {
            let name = strings::make(&name);
            each(ctx, name, std::ptr::null_mut(), data);
            strings::free(name);
        }
    }
    0
}

unsafe extern "C" fn scan_key(
    key: *mut RedisModuleKey,
    cursor: *mut RedisModuleScanCursor,
    each: RedisModuleScanKeyCB,
    data: *mut c_void,
) -> c_int {
    let each = each.expect("a scan has a function");
    // SAFETY: the key is open, the cursor was made above, and the function takes a field, a value or NULL, and its data.
    unsafe {
        if end(cursor) {
            return 0;
        }
        let elements: Vec<(Vec<u8>, Option<Vec<u8>>)> = match super::keys::value(key) {
            Some(Value::Hash(hash)) => {
                hash.iter().map(|(field, value)| (field.clone(), Some(value.clone()))).collect()
            }
            Some(Value::Set(set)) => set.iter().map(|element| (element.clone(), None)).collect(),
            Some(Value::Zset(zset)) => zset
                .iter()
                .map(|(element, score)| (element.clone(), Some(score.to_string().into_bytes())))
                .collect(),
            Some(Value::String(_) | Value::List(_) | Value::Stream(_) | Value::Module(_)) | None => {
                Vec::new()
            }
        };
        for (field, value) in elements {
            let (field, value) = (strings::make(&field), value.map(|value| strings::make(&value)));
            each(key, field, value.unwrap_or(std::ptr::null_mut()), data);
            strings::free(field);
            value.into_iter().for_each(|value| strings::free(value));
        }
    }
    0
}

pub(super) static SERVED: &[Served] = served! {
    ScanCursorCreate = create_cursor,
    ScanCursorDestroy = destroy_cursor,
    Scan = scan,
    ScanKey = scan_key,
};
