//! LATENCY, and what the latency monitor records, with a clock that only sleeping commands move.

use super::{Server, bulk, on_one_and_three_shards};

/// The events of LATENCY LATEST: name, last sample and worst one in milliseconds.
fn latest(server: &mut Server) -> Vec<(String, u64, u64)> {
    let reply = server.call("LATENCY LATEST");
    let lines: Vec<&str> = reply.lines().skip(1).collect();
    let number = |line: &str| line[1..].parse::<u64>().expect("an integer");
    lines.chunks(6).map(|event| (event[2].to_owned(), number(event[4]), number(event[5]))).collect()
}

#[test]
fn slow_commands_are_recorded_from_the_threshold_on() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("DEBUG SLEEP 0.3", "+OK"),
            ("LATENCY LATEST", "*0"),
            ("CONFIG SET latency-monitor-threshold 200", "+OK"),
            ("DEBUG SLEEP 0.199", "+OK"),
            ("LATENCY LATEST", "*0"),
            ("DEBUG SLEEP 0.3", "+OK"),
        ]);
        let first_s = server.cluster.now_ms() / 1000;
        server.wait_ms(1100);
        server.expect(&[("DEBUG SLEEP 0.5", "+OK"), ("DEBUG SLEEP 0.2", "+OK")]);
        let history = server.call("LATENCY HISTORY command");
        assert!(history.starts_with(&format!("*2\r\n*2\r\n:{first_s}\r\n:300\r\n*2\r\n:")), "{history}");
        server.wait_ms(1100);
        server.expect(&[("DEBUG SLEEP 0.25", "+OK")]);
        assert_eq!(latest(server), [("command".to_owned(), 250, 500)]);
        let graph = server.call("LATENCY GRAPH command");
        assert!(graph.contains("command - high 500 ms, low 250 ms (all time high 500 ms)\n"), "{graph}");
        assert!(server.call("LATENCY DOCTOR").contains("1. command: 3 latency spikes (average "));

        server.expect(&[
            ("LATENCY HISTORY Command", "*0"),
            ("LATENCY GRAPH nosuch", "-ERR No samples available for event 'nosuch'"),
            ("LATENCY RESET nosuch", ":0"),
            ("LATENCY RESET nosuch COMMAND", ":1"),
            ("LATENCY LATEST", "*0"),
            ("LATENCY RESET", ":0"),
        ]);
    });
}

#[test]
fn the_slow_log_and_the_monitor_have_thresholds_of_their_own() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("CONFIG SET latency-monitor-threshold 100 slowlog-log-slower-than 300000", "+OK"),
            ("DEBUG SLEEP 0.2", "+OK"),
            ("SLOWLOG LEN", ":0"),
            ("CONFIG SET latency-monitor-threshold 1000", "+OK"),
            ("DEBUG SLEEP 0.4", "+OK"),
            ("SLOWLOG LEN", ":1"),
        ]);
        assert_eq!(latest(server), [("command".to_owned(), 200, 200)]);
    });
}

#[test]
fn commands_within_a_transaction_and_the_exec_are_recorded() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("CONFIG SET latency-monitor-threshold 100", "+OK"),
            ("MULTI", "+OK"),
            ("DEBUG SLEEP 0.2", "+QUEUED"),
            ("EXEC", "*1\r\n+OK"),
        ]);
        assert_eq!(latest(server), [("command".to_owned(), 200, 200)]);
        server.expect(&[("LATENCY HISTORY fast-command", "*0")]);
    });
}

#[test]
fn histograms_are_of_the_commands_that_have_run() {
    on_one_and_three_shards(|server| {
        let of = |name: &str, calls: u32, usec: u32| {
            format!(
                "{}\r\n*4\r\n{}\r\n:{calls}\r\n{}\r\n*2\r\n:{usec}\r\n:{calls}",
                bulk(name),
                bulk("calls"),
                bulk("histogram_usec")
            )
        };
        server.expect(&[
            ("CONFIG SET latency-tracking yes", "+OK"),
            ("CONFIG RESETSTAT", "+OK"),
            ("LATENCY HISTOGRAM", &format!("*2\r\n{}", of("config|resetstat", 1, 1))),
            ("SET a 1", "+OK"),
            ("SET b 2", "+OK"),
            ("SET c 3", "+OK"),
            ("DEBUG SLEEP 0.05", "+OK"),
        ]);
        server.call("CLIENT ID");
        server.call("CLIENT GETNAME");
        server.expect(&[
            ("LATENCY HISTOGRAM Set nosuch zadd", &format!("*2\r\n{}", of("set", 3, 1))),
            ("LATENCY HISTOGRAM debug", &format!("*2\r\n{}", of("debug", 1, 67_633))),
            (
                "LATENCY HISTOGRAM client",
                &format!("*4\r\n{}\r\n{}", of("client|getname", 1, 1), of("client|id", 1, 1)),
            ),
            ("LATENCY HISTOGRAM client|id", &format!("*2\r\n{}", of("client|id", 1, 1))),
            ("LATENCY HISTOGRAM nosuch", "*0"),
            ("CONFIG SET latency-tracking no", "+OK"),
            ("CONFIG RESETSTAT", "+OK"),
            ("GET a", &bulk("1")),
            ("LATENCY HISTOGRAM", "*0"),
        ]);
    });
}
