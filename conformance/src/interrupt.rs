//! Ctrl-C reaches only the terminal's foreground group, and the suite runs in groups of its own: without this, its
//! servers would outlive an interrupted run.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::harness;

/// From now on SIGINT and SIGTERM kill what the harness started and end this program.
pub fn kill_everything_on_signals() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            harness::kill_everything();
            std::process::exit(128 + signal);
        }
    });
}
