//! The commands of a file, in units: a command by itself, or all from MULTI to EXEC.
//!
//! The file is read in chunks, and no length is trusted: memory is allocated as the bytes come in. Lines that begin with
//! `#` are annotations, which tell the time (`#TS:1628217470`).

use crate::protocol::request::REQUEST_LEN_MAX;
use crate::protocol::{ArgRange, Argv, Limits, Parsed, RequestParser};
use std::io::{self, Read};

/// How much of the file is read at once.
const READ_LEN: usize = 1 << 20;

/// Why a file cannot be read to its end.
#[derive(Debug)]
pub enum AofError {
    Io(io::Error),
    /// It ends within the unit that begins at this offset. `in_transaction`: that is a MULTI without EXEC.
    Truncated {
        offset: u64,
        in_transaction: bool,
    },
    /// What begins at this offset is no command.
    Damaged {
        offset: u64,
    },
}

/// What stands in a file.
pub enum AofItem<'w> {
    /// The bytes of a whole unit, and the arguments of each of its commands.
    Unit { bytes: &'w [u8], commands: Commands<'w> },
    /// A line, without its end.
    Annotation(&'w [u8]),
}

/// The commands of a unit.
#[derive(Clone, Copy)]
pub struct Commands<'w> {
    bytes: &'w [u8],
    args: &'w [ArgRange],
    /// For each command: where it begins in the bytes, and where its arguments begin in `args`.
    starts: &'w [(usize, usize)],
}

impl<'w> Commands<'w> {
    /// The arguments of each command.
    pub fn iter(self) -> impl Iterator<Item = Argv<'w>> {
        (0..self.starts.len()).map(move |at| {
            let (start, first_arg) = self.starts[at];
            let (end, last_arg) =
                self.starts.get(at + 1).copied().unwrap_or((self.bytes.len(), self.args.len()));
            Argv::new(&self.bytes[start..end], &self.args[first_arg..last_arg])
        })
    }
}

/// Reads a file from its beginning, or from where an RDB file before the commands ends.
pub struct AofReader<'f> {
    source: &'f mut dyn Read,
    /// What was read, and room for more.
    window: Vec<u8>,
    /// Where what was read ends in it.
    end: usize,
    /// What lies before it in the window has been read.
    start: usize,
    is_at_end: bool,
    /// What has come is to be used before more comes.
    is_stream: bool,
    /// Of the window's byte `start`, in the file.
    offset: u64,
    parser: RequestParser,
    args: Vec<ArgRange>,
    starts: Vec<(usize, usize)>,
}

/// How far the unit at the beginning of the window has been read.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Bytes of its whole commands.
    len: usize,
    in_transaction: bool,
}

enum Step {
    Annotation(usize),
    Unit(usize),
    /// More of the file is needed.
    More,
}

impl<'f> AofReader<'f> {
    /// `offset`: where in the file the source begins.
    pub fn new(source: &'f mut dyn Read, offset: u64) -> AofReader<'f> {
        AofReader {
            source,
            window: Vec::new(),
            end: 0,
            start: 0,
            is_at_end: false,
            is_stream: false,
            offset,
            parser: RequestParser::default(),
            args: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// The same for a source that goes on as long as somebody writes it.
    pub fn of_stream(source: &'f mut dyn Read, offset: u64) -> AofReader<'f> {
        AofReader { is_stream: true, ..AofReader::new(source, offset) }
    }

    /// Where in the file the next item begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item; `None` at the end of the file.
    ///
    /// # Errors
    /// Those of the file. After one, nothing more can be read.
    pub fn next_item(&mut self) -> Result<Option<AofItem<'_>>, AofError> {
        let mut progress = Progress::default();
        self.args.clear();
        self.starts.clear();
        loop {
            match self.step(&mut progress)? {
                Step::Annotation(len) => {
                    let line = self.start..self.start + len;
                    self.pass(len);
                    return Ok(Some(AofItem::Annotation(self.window[line].trim_ascii_end())));
                }
                Step::Unit(len) => {
                    let unit = self.start..self.start + len;
                    self.pass(len);
                    let bytes = &self.window[unit];
                    let commands = Commands { bytes, args: &self.args, starts: &self.starts };
                    return Ok(Some(AofItem::Unit { bytes, commands }));
                }
                Step::More if !self.is_at_end => self.lengthen().map_err(AofError::Io)?,
                Step::More if self.end == self.start => return Ok(None),
                Step::More => {
                    let in_transaction = progress.in_transaction;
                    return Err(AofError::Truncated { offset: self.offset, in_transaction });
                }
            }
        }
    }

    /// Reads on in the unit at the beginning of the window.
    fn step(&mut self, progress: &mut Progress) -> Result<Step, AofError> {
        let limits = Limits { bulk_len_max: REQUEST_LEN_MAX as u64, ..Limits::default() };
        loop {
            let rest = &self.window[self.start + progress.len..self.end];
            let damaged = AofError::Damaged { offset: self.offset + progress.len as u64 };
            match rest.first() {
                None => return Ok(Step::More),
                Some(b'*') => {}
                Some(b'#') => {
                    let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(Step::More) };
                    if !progress.in_transaction {
                        return Ok(Step::Annotation(end + 1));
                    }
                    // Within a transaction it is passed over with it.
                    progress.len += end + 1;
                    continue;
                }
                Some(_) => return Err(damaged),
            }
            let first_arg = self.args.len();
            match self.parser.parse(rest, &limits, &mut self.args) {
                Parsed::Request { consumed } => {
                    // The parser passes over them unseen. A page that a power cut has lost may begin in the last value.
                    let has_ends =
                        |arg: &ArgRange| rest[arg.start as usize + arg.len as usize..].starts_with(b"\r\n");
                    if !self.args[first_arg..].iter().all(has_ends) {
                        return Err(damaged);
                    }
                    let name = Argv::new(rest, &self.args[first_arg..]).arg(0);
                    let (begins, ends) =
                        (name.eq_ignore_ascii_case(b"multi"), name.eq_ignore_ascii_case(b"exec"));
                    self.starts.push((progress.len, first_arg));
                    progress.len += consumed;
                    progress.in_transaction = (progress.in_transaction || begins) && !ends;
                    if !progress.in_transaction {
                        return Ok(Step::Unit(progress.len));
                    }
                }
                Parsed::Incomplete { .. } => return Ok(Step::More),
                Parsed::Empty { .. } | Parsed::Inline { .. } | Parsed::Error(_) => return Err(damaged),
            }
        }
    }

    fn pass(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    /// Reads more of the file into the window.
    fn lengthen(&mut self) -> io::Result<()> {
        self.window.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.is_stream {
            // Often little has come: the room for more is made once, and not for each read.
            if self.window.len() < self.end + READ_LEN {
                self.window.resize(self.end + READ_LEN, 0);
            }
            let len = self.source.read(&mut self.window[self.end..])?;
            self.end += len;
            self.is_at_end = len == 0;
            return Ok(());
        }
        self.window.truncate(self.end);
        let wanted = READ_LEN.max(self.end);
        let read = (&mut *self.source).take(wanted as u64).read_to_end(&mut self.window)?;
        self.end += read;
        self.is_at_end = read < wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> String {
        let args: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        format!("*{}\r\n{args}", words.len())
    }

    /// A source that gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let len = buf.len().min(1);
            self.0.read(&mut buf[..len])
        }
    }

    fn read_all(source: &mut dyn Read) -> (Vec<String>, Result<u64, AofError>) {
        let mut reader = AofReader::new(source, 0);
        let mut items = Vec::new();
        loop {
            match reader.next_item() {
                Ok(Some(AofItem::Unit { commands, .. })) => {
                    let names: Vec<String> = commands
                        .iter()
                        .map(|argv| {
                            String::from_utf8_lossy(&argv.iter().collect::<Vec<_>>().join(&b' ')).into()
                        })
                        .collect();
                    items.push(names.join("; "));
                }
                Ok(Some(AofItem::Annotation(line))) => items.push(String::from_utf8_lossy(line).into()),
                Ok(None) => return (items, Ok(reader.offset())),
                Err(error) => return (items, Err(error)),
            }
        }
    }

    #[test]
    fn a_transaction_is_one_unit_and_annotations_stand_between_units() {
        let text = [
            "#TS:1\r\n".to_owned(),
            request(&["SET", "a", "1"]),
            request(&["MULTI"]),
            request(&["SET", "b", "2"]),
            "#TS:2\r\n".to_owned(),
            request(&["DEL", "a"]),
            request(&["EXEC"]),
        ]
        .concat();
        let (items, outcome) = read_all(&mut Trickle(text.as_bytes()));
        assert_eq!(items, ["#TS:1", "SET a 1", "MULTI; SET b 2; DEL a; EXEC"]);
        assert_eq!(outcome.expect("it is whole"), text.len() as u64);
    }

    #[test]
    fn wherever_a_file_is_cut_off_all_whole_units_before_are_found() {
        let units = [
            request(&["SET", "a", "1"]),
            request(&["MULTI"]) + &request(&["SET", "b", "2"]) + &request(&["EXEC"]),
            request(&["SET", "c", "3"]),
        ];
        let text = units.concat();
        let mut ends = Vec::new();
        units.iter().fold(0, |end, unit| {
            ends.push(end + unit.len());
            end + unit.len()
        });
        for len in 0..=text.len() {
            let (items, outcome) = read_all(&mut &text.as_bytes()[..len]);
            let whole = ends.iter().filter(|&&end| end <= len).count();
            assert_eq!(items.len(), whole, "cut off at {len}");
            let valid = ends[..whole].last().copied().unwrap_or(0) as u64;
            match outcome {
                Ok(end) => assert_eq!((end, end), (len as u64, valid)),
                Err(AofError::Truncated { offset, .. }) => assert_eq!(offset, valid),
                Err(error) => panic!("cut off at {len}: {error:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_command_is_found_with_its_offset() {
        let text = request(&["SET", "a", "1"]) + "!!!" + &request(&["SET", "a", "2"]);
        let (items, outcome) = read_all(&mut text.as_bytes());
        assert_eq!(items.len(), 1);
        assert!(
            matches!(outcome, Err(AofError::Damaged { offset }) if offset == (text.len() - 3) as u64 / 2)
        );
        for text in ["*0\r\n", "*1\r\n:3\r\nabc\r\n", "*x\r\n", "*1\r\n$3\r\nab\0\0\0"] {
            let (items, outcome) = read_all(&mut text.as_bytes());
            assert!(items.is_empty() && matches!(outcome, Err(AofError::Damaged { offset: 0 })), "{text:?}");
        }
    }
}
