//! Coalesced pipelines: commands and transactions over several shards get the same replies as if each had run alone.

use super::Server;
use super::effects::Replica;
use crate::cluster::{Cluster, Random, request_bytes};

/// Requests, given as words, in RESP.
fn bytes_of<T: AsRef<str>>(requests: &[T]) -> Vec<u8> {
    let words = |request: &T| request_bytes(&request.as_ref().split(' ').collect::<Vec<_>>());
    requests.iter().flat_map(words).collect()
}

/// Sends requests in one piece, and returns the replies.
fn call_all<T: AsRef<str>>(server: &mut Server, requests: &[T]) -> String {
    let Server { cluster, client } = server;
    cluster.send(*client, &bytes_of(requests));
    cluster.settle();
    String::from_utf8(cluster.received(*client)).expect("text")
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn key(random: &mut Random) -> &'static str {
    KEYS[random.below(KEYS.len())]
}

/// A random command over one key or several, some of which fail.
fn command(random: &mut Random) -> String {
    let n = random.below(100);
    let (one, two, three) = (key(random), key(random), key(random));
    match random.below(32) {
        0..=3 => format!("SET {one} {n}"),
        4 | 5 => format!("GET {one}"),
        6 | 7 => format!("INCR {one}"),
        8 => format!("APPEND {one} x"),
        9 | 10 => format!("MGET {one} {two} {three}"),
        11 | 12 => format!("MSET {one} {n} {two} -{n} {three} {n}"),
        13 => format!("DEL {one} {two}"),
        14 => format!("EXISTS {one} {two} {three}"),
        15 => format!("MSETNX {one} {n} {two} {n}"),
        16 => format!("RENAME {one} {two}"),
        17 => format!("GETRANGE {one} 0 {two}"),
        18 => format!("MSET {one} {n} {two}"),
        19..=21 => format!("COPY {one} {two} REPLACE"),
        22 => format!("COPY {one} {two} DB 1"),
        23 => format!("RENAMENX {one} {two}"),
        24 => format!("SADD {one} {n} {}", n + 1),
        25 => format!("SMOVE {one} {two} {n}"),
        26 => format!("SUNIONSTORE {one} {two} {three}"),
        27 => format!("SCARD {one}"),
        28 => "PING".to_string(),
        29 => format!("PUBLISH {one} {n}"),
        _ => format!("MGET {one}"),
    }
}

/// A random program over several keys, which it declares or makes.
fn program(random: &mut Random) -> String {
    let n = random.below(100);
    let (one, two, three) = (key(random), key(random), key(random));
    match random.below(8) {
        0 => format!("TPROGRAM 2 {one} {two} / INCR {one} / APPEND {two} x"),
        1 => format!("TMADE 1 1 {one} {two} / GET {one} / SET {two} {n} / DEL {one}"),
        2 => format!("TMADE 2 0 {one} {two} / COPY {one} {two} REPLACE / TPUSH {one} p{n} / EXISTS {two}"),
        3 => format!("TPROGRAM 3 {one} {two} {three} / MSET {one} {n} {two} {n} / MGET {three} {one}"),
        4 => format!("TMADE 0 1 {one} / TPUSH {one} q / PUBLISH {one} {n}"),
        5 => format!("TMADE 2 1 {three} {one} {two} / TTAKE {three} / TPUSH {one} r / RENAME {one} {two}"),
        6 => format!("TWIDE 1 {one} / INCR {two}"),
        _ => format!("TPROGRAM 1 {one} / GET {two} / GET {one}"),
    }
}

/// A random request that cannot be part of a coalesced pipeline, or changes the state of the connection.
fn oddity(random: &mut Random) -> String {
    let words = [
        "MULTI",
        "EXEC",
        "DISCARD",
        "UNWATCH",
        "NONSENSE a",
        "GET",
        "EXEC now",
        "SELECT 1",
        "SELECT 0",
        "SELECT x",
        "PING",
        "DBSIZE",
        "RANDOMKEY x",
        "FLUSHALL",
        "CLIENT GETNAME",
        "CLIENT NONSENSE",
        "SWAPDB 0 1",
        "ECHO hello",
    ];
    match random.below(words.len() + 2) {
        at if at < words.len() => words[at].to_string(),
        _ => format!("WATCH {} {}", key(random), key(random)),
    }
}

/// A random pipeline: some have `oddities` among their requests, others have CLIENT REPLY between whole transactions.
fn pipeline(random: &mut Random, oddities: usize) -> Vec<String> {
    let mut requests = Vec::new();
    let modes = if oddities == 0 { &["OFF", "ON", "SKIP"][..random.below(2) * 3] } else { &[] };
    if oddities == 0 {
        // The pipeline before may have left a MULTI open.
        requests.push("DISCARD".to_string());
    }
    for _ in 0..1 + random.below(12) {
        if random.below(5) < modes.len() {
            requests.push(format!("CLIENT REPLY {}", modes[random.below(modes.len())]));
        }
        if random.below(3) > 0 {
            requests.push("MULTI".to_string());
            for _ in 0..random.below(7) {
                let odd = random.below(40) < oddities;
                requests.push(if odd { oddity(random) } else { command(random) });
            }
            requests.push("EXEC".to_string());
        }
        for _ in 0..random.below(4) {
            let odd = random.below(10) < oddities;
            requests.push(if odd { oddity(random) } else { command(random) });
        }
        if random.below(2) == 0 {
            requests.extend((0..1 + random.below(6)).map(|_| program(random)));
        }
    }
    requests
}

/// Cuts bytes at a few random places.
fn pieces<'a>(random: &mut Random, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = (0..random.below(4)).map(|_| random.below(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).filter(|piece| !piece.is_empty()).collect()
}

#[test]
fn a_client_is_served_in_the_midst_of_a_pipeline_with_commands_without_keys() {
    for shard_count in 2..5 {
        for home in 0..shard_count {
            let mut server = Server::new(shard_count);
            let other = server.cluster.connect(home);
            server.cluster.call(other, &["BTAKE", "l", "0"]);
            let replies =
                call_all(&mut server, &["MSET a 1 b 2 c 3 d 4", "TPUSH l 1", "PING", "PUBLISH x m"]);
            assert_eq!(replies, "+OK\r\n:1\r\n+PONG\r\n:0\r\n");
            assert_eq!(server.cluster.received(other), b"*2\r\n$1\r\nl\r\n$1\r\n1\r\n");
        }
    }
}

/// A single shard has no coalesced pipelines; replies, data and statistics must be the same as there.
#[test]
fn coalesced_pipelines_are_answered_as_on_one_shard() {
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let shard_count = 2 + random.below(4);
        let mut servers = [Server::new(1), Server::new(shard_count)];
        servers[1].cluster.random = Random::new(seed);
        if random.below(3) == 0 {
            servers.iter_mut().for_each(|server| assert!(server.call("HELLO 3").starts_with("%7")));
        }
        for _ in 0..3 {
            let oddities = random.below(3);
            let requests = pipeline(&mut random, oddities);
            let bytes = bytes_of(&requests);
            let pieces = pieces(&mut random, &bytes);
            // Another client may be blocked on a key.
            let (awaited, home) = (key(&mut random), random.below(shard_count));
            let somebody_waits = oddities == 0 && random.below(2) == 0;
            let [expected, replies] = servers.each_mut().map(|Server { cluster, client }| {
                let other = cluster.connect(home % cluster.workers.len());
                if somebody_waits {
                    cluster.call(*client, &["DEL", awaited]);
                    cluster.call(other, &["BTAKE", awaited, "0"]);
                }
                pieces.iter().for_each(|piece| cluster.send(*client, piece));
                cluster.settle();
                let replies = [*client, other].map(|client| cluster.received(client));
                cluster.disconnect(other);
                cluster.settle();
                String::from_utf8(replies.concat()).expect("text")
            });
            assert_eq!(replies, expected, "seed {seed}, {shard_count} shards: {requests:?}");
        }
        servers
            .iter_mut()
            .for_each(|server| assert!(!call_all(server, &["DISCARD", "CLIENT REPLY ON"]).is_empty()));
        let end = [
            "SELECT 1",
            "MGET a b c d e f g h",
            "SELECT 0",
            "MGET a b c d e f g h",
            "SINTERCARD 1 a",
            "SINTERCARD 1 b",
            "SINTERCARD 1 c",
            "SINTERCARD 1 d",
        ];
        let [expected, data] = servers.each_mut().map(|server| call_all(server, &end));
        assert_eq!(data, expected, "seed {seed}");
        assert!(servers[1].cluster.is_at_rest(), "seed {seed}");
        let [expected, counts] = servers.each_ref().map(counts);
        assert_eq!(counts, expected, "seed {seed}");
    }
}

/// The counters of INFO commandstats: calls and failures by command; then the total of commands and errors.
fn counts(server: &Server) -> (Vec<(String, u64, u64)>, u64, u64) {
    let counts = server.cluster.workers[0].table.all().map(|entry| {
        let calls = server.sum(|stats| stats.command(entry.id).calls.get());
        (entry.full_name.clone(), calls, server.sum(|stats| stats.command(entry.id).failed.get()))
    });
    let counts = counts.filter(|(_, calls, _)| *calls > 0).collect();
    let processed = server.sum(|stats| stats.commands_processed.get());
    (counts, processed, server.sum(|stats| stats.error_replies.get()))
}

#[test]
fn pipelined_transactions_take_effect_at_one_moment() {
    let block = ["MULTI", "INCR a", "INCR b", "INCR c", "EXEC"];
    let requests = [block; 20].concat();
    let expected: String = (1..=20)
        .map(|n| format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:{n}\r\n:{n}\r\n:{n}\r\n"))
        .collect();
    for seed in 0..200 {
        let mut cluster = Cluster::new(4, seed);
        let (writer, reader) = (cluster.connect(3), cluster.connect(0));
        cluster.send(writer, &bytes_of(&requests));
        for _ in 0..cluster.random.below(30) {
            cluster.step();
        }
        let seen = cluster.call(reader, &["MGET", "a", "b", "c"]);
        let none = "*3\r\n$-1\r\n$-1\r\n$-1\r\n";
        assert!(seen == none || seen == "*3\r\n$2\r\n20\r\n$2\r\n20\r\n$2\r\n20\r\n", "seed {seed}: {seen}");
        assert_eq!(String::from_utf8(cluster.received(writer)).expect("text"), expected, "seed {seed}");
    }
}

#[test]
fn each_transaction_of_a_coalesced_pipeline_is_counted_by_its_width() {
    let mut server = Server::new(3);
    let requests = [
        "MULTI",
        "SET a 1",
        "SET b 1",
        "EXEC",
        "MULTI",
        "INCR a",
        "EXEC",
        "MGET a b c",
        "GET a",
        "MULTI",
        "MSET a 1 b 1 c 1",
        "EXEC",
    ];
    let widths = |server: &Server| {
        [
            server.sum(|stats| stats.transactions.get()),
            server.sum(|stats| stats.transactions_of_1.get()),
            server.sum(|stats| stats.transactions_of_2.get()),
            server.sum(|stats| stats.transactions_of_3_4.get()),
        ]
    };
    for request in requests {
        server.call(request);
    }
    let alone = widths(&server);
    assert_eq!(alone, [4, 1, 1, 2]);
    call_all(&mut server, &requests);
    assert_eq!(widths(&server), alone.map(|count| count * 2));
}

#[test]
fn the_last_command_of_a_client_is_the_exec_of_its_coalesced_pipeline() {
    let mut server = Server::new(3);
    let requests = ["MULTI", "SET a 1", "SET b 1", "EXEC"];
    call_all(&mut server, &requests);
    let other = server.cluster.connect(0);
    let list = server.cluster.call(other, &["CLIENT", "LIST"]);
    assert!(list.contains(" cmd=exec ") && list.contains(" multi=-1 "), "{list}");
}

/// A transaction too long to be coalesced still runs, as do the requests before and after it.
#[test]
fn a_transaction_beyond_the_bounds_of_a_coalesced_pipeline_runs_alone() {
    let long: Vec<String> = (0..500).map(|n| format!("SET {} {n}", KEYS[n % 8])).collect();
    let big: Vec<String> = (0..8).map(|n| format!("SET {} {}", KEYS[n], "x".repeat(20_000))).collect();
    for queued in [long, big] {
        let mut requests: Vec<String> =
            ["MULTI", "INCR i", "INCR j", "EXEC", "MULTI"].map(String::from).to_vec();
        requests.extend(queued.iter().cloned());
        requests.extend(["EXEC", "MULTI", "INCR i", "INCR j", "EXEC"].map(String::from));
        let [expected, replies] =
            [1, 3].map(|shard_count| call_all(&mut Server::new(shard_count), &requests));
        assert_eq!(replies, expected);
        assert!(replies.ends_with(":2\r\n:2\r\n"), "{replies}");
    }
}

/// Commands over checked-out keys run together, and those that could run on one shard join them only where they use the
/// same keys.
#[test]
fn check_outs_of_a_pipeline_take_one_transaction() {
    let mut server = Server::new(3);
    let requests = [
        "SET a 1",
        "COPY a b",
        "GET b",
        "COPY b c",
        "MGET a b c",
        "APPEND c x",
        "SET d 4",
        "COPY d e REPLACE",
        "GET f",
        "RENAME c g",
        "EXISTS a b c d e f g",
    ];
    let waits = |server: &Server| server.sum(|stats| stats.check_ins_sent.get());
    let before = waits(&server);
    let replies = call_all(&mut server, &requests);
    let expected = "+OK\r\n:1\r\n$1\r\n1\r\n:1\r\n*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n:2\r\n+OK\r\n\
                    :1\r\n$-1\r\n+OK\r\n:5\r\n";
    assert_eq!(replies, expected);
    // At most one check-in for each shard.
    assert!(waits(&server) - before <= 3, "{}", waits(&server) - before);
    assert!(server.cluster.is_at_rest());
    server.expect(&[("MGET a b d e g", "*5\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n4\r\n$1\r\n4\r\n$2\r\n1x")]);
}

/// Programs that know their keys run together, until they have had the shard for long enough: here that is random.
#[test]
fn programs_of_a_pipeline_take_one_transaction() {
    // Keys on shards 0, 1 and 2.
    let requests = [
        "TPROGRAM 2 a b / MSET a 1 b 2",
        "TMADE 1 1 a c / MSET a 3 c 4",
        "TPROGRAM 1 a / INCR a",
        "TMADE 2 0 b c / COPY b c REPLACE",
    ];
    let expected = "*1\r\n+OK\r\n*1\r\n+OK\r\n*1\r\n:4\r\n*1\r\n:1\r\n";
    let mut check_ins = Vec::new();
    for seed in 1..200 {
        let mut cluster = Cluster::new(3, seed);
        let client = cluster.connect(2);
        let mut server = Server { cluster, client };
        assert_eq!(call_all(&mut server, &requests), expected, "seed {seed}");
        // The one over a single key is none.
        assert_eq!(server.sum(|stats| stats.transactions.get()), 3, "seed {seed}");
        check_ins.push(server.sum(|stats| stats.check_ins_sent.get()));
        assert!(server.cluster.is_at_rest(), "seed {seed}");
    }
    // One for each shard, or for each shard of each transaction.
    assert_eq!(check_ins.iter().min(), Some(&3));
    assert!(check_ins.iter().max() > Some(&3), "{check_ins:?}");
}

/// The effects of a coalesced pipeline are those of its commands in their order, whichever shard ran them.
#[test]
fn the_effects_of_coalesced_check_outs_come_in_the_order_of_the_commands() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let shard_count = 2 + random.below(3);
        let mut server = Server::new(shard_count);
        server.cluster.random = Random::new(seed);
        let mut replica = Replica::attach(&mut server);
        let mut copy = Server::new(1);
        for _ in 0..3 {
            let mut requests: Vec<String> = (0..12).map(|_| command(&mut random)).collect();
            requests.extend((0..6).map(|_| program(&mut random)));
            call_all(&mut server, &requests);
        }
        for effect in replica.read(&mut server) {
            copy.call(&effect);
        }
        for end in ["MGET a b c d e f g h", "DEBUG DIGEST"] {
            assert_eq!(server.call(end), copy.call(end), "seed {seed}");
        }
    }
}

/// MOVE was run at home over its checked-out key, and what it put into the other database stayed there: its owner did not
/// have it, though KEYS showed it.
#[test]
fn a_key_that_is_moved_among_check_outs_comes_home_in_both_databases() {
    for shard_count in [1, 3] {
        let mut server = Server::new(shard_count);
        let requests = ["RENAME a c", "SET a 5", "MOVE a 2", "COPY a b", "SELECT 2", "GET a", "APPEND a x"];
        let replies = call_all(&mut server, &requests);
        assert_eq!(replies, "-ERR no such key\r\n+OK\r\n:1\r\n:0\r\n+OK\r\n$1\r\n5\r\n:2\r\n");
        let other = server.cluster.connect(0);
        assert_eq!(server.cluster.call(other, &["SELECT", "2"]), "+OK\r\n");
        assert_eq!(server.cluster.call(other, &["GET", "a"]), "$2\r\n5x\r\n");
    }
}
