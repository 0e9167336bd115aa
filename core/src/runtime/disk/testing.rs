//! A disk in memory that fails, and that loses what was not synchronized when its power is cut.
//!
//! What the process sees and what is on the platter are kept apart, for pages of files and for names in directories:
//!
//! - A synchronization of a file brings its changed pages and its length to the platter. One that fails brings nothing, and
//!   the system takes the pages for clean all the same, as Linux does: only a page that is written again is tried again.
//! - A synchronization of a directory brings the changes of its names there. A rename is one change, also between two
//!   directories. A directory is gone with all that is in it when its own name is lost.
//! - [`ModelDisk::cut_power`] lets any of the changed pages, lengths and names survive, each by chance. A page that is
//!   behind the old length and does not survive has zeros.
//!
//! A call fails ([`ModelDisk::fail`]), or from a call on the process is dead ([`ModelDisk::die_after`]): nothing has any effect
//! until [`ModelDisk::revive`].

use super::{Disk, DiskFile, dir_of};
use crate::runtime::os_error;
use crate::testing::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Small, so that small files have many.
const PAGE_LEN: usize = 64;

/// The errors of a disk that is full, and of one that is broken.
pub(crate) const ERRORS: [i32; 2] = [os_error::NO_SPACE, libc::EIO];

/// What is asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Append,
    Sync,
    Truncate,
    /// A file is opened, and made if it is not there.
    Open,
    CreateDir,
    Rename,
    Remove,
    SyncDir,
    /// A file is opened to be read, or its length is asked for.
    Read,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) of: &'static [Call],
    /// So many of them work before.
    pub(crate) after: usize,
    /// So many of them fail.
    pub(crate) count: usize,
    /// The first append that fails has written a part, which is no failure yet.
    pub(crate) writes_part: bool,
    /// The system's error.
    pub(crate) errno: i32,
}

impl Default for Fault {
    /// The disk is full, and no call is said to fail.
    fn default() -> Fault {
        Fault { of: &[], after: 0, count: usize::MAX, writes_part: false, errno: os_error::NO_SPACE }
    }
}

#[derive(Clone, Default)]
struct Inode {
    /// As the process sees it.
    bytes: Vec<u8>,
    /// What is on the platter.
    platter: Vec<u8>,
    /// Pages that were changed and not brought to the platter.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(usize),
    Dir,
}

/// A change of names that is not on the platter.
#[derive(Clone)]
struct NameChange {
    removed: Option<PathBuf>,
    set: Option<(PathBuf, Entry)>,
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    platter: Names,
    pending: Vec<NameChange>,
    fault: Option<Fault>,
    /// So many calls the process has left; `None`: it does not die.
    lives_for: Option<usize>,
}

/// Files in memory.
#[derive(Clone, Default)]
pub(crate) struct ModelDisk(Arc<Mutex<State>>);

impl ModelDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no other thread")
    }

    /// From now on calls fail, in place of those that were to fail before.
    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// No call fails any more.
    pub(crate) fn heal(&self) {
        self.state().fault = None;
    }

    /// After so many calls the process is dead.
    pub(crate) fn die_after(&self, calls: usize) {
        self.state().lives_for = Some(calls);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().lives_for == Some(0)
    }

    /// The next process finds what was written, whether or not it is on the platter.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        (state.lives_for, state.fault) = (None, None);
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.names.iter().filter(|(_, entry)| **entry != Entry::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// A disk that is as this one is now.
    pub(crate) fn copy(&self) -> ModelDisk {
        ModelDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    /// The power is cut, and comes back: of what was not synchronized, some is there, and some is not.
    pub(crate) fn cut_power(&self, rng: &mut Rng) {
        let mut state = self.state();
        let State { inodes, names, platter, pending, .. } = &mut *state;
        for change in pending.drain(..) {
            if rng.one_in(2) {
                change.apply(platter);
            }
        }
        let found = platter.clone();
        let is_dir = |path: &Path| path == Path::new(".") || found.get(path) == Some(&Entry::Dir);
        platter.retain(|path, _| is_dir(&dir_of(path)));
        names.clone_from(platter);
        // Either each page for itself, or as file systems do that write a page before the length that includes it.
        let is_ordered = rng.one_in(2);
        for inode in inodes {
            inode.lose(rng, is_ordered);
        }
        (state.lives_for, state.fault) = (None, None);
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        if let Some(path) = &self.removed {
            names.remove(path);
        }
        if let Some((path, entry)) = &self.set {
            names.insert(path.clone(), *entry);
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let set = self.set.as_ref().map(|(path, _)| path);
        self.removed.iter().chain(set).any(|path| dir_of(path) == dir)
    }
}

impl Inode {
    fn touch(&mut self, bytes: RangeInclusive<usize>) {
        self.dirty.extend(bytes.start() / PAGE_LEN..=bytes.end() / PAGE_LEN);
    }

    /// Brings a page to the platter, as far as that has room for it.
    fn settle(&mut self, page: usize) {
        let start = page * PAGE_LEN;
        let end = (start + PAGE_LEN).min(self.bytes.len()).min(self.platter.len());
        if start < end {
            self.platter[start..end].copy_from_slice(&self.bytes[start..end]);
        }
    }

    fn sync(&mut self) {
        self.platter.resize(self.bytes.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.settle(page);
        }
    }

    fn lose(&mut self, rng: &mut Rng, is_ordered: bool) {
        let (old, new) = (self.platter.len(), self.bytes.len());
        let len = match rng.below(3) {
            0 => old,
            1 => new,
            _ => old.min(new) + rng.below(old.abs_diff(new) + 1),
        };
        self.platter.resize(len, 0);
        for page in std::mem::take(&mut self.dirty) {
            if is_ordered || rng.one_in(2) {
                self.settle(page);
            }
        }
        self.bytes.clone_from(&self.platter);
    }
}

impl State {
    /// A call is made. Says whether it may be done. `Ok(false)`: an append is to write a part.
    fn call(&mut self, call: Call) -> io::Result<bool> {
        match &mut self.lives_for {
            Some(0) => return Err(io::Error::other("the process is dead")),
            Some(left) => *left -= 1,
            None => {}
        }
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.of.contains(&call)) else {
            return Ok(true);
        };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(true);
        }
        if fault.count == 0 {
            return Ok(true);
        }
        if call == Call::Append && std::mem::take(&mut fault.writes_part) {
            return Ok(false);
        }
        fault.count -= 1;
        Err(io::Error::from_raw_os_error(fault.errno))
    }

    fn change(&mut self, removed: Option<&Path>, set: Option<(&Path, Entry)>) {
        let change = NameChange {
            removed: removed.map(Path::to_owned),
            set: set.map(|(path, entry)| (path.to_owned(), entry)),
        };
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn file(&self, path: &Path) -> Option<usize> {
        match self.names.get(path) {
            Some(&Entry::File(at)) => Some(at),
            Some(Entry::Dir) | None => None,
        }
    }
}

struct ModelFile(ModelDisk, usize);

impl DiskFile for ModelFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        let len = match state.call(Call::Append)? {
            true => bytes.len(),
            false => bytes.len().div_ceil(2),
        };
        let inode = &mut state.inodes[self.1];
        let start = inode.bytes.len();
        inode.bytes.extend_from_slice(&bytes[..len]);
        inode.touch(start..=start + len - 1);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        let is_dead = state.lives_for == Some(0);
        let outcome = state.call(Call::Sync);
        let inode = &mut state.inodes[self.1];
        match outcome {
            Ok(_) => inode.sync(),
            Err(_) if is_dead => {}
            Err(_) => inode.dirty.clear(),
        }
        outcome.map(drop)
    }

    fn handle(&self) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ModelFile(self.0.clone(), self.1)))
    }

    fn truncate(&mut self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.0.state();
        state.call(Call::Truncate)?;
        let (inode, len) = (&mut state.inodes[self.1], len_bytes as usize);
        inode.bytes.truncate(len);
        if len > 0 {
            // The rest of its page has zeros from now on.
            inode.touch(len - 1..=len - 1);
        }
        inode.dirty.retain(|page| page * PAGE_LEN < len);
        Ok(())
    }
}

impl Disk for ModelDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::CreateDir)?;
        if !state.names.contains_key(path) {
            state.change(None, Some((path, Entry::Dir)));
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.call(Call::Open)?;
        let dir = dir_of(path);
        if dir != Path::new(".") && state.names.get(&dir) != Some(&Entry::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let at = state.file(path).unwrap_or_else(|| {
            state.inodes.push(Inode::default());
            let at = state.inodes.len() - 1;
            state.change(None, Some((path, Entry::File(at))));
            at
        });
        drop(state);
        Ok(Box::new(ModelFile(self.clone(), at)))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.state();
        state.call(Call::Read)?;
        Ok(state.file(path).map(|at| state.inodes[at].bytes.clone()))
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.read(path)?.map(|bytes| bytes.len() as u64))
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.read(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Rename)?;
        let at = state.file(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(Some(from), Some((to, Entry::File(at))));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::Remove)?;
        state.file(path).ok_or(io::ErrorKind::NotFound)?;
        state.change(Some(path), None);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Call::SyncDir)?;
        let State { platter, pending, .. } = &mut *state;
        let (settled, left) = std::mem::take(pending).into_iter().partition(|change| change.touches(path));
        *pending = left;
        let settled: Vec<NameChange> = settled;
        settled.iter().for_each(|change| change.apply(platter));
        Ok(())
    }

    fn sleep(&self, _: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::{append_all, create_dir_on};

    /// The bytes that a file may have after a power cut.
    fn after_cuts(disk: &ModelDisk, path: &Path) -> BTreeSet<Option<Vec<u8>>> {
        let mut found = BTreeSet::new();
        for seed in 0..200 {
            let disk = disk.copy();
            disk.cut_power(&mut Rng::new(seed));
            found.insert(disk.read(path).expect("it does not fail"));
        }
        found
    }

    #[test]
    fn what_was_synchronized_survives_and_the_rest_may_or_may_not() {
        let disk = ModelDisk::default();
        let path = Path::new("dir/file");
        create_dir_on(&disk, Path::new("dir")).expect("a new directory");
        let mut file = disk.open(path).expect("a new file");
        append_all(&mut *file, b"old").expect("there is room");
        file.sync().expect("it works");
        assert!(after_cuts(&disk, path).contains(&None), "its name was not synchronized");
        disk.sync_dir(Path::new("dir")).expect("it works");
        assert_eq!(after_cuts(&disk, path), BTreeSet::from([Some(b"old".to_vec())]));
        append_all(&mut *file, &[b'n'; 2 * PAGE_LEN]).expect("there is room");
        let found = after_cuts(&disk, path);
        let all: Vec<u8> = [&b"old"[..], &[b'n'; 2 * PAGE_LEN]].concat();
        assert!(found.contains(&Some(b"old".to_vec())) && found.contains(&Some(all)));
        assert!(found.iter().flatten().any(|bytes| bytes.ends_with(&[b'n']) && bytes.contains(&0)));
        assert!(found.iter().flatten().all(|bytes| bytes.starts_with(b"old")));
    }

    #[test]
    fn a_synchronization_that_fails_takes_the_pages_for_clean() {
        let disk = ModelDisk::default();
        let path = Path::new("file");
        let mut file = disk.open(path).expect("a new file");
        disk.sync_dir(Path::new(".")).expect("it works");
        append_all(&mut *file, &[b'n'; PAGE_LEN]).expect("there is room");
        disk.fail(Fault { of: &[Call::Sync], count: 1, ..Fault::default() });
        assert!(file.sync().is_err());
        file.sync().expect("the next one works");
        assert_eq!(after_cuts(&disk, path), BTreeSet::from([Some(vec![0; PAGE_LEN])]));
        file.truncate(0).expect("it works");
        append_all(&mut *file, b"again").expect("there is room");
        file.sync().expect("it works");
        assert_eq!(after_cuts(&disk, path), BTreeSet::from([Some(b"again".to_vec())]));
    }

    #[test]
    fn a_process_that_is_dead_has_no_effect() {
        let disk = ModelDisk::default();
        let mut file = disk.open(Path::new("file")).expect("a new file");
        disk.die_after(1);
        append_all(&mut *file, b"one").expect("the last call");
        assert!(disk.is_dead() && append_all(&mut *file, b"two").is_err() && file.sync().is_err());
        disk.revive();
        assert_eq!(disk.read(Path::new("file")).expect("it works"), Some(b"one".to_vec()));
    }
}
