//! Finds the row that a request calls, with Redis' errors for requests that call none.

use crate::command::CommandError;
use crate::command::table::{CommandEntry, CommandTable, Resolved, Run};
use crate::protocol::{Argv, until_nul};

/// How much of an unknown command's name, and of its arguments together, the error repeats.
const UNKNOWN_ECHO_BYTES_MAX: usize = 128;

/// The row that a request calls.
///
/// # Errors
/// Unknown command or subcommand, a container without subcommand, wrong number of arguments.
#[inline]
pub fn resolve<'t>(table: &'t CommandTable, args: Argv<'_>) -> Result<&'t CommandEntry, CommandError> {
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

/// The row that a request names, whether the request is valid or not.
pub fn named<'t>(table: &'t CommandTable, args: Argv<'_>) -> Option<&'t CommandEntry> {
    match table.resolve(args) {
        Resolved::Command(entry) => Some(entry),
        Resolved::UnknownSubcommand(_) | Resolved::Unknown => None,
    }
}

/// The error for a name that no command has.
#[cold]
pub fn unknown(args: Argv<'_>) -> CommandError {
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

/// The error for a subcommand that this container does not have.
#[cold]
pub fn unknown_subcommand(container: &CommandEntry, args: Argv<'_>) -> CommandError {
    let sub = clipped(args.arg(1), UNKNOWN_ECHO_BYTES_MAX);
    let container = container.full_name.to_ascii_uppercase();
    CommandError::quoting("ERR unknown subcommand '", sub, &format!("'. Try {container} HELP."))
}

/// The first bytes of client input for an error text: up to a NUL, as C prints them.
fn clipped(bytes: &[u8], len_max: usize) -> &[u8] {
    until_nul(&bytes[..bytes.len().min(len_max)])
}
