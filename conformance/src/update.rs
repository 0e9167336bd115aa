//! `--update`: the expectations rewritten from what happened, so that a person corrects a list instead of typing it.
//!
//! - A listed test that passed loses its line; a `*` line keeps the shard counts that were not run.
//! - A test that failed gets a `fail` line, a hung one a `skip` line (run again, it would take the file with it), with
//!   the reason `unexplained`, which fails every run until somebody writes the reason.
//! - What stays true keeps its line and its reason. A test that never reported is left alone: why it did not is the
//!   business of whatever aborted the file.

use crate::catalogue::{Catalogue, header};
use crate::expect::{Expectations, Kind, Line, Shards, UNEXPLAINED};
use crate::judge::verdicts;
use crate::output::Verdict;
use crate::run::Done;

/// Changes `expectations` by what one file did with `shard_count` shards.
pub fn update(expectations: &mut Expectations, done: &Done, shard_count: u32) {
    let Some((output, _)) = &done.output else { return };
    let file = &done.job.file;
    // It was started all the same, so it is now listed test by test.
    expectations.lines.retain(|line| !(line.file == file.name && line.is_whole_file()));

    let verdicts = verdicts(output);
    for (name, occurrences) in &file.tests {
        for occurrence in 1..=*occurrences {
            let test = Test { file: &file.name, name, occurrence, occurrences: *occurrences };
            match verdicts.get(&(name.as_str(), occurrence)) {
                Some(Verdict::Passed) => test.passed(&mut expectations.lines, shard_count),
                Some(Verdict::Failed(_)) => {
                    test.did_not_pass(&mut expectations.lines, shard_count, Kind::Fail)
                }
                Some(Verdict::Hung) => test.did_not_pass(&mut expectations.lines, shard_count, Kind::Skip),
                Some(Verdict::PassedOver) | None => {}
            }
        }
    }
}

struct Test<'a> {
    file: &'a str,
    name: &'a str,
    occurrence: u32,
    occurrences: u32,
}

impl Test<'_> {
    fn is_of(&self, line: &Line) -> bool {
        let same_name = line.file == self.file && line.name == self.name;
        same_name && line.occurrence.is_none_or(|own| own == self.occurrence)
    }

    fn passed(&self, lines: &mut Vec<Line>, shard_count: u32) {
        let Some(index) = self.listed(lines, shard_count, &[Kind::Fail, Kind::Skip]) else { return };
        let line = lines.remove(index);
        // A line for every occurrence holds on for those that did not pass.
        if line.occurrence.is_none() && self.occurrences > 1 {
            let others = (1..=self.occurrences).filter(|other| *other != self.occurrence);
            lines.extend(others.map(|other| Line {
                occurrence: Some(other),
                kind: Kind::Fail,
                ..line.clone()
            }));
        }
        if line.shards == Shards::Any {
            let shards = if Shards::of(shard_count) == Shards::One { Shards::Several } else { Shards::One };
            lines.push(Line { shards, occurrence: Some(self.occurrence), ..line });
        }
    }

    fn did_not_pass(&self, lines: &mut Vec<Line>, shard_count: u32, kind: Kind) {
        if self.listed(lines, shard_count, &[Kind::Fail, Kind::Skip, Kind::Retry]).is_some() {
            return;
        }
        let shards = Shards::of(shard_count);
        // The other shard counts may be listed already: then it holds for all of them.
        if let Some(line) = lines.iter_mut().find(|line| self.is_of(line) && line.kind == kind) {
            line.shards = Shards::Any;
            return;
        }
        let occurrence =
            if kind == Kind::Skip && self.occurrences > 1 { None } else { Some(self.occurrence) };
        let (file, name, reason) = (self.file.to_owned(), self.name.to_owned(), UNEXPLAINED.to_owned());
        lines.push(Line { file, name, occurrence, shards, kind, reason });
    }

    fn listed(&self, lines: &[Line], shard_count: u32, kinds: &[Kind]) -> Option<usize> {
        let holds =
            |line: &Line| self.is_of(line) && line.shards.covers(shard_count) && kinds.contains(&line.kind);
        lines.iter().position(holds)
    }
}

/// The file as it is committed: `old`'s comments, then the lines in the order of the suite.
pub fn to_tsv(expectations: &Expectations, old: &str, catalogue: &Catalogue) -> String {
    let mut text = header(old);
    for file in &catalogue.files {
        let mut lines: Vec<&Line> = expectations.lines.iter().filter(|line| line.file == file.name).collect();
        if lines.is_empty() {
            continue;
        }
        // What is about the file before what is about a test of it.
        let order =
            |line: &Line| file.tests.iter().position(|(name, _)| *name == line.name).map(|index| index + 1);
        lines.sort_by_key(|line| (order(line), line.occurrence));
        text.push('\n');
        for line in lines {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests;
