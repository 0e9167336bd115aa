//! DUMP and RESTORE. The payloads are those of Redis 7.0.15.

use super::effects::Replica;
use super::events::events;
use super::{Server, on_one_and_three_shards};

const OF_1: &[u8] = b"\x00\xc0\x01\n\x00&x\xe7\xb6\xd1\x01\x11\xfc";
const OF_HELLO: &[u8] = b"\x00\x05hello\n\x00cr\xdfve4 \n";
const OF_A_HASH: &[u8] =
    b"\x10\x13\x13\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x81b\x02\x82xy\x03\xff\n\x00m\xff\xe6\x93v?r\xe0";

/// A payload for servers that do not look at checksums: the string `x`.
const UNCHECKED: &str = "\0\u{1}x\n\0________";

/// The reply to a request: words, a payload, and words.
fn call(server: &mut Server, before: &str, payload: &[u8], after: &str) -> Vec<u8> {
    let mut args: Vec<&[u8]> = before.split(' ').map(str::as_bytes).collect();
    args.push(payload);
    args.extend(after.split_whitespace().map(str::as_bytes));
    server.call_bytes(&args)
}

#[track_caller]
fn restored(server: &mut Server, before: &str, payload: &[u8], after: &str) {
    refused(server, before, payload, after, "+OK");
}

#[track_caller]
fn refused(server: &mut Server, before: &str, payload: &[u8], after: &str, error: &str) {
    let reply = call(server, before, payload, after);
    assert_eq!(reply.escape_ascii().to_string(), format!("{error}\\r\\n"), "{before} {after}");
}

#[test]
fn values_are_dumped_and_restored_as_redis_does() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("set a 1", "+OK"),
            ("set b hello", "+OK"),
            ("hset h a 1 b xy", ":2"),
            ("dump nokey", "$-1"),
        ]);
        for (key, payload) in [("a", OF_1), ("b", OF_HELLO), ("h", OF_A_HASH)] {
            let expected = [format!("${}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat();
            assert_eq!(call(server, "dump", key.as_bytes(), ""), expected, "{key}");
            restored(server, &format!("restore new:{key} 0"), payload, "");
        }
        server.expect(&[
            ("get new:a", "$1\r\n1"),
            ("object encoding new:a", "$3\r\nint"),
            ("get new:b", "$5\r\nhello"),
            ("hget new:h b", "$2\r\nxy"),
            ("object encoding new:h", "$8\r\nlistpack"),
            ("ttl new:a", ":-1"),
        ]);
    });
}

#[test]
fn options_are_checked_before_the_payload() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("restore a 0", "-ERR wrong number of arguments for 'restore' command"),
            ("restore a x y", "-ERR value is not an integer or out of range"),
            ("restore a -1 y", "-ERR Invalid TTL value, must be >= 0"),
            ("restore a 0 y", "-ERR DUMP payload version or checksum are wrong"),
            ("restore a 0 y what", "-ERR syntax error"),
            ("restore a 0 y freq", "-ERR syntax error"),
            ("restore a 0 y freq 256", "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
            ("restore a 0 y idletime -1", "-ERR Invalid IDLETIME value, must be >= 0"),
            ("restore a 0 y idletime x", "-ERR value is not an integer or out of range"),
            ("restore a 0 y idletime 1 freq 1", "-ERR syntax error"),
            ("set a 1", "+OK"),
            ("restore a x y", "-BUSYKEY Target key name already exists."),
        ]);
        refused(server, "restore a 0", OF_HELLO, "", "-BUSYKEY Target key name already exists.");
        restored(server, "restore a 0", OF_HELLO, " replace");
        server.expect(&[("get a", "$5\r\nhello")]);
    });
}

#[test]
fn a_time_to_live_is_relative_or_absolute_and_may_be_over() {
    on_one_and_three_shards(|server| {
        restored(server, "restore a 5000", OF_1, "");
        let ttl_ms: i64 = server.call("pttl a")[1..].trim_end().parse().expect("a number");
        assert!((1..=5000).contains(&ttl_ms), "{ttl_ms}");
        restored(server, "restore b 9999999999999", OF_1, " absttl");
        server.expect(&[("pexpiretime b", ":9999999999999")]);
        restored(server, "restore b 1", OF_1, " absttl replace");
        server.expect(&[("exists b", ":0")]);
        restored(server, "restore c 0", OF_1, " idletime 1000");
        server.expect(&[("object idletime c", ":1000")]);
    });
}

#[test]
fn damaged_payloads_are_refused() {
    on_one_and_three_shards(|server| {
        let wrong = "-ERR DUMP payload version or checksum are wrong";
        let mut flipped = OF_HELLO.to_vec();
        flipped[2] ^= 1;
        refused(server, "restore a 0", &flipped, "", wrong);
        refused(server, "restore a 0", &OF_HELLO[2..], "", wrong);
        server.expect(&[("debug set-skip-checksum-validation 1", "+OK")]);
        restored(server, "restore a 0", &flipped, "");
        let mut bad = OF_HELLO.to_vec();
        bad[1] = 99;
        refused(server, "restore b 0", &bad, "", "-ERR Bad data format");
        bad[0] = 7;
        refused(server, "restore b 0", &bad, "", "-ERR Bad data format");
        server.expect(&[("debug set-skip-checksum-validation 0", "+OK"), ("exists b", ":0")]);
        refused(server, "restore b 0", &flipped, "", wrong);
    });
}

#[test]
fn events_and_changes_are_those_of_redis() {
    let mut server = Server::new(1);
    server.expect(&[("debug set-skip-checksum-validation 1", "+OK")]);
    let payload = UNCHECKED;
    for (words, expected, changes) in [
        (format!("restore a 0 {payload}"), "new a, restore a", 1),
        (format!("restore a 0 {payload} replace"), "new a, restore a", 1),
        (format!("restore a 0 {payload}"), "", 0),
        (format!("restore b 100 {payload}"), "new b, restore b", 1),
        (format!("restore b 1 {payload} replace absttl"), "del b", 1),
        (format!("restore b 1 {payload} absttl"), "", 0),
    ] {
        assert_eq!(events(&mut server, &words), (expected.to_owned(), changes), "{words:?}");
    }
}

#[test]
fn replicas_get_the_time_at_which_a_key_expires() {
    on_one_and_three_shards(|server| {
        server.expect(&[("debug set-skip-checksum-validation 1", "+OK")]);
        let payload = UNCHECKED;
        let mut replica = Replica::attach(server);
        assert_eq!(server.call(&format!("restore a 0 {payload}")), "+OK\r\n");
        assert_eq!(server.call(&format!("restore b 5000 {payload}")), "+OK\r\n");
        assert_eq!(server.call(&format!("restore b 1 {payload} absttl replace")), "+OK\r\n");
        // The simulated server starts at this time.
        let at_ms = 1_700_000_000_000i64 + 5000;
        let effects = replica.read(server);
        assert_eq!(
            effects,
            [
                "SELECT 0".to_owned(),
                format!("restore a 0 {payload}"),
                format!("restore b {at_ms} {payload} ABSTTL"),
                "DEL b".to_owned(),
            ]
        );
    });
}
