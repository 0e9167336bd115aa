//! A command's row as the structures of C that `SetCommandInfo` takes.

use crate::abi::*;
use crate::command::{Argument, ArgumentKind, Begin, Find, KeySpec, Row};
use crate::error::Error;
use crate::module::c_string;
use std::ffi::{CString, c_char, c_int};

/// The structures, and what they point to.
pub(crate) struct Docs {
    info: RedisModuleCommandInfo,
    // What `info` points to; the heap blocks stay where they are when these are moved.
    _texts: Vec<CString>,
    _history: Vec<RedisModuleCommandHistoryEntry>,
    _key_specs: Vec<RedisModuleCommandKeySpec>,
    _arguments: Vec<Vec<RedisModuleCommandArg>>,
}

#[derive(Default)]
struct Builder {
    texts: Vec<CString>,
    arguments: Vec<Vec<RedisModuleCommandArg>>,
}

impl Docs {
    /// Errors: a text has a zero in it.
    pub(crate) fn of(row: &Row) -> Result<Docs, Error> {
        let mut builder = Builder::default();
        let mut history = Vec::new();
        for (since, changes) in row.history {
            history.push(RedisModuleCommandHistoryEntry {
                since: builder.text(since)?,
                changes: builder.text(changes)?,
            });
        }
        history.push(RedisModuleCommandHistoryEntry { since: std::ptr::null(), changes: std::ptr::null() });
        let mut key_specs = Vec::new();
        for spec in row.keys {
            key_specs.push(builder.key_spec(spec)?);
        }
        // SAFETY: all of its fields may be zero; it is what ends the array.
        key_specs.push(unsafe { std::mem::zeroed() });

        let info = RedisModuleCommandInfo {
            version: &raw const REDISMODULE_COMMAND_INFO_VERSION,
            summary: builder.text(row.summary)?,
            complexity: builder.text(row.complexity)?,
            since: builder.text(row.since)?,
            history: if row.history.is_empty() { std::ptr::null_mut() } else { history.as_mut_ptr() },
            tips: builder.text(row.tips)?,
            arity: row.arity,
            key_specs: if row.keys.is_empty() { std::ptr::null_mut() } else { key_specs.as_mut_ptr() },
            args: builder.arguments(row.arguments)?,
        };
        Ok(Docs {
            info,
            _texts: builder.texts,
            _history: history,
            _key_specs: key_specs,
            _arguments: builder.arguments,
        })
    }

    pub(crate) fn as_ptr(&self) -> *const RedisModuleCommandInfo {
        &raw const self.info
    }
}

impl Builder {
    /// NULL if there is no text.
    fn text(&mut self, text: &str) -> Result<*const c_char, Error> {
        if text.is_empty() {
            return Ok(std::ptr::null());
        }
        let text = c_string(text)?;
        let pointer = text.as_ptr();
        self.texts.push(text);
        Ok(pointer)
    }

    fn key_spec(&mut self, spec: &KeySpec) -> Result<RedisModuleCommandKeySpec, Error> {
        let (begin_search_type, bs) = match spec.begin {
            Begin::Index(pos) => {
                let index = RedisModuleKeySpecIndex { pos };
                (REDISMODULE_KSPEC_BS_INDEX, RedisModuleKeySpecBeginSearch { index })
            }
            Begin::Keyword(keyword, startfrom) => {
                let keyword = RedisModuleKeySpecKeyword { keyword: self.text(keyword)?, startfrom };
                (REDISMODULE_KSPEC_BS_KEYWORD, RedisModuleKeySpecBeginSearch { keyword })
            }
        };
        let (find_keys_type, fk) = match spec.find {
            Find::Range { last, step } => {
                let range = RedisModuleKeySpecRange { lastkey: last, keystep: step, limit: 0 };
                (REDISMODULE_KSPEC_FK_RANGE, RedisModuleKeySpecFindKeys { range })
            }
            Find::Count { count_at, first } => {
                let keynum = RedisModuleKeySpecKeyNum { keynumidx: count_at, firstkey: first, keystep: 1 };
                (REDISMODULE_KSPEC_FK_KEYNUM, RedisModuleKeySpecFindKeys { keynum })
            }
        };
        let notes = self.text(spec.notes)?;
        let flags = spec.flags.0;
        Ok(RedisModuleCommandKeySpec { notes, flags, begin_search_type, bs, find_keys_type, fk })
    }

    /// NULL if there are none.
    fn arguments(&mut self, arguments: &[Argument]) -> Result<*mut RedisModuleCommandArg, Error> {
        if arguments.is_empty() {
            return Ok(std::ptr::null_mut());
        }
        let mut made = Vec::new();
        for argument in arguments {
            made.push(self.argument(argument)?);
        }
        // SAFETY: all of its fields may be zero; it is what ends the array.
        made.push(unsafe { std::mem::zeroed() });
        let pointer = made.as_mut_ptr();
        self.arguments.push(made);
        Ok(pointer)
    }

    fn argument(&mut self, argument: &Argument) -> Result<RedisModuleCommandArg, Error> {
        let (kind, key_spec_index) = match argument.kind {
            ArgumentKind::String => (REDISMODULE_ARG_TYPE_STRING, -1),
            ArgumentKind::Integer => (REDISMODULE_ARG_TYPE_INTEGER, -1),
            ArgumentKind::Double => (REDISMODULE_ARG_TYPE_DOUBLE, -1),
            ArgumentKind::Key(spec) => (REDISMODULE_ARG_TYPE_KEY, spec),
            ArgumentKind::Pattern => (REDISMODULE_ARG_TYPE_PATTERN, -1),
            ArgumentKind::UnixTime => (REDISMODULE_ARG_TYPE_UNIX_TIME, -1),
            ArgumentKind::PureToken => (REDISMODULE_ARG_TYPE_PURE_TOKEN, -1),
            ArgumentKind::OneOf => (REDISMODULE_ARG_TYPE_ONEOF, -1),
            ArgumentKind::Block => (REDISMODULE_ARG_TYPE_BLOCK, -1),
        };
        let flag = |is_set: bool, flag: c_int| if is_set { flag } else { 0 };
        Ok(RedisModuleCommandArg {
            name: self.text(argument.name)?,
            kind,
            key_spec_index,
            token: self.text(argument.token)?,
            summary: self.text(argument.summary)?,
            since: self.text(argument.since)?,
            flags: flag(argument.is_optional, REDISMODULE_CMD_ARG_OPTIONAL)
                | flag(argument.is_multiple, REDISMODULE_CMD_ARG_MULTIPLE)
                | flag(argument.is_multiple_token, REDISMODULE_CMD_ARG_MULTIPLE_TOKEN),
            deprecated_since: self.text(argument.deprecated_since)?,
            subargs: self.arguments(argument.parts)?,
        })
    }
}
