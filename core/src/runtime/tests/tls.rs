//! Encrypted connections over both drivers, with OpenSSL's own client at the other end, on a thread of its own.

use super::{CloseReason, ConnId, Driver, Events, PATIENCE, PeerAddr, through_every_driver};
use crate::config::{Config, Text, TlsAuthClients};
use crate::runtime::tls::{Tls, TlsLayer};
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{
    ShutdownResult, Ssl, SslContext, SslContextBuilder, SslMethod, SslSession, SslStream, SslVersion,
};
use openssl::x509::{X509, X509NameBuilder};
use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn SSL_renegotiate(ssl: *mut openssl_sys::SSL) -> c_int;
    fn SSL_do_handshake(ssl: *mut openssl_sys::SSL) -> c_int;
    fn SSL_key_update(ssl: *mut openssl_sys::SSL, kind: c_int) -> c_int;
}

const SSL_KEY_UPDATE_REQUESTED: c_int = 1;

/// A context with a certificate made for it, and what the directives say besides.
fn tls(change: impl FnOnce(&mut Config)) -> Tls {
    let dir = std::env::temp_dir().join(format!(
        "shardis-tls-layer-{}-{:?}",
        std::process::id(),
        thread::current().id()
    ));
    std::fs::create_dir_all(&dir).unwrap();
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "server").unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    let [crt, key_file] = ["server.crt", "server.key"].map(|file| dir.join(file));
    std::fs::write(&crt, certificate.build().to_pem().unwrap()).unwrap();
    std::fs::write(&key_file, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let mut config = Config {
        tls_cert_file: Text::from(&*crt),
        tls_key_file: Text::from(&*key_file),
        tls_auth_clients: TlsAuthClients::No,
        ..Config::default()
    };
    change(&mut config);
    let tls = Tls::default();
    tls.configure(&config).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    tls
}

fn client_context(version: SslVersion) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.build()
}

through_every_driver! {
    a_fill_goes_on_while_paused_and_what_comes_behind_it_waits
    a_pause_holds_what_is_sent_and_loses_nothing
    sends_of_any_length_arrive_whole
    an_end_is_told_as_the_peer_has_made_it
    what_is_sent_before_the_handshake_waits_for_it
    renegotiation_is_refused
    key_updates_are_answered_and_a_flood_of_them_ends_the_connection
    sessions_are_resumed_only_where_they_are_cached
}

type Peer = SslStream<UnixStream>;

/// Runs a client's side on a thread of its own.
fn peer<T: Send + 'static>(
    context: &SslContext,
    work: impl FnOnce(Peer) -> T + Send + 'static,
) -> (OwnedFd, thread::JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let ssl = Ssl::new(context).unwrap();
    let stream = SslStream::new(ssl, theirs).unwrap();
    (ours.into(), thread::spawn(move || work(stream)))
}

#[derive(Default)]
struct Seen {
    received: Vec<u8>,
    filled: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    ended: Option<CloseReason>,
    deaf: bool,
}

impl Events for Seen {
    fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
    fn accept_failed(&mut self, _: usize, _: io::Error) {}
    fn received(&mut self, _: ConnId, bytes: &[u8]) {
        assert!(self.ended.is_none(), "nothing comes behind the end");
        self.received.extend_from_slice(bytes);
    }
    fn filled(&mut self, _: ConnId, buf: Vec<u8>) {
        self.filled.push(buf);
    }
    fn sent(&mut self, _: ConnId, buf: Vec<u8>) {
        self.sent.push(buf);
    }
    fn input_ended(&mut self, _: ConnId, reason: CloseReason) {
        assert!(self.ended.replace(reason).is_none(), "it ends once");
    }
    fn send_failed(&mut self, _: ConnId, _: i32) {
        assert!(!std::mem::replace(&mut self.deaf, true), "it fails once");
    }
    fn bell(&mut self) {}
}

fn turn_until<D: Driver>(layer: &mut TlsLayer<D>, seen: &mut Seen, is_so: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(seen) {
        assert!(Instant::now() < deadline, "it never comes to that");
        layer.turn(Some(Duration::from_millis(100)), seen).unwrap();
    }
}

fn add<D: Driver>(layer: &mut TlsLayer<D>, tls: &Tls, fd: OwnedFd) -> ConnId {
    layer.add_tls(fd, tls.acceptor(TlsAuthClients::No).unwrap())
}

/// Closes, and lets the driver do so.
fn close<D: Driver>(layer: &mut TlsLayer<D>, conn: ConnId) {
    layer.close(conn);
    layer.turn(Some(Duration::ZERO), &mut Seen::default()).unwrap();
}

fn a_fill_goes_on_while_paused_and_what_comes_behind_it_waits<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_3), |mut peer| {
        peer.connect().unwrap();
        peer.write_all(b"head").unwrap();
        let mut go = [0];
        peer.read_exact(&mut go).unwrap();
        // One record has the end of the fill and what comes behind it.
        peer.write_all(&[7; 100_000]).unwrap();
        peer.write_all(&[[7; 1000], [8; 1000]].concat()).unwrap();
        peer.write_all(&[9; 10]).unwrap();
        peer.shutdown().unwrap();
    });
    let conn = add(&mut layer, &tls, fd);
    let mut seen = Seen::default();
    turn_until(&mut layer, &mut seen, |seen| seen.received == b"head");
    layer.pause(conn);
    layer.recv_exact(conn, b"begun:".to_vec(), 101_000);
    layer.send(conn, b"!".to_vec());
    turn_until(&mut layer, &mut seen, |seen| !seen.filled.is_empty());
    assert!(seen.filled == [[&b"begun:"[..], &[7; 101_000]].concat()]);
    peer.join().unwrap();
    for _ in 0..5 {
        layer.turn(Some(Duration::ZERO), &mut seen).unwrap();
    }
    assert_eq!((seen.received.len(), seen.ended), (4, None), "it is paused");
    assert_eq!(layer.filling(conn), 0);

    // What is held comes first, also to another fill.
    layer.recv_exact(conn, Vec::new(), 600);
    turn_until(&mut layer, &mut seen, |seen| seen.filled.len() == 2);
    assert_eq!(seen.filled[1], [8; 600]);
    layer.resume(conn);
    turn_until(&mut layer, &mut seen, |seen| seen.ended.is_some());
    assert_eq!(seen.received, [&b"head"[..], &[8; 400], &[9; 10]].concat());
    assert_eq!(seen.ended, Some(CloseReason::Eof));
    close(&mut layer, conn);
}

fn a_pause_holds_what_is_sent_and_loses_nothing<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_2), |mut peer| {
        peer.connect().unwrap();
        for n in 0..1000u32 {
            peer.write_all(&n.to_le_bytes().repeat(500)).unwrap();
        }
        peer.shutdown().unwrap();
    });
    let conn = add(&mut layer, &tls, fd);
    let mut seen = Seen::default();
    let mut len = 0;
    while seen.ended.is_none() {
        turn_until(&mut layer, &mut seen, |seen| seen.received.len() > len || seen.ended.is_some());
        len = seen.received.len();
        layer.pause(conn);
        layer.turn(Some(Duration::ZERO), &mut seen).unwrap();
        assert_eq!(seen.received.len(), len);
        layer.resume(conn);
    }
    let expected: Vec<u8> = (0..1000u32).flat_map(|n| n.to_le_bytes().repeat(500)).collect();
    assert!(seen.received == expected);
    peer.join().unwrap();
    close(&mut layer, conn);
}

fn sends_of_any_length_arrive_whole<D: Driver>(driver: D) {
    const LENGTHS: [usize; 6] = [1, 16_384, 16_385, 262_144, 262_145, 3_000_000];
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_3), |mut peer| {
        peer.connect().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        (all, peer.get_shutdown())
    });
    let conn = add(&mut layer, &tls, fd);
    let mut seen = Seen::default();
    for (n, len) in LENGTHS.into_iter().enumerate() {
        layer.send(conn, vec![n as u8; len]);
        assert!(layer.pending_out(conn) > 0 || len < 3_000_000);
        turn_until(&mut layer, &mut seen, |seen| seen.sent.len() == n + 1);
        assert!(seen.sent[n] == vec![n as u8; len], "the buffer comes back as it was");
    }
    close(&mut layer, conn);
    let (all, end) = peer.join().unwrap();
    assert!(
        end.contains(openssl::ssl::ShutdownState::RECEIVED),
        "the end was told before the connection closed"
    );
    let expected: Vec<u8> = LENGTHS.into_iter().enumerate().flat_map(|(n, len)| vec![n as u8; len]).collect();
    assert!(all == expected);
}

fn an_end_is_told_as_the_peer_has_made_it<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    type Way = fn(&mut Peer);
    let ways: [(Way, CloseReason); 3] = [
        (|peer| assert_eq!(peer.shutdown().unwrap(), ShutdownResult::Sent), CloseReason::Eof),
        (|peer| peer.get_ref().shutdown(std::net::Shutdown::Write).unwrap(), CloseReason::Eof),
        (|peer| peer.get_mut().write_all(&[0; 100]).unwrap(), CloseReason::Errno(libc::EPROTO)),
    ];
    for (end, reason) in ways {
        let (fd, peer) = peer(&client_context(SslVersion::TLS1_3), move |mut peer| {
            peer.connect().unwrap();
            peer.write_all(b"last words").unwrap();
            end(&mut peer);
            let mut rest = Vec::new();
            let outcome = peer.read_to_end(&mut rest).map_err(|error| error.to_string());
            (outcome.map(|_| ()), rest)
        });
        let conn = add(&mut layer, &tls, fd);
        let mut seen = Seen::default();
        turn_until(&mut layer, &mut seen, |seen| seen.ended.is_some());
        assert_eq!((&seen.received[..], seen.ended), (&b"last words"[..], Some(reason)));
        if reason == CloseReason::Eof {
            layer.send(conn, b"answer".to_vec());
            turn_until(&mut layer, &mut seen, |seen| seen.sent.len() == 1);
        } else {
            // Nothing reaches it any more, and nobody needs to be told.
            layer.send(conn, b"answer".to_vec());
            layer.turn(Some(Duration::ZERO), &mut seen).unwrap();
        }
        close(&mut layer, conn);
        let (outcome, rest) = peer.join().unwrap();
        match reason {
            CloseReason::Eof => assert_eq!((outcome, &rest[..]), (Ok(()), &b"answer"[..])),
            CloseReason::Errno(_) => assert!(outcome.unwrap_err().contains("alert"), "it is told why"),
        }
    }
}

fn what_is_sent_before_the_handshake_waits_for_it<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let (begin, may_begin) = std::sync::mpsc::channel();
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_2), move |mut peer| {
        may_begin.recv().unwrap();
        peer.connect().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    let conn = add(&mut layer, &tls, fd);
    layer.send(conn, b"denied".to_vec());
    let mut seen = Seen::default();
    layer.turn(Some(Duration::ZERO), &mut seen).unwrap();
    assert!(seen.sent.is_empty());
    begin.send(()).unwrap();
    turn_until(&mut layer, &mut seen, |seen| seen.sent.len() == 1);
    close(&mut layer, conn);
    assert_eq!(peer.join().unwrap(), b"denied");
}

fn renegotiation_is_refused<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_2), |mut peer| {
        peer.connect().unwrap();
        peer.write_all(b"before").unwrap();
        let ssl = foreign_types_of(&peer);
        // SAFETY: the stream's own session, which lives through this function.
        let outcome = unsafe { (SSL_renegotiate(ssl), SSL_do_handshake(ssl)) };
        assert!(outcome.0 == 1 && outcome.1 <= 0, "{outcome:?}");
        ErrorStack::get().to_string()
    });
    let conn = add(&mut layer, &tls, fd);
    let mut seen = Seen::default();
    turn_until(&mut layer, &mut seen, |seen| seen.ended.is_some() || peer.is_finished());
    close(&mut layer, conn);
    let error = peer.join().unwrap();
    assert!(error.contains("renegotiation"), "{error}");
    assert_eq!(seen.received, b"before");
}

fn foreign_types_of(peer: &Peer) -> *mut openssl_sys::SSL {
    std::ptr::from_ref(peer.ssl()).cast_mut().cast()
}

/// Each asks for one in return; who reads none of them has them pile up.
fn key_updates_are_answered_and_a_flood_of_them_ends_the_connection<D: Driver>(driver: D) {
    let tls = tls(|_| {});
    let mut layer = TlsLayer::new(driver);
    let update = |peer: &mut Peer| {
        let ssl = foreign_types_of(peer);
        // SAFETY: the stream's own session, which lives through this function.
        assert_eq!(unsafe { SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) }, 1);
    };
    let (fd, peer) = peer(&client_context(SslVersion::TLS1_3), move |mut peer| {
        peer.connect().unwrap();
        let mut echo = [0; 5];
        for _ in 0..20 {
            update(&mut peer);
            peer.write_all(b"hello").unwrap();
            peer.read_exact(&mut echo).unwrap();
        }
        // Without reading, until the server has had enough.
        for _ in 0..200_000 {
            update(&mut peer);
            if peer.write_all(b"x").is_err() {
                break;
            }
        }
    });
    let conn = add(&mut layer, &tls, fd);
    let mut seen = Seen::default();
    for n in 0..20 {
        turn_until(&mut layer, &mut seen, |seen| seen.received.len() >= 5 * (n + 1));
        layer.send(conn, b"hello".to_vec());
        turn_until(&mut layer, &mut seen, |seen| seen.sent.len() == n + 1);
    }
    turn_until(&mut layer, &mut seen, |seen| seen.ended.is_some());
    assert_eq!(seen.ended, Some(CloseReason::Errno(libc::EPROTO)), "it has not taken all of them");
    close(&mut layer, conn);
    peer.join().unwrap();
}

fn sessions_are_resumed_only_where_they_are_cached<D: Driver>(driver: D) {
    let mut layer = TlsLayer::new(driver);
    for (caching, version) in [
        (true, SslVersion::TLS1_2),
        (false, SslVersion::TLS1_2),
        (true, SslVersion::TLS1_3),
        (false, SslVersion::TLS1_3),
    ] {
        let tls = tls(|config| config.tls_session_caching = caching);
        let context = client_context(version);
        let mut connect = |old: Option<SslSession>| {
            let (fd, peer) = peer(&context, move |mut peer| {
                if let Some(old) = &old {
                    let ssl = foreign_types_of(&peer);
                    // SAFETY: both live; the session is of a client's context like this one.
                    unsafe {
                        openssl_sys::SSL_set_session(ssl, std::ptr::from_ref(&**old).cast_mut().cast())
                    };
                }
                peer.connect().unwrap();
                // The tickets of TLS 1.3 come before the answer.
                peer.write_all(b"x").unwrap();
                peer.read_exact(&mut [0]).unwrap();
                // A session whose connection has no proper end is not resumed.
                peer.shutdown().unwrap();
                (peer.ssl().session_reused(), peer.ssl().session().map(|session| session.to_owned()))
            });
            let conn = add(&mut layer, &tls, fd);
            let mut seen = Seen::default();
            turn_until(&mut layer, &mut seen, |seen| seen.received == b"x");
            layer.send(conn, b"y".to_vec());
            turn_until(&mut layer, &mut seen, |seen| seen.sent.len() == 1);
            let outcome = peer.join().unwrap();
            close(&mut layer, conn);
            outcome
        };
        let (_, session) = connect(None);
        let (is_resumed, _) = connect(session);
        assert_eq!(is_resumed, caching, "{version:?}");
    }
}
