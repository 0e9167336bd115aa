//! The commands on a server in this process. `tests/redis.rs` compares them with Redis'.

use crate::Geo;
use shardis_modules_api::fake::{FakeHost, FakeReply};

/// Two towns and how Redis stores them.
const PALERMO: (&str, f64) = ("Palermo", 3479099956230698.0);
const CATANIA: (&str, f64) = ("Catania", 3479447370796909.0);

fn host() -> FakeHost {
    let mut host = FakeHost::load::<Geo>(&[]);
    host.set_zset("Sicily", &[PALERMO, CATANIA]);
    host
}

fn call(host: &mut FakeHost, line: &str) -> FakeReply {
    host.call(&line.split(' ').collect::<Vec<_>>())
}

fn array<const N: usize>(elements: [FakeReply; N]) -> FakeReply {
    FakeReply::Array(elements.to_vec())
}

fn bytes(text: &str) -> FakeReply {
    FakeReply::bytes(text)
}

#[test]
fn a_position_is_stored_as_a_score_and_propagated_as_zadd() {
    let mut host = host();
    let reply = call(&mut host, "GEOADD new NX CH 13.361389 38.115556 Palermo 15.087269 37.502669 Catania");
    assert_eq!(reply, FakeReply::Integer(2));
    let stored = host.zset("new").expect("it is there");
    assert_eq!(stored, [CATANIA, PALERMO].map(|(name, score)| (name.to_string(), score)));
    let done = host.done();
    let effect = done.replicated[0].join(&b' ');
    assert_eq!(
        String::from_utf8_lossy(&effect),
        "zadd new NX CH 3479099956230698 Palermo 3479447370796909 Catania"
    );
    assert_eq!(done.notified, [("zadd".to_string(), b"new".to_vec())]);
}

#[test]
fn what_changes_nothing_is_propagated_to_nobody() {
    let mut host = host();
    for line in [
        "GEOADD Sicily 13.361389 38.115556 Palermo",
        "GEOADD Sicily NX 1 1 Palermo",
        "GEOADD Sicily XX 1 1 Rome",
        "GEOADD none XX 1 1 Rome",
        "GEORADIUS none 15 37 200 km STORE nowhere",
    ] {
        assert_eq!(call(&mut host, line), FakeReply::Integer(0), "{line}");
        assert_eq!(host.done(), Default::default(), "{line}");
        assert!(!host.is_there("none") && !host.is_there("nowhere"), "{line}");
    }
}

#[test]
fn members_are_told_by_distance_hash_and_position() {
    let mut host = host();
    assert_eq!(call(&mut host, "GEODIST Sicily Palermo Catania"), bytes("166274.1516"));
    assert_eq!(call(&mut host, "GEODIST Sicily Palermo Catania mi"), bytes("103.3182"));
    assert_eq!(call(&mut host, "GEODIST Sicily Palermo Rome"), FakeReply::Null);
    assert_eq!(
        call(&mut host, "GEOHASH Sicily Palermo Rome Catania"),
        array([bytes("sqc8b49rny0"), FakeReply::Null, bytes("sqdtr74hyu0")])
    );
    let [longitude, latitude] = [13.361389338970184, 38.1155563954963].map(FakeReply::Double);
    assert_eq!(
        call(&mut host, "GEOPOS Sicily Palermo Rome"),
        array([array([longitude, latitude]), FakeReply::NullArray])
    );
}

#[test]
fn a_search_shows_what_was_asked_for() {
    let mut host = host();
    assert_eq!(
        call(&mut host, "GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 200 km ASC"),
        array([bytes("Catania"), bytes("Palermo")])
    );
    assert_eq!(
        call(&mut host, "GEOSEARCH Sicily FROMLONLAT 15 37 BYBOX 400 400 km COUNT 1 WITHHASH WITHDIST"),
        array([array([bytes("Catania"), bytes("56.4413"), FakeReply::Integer(3479447370796909)])])
    );
    assert_eq!(
        call(&mut host, "GEORADIUSBYMEMBER_RO Sicily Palermo 200 km DESC"),
        array([bytes("Catania"), bytes("Palermo")])
    );
    assert_eq!(call(&mut host, "GEOSEARCH none FROMMEMBER x BYRADIUS 1 m"), array([]));
}

#[test]
fn a_search_is_stored_over_whatever_was_there() {
    let mut host = host();
    host.set_list("to", &["x"]);
    let line = "GEOSEARCHSTORE to Sicily FROMMEMBER Palermo BYRADIUS 200 km STOREDIST";
    assert_eq!(call(&mut host, line), FakeReply::Integer(2));
    let stored = host.zset("to").expect("it is a sorted set");
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[1], ("Palermo".to_string(), 0.0));
    assert!((stored[0].1 - 166.27415).abs() < 1e-5, "{stored:?}");
    assert_eq!(host.done().replicated[0].join(&b' '), line.as_bytes());
    assert_eq!(host.done().notified, [("geosearchstore".to_string(), b"to".to_vec())]);

    assert_eq!(call(&mut host, "GEORADIUS Sicily 0 0 1 km STORE to"), FakeReply::Integer(0));
    assert!(!host.is_there("to"));
    assert_eq!(host.done().notified, [("del".to_string(), b"to".to_vec())]);
}

#[test]
fn of_several_destinations_the_last_one_counts() {
    let mut host = host();
    let line = "GEORADIUS Sicily 15 37 200 km STORE a STOREDIST b STORE c";
    assert_eq!(call(&mut host, line), FakeReply::Integer(2));
    assert_eq!([host.is_there("a"), host.is_there("b"), host.is_there("c")], [false, false, true]);
}

#[test]
fn errors_have_the_texts_of_redis() {
    let mut host = host();
    host.set_string("string", b"x");
    let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let search = "GEOSEARCH Sicily FROMLONLAT 15 37 BYRADIUS 1 km";
    for (line, text) in [
        ("GEOADD k 181 86.5 x", "ERR invalid longitude,latitude pair 181.000000,86.500000"),
        ("GEOADD k 1 nan x", "ERR value is not a valid float"),
        ("GEOADD k NX XX 1 1 x", "ERR syntax error"),
        ("GEOADD k NX CH XX CH", "ERR syntax error"),
        ("GEOADD string 1 1 x", wrong_type),
        ("GEODIST Sicily a b yd", "ERR unsupported unit provided. please use M, KM, FT, MI"),
        ("GEOPOS string x", wrong_type),
        ("GEOSEARCH string FROMMEMBER x BYRADIUS x km", wrong_type),
        (&format!("{search} COUNT 0"), "ERR COUNT must be > 0"),
        (&format!("{search} ANY"), "ERR the ANY argument requires COUNT argument"),
        (&format!("{search} BYBOX 1 1 km"), "ERR syntax error"),
        ("GEOSEARCH Sicily FROMMEMBER Rome BYRADIUS 1 km", "ERR could not decode requested zset member"),
        (
            "GEOSEARCH Sicily ASC BYRADIUS 1 km COUNT 1",
            "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GEOSEARCH",
        ),
        ("GEORADIUS_RO Sicily 15 37 1 km STORE x", "ERR syntax error"),
        (
            "GEORADIUS Sicily 15 37 1 km STORE x WITHDIST",
            "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
        ),
    ] {
        assert_eq!(call(&mut host, line), FakeReply::error(text), "{line}");
    }
}
