//! The libraries of functions of the process.
//!
//! They are an immutable [`FunctionSet`]. A change makes a new set, or fails and leaves the old one: FUNCTION LOAD,
//! DELETE, FLUSH and RESTORE do all that they say, or nothing. A shard keeps the set that it works with, and asks for the
//! version before each call of a function.

use super::flags::ScriptFlags;
use super::shebang::LibraryHeader;
use crate::command::table::CommandTable;
use crate::command::{CommandError, CommandResult};
use ahash::AHashMap;
use shardis_scripting::{KeyUse, LibraryKeyUse, library_key_use};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// A function as its library has registered it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    pub name: Box<[u8]>,
    pub description: Option<Box<[u8]>>,
    pub flags: ScriptFlags,
}

/// A library: its text, and what that has registered.
pub struct Library {
    pub header: LibraryHeader,
    /// With its shebang.
    pub text: Box<[u8]>,
    /// At least one, in the order of their names.
    pub functions: Vec<Function>,
    key_use: OnceLock<LibraryKeyUse>,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Library {
    pub fn new(header: LibraryHeader, text: &[u8], mut functions: Vec<Function>) -> Library {
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        Library { header, text: text.into(), functions, key_use: OnceLock::new() }
    }

    pub fn name(&self) -> &[u8] {
        &self.header.name
    }

    fn key_use(&self, table: &CommandTable) -> &LibraryKeyUse {
        self.key_use.get_or_init(|| library_key_use(&self.text, table))
    }

    fn len_bytes(&self) -> usize {
        let of_function = |function: &Function| {
            let description = function.description.as_ref().map_or(0, |text| text.len());
            // The name stands in the set as well.
            2 * function.name.len() + description + size_of::<Function>() + size_of::<FunctionRef>()
        };
        size_of::<Library>()
            + 2 * self.header.name.len()
            + self.text.len()
            + self.functions.iter().map(of_function).sum::<usize>()
    }
}

/// A function of a set.
#[derive(Clone, Debug)]
pub struct FunctionRef {
    pub library: Arc<Library>,
    at: usize,
}

impl FunctionRef {
    pub fn function(&self) -> &Function {
        &self.library.functions[self.at]
    }

    /// What is known of the keys that it uses. It is found out when it is first asked for: O(bytes of the library).
    pub fn key_use(&self, table: &CommandTable) -> &KeyUse {
        self.library.key_use(table).function(&self.function().name)
    }
}

/// What RESTORE does with the libraries that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestorePolicy {
    Flush,
    /// They stay; the same name again is an error.
    Append,
    /// They stay but for those whose names come again.
    Replace,
}

/// Libraries with different names, whose functions have different names.
#[derive(Clone, Default, Debug)]
pub struct FunctionSet {
    libraries: BTreeMap<Box<[u8]>, Arc<Library>>,
    /// By their names in lower case.
    functions: AHashMap<Box<[u8]>, FunctionRef>,
}

/// A function's name in lower case: functions, unlike libraries, are called by their names in any case.
fn folded(name: &[u8]) -> SmallVec<[u8; 64]> {
    name.iter().map(u8::to_ascii_lowercase).collect()
}

impl FunctionSet {
    pub fn function(&self, name: &[u8]) -> Option<&FunctionRef> {
        self.functions.get(folded(name).as_slice())
    }

    pub fn library(&self, name: &[u8]) -> Option<&Arc<Library>> {
        self.libraries.get(name)
    }

    /// In the order of their names.
    pub fn libraries(&self) -> impl ExactSizeIterator<Item = &Arc<Library>> {
        self.libraries.values()
    }

    pub fn function_count(&self) -> usize {
        self.functions.len()
    }

    /// What the libraries take.
    pub fn len_bytes(&self) -> usize {
        self.libraries().map(|library| library.len_bytes()).sum()
    }

    /// Whether a library of this name may be added.
    ///
    /// # Errors
    /// There is one, and it is not to be replaced.
    pub fn check_name(&self, name: &[u8], replace: bool) -> CommandResult {
        if self.libraries.contains_key(name) && !replace {
            return Err(CommandError::quoting("ERR Library '", name, "' already exists"));
        }
        Ok(())
    }

    /// Adds a library, in place of one of the same name.
    ///
    /// # Errors
    /// A function of another library has the name of one of its functions. The set must not be used any more then.
    fn insert(&mut self, library: Arc<Library>) -> CommandResult {
        self.remove(library.name());
        for (at, function) in library.functions.iter().enumerate() {
            match self.functions.entry(folded(&function.name).as_slice().into()) {
                Entry::Vacant(free) => {
                    free.insert(FunctionRef { library: Arc::clone(&library), at });
                }
                // Of functions of one library whose names differ in case alone the first one is called.
                Entry::Occupied(taken) if Arc::ptr_eq(&taken.get().library, &library) => {}
                Entry::Occupied(_) => {
                    return Err(CommandError::quoting("ERR Function ", &function.name, " already exists"));
                }
            }
        }
        self.libraries.insert(library.name().into(), library);
        Ok(())
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.libraries.remove(name) else { return false };
        library.functions.iter().for_each(|function| {
            self.functions.remove(folded(&function.name).as_slice());
        });
        true
    }

    /// A set with one more library.
    ///
    /// # Errors
    /// There is a library of its name that is not to be replaced, or a function of the name of one of its functions.
    pub fn with(&self, library: Arc<Library>, replace: bool) -> CommandResult<FunctionSet> {
        self.check_name(library.name(), replace)?;
        let mut set = self.clone();
        set.insert(library)?;
        Ok(set)
    }

    /// A set without a library.
    ///
    /// # Errors
    /// There is no such library.
    pub fn without(&self, name: &[u8]) -> CommandResult<FunctionSet> {
        let mut set = self.clone();
        if !set.remove(name) {
            return Err(CommandError::fixed("ERR Library not found"));
        }
        Ok(set)
    }

    /// This set with the libraries of another one.
    ///
    /// # Errors
    /// Names of libraries, unless the policy is to replace them, or of functions, that are in both.
    pub fn joined(&self, other: &FunctionSet, policy: RestorePolicy) -> CommandResult<FunctionSet> {
        if policy == RestorePolicy::Flush {
            return Ok(other.clone());
        }
        let mut set = self.clone();
        for name in other.libraries.keys() {
            if set.remove(name) && policy == RestorePolicy::Append {
                return Err(CommandError::quoting("ERR Library ", name, " already exists"));
            }
        }
        other.libraries().try_for_each(|library| set.insert(Arc::clone(library)))?;
        Ok(set)
    }
}

/// The present set of the process.
#[derive(Default)]
pub struct Functions {
    set: Mutex<Arc<FunctionSet>>,
    version: AtomicU64,
}

impl Functions {
    fn lock(&self) -> MutexGuard<'_, Arc<FunctionSet>> {
        self.set.lock().expect("no holder of the functions panics")
    }

    /// Changes whenever the set does.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The set and its version.
    pub fn get(&self) -> (u64, Arc<FunctionSet>) {
        let set = self.lock();
        (self.version(), Arc::clone(&set))
    }

    /// Removes all libraries.
    pub fn clear(&self) {
        let mut set = self.lock();
        *set = Arc::default();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes the set by `change`, as a whole or not at all.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn update(&self, change: impl FnOnce(&FunctionSet) -> CommandResult<FunctionSet>) -> CommandResult {
        let mut set = self.lock();
        *set = Arc::new(change(&set)?);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, functions: &[&str]) -> Arc<Library> {
        let text = format!("#!lua name={name}\n");
        let function = |name: &&str| Function {
            name: name.as_bytes().into(),
            description: None,
            flags: ScriptFlags::NONE,
        };
        let functions = functions.iter().map(function).collect();
        let header = LibraryHeader::parse(text.as_bytes()).unwrap();
        Arc::new(Library::new(header, text.as_bytes(), functions))
    }

    fn set(libraries: &[Arc<Library>]) -> FunctionSet {
        let empty = FunctionSet::default();
        libraries.iter().fold(empty, |set, library| set.with(Arc::clone(library), false).unwrap())
    }

    fn functions(set: &FunctionSet) -> String {
        let mut names: Vec<String> = set
            .functions
            .iter()
            .map(|(name, function)| {
                assert!(name.eq_ignore_ascii_case(&function.function().name));
                let library = String::from_utf8_lossy(function.library.name()).into_owned();
                format!("{library}.{}", String::from_utf8_lossy(name))
            })
            .collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn a_library_replaces_one_of_its_name_with_all_functions() {
        let old = set(&[library("a", &["x", "y"]), library("b", &["z"])]);
        let error = old.with(library("a", &["x"]), false).unwrap_err();
        assert_eq!(error.text(), "ERR Library 'a' already exists");
        let new = old.with(library("a", &["w", "x"]), true).unwrap();
        assert_eq!(functions(&new), "a.w a.x b.z");
        assert_eq!(functions(&old), "a.x a.y b.z");
    }

    #[test]
    fn functions_of_two_libraries_have_different_names() {
        let functions = Functions::default();
        functions.update(|_| Ok(set(&[library("a", &["x"])]))).unwrap();
        let error = functions.update(|set| set.with(library("b", &["w", "X"]), true)).unwrap_err();
        assert_eq!(error.text(), "ERR Function X already exists");
        let (version, now) = functions.get();
        assert_eq!((version, now.libraries().len(), now.function_count()), (1, 1, 1));
    }

    #[test]
    fn a_function_is_found_in_any_case() {
        let set = set(&[library("a", &["x", "X"])]);
        assert_eq!((set.libraries().len(), set.function_count()), (1, 1));
        assert!(set.function(b"X").is_some() && set.function(b"x").is_some() && set.function(b"y").is_none());
        assert!(set.library(b"a").is_some() && set.library(b"A").is_none());
    }

    #[test]
    fn a_library_is_removed_with_its_functions() {
        let all = set(&[library("a", &["x"]), library("b", &["z"])]);
        assert_eq!(functions(&all.without(b"a").unwrap()), "b.z");
        assert_eq!(all.without(b"c").unwrap_err().text(), "ERR Library not found");
        assert!(all.len_bytes() > 2 * "#!lua name=a\n".len());
    }

    #[test]
    fn restored_libraries_are_joined_by_policy() {
        let here = set(&[library("a", &["x"]), library("b", &["y"])]);
        let other = set(&[library("b", &["z"]), library("c", &["w"])]);
        let joined = |policy| here.joined(&other, policy);
        assert_eq!(functions(&joined(RestorePolicy::Flush).unwrap()), "b.z c.w");
        assert_eq!(joined(RestorePolicy::Append).unwrap_err().text(), "ERR Library b already exists");
        assert_eq!(functions(&joined(RestorePolicy::Replace).unwrap()), "a.x b.z c.w");
        let clash = set(&[library("c", &["x"])]);
        for policy in [RestorePolicy::Append, RestorePolicy::Replace] {
            let error = here.joined(&clash, policy).unwrap_err();
            assert_eq!(error.text(), "ERR Function x already exists");
        }
        // Functions may move from one library to another.
        let moved = set(&[library("a", &["y"]), library("b", &["x"])]);
        assert_eq!(functions(&here.joined(&moved, RestorePolicy::Replace).unwrap()), "a.y b.x");
    }
}
