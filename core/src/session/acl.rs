//! ACL: the users and what they may do. The rules stand in the acl room; this is the way to it and from it.

use crate::acl::{
    AclLogEntry, DEFAULT_USER, RuleContext, Selector, SetUserError, Users, category, has_blanks, of_category,
};
use crate::call::{AclContext, Forbidden};
use crate::command::args;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, CommandTable, Resolved, acl, flag};
use crate::command::{CommandError, CommandResult};
use crate::config::{AclPubsubDefault, Config};
use crate::protocol::{Argv, Reply};
use crate::runtime::{files, host, log};
use crate::session::session;
use crate::worker::{Globals, SessionCtx, SessionHandler};
use smallvec::SmallVec;
use std::path::Path;

pub const COMMANDS: &[Command] = &[ACL];

const ACL: Command = Command::container(
    "acl",
    &[CAT, DELUSER, DRYRUN, GENPASS, GETUSER, HELP, LIST, LOAD, LOG, SAVE, SETUSER, USERS, WHOAMI],
)
.docs(
    Docs::new("server", "6.0.0", "A container for access control commands")
        .complexity("Depends on subcommand."),
);

const ANYBODY: u64 = flag::NOSCRIPT | flag::LOADING | flag::STALE;
const ADMIN: u64 = flag::ADMIN | ANYBODY;
const CHANGES: u64 = ADMIN | flag::CHANGES_RIGHTS;

/// What rules go by at present.
fn rule_context<'t>(table: &'t CommandTable, config: &Config) -> RuleContext<'t> {
    RuleContext { table, all_channels: config.acl_pubsub_default == AclPubsubDefault::AllChannels }
}

const CAT: Command = session("cat", -2, &(cat as SessionHandler)).flags(ANYBODY).docs(
    Docs::new("server", "6.0.0", "Lists the categories of commands, or the commands of one")
        .complexity("O(1) since the categories and commands are a fixed set.")
        .arguments("[categoryname]"),
);

/// ACL CAT [category]. Reply: array of names. Errors: no such category. O(commands).
fn cat(ctx: &mut SessionCtx<'_>) -> CommandResult {
    match ctx.args.len() {
        2 => ctx.reply.bulk_array(acl::NAMES),
        3 => {
            const SHOWN_BYTES_MAX: usize = 128;
            let name = ctx.arg(2);
            let shown = &name[..name.len().min(SHOWN_BYTES_MAX)];
            let category =
                category(name).ok_or_else(|| CommandError::quoting("ERR Unknown category '", shown, "'"))?;
            let names: Vec<&str> =
                of_category(ctx.worker.table, category).map(|entry| entry.full_name.as_str()).collect();
            ctx.reply.bulk_array(names);
        }
        _ => return Err(CommandError::wrong_subcommand("ACL", ctx.arg(1))),
    }
    Ok(())
}

/// All arguments behind the subcommand.
fn all_secret(args: Argv<'_>) -> SmallVec<[usize; 2]> {
    (2..args.len()).collect()
}

const DELUSER: Command = session("deluser", -3, &(deluser as SessionHandler)).flags(CHANGES).docs(
    Docs::new("server", "6.0.0", "Removes users, and disconnects their clients")
        .complexity("O(1) amortized time considering the typical user.")
        .arguments("username..."),
);

/// ACL DELUSER name ... Reply: integer, how many were there. Errors: the default user is among them. O(clients).
fn deluser(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let names: Vec<&[u8]> = ctx.args.iter().skip(2).collect();
    if names.contains(&DEFAULT_USER) {
        return Err(CommandError::fixed("ERR The 'default' user cannot be removed"));
    }

    let removed = ctx.worker.update_users(ctx.conn, |users| {
        let mut new = users.clone();
        let count = names.iter().filter(|name| new.remove(name)).count();
        Ok::<_, CommandError>((new, count))
    })?;

    ctx.reply.integer(removed as i64);
    Ok(())
}

const DRYRUN: Command = session("dryrun", -4, &(dryrun as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "7.0.0", "Tells whether a user may call a command, without calling it")
        .complexity("O(1).")
        .arguments("username command [arg...]"),
);

/// ACL DRYRUN user command [arg ...]. Reply: OK, or text that says what the user may not. Errors: no such user or command;
/// a wrong number of arguments. O(rules).
fn dryrun(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let (name, args) = (ctx.arg(2), Argv::new(ctx.args.bytes(), &ctx.args.ranges()[3..]));
    let table = ctx.worker.table;
    let user = ctx.worker.users().get(name);
    let user = user.ok_or_else(|| CommandError::quoting("ERR User '", name, "' not found"))?;
    let entry = match table.resolve(args) {
        Resolved::Command(entry) => entry,
        Resolved::UnknownSubcommand(_) | Resolved::Unknown => {
            return Err(CommandError::quoting("ERR Command '", args.arg(0), "' not found"));
        }
    };
    let (arity, len) = (entry.row.arity, args.len() as i32);
    if if arity >= 0 { len != arity } else { len < -arity } {
        return Err(CommandError::wrong_arity(&entry.full_name));
    }

    let denied = user.check(table, entry, args).err();

    let Some(denied) = denied else {
        ctx.reply.ok();
        return Ok(());
    };
    let quoted = |before: &[u8], object: &[u8], after: &[u8]| {
        [b"This user has no permissions to ", before, b" '", object, b"' ", after].concat()
    };
    ctx.reply.bulk(&match denied.what {
        Forbidden::Command | Forbidden::Auth => quoted(b"run the", entry.full_name.as_bytes(), b"command"),
        Forbidden::Key => quoted(b"access the", args.arg(denied.at), b"key"),
        Forbidden::Channel => quoted(b"access the", args.arg(denied.at), b"channel"),
    });
    Ok(())
}

const GENPASS: Command = session("genpass", -2, &(genpass as SessionHandler))
    .flags(ANYBODY)
    .constant_time()
    .docs(Docs::new("server", "6.0.0", "Makes a random password").complexity("O(1)").arguments("[bits:int]"));

const GENPASS_BITS_DEFAULT: i64 = 256;
const GENPASS_BITS_MAX: i64 = 4096;

/// ACL GENPASS [bits]. Reply: hexadecimal digits of so many random bits, rounded up. Errors: a bad number. O(bits).
fn genpass(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let bits = match ctx.args.len() {
        2 => GENPASS_BITS_DEFAULT,
        3 => args::integer(ctx.arg(2))?,
        _ => return Err(CommandError::wrong_subcommand("ACL", ctx.arg(1))),
    };
    if !(1..=GENPASS_BITS_MAX).contains(&bits) {
        return Err(CommandError::fixed(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             4096",
        ));
    }

    const DIGIT_BITS: i64 = 4;
    let mut digits = vec![0; ((bits + DIGIT_BITS - 1) / DIGIT_BITS) as usize];
    host::fill_randomly(&mut digits);
    digits.iter_mut().for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte & 15)]);

    ctx.reply.bulk(&digits);
    Ok(())
}

const GETUSER: Command = session("getuser", 3, &(getuser as SessionHandler))
    .flags(ADMIN)
    .docs(
        Docs::new("server", "6.0.0", "Shows the rules of a user")
            .complexity(
                "O(N). Where N is the number of password, command and pattern rules that the user has.",
            )
            .arguments("username")
            .history(&[
                ("6.2.0", "Added Pub/Sub channel patterns."),
                (
                    "7.0.0",
                    "Added selectors and changed the format of key and channel patterns from a list to their rule \
                     representation.",
                ),
            ]),
    );

/// ACL GETUSER name. Reply: map of its flags, passwords' digests, rules and selectors; null: there is no such user.
/// O(commands).
fn getuser(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let table = ctx.worker.table;
    let Some(user) = ctx.worker.users().get(ctx.arg(2)).cloned() else {
        ctx.reply.null();
        return Ok(());
    };

    let reply = &mut ctx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    let hashes = user.password_hashes();
    reply.array(hashes.len());
    hashes.for_each(|hash| reply.bulk(hash.as_bytes()));
    write_selector(reply, user.root(), table);
    reply.bulk(b"selectors");
    reply.array(user.other_selectors().len());
    for selector in user.other_selectors() {
        reply.map(3);
        write_selector(reply, selector, table);
    }
    Ok(())
}

/// Three fields of a map.
fn write_selector(reply: &mut Reply<'_>, selector: &Selector, table: &CommandTable) {
    reply.bulk(b"commands");
    reply.bulk(selector.command_rules(table).as_bytes());
    reply.bulk(b"keys");
    reply.bulk(&selector.key_rules());
    reply.bulk(b"channels");
    reply.bulk(&selector.channel_rules());
}

const LIST: Command = session("list", 2, &(list as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "6.0.0", "Shows all users as lines of an ACL file")
        .complexity("O(N). Where N is the number of configured users."),
);

/// ACL LIST. Reply: array of lines. O(users x commands).
fn list(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let lines = ctx.worker.users().lines(ctx.worker.table);
    ctx.reply.bulk_array(&lines);
    Ok(())
}

const NO_FILE: CommandError = CommandError::fixed(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
     command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
     users in the Redis configuration.",
);

const LOAD: Command = session("load", 2, &(load as SessionHandler)).flags(CHANGES).docs(
    Docs::new("server", "6.0.0", "Reads the users from the ACL file")
        .complexity("O(N). Where N is the number of configured users."),
);

/// ACL LOAD. Clients of all users but the default one are disconnected. Reply: OK. Errors: there is no file, or something in
/// it is wrong; nothing has changed then. O(file + clients).
fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let config = &ctx.worker.shard.config;
    let Some(path) = acl_file(config) else { return Err(NO_FILE) };
    let rules = rule_context(ctx.worker.table, config);
    let failed = |why: String| CommandError::new(format!("ERR {why}"));
    let text = read_file(&path).map_err(failed)?;

    ctx.worker.update_users(ctx.conn, |users| {
        Ok::<_, CommandError>((users.from_file(&path, &text, rules).map_err(failed)?, ()))
    })?;

    ctx.reply.ok();
    Ok(())
}

/// The path of the ACL file, if there is to be one.
fn acl_file(config: &Config) -> Option<String> {
    (!config.aclfile.is_empty()).then(|| config.aclfile.to_str_lossy().into_owned())
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let no_file = || "No such file or directory".to_string();
    let text = files::read_if_there(Path::new(path)).and_then(|text| text.ok_or_else(no_file));
    text.map_err(|why| format!("Error loading ACLs, opening file '{path}': {why}"))
}

const LOG: Command = session("log", -2, &(show_log as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "6.0.0", "Shows what clients were refused")
        .complexity("O(N) with N being the number of entries shown.")
        .arguments("[operation(count:int | RESET)]"),
);

/// How many entries are shown if ACL LOG does not say.
const LOG_COUNT_DEFAULT: i64 = 10;

/// ACL LOG [count | RESET]. Reply: array of entries, newest first; OK for RESET. Errors: a bad count. O(entries).
fn show_log(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let count = match ctx.args.len() {
        2 => LOG_COUNT_DEFAULT,
        3 if args::is(ctx.arg(2), "reset") => {
            ctx.worker.globals.acl.log().clear();
            ctx.reply.ok();
            return Ok(());
        }
        3 => args::integer(ctx.arg(2))?.max(0),
        _ => return Err(CommandError::wrong_subcommand("ACL", ctx.arg(1))),
    };
    let now_ms = ctx.worker.shard.now_ms;

    let log = ctx.worker.globals.acl.log();
    let shown = log.iter().len().min(count as usize);
    ctx.reply.array(shown);
    for entry in log.iter().take(shown) {
        write_entry(&mut ctx.reply, entry, now_ms);
    }
    Ok(())
}

fn write_entry(reply: &mut Reply<'_>, entry: &AclLogEntry, now_ms: i64) {
    reply.map(7);
    reply.bulk(b"count");
    reply.integer(entry.count as i64);
    reply.bulk(b"reason");
    reply.bulk(match entry.what {
        Forbidden::Command => b"command",
        Forbidden::Key => b"key",
        Forbidden::Auth => b"auth",
        Forbidden::Channel => b"channel",
    });
    reply.bulk(b"context");
    reply.bulk(match entry.context {
        AclContext::TopLevel => b"toplevel",
        AclContext::Multi => b"multi",
        AclContext::Lua => b"lua",
        AclContext::Module => b"module",
    });
    reply.bulk(b"object");
    reply.bulk(&entry.object);
    reply.bulk(b"username");
    reply.bulk(&entry.user);
    reply.bulk(b"age-seconds");
    reply.double((now_ms - entry.at_ms) as f64 / 1000.0);
    reply.bulk(b"client-info");
    reply.bulk(&entry.client);
}

const SAVE: Command = session("save", 2, &(save as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "6.0.0", "Writes the users to the ACL file")
        .complexity("O(N). Where N is the number of configured users."),
);

/// ACL SAVE. Reply: OK. Errors: there is no file; it cannot be written. O(users x commands).
fn save(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let Some(path) = acl_file(&ctx.worker.shard.config) else { return Err(NO_FILE) };
    let mut text = Vec::new();
    for line in ctx.worker.users().lines(ctx.worker.table) {
        text.extend_from_slice(&line);
        text.push(b'\n');
    }

    files::replace(Path::new(&path), &text).map_err(|why| {
        log::warning(format_args!("Writing the ACL file '{path}' failed: {why}"));
        CommandError::fixed(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        )
    })?;

    ctx.reply.ok();
    Ok(())
}

const SETUSER: Command =
    session("setuser", -3, &(setuser as SessionHandler)).flags(CHANGES).secrets(all_secret).docs(
        Docs::new("server", "6.0.0", "Creates a user, or changes its rules")
            .complexity("O(N). Where N is the number of rules provided.")
            .arguments("username [rule...]")
            .history(&[
                ("6.2.0", "Added Pub/Sub channel patterns."),
                ("7.0.0", "Added selectors and key based permissions."),
            ]),
    );

/// ACL SETUSER name [rule ...]. All rules or none take effect, at one moment on all shards. Reply: OK. Errors: a bad name or
/// rule. O(rules x commands).
fn setuser(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let name = ctx.arg(2);
    if has_blanks(name) {
        return Err(CommandError::fixed("ERR Usernames can't contain spaces or null characters"));
    }
    let rules: Vec<&[u8]> = ctx.args.iter().skip(3).collect();
    let rule_context = rule_context(ctx.worker.table, &ctx.worker.shard.config);

    let changed = ctx.worker.update_users(ctx.conn, |users| {
        let mut new = users.clone();
        new.set_user(name, &rules, rule_context)?;
        Ok((new, ()))
    });
    changed.map_err(|error: SetUserError| CommandError::new([b"ERR ", error.text().as_slice()].concat()))?;

    ctx.reply.ok();
    Ok(())
}

const USERS: Command = session("users", 2, &(users as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "6.0.0", "Lists the names of all users")
        .complexity("O(N). Where N is the number of configured users."),
);

/// ACL USERS. Reply: array of names, in order. O(users).
fn users(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let users = ctx.worker.users();
    ctx.reply.array(users.iter().len());
    for user in users.iter() {
        ctx.reply.bulk(&user.name);
    }
    Ok(())
}

const WHOAMI: Command = session("whoami", 2, &(whoami as SessionHandler))
    .flags(ANYBODY)
    .constant_time()
    .docs(Docs::new("server", "6.0.0", "Answers the name of the connection's user").complexity("O(1)"));

/// ACL WHOAMI. Reply: name. O(1).
fn whoami(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let name = ctx.client().user().name.clone();
    ctx.reply.bulk(&name);
    Ok(())
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "6.0.0", "Explains the subcommands").complexity("O(1)"));

/// ACL HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "ACL",
        &[
            "CAT [<category>]",
            "    List the categories of commands, or the commands of <category>.",
            "DELUSER <username> [<username> ...]",
            "    Remove users, and disconnect their clients.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Tell whether a user may call a command, without calling it.",
            "GETUSER <username>",
            "    Show the rules of a user.",
            "GENPASS [<bits>]",
            "    Make a random password of 256 bits, or of <bits>.",
            "LIST",
            "    Show all users as lines of an ACL file.",
            "LOAD",
            "    Read the users from the ACL file.",
            "LOG [<count> | RESET]",
            "    Show what clients were refused.",
            "SAVE",
            "    Write the users to the ACL file.",
            "SETUSER <username> <attribute> [<attribute> ...]",
            "    Create a user, or change its rules.",
            "USERS",
            "    List the names of all users.",
            "WHOAMI",
            "    Answer the name of the connection's user.",
        ],
    );
    Ok(())
}

/// At the start: makes the users of the configuration, or of the ACL file.
///
/// # Errors
/// The operator's line.
pub fn configure_users(globals: &'static Globals) -> Result<(), String> {
    let ((_, config), (_, table)) = (globals.config(), globals.table());
    let rules = rule_context(table, &config);
    let file = acl_file(&config);
    if file.is_some() && !config.users.is_empty() {
        return Err("Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is \
                    invalid. This setup is very likely to lead to configuration errors and security holes, please \
                    define either an ACL file or declare users directly in your redis.conf, but not both."
            .to_string());
    }
    let aborting = |why: String| format!("Aborting Redis startup because of ACL errors: {why}");
    globals.acl.update(|users| {
        let mut new = users.clone();
        new.set_default_password(config.requirepass.as_bytes());
        match &file {
            Some(path) => {
                let text = read_file(path).map_err(aborting)?;
                new = new.from_file(path, &text, rules).map_err(aborting)?;
            }
            None => new.add_configured(&config.users, rules)?,
        }
        Ok((new, ()))
    })
}

/// The `user` lines that a configuration file is to have.
pub(super) fn config_lines(config: &Config, users: &Users, table: &CommandTable) -> Vec<Vec<u8>> {
    // Those of the ACL file have no place there.
    if config.aclfile.is_empty() && !users.is_untouched() { users.lines(table) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    #[test]
    fn nothing_that_setuser_is_told_is_kept_in_logs() {
        let args = OwnedArgv::from_slices(&["ACL", "SETUSER", "u", ">secret", "on"]);
        assert_eq!((SETUSER.secrets)(args.as_argv())[..], [2, 3, 4]);
    }
}
