//! The last words of a server that crashes: what happened, on which shard, in which command, and the stack.
//!
//! Two ways lead here. A panic is reported by a hook, in a sane process. A fatal signal is reported by a handler, in
//! a process that may be broken in any way: so the handler first says everything it can say without allocating and
//! without locks, raw return addresses included, and only then tries the readable stack trace, with an alarm set in
//! case that hangs (a crash inside the allocator). Then the signal is raised again, so that the process ends as
//! it would have, core dump included.

use super::log;
use super::{signals, watchdog};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::ffi::CStr;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Stack for signal handlers: enough to format a stack trace. Real only where it is touched.
const ALT_STACK_LEN: usize = 512 << 10;

/// What a readable stack trace needs at least. Threads that are not ours have the standard library's few KiB.
const TRACE_STACK_LEN_MIN: usize = 128 << 10;

/// Return addresses in a raw stack trace, at most.
const FRAMES_MAX: usize = 100;

/// Seconds that the readable stack trace may take.
const TRACE_SECONDS_MAX: u32 = 10;

const NO_SHARD: usize = usize::MAX;

/// Set by the first thread that reports. There is one report a process.
static REPORTING: AtomicBool = AtomicBool::new(false);

static VERSION: OnceLock<&'static str> = OnceLock::new();

/// Where this binary lies in memory: what to take off a raw address before `addr2line`.
static IMAGE_BASE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(NO_SHARD) };
    static COMMAND: Cell<Option<&'static String>> = const { Cell::new(None) };
    static CALLBACK: Cell<Option<Callback>> = const { Cell::new(None) };
}

/// A callback of a module.
#[derive(Clone, Copy, Debug)]
pub struct Callback {
    /// The module's name.
    pub module: &'static CStr,
    /// What it is called for.
    pub what: &'static str,
}

/// Notes the module's callback that this thread executes from now on, for a report. Returns the one before.
pub fn set_current_callback(callback: Option<Callback>) -> Option<Callback> {
    CALLBACK.replace(callback)
}

impl std::fmt::Display for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module: {}, callback: {}", self.module.to_str().unwrap_or("?"), self.what)
    }
}

/// Notes the command that this thread executes from now on, for a report. One store.
#[inline(always)]
#[allow(clippy::ptr_arg, reason = "a thin pointer, which can be stored without a look at the name")]
pub fn set_current_command(name: &'static String) {
    COMMAND.set(Some(name));
}

/// This thread executes no command any more.
#[inline]
pub fn clear_current_command() {
    COMMAND.set(None);
}

/// Prepares this thread for being reported: a name for it, and a stack for signal handlers, without which a stack
/// overflow would be silent.
pub fn enter_shard(index: usize) {
    SHARD.set(index);
    install_alt_stack();
    watchdog::enter_shard(index);
}

/// use-exit-on-panic: a panic ends the process without a signal, and so without a core file.
static EXITS_ON_PANIC: AtomicBool = AtomicBool::new(false);

pub fn set_exit_on_panic(exits: bool) {
    EXITS_ON_PANIC.store(exits, Ordering::Relaxed);
}

/// Reports panics, and, if `crash_log_enabled`, fatal signals. For the main thread, before others are started.
pub fn install(version: &'static str, crash_log_enabled: bool) -> io::Result<()> {
    let _ = VERSION.set(version);
    panic::set_hook(Box::new(on_panic));
    if !crash_log_enabled {
        return Ok(());
    }
    install_alt_stack();
    // The first call loads the unwinder, which allocates: not to be left to the handler.
    raw_trace(&mut [ptr::null_mut(); FRAMES_MAX]);
    IMAGE_BASE.store(image_base(), Ordering::Relaxed);
    let handler = on_fatal_signal as *const () as libc::sighandler_t;
    let flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESETHAND;
    for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
        signals::handle(signal, handler, flags)?;
    }
    // The stack may be what has no room.
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        signals::handle(signal, handler, flags | libc::SA_ONSTACK)?;
    }
    Ok(())
}

fn install_alt_stack() {
    // SAFETY: a new anonymous mapping, given to this thread for handlers and never taken back (threads of this
    // process live as long as it does, but for tests).
    unsafe {
        let stack = libc::mmap(
            ptr::null_mut(),
            ALT_STACK_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if stack != libc::MAP_FAILED {
            let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: ALT_STACK_LEN };
            libc::sigaltstack(&stack, ptr::null_mut());
        }
    }
}

/// What this thread is, for a person.
fn whereabouts() -> (Whereabouts, &'static str) {
    (Whereabouts(SHARD.get()), COMMAND.get().map_or("none", String::as_str))
}

struct Whereabouts(usize);

impl std::fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            NO_SHARD => f.write_str("none"),
            shard => write!(f, "{shard}"),
        }
    }
}

const REPORT_START: &str = "\n\n=== SHARDIS BUG REPORT START: Cut & paste starting from here ===\n";
const REPORT_END: &str = "\n=== SHARDIS BUG REPORT END. Make sure to include from START to END. ===\n";

fn version() -> &'static str {
    VERSION.get().copied().unwrap_or("of unknown version")
}

/// The first thread to crash reports; others wait for the end it brings.
fn claim_report() {
    if REPORTING.swap(true, Ordering::AcqRel) {
        loop {
            // SAFETY: sleep takes no pointers.
            unsafe { libc::sleep(1) };
        }
    }
}

fn on_panic(info: &PanicHookInfo<'_>) {
    claim_report();
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    let (file, line) = info.location().map_or(("?", 0), |location| (location.file(), location.line()));
    let (shard, command) = whereabouts();

    log::raw(REPORT_START);
    log::warning(format_args!("------------------------------------------------"));
    log::warning(format_args!("!!! Software Failure. Press left mouse button to continue"));
    log::warning(format_args!("Guru Meditation: {message} #{file}:{line}"));
    log::warning(format_args!("------------------------------------------------"));
    log::warning(format_args!(
        "Shardis {} panicked in thread {}, shard: {shard}, command: {command}",
        version(),
        thread::current().name().unwrap_or("?")
    ));
    if let Some(callback) = CALLBACK.get() {
        log::warning(format_args!("{callback}"));
    }
    log::raw("\n------ STACK TRACE ------\n");
    log::raw(&format!("{}", Backtrace::force_capture()));
    log::raw(REPORT_END);

    // A shard that is gone would leave a server that answers for some keys only; and unwinding through it would run
    // destructors over a state that was just found to be wrong.
    if EXITS_ON_PANIC.load(Ordering::Relaxed) {
        // SAFETY: _exit takes no pointers. What is to be done at a regular end would meet that state, too.
        unsafe { libc::_exit(1) };
    }
    let _ = signals::handle(libc::SIGABRT, libc::SIG_DFL, 0);
    std::process::abort();
}

extern "C" fn on_fatal_signal(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    claim_report();
    // SAFETY: the kernel gives an SA_SIGINFO handler a valid siginfo. si_addr and si_pid are read only for signals
    // and codes that fill them.
    let (code, address, sender) = unsafe {
        let info = &*info;
        let sender = (info.si_code == libc::SI_USER).then(|| (info.si_pid(), info.si_uid()));
        (info.si_code, info.si_addr(), sender)
    };
    let (shard, command) = whereabouts();

    log::raw_from_signal_handler(format_args!("{REPORT_START}"));
    log::from_signal_handler(format_args!(
        "Shardis {} crashed by signal: {signal}, si_code: {code}",
        version()
    ));
    if let Some((pid, uid)) = sender {
        log::from_signal_handler(format_args!("Killed by PID: {pid}, UID: {uid}"));
    } else if signal == libc::SIGSEGV || signal == libc::SIGBUS {
        log::from_signal_handler(format_args!("Accessing address: {address:p}"));
    }
    if let Some(instruction) = instruction_pointer(context) {
        log::from_signal_handler(format_args!("Crashed running the instruction at: {instruction:#x}"));
    }
    log::from_signal_handler(format_args!("Shard: {shard}, command: {command}"));
    if let Some(callback) = CALLBACK.get() {
        log::from_signal_handler(format_args!("{callback}"));
    }

    log_raw_trace();

    // From here on anything may fail. A second fault ends the process, because this handler was reset; so does the
    // alarm, if a lock is held that the crash left behind.
    let _ = signals::handle(libc::SIGALRM, libc::SIG_DFL, 0);
    if !is_on_a_small_stack() {
        // SAFETY: alarm takes no pointers.
        unsafe { libc::alarm(TRACE_SECONDS_MAX) };
        // The code may be a module's, on a thread of its own that has told the server nothing.
        if let Some(library) = instruction_pointer(context).and_then(library_at) {
            log::raw(&format!("Crashed in: {}\n", library.to_string_lossy()));
        }
        log::raw(&format!("{}", Backtrace::force_capture()));
        // SAFETY: as above.
        unsafe { libc::alarm(0) };
    }
    log::raw_from_signal_handler(format_args!("{REPORT_END}"));

    let _ = signals::handle(signal, libc::SIG_DFL, 0);
    // SAFETY: raise takes no pointers. The handler is the default one, which ends the process.
    unsafe { libc::raise(signal) };
}

/// Takes SIGALRM over, by which the watchdog has a shard's thread log where it is.
pub(super) fn handle_watchdog_signal() -> io::Result<()> {
    // As in `install`.
    raw_trace(&mut [ptr::null_mut(); FRAMES_MAX]);
    IMAGE_BASE.store(image_base(), Ordering::Relaxed);
    let handler = on_watchdog_signal as *const () as libc::sighandler_t;
    signals::handle(libc::SIGALRM, handler, libc::SA_RESTART | libc::SA_ONSTACK)
}

extern "C" fn on_watchdog_signal(_: libc::c_int) {
    let (shard, command) = whereabouts();
    let command = command.split('|').next().unwrap_or(command);
    log::from_signal_handler(format_args!("--- WATCHDOG TIMER EXPIRED ---"));
    // With the name that Redis' own trace has for the command's handler.
    log::from_signal_handler(format_args!("Shard: {shard}, in {command}Command"));
    if let Some(callback) = CALLBACK.get() {
        log::from_signal_handler(format_args!("{callback}"));
    }
    log_raw_trace();
    log::from_signal_handler(format_args!("--------"));
}

/// Logs the addresses of this thread's stack.
fn log_raw_trace() {
    log::raw_from_signal_handler(format_args!(
        "\n------ STACK TRACE ------\nRaw addresses, image base {:#x}:\n",
        IMAGE_BASE.load(Ordering::Relaxed)
    ));
    let mut frames = [ptr::null_mut(); FRAMES_MAX];
    for frame in raw_trace(&mut frames) {
        log::raw_from_signal_handler(format_args!("{:p}\n", *frame));
    }
    log::raw_from_signal_handler(format_args!("\n"));
}

/// Whether this runs on a signal stack without room for more.
fn is_on_a_small_stack() -> bool {
    let mut stack = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: sigaltstack writes the local.
    let known = unsafe { libc::sigaltstack(ptr::null(), &mut stack) } == 0;
    known && stack.ss_flags & libc::SS_ONSTACK != 0 && stack.ss_size < TRACE_STACK_LEN_MIN
}

fn image_base() -> usize {
    // SAFETY: dladdr fills the structure, which is plain data, for an address of this binary.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let known = libc::dladdr(image_base as *const libc::c_void, &mut info) != 0;
        if known { info.dli_fbase as usize } else { 0 }
    }
}

/// The file of the library, or of the binary, whose code is at an address.
fn library_at(address: u64) -> Option<&'static CStr> {
    // SAFETY: as above; the name lasts as long as the library is open, and this process ends before that is closed.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let known = libc::dladdr(address as *const libc::c_void, &mut info) != 0;
        (known && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))
    }
}

#[cfg(target_env = "gnu")]
fn raw_trace(frames: &mut [*mut libc::c_void; FRAMES_MAX]) -> &[*mut libc::c_void] {
    // SAFETY: backtrace writes at most the given number of addresses.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), FRAMES_MAX as libc::c_int) };
    &frames[..count.max(0) as usize]
}

#[cfg(not(target_env = "gnu"))]
fn raw_trace(_frames: &mut [*mut libc::c_void; FRAMES_MAX]) -> &[*mut libc::c_void] {
    &[]
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn instruction_pointer(context: *mut libc::c_void) -> Option<u64> {
    // SAFETY: the kernel gives an SA_SIGINFO handler a ucontext_t.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64)
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn instruction_pointer(context: *mut libc::c_void) -> Option<u64> {
    // SAFETY: the kernel gives an SA_SIGINFO handler a ucontext_t.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.pc)
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn instruction_pointer(_context: *mut libc::c_void) -> Option<u64> {
    None
}
