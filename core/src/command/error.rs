//! What a command answers when it refuses: Redis' exact text.

use std::borrow::Cow;

/// An error reply without its leading `-` and its CRLF: `ERR syntax error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(Cow<'static, str>);

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
    pub const OUT_OF_RANGE: CommandError = CommandError::fixed("ERR index out of range");
    pub const OVERFLOW: CommandError = CommandError::fixed("ERR increment or decrement would overflow");
    pub const STRING_TOO_LONG: CommandError =
        CommandError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub const DB_OUT_OF_RANGE: CommandError = CommandError::fixed("ERR DB index is out of range");
    pub const INVALID_DB: CommandError = CommandError::fixed("ERR invalid DB index");
    pub const NO_AUTH: CommandError = CommandError::fixed("NOAUTH Authentication required.");
    pub const OUT_OF_MEMORY: CommandError =
        CommandError::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    pub const NO_REPLICAS: CommandError =
        CommandError::fixed("NOREPLICAS Not enough good replicas to write.");

    /// A text that is always the same. It starts with its code.
    pub const fn fixed(text: &'static str) -> CommandError {
        CommandError(Cow::Borrowed(text))
    }

    /// A text made for the occasion. It starts with its code.
    pub fn new(text: impl Into<String>) -> CommandError {
        CommandError(Cow::Owned(text.into()))
    }

    /// `command` as COMMAND knows it: `get`, `client|list`.
    pub fn wrong_arity(command: &str) -> CommandError {
        CommandError::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// A time that is zero or negative where it must not be, or too far away. `command` as COMMAND knows it.
    pub fn invalid_expire_time(command: &str) -> CommandError {
        CommandError::new(format!("ERR invalid expire time in '{command}' command"))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The code: what INFO errorstats counts under (`ERR`, `WRONGTYPE`).
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or("")
    }
}
