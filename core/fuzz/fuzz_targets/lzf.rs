//! LZF: what was compressed comes back, and no bytes do harm as what is to be decompressed.
//!
//! Input: a length, and bytes, which are compressed, and taken for what was compressed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::types::lzf::{compress, decompress};

fuzz_target!(|input: (u16, &[u8])| {
    let (len, bytes) = input;
    let mut packed = Vec::new();
    if compress(bytes, 1, &mut packed) {
        assert!(packed.len() < bytes.len());
        let mut output = Vec::new();
        assert!(decompress(&packed, bytes.len(), &mut output));
        assert_eq!(output, bytes);
    } else {
        assert!(packed.is_empty());
    }

    let mut output = b"before".to_vec();
    let is_sound = decompress(bytes, usize::from(len), &mut output);
    assert_eq!(output.len(), b"before".len() + if is_sound { usize::from(len) } else { 0 });
    assert!(output.starts_with(b"before"));
});
