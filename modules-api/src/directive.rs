//! Directives of the server's own configuration: what they are now, and following them as they change.

use crate::call::{CallOptions, CallValue};
use crate::context::{Context, LogLevel};
use crate::error::Error;
use crate::events::{Event, EventKind};
use crate::module::Loader;
use crate::string::ModuleString;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of the server's configuration that the module goes by: a static, which [`Loader::follow`] keeps up to date.
///
/// ```
/// use shardis_modules_api::ServerNumber;
///
/// static STRING_LEN_MAX_BYTES: ServerNumber = ServerNumber::new("proto-max-bulk-len", 512 << 20);
///
/// assert_eq!(STRING_LEN_MAX_BYTES.get(), 512 << 20);
/// ```
pub struct ServerNumber {
    directive: &'static str,
    value: AtomicU64,
}

impl ServerNumber {
    /// `default` holds until it is followed, and in a server that has no such directive.
    pub const fn new(directive: &'static str, default: u64) -> ServerNumber {
        ServerNumber { directive, value: AtomicU64::new(default) }
    }

    /// The directive, as it was when it was last read.
    #[inline]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    fn read(&self, ctx: &mut Context<'_>) -> Result<(), Error> {
        if let Some(value) = ctx.directive(self.directive)?.and_then(|value| value.parse().ok()) {
            self.value.store(value, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Loader<'_> {
    /// Reads a directive of the server now, and whenever it is changed. A server that does not tell of changes has it read
    /// once, and the log says so.
    /// Errors: what CONFIG GET answers.
    pub fn follow(&mut self, number: &'static ServerNumber) -> Result<(), Error> {
        let directive = number.directive;
        let followed = self.on_event(EventKind::Config, move |ctx, event| {
            let Event::Config { names } = event else { return };
            if names.iter().any(|name| name.to_bytes() == directive.as_bytes())
                && let Err(error) = number.read(ctx)
            {
                ctx.log(LogLevel::Warning, &format!("{directive} stays as it was: {error}"));
            }
        });
        if let Err(error) = followed {
            let text = format!("{directive} is read only once: {error}");
            self.context().log(LogLevel::Warning, &text);
        }
        number.read(self.context())
    }
}

impl Context<'_> {
    /// The value of a directive of the server's configuration, as CONFIG GET shows it. None if there is no such directive.
    /// Errors: what CONFIG GET answers.
    pub fn directive(&mut self, name: &str) -> Result<Option<String>, Error> {
        let arguments = [ModuleString::new(b"GET"), ModuleString::new(name.as_bytes())];
        let arguments = arguments.each_ref().map(ModuleString::as_str);
        let reply = self.call(c"CONFIG", &arguments, CallOptions::default())?;
        // The name and the value.
        let CallValue::Array(elements) = reply.value() else { return Ok(None) };
        let value = elements.last();
        Ok(value.and_then(|value| match value.value() {
            CallValue::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }))
    }
}
