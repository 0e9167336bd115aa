//! Following a master: its snapshot replaces what is here, and then its stream is applied, run by run.

use super::handshake::{LOOK_INTERVAL, Start, Talk, is_timeout};
use super::runs::Runs;
use super::{Ended, LinkState, LinkThread, Master};
use crate::command::table::CommandTable;
use crate::command::{args, gate};
use crate::persist::aof::read::{AofError, AofItem, AofReader, Commands as UnitCommands};
use crate::protocol::Argv;
use crate::runtime::log;
use crate::runtime::outgoing::Outgoing;
use crate::shard::message::ReplyId;
use crate::worker::Globals;
use crate::worker::aof::Aof;
use crate::worker::aof::load::{Commands, Failure};
use crate::worker::divergence::{self, Sender};
use crate::worker::feed::{AtEnd, Chunk, FEED_SHARD, Feed};
use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

/// How many runs may wait for the shard.
const RUNS_WAITING_MAX: usize = 256;
/// So often the master is told how far this server is, even if it does not ask.
const ACK_INTERVAL_MS: i64 = 1000;
/// A master that writes all the time is read after such pauses, so that its stream is applied in fewer and longer runs: what a run
/// costs hardly depends on what is in it. ...
const GATHER_PAUSE: Duration = Duration::from_micros(100);
/// ... It does so if it has sent something within this time, and ...
const GATHER_INTERVAL: Duration = Duration::from_millis(1);
/// ... if it was less than this.
const GATHER_LEN: usize = 64 << 10;
/// While shards are waited for, how often it is looked how far they are.
const TURN_LOOK: Duration = Duration::from_millis(1);

/// Runs commands of the server's own, and waits for them. `None`: the server stops.
fn run_own(globals: &Globals, requests: &[&[&str]], at_end: AtEnd) -> Option<()> {
    let mut commands = Commands::begin_with(globals, at_end);
    let outcome = requests.iter().try_for_each(|words| commands.request(words));
    match outcome.and_then(|()| commands.finish()) {
        Ok(()) => Some(()),
        Err(Failure::Line(line)) => {
            log::warning(format_args!("{line}"));
            Some(())
        }
        Err(Failure::Stopped) => None,
    }
}

/// From here on the stream goes on under a new name, and if it is kept, the shards record for it what this server does. `first`:
/// requests that are the first of what follows. `None`: the server stops.
pub fn continue_stream(globals: &Globals, now_ms: i64, first: &[u8]) -> Option<()> {
    let stream = &globals.stream;
    stream.shift_id(now_ms);
    if stream.backlog.is_active() {
        stream.backlog.append(first);
        stream.backlog.trim(globals.config().1.repl_backlog_size_bytes, stream.needed_from());
    }
    let number = stream.next_sync().to_string();
    let requests: &[&[&str]] = &[&["DEBUG", "REPLICA-OFFSET"], &["DEBUG", "REPLICA-PROMOTE", &number]];
    run_own(globals, if stream.backlog.is_active() { requests } else { &[] }, AtEnd::Nothing)
}

impl LinkThread {
    pub(super) fn note_input(&self, len_bytes: usize) {
        let now_ms = self.clock.wall_ms();
        let link = &self.globals.link;
        link.change_figures(|figures| figures.last_io_ms = now_ms);
        link.input_bytes.fetch_add(len_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn run_own(&self, requests: &[&[&str]], at_end: AtEnd) -> Option<()> {
        run_own(self.globals, requests, at_end)
    }

    /// From here on what this server does itself is no part of the stream, which ends where it is. `None`: the server stops.
    pub(super) fn demote(&self) -> Option<()> {
        // What the shards have let in until they learned of it reaches those of its keys before the barrier.
        for _ in 0..2 {
            self.await_turns()?;
        }
        // Twice: what the shards had recorded is with the merging shard when the first one is over.
        self.run_own(&[&["DEBUG", "REPLICA-BEGIN"], &["DEBUG", "REPLICA-BEGIN"]], AtEnd::Nothing)
    }

    /// Waits until every shard has ended its turn, and has begun another one. `None`: the server stops.
    fn await_turns(&self) -> Option<()> {
        let before = self.globals.turn_counts();
        while !self.globals.have_turned_since(&before) {
            if self.globals.is_stopping() {
                return None;
            }
            self.globals.ring_all();
            self.clock.sleep(TURN_LOOK);
        }
        Some(())
    }

    /// All that was received is applied. From here on this server is a master. `None`: it stops.
    pub(super) fn promote(&self, replies: Vec<(usize, ReplyId)>) -> Option<()> {
        let at_end = AtEnd::Promotion(replies);
        if !self.globals.link.is_replica() {
            return self.run_own(&[], at_end);
        }
        log::notice(format_args!("MASTER MODE enabled (user request)"));
        continue_stream(self.globals, self.clock.wall_ms(), &[])?;
        if self.globals.config().1.appendonly && !self.globals.aof.is_on() {
            // It was turned off to load a snapshot that has not come.
            Aof::turn_on(self.globals, self.clock);
        }
        // Those of this server are to learn of the new name, and go on.
        self.run_own(&[&["DEBUG", "REPLICA-CUT"]], at_end)
    }

    /// Follows the master until something comes between.
    pub(super) fn follow_once(&self, master: &Master) -> Ended {
        match self.try_follow(master) {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    fn try_follow(&self, master: &Master) -> Result<std::convert::Infallible, Ended> {
        let (globals, link) = (self.globals, &self.globals.link);
        let mut talk = Talk::connect(self, master)?;
        match talk.shake_hands()? {
            Start::Full { id, offset } => {
                self.synchronize(&mut talk, &id)?;
                globals.stream.set_history(id, offset);
                log::notice(format_args!("MASTER <-> REPLICA sync: Finished with success"));
            }
            Start::Partial { id } => {
                if let Some(id) = id.filter(|id| *id != globals.stream.ids().id) {
                    log::notice(format_args!("Master replication ID changed to {id}"));
                    globals.stream.take_over_id(id);
                    // They are to learn of it.
                    self.run_own(&[&["DEBUG", "REPLICA-CUT"]], AtEnd::Nothing).ok_or(Ended::Ordered)?;
                }
                log::notice(format_args!(
                    "MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization."
                ));
            }
        }
        link.set_state(LinkState::Connected);
        self.tell_link(true);
        link.acknowledge(globals.stream.backlog.end());
        self.apply(talk)
    }

    fn apply(&self, talk: Talk<'_>) -> Result<std::convert::Infallible, Ended> {
        let Talk { socket, buffer, .. } = talk;
        let start = self.globals.stream.backlog.end();
        let (chunks, inbox) = sync_channel(RUNS_WAITING_MAX);
        let (done, is_done) = channel();
        let feed = Feed { chunks: inbox, done, at_end: AtEnd::Nothing, is_stream: true };
        self.globals.feed.put(feed);
        self.globals.aof.ring(FEED_SHARD);
        let runs = RefCell::new(RunSender {
            thread: self,
            chunks,
            table: self.globals.table().1,
            runs: Runs::new(self.globals),
        });
        let mut source = Source {
            thread: self,
            socket: &socket,
            first: buffer,
            runs: &runs,
            acked_at_ms: 0,
            read_at_ticks: self.clock.ticks(),
            gathers: false,
        };
        let ended = self.read_units(&mut source, &runs, start);
        drop(source);
        socket.shut();
        // What is whole is applied before anything else happens.
        let last = runs.borrow_mut().send();
        drop(runs);
        self.globals.aof.ring(FEED_SHARD);
        self.await_end(&is_done)?;
        last?;
        Err(ended)
    }

    fn await_end(&self, is_done: &Receiver<bool>) -> Result<(), Ended> {
        match is_done.recv() {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Ended::Hopeless("A command of the master has ended its own connection".to_owned()))
            }
            Err(_) => Err(Ended::Ordered),
        }
    }

    fn read_units(&self, source: &mut Source<'_, '_>, runs: &RefCell<RunSender<'_>>, start: u64) -> Ended {
        let link = &self.globals.link;
        let mut reader = AofReader::of_stream(source, start);
        loop {
            let offset = reader.offset();
            let taken = match reader.next_item() {
                Ok(Some(AofItem::Unit { bytes, commands })) => {
                    link.read_offset.store(offset + bytes.len() as u64, Ordering::Relaxed);
                    runs.borrow_mut().add(bytes, commands, offset)
                }
                Ok(Some(AofItem::Annotation(_))) | Err(AofError::Damaged { .. }) => Err(Ended::Hopeless(
                    format!("Protocol error from master: what comes at offset {offset} is no command"),
                )),
                Ok(None) | Err(AofError::Truncated { .. }) => Err(Ended::Again),
                Err(AofError::Io(_)) if self.has_order() => Err(Ended::Ordered),
                Err(AofError::Io(error)) => Err(error.into()),
            };
            if let Err(ended) = taken {
                return ended;
            }
        }
    }
}

/// The way of the stream's units to the shard.
struct RunSender<'t> {
    thread: &'t LinkThread,
    chunks: SyncSender<Chunk>,
    table: &'static CommandTable,
    runs: Runs,
}

impl RunSender<'_> {
    fn add(&mut self, bytes: &[u8], commands: UnitCommands<'_>, offset: u64) -> Result<(), Ended> {
        let globals = self.thread.globals;
        let mut wants_ack = false;
        for argv in commands.iter() {
            self.tell_unrunnable(argv, offset)?;
            wants_ack |=
                argv.len() > 1 && args::is(argv.arg(0), "replconf") && args::is(argv.arg(1), "getack");
        }
        let (thread, chunks) = (self.thread, &self.chunks);
        self.runs.add(bytes, commands, &mut |run| hand_over(thread, chunks, run))?;
        if wants_ack {
            globals.link.ack_wanted.store(offset + 1, Ordering::SeqCst);
            self.send()?;
        }
        Ok(())
    }

    /// A command that does not even begin to run is told of here, the others when they fail. One that this server does not know
    /// ends the link: what it would have done is missing from here on.
    fn tell_unrunnable(&mut self, argv: Argv<'_>, offset: u64) -> Result<(), Ended> {
        let globals = self.thread.globals;
        if gate::resolve(self.table, argv).is_ok() {
            return Ok(());
        }
        // A module may have added it meanwhile.
        (_, self.table) = globals.table();
        let Err(error) = gate::resolve(self.table, argv) else { return Ok(()) };
        let known = gate::named(self.table, argv).map(|entry| entry.full_name.as_str());
        divergence::tell(globals, Sender::Master, known, &error.text());
        if globals.knows_command(argv.arg(0)) || globals.config().1.propagation_errors.is_chosen {
            return Ok(());
        }
        let name = argv.arg(0).escape_ascii();
        Err(Ended::Hopeless(format!(
            "The master sends a command that this server does not know, '{name}', at offset {offset}"
        )))
    }

    /// Hands over what has come.
    fn send(&mut self) -> Result<(), Ended> {
        let (thread, chunks) = (self.thread, &self.chunks);
        self.runs.end(&mut |run| hand_over(thread, chunks, run))
    }
}

fn hand_over(thread: &LinkThread, chunks: &SyncSender<Chunk>, run: Chunk) -> Result<(), Ended> {
    let run = match chunks.try_send(run) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Full(run)) => run,
        Err(TrySendError::Disconnected(_)) => return Err(Ended::Ordered),
    };
    thread.globals.aof.ring(FEED_SHARD);
    chunks.send(run).map_err(|_| Ended::Ordered)
}

/// What the master sends. Before it waits for more, what has come is handed over.
struct Source<'t, 'r> {
    thread: &'t LinkThread,
    socket: &'r Arc<Outgoing>,
    /// What was read with the snapshot.
    first: Vec<u8>,
    runs: &'r RefCell<RunSender<'t>>,
    acked_at_ms: i64,
    /// When something was read last, in ticks, ...
    read_at_ticks: u64,
    /// ... and whether the next is to be read after a pause.
    gathers: bool,
}

impl Source<'_, '_> {
    fn note_read(&mut self, len_bytes: usize) {
        let now_ticks = self.thread.clock.ticks();
        let nanos = self.thread.clock.ticks_to_nanos(now_ticks.saturating_sub(self.read_at_ticks));
        self.gathers = len_bytes < GATHER_LEN && u128::from(nanos) < GATHER_INTERVAL.as_nanos();
        self.read_at_ticks = now_ticks;
    }
}

impl Read for Source<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.first.is_empty() {
            let len = self.first.len().min(buf.len());
            buf[..len].copy_from_slice(&self.first[..len]);
            self.first.drain(..len);
            return Ok(len);
        }
        let (thread, globals) = (self.thread, self.thread.globals);
        let ended = || io::Error::from(io::ErrorKind::ConnectionAborted);
        self.runs.borrow_mut().send().map_err(|_| ended())?;
        globals.aof.ring(FEED_SHARD);
        let began_ms = thread.clock.wall_ms();
        let timeout_ms = i64::from(globals.config().1.repl_timeout_s) * 1000;
        if self.gathers {
            thread.clock.sleep(GATHER_PAUSE);
        }
        loop {
            let now_ms = thread.clock.wall_ms();
            if now_ms - self.acked_at_ms >= ACK_INTERVAL_MS {
                self.acked_at_ms = now_ms;
                globals.link.acknowledge(globals.stream.backlog.end());
            }
            match (&**self.socket).read(buf) {
                Ok(len) => {
                    self.note_read(len);
                    thread.note_input(len);
                    return Ok(len);
                }
                Err(error) if is_timeout(&error) => {
                    if thread.has_order() {
                        return Err(ended());
                    }
                    if now_ms - began_ms > timeout_ms {
                        let why = "MASTER timeout: no data nor PING received...";
                        log::warning(format_args!("{why}"));
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

const _: () = assert!(LOOK_INTERVAL.as_millis() as i64 <= ACK_INTERVAL_MS);
