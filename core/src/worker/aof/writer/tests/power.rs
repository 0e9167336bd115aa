//! What `appendfsync` promises, over a disk that fails and whose power is cut ([`ModelDisk`]), with servers that are killed
//! between any two calls to it, and rewrites at any time. After each end the next server loads what is there:
//!
//! - It always has a prefix of the order in which the changes were made, none of them twice, or names a damaged place that
//!   `--check-aof --fix` can cut off, which only a power cut may leave.
//! - `always`: nothing is missing that the shards were told is safe, nor what an earlier server had loaded, and so may have
//!   shown.
//! - `everysec`: nothing is missing that was safe two seconds before; if only the process was killed, nothing that was safe,
//!   unless it has ended itself because of an fsync.
//! - `no`: nothing is missing that was safe, if only the process was killed.
//!
//! Pages are as small as commands here, so that a page which is lost is always seen. Nobody sees one that is lost within a
//! longer value, of a unit that was not safe: the format has no checksums.

use super::*;
use crate::persist::aof::check::{CheckFiles, Repair, check};
use crate::runtime::disk::Disk;
use crate::runtime::disk::testing::ERRORS;
use crate::testing::with_seed;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What everysec may lose.
const LOSS_MS: i64 = 2000;

/// With `no`, an fsync is due only at the end of a file, and one that fails says nothing about what was lost before. With the
/// others it fails alone: the writer cannot mend anything on a disk that then refuses to cut the file off, too.
const ALL_BUT_SYNC: &[Call] = &[
    Call::Append,
    Call::Truncate,
    Call::Open,
    Call::CreateDir,
    Call::Rename,
    Call::Remove,
    Call::SyncDir,
    Call::Read,
];

const MANIFEST: &[u8] = b"appendonlydir/appendonly.aof.manifest";

/// How a server has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    /// It has ended itself.
    Fatal,
    PowerCut,
}

/// Servers, one after the other, over one disk.
struct Run {
    disk: ModelDisk,
    clock: &'static Sleeper,
    rng: Rng,
    fsync: AppendFsync,
    /// What was safe, and when that was seen, in the order of time.
    safe_at: Vec<(i64, u64)>,
    ends: Vec<End>,
    fixed: usize,
}

impl CheckFiles for ModelDisk {
    fn open(&self, path: &[u8]) -> io::Result<(Box<dyn Read>, u64)> {
        let path = Path::new(OsStr::from_bytes(path));
        let len_bytes = Disk::len(self, path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((self.reader(path)?, len_bytes))
    }

    fn truncate(&self, path: &[u8], len_bytes: u64) -> io::Result<()> {
        Disk::open(self, Path::new(OsStr::from_bytes(path)))?.truncate(len_bytes)
    }

    fn confirms(&self) -> bool {
        true
    }
}

impl Run {
    fn new(seed: u64, fsync: AppendFsync) -> Run {
        Run {
            disk: ModelDisk::default(),
            clock: Box::leak(Box::default()),
            rng: Rng::new(seed),
            fsync,
            safe_at: vec![(0, 0)],
            ends: Vec::new(),
            fixed: 0,
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// A call that comes soon fails, or is the last one, in place of what was planned before.
    fn plan_trouble(&mut self) {
        self.disk.revive();
        let after = self.rng.below(12);
        let writes_part = self.rng.one_in(2);
        let count = 1 + self.rng.below(3);
        let errno = ERRORS[self.rng.below(ERRORS.len())];
        let fault = Fault { after, count, writes_part, errno, ..Fault::default() };
        match self.rng.below(4) {
            0 => self.disk.die_after(after),
            1 if self.fsync != AppendFsync::No => {
                self.disk.fail(Fault { of: &[Call::Sync], after: after / 4, count: 1, ..fault });
            }
            2 => self.disk.fail(Fault { of: &[Call::Append], after: after / 2, ..fault }),
            _ => self.disk.fail(Fault { of: ALL_BUT_SYNC, ..fault }),
        }
    }

    /// At least so many numbers are there after these ends in a row.
    fn floor(&self, ends: &[End]) -> u64 {
        let safe = self.safe_at.last().expect("there is a first one").1;
        let is_cut = ends.contains(&End::PowerCut);
        let long_ago_ms = self.now_ms() - LOSS_MS;
        let long_safe = self.safe_at.iter().rev().find(|(at_ms, _)| *at_ms <= long_ago_ms);
        match self.fsync {
            AppendFsync::Always => safe,
            AppendFsync::Everysec if ends.iter().all(|end| *end == End::Killed) => safe,
            AppendFsync::Everysec => long_safe.map_or(0, |(_, safe)| *safe),
            AppendFsync::No if is_cut => 0,
            AppendFsync::No => safe,
        }
    }

    /// A server starts, after `ends`; it may take several. Returns the one that runs.
    fn start(&mut self, changes: u64) -> World {
        for attempt in 0.. {
            if self.rng.one_in(3) {
                self.disk.cut_power(&mut self.rng);
                self.ends.push(End::PowerCut);
            } else {
                self.disk.revive();
            }
            if attempt < 3 && self.rng.one_in(3) {
                self.plan_trouble();
            }
            let line = match World::start(self.disk.clone(), self.clock, self.fsync) {
                Ok(world) if !self.disk.is_dead() => {
                    self.disk.heal();
                    let (found, floor) = (world.loaded, self.floor(&self.ends));
                    assert!(
                        (floor..=changes).contains(&found),
                        "{found} are there of {floor} to {changes}, after {:?}",
                        self.ends
                    );
                    self.ends.clear();
                    self.safe_at.retain(|(_, safe)| *safe <= found);
                    self.note_safe(found);
                    return world;
                }
                Ok(_) => String::new(),
                Err(line) => line,
            };
            let is_error = |errno: &i32| line.contains(&*error_text(&io::Error::from_raw_os_error(*errno)));
            let is_troubled = self.disk.is_dead() || ERRORS.iter().any(is_error);
            self.ends.push(if self.disk.is_dead() { End::Killed } else { End::Fatal });
            if !is_troubled {
                assert!(line.contains("Bad file format"), "{line}");
                self.fix();
            }
        }
        unreachable!("there is no trouble any more")
    }

    /// What the operator is told to do.
    fn fix(&mut self) {
        assert!(self.ends.contains(&End::PowerCut), "nothing else leaves a damaged file");
        self.disk.revive();
        let mut said = Vec::new();
        let outcome = check(MANIFEST, Repair::Fix, &self.disk, self.now_ms(), &mut said);
        assert!(matches!(outcome, Ok(true)), "{}", String::from_utf8_lossy(&said));
        self.fixed += 1;
    }

    fn note_safe(&mut self, safe: u64) {
        self.safe_at.push((self.now_ms(), safe));
    }

    /// One server's life.
    fn live(&mut self, world: &mut World, next_part: &mut u64) -> End {
        // Between the end of the file and its next base nothing more is promised.
        let mut awaits_base = false;
        for _ in 0..1 + self.rng.below(40) {
            if self.rng.one_in(8) {
                self.plan_trouble();
            }
            match self.rng.below(12) {
                0 if world.writer.base.is_none() => {
                    if self.rng.one_in(3) {
                        awaits_base = true;
                        world.writer.take(ToWriter::Off { last_part: *next_part - 1 });
                    }
                    let (base, _) = world.begin_rewrite(*next_part);
                    *next_part += 1;
                    world.set();
                    world.writer.take(ToWriter::Base(base));
                }
                1 | 2 => self.clock.sleep(Duration::from_millis(self.rng.below(700) as u64)),
                _ => (0..self.rng.below(4)).for_each(|_| world.set()),
            }
            let outcome = world.write();
            if self.disk.is_dead() {
                return End::Killed;
            }
            if outcome.is_err() {
                return End::Fatal;
            }
            if !awaits_base && !world.aof.has_error() {
                self.note_safe(world.safe());
            }
            let part = world.writer.part;
            if world.writer.base.as_ref().is_some_and(|base| base.part <= part) && self.rng.one_in(2) {
                let is_used = matches!(world.adopt(), Ok(true));
                if self.disk.is_dead() {
                    return End::Killed;
                }
                awaits_base &= !is_used;
            }
        }
        End::Killed
    }
}

/// Runs of each policy from a seed. Returns how many power cuts there were, and how many files were fixed.
fn check_runs(rng: &mut Rng, count: usize) -> (usize, usize) {
    let (mut cuts, mut fixed) = (0, 0);
    for fsync in [AppendFsync::Always, AppendFsync::Everysec, AppendFsync::No] {
        for _ in 0..count {
            let seed = rng.next();
            let mut run = Run::new(seed, fsync);
            let mut changes = 0;
            for _ in 0..6 {
                let mut world = run.start(changes);
                let mut next_part = 2;
                let end = run.live(&mut world, &mut next_part);
                changes = world.changes;
                run.ends.push(end);
                if run.rng.one_in(2) {
                    run.disk.cut_power(&mut run.rng);
                    run.ends.push(End::PowerCut);
                    cuts += 1;
                }
            }
            fixed += run.fixed;
        }
    }
    (cuts, fixed)
}

#[test]
fn what_is_promised_is_there_after_a_power_cut_a_kill_or_a_failing_call() {
    let (cuts, fixed) = check_runs(&mut Rng::new(1), 400);
    assert!(cuts > 1000 && fixed > 50, "{cuts} power cuts, {fixed} files fixed");
}

#[test]
fn what_is_promised_is_there_after_a_power_cut_a_kill_or_a_failing_call_with_a_new_seed() {
    with_seed(|rng| {
        let (cuts, _) = check_runs(rng, 100);
        assert!(cuts > 100, "{cuts} power cuts");
    });
}
