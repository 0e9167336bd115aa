//! XREAD and XREADGROUP that wait.

use super::*;

fn read_of(key: &str, id: &str, value: &str) -> String {
    array(&[array(&[bulk(key), array(&[entry(id, value)])])]) + "\r\n"
}

#[test]
fn all_readers_are_woken_and_get_what_came_after_they_waited() {
    on_one_and_three_shards(|server| {
        server.call("XADD a 1-1 f old");
        let readers: Vec<usize> = (0..6).map(|n| server.wait(n, "XREAD BLOCK 0 STREAMS a $")).collect();
        let of_two: Vec<usize> = (0..3).map(|n| server.wait(n, "XREAD BLOCK 0 STREAMS b a $ $")).collect();
        let later = server.wait(0, "XREAD BLOCK 0 STREAMS a 5-0");
        server.expect(&[("XADD a 2-1 f new", &bulk("2-1"))]);
        for client in readers.into_iter().chain(of_two) {
            assert_eq!(server.received(client), read_of("a", "2-1", "new"));
        }
        assert_eq!(server.received(later), "");
        server.expect(&[("XADD a 5-1 f last", &bulk("5-1"))]);
        assert_eq!(server.received(later), read_of("a", "5-1", "last"));
        server.expect_rest();
    });
}

#[test]
fn a_reader_waits_for_a_stream_whatever_happens_to_the_key_before() {
    on_one_and_three_shards(|server| {
        let reader = server.wait(1, "XREAD BLOCK 0 STREAMS a c 0 0");
        server.expect(&[
            ("SET a x", "+OK"),
            ("DEL a", ":1"),
            ("XGROUP CREATE a g 0 MKSTREAM", "+OK"),
            ("DEL a", ":1"),
            ("XADD b 1-1 f v", &bulk("1-1")),
        ]);
        assert_eq!(server.received(reader), "");
        server.expect(&[("RENAME b a", "+OK")]);
        assert_eq!(server.received(reader), read_of("a", "1-1", "v"));
        server.expect_rest();
    });
}

#[test]
fn a_read_times_out_and_does_not_wait_in_exec() {
    on_one_and_three_shards(|server| {
        let reader = server.wait(1, "XREAD BLOCK 100 STREAMS a $");
        server.wait_out_ms(99);
        assert_eq!(server.received(reader), "");
        server.wait_out_ms(2);
        assert_eq!(server.received(reader), "*-1\r\n");
        server.expect(&[("MULTI", "+OK"), ("XREAD BLOCK 0 STREAMS a $", "+QUEUED"), ("EXEC", "*1\r\n*-1")]);
        server.expect_rest();
    });
}

#[test]
fn consumers_of_a_group_are_served_in_the_order_of_arrival() {
    on_one_and_three_shards(|server| {
        server.expect(&[("XGROUP CREATE a g $ MKSTREAM", "+OK")]);
        let first = server.wait(2, "XREADGROUP GROUP g x BLOCK 0 STREAMS a >");
        let second = server.wait(1, "XREADGROUP GROUP g y BLOCK 0 STREAMS a >");
        let reader = server.wait(0, "XREAD BLOCK 0 STREAMS a $");
        server.expect(&[("XADD a 1-1 f v", &bulk("1-1"))]);
        assert_eq!(server.received(first), read_of("a", "1-1", "v"));
        assert_eq!(server.received(reader), read_of("a", "1-1", "v"));
        assert_eq!(server.received(second), "");
        server.expect(&[("XADD a 1-2 f w", &bulk("1-2"))]);
        assert_eq!(server.received(second), read_of("a", "1-2", "w"));
        server.expect(&[("XACK a g 1-1 1-2", ":2")]);
        server.expect_rest();
    });
}

#[test]
fn a_consumer_is_told_when_its_stream_or_group_goes() {
    let gone = "-UNBLOCKED the stream key no longer exists\r\n";
    let no_group = "-NOGROUP the consumer group this client was blocked on no longer exists\r\n";
    on_one_and_three_shards(|server| {
        for (words, error) in [
            ("DEL a", gone),
            ("UNLINK a", gone),
            ("SET a x", gone),
            ("FLUSHALL", gone),
            ("FLUSHDB", gone),
            ("SWAPDB 0 1", gone),
            ("RENAME a b", gone),
            ("RENAME d a", no_group),
            ("MOVE a 1", gone),
            ("XGROUP DESTROY a g", no_group),
            ("PEXPIREAT a 1", gone),
        ] {
            server.expect(&[("FLUSHALL", "+OK"), ("XGROUP CREATE a g $ MKSTREAM", "+OK")]);
            server.expect(&[("XGROUP CREATE c g $ MKSTREAM", "+OK"), ("XADD d 1-1 f v", &bulk("1-1"))]);
            let clients =
                ["XREADGROUP GROUP g x BLOCK 0 STREAMS a >", "XREADGROUP GROUP g x BLOCK 0 STREAMS c a > >"]
                    .map(|read| server.wait(1, read));
            let reader = server.wait(2, "XREAD BLOCK 0 STREAMS a 9");
            server.call(words);
            for client in clients {
                assert_eq!(server.received(client), error, "{words}");
            }
            assert_eq!(server.received(reader), "", "{words}");
            server.call("DEL a");
            server.call("XADD a 10 f v");
            assert_eq!(server.received(reader), read_of("a", "10-0", "v"), "{words}");
            server.expect_rest();
        }
    });
}

/// Keys of several shards are moved to one of these while a program runs.
#[test]
fn a_consumer_is_told_when_a_program_over_several_shards_destroys_its_group() {
    let no_group = "-NOGROUP the consumer group this client was blocked on no longer exists\r\n";
    on_one_and_three_shards(|server| {
        for key in ["a", "b", "c"] {
            server.expect(&[(&format!("XGROUP CREATE {key} g $ MKSTREAM"), "+OK")]);
            let client = server.wait(1, &format!("XREADGROUP GROUP g x BLOCK 0 STREAMS {key} >"));
            let program = format!("TPROGRAM 3 a b c / XGROUP DESTROY {key} g");
            server.expect(&[(&program, "*1\r\n:1")]);
            assert_eq!(server.received(client), no_group, "{key}");
        }
        server.expect_rest();
    });
}

#[test]
fn a_consumer_is_told_when_its_stream_expires() {
    on_one_and_three_shards(|server| {
        server.expect(&[("XGROUP CREATE a g $ MKSTREAM", "+OK")]);
        let client = server.wait(1, "XREADGROUP GROUP g x BLOCK 0 STREAMS a >");
        server.expect(&[("PEXPIRE a 10", ":1")]);
        server.wait_ms(20);
        server.expect(&[("EXISTS a", ":0")]);
        assert_eq!(server.received(client), "-UNBLOCKED the stream key no longer exists\r\n");
        server.expect_rest();
    });
}

#[test]
fn a_group_of_several_streams_that_were_written_to_in_exec_is_served_once() {
    on_one_and_three_shards(|server| {
        for key in ["a", "b", "c"] {
            server.expect(&[(&format!("XGROUP CREATE {key} g $ MKSTREAM"), "+OK")]);
        }
        let client = server.wait(1, "XREADGROUP GROUP g x BLOCK 0 STREAMS a b c > > >");
        server.expect(&[
            ("MULTI", "+OK"),
            ("XADD b 1-1 f v", "+QUEUED"),
            ("XADD a 1-1 f v", "+QUEUED"),
            ("EXEC", &array(&[bulk("1-1"), bulk("1-1")])),
        ]);
        let received = server.received(client);
        assert!(received == read_of("a", "1-1", "v") || received == read_of("b", "1-1", "v"), "{received}");
        server.expect_rest();
    });
}

#[test]
fn an_entry_that_was_deleted_by_the_same_exec_ends_the_wait_without_entries() {
    on_one_and_three_shards(|server| {
        server.expect(&[("XGROUP CREATE a g $ MKSTREAM", "+OK")]);
        let clients = ["XREAD BLOCK 0 STREAMS a $", "XREADGROUP GROUP g x BLOCK 0 STREAMS a >"]
            .map(|read| server.wait(1, read));
        server.expect(&[
            ("MULTI", "+OK"),
            ("XADD a 1-1 f v", "+QUEUED"),
            ("XDEL a 1-1", "+QUEUED"),
            ("EXEC", &array(&[bulk("1-1"), ":1".into()])),
        ]);
        for client in clients {
            assert_eq!(server.received(client), format!("*1\r\n*2\r\n{}\r\n*0\r\n", bulk("a")));
        }
        server.expect_rest();
    });
}

#[test]
fn ten_thousand_readers_of_one_key_get_their_entry() {
    let mut server = Server::new(3);
    let count = 10_000;
    let clients: Vec<usize> = (0..count).map(|n| server.connect(n)).collect();
    for &client in &clients {
        server.cluster.request(client, &["XREAD", "BLOCK", "0", "STREAMS", "a", "$"]);
        server.cluster.hand_over(client);
    }
    server.cluster.settle();
    server.expect(&[("XADD a 1-1 f v", &bulk("1-1"))]);
    for client in clients {
        assert_eq!(server.received(client), read_of("a", "1-1", "v"));
    }
    server.expect_rest();
}
