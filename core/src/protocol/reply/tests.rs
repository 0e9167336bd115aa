//! Replies in both versions of the protocol, and random ones read back.

use super::*;
use crate::protocol::{skip_reply, split_array};
use crate::testing::{Rng, with_seed};

fn reply(resp: Resp, write: impl FnOnce(&mut Reply<'_>)) -> String {
    let mut out = b"before|".to_vec();
    write(&mut Reply::new(&mut out, resp));
    let text = out.escape_ascii().to_string();
    text.strip_prefix("before|").expect("a reply goes behind what is there").to_owned()
}

fn both(write: impl Fn(&mut Reply<'_>)) -> (String, String) {
    (reply(Resp::V2, &write), reply(Resp::V3, &write))
}

fn same(write: impl Fn(&mut Reply<'_>)) -> String {
    let (v2, v3) = both(write);
    assert_eq!(v2, v3);
    v2
}

#[test]
fn these_are_alike_in_both_versions() {
    assert_eq!(same(|r| r.ok()), r"+OK\r\n");
    assert_eq!(same(|r| r.simple("PONG")), r"+PONG\r\n");
    assert_eq!(same(|r| r.integer(0)), r":0\r\n");
    assert_eq!(same(|r| r.integer(-1)), r":-1\r\n");
    assert_eq!(same(|r| r.integer(99)), r":99\r\n");
    assert_eq!(same(|r| r.integer(100)), r":100\r\n");
    assert_eq!(same(|r| r.integer(i64::MIN)), r":-9223372036854775808\r\n");
    assert_eq!(same(|r| r.bulk(b"")), r"$0\r\n\r\n");
    assert_eq!(same(|r| r.bulk(b"a\r\n\x00")), r"$4\r\na\r\n\x00\r\n");
    assert_eq!(same(|r| r.bulk_i64(-12)), r"$3\r\n-12\r\n");
    assert_eq!(same(|r| r.bulk_display(format_args!("{}-{}", 1, 2))), r"$3\r\n1-2\r\n");
    assert_eq!(same(|r| r.array(3)), r"*3\r\n");
    assert_eq!(same(|r| r.empty_array()), r"*0\r\n");
    assert_eq!(same(|r| r.bulk_array(["a", "bc"])), r"*2\r\n$1\r\na\r\n$2\r\nbc\r\n");
    assert_eq!(same(|r| r.raw(b":7\r\n")), r":7\r\n");
}

#[test]
fn bulk_headers_have_every_length() {
    for len in [9, 10, 11, 99, 100, 101, 999, 1000, 65536] {
        let value = vec![b'v'; len];
        let expected = format!(r"${len}\r\n{}\r\n", "v".repeat(len));
        assert_eq!(same(|r| r.bulk(&value)), expected);
    }
}

/// As in the replies of `DEBUG PROTOCOL`.
#[test]
fn each_version_spells_types_its_way() {
    assert_eq!(both(|r| r.null()), (r"$-1\r\n".into(), r"_\r\n".into()));
    assert_eq!(both(|r| r.null_array()), (r"*-1\r\n".into(), r"_\r\n".into()));
    assert_eq!(both(|r| r.map(3)), (r"*6\r\n".into(), r"%3\r\n".into()));
    assert_eq!(both(|r| r.set(3)), (r"*3\r\n".into(), r"~3\r\n".into()));
    assert_eq!(both(|r| r.push(2)), (r"*2\r\n".into(), r">2\r\n".into()));
    assert_eq!(both(|r| r.double(5.141)), (r"$5\r\n5.141\r\n".into(), r",5.141\r\n".into()));
    assert_eq!(both(|r| r.double(3.0)), (r"$1\r\n3\r\n".into(), r",3\r\n".into()));
    assert_eq!(both(|r| r.double(f64::INFINITY)), (r"$3\r\ninf\r\n".into(), r",inf\r\n".into()));
    assert_eq!(both(|r| r.double(f64::NEG_INFINITY)), (r"$4\r\n-inf\r\n".into(), r",-inf\r\n".into()));
    assert_eq!(both(|r| r.bignum(b"12345")), (r"$5\r\n12345\r\n".into(), r"(12345\r\n".into()));
    assert_eq!(
        both(|r| r.verbatim("txt", b"a\nb")),
        (r"$3\r\na\nb\r\n".into(), r"=7\r\ntxt:a\nb\r\n".into())
    );
    assert_eq!(both(|r| r.boolean(true)), (r":1\r\n".into(), r"#t\r\n".into()));
    assert_eq!(both(|r| r.boolean(false)), (r":0\r\n".into(), r"#f\r\n".into()));
    assert_eq!(reply(Resp::V3, |r| r.attribute(1)), r"|1\r\n");
}

#[test]
fn errors_are_one_line() {
    assert_eq!(same(|r| r.error("ERR syntax error")), r"-ERR syntax error\r\n");
    assert_eq!(
        same(|r| r.error(b"ERR unknown command 'a\r\nb\xff'\r\n\r\n")),
        r"-ERR unknown command \'a  b\xff\'\r\n"
    );
    assert_eq!(same(|r| r.error("\r\n")), r"-\r\n");
}

#[test]
fn aggregates_may_be_counted_afterwards() {
    for (guess, len) in [(0, 0), (0, 9), (0, 10), (0, 1234), (99, 7), (1_000_000, 0), (10, 99), (10, 100)] {
        for resp in [Resp::V2, Resp::V3] {
            let mut out = b"+before\r\n".to_vec();
            let mut counted = out.clone();
            let mut r = Reply::new(&mut out, resp);
            let mark = r.begin_about(guess);
            let inner = r.begin();
            r.ok();
            r.end_set(inner, 1);
            for i in 1..len {
                r.integer(i as i64);
            }
            match len {
                0 => r.end_map(mark, 1),
                _ => r.end_array(mark, len),
            }
            let mut r = Reply::new(&mut counted, resp);
            match len {
                0 => r.map(1),
                _ => r.array(len),
            }
            r.set(1);
            r.ok();
            for i in 1..len {
                r.integer(i as i64);
            }
            assert_eq!(out.escape_ascii().to_string(), counted.escape_ascii().to_string(), "{guess} {len}");
        }
    }
}

/// Writes one random value; returns where its parts end, if it is an aggregate that `split_array` parts.
fn random_value(rng: &mut Rng, out: &mut Vec<u8>, resp: Resp, depth: usize) -> Option<Vec<usize>> {
    let mut r = Reply::new(out, resp);
    let len = rng.below(4);
    let kind = if depth == 0 { rng.below(11) } else { rng.below(17) };
    match kind {
        0 => r.ok(),
        1 => r.error("ERR no"),
        2 => r.integer((rng.next() as i64) >> rng.below(64)),
        3 => {
            let len = rng.below(200);
            r.bulk(&rng.bytes(len));
        }
        4 => r.null(),
        5 => r.null_array(),
        6 => r.double(f64::from_bits(rng.next())),
        7 => r.boolean(rng.one_in(2)),
        8 => r.bignum(b"1234567999999999999999999999999999999"),
        9 => r.verbatim("mkd", b"*\r\n$"),
        10 => r.simple(""),
        _ => {
            let parts = match kind {
                11 => (r.array(len), len).1,
                12 => (r.map(len), 2 * len).1,
                13 => (r.set(len), len).1,
                14 => (r.push(len), len).1,
                15 => {
                    let mark = r.begin_about(rng.below(200));
                    let mut ends = Vec::new();
                    let header_at = r.out.len();
                    for _ in 0..len {
                        random_value(rng, out, resp, depth - 1);
                        ends.push(out.len() - header_at);
                    }
                    let mut r = Reply::new(out, resp);
                    let values_len = r.out.len() - header_at;
                    r.end_array(mark, len);
                    let moved_to = out.len() - values_len;
                    return Some(ends.into_iter().map(|end| moved_to + end).collect());
                }
                _ => {
                    if resp == Resp::V3 {
                        r.attribute(len);
                        for _ in 0..2 * len {
                            random_value(rng, out, resp, depth - 1);
                        }
                    }
                    random_value(rng, out, resp, 0);
                    return None;
                }
            };
            let mut ends = Vec::new();
            for _ in 0..parts {
                random_value(rng, out, resp, depth - 1);
                ends.push(out.len());
            }
            return Some(ends);
        }
    }
    None
}

#[test]
fn random_replies_are_read_back() {
    with_seed(|rng| {
        for round in 0..20_000 {
            let resp = if round % 2 == 0 { Resp::V2 } else { Resp::V3 };
            let mut out = Vec::new();
            let ends = random_value(rng, &mut out, resp, 3);
            let len = out.len();
            for cut in [len - 1, rng.below(len)] {
                assert_eq!(skip_reply(&out[..cut]), None, "{} at {cut}", out.escape_ascii());
            }
            out.extend(b"*1\r\n");
            assert_eq!(skip_reply(&out), Some(len), "{}", out.escape_ascii());
            if let Some(ends) = ends {
                let parts = split_array(&out).expect("an aggregate has parts");
                assert_eq!(parts.left(), ends.len());
                let found: Vec<usize> =
                    parts.map(|part| part.as_ptr_range().end as usize - out.as_ptr() as usize).collect();
                assert_eq!(found, ends, "{}", out.escape_ascii());
            }
        }
    });
}
