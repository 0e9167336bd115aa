//! What concerns the whole process, and mostly ends it: crash reports, signals, daemons, limits.
//!
//! Each test starts this test binary again, to run only `child` with a role to play.

use super::*;
use crate::runtime::host::{self, CpuScope};
use crate::runtime::{crash, files, signals};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const ROLE: &str = "SHARDIS_TEST_CHILD_ROLE";
const DAEMON_FILE: &str = "SHARDIS_TEST_DAEMON_FILE";

fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "runtime::tests::process::child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn start(role: &str) -> Child {
    command(role).spawn().unwrap()
}

/// Runs a child to its end. Returns how it ended and what it wrote.
fn play(role: &str) -> (ExitStatus, String) {
    let output = start(role).wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn cpu_time_of_a_child_counts_when_it_has_ended() {
    let total = || {
        let times = host::cpu_times(CpuScope::Children);
        times.user + times.system
    };
    let before = total();
    play("maxclients");
    assert!(total() > before);
}

/// Sends a child signals, each at once or after a line that contains something was written.
fn play_with_signals(role: &str, signals: &[(libc::c_int, Option<&str>)]) -> (ExitStatus, String) {
    let mut child = start(role);
    let mut lines = Lines::of(&mut child);
    for (signal, after) in signals {
        if let Some(after) = after {
            lines.read_to(after);
        }
        // SAFETY: kill takes no pointers, and the child was not waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, *signal) }, 0);
    }
    let text = lines.read_all();
    (child.wait().unwrap(), text)
}

/// What a child writes, as far as it was read.
struct Lines {
    lines: io::Lines<BufReader<ChildStdout>>,
    text: String,
}

impl Lines {
    fn of(child: &mut Child) -> Lines {
        Lines { lines: BufReader::new(child.stdout.take().unwrap()).lines(), text: String::new() }
    }

    /// The first line that contains `needle`.
    fn read_to(&mut self, needle: &str) -> String {
        for line in &mut self.lines {
            let line = line.unwrap();
            self.text.push_str(&line);
            self.text.push('\n');
            if line.contains(needle) {
                return line;
            }
        }
        panic!("{needle} does not come in:\n{}", self.text);
    }

    fn read_all(mut self) -> String {
        for line in self.lines {
            self.text.push_str(&line.unwrap());
            self.text.push('\n');
        }
        self.text
    }
}

/// Not a test by itself: the other side of those below.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "panic" => crashes(|| panic!("on purpose")),
        "null" => crashes(|| {
            // SAFETY: none: this is the crash that is to be reported.
            unsafe { std::ptr::read_volatile(std::ptr::dangling::<u64>().wrapping_byte_sub(8)) };
        }),
        "overflow" => crashes(|| {
            overflow(0);
        }),
        "waits to be aborted" => crashes(|| {
            println!("ready");
            std::thread::sleep(PATIENCE);
        }),
        "stops" => stops(),
        "does not stop" => does_not_stop(),
        "daemon" => becomes_a_daemon(),
        "few files: io_uring" => runs_out_of_files(uring_whole().expect("the parent has asked")),
        "few files: epoll" => runs_out_of_files(epoll().unwrap()),
        "maxclients" => lowers_maxclients(),
        role => panic!("nobody plays {role}"),
    }
}

fn crashes(how: impl FnOnce() + Send + 'static) {
    crash::install("9.9.9", true).unwrap();
    let thread = std::thread::Builder::new().name("shard-3".to_string()).spawn(move || {
        crash::enter_shard(3);
        crash::set_current_command(Box::leak(Box::new("debug|segfault".to_string())));
        how();
    });
    thread.unwrap().join().unwrap();
}

#[allow(unconditional_recursion, reason = "it is to overflow")]
fn overflow(depth: u64) -> u64 {
    let space = std::hint::black_box([depth; 1000]);
    overflow(depth + 1) + space[depth as usize % 1000]
}

fn assert_is_report(text: &str, needles: &[&str]) {
    let frame = ["=== SHARDIS BUG REPORT START", "STACK TRACE", "=== SHARDIS BUG REPORT END"];
    let mut rest = text;
    for needle in frame {
        let at = rest.find(needle).unwrap_or_else(|| panic!("{needle} is missing in:\n{text}"));
        rest = &rest[at..];
    }
    for needle in needles {
        assert!(text.contains(needle), "{needle} is missing in:\n{text}");
    }
}

#[test]
fn a_panic_is_reported_and_ends_the_process() {
    let (status, text) = play("panic");
    assert_is_report(
        &text,
        &[
            "Guru Meditation: on purpose #",
            "Shardis 9.9.9 panicked in thread shard-3, shard: 3, command: debug|segfault",
            "tests/process.rs",
        ],
    );
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    assert!(!text.contains("crashed by signal"), "one report");
}

#[test]
fn a_segmentation_fault_is_reported() {
    let (status, text) = play("null");
    assert_is_report(
        &text,
        &[
            "Shardis 9.9.9 crashed by signal: 11, si_code: 1",
            "Accessing address: 0x",
            "Crashed running the instruction at: 0x",
            "Shard: 3, command: debug|segfault",
            "Raw addresses, image base 0x",
            "tests/process.rs",
        ],
    );
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn a_stack_overflow_is_reported() {
    let (status, text) = play("overflow");
    assert_is_report(&text, &["crashed by signal: 11", "tests/process.rs"]);
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn an_abort_from_outside_is_reported_with_its_sender() {
    let (status, text) = play_with_signals("waits to be aborted", &[(libc::SIGABRT, Some("ready"))]);
    let sender = format!("Killed by PID: {}", std::process::id());
    assert_is_report(&text, &["crashed by signal: 6", &sender]);
    assert_eq!(status.signal(), Some(libc::SIGABRT));
}

fn stops() {
    let mut driver = epoll().unwrap();
    signals::install(&driver.bell_handle(), std::path::Path::new("temp.rdb")).unwrap();
    assert_eq!(signals::stop_requested(), None);
    println!("ready");
    assert!(matches!(expect_one(&mut driver), Event::Bell));
    println!("asked by {:?}", signals::stop_requested().unwrap());
    signals::withdraw_stop();
    assert_eq!(signals::stop_requested(), None);
    println!("goes on");
    assert!(matches!(expect_one(&mut driver), Event::Bell));
    println!("asked by {:?}", signals::stop_requested().unwrap());
}

#[test]
fn stop_signals_set_a_flag_and_ring_and_others_do_nothing() {
    let signals = [
        (libc::SIGHUP, Some("ready")),
        (libc::SIGPIPE, None),
        (libc::SIGTERM, None),
        (libc::SIGINT, Some("goes on")),
    ];
    let (status, text) = play_with_signals("stops", &signals);
    assert!(status.success(), "{status} {text}");
    for needle in ["Received SIGTERM scheduling shutdown...", "asked by Term", "asked by Int"] {
        assert!(text.contains(needle), "{needle} is missing in:\n{text}");
    }
}

fn does_not_stop() {
    let driver = epoll().unwrap();
    signals::install(&driver.bell_handle(), std::path::Path::new("temp.rdb")).unwrap();
    println!("ready");
    std::thread::sleep(PATIENCE);
    println!("slept through");
}

#[test]
fn whoever_insists_ends_the_process_at_once() {
    let signals = [(libc::SIGTERM, Some("ready")), (libc::SIGINT, Some("Received SIGTERM"))];
    let (status, text) = play_with_signals("does not stop", &signals);
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("You insist... exiting now.") && !text.contains("slept through"), "{text}");
}

/// Says where it listens, has no descriptor left when somebody comes, and then has some again.
fn runs_out_of_files<D: Driver>(mut driver: D) {
    #[derive(Default)]
    struct Accepting {
        accepted: Vec<OwnedFd>,
        errors: Vec<io::Error>,
    }
    impl Events for Accepting {
        fn accepted(&mut self, _: usize, fd: OwnedFd, _: PeerAddr) {
            self.accepted.push(fd);
        }
        fn accept_failed(&mut self, _: usize, error: io::Error) {
            self.errors.push(error);
        }
        fn received(&mut self, _: ConnId, _: &[u8]) {}
        fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
        fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
        fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
        fn send_failed(&mut self, _: ConnId, _: i32) {}
        fn bell(&mut self) {}
    }

    let (ours, addr) = listener();
    driver.listen(ours);
    let mut taken = Vec::new();
    let refusal = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.raw_os_error(), Some(libc::EMFILE));
    println!("listening on {addr}");

    let mut accepting = Accepting::default();
    let mut turns = 0;
    while accepting.errors.len() < 3 {
        driver.turn(Some(PATIENCE), &mut accepting).unwrap();
        turns += 1;
    }
    assert!(accepting.errors.iter().all(|error| error.raw_os_error() == Some(libc::EMFILE)));
    assert!(accepting.accepted.is_empty());
    assert!(turns <= 3 * 4, "{turns} turns for three errors: it spins");
    drop(taken);
    while accepting.accepted.len() < 2 {
        driver.turn(Some(PATIENCE), &mut accepting).unwrap();
    }
    println!("accepted");
}

#[test]
fn a_server_out_of_files_accepts_later() {
    for (role, is_there) in [("few files: epoll", true), ("few files: io_uring", uring_whole().is_some())] {
        if !is_there {
            continue;
        }
        let mut child = start(role);
        let mut lines = Lines::of(&mut child);
        let line = lines.read_to("listening on ");
        let addr: SocketAddr = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        let _peers = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
        lines.read_to("accepted");
        assert!(child.wait().unwrap().success());
    }
}

fn lowers_maxclients() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads one rlimit and getrlimit writes one, the local.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit = libc::rlimit { rlim_cur: 200, rlim_max: 500 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        // Without the privilege to raise the hard limit again.
        libc::setuid(65534);
    }
    println!("{:?}", files::raise_open_files_limit(100, 2));
    println!("{:?}", files::raise_open_files_limit(10_000, 2));
    println!("{:?}", files::raise_open_files_limit(10_000, 64).is_err());
}

#[test]
fn maxclients_is_lowered_to_what_the_limit_on_files_allows() {
    let (status, text) = play("maxclients");
    assert!(status.success(), "{text}");
    let expected = [
        "Ok(100)",
        "You requested maxclients of 10000 requiring at least 10032 max file descriptors.",
        "Current maximum open files is 500. maxclients has been reduced to 468 to compensate",
        "Ok(468)",
        "true",
    ];
    for needle in expected {
        assert!(text.contains(needle), "{needle} is missing in:\n{text}");
    }
}

fn becomes_a_daemon() {
    let path = std::env::var(DAEMON_FILE).unwrap();
    files::daemonize().unwrap();
    println!("nobody reads this");
    // SAFETY: getsid, getpid and _exit take no pointers.
    unsafe {
        std::fs::write(&path, format!("{} {}", libc::getpid(), libc::getsid(0))).unwrap();
        libc::_exit(0);
    }
}

#[test]
fn a_daemon_leaves_its_parent_and_its_session() {
    let path = std::env::temp_dir().join(format!("shardis-daemon-{}", std::process::id()));
    let child = command("daemon").env(DAEMON_FILE, &path).spawn().unwrap();
    let parent_pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("nobody reads this"));

    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.is_empty() => break text,
            _ => assert!(Instant::now() < deadline, "the daemon writes nothing"),
        }
        std::thread::yield_now();
    };
    let (pid, session) = text.split_once(' ').unwrap();
    assert_eq!(pid, session, "it leads a session of its own");
    assert_ne!(pid.parse::<u32>().unwrap(), parent_pid);
    std::fs::remove_file(path).unwrap();
}
