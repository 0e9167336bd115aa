//! SCRIPT: the scripts that the process knows, and those that run.

use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, args};
use crate::protocol::Argv;
use crate::script::Sha;
use crate::script::registry::Keep;
use crate::session::script::kill::SCRIPT_KILL;
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};

pub(super) const SCRIPT: Command =
    Command::container("script", &[DEBUG, EXISTS, FLUSH, HELP, SCRIPT_KILL, LOAD]).docs(
        Docs::new("scripting", "2.6.0", "A container for the commands over scripts")
            .complexity("Depends on subcommand."),
    );

const LOAD: Command = session("load", 3, &(load as SessionHandler))
    .flags(flag::NOSCRIPT | flag::STALE)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "2.6.0", "Keeps a script, to be run by its SHA-1")
            .complexity("O(N) with N being the length in bytes of the script body.")
            .arguments("script")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    );

/// SCRIPT LOAD script. Reply: string, the script's SHA-1 in hexadecimal digits. Errors: a bad shebang; code that cannot be
/// compiled. O(bytes).
fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let text = ctx.arg(2);
    let sha = Sha::of(text);

    ctx.worker.scripts.add(sha, text, Keep::UntilFlushed)?;

    ctx.reply.bulk(&sha.to_hex());
    Ok(())
}

const EXISTS: Command =
    session("exists", -3, &(exists as SessionHandler)).flags(flag::NOSCRIPT).acl(acl::SCRIPTING).docs(
        Docs::new("scripting", "2.6.0", "Tells which scripts are known, by their SHA-1")
            .complexity(
                "O(N) with N being the number of scripts to check (so checking a single script is an O(1) operation).",
            )
            .arguments("sha1...")
            .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"]),
    );

/// SCRIPT EXISTS sha1 [sha1 ...]. Reply: array of integers, 1 for each script that is known, else 0. O(arguments).
fn exists(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let scripts = &ctx.worker.globals.scripts.scripts;
    ctx.reply.array(ctx.args.len() - 2);
    for sha in ctx.args.iter().skip(2) {
        let is_known = Sha::parse(sha).is_some_and(|sha| scripts.contains(&sha));
        ctx.reply.integer(i64::from(is_known));
    }
    Ok(())
}

const FLUSH: Command =
    session("flush", -2, &(flush as SessionHandler)).flags(flag::NOSCRIPT).acl(acl::SCRIPTING).docs(
        Docs::new("scripting", "2.6.0", "Forgets all scripts")
            .complexity("O(N) with N being the number of scripts in cache")
            .arguments("[async<ASYNC | SYNC>@6.2.0]")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .history(&[("6.2.0", "Added the `ASYNC` and `SYNC` flushing mode modifiers.")]),
    );

/// SCRIPT FLUSH [ASYNC | SYNC]. A shard frees what it has compiled when it next looks for a script. Reply: OK. Errors:
/// another word. O(scripts).
fn flush(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if !is_flush_mode(ctx.args) {
        return Err(CommandError::fixed("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }

    ctx.worker.globals.scripts.scripts.flush();

    ctx.reply.ok();
    Ok(())
}

/// Whether what stands behind FLUSH is nothing, SYNC or ASYNC.
pub(super) fn is_flush_mode(argv: Argv<'_>) -> bool {
    match argv.len() {
        2 => true,
        3 => args::is(argv.arg(2), "sync") || args::is(argv.arg(2), "async"),
        _ => false,
    }
}

const DEBUG: Command = session("debug", 3, &(debug as SessionHandler))
    .constant_time()
    .flags(flag::NOSCRIPT)
    .acl(acl::SCRIPTING)
    .docs(
        Docs::new("scripting", "3.2.0", "Turns the debugger of scripts off; there is none here")
            .complexity("O(1)")
            .arguments("mode<YES | SYNC | NO>"),
    );

/// SCRIPT DEBUG YES|SYNC|NO. Reply: OK to NO. Errors: the others, as there is no debugger; another word.
fn debug(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let mode = ctx.arg(2);
    if args::is(mode, "no") {
        ctx.reply.ok();
        return Ok(());
    }
    if args::is(mode, "yes") || args::is(mode, "sync") {
        return Err(CommandError::fixed("ERR This server has no debugger for scripts"));
    }
    Err(CommandError::fixed("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::SCRIPTING)
    .constant_time()
    .docs(Docs::new("scripting", "5.0.0", "Explains the subcommands").complexity("O(1)"));

/// SCRIPT HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "SCRIPT",
        &[
            "DEBUG (YES|SYNC|NO)",
            "    Turn the debugger of scripts on or off. There is none here, so it is off.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Tell of each script whether it is known.",
            "FLUSH [ASYNC|SYNC]",
            "    Forget all scripts. Both modes do the same here.",
            "KILL",
            "    End the scripts that have run for longer than busy-reply-threshold and have not",
            "    written anything.",
            "LOAD <script>",
            "    Keep a script without running it. It stays until FLUSH; scripts that came by",
            "    EVAL alone may be evicted.",
        ],
    );
    Ok(())
}
