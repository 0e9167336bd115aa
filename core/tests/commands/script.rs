//! EVAL, EVALSHA and SCRIPT: which scripts run, what they may do, and what is known of them. What Lua can do in them is
//! tested with the engine.

use super::effects::Replica;
use super::{Server, on_one_and_three_shards};
use shardis_core::script::Sha;
use shardis_core::script::registry::EVALED_MAX;

/// Asserts that a request gets a reply, given without its last line end.
#[track_caller]
fn expect(server: &mut Server, args: &[&str], reply: &str) {
    assert_eq!(server.call_args(args), format!("{reply}\r\n"), "{args:?}");
}

fn sha(script: &str) -> String {
    Sha::of(script.as_bytes()).to_string()
}

#[test]
fn a_script_gets_its_keys_and_arguments() {
    on_one_and_three_shards(|server| {
        let script = "return {KEYS[1], KEYS[2], ARGV[1], #KEYS, #ARGV}";
        let reply = "*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nx\r\n:2\r\n:2";
        expect(server, &["EVAL", script, "2", "a", "b", "x", "y"], reply);
        expect(server, &["EVALSHA", &sha(script), "2", "a", "b", "x", "y"], reply);
        expect(server, &["EVALSHA_RO", &sha(script).to_uppercase(), "2", "a", "b", "x", "y"], reply);
        expect(server, &["EVAL_RO", "return 1", "0"], ":1");
    });
}

#[test]
fn an_exec_calls_the_script_that_it_has_loaded_whatever_keys_that_touches() {
    on_one_and_three_shards(|server| {
        let script = "for number = 1, 20 do redis.call('SET', 'k' .. number, number) end return 'done'";
        expect(server, &["MULTI"], "+OK");
        expect(server, &["SCRIPT", "LOAD", script], "+QUEUED");
        expect(server, &["EVALSHA", &sha(script), "0"], "+QUEUED");
        expect(server, &["EXEC"], &format!("*2\r\n$40\r\n{}\r\n$4\r\ndone", sha(script)));
        expect(server, &["DBSIZE"], ":20");
    });
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_the_order_of_redis() {
    on_one_and_three_shards(|server| {
        for command in ["EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO"] {
            let unknown = sha("x y");
            let what = if command.contains("SHA") { &unknown } else { "x y" };
            expect(server, &[command, what, "one"], "-ERR value is not an integer or out of range");
            let too_many = "-ERR Number of keys can't be greater than number of args";
            expect(server, &[command, what, "2", "a"], too_many);
            expect(server, &[command, what, "-1"], "-ERR Number of keys can't be negative");
        }
        // What cannot be a SHA is unknown before anything else is looked at.
        expect(server, &["EVALSHA", "x y", "one"], "-NOSCRIPT No matching script. Please use EVAL.");
        let unknown = "-NOSCRIPT No matching script. Please use EVAL.";
        expect(server, &["EVALSHA", "x", "0"], unknown);
        expect(server, &["EVALSHA", &sha("return 1"), "0"], unknown);
        let uncompiled = "-ERR Error compiling script (new function): user_script:1: '=' expected near 'y'";
        expect(server, &["EVAL", "x y", "0"], uncompiled);
        expect(server, &["SCRIPT", "LOAD", "x y"], uncompiled);
        expect(server, &["EVALSHA", &sha("x y"), "0"], unknown);
        let shebang = "-ERR Unexpected flag in script shebang: all";
        expect(server, &["EVAL", "#!lua flags=all\nreturn 1", "0"], shebang);
    });
}

#[test]
fn scripts_are_loaded_found_and_flushed_for_all_clients() {
    on_one_and_three_shards(|server| {
        let (one, two) = (sha("return 1"), sha("return 2"));
        expect(server, &["SCRIPT", "LOAD", "return 1"], &format!("$40\r\n{one}"));
        expect(server, &["EVAL", "return 2", "0"], ":2");
        expect(server, &["SCRIPT", "EXISTS", &one.to_uppercase(), "x", &two], "*3\r\n:1\r\n:0\r\n:1");
        for home in 0..server.cluster.workers.len() {
            let client = server.cluster.connect(home);
            assert_eq!(server.cluster.call(client, &["EVALSHA", &one, "0"]), ":1\r\n");
            assert_eq!(server.cluster.call(client, &["EVALSHA", &two, "1", "a"]), ":2\r\n");
        }
        let mode = "-ERR SCRIPT FLUSH only support SYNC|ASYNC option";
        expect(server, &["SCRIPT", "FLUSH", "NOW"], mode);
        expect(server, &["SCRIPT", "FLUSH", "SYNC", "ASYNC"], mode);
        expect(server, &["SCRIPT", "FLUSH", "async"], "+OK");
        expect(server, &["SCRIPT", "EXISTS", &one, &two], "*2\r\n:0\r\n:0");
        for home in 0..server.cluster.workers.len() {
            let client = server.cluster.connect(home);
            let reply = server.cluster.call(client, &["EVALSHA", &one, "0"]);
            assert!(reply.starts_with("-NOSCRIPT"), "{reply}");
        }
        expect(server, &["SCRIPT", "DEBUG", "no"], "+OK");
        expect(server, &["SCRIPT", "DEBUG", "yes"], "-ERR This server has no debugger for scripts");
        expect(server, &["SCRIPT", "DEBUG", "maybe"], "-ERR Use SCRIPT DEBUG YES/SYNC/NO");
    });
}

#[test]
fn only_scripts_that_were_not_loaded_are_evicted() {
    let mut server = Server::new(2);
    expect(
        &mut server,
        &["SCRIPT", "LOAD", "return 'loaded'"],
        &format!("$40\r\n{}", sha("return 'loaded'")),
    );
    for n in 0..=EVALED_MAX {
        let (script, key) = (format!("return {n}"), format!("key:{n}"));
        expect(&mut server, &["EVAL", &script, "1", &key], &format!(":{n}"));
    }
    let first = sha("return 0");
    expect(&mut server, &["SCRIPT", "EXISTS", &sha("return 'loaded'"), &first], "*2\r\n:1\r\n:0");
    // The shard that has run it does not run it either.
    let reply = server.call_args(&["EVALSHA", &first, "1", "key:0"]);
    assert!(reply.starts_with("-NOSCRIPT"), "{reply}");
    let stats = server.call("INFO stats");
    assert!(stats.contains("evicted_scripts:1\r\n"), "{stats}");
    let memory = server.call("INFO memory");
    assert!(memory.contains(&format!("number_of_cached_scripts:{}\r\n", EVALED_MAX + 1)), "{memory}");
}

#[test]
fn a_read_only_script_cannot_write() {
    on_one_and_three_shards(|server| {
        let set = "return redis.call('set', KEYS[1], 'x')";
        let refused = |script: &str, line: usize| {
            format!(
                "-ERR Write commands are not allowed from read-only scripts. script: {}, on @user_script:{line}.",
                sha(script)
            )
        };
        expect(server, &["EVAL_RO", set, "1", "a"], &refused(set, 1));
        expect(server, &["EVALSHA_RO", &sha(set), "1", "a"], &refused(set, 1));
        let no_writes = format!("#!lua flags=no-writes\n{set}");
        expect(server, &["EVAL", &no_writes, "1", "a"], &refused(&no_writes, 2));
        let writes = format!("#!lua\n{set}");
        let not_here = "-ERR Can not execute a script with write flag using *_ro command.";
        expect(server, &["EVAL_RO", &writes, "1", "a"], not_here);
        expect(server, &["EVAL", &writes, "1", "a"], "+OK");
        let get = "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])";
        expect(server, &["EVAL_RO", get, "1", "a"], "$1\r\nx");
    });
}

#[test]
fn a_script_with_a_shebang_is_refused_as_a_whole_when_memory_is_full() {
    on_one_and_three_shards(|server| {
        let set = "return redis.call('set', KEYS[1], 'x')";
        server.cluster.workers[0].globals.add_other_memory(1 << 40);
        server.expect(&[("CONFIG SET maxmemory 1", "+OK")]);
        let no_memory = "-OOM command not allowed when used memory > 'maxmemory'.";
        let inside = format!("{no_memory} script: {}, on @user_script:1.", sha(set));
        expect(server, &["EVAL", set, "1", "a"], &inside);
        expect(server, &["EVAL", "#!lua\nreturn 1", "1", "a"], no_memory);
        expect(server, &["EVAL", "#!lua flags=no-writes\nreturn 1", "1", "a"], ":1");
        expect(server, &["EVAL", "return 1", "1", "a"], ":1");
        expect(server, &["EVAL", &format!("#!lua flags=allow-oom\n{set}"), "1", "a"], "+OK");
        // Who has begun to write may go on.
        let goes_on = "redis.call('del', KEYS[1]) return redis.call('set', KEYS[1], 'x')";
        expect(server, &["EVAL", goes_on, "1", "a"], "+OK");
    });
}

#[test]
fn errors_of_scripts_are_counted_once() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a text", "+OK")]);
        let line = |info: String, name: &str| {
            let found = info.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            found.unwrap_or_default()
        };
        let calls = |server: &mut Server, command: &str| {
            let line = line(server.call("INFO commandstats"), &format!("cmdstat_{command}:"));
            let numbers = line.split(['=', ',']).collect::<Vec<_>>();
            let at = |name: &str| {
                let place = numbers.iter().position(|word| word.ends_with(name));
                place.map_or("0".to_owned(), |place| numbers[place + 1].to_owned())
            };
            [at("calls"), at("rejected_calls"), at("failed_calls")].join(" ")
        };
        for (script, command, expected) in [
            ("return redis.call('incr', KEYS[1])", "incr", "1 0 1"),
            ("return redis.call('nosuch', KEYS[1])", "nosuch", "0 0 0"),
            ("return redis.call('get')", "get", "0 1 0"),
            ("error('mine')", "get", "0 1 0"),
            ("return redis.error_reply('mine')", "get", "0 1 0"),
        ] {
            let before = line(server.call("INFO errorstats"), "errorstat_ERR:count=");
            let count = |line: &str| line.rsplit('=').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            let reply = server.call_args(&["EVAL", script, "1", "a"]);
            assert!(reply.starts_with('-'), "{reply}");
            let after = line(server.call("INFO errorstats"), "errorstat_");
            let is_err = if reply.starts_with("-ERR") { 1 } else { 0 };
            assert_eq!(count(&after), count(&before) + is_err, "{script}: {reply}");
            assert_eq!(calls(server, command), expected, "{script}");
        }
        assert_eq!(calls(server, "eval"), "5 0 5");
    });
}

/// The counts of a command, and the errors by code, as `INFO` shows them since the last CONFIG RESETSTAT.
fn counts(server: &mut Server, command: &str) -> String {
    let stats = server.call("INFO commandstats");
    let of_command = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let numbers = of_command.unwrap_or_default().split(',').filter(|field| !field.contains("usec"));
    let errors = server.call("INFO errorstats");
    let errors = errors.lines().filter_map(|line| line.strip_prefix("errorstat_"));
    numbers.chain(errors).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[test]
fn errors_within_a_scripts_reply_are_counted_as_redis_does() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a text", "+OK")]);
        let incr = "redis.pcall('incr', KEYS[1])";
        for (body, expected) in [
            (
                "return {{err='FOO bar'}, {err='noword'}, {err='FOO x'}}",
                "failed_calls=1 ERR:count=1 FOO:count=2",
            ),
            (&format!("return {{{incr}, {incr}}}"), "failed_calls=2 ERR:count=2"),
            (
                &format!("return {{{incr}, {{err='A b'}}, {{err='A c'}}}}"),
                "failed_calls=2 A:count=2 ERR:count=1",
            ),
            (
                &format!("{incr} return {{1, redis.error_reply('MY x')}}"),
                "failed_calls=1 ERR:count=1 MY:count=1",
            ),
            ("return {map={a={err='X y'}}}", "failed_calls=1 X:count=1"),
            ("return {ok={err='X y'}}", "failed_calls=0"),
            ("return {err='noword'}", "failed_calls=1 ERR:count=1"),
        ] {
            server.expect(&[("CONFIG RESETSTAT", "+OK")]);
            server.call_args(&["EVAL", body, "1", "a"]);
            let expected = format!("cmdstat_eval:calls=1 rejected_calls=0 {expected}");
            assert_eq!(counts(server, "eval"), expected, "{body}");
        }
    });
}

#[test]
fn a_script_in_exec_is_one_of_its_commands() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let incr = "redis.call('incr', KEYS[1]) return redis.call('set', KEYS[2], 'x', 'px', '100000000')";
        server.expect(&[("MULTI", "+OK"), ("SET a 1", "+QUEUED")]);
        expect(server, &["EVAL", incr, "2", "a", "b"], "+QUEUED");
        expect(server, &["EVALSHA", "x", "0"], "+QUEUED");
        expect(server, &["SCRIPT", "LOAD", "return 2"], "+QUEUED");
        expect(server, &["EVAL", "x y", "0"], "+QUEUED");
        let reply = format!(
            "*5\r\n+OK\r\n+OK\r\n-NOSCRIPT No matching script. Please use EVAL.\r\n$40\r\n{}\r\n\
             -ERR Error compiling script (new function): user_script:1: '=' expected near 'y'",
            sha("return 2")
        );
        expect(server, &["EXEC"], &reply);
        server.expect(&[("GET a", "$1\r\n2")]);
        // A script that writes nothing leaves nothing.
        expect(server, &["EVAL", "return redis.call('get', KEYS[1])", "1", "a"], "$1\r\n2");
        let read = replica.read(server);
        let read: Vec<&str> = read.iter().map(|line| line.split(" PXAT").next().unwrap_or(line)).collect();
        assert_eq!(read, ["SELECT 0", "MULTI", "SET a 1", "incr a", "SET b x", "EXEC"]);
    });
}
