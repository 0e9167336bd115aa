//! DUMP and RESTORE: a value as bytes, in the format of RDB files.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::persist::rdb::dump;
use crate::persist::rdb::file::SavedAccess;
use crate::persist::rdb::module::Modules;
use crate::persist::rdb::write::Writer;
use crate::shard::effects::removal;
use crate::shard::event::Event;
use crate::types::OwnedEntry;
use crate::types::module::KeyPlace;

pub const COMMANDS: &[Command] = &[DUMP, RESTORE, RESTORE_ASKING];

const DUMP: Command = Command::keys("dump", 2, dump)
    .flags(flag::READONLY)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .docs(
        Docs::new("generic", "2.6.0", "Returns the value of a key as bytes that RESTORE takes")
            .complexity("O(1) to find the key, and O(N*M) for N elements of the mean length M")
            .arguments("key#0")
            .tips(&["nondeterministic_output"]),
    );

/// DUMP key. Reply: string, the payload; null without the key. O(bytes).
fn dump(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let compress = ctx.shard.config.rdbcompression;

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.null();
        return Ok(());
    };
    let mut payload = Vec::new();
    Writer::new(&mut payload, compress).at(KeyPlace::of(ctx.call.db, key.bytes)).value(entry.value());
    dump::seal(&mut payload, 0);

    ctx.reply.bulk(&payload);
    Ok(())
}

const RESTORE: Command = restores("restore").docs(
    Docs::new("generic", "2.6.0", "Creates a key of the payload that DUMP has returned")
        .complexity(RESTORE_COMPLEXITY)
        .arguments(RESTORE_ARGUMENTS)
        .history(&[
            ("3.0.0", "Option `REPLACE`"),
            ("5.0.0", "Option `ABSTTL`"),
            ("5.0.0", "Options `IDLETIME` and `FREQ`"),
        ]),
);

/// What a node of a cluster is sent by another one, from which a slot of keys moves to it.
const RESTORE_ASKING: Command = restores("restore-asking").flags(flag::ASKING).docs(
    Docs::new("server", "3.0.0", "RESTORE for keys that move within a cluster")
        .complexity(RESTORE_COMPLEXITY)
        .arguments(RESTORE_ARGUMENTS)
        .history(&[
            ("3.0.0", "Modifier `REPLACE`"),
            ("5.0.0", "Modifier `ABSTTL`"),
            ("5.0.0", "Options `IDLETIME` and `FREQ`"),
        ])
        .internal(),
);

const RESTORE_COMPLEXITY: &str =
    "O(1) to create the key, and O(N*M) for N elements of the mean length M; O(N*M*log(N)) for a sorted set";
const RESTORE_ARGUMENTS: &str = "key#0 ttl:int serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] \
                                 [IDLETIME seconds:int@5.0.0] [FREQ frequency:int@5.0.0]";

const fn restores(name: &'static str) -> Command {
    Command::keys(name, -4, restore)
        .flags(flag::WRITE | flag::DENYOOM)
        .acl(acl::KEYSPACE | acl::DANGEROUS)
        .at(RESTORED)
}

const RESTORED: &[KeySpec] = &[KeySpec::one(1, key_flag::OW | key_flag::UPDATE)];

/// What stands behind RESTORE's payload.
#[derive(Default)]
struct Options {
    replace: bool,
    /// The time to live is a point in time.
    absolute: bool,
    access: SavedAccess,
}

impl Options {
    fn parse(ctx: &Ctx<'_>) -> CommandResult<Options> {
        let mut options = Options::default();
        let mut words = ctx.args.iter().skip(4);
        while let Some(word) = words.next() {
            if args::is(word, "replace") {
                options.replace = true;
            } else if args::is(word, "absttl") {
                options.absolute = true;
            } else if args::is(word, "idletime") && !matches!(options.access, SavedAccess::Frequency(_)) {
                let idle_s = args::integer(words.next().ok_or(CommandError::SYNTAX)?)?;
                let idle_s = u64::try_from(idle_s)
                    .map_err(|_| CommandError::fixed("ERR Invalid IDLETIME value, must be >= 0"))?;
                options.access = SavedAccess::IdleSeconds(idle_s);
            } else if args::is(word, "freq") && !matches!(options.access, SavedAccess::IdleSeconds(_)) {
                let counter = args::integer(words.next().ok_or(CommandError::SYNTAX)?)?;
                let counter = u8::try_from(counter)
                    .map_err(|_| CommandError::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255"))?;
                options.access = SavedAccess::Frequency(counter);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// RESTORE or RESTORE-ASKING key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ counter]. `ttl` in milliseconds, 0 for none; a key
/// whose time is up is not created. Reply: OK. Errors: syntax; BUSYKEY without REPLACE; a negative time to live; a payload of
/// another version, of another checksum, or that is damaged. O(bytes), O(n log n) for a sorted set of n members.
fn restore(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let options = Options::parse(ctx)?;
    if !options.replace && ctx.shard.exists(ctx.call.db, key) {
        return Err(CommandError::fixed("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = args::integer(ctx.arg(2))?;
    if ttl_ms < 0 {
        return Err(CommandError::fixed("ERR Invalid TTL value, must be >= 0"));
    }
    let value = dump::open(ctx.arg(3), !ctx.shard.skips_checksums)
        .ok_or(CommandError::fixed("ERR DUMP payload version or checksum are wrong"))?;
    let modules = Modules { types: &ctx.shard.module_types, place: KeyPlace::of(ctx.call.db, key.bytes) };
    let value = dump::read(value, &ctx.shard.limits(), &modules).map_err(|damage| {
        ctx.shard.warnings.push(format!("Bad payload of RESTORE: {damage}"));
        CommandError::fixed("ERR Bad data format")
    })?;

    let now_ms = ctx.shard.now_ms;
    let expire_at_ms = match ttl_ms {
        0 => None,
        at_ms if options.absolute => Some(at_ms),
        ttl_ms => Some(ttl_ms.saturating_add(ctx.shard.wall_ms)),
    };
    if expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        if ctx.shard.delete(ctx.call, key, Event::DEL) {
            let lazy = ctx.shard.config.lazyfree_lazy_server_del;
            ctx.effect(&[removal(lazy), key.bytes]);
        }
        ctx.reply.ok();
        return Ok(());
    }
    let access = ctx.shard.loaded_access(options.access);
    let entry = OwnedEntry { key: key.bytes.into(), value, expire_at_ms, access };
    ctx.shard.put(ctx.call, ctx.call.db, key.hash, entry, Event::RESTORE);
    if let Some(at_ms) = expire_at_ms.filter(|_| !options.absolute && ctx.notes_effects()) {
        let at_ms = itoa::Buffer::new().format(at_ms).to_owned();
        let mut words: Vec<&[u8]> = ctx.args.iter().collect();
        words[2] = at_ms.as_bytes();
        words.push(b"ABSTTL");
        ctx.effect(&words);
    }

    ctx.reply.ok();
    Ok(())
}
