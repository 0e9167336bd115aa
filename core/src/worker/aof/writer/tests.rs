//! The writer over a disk that fails: appends that write a part or nothing, an fsync that fails once, and a power cut, after
//! which only what was synchronized is certain to be there. Whatever fails and when, what the shards were told is safe is
//! there, and the file has whole units in order.

use super::*;
use crate::config::Config;
use crate::protocol::OwnedArgv;
use crate::runtime::os_error;
use crate::shard::effects::EffectLog;
use crate::testing::Rng;
use crate::worker::aof::files::AofFiles;
use crate::worker::tests::Sleeper;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct FileState {
    bytes: Vec<u8>,
    synced_len: usize,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, FileState>,
    /// So many operations on files work; then they fail until `heal`.
    works_for: Option<u32>,
    /// An append that fails has written a part.
    writes_parts: bool,
    /// Only synchronizations fail.
    spares_writes: bool,
}

/// Files in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no other thread")
    }

    fn heal(&self) {
        self.state().works_for = None;
    }
}

impl State {
    /// Whether the next operation fails.
    fn fails(&mut self) -> bool {
        match &mut self.works_for {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(os_error::NO_SPACE)
}

struct MemoryFile(Memory, PathBuf);

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        let fails = !state.spares_writes && state.fails();
        let len = match (fails, state.writes_parts) {
            (false, _) => bytes.len(),
            (true, true) if bytes.len() > 1 => bytes.len() / 2,
            (true, _) => return Err(no_space()),
        };
        // After a part the next one fails as a whole.
        state.writes_parts &= !fails;
        state.files.entry(self.1.clone()).or_default().bytes.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        if state.fails() {
            return Err(no_space());
        }
        let file = state.files.entry(self.1.clone()).or_default();
        file.synced_len = file.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.0.state();
        let file = state.files.entry(self.1.clone()).or_default();
        file.bytes.truncate(len_bytes as usize);
        file.synced_len = file.synced_len.min(file.bytes.len());
        Ok(())
    }
}

impl Disk for Memory {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.state().files.entry(path.to_owned()).or_default();
        Ok(Box::new(MemoryFile(self.clone(), path.to_owned())))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state().files.get(path).map(|file| file.bytes.clone()))
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.state().files.get(path).map(|file| file.bytes.len() as u64))
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.read(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sleep(&self, _: Duration) {}
}

/// A shard that writes numbers, and the writer of its effects.
struct World {
    disk: Memory,
    aof: Aof,
    writer: Writer,
    log: EffectLog,
    policy: Policy,
    changes: u64,
    next_seq: u64,
    path: PathBuf,
}

impl World {
    fn new(fsync: AppendFsync) -> World {
        let disk = Memory::default();
        let clock: &'static Sleeper = Box::leak(Box::default());
        let mut writer = Writer::new(Box::new(disk.clone()), clock, 1);
        let mut files = AofFiles::open(&disk, &Config::default()).expect("there are none");
        let opened = files.open_for_writing(&disk, b"", "rdb").expect("there is room");
        let path = files.path(files.manifest.incrs.last().expect("it was made"));
        writer.begin_at(opened);
        let mut log = EffectLog::default();
        log.begin_part(1, 0);
        let policy = Policy { fsync, has_timestamps: false };
        World { disk, aof: Aof::new(1), writer, log, policy, changes: 0, next_seq: 0, path }
    }

    /// A turn in which `SET n n` runs.
    fn set(&mut self) {
        self.changes += 1;
        let number = self.changes.to_string();
        let args = OwnedArgv::from_slices(&["SET", &number, &number]);
        self.log.end_command(0, Some(args.as_argv()), self.changes, false);
        let taken = self.log.take().expect("something was recorded");
        self.writer.take(ToWriter::Batch { seq: self.next_seq, batch: taken.batch });
        self.next_seq += 1;
    }

    fn write(&mut self) -> Result<(), Fatal> {
        self.writer.collect(self.policy);
        self.writer.write(&self.aof, self.policy, false)
    }

    /// The numbers that are in the file, or in what is certain after a power cut; they must be whole, and in order.
    fn numbers(&self, after_power_cut: bool) -> u64 {
        let state = self.disk.state();
        let file = &state.files[&self.path];
        let len = if after_power_cut { file.synced_len } else { file.bytes.len() };
        let text = std::str::from_utf8(&file.bytes[..len]).expect("it is text");
        let sets: Vec<&str> = text.split("*3\r\n$3\r\nSET\r\n").skip(1).collect();
        for (n, set) in sets.iter().enumerate() {
            let number = (n + 1).to_string();
            let arg = format!("${}\r\n{number}\r\n", number.len());
            assert_eq!(*set, arg.repeat(2), "whole units in order");
        }
        sets.len() as u64
    }
}

#[test]
fn an_append_that_fails_anywhere_leaves_whole_units_and_loses_nothing() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(AppendFsync::Everysec);
        for _ in 0..20 {
            (0..rng.below(4)).for_each(|_| world.set());
            if rng.below(3) == 0 {
                let mut state = world.disk.state();
                state.works_for = Some(rng.below(2) as u32);
                state.writes_parts = rng.below(2) == 0;
            }
            world.write().expect("with everysec it goes on");
            let has_all = world.numbers(false) == world.changes;
            assert!(has_all || world.aof.has_error(), "seed {seed}: what is missing is reported");
            assert!(world.numbers(false) >= world.aof.safe_seq(), "seed {seed}");
            world.disk.heal();
        }
        world.write().expect("there is room again");
        assert_eq!((world.numbers(false), world.aof.has_error()), (world.changes, false), "seed {seed}");
    }
}

#[test]
fn with_always_what_is_safe_is_there_after_a_power_cut_and_an_error_is_the_end() {
    let mut ends = 0;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(AppendFsync::Always);
        let mut state = world.disk.state();
        (state.works_for, state.writes_parts) = (Some(rng.below(30) as u32), rng.below(2) == 0);
        drop(state);
        for _ in 0..20 {
            (0..rng.below(4)).for_each(|_| world.set());
            let outcome = world.write();
            assert!(world.numbers(true) >= world.aof.safe_seq(), "seed {seed}: safe is what is on disk");
            if outcome.is_err() {
                ends += 1;
                break;
            }
            assert_eq!(
                world.aof.safe_seq(),
                world.next_seq,
                "seed {seed}: nobody waits longer than necessary"
            );
        }
    }
    assert!(ends > 100, "{ends}");
}

#[test]
fn an_fsync_that_fails_is_the_end_with_every_policy() {
    for fsync in [AppendFsync::Always, AppendFsync::Everysec, AppendFsync::No] {
        let mut world = World::new(fsync);
        world.set();
        let mut state = world.disk.state();
        (state.works_for, state.spares_writes) = (Some(0), true);
        drop(state);
        world.writer.collect(world.policy);
        let outcome = world.writer.write(&world.aof, world.policy, true);
        let Err(Fatal(line)) = outcome else { panic!("{fsync:?}: it goes on") };
        assert!(line.contains("No space left on device"), "{line}");
        assert_eq!(world.aof.safe_seq(), 0, "{fsync:?}: nobody is told that it is safe");
    }
}
