//! A link to a master that speaks TLS.

use super::peers::{Certificates, TlsServer};
use crate::harness::{Connection, Setup, free_port, wait_until};
use crate::redis::Redis;
use crate::replication::{FOUR, ONE, is_up, wait_until_alike, write_at_random};

/// A server that connects to others by TLS.
fn replica(certificates: &Certificates, setup: Setup, extra: &[&str]) -> TlsServer {
    certificates.start(setup, &[&["--tls-replication", "yes"], extra].concat())
}

fn follow(replica: &mut Connection, port: u16) {
    assert_eq!(replica.call(&["REPLICAOF", "127.0.0.1", &port.to_string()]), "+OK\r\n");
}

/// The snapshot and the stream come in many records; acknowledgements go back.
fn follows(master: &mut Connection, port: u16, replica: &mut Connection, what: &str) {
    for n in 0..4 {
        master.call(&["SET", &format!("big:{n}"), &"x".repeat(3 << 20)]);
    }
    follow(replica, port);
    wait_until("the link is up", || is_up(replica));
    write_at_random(master, 5, &|n| n < 500);
    for n in 4..6 {
        master.call(&["SET", &format!("big:{n}"), &"y".repeat(3 << 20)]);
    }
    wait_until_alike(master, replica, what);
    assert_eq!(master.call(&["SELECT", "0"]), "+OK\r\n");
    assert_eq!(master.call(&["SET", "last", "word"]), "+OK\r\n");
    assert_eq!(master.call(&["WAIT", "1", "0"]), ":1\r\n", "{what}");
    assert_eq!(replica.call(&["GET", "last"]), "$4\r\nword\r\n", "{what}");
    master.call(&["CLIENT", "KILL", "TYPE", "replica"]);
    wait_until("it goes on", || master.info("stats", "sync_partial_ok") == "1");
    wait_until("the link is up", || is_up(replica));
}

#[test]
fn a_replica_follows_its_own_kind_by_tls() {
    let certificates = Certificates::new();
    let [crt, key] = ["client.crt", "client.key"].map(|file| certificates.path(file));
    // As a client of its own name, and without one by the certificate that it has as a server.
    let named = ["--tls-client-cert-file", &*crt, "--tls-client-key-file", &*key];
    for (masters, replicas, extra) in [(ONE, FOUR, &named[..]), (FOUR, ONE, &[])] {
        let master = certificates
            .start(masters, &["--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes"]);
        let replica = replica(&certificates, replicas, &[&["--enable-debug-command", "yes"], extra].concat());
        let (mut at_master, mut at_replica) = (master.server.connect(), replica.server.connect());
        let what = format!("{replicas:?} follows {masters:?}");
        follows(&mut at_master, master.port, &mut at_replica, &what);
        let told = format!("port={},state=online", replica.port);
        assert!(
            at_master.call(&["INFO", "replication"]).contains(&told),
            "{what}: it tells its port for TLS"
        );
    }
}

#[test]
fn a_replica_follows_redis_by_tls() {
    let certificates = Certificates::new();
    let tls_port = free_port();
    let [crt, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|file| certificates.path(file));
    let (port, delay) = (tls_port.to_string(), ["--repl-diskless-sync-delay", "0"]);
    let files = ["--tls-cert-file", &*crt, "--tls-key-file", &*key, "--tls-ca-cert-file", &*ca];
    let Some(redis) = Redis::start("tls-master", &[&["--tls-port", &*port], &files[..], &delay].concat())
    else {
        return;
    };
    let replica = replica(&certificates, FOUR, &["--enable-debug-command", "yes"]);
    follows(&mut redis.connect(), tls_port, &mut replica.server.connect(), "real Redis");
}

/// A master is not believed by its word, nor a replica.
#[test]
fn whoever_has_a_strangers_certificate_is_no_master_and_no_replica() {
    let certificates = Certificates::new();
    let [crt, key] = ["stranger.crt", "stranger.key"].map(|file| certificates.path(file));
    let strange = ["--tls-cert-file", &*crt, "--tls-key-file", &*key];
    for setup in [ONE, FOUR] {
        let stranger = certificates.start(setup, &strange);
        let mut own = replica(&certificates, setup, &[]);
        follow(&mut own.server.connect(), stranger.port);
        own.server.wait_for_line("certificate verify failed");
        assert!(!is_up(&mut own.server.connect()));

        let mut master = certificates.start(setup, &["--tls-auth-clients", "yes"]);
        let strange = replica(&certificates, setup, &strange);
        follow(&mut strange.server.connect(), master.port);
        master.server.wait_for_line("certificate verify failed");
        assert_eq!(master.server.connect().info("replication", "connected_slaves"), "0");

        // Nothing is sent in the clear, either.
        let mut plain = replica(&certificates, setup, &["--repl-timeout", "1"]);
        follow(&mut plain.server.connect(), master.server.port);
        plain.server.wait_for_line("Error condition on socket for SYNC: ");
        assert!(!is_up(&mut plain.server.connect()));
    }
}
