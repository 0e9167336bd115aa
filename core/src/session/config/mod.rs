//! CONFIG: reading and changing the directives of the running server, and writing them to its file.
//!
//! The rules stand in the config room; this is the way to it and from it. CONFIG SET works on the shard of its client,
//! under the configuration's lock, and all shards see the result at their next turn.

pub mod effects;

use crate::command::admission::protected_allowed;
use crate::command::docs::Docs;
use crate::command::handlers::help::reply_help;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, flag};
use crate::command::{CommandError, CommandResult};
use crate::config::{
    Append, Caller, Config, Flags, SetError, lookup, rewrite, rewrite_modules, rewrite_users,
};
use crate::modules::events::config_changed;
use crate::modules::settings;
use crate::protocol::Argv;
use crate::runtime::{files, log};
use crate::session::acl::config_lines;
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler, Worker};
use smallvec::SmallVec;

pub const COMMANDS: &[Command] = &[CONFIG];

const CONFIG: Command = Command::container("config", &[GET, HELP, RESETSTAT, REWRITE, SET]).docs(
    Docs::new("server", "2.0.0", "A container for server configuration commands")
        .complexity("Depends on subcommand."),
);

const ADMIN: u64 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

const GET: Command = session("get", -3, &(get as SessionHandler)).flags(ADMIN).docs(
    Docs::new("server", "2.0.0", "Shows the values of configuration parameters")
        .complexity("O(N) when N is the number of configuration parameters provided")
        .arguments("parameter{parameter}...")
        .history(&[("7.0.0", "Added the ability to pass multiple pattern parameters in one call")]),
);

/// CONFIG GET pattern ... Reply: map of names and values. O(directives x patterns).
fn get(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let patterns: Vec<&[u8]> = ctx.args.iter().skip(2).collect();

    let mut found = ctx.worker.shard.config.get_matching(&patterns);
    found.extend(settings::get_matching(&patterns));

    ctx.reply.map(found.len());
    for (name, value) in &found {
        ctx.reply.bulk(name);
        ctx.reply.bulk(value);
    }
    Ok(())
}

const SET: Command = session("set", -4, &(set as SessionHandler)).flags(ADMIN).secrets(set_secrets).docs(
    Docs::new("server", "2.0.0", "Changes configuration parameters, all of them or none")
        .complexity("O(N) when N is the number of configuration parameters provided")
        .arguments("parameter_value{parameter value}...")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .history(&[("7.0.0", "Added the ability to set multiple parameters in one call.")]),
);

/// The values of directives that are passwords.
fn set_secrets(args: Argv<'_>) -> SmallVec<[usize; 2]> {
    let is_secret = |name: &[u8]| lookup(name).is_some_and(|row| row.flags.contains(Flags::SENSITIVE));
    (3..args.len()).step_by(2).filter(|&value| is_secret(args.arg(value - 1))).collect()
}

/// CONFIG SET parameter value ... Reply: OK. Errors: Redis' for each rule that is broken; nothing has changed then.
fn set(ctx: &mut SessionCtx<'_>) -> CommandResult {
    if !ctx.args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let args = ctx.args;
    let pairs: Vec<(&[u8], &[u8])> =
        (2..args.len()).step_by(2).map(|at| (args.arg(at), args.arg(at + 1))).collect();
    let access = ctx.worker.shard.config.enable_protected_configs;
    let caller = Caller {
        may_set_protected: protected_allowed(access, &ctx.client().caller()),
        is_loading: ctx.worker.globals.persistence.loading.is_under_way(),
    };

    let worker = &mut *ctx.worker;
    let globals = worker.globals;
    let (of_modules, own): (Vec<_>, Vec<_>) = pairs.iter().partition(|(name, _)| settings::is_known(name));
    let reply_of = |error: SetError| CommandError::new(error.reply());
    let changing = settings::change(&of_modules, caller.may_set_protected).map_err(reply_of)?;
    let changed = globals.update_config(|config| {
        config.stage(&own, caller)?.apply(|effect, from, to| effects::apply(worker, effect, from, to))
    });
    changed.map_err(reply_of)?;
    changing.keep(worker).map_err(reply_of)?;
    // What this client sends next, even in the same packet, finds the new values.
    worker.adopt_config();
    worker.spread_users(ctx.conn);
    let names: Vec<&[u8]> = pairs.iter().map(|(name, _)| *name).collect();
    config_changed(worker, &names);

    ctx.reply.ok();
    Ok(())
}

const RESETSTAT: Command = session("resetstat", 2, &(resetstat as SessionHandler))
    .flags(ADMIN)
    .scope(Scope::Every(KeyspaceLock::None))
    .merge(Merge::AllOk)
    .constant_time()
    .docs(Docs::new("server", "2.0.0", "Sets the counters of INFO back to zero").complexity("O(1)"));

/// CONFIG RESETSTAT. Reply: OK. O(commands).
fn resetstat(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.shard.stats.reset();
    ctx.worker.globals.scripts.scripts.reset_evicted();
    ctx.worker.globals.link.reset_input_bytes();
    ctx.reply.ok();
    Ok(())
}

const REWRITE: Command =
    session("rewrite", 2, &(rewrite_command as SessionHandler)).flags(ADMIN).constant_time().docs(
        Docs::new("server", "2.8.0", "Writes the configuration to the file it was read from")
            .complexity("O(1)"),
    );

/// CONFIG REWRITE. Reply: OK. Errors: there is no file; it cannot be written.
fn rewrite_command(ctx: &mut SessionCtx<'_>) -> CommandResult {
    rewrite_file(&ctx.worker.shard.config, &user_lines(ctx.worker), Append::Changed)?;
    ctx.reply.ok();
    Ok(())
}

/// The `user` lines that a configuration file is to have.
pub(super) fn user_lines(worker: &Worker) -> Vec<Vec<u8>> {
    config_lines(&worker.shard.config, worker.users(), worker.table)
}

/// Brings the configuration file up to date. What it says already is left as it is. `users`: its lines about users.
pub(super) fn rewrite_file(config: &Config, users: &[Vec<u8>], append: Append) -> CommandResult {
    if config.config_file.is_empty() {
        return Err(CommandError::fixed("ERR The server is running without a config file"));
    }
    let path = config.config_file.as_path();
    let rewritten = files::read_if_there(path).and_then(|old| {
        let text = rewrite(&old.unwrap_or_default(), config, append);
        let text = rewrite_modules(&rewrite_users(&text, users), &settings::lines());
        files::replace(path, &text)
    });
    match rewritten {
        Ok(()) => {
            log::notice(format_args!("CONFIG REWRITE executed with success."));
            Ok(())
        }
        Err(why) => {
            log::warning(format_args!("CONFIG REWRITE failed: {why}"));
            Err(CommandError::new(format!("ERR Rewriting config file: {why}")))
        }
    }
}

const HELP: Command = session("help", 2, &(help as SessionHandler))
    .flags(flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "5.0.0", "Explains the subcommands").complexity("O(1)"));

/// CONFIG HELP. Reply: array of lines. O(1).
fn help(ctx: &mut SessionCtx<'_>) -> CommandResult {
    reply_help(
        &mut ctx.reply,
        "CONFIG",
        &[
            "GET <pattern> [<pattern> ...]",
            "    Show the parameters that match a glob-style <pattern>, and their values.",
            "SET <directive> <value> [<directive> <value> ...]",
            "    Change parameters, all of them or none.",
            "RESETSTAT",
            "    Set the counters of INFO back to zero.",
            "REWRITE",
            "    Write the configuration to its file.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    #[test]
    fn passwords_are_secrets_and_other_values_are_not() {
        let args = OwnedArgv::from_slices(&["CONFIG", "SET", "hz", "10", "RequirePass", "pw", "nosuch", "x"]);
        assert_eq!(set_secrets(args.as_argv())[..], [5]);
    }

    #[test]
    fn without_a_file_there_is_nothing_to_rewrite() {
        let error = rewrite_file(&Config::default(), &[], Append::Changed).unwrap_err();
        assert_eq!(error.text(), "ERR The server is running without a config file");
    }

    #[test]
    fn a_rewritten_file_says_what_the_configuration_says() {
        let path = std::env::temp_dir().join(format!("shardis-rewrite-{}", std::process::id()));
        std::fs::write(&path, "# mine\nhz 10\n").unwrap();
        let config = Config { config_file: path.as_path().into(), hz: 20, ..Config::default() };

        rewrite_file(&config, &[], Append::Changed).unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\nhz 20\n");
        std::fs::remove_file(&path).unwrap();
        rewrite_file(&config, &[], Append::Changed).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\nhz 20\n"), "a lost file is made anew");
        std::fs::remove_file(&path).unwrap();
    }
}
