//! What travels with a command from its client to the shard that runs it: the call and its keys, and queues of such
//! commands. Plain data.

pub mod queue;
pub mod slot;

use crate::protocol::Argv;
use crate::protocol::reply::Resp;
use crate::types::hash_key;

/// Number of a client, unique in the process, ascending in the order in which clients connected.
pub type ClientId = u64;

/// Dense number of a command or subcommand in the process' command table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct CommandId(pub u16);

impl CommandId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A key and its hash ([`hash_key`]).
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub bytes: &'a [u8],
    pub hash: u64,
}

/// What travels with a command from its client to the shard which runs it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Call {
    pub command: CommandId,
    /// The numbered database the client selected.
    pub db: u32,
    pub resp: Resp,
    /// CLIENT NO-TOUCH: reads do not refresh the keys' access clocks.
    pub no_touch: bool,
    /// It runs in an EXEC, so it must not block its client.
    pub in_exec: bool,
    /// A script or a function has called it.
    pub in_script: bool,
    /// The client has logged in as another user than the default one.
    pub has_named_user: bool,
    /// The client is told when a key changes that this call has read: see [`shard::tracking`](crate::shard::tracking).
    pub tracks: bool,
    pub client: ClientId,
    /// The shard that serves the client.
    pub home: u16,
    /// Hash of the argument at `hashed_arg` (its first key), computed once when the command is routed.
    pub hash: u64,
    /// Which argument `hash` belongs to; 0: none.
    pub hashed_arg: u8,
    /// Of an EXEC, while somebody watches all commands: which letters of the name were in upper case, by bits.
    pub upper_letters: u8,
}

impl Call {
    /// Argument `index` of the call as a key.
    #[inline]
    pub fn key<'a>(&self, args: Argv<'a>, index: usize) -> Key<'a> {
        let bytes = args.arg(index);
        let is_hashed = index == usize::from(self.hashed_arg) && index != 0;
        Key { bytes, hash: if is_hashed { self.hash } else { hash_key(bytes) } }
    }
}

/// As many fill a cache line exactly twice, and every request is copied by it.
const _: () = assert!(size_of::<Call>() == 32);

/// What somebody was refused by access control, in the order in which the most telling is picked of several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Forbidden {
    Command,
    Key,
    /// To log in.
    Auth,
    Channel,
}

/// What somebody was doing who was refused something by access control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AclContext {
    TopLevel,
    Multi,
    Lua,
    Module,
}

/// What a program was refused by access control, for the shard of its client, which knows the client.
#[derive(Debug)]
pub struct RefusedCall {
    pub client: ClientId,
    pub context: AclContext,
    pub user: Vec<u8>,
    pub what: Forbidden,
    /// The command, key or channel.
    pub object: Vec<u8>,
}

/// What a program is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ProgramKind {
    /// EVAL and the like.
    Script,
    /// FCALL.
    Function,
    /// A command of a module.
    Module,
    /// A command of the server's own that waits for something outside of it. It keeps to its declared keys. Waiting is no
    /// work, so it is never over busy-reply-threshold.
    Command,
}

impl ProgramKind {
    /// Whether it is code that a client has brought along.
    pub fn is_script(self) -> bool {
        match self {
            ProgramKind::Script | ProgramKind::Function => true,
            ProgramKind::Module | ProgramKind::Command => false,
        }
    }
}
