//! COMMAND: what commands there are. Everything comes from the rows.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::keys::{self, BeginSearch, FindKeys, KeySpec, key_flag, legacy_range};
use crate::command::table::{Command, CommandEntry, CommandTable, Resolved, acl, flag};
use crate::command::{CommandError, CommandResult, syntax};
use crate::modules::owner;
use crate::protocol::Reply;
use crate::session::session;
use crate::types::glob::glob_matches_nocase;
use crate::worker::{SessionCtx, SessionHandler};

pub const COMMANDS: &[Command] = &[session("command", -1, &(all as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::CONNECTION)
    .with_subcommands(SUBCOMMANDS)
    .docs(
        Docs::new("server", "2.8.13", "Describes all commands")
            .complexity("O(N), N: number of commands")
            .tips(&["nondeterministic_output_order"]),
    )];

const SUBCOMMANDS: &[Command] = &[
    sub("count", 2, &(count as SessionHandler))
        .constant_time()
        .docs(Docs::new("server", "2.8.13", "Counts the commands").complexity("O(1)")),
    sub("docs", -2, &(docs as SessionHandler)).docs(
        Docs::new("server", "7.0.0", "Returns the documentation of commands")
            .complexity("O(N), N: number of commands")
            .arguments("[command-name...]")
            .tips(&["nondeterministic_output_order"]),
    ),
    sub("getkeys", -4, &(getkeys as SessionHandler)).docs(
        Docs::new("server", "2.8.13", "Finds the keys in a full command")
            .complexity("O(N), N: number of arguments")
            .arguments("command [arg...]"),
    ),
    sub("getkeysandflags", -4, &(getkeysandflags as SessionHandler)).docs(
        Docs::new("server", "7.0.0", "Finds the keys in a full command, and what is done to them")
            .complexity("O(N), N: number of arguments")
            .arguments("command [arg...]"),
    ),
    sub("help", 2, &(show_help as SessionHandler))
        .constant_time()
        .docs(Docs::new("server", "5.0.0", "Lists the subcommands of COMMAND").complexity("O(1)")),
    sub("info", -2, &(info as SessionHandler)).docs(
        Docs::new("server", "2.8.13", "Describes the named commands, or all")
            .complexity("O(N), N: number of commands")
            .arguments("[command-name...]")
            .history(&[("7.0.0", "Without arguments: all commands")])
            .tips(&["nondeterministic_output_order"]),
    ),
    sub("list", -2, &(list as SessionHandler)).docs(
        Docs::new("server", "7.0.0", "Lists the names of commands")
            .complexity("O(N), N: number of commands")
            .arguments("[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern:pattern>]")
            .tips(&["nondeterministic_output_order"]),
    ),
];

const fn sub(name: &'static str, arity: i32, run: &'static SessionHandler) -> Command {
    session(name, arity, run).flags(flag::LOADING | flag::STALE).acl(acl::CONNECTION)
}

/// COMMAND. Reply: array, a description of every command. O(N).
fn all(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let table = ctx.worker.table;
    ctx.reply.array(table.top_level().count());
    table.top_level().for_each(|entry| describe(table, entry, &mut ctx.reply));
    Ok(())
}

/// COMMAND COUNT. Reply: integer. O(1).
fn count(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.reply.integer(ctx.worker.table.top_level().count() as i64);
    Ok(())
}

/// COMMAND INFO [name ...]. Reply: array, for each name its description, or null. O(N).
fn info(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if ctx.args.len() == 2 {
        return all(ctx);
    }
    let table = ctx.worker.table;
    ctx.reply.array(ctx.args.len() - 2);
    for name in ctx.args.iter().skip(2) {
        match table.by_full_name(name) {
            Some(entry) => describe(table, entry, &mut ctx.reply),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

/// COMMAND DOCS [name ...]. Reply: map from name to documentation; unknown names are left out. O(N).
fn docs(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let table = ctx.worker.table;
    if ctx.args.len() == 2 {
        ctx.reply.map(table.top_level().count());
        table.top_level().for_each(|entry| document(table, entry, &mut ctx.reply));
        return Ok(());
    }
    let known: Vec<&CommandEntry> =
        ctx.args.iter().skip(2).filter_map(|name| table.by_full_name(name)).collect();
    ctx.reply.map(known.len());
    known.into_iter().for_each(|entry| document(table, entry, &mut ctx.reply));
    Ok(())
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]. Reply: array of names. O(N).
fn list(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let table = ctx.worker.table;
    let everything =
        || table.top_level().flat_map(|entry| std::iter::once(entry).chain(table.subcommands(entry)));
    let matches: Box<dyn Fn(&&CommandEntry) -> bool> = match ctx.args.len() {
        2 => Box::new(|_| true),
        5 if args::is(ctx.arg(2), "filterby") => {
            let value = ctx.arg(4);
            if args::is(ctx.arg(3), "module") {
                let name = String::from_utf8_lossy(value).into_owned();
                Box::new(move |entry| {
                    owner(&entry.full_name).is_some_and(|module| module.name().to_string_lossy() == name)
                })
            } else if args::is(ctx.arg(3), "aclcat") {
                let category = acl::NAMES.iter().position(|name| args::is(value, name));
                Box::new(move |entry| {
                    category.is_some_and(|bit| entry.row.acl_categories() & (1 << bit) != 0)
                })
            } else if args::is(ctx.arg(3), "pattern") {
                Box::new(move |entry| glob_matches_nocase(value, entry.full_name.as_bytes()))
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let names: Vec<&str> = everything().filter(matches).map(|entry| entry.full_name.as_str()).collect();
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.as_bytes()));
    Ok(())
}

/// The keys in the command that follows COMMAND GETKEYS.
fn keys_of(ctx: &SessionCtx<'_>) -> CommandResult<(keys::KeyPositions, usize)> {
    let inner = ctx.args.slice(2..);
    let Resolved::Command(entry) = ctx.worker.table.resolve(inner) else {
        return Err(CommandError::fixed("ERR Invalid command specified"));
    };
    let row = entry.row;
    if row.keys.is_empty() && row.find_keys.is_none() {
        return Err(CommandError::fixed("ERR The command has no key arguments"));
    }
    let fits = if row.arity >= 0 {
        inner.len() == row.arity as usize
    } else {
        inner.len() >= row.arity.unsigned_abs() as usize
    };
    if !fits {
        return Err(CommandError::fixed("ERR Invalid number of arguments specified for command"));
    }
    let positions = keys::exact_positions(row, inner).unwrap_or_default();
    if positions.is_empty() {
        if row.has(flag::NO_MANDATORY_KEYS) {
            return Ok((positions, 2));
        }
        return Err(CommandError::fixed("ERR Invalid arguments specified for command"));
    }
    Ok((positions, 2))
}

/// COMMAND GETKEYS command [arg ...]. Reply: array of keys. Errors: see the texts. O(N).
fn getkeys(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (positions, offset) = keys_of(ctx)?;
    ctx.reply.array(positions.len());
    for (at, _) in positions {
        ctx.reply.bulk(ctx.args.arg(offset + at));
    }
    Ok(())
}

/// COMMAND GETKEYSANDFLAGS command [arg ...]. Reply: array of pairs, key and flags. O(N).
fn getkeysandflags(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (positions, offset) = keys_of(ctx)?;
    ctx.reply.array(positions.len());
    for (at, flags) in positions {
        ctx.reply.array(2);
        ctx.reply.bulk(ctx.args.arg(offset + at));
        write_flags(flags.into(), KEY_FLAGS, &mut ctx.reply);
    }
    Ok(())
}

/// COMMAND HELP. Reply: array of lines. O(1).
fn show_help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    );
    Ok(())
}

/// Flags as COMMAND INFO names them, in its order. The others are Redis' own affair and are not shown there.
const FLAGS: &[(u64, &str)] = &[
    (flag::WRITE, "write"),
    (flag::READONLY, "readonly"),
    (flag::DENYOOM, "denyoom"),
    (flag::MODULE, "module"),
    (flag::ADMIN, "admin"),
    (flag::PUBSUB, "pubsub"),
    (flag::NOSCRIPT, "noscript"),
    (flag::BLOCKING, "blocking"),
    (flag::LOADING, "loading"),
    (flag::STALE, "stale"),
    (flag::SKIP_MONITOR, "skip_monitor"),
    (flag::SKIP_SLOWLOG, "skip_slowlog"),
    (flag::ASKING, "asking"),
    (flag::FAST, "fast"),
    (flag::NO_AUTH, "no_auth"),
    (flag::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (flag::NO_ASYNC_LOADING, "no_async_loading"),
    (flag::NO_MULTI, "no_multi"),
    (flag::MOVABLEKEYS, "movablekeys"),
    (flag::ALLOW_BUSY, "allow_busy"),
];

const KEY_FLAGS: &[(u64, &str)] = &[
    (key_flag::RO as u64, "RO"),
    (key_flag::RW as u64, "RW"),
    (key_flag::OW as u64, "OW"),
    (key_flag::RM as u64, "RM"),
    (key_flag::ACCESS as u64, "access"),
    (key_flag::UPDATE as u64, "update"),
    (key_flag::INSERT as u64, "insert"),
    (key_flag::DELETE as u64, "delete"),
    (key_flag::NOT_KEY as u64, "not_key"),
    (key_flag::INCOMPLETE as u64, "incomplete"),
    (key_flag::VARIABLE_FLAGS as u64, "variable_flags"),
];

fn write_flags(flags: u64, names: &[(u64, &str)], reply: &mut Reply<'_>) {
    let set = names.iter().filter(|(bit, _)| flags & bit != 0);
    reply.set(set.clone().count());
    set.for_each(|(_, name)| reply.simple(name));
}

/// One command as COMMAND INFO has it: ten elements.
fn describe(table: &CommandTable, entry: &CommandEntry, reply: &mut Reply<'_>) {
    let row = entry.row;
    let range = legacy_range(row.keys);
    let (first, last, step) = range.map_or((0, 0, 0), |range| (range.first, range.last, range.step));
    let name = if entry.parent.is_none() { table.name(entry.id) } else { entry.full_name.as_bytes() };
    reply.array(10);
    reply.bulk(name);
    reply.integer(row.arity.into());
    let hidden = if row.is_blocking_by_name() { 0 } else { flag::BLOCKING };
    write_flags(row.flags & !hidden, FLAGS, reply);
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    let categories = acl::NAMES.iter().enumerate().filter(|(bit, _)| row.acl_categories() & (1 << bit) != 0);
    reply.set(categories.clone().count());
    categories.for_each(|(_, name)| reply.simple(&format!("@{name}")));
    reply.set(row.docs.tips.len());
    row.docs.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(row.keys.len());
    row.keys.iter().for_each(|spec| describe_keys(spec, reply));
    // As in Redis: an empty set where there are none, else an array.
    match row.subcommands {
        [] => reply.set(0),
        some => reply.array(some.len()),
    }
    table.subcommands(entry).iter().for_each(|sub| describe(table, sub, reply));
}

fn describe_keys(spec: &KeySpec, reply: &mut Reply<'_>) {
    reply.map(3 + usize::from(!spec.notes.is_empty()));
    if !spec.notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(spec.notes.as_bytes());
    }
    reply.bulk(b"flags");
    write_flags(spec.flags.into(), KEY_FLAGS, reply);
    reply.bulk(b"begin_search");
    let typed = |reply: &mut Reply<'_>, kind: &str, fields: usize| {
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(kind.as_bytes());
        reply.bulk(b"spec");
        reply.map(fields);
    };
    let number = |reply: &mut Reply<'_>, name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    };
    match spec.begin {
        BeginSearch::Index(index) => {
            typed(reply, "index", 1);
            number(reply, "index", index as i64);
        }
        BeginSearch::Keyword { keyword, from } => {
            typed(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            number(reply, "startfrom", from as i64);
        }
        BeginSearch::Unknown => typed(reply, "unknown", 0),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            typed(reply, "range", 3);
            number(reply, "lastkey", last as i64);
            number(reply, "keystep", step as i64);
            number(reply, "limit", limit as i64);
        }
        FindKeys::KeyNum { at, first, step } => {
            typed(reply, "keynum", 3);
            number(reply, "keynumidx", at as i64);
            number(reply, "firstkey", first as i64);
            number(reply, "keystep", step as i64);
        }
        FindKeys::Unknown => typed(reply, "unknown", 0),
    }
}

/// One command as COMMAND DOCS has it: its name, then a map.
fn document(table: &CommandTable, entry: &CommandEntry, reply: &mut Reply<'_>) {
    let docs = &entry.row.docs;
    let arguments = match docs.argument_tree {
        [] => syntax::parse(docs.arguments).expect("a test parses all rows"),
        tree => tree.to_vec(),
    };
    let subcommands = table.subcommands(entry);
    let name = if entry.parent.is_none() { table.name(entry.id) } else { entry.full_name.as_bytes() };
    reply.bulk(name);
    let module = owner(&entry.full_name);
    let field_count = 1
        + usize::from(!docs.summary.is_empty())
        + usize::from(!docs.since.is_empty())
        + usize::from(!docs.complexity.is_empty())
        + usize::from(module.is_some())
        + usize::from(docs.is_internal)
        + 3 * usize::from(docs.deprecated.is_some())
        + usize::from(!docs.history.is_empty())
        + usize::from(!arguments.is_empty())
        + usize::from(!subcommands.is_empty());
    reply.map(field_count);
    let text = |reply: &mut Reply<'_>, name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    if !docs.summary.is_empty() {
        text(reply, "summary", docs.summary);
    }
    if !docs.since.is_empty() {
        text(reply, "since", docs.since);
    }
    text(reply, "group", docs.group);
    if !docs.complexity.is_empty() {
        text(reply, "complexity", docs.complexity);
    }
    if let Some(module) = module {
        text(reply, "module", &module.name().to_string_lossy());
    }
    let doc_flag = |reply: &mut Reply<'_>, name: &'static str| {
        reply.bulk(b"doc_flags");
        reply.set(1);
        reply.simple(name);
    };
    if docs.is_internal {
        doc_flag(reply, "syscmd");
    }
    if let Some((since, instead)) = docs.deprecated {
        doc_flag(reply, "deprecated");
        text(reply, "deprecated_since", since);
        text(reply, "replaced_by", instead);
    }
    if !docs.history.is_empty() {
        reply.bulk(b"history");
        reply.set(docs.history.len());
        for (version, change) in docs.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        syntax::write(&arguments, reply);
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        subcommands.iter().for_each(|sub| document(table, sub, reply));
    }
}
