//! Clients that end a connection, or only their side of it: what they had sent runs, and the replies reach whoever still
//! reads. As in Redis, which has executed what came before the end by the time it sees it.

use crate::harness::{Connection, SETUPS, Server, Setup, encode, end_with_a_reset, wait_until};
use std::net::Shutdown;
use std::time::Duration;

/// Sends `bytes`, ends the write side, and returns everything that comes.
fn last_words(server: &Server, bytes: &[u8]) -> String {
    let mut client = server.connect();
    client.send(bytes);
    client.stream.shutdown(Shutdown::Write).expect("it is open");
    String::from_utf8_lossy(&client.rest()).into_owned()
}

/// The same, but that nobody stays to read.
fn send_and_leave(server: &Server, bytes: &[u8]) {
    server.connect().send(bytes);
}

fn requests(commands: &[&[&str]]) -> Vec<u8> {
    let encode_one = |args: &&[&str]| encode(&args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>());
    commands.iter().flat_map(encode_one).collect()
}

fn value_of(client: &mut Connection, key: &str) -> String {
    let reply = client.call(&["GET", key]);
    reply.lines().nth(1).unwrap_or("nil").to_string()
}

/// Every setup, and one whose keys are on yet more shards.
fn setups() -> impl Iterator<Item = Setup> {
    SETUPS.into_iter().map(|setup| Setup { shards: if setup.shards > 1 { 4 } else { 1 }, ..setup })
}

#[test]
fn a_pipeline_of_a_client_that_closes_runs_to_its_end() {
    for setup in setups() {
        let server = Server::start(setup);
        let mut other = server.connect();
        for round in 0..5 {
            let bytes: Vec<u8> =
                (0..100).flat_map(|n| requests(&[&["SET", &format!("k{round}:{n}"), "v"]])).collect();
            send_and_leave(&server, &bytes);
        }
        wait_until("all are set", || other.call(&["DBSIZE"]) == ":500\r\n");
        for _ in 0..50 {
            let mset: Vec<String> = (0..8).flat_map(|n| [format!("m{n}"), "1".to_string()]).collect();
            let mset: Vec<&str> = std::iter::once("MSET").chain(mset.iter().map(String::as_str)).collect();
            send_and_leave(&server, &requests(&[&["INCR", "x"], &mset, &["INCR", "y"]]));
        }
        wait_until("all are counted", || value_of(&mut other, "y") == "50");
        assert_eq!(value_of(&mut other, "x"), "50", "{setup:?}");
        wait_until("all have gone", || other.info("clients", "connected_clients") == "1");
    }
}

#[test]
fn a_client_that_ends_its_side_gets_every_reply() {
    for setup in setups() {
        let server = Server::start(setup);
        for _ in 0..100 {
            assert_eq!(last_words(&server, b"PING\r\n"), "+PONG\r\n", "{setup:?}");
        }
        let bytes: Vec<u8> = (0..1000).flat_map(|n| requests(&[&["SET", &format!("k{n}"), "v"]])).collect();
        for _ in 0..20 {
            assert_eq!(last_words(&server, &bytes).len(), 1000 * "+OK\r\n".len(), "{setup:?}");
        }
        // What is incomplete is dropped, without a word.
        let mut cut = requests(&[&["SET", "a", "1"], &["GET", "a"]]);
        cut.truncate(cut.len() - 3);
        assert_eq!(last_words(&server, &cut), "+OK\r\n");
        assert_eq!(last_words(&server, b"PING"), "");
        let mut other = server.connect();
        wait_until("all have gone", || other.info("clients", "connected_clients") == "1");
    }
}

/// A script that leaves its keys may wait for the token, and be served while it is begun to wait.
#[test]
fn requests_behind_scripts_over_any_keys_run_to_the_end_of_the_input() {
    for setup in setups() {
        let server = Server::start(setup);
        for round in 0..100 {
            let keys: Vec<String> = (0..8).map(|n| format!("k{round}:{n}")).collect();
            let script = "return redis.call('SET', ARGV[1], 'v')";
            let commands = keys.iter().map(|key| requests(&[&["EVAL", script, "0", key], &["PING"]]));
            let bytes: Vec<u8> = commands.flatten().collect();
            assert_eq!(last_words(&server, &bytes), "+OK\r\n+PONG\r\n".repeat(8), "{setup:?}");
        }
    }
}

#[test]
fn big_replies_are_sent_to_their_end_to_a_client_that_has_ended_its_side() {
    for setup in setups() {
        let server = Server::start(setup);
        let value = "x".repeat(1 << 20);
        assert_eq!(server.connect().call(&["SET", "big", &value]), "+OK\r\n");
        let reply_len = format!("$1048576\r\n{value}\r\n").len();
        let rest = last_words(&server, &requests(&[&["GET", "big"]]).repeat(30));
        assert_eq!(rest.len(), 30 * reply_len, "{setup:?}");
    }
}

#[test]
fn what_is_held_runs_after_the_end_of_the_input() {
    for setup in setups() {
        let server = Server::start(setup);
        let mut other = server.connect();
        // Behind transactions.
        let mut bytes = Vec::new();
        for n in 0..50 {
            bytes.extend(requests(&[
                &["MULTI"],
                &["INCR", "a"],
                &["INCR", "b"],
                &["INCR", "c"],
                &["EXEC"],
                &["RENAME", &format!("from{n}"), "to"],
                &["DBSIZE"],
                &["INCR", "d"],
            ]));
        }
        let rest = last_words(&server, &bytes);
        assert!(rest.ends_with(":50\r\n"), "{setup:?}: {rest:?}");
        // Behind a big argument.
        let big = "y".repeat(3 << 20);
        let rest =
            last_words(&server, &requests(&[&["SET", "big", &big], &["STRLEN", "big"], &["INCR", "e"]]));
        assert_eq!(rest, "+OK\r\n:3145728\r\n:1\r\n", "{setup:?}");
        // And the incomplete one is not.
        let mut bytes = requests(&[&["INCR", "e"], &["SET", "big", &big]]);
        bytes.truncate(bytes.len() - 100);
        assert_eq!(last_words(&server, &bytes), ":2\r\n", "{setup:?}");
        assert_eq!(other.call(&["STRLEN", "big"]), ":3145728\r\n");
        // Behind CLIENT PAUSE.
        assert_eq!(other.call(&["CLIENT", "PAUSE", "300", "WRITE"]), "+OK\r\n");
        let rest = last_words(&server, &requests(&[&["GET", "e"], &["INCR", "e"], &["INCR", "e"]]));
        assert_eq!(rest, "$1\r\n2\r\n:3\r\n:4\r\n", "{setup:?}");
        assert_eq!(other.call(&["CLIENT", "PAUSE", "300", "WRITE"]), "+OK\r\n");
        send_and_leave(&server, &requests(&[&["INCR", "f"], &["MSET", "g", "1", "h", "2"], &["INCR", "f"]]));
        wait_until("it has run", || value_of(&mut other, "f") == "2");
        wait_until("all have gone", || other.info("clients", "connected_clients") == "1");
    }
}

#[test]
fn a_reset_behind_a_pipeline_takes_nothing_back() {
    for setup in setups() {
        let server = Server::start(setup);
        let mut other = server.connect();
        for _ in 0..50 {
            let mut client = server.connect();
            let mset = ["MSET", "a", "1", "b", "2", "c", "3"];
            client.send(&requests(&[&["INCR", "x"], &mset, &["INCR", "y"]]));
            end_with_a_reset(&client.stream);
        }
        wait_until("all has run", || value_of(&mut other, "y") == "50");
        assert_eq!(value_of(&mut other, "x"), "50", "{setup:?}");
        wait_until("all have gone", || other.info("clients", "connected_clients") == "1");
    }
}

#[test]
fn a_client_that_ends_its_side_and_never_reads_is_cut_off_at_its_limit() {
    for setup in setups() {
        let server = Server::start_with(setup, &["--client-output-buffer-limit", "normal 8mb 0 0"]);
        let mut other = server.connect();
        let value = "x".repeat(1 << 20);
        assert_eq!(other.call(&["SET", "big", &value]), "+OK\r\n");
        let mut deaf = server.connect();
        deaf.send(&requests(&[&["GET", "big"]]).repeat(100));
        deaf.stream.shutdown(Shutdown::Write).expect("it is open");
        wait_until("it is cut off", || other.info("clients", "connected_clients") == "1");
        assert_eq!(other.call(&["STRLEN", "big"]), ":1048576\r\n", "{setup:?}");
    }
}

#[test]
fn a_client_that_is_sent_to_and_goes_away_is_forgotten() {
    for setup in setups() {
        let server = Server::start(setup);
        let mut other = server.connect();
        assert_eq!(other.call(&["SET", "big", &"x".repeat(1 << 20)]), "+OK\r\n");
        for is_reset in [false, true] {
            let mut client = server.connect();
            client.send(&requests(&[&["GET", "big"]]).repeat(40));
            client.stream.shutdown(Shutdown::Write).expect("it is open");
            wait_until("it is served", || other.info("clients", "connected_clients") == "2");
            std::thread::sleep(Duration::from_millis(20));
            let list = other.call(&["CLIENT", "LIST"]);
            assert_eq!(list.matches("cmd=get").count(), 1, "{setup:?}: {list}");
            if is_reset {
                end_with_a_reset(&client.stream);
                drop(client);
            } else {
                let id = list
                    .lines()
                    .find(|line| line.contains("cmd=get"))
                    .and_then(|line| line.split(' ').find_map(|field| field.strip_prefix("id=")));
                assert_eq!(other.call(&["CLIENT", "KILL", "ID", id.expect("an id")]), ":1\r\n");
            }
            wait_until("it is forgotten", || other.info("clients", "connected_clients") == "1");
        }
    }
}
