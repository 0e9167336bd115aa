//! The writer over a disk that fails: appends that write a part or nothing, an fsync that fails once. Whatever fails and
//! when, what the shards were told is safe is there, and the files have whole units in order. What a power cut leaves is in
//! [`power`].

mod power;

use super::*;
use crate::config::Config;
use crate::persist::aof::rewrite::write_request;
use crate::protocol::OwnedArgv;
use crate::runtime::disk::testing::{Call, Fault, ModelDisk};
use crate::runtime::disk::{append_all, open_empty_on};
use crate::shard::effects::EffectLog;
use crate::testing::Rng;
use crate::worker::aof::files::AofFiles;
use crate::worker::aof::load::{Failure, read_units};
use crate::worker::tests::Sleeper;
use std::path::PathBuf;

/// All writes and synchronizations.
const OF_FILES: &[Call] = &[Call::Append, Call::Sync];

/// All changes of names.
const OF_NAMES: &[Call] = &[Call::CreateDir, Call::Open, Call::Rename, Call::Remove, Call::SyncDir];

/// A shard that writes numbers, and the writer of its effects.
struct World {
    disk: ModelDisk,
    aof: Aof,
    writer: Writer,
    log: EffectLog,
    policy: Policy,
    /// The numbers up to this one were written.
    changes: u64,
    /// Those up to this one were there at the start.
    loaded: u64,
    next_seq: u64,
}

impl World {
    fn new(fsync: AppendFsync) -> World {
        World::start(ModelDisk::default(), Box::leak(Box::<Sleeper>::default()), fsync)
            .expect("there is room")
    }

    /// What a server does that starts with what is on the disk. The error is the operator's line.
    fn start(disk: ModelDisk, clock: &'static Sleeper, fsync: AppendFsync) -> Result<World, String> {
        let mut files = AofFiles::open(&disk, &Config::default())?;
        files.total_bytes(&disk)?;
        let loaded = numbers_in(&files, &disk, clock)?;
        let opened = files.open_for_writing(&disk, b"", "aof")?;
        let mut writer = Writer::new(Box::new(disk.clone()), clock, Arc::default());
        writer.begin_at(files, opened);
        let mut log = EffectLog::default();
        log.begin_part(1, 0);
        let policy = Policy { fsync, has_timestamps: false, is_saving: false };
        let aof = Aof::new(1);
        Ok(World { disk, aof, writer, log, policy, changes: loaded, loaded, next_seq: 0 })
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

    /// How many numbers are in the files that the manifest names.
    fn numbers(&self) -> u64 {
        let files = AofFiles::open(&self.disk, &Config::default()).expect("it is sound");
        numbers_in(&files, &self.disk, self.writer.clock).expect("they are sound")
    }

    /// The numbers up to this one are safe, as the shard is told.
    fn safe(&self) -> u64 {
        self.loaded + self.aof.safe_seq()
    }
}

/// Loads the files, as the server does. They must have all numbers up to the one that is returned, once and in order.
fn numbers_in(files: &AofFiles, disk: &ModelDisk, clock: &dyn Clock) -> Result<u64, String> {
    let mut count = 0;
    let outcome = read_units(files, disk, 0, true, clock, &mut |unit| {
        let text = std::str::from_utf8(unit.bytes).expect("it is text");
        let words: Vec<&str> = text.split("\r\n").collect();
        if words[2] == "SET" {
            count += 1;
            let number = count.to_string();
            assert_eq!((words[4], words[6]), (&*number, &*number), "each number once, in order");
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(count),
        Err(Failure::Line(line)) => Err(line),
        Err(Failure::Stopped) => unreachable!("nobody stops it"),
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
                let (after, writes_part) = (rng.below(2), rng.below(2) == 0);
                world.disk.fail(Fault { of: OF_FILES, after, writes_part, ..Fault::default() });
            }
            world.write().expect("with everysec it goes on");
            let has_all = world.numbers() == world.changes;
            assert!(has_all || world.aof.has_error(), "seed {seed}: what is missing is reported");
            assert!(world.numbers() >= world.safe() || world.aof.has_error(), "seed {seed}");
            world.disk.heal();
        }
        world.write().expect("there is room again");
        assert_eq!((world.numbers(), world.aof.has_error()), (world.changes, false), "seed {seed}");
    }
}

#[test]
fn with_always_an_error_is_the_end_and_nobody_waits_longer_than_necessary() {
    let mut ends = 0;
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(AppendFsync::Always);
        let (after, writes_part) = (rng.below(30), rng.below(2) == 0);
        world.disk.fail(Fault { of: OF_FILES, after, writes_part, ..Fault::default() });
        for _ in 0..20 {
            (0..rng.below(4)).for_each(|_| world.set());
            if world.write().is_err() {
                ends += 1;
                break;
            }
            assert_eq!(world.safe(), world.changes, "seed {seed}");
        }
    }
    assert!(ends > 100, "{ends}");
}

#[test]
fn an_fsync_that_fails_is_the_end_with_every_policy() {
    for fsync in [AppendFsync::Always, AppendFsync::Everysec, AppendFsync::No] {
        let mut world = World::new(fsync);
        world.set();
        world.disk.fail(Fault { of: &[Call::Sync], ..Fault::default() });
        world.writer.collect(world.policy);
        let outcome = world.writer.write(&world.aof, world.policy, true);
        let Err(Fatal(line)) = outcome else { panic!("{fsync:?}: it goes on") };
        assert!(line.contains("No space left on device"), "{line}");
        let written = u64::from(fsync != AppendFsync::Always);
        assert_eq!(
            world.aof.safe_seq(),
            written,
            "{fsync:?}: it is safe when it is written, with always on disk"
        );
    }
}

impl World {
    /// The barrier of a rewrite: what follows is of another part. Returns the base, which the caller hands over, and which
    /// has failed if the disk refuses it.
    fn begin_rewrite(&mut self, part: u64) -> (NewBase, std::sync::mpsc::Receiver<io::Result<bool>>) {
        self.log.begin_part(part, self.changes);
        let path = PathBuf::from("appendonlydir").join(format!("temp-base-{part}"));
        let mut bytes = Vec::new();
        for number in 1..=self.changes {
            let number = number.to_string();
            write_request(&mut bytes, &[b"SET", number.as_bytes(), number.as_bytes()]);
        }
        let write = || -> io::Result<()> {
            let mut file = open_empty_on(&self.disk, &path)?;
            append_all(&mut *file, &bytes)?;
            file.sync()
        };
        let path = write().is_ok().then_some(path);
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        (NewBase { part, path, extension: "aof", progress: Arc::default(), done }, is_done)
    }

    /// What the thread does with a base that it was given.
    fn adopt(&mut self) -> io::Result<bool> {
        let base =
            self.writer.base.take_if(|base| base.part <= self.writer.part).expect("its part has begun");
        let outcome = self.writer.adopt(&base, &Config::default());
        if !matches!(outcome, Ok(true)) {
            self.writer.drop_temporary();
        }
        outcome
    }
}

#[test]
fn a_base_and_the_file_behind_it_have_everything_once_and_old_files_go() {
    let mut world = World::new(AppendFsync::Everysec);
    (0..3).for_each(|_| world.set());
    world.write().expect("there is room");
    for part in 2..5 {
        let (base, _is_done) = world.begin_rewrite(part);
        (0..3).for_each(|_| world.set());
        world.writer.take(ToWriter::Base(base));
        world.write().expect("there is room");
        assert_eq!(world.numbers(), world.changes, "before the base is in its place");
        assert!(world.adopt().expect("there is room"));
        world.set();
        world.write().expect("there is room");
        assert_eq!(world.numbers(), world.changes);
        assert_eq!(world.disk.names().len(), 3, "a manifest, a base and a file of commands");
    }
}

#[test]
fn a_base_that_is_cancelled_or_whose_part_has_no_file_is_not_used() {
    let mut world = World::new(AppendFsync::Everysec);
    world.set();
    let (base, _is_done) = world.begin_rewrite(2);
    let progress = Arc::clone(&base.progress);
    world.set();
    world.writer.take(ToWriter::Base(base));
    world.write().expect("there is room");
    progress.cancel();
    assert!(!world.adopt().expect("nothing is tried"));
    assert_eq!(world.numbers(), 2);

    let (base, _is_done) = world.begin_rewrite(3);
    world.set();
    world.writer.take(ToWriter::Base(base));
    world.writer.collect(world.policy);
    world.disk.fail(Fault { of: &[Call::Open], ..Fault::default() });
    world.writer.write(&world.aof, world.policy, false).expect("it goes on in the present file");
    world.disk.heal();
    assert!(world.adopt().is_err());
    assert_eq!(world.numbers(), 3);
}

/// Each operation of taking a base over fails once. Whatever is on the disk then, what could be loaded before can be loaded
/// still, and the next rewrite succeeds.
#[test]
fn a_base_that_cannot_be_put_in_its_place_loses_nothing_and_the_next_one_can() {
    let mut failures = 0;
    for (works_for, is_first) in (0..12).flat_map(|works_for| [(works_for, false), (works_for, true)]) {
        let what = format!("{works_for} {is_first}");
        let mut world = World::new(AppendFsync::Everysec);
        world.set();
        if is_first {
            world.writer.take(ToWriter::Off { last_part: 1 });
        }
        let (base, _is_done) = world.begin_rewrite(2);
        world.set();
        world.writer.take(ToWriter::Base(base));
        world.write().expect("there is room");
        world.disk.fail(Fault { of: OF_NAMES, after: works_for, count: 1, ..Fault::default() });
        let outcome = world.adopt();
        world.disk.heal();
        failures += usize::from(outcome.is_err());
        let found = world.numbers();
        assert!(found == 2 || is_first && outcome.is_err() && found == 1, "{what}: {found}");
        world.set();
        world.write().expect("there is room");

        let (base, _is_done) = world.begin_rewrite(3);
        world.set();
        world.writer.take(ToWriter::Base(base));
        world.write().expect("there is room");
        assert!(world.adopt().expect("there is room"), "{what}");
        assert_eq!(world.numbers(), 4, "{what}");
    }
    assert!(failures >= 10, "{failures}");
}

#[test]
fn a_file_that_was_turned_on_is_there_when_its_first_base_is() {
    let mut world = World::new(AppendFsync::Everysec);
    world.set();
    world.writer.take(ToWriter::Off { last_part: 1 });
    world.set();
    // Before the writer has seen the end of the file, it is turned on again.
    let (base, _is_done) = world.begin_rewrite(2);
    world.set();
    world.writer.take(ToWriter::Base(base));
    world.write().expect("there is room");
    assert_eq!(world.numbers(), 1, "there is what was written before the end");
    assert!(world.adopt().expect("there is room"));
    world.set();
    world.write().expect("there is room");
    assert_eq!(world.numbers(), 4);
    let names = |world: &World| world.disk.names().len();
    assert_eq!(names(&world), 3, "a manifest, a base and a file of commands");

    // One that is turned off before its first base is complete leaves nothing behind.
    world.writer.take(ToWriter::Off { last_part: 2 });
    let (base, _is_done) = world.begin_rewrite(3);
    world.set();
    world.write().expect("there is room");
    assert_eq!(names(&world), 5);
    world.writer.take(ToWriter::Off { last_part: 3 });
    base.progress.cancel();
    world.writer.take(ToWriter::Base(base));
    world.write().expect("there is room");
    assert!(!world.adopt().expect("nothing is tried"));
    assert_eq!((names(&world), world.numbers()), (4, 4));
}
