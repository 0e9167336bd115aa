//! The checks before a command runs, in Redis' order. Pure: they read the row, the session and the
//! configuration, and say what to do.

use crate::client::Client;
use crate::command::CommandError;
use crate::command::table::{Command, CommandTable, Entry, Resolved, Run, Scope, flag};
use crate::config::{Config, ProtectedAccess};
use crate::protocol::{Argv, until_nul};

/// How much of an unknown command's name, and of its arguments together, the error repeats.
const UNKNOWN_ECHO_BYTES_MAX: usize = 128;

/// The row which a request calls.
///
/// # Errors
/// Unknown command or subcommand, a container without subcommand, wrong number of arguments.
#[inline]
pub fn resolve<'t>(table: &'t CommandTable, args: Argv<'_>) -> Result<&'t Entry, CommandError> {
    let entry = match table.resolve(args) {
        Resolved::Command(entry) => entry,
        Resolved::UnknownSubcommand(container) => return Err(unknown_subcommand(container, args)),
        Resolved::Unknown => return Err(unknown(args)),
    };
    let arity_fits = if entry.row.arity >= 0 {
        args.len() == entry.row.arity as usize
    } else {
        args.len() >= entry.row.arity.unsigned_abs() as usize
    };
    if !arity_fits || matches!(entry.row.run, Run::Container) {
        return Err(CommandError::wrong_arity(&entry.full_name));
    }
    Ok(entry)
}

/// The row that a request names, be it called rightly or not.
pub fn named<'t>(table: &'t CommandTable, args: Argv<'_>) -> Option<&'t Entry> {
    match table.resolve(args) {
        Resolved::Command(entry) => Some(entry),
        Resolved::UnknownSubcommand(_) | Resolved::Unknown => None,
    }
}

#[cold]
fn unknown(args: Argv<'_>) -> CommandError {
    let mut echo = Vec::new();
    for arg in args.iter().skip(1) {
        if echo.len() >= UNKNOWN_ECHO_BYTES_MAX {
            break;
        }
        let shown = clipped(arg, UNKNOWN_ECHO_BYTES_MAX - echo.len());
        echo.push(b'\'');
        echo.extend_from_slice(shown);
        echo.extend_from_slice(b"' ");
    }
    let name = clipped(args.arg(0), UNKNOWN_ECHO_BYTES_MAX);
    CommandError::new([b"ERR unknown command '", name, b"', with args beginning with: ", &echo].concat())
}

#[cold]
fn unknown_subcommand(container: &Entry, args: Argv<'_>) -> CommandError {
    let sub = clipped(args.arg(1), UNKNOWN_ECHO_BYTES_MAX);
    let container = container.full_name.to_ascii_uppercase();
    CommandError::quoting("ERR unknown subcommand '", sub, &format!("'. Try {container} HELP."))
}

/// The first bytes of client input for an error text: up to a NUL, as C prints them.
fn clipped(bytes: &[u8], len_max: usize) -> &[u8] {
    until_nul(&bytes[..bytes.len().min(len_max)])
}

/// Whether the session may call the command now.
///
/// # Errors
/// NOAUTH; a protected command that the configuration does not allow this client; OOM, where `over_memory`; NOREPLICAS,
/// where there are fewer `good_replicas` than a write needs.
#[inline]
pub fn check(
    row: &Command,
    client: &Client,
    config: &Config,
    over_memory: impl FnOnce() -> bool,
    good_replicas: impl FnOnce() -> usize,
) -> Result<(), CommandError> {
    // A password that has been taken away is not asked for, also of those who came while there was one.
    if !client.authenticated && !row.has(flag::NO_AUTH) && !config.requirepass.is_empty() {
        return Err(CommandError::NO_AUTH);
    }
    if row.has(flag::PROTECTED) && !protected_allowed(config.enable_debug_command, client) {
        return Err(not_allowed(row.name));
    }
    if config.maxmemory_bytes != 0 && takes_memory(row, client) && over_memory() {
        return Err(CommandError::OUT_OF_MEMORY);
    }
    if needs_replicas(config)
        && flags_with_queue(row, client) & flag::WRITE != 0
        && good_replicas() < config.min_replicas_to_write as usize
    {
        return Err(CommandError::NO_REPLICAS);
    }
    Ok(())
}

/// Whether writes are refused without replicas.
#[inline]
pub fn needs_replicas(config: &Config) -> bool {
    config.min_replicas_to_write != 0 && config.min_replicas_max_lag_s != 0
}

/// The flags of a command; those of an EXEC are the flags of all that it runs, too.
pub fn flags_with_queue(row: &Command, client: &Client) -> u64 {
    match client.multi.as_deref() {
        Some(multi) if matches!(row.scope, Scope::Exec) => row.flags | multi.flags,
        Some(_) | None => row.flags,
    }
}

/// Whether a command is refused when there is no memory left. To be queued takes some, whatever the command; an EXEC
/// takes what its queue takes.
fn takes_memory(row: &Command, client: &Client) -> bool {
    let is_queued =
        client.multi.is_some() && !matches!(row.scope, Scope::Exec) && !row.has(flag::RUNS_IN_MULTI);
    is_queued || flags_with_queue(row, client) & flag::DENYOOM != 0
}

pub fn protected_allowed(access: ProtectedAccess, client: &Client) -> bool {
    match access {
        ProtectedAccess::No => false,
        ProtectedAccess::Yes => true,
        ProtectedAccess::Local => client.is_local(),
    }
}

#[cold]
fn not_allowed(name: &str) -> CommandError {
    CommandError::new(format!(
        "ERR {upper} command not allowed. If the enable-{name}-command option is set to \"local\", you can run \
         it from a local connection, otherwise you need to set this option in the configuration file, and then \
         restart the server.",
        upper = name.to_ascii_uppercase(),
    ))
}
