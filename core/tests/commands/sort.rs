//! SORT and SORT_RO.

use crate::{Server, on_one_and_three_shards};

/// `SADD s ...` and its weights, on as many shards as there are.
fn with_weights(shard_count: usize) -> Server {
    let mut server = Server::new(shard_count);
    server.expect(&[
        ("SADD s 1 2 3", ":3"),
        ("MSET w_1 30 w_2 20 w_3 10", "+OK"),
        ("MSET name_1 one name_2 two", "+OK"),
        ("HSET h_1 w 1 name eins", ":2"),
        ("HSET h_2 w 3", ":1"),
        ("HSET h_3 w 2 name drei", ":2"),
    ]);
    server
}

fn array(items: &[&str]) -> String {
    let bulk = |item: &&str| match *item {
        "(nil)" => "\r\n$-1".to_owned(),
        item => format!("\r\n${}\r\n{item}", item.len()),
    };
    format!("*{}{}", items.len(), items.iter().map(bulk).collect::<String>())
}

/// Asserts the arrays that requests are answered with.
#[track_caller]
fn expect_arrays(server: &mut Server, dialog: &[(&str, &[&str])]) {
    for (request, items) in dialog {
        server.expect(&[(request, &array(items))]);
    }
}

#[test]
fn numbers_are_sorted_as_numbers_and_texts_as_bytes() {
    for shard_count in [1, 3] {
        let mut server = Server::new(shard_count);
        server.expect(&[("SADD s 10 9 -1 1.5 100", ":5"), ("SADD t b a B aa 10 9", ":6")]);
        expect_arrays(
            &mut server,
            &[
                ("SORT s", &["-1", "1.5", "9", "10", "100"]),
                ("SORT s DESC", &["100", "10", "9", "1.5", "-1"]),
                ("SORT s DESC ASC LIMIT 1 2", &["1.5", "9"]),
                ("SORT s LIMIT 3 100", &["10", "100"]),
                ("SORT s LIMIT 5 1", &[]),
                ("SORT s LIMIT -3 2", &["-1", "1.5"]),
                ("SORT t ALPHA", &["10", "9", "B", "a", "aa", "b"]),
                ("SORT_RO t ALPHA DESC LIMIT 0 2", &["b", "aa"]),
                ("SORT nosuch", &[]),
            ],
        );
        let no_number = "-ERR One or more scores can't be converted into double";
        server.expect(&[
            ("SORT t", no_number),
            ("SORT_RO s STORE d", "-ERR syntax error"),
            ("SORT s LIMIT 1", "-ERR syntax error"),
            ("SORT s LIMIT a 1", "-ERR value is not an integer or out of range"),
            ("SET string x", "+OK"),
            ("SORT string", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
    }
}

/// CVE-2022-35977: offset and count that add up to more than 64 bits made Redis read beyond its array.
#[test]
fn limits_that_overflow_take_nothing_or_everything() {
    for shard_count in [1, 3] {
        let mut server = with_weights(shard_count);
        expect_arrays(
            &mut server,
            &[
                ("SORT s LIMIT 2 9223372036854775807", &["3"]),
                ("SORT s LIMIT 9223372036854775807 9223372036854775807", &[]),
                ("SORT s LIMIT -9223372036854775808 -9223372036854775808", &["1", "2", "3"]),
                ("SORT s BY nosort GET w_* LIMIT 4611686018427387904 4611686018427387904", &[]),
                ("SORT s BY w_* LIMIT -10 9223372036854775807", &["3", "2", "1"]),
            ],
        );
    }
}

#[test]
fn weights_and_values_come_from_keys_of_all_shards() {
    for shard_count in [1, 3] {
        let mut server = with_weights(shard_count);
        expect_arrays(
            &mut server,
            &[
                ("SORT s BY w_*", &["3", "2", "1"]),
                ("SORT s BY h_*->w", &["1", "3", "2"]),
                ("SORT s BY h_*->w DESC GET # GET name_*", &["2", "two", "3", "(nil)", "1", "one"]),
                ("SORT s GET h_*->name", &["eins", "(nil)", "drei"]),
                ("SORT s GET nosuch", &["(nil)", "(nil)", "(nil)"]),
                // A text behind BY that is not there is less than any other.
                ("SORT s BY name_* ALPHA", &["3", "1", "2"]),
                ("SORT_RO s BY w_* GET w_* LIMIT 0 1", &["10"]),
                // The keys of other types count as not there.
                ("SORT s GET h_* LIMIT 0 1", &["(nil)"]),
                ("SORT s GET w_*->f LIMIT 0 1", &["(nil)"]),
            ],
        );
        server.expect(&[
            ("SORT s BY name_*", "-ERR One or more scores can't be converted into double"),
            ("DBSIZE", ":9"),
        ]);
    }
}

#[test]
fn what_is_stored_is_a_list_and_nothing_deletes() {
    for shard_count in [1, 3] {
        let mut server = with_weights(shard_count);
        server.expect(&[
            ("SORT s BY w_* GET name_* STORE d", ":3"),
            ("TYPE d", "+list"),
            ("SORT nosuch STORE d", ":0"),
            ("EXISTS d", ":0"),
            ("SORT s STORE s", ":3"),
            ("TYPE s", "+list"),
        ]);
        // A set has no order: stored it has one.
        server.expect(&[("SADD t c b a", ":3"), ("SORT t BY nosort STORE d", ":3")]);
        expect_arrays(
            &mut server,
            &[("SORT d BY nosort", &["a", "b", "c"]), ("SORT d BY nosort DESC", &["c", "b", "a"])],
        );
    }
}

#[test]
fn it_is_part_of_a_transaction_with_its_keys() {
    for shard_count in [1, 3] {
        let mut server = with_weights(shard_count);
        server.expect(&[
            ("MULTI", "+OK"),
            ("SET w_1 1", "+QUEUED"),
            ("SORT s BY w_* STORE d", "+QUEUED"),
            ("SET w_2 99", "+QUEUED"),
            ("SORT d BY w_* LIMIT 0 1", "+QUEUED"),
            ("GET w_1", "+QUEUED"),
            ("EXEC", "*5\r\n+OK\r\n:3\r\n+OK\r\n*1\r\n$1\r\n1\r\n$1\r\n1"),
        ]);
        expect_arrays(
            &mut server,
            &[("SORT s BY w_*", &["1", "3", "2"]), ("SORT d BY nosort", &["1", "3", "2"])],
        );
    }
}

#[test]
fn expired_weights_are_not_there() {
    for shard_count in [1, 3] {
        let mut server = with_weights(shard_count);
        server.expect(&[("PEXPIRE w_1 1", ":1"), ("DEBUG SET-ACTIVE-EXPIRE 0", "+OK")]);
        server.cluster.clock.advance_ms(5);
        expect_arrays(&mut server, &[("SORT s BY w_*", &["1", "3", "2"])]);
        server.expect(&[("EXISTS w_1", ":0")]);
    }
}

#[test]
fn its_events_and_changes_are_those_of_redis() {
    let mut server = Server::new(1);
    server.expect(&[("SADD s 1 2 3", ":3")]);
    for (words, expected, changes) in [
        ("sort s", "", 0),
        ("sort s store d", "new d, sortstore d", 3),
        ("sort s limit 0 2 store d", "sortstore d", 2),
        ("sort none store d", "del d", 1),
        ("sort none store d", "", 0),
    ] {
        assert_eq!(super::events::events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

/// Lists of many nodes, which SORT reads and stores.
#[test]
fn long_lists_are_sorted_and_stored() {
    on_one_and_three_shards(|server| {
        let words: Vec<String> = (0..3000).map(|n| (n * 7 % 3000).to_string()).collect();
        server.call(&format!("rpush l {}", words.join(" ")));
        expect_arrays(
            server,
            &[
                ("SORT l LIMIT 2500 2", &["2500", "2501"]),
                ("SORT l BY nosort DESC LIMIT 0 2", &[&words[2999], &words[2998]]),
                ("SORT l BY nosort LIMIT 2000 2", &[&words[2000], &words[2001]]),
            ],
        );
        server.expect(&[("SORT l STORE m", ":3000"), ("LINDEX m 1234", "$4\r\n1234"), ("LLEN m", ":3000")]);
    });
}
