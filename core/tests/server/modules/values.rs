//! A data type of a C module: `values.c`.

use super::waits::{reply, request};
use super::{KEYS, compiled, expect};
use crate::aof::Dir;
use crate::harness::{SETUPS, Server, free_port, wait_until};

#[test]
fn values_of_a_module_are_dumped_copied_moved_counted_and_freed() {
    let path = compiled("values", "life");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let options =
            ["--loadmodule", path, "--enable-debug-command", "yes", "--enable-module-command", "yes"];
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        for number in ["1", "20", "300"] {
            client.call(&["SEQ.ADD", a, number]);
        }
        expect(&mut client, &["SEQ.SUM", a], ":321\r\n");
        expect(&mut client, &["TYPE", a], "+sequence1\r\n");
        expect(&mut client, &["OBJECT", "ENCODING", a], "$3\r\nraw\r\n");
        expect(&mut client, &["SET", c, "x"], "+OK\r\n");
        assert!(client.call(&["SEQ.ADD", c, "1"]).starts_with("-WRONGTYPE "));
        assert!(client.call(&["GET", a]).starts_with("-WRONGTYPE "));
        let usage = client.call(&["MEMORY", "USAGE", a]);
        assert!(usage[1..].trim_end().parse::<u32>().is_ok_and(|bytes| bytes > 1000), "{usage}");

        expect(&mut client, &["COPY", a, b], ":1\r\n");
        expect(&mut client, &["SEQ.ADD", b, "4000"], ":4\r\n");
        expect(&mut client, &["SEQ.SUM", a], ":321\r\n");
        expect(&mut client, &["RENAME", b, c], "+OK\r\n");
        expect(&mut client, &["SEQ.SUM", c], ":4321\r\n");
        let digest = client.call(&["DEBUG", "DIGEST-VALUE", a, c]);

        client.request(&[b"DUMP", a.as_bytes()]);
        let dump = client.reply();
        let payload =
            &dump[dump.iter().position(|&byte| byte == b'\n').expect("it is bulk") + 1..dump.len() - 2];
        client.request(&[b"RESTORE", b.as_bytes(), b"0", payload]);
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "DIGEST-VALUE", b, c]), digest);
        client.request(&[b"RESTORE", b"key9", b"0", &payload[..payload.len() - 9]]);
        assert!(client.reply().starts_with(b"-ERR "));
        // A version that the module does not read: the last bits of the type's number.
        expect(&mut client, &["DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", "1"], "+OK\r\n");
        let mut of_later = payload.to_vec();
        of_later[9] ^= 2;
        client.request(&[b"RESTORE", b"key9", b"0", &of_later]);
        assert_eq!(client.reply(), b"-ERR Bad data format\r\n");
        expect(&mut client, &["EXISTS", "key9"], ":0\r\n");

        // `a` was freed by none so far; what RENAME has moved was told to be unlinked.
        expect(&mut client, &["SEQ.FREED"], ":0\r\n");
        expect(&mut client, &["DEL", a, b], ":2\r\n");
        expect(&mut client, &["UNLINK", c], ":1\r\n");
        wait_until("the values are freed", || client.call(&["SEQ.FREED"]) == ":3\r\n");
        expect(&mut client, &["MULTI"], "+OK\r\n");
        expect(&mut client, &["SEQ.ADD", a, "5"], "+QUEUED\r\n");
        expect(&mut client, &["COPY", a, b], "+QUEUED\r\n");
        expect(&mut client, &["EXEC"], "*2\r\n:1\r\n:1\r\n");
        expect(&mut client, &["FLUSHALL"], "+OK\r\n");
        wait_until("the values are freed", || client.call(&["SEQ.FREED"]) == ":5\r\n");
        let unload = client.call(&["MODULE", "UNLOAD", "sequences"]);
        assert!(unload.contains("exports one or more module-side data types"), "{unload}");
    }
}

#[test]
fn values_of_a_module_survive_a_restart_on_another_number_of_shards() {
    let path = compiled("values", "restart");
    let path = path.to_str().expect("a path in UTF-8");
    let dir = std::env::temp_dir().join(format!("shardis-values-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    let dir = dir.to_str().expect("a path in UTF-8");
    let options = ["--loadmodule", path, "--dir", dir, "--enable-debug-command", "yes"];
    let mut digest = None;
    for setup in SETUPS {
        let mut server = Server::spawn(setup, free_port(), &options);
        server.wait_for_line("Ready to accept connections");
        let mut client = server.connect();
        if digest.is_none() {
            for key in 0..100 {
                let key = format!("key{key}");
                client.call(&["SEQ.ADD", &key, "7"]);
                client.call(&["SEQ.ADD", &key, "-8"]);
            }
            expect(&mut client, &["SEQ.AUX", "42"], ":42\r\n");
        }
        expect(&mut client, &["DBSIZE"], ":100\r\n");
        expect(&mut client, &["SEQ.SUM", "key50"], ":-1\r\n");
        expect(&mut client, &["SEQ.AUX"], ":42\r\n");
        let now = client.call(&["DEBUG", "DIGEST"]);
        assert_eq!(*digest.get_or_insert_with(|| now.clone()), now);
        expect(&mut client, &["DEBUG", "RELOAD"], "+OK\r\n");
        assert_eq!(client.call(&["DEBUG", "DIGEST"]), now);
        expect(&mut client, &["SAVE"], "+OK\r\n");
    }
    std::fs::remove_dir_all(dir).expect("it can be removed");
}

#[test]
fn no_shard_waits_for_a_value_that_debug_reload_has_a_module_load() {
    let path = compiled("values", "reloaded");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = crate::rdb::Dir::new("reloaded");
        let server = dir.start(setup, &["--loadmodule", path, "--enable-debug-command", "yes"]);
        let [mut client, mut other] = [server.connect(), server.connect()];
        for key in KEYS {
            expect(&mut client, &["SEQ.ADD", key, "7"], ":1\r\n");
        }
        let until = dir.0.join("until");
        let begun = until.with_extension("begun");
        expect(&mut client, &["SEQ.SLOW", until.to_str().expect("a path in UTF-8")], ":1\r\n");
        request(&mut client, &["DEBUG", "RELOAD"]);
        wait_until("a value is loaded", || begun.exists());
        assert!(other.call(&["GET", "plain"]).starts_with("-LOADING "), "{setup:?}");
        assert!(other.call(&["DEBUG", "RELOAD"]).starts_with("-LOADING "), "{setup:?}");
        assert_eq!(other.info("persistence", "loading"), "1");
        std::fs::write(&until, "").expect("the file can be written");
        assert_eq!(reply(&mut client), "+OK\r\n");
        for key in KEYS {
            expect(&mut other, &["SEQ.SUM", key], ":7\r\n");
        }
        assert_eq!(other.info("persistence", "loading"), "0");

        expect(&mut client, &["DEBUG", "RELOAD", "NOSAVE"], "+OK\r\n");
        expect(&mut other, &["SEQ.SUM", KEYS[0]], ":7\r\n");
        std::fs::write(dir.file(), "no such file").expect("the file can be written");
        let refused = client.call(&["DEBUG", "RELOAD", "NOSAVE"]);
        assert_eq!(refused, "-ERR Error trying to load the RDB dump\r\n");
        expect(&mut other, &["DBSIZE"], ":0\r\n");
        expect(&mut other, &["SEQ.ADD", KEYS[1], "7"], ":1\r\n");
    }
}

#[test]
fn values_of_a_module_are_rewritten_as_its_own_commands() {
    let path = compiled("values", "rewrite");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("values");
        let options = ["--loadmodule", path, "--aof-use-rdb-preamble", "no", "--enable-debug-command", "yes"];
        let digest = {
            let server = dir.start(setup, &options);
            let mut client = server.connect();
            for key in KEYS {
                client.call(&["SEQ.ADD", key, "7"]);
                client.call(&["SEQ.ADD", key, "-8"]);
            }
            expect(&mut client, &["SEQ.ADD", "refused", "13"], ":1\r\n");
            client.call(&["BGREWRITEAOF"]);
            wait_until("it is rewritten", || client.info("persistence", "aof_rewrite_in_progress") == "0");
            client.call(&["DEBUG", "DIGEST"])
        };
        let base = dir.read("appendonlydir/appendonly.aof.2.base.aof");
        assert_eq!(base.matches("seq.add").count(), 2 * KEYS.len(), "{setup:?}: {base}");
        assert_eq!(base.matches("RESTORE").count(), 1, "{setup:?}: {base}");
        let server = dir.start(setup, &options);
        assert_eq!(server.connect().call(&["DEBUG", "DIGEST"]), digest, "{setup:?}");
    }
}

/// The module ends the process if two of its callbacks ever run at the same time.
#[test]
fn a_foreign_module_sees_one_callback_at_a_time() {
    let path = compiled("values", "turns");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let server = Server::start_with(setup, &["--loadmodule", path, "--enable-debug-command", "yes"]);
        std::thread::scope(|scope| {
            for seed in 0..4u32 {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut state = seed + 1;
                    for _ in 0..300 {
                        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
                        let key = format!("key{}", state >> 16 & 7);
                        let other = format!("key{}", state >> 20 & 7);
                        let reply = match state >> 24 & 7 {
                            0 => client.call(&["DEL", &key]),
                            1 => client.call(&["COPY", &key, &other, "REPLACE"]),
                            2 => client.call(&["DEBUG", "DIGEST-VALUE", &key]),
                            3 => client.call(&["MEMORY", "USAGE", &key]),
                            4 => client.call(&["SEQ.SUM", &key]),
                            5 => client.call(&["DUMP", &key]),
                            _ => client.call(&["SEQ.ADD", &key, "1"]),
                        };
                        assert!(!reply.starts_with('-') || reply.contains("same"), "{reply}");
                    }
                });
            }
        });
        let mut client = server.connect();
        expect(&mut client, &["PING"], "+PONG\r\n");
    }
}
