//! Files of commands of any bytes: no bytes do harm, the units are the same however the file is read, and what was read is
//! written and read again as it was.
//!
//! Input: a byte for how many bytes are read at once, then a file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::persist::aof::read::{AofError, AofItem, AofReader};
use shardis_pure::persist::aof::rewrite::write_request;
use std::io::{self, Read};

/// Gives so many bytes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    len_max: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.len_max.min(into.len()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(len);
        into[..len].copy_from_slice(piece);
        self.rest = rest;
        Ok(len)
    }
}

/// The arguments of each command of each unit, and where and how the file cannot be read further.
type Units = (Vec<Vec<Vec<Vec<u8>>>>, Option<(u64, bool)>);

fn units(file: &[u8], len_max: usize) -> Units {
    let mut source = Pieces { rest: file, len_max };
    let mut reader = AofReader::new(&mut source, 0);
    let mut units = Vec::new();
    loop {
        let before = reader.offset();
        match reader.next_item() {
            Ok(Some(AofItem::Unit { bytes, commands })) => {
                assert_eq!(bytes, &file[before as usize..before as usize + bytes.len()]);
                units.push(commands.iter().map(|argv| argv.iter().map(<[u8]>::to_vec).collect()).collect());
            }
            Ok(Some(AofItem::Annotation(_))) => {}
            Ok(None) => {
                assert_eq!(reader.offset(), file.len() as u64);
                return (units, None);
            }
            Err(AofError::Io(error)) => panic!("the source has no errors: {error}"),
            Err(AofError::Truncated { offset, .. }) => return (units, Some((offset, true))),
            Err(AofError::Damaged { offset }) => return (units, Some((offset, false))),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece_len, file)) = input.split_first() else { return };
    let (read, end) = units(file, usize::MAX);
    assert_eq!((&read, &end), (&units(file, usize::from(piece_len) + 1).0, &end));
    assert!(end.is_none_or(|(offset, _)| offset <= file.len() as u64));

    let mut written = Vec::new();
    for command in read.iter().flatten() {
        write_request(&mut written, &command.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    assert_eq!(units(&written, usize::MAX), (read, None));
});
