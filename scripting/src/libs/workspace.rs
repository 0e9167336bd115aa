//! Memory that the libraries work in.
//!
//! A [`Buffer`] lies in a userdata on Lua's stack: an error that jumps out of a function leaves it to Lua's collector, and what
//! it takes counts as the script's memory. A buffer that is not large is kept for the next call, in a table that is the
//! first upvalue of every function that works in one. While a call has it, it is not in that table: so a function that is
//! called in the midst of another (by a finalizer) gets memory of its own.
//!
//! A buffer takes one of the 8,000 values that Lua grants a function. By so much less than in Redis may be nested.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use mlua::ffi;

use super::State;

/// What is kept of a buffer for the next call, in bytes.
const KEEP_BYTES_MAX: usize = 64 * 1024;
/// What a buffer begins with, in bytes.
const FIRST_BYTES: usize = 2048;
/// No document gets longer. (Redis' buffers end at 2 GiB as well, and the server with them.)
const BYTES_MAX: usize = i32::MAX as usize;

/// The upvalue that holds the buffers which are kept.
const KEPT: c_int = ffi::lua_upvalueindex(1);

/// Plain values that a function collects. To be used only by the function that took it, while it is on Lua's stack.
pub struct Buffer<'c, T: Copy> {
    state: State<'c>,
    /// Where its userdata is on Lua's stack.
    slot: c_int,
    /// Its place in [`KEPT`].
    kept_at: c_int,
    start: *mut T,
    len: usize,
    room: usize,
}

/// How far a decoder or encoder has come in a table.
#[derive(Clone, Copy)]
pub struct Frame {
    pub is_map: bool,
    /// Whether a map's key is on the stack and waits for its value.
    pub has_key: bool,
    /// Elements that are done, or under way.
    pub done: u32,
    /// Of how many.
    pub count: u32,
}

/// Pushes the table of the buffers that are kept, one for all functions of a state.
pub fn push_kept(state: State<'_>) {
    /// Its address is the table's key.
    static KEY: u8 = 0;
    let key = (&raw const KEY).cast_mut().cast();
    state.push_light_userdata(key);
    // SAFETY: the state is valid; the registry is a table.
    unsafe { ffi::lua_rawget_(state.raw(), ffi::LUA_REGISTRYINDEX) };
    if state.type_of(-1) == super::state::Type::Nil {
        state.pop(1);
        state.push_table();
        state.push_light_userdata(key);
        state.push_value(-2);
        // SAFETY: the state is valid; key and value are the last two.
        unsafe { ffi::lua_rawset(state.raw(), ffi::LUA_REGISTRYINDEX) };
    }
}

impl<'c> Buffer<'c, u8> {
    /// Takes a buffer for bytes and pushes its userdata. There has to be room for 3 values.
    pub fn of_bytes(state: State<'c>) -> Self {
        Buffer::take(state, 1)
    }
}

impl<'c> Buffer<'c, Frame> {
    /// As [`Buffer::of_bytes`], for frames.
    pub fn of_frames(state: State<'c>) -> Self {
        Buffer::take(state, 2)
    }
}

impl<'c, T: Copy> Buffer<'c, T> {
    fn take(state: State<'c>, kept_at: c_int) -> Self {
        const { assert!(align_of::<T>() <= align_of::<usize>()) }
        // SAFETY: the state is valid, the upvalue is a table (`push_kept`); Lua aligns userdata for any C type.
        let (start, bytes) = unsafe {
            ffi::lua_rawgeti_(state.raw(), KEPT, kept_at);
            let kept = state.userdata(-1);
            if kept.is_null() {
                state.pop(1);
                (ffi::lua_newuserdata(state.raw(), FIRST_BYTES), FIRST_BYTES)
            } else {
                state.push_boolean(false);
                ffi::lua_rawseti_(state.raw(), KEPT, kept_at);
                (kept, state.raw_len(-1))
            }
        };
        let room = bytes / size_of::<T>();
        Buffer { state, slot: state.top(), kept_at, start: start.cast(), len: 0, room }
    }

    /// Keeps the memory for the next call, unless it is much. What was written is not to be used any more.
    pub fn keep(self) {
        if self.room * size_of::<T>() <= KEEP_BYTES_MAX {
            self.state.push_value(self.slot);
            // SAFETY: the state is valid, the upvalue is a table.
            unsafe { ffi::lua_rawseti_(self.state.raw(), KEPT, self.kept_at) };
        }
    }

    /// Tells that the userdata is now at this index of Lua's stack.
    pub fn moved_to(&mut self, slot: c_int) {
        self.slot = slot;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` values were written.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn last_mut(&mut self) -> Option<&mut T> {
        let last = self.len.checked_sub(1)?;
        // SAFETY: `len` values were written.
        Some(unsafe { &mut *self.start.add(last) })
    }

    pub fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    #[inline]
    pub fn push(&mut self, value: T) {
        self.reserve(1);
        // SAFETY: there is room for one.
        unsafe { self.start.add(self.len).write(value) };
        self.len += 1;
    }

    #[inline]
    pub fn extend(&mut self, values: &[T]) {
        self.reserve(values.len());
        // SAFETY: there is room for the values, and nobody else has a reference to where they go.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(self.len), values.len()) };
        self.len += values.len();
    }

    /// Makes room for `count` more. Error: not enough memory.
    #[inline]
    pub fn reserve(&mut self, count: usize) {
        if self.room - self.len < count {
            self.grow(count);
        }
    }

    /// The room behind what was written.
    pub fn spare(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: there is memory for `room` values, initialized or not.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(self.len).cast(), self.room - self.len) }
    }

    /// Counts `count` values of the spare room as written.
    ///
    /// # Safety
    ///
    /// They were written.
    pub unsafe fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.room - self.len);
        self.len += count;
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let room_max = BYTES_MAX / size_of::<T>();
        let needed = self.len.saturating_add(count);
        if needed > room_max || !self.state.has_room(1) {
            self.state.memory_error();
        }
        let room = needed.max(self.room * 2).min(room_max);
        // SAFETY: the state is valid, the new block has room for what was written, and takes the old one's place on the
        // stack only when that was copied.
        unsafe {
            let start: *mut T = ffi::lua_newuserdata(self.state.raw(), room * size_of::<T>()).cast();
            ptr::copy_nonoverlapping(self.start, start, self.len);
            ffi::lua_replace(self.state.raw(), self.slot);
            self.start = start;
        }
        self.room = room;
    }
}
