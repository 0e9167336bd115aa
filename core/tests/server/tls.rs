//! Encrypted clients: who may connect, what they may break, and that nothing else is different for them.

#[path = "tls/link.rs"]
mod link;
#[path = "tls/peers.rs"]
mod peers;

use self::peers::{Certificates, PASSPHRASE, TlsConnection, TlsServer};
use crate::crowds::crowd_size;
use crate::harness::{SETUPS, Server, Setup, encode, free_port, leave_out, wait_until};
use crate::modules::compiled;
use crate::random::{Random, fresh_seed};
use openssl::ssl::{ShutdownResult, SslContextBuilder, SslVersion};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

const PONG: &str = "+PONG\r\n";

/// Of a handshake that was begun, whatever the peer has sent in it, the server keeps at most so much.
const HALF_HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// One shard and four, on both backends.
fn setups() -> impl Iterator<Item = Setup> {
    SETUPS.into_iter().map(|setup| Setup { shards: if setup.shards > 1 { 4 } else { 1 }, ..setup })
}

fn connected(server: &TlsServer) -> usize {
    let connected = server.server.connect().info("clients", "connected_clients");
    connected.parse::<usize>().expect("a number") - 1
}

fn only(version: SslVersion) -> impl Fn(&mut SslContextBuilder) {
    move |builder| {
        builder.set_min_proto_version(Some(version)).expect("a version");
        builder.set_max_proto_version(Some(version)).expect("a version");
    }
}

#[test]
fn plain_and_encrypted_clients_see_the_same_keys() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = certificates.start(setup, &[]);
        let mut plain = server.server.connect();
        let mut clients: Vec<TlsConnection> =
            (0..8).map(|_| certificates.client(Some("client")).connect(&server)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let key = format!("key:{n}");
            client.expect(&["SET", &key, "secret"], "+OK\r\n");
            assert_eq!(plain.call(&["GET", &key]), "$6\r\nsecret\r\n", "{setup:?}");
            client.expect(&["MGET", "key:0", &key], "*2\r\n$6\r\nsecret\r\n$6\r\nsecret\r\n");
        }
        let list = plain.call(&["CLIENT", "LIST"]);
        assert_eq!(list.matches("id=").count(), 9, "{setup:?}: {list}");
        clients[0].expect(&["QUIT"], "+OK\r\n");
        assert_eq!(clients[0].rest().expect("an end"), b"");
    }
}

/// Requests and replies of every length, sent ahead: arguments that are read piece by piece, replies of many records.
#[test]
fn long_pipelines_come_back_whole() {
    let certificates = Certificates::new();
    let seed = fresh_seed();
    for setup in setups() {
        let server = certificates.start(setup, &["--tls-auth-clients", "no"]);
        let mut random = Random::new(seed);
        let mut client = certificates.client(None).connect(&server);
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        for n in 0..400 {
            let len = match random.below(20) {
                0 => random.below(1 << 20),
                1..5 => random.below(40_000),
                _ => random.below(300),
            };
            let value: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let key = format!("key:{}", random.below(100));
            requests.extend(encode(&[b"SET", key.as_bytes(), &value]));
            requests.extend(encode(&[b"GET", key.as_bytes()]));
            replies.extend(format!("+OK\r\n${}\r\n", value.len()).into_bytes());
            replies.extend_from_slice(&value);
            replies.extend_from_slice(b"\r\n");
            // In pieces that end anywhere, and are no record's length.
            if n % 40 == 39 {
                let mut rest = &requests[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(1 + random.below(100_000)));
                    client.send(piece);
                    rest = after;
                }
                let got = client.read(replies.len());
                assert!(got == replies, "{setup:?}, seed {seed}, round {n}");
                requests.clear();
                replies.clear();
            }
        }
        let big: Vec<u8> = (0..20 << 20).map(|n: u32| (n >> 7) as u8).collect();
        client.send(&encode(&[b"SET", b"big", &big]));
        assert_eq!(client.read(5), b"+OK\r\n");
        client.send(&encode(&[b"GET", b"big"]).repeat(3));
        let reply = [format!("${}\r\n", big.len()).as_bytes(), &big, b"\r\n"].concat();
        assert!(client.read(3 * reply.len()) == reply.repeat(3), "{setup:?}");
    }
}

/// Whom the server refuses, it tells so, and logs it.
#[test]
fn clients_are_authenticated_as_the_directive_says() {
    let certificates = Certificates::new();
    for setup in [SETUPS[0], SETUPS[3]] {
        for (mode, allowed, refused) in [
            ("yes", &[Some("client"), Some("other")][..], &[None, Some("stranger"), Some("expired")][..]),
            ("optional", &[Some("client"), None], &[Some("stranger"), Some("expired")]),
            ("no", &[Some("client"), None, Some("stranger"), Some("expired")], &[]),
        ] {
            let mut server = certificates.start(setup, &["--tls-auth-clients", mode]);
            for name in allowed {
                assert_eq!(certificates.client(*name).ping(&server).as_deref(), Ok(PONG), "{mode} {name:?}");
            }
            for name in refused {
                for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                    let client = certificates.client(*name).with(only(version));
                    assert!(client.ping(&server).is_err(), "{setup:?} {mode} {name:?}");
                    let line = server.server.wait_for_line("Error accepting a client connection: error:");
                    let expected = match name {
                        None => "peer did not return a certificate",
                        Some(_) => "certificate verify failed",
                    };
                    assert!(line.contains(expected) && line.contains("(conn: fd="), "{line}");
                }
            }
            wait_until("those who were refused are gone", || connected(&server) == 0);
        }
    }
}

#[test]
fn a_module_sees_the_certificate_that_a_client_has_shown() {
    let certificates = Certificates::new();
    let module = compiled("probe", "certificate");
    let module = module.to_str().expect("a plain path");
    for setup in setups() {
        let server = certificates.start(setup, &["--tls-auth-clients", "optional", "--loadmodule", module]);
        for name in ["client", "other"] {
            let pem =
                std::fs::read_to_string(certificates.path(&format!("{name}.crt"))).expect("it was written");
            let mut client = certificates.client(Some(name)).connect(&server);
            client.expect(&["PROBE.CERTIFICATE"], &format!("${}\r\n{pem}\r\n", pem.len()));
            client.expect(&["PROBE.CERTIFICATE", "999999"], "$-1\r\n");
        }
        certificates.client(None).connect(&server).expect(&["PROBE.CERTIFICATE"], "$-1\r\n");
        assert_eq!(server.server.connect().call(&["PROBE.CERTIFICATE"]), "$-1\r\n");
    }
}

#[test]
fn what_is_no_handshake_ends_the_connection_and_nothing_else() {
    let certificates = Certificates::new();
    let seed = fresh_seed();
    for setup in setups() {
        let mut server = certificates.start(setup, &[]);
        let mut random = Random::new(seed);
        let hello = certificates.client(None).hello(&server);
        let garbage: Vec<Vec<u8>> = vec![
            b"PING\r\n".to_vec(),
            encode(&[b"SET", b"a", b"1"]).repeat(1000),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0; 100_000],
            b"\x16\x03\x01\xff\xff".to_vec(),
            (0..5000).map(|_| random.next() as u8 | 0x80).collect(),
            [&hello[..], b"and no more of it that makes sense, ".repeat(10).as_slice()].concat(),
        ];
        for bytes in &garbage {
            let mut client = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
            // The server may have ended it before all is written.
            let _ = client.write_all(bytes);
            let mut reply = Vec::new();
            let _ = client.read_to_end(&mut reply);
            // Whole replies: what the handshake says is random, and short words occur in it.
            let has = |words: &[u8]| reply.windows(words.len()).any(|window| window == words);
            assert!(!has(b"+PONG\r\n") && !has(b"+OK\r\n"), "{setup:?}: {}", reply.escape_ascii());
            server.server.wait_for_line("Error accepting a client connection: ");
        }
        // Those who change the bytes of a handshake, or break off.
        for _ in 0..200 {
            let mut changed = hello.clone();
            changed.truncate(1 + random.below(hello.len()));
            let at = random.below(changed.len());
            changed[at] ^= 1 << random.below(8);
            let mut client = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
            client.write_all(&changed).expect("the server reads");
        }
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG), "seed {seed}");
        wait_until("all are gone", || connected(&server) == 0);
    }
}

/// What breaks behind a good handshake ends the connection, and what came before it has run.
#[test]
fn records_that_were_changed_are_no_requests() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = certificates.start(setup, &["--tls-auth-clients", "no"]);
        let mut client = certificates.client(None).connect(&server);
        client.expect(&["SET", "a", "1"], "+OK\r\n");
        client.stream.get_mut().write_all(b"\x17\x03\x03\x00\x20").expect("the server reads");
        client.stream.get_mut().write_all(&[7; 0x20]).expect("the server reads");
        assert!(client.rest().is_err(), "an alert comes");
        wait_until("it is gone", || connected(&server) == 0);
        assert_eq!(server.server.connect().call(&["GET", "a"]), "$1\r\n1\r\n");
    }
}

#[test]
fn ten_thousand_half_handshakes_take_bounded_memory() {
    let certificates = Certificates::new();
    let size = crowd_size();
    for setup in [SETUPS[1], SETUPS[3]] {
        let server = certificates.start(setup, &["--maxclients", "20000"]);
        let hello = certificates.client(None).hello(&server);
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
        let memory = server.server.rss_bytes();
        let mut crowd = Vec::with_capacity(size);
        for n in 0..size {
            let mut client = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
            // Nothing, a part, or all of the first message.
            client.write_all(&hello[..hello.len() * (n % 3) / 2]).expect("the server reads");
            crowd.push(client);
        }
        // The server has answered those that sent all.
        for client in crowd.iter_mut().skip(2).step_by(3) {
            client.read_exact(&mut [0; 5]).expect("a record comes");
        }
        assert_eq!(connected(&server), size, "{setup:?}");
        let grown = server.server.rss_bytes().saturating_sub(memory);
        assert!(grown < size * HALF_HANDSHAKE_BYTES_MAX, "{setup:?}: {} bytes a connection", grown / size);
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
        drop(crowd);
        wait_until("all have left", || connected(&server) == 0);
    }
}

#[test]
fn what_was_sent_before_the_end_is_answered() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = certificates.start(setup, &["--tls-auth-clients", "no"]);
        let requests: Vec<u8> =
            (0..2000).flat_map(|n| encode(&[b"SET", format!("k{n}").as_bytes(), b"v"])).collect();
        for says_so in [true, false] {
            let mut client = certificates.client(None).connect(&server);
            client.send(&requests);
            if says_so {
                assert_eq!(client.stream.shutdown().expect("it can be said"), ShutdownResult::Sent);
            }
            client.stream.get_mut().shutdown(Shutdown::Write).expect("it is open");
            assert_eq!(client.rest().expect("an end").len(), 2000 * 5, "{setup:?} {says_so}");
        }
        // Half a request is none.
        let mut client = certificates.client(None).connect(&server);
        client.send(&encode(&[b"SET", b"cut", b"short"])[..20]);
        client.stream.shutdown().expect("it can be said");
        assert_eq!(client.rest().expect("an end"), b"");
        let mut plain = server.server.connect();
        assert_eq!(plain.call(&["GET", "cut"]), "$-1\r\n");
        // Big replies to somebody who has said that there is no more to come.
        let value = "x".repeat(1 << 20);
        assert_eq!(plain.call(&["SET", "big", &value]), "+OK\r\n");
        let mut client = certificates.client(None).connect(&server);
        client.send(&encode(&[b"GET", b"big"]).repeat(20));
        client.stream.shutdown().expect("it can be said");
        assert_eq!(client.rest().expect("an end").len(), 20 * (value.len() + 12), "{setup:?}");
        // Who leaves without a word.
        for n in 0..20 {
            let mut client = certificates.client(None).connect(&server);
            client.send(&encode(&[b"SET", format!("gone:{n}").as_bytes(), b"1"]));
        }
        wait_until("all has run", || plain.call(&["KEYS", "gone:*"]).starts_with("*20\r\n"));
        wait_until("all are gone", || connected(&server) == 1);
    }
}

#[test]
fn new_certificates_count_for_new_connections_on_all_shards() {
    for setup in setups() {
        let certificates = Certificates::new();
        let mut server = certificates.start(setup, &[]);
        let mut plain = server.server.connect();
        let mut set = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().flat_map(|(name, value)| [*name, value]);
            plain.call(&["CONFIG", "SET"].into_iter().chain(pairs).collect::<Vec<_>>())
        };
        let client = certificates.client(Some("client"));
        let mut old: Vec<TlsConnection> = (0..8).map(|_| client.connect(&server)).collect();
        let [crt, key] = ["other.crt", "other.key"].map(|file| certificates.path(file));
        assert_eq!(set(&[("tls-cert-file", &crt), ("tls-key-file", &key)]), "+OK\r\n");
        for _ in 0..8 {
            assert_eq!(client.connect(&server).server_name(), "other", "{setup:?}");
        }
        for client in &mut old {
            assert_eq!(client.server_name(), "server");
            client.expect(&["PING"], PONG);
        }

        // What cannot be changes nothing.
        let refusal = "Unable to update TLS configuration. Check server logs.";
        for (name, value, line) in [
            ("tls-cert-file", "/no/such/file", "Failed to load certificate: /no/such/file: error:"),
            ("tls-key-file", &*certificates.path("server.key"), "Failed to load private key: "),
            ("tls-key-file", "/no/such/key", "Failed to load private key: /no/such/key: No such file"),
            (
                "tls-ca-cert-file",
                "/no/such/ca",
                "Failed to configure CA certificate(s) file/directory: error:",
            ),
            ("tls-ca-cert-file", "", "Either tls-ca-cert-file or tls-ca-cert-dir must be specified"),
            ("tls-protocols", "SSLv3", "Invalid tls-protocols specified."),
            ("tls-ciphers", "NONSENSE", "Failed to configure ciphers: NONSENSE"),
            ("tls-ciphersuites", "NONSENSE", "Failed to configure ciphersuites: NONSENSE"),
            ("tls-dh-params-file", "/no/such/dh", "Failed to load /no/such/dh: No such file or directory"),
        ] {
            let reply = set(&[(name, value)]);
            let expected =
                format!("-ERR CONFIG SET failed (possibly related to argument '{name}') - {refusal}\r\n");
            assert_eq!(reply, expected, "{name} {value}");
            server.server.wait_for_line(line);
        }
        assert_eq!(client.connect(&server).server_name(), "other", "{setup:?}");

        // The same name again, when the file has changed.
        for kind in ["crt", "key"] {
            let [from, to] = ["server", "other"].map(|name| certificates.path(&format!("{name}.{kind}")));
            std::fs::copy(from, to).expect("it can be written");
        }
        assert_eq!(client.connect(&server).server_name(), "other");
        assert_eq!(set(&[("tls-cert-file", &crt)]), "+OK\r\n");
        assert_eq!(client.connect(&server).server_name(), "server", "{setup:?}");
    }
}

#[test]
fn an_encrypted_key_needs_its_passphrase() {
    let certificates = Certificates::new();
    let server = certificates.start(SETUPS[0], &[]);
    let mut plain = server.server.connect();
    let sealed = certificates.path("sealed.key");
    let mut set = |name: &str, value: &str| plain.call(&["CONFIG", "SET", name, value]);
    assert!(set("tls-key-file", &sealed).contains("Unable to update TLS configuration"));
    assert_eq!(set("tls-key-file-pass", "wrong"), "+OK\r\n");
    assert!(set("tls-key-file", &sealed).contains("Unable to update TLS configuration"));
    assert_eq!(set("tls-key-file-pass", PASSPHRASE), "+OK\r\n");
    assert_eq!(set("tls-key-file", &sealed), "+OK\r\n");
    assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));

    let args = ["--tls-key-file", &sealed, "--tls-key-file-pass", PASSPHRASE];
    let server = certificates.start(SETUPS[1], &args);
    assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
}

#[test]
fn protocols_and_ciphers_are_those_of_the_directives() {
    let certificates = Certificates::new();
    let server = certificates.start(SETUPS[1], &["--tls-auth-clients", "no"]);
    let mut plain = server.server.connect();
    let mut set = |name: &str, value: &str| {
        assert_eq!(plain.call(&["CONFIG", "SET", name, value]), "+OK\r\n", "{name} {value}");
    };
    let connects = |version: SslVersion| certificates.client(None).with(only(version)).ping(&server).is_ok();
    let (old, new) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
    let cipher = |ciphers: &'static str| {
        let client = certificates.client(None).with(move |builder| {
            only(SslVersion::TLS1_2)(builder);
            builder.set_cipher_list(ciphers).expect("ciphers");
        });
        let connection = client.try_connect(&server).ok()?;
        connection.stream.ssl().current_cipher().map(|cipher| cipher.name().to_string())
    };
    let suite = |suites: &'static str| {
        let client = certificates.client(None).with(move |builder| {
            only(SslVersion::TLS1_3)(builder);
            builder.set_ciphersuites(suites).expect("suites");
        });
        client.ping(&server).is_ok()
    };

    assert!(connects(old) && connects(new));
    set("tls-protocols", "TLSv1.2");
    assert!(connects(old) && !connects(new));
    set("tls-protocols", "tlsv1.3");
    assert!(!connects(old) && connects(new));
    set("tls-protocols", "TLSv1.2 TLSv1.3");
    assert!(connects(old) && connects(new));
    set("tls-protocols", "");

    const WEAK: &str = "ECDHE-ECDSA-AES128-GCM-SHA256";
    const STRONG: &str = "ECDHE-ECDSA-AES256-GCM-SHA384";
    set("tls-ciphers", &format!("{WEAK}:{STRONG}"));
    assert_eq!(cipher("ECDHE-ECDSA-CHACHA20-POLY1305"), None);
    assert_eq!(
        cipher("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256").as_deref(),
        Some(STRONG)
    );
    set("tls-prefer-server-ciphers", "yes");
    assert_eq!(cipher("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256").as_deref(), Some(WEAK));

    set("tls-ciphersuites", "TLS_AES_256_GCM_SHA384");
    assert!(suite("TLS_AES_256_GCM_SHA384") && !suite("TLS_AES_128_GCM_SHA256"));
}

#[test]
fn ports_change_their_purpose_by_config_set() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = Server::start(setup);
        let mut plain = server.connect();
        let port = server.port.to_string();
        let mut set = |pairs: &[&str]| plain.call(&[&["CONFIG", "SET"], pairs].concat());
        assert_eq!(
            set(&["tls-port", &port]),
            "-ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to update TLS \
             configuration. Check server logs.\r\n"
        );
        let [crt, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|file| certificates.path(file));
        let files = ["tls-cert-file", &crt, "tls-key-file", &key, "tls-ca-cert-file", &ca];
        assert_eq!(set(&files), "+OK\r\n");
        assert_eq!(
            set(&["tls-port", &port]),
            "-ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to listen on this port. \
             Check server logs.\r\n"
        );
        let mut server = certificates.serving(server);
        for _ in 0..3 {
            assert_eq!(set(&["port", "0"]), "+OK\r\n");
            assert_eq!(set(&["tls-port", &port]), "+OK\r\n");
            assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG), "{setup:?}");
            assert_eq!(set(&["tls-port", "0"]), "+OK\r\n");
            assert_eq!(set(&["port", &port]), "+OK\r\n");
            assert_eq!(server.server.connect().call(&["PING"]), PONG, "{setup:?}");
        }
        // Both in one step, and then on two ports.
        assert_eq!(set(&["port", "0", "tls-port", &port]), "+OK\r\n");
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
        let mut client = certificates.client(Some("client")).connect(&server);
        client.send(&encode(&[b"INFO", b"server"]));
        let len = client.line()[1..].trim_end().parse::<usize>().expect("a length");
        let info = String::from_utf8_lossy(&client.read(len + 2)).into_owned();
        assert!(info.contains(&format!("\r\ntcp_port:{port}\r\n")), "{info}");
        let other = free_port().to_string();
        assert_eq!(set(&["port", &other]), "+OK\r\n");
        server.server.port = other.parse().expect("a port");
        assert_eq!(server.server.connect().call(&["PING"]), PONG);
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
        assert_eq!(set(&["bind", "127.0.0.1"]), "+OK\r\n");
        assert_eq!(server.server.connect().call(&["PING"]), PONG);
        assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
        client.expect(&["PING"], PONG);
    }
}

#[test]
fn a_server_may_speak_tls_alone_and_says_what_keeps_it_from_that() {
    let certificates = Certificates::new();
    let server = certificates.start(SETUPS[1], &["--port", "0"]);
    assert_eq!(certificates.client(Some("client")).ping(&server).as_deref(), Ok(PONG));
    drop(server);

    let [crt, key] = ["server.crt", "server.key"].map(|file| certificates.path(file));
    let port = free_port().to_string();
    for (args, line) in [
        (vec!["--tls-port", &port], "No tls-cert-file configured!"),
        (vec!["--tls-port", &port, "--tls-cert-file", &crt], "No tls-key-file configured!"),
        (
            vec!["--tls-replication", "yes", "--tls-cert-file", &crt, "--tls-key-file", &key],
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified",
        ),
    ] {
        let mut server = Server::spawn(SETUPS[0], free_port(), &args);
        server.wait_for_line(line);
        server.wait_for_line("Failed to configure TLS. Check logs for more info.");
        assert_eq!(server.wait(), Some(1));
    }
}

#[test]
fn an_encrypted_client_that_is_not_authenticated_can_do_what_a_plain_one_can() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = certificates.start(setup, &["--requirepass", "pw"]);
        let mut client = certificates.client(Some("client")).connect(&server);
        for args in [&["GET", "a"][..], &["CONFIG", "GET", "tls-key-file-pass"], &["SUBSCRIBE", "x"]] {
            client.expect(args, "-NOAUTH Authentication required.\r\n");
        }
        client.expect(&["AUTH", "pw"], "+OK\r\n");
        client.expect(&["GET", "a"], "$-1\r\n");
    }
}

#[test]
fn more_clients_than_there_may_be_are_dropped_without_a_word() {
    let certificates = Certificates::new();
    for setup in setups() {
        let server = certificates.start(setup, &["--maxclients", "2", "--tls-auth-clients", "no"]);
        let mut clients: Vec<TlsConnection> =
            (0..2).map(|_| certificates.client(None).connect(&server)).collect();
        assert!(certificates.client(None).ping(&server).is_err(), "{setup:?}");
        clients[1].expect(&["PING"], PONG);
    }
}

#[test]
fn the_real_tools_work_encrypted() {
    let certificates = Certificates::new();
    let server = certificates.start(SETUPS[1], &[]);
    let port = server.port.to_string();
    let [crt, key, ca] = ["client.crt", "client.key", "ca.crt"].map(|file| certificates.path(file));
    let tls = ["-p", &port, "--tls", "--cert", &crt, "--key", &key, "--cacert", &ca];
    let run = |program: &str, args: &[&str]| {
        let output = match Command::new(program).args(tls).args(args).output() {
            Ok(output) => output,
            Err(error) => {
                leave_out(&format!("{program}: {error}"));
                return None;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Some(text)
    };
    let Some(reply) = run("redis-cli", &["SET", "by", "cli"]) else { return };
    assert_eq!(reply, "OK\n");
    assert_eq!(run("redis-cli", &["GET", "by"]).as_deref(), Some("cli\n"));
    let Some(report) = run("redis-benchmark", &["-t", "set,get", "-n", "20000", "-P", "16", "-q"]) else {
        return;
    };
    assert!(report.contains("GET: ") && report.contains("SET: "), "{report}");
    let mut plain = server.server.connect();
    let calls = plain.info("commandstats", "cmdstat_get");
    assert!(calls.starts_with("calls=20001,"), "{calls}");
}
