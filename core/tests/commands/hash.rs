//! Commands over hashes.

use super::effects::Replica;
use super::{NULL, Server, WRONG_ARITY, bulk, on_one_and_three_shards};
use std::collections::BTreeSet;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
const SYNTAX: &str = "-ERR syntax error";

/// An array of strings.
fn array(items: &[&str]) -> String {
    let items = items.iter().map(|item| format!("\r\n{}", bulk(item)));
    format!("*{}{}", items.len(), items.collect::<String>())
}

/// The strings of an array.
fn items(reply: &str) -> Vec<&str> {
    let lines: Vec<&str> = reply.split("\r\n").collect();
    lines.iter().zip(&lines[1..]).filter(|(len, _)| len.starts_with('$')).map(|(_, item)| *item).collect()
}

/// Fields `f0`, `f1`, ... with values `v0`, `v1`, ...
fn fill(server: &mut Server, key: &str, count: usize) {
    for n in 0..count {
        server.expect(&[(&format!("HSET {key} f{n} v{n}"), ":1")]);
    }
}

#[test]
fn fields_are_set_read_and_removed() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HSET h a 1 b two c 3 a 4", ":3"),
            ("HSET h a 5 d 6", ":1"),
            ("HMSET h e 7", "+OK"),
            ("HSETNX h e 8", ":0"),
            ("HSETNX h f 8", ":1"),
            ("HGET h a", &bulk("5")),
            ("HGET h none", NULL),
            ("HGET none a", NULL),
            ("HMGET h a none e", &format!("*3\r\n{}\r\n{NULL}\r\n{}", bulk("5"), bulk("7"))),
            ("HMGET none a b", &format!("*2\r\n{NULL}\r\n{NULL}")),
            ("HLEN h", ":6"),
            ("HLEN none", ":0"),
            ("HEXISTS h a", ":1"),
            ("HEXISTS h none", ":0"),
            ("HSTRLEN h b", ":3"),
            ("HSTRLEN h a", ":1"),
            ("HSTRLEN h none", ":0"),
            ("HSTRLEN none b", ":0"),
            ("HKEYS h", &array(&["a", "b", "c", "d", "e", "f"])),
            ("HVALS h", &array(&["5", "two", "3", "6", "7", "8"])),
            ("HGETALL h", &array(&["a", "5", "b", "two", "c", "3", "d", "6", "e", "7", "f", "8"])),
            ("HKEYS none", "*0"),
            ("HVALS none", "*0"),
            ("HGETALL none", "*0"),
            ("TYPE h", "+hash"),
            ("HDEL h a none b", ":2"),
            ("HDEL none a", ":0"),
            ("HDEL h c d e f g", ":4"),
            ("EXISTS h", ":0"),
        ]);
    });
}

#[test]
fn a_field_without_a_value_is_refused_before_anything_else() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET s 1", "+OK"),
            ("HSET s a", &format!("{WRONG_ARITY} 'hset' command")),
            ("HSET s a 1 b", &format!("{WRONG_ARITY} 'hset' command")),
            ("HMSET s a 1 b", &format!("{WRONG_ARITY} 'hmset' command")),
            ("HSET h a 1 b", &format!("{WRONG_ARITY} 'hset' command")),
            ("EXISTS h", ":0"),
        ]);
    });
}

#[test]
fn a_key_of_another_type_is_refused_and_stays() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET s 1", "+OK")]);
        for words in [
            "HSET s a 1",
            "HMSET s a 1",
            "HSETNX s a 1",
            "HGET s a",
            "HMGET s a",
            "HGETALL s",
            "HDEL s a",
            "HLEN s",
            "HEXISTS s a",
            "HKEYS s",
            "HVALS s",
            "HSTRLEN s a",
            "HINCRBY s a 1",
            "HINCRBYFLOAT s a 1",
            "HRANDFIELD s",
            "HRANDFIELD s 0",
            "HSCAN s 0 junk",
        ] {
            server.expect(&[(words, WRONG_TYPE)]);
        }
        server.expect(&[
            ("GET s", &bulk("1")),
            ("HSET h a 1", ":1"),
            ("GET h", WRONG_TYPE),
            ("APPEND h x", WRONG_TYPE),
            ("INCR h", WRONG_TYPE),
            ("SET h 1 GET", WRONG_TYPE),
            ("MGET h s", &format!("*2\r\n{NULL}\r\n{}", bulk("1"))),
            ("SET h 1", "+OK"),
            ("GET h", &bulk("1")),
        ]);
    });
}

#[test]
fn a_hash_is_a_listpack_up_to_the_configured_thresholds() {
    on_one_and_three_shards(|server| {
        let (most, longest) = ("x".repeat(64), "x".repeat(65));
        server.expect(&[
            (&format!("HSET h {most} {most}"), ":1"),
            ("OBJECT ENCODING h", &bulk("listpack")),
            (&format!("HSET h a {longest}"), ":1"),
            ("OBJECT ENCODING h", &bulk("hashtable")),
            ("HGET h a", &bulk(&longest)),
            (&format!("HDEL h a {most}"), ":2"),
            (&format!("HINCRBY h {longest} 1"), ":1"),
            ("OBJECT ENCODING h", &bulk("hashtable")),
        ]);
        server.expect(&[("CONFIG SET hash-max-listpack-entries 3", "+OK")]);
        fill(server, "n", 3);
        server.expect(&[("OBJECT ENCODING n", &bulk("listpack"))]);
        server.expect(&[("CONFIG SET hash-max-listpack-entries 2", "+OK")]);
        server.expect(&[
            ("HGET n f0", &bulk("v0")),
            ("OBJECT ENCODING n", &bulk("listpack")),
            ("HSET n f0 v", ":0"),
            ("OBJECT ENCODING n", &bulk("hashtable")),
            ("HDEL n f0 f1", ":2"),
            ("OBJECT ENCODING n", &bulk("hashtable")),
            ("HGETALL n", &array(&["f2", "v2"])),
            ("CONFIG SET hash-max-listpack-entries 512", "+OK"),
        ]);
    });
}

#[test]
fn a_map_has_its_own_form_in_resp3() {
    on_one_and_three_shards(|server| {
        server.call("HELLO 3");
        server.expect(&[
            ("HGETALL none", "%0"),
            ("HSET h a 1 b 2", ":2"),
            ("HGETALL h", "%2\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2"),
            ("HKEYS h", &array(&["a", "b"])),
            ("HGET h c", "_"),
            ("HRANDFIELD none", "_"),
            ("HRANDFIELD none 1 WITHVALUES", "*0"),
            ("HRANDFIELD h 2 WITHVALUES", "*2\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$1\r\nb\r\n$1\r\n2"),
        ]);
    });
}

#[test]
fn hincrby_adds_to_integers_and_refuses_what_is_none_or_does_not_fit() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HINCRBY h n 5", ":5"),
            ("HINCRBY h n -7", ":-2"),
            ("HGET h n", &bulk("-2")),
            ("HSET h max 9223372036854775807 text abc padded 007", ":3"),
            ("HINCRBY h max 1", "-ERR increment or decrement would overflow"),
            ("HINCRBY h text 1", "-ERR hash value is not an integer"),
            ("HINCRBY h padded 1", "-ERR hash value is not an integer"),
            ("HINCRBY h n 1.5", "-ERR value is not an integer or out of range"),
            ("HINCRBY none n x", "-ERR value is not an integer or out of range"),
            ("EXISTS none", ":0"),
            ("HGET h max", &bulk("9223372036854775807")),
        ]);
    });
}

#[test]
fn hincrbyfloat_adds_in_the_extended_format() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HINCRBYFLOAT h n 3", &bulk("3")),
            ("HINCRBYFLOAT h n 0.1", &bulk("3.1")),
            ("HINCRBYFLOAT h n -5.0e3", &bulk("-4996.89999999999999991")),
            ("HSET h text abc infinite inf", ":2"),
            ("HINCRBYFLOAT h text 1", "-ERR hash value is not a float"),
            ("HINCRBYFLOAT h infinite 1", "-ERR increment would produce NaN or Infinity"),
            ("HINCRBYFLOAT h n x", "-ERR value is not a valid float"),
            ("HGET h n", &bulk("-4996.89999999999999991")),
        ]);
    });
}

/// CVE-2023-28856: an increment that is not finite left a hash without fields, which crashed the server later.
#[test]
fn cve_2023_28856_hincrbyfloat_of_infinity_leaves_no_hash() {
    on_one_and_three_shards(|server| {
        for increment in ["inf", "-inf", "+inf", "infinity"] {
            server.expect(&[
                (&format!("HINCRBYFLOAT none f {increment}"), "-ERR value is NaN or Infinity"),
                ("EXISTS none", ":0"),
                ("DBSIZE", ":0"),
            ]);
        }
        server
            .expect(&[("HINCRBYFLOAT none f nan", "-ERR value is not a valid float"), ("EXISTS none", ":0")]);
    });
}

/// CVE-2023-22458: the length of the reply, twice the count, overflowed.
#[test]
fn cve_2023_22458_hrandfield_refuses_counts_beyond_its_range() {
    on_one_and_three_shards(|server| {
        const RANGE: &str =
            "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
        const OUT_OF_RANGE: &str = "-ERR value is out of range";
        server.expect(&[
            ("HSET h a 1", ":1"),
            ("HRANDFIELD h -9223372036854775808", RANGE),
            ("HRANDFIELD h -9223372036854775808 WITHVALUES", RANGE),
            ("HRANDFIELD h -4611686018427387904 WITHVALUES", OUT_OF_RANGE),
            ("HRANDFIELD h 4611686018427387904 WITHVALUES", OUT_OF_RANGE),
            ("HRANDFIELD h 4611686018427387903 WITHVALUES", &array(&["a", "1"])),
            ("HRANDFIELD h 9223372036854775807", &array(&["a"])),
            ("HRANDFIELD h 9223372036854775808", "-ERR value is not an integer or out of range"),
        ]);
    });
}

#[test]
fn hrandfield_returns_different_fields_or_with_a_negative_count_any() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HRANDFIELD none", NULL),
            ("HRANDFIELD none 3", "*0"),
            ("HRANDFIELD none -3 WITHVALUES", "*0"),
            ("HRANDFIELD none x", "-ERR value is not an integer or out of range"),
            ("HRANDFIELD none 3 VALUES", SYNTAX),
            ("HRANDFIELD none 3 WITHVALUES x", SYNTAX),
        ]);
        for (key, len) in [("small", 20), ("big", 600)] {
            fill(server, key, len);
            server.expect(&[(&format!("HRANDFIELD {key} 0"), "*0")]);
            assert!(items(&server.call(&format!("HRANDFIELD {key}")))[0].starts_with('f'));
            for count in [1, len / 4, len - 1, len, len + 1] {
                let reply = server.call(&format!("HRANDFIELD {key} {count} WITHVALUES"));
                let found = items(&reply);
                assert!(found.chunks(2).all(|pair| pair[0][1..] == pair[1][1..]));
                let different: BTreeSet<_> = found.iter().step_by(2).collect();
                assert_eq!((found.len() / 2, different.len()), (count.min(len), count.min(len)));
                let reply = server.call(&format!("HRANDFIELD {key} -{}", 3 * count));
                assert_eq!(items(&reply).len(), 3 * count);
            }
        }
    });
}

#[test]
fn hscan_returns_all_fields_whatever_happens_to_the_others() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HSCAN none x", "-ERR invalid cursor"),
            ("HSCAN none 0 junk", "*2\r\n$1\r\n0\r\n*0"),
            ("HSET small a 1 b 2", ":2"),
            ("HSCAN small 7 COUNT 1", &format!("*2\r\n$1\r\n0\r\n{}", array(&["a", "1", "b", "2"]))),
            ("HSCAN small 0 MATCH b*", &format!("*2\r\n$1\r\n0\r\n{}", array(&["b", "2"]))),
            ("HSCAN small 0 COUNT 0", SYNTAX),
            ("HSCAN small 0 TYPE hash", SYNTAX),
            ("HSCAN small 0 MATCH", SYNTAX),
        ]);
        fill(server, "big", 1000);
        let (mut cursor, mut seen, mut calls) = ("0".to_string(), BTreeSet::new(), 0);
        loop {
            let reply = server.call(&format!("HSCAN big {cursor} COUNT 20"));
            let mut found = items(&reply).into_iter().map(str::to_owned);
            cursor = found.next().expect("a cursor");
            let found: Vec<String> = found.collect();
            assert!(found.len() < 400, "{}", found.len());
            assert!(found.chunks(2).all(|pair| pair[0][1..] == pair[1][1..]));
            seen.extend(found.into_iter().step_by(2));
            calls += 1;
            if cursor == "0" {
                break;
            }
            // The fields from 500 on go while the scan runs.
            for n in 0..30 {
                server.call(&format!("HDEL big f{}", 500 + (calls * 30 + n) % 500));
            }
        }
        assert!(calls > 5 && (0..500).all(|n| seen.contains(&format!("f{n}"))));
    });
}

#[test]
fn a_big_hash_is_copied_moved_and_deleted() {
    on_one_and_three_shards(|server| {
        fill(server, "h", 1000);
        server.expect(&[
            ("COPY h g", ":1"),
            ("HDEL h f1", ":1"),
            ("HLEN g", ":1000"),
            ("HGET g f1", &bulk("v1")),
            ("RENAME h i", "+OK"),
            ("HLEN i", ":999"),
            ("MOVE i 1", ":1"),
            ("HLEN i", ":0"),
            ("SELECT 1", "+OK"),
            ("HGET i f999", &bulk("v999")),
            ("DEL i", ":1"),
            ("SELECT 0", "+OK"),
            ("EXPIRE g 100", ":1"),
            ("HSET g f1 w", ":0"),
            ("TTL g", ":100"),
            ("PEXPIREAT g 1", ":1"),
            ("HGETALL g", "*0"),
            ("DBSIZE", ":0"),
        ]);
    });
}

#[test]
fn hincrbyfloat_is_repeated_as_hset_and_the_others_as_they_are() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        for words in [
            "HSET h a 1",
            "HINCRBYFLOAT h a 0.5",
            "HINCRBY h b 2",
            "HSETNX h b 3",
            "HDEL h none",
            "HDEL h a b",
        ] {
            server.call(words);
        }
        let effects = replica.read(server);
        let written = effects.iter().filter(|words| !words.starts_with("SELECT"));
        assert_eq!(
            written.collect::<Vec<_>>(),
            ["HSET h a 1", "HSET h a 1.5", "HINCRBY h b 2", "HDEL h a b"]
        );
    });
}
