//! Signals that ask the server to stop, and those it does not care about.
//!
//! SIGTERM and SIGINT set a flag and ring a bell; the shard behind that bell looks at the flag and shuts down in
//! order. A second SIGINT ends the process at once, and removes the file that it may be about to save.

use super::driver::{BellHandle, ring_fd};
use super::log;
use std::ffi::CString;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signal that asked for the shutdown, 0 for none.
static REQUESTED: AtomicI32 = AtomicI32::new(0);
static BELL_FD: AtomicI32 = AtomicI32::new(-1);
static TEMPORARY: OnceLock<CString> = OnceLock::new();

/// Which signal asked the server to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    Term,
    Int,
}

/// Takes SIGTERM and SIGINT over, to ring `bell`; ignores SIGHUP and SIGPIPE. `temporary`: the file that is removed when the
/// process ends at once.
pub fn install(bell: &BellHandle, temporary: &Path) -> io::Result<()> {
    let temporary = CString::new(temporary.as_os_str().as_bytes())?;
    // If it is there already, this process has set it.
    let _ = TEMPORARY.set(temporary);
    BELL_FD.store(bell.raw_fd(), Ordering::Release);
    // The handler uses the descriptor for as long as the process lives.
    mem::forget(bell.clone());
    handle(libc::SIGTERM, on_stop_signal as *const () as libc::sighandler_t, 0)?;
    handle(libc::SIGINT, on_stop_signal as *const () as libc::sighandler_t, 0)?;
    handle(libc::SIGHUP, libc::SIG_IGN, 0)?;
    handle(libc::SIGPIPE, libc::SIG_IGN, 0)
}

/// Whether a stop was asked for and not withdrawn since.
pub fn stop_requested() -> Option<StopSignal> {
    match REQUESTED.load(Ordering::Acquire) {
        libc::SIGTERM => Some(StopSignal::Term),
        libc::SIGINT => Some(StopSignal::Int),
        _ => None,
    }
}

/// Withdraws the request: the shutdown could not be carried out, or SHUTDOWN ABORT came.
pub fn withdraw_stop() {
    REQUESTED.store(0, Ordering::Release);
}

extern "C" fn on_stop_signal(signal: libc::c_int) {
    let before = REQUESTED.swap(signal, Ordering::AcqRel);
    if before != 0 && signal == libc::SIGINT {
        log::from_signal_handler(format_args!("You insist... exiting now."));
        // SAFETY: both are async-signal-safe; the path is a terminated string that stays, and _exit runs nothing of ours.
        unsafe {
            if let Some(temporary) = TEMPORARY.get() {
                libc::unlink(temporary.as_ptr());
            }
            libc::_exit(1)
        };
    }
    let name = if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" };
    log::from_signal_handler(format_args!("Received {name} scheduling shutdown..."));
    ring_fd(BELL_FD.load(Ordering::Acquire));
}

/// Sets a signal's disposition. `handler` is SIG_IGN, SIG_DFL or an `extern "C"` function that does only what is
/// async-signal-safe and whose parameters fit `flags`.
pub(super) fn handle(signal: libc::c_int, handler: libc::sighandler_t, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the action is plain data, set up completely before sigaction reads it; `handler` is as required above.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(signal, &action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
