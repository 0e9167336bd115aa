//! Consumer groups.

use super::*;

/// The reply of a read of one stream.
fn read_of(key: &str, entries: &[String]) -> String {
    array(&[array(&[bulk(key), array(entries)])])
}

fn fill(server: &mut Server, count: usize) {
    for n in 1..=count {
        server.expect(&[(&format!("XADD s {n}-0 f {n}"), &bulk(&format!("{n}-0")))]);
    }
}

/// The entries of [`fill`].
fn filled(n: usize) -> String {
    entry(&format!("{n}-0"), &n.to_string())
}

#[test]
fn a_group_delivers_each_entry_once_and_a_consumer_reads_its_own_again() {
    on_one_and_three_shards(|server| {
        fill(server, 4);
        server.expect(&[
            ("XGROUP CREATE s g 1", "+OK"),
            ("XREADGROUP GROUP g a COUNT 2 STREAMS s >", &read_of("s", &[filled(2), filled(3)])),
            ("XREADGROUP GROUP g b STREAMS s >", &read_of("s", &[filled(4)])),
            ("XREADGROUP GROUP g b STREAMS s >", "*-1"),
            ("XREADGROUP GROUP g b STREAMS s 0", &read_of("s", &[filled(4)])),
            ("XREADGROUP GROUP g a COUNT 1 STREAMS s 2", &read_of("s", &[filled(3)])),
            ("XREADGROUP GROUP g c STREAMS s 0", &read_of("s", &[])),
            ("XREADGROUP GROUP g d STREAMS s >", "*-1"),
            // A consumer that got nothing is not created.
            ("XGROUP CREATECONSUMER s g c", ":0"),
            ("XGROUP CREATECONSUMER s g d", ":1"),
            ("XDEL s 3-0", ":1"),
        ]);
        let gone = format!("*2\r\n{}\r\n*-1", bulk("3-0"));
        server.expect(&[
            ("XREADGROUP GROUP g a STREAMS s 0", &read_of("s", &[filled(2), gone])),
            ("XACK s g 2-0 3-0 9-9 2-0", ":2"),
            ("XREADGROUP GROUP g a STREAMS s 0", &read_of("s", &[])),
            ("XACK s none 1", ":0"),
            ("XACK none g x", ":0"),
            ("XACK s g x", INVALID_ID),
        ]);
    });
}

#[test]
fn a_read_of_several_streams_skips_those_without_entries() {
    on_one_and_three_shards(|server| {
        let keys = ["a", "b", "c", "d"];
        for key in keys {
            server.expect(&[(&format!("XGROUP CREATE {key} g $ MKSTREAM"), "+OK")]);
        }
        server.expect(&[
            ("XREADGROUP GROUP g x STREAMS a b c d > > > >", "*-1"),
            ("XREAD STREAMS a b c d 0 0 0 0", "*-1"),
            ("XADD b 1-1 f v", &bulk("1-1")),
            ("XADD d 1-1 f w", &bulk("1-1")),
        ]);
        let streams =
            [("b", "v"), ("d", "w")].map(|(key, value)| array(&[bulk(key), array(&[entry("1-1", value)])]));
        server.expect(&[
            ("XREAD STREAMS a b c d 0 0 0 0", &array(&streams)),
            ("XREAD STREAMS b d 1-1 $", "*-1"),
            ("XREADGROUP GROUP g x STREAMS a b c d > > > >", &array(&streams)),
        ]);
        server.call("HELLO 3");
        server.expect(&[
            ("XREAD COUNT 1 STREAMS b 0", &format!("%1\r\n{}\r\n{}", bulk("b"), array(&[entry("1-1", "v")]))),
            ("XREAD STREAMS b 1-1", "_"),
        ]);
    });
}

#[test]
fn reads_refuse_what_redis_refuses() {
    on_one_and_three_shards(|server| {
        fill(server, 1);
        server.expect(&[
            ("XREAD STREAMS s x", INVALID_ID),
            ("XREAD STREAMS s s 0", "-ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."),
            ("XREAD COUNT 1 s 0", "-ERR syntax error"),
            ("XREAD BLOCK x STREAMS s 0", "-ERR timeout is not an integer or out of range"),
            ("XREAD BLOCK -1 STREAMS s 0", "-ERR timeout is negative"),
            ("XREAD NOACK STREAMS s 0", "-ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead."),
            ("XREAD GROUP g c STREAMS s 0", "-ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead."),
            ("XREAD STREAMS s >", "-ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."),
            ("XREADGROUP GROUP g c STREAMS s >", "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option"),
            ("XREADGROUP COUNT 1 BLOCK 1 STREAMS s >", "-ERR Missing GROUP option for XREADGROUP"),
            ("XREADGROUP GROUP g STREAMS STREAMS none >", "-NOGROUP No such key 'none' or consumer group 'g' in XREADGROUP with GROUP option"),
            ("SET t x", "+OK"),
            ("XREAD STREAMS t 0", WRONG_TYPE),
            ("XGROUP CREATE s g 0", "+OK"),
            ("XREADGROUP COUNT 1 GROUP g STREAMS STREAMS s >", &read_of("s", &[filled(1)])),
            ("XREADGROUP GROUP g c STREAMS s t > >", WRONG_TYPE),
        ]);
        assert!(server.call("XREADGROUP GROUP g c STREAMS s $").starts_with("-ERR The $ ID is meaningless"));
    });
}

#[test]
fn groups_and_consumers_come_and_go() {
    on_one_and_three_shards(|server| {
        let no_stream = "-ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use \
                         the MKSTREAM option to create an empty stream automatically.";
        let syntax = |sub: &str| {
            format!("-ERR unknown subcommand or wrong number of arguments for '{sub}'. Try XGROUP HELP.")
        };
        let no_group = "-NOGROUP No such consumer group 'x' for key name 's'";
        server.expect(&[
            ("XGROUP CREATE s g $", no_stream),
            ("XGROUP CREATE s g x MKSTREAM", INVALID_ID),
            ("EXISTS s", ":0"),
            ("XGROUP CREATE s g $ MKSTREAM", "+OK"),
            ("XGROUP CREATE s g $", "-BUSYGROUP Consumer Group name already exists"),
            ("XGROUP CREATE s h 0 ENTRIESREAD -2", "-ERR value for ENTRIESREAD must be positive or -1"),
            ("XGROUP CREATE s h 0 FOO", &syntax("CREATE")),
            ("XGROUP SETID s g 0 MKSTREAM", &syntax("SETID")),
            ("XGROUP SETID s x 0", no_group),
            ("XGROUP SETID s g -", "+OK"),
            ("XGROUP CREATECONSUMER s g c", ":1"),
            ("XGROUP CREATECONSUMER s g c", ":0"),
            ("XGROUP CREATECONSUMER s x c", no_group),
            ("XGROUP DELCONSUMER s x c", no_group),
            ("XADD s 1-0 f 1", &bulk("1-0")),
            ("XREADGROUP GROUP g c STREAMS s >", &read_of("s", &[filled(1)])),
            ("XGROUP DELCONSUMER s g d", ":0"),
            ("XGROUP DELCONSUMER s g c", ":1"),
            ("XPENDING s g", "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1"),
            ("XGROUP DESTROY s x", ":0"),
            ("XGROUP DESTROY s g", ":1"),
            ("XINFO GROUPS s", "*0"),
            ("SET t x", "+OK"),
            ("XGROUP CREATE t g 0", WRONG_TYPE),
            ("XGROUP DESTROY t g", WRONG_TYPE),
        ]);
    });
}

#[test]
fn pending_entries_are_listed_by_age_and_consumer() {
    on_one_and_three_shards(|server| {
        fill(server, 3);
        server.call("XGROUP CREATE s g 0");
        server.call("XREADGROUP GROUP g b COUNT 2 STREAMS s >");
        server.wait_ms(100);
        server.call("XREADGROUP GROUP g a STREAMS s >");
        let line = |n: usize, consumer: &str, idle: i64| {
            format!("*4\r\n{}\r\n{}\r\n:{idle}\r\n:1", bulk(&format!("{n}-0")), bulk(consumer))
        };
        let summary = format!(
            "*4\r\n:3\r\n{}\r\n{}\r\n*2\r\n*2\r\n{}\r\n{}\r\n*2\r\n{}\r\n{}",
            bulk("1-0"),
            bulk("3-0"),
            bulk("a"),
            bulk("1"),
            bulk("b"),
            bulk("2"),
        );
        server.expect(&[
            ("XPENDING s g", &summary),
            ("XPENDING s g - + 10", &array(&[line(1, "b", 100), line(2, "b", 100), line(3, "a", 0)])),
            ("XPENDING s g IDLE 50 - + 1", &array(&[line(1, "b", 100)])),
            ("XPENDING s g (1 (3-0 10", &array(&[line(2, "b", 100)])),
            ("XPENDING s g - + 10 a", &array(&[line(3, "a", 0)])),
            ("XPENDING s g - + 10 none", "*0"),
            ("XPENDING s g - +", "-ERR syntax error"),
            ("XPENDING s g IDLE 5 - +", "-ERR syntax error"),
            ("XPENDING s x", "-NOGROUP No such key 's' or consumer group 'x'"),
        ]);
    });
}

#[test]
fn entries_are_claimed_if_they_are_old_enough() {
    on_one_and_three_shards(|server| {
        fill(server, 3);
        server.call("XGROUP CREATE s g 0");
        server.call("XREADGROUP GROUP g a COUNT 2 STREAMS s >");
        server.wait_ms(100);
        let pending = |n: usize, consumer: &str, idle: i64, count: u32| {
            array(&[format!(
                "*4\r\n{}\r\n{}\r\n:{idle}\r\n:{count}",
                bulk(&format!("{n}-0")),
                bulk(consumer)
            )])
        };
        server.expect(&[
            ("XCLAIM s g b 101 1 2", "*0"),
            ("XCLAIM s g b 100 1 3", &array(&[filled(1)])),
            ("XPENDING s g 1 1 1", &pending(1, "b", 0, 2)),
            ("XCLAIM s g b 0 1 JUSTID", &array(&[bulk("1-0")])),
            ("XPENDING s g 1 1 1", &pending(1, "b", 0, 2)),
            ("XCLAIM s g c 0 3 FORCE IDLE 7 RETRYCOUNT 9 LASTID 2", &array(&[filled(3)])),
            ("XPENDING s g 3 3 1", &pending(3, "c", 7, 9)),
            ("XCLAIM s g c 0 3 TIME 99999999999999", &array(&[filled(3)])),
            ("XPENDING s g 3 3 1", &pending(3, "c", 0, 10)),
            ("XCLAIM s g c x 3", "-ERR Invalid min-idle-time argument for XCLAIM"),
            ("XCLAIM s g c 0 3 FOO", "-ERR Unrecognized XCLAIM option 'FOO'"),
            ("XCLAIM s g c 0 3 IDLE x", "-ERR Invalid IDLE option argument for XCLAIM"),
            ("XCLAIM s g c 0 3 LASTID x", INVALID_ID),
            ("XCLAIM s x c 0 3", "-NOGROUP No such key 's' or consumer group 'x'"),
            ("XDEL s 1-0", ":1"),
            ("XCLAIM s g c 0 1 2", &array(&[filled(2)])),
            ("XPENDING s g 1 1 1", "*0"),
        ]);
    });
}

#[test]
fn xautoclaim_goes_on_from_its_cursor_and_tells_deleted_entries() {
    on_one_and_three_shards(|server| {
        fill(server, 5);
        server.call("XGROUP CREATE s g 0");
        server.call("XREADGROUP GROUP g a STREAMS s >");
        server.call("XDEL s 2-0 4-0");
        let claimed = |cursor: &str, entries: &[String], gone: &[&str]| {
            let gone: Vec<String> = gone.iter().map(|id| bulk(id)).collect();
            array(&[bulk(cursor), array(entries), array(&gone)])
        };
        server.expect(&[
            ("XAUTOCLAIM s g b 0 0 COUNT 2", &claimed("3-0", &[filled(1)], &["2-0"])),
            ("XAUTOCLAIM s g b 0 3-0 COUNT 1 JUSTID", &claimed("4-0", &[bulk("3-0")], &[])),
            ("XAUTOCLAIM s g b 0 (3-0", &claimed("0-0", &[filled(5)], &["4-0"])),
            ("XAUTOCLAIM s g b 1000 0", &claimed("0-0", &[], &[])),
            ("XAUTOCLAIM s g b 0 0 COUNT 0", "-ERR COUNT must be > 0"),
            ("XAUTOCLAIM s g b x 0", "-ERR Invalid min-idle-time argument for XAUTOCLAIM"),
            ("XAUTOCLAIM s g b 0 0 FOO", "-ERR syntax error"),
            ("XAUTOCLAIM s x b 0 0", "-NOGROUP No such key 's' or consumer group 'x'"),
        ]);
    });
}

/// CVE-2022-31144: Redis had room for COUNT deleted IDs, and found more of them.
#[test]
fn cve_2022_31144_xautoclaim_tells_no_more_deleted_entries_than_count() {
    on_one_and_three_shards(|server| {
        fill(server, 30);
        server.call("XGROUP CREATE s g 0");
        server.call("XREADGROUP GROUP g a STREAMS s >");
        server.call("XTRIM s MAXLEN 0");
        for n in 0..10 {
            let gone: Vec<String> = (1..=3).map(|at| bulk(&format!("{}-0", 3 * n + at))).collect();
            let cursor = if n == 9 { "0-0".to_string() } else { format!("{}-0", 3 * n + 4) };
            server.expect(&[(
                "XAUTOCLAIM s g b 0 - COUNT 3",
                &array(&[bulk(&cursor), "*0".into(), array(&gone)]),
            )]);
        }
        let count_max = i64::MAX / 16;
        let none = array(&[bulk("0-0"), "*0".into(), "*0".into()]);
        server.expect(&[
            (&format!("XAUTOCLAIM s g b 0 - COUNT {count_max}"), &none),
            (&format!("XAUTOCLAIM s g b 0 - COUNT {}", count_max + 1), "-ERR COUNT must be > 0"),
        ]);
    });
}

#[test]
fn a_read_leaves_claims_as_effects() {
    let mut server = Server::new(1);
    let mut replica = Replica::attach(&mut server);
    fill(&mut server, 4);
    server.call("XGROUP CREATE s g 0");
    replica.read(&mut server);
    let claim = |consumer: &str, id: &str, count: u32, last_id: &str| {
        format!("XCLAIM s g {consumer} 0 {id} TIME {NOW_MS} RETRYCOUNT {count} FORCE JUSTID LASTID {last_id}")
    };
    for (words, effects) in [
        ("XREADGROUP GROUP g a COUNT 1 STREAMS s >", vec![claim("a", "1-0", 1, "1-0")]),
        (
            "XREADGROUP GROUP g a COUNT 2 STREAMS s >",
            vec!["MULTI".into(), claim("a", "2-0", 1, "2-0"), claim("a", "3-0", 1, "3-0"), "EXEC".into()],
        ),
        (
            "XREADGROUP GROUP g b NOACK STREAMS s >",
            vec![
                "MULTI".into(),
                "XGROUP CREATECONSUMER s g b".into(),
                "XGROUP SETID s g 4-0 ENTRIESREAD 4".into(),
                "EXEC".into(),
            ],
        ),
        ("XREADGROUP GROUP g a STREAMS s 0", vec![]),
        ("XREADGROUP GROUP g c STREAMS s 0", vec![]),
        ("XREADGROUP GROUP g d NOACK STREAMS s >", vec![]),
        ("XREADGROUP GROUP g d NOACK STREAMS s 0", vec!["XGROUP CREATECONSUMER s g d".into()]),
        ("XCLAIM s g b 0 1 FORCE", vec![claim("b", "1", 3, "4-0")]),
        ("XCLAIM s g e 0 9 FORCE", vec![]),
        ("XCLAIM s g e 0 9 LASTID 8-0", vec!["XGROUP SETID s g 8-0 ENTRIESREAD 4".into()]),
        ("XDEL s 2-0", vec!["XDEL s 2-0".into()]),
        ("XAUTOCLAIM s g e 0 2-0 COUNT 1", vec![claim("a", "2-0", 2, "8-0")]),
        ("XACK s g 1-0", vec!["XACK s g 1-0".into()]),
        ("XACK s g 1-0", vec![]),
        ("XGROUP CREATECONSUMER s g a", vec![]),
        ("XGROUP DELCONSUMER s g a", vec!["XGROUP DELCONSUMER s g a".into()]),
        ("XGROUP SETID s g 1", vec!["XGROUP SETID s g 1".into()]),
        ("XGROUP DESTROY s g", vec!["XGROUP DESTROY s g".into()]),
    ] {
        server.call(words);
        assert_eq!(replica.read(&mut server), effects, "{words}");
    }
}
