//! Some files of the suite make up names as they go, or run a test as often as there is time for. This puts what they
//! report into a form that is the same in every run, so that it can be held against the catalogue.
//!
//! - integration/psync2 lays out replicas at random, and puts the layout and a load's size into names: the numbers
//!   become `?`. It does so in as many cycles as there is time for: the tests of a cycle count as often as in the catalogue, and
//!   all with the worst verdict of the reported ones.
//! - integration/psync2-reg kills links for twenty seconds: the same holds for its two kill tests.
//! - The files of sentinel name the port of a new master.

use crate::catalogue::SuiteFile;
use crate::output::{Output, Report, Verdict};

/// Beginnings and, where a number stands between, ends of names whose numbers are random.
const RANDOM_NAMES: [(&str, &str); 4] = [
    ("New master ", "New master ? role matches"),
    ("PSYNC2: [NEW LAYOUT] Set #", "PSYNC2: [NEW LAYOUT] Set #? as master"),
    ("PSYNC2: Set #", "PSYNC2: Set #? to replicate from #?"),
    ("PSYNC2: cluster is consistent after load (x = ", "PSYNC2: cluster is consistent after load (x = ?)"),
];

/// What the catalogue has as often as real Redis has come to it, in each file.
const CYCLE_COUNTS: [&str; 7] = [
    CYCLE,
    "PSYNC2: [NEW LAYOUT] Set #? as master",
    "PSYNC2: Set #? to replicate from #?",
    "PSYNC2: cluster is consistent after failover",
    "PSYNC2: generate load while killing replication links",
    "PSYNC2: cluster is consistent after load (x = ?)",
    "PSYNC2: total sum of full synchronizations is exactly 4",
];
const KILL_COUNTS: [&str; 2] =
    ["PSYNC2 #3899 regression: kill first replica", "PSYNC2 #3899 regression: kill chained replica"];

/// The beginning of names that end in the number of the cycle.
const CYCLE: &str = "PSYNC2: --- CYCLE ";

/// `output` with the random parts settled.
pub fn settle(file: &SuiteFile, mut output: Output) -> Output {
    match file.name.as_str() {
        "integration/psync2" => {
            output.reports = settle_counts(file, settle_names(output.reports), &CYCLE_COUNTS);
        }
        "integration/psync2-reg" => output.reports = settle_counts(file, output.reports, &KILL_COUNTS),
        _ if file.is_of_sentinel() => output.reports = settle_names(output.reports),
        _ => {}
    }
    output
}

fn settle_names(reports: Vec<Report>) -> Vec<Report> {
    let mut settled: Vec<Report> = Vec::with_capacity(reports.len());
    for report in reports {
        let form = RANDOM_NAMES.iter().find(|(beginning, _)| report.name.starts_with(beginning));
        let name = form.map_or(report.name, |(_, form)| (*form).to_owned());
        let occurrence = settled.iter().filter(|other| other.name == name).count() as u32 + 1;
        settled.push(Report { name, occurrence, verdict: report.verdict });
    }
    settled
}

/// `counted`: the names, or what they begin with, that count as often as in the catalogue.
fn settle_counts(file: &SuiteFile, reports: Vec<Report>, counted: &[&str]) -> Vec<Report> {
    let is_of = |name: &str, counted: &str| name == counted || counted == CYCLE && name.starts_with(CYCLE);
    let (mut random, mut settled): (Vec<Report>, Vec<Report>) =
        reports.into_iter().partition(|report| counted.iter().any(|name| is_of(&report.name, name)));
    // The worst first; a test that was never reached stays missing.
    random.sort_by_key(|report| match report.verdict {
        Verdict::Failed(_) => 0,
        Verdict::Hung => 1,
        Verdict::PassedOver => 2,
        Verdict::Passed => 3,
    });
    for counted in counted {
        let Some(worst) = random.iter().find(|report| is_of(&report.name, counted)) else { continue };
        for (name, occurrences) in file.tests.iter().filter(|(name, _)| is_of(name, counted)) {
            let one = |occurrence| Report { name: name.clone(), occurrence, verdict: worst.verdict.clone() };
            settled.extend((1..=*occurrences).map(one));
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::expect::FileExpectations;
    use crate::judge::judge;
    use crate::output::parse;

    fn judged(name: &str, text: &str) -> (u32, u32, u32) {
        let catalogue = Catalogue::load().unwrap();
        let file = catalogue.file(name).unwrap();
        let counts = judge(file, &FileExpectations::default(), &settle(file, parse(text))).counts;
        (counts.passed, counts.failed, counts.not_run)
    }

    #[test]
    fn random_numbers_in_names_become_one_name_and_a_cycle_stands_for_all() {
        let text = "[ok]: PSYNC2: [NEW LAYOUT] Set #3 as master (1 ms)\n\
                    [ok]: PSYNC2: Set #0 to replicate from #3 (1 ms)\n\
                    [err]: PSYNC2: Set #4 to replicate from #0 in tests/integration/psync2.tcl\n\
                    [ok]: PSYNC2: cluster is consistent after load (x = 245764) (1 ms)\n\
                    [ok]: PSYNC2: --- CYCLE 2 --- (0 ms)\n";

        assert_eq!(judged("integration/psync2", text), (15, 20, 17));
        let seventh =
            "[ok]: PSYNC2: --- CYCLE 7 --- (0 ms)\n[ok]: PSYNC2: Set #0 to replicate from #3 (1 ms)\n";
        assert_eq!(judged("integration/psync2", &seventh.repeat(21)), (25, 0, 27));
    }

    #[test]
    fn a_new_master_has_no_port() {
        let catalogue = Catalogue::load().unwrap();
        let file = catalogue.file("sentinel/05-manual").unwrap();
        let text = "12:30:59> New master 127.0.0.1:30002 role matches: OK\n";
        let output = settle(file, crate::sentinel::parse(text));

        let counts = judge(file, &FileExpectations::default(), &output).counts;
        assert_eq!((counts.passed, counts.failed, counts.not_run), (1, 0, 10));
    }

    #[test]
    fn a_test_that_runs_as_often_as_it_can_counts_as_in_the_catalogue() {
        let kill = "[ok]: PSYNC2 #3899 regression: kill first replica (1 ms)\n";
        let failed =
            "[err]: PSYNC2 #3899 regression: kill first replica in tests/integration/psync2-reg.tcl\n";

        assert_eq!(judged("integration/psync2-reg", &kill.repeat(2)), (6, 0, 13));
        assert_eq!(judged("integration/psync2-reg", &kill.repeat(9)), (6, 0, 13));
        assert_eq!(judged("integration/psync2-reg", &format!("{kill}{failed}{kill}")), (0, 6, 13));
        assert_eq!(judged("integration/psync2-reg", ""), (0, 0, 19));
    }
}
