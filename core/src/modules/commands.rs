//! MODULE: loading modules, unloading them, and what is loaded.

use super::load::{self, load};
use super::module::{self, Module};
use super::{events, guarded};
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, CommandTable, flag};
use crate::command::{CommandError, CommandResult, args};
use crate::protocol::Reply;
use crate::worker::program::{ProgramCtx, ProgramHandler, ProgramKind, Reach};
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[Command::container("module", &[HELP, LIST, LOAD, LOADEX, UNLOAD]).docs(
    Docs::new("server", "4.0.0", "A container for module commands").complexity("Depends on subcommand."),
)];

/// The flags of what changes which modules are loaded.
const CHANGES: u64 =
    flag::NO_ASYNC_LOADING | flag::ADMIN | flag::NOSCRIPT | flag::PROTECTED | flag::LOADS_CODE;

/// A program of the server's own that may touch any key.
pub(super) const fn handler(run: fn(&mut ProgramCtx<'_>) -> CommandResult) -> ProgramHandler {
    ProgramHandler {
        kind: ProgramKind::Module,
        flags: |_, row_flags, _| row_flags,
        name: |_| None,
        reach: |_, _| Reach::Any { is_read_only: false },
        made_keys: |_, _| None,
        may_publish: |_, _| true,
        run,
        data: &(),
    }
}

const LOAD: Command = Command::program("load", -3, &handler(load_command))
    .flags(CHANGES)
    .docs(Docs::new("server", "4.0.0", "Loads a module").complexity("O(1)").arguments("path [arg...]"));

/// MODULE LOAD path [arg ...]. Runs the module's OnLoad, and adds its commands. Reply: OK. Errors: the module does not load;
/// the log says why. O(the module).
fn load_command(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let arguments = ctx.args.iter().skip(3).map(<[u8]>::to_vec).collect();
    let path = ctx.arg(2);

    load_and_publish(ctx, path, arguments, Vec::new())?;

    ctx.reply.ok();
    Ok(())
}

const LOADEX: Command = Command::program("loadex", -3, &handler(loadex)).flags(CHANGES).docs(
    Docs::new("server", "7.0.0", "Loads a module with configuration parameters")
        .complexity("O(1)")
        .arguments("path [configs'CONFIG'{name value}...+] [args'ARGS'...]"),
);

/// MODULE LOADEX path [CONFIG name value ...] [ARGS arg ...]. As MODULE LOAD. Errors besides: words that are not understood.
/// O(the module).
fn loadex(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let path = ctx.arg(2);
    let words: Vec<&[u8]> = ctx.args.iter().skip(3).collect();
    let (mut given, mut arguments) = (Vec::new(), Vec::new());
    let mut rest = words.as_slice();
    while let [word, after @ ..] = rest {
        rest = match after {
            [name, value, after @ ..] if args::is(word, "config") => {
                given.push((name.to_vec(), value.to_vec()));
                after
            }
            _ if args::is(word, "args") => {
                arguments = after.iter().map(|arg| arg.to_vec()).collect();
                &[]
            }
            _ => return Err(CommandError::fixed("ERR syntax error")),
        };
    }

    load_and_publish(ctx, path, arguments, given)?;

    ctx.reply.ok();
    Ok(())
}

fn load_and_publish(
    ctx: &mut ProgramCtx<'_>,
    path: &[u8],
    arguments: Vec<Vec<u8>>,
    given: Vec<(Vec<u8>, Vec<u8>)>,
) -> CommandResult {
    const NOT_LOADED: CommandError =
        CommandError::fixed("ERR Error loading the extension. Please check the server logs.");
    let (module, rows) = load(ctx, path, arguments, given).ok_or(NOT_LOADED)?;
    let rows: &'static [Command] = Vec::leak(rows);
    let rows: Vec<&'static Command> = rows.iter().collect();
    let with_rows = |table: &CommandTable| {
        let table = table.with(&rows)?;
        guarded::as_needed(table, &[module])
    };
    if ctx.worker().update_table(with_rows).is_err() {
        // A command of another module has come to have one of the names.
        load::close(ctx, module);
        return Err(NOT_LOADED);
    }
    events::module_changed(ctx, module, true);
    Ok(())
}

const UNLOAD: Command = Command::program("unload", 3, &handler(unload))
    .flags(CHANGES)
    .docs(Docs::new("server", "4.0.0", "Unloads a module").complexity("O(1)").arguments("name"));

/// MODULE UNLOAD name. Reply: OK. Errors: no such module; it has data types, is used by others, has blocked clients, or
/// refuses. O(its commands).
fn unload(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let name = ctx.arg(2);

    let module = load::unload(ctx, name).map_err(|why| {
        let text = why.text();
        CommandError::new(format!("ERR Error unloading module: {text}"))
    })?;
    ctx.worker()
        .update_table(|table| Ok::<_, String>(without_commands(table, module)))
        .map_err(|text| CommandError::new(format!("ERR Error unloading module: {text}")))?;
    load::close(ctx, module);
    if !events::are_changes_told() {
        // It makes a table with fewer programs, which has room.
        let _ = ctx.worker().update_table(guarded::as_told);
    }
    events::module_changed(ctx, module, false);

    ctx.reply.ok();
    Ok(())
}

/// A table without the commands of a module.
fn without_commands(table: &CommandTable, module: &'static Module) -> CommandTable {
    let entries = module.commands().into_iter().filter(|command| !command.is_subcommand);
    let ids: Vec<_> =
        entries.filter_map(|command| table.lookup(command.name.as_bytes())).map(|entry| entry.id).collect();
    table.without(&ids)
}

const LIST: Command =
    Command::session("list", 2, &(list as SessionHandler)).flags(flag::ADMIN | flag::NOSCRIPT).docs(
        Docs::new("server", "4.0.0", "Lists the loaded modules")
            .complexity("O(N) where N is the number of loaded modules.")
            .tips(&["nondeterministic_output_order"]),
    );

/// MODULE LIST. Reply: array of maps: name, version, path and arguments. Built-in modules are not shown. O(modules).
fn list(ctx: &mut SessionCtx<'_>) -> CommandResult {
    list_loaded(&mut ctx.reply);
    Ok(())
}

/// Replies with what MODULE LIST shows.
pub fn list_loaded(reply: &mut Reply<'_>) {
    let modules = module::loaded();

    reply.array(modules.len());
    for module in modules {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(module.name().to_bytes());
        reply.bulk(b"ver");
        reply.integer(module.version().into());
        reply.bulk(b"path");
        reply.bulk(&module.path);
        reply.bulk(b"args");
        reply.bulk_array(&module.args);
    }
}

const HELP: Command = Command::session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "5.0.0", "Explains the subcommands").complexity("O(1)"));

/// MODULE HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "MODULE",
        &[
            "LIST",
            "    Show the loaded modules.",
            "LOAD <path> [<arg> ...]",
            "    Load a module, and pass it these arguments.",
            "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
            "    Load a module, and set its configuration before.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    );
    Ok(())
}
