//! This server as a replica, of real Redis and of its own kind: it has its master's data, in its master's order.

use crate::harness::{Connection, Server, Setup, StopOnDrop, wait_until};
use crate::random::Random;
use crate::rdb::{Dir, fill};
use crate::redis::Redis;
use crate::replication::{FOUR, ONE, TWO, is_up, wait_until_alike, write_at_random};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Any server.
pub enum Node {
    Ours { server: Server, _dir: Dir },
    Redis(Redis),
}

impl Node {
    pub fn ours(name: &str, setup: Setup) -> Node {
        Node::ours_with(name, setup, &[])
    }

    pub fn ours_with(name: &str, setup: Setup, extra: &[&str]) -> Node {
        let dir = Dir::new(&format!("link-{name}-{}", setup.shards));
        let options = [&["--repl-diskless-sync-delay", "0"], extra].concat();
        Node::Ours { server: dir.start(setup, &options), _dir: dir }
    }

    pub fn redis(name: &str) -> Option<Node> {
        Redis::start(&format!("link-{name}"), &["--repl-diskless-sync-delay", "0"]).map(Node::Redis)
    }

    pub fn port(&self) -> u16 {
        match self {
            Node::Ours { server, .. } => server.port,
            Node::Redis(redis) => redis.port,
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.port())
    }

    pub fn signal(&self, signal: i32) {
        match self {
            Node::Ours { server, .. } => server.signal(signal),
            Node::Redis(redis) => redis.signal(signal),
        }
    }

    pub fn follow(&self, master: &Node) {
        let reply = self.connect().call(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
        assert_eq!(reply, "+OK\r\n");
    }
}

/// Writes go on while the replica is synchronized, and while its link is cut, time and again.
fn follows(master: &Node, replica: &Node, what: &str) {
    let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
    fill(&mut at_master);
    // What is written while the link is cut is there however long that takes.
    at_master.call(&["CONFIG", "SET", "repl-backlog-size", "100mb"]);
    at_replica.call(&["SET", "of the replica", "gone when it has its master's data"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        for seed in 1..4 {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut client = master.connect();
                write_at_random(&mut client, seed, &|_| !is_over.load(Ordering::Relaxed));
            });
        }
        replica.follow(master);
        wait_until("the link is up", || is_up(&mut at_replica));
        for round in 1..4 {
            let count = || format!("{round}");
            at_master.call(&["CLIENT", "KILL", "TYPE", "replica"]);
            wait_until("it goes on", || at_master.info("stats", "sync_partial_ok") == count());
            let mut client = master.connect();
            write_at_random(&mut client, 10 + round, &|n| n < 200);
        }
    });
    wait_until_alike(&mut at_master, &mut at_replica, what);
    assert_eq!(at_master.info("stats", "sync_full"), "1", "{what}");
    assert_eq!(at_replica.call(&["EXISTS", "of the replica"]), ":0\r\n", "{what}");
    assert_eq!(
        at_replica.call(&["SET", "a", "1"]),
        "-READONLY You can't write against a read only replica.\r\n",
        "{what}"
    );
}

#[test]
fn it_follows_redis() {
    for setup in [ONE, FOUR] {
        let Some(master) = Node::redis("follows") else { return };
        follows(&master, &Node::ours("of-redis", setup), &format!("{setup:?}"));
    }
}

#[test]
fn it_follows_its_own_kind() {
    for (master, replica) in [(ONE, FOUR), (FOUR, TWO)] {
        let what = format!("{replica:?} follows {master:?}");
        follows(&Node::ours("master", master), &Node::ours("replica", replica), &what);
    }
}

/// Replicas of a replica have the stream of the first master.
#[test]
fn a_chain_of_replicas_has_the_same_data() {
    for setup in [ONE, FOUR] {
        let (Some(first), Some(last)) = (Node::redis("first"), Node::redis("last")) else { return };
        let middle = Node::ours("middle", setup);
        let mut master = first.connect();
        fill(&mut master);
        middle.follow(&first);
        wait_until("the link is up", || is_up(&mut middle.connect()));
        last.follow(&middle);
        write_at_random(&mut master, 5, &|n| n < 500);
        for replica in [&middle, &last] {
            wait_until_alike(&mut master, &mut replica.connect(), &format!("{setup:?}"));
        }
        let id = |node: &Node| node.connect().info("replication", "master_replid");
        assert_eq!((id(&middle), id(&last)), (id(&first), id(&first)), "{setup:?}");
    }
}

#[test]
fn hello_says_whether_the_server_is_a_replica() {
    let role = |client: &mut Connection| {
        let hello = client.call(&["HELLO", "2"]);
        hello.split("\r\n").skip_while(|word| *word != "role").nth(2).map(str::to_owned)
    };
    for setup in [ONE, FOUR] {
        let (first, second) = (Node::ours("hello-master", setup), Node::ours("hello-replica", setup));
        let (mut master, mut replica) = (first.connect(), second.connect());
        assert_eq!(role(&mut replica).as_deref(), Some("master"));
        second.follow(&first);
        assert_eq!(role(&mut replica).as_deref(), Some("replica"), "{setup:?}");
        assert_eq!(role(&mut master).as_deref(), Some("master"));
        assert_eq!(replica.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        assert_eq!(role(&mut replica).as_deref(), Some("master"));
    }
}

/// By both sides.
#[test]
fn what_goes_over_the_link_is_counted_as_bytes_of_replication() {
    const LEN: usize = 300_000;
    let figure = |client: &mut Connection, name: &str| -> usize {
        client.info("stats", &format!("total_net_{name}_bytes")).parse().expect("a number")
    };
    for setup in [ONE, FOUR] {
        let (first, second) = (Node::ours("master", setup), Node::ours("replica", setup));
        let (mut master, mut replica) = (first.connect(), second.connect());
        second.follow(&first);
        wait_until("the link is up", || is_up(&mut replica));
        for client in [&mut master, &mut replica] {
            assert_eq!(client.call(&["CONFIG", "RESETSTAT"]), "+OK\r\n");
        }
        assert_eq!(master.call(&["SET", "key", &"x".repeat(LEN)]), "+OK\r\n");
        wait_until_alike(&mut master, &mut replica, &format!("{setup:?}"));
        wait_until("it is counted", || figure(&mut master, "repl_output") >= LEN);
        for (of_master, name) in [(true, "repl_output"), (false, "repl_input"), (false, "input")] {
            let client = if of_master { &mut master } else { &mut replica };
            // That the replica runs it is counted nowhere.
            let bytes = figure(client, name);
            assert!((LEN..2 * LEN).contains(&bytes), "{setup:?}, {name}: {bytes}");
        }
        assert!(figure(&mut master, "output") >= LEN);
        assert_eq!((figure(&mut master, "repl_input"), figure(&mut replica, "repl_output")), (0, 0));
        for (name, of_master) in
            [("instantaneous_output_repl_kbps", true), ("instantaneous_input_repl_kbps", false)]
        {
            wait_until(name, || {
                master.call(&["SET", "key", &"x".repeat(LEN)]);
                let client = if of_master { &mut master } else { &mut replica };
                client.info("stats", name) != "0.00"
            });
        }
    }
}

/// After a promotion the other replica goes on with the new master, without a full synchronization, and so does the old master.
#[test]
fn a_replica_that_is_promoted_continues_the_history() {
    for setup in [ONE, FOUR] {
        let Some(old) = Node::redis("old") else { return };
        let (Some(other), promoted) = (Node::redis("other"), Node::ours("promoted", setup)) else { return };
        let mut master = old.connect();
        fill(&mut master);
        for replica in [&other, &promoted] {
            replica.follow(&old);
            wait_until("the link is up", || is_up(&mut replica.connect()));
        }
        write_at_random(&mut master, 3, &|n| n < 300);
        wait_until_alike(&mut master, &mut promoted.connect(), &format!("{setup:?}"));
        wait_until_alike(&mut master, &mut other.connect(), &format!("{setup:?}"));
        let id = master.info("replication", "master_replid");

        let mut new = promoted.connect();
        assert_eq!(new.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        assert_eq!(new.call(&["SET", "written", "at once"]), "+OK\r\n", "{setup:?}");
        assert_eq!(new.info("replication", "role"), "master");
        assert_eq!(new.info("replication", "master_replid2"), id, "{setup:?}");
        for replica in [&other, &old] {
            replica.follow(&promoted);
        }
        write_at_random(&mut new, 4, &|n| n < 300);
        for replica in [&other, &old] {
            wait_until_alike(&mut new, &mut replica.connect(), &format!("{setup:?}"));
        }
        assert_eq!(new.info("stats", "sync_full"), "0", "{setup:?}");
        assert_eq!(new.info("stats", "sync_partial_ok"), "2", "{setup:?}");
    }
}

/// What is written later is never seen before what was written earlier, whichever shards and connections look.
#[test]
fn every_read_of_a_replica_sees_a_prefix_of_the_masters_order() {
    let master = Node::ours("order-master", TWO);
    let replica = Node::ours("order-replica", FOUR);
    replica.follow(&master);
    wait_until("the link is up", || is_up(&mut replica.connect()));
    let keys: Vec<String> = (0..8).map(|n| format!("key:{n}")).collect();
    let is_over = AtomicBool::new(false);
    let looked = thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        let (keys, is_over) = (&keys, &is_over);
        scope.spawn(move || {
            let mut client = Connection::to(master.port());
            for n in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let value = n.to_string();
                // One after the other: requests of a pipeline to different shards have no order.
                for key in keys {
                    assert_eq!(client.call(&["SET", key, &value]), "+OK\r\n");
                }
            }
        });
        let mut connections: Vec<Connection> = (0..6).map(|_| replica.connect()).collect();
        let mut random = Random::new(1);
        let mut looked = 0;
        let mut number = |random: &mut Random, key: &str| {
            let at = random.below(connections.len());
            let reply = connections[at].call(&["GET", key]);
            reply.lines().nth(1).map_or(0, |text| text.parse::<u64>().expect("a number"))
        };
        for _ in 0..4_000 {
            let later = 1 + random.below(keys.len() - 1);
            let earlier = random.below(later);
            let seen = number(&mut random, &keys[later]);
            let before = number(&mut random, &keys[earlier]);
            assert!(before >= seen, "{} of {} and then {before} of {}", seen, keys[later], keys[earlier]);
            looked += u64::from(before > seen);
        }
        looked
    });
    assert!(looked > 100, "the writes go on meanwhile: {looked}");
}

#[test]
fn a_replica_without_a_master_says_so_if_it_is_to() {
    for setup in [ONE, FOUR] {
        let replica = Node::ours_with("stale", setup, &["--replica-serve-stale-data", "no"]);
        let mut client = replica.connect();
        let port = crate::harness::free_port().to_string();
        assert_eq!(client.call(&["SET", "a", "1"]), "+OK\r\n");
        assert_eq!(client.call(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
        let down = "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n";
        assert_eq!(client.call(&["GET", "a"]), down, "{setup:?}");
        let role = client.call(&["ROLE"]);
        assert!(role.starts_with("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n"), "{role}");
        assert_eq!(client.call(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]), "+OK\r\n");
        assert_eq!(client.call(&["GET", "a"]), "$1\r\n1\r\n", "the old data is served");
        assert_eq!(client.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        assert_eq!(client.call(&["SET", "a", "2"]), "+OK\r\n");
        assert_eq!(client.call(&["GET", "a"]), "$1\r\n2\r\n", "{setup:?}");
    }
}

#[test]
fn replicas_of_a_master_that_starts_again_go_on_where_they_were() {
    for setup in [ONE, FOUR] {
        let dir = Dir::new(&format!("link-restart-{}", setup.shards));
        let options = ["--repl-diskless-sync-delay", "0", "--dir", dir.path()];
        let mut server = Server::start_with(setup, &options);
        let Some(redis) = Redis::start("link-restart", &[]) else { return };
        let (mut master, mut replica) = (server.connect(), redis.connect());
        fill(&mut master);
        replica.call(&["REPLICAOF", "127.0.0.1", &server.port.to_string()]);
        wait_until("the link is up", || is_up(&mut replica));
        write_at_random(&mut master, 6, &|n| n < 300);
        wait_until_alike(&mut master, &mut replica, &format!("{setup:?}"));
        let port = server.port;
        master.send(b"SHUTDOWN SAVE\r\n");
        assert_eq!(server.wait(), Some(0), "{setup:?}");

        let mut server = Server::spawn(setup, port, &options);
        server.wait_for_line("Ready to accept");
        let mut master = server.connect();
        wait_until("it is back", || master.info("stats", "sync_partial_ok") == "1");
        write_at_random(&mut master, 7, &|n| n < 300);
        wait_until_alike(&mut master, &mut replica, &format!("{setup:?}"));
        assert_eq!(master.info("stats", "sync_full"), "0", "{setup:?}");
    }
}

/// What is queued, and what scripts call, is judged by what the server is when it runs.
#[test]
fn a_stale_replica_runs_only_what_may_be_stale_in_transactions_and_scripts_too() {
    let down = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    for setup in [ONE, FOUR] {
        let replica = Node::ours_with("stale-exec", setup, &["--replica-serve-stale-data", "no"]);
        let (mut client, mut other) = (replica.connect(), replica.connect());
        let port = crate::harness::free_port().to_string();
        for (queued, refused) in [(&["GET", "x"][..], true), (&["PING"], true), (&["INFO", "server"], false)]
        {
            assert_eq!(client.call(&["MULTI"]), "+OK\r\n");
            assert_eq!(client.call(queued), "+QUEUED\r\n");
            assert_eq!(other.call(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
            let expected = format!("-EXECABORT Transaction discarded because of: {down}\r\n");
            let reply = client.call(&["EXEC"]);
            assert_eq!(reply == expected, refused, "{setup:?} {queued:?}: {reply}");
            assert_eq!(other.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        }
        assert_eq!(other.call(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
        let reads = "#!lua flags=allow-stale,no-writes\nreturn redis.call('get', 'x')";
        let reply = client.call(&["EVAL", reads, "1", "x"]);
        assert!(
            reply.starts_with("-ERR Can not execute the command on a stale replica"),
            "{setup:?}: {reply}"
        );
        let echoes = "#!lua flags=allow-stale,no-writes\nreturn redis.call('echo', 'heard')";
        assert_eq!(client.call(&["EVAL", echoes, "0"]), "$5\r\nheard\r\n", "{setup:?}");
        assert_eq!(client.call(&["EVAL", "return 1", "0"]), format!("-{down}\r\n"), "{setup:?}");
    }
}

#[test]
fn a_paused_replica_receives_the_stream_and_applies_it_later() {
    for setup in [ONE, FOUR] {
        let master = Node::ours_with("pauses", setup, &["--repl-ping-replica-period", "3600"]);
        let replica = Node::ours("paused", setup);
        replica.follow(&master);
        let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
        wait_until("the link is up", || is_up(&mut at_replica));
        assert_eq!(at_master.call(&["SET", "a", "1"]), "+OK\r\n");
        assert_eq!(at_master.call(&["WAIT", "1", "0"]), ":1\r\n");
        let applied = |client: &mut Connection| client.info("replication", "slave_repl_offset");
        let before = applied(&mut at_replica);
        assert_eq!(at_replica.call(&["CLIENT", "PAUSE", "100000", "WRITE"]), "+OK\r\n");
        assert_eq!(at_master.call(&["SET", "a", "2"]), "+OK\r\n");
        let written = at_master.info("replication", "master_repl_offset");
        wait_until("it is received", || at_replica.info("replication", "slave_read_repl_offset") == written);
        assert_eq!(applied(&mut at_replica), before, "{setup:?}");
        assert_eq!(at_replica.call(&["GET", "a"]), "$1\r\n1\r\n", "{setup:?}");
        // A promotion does not wait for the end of the pause, and has what was received.
        let ends: &[&str] =
            if setup.shards == 1 { &["CLIENT", "UNPAUSE"] } else { &["REPLICAOF", "NO", "ONE"] };
        assert_eq!(at_replica.call(ends), "+OK\r\n");
        wait_until("it is applied", || at_replica.call(&["GET", "a"]) == "$1\r\n2\r\n");
    }
}

/// Also an append-only file from before it was one.
#[test]
fn a_replica_loads_its_append_only_file_with_the_scripts_in_it() {
    for setup in [ONE, FOUR] {
        let dir = Dir::new(&format!("link-aof-{}", setup.shards));
        let path = std::path::Path::new(dir.path()).join("appendonlydir");
        std::fs::create_dir_all(&path).expect("it can be made");
        let script = |text: &str| crate::harness::encode(&[b"EVAL", text.as_bytes(), b"1", b"foo"]);
        let set = script("redis.call('set', KEYS[1], '100')");
        let file = [set, script("redis.call('incr', KEYS[1])").repeat(2)].concat();
        std::fs::write(path.join("appendonly.aof.1.incr.aof"), file).expect("it can be written");
        let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
        std::fs::write(path.join("appendonly.aof.manifest"), manifest).expect("it can be written");
        let port = crate::harness::free_port().to_string();
        let options = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
        let server = dir.start(setup, &[&options[..], &["--enable-debug-command", "yes"]].concat());
        let mut client = server.connect();
        assert_eq!(client.call(&["GET", "foo"]), "$3\r\n102\r\n", "{setup:?}");
        assert_eq!(client.call(&["DEBUG", "LOADAOF"]), "+OK\r\n", "{setup:?}");
        assert_eq!(client.call(&["GET", "foo"]), "$3\r\n102\r\n", "{setup:?}");
        assert!(
            client.call(&["EVAL", "redis.call('set', KEYS[1], '1')", "1", "foo"]).starts_with("-READONLY")
        );
    }
}

/// What ran for a master, or out of an append-only file, took the year 1970 for the present, because no key has expired to it:
/// the replica said that entries had been delivered then, and every consumer could claim them from all others.
#[test]
fn a_replica_says_when_entries_were_delivered() {
    for setup in [ONE, FOUR] {
        let Some(master) = Node::redis("deliveries") else { return };
        let replica = Node::ours("deliveries-replica", setup);
        let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
        replica.follow(&master);
        wait_until("the link is up", || is_up(&mut at_replica));
        at_master.call(&["XADD", "x", "1-1", "field", "value"]);
        at_master.call(&["XGROUP", "CREATE", "x", "group", "0"]);
        at_master.call(&["XREADGROUP", "GROUP", "group", "reader", "STREAMS", "x", ">"]);
        wait_until_alike(&mut at_master, &mut at_replica, "deliveries");
        let pending = ["XPENDING", "x", "group", "IDLE", "600000", "-", "+", "10"];
        assert_eq!(at_replica.call(&pending), "*0\r\n", "{setup:?}");
        assert!(at_replica.call(&["XPENDING", "x", "group"]).starts_with("*4\r\n:1\r\n"), "{setup:?}");
    }
}

/// Time goes on for what is loaded, too: a time to live that counts from now on ends in the future.
#[test]
fn an_append_only_file_may_say_from_now_on() {
    for setup in [ONE, FOUR] {
        let dir = Dir::new(&format!("from-now-on-{}", setup.shards));
        let path = std::path::Path::new(dir.path()).join("appendonlydir");
        std::fs::create_dir_all(&path).expect("it can be made");
        let words: [&[&str]; 4] = [
            &["SET", "a", "1", "EX", "1000"],
            &["SET", "b", "1"],
            &["EXPIRE", "b", "1000"],
            &["EVAL", "redis.call('SETEX', KEYS[1], '1000', '1')", "1", "c"],
        ];
        let encoded = |words: &&[&str]| {
            crate::harness::encode(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
        };
        let file: Vec<u8> = words.iter().flat_map(encoded).collect();
        std::fs::write(path.join("appendonly.aof.1.incr.aof"), file).expect("it can be written");
        let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
        std::fs::write(path.join("appendonly.aof.manifest"), manifest).expect("it can be written");
        let server = dir.start(setup, &["--appendonly", "yes"]);
        let mut client = server.connect();
        assert_eq!(client.call(&["EXISTS", "a", "b", "c"]), ":3\r\n", "{setup:?}");
    }
}

#[test]
fn the_kernel_is_told_how_willingly_a_replica_may_be_killed() {
    let server =
        Server::start_with(ONE, &["--oom-score-adj", "relative", "--oom-score-adj-values", "10", "20", "30"]);
    let score = || -> i32 {
        let text =
            std::fs::read_to_string(format!("/proc/{}/oom_score_adj", server.pid())).expect("it is there");
        text.trim().parse().expect("a number")
    };
    let mut client = server.connect();
    let as_master = score();
    let port = crate::harness::free_port().to_string();
    assert_eq!(client.call(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
    assert_eq!(score(), as_master + 10);
    assert_eq!(client.call(&["CONFIG", "SET", "oom-score-adj-values", "10 25 30"]), "+OK\r\n");
    assert_eq!(score(), as_master + 15);
    assert_eq!(client.call(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
    assert_eq!(score(), as_master);
}

/// Orders come faster than they are carried out: whoever has asked for no master gets its reply all the same.
#[test]
fn everybody_who_makes_it_a_master_gets_a_reply_also_when_another_order_comes_first() {
    for setup in [ONE, FOUR] {
        let (master, replica) = (Node::ours("ordered", ONE), Node::ours("orders", setup));
        let port = master.port().to_string();
        let mut clients: Vec<Connection> = (0..8).map(|_| replica.connect()).collect();
        for _ in 0..10 {
            for (n, client) in clients.iter_mut().enumerate() {
                match n % 2 {
                    0 => client.send(format!("REPLICAOF 127.0.0.1 {port}\r\n").as_bytes()),
                    _ => client.send(b"REPLICAOF NO ONE\r\n"),
                }
            }
            for client in &mut clients {
                let reply = client.reply();
                assert!(reply.starts_with(b"+OK"), "{setup:?}: {}", reply.escape_ascii());
            }
        }
    }
}

/// Full as its memory is, a replica has what its master has, unless it is told to look after itself.
#[test]
fn a_replica_leaves_it_to_its_master_what_is_evicted() {
    for setup in [ONE, FOUR] {
        let master = Node::ours("evict-master", setup);
        let mut at_master = master.connect();
        for n in 0..500 {
            at_master.call(&["SET", &format!("key:{n}"), &"x".repeat(1000)]);
        }
        for ignores in ["yes", "no"] {
            let limits = ["--maxmemory-policy", "allkeys-lru", "--replica-ignore-maxmemory", ignores];
            let replica = Node::ours_with(&format!("evict-{ignores}"), setup, &limits);
            let mut at_replica = replica.connect();
            replica.follow(&master);
            wait_until("it is up", || is_up(&mut at_replica));
            // Commands make room before they run.
            at_replica.call(&["CONFIG", "SET", "maxmemory", "1"]);
            (0..10).for_each(|_| drop(at_replica.call(&["GET", "key:1"])));
            let is_smaller = |client: &mut Connection| client.call(&["DBSIZE"]) != ":500\r\n";
            match ignores {
                "yes" => assert!(!is_smaller(&mut at_replica), "{setup:?}"),
                _ => wait_until("it evicts", || is_smaller(&mut at_replica)),
            }
        }
    }
}

/// Where nothing is persistent, no file is left of a synchronization by way of the disk.
#[test]
fn files_of_synchronizations_are_removed_if_they_are_to_be() {
    for setup in [ONE, FOUR] {
        for removes in ["yes", "no"] {
            let options = [
                "--repl-diskless-sync",
                "no",
                "--rdb-del-sync-files",
                removes,
                "--save",
                "",
                "--appendonly",
                "no",
            ];
            let master = Node::ours_with(&format!("sync-files-master-{removes}"), setup, &options);
            let replica = Node::ours_with(&format!("sync-files-{removes}"), setup, &options);
            master.connect().call(&["SET", "key", "value"]);
            replica.follow(&master);
            let mut at_replica = replica.connect();
            wait_until("it is up", || is_up(&mut at_replica));
            assert_eq!(at_replica.call(&["GET", "key"]), "$5\r\nvalue\r\n");
            for node in [&master, &replica] {
                let Node::Ours { _dir: dir, .. } = node else { unreachable!("both are ours") };
                let file = std::path::Path::new(dir.path()).join("dump.rdb");
                wait_until("the file is there or not", || file.exists() == (removes == "no"));
            }
        }
    }
}
