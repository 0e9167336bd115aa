//! Programs, commands that call other commands, tested with TPROGRAM of `sim/rows.rs`.

use super::effects::Replica;
use super::*;

#[test]
fn a_program_calls_commands_over_its_keys_whatever_shards_they_are_on() {
    on_one_and_three_shards(|server| {
        // Keys on shards 0, 1 and 2 of three.
        server.expect(&[
            ("TPROGRAM 3 a b c / SET a 1 / INCR a / MSET b 5 c 6 / MGET a b c / SET a x NX", {
                "*5\r\n+OK\r\n:2\r\n+OK\r\n*3\r\n$1\r\n2\r\n$1\r\n5\r\n$1\r\n6\r\n$-1"
            }),
            ("MGET a b c", "*3\r\n$1\r\n2\r\n$1\r\n5\r\n$1\r\n6"),
            ("TPROGRAM 1 a / RENAME a a", "*1\r\n+OK"),
            ("TPROGRAM 0 / PING", "*1\r\n+PONG"),
        ]);
    });
}

#[test]
fn a_command_that_a_program_may_not_call_is_an_error_among_its_replies() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("TPROGRAM 1 a / NOSUCH / GET / SET a 1", {
                "*3\r\n-ERR Unknown Redis command called from script\r\n\
                 -ERR Wrong number of args calling Redis command from script\r\n+OK"
            }),
            ("TPROGRAM 1 a / GET b", "*1\r\n-ERR The program has not declared all keys of the command"),
            ("TPROGRAM 1 a / FLUSHALL / MULTI / CLIENT ID", {
                "*3\r\n-ERR This Redis command is not allowed from script\r\n\
                 -ERR This Redis command is not allowed from script\r\n\
                 -ERR This Redis command is not allowed from script"
            }),
            // A blocking command does not block.
            ("TPROGRAM 2 b c / BTAKE b c 0", "*1\r\n*-1"),
            ("TPROGRAM 1 a", "-ERR syntax error"),
            ("CONFIG SET maxmemory 1", "+OK"),
        ]);
        let no_memory = "-OOM command not allowed when used memory > 'maxmemory'.";
        let reply = server.call("TPROGRAM 1 a / GET a");
        assert!(reply.starts_with("*1") || reply.starts_with(no_memory), "{reply}");
    });
}

#[test]
fn a_program_is_atomic_also_in_exec_and_serves_blocked_clients_at_its_end() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let waiting = server.cluster.connect(0);
        assert_eq!(server.cluster.call(waiting, &["BTAKE", "c", "0"]), "");

        server.expect(&[
            ("TPROGRAM 2 a c / TPUSH c one two / TTAKE c / SET a 1 PX 100000000", {
                "*3\r\n:2\r\n$3\r\none\r\n+OK"
            }),
            ("MULTI", "+OK"),
            ("SET b 1", "+QUEUED"),
            ("TPROGRAM 1 a / DEL a", "+QUEUED"),
            ("EXEC", "*2\r\n+OK\r\n*1\r\n:1"),
        ]);

        server.cluster.settle();
        assert_eq!(server.cluster.received(waiting), b"*2\r\n$1\r\nc\r\n$3\r\ntwo\r\n");
        let read = replica.read(server);
        let read: Vec<&str> = read.iter().map(|line| line.split(" PXAT").next().unwrap_or(line)).collect();
        assert_eq!(
            read,
            [
                "SELECT 0",
                "MULTI",
                "TPUSH c one two",
                "TTAKE c",
                "SET a 1",
                "EXEC",
                "TTAKE c",
                "MULTI",
                "SET b 1",
                "DEL a",
                "EXEC"
            ]
        );
    });
}
