//! Passwords. A password itself is never kept: what is kept, shown and compared is its SHA-256 digest.

use hmac_sha256::Hash;

const DIGEST_LEN_BYTES: usize = 32;

/// The SHA-256 digest of a password.
#[derive(Clone, Copy)]
pub struct PasswordHash([u8; DIGEST_LEN_BYTES]);

impl PasswordHash {
    pub fn of(password: &[u8]) -> PasswordHash {
        PasswordHash(Hash::hash(password))
    }

    /// Reads 64 lower-case hexadecimal digits. `None`: it is anything else.
    pub fn from_hex(text: &[u8]) -> Option<PasswordHash> {
        if text.len() != 2 * DIGEST_LEN_BYTES {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; DIGEST_LEN_BYTES];
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(PasswordHash(digest))
    }

    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes the same time whatever the digests have in common.
    pub fn is_same(&self, other: &PasswordHash) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let hex = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        let hash = PasswordHash::of(b"foo");
        assert_eq!(hash.to_hex(), hex);
        assert!(PasswordHash::from_hex(hex.as_bytes()).is_some_and(|read| read.is_same(&hash)));
        assert!(!PasswordHash::of(b"fop").is_same(&hash));
    }

    #[test]
    fn only_64_lower_case_digits_are_a_digest() {
        let hex = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        for bad in [&hex[1..], &format!("{hex}a"), &hex.to_ascii_uppercase(), &hex.replace('c', "g"), ""] {
            assert!(PasswordHash::from_hex(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
