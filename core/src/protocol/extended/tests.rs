//! Sums as a machine with 80-bit long doubles prints them, which is what Redis' replies come from.

use super::*;
use crate::testing::with_seed;

fn sum(current: &str, increment: &str) -> Option<String> {
    let number = |text: &str| Extended::parse(text.as_bytes());
    Some(number(current)?.checked_add(number(increment)?)?.to_human())
}

#[test]
fn sums_are_what_redis_replies() {
    let cases: &[(&str, &str, &str)] = &[
        ("3", "0.1", "3.1"),
        ("10.50", "0.1", "10.6"),
        ("10.6", "-5", "5.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("0.1", "0.2", "0.3"),
        ("1", "0.25", "1.25"),
        ("17179869184", "1.5", "17179869185.5"),
        ("17179869184", "17179869184", "34359738368"),
        ("1", "-1.1", "-0.1"),
        ("0", "1.23", "1.23"),
        ("+.5", "0x1p-1", "1"),
        ("123456789.123456789", "0.000000001", "123456789.12345678999554366"),
        ("9223372036854775807", "1", "9223372036854775808"),
        ("18446744073709551615", "1", "18446744073709551616"),
        // 64 bits of mantissa end above the tenth here.
        ("1e19", "0.1", "10000000000000000000"),
        ("1e30", "1", "1000000000000000000024696061952"),
        // Beyond 17 decimals: rounded, half to even in the value's binary digits.
        ("5.1e-18", "0", "0.00000000000000001"),
        ("4e-18", "0", "0"),
        ("2.5e-17", "0", "0.00000000000000002"),
        ("1e-18", "0", "0"),
    ];
    for (current, incr, expected) in cases {
        assert_eq!(sum(current, incr).as_deref(), Some(*expected), "{current} + {incr}");
    }
}

#[test]
fn there_is_no_negative_zero() {
    assert_eq!(sum("0.024390243902439025", "-0.024390243902439025").unwrap(), "0");
    assert_eq!(sum("-0", "-0").unwrap(), "0");
    assert_eq!(sum("-1e-30", "0").unwrap(), "0");
}

#[test]
fn texts_that_are_no_float_are_refused() {
    for text in [
        "",
        " 11",
        "11 ",
        "1\x002",
        "nan",
        "snan",
        "abc",
        "1e",
        "1e+",
        "0x",
        "0x.",
        "0xp1",
        "0x1p",
        "1e5000",
        "1e-5000",
        "1e99999999999999999999",
        "0x1p16384",
        "0x1p-99999999999999999999",
        "1.2.3",
        ".",
        "1e5.",
        "1f",
        "--1",
        "+-1",
        "\u{661}",
        "infinit",
    ] {
        assert_eq!(Extended::parse(text.as_bytes()), None, "{text:?}");
    }
    let long = format!("1.{}", "0".repeat(TEXT_LEN_MAX - 2));
    assert_eq!(Extended::parse(long.as_bytes()), None);
    assert_eq!(sum(&long[..TEXT_LEN_MAX - 1], "1").unwrap(), "2");
}

#[test]
fn sums_that_are_not_finite_are_refused() {
    for (current, incr) in
        [("0", "inf"), ("-inf", "1"), ("inf", "-inf"), ("1e4932", "1e4932"), ("-1e4932", "-1e4932")]
    {
        assert_eq!(sum(current, incr), None, "{current} + {incr}");
    }
}

#[test]
fn the_ends_of_the_range_are_kept() {
    let max = Extended::parse(b"0x1.fffffffffffffffep16383").unwrap();
    assert_eq!(max.parts(), (u64::MAX, 16320));
    assert_eq!(Extended::parse(b"0x1.ffffffffffffffffp16383"), None, "rounds up to 2^16384");
    let least = Extended::parse(b"-0x1p-16445").unwrap();
    assert_eq!(least.parts(), (1, -16445));
    assert_eq!(Extended::parse(b"0x1p-16446"), None, "half of the least rounds to zero");
    assert_eq!(Extended::parse(b"0x1.8p-16446"), Extended::parse(b"0x1p-16445"));
    assert_eq!(Extended::parse(b"0e-99999999999999999999"), Extended::parse(b"0"));
    assert_eq!(max.checked_add(max), None);
    assert_eq!(max.to_human().len(), 4933);
}

#[test]
fn sums_of_integers_are_exact() {
    with_seed(|rng| {
        for _ in 0..5_000 {
            let (a, b) = ((rng.next() as i64) >> rng.below(64), (rng.next() as i64) >> rng.below(64));
            let exact = i128::from(a) + i128::from(b);
            assert_eq!(sum(&a.to_string(), &b.to_string()).unwrap(), exact.to_string());
        }
    });
}

#[test]
fn doubles_are_read_as_extended_values() {
    with_seed(|rng| {
        for _ in 0..5_000 {
            let value = f64::from_bits(rng.next());
            if value.is_finite() && value != 0.0 {
                // All the digits that a double has, and so exactly its value.
                let number = Extended::parse(format!("{value:.1074e}").as_bytes()).expect("it is a number");
                let padded = format!("{value:.17}");
                let trimmed = padded.trim_end_matches('0').trim_end_matches('.');
                assert_eq!(number.to_human(), if trimmed == "-0" { "0" } else { trimmed });
            }
        }
    });
    for (text, human) in [("-inf", "-inf"), ("+Infinity", "inf")] {
        let number = Extended::parse(text.as_bytes()).expect("it is a number");
        assert_eq!((number.to_human().as_str(), number.is_finite()), (human, false));
    }
}
