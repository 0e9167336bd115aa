//! The log, line by line in Redis' format: `PID:M 21 Nov 2026 10:00:00.000 * message`.
//!
//! A line is one write(2), so lines of several threads never mix. The log file is opened for every line, as Redis
//! does it: whoever rotates logs by renaming the file needs to tell nobody.

use crate::config::{LogLevel, SyslogFacility};
use std::ffi::{CStr, CString};
use std::fmt::{self, Arguments, Write};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
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

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Verbose => Level::Verbose,
            LogLevel::Notice => Level::Notice,
            LogLevel::Warning => Level::Warning,
        }
    }
}

/// Who writes: the letter behind the process id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    Master = b'M',
    Replica = b'S',
}

/// Bytes of a message, at most: the rest is cut off. Much of what is logged was sent by clients.
const MESSAGE_LEN_MAX: usize = 1024;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);
static ROLE: AtomicU8 = AtomicU8::new(Role::Master as u8);
/// The log file's path, or null for standard output. A path that was set once is never freed: a signal handler may
/// be reading it.
static PATH: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());
/// Lines go to the system's log, too.
static SYSLOG_IS_OPEN: AtomicBool = AtomicBool::new(false);
static STDOUT_IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Lines below `level` are left out from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are written: to be asked before work that only a log line needs.
pub fn is_enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

pub fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// Logs to a file in place of standard output; an empty path is standard output. Fails, and changes nothing, when
/// the file cannot be opened for appending.
pub fn set_file(path: &str) -> io::Result<()> {
    let path = if path.is_empty() {
        ptr::null_mut()
    } else {
        let path = CString::new(path)?;
        close(open(&path)?);
        path.into_raw()
    };
    PATH.store(path, Ordering::Release);
    Ok(())
}

/// From here on nothing is logged to standard output: a daemon has none.
pub fn silence_stdout() {
    STDOUT_IS_SILENT.store(true, Ordering::Relaxed);
}

/// Sends lines to the system's log as well, under the name `ident` (`syslog-enabled`). To be called once. Reports, and what
/// signal handlers write, do not go there.
pub fn open_syslog(ident: &[u8], facility: SyslogFacility) {
    let facility = match facility {
        SyslogFacility::User => libc::LOG_USER,
        SyslogFacility::Local0 => libc::LOG_LOCAL0,
        SyslogFacility::Local1 => libc::LOG_LOCAL1,
        SyslogFacility::Local2 => libc::LOG_LOCAL2,
        SyslogFacility::Local3 => libc::LOG_LOCAL3,
        SyslogFacility::Local4 => libc::LOG_LOCAL4,
        SyslogFacility::Local5 => libc::LOG_LOCAL5,
        SyslogFacility::Local6 => libc::LOG_LOCAL6,
        SyslogFacility::Local7 => libc::LOG_LOCAL7,
    };
    let until_nul = ident.split(|&byte| byte == 0).next().unwrap_or_default();
    let ident = CString::new(until_nul).expect("it ends before a NUL byte");
    // SAFETY: openlog keeps the pointer to the name, which is never freed.
    unsafe { libc::openlog(ident.into_raw(), libc::LOG_PID | libc::LOG_NDELAY | libc::LOG_NOWAIT, facility) };
    SYSLOG_IS_OPEN.store(true, Ordering::Release);
}

fn to_syslog(level: Level, message: &str) {
    let priority = match level {
        Level::Debug => libc::LOG_DEBUG,
        Level::Verbose => libc::LOG_INFO,
        Level::Notice => libc::LOG_NOTICE,
        Level::Warning => libc::LOG_WARNING,
    };
    let until_nul = message.split('\0').next().unwrap_or_default();
    let message = CString::new(until_nul).expect("it ends before a NUL byte");
    // SAFETY: syslog reads the format and the one string that this asks for, both up to their NUL.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), message.as_ptr()) };
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
    if !is_enabled(level) {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = format!(
        "{}:{} {} {} ",
        std::process::id(),
        char::from(ROLE.load(Ordering::Relaxed)),
        local_time(now.as_millis() as i64),
        [".", "-", "*", "#"][level as usize]
    );
    let begin = line.len();
    // Only a Display of ours could fail here, and none does.
    let _ = line.write_fmt(message);
    if line.len() - begin > MESSAGE_LEN_MAX {
        line.truncate(line.floor_char_boundary(begin + MESSAGE_LEN_MAX));
    }
    if SYSLOG_IS_OPEN.load(Ordering::Acquire) {
        to_syslog(level, &line[begin..]);
    }
    line.push('\n');
    append(line.as_bytes());
}

/// Writes a text as it is: the inner parts of a report. Its lines count as warnings.
pub fn raw(text: &str) {
    append(text.as_bytes());
}

/// A warning from a signal handler: neither locks nor allocates, and leaves errno alone.
/// `PID:signal-handler (unix time) message`
pub fn from_signal_handler(message: Arguments<'_>) {
    // SAFETY: errno belongs to this thread; getpid and time are async-signal-safe and take no pointers here.
    let (errno, pid, now) =
        unsafe { (*libc::__errno_location(), libc::getpid(), libc::time(ptr::null_mut())) };
    let mut line = SignalLine::new();
    let _ = write!(line, "{pid}:signal-handler ({now}) ");
    let _ = line.write_fmt(message);
    let _ = line.write_str("\n");
    append(line.as_bytes());
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// As `raw`, from a signal handler, cut off at the length of a `SignalLine`.
pub fn raw_from_signal_handler(text: Arguments<'_>) {
    let mut line = SignalLine::new();
    let _ = line.write_fmt(text);
    append(line.as_bytes());
}

/// A text on the stack.
struct SignalLine {
    bytes: [u8; 512],
    len: usize,
}

impl SignalLine {
    fn new() -> SignalLine {
        SignalLine { bytes: [0; 512], len: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for SignalLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Async-signal-safe.
fn append(bytes: &[u8]) {
    let path = PATH.load(Ordering::Acquire);
    if path.is_null() {
        if !STDOUT_IS_SILENT.load(Ordering::Relaxed) {
            write_all(libc::STDOUT_FILENO, bytes);
        }
        return;
    }
    // SAFETY: `set_file` stores only null and paths that came from a CString and are never freed.
    if let Ok(fd) = open(unsafe { CStr::from_ptr(path) }) {
        write_all(fd, bytes);
        close(fd);
    }
}

fn open(path: &CStr) -> io::Result<RawFd> {
    let flags = libc::O_APPEND | libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: open reads the path up to its NUL.
    let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn close(fd: RawFd) {
    // SAFETY: every caller closes what it opened, once.
    unsafe { libc::close(fd) };
}

/// There is nowhere to report that the log cannot be written.
fn write_all(fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: write reads at most the slice's length.
        match unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } {
            written @ 1.. => bytes = &bytes[written as usize..],
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn local_time(unix_ms: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ms / 1000;
    // SAFETY: localtime_r writes the given structure, which is plain data and valid as zeroes if it fails.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the log is the process'.
    #[test]
    fn lines_are_formatted_filtered_cut_and_appended() {
        let path = std::env::temp_dir().join(format!("shardis-log-{}", std::process::id()));
        let path = path.to_str().expect("a plain path");
        set_file(path).expect("a writable directory");
        notice(format_args!("Server initialized, {} shards", 4));
        verbose(format_args!("left out"));
        set_level(Level::Debug);
        debug(format_args!("in detail"));
        set_level(Level::Notice);
        set_role(Role::Replica);
        warning(format_args!("{}", "é".repeat(1000)));
        set_role(Role::Master);
        raw("=== a report ===\n");
        from_signal_handler(format_args!("Received SIGTERM scheduling shutdown..."));
        // Rotation by renaming.
        let rotated = format!("{path}.1");
        std::fs::rename(path, &rotated).expect("the file is there");
        notice(format_args!("afresh"));
        assert!(set_file("/no such directory/log").is_err());
        notice(format_args!("still here"));
        set_file("").expect("standard output");

        let text = std::fs::read_to_string(&rotated).expect("a log of text");
        let lines: Vec<&str> = text.lines().filter(|line| is_ours(line)).collect();
        let pid = std::process::id();
        assert!(lines[0].starts_with(&format!("{pid}:M ")), "{}", lines[0]);
        assert!(lines[0].ends_with(" * Server initialized, 4 shards"));
        // `PID:M 21 Nov 2026 10:00:00.000 * `
        let date = lines[0].split_once(' ').expect("a date follows").1;
        assert_eq!(date.find(" * "), Some("21 Nov 2026 10:00:00.000".len()), "{date}");
        assert!(lines[1].ends_with(" . in detail"));
        assert!(lines[2].starts_with(&format!("{pid}:S ")) && lines[2].contains(" # é"));
        assert_eq!(lines[2].chars().filter(|&letter| letter == 'é').count(), MESSAGE_LEN_MAX / 2);
        assert_eq!(lines[3], "=== a report ===");
        assert!(lines[4].starts_with(&format!("{pid}:signal-handler (")));
        assert!(lines[4].ends_with(") Received SIGTERM scheduling shutdown..."));
        assert_eq!(lines.len(), 5);
        let text = std::fs::read_to_string(path).expect("a new log");
        assert!(text.contains("afresh\n") && text.contains("still here\n"));
        std::fs::remove_file(path).expect("ours");
        std::fs::remove_file(rotated).expect("ours");
    }

    /// Other tests of this process may log meanwhile.
    fn is_ours(line: &str) -> bool {
        ["initialized", "detail", "é", "report", "SIGTERM", "left out"].iter().any(|word| line.contains(word))
    }
}
