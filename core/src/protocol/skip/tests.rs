//! Where a reply ends, whatever the bytes are.

use super::*;
use crate::testing::with_seed;

#[test]
fn a_value_ends_where_its_last_part_does() {
    for value in [
        &b"+OK\r\n"[..],
        b"-ERR x\r\n",
        b":-5\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
        b"_\r\n",
        b",3.14\r\n",
        b"#t\r\n",
        b"(123\r\n",
        b"=5\r\ntxt:a\r\n",
        b"!5\r\nERR x\r\n",
        b"%1\r\n+k\r\n*1\r\n:1\r\n",
        b"~1\r\n:1\r\n",
        b">1\r\n:1\r\n",
        b"|1\r\n+k\r\n:9\r\n+value\r\n",
        b"*1\r\n|1\r\n+k\r\n:9\r\n+value\r\n",
    ] {
        let mut buf = value.to_vec();
        for cut in 0..buf.len() {
            assert_eq!(skip_reply(&buf[..cut]), None, "{} at {cut}", value.escape_ascii());
        }
        buf.extend(b":1\r\n");
        assert_eq!(skip_reply(&buf), Some(value.len()), "{}", value.escape_ascii());
    }
}

#[test]
fn what_is_no_value_is_not_skipped() {
    for bytes in [
        &b"x\r\n"[..],
        b"$\r\n",
        b"$-2\r\n",
        b"*1x\r\n",
        b"$1\r\nab\r\n",
        b"+\n",
        b"%-1\r\n",
        b"|-1\r\n",
        b"$99999999999999999999\r\n",
        b"$18446744073709551615\r\n",
        b"%9999999999999999999\r\n",
        b"*9999999999999999999\r\n*9999999999999999999\r\n",
    ] {
        assert_eq!(skip_reply(bytes), None, "{}", bytes.escape_ascii());
    }
}

#[test]
fn depth_takes_no_stack() {
    let mut buf = b"*1\r\n".repeat(1_000_000);
    buf.extend(b":1\r\n");
    assert_eq!(skip_reply(&buf), Some(buf.len()));
    assert_eq!(split_array(&buf).unwrap().next().unwrap().len(), buf.len() - 4);
}

#[test]
fn an_array_is_split_into_its_values() {
    let parts = split_array(b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n+next\r\n").unwrap();
    assert_eq!(parts.left(), 3);
    assert_eq!(parts.collect::<Vec<_>>(), [&b"$1\r\na\r\n"[..], b"*1\r\n:1\r\n", b"$-1\r\n"]);
    let pairs = split_array(b"%1\r\n+k\r\n:1\r\n").unwrap();
    assert_eq!(pairs.collect::<Vec<_>>(), [&b"+k\r\n"[..], b":1\r\n"]);
    assert_eq!(split_array(b"*0\r\n").unwrap().next(), None);
    assert_eq!(split_array(b"*2\r\n:1\r\n:").unwrap().collect::<Vec<_>>(), [b":1\r\n"]);
    for other in [&b""[..], b"*-1\r\n", b"-ERR x\r\n", b"_\r\n", b"$1\r\na\r\n", b"*1"] {
        assert!(split_array(other).is_none(), "{}", other.escape_ascii());
    }
}

#[test]
fn foreign_bytes_do_no_harm() {
    with_seed(|rng| {
        for _ in 0..50_000 {
            let buf: Vec<u8> = (0..rng.below(30)).map(|_| *rng.pick(b"*$%|~>=!+:_-0129\r\n\r\n")).collect();
            let len = skip_reply(&buf);
            assert!(len.is_none_or(|len| len <= buf.len()), "{}", buf.escape_ascii());
            if let Some(parts) = split_array(&buf) {
                assert!(parts.map(<[u8]>::len).sum::<usize>() <= buf.len(), "{}", buf.escape_ascii());
            }
        }
    });
}
