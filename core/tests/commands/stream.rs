//! Streams: replies, effects and events are those of Redis 7.0.15.

mod blocking;
mod groups;

use super::effects::Replica;
use super::events::events;
use super::{NULL, Server, WRONG_ARITY, bulk, on_one_and_three_shards};

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
/// The time of the simulated server when it starts.
const NOW_MS: i64 = 1_700_000_000_000;
const INVALID_ID: &str = "-ERR Invalid stream ID specified as stream command argument";

/// The reply to an entry with the one field `f`.
fn entry(id: &str, value: &str) -> String {
    format!("*2\r\n{}\r\n*2\r\n{}\r\n{}", bulk(id), bulk("f"), bulk(value))
}

/// An array of values that are replies without their last line end.
fn array<T: AsRef<str>>(items: &[T]) -> String {
    let mut reply = format!("*{}", items.len());
    for item in items {
        reply.push_str("\r\n");
        reply.push_str(item.as_ref());
    }
    reply
}

#[test]
fn ids_only_grow() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("XADD s 5-1 f a", &bulk("5-1")),
            (
                "XADD s 5-1 f a",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
            ("XADD s 5-* f b", &bulk("5-2")),
            (
                "XADD s 4-* f b",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
            ("XADD s 6-* f c", &bulk("6-0")),
            ("XADD s 7 f d", &bulk("7-0")),
            ("XADD s 0-0 f d", "-ERR The ID specified in XADD must be greater than 0-0"),
            ("XADD n 0-* f d", &bulk("0-1")),
            ("XADD s x f d", INVALID_ID),
            ("XADD s 8 f", &format!("{WRONG_ARITY} 'xadd' command")),
            ("XADD s 8 f v g", &format!("{WRONG_ARITY} 'xadd' command")),
            ("XADD s NOMKSTREAM MAXLEN 5", &format!("{WRONG_ARITY} 'xadd' command")),
            ("XADD none NOMKSTREAM * f v", NULL),
            ("EXISTS none", ":0"),
            ("XLEN s", ":4"),
            ("XLEN none", ":0"),
            ("TYPE s", "+stream"),
            ("OBJECT ENCODING s", &bulk("stream")),
            (
                "XADD s 18446744073709551615-18446744073709551615 f z",
                &bulk("18446744073709551615-18446744073709551615"),
            ),
            ("XADD s * f v", "-ERR The stream has exhausted the last possible ID, unable to add more items"),
            ("SET t x", "+OK"),
            ("XADD t * f v", WRONG_TYPE),
            ("XLEN t", WRONG_TYPE),
        ]);
        let id = server.call("XADD now * f v");
        let ms = NOW_MS;
        assert_eq!(id, format!("{}\r\n", bulk(&format!("{ms}-0"))));
        server.expect(&[("XADD now * f v", &bulk(&format!("{ms}-1")))]);
    });
}

#[test]
fn ranges_are_read_in_both_directions() {
    on_one_and_three_shards(|server| {
        for n in 1..=4 {
            server.call(&format!("XADD s {n}-{n} f {n}"));
        }
        let entry = |n: usize| entry(&format!("{n}-{n}"), &n.to_string());
        let all = array(&[entry(1), entry(2), entry(3), entry(4)]);
        server.expect(&[
            ("XRANGE s - +", &all),
            ("XRANGE s 2 3", &array(&[entry(2), entry(3)])),
            ("XRANGE s (2-2 (4-4", &array(&[entry(3)])),
            ("XRANGE s 2-3 +", &array(&[entry(3), entry(4)])),
            ("XRANGE s - + COUNT 2", &array(&[entry(1), entry(2)])),
            ("XRANGE s - + COUNT 0", "*-1"),
            ("XRANGE s - + COUNT -5", "*-1"),
            ("XRANGE s + -", "*0"),
            ("XRANGE none - +", "*0"),
            ("XREVRANGE s + -", &array(&[entry(4), entry(3), entry(2), entry(1)])),
            ("XREVRANGE s 3 (1 COUNT 1", &array(&[entry(3)])),
            ("XREVRANGE s (3-3 -", &array(&[entry(2), entry(1)])),
            ("XRANGE s - + COUNT", "-ERR syntax error"),
            ("XRANGE s - + COUNT x", "-ERR value is not an integer or out of range"),
            ("XRANGE s x +", INVALID_ID),
            (
                "XRANGE s (18446744073709551615-18446744073709551615 +",
                "-ERR invalid start ID for the interval",
            ),
            ("XRANGE s - (0-0", "-ERR invalid end ID for the interval"),
            ("XDEL s 2-2 9-9 2-2", ":1"),
            ("XRANGE s - +", &array(&[entry(1), entry(3), entry(4)])),
            ("XDEL s x", INVALID_ID),
            ("XDEL none x", ":0"),
        ]);
        server.expect(&[("XADD w 1-1 a 1 b -7 c x", &bulk("1-1"))]);
        let fields = array(&["a", "1", "b", "-7", "c", "x"].map(bulk));
        server.expect(&[("XRANGE w - +", &array(&[array(&[bulk("1-1"), fields])]))]);
    });
}

#[test]
fn a_trim_is_exact_or_removes_whole_nodes() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET stream-node-max-entries 10", "+OK")]);
        let fill = |server: &mut Server| {
            server.call("DEL s");
            for n in 1..=100 {
                server.call(&format!("XADD s {n} f v"));
            }
        };
        for (words, removed) in [
            ("XTRIM s MAXLEN 55", 45),
            ("XTRIM s MAXLEN = 55", 45),
            ("XTRIM s MAXLEN ~ 55", 40),
            ("XTRIM s MAXLEN ~ 55 LIMIT 30", 30),
            ("XTRIM s MAXLEN ~ 55 LIMIT 29", 20),
            ("XTRIM s MAXLEN ~ 55 LIMIT 5", 0),
            ("XTRIM s MAXLEN ~ 0 LIMIT 0", 100),
            ("XTRIM s MAXLEN 0", 100),
            ("XTRIM s MAXLEN 100", 0),
            ("XTRIM s MINID 46", 45),
            ("XTRIM s MINID ~ 46", 40),
            ("XTRIM s MINID ~ 41", 40),
            ("XTRIM s MINID ~ 41-1 LIMIT 20", 20),
            ("XTRIM s MINID 1000", 100),
        ] {
            fill(server);
            server.expect(&[
                (words, &format!(":{removed}")),
                ("XLEN s", &format!(":{}", 100 - removed)),
                ("EXISTS s", ":1"),
            ]);
        }
        server.expect(&[
            ("XADD s MAXLEN 0 2000 f v", &bulk("2000-0")),
            ("XLEN s", ":0"),
            (
                "XADD s MAXLEN 1 MINID 5 * f v",
                "-ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ),
            ("XADD s MAXLEN -1 * f v", "-ERR The MAXLEN argument must be >= 0."),
            ("XADD s MAXLEN ~ 1 LIMIT -1 * f v", "-ERR The LIMIT argument must be >= 0."),
            (
                "XADD s LIMIT 1 * f v",
                "-ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ),
            ("XADD s LIMIT 0 * f v", "-ERR syntax error, LIMIT cannot be used without the special ~ option"),
            (
                "XTRIM s MAXLEN 1 LIMIT 1",
                "-ERR syntax error, LIMIT cannot be used without the special ~ option",
            ),
            ("XTRIM s LIMIT", &format!("{WRONG_ARITY} 'xtrim' command")),
            ("XTRIM s LIMIT 0", "-ERR syntax error, XTRIM must be called with a trimming strategy"),
            ("XTRIM s MAXLEN 5 x", "-ERR syntax error"),
            ("XTRIM none MAXLEN 5", ":0"),
        ]);
    });
}

#[test]
fn xsetid_sets_what_a_stream_remembers() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("XSETID s 5-1", "-ERR no such key"),
            ("XADD s 5-1 f v", &bulk("5-1")),
            ("XSETID s 5-0", "-ERR The ID specified in XSETID is smaller than the target stream top item"),
            (
                "XSETID s 6 ENTRIESADDED 0",
                "-ERR The entries_added specified in XSETID is smaller than the target stream length",
            ),
            ("XSETID s 6 ENTRIESADDED -1", "-ERR entries_added must be positive"),
            (
                "XSETID s 6 MAXDELETEDID 7",
                "-ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
            ),
            ("XSETID s 6 MAXDELETEDID", "-ERR syntax error"),
            ("XSETID s 6 ENTRIESADDED 9 MAXDELETEDID 5-9", "+OK"),
            (
                "XADD s 5-5 f v",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
        ]);
        let info = server.call("XINFO STREAM s");
        let field = |name: &str, value: &str| format!("{}\r\n{value}\r\n", bulk(name));
        assert!(info.contains(&field("entries-added", ":9")), "{info}");
        assert!(info.contains(&field("max-deleted-entry-id", &bulk("5-9"))), "{info}");
        assert!(info.contains(&field("last-generated-id", &bulk("6-0"))), "{info}");
    });
}

#[test]
fn xinfo_stream_has_the_fields_of_redis_7_0() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("XGROUP CREATE s g $ MKSTREAM", "+OK"),
            ("XADD s 1-1 f a", &bulk("1-1")),
            ("XADD s 2-0 f b", &bulk("2-0")),
        ]);
        let id = |name: &str, id: &str| format!("{}\r\n{}", bulk(name), bulk(id));
        let number = |name: &str, number: u32| format!("{}\r\n:{number}", bulk(name));
        let counts = [
            number("length", 2),
            number("radix-tree-keys", 1),
            number("radix-tree-nodes", 2),
            id("last-generated-id", "2-0"),
            id("max-deleted-entry-id", "0-0"),
            number("entries-added", 2),
            id("recorded-first-entry-id", "1-1"),
        ]
        .join("\r\n");
        let (first, last) = (entry("1-1", "a"), entry("2-0", "b"));
        let edges = [number("groups", 1), bulk("first-entry"), first.clone(), bulk("last-entry"), last];
        server.expect(&[("XINFO STREAM s", &format!("*20\r\n{counts}\r\n{}", edges.join("\r\n")))]);
        server.expect(&[(
            "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
            &array(&[array(&[bulk("s"), array(&[&first])])]),
        )]);
        let now = NOW_MS;
        let full = format!(
            "*18\r\n{counts}\r\n{}\r\n{}\r\n{}\r\n*1\r\n*14\r\n{}\r\n{}\r\n{}\r\n:1\r\n{}\r\n:1\r\n{}\r\n:1\r\n{}\r\n*1\r\n*4\r\n{}\r\n{}\r\n:{now}\r\n:1\r\n{}\r\n*1\r\n*8\r\n{}\r\n{}\r\n:{now}\r\n{}\r\n:1\r\n{}\r\n*1\r\n*3\r\n{}\r\n:{now}\r\n:1",
            bulk("entries"),
            array(&[&first]),
            bulk("groups"),
            id("name", "g"),
            id("last-delivered-id", "1-1"),
            bulk("entries-read"),
            bulk("lag"),
            bulk("pel-count"),
            bulk("pending"),
            bulk("1-1"),
            bulk("c"),
            bulk("consumers"),
            id("name", "c"),
            bulk("seen-time"),
            bulk("pel-count"),
            bulk("pending"),
            bulk("1-1"),
        );
        server.expect(&[
            ("XINFO STREAM s FULL COUNT 1", &full),
            (
                "XINFO STREAM s FULL COUNT",
                "-ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.",
            ),
            (
                "XINFO STREAM s x",
                "-ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP.",
            ),
            ("XINFO STREAM none", "-ERR no such key"),
            ("XINFO CONSUMERS s x", "-NOGROUP No such consumer group 'x' for key name 's'"),
        ]);
    });
}

#[test]
fn an_effect_names_the_id_and_what_a_trim_came_to() {
    let mut server = Server::new(1);
    let mut replica = Replica::attach(&mut server);
    server.call("CONFIG SET stream-node-max-entries 2");
    server.call("XADD s 1-1 f v");
    assert_eq!(replica.read(&mut server), ["SELECT 0", "XADD s 1-1 f v"]);
    for (words, effect) in [
        ("XADD s 1-* f v", "XADD s 1-2 f v"),
        ("XADD s * f v", "XADD s 1700000000000-0 f v"),
        ("XADD s MAXLEN ~ 2 LIMIT 10 * f v", "XADD s MAXLEN = 2 LIMIT 10 1700000000000-1 f v"),
        ("XADD s MINID ~ 1 * f v", "XADD s MINID = 1700000000000-0 1700000000000-2 f v"),
        ("XTRIM s MAXLEN ~ 1", "XTRIM s MAXLEN = 1"),
        ("XTRIM s MAXLEN ~ 1", ""),
        ("XTRIM s MAXLEN 0", "XTRIM s MAXLEN 0"),
        ("XDEL s 1", ""),
        ("XSETID s 9999999999999-0", "XSETID s 9999999999999-0"),
        ("XADD s NOMKSTREAM * f v", "XADD s NOMKSTREAM 9999999999999-1 f v"),
        ("XDEL s 9999999999999-1", "XDEL s 9999999999999-1"),
        ("XADD s 9999999999999-2 f v", "XADD s 9999999999999-2 f v"),
        // Nothing is left, so no entry's ID can be named: 0-0 would leave everything.
        ("XTRIM s MINID ~ 9999999999999-3", "XTRIM s MINID = 18446744073709551615-18446744073709551615"),
    ] {
        server.call(words);
        assert_eq!(replica.read(&mut server).join("; "), effect, "{words}");
    }
}

#[test]
fn each_command_has_the_same_events_and_changes_as_in_redis() {
    let mut server = Server::new(1);
    for (words, expected, changes) in [
        ("xadd s 1-1 f v", "new s, xadd s", 1),
        ("xadd s 2-1 f v", "xadd s", 1),
        ("xadd s maxlen 1 3-1 f v", "xadd s, xtrim s", 1),
        ("xadd s maxlen 5 4-1 f v", "xadd s", 1),
        ("xadd s 1-1 f v", "", 0),
        ("xadd n 0-0 f v", "", 0),
        ("xadd n nomkstream 5-1 f v", "", 0),
        ("xtrim s maxlen 0", "xtrim s", 2),
        ("xtrim s maxlen 0", "", 0),
        ("xadd s 6-1 f v", "xadd s", 1),
        ("xdel s 6-1 5-1", "xdel s", 1),
        ("xdel s 6-1", "", 0),
        ("xsetid s 10-1", "xsetid s", 1),
        ("xadd s 11-1 f v", "xadd s", 1),
        ("xadd s 12-1 f v", "xadd s", 1),
        ("xgroup create s g 0", "xgroup-create s", 1),
        ("xgroup create s g 0", "", 0),
        ("xgroup create t g 0 mkstream", "new t, xgroup-create t", 1),
        ("xgroup setid s g 0", "xgroup-setid s", 1),
        ("xgroup createconsumer s g c", "xgroup-createconsumer s", 1),
        ("xgroup createconsumer s g c", "", 0),
        ("xreadgroup group g d streams s >", "xgroup-createconsumer s", 2),
        ("xreadgroup group g d streams s >", "", 0),
        ("xreadgroup group g f streams s >", "", 0),
        ("xreadgroup group g d streams s 0", "", 1),
        ("xreadgroup group g e noack streams s 0", "xgroup-createconsumer s", 2),
        ("xclaim s g h 0 11-1", "xgroup-createconsumer s", 2),
        ("xclaim s g h 0 99 lastid 99", "", 1),
        ("xclaim s g i 0 99", "", 0),
        ("xautoclaim s g j 0 0", "xgroup-createconsumer s", 3),
        ("xautoclaim s g k 1000 0", "", 0),
        ("xack s g 11-1 12-1 13-1", "", 2),
        ("xack s g 11-1", "", 0),
        ("xgroup delconsumer s g c", "xgroup-delconsumer s", 1),
        ("xgroup delconsumer s g c", "", 0),
        ("xgroup destroy s g", "xgroup-destroy s", 1),
        ("xgroup destroy s g", "", 0),
        ("xread streams s 0", "", 0),
    ] {
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

#[test]
fn watch_sees_entries_and_not_groups() {
    on_one_and_three_shards(|server| {
        server.call("XADD a 1-1 f v");
        let other = server.connect(1);
        for (words, is_seen) in [
            ("XGROUP CREATE a g 0", false),
            ("XREADGROUP GROUP g c STREAMS a >", false),
            ("XACK a g 1-1", false),
            ("XSETID a 2-0", false),
            ("XADD a 3-0 f v", true),
            ("XTRIM a MAXLEN 1", true),
            ("XDEL a 3-0", true),
        ] {
            server.expect(&[("WATCH a", "+OK")]);
            assert!(!server.ask(other, words).starts_with('-'), "{words}");
            server.expect(&[("MULTI", "+OK"), ("EXEC", if is_seen { "*-1" } else { "*0" })]);
        }
    });
}
