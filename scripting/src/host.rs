//! What the engine asks of the server that it runs in.

use crate::args::Args;

/// The protocol version that a script sees replies in, chosen by `redis.setresp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resp {
    #[default]
    V2,
    V3,
}

/// Where the writes of a command go, chosen by `redis.set_repl`: a set of [`ReplTargets::AOF`] and
/// [`ReplTargets::REPLICAS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplTargets(pub u8);

impl ReplTargets {
    pub const NONE: ReplTargets = ReplTargets(0);
    pub const AOF: ReplTargets = ReplTargets(1);
    pub const REPLICAS: ReplTargets = ReplTargets(2);
    pub const ALL: ReplTargets = ReplTargets(3);
}

/// A script's way to call a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallOptions {
    pub resp: Resp,
    pub repl: ReplTargets,
}

/// The level of a message that a script logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// What a script does after the host had control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    GoOn,
    /// It has to end now, with this error: it was killed, or its run must not count. Whatever it catches, it gets this
    /// again at every tick and call.
    Stop(&'static str),
}

/// The server, as a run of a script sees it.
///
/// All methods are called on the stack on which the script runs. The host may suspend that stack within `call` and
/// `tick` and resume it later.
pub trait Host {
    /// Runs a command and appends its reply in RESP to `reply`; an error begins with `-`. What programs may not call, and commands that
    /// do not exist, are errors as well. `args` has at least one element.
    fn call(&mut self, args: Args<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control;

    /// Called every [`TICK_INSTRUCTIONS`] instructions of the virtual machine.
    fn tick(&mut self) -> Control;

    /// Writes a message to the server's log.
    fn log(&mut self, level: LogLevel, message: &[u8]);

    /// The reply of the run has an error in it. One that is the whole reply is returned as such and not told here.
    /// `already_counted`: see [`ScriptError`](crate::ScriptError).
    fn replied_error(&mut self, text: &[u8], already_counted: bool);

    /// Whether the user of the script may run the command `args` on its keys. `None`: there is no such command.
    fn may_call(&mut self, args: Args<'_>) -> Option<bool>;
}

/// After how many instructions of the virtual machine the host gets control.
pub const TICK_INSTRUCTIONS: u32 = 10_000;
