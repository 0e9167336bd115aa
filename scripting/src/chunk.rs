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

/// Whether the Lua function on top of the stack, or a function within it, assigns a global variable.
///
/// # Safety
/// There is one; no run is on, so that no allocation is refused.
pub(crate) unsafe fn assigns_globals(lua: *mut lua_State) -> bool {
    let mut code: Vec<u8> = Vec::new();
    // SAFETY: by the contract; the function stays where it is.
    unsafe { lua_dump_(lua, write_code, (&raw mut code).cast()) };
    let mut code = Bytecode { rest: &code };
    // What cannot be read is taken to be the worst.
    code.skip(BYTECODE_HEADER_BYTES).and_then(|()| code.assigns_globals()).unwrap_or(true)
}

/// `ESC Lua`, the version, the format, and the sizes of types.
const BYTECODE_HEADER_BYTES: usize = 12;

/// The instruction that assigns a global variable: the lower six bits say which one it is.
const SET_GLOBAL: u32 = 7;
const INSTRUCTION_BITS: u32 = 6;

/// Bytecode as this machine's Lua dumps it: integers of 4 bytes, sizes and numbers of 8, all in the machine's order.
struct Bytecode<'a> {
    rest: &'a [u8],
}

impl Bytecode<'_> {
    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.rest.first()?;
        self.skip(1)?;
        Some(byte)
    }

    fn integer(&mut self) -> Option<usize> {
        let bytes = self.rest.first_chunk::<4>()?;
        self.skip(4)?;
        usize::try_from(i32::from_ne_bytes(*bytes)).ok()
    }

    fn skip_string(&mut self) -> Option<()> {
        let len = usize::from_ne_bytes(*self.rest.first_chunk::<8>()?);
        self.skip(8)?;
        self.skip(len)
    }

    fn skip_constant(&mut self) -> Option<()> {
        match c_int::from(self.byte()?) {
            LUA_TNIL => Some(()),
            LUA_TBOOLEAN => self.skip(1),
            LUA_TNUMBER => self.skip(8),
            LUA_TSTRING => self.skip_string(),
            _ => None,
        }
    }

    /// Reads a function, up to the end of its debug information.
    fn assigns_globals(&mut self) -> Option<bool> {
        self.skip_string()?;
        // Its lines; the numbers of upvalues, parameters and registers, and whether it takes more arguments.
        self.skip(2 * 4 + 4)?;
        let code_len = 4 * self.integer()?;
        let code = self.rest.get(..code_len)?;
        let opcode = |word: &[u8; 4]| u32::from_ne_bytes(*word) & ((1 << INSTRUCTION_BITS) - 1);
        let mut assigns = code.as_chunks::<4>().0.iter().any(|word| opcode(word) == SET_GLOBAL);
        self.skip(code_len)?;
        for _ in 0..self.integer()? {
            self.skip_constant()?;
        }
        for _ in 0..self.integer()? {
            assigns |= self.assigns_globals()?;
        }
        let line_bytes = 4 * self.integer()?;
        self.skip(line_bytes)?;
        for _ in 0..self.integer()? {
            self.skip_string()?;
            self.skip(2 * 4)?;
        }
        for _ in 0..self.integer()? {
            self.skip_string()?;
        }
        Some(assigns)
    }
}

/// Pushes a copy of the Lua function on top of the stack, which has no upvalues. The copy goes through bytecode that
/// nobody else has touched.
///
/// # Safety
/// The chunk name `@user_script` lies on the stack; no run is on, so that no allocation is refused.
pub(crate) unsafe fn copy_function(lua: *mut lua_State) {
    let mut code: Vec<u8> = Vec::new();
    // SAFETY: by the contract; the function is in the main thread of the VM.
    unsafe {
        lua_dump_(lua, write_code, (&raw mut code).cast());
        let mut rest = code.as_slice();
        let status = lua_load(lua, read_code, (&raw mut rest).cast(), c"@user_script".as_ptr());
        assert_eq!(status, LUA_OK, "bytecode of this VM loads");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a compiled source assigns a global; `None`: it does not compile.
    fn assigns(source: &str) -> Option<bool> {
        // SAFETY: the state is this test's own, and nothing runs in it.
        unsafe {
            let lua = luaL_newstate();
            crate::run::anchor_chunk_name(lua, c"@test".as_ptr());
            let assigns = load(lua, source.as_bytes(), c"@test").ok().map(|()| assigns_globals(lua));
            lua_close(lua);
            assigns
        }
    }

    #[test]
    fn assignments_of_globals_are_found_at_any_depth() {
        for source in [
            "a = 1",
            "function f() end",
            "local f = function() return function(x) y = x end end",
            "if false then KEYS = nil end",
            "local t = {function() for i = 1, 2 do t = i end end}",
        ] {
            assert_eq!(assigns(source), Some(true), "{source}");
        }
        for source in [
            "",
            "return redis.call('GET', KEYS[1])",
            "local a, b = 1.5, 'text' a = b local t = {} t.x = nil t[1] = true",
            "local function f(...) local n = select('#', ...) return function() return f, n end end return f(1, 2)",
            "_G.x = 1",
        ] {
            assert_eq!(assigns(source), Some(false), "{source}");
        }
    }
}
