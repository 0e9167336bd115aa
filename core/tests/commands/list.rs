//! List commands.

use super::effects::Replica;
use super::{Server, on_one_and_three_shards};

#[test]
fn pushes_and_lengths() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush l a 1 -2 b", ":4"),
            ("lpush l z y", ":6"),
            ("llen l", ":6"),
            ("lrange l 0 -1", "*6\r\n$1\r\ny\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\n-2\r\n$1\r\nb"),
            ("llen nokey", ":0"),
            ("rpushx l c", ":7"),
            ("lpushx nokey c", ":0"),
            ("exists nokey", ":0"),
            ("set s x", "+OK"),
            ("lpush s a", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("rpushx s a", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("llen s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("type l", "+list"),
            ("object encoding l", "$9\r\nquicklist"),
        ]);
    });
}

#[test]
fn indexes_and_ranges() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush l y z a 1 -2 b c", ":7"),
            ("set s x", "+OK"),
            ("lindex l 0", "$1\r\ny"),
            ("lindex l -1", "$1\r\nc"),
            ("lindex l 3", "$1\r\n1"),
            ("lindex l 7", "$-1"),
            ("lindex l -8", "$-1"),
            ("lindex l x", "-ERR value is not an integer or out of range"),
            ("lindex nokey x", "$-1"),
            ("lindex s x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lrange l 1 2", "*2\r\n$1\r\nz\r\n$1\r\na"),
            ("lrange l -3 100", "*3\r\n$2\r\n-2\r\n$1\r\nb\r\n$1\r\nc"),
            ("lrange l 5 2", "*0"),
            ("lrange nokey 0 -1", "*0"),
            ("lrange l a 0", "-ERR value is not an integer or out of range"),
            ("lrange l 0 b", "-ERR value is not an integer or out of range"),
            ("lrange s 0 -1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
    });
}

#[test]
fn elements_are_replaced_and_inserted() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush l y z a 1 -2 b c", ":7"),
            ("set s x", "+OK"),
            ("lset l 0 Y", "+OK"),
            ("lset l -1 C", "+OK"),
            ("lset l 7 x", "-ERR index out of range"),
            ("lset l x x", "-ERR value is not an integer or out of range"),
            ("lset nokey x x", "-ERR no such key"),
            ("lset s x x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("linsert l before b bb", ":8"),
            ("linsert l AFTER b cc", ":9"),
            ("linsert l after nosuch cc", ":-1"),
            ("linsert nokey after a b", ":0"),
            ("linsert l over a b", "-ERR syntax error"),
            ("linsert s after a b", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lrange l 0 -1", "*9\r\n$1\r\nY\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\n-2\r\n$2\r\nbb\r\n$1\r\nb\r\n$2\r\ncc\r\n$1\r\nC"),
        ]);
    });
}

#[test]
fn pops() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush l Y z a 1 -2 bb b cc C", ":9"),
            ("set s x", "+OK"),
            ("lpop l", "$1\r\nY"),
            ("rpop l", "$1\r\nC"),
            ("lpop l 2", "*2\r\n$1\r\nz\r\n$1\r\na"),
            ("rpop l 2", "*2\r\n$2\r\ncc\r\n$1\r\nb"),
            ("lpop l 0", "*0"),
            ("rpop l -1", "-ERR value is out of range, must be positive"),
            ("lpop l x", "-ERR value is out of range, must be positive"),
            ("lpop l 1 2", "-ERR wrong number of arguments for 'lpop' command"),
            ("rpop l 1 2", "-ERR wrong number of arguments for 'rpop' command"),
            ("lpop nokey", "$-1"),
            ("lpop nokey 0", "*-1"),
            ("rpop s", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("rpop s 1", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lpop l 100", "*3\r\n$1\r\n1\r\n$2\r\n-2\r\n$2\r\nbb"),
            ("exists l", ":0"),
        ]);
    });
}

#[test]
fn elements_are_removed_by_value() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("set s x", "+OK"),
            ("rpush l a b a c a b", ":6"),
            ("lrem l 1 a", ":1"),
            ("lrange l 0 -1", "*5\r\n$1\r\nb\r\n$1\r\na\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb"),
            ("lrem l -1 a", ":1"),
            ("lrange l 0 -1", "*4\r\n$1\r\nb\r\n$1\r\na\r\n$1\r\nc\r\n$1\r\nb"),
            ("lrem l 0 b", ":2"),
            ("lrange l 0 -1", "*2\r\n$1\r\na\r\n$1\r\nc"),
            ("lrem l x b", "-ERR value is not an integer or out of range"),
            ("lrem l -9223372036854775808 a", ":1"),
            ("lrem nokey 0 a", ":0"),
            ("lrem s 0 a", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lrem l 0 c", ":1"),
            ("exists l", ":0"),
        ]);
    });
}

#[test]
fn trims() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("set s x", "+OK"),
            ("rpush l a b c d e", ":5"),
            ("ltrim l 1 -2", "+OK"),
            ("lrange l 0 -1", "*3\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd"),
            ("ltrim l x 0", "-ERR value is not an integer or out of range"),
            ("ltrim l 0 x", "-ERR value is not an integer or out of range"),
            ("ltrim nokey 0 0", "+OK"),
            ("ltrim s 0 0", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("ltrim l 5 10", "+OK"),
            ("exists l", ":0"),
        ]);
    });
}

#[test]
fn positions() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("set s x", "+OK"),
            ("rpush l a b c 1 2 3 c c", ":8"),
            ("lpos l c", ":2"),
            ("lpos l c rank 2", ":6"),
            ("lpos l c rank -1", ":7"),
            ("lpos l c RANK -1 COUNT 2", "*2\r\n:7\r\n:6"),
            ("lpos l c count 0", "*3\r\n:2\r\n:6\r\n:7"),
            ("lpos l c count 0 rank 2", "*2\r\n:6\r\n:7"),
            ("lpos l c count 0 maxlen 3", "*1\r\n:2"),
            ("lpos l c rank -1 maxlen 1", ":7"),
            ("lpos l c rank 4", "$-1"),
            ("lpos l nosuch", "$-1"),
            ("lpos l nosuch count 0", "*0"),
            ("lpos l 2", ":4"),
            ("lpos l c rank 0", "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list"),
            ("lpos l c rank x", "-ERR value is not an integer or out of range"),
            ("lpos l c rank -9223372036854775808", ":7"),
            ("lpos l c count -1", "-ERR COUNT can't be negative"),
            ("lpos l c maxlen -1", "-ERR MAXLEN can't be negative"),
            ("lpos l c count", "-ERR syntax error"),
            ("lpos l c other 1", "-ERR syntax error"),
            ("lpos nokey a", "$-1"),
            ("lpos nokey a count 1", "*0"),
            ("lpos s a", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ]);
    });
}

#[test]
fn moves_between_lists() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("set s x", "+OK"),
            ("rpush l a b c", ":3"),
            ("lmove l m left right", "$1\r\na"),
            ("lmove l m right left", "$1\r\nc"),
            ("lmove l m right left", "$1\r\nb"),
            ("exists l", ":0"),
            ("lrange m 0 -1", "*3\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\na"),
            ("lmove m m left right", "$1\r\nb"),
            ("lrange m 0 -1", "*3\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb"),
            ("lmove m m left left", "$1\r\nc"),
            ("lmove nokey m left left", "$-1"),
            ("lmove nokey s left left", "$-1"),
            ("lmove m s left left", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lmove s m left left", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lmove m l up left", "-ERR syntax error"),
            ("lmove m l left up", "-ERR syntax error"),
            ("rpoplpush m l", "$1\r\nb"),
            ("rpoplpush nokey l", "$-1"),
            ("rpoplpush s l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lrange m 0 -1", "*2\r\n$1\r\nc\r\n$1\r\na"),
            ("lrange l 0 -1", "*1\r\n$1\r\nb"),
        ]);
    });
}

#[test]
fn pops_from_the_first_of_several_lists() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush m c a", ":2"),
            ("rpush l b", ":1"),
            ("set s x", "+OK"),
            ("lmpop 2 nokey m left", "*2\r\n$1\r\nm\r\n*1\r\n$1\r\nc"),
            ("lmpop 2 nokey m right count 10", "*2\r\n$1\r\nm\r\n*1\r\n$1\r\na"),
            ("lmpop 2 nokey m right count 10", "*-1"),
            ("lmpop 0 l left", "-ERR numkeys should be greater than 0"),
            ("lmpop x l left", "-ERR numkeys should be greater than 0"),
            ("lmpop 1 l up", "-ERR syntax error"),
            ("lmpop 2 l left", "-ERR syntax error"),
            ("lmpop 1 l left count 0", "-ERR count should be greater than 0"),
            ("lmpop 1 l left count", "-ERR syntax error"),
            ("lmpop 1 l left count 1 count 2", "-ERR syntax error"),
            ("lmpop 2 nokey s left", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("lmpop 9223372036854775807 l left", "-ERR syntax error"),
        ]);
    });
}

#[test]
fn blocking_commands_that_find_something_reply_at_once() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("rpush l b", ":1"),
            ("set s x", "+OK"),
            ("blpop nokey l 0", "*2\r\n$1\r\nl\r\n$1\r\nb"),
            ("rpush l a b", ":2"),
            ("brpop nokey l 0", "*2\r\n$1\r\nl\r\n$1\r\nb"),
            ("blpop s l 0", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("blpop l x", "-ERR timeout is not a float or out of range"),
            ("blpop l -1", "-ERR timeout is negative"),
            ("blmove l m left right 0", "$1\r\na"),
            ("rpush m 7", ":2"),
            ("blmove m l right left 0", "$1\r\n7"),
            ("blmove m s right left 0", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("blmove s m right left 0", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("blmove m l up left 0", "-ERR syntax error"),
            ("blmove m l left left x", "-ERR timeout is not a float or out of range"),
            ("brpoplpush l m 0", "$1\r\n7"),
            ("brpoplpush s m 0", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("brpoplpush m l x", "-ERR timeout is not a float or out of range"),
            ("blmpop 0 2 nokey m right count 5", "*2\r\n$1\r\nm\r\n*2\r\n$1\r\na\r\n$1\r\n7"),
            ("blmpop 0 0 m right", "-ERR numkeys should be greater than 0"),
            ("blmpop x 1 m right", "-ERR timeout is not a float or out of range"),
            ("blmpop x 1 m up", "-ERR syntax error"),
            ("rpush m a", ":1"),
            ("blmpop 0 1 m left", "*2\r\n$1\r\nm\r\n*1\r\n$1\r\na"),
            ("exists m", ":0"),
            ("debug quicklist-packed-threshold 100b", "+OK"),
            ("debug quicklist-packed-threshold 0", "+OK"),
            (
                "debug quicklist-packed-threshold x",
                "-ERR argument must be a memory value bigger than 1 and smaller than 4gb",
            ),
            (
                "debug quicklist-packed-threshold 5gb",
                "-ERR argument must be a memory value bigger than 1 and smaller than 4gb",
            ),
        ]);
    });
}

/// The replies that differ in RESP3, and those of commands that must not block.
#[test]
fn nulls_are_those_of_redis() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("lpop nokey 1", "*-1"),
            ("multi", "+OK"),
            ("blmove nokey l left left 0", "+QUEUED"),
            ("brpoplpush nokey l 0", "+QUEUED"),
            ("blpop nokey 0", "+QUEUED"),
            ("blmpop 0 1 nokey left", "+QUEUED"),
            ("exec", "*4\r\n$-1\r\n$-1\r\n*-1\r\n*-1"),
        ]);
        server.call("hello 3");
        server.expect(&[
            ("lpop nokey", "_"),
            ("lpop nokey 1", "_"),
            ("lmpop 1 nokey left", "_"),
            ("lpos nokey a", "_"),
            ("lpos nokey a count 0", "*0"),
            ("lmove nokey l left left", "_"),
        ]);
    });
}

#[test]
fn a_blocked_client_gets_a_null_array_at_the_timeout() {
    on_one_and_three_shards(|server| {
        for words in [
            "blpop a b c 0.1",
            "brpop a 0.1",
            "blmove a b left left 0.1",
            "brpoplpush a b 0.1",
            "blmpop 0.1 2 a b left",
        ] {
            let client = server.wait(1, words);
            server.wait_out_ms(101);
            assert_eq!(server.received(client), "*-1\r\n", "{words}");
        }
        server.expect_rest();
    });
}

#[test]
fn a_blocked_client_is_served_by_a_list_alone() {
    on_one_and_three_shards(|server| {
        for (words, reply) in [
            ("blpop b a 0", "*2\r\n$1\r\na\r\n$1\r\n1\r\n"),
            ("brpop a b 0", "*2\r\n$1\r\na\r\n$1\r\n3\r\n"),
            ("blmove a b left right 0", "$1\r\n1\r\n"),
            ("brpoplpush a c 0", "$1\r\n3\r\n"),
            ("blmpop 0 2 c a right count 2", "*2\r\n$1\r\na\r\n*2\r\n$1\r\n3\r\n$1\r\n2\r\n"),
        ] {
            let client = server.wait(1, words);
            server.expect(&[("set a x", "+OK")]);
            assert_eq!(server.received(client), "", "{words}");
            server.expect(&[("del a", ":1"), ("rpush a 1 2 3", ":3")]);
            assert_eq!(server.received(client), reply, "{words}");
            server.expect_rest();
            server.expect(&[("flushall", "+OK")]);
        }
    });
}

/// All clients that can be served from a key are served before the next key of that shard is looked at, wherever the clients
/// are.
#[test]
fn keys_of_a_transaction_serve_one_after_the_other() {
    on_one_and_three_shards(|server| {
        let clients: Vec<usize> = ["left count 1", "right count 10", "left count 10"]
            .into_iter()
            .enumerate()
            .map(|(n, how)| server.wait(n, &format!("blmpop 0 2 a {{a}}2 {how}")))
            .collect();
        server.call("multi");
        server.call("lpush a 1 2 3");
        server.call("lpush {a}2 4");
        server.call("exec");
        for (client, reply) in clients.into_iter().zip([
            "*2\r\n$1\r\na\r\n*1\r\n$1\r\n3\r\n",
            "*2\r\n$1\r\na\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n",
            "*2\r\n$4\r\n{a}2\r\n*1\r\n$1\r\n4\r\n",
        ]) {
            assert_eq!(server.received(client), reply);
        }
        server.expect_rest();
    });
}

#[test]
fn a_destination_of_another_type_ends_the_wait_and_keeps_the_element() {
    on_one_and_three_shards(|server| {
        server.expect(&[("set s x", "+OK")]);
        for words in ["blmove a s left right 0", "brpoplpush a s 0"] {
            let client = server.wait(1, words);
            server.expect(&[("rpush a 1", ":1")]);
            let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
            assert_eq!(server.received(client), wrong_type, "{words}");
            server.expect(&[("lpop a", "$1\r\n1")]);
            server.expect_rest();
        }
    });
}

/// A moved element may serve others, and goes round a ring of blocked clients once.
#[test]
fn moves_of_blocked_clients_may_form_a_chain() {
    on_one_and_three_shards(|server| {
        let first = server.wait(0, "blmove a b left right 0");
        let second = server.wait(1, "blmove b c left right 0");
        let third = server.wait(2, "blmove c a left right 0");
        server.expect(&[("rpush a x", ":1"), ("lrange a 0 -1", "*1\r\n$1\r\nx"), ("exists b c", ":0")]);
        for client in [first, second, third] {
            assert_eq!(server.received(client), "$1\r\nx\r\n");
        }
        server.expect_rest();
    });
}

/// What effects are, for commands that do not repeat themselves.
#[test]
fn effects_are_those_of_redis() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let mut served = Vec::new();
        for words in [
            "blpop a 0",
            "brpop b a 0",
            "blmove a d left right 0",
            "brpoplpush a d 0",
            "blmpop 0 1 a right count 5",
        ] {
            served.push(server.wait(1, words));
        }
        server.expect(&[("rpush a 1 2 3 4 5 6", ":6"), ("rpush b 1 2 3 4 5 6", ":6")]);
        for words in [
            "blpop a b 0",
            "brpop b 0",
            "lmpop 1 b left count 2",
            "blmpop 0 1 b right",
            "blmove b c left RIGHT 0",
            "brpoplpush c d 0",
            "ltrim d 0 -1",
            "lrem d 0 nosuch",
        ] {
            let reply = server.call(words);
            assert!(!reply.starts_with('-') && !reply.is_empty(), "{words}: {reply}");
        }
        let effects = replica.read(server);
        let expected = [
            "SELECT 0",
            "rpush a 1 2 3 4 5 6",
            "LPOP a",
            "RPOP a",
            "LMOVE a d left right",
            "RPOPLPUSH a d",
            "RPOP a 2",
            "rpush b 1 2 3 4 5 6",
            "LPOP b",
            "RPOP b",
            "LPOP b 2",
            "RPOP b 1",
            "LMOVE b c left RIGHT",
            "RPOPLPUSH c d",
        ];
        assert_eq!(effects, expected);
        server.expect_rest();
    });
}

/// Lists of many nodes: the same replies, and the limits as they are configured at the time.
#[test]
fn long_lists_are_kept_in_nodes() {
    on_one_and_three_shards(|server| {
        for (size, depth) in [(-2, 0), (3, 1), (-1, 2)] {
            server.expect(&[
                ("flushall", "+OK"),
                (&format!("config set list-max-listpack-size {size} list-compress-depth {depth}"), "+OK"),
            ]);
            for n in 0..100 {
                let words: Vec<String> = (0..20).map(|m| format!("item:{:010}", n * 20 + m)).collect();
                server.call(&format!("rpush l {}", words.join(" ")));
            }
            server.expect(&[
                ("llen l", ":2000"),
                ("object encoding l", "$9\r\nquicklist"),
                ("lindex l 1234", "$15\r\nitem:0000001234"),
                ("lrange l -2 -1", "*2\r\n$15\r\nitem:0000001998\r\n$15\r\nitem:0000001999"),
                ("linsert l before item:0000001000 x", ":2001"),
                ("lpos l item:0000001000", ":1001"),
                ("lset l 1000 y", "+OK"),
                ("lrem l -1 y", ":1"),
                ("copy l {l}m", ":1"),
                ("ltrim l 1990 -1", "+OK"),
                ("lmove l {l}m left right", "$15\r\nitem:0000001990"),
                ("llen l", ":9"),
                ("llen {l}m", ":2001"),
                (
                    "lmpop 1 l right count 2",
                    "*2\r\n$1\r\nl\r\n*2\r\n$15\r\nitem:0000001999\r\n$15\r\nitem:0000001998",
                ),
            ]);
        }
    });
}

/// A SWAPDB puts a key in the way of a blocked client that has expired meanwhile: the client stays blocked, and the key is
/// deleted after the SWAPDB.
#[test]
fn an_expired_key_that_is_swapped_in_serves_nobody() {
    on_one_and_three_shards(|server| {
        server.call("debug set-active-expire 0");
        let mut replica = Replica::attach(server);
        server.expect(&[("select 1", "+OK"), ("rpush k hello", ":1"), ("pexpire k 100", ":1")]);
        let client = server.connect(1);
        assert_eq!(server.ask(client, "select 9"), "+OK\r\n");
        assert_eq!(server.ask(client, "brpop k 1"), "");
        server.wait_ms(101);
        server.expect(&[("swapdb 1 9", "+OK")]);
        assert_eq!(server.received(client), "");
        let effects = replica.read(server);
        assert_eq!(effects[..2], ["SELECT 1", "rpush k hello"]);
        assert!(effects[2].starts_with("PEXPIREAT k "), "{effects:?}");
        assert_eq!(effects[3..], ["swapdb 1 9", "SELECT 9", "DEL k"]);
        server.wait_out_ms(1000);
        assert_eq!(server.received(client), "*-1\r\n");
        server.expect_rest();
    });
}

/// The same for a key that has expired when the EXEC that added it ends. (Over several shards, the key's shard is done with the
/// EXEC before home sleeps.)
#[test]
fn a_key_that_expires_within_its_transaction_serves_nobody() {
    let mut server = Server::new(1);
    server.call("debug set-active-expire 0");
    let mut replica = Replica::attach(&mut server);
    let client = server.wait(1, "brpop k 1");
    server.call("multi");
    server.call("rpush k hello");
    server.call("pexpire k 100");
    server.call("debug sleep 0.2");
    server.expect(&[("exec", "*3\r\n:1\r\n:1\r\n+OK")]);
    assert_eq!(server.received(client), "");
    let effects = replica.read(&mut server);
    assert_eq!(effects[..3], ["SELECT 0", "MULTI", "rpush k hello"]);
    assert!(effects[3].starts_with("PEXPIREAT k "), "{effects:?}");
    assert_eq!(effects[4..], ["EXEC", "DEL k"]);
    server.wait_out_ms(1000);
    assert_eq!(server.received(client), "*-1\r\n");
    server.expect_rest();
}
