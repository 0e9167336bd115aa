//! What a command answers when it cannot do what it was asked for.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::fmt;

/// An error for the client: its code and a sentence, as Redis writes them ("ERR syntax error").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Cow<'static, CStr>);

/// What a command comes to. Its reply was written to the context; an error is written by the caller.
pub type CommandResult = Result<(), Error>;

impl Error {
    pub const WRONG_TYPE: Error =
        Error::from_text(c"WRONGTYPE Operation against a key holding the wrong kind of value");
    pub const SYNTAX: Error = Error::from_text(c"ERR syntax error");
    pub const NOT_AN_INTEGER: Error = Error::from_text(c"ERR value is not an integer or out of range");
    pub const NOT_A_FLOAT: Error = Error::from_text(c"ERR value is not a valid float");
    pub const NO_SUCH_KEY: Error = Error::from_text(c"ERR no such key");

    /// An error whose text is known beforehand; costs nothing.
    pub const fn from_text(text: &'static CStr) -> Error {
        Error(Cow::Borrowed(text))
    }

    /// An error whose text is made now. Line breaks and zeros, which would end the reply, become spaces; other bytes may be
    /// any, for the text may quote an argument.
    pub fn new(text: impl AsRef<[u8]>) -> Error {
        let mut text = text.as_ref().to_vec();
        text.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n' | b'\0')).for_each(|byte| *byte = b' ');
        Error(Cow::Owned(CString::new(text).unwrap_or_default()))
    }

    pub fn text(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

impl std::error::Error for Error {}
