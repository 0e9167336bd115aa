//! Each way in which a run can differ from what is expected of it.

use super::*;
use crate::catalogue::Catalogue;
use crate::expect::Expectations;
use crate::output;

const NAMES: &str = "unit/x\tone\t1\nunit/x\ttwo\t2\n";
const PASSED: &str = "[ok]: one (0 ms)\n[ok]: two (0 ms)\n[ok]: two (0 ms)\n[1/1 done]: unit/x (1 seconds)\n";

/// Judges `text` as the output of a file with the tests `one` (once) and `two` (twice).
fn judged(lines: &str, text: &str) -> Judgement {
    let catalogue = Catalogue::parse("unit/x\t1\n", NAMES).unwrap();
    let file = catalogue.file("unit/x").unwrap();
    let expected = Expectations::parse("e", lines, &catalogue).unwrap().of_file(file, 1, false);
    judge(file, &expected, &output::parse(text))
}

fn counts(judgement: &Judgement) -> (u32, u32, u32) {
    let Counts { passed, failed, not_run } = judgement.counts;
    (passed, failed, not_run)
}

fn whats(judgement: &Judgement) -> Vec<What> {
    judgement.problems.iter().map(|problem| problem.what.clone()).collect()
}

#[test]
fn all_passing_is_clean() {
    let judgement = judged("", PASSED);

    assert_eq!((counts(&judgement), whats(&judgement)), ((3, 0, 0), vec![]));
}

#[test]
fn an_unlisted_failure_is_a_problem() {
    let text = PASSED.replace("[ok]: one (0 ms)", "[err]: one in tests/unit/x.tcl\nExpected 1");
    let judgement = judged("", &text);

    assert_eq!((counts(&judgement), whats(&judgement)), ((2, 1, 0), vec![What::UnexpectedFailure]));
    assert_eq!(judgement.problems[0].test, Some(("one".to_owned(), 1)));
    assert_eq!(judgement.problems[0].detail, "Expected 1");
    assert!(judgement.worth_retrying, "another run may pass");
}

#[test]
fn a_listed_failure_is_counted_and_is_no_problem() {
    let text = PASSED.replace("[ok]: one (0 ms)", "[err]: one in tests/unit/x.tcl\nExpected 1");
    let judgement = judged("unit/x\tone\t1\t*\tfail\tnot-yet: x\n", &text);

    assert_eq!((counts(&judgement), whats(&judgement)), ((2, 1, 0), vec![]));
    assert_eq!(judgement.expected_failures, 1);
}

#[test]
fn a_listed_failure_that_passes_is_a_problem() {
    let judgement = judged("unit/x\ttwo\t2\t*\tfail\tnot-yet: x\n", PASSED);

    assert_eq!(counts(&judgement), (3, 0, 0));
    assert_eq!(whats(&judgement), [What::UnexpectedPass("not-yet: x".into())]);
    assert_eq!(judgement.problems[0].test, Some(("two".to_owned(), 2)));
}

#[test]
fn a_test_that_never_reports_is_not_run_and_a_problem() {
    let judgement = judged("", &PASSED.replacen("[ok]: two (0 ms)\n", "", 1));

    assert_eq!((counts(&judgement), whats(&judgement)), ((2, 0, 1), vec![What::Missing]));
}

#[test]
fn a_skipped_test_is_not_run_and_no_problem() {
    let text = PASSED.replace("[ok]: two (0 ms)", "[skip]: two");
    let judgement = judged("unit/x\ttwo\t*\t*\tskip\tnot-yet: x\n", &text);

    assert_eq!((counts(&judgement), whats(&judgement)), ((1, 0, 2), vec![]));
}

#[test]
fn a_skipped_test_that_runs_is_a_problem() {
    let line = "unit/x\tone\t1\t*\tskip\tnot-yet: x\n";
    let failed = PASSED.replace("[ok]: one (0 ms)", "[err]: one in tests/unit/x.tcl");

    assert_eq!(whats(&judged(line, PASSED)), [What::UnexpectedPass("not-yet: x".into())]);
    assert_eq!(whats(&judged(line, &failed)), [What::NotPassedOver]);
}

#[test]
fn a_hang_is_a_problem_even_where_a_failure_is_expected() {
    let text = "[TIMEOUT]: clients state report follows.\nsock1 => (IN PROGRESS) one\n";
    let judgement = judged("unit/x\tone\t1\t*\tfail\tnot-yet: x\n", text);

    assert_eq!(counts(&judgement), (0, 1, 2));
    assert_eq!(whats(&judgement), [What::Hung, What::Missing, What::Missing, What::Aborted]);
}

#[test]
fn an_unknown_name_is_a_problem_and_counts_nowhere() {
    let judgement = judged("", &format!("[ok]: three (0 ms)\n[ok]: one (0 ms)\n{PASSED}"));

    assert_eq!(counts(&judgement), (3, 0, 0));
    assert_eq!(whats(&judgement), [What::UnknownName, What::UnknownName]);
    assert_eq!(judgement.problems[1].test, Some(("one".to_owned(), 2)));
}

#[test]
fn what_the_suite_passes_over_by_itself_is_no_unknown_name() {
    let judgement = judged("", &format!("[ignore]: big: large memory flag not provided\n{PASSED}"));

    assert_eq!(whats(&judgement), []);
}

#[test]
fn an_error_outside_any_test_must_be_listed_and_must_occur() {
    let line = "unit/x\tCan't start the Redis server\t*\t*\tblock\tnot-yet: append-only file\n";
    let text = format!("[err]: Can't start the Redis server\nCONFIGURATION:x\n{PASSED}");

    assert_eq!(whats(&judged("", &text)), [What::BlockError]);
    assert_eq!(whats(&judged(line, &text)), []);
    assert_eq!(whats(&judged(line, PASSED)), [What::NoBlockError("not-yet: append-only file".into())]);
}

#[test]
fn an_aborted_file_is_a_problem_beside_its_missing_tests() {
    let judgement =
        judged("", "[ok]: one (0 ms)\n[exception]: Executing test client: key \"pid\" not known.\n");

    assert_eq!(counts(&judgement), (1, 0, 2));
    assert_eq!(whats(&judgement), [What::Missing, What::Missing, What::Aborted]);
}

#[test]
fn a_file_may_end_at_an_error_outside_any_test_that_is_listed() {
    let skips = "unit/x\ttwo\t*\t*\tskip\tnot-yet: replication\n";
    let line = format!("unit/x\tunknown command 'replicaof'*\t*\t*\tends\tnot-yet: replication\n{skips}");
    let text = "[ok]: one (0 ms)\n[err]: unknown command 'replicaof', with args beginning with: '127.0.0.1'\n\
                [exception]: Executing test client: key \"pid\" not known.\n";

    let judgement = judged(&line, text);
    assert_eq!((counts(&judgement), whats(&judgement)), ((1, 0, 2), vec![]));
    assert_eq!(whats(&judged(skips, text)), [What::BlockError, What::Aborted]);
    let without_error = "[ok]: one (0 ms)\n[exception]: Executing test client: key \"pid\" not known.\n";
    assert_eq!(whats(&judged(&line, without_error)), [What::NoBlockError("not-yet: replication".into())]);
}

#[test]
fn no_result_at_all_is_the_harness_fault() {
    let judgement = judged("", "couldn't open socket: address already in use\n");

    assert_eq!(counts(&judgement), (0, 0, 3));
    assert_eq!(whats(&judgement).last(), Some(&What::Infrastructure));
}

#[test]
fn what_another_run_may_not_have_is_worth_another_run() {
    let line = "unit/x\tone\t1\t*\tretry\tflaky-timing: a tenth of a second\n";
    let one = PASSED.replace("[ok]: one (0 ms)", "[err]: one in tests/unit/x.tcl");
    let both = one.replacen("[ok]: two (0 ms)", "[err]: two in tests/unit/x.tcl", 1);
    let is_retry = |text: &str| -> Vec<bool> {
        judged(line, text).problems.iter().map(|problem| problem.is_retry).collect()
    };

    assert!(judged(line, &one).worth_retrying);
    assert_eq!(whats(&judged(line, &one)), [What::UnexpectedFailure]);
    assert_eq!(is_retry(&one), [true]);
    assert!(judged(line, &both).worth_retrying);
    assert_eq!(is_retry(&both), [true, false]);
    assert!(!judged(line, PASSED).worth_retrying);
    // A test that real Redis does not run is there in each run.
    assert!(!judged(line, &format!("{PASSED}[ok]: nobody knows this (0 ms)\n")).worth_retrying);
}

#[test]
fn a_line_without_a_reason_fails_the_run() {
    let text = PASSED.replace("[ok]: one (0 ms)", "[err]: one in tests/unit/x.tcl");

    assert_eq!(whats(&judged("unit/x\tone\t1\t*\tfail\tunexplained\n", &text)), [What::Unexplained]);
}

#[test]
fn a_file_that_is_not_started_is_not_run_in_whole() {
    let catalogue = Catalogue::parse("unit/x\t1\n", NAMES).unwrap();
    let file = catalogue.file("unit/x").unwrap();
    let judgement = |reason: &str| {
        let text = format!("unit/x\t*\t*\t*\tskip\t{reason}\n");
        let expected = Expectations::parse("e", &text, &catalogue).unwrap().of_file(file, 1, false);
        judge_not_started(file, expected.whole_file_skip().unwrap())
    };

    assert_eq!(counts(&judgement("not-yet: x")), (0, 0, 3));
    assert_eq!(whats(&judgement("not-yet: x")), []);
    assert_eq!(whats(&judgement("unexplained")), [What::Unexplained]);
}
