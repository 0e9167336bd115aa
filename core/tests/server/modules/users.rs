//! Users of a C module, and clients that it logs in: `users.c`.

use super::{KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, Server, Setup, wait_until};

fn start(setup: Setup, name: &str) -> Server {
    let path = compiled("users", name);
    let path = path.to_str().expect("a path in UTF-8");
    Server::start_with(setup, &["--enable-module-command", "yes", "--loadmodule", path])
}

const NO_SET: &str = "-NOPERM this user has no permissions to run the 'set' command\r\n";

/// The server closes the connection, and sends nothing more before.
fn is_closed(client: &mut Connection) {
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
}

/// How often the module was told that a client has become another user.
fn changes(client: &mut Connection) -> u32 {
    client.call(&["USERS.CHANGES"])[1..].trim_end().parse().expect("a number")
}

/// Whichever shard the command runs on, for which the client's key decides.
#[test]
fn a_client_is_who_a_module_says_from_the_reply_on() {
    for setup in SETUPS {
        let server = start(setup, "login");
        let (mut admin, mut client) = (server.connect(), server.connect());
        expect(&mut admin, &["ACL", "SETUSER", "alice", "on", ">secret", "~*", "+@all", "-set"], "+OK\r\n");
        let mut told = 0;
        for key in KEYS.repeat(5) {
            expect(&mut client, &["USERS.LOGIN", key, "alice"], "$5\r\nalice\r\n");
            expect(&mut client, &["SET", "x", "1"], NO_SET);
            expect(&mut client, &["ACL", "WHOAMI"], "$5\r\nalice\r\n");
            let refused = client.call(&["EVAL", "return redis.call('SET', 'x', 1)", "0"]);
            assert!(refused.contains("can't run this command"), "{setup:?}: {refused}");
            // It is told once of each time, also if the user is the same.
            expect(&mut client, &["USERS.LOGIN", key, "alice"], "$5\r\nalice\r\n");
            expect(&mut client, &["USERS.LOGIN", key, "default"], "$7\r\ndefault\r\n");
            expect(&mut client, &["SET", "x", "1"], "+OK\r\n");
            expect(&mut client, &["USERS.LOGIN", key, "nobody"], "-ERR no such user\r\n");
            expect(&mut client, &["AUTH", "alice", "secret"], "+OK\r\n");
            told += 3;
            wait_until("the module was told", || changes(&mut client) == told);
            expect(&mut client, &["RESET"], "+RESET\r\n");
        }
        expect(&mut client, &["USERS.LOGIN", KEYS[1], "alice"], "$5\r\nalice\r\n");
        drop(client);
        wait_until("the module was told", || changes(&mut admin) == told + 1);
    }
}

#[test]
fn clients_go_by_what_a_module_changes_of_its_user_until_it_frees_it() {
    for setup in SETUPS {
        let server = start(setup, "own");
        let mut admin = server.connect();
        let rules = "on ~* &* +@all -getdel";
        expect(&mut admin, &["USERS.RULES"], &format!("${}\r\n{rules}\r\n", rules.len()));
        let mut clients: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
        for (client, key) in clients.iter_mut().zip(KEYS.repeat(2)) {
            let id = client.call(&["CLIENT", "ID"]);
            expect(client, &["USERS.OWN", key], &id);
            expect(client, &["ACL", "WHOAMI"], "$3\r\nown\r\n");
            let denied = "-NOPERM this user has no permissions to run the 'getdel' command\r\n";
            expect(client, &["GETDEL", "x"], denied);
            expect(client, &["SET", "x", "1"], "+OK\r\n");
        }
        // No command knows it by its name.
        expect(&mut admin, &["ACL", "GETUSER", "own"], "$-1\r\n");
        expect(&mut admin, &["ACL", "USERS"], "*1\r\n$7\r\ndefault\r\n");

        assert!(admin.call(&["USERS.RULES", "-set (+get"]).contains("Unmatched parenthesis"));
        expect(&mut clients[0], &["SET", "x", "1"], "+OK\r\n");
        assert!(admin.call(&["USERS.RULES", "-set"]).ends_with("-getdel -set\r\n"));
        for client in &mut clients {
            expect(client, &["SET", "x", "1"], NO_SET);
        }
        expect(&mut clients[3], &["USERS.FREE"], "+OK\r\n");
        for client in &mut clients {
            is_closed(client);
        }
        expect(&mut admin, &["PING"], "+PONG\r\n");
        wait_until("the module was told", || changes(&mut admin) == 400);
        expect(&mut admin, &["USERS.OWN", "x"], "-ERR it is off\r\n");
    }
}

#[test]
fn a_module_closes_clients_of_any_shard() {
    for setup in SETUPS {
        let server = start(setup, "close");
        let mut admin = server.connect();
        expect(&mut admin, &["USERS.CLOSE", "12345"], ":0\r\n");
        for _ in 0..4 {
            let mut client = server.connect();
            let id = client.call(&["CLIENT", "ID"]);
            expect(&mut admin, &["USERS.CLOSE", id[1..].trim_end()], ":1\r\n");
            is_closed(&mut client);
        }
        // Who asks for it gets the reply.
        let id = admin.call(&["CLIENT", "ID"]);
        expect(&mut admin, &["USERS.CLOSE", id[1..].trim_end()], ":1\r\n");
        is_closed(&mut admin);

        // Those that it has logged in go with the module.
        let (mut admin, mut client) = (server.connect(), server.connect());
        client.call(&["USERS.OWN", KEYS[2]]);
        expect(&mut admin, &["MODULE", "UNLOAD", "users"], "+OK\r\n");
        is_closed(&mut client);
    }
}

#[test]
fn a_module_calls_by_the_rights_of_its_client_or_of_another_user() {
    let no_command = "-ERR acl verification failed, can't run this command or subcommand.\r\n";
    let no_key = "-ERR acl verification failed, can't access at least one of the keys mentioned in the command arguments.\r\n";
    for setup in SETUPS {
        let server = start(setup, "call");
        let (mut admin, mut client) = (server.connect(), server.connect());
        let user = ["ACL", "SETUSER", "bob", "on", "nopass", "~key1", "+users.call", "+set", "+eval", "+acl"];
        expect(&mut admin, &user, "+OK\r\n");
        expect(&mut client, &["AUTH", "bob", ""], "+OK\r\n");
        expect(&mut client, &["USERS.CALL", "k", "SET", "key1", "1"], "+OK\r\n");
        expect(&mut client, &["USERS.CALL", "k", "SET", "key2", "1"], no_key);
        expect(&mut client, &["USERS.CALL", "k", "GET", "key1"], no_command);
        expect(&mut client, &["USERS.CALL", "own", "GET", "key1"], "$1\r\n1\r\n");
        expect(&mut client, &["USERS.CALL", "own", "GETDEL", "key1"], no_command);
        // A script that it calls has these rights, too.
        let script = ["USERS.CALL", "k", "EVAL", "return redis.call('SET', ARGV[1], '2')", "0"];
        expect(&mut client, &[&script[..], &["key1"]].concat(), "+OK\r\n");
        let refused = client.call(&[&script[..], &["key2"]].concat());
        assert!(refused.contains("can't access at least one of the keys"), "{setup:?}: {refused}");
        let script = ["USERS.CALL", "own", "EVAL", "return redis.call('GETDEL', 'key1')", "0"];
        assert!(client.call(&script).contains("can't run this command"), "{setup:?}");

        let log = admin.call(&["ACL", "LOG"]);
        for part in ["module", "key2", "bob", "lua", "getdel"] {
            assert!(log.contains(&format!("\r\n{part}\r\n")), "{setup:?}: {part} in {log}");
        }
    }
}

#[test]
fn the_slow_log_does_not_show_what_a_module_hides() {
    for setup in SETUPS {
        let server = start(setup, "redact");
        let mut client = server.connect();
        expect(&mut client, &["CONFIG", "SET", "slowlog-log-slower-than", "0"], "+OK\r\n");
        expect(&mut client, &["USERS.SECRET", "hidden", "shown"], ":1\r\n");
        let log = client.call(&["SLOWLOG", "GET"]);
        assert!(log.contains("$12\r\nusers.secret\r\n") || log.contains("$12\r\nUSERS.SECRET\r\n"), "{log}");
        assert!(log.contains("(redacted)") && log.contains("shown") && !log.contains("hidden"), "{log}");
    }
}
