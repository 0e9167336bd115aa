//! Every text here is what the harness of 7.0.15 printed, shortened.

use super::*;

fn report(name: &str, occurrence: u32, verdict: Verdict) -> Report {
    Report { name: name.to_owned(), occurrence, verdict }
}

#[test]
fn a_clean_file_is_read_to_its_end() {
    let output = parse(
        "Cleanup: may take some time... OK\n\
         Starting test server at port 21079\n\
         [ready]: 25206\n\
         Testing unit/quit\n\
         [ok]: QUIT returns OK (0 ms)\n\
         [ok]: Pipelined commands after QUIT (exceed) must not be executed (12 ms)\n\
         [1/1 done]: unit/quit (1 seconds)\n\
         \n                   The End\n\n\
         Execution time of different units:\n  1 seconds - unit/quit\n\n\
         \\o/ All tests passed without errors!\n\n\
         Cleanup: may take some time... OK\n",
    );

    assert_eq!(output.ending, Ending::Completed);
    assert_eq!(output.block_errors, []);
    assert_eq!(
        output.reports,
        [
            report("QUIT returns OK", 1, Verdict::Passed),
            report("Pipelined commands after QUIT (exceed) must not be executed", 1, Verdict::Passed),
        ]
    );
}

#[test]
fn a_failed_test_keeps_its_detail_and_is_not_counted_again_at_the_end() {
    let output = parse(
        "[ok]: SET and GET an item (0 ms)\n\
         [err]: No negative zero in tests/unit/type/incr.tcl\n\
         Expected '0' to equal or match '-0'\n\
         [ok]: After (1 ms)\n\
         [1/1 done]: unit/type/incr (1 seconds)\n\
         \n                   The End\n\n\
         !!! WARNING The following tests failed:\n\n\
         *** [err]: No negative zero in tests/unit/type/incr.tcl\n\
         Expected '0' to equal or match '-0'\n",
    );

    assert_eq!(output.ending, Ending::Completed);
    assert_eq!(
        output.reports,
        [
            report("SET and GET an item", 1, Verdict::Passed),
            report("No negative zero", 1, Verdict::Failed("Expected '0' to equal or match '-0'".into())),
            report("After", 1, Verdict::Passed),
        ]
    );
}

#[test]
fn an_error_in_a_durable_test_carries_its_trace() {
    // The message has lost its first ten characters: the harness takes them for "assertion:".
    let output = parse(
        "[err]: MGET against non-string key in tests/unit/type/string.tcl\n\
         n command 'sadd', with args beginning with: 'myset{t}' 'ciao' \n\
         ERR unknown command 'sadd', with args beginning with: 'myset{t}' 'ciao' \n\
         \x20   while executing\n\
         \"r sadd myset{t} ciao\"\n\
         [ok]: GETSET (set new value) (0 ms)\n",
    );

    let Verdict::Failed(detail) = &output.reports[0].verdict else { panic!("{output:?}") };
    assert_eq!(output.reports[0].name, "MGET against non-string key");
    assert!(detail.ends_with("\"r sadd myset{t} ciao\""));
    assert_eq!(output.reports[1], report("GETSET (set new value)", 1, Verdict::Passed));
}

#[test]
fn occurrences_of_a_name_are_counted_whatever_their_verdict() {
    let output = parse(
        "[ok]: EXPIRE with unsupported options (0 ms)\n\
         [err]: EXPIRE with unsupported options in tests/unit/expire.tcl\n\
         Expected x\n\
         [skip]: EXPIRE with unsupported options\n",
    );

    let seen: Vec<_> = output.reports.iter().map(|report| (report.occurrence, &report.verdict)).collect();
    assert_eq!(
        seen,
        [(1, &Verdict::Passed), (2, &Verdict::Failed("Expected x".into())), (3, &Verdict::PassedOver)]
    );
}

#[test]
fn an_exception_ends_the_file() {
    let output = parse(
        "[ok]: PING (0 ms)\n\
         [exception]: Executing test client: assertion:Replication not started..\n\
         assertion:Replication not started.\n\
         \x20   while executing\n\
         \"error $error $backtrace\"\n\
         Killing still running Redis server 4711\n",
    );

    let Ending::Exception(message) = &output.ending else { panic!("{output:?}") };
    assert!(message.starts_with("Executing test client: assertion:Replication not started.."));
    assert_eq!(output.reports, [report("PING", 1, Verdict::Passed)]);
}

#[test]
fn a_hung_test_is_named_by_the_clients_state() {
    let output = parse(
        "[ok]: PING (0 ms)\n\
         [TIMEOUT]: clients state report follows.\n\
         sock55d1c7ad8b40 => (IN PROGRESS) Test write commands are paused by RO\n\
         Killing still running Redis server 4711\n\
         \n                   The End\n\n",
    );

    assert_eq!(output.ending, Ending::NoProgress);
    assert_eq!(output.reports[1], report("Test write commands are paused by RO", 1, Verdict::Hung));
}

#[test]
fn a_hang_between_tests_names_none() {
    let output = parse(
        "[ok]: PING (0 ms)\n\
         [TIMEOUT]: clients state report follows.\n\
         sock55d1c7ad8b40 => (OK) PING\n",
    );

    assert_eq!((output.ending, output.reports.len()), (Ending::NoProgress, 1));
}

#[test]
fn what_is_passed_over_is_told_from_a_block_that_is() {
    let output = parse(
        "[ignore]: XADD one huge field: large memory flag not provided\n\
         [ignore]: Test when replica paused: with a colon: Tag: needs:repl denied\n\
         [ignore]: Tag: needs:repl denied\n\
         [ignore]: large memory flag not provided\n\
         [skip]: MASTERAUTH test with binary password\n\
         [1/1 done]: unit/violations (1 seconds)\n",
    );

    let names: Vec<_> = output.reports.iter().map(|report| report.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "XADD one huge field",
            "Test when replica paused: with a colon",
            "MASTERAUTH test with binary password"
        ]
    );
    assert!(output.reports.iter().all(|report| report.verdict == Verdict::PassedOver));
    assert_eq!(output.ending, Ending::Completed);
}

#[test]
fn an_error_outside_any_test_is_no_test() {
    let output = parse(
        "[err]: Can't start the Redis server\n\
         CONFIGURATION:always-show-logo yes\n\
         ERROR:\n\
         [ok]: PING (0 ms)\n\
         [1/1 done]: unit/expire (3 seconds)\n",
    );

    let expected =
        ("Can't start the Redis server".to_owned(), "CONFIGURATION:always-show-logo yes\nERROR:".to_owned());
    assert_eq!(output.block_errors, [expected]);
    assert_eq!(output.reports, [report("PING", 1, Verdict::Passed)]);
    assert_eq!(output.ending, Ending::Completed);
}

#[test]
fn output_that_just_stops_is_cut_off() {
    assert_eq!(parse("").ending, Ending::CutOff);
    assert_eq!(parse("Starting test server at port 21079\n[ok]: PING (0 ms)\n").ending, Ending::CutOff);
    assert_eq!(parse("couldn't open socket: address already in use\n").ending, Ending::CutOff);
}

#[test]
fn a_name_may_look_like_the_grammar() {
    let output = parse(
        "[ok]: SORT speed, 100 element list BY key, 100 times (13 ms)\n\
         [ok]: Fixed in tests/unit/a.tcl b (2 ms)\n\
         [err]: a [ok]: b in tests/unit/x.tcl in tests/unit/y.tcl\n\
         [ok]: (5 ms) (6 ms)\n",
    );

    let names: Vec<_> = output.reports.iter().map(|report| report.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "SORT speed, 100 element list BY key, 100 times",
            "Fixed in tests/unit/a.tcl b",
            "a [ok]: b in tests/unit/x.tcl",
            "(5 ms)"
        ]
    );
}
