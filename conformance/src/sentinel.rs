//! The suite's tests of Sentinel: fourteen files with a runner of their own, tests/sentinel/run.tcl. It starts five sentinels,
//! which are always real ones, and five servers, and runs the files one after the other in its own process.
//!
//! Here each file has a run of its own. The runner takes directives for all its processes alike, and its ports are fixed,
//! so it is given both in a copy of itself.
//!
//! What it prints (with TERM=dumb):
//!
//! ```text
//! Testing unit: 00-base.tcl
//! 12:30:59> NAME: OK                      a test, while it runs up to `NAME: `; it may print words before its verdict
//! 12:30:59> NAME: FAILED: MESSAGE         the rest of the file is lost
//! FAILED: caught an error in the test ... an error, in a test or outside of any, with a Tcl trace; the rest is lost
//! WARNING: Aborting the test.             the run ends; the next line says why
//! *** Crash report found in PATH ***      a server has crashed
//! GOOD! No errors. | WARNING N test(s) failed.
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::catalogue::SuiteFile;
use crate::harness::Orders;
use crate::lane::PORTCOUNT;
use crate::output::{Ending, Output, Reports, Verdict};
use crate::{Result, Trouble};

/// Beginnings of lines of the runner, before which it is told more.
const BEFORE_PORTS: &str = "set ::instances_count ";
const BEFORE_SERVERS: &str = "    spawn_instance redis ";

/// Half of a lane's ports are for sentinels, and half for servers.
const PORTS_EACH: u16 = PORTCOUNT / 2;

/// What runs one file in the lane at `dir`.
pub fn command(dir: &Path, baseport: u16, file: &SuiteFile, orders: &Orders) -> Result<Command> {
    let path = dir.join("tests/sentinel/run.tcl");
    let runner = fs::read_to_string(&path).map_err(Trouble::doing(format!("reading {}", path.display())))?;
    let path = path.with_file_name("run-in-lane.tcl");
    fs::write(&path, runner_for(&runner, baseport, orders)?)
        .map_err(Trouble::doing(format!("writing {}", path.display())))?;
    let mut command = Command::new("tclsh");
    command.arg("tests/sentinel/run-in-lane.tcl");
    // The runner takes a pattern, and passes over everything without a word if none is like it.
    let name = file.name.rsplit('/').next().unwrap_or_default();
    command.args(["--single", &format!("/{name}.tcl")]);
    if orders.tls {
        command.arg("--tls");
    }
    Ok(command)
}

fn runner_for(runner: &str, baseport: u16, orders: &Orders) -> Result<String> {
    let ports = format!(
        "set ::sentinel_base_port {baseport}\nset ::redis_base_port {}\nset ::redis_port_count {PORTS_EACH}\n",
        baseport + PORTS_EACH
    );
    let directives: String = orders
        .directives
        .iter()
        .map(|(name, value)| format!("    dict set ::global_config {{{name}}} {{{value}}}\n"))
        .collect();
    let mut text = String::new();
    let mut told = 0;
    for line in runner.lines() {
        for (beginning, more) in [(BEFORE_PORTS, &ports), (BEFORE_SERVERS, &directives)] {
            if line.starts_with(beginning) {
                text.push_str(more);
                told += 1;
            }
        }
        text.push_str(line);
        text.push('\n');
    }
    if told == 2 { Ok(text) } else { Err(Trouble::new("tests/sentinel/run.tcl is not that of Redis 7.0.15")) }
}

/// Reads what the runner has printed.
pub fn parse(text: &str) -> Output {
    let mut reader = Reader::default();
    text.lines().for_each(|line| reader.line(line));
    reader.end()
}

#[derive(Default)]
struct Reader {
    reports: Reports,
    block_errors: Vec<(String, String)>,
    /// The test that has no verdict yet.
    open: Option<String>,
    /// What the last line has begun that is explained by the lines behind it.
    explained: Explained,
    aborted: Option<String>,
    has_ended: bool,
}

#[derive(Default)]
enum Explained {
    #[default]
    Nothing,
    /// A failed test.
    Failure(String, String),
    /// An error outside any test.
    Error(String, String),
    Abort,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some((name, said)) = test_of(line) {
            self.explain();
            self.open = Some(name.to_owned());
            self.said(said);
        } else if line.starts_with("Testing unit: ") || line == "Cleaning up..." {
            self.explain();
        } else if line == "WARNING: Aborting the test." {
            self.explain();
            self.explained = Explained::Abort;
        } else if line.starts_with("*** Crash report found in ") {
            self.explain();
            self.explained = Explained::Error(line.to_owned(), String::new());
        } else if line == "GOOD! No errors." || is_closing(line) {
            self.explain();
            self.has_ended = true;
        } else {
            self.said(line);
        }
    }

    /// Words of the open test, or of what explains something.
    fn said(&mut self, said: &str) {
        match &mut self.explained {
            Explained::Failure(_, detail) | Explained::Error(_, detail) => {
                detail.push_str(said);
                detail.push('\n');
                return;
            }
            Explained::Abort => {
                self.aborted.get_or_insert_with(|| said.trim_start_matches('>').trim().to_owned());
                self.explained = Explained::Nothing;
                return;
            }
            Explained::Nothing => {}
        }
        let failure = said.find("FAILED: ").map(|at| said[at + "FAILED: ".len()..].to_owned());
        match (failure, self.open.take()) {
            (Some(why), Some(name)) => self.explained = Explained::Failure(name, why + "\n"),
            (Some(_), None) => self.explained = Explained::Error(said.to_owned(), String::new()),
            (None, Some(name)) if said == "OK" || said.ends_with(" OK") => {
                self.reports.add(&name, Verdict::Passed);
            }
            (None, open) => self.open = open,
        }
    }

    /// What was begun is complete.
    fn explain(&mut self) {
        match std::mem::take(&mut self.explained) {
            Explained::Failure(name, detail) => {
                self.reports.add(&name, Verdict::Failed(detail.trim_end().to_owned()));
            }
            Explained::Error(message, detail) => {
                self.block_errors.push((message, detail.trim_end().to_owned()));
            }
            Explained::Nothing | Explained::Abort => {}
        }
    }

    fn end(mut self) -> Output {
        self.explain();
        if let Some(name) = self.open.take() {
            self.reports.add(&name, Verdict::Hung);
        }
        let ending = match self.aborted {
            Some(message) => Ending::Exception(message),
            None if self.has_ended => Ending::Completed,
            None => Ending::CutOff,
        };
        Output { reports: self.reports.into_list(), block_errors: self.block_errors, ending }
    }
}

/// `12:30:59> NAME: ...`
fn test_of(line: &str) -> Option<(&str, &str)> {
    let (time, rest) = line.split_once("> ")?;
    let is_time = time.len() == "12:30:59".len()
        && time.bytes().enumerate().all(|(at, byte)| match at {
            2 | 5 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
    is_time.then(|| rest.split_once(": ").unwrap_or((rest.trim_end_matches(':'), "")))
}

/// `WARNING 2 test(s) failed.`
fn is_closing(line: &str) -> bool {
    let count = line.strip_prefix("WARNING ").and_then(|rest| rest.strip_suffix(" test(s) failed."));
    count.is_some_and(|count| count.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Report;

    fn report(name: &str, occurrence: u32, verdict: Verdict) -> Report {
        Report { name: name.to_owned(), occurrence, verdict }
    }

    #[test]
    fn tests_pass_with_or_without_words_before_the_verdict() {
        let output = parse(
            "Starting sentinel #0 at port 21111\n\
             Testing unit: 01-conf-update.tcl\n\
             12:30:59> (init) Restart killed instances: redis/0 redis/3 OK\n\
             12:31:00> We can failover with Sentinel 1 crashed: OK\n\
             12:31:07> We can failover with Sentinel 1 crashed: \n\
             a word of its own\n\
             OK\n\
             Cleaning up...\n\
             killing stale instance 17\n\
             GOOD! No errors.\n",
        );
        let crashed = "We can failover with Sentinel 1 crashed";
        let passed = [("(init) Restart killed instances", 1), (crashed, 1), (crashed, 2)];
        let expected: Vec<Report> = passed.map(|(name, n)| report(name, n, Verdict::Passed)).into();
        assert_eq!(output, Output { reports: expected, block_errors: Vec::new(), ending: Ending::Completed });
    }

    #[test]
    fn a_failure_and_an_error_keep_what_is_said_of_them() {
        let output = parse(
            "12:30:59> One: FAILED: Expected 1 to be 2\n\
             (Jumping to next unit after error)\n\
             Testing unit: 02-slaves-reconf.tcl\n\
             12:31:01> Two: FAILED: caught an error in the test ERR unknown command\n\
             ERR unknown command\n    while executing\n\
             Testing unit: 03-runtime-reconf.tcl\n\
             FAILED: caught an error in the test no such variable\n\
             no such variable\n\
             Cleaning up...\n\
             \n*** Crash report found in redis_0/log.txt ***\n\
             1:M 1 Jan 2026 12:00:00.000 # === REDIS BUG REPORT START\n\
             WARNING 3 test(s) failed.\n",
        );
        let one = "Expected 1 to be 2\n(Jumping to next unit after error)";
        let two = "caught an error in the test ERR unknown command\nERR unknown command\n    while executing";
        let failed = |name, why: &str| report(name, 1, Verdict::Failed(why.to_owned()));
        assert_eq!(output.reports, [failed("One", one), failed("Two", two)]);
        let errors: Vec<&str> = output.block_errors.iter().map(|(message, _)| message.as_str()).collect();
        assert_eq!(
            errors,
            [
                "FAILED: caught an error in the test no such variable",
                "*** Crash report found in redis_0/log.txt ***"
            ]
        );
        assert_eq!(output.ending, Ending::Completed);
    }

    #[test]
    fn a_run_that_is_aborted_or_killed_is_not_complete() {
        let aborted = parse(
            "12:30:59> (init) Restart killed instances: redis/0 WARNING\n\
             WARNING: Aborting the test.\n\
             >>>>>>>> Problems starting redis #0: ping timeout\n\
             Cleaning up...\n",
        );
        assert_eq!(aborted.ending, Ending::Exception("Problems starting redis #0: ping timeout".to_owned()));
        let killed = parse("12:30:59> One: OK\n12:31:00> Two: ");
        assert_eq!(killed.ending, Ending::CutOff);
        assert_eq!(killed.reports, [report("One", 1, Verdict::Passed), report("Two", 1, Verdict::Hung)]);
    }

    #[test]
    fn the_runner_is_given_ports_and_what_only_servers_take() {
        let runner = "source ../instances.tcl\n\nset ::instances_count 5 ; # How many.\n\nproc main {} {\n    \
                      spawn_instance sentinel $::sentinel_base_port 5\n    spawn_instance redis $::redis_base_port 5\n}\n";
        let orders = Orders { directives: vec![("shards".into(), "4".into())], ..Orders::default() };
        let text = runner_for(runner, 21111, &orders).unwrap();
        assert_eq!(
            text,
            "source ../instances.tcl\n\nset ::sentinel_base_port 21111\nset ::redis_base_port 21511\n\
             set ::redis_port_count 400\nset ::instances_count 5 ; # How many.\n\nproc main {} {\n    \
             spawn_instance sentinel $::sentinel_base_port 5\n    dict set ::global_config {shards} {4}\n    \
             spawn_instance redis $::redis_base_port 5\n}\n"
        );
        assert!(runner_for("proc main {} {}\n", 21111, &orders).is_err());
    }
}
