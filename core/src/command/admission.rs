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

use crate::call::Forbidden;
pub use crate::call::ProgramKind;
use crate::command::CommandError;
use crate::command::route::Route;
use crate::command::table::{Command, Scope, flag};
use crate::config::{Config, ProtectedAccess};
use crate::protocol::reply::Resp;

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
    /// Between MULTI and EXEC: those of the queued commands.
    pub queued_flags: Option<QueuedFlags>,
    /// It is the server itself, which runs the commands of a file. Nothing is refused to it.
    pub is_server: bool,
    /// It listens to channels.
    pub is_subscribed: bool,
    /// It watches all commands, or is a replica.
    pub is_monitor: bool,
    pub resp: Resp,
    /// Its user may not do everything.
    pub has_limited_user: bool,
}

impl Caller {
    /// Whether it may only change what it listens to, because by RESP2 it could not tell messages from replies.
    pub fn is_restricted(&self) -> bool {
        self.is_subscribed && self.resp == Resp::V2
    }
}

/// The flags of commands that are queued for an EXEC.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueuedFlags {
    /// At least one has them.
    pub any: u64,
    /// At least one lacks them.
    pub lacked: u64,
}

/// The present conditions of the process.
#[derive(Clone, Copy)]
pub struct Conditions<'a> {
    pub config: &'a Config,
    /// Clients need not log in: the default user is on and has no password.
    pub default_is_open: bool,
    /// The data set is being loaded.
    pub is_loading: bool,
    /// Another data set is being loaded, and the present one is served until that is done.
    pub is_async_loading: bool,
    /// More memory is in use than maxmemory allows, and there is no key to evict.
    pub is_memory_full: bool,
    /// Writes cannot be written to disk.
    pub has_disk_error: bool,
    /// A program of this kind is over busy-reply-threshold.
    pub busy: Option<ProgramKind>,
    pub pause: Option<PauseKind>,
    pub replica: ReplicaConditions,
    /// Clients are told of what commands do. Nothing is refused for that, but no command takes the fast path.
    pub is_observed: bool,
}

/// What is refused because this server is a replica.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReplicaConditions {
    /// replica-read-only
    pub is_read_only: bool,
    /// The data may be old, and is not to be shown (replica-serve-stale-data no).
    pub is_stale: bool,
}

/// Values that are costly to determine, and so are asked for only when a reason depends on them.
pub trait Measures {
    /// The number of replicas whose lag is at most min-replicas-max-lag.
    fn good_replicas(&self) -> usize;
    /// Why writes cannot be written to disk.
    fn disk_error(&self) -> CommandError;
    /// What others are told while a program of this kind is over busy-reply-threshold.
    fn busy_error(&self, kind: ProgramKind) -> CommandError;
}

/// Why a command does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Error(CommandError),
    /// The client listens to channels, and must not call this.
    Subscribed,
    /// The client's user may not call it.
    Denied(Denied),
    /// The command is delayed until the pause is over.
    Paused,
}

/// What access control refuses, in the order in which the most telling is picked of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    pub what: Forbidden,
    /// The argument that is the key or channel.
    pub at: usize,
}

impl Denied {
    /// The error for the client that called the command itself. `name`: the command's, in full.
    pub fn error(self, name: &str) -> CommandError {
        CommandError::new(format!(
            "NOPERM this user has no permissions to {}",
            match self.what {
                Forbidden::Command | Forbidden::Auth => format!("run the '{name}' command"),
                Forbidden::Key => "access one of the keys used as arguments".to_string(),
                Forbidden::Channel => "access one of the channels used as arguments".to_string(),
            }
        ))
    }
}

/// A ground on which a command may be refused or delayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    NotAuthenticated,
    Protected,
    NotPermitted,
    OutOfMemory,
    DiskError,
    TooFewReplicas,
    ReadOnly,
    Subscribed,
    Stale,
    Loading,
    Busy,
    Monitor,
    Paused,
}

const REASON_COUNT: usize = 13;

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
    let loading = match now.is_async_loading {
        true => flag::NO_ASYNC_LOADING,
        false => concerns(now.is_loading, flag::ANY),
    };
    [
        (Reason::NotAuthenticated, concerns(must_authenticate(caller, now.default_is_open), flag::ANY)),
        (Reason::Protected, flag::PROTECTED),
        (Reason::NotPermitted, concerns(caller.has_limited_user, flag::ANY)),
        (Reason::OutOfMemory, concerns(now.is_memory_full, flag::DENYOOM)),
        (Reason::DiskError, concerns(now.has_disk_error, flag::WRITE | flag::TELLS_HEALTH)),
        (Reason::TooFewReplicas, concerns(needs_replicas(config), flag::WRITE)),
        (Reason::ReadOnly, concerns(now.replica.is_read_only, flag::WRITE)),
        (Reason::Subscribed, concerns(caller.is_subscribed | now.is_observed, flag::ANY)),
        (Reason::Stale, concerns(now.replica.is_stale, flag::ANY)),
        (Reason::Loading, loading),
        (Reason::Busy, concerns(now.busy.is_some(), flag::ANY)),
        (Reason::Monitor, concerns(caller.is_monitor, flag::WRITE | flag::READONLY | flag::MAY_REPLICATE)),
        (Reason::Paused, paused),
    ]
}

impl Reason {
    /// Decides about a command that the reason concerns. The flags are those by which admission sees it.
    fn judge(
        self,
        (row, flags): (&Command, u64),
        caller: &Caller,
        now: &Conditions<'_>,
        measures: &impl Measures,
        rights: &impl Fn() -> Result<(), Refusal>,
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
            Reason::NotPermitted => rights(),
            Reason::OutOfMemory => Err(Refusal::Error(CommandError::OUT_OF_MEMORY)),
            Reason::DiskError => Err(Refusal::Error(measures.disk_error())),
            Reason::TooFewReplicas => refuse(
                measures.good_replicas() < config.min_replicas_to_write as usize,
                CommandError::NO_REPLICAS,
            ),
            Reason::ReadOnly => refuse(true, CommandError::READ_ONLY),
            Reason::Stale => refuse(!all_have(row, flags, caller, flag::STALE), CommandError::MASTER_DOWN),
            // By RESP3, messages and replies can be told from each other.
            Reason::Subscribed => match caller.is_restricted() && !row.has(flag::WHEN_SUBSCRIBED) {
                true => Err(Refusal::Subscribed),
                false => Ok(()),
            },
            Reason::Loading => {
                let is_refused = now.is_async_loading || !all_have(row, flags, caller, flag::LOADING);
                refuse(is_refused, CommandError::LOADING)
            }
            Reason::Busy if row.has(flag::ALLOW_BUSY) => Ok(()),
            Reason::Busy => refuse(true, measures.busy_error(now.busy.unwrap_or(ProgramKind::Script))),
            // As in Redis, to which it is a kind of replica.
            Reason::Monitor => {
                refuse(true, CommandError::fixed("ERR Replica can't interact with the keyspace"))
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
    let [
        (_, a),
        (_, b),
        (_, c),
        (_, d),
        (_, e),
        (_, f),
        (_, g),
        (_, h),
        (_, i),
        (_, j),
        (_, k),
        (_, l),
        (_, m),
    ] = reasons(caller, now);
    a | b | c | d | e | f | g | h | i | j | k | l | m
}

/// The same for commands that the caller's user is known to be allowed.
#[inline(always)]
pub fn checked_flags_of_permitted(caller: &Caller, now: &Conditions<'_>) -> u64 {
    checked_flags(&Caller { has_limited_user: false, ..*caller }, now)
}

/// Whether a caller may call a command now. `flags`: the row's, or those of what a program is to run. `rights`: whether
/// the caller's user may, asked if it may not do everything.
///
/// # Errors
/// NOAUTH; a protected command that the configuration does not allow this client; those of `rights`; OOM; MISCONF;
/// NOREPLICAS; LOADING; a pause.
#[inline]
pub fn admit(
    row: &Command,
    flags: u64,
    caller: &Caller,
    now: &Conditions<'_>,
    measures: &impl Measures,
    rights: impl Fn() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    admit_checked(row, flags, checked_flags(caller, now), caller, || *now, measures, rights)
}

/// The same, for who knows the [`checked_flags`]. `now`: the conditions, which are looked at only if the command has one of these.
///
/// # Errors
/// As [`admit`].
#[inline]
pub fn admit_checked<'a>(
    row: &Command,
    flags: u64,
    checked: u64,
    caller: &Caller,
    now: impl FnOnce() -> Conditions<'a>,
    measures: &impl Measures,
    rights: impl Fn() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let flags = flags_with_queue(row, flags, caller);
    if flags & checked == 0 {
        return Ok(());
    }
    judge(flags, row, caller, &now(), measures, rights)
}

/// Asks each reason that concerns a command with these flags.
#[cold]
fn judge(
    flags: u64,
    row: &Command,
    caller: &Caller,
    now: &Conditions<'_>,
    measures: &impl Measures,
    rights: impl Fn() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for (reason, concerned) in reasons(caller, now) {
        if flags & concerned != 0 {
            reason.judge((row, flags), caller, now, measures, &rights)?;
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

/// A program as the caller of a command. Whether its user may call it is asked apart.
const PROGRAM: Caller = Caller {
    authenticated: true,
    is_local: false,
    queued_flags: None,
    is_server: false,
    is_subscribed: false,
    is_monitor: false,
    resp: Resp::V2,
    has_limited_user: false,
};

/// The conditions under which a program calls commands. A pause, loading, or another program that is busy, concerns programs
/// as a whole, but never the commands that they call: while an append-only file is loaded, the server runs its scripts.
fn as_for_program<'a>(now: &Conditions<'a>) -> Conditions<'a> {
    Conditions {
        pause: None,
        busy: None,
        is_loading: false,
        is_async_loading: false,
        is_observed: false,
        ..*now
    }
}

/// The flags of the commands that [`admit_call`] has to check.
pub fn flags_checked_for_program(now: &Conditions<'_>) -> u64 {
    checked_flags(&PROGRAM, &as_for_program(now))
}

/// The error for other commands while a program of this kind is over busy-reply-threshold, unless it has another to be given.
pub fn busy_error(kind: ProgramKind) -> CommandError {
    CommandError::fixed(match kind {
        ProgramKind::Script => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        ProgramKind::Function => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
        ProgramKind::Module => "BUSY Redis is busy running a module command.",
        ProgramKind::Command => unreachable!("it is never over the threshold"),
    })
}

/// The flags by which a command is judged that a program calls.
#[inline]
fn flags_of_call(row: &Command, program: ProgramCall) -> u64 {
    let mut flags = row.flags;
    if program.has_written {
        flags &= !(flag::WRITE | flag::DENYOOM);
    } else if program.allows_oom {
        flags &= !flag::DENYOOM;
    }
    flags
}

/// Whether [`admit_call`] says yes without a look at the conditions.
#[inline]
pub fn is_free_to_call(row: &Command, program: ProgramCall, checked: u64) -> bool {
    let is_refused_write = program.is_read_only && row.has(flag::WRITE | flag::MAY_REPLICATE);
    !is_refused_write && flags_of_call(row, program) & checked == 0
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
    let flags = flags_of_call(row, program);
    if flags & checked == 0 {
        return Ok(());
    }
    let (now, measures) = present();
    match judge(flags, row, &PROGRAM, &as_for_program(&now), measures, || Ok(())) {
        Ok(()) => Ok(()),
        Err(Refusal::Error(error)) => Err(error),
        Err(Refusal::Denied(_) | Refusal::Paused | Refusal::Subscribed) => {
            unreachable!("a program has neither pause nor channels, and its rights are asked apart")
        }
    }
}

/// Whether a command has a flag, and, if it is EXEC, all that it runs.
fn all_have(row: &Command, flags: u64, caller: &Caller, flag: u64) -> bool {
    let lacked = caller.queued_flags.map_or(0, |queued| queued.lacked);
    flags & flag != 0 && !(matches!(row.scope, Scope::Exec) && lacked & flag != 0)
}

/// The flags of a command as admission sees them. An EXEC also has the flags of all commands that it runs. A command
/// that is queued has DENYOOM, because queueing takes memory.
#[inline]
fn flags_with_queue(row: &Command, flags: u64, caller: &Caller) -> u64 {
    match caller.queued_flags {
        None => flags,
        Some(queued) if matches!(row.scope, Scope::Exec) => flags | queued.any,
        Some(_) if row.has(flag::RUNS_IN_MULTI) => flags,
        Some(_) => flags | flag::DENYOOM,
    }
}

/// Whether a caller has to authenticate first. When the default user needs no password any more, clients that connected
/// before need not authenticate either.
#[inline(always)]
pub fn must_authenticate(caller: &Caller, default_is_open: bool) -> bool {
    !caller.authenticated && !default_is_open
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
        // What is under way is judged by who its client was when it was called.
        Route::Session => !row.has(flag::FAST) || row.has(flag::CHANGES_RIGHTS),
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
        good_replicas: usize,
    }

    impl Measures for Measured {
        fn good_replicas(&self) -> usize {
            self.good_replicas
        }

        fn disk_error(&self) -> CommandError {
            CommandError::fixed("MISCONF Errors writing to the AOF file: No space left on device")
        }

        fn busy_error(&self, kind: ProgramKind) -> CommandError {
            super::busy_error(kind)
        }
    }

    const NO_COMMAND: Denied = Denied { what: Forbidden::Command, at: 0 };

    const SCARCE: Measured = Measured { good_replicas: 0 };

    fn admit(
        row: &Command,
        caller: &Caller,
        now: &Conditions<'_>,
        measured: &Measured,
    ) -> Result<(), Refusal> {
        super::admit(row, row.flags, caller, now, measured, || Err(Refusal::Denied(NO_COMMAND)))
    }

    fn rows() -> Vec<&'static Command> {
        FAMILIES.iter().flat_map(|family| family.iter()).collect()
    }

    fn row(name: &str) -> &'static Command {
        rows().into_iter().find(|row| row.name == name).expect("the command exists")
    }

    /// Runs `check` under every combination of conditions.
    fn each_case(mut check: impl FnMut(&Caller, &Conditions<'_>)) {
        for bits in 0..32_768 {
            let is_set = |bit: u32| bits >> bit & 1 != 0;
            let config = Config { min_replicas_to_write: u32::from(is_set(2)).into(), ..Config::default() };
            let authenticated = is_set(3);
            let resp = if is_set(10) { Resp::V3 } else { Resp::V2 };
            let caller = Caller {
                authenticated,
                is_local: true,
                is_subscribed: is_set(9),
                resp,
                has_limited_user: is_set(11),
                ..PROGRAM
            };
            let pause = is_set(4).then_some(if is_set(5) { PauseKind::All } else { PauseKind::Write });
            let busy = is_set(7).then_some(ProgramKind::Script);
            let (is_memory_full, is_loading, has_disk_error) = (is_set(1), is_set(6), is_set(8));
            let now = Conditions {
                config: &config,
                default_is_open: !is_set(0),
                is_loading,
                is_async_loading: is_set(14) && !is_loading,
                is_memory_full,
                has_disk_error,
                busy,
                pause,
                is_observed: is_set(12),
                replica: ReplicaConditions { is_read_only: is_set(13), is_stale: is_set(13) },
            };
            check(&caller, &now);
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
    fn a_transaction_is_refused_to_stale_replicas_if_one_of_its_commands_is() {
        let config = Config::default();
        let now = Conditions {
            config: &config,
            default_is_open: true,
            is_loading: false,
            is_async_loading: false,
            is_memory_full: false,
            has_disk_error: false,
            busy: None,
            pause: None,
            is_observed: false,
            replica: ReplicaConditions { is_read_only: false, is_stale: true },
        };
        let queued = |lacked| Caller { queued_flags: Some(QueuedFlags { any: 0, lacked }), ..PROGRAM };
        let exec = row("exec");
        assert_eq!(admit(exec, &queued(!flag::STALE), &now, &SCARCE), Ok(()));
        let refused = Err(Refusal::Error(CommandError::MASTER_DOWN));
        assert_eq!(admit(exec, &queued(flag::STALE), &now, &SCARCE), refused);
        let loading = Conditions { is_loading: true, replica: ReplicaConditions::default(), ..now };
        let refused = Err(Refusal::Error(CommandError::LOADING));
        assert_eq!(admit(exec, &queued(flag::LOADING), &loading, &SCARCE), refused);
        assert_eq!(admit(exec, &queued(!flag::LOADING), &loading, &SCARCE), Ok(()));
    }

    #[test]
    fn reasons_are_checked_in_the_order_of_redis() {
        let config = Config { min_replicas_to_write: 1, ..Config::default() };
        let mut caller = Caller { authenticated: false, has_limited_user: true, ..PROGRAM };
        let busy = Some(ProgramKind::Function);
        let pause = Some(PauseKind::All);
        let mut now = Conditions {
            config: &config,
            default_is_open: false,
            is_loading: true,
            is_async_loading: false,
            is_memory_full: true,
            has_disk_error: true,
            busy,
            pause,
            is_observed: false,
            replica: ReplicaConditions::default(),
        };
        let refused = |error| Err(Refusal::Error(error));
        let set = row("set");
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(CommandError::NO_AUTH));
        assert_eq!(admit(row("auth"), &caller, &now, &SCARCE), Err(Refusal::Denied(NO_COMMAND)));
        caller.authenticated = true;
        assert_eq!(admit(set, &caller, &now, &SCARCE), Err(Refusal::Denied(NO_COMMAND)));
        caller.has_limited_user = false;
        assert_eq!(admit(row("auth"), &caller, &now, &SCARCE), Err(Refusal::Paused));
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(CommandError::OUT_OF_MEMORY));
        now.is_memory_full = false;
        let misconf = SCARCE.disk_error();
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(misconf.clone()));
        assert_eq!(admit(row("ping"), &caller, &now, &SCARCE), refused(misconf));
        let server = Caller { is_server: true, ..caller };
        assert_eq!(admit(set, &server, &now, &SCARCE), Ok(()));
        now.has_disk_error = false;
        assert_eq!(admit(set, &caller, &now, &SCARCE), refused(CommandError::NO_REPLICAS));
        let healthy = Measured { good_replicas: 1 };
        caller.is_subscribed = true;
        assert_eq!(admit(set, &caller, &now, &healthy), Err(Refusal::Subscribed));
        assert_eq!(admit(row("ping"), &caller, &now, &healthy), refused(CommandError::LOADING));
        caller.resp = Resp::V3;
        assert_eq!(admit(set, &caller, &now, &healthy), refused(CommandError::LOADING));
        assert_eq!(admit(row("info"), &caller, &now, &healthy), refused(busy_error(ProgramKind::Function)));
        now.is_loading = false;
        assert_eq!(admit(set, &caller, &now, &healthy), refused(busy_error(ProgramKind::Function)));
        assert_eq!(admit(row("shutdown"), &caller, &now, &healthy), Err(Refusal::Paused));
        now.busy = None;
        assert_eq!(admit(set, &caller, &now, &healthy), Err(Refusal::Paused));
        now.pause = None;
        assert_eq!(admit(set, &caller, &now, &healthy), Ok(()));
        now.is_memory_full = true;
        // Queueing any command takes memory; an EXEC needs memory only if a queued command does.
        assert_eq!(admit(row("get"), &caller, &now, &SCARCE), Ok(()));
        caller.queued_flags = Some(QueuedFlags { any: flag::READONLY, lacked: 0 });
        assert_eq!(admit(row("get"), &caller, &now, &SCARCE), refused(CommandError::OUT_OF_MEMORY));
        assert_eq!(admit(row("exec"), &caller, &now, &SCARCE), Ok(()));
        caller.queued_flags = Some(QueuedFlags { any: flag::WRITE, lacked: 0 });
        assert_eq!(admit(row("exec"), &caller, &now, &SCARCE), refused(CommandError::NO_REPLICAS));
    }
}
