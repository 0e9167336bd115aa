//! MULTI, EXEC, DISCARD, WATCH, UNWATCH over one shard and several, and handlers over keys of several shards.
//!
//! On three shards the client is on shard 2, with the keys a, d, e and h; b and f are on shard 0, c and g on shard 1.

use super::{NULL, Server, bulk, on_one_and_three_shards};
use crate::cluster::Cluster;

/// Queues commands and runs them. Returns the reply to EXEC.
fn exec(server: &mut Server, commands: &[&str]) -> String {
    exec_of(&mut server.cluster, server.client, commands)
}

fn exec_of(cluster: &mut Cluster, client: usize, commands: &[&str]) -> String {
    let call =
        |cluster: &mut Cluster, words: &str| cluster.call(client, &words.split(' ').collect::<Vec<_>>());
    assert_eq!(call(cluster, "MULTI"), "+OK\r\n");
    for words in commands {
        assert_eq!(call(cluster, words), "+QUEUED\r\n", "{words}");
    }
    call(cluster, "EXEC")
}

/// An array reply of these elements, given without their last line end.
fn array(elements: &[&str]) -> String {
    let lines: String = elements.iter().map(|element| format!("{element}\r\n")).collect();
    format!("*{}\r\n{lines}", elements.len())
}

#[test]
fn the_queue_runs_where_its_keys_are() {
    on_one_and_three_shards(|server| {
        for keys in [["a", "d"], ["c", "g"], ["b", "c"], ["a", "b"]] {
            let [first, second] = keys;
            server.call("FLUSHALL");
            let set = format!("SET {first} 1");
            let incr = format!("INCR {first}");
            let get = format!("GET {second}");
            let reply = exec(server, &[&set, "PING", &incr, &get, &format!("APPEND {second} xy")]);
            assert_eq!(reply, array(&["+OK", "+PONG", ":2", NULL, ":2"]), "{keys:?}");
            assert_eq!(server.call(&format!("MGET {first} {second}")), array(&["$1\r\n2", "$2\r\nxy"]));
        }
    });
}

#[test]
fn nothing_runs_before_exec_and_nothing_at_all_with_discard() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("SET b 1", "+QUEUED"),
            ("DISCARD", "+OK"),
            ("EXISTS a b", ":0"),
            ("MULTI", "+OK"),
            ("EXEC", "*0"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("DISCARD", "-ERR DISCARD without MULTI"),
            ("UNWATCH", "+OK"),
        ]);
        let other = server.cluster.connect(0);
        server.expect(&[("MULTI", "+OK"), ("SET b 1", "+QUEUED")]);
        assert_eq!(server.cluster.call(other, &["GET", "b"]), "$-1\r\n");
        server.expect(&[("EXEC", "*1\r\n+OK")]);
        assert_eq!(server.cluster.call(other, &["GET", "b"]), "$1\r\n1\r\n");
    });
}

#[test]
fn a_command_that_cannot_be_queued_fails_the_exec() {
    on_one_and_three_shards(|server| {
        let abort = "-EXECABORT Transaction discarded because of previous errors.";
        server.expect(&[
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("NONSENSE x", "-ERR unknown command 'NONSENSE', with args beginning with: 'x' "),
            ("SET b 1", "+QUEUED"),
            ("EXEC", abort),
            ("MULTI", "+OK"),
            ("SET a", "-ERR wrong number of arguments for 'set' command"),
            ("EXEC", abort),
            ("MULTI", "+OK"),
            ("SHUTDOWN", "-ERR Command not allowed inside a transaction"),
            ("EXEC", abort),
            ("MULTI", "+OK"),
            (
                "EXEC now",
                "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
            ),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("EXISTS a b", ":0"),
            // These are refused without failing the transaction.
            ("MULTI", "+OK"),
            ("MULTI", "-ERR MULTI calls can not be nested"),
            ("WATCH a b", "-ERR WATCH inside MULTI is not allowed"),
            ("SET a 1", "+QUEUED"),
            ("EXEC", "*1\r\n+OK"),
        ]);
        assert_eq!(server.sum(|stats| stats.exec_aborted_by_error.get()), 4);
    });
}

#[test]
fn an_error_at_run_time_leaves_the_others_alone() {
    on_one_and_three_shards(|server| {
        let not_integer = "-ERR value is not an integer or out of range";
        server.call("MSET a x c x");
        for commands in [["INCR a", "SET d 1"], ["INCR c", "SET g 1"], ["INCR c", "SET b 1"]] {
            assert_eq!(exec(server, &commands), array(&[not_integer, "+OK"]));
        }
        assert_eq!(
            exec(server, &["RENAME none c", "MSET a 1 b", "SET d 2"]),
            array(&["-ERR no such key", "-ERR wrong number of arguments for 'mset' command", "+OK",])
        );
        server.expect(&[("GET d", "$1\r\n2"), ("GET g", "$1\r\n1"), ("GET b", "$1\r\n1")]);
    });
}

#[test]
fn commands_over_several_keys_and_over_all_of_them_are_queued_like_others() {
    on_one_and_three_shards(|server| {
        let reply = exec(
            server,
            &[
                "MSET a 1 b 2 c 3",
                "MGET a b c d",
                "DEL b none",
                "EXISTS a b c",
                "DBSIZE",
                "RENAME a b",
                "GET b",
                "COPY b g",
                "MSETNX f 5 b 6",
                "MSETNX f 5 h 6",
                "MGET a b c f g h",
                "FLUSHALL",
                "RANDOMKEY",
                "SET c 7",
                "KEYS *",
                "RANDOMKEY",
                "DBSIZE",
            ],
        );
        assert_eq!(
            reply,
            array(&[
                "+OK",
                "*4\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$-1",
                ":1",
                ":2",
                ":2",
                "+OK",
                "$1\r\n1",
                ":1",
                ":0",
                ":1",
                "*6\r\n$-1\r\n$1\r\n1\r\n$1\r\n3\r\n$1\r\n5\r\n$1\r\n1\r\n$1\r\n6",
                "+OK",
                NULL,
                "+OK",
                "*1\r\n$1\r\nc",
                "$1\r\nc",
                ":1",
            ])
        );
    });
}

#[test]
fn commands_over_the_session_run_in_their_place() {
    on_one_and_three_shards(|server| {
        let reply = exec(
            server,
            &[
                "SET a 1",
                "SELECT 3",
                "SET a 2",
                "SET b 2",
                "CLIENT SETNAME me",
                "SELECT 99",
                "CLIENT GETNAME",
                "SELECT 4",
                "SWAPDB 3 4",
                "GET a",
                "GET b",
            ],
        );
        assert_eq!(
            reply,
            array(&[
                "+OK",
                "+OK",
                "+OK",
                "+OK",
                "+OK",
                "-ERR DB index is out of range",
                "$2\r\nme",
                "+OK",
                "+OK",
                "$1\r\n2",
                "$1\r\n2",
            ])
        );
        server.expect(&[("GET a", "$1\r\n2"), ("SELECT 0", "+OK"), ("GET a", "$1\r\n1"), ("GET b", NULL)]);
        // Only a SELECT, and keys on another shard.
        assert_eq!(
            exec(server, &["SELECT 5", "SET b 5", "SELECT 0", "GET b"]),
            array(&["+OK", "+OK", "+OK", NULL])
        );
        server.expect(&[("SELECT 5", "+OK"), ("GET b", "$1\r\n5")]);
    });
}

#[test]
fn a_transaction_speaks_the_protocol_of_its_client() {
    on_one_and_three_shards(|server| {
        server.call("HELLO 3");
        assert_eq!(exec(server, &["GET a", "GET b"]), array(&["_", "_"]));
        assert_eq!(exec(server, &["GET b"]), array(&["_"]));
        server.call("WATCH b c");
        let other = server.cluster.connect(0);
        server.cluster.call(other, &["SET", "c", "1"]);
        assert_eq!(exec(server, &["GET a"]), "_\r\n");
        let hello = exec(server, &["GET f", "HELLO 2", "GET f", "GET c"]);
        assert!(hello.starts_with("*4\r\n_\r\n*14\r\n"), "{hello}");
        assert!(hello.ends_with("\r\n$-1\r\n$1\r\n1\r\n"), "{hello}");
    });
}

/// Watches `watched`, lets another client call `change`, and returns whether EXEC runs then.
fn survives(server: &mut Server, watched: &str, change: &[&str]) -> bool {
    let other = server.cluster.connect(0);
    assert_eq!(server.call(&format!("WATCH {watched}")), "+OK\r\n");
    for words in change {
        let reply = server.cluster.call(other, &words.split(' ').collect::<Vec<_>>());
        assert!(!reply.starts_with("-ERR unknown"), "{words}: {reply}");
    }
    server.cluster.disconnect(other);
    let reply = exec(server, &["PING"]);
    assert!(reply == "*-1\r\n" || reply == array(&["+PONG"]), "{reply}");
    reply != "*-1\r\n"
}

#[test]
fn exec_runs_only_if_no_watched_key_has_changed() {
    on_one_and_three_shards(|server| {
        for key in ["a", "b", "c"] {
            let change = |verb: &str| verb.replace('K', key);
            server.call("FLUSHALL");
            assert!(survives(server, key, &[]));
            assert!(survives(
                server,
                key,
                &["GET a", "SET x{other} 1", "DEL none", "SELECT 1", &change("SET K 1")]
            ));
            assert!(!survives(server, key, &[&change("SET K 1")]));
            assert!(survives(server, key, &[&change("GET K"), &change("TTL K"), &change("SETNX K 2")]));
            for verb in [
                "SET K 1",
                "APPEND K x",
                "SETRANGE K 0 7",
                "EXPIRE K 100",
                "PERSIST K",
                "GETEX K EX 5",
                "INCR K",
                "RENAME K h",
                "COPY h K",
                "MOVE K 9",
                "MSET K 5 z 6",
                "GETDEL K",
                "RENAME h K",
                "FLUSHDB",
                "SELECT 0",
                "SETEX K 100 v",
                "FLUSHALL",
            ] {
                if verb == "SELECT 0" {
                    server.call(&change("SET K 1"));
                    continue;
                }
                if verb == "INCR K" {
                    server.call(&change("SET K 1"));
                }
                assert!(!survives(server, key, &[&change(verb)]), "{verb} {key}");
            }
        }
    });
}

#[test]
fn watched_keys_are_those_of_their_database_on_any_shard() {
    on_one_and_three_shards(|server| {
        server.call("MSET a 1 b 1 c 1 d 1");
        assert!(survives(server, "a b c d", &["SET e 1"]));
        for key in ["a", "b", "c", "d"] {
            assert!(!survives(server, "a b c d", &[&format!("SET {key} 2")]), "{key}");
        }
        server.call("SELECT 1");
        assert!(survives(server, "a b", &["SET a 2", "SET b 2"]));
        assert!(!survives(server, "a b", &["SELECT 1", "SET b 2"]));
        // The keys of the transaction and the watched keys need not be the same, nor on the same shard.
        server.call("WATCH b");
        assert_eq!(exec(server, &["SET a 5", "SET c 5"]), array(&["+OK", "+OK"]));
        server.call("WATCH a");
        assert_eq!(exec(server, &["SET b 5"]), array(&["+OK"]));
        server.call("WATCH c");
        let other = server.cluster.connect(0);
        for words in ["SELECT 1", "SET c 1"] {
            server.cluster.call(other, &words.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(exec(server, &["SET a 6", "SET b 6", "SET f 6"]), "*-1\r\n");
        server.expect(&[("MGET a b f", "*3\r\n$1\r\n5\r\n$1\r\n5\r\n$-1")]);
    });
}

#[test]
fn swapping_or_flushing_a_database_touches_keys_that_existed_or_exist_now() {
    on_one_and_three_shards(|server| {
        for key in ["a", "b"] {
            server.call("FLUSHALL");
            assert!(survives(server, key, &["FLUSHALL", "FLUSHDB", "SWAPDB 0 1"]), "no database has the key");
            server.call(&format!("SET {key} 1"));
            assert!(survives(server, key, &["SWAPDB 0 0", "SWAPDB 2 3"]));
            assert!(!survives(server, key, &["SWAPDB 0 1"]), "the key disappears");
            assert!(!survives(server, key, &["SWAPDB 0 1"]), "the key appears");
            assert!(!survives(server, key, &["FLUSHALL"]));
        }
    });
}

#[test]
fn a_key_that_expires_has_changed_unless_its_time_was_up_when_it_was_watched() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.active_expire.store(false, std::sync::atomic::Ordering::Relaxed);
        for key in ["a", "b"] {
            server.call(&format!("SET {key} 1 PX 100"));
            server.call(&format!("WATCH {key}"));
            server.wait_ms(101);
            assert_eq!(exec(server, &["PING"]), "*-1\r\n");
            // It has expired, but was not removed yet.
            assert!(survives(server, key, &[]));
            assert!(survives(server, key, &[&format!("EXISTS {key}")]), "removing it changes nothing");
            server.call(&format!("SET {key} 1 PX 100"));
            server.wait_ms(101);
            assert!(survives(server, key, &["FLUSHALL"]));
            server.call(&format!("SET {key} 1 PX 100"));
            server.wait_ms(101);
            assert!(survives(server, key, &["SWAPDB 0 1"]));
            assert!(survives(server, key, &["SWAPDB 0 1"]));
            assert!(!survives(server, key, &[&format!("SET {key} 2")]));
        }
    });
}

#[test]
fn a_client_that_stops_watching_is_unregistered() {
    on_one_and_three_shards(|server| {
        let watchers = |server: &Server| -> usize {
            let workers = &server.cluster.workers;
            workers.iter().map(|worker| worker.shard.observers.watch().client_count()).sum()
        };
        server.call("WATCH a b c");
        assert!(watchers(server) > 0);
        for words in ["UNWATCH", "RESET"] {
            server.call("WATCH a b c");
            server.call(words);
            assert_eq!(watchers(server), 0, "{words}");
        }
        server.call("WATCH a b c");
        server.expect(&[("SET b 1", "+OK"), ("MULTI", "+OK"), ("DISCARD", "+OK")]);
        assert_eq!(watchers(server), 0);
        assert_eq!(exec(server, &["PING"]), array(&["+PONG"]));
        server.call("WATCH a b c");
        assert_eq!(exec(server, &["PING"]), array(&["+PONG"]));
        assert_eq!(watchers(server), 0);
        server.call("WATCH a");
        server.expect(&[("MULTI", "+OK"), ("SET a", "-ERR wrong number of arguments for 'set' command")]);
        server.call("EXEC");
        assert_eq!(watchers(server), 0);

        let other = server.cluster.connect(0);
        server.cluster.call(other, &["WATCH", "a", "b", "c"]);
        server.cluster.disconnect(other);
        server.cluster.settle();
        assert_eq!(watchers(server), 0);
    });
}

#[test]
fn a_client_that_disconnects_while_its_watch_is_under_way_is_unregistered_too() {
    for seed in 0..100 {
        let mut cluster = Cluster::new(3, seed);
        let (dying, busy) = (cluster.connect(0), cluster.connect(1));
        cluster.request(busy, &["MSET", "a", "1", "b", "1", "c", "1"]);
        cluster.request(dying, &["WATCH", "a", "b", "c"]);
        for _ in 0..cluster.random.below(15) {
            cluster.step();
        }
        cluster.disconnect(dying);
        cluster.settle();
        let watchers = cluster.workers.iter().map(|worker| worker.shard.observers.watch().client_count());
        assert_eq!(watchers.sum::<usize>(), 0, "seed {seed}");
        assert!(cluster.is_at_rest(), "seed {seed}");
    }
}

#[test]
fn pipelined_transactions_are_answered_in_order() {
    on_one_and_three_shards(|server| {
        let Server { cluster, client } = server;
        let mut expected = String::new();
        for n in 0..40 {
            for words in
                [&["MULTI"][..], &["INCR", "b"], &["INCR", "f"], &["EXEC"], &["INCR", "a"], &["GET", "b"]]
            {
                cluster.request(*client, words);
            }
            let next = n + 1;
            expected += "+OK\r\n+QUEUED\r\n+QUEUED\r\n";
            expected += &format!("*2\r\n:{next}\r\n:{next}\r\n:{next}\r\n{}\r\n", bulk(&next.to_string()));
        }
        cluster.settle();
        assert_eq!(String::from_utf8(cluster.received(*client)).unwrap(), expected);
    });
}

#[test]
fn client_reply_leaves_out_queued_and_exec_alike() {
    on_one_and_three_shards(|server| {
        let Server { cluster, client } = server;
        for words in [
            &["CLIENT", "REPLY", "OFF"][..],
            &["MULTI"],
            &["SET", "a", "1"],
            &["SET", "b", "1"],
            &["EXEC"],
            &["CLIENT", "REPLY", "ON"],
            &["MULTI"],
            &["INCR", "b"],
            &["CLIENT", "REPLY", "SKIP"],
            &["EXEC"],
        ] {
            cluster.request(*client, words);
        }
        cluster.settle();
        // SKIP is queued, and so applies to the command after the EXEC that runs it.
        let received = String::from_utf8(cluster.received(*client)).unwrap();
        assert!(received.starts_with("+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:2\r\n"), "{received}");
    });
}

/// With the replies of Redis 7.0.15.
#[test]
fn client_reply_in_exec_holds_from_where_it_stands() {
    let queued = |count: usize| "+QUEUED\r\n".repeat(count);
    on_one_and_three_shards(|server| {
        let Server { cluster, client } = server;
        let mut replies = |requests: &[&str]| {
            for request in requests {
                let words: Vec<&str> = request.split(' ').collect();
                cluster.request(*client, &words);
            }
            cluster.settle();
            String::from_utf8(cluster.received(*client)).unwrap()
        };
        let off = ["MULTI", "SET a 1", "SET b 1", "CLIENT REPLY OFF", "SET b 1", "EXEC", "PING"];
        assert_eq!(replies(&off), format!("+OK\r\n{}*4\r\n+OK\r\n+OK\r\n", queued(4)));

        let on = ["MULTI", "SET a 1", "SET b 1", "CLIENT REPLY ON", "GET a", "MGET a b", "EXEC", "PING"];
        assert_eq!(replies(&on), "+OK\r\n$1\r\n1\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n+PONG\r\n");

        let off_and_on =
            ["MULTI", "GET a", "CLIENT REPLY OFF", "RENAME a c", "CLIENT REPLY ON", "GET c", "EXEC"];
        let expected = format!("+OK\r\n{}*5\r\n$1\r\n1\r\n+OK\r\n$1\r\n1\r\n", queued(5));
        assert_eq!(replies(&off_and_on), expected);

        let watched = [
            "CLIENT REPLY OFF",
            "WATCH b c",
            "SET b 2",
            "MULTI",
            "GET b",
            "GET c",
            "CLIENT REPLY ON",
            "EXEC",
        ];
        assert_eq!(replies(&watched), "");
        assert_eq!(replies(&["CLIENT REPLY ON"]), "+OK\r\n");
    });
}

/// As Redis 7.0.15: the commands after it run, but get no reply.
#[test]
fn a_client_that_kills_itself_in_exec_gets_the_replies_up_to_that() {
    for stages in
        [&["SET b 2"][..], &["SET b 2", "RENAME a c", "GET c"], &["GET a", "CLIENT GETNAME", "SET b 2"]]
    {
        on_one_and_three_shards(|server| {
            let Server { cluster, client } = server;
            let mut requests = vec!["MULTI", "SET a 1", "CLIENT KILL TYPE normal SKIPME no"];
            requests.extend(stages);
            let queued = "+QUEUED\r\n".repeat(requests.len() - 1);
            requests.push("EXEC");
            for request in &requests {
                cluster.request(*client, &request.split(' ').collect::<Vec<_>>());
            }
            cluster.settle();
            let received = String::from_utf8(cluster.received(*client)).unwrap();
            let expected = format!("+OK\r\n{queued}*{}\r\n+OK\r\n:1\r\n", requests.len() - 2);
            assert_eq!(received, expected, "{requests:?}");
            let other = cluster.connect(0);
            assert_eq!(cluster.call(other, &["GET", "b"]), format!("{}\r\n", bulk("2")), "{requests:?}");
        });
    }
}

#[test]
fn a_transaction_that_needs_memory_fails_as_a_whole_when_memory_is_full() {
    on_one_and_three_shards(|server| {
        server.cluster.workers[0].globals.add_other_memory(1 << 40);
        server.expect(&[("SET a 1", "+OK"), ("MULTI", "+OK"), ("GET a", "+QUEUED"), ("SET b 1", "+QUEUED")]);
        let other = server.cluster.connect(0);
        let oom = "command not allowed when used memory > 'maxmemory'.";
        assert_eq!(server.cluster.call(other, &["CONFIG", "SET", "maxmemory", "1"]), "+OK\r\n");
        server.expect(&[("EXEC", &format!("-EXECABORT Transaction discarded because of: OOM {oom}"))]);
        server.expect(&[
            ("EXISTS a b", ":1"),
            ("MULTI", "+OK"),
            ("GET a", &format!("-OOM {oom}")),
            ("DISCARD", "+OK"),
        ]);
        server.cluster.call(other, &["CONFIG", "SET", "maxmemory", "0"]);
        server.expect(&[("MULTI", "+OK"), ("GET a", "+QUEUED"), ("PING", "+QUEUED")]);
        assert_eq!(server.cluster.call(other, &["CONFIG", "SET", "maxmemory", "1"]), "+OK\r\n");
        server.expect(&[("EXEC", "*2\r\n$1\r\n1\r\n+PONG")]);
    });
}

#[test]
fn each_command_of_a_transaction_is_counted_once() {
    on_one_and_three_shards(|server| {
        exec(server, &["SET a 1", "MGET a b c", "INCR b"]);
        exec(server, &["SET b 1", "RENAME b c"]);
        exec(server, &["INCR f"]);
        let table = server.cluster.workers[0].table;
        let calls = |name: &str| {
            let id = table.lookup(name.as_bytes()).expect("a command").id;
            server.sum(|stats| stats.command(id).calls.get())
        };
        for (name, count) in [("exec", 3), ("multi", 3), ("set", 2), ("mget", 1), ("incr", 2), ("rename", 1)]
        {
            assert_eq!(calls(name), count, "{name}");
        }
        assert_eq!(server.sum(|stats| stats.transactions.get()), 3);
        let wide = if server.cluster.workers.len() == 3 { [1, 1, 1] } else { [3, 0, 0] };
        assert_eq!(server.sum(|stats| stats.transactions_of_1.get()), wide[0]);
        assert_eq!(server.sum(|stats| stats.transactions_of_2.get()), wide[1]);
        assert_eq!(server.sum(|stats| stats.transactions_of_3_4.get()), wide[2]);
    });
}

#[test]
fn a_client_that_disconnects_during_a_transaction_leaves_no_lock_and_no_partial_effect() {
    for seed in 1..300 {
        let mut cluster = Cluster::new(4, seed);
        let (dying, living) = (cluster.connect(0), cluster.connect(3));
        for words in [
            &["WATCH", "g"][..],
            &["MULTI"],
            &["MSET", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1"],
            &["CLIENT", "SETNAME", "dying"],
            &["RENAME", "a", "f"],
            &["MSET", "b", "2", "c", "2"],
            &["EXEC"],
        ] {
            cluster.request(dying, words);
        }
        for _ in 0..cluster.random.below(40) {
            cluster.step();
        }
        cluster.disconnect(dying);
        cluster.settle();
        let reply = cluster.call(living, &["MGET", "a", "b", "c", "d", "e", "f"]);
        let whole = [NULL, "$1\r\n2", "$1\r\n2", "$1\r\n1", "$1\r\n1", "$1\r\n1"];
        assert!(reply == array(&[NULL; 6]) || reply == array(&whole), "seed {seed}: {reply}");
        assert!(cluster.is_at_rest(), "seed {seed}");
    }
}

#[test]
fn a_handler_over_keys_of_any_shards_is_written_once() {
    for shard_count in [1, 2, 3, 5] {
        let mut server = Server::new(shard_count);
        server.expect(&[
            ("MSET a one b two", "+OK"),
            ("TJOIN a b c", ":2"),
            ("GET c", "$7\r\none,two"),
            ("TJOIN a a a", ":2"),
            ("TJOIN none a d", ":2"),
            ("MGET a b c d", "*4\r\n$7\r\none,one\r\n$3\r\ntwo\r\n$7\r\none,two\r\n$7\r\none,one"),
        ]);
        let commands = ["SET f 1", "TJOIN f b g", "GET g", "TJOIN f f h", "TJOIN g h f"];
        assert_eq!(exec(&mut server, &commands), array(&["+OK", ":2", "$5\r\n1,two", ":2", ":4"]));
        // A client that watches a key notices changes that happen to it while it is checked out.
        assert!(!survives(&mut server, "c", &["TJOIN a b c"]));
        assert!(survives(&mut server, "a b", &["TJOIN a b c"]));
    }
}

#[test]
fn blocking_commands_do_not_block_in_a_transaction() {
    on_one_and_three_shards(|server| {
        let commands =
            ["BTAKE a 0", "BTAKE a b c 0", "BMOVE a b 0", "TPUSH b x", "BTAKE a b 0", "BMOVE a d 0"];
        let taken = "*2\r\n$1\r\nb\r\n$1\r\nx";
        assert_eq!(exec(server, &commands), array(&["*-1", "*-1", "*-1", ":1", taken, "*-1"]));
        assert!(server.cluster.is_at_rest());
    });
}

#[test]
fn a_transaction_serves_blocked_clients_when_it_has_ended() {
    on_one_and_three_shards(|server| {
        let waiting = server.cluster.connect(0);
        for keys in [["a", "a"], ["b", "f"], ["a", "b"]] {
            server.call("FLUSHALL");
            let [first, second] = keys;
            server.cluster.request(waiting, &["BTAKE", first, "0"]);
            server.cluster.settle();
            let push = |word: &str| format!("TPUSH {first} {word}");
            let take = format!("TTAKE {first}");
            let (one, two) = (push("1"), push("2"));
            let set = format!("SETNX {second} 7");
            exec(server, &[&one, &take, &set, &two]);
            let expected = if first == second { "7" } else { "2" };
            assert_eq!(
                String::from_utf8(server.cluster.received(waiting)).unwrap(),
                format!("*2\r\n$1\r\n{first}\r\n$1\r\n{expected}\r\n"),
                "{keys:?}"
            );
        }
    });
}

#[test]
fn a_client_between_multi_and_exec_is_seen_in_the_list_of_clients() {
    on_one_and_three_shards(|server| {
        let other = server.cluster.connect(0);
        let line = |server: &mut Server, words: &[&str]| {
            let reply = server.cluster.call(other, words);
            reply.lines().find(|line| line.contains("name=queueing")).expect("it is there").to_string()
        };
        server.expect(&[("CLIENT SETNAME queueing", "+OK"), ("WATCH a", "+OK"), ("MULTI", "+OK")]);
        let empty = line(server, &["CLIENT", "LIST"]);
        assert!(empty.contains(" flags=x ") && empty.contains(" multi=0 "), "{empty}");
        server.expect(&[("SET a 1", "+QUEUED"), ("SET b 1", "+QUEUED")]);
        server.cluster.call(other, &["SET", "a", "2"]);
        let full = line(server, &["CLIENT", "LIST"]);
        assert!(full.contains(" flags=xd ") && full.contains(" multi=2 "), "{full}");
        assert!(!full.contains(" multi-mem=0 "), "{full}");
        server.expect(&[("EXEC", "*-1")]);
        let done = line(server, &["CLIENT", "LIST"]);
        assert!(done.contains(" flags=N ") && done.contains(" multi=-1 "), "{done}");
    });
}

#[test]
fn a_change_of_a_watched_key_is_shown_whatever_shard_the_key_is_on() {
    on_one_and_three_shards(|server| {
        let other = server.cluster.connect(0);
        for key in ["a", "b", "c"] {
            server.call("WATCH a b c");
            assert!(server.call("CLIENT INFO").contains(" flags=N "));
            server.cluster.call(other, &["SET", key, "1"]);
            assert!(server.call("CLIENT INFO").contains(" flags=d "), "{key}");
            let seen = server.cluster.call(other, &["CLIENT", "LIST"]);
            let flagged: Vec<&str> = seen.lines().filter(|line| line.contains(" flags=d ")).collect();
            assert!(matches!(&flagged[..], [line] if line.starts_with("id=1 ")), "{seen}");
            server.call("UNWATCH");
            assert!(server.call("CLIENT INFO").contains(" flags=N "));
        }
    });
}

#[test]
fn a_client_sees_what_its_own_exec_runs() {
    on_one_and_three_shards(|server| {
        for keys in [["a", "a"], ["a", "b"]] {
            let sets = keys.map(|key| format!("SET {key} 1"));
            let reply = exec(server, &[&sets[0], "CLIENT INFO", "CLIENT LIST", &sets[1]]);
            let lines: Vec<&str> = reply.lines().filter(|line| line.starts_with("id=")).collect();
            assert_eq!(lines.len(), 2, "{reply}");
            for line in lines {
                assert!(line.contains(" flags=x ") && line.contains(" multi=4 "), "{line}");
                assert!(!line.contains(" multi-mem=0 ") && line.contains(" cmd=exec "), "{line}");
            }
            let after = server.call("CLIENT INFO");
            assert!(after.contains(" flags=N ") && after.contains(" multi=-1 "), "{after}");
        }
    });
}

/// The error of a command of an EXEC whose client has lost the right to it.
fn lost(right: &str) -> String {
    format!(
        "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command \
         is no longer allowed for the following reason: no permission to {right}"
    )
}

/// Rights count when a command runs, so those behind an AUTH are judged by the user that has logged in there. Each that is
/// refused has its error in its place and leaves no lock behind, wherever it would have run.
#[test]
fn behind_an_auth_an_exec_has_the_rights_of_that_user() {
    let no_key = lost("touch the specified keys");
    let no_command = lost("execute the command or subcommand");
    let no_channel = lost("access one of the channels used as arguments to the command");
    let by_denied = "-ERR BY option of SORT denied due to insufficient ACL permissions.";
    let script_denied = "-ERR The user executing the script can't access at least one of the keys mentioned in the \
                         command arguments";
    let behind_auth: [(&str, &str); 16] = [
        ("GET a", &no_key),
        ("GET b", "$1\r\n2"),
        ("MSET b 5 c 6", &no_key),
        ("MGET b bb", "*2\r\n$1\r\n2\r\n$1\r\n4"),
        ("RENAME bb b", &no_command),
        ("LMOVE l a LEFT LEFT", &no_key),
        ("SORT l BY by* GET bz*", by_denied),
        ("DBSIZE", &no_command),
        ("CONFIG GET maxmemory", &no_command),
        ("EVAL return(redis.call('incr',KEYS[1])) 1 a", &no_key),
        ("EVAL return(redis.call('incr',KEYS[1])) 1 b", ":3"),
        ("EVAL return(redis.call('get','c')) 0", script_denied),
        ("PUBLISH low x", ":0"),
        ("PUBLISH high x", &no_channel),
        ("HELLO 2 AUTH low wrong", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("ACL WHOAMI", "$3\r\nlow"),
    ];
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("ACL SETUSER low on >low +@all -@dangerous +sort -rename -dbsize ~b* ~l* &low*", "+OK"),
            ("ACL SETUSER high on nopass ~* &* +@all", "+OK"),
            ("MSET a 1 b 2 c 3 bb 4", "+OK"),
            ("RPUSH l 2 1", ":2"),
        ]);
        for (first, reply) in [("GET c", "$1\r\n3"), ("MSET a 1 b 2 c 3", "+OK"), ("PING", "+PONG")] {
            for (words, expected) in behind_auth {
                let queue = [first, "AUTH low low", words, "GET b", "AUTH high any", "GET a", "ACL WHOAMI"];
                let b = if expected == ":3" { bulk("3") } else { bulk("2") };
                let replies = [reply, "+OK", expected, &b, "+OK", &bulk("1"), &bulk("high")];
                let got = exec(server, &queue);
                if expected == script_denied {
                    assert!(got.contains(script_denied), "{got}");
                } else {
                    assert_eq!(got, array(&replies), "{queue:?}");
                }
                assert!(server.cluster.is_at_rest(), "{queue:?}");
                server.expect(&[("SET b 2", "+OK")]);
            }
        }
    });
}

#[test]
fn a_select_that_is_refused_in_an_exec_selects_nothing() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("ACL SETUSER low on nopass ~* +@all -select", "+OK"),
            ("SET b 0", "+OK"),
            ("SELECT 1", "+OK"),
            ("SET b 1", "+OK"),
        ]);
        let no_command = lost("execute the command or subcommand");
        let queue = [
            "SELECT 0",
            "AUTH low any",
            "SELECT 1",
            "GET b",
            "MGET b c",
            "AUTH default any",
            "SELECT 1",
            "GET b",
        ];
        let both = format!("*2\r\n{}\r\n{NULL}", bulk("0"));
        let replies = ["+OK", "+OK", &no_command, &bulk("0"), &both, "+OK", "+OK", &bulk("1")];
        assert_eq!(exec(server, &queue), array(&replies));
        assert_eq!(server.call("GET b"), "$1\r\n1\r\n");
    });
}

/// A user that an EXEC removes is nobody from then on, and its connection is closed: no reply shows what the commands behind
/// that do, which have the rights of the default user.
#[test]
fn an_exec_that_removes_its_own_user_goes_on_as_the_default_user() {
    on_one_and_three_shards(|server| {
        let own = server.cluster.connect(0);
        for words in ["ACL SETUSER u on nopass ~* +@all", "ACL SETUSER default -incr"] {
            assert_eq!(server.call(words), "+OK\r\n");
        }
        assert_eq!(server.cluster.call(own, &["AUTH", "u", "any"]), "+OK\r\n");
        let queue = ["SET a 1", "ACL DELUSER u", "INCR a", "SET b 2", "MSET c 3 d 4"];
        assert_eq!(exec_of(&mut server.cluster, own, &queue), "*5\r\n+OK\r\n:1\r\n");
        assert!(!server.cluster.is_open(own));
        assert_eq!(server.call("MGET a b c d"), array(&[&bulk("1"), &bulk("2"), &bulk("3"), &bulk("4")]));
        let log = server.call("ACL LOG");
        assert!(log.contains("\r\nmulti\r\n") && log.contains("\r\nincr\r\n"), "{log}");
        assert!(log.contains("\r\ndefault\r\n"), "{log}");
    });
}

#[test]
fn a_command_on_every_shard_without_locks_counts_as_no_transaction() {
    on_one_and_three_shards(|server| {
        for words in ["CLIENT LIST", "CLIENT INFO", "CLIENT KILL ID 1000", "SLOWLOG GET", "SLOWLOG RESET"] {
            server.call(words);
        }
        assert_eq!(server.sum(|stats| stats.transactions.get()), 0);
        assert_eq!(server.sum(|stats| stats.transaction_wait_max_nanos.get()), 0);
    });
}

#[test]
fn info_counts_transactions_and_their_outcomes() {
    on_one_and_three_shards(|server| {
        exec(server, &["SET a 1"]);
        exec(server, &["SET a 1", "SET b 1"]);
        assert!(!survives(server, "a", &["SET a 2"]));
        server.call("MULTI");
        server.call("NONSENSE");
        server.call("EXEC");
        let info = server.call("INFO transactions");
        let field = |name: &str| -> u64 {
            let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.unwrap_or_else(|| panic!("{name}: {info}")).parse().expect("a number")
        };
        let on_two = u64::from(server.cluster.workers.len() > 1);
        assert_eq!(field("transactions"), 3);
        assert_eq!(field("transactions_of_1_shard"), 3 - on_two);
        assert_eq!(field("transactions_of_2_shards"), on_two);
        assert_eq!(field("exec_aborted_by_watch"), 1);
        assert_eq!(field("exec_aborted_by_error"), 1);
        assert_eq!(field("lock_waits"), 0);
        assert_eq!(server.call("CONFIG RESETSTAT"), "+OK\r\n");
        assert!(server.call("INFO transactions").contains("transactions:0\r\n"));
    });
}

/// The clock advances while a command over several shards is under way, and while another one waits for its locks. INFO
/// shows these times. The slow log shows commands exactly as they were sent, as clients compare its arguments.
#[test]
fn a_wait_shows_in_info_and_not_among_the_arguments_in_the_slow_log() {
    let mut server = Server::new(3);
    server.call("CONFIG SET slowlog-log-slower-than 0");
    let Server { cluster, client } = &mut server;
    let other = cluster.connect(0);
    cluster.request(*client, &["RENAME", "none", "b"]);
    while cluster.workers[0].shard.locks.is_empty() {
        cluster.step();
    }
    cluster.request(other, &["GET", "b"]);
    while cluster.workers[0].shard.stats.lock_waits.get() == 0 {
        cluster.clock.advance_ms(1);
        cluster.step();
    }
    cluster.clock.advance_ms(7);
    cluster.settle();
    assert_eq!(cluster.received(*client), b"-ERR no such key\r\n");

    let log = cluster.call(*client, &["SLOWLOG", "GET", "10"]);
    for args in ["*3\r\n$6\r\nRENAME\r\n$4\r\nnone\r\n$1\r\nb\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nb\r\n"] {
        assert!(log.contains(args), "{log}");
    }
    let info = cluster.call(*client, &["INFO", "transactions"]);
    for name in ["transaction_wait_usec_max:", "lock_wait_usec_max:"] {
        let micros = info.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
        assert!(micros.parse::<u64>().expect("a number") >= 7000, "{info}");
    }
}

/// An EXEC that waited for a lock was overtaken by the next one of its client, over other keys. That one watched
/// nothing, and yet it failed because of the keys that the first one watched. The first one then found nothing watched,
/// and ran.
#[test]
fn an_exec_does_not_fail_because_of_keys_that_an_earlier_one_watches() {
    for home in 0..3 {
        let mut cluster = Cluster::new(3, 1);
        let (client, other) = (cluster.connect(home), cluster.connect(2));
        assert_eq!(cluster.call(client, &["WATCH", "b"]), "+OK\r\n");
        assert_eq!(cluster.call(other, &["SET", "b", "1"]), "+OK\r\n");
        // The keys with the tag `b` are on shard 0, `a` is on shard 2. This command has locked the former, and waits
        // for the latter.
        cluster.hold(0, 2);
        cluster.request(other, &["MSET", "{b}2", "1", "a", "1"]);
        cluster.settle();
        for key in ["{b}2", "{b}3"] {
            cluster.request(client, &["MULTI"]);
            cluster.request(client, &["APPEND", key, "2"]);
            cluster.request(client, &["EXEC"]);
        }
        cluster.settle();
        cluster.release(0, 2);
        cluster.settle();
        let replies = String::from_utf8(cluster.received(client)).unwrap();
        assert_eq!(replies, "+OK\r\n+QUEUED\r\n*-1\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
        assert_eq!(cluster.call(client, &["MGET", "{b}2", "{b}3"]), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
        assert!(cluster.is_at_rest());
    }
}

/// Keys on shards 0, 1 and 2 of three.
const ON_SHARDS: [&str; 3] = ["b", "c", "a"];

/// Home takes its locks before those of shards that come earlier in order. When two transactions do so and conflict,
/// one has to release them again.
#[test]
fn transactions_that_come_from_opposite_sides_take_effect_one_after_the_other() {
    let mut retries = 0;
    for seed in 0..300 {
        let mut cluster = Cluster::new(3, seed);
        let clients: Vec<usize> = (0..6).map(|n| cluster.connect(n % 3)).collect();
        for round in 0..4 {
            for &client in &clients {
                let value = format!("{round}-{client}");
                let mut request = vec!["MSET"];
                // Over all three shards, or two of them.
                for key in ON_SHARDS.iter().filter(|_| client < 3 || cluster.random.below(3) > 0) {
                    request.extend([key, value.as_str()]);
                }
                if request.len() > 1 {
                    cluster.request(client, &request);
                }
                cluster.request(client, &["MGET", "a", "b", "c"]);
            }
            cluster.settle();
        }
        for &client in &clients {
            let replies = String::from_utf8(cluster.received(client)).expect("text");
            assert_eq!(replies.matches("*3\r\n").count(), 4, "seed {seed}: {replies}");
        }
        assert!(cluster.is_at_rest(), "seed {seed}");
        retries +=
            cluster.workers.iter().map(|worker| worker.shard.stats.transaction_retries.get()).sum::<u64>();
    }
    assert!(retries > 0, "no transaction had to release its locks");
}

/// The message to home to release the locks it took ahead may arrive after the transaction itself. Then it is the
/// transaction's turn at home, and it keeps them.
#[test]
fn a_transaction_that_reaches_home_before_the_message_to_yield_keeps_its_locks() {
    for word_is_late in [false, true] {
        let mut cluster = Cluster::new(3, 1);
        let [first, second, third] = [0, 2, 1].map(|shard| cluster.connect(shard));
        // The first one holds `b` on shard 0 while it waits for shard 1.
        cluster.hold(1, 0);
        cluster.request(first, &["MSET", "b", "1", "c", "1"]);
        cluster.settle();
        if word_is_late {
            cluster.hold(0, 2);
        }
        cluster.request(second, &["MSET", "a", "2", "b", "2", "c", "2"]);
        cluster.settle();
        let gave_way = cluster.workers[2].shard.stats.transaction_retries.get();
        assert_eq!(gave_way, u64::from(!word_is_late));
        // The locks that the second one has released are free.
        cluster.request(third, &["MSET", "a", "3", "g", "3"]);
        cluster.settle();
        assert_eq!(cluster.received(third) == b"+OK\r\n", !word_is_late);

        cluster.release(1, 0);
        cluster.settle();
        cluster.release(0, 2);
        cluster.settle();
        assert_eq!([first, second].map(|client| cluster.received(client)), [b"+OK\r\n", b"+OK\r\n"]);
        assert_eq!(cluster.workers[2].shard.stats.transaction_retries.get(), gave_way);
        let last = if word_is_late { "3" } else { "2" };
        let values = array(&[&bulk(last), &bulk("2"), &bulk("2")]);
        assert_eq!(cluster.call(first, &["MGET", "a", "b", "c"]), values);
        assert!(cluster.is_at_rest());
    }
}
