//! What libc's own functions write and read is the measure.

use super::*;

unsafe extern "C" {
    fn snprintf(to: *mut c_char, len: usize, format: *const c_char, ...) -> std::ffi::c_int;
}

fn as_c_writes_it(value: f64, precision: usize) -> String {
    let mut bytes = [0_u8; 64];
    // SAFETY: the format takes an integer and a double; the buffer's size is given.
    let len = unsafe {
        snprintf(
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            c"%.*g".as_ptr(),
            precision as std::ffi::c_int,
            value,
        )
    };
    String::from_utf8(bytes[..len as usize].to_vec()).unwrap()
}

fn as_we_write_it(value: f64, precision: usize) -> String {
    let mut bytes = [0; NUMBER_LEN_MAX];
    let len = format_g(value, precision, &mut bytes);
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

/// A generator that needs no more than a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Numbers of all magnitudes, of few digits, near powers of ten, and at the midst between two roundings.
    fn number(&mut self) -> f64 {
        let bits = self.next();
        let few = (self.next() % 1_000_000_000_000_000) as f64;
        let power = 10_f64.powi((self.next() % 40) as i32 - 20);
        match bits % 7 {
            0 => f64::from_bits(self.next()),
            1 => few / 10_f64.powi((self.next() % 17) as i32),
            2 => (self.next() % 100_000) as f64 / 100.0,
            3 => f64::from_bits(power.to_bits().wrapping_add(self.next() % 5).wrapping_sub(2)),
            4 => few + 0.5,
            5 => (few / 10.0).floor() + 0.25 * (self.next() % 4) as f64,
            _ => -(self.next() as f64) * power,
        }
    }
}

fn seeds() -> [u64; 2] {
    let fresh = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64) | 1;
    println!("seed {fresh}");
    [0x5eed, fresh]
}

#[test]
fn numbers_are_written_as_printf_writes_them() {
    for seed in seeds() {
        let mut random = Random(seed);
        for _ in 0..200_000 {
            let value = random.number();
            let precision = 1 + (random.next() % 28).min(13) as usize;
            let value = if value.is_nan() { f64::NAN } else { value };
            assert_eq!(
                as_we_write_it(value, precision),
                as_c_writes_it(value, precision),
                "seed {seed}, {value:e}, {precision} digits"
            );
        }
    }
}

#[test]
fn numbers_at_the_borders_are_written_as_printf_writes_them() {
    let values = [
        0.0,
        -0.0,
        0.5,
        0.1,
        1e-4,
        9.9999e-5,
        0.00001,
        1e13,
        1e14,
        99_999_999_999_999.0,
        999_999_999_999_999.0,
        1e15,
        1e21,
        1e22,
        1e23,
        1e100,
        1e-100,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        12_345_678_901_234.5,
        12_345_678_901_235.5,
        0.999_999_999_999_999_9,
        9.999_999_999_999_995,
        99_999_999_999_999.5,
        2.5,
        1.5,
        1e5,
        123_456.0,
    ];
    for value in values {
        for precision in 1..=PRECISION_MAX {
            assert_eq!(
                as_we_write_it(value, precision),
                as_c_writes_it(value, precision),
                "{value:e}, {precision}"
            );
        }
    }
}

#[test]
fn numbers_are_read_as_strtod_reads_them() {
    let pieces: [&[u8]; 20] = [
        b"0",
        b"1",
        b"9",
        b"12345678901234567",
        b".",
        b".",
        b"e",
        b"E",
        b"+",
        b"-",
        b"x",
        b"inf",
        b"nan",
        b"infinity",
        b"(a)",
        b"p",
        b"00",
        b"5",
        b"e308",
        b"f",
    ];
    for seed in seeds() {
        let mut random = Random(seed);
        for _ in 0..200_000 {
            let mut text: Vec<u8> = Vec::new();
            for _ in 0..random.next() % 8 {
                text.extend(pieces[(random.next() % 20) as usize]);
            }
            text.push(0);
            let (value, len) = parse(&text);
            let (expected, expected_len) = parse_as_c(&text);
            let shown = String::from_utf8_lossy(&text);
            assert_eq!((value.to_bits(), len), (expected.to_bits(), expected_len), "seed {seed}, {shown}");
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut random = Random(0x5eed);
    for _ in 0..100_000 {
        let value = (random.next() % 100_000_000) as f64 / 1000.0;
        let text = format!("{}\0", as_we_write_it(value, 14));
        assert_eq!(parse(text.as_bytes()), (value, text.len() - 1), "{value:e}");
    }
}
