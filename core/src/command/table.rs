//! The command table: one immutable [`Command`] row a command, written next to its handler.
//!
//! A row contains everything but the handler itself: name, arity, flags, ACL categories, which arguments are keys, on
//! which shards it runs, how the replies of several shards are merged, and its documentation. Admission, routing,
//! COMMAND, ACL and the metrics read rows; none of them knows a command by name.
//!
//! [`CommandTable`] is the process' view of the rows: names, which rename-command may have changed, and for each row a
//! dense [`CommandId`], by which the shards count calls.
//!
//! *Commands of modules.* A table never changes. When commands are added or removed at run time, a new table is made
//! and published like a new configuration: each worker takes it over at the beginning of a turn, so that a look-up
//! needs no lock. An id is never reused for another command, because ids travel in messages and index statistics. A
//! removed command keeps its id and its row, because calls of it may still be under way; it only cannot be found by
//! its name any more. If the same command with the same arity, flags and keys is added again, it gets its id back. A command
//! whose row is replaced gets a new id for the same reason ([`CommandTable::replacing`]).
//! Tables, and the rows of loaded commands, are leaked: about 100 KiB each time a module is loaded or unloaded.

pub use crate::call::CommandId;
use crate::command::docs::Docs;
use crate::command::keys::{ChannelPositions, KeyPositions, KeySpec};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::blocking::BlockRequest;
use crate::shard::stats::COMMANDS_MAX;
use crate::types::fetch::Sought;
use smallvec::SmallVec;
use std::any::Any;

/// What a command does, in the bits of `COMMAND INFO`.
pub mod flag {
    pub const WRITE: u64 = 1 << 0;
    pub const READONLY: u64 = 1 << 1;
    pub const DENYOOM: u64 = 1 << 2;
    pub const MODULE: u64 = 1 << 3;
    pub const ADMIN: u64 = 1 << 4;
    pub const PUBSUB: u64 = 1 << 5;
    pub const NOSCRIPT: u64 = 1 << 6;
    pub const BLOCKING: u64 = 1 << 7;
    pub const LOADING: u64 = 1 << 8;
    pub const STALE: u64 = 1 << 9;
    pub const SKIP_MONITOR: u64 = 1 << 10;
    pub const SKIP_SLOWLOG: u64 = 1 << 11;
    pub const ASKING: u64 = 1 << 12;
    pub const FAST: u64 = 1 << 13;
    pub const NO_AUTH: u64 = 1 << 14;
    pub const MAY_REPLICATE: u64 = 1 << 15;
    pub const SENTINEL: u64 = 1 << 16;
    pub const ONLY_SENTINEL: u64 = 1 << 17;
    pub const NO_MANDATORY_KEYS: u64 = 1 << 18;
    pub const PROTECTED: u64 = 1 << 19;
    pub const NO_ASYNC_LOADING: u64 = 1 << 20;
    pub const NO_MULTI: u64 = 1 << 21;
    pub const MOVABLEKEYS: u64 = 1 << 22;
    pub const ALLOW_BUSY: u64 = 1 << 23;
    /// Uses keys that no argument names: RANDOMKEY and SCAN.
    pub const TOUCHES_ARBITRARY_KEYS: u64 = 1 << 24;
    /// Is not queued after MULTI but runs at once. COMMAND INFO does not show this flag and those that follow.
    pub const RUNS_IN_MULTI: u64 = 1 << 32;
    /// Runs without locks, on every shard or at home, and shows or ends what a handoff changes. While handoffs are under way on any
    /// shard, one on every shard (CLIENT UNBLOCK, CLIENT KILL, DBSIZE) locks the whole keyspace, and so runs after them; one
    /// at home (INFO) waits for them.
    pub const AFTER_HANDOFFS: u64 = 1 << 33;
    /// With [`flag::PROTECTED`]: it is guarded by enable-module-command, and not by enable-debug-command.
    pub const LOADS_CODE: u64 = 1 << 34;
    /// Is refused as writes are while these cannot be written to disk: PING, by which clients learn how the server is.
    pub const TELLS_HEALTH: u64 = 1 << 35;
    /// May be called by a client that listens to channels by RESP2.
    pub const WHEN_SUBSCRIBED: u64 = 1 << 36;
    /// Answers such a client with an array, as the messages are that it reads: PING.
    pub const REPLIES_AS_MESSAGE: u64 = 1 << 37;
    /// It changes what its client tracks, and what the next commands do to that.
    pub const CHANGES_TRACKING: u64 = 1 << 38;
    /// It may change who its client is, or what that may do.
    pub const CHANGES_RIGHTS: u64 = 1 << 39;
    /// It is a program in the place of a plain command, so that modules are told within it of what it does to keys.
    pub const TELLS_KEYS: u64 = 1 << 40;
    /// Every row has this flag: a rule for all commands is a rule for this flag.
    pub const ANY: u64 = 1 << 63;
}

/// ACL categories, in Redis' order.
pub mod acl {
    pub const KEYSPACE: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const WRITE: u32 = 1 << 2;
    pub const SET: u32 = 1 << 3;
    pub const SORTEDSET: u32 = 1 << 4;
    pub const LIST: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const STRING: u32 = 1 << 7;
    pub const BITMAP: u32 = 1 << 8;
    pub const HYPERLOGLOG: u32 = 1 << 9;
    pub const GEO: u32 = 1 << 10;
    pub const STREAM: u32 = 1 << 11;
    pub const PUBSUB: u32 = 1 << 12;
    pub const ADMIN: u32 = 1 << 13;
    pub const FAST: u32 = 1 << 14;
    pub const SLOW: u32 = 1 << 15;
    pub const BLOCKING: u32 = 1 << 16;
    pub const DANGEROUS: u32 = 1 << 17;
    pub const CONNECTION: u32 = 1 << 18;
    pub const TRANSACTION: u32 = 1 << 19;
    pub const SCRIPTING: u32 = 1 << 20;

    #[rustfmt::skip]
    pub const NAMES: [&str; 21] = [
        "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog",
        "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection",
        "transaction", "scripting",
    ];
}

/// Where a command runs.
#[derive(Clone, Copy)]
pub enum Scope {
    /// On the shards that own its keys, which its key specs name. Without keys: at home.
    Keys,
    /// At home, with access to the client's session.
    Session,
    /// On every shard, under the keyspace lock of the given mode; the replies are merged.
    Every(KeyspaceLock),
    /// On the given shard.
    Shard(usize),
    /// On the given shard (SCAN's cursor names it) or, if the database has at most `keys_max` keys, on every shard
    /// with all keys locked.
    Walk { shard: usize, keys_max: u64 },
    /// On the shards of its keys, as [`Scope::Keys`]; home remembers these shards (WATCH).
    Watch,
    /// As [`Scope::Session`]; the commands after it are queued (MULTI).
    Multi,
    /// Where the commands that were queued since MULTI run. Without any, as [`Scope::Session`].
    Exec,
    /// Depends on the arguments: the function returns one of the above.
    Custom(fn(args: Argv<'_>, shard_count: usize) -> Scope),
}

/// How much of a shard's keyspace a [`Scope::Every`] command locks while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyspaceLock {
    /// Nothing: the command reads no keys (CLIENT LIST), or need not run at the same moment on all shards.
    None,
    /// All keys, on all shards at once.
    All,
}

/// How the replies of several shards become the client's reply.
#[derive(Clone, Copy)]
pub enum Merge {
    /// They do not: the keys are checked out to home, and the command runs there once.
    CheckOut,
    /// Integers are added up.
    Sum,
    /// Array elements are put in the order of the keys.
    Gather,
    /// All shards reply +OK, or the first error is the reply.
    AllOk,
    /// Arrays are concatenated.
    ConcatArrays,
    /// Any other rule: merges the complete replies, in shard order, into one, whose RESP bytes it appends to `out`.
    With(fn(replies: &[&[u8]], args: Argv<'_>, out: &mut Vec<u8>)),
}

/// The handler of a row.
#[derive(Clone, Copy)]
pub enum Run {
    /// A command over keys: runs on their shard, and has no access to the connection.
    Keys(fn(&mut Ctx<'_>) -> CommandResult),
    /// The same, for a handler that is made at run time: a command of a module that keeps to its declared keys.
    Native(Native),
    /// A command over keys that may block on them: see [`Ctx::block`].
    Blocking(fn(&mut Ctx<'_>) -> CommandResult<Option<BlockRequest>>),
    /// A command over keys that calls other commands. It contains a
    /// [`ProgramHandler`](crate::worker::program::ProgramHandler), whose type this room cannot name, because rooms above
    /// it define it.
    Program(&'static (dyn Any + Send + Sync)),
    /// A command over the connection or the whole worker. It contains a
    /// [`SessionHandler`](crate::worker::SessionHandler).
    Session(&'static (dyn Any + Send + Sync)),
    /// A container (CLIENT, CONFIG): only its subcommands run.
    Container,
}

impl Run {
    /// Whether it is a plain function over keys: it does not block, calls no commands but over its own keys, and sees no
    /// connection.
    #[inline]
    pub const fn is_over_keys(&self) -> bool {
        matches!(self, Run::Keys(_) | Run::Native(_))
    }
}

/// A handler that is made at run time.
#[derive(Clone, Copy)]
pub struct Native {
    /// `table` is that of the worker that runs it.
    pub run: fn(
        ctx: &mut Ctx<'_>,
        table: &'static CommandTable,
        data: &'static (dyn Any + Send + Sync),
    ) -> CommandResult,
    /// What distinguishes it from other handlers with the same function.
    pub data: &'static (dyn Any + Send + Sync),
}

/// Keys that only a look at other keys tells: SORT's BY and GET name one for every element of its list.
#[derive(Clone, Copy)]
pub struct DerivedKeys {
    /// Whether these arguments may ask for any.
    pub are_asked: fn(args: Argv<'_>) -> bool,
    /// The error for a client that asks for any and may not read all keys. `None`: these arguments ask for none.
    pub refusal: fn(args: Argv<'_>) -> Option<CommandError>,
    /// Their names. It runs where the keys are that the arguments name, and changes nothing.
    pub find: fn(ctx: &mut Ctx<'_>) -> Vec<Vec<u8>>,
}

/// The element that a request looks up in the collection of its first key, if it is worth fetching before the command
/// runs. A hint: the arguments may be invalid, and the value of any type.
pub type Seeks = for<'a> fn(args: Argv<'a>) -> Option<(&'a [u8], Sought)>;

/// [`Seeks`] of commands whose element follows the key.
pub fn seeks_element(args: Argv<'_>) -> Option<(&[u8], Sought)> {
    (args.len() > 2).then(|| (args.arg(2), Sought::Element))
}

/// One row. It is built by the `const fn`s below.
pub struct Command {
    /// Lower case, without the container's name.
    pub name: &'static str,
    /// Number of arguments, including the name (and the container's); negative: at least that many.
    pub arity: i32,
    pub flags: u64,
    /// Explicit ACL categories; [`Command::acl_categories`] adds those that follow from the flags.
    pub categories: u32,
    pub keys: &'static [KeySpec],
    pub scope: Scope,
    pub merge: Merge,
    /// Finds the keys, instead of the key specs, where these are not sufficient (what SET does to its key, where SORT
    /// stores).
    pub find_keys: Option<fn(args: Argv<'_>, found: &mut KeyPositions)>,
    /// The argument that is a key it reads although its key specs do not name it (DEBUG OBJECT). Used for locks only.
    pub unlisted_key: Option<fn(args: Argv<'_>) -> Option<usize>>,
    /// Keys of the selected database that it reads besides. It locks whole shards for them, because they are not known
    /// when it is to be locked.
    pub derived_keys: Option<DerivedKeys>,
    /// Finds the channels of a request that rights are needed for, besides those of PUBLISH and SUBSCRIBE.
    pub find_channels: Option<fn(args: Argv<'_>, found: &mut ChannelPositions)>,
    /// The database of the key at an argument, one of `db_count`: for most commands the selected one (not so with
    /// COPY's DB option). For invalid arguments it may be any existing database, because the handler will fail.
    pub key_db: fn(args: Argv<'_>, position: usize, selected: u32, db_count: usize) -> u32,
    /// For MOVE: the other database, one of `db_count`, in which it uses its key as well.
    pub other_db: Option<fn(args: Argv<'_>, db_count: usize) -> Option<u32>>,
    /// For SELECT: the database that it selects, one of `db_count`. So a transaction knows the database of the commands
    /// after it before it runs.
    pub selects: Option<fn(args: Argv<'_>, db_count: usize) -> CommandResult<u32>>,
    pub run: Run,
    /// For a blocked command: whether it could use the changed key at an argument. It must agree with what the
    /// handler does with that key.
    pub ready: fn(ctx: &mut Ctx<'_>, position: usize) -> bool,
    /// The arguments that are secret, and must not appear in logs. Called only when something is logged.
    pub secrets: fn(args: Argv<'_>) -> SmallVec<[usize; 2]>,
    pub seeks: Option<Seeks>,
    /// It takes constant time, whatever its arguments.
    pub is_constant_time: bool,
    /// No client can call it or see it: [`CommandTable::hidden`] finds it.
    pub is_hidden: bool,
    /// Of a hidden command: in whose place it runs. See [`CommandEntry::with_made_keys`].
    pub stands_for: Option<&'static str>,
    /// It is not there, and only rules of access control are about it: see [`CommandTable::known_to_rules`].
    pub is_absent: bool,
    pub docs: Docs,
    pub subcommands: &'static [Command],
}

fn no_secrets(_args: Argv<'_>) -> SmallVec<[usize; 2]> {
    SmallVec::new()
}

fn key_exists(ctx: &mut Ctx<'_>, position: usize) -> bool {
    ctx.shard.exists(ctx.call.db, ctx.key(position))
}

fn selected_db(_args: Argv<'_>, _position: usize, selected: u32, _db_count: usize) -> u32 {
    selected
}

impl Command {
    /// A command over keys.
    pub const fn keys(name: &'static str, arity: i32, run: fn(&mut Ctx<'_>) -> CommandResult) -> Command {
        Command::row(name, arity, Scope::Keys, Run::Keys(run))
    }

    /// A command over keys that may block on them.
    pub const fn blocking(
        name: &'static str,
        arity: i32,
        run: fn(&mut Ctx<'_>) -> CommandResult<Option<BlockRequest>>,
    ) -> Command {
        Command::row(name, arity, Scope::Keys, Run::Blocking(run)).flags(flag::BLOCKING)
    }

    /// A command over keys that calls other commands.
    pub const fn program(name: &'static str, arity: i32, run: &'static (dyn Any + Send + Sync)) -> Command {
        Command::row(name, arity, Scope::Keys, Run::Program(run))
    }

    /// A command over its connection or its worker.
    pub const fn session(name: &'static str, arity: i32, run: &'static (dyn Any + Send + Sync)) -> Command {
        Command::row(name, arity, Scope::Session, Run::Session(run))
    }

    /// A container of subcommands.
    pub const fn container(name: &'static str, subcommands: &'static [Command]) -> Command {
        let mut row = Command::row(name, -2, Scope::Session, Run::Container);
        row.subcommands = subcommands;
        row
    }

    const fn row(name: &'static str, arity: i32, scope: Scope, run: Run) -> Command {
        Command {
            name,
            arity,
            flags: flag::ANY,
            categories: 0,
            keys: &[],
            scope,
            merge: Merge::CheckOut,
            find_keys: None,
            unlisted_key: None,
            derived_keys: None,
            find_channels: None,
            key_db: selected_db,
            other_db: None,
            selects: None,
            run,
            ready: key_exists,
            secrets: no_secrets,
            seeks: None,
            is_constant_time: false,
            is_hidden: false,
            stands_for: None,
            is_absent: false,
            docs: Docs::NONE,
            subcommands: &[],
        }
    }

    /// A command that no client can call or see.
    pub const fn hidden(mut self) -> Command {
        self.is_hidden = true;
        self
    }

    /// A command that no client can call or see, and that the server runs in the place of another.
    pub const fn in_place_of(mut self, name: &'static str) -> Command {
        self.stands_for = Some(name);
        self.hidden()
    }

    /// A command that is not there, of which only rules know.
    pub const fn absent(mut self) -> Command {
        self.is_absent = true;
        self
    }

    /// Adds subcommands to a command that also runs without one (COMMAND).
    pub const fn with_subcommands(mut self, subcommands: &'static [Command]) -> Command {
        self.subcommands = subcommands;
        self
    }

    pub const fn flags(mut self, flags: u64) -> Command {
        self.flags |= flags;
        self
    }

    pub const fn acl(mut self, categories: u32) -> Command {
        self.categories |= categories;
        self
    }

    pub const fn at(mut self, keys: &'static [KeySpec]) -> Command {
        self.keys = keys;
        self
    }

    pub const fn scope(mut self, scope: Scope) -> Command {
        self.scope = scope;
        self
    }

    pub const fn merge(mut self, merge: Merge) -> Command {
        self.merge = merge;
        self
    }

    pub const fn find_keys(mut self, find_keys: fn(Argv<'_>, &mut KeyPositions)) -> Command {
        self.find_keys = Some(find_keys);
        self
    }

    pub const fn unlisted_key(mut self, unlisted_key: fn(Argv<'_>) -> Option<usize>) -> Command {
        self.unlisted_key = Some(unlisted_key);
        self
    }

    pub const fn derived_keys(mut self, derived_keys: DerivedKeys) -> Command {
        self.derived_keys = Some(derived_keys);
        self
    }

    pub const fn key_db(mut self, key_db: fn(Argv<'_>, usize, u32, usize) -> u32) -> Command {
        self.key_db = key_db;
        self
    }

    pub const fn other_db(mut self, other_db: fn(Argv<'_>, usize) -> Option<u32>) -> Command {
        self.other_db = Some(other_db);
        self
    }

    pub const fn ready(mut self, ready: fn(&mut Ctx<'_>, usize) -> bool) -> Command {
        self.ready = ready;
        self
    }

    pub const fn selects(mut self, selects: fn(Argv<'_>, usize) -> CommandResult<u32>) -> Command {
        self.selects = Some(selects);
        self
    }

    pub const fn secrets(mut self, secrets: fn(Argv<'_>) -> SmallVec<[usize; 2]>) -> Command {
        self.secrets = secrets;
        self
    }

    pub const fn seeks(mut self, seeks: Seeks) -> Command {
        self.seeks = Some(seeks);
        self
    }

    pub const fn constant_time(mut self) -> Command {
        self.is_constant_time = true;
        self
    }

    pub const fn docs(mut self, docs: Docs) -> Command {
        self.docs = docs;
        self
    }

    pub const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether a request may read keys that only a look at others tells: see [`DerivedKeys`].
    pub fn derives_keys(&self, args: Argv<'_>) -> bool {
        self.derived_keys.is_some_and(|derived| (derived.are_asked)(args))
    }

    /// Whether it has access to its connection or the whole worker, and not to keys alone.
    pub const fn is_over_session(&self) -> bool {
        matches!(self.run, Run::Session(_) | Run::Container)
    }

    /// Whether COMMAND INFO and the categories call it blocking: not WAIT, which waits for no key.
    pub const fn is_blocking_by_name(&self) -> bool {
        self.has(flag::BLOCKING) && !self.keys.is_empty()
    }

    /// The explicit categories, and those that Redis derives from the flags.
    /// A module names all categories of its commands.
    pub const fn acl_categories(&self) -> u32 {
        let mut all = self.categories;
        if self.has(flag::MODULE) {
            return all;
        }
        if self.has(flag::WRITE) {
            all |= acl::WRITE;
        }
        if self.has(flag::READONLY) && all & acl::SCRIPTING == 0 {
            all |= acl::READ;
        }
        if self.has(flag::ADMIN) {
            all |= acl::ADMIN | acl::DANGEROUS;
        }
        if self.has(flag::PUBSUB) {
            all |= acl::PUBSUB;
        }
        if self.is_blocking_by_name() {
            all |= acl::BLOCKING;
        }
        if self.has(flag::FAST) {
            all |= acl::FAST;
        } else {
            all |= acl::SLOW;
        }
        all
    }
}

/// A row as this process knows it.
#[derive(Clone)]
pub struct CommandEntry {
    pub id: CommandId,
    pub row: &'static Command,
    /// Lower case, `container|subcommand` for subcommands. Redis' name even if the command was renamed.
    pub full_name: String,
    /// The container of a subcommand.
    pub parent: Option<CommandId>,
    /// The entry whose place it has taken: see [`CommandTable::replacing`].
    pub plain: Option<CommandId>,
    /// The hidden command that runs in its place if its keys are not all declared, but known: see
    /// [`made`](crate::worker::program::made).
    pub with_made_keys: Option<CommandId>,
    /// Of that one: the command in whose place it runs.
    pub stands_for: Option<CommandId>,
    /// Its row from before another entry took its place.
    replaced_row: Option<&'static Command>,
    first_subcommand: u16,
    /// Which arguments are keys, precomputed for the common cases.
    pub shape: KeyShape,
    /// It was removed at run time.
    is_removed: bool,
}

/// Which arguments are keys, in a form that allows fast routing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyShape {
    None,
    /// Exactly one key, argument 1.
    First,
    /// Arguments `first ..= argc + last`, every `step`th.
    Range {
        first: usize,
        last: isize,
        step: usize,
    },
    /// The key specs have to be evaluated.
    Complex,
}

/// Finds rows by name. Immutable once it is built.
#[derive(Clone)]
pub struct CommandTable {
    entries: Vec<CommandEntry>,
    /// Open addressing by [`NameHash`].
    slots: Vec<NameSlot>,
    /// The names by which clients call the commands (rename-command changes them), by id; empty: cannot be called.
    names: Vec<Vec<u8>>,
}

const EMPTY: u16 = u16::MAX;

/// A slot of the hash table of names.
#[derive(Clone, Copy)]
struct NameSlot {
    hash: NameHash,
    /// `EMPTY` if the slot is free.
    id: u16,
    /// Equal hashes mean equal names, which need not be compared: the name has at most eight bytes, all of them
    /// letters.
    is_exact: bool,
}

/// A name's length, its first eight bytes in lower case, and a hash of both and, if it is longer, its last byte: this
/// distinguishes nearly all names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct NameHash {
    mixed: u32,
    len: u32,
    folded: u64,
}

impl NameHash {
    #[inline]
    fn of(name: &[u8]) -> NameHash {
        let word = |bytes: [u8; 4]| u64::from(u32::from_le_bytes(bytes));
        // Overlapping reads of fixed length, because a copy of variable length is a function call.
        let (first, last) = match *name {
            [] => (0, 0),
            [a] => (u64::from(a), 0),
            [a, b] => (u64::from(a) | u64::from(b) << 8, 0),
            [a, b, c] => (u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16, 0),
            [a, b, c, d, ..] if name.len() <= 8 => {
                let end = name.last_chunk().map_or(0, |&end| word(end));
                (word([a, b, c, d]) | end << (8 * (name.len() - 4)), 0)
            }
            [.., last] => {
                let first = name.first_chunk().map_or(0, |&first| u64::from_le_bytes(first));
                (first, last | 0x20)
            }
        };
        // This maps letters, and no other bytes, to lower-case letters.
        let folded = first | 0x2020_2020_2020_2020;
        // Of some well-known factors, the one by which the fewest of the usual names fall into each other's slots.
        let mixed =
            (folded ^ (u64::from(last) << 56) ^ name.len() as u64).wrapping_mul(0x94D0_49BB_1331_11EB);
        NameHash { mixed: (mixed >> 32) as u32, len: name.len() as u32, folded }
    }
}

impl CommandTable {
    /// `families`: the rows of every handler file. `renames`: (command, new name; empty removes it).
    ///
    /// # Errors
    /// Redis' text for a command in `renames` that does not exist, or a new name that is taken.
    pub fn new(
        families: &[&'static [Command]],
        renames: &[(String, String)],
    ) -> Result<CommandTable, String> {
        let mut rows: Vec<&'static Command> = families.iter().flat_map(|family| family.iter()).collect();
        rows.sort_by_key(|row| row.name);
        let mut table = CommandTable { entries: Vec::new(), slots: Vec::new(), names: Vec::new() };
        table.add(&rows);
        table.link_stand_ins();
        for (old, new) in renames {
            table.rename(&old.to_ascii_lowercase(), &new.to_ascii_lowercase())?;
        }
        table.index();
        Ok(table)
    }

    fn link_stand_ins(&mut self) {
        for at in 0..self.entries.len() {
            let Some(name) = self.entries[at].row.stands_for else { continue };
            let other = self.entries.iter().position(|entry| !entry.row.is_hidden && entry.row.name == name);
            let other = other.expect("a stand-in names a command");
            self.entries[at].stands_for = Some(CommandId(other as u16));
            self.entries[other].with_made_keys = Some(CommandId(at as u16));
        }
    }

    /// A copy of this table with further commands, whose names are in lower case.
    ///
    /// # Errors
    /// A name is taken, or there are too many commands.
    pub fn with(&self, rows: &[&'static Command]) -> Result<CommandTable, String> {
        let mut table = self.clone();
        let mut new = Vec::new();
        for (at, &row) in rows.iter().enumerate() {
            let is_taken = self.lookup(row.name.as_bytes()).is_some();
            if is_taken || rows[..at].iter().any(|other| other.name == row.name) {
                return Err(format!("there is a command of the name {}", row.name));
            }
            match table.entries.iter().position(|entry| entry.is_removed && is_called_alike(entry.row, row)) {
                Some(first) if table.entries[first].parent.is_none() => table.revive(first, row),
                Some(_) | None => new.push(row),
            }
        }
        let new_count: usize = new.iter().map(|row| 1 + row.subcommands.len()).sum();
        if table.entries.len() + new_count > COMMANDS_MAX {
            return Err(format!("there is no room for more than {COMMANDS_MAX} commands"));
        }
        table.add(&new);
        table.index();
        Ok(table)
    }

    /// A copy of this table without some of its commands.
    pub fn without(&self, ids: &[CommandId]) -> CommandTable {
        let mut table = self.clone();
        for &id in ids {
            table.names[id.index()].clear();
            for entry in &mut table.entries {
                entry.is_removed |= entry.id == id || entry.parent == Some(id);
            }
        }
        table.index();
        table
    }

    /// A copy of this table in which other rows stand in the places of some, with the same names and as many subcommands. The
    /// former entries cannot be found by name any more. They keep their ids, under which calls may be under way, and run as
    /// before, by the rows `(row, plain)` gives as `plain`; the new entries know them as [`plain`](CommandEntry::plain).
    ///
    /// # Errors
    /// There are too many commands.
    pub fn replacing(&self, rows: &[(&'static Command, &'static Command)]) -> Result<CommandTable, String> {
        let mut table = self.clone();
        for &(row, plain) in rows {
            let Some(old) = self.by_own_name(row.name.as_bytes()).map(|entry| entry.id.index()) else {
                continue;
            };
            let has_been_there = |entry: &CommandEntry| {
                entry.is_removed
                    && entry.plain.is_some_and(|id| id.index() == old)
                    && is_called_alike(entry.row, row)
            };
            let new = match table.entries.iter().position(has_been_there) {
                Some(new) => {
                    table.revive(new, row);
                    new
                }
                None => {
                    if table.entries.len() + 1 + row.subcommands.len() > COMMANDS_MAX {
                        return Err(format!("there is no room for more than {COMMANDS_MAX} commands"));
                    }
                    table.add(&[row]);
                    table.entries.len() - 1 - row.subcommands.len()
                }
            };
            table.names[new] = std::mem::take(&mut table.names[old]);
            let first_old = usize::from(table.entries[old].first_subcommand);
            let first_new = usize::from(table.entries[new].first_subcommand);
            let olds = std::iter::once((new, old, plain));
            let pairs = olds.chain(
                (first_new..)
                    .zip(first_old..)
                    .zip(plain.subcommands)
                    .map(|((new, old), row)| (new, old, row)),
            );
            for (new, old, plain) in pairs {
                table.entries[new].plain = Some(CommandId(old as u16));
                let entry = &mut table.entries[old];
                entry.replaced_row = Some(std::mem::replace(&mut entry.row, plain));
                entry.is_removed = true;
            }
        }
        table.index();
        Ok(table)
    }

    /// A copy of this table in which entries are back whose places were [taken](CommandTable::replacing) by these, or by containers of
    /// these.
    pub fn restoring(&self, is_meant: impl Fn(&Command) -> bool) -> CommandTable {
        let mut table = self.clone();
        let top_level = self.entries.iter().filter(|entry| entry.parent.is_none() && !entry.is_removed);
        for entry in
            top_level.filter(|entry| is_meant(entry.row) || entry.row.subcommands.iter().any(&is_meant))
        {
            let Some(old) = entry.plain else { continue };
            let (new, old) = (entry.id.index(), old.index());
            table.names[old] = std::mem::take(&mut table.names[new]);
            let first_old = usize::from(self.entries[old].first_subcommand);
            let subs = (usize::from(entry.first_subcommand)..).zip(first_old..);
            for (new, old) in std::iter::once((new, old)).chain(subs.take(entry.row.subcommands.len())) {
                table.entries[new].is_removed = true;
                let entry = &mut table.entries[old];
                entry.is_removed = false;
                entry.row = entry.replaced_row.take().unwrap_or(entry.row);
            }
        }
        table.index();
        table
    }

    /// The command that was called by this entry's name before: the one whose place it has taken, or that had taken its place.
    /// `None`: it is not new in this table, which came after `earlier`.
    pub fn predecessor(&self, id: CommandId, earlier: &CommandTable) -> Option<CommandId> {
        let was_there =
            |id: CommandId| earlier.entries.get(id.index()).is_some_and(|entry| !entry.is_removed);
        if was_there(id) {
            return None;
        }
        let had_its_place =
            || self.entries.iter().find(|other| other.plain == Some(id)).map(|other| other.id);
        self.entry(id).plain.or_else(had_its_place).filter(|&id| was_there(id))
    }

    /// Adds rows, and after them their subcommands.
    fn add(&mut self, rows: &[&'static Command]) {
        let first = self.entries.len();
        for row in rows {
            self.push(row, row.name.to_string(), None);
        }
        for (parent, row) in (first..).zip(rows) {
            self.entries[parent].first_subcommand = self.entries.len() as u16;
            for sub in row.subcommands {
                let full_name = format!("{}|{}", row.name, sub.name);
                self.push(sub, full_name, Some(CommandId(parent as u16)));
            }
        }
    }

    /// Puts a row in the place of a removed one that is called alike.
    fn revive(&mut self, at: usize, row: &'static Command) {
        let first = usize::from(self.entries[at].first_subcommand);
        let places = std::iter::once((at, row)).chain((first..).zip(row.subcommands));
        for (at, row) in places {
            self.entries[at].row = row;
            self.entries[at].is_removed = false;
        }
        self.names[at] = row.name.as_bytes().to_vec();
    }

    fn push(&mut self, row: &'static Command, full_name: String, parent: Option<CommandId>) {
        assert!(self.entries.len() < COMMANDS_MAX, "the callers check the number");
        let id = CommandId(self.entries.len() as u16);
        let can_be_called = !row.is_hidden && !row.is_absent;
        self.names.push(if can_be_called { row.name.as_bytes().to_vec() } else { Vec::new() });
        let shape = crate::command::keys::shape(row);
        self.entries.push(CommandEntry {
            id,
            row,
            full_name,
            parent,
            plain: None,
            with_made_keys: None,
            stands_for: None,
            replaced_row: None,
            first_subcommand: 0,
            shape,
            is_removed: false,
        });
    }

    fn rename(&mut self, old: &str, new: &str) -> Result<(), String> {
        let find = |name: &str| {
            let mut top_level = self.entries.iter().filter(|entry| entry.parent.is_none());
            let found = top_level.find(|entry| self.names[entry.id.index()] == name.as_bytes());
            found.map(|entry| entry.id.index())
        };
        let Some(index) = find(old) else {
            return Err("No such command in rename-command".to_string());
        };
        if !new.is_empty() && find(new).is_some() {
            return Err("Target command name already exists".to_string());
        }
        self.names[index] = new.as_bytes().to_vec();
        Ok(())
    }

    fn index(&mut self) {
        let mut named: Vec<u16> = self.top_level().map(|entry| entry.id.0).collect();
        // The shortest names, which most requests have, get the slots at which their search begins.
        named.sort_by_key(|&id| self.names[usize::from(id)].len());
        let capacity = (named.len() * 4).next_power_of_two().max(64);
        let free = NameSlot { hash: NameHash::of(b""), id: EMPTY, is_exact: false };
        self.slots = vec![free; capacity];
        for id in named {
            let name = &self.names[usize::from(id)];
            let hash = NameHash::of(name);
            let mut at = hash.mixed as usize & (capacity - 1);
            while self.slots[at].id != EMPTY {
                at = (at + 1) & (capacity - 1);
            }
            let is_exact = name.len() <= 8 && name.iter().all(u8::is_ascii_alphabetic);
            self.slots[at] = NameSlot { hash, id, is_exact };
        }
    }

    /// The top-level command of this name, in upper or lower case. O(1).
    #[inline]
    pub fn lookup(&self, name: &[u8]) -> Option<&CommandEntry> {
        let hash = NameHash::of(name);
        let at = hash.mixed as usize & (self.slots.len() - 1);
        let slot = &self.slots[at];
        if slot.hash == hash && slot.is_exact {
            return Some(&self.entries[usize::from(slot.id)]);
        }
        self.lookup_from(at, hash, name)
    }

    /// The command of this name, whose search begins at this slot.
    #[inline(never)]
    fn lookup_from(&self, mut at: usize, hash: NameHash, name: &[u8]) -> Option<&CommandEntry> {
        loop {
            let slot = &self.slots[at];
            if slot.id == EMPTY {
                return None;
            }
            let id = usize::from(slot.id);
            if slot.hash == hash && (slot.is_exact || self.names[id].eq_ignore_ascii_case(name)) {
                return Some(&self.entries[id]);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The row that `args` calls: of a container, the subcommand.
    #[inline]
    pub fn resolve(&self, args: Argv<'_>) -> Resolved<'_> {
        let Some(entry) = args.get(0).and_then(|name| self.lookup(name)) else { return Resolved::Unknown };
        if entry.row.subcommands.is_empty() {
            return Resolved::Command(entry);
        }
        let Some(sub) = args.get(1) else { return Resolved::Command(entry) };
        match self.subcommand(entry, sub) {
            Some(found) => Resolved::Command(found),
            None => Resolved::UnknownSubcommand(entry),
        }
    }

    /// The subcommand of a container, in upper or lower case.
    pub fn subcommand(&self, container: &CommandEntry, name: &[u8]) -> Option<&CommandEntry> {
        self.subcommands(container).iter().find(|entry| entry.row.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The subcommands of a container, in the order of its row.
    pub fn subcommands(&self, container: &CommandEntry) -> &[CommandEntry] {
        let first = usize::from(container.first_subcommand);
        &self.entries[first..first + container.row.subcommands.len()]
    }

    /// The hidden command of this name.
    ///
    /// # Panics
    /// There is none.
    pub fn hidden(&self, name: &str) -> &CommandEntry {
        let found = self.entries.iter().find(|entry| entry.row.is_hidden && entry.row.name == name);
        found.expect("its room has declared it")
    }

    /// Looks up `get` or `client|list`.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&CommandEntry> {
        match name.iter().position(|&byte| byte == b'|') {
            None => self.lookup(name),
            Some(bar) => self.subcommand(self.lookup(&name[..bar])?, &name[bar + 1..]),
        }
    }

    #[inline]
    pub fn entry(&self, id: CommandId) -> &CommandEntry {
        &self.entries[id.index()]
    }

    /// All commands that can be called, without subcommands: ordered by name, and then those that were added at run
    /// time.
    pub fn top_level(&self) -> impl Iterator<Item = &CommandEntry> {
        let can_be_called =
            |entry: &&CommandEntry| entry.parent.is_none() && !self.names[entry.id.index()].is_empty();
        self.entries.iter().filter(can_be_called)
    }

    /// All commands and subcommands, including those that were renamed to the empty string, but not removed or hidden ones.
    pub fn all(&self) -> impl Iterator<Item = &CommandEntry> {
        self.known_to_rules().filter(|entry| !entry.row.is_absent)
    }

    /// The same, and those that are not there, but that rules of access control may name.
    pub fn known_to_rules(&self) -> impl Iterator<Item = &CommandEntry> {
        self.entries.iter().filter(|entry| !entry.is_removed && !entry.row.is_hidden)
    }

    /// The command of this name, whatever rename-command has made of it: for the server's own calls.
    pub fn by_own_name(&self, name: &[u8]) -> Option<&CommandEntry> {
        let is_meant = |entry: &&CommandEntry| {
            !entry.is_removed
                && !entry.row.is_absent
                && entry.parent.is_none()
                && name.eq_ignore_ascii_case(entry.row.name.as_bytes())
        };
        self.entries.iter().find(is_meant)
    }

    /// The same among all that rules may name.
    pub fn by_own_name_for_rules(&self, name: &[u8]) -> Option<&CommandEntry> {
        let named = self
            .known_to_rules()
            .filter(|entry| entry.parent.is_none() && name.eq_ignore_ascii_case(entry.row.name.as_bytes()));
        // A module may have a command of the name of an absent one.
        named.min_by_key(|entry| entry.row.is_absent)
    }

    /// The name by which clients call it, which differs from the row's if rename-command changed it.
    pub fn name(&self, id: CommandId) -> &[u8] {
        &self.names[id.index()]
    }

    /// How many ids there are, including those of subcommands and of removed commands.
    pub fn id_count(&self) -> usize {
        self.entries.len()
    }
}

/// Whether a call that was checked and routed by row `a` can run by row `b`.
fn is_called_alike(a: &Command, b: &Command) -> bool {
    a.name == b.name
        && a.arity == b.arity
        && a.flags == b.flags
        && std::mem::discriminant(&a.run) == std::mem::discriminant(&b.run)
        && crate::command::keys::shape(a) == crate::command::keys::shape(b)
        && a.subcommands.len() == b.subcommands.len()
        && a.subcommands.iter().zip(b.subcommands).all(|(a, b)| is_called_alike(a, b))
}

/// The result of resolving the name in a request.
pub enum Resolved<'t> {
    Command(&'t CommandEntry),
    UnknownSubcommand(&'t CommandEntry),
    Unknown,
}

#[cfg(test)]
mod tests;
