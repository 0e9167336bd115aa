//! A command that must not fail has failed: the master's on a replica, one of an append-only file, or one of a replica, which has
//! none to call. The data sets of the two sides may not be the same any more. What happens then is up to
//! `propagation-error-behavior`.

use crate::config::PropagationErrorBehavior;
use crate::runtime::log;
use crate::worker::Globals;

/// How much of the backlog the log shows.
const SHOWN_BYTES: u64 = 256;

/// Who has sent the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    Master,
    Replica,
    File,
}

/// Writes the log, and ends the process if it is to. `name`: of the command, if there is such a one. `error`: its text.
pub fn tell(globals: &Globals, sender: Sender, name: Option<&str>, error: &str) {
    let (to, from) = match sender {
        Sender::Master => ("master", "replica"),
        Sender::Replica => ("replica", "master"),
        Sender::File => ("AOF-loading-client", "server"),
    };
    let name = name.unwrap_or("<unknown>");
    log::warning(format_args!(
        "== CRITICAL == This {from} is sending an error to its {to}: '{error}' after processing the command '{name}'"
    ));
    let (backlog, config) = (&globals.stream.backlog, globals.config().1);
    if sender == Sender::Master && backlog.figures().len_bytes > 0 {
        let (end, mut latest) = (backlog.end(), Vec::new());
        let from = end.saturating_sub(SHOWN_BYTES).max(backlog.figures().first);
        if backlog.read(from, end, SHOWN_BYTES as usize, &mut latest).is_some() {
            log::warning(format_args!("Latest backlog is: '\"{}\"'", latest.escape_ascii()));
        }
    }
    globals.count_unexpected_error();
    let ends = match (config.propagation_errors.behavior, sender) {
        (PropagationErrorBehavior::Ignore, _) | (_, Sender::Replica) => false,
        (PropagationErrorBehavior::Panic, Sender::File) => true,
        (PropagationErrorBehavior::PanicOnReplicas, Sender::File) => false,
        (PropagationErrorBehavior::Panic | PropagationErrorBehavior::PanicOnReplicas, Sender::Master) => {
            config.replica_read_only
        }
    };
    if ends {
        panic!("This {from} panicked sending an error to its {to} after processing the command '{name}'");
    }
}
