//! FUNCTION: the libraries of functions that the process has, and the functions that run.

use super::cache::is_flush_mode;
use crate::command::admission::busy_error;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::{CommandError, CommandResult, args};
use crate::persist::rdb::dump::{self, NoLibrary};
use crate::persist::rdb::write::Writer;
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, Reply, split_array};
use crate::script::library::RestorePolicy;
use crate::script::shebang::LibraryHeader;
use crate::script::{FunctionSet, Library};
use crate::session::script::kill::FUNCTION_KILL;
use crate::session::session;
use crate::types::glob::glob_matches_nocase;
use crate::worker::program::ProgramKind;
use crate::worker::{SessionCtx, SessionHandler};
use std::sync::Arc;

pub(super) const FUNCTION: Command =
    Command::container("function", &[DELETE, DUMP, FLUSH, HELP, FUNCTION_KILL, LIST, LOAD, RESTORE, STATS])
        .docs(
            Docs::new("scripting", "7.0.0", "A container for the commands over functions")
                .complexity("Depends on subcommand."),
        );

/// The engine of all libraries, as users read it.
const ENGINE: &[u8] = b"LUA";

const ALL_SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

const LOAD: Command = session("load", -3, &(load as SessionHandler))
    .flags(flag::WRITE | flag::DENYOOM | flag::NOSCRIPT)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "7.0.0", "Loads a library of functions")
            .complexity("O(1) (considering compilation time is redundant)")
            .arguments("[REPLACE] function-code")
            .tips(ALL_SHARDS),
    );

/// FUNCTION LOAD [REPLACE] code. Reply: string, the library's name. Errors: another option; a bad shebang; a library of the
/// name, without REPLACE; code that cannot be compiled, fails, or registers nothing; a function of another library has the
/// name of one of these. O(bytes), and what the code does.
fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (options, text) = (2..ctx.args.len() - 1, ctx.arg(ctx.args.len() - 1));
    let mut replace = false;
    for option in options.map(|at| ctx.arg(at)) {
        if !args::is(option, "replace") {
            return Err(CommandError::quoting("ERR Unknown option given: ", option, ""));
        }
        replace = true;
    }
    let header = LibraryHeader::parse(text)?;
    let functions = &ctx.worker.globals.scripts.functions;
    functions.get().1.check_name(&header.name, replace)?;

    let library = ctx.worker.load_library(header, text)?;
    functions.update(|set| set.with(Arc::clone(&library), replace))?;

    note_change(ctx);
    ctx.reply.bulk(library.name());
    Ok(())
}

/// To be called when the libraries have changed. The change is an effect.
fn note_change(ctx: &mut SessionCtx<'_>) {
    ctx.worker.shard.changed(1);
}

const DELETE: Command = session("delete", 3, &(delete as SessionHandler))
    .constant_time()
    .flags(flag::WRITE | flag::NOSCRIPT)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "7.0.0", "Removes a library with its functions")
            .complexity("O(1)")
            .arguments("library-name")
            .tips(ALL_SHARDS),
    );

/// FUNCTION DELETE library. Reply: OK. Errors: there is no such library. O(functions).
fn delete(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let name = ctx.arg(2);

    ctx.worker.globals.scripts.functions.update(|set| set.without(name))?;

    note_change(ctx);
    ctx.reply.ok();
    Ok(())
}

const FLUSH: Command = session("flush", -2, &(flush as SessionHandler))
    .flags(flag::WRITE | flag::NOSCRIPT)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "7.0.0", "Removes all libraries")
            .complexity("O(N) where N is the number of functions deleted")
            .arguments("[async<ASYNC | SYNC>]")
            .tips(ALL_SHARDS),
    );

/// FUNCTION FLUSH [ASYNC | SYNC]. A shard frees what it has compiled when it next calls a function. Reply: OK. Errors:
/// another word. O(functions).
fn flush(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len() > 3 {
        return Err(CommandError::wrong_subcommand("FUNCTION", ctx.arg(1)));
    }
    if !is_flush_mode(ctx.args) {
        return Err(CommandError::fixed("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }

    ctx.worker.globals.scripts.functions.clear();

    note_change(ctx);
    ctx.reply.ok();
    Ok(())
}

const LIST: Command =
    session("list", -2, &(list as SessionHandler)).flags(flag::NOSCRIPT).acl(acl::SCRIPTING).docs(
        Docs::new("scripting", "7.0.0", "Shows the libraries and their functions")
            .complexity("O(N) where N is the number of functions")
            .arguments("[LIBRARYNAME library-name-pattern] [WITHCODE]")
            .tips(&["nondeterministic_output_order"]),
    );

/// What LIST's words ask for.
#[derive(Default)]
struct Wanted<'a> {
    pattern: Option<&'a [u8]>,
    with_code: bool,
}

impl Wanted<'_> {
    fn parse(argv: Argv<'_>) -> CommandResult<Wanted<'_>> {
        let mut wanted = Wanted::default();
        let mut words = argv.iter().skip(2);
        while let Some(word) = words.next() {
            if !wanted.with_code && args::is(word, "withcode") {
                wanted.with_code = true;
            } else if wanted.pattern.is_none() && args::is(word, "libraryname") {
                const NO_NAME: CommandError = CommandError::fixed("ERR library name argument was not given");
                wanted.pattern = Some(words.next().ok_or(NO_NAME)?);
            } else {
                return Err(CommandError::quoting("ERR Unknown argument ", word, ""));
            }
        }
        Ok(wanted)
    }
}

/// FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]. Reply: array of maps, the libraries in the order of their names: name,
/// engine, functions (maps of name, description or null, and flags), and code if it is wanted. Errors: another word. O(n).
fn list(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let wanted = Wanted::parse(ctx.args)?;
    let (_, set) = ctx.worker.globals.scripts.functions.get();
    let is_wanted = |library: &&Arc<Library>| {
        wanted.pattern.is_none_or(|pattern| glob_matches_nocase(pattern, library.name()))
    };

    let libraries: Vec<_> = set.libraries().filter(is_wanted).collect();

    ctx.reply.array(libraries.len());
    libraries.iter().for_each(|library| reply_library(&mut ctx.reply, library, wanted.with_code));
    Ok(())
}

fn reply_library(reply: &mut Reply<'_>, library: &Library, with_code: bool) {
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk(b"library_name");
    reply.bulk(library.name());
    reply.bulk(b"engine");
    reply.bulk(ENGINE);
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&function.name);
        reply.bulk(b"description");
        match &function.description {
            Some(description) => reply.bulk(description),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        reply.set(function.flags.names().count());
        function.flags.names().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.text);
    }
}

const DUMP: Command =
    session("dump", 2, &(dump as SessionHandler)).flags(flag::NOSCRIPT).acl(acl::SCRIPTING).docs(
        Docs::new("scripting", "7.0.0", "Returns all libraries as bytes that FUNCTION RESTORE takes")
            .complexity("O(N) where N is the number of functions"),
    );

/// FUNCTION DUMP. Reply: string, the payload. O(bytes).
fn dump(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (_, set) = ctx.worker.globals.scripts.functions.get();

    let mut payload = Vec::new();
    let mut writer = Writer::new(&mut payload, ctx.worker.shard.config.rdbcompression);
    set.libraries().for_each(|library| writer.library(&library.text));
    dump::seal(&mut payload, 0);

    ctx.reply.bulk(&payload);
    Ok(())
}

const RESTORE: Command = session("restore", -3, &(restore as SessionHandler))
    .flags(flag::WRITE | flag::DENYOOM | flag::NOSCRIPT)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "7.0.0", "Loads the libraries of a payload that FUNCTION DUMP has returned")
            .complexity("O(N) where N is the number of functions on the payload")
            .arguments("serialized-value [policy<FLUSH | APPEND | REPLACE>]")
            .tips(ALL_SHARDS),
    );

/// FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]. Reply: OK. Errors: another policy; a payload of another version or
/// checksum, or of something else; a library that cannot be loaded; names that are there already, by the policy: APPEND
/// unless it is given. O(bytes), and what the code does.
fn restore(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len() > 4 {
        return Err(CommandError::wrong_subcommand("FUNCTION", ctx.arg(1)));
    }
    let policy = match ctx.args.get(3) {
        None => RestorePolicy::Append,
        Some(word) if args::is(word, "append") => RestorePolicy::Append,
        Some(word) if args::is(word, "replace") => RestorePolicy::Replace,
        Some(word) if args::is(word, "flush") => RestorePolicy::Flush,
        Some(_) => {
            return Err(CommandError::fixed(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let libraries = dump::open(ctx.arg(2), !ctx.worker.shard.skips_checksums)
        .ok_or(CommandError::fixed("ERR DUMP payload version or checksum are wrong"))?;
    let texts = dump::read_libraries(libraries).map_err(|why| match why {
        NoLibrary::Other => CommandError::fixed("ERR given type is not a function"),
        NoLibrary::OldFormat => CommandError::fixed("ERR Pre-release function format not supported."),
        NoLibrary::Damaged => CommandError::fixed("ERR failed loading the given functions payload"),
    })?;

    let mut restored = FunctionSet::default();
    for text in &texts {
        let library = ctx.worker.load_library(LibraryHeader::parse(text)?, text)?;
        restored = restored.with(library, false)?;
    }
    ctx.worker.globals.scripts.functions.update(|set| set.joined(&restored, policy))?;

    note_change(ctx);
    ctx.reply.ok();
    Ok(())
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::SCRIPTING)
    .constant_time()
    .docs(Docs::new("scripting", "7.0.0", "Explains the subcommands").complexity("O(1)"));

/// FUNCTION HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "FUNCTION",
        &[
            "DELETE <library-name>",
            "    Remove a library with its functions.",
            "DUMP",
            "    Return all libraries as bytes, for FUNCTION RESTORE.",
            "FLUSH [ASYNC|SYNC]",
            "    Remove all libraries. Both modes do the same here.",
            "KILL",
            "    End the functions that have run for longer than busy-reply-threshold and have not",
            "    written anything.",
            "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
            "    Show the libraries, their functions and, WITHCODE, their code.",
            "LOAD [REPLACE] <function-code>",
            "    Load a library. Its code names it in its first line, and registers its functions.",
            "RESTORE <payload> [FLUSH|APPEND|REPLACE]",
            "    Load the libraries of a payload. Those that are there are removed (FLUSH), or stay",
            "    (APPEND, the default), or stay but for those of the same names (REPLACE).",
            "STATS",
            "    Show the function that runs at the moment, and how many libraries and functions",
            "    there are.",
        ],
    );
    Ok(())
}

const STATS: Command = session("stats", 2, &(stats as SessionHandler))
    .constant_time()
    .flags(flag::NOSCRIPT | flag::ALLOW_BUSY)
    .acl(acl::SCRIPTING)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::With(merge_stats))
    .docs(
        Docs::new("scripting", "7.0.0", "Shows the function that runs, and counts libraries and functions")
            .complexity("O(1)")
            .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    );

/// FUNCTION STATS. Reply: map of the function that has run for the longest time, null without one, and of the engines with
/// their numbers of libraries and functions. Errors: a script is busy. O(shards x programs under way).
fn stats(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.worker.busy_program() == Some(ProgramKind::Script) {
        return Err(busy_error(ProgramKind::Script));
    }
    let (_, set) = ctx.worker.globals.scripts.functions.get();

    // For the merge: how long the function has run, then what the client gets of it.
    let reply = &mut ctx.reply;
    let running = ctx.worker.running_program(ProgramKind::Function);
    reply.array(2);
    reply.integer(running.as_ref().map_or(-1, |program| program.ran_ms as i64));
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(program) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(program.args.arg(1));
            reply.bulk(b"command");
            reply.array(program.args.len());
            program.args.iter().for_each(|arg| reply.bulk(arg));
            reply.bulk(b"duration_ms");
            reply.integer(program.ran_ms as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(ENGINE);
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(set.libraries().len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(set.function_count() as i64);
    Ok(())
}

/// What the shard says whose function has run for the longest time; or an error.
fn merge_stats(replies: &[&[u8]], _args: Argv<'_>, out: &mut Vec<u8>) {
    let mut longest: Option<(i64, &[u8])> = None;
    for reply in replies {
        let Some(mut parts) = split_array(reply) else {
            out.extend_from_slice(reply);
            return;
        };
        let ran_ms = parts.next().and_then(|ran| parse_i64(ran.strip_prefix(b":")?.strip_suffix(b"\r\n")?));
        let (ran_ms, shown) = ran_ms.zip(parts.next()).expect("a shard answers with a time and a map");
        if longest.is_none_or(|(other_ms, _)| ran_ms > other_ms) {
            longest = Some((ran_ms, shown));
        }
    }
    out.extend(longest.into_iter().flat_map(|(_, shown)| shown));
}
