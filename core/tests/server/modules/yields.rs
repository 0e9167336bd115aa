//! Commands of a C module that take long and yield: `yields.c`.

use super::waits::{reply, request};
use super::{KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, Server, Setup, free_port, wait_until};
use crate::rdb::Dir;

fn start(setup: Setup, name: &str) -> Server {
    let path = compiled("yields", name);
    let path = path.to_str().expect("a path in UTF-8");
    Server::start_with(setup, &["--loadmodule", path, "--busy-reply-threshold", "5"])
}

fn wait_for_busy(client: &mut Connection, text: &str) {
    let mut last = String::new();
    wait_until("the command is over the threshold", || {
        last = client.call(&["PING"]);
        last != "+PONG\r\n"
    });
    assert_eq!(last, format!("-BUSY {text}\r\n"));
}

fn wait_for_end(client: &mut Connection) {
    wait_until("others are served again", || client.call(&["PING"]) == "+PONG\r\n");
}

/// As in Redis, where it is the only way to end such a command, another one of the module runs meanwhile.
#[test]
fn clients_are_told_what_a_module_says_when_it_yields_for_too_long() {
    for setup in SETUPS {
        let server = start(setup, "busy");
        let (mut working, mut waiting, mut client) = (server.connect(), server.connect(), server.connect());
        for (command, key) in [("YIELD.HOLD", KEYS[0]), ("YIELD.THREAD", KEYS[1])] {
            request(&mut working, &[command, key]);
            wait_for_busy(&mut client, "The module is at work");
            expect(&mut client, &["GET", key], "-BUSY The module is at work\r\n");
            expect(&mut client, &["SCRIPT", "KILL"], "-NOTBUSY No scripts in execution right now.\r\n");
            expect(&mut client, &["YIELD.STOP"], ":0\r\n");
            assert_eq!(reply(&mut working), ":2\r\n");
            wait_for_end(&mut client);
            expect(&mut client, &["GET", key], "$1\r\n2\r\n");
            // While nothing is busy it is a command like any other.
            expect(&mut client, &["YIELD.STOP"], ":1\r\n");
        }
        // Of what waits for its keys when it comes over the threshold.
        expect(&mut client, &["CONFIG", "SET", "busy-reply-threshold", "200"], "+OK\r\n");
        request(&mut working, &["YIELD.HOLD", KEYS[2]]);
        wait_until("it has its key", || {
            request(&mut waiting, &["INCR", KEYS[2]]);
            reply(&mut waiting) == "-BUSY The module is at work\r\n"
        });
        expect(&mut client, &["YIELD.STOP"], ":0\r\n");
        assert!(reply(&mut working).starts_with(':'));
    }
}

#[test]
fn nobody_is_refused_while_a_module_yields_but_not_for_clients() {
    for setup in SETUPS {
        let server = start(setup, "quiet");
        let (mut working, mut client) = (server.connect(), server.connect());
        request(&mut working, &["YIELD.QUIET", "100"]);
        for _ in 0..200 {
            expect(&mut client, &["PING"], "+PONG\r\n");
        }
        assert_eq!(reply(&mut working), "+OK\r\n");
    }
}

/// Modules may rely on that: what yields but not for clients has the server for itself. Where
/// there are several shards, whoever needs none of their keys is served.
#[test]
fn on_one_shard_nothing_is_done_for_clients_while_a_command_yields() {
    for setup in SETUPS.into_iter().filter(|setup| setup.shards == 1) {
        let server = start(setup, "alone");
        let (mut working, mut client) = (server.connect(), server.connect());
        for _ in 0..10 {
            request(&mut working, &["YIELD.QUIET", "20"]);
            for _ in 0..50 {
                assert_eq!(client.info("yields", "yields_quiet"), "0");
            }
            assert_eq!(reply(&mut working), "+OK\r\n");
        }
    }
}

/// The script was counted as busy at first, and the module at its end: others were refused for ever.
#[test]
fn a_busy_script_that_a_module_has_called_is_killed_and_then_others_are_served() {
    for setup in SETUPS {
        let server = start(setup, "script");
        let (mut working, mut client) = (server.connect(), server.connect());
        request(&mut working, &["YIELD.CALL", "EVAL", "while true do end", "0"]);
        let text = "Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
        wait_for_busy(&mut client, text);
        expect(&mut client, &["SCRIPT", "KILL"], "+OK\r\n");
        let error = reply(&mut working);
        assert!(error.contains("Script killed by user with SCRIPT KILL."), "{error}");
        wait_for_end(&mut client);
    }
}

/// One of its commands runs meanwhile, which waits for its turn.
#[test]
fn a_server_answers_while_a_module_loads_a_value_and_yields() {
    let path = compiled("yields", "load");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("yields");
        {
            let server = dir.start(setup, &["--loadmodule", path]);
            let mut client = server.connect();
            KEYS.iter().for_each(|key| expect(&mut client, &["YIELD.VALUE", key], "+OK\r\n"));
            expect(&mut client, &["SET", "text", "x"], "+OK\r\n");
            expect(&mut client, &["SAVE"], "+OK\r\n");
        }
        let args = ["--dir", dir.path(), "--loadmodule", path, "slow"];
        let mut server = Server::spawn(setup, free_port(), &args);
        server.wait_for_line("Loading RDB produced by version");
        // On all shards.
        let mut clients: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
        for _ in 0..20 {
            for client in &mut clients {
                expect(client, &["GET", "text"], "-LOADING Redis is loading the dataset in memory\r\n");
            }
        }
        assert_eq!(clients[0].info("persistence", "loading"), "1");
        assert!(clients[0].call(&["YIELD.STOP"]).starts_with(':'));
        wait_until("it is loaded", || clients[1].call(&["PING"]) == "+PONG\r\n");
        for client in &mut clients {
            expect(client, &["EXISTS", KEYS[0], KEYS[1], KEYS[2], "text"], ":4\r\n");
        }
    }
}
