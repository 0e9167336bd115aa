//! What a module registers while it is loaded: itself, its commands, and functions for other modules.

use super::given::{Cmd, Ctx, Out, Text, abi_functions};
use super::{fail_with, status};
use crate::command::docs::Docs;
use crate::command::keys::{self, BeginSearch, FindKeys, KeyPositions, KeySpec};
use crate::command::syntax::{Argument, Kind};
use crate::command::table::Resolved;
use crate::modules::command::{CommandFlags, Declared, ModuleCommand, categories, legacy_keys};
use crate::modules::context::Context;
use crate::modules::module::{Module, loaded_name};
use crate::modules::string::ModuleString;
use crate::protocol::OwnedArgv;
use crate::runtime::allocator;
use crate::runtime::crash::Callback;
use crate::runtime::os_error;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

pub(super) const SERVED: &[Served] = served! {
    GetApi = super::get_api,
    SetModuleAttribs = set_module_attribs,
    IsModuleNameBusy = is_module_name_busy,
    SetModuleOptions = set_module_options,
    GetModuleOptionsAll = get_module_options_all,
    CreateCommand = create_command,
    GetCommand = get_command,
    CreateSubcommand = create_subcommand,
    SetCommandInfo = set_command_info,
    SetCommandACLCategories = set_command_acl_categories,
    SetCommandGroup = set_command_group,
    SetCommandDeprecated = set_command_deprecated,
    SetCommandInternal = set_command_internal,
    SetCommandWide = set_command_wide,
    IsWide = is_wide,
    DeclareShardSafe = declare_shard_safe,
    GetCommandKeys = get_command_keys,
    GetCommandKeysWithFlags = get_command_keys_with_flags,
    ExportSharedAPI = export_shared_api,
    GetSharedAPI = get_shared_api,
};

/// The groups that COMMAND DOCS knows.
const GROUPS: &[&str] = &[
    "generic",
    "string",
    "list",
    "set",
    "sorted-set",
    "hash",
    "pubsub",
    "transactions",
    "connection",
    "server",
    "scripting",
    "hyperloglog",
    "cluster",
    "sentinel",
    "geo",
    "stream",
    "bitmap",
    "module",
];

abi_functions! {
    fn set_module_attribs(ctx: Ctx, name: Text, version: c_int, api_version: c_int) {
        ctx.module.identify(name.as_c(), version, api_version);
    }

    fn is_module_name_busy(name: Text) -> c_int {
        c_int::from(loaded_name(name.bytes()).is_some())
    }

    fn set_module_options(ctx: Ctx, options: c_int) {
        ctx.module.set_options(options);
    }

    fn get_module_options_all() -> c_int {
        REDISMODULE_OPTIONS_HANDLE_IO_ERRORS
            | REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED
            | REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD
    }

    /// Registers a command. It fails for a name that is taken, for unknown flags, and when the module is loaded already.
    fn create_command(
        ctx: Ctx, name: Text, function: RedisModuleCmdFunc, flags: *const c_char, first: c_int, last: c_int,
        step: c_int,
    ) -> c_int {
        let name = name.to_str().to_ascii_lowercase();
        let Some(flags) = flags_of(flags) else { return REDISMODULE_ERR };
        let is_taken = ctx.table().is_some_and(|table| table.lookup(name.as_bytes()).is_some())
            || ctx.module.commands().iter().any(|command| !command.is_subcommand && command.name == name);
        if !ctx.module.is_loading() || is_taken || !is_name(&name) {
            return REDISMODULE_ERR;
        }
        let full_name = name.clone();
        let command = new_command(ctx.module, name, full_name, function, flags, (first, last, step), false);
        ctx.module.add_command(command);
        REDISMODULE_OK
    }

    /// A command that the module itself has registered.
    fn get_command(ctx: Ctx, name: Text) -> *mut RedisModuleCommand {
        let name = name.to_str().to_ascii_lowercase();
        let commands = ctx.module.commands();
        let found = commands.into_iter().find(|command| command.full_name.to_string_lossy() == name);
        found.map_or(std::ptr::null_mut(), |command| std::ptr::from_ref(command).cast_mut().cast())
    }

    fn create_subcommand(
        parent: Option<Cmd>, name: Text, function: RedisModuleCmdFunc, flags: *const c_char, first: c_int,
        last: c_int, step: c_int,
    ) -> c_int {
        let Some(parent) = parent else { return REDISMODULE_ERR };
        let name = name.to_str().to_ascii_lowercase();
        let Some(flags) = flags_of(flags) else { return REDISMODULE_ERR };
        // What has a callback of its own runs by that, whatever follows its name.
        if !parent.module.is_loading() || parent.is_subcommand || parent.function.is_some() || !is_name(&name) {
            return REDISMODULE_ERR;
        }
        let full_name = format!("{}|{name}", parent.name);
        let mut declared = parent.declared.lock().expect("no holder of a declaration panics");
        if declared.subcommands.iter().any(|sub| sub.name == name) {
            return REDISMODULE_ERR;
        }
        let command = new_command(parent.module, name, full_name, function, flags, (first, last, step), true);
        declared.subcommands.push(command);
        parent.module.add_command(command);
        REDISMODULE_OK
    }

    fn set_command_info(command: Option<Cmd>, info: *const RedisModuleCommandInfo) -> c_int {
        let Some(command) = command else { return fail_with(os_error::INVALID) };
        // SAFETY: the module passes the structure that its version says.
        let Some(new) = (unsafe { info.as_ref().and_then(|info| read_info(info)) }) else {
            return fail_with(os_error::INVALID);
        };
        let mut declared = command.declared.lock().expect("no holder of a declaration panics");
        if declared.has_info {
            return fail_with(os_error::EXISTS);
        }
        declared.has_info = true;
        let NewInfo { arity, keys, docs } = new;
        let Docs { group, deprecated, is_internal, .. } = declared.docs;
        declared.docs = Docs { group, deprecated, is_internal, ..docs };
        if arity != 0 {
            declared.arity = arity;
        }
        if let Some(keys) = keys {
            declared.keys = keys;
        }
        REDISMODULE_OK
    }

    fn set_command_acl_categories(command: Option<Cmd>, names: Text) -> c_int {
        let (Some(command), Some(found)) = (command, categories(&names.to_str())) else { return REDISMODULE_ERR };
        if !command.module.is_loading() {
            return REDISMODULE_ERR;
        }
        command.declared.lock().expect("no holder of a declaration panics").categories = found;
        REDISMODULE_OK
    }

    fn set_command_group(command: Option<Cmd>, name: Text) -> c_int {
        let group = GROUPS.iter().find(|group| group.as_bytes() == name.bytes());
        let (Some(command), Some(group)) = (command, group) else { return REDISMODULE_ERR };
        command.declared.lock().expect("no holder of a declaration panics").docs.group = group;
        REDISMODULE_OK
    }

    fn set_command_internal(command: Option<Cmd>) -> c_int {
        let Some(command) = command else { return REDISMODULE_ERR };
        command.declared.lock().expect("no holder of a declaration panics").docs.is_internal = true;
        REDISMODULE_OK
    }

    fn set_command_wide(command: Option<Cmd>) -> c_int {
        let Some(command) = command.filter(|command| command.module.is_loading()) else { return REDISMODULE_ERR };
        command.declared.lock().expect("no holder of a declaration panics").is_wide = true;
        REDISMODULE_OK
    }

    fn is_wide(ctx: Ctx) -> c_int {
        c_int::from(!ctx.keeps_to_keys())
    }

    fn set_command_deprecated(command: Option<Cmd>, since: *const c_char, instead: *const c_char) -> c_int {
        let Some(command) = command else { return REDISMODULE_ERR };
        // SAFETY: the module passes C strings, or NULL.
        let deprecated = unsafe { (text(since), text(instead)) };
        command.declared.lock().expect("no holder of a declaration panics").docs.deprecated = Some(deprecated);
        REDISMODULE_OK
    }

    fn declare_shard_safe(ctx: Ctx) -> c_int {
        if ctx.module.is_loading() {
            ctx.module.declare_shard_safe();
        }
        status(ctx.module.is_loading())
    }

    fn get_command_keys(
        ctx: Ctx, argv: *mut *mut RedisModuleString, argc: c_int, count: Out<c_int>,
    ) -> *mut c_int {
        let Some(keys) = command_keys(&mut ctx, argv, argc) else { return std::ptr::null_mut() };
        count.set(keys.len() as c_int);
        numbers(keys.iter().map(|(at, _)| *at as c_int))
    }

    fn get_command_keys_with_flags(
        ctx: Ctx, argv: *mut *mut RedisModuleString, argc: c_int, count: Out<c_int>, flags: Out<*mut c_int>,
    ) -> *mut c_int {
        let Some(keys) = command_keys(&mut ctx, argv, argc) else { return std::ptr::null_mut() };
        count.set(keys.len() as c_int);
        flags.set(numbers(keys.iter().map(|(_, flags)| *flags as c_int)));
        numbers(keys.iter().map(|(at, _)| *at as c_int))
    }

    fn export_shared_api(ctx: Ctx, name: Text, function: *mut c_void) -> c_int {
        status(ctx.module.export(name.as_c(), function))
    }

    fn get_shared_api(ctx: Ctx, name: Text) -> *mut c_void {
        ctx.module.import(name.as_c()).unwrap_or(std::ptr::null_mut())
    }
}

/// The keys in a command and its arguments. `None`, with `errno`: it is unknown, has another number of arguments, or has no
/// keys (0).
fn command_keys(
    ctx: &mut Context<'static>,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> Option<KeyPositions> {
    let words: Vec<&[u8]> = (0..argc as usize)
        // SAFETY: the module passes so many strings.
        .map(|at| unsafe { &*(*argv.add(at)).cast::<ModuleString>() }.bytes())
        .collect();
    let args = OwnedArgv::from_slices(&words);
    let fail = |errno| {
        os_error::set(errno);
        None
    };
    let Some(Resolved::Command(entry)) = ctx.table().map(|table| table.resolve(args.as_argv())) else {
        return fail(os_error::NO_ENTRY);
    };
    let row = entry.row;
    if if row.arity >= 0 { argc != row.arity } else { argc < -row.arity } {
        return fail(os_error::INVALID);
    }
    let found = keys::positions(row, args.as_argv());
    if found.is_empty() { fail(0) } else { Some(found) }
}

/// An array that the module frees.
fn numbers(values: impl ExactSizeIterator<Item = c_int>) -> *mut c_int {
    let bytes = values.len() * size_of::<c_int>();
    let array = allocator::or_abort(allocator::allocate(bytes), bytes).cast::<c_int>();
    for (at, value) in values.enumerate() {
        // SAFETY: it has been allocated for so many numbers.
        unsafe { array.add(at).write(value) };
    }
    array
}

fn flags_of(flags: *const c_char) -> Option<CommandFlags> {
    if flags.is_null() {
        return CommandFlags::parse("");
    }
    // SAFETY: the module passes a C string.
    CommandFlags::parse(&unsafe { CStr::from_ptr(flags) }.to_string_lossy())
}

/// Whether a command may have this name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([' ', '\r', '\n', '|'])
}

fn new_command(
    module: &'static Module,
    name: String,
    full_name: String,
    function: RedisModuleCmdFunc,
    flags: CommandFlags,
    (first, last, step): (c_int, c_int, c_int),
    is_subcommand: bool,
) -> &'static ModuleCommand {
    let declared = Declared {
        arity: if is_subcommand { -2 } else { -1 },
        flags,
        categories: 0,
        keys: legacy_keys(first, last, step, flags),
        docs: Docs::new("module", "", ""),
        subcommands: Vec::new(),
        has_info: false,
        is_wide: false,
    };
    let full_name = CString::new(full_name).expect("it comes from C strings");
    let (declared, was_refused) = (Mutex::new(declared), AtomicBool::new(false));
    let callback = Callback { module: module.name(), what: "command" };
    let command =
        ModuleCommand { module, name, full_name, function, is_subcommand, callback, declared, was_refused };
    Box::leak(Box::new(command))
}

/// What `SetCommandInfo` says.
struct NewInfo {
    arity: c_int,
    keys: Option<Vec<KeySpec>>,
    docs: Docs,
}

/// A text that lasts; empty for NULL.
///
/// # Safety
/// It is a C string, or NULL.
unsafe fn text(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: as promised.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if text.is_empty() { "" } else { String::leak(text.into_owned()) }
}

/// The elements of an array that ends with one for which `is_end`, `size` bytes from each other.
///
/// # Safety
/// The array is such a one, or NULL.
unsafe fn elements<T: Copy>(array: *const T, size: usize, is_end: impl Fn(&T) -> bool) -> Vec<T> {
    let mut found = Vec::new();
    if array.is_null() {
        return found;
    }
    loop {
        // SAFETY: as promised; the end has not been reached.
        let element = unsafe { array.byte_add(found.len() * size).read() };
        if is_end(&element) {
            return found;
        }
        found.push(element);
    }
}

/// Reads what a module says about a command. `None`: it is invalid.
///
/// # Safety
/// The structure is as its version says.
unsafe fn read_info(info: &RedisModuleCommandInfo) -> Option<NewInfo> {
    // SAFETY: the module passes the structure of its header, with arrays that end, and C strings.
    unsafe {
        let version = info.version.as_ref()?;
        let mut docs = Docs::new("module", text(info.since), text(info.summary));
        docs.complexity = text(info.complexity);
        docs.tips = Vec::leak(text(info.tips).split_ascii_whitespace().collect());
        let history =
            elements(info.history.cast_const(), version.sizeof_historyentry, |entry| entry.since.is_null());
        if history.iter().any(|entry| entry.changes.is_null()) {
            return None;
        }
        docs.history =
            Vec::leak(history.iter().map(|entry| (text(entry.since), text(entry.changes))).collect());
        let specs = elements(info.key_specs.cast_const(), version.sizeof_keyspec, |spec| {
            spec.begin_search_type == REDISMODULE_KSPEC_BS_INVALID
        });
        let key_count = specs.len();
        let keys = specs.iter().map(|spec| read_key_spec(spec)).collect::<Option<Vec<KeySpec>>>()?;
        docs.argument_tree = Vec::leak(read_arguments(info.args, version.sizeof_arg, key_count)?);
        let keys = (!info.key_specs.is_null()).then_some(keys);
        Some(NewInfo { arity: info.arity, keys, docs })
    }
}

/// # Safety
/// The unions are as their types say.
unsafe fn read_key_spec(spec: &RedisModuleCommandKeySpec) -> Option<KeySpec> {
    // SAFETY: as promised.
    unsafe {
        let access =
            REDISMODULE_CMD_KEY_RO | REDISMODULE_CMD_KEY_RW | REDISMODULE_CMD_KEY_OW | REDISMODULE_CMD_KEY_RM;
        let is_no_key = spec.flags & REDISMODULE_CMD_KEY_NOT_KEY != 0;
        if (spec.flags & access).count_ones() > 1 || (spec.flags & access == 0 && !is_no_key) {
            return None;
        }
        let begin = match spec.begin_search_type {
            REDISMODULE_KSPEC_BS_UNKNOWN => BeginSearch::Unknown,
            REDISMODULE_KSPEC_BS_INDEX => BeginSearch::Index(usize::try_from(spec.bs.index.pos).ok()?),
            REDISMODULE_KSPEC_BS_KEYWORD => {
                let keyword = spec.bs.keyword;
                if keyword.keyword.is_null() {
                    return None;
                }
                BeginSearch::Keyword { keyword: text(keyword.keyword), from: keyword.startfrom as isize }
            }
            _ => return None,
        };
        let find = match spec.find_keys_type {
            // An omitted one is one key, where the search begins.
            REDISMODULE_KSPEC_FK_OMITTED => FindKeys::Range { last: 0, step: 1, limit: 0 },
            REDISMODULE_KSPEC_FK_UNKNOWN => FindKeys::Unknown,
            REDISMODULE_KSPEC_FK_RANGE => {
                let range = spec.fk.range;
                let step = usize::try_from(range.keystep).ok().filter(|&step| step > 0)?;
                let limit = usize::try_from(range.limit).ok()?;
                FindKeys::Range { last: range.lastkey as isize, step, limit }
            }
            REDISMODULE_KSPEC_FK_KEYNUM => {
                let number = spec.fk.keynum;
                let step = usize::try_from(number.keystep).ok().filter(|&step| step > 0)?;
                let at = usize::try_from(number.keynumidx).ok()?;
                FindKeys::KeyNum { at, first: usize::try_from(number.firstkey).ok()?, step }
            }
            _ => return None,
        };
        Some(KeySpec { flags: spec.flags as u32, begin, find, notes: text(spec.notes) })
    }
}

/// Reads the arguments. `None`: they are invalid.
///
/// # Safety
/// The array ends with an argument without a name, and is `size` bytes from element to element; its strings are C strings.
unsafe fn read_arguments(
    args: *const RedisModuleCommandArg,
    size: usize,
    key_count: usize,
) -> Option<Vec<Argument>> {
    // SAFETY: as promised.
    let args = unsafe { elements(args, size, |arg| arg.name.is_null()) };
    args.iter()
        .map(|arg| {
            // SAFETY: as promised.
            unsafe { read_argument(arg, size, key_count) }
        })
        .collect()
}

/// # Safety
/// As [`read_arguments`].
unsafe fn read_argument(arg: &RedisModuleCommandArg, size: usize, key_count: usize) -> Option<Argument> {
    let kind = match arg.kind {
        REDISMODULE_ARG_TYPE_STRING => Kind::String,
        REDISMODULE_ARG_TYPE_INTEGER => Kind::Integer,
        REDISMODULE_ARG_TYPE_DOUBLE => Kind::Double,
        REDISMODULE_ARG_TYPE_KEY => Kind::Key,
        REDISMODULE_ARG_TYPE_PATTERN => Kind::Pattern,
        REDISMODULE_ARG_TYPE_UNIX_TIME => Kind::UnixTime,
        REDISMODULE_ARG_TYPE_PURE_TOKEN => Kind::PureToken,
        REDISMODULE_ARG_TYPE_ONEOF => Kind::OneOf,
        REDISMODULE_ARG_TYPE_BLOCK => Kind::Block,
        _ => return None,
    };
    let has_parts = matches!(kind, Kind::OneOf | Kind::Block);
    // SAFETY: the strings are C strings, and subarguments are an array as this is an element of one.
    let (name, token, since, arguments) = unsafe {
        let arguments = if has_parts { read_arguments(arg.subargs, size, key_count)? } else { Vec::new() };
        (text(arg.name), text(arg.token), text(arg.since), arguments)
    };
    let key_spec = match kind {
        Kind::Key => Some(usize::try_from(arg.key_spec_index).ok().filter(|&index| index < key_count)?),
        _ => None,
    };
    if (has_parts && arguments.is_empty()) || (kind == Kind::PureToken && token.is_empty()) {
        return None;
    }
    let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let has = |flag: c_int| arg.flags & flag != 0;
    Some(Argument {
        name: name.to_string(),
        kind,
        key_spec,
        token: given(token),
        since: given(since),
        optional: has(REDISMODULE_CMD_ARG_OPTIONAL),
        multiple: has(REDISMODULE_CMD_ARG_MULTIPLE | REDISMODULE_CMD_ARG_MULTIPLE_TOKEN),
        multiple_token: has(REDISMODULE_CMD_ARG_MULTIPLE_TOKEN),
        arguments,
    })
}
