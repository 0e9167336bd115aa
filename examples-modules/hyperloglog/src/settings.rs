//! What the server's configuration says about HyperLogLogs.

use shardis_modules_api::{Context, Error, Event, EventKind, Loader, LogLevel};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const DIRECTIVE: &str = "hll-sparse-max-bytes";

/// The directive, as it was when it was last read.
static SPARSE_LEN_MAX_BYTES: AtomicUsize = AtomicUsize::new(3000);

/// The longest string, with its header, that keeps the sparse form.
pub fn sparse_len_max_bytes() -> usize {
    SPARSE_LEN_MAX_BYTES.load(Relaxed)
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
        SPARSE_LEN_MAX_BYTES.store(value, Relaxed);
    }
    Ok(())
}
