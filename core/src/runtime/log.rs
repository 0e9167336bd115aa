//! The log, line by line in Redis' format: `PID:M 21 Nov 2026 10:00:00.000 * message`.

use std::fmt::Arguments;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// In ascending order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);
static FILE: OnceLock<Mutex<File>> = OnceLock::new();

/// Lines below `level` are left out from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Logs to a file, opened for appending, in place of standard output.
pub fn set_file(path: &str) -> std::io::Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    let _ = FILE.set(Mutex::new(file));
    Ok(())
}

pub fn debug(message: Arguments<'_>) {
    write(Level::Debug, message);
}

pub fn verbose(message: Arguments<'_>) {
    write(Level::Verbose, message);
}

pub fn notice(message: Arguments<'_>) {
    write(Level::Notice, message);
}

pub fn warning(message: Arguments<'_>) {
    write(Level::Warning, message);
}

fn write(level: Level, message: Arguments<'_>) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mark = [".", "-", "*", "#"][level as usize];
    let line = format!("{}:M {} {mark} {message}\n", std::process::id(), local_time(now.as_millis() as i64));
    match FILE.get() {
        Some(file) => {
            let _ = file.lock().map(|mut file| file.write_all(line.as_bytes()));
        }
        None => {
            let _ = std::io::stdout().lock().write_all(line.as_bytes());
        }
    }
}

fn local_time(unix_ms: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ms / 1000;
    // SAFETY: localtime_r writes the given structure, which is plain data.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    format!(
        "{:02} {} {} {:02}:{:02}:{:02}.{:03}",
        tm.tm_mday,
        MONTHS[tm.tm_mon as usize],
        tm.tm_year + 1900,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        unix_ms % 1000
    )
}
