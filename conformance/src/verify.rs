//! What `cargo verify` adds up: the workspace's own tests, read from what cargo prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::report;
use crate::server::cargo;
use crate::{Result, Trouble};

/// Tests passed and failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: u32,
    pub failed: u32,
    /// What there is to say about those that failed. It is repeated at the end, so that it is not lost in the output.
    pub failures: String,
}

/// The most lines that are repeated of what one test program says about its failed tests.
const FAILURE_LINES_MAX: usize = 60;

/// Runs the tests of all crates with cargo's `profile`, passing on what they print. A run that breaks without a failed
/// test (it does not compile, a test kills its process) counts as one failed.
pub fn workspace_tests(workspace: &Path, target_dir: &Path, profile: &str) -> Result<Sum> {
    let mut command = cargo(workspace, target_dir);
    command.args(["test", "--workspace", "--profile", profile, "--no-fail-fast"]);
    // What tests would leave out because it is not installed is a failure.
    command.env("SHARDIS_TESTS_COMPLETE", "1");
    let testing = "running the workspace's tests";
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Trouble::doing(testing))?;
    let mut reader = Reader::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(Trouble::doing(testing))?;
            let line = String::from_utf8_lossy(&line);
            report::say(&line);
            reader.add(&line);
        }
    }
    let Reader { mut sum, .. } = reader;
    let status = child.wait().map_err(Trouble::doing(testing))?;
    if !status.success() && sum.failed == 0 {
        sum.failures = format!("{testing}: {status}\n");
        sum.failed = 1;
    }
    Ok(sum)
}

impl Sum {
    pub fn add(&mut self, more: Sum) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.failures.push_str(&more.failures);
    }
}

/// Reads what test programs print, line by line.
#[derive(Default)]
struct Reader {
    sum: Sum,
    /// How many more lines about failed tests are taken. They stand between a line `failures:`, which comes twice, and the
    /// program's result.
    lines_left: usize,
}

impl Reader {
    fn add(&mut self, line: &str) {
        if let Some((passed, failed)) = test_result(line) {
            self.sum.passed += passed;
            self.sum.failed += failed;
            self.lines_left = 0;
        } else if line == "failures:" {
            self.lines_left = FAILURE_LINES_MAX;
        } else if self.lines_left > 0 {
            self.lines_left -= 1;
            self.sum.failures.push_str(line);
            self.sum.failures.push('\n');
        }
    }
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; ...`
fn test_result(line: &str) -> Option<(u32, u32)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_program_says_about_failed_tests_is_kept() {
        let mut reader = Reader::default();
        for line in [
            "running 2 tests",
            "test a ... FAILED",
            "failures:",
            "---- a stdout ----",
            "seed 7",
            "failures:",
            "    a",
        ] {
            reader.add(line);
        }
        reader.add("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        reader.add("running 1 test");

        let failures = "---- a stdout ----\nseed 7\n    a\n".to_owned();
        assert_eq!(reader.sum, Sum { passed: 1, failed: 1, failures });
    }

    #[test]
    fn cargo_s_result_lines_are_read_and_others_are_not() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let failed = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";

        assert_eq!(test_result(ok), Some((12, 0)));
        assert_eq!(test_result(failed), Some((2, 1)));
        assert_eq!(test_result("test shard::tests::a_test ... ok"), None);
        assert_eq!(test_result("12 passed, 0 failed"), None);
        assert_eq!(test_result("test result: ok. many passed; 0 failed"), None);
    }
}
