//! Eviction of clients: `maxmemory-clients`.

use super::{Server, on_one_and_three_shards};

/// A client with so many bytes queued in a transaction.
fn client_of(server: &mut Server, shard: usize, len_bytes: usize, may_go: bool) -> usize {
    let shard = shard % server.cluster.workers.len();
    let client = server.cluster.connect(shard);
    let evict = if may_go { "OFF" } else { "ON" };
    assert_eq!(server.cluster.call(client, &["CLIENT", "NO-EVICT", evict]), "+OK\r\n");
    assert_eq!(server.cluster.call(client, &["MULTI"]), "+OK\r\n");
    assert_eq!(server.cluster.call(client, &["SET", "k", &"v".repeat(len_bytes)]), "+QUEUED\r\n");
    client
}

fn open(server: &Server, clients: &[usize]) -> Vec<bool> {
    clients.iter().map(|&client| server.cluster.is_open(client)).collect()
}

#[test]
fn the_largest_clients_of_all_shards_go_and_only_as_many_as_have_to() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CLIENT NO-EVICT ON", "+OK")]);
        let sizes = [60_000, 400_000, 100_000, 200_000];
        let clients: Vec<usize> =
            (0..).zip(sizes).map(|(shard, len)| client_of(server, shard, len, true)).collect();
        server.expect(&[("CONFIG SET maxmemory-clients 2mb", "+OK"), ("PING", "+PONG")]);
        assert_eq!(open(server, &clients), [true; 4]);

        server.expect(&[("CONFIG SET maxmemory-clients 600000", "+OK")]);
        server.cluster.tick();
        server.cluster.settle();
        assert_eq!(open(server, &clients), [true, false, true, true]);

        server.expect(&[("CONFIG SET maxmemory-clients 300000", "+OK")]);
        server.cluster.tick();
        server.cluster.settle();
        assert_eq!(open(server, &clients), [true, false, true, false]);
        assert_eq!(server.sum(|stats| stats.evicted_clients.get()), 2);
        assert!(server.call("INFO stats").contains("\r\nevicted_clients:2\r\n"));

        // A client that grows is closed when it does.
        let grows = client_of(server, 2, 100, true);
        server.cluster.request(grows, &["SET", "k", &"v".repeat(250_000)]);
        server.cluster.settle();
        assert!(!server.cluster.is_open(grows));
        assert_eq!(open(server, &clients), [true, false, true, false]);
    });
}

#[test]
fn those_that_may_not_go_stay_until_they_may() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CLIENT NO-EVICT ON", "+OK")]);
        let kept = client_of(server, 1, 500_000, false);
        let small = client_of(server, 2, 10_000, true);
        server.expect(&[("CONFIG SET maxmemory-clients 300000", "+OK")]);
        server.cluster.tick();
        server.cluster.settle();
        assert_eq!(open(server, &[kept, small]), [true, false]);
        assert_eq!(server.call("PING"), "+PONG\r\n");

        assert_eq!(server.cluster.call(kept, &["DISCARD"]), "+OK\r\n");
        let other = client_of(server, 0, 150_000, false);
        server.cluster.request(other, &["SET", "k", &"v".repeat(200_000)]);
        server.cluster.settle();
        assert!(server.cluster.is_open(other));
        assert_eq!(server.cluster.call(other, &["DISCARD"]), "+QUEUED\r\n+OK\r\n");
        assert_eq!(server.cluster.call(other, &["CLIENT", "NO-EVICT", "OFF"]), "+OK\r\n");
        assert!(server.cluster.is_open(other), "it is small again");
    });
}

#[test]
fn watched_keys_and_subscriptions_count() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CLIENT NO-EVICT ON", "+OK"), ("CONFIG SET maxmemory-clients 200000", "+OK")]);
        for command in ["WATCH", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"] {
            let client = server.cluster.connect(0);
            let mut count = 0;
            while server.cluster.is_open(client) && count < 10_000 {
                let name = format!("{command}{count}");
                server.cluster.call(client, &[command, &name]);
                count += 1;
            }
            assert!(!server.cluster.is_open(client), "{command}");
            assert!(count > 500, "{command} {count}");
        }
        // What is watched no more does not count.
        let client = server.cluster.connect(0);
        for count in 0..10_000 {
            server.cluster.call(client, &["WATCH", &count.to_string()]);
            if count % 100 == 0 {
                server.cluster.call(client, &["UNWATCH"]);
            }
        }
        assert!(server.cluster.is_open(client));
    });
}

#[test]
fn a_subscriber_that_gets_more_than_there_is_room_for_goes() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CLIENT NO-EVICT ON", "+OK"), ("CONFIG SET maxmemory-clients 300000", "+OK")]);
        let listener = server.cluster.connect(0);
        server.cluster.call(listener, &["SUBSCRIBE", "news"]);
        server.call(&format!("PUBLISH news {}", "x".repeat(1000)));
        assert!(server.cluster.is_open(listener));
        server.call(&format!("PUBLISH news {}", "x".repeat(400_000)));
        server.cluster.tick();
        server.cluster.settle();
        assert!(!server.cluster.is_open(listener));
    });
}
