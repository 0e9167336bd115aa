//! The effects that each command writes to the effect stream, exactly.

use super::*;

/// A replica that reads the effect stream.
pub(crate) struct Replica {
    client: usize,
    unread: Vec<u8>,
}

impl Replica {
    /// A replica that wants no keys.
    pub(crate) fn attach(server: &mut Server) -> Replica {
        Replica::attach_with(server, "functions")
    }

    fn attach_with(server: &mut Server, filter: &str) -> Replica {
        let client = server.cluster.connect(0);
        let wishes = ["REPLCONF", "capa", "eof", "rdb-filter-only", filter];
        assert_eq!(server.cluster.call(client, &wishes), "+OK\r\n");
        server.cluster.request(client, &["SYNC"]);
        server.cluster.settle();
        let mut replica = Replica { client, unread: server.cluster.received(client) };
        let mark = replica.line().strip_prefix("$EOF:").expect("a mark").to_owned();
        let end =
            replica.unread.windows(40).position(|bytes| bytes == mark.as_bytes()).expect("the mark again");
        let snapshot: Vec<u8> = replica.unread.drain(..end + 40).take(end).collect();
        assert!(snapshot.starts_with(b"REDIS0010\xFA"), "{snapshot:?}");
        assert_eq!(snapshot[end - 9], 0xFF, "the end of an RDB file, and eight bytes of checksum");
        assert_eq!(replica.unread, b"", "it gets the stream when it says that it has the snapshot");
        server.cluster.request(client, &["REPLCONF", "ACK", "0"]);
        server.cluster.settle();
        replica
    }

    fn line(&mut self) -> String {
        let end = self.unread.windows(2).position(|pair| pair == b"\r\n").expect("a line");
        let line = self.unread.drain(..end + 2).take(end).collect();
        String::from_utf8(line).expect("a line is text")
    }

    /// The effects since the last call, one request per line, its words separated by blanks.
    pub(crate) fn read(&mut self, server: &mut Server) -> Vec<String> {
        server.cluster.settle();
        self.unread.extend(server.cluster.received(self.client));
        let mut requests = Vec::new();
        while !self.unread.is_empty() {
            let count =
                self.line().strip_prefix('*').and_then(|count| count.parse().ok()).expect("a request");
            let words: Vec<String> = (0..count)
                .map(|_| {
                    let len: usize = self.line()[1..].parse().expect("a length");
                    let word = self.unread.drain(..len + 2).take(len).collect();
                    String::from_utf8(word).expect("text")
                })
                .collect();
            requests.push(words.join(" "));
        }
        requests
    }
}

/// A replica is synchronized whatever the order of messages is.
#[test]
fn a_replica_that_has_its_snapshot_gets_all_that_comes_after_it() {
    for seed in 0..200 {
        let mut cluster = cluster::Cluster::new(4, seed);
        let home = cluster.random.below(4);
        let (reader, writer) = (cluster.connect(home), cluster.connect(3 - home));
        cluster.request(reader, &["REPLCONF", "capa", "eof", "rdb-filter-only", ""]);
        cluster.request(reader, &["PSYNC", "?", "-1"]);
        for n in 0..20 {
            cluster.request(writer, &["SET", &format!("key:{n}"), "v"]);
        }
        cluster.settle();
        let received = cluster.received(reader);
        assert!(received.starts_with(b"+OK\r\n+FULLRESYNC "), "seed {seed}");
        let info = cluster.call(writer, &["INFO", "replication"]);
        assert!(info.contains("\nslave0:ip=127.0.0.1,port=0,state=wait_bgsave,"), "seed {seed}: {info}");
        cluster.request(reader, &["REPLCONF", "ACK", "0"]);
        cluster.settle();
        let info = cluster.call(writer, &["INFO", "replication"]);
        assert!(info.contains("\nslave0:ip=127.0.0.1,port=0,state=online,"), "seed {seed}: {info}");
        cluster.received(reader);
        cluster.request(reader, &["PING"]);
        cluster.settle();
        assert_eq!(cluster.received(reader), b"", "seed {seed}: a reply in the midst of the stream");
        cluster.disconnect(reader);
        cluster.settle();
        assert!(cluster.call(writer, &["INFO", "replication"]).contains("\nconnected_slaves:0\r\n"));
    }
}

/// The time of the simulated server when it starts.
const NOW_MS: i64 = 1_700_000_000_000;

/// Requests and effects are separated by `;`. `<+5>` stands for five milliseconds after the start.
fn leaves(server: &mut Server, replica: &mut Replica, requests: &str, effects: &[&str]) {
    let absolute = |text: &str| {
        let mut text = text.to_string();
        while let (Some(open), Some(close)) = (text.find('<'), text.find('>')) {
            let ms: i64 = text[open + 1..close].parse().expect("milliseconds");
            text.replace_range(open..=close, &(NOW_MS + ms).to_string());
        }
        text
    };
    for request in absolute(requests).split("; ") {
        let reply = server.call(request);
        assert!(!reply.starts_with("-ERR syntax"), "{request}: {reply}");
    }
    let effects: Vec<String> = effects.iter().map(|effect| absolute(effect)).collect();
    assert_eq!(replica.read(server), effects, "{requests}");
}

/// Each line: requests, and after the arrow their effects. The lines run in order, on the data that earlier ones left.
const ONE_KEY: &[(&str, &[&str])] = &[
    ("SET k v", &["SELECT 0", "SET k v"]),
    ("GET k; STRLEN k; EXISTS k; TTL k; TYPE k", &[]),
    ("set k v2 nx", &[]),
    ("set k v2 xx", &["set k v2 xx"]),
    ("SET k v GET", &["SET k v"]),
    ("SET k v get KEEPTTL GET", &["SET k v KEEPTTL"]),
    ("SET k v EX 10", &["SET k v PXAT <+10000>"]),
    ("SET k v px 10 get", &["SET k v PXAT <+10>"]),
    ("SET k v EXAT 1700000100 XX", &["SET k v PXAT <+100000>"]),
    ("SET k v PXAT 1700000100000", &["SET k v PXAT <+100000>"]),
    ("SETEX k 10 v", &["SET k v PXAT <+10000>"]),
    ("PSETEX k 10 v", &["SET k v PXAT <+10>"]),
    ("SETNX k w", &[]),
    ("SETNX new w", &["SETNX new w"]),
    ("GETSET k w", &["SET k w"]),
    ("APPEND k x", &["APPEND k x"]),
    ("SETRANGE k 1 yy", &["SETRANGE k 1 yy"]),
    ("SETRANGE k 1 ", &[]),
    ("INCR n; DECR n; INCRBY n 5; DECRBY n 2", &["INCR n", "DECR n", "INCRBY n 5", "DECRBY n 2"]),
    ("INCR k", &[]),
    ("INCRBYFLOAT n 0.5", &["SET n 3.5 KEEPTTL"]),
    ("INCRBYFLOAT f 1e2", &["SET f 100 KEEPTTL"]),
    ("EXPIRE k 10", &["PEXPIREAT k <+10000>"]),
    ("PEXPIRE k 10 XX", &["PEXPIREAT k <+10> XX"]),
    ("EXPIREAT k 1700000100 GT", &["PEXPIREAT k <+100000> GT"]),
    ("PEXPIREAT k <+50> LT", &["PEXPIREAT k <+50> LT"]),
    ("PEXPIRE k 1000 NX", &[]),
    ("EXPIRE none 10", &[]),
    ("PERSIST k", &["PERSIST k"]),
    ("PERSIST k", &[]),
    ("GETEX k", &[]),
    ("GETEX k EX 10", &["PEXPIREAT k <+10000>"]),
    ("GETEX k PXAT <+50>", &["PEXPIREAT k <+50>"]),
    ("GETEX k PERSIST", &["PERSIST k"]),
    ("GETEX k PERSIST", &[]),
    ("GETEX k PXAT <-50>", &["DEL k"]),
    ("GETEX k PX 5", &[]),
    ("SET k v; EXPIRE k -1", &["SET k v", "DEL k"]),
    ("SET k v; EXPIREAT k 1", &["SET k v", "DEL k"]),
    ("CONFIG SET lazyfree-lazy-expire yes; SET k v; PEXPIREAT k 1", &["SET k v", "UNLINK k"]),
    ("CONFIG SET lazyfree-lazy-expire no", &[]),
    ("SET k v; GETDEL k", &["SET k v", "DEL k"]),
    ("CONFIG SET lazyfree-lazy-user-del yes; SET k v; GETDEL k", &["SET k v", "UNLINK k"]),
    ("CONFIG SET lazyfree-lazy-user-del no; GETDEL k", &[]),
    ("SET k v; MOVE k 1; MOVE k 1", &["SET k v", "MOVE k 1"]),
    ("DEL none; UNLINK none", &[]),
    ("DEL n; UNLINK f", &["DEL n", "UNLINK f"]),
    ("SELECT 1; DEL k; SELECT 0", &["SELECT 1", "DEL k"]),
    ("MSETNX a{t} 1 b{t} 2; MSETNX a{t} 1 c{t} 2", &["SELECT 0", "MSETNX a{t} 1 b{t} 2"]),
    ("MSET a{t} 1 b{t} 2", &["MSET a{t} 1 b{t} 2"]),
    ("COPY a{t} c{t}; COPY a{t} c{t}", &["COPY a{t} c{t}"]),
    ("RENAME c{t} d{t}; RENAMENX d{t} a{t}", &["RENAME c{t} d{t}"]),
    ("RENAMENX d{t} c{t}", &["RENAMENX d{t} c{t}"]),
    ("RENAME none{t} d{t}", &[]),
    ("DEL a{t} none{t} b{t}", &["DEL a{t} none{t} b{t}"]),
    ("SWAPDB 0 1", &["SWAPDB 0 1"]),
    ("SWAPDB 0 1", &["SWAPDB 0 1"]),
    ("FLUSHDB", &["FLUSHDB"]),
    ("FLUSHALL ASYNC; FLUSHALL", &["FLUSHALL ASYNC", "FLUSHALL"]),
    ("KEYS *; SCAN 0; DBSIZE; RANDOMKEY; PING; INFO", &[]),
];

#[test]
fn a_command_of_one_shard_leaves_an_effect_with_the_same_result_at_another_time() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        for (requests, effects) in ONE_KEY {
            leaves(server, &mut replica, requests, effects);
        }
    });
}

#[test]
fn an_expired_key_is_deleted_before_the_command_that_finds_it() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut replica = Replica::attach(server);
        let rounds: [(&str, &[&str]); 16] = [
            ("GET k", &["DEL k"]),
            ("TTL k", &["DEL k"]),
            ("GETDEL k", &["DEL k"]),
            ("INCR k", &["MULTI", "DEL k", "INCR k", "EXEC"]),
            ("EXPIRE k 10", &["DEL k"]),
            ("SET k w NX", &["MULTI", "DEL k", "SET k w NX", "EXEC"]),
            ("APPEND k w", &["MULTI", "DEL k", "APPEND k w", "EXEC"]),
            // The same for commands that overwrite the key without reading it.
            ("SET k w", &["MULTI", "DEL k", "SET k w", "EXEC"]),
            ("SET k w KEEPTTL", &["MULTI", "DEL k", "SET k w KEEPTTL", "EXEC"]),
            ("SETNX k w", &["MULTI", "DEL k", "SETNX k w", "EXEC"]),
            ("GETSET k w", &["MULTI", "DEL k", "SET k w", "EXEC"]),
            ("MSET k w", &["MULTI", "DEL k", "MSET k w", "EXEC"]),
            ("MSETNX k w", &["MULTI", "DEL k", "MSETNX k w", "EXEC"]),
            ("RENAME other k", &["MULTI", "DEL k", "RENAME other k", "EXEC"]),
            ("COPY other k REPLACE", &["MULTI", "DEL k", "COPY other k REPLACE", "EXEC"]),
            ("CONFIG SET lazyfree-lazy-expire yes; SET k w", &["MULTI", "UNLINK k", "SET k w", "EXEC"]),
        ];
        for (request, effects) in rounds {
            server.call("SET other 1");
            server.call("SET k 1 PX 1");
            server.wait_ms(5);
            replica.read(server);
            let expired = server.sum(|stats| stats.expired_keys.get());
            leaves(server, &mut replica, request, effects);
            assert_eq!(server.sum(|stats| stats.expired_keys.get()) - expired, 1, "{request}");
        }
    });
}

#[test]
fn keys_removed_by_the_expiry_cycle_or_by_a_scan_are_units_of_their_own() {
    on_one_and_three_shards(|server| {
        let active = &server.cluster.workers[0].globals.active_expire;
        active.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut replica = Replica::attach(server);
        for request in ["SET a 1 PX 1", "SET b 1 PX 1", "SET c 1 PX 500", "SET d 1 PX 500"] {
            server.call(request);
        }
        replica.read(server);

        server.wait_ms(5);
        server.call("SCAN 0");
        let mut met = replica.read(server);
        met.sort();
        assert_eq!(met, ["DEL a", "DEL b"]);

        active.store(true, std::sync::atomic::Ordering::Relaxed);
        server.wait_ms(1000);
        server.cluster.tick();
        let mut expired = replica.read(server);
        expired.sort();
        assert_eq!(expired, ["DEL c", "DEL d"]);
    });
}

#[test]
fn an_expired_key_of_another_database_is_deleted_there() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut replica = Replica::attach(server);
        leaves(
            server,
            &mut replica,
            "SELECT 1; SET k old PX 1; SELECT 0; SET k new",
            &["SELECT 1", "SET k old PXAT <+1>", "SELECT 0", "SET k new"],
        );
        server.wait_ms(5);
        let effects = ["SELECT 1", "MULTI", "DEL k", "SELECT 0", "MOVE k 1", "EXEC"];
        leaves(server, &mut replica, "MOVE k 1", &effects);
    });
}

#[test]
fn each_reader_begins_with_the_database_and_without_readers_nothing_is_recorded() {
    on_one_and_three_shards(|server| {
        let is_on =
            |server: &Server| server.cluster.workers.iter().any(|worker| worker.shard.effects.is_on());
        assert!(!is_on(server));
        let mut first = Replica::attach(server);
        leaves(server, &mut first, "SET a 1", &["SELECT 0", "SET a 1"]);

        let mut second = Replica::attach(server);
        leaves(server, &mut second, "SET a 2", &["SELECT 0", "SET a 2"]);
        assert_eq!(first.read(server), ["SELECT 0", "SET a 2"], "one stream for all");

        server.cluster.disconnect(first.client);
        leaves(server, &mut second, "SET a 3", &["SET a 3"]);
        server.cluster.disconnect(second.client);
        server.cluster.settle();
        assert!(!is_on(server));

        let mut third = Replica::attach(server);
        leaves(server, &mut third, "SET a 4", &["SELECT 0", "SET a 4"]);
    });
}

#[test]
fn when_a_transaction_kills_the_last_reader_nothing_more_is_recorded() {
    on_one_and_three_shards(|server| {
        for others in [false, true] {
            let reader = Replica::attach(server);
            let mut other = others.then(|| Replica::attach(server));
            let list = server.call("CLIENT LIST TYPE replica");
            let id =
                list.lines().find_map(|line| line.strip_prefix("id=")?.split(' ').next()).expect("it reads");
            let kill = format!("CLIENT KILL ID {id}");
            for request in ["MULTI", "SET a 1", "SET b 1", &kill, "SET a 2", "SET b 2", "EXEC"] {
                server.call(request);
            }
            assert!(!server.cluster.is_open(reader.client));
            let workers = &server.cluster.workers;
            assert!(workers.iter().all(|worker| worker.shard.effects.is_on() == others));
            if let Some(other) = &mut other {
                let sets = ["SET a 1", "SET b 1", "SET a 2", "SET b 2"];
                let effects = [&["SELECT 0", "MULTI"][..], &sets, &["EXEC"]].concat();
                assert_eq!(other.read(server), effects);
            }
        }
    });
}

#[test]
fn the_arguments_of_replconf_are_checked() {
    on_one_and_three_shards(|server| {
        for (request, reply) in [
            (&["REPLCONF", "rdb-filter-only", ""][..], "+OK\r\n"),
            (&["REPLCONF", "rdb-filter-only", "functions FUNCTIONS"], "+OK\r\n"),
            (
                &["REPLCONF", "rdb-filter-only", "functions keys"],
                "-ERR Unsupported rdb-filter-only option: keys\r\n",
            ),
            (&["REPLCONF", "rdb-filter-only", "\"x"], "-ERR Missing rdb-filter-only values\r\n"),
            (&["REPLCONF", "rdb-filter-only"], "-ERR syntax error\r\n"),
            (&["REPLCONF", "capa", "eof", "capa", "psync2"], "+OK\r\n"),
            (&["REPLCONF", "listening-port", "x"], "-ERR value is not an integer or out of range\r\n"),
            (&["REPLCONF", "x", "y"], "-ERR Unrecognized REPLCONF option: x\r\n"),
        ] {
            assert_eq!(server.call_args(request), reply, "{request:?}");
        }
    });
}

#[test]
fn writes_are_refused_while_too_few_replicas_keep_up() {
    on_one_and_three_shards(|server| {
        let refused = "-NOREPLICAS Not enough good replicas to write.";
        let abort =
            "-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.";
        server.expect(&[("SET a 1", "+OK"), ("MULTI", "+OK"), ("INCR a", "+QUEUED"), ("INCR b", "+QUEUED")]);
        let other = server.cluster.connect(0);
        assert_eq!(server.cluster.call(other, &["CONFIG", "SET", "min-replicas-to-write", "1"]), "+OK\r\n");
        server.expect(&[
            ("EXEC", abort),
            ("SET a 2", refused),
            ("MSET a 2 b 2 c 2", refused),
            ("MGET a b c", &format!("*3\r\n{}\r\n{NULL}\r\n{NULL}", bulk("1"))),
            ("MULTI", "+OK"),
            ("GET a", "+QUEUED"),
            ("EXEC", &format!("*1\r\n{}", bulk("1"))),
            ("MULTI", "+OK"),
            ("SET b 1", refused),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
        ]);
        assert!(server.call("INFO replication").contains("\nmin_slaves_good_slaves:0\r\n"));

        let replica = Replica::attach(server);
        assert!(server.call("INFO replication").contains("\nmin_slaves_good_slaves:1\r\n"));
        server.expect(&[("SET a 2", "+OK"), ("MSET a 3 b 3 c 3", "+OK")]);
        server.wait_ms(10_000);
        server.expect(&[("SET a 4", "+OK")]);
        server.wait_ms(1);
        server.expect(&[
            ("SET a 5", refused),
            ("CONFIG SET min-replicas-max-lag 0", "+OK"),
            ("SET a 5", "+OK"),
        ]);
        server.expect(&[("CONFIG SET min-replicas-max-lag 10", "+OK"), ("SET a 6", refused)]);
        server.cluster.request(replica.client, &["REPLCONF", "ACK", "0"]);
        server.cluster.settle();
        server.expect(&[("SET a 6", "+OK")]);
    });
}

#[test]
fn a_transaction_is_one_unit_in_the_order_of_its_commands() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        // The keys `a`, `b` and `c` are each on a different shard.
        leaves(
            server,
            &mut replica,
            "MULTI; SET a 1; GET b; INCR c; SET b 1 EX 10; DEL none; EXEC",
            &["SELECT 0", "MULTI", "SET a 1", "INCR c", "SET b 1 PXAT <+10000>", "EXEC"],
        );
        leaves(
            server,
            &mut replica,
            "MULTI; INCR c; RENAME a d; SELECT 1; SET a 2; SET b 2; EXEC",
            &["MULTI", "INCR c", "RENAME a d", "SELECT 1", "SET a 2", "SET b 2", "EXEC"],
        );
        leaves(
            server,
            &mut replica,
            "SELECT 0; MULTI; APPEND d x; INCR d; EXEC",
            &["SELECT 0", "APPEND d x"],
        );
        leaves(server, &mut replica, "MULTI; EXEC; MULTI; GET a; MGET a b c; DEL none; EXEC", &[]);
        leaves(
            server,
            &mut replica,
            "MULTI; COPY b e; FLUSHALL; COPY d f; SWAPDB 0 1; INCR a; EXEC",
            &["MULTI", "COPY b e", "FLUSHALL", "SWAPDB 0 1", "INCR a", "EXEC"],
        );
        leaves(server, &mut replica, "MULTI; SET a 1; FLUSHALL x; EXEC", &["SET a 1"]);
    });
}

#[test]
fn a_transaction_whose_watched_key_changed_has_no_effects() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let effects = ["SELECT 0", "SET b 1"];
        leaves(server, &mut replica, "WATCH b; SET b 1; MULTI; SET a 1; SET c 1; EXEC", &effects);
        leaves(
            server,
            &mut replica,
            "WATCH b; MULTI; SET a 1; SET c 1; EXEC",
            &["MULTI", "SET a 1", "SET c 1", "EXEC"],
        );
    });
}

#[test]
fn a_command_over_several_shards_is_one_unit() {
    let mut server = Server::new(3);
    let mut replica = Replica::attach(&mut server);
    leaves(
        &mut server,
        &mut replica,
        "MSETNX a 1 b 2 c 3; MSETNX a 1 d 1",
        &["SELECT 0", "MSETNX a 1 b 2 c 3"],
    );
    leaves(&mut server, &mut replica, "RENAME a b; COPY b a", &["RENAME a b", "COPY b a"]);
    for (request, mut effects) in [
        ("MSET a 1 b 2 c 3", ["MULTI", "MSET a 1", "MSET b 2", "MSET c 3", "EXEC"]),
        ("DEL a b c", ["MULTI", "DEL a", "DEL b", "DEL c", "EXEC"]),
    ] {
        server.call(request);
        let mut unit = replica.read(&mut server);
        // The shards' pieces are about different keys, so their order does not matter.
        unit[1..4].sort();
        effects[1..4].sort();
        assert_eq!(unit, effects);
    }
}

#[test]
fn an_expired_key_that_is_checked_out_is_deleted_before_the_command() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut replica = Replica::attach(server);
        server.call("SET a 1");
        server.call("SET b 1 PX 1");
        server.wait_ms(5);
        replica.read(server);
        leaves(server, &mut replica, "RENAMENX a b", &["MULTI", "DEL b", "RENAMENX a b", "EXEC"]);
        server.call("SET a 1 PX 1");
        server.wait_ms(5);
        replica.read(server);
        leaves(server, &mut replica, "RENAME a c; MULTI; COPY a c; INCR c; EXEC", &["DEL a", "INCR c"]);
    });
}

#[test]
fn a_script_says_for_whom_its_writes_are_recorded() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let script = "redis.call('set', 'a', 1); redis.set_repl(redis.REPL_NONE); redis.call('set', 'b', 2); \
                      redis.set_repl(redis.REPL_AOF); redis.call('set', 'c', 3); \
                      redis.set_repl(redis.REPL_REPLICA); redis.call('set', 'd', 4); \
                      redis.set_repl(redis.REPL_ALL); redis.call('set', 'e', 5)";
        assert_eq!(server.call_args(&["EVAL", script, "0"]), "$-1\r\n");
        let effects = ["SELECT 0", "MULTI", "set a 1", "set d 4", "set e 5", "EXEC"];
        assert_eq!(replica.read(server), effects);
        server.expect(&[("MGET a b c d e", "*5\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5")]);
    });
}

/// A pause is there so that nothing more comes into the stream.
#[test]
fn acknowledgements_are_asked_for_when_a_pause_is_over() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let waiting = server.cluster.connect(0);
        assert_eq!(server.cluster.call(waiting, &["SET", "a", "1"]), "+OK\r\n");
        assert_eq!(server.call("CLIENT PAUSE 100000 WRITE"), "+OK\r\n");
        server.cluster.request(waiting, &["WAIT", "1", "0"]);
        server.cluster.settle();
        server.cluster.tick();
        assert_eq!(replica.read(server), ["SELECT 0", "SET a 1"]);
        assert_eq!(server.call("CLIENT UNPAUSE"), "+OK\r\n");
        server.cluster.tick();
        assert_eq!(replica.read(server), ["REPLCONF GETACK *"]);
        assert_eq!(server.cluster.received(waiting), b"", "nobody has acknowledged it");
    });
}
