//! The module of `examples/tour` on a real server. Whoever has this as a module has `on_each_server` beside it.

use super::on_each_server;
use std::time::Duration;

#[test]
fn replies_are_what_the_client_speaks() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        // The digits of the double: 17 behind the point, as C writes a long double.
        let human = "13.36138933897018433";
        client.expect(&[(
            "tour.replies",
            &format!(
                "[:-3, bulk\\0\\r\\n, OK, -ERR syntax error, $-1, *-1, [pi, 3.25, human, {human}], [:1], \
             123456789012345678901234567890, shown as it is, -0.10000000000000001, -inf, []]"
            ),
        )]);

        client.ask("HELLO 3");
        client.expect(&[(
            "tour.replies",
            &format!(
                "[:-3, bulk\\0\\r\\n, OK, -ERR syntax error, _, _, %[pi, ,3.25, human, ,{human}], ~[#t], \
             (123456789012345678901234567890, =txt:shown as it is, ,-0.10000000000000001, ,-inf, []]"
            ),
        )]);
    });
}

#[test]
fn arguments_are_checked_with_the_texts_of_redis() {
    on_each_server(&[], &[], |server| {
        server.connect().expect(&[
            ("tour.numbers 7 1.5", "[:7, 1.5]"),
            ("tour.numbers 7 -inf", "[:7, -inf]"),
            ("tour.numbers 07 1", "-ERR value is not an integer or out of range"),
            ("tour.numbers 7 1x", "-ERR value is not a valid float"),
            ("tour.numbers 7 nan", "-ERR value is not a valid float"),
            ("tour.numbers 7", "-ERR wrong number of arguments for 'tour.numbers' command"),
            ("tour.stray a b", "-ERR the command 'tour.stray' opens a key that it does not declare"),
            ("tour.stray a a", "OK"),
        ]);
    });
}

#[test]
fn strings_are_changed_in_place() {
    on_each_server(&[], &["--notify-keyspace-events", "KA"], |server| {
        let mut client = server.connect();
        let mut watcher = server.connect();
        watcher.ask("SUBSCRIBE __keyspace@0__:s");
        client.expect(&[
            ("tour.setbyte s 2 120", ":0"),
            ("GET s", "\\0\\0x"),
            ("tour.setbyte s 0 65", ":0"),
            ("tour.setbyte s 0 66", ":65"),
            ("GET s", "B\\0x"),
            ("SET n 1234", "OK"),
            ("tour.setbyte n 1 57", ":50"),
            ("INCR n", ":1935"),
            ("tour.concat n n s none n", ":11"),
            ("GET n", "1935B\\0x1935"),
            ("tour.concat n none", ":0"),
            ("EXISTS n", ":0"),
            ("tour.concat n s s", ":6"),
            ("GET n", "B\\0xB\\0x"),
            ("LPUSH l x", ":1"),
            ("tour.setbyte l 0 1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("tour.concat s l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
        assert_eq!(watcher.read(), "[message, __keyspace@0__:s, tour.setbyte]");
    });
}

#[test]
fn watchers_learn_of_changes_alone() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        let mut other = server.connect();
        for (request, is_change) in [
            ("tour.setbyte s 0 1", true),
            ("tour.setbyte s 0 1", false),
            ("tour.setbyte s 1 0", true),
            ("tour.scores z ADD 1 a", true),
            ("tour.scores z ADD 1 a", false),
            ("tour.scores z REM b", false),
            ("tour.scores z REM a", true),
            ("tour.concat s none", true),
        ] {
            client.expect(&[("WATCH s z", "OK")]);
            other.ask(request);
            client.expect(&[("MULTI", "OK"), ("PING", "QUEUED")]);
            let expected = if is_change { "*-1" } else { "[PONG]" };
            assert_eq!(client.ask("EXEC"), expected, "{request}");
        }
    });
}

#[test]
fn sorted_sets_are_read_in_order() {
    on_each_server(&[], &[], |server| {
        server.connect().expect(&[
            ("tour.scores z RANGE -inf inf", "[]"),
            ("tour.scores z ADD 1 a", "New"),
            ("tour.scores z ADD 2 b", "New"),
            ("tour.scores z ADD 3 c", "New"),
            ("tour.scores z ADD 3 c", "Unchanged"),
            ("tour.scores z ADD 4 c", "Updated"),
            ("tour.scores z ADD nan c", "-ERR value is not a valid float"),
            ("tour.scores z GET b", "2"),
            ("tour.scores z GET x", "$-1"),
            ("tour.scores z RANGE 1 4", "[a, 1, b, 2]"),
            ("tour.scores z REVRANGE 1 5", "[c, 4, b, 2, a, 1]"),
            ("tour.scores z RANGE 7 8", "[]"),
            ("tour.scores z REM b", ":1"),
            ("tour.scores z REM b", ":0"),
            ("ZRANGE z 0 -1 WITHSCORES", "[a, 1, c, 4]"),
            ("SET s x", "OK"),
            ("tour.scores s GET b", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
    });
}

#[test]
fn lists_hashes_and_streams_are_read_and_written() {
    on_each_server(&[], &[], |server| {
        server.connect().expect(&[
        (
            "tour.collections l h s",
            r#"[[c, c], [[true, false, true] [true, false], :1, c, :1, :0], 2 true [(5, [("a", "b"), ("b", "c")])]]"#,
        ),
        ("LRANGE l 0 -1", "[c]"),
        ("HGETALL h", "[a, c]"),
        ("XLEN s", ":2"),
    ]);
    });
}

#[test]
fn other_commands_are_called() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.expect(&[
            ("tour.call SET k v", "OK"),
            ("tour.call GET k", "v"),
            ("tour.call STRLEN k", ":1"),
            ("tour.call MGET k none", "[v, $-1]"),
            ("tour.call LPUSH k v", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("tour.call NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: "),
        ]);
        client.ask("HELLO 3");
        client.expect(&[("tour.call HSET h f v", ":1"), ("tour.call HGETALL h", "%[f, v]")]);
    });
}

#[test]
fn values_of_a_type_are_saved_copied_and_counted() {
    on_each_server(&[], &[], |mut server| {
        let mut client = server.connect();
        client.expect(&[
            ("tour.look b", "$-1"),
            ("tour.put b word 2", ":2"),
            ("tour.put b word 3", ":5"),
            ("tour.put b other 1", ":1"),
            ("tour.look b", "[other, :1, word, :5]"),
            ("TYPE b", "tour--bag"),
            ("COPY b c", ":1"),
            ("tour.put c more 1", ":1"),
            ("tour.look c", "[more, :1, other, :1, word, :5]"),
            ("tour.look b", "[other, :1, word, :5]"),
            ("SET s x", "OK"),
            ("tour.look s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("tour.put s a 1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("GET b", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
        let bytes: usize = client.ask("MEMORY USAGE b").trim_start_matches(':').parse().expect("a number");
        assert!((2000..3000).contains(&bytes), "{bytes}");
        let digest = client.ask("DEBUG DIGEST-VALUE b c");
        client.ask("tour.seen");
        client.expect(&[("UNLINK c", ":1"), ("tour.seen", r#"[unlinked "c"]"#), ("SAVE", "OK")]);

        server.restart();
        let mut client = server.connect();
        client.expect(&[("tour.look b", "[other, :1, word, :5]")]);
        let again = client.ask("DEBUG DIGEST-VALUE b");
        assert_eq!(digest.split(',').next(), again.strip_suffix(']'), "{digest} {again}");
    });
}

#[test]
fn values_are_made_again_by_commands() {
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "no"];
    on_each_server(&[], &options, |mut server| {
        let mut client = server.connect();
        client.expect(&[
            ("tour.put b word 2", ":2"),
            ("tour.put b word 3", ":5"),
            ("BGREWRITEAOF", "Background append only file rewriting started"),
        ]);
        while !client.ask("INFO persistence").contains("aof_rewrite_in_progress:0") {
            std::thread::sleep(Duration::from_millis(5));
        }
        let info = client.ask("INFO persistence");
        assert!(info.contains("aof_last_bgrewrite_status:ok"), "{info}");

        server.restart();
        server.connect().expect(&[("tour.look b", "[word, :5]")]);
        let files = std::fs::read_dir(server.directory().join("appendonlydir")).expect("there are files");
        let base = files
            .map(|file| file.expect("a file has a name").path())
            .find(|path| path.to_string_lossy().contains(".base."))
            .expect("the rewrite made a base file");
        let base = std::fs::read_to_string(base).expect("it is text");
        assert!(base.contains("tour.put\r\n$1\r\nb\r\n$4\r\nword\r\n$1\r\n5\r\n"), "{base}");
    });
}

#[test]
fn directives_are_set_like_those_of_the_server() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.expect(&[
        ("tour.configs", "10 false 1 nobody 5"),
        ("CONFIG GET tour.limit", "[tour.limit, 10]"),
        ("CONFIG GET tour.loud", "[tour.loud, no]"),
        ("CONFIG GET tour.colour", "[tour.colour, red]"),
        ("CONFIG GET tour.name", "[tour.name, nobody]"),
        ("CONFIG SET tour.limit 1kb tour.loud yes tour.colour green tour.name me", "OK"),
        ("tour.configs", "1024 true 2 me 5"),
        ("tour.seen", "[the limit is 1024, Config { names: [\"tour.limit\", \"tour.loud\", \"tour.colour\", \"tour.name\"] }]"),
        ("CONFIG SET maxmemory-samples 7", "OK"),
        ("tour.configs", "1024 true 2 me 7"),
        ("CONFIG SET tour.name you", "OK"),
        ("CONFIG GET tour.name", "[tour.name, you]"),
    ]);
        let refused = client.ask("CONFIG SET tour.colour blue");
        assert!(refused.starts_with("-ERR CONFIG SET failed"), "{refused}");
        client.expect(&[
        (
            "CONFIG SET tour.limit 3",
            "-ERR CONFIG SET failed (possibly related to argument 'tour.limit') - the limit is to be even",
        ),
        (
            "CONFIG SET tour.name ",
            "-ERR CONFIG SET failed (possibly related to argument 'tour.name') - everybody has a name",
        ),
        ("tour.configs", "1024 true 2 you 7"),
    ]);
    });
}

#[test]
fn events_and_notifications_arrive() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.ask("tour.seen");
        client.expect(&[
        ("CONFIG SET maxmemory-samples 6 hz 20", "OK"),
        ("SET k v", "OK"),
        ("LPUSH l v", ":1"),
        ("HSET h f v", ":1"),
        ("FLUSHDB", "OK"),
        (
            "tour.seen",
            r#"[Config { names: ["maxmemory-samples", "hz"] }, String "set" "k", Hash "hset" "h", FlushDb { is_over: false, is_synchronous: true, db: Some(0) }, FlushDb { is_over: true, is_synchronous: true, db: Some(0) }]"#,
        ),
    ]);
    });
}

#[test]
fn timers_fire_once_unless_they_are_stopped() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.expect(&[("tour.timers 1", "[true, true, false]")]);
        while !client.ask("INFO tour").contains("tour_fired:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        client.expect(&[("tour.seen", "[]")]);
        let info = client.ask("INFO modules");
        assert!(info.contains("tour_motto:keep it simple"), "{info}");
        assert!(info.contains("tour_parts:half=0.5,one=1"), "{info}");
    });
}

#[test]
fn a_client_waits_for_a_thread() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.expect(&[
            ("tour.wait 0 ANSWER hello", "hello"),
            ("tour.wait 0 FAIL", "-ERR syntax error"),
            ("tour.wait 0 DROP", "-ERR the module gave no answer"),
            ("tour.wait 1 SLEEP 300", "it took too long"),
            ("tour.thread n", "Integer(1)"),
            ("tour.thread n", "Integer(2)"),
            ("SET s x", "OK"),
            ("tour.thread s", "-ERR value is not an integer or out of range"),
            ("MULTI", "OK"),
            ("tour.wait 0 ANSWER hello", "QUEUED"),
            ("EXEC", "[-ERR the command cannot wait here]"),
        ]);
    });
}

#[test]
fn a_module_learns_that_a_client_has_gone() {
    on_each_server(&[], &[], |server| {
        let (mut waiting, mut other) = (server.connect(), server.connect());
        waiting.send("tour.wait 0 SLEEP 300");
        while !other.ask("INFO clients").contains("blocked_clients:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        other.expect(&[("tour.seen", "[]")]);
        drop(waiting);
        loop {
            let seen = other.ask("tour.seen");
            if seen != "[]" {
                assert_eq!(seen, "[a client has gone]");
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn time_in_threads_counts_as_the_commands() {
    on_each_server(&[], &["--slowlog-log-slower-than", "100000"], |server| {
        let mut client = server.connect();
        client.expect(&[("tour.wait 0 SLEEP 300", "OK")]);
        assert!(client.ask("SLOWLOG GET").contains("tour.wait"));
    });
}

#[test]
fn a_client_waits_for_keys() {
    on_each_server(&[], &[], |server| {
        let (mut waiting, mut other) = (server.connect(), server.connect());
        waiting.send("tour.pop l 60000 got:");
        while !other.ask("INFO clients").contains("blocked_clients:1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        other.expect(&[("RPUSH l a b", ":2")]);
        assert_eq!(waiting.read(), "got:a");
        waiting.expect(&[
            ("tour.pop l 0 ", "b"),
            ("tour.pop l 1 ", "$-1"),
            ("SET s x", "OK"),
            ("tour.pop s 1 ", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
    });
}

#[test]
fn commands_have_subcommands() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        client.expect(&[
            ("tour.group HELLO you", "hello you"),
            ("tour.group hello", "-ERR wrong number of arguments for 'tour.group|hello' command"),
        ]);
        let docs = client.ask("COMMAND DOCS tour.group");
        assert!(docs.contains("subcommands, [tour.group|hello, [summary, Greets."), "{docs}");
    });
}

#[test]
fn keys_and_their_elements_are_scanned() {
    on_each_server(&[], &[], |server| {
        server.connect().expect(&[
            ("tour.scan", ""),
            ("MSET a 1 b 2", "OK"),
            ("HSET h f v g w", ":2"),
            ("SADD set x y", ":2"),
            ("ZADD z 1.5 m", ":1"),
            ("tour.scan", r#""a", "b", "h", "set", "z""#),
            ("tour.scan h", r#""f" Some("v"), "g" Some("w")"#),
            ("tour.scan set", r#""x" None, "y" None"#),
            ("tour.scan z", r#""m" Some("1.5")"#),
            ("tour.scan none", ""),
            ("tour.scan a", ""),
        ]);
    });
}

#[test]
fn commands_are_described() {
    on_each_server(&[], &[], |server| {
        let mut client = server.connect();
        let docs = client.ask("COMMAND DOCS tour.setbyte");
        for part in [
            "summary, Sets a byte of a string.",
            "since, 1.0.0",
            "complexity, O(1)",
            "history, [[1.0.1, It is there.]]",
            "[name, key, type, key, key_spec_index, :0]",
            "[name, nx, type, pure-token, token, NX]",
            "flags, [optional]",
        ] {
            assert!(docs.contains(part), "{part} in {docs}");
        }
        let info = client.ask("COMMAND INFO tour.setbyte");
        for part in ["[tour.setbyte, :4, [write, denyoom, module], :1, :1, :1,", "[RW, access, update]"] {
            assert!(info.contains(part), "{part} in {info}");
        }
        client.expect(&[
            ("COMMAND GETKEYS tour.concat a b c", "[a, b, c]"),
            ("COMMAND GETKEYS tour.second w a x b", "[a, b]"),
            ("SET b 1", "OK"),
            ("tour.second w a x b", ":1"),
        ]);
    });
}

#[test]
fn a_module_takes_arguments_and_refuses_others() {
    on_each_server(&["PREFIX", "my."], &[], |server| {
        let mut client = server.connect();
        client.expect(&[("my.tour.numbers 1 2", "[:1, 2]"), ("MODULE UNLOAD tour", "OK")]);
        let refused = client.ask(&format!("MODULE LOADEX {} ARGS WRONG", server.library().path().display()));
        assert!(refused.starts_with("-ERR"), "{refused}");
    });
}

#[test]
fn a_panic_ends_the_server_and_names_module_and_command() {
    on_each_server(&[], &[], |mut server| {
        assert_eq!(server.connect().ask("tour.panic"), "(closed)");

        let log = server.last_words();
        assert!(log.contains("module tour, in \"tour.panic: command\""), "{log}");
        assert!(log.contains("as it was told"), "{log}");
    });
}
