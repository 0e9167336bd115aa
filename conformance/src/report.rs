//! What a person reads: a line a file as it ends, then why the run is not clean, then the closing line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::judge::{Counts, Problem, What};
use crate::run::Done;

/// Writes `text` and a line's end to standard output. That nobody reads on (`| head`) is no reason to end badly.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Lines of a failure's detail that are shown; all of them are in the raw output.
const DETAIL_LINES_MAX: usize = 12;
const DETAIL_WIDTH_MAX: usize = 200;

/// The sum over the files of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub counts: Counts,
    pub expected_failures: u32,
    pub problem_count: u32,
    /// Of the passed ones, those that were expected not to: problems, too.
    pub unexpected_passes: u32,
    /// Tests of files that were not started, by reason.
    not_started: BTreeMap<String, (u32, u32)>,
    /// Tests of started files that were not run or failed as expected, by reason.
    listed: BTreeMap<String, u32>,
}

impl Tally {
    pub fn add(&mut self, done: &Done) {
        self.counts.add(&done.judgement.counts);
        self.expected_failures += done.judgement.expected_failures;
        let problems = &done.judgement.problems;
        self.problem_count += problems.len() as u32;
        self.unexpected_passes +=
            problems.iter().filter(|problem| matches!(problem.what, What::UnexpectedPass(_))).count() as u32;
        if let Some(line) = done.job.expected.whole_file_skip() {
            let (files, tests) = self.not_started.entry(line.reason.clone()).or_default();
            *files += 1;
            *tests += done.job.file.test_count();
            return;
        }
        for (name, occurrences) in &done.job.file.tests {
            for occurrence in 1..=*occurrences {
                if let Some(line) = done.job.expected.of_test(name, occurrence) {
                    *self.listed.entry(line.reason.clone()).or_default() += 1;
                }
            }
        }
    }

    /// What was not run or is known to fail, by reason.
    pub fn listed(&self) -> String {
        let mut text = String::new();
        if !self.listed.is_empty() {
            text.push_str("listed in the files that were run:\n");
            for (reason, tests) in &self.listed {
                let _ = writeln!(text, "  {tests:5}  {reason}");
            }
        }
        if !self.not_started.is_empty() {
            text.push_str("files that were not started:\n");
            for (reason, (files, tests)) in &self.not_started {
                let _ = writeln!(text, "  {tests:5}  {reason} ({files} {})", plural(*files, "file"));
            }
        }
        text
    }

    /// The closing line.
    pub fn closing(&self) -> String {
        let Counts { passed, failed, not_run } = self.counts;
        format!("{passed} passed, {failed} failed, {not_run} not run of {}", self.counts.total())
    }
}

pub fn heading() -> String {
    format!("{:<40} {:>7} {:>7} {:>8} {:>6} {:>8}", "file", "passed", "failed", "not run", "of", "seconds")
}

/// The table's line of one file that was started.
pub fn row(done: &Done) -> String {
    let Counts { passed, failed, not_run } = done.judgement.counts;
    let total = done.judgement.counts.total();
    let name = &done.job.file.name;
    let mut row = format!("{name:<40} {passed:>7} {failed:>7} {not_run:>8} {total:>6} {:>8.1}", done.secs);
    if done.judgement.expected_failures > 0 {
        let _ = write!(row, "  {} expected to fail", done.judgement.expected_failures);
    }
    if done.attempts > 1 {
        let _ = write!(row, "  at attempt {}", done.attempts);
    }
    let problems = done.judgement.problems.len();
    if problems > 0 {
        let _ = write!(row, "  {problems} {}", plural(problems as u32, "problem"));
    }
    row
}

/// Everything that is wrong with one file, or nothing.
pub fn problems(done: &Done) -> String {
    let mut text = list(&done.job.file.name, &done.judgement.problems);
    if let (false, Some((_, raw))) = (text.is_empty(), &done.output) {
        let _ = writeln!(text, "    raw output: {}", raw.display());
    }
    text
}

/// What was wrong at the first attempt with a file that was clean when it was run again.
pub fn unsteady(done: &Done) -> String {
    if done.judgement.problems.is_empty() { list(&done.job.file.name, &done.at_first) } else { String::new() }
}

fn list(file: &str, problems: &[Problem]) -> String {
    let mut text = String::new();
    let missing = problems.iter().filter(|problem| problem.what == What::Missing).count();
    for problem in problems {
        // After an abort the missing ones are the consequence: their number says enough.
        if problem.what == What::Missing && missing > 5 {
            continue;
        }
        let _ = write!(text, "{file}: {}", headline(problem));
        text.push('\n');
        let lines: Vec<&str> = problem.detail.lines().collect();
        for line in lines.iter().take(DETAIL_LINES_MAX) {
            let shown: String = line.chars().take(DETAIL_WIDTH_MAX).collect();
            let more = if shown.len() < line.len() { "..." } else { "" };
            let _ = writeln!(text, "    {shown}{more}");
        }
        if lines.len() > DETAIL_LINES_MAX {
            let _ = writeln!(text, "    ... {} more lines", lines.len() - DETAIL_LINES_MAX);
        }
    }
    if missing > 5 {
        let _ = writeln!(text, "{file}: {missing} tests never reported");
    }
    text
}

fn headline(problem: &Problem) -> String {
    let test = match &problem.test {
        Some((name, 1)) => format!(": {name}"),
        Some((name, occurrence)) => format!(": {name} (occurrence {occurrence})"),
        None => String::new(),
    };
    match &problem.what {
        What::UnexpectedFailure => format!("failed{test}"),
        What::Hung => format!("hung{test}"),
        What::UnexpectedPass(reason) => format!("passed, but is listed as {reason:?}{test}"),
        What::Missing => format!("never reported{test}"),
        What::NotPassedOver => format!("ran although it is listed as skip{test}"),
        What::UnknownName => format!("is a test that real Redis does not run{test}"),
        What::BlockError => "failed outside any test".to_owned(),
        What::NoBlockError(reason) => format!("did not fail outside any test, as listed for {reason:?}"),
        What::Aborted => "was aborted before its end".to_owned(),
        What::Infrastructure => "could not be run".to_owned(),
        What::Unexplained => "has a line in the expectations without a reason".to_owned(),
    }
}

fn plural(count: u32, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
