//! Reads a file to its end: a window moves along it, from item to item.

use super::file::{FileReader, Item};
use super::read::ReadError;
use std::fmt;
use std::io::{self, Read};

/// How much of the file is read at once.
const READ_LEN: usize = 1 << 20;

/// Why a file cannot be read to its end.
#[derive(Debug)]
pub enum FileError {
    Io(io::Error),
    Read(ReadError),
    /// It ends within the item that begins at this offset.
    Truncated {
        offset: u64,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(error) => write!(f, "{error}"),
            FileError::Read(error) => write!(f, "{error}"),
            FileError::Truncated { offset } => {
                write!(f, "it ends within what begins at byte {offset}: a part is missing")
            }
        }
    }
}

impl From<ReadError> for FileError {
    fn from(error: ReadError) -> FileError {
        FileError::Read(error)
    }
}

/// Calls `each` with all items of a file, and the offset at which each ends.
///
/// # Errors
/// Those of the file, and the first one of `each`.
pub fn for_each_item<E: From<FileError>>(
    source: &mut dyn Read,
    reader: &mut FileReader,
    mut each: impl FnMut(Item<'_>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut window = Window { source, bytes: Vec::new(), start: 0, end: 0, is_at_end: false };
    loop {
        match reader.next(&window.bytes[window.start..window.end]) {
            Ok((item, len)) => {
                let is_end = matches!(item, Item::End);
                each(item, reader.offset())?;
                if is_end {
                    return Ok(());
                }
                window.start += len;
            }
            Err(ReadError::Incomplete { len_min }) if !window.is_at_end => {
                window.lengthen(len_min).map_err(FileError::Io)?;
            }
            Err(ReadError::Incomplete { .. }) => {
                return Err(FileError::Truncated { offset: reader.offset() }.into());
            }
            Err(error) => return Err(FileError::Read(error).into()),
        }
    }
}

struct Window<'f> {
    source: &'f mut dyn Read,
    bytes: Vec<u8>,
    /// What lies before it has been used, and what lies behind `end` was not read yet.
    start: usize,
    end: usize,
    is_at_end: bool,
}

impl Window<'_> {
    /// Lengthens it to at least `len_min` bytes, if the file has as many. It takes what there is at once: what comes slowly, by a
    /// connection, is used as it comes. Memory is allocated as the bytes come in.
    fn lengthen(&mut self, len_min: usize) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < len_min && !self.is_at_end {
            let wanted = (len_min - self.end).clamp(READ_LEN, READ_LEN.max(self.end));
            let until = self.end + wanted;
            if self.bytes.len() < until {
                self.bytes.resize(until, 0);
            }
            match self.source.read(&mut self.bytes[self.end..until]) {
                Ok(len) => {
                    self.end += len;
                    self.is_at_end = len == 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
