//! Access control, from outside: who may do what, and when a change counts.

use crate::harness::{Connection, SETUPS, Server, wait_until};

/// The texts in a reply that is an array of strings.
fn strings(reply: &str) -> Vec<&str> {
    reply.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with(['*', '$'])).collect()
}

fn ok(client: &mut Connection, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(client.call(&words), "+OK\r\n", "{command}");
}

fn call(client: &mut Connection, command: &str) -> String {
    client.call(&command.split(' ').collect::<Vec<_>>())
}

#[test]
fn before_it_has_logged_in_a_client_can_do_exactly_four_things() {
    const ARGS_MAX: usize = 8;
    let server = Server::start_with(SETUPS[1], &["--requirepass", "secret"]);
    let mut admin = server.connect();
    ok(&mut admin, "AUTH secret");
    let names = call(&mut admin, "COMMAND LIST");
    let names = strings(&names);
    assert!(names.len() > 200, "{}", names.len());
    let mut refused = 0;
    for name in names {
        let mut client = server.connect();
        let mut reply = String::new();
        let words: Vec<&str> = name.split('|').collect();
        for arg_count in 0..ARGS_MAX {
            let args = [&words[..], &vec!["help"; arg_count]].concat();
            reply = client.call(&args);
            if !reply.contains("wrong number of arguments") {
                break;
            }
        }
        if ["auth", "hello", "quit", "reset"].contains(&name) {
            assert!(!reply.starts_with("-NOAUTH Authentication required."), "{name}: {reply}");
        } else if reply.starts_with("-ERR unknown subcommand") {
            assert_eq!(client.call(&["GET", "x"]), "-NOAUTH Authentication required.\r\n", "{name}");
        } else {
            // To EXEC, it is why there is no transaction.
            assert!(reply.ends_with("NOAUTH Authentication required.\r\n"), "{name}: {reply}");
            refused += 1;
        }
    }
    assert!(refused > 190, "{refused}");
    let mut client = server.connect();
    client.send(b"SET a 1\r\nAUTH wrong\r\nGET a\r\nAUTH secret\r\nGET a\r\n");
    let replies: Vec<Vec<u8>> = (0..5).map(|_| client.reply()).collect();
    assert!(replies[0].starts_with(b"-NOAUTH") && replies[1].starts_with(b"-WRONGPASS"));
    assert!(replies[2].starts_with(b"-NOAUTH"));
    assert_eq!((replies[3].as_slice(), replies[4].as_slice()), (&b"+OK\r\n"[..], &b"$-1\r\n"[..]));
}

#[test]
fn a_pipeline_runs_up_to_what_is_refused_and_on_behind_it() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass +get +set +mget ~a* ~b* %R~c*");
        ok(&mut admin, "SET c1 x");
        let mut client = server.connect();
        ok(&mut client, "AUTH u any");
        let mut sent = Vec::new();
        for n in 0..40 {
            sent.extend_from_slice(
                format!("SET a{n} {n}\r\nGET a{n}\r\nSET z{n} 1\r\nGET c1\r\n").as_bytes(),
            );
            sent.extend_from_slice(format!("SET c1 y\r\nDEL a{n}\r\nMGET a{n} b{n} d{n}\r\n").as_bytes());
        }
        client.send(&sent);
        for n in 0..40usize {
            let mut next = || String::from_utf8(client.reply()).unwrap();
            assert_eq!(next(), "+OK\r\n");
            assert_eq!(next(), format!("${}\r\n{n}\r\n", n.to_string().len()));
            assert!(next().starts_with("-NOPERM this user has no permissions to access one of the keys"));
            assert_eq!(next(), "$1\r\nx\r\n");
            assert!(next().starts_with("-NOPERM this user has no permissions to access one of the keys"));
            assert_eq!(next(), "-NOPERM this user has no permissions to run the 'del' command\r\n");
            assert!(next().starts_with("-NOPERM this user has no permissions to access one of the keys"));
        }
        assert_eq!(call(&mut admin, "EXISTS z1 d1"), ":0\r\n");
    }
}

#[test]
fn a_change_counts_for_every_connection_from_its_reply_on() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass ~* +ping");
        let mut clients: Vec<Connection> = (0..6).map(|_| server.connect()).collect();
        for client in &mut clients {
            ok(client, "AUTH u any");
        }
        for round in 0..30 {
            let is_allowed = round % 2 == 0;
            ok(&mut admin, if is_allowed { "ACL SETUSER u +get" } else { "ACL SETUSER u -get" });
            for (n, client) in clients.iter_mut().enumerate() {
                let reply = client.call(&["GET", &format!("key{n}")]);
                assert_eq!(reply == "$-1\r\n", is_allowed, "{setup:?}, round {round}: {reply}");
            }
        }
        assert_eq!(call(&mut admin, "ACL DELUSER u"), ":1\r\n");
        for client in &mut clients {
            assert_eq!(client.rest(), b"", "who is removed is disconnected");
        }
    }
}

/// Who loses a right on another shard has lost it there by the reply: it is not counted, and not served, any more.
#[test]
fn by_the_reply_to_a_change_all_shards_have_disconnected_whom_they_must() {
    const CLIENTS: usize = 8;
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        for round in 0..40 {
            ok(&mut admin, "ACL SETUSER u on nopass ~* +@all &news");
            let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| server.connect()).collect();
            for client in &mut clients {
                ok(client, "AUTH u any");
                call(client, "SUBSCRIBE news");
            }
            assert_eq!(call(&mut admin, "PUBSUB NUMSUB news"), format!("*2\r\n$4\r\nnews\r\n:{CLIENTS}\r\n"));
            let change = ["ACL SETUSER u resetchannels", "ACL DELUSER u"][round % 2];
            // What follows in the same packet waits, too.
            admin.send(format!("{change}\r\nPUBSUB NUMSUB news\r\nPUBLISH news x\r\n").as_bytes());
            let replies: Vec<Vec<u8>> = (0..3).map(|_| admin.reply()).collect();
            assert_eq!(
                replies[1..],
                [&b"*2\r\n$4\r\nnews\r\n:0\r\n"[..], b":0\r\n"],
                "{setup:?}, round {round}"
            );
        }
        // As the last command of an EXEC, and by one's own user.
        ok(&mut admin, "ACL SETUSER u on nopass ~* +@all &news");
        let mut client = server.connect();
        ok(&mut client, "AUTH u any");
        call(&mut client, "SUBSCRIBE news");
        let mut own = server.connect();
        ok(&mut own, "AUTH u any");
        own.send(b"MULTI\r\nMSET a 1 b 2 c 3\r\nACL DELUSER u\r\nEXEC\r\nPING\r\n");
        let rest = own.rest();
        assert!(rest.ends_with(b"*2\r\n+OK\r\n:1\r\n"), "{}", String::from_utf8_lossy(&rest));
        assert_eq!(call(&mut admin, "PUBSUB NUMSUB news"), "*2\r\n$4\r\nnews\r\n:0\r\n");
    }
}

#[test]
fn rights_count_when_an_exec_runs_and_not_when_it_was_queued() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass ~* +@all");
        let mut client = server.connect();
        ok(&mut client, "AUTH u any");
        ok(&mut client, "MULTI");
        for command in ["SET x 1", "SET y 1", "INCR x", "MGET x y z", "PING"] {
            assert_eq!(call(&mut client, command), "+QUEUED\r\n");
        }
        ok(&mut admin, "ACL SETUSER u -incr resetkeys ~x ~z");
        let reply = call(&mut client, "EXEC");
        let reason = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
                      call. This command is no longer allowed for the following reason: ";
        let (command, keys) = (
            "no permission to execute the command or subcommand",
            "no permission to touch the specified keys",
        );
        assert_eq!(
            reply,
            format!("*5\r\n+OK\r\n{reason}{keys}\r\n{reason}{command}\r\n{reason}{keys}\r\n+PONG\r\n"),
            "{setup:?}"
        );
        assert_eq!(call(&mut admin, "MGET x y"), "*2\r\n$1\r\n1\r\n$-1\r\n");
        let log = call(&mut admin, "ACL LOG");
        assert!(log.contains("\r\nmulti\r\n") && log.contains("\r\nincr\r\n"), "{log}");
    }
}

#[test]
fn a_blocked_client_that_loses_the_right_gets_an_error() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass ~* +blpop +ping");
        let mut client = server.connect();
        ok(&mut client, "AUTH u any");
        client.request(&[b"BLPOP", b"queue", b"other", b"0"]);
        wait_until("it waits", || admin.info("clients", "blocked_clients") == "1");
        ok(&mut admin, "ACL SETUSER u resetkeys ~queue");
        let reply = String::from_utf8(client.reply()).unwrap();
        assert!(
            reply.starts_with("-NOPERM this user has no permissions to access one of the keys"),
            "{reply}"
        );
        assert_eq!(call(&mut admin, "RPUSH queue x"), ":1\r\n");
        assert_eq!(call(&mut admin, "LLEN queue"), ":1\r\n");
        assert_eq!(call(&mut client, "PING"), "+PONG\r\n");
    }
}

#[test]
fn a_script_has_the_rights_of_its_client_on_every_shard() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass ~a* %R~r* +@all -incr");
        let mut client = server.connect();
        ok(&mut client, "AUTH u any");
        for n in 0..8 {
            let mut eval = |script: &str, key: &str| client.call(&["EVAL", script, "1", key]);
            let (own, read) = (format!("a{n}"), format!("r{n}"));
            assert_eq!(eval("return redis.call('SET', KEYS[1], '1')", &own), "+OK\r\n");
            let refused = eval("return redis.call('INCR', KEYS[1])", &own);
            assert!(
                refused.starts_with("-ERR The user executing the script can't run this command"),
                "{refused}"
            );
            let refused = eval("return redis.pcall('SET', 'r1', '1')", &own);
            assert!(
                refused.starts_with("-ERR The user executing the script can't access at least one"),
                "{refused}"
            );
            let refused = eval("return redis.call('GET', KEYS[1])", &read);
            assert!(refused.starts_with("-NOPERM"), "EVAL itself may change the key: {refused}");
            let allowed = client.call(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", &read]);
            assert_eq!(allowed, "$-1\r\n");
        }
        wait_until("it is logged", || call(&mut admin, "ACL LOG").contains("\r\nlua\r\n"));
        assert_eq!(call(&mut admin, "EXISTS r1"), ":0\r\n");
    }
}

/// It is suspended again and again, and other clients are served meanwhile.
#[test]
fn a_script_that_is_under_way_loses_the_rights_that_its_user_loses() {
    let script = "local calls = 0
                  local reply
                  repeat
                      reply = redis.pcall('HGETALL', KEYS[1])
                      calls = calls + 1
                  until reply.err or calls == 100000000
                  redis.pcall('SET', KEYS[1], calls)
                  return reply.err or 'it was never refused'";
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "CONFIG SET busy-reply-threshold 0");
        for change in ["ACL SETUSER u -hgetall -set", "ACL SETUSER u -hgetall", "ACL DELUSER u"] {
            call(&mut admin, "DEL k");
            ok(&mut admin, "ACL SETUSER u on nopass ~* +@all");
            let mut client = server.connect();
            ok(&mut client, "AUTH u any");
            client.request(&[b"EVAL", script.as_bytes(), b"1", b"k"]);
            wait_until("it runs", || {
                let clients = call(&mut admin, "CLIENT LIST");
                clients.lines().any(|line| line.contains(" user=u ") && line.contains(" cmd=eval "))
            });
            assert!(call(&mut admin, change).starts_with([':', '+']));
            if change.contains("DELUSER") {
                assert_eq!(client.rest(), b"");
            } else {
                let reply = String::from_utf8(client.reply()).unwrap();
                assert!(reply.contains("The user executing the script can't run this command"), "{reply}");
            }
            let has_set = change == "ACL SETUSER u -hgetall";
            assert_eq!(call(&mut admin, "EXISTS k"), format!(":{}\r\n", u8::from(has_set)), "{change}");
        }
    }
}

#[test]
fn a_file_is_loaded_as_a_whole_or_not_at_all() {
    let path = std::env::temp_dir().join(format!("shardis-{}.acl", std::process::id()));
    std::fs::write(&path, "user alice on >one +get ~a*\n").unwrap();
    let server = Server::start_with(SETUPS[1], &["--aclfile", path.to_str().unwrap()]);
    let mut admin = server.connect();
    let mut alice = server.connect();
    ok(&mut alice, "AUTH alice one");
    let lines = call(&mut admin, "ACL LIST");

    std::fs::write(&path, "user bob on nopass +@all\nuser alice on >two +nosuch\n").unwrap();
    let refused = call(&mut admin, "ACL LOAD");
    assert!(refused.contains(":2: Error in applying operation '+nosuch'"), "{refused}");
    assert_eq!(call(&mut admin, "ACL LIST"), lines);
    assert_eq!(call(&mut alice, "GET a"), "$-1\r\n");

    std::fs::write(&path, "user alice on >two +get ~b*\n").unwrap();
    ok(&mut admin, "ACL LOAD");
    assert_eq!(alice.rest(), b"", "it is another user now");
    let mut alice = server.connect();
    assert!(call(&mut alice, "AUTH alice one").starts_with("-WRONGPASS"));
    ok(&mut alice, "AUTH alice two");

    ok(&mut admin, "ACL SETUSER carol on nopass +get ~c");
    ok(&mut admin, "ACL SAVE");
    let saved = std::fs::read_to_string(&path).unwrap();
    assert_eq!(saved.lines().map(|line| format!("{line}\r\n")).count(), 3);
    assert!(saved.contains("user carol on nopass ~c resetchannels -@all +get\n"), "{saved}");
    assert!(!saved.contains("two"), "passwords are not written: {saved}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn users_of_a_configuration_are_there_at_the_start() {
    let users =
        ["--user", "alice", "on", ">one", "+get", "~a*", "--user", "default", "on", "nopass", "~*", "+@all"];
    let server = Server::start_with(SETUPS[1], &[&users[..], &["-flushdb"]].concat());
    let mut client = server.connect();
    assert!(call(&mut client, "FLUSHDB").starts_with("-NOPERM"));
    ok(&mut client, "SET a 1");
    ok(&mut client, "AUTH alice one");
    assert_eq!(call(&mut client, "GET a"), "$1\r\n1\r\n");
    assert!(call(&mut client, "SET a 2").starts_with("-NOPERM"));
}

#[test]
fn passwords_of_users_do_not_get_into_logs() {
    let server = Server::start_with(SETUPS[1], &["--slowlog-log-slower-than", "0"]);
    let mut client = server.connect();
    ok(&mut client, "ACL SETUSER hush on >hush-hush +@all ~*");
    call(&mut client, "ACL SETUSER hush >hush-hush nosuch");
    call(&mut client, "AUTH hush hush-hush-not");
    ok(&mut client, "AUTH hush hush-hush");
    let log = call(&mut client, "SLOWLOG GET") + &call(&mut client, "ACL LOG");
    assert!(!log.contains("hush-hush"), "{log}");
}

#[test]
fn subscribers_that_lose_a_channel_are_disconnected_on_every_shard() {
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        ok(&mut admin, "ACL SETUSER u on nopass +@all &one &two*");
        let mut listeners: Vec<Connection> = (0..6).map(|_| server.connect()).collect();
        for (n, client) in listeners.iter_mut().enumerate() {
            ok(client, "AUTH u any");
            let refused = call(client, "SUBSCRIBE one three");
            assert!(
                refused.starts_with("-NOPERM this user has no permissions to access one of the channels")
            );
            assert!(call(client, "PSUBSCRIBE two").starts_with("-NOPERM"), "patterns are taken literally");
            assert!(call(client, "PUBLISH three x").starts_with("-NOPERM"));
            let command = if n % 2 == 0 { "SUBSCRIBE one" } else { "PSUBSCRIBE two*" };
            assert!(call(client, command).starts_with("*3\r\n"), "{command}");
        }
        ok(&mut admin, "ACL SETUSER u resetchannels &one &other");
        for (n, client) in listeners.iter_mut().enumerate() {
            if n % 2 == 0 {
                assert_eq!(call(client, "PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
            } else {
                assert_eq!(client.rest(), b"");
            }
        }
    }
}
