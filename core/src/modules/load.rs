//! Loading and unloading modules.

use super::command::ModuleCommand;
use super::context::{Access, Context, in_turn, run_with};
use super::module::{Module, loaded_name};
use super::run::forget_finders;
use super::server::forget_types;
use super::string::Arguments;
use super::{events, filters, guarded, settings, timers, users};
use crate::command::table::{Command, CommandTable};
use crate::config::Config;
use crate::runtime::{files, log};
use crate::worker::program::ProgramCtx;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use shardis_modules_api::abi::{REDISMODULE_ERR, RedisModuleOnLoadFunc, RedisModuleOnUnloadFunc};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// Why a module cannot be unloaded: Redis' words.
pub(super) enum NotUnloaded {
    NoSuchModule,
    HasTypes,
    IsUsed,
    HasBlockedClients,
    HasTimers,
    /// A module's command asks for it: it may be the module's own, which has to return to it.
    IsCalled,
    Refused,
}

impl NotUnloaded {
    pub(super) fn text(&self) -> &'static str {
        match self {
            NotUnloaded::NoSuchModule => "no such module with that name",
            NotUnloaded::HasTypes => "the module exports one or more module-side data types, can't unload",
            NotUnloaded::IsUsed => {
                "the module exports APIs used by other modules. Please unload them first and try again"
            }
            NotUnloaded::HasBlockedClients => {
                "the module has blocked clients. Please wait them unblocked and try again"
            }
            NotUnloaded::HasTimers => {
                "the module holds timer that is not fired. Please stop the timer or wait until it fires."
            }
            NotUnloaded::IsCalled => "a module's command cannot unload modules",
            NotUnloaded::Refused => "operation not possible.",
        }
    }
}

/// The entry of a module that is linked into the server.
pub type OnLoad = RedisModuleOnLoadFunc;

/// Loads a module that is linked into the process. Returns its rows. `path`: where clients are told that its library is;
/// empty: they are not told that it is a module.
///
/// # Panics
/// It does not load: that is a bug.
pub fn load_linked(path: &[u8], on_load: OnLoad, config: &Config) -> Vec<Command> {
    let module = Module::new(path, Vec::new(), None);
    let is_loaded = run_on_load(module, on_load, Access::Starting { config, table: None });
    assert!(is_loaded, "a module that is linked into the server loads");
    module.publish();
    rows(module)
}

/// Loads the modules that the configuration names, before the server has clients. Returns their rows. `table`: the commands of
/// the server itself.
///
/// # Errors
/// The operator's line for a module that does not load.
pub fn load_configured(config: &Config, table: &CommandTable) -> Result<Vec<Command>, String> {
    let mut all = Vec::new();
    for words in &config.loaded_modules {
        let (path, args) = words.split_first().expect("a directive without a path is refused");
        let access = Access::Starting { config, table: Some(table) };
        let load = |on_load, module| run_on_load(module, on_load, access);
        match open(path, args.to_vec(), Vec::new(), load) {
            Ok(module) => all.extend(rows(module)),
            Err(NotLoaded { .. }) => {
                let path = String::from_utf8_lossy(path);
                return Err(format!("Can't load module from {path}: server aborting"));
            }
        }
    }
    if settings::has_unknown(config) {
        return Err(
            "Module Configuration detected without loadmodule directive or no ApplyConfig call: aborting"
                .into(),
        );
    }
    Ok(all)
}

/// A table with the commands of the modules that the configuration has had loaded, by [`load_configured`].
///
/// # Errors
/// A name is taken, or there are too many commands.
pub fn table_with(table: CommandTable, loaded: Vec<Command>) -> Result<CommandTable, String> {
    let modules = super::loaded();
    if modules.is_empty() {
        return Ok(table);
    }
    let loaded: &'static [Command] = Vec::leak(loaded);
    let table = table.with(&loaded.iter().collect::<Vec<_>>())?;
    guarded::as_needed(table, &modules)
}

/// Loads a module for a running server. Returns it, and its rows, which the caller publishes. `given`: values of its
/// directives.
pub(super) fn load(
    program: &mut ProgramCtx<'_>,
    path: &[u8],
    args: Vec<Vec<u8>>,
    given: Vec<(Vec<u8>, Vec<u8>)>,
) -> Option<(&'static Module, Vec<Command>)> {
    let access = Access::Program(NonNull::from(&mut *program).cast());
    match open(path, args, given, |on_load, module| run_on_load(module, on_load, access)) {
        Ok(module) => Some((module, rows(module))),
        Err(NotLoaded { opened }) => {
            if let Some(module) = opened {
                close(program, module);
            }
            None
        }
    }
}

/// A module does not load, and the log says why. `opened`: its library is open.
struct NotLoaded {
    opened: Option<&'static Module>,
}

/// Opens a library and has it loaded.
///
/// # Errors
/// That fails.
fn open(
    path: &[u8],
    args: Vec<Vec<u8>>,
    given: Vec<(Vec<u8>, Vec<u8>)>,
    load: impl FnOnce(OnLoad, &'static Module) -> bool,
) -> Result<&'static Module, NotLoaded> {
    let shown = String::from_utf8_lossy(path).into_owned();
    if !files::is_executable(Path::new(&shown)) {
        log::warning(format_args!("Module {shown} failed to load: It does not have execute permissions."));
        return Err(NotLoaded { opened: None });
    }
    // SAFETY: the operator asks for the code of the library to be run.
    let library = match unsafe { Library::open(Some(&shown), RTLD_NOW | RTLD_LOCAL) } {
        Ok(library) => library,
        Err(error) => {
            log::warning(format_args!("Module {shown} failed to load: {error}"));
            return Err(NotLoaded { opened: None });
        }
    };
    // SAFETY: the symbol of this name has this type in every module.
    let on_load = match unsafe { library.get::<OnLoad>(b"RedisModule_OnLoad\0") } {
        Ok(on_load) => *on_load,
        Err(_) => {
            log::warning(format_args!(
                "Module {shown} does not export RedisModule_OnLoad() symbol. Module not loaded."
            ));
            return Err(NotLoaded { opened: None });
        }
    };
    let module = Module::new(path, args, Some(library));
    module.give_settings(given);
    let is_loaded = load(on_load, module);
    let trouble = settings::trouble(module).filter(|_| is_loaded);
    if let Some(trouble) = trouble {
        log::warning(format_args!("{trouble}"));
    }
    if !is_loaded || trouble.is_some() {
        log::warning(format_args!("Module {shown} initialization failed. Module not loaded"));
        return Err(NotLoaded { opened: Some(module) });
    }
    module.publish();
    let name = module.name().to_string_lossy();
    log::notice(format_args!("Module '{name}' loaded from {shown}"));
    Ok(module)
}

/// Runs a module's `OnLoad`. Returns whether it succeeded.
fn run_on_load(module: &'static Module, on_load: OnLoad, access: Access<'_>) -> bool {
    let mut ctx = Context::new(module, access);
    let arguments = Arguments::new(module.args.iter().map(Vec::as_slice), module);
    let mut argv = arguments.vector();
    // SAFETY: it is the entry of a module, and the context and the arguments last until it returns.
    let status = run_with(&mut ctx, "OnLoad", |ctx| unsafe {
        on_load(ctx, argv.as_mut_ptr().cast(), arguments.len())
    });
    ctx.finish();
    arguments.give_back();
    status != Some(REDISMODULE_ERR)
}

/// The rows of a module's commands.
fn rows(module: &'static Module) -> Vec<Command> {
    let is_own = |command: &&'static ModuleCommand| !command.is_subcommand;
    module.commands().into_iter().filter(is_own).map(ModuleCommand::row).collect()
}

/// Unloads a module. The caller has removed its commands if it succeeds.
///
/// # Errors
/// It cannot be unloaded now, or refuses.
pub(super) fn unload(program: &mut ProgramCtx<'_>, name: &[u8]) -> Result<&'static Module, NotUnloaded> {
    let module = loaded_name(name).filter(|module| !module.is_builtin()).ok_or(NotUnloaded::NoSuchModule)?;
    if program.is_called() {
        return Err(NotUnloaded::IsCalled);
    }
    if module.has_types() {
        return Err(NotUnloaded::HasTypes);
    }
    if !module.used_by().is_empty() {
        return Err(NotUnloaded::IsUsed);
    }
    if module.blocked_clients.load(Ordering::Relaxed) > 0 {
        return Err(NotUnloaded::HasBlockedClients);
    }
    if timers::has_any(module) {
        return Err(NotUnloaded::HasTimers);
    }
    let on_unload = {
        let library = module.library.lock().expect("no holder of a library panics");
        let library = library.as_ref().expect("a module that is not built in has a library");
        // SAFETY: the symbol of this name has this type in every module.
        unsafe { library.get::<RedisModuleOnUnloadFunc>(b"RedisModule_OnUnload\0") }
            .ok()
            .map(|symbol| *symbol)
    };
    // Of a module that sees one callback at a time this is the last one.
    let part = || {
        let agrees = on_unload.is_none_or(|on_unload| {
            let mut ctx = Context::new(module, Access::Program(NonNull::from(&mut *program).cast()));
            // SAFETY: it is a function of the module, and the context lasts until it returns.
            let status = run_with(&mut ctx, "OnUnload", |ctx| unsafe { on_unload(ctx) });
            ctx.finish();
            status != Some(REDISMODULE_ERR)
        });
        if agrees {
            module.retire();
        }
        agrees
    };
    if !in_turn(module, "OnUnload", part) {
        let name = String::from_utf8_lossy(name);
        log::notice(format_args!("Module {name} OnUnload failed.  Unload canceled."));
        return Err(NotUnloaded::Refused);
    }
    module.withdraw();
    users::forget(module, program.worker());
    Ok(module)
}

/// Closes a module's library, when nothing of it runs any more. It is not in the command table any more, or never was.
///
/// Calls of its commands may still be under way: parked, queued, or placed by a shard that has not adopted the new table yet. They
/// find the module [retired](Module::retire). A callback that runs at the moment does so in a shard's turn, or is
/// [counted](Module::while_loaded). So the library is not used any more when every shard has begun another turn, and none is counted. The
/// program is suspended until then: whoever loads the library again gets it as it is when it is loaded, and not as it was left.
pub(super) fn close(program: &mut ProgramCtx<'_>, module: &'static Module) {
    forget(module);
    let globals = program.worker().globals;
    let turns = globals.turn_counts();
    while !globals.have_turned_since(&turns) || module.runs_callbacks() {
        if globals.is_stopping() {
            return;
        }
        globals.ring_all();
        program.give_way(None);
    }
    let library = module.library.lock().expect("no holder of a library panics").take();
    if let Some(library) = library
        && let Err(error) = library.close()
    {
        log::warning(format_args!("Error when trying to close the module: {error}"));
    }
}

/// A module is to be called for nothing any more.
fn forget(module: &'static Module) {
    module.retire();
    module.withdraw();
    events::unsubscribe(module);
    timers::forget(module);
    filters::forget(module);
    forget_finders(module);
    forget_types(module);
}
