//! Numbers in text, both ways: the ends of their ranges, and what is no number.

use super::*;
use crate::testing::with_seed;

#[test]
fn integers_are_texts_that_print_the_same() {
    for value in [0, 1, -1, 9, 10, 42, -123, i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, 1 << 53] {
        assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
    }
    for text in [
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "01",
        "00",
        "-0",
        "-01",
        "1.0",
        "1e3",
        "0x1",
        "1\0",
        "a",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "99999999999999999999",
        "-99999999999999999999",
        "184467440737095516160",
        "--1",
        "1-",
        "1a",
    ] {
        assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn random_integers_are_read_back() {
    with_seed(|rng| {
        for _ in 0..10_000 {
            let value = (rng.next() as i64) >> rng.below(64);
            assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
            assert_eq!(parse_i64(format!("0{value}").as_bytes()), None);
        }
    });
}

#[test]
fn a_short_text_of_digits_is_the_same_double_as_by_the_long_way() {
    for text in ["", "-", ".", "-.", "1.2.3", "1-", "+1", "1e3", "12345678901234.5", "1234567890123456"] {
        assert_eq!(parse_short_f64(text.as_bytes()), None, "{text:?}");
    }
    with_seed(|rng| {
        for _ in 0..20_000 {
            let mut text: Vec<u8> = (0..1 + rng.below(15)).map(|_| b'0' + rng.below(10) as u8).collect();
            if rng.one_in(2) {
                let at = rng.below(text.len());
                text[at] = b'.';
            }
            if rng.one_in(3) {
                text.insert(0, b'-');
            }
            let by_long_way = parse_long_f64(&text).map(f64::to_bits);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert_eq!(parse_short_f64(text.as_bytes()).map(f64::to_bits), by_long_way, "{text:?}");
        }
    });
}

#[test]
fn doubles_are_what_strtod_takes_whole() {
    let cases: &[(&str, f64)] = &[
        ("0", 0.0),
        ("-0", -0.0),
        ("+1", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("1e+2", 100.0),
        ("1E-2", 0.01),
        ("007", 7.0),
        ("inf", f64::INFINITY),
        ("+Inf", f64::INFINITY),
        ("-INFINITY", f64::NEG_INFINITY),
        ("0x10", 16.0),
        ("-0X.8p1", -1.0),
        ("0x1.fffffffffffffp1023", f64::MAX),
        ("0x1p-1074", 5e-324),
        ("0x1.8p-1074", 1e-323),
        ("1.7976931348623157e308", f64::MAX),
        ("5e-324", 5e-324),
        ("0e-99999", 0.0),
        ("0x0p99999", 0.0),
    ];
    for (text, value) in cases {
        assert_eq!(parse_f64(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()), "{text:?}");
    }
    for text in [
        "",
        "-",
        "+",
        ".",
        "e5",
        "1e",
        "1e+",
        " 1",
        "1 ",
        "\t1",
        "1\0",
        "1_0",
        "1,0",
        "nan",
        "-nan",
        "nan(1)",
        "infi",
        "0x",
        "0x.",
        "0x1p",
        "0x1g",
        "--1",
        "1e400",
        "-1e400",
        "1e-400",
        "0x1p1024",
        "0x1p-1075",
        "1.5.2",
        "\u{661}",
    ] {
        assert_eq!(parse_f64(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn doubles_print_seventeen_significant_digits() {
    let cases: &[(f64, &str)] = &[
        (0.1, "0.10000000000000001"),
        (3.0, "3"),
        (-0.0, "-0"),
        (1e21, "1e+21"),
        (1e-7, "9.9999999999999995e-08"),
        (5e-324, "4.9406564584124654e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (0.30000000000000004, "0.30000000000000004"),
        (-5.141, "-5.141"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (99_999_999_999_999_984.0, "99999999999999984"),
        (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
        (1e-4, "0.0001"),
        (1e-5, "1.0000000000000001e-05"),
        (-12.5, "-12.5"),
        (0.000123456, "0.00012345600000000001"),
        // Exactly half of the last digit: to even.
        (1.0 / 33_554_432.0, "2.9802322387695312e-08"),
        (1.0 / 3.0, "0.33333333333333331"),
        (2.0 / 3.0, "0.66666666666666663"),
        (-1e100, "-1e+100"),
        (17_179_869_185.5, "17179869185.5"),
        (4.35, "4.3499999999999996"),
        (6.02e23, "6.02e+23"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
        (-f64::NAN, "nan"),
    ];
    for (value, text) in cases {
        assert_eq!(F64Text::new(*value).as_str(), *text);
    }
}

#[test]
fn random_doubles_are_read_back() {
    with_seed(|rng| {
        for _ in 0..20_000 {
            let value = f64::from_bits(rng.next());
            if value.is_finite() {
                let text = F64Text::new(value);
                assert_eq!(
                    parse_f64(text.as_bytes()).map(f64::to_bits),
                    Some(value.to_bits()),
                    "{}",
                    text.as_str()
                );
                assert!(
                    !text.as_str().contains('.')
                        || !text.as_str().ends_with('0')
                        || text.as_str().contains('e')
                );
            }
        }
    });
}
