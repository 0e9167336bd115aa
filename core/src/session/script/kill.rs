//! SCRIPT KILL and FUNCTION KILL.

use crate::command::CommandResult;
use crate::command::docs::Docs;
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::session::session;
use crate::worker::program::{ProgramKind, merge_killed};
use crate::worker::{SessionCtx, SessionHandler};

pub(super) const SCRIPT_KILL: Command = kill(
    &(kill_scripts as SessionHandler),
    Docs::new("scripting", "2.6.0", "Ends the scripts that run for too long"),
);

pub(super) const FUNCTION_KILL: Command = kill(
    &(kill_functions as SessionHandler),
    Docs::new("scripting", "7.0.0", "Ends the functions that run for too long"),
);

const fn kill(run: &'static SessionHandler, docs: Docs) -> Command {
    session("kill", 2, run)
        .scope(Scope::Every(KeyspaceLock::None))
        .merge(Merge::With(merge_killed))
        .flags(flag::NOSCRIPT | flag::ALLOW_BUSY)
        .acl(acl::SCRIPTING)
        .constant_time()
        .docs(docs.complexity("O(1)").tips(&["request_policy:all_shards", "response_policy:one_succeeded"]))
}

/// SCRIPT KILL. Ends, on all shards, the scripts that are over busy-reply-threshold and have not written. Reply: OK. Errors:
/// NOTBUSY; UNKILLABLE, if all have written; BUSY, if only functions are. O(programs).
fn kill_scripts(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.kill_programs(ProgramKind::Script).write(&mut ctx.reply);
    Ok(())
}

/// FUNCTION KILL. As SCRIPT KILL, for functions.
fn kill_functions(ctx: &mut SessionCtx<'_>) -> CommandResult {
    ctx.worker.kill_programs(ProgramKind::Function).write(&mut ctx.reply);
    Ok(())
}
