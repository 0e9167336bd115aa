//! Compiling. Only text is compiled: a chunk that begins as bytecode does is read as text (and is an error there), for
//! the VM does not check bytecode (CVE-2015-4335). The name of a chunk is anchored by the caller.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::ffi::*;

/// Longer sources are refused: the lexer counts the `=` of a long bracket in an `int` (CVE-2025-46819).
pub(crate) const SOURCE_BYTES_MAX: usize = 512 << 20;
const _: () = assert!(SOURCE_BYTES_MAX < i32::MAX as usize / 2);

/// The first byte of bytecode.
const BYTECODE_MARK: u8 = b'\x1b';

/// The pieces of a chunk as the parser reads them.
pub(crate) struct Pieces {
    len: usize,
    /// What is read after a space that keeps the parser from taking the chunk for bytecode.
    held_back: Option<(*const c_char, usize)>,
}

impl Pieces {
    pub(crate) const NONE: Pieces = Pieces { len: 0, held_back: None };

    /// What the reader hands out instead of a piece. `None`: the chunk is too long.
    pub(crate) fn next(&mut self, piece: *const c_char, len: usize) -> Option<(*const c_char, usize)> {
        let is_first = self.len == 0;
        self.len = self.len.saturating_add(len);
        if self.len > SOURCE_BYTES_MAX {
            return None;
        }
        // SAFETY: the piece has `len` bytes.
        if is_first && len > 0 && unsafe { *piece.cast::<u8>() } == BYTECODE_MARK {
            self.held_back = Some((piece, len));
            return Some((c" ".as_ptr(), 1));
        }
        Some((piece, len))
    }

    pub(crate) fn take_held_back(&mut self) -> Option<(*const c_char, usize)> {
        self.held_back.take()
    }
}

struct Source<'a> {
    body: Option<&'a [u8]>,
    pieces: Pieces,
}

unsafe extern "C-unwind" fn read_source(
    _: *mut lua_State,
    source: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    // SAFETY: `load` handed in a `Source`, and `len` is Lua's.
    unsafe {
        let source = &mut *source.cast::<Source>();
        let piece = match (source.pieces.take_held_back(), source.body.take()) {
            (Some(piece), _) => Some(piece),
            (None, Some(body)) => source.pieces.next(body.as_ptr().cast(), body.len()),
            (None, None) => None,
        };
        let (start, piece_len) = piece.unwrap_or((std::ptr::null(), 0));
        *len = piece_len;
        start
    }
}

/// Compiles `body` and pushes the function, or answers the error.
///
/// # Safety
/// `name` lies on the stack as a string ([`crate::run::anchor_chunk_name`]); the stack has room for two values.
pub(crate) unsafe fn load(lua: *mut lua_State, body: &[u8], name: &CStr) -> Result<(), Vec<u8>> {
    if body.len() > SOURCE_BYTES_MAX {
        return Err(b"chunk too long".to_vec());
    }
    let mut source = Source { body: Some(body), pieces: Pieces::NONE };
    // SAFETY: by the contract. An error of the parser is caught by `lua_load`.
    unsafe {
        if lua_load(lua, read_source, (&raw mut source).cast(), name.as_ptr()) == LUA_OK {
            return Ok(());
        }
        let text = bytes_at(lua, -1).unwrap_or(b"unknown error").to_vec();
        lua_settop(lua, -2);
        Err(text)
    }
}

/// The source after its first line's `#!...`; the line's end stays.
pub(crate) fn without_shebang(body: &[u8]) -> &[u8] {
    if !body.starts_with(b"#!") {
        return body;
    }
    let line_len = body.iter().position(|&byte| byte == b'\n').unwrap_or(body.len());
    &body[line_len..]
}

unsafe extern "C-unwind" fn write_code(
    _: *mut lua_State,
    part: *const c_void,
    len: usize,
    code: *mut c_void,
) -> c_int {
    // SAFETY: `copy_function` handed in a vector; the part has `len` bytes.
    unsafe {
        (*code.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(part.cast(), len));
    }
    0
}

unsafe extern "C-unwind" fn read_code(
    _: *mut lua_State,
    code: *mut c_void,
    len: *mut usize,
) -> *const c_char {
    // SAFETY: `copy_function` handed in a slice, which is taken at the first call.
    unsafe {
        let code = std::mem::take(&mut *code.cast::<&[u8]>());
        *len = code.len();
        code.as_ptr().cast()
    }
}

/// The bytecode of the Lua function on top of the stack.
///
/// # Safety
/// There is one; no run is on, so that no allocation is refused.
pub(crate) unsafe fn dump(lua: *mut lua_State) -> Vec<u8> {
    let mut code: Vec<u8> = Vec::new();
    // SAFETY: by the contract; the function stays where it is.
    unsafe { lua_dump_(lua, write_code, (&raw mut code).cast()) };
    code
}

/// Pushes the function that this bytecode is of, which has no upvalues.
///
/// # Safety
/// The code is from [`dump`], or [`crate::fold`] has made it of such code; the chunk name `@user_script` lies on the stack; no run
/// is on, so that no allocation is refused.
pub(crate) unsafe fn load_code(lua: *mut lua_State, code: &[u8]) {
    let mut rest = code;
    // SAFETY: by the contract.
    let status = unsafe { lua_load(lua, read_code, (&raw mut rest).cast(), c"@user_script".as_ptr()) };
    assert_eq!(status, LUA_OK, "bytecode of this VM loads");
}
