//! Commands over sorted sets.

use super::effects::Replica;
use super::{Server, WRONG_ARITY, bulk, on_one_and_three_shards};
use crate::cluster::Cluster;

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

/// A reply in short: `[a 1 [b nil]]`.
fn shown(reply: &str) -> String {
    fn value<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
        let line = lines.next().expect("a reply is whole");
        let (kind, rest) = line.split_at(1);
        match kind {
            "*" | "~" if rest != "-1" => {
                let len: usize = rest.parse().expect("a length");
                let values: Vec<String> = (0..len).map(|_| value(lines)).collect();
                format!("[{}]", values.join(" "))
            }
            "$" if rest != "-1" => lines.next().expect("a string follows its length").to_string(),
            "*" => "nil[]".to_string(),
            "$" | "_" => "nil".to_string(),
            "," => format!("({rest})"),
            _ => line.to_string(),
        }
    }
    value(&mut reply.split("\r\n"))
}

impl Server {
    /// Asserts that requests get replies, in short.
    #[track_caller]
    fn expect_shown(&mut self, dialog: &[(&str, &str)]) {
        for (words, expected) in dialog {
            assert_eq!(shown(&self.call(words)), *expected, "{words}");
        }
    }
}

/// Runs a test over small sets, and over the same sets when they are big.
fn on_small_and_big_sets(test: impl Fn(&mut Server)) {
    on_one_and_three_shards(|server| {
        test(server);
        server.expect(&[("FLUSHALL", "+OK"), ("CONFIG SET zset-max-listpack-entries 0", "+OK")]);
        test(server);
    });
}

#[test]
fn scores_are_set_changed_and_removed() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 1 a", ":2"),
            ("ZADD z 1.5 a 3 c", ":1"),
            ("ZADD z CH 1.5 a 4 c 5 d", ":2"),
            ("ZCARD z", ":4"),
            ("ZSCORE z a", "1.5"),
            ("ZSCORE z x", "nil"),
            ("ZSCORE none x", "nil"),
            ("ZMSCORE z a x d", "[1.5 nil 5]"),
            ("ZMSCORE none a x", "[nil nil]"),
            ("ZRANGE z 0 -1", "[a b c d]"),
            ("ZREM z x a b", ":2"),
            ("ZREM none a", ":0"),
            ("ZREM z c d", ":2"),
            ("EXISTS z", ":0"),
            ("ZCARD z", ":0"),
        ]);
    });
}

#[test]
fn the_options_of_zadd_decide_which_scores_are_set() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z XX 1 a", ":0"),
            ("EXISTS z", ":0"),
            ("ZADD z NX 1 a", ":1"),
            ("ZADD z NX CH 5 a 2 b", ":1"),
            ("ZADD z XX CH 5 a 2 x", ":1"),
            ("ZADD z GT CH 4 a 3 b 1 c", ":2"),
            ("ZADD z LT CH 4 a 4 b", ":1"),
            ("ZADD z XX GT CH 9 a 9 y", ":1"),
            ("ZRANGE z 0 -1 WITHSCORES", "[c 1 b 3 a 9]"),
            ("ZADD z INCR 1.5 a", "10.5"),
            ("ZADD z INCR NX 1 a", "nil"),
            ("ZADD z INCR XX 1 x", "nil"),
            ("ZADD z INCR GT -1 a", "nil"),
            ("ZADD z INCR LT -1 a", "9.5"),
            ("ZADD none INCR XX 1 a", "nil"),
            ("ZINCRBY z -9.5 a", "0"),
            ("ZINCRBY z 2.5 new", "2.5"),
            ("ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible"),
            ("ZADD z GT LT 1 a", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
            ("ZADD z NX GT 1 a", "-ERR GT, LT, and/or NX options at the same time are not compatible"),
            ("ZADD z INCR 1 a 2 b", "-ERR INCR option supports a single increment-element pair"),
            ("ZADD z 1 a 2", "-ERR syntax error"),
            ("ZADD z NX CH", "-ERR syntax error"),
            ("ZADD z x a", "-ERR value is not a valid float"),
            ("ZADD z 1 a nan b", "-ERR value is not a valid float"),
            ("ZINCRBY z x a", "-ERR value is not a valid float"),
            ("ZINCRBY z GT a", "-ERR syntax error"),
            ("ZRANGE z 0 -1 WITHSCORES", "[a 0 c 1 new 2.5 b 3]"),
        ]);
    });
}

#[test]
fn scores_are_shown_as_redis_shows_them() {
    on_one_and_three_shards(|server| {
        server.expect_shown(&[
            ("ZADD z -0 a 1e17 b 0.1 c 1e-7 d inf e -inf f 9.3e18 g", ":7"),
            (
                "ZRANGE z 0 -1 WITHSCORES",
                "[f -inf a 0 d 9.9999999999999995e-08 c 0.10000000000000001 b 1e+17 g 9.3e+18 e inf]",
            ),
            ("ZSCAN z 0", "[0 [f -inf a 0 d 9.9999999999999995e-08 c 0.10000000000000001 b 100000000000000000 g 9.3e+18 e inf]]"),
            ("ZINCRBY z -inf e", "-ERR resulting score is not a number (NaN)"),
            ("ZADD z INCR -inf e", "-ERR resulting score is not a number (NaN)"),
            ("CONFIG SET zset-max-listpack-entries 0", "+OK"),
            ("ZADD y -0 a", ":1"),
            ("ZADD y 1e17 b", ":1"),
            ("ZADD y CH 0 a", ":0"),
            ("ZRANGE y 0 -1 WITHSCORES", "[a -0 b 1e+17]"),
            ("ZINCRBY y inf b", "inf"),
            ("ZINCRBY y -inf b", "-ERR resulting score is not a number (NaN)"),
            ("ZSCORE y b", "inf"),
        ]);
    });
}

#[test]
fn ranks_count_from_both_ends() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 2 c 3.5 d", ":4"),
            ("ZRANK z a", ":0"),
            ("ZRANK z c", ":2"),
            ("ZREVRANK z a", ":3"),
            ("ZRANK z x", "nil"),
            ("ZREVRANK none x", "nil"),
            ("ZRANK z d WITHSCORE", "[:3 3.5]"),
            ("ZREVRANK z d withscore", "[:0 3.5]"),
            ("ZRANK z x WITHSCORE", "nil[]"),
            ("ZRANK none x WITHSCORE", "nil[]"),
            ("ZRANK z a WITHSCORES", "-ERR syntax error"),
            ("ZRANK z a WITHSCORE x", "-ERR wrong number of arguments for 'zrank' command"),
        ]);
    });
}

#[test]
fn ranges_by_rank_score_and_member_go_in_both_directions() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 2 c 3 d inf e", ":5"),
            ("ZRANGE z 1 2", "[b c]"),
            ("ZRANGE z -2 -1", "[d e]"),
            ("ZRANGE z -99 99", "[a b c d e]"),
            ("ZRANGE z 5 9", "[]"),
            ("ZRANGE z 3 1", "[]"),
            ("ZRANGE z -1 -9", "[]"),
            ("ZRANGE z 0 1 REV WITHSCORES", "[e inf d 3]"),
            ("ZREVRANGE z 1 -2", "[d c b]"),
            ("ZRANGE z 2 3 BYSCORE", "[b c d]"),
            ("ZRANGE z (2 +inf BYSCORE WITHSCORES", "[d 3 e inf]"),
            ("ZRANGE z (2 (3 BYSCORE", "[]"),
            ("ZRANGE z 3 1 BYSCORE", "[]"),
            ("ZRANGE z 3 (1 BYSCORE REV", "[d c b]"),
            ("ZRANGEBYSCORE z -inf inf LIMIT 1 2", "[b c]"),
            ("ZRANGEBYSCORE z -inf inf LIMIT 3 -1 WITHSCORES", "[d 3 e inf]"),
            ("ZRANGEBYSCORE z -inf inf LIMIT -1 2", "[]"),
            ("ZRANGEBYSCORE z -inf inf LIMIT 0 0", "[]"),
            ("ZRANGEBYSCORE z -inf inf LIMIT 9 2", "[]"),
            ("ZREVRANGEBYSCORE z 3 -inf LIMIT 1 2 WITHSCORES", "[c 2 b 2]"),
            ("ZCOUNT z 2 3", ":3"),
            ("ZCOUNT z (2 (inf", ":1"),
            ("ZCOUNT none 2 3", ":0"),
            ("ZADD l 0 a 0 b 0 c 0 cc 0 d", ":5"),
            ("ZRANGE l - + BYLEX", "[a b c cc d]"),
            ("ZRANGE l [b (d BYLEX", "[b c cc]"),
            ("ZRANGE l (d [b BYLEX REV LIMIT 1 9", "[c b]"),
            ("ZRANGEBYLEX l (c + LIMIT 1 1", "[d]"),
            ("ZREVRANGEBYLEX l + [cc", "[d cc]"),
            ("ZRANGEBYLEX l + -", "[]"),
            ("ZLEXCOUNT l - [c", ":3"),
            ("ZLEXCOUNT l (a (a", ":0"),
            ("ZRANGE none 0 -1", "[]"),
        ]);
    });
}

#[test]
fn a_range_that_is_none_is_an_error_whether_there_is_a_set_or_not() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET s v", "+OK")]);
        let limit = "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
        let scores = "-ERR syntax error, WITHSCORES not supported in combination with BYLEX";
        for key in ["none", "s"] {
            for (words, error) in [
                ("ZRANGE <key> a 1", "-ERR value is not an integer or out of range"),
                ("ZRANGE <key> (1 x BYSCORE", "-ERR min or max is not a float"),
                ("ZRANGEBYSCORE <key> nan 1", "-ERR min or max is not a float"),
                ("ZCOUNT <key> 1 x", "-ERR min or max is not a float"),
                ("ZREMRANGEBYSCORE <key> 1 x", "-ERR min or max is not a float"),
                ("ZREMRANGEBYRANK <key> 1 x", "-ERR value is not an integer or out of range"),
                ("ZRANGE <key> a [b BYLEX", "-ERR min or max not valid string range item"),
                ("ZLEXCOUNT <key> - x", "-ERR min or max not valid string range item"),
                ("ZREMRANGEBYLEX <key> -x +", "-ERR min or max not valid string range item"),
                ("ZRANGE <key> 0 1 LIMIT 0 1", limit),
                ("ZRANGE <key> - + BYLEX WITHSCORES", scores),
                ("ZRANGE <key> 0 1 BYSCORE LIMIT 0", "-ERR syntax error"),
                ("ZRANGE <key> 0 1 BYSCORE LIMIT a 0", "-ERR value is not an integer or out of range"),
                ("ZRANGE <key> 0 1 x", "-ERR syntax error"),
                ("ZREVRANGE <key> 0 1 REV", "-ERR syntax error"),
                ("ZRANGEBYSCORE <key> 0 1 BYLEX", "-ERR syntax error"),
                ("ZRANGESTORE d <key> 0 1 WITHSCORES", "-ERR syntax error"),
            ] {
                let words = words.replace("<key>", key);
                assert_eq!(server.call(&words), format!("{error}\r\n"), "{words}");
            }
        }
    });
}

#[test]
fn a_range_is_stored_or_removed() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 3 c", ":3"),
            ("SET d v EX 100", "+OK"),
            ("ZRANGESTORE d z 1 2", ":2"),
            ("ZRANGE d 0 -1 WITHSCORES", "[b 2 c 3]"),
            ("TTL d", ":-1"),
            ("ZRANGESTORE d z 3 -inf BYSCORE REV LIMIT 1 1", ":1"),
            ("ZRANGE d 0 -1", "[b]"),
            ("ZRANGESTORE d none 0 -1", ":0"),
            ("EXISTS d", ":0"),
            ("ZRANGESTORE z z 0 0", ":1"),
            ("ZRANGE z 0 -1", "[a]"),
            ("ZADD z 1 b 1 c 1 d", ":3"),
            ("ZREMRANGEBYLEX z (a [b", ":1"),
            ("ZREMRANGEBYRANK z 1 -2", ":1"),
            ("ZRANGE z 0 -1", "[a d]"),
            ("ZREMRANGEBYSCORE z (1 2", ":0"),
            ("ZREMRANGEBYSCORE z 1 1", ":2"),
            ("EXISTS z", ":0"),
            ("ZREMRANGEBYRANK z 0 -1", ":0"),
        ]);
    });
}

#[test]
fn members_are_popped_from_both_ends() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f", ":6"),
            ("ZPOPMIN z", "[a 1]"),
            ("ZPOPMAX z 2", "[f 6 e 5]"),
            ("ZPOPMIN z 0", "[]"),
            ("ZPOPMIN none", "[]"),
            ("ZPOPMIN z x", "-ERR value is out of range, must be positive"),
            ("ZPOPMIN z -1", "-ERR value is out of range, must be positive"),
            ("ZPOPMIN z 1 2", "-ERR syntax error"),
            ("ZMPOP 2 none z MIN", "[z [[b 2]]]"),
            ("ZMPOP 1 z MAX COUNT 9", "[z [[d 4] [c 3]]]"),
            ("ZMPOP 1 z MAX COUNT 9", "nil[]"),
            ("ZMPOP 0 z MIN", "-ERR numkeys should be greater than 0"),
            ("ZMPOP x z MIN", "-ERR numkeys should be greater than 0"),
            ("ZMPOP 2 z MIN", "-ERR syntax error"),
            ("ZMPOP 1 z MID", "-ERR syntax error"),
            ("ZMPOP 1 z MIN COUNT", "-ERR syntax error"),
            ("ZMPOP 1 z MIN COUNT 0", "-ERR count should be greater than 0"),
            ("ZMPOP 1 z MIN COUNT 1 COUNT 1", "-ERR syntax error"),
            ("BZMPOP x 1 z MID", "-ERR syntax error"),
            ("BZMPOP x 1 z MIN", "-ERR timeout is not a float or out of range"),
            ("BZPOPMIN z x", "-ERR timeout is not a float or out of range"),
        ]);
        assert!(server.call("HELLO 3").starts_with("%7"));
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 3 c 4 d", ":4"),
            ("ZPOPMIN z", "[a (1)]"),
            ("ZPOPMIN z 1", "[[b (2)]]"),
            ("ZRANGE z 0 -1 WITHSCORES", "[[c (3)] [d (4)]]"),
            ("BZPOPMAX z 0", "[z d (4)]"),
            ("ZSCORE z c", "(3)"),
            ("ZSCORE z x", "nil"),
            ("ZRANK z c WITHSCORE", "[:0 (3)]"),
            ("ZRANDMEMBER z 1 WITHSCORES", "[[c (3)]]"),
            ("ZMPOP 1 z MIN", "[z [[c (3)]]]"),
            ("ZUNION 1 z WITHSCORES", "[]"),
        ]);
        assert!(server.call("HELLO 2").starts_with("*14"));
    });
}

#[test]
fn unions_intersections_and_differences_of_sets_of_both_kinds() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD a 1 x 2 y 3 z", ":3"),
            ("ZADD b 10 y 20 z 30 w", ":3"),
            ("SADD s y 7", ":2"),
            ("ZUNION 2 a b", "[x y z w]"),
            ("ZUNION 2 a b WITHSCORES", "[x 1 y 12 z 23 w 30]"),
            ("ZUNION 3 a none s WITHSCORES", "[7 1 x 1 y 3 z 3]"),
            ("ZUNION 2 a b WEIGHTS 2 -1 AGGREGATE MIN WITHSCORES", "[w -30 z -20 y -10 x 2]"),
            ("ZINTER 2 a b WITHSCORES", "[y 12 z 23]"),
            ("ZINTER 2 a b AGGREGATE MAX WITHSCORES", "[y 10 z 20]"),
            ("ZINTER 3 a b s WITHSCORES", "[y 13]"),
            ("ZINTER 2 a none", "[]"),
            ("ZINTER 2 a a WITHSCORES", "[x 2 y 4 z 6]"),
            ("ZDIFF 2 a b WITHSCORES", "[x 1]"),
            ("ZDIFF 2 a s", "[x z]"),
            ("ZDIFF 1 s", "[7 y]"),
            ("ZDIFF 2 a a", "[]"),
            ("ZDIFF 2 none a", "[]"),
            ("ZINTERCARD 2 a b", ":2"),
            ("ZINTERCARD 2 a b LIMIT 1", ":1"),
            ("ZINTERCARD 2 a b LIMIT 0", ":2"),
            ("ZUNIONSTORE d 2 a b", ":4"),
            ("ZRANGE d 0 -1 WITHSCORES", "[x 1 y 12 z 23 w 30]"),
            ("ZINTERSTORE d 2 a s WEIGHTS 10 5", ":1"),
            ("ZRANGE d 0 -1 WITHSCORES", "[y 25]"),
            ("ZDIFFSTORE a 2 a b", ":1"),
            ("ZRANGE a 0 -1", "[x]"),
            ("ZDIFFSTORE a 2 a a", ":0"),
            ("EXISTS a", ":0"),
        ]);
    });
}

#[test]
fn sums_that_are_no_number_are_zero() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD a inf x", ":1"),
            ("ZADD b -inf x", ":1"),
            ("ZUNION 2 a b WITHSCORES", "[x 0]"),
            ("ZINTER 2 a b WITHSCORES", "[x 0]"),
            ("ZUNION 1 a WEIGHTS 0 WITHSCORES", "[x 0]"),
            ("ZINTER 2 a b WEIGHTS 0 1 WITHSCORES", "[x -inf]"),
            ("ZUNION 1 a WEIGHTS nan", "-ERR weight value is not a float"),
        ]);
    });
}

#[test]
fn what_is_wrong_with_the_arguments_of_a_union() {
    on_one_and_three_shards(|server| {
        server.expect_shown(&[
            ("SET s v", "+OK"),
            ("ZADD a 1 x", ":1"),
            ("ZUNION 0 a", "-ERR at least 1 input key is needed for 'zunion' command"),
            ("ZUNIONSTORE d -1 a", "-ERR at least 1 input key is needed for 'zunionstore' command"),
            ("ZINTERCARD 0 a", "-ERR at least 1 input key is needed for 'zintercard' command"),
            ("ZUNION x a", "-ERR value is not an integer or out of range"),
            ("ZUNION 2 a", "-ERR syntax error"),
            ("ZUNION 1 a WEIGHTS", "-ERR syntax error"),
            ("ZUNION 1 a WEIGHTS x", "-ERR weight value is not a float"),
            ("ZUNION 1 a AGGREGATE avg", "-ERR syntax error"),
            ("ZUNIONSTORE d 1 a WITHSCORES", "-ERR syntax error"),
            ("ZDIFF 1 a WEIGHTS 1", "-ERR syntax error"),
            ("ZINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
            ("ZINTERCARD 1 a LIMIT x", "-ERR LIMIT can't be negative"),
            ("ZINTERCARD 1 a LIMIT", "-ERR syntax error"),
            ("ZUNION 2 a s x", WRONG_TYPE),
        ]);
    });
}

#[test]
fn random_members_are_from_the_set() {
    on_small_and_big_sets(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 3 c", ":3"),
            ("ZRANDMEMBER none", "nil"),
            ("ZRANDMEMBER none 3", "[]"),
            ("ZRANDMEMBER z 0", "[]"),
            ("ZRANDMEMBER z 9 WITHSCORES", "[a 1 b 2 c 3]"),
            ("ZRANDMEMBER z 1 x", "-ERR syntax error"),
            ("ZRANDMEMBER z x", "-ERR value is not an integer or out of range"),
        ]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(shown(&server.call("ZRANDMEMBER z")));
            let two = shown(&server.call("ZRANDMEMBER z 2"));
            assert_eq!(two.len(), "[a b]".len());
            assert_ne!(two[1..2], two[3..4], "different members");
            assert_eq!(shown(&server.call("ZRANDMEMBER z -5 WITHSCORES")).split(' ').count(), 10);
        }
        assert_eq!(seen.into_iter().collect::<String>(), "abc");
    });
}

/// CVE-2023-25155: twice the count was beyond 64 bits, and Redis crashed.
#[test]
fn a_count_of_random_members_whose_double_does_not_exist_is_refused() {
    on_one_and_three_shards(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a", ":1"),
            (
                "ZRANDMEMBER z -9223372036854775808 WITHSCORES",
                "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ),
            ("ZRANDMEMBER z -9223372036854775807 WITHSCORES", "-ERR value is out of range"),
            ("ZRANDMEMBER z -4611686018427387904 WITHSCORES", "-ERR value is out of range"),
            ("ZRANDMEMBER z 4611686018427387904 WITHSCORES", "-ERR value is out of range"),
            ("ZRANDMEMBER z 4611686018427387903 WITHSCORES", "[a 1]"),
        ]);
    });
}

#[test]
fn a_small_set_becomes_big_when_it_outgrows_its_limits() {
    on_one_and_three_shards(|server| {
        let (small, big) = (bulk("listpack"), bulk("skiplist"));
        for n in 0..128 {
            server.expect(&[(&format!("ZADD z {n} m{n}"), ":1")]);
        }
        server.expect(&[("OBJECT ENCODING z", &small), ("ZADD z 5 m128", ":1"), ("OBJECT ENCODING z", &big)]);
        server.expect(&[("ZREMRANGEBYRANK z 1 -1", ":128"), ("OBJECT ENCODING z", &big)]);
        let (fits, long) = ("x".repeat(64), "x".repeat(65));
        server.expect(&[(&format!("ZADD y 1 {fits}"), ":1"), ("OBJECT ENCODING y", &small)]);
        server.expect(&[(&format!("ZADD y 1 {long}"), ":1"), ("OBJECT ENCODING y", &big)]);
        server.expect(&[("ZUNIONSTORE d 1 z", ":1"), ("OBJECT ENCODING d", &small)]);
        server.expect(&[("ZUNIONSTORE d 2 z y", ":3"), ("OBJECT ENCODING d", &big)]);
        server.expect(&[("COPY y c", ":1"), ("OBJECT ENCODING c", &big), ("TYPE c", "+zset")]);
        server.expect_shown(&[
            ("ZREM y nothing", ":0"),
            (&format!("ZREM c {fits}"), ":1"),
            ("ZCARD y", ":2"),
            ("ZCARD c", ":1"),
            ("RENAME c e", "+OK"),
            ("ZCARD e", ":1"),
        ]);
    });
}

#[test]
fn a_scan_returns_what_is_there() {
    on_one_and_three_shards(|server| {
        server.expect_shown(&[
            ("ZADD z 1 a 2 b 3.5 c", ":3"),
            ("ZSCAN z 0", "[0 [a 1 b 2 c 3.5]]"),
            ("ZSCAN z 0 MATCH [ab] COUNT 1", "[0 [a 1 b 2]]"),
            ("ZSCAN none 0", "[0 []]"),
            ("ZSCAN none 0 x", "[0 []]"),
            ("ZSCAN z x", "-ERR invalid cursor"),
            ("ZSCAN z 0 COUNT", "-ERR syntax error"),
            ("ZSCAN z 0 TYPE zset", "-ERR syntax error"),
        ]);
        for n in 0..1000 {
            server.call(&format!("ZADD big {n} m{n}"));
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut cursor = "0".to_string();
        loop {
            let reply = shown(&server.call(&format!("ZSCAN big {cursor} COUNT 30")));
            let (next, rest) = reply[1..].split_once(' ').expect("a cursor and an array");
            let words: Vec<&str> = rest.trim_matches(['[', ']']).split(' ').collect();
            for pair in words.chunks_exact(2) {
                assert_eq!(pair[0], format!("m{}", pair[1]));
                seen.insert(pair[0].to_string());
            }
            cursor = next.to_string();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
    });
}

#[test]
fn other_types_are_refused_and_nothing_is_changed() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET s v", "+OK")]);
        for words in [
            "ZADD s 1 a",
            "ZADD s XX 1 a",
            "ZADD s INCR 1 a",
            "ZINCRBY s 1 a",
            "ZREM s a",
            "ZCARD s",
            "ZSCORE s a",
            "ZMSCORE s a",
            "ZRANK s a",
            "ZREVRANK s a",
            "ZCOUNT s 1 2",
            "ZLEXCOUNT s - +",
            "ZRANGE s 0 1",
            "ZRANGESTORE d s 0 1",
            "ZREMRANGEBYRANK s 0 1",
            "ZREMRANGEBYSCORE s 0 1",
            "ZREMRANGEBYLEX s - +",
            "ZPOPMIN s",
            "ZPOPMAX s 0",
            "ZMPOP 2 none s MIN",
            "BZPOPMIN none s 0",
            "BZMPOP 0 1 s MIN",
            "ZRANDMEMBER s",
            "ZUNION 1 s",
            "ZUNIONSTORE d 1 s",
            "ZINTERCARD 1 s",
            "ZSCAN s 0",
        ] {
            assert_eq!(server.call(words), format!("{WRONG_TYPE}\r\n"), "{words}");
        }
        server.expect(&[("GET s", "$1\r\nv"), ("EXISTS d", ":0")]);
        for words in
            ["ZADD z 1", "ZINCRBY z 1", "ZREM z", "ZRANGE z 0", "ZPOPMIN", "ZMPOP 1 z", "ZUNION 1", "ZSCAN z"]
        {
            assert!(server.call(words).starts_with(WRONG_ARITY), "{words}");
        }
        server.expect(&[("ZADD z 1 a", ":1")]);
        assert_eq!(server.call("GET z"), format!("{WRONG_TYPE}\r\n"));
    });
}

#[test]
fn the_effects_are_those_of_redis() {
    let mut server = Server::new(1);
    let mut replica = Replica::attach(&mut server);
    server.call("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f");
    replica.read(&mut server);
    for (words, expected) in [
        ("ZADD z NX 1 a", &[][..]),
        ("ZADD z GT CH 2 a", &["ZADD z GT CH 2 a"]),
        ("ZINCRBY z 0 a", &[]),
        ("ZINCRBY z 0.5 a", &["ZINCRBY z 0.5 a"]),
        ("ZPOPMIN z", &["ZPOPMIN z"]),
        ("ZPOPMIN z 0", &[]),
        ("ZMPOP 2 none z MAX COUNT 2", &["ZPOPMAX z 2"]),
        ("BZPOPMIN none z 0", &["ZPOPMIN z"]),
        ("BZMPOP 0 1 z MIN COUNT 1", &["ZPOPMIN z 1"]),
        ("ZRANGESTORE d z 0 -1", &["ZRANGESTORE d z 0 -1"]),
        ("ZUNIONSTORE d 2 z none", &["ZUNIONSTORE d 2 z none"]),
        ("ZINTERSTORE d 2 z none", &["ZINTERSTORE d 2 z none"]),
        ("ZINTERSTORE d 2 z none", &[]),
        ("ZMPOP 1 z MIN COUNT 9", &["ZPOPMIN z 1"]),
        ("ZMPOP 1 z MIN COUNT 9", &[]),
        ("ZREM z a", &[]),
    ] {
        server.call(words);
        assert_eq!(replica.read(&mut server), expected, "{words}");
    }
}

impl Server {
    fn connect_at(&mut self, shard: usize) -> usize {
        let shard = shard % self.cluster.workers.len();
        self.cluster.connect(shard)
    }

    /// A new client calls a command that blocks.
    #[track_caller]
    fn blocked(&mut self, shard: usize, words: &str) -> usize {
        let client = self.connect_at(shard);
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(self.cluster.call(client, &words), "", "{words:?} waits");
        client
    }

    fn shown_to(&mut self, client: usize) -> String {
        self.cluster.settle();
        let received = String::from_utf8(self.cluster.received(client)).expect("replies here are text");
        if received.is_empty() { String::new() } else { shown(&received) }
    }
}

#[test]
fn blocked_clients_are_served_in_order_and_once() {
    on_one_and_three_shards(|server| {
        let first = server.blocked(0, "BZPOPMIN a b c 0");
        let second = server.blocked(1, "BZPOPMAX b a 0");
        let third = server.blocked(2, "BZMPOP 0 2 c b MAX COUNT 2");
        server.expect(&[("SET b x", "+OK"), ("SADD c x", ":1"), ("DEL b c", ":2")]);
        assert_eq!(server.shown_to(first), "", "they wait for a sorted set");
        server.expect(&[("ZADD b 1 x 2 y 3 z 4 w 5 v", ":5")]);
        assert_eq!(server.shown_to(first), "[b x 1]");
        assert_eq!(server.shown_to(second), "[b v 5]");
        assert_eq!(server.shown_to(third), "[b [[w 4] [z 3]]]");
        server.expect_shown(&[("ZRANGE b 0 -1", "[y]")]);
        let waiting = server.blocked(1, "BZPOPMIN d 0");
        server.expect(&[("ZUNIONSTORE d 1 b", ":1"), ("EXISTS d", ":0")]);
        assert_eq!(server.shown_to(waiting), "[d y 2]");
        let late = server.blocked(0, "BZPOPMIN a d 0.5");
        let empty = server.blocked(2, "BZMPOP 0.5 1 a MIN");
        server.wait_ms(501);
        server.cluster.tick();
        assert_eq!((server.shown_to(late), server.shown_to(empty)), ("nil[]".into(), "nil[]".into()));
        server.expect(&[("MULTI", "+OK"), ("BZPOPMIN none 0", "+QUEUED"), ("EXEC", "*1\r\n*-1")]);
        assert!(server.cluster.is_at_rest());
    });
}

/// The same elements, in random order and through small and big forms: what the ranks are does not depend on how the set
/// came about.
#[test]
fn a_set_on_any_shard_is_checked_out_and_back() {
    for seed in 0..20 {
        let mut server = Server { cluster: Cluster::new(3, seed), client: 0 };
        server.client = server.cluster.connect(1);
        for n in 0..300 {
            server.call(&format!("ZADD {} {n} m{n}", ["a", "b", "c"][n % 3]));
        }
        server.expect_shown(&[
            ("ZUNIONSTORE d 3 a b c", ":300"),
            ("ZINTERCARD 2 d b", ":100"),
            ("ZRANK d m299", ":299"),
            ("ZDIFFSTORE e 2 d a", ":200"),
            ("ZMPOP 2 none e MAX", "[e [[m299 299]]]"),
            ("ZCARD a", ":100"),
        ]);
    }
}
