//! Commands over strings.

use super::{NULL, WRONG_ARITY, bulk, on_one_and_three_shards};

#[test]
fn set_takes_its_options_in_any_order_and_repeated_but_not_contradicting() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a 1", "+OK"),
            ("SET a 2 NX", NULL),
            ("SET b 2 XX", NULL),
            ("SET b 2 nx px 5000 nx", "+OK"),
            ("SET a 3 EX 10 XX EX 20", "+OK"),
            ("TTL a", ":20"),
            ("SET a 4 keepttl KEEPTTL", "+OK"),
            ("TTL a", ":20"),
            ("SET a 5", "+OK"),
            ("TTL a", ":-1"),
            ("SET a 6 NX XX", "-ERR syntax error"),
            ("SET a 6 EX 10 PX 10", "-ERR syntax error"),
            ("SET a 6 EX 10 KEEPTTL", "-ERR syntax error"),
            ("SET a 6 KEEPTTL EXAT 10", "-ERR syntax error"),
            ("SET a 6 EX", "-ERR syntax error"),
            ("SET a 6 PERSIST", "-ERR syntax error"),
            ("SET a 6 x", "-ERR syntax error"),
            ("GET a", &bulk("5")),
        ]);
    });
}

#[test]
fn set_with_get_replies_with_the_old_value_whether_it_sets_or_not() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a 1 GET", NULL),
            ("SET a 2 GET GET", &bulk("1")),
            ("SET a 3 NX GET", &bulk("2")),
            ("GET a", &bulk("2")),
            ("SET b 1 XX GET", NULL),
            ("EXISTS b", ":0"),
            ("SET b 1 NX GET", NULL),
            ("GET b", &bulk("1")),
        ]);
    });
}

#[test]
fn a_time_to_live_must_be_positive_and_fit_64_bits_of_milliseconds() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a b EX 0", "-ERR invalid expire time in 'set' command"),
            ("SET a b PX -1", "-ERR invalid expire time in 'set' command"),
            ("SET a b EX 9223372036854775807", "-ERR invalid expire time in 'set' command"),
            ("SET a b PX 9223372036854775807", "-ERR invalid expire time in 'set' command"),
            ("SET a b EX 1.5", "-ERR value is not an integer or out of range"),
            ("SETEX a 0 b", "-ERR invalid expire time in 'setex' command"),
            ("SETEX a x b", "-ERR value is not an integer or out of range"),
            ("PSETEX a 9223372036854775807 b", "-ERR invalid expire time in 'psetex' command"),
            ("EXISTS a", ":0"),
            ("SET a b PXAT 9223372036854775807", "+OK"),
            ("PEXPIRETIME a", ":9223372036854775807"),
            ("SETEX a 100 b", "+OK"),
            ("TTL a", ":100"),
            ("PSETEX a 100 b", "+OK"),
            ("PTTL a", ":100"),
        ]);
    });
}

#[test]
fn an_absolute_expiry_in_the_past_sets_a_key_that_has_expired_at_once() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a b EXAT 1", "+OK"),
            ("GET a", NULL),
            ("SET a b PXAT 1 GET", NULL),
            ("EXISTS a", ":0"),
            ("DBSIZE", ":0"),
        ]);
    });
}

#[test]
fn keepttl_does_not_keep_an_expiry_that_has_passed() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a b PX 10", "+OK")]);
        server.wait_ms(11);
        server.expect(&[("SET a c KEEPTTL", "+OK"), ("GET a", &bulk("c")), ("TTL a", ":-1")]);
    });
}

#[test]
fn setnx_getset_and_getdel_act_as_set_and_get_with_options() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SETNX a 1", ":1"),
            ("SETNX a 2", ":0"),
            ("GETSET a 3", &bulk("1")),
            ("GETSET b 3", NULL),
            ("EXPIRE a 100", ":1"),
            ("GETSET a 4", &bulk("3")),
            ("TTL a", ":-1"),
            ("GETDEL a", &bulk("4")),
            ("GETDEL a", NULL),
            ("EXISTS a", ":0"),
        ]);
    });
}

#[test]
fn getex_changes_the_expiry_only_as_its_option_says() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a b", "+OK"),
            ("GETEX a", &bulk("b")),
            ("TTL a", ":-1"),
            ("GETEX a EX 100", &bulk("b")),
            ("TTL a", ":100"),
            ("GETEX a", &bulk("b")),
            ("TTL a", ":100"),
            ("GETEX a PX 5000", &bulk("b")),
            ("PTTL a", ":5000"),
            ("GETEX a EXAT 1700000100", &bulk("b")),
            ("TTL a", ":100"),
            ("GETEX a PXAT 1700000200000", &bulk("b")),
            ("TTL a", ":200"),
            ("GETEX a PERSIST PERSIST", &bulk("b")),
            ("TTL a", ":-1"),
            ("GETEX a PERSIST EX 1", "-ERR syntax error"),
            ("GETEX a KEEPTTL", "-ERR syntax error"),
            ("GETEX a NX", "-ERR syntax error"),
            ("GETEX a EX 0", "-ERR invalid expire time in 'getex' command"),
            ("GETEX a EX x", "-ERR value is not an integer or out of range"),
            // If there is no key, the time is not checked.
            ("GETEX none EX 0", NULL),
            ("GETEX none EX 0 PX", "-ERR syntax error"),
            ("GETEX a EXAT 1", &bulk("b")),
            ("EXISTS a", ":0"),
        ]);
    });
}

#[test]
fn several_keys_are_set_and_read_in_the_order_of_the_arguments() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("MSET a 1 b 2 c 3 d 4 e x a 5", "+OK"),
            (
                "MGET e d nokey a b c a",
                "*7\r\n$1\r\nx\r\n$1\r\n4\r\n$-1\r\n$1\r\n5\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n5",
            ),
            ("MSETNX f 1 g 1 a 1", ":0"),
            ("EXISTS f g", ":0"),
            ("MSETNX f 1 g 2 h 3", ":1"),
            ("MGET f g h", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3"),
        ]);
    });
}

#[test]
fn a_key_without_a_value_sets_nothing_on_any_shard() {
    on_one_and_three_shards(|server| {
        let keys = "MSET a 1 b 2 c 3 d 4 e 5 f";
        assert_eq!(server.call(keys), format!("{WRONG_ARITY} 'mset' command\r\n"));
        let keys = "MSETNX a 1 b 2 c 3 d 4 e 5 f";
        assert_eq!(server.call(keys), format!("{WRONG_ARITY} 'msetnx' command\r\n"));
        server.expect(&[("DBSIZE", ":0")]);
    });
}

#[test]
fn counters_count_up_and_down_to_the_ends_of_64_bits() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("INCR n", ":1"),
            ("INCRBY n 41", ":42"),
            ("DECR n", ":41"),
            ("DECRBY n 50", ":-9"),
            ("DECRBY n -9", ":0"),
            ("SET n 9223372036854775806", "+OK"),
            ("INCR n", ":9223372036854775807"),
            ("INCR n", "-ERR increment or decrement would overflow"),
            ("SET n -9223372036854775808", "+OK"),
            ("DECR n", "-ERR increment or decrement would overflow"),
            ("DECRBY n -9223372036854775808", "-ERR decrement would overflow"),
            ("GET n", "$20\r\n-9223372036854775808"),
            ("INCRBY n 1x", "-ERR value is not an integer or out of range"),
            ("SET n 01", "+OK"),
            ("INCR n", "-ERR value is not an integer or out of range"),
            ("SET n 9223372036854775808", "+OK"),
            ("INCR n", "-ERR value is not an integer or out of range"),
            ("SET n 5 EX 100", "+OK"),
            ("INCR n", ":6"),
            ("TTL n", ":100"),
        ]);
    });
}

#[test]
fn floats_are_added_as_redis_adds_them() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("INCRBYFLOAT f 10.50", &bulk("10.5")),
            ("INCRBYFLOAT f 0.1", &bulk("10.6")),
            ("SET f 3", "+OK"),
            ("INCRBYFLOAT f 0.1", &bulk("3.1")),
            ("SET f 5.0e3 EX 100", "+OK"),
            ("INCRBYFLOAT f 2.0e2", &bulk("5200")),
            ("TTL f", ":100"),
            ("OBJECT ENCODING f", &bulk("embstr")),
            ("INCRBYFLOAT f abc", "-ERR value is not a valid float"),
            ("INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity"),
            ("SET f abc", "+OK"),
            ("INCRBYFLOAT f 1", "-ERR value is not a valid float"),
        ]);
    });
}

#[test]
fn append_and_setrange_grow_strings_and_fill_gaps_with_zeros() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("APPEND a 12", ":2"),
            ("OBJECT ENCODING a", &bulk("int")),
            ("APPEND a 3", ":3"),
            ("GET a", &bulk("123")),
            ("OBJECT ENCODING a", &bulk("raw")),
            ("STRLEN a", ":3"),
            ("STRLEN none", ":0"),
            ("SETRANGE b 3 xy", ":5"),
            ("GET b", "$5\r\n\0\0\0xy"),
            ("SETRANGE a 1 X", ":3"),
            ("GET a", &bulk("1X3")),
            ("SETRANGE a 2 YZ", ":4"),
            ("GET a", &bulk("1XYZ")),
            ("SETRANGE a -1 x", "-ERR offset is out of range"),
            ("SETRANGE a x x", "-ERR value is not an integer or out of range"),
            ("SETRANGE a 536870912 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            (
                "SETRANGE c 9223372036854775807 xx",
                "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            ),
            ("EXISTS c", ":0"),
        ]);
        assert_eq!(server.call_args(&["SETRANGE", "none", "10", ""]), ":0\r\n");
        assert_eq!(server.call_args(&["SETRANGE", "a", "10", ""]), ":4\r\n");
        assert_eq!(server.call_args(&["EXISTS", "none"]), ":0\r\n");
    });
}

#[test]
fn an_append_keeps_the_expiry() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a x EX 100", "+OK"),
            ("APPEND a y", ":2"),
            ("SETRANGE a 0 z", ":2"),
            ("TTL a", ":100"),
            ("GET a", &bulk("zy")),
        ]);
    });
}

#[test]
fn a_range_counts_from_both_ends() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a Hello", "+OK"),
            ("GETRANGE a 1 3", &bulk("ell")),
            ("GETRANGE a -3 -1", &bulk("llo")),
            ("SUBSTR a 0 0", &bulk("H")),
            ("GETRANGE a -100 -90", &bulk("H")),
            ("GETRANGE a 0 -100", &bulk("H")),
            ("GETRANGE a -1 -5", &bulk("")),
            ("GETRANGE a 3 2", &bulk("")),
            ("GETRANGE none 0 -1", &bulk("")),
            ("GETRANGE a x 1", "-ERR value is not an integer or out of range"),
            ("SET n 1234", "+OK"),
            ("GETRANGE n 0 1", &bulk("12")),
        ]);
    });
}

#[test]
fn lcs_returns_the_subsequence_its_length_or_its_positions() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("MSET a ohmytext b mynewtext", "+OK"),
            ("LCS a b", &bulk("mytext")),
            ("LCS a b LEN", ":6"),
            ("LCS a none", &bulk("")),
            (
                "LCS a b IDX",
                "*4\r\n$7\r\nmatches\r\n*2\r\n*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n\
                 $3\r\nlen\r\n:6",
            ),
            (
                "LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
                "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6",
            ),
            ("LCS a b IDX LEN", "-ERR If you want both the length and indexes, please just use IDX."),
            ("LCS a b MINMATCHLEN", "-ERR syntax error"),
            ("LCS a b foo", "-ERR syntax error"),
        ]);
    });
}

#[test]
fn lookups_count_hits_and_misses_and_writes_count_changes() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a 1", "+OK"),
            ("GET a", "$1\r\n1"),
            ("GET b", NULL),
            ("MGET a b", "*2\r\n$1\r\n1\r\n$-1"),
        ]);
        assert_eq!((server.sum(|s| s.keyspace_hits.get()), server.sum(|s| s.keyspace_misses.get())), (2, 2));
        assert_eq!(server.changes(), 1);
        server.expect(&[
            ("SET a 1 NX", NULL),
            ("SETNX a 1", ":0"),
            ("GETEX a", "$1\r\n1"),
            ("GETEX a PERSIST", "$1\r\n1"),
            ("GETDEL b", NULL),
            ("MSETNX a 1 b 1", ":0"),
            ("DEL b c", ":0"),
            ("PERSIST a", ":0"),
            ("EXPIRE b 10", ":0"),
        ]);
        assert_eq!(server.changes(), 1, "nothing of this changed anything");
        server.expect(&[
            ("MSET a 1 b 2 c 3", "+OK"),
            ("INCR a", ":2"),
            ("EXPIRE a 10", ":1"),
            ("GETEX a PERSIST", "$1\r\n2"),
        ]);
        assert_eq!(server.changes(), 7);
    });
}
