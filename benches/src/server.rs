//! A server under measurement: started on its cores in a directory of its own, asked who it is, and gone with us.
//!
//! Three things would make figures wrong without anybody noticing, so they are checked at the start: that the process
//! answering on the port is the one we started, that none of its threads left the cores it was given, and that it
//! did not die on the way.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{BenchError, Context, Result};
use crate::load::ServerCpu;
use crate::proc;
use crate::resp::{Client, info_field};
use crate::sys::{self, CpuClock};

/// Time for a server to answer its first PING, and to end after a SIGTERM.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A binary to measure, with the arguments it is started with before those of port and persistence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// `NAME=PATH[,arg...]`. A path without a slash is looked up in PATH.
impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Program, String> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=PATH[,arg...]")?;
        let mut parts = command.split(',').map(str::to_string);
        let path = parts.next().unwrap_or_default();
        if name.is_empty() || path.is_empty() {
            return Err("expected NAME=PATH[,arg...]".to_string());
        }
        Ok(Program { name: name.to_string(), path: PathBuf::from(path), args: parts.collect() })
    }
}

impl Program {
    /// The file to start: an absolute path, because the server starts in another directory.
    fn executable(&self) -> Result<PathBuf> {
        let candidates: Vec<PathBuf> = if self.path.components().count() > 1 {
            vec![self.path.clone()]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(&self.path)).collect()
        };
        let found = candidates.into_iter().find(|candidate| candidate.is_file());
        let missing = || BenchError::new(format!("{}: no such program: {}", self.name, self.path.display()));
        // Not canonicalized: a link's name can be what makes the program a server.
        std::path::absolute(found.ok_or_else(missing)?).context(|| self.path.display().to_string())
    }
}

/// Hands out ports that nobody listens on, from a first one upwards.
pub struct Ports {
    next: u16,
}

impl Ports {
    pub fn from(first: u16) -> Ports {
        Ports { next: first }
    }

    pub fn take(&mut self) -> Result<u16> {
        while self.next < u16::MAX {
            let port = self.next;
            self.next += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(BenchError::new("no free port is left"))
    }
}

pub struct Server {
    pub program: Program,
    pub address: SocketAddr,
    pub cpu: ServerCpu,
    /// Name and version, as in `Redis 7.0.15`.
    pub version: String,
    /// What else it says of itself: allocator, event loop, build.
    pub details: String,
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// Starts `program` on `cores`, with its defaults less persistence, and waits until it answers.
    pub fn start(
        program: &Program,
        extra_args: &[&str],
        cores: &[usize],
        ports: &mut Ports,
    ) -> Result<Server> {
        let port = ports.take()?;
        remove_dirs_of_the_dead();
        let dir = std::env::temp_dir().join(format!("{DIR_PREFIX}{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
        let log = File::create(dir.join("log")).context(|| dir.display().to_string())?;
        let log_too = log.try_clone().context(|| dir.display().to_string())?;

        let executable = program.executable()?;
        let mut command = Command::new(&executable);
        // Its own arguments come first, where a configuration file has its place.
        command.args(&program.args).args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(extra_args);
        command.current_dir(&dir).stdin(Stdio::null()).stdout(log).stderr(log_too);
        sys::confine(&mut command, cores);
        let child = command.spawn().context(|| executable.display().to_string())?;

        // Cannot fail on a child that nobody has waited for.
        let clock = CpuClock::of(child.id()).context(|| format!("CPU clock of {}", program.name))?;
        // From here on the guard's Drop ends the process, whatever fails.
        let mut server = Server {
            program: program.clone(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            cpu: ServerCpu { pid: child.id(), clock },
            version: String::new(),
            details: String::new(),
            child,
            dir,
        };
        server.wait_until_it_answers()?;
        server.check_identity()?;
        server.check_cores(cores)?;
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address).context(|| format!("{}: connect", self.program.name))
    }

    /// Asks one thing on a connection of its own.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        self.client()?.call(args).context(|| format!("{}: {}", self.program.name, args.join(" ")))
    }

    /// A field of INFO, if this server has it.
    pub fn info(&self, section: &str, field: &str) -> Result<Option<String>> {
        let info = self.ask(&["INFO", section])?;
        Ok(info_field(&info, field).map(str::to_string))
    }

    /// The memory that it says it uses, if it does.
    pub fn used_memory_bytes(&self) -> Result<Option<u64>> {
        Ok(self.info("memory", "used_memory")?.and_then(|value| value.parse().ok()))
    }

    pub fn rss_bytes(&self) -> Result<u64> {
        proc::rss_bytes(self.pid()).context(|| format!("{}: memory", self.program.name))
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended at once with {status}")));
            }
            match Client::connect(self.address).and_then(|mut client| client.call(&["PING"])) {
                Ok(reply) if reply == "PONG" => return Ok(()),
                Ok(reply) => return Err(self.failed(&format!("answers PING with {reply:?}"))),
                Err(error) if Instant::now() > deadline => {
                    return Err(self.failed(&format!("does not answer: {error}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn check_identity(&mut self) -> Result<()> {
        let info = self.ask(&["INFO", "server"])?;
        let pid = self.pid().to_string();
        if let Some(answering) = info_field(&info, "process_id").filter(|&answering| answering != pid) {
            return Err(self.failed(&format!("process {answering} answers on its port, not process {pid}")));
        }
        let memory = self.ask(&["INFO", "memory"])?;
        self.version = version_in(&info);
        self.details = details_in(&info, &memory);
        Ok(())
    }

    fn check_cores(&self, cores: &[usize]) -> Result<()> {
        let used = proc::cores_of(self.pid()).context(|| format!("{}: cores", self.program.name))?;
        if used.iter().all(|core| cores.contains(core)) {
            return Ok(());
        }
        Err(self.failed(&format!("was started on cores {cores:?} and runs on {used:?}")))
    }

    fn failed(&self, what: &str) -> BenchError {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let last_lines: Vec<&str> = log.lines().rev().take(5).collect();
        let tail: Vec<&str> = last_lines.into_iter().rev().collect();
        BenchError::new(format!("{}: {what}\n{}", self.program.name, tail.join("\n")).trim_end().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            sys::signal(self.pid(), libc::SIGTERM);
            let deadline = Instant::now() + STOP_TIMEOUT;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            // Neither can fail on a child that is still ours, and there is nobody to tell in a drop.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        remove_dir(&self.dir);
    }
}

/// Servers' folders are named by this, the bench's process id and the port.
const DIR_PREFIX: &str = "shardis-bench-";

/// A bench that was killed leaves its servers' folders, though not the servers: the next one cleans up.
fn remove_dirs_of_the_dead() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(DIR_PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_dir(&entry.path());
        }
    }
}

fn remove_dir(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("{}: {error}", dir.display());
    }
}

/// Servers of the Redis family report the Redis version they are compatible with besides their own.
fn version_in(info: &str) -> String {
    let names = [
        ("shardis_version", "Shardis"),
        ("valkey_version", "Valkey"),
        ("redis_version", "Redis"),
        ("floor_version", "Floor"),
    ];
    names
        .iter()
        .find_map(|(field, name)| info_field(info, field).map(|version| format!("{name} {version}")))
        .unwrap_or_else(|| "unknown".to_string())
}

fn details_in(info: &str, memory: &str) -> String {
    let fields = ["redis_version", "multiplexing_api", "io_backend", "shards", "gcc_version"];
    let mut details: Vec<String> = Vec::new();
    for field in fields {
        if let Some(value) = info_field(info, field) {
            details.push(format!("{field} {value}"));
        }
    }
    details.extend(info_field(memory, "mem_allocator").map(|value| format!("mem_allocator {value}")));
    details.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_a_path_and_arguments() {
        let program: Program = "valkey=/x/valkey-server,--io-threads,2".parse().unwrap();
        assert_eq!(program.name, "valkey");
        assert_eq!(program.path, Path::new("/x/valkey-server"));
        assert_eq!(program.args, ["--io-threads", "2"]);
        for bad in ["", "redis", "=x", "redis="] {
            assert!(bad.parse::<Program>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_name_is_looked_up_in_path_and_a_missing_one_is_an_error() {
        assert!("shell=sh".parse::<Program>().unwrap().executable().unwrap().is_absolute());
        assert!("none=/nowhere/at/all".parse::<Program>().unwrap().executable().is_err());
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(Ports::from(port).take().unwrap(), port);
    }

    #[test]
    fn a_server_is_named_by_its_own_version_not_by_the_compatible_one() {
        assert_eq!(version_in("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n"), "Valkey 9.1.2");
        assert_eq!(version_in("redis_version:7.0.15\r\nshardis_version:0.1.0\r\n"), "Shardis 0.1.0");
        assert_eq!(version_in("redis_version:7.0.15\r\n"), "Redis 7.0.15");
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error_that_says_so() {
        let program: Program = "broken=false".parse().unwrap();
        let cores = sys::allowed_cores().unwrap();
        let error = Server::start(&program, &[], &cores, &mut Ports::from(30_900)).err().unwrap();
        assert!(error.to_string().contains("broken: ended at once"), "{error}");
    }
}
