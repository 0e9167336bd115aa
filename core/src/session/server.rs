//! Commands to the server as a whole: the time, its end, and its picture.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::table::{Command, flag};
use crate::command::{CommandError, CommandResult};
use crate::protocol::{Argv, until_nul};
use crate::runtime::log;
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler, ShutdownOptions};
use crate::{REDIS_VERSION, SHARDIS_VERSION};

pub const COMMANDS: &[Command] = &[LOLWUT, MONITOR, SHUTDOWN, TIME];

const TIME: Command = session("time", 1, &(time as SessionHandler))
    .flags(flag::LOADING | flag::STALE | flag::FAST)
    .constant_time()
    .docs(
        Docs::new("server", "2.6.0", "Tells the server's time")
            .complexity("O(1)")
            .tips(&["nondeterministic_output"]),
    );

/// TIME. Reply: array of two strings, unix time in seconds and the microseconds of the current one. O(1).
fn time(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let now_us = ctx.worker.clock().wall_us();

    ctx.reply.array(2);
    ctx.reply.bulk_i64(now_us.div_euclid(1_000_000));
    ctx.reply.bulk_i64(now_us.rem_euclid(1_000_000));
    Ok(())
}

const MONITOR: Command = session("monitor", 1, &(monitor as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE)
    .constant_time()
    .docs(Docs::new("server", "1.0.0", "Shows all commands that the server runs").complexity("O(1)"));

/// MONITOR. Reply: OK, and then a status line for each command that any client runs; nothing, if the client has called it
/// before. Errors: in an EXEC. O(1).
fn monitor(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let Some(at) = ctx.conn.filter(|_| !ctx.call.in_exec) else {
        return Err(CommandError::fixed("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    };
    if ctx.client().is_replica() || ctx.client().monitors_since.is_some() {
        return Ok(());
    }

    let position = ctx.worker.position_to_subscribe();
    ctx.worker.begin_monitor(at, position);

    ctx.worker.confirm(at, (position, Vec::new()), b"+OK\r\n".to_vec(), false, &mut ctx.reply);
    Ok(())
}

const SHUTDOWN: Command = session("shutdown", -1, &(shutdown as SessionHandler))
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::NO_MULTI | flag::ALLOW_BUSY)
    .docs(
        Docs::new("server", "1.0.0", "Stops the server")
            .complexity(
                "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise \
                 O(1)",
            )
            .arguments("[NOSAVE | SAVE] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]")
            .history(&[("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers.")]),
    );

/// What SHUTDOWN's words ask for.
#[derive(PartialEq, Eq, Debug)]
enum Shutdown {
    Begin(ShutdownOptions),
    Abort,
}

fn parse_shutdown(args: Argv<'_>) -> CommandResult<Shutdown> {
    let (mut wanted, mut abort) = (ShutdownOptions::default(), false);
    for word in args.iter().skip(1) {
        let is_wanted = match until_nul(word).to_ascii_lowercase().as_slice() {
            b"save" => &mut wanted.save,
            b"nosave" => &mut wanted.nosave,
            b"now" => &mut wanted.now,
            b"force" => &mut wanted.force,
            b"abort" => &mut abort,
            _ => return Err(CommandError::SYNTAX),
        };
        *is_wanted = true;
    }
    match (abort, wanted.save && wanted.nosave) {
        (false, false) => Ok(Shutdown::Begin(wanted)),
        (true, false) if args.len() == 2 => Ok(Shutdown::Abort),
        (true | false, _) => Err(CommandError::SYNTAX),
    }
}

/// SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] | ABORT. Waits until all replicas have what was written, for `shutdown-timeout` at most and
/// without NOW. Then saves, if it is told so, or if there are save points. No reply: the connection ends with the server. ABORT ends
/// the waiting, or takes a signal back that the server has not come to yet, and replies OK; a shutdown that saves already is not to be
/// stopped. Errors: ABORT, and there is nothing to be ended; BUSY, without NOSAVE; ABORT has come; the file cannot be written, or an
/// append-only file that was turned on has no base yet, without FORCE.
fn shutdown(ctx: &mut SessionCtx<'_>) -> CommandResult {
    let wanted = match parse_shutdown(ctx.args)? {
        Shutdown::Begin(wanted) => wanted,
        Shutdown::Abort if ctx.worker.abort_shutdown() => {
            log::notice(format_args!("Shutdown manually aborted."));
            ctx.reply.ok();
            return Ok(());
        }
        Shutdown::Abort => return Err(CommandError::fixed("ERR No shutdown in progress.")),
    };

    if !wanted.nosave
        && let Some(kind) = ctx.worker.busy_program()
    {
        return Err(ctx.worker.busy_error(kind));
    }
    ctx.worker.begin_shutdown(ctx.conn, wanted);
    Ok(())
}

const LOLWUT: Command = session("lolwut", -1, &(lolwut as SessionHandler))
    .flags(flag::READONLY | flag::FAST)
    .constant_time()
    .docs(
        Docs::new("server", "5.0.0", "Shows a picture, and the versions")
            .complexity("O(1)")
            .arguments("[VERSION version:int]"),
    );

/// Redis' pictures of versions 5 and 6 take three and two measures; here they are judged and not used.
fn check_lolwut(args: Argv<'_>) -> CommandResult {
    if args.len() < 3 || !args::is(args.arg(1), "version") {
        return Ok(());
    }
    let measure_count = match args::integer(args.arg(2))? {
        5 => 3,
        6 => 2,
        _ => 0,
    };
    args.iter().skip(3).take(measure_count).try_for_each(|measure| args::integer(measure).map(drop))
}

/// LOLWUT [VERSION version [measure ...]]. Reply: text. All versions show the same picture, never twice the same one.
/// Errors: a version or measure that is no integer.
fn lolwut(ctx: &mut SessionCtx<'_>) -> CommandResult {
    check_lolwut(ctx.args)?;

    let shard_count = ctx.worker.shard.shard_count;
    let mut picture = broken_pane(shard_count.max(SHARDS_SHOWN_MIN), &mut || ctx.worker.shard.random());
    picture.push_str(&format!("\nA pane of glass. Shardis {SHARDIS_VERSION}\nRedis ver. {REDIS_VERSION}\n"));

    ctx.reply.verbatim("txt", picture.as_bytes());
    Ok(())
}

const PANE_WIDTH: usize = 64;
const PANE_HEIGHT: usize = 20;
/// One or two pieces are no picture; more than fit are none either.
const SHARDS_SHOWN_MIN: usize = 5;
const SHARDS_SHOWN_MAX: usize = 40;

/// A pane of glass in pieces: each point belongs to the nearest of `shard_count` centres, and has that one's shade.
fn broken_pane(shard_count: usize, random: &mut dyn FnMut() -> u64) -> String {
    const SHADES: &[u8] = b" .:-=+*%#@";
    let shard_count = shard_count.min(SHARDS_SHOWN_MAX);
    let centres: Vec<(i64, i64, u8)> = (0..shard_count)
        .map(|n| {
            let x = random() % PANE_WIDTH as u64;
            let y = random() % PANE_HEIGHT as u64;
            (x as i64, y as i64, SHADES[n % SHADES.len()])
        })
        .collect();
    let mut picture = String::with_capacity((PANE_WIDTH + 1) * PANE_HEIGHT);
    for y in 0..PANE_HEIGHT as i64 {
        for x in 0..PANE_WIDTH as i64 {
            // A character is about twice as high as wide.
            let distance = |&&(cx, cy, _): &&(i64, i64, u8)| (x - cx).pow(2) + 4 * (y - cy).pow(2);
            let (_, _, shade) = centres.iter().min_by_key(distance).expect("there is a centre");
            picture.push(char::from(*shade));
        }
        picture.push('\n');
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;
    use crate::testing::Rng;

    fn parsed(args: &[&str]) -> CommandResult<Shutdown> {
        parse_shutdown(OwnedArgv::from_slices(args).as_argv())
    }

    #[test]
    fn shutdown_takes_its_words_together_unless_they_contradict_each_other() {
        let none = ShutdownOptions::default();
        assert_eq!(parsed(&["SHUTDOWN"]), Ok(Shutdown::Begin(none)));
        assert_eq!(
            parsed(&["SHUTDOWN", "nosave", "NOW", "force"]),
            Ok(Shutdown::Begin(ShutdownOptions { nosave: true, now: true, force: true, ..none }))
        );
        assert_eq!(parsed(&["SHUTDOWN", "ABORT"]), Ok(Shutdown::Abort));
        for bad in [&["SHUTDOWN", "SAVE", "NOSAVE"][..], &["SHUTDOWN", "ABORT", "NOW"], &["SHUTDOWN", "x"]] {
            assert_eq!(parsed(bad), Err(CommandError::SYNTAX));
        }
    }

    #[test]
    fn the_pane_is_full_and_has_all_its_pieces() {
        let mut rng = Rng::new(1);
        let picture = broken_pane(5, &mut || rng.next());
        assert_eq!(picture.lines().count(), PANE_HEIGHT);
        assert!(picture.lines().all(|line| line.len() == PANE_WIDTH));
        let shades: std::collections::BTreeSet<char> =
            picture.chars().filter(|&shade| shade != '\n').collect();
        assert_eq!(shades.len(), 5);
    }
}
