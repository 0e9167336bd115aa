//! Admission: whether a command may run now, and whether it must wait for the replies to earlier commands of its
//! connection. This is decided here and nowhere else: for single commands, in coalesced pipelines, for commands queued
//! after MULTI, in EXEC, and for commands that programs call.
//!
//! A [`Reason`] is a ground on which a command is refused. Each concerns commands with certain flags, and only under
//! certain conditions of the client and the process. [`checked_flags`] gives the flags that are concerned at present: a
//! command without them may run, which is all that the fast path checks. A command with one of them is checked by
//! [`admit`].
//!
//! A new reason takes a line in [`reasons`] and an arm in [`Reason::judge`]. Commands that arrive in a batch from
//! another shard were admitted there.

pub use crate::call::ProgramKind;
use crate::command::CommandError;
use crate::command::route::Route;
use crate::command::table::{Command, Scope, flag};
use crate::config::{Config, ProtectedAccess};

/// Which commands CLIENT PAUSE delays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseKind {
    Write,
    All,
}

/// The client that calls a command.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub authenticated: bool,
    /// It is connected from this machine: by a loopback address or a unix socket.
    pub is_local: bool,
    /// Between MULTI and EXEC: the flags of the queued commands, combined by OR.
    pub queued_flags: Option<u64>,
    /// It is the server itself, which runs the commands of a file. Nothing is refused to it.
    pub is_server: bool,
}

/// The present conditions of the process.
#[derive(Clone, Copy)]
pub struct Conditions<'a> {
    pub config: &'a Config,
    /// The data set is being loaded.
    pub is_loading: bool,
    /// Writes cannot be written to disk.
    pub has_disk_error: bool,
    /// A program of this kind is over busy-reply-threshold.
    pub busy: Option<ProgramKind>,
    pub pause: Option<PauseKind>,
}

/// Values that are costly to determine, and so are asked for only when a reason depends on them.
pub trait Measures {
    fn used_memory_bytes(&self) -> u64;
    /// The number of replicas whose lag is at most min-replicas-max-lag.
    fn good_replicas(&self) -> usize;
    /// Why writes cannot be written to disk.
    fn disk_error(&self) -> CommandError;
}

/// Why a command does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Error(CommandError),
    /// The command is delayed until the pause is over.
    Paused,
}

/// A ground on which a command may be refused or delayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    NotAuthenticated,
    Protected,
    OutOfMemory,
    DiskError,
    TooFewReplicas,
    Loading,
    Busy,
    Paused,
}

const REASON_COUNT: usize = 8;

/// The reasons in the order in which Redis checks them, each with the flags of the commands that it concerns at
/// present.
#[inline(always)]
fn reasons(caller: &Caller, now: &Conditions<'_>) -> [(Reason, u64); REASON_COUNT] {
    let config = now.config;
    let concerns = |applies: bool, flags: u64| if applies { flags } else { 0 };
    let paused = match now.pause {
        None => 0,
        Some(PauseKind::Write) => flag::WRITE | flag::MAY_REPLICATE,
        Some(PauseKind::All) => flag::ANY,
    };
    [
        (Reason::NotAuthenticated, concerns(must_authenticate(caller, config), flag::ANY)),
        (Reason::Protected, flag::PROTECTED),
        (Reason::OutOfMemory, concerns(config.maxmemory_bytes != 0, flag::DENYOOM)),
        (Reason::DiskError, concerns(now.has_disk_error, flag::WRITE | flag::TELLS_HEALTH)),
        (Reason::TooFewReplicas, concerns(needs_replicas(config), flag::WRITE)),
        (Reason::Loading, concerns(now.is_loading, flag::ANY)),
        (Reason::Busy, concerns(now.busy.is_some(), flag::ANY)),
        (Reason::Paused, paused),
    ]
}

impl Reason {
    /// Decides about a command that the reason concerns.
    fn judge(
        self,
        row: &Command,
        caller: &Caller,
        now: &Conditions<'_>,
        measures: &impl Measures,
    ) -> Result<(), Refusal> {
        let config = now.config;
        let refuse = |is_refused: bool, error: CommandError| match is_refused {
            true => Err(Refusal::Error(error)),
            false => Ok(()),
        };
        match self {
            Reason::NotAuthenticated => refuse(!row.has(flag::NO_AUTH), CommandError::NO_AUTH),
            Reason::Protected => {
                let (access, name) = match row.has(flag::LOADS_CODE) {
                    true => (config.enable_module_command, "module"),
                    false => (config.enable_debug_command, "debug"),
                };
                refuse(!protected_allowed(access, caller), not_allowed(name))
            }
            Reason::OutOfMemory => {
                refuse(measures.used_memory_bytes() > config.maxmemory_bytes, CommandError::OUT_OF_MEMORY)
            }
            Reason::DiskError => Err(Refusal::Error(measures.disk_error())),
            Reason::TooFewReplicas => refuse(
                measures.good_replicas() < config.min_replicas_to_write as usize,
                CommandError::NO_REPLICAS,
            ),
            Reason::Loading => refuse(!row.has(flag::LOADING), CommandError::LOADING),
            Reason::Busy => {
                let error = busy_error(now.busy.unwrap_or(ProgramKind::Script));
                refuse(!row.has(flag::ALLOW_BUSY), error)
            }
            Reason::Paused => Err(Refusal::Paused),
        }
    }
}

/// The flags of the commands that [`admit`] has to check. All others may run, unless the client is between MULTI and
/// EXEC.
#[inline(always)]
pub fn checked_flags(caller: &Caller, now: &Conditions<'_>) -> u64 {
    if caller.is_server {
        return 0;
    }
    // Taken apart, because a loop over so few costs more than all that is in them.
    let [(_, a), (_, b), (_, c), (_, d), (_, e), (_, f), (_, g), (_, h)] = reasons(caller, now);
    a | b | c | d | e | f | g | h
}

/// Whether a caller may call a command now. `flags`: the row's, or those of what a program is to run.
///
/// # Errors
/// NOAUTH; a protected command that the configuration does not allow this client; OOM; MISCONF; NOREPLICAS; LOADING; a
/// pause.
#[inline]
pub fn admit(
    row: &Command,
    flags: u64,
    caller: &Caller,
    now: &Conditions<'_>,
    measures: &impl Measures,
) -> Result<(), Refusal> {
    let flags = flags_with_queue(row, flags, caller);
    if flags & checked_flags(caller, now) == 0 { Ok(()) } else { judge(flags, row, caller, now, measures) }
}

/// Asks each reason that concerns a command with these flags.
#[cold]
fn judge(
    flags: u64,
    row: &Command,
    caller: &Caller,
    now: &Conditions<'_>,
    measures: &impl Measures,
) -> Result<(), Refusal> {
    for (reason, concerned) in reasons(caller, now) {
        if flags & concerned != 0 {
            reason.judge(row, caller, now, measures)?;
        }
    }
    Ok(())
}

/// A program that calls a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramCall {
    /// It may not change anything.
    pub is_read_only: bool,
    /// It may call commands with DENYOOM although memory is full.
    pub allows_oom: bool,
    /// It has called a command that writes. From then on it must be able to end its work.
    pub has_written: bool,
}

/// A program as the caller of a command.
const PROGRAM: Caller = Caller { authenticated: true, is_local: false, queued_flags: None, is_server: false };

/// The conditions under which a program calls commands. A pause, loading, or another program that is busy, concerns programs
/// as a whole, but never the commands that they call: while an append-only file is loaded, the server runs its scripts.
fn as_for_program<'a>(now: &Conditions<'a>) -> Conditions<'a> {
    Conditions { pause: None, busy: None, is_loading: false, ..*now }
}

/// The flags of the commands that [`admit_call`] has to check.
pub fn flags_checked_for_program(now: &Conditions<'_>) -> u64 {
    checked_flags(&PROGRAM, &as_for_program(now))
}

/// The error for other commands while a program of this kind is over busy-reply-threshold.
pub fn busy_error(kind: ProgramKind) -> CommandError {
    CommandError::fixed(match kind {
        ProgramKind::Script => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        ProgramKind::Function => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
        ProgramKind::Module => "BUSY Redis is busy running a module command.",
    })
}

/// Whether a program may call a command now. `checked`: of [`flags_checked_for_program`]. `present`: the conditions, which are
/// looked at only if the command has one of these flags.
///
/// # Errors
/// A write of a read-only program; OOM, MISCONF and NOREPLICAS, unless the program has written already.
#[inline]
pub fn admit_call<'a, M: Measures + 'a>(
    row: &Command,
    program: ProgramCall,
    checked: u64,
    present: impl FnOnce() -> (Conditions<'a>, &'a M),
) -> Result<(), CommandError> {
    if program.is_read_only && row.has(flag::WRITE | flag::MAY_REPLICATE) {
        return Err(CommandError::fixed("ERR Write commands are not allowed from read-only scripts."));
    }
    let mut flags = row.flags;
    if program.has_written {
        flags &= !(flag::WRITE | flag::DENYOOM);
    } else if program.allows_oom {
        flags &= !flag::DENYOOM;
    }
    if flags & checked == 0 {
        return Ok(());
    }
    let (now, measures) = present();
    match judge(flags, row, &PROGRAM, &as_for_program(&now), measures) {
        Ok(()) => Ok(()),
        Err(Refusal::Error(error)) => Err(error),
        Err(Refusal::Paused) => unreachable!("the conditions have no pause"),
    }
}

/// The flags of a command as admission sees them. An EXEC also has the flags of all commands that it runs. A command
/// that is queued has DENYOOM, because queueing takes memory.
#[inline]
fn flags_with_queue(row: &Command, flags: u64, caller: &Caller) -> u64 {
    match caller.queued_flags {
        None => flags,
        Some(queued) if matches!(row.scope, Scope::Exec) => flags | queued,
        Some(_) if row.has(flag::RUNS_IN_MULTI) => flags,
        Some(_) => flags | flag::DENYOOM,
    }
}

/// Whether a caller has to authenticate first. When requirepass is removed, clients that connected before need not
/// authenticate either.
#[inline(always)]
pub fn must_authenticate(caller: &Caller, config: &Config) -> bool {
    !caller.authenticated && !config.requirepass.is_empty()
}

/// Whether writes are refused when there are too few replicas.
#[inline(always)]
pub fn needs_replicas(config: &Config) -> bool {
    config.min_replicas_to_write != 0 && config.min_replicas_max_lag_s != 0
}

pub fn protected_allowed(access: ProtectedAccess, caller: &Caller) -> bool {
    match access {
        ProtectedAccess::No => false,
        ProtectedAccess::Yes => true,
        ProtectedAccess::Local => caller.is_local,
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

/// Whether a command that takes this route starts only when its connection has all earlier replies. Commands over
/// keys of one shard need not wait: their replies are kept until it is their turn. A command that locks keys of
/// several shards, or that may block, runs alone in its connection's pipeline. A command over the session that is not
/// fast has to wait because it runs at home, and would overtake earlier commands that are still on their way to other
/// shards.
#[inline]
pub fn waits_for_replies(row: &Command, route: &Route) -> bool {
    match route {
        Route::One(_) => row.has(flag::BLOCKING),
        Route::Session => !row.has(flag::FAST),
        Route::Many | Route::Every(_) | Route::Watch | Route::Walk { .. } => true,
    }
}

/// The same for an EXEC. `is_over_shards`: it runs on several shards; `has_session`: it runs commands over the session.
pub fn exec_waits_for_replies(is_over_shards: bool, has_session: bool) -> bool {
    is_over_shards || has_session
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::FAMILIES;

    struct Measured {
        used_memory_bytes: u64,
        good_replicas: usize,
    }

    impl Measures for Measured {
        fn used_memory_bytes(&self) -> u64 {
            self.used_memory_bytes
        }

        fn good_replicas(&self) -> usize {
            self.good_replicas
        }

        fn disk_error(&self) -> CommandError {
            CommandError::fixed("MISCONF Errors writing to the AOF file: No space left on device")
        }
    }

    const SCARCE: Measured = Measured { used_memory_bytes: u64::MAX, good_replicas: 0 };

    fn admit(
        row: &Command,
        caller: &Caller,
        now: &Conditions<'_>,
        measured: &Measured,
    ) -> Result<(), Refusal> {
        super::admit(row, row.flags, caller, now, measured)
    }

    fn rows() -> Vec<&'static Command> {
        FAMILIES.iter().flat_map(|family| family.iter()).collect()
    }

    fn row(name: &str) -> &'static Command {
        rows().into_iter().find(|row| row.name == name).expect("the command exists")
    }

    /// Runs `check` under every combination of conditions.
    fn each_case(mut check: impl FnMut(&Caller, &Conditions<'_>)) {
        for bits in 0..512 {
            let is_set = |bit: u32| bits >> bit & 1 != 0;
            let config = Config {
                requirepass: if is_set(0) { (&b"secret"[..]).into() } else { Default::default() },
                maxmemory_bytes: u64::from(is_set(1)),
                min_replicas_to_write: u32::from(is_set(2)).into(),
                ..Config::default()
            };
            let authenticated = is_set(3);
            let caller = Caller { authenticated, is_local: true, queued_flags: None, is_server: false };
            let pause = is_set(4).then_some(if is_set(5) { PauseKind::All } else { PauseKind::Write });
            let busy = is_set(7).then_some(ProgramKind::Script);
            let (is_loading, has_disk_error) = (is_set(6), is_set(8));
            check(&caller, &Conditions { config: &config, is_loading, has_disk_error, busy, pause });
        }
    }

    #[test]
    fn a_command_without_checked_flags_is_admitted_under_all_conditions() {
        let mut unchecked = 0;
        each_case(|caller, now| {
            for row in rows().into_iter().filter(|row| row.flags & checked_flags(caller, now) == 0) {
                assert_eq!(admit(row, caller, now, &SCARCE), Ok(()), "{}", row.name);
                unchecked += 1;
            }
        });
        assert!(unchecked > 1000, "{unchecked}");
    }

    #[test]
    fn reasons_are_checked_in_the_order_of_redis() {
        let config = Config {
            requirepass: (&b"secret"[..]).into(),
            maxmemory_bytes: 1,
            min_replicas_to_write: 1,
            ..Config::default()
        };
        let mut caller =
            Caller { authenticated: false, is_local: false, queued_flags: None, is_server: false };
        let busy = Some(ProgramKind::Function);
        let pause = Some(PauseKind::All);
        let mut now = Conditions { config: &config, is_loading: true, has_disk_error: true, busy, pause };
        let refused = |error| Err(Refusal::Error(error));
        let set = row("set");
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(CommandError::NO_AUTH));
        assert_eq!(admit(row("auth"), &caller, &now, &SCARCE), Err(Refusal::Paused));
        caller.authenticated = true;
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(CommandError::OUT_OF_MEMORY));
        let roomy = Measured { used_memory_bytes: 0, ..SCARCE };
        let misconf = roomy.disk_error();
        assert_eq!(admit(set, &caller, &now, &roomy), refused(misconf.clone()));
        assert_eq!(admit(row("ping"), &caller, &now, &roomy), refused(misconf));
        let server = Caller { is_server: true, ..caller };
        assert_eq!(admit(set, &server, &now, &roomy), Ok(()));
        now.has_disk_error = false;
        assert_eq!(admit(set, &caller, &now, &roomy), refused(CommandError::NO_REPLICAS));
        let healthy = Measured { good_replicas: 1, ..roomy };
        assert_eq!(admit(set, &caller, &now, &healthy), refused(CommandError::LOADING));
        assert_eq!(admit(row("info"), &caller, &now, &healthy), refused(busy_error(ProgramKind::Function)));
        now.is_loading = false;
        assert_eq!(admit(set, &caller, &now, &healthy), refused(busy_error(ProgramKind::Function)));
        assert_eq!(admit(row("shutdown"), &caller, &now, &healthy), Err(Refusal::Paused));
        now.busy = None;
        assert_eq!(admit(set, &caller, &now, &healthy), Err(Refusal::Paused));
        now.pause = None;
        assert_eq!(admit(set, &caller, &now, &healthy), Ok(()));
        // Queueing any command takes memory; an EXEC needs memory only if a queued command does.
        assert_eq!(admit(row("get"), &caller, &now, &SCARCE), Ok(()));
        caller.queued_flags = Some(flag::READONLY);
        assert_eq!(admit(row("get"), &caller, &now, &SCARCE), refused(CommandError::OUT_OF_MEMORY));
        assert_eq!(admit(row("exec"), &caller, &now, &SCARCE), Ok(()));
        caller.queued_flags = Some(flag::WRITE);
        assert_eq!(admit(row("exec"), &caller, &now, &SCARCE), refused(CommandError::NO_REPLICAS));
    }
}
