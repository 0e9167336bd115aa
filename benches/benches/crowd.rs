//! The floor of many shards on one core: threads that do nothing but exchange messages, as many as the shards of a server
//! and as full as theirs at pipeline 16, by the server's own mesh.
//!
//! Each thread has three connections' pipelines of 16 under way, whose commands are for keys anywhere. A command is 40
//! bytes that are written into a message to the key's shard, all of a turn for one shard in one message; there they are
//! read and 70 bytes of reply written in their place, and back home these are copied to where the socket would be.
//! All threads run on the first core (by taskset). There are no sockets, no parsing, no tables and no statistics. What is left in user space is what the messages
//! themselves cost: a message of the server touches more lines, as do the commands, so this is less than any server needs.
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use shardis_core::runtime::driver::{BellHandle, CloseReason, ConnId, Driver, Events, PeerAddr};
use shardis_core::runtime::epoll::EpollDriver;
use shardis_core::runtime::mesh::{MeshEnd, Parcel, build, capacity};

const SHARD_COUNTS: [usize; 3] = [4, 8, 16];
const CONNECTIONS: usize = 50;
const PIPELINE: usize = 16;
const COMMAND_LEN: usize = 40;
const REPLY_LEN: usize = 70;
/// More commands than this leave in another message.
const LETTER_COMMANDS_MAX: usize = 16;
/// Output of a thread, after which it begins anew: as a server's buffers are used again and again.
const OUTPUT_LEN: usize = 64 << 10;

const WARM_UP: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(3);
/// How long a thread that has nothing to do waits for its bell: a bound for the end of the bench.
const PATIENCE: Duration = Duration::from_millis(20);

/// Commands, or their replies, in one piece.
#[repr(align(64))]
struct Letter {
    count: usize,
    /// The connection of each.
    connections: [u8; LETTER_COMMANDS_MAX],
    bytes: [u8; LETTER_COMMANDS_MAX * REPLY_LEN],
}

impl Letter {
    fn new() -> Box<Letter> {
        Box::new(Letter {
            count: 0,
            connections: [0; LETTER_COMMANDS_MAX],
            bytes: [0; LETTER_COMMANDS_MAX * REPLY_LEN],
        })
    }
}

struct BellOnly;

impl Events for BellOnly {
    fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
    fn accept_failed(&mut self, _: usize, _: std::io::Error) {}
    fn received(&mut self, _: ConnId, _: &[u8]) {}
    fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
    fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
    fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
    fn send_failed(&mut self, _: ConnId, _: i32) {}
    fn bell(&mut self) {}
}

/// What all threads have counted so far.
#[derive(Default)]
struct Counts {
    commands: AtomicU64,
    messages: AtomicU64,
    turns: AtomicU64,
    is_over: AtomicBool,
}

struct Shard {
    index: usize,
    shard_count: usize,
    end: MeshEnd<Letter, Letter>,
    /// For each connection, how many replies of its pipeline are missing.
    missing: Vec<usize>,
    /// The letter of this turn for each shard.
    open: Vec<Option<Box<Letter>>>,
    #[allow(clippy::vec_box, reason = "letters travel in their boxes")]
    spare: Vec<Box<Letter>>,
    output: Vec<u8>,
    random: fastrand::Rng,
    /// Not published yet.
    commands: u64,
    messages: u64,
}

impl Shard {
    fn command_byte(&mut self) -> u8 {
        self.random.u8(..)
    }

    fn post(&mut self, to: usize) {
        if let Some(letter) = self.open[to].take() {
            self.messages += 1;
            self.end.send(to, Parcel::There(letter));
        }
    }

    /// Begins a pipeline of a connection.
    fn begin(&mut self, connection: usize) {
        self.missing[connection] = PIPELINE;
        for _ in 0..PIPELINE {
            let to = self.random.usize(..self.shard_count);
            let byte = self.command_byte();
            if to == self.index {
                self.reply(connection, &[byte; REPLY_LEN]);
                continue;
            }
            if self.open[to].as_ref().is_some_and(|letter| letter.count == LETTER_COMMANDS_MAX) {
                self.post(to);
            }
            let spare = &mut self.spare;
            let letter = self.open[to].get_or_insert_with(|| spare.pop().unwrap_or_else(Letter::new));
            let at = letter.count * COMMAND_LEN;
            letter.bytes[at..at + COMMAND_LEN].fill(byte);
            letter.connections[letter.count] = connection as u8;
            letter.count += 1;
        }
    }

    fn reply(&mut self, connection: usize, reply: &[u8]) {
        if self.output.len() + reply.len() > OUTPUT_LEN {
            self.output.clear();
        }
        self.output.extend_from_slice(reply);
        self.missing[connection] -= 1;
        self.commands += 1;
    }

    /// Runs the commands of a letter, which is to read them and to write replies.
    fn run(letter: &mut Letter) {
        let count = letter.count;
        let read =
            |at: usize| letter.bytes[at * COMMAND_LEN..(at + 1) * COMMAND_LEN].iter().fold(0, |a, b| a ^ b);
        let mut replies = [0; LETTER_COMMANDS_MAX];
        (0..count).for_each(|at| replies[at] = read(at));
        (0..count).for_each(|at| letter.bytes[at * REPLY_LEN..(at + 1) * REPLY_LEN].fill(replies[at]));
    }

    fn turn(&mut self, inbox: &mut Vec<(usize, Parcel<Letter, Letter>)>) -> bool {
        self.end.drain(usize::MAX, |from, parcel| inbox.push((from, parcel)));
        let is_busy = !inbox.is_empty();
        for (from, parcel) in inbox.drain(..) {
            match parcel {
                Parcel::There(mut letter) => {
                    Shard::run(&mut letter);
                    self.messages += 1;
                    self.end.send(from, Parcel::Back(letter));
                }
                Parcel::Back(mut letter) => {
                    for at in 0..letter.count {
                        let reply = &letter.bytes[at * REPLY_LEN..(at + 1) * REPLY_LEN];
                        self.reply(usize::from(letter.connections[at]), reply);
                    }
                    letter.count = 0;
                    self.spare.push(letter);
                }
                Parcel::Other(_) => unreachable!("no other messages are sent"),
            }
        }
        // A client asks again when it has read its replies, and mostly one at a time.
        let done = self.missing.iter().position(|&missing| missing == 0);
        done.into_iter().for_each(|connection| self.begin(connection));
        (0..self.shard_count).for_each(|to| self.post(to));
        self.end.flush();
        is_busy || done.is_some()
    }
}

/// Time of this process in user space, and in the kernel: `utime` and `stime` of proc(5), which are in ticks.
fn cpu_time() -> (Duration, Duration) {
    const TICKS_PER_S: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let (_, fields) = stat.rsplit_once(')').expect("the name of the program is in parentheses");
    let mut ticks = fields.split_ascii_whitespace().skip(11);
    let mut next = || {
        let ticks: u64 = ticks.next().and_then(|field| field.parse().ok()).expect("a number of ticks");
        Duration::from_millis(ticks * 1000 / TICKS_PER_S)
    };
    (next(), next())
}

fn run_shard(mut shard: Shard, bell: BellHandle, counts: &Counts) {
    let mut driver = EpollDriver::new(bell).expect("an epoll set");
    let mut inbox = Vec::new();
    while !counts.is_over.load(Ordering::Relaxed) {
        let is_busy = shard.turn(&mut inbox);
        counts.turns.fetch_add(1, Ordering::Relaxed);
        counts.commands.fetch_add(std::mem::take(&mut shard.commands), Ordering::Relaxed);
        counts.messages.fetch_add(std::mem::take(&mut shard.messages), Ordering::Relaxed);
        if !is_busy {
            if shard.end.prepare_sleep() {
                driver.turn(Some(PATIENCE), &mut BellOnly).expect("the driver works");
            }
            shard.end.woke();
        }
    }
}

fn measure(shard_count: usize) {
    let bells: Vec<BellHandle> =
        (0..shard_count).map(|_| BellHandle::new().expect("there are descriptors left")).collect();
    let ends = build(&bells, capacity(shard_count));
    let counts = Arc::new(Counts::default());
    let threads: Vec<_> = ends
        .into_iter()
        .zip(bells)
        .enumerate()
        .map(|(index, (end, bell))| {
            let connections = CONNECTIONS / shard_count + usize::from(index < CONNECTIONS % shard_count);
            let shard = Shard {
                index,
                shard_count,
                end,
                missing: vec![0; connections],
                open: (0..shard_count).map(|_| None).collect(),
                spare: Vec::new(),
                output: Vec::with_capacity(OUTPUT_LEN),
                random: fastrand::Rng::with_seed(index as u64),
                commands: 0,
                messages: 0,
            };
            let counts = Arc::clone(&counts);
            thread::spawn(move || run_shard(shard, bell, &counts))
        })
        .collect();

    let now = || {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        (count(&counts.commands), count(&counts.messages), count(&counts.turns), cpu_time())
    };
    thread::sleep(WARM_UP);
    let before = now();
    thread::sleep(WINDOW);
    let after = now();
    counts.is_over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a thread ends by itself"));

    let commands = after.0 - before.0;
    let micros = |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / commands;
    println!(
        "{shard_count} shards: {:.3} us an operation in user space, {:.3} in the kernel; {:.2} messages, {:.1} \
         operations a turn",
        micros(after.3.0, before.3.0),
        micros(after.3.1, before.3.1),
        (after.1 - before.1) / commands,
        commands / (after.2 - before.2)
    );
}

/// Set in the process that measures.
const PINNED: &str = "SHARDIS_CROWD_PINNED";

fn main() -> ExitCode {
    // As in Criterion's benches, a word on the command line selects by name.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
    if !words.next().is_none_or(|word| "crowd".contains(&word)) {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(PINNED).is_some() {
        SHARD_COUNTS.into_iter().for_each(measure);
        return ExitCode::SUCCESS;
    }
    let this = std::env::current_exe().expect("a program knows its path");
    let status = Command::new("taskset").args(["-c", "0"]).arg(this).env(PINNED, "1").status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
