//! What the server's configuration says about strings.

use shardis_modules_api::{Context, Error, Event, EventKind, Loader, LogLevel};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const DIRECTIVE: &str = "proto-max-bulk-len";

/// The directive, as it was when it was last read.
static STRING_LEN_MAX_BYTES: AtomicU64 = AtomicU64::new(512 << 20);

/// No string is made longer.
pub fn string_len_max_bytes() -> u64 {
    STRING_LEN_MAX_BYTES.load(Relaxed)
}

/// Reads the directive now, and whenever it is changed. Errors: what CONFIG GET answers.
pub fn follow(loader: &mut Loader<'_>) -> Result<(), Error> {
    let followed = loader.on_event(EventKind::Config, |ctx, event| {
        let Event::Config { names } = event else { return };
        if names.iter().any(|name| name.to_bytes() == DIRECTIVE.as_bytes())
            && let Err(error) = read(ctx)
        {
            ctx.log(LogLevel::Warning, &format!("{DIRECTIVE} stays as it was: {error}"));
        }
    });
    if let Err(error) = followed {
        let text = format!("{DIRECTIVE} is read only once: {error}");
        loader.context().log(LogLevel::Warning, &text);
    }
    read(loader.context())
}

fn read(ctx: &mut Context<'_>) -> Result<(), Error> {
    if let Some(value) = ctx.directive(DIRECTIVE)?.and_then(|value| value.parse().ok()) {
        STRING_LEN_MAX_BYTES.store(value, Relaxed);
    }
    Ok(())
}
