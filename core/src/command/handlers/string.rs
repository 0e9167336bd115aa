//! string commands.

use crate::command::table::Command;

pub const COMMANDS: &[Command] = &[];
