//! What becomes of a line when its test turns out otherwise.

use std::path::PathBuf;

use super::*;
use crate::expect::FileExpectations;
use crate::judge::Judgement;
use crate::output;
use crate::run::{Configuration, Job};

const NAMES: &str = "unit/a\tone\t1\nunit/a\ttwo\t2\nunit/b\tthree\t1\n";

fn catalogue() -> Catalogue {
    Catalogue::parse("unit/a\t1\nunit/b\t1\n", NAMES).unwrap()
}

/// The lines of `list` after unit/a did what `text` says, with `shard_count` shards.
fn updated(list: &str, text: &str, shard_count: u32) -> String {
    let catalogue = catalogue();
    let mut expectations = Expectations::parse("e", list, &catalogue).unwrap();
    let job = Job {
        file: catalogue.file("unit/a").unwrap().clone(),
        configuration: Configuration {
            shard_count: Some(shard_count),
            io_backend: None,
            tls: false,
            loaded_modules: None,
        },
        expected: FileExpectations::default(),
    };
    let output = Some((output::parse(text), PathBuf::new()));
    let done =
        Done { job, judgement: Judgement::default(), at_first: Vec::new(), secs: 0.0, attempts: 1, output };
    update(&mut expectations, &done, shard_count);
    let text = to_tsv(&expectations, list, &catalogue);
    // What is written has to be readable.
    Expectations::parse("e", &text, &catalogue).unwrap();
    text.trim_start().to_owned()
}

const ONE_FAILED: &str = "[err]: one in tests/unit/a.tcl\n[ok]: two (0 ms)\n[ok]: two (0 ms)\n";
const ALL_PASSED: &str = "[ok]: one (0 ms)\n[ok]: two (0 ms)\n[ok]: two (0 ms)\n";

#[test]
fn a_new_failure_is_listed_unexplained() {
    assert_eq!(updated("", ONE_FAILED, 1), "unit/a\tone\t1\t1\tfail\tunexplained\n");
    assert_eq!(updated("", ONE_FAILED, 4), "unit/a\tone\t1\t2+\tfail\tunexplained\n");
}

#[test]
fn a_failure_at_every_shard_count_becomes_one_line() {
    let once = updated("", ONE_FAILED, 1);

    assert_eq!(updated(&once, ONE_FAILED, 2), "unit/a\tone\t1\t*\tfail\tunexplained\n");
}

#[test]
fn what_stays_true_keeps_its_reason() {
    let list = "unit/a\tone\t1\t*\tfail\tnot-yet: x\n";

    assert_eq!(updated(list, ONE_FAILED, 1), list);
}

#[test]
fn a_test_that_passes_loses_its_line() {
    assert_eq!(updated("unit/a\tone\t1\t1\tfail\tnot-yet: x\n", ALL_PASSED, 1), "");
    assert_eq!(updated("unit/a\ttwo\t*\t1\tskip\tnot-yet: x\n", ALL_PASSED, 1), "");
}

#[test]
fn a_test_that_passes_at_one_shard_count_keeps_the_others() {
    let list = "unit/a\tone\t1\t*\tfail\tnot-yet: x\n";

    assert_eq!(updated(list, ALL_PASSED, 1), "unit/a\tone\t1\t2+\tfail\tnot-yet: x\n");
    assert_eq!(updated(list, ALL_PASSED, 2), "unit/a\tone\t1\t1\tfail\tnot-yet: x\n");
}

#[test]
fn a_hung_test_is_passed_over_from_then_on() {
    let text = "[TIMEOUT]: clients state report follows.\nsock1 => (IN PROGRESS) two\n";

    assert_eq!(updated("", text, 1), "unit/a\ttwo\t*\t1\tskip\tunexplained\n");
}

#[test]
fn a_file_that_was_started_is_no_longer_listed_as_a_whole() {
    let list = "unit/a\t*\t*\t*\tskip\tnot-yet: x\n";

    assert_eq!(updated(list, ONE_FAILED, 1), "unit/a\tone\t1\t1\tfail\tunexplained\n");
}

#[test]
fn tests_that_did_not_report_and_other_files_are_left_alone() {
    let list = "# head\n\nunit/a\tneeds:repl\t*\t*\tdeny-tag\tnot-yet: x\nunit/a\tone\t1\t*\tskip\tnot-yet: x\n\n\
                unit/b\tthree\t1\t*\tfail\tnot-yet: y\n";

    assert_eq!(updated(list, "[skip]: one\n", 1), list);
}
