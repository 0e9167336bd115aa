//! OBJECT: replies as in Redis, although values are stored differently here.

use super::{NULL, bulk, on_one_and_three_shards};

#[test]
fn encodings_are_those_of_redis() {
    on_one_and_three_shards(|server| {
        let embedded = "x".repeat(44);
        let raw = "x".repeat(45);
        server.expect(&[
            ("SET a 123", "+OK"),
            ("OBJECT ENCODING a", &bulk("int")),
            ("SET a -9223372036854775808", "+OK"),
            ("OBJECT ENCODING a", &bulk("int")),
            ("SET a 9223372036854775808", "+OK"),
            ("OBJECT ENCODING a", &bulk("embstr")),
            ("SET a 0123", "+OK"),
            ("OBJECT ENCODING a", &bulk("embstr")),
            (&format!("SET a {embedded}"), "+OK"),
            ("OBJECT ENCODING a", &bulk("embstr")),
            (&format!("SET a {raw}"), "+OK"),
            ("OBJECT ENCODING a", &bulk("raw")),
            ("OBJECT ENCODING none", NULL),
            ("OBJECT REFCOUNT none", NULL),
            ("OBJECT IDLETIME none", NULL),
            ("OBJECT FREQ none", NULL),
        ]);
    });
}

#[test]
fn small_numbers_are_reported_as_shared() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a 9999", "+OK"),
            ("OBJECT REFCOUNT a", ":2147483647"),
            ("INCR a", ":10000"),
            ("OBJECT REFCOUNT a", ":1"),
            ("SET a -1", "+OK"),
            ("OBJECT REFCOUNT a", ":1"),
            ("SET a x", "+OK"),
            ("OBJECT REFCOUNT a", ":1"),
        ]);
    });
}

#[test]
fn idle_time_counts_from_the_last_access_and_object_is_no_access() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a x", "+OK")]);
        server.wait_ms(7000);
        server.expect(&[
            ("OBJECT IDLETIME a", ":7"),
            ("EXISTS a", ":1"),
            ("TYPE a", "+string"),
            ("TTL a", ":-1"),
            ("OBJECT ENCODING a", &bulk("embstr")),
            ("OBJECT IDLETIME a", ":7"),
            ("TOUCH a none", ":1"),
            ("OBJECT IDLETIME a", ":0"),
        ]);
        server.wait_ms(3000);
        server.expect(&[("GET a", &bulk("x")), ("OBJECT IDLETIME a", ":0")]);
    });
}

#[test]
fn object_refuses_unknown_subcommands_and_arguments() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a x", "+OK"),
            ("OBJECT", "-ERR wrong number of arguments for 'object' command"),
            ("OBJECT ENCODING", "-ERR wrong number of arguments for 'object|encoding' command"),
            ("OBJECT foo", "-ERR unknown subcommand 'foo'. Try OBJECT HELP."),
            (
                "OBJECT FREQ a",
                "-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ),
        ]);
        let help = server.call("OBJECT HELP");
        assert!(
            help.starts_with("*15\r\n+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n"),
            "{help}"
        );
        assert!(help.ends_with("+HELP\r\n+    Prints this help.\r\n"), "{help}");
    });
}

#[test]
fn accesses_are_counted_under_an_lfu_policy() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("CONFIG SET maxmemory-policy allkeys-lfu", "+OK"),
            ("SET a hello", "+OK"),
            ("OBJECT FREQ a", ":5"),
            ("OBJECT FREQ none", NULL),
            ("OBJECT IDLETIME none", NULL),
            (
                "OBJECT IDLETIME a",
                "-ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                 between policies at runtime LRU and LFU data will take some time to adjust.",
            ),
            // Up to 6, every access increments the counter, a write as well as a read.
            ("GET a", &bulk("hello")),
            ("OBJECT FREQ a", ":6"),
            ("CONFIG SET lfu-log-factor 0", "+OK"),
            ("SET a world", "+OK"),
            ("OBJECT FREQ a", ":7"),
            ("APPEND a x", ":6"),
            ("EXISTS a", ":1"),
            ("RENAME a b", "+OK"),
            ("OBJECT FREQ b", ":9"),
            ("GETEX b EX 1000", &bulk("worldx")),
            ("OBJECT FREQ b", ":10"),
            ("COPY b c", ":1"),
            ("OBJECT FREQ b", ":11"),
            ("OBJECT FREQ c", ":5"),
        ]);
        server.wait_ms(3 * 60_000);
        server.expect(&[("OBJECT FREQ b", ":8"), ("CONFIG SET lfu-decay-time 3", "+OK")]);
        server.expect(&[("OBJECT FREQ b", ":10"), ("GET b", &bulk("worldx")), ("OBJECT FREQ b", ":11")]);
        server.expect(&[("CONFIG SET maxmemory-policy noeviction", "+OK"), ("GET b", &bulk("worldx"))]);
        server.expect(&[("OBJECT IDLETIME b", ":0")]);
    });
}
