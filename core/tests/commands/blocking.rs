//! Blocking commands, tested with those of `sim/rows.rs` (BTAKE, BMOVE), and the commands that create the keys that
//! they block on.

use super::cluster::request_bytes;
use super::{Server, on_one_and_three_shards};
use crate::cluster::Cluster;

/// Keys on shards 0, 1 and 2 of three, and others on the same shards.
const ON_SHARDS: [&str; 3] = ["b", "c", "a"];
const ALSO_ON_SHARDS: [&str; 3] = ["{b}2", "{c}2", "{a}2"];

impl Server {
    pub(super) fn connect(&mut self, n: usize) -> usize {
        let shard = n % self.cluster.workers.len();
        self.cluster.connect(shard)
    }

    /// A new client calls a command that blocks.
    #[track_caller]
    pub(super) fn wait(&mut self, n: usize, words: &str) -> usize {
        let client = self.connect(n);
        assert_eq!(self.ask(client, words), "", "{words} waits");
        client
    }

    pub(super) fn ask(&mut self, client: usize, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        self.cluster.call(client, &words)
    }

    pub(super) fn received(&mut self, client: usize) -> String {
        self.cluster.settle();
        String::from_utf8(self.cluster.received(client)).expect("replies here are text")
    }

    pub(super) fn wait_out_ms(&mut self, ms: i64) {
        self.wait_ms(ms);
        self.cluster.tick();
        self.cluster.settle();
    }

    #[track_caller]
    pub(super) fn expect_rest(&mut self) {
        self.cluster.settle();
        assert!(self.cluster.is_at_rest(), "a lock or a blocked client is left");
        assert_eq!(self.sum(|stats| stats.blocked_clients.get()), 0);
    }
}

fn taken(key: &str, word: &str) -> String {
    format!("*2\r\n${}\r\n{key}\r\n${}\r\n{word}\r\n", key.len(), word.len())
}

#[test]
fn the_keys_of_these_tests_are_where_they_say() {
    use shardis_core::shard::slot::shard_of;
    for shard in 0..3 {
        assert_eq!(shard_of(ON_SHARDS[shard].as_bytes(), 3), shard);
        assert_eq!(shard_of(ALSO_ON_SHARDS[shard].as_bytes(), 3), shard);
    }
}

#[test]
fn a_blocking_command_takes_at_once_what_it_finds() {
    on_one_and_three_shards(|server| {
        server.expect(&[("tpush c x y", ":2"), ("tpush b z", ":1")]);
        let client = server.connect(1);
        assert_eq!(server.ask(client, "btake a b c 0"), taken("b", "z"), "in the order of the keys");
        assert_eq!(server.ask(client, "btake a b c 0"), taken("c", "x"));
        assert_eq!(server.ask(client, "bmove b c a 0"), taken("c", "y"));
        server.expect(&[("ttake a", "$1\r\ny"), ("exists a b c", ":0")]);
        server.expect_rest();
    });
}

/// Mistakes that were made on purpose, and found: INFO does not wait; the error waits, as it is made on every shard.
#[test]
fn info_waits_for_handoffs_and_errors_do_not() {
    let mut server = Server::new(3);
    let client = server.wait(0, "btake c 0");
    let (other, pusher, third) = (server.connect(2), server.connect(1), server.connect(2));
    server.cluster.hold(1, 0);
    server.cluster.hold(0, 1);
    assert_eq!(server.ask(pusher, "tpush c x"), ":1\r\n");
    assert_eq!(server.ask(third, "client unblock abc"), "-ERR value is not an integer or out of range\r\n");
    assert_eq!(server.ask(other, "info clients"), "", "the client is still to be asked");
    server.cluster.release(1, 0);
    server.cluster.release(0, 1);
    let info = server.received(other);
    assert!(info.contains("\r\nblocked_clients:0\r\n"), "{info}");
    assert_eq!(server.received(client), taken("c", "x"));

    // A handoff that does not end, since it waits for a program, say, does not keep INFO from answering.
    let client = server.wait(0, "btake c 0");
    server.cluster.hold(1, 0);
    server.cluster.hold(0, 1);
    assert_eq!(server.ask(pusher, "tpush c y"), ":1\r\n");
    assert_eq!(server.ask(other, "info clients"), "");
    server.wait_out_ms(99);
    assert_eq!(server.received(other), "");
    server.wait_out_ms(1);
    let info = server.received(other);
    assert!(info.contains("\r\nblocked_clients:1\r\n"), "{info}");
    server.cluster.release(1, 0);
    server.cluster.release(0, 1);
    assert_eq!(server.received(client), taken("c", "y"));

    let errors = server.ask(other, "info errorstats");
    assert!(errors.contains("errorstat_ERR:count=1\r\n"), "{errors}");
    server.expect_rest();
}

#[test]
fn blocked_clients_of_any_shard_are_served_in_the_order_of_arrival() {
    on_one_and_three_shards(|server| {
        let clients: Vec<usize> = (0..6).map(|n| server.wait(n, "btake a 0")).collect();
        assert_eq!(server.sum(|stats| stats.blocked_clients.get()), 6);
        server.expect(&[("tpush a 0 1", ":2"), ("exists a", ":0"), ("tpush a 2 3 4", ":3")]);
        for (n, &client) in clients[..5].iter().enumerate() {
            assert_eq!(server.received(client), taken("a", &n.to_string()));
        }
        assert_eq!(server.received(clients[5]), "");
        server.expect(&[("set a 5", "+OK"), ("get a", "$-1")]);
        assert_eq!(server.received(clients[5]), taken("a", "5"));
        server.expect_rest();
    });
}

#[test]
fn a_client_blocked_on_several_keys_is_served_by_one_of_them() {
    on_one_and_three_shards(|server| {
        for key in ON_SHARDS {
            let client = server.wait(1, "btake a b c 0");
            let other = server.wait(2, "btake c b a b a 0");
            server.expect(&[(&format!("tpush {key} x"), ":1"), ("exists a b c", ":0")]);
            assert_eq!(server.received(client), taken(key, "x"));
            server.expect(&[("mset a 1 b 2 c 3", "+OK")]);
            let reply = server.received(other);
            assert!(reply.starts_with("*2\r\n"), "{reply}");
            server.expect(&[("exists a b c", ":2"), ("del a b c", ":2")]);
            server.expect_rest();
        }
    });
}

#[test]
fn a_moved_word_may_serve_another_blocked_client() {
    on_one_and_three_shards(|server| {
        for (from, to) in [("a", "b"), ("b", "a"), ("b", "c"), ("a", "{a}2"), ("b", "b")] {
            let mover = server.wait(0, &format!("bmove {from} {to} 0"));
            let taker = server.wait(2, &format!("btake {to} 0"));
            server.expect(&[(&format!("tpush {from} x"), ":1")]);
            assert_eq!(server.received(mover), taken(from, "x"), "{from} {to}");
            assert_eq!(server.received(taker), taken(to, "x"), "{from} {to}");
            server.expect_rest();
            server.expect(&[("dbsize", ":0")]);
        }
    });
}

#[test]
fn movers_in_opposite_directions_do_not_block_each_other() {
    on_one_and_three_shards(|server| {
        let movers: Vec<usize> =
            (0..6).map(|n| server.wait(n, ["bmove a b 0", "bmove b c 0", "bmove c a 0"][n % 3])).collect();
        server.expect(&[("mset a 1 b 2 c 3", "+OK")]);
        server.cluster.settle();
        for mover in movers {
            assert!(server.received(mover).starts_with("*2"));
        }
        server.expect_rest();
        let (b, c) = (server.call("get b"), server.call("get c"));
        let left: usize =
            [server.call("get a"), b, c].iter().map(|reply| reply.matches(['1', '2', '3']).count()).sum();
        assert!(left >= 3);
    });
}

#[test]
fn a_blocked_client_times_out() {
    on_one_and_three_shards(|server| {
        let taker = server.wait(0, "btake a 0.5");
        let mover = server.wait(1, "bmove b c 1");
        let both = server.wait(2, "btake a b 1.0005");
        server.wait_out_ms(499);
        assert_eq!(server.received(taker), "");
        server.wait_out_ms(1);
        assert_eq!(server.received(taker), "*-1\r\n");
        server.wait_out_ms(500);
        assert_eq!((server.received(mover), server.received(both)), ("*-1\r\n".to_string(), String::new()));
        server.wait_out_ms(1);
        assert_eq!(server.received(both), "*-1\r\n");
        server.expect_rest();
        server.expect(&[("tpush a x", ":1"), ("ttake a", "$1\r\nx")]);
        let client = server.connect(0);
        for (timeout, error) in [("x", "is not a float or out of range"), ("-1", "is negative")] {
            let expected = format!("-ERR timeout {error}\r\n");
            assert_eq!(server.ask(client, &format!("btake a b {timeout}")), expected);
        }
    });
}

/// BMOVE is offered `a` and needs `b`, which is locked. While it waits for the lock, its deadline passes, the key that
/// it was offered is deleted, and the clock is set back.
#[test]
fn a_wait_whose_key_was_taken_times_out_even_if_the_clock_was_set_back() {
    let mut retries = 0;
    for seed in 0..200 {
        let mut server = Server { cluster: Cluster::new(3, seed), client: 0 };
        server.client = server.cluster.connect(2);
        let mover = server.wait(0, "bmove a b 1");
        let (pusher, taker, writer) = (server.connect(0), server.connect(1), server.connect(2));
        server.cluster.request(writer, &["MSET", "b", "1", "c", "1"]);
        server.cluster.request(pusher, &["TPUSH", "a", "x"]);
        server.cluster.request(taker, &["TTAKE", "a"]);
        for _ in 0..server.cluster.random.below(12) {
            server.cluster.step();
        }
        server.wait_ms(1500);
        server.cluster.tick();
        server.wait_ms(-1400);
        server.cluster.settle();
        retries += server.sum(|stats| stats.transaction_retries.get());
        server.wait_out_ms(1000);
        let reply = server.received(mover);
        assert!(reply == "*-1\r\n" || reply == taken("a", "x"), "seed {seed}: {reply}");
        server.expect_rest();
    }
    assert!(retries > 0, "no offer has failed in any run");
}

#[test]
fn the_pipeline_behind_a_blocked_command_waits_too() {
    on_one_and_three_shards(|server| {
        let client = server.connect(0);
        server.cluster.send(client, b"SET b 1\r\nBTAKE a c 0\r\nINCR b\r\nBTAKE a 0\r\nINCR b\r\n");
        server.cluster.settle();
        assert_eq!(server.received(client), "+OK\r\n");
        server.expect(&[("get b", "$1\r\n1"), ("tpush a x", ":1"), ("get b", "$1\r\n2")]);
        assert_eq!(server.received(client), taken("a", "x") + ":2\r\n");
        server.expect(&[("tpush a y", ":1"), ("get b", "$1\r\n3")]);
        assert_eq!(server.received(client), taken("a", "y") + ":3\r\n");
        server.expect_rest();
    });
}

#[test]
fn a_client_that_disconnects_is_not_served() {
    on_one_and_three_shards(|server| {
        for words in ["btake a 0", "btake a b c 0", "bmove a c 0"] {
            let leaving = server.wait(1, words);
            let staying = server.wait(2, "btake a 0");
            server.cluster.disconnect(leaving);
            server.expect(&[("tpush a x", ":1")]);
            assert_eq!(server.received(staying), taken("a", "x"));
            server.expect_rest();
        }
    });
}

/// As in Redis: it executes what came before the end of the input. If the client blocks then, it is freed, along with
/// the rest of its pipeline.
#[test]
fn a_client_that_ends_its_input_is_freed_instead_of_blocked() {
    on_one_and_three_shards(|server| {
        for words in ["btake a 0", "btake a b c 0", "bmove a c 0"] {
            for first_the_wait in [false, true] {
                let leaving = server.connect(1);
                server.cluster.send(leaving, format!("SET k 1\r\n{words}\r\nSET l 1\r\n").as_bytes());
                if first_the_wait {
                    server.cluster.settle();
                }
                server.cluster.end_input(leaving);
                server.cluster.settle();
                assert_eq!(server.received(leaving), "+OK\r\n");
                assert!(!server.cluster.is_open(leaving), "{words}");
                server.expect(&[("tpush a x", ":1"), ("exists a", ":1"), ("del a k l", ":2")]);
                server.expect_rest();
            }
        }
    });
}

/// If its blocking command finds something, the client gets the reply, and the rest of its pipeline runs.
#[test]
fn a_client_that_ends_its_input_behind_a_served_command_gets_its_replies() {
    on_one_and_three_shards(|server| {
        for words in ["BTAKE a 0", "BTAKE b a c 0"] {
            server.expect(&[("tpush a x", ":1")]);
            let leaving = server.connect(1);
            server.cluster.send(leaving, format!("{words}\r\nMSET a2 1 b2 2 c2 3\r\nSET l 1\r\n").as_bytes());
            server.cluster.end_input(leaving);
            server.cluster.settle();
            assert_eq!(server.received(leaving), taken("a", "x") + "+OK\r\n+OK\r\n");
            assert!(!server.cluster.is_open(leaving), "{words}");
            server.expect(&[("del l a2 b2 c2", ":4")]);
            server.expect_rest();
        }
    });
}

/// Redis would drop the requests of a paused client, as it has not executed them when the input ends. Here all requests
/// that came before the end of the input are executed.
#[test]
fn a_client_that_ends_its_input_while_it_is_paused_is_answered_behind_the_pause() {
    on_one_and_three_shards(|server| {
        server.expect(&[("client pause 100 write", "+OK")]);
        let leaving = server.connect(1);
        server.cluster.send(leaving, b"GET k\r\nSET k 1\r\nMSET a 1 b 2 c 3\r\nSET l 1\r\n");
        server.cluster.end_input(leaving);
        server.cluster.settle();
        assert_eq!(server.received(leaving), "$-1\r\n");
        server.expect(&[("get k", "$-1")]);
        server.wait_out_ms(101);
        assert_eq!(server.received(leaving), "+OK\r\n+OK\r\n+OK\r\n");
        assert!(!server.cluster.is_open(leaving));
        server.expect(&[("del k l a b c", ":5")]);
        server.expect_rest();
    });
}

/// On one shard, commands about all keys ran before the client was served; CLIENT UNBLOCK and CLIENT KILL did so on any
/// number of shards.
#[test]
fn a_blocked_client_is_served_before_the_next_command_whatever_that_is() {
    let behind = [
        ("FLUSHALL", "+OK"),
        ("FLUSHDB", "+OK"),
        ("SWAPDB 0 1", "+OK"),
        ("DBSIZE", ":0"),
        ("KEYS *", "*0"),
        ("RANDOMKEY", "$-1"),
        ("SCAN 0", "*2\r\n$1\r\n0\r\n*0"),
        ("DEBUG OBJECT a", "-ERR no such key"),
        ("CLIENT UNBLOCK <id>", ":0"),
        ("CLIENT UNBLOCK <id> ERROR", ":0"),
    ];
    on_one_and_three_shards(|server| {
        for (words, reply) in behind {
            for n in 0..3 {
                let waiting = server.wait(n, "BTAKE a 0");
                let words = words.replace("<id>", &server.cluster.client_id(waiting).to_string());
                let client = server.connect(n + 1);
                server.cluster.send(client, format!("TPUSH a x\r\n{words}\r\n").as_bytes());
                assert_eq!(server.received(client), format!(":1\r\n{reply}\r\n"), "{words}");
                assert_eq!(server.received(waiting), taken("a", "x"), "{words}");
            }
        }
        server.expect_rest();
    });
}

#[test]
fn a_client_that_is_killed_behind_a_push_has_taken_the_word() {
    on_one_and_three_shards(|server| {
        for n in 0..3 {
            let waiting = server.wait(n, "BTAKE a 0");
            let client = server.connect(n + 1);
            let kill =
                format!("TPUSH a x\r\nCLIENT KILL ID {}\r\nGET a\r\n", server.cluster.client_id(waiting));
            server.cluster.send(client, kill.as_bytes());
            assert_eq!(server.received(client), ":1\r\n:1\r\n$-1\r\n");
            assert!(!server.cluster.is_open(waiting));
        }
        server.expect_rest();
    });
}

/// The reply of the command that changed the key may be sent before the key is checked in.
#[test]
fn client_unblock_waits_for_keys_that_are_being_checked_in() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(3, seed);
        let (waiting, client) = (cluster.connect(0), cluster.connect(0));
        assert_eq!(cluster.call(waiting, &["BTAKE", ON_SHARDS[1], "0"]), "");
        cluster.request(client, &["MSETNX", ON_SHARDS[1], "x", ON_SHARDS[2], "x"]);
        cluster.request(client, &["CLIENT", "UNBLOCK", &cluster.client_id(waiting).to_string()]);
        cluster.settle();
        assert_eq!(cluster.received(client), b":1\r\n:0\r\n", "seed {seed}");
        assert_eq!(cluster.received(waiting), taken(ON_SHARDS[1], "x").as_bytes(), "seed {seed}");
    }
}

/// What XREAD has read may still be on its way to its client's shard when the reply to XADD has come.
#[test]
fn client_unblock_and_kill_wait_for_what_was_read_on_another_shard() {
    for (words, reply) in [("CLIENT UNBLOCK <id> ERROR", ":0\r\n"), ("CLIENT KILL ID <id>", ":1\r\n")] {
        let mut cluster = Cluster::new(3, 1);
        let (waiting, client) = (cluster.connect(0), cluster.connect(2));
        assert_eq!(cluster.call(waiting, &["XREAD", "BLOCK", "0", "STREAMS", ON_SHARDS[1], "0"]), "");
        let words = words.replace("<id>", &cluster.client_id(waiting).to_string());
        cluster.hold(1, 0);
        assert_eq!(cluster.call(client, &["XADD", ON_SHARDS[1], "1-1", "f", "v"]), "$3\r\n1-1\r\n");
        // Commands over keys go on, also over this one.
        assert_eq!(cluster.call(client, &["XLEN", ON_SHARDS[1]]), ":1\r\n");
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(cluster.call(client, &words), "", "what was read has not been taken");
        cluster.release(1, 0);
        cluster.settle();
        assert_eq!(cluster.received(client), reply.as_bytes());
        let read = String::from_utf8(cluster.received(waiting)).expect("text");
        assert!(read.starts_with("*1\r\n*2\r\n") && read.ends_with("$1\r\nv\r\n"), "{read}");
    }
}

/// As in Redis, a client that was served by an earlier command is not blocked any more, though it may not know yet.
#[test]
fn client_list_shows_who_is_blocked_after_the_command_before() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(3, seed);
        let (waiting, client) = (cluster.connect(0), cluster.connect(0));
        assert_eq!(cluster.call(waiting, &["BTAKE", ON_SHARDS[1], "0"]), "");
        let id = cluster.client_id(waiting).to_string();
        assert!(cluster.call(client, &["CLIENT", "LIST", "ID", &id]).contains(" flags=b "));
        cluster.request(client, &["MSETNX", ON_SHARDS[1], "x", ON_SHARDS[2], "x"]);
        cluster.request(client, &["CLIENT", "LIST", "ID", &id]);
        cluster.settle();
        let replies = String::from_utf8(cluster.received(client)).expect("text");
        assert!(replies.starts_with(":1\r\n") && replies.contains(" flags=N "), "seed {seed}: {replies}");
    }
}

/// XSETID makes the last ID greater, but there is nothing to read: Redis looks only when an entry is added.
#[test]
fn a_stream_that_loses_entries_wakes_nobody() {
    on_one_and_three_shards(|server| {
        server.expect(&[("xadd x 1-1 f v", "$3\r\n1-1"), ("xgroup create x g $", "+OK")]);
        let reader = server.wait(0, "xread block 0 streams x 1-1");
        let consumer = server.wait(1, "xreadgroup group g c block 0 streams x >");
        server.expect(&[
            ("xsetid x 5-0", "+OK"),
            ("xdel x 1-1", ":1"),
            ("xtrim x maxlen 0", ":0"),
            ("expire x 100", ":1"),
            ("persist x", ":1"),
        ]);
        assert_eq!([server.received(reader), server.received(consumer)], ["", ""]);

        server.expect(&[("xadd x 6-0 f v", "$3\r\n6-0")]);
        let entry = "*1\r\n*2\r\n$1\r\nx\r\n*1\r\n*2\r\n$3\r\n6-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        assert_eq!([server.received(reader), server.received(consumer)], [entry, entry]);
        server.expect_rest();
    });
}

/// It replied that there is no such key: it is a session command, and those did not look at locks.
#[test]
fn debug_object_waits_for_a_key_that_is_checked_out() {
    let mut cluster = Cluster::new(3, 1);
    let (copier, reader) = (cluster.connect(0), cluster.connect(1));
    assert_eq!(cluster.call(reader, &["SET", "a", "1"]), "+OK\r\n");
    // Shard 2 has checked out `a`, and the entry is on its way to shard 0.
    cluster.hold(2, 0);
    cluster.request(copier, &["COPY", "a", "b"]);
    cluster.settle();
    assert!(cluster.see(0, "a", |value| value.is_none()));
    assert_eq!(cluster.call(reader, &["DEBUG", "OBJECT", "a"]), "");

    cluster.release(2, 0);
    cluster.settle();
    assert!(cluster.received(reader).starts_with(b"+Value at:"));
    assert_eq!(cluster.received(copier), b":1\r\n");
}

#[test]
fn client_unblock_ends_a_wait_as_a_timeout_or_with_an_error() {
    on_one_and_three_shards(|server| {
        let client = server.connect(1);
        let id = server.ask(client, "client id");
        let id = id.trim().trim_start_matches(':').to_string();
        for words in ["btake a 0", "btake a b c 9", "bmove a b 0"] {
            server.expect(&[(&format!("client unblock {id}"), ":0")]);
            for (reason, reply) in [
                ("", "*-1\r\n"),
                (" timeout", "*-1\r\n"),
                (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
            ] {
                assert_eq!(server.ask(client, words), "");
                let line = server.call("client list");
                assert!(line.contains(&format!("id={id} ")) && line.contains(" flags=b "), "{line}");
                server.expect(&[(&format!("client unblock {id}{reason}"), ":1")]);
                assert_eq!(server.received(client), reply);
                server.expect_rest();
            }
        }
        server.expect(&[
            ("client unblock 1 soon", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
            ("client unblock x", "-ERR value is not an integer or out of range"),
            ("client unblock -1", ":0"),
            ("tpush a x", ":1"),
            ("ttake a", "$1\r\nx"),
        ]);
    });
}

#[test]
fn a_key_that_any_other_command_creates_serves_too() {
    on_one_and_three_shards(|server| {
        for (n, words) in ["rename b a", "copy b a", "msetnx a x c y", "tjoin b d a", "setrange a 0 x"]
            .into_iter()
            .enumerate()
        {
            server.expect(&[("set b x", "+OK")]);
            let client = server.wait(n, "btake a 0");
            assert!(!server.call(words).starts_with('-'), "{words}");
            assert_eq!(server.received(client), taken("a", "x"), "{words}");
            server.expect(&[("flushall", "+OK")]);
            server.expect_rest();
        }
        server.expect(&[("set a x", "+OK")]);
        let client = server.connect(2);
        assert_eq!(server.ask(client, "select 9"), "+OK\r\n");
        for words in ["move a 9", "swapdb 9 0"] {
            assert_eq!(server.ask(client, "btake a 0"), "");
            server.call(words);
            assert_eq!(server.received(client), taken("a", "x"), "{words}");
            server.expect(&[("set a x", "+OK")]);
        }
        server.expect_rest();
    });
}

#[test]
fn a_blocking_command_counts_once() {
    on_one_and_three_shards(|server| {
        for words in ["btake a 0", "btake a b c 0", "bmove a c 0"] {
            server.expect(&[("config resetstat", "+OK")]);
            let client = server.wait(1, words);
            server.expect(&[("tpush a x", ":1")]);
            assert!(!server.received(client).is_empty());
            let id = server.cluster.workers[0]
                .table
                .lookup(words.split(' ').next().unwrap().as_bytes())
                .unwrap()
                .id;
            assert_eq!(server.sum(|stats| stats.command(id).calls.get()), 1, "{words}");
            server.expect(&[("flushall", "+OK")]);
        }
    });
}

#[test]
fn any_number_may_be_served_by_one_command() {
    on_one_and_three_shards(|server| {
        let count = 5000;
        let clients: Vec<usize> = (0..count).map(|n| server.connect(n)).collect();
        for &client in &clients {
            server.cluster.request(client, &["BTAKE", "a", "0"]);
            server.cluster.hand_over(client);
        }
        server.cluster.settle();
        let words: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let mut push = vec!["tpush", "a"];
        push.extend(words.iter().map(String::as_str));
        assert_eq!(server.call_args(&push), format!(":{count}\r\n"));
        for client in clients {
            assert!(server.received(client).starts_with("*2\r\n"));
        }
        server.expect_rest();
    });
}

/// Pipelined commands over several shards are run as one transaction, with the commands between them. A client blocked
/// on a key that one of them changed was served only after the last one, when the others had seen or overwritten the
/// value.
#[test]
fn a_blocked_client_is_served_before_the_next_command_of_a_pipeline() {
    on_one_and_three_shards(|server| {
        for n in 0..3 {
            let taker = server.wait(n, "btake b 0");
            let other = server.connect(n);
            let pipeline = ["mset a 1 c 1", "tpush b x", "get b", "mset b y c 2", "mget a b c"];
            let requests = pipeline.map(|words| request_bytes(&words.split(' ').collect::<Vec<_>>()));
            server.cluster.send(other, &requests.concat());
            let replies = "+OK\r\n:1\r\n$-1\r\n+OK\r\n*3\r\n$1\r\n1\r\n$1\r\ny\r\n$1\r\n2\r\n";
            assert_eq!(server.received(other), replies);
            assert_eq!(server.received(taker), taken("b", "x"));
            server.expect(&[("del a b c", ":3")]);
            server.expect_rest();
        }
    });
}

/// A mover is offered `a`, but a RENAME of `a` has locked its destination, so it has to release the key again. The
/// RENAME creates `b`, which the mover is blocked on, too, but it is busy with the first offer. When that fails, `b`
/// must be offered again. It was missed there: its shard looked it up while it was still checked out to the mover's
/// home, as the destination of the mover's transaction.
#[test]
fn a_key_that_was_offered_to_a_busy_client_is_offered_again() {
    let mut server = Server::new(3);
    let mover = server.wait(1, "bmove a b b 0");
    server.cluster.hold(2, 1);
    server.expect(&[("tpush a x", ":1")]);
    let renamer = server.wait(0, "rename a b");
    server.cluster.release(2, 1);
    assert_eq!(server.received(renamer), "+OK\r\n");
    assert_eq!(server.received(mover), taken("b", "x"));
    server.expect(&[("get b", "$1\r\nx"), ("exists a", ":0")]);
    server.expect_rest();
}
