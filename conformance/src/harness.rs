//! Runs one file of the suite: its own process group, no standard input, an outer time limit, everything killed after.
//!
//! The harness' flags: `--durable` turns an error inside a test into a failed test instead of the file's end;
//! `--timeout` bounds a hung test; the outer limit bounds what that does not (the wait for a server's "Ready to accept"
//! has no timeout of its own).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::catalogue::SuiteFile;
use crate::lane::{Lane, PORTCOUNT};
use crate::{Result, Trouble, sentinel};

/// What a test may take before it counts as hung: many times what any of them does take, for busy machines.
const NO_PROGRESS_SECS_MIN: u64 = 120;
const POLL: Duration = Duration::from_millis(20);

/// What the suite is to do with a file, beyond running it.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Directives for every server that the suite starts, as in redis.conf.
    pub directives: Vec<(String, String)>,
    /// The text of a `--skipfile`.
    pub skipfile: String,
    pub denied_tags: Vec<String>,
    /// Clients and servers speak TLS, with the lane's certificates.
    pub tls: bool,
}

/// Process groups that are running, for [`kill_everything`].
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Runs `file` in `lane`, with the output going to `raw`. Gives the output and the seconds it took.
pub fn run_file(lane: &Lane, file: &SuiteFile, orders: &Orders, raw: &Path) -> Result<(String, f64)> {
    let running = || format!("running {}", file.name);
    let output = File::create(raw).map_err(Trouble::doing(format!("making {}", raw.display())))?;
    let errors = output.try_clone().map_err(Trouble::doing(running()))?;

    let started = Instant::now();
    let mut command = if file.is_of_sentinel() {
        sentinel::command(&lane.dir, lane.baseport, file, orders)?
    } else {
        command(&lane.dir, lane.baseport, file, orders)?
    };
    command
        .current_dir(&lane.dir)
        // Colours would hide the tags of the output; a locale would change how names and SORT ALPHA come out.
        .env("TERM", "dumb")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .process_group(0);
    let mut child = command.stdout(output).stderr(errors).spawn().map_err(Trouble::doing(running()))?;
    let group = child.id() as i32;
    groups().insert(group);
    let limit = Duration::from_secs(4 * file.baseline_secs + 2 * NO_PROGRESS_SECS_MIN);
    let waited = wait(&mut child, started + limit);
    // While the child is not reaped its id is ours, so that the group is, too.
    kill_group(group);
    groups().remove(&group);
    let _ = child.wait();
    // A server may have left the group: daemonize makes a session of its own.
    kill_processes_below(&lane.dir);
    waited.map_err(Trouble::doing(running()))?;

    let text = fs::read(raw).map_err(Trouble::doing(format!("reading {}", raw.display())))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), started.elapsed().as_secs_f64()))
}

fn command(dir: &Path, baseport: u16, file: &SuiteFile, orders: &Orders) -> Result<Command> {
    let mut command = Command::new("tclsh");
    command.arg("tests/test_helper.tcl");
    command.args(["--single", &file.name, "--clients", "1", "--durable"]);
    command.args(["--timeout", &file.baseline_secs.max(NO_PROGRESS_SECS_MIN).to_string()]);
    command.args(["--baseport", &baseport.to_string(), "--portcount", &PORTCOUNT.to_string()]);
    for (name, value) in &orders.directives {
        command.args(["--config", name, value]);
    }
    if orders.tls {
        command.arg("--tls");
    }
    if !orders.skipfile.is_empty() {
        let path = dir.join("skipfile");
        fs::write(&path, &orders.skipfile).map_err(Trouble::doing("writing the skip file"))?;
        command.arg("--skipfile").arg(path);
    }
    if !orders.denied_tags.is_empty() {
        let tags: Vec<String> = orders.denied_tags.iter().map(|tag| format!("-{tag}")).collect();
        command.args(["--tags", &tags.join(" ")]);
    }
    Ok(command)
}

fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<()> {
    while !has_ended(child)? && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether the child has ended, without reaping it: until then nobody else can get its id.
fn has_ended(child: &Child) -> std::io::Result<bool> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let pid = Pid::from_child(child);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid), options)?.is_some())
}

fn groups() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill_group(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may well be gone.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// For an interrupted run: nothing it started outlives it.
pub fn kill_everything() {
    for group in groups().iter() {
        kill_group(*group);
    }
}

/// From now on [`kill_everything`] kills this process group, too.
pub fn watch_group(group: u32) {
    groups().insert(group as i32);
}

/// The group has ended: its number may become another's.
pub fn forget_group(group: u32) {
    groups().remove(&(group as i32));
}

/// Kills every process whose working directory is `dir` or below it. Servers of the suite work in their own
/// directory below the lane's, wherever their process group is.
pub fn kill_processes_below(dir: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let (Some(pid), Ok(cwd)) = (pid, fs::read_link(process.path().join("cwd"))) else { continue };
        if cwd.starts_with(dir) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Child {
        Command::new("sleep").arg("600").current_dir(dir).process_group(0).spawn().unwrap()
    }

    #[test]
    fn only_processes_at_work_below_the_lane_are_killed() {
        let root = std::env::temp_dir().join(format!("shardis-harness-{}", std::process::id()));
        let (lane, deep, beside) = (root.join("lane-1"), root.join("lane-1/tests/tmp"), root.join("lane-10"));
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&beside).unwrap();
        let (mut inside, mut outside) = (sleeper(&deep), sleeper(&beside));

        kill_processes_below(&lane);
        let killed = inside.wait().unwrap();
        let spared = !has_ended(&outside).unwrap();
        kill_group(outside.id() as i32);
        outside.wait().unwrap();
        fs::remove_dir_all(&root).unwrap();

        assert!(!killed.success());
        assert!(spared, "a lane whose name only begins alike is another lane");
    }

    #[test]
    fn orders_become_the_suites_flags() {
        let dir = std::env::temp_dir().join(format!("shardis-orders-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = SuiteFile { name: "unit/pause".into(), baseline_secs: 3, tests: Vec::new() };
        let orders = Orders {
            directives: vec![("shards".into(), "4".into()), ("io-backend".into(), "epoll".into())],
            skipfile: "one\ntwo\n".into(),
            denied_tags: vec!["needs:repl".into(), "slow".into()],
            tls: true,
        };

        let command = command(&dir, 21111, &file, &orders).unwrap();
        let flags: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let flags = flags.join(" ");
        let skipped = fs::read_to_string(dir.join("skipfile")).unwrap();
        fs::remove_dir_all(&dir).unwrap();

        assert!(
            flags.starts_with("tests/test_helper.tcl --single unit/pause --clients 1 --durable"),
            "{flags}"
        );
        assert!(flags.contains(" --baseport 21111 "), "{flags}");
        assert!(flags.contains(" --config shards 4 --config io-backend epoll "), "{flags}");
        assert!(flags.contains(" --tls "), "{flags}");
        assert!(flags.ends_with(" --tags -needs:repl -slow"), "{flags}");
        assert_eq!(skipped, "one\ntwo\n");
    }
}
