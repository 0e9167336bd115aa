//! The expectations: expectations.tsv lists every test that does not pass or is not run, with the reason why.
//!
//! ```text
//! FILE  NAME  OCCURRENCE  SHARDS  KIND  REASON
//! ```
//!
//! - OCCURRENCE: a number from 1, or `*` for every occurrence of the name.
//! - SHARDS: `*`, `1`, or `2+`.
//! - KIND, what the line expects:
//!   - `skip`: the suite is told to pass it over, because it would hang, abort the file or spoil later tests.
//!     With NAME `*` the whole file is not started.
//!   - `fail`: it is run and has to fail; that it passes is a problem, so that the line goes when it does.
//!   - `retry`: a verdict on wall time. It has to pass, but not at the first attempt: files with problems are run again on
//!     their own, up to [`crate::run::RETRIES_MAX`] times, and of this one that is no news.
//!   - `deny-tag`: NAME is a tag of the suite; blocks and tests that carry it are not run (`--tags -NAME`). For a
//!     block that would abort the file by what it does outside any test. Its tests are listed as `skip` as well.
//!   - `block`: NAME is the first line of an error outside any test after which the suite goes on (it could not start
//!     a server), which has to occur. It is no part of the total; the block's tests are listed as `skip` as well. A `*` at the end
//!     of NAME stands for what follows there.
//!   - `ends`: as `block`, but the suite cannot go on behind it and gives the file up. The tests from there on are listed as
//!     `skip` as well.
//! - REASON: one of the closed set of [`REASONS`], in the terms of a user. Lines whose reason is `tls: ` hold where the
//!   suite is not run with certificates.
//!
//! A line about a test that real Redis does not have is an error, and so are two lines about the same test.

use std::collections::HashMap;
use std::fmt;

use crate::catalogue::{Catalogue, SuiteFile, columns, rows};
use crate::{Result, Trouble};

/// It wants certificates, with which the suite is run by `--tls`.
const TLS_REASON: &str = "tls: ";

/// How a reason may begin. What ends in a space wants the particulars after it.
pub const REASONS: [&str; 11] = [
    "not-yet: ",
    "fork-model: ",
    "dict-internals: ",
    "allocator: ",
    TLS_REASON,
    "flaky-timing: ",
    "large-memory",
    "always-checked: ",
    "own-words: ",
    "other-clients: ",
    "several-shards: ",
];

/// What `--update` writes for a test whose reason nobody has looked for. Every run fails while one is left.
pub const UNEXPLAINED: &str = "unexplained";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Skip,
    Fail,
    Retry,
    DenyTag,
    Block,
    Ends,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Skip, Kind::Fail, Kind::Retry, Kind::DenyTag, Kind::Block, Kind::Ends];

    fn name(self) -> &'static str {
        match self {
            Kind::Skip => "skip",
            Kind::Fail => "fail",
            Kind::Retry => "retry",
            Kind::DenyTag => "deny-tag",
            Kind::Block => "block",
            Kind::Ends => "ends",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shards {
    Any,
    One,
    Several,
}

impl Shards {
    const ALL: [Shards; 3] = [Shards::Any, Shards::One, Shards::Several];

    /// The narrow class that a run with `shard_count` shards belongs to.
    pub fn of(shard_count: u32) -> Shards {
        if shard_count == 1 { Shards::One } else { Shards::Several }
    }

    pub fn covers(self, shard_count: u32) -> bool {
        self == Shards::Any || self == Shards::of(shard_count)
    }

    fn overlaps(self, other: Shards) -> bool {
        self == Shards::Any || other == Shards::Any || self == other
    }

    fn name(self) -> &'static str {
        match self {
            Shards::Any => "*",
            Shards::One => "1",
            Shards::Several => "2+",
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub file: String,
    pub name: String,
    /// `None` for every occurrence.
    pub occurrence: Option<u32>,
    pub shards: Shards,
    pub kind: Kind,
    pub reason: String,
}

impl Line {
    /// The file is not started at all.
    pub fn is_whole_file(&self) -> bool {
        self.name == "*" && self.kind == Kind::Skip
    }

    fn about_test(&self) -> bool {
        !self.is_whole_file() && matches!(self.kind, Kind::Skip | Kind::Fail | Kind::Retry)
    }

    /// Whether a `block` or an `ends` line is about an error with this first line.
    pub fn is_message(&self, message: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => message.starts_with(beginning),
            None => message == self.name,
        }
    }

    fn matches(&self, name: &str, occurrence: u32) -> bool {
        self.about_test() && self.name == name && self.occurrence.is_none_or(|own| own == occurrence)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurrence = self.occurrence.map_or("*".to_owned(), |number| number.to_string());
        let (shards, kind) = (self.shards.name(), self.kind.name());
        write!(f, "{}\t{}\t{occurrence}\t{shards}\t{kind}\t{}", self.file, self.name, self.reason)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Expectations {
    pub lines: Vec<Line>,
}

impl Expectations {
    /// Reads `text` and checks every line against the catalogue. `path` is for the messages.
    pub fn parse(path: &str, text: &str, catalogue: &Catalogue) -> Result<Expectations> {
        let mut lines: Vec<Line> = Vec::new();
        let mut first_of: HashMap<(String, String), Vec<usize>> = HashMap::new();
        for (line_number, text) in rows(text) {
            let trouble = |what: String| Trouble::new(format!("{path}:{line_number}: {what}"));
            let line = parse_line(text).map_err(trouble)?;
            check(&line, catalogue).map_err(trouble)?;

            let same_name = first_of.entry((line.file.clone(), line.name.clone())).or_default();
            for other in same_name.iter().map(|&index| &lines[index]) {
                let both_test = other.about_test() && line.about_test();
                let same_test = match (other.occurrence, line.occurrence) {
                    (Some(one), Some(two)) => one == two,
                    _ => true,
                };
                if (both_test || other.kind == line.kind) && same_test && other.shards.overlaps(line.shards) {
                    return Err(trouble(format!("{:?} of {} has a line already", line.name, line.file)));
                }
            }
            same_name.push(lines.len());
            lines.push(line);
        }
        Ok(Expectations { lines })
    }

    /// The lines that hold for one file at one number of shards, with certificates or without.
    pub fn of_file(&self, file: &SuiteFile, shard_count: u32, tls: bool) -> FileExpectations {
        let holds = |line: &&Line| {
            line.file == file.name
                && line.shards.covers(shard_count)
                && !(tls && line.reason.starts_with(TLS_REASON))
        };
        let lines = self.lines.iter().filter(holds);
        FileExpectations { lines: lines.cloned().collect() }
    }
}

/// What is expected of one file in one run.
#[derive(Debug, Clone, Default)]
pub struct FileExpectations {
    lines: Vec<Line>,
}

impl FileExpectations {
    /// Why the file is not started, if it is not.
    pub fn whole_file_skip(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.is_whole_file())
    }

    /// The line about one test; `None` expects it to pass.
    pub fn of_test(&self, name: &str, occurrence: u32) -> Option<&Line> {
        self.lines.iter().find(|line| line.matches(name, occurrence))
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.kind == kind)
    }

    /// Lifts what keeps tests from being run, to see what they would do. The tags stay: without them the file aborts.
    pub fn without_skips(&self) -> FileExpectations {
        let lines = self.lines.iter().filter(|line| line.kind != Kind::Skip);
        FileExpectations { lines: lines.cloned().collect() }
    }

    /// The suite's `--skipfile`: a line is a name, or `/` and a regular expression. The suite can only pass over all
    /// occurrences of a name, which `check` takes care of.
    pub fn skipfile(&self) -> String {
        self.of_kind(Kind::Skip)
            .filter(|line| !line.is_whole_file())
            .map(|line| format!("{}\n", skip_pattern(&line.name)))
            .collect()
    }
}

/// A name that begins with `/` would be taken for a regular expression, so it is written as one that matches only it.
fn skip_pattern(name: &str) -> String {
    if !name.starts_with('/') {
        return name.to_owned();
    }
    let mut pattern = String::from("/^");
    for character in name.chars() {
        // In Tcl's regular expressions a backslash before a letter or digit has a meaning, before anything else none.
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('$');
    pattern
}

fn parse_line(text: &str) -> std::result::Result<Line, String> {
    let [file, name, occurrence, shards, kind, reason] =
        columns(text).ok_or("wants FILE<TAB>NAME<TAB>OCCURRENCE<TAB>SHARDS<TAB>KIND<TAB>REASON")?;
    let occurrence = match occurrence {
        "*" => None,
        number => Some(number.parse().map_err(|_| format!("{number:?} is no occurrence: 1, 2, ... or *"))?),
    };
    let shards = Shards::ALL
        .into_iter()
        .find(|candidate| candidate.name() == shards)
        .ok_or_else(|| format!("{shards:?} is no number of shards: *, 1 or 2+"))?;
    let kind = Kind::ALL
        .into_iter()
        .find(|candidate| candidate.name() == kind)
        .ok_or_else(|| format!("{kind:?} is no kind: skip, fail, retry, deny-tag, block or ends"))?;
    Ok(Line {
        file: file.to_owned(),
        name: name.to_owned(),
        occurrence,
        shards,
        kind,
        reason: reason.to_owned(),
    })
}

fn check(line: &Line, catalogue: &Catalogue) -> std::result::Result<(), String> {
    let file = catalogue.file(&line.file).ok_or_else(|| format!("the suite has no file {}", line.file))?;
    if !is_reason(&line.reason) {
        return Err(format!("{:?} is no reason; one begins with {}", line.reason, REASONS.join(", ")));
    }
    if line.kind == Kind::Retry && !line.reason.starts_with("flaky-timing: ") {
        return Err("only flaky-timing is a reason to retry".to_owned());
    }
    if file.is_of_sentinel() && matches!(line.kind, Kind::Skip | Kind::DenyTag) && !line.is_whole_file() {
        return Err(format!("the runner of {} cannot pass over a part of it", line.file));
    }
    if !line.about_test() {
        return match line.occurrence {
            None => Ok(()),
            Some(_) => Err(format!("a {} line stands for every occurrence: *", line.kind.name())),
        };
    }
    let occurrences = file.occurrences(&line.name);
    match line.occurrence {
        _ if occurrences == 0 => Err(format!("{} has no test {:?}", line.file, line.name)),
        Some(number) if number == 0 || number > occurrences => {
            Err(format!("{:?} of {} occurs {occurrences} times", line.name, line.file))
        }
        Some(_) if line.kind == Kind::Skip && occurrences > 1 => {
            Err("the suite passes over a name as often as it occurs: OCCURRENCE must be *".to_owned())
        }
        _ => Ok(()),
    }
}

fn is_reason(reason: &str) -> bool {
    let explained = REASONS.iter().any(|known| match known.strip_suffix(' ') {
        Some(_) => reason.strip_prefix(known).is_some_and(|particulars| !particulars.trim().is_empty()),
        None => reason == *known,
    });
    explained || reason == UNEXPLAINED
}

#[cfg(test)]
mod tests;
