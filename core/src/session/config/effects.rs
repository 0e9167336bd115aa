//! What the server does when CONFIG SET has changed a directive, besides reading the new value from then on.

use crate::config::{Config, SideEffect, Why, expand_proc_title};
use crate::runtime::host;
use crate::runtime::listener::{ListenError, Wanted};
use crate::runtime::tls::Tls;
use crate::runtime::{crash, files, listener, log, title};
use crate::shard::message::Listeners;
use crate::worker::Worker;
use crate::worker::aof::Aof;
use std::convert::Infallible;

/// Does the work that leads from one configuration to another; `to` may be corrected by what was found. The error is
/// what the client reads, in Redis' words; nothing has changed then.
pub fn apply(worker: &mut Worker, effect: SideEffect, from: &Config, to: &mut Config) -> Result<(), Why> {
    match effect {
        SideEffect::Listen => listen(worker, from, to),
        SideEffect::ChangeDir => change_dir(to),
        SideEffect::MaxClients => max_clients(worker, to),
        SideEffect::OomScoreAdj => oom_score(to, worker.shard.is_replica),
        SideEffect::ProcTitle => {
            proc_title(to, &worker.globals.executable);
            Ok(())
        }
        SideEffect::LogLevel => {
            log::set_level(to.loglevel.into());
            Ok(())
        }
        SideEffect::ExitOnPanic => {
            crash::set_exit_on_panic(to.use_exit_on_panic);
            Ok(())
        }
        SideEffect::DefaultPassword => {
            set_default_password(worker, to);
            Ok(())
        }
        SideEffect::Tls => reload_tls(worker, to),
        SideEffect::AppendOnly => {
            append_only(worker, from, to);
            Ok(())
        }
    }
}

/// Gives the default user the new password. The caller has all shards take the users over.
fn set_default_password(worker: &Worker, to: &Config) {
    let changed = worker.globals.acl.update(|users| {
        let mut new = users.clone();
        new.set_default_password(to.requirepass.as_bytes());
        Ok::<_, Infallible>((new, ()))
    });
    match changed {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// Begins the append-only file with a rewrite, or ends it.
fn append_only(worker: &Worker, from: &Config, to: &Config) {
    match (from.appendonly, to.appendonly) {
        (false, true) => Aof::turn_on(worker.globals, worker.clock()),
        (true, false) => Aof::turn_off(worker.globals),
        (true, true) | (false, false) => {}
    }
}

/// Binds before anything is given up, so that a failure leaves the server where it can be reached. The accepting shard
/// changes over to the new sockets at its next turn.
fn listen(worker: &mut Worker, from: &Config, to: &Config) -> Result<(), Why> {
    let globals = worker.globals;
    if from.tls_port != to.tls_port && !globals.tls.is_configured() {
        configure_tls(worker, to)?;
    }
    let addresses = to.bind.to_strings();
    let wanted = Wanted::of(to, &addresses);
    let listeners = globals.change_listeners(|old| {
        let old: Vec<_> = old.tcp.iter().chain(&old.tls).collect();
        let (tcp, tls) = listener::both_instead(&old, wanted)?;
        listener::mark(tcp.iter().chain(&tls), to.socket_mark_id);
        Ok::<_, ListenError>(Listeners { tcp, tls })
    });
    match listeners {
        Ok(listeners) => {
            worker.listen(listeners);
            Ok(())
        }
        Err(_) if (from.port, from.tls_port) != (to.port, to.tls_port) => {
            Err("Unable to listen on this port. Check server logs.".into())
        }
        Err(_) => Err("Failed to bind to specified addresses.".into()),
    }
}

/// Reads certificates and keys anew, if TLS is used.
fn reload_tls(worker: &Worker, to: &Config) -> Result<(), Why> {
    if Tls::is_wanted(to) { configure_tls(worker, to) } else { Ok(()) }
}

fn configure_tls(worker: &Worker, to: &Config) -> Result<(), Why> {
    worker.globals.tls.configure(to).map_err(|error| {
        log::warning(format_args!("{error}"));
        "Unable to update TLS configuration. Check server logs.".into()
    })
}

fn change_dir(to: &mut Config) -> Result<(), Why> {
    files::change_dir(&to.dir.to_str_lossy())?;
    if let Ok(dir) = std::env::current_dir() {
        to.dir = dir.as_path().into();
    }
    Ok(())
}

fn max_clients(worker: &Worker, to: &Config) -> Result<(), Why> {
    let possible = files::raise_open_files_limit(to.maxclients, worker.shard.shard_count).unwrap_or(0);
    if possible < to.maxclients {
        return Err(format!(
            "The operating system is not able to handle the specified number of clients, try with {possible}"
        )
        .into());
    }
    Ok(())
}

/// Tells the kernel how willingly this process may be killed to win memory. Also done at the start.
pub fn oom_score(config: &Config, is_replica: bool) -> Result<(), Why> {
    match host::follow_oom_score(config, is_replica) {
        true => Ok(()),
        false => Err("Failed to set current oom_score_adj. Check server logs.".into()),
    }
}

/// Shows the title in `ps`. Also done at the start.
pub fn proc_title(config: &Config, executable: &str) {
    if config.set_proc_title
        && let Some(text) = expand_proc_title(config, executable.as_bytes())
    {
        title::set(&text);
    }
}
