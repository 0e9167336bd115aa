//! Commands over sets.

use super::effects::Replica;
use super::{NULL, Server, WRONG_ARITY, bulk, on_one_and_three_shards};
use std::collections::BTreeSet;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

/// The elements of an array or set of bulk strings, in order of their bytes.
fn elements(reply: &str) -> Vec<String> {
    assert!(reply.starts_with(['*', '~']), "{reply}");
    let mut lines = reply.split("\r\n").skip(1);
    let mut found = Vec::new();
    while let (Some(header), Some(element)) = (lines.next(), lines.next()) {
        assert!(header.starts_with('$'), "{reply}");
        found.push(element.to_string());
    }
    found.sort();
    found
}

impl Server {
    #[track_caller]
    fn expect_members(&mut self, words: &str, expected: &str) {
        let mut expected: Vec<&str> = expected.split_whitespace().collect();
        expected.sort_unstable();
        assert_eq!(elements(&self.call(words)), expected, "{words}");
    }

    #[track_caller]
    fn expect_encoding(&mut self, key: &str, encoding: &str) {
        self.expect(&[(&format!("OBJECT ENCODING {key}"), &bulk(encoding))]);
    }
}

#[test]
fn members_are_added_removed_and_found() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SADD s a b a", ":2"),
            ("SADD s a c", ":1"),
            ("SADD s a", ":0"),
            ("SCARD s", ":3"),
            ("SISMEMBER s a", ":1"),
            ("SISMEMBER s x", ":0"),
            ("SISMEMBER none x", ":0"),
            ("SMISMEMBER s a x c", "*3\r\n:1\r\n:0\r\n:1"),
            ("SMISMEMBER none a x", "*2\r\n:0\r\n:0"),
            ("SREM s x a", ":1"),
            ("SREM s a", ":0"),
            ("SREM none a", ":0"),
        ]);
        server.expect_members("SMEMBERS s", "b c");
        server.expect_members("SMEMBERS none", "");
        server.expect(&[
            ("SREM s b c d", ":2"),
            ("EXISTS s", ":0"),
            ("SCARD s", ":0"),
            ("TYPE s", "+none"),
            ("SADD s 1 2 3", ":3"),
            ("TYPE s", "+set"),
            ("SISMEMBER s 2", ":1"),
            ("SISMEMBER s 02", ":0"),
            ("SREM s 02 2", ":1"),
        ]);
        server.expect_members("SMEMBERS s", "1 3");
        for words in ["SADD s", "SREM s", "SISMEMBER s", "SMISMEMBER s", "SMEMBERS", "SCARD", "SMOVE a b"] {
            assert!(server.call(words).starts_with(WRONG_ARITY), "{words}");
        }
    });
}

#[test]
fn sets_are_sets_in_resp3() {
    on_one_and_three_shards(|server| {
        assert!(server.call("HELLO 3").starts_with("%7"));
        server.expect(&[
            ("SADD s a", ":1"),
            ("SADD t a", ":1"),
            ("SMEMBERS s", "~1\r\n$1\r\na"),
            ("SMEMBERS none", "~0"),
            ("SINTER s t", "~1\r\n$1\r\na"),
            ("SINTER s none", "~0"),
            ("SUNION s t none", "~1\r\n$1\r\na"),
            ("SUNION none", "~0"),
            ("SDIFF s t", "~0"),
            ("SDIFF none t", "~0"),
            ("SDIFF s none", "~1\r\n$1\r\na"),
            ("SRANDMEMBER s 5", "*1\r\n$1\r\na"),
            ("SRANDMEMBER none", "_"),
            ("SRANDMEMBER none 5", "*0"),
            ("SPOP s 0", "~0"),
            ("SPOP s 5", "~1\r\n$1\r\na"),
            ("SPOP s 5", "~0"),
            ("SPOP s", "_"),
            ("SSCAN t 0", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na"),
        ]);
    });
}

#[test]
fn a_key_of_another_type_is_refused_and_stays_as_it_is() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a v", "+OK"), ("SADD s 1 2", ":2")]);
        for words in [
            "SADD a 1",
            "SREM a 1",
            "SISMEMBER a 1",
            "SMISMEMBER a 1",
            "SMEMBERS a",
            "SCARD a",
            "SMOVE a s 1",
            "SMOVE s a 1",
            "SMOVE s a 9",
            "SMOVE a none 1",
            "SPOP a",
            "SPOP a 1",
            "SRANDMEMBER a",
            "SRANDMEMBER a 1",
            "SINTER s a",
            "SINTER none a",
            "SUNION s a",
            "SDIFF s a",
            "SDIFF none a",
            "SINTERSTORE d s a",
            "SUNIONSTORE d s a",
            "SDIFFSTORE d none a",
            "SINTERCARD 2 none a",
            "SSCAN a 0",
            "SSCAN a 0 x",
        ] {
            server.expect(&[(words, WRONG_TYPE)]);
        }
        server.expect(&[
            ("SMOVE none a 1", ":0"),
            ("GET a", &bulk("v")),
            ("SCARD s", ":2"),
            ("EXISTS d", ":0"),
            ("GET s", WRONG_TYPE),
            ("SUNIONSTORE a s", ":2"),
        ]);
        server.expect_members("SMEMBERS a", "1 2");
    });
}

#[test]
fn the_encoding_is_the_one_that_redis_reports() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SADD s 1 2 3", ":3")]);
        server.expect_encoding("s", "intset");
        server.expect(&[("SADD s x", ":1")]);
        server.expect_encoding("s", "hashtable");
        server.expect(&[("SREM s x", ":1")]);
        server.expect_encoding("s", "hashtable");
        server.expect(&[("SADD t 9223372036854775807 -9223372036854775808", ":2")]);
        server.expect_encoding("t", "intset");
        server.expect(&[("SADD t 9223372036854775808", ":1"), ("SADD u 01", ":1")]);
        server.expect_encoding("t", "hashtable");
        server.expect_encoding("u", "hashtable");
        server.expect(&[
            ("SUNIONSTORE d s", ":3"),
            ("CONFIG SET set-max-intset-entries 2", "+OK"),
            ("SADD v 1 2", ":2"),
        ]);
        server.expect_encoding("d", "intset");
        server.expect_encoding("v", "intset");
        server.expect(&[("SADD v 2", ":0")]);
        server.expect_encoding("v", "intset");
        server.expect(&[("SADD v 3", ":1"), ("SINTERSTORE w d s", ":3")]);
        server.expect_encoding("v", "hashtable");
        server.expect_encoding("w", "hashtable");
        server.expect(&[("CONFIG SET set-max-intset-entries 0", "+OK"), ("SADD x 1", ":1")]);
        server.expect_encoding("x", "hashtable");
        server.expect_members("SMEMBERS x", "1");
    });
}

/// Redis finds the difference by removing members from a copy of the first set if that is less work, and the copy keeps
/// its encoding.
#[test]
fn the_encoding_of_a_difference_depends_on_how_redis_finds_it() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SADD a 1 2 3 4 5 6 7 8 x", ":9"), ("SADD b x", ":1"), ("SADD c 1", ":1")]);
        server.expect(&[("SDIFFSTORE d a b", ":8")]);
        server.expect_encoding("d", "intset");
        server.expect(&[("SDIFFSTORE d a b c c c", ":7")]);
        server.expect_encoding("d", "hashtable");
        server.expect_members("SMEMBERS d", "2 3 4 5 6 7 8");
    });
}

#[test]
fn smove_moves_a_member() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SADD a 1 2 x", ":3"),
            ("SADD b 3", ":1"),
            ("SMOVE a b 1", ":1"),
            ("SMOVE a b 9", ":0"),
            ("SMOVE a b x", ":1"),
            ("SMOVE a a 2", ":1"),
            ("SMOVE a a 9", ":0"),
            ("SMOVE none b 1", ":0"),
            ("SMOVE a new 2", ":1"),
            ("EXISTS a", ":0"),
        ]);
        server.expect_members("SMEMBERS b", "1 3 x");
        server.expect_members("SMEMBERS new", "2");
        server.expect_encoding("b", "hashtable");
        server.expect_encoding("new", "intset");
    });
}

#[test]
fn algebra_of_sets_in_any_form() {
    on_one_and_three_shards(|server| {
        let numbers = |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
        let names = |range: std::ops::Range<u32>| range.map(|n| format!("m{n}")).collect::<Vec<_>>();
        let sets = [
            ("ints", numbers(0..100)),
            ("more", numbers(50..800)),
            ("few", [numbers(40..60), names(0..20)].concat()),
            ("many", [numbers(0..1000), names(10..300)].concat()),
        ];
        for (key, members) in &sets {
            server.expect(&[(&format!("SADD {key} {}", members.join(" ")), &format!(":{}", members.len()))]);
        }
        for (a, of_a) in &sets {
            for (b, of_b) in &sets {
                for (c, of_c) in &sets {
                    let [of_a, of_b, of_c] =
                        [of_a, of_b, of_c].map(|set| set.iter().cloned().collect::<BTreeSet<_>>());
                    let inter: BTreeSet<_> = &(&of_a & &of_b) & &of_c;
                    let union: BTreeSet<_> = &(&of_a | &of_b) | &of_c;
                    let diff: BTreeSet<_> = &(&of_a - &of_b) - &of_c;
                    for (name, expected) in [("SINTER", inter), ("SUNION", union), ("SDIFF", diff)] {
                        let len = format!(":{}", expected.len());
                        let expected: Vec<String> = expected.into_iter().collect();
                        assert_eq!(elements(&server.call(&format!("{name} {a} {b} {c}"))), expected);
                        server.expect(&[(&format!("{name}STORE d {a} {b} {c}"), &len)]);
                        assert_eq!(elements(&server.call("SMEMBERS d")), expected, "{name} {a} {b} {c}");
                        if name == "SINTER" {
                            server.expect(&[(&format!("SINTERCARD 3 {a} {b} {c}"), &len)]);
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_destination_is_replaced_or_deleted_and_may_be_a_source() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SADD a 1 2 3", ":3"),
            ("SADD b 2 3 4", ":3"),
            ("SET d v", "+OK"),
            ("EXPIRE a 100", ":1"),
            ("SINTERSTORE d a b", ":2"),
            ("SINTERSTORE d a none", ":0"),
            ("EXISTS d", ":0"),
            ("SUNIONSTORE a a b", ":4"),
            ("TTL a", ":-1"),
            ("SDIFFSTORE a a b", ":1"),
            ("SDIFFSTORE a a a", ":0"),
            ("EXISTS a", ":0"),
            ("SUNIONSTORE b none", ":0"),
            ("EXISTS b", ":0"),
        ]);
    });
}

#[test]
fn sintercard_checks_its_arguments_in_redis_order() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SADD a 1 2 3", ":3"),
            ("SADD b 2 3 4", ":3"),
            ("SINTERCARD 2 a b", ":2"),
            ("SINTERCARD 2 a b LIMIT 1", ":1"),
            ("SINTERCARD 2 a b limit 0", ":2"),
            ("SINTERCARD 1 a LIMIT 1 LIMIT 2", ":2"),
            ("SINTERCARD 2 a none", ":0"),
            ("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
            ("SINTERCARD 1 a LIMIT x", "-ERR LIMIT can't be negative"),
            ("SINTERCARD 1 a LIMIT", "-ERR syntax error"),
            ("SINTERCARD 1 a b", "-ERR syntax error"),
            ("SINTERCARD 0 a", "-ERR numkeys should be greater than 0"),
            ("SINTERCARD x a", "-ERR numkeys should be greater than 0"),
            ("SINTERCARD 3 a b", "-ERR Number of keys can't be greater than number of args"),
            (
                "SINTERCARD 9223372036854775807 a b",
                "-ERR Number of keys can't be greater than number of args",
            ),
        ]);
    });
}

#[test]
fn spop_removes_what_it_returns() {
    on_one_and_three_shards(|server| {
        for len in [1, 10, 60, 600] {
            for prefix in ["", "m"] {
                let names: Vec<String> = (0..len).map(|n| format!("{prefix}{n}")).collect();
                for count in [0, 1, len / 3, len - 1, len, 2 * len] {
                    server.expect(&[(&format!("SADD s {}", names.join(" ")), &format!(":{len}"))]);
                    let mut popped = elements(&server.call(&format!("SPOP s {count}")));
                    assert_eq!(popped.len(), count.min(len));
                    popped.extend(elements(&server.call("SMEMBERS s")));
                    popped.sort();
                    let mut expected = names.clone();
                    expected.sort();
                    assert_eq!(popped, expected);
                    server.call("DEL s");
                }
                server.call(&format!("SADD s {}", names.join(" ")));
                for left in (0..len).rev() {
                    assert!(server.call("SPOP s").starts_with('$'));
                    server.expect(&[("SCARD s", &format!(":{left}"))]);
                }
                server.expect(&[("EXISTS s", ":0"), ("SPOP s", NULL), ("SPOP s 1", "*0")]);
            }
        }
        for count in ["-1", "x", "1.0", "9223372036854775808"] {
            let error = "-ERR value is out of range, must be positive";
            server.expect(&[(&format!("SPOP s {count}"), error)]);
        }
        server.expect(&[("SPOP s 1 2", "-ERR syntax error")]);
    });
}

/// What is left of a table is a new set, if that is little.
#[test]
fn spop_of_nearly_all_members_leaves_a_new_set() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SADD s x 1 2 3 4 5 6 7 8 9 10 11 12", ":13"),
            ("SREM s x", ":1"),
            ("EXPIRE s 9", ":1"),
        ]);
        assert_eq!(elements(&server.call("SPOP s 3")).len(), 3);
        server.expect_encoding("s", "hashtable");
        assert_eq!(elements(&server.call("SPOP s 8")).len(), 8);
        server.expect_encoding("s", "intset");
        server.expect(&[("TTL s", ":9")]);
    });
}

/// CVE-2023-22458 and CVE-2023-25155: the smallest integer has no positive counterpart.
#[test]
fn srandmember_refuses_a_count_that_cannot_be_negated() {
    on_one_and_three_shards(|server| {
        let range = "value must between -9223372036854775807 and 9223372036854775807";
        server.expect(&[
            ("SADD s a", ":1"),
            ("SRANDMEMBER s -9223372036854775808", &format!("-ERR value is out of range, {range}")),
            ("SRANDMEMBER none -9223372036854775808", &format!("-ERR value is out of range, {range}")),
            ("SRANDMEMBER s 9223372036854775808", "-ERR value is not an integer or out of range"),
            ("SRANDMEMBER none x", "-ERR value is not an integer or out of range"),
            ("SRANDMEMBER s 9223372036854775807", "*1\r\n$1\r\na"),
            ("SRANDMEMBER s 1 2", "-ERR syntax error"),
            ("SRANDMEMBER s 0", "*0"),
            ("SRANDMEMBER s", "$1\r\na"),
            ("SRANDMEMBER s -3", "*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na"),
            ("SRANDMEMBER none", NULL),
            ("SRANDMEMBER none -3", "*0"),
        ]);
    });
}

#[test]
fn srandmember_returns_members_and_repeats_them_only_for_a_negative_count() {
    on_one_and_three_shards(|server| {
        for (len, prefix) in [(40, ""), (40, "m"), (300, ""), (300, "m")] {
            let names: Vec<String> = (0..len).map(|n| format!("{prefix}{n}")).collect();
            server.expect(&[("DEL s", ":0"), (&format!("SADD s {}", names.join(" ")), &format!(":{len}"))]);
            for count in [1, 5, len / 2, len, 2 * len] {
                let found = elements(&server.call(&format!("SRANDMEMBER s {count}")));
                let distinct: BTreeSet<_> = found.iter().cloned().collect();
                assert_eq!((found.len(), distinct.len()), (count.min(len), count.min(len)));
                assert!(distinct.iter().all(|name| names.contains(name)));
                let found = elements(&server.call(&format!("SRANDMEMBER s -{count}")));
                assert_eq!(found.len(), count);
                assert!(found.iter().all(|name| names.contains(name)));
            }
            server.expect(&[("DEL s", ":1")]);
        }
    });
}

/// The members that SSCAN returns until the cursor is 0 again.
fn scanned(server: &mut Server, options: &str) -> Vec<String> {
    let (mut cursor, mut found) = ("0".to_string(), Vec::new());
    loop {
        let reply = server.call(&format!("SSCAN s {cursor}{options}"));
        let (head, members) =
            reply.strip_prefix("*2\r\n$").and_then(|rest| rest.split_once('*')).expect("two");
        cursor = head.split("\r\n").nth(1).expect("a cursor").to_string();
        found.extend(elements(&format!("*{members}")));
        if cursor == "0" {
            return found;
        }
    }
}

#[test]
fn sscan_returns_each_member_that_is_there_all_the_time() {
    on_one_and_three_shards(|server| {
        for (len, prefix) in [(40, ""), (40, "m"), (900, ""), (900, "m")] {
            let mut names: Vec<String> = (0..len).map(|n| format!("{prefix}{n}")).collect();
            server.expect(&[(&format!("SADD s {}", names.join(" ")), &format!(":{len}"))]);
            names.sort();
            for options in ["", " COUNT 1", " COUNT 100", " MATCH *", " match * count 10000"] {
                let mut found = scanned(server, options);
                found.sort();
                found.dedup();
                assert_eq!(found, names, "{options}");
            }
            let mut found = scanned(server, " MATCH *1?");
            found.sort();
            found.dedup();
            names.retain(|name| name.len() > 1 && name.as_bytes()[name.len() - 2] == b'1');
            assert_eq!(found, names);
            server.call("DEL s");
        }
        let empty = "*2\r\n$1\r\n0\r\n*0";
        server.expect(&[
            ("SADD s a", ":1"),
            ("SSCAN none x", "-ERR invalid cursor"),
            ("SSCAN s x", "-ERR invalid cursor"),
            ("SSCAN none 0 x", empty),
            ("SSCAN s 0 x", "-ERR syntax error"),
            ("SSCAN s 0 COUNT 0", "-ERR syntax error"),
            ("SSCAN s 0 COUNT x", "-ERR value is not an integer or out of range"),
            ("SSCAN s 0 TYPE set", "-ERR syntax error"),
            ("SSCAN s 0 MATCH b COUNT 5", empty),
        ]);
    });
}

/// Members of 600 strings and of 600 integers, of which most were removed again, are still found.
#[test]
fn a_table_shrinks() {
    on_one_and_three_shards(|server| {
        let names: Vec<String> = (0..2000).map(|n| format!("member:{n}")).collect();
        server.expect(&[(&format!("SADD s {}", names.join(" ")), ":2000")]);
        let before = server.call("MEMORY USAGE s");
        server.expect(&[(&format!("SREM s {}", names[5..].join(" ")), ":1995")]);
        server.expect_members("SMEMBERS s", "member:0 member:1 member:2 member:3 member:4");
        let bytes = |reply: &str| reply.trim_start_matches(':').trim().parse::<u64>().expect("a number");
        assert!(bytes(&server.call("MEMORY USAGE s")) < bytes(&before) / 20);
        server.expect(&[("COPY s t", ":1"), ("DEL s", ":1"), ("SCARD t", ":5"), ("RENAME t s", "+OK")]);
        server.expect_members("SMEMBERS s", "member:0 member:1 member:2 member:3 member:4");
    });
}

#[test]
fn spop_leaves_the_removals_as_its_effects() {
    let mut server = Server::new(3);
    let mut replica = Replica::attach(&mut server);
    server.call("SADD s a b c 4 5 6 7");
    assert_eq!(replica.read(&mut server), ["SELECT 0", "SADD s a b c 4 5 6 7"]);
    let popped = server.call("SPOP s");
    let popped = popped.split("\r\n").nth(1).expect("a member");
    assert_eq!(replica.read(&mut server), [format!("SREM s {popped}")]);
    let popped = server.call("SPOP s 2");
    let mut popped: Vec<String> = elements(&popped).iter().map(|member| format!("SREM s {member}")).collect();
    let mut effects = replica.read(&mut server);
    assert_eq!((effects.remove(0), effects.pop()), ("MULTI".to_string(), Some("EXEC".to_string())));
    effects.sort();
    popped.sort();
    assert_eq!(effects, popped);
    server.call("SPOP s 0");
    server.call("SREM s x");
    assert_eq!(replica.read(&mut server), [""; 0]);
    server.call("SPOP s 9");
    assert_eq!(replica.read(&mut server), ["DEL s"]);
    server.call("SPOP s 9");
    server.call("SPOP s");
    assert_eq!(replica.read(&mut server), [""; 0]);
    for command in ["SADD a 1", "SMOVE a b 1", "SUNIONSTORE c b", "SINTERSTORE c b none", "SDIFFSTORE d b a"]
    {
        server.call(command);
        assert_eq!(replica.read(&mut server), [command]);
    }
    server.call("SDIFFSTORE e none");
    server.call("SMOVE a b 1");
    assert_eq!(replica.read(&mut server), [""; 0]);
}
