//! What a module does when it is told of events of keys is of one unit with what has caused them: `told.c`.

use super::{KEYS, compiled, expect};
use crate::harness::{Connection, SETUPS, wait_until};
use crate::rdb::Dir;
use crate::redis::Redis;
use std::fs;
use std::time::Duration;

const AOF: [&str; 8] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--enable-debug-command",
    "yes",
    "--enable-module-command",
    "yes",
];

/// The commands of the append-only file, each on a line, without times.
fn recorded(dir: &Dir) -> String {
    let file = fs::read(dir.0.join("appendonlydir/appendonly.aof.1.incr.aof")).expect("there is one");
    let text = String::from_utf8(file).expect("the tests write text");
    let mut lines = text.split("\r\n");
    let mut commands = String::new();
    while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
        let count: usize = count.parse().expect("a count");
        let words: Vec<&str> = (0..count).filter_map(|_| lines.nth(1)).collect();
        let shown =
            words.iter().map(|word| if word.len() == 13 && word.parse::<u64>().is_ok() { "*" } else { word });
        commands.push_str(&shown.collect::<Vec<_>>().join(" "));
        commands.push('\n');
    }
    commands
}

/// Everything that has modules told of a key, one after the other. Several shards do by themselves what a key that has expired, or is
/// evicted, brings about: it is waited for.
fn do_all(client: &mut Connection) {
    let [a, b, c] = KEYS;
    let run = |client: &mut Connection, args: &[&str]| {
        let reply = client.call(args);
        assert!(!reply.starts_with('-'), "{args:?}: {reply}");
    };
    let wait_for = |client: &mut Connection, field: &str, count: u64| {
        wait_until(field, || client.info("stats", field) == count.to_string());
    };
    run(client, &["CONFIG", "RESETSTAT"]);
    run(client, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    for command in [
        &["SET", a, "1"][..],
        &["MSET", a, "1", b, "2", c, "3"],
        &["DEL", a, b, "nosuchkey"],
        &["SET", a, "1", "EX", "100"],
        &["RENAME", a, b],
        &["COPY", b, c],
        &["SETBIT", a, "1", "1"],
        &["DEL", c],
        &["XGROUP", "CREATE", c, "group", "$", "MKSTREAM"],
        &["RPUSH", "list", "1", "2"],
        &["LMOVE", "list", "other", "LEFT", "RIGHT"],
        &["INCR", "other"],
        &["EVAL", "redis.call('SET', KEYS[1], 1); return redis.call('DEL', KEYS[2])", "2", a, b],
        &["EVAL", "redis.call('SET', 'undeclared', 1); return redis.call('GET', 'undeclared')", "0"],
        &["EVAL", "return redis.call('TOLD.SET', KEYS[1])", "1", b],
        &["TOLD.SET", a],
        &["TOLD.SILENT", b],
        &["TOLD.NOTIFY", c],
        &["MULTI"],
        &["SET", a, "2"],
        &["GET", a],
        &["TOLD.SET", c],
        &["SET", b, "2"],
        &["EXEC"],
    ] {
        let reply = client.call(command);
        assert_eq!(reply.starts_with('-'), command[0] == "INCR", "{command:?}: {reply}");
    }
    // What a write finds expired, it removes.
    run(client, &["SET", a, "1", "PX", "1"]);
    std::thread::sleep(Duration::from_millis(5));
    run(client, &["SET", a, "2"]);
    wait_for(client, "expired_keys", 1);
    // What a read finds expired is removed because of it.
    run(client, &["SET", b, "1", "PX", "1"]);
    std::thread::sleep(Duration::from_millis(5));
    run(client, &["GET", b]);
    wait_for(client, "expired_keys", 2);
    run(client, &["SET", c, "1", "PX", "1"]);
    run(client, &["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
    wait_for(client, "expired_keys", 3);
    run(client, &["SET", c, "1", "EX", "1000"]);
    run(client, &["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", "1"]);
    wait_for(client, "evicted_keys", 1);
    run(client, &["CONFIG", "SET", "maxmemory", "0"]);
    run(client, &["SET", "end", "1"]);
}

#[test]
fn what_a_module_does_when_it_is_told_of_a_key_is_recorded_as_redis_records_it() {
    let path = compiled("told", "recorded");
    let path = path.to_str().expect("a path in UTF-8");
    let mut all = Vec::new();
    let dir = Dir::new("told-redis");
    let options = [&AOF[..], &["--loadmodule", path]].concat();
    if let Some(redis) = Redis::start_in(&dir, crate::harness::free_port(), &options) {
        do_all(&mut redis.connect());
        // Redis takes the read that has found a key expired for a write: the module's changes are counted within it.
        all.push(("redis".to_string(), recorded(&dir).replace("GET key1\n", "")));
    }
    for setup in SETUPS {
        let dir = Dir::new("told");
        let server = dir.start(setup, &options);
        do_all(&mut server.connect());
        all.push((format!("{setup:?}"), recorded(&dir)));
    }
    let (first, expected) = &all[0];
    assert!(
        expected.contains("MULTI\nINCR counted\nINCR count:set\nSET key0 1\nEXEC\n"),
        "{first}: {expected}"
    );
    for (name, commands) in &all {
        assert_eq!(commands, expected, "{name}");
    }
}

/// The reply comes when the modules have been told, and the command is counted once.
#[test]
fn a_command_that_tells_modules_replies_behind_them_and_counts_as_one() {
    let path = compiled("told", "counted");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("told-counted");
        let server = dir.start(setup, &[&AOF[..], &["--loadmodule", path]].concat());
        let [mut client, mut other] = [server.connect(), server.connect()];
        client.call(&["CONFIG", "RESETSTAT"]);
        for at in 1..=20 {
            expect(&mut client, &["SET", &format!("key{at}"), "1"], "+OK\r\n");
            let text = at.to_string();
            expect(&mut other, &["GET", "count:set"], &format!("${}\r\n{text}\r\n", text.len()));
        }
        let calls = client.info("commandstats", "cmdstat_set");
        assert!(calls.starts_with("calls=20,"), "{setup:?}: {calls}");
        expect(&mut client, &["SET", "count:set", "1", "NX"], "$-1\r\n");
        expect(
            &mut client,
            &["LPUSH", "count:set", "1"],
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        );
        let calls = client.info("commandstats", "cmdstat_lpush");
        assert!(calls.starts_with("calls=1,") && calls.trim_end().ends_with("failed_calls=1"), "{calls}");
        assert_eq!(client.info("errorstats", "errorstat_WRONGTYPE").trim(), "count=1");

        // Everything is as before when nobody wants to be told any more.
        expect(&mut client, &["MODULE", "UNLOAD", "told"], "+OK\r\n");
        expect(&mut client, &["SET", "plain", "1"], "+OK\r\n");
        assert!(client.info("commandstats", "cmdstat_set").starts_with("calls=22,"), "{setup:?}");
        expect(&mut client, &["MODULE", "LOAD", path, "later"], "+OK\r\n");
        expect(&mut client, &["SET", "plain", "2"], "+OK\r\n");
        expect(&mut client, &["TOLD.LISTEN"], ":0\r\n");
        expect(&mut client, &["SET", "told", "1"], "+OK\r\n");
        let commands = recorded(&dir);
        let end = "SET plain 1\nSET plain 2\nMULTI\nINCR count:set\nSET told 1\nEXEC\n";
        assert!(commands.ends_with(end), "{setup:?}: {commands}");
        assert!(client.info("commandstats", "cmdstat_set").starts_with("calls=24,"), "{setup:?}");
    }
}

/// Keys of which more expire at a time than a program removes, and keys that many shards evict.
#[test]
fn many_keys_expire_and_are_evicted_while_modules_are_told() {
    const COUNT: usize = 2000;
    let path = compiled("told", "many");
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("told-many");
        let server = dir.start(setup, &["--loadmodule", path]);
        let mut client = server.connect();
        let set = |client: &mut Connection, ttl_ms: &str| {
            let script = "for n = 1, 2000 do redis.call('SET', 'volatile:' .. n, n, 'PX', ARGV[1]) end";
            assert_eq!(client.call(&["EVAL", script, "0", ttl_ms]), "$-1\r\n");
        };
        let count = |client: &mut Connection, event: &str| client.call(&["GET", &format!("count:{event}")]);
        set(&mut client, "1");
        wait_until("all have expired", || client.info("stats", "expired_keys") == COUNT.to_string());
        wait_until("it is told", || count(&mut client, "expired") == "$4\r\n2000\r\n");
        set(&mut client, "1000000");
        client.call(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", "1"]);
        wait_until("all were evicted", || client.info("stats", "evicted_keys") == COUNT.to_string());
        wait_until("it is told", || count(&mut client, "evicted") == "$4\r\n2000\r\n");
        let mut left: Vec<String> = client.call(&["KEYS", "*"]).lines().map(str::to_string).collect();
        left.retain(|line| line.starts_with("volatile:"));
        assert!(left.is_empty(), "{setup:?}: {left:?}");
    }
}
