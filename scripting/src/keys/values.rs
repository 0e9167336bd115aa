//! What the analysis knows of a value, and where the values that it knows come from.

use crate::keys::syntax::FunctionId;
use crate::keys::template::TemplateId;

/// What all values are that an expression or a variable may have while the script runs. nil and false are among them always:
/// no command accepts them as an argument, and nothing can be done with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Value<'a> {
    /// nil or false only.
    #[default]
    Nothing,
    /// One string, or an integer.
    Literal(&'a [u8]),
    /// Elements of KEYS.
    Key,
    /// A text of these pieces.
    Made(TemplateId),
    /// The table of arguments, which the script may change: see [`Flow::has_changed_args`](super::flow::Flow::has_changed_args).
    Args,
    /// The results of `ipairs(ARGV)`.
    ArgsIteration,
    Function(FunctionId),
    Builtin(Builtin),
    /// Something that must not get where it would be forgotten what it is.
    Capability(Capability),
    /// Anything else.
    Other,
}

/// With one of these, code could call commands or change what KEYS holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Capability {
    /// The table of declared keys.
    Keys,
    /// The results of `ipairs(KEYS)`.
    Iteration,
    Redis,
    /// redis.call or redis.pcall.
    Call,
    RegisterFunction,
}

impl Capability {
    pub(super) fn name(self) -> &'static str {
        match self {
            Capability::Keys => "KEYS",
            Capability::Iteration => "an iterator over KEYS",
            Capability::Redis => "redis",
            Capability::Call => "redis.call",
            Capability::RegisterFunction => "redis.register_function",
        }
    }
}

/// Functions and libraries of Lua and Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Builtin {
    /// ipairs, pairs.
    Iterate,
    Unpack,
    Pcall,
    /// A function that returns one value and keeps none of its arguments.
    Reader,
    Table,
    String,
    Math,
    Cjson,
    Cmsgpack,
}

/// What a global name stands for; `None`: something that the analysis knows nothing of.
///
/// The names here cannot be given another meaning: globals and libraries are read-only. None of the functions behind them
/// gives access to `redis`, to the globals as a table, or to another function's environment.
pub(super) fn global(name: &[u8], is_library: bool) -> Option<Value<'static>> {
    Some(match name {
        b"KEYS" if !is_library => Value::Capability(Capability::Keys),
        b"ARGV" if !is_library => Value::Args,
        // A coroutine of a library may outlive the run, with keys in its local variables.
        b"coroutine" if !is_library => Value::Other,
        b"redis" => Value::Capability(Capability::Redis),
        b"ipairs" | b"pairs" => Value::Builtin(Builtin::Iterate),
        b"unpack" => Value::Builtin(Builtin::Unpack),
        b"pcall" => Value::Builtin(Builtin::Pcall),
        b"tonumber" | b"tostring" | b"type" => Value::Builtin(Builtin::Reader),
        b"table" => Value::Builtin(Builtin::Table),
        b"string" => Value::Builtin(Builtin::String),
        b"math" => Value::Builtin(Builtin::Math),
        b"cjson" => Value::Builtin(Builtin::Cjson),
        b"cmsgpack" => Value::Builtin(Builtin::Cmsgpack),
        b"assert" | b"bit" | b"error" | b"next" | b"os" | b"rawequal" | b"rawget" | b"rawset" | b"select"
        | b"setmetatable" | b"struct" | b"xpcall" => Value::Other,
        _ => return None,
    })
}

/// What a field of `redis` is; `None`: something that the analysis knows nothing of.
pub(super) fn redis_field(name: &[u8]) -> Option<Value<'static>> {
    Some(match name {
        b"call" | b"pcall" => Value::Capability(Capability::Call),
        b"register_function" => Value::Capability(Capability::RegisterFunction),
        b"error_reply"
        | b"status_reply"
        | b"sha1hex"
        | b"log"
        | b"setresp"
        | b"set_repl"
        | b"replicate_commands"
        | b"acl_check_cmd"
        | b"breakpoint"
        | b"debug"
        | b"LOG_DEBUG"
        | b"LOG_VERBOSE"
        | b"LOG_NOTICE"
        | b"LOG_WARNING"
        | b"REPL_ALL"
        | b"REPL_AOF"
        | b"REPL_REPLICA"
        | b"REPL_SLAVE"
        | b"REPL_NONE"
        | b"REDIS_VERSION"
        | b"REDIS_VERSION_NUM" => Value::Other,
        _ => return None,
    })
}

/// What a field of a library is.
pub(super) fn library_field(library: Builtin, name: &[u8]) -> Value<'static> {
    let is_reader = match library {
        // There is none in Lua 5.1: `unpack or table.unpack` is unpack.
        Builtin::Table if name == b"unpack" => return Value::Nothing,
        Builtin::Table => matches!(name, b"concat" | b"getn" | b"maxn"),
        Builtin::String => {
            matches!(name, b"format" | b"sub" | b"rep" | b"len" | b"lower" | b"upper" | b"reverse")
        }
        Builtin::Math => !matches!(name, b"modf" | b"frexp" | b"randomseed"),
        Builtin::Cjson => matches!(name, b"encode" | b"decode"),
        Builtin::Cmsgpack => name == b"pack",
        Builtin::Iterate | Builtin::Unpack | Builtin::Pcall | Builtin::Reader => false,
    };
    if is_reader { Value::Builtin(Builtin::Reader) } else { Value::Other }
}
