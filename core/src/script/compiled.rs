//! What a shard has compiled: the scripts and libraries that it has run, in virtual machines of its own, as in Redis one for
//! scripts and one for functions.
//!
//! A script or library is compiled when the shard first needs it. What the process knows is asked at each use, without a
//! lock: see [`Registry`].
//!
//! # What outlives a run
//!
//! A script cannot keep anything in its machine: globals are read-only. What a library keeps in locals of its own is there
//! once for each shard, and so are the settings of cjson (`encode_keep_buffer` and its kin) and the state of `math.random`.
//! The code of a library runs again on each shard that calls one of its functions, at the first call.

use super::library::{FunctionRef, FunctionSet, Library};
use super::registry::{Keep, Script, Sha};
use super::shebang::{LibraryHeader, ScriptHeader};
use super::{Function, Registry, ScriptFlags};
use crate::command::{CommandError, CommandResult};
use ahash::AHashMap;
use shardis_scripting::{self as engine, Vm, VmOptions};
use std::rc::Rc;
use std::sync::Arc;

/// A script that this shard can run.
pub struct CompiledScript {
    pub script: Arc<Script>,
    pub code: engine::Script,
    /// The name by which errors call it.
    pub hex: [u8; 40],
}

/// A function that this shard can call.
pub struct CompiledFunction {
    pub entry: FunctionRef,
    pub library: Rc<engine::Library>,
    /// Its place in that.
    pub position: usize,
}

pub const FUNCTION_NOT_FOUND: CommandError = CommandError::fixed("ERR Function not found");

pub const NO_SCRIPT: CommandError = CommandError::fixed("NOSCRIPT No matching script. Please use EVAL.");

/// How many scripts are found again by comparing their digits, without reading and hashing these.
const RECENT_COUNT: usize = 16;

/// How many forgotten scripts a shard keeps at most before it looks for them.
const FORGOTTEN_MAX: usize = 100;

/// Whether the digits of two SHAs are the same. Word by word, because for so many bytes `==` is a function call.
#[inline]
fn are_same(a: &[u8; 40], b: &[u8; 40]) -> bool {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let differing = words.map(|(&a, &b)| u64::from_ne_bytes(a) ^ u64::from_ne_bytes(b));
    differing.fold(0, |all, bits| all | bits) == 0
}

/// The scripts and functions of a shard.
pub struct Scripts {
    registry: &'static Registry,
    options: VmOptions,
    script_vm: Rc<Vm>,
    function_vm: Rc<Vm>,
    scripts: AHashMap<Sha, Rc<CompiledScript>>,
    /// Some of the scripts that were asked for by their digits: each in the place that its first digit gives.
    recent: [Option<Rc<CompiledScript>>; RECENT_COUNT],
    /// How often the process' scripts had been flushed when this shard looked last.
    flushes: u64,
    /// The libraries that this shard goes by.
    functions: Arc<FunctionSet>,
    functions_version: u64,
    libraries: AHashMap<Box<[u8]>, (Arc<Library>, Rc<engine::Library>)>,
}

impl Scripts {
    pub fn new(registry: &'static Registry, options: VmOptions) -> Scripts {
        let (functions_version, functions) = registry.functions.get();
        let new_vm = || Rc::new(Vm::new(options.clone()));
        Scripts {
            registry,
            script_vm: new_vm(),
            function_vm: new_vm(),
            options,
            scripts: AHashMap::new(),
            recent: Default::default(),
            flushes: registry.scripts.count_flushes(),
            functions,
            functions_version,
            libraries: AHashMap::new(),
        }
    }

    /// The machine of scripts, to be kept over a run.
    pub fn script_vm(&self) -> Rc<Vm> {
        Rc::clone(&self.script_vm)
    }

    /// The machine of functions, to be kept over a run.
    pub fn function_vm(&self) -> Rc<Vm> {
        Rc::clone(&self.function_vm)
    }

    /// What the machines take, in bytes: that of scripts, and that of functions.
    pub fn vm_bytes(&self) -> (usize, usize) {
        (self.script_vm.memory_bytes(), self.function_vm.memory_bytes())
    }

    /// How many bytes a run may add to that.
    pub fn set_run_limit_bytes(&mut self, limit_bytes: usize) {
        self.options.run_limit_bytes = limit_bytes;
        self.script_vm.set_run_limit_bytes(limit_bytes);
        self.function_vm.set_run_limit_bytes(limit_bytes);
    }
}

// Scripts.
impl Scripts {
    /// The script of this SHA, if this shard has compiled it and the process knows it.
    fn compiled(&mut self, sha: &Sha) -> Option<Rc<CompiledScript>> {
        let scripts = &self.registry.scripts;
        let flushes = scripts.count_flushes();
        if flushes != self.flushes {
            self.flushes = flushes;
            self.scripts.clear();
            self.recent = Default::default();
            self.script_vm = Rc::new(Vm::new(self.options.clone()));
        }
        let found = self.scripts.get(sha)?;
        if !found.script.is_known() {
            self.scripts.remove(sha);
            return None;
        }
        found.script.touch(scripts);
        Some(Rc::clone(found))
    }

    /// The script of this SHA.
    ///
    /// # Errors
    /// NOSCRIPT.
    pub fn find(&mut self, sha: &Sha) -> CommandResult<Rc<CompiledScript>> {
        if let Some(found) = self.compiled(sha) {
            return Ok(found);
        }
        let script = self.registry.scripts.get(sha).ok_or(NO_SCRIPT)?;
        script.touch(&self.registry.scripts);
        let code = self.compile(&script.text)?;
        Ok(self.keep(script, code))
    }

    /// The script of the SHA that `hex` has the digits of.
    ///
    /// # Errors
    /// NOSCRIPT, also if it is no SHA.
    #[inline]
    pub fn find_hex(&mut self, hex: &[u8]) -> CommandResult<&Rc<CompiledScript>> {
        let digits: &[u8; 40] = hex.try_into().map_err(|_| NO_SCRIPT)?;
        let place = usize::from(digits[0]) % RECENT_COUNT;
        let is_it = |recent: &Rc<CompiledScript>| are_same(&recent.hex, digits) && recent.script.is_known();
        if !self.recent[place].as_ref().is_some_and(is_it) {
            let found = self.find(&Sha::parse(hex).ok_or(NO_SCRIPT)?)?;
            self.recent[place] = Some(found);
        }
        let recent = self.recent[place].as_ref().ok_or(NO_SCRIPT)?;
        recent.script.touch(&self.registry.scripts);
        Ok(recent)
    }

    /// The script of this text, which the process knows from now on.
    ///
    /// # Errors
    /// A bad shebang; code that cannot be compiled. It is not kept then.
    pub fn add(&mut self, sha: Sha, text: &[u8], keep: Keep) -> CommandResult<Rc<CompiledScript>> {
        if let Some(found) = self.compiled(&sha)
            && keep == Keep::UntilEvicted
        {
            return Ok(found);
        }
        let header = ScriptHeader::parse(text)?;
        let code = self.compile(text)?;
        let script = self.registry.scripts.add(sha, text, header, keep);
        Ok(self.keep(script, code))
    }

    fn compile(&self, text: &[u8]) -> CommandResult<engine::Script> {
        self.script_vm.compile(text).map_err(|error| CommandError::new(error.text))
    }

    fn keep(&mut self, script: Arc<Script>, code: engine::Script) -> Rc<CompiledScript> {
        if self.scripts.len() >= self.registry.scripts.len() + FORGOTTEN_MAX {
            self.scripts.retain(|_, compiled| compiled.script.is_known());
        }
        let (sha, hex) = (script.sha, script.sha.to_hex());
        let compiled = Rc::new(CompiledScript { script, code, hex });
        self.scripts.insert(sha, Rc::clone(&compiled));
        compiled
    }
}

// Functions.
impl Scripts {
    /// Takes over the present libraries.
    fn refresh(&mut self) {
        if self.registry.functions.version() == self.functions_version {
            return;
        }
        (self.functions_version, self.functions) = self.registry.functions.get();
        if self.functions.libraries().len() == 0 {
            self.function_vm = Rc::new(Vm::new(self.options.clone()));
        }
        let functions = &self.functions;
        self.libraries.retain(|name, (library, _)| {
            functions.library(name).is_some_and(|present| Arc::ptr_eq(present, library))
        });
    }

    /// The function of this name.
    pub fn function(&mut self, name: &[u8]) -> Option<&FunctionRef> {
        self.refresh();
        self.functions.function(name)
    }

    /// The same, to be called.
    ///
    /// # Errors
    /// There is none; its library fails on this shard, although it was loaded by another.
    pub fn callable(&mut self, name: &[u8], host: &mut dyn engine::Host) -> CommandResult<CompiledFunction> {
        let entry = self.function(name).ok_or(FUNCTION_NOT_FOUND)?.clone();
        let library_name = entry.library.name();
        let library = match self.libraries.get(library_name) {
            Some((of, library)) if Arc::ptr_eq(of, &entry.library) => Rc::clone(library),
            Some(_) | None => {
                let library = Rc::new(self.run_library(&entry.library.text, host)?);
                let compiled = (Arc::clone(&entry.library), Rc::clone(&library));
                self.libraries.insert(library_name.into(), compiled);
                library
            }
        };
        let position = library.position(&entry.function().name).ok_or(FUNCTION_NOT_FOUND)?;
        Ok(CompiledFunction { library, entry, position })
    }

    /// Runs the code of a library that may become one of the process'.
    ///
    /// # Errors
    /// It cannot be compiled, fails, or registers no function.
    pub fn load_library(
        &mut self,
        header: LibraryHeader,
        text: &[u8],
        host: &mut dyn engine::Host,
    ) -> CommandResult<Arc<Library>> {
        self.refresh();
        let compiled = Rc::new(self.run_library(text, host)?);
        let functions = compiled.functions().iter().map(|function| {
            let flags = function.flags.names().fold(ScriptFlags::NONE, |flags, name| {
                flags | ScriptFlags::named(name.as_bytes()).expect("both know the same flags")
            });
            let (name, description) = (function.name.as_slice().into(), function.description.clone());
            Function { name, description: description.map(Vec::into_boxed_slice), flags }
        });
        let library = Arc::new(Library::new(header, text, functions.collect()));
        self.libraries.insert(library.name().into(), (Arc::clone(&library), compiled));
        Ok(library)
    }

    fn run_library(&self, text: &[u8], host: &mut dyn engine::Host) -> CommandResult<engine::Library> {
        self.function_vm.load_library(text, host).map_err(|error| CommandError::new(error.text))
    }
}
