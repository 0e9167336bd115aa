//! The checksum of RDB files and DUMP payloads: CRC-64 with the polynomial of Jones, as Redis has it.

use crc::{CRC_64_REDIS, Crc, Digest, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The checksum of bytes that come in pieces.
#[derive(Clone)]
pub struct Crc64(Digest<'static, u64, Table<16>>);

impl Crc64 {
    pub fn new() -> Crc64 {
        Crc64(CRC.digest())
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn value(&self) -> u64 {
        self.0.clone().finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Crc64 {
        Crc64::new()
    }
}

pub fn crc64(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_redis_checksum() {
        assert_eq!(crc64(b"123456789"), 0xE9C6_D914_C4B8_D9CA);
        let mut pieces = Crc64::new();
        pieces.update(b"1234");
        pieces.update(b"56789");
        assert_eq!(pieces.value(), crc64(b"123456789"));
        assert_eq!(Crc64::default().value(), 0);
    }
}
