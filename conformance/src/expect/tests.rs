//! Which lines an expectations file may have, and what they say about a test.

use super::*;

fn catalogue() -> Catalogue {
    let files = "unit/expire\t16\nunit/type/zset\t18\n";
    let names =
        "unit/expire\tonce\t1\nunit/expire\ttwice\t2\nunit/expire\t/slash [x]\t1\nunit/type/zset\tZADD\t1\n";
    Catalogue::parse(files, names).unwrap()
}

fn parse(text: &str) -> Result<Expectations> {
    Expectations::parse("expectations.tsv", text, &catalogue())
}

fn trouble(text: &str) -> String {
    parse(text).expect_err(text).0
}

fn of_expire(text: &str, shard_count: u32) -> FileExpectations {
    parse(text).unwrap().of_file(catalogue().file("unit/expire").unwrap(), shard_count, false)
}

#[test]
fn a_test_without_a_line_is_expected_to_pass() {
    let expected = of_expire("unit/expire\ttwice\t2\t*\tfail\tnot-yet: SYNC\n", 1);

    assert_eq!(expected.of_test("once", 1), None);
    assert_eq!(expected.of_test("twice", 1), None);
    assert_eq!(expected.of_test("twice", 2).unwrap().kind, Kind::Fail);
}

#[test]
fn a_star_stands_for_every_occurrence() {
    let expected = of_expire("unit/expire\ttwice\t*\t*\tskip\tnot-yet: SYNC\n", 1);

    assert_eq!(expected.of_test("twice", 1), expected.of_test("twice", 2));
    assert_eq!(expected.of_test("once", 1), None);
}

#[test]
fn a_line_holds_for_its_shard_counts_only() {
    let text = "unit/expire\tonce\t1\t2+\tfail\tnot-yet: x\n";

    assert!(of_expire(text, 1).of_test("once", 1).is_none());
    assert!(of_expire(text, 2).of_test("once", 1).is_some());
    assert!(of_expire(text, 64).of_test("once", 1).is_some());
    assert!(of_expire("unit/expire\tonce\t1\t1\tfail\tnot-yet: x\n", 2).of_test("once", 1).is_none());
}

#[test]
fn a_whole_file_line_is_about_no_test() {
    let expectations = parse("unit/type/zset\t*\t*\t*\tskip\tnot-yet: sorted sets\n").unwrap();
    let zset = expectations.of_file(catalogue().file("unit/type/zset").unwrap(), 1, false);

    assert_eq!(zset.whole_file_skip().unwrap().reason, "not-yet: sorted sets");
    assert_eq!(zset.of_test("ZADD", 1), None);
    assert_eq!(zset.skipfile(), "");
    assert!(zset.without_skips().whole_file_skip().is_none());
}

#[test]
fn the_skip_file_escapes_what_the_suite_would_take_for_a_pattern() {
    let text = "unit/expire\tonce\t1\t*\tskip\tnot-yet: x\nunit/expire\t/slash [x]\t1\t*\tskip\tnot-yet: x\n";

    assert_eq!(of_expire(text, 1).skipfile(), "once\n/^\\/slash\\ \\[x\\]$\n");
}

#[test]
fn only_skip_lines_reach_the_skip_file() {
    let text =
        "unit/expire\tonce\t1\t*\tfail\tnot-yet: x\nunit/expire\tneeds:repl\t*\t*\tdeny-tag\tnot-yet: SYNC\n";
    let expected = of_expire(text, 1);

    assert_eq!(expected.skipfile(), "");
    assert_eq!(
        expected.of_kind(Kind::DenyTag).map(|line| line.name.as_str()).collect::<Vec<_>>(),
        ["needs:repl"]
    );
}

#[test]
fn the_reason_comes_from_the_closed_set() {
    let line = |reason: &str| format!("unit/expire\tonce\t1\t*\tfail\t{reason}\n");

    for reason in ["not-yet: SYNC", "fork-model: x", "allocator: x", "tls: x", "large-memory", UNEXPLAINED] {
        parse(&line(reason)).unwrap();
    }
    for reason in
        ["", "because", "not-yet:", "not-yet: ", "not-yet", "large-memory, really", "unexplained: x"]
    {
        assert!(trouble(&line(reason)).contains("is no reason"), "{reason:?} was taken");
    }
    parse("unit/expire\tonce\t1\t*\tretry\tflaky-timing: x\n").unwrap();
    assert!(trouble("unit/expire\tonce\t1\t*\tretry\tnot-yet: x\n").contains("only flaky-timing"));
}

#[test]
fn a_line_must_be_about_something_that_exists() {
    assert!(trouble("unit/nope\tx\t1\t*\tfail\tnot-yet: x\n").contains("no file unit/nope"));
    assert!(trouble("unit/expire\tnope\t1\t*\tfail\tnot-yet: x\n").contains("has no test"));
    assert!(trouble("unit/expire\tonce\t2\t*\tfail\tnot-yet: x\n").contains("occurs 1 times"));
    assert!(trouble("unit/expire\tonce\t0\t*\tfail\tnot-yet: x\n").contains("occurs 1 times"));
    assert!(trouble("unit/expire\ttwice\t1\t*\tskip\tnot-yet: x\n").contains("OCCURRENCE must be *"));
    assert!(trouble("unit/expire\t*\t1\t*\tskip\tnot-yet: x\n").contains("every occurrence"));
}

#[test]
fn two_lines_about_one_test_are_refused() {
    let first = "unit/expire\ttwice\t1\t1\tfail\tnot-yet: x\n";

    parse(&format!("{first}unit/expire\ttwice\t1\t2+\tskip\tnot-yet: x\n"))
        .expect_err("skip of one occurrence");
    parse(&format!("{first}unit/expire\ttwice\t1\t2+\tfail\tnot-yet: y\n")).unwrap();
    parse(&format!("{first}unit/expire\ttwice\t2\t1\tfail\tnot-yet: y\n")).unwrap();
    assert!(
        trouble(&format!("{first}unit/expire\ttwice\t1\t*\tfail\tnot-yet: y\n")).contains("line already")
    );
    assert!(
        trouble(&format!("{first}unit/expire\ttwice\t*\t1\tfail\tnot-yet: y\n")).contains("line already")
    );
}

#[test]
fn a_malformed_line_is_named_by_its_number() {
    for line in ["unit/expire once 1 * fail x", "a\tb", "unit/expire\tonce\tx\t*\tfail\tnot-yet: x"] {
        assert!(trouble(&format!("# head\n\n{line}\n")).starts_with("expectations.tsv:3: "), "{line}");
    }
    assert!(trouble("unit/expire\tonce\t1\t3\tfail\tnot-yet: x\n").contains("*, 1 or 2+"));
    assert!(trouble("unit/expire\tonce\t1\t*\tpass\tnot-yet: x\n").contains("no kind"));
}

#[test]
fn a_line_is_written_as_it_was_read() {
    for line in [
        "unit/type/zset\t*\t*\t*\tskip\tnot-yet: sorted sets",
        "unit/expire\ttwice\t2\t2+\tfail\tallocator: x",
        "unit/expire\tneeds:repl\t*\t1\tdeny-tag\tnot-yet: SYNC",
        "unit/expire\tCan't start the Redis server\t*\t*\tblock\tnot-yet: append-only file",
    ] {
        assert_eq!(parse(&format!("{line}\n")).unwrap().lines[0].to_string(), line);
    }
}

#[test]
fn the_runner_of_sentinel_passes_nothing_over() {
    let catalogue = Catalogue::load().unwrap();
    let parse = |line: &str| Expectations::parse("expectations.tsv", line, &catalogue);
    let name = "(init) Restart killed instances";
    let file = "sentinel/05-manual";

    assert!(parse(&format!("{file}\t{name}\t1\t*\tfail\tnot-yet: failover\n")).is_ok());
    assert!(parse(&format!("{file}\t*\t*\t*\tskip\tnot-yet: failover\n")).is_ok());
    for line in [format!("{name}\t1\t*\tskip"), "slow\t*\t*\tdeny-tag".to_owned()] {
        let trouble = parse(&format!("{file}\t{line}\tnot-yet: failover\n")).unwrap_err();
        assert!(trouble.0.contains("cannot pass over"), "{trouble}");
    }
}

#[test]
fn the_committed_lists_hold_against_the_catalogue() {
    let catalogue = Catalogue::load().unwrap();

    let lists = [
        ("expectations.tsv", include_str!("../../expectations.tsv")),
        ("control.tsv", include_str!("../../control.tsv")),
    ];
    for (name, text) in lists {
        let problem = Expectations::parse(name, text, &catalogue).err();
        assert!(problem.is_none(), "{problem:?}");
    }
}
