//! DEBUG's verbs about the append-only file. Two of them are the server's own: it runs them when it loads the file, because
//! they have to lock the keys of all shards at a certain place among the commands.

use crate::command::{CommandError, CommandResult};
use crate::modules::events::{self, Loading};
use crate::persist::rdb::file::FileReader;
use crate::protocol::number::parse_i64;
use crate::runtime::clock::SystemClock;
use crate::runtime::disk::SystemDisk;
use crate::runtime::log;
use crate::shard::lazyfree::Freeing;
use crate::shard::message::ReplyId;
use crate::worker::aof::files::AofFiles;
use crate::worker::aof::load::{self, Commands, Failure};
use crate::worker::link::LinkState;
use crate::worker::load::{Duplicates, Pacing};
use crate::worker::snapshot::Purpose;
use crate::worker::{Globals, SessionCtx};

/// AOF-FLUSH-SLEEP microseconds. The writer of the append-only file waits for so long before each write. Reply: OK.
pub(super) fn flush_sleep(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let sleep_us = parse_i64(ctx.arg(2)).unwrap_or(0).max(0);
    ctx.worker.globals.aof.set_flush_sleep_us(sleep_us as u64);
    ctx.reply.ok();
    Ok(())
}

/// # Errors
/// The caller is a client.
pub(super) fn only_server(ctx: &SessionCtx<'_>) -> CommandResult {
    match ctx.call.client {
        0 => Ok(()),
        _ => Err(CommandError::wrong_subcommand("DEBUG", ctx.arg(1))),
    }
}

/// AOF-PART number [RESETSTAT]. The server's own: what follows is recorded for this part of the append-only file. With
/// RESETSTAT, the counters of INFO go back to zero: the commands of a file that was loaded at the start are no clients'.
/// Reply: OK.
pub(super) fn begin_part(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let number = parse_i64(ctx.arg(2)).ok_or(CommandError::NOT_INTEGER)?;
    let shard = &mut ctx.worker.shard;
    shard.effects.begin_part(number as u64, shard.stats.dirty.get());
    if ctx.args.len() > 3 {
        shard.stats.reset();
    }
    ctx.reply.ok();
    Ok(())
}

/// AOF-RELOAD. The server's own: removes all keys, and loads those of the base if that is an RDB file, each shard its own. What
/// follows is not recorded. Reply: OK. A base that cannot be read ends the server, as in Redis.
pub(super) fn reload_base(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let worker = &mut *ctx.worker;
    worker.cancel_snapshot(&[Purpose::Rewrite]);
    worker.shard.effects.end_file();
    worker.shard.flush_all(Freeing::Now);
    worker.drop_libraries();

    let mut load = || -> Result<(), String> {
        let files = AofFiles::open(&SystemDisk, &worker.shard.config)?;
        let Some(base) = files.manifest.files().next() else { return Ok(()) };
        if !load::begins_with_rdb(&files, &SystemDisk, base)? {
            return Ok(());
        }
        let mut source = load::open(&files, &SystemDisk, base)?;
        let mut reader = FileReader::new(worker.shard.config.rdbchecksum);
        let outcome = worker.reload(&mut source, &mut reader, Duplicates::Refused);
        outcome.map_err(|error| error.to_string())
    };
    if let Err(why) = load() {
        log::warning(format_args!("Error trying to load the AOF files: {why}"));
        std::process::exit(1);
    }
    ctx.reply.ok();
    Ok(())
}

/// LOADAOF. Loads the append-only file in place of what is there, also if it is off. Reply: OK, when that is done. Errors:
/// there is none (Redis removes all keys, and ends); something is being loaded already. A file that cannot be loaded ends the
/// server, as in Redis.
pub(super) fn load(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let globals = ctx.worker.globals;
    let is_there =
        || AofFiles::read(&SystemDisk, &globals.config().1).is_ok_and(|files| !files.manifest.is_empty());
    if !globals.aof.is_on() && !is_there() {
        return Err(CommandError::fixed("ERR There is no append-only file"));
    }
    if globals.persistence.loading.is_on() {
        return Err(CommandError::LOADING);
    }
    if globals.link.is_replica()
        && matches!(globals.link.figures().state, LinkState::Sync | LinkState::Connected)
    {
        return Err(CommandError::fixed("ERR The master of this replica sends it its data set"));
    }
    let Some(at) = ctx.conn else { return Err(CommandError::fixed("ERR DEBUG LOADAOF needs a connection")) };

    let reply_id = ctx.worker.reply_later(at);
    globals.persistence.loading.begin(0, ctx.worker.shard.now_ms);
    globals.persistence.loading.begin_replay();
    let home = ctx.worker.shard.index;
    let thread = std::thread::Builder::new().name("aof-loader".to_owned());
    let thread = thread.spawn(move || match reload(globals, home, reply_id) {
        Ok(()) => log::warning(format_args!("Append Only File loaded by DEBUG LOADAOF")),
        Err(Failure::Stopped) => {}
        Err(Failure::Line(line)) => {
            log::warning(format_args!("{line}"));
            std::process::exit(1);
        }
    });
    thread.expect("the system can start a thread");
    Ok(())
}

/// Loads the file on a thread of its own.
fn reload(globals: &'static Globals, home: usize, reply_id: ReplyId) -> Result<(), Failure> {
    events::tell_loading(Loading::Aof);
    let mut commands = Commands::begin(globals, None);
    commands.request(&["DEBUG", "AOF-RELOAD"])?;
    commands.finish()?;
    // Now all that was recorded before is with the writer.
    globals.aof.flush();
    let (_, config) = globals.config();
    let files = AofFiles::open(&SystemDisk, &config).map_err(Failure::Line)?;
    let rdb_end = match files.manifest.files().next() {
        Some(base) if load::begins_with_rdb(&files, &SystemDisk, base).map_err(Failure::Line)? => {
            load::end_of_rdb(&files, &SystemDisk, base).map_err(Failure::Line)?
        }
        Some(_) | None => 0,
    };
    let mut commands = Commands::begin(globals, None);
    let pacing = Pacing { delay_us: config.key_load_delay_us, clock: SystemClock::get() };
    load::run_commands(&files, &SystemDisk, rdb_end, &mut commands, &pacing)?;
    if globals.aof.is_on() {
        commands.request(&["DEBUG", "AOF-PART", &globals.aof.current_part().to_string()])?;
    }
    commands.finish()?;
    // Modules know of it when the client has its reply.
    events::tell_loading(Loading::Ended);
    Commands::begin(globals, Some((home, reply_id))).finish()
}
