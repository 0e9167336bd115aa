//! Commands that move keys with their values and expiry: RENAME, COPY, MOVE, SWAPDB.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::{Command, KeyspaceLock, Merge, Scope, acl, flag};
use crate::command::typed::duplicate;
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::event::Event;
use crate::types::OwnedEntry;
use crate::types::module::KeyPlace;

pub(super) const RENAME: Command = Command::keys("rename", 3, rename)
    .flags(flag::WRITE)
    .acl(acl::KEYSPACE)
    .at(&[
        KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE),
        KeySpec::one(2, key_flag::OW | key_flag::UPDATE),
    ])
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Renames a key, replacing the one of the new name")
            .complexity("O(1)")
            .arguments("key#0 newkey#1"),
    );

/// RENAME key newkey. Replaces the key of the new name, if any; the expiry is kept. Reply: OK. Errors: no such key.
/// O(1).
fn rename(ctx: &mut Ctx<'_>) -> CommandResult {
    rename_key(ctx, |_| true)?;

    ctx.reply.ok();
    Ok(())
}

pub(super) const RENAMENX: Command = Command::keys("renamenx", 3, renamenx)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[
        KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::DELETE),
        KeySpec::one(2, key_flag::OW | key_flag::INSERT),
    ])
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Renames a key if there is none of the new name")
            .complexity("O(1)")
            .arguments("key#0 newkey#1")
            .history(&[("3.2.0", "A key may be renamed to its own name")]),
    );

/// RENAMENX key newkey. Reply: 1, or 0 if a key of the new name exists, even if it is the same. Errors: no such key.
/// O(1).
fn renamenx(ctx: &mut Ctx<'_>) -> CommandResult {
    let renamed = rename_key(ctx, |ctx| !ctx.shard.exists(ctx.call.db, ctx.key(2)))?;

    ctx.reply.integer(i64::from(renamed));
    Ok(())
}

/// Moves the key at argument 1 to the name at argument 2, if `may` allows it. Returns whether it did. A key that is
/// renamed to its own name is not changed, but its access is recorded.
fn rename_key(ctx: &mut Ctx<'_>, may: impl FnOnce(&mut Ctx<'_>) -> bool) -> CommandResult<bool> {
    let (from, to) = (ctx.key(1), ctx.key(2));
    if ctx.shard.change(ctx.call, from, Event::RENAME_FROM).is_none() {
        return Err(CommandError::NO_SUCH_KEY);
    }
    if !may(ctx) {
        return Ok(false);
    }
    if from.bytes != to.bytes {
        let db = ctx.call.db;
        ctx.shard.move_key(ctx.call, (db, from, Event::RENAME_FROM), (db, to, Event::RENAME_TO));
    }
    Ok(true)
}

pub(super) const COPY: Command = Command::keys("copy", -3, copy)
    .flags(flag::WRITE | flag::DENYOOM)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS), KeySpec::one(2, key_flag::OW | key_flag::UPDATE)])
    .key_db(copy_db)
    .docs(
        Docs::new("generic", "6.2.0", "Copies the value of a key to another key")
            .complexity("O(N), where N is the number of elements; O(1) for strings")
            .arguments("source#0 destination#1 [DB destination-db:int] [REPLACE]"),
    );

/// COPY source destination [DB destination-db] [REPLACE]. The expiry is copied too. Reply: 1, or 0 if there is no
/// source, or there is a destination and no REPLACE. Errors: syntax; no such database; source and destination are the
/// same key. O(size of the value).
fn copy(ctx: &mut Ctx<'_>) -> CommandResult {
    let (source, destination) = (ctx.key(1), ctx.key(2));
    let mut db = ctx.call.db;
    let mut replace = false;
    let mut rest = ctx.args.iter().skip(3);
    while let Some(option) = rest.next() {
        if args::is(option, "replace") {
            replace = true;
        } else if args::is(option, "db") {
            db = args::database(rest.next().ok_or(CommandError::SYNTAX)?, ctx.shard.db_count())?;
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    if db == ctx.call.db && source.bytes == destination.bytes {
        return Err(CommandError::SAME_OBJECT);
    }

    let may =
        ctx.shard.lookup_read(ctx.call, source).is_some() && (replace || !ctx.shard.exists(db, destination));
    let Some(entry) = ctx.shard.lookup_stored(ctx.call.db, source).filter(|_| may) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let value = duplicate(entry, ctx.call.db, KeyPlace::of(db, destination.bytes))?;
    let expire_at_ms = entry.expire_at_ms();

    let access = ctx.shard.access.of_new();
    let entry = OwnedEntry { key: destination.bytes.into(), value, expire_at_ms, access };
    ctx.shard.put(ctx.call, db, destination.hash, entry, Event::COPY_TO);
    ctx.reply.integer(1);
    Ok(())
}

/// COPY's destination is in the database that its DB option names.
fn copy_db(args: Argv<'_>, position: usize, selected: u32, db_count: usize) -> u32 {
    let mut db = selected;
    let mut rest = args.iter().skip(3);
    while position == 2
        && let Some(option) = rest.next()
    {
        if args::is(option, "db") {
            db = rest.next().and_then(|index| args::database(index, db_count).ok()).unwrap_or(selected);
        }
    }
    db
}

pub(super) const MOVE: Command = Command::keys("move", 3, move_key)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE)
    .at(&[KeySpec::one(1, key_flag::RW | key_flag::ACCESS | key_flag::UPDATE)])
    .other_db(|args, db_count| args::database(args.arg(2), db_count).ok())
    .constant_time()
    .docs(
        Docs::new("generic", "1.0.0", "Moves a key to another database")
            .complexity("O(1)")
            .arguments("key#0 db:int"),
    );

/// MOVE key db. Reply: 1, or 0 if the key does not exist or the other database has it. Errors: no such database; it
/// is the selected one. O(1).
fn move_key(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let db = args::database(ctx.arg(2), ctx.shard.db_count())?;
    if db == ctx.call.db {
        return Err(CommandError::SAME_OBJECT);
    }

    let is_there = ctx.shard.change(ctx.call, key, Event::MOVE_FROM).is_some();
    let moves = is_there && !ctx.shard.exists(db, key);
    if moves {
        let from = (ctx.call.db, key, Event::MOVE_FROM);
        ctx.shard.move_key(ctx.call, from, (db, key, Event::MOVE_TO));
    }

    ctx.reply.integer(i64::from(moves));
    Ok(())
}

pub(super) const SWAPDB: Command = Command::keys("swapdb", 3, swapdb)
    .flags(flag::WRITE | flag::FAST)
    .acl(acl::KEYSPACE | acl::DANGEROUS)
    .scope(Scope::Every(KeyspaceLock::All))
    .merge(Merge::AllOk)
    .docs(
        Docs::new("server", "4.0.0", "Swaps two databases")
            .complexity(
                "O(N), where N is the number of clients that watch or wait for keys of the two databases",
            )
            .arguments("index1:int index2:int"),
    );

/// SWAPDB db1 db2. Clients of each database see the other from here on. Reply: OK. Errors: not an integer, a text for
/// each; no such database. O(1).
fn swapdb(ctx: &mut Ctx<'_>) -> CommandResult {
    let first =
        args::integer_32(ctx.arg(1)).map_err(|_| CommandError::fixed("ERR invalid first DB index"))?;
    let second =
        args::integer_32(ctx.arg(2)).map_err(|_| CommandError::fixed("ERR invalid second DB index"))?;
    let db_count = ctx.shard.db_count();
    let index = |db: i32| u32::try_from(db).ok().filter(|&db| (db as usize) < db_count);
    let (Some(first), Some(second)) = (index(first), index(second)) else {
        return Err(CommandError::DB_OUT_OF_RANGE);
    };

    ctx.shard.swap_dbs(first, second);
    // Every shard swaps, but it counts as one change.
    ctx.shard.changed(u64::from(ctx.shard.index == 0));

    ctx.reply.ok();
    Ok(())
}
