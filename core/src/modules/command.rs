//! A command of a module: what the module says of it while it is loaded, and the row that is made of that.

use super::module::Module;
use super::run::{CHANNELS_BY_CALLBACK, KEYS_BY_CALLBACK, register_finder, run_foreign, run_native};
use crate::command::docs::Docs;
use crate::command::keys::{BeginSearch, FindKeys, KeySpec, key_flag, legacy_range};
use crate::command::table::{Command, Native, Run, acl, flag};
use crate::protocol::Argv;
use crate::runtime::crash::Callback;
use crate::worker::Worker;
use crate::worker::program::{ProgramHandler, ProgramKind, Reach};
use shardis_modules_api::abi::RedisModuleCmdFunc;
use std::any::Any;
use std::ffi::CString;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// A command of a module. It is never freed, because calls of it may be under way.
pub struct ModuleCommand {
    pub(super) module: &'static Module,
    /// In lower case, without the container's name.
    pub(super) name: String,
    /// `container|subcommand` for a subcommand.
    pub(super) full_name: CString,
    pub(super) function: RedisModuleCmdFunc,
    pub(super) is_subcommand: bool,
    /// What a report of a crash says of it.
    pub(super) callback: Callback,
    pub(super) declared: Mutex<Declared>,
    /// The log says that it has asked for something that it would have to be a program for.
    pub(super) was_refused: AtomicBool,
}

/// What the module says of a command. Final when the module is loaded.
pub(super) struct Declared {
    pub(super) arity: i32,
    pub(super) flags: CommandFlags,
    pub(super) categories: u32,
    pub(super) keys: Vec<KeySpec>,
    pub(super) docs: Docs,
    pub(super) subcommands: Vec<&'static ModuleCommand>,
    /// `SetCommandInfo` was called.
    pub(super) has_info: bool,
    /// It reaches more than the keys that it declares, though its module is shard-safe.
    pub(super) is_wide: bool,
}

/// The flags of `CreateCommand`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandFlags {
    /// Those of [`flag`].
    pub(super) row: u64,
    /// The callback itself says which arguments are keys.
    pub(super) finds_keys: bool,
    /// The same of channels.
    pub(super) finds_channels: bool,
}

/// The words that `CreateCommand` takes, with their flags.
const FLAG_WORDS: &[(&str, u64)] = &[
    ("write", flag::WRITE),
    ("readonly", flag::READONLY),
    ("admin", flag::ADMIN),
    ("deny-oom", flag::DENYOOM),
    ("deny-script", flag::NOSCRIPT),
    ("allow-loading", flag::LOADING),
    ("pubsub", flag::PUBSUB),
    ("random", 0),
    ("blocking", flag::BLOCKING),
    ("allow-stale", flag::STALE),
    ("no-monitor", flag::SKIP_MONITOR),
    ("no-slowlog", flag::SKIP_SLOWLOG),
    ("fast", flag::FAST),
    ("no-auth", flag::NO_AUTH),
    ("may-replicate", flag::MAY_REPLICATE),
    ("getkeys-api", 0),
    ("getchannels-api", 0),
    ("no-cluster", 0),
    ("no-mandatory-keys", flag::NO_MANDATORY_KEYS),
    ("allow-busy", flag::ALLOW_BUSY),
];

impl CommandFlags {
    /// Parses the words of `CreateCommand`. `None`: one is unknown.
    pub(super) fn parse(words: &str) -> Option<CommandFlags> {
        let mut flags = CommandFlags { row: flag::MODULE, finds_keys: false, finds_channels: false };
        for word in words.split_ascii_whitespace() {
            let (_, bit) = FLAG_WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name))?;
            flags.row |= bit;
            if word.eq_ignore_ascii_case("getkeys-api") {
                flags.finds_keys = true;
                flags.row |= flag::MOVABLEKEYS;
            }
            flags.finds_channels |= word.eq_ignore_ascii_case("getchannels-api");
        }
        Some(flags)
    }
}

/// The keys of a command for which `CreateCommand` gives a first and a last one, and a step.
pub(super) fn legacy_keys(first: i32, last: i32, step: i32, flags: CommandFlags) -> Vec<KeySpec> {
    let Ok(begin) = usize::try_from(first) else { return Vec::new() };
    if begin == 0 {
        return Vec::new();
    }
    let last = if last >= 0 { last - first } else { last };
    // What the callback says of a key may be something else.
    let varies = if flags.finds_keys { key_flag::VARIABLE_FLAGS } else { 0 };
    let step = usize::try_from(step).unwrap_or(1).max(1);
    vec![KeySpec {
        flags: key_flag::RW | key_flag::ACCESS | key_flag::UPDATE | varies,
        begin: BeginSearch::Index(begin),
        find: FindKeys::Range { last: last as isize, step, limit: 0 },
        notes: "",
    }]
}

impl Declared {
    /// Whether it is a program even if its module is shard-safe: a handler over keys can neither block its client nor reach
    /// anything but its keys.
    fn is_program(&self) -> bool {
        self.is_wide || self.flags.row & flag::BLOCKING != 0
    }
}

impl ModuleCommand {
    /// The row of the command. It, and what it refers to, is never freed.
    pub(super) fn row(&'static self) -> Command {
        let declared = self.declared.lock().expect("no holder of a declaration panics");
        let is_container = self.function.is_none() || !declared.subcommands.is_empty();
        let has_keys = declared.flags.finds_keys || !declared.keys.is_empty();
        let reach = match declared.flags.row & flag::ALLOW_BUSY != 0 && !has_keys {
            true => reach_while_busy,
            false => reach_of_others,
        };
        let is_native = self.module.is_shard_safe() && !declared.is_program();
        let only_subcommands_run = is_container && self.function.is_none();
        let mut row = self.handler_row(declared.arity, only_subcommands_run, is_native, reach);
        let hidden = if self.module.is_builtin() { flag::MODULE | flag::MOVABLEKEYS } else { 0 };
        row.flags |= declared.flags.row & !hidden;
        row.categories |= declared.categories;
        row.keys = Vec::leak(declared.keys.clone());
        // Clients before Redis 7 find the keys by one range, or not at all.
        if !row.keys.is_empty() && !legacy_range(row.keys).is_some_and(|range| range.is_whole) {
            row.flags |= flag::MOVABLEKEYS;
        }
        row.docs = declared.docs;
        if declared.flags.finds_keys {
            row.find_keys = Some(KEYS_BY_CALLBACK);
            register_finder(self);
        }
        if declared.flags.finds_channels {
            row.find_channels = Some(CHANNELS_BY_CALLBACK);
            register_finder(self);
        }
        let subcommands: Vec<Command> = declared.subcommands.iter().map(|sub| sub.row()).collect();
        row.subcommands = Vec::leak(subcommands);
        row
    }

    fn handler_row(
        &'static self,
        arity: i32,
        only_subcommands_run: bool,
        is_native: bool,
        reach: fn(&mut Worker, Argv<'_>) -> Reach,
    ) -> Command {
        let name: &'static str = &self.name;
        let data: &'static (dyn Any + Send + Sync) = self;
        if only_subcommands_run {
            return Command::container(name, &[]);
        }
        if is_native {
            let mut row = Command::keys(name, arity, |_| Ok(()));
            row.run = Run::Native(Native { run: run_native, data });
            return row;
        }
        let handler = ProgramHandler {
            kind: ProgramKind::Module,
            flags: |_, row_flags, _| row_flags,
            name: |_| None,
            reach,
            made_keys: |_, _| None,
            may_publish: |_, _| true,
            run: run_foreign,
            data,
        };
        Command::program(name, arity, Box::leak(Box::new(handler)))
    }
}

fn reach_of_others(_worker: &mut Worker, _args: Argv<'_>) -> Reach {
    Reach::Any { is_read_only: false }
}

/// What may run while a program is busy, mostly to end that, runs beside it and does not wait for its end. Then it reaches no
/// keys: see [`run_foreign`].
fn reach_while_busy(worker: &mut Worker, args: Argv<'_>) -> Reach {
    if worker.busy_program().is_some() { Reach::Declared } else { reach_of_others(worker, args) }
}

/// The ACL categories of these names, separated by blanks. `None`: one is unknown.
pub(super) fn categories(names: &str) -> Option<u32> {
    names.split_ascii_whitespace().try_fold(0, |all, name| {
        let at = acl::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(all | 1 << at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words_and_an_unknown_one_is_refused() {
        let flags = CommandFlags::parse("Write  deny-oom").expect("both are known");
        assert_eq!(flags.row, flag::MODULE | flag::WRITE | flag::DENYOOM);
        assert!(!flags.finds_keys);
        assert!(CommandFlags::parse("getkeys-api").expect("it is known").finds_keys);
        assert_eq!(CommandFlags::parse("write nonsense"), None);
        assert_eq!(categories("geo write"), Some(acl::GEO | acl::WRITE));
        assert_eq!(categories("nonsense"), None);
    }

    #[test]
    fn a_range_of_keys_becomes_a_key_spec_relative_to_its_first() {
        let flags = CommandFlags { row: 0, finds_keys: false, finds_channels: false };
        assert!(legacy_keys(0, 0, 0, flags).is_empty());
        let spec = &legacy_keys(2, 4, 2, flags)[0];
        assert!(matches!(spec.begin, BeginSearch::Index(2)));
        assert!(matches!(spec.find, FindKeys::Range { last: 2, step: 2, limit: 0 }));
        assert!(matches!(
            legacy_keys(1, -1, 1, flags)[0].find,
            FindKeys::Range { last: -1, step: 1, limit: 0 }
        ));
    }
}
