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

/// Starts a program that computes for a long time, and runs it until it is over the threshold. Returns its client.
fn make_busy(server: &mut Server, program: &str) -> usize {
    server.expect(&[("CONFIG SET busy-reply-threshold 10", "+OK")]);
    let client = server.cluster.connect(0);
    server.cluster.request(client, &program.split(' ').collect::<Vec<_>>());
    while server.cluster.workers[0].busy_program().is_none() {
        assert!(server.cluster.step(), "it is under way");
    }
    client
}

/// Has a request arrive while a program runs. Returns what the client has got at once.
fn call_meanwhile(server: &mut Server, client: usize, request: &str) -> String {
    server.cluster.request(client, &request.split(' ').collect::<Vec<_>>());
    server.cluster.hand_over(client);
    String::from_utf8(server.cluster.received(client)).expect("it is text")
}

/// The same for a request that other shards have to answer.
fn answer_meanwhile(server: &mut Server, client: usize, request: &str) -> String {
    let mut reply = call_meanwhile(server, client, request);
    while reply.is_empty() {
        assert!(server.cluster.step(), "it is under way");
        reply = String::from_utf8(server.cluster.received(client)).expect("it is text");
    }
    reply
}

const NOT_BUSY: &str = "-NOTBUSY No scripts in execution right now.";
const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";

#[test]
fn while_a_program_is_busy_commands_are_refused_until_it_is_killed() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SCRIPT KILL", NOT_BUSY), ("FUNCTION KILL", NOT_BUSY)]);
        let slow = make_busy(server, "TPROGRAM 1 a / GET a / SPIN 10000");
        let other = server.cluster.connect(server.cluster.workers.len() - 1);
        assert_eq!(call_meanwhile(server, other, "GET c"), BUSY);
        assert_eq!(call_meanwhile(server, other, "SHUTDOWN SAVE"), BUSY);
        assert_eq!(call_meanwhile(server, other, "MULTI"), "+OK\r\n");
        assert_eq!(call_meanwhile(server, other, "GET c"), BUSY);
        assert!(call_meanwhile(server, other, "EXEC").starts_with("-EXECABORT"));

        assert_eq!(answer_meanwhile(server, other, "FUNCTION KILL"), BUSY);
        assert_eq!(answer_meanwhile(server, other, "SCRIPT KILL"), "+OK\r\n");

        server.cluster.settle();
        let reply = String::from_utf8(server.cluster.received(slow)).expect("it is text");
        assert_eq!(reply, "-Script killed by user with SCRIPT KILL.\r\n");
        assert_eq!(server.cluster.call(other, &["GET", "c"]), "$-1\r\n");
        assert!(server.cluster.is_at_rest());
    });
}

#[test]
fn a_busy_program_that_has_written_runs_to_its_end() {
    on_one_and_three_shards(|server| {
        let slow = make_busy(server, "TPROGRAM 1 a / SET a 1 / SPIN 1000 / GET a");
        let other = server.cluster.connect(0);
        assert!(answer_meanwhile(server, other, "SCRIPT KILL").starts_with("-UNKILLABLE "));

        server.cluster.settle();

        assert_eq!(server.cluster.received(slow), b"*2\r\n+OK\r\n$1\r\n1\r\n");
        server.expect(&[("GET a", "$1\r\n1"), ("SCRIPT KILL", NOT_BUSY)]);
    });
}

#[test]
fn with_the_scope_keys_nobody_is_refused_for_a_busy_program() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET busy-script-scope keys", "+OK")]);
        server.cluster.tick();
        let client = server.cluster.connect(0);
        server.expect(&[("CONFIG SET busy-reply-threshold 10", "+OK")]);
        server.cluster.request(client, &["TPROGRAM", "1", "a", "/", "SPIN", "1000", "/", "SET", "a", "1"]);
        let began_ms = server.cluster.now_ms();
        while server.cluster.now_ms() < began_ms + 100 {
            assert!(server.cluster.step(), "it is under way");
        }
        // It is on the shard of the keys.
        let other = server.cluster.connect(server.cluster.workers.len() - 1);
        assert_eq!(call_meanwhile(server, other, "GET {a}2"), "$-1\r\n");
        assert_eq!(call_meanwhile(server, other, "GET a"), "", "it waits for the program");

        server.cluster.settle();

        assert_eq!(server.cluster.received(client), b"*1\r\n+OK\r\n");
        assert_eq!(server.cluster.received(other), b"$1\r\n1\r\n");
    });
}

#[test]
fn time_stands_still_while_a_program_is_under_way() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SET a 1 PX 100", "+OK"),
            ("TPROGRAM 1 a / GET a / SPIN 200 / GET a / PTTL a", { "*3\r\n$1\r\n1\r\n$1\r\n1\r\n:100" }),
            ("GET a", "$-1"),
            // In an EXEC, with keys of several shards.
            ("SET b 1 PX 100", "+OK"),
            ("MULTI", "+OK"),
            ("SET c 1", "+QUEUED"),
            ("TPROGRAM 2 a b / EXISTS b / SPIN 200 / EXISTS b", "+QUEUED"),
            ("EXEC", "*2\r\n+OK\r\n*2\r\n:1\r\n:1"),
            ("EXISTS b", ":0"),
            // Over keys of all shards that it has not declared.
            ("MSET b 1 c 1", "+OK"),
            ("PEXPIRE c 100", ":1"),
            (
                "TWIDE 0 / SET a 1 PX 100 / PEXPIRE b 150 / EXISTS c / SPIN 200 / MGET a b c / PTTL a / PTTL b / PTTL c",
                { "*7\r\n+OK\r\n:1\r\n:1\r\n*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n:100\r\n:150\r\n:100" },
            ),
            ("MGET a b c", "*3\r\n$-1\r\n$-1\r\n$-1"),
        ]);
    });
}

#[test]
fn the_keys_of_a_program_that_is_under_way_are_not_counted() {
    let mut server = Server::new(3);
    server.expect(&[("SET a 1", "+OK"), ("SET {a}1 1", "+OK"), ("CONFIG SET busy-reply-threshold 0", "+OK")]);
    let slow = server.cluster.connect(0);
    let program = "TPROGRAM 4 a {a}2 {a}3 {a}4 / DEL a / SPIN 9 / MSET {a}2 1 {a}3 1 {a}4 1 / COPY {a}2 a DB 1 / SPIN 9";
    server.cluster.request(slow, &program.split(' ').collect::<Vec<_>>());
    let mut counts = Vec::new();
    while server.cluster.is_busy() {
        server.cluster.step();
        let replied = !server.cluster.received(slow).is_empty();
        counts.push((server.cluster.workers[2].shard.key_count(0), replied));
        let in_other = server.cluster.workers[2].shard.key_count(1);
        assert!(in_other == 0 || counts.iter().any(|&(count, _)| count == 4), "{counts:?}");
    }
    assert!(counts.iter().all(|&(count, _)| count == 2 || count == 4), "{counts:?}");
    assert!(counts.len() > 5, "it is suspended: {counts:?}");
    server.expect(&[("DBSIZE", ":4")]);
}

#[test]
fn keys_that_a_program_moves_to_home_are_counted_where_they_belong() {
    let mut server = Server::new(3);
    server.expect(&[("MSET a 1 b 1 c 1", "+OK")]);
    let slow = server.cluster.connect(0);
    let program = "TPROGRAM 3 a b c / DEL a / SPIN 9 / SET a 1 / DEL b / SPIN 9 / SET b 1 / SPIN 9";
    server.cluster.request(slow, &program.split(' ').collect::<Vec<_>>());
    let mut suspended = 0;
    while server.cluster.is_busy() {
        server.cluster.step();
        let counts: Vec<usize> =
            server.cluster.workers.iter().map(|worker| worker.shard.key_count(0)).collect();
        assert_eq!(counts, [1, 1, 1]);
        suspended += usize::from(server.cluster.workers[0].has_ready_programs());
    }
    assert!(suspended > 3, "{suspended}");
    assert_eq!(server.cluster.received(slow), b"*4\r\n:1\r\n+OK\r\n:1\r\n+OK\r\n");
}

#[test]
fn what_waits_for_a_program_is_refused_when_that_is_busy() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET busy-reply-threshold 1000", "+OK")]);
        let slow = server.cluster.connect(0);
        server.cluster.request(slow, &["TPROGRAM", "1", "a", "/", "SPIN", "10000"]);
        while !server.cluster.workers.iter().any(|worker| worker.has_ready_programs()) {
            assert!(server.cluster.step(), "it is under way");
        }
        let clients: Vec<usize> = (0..3).map(|_| server.cluster.connect(0)).collect();
        call_meanwhile(server, clients[0], "GET a");
        call_meanwhile(server, clients[1], "BTAKE a 0");
        call_meanwhile(server, clients[2], "MULTI");
        call_meanwhile(server, clients[2], "SET a 1");
        call_meanwhile(server, clients[2], "EXEC");
        let is_answered = |server: &mut Server, reply: &str| {
            let received = clients.iter().map(|&client| server.cluster.received(client));
            let received = received.map(|bytes| String::from_utf8(bytes).expect("it is text"));
            received.filter(|received| received.ends_with(reply)).count()
        };
        while server.cluster.workers[0].busy_program().is_none() {
            assert!(server.cluster.step(), "it is under way");
            assert_eq!(is_answered(server, BUSY), 0, "it is not busy yet");
        }

        let mut refused = 0;
        while refused < clients.len() {
            assert!(server.cluster.step(), "it is under way");
            refused += is_answered(server, &BUSY[1..]);
        }

        assert_eq!(answer_meanwhile(server, clients[1], "SCRIPT KILL"), "+OK\r\n");
        server.cluster.settle();
        server.expect(&[("GET a", "$-1")]);
        assert!(server.cluster.is_at_rest());
    });
}

#[test]
fn a_script_that_makes_its_keys_is_seen_as_its_client_has_called_it() {
    on_one_and_three_shards(|server| {
        let script =
            "redis.call('SET', 'b' .. ARGV[1], KEYS[1]) return redis.call('GET', KEYS[1] .. ':' .. ARGV[1])";
        let call: [&str; 5] = ["EVAL", script, "1", "a", "x"];
        server.expect(&[("SET a:x 7", "+OK"), ("CONFIG SET slowlog-log-slower-than 0", "+OK")]);
        let monitor = server.cluster.connect(0);
        assert_eq!(server.cluster.call(monitor, &["MONITOR"]), "+OK\r\n");
        assert_eq!(server.call_args(&call), "$1\r\n7\r\n");
        // Without its element it fails where it makes the key.
        let failed = server.call_args(&call[..4]);
        assert!(failed.starts_with("-ERR user_script:1: attempt to concatenate field '?'"), "{failed}");

        let shown = String::from_utf8(server.cluster.received(monitor)).expect("text");
        let shown: Vec<&str> =
            shown.lines().map(|line| line.split_once("] ").unwrap_or_default().1).collect();
        let quoted = format!("\"EVAL\" \"{script}\" \"1\" \"a\"");
        assert_eq!(
            shown,
            [&format!("{quoted} \"x\""), "\"SET\" \"bx\" \"a\"", "\"GET\" \"a:x\"", &quoted],
            "{script}"
        );
        let log = server.call("SLOWLOG GET");
        assert!(log.contains("*5\r\n$4\r\nEVAL\r\n") && !log.contains("made"), "{log}");
        let info = server.call("INFO commandstats");
        assert!(info.contains("cmdstat_eval:calls=2,") && !info.contains("made"), "{info}");
        assert!(!server.call("INFO programs").contains("left_keys"), "its keys are known");
        server.expect(&[("GET bx", "$1\r\na")]);
        assert!(server.cluster.is_at_rest());
    });
}

#[test]
fn bad_arguments_of_a_script_that_makes_keys_are_told() {
    on_one_and_three_shards(|server| {
        let script = "return redis.call('GET', 'k' .. ARGV[1])";
        let not_integer = "-ERR value is not an integer or out of range\r\n";
        let too_many = "-ERR Number of keys can't be greater than number of args\r\n";
        let long = "x".repeat(70_000);
        let dialog: [(&[&str], &str); 9] = [
            (&["EVAL"], "-ERR wrong number of arguments for 'eval' command\r\n"),
            (&["EVAL", script], "-ERR wrong number of arguments for 'eval' command\r\n"),
            (&["EVAL", script, "x", "a"], not_integer),
            (&["EVAL", script, "+1", "a", "b"], not_integer),
            (&["EVAL", script, "01", "a", "b"], not_integer),
            (&["EVAL", script, "99999999999999999999", "a"], not_integer),
            (&["EVAL", script, "-1", "a"], "-ERR Number of keys can't be negative\r\n"),
            (&["EVAL", script, "2", "a"], too_many),
            (&["EVAL", script, "0", &long], "$-1\r\n"),
        ];
        let mut all = Vec::new();
        for (args, reply) in dialog {
            assert_eq!(server.call_args(args), reply, "{args:?}");
            all.extend(crate::cluster::request_bytes(args));
        }
        server.cluster.send(server.client, &all);
        server.cluster.settle();
        let replies = String::from_utf8(server.cluster.received(server.client)).expect("text");
        assert_eq!(replies, dialog.map(|(_, reply)| reply).concat());
    });
}

#[test]
fn a_function_is_run_with_the_keys_that_it_makes_when_it_runs() {
    let library = |key: &str| {
        format!(
            "#!lua name=lib\nredis.register_function('f', function(keys, args) \
             return {{redis.call('INCR', 'a' .. args[1]), redis.call('INCR', {key}), redis.call('INCR', keys[1])}} end)"
        )
    };
    for seed in 0..60 {
        let mut server = Server::new(3);
        server.cluster.random = crate::cluster::Random::new(seed);
        let other = server.cluster.connect(0);
        let load = |server: &mut Server, key: &str| {
            let library = library(key);
            server.cluster.request(other, &["FUNCTION", "LOAD", "REPLACE", &library]);
        };
        load(&mut server, "'b' .. args[1]");
        server.cluster.settle();
        // It is replaced while calls of it are under way: by one that makes another key, and by one whose key is not known.
        let mut count = 0;
        for key in ["'c' .. args[1]", "'d' .. #args", "'b' .. args[1]"] {
            for _ in 0..4 {
                server.cluster.request(server.client, &["FCALL", "f", "1", "k", "x"]);
                count += 1;
            }
            load(&mut server, key);
            for _ in 0..seed % 7 {
                server.cluster.step();
            }
        }
        server.cluster.settle();
        let replies = String::from_utf8(server.cluster.received(server.client)).expect("text");
        assert!(!replies.contains("-"), "seed {seed}: {replies}");
        assert_eq!(replies.matches("*3").count(), count, "seed {seed}: {replies}");
        server.expect(&[("GET k", "$2\r\n12"), ("GET ax", "$2\r\n12")]);
        assert!(server.cluster.is_at_rest(), "seed {seed}");
    }
}

#[test]
fn info_names_the_programs_that_leave_their_keys_and_the_one_that_holds_the_token() {
    let mut server = Server::new(3);
    server.expect(&[
        ("TWIDE 2 a b / SET a 1 / SET b 1", "*2\r\n+OK\r\n+OK"),
        ("CONFIG SET busy-reply-threshold 0", "+OK"),
    ]);
    assert!(!server.call("INFO programs").contains("left_keys=1"), "it has declared its keys");
    server.expect(&[("TWIDE 1 a / SET a 1 / SET b 1", "*2\r\n+OK\r\n+OK")]);
    let info = server.call("INFO programs");
    assert!(
        info.contains("token_holder:\r\ntoken_waiting:0\r\nprogram_command_twide:left_keys=1,"),
        "{info}"
    );
    assert!(info.contains(",restarts=0,token_waits=0,token_wait_usec=0\r\n"), "{info}");

    // One runs, and another one waits for it.
    let clients = [server.cluster.connect(0), server.cluster.connect(2)];
    let program = "TWIDE 0 / SET a 1 / SPIN 1000";
    for &client in &clients {
        server.cluster.request(client, &program.split(' ').collect::<Vec<_>>());
        server.cluster.hand_over(client);
    }
    let observer = server.cluster.connect(1);
    loop {
        let info = call_meanwhile(&mut server, observer, "INFO programs");
        if info.contains("token_holder:command_twide\r\ntoken_waiting:1\r\n") {
            break;
        }
        assert!(server.cluster.step(), "{info}");
    }
    server.cluster.settle();
    let info = server.call("INFO programs");
    assert!(info.contains("token_holder:\r\ntoken_waiting:0\r\n"), "{info}");
    assert!(info.contains(",restarts=0,token_waits=1,token_wait_usec=1"), "{info}");
    server.expect(&[("CONFIG RESETSTAT", "+OK")]);
    assert!(!server.call("INFO programs").contains("program_"));
}

#[test]
fn what_waits_for_a_wide_program_or_for_the_token_is_refused_when_that_is_busy() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET busy-reply-threshold 1000", "+OK")]);
        let last = server.cluster.workers.len() - 1;
        let clients = [last; 8].map(|shard| server.cluster.connect(shard));
        assert_eq!(server.cluster.call(clients[4], &["WATCH", "a", "b"]), "+OK\r\n");
        let slow = server.cluster.connect(0);
        let program = "TWIDE 1 a / GET a / GET b / SPIN 20000";
        server.cluster.request(slow, &program.split(' ').collect::<Vec<_>>());
        let began_ms = server.cluster.now_ms();
        while server.cluster.now_ms() == began_ms {
            assert!(server.cluster.step(), "it is under way");
        }
        let requests: [&[&str]; 8] = [
            &["MGET a b c"],
            &["RENAME b c"],
            &["FLUSHALL"],
            &["MULTI", "SET a 1", "SET b 2", "EXEC"],
            &["MULTI", "SET b 2", "SET c 2", "EXEC"],
            &["TWIDE 0 / SET c 1"],
            &["TPROGRAM 2 b c / SET b 1"],
            &["MULTI", "TWIDE 0 / SET c 1", "EXEC"],
        ];
        let mut waiting = clients.to_vec();
        for (client, requests) in clients.into_iter().zip(requests) {
            for request in requests {
                server.cluster.request(client, &request.split(' ').collect::<Vec<_>>());
            }
            server.cluster.hand_over(client);
        }
        // It has not been for long enough yet.
        while server.cluster.workers[0].busy_program().is_none() {
            for &client in &waiting {
                let received = server.cluster.received(client);
                assert!(!String::from_utf8_lossy(&received).contains("BUSY"), "it is not busy yet");
            }
            assert!(server.cluster.step(), "it is under way");
        }

        while !waiting.is_empty() {
            assert!(server.cluster.step(), "it is under way: {waiting:?}");
            waiting.retain(|&client| {
                let received = String::from_utf8(server.cluster.received(client)).expect("it is text");
                !received.contains(&BUSY[1..])
            });
        }

        let other = server.cluster.connect(last);
        assert_eq!(answer_meanwhile(server, other, "SCRIPT KILL"), "+OK\r\n");
        server.cluster.settle();
        let reply = String::from_utf8(server.cluster.received(slow)).expect("it is text");
        assert_eq!(reply, "-Script killed by user with SCRIPT KILL.\r\n");
        server.expect(&[
            ("MGET a b c", "*3\r\n$-1\r\n$-1\r\n$-1"),
            ("TWIDE 0 / MSET a 1 b 1 c 1", "*1\r\n+OK"),
            ("FLUSHALL", "+OK"),
        ]);
        assert!(server.cluster.is_at_rest());
    });
}

/// It waits for the keys of another program, and both are over the threshold.
#[test]
fn a_program_that_waits_for_a_key_is_killed_at_once() {
    let mut server = Server::new(1);
    server.expect(&[("CONFIG SET busy-reply-threshold 1000", "+OK")]);
    let clients = [server.cluster.connect(0), server.cluster.connect(0)];
    let programs = ["TPROGRAM 1 a / SET a 1 / SPIN 3000", "TWIDE 0 / SPIN 1500 / GET a / SET a 2"];
    for (client, program) in clients.into_iter().zip(programs) {
        server.cluster.request(client, &program.split(' ').collect::<Vec<_>>());
        server.cluster.hand_over(client);
    }
    let began_ms = server.cluster.now_ms();
    while server.cluster.now_ms() < began_ms + 3500 {
        assert!(server.cluster.step(), "they are under way");
    }

    let other = server.cluster.connect(0);
    assert_eq!(answer_meanwhile(&mut server, other, "SCRIPT KILL"), "+OK\r\n");
    let mut received = String::new();
    while received.is_empty() {
        assert_eq!(server.cluster.received(clients[0]), b"", "the other one has written, and goes on");
        assert!(server.cluster.step(), "it ends");
        received = String::from_utf8(server.cluster.received(clients[1])).expect("it is text");
    }

    assert_eq!(received, "-Script killed by user with SCRIPT KILL.\r\n");
    server.cluster.settle();
    assert_eq!(server.cluster.received(clients[0]), b"*1\r\n+OK\r\n");
    server.expect(&[("GET a", "$1\r\n1")]);
    assert!(server.cluster.is_at_rest());
}

/// On the only shard it holds what it has touched, and its client's next requests wait for it.
#[test]
fn others_go_on_while_a_wide_program_is_under_way() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET busy-reply-threshold 0", "+OK"), ("MSET a 1 b 1 c 1 d 1", "+OK")]);
        // On the only shard a program in an EXEC holds all keys.
        let count = if server.cluster.workers.len() == 1 { 1 } else { 2 };
        for program in ["TWIDE 0 / GET a / SPIN 2000 / INCR b / INCR a", "MULTI"].into_iter().take(count) {
            let slow = server.cluster.connect(0);
            if program == "MULTI" {
                for request in ["MULTI", "INCR d", "TWIDE 0 / GET a / SPIN 2000 / INCR b / INCR a", "EXEC"] {
                    server.cluster.request(slow, &request.split(' ').collect::<Vec<_>>());
                }
            } else {
                server.cluster.request(slow, &program.split(' ').collect::<Vec<_>>());
            }
            server.cluster.request(slow, &["MGET", "a", "b"]);
            server.cluster.hand_over(slow);
            let began_ms = server.cluster.now_ms();
            while server.cluster.now_ms() < began_ms + 100 {
                assert!(server.cluster.step(), "it is under way");
            }

            let other = server.cluster.connect(server.cluster.workers.len() - 1);
            let whole = server.cluster.connect(0);
            assert_eq!(call_meanwhile(server, whole, "FLUSHALL"), "", "it waits for the program");
            assert_eq!(answer_meanwhile(server, other, "GET b"), "$1\r\n1\r\n");
            assert_eq!(answer_meanwhile(server, other, "MSET b 5 c 5"), "+OK\r\n");
            assert_eq!(answer_meanwhile(server, other, "TPROGRAM 1 c / INCR c"), "*1\r\n:6\r\n");
            let reader = server.cluster.connect(0);
            assert_eq!(call_meanwhile(server, reader, "GET a"), "", "it waits for the program");
            assert!(server.cluster.now_ms() < began_ms + 1900, "the program is under way still");

            server.cluster.settle();
            let reply = String::from_utf8(server.cluster.received(slow)).expect("it is text");
            assert!(reply.contains("$1\r\n1\r\n:6\r\n:2\r\n"), "{reply}");
            assert_eq!(server.cluster.received(whole), b"+OK\r\n");
            server.expect(&[("MSET a 1 b 1 c 1 d 1", "+OK")]);
            assert!(server.cluster.is_at_rest());
        }
    });
}

/// One program follows the other. What waits for them takes the token at last, and waits at their shard alone even then.
#[test]
fn what_meets_one_program_after_the_other_holds_nothing_up() {
    let mut server = Server::new(3);
    for request in ["FLUSHALL", "MSET a 2 b 2 c 2"] {
        server.expect(&[("MSET a 1 b 1 c 1 {a}2 1", "+OK")]);
        let mut held = server.cluster.suspend_program(2, &["a"], true).expect("the key is free");
        let client = server.cluster.connect(0);
        server.cluster.request(client, &request.split(' ').collect::<Vec<_>>());
        let mut programs = 1;
        loop {
            server.cluster.settle();
            assert_eq!(server.cluster.received(client), b"", "{request} waits for program {programs}");
            for read in ["GET b", "GET c", "GET {a}2"] {
                let other = server.cluster.connect(0);
                assert_eq!(
                    answer_meanwhile(&mut server, other, read),
                    "$1\r\n1\r\n",
                    "{request}, program {programs}"
                );
            }
            server.cluster.end_program(2, held);
            match server.cluster.suspend_program(2, &["a"], true) {
                Some(next) => (held, programs) = (next, programs + 1),
                None => break,
            }
        }
        server.cluster.settle();
        assert_eq!(server.cluster.received(client), b"+OK\r\n");
        assert_eq!(programs, 3, "it has the token then");
        assert!(server.cluster.is_at_rest());
    }
}
