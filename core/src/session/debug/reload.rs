//! DEBUG RELOAD where a module has types of its own that has one callback at a time called.
//!
//! Such a callback may take long, and let others run meanwhile (`RM_Yield`). So that no shard waits for it, a thread reads what was
//! saved and has the values made, as when the server starts, and hands them to the shards. Commands are refused with -LOADING
//! meanwhile, and the client has its reply when all is loaded.

use super::aof::only_server;
use super::{Reload, not_loaded};
use crate::command::{CommandError, CommandResult, args};
use crate::modules::events::{self, Loading, Saving};
use crate::modules::has_types_that_take_turns;
use crate::persist::rdb::window::FileError;
use crate::persist::rdb::write::{Writer, end_of_file};
use crate::protocol::Argv;
use crate::runtime::clock::SystemClock;
use crate::runtime::disk::{Disk, SystemDisk};
use crate::runtime::log;
use crate::shard::lazyfree::Freeing;
use crate::shard::message::ReplyId;
use crate::types::module::AuxPlace;
use crate::worker::aof::load::{Commands, Failure};
use crate::worker::feed::AtEnd;
use crate::worker::load::{self, LoadError};
use crate::worker::{Globals, SessionCtx};
use std::io::Read;

/// Whether RELOAD, with these arguments, is done by a thread.
pub(super) fn is_by_thread(args: Argv<'_>) -> bool {
    let flushes = || Reload::parse(args).is_ok_and(|wanted| wanted.flushes);
    args::is(args.arg(1), "reload") && flushes() && has_types_that_take_turns()
}

/// RELOAD [NOSAVE] [MERGE], at home. Reply: OK, when all is loaded. Errors: something is being loaded already; the file cannot be
/// read.
pub(super) fn begin(ctx: &mut SessionCtx<'_>, wanted: &Reload) -> CommandResult {
    let globals = ctx.worker.globals;
    if globals.persistence.loading.is_under_way() {
        return Err(CommandError::LOADING);
    }
    let Some(at) = ctx.conn else {
        return Err(CommandError::fixed("ERR DEBUG RELOAD needs a connection while modules have types"));
    };

    let reply_id = ctx.worker.reply_later(at);
    globals.persistence.loading.begin(0, ctx.worker.shard.now_ms);
    let (home, saves) = (ctx.worker.shard.index, wanted.saves);
    let thread = std::thread::Builder::new().name("reloader".to_owned());
    let thread = thread.spawn(move || run(globals, home, reply_id, saves));
    thread.expect("the system can start a thread");
    Ok(())
}

/// RELOAD-BEGIN SAVE|NOSAVE. The server's own: saves the shard's keys, removes them, and begins to load what it is offered.
/// Reply: OK.
pub(super) fn begin_part(ctx: &mut SessionCtx<'_>) -> CommandResult {
    only_server(ctx)?;
    let saves = args::is(ctx.args.arg(2), "save");
    let worker = &mut *ctx.worker;
    let tells = worker.shard.index == 0;
    if saves {
        if tells {
            events::tell_saving(Saving::Rdb);
        }
        let mut saved = worker.save_aux(AuxPlace::BeforeKeys);
        // It is loaded from memory, whatever has become of the file.
        let _ = worker.save_part(&mut |chunk| saved.extend_from_slice(chunk));
        saved.extend_from_slice(&worker.save_aux(AuxPlace::AfterKeys));
        worker.globals.persistence.loading.put_saved(worker.shard.index, saved);
        if tells {
            events::tell_saving(Saving::Ended);
        }
    } else {
        // The file has the libraries; what was saved just now has none.
        worker.drop_libraries();
    }
    worker.shard.flush_all(Freeing::Now);
    worker.load_offered();

    ctx.reply.ok();
    Ok(())
}

/// Has everything loaded, and the client answered.
fn run(globals: &'static Globals, home: usize, reply_id: ReplyId, saves: bool) {
    let loaded = reload(globals, saves);
    if matches!(loaded, Err(LoadError::Stopped)) && globals.is_stopping() {
        return;
    }
    events::tell_loading(if loaded.is_ok() { Loading::Ended } else { Loading::Failed });
    let reply = match loaded {
        Ok(()) => {
            log::warning(format_args!("DB reloaded by DEBUG RELOAD"));
            b"+OK\r\n".to_vec()
        }
        Err(why) => [b"-", not_loaded(&why).as_bytes(), b"\r\n"].concat(),
    };
    globals.persistence.loading.end();
    // If nobody takes it, the server stops.
    let _ = Commands::begin_with(globals, AtEnd::Reply(home, reply_id, reply)).finish();
}

fn reload(globals: &'static Globals, saves: bool) -> Result<(), LoadError> {
    let (_, config) = globals.config();
    let loading = &globals.persistence.loading;
    let wakes = (0..globals.stats.len())
        .map(|shard| Box::new(move || globals.aof.ring(shard)) as Box<dyn Fn() + Send>);
    let (queues, incoming, done) = load::queues(wakes, false);
    loading.offer(incoming);
    let mut commands = Commands::begin(globals, None);
    let begun = commands.request(&["DEBUG", "RELOAD-BEGIN", if saves { "SAVE" } else { "NOSAVE" }]);
    begun.and_then(|()| commands.finish()).map_err(|_: Failure| LoadError::Stopped)?;
    events::tell_loading(Loading::Rdb);
    if saves {
        let mut header = Vec::new();
        Writer::new(&mut header, false).header();
        let (saved, end) = (loading.take_saved(), end_of_file(None));
        let mut source = header.chain(&saved[..]).chain(&end[..]);
        load::load_file(&mut source, globals, queues, &done, SystemClock::get())?;
    } else {
        let mut source = SystemDisk.reader(config.dbfilename.as_path()).map_err(FileError::Io)?;
        load::load_file(&mut source, globals, queues, &done, SystemClock::get())?;
    }
    Ok(())
}
