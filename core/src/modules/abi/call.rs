//! Calls of other commands, and their replies.

use super::fail_with;
use super::given::{Ctx, Out, Reply, Text, abi_functions, server_functions};
use crate::acl::User;
use crate::call::Forbidden;
use crate::command::table::{Command, CommandEntry, CommandTable, Native, Resolved, Run, Scope, flag};
use crate::command::{CommandError, Ctx as HandlerCtx, gate, keys, route};
use crate::modules::call_reply::CallReply;
use crate::modules::context::{Access, Context, while_suspended};
use crate::modules::string::ModuleString;
use crate::modules::{events, filters, server};
use crate::protocol::reply::Resp;
use crate::protocol::{Argv, OwnedArgv, Reply as ReplyWriter};
use crate::runtime::os_error;
use crate::shard::effects::Readers;
use crate::worker::program::{CallOptions, Control, NotCalled};
use shardis_modules_api::abi::*;
use shardis_modules_api::host::Arguments;
use shardis_modules_api::served;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_longlong};
use std::sync::Arc;

pub(super) const SERVED: &[Served] = served! {
    FreeCallReply = free_call_reply,
    CallReplyProto = call_reply_proto,
    CallReplyType = call_reply_type,
    CallReplyInteger = call_reply_integer,
    CallReplyDouble = call_reply_double,
    CallReplyBool = call_reply_bool,
    CallReplyBigNumber = call_reply_big_number,
    CallReplyVerbatim = call_reply_verbatim,
    CallReplyStringPtr = call_reply_string_ptr,
    CallReplyLength = call_reply_length,
    CallReplyArrayElement = call_reply_array_element,
    CallReplySetElement = call_reply_set_element,
    CallReplyMapElement = call_reply_map_element,
    CallReplyAttributeElement = call_reply_attribute_element,
    CallReplyAttribute = call_reply_attribute,
};

/// A command and its arguments.
pub(super) type Words<'a> = SmallVec<[Cow<'a, [u8]>; 8]>;

/// What the format of a call says besides the arguments.
#[derive(Clone, Copy, Default)]
pub(super) struct Format {
    /// `!`: its effects are recorded.
    is_recorded: bool,
    /// `A`: but not in the append-only file.
    not_to_file: bool,
    /// `R`: but not for replicas.
    not_to_replicas: bool,
    /// `3`: the reply is in RESP3.
    is_resp3: bool,
    /// `0`: the reply is in the protocol of the client.
    is_as_client: bool,
    /// `S`: what a script may not do is refused.
    is_as_script: bool,
    /// `W`: writes are refused.
    no_writes: bool,
    /// `M`: what takes memory is refused while that is full.
    respects_oom: bool,
    /// `E`: errors are replies.
    errors_are_replies: bool,
    /// `C`: the permissions of the context's user are checked.
    checks_permissions: bool,
}

impl Format {
    /// Whose effects are not suppressed.
    pub(super) fn readers(self) -> Readers {
        Readers { replicas: !self.not_to_replicas, file: !self.not_to_file }
    }
}

/// Reads the words of a call. `None`: the format is invalid.
///
/// # Safety
/// The module has passed what the format says.
pub(super) unsafe fn words<'a>(
    name: &'a [u8],
    format: &CStr,
    arguments: *mut Arguments,
) -> Option<(Words<'a>, Format)> {
    let mut words = Words::new();
    words.push(Cow::Borrowed(name));
    let mut flags = Format::default();
    for letter in format.to_bytes() {
        // SAFETY: the letters say which arguments follow, as promised.
        unsafe {
            let arguments = &mut *arguments;
            match letter {
                b'c' => {
                    words.push(Cow::Borrowed(CStr::from_ptr(arguments.pointer().cast::<c_char>()).to_bytes()))
                }
                b's' => words.push(Cow::Borrowed((*arguments.pointer().cast::<ModuleString>()).bytes())),
                b'b' => {
                    let start = arguments.pointer().cast::<c_char>();
                    let len = arguments.size();
                    words.push(Cow::Borrowed(super::given::bytes_at(start, len)));
                }
                b'l' => words.push(Cow::Owned(arguments.long_long().to_string().into_bytes())),
                b'v' => {
                    let strings = arguments.pointer().cast::<*mut ModuleString>();
                    let len = arguments.size();
                    words.extend((0..len).map(|at| Cow::Borrowed((**strings.add(at)).bytes())));
                }
                b'!' => flags.is_recorded = true,
                b'A' => flags.not_to_file = true,
                b'R' => flags.not_to_replicas = true,
                b'3' => flags.is_resp3 = true,
                b'0' => flags.is_as_client = true,
                b'C' => flags.checks_permissions = true,
                b'S' => flags.is_as_script = true,
                b'W' => flags.no_writes = true,
                b'M' => flags.respects_oom = true,
                b'E' => flags.errors_are_replies = true,
                _ => return None,
            }
        }
    }
    Some((words, flags))
}

/// Why a call has no reply: the error number, and the error that `E` asks for.
struct Failed {
    errno: c_int,
    error: CommandError,
}

impl Failed {
    fn new(errno: c_int, text: String) -> Failed {
        Failed { errno, error: CommandError::new(text.into_bytes()) }
    }

    fn not_allowed_in_script(name: &str) -> Failed {
        Failed::new(os_error::ILLEGAL_SEEK, format!("ERR command '{name}' is not allowed on script mode"))
    }
}

abi_functions! {
    fn free_call_reply(reply: Option<Reply>) {
        // SAFETY: the module does not use it any more. A part is freed with its root.
        reply.into_iter().for_each(|reply| unsafe { CallReply::free(reply.as_ptr()) });
    }

    fn call_reply_proto(reply: Reply, len: Out<usize>) -> *const c_char {
        len.set(reply.proto().len());
        reply.proto().as_ptr().cast()
    }

    fn call_reply_type(reply: Option<Reply>) -> c_int {
        reply.map_or(REDISMODULE_REPLY_UNKNOWN, |reply| reply.kind())
    }

    fn call_reply_integer(reply: Reply) -> c_longlong {
        reply.integer().unwrap_or(c_longlong::MIN)
    }

    fn call_reply_double(reply: Reply) -> f64 {
        reply.double().unwrap_or(f64::MIN)
    }

    fn call_reply_bool(reply: Reply) -> c_int {
        reply.boolean().map_or(c_int::MIN, c_int::from)
    }

    fn call_reply_big_number(reply: Reply, len: Out<usize>) -> *const c_char {
        string_of(&reply, REDISMODULE_REPLY_BIG_NUMBER, &len)
    }

    /// The text, and where its three letters of format are.
    fn call_reply_verbatim(reply: Reply, len: Out<usize>, format: Out<*const c_char>) -> *const c_char {
        if reply.kind() != REDISMODULE_REPLY_VERBATIM_STRING {
            return std::ptr::null();
        }
        let Some((letters, text)) = reply.string().and_then(|bytes| bytes.split_at_checked(4)) else {
            return std::ptr::null();
        };
        format.set(letters.as_ptr().cast());
        len.set(text.len());
        text.as_ptr().cast()
    }

    fn call_reply_string_ptr(reply: Reply, len: Out<usize>) -> *const c_char {
        let kind = reply.kind();
        if !matches!(kind, REDISMODULE_REPLY_STRING | REDISMODULE_REPLY_ERROR) {
            return std::ptr::null();
        }
        string_of(&reply, kind, &len)
    }

    fn call_reply_length(reply: Reply) -> usize {
        reply.len()
    }

    fn call_reply_array_element(reply: Reply, at: usize) -> *mut RedisModuleCallReply {
        as_abi(reply.element(REDISMODULE_REPLY_ARRAY, at))
    }

    fn call_reply_set_element(reply: Reply, at: usize) -> *mut RedisModuleCallReply {
        as_abi(reply.element(REDISMODULE_REPLY_SET, at))
    }

    fn call_reply_map_element(
        reply: Reply, at: usize, key: Out<*mut RedisModuleCallReply>, value: Out<*mut RedisModuleCallReply>,
    ) -> c_int {
        let pair = reply.element(REDISMODULE_REPLY_MAP, 2 * at).zip(reply.element(REDISMODULE_REPLY_MAP, 2 * at + 1));
        set_pair(pair, &key, &value)
    }

    fn call_reply_attribute_element(
        reply: Reply, at: usize, key: Out<*mut RedisModuleCallReply>, value: Out<*mut RedisModuleCallReply>,
    ) -> c_int {
        let pair = reply.attribute_element(2 * at).zip(reply.attribute_element(2 * at + 1));
        set_pair(pair, &key, &value)
    }

    fn call_reply_attribute(reply: Reply) -> *mut RedisModuleCallReply {
        as_abi(reply.attribute())
    }
}

server_functions! {
    fn call(
        ctx: Ctx, name: Text, format: *const c_char, arguments: *mut Arguments,
    ) -> *mut RedisModuleCallReply {
        // SAFETY: the module passes a C string, and what that says.
        let words = unsafe { words(name.bytes(), CStr::from_ptr(format), arguments) };
        let Some((words, format)) = words else {
            fail_with(os_error::BAD_FILE);
            return std::ptr::null_mut();
        };
        let words: SmallVec<[&[u8]; 8]> = words.iter().map(|word| &**word).collect();
        let mut out = Vec::new();
        if let Err(Failed { errno, error }) = run(&mut ctx, &words, format, &mut out) {
            fail_with(errno);
            if !format.errors_are_replies {
                return std::ptr::null_mut();
            }
            // What was called has counted its own errors; this was not called.
            if let Some(shard) = ctx.shard() {
                shard.stats.error(error.code());
            }
            out.clear();
            ReplyWriter::new(&mut out, Resp::V2).error(error.as_bytes());
        }
        CallReply::hand_out(out, &mut ctx).cast()
    }
}

fn as_abi(reply: Option<&CallReply>) -> *mut RedisModuleCallReply {
    reply.map_or(std::ptr::null_mut(), |reply| std::ptr::from_ref(reply).cast_mut().cast())
}

fn set_pair(
    pair: Option<(&CallReply, &CallReply)>,
    key: &Out<*mut RedisModuleCallReply>,
    value: &Out<*mut RedisModuleCallReply>,
) -> c_int {
    let Some(pair) = pair else { return REDISMODULE_ERR };
    key.set(as_abi(Some(pair.0)));
    value.set(as_abi(Some(pair.1)));
    REDISMODULE_OK
}

fn string_of(reply: &CallReply, kind: c_int, len: &Out<usize>) -> *const c_char {
    let Some(bytes) = reply.string().filter(|_| reply.kind() == kind) else { return std::ptr::null() };
    len.set(bytes.len());
    bytes.as_ptr().cast()
}

/// The command that shows a client to itself: to a module the one as which it calls commands, which has no connection.
const OWN_CLIENT: &str = "client|info";

/// Calls a command for a module.
fn run(ctx: &mut Context<'static>, args: &[&[u8]], format: Format, out: &mut Vec<u8>) -> Result<(), Failed> {
    let name = String::from_utf8_lossy(args[0]).into_owned();
    let user = format.checks_permissions.then(|| user_of(ctx)).transpose()?;
    if !matches!(ctx.access(), Access::Program(_))
        && let Some(config) = ctx.config()
        && super::info::ask_configuration(config, args, out).is_some()
    {
        return Ok(());
    }
    let mut owned = OwnedArgv::from_slices(args);
    let missing = |error| Failed { errno: os_error::NO_ENTRY, error };
    let Some(table) = ctx.table() else { return Err(missing(gate::unknown(owned.as_argv()))) };
    let filtered = filters::filtered_call(ctx.module, ctx.call.client, owned.as_argv());
    if let Some(filtered) = filtered.filter(|filtered| !filtered.is_empty()) {
        owned = filtered;
    }
    let args: SmallVec<[&[u8]; 8]> = owned.as_argv().iter().collect();
    let args = args.as_slice();
    let entry = match table.resolve(owned.as_argv()) {
        Resolved::Command(entry) => entry,
        Resolved::UnknownSubcommand(container) => {
            return Err(missing(gate::unknown_subcommand(container, owned.as_argv())));
        }
        Resolved::Unknown => return Err(missing(gate::unknown(owned.as_argv()))),
    };
    let row = entry.row;
    if format.no_writes && row.has(flag::WRITE) {
        let text = format!("ERR Write command '{name}' was called while write is not allowed.");
        return Err(Failed::new(os_error::NO_SPACE, text));
    }
    if format.is_as_script && row.has(flag::NOSCRIPT) {
        return Err(Failed::not_allowed_in_script(&name));
    }
    if let Some(user) = &user {
        check_permissions(ctx, user, table, entry, owned.as_argv())?;
    }
    if entry.full_name == OWN_CLIENT
        && let Some(worker) = ctx.worker()
    {
        let line = worker.line_of_program(owned.as_argv());
        ReplyWriter::new(out, Resp::V2).bulk(&line);
        return Ok(());
    }
    let resp = match format {
        Format { is_as_client: true, .. } => ctx.resp(),
        Format { is_resp3: true, .. } => Resp::V3,
        _ => Resp::V2,
    };
    let options = CallOptions {
        resp,
        readers: if format.is_recorded { format.readers() } else { Readers::NONE },
        is_read_only: false,
        allows_oom: !format.respects_oom,
        is_as_script: format.is_as_script,
    };
    let result = match ctx.access() {
        Access::Program(_) => {
            let db = ctx.call.db;
            if events::subscribed_classes() != 0 && !row.has(flag::TELLS_KEYS) {
                bring_keys(ctx, row, owned.as_argv());
            }
            let program = ctx.program().expect("it is one");
            program.select(db);
            program.as_user(user, |program| while_suspended(|| program.try_call(args, options, out)))
        }
        Access::Native { ctx: mut handler, table } => {
            // SAFETY: as in `Context::shard`.
            let called = call_natively(unsafe { handler.as_mut() }, table, owned.clone(), options, out);
            if let Err(NotCalled::NotAllowed | NotCalled::Undeclared) = called {
                ctx.refuse("Call");
            }
            if let Err(NotCalled::NotAllowed) = called {
                let text = format!("ERR '{name}' can only be called by a command that is declared wide");
                return Err(Failed::new(os_error::NOT_SUPPORTED, text));
            }
            called.map(|()| Control::GoOn)
        }
        Access::Worker(_) | Access::Starting { .. } | Access::Thread | Access::Nothing => {
            Err(NotCalled::NotAllowed)
        }
    };
    match result {
        Ok(Control::GoOn) => Ok(()),
        Ok(Control::Stop(text)) => Err(Failed::new(os_error::NOT_PERMITTED, text.to_string())),
        Err(NotCalled::Unknown) => Err(missing(gate::unknown(owned.as_argv()))),
        Err(NotCalled::Arity) => {
            let text = format!("ERR wrong number of arguments for '{}' command", name.to_ascii_lowercase());
            Err(Failed::new(os_error::INVALID, text))
        }
        Err(NotCalled::NotAllowed) => Err(Failed::not_allowed_in_script(&name)),
        Err(NotCalled::Undeclared) => Err(Failed::new(
            os_error::NOT_PERMITTED,
            format!("ERR the command has not declared all keys of '{name}'"),
        )),
        Err(NotCalled::Refused(error)) => Err(Failed { errno: os_error::NO_SPACE, error }),
    }
}

/// By whose rights a context calls commands: those of the user that it has set, or of its client.
fn user_of(ctx: &mut Context<'static>) -> Result<Arc<User>, Failed> {
    if let Some(user) = &ctx.user {
        return Ok(user.current());
    }
    let has_client = ctx.command.is_some() || ctx.on.is_some();
    let user = server::globals().filter(|_| has_client).map(|globals| globals.acl.user_of(&ctx.call));
    user.ok_or_else(|| {
        let text = "ERR cannot run as user, no user directly attached to context or context's client";
        Failed::new(os_error::NOT_SUPPORTED, text.to_string())
    })
}

/// Whether a user has the right to what a module calls in its name.
fn check_permissions(
    ctx: &mut Context<'static>,
    user: &User,
    table: &CommandTable,
    entry: &CommandEntry,
    args: Argv<'_>,
) -> Result<(), Failed> {
    let Err(denied) = user.check(table, entry, args) else { return Ok(()) };
    let call = ctx.call;
    if let Some(worker) = ctx.worker() {
        worker.note_refused_by_module(&call, entry, args, denied);
    }
    let why = match denied.what {
        Forbidden::Command | Forbidden::Auth => "can't run this command or subcommand",
        Forbidden::Key => "can't access at least one of the keys mentioned in the command arguments",
        Forbidden::Channel => "can't publish to the channel mentioned in the command",
    };
    Err(Failed::new(os_error::ACCESS, format!("ERR acl verification failed, {why}.")))
}

/// Has the keys of a command here, so that what happens to them is told within the call.
fn bring_keys(ctx: &mut Context<'static>, row: &Command, args: Argv<'_>) {
    let db_count = ctx.shard().map_or(0, |shard| shard.db_count());
    let selected = ctx.call.db;
    keys::each(row, args, |at, _| ctx.bring((row.key_db)(args, at, selected, db_count), args.arg(at)));
}

/// Calls a command for a handler over keys: one over keys that the handler has declared.
fn call_natively(
    handler: &mut HandlerCtx<'static>,
    table: &'static CommandTable,
    args: OwnedArgv,
    options: CallOptions,
    out: &mut Vec<u8>,
) -> Result<(), NotCalled> {
    let argv = args.as_argv();
    let Resolved::Command(entry) = table.resolve(argv) else { return Err(NotCalled::Unknown) };
    let entry = entry.plain.map_or(entry, |plain| table.entry(plain));
    let row = entry.row;
    let len = argv.len() as i32;
    if if row.arity >= 0 { len != row.arity } else { len < -row.arity } {
        return Err(NotCalled::Arity);
    }
    // What is over the keyspace (DBSIZE, FLUSHALL) would see the keys of this shard alone.
    let is_over_named_keys = matches!(route::scope(row, argv, handler.shard.shard_count), Scope::Keys);
    if !(row.run.is_over_keys() && is_over_named_keys) {
        return Err(NotCalled::NotAllowed);
    }
    let mut declared: SmallVec<[&[u8]; 8]> = SmallVec::new();
    keys::each(table.entry(handler.call.command).row, handler.args, |at, _| {
        declared.push(handler.args.arg(at))
    });
    let mut is_declared = true;
    keys::each(row, argv, |at, _| is_declared &= declared.contains(&argv.arg(at)));
    if !is_declared || row.has(flag::TOUCHES_ARBITRARY_KEYS) || row.derives_keys(argv) {
        return Err(NotCalled::Undeclared);
    }
    let call = crate::call::Call {
        command: entry.id,
        resp: options.resp,
        in_exec: true,
        hash: 0,
        hashed_arg: 0,
        ..*handler.call
    };
    let shard = &mut *handler.shard;
    let (readers, is_outermost) = (shard.effects.readers(), shard.effects.begin_nested());
    shard.effects.record_for(options.readers.both(readers));
    let start = out.len();
    let reply = ReplyWriter::new(out, options.resp);
    let mut ctx = HandlerCtx { shard, call: &call, args: argv, fetched: &[], served_from: None, reply };
    let result = match row.run {
        Run::Keys(run) => run(&mut ctx),
        Run::Native(Native { run, data }) => run(&mut ctx, table, data),
        Run::Blocking(_) | Run::Session(_) | Run::Program(_) | Run::Container => {
            unreachable!("it is over keys")
        }
    };
    let shard = &mut *handler.shard;
    if shard.effects.is_on() {
        let changes = shard.stats.dirty.get();
        shard.effects.end_command(call.db, Some(argv), changes, false);
    }
    shard.effects.record_for(readers);
    if is_outermost {
        shard.effects.leave_nested();
    }
    shard.stats.command(entry.id).record(0, false);
    if let Err(error) = &result {
        out.truncate(start);
        ReplyWriter::new(out, options.resp).error(error.as_bytes());
        // The error itself counts if the module replies with it.
        handler.shard.stats.command(entry.id).failed.add(1);
    }
    Ok(())
}
