//! One file's verdicts against the catalogue and the expectations: counts for the total, and problems.
//!
//! The counts are taken over the catalogue, so passed + failed + not run is always the file's share of the total, no
//! matter what the harness reported.

use std::collections::HashMap;

use crate::catalogue::SuiteFile;
use crate::expect::{FileExpectations, Kind, Line, UNEXPLAINED};
use crate::output::{Ending, Output, Verdict};

/// Why a run is not clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    UnexpectedFailure,
    /// The harness gave up on it.
    Hung,
    /// Listed as failing or passed over, for this reason, and it passed.
    UnexpectedPass(String),
    /// It never reported.
    Missing,
    /// Listed as `skip`, but the suite ran it, and it did not pass.
    NotPassedOver,
    /// Real Redis has no such test (or not that often).
    UnknownName,
    /// An error outside any test that no `block` line expects.
    BlockError,
    /// A `block` line expects an error that did not occur.
    NoBlockError(String),
    /// The file was aborted before its end.
    Aborted,
    /// The harness itself did not work: nothing can be said of the server.
    Infrastructure,
    /// The line has no reason yet.
    Unexplained,
}

impl What {
    /// Whether another run of the same file may be without it.
    fn may_change(&self) -> bool {
        match self {
            What::UnexpectedFailure
            | What::Hung
            | What::UnexpectedPass(_)
            | What::Missing
            | What::BlockError
            | What::NoBlockError(_)
            | What::Aborted
            | What::Infrastructure => true,
            What::NotPassedOver | What::UnknownName | What::Unexplained => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub what: What,
    /// The test and its occurrence, where it is about one.
    pub test: Option<(String, u32)>,
    pub detail: String,
    /// The expectations say that it happens, for want of time.
    pub is_retry: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub not_run: u32,
}

impl Counts {
    pub fn total(&self) -> u32 {
        self.passed + self.failed + self.not_run
    }

    pub fn add(&mut self, other: &Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
    }
}

#[derive(Debug, Clone, Default)]
pub struct Judgement {
    pub counts: Counts,
    /// Of the failed ones, those that a `fail` line expects.
    pub expected_failures: u32,
    pub problems: Vec<Problem>,
    /// There are problems, and all are of a kind that another run of the file may not have.
    pub worth_retrying: bool,
}

/// What became of each test of the catalogue; a test that is not in here never reported.
pub type Verdicts<'a> = HashMap<(&'a str, u32), &'a Verdict>;

pub fn verdicts(output: &Output) -> Verdicts<'_> {
    output.reports.iter().map(|report| ((report.name.as_str(), report.occurrence), &report.verdict)).collect()
}

pub fn judge(file: &SuiteFile, expected: &FileExpectations, output: &Output) -> Judgement {
    let mut judgement = Judgement::default();
    let verdicts = verdicts(output);

    for (name, occurrences) in &file.tests {
        for occurrence in 1..=*occurrences {
            let line = expected.of_test(name, occurrence);
            let verdict = verdicts.get(&(name.as_str(), occurrence)).copied();
            match verdict {
                Some(Verdict::Passed) => judgement.counts.passed += 1,
                Some(Verdict::Failed(_) | Verdict::Hung) => judgement.counts.failed += 1,
                Some(Verdict::PassedOver) | None => judgement.counts.not_run += 1,
            }
            match judge_test(line, verdict) {
                None if line.is_some_and(|line| line.kind == Kind::Fail) => judgement.expected_failures += 1,
                None => {}
                Some((what, detail)) => {
                    let is_retry = line.is_some_and(|line| line.kind == Kind::Retry);
                    let test = Some((name.clone(), occurrence));
                    judgement.problems.push(Problem { what, test, detail, is_retry });
                }
            }
        }
    }
    judgement.problems.extend(unknown_names(file, output));
    judgement.problems.extend(block_errors(expected, output));
    judgement.problems.extend(ending(file, expected, output));
    judgement.problems.extend(unexplained(expected));
    let may_change = |problem: &Problem| problem.what.may_change();
    judgement.worth_retrying = !judgement.problems.is_empty() && judgement.problems.iter().all(may_change);
    judgement
}

/// A file that its line keeps from being started: all of it is not run, and that is as expected.
pub fn judge_not_started(file: &SuiteFile, line: &Line) -> Judgement {
    let counts = Counts { not_run: file.test_count(), ..Counts::default() };
    let mut judgement = Judgement { counts, ..Judgement::default() };
    if line.reason == UNEXPLAINED {
        let detail = "the whole file is listed".to_owned();
        judgement.problems.push(Problem { what: What::Unexplained, test: None, detail, is_retry: false });
    }
    judgement
}

fn judge_test(line: Option<&Line>, verdict: Option<&Verdict>) -> Option<(What, String)> {
    let expected = line.map(|line| line.kind);
    match verdict {
        Some(Verdict::Passed) => match (expected, line) {
            (Some(Kind::Fail | Kind::Skip), Some(line)) => {
                Some((What::UnexpectedPass(line.reason.clone()), String::new()))
            }
            _ => None,
        },
        Some(Verdict::Failed(detail)) => match expected {
            Some(Kind::Fail) => None,
            Some(Kind::Skip) => Some((What::NotPassedOver, detail.clone())),
            _ => Some((What::UnexpectedFailure, detail.clone())),
        },
        // Also where a failure is expected: a hung test takes the rest of the file with it.
        Some(Verdict::Hung) => Some((What::Hung, String::new())),
        Some(Verdict::PassedOver) | None => match expected {
            Some(Kind::Skip) => None,
            _ => Some((What::Missing, String::new())),
        },
    }
}

fn unknown_names(file: &SuiteFile, output: &Output) -> Vec<Problem> {
    let unknown = output.reports.iter().filter(|report| {
        // What was passed over may well be unknown: it was when the names were taken, too.
        report.verdict != Verdict::PassedOver && report.occurrence > file.occurrences(&report.name)
    });
    unknown
        .map(|report| Problem {
            what: What::UnknownName,
            test: Some((report.name.clone(), report.occurrence)),
            detail: match &report.verdict {
                Verdict::Failed(detail) => detail.clone(),
                _ => String::new(),
            },
            is_retry: false,
        })
        .collect()
}

/// The lines about errors outside any test.
fn of_blocks(expected: &FileExpectations) -> impl Iterator<Item = &Line> {
    expected.of_kind(Kind::Block).chain(expected.of_kind(Kind::Ends))
}

fn block_errors(expected: &FileExpectations, output: &Output) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (message, detail) in &output.block_errors {
        if !of_blocks(expected).any(|line| line.is_message(message)) {
            let detail = format!("{message}\n{detail}").trim_end().to_owned();
            problems.push(Problem { what: What::BlockError, test: None, detail, is_retry: false });
        }
    }
    for line in of_blocks(expected) {
        if !output.block_errors.iter().any(|(message, _)| line.is_message(message)) {
            let what = What::NoBlockError(line.reason.clone());
            problems.push(Problem { what, test: None, detail: line.name.clone(), is_retry: false });
        }
    }
    problems
}

fn ending(file: &SuiteFile, expected: &FileExpectations, output: &Output) -> Option<Problem> {
    let problem =
        |what, detail: &str| Some(Problem { what, test: None, detail: detail.to_owned(), is_retry: false });
    match &output.ending {
        Ending::Completed => None,
        // The error outside any test has to be there: see `block_errors`.
        Ending::Exception(_) if expected.of_kind(Kind::Ends).next().is_some() => None,
        Ending::Exception(message) => problem(What::Aborted, message),
        Ending::NoProgress => problem(What::Aborted, "no progress"),
        Ending::CutOff if output.reports.is_empty() && file.test_count() > 0 => {
            problem(What::Infrastructure, "the harness ended without a single result")
        }
        Ending::CutOff => problem(What::Aborted, "the harness was killed or died"),
    }
}

fn unexplained(expected: &FileExpectations) -> Vec<Problem> {
    let lines = expected.lines().iter().filter(|line| line.reason == UNEXPLAINED);
    lines
        .map(|line| Problem {
            what: What::Unexplained,
            test: None,
            detail: line.name.clone(),
            is_retry: false,
        })
        .collect()
}

#[cfg(test)]
mod tests;
