//! Starts the real binary, and talks to it byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take before the test calls it broken. Generous: it is no measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says what of a test is left out because something is not installed. A failure with SHARDIS_TESTS_COMPLETE, which `cargo
/// verify` sets: it has installed everything.
pub fn leave_out(what: &str) {
    assert!(std::env::var_os("SHARDIS_TESTS_COMPLETE").is_none(), "left out: {what}");
    eprintln!("left out: {what}");
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub shards: usize,
    pub io_backend: &'static str,
}

/// One shard and several, on both backends.
pub const SETUPS: [Setup; 4] = [
    Setup { shards: 1, io_backend: "uring" },
    Setup { shards: 3, io_backend: "uring" },
    Setup { shards: 1, io_backend: "epoll" },
    Setup { shards: 3, io_backend: "epoll" },
];

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    lines: Mutex<Receiver<String>>,
}

/// How many ports a server is started on until it gets one.
const PORTS_TRIED_MAX: usize = 5;

/// A port that was free just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Raises this process' limit on open files, which a server inherits, to what is allowed. Returns it.
pub fn raise_open_files_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit to write to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live rlimit to read from.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    limit.rlim_cur as usize
}

/// Makes the end of a connection a reset, whatever is under way on it.
pub fn end_with_a_reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option's value is a live linger of the length given.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len,
        )
    };
    assert_eq!(done, 0);
}

/// Sends a signal to a child that has not been waited for.
pub fn send_signal(child: &Child, signal: i32) {
    // SAFETY: kill takes no pointers; the child has not been waited for, so its pid is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Tells the other threads of a test to stop when the one that watches them ends, also if it ends in a panic.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until the answer is yes.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Server {
    pub fn start(setup: Setup) -> Server {
        Server::start_with(setup, &[])
    }

    /// Starts a server with further arguments and waits until it accepts connections.
    pub fn start_with(setup: Setup, extra: &[&str]) -> Server {
        for _ in 0..PORTS_TRIED_MAX {
            let mut server = Server::spawn(setup, free_port(), extra);
            // Somebody else may have taken the port meanwhile.
            if server.wait_for_one_of(&["Ready to accept", "Address already in use"]).contains("Ready") {
                return server;
            }
        }
        panic!("{PORTS_TRIED_MAX} free ports were taken by others");
    }

    /// Starts a server on a given port without waiting for it.
    pub fn spawn(setup: Setup, port: u16, extra: &[&str]) -> Server {
        Server::spawn_binary(Path::new(env!("CARGO_BIN_EXE_shardis")), setup, port, extra)
    }

    pub fn spawn_binary(binary: &Path, setup: Setup, port: u16, extra: &[&str]) -> Server {
        let mut child = Command::new(binary)
            .args(["--port", &port.to_string(), "--save", "", "--enable-debug-command", "yes"])
            .args(["--shards", &setup.shards.to_string(), "--io-backend", setup.io_backend])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let lines = follow(child.stdout.take().expect("it is piped"));
        Server { child, port, lines: Mutex::new(lines) }
    }

    /// Waits for a line of the log that contains `text`. Panics if the log ends first.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.wait_for_one_of(&[text])
    }

    /// The same for the first line that contains one of several texts.
    fn wait_for_one_of(&mut self, texts: &[&str]) -> String {
        let mut seen = Vec::new();
        let lines = self.lines.get_mut().expect("no other thread has panicked with it");
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if texts.iter().any(|text| line.contains(text)) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with one of {texts:?} in the log:\n{}", seen.join("\n"));
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.port)
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    /// Waits for the end of the process and returns its exit code; `None` after a signal.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end");
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: usize = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
        pages * 4096
    }

    pub fn open_file_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A client without a library: what it sends and gets are bytes.
pub struct Connection {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn to(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        Connection { stream, reader }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub fn request(&mut self, args: &[&[u8]]) {
        self.send(&encode(args));
    }

    /// One request and its reply.
    pub fn call(&mut self, args: &[&str]) -> String {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.request(&args);
        String::from_utf8_lossy(&self.reply()).into_owned()
    }

    /// The value of a field in a section of INFO.
    #[track_caller]
    pub fn info(&mut self, section: &str, field: &str) -> String {
        let text = self.call(&["INFO", section]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("INFO {section} has no {field}:\n{text}")).to_string()
    }

    /// The next complete reply, as bytes: in RESP2, with pushes and nulls of RESP3.
    pub fn reply(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut awaited = 1usize;
        while awaited > 0 {
            awaited -= 1;
            let start = bytes.len();
            let count = self.reader.read_until(b'\n', &mut bytes).expect("a reply in time");
            assert!(count > 0, "the server closed the connection");
            let line = &bytes[start..];
            let number = || std::str::from_utf8(&line[1..line.len() - 2]).ok()?.parse::<i64>().ok();
            match line[0] {
                b'$' => {
                    let len = number().expect("a length");
                    if len >= 0 {
                        let start = bytes.len();
                        bytes.resize(start + len as usize + 2, 0);
                        self.reader.read_exact(&mut bytes[start..]).expect("the whole string");
                    }
                }
                b'*' | b'>' => awaited += number().expect("a length").max(0) as usize,
                b'+' | b'-' | b':' | b'_' => {}
                other => panic!("no reply starts with {:?}", other as char),
            }
        }
        bytes
    }

    /// What SYNC sends first: a length, and so many bytes, without a line end behind them; or a mark, bytes, and the mark again.
    /// Newlines may come before that.
    pub fn payload(&mut self) -> Vec<u8> {
        let mut line = String::new();
        while line.trim_end().is_empty() {
            line.clear();
            assert!(
                self.reader.read_line(&mut line).expect("a line") > 0,
                "the server closed the connection"
            );
        }
        if let Some(mark) = line.trim_end().strip_prefix("$EOF:") {
            let mut bytes = Vec::new();
            while !bytes.ends_with(mark.as_bytes()) {
                let read = self.reader.fill_buf().expect("more of the payload");
                assert!(!read.is_empty(), "the server closed the connection");
                let len = read.len();
                bytes.extend_from_slice(read);
                self.reader.consume(len);
            }
            bytes.truncate(bytes.len() - mark.len());
            return bytes;
        }
        let len = line.trim_end().strip_prefix('$').and_then(|len| len.parse().ok());
        let mut bytes = vec![0; len.unwrap_or_else(|| panic!("no length: {line:?}"))];
        self.reader.read_exact(&mut bytes).expect("the whole payload");
        bytes
    }

    /// Everything up to the server's end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end, too.
        let _ = self.reader.read_to_end(&mut bytes);
        bytes
    }
}

pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
