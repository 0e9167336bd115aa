//! A module: its name, what it registers when it is loaded, and the functions that its library exports.

use crate::abi::{
    REDISMODULE_APIVER_1, REDISMODULE_ERR, REDISMODULE_OK, REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED,
    REDISMODULE_OPTIONS_HANDLE_IO_ERRORS, RedisModuleCmdFunc, RedisModuleCtx, RedisModuleEventCallback,
    RedisModuleString, signature,
};
use crate::api::{API, api, api_if_there};
use crate::command::{Begin, Command, Find, Row, entry};
use crate::context::{Context, LogLevel};
use crate::current;
use crate::docs::Docs;
use crate::error::Error;
use crate::events::{self, Listener};
use crate::string::Args;
use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;

/// A module. Give it to [`module!`](crate::module).
pub trait Module: 'static {
    const NAME: &'static str;
    const VERSION: i32;

    /// Whether the module's callbacks may run on several threads at once. Rust sees to it that they can. A command that needs
    /// more than its keys says so in its row ([`Row::is_wide`], or the flag `blocking`); of a module that says `false` here
    /// all commands can do that, and run one at a time.
    const SHARD_SAFE: bool = true;

    /// Registers what the module has. `args` are those of MODULE LOAD, without the path.
    /// Errors: the module is not loaded, and the log says why.
    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error>;

    /// Before the module is unloaded. Errors: it stays.
    fn unload(_ctx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Registers what a module has, while it is loaded.
pub struct Loader<'c> {
    ctx: Context<'c>,
    /// The module's function for events, and what that calls.
    event_entry: RedisModuleEventCallback,
    listeners: Vec<Listener>,
    prefix: String,
    has_configs: bool,
}

impl<'c> Loader<'c> {
    /// What the names of all commands registered from here on begin with. It is how a module loads into a server that has
    /// commands of the same names.
    pub fn set_prefix(&mut self, prefix: &str) {
        self.prefix = prefix.to_string();
    }

    pub(crate) fn listeners(&mut self) -> &mut Vec<Listener> {
        &mut self.listeners
    }

    pub(crate) fn event_entry(&self) -> RedisModuleEventCallback {
        self.event_entry
    }

    pub(crate) fn set_has_configs(&mut self) {
        self.has_configs = true;
    }

    /// What else may be done while the module is loaded: calling commands, above all.
    pub fn context(&mut self) -> &mut Context<'c> {
        &mut self.ctx
    }

    /// Registers a command.
    /// Errors: there is one of this name, or the server does not know one of the flags.
    pub fn command<C: Command>(&mut self) -> Result<(), Error> {
        self.create(&C::ROW, Some(entry::<C>))
    }

    /// Registers a command that does nothing itself, and has subcommands.
    /// Errors: as for `command`.
    pub fn container(&mut self, row: &Row) -> Result<(), Error> {
        self.create(row, None)
    }

    fn create(&mut self, row: &Row, run: RedisModuleCmdFunc) -> Result<(), Error> {
        let name = c_string(&format!("{}{}", self.prefix, row.name))?;
        let (flags, (first, last, step)) = (c_string(row.flags)?, legacy_range(row));
        // SAFETY: the context is that of OnLoad, the server copies the texts, and `run` is a command's function.
        let result = unsafe {
            api!(CreateCommand)(self.ctx.as_ptr(), name.as_ptr(), run, flags.as_ptr(), first, last, step)
        };
        if result != REDISMODULE_OK {
            return Err(Error::new(format!("ERR the command {name:?} cannot be created")));
        }
        self.describe(&name, row)
    }

    /// Registers a subcommand of a container. The name in its row is that of the subcommand alone; its arity counts both.
    /// Errors: as for `command`; there is no such container.
    pub fn subcommand<C: Command>(&mut self, container: &Row) -> Result<(), Error> {
        let parent = c_string(&format!("{}{}", self.prefix, container.name))?;
        let name = c_string(C::ROW.name)?;
        let (flags, (first, last, step)) = (c_string(C::ROW.flags)?, legacy_range(&C::ROW));
        // SAFETY: the context is that of OnLoad; the server copies the texts, and `entry` is a command's function.
        let result = unsafe {
            let parent = api!(GetCommand)(self.ctx.as_ptr(), parent.as_ptr());
            if parent.is_null() {
                return Err(Error::new(format!("ERR there is no command {:?}", container.name)));
            }
            let run = Some(entry::<C> as _);
            api!(CreateSubcommand)(parent, name.as_ptr(), run, flags.as_ptr(), first, last, step)
        };
        if result != REDISMODULE_OK {
            return Err(Error::new(format!("ERR the subcommand {name:?} cannot be created")));
        }
        let full_name = c_string(&format!("{}|{}", parent.to_string_lossy(), C::ROW.name))?;
        self.describe(&full_name, &C::ROW)
    }

    /// Tells the server what the row says besides name, flags and function.
    fn describe(&self, name: &CStr, row: &Row) -> Result<(), Error> {
        // SAFETY: the context is that of OnLoad.
        let command = unsafe { api!(GetCommand)(self.ctx.as_ptr(), name.as_ptr()) };
        let check = |result: c_int, what: &str| match result {
            REDISMODULE_OK => Ok(()),
            _ => Err(Error::new(format!("ERR the {what} of {name:?} is refused"))),
        };
        let docs = Docs::of(row)?;
        // SAFETY: the command was just created. The server copies what the docs point to.
        check(unsafe { api!(SetCommandInfo)(command, docs.as_ptr()) }, "description")?;
        if !row.acl_categories.is_empty()
            && let Some(set_categories) = api_if_there!(SetCommandACLCategories)
        {
            let categories = c_string(row.acl_categories)?;
            // SAFETY: the command was just created.
            check(unsafe { set_categories(command, categories.as_ptr()) }, "categories")?;
        }
        if !row.group.is_empty()
            && let Some(set_group) = api_if_there!(SetCommandGroup)
        {
            let group = c_string(row.group)?;
            // SAFETY: the command was just created.
            check(unsafe { set_group(command, group.as_ptr()) }, "group")?;
        }
        if row.is_wide
            && let Some(set_wide) = api_if_there!(SetCommandWide)
        {
            // SAFETY: the command was just created.
            check(unsafe { set_wide(command) }, "reach")?;
        }
        if row.is_internal
            && let Some(set_internal) = api_if_there!(SetCommandInternal)
        {
            // SAFETY: the command was just created.
            check(unsafe { set_internal(command) }, "documentation")?;
        }
        if let Some((since, replaced_by)) = row.deprecated
            && let Some(set_deprecated) = api_if_there!(SetCommandDeprecated)
        {
            let (since, replaced_by) = (c_string(since)?, c_string(replaced_by)?);
            // SAFETY: the command was just created.
            check(unsafe { set_deprecated(command, since.as_ptr(), replaced_by.as_ptr()) }, "deprecation")?;
        }
        Ok(())
    }
}

/// The keys as servers before 7.0 were told them: the first spec that is a plain range.
fn legacy_range(row: &Row) -> (c_int, c_int, c_int) {
    let ranges = row.keys.iter().filter_map(|spec| match (spec.begin, spec.find) {
        (Begin::Index(first), Find::Range { last, step }) if last < 0 => Some((first, last, step)),
        (Begin::Index(first), Find::Range { last, step }) => Some((first, first + last, step)),
        _ => None,
    });
    ranges.into_iter().next().unwrap_or((0, 0, 0))
}

pub(crate) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(format!("ERR {text:?} has a zero in it")))
}

/// What `RedisModule_OnLoad` does.
///
/// # Safety
/// Arguments are those of `RedisModule_OnLoad`.
#[doc(hidden)]
pub unsafe fn load<M: Module>(
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> c_int {
    let _callback = current::Callback::enter("OnLoad");
    // SAFETY: the first field of a context is the pointer to `GetApi`.
    unsafe { API.ask(*ctx.cast::<signature::GetApi>()) };
    let ctx = NonNull::new(ctx).expect("OnLoad has a context");
    let Ok(name) = CString::new(M::NAME) else { return REDISMODULE_ERR };
    // SAFETY: context and arguments are those of OnLoad; they live until it returns.
    let (context, args) = unsafe {
        if api!(IsModuleNameBusy)(name.as_ptr()) != 0 {
            return REDISMODULE_ERR;
        }
        // Redis keeps the name's pointer no longer than this call.
        api!(SetModuleAttribs)(ctx.as_ptr(), name.as_ptr(), M::VERSION, REDISMODULE_APIVER_1);
        // Keys say themselves whether they were changed, and types whether what they load is there.
        let options = REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED | REDISMODULE_OPTIONS_HANDLE_IO_ERRORS;
        api!(SetModuleOptions)(ctx.as_ptr(), options);
        if M::SHARD_SAFE
            && let Some(declare) = api_if_there!(DeclareShardSafe)
        {
            declare(ctx.as_ptr());
        }
        (Context::of_callback(ctx), Args::from_raw(argv, argc))
    };

    let mut loader = Loader {
        ctx: context,
        event_entry: Some(events::on_event::<M>),
        listeners: Vec::new(),
        prefix: String::new(),
        has_configs: false,
    };
    if let Err(error) = M::load(&mut loader, args) {
        loader.ctx.log(LogLevel::Warning, &format!("module {} does not load: {error}", M::NAME));
        return REDISMODULE_ERR;
    }
    events::set_listeners(M::NAME, std::mem::take(&mut loader.listeners));
    // SAFETY: the context is that of OnLoad. What the configuration says is refused if it is wrong.
    if loader.has_configs && unsafe { api!(LoadConfigs)(ctx.as_ptr()) } != REDISMODULE_OK {
        return REDISMODULE_ERR;
    }
    REDISMODULE_OK
}

/// What `RedisModule_OnUnload` does.
///
/// # Safety
/// The argument is that of `RedisModule_OnUnload`.
#[doc(hidden)]
pub unsafe fn unload<M: Module>(ctx: *mut RedisModuleCtx) -> c_int {
    let _callback = current::Callback::enter("OnUnload");
    let ctx = NonNull::new(ctx).expect("OnUnload has a context");
    // SAFETY: the context lives until OnUnload returns.
    let mut context = unsafe { Context::of_callback(ctx) };
    match M::unload(&mut context) {
        Ok(()) => {
            events::set_listeners(M::NAME, Vec::new());
            REDISMODULE_OK
        }
        Err(error) => {
            context.log(LogLevel::Warning, &format!("module {} stays: {error}", M::NAME));
            REDISMODULE_ERR
        }
    }
}

/// Makes a library of a [`Module`].
///
/// `module!(export MyModule)` exports `RedisModule_OnLoad` and `RedisModule_OnUnload`, for servers that load the library:
/// `crate-type = ["cdylib"]`.
///
/// `module!(MyModule)` is for a module that a program may also be linked with, among others, so that there may be no two
/// functions of one name: it exports those names only with the feature `loadable` of the crate that it stands in.
/// `crate-type = ["cdylib", "rlib"]`.
///
/// Both define `on_load` and `on_unload`, for that program.
#[macro_export]
macro_rules! module {
    (export $module:ty) => {
        $crate::module!(@define $module);
        $crate::module!(@export $module);
    };
    (@define $module:ty) => {
        /// What a server calls to load the module.
        ///
        /// # Safety
        /// The server calls it, with a context and arguments.
        #[allow(unsafe_code, reason = "it has a signature of the C ABI")]
        pub unsafe extern "C" fn on_load(
            ctx: *mut $crate::abi::RedisModuleCtx,
            argv: *mut *mut $crate::abi::RedisModuleString,
            argc: ::std::ffi::c_int,
        ) -> ::std::ffi::c_int {
            // SAFETY: as promised.
            unsafe { $crate::load::<$module>(ctx, argv, argc) }
        }

        /// What a server calls before it unloads the module.
        ///
        /// # Safety
        /// The server calls it, with a context.
        #[allow(unsafe_code, reason = "it has a signature of the C ABI")]
        pub unsafe extern "C" fn on_unload(ctx: *mut $crate::abi::RedisModuleCtx) -> ::std::ffi::c_int {
            // SAFETY: as promised.
            unsafe { $crate::unload::<$module>(ctx) }
        }
    };
    (@export $module:ty) => {
        #[allow(unsafe_code, reason = "the server finds it by its name")]
        #[unsafe(export_name = "RedisModule_OnLoad")]
        unsafe extern "C" fn exported_on_load(
            ctx: *mut $crate::abi::RedisModuleCtx,
            argv: *mut *mut $crate::abi::RedisModuleString,
            argc: ::std::ffi::c_int,
        ) -> ::std::ffi::c_int {
            $crate::name_module_in_panics(<$module as $crate::Module>::NAME);
            // SAFETY: the server calls it as it should.
            unsafe { on_load(ctx, argv, argc) }
        }

        #[allow(unsafe_code, reason = "the server finds it by its name")]
        #[unsafe(export_name = "RedisModule_OnUnload")]
        unsafe extern "C" fn exported_on_unload(ctx: *mut $crate::abi::RedisModuleCtx) -> ::std::ffi::c_int {
            // SAFETY: the server calls it as it should.
            unsafe { on_unload(ctx) }
        }
    };
    ($module:ty) => {
        $crate::module!(@define $module);
        #[cfg(feature = "loadable")]
        $crate::module!(@export $module);
    };
}
