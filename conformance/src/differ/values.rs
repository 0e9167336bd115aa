//! Arguments at random: mostly ordinary, from a small world so that calls meet, sometimes at the limits of what Redis takes.

use std::time::{SystemTime, UNIX_EPOCH};

use super::random::Random;
use super::scripts;

pub type Generator = fn(&mut Random) -> Vec<u8>;

/// What looks like a number, and often is none.
const ODD: [&str; 44] = [
    "+5",
    " 5",
    "5 ",
    "0x10",
    "-0",
    "+0",
    "00",
    "01",
    "1e400",
    "-1e400",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "+inf",
    "Infinity",
    "1e-400",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "",
    "-",
    "+",
    ".",
    "e",
    "1e",
    "1.",
    ".5",
    "0.5.5",
    "1,5",
    "--1",
    "1\0",
    "5\n",
    "\t5",
    "abc",
    "0x1p3",
    "1e5",
    "3.0",
    "9999999999999999999999999999",
    "4294967296",
    "2147483648",
];

const FLOATS: [&str; 22] = [
    "0.1",
    "-0.1",
    "1.5",
    "3.0e3",
    "1e5",
    "1e-5",
    "123456789.123456789",
    "0.30000000000000004",
    "1e17",
    "1e18",
    "1e19",
    "1e20",
    "-3.14159265358979",
    "0",
    "-0",
    "0.0",
    "100",
    "17179869184.5",
    "1.7976931348623157e308",
    "5e-324",
    "-2.5",
    "33333333333333.3",
];

const TEXTS: [&str; 10] = [
    "ohmytext",
    "mynewtext",
    "foo",
    "bar",
    "hello world",
    "aaaa",
    "abcabcabc",
    "ABC",
    "xyzxyzxyzxyzxyzxyzxyzxyzxyzxyz",
    "\u{e4}\u{20ac}",
];

/// Words that are options of other commands, or of none.
pub const JUNK: [&str; 14] = [
    "FOO",
    "",
    "NX ",
    "get",
    "5",
    "EX",
    "foo\r\nbar",
    "\0",
    "WITHSCORES",
    "(",
    "[",
    "KEEPTTL",
    "LIMIT",
    "not-a-thing",
];

/// Rules of ACL users.
const RULES: [&str; 67] = [
    "+@all",
    "-@all",
    "+@read",
    "+@write",
    "+@string",
    "-@dangerous",
    "+@fast",
    "+@keyspace",
    "-@slow",
    "+@scripting",
    "+@transaction",
    "-@write",
    "+get",
    "-get",
    "+set",
    "-set",
    "+config|get",
    "-config|set",
    "+config",
    "-config",
    "+client",
    "-client|kill",
    "+select|0",
    "+select|1",
    "-select",
    "+sort",
    "+eval",
    "nocommands",
    "allcommands",
    "+object|encoding",
    "+copy",
    "+mget",
    "~k*",
    "%R~k*",
    "%W~k*",
    "%RW~ka",
    "~*",
    "%R~*",
    "allkeys",
    "resetkeys",
    "~{k}c",
    "%r~other",
    ">pass",
    "<pass",
    "nopass",
    "resetpass",
    "on",
    "off",
    "&ch*",
    "&__key*",
    "&__keyevent@0__:*",
    "+@pubsub",
    "+monitor",
    "+slowlog",
    "+client|tracking",
    "+auth",
    "allchannels",
    "resetchannels",
    "sanitize-payload",
    "+cluster|info",
    "-cluster",
    "-replicaof",
    "+migrate",
    "+@admin",
    "+auth",
    "+hello",
    "on",
];

/// Selectors of ACL users.
const SELECTORS: [&str; 11] = [
    "clearselectors",
    "(+get ~ka)",
    "(+@write %W~k*)",
    "(+@read %R~other -@slow)",
    "(+@all ~kb)",
    "(allcommands allkeys)",
    "( +mget  +set %R~k* )",
    "(-@all +cluster -cluster|slots ~x)",
    "(+@all -@admin &ch1)",
    "(+@write ~*)",
    "()",
];

/// What is no rule, or one of those that are nearly none.
const BAD_RULES: [&str; 26] = [
    "+nosuch",
    "+@nosuch",
    "+config|get|x",
    "+config|nosuch",
    "-config|nosuch",
    "+get|",
    "%X~a",
    "%~a",
    "%RR~a",
    "~a b",
    "(on)",
    "((+get))",
    ")",
    "(",
    "(+get",
    "~x",
    "",
    "%R",
    "+",
    "-",
    "+@",
    "~",
    "&",
    "#abc",
    "!abc",
    "<nosuch",
];

/// The generator of `name`, as the table of commands has it.
pub fn named(name: &str) -> Option<Generator> {
    Some(match name {
        "v" => value,
        "m" => member,
        "num" => number,
        "word" => |r| if r.chance(60) { text(r, &TEXTS) } else { int(r, 0, 30) },
        "long" => long_text,
        "i" => |r| int_or_odd(r, -5, 40, 12),
        "idx" => |r| int_or_odd(r, -8, 12, 8),
        "small" => |r| int(r, 1, 5),
        "count" => |r| int(r, 0, 8),
        "score" => score,
        "off" => |r| {
            if r.chance(85) {
                int(r, 0, 60)
            } else {
                text(
                    r,
                    &["-1", "536870912", "9223372036854775807", "-9223372036854775808", "x", "+5", "", "1.0"],
                )
            }
        },
        "rc" => |r| {
            if r.chance(90) {
                int(r, -8, 12)
            } else {
                text(r, &["x", "", "+1", "1.5", "-9223372036854775808", "9223372036854775807", "0x10"])
            }
        },
        "sec" => |r| time(r, 1_000, 100_000, 0),
        "ms" => |r| time(r, 1_000_000, 100_000_000, 0),
        "at" => |r| time(r, 1_000, 100_000, now_ms() / 1000),
        "atms" => |r| time(r, 1_000_000, 100_000_000, now_ms()),
        "past" => |r| text(r, &["-1", "0", "-1000", "-9223372036854775"]),
        "db" => {
            |r| if r.chance(95) { int(r, 0, 2) } else { text(r, &["16", "-1", "x", "", "+1", "2147483648"]) }
        }
        "glob" => |r| {
            text(
                r,
                &[
                    "*", "?", "a*", "*1", "[a-l]*", "[^a]*", "[", "[a", "\\*", "\\", "{t}?", "**", "*?*?*",
                    "l?", "",
                ],
            )
        },
        "cursor" => {
            |r| text(r, &["0", "0", "0", "0", "x", "", "-1", "+0", " 0", "18446744073709551616", "1.5"])
        }
        "type" => |r| text(r, &["string", "STRING", "list", "hash", "set", "zset", "stream", "nosuch", ""]),
        "junk" => |r| text(r, &JUNK),
        "numkeys" => |r| text(r, &["1", "2", "2", "2", "3", "0", "-1", "x", "9223372036854775807", "+1"]),
        "timeout" => |r| text(r, &["0.01", "0.01", "0.011", "-1", "x", "nan", "1e400", ""]),
        "bound" => |r| {
            text(
                r,
                &[
                    "0", "1", "-1", "5", "(1", "(0", "-inf", "+inf", "(inf", "(-inf", "3.5", "nan", "x", "",
                    "(", "1e3", "-5", "10",
                ],
            )
        },
        "lex" => |r| {
            text(r, &["-", "+", "-", "+", "[a", "[b", "[c", "(a", "(c", "(d", "[", "(", "a", "", "[e", "+x"])
        },
        "id" => stream_id,
        "idbound" => |r| {
            text(
                r,
                &[
                    "-",
                    "+",
                    "-",
                    "+",
                    "0",
                    "1",
                    "2",
                    "5",
                    "(1",
                    "(1-1",
                    "1-1",
                    "3-0",
                    "(+",
                    "(-",
                    "x",
                    "",
                    "18446744073709551615-18446744073709551615",
                ],
            )
        },
        "newid" => |r| {
            if r.chance(60) { format!("{}-{}", r.below(30), r.below(10)).into_bytes() } else { stream_id(r) }
        },
        "group" => |r| text(r, &["g1", "g1", "g1", "g2", ""]),
        "consumer" => |r| text(r, &["c1", "c1", "c2", "c3", ""]),
        "by" => |r| text(r, &["w_*", "w_*", "w_*", "*", "wh_*->f", "wh_*->", "w_*_*", "{t}*"]),
        "get" => |r| text(r, &["#", "w_*", "wh_*->f", "wh_*->g", "nosuch_*", "*", "w_*->", "->f", ""]),
        "weightkey" => |r| format!("w_{}", r.below(8)).into_bytes(),
        "weighthash" => |r| format!("wh_{}", r.below(8)).into_bytes(),
        "element" => |r| int(r, 0, 7),
        _ => return of_places(name).or_else(|| scripts::generator(name)),
    })
}

/// The generators of what geo commands take.
fn of_places(name: &str) -> Option<Generator> {
    Some(match name {
        "lon" => |r| coordinate(r, 180.0),
        "lat" => |r| coordinate(r, 85.0),
        "length" => length,
        "unit" => |r| text(r, &["m", "km", "km", "km", "KM", "ft", "mi", "Mi", "cm"]),
        _ => return rule_named(name),
    })
}

/// The generator of rules of ACL users of this name.
fn rule_named(name: &str) -> Option<Generator> {
    Some(match name {
        "aclrule" => |r| text(r, &RULES),
        "selector" => |r| text(r, &SELECTORS),
        "badrule" => |r| text(r, &BAD_RULES),
        "chan" => {
            |r| text(r, &["ch1", "ch1", "ch2", "ch3", "other", "", "__keyspace@0__:a", "__keyevent@0__:set"])
        }
        "chanpat" => {
            |r| text(r, &["ch*", "ch?", "*", "ch1", "o[tT]her", "\\*", "", "__keyevent@*", "__key*__:*"])
        }
        _ => return None,
    })
}

fn int(random: &mut Random, low: i64, high: i64) -> Vec<u8> {
    random.between(low, high).to_string().into_bytes()
}

fn text(random: &mut Random, all: &[&str]) -> Vec<u8> {
    random.pick(all).as_bytes().to_vec()
}

/// `odd` times of 100 something else.
fn int_or_odd(random: &mut Random, low: i64, high: i64, odd: usize) -> Vec<u8> {
    if random.chance(odd) { text(random, &ODD) } else { int(random, low, high) }
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.weighted(&[6, 6, 3, 2, 2, 1, 1]) {
        0 => int(random, -20, 120),
        1 => text(random, &TEXTS),
        2 => text(random, &FLOATS),
        3 => text(random, &ODD),
        4 => binary(random),
        5 => long_text(random),
        _ => Vec::new(),
    }
}

/// Of fields and members there are few, so that they meet.
fn member(random: &mut Random) -> Vec<u8> {
    match random.weighted(&[16, 6, 4]) {
        0 => text(random, &["a", "b", "c", "d", "e", "f", "g", ""]),
        1 => int(random, 0, 12),
        _ => value(random),
    }
}

fn number(random: &mut Random) -> Vec<u8> {
    match random.weighted(&[12, 4, 2, 1]) {
        0 => int(random, -10, 10),
        1 => int(random, -1_000_000_000_000, 1_000_000_000_000),
        2 => text(
            random,
            &[
                "32767",
                "32768",
                "-32769",
                "2147483647",
                "2147483648",
                "-2147483649",
                "127",
                "4095",
                "8388607",
            ],
        ),
        _ => text(random, &ODD),
    }
}

fn score(random: &mut Random) -> Vec<u8> {
    match random.weighted(&[8, 6, 1]) {
        0 => int(random, -10, 20),
        1 => text(random, &FLOATS),
        _ => text(random, &ODD),
    }
}

/// Degrees in -max..=max: near zero, so that members lie near each other, or anywhere.
fn coordinate(random: &mut Random, max: f64) -> Vec<u8> {
    let degrees = (random.below(2_000_001) as f64 / 1_000_000.0 - 1.0) * max;
    match random.weighted(&[8, 6, 4, 2, 1]) {
        0 => format!("{:.4}", degrees / 100.0).into_bytes(),
        1 => degrees.to_string().into_bytes(),
        2 => int(random, -2, 2),
        3 => text(random, &["180", "-180", "85.05112878", "-85.05112878", "85.06", "180.1", "1e-5"]),
        _ => text(random, &ODD),
    }
}

/// Of any order of magnitude up to the earth's.
fn length(random: &mut Random) -> Vec<u8> {
    let magnitude = 10i64.pow(random.below(6) as u32);
    match random.weighted(&[16, 4, 1]) {
        0 => int(random, 0, 10 * magnitude),
        1 => format!("{:.3}", random.between(0, 1_000 * magnitude) as f64 / 1_000.0).into_bytes(),
        _ => text(random, &ODD),
    }
}

fn binary(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.below(12);
    let bytes = b"\0\r\n \"'\\\xff\x80abz09{}*";
    (0..len).map(|_| bytes[random.below(bytes.len())]).collect()
}

/// Around the lengths at which encodings change.
fn long_text(random: &mut Random) -> Vec<u8> {
    let lengths = [43, 44, 45, 63, 64, 65, 100, 253, 254, 300];
    let len = lengths[random.below(lengths.len())];
    let byte = b"abcxyz0189"[random.below(10)];
    vec![byte; len]
}

fn stream_id(random: &mut Random) -> Vec<u8> {
    let ordinary = [
        "1-1", "1-2", "1", "2-1", "2", "3-0", "5-5", "5-*", "6-*", "0", "0-1", "7", "8-1", "9-9", "12",
        "20-1",
    ];
    let odd = ["0-0", "18446744073709551615-18446744073709551615", "x", "", "1-x", "-1", "1-1-1", "1-", "-"];
    if random.chance(85) { text(random, &ordinary) } else { text(random, &odd) }
}

/// Mostly far enough in the future that it does not come while a sequence runs.
fn time(random: &mut Random, low: i64, high: i64, from: i64) -> Vec<u8> {
    if random.chance(85) {
        return (from + random.between(low, high)).to_string().into_bytes();
    }
    text(
        random,
        &[
            "0",
            "-1",
            "-100",
            "9223372036854775",
            "9223372036854776",
            "9223372036854775807",
            "x",
            "",
            "1.5",
            "+1 ",
        ],
    )
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values() {
        let make = |seed| -> Vec<Vec<u8>> {
            let mut random = Random::new(seed);
            (0..100).map(|_| value(&mut random)).collect()
        };

        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }
}
