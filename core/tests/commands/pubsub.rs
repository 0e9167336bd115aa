//! Publish and subscribe: what subscribers get, in which order, and what publishers are told.

use super::{Server, bulk, on_one_and_three_shards};
use shardis_core::shard::slot::shard_of;

const RESTRICTED: &str =
    "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";

/// A message as RESP2 has it, of these strings.
fn message(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| bulk(word) + "\r\n").collect();
    format!("*{}\r\n{words}", words.matches('$').count())
}

/// The confirmation of a subscription, or of its end.
fn confirmation(verb: &str, name: &str, count: usize) -> String {
    format!("*3\r\n{}\r\n{}\r\n:{count}\r\n", bulk(verb), bulk(name))
}

impl Server {
    /// A further client, on this shard.
    pub(super) fn join(&mut self, shard: usize) -> usize {
        let shard_count = self.cluster.workers.len();
        self.cluster.connect(shard % shard_count)
    }

    pub(super) fn call_as(&mut self, client: usize, words: &str) -> String {
        self.cluster.call(client, &words.split(' ').collect::<Vec<_>>())
    }

    /// What a client has received since the last call.
    pub(super) fn heard_by(&mut self, client: usize) -> String {
        self.cluster.settle();
        String::from_utf8(self.cluster.received(client)).unwrap()
    }
}

#[test]
fn a_message_comes_to_all_subscribers_wherever_they_are_and_is_counted() {
    on_one_and_three_shards(|server| {
        let listeners: Vec<usize> = (0..7).map(|shard| server.join(shard)).collect();
        for (n, &listener) in listeners.iter().enumerate() {
            assert_eq!(server.call_as(listener, "SUBSCRIBE news"), confirmation("subscribe", "news", 1));
            if n % 2 == 0 {
                let confirmed = server.call_as(listener, "PSUBSCRIBE n?ws other");
                let both = confirmation("psubscribe", "n?ws", 2) + &confirmation("psubscribe", "other", 3);
                assert_eq!(confirmed, both);
            }
        }
        server.expect(&[
            ("PUBLISH news hello", ":11"),
            ("PUBLISH none hello", ":0"),
            ("SPUBLISH news hello", ":0"),
            ("PUBSUB CHANNELS", &format!("*1\r\n{}", bulk("news"))),
            ("PUBSUB CHANNELS x*", "*0"),
            ("PUBSUB NUMSUB news x", &format!("*4\r\n{}\r\n:7\r\n{}\r\n:0", bulk("news"), bulk("x"))),
            ("PUBSUB NUMPAT", ":2"),
        ]);
        for (n, &listener) in listeners.iter().enumerate() {
            let mut expected = message(&["message", "news", "hello"]);
            if n % 2 == 0 {
                expected += &message(&["pmessage", "n?ws", "news", "hello"]);
            }
            assert_eq!(server.heard_by(listener), expected);
        }
    });
}

#[test]
fn shard_channels_are_apart_from_channels() {
    on_one_and_three_shards(|server| {
        let listener = server.join(0);
        server.call_as(listener, "SUBSCRIBE a");
        assert_eq!(server.call_as(listener, "SSUBSCRIBE a b"), {
            confirmation("ssubscribe", "a", 1) + &confirmation("ssubscribe", "b", 2)
        });
        server.expect(&[
            ("SPUBLISH a x", ":1"),
            ("PUBLISH b y", ":0"),
            ("PUBSUB SHARDCHANNELS b*", &format!("*1\r\n{}", bulk("b"))),
            ("PUBSUB SHARDNUMSUB a", &format!("*2\r\n{}\r\n:1", bulk("a"))),
        ]);
        assert_eq!(server.heard_by(listener), message(&["smessage", "a", "x"]));
        let ended = server.call_as(listener, "SUNSUBSCRIBE");
        assert_eq!(ended, confirmation("sunsubscribe", "a", 1) + &confirmation("sunsubscribe", "b", 0));
        server.expect(&[("SPUBLISH a x", ":0"), ("PUBLISH a x", ":1")]);
    });
}

#[test]
fn shard_channels_cannot_be_listened_to_from_a_transaction() {
    on_one_and_three_shards(|server| {
        let denied = "-ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client";
        server.expect(&[
            ("MULTI", "+OK"),
            ("SSUBSCRIBE a", "+QUEUED"),
            ("SUBSCRIBE b", "+QUEUED"),
            ("EXEC", &format!("*2\r\n{denied}\r\n{}", confirmation("subscribe", "b", 1).trim_end())),
        ]);
    });
}

#[test]
fn a_subscriber_by_resp2_may_only_change_what_it_listens_to() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SUBSCRIBE a", confirmation("subscribe", "a", 1).trim_end())]);
        for (words, name) in [("GET a", "get"), ("PUBSUB NUMPAT", "pubsub|numpat"), ("MULTI", "multi")] {
            server.expect(&[(words, &format!("-ERR Can't execute '{name}': {RESTRICTED}"))]);
        }
        assert_eq!(server.call("PING"), message(&["pong", ""]));
        assert_eq!(server.call("PING x"), message(&["pong", "x"]));
        server.expect(&[
            ("PING x y", "-ERR wrong number of arguments for 'ping' command"),
            ("UNSUBSCRIBE b", confirmation("unsubscribe", "b", 1).trim_end()),
            ("UNSUBSCRIBE", confirmation("unsubscribe", "a", 0).trim_end()),
            ("UNSUBSCRIBE", &format!("*3\r\n{}\r\n$-1\r\n:0", bulk("unsubscribe"))),
            ("PING", "+PONG"),
        ]);
        server.call("PSUBSCRIBE a*");
        server.expect(&[("RESET", "+RESET"), ("GET a", "$-1"), ("PUBSUB NUMPAT", ":0")]);
    });
}

#[test]
fn by_resp3_messages_are_pushes_before_the_reply_to_what_published_them() {
    on_one_and_three_shards(|server| {
        server.call("HELLO 3");
        assert_eq!(server.call("SUBSCRIBE a"), confirmation("subscribe", "a", 1).replacen('*', ">", 1));
        let push = message(&["message", "a", "x"]).replacen('*', ">", 1);
        assert_eq!(server.call("PUBLISH a x"), format!("{push}:1\r\n"));
        server.expect(&[("PING", "+PONG"), ("SET k v", "+OK")]);
        assert!(server.call("CLIENT INFO").contains(" flags=P db=0 sub=1 psub=0 ssub=0 "));
    });
}

#[test]
fn an_exec_and_a_script_publish_together() {
    on_one_and_three_shards(|server| {
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE *");
        server.expect(&[
            ("MULTI", "+OK"),
            ("PUBLISH a 1", "+QUEUED"),
            ("MSET x 1 y 2 z 3", "+QUEUED"),
            ("PUBLISH b 2", "+QUEUED"),
            ("SUBSCRIBE c", "+QUEUED"),
            ("PUBLISH c 3", "+QUEUED"),
        ]);
        assert_eq!(server.call("EXEC"), {
            format!("*5\r\n:1\r\n+OK\r\n:1\r\n{}:2\r\n", confirmation("subscribe", "c", 1))
                + &message(&["message", "c", "3"])
        });
        server.call("RESET");
        let script = "redis.call('PUBLISH', 'd', '4') return redis.call('PUBLISH', 'e', '5')";
        assert_eq!(server.call_args(&["EVAL", script, "0"]), ":1\r\n");
        let heard = server.heard_by(listener);
        for (n, channel) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            let number = (n + 1).to_string();
            assert!(heard.contains(&message(&["pmessage", "*", channel, &number])), "{heard}");
        }
        assert!(heard.find("$1\r\nd\r\n") < heard.find("$1\r\ne\r\n"), "{heard}");
    });
}

#[test]
fn confirmations_and_messages_come_to_a_client_that_wants_no_replies() {
    on_one_and_three_shards(|server| {
        assert_eq!(server.call("CLIENT REPLY OFF"), "");
        assert_eq!(server.call("SUBSCRIBE a"), confirmation("subscribe", "a", 1));
        assert_eq!(server.call("PING"), "");
        let publisher = server.join(1);
        assert_eq!(server.call_as(publisher, "PUBLISH a x"), ":1\r\n");
        let client = server.client;
        assert_eq!(server.heard_by(client), message(&["message", "a", "x"]));
    });
}

#[test]
fn who_has_gone_is_not_counted() {
    on_one_and_three_shards(|server| {
        let listener = server.join(0);
        server.call_as(listener, "SUBSCRIBE a");
        server.call_as(listener, "PSUBSCRIBE a");
        server.expect(&[("PUBLISH a x", ":2")]);
        server.cluster.disconnect(listener);
        server.cluster.settle();
        server.expect(&[("PUBLISH a x", ":0"), ("PUBSUB CHANNELS", "*0")]);
        assert!(server.call("INFO stats").contains("pubsub_channels:0\r\npubsub_patterns:0\r\n"));
    });
}

#[test]
fn clients_are_listed_and_killed_by_what_they_listen_to() {
    on_one_and_three_shards(|server| {
        let listener = server.join(0);
        server.call_as(listener, "SUBSCRIBE a");
        let list = server.call("CLIENT LIST TYPE pubsub");
        assert_eq!((list.matches("id=").count(), list.matches("flags=P").count()), (1, 1), "{list}");
        assert_eq!(server.call("CLIENT LIST TYPE normal").matches("id=").count(), 1);
        server.expect(&[("CLIENT KILL TYPE pubsub", ":1"), ("PUBLISH a x", ":0")]);
    });
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_alone() {
    on_one_and_three_shards(|server| {
        assert_eq!(
            server.call_args(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 100000 0 0"]),
            "+OK\r\n"
        );
        let (slow, quick) = (server.join(0), server.join(0));
        server.call_as(slow, "SUBSCRIBE a");
        server.call_as(quick, "SUBSCRIBE b");
        let big = "x".repeat(200_000);
        assert_eq!(server.call_args(&["PUBLISH", "a", &big]), ":1\r\n");
        server.cluster.settle();
        server.expect(&[("PUBLISH a x", ":0"), ("PUBLISH b x", ":1")]);
    });
}

/// A pipeline of publishes to keys' neighbours is one transaction.
#[test]
fn publish_joins_a_coalesced_pipeline() {
    let mut server = Server::new(3);
    let listener = server.join(0);
    server.call_as(listener, "SUBSCRIBE a");
    let keys: Vec<String> = (0..3)
        .map(|shard| (0..).map(|n| format!("k{n}")).find(|key| shard_of(key.as_bytes(), 3) == shard).unwrap())
        .collect();
    let mset = format!("MSET {} 1 {} 2", keys[0], keys[1]);
    for words in [&mset, "PUBLISH a 1", &mset, "PUBLISH a 2", &mset] {
        server.cluster.request(server.client, &words.split(' ').collect::<Vec<_>>());
    }
    server.cluster.hand_over(server.client);
    let connection = server.cluster.workers[2].connections[0].as_deref().unwrap();
    assert_eq!(connection.client.command_count, 5, "all of them have begun");
    server.cluster.settle();
    let replies = String::from_utf8(server.cluster.received(server.client)).unwrap();
    assert_eq!(replies, "+OK\r\n:1\r\n+OK\r\n:1\r\n+OK\r\n");
    assert_eq!(server.heard_by(listener), message(&["message", "a", "1"]) + &message(&["message", "a", "2"]));
}

#[test]
fn messages_of_different_shards_come_in_the_order_of_their_causes() {
    let mut server = Server::new(3);
    let (first, second, listener) = (server.join(0), server.join(1), server.client);
    server.call("SUBSCRIBE a");
    server.cluster.hold(0, 2);
    assert_eq!(server.call_as(first, "PUBLISH a 1"), ":1\r\n");
    assert_eq!(server.call_as(second, "PUBLISH a 2"), ":1\r\n");
    // It begins behind what was published before, and so is confirmed later.
    assert_eq!(server.call("SUBSCRIBE b"), "");
    assert_eq!(server.call_as(second, "PUBLISH b 3"), ":1\r\n");

    server.cluster.release(0, 2);

    let expected = message(&["message", "a", "1"])
        + &message(&["message", "a", "2"])
        + &confirmation("subscribe", "b", 2)
        + &message(&["message", "b", "3"]);
    assert_eq!(server.heard_by(listener), expected);
}

#[test]
fn who_was_counted_gets_the_message_before_the_end_of_the_subscription_is_confirmed() {
    let mut server = Server::new(3);
    let (publisher, listener) = (server.join(0), server.client);
    server.call("SUBSCRIBE a");
    server.cluster.hold(0, 2);
    assert_eq!(server.call_as(publisher, "PUBLISH a 1"), ":1\r\n");
    assert_eq!(server.call("UNSUBSCRIBE a"), "");
    assert_eq!(server.call_as(publisher, "PUBLISH a 2"), ":0\r\n");
    // It may begin anew meanwhile.
    server.cluster.request(listener, &["SUBSCRIBE", "a"]);
    server.cluster.settle();

    server.cluster.release(0, 2);

    let expected = message(&["message", "a", "1"])
        + &confirmation("unsubscribe", "a", 0)
        + &confirmation("subscribe", "a", 1);
    assert_eq!(server.heard_by(listener), expected);
    assert_eq!(server.call_as(publisher, "PUBLISH a 3"), ":1\r\n");
    assert_eq!(server.heard_by(listener), message(&["message", "a", "3"]));
}

/// Events and keys of the messages of `__keyevent@0__`, as words.
fn events(heard: &str) -> Vec<String> {
    let strings: Vec<&str> = heard.split("\r\n").filter(|line| !line.starts_with(['*', '$', '>'])).collect();
    let messages = strings.chunks_exact(4);
    messages.map(|words| format!("{} {}", words[2].replace("__keyevent@0__:", ""), words[3])).collect()
}

#[test]
fn what_happens_to_keys_is_published_in_order_wherever_they_are() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET notify-keyspace-events Eg$lnx", "+OK")]);
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE __keyevent@0__:*");
        server.expect(&[
            ("MSET a 1 b 2 c 3", "+OK"),
            ("SADD s 1", ":1"),
            ("RENAME a d", "+OK"),
            ("MULTI", "+OK"),
            ("SET e 1", "+QUEUED"),
            ("LPUSH f 1", "+QUEUED"),
            ("DEL d b c", "+QUEUED"),
            ("LPOP f", "+QUEUED"),
            ("EXEC", &format!("*4\r\n+OK\r\n:1\r\n:3\r\n{}", bulk("1"))),
            ("SET g 1 PX 10", "+OK"),
        ]);
        server.wait_ms(20);
        server.expect(&[("GET g", "$-1")]);
        let expected = "new a,set a,new b,set b,new c,set c,new s,new d,rename_from a,rename_to d,new e,set e,new f,\
                        lpush f,del d,del b,del c,lpop f,del f,new g,set g,expire g,expired g";
        assert_eq!(events(&server.heard_by(listener)).join(","), expected);

        // What a client watches is known to the shards of the keys all the same.
        for key in ["a", "b", "c"] {
            server.expect(&[(&format!("WATCH {key}"), "+OK"), (&format!("SET {key} 1"), "+OK")]);
            server.expect(&[("MULTI", "+OK"), ("PING", "+QUEUED"), ("EXEC", "*-1")]);
        }
        server.heard_by(listener);
        server.expect(&[("CONFIG SET notify-keyspace-events K$", "+OK"), ("SET h 1", "+OK")]);
        assert_eq!(server.heard_by(listener), "");
        server.call_as(listener, "PSUBSCRIBE __keyspace@0__:?");
        server.expect(&[("APPEND h 1", ":2"), ("SELECT 1", "+OK"), ("SET h 1", "+OK"), ("DEL h", ":1")]);
        let heard = server.heard_by(listener);
        assert_eq!(heard, message(&["pmessage", "__keyspace@0__:?", "__keyspace@0__:h", "append"]));
    });
}

#[test]
fn an_event_comes_before_a_message_of_the_same_script() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET notify-keyspace-events E$", "+OK")]);
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE ?*");
        let script =
            "redis.call('SET', KEYS[1], 1) redis.call('PUBLISH', 'x', 'y') redis.call('INCR', KEYS[1])";
        server.call_args(&["EVAL", script, "1", "k"]);
        assert_eq!(events(&server.heard_by(listener)), ["set k", "x y", "incrby k"]);
    });
}

#[test]
fn a_message_does_not_overtake_what_its_client_has_sent_before_it() {
    let mut server = Server::new(3);
    let (listener, client) = (server.join(1), server.client);
    server.call_as(listener, "SUBSCRIBE a");
    let key = (0..).map(|n| format!("k{n}")).find(|key| shard_of(key.as_bytes(), 3) == 0).unwrap();
    let script = "return redis.call('PUBLISH', 'a', 'x')";
    let set = ["SET", &key, "1"];
    for publish in [&["PUBLISH", "a", "x"][..], &["EVAL", script, "0"]] {
        server.cluster.hold(2, 0);
        server.cluster.request(client, &set);
        server.cluster.request(client, publish);
        server.cluster.hand_over(client);
        assert_eq!(server.heard_by(listener), "", "{publish:?}");

        server.cluster.release(2, 0);

        assert_eq!(server.heard_by(client), "+OK\r\n:1\r\n");
        assert_eq!(server.heard_by(listener), message(&["message", "a", "x"]));
    }
    server.cluster.hold(2, 0);
    for words in [&set[..], &["MULTI"], &["PUBLISH", "a", "x"], &["EXEC"]] {
        server.cluster.request(client, words);
    }
    server.cluster.hand_over(client);
    assert_eq!(server.heard_by(listener), "");
    server.cluster.release(2, 0);
    assert_eq!(server.heard_by(client), "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    assert_eq!(server.heard_by(listener), message(&["message", "a", "x"]));
}

#[test]
fn events_of_a_pipeline_come_in_its_order() {
    let mut server = Server::new(3);
    let (listener, client) = (server.join(1), server.client);
    server.expect(&[("CONFIG SET notify-keyspace-events E$", "+OK")]);
    server.call_as(listener, "PSUBSCRIBE __key*");
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    for key in &keys {
        server.cluster.request(client, &["SET", key, "1"]);
    }
    server.cluster.hand_over(client);
    let expected: Vec<String> = keys.iter().map(|key| format!("set {key}")).collect();
    assert_eq!(events(&server.heard_by(listener)), expected);
}

/// The first command waits for a transaction over several shards; the keys of the others are on the same shard, and free. In one
/// Redis, what a client sends first is done first, and that is how listeners hear of it.
#[test]
fn what_waits_for_a_lock_is_told_before_what_its_client_has_sent_behind_it() {
    for listen in [None, Some("PSUBSCRIBE __key*"), Some("MONITOR")] {
        let mut server = Server::new(3);
        let (listener, client, other, reader) =
            (server.join(1), server.client, server.join(2), server.join(0));
        server.expect(&[("CONFIG SET notify-keyspace-events E$", "+OK")]);
        // The keys with the tag `b` are on shard 0, `c` is on shard 1, and the client is on shard 2.
        (0..3).filter(|&to| to != 0).for_each(|to| server.cluster.hold(0, to));
        server.cluster.request(other, &["MSET", "{b}1", "1", "c", "1"]);
        server.cluster.settle();
        (1..3).for_each(|to| server.cluster.release(0, to));
        server.cluster.hold(0, 1);
        if let Some(words) = listen {
            server.call_as(listener, words);
            server.heard_by(listener);
        }
        let requests: &[&[&str]] = &[
            &["INCR", "{b}1"],
            &["SET", "{b}2", "x"],
            &["MULTI"],
            &["SET", "{b}3", "x"],
            &["EXEC"],
            &["APPEND", "{b}4", "x"],
        ];
        for request in requests {
            server.cluster.request(client, request);
        }
        server.cluster.settle();
        let read = server.call_as(reader, "MGET {b}2 {b}3 {b}4");
        let values = format!("*3\r\n{}", "$1\r\nx\r\n".repeat(3));
        let expected = if listen.is_none() { values.as_str() } else { "" };
        assert_eq!(read, expected, "{listen:?}");
        server.heard_by(listener);

        server.cluster.release(0, 1);

        let heard = server.heard_by(listener);
        assert_eq!(server.heard_by(client), ":2\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n:1\r\n");
        let heard: Vec<&str> = match listen {
            None => continue,
            Some("MONITOR") => heard
                .lines()
                .filter(|line| ["\"INCR\"", "\"SET\"", "\"APPEND\""].iter().any(|name| line.contains(name)))
                .filter_map(|line| line.split(['{', '}']).nth(2))
                .collect(),
            Some(_) => heard.lines().filter_map(|line| line.strip_prefix("{b}")).collect(),
        };
        let heard: String = heard.concat().chars().filter(char::is_ascii_digit).collect();
        assert!(heard.ends_with("1234"), "{listen:?}: {heard}");
        assert!(server.cluster.is_at_rest());
    }
}

/// A transaction with commands over the session, or over all shards, among those over keys.
#[test]
fn what_a_transaction_in_several_stages_does_is_published_in_its_order() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET notify-keyspace-events E$g", "+OK")]);
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE ?*");
        let mut expected = Vec::new();
        server.call("MULTI");
        for n in 0..12 {
            let (a, b) = (format!("a{n}"), format!("b{n}"));
            server.call(&format!("SET {a} 1"));
            server.call("UNWATCH");
            server.call(&format!("MSET {b} 1 {a} 2 c 3"));
            server.call(&format!("PUBLISH c {n}"));
            server.call(&format!("DEL {a} {b}"));
            server.call("DBSIZE");
            let events = ["set a", "set b", "set a", "set c", "c ", "del a", "del b"];
            expected.extend(events.iter().map(|event| match *event {
                "set c" => "set c".to_string(),
                other => format!("{other}{n}"),
            }));
        }
        assert!(server.call("EXEC").starts_with("*72\r\n"));
        assert_eq!(events(&server.heard_by(listener)), expected);
    });
}

#[test]
fn what_a_command_of_a_script_does_on_several_shards_is_published_in_its_order() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET notify-keyspace-events E$g", "+OK")]);
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE ?*");
        let script = "local set, del = {}, {} \
                      for n = 1, 9 do set[2 * n - 1] = 'k' .. n set[2 * n] = n del[n] = 'k' .. n end \
                      redis.call('MSET', unpack(set)) return redis.call('DEL', unpack(del))";
        assert_eq!(server.call_args(&["EVAL", script, "0"]), ":9\r\n");
        let of = |event: &'static str| (1..=9).map(move |n| format!("{event} k{n}"));
        let expected: Vec<String> = of("set").chain(of("del")).collect();
        assert_eq!(events(&server.heard_by(listener)), expected);
    });
}

#[test]
fn what_a_script_does_on_other_shards_is_published_in_its_order() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET notify-keyspace-events E$", "+OK")]);
        let listener = server.join(0);
        server.call_as(listener, "PSUBSCRIBE ?*");
        // No key is declared, so most of them are on other shards.
        let script = "for n = 1, 9 do redis.call('SET', 'k' .. n, n) redis.call('PUBLISH', 'c', n) end";
        server.call_args(&["EVAL", script, "0"]);
        let expected: Vec<String> = (1..=9).flat_map(|n| [format!("set k{n}"), format!("c {n}")]).collect();
        assert_eq!(events(&server.heard_by(listener)), expected);
    });
}
