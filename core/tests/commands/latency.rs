//! LATENCY, and what the latency monitor records, with a clock that only sleeping commands move.

use super::cluster::request_bytes;
use super::{Server, bulk, on_one_and_three_shards};
use shardis_core::runtime::driver::{ConnId, Events};
use shardis_core::shard::slot::shard_of;
use shardis_core::worker::Worker;

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

/// Batches of one kind of command that come one behind the other are timed together, and then all are counted.
#[test]
fn every_command_of_every_batch_of_a_turn_is_counted_once() {
    let mut server = Server::new(2);
    let key =
        (0..).map(|number| format!("key:{number}")).find(|key| shard_of(key.as_bytes(), 2) == 0).unwrap();
    let [other, home] = &mut server.cluster.workers[..] else { panic!("two shards") };
    let long = "x".repeat(20 << 10);
    // Each line is a batch.
    let batches: &[&[&[&str]]] = &[
        &[&["get", &key], &["get", &key]],
        &[&["get", &key]],
        &[&["set", &key, "1"]],
        &[&["set", &key, "2"], &["get", &key]],
        &[&["get", &key]],
        &[&["set", &key, &long]],
        &[&["get", &key]],
        &[&["get", &key]],
        &[&["mget", &key, &key]],
        &[&["get", &key]],
        &[&["set", &key, "3"]],
    ];
    let before: Vec<u64> = ["get", "set", "mget"].map(|name| counted(other, name)).into();

    let mut inbox = Vec::new();
    for batch in batches {
        home.before_wait();
        home.begin_turn();
        let bytes: Vec<u8> = batch.iter().flat_map(|request| request_bytes(request)).collect();
        home.received(ConnId::new(0, 0), &bytes);
        home.end_turn();
        inbox.extend(home.outbox.drain().map(|(_, message)| (1, message)));
    }
    assert_eq!(inbox.len(), batches.len());
    let processed = other.shard.stats.commands_processed.get();
    other.before_wait();
    other.begin_turn();
    other.deliver_all(&mut inbox);

    let after: Vec<u64> = ["get", "set", "mget"].map(|name| counted(other, name)).into();
    assert_eq!(
        after.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<_>>(),
        [8, 4, 1]
    );
    assert_eq!(other.shard.stats.commands_processed.get() - processed, 13);
}

/// How many calls of a command a shard has counted.
fn counted(worker: &Worker, name: &str) -> u64 {
    let id = worker.table.lookup(name.as_bytes()).expect("the table has it").id;
    worker.shard.stats.command(id).calls.get()
}
