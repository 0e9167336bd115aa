//! What `cargo verify` adds up: the workspace's own tests, read from what cargo prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::report;
use crate::server::cargo;
use crate::{Result, Trouble};

/// Tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: u32,
    pub failed: u32,
}

/// Runs the tests of all crates with cargo's `profile`, passing on what they print. A run that breaks without a failed
/// test (it does not compile, a test kills its process) counts as one failed.
pub fn workspace_tests(workspace: &Path, target_dir: &Path, profile: &str) -> Result<Sum> {
    let mut command = cargo(workspace, target_dir);
    command.args(["test", "--workspace", "--profile", profile, "--no-fail-fast"]);
    let testing = "running the workspace's tests";
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Trouble::doing(testing))?;
    let mut sum = Sum::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(Trouble::doing(testing))?;
            let line = String::from_utf8_lossy(&line);
            report::say(&line);
            if let Some(more) = test_result(&line) {
                sum.passed += more.passed;
                sum.failed += more.failed;
            }
        }
    }
    let status = child.wait().map_err(Trouble::doing(testing))?;
    if !status.success() && sum.failed == 0 {
        eprintln!("{testing}: {status}");
        sum.failed = 1;
    }
    Ok(sum)
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; ...`
fn test_result(line: &str) -> Option<Sum> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(Sum { passed: count(" passed")?, failed: count(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_result_lines_are_read_and_others_are_not() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let failed = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";

        assert_eq!(test_result(ok), Some(Sum { passed: 12, failed: 0 }));
        assert_eq!(test_result(failed), Some(Sum { passed: 2, failed: 1 }));
        assert_eq!(test_result("test shard::tests::a_test ... ok"), None);
        assert_eq!(test_result("12 passed, 0 failed"), None);
        assert_eq!(test_result("test result: ok. many passed; 0 failed"), None);
    }
}
