//! What the suite's harness printed, read back as verdicts.
//!
//! The grammar (with TERM=dumb; with colours the tags differ), one record a line, `[err]` and `[exception]` followed
//! by detail lines:
//!
//! ```text
//! [ok]: NAME (12 ms)                       [skip]: NAME                  [ignore]: NAME: REASON
//! [err]: NAME in tests/unit/x.tcl          a test failed                 [ignore]: REASON  (a whole block)
//! [err]: MESSAGE                           an error outside any test; where a server could not be started, only its
//!                                          block is lost, in other cases an exception follows
//! [exception]: Executing test client: MSG  the rest of the file is lost
//! [TIMEOUT]: clients state report follows. no progress; `sock12 => (IN PROGRESS) NAME` names the hung test
//! [1/1 done]: FILE (3 seconds)             the file was run to its end
//! ```
//!
//! After `The End` the harness repeats the errors as `*** [err]: ...`, so a record is only one at the line's start.

use std::collections::HashMap;

/// What one test did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// It failed, and these are the lines that say how.
    Failed(String),
    /// It was running when the harness gave up waiting.
    Hung,
    /// The harness passed it over: a skip list, a tag, memory.
    PassedOver,
}

/// One test's report. `occurrence` counts reports of this name in this file from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub name: String,
    pub occurrence: u32,
    pub verdict: Verdict,
}

/// How the run of a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Completed,
    /// An error outside any test aborted the file; what it said.
    Exception(String),
    /// The harness saw no progress for its `--timeout`.
    NoProgress,
    /// The output just stops: killed at the outer limit, or the harness itself broke.
    CutOff,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub reports: Vec<Report>,
    /// Errors outside any test after which the suite went on, each with its first line and its detail.
    pub block_errors: Vec<(String, String)>,
    pub ending: Ending,
}

/// The fixed texts with which the harness passes over a test or a block.
const IGNORE_REASONS: [&str; 6] = [
    "Tag: none of the tags allowed",
    "Not supported on external server",
    "Not supported on singledb",
    "Not supported in cluster mode",
    "Not supported in tls mode",
    "large memory flag not provided",
];

enum Record<'a> {
    Ok(&'a str),
    Err(&'a str),
    Skip(&'a str),
    Ignore(&'a str),
    Exception(&'a str),
    Timeout,
    Done,
    Hung(&'a str),
    /// Something between records, which ends no detail: a server's crash report, a test's own `puts`.
    Other,
}

pub fn parse(text: &str) -> Output {
    let mut reports = Reports::default();
    let mut block_errors = Vec::new();
    let mut exception = None;
    let mut timed_out = false;
    let mut done = false;

    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        match record(line) {
            Record::Ok(rest) => reports.add(without_duration(rest), Verdict::Passed),
            Record::Skip(name) => reports.add(name, Verdict::PassedOver),
            Record::Ignore(rest) => {
                if let Some(name) = ignored_name(rest) {
                    reports.add(name, Verdict::PassedOver);
                }
            }
            Record::Err(rest) => {
                let detail = detail(&mut lines);
                match failed_name(rest) {
                    Some(name) => reports.add(name, Verdict::Failed(detail)),
                    None => block_errors.push((rest.to_owned(), detail)),
                }
            }
            Record::Exception(rest) => {
                let detail = detail(&mut lines);
                exception.get_or_insert_with(|| format!("{rest}\n{detail}").trim_end().to_owned());
            }
            Record::Timeout => timed_out = true,
            Record::Hung(name) => reports.add(name, Verdict::Hung),
            Record::Done => done = true,
            Record::Other => {}
        }
    }

    let ending = match exception {
        Some(message) => Ending::Exception(message),
        None if timed_out => Ending::NoProgress,
        None if done => Ending::Completed,
        None => Ending::CutOff,
    };
    Output { reports: reports.list, block_errors, ending }
}

/// Reports in their order, as they come.
#[derive(Default)]
pub(crate) struct Reports {
    list: Vec<Report>,
    seen: HashMap<String, u32>,
}

impl Reports {
    pub(crate) fn into_list(self) -> Vec<Report> {
        self.list
    }

    pub(crate) fn add(&mut self, name: &str, verdict: Verdict) {
        let seen = self.seen.entry(name.to_owned()).or_insert(0);
        *seen += 1;
        self.list.push(Report { name: name.to_owned(), occurrence: *seen, verdict });
    }
}

fn record(line: &str) -> Record<'_> {
    let tagged = |tag: &str| line.strip_prefix(tag);
    if let Some(rest) = tagged("[ok]: ") {
        Record::Ok(rest)
    } else if let Some(rest) = tagged("[err]: ") {
        Record::Err(rest)
    } else if let Some(rest) = tagged("[skip]: ") {
        Record::Skip(rest)
    } else if let Some(rest) = tagged("[ignore]: ") {
        Record::Ignore(rest)
    } else if let Some(rest) = tagged("[exception]: ") {
        Record::Exception(rest)
    } else if line.starts_with("[TIMEOUT]: ") {
        Record::Timeout
    } else if is_done(line) {
        Record::Done
    } else if line.starts_with("sock") && line.contains(" => (IN PROGRESS) ") {
        let (_, name) = line.split_once(" => (IN PROGRESS) ").unwrap_or_default();
        Record::Hung(name)
    } else {
        Record::Other
    }
}

/// `[12/84 done]: unit/x (3 seconds)`
fn is_done(line: &str) -> bool {
    let Some((counts, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(" done]: ")) else {
        return false;
    };
    counts.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/')
}

/// Takes the lines up to the next record. Blank ones at the end are dropped.
fn detail<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut text = String::new();
    while let Some(line) = lines.next_if(|line| matches!(record(line), Record::Other)) {
        text.push_str(line);
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// `NAME (12 ms)` without the time.
fn without_duration(rest: &str) -> &str {
    match rest.strip_suffix(" ms)").and_then(|head| head.rsplit_once(" (")) {
        Some((name, millis)) if millis.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => rest,
    }
}

/// `NAME in tests/unit/x.tcl`; `None` for an error outside any test.
fn failed_name(rest: &str) -> Option<&str> {
    let (name, path) = rest.rsplit_once(" in tests/")?;
    path.ends_with(".tcl").then_some(name)
}

/// `NAME: REASON`; `None` when a whole block was passed over, whose tests the harness does not name.
fn ignored_name(rest: &str) -> Option<&str> {
    if let Some((name, tag)) = rest.rsplit_once(": Tag: ")
        && tag.ends_with(" denied")
    {
        return Some(name);
    }
    IGNORE_REASONS.iter().find_map(|reason| rest.strip_suffix(reason)?.strip_suffix(": "))
}

#[cfg(test)]
mod tests;
