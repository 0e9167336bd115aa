//! MONITOR: which commands are shown to the clients that watch them all, and in which order.

use super::{Server, on_one_and_three_shards};

/// The lines that a client has got, without the time.
fn lines(server: &mut Server, client: usize) -> Vec<String> {
    let heard = server.heard_by(client);
    let shown = heard.lines().map(|line| {
        let (time, rest) = line.split_once(' ').expect("a time, and a command");
        assert!(time.starts_with("+17000000") && time.split_once('.').unwrap().1.len() == 6, "{time}");
        rest.to_string()
    });
    shown.collect()
}

#[test]
fn commands_are_shown_in_the_order_in_which_they_ran() {
    on_one_and_three_shards(|server| {
        let monitor = server.join(0);
        assert_eq!(server.call_as(monitor, "MONITOR"), "+OK\r\n");
        let script =
            "redis.call('SET', KEYS[1], 1) redis.call('SELECT', 2) return redis.pcall('INCR', KEYS[2])";
        for words in
            ["SET a 1", "mset a 1 b 2 c 3", "GET", "NONSENSE", "CONFIG GET port", "AUTH x", "RENAME a d"]
        {
            server.call(words);
        }
        server.call_args(&["ECHO", "a \"\r\n\u{1}"]);
        server.call_args(&["EVAL", script, "2", "k", "l"]);
        for words in ["MULTI", "INCR b", "DEL b c", "EXEC", "WATCH b", "SET b 1", "MULTI", "eXeC", "SELECT 3"]
        {
            server.call(words);
        }
        for words in ["KEYS *", "BLPOP nothing 1"] {
            server.call(words);
        }
        let shown: Vec<String> = lines(server, monitor);
        let expected = [
            r#""SET" "a" "1""#,
            r#""mset" "a" "1" "b" "2" "c" "3""#,
            r#""AUTH" "(redacted)""#,
            r#""RENAME" "a" "d""#,
            r#""ECHO" "a \"\r\n\x01""#,
            &format!(r#""EVAL" "{script}" "2" "k" "l""#),
            r#""SET" "k" "1""#,
            r#""SELECT" "2""#,
            r#""INCR" "l""#,
            r#""MULTI""#,
            r#""INCR" "b""#,
            r#""DEL" "b" "c""#,
            r#""EXEC""#,
            r#""WATCH" "b""#,
            r#""SET" "b" "1""#,
            r#""MULTI""#,
            r#""eXeC""#,
            r#""SELECT" "3""#,
            r#""KEYS" "*""#,
            r#""BLPOP" "nothing" "1""#,
        ];
        let commands: Vec<&str> = shown.iter().map(|line| line.split_once("] ").unwrap().1).collect();
        assert_eq!(commands, expected);
        let places: Vec<&str> = shown.iter().map(|line| line.split_once("] ").unwrap().0).collect();
        for (at, place) in places.into_iter().enumerate() {
            let expected = match at {
                6 => "[0 lua",
                7 | 8 => "[2 lua",
                17.. => "[3 127.0.0.1:1000",
                _ => "[0 127.0.0.1:1000",
            };
            assert_eq!(place, expected, "{}", shown[at]);
        }
    });
}

#[test]
fn who_watches_all_commands_is_no_client_for_keys() {
    on_one_and_three_shards(|server| {
        let other = server.join(0);
        assert_eq!(server.call("MONITOR"), "+OK\r\n");
        assert_eq!(server.call("MONITOR"), "");
        assert_eq!(server.call("GET a"), "-ERR Replica can't interact with the keyspace\r\n");
        assert!(server.call_as(other, "CLIENT LIST").contains(" flags=O "));
        let client = server.client;
        server.heard_by(client);
        assert!(server.call("RESET").ends_with("+RESET\r\n"));
        server.expect(&[("GET a", "$-1"), ("PING", "+PONG")]);
        assert_eq!(server.call_as(other, "PING"), "+PONG\r\n");
        assert_eq!(server.heard_by(client), "");
        server.expect(&[
            ("MULTI", "+OK"),
            ("MONITOR", "+QUEUED"),
            ("EXEC", "*1\r\n-ERR MONITOR isn't allowed for DENY BLOCKING client"),
        ]);
    });
}

#[test]
fn an_exec_is_shown_with_the_database_that_it_has_selected() {
    on_one_and_three_shards(|server| {
        let monitor = server.join(0);
        assert_eq!(server.call_as(monitor, "MONITOR"), "+OK\r\n");
        for words in ["MULTI", "SET a 1", "SELECT 2", "SET b 1", "EXEC"] {
            server.call(words);
        }
        let shown = lines(server, monitor);
        let place = |line: &String| line.split_once(' ').expect("a database, and an address").0.to_string();
        let shown: Vec<String> =
            shown.iter().filter(|line| !line.ends_with("\"MULTI\"")).map(place).collect();
        assert_eq!(shown, ["[0", "[2", "[2", "[2"]);
    });
}
