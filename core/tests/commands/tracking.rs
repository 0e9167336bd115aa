//! CLIENT TRACKING: which changes clients are told of, in which mode and in which order with replies. That nobody keeps a stale
//! value is for the simulator (`sim/tracking.rs`).

use super::{Server, bulk, on_one_and_three_shards};
use shardis_core::shard::slot::shard_of;

/// A push message that these keys are invalid.
fn invalid(keys: &[&str]) -> String {
    let keys: String = keys.iter().map(|key| bulk(key) + "\r\n").collect();
    format!(">2\r\n{}\r\n*{}\r\n{keys}", bulk("invalidate"), keys.matches('$').count())
}

const ALL_INVALID: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// The same for a subscriber by RESP2.
fn message(keys: &[&str]) -> String {
    let start = format!("*3\r\n{}\r\n{}\r\n", bulk("message"), bulk("__redis__:invalidate"));
    invalid(keys).replacen(&format!(">2\r\n{}\r\n", bulk("invalidate")), &start, 1)
}

impl Server {
    /// Has its client track keys by RESP3.
    fn track(&mut self, options: &str) {
        self.call("HELLO 3");
        assert_eq!(self.call(&format!("CLIENT TRACKING ON{options}")), "+OK\r\n");
    }

    /// What its client is told beside replies.
    fn told(&mut self) -> String {
        let client = self.client;
        self.cluster.tick();
        self.heard_by(client)
    }
}

#[test]
fn who_has_read_a_key_is_told_of_its_next_change_by_whatever_command() {
    on_one_and_three_shards(|server| {
        server.track("");
        let other = server.join(0);
        for (read, change, key) in [
            ("GET a", "SET a 1", "a"),
            ("STRLEN a", "APPEND a 1", "a"),
            ("TTL a", "EXPIRE a 100", "a"),
            ("EXISTS a", "PERSIST a", "a"),
            ("MGET a b c", "MSET b 1", "b"),
            ("GET c", "RENAME a c", "c"),
            ("LRANGE l 0 -1", "RPUSH l 1 2", "l"),
            ("LLEN l", "LMOVE l m LEFT LEFT", "l"),
            ("LLEN l", "LPOP l", "l"),
            ("HGETALL h", "HSET h f 1", "h"),
            ("SMEMBERS s", "SADD s 1", "s"),
            ("SINTER s t", "SUNIONSTORE t s", "t"),
            ("ZRANGE z 0 -1", "ZADD z 1 x", "z"),
            ("XRANGE x - +", "XADD x 1-1 f v", "x"),
            ("OBJECT ENCODING s", "COPY t s REPLACE", "s"),
            ("TYPE s", "DEL s", "s"),
            ("DUMP t", "UNLINK t", "t"),
        ] {
            server.call(read);
            assert_eq!(server.told(), "", "{read}");
            server.call_as(other, change);
            assert!(server.told().contains(&invalid(&[key])), "{read}, {change}");
            server.call_as(other, change);
            assert!(!server.told().contains(&invalid(&[key])), "{change} again");
        }
        // What does not read, or is no key, is not tracked.
        for (words, change) in [("SET k 1", "SET k 2"), ("KEYS *", "SET k 3"), ("PING", "SET PING 1")] {
            server.call(words);
            server.told();
            server.call_as(other, change);
            assert_eq!(server.told(), "", "{words}");
        }
    });
}

#[test]
fn expired_keys_and_flushed_databases_are_told() {
    on_one_and_three_shards(|server| {
        server.track("");
        let other = server.join(1);
        server.call_as(other, "SET k 1 PX 10");
        server.call("GET k");
        server.wait_ms(20);
        assert_eq!(server.call_as(other, "GET k"), "$-1\r\n");
        assert_eq!(server.told(), invalid(&["k"]));
        for flush in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1"] {
            server.call("MGET a b c d");
            assert_eq!(server.call_as(other, flush), "+OK\r\n");
            assert_eq!(server.told(), ALL_INVALID, "{flush}");
            server.call_as(other, "MSET a 1 b 1 c 1 d 1");
            assert_eq!(server.told(), "", "{flush}");
        }
        assert!(server.call("INFO stats").contains("tracking_total_keys:0\r\ntracking_total_items:0\r\n"));
        for words in ["MULTI", "FLUSHALL", "SET a 1", "FLUSHDB", "EXEC"] {
            server.call_as(other, words);
        }
        assert_eq!(server.told(), [ALL_INVALID; 2].concat(), "each flush is told");
    });
}

#[test]
fn ones_own_changes_are_told_behind_the_reply_or_with_noloop_not_at_all() {
    on_one_and_three_shards(|server| {
        server.track("");
        server.call("GET k");
        assert_eq!(server.call("SET k 1"), format!("+OK\r\n{}", invalid(&["k"])));
        for words in ["GET k", "MULTI", "SET k 2", "GET l"] {
            server.call(words);
        }
        assert_eq!(server.call("EXEC"), format!("*2\r\n+OK\r\n_\r\n{}", invalid(&["k"])));
        server.call("GET k");
        assert_eq!(server.call("FLUSHALL"), format!("+OK\r\n{ALL_INVALID}"));

        server.call("CLIENT TRACKING ON NOLOOP");
        server.call("MGET k l");
        let script = "return redis.call('SET', KEYS[1], 1)";
        assert_eq!(server.call("SET k 1"), "+OK\r\n");
        assert_eq!(server.call_args(&["EVAL", script, "1", "l"]), "+OK\r\n");
        assert_eq!(server.told(), "");
        server.call("GET k");
        let other = server.join(0);
        server.call_as(other, "SET k 1");
        assert_eq!(server.told(), invalid(&["k"]));
    });
}

#[test]
fn reads_of_transactions_and_scripts_are_tracked() {
    on_one_and_three_shards(|server| {
        server.track("");
        let other = server.join(0);
        for words in ["MULTI", "GET a", "MGET b c", "COPY d e", "LRANGE f 0 -1", "SINTER g h i", "EXEC"] {
            server.call(words);
        }
        for key in ["a", "b", "c", "f", "g", "h", "i"] {
            server.call_as(other, &format!("SADD {key} 1"));
            assert_eq!(server.told(), invalid(&[key]));
        }
        server.call_as(other, "SADD d 1");
        assert_eq!(server.told(), "");

        // As in Redis 7.0, a script that reads anything tracks the keys that it declares, and what it reads besides.
        let reads = "return {redis.call('EXISTS', ARGV[1]), redis.call('EXISTS', 'l', 'm')}";
        server.call_args(&["EVAL", reads, "2", "x", "y", "k"]);
        for key in ["k", "l", "m", "x", "y"] {
            server.call_as(other, &format!("SADD {key} 1"));
            assert_eq!(server.told(), invalid(&[key]));
        }
        let writes = "return redis.call('SADD', KEYS[1], 1)";
        server.call_args(&["EVAL", writes, "1", "n"]);
        server.call_args(&["EVAL_RO", "return redis.call('PING')", "1", "n"]);
        server.call_as(other, "SADD n 2");
        assert_eq!(server.told(), "");
    });
}

#[test]
fn what_a_script_or_a_transaction_changes_is_told_wherever_it_runs() {
    on_one_and_three_shards(|server| {
        server.track("");
        let keys = ["a", "b", "c", "d", "e", "f"];
        let declared = "for _, key in ipairs(KEYS) do redis.call('INCR', key) end";
        let undeclared = "for _, key in ipairs(ARGV) do redis.call('INCR', key) end";
        for home in 0..3 {
            let other = server.join(home);
            let sorted = |told: String| {
                let mut told: Vec<String> = told
                    .split_inclusive("\r\n")
                    .skip(5)
                    .step_by(6)
                    .map(|word| word.trim().to_string())
                    .collect();
                told.sort();
                told.join(",")
            };
            for (script, count) in [(declared, "6"), (undeclared, "0")] {
                server.call("MGET a b c d e f");
                server.cluster.call(other, &[&["EVAL", script, count], &keys[..]].concat());
                assert_eq!(sorted(server.told()), "a,b,c,d,e,f", "{script}");
            }
            server.call("MGET a b c d e f");
            for words in ["MULTI", "INCR a", "MSET b 1 c 1", "RENAME d e", "COPY a f REPLACE", "EXEC"] {
                server.call_as(other, words);
            }
            assert_eq!(sorted(server.told()), "a,b,c,d,e,f");
            server.call_as(other, "SET d 1");
        }
    });
}

#[test]
fn optin_and_optout_go_by_the_command_before_and_by_whole_transactions() {
    on_one_and_three_shards(|server| {
        server.track(" OPTIN");
        let other = server.join(0);
        let mut expect = |dialog: &[&str], told: &[&str]| {
            for words in dialog {
                server.call(words);
            }
            for key in ["a", "b", "c"] {
                server.call_as(other, &format!("SET {key} 1"));
            }
            let told: String = told.iter().map(|key| invalid(&[key])).collect();
            assert_eq!(server.told(), told, "{dialog:?}");
        };
        expect(&["GET a"], &[]);
        expect(&["CLIENT CACHING YES", "GET a", "GET b"], &["a"]);
        expect(&["CLIENT CACHING YES", "CLIENT ID", "GET a", "GET b"], &["a"]);
        expect(&["CLIENT CACHING YES", "MULTI", "GET a", "GET b", "EXEC", "GET c"], &["a", "b"]);
        expect(&["MULTI", "GET a", "CLIENT CACHING YES", "GET b", "EXEC", "GET c"], &["b"]);
        expect(&["CLIENT CACHING YES", "NONSENSE", "GET a"], &[]);
        expect(&["CLIENT TRACKING OFF", "CLIENT TRACKING ON OPTOUT", "GET a"], &["a"]);
        expect(&["CLIENT CACHING NO", "GET a", "GET b"], &["b"]);
        expect(&["CLIENT CACHING NO", "MULTI", "GET a", "EXEC", "GET c"], &["c"]);
        expect(&["CLIENT CACHING NO", "NONSENSE", "GET a"], &["a"]);
        expect(&["CLIENT TRACKING OFF", "GET a"], &[]);
        expect(&["MULTI", "CLIENT TRACKING ON", "GET a", "EXEC"], &["a"]);

        // In one pipeline.
        let client = server.client;
        for words in [
            "CLIENT TRACKING OFF",
            "CLIENT TRACKING ON OPTIN",
            "CLIENT CACHING YES",
            "GET a",
            "GET b",
            "GET c",
        ] {
            server.cluster.request(client, &words.split(' ').collect::<Vec<_>>());
        }
        server.cluster.hand_over(client);
        server.cluster.settle();
        server.told();
        for key in ["a", "b", "c"] {
            server.call_as(other, &format!("SET {key} 1"));
        }
        assert_eq!(server.told(), invalid(&["a"]));
    });
}

#[test]
fn in_broadcast_mode_clients_are_told_of_all_keys_with_their_prefixes() {
    on_one_and_three_shards(|server| {
        server.track(" BCAST PREFIX a: PREFIX b:");
        let other = server.join(0);
        for words in ["SET a:1 1", "SET c:1 1", "SET b:1 1", "DEL a:1"] {
            server.call_as(other, words);
        }
        let told = server.told();
        assert_eq!(told, invalid(&["a:1"]) + &invalid(&["b:1"]) + &invalid(&["a:1"]));
        server.call("CLIENT TRACKING ON BCAST NOLOOP PREFIX c");
        assert_eq!(server.call("SET c:1 1"), "+OK\r\n");
        server.call_as(other, "SET c:1 2");
        assert_eq!(server.told(), invalid(&["c:1"]));
        // As in Redis, scripts are others.
        let script = "return redis.call('SET', KEYS[1], 1)";
        assert_eq!(server.call_args(&["EVAL", script, "1", "c:1"]), format!("+OK\r\n{}", invalid(&["c:1"])));
        let wide = "return redis.call('SET', 'c' .. ':2', 1)";
        assert_eq!(server.call_args(&["EVAL", wide, "1", "d"]), format!("+OK\r\n{}", invalid(&["c:2"])));
        server.call_as(other, "MSET a:{x} 1 a:2{x} 2");
        assert_eq!(server.told(), invalid(&["a:2{x}", "a:{x}"]));
        assert!(server.call("INFO stats").contains("tracking_total_prefixes:3\r\n"));
        server.call("CLIENT TRACKING OFF");
        server.call_as(other, "SET a:1 1");
        assert_eq!(server.told(), "");
        server.track(" BCAST");
        server.call_as(other, "SET anything 1");
        assert_eq!(server.told(), invalid(&["anything"]));
        let client = server.client;
        server.cluster.disconnect(client);
        let info = server.call_as(other, "INFO");
        assert!(info.contains("tracking_clients:0\r\n") && info.contains("tracking_total_prefixes:0\r\n"));
    });
}

#[test]
fn another_client_is_told_if_the_reader_redirects_to_it() {
    on_one_and_three_shards(|server| {
        let (other, subscriber, pushed) = (server.join(0), server.join(0), server.join(1));
        server.call_as(subscriber, "SUBSCRIBE __redis__:invalidate");
        server.call_as(pushed, "HELLO 3");
        for (listener, expected) in [(subscriber, message(&["k"])), (pushed, invalid(&["k"]))] {
            let id = server.cluster.client_id(listener);
            server.expect(&[(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK")]);
            server.expect(&[("CLIENT GETREDIR", &format!(":{id}"))]);
            server.call("GET k");
            server.call_as(other, "SET k 1");
            assert_eq!(server.told(), "");
            assert_eq!(server.heard_by(listener), expected);
            assert!(server.call("CLIENT INFO").contains(&format!(" flags=t db=0 ")));
            assert!(server.call("CLIENT INFO").contains(&format!(" redir={id} ")));
        }
        // Who speaks RESP2 and has not subscribed gets nothing.
        server.call_as(subscriber, "UNSUBSCRIBE");
        let id = server.cluster.client_id(subscriber);
        server.call(&format!("CLIENT TRACKING ON REDIRECT {id}"));
        server.call("GET k");
        server.call_as(other, "SET k 1");
        assert_eq!(server.heard_by(subscriber), "");

        server.cluster.disconnect(subscriber);
        server.call("HELLO 3");
        server.call("GET k");
        server.call_as(other, "SET k 1");
        assert_eq!(server.told(), format!(">2\r\n{}\r\n:{id}\r\n", bulk("tracking-redir-broken")));
        assert!(server.call("CLIENT INFO").contains(" flags=tR "));
        let flags = format!("~2\r\n{}\r\n{}\r\n", bulk("on"), bulk("broken_redirect"));
        let info = format!(
            "%3\r\n{}\r\n{flags}{}\r\n:{id}\r\n{}\r\n*0\r\n",
            bulk("flags"),
            bulk("redirect"),
            bulk("prefixes")
        );
        assert_eq!(server.call("CLIENT TRACKINGINFO"), info);
        server.expect(&[(
            &format!("CLIENT TRACKING ON REDIRECT {id}"),
            "-ERR The client ID you want redirect to does not exist",
        )]);
    });
}

/// An invalidation for a client with a reply that is under way comes behind it, whichever arrives first.
#[test]
fn no_invalidation_overtakes_a_reply_that_comes_from_several_shards() {
    let mut server = Server::new(3);
    let on = |shard: usize| {
        (0..).map(|n| format!("k{n}")).find(|key| shard_of(key.as_bytes(), 3) == shard).unwrap()
    };
    let (first, second) = (on(0), on(1));
    // The client is on shard 2, whom it redirects to on shard 1.
    let (writer, listener) = (server.join(0), server.join(1));
    server.call_as(listener, "SUBSCRIBE __redis__:invalidate");
    let id = server.cluster.client_id(listener);
    for redirects in [false, true] {
        server.track(&if redirects { format!(" REDIRECT {id}") } else { String::new() });
        server.call_as(writer, "FLUSHALL");
        (server.told(), server.heard_by(listener));
        let client = server.client;
        server.cluster.hold(1, 2);
        server.cluster.request(client, &["GET", &second]);
        server.cluster.request(client, &["GET", &first]);
        server.cluster.hand_over(client);
        server.cluster.settle();
        server.call_as(writer, &format!("SET {first} 1"));
        assert_eq!((server.told(), server.heard_by(listener)), (String::new(), String::new()));

        server.cluster.release(1, 2);

        if redirects {
            assert_eq!(server.told(), "_\r\n_\r\n");
            assert_eq!(server.heard_by(listener), message(&[&first]));
        } else {
            assert_eq!(server.told(), format!("_\r\n_\r\n{}", invalid(&[&first])));
        }
    }
}

/// Who is redirected to and changes the key itself is told of it behind the reply, whichever arrives first.
#[test]
fn what_the_target_of_a_redirect_changes_is_told_behind_its_reply() {
    let mut server = Server::new(3);
    let key = (0..).map(|n| format!("k{n}")).find(|key| shard_of(key.as_bytes(), 3) == 0).unwrap();
    // The reader is on shard 2, whom it redirects to on shard 1.
    let listener = server.join(1);
    server.call_as(listener, "HELLO 3");
    let id = server.cluster.client_id(listener);
    server.track(&format!(" REDIRECT {id}"));
    server.call(&format!("GET {key}"));
    server.cluster.hold(0, 1);
    server.cluster.request(listener, &["SET", &key, "1"]);
    server.cluster.settle();
    assert_eq!((server.told(), server.heard_by(listener)), (String::new(), String::new()));

    server.cluster.release(0, 1);

    assert_eq!(
        (server.told(), server.heard_by(listener)),
        (String::new(), format!("+OK\r\n{}", invalid(&[&key])))
    );
}

#[test]
fn a_blocked_client_is_told_at_once() {
    on_one_and_three_shards(|server| {
        server.track("");
        server.call("GET k");
        let client = server.client;
        server.cluster.request(client, &["BLPOP", "l", "0"]);
        server.cluster.settle();
        let other = server.join(0);
        server.call_as(other, "SET k 1");
        assert_eq!(server.told(), invalid(&["k"]));
        server.call_as(other, "RPUSH l x");
        assert_eq!(server.told(), format!("*2\r\n{}\r\n{}\r\n", bulk("l"), bulk("x")));

        // What it changes itself when it is served comes behind the reply.
        server.call("LRANGE to 0 -1");
        server.cluster.request(client, &["BLMOVE", "from", "to", "LEFT", "LEFT", "0"]);
        server.cluster.settle();
        server.call_as(other, "RPUSH from x");
        assert_eq!(server.told(), format!("{}\r\n{}", bulk("x"), invalid(&["to"])));
    });
}

#[test]
fn keys_over_the_limit_are_told_as_if_they_had_changed() {
    on_one_and_three_shards(|server| {
        server.track("");
        server.call("MGET a b c d e");
        assert!(server.call("INFO stats").contains("tracking_total_keys:5\r\ntracking_total_items:5\r\n"));
        let other = server.join(0);
        assert_eq!(server.call_as(other, "CONFIG SET tracking-table-max-keys 2"), "+OK\r\n");
        assert_eq!(server.told().matches("invalidate").count(), 3);
        assert!(server.call("INFO stats").contains("tracking_total_keys:2\r\ntracking_total_items:2\r\n"));
        assert_eq!(server.call("GET f").matches("invalidate").count(), 1);
        assert_eq!(server.call_as(other, "CONFIG SET tracking-table-max-keys 0"), "+OK\r\n");
        server.call("MGET a b c d e f g");
        assert_eq!(server.told(), "");
    });
}

#[test]
fn tracking_ends_with_off_reset_and_the_connection() {
    on_one_and_three_shards(|server| {
        let other = server.join(0);
        for end in ["CLIENT TRACKING OFF", "RESET"] {
            server.track(" BCAST");
            server.call(end);
            server.track("");
            server.call("GET k");
            server.call(end);
            server.call_as(other, "SET k 1");
            assert_eq!(server.told(), "", "{end}");
            assert!(server.call("INFO clients").contains("tracking_clients:0\r\n"), "{end}");
            server.expect(&[("CLIENT GETREDIR", ":-1")]);
        }
        server.track("");
        let id = server.cluster.client_id(server.client);
        server.call_as(other, &format!("CLIENT KILL ID {id}"));
        assert!(server.call_as(other, "INFO clients").contains("tracking_clients:0\r\n"));
    });
}

#[test]
fn options_must_fit_each_other_and_what_is_on() {
    on_one_and_three_shards(|server| {
        let id = server.cluster.client_id(server.client);
        let twice = format!("CLIENT TRACKING ON REDIRECT {id} REDIRECT {id}");
        let switch = |what: &str| {
            format!(
                "-ERR You can't switch {what} before disabling tracking for this client, and then re-enabling it \
                 with a different mode."
            )
        };
        let overlap = |one: &str, which: &str, other: &str| {
            format!(
                "-ERR Prefix '{one}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not \
                 overlap."
            )
        };
        server.expect(&[
            ("CLIENT CACHING YES", "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"),
            ("CLIENT TRACKING MAYBE", "-ERR syntax error"),
            ("CLIENT TRACKING ON FOO", "-ERR syntax error"),
            ("CLIENT TRACKING ON REDIRECT", "-ERR syntax error"),
            ("CLIENT TRACKING ON REDIRECT x", "-ERR value is not an integer or out of range"),
            ("CLIENT TRACKING ON REDIRECT 0", "-ERR The client ID you want redirect to does not exist"),
            (&twice, "-ERR A client can only redirect to a single other client"),
            ("CLIENT TRACKING ON PREFIX a", "-ERR PREFIX option requires BCAST mode to be enabled"),
            ("CLIENT TRACKING ON BCAST OPTIN", "-ERR OPTIN and OPTOUT are not compatible with BCAST"),
            ("CLIENT TRACKING ON OPTIN OPTOUT", "-ERR You can't specify both OPTIN mode and OPTOUT mode"),
            ("CLIENT TRACKING ON BCAST PREFIX ab PREFIX a", &overlap("ab", "another provided", "a")),
            ("CLIENT TRACKING ON", "+OK"),
            ("CLIENT TRACKING ON BCAST", &switch("BCAST mode on/off")),
            ("CLIENT CACHING YES", "-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."),
            ("CLIENT CACHING NO", "-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."),
            ("CLIENT CACHING MAYBE", "-ERR syntax error"),
            ("CLIENT TRACKING ON OPTIN", "+OK"),
            ("CLIENT TRACKING ON OPTOUT", &switch("OPTIN/OPTOUT mode")),
            ("CLIENT CACHING YES", "+OK"),
            ("CLIENT TRACKING OFF", "+OK"),
            ("CLIENT TRACKING ON BCAST PREFIX ab", "+OK"),
            ("CLIENT TRACKING ON BCAST PREFIX abc", &overlap("abc", "an existing", "ab")),
        ]);
        assert!(server.call("CLIENT LIST").contains(" flags=tB "));
    });
}
