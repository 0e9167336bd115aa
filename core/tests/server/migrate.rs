//! MIGRATE: keys go from this server to Redis, to its own kind and back, and are never on neither.

use crate::harness::{Connection, encode, wait_until};
use crate::link::Node;
use crate::rdb::{digest, fill};
use crate::replication::{FOUR, ONE, TWO, wait_until_alike};
use crate::replies::strings;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// Longer than any test.
const PATIENT_MS: &str = "100000";

/// MIGRATE of several keys to a port.
fn migrate(client: &mut Connection, port: u16, db: &str, timeout_ms: &str, keys: &[&str]) -> String {
    let port = port.to_string();
    let head = ["MIGRATE", "127.0.0.1", &port, "", db, timeout_ms, "KEYS"];
    client.call(&[&head, keys].concat())
}

/// Everything in databases 0 and 9.
fn migrate_all(client: &mut Connection, port: u16) {
    for db in ["9", "0"] {
        client.call(&["SELECT", db]);
        let keys: Vec<String> = strings(&client.call(&["KEYS", "*"])).into_iter().flatten().collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(!keys.is_empty());
        assert_eq!(migrate(client, port, db, PATIENT_MS, &keys), "+OK\r\n");
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n");
    }
}

/// All keys go there and back. Replicas and the append-only file of this server follow.
fn go_there_and_back(here: &Node, there: &Node, replica: &Node, what: &str) {
    let (mut near, mut far) = (here.connect(), there.connect());
    replica.follow(here);
    fill(&mut near);
    let full = digest(&mut near);
    let empty = "+0000000000000000000000000000000000000000\r\n";

    migrate_all(&mut near, there.port());
    assert_eq!((digest(&mut far), digest(&mut near).as_str()), (full.clone(), empty), "{what}");
    let ttl = far.call(&["TTL", "later"]);
    let ttl: i64 = ttl[1..].trim_end().parse().expect("a number");
    assert!((9000..=10_000).contains(&ttl), "{what}: {ttl}");
    wait_until_alike(&mut near, &mut replica.connect(), what);
    assert_eq!(near.call(&["DEBUG", "LOADAOF"]), "+OK\r\n", "{what}");
    assert_eq!(digest(&mut near), empty, "{what}");

    migrate_all(&mut far, here.port());
    assert_eq!((digest(&mut near), digest(&mut far).as_str()), (full, empty), "{what}");
    wait_until_alike(&mut near, &mut replica.connect(), what);
}

#[test]
fn keys_go_to_redis_and_back() {
    for setup in [ONE, FOUR] {
        let here = Node::ours_with("migrate", setup, &["--appendonly", "yes"]);
        let (Some(there), Some(replica)) = (Node::redis("target"), Node::redis("migrate-replica")) else {
            return;
        };
        go_there_and_back(&here, &there, &replica, &format!("{setup:?}"));
    }
}

#[test]
fn keys_go_to_its_own_kind_and_back() {
    for (near, far) in [(ONE, FOUR), (FOUR, TWO)] {
        let here = Node::ours_with("near", near, &["--appendonly", "yes"]);
        let (there, replica) = (Node::ours("far", far), Node::ours("near-replica", TWO));
        go_there_and_back(&here, &there, &replica, &format!("{near:?} to {far:?}"));
    }
}

/// The other server does not answer, and the keys are nobody's meanwhile. All else goes on.
#[test]
fn a_server_that_hangs_holds_up_only_who_wants_the_keys() {
    for setup in [ONE, FOUR] {
        let here = Node::ours("waits", setup);
        let there = Node::ours("hangs", ONE);
        let (mut client, mut other, mut third) = (here.connect(), here.connect(), here.connect());
        for key in ["a", "b", "c", "d"] {
            assert_eq!(client.call(&["SET", key, "here"]), "+OK\r\n");
        }
        there.signal(libc::SIGSTOP);
        let port = there.port().to_string();
        let words = ["MIGRATE", "127.0.0.1", &port, "", "0", PATIENT_MS, "KEYS", "a", "b"];
        client.send(&encode(&words.map(str::as_bytes)));
        wait_until("it is connected", || third.info("stats", "migrate_cached_sockets") == "1");
        other.send(&encode(&[b"MGET", b"a", b"c"]));
        for n in 0..20 {
            let key = format!("key:{n}");
            assert_eq!(third.call(&["SET", &key, "v"]), "+OK\r\n", "{setup:?}");
            assert_eq!(third.call(&["MGET", &key, "d"]), "*2\r\n$1\r\nv\r\n$4\r\nhere\r\n", "{setup:?}");
        }
        there.signal(libc::SIGCONT);
        assert_eq!(client.reply(), b"+OK\r\n", "{setup:?}");
        assert_eq!(other.reply(), b"*2\r\n$-1\r\n$4\r\nhere\r\n", "{setup:?}");
        assert_eq!(there.connect().call(&["MGET", "a", "b"]), "*2\r\n$4\r\nhere\r\n$4\r\nhere\r\n");

        // The connection that is kept is of no use after a timeout.
        there.signal(libc::SIGSTOP);
        let timed_out = "-IOERR error or timeout reading to target instance\r\n";
        assert_eq!(migrate(&mut client, there.port(), "0", "50", &["c"]), timed_out, "{setup:?}");
        assert_eq!(third.info("stats", "migrate_cached_sockets"), "0", "{setup:?}");
        assert_eq!(third.call(&["GET", "c"]), "$4\r\nhere\r\n", "{setup:?}");
        there.signal(libc::SIGCONT);
    }
}

#[test]
fn it_runs_in_transactions_and_scripts() {
    for setup in [ONE, FOUR] {
        let (here, there) = (Node::ours("inner", setup), Node::ours("inner-target", TWO));
        let port = there.port().to_string();
        let (mut client, mut far) = (here.connect(), there.connect());
        for words in
            [vec!["MULTI"], vec!["MSET", "a", "1", "b", "2"], vec!["GET", "a"], vec!["DEL", "nothing"]]
        {
            client.call(&words);
        }
        migrate(&mut client, there.port(), "0", PATIENT_MS, &["a", "b"]);
        client.call(&["MGET", "a", "b"]);
        let exec = "*5\r\n+OK\r\n$1\r\n1\r\n:0\r\n+OK\r\n*2\r\n$-1\r\n$-1\r\n";
        assert_eq!(client.call(&["EXEC"]), exec, "{setup:?}");
        assert_eq!(far.call(&["MGET", "a", "b"]), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n", "{setup:?}");

        let declared = "redis.call('SET', KEYS[1], 'x') \
                        return redis.call('MIGRATE', '127.0.0.1', ARGV[1], KEYS[1], '0', '100000')";
        for n in 0..8 {
            let key = format!("declared:{n}");
            assert_eq!(client.call(&["EVAL", declared, "1", &key, &port]), "+OK\r\n", "{setup:?}");
            assert_eq!(client.call(&["EXISTS", &key]), ":0\r\n", "{setup:?}");
            assert_eq!(far.call(&["GET", &key]), "$1\r\nx\r\n", "{setup:?}");
        }
        let derived = "for n = 1, 8 do redis.call('SET', 'derived:' .. n, n) end \
                       local reply = redis.call('MIGRATE', '127.0.0.1', ARGV[1], '', '0', '100000', 'KEYS', \
                       'derived:1', 'derived:2', 'derived:3', 'derived:4', 'derived:5', 'derived:6', 'derived:7') \
                       return {reply, redis.call('EXISTS', 'derived:1', 'derived:7', 'derived:8')}";
        let derived = client.call(&["EVAL", derived, "0", &port]);
        assert_eq!(derived, "*2\r\n+OK\r\n:1\r\n", "{setup:?}");
        assert_eq!(far.call(&["DBSIZE"]), ":17\r\n", "{setup:?}");
        assert_eq!(client.call(&["DBSIZE"]), ":1\r\n", "{setup:?}");
    }
}

/// A server that answers as it is told, one list of replies for each connection, and closes that when it has no more.
struct Target {
    port: u16,
    /// The requests that were read.
    requests: JoinHandle<Vec<Vec<String>>>,
}

impl Target {
    fn start(connections: Vec<Vec<&'static str>>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests = thread::spawn(move || {
            let mut requests = Vec::new();
            for replies in connections {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                for reply in replies {
                    requests.push(read_request(&mut reader));
                    stream.write_all(reply.as_bytes()).expect("it is read");
                }
            }
            requests
        });
        Target { port, requests }
    }

    /// The names of the commands that it got.
    fn names(self) -> Vec<String> {
        let requests = self.requests.join().expect("it ends by itself");
        requests.into_iter().map(|words| words[..words.len().min(2)].join(" ")).collect()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Vec<String> {
    let number = |reader: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line.trim_end()[1..].parse::<usize>().expect("a number")
    };
    let count = number(reader);
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(reader) + 2];
        reader.read_exact(&mut word).expect("a whole word");
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    words
}

#[test]
fn only_acknowledged_keys_are_deleted() {
    const GONE: &str = "-IOERR error or timeout reading to target instance\r\n";
    const REFUSED: &str =
        "-ERR Target instance replied with error: BUSYKEY Target key name already exists.\r\n";
    const NO_PASSWORD: &str = "-ERR Target instance replied with error: NOAUTH Authentication required.\r\n";
    let ok = "+OK\r\n";
    let busy = "-BUSYKEY Target key name already exists.\r\n";
    let no_auth = "-NOAUTH Authentication required.\r\n";
    for setup in [ONE, FOUR] {
        let here = Node::ours_with("acknowledged", setup, &["--appendonly", "yes"]);
        let mut client = here.connect();
        // What a target answers to SELECT and three RESTOREs, what the client gets, and which keys are left.
        for (replies, reply, left) in [
            (vec![ok, ok], GONE, "*3\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
            (vec![ok, ok, busy, ok], REFUSED, "*3\r\n$-1\r\n$1\r\n2\r\n$-1\r\n"),
            (
                vec![no_auth, no_auth, no_auth, no_auth],
                NO_PASSWORD,
                "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
            ),
            (vec![ok, busy], REFUSED, "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
        ] {
            assert_eq!(client.call(&["MSET", "a", "1", "b", "2", "c", "3"]), ok);
            let target = Target::start(vec![replies.clone()]);
            assert_eq!(migrate(&mut client, target.port, "2", PATIENT_MS, &["a", "b", "c"]), reply);
            let read = ["SELECT 2", "RESTORE a", "RESTORE b", "RESTORE c"];
            assert_eq!(target.names(), read[..replies.len()], "{setup:?}");
            assert_eq!(client.call(&["MGET", "a", "b", "c"]), left, "{setup:?}");
            assert_eq!(client.call(&["DEBUG", "LOADAOF"]), ok);
            assert_eq!(client.call(&["MGET", "a", "b", "c"]), left, "{setup:?}");
        }
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_made_again() {
    for setup in [ONE, FOUR] {
        let here = Node::ours("again", setup);
        let mut client = here.connect();
        client.call(&["MSET", "a", "1", "b", "2", "c", "3"]);
        // The second request finds the first connection closed. SELECT is not sent when it is known to be in force.
        let target = Target::start(vec![vec!["+OK\r\n", "+OK\r\n"], vec!["+OK\r\n", "+OK\r\n", "+OK\r\n"]]);
        for key in ["a", "b", "c"] {
            assert_eq!(migrate(&mut client, target.port, "2", PATIENT_MS, &[key]), "+OK\r\n", "{setup:?}");
        }
        assert_eq!(client.call(&["DBSIZE"]), ":0\r\n", "{setup:?}");
        let read = ["SELECT 2", "RESTORE a", "SELECT 2", "RESTORE b", "RESTORE c"];
        assert_eq!(target.names(), read, "{setup:?}");
    }
}
