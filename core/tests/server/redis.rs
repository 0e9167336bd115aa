//! A real redis-server, if there is one on this machine.

use crate::harness::{Connection, PATIENCE, free_port, leave_out, send_signal};
use crate::rdb::Dir;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Killed when dropped.
pub struct Redis {
    child: Child,
    pub port: u16,
    /// Its own directory.
    _dir: Option<Dir>,
}

impl Redis {
    /// In a directory of its own. `None`: there is no redis-server.
    pub fn start(name: &str, extra: &[&str]) -> Option<Redis> {
        let port = free_port();
        let dir = Dir::new(&format!("{name}-{port}"));
        let mut redis = Redis::start_in(&dir, port, extra)?;
        redis._dir = Some(dir);
        Some(redis)
    }

    /// In a directory that may have files already.
    pub fn start_in(dir: &Dir, port: u16, extra: &[&str]) -> Option<Redis> {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--enable-debug-command", "yes"])
            .args(["--dir", dir.path()])
            .args(extra)
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            leave_out("no redis-server");
            return None;
        };
        let redis = Redis { child, port, _dir: None };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        Some(redis)
    }

    pub fn signal(&self, signal: i32) {
        send_signal(&self.child, signal);
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
