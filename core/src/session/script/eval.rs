//! EVAL, EVALSHA, FCALL, and their forms that only read.
//!
//! All of them have the same arguments: what is to run, how many keys, the keys, and further arguments. What runs is found
//! and judged in the order of Redis, so that a request with several faults gets the same error.

use super::run::{Permissions, run};
use crate::command::docs::Docs;
use crate::command::keys::{BeginSearch, FindKeys, KeySpec, key_flag};
use crate::command::table::{Command, CommandTable, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::Argv;
use crate::protocol::number::parse_i64;
use crate::script::compiled::{CompiledScript, FUNCTION_NOT_FOUND, NO_SCRIPT};
use crate::script::registry::Keep;
use crate::script::shebang::ScriptHeader;
use crate::script::{ScriptFlags, Sha};
use crate::worker::Worker;
use crate::worker::program::{MadeKeys, ProgramCtx, ProgramHandler, ProgramKind, ProgramName, Reach};
use shardis_scripting::{KeyUse, script_key_use};
use smallvec::SmallVec;
use std::rc::Rc;

/// The keys behind their number, which is argument 2.
const fn counted(flags: u32, notes: &'static str) -> KeySpec {
    KeySpec {
        flags,
        begin: BeginSearch::Index(2),
        find: FindKeys::KeyNum { at: 0, first: 1, step: 1 },
        notes,
    }
}

/// The length of a SHA-1 in hexadecimal digits.
const HEX_LEN: usize = 40;

const ANY_USE: u32 = key_flag::RW | key_flag::ACCESS | key_flag::UPDATE;
const READS: u32 = key_flag::RO | key_flag::ACCESS;
const ANY_USE_NOTES: &str = "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE";
const READS_NOTES: &str = "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS";

const COMMON: u64 =
    flag::NOSCRIPT | flag::STALE | flag::SKIP_MONITOR | flag::NO_MANDATORY_KEYS | flag::MOVABLEKEYS;

const fn program(name: &'static str, keys: &'static [KeySpec], handler: &'static ProgramHandler) -> Command {
    Command::program(name, -3, handler).acl(acl::SCRIPTING).at(keys)
}

pub(super) const EVAL: Command = program("eval", &[counted(ANY_USE, ANY_USE_NOTES)], &EVAL_HANDLER)
    .flags(COMMON | flag::MAY_REPLICATE)
    .docs(
        Docs::new("scripting", "2.6.0", "Runs a script")
            .complexity("Depends on the script that is executed.")
            .arguments("script numkeys:int [key#0...] [arg...]"),
    );

pub(super) const EVAL_RO: Command =
    program("eval_ro", &[counted(READS, READS_NOTES)], &EVAL_RO_HANDLER).flags(COMMON | flag::READONLY).docs(
        Docs::new("scripting", "7.0.0", "Runs a script that writes nothing")
            .complexity("Depends on the script that is executed.")
            .arguments("script numkeys:int [key#0...] [arg...]"),
    );

pub(super) const EVALSHA: Command =
    program("evalsha", &[counted(ANY_USE, "")], &EVALSHA_HANDLER).flags(COMMON | flag::MAY_REPLICATE).docs(
        Docs::new("scripting", "2.6.0", "Runs a script that is known, by its SHA-1")
            .complexity("Depends on the script that is executed.")
            .arguments("sha1 numkeys:int [key#0...] [arg...]"),
    );

pub(super) const EVALSHA_RO: Command =
    program("evalsha_ro", &[counted(READS, "")], &EVALSHA_RO_HANDLER).flags(COMMON | flag::READONLY).docs(
        Docs::new("scripting", "7.0.0", "Runs a script that is known and writes nothing, by its SHA-1")
            .complexity("Depends on the script that is executed.")
            .arguments("sha1 numkeys:int [key#0...] [arg...]"),
    );

pub(super) const FCALL: Command = program("fcall", &[counted(ANY_USE, ANY_USE_NOTES)], &FCALL_HANDLER)
    .flags(COMMON | flag::MAY_REPLICATE)
    .docs(
        Docs::new("scripting", "7.0.0", "Calls a function")
            .complexity("Depends on the function that is executed.")
            .arguments("function numkeys:int [key#0...] [arg...]"),
    );

pub(super) const FCALL_RO: Command = program("fcall_ro", &[counted(READS, READS_NOTES)], &FCALL_RO_HANDLER)
    .flags(COMMON | flag::READONLY)
    .docs(
        Docs::new("scripting", "7.0.0", "Calls a function that writes nothing")
            .complexity("Depends on the function that is executed.")
            .arguments("function numkeys:int [key#0...] [arg...]"),
    );

// Each with the keys that it makes behind those that it declares: see [`made`](crate::worker::program::made).
pub(super) const EVAL_MADE: Command = made("eval-made", &EVAL, &EVAL_HANDLER);
pub(super) const EVAL_RO_MADE: Command = made("eval_ro-made", &EVAL_RO, &EVAL_RO_HANDLER);
pub(super) const EVALSHA_MADE: Command = made("evalsha-made", &EVALSHA, &EVALSHA_HANDLER);
pub(super) const EVALSHA_RO_MADE: Command = made("evalsha_ro-made", &EVALSHA_RO, &EVALSHA_RO_HANDLER);
pub(super) const FCALL_MADE: Command = made("fcall-made", &FCALL, &FCALL_HANDLER);
pub(super) const FCALL_RO_MADE: Command = made("fcall_ro-made", &FCALL_RO, &FCALL_RO_HANDLER);

const fn made(name: &'static str, called: &Command, handler: &'static ProgramHandler) -> Command {
    program(name, called.keys, handler).flags(called.flags).docs(called.docs).in_place_of(called.name)
}

const EVAL_HANDLER: ProgramHandler = text_handler(|worker, args| reach_of_text(worker, false, args), eval);
const EVAL_RO_HANDLER: ProgramHandler =
    text_handler(|worker, args| reach_of_text(worker, true, args), eval_ro);
const EVALSHA_HANDLER: ProgramHandler =
    sha_handler(|worker, args| reach_of_sha(worker, false, args), evalsha);
const EVALSHA_RO_HANDLER: ProgramHandler =
    sha_handler(|worker, args| reach_of_sha(worker, true, args), evalsha_ro);
const FCALL_HANDLER: ProgramHandler =
    function_handler(|worker, args| reach_of_function(worker, false, args), fcall);
const FCALL_RO_HANDLER: ProgramHandler =
    function_handler(|worker, args| reach_of_function(worker, true, args), fcall_ro);

/// What makes a script wide although it keeps to its declared keys.
#[derive(Clone, Copy)]
struct Widened {
    /// A filter may make any command of those that the script calls.
    has_filters: bool,
    /// Modules are told of what it writes before it goes on, and may come to any key then.
    tells_keys: bool,
}

impl Widened {
    fn now(worker: &Worker) -> Widened {
        Widened { has_filters: worker.has_filters(), tells_keys: worker.tells_keys_within() }
    }
}

/// What is known of the keys of a call of EVAL. The script is not kept before it runs: it may be that it never does.
fn reach_of_text(worker: &mut Worker, is_read_only: bool, args: Argv<'_>) -> Reach {
    let text = args.arg(1);
    let widened = Widened::now(worker);
    match worker.scripts.find(&Sha::of(text)) {
        Ok(script) => reach_of_script(&script, worker.table, is_read_only, widened),
        Err(_) => reach(&script_key_use(text, worker.table), is_read_only, widened),
    }
}

fn reach_of_sha(worker: &mut Worker, is_read_only: bool, args: Argv<'_>) -> Reach {
    let (table, widened) = (worker.table, Widened::now(worker));
    match worker.scripts.find_hex(args.arg(1)) {
        Ok(script) => reach_of_script(script, table, is_read_only, widened),
        Err(_) => Reach::Unknown,
    }
}

fn reach_of_script(
    compiled: &CompiledScript,
    table: &CommandTable,
    is_read_only: bool,
    widened: Widened,
) -> Reach {
    let flags = compiled.script.header.flags;
    reach(compiled.script.key_use(table), is_read_only || flags.is_read_only(), widened)
}

fn reach_of_function(worker: &mut Worker, is_read_only: bool, args: Argv<'_>) -> Reach {
    let (table, widened) = (worker.table, Widened::now(worker));
    let Some(function) = worker.scripts.function(args.arg(1)) else { return Reach::Unknown };
    let is_read_only = is_read_only || function.function().flags.is_read_only();
    reach(function.key_use(table), is_read_only, widened)
}

fn reach(keys: &KeyUse, is_read_only: bool, widened: Widened) -> Reach {
    let is_read_only = is_read_only || !keys.may_write;
    let is_widened = widened.has_filters || widened.tells_keys && !is_read_only;
    match keys.wide {
        None if is_widened => Reach::Any { is_read_only },
        None if keys.undeclared.is_empty() => Reach::Declared,
        None => Reach::Made { is_read_only },
        Some(_) => Reach::Any { is_read_only },
    }
}

/// Looks at what is known of the keys of a call of EVAL.
fn of_text<T>(worker: &mut Worker, args: Argv<'_>, look: impl FnOnce(&KeyUse) -> T) -> Option<T> {
    let text = args.arg(1);
    Some(match worker.scripts.find(&Sha::of(text)) {
        Ok(script) => look(script.script.key_use(worker.table)),
        Err(_) => look(&script_key_use(text, worker.table)),
    })
}

/// The same of EVALSHA. `None`: there is no such script.
fn of_sha<T>(worker: &mut Worker, args: Argv<'_>, look: impl FnOnce(&KeyUse) -> T) -> Option<T> {
    let table = worker.table;
    worker.scripts.find_hex(args.arg(1)).ok().map(|script| look(script.script.key_use(table)))
}

/// The same of FCALL.
fn of_function<T>(worker: &mut Worker, args: Argv<'_>, look: impl FnOnce(&KeyUse) -> T) -> Option<T> {
    let table = worker.table;
    worker.scripts.function(args.arg(1)).map(|function| look(function.key_use(table)))
}

/// The keys that a call makes. One that needs a missing element is not among them: the script fails before it has it.
fn made_keys(keys: &KeyUse, args: Argv<'_>) -> Option<MadeKeys> {
    let key_count = key_count(args, CommandError::NOT_INTEGER).ok()?;
    let elements: SmallVec<[&[u8]; 8]> = args.slice(3..).iter().collect();
    let (declared, others) = elements.split_at(key_count);
    Some(keys.undeclared.iter().filter_map(|template| template.key(declared, others)).collect())
}

type ReachOf = fn(&mut Worker, Argv<'_>) -> Reach;
type Run = fn(&mut ProgramCtx<'_>) -> CommandResult;

const fn text_handler(reach: ReachOf, run: Run) -> ProgramHandler {
    ProgramHandler {
        kind: ProgramKind::Script,
        flags: flags_of_text,
        name: name_of_text,
        reach,
        made_keys: |worker, args| of_text(worker, args, |keys| made_keys(keys, args)).flatten(),
        may_publish: |worker, args| of_text(worker, args, |keys| keys.may_publish).unwrap_or(false),
        run,
        data: &(),
    }
}

const fn sha_handler(reach: ReachOf, run: Run) -> ProgramHandler {
    ProgramHandler {
        kind: ProgramKind::Script,
        flags: flags_of_sha,
        name: name_of_sha,
        reach,
        made_keys: |worker, args| of_sha(worker, args, |keys| made_keys(keys, args)).flatten(),
        may_publish: |worker, args| of_sha(worker, args, |keys| keys.may_publish).unwrap_or(false),
        run,
        data: &(),
    }
}

const fn function_handler(reach: ReachOf, run: Run) -> ProgramHandler {
    ProgramHandler {
        kind: ProgramKind::Function,
        flags: flags_of_function,
        name: name_of_function,
        reach,
        made_keys: |worker, args| of_function(worker, args, |keys| made_keys(keys, args)).flatten(),
        may_publish: |worker, args| of_function(worker, args, |keys| keys.may_publish).unwrap_or(false),
        run,
        data: &(),
    }
}

fn name_of_text(args: Argv<'_>) -> Option<ProgramName> {
    Some(ProgramName::Script(Sha::of(args.arg(1)).0))
}

fn name_of_sha(args: Argv<'_>) -> Option<ProgramName> {
    Sha::parse(args.arg(1)).map(|sha| ProgramName::Script(sha.0))
}

fn name_of_function(args: Argv<'_>) -> Option<ProgramName> {
    // No other names exist; what a client sends may be anything.
    let name = args.arg(1);
    let is_plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_plain.then(|| ProgramName::Function(name.into()))
}

/// The flags of a call of EVAL. What cannot run is judged as what has no shebang.
fn flags_of_text(_worker: &mut Worker, row_flags: u64, args: Argv<'_>) -> u64 {
    let header = ScriptHeader::parse(args.arg(1));
    header.map_or(row_flags, |header| flags_with(header.flags, row_flags))
}

fn flags_of_sha(worker: &mut Worker, row_flags: u64, args: Argv<'_>) -> u64 {
    let script = worker.scripts.find_hex(args.arg(1));
    script.map_or(row_flags, |script| flags_with(script.script.header.flags, row_flags))
}

fn flags_of_function(worker: &mut Worker, row_flags: u64, args: Argv<'_>) -> u64 {
    let function = worker.scripts.function(args.arg(1));
    function.map_or(row_flags, |function| flags_with(function.function().flags, row_flags))
}

/// The flags of a command that runs what has declared these.
fn flags_with(declared: ScriptFlags, row_flags: u64) -> u64 {
    if declared.has(ScriptFlags::COMPATIBLE) {
        // Nor does it run on a stale replica.
        return row_flags & !flag::STALE;
    }
    let mut flags = row_flags & !(flag::STALE | flag::DENYOOM | flag::WRITE | flag::MAY_REPLICATE);
    if !declared.is_read_only() {
        flags |= flag::WRITE;
        if !declared.has(ScriptFlags::ALLOW_OOM) {
            flags |= flag::DENYOOM;
        }
    }
    if declared.has(ScriptFlags::ALLOW_STALE) {
        flags |= flag::STALE;
    }
    flags
}

/// EVAL script numkeys [key ...] [arg ...]. Runs a script, which is known by its SHA-1 from then on. Reply: what it returns.
/// Errors: the number of keys; a bad shebang; code that cannot be compiled; what the script does. O(the script).
fn eval(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    eval_text(ctx, false)
}

/// EVAL_RO script numkeys [key ...] [arg ...]. As EVAL, of a script that writes nothing.
fn eval_ro(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    eval_text(ctx, true)
}

/// EVALSHA sha1 numkeys [key ...] [arg ...]. As EVAL, of a script that is known. Errors besides: NOSCRIPT.
fn evalsha(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    eval_sha(ctx, false)
}

/// EVALSHA_RO sha1 numkeys [key ...] [arg ...]. As EVALSHA, of a script that writes nothing.
fn evalsha_ro(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    eval_sha(ctx, true)
}

fn eval_text(ctx: &mut ProgramCtx<'_>, is_read_only: bool) -> CommandResult {
    let key_count = key_count(ctx.args, CommandError::NOT_INTEGER)?;

    let text = ctx.arg(1);
    let script = ctx.worker().scripts.add(Sha::of(text), text, Keep::UntilEvicted)?;

    run_script(ctx, &script, key_count, is_read_only)
}

fn eval_sha(ctx: &mut ProgramCtx<'_>, is_read_only: bool) -> CommandResult {
    // What cannot be a SHA is unknown, however many keys there are.
    if ctx.arg(1).len() != HEX_LEN {
        return Err(NO_SCRIPT);
    }
    let key_count = key_count(ctx.args, CommandError::NOT_INTEGER)?;

    let sha = ctx.arg(1);
    let worker = ctx.worker();
    let script = Rc::clone(worker.scripts.find_hex(sha)?);
    let reach = reach_of_script(&script, worker.table, is_read_only, Widened::now(worker));
    if !ctx.reaches(reach) {
        return Err(NO_SCRIPT);
    }

    run_script(ctx, &script, key_count, is_read_only)
}

fn run_script(
    ctx: &mut ProgramCtx<'_>,
    script: &CompiledScript,
    key_count: usize,
    is_read_only: bool,
) -> CommandResult {
    let permissions = Permissions::new(script.script.header.flags, is_read_only)?;
    let vm = ctx.worker().scripts.script_vm();
    run(ctx, permissions, key_count, |[keys, args], options, host, reply| {
        vm.run(&script.code, &script.hex, keys, args, options, host, reply)
    })
}

/// FCALL function numkeys [key ...] [arg ...]. Calls a function of a library. Reply: what it returns. Errors: no such
/// function; the number of keys; what the function does. O(the function).
fn fcall(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    call_function(ctx, false)
}

/// FCALL_RO function numkeys [key ...] [arg ...]. As FCALL, of a function that writes nothing.
fn fcall_ro(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    call_function(ctx, true)
}

fn call_function(ctx: &mut ProgramCtx<'_>, is_read_only: bool) -> CommandResult {
    let name = ctx.arg(1);
    let worker = ctx.worker();
    let function = worker.callable_function(name)?;
    let key_use = function.entry.key_use(worker.table);
    let reach = match reach(key_use, is_read_only, Widened::now(worker)) {
        // Another of its name has made other keys when it was placed.
        Reach::Made { is_read_only }
            if made_keys(key_use, ctx.args).is_some_and(|made| !ctx.has_in_hand(&made)) =>
        {
            Reach::Any { is_read_only }
        }
        reach => reach,
    };
    if !ctx.reaches(reach) {
        return Err(FUNCTION_NOT_FOUND);
    }
    let key_count = key_count(ctx.args, CommandError::fixed("ERR Bad number of keys provided"))?;

    let permissions = Permissions::new(function.entry.function().flags, is_read_only)?;
    let vm = ctx.worker().scripts.function_vm();
    run(ctx, permissions, key_count, |[keys, args], options, host, reply| {
        vm.call_function(&function.library, function.position, keys, args, options, host, reply)
    })
}

/// How many keys stand behind argument 2. `not_integer`: the error if that is no integer.
fn key_count(argv: Argv<'_>, not_integer: CommandError) -> CommandResult<usize> {
    let count = match argv.arg(2) {
        // Nearly all.
        &[digit @ b'0'..=b'9'] => i64::from(digit - b'0'),
        text => parse_i64(text).ok_or(not_integer)?,
    };
    if count > (argv.len() - 3) as i64 {
        return Err(CommandError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| CommandError::fixed("ERR Number of keys can't be negative"))
}
