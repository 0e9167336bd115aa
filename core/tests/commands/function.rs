//! FUNCTION and FCALL: libraries as a whole or not at all, on all shards at once. What Lua can do in them is tested with
//! the engine.

use super::effects::Replica;
use super::{Server, on_one_and_three_shards};

#[track_caller]
fn expect(server: &mut Server, args: &[&str], reply: &str) {
    assert_eq!(server.call_args(args), format!("{reply}\r\n"), "{args:?}");
}

/// A library of functions, each of which returns its library's name.
fn library(name: &str, functions: &[&str]) -> String {
    let register =
        |function: &&str| format!("redis.register_function('{function}', function() return '{name}' end)\n");
    format!("#!lua name={name}\n{}", functions.iter().map(register).collect::<String>())
}

const SETS: &str = "#!lua name=sets
redis.register_function{function_name='put', callback=function(keys, args)
    return redis.call('set', keys[1], args[1])
end, description='Sets a key'}
redis.register_function{function_name='look', callback=function(keys)
    return redis.call('get', keys[1])
end, flags={'no-writes'}}
redis.register_function{function_name='force', callback=function(keys, args)
    return redis.call('set', keys[1], args[1])
end, flags={'allow-oom', 'No-Cluster'}}
";

#[test]
fn a_function_is_called_on_the_shard_of_its_keys() {
    on_one_and_three_shards(|server| {
        expect(server, &["FUNCTION", "LOAD", SETS], "$4\r\nsets");
        for key in ["a", "b", "c", "d"] {
            expect(server, &["FCALL", "put", "1", key, "v"], "+OK");
            expect(server, &["FCALL", "look", "1", key], "$1\r\nv");
            expect(server, &["FCALL_RO", "look", "1", key], "$1\r\nv");
            expect(server, &["GET", key], "$1\r\nv");
            expect(server, &["FCALL", "LOOK", "1", key], "$1\r\nv");
        }
        for home in 0..server.cluster.workers.len() {
            let client = server.cluster.connect(home);
            assert_eq!(server.cluster.call(client, &["FCALL", "look", "1", "a"]), "$1\r\nv\r\n");
        }
    });
}

#[test]
fn an_exec_calls_what_it_has_loaded_whatever_keys_that_touches() {
    on_one_and_three_shards(|server| {
        let far = "#!lua name=far
redis.register_function('far', function()
    for number = 1, 20 do redis.call('SET', 'k' .. number, number) end
    return 'done'
end)";
        expect(server, &["MULTI"], "+OK");
        expect(server, &["FUNCTION", "LOAD", far], "+QUEUED");
        expect(server, &["FCALL", "far", "0"], "+QUEUED");
        expect(server, &["FCALL", "nosuch", "0"], "+QUEUED");
        expect(server, &["EXEC"], "*3\r\n$3\r\nfar\r\n$4\r\ndone\r\n-ERR Function not found");
        expect(server, &["DBSIZE"], ":20");
    });
}

#[test]
fn what_is_wrong_with_a_call_is_said_in_the_order_of_redis() {
    on_one_and_three_shards(|server| {
        expect(server, &["FUNCTION", "LOAD", SETS], "$4\r\nsets");
        for command in ["FCALL", "FCALL_RO"] {
            expect(server, &[command, "nosuch", "x"], "-ERR Function not found");
            expect(server, &[command, "put", "x"], "-ERR Bad number of keys provided");
            let too_many = "-ERR Number of keys can't be greater than number of args";
            expect(server, &[command, "put", "2", "a"], too_many);
            expect(server, &[command, "put", "-1", "a"], "-ERR Number of keys can't be negative");
        }
        let writes = "-ERR Can not execute a script with write flag using *_ro command.";
        expect(server, &["FCALL_RO", "put", "1", "a", "v"], writes);

        server.cluster.workers[0].globals.add_other_memory(1 << 40);
        server.expect(&[("CONFIG SET maxmemory 1", "+OK")]);
        let no_memory = "-OOM command not allowed when used memory > 'maxmemory'.";
        expect(server, &["FCALL", "put", "1", "a", "v"], no_memory);
        expect(server, &["FCALL_RO", "put", "1", "a", "v"], no_memory);
        expect(server, &["FCALL", "look", "1", "a"], "$-1");
        expect(server, &["FCALL", "force", "1", "a", "v"], "+OK");
        expect(server, &["FCALL", "nosuch", "0"], "-ERR Function not found");
        expect(server, &["FUNCTION", "LOAD", SETS], no_memory);
    });
}

#[test]
fn a_library_is_loaded_as_a_whole_or_not_at_all() {
    on_one_and_three_shards(|server| {
        let one = library("one", &["f", "g"]);
        expect(server, &["FUNCTION", "LOAD", &one], "$3\r\none");
        let refused = [
            (vec!["FUNCTION", "LOAD", &one], "-ERR Library 'one' already exists"),
            (vec!["FUNCTION", "LOAD", "x", "y"], "-ERR Unknown option given: x"),
            (vec!["FUNCTION", "LOAD", "replace"], "-ERR Missing library metadata"),
            (vec!["FUNCTION", "LOAD", "#!lua name=two\n"], "-ERR No functions registered"),
            (vec!["FUNCTION", "LOAD", "REPLACE", "#!lua name=one\nx"], {
                "-ERR Error compiling function: user_function:2: '=' expected near '<eof>'"
            }),
            (vec!["FUNCTION", "LOAD", "#!foo name=one\n"], "-ERR Engine 'foo' not found"),
        ];
        for (args, reply) in refused {
            expect(server, &args, reply);
        }
        let clash = library("two", &["e", "g", "h"]);
        expect(server, &["FUNCTION", "LOAD", &clash], "-ERR Function g already exists");
        expect(server, &["FCALL", "e", "0"], "-ERR Function not found");
        expect(server, &["FCALL", "g", "0"], "$3\r\none");
        expect(server, &["FUNCTION", "LOAD", "replace", &library("one", &["f", "h"])], "$3\r\none");
        expect(server, &["FUNCTION", "LOAD", &clash], "-ERR Function h already exists");
        expect(server, &["FCALL", "g", "1", "a"], "-ERR Function not found");
        expect(server, &["FCALL", "h", "1", "a"], "$3\r\none");

        expect(server, &["FUNCTION", "DELETE", "two"], "-ERR Library not found");
        expect(server, &["FUNCTION", "DELETE", "one"], "+OK");
        expect(server, &["FCALL", "h", "1", "a"], "-ERR Function not found");
        expect(server, &["FUNCTION", "LOAD", &clash], "$3\r\ntwo");
        // Keys and functions are apart.
        expect(server, &["FLUSHALL"], "+OK");
        expect(server, &["FCALL", "e", "0"], "$3\r\ntwo");
        let mode = "-ERR FUNCTION FLUSH only supports SYNC|ASYNC option";
        expect(server, &["FUNCTION", "FLUSH", "now"], mode);
        let too_many = "-ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.";
        expect(server, &["FUNCTION", "flush", "sync", "x"], too_many);
        expect(server, &["FUNCTION", "FLUSH", "sync"], "+OK");
        expect(server, &["FUNCTION", "LIST"], "*0");
    });
}

#[test]
fn libraries_are_listed_in_the_order_of_their_names() {
    let mut server = Server::new(2);
    let other = library("other", &["f"]);
    expect(&mut server, &["FUNCTION", "LOAD", SETS], "$4\r\nsets");
    expect(&mut server, &["FUNCTION", "LOAD", &other], "$5\r\nother");
    let functions = "$9\r\nfunctions\r\n";
    let function = |name: &str, description: &str, flags: &str| {
        let length = name.len();
        format!(
            "*6\r\n$4\r\nname\r\n${length}\r\n{name}\r\n$11\r\ndescription\r\n{description}\r\n$5\r\nflags\r\n{flags}\r\n"
        )
    };
    let head = |name: &str, count: usize| {
        let length = name.len();
        format!(
            "*{count}\r\n$12\r\nlibrary_name\r\n${length}\r\n{name}\r\n$6\r\nengine\r\n$3\r\nLUA\r\n{functions}"
        )
    };
    let of_other = format!("*1\r\n{}", function("f", "$-1", "*0"));
    let of_sets = [
        "*3\r\n",
        &function("force", "$-1", "*2\r\n+allow-oom\r\n+no-cluster"),
        &function("look", "$-1", "*1\r\n+no-writes"),
        &function("put", "$10\r\nSets a key", "*0"),
    ]
    .concat();
    let all = ["*2\r\n", &head("other", 6), &of_other, &head("sets", 6), of_sets.trim_end()].concat();
    expect(&mut server, &["FUNCTION", "LIST"], &all);
    let length = other.len();
    let with_code =
        ["*1\r\n", &head("other", 8), &of_other, &format!("$12\r\nlibrary_code\r\n${length}\r\n{other}")]
            .concat();
    expect(&mut server, &["FUNCTION", "LIST", "withcode", "libraryname", "OTH*"], &with_code);
    expect(&mut server, &["FUNCTION", "LIST", "libraryname", "x"], "*0");
    let no_name = "-ERR library name argument was not given";
    expect(&mut server, &["FUNCTION", "LIST", "libraryname"], no_name);
    for twice in [&["withcode", "WITHCODE"][..], &["libraryname", "x", "libraryname", "x"], &["foo"]] {
        let args = [&["FUNCTION", "LIST"], twice].concat();
        let reply = server.call_args(&args);
        assert!(reply.starts_with("-ERR Unknown argument "), "{reply}");
    }
}

#[track_caller]
fn restore(server: &mut Server, payload: &[u8], policy: &[&[u8]], reply: &str) {
    let args = [&[&b"FUNCTION"[..], b"RESTORE", payload], policy].concat();
    assert_eq!(server.call_bytes(&args).escape_ascii().to_string(), format!("{reply}\\r\\n"));
}

#[test]
fn libraries_are_dumped_and_restored_by_policy() {
    /// Of Redis 7.0.15: the library A with the function abc.
    const DUMPED: &[u8] =
        b"\xf5\xc3@Y@c\x1f#!lua name=A\nredis.register_func\x04tion{\xc0\x08\x00_`'\x0e\"abc\",callback=\
        \xc0\x1c\x18() return 2 end,flags={}}\n\x00\xe4\xf4*\x15\xdc\x83 \xb7";
    on_one_and_three_shards(|server| {
        restore(server, DUMPED, &[], "+OK");
        expect(server, &["FCALL", "abc", "1", "a"], ":2");
        restore(server, DUMPED, &[], "-ERR Library A already exists");
        restore(server, DUMPED, &[b"replace"], "+OK");
        let dumped = server.call_bytes(&[b"FUNCTION", b"DUMP"]);
        let payload = [format!("${}\r\n", DUMPED.len()).as_bytes(), DUMPED, b"\r\n"].concat();
        assert_eq!(dumped.escape_ascii().to_string(), payload.escape_ascii().to_string());

        expect(server, &["FUNCTION", "FLUSH"], "+OK");
        expect(server, &["FUNCTION", "LOAD", &library("B", &["abc"])], "$1\r\nB");
        restore(server, DUMPED, &[], "-ERR Function abc already exists");
        restore(server, DUMPED, &[b"REPLACE"], "-ERR Function abc already exists");
        expect(server, &["FCALL", "abc", "1", "a"], "$1\r\nB");
        restore(server, DUMPED, &[b"FLUSH"], "+OK");
        expect(server, &["FCALL", "abc", "1", "a"], ":2");

        let policy = "-ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.";
        restore(server, DUMPED, &[b"x"], policy);
        restore(server, b"x", &[], "-ERR DUMP payload version or checksum are wrong");
        let value = b"\x00\xc0\x01\n\x00&x\xe7\xb6\xd1\x01\x11\xfc";
        restore(server, value, &[], "-ERR given type is not a function");
    });
}

#[test]
fn changes_of_libraries_are_effects() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let one = library("one", &["f"]);
        expect(server, &["FUNCTION", "LOAD", &one], "$3\r\none");
        expect(server, &["FUNCTION", "LOAD", &one], "-ERR Library 'one' already exists");
        expect(server, &["FUNCTION", "DELETE", "one"], "+OK");
        expect(server, &["FUNCTION", "FLUSH"], "+OK");
        expect(server, &["FCALL", "f", "0"], "-ERR Function not found");
        let read = replica.read(server);
        let load = format!("FUNCTION LOAD {one}");
        assert_eq!(read, ["SELECT 0", load.as_str(), "FUNCTION DELETE one", "FUNCTION FLUSH"]);
    });
}

#[test]
fn statistics_count_libraries_and_functions() {
    let mut server = Server::new(2);
    expect(&mut server, &["FUNCTION", "LOAD", SETS], "$4\r\nsets");
    let nobody = "*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*2\r\n$3\r\nLUA\r\n*4\r\n\
                  $15\r\nlibraries_count\r\n:1\r\n$15\r\nfunctions_count\r\n:3";
    expect(&mut server, &["FUNCTION", "STATS"], nobody);
    let memory = server.call("INFO memory");
    assert!(memory.contains("number_of_functions:3\r\nnumber_of_libraries:1\r\n"), "{memory}");
    expect(&mut server, &["FUNCTION", "KILL"], "-NOTBUSY No scripts in execution right now.");
    expect(&mut server, &["SCRIPT", "KILL"], "-NOTBUSY No scripts in execution right now.");
}

/// Its call is under way to the shards of its keys when the library is replaced: it was placed as one that keeps to its
/// declared keys, and comes to others now.
#[test]
fn a_function_that_is_replaced_while_its_call_is_under_way_runs_as_it_is_then() {
    let narrow = "#!lua name=lib
redis.register_function('f', function(keys) return redis.call('get', keys[1]) end)";
    let wide = "#!lua name=lib
redis.register_function('f', function(keys) return redis.call('mget', keys[1], 'b', 'c') end)";
    for keys in [&["1", "a"][..], &["3", "a", "b", "c"]] {
        for with_next in [false, true] {
            let mut server = Server::new(3);
            expect(&mut server, &["FUNCTION", "LOAD", narrow], "$3\r\nlib");
            expect(&mut server, &["MSET", "a", "1", "b", "2", "c", "3"], "+OK");
            let caller = server.cluster.connect(0);
            let calls = [&["FCALL", "f"][..], keys].concat();
            (1..3).for_each(|to| server.cluster.hold(0, to));
            server.cluster.request(caller, &calls);
            if with_next {
                server.cluster.request(caller, &["PING"]);
            }
            server.cluster.hand_over(caller);
            assert_eq!(server.cluster.received(caller), b"", "it is under way");
            let loader = server.cluster.connect(1);
            server.cluster.request(loader, &["FUNCTION", "LOAD", "REPLACE", wide]);
            server.cluster.hand_over(loader);
            (1..3).for_each(|to| server.cluster.release(0, to));
            server.cluster.settle();
            assert_eq!(server.cluster.received(loader), b"$3\r\nlib\r\n");
            let reply = String::from_utf8(server.cluster.received(caller)).expect("it is text");
            let next = if with_next { "+PONG\r\n" } else { "" };
            assert_eq!(reply, format!("*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n{next}"), "{keys:?}");
            assert!(server.cluster.is_at_rest());
        }
    }
}

#[test]
fn a_library_that_an_exec_loads_is_part_of_its_effects() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let text = library("lib", &["f"]);
        let second = library("other", &["g"]);
        for command in [
            &["MULTI"][..],
            &["SET", "a", "1"],
            &["FUNCTION", "LOAD", &text],
            &["MSET", "b", "2", "c", "3"],
            &["FUNCTION", "LOAD", &second],
        ] {
            server.call_args(command);
        }
        expect(server, &["EXEC"], "*4\r\n+OK\r\n$3\r\nlib\r\n+OK\r\n$5\r\nother");
        let read = replica.read(server);
        let shown: Vec<&str> =
            read.iter().map(|line| line.split("#!lua").next().unwrap_or(line).trim_end()).collect();
        assert_eq!(shown[..4], ["SELECT 0", "MULTI", "SET a 1", "FUNCTION LOAD"], "{read:?}");
        assert_eq!(shown[shown.len() - 2..], ["FUNCTION LOAD", "EXEC"], "{read:?}");
        assert!(server.cluster.is_at_rest());

        // It is the last command, and keys that were checked out from its home are on their way back.
        for (from, to) in [("{a}l", "{b}l"), ("{b}l", "{c}l"), ("{c}l", "{a}l")] {
            for command in [
                &["MULTI"][..],
                &["RPUSH", from, "x"],
                &["LMOVE", from, to, "LEFT", "LEFT"],
                &["FUNCTION", "LOAD", "REPLACE", &text],
            ] {
                server.call_args(command);
            }
            expect(server, &["EXEC"], "*3\r\n:1\r\n$1\r\nx\r\n$3\r\nlib");
            let read = replica.read(server);
            assert_eq!(read.last().map(String::as_str), Some("EXEC"), "{read:?}");
            assert!(read[read.len() - 2].starts_with("FUNCTION LOAD REPLACE"), "{read:?}");
            assert!(server.cluster.is_at_rest());
            server.expect(&[("FLUSHALL", "+OK")]);
            replica.read(server);
        }
    });
}
