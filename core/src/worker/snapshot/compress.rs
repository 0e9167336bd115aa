//! Compression of the big strings of an RDB file, on the thread that writes it: shards hand them over as they are, piece by piece.
//!
//! A compressed string begins with its length, so it is held until its end has come. The pieces are compressed one by one: what
//! LZF makes of several inputs, one behind the other, is what it could have made of all of them together, as it refers to bytes by
//! their distance. A string that does not become shorter, or of which too much would be held, is written as it is.

use crate::persist::rdb::write::{COMPRESSION_GAIN, Writer};
use crate::types::lzf;
use crate::types::save::Chunk;

/// More is not held of a string.
const HELD_BYTES_MAX: usize = if cfg!(test) { 20_000 } else { 64 << 20 };

/// Compresses the strings of chunks that follow each other.
#[derive(Default)]
pub(super) struct Compressor {
    open: Option<OpenString>,
}

/// A string whose end has not come yet.
struct OpenString {
    len: usize,
    left: usize,
    pieces: Vec<Piece>,
    /// Of the pieces, once they are all in LZF.
    packed_len: usize,
    held_bytes: usize,
    /// It is written as it is, up to here.
    is_plain: bool,
}

enum Piece {
    Packed { bytes: Vec<u8>, len: usize },
    Plain(Vec<u8>),
}

impl Compressor {
    /// What is to be written when this chunk has come.
    pub(super) fn take(&mut self, chunk: Chunk) -> Vec<Vec<u8>> {
        let Chunk { bytes, strings } = chunk;
        if self.open.is_none() && strings.is_empty() {
            return vec![bytes];
        }
        let (mut out, mut at, mut strings) = (Vec::new(), 0, strings.into_iter());
        loop {
            if let Some(mut open) = self.open.take() {
                let len = open.left.min(bytes.len() - at);
                open.add(&bytes[at..at + len], &mut out);
                at += len;
                if open.left > 0 {
                    self.open = Some(open);
                    return out;
                }
                open.end(&mut out);
            }
            let string = strings.next();
            let end = string.map_or(bytes.len(), |string| string.at);
            if end > at {
                out.push(bytes[at..end].to_vec());
            }
            let Some(string) = string else { return out };
            at = end + length(string.len).len();
            self.open = Some(OpenString::new(string.len));
        }
    }
}

/// A length, as files have it.
fn length(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out, false).length(len as u64);
    out
}

impl OpenString {
    fn new(len: usize) -> OpenString {
        OpenString { len, left: len, pieces: Vec::new(), packed_len: 0, held_bytes: 0, is_plain: false }
    }

    fn add(&mut self, bytes: &[u8], out: &mut Vec<Vec<u8>>) {
        self.left -= bytes.len();
        if bytes.is_empty() {
            return;
        }
        if self.is_plain {
            out.push(bytes.to_vec());
            return;
        }
        let mut packed = Vec::new();
        let piece = if lzf::compress(bytes, 1, &mut packed) {
            packed.shrink_to_fit();
            self.packed_len += packed.len();
            self.held_bytes += packed.len();
            Piece::Packed { bytes: packed, len: bytes.len() }
        } else {
            self.packed_len += lzf::literals_len(bytes.len());
            self.held_bytes += bytes.len();
            Piece::Plain(bytes.to_vec())
        };
        self.pieces.push(piece);
        if self.held_bytes > HELD_BYTES_MAX {
            self.write_plain(out);
        }
    }

    /// All of it has come.
    fn end(mut self, out: &mut Vec<Vec<u8>>) {
        if self.is_plain {
            return;
        }
        if self.packed_len + COMPRESSION_GAIN > self.len {
            self.write_plain(out);
            return;
        }
        let mut head = Vec::new();
        Writer::new(&mut head, true).begin_compressed(self.packed_len, self.len);
        out.push(head);
        out.extend(self.pieces.into_iter().map(|piece| match piece {
            Piece::Packed { bytes, .. } => bytes,
            Piece::Plain(bytes) => {
                let mut literals = Vec::new();
                lzf::push_literals(&bytes, &mut literals);
                literals
            }
        }));
    }

    /// Writes what has come as it is. What follows is written so as well.
    fn write_plain(&mut self, out: &mut Vec<Vec<u8>>) {
        self.is_plain = true;
        out.push(length(self.len));
        out.extend(self.pieces.drain(..).map(|piece| match piece {
            Piece::Plain(bytes) => bytes,
            Piece::Packed { bytes, len } => {
                let mut plain = Vec::new();
                let is_sound = lzf::decompress(&bytes, len, &mut plain);
                assert!(is_sound, "it was compressed here");
                plain
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::rdb::read::Reader;
    use crate::testing::{Rng, with_seed};
    use crate::types::save::StringAt;

    /// Pieces that can be compressed, and others.
    fn string(rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..rng.below(8) {
            let len = rng.below(6_000);
            let kind = rng.below(3);
            bytes.extend((0..len).map(|at| match kind {
                0 => (at % 50) as u8,
                1 => rng.next() as u8,
                _ => b'x',
            }));
        }
        bytes.resize(bytes.len().max(100), b'y');
        bytes
    }

    fn run(rng: &mut Rng) {
        let strings: Vec<Vec<u8>> = (0..1 + rng.below(4)).map(|_| string(rng)).collect();
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for string in &strings {
            all.extend_from_slice(b"head");
            places.push((all.len(), string.len()));
            all.extend(length(string.len()));
            all.extend_from_slice(string);
        }
        all.extend_from_slice(b"end");
        let (mut compressor, mut written, mut at) = (Compressor::default(), Vec::new(), 0);
        while at < all.len() {
            let mut end = (at + 1 + rng.below(5_000)).min(all.len());
            // A length is in one chunk.
            if let Some((place, _)) = places.iter().find(|(place, _)| (*place..*place + 6).contains(&end)) {
                end = place + 6;
            }
            let within = places.iter().filter(|(place, _)| (at..end).contains(place));
            let strings = within.map(|&(place, len)| StringAt { at: place - at, len }).collect();
            let pieces = compressor.take(Chunk { bytes: all[at..end].to_vec(), strings });
            written.extend(pieces.concat());
            at = end;
        }
        assert!(written.len() <= all.len());
        let mut reader = Reader::new(&written, 0);
        for string in &strings {
            assert_eq!(reader.take(4), Ok(&b"head"[..]));
            let before = reader.position();
            assert_eq!(reader.string().and_then(|string| string.into_vec()).as_deref(), Ok(&string[..]));
            let of_one_byte = string.len() > 5_000 && string.iter().all(|byte| *byte == string[0]);
            assert!(!of_one_byte || reader.position() - before < string.len() / 20);
        }
        assert_eq!(reader.take(3), Ok(&b"end"[..]));
    }

    #[test]
    fn strings_come_back_however_they_are_cut_into_chunks() {
        (0..300).for_each(|_| with_seed(run));
    }

    #[test]
    fn a_string_of_which_too_much_would_be_held_is_written_as_it_is() {
        let mut rng = Rng::new(1);
        let string: Vec<u8> = (0..3 * HELD_BYTES_MAX).map(|_| rng.next() as u8).collect();
        let mut compressor = Compressor::default();
        let first =
            Chunk { bytes: length(string.len()), strings: vec![StringAt { at: 0, len: string.len() }] };
        let mut written = compressor.take(first).concat();
        for piece in string.chunks(1000) {
            written.extend(compressor.take(Chunk { bytes: piece.to_vec(), strings: Vec::new() }).concat());
            assert!(compressor.open.as_ref().is_none_or(|open| open.held_bytes <= HELD_BYTES_MAX + 1000));
        }
        assert_eq!(written, [length(string.len()), string].concat());
    }
}
