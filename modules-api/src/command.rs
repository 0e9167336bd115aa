//! A command: its row, which says what it is, and its function.

use crate::abi::{
    REDISMODULE_CMD_KEY_ACCESS, REDISMODULE_CMD_KEY_DELETE, REDISMODULE_CMD_KEY_INCOMPLETE,
    REDISMODULE_CMD_KEY_INSERT, REDISMODULE_CMD_KEY_NOT_KEY, REDISMODULE_CMD_KEY_OW, REDISMODULE_CMD_KEY_RM,
    REDISMODULE_CMD_KEY_RO, REDISMODULE_CMD_KEY_RW, REDISMODULE_CMD_KEY_UPDATE,
    REDISMODULE_CMD_KEY_VARIABLE_FLAGS, REDISMODULE_OK, RedisModuleCtx, RedisModuleString,
};
use crate::api::api;
use crate::context::Context;
use crate::current;
use crate::error::CommandResult;
use crate::number;
use crate::string::{Args, ModuleStr};
use std::ffi::c_int;
use std::ptr::NonNull;

/// A command. The type has no values; it is only a name for row and function.
pub trait Command: 'static {
    const ROW: Row;

    /// Parses, looks up, acts and replies. An error that it returns is the reply, so it must not have written one before.
    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult;
}

/// Calls its second argument with the index of each key, and what the command does with it.
pub type FindKeys = fn(Args<'_>, &mut dyn FnMut(usize, KeyFlags));

/// What is known about a command. `Row { flags: "readonly fast", ..Row::new("getbit", 3) }`
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// In lower case.
    pub name: &'static str,
    /// The number of arguments, name included; -N means N or more. Other numbers are refused with Redis' error.
    pub arity: i32,
    /// Flags of commands, separated by spaces: `write readonly admin deny-oom deny-script allow-loading pubsub allow-stale
    /// no-monitor fast getkeys-api no-cluster no-mandatory-keys may-replicate blocking`.
    pub flags: &'static str,
    /// It needs more than its keys: it opens other keys, calls commands with them or commands that are no plain ones, scans keys,
    /// or looks at clients. In Shardis such commands run one at a time, each at the cost of a script, and others in parallel
    /// with them. One that only has its client wait has the flag `blocking` instead. A module that is not
    /// [shard-safe](crate::Module::SHARD_SAFE) need not say it: all of its commands can do that.
    pub is_wide: bool,
    /// Where its keys are. It can open no others, unless it is wide.
    pub keys: &'static [KeySpec],
    /// Finds keys that no spec can: calls its second argument with the index of each. The flags have `getkeys-api` then.
    pub find_keys: Option<FindKeys>,
    /// The group in COMMAND DOCS, "module" if empty. Only Shardis knows it from us.
    pub group: &'static str,
    /// Categories of permissions besides those that follow from the flags, separated by spaces. Not in Redis before 7.2.
    pub acl_categories: &'static str,
    pub summary: &'static str,
    pub complexity: &'static str,
    pub since: &'static str,
    /// It is for the server itself and its tests: `syscmd` in COMMAND DOCS. Only Shardis knows it from us.
    pub is_internal: bool,
    /// If it is deprecated, since when, and what is to be used instead. Only Shardis knows it from us.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Separated by spaces.
    pub tips: &'static str,
    /// Versions and what changed in them.
    pub history: &'static [(&'static str, &'static str)],
    pub arguments: &'static [Argument],
}

impl Row {
    pub const fn new(name: &'static str, arity: i32) -> Row {
        Row {
            name,
            arity,
            flags: "",
            is_wide: false,
            keys: &[],
            find_keys: None,
            group: "",
            acl_categories: "",
            summary: "",
            complexity: "",
            since: "",
            is_internal: false,
            deprecated: None,
            tips: "",
            history: &[],
            arguments: &[],
        }
    }

    fn takes(&self, count: c_int) -> bool {
        if self.arity >= 0 { count == self.arity } else { count >= -self.arity }
    }

    /// Whether the argument at this index is a key by one of the key specs.
    pub(crate) fn declares(&self, args: Args<'_>, index: usize) -> bool {
        // The first of one spec, at a fixed place: most commands open no other.
        let is_first = |spec: &KeySpec| {
            spec.begin == Begin::Index(index as i32) && matches!(spec.find, Find::Range { last: 0 | -1, .. })
        };
        if self.keys.first().is_some_and(is_first) || self.keys.iter().any(|spec| spec.covers(args, index)) {
            return true;
        }
        let mut is_found = false;
        if let Some(find_keys) = self.find_keys {
            find_keys(args, &mut |at, _| is_found |= at == index);
        }
        is_found
    }
}

/// What a command does with the key or keys of a [`KeySpec`]; to be combined with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFlags(pub(crate) u64);

impl KeyFlags {
    /// Reads it.
    pub const RO: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_RO);
    /// Reads and changes it.
    pub const RW: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_RW);
    /// Overwrites it.
    pub const OW: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_OW);
    /// Deletes it.
    pub const RM: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_RM);
    /// Tells the client what is in it.
    pub const ACCESS: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_ACCESS);
    /// Changes what is in it, depending on what is.
    pub const UPDATE: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_UPDATE);
    /// Adds to what is in it, and neither changes nor removes any.
    pub const INSERT: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_INSERT);
    /// Removes of what is in it.
    pub const DELETE: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_DELETE);
    /// No key, though it is routed by.
    pub const NOT_KEY: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_NOT_KEY);
    /// There are keys that no spec covers.
    pub const INCOMPLETE: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_INCOMPLETE);
    /// Other arguments decide what of these flags holds.
    pub const VARIABLE: KeyFlags = KeyFlags(REDISMODULE_CMD_KEY_VARIABLE_FLAGS);

    /// Both together, for constants, where `|` cannot stand.
    pub const fn and(self, other: KeyFlags) -> KeyFlags {
        KeyFlags(self.0 | other.0)
    }
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At this argument; that at 0 is the command's name.
    Index(i32),
    /// Behind this word, looked for from an argument on; from the end backwards if that is negative.
    Keyword(&'static str, i32),
}

/// Which arguments are keys from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// Each `step`-th up to the `last`, which counts from the first; if negative, from the end of all arguments.
    Range { last: i32, step: i32 },
    /// As many as the argument `count_at` says, from `first` on; both count from the beginning.
    Count { count_at: i32, first: i32 },
}

/// Where a command has keys, and what it does with them.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    pub begin: Begin,
    pub find: Find,
    pub flags: KeyFlags,
    pub notes: &'static str,
}

impl KeySpec {
    /// The argument at `index`.
    pub const fn at(index: i32, flags: KeyFlags) -> KeySpec {
        KeySpec { begin: Begin::Index(index), find: Find::Range { last: 0, step: 1 }, flags, notes: "" }
    }

    /// All arguments from `index` on.
    pub const fn from(index: i32, flags: KeyFlags) -> KeySpec {
        KeySpec { begin: Begin::Index(index), find: Find::Range { last: -1, step: 1 }, flags, notes: "" }
    }

    /// The argument behind a word, which is looked for from `start` on.
    pub const fn behind(word: &'static str, start: i32, flags: KeyFlags) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword(word, start),
            find: Find::Range { last: 0, step: 1 },
            flags,
            notes: "",
        }
    }

    /// As many as the argument at `count_at` says, behind it.
    pub const fn counted(count_at: i32, flags: KeyFlags) -> KeySpec {
        KeySpec {
            begin: Begin::Index(count_at),
            find: Find::Count { count_at: 0, first: 1 },
            flags,
            notes: "",
        }
    }

    fn covers(&self, args: Args<'_>, index: usize) -> bool {
        let (Ok(index), Ok(count)) = (i32::try_from(index), i32::try_from(args.len())) else { return false };
        let begin = match self.begin {
            Begin::Index(begin) => begin,
            Begin::Keyword(word, start) => match position_of(args, word, start) {
                Some(at) => at + 1,
                None => return false,
            },
        };
        match self.find {
            Find::Range { last, step } => {
                let last = if last < 0 { count + last } else { begin + last };
                (begin..=last).contains(&index) && (index - begin) % step == 0
            }
            Find::Count { count_at, first } => {
                let said = usize::try_from(begin + count_at).ok().and_then(|at| args.get(at));
                let said = said.and_then(|argument| number::parse_integer(argument.as_bytes())).unwrap_or(0);
                let first = begin + first;
                index >= first && i64::from(index - first) < said
            }
        }
    }
}

/// Where a word stands, looked for from `start` on, or backwards from `-start` before the end.
fn position_of(args: Args<'_>, word: &str, start: i32) -> Option<i32> {
    let is_word = |at: &usize| args.get(*at).is_some_and(|argument| argument.is_word(word));
    let at = if start >= 0 {
        (usize::try_from(start).ok()?..args.len()).find(is_word)?
    } else {
        let from = args.len().checked_sub(usize::try_from(-start).ok()?)?;
        (1..=from).rev().find(is_word)?
    };
    i32::try_from(at).ok()
}

/// What an argument is, in COMMAND DOCS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentKind {
    String,
    Integer,
    Double,
    /// The index of its spec in the row's `keys`.
    Key(i32),
    Pattern,
    UnixTime,
    /// Its token and nothing else.
    PureToken,
    /// One of its parts.
    OneOf,
    /// All of its parts.
    Block,
}

/// An argument in the documentation of a command. `Argument { token: "NX", ..Argument::new("nx", ArgumentKind::PureToken) }`
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    pub name: &'static str,
    pub kind: ArgumentKind,
    /// The word in front of it.
    pub token: &'static str,
    pub summary: &'static str,
    pub since: &'static str,
    pub deprecated_since: &'static str,
    pub is_optional: bool,
    /// It may be repeated.
    pub is_multiple: bool,
    /// It may be repeated, with its token.
    pub is_multiple_token: bool,
    pub parts: &'static [Argument],
}

impl Argument {
    pub const fn new(name: &'static str, kind: ArgumentKind) -> Argument {
        Argument {
            name,
            kind,
            token: "",
            summary: "",
            since: "",
            deprecated_since: "",
            is_optional: false,
            is_multiple: false,
            is_multiple_token: false,
            parts: &[],
        }
    }
}

/// What the server calls for the command `C`.
///
/// # Safety
/// The server calls it, as a command's function.
pub(crate) unsafe extern "C" fn entry<C: Command>(
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> c_int {
    const { assert!(!C::ROW.name.is_empty(), "a command has a name") };
    let _callback = current::Callback::enter_for(C::ROW.name, "command");
    if let Some(find_keys) = C::ROW.find_keys {
        // SAFETY: context and arguments are those of the call.
        unsafe {
            if api!(IsKeysPositionRequest)(ctx) != 0 {
                find_keys(Args::from_raw(argv, argc), &mut |at, flags| {
                    api!(KeyAtPosWithFlags)(ctx, at as c_int, flags.0 as c_int);
                });
                return REDISMODULE_OK;
            }
        }
    }
    if !C::ROW.takes(argc) {
        // SAFETY: the context is that of the call.
        return unsafe { api!(WrongArity)(ctx) };
    }
    let ctx = NonNull::new(ctx).expect("a command has a context");
    // SAFETY: the server keeps context and arguments until the command returns.
    let (mut context, args) = unsafe {
        let args = Args::from_raw(argv, argc);
        (Context::of_command(ctx, const { &C::ROW }, args), args)
    };

    if let Err(error) = C::run(&mut context, args) {
        context.reply().error(&error);
    }
    REDISMODULE_OK
}

/// Whether `key` is one that the command may open: an argument that its row declares, or a string with the same bytes.
#[inline]
pub(crate) fn may_open(row: &Row, args: Args<'_>, key: &ModuleStr<'_>) -> bool {
    args.index_of(key).is_some_and(|index| row.declares(args, index)) || is_declared(row, args, key)
}

#[cold]
fn is_declared(row: &Row, args: Args<'_>, key: &ModuleStr<'_>) -> bool {
    let bytes = key.as_bytes();
    (1..args.len()).any(|index| args[index].as_bytes() == bytes && row.declares(args, index))
}
