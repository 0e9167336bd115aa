//! Commands about the server answer for all its shards.

use crate::harness::{Connection, PATIENCE, SETUPS, Server, Setup, free_port, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections until every shard has some.
fn connect_many(server: &Server, setup: Setup) -> Vec<Connection> {
    (0..2 * setup.shards + 1).map(|_| server.connect()).collect()
}

#[test]
fn client_list_shows_the_clients_of_all_shards_in_the_order_of_their_ids() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut clients = connect_many(&server, setup);
        let mut ids: Vec<u64> = clients
            .iter_mut()
            .map(|client| client.call(&["CLIENT", "ID"]).trim_matches([':', '\r', '\n']).parse().unwrap())
            .collect();
        ids.sort_unstable();

        let list = clients[1].call(&["CLIENT", "LIST"]);

        let listed: Vec<u64> = list
            .lines()
            .filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(listed, ids, "{setup:?}");
        let first = ids[0].to_string();
        assert_eq!(clients[1].call(&["CLIENT", "LIST", "ID", &first]).matches("id=").count(), 1);
    }
}

#[test]
fn client_kill_ends_connections_of_other_shards_and_its_own_last() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut clients = connect_many(&server, setup);
        let count = clients.len();
        for client in &mut clients {
            assert_eq!(client.call(&["PING"]), "+PONG\r\n");
        }
        let mut killer = clients.pop().unwrap();

        assert_eq!(killer.call(&["CLIENT", "KILL", "SKIPME", "yes"]), format!(":{}\r\n", count - 1));
        for mut client in clients {
            assert_eq!(client.rest(), b"", "{setup:?}");
        }
        assert_eq!(killer.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"]), ":1\r\n");
        assert_eq!(killer.rest(), b"", "{setup:?}");
        assert_eq!(server.connect().call(&["CLIENT", "KILL", "1.1.1.1:1"]), "-ERR No such client\r\n");
    }
}

#[test]
fn a_pause_holds_writes_of_all_shards_and_counts_who_waits() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        let mut writers = connect_many(&server, setup);
        assert_eq!(admin.call(&["CLIENT", "PAUSE", "600000", "WRITE"]), "+OK\r\n");

        for (n, writer) in writers.iter_mut().enumerate() {
            let key = format!("key:{n}");
            assert_eq!(writer.call(&["GET", &key]), "$-1\r\n", "reads go on");
            writer.request(&[b"SET", key.as_bytes(), b"x"]);
        }
        let waiting = writers.len().to_string();
        // It comes behind what was sent to any shard before it.
        assert_eq!(admin.info("clients", "blocked_clients"), waiting, "{setup:?}");
        assert_eq!(admin.call(&["DBSIZE"]), ":0\r\n");

        assert_eq!(admin.call(&["CLIENT", "UNPAUSE"]), "+OK\r\n");
        for writer in &mut writers {
            assert_eq!(writer.reply(), b"+OK\r\n", "{setup:?}");
        }
        assert_eq!(admin.info("clients", "blocked_clients"), "0", "{setup:?}");
    }
}

#[test]
fn config_set_is_seen_by_the_clients_of_all_shards() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut clients = connect_many(&server, setup);
        for n in 0..clients.len() {
            let hz = (20 + n).to_string();
            assert_eq!(clients[n].call(&["CONFIG", "SET", "hz", &hz]), "+OK\r\n");
            for client in &mut clients {
                let shown = client.call(&["CONFIG", "GET", "hz"]);
                assert_eq!(shown, format!("*2\r\n$2\r\nhz\r\n$2\r\n{hz}\r\n"), "{setup:?}");
            }
        }
        let mut both = server.connect();
        both.send(b"CONFIG SET requirepass secret\r\nCONFIG GET requirepass\r\n");
        assert_eq!(both.reply(), b"+OK\r\n");
        assert_eq!(both.reply(), b"*2\r\n$11\r\nrequirepass\r\n$6\r\nsecret\r\n", "in the same packet, too");
        let mut stranger = server.connect();
        assert_eq!(stranger.call(&["PING"]), "-NOAUTH Authentication required.\r\n");
        assert_eq!(stranger.call(&["AUTH", "secret"]), "+OK\r\n");
        assert_eq!(stranger.call(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn the_port_can_be_changed_and_a_port_in_use_changes_nothing() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        let (holder, free) = (TcpListener::bind("0.0.0.0:0").unwrap(), free_port());
        let taken = holder.local_addr().unwrap().port().to_string();
        let refusal = client.call(&["CONFIG", "SET", "hz", "33", "port", &taken]);
        assert!(
            refusal.starts_with("-ERR CONFIG SET failed (possibly related to argument 'port')"),
            "{refusal}"
        );
        assert_eq!(client.call(&["CONFIG", "GET", "hz"]), "*2\r\n$2\r\nhz\r\n$2\r\n10\r\n");
        assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n", "{setup:?}: the old port is served");

        assert_eq!(client.call(&["CONFIG", "SET", "port", &free.to_string()]), "+OK\r\n");

        assert_eq!(client.call(&["PING"]), "+PONG\r\n", "connections stay");
        let mut new = Connection::to(free);
        assert_eq!(new.call(&["PING"]), "+PONG\r\n");
        wait_until("the old port is closed", || TcpStream::connect(("127.0.0.1", server.port)).is_err());
        assert_eq!(
            new.call(&["CONFIG", "SET", "bind", "127.0.0.1"]),
            "+OK\r\n",
            "the same port, other addresses"
        );
        wait_until("the new address is served", || TcpStream::connect(("127.0.0.1", free)).is_ok());
    }
}

#[test]
fn a_digest_is_the_same_however_many_shards_there_are() {
    let mut digests = Vec::new();
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        assert_eq!(client.call(&["DEBUG", "DIGEST"]), format!("+{}\r\n", "0".repeat(40)));
        assert_eq!(client.call(&["DEBUG", "POPULATE", "1000", "p", "20"]), "+OK\r\n");
        assert_eq!(client.call(&["DBSIZE"]), ":1000\r\n", "{setup:?}");
        client.call(&["SET", "n", "12"]);
        client.call(&["SELECT", "3"]);
        client.call(&["SET", "n", "12", "EX", "1000"]);
        digests.push((
            client.call(&["DEBUG", "DIGEST"]),
            client.call(&["DEBUG", "DIGEST-VALUE", "n", "x", "p:7"]),
        ));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn debug_object_shows_an_entry_whose_time_is_up_but_which_is_still_there() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        client.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        client.call(&["SET", "a", "x", "PX", "1"]);
        std::thread::sleep(Duration::from_millis(5));
        assert!(client.call(&["DEBUG", "OBJECT", "a"]).starts_with("+Value at:"), "{setup:?}");
        assert_eq!(client.call(&["EXISTS", "a"]), ":0\r\n");
        assert_eq!(client.call(&["DEBUG", "OBJECT", "a"]), "-ERR no such key\r\n");
    }
}

#[test]
fn debug_sleep_takes_its_time_and_all_shards_go_on_after_it() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut clients = connect_many(&server, setup);
        let started = Instant::now();
        assert_eq!(clients[0].call(&["DEBUG", "SLEEP", "0.1"]), "+OK\r\n");
        assert!(started.elapsed().as_millis() >= 100, "{setup:?}");
        for client in &mut clients {
            assert_eq!(client.call(&["PING"]), "+PONG\r\n", "{setup:?}");
        }
    }
}

#[test]
fn commands_over_all_shards_count_once_and_slow_ones_are_logged_with_their_client() {
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--slowlog-log-slower-than", "0"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["CLIENT", "SETNAME", "me"]), "+OK\r\n");
        assert_eq!(client.call(&["CONFIG", "RESETSTAT"]), "+OK\r\n");
        assert_eq!(client.call(&["SLOWLOG", "RESET"]), "+OK\r\n");

        let keys: Vec<String> = (0..10).map(|n| format!("key:{n}")).collect();
        let mut mset = vec!["MSET"];
        keys.iter().for_each(|key| mset.extend([key.as_str(), "x"]));
        assert_eq!(client.call(&mset), "+OK\r\n");
        let mut mget = vec!["MGET"];
        mget.extend(keys.iter().map(String::as_str));
        assert!(client.call(&mget).starts_with("*10\r\n"));
        for key in &keys {
            assert_eq!(client.call(&["GET", key]), "$1\r\nx\r\n");
        }

        let stats = client.call(&["INFO", "commandstats"]);
        for counted in ["cmdstat_mset:calls=1,", "cmdstat_mget:calls=1,", "cmdstat_get:calls=10,"] {
            assert!(stats.contains(counted), "{setup:?}: {counted} in {stats}");
        }
        // Behind its arguments may stand how long it has waited.
        let logged: String = mset.iter().map(|arg| format!("${}\r\n{arg}\r\n", arg.len())).collect();
        // GETs of other shards' keys report home after they have replied.
        wait_until("all is logged", || {
            let log = client.call(&["SLOWLOG", "GET", "-1"]);
            let entries = log.matches("\r\n$3\r\nGET\r\n").count();
            let of_me = log.matches("\r\n$2\r\nme\r\n").count();
            assert_eq!(log.matches(&logged).count(), 1, "{setup:?}: with all arguments: {log}");
            entries == 10 && of_me >= 12
        });
    }
}

#[test]
fn a_blocked_command_is_logged_when_it_is_served_and_not_when_it_blocks_or_times_out() {
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--slowlog-log-slower-than", "0"]);
        let mut client = server.connect();
        let logged = |client: &mut Connection| {
            client.call(&["SLOWLOG", "GET", "-1"]).matches("\r\n$5\r\nBLPOP\r\n").count()
        };
        let calls = |client: &mut Connection| client.call(&["INFO", "commandstats"]);

        let mut blocked = server.connect();
        blocked.request(&[b"BLPOP", b"list", b"0"]);
        wait_until("it is blocked", || client.call(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
        assert_eq!(logged(&mut client), 0, "{setup:?}: it has not replied");
        assert!(calls(&mut client).contains("cmdstat_blpop:calls=1,"), "{setup:?}: but it was called");

        assert_eq!(client.call(&["LPUSH", "list", "a"]), ":1\r\n");
        assert_eq!(blocked.reply(), b"*2\r\n$4\r\nlist\r\n$1\r\na\r\n");
        assert_eq!(logged(&mut client), 1, "{setup:?}: it was served");

        assert_eq!(blocked.call(&["BLPOP", "list", "0.01"]), "*-1\r\n");
        assert_eq!(logged(&mut client), 1, "{setup:?}: it timed out");
        assert!(calls(&mut client).contains("cmdstat_blpop:calls=2,"), "{setup:?}");
    }
}

#[test]
fn passwords_do_not_get_into_the_slow_log() {
    let server = Server::start_with(SETUPS[1], &["--slowlog-log-slower-than", "0"]);
    let mut client = server.connect();
    assert_eq!(client.call(&["CONFIG", "SET", "requirepass", "hush", "hz", "10"]), "+OK\r\n");
    assert_eq!(client.call(&["AUTH", "hush"]), "+OK\r\n");
    client.call(&["HELLO", "2", "AUTH", "default", "hush"]);

    let log = client.call(&["SLOWLOG", "GET"]);

    assert!(!log.contains("hush"), "{log}");
    assert_eq!(log.matches("(redacted)").count(), 4, "{log}");
}

#[test]
fn metrics_are_served_with_a_label_for_each_shard() {
    let setup = SETUPS[1];
    let port = free_port();
    let server = Server::start_with(setup, &["--metrics-port", &port.to_string()]);
    let mut client = server.connect();
    for n in 0..100 {
        assert_eq!(client.call(&["SET", &format!("key:{n}"), "x"]), "+OK\r\n");
    }

    let mut scrape = TcpStream::connect(("127.0.0.1", port)).unwrap();
    scrape.set_read_timeout(Some(PATIENCE)).unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).unwrap();

    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let keys: u64 = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("shardis_keys{shard=\"")?.split("} ").nth(1)?.parse::<u64>().ok()
        })
        .sum();
    assert_eq!(keys, 100, "{text}");
    assert_eq!(text.matches("shardis_connections{shard=").count(), setup.shards);
}

#[test]
fn keys_and_memory_are_those_of_all_shards() {
    let mut usages = Vec::new();
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        let empty: u64 = client.info("memory", "used_memory").parse().unwrap();
        for n in 0..500 {
            let (key, value) = (format!("key:{n}"), "x".repeat(1000));
            assert_eq!(client.call(&["SET", &key, &value, "EX", "1000"]), "+OK\r\n");
        }

        assert!(client.info("keyspace", "db0").starts_with("keys=500,expires=500,avg_ttl="), "{setup:?}");
        let mut memory = |field: &str| -> u64 { client.info("memory", field).parse().unwrap() };
        assert!(memory("used_memory") >= empty + 500 * 1000, "{setup:?}");
        wait_until("the overhead is counted", || {
            memory("used_memory_overhead") > memory("used_memory_startup")
        });
        assert!(memory("used_memory_dataset") >= 500 * 1000, "room for more keys is no overhead of these");
        assert!(client.call(&["MEMORY", "STATS"]).contains("$10\r\nkeys.count\r\n:500\r\n"), "{setup:?}");
        let usage_of_all: Vec<String> =
            (0..500).map(|n| client.call(&["MEMORY", "USAGE", &format!("key:{n}")])).collect();
        usages.push(usage_of_all);
    }
    assert!(usages.iter().all(|usage| *usage == usages[0]), "a key is as big on any shard");
}

/// One wrong value among right ones: Redis' error, and nothing has changed, whichever directive it is.
#[test]
fn config_set_of_a_wrong_value_changes_nothing() {
    const NONSENSE: &str = "\u{1}no value at all";
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut client = server.connect();
        let all = client.call(&["CONFIG", "GET", "*"]);
        let words: Vec<&str> = all.split("\r\n").skip(1).filter(|word| !word.starts_with('$')).collect();
        let mut refused = 0;
        for pair in words.chunks_exact(2) {
            let (name, value) = (pair[0], pair[1]);
            if name == "hz" {
                continue;
            }
            let reply = client.call(&["CONFIG", "SET", "hz", "77", name, NONSENSE]);
            if reply.starts_with("-ERR CONFIG SET failed") {
                refused += 1;
            } else {
                assert_eq!(reply, "+OK\r\n", "{setup:?}: {name}");
                assert_eq!(client.call(&["CONFIG", "SET", "hz", "10", name, value]), "+OK\r\n", "{name}");
            }
            assert_eq!(client.call(&["CONFIG", "GET", "*"]), all, "{setup:?}: after {name} was {reply:?}");
        }
        assert!(refused > 100, "only {refused} directives refuse nonsense");
        for (args, error) in [
            (&["hz", "77", "no-such-directive", "1"][..], "-ERR Unknown option or number of arguments"),
            (
                &["hz", "77", "hz", "78"],
                "-ERR CONFIG SET failed (possibly related to argument 'hz') - duplicate",
            ),
            (&["hz", "77", "maxclients"], "-ERR syntax error"),
            (
                &["hz", "77", "databases", "4"],
                "-ERR CONFIG SET failed (possibly related to argument 'databases')",
            ),
        ] {
            let reply = client.call(&[&["CONFIG", "SET"], args].concat());
            assert!(reply.starts_with(error), "{setup:?}: {args:?}: {reply}");
            assert_eq!(client.call(&["CONFIG", "GET", "*"]), all, "{setup:?}: {args:?}");
        }
        assert_eq!(server.connect().call(&["PING"]), "+PONG\r\n");
    }
}

#[test]
fn a_big_argument_that_is_on_its_way_is_shown_and_counted() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let (mut admin, mut sender) = (server.connect(), server.connect());
        assert_eq!(sender.call(&["CLIENT", "SETNAME", "sender"]), "+OK\r\n");
        const LEN: usize = 3_000_000;
        sender.send(format!("*3\r\n$3\r\nSET\r\n$5\r\nabcde\r\n${LEN}\r\n").as_bytes());
        sender.send(&vec![b'v'; LEN]);
        let field = |admin: &mut Connection, name: &str| -> Option<usize> {
            let list = admin.call(&["CLIENT", "LIST"]);
            let line = list.lines().find(|line| line.contains(" name=sender "))?;
            line.split(' ').find_map(|field| field.strip_prefix(&format!("{name}=")))?.parse().ok()
        };
        wait_until("all but the line end has come", || field(&mut admin, "qbuf") == Some(LEN));
        assert_eq!(field(&mut admin, "argv-mem"), Some("SETabcde".len()), "{setup:?}");
        assert!(field(&mut admin, "tot-mem") > Some(LEN), "{setup:?}");

        assert_eq!(admin.call(&["CONFIG", "SET", "maxmemory-clients", "2mb"]), "+OK\r\n");
        assert_eq!(field(&mut admin, "tot-mem"), None, "{setup:?}");
        assert_eq!(sender.rest(), b"", "{setup:?}");
        assert_eq!(admin.info("stats", "evicted_clients"), "1", "{setup:?}");
    }
}
