//! Walks over keys, and over the elements of a key, that may be interrupted.

use super::fail_with;
use super::given::{Ctx, Key, Ours, abi_functions, server_functions};
use crate::command::typed::{Digits, StringRef};
use crate::modules::call_reply::CallReply;
use crate::modules::context::Context;
use crate::modules::key::ModuleKey;
use crate::modules::string::ModuleString;
use crate::protocol::Resp;
use crate::runtime::os_error;
use crate::types::double::F64Text;
use crate::types::hash::HashRef;
use crate::types::listpack::Item;
use crate::types::set::SetRef;
use crate::types::zset::ZSetView;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_int, c_void};

pub(super) const SERVED: &[Served] = served! {
    ScanCursorCreate = scan_cursor_create,
    ScanCursorRestart = scan_cursor_restart,
    ScanCursorDestroy = scan_cursor_destroy,
    Scan = scan,
    ScanKey = scan_key,
};

/// How far a scan has got.
#[derive(Default)]
pub(super) struct ScanCursor {
    /// As SCAN has it.
    position: u64,
    is_done: bool,
}

type CursorRef = Ours<ScanCursor, RedisModuleScanCursor>;

/// How many keys or elements a call visits, about.
const COUNT: usize = 10;

abi_functions! {
    fn scan_cursor_create() -> *mut RedisModuleScanCursor {
        Box::into_raw(Box::<ScanCursor>::default()).cast()
    }

    fn scan_cursor_restart(cursor: CursorRef) {
        *cursor = ScanCursor::default();
    }

    fn scan_cursor_destroy(cursor: CursorRef) {
        // SAFETY: the module passes what it was given, and does not use it any more.
        drop(unsafe { Box::from_raw(cursor.as_ptr()) });
    }
}

server_functions! {
    /// Visits some keys of the selected database, without opening them. Returns whether there may be more.
    fn scan(
        ctx: Ctx, cursor: CursorRef, callback: RedisModuleScanCB, data: *mut c_void,
    ) -> c_int {
        let Some(callback) = callback.filter(|_| !cursor.is_done) else {
            fail_with(os_error::NO_ENTRY);
            return 0;
        };
        let Some((next, keys)) = some_keys(&mut ctx, cursor.position) else {
            cursor.is_done = true;
            return 0;
        };
        (cursor.position, cursor.is_done) = (next, next == 0);
        for key in keys {
            let name = ModuleString::new(&key);
            // SAFETY: the module gave the function and its data; the name lasts until it returns.
            unsafe { callback(ctx.as_abi(), ModuleString::as_abi(name), std::ptr::null_mut(), data) };
            // SAFETY: it was made above.
            unsafe { ModuleString::release(name) };
        }
        c_int::from(!cursor.is_done)
    }

    /// Visits some fields of a hash, members of a set, or members of a sorted set with their scores. Returns whether there
    /// may be more.
    fn scan_key(
        key: Option<Key>, cursor: CursorRef, callback: RedisModuleScanKeyCB, data: *mut c_void,
    ) -> c_int {
        let Some(mut key) = key else {
            fail_with(os_error::INVALID);
            return 0;
        };
        let Some(callback) = callback.filter(|_| !cursor.is_done) else {
            fail_with(os_error::NO_ENTRY);
            return 0;
        };
        let Some((next, elements)) = some_elements(&mut key, cursor.position) else {
            fail_with(os_error::INVALID);
            return 0;
        };
        (cursor.position, cursor.is_done) = (next, next == 0);
        for (name, value) in elements {
            let name = ModuleString::from_vec(name);
            let value = value.map(ModuleString::from_vec);
            let value_abi = value.map_or(std::ptr::null_mut(), ModuleString::as_abi);
            // SAFETY: the module gave the function and its data; the strings last until it returns.
            unsafe { callback(key.as_ptr().cast(), ModuleString::as_abi(name), value_abi, data) };
            for string in [Some(name), value].into_iter().flatten() {
                // SAFETY: it was made above.
                unsafe { ModuleString::release(string) };
            }
        }
        c_int::from(!cursor.is_done)
    }
}

/// Some keys, and the position behind them. `None`: the callback cannot reach them.
fn some_keys(ctx: &mut Context<'static>, position: u64) -> Option<(u64, Vec<Vec<u8>>)> {
    let (mut cursor, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let args: [&[u8]; 4] =
        [b"SCAN", cursor.format(position).as_bytes(), b"COUNT", count.format(COUNT).as_bytes()];
    let reply = ctx.call_silently("Scan", &args, Resp::V2)?;
    let reply = CallReply::new(reply);
    let next = reply.element(REDISMODULE_REPLY_ARRAY, 0)?.string()?;
    let next = std::str::from_utf8(next).ok()?.parse::<u64>().ok()?;
    let found = reply.element(REDISMODULE_REPLY_ARRAY, 1)?;
    let keys = (0..found.len()).filter_map(|at| found.element(REDISMODULE_REPLY_ARRAY, at)?.string());
    Some((next, keys.map(<[u8]>::to_vec).collect()))
}

type Elements = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Some elements, and the position behind them. `None`: it is no collection that can be scanned.
fn some_elements(key: &mut ModuleKey, position: u64) -> Option<(u64, Elements)> {
    let mut elements = Elements::new();
    let value = key.value()?;
    if let Some(hash) = HashRef::of(value) {
        let mut next = position;
        while elements.len() < COUNT {
            next = hash.scan(next, &mut |field, value| elements.push((bytes(field), Some(bytes(value)))));
            if next == 0 {
                break;
            }
        }
        return Some((next, elements));
    }
    if let Some(set) = SetRef::of(value) {
        let mut next = position;
        while elements.len() < COUNT {
            next = set.scan(next, &mut |member| {
                elements.push((member.bytes(&mut Digits::new()).to_vec(), None));
            });
            if next == 0 {
                break;
            }
        }
        return Some((next, elements));
    }
    let next = match ZSetView::of(value)? {
        ZSetView::Big(set) => set.scan(position, COUNT, |member, score| {
            elements.push((member.to_vec(), Some(score_text(score))));
        }),
        packed => {
            packed.iter(0..packed.len()).for_each(|(member, score)| {
                elements.push((bytes(member), Some(score_text(score))));
            });
            0
        }
    };
    Some((next, elements))
}

fn score_text(score: f64) -> Vec<u8> {
    F64Text::new(score).as_bytes().to_vec()
}

fn bytes(item: Item<'_>) -> Vec<u8> {
    StringRef::from(item).bytes(&mut Digits::new()).to_vec()
}
