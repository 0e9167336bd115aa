//! The servers that are compared: a real Redis first, the others against it. One that dies is started anew.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::resp::{Broken, Client, Reply};
use crate::server::Server;
use crate::{Result, Trouble, harness};

pub struct Fleet {
    pub members: Vec<Member>,
}

pub struct Member {
    /// `redis`, `1 shard`.
    pub label: String,
    pub port: u16,
    program: PathBuf,
    directives: Vec<(String, String)>,
    dir: PathBuf,
    child: Option<Child>,
}

const START_SECS_MAX: u64 = 20;

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
        let mut fleet = Fleet { members: Vec::new() };
        fleet.add("redis".to_owned(), reference, &[], port, dir)?;
        let program = &server.path;
        if !server.is_shardis {
            fleet.add("control".to_owned(), program, &[], port + 1, dir)?;
            return Ok(fleet);
        }
        for (&shard_count, port) in shard_counts.iter().zip(port + 1..) {
            let label = format!("{shard_count} shard{}", if shard_count == 1 { "" } else { "s" });
            fleet.add(label, program, &[("shards", &shard_count.to_string())], port, dir)?;
        }
        Ok(fleet)
    }

    fn add(
        &mut self,
        label: String,
        program: &Path,
        more: &[(&str, &str)],
        port: u16,
        dir: &Path,
    ) -> Result<()> {
        let dir = dir.join(port.to_string());
        fs::create_dir_all(&dir).map_err(Trouble::doing(format!("making {}", dir.display())))?;
        let (port_text, dir_text) = (port.to_string(), dir.display().to_string());
        let log = dir.join("server.log").display().to_string();
        let directives = [
            ("port", port_text.as_str()),
            ("dir", &dir_text),
            ("save", ""),
            ("enable-debug-command", "yes"),
            ("logfile", &log),
            ("loglevel", "warning"),
        ];
        let directives =
            directives.iter().chain(more).map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let directives = directives.collect();
        let mut member = Member { label, port, program: program.to_owned(), directives, dir, child: None };
        if Client::connect(port).is_ok() {
            return Err(Trouble::new(format!("port {port} is taken")));
        }
        member.start()?;
        self.members.push(member);
        Ok(())
    }

    /// Starts again who does not answer any more. Gives their labels.
    pub fn revive(&mut self) -> Result<Vec<String>> {
        let mut revived = Vec::new();
        for member in &mut self.members {
            if !member.answers() {
                member.stop();
                member.start()?;
                revived.push(format!(
                    "{} (its log is {})",
                    member.label,
                    member.dir.join("server.log").display()
                ));
            }
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

impl Member {
    fn ask(&self, args: &[&[u8]]) -> std::result::Result<Reply, Broken> {
        Client::connect(self.port).map_err(|error| Broken(error.to_string()))?.ask(args)
    }

    fn answers(&self) -> bool {
        self.ask(&[b"PING"]).is_ok_and(|reply| reply.kind == b'+')
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        for (name, value) in &self.directives {
            command.arg(format!("--{name}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let starting = format!("starting {}", self.program.display());
        let mut child = command.spawn().map_err(Trouble::doing(&starting))?;
        harness::watch_group(child.id());
        let deadline = Instant::now() + Duration::from_secs(START_SECS_MAX);
        while !self.answers() {
            let ended = child.try_wait().map_err(Trouble::doing(&starting))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.dir.join("server.log");
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

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}
