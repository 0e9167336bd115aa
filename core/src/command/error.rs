//! Error replies of commands: Redis' exact texts, which may quote bytes that the client sent.

use crate::protocol::until_nul;
use std::borrow::Cow;

/// An error reply without its leading `-` and its CRLF: `ERR syntax error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(Cow<'static, [u8]>);

pub type CommandResult<T = ()> = Result<T, CommandError>;

impl CommandError {
    pub const SYNTAX: CommandError = CommandError::fixed("ERR syntax error");
    pub const WRONG_TYPE: CommandError =
        CommandError::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub const NOT_INTEGER: CommandError = CommandError::fixed("ERR value is not an integer or out of range");
    pub const NOT_FLOAT: CommandError = CommandError::fixed("ERR value is not a valid float");
    pub const NO_SUCH_KEY: CommandError = CommandError::fixed("ERR no such key");
    pub const SAME_OBJECT: CommandError =
        CommandError::fixed("ERR source and destination objects are the same");
    pub const OVERFLOW: CommandError = CommandError::fixed("ERR increment or decrement would overflow");
    pub const STRING_TOO_LONG: CommandError =
        CommandError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub const DB_OUT_OF_RANGE: CommandError = CommandError::fixed("ERR DB index is out of range");
    pub const NO_AUTH: CommandError = CommandError::fixed("NOAUTH Authentication required.");
    pub const OUT_OF_MEMORY: CommandError =
        CommandError::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    pub const LOADING: CommandError = CommandError::fixed("LOADING Redis is loading the dataset in memory");
    pub const SAVE_FAILED: CommandError = CommandError::fixed(
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that \
         may modify the data set are disabled, because this instance is configured to report errors during writes if \
         RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the \
         RDB error.",
    );
    pub const READ_ONLY: CommandError =
        CommandError::fixed("READONLY You can't write against a read only replica.");
    pub const MASTER_DOWN: CommandError = CommandError::fixed(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    );
    pub const NO_REPLICAS: CommandError =
        CommandError::fixed("NOREPLICAS Not enough good replicas to write.");

    /// A constant text. It starts with its code.
    pub const fn fixed(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text.as_bytes()))
    }

    /// A text composed at run time. It starts with its code.
    pub fn new(text: impl Into<Vec<u8>>) -> CommandError {
        CommandError(Cow::Owned(text.into()))
    }

    /// A text that quotes bytes that the client sent, up to a NUL, as `%s` does in C.
    pub fn quoting(before: &str, sent: &[u8], after: &str) -> CommandError {
        CommandError::new([before.as_bytes(), until_nul(sent), after.as_bytes()].concat())
    }

    /// A text that quotes two such strings.
    pub fn quoting_two(text: [&str; 3], sent: [&[u8]; 2]) -> CommandError {
        let [before, between, after] = text.map(str::as_bytes);
        CommandError::new([before, until_nul(sent[0]), between, until_nul(sent[1]), after].concat())
    }

    /// `command`: the name as COMMAND shows it: `get`, `client|list`.
    pub fn wrong_arity(command: &str) -> CommandError {
        CommandError::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// A subcommand that does not exist, or not with this number of arguments, where the row does not check that.
    pub fn wrong_subcommand(container: &str, sub: &[u8]) -> CommandError {
        const SHOWN_BYTES_MAX: usize = 128;
        CommandError::quoting(
            "ERR unknown subcommand or wrong number of arguments for '",
            &sub[..sub.len().min(SHOWN_BYTES_MAX)],
            &format!("'. Try {container} HELP."),
        )
    }

    /// An expiry that is zero or negative where that is not allowed, or too large. `command`: the name as COMMAND
    /// shows it.
    pub fn invalid_expire_time(command: &str) -> CommandError {
        CommandError::new(format!("ERR invalid expire time in '{command}' command"))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text as UTF-8: bytes that are not are replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The code under which INFO errorstats counts the error (`ERR`, `WRONGTYPE`).
    pub fn code(&self) -> &str {
        code_of(&self.0)
    }
}

/// Longer first words are no codes.
const CODE_LEN_MAX: usize = 30;

/// The code of the error whose text, or whose reply without `-`, begins with `text`: its first word. ERR if that is all of
/// the text, too long, or not UTF-8.
pub fn code_of(text: &[u8]) -> &str {
    let end = memchr::memchr3(b' ', b'\r', b'\n', text);
    end.filter(|&end| text[end] == b' ' && end <= CODE_LEN_MAX)
        .and_then(|end| std::str::from_utf8(&text[..end]).ok())
        .unwrap_or("ERR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_from_the_client_are_quoted_unchanged_up_to_a_nul() {
        let error = CommandError::quoting("ERR Unsupported option '", b"a\xffb\0c", "'");
        assert_eq!(error.as_bytes(), b"ERR Unsupported option 'a\xffb'");
        assert_eq!(error.text(), "ERR Unsupported option 'a\u{fffd}b'");
    }

    #[test]
    fn the_code_is_the_first_word_of_several() {
        assert_eq!(CommandError::WRONG_TYPE.code(), "WRONGTYPE");
        assert_eq!(code_of(b"OOM x\r\n"), "OOM");
        assert_eq!(code_of(b"OOM\r\n+a b\r\n"), "ERR");
        assert_eq!(code_of(b"a\tb c"), "a\tb");
        assert_eq!(code_of(b"\xff x"), "ERR");
        let word = "x".repeat(CODE_LEN_MAX);
        assert_eq!(code_of(format!("{word} y").as_bytes()), word);
        assert_eq!(code_of(format!("x{word} y").as_bytes()), "ERR");
    }
}
