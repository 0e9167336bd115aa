//! Manifests of any bytes: no bytes do harm, and a list that was read is written, continued and read again as it was.
//!
//! Input: the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::persist::aof::Manifest;

const NAME_LEN_MAX: usize = 200;

fuzz_target!(|text: &[u8]| {
    let Ok(mut manifest) = Manifest::parse(text) else { return };
    // Names in quotes are longer, and a line has its limit.
    if manifest.files().chain(&manifest.history).any(|info| info.name.len() > NAME_LEN_MAX) {
        return;
    }
    manifest.add_base(b"name with blanks", "rdb");
    manifest.add_incr(b"appendonly.aof");
    manifest.retire_incrs(1);
    let read = Manifest::parse(&manifest.to_bytes()).expect("what was written can be read");
    assert_eq!((read.base, read.incrs, read.history), (manifest.base, manifest.incrs, manifest.history));
});
