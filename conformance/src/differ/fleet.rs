//! The servers that are compared: a real Redis first, the others against it. One that dies is started anew. Each of them may
//! be followed by replicas of the other make.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::replicas::Position;
use super::resp::{Broken, Client, Reply};
use crate::server::Server;
use crate::{Result, Trouble, harness};

pub struct Fleet {
    pub members: Vec<Member>,
    pub replicas: Vec<Replica>,
}

pub struct Member {
    /// `redis`, `1 shard`.
    pub label: String,
    pub port: u16,
    make: Make,
    dir: PathBuf,
    child: Option<Child>,
}

/// A server that follows a member.
pub struct Replica {
    /// The index of its master among the members.
    pub master: usize,
    pub member: Member,
}

/// What a server is started from: a program, and what it takes besides what all take.
#[derive(Clone)]
struct Make {
    program: PathBuf,
    directives: Vec<(String, String)>,
}

/// What every server takes. No delay: nobody else will ask for the same snapshot.
const DIRECTIVES: [(&str, &str); 4] = [
    ("save", ""),
    ("enable-debug-command", "yes"),
    ("loglevel", "warning"),
    ("repl-diskless-sync-delay", "0"),
];

const START_SECS_MAX: u64 = 20;
/// How long a replica may take to get in step with its master: the snapshot, and the next attempt if a link is lost.
const IN_STEP_SECS_MAX: u64 = 20;
/// After this it is made to begin with a snapshot: it may be asking again and again for what it cannot take.
const RESUME_SECS_MAX: u64 = 3;
const POLL: Duration = Duration::from_millis(10);

impl Fleet {
    /// `reference`, and `server` with each of `shard_counts`, on ports from `port` on, with their files below `dir`. A
    /// server that is not ours is a control: it knows no shards.
    pub fn start(
        reference: &Path,
        server: &Server,
        shard_counts: &[u32],
        port: u16,
        dir: &Path,
    ) -> Result<Fleet> {
        let make = |program: &Path, directives: &[(&str, &str)]| Make {
            program: program.to_owned(),
            directives: owned(directives),
        };
        let mut members = vec![Member::begin("redis".to_owned(), make(reference, &[]), port, dir)?];
        if server.is_shardis {
            for (&shard_count, port) in shard_counts.iter().zip(port + 1..) {
                let label = format!("{shard_count} shard{}", if shard_count == 1 { "" } else { "s" });
                let make = make(&server.path, &[("shards", &shard_count.to_string())]);
                members.push(Member::begin(label, make, port, dir)?);
            }
        } else {
            members.push(Member::begin("control".to_owned(), make(&server.path, &[]), port + 1, dir)?);
        }
        Ok(Fleet { members, replicas: Vec::new() })
    }

    /// Has the real Redis followed by one of each of the others, and each of the others by a real Redis, on the ports after
    /// theirs.
    pub fn with_replicas(mut self, dir: &Path) -> Result<Fleet> {
        let pairs = (1..self.members.len()).flat_map(|other| [(0, other), (other, 0)]);
        let ports = self.members.iter().map(|member| member.port + 1).max().unwrap_or_default()..;
        for ((master, make_of), port) in pairs.zip(ports) {
            let Member { label, make, .. } = &self.members[make_of];
            let of = if master == 0 { "redis" } else { &self.members[master].label };
            let member = Member::begin(format!("{label}, replica of {of}"), make.clone(), port, dir)?;
            let replica = Replica { master, member };
            replica.follow(&self.members[master], IN_STEP_SECS_MAX)?;
            self.replicas.push(replica);
        }
        Ok(self)
    }

    /// Starts again who does not answer any more, and has replicas follow their masters again. Gives the labels of those that
    /// were started.
    pub fn revive(&mut self) -> Result<Vec<String>> {
        let mut revived = Vec::new();
        let replicas = self.replicas.iter_mut().map(|replica| &mut replica.member);
        for member in self.members.iter_mut().chain(replicas) {
            if !member.answers() {
                member.stop();
                member.start()?;
                revived.push(format!("{} (its log is {})", member.label, member.log().display()));
            }
        }
        for replica in &self.replicas {
            replica.catch_up(&self.members[replica.master])?;
        }
        Ok(revived)
    }

    /// Whether every server has the command of this name, which may be `object|encoding`.
    pub fn knows(&self, name: &str) -> Result<bool> {
        for member in &self.members {
            let asked = member.ask(&[b"COMMAND", b"INFO", name.as_bytes()]);
            let reply = asked.map_err(|Broken(what)| Trouble::new(format!("{}: {what}", member.label)))?;
            if !matches!(reply.items(), Some([info]) if info.items().is_some()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Replica {
    /// In step again, if need be with a new snapshot.
    fn catch_up(&self, master: &Member) -> Result<()> {
        if self.comes_in_step(master, RESUME_SECS_MAX) {
            return Ok(());
        }
        // As a master it forgets whose stream it has followed, and up to where.
        let _ = self.member.ask(&[b"REPLICAOF", b"NO", b"ONE"]);
        self.follow(master, IN_STEP_SECS_MAX)
    }

    fn follow(&self, master: &Member, secs_max: u64) -> Result<()> {
        let port = master.port.to_string();
        let followed = self.member.ask(&[b"REPLICAOF", b"127.0.0.1", port.as_bytes()]);
        if followed.is_ok_and(|reply| reply.kind == b'+') && self.comes_in_step(master, secs_max) {
            return Ok(());
        }
        let log = self.member.log();
        Err(Trouble::new(format!("{} does not get in step; see {}", self.member.label, log.display())))
    }

    fn comes_in_step(&self, master: &Member, secs_max: u64) -> bool {
        let deadline = Instant::now() + Duration::from_secs(secs_max);
        let position = |member: &Member| {
            Client::connect(member.port).ok().and_then(|mut client| Position::of(&mut client).ok())
        };
        loop {
            if let (Some(master), Some(replica)) = (position(master), position(&self.member))
                && replica.has_reached(&master)
            {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(POLL);
        }
    }
}

impl Member {
    fn begin(label: String, make: Make, port: u16, dir: &Path) -> Result<Member> {
        let dir = dir.join(port.to_string());
        fs::create_dir_all(&dir).map_err(Trouble::doing(format!("making {}", dir.display())))?;
        if Client::connect(port).is_ok() {
            return Err(Trouble::new(format!("port {port} is taken")));
        }
        let mut member = Member { label, port, make, dir, child: None };
        member.start()?;
        Ok(member)
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn ask(&self, args: &[&[u8]]) -> std::result::Result<Reply, Broken> {
        Client::connect(self.port).map_err(|error| Broken(error.to_string()))?.ask(args)
    }

    fn answers(&self) -> bool {
        self.ask(&[b"PING"]).is_ok_and(|reply| reply.kind == b'+')
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.make.program);
        let (port, log) = (self.port.to_string(), self.log().display().to_string());
        let own = [("port", port.as_str()), ("dir", &self.dir.display().to_string()), ("logfile", &log)];
        for (name, value) in [owned(&own), owned(&DIRECTIVES), self.make.directives.clone()].concat() {
            command.arg(format!("--{name}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let starting = format!("starting {}", self.make.program.display());
        let mut child = command.spawn().map_err(Trouble::doing(&starting))?;
        harness::watch_group(child.id());
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while !self.answers() {
            let ended = child.try_wait().map_err(Trouble::doing(&starting))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log();
                self.child = Some(child);
                self.stop();
                return Err(Trouble::new(format!("{starting}: it does not answer; see {}", log.display())));
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            harness::forget_group(child.id());
        }
    }
}

fn owned(directives: &[(&str, &str)]) -> Vec<(String, String)> {
    directives.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}
