//! A master ends, or hands its part over to a replica: nothing that it has told a client is lost.

use crate::harness::{Connection, Server, Setup, wait_until};
use crate::link::Node;
use crate::rdb::Dir;
use crate::replication::{FOUR, ONE, TWO, is_up, wait_until_alike, write_at_random};

fn failover_state(client: &mut Connection) -> String {
    client.info("replication", "master_failover_state")
}

/// Hands over from `master` to `replica`, and back.
fn hands_over(master: &Node, replica: &Node, what: &str) {
    let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
    replica.follow(master);
    wait_until("the link is up", || is_up(&mut at_replica));
    write_at_random(&mut at_master, 3, &|n| n < 200);
    // A write that comes during the failover waits for its end.
    let mut late = master.connect();
    let target = replica.port().to_string();
    assert_eq!(at_master.call(&["FAILOVER", "TO", "127.0.0.1", &target]), "+OK\r\n", "{what}");
    late.send(b"SET late 1\r\n");
    wait_until("it is over", || failover_state(&mut at_master) == "no-failover");
    assert_eq!(at_replica.info("replication", "role"), "master", "{what}");
    assert_eq!(late.reply(), b"-READONLY You can't write against a read only replica.\r\n", "{what}");
    write_at_random(&mut at_replica, 4, &|n| n < 200);
    wait_until_alike(&mut at_replica, &mut at_master, what);
    assert_eq!(at_replica.info("stats", "sync_partial_ok"), "1", "{what}");

    assert_eq!(at_replica.call(&["FAILOVER"]), "+OK\r\n", "{what}");
    wait_until("it is over", || failover_state(&mut at_replica) == "no-failover");
    wait_until_alike(&mut at_master, &mut at_replica, what);
    assert_eq!(at_master.info("replication", "role"), "master", "{what}");
    assert_eq!(at_master.info("stats", "sync_full"), "1", "{what}: only the first one");
}

#[test]
fn failover_hands_the_part_of_the_master_over() {
    for (old, new) in [(ONE, TWO), (FOUR, ONE), (TWO, FOUR)] {
        let what = format!("{old:?} to {new:?}");
        hands_over(&Node::ours("old", old), &Node::ours("new", new), &what);
    }
}

#[test]
fn failover_works_with_redis_on_either_side() {
    let (Some(first), Some(second)) = (Node::redis("failover-a"), Node::redis("failover-b")) else { return };
    hands_over(&first, &Node::ours("of-redis", FOUR), "from Redis");
    hands_over(&Node::ours("to-redis", TWO), &second, "to Redis");
}

#[test]
fn a_failover_that_is_given_up_leaves_the_master_as_it_was() {
    for setup in [ONE, FOUR] {
        let (master, replica) = (Node::ours("given-up", setup), Node::ours("given-up-replica", TWO));
        let (mut at_master, mut at_replica) = (master.connect(), replica.connect());
        replica.follow(&master);
        wait_until("the link is up", || is_up(&mut at_replica));
        let target = replica.port().to_string();
        assert_eq!(
            at_replica.call(&["FAILOVER"]),
            "-ERR FAILOVER is not valid when server is a replica.\r\n"
        );
        assert_eq!(
            at_master.call(&["FAILOVER", "TO", "127.0.0.1", "1"]),
            "-ERR FAILOVER target HOST and PORT is not a replica.\r\n"
        );
        assert_eq!(at_master.call(&["FAILOVER", "ABORT"]), "-ERR No failover in progress.\r\n");

        // The replica does not answer any more, so it never has all of the stream.
        let Node::Ours { server, .. } = &replica else { unreachable!("it is ours") };
        server.signal(libc::SIGSTOP);
        assert_eq!(at_master.call(&["SET", "a", "1"]), "+OK\r\n");
        assert_eq!(at_master.call(&["FAILOVER", "TO", "127.0.0.1", &target]), "+OK\r\n");
        assert_eq!(failover_state(&mut at_master), "waiting-for-sync");
        let busy = "-ERR FAILOVER already in progress.\r\n";
        assert_eq!(at_master.call(&["FAILOVER"]), busy);
        let mut waiting = master.connect();
        waiting.send(b"SET a 2\r\n");
        wait_until("it waits", || at_master.info("clients", "blocked_clients") == "1");
        assert_eq!(at_master.call(&["GET", "a"]), "$1\r\n1\r\n", "reads go on");
        assert_eq!(at_master.call(&["FAILOVER", "ABORT"]), "+OK\r\n");
        assert_eq!(waiting.reply(), b"+OK\r\n", "{setup:?}");
        assert_eq!(at_master.call(&["FAILOVER", "TIMEOUT", "10"]), "+OK\r\n");
        wait_until("its time is over", || failover_state(&mut at_master) == "no-failover");
        server.signal(libc::SIGCONT);

        // It refuses the part.
        assert_eq!(at_replica.call(&["ACL", "SETUSER", "default", "-psync"]), "+OK\r\n");
        assert_eq!(at_master.call(&["FAILOVER", "TO", "127.0.0.1", &target]), "+OK\r\n");
        wait_until("it is over", || failover_state(&mut at_master) == "no-failover");
        assert_eq!(at_master.info("replication", "role"), "master", "{setup:?}");
        assert_eq!(at_master.call(&["SET", "a", "3"]), "+OK\r\n");
        assert_eq!(at_replica.call(&["ACL", "SETUSER", "default", "+psync"]), "+OK\r\n");
        wait_until_alike(&mut at_master, &mut at_replica, &format!("{setup:?}"));
        assert_eq!(at_master.info("stats", "sync_full"), "1", "{setup:?}");
    }
}

/// A master with a replica that is stopped, and a write that it does not have.
fn with_a_replica_behind(setup: Setup, extra: &[&str]) -> (Server, Dir, Node) {
    let dir = Dir::new(&format!("behind-{}", setup.shards));
    let master = dir.start(setup, &[&["--repl-diskless-sync-delay", "0"], extra].concat());
    let replica = Node::ours("behind", ONE);
    let mut client = replica.connect();
    client.call(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    wait_until("the link is up", || is_up(&mut client));
    let Node::Ours { server, .. } = &replica else { unreachable!("it is ours") };
    server.signal(libc::SIGSTOP);
    assert_eq!(master.connect().call(&["SET", "last", "1"]), "+OK\r\n");
    (master, dir, replica)
}

fn go_on(replica: &Node) {
    let Node::Ours { server, .. } = replica else { unreachable!("it is ours") };
    server.signal(libc::SIGCONT);
}

#[test]
fn shutdown_waits_until_the_replicas_have_all_of_the_stream() {
    for (setup, by_signal) in [(ONE, true), (FOUR, false), (FOUR, true)] {
        let (mut master, _dir, replica) = with_a_replica_behind(setup, &["--shutdown-timeout", "100"]);
        let mut client = master.connect();
        match by_signal {
            true => master.signal(libc::SIGTERM),
            false => client.send(b"SHUTDOWN\r\n"),
        }
        let mut other = master.connect();
        wait_until("it waits", || other.call(&["INFO", "server"]).contains("shutdown_in_milliseconds:"));
        assert_eq!(other.call(&["GET", "last"]), "$1\r\n1\r\n", "reads go on");
        go_on(&replica);
        master.wait_for_line("1 of 1 replicas are in sync when shutting down.");
        assert_eq!(master.wait(), Some(0), "{setup:?}");
        let mut at_replica = replica.connect();
        wait_until("the replica has the last write", || at_replica.call(&["GET", "last"]) == "$1\r\n1\r\n");
    }
}

#[test]
fn shutdown_waits_no_longer_than_it_may_and_can_be_aborted() {
    for setup in [ONE, FOUR] {
        let (mut master, _dir, _replica) = with_a_replica_behind(setup, &["--shutdown-timeout", "100"]);
        let (mut first, mut second, mut other) = (master.connect(), master.connect(), master.connect());
        assert_eq!(other.call(&["SHUTDOWN", "ABORT"]), "-ERR No shutdown in progress.\r\n");
        first.send(b"SHUTDOWN\r\n");
        second.send(b"SHUTDOWN\r\n");
        wait_until("both wait", || other.info("clients", "blocked_clients") == "2");
        assert_eq!(other.call(&["SHUTDOWN", "ABORT"]), "+OK\r\n");
        for client in [&mut first, &mut second] {
            assert_eq!(client.reply(), b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n", "{setup:?}");
        }
        assert_eq!(other.call(&["SET", "after", "1"]), "+OK\r\n", "writes go on");
        assert_eq!(other.call(&["CONFIG", "SET", "shutdown-timeout", "1"]), "+OK\r\n");
        first.send(b"SHUTDOWN\r\n");
        master.wait_for_line("0 of 1 replicas are in sync when shutting down.");
        assert_eq!(master.wait(), Some(0), "{setup:?}");
    }
}

#[test]
fn shutdown_now_waits_for_nobody() {
    for setup in [ONE, FOUR] {
        let (mut master, _dir, _replica) = with_a_replica_behind(setup, &["--shutdown-timeout", "100000"]);
        master.connect().send(b"SHUTDOWN NOW\r\n");
        assert_eq!(master.wait(), Some(0), "{setup:?}");
    }
}

/// Clients that are blocked on a master must not be served by what its own master sends later.
#[test]
fn clients_blocked_on_a_master_are_unblocked_when_it_becomes_a_replica() {
    for setup in [ONE, FOUR] {
        let (master, replica) = (Node::ours("of-blocked", ONE), Node::ours("blocked", setup));
        let (mut client, mut blocked) = (replica.connect(), replica.connect());
        blocked.send(b"BLPOP a b 0\r\n");
        wait_until("it waits", || client.info("clients", "blocked_clients") == "1");
        replica.follow(&master);
        let reply = "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n";
        assert_eq!(blocked.reply(), reply.as_bytes(), "{setup:?}");
        assert_eq!(blocked.rest(), b"", "its connection is closed");
        let mut at_master = master.connect();
        at_master.call(&["RPUSH", "a", "1"]);
        wait_until_alike(&mut at_master, &mut client, &format!("{setup:?}"));
    }
}
