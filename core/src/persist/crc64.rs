//! The checksum of RDB files and DUMP payloads: CRC-64 with the polynomial of Jones, as Redis has it.

use crc_fast::{CrcAlgorithm, Digest, checksum};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Redis;

/// So many bytes of short pieces are gathered: the checksum of many bytes at once is made with vectors.
const GATHERED_MAX: usize = 1024;

/// The checksum of bytes that come in pieces.
#[derive(Clone)]
pub struct Crc64 {
    digest: Digest,
    gathered: [u8; GATHERED_MAX],
    gathered_len: usize,
}

impl Crc64 {
    pub fn new() -> Crc64 {
        Crc64 { digest: Digest::new(ALGORITHM), gathered: [0; GATHERED_MAX], gathered_len: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if bytes.len() > GATHERED_MAX - self.gathered_len {
            self.digest.update(&self.gathered[..self.gathered_len]);
            self.gathered_len = 0;
        }
        match self.gathered[self.gathered_len..].get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.gathered_len += bytes.len();
            }
            None => self.digest.update(bytes),
        }
    }

    pub fn value(&self) -> u64 {
        let mut digest = self.digest;
        digest.update(&self.gathered[..self.gathered_len]);
        digest.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Crc64 {
        Crc64::new()
    }
}

pub fn crc64(bytes: &[u8]) -> u64 {
    checksum(ALGORITHM, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of Jones, with its bits in the order of the least significant one first.
    const POLYNOMIAL: u64 = 0x95AC_9329_AC4B_C9B5;

    #[test]
    fn it_is_redis_checksum() {
        assert_eq!(crc64(b"123456789"), 0xE9C6_D914_C4B8_D9CA);
        let mut pieces = Crc64::new();
        pieces.update(b"1234");
        pieces.update(b"56789");
        assert_eq!(pieces.value(), crc64(b"123456789"));
        assert_eq!(Crc64::default().value(), 0);
        // Long enough for vectors, in pieces that do not fit them.
        let long: Vec<u8> = (0..10_000u32).map(|at| (at * at >> 3) as u8).collect();
        let bitwise = long.iter().fold(0u64, |crc, &byte| {
            (0..8).fold(crc ^ u64::from(byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 })
        });
        let mut pieces = Crc64::new();
        let (short, rest) = long.split_at(5000);
        short.chunks(333).for_each(|piece| pieces.update(piece));
        rest.chunks(1111).for_each(|piece| pieces.update(piece));
        assert_eq!((crc64(&long), pieces.value()), (bitwise, bitwise));
    }
}
