//! A loaded module, and the list of all of them.
//!
//! A library is loaded once in a process, and what it registers is the process'. So this list is, too.

use super::command::ModuleCommand;
use super::data_type::DataType;
use super::filters;
use super::settings::Setting;
use crate::worker::hooks::LoadSupport;
use libloading::os::unix::Library;
use shardis_modules_api::abi::{
    REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED, REDISMODULE_OPTIONS_HANDLE_IO_ERRORS,
    REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD, RedisModuleInfoFunc,
};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// A module that is loaded, or was: it is never freed.
pub struct Module {
    /// What `SetModuleAttribs` has said.
    identity: OnceLock<Identity>,
    /// Where the library is; empty for a module that is linked into the server.
    pub path: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    /// `None`: it is linked into the server, or was unloaded.
    pub(super) library: Mutex<Option<Library>>,
    /// Its `OnLoad` runs.
    is_loading: AtomicBool,
    /// It is unloaded, or could not be loaded: see [`Module::retire`].
    is_retired: AtomicBool,
    /// How many of its callbacks run, but for those of a shard-safe module's commands.
    callbacks: AtomicUsize,
    is_shard_safe: AtomicBool,
    /// `REDISMODULE_OPTION*`.
    options: AtomicI32,
    commands: Mutex<Vec<&'static ModuleCommand>>,
    /// With a data type it cannot be unloaded.
    types: Mutex<Vec<&'static DataType>>,
    /// What keeps it from being unloaded: clients that it has blocked, and so on.
    pub(super) blocked_clients: AtomicUsize,
    info_callback: Mutex<RedisModuleInfoFunc>,
    settings: Mutex<Vec<&'static Setting>>,
    /// The values of its directives that MODULE LOADEX gives, by their full names.
    given_settings: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    /// It has given its directives their values.
    has_loaded_settings: AtomicBool,
    /// The functions that it exports for other modules.
    exports: Mutex<HashMap<CString, Export>>,
    /// The modules whose exports it uses.
    uses: Mutex<Vec<&'static Module>>,
}

struct Identity {
    name: CString,
    version: c_int,
    api_version: c_int,
}

struct Export(*mut c_void);

// SAFETY: the server only hands the pointer on; what it points to is the modules' affair.
unsafe impl Send for Export {}

static LOADED: Mutex<Vec<&'static Module>> = Mutex::new(Vec::new());

/// The modules that clients see, in the order in which they were loaded.
pub fn loaded() -> Vec<&'static Module> {
    let all = LOADED.lock().expect("no holder of the list panics");
    all.iter().copied().filter(|module| !module.is_builtin()).collect()
}

/// Whether there are values that one callback at a time makes: of the types of modules that are not shard-safe.
pub fn has_types_that_take_turns() -> bool {
    loaded().iter().any(|module| !module.is_shard_safe() && module.has_types())
}

/// What all of them make of a snapshot that is loaded as it comes from a master.
pub fn load_support() -> LoadSupport {
    let modules = loaded();
    let has = |module: &&'static Module, option| module.options() & option != 0;
    let handles_errors =
        |module: &&'static Module| !module.has_types() || has(module, REDISMODULE_OPTIONS_HANDLE_IO_ERRORS);
    LoadSupport {
        handles_errors: modules.iter().all(handles_errors),
        handles_async: modules.iter().all(|module| has(module, REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD)),
    }
}

/// The module that has registered a command, by its full name (`container|subcommand`), if clients see it.
pub fn owner(full_name: &str) -> Option<&'static Module> {
    let is_it = |command: &&'static ModuleCommand| command.full_name.to_bytes() == full_name.as_bytes();
    loaded().into_iter().find(|module| module.commands().iter().any(|command| is_it(&command)))
}

/// All modules, built-in ones included.
pub(super) fn every() -> Vec<&'static Module> {
    LOADED.lock().expect("no holder of the list panics").clone()
}

/// The module of this name, a built-in one included.
pub(super) fn loaded_name(name: &[u8]) -> Option<&'static Module> {
    let all = LOADED.lock().expect("no holder of the list panics");
    all.iter().copied().find(|module| module.name().to_bytes() == name)
}

impl Module {
    /// A module that is about to be loaded.
    pub(super) fn new(path: &[u8], args: Vec<Vec<u8>>, library: Option<Library>) -> &'static Module {
        Box::leak(Box::new(Module {
            identity: OnceLock::new(),
            path: path.to_vec(),
            args,
            library: Mutex::new(library),
            is_loading: AtomicBool::new(true),
            is_retired: AtomicBool::new(false),
            callbacks: AtomicUsize::new(0),
            is_shard_safe: AtomicBool::new(false),
            options: AtomicI32::new(0),
            commands: Mutex::new(Vec::new()),
            types: Mutex::new(Vec::new()),
            blocked_clients: AtomicUsize::new(0),
            info_callback: Mutex::new(None),
            settings: Mutex::new(Vec::new()),
            given_settings: Mutex::new(Vec::new()),
            has_loaded_settings: AtomicBool::new(false),
            exports: Mutex::new(HashMap::new()),
            uses: Mutex::new(Vec::new()),
        }))
    }

    /// It is loaded: others see it from now on.
    pub(super) fn publish(&'static self) {
        self.is_loading.store(false, Ordering::Relaxed);
        LOADED.lock().expect("no holder of the list panics").push(self);
    }

    /// It is unloaded, or could not be loaded: nobody finds it any more.
    pub(super) fn withdraw(&'static self) {
        let is_other = |module: &&Module| !std::ptr::eq(*module, self);
        LOADED.lock().expect("no holder of the list panics").retain(is_other);
        self.uses.lock().expect("no holder of the list panics").clear();
    }

    /// None of its callbacks begins any more. Those that have begun may still run, on any shard: see
    /// [`load::close`](super::load::close).
    pub(super) fn retire(&'static self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Runs a callback of it, unless it is retired. While one runs, whose program may be suspended meanwhile, its library is not closed.
    pub(super) fn while_loaded<T>(&self, callback: impl FnOnce() -> T) -> Option<T> {
        // In this order: whoever has retired it looks at the number after that.
        self.callbacks.fetch_add(1, Ordering::SeqCst);
        let result = (!self.is_retired()).then(callback);
        self.callbacks.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Whether a callback runs that has begun by [`while_loaded`](Module::while_loaded).
    pub(super) fn runs_callbacks(&self) -> bool {
        self.callbacks.load(Ordering::SeqCst) > 0
    }

    /// Its name; empty until it has named itself.
    pub fn name(&self) -> &CStr {
        self.identity.get().map_or(c"", |identity| &identity.name)
    }

    pub fn version(&self) -> c_int {
        self.identity.get().map_or(0, |identity| identity.version)
    }

    pub fn api_version(&self) -> c_int {
        self.identity.get().map_or(0, |identity| identity.api_version)
    }

    /// Names it. The first name stays.
    pub(super) fn identify(&self, name: &CStr, version: c_int, api_version: c_int) {
        let _ = self.identity.set(Identity { name: name.to_owned(), version, api_version });
    }

    /// It is linked into the server, and clients do not see that it is a module.
    pub fn is_builtin(&self) -> bool {
        self.path.is_empty()
    }

    pub(super) fn is_loading(&self) -> bool {
        self.is_loading.load(Ordering::Relaxed)
    }

    pub(super) fn is_shard_safe(&self) -> bool {
        self.is_shard_safe.load(Ordering::Relaxed)
    }

    pub(super) fn declare_shard_safe(&self) {
        self.is_shard_safe.store(true, Ordering::Relaxed);
    }

    pub fn options(&self) -> c_int {
        self.options.load(Ordering::Relaxed)
    }

    pub(super) fn set_options(&self, options: c_int) {
        self.options.store(options, Ordering::Relaxed);
    }

    /// What adds to INFO for it.
    pub(super) fn info_callback(&self) -> RedisModuleInfoFunc {
        *self.info_callback.lock().expect("no holder of a callback panics")
    }

    pub(super) fn add_to_info(&self, callback: RedisModuleInfoFunc) {
        *self.info_callback.lock().expect("no holder of a callback panics") = callback;
    }

    pub(super) fn settings(&self) -> Vec<&'static Setting> {
        self.settings.lock().expect("no holder of the settings panics").clone()
    }

    pub(super) fn add_setting(&self, setting: &'static Setting) {
        self.settings.lock().expect("no holder of the settings panics").push(setting);
    }

    pub(super) fn given_settings(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.given_settings.lock().expect("no holder of the settings panics").clone()
    }

    pub(super) fn give_settings(&self, given: Vec<(Vec<u8>, Vec<u8>)>) {
        *self.given_settings.lock().expect("no holder of the settings panics") = given;
    }

    pub(super) fn has_loaded_settings(&self) -> bool {
        self.has_loaded_settings.load(Ordering::Relaxed)
    }

    pub(super) fn load_settings(&self) {
        self.has_loaded_settings.store(true, Ordering::Relaxed);
    }

    pub fn has_types(&self) -> bool {
        !self.types().is_empty()
    }

    pub(super) fn types(&self) -> Vec<&'static DataType> {
        self.types.lock().expect("no holder of the types panics").clone()
    }

    /// It has registered a data type.
    pub(super) fn add_type(&self, of: &'static DataType) {
        self.types.lock().expect("no holder of the types panics").push(of);
    }

    pub(super) fn commands(&self) -> Vec<&'static ModuleCommand> {
        self.commands.lock().expect("no holder of the commands panics").clone()
    }

    pub(super) fn add_command(&self, command: &'static ModuleCommand) {
        self.commands.lock().expect("no holder of the commands panics").push(command);
    }

    /// Exports a function for other modules. Returns whether the name was free.
    pub(super) fn export(&self, name: &CStr, function: *mut c_void) -> bool {
        if exporter(name).is_some() {
            return false;
        }
        let mut exports = self.exports.lock().expect("no holder of the exports panics");
        exports.insert(name.to_owned(), Export(function)).is_none()
    }

    fn exported(&self, name: &CStr) -> Option<*mut c_void> {
        let exports = self.exports.lock().expect("no holder of the exports panics");
        exports.get(name).map(|export| export.0)
    }

    /// A function that another module exports; it is used from now on.
    pub(super) fn import(&self, name: &CStr) -> Option<*mut c_void> {
        let (exporter, function) = exporter(name)?;
        let mut uses = self.uses.lock().expect("no holder of the list panics");
        if !uses.iter().any(|used| std::ptr::eq(*used, exporter)) {
            uses.push(exporter);
        }
        Some(function)
    }

    /// What INFO says of it.
    pub fn info_line(&'static self) -> String {
        let names = |modules: Vec<&'static Module>| {
            let names = modules.iter().map(|module| module.name().to_string_lossy().into_owned());
            names.collect::<Vec<_>>().join("|")
        };
        let options = [
            (REDISMODULE_OPTIONS_HANDLE_IO_ERRORS, "handle-io-errors"),
            (REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD, "handle-repl-async-load"),
            (REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED, "no-implicit-signal-modified"),
        ];
        let set = options.iter().filter(|(bit, _)| self.options() & bit != 0).map(|(_, name)| *name);
        format!(
            "name={},ver={},api={},filters={},usedby=[{}],using=[{}],options=[{}]",
            self.name().to_string_lossy(),
            self.version(),
            self.api_version(),
            filters::count(self),
            names(self.used_by()),
            names(self.uses()),
            set.collect::<Vec<_>>().join("|"),
        )
    }

    /// The modules whose exports it uses.
    pub fn uses(&self) -> Vec<&'static Module> {
        self.uses.lock().expect("no holder of the list panics").clone()
    }

    /// The modules that use its exports.
    pub fn used_by(&'static self) -> Vec<&'static Module> {
        let all = LOADED.lock().expect("no holder of the list panics").clone();
        all.into_iter().filter(|other| other.uses().iter().any(|used| std::ptr::eq(*used, self))).collect()
    }
}

fn exporter(name: &CStr) -> Option<(&'static Module, *mut c_void)> {
    let all = LOADED.lock().expect("no holder of the list panics").clone();
    all.into_iter().find_map(|module| module.exported(name).map(|function| (module, function)))
}
