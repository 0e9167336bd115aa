//! What redis-check-aof says of an append-only file, and how it repairs one: it cuts the last file off behind its last
//! whole unit, or before the first annotation of a later time.

use super::manifest::{FileInfo, Manifest};
use crate::persist::rdb::check::check as check_rdb;
use std::io::{self, BufRead, BufReader, Read, Write};

/// What is to be done besides looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    None,
    /// Cut off what is damaged at the end.
    Fix,
    /// Cut off what is later than this unix time in seconds.
    ToTimestamp(u64),
}

/// What the check needs of the system.
pub trait CheckFiles {
    /// Opens a file to read it from its beginning, and tells its length in bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &[u8]) -> io::Result<(Box<dyn Read>, u64)>;

    /// Cuts a file off behind so many bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn truncate(&self, path: &[u8], len_bytes: u64) -> io::Result<()>;

    /// Whether the user agrees.
    fn confirms(&self) -> bool;
}

/// How a check has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Valid,
    Empty,
    Truncated,
    /// It is not valid; what follows is not looked at.
    Stop,
}

/// A file to be checked.
#[derive(Clone, Copy)]
struct Part<'a> {
    path: &'a [u8],
    /// As it is shown.
    name: &'a str,
    is_last: bool,
}

/// Checks a file, or all files of a manifest, and writes what redis-check-aof would. Returns whether all is well.
///
/// # Errors
/// Those of writing, and of files that cannot be read.
pub fn check(
    path: &[u8],
    repair: Repair,
    files: &dyn CheckFiles,
    now_ms: i64,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let mut checker = Checker { files, repair, now_ms, out, line_number: 1 };
    let (mut source, _) = files.open(path)?;
    if !is_manifest(&mut source)? {
        writeln!(checker.out, "Start checking Old-Style AOF")?;
        let name = String::from_utf8_lossy(path).into_owned();
        let part = Part { path, name: &name, is_last: true };
        return Ok(match checker.check_part(part)? {
            Verdict::Valid => {
                writeln!(checker.out, "AOF {name} is valid")?;
                true
            }
            Verdict::Empty => {
                writeln!(checker.out, "AOF {name} is empty")?;
                true
            }
            Verdict::Truncated => true,
            Verdict::Stop => false,
        });
    }
    let mut text = Vec::new();
    files.open(path)?.0.read_to_end(&mut text)?;
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(error) => {
            writeln!(checker.out, "\n*** FATAL AOF MANIFEST FILE ERROR ***")?;
            writeln!(checker.out, "Reading the manifest file, at line {}", error.line_number)?;
            writeln!(checker.out, ">>> '{}'\n{}", error.line.escape_ascii(), error.why)?;
            return Ok(false);
        }
    };
    checker.check_all(&manifest, path)
}

/// Whether a file is a manifest: its first line that is no comment begins with `file`.
fn is_manifest(source: &mut dyn Read) -> io::Result<bool> {
    let mut source = BufReader::new(source);
    loop {
        let mut line = Vec::new();
        (&mut source).take(1024).read_until(b'\n', &mut line)?;
        if !line.starts_with(b"#") {
            return Ok(line.starts_with(b"file"));
        }
        // An annotation of the time is a comment only in a file of commands.
        if line.starts_with(b"#TS:") {
            return Ok(false);
        }
    }
}

struct Checker<'a> {
    files: &'a dyn CheckFiles,
    repair: Repair,
    now_ms: i64,
    out: &'a mut dyn Write,
    /// Of the next line, counted through all files.
    line_number: u64,
}

impl Checker<'_> {
    fn check_all(&mut self, manifest: &Manifest, path: &[u8]) -> io::Result<bool> {
        let dir = path.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &path[..=slash]);
        writeln!(self.out, "Start checking Multi Part AOF")?;
        for (at, FileInfo { name, .. }) in manifest.files().enumerate() {
            let is_base = at == 0 && manifest.base.is_some();
            let path = [dir, name].concat();
            let kind = if is_base { "BASE" } else { "INCR" };
            if is_base {
                let (mut source, _) = self.files.open(&path)?;
                let format = if begins_with_rdb(&mut source)? { "RDB" } else { "RESP" };
                writeln!(self.out, "Start to check BASE AOF ({format} format).")?;
            }
            if at == usize::from(manifest.base.is_some()) {
                writeln!(self.out, "Start to check INCR files.")?;
            }
            let name = String::from_utf8_lossy(name);
            let mut is_last = true;
            for later in manifest.files().skip(at + 1) {
                // One that is empty has nothing to be read without what comes before.
                let later = [dir, &later.name].concat();
                is_last = is_last && self.files.open(&later).is_ok_and(|(_, len_bytes)| len_bytes == 0);
            }
            match self.check_part(Part { path: &path, name: &name, is_last })? {
                Verdict::Valid => writeln!(self.out, "{kind} AOF {name} is valid")?,
                Verdict::Empty => writeln!(self.out, "{kind} AOF {name} is empty")?,
                Verdict::Truncated => {}
                Verdict::Stop => return Ok(false),
            }
        }
        writeln!(self.out, "All AOF files and manifest are valid")?;
        Ok(true)
    }

    fn check_part(&mut self, part: Part<'_>) -> io::Result<Verdict> {
        let (mut source, len_bytes) = self.files.open(part.path)?;
        if len_bytes == 0 {
            return Ok(Verdict::Empty);
        }
        let mut start = 0;
        if begins_with_rdb(&mut source)? {
            let (mut source, _) = self.files.open(part.path)?;
            let Some(end) = check_rdb(&mut source, part.name, self.now_ms, self.out)? else {
                writeln!(self.out, "RDB preamble of AOF file is not sane, aborting.")?;
                return Ok(Verdict::Stop);
            };
            writeln!(self.out, "RDB preamble is OK, proceeding with AOF tail...")?;
            start = end;
        }
        let (mut source, _) = self.files.open(part.path)?;
        io::copy(&mut (&mut source).take(start), &mut io::sink())?;
        let mut commands = CommandCheck {
            source: BufReader::new(source),
            offset: start,
            line_number: self.line_number,
            valid_up_to: start,
            string_offset: start,
            until: match self.repair {
                Repair::ToTimestamp(until) => Some(until),
                Repair::None | Repair::Fix => None,
            },
        };
        let outcome = commands.run(part.name);
        let valid_up_to = commands.valid_up_to;
        self.line_number = commands.line_number;
        match outcome {
            Ok(Some(offset)) => self.cut_to_timestamp(part, offset),
            Ok(None) => {
                if let Repair::ToTimestamp(until) = self.repair {
                    writeln!(self.out, "Truncate nothing in AOF {} to timestamp {until}", part.name)?;
                    return Ok(Verdict::Valid);
                }
                self.conclude(part, len_bytes, valid_up_to)
            }
            Err(Fault::Io(error)) => Err(error),
            Err(Fault::Text(text)) => {
                writeln!(self.out, "{text}")?;
                self.conclude(part, len_bytes, valid_up_to)
            }
        }
    }

    /// Cuts a file off before the annotation at `offset`.
    fn cut_to_timestamp(&mut self, part: Part<'_>, offset: u64) -> io::Result<Verdict> {
        let name = part.name;
        let Repair::ToTimestamp(until) = self.repair else { unreachable!("only then it is looked for") };
        if offset == 0 {
            writeln!(self.out, "AOF {name} has nothing before timestamp {until}, aborting...")?;
            return Ok(Verdict::Stop);
        }
        if !part.is_last {
            writeln!(
                self.out,
                "Failed to truncate AOF {name} to timestamp {until} to offset {offset} because it is not the last file."
            )?;
            writeln!(
                self.out,
                "If you insist, please delete all files after this file according to the manifest file and delete the \
                 corresponding records in manifest file manually. Then re-run redis-check-aof."
            )?;
            return Ok(Verdict::Stop);
        }
        if let Err(error) = self.files.truncate(part.path, offset) {
            writeln!(self.out, "Failed to truncate AOF {name} to timestamp {until}: {error}")?;
            return Ok(Verdict::Stop);
        }
        writeln!(self.out, "Successfully truncated AOF {name} to timestamp {until}")?;
        Ok(Verdict::Truncated)
    }

    fn conclude(&mut self, part: Part<'_>, len_bytes: u64, valid_up_to: u64) -> io::Result<Verdict> {
        let (name, line_number) = (part.name, self.line_number);
        let diff = len_bytes.saturating_sub(valid_up_to);
        writeln!(
            self.out,
            "AOF analyzed: filename={name}, size={len_bytes}, ok_up_to={valid_up_to}, ok_up_to_line={line_number}, \
             diff={diff}"
        )?;
        if diff == 0 {
            return Ok(Verdict::Valid);
        }
        if self.repair != Repair::Fix {
            writeln!(self.out, "AOF {name} is not valid. Use the --fix option to try fixing it.")?;
            return Ok(Verdict::Stop);
        }
        if !part.is_last {
            writeln!(self.out, "Failed to truncate AOF {name} because it is not the last file")?;
            return Ok(Verdict::Stop);
        }
        writeln!(
            self.out,
            "This will shrink the AOF {name} from {len_bytes} bytes, with {diff} bytes, to {valid_up_to} bytes"
        )?;
        write!(self.out, "Continue? [y/N]: ")?;
        self.out.flush()?;
        if !self.files.confirms() {
            writeln!(self.out, "Aborting...")?;
            return Ok(Verdict::Stop);
        }
        if let Err(error) = self.files.truncate(part.path, valid_up_to) {
            writeln!(self.out, "Failed to truncate AOF {name}: {error}")?;
            return Ok(Verdict::Stop);
        }
        writeln!(self.out, "Successfully truncated AOF {name}")?;
        Ok(Verdict::Truncated)
    }
}

fn begins_with_rdb(source: &mut dyn Read) -> io::Result<bool> {
    let mut magic = Vec::new();
    source.take(5).read_to_end(&mut magic)?;
    Ok(magic == b"REDIS")
}

/// Why the commands of a file cannot be read.
enum Fault {
    Io(io::Error),
    Text(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

/// Goes through the commands of a file.
struct CommandCheck<R> {
    source: R,
    offset: u64,
    line_number: u64,
    /// All units before it are whole.
    valid_up_to: u64,
    /// Where the last argument began.
    string_offset: u64,
    /// Where an annotation of a later time stands is asked for.
    until: Option<u64>,
}

impl<R: BufRead> CommandCheck<R> {
    /// Goes to the end of the file. Returns where the annotation that was asked for begins.
    fn run(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        let mut in_transaction = false;
        loop {
            if !in_transaction {
                self.valid_up_to = self.offset;
            }
            let start = self.offset;
            match self.source.fill_buf()?.first() {
                None if in_transaction => {
                    return Err(Fault::Text("Reached EOF before reading EXEC for MULTI".to_owned()));
                }
                None => return Ok(None),
                Some(b'#') => {
                    let line = self.line()?;
                    let time =
                        line.strip_prefix(b"#TS:").map(|time| String::from_utf8_lossy(time).into_owned());
                    let time_s = time.and_then(|time| time.trim().parse::<u64>().ok()).unwrap_or(0);
                    if self.until.is_some_and(|until| time_s > until) {
                        return Ok(Some(start));
                    }
                }
                Some(b'*') => {
                    let command = self.command()?;
                    let at = self.string_offset;
                    if command.eq_ignore_ascii_case(b"multi") {
                        if in_transaction {
                            return Err(Fault::Text(format!("0x{at:16x}: Unexpected MULTI in AOF {name}")));
                        }
                        in_transaction = true;
                    } else if command.eq_ignore_ascii_case(b"exec") {
                        if !in_transaction {
                            return Err(Fault::Text(format!("0x{at:16x}: Unexpected EXEC in AOF {name}")));
                        }
                        in_transaction = false;
                    }
                }
                Some(_) => return Err(Fault::Text(format!("AOF {name} format error"))),
            }
        }
    }

    /// Reads a command. Returns its name.
    fn command(&mut self) -> Result<Vec<u8>, Fault> {
        let count = self.number(b'*')?;
        let mut name = Vec::new();
        for at in 0..count {
            let string = self.string()?;
            if at == 0 {
                name = string;
            }
        }
        Ok(name)
    }

    /// Reads a line with a number behind its prefix.
    fn number(&mut self, prefix: u8) -> Result<u64, Fault> {
        let start = self.offset;
        let line = self.line()?;
        let fault = |text: String| Fault::Text(format!("0x{start:16x}: {text}"));
        let first = line.first().copied().unwrap_or(0);
        if first != prefix {
            let (prefix, first) = (char::from(prefix), char::from(first));
            return Err(self.uncount(fault(format!("Expected prefix '{prefix}', got: '{first}'"))));
        }
        let digits = line[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let rest = &line[1 + digits..];
        if !rest.starts_with(b"\r\n") {
            let byte = |at: usize| rest.get(at).copied().unwrap_or(0);
            let text = format!("Expected \\r\\n, got: {:02x}{:02x}", byte(0), byte(1));
            return Err(self.uncount(fault(text)));
        }
        Ok(std::str::from_utf8(&line[1..=digits]).ok().and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    fn string(&mut self) -> Result<Vec<u8>, Fault> {
        let len = self.number(b'$')?;
        let start = self.offset;
        self.string_offset = start;
        let wanted = len.saturating_add(2);
        let mut bytes = Vec::new();
        (&mut self.source).take(wanted).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        if (bytes.len() as u64) < wanted {
            let got = bytes.len();
            return Err(Fault::Text(format!(
                "0x{start:16x}: Expected to read {wanted} bytes, got {got} bytes"
            )));
        }
        let end = bytes.split_off(len as usize);
        if end != b"\r\n" {
            let text = format!("0x{start:16x}: Expected \\r\\n, got: {:02x}{:02x}", end[0], end[1]);
            return Err(Fault::Text(text));
        }
        self.line_number += 1;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<Vec<u8>, Fault> {
        /// The longest line that is looked at.
        const LINE_LEN_MAX: u64 = 1 << 10;
        let mut line = Vec::new();
        (&mut self.source).take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
        self.offset += line.len() as u64;
        self.line_number += 1;
        Ok(line)
    }

    /// The line that was read last is no good, and does not count.
    fn uncount(&mut self, fault: Fault) -> Fault {
        self.line_number -= 1;
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Files in memory.
    struct Memory {
        files: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
        agrees: bool,
    }

    impl CheckFiles for Memory {
        fn open(&self, path: &[u8]) -> io::Result<(Box<dyn Read>, u64)> {
            let files = self.files.borrow();
            let bytes = files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
            let len = bytes.len() as u64;
            Ok((Box::new(io::Cursor::new(bytes)), len))
        }

        fn truncate(&self, path: &[u8], len_bytes: u64) -> io::Result<()> {
            self.files
                .borrow_mut()
                .get_mut(path)
                .ok_or(io::ErrorKind::NotFound)?
                .truncate(len_bytes as usize);
            Ok(())
        }

        fn confirms(&self) -> bool {
            self.agrees
        }
    }

    fn memory(files: &[(&str, &str)]) -> Memory {
        let files = files.iter().map(|(path, text)| (path.as_bytes().to_vec(), text.as_bytes().to_vec()));
        Memory { files: RefCell::new(files.collect()), agrees: true }
    }

    fn run(memory: &Memory, path: &str, repair: Repair) -> (bool, String) {
        let mut out = Vec::new();
        let is_well = check(path.as_bytes(), repair, memory, 0, &mut out).expect("the files are there");
        (is_well, String::from_utf8(out).expect("it is text"))
    }

    const SET: &str = "*3\r\n$3\r\nset\r\n$3\r\nfoo\r\n$5\r\nhello\r\n";
    const MULTI: &str = "*1\r\n$5\r\nmulti\r\n";
    const MANIFEST: &str = "file a.1.base.aof seq 1 type b\nfile a.1.incr.aof seq 1 type i\n";

    /// All texts here were seen from redis-check-aof 7.0.15.
    #[test]
    fn damage_is_described_as_redis_does() {
        let analyzed = |size: usize, ok: usize, line: usize| {
            format!(
                "AOF analyzed: filename=t, size={size}, ok_up_to={ok}, ok_up_to_line={line}, diff={}\n",
                size - ok
            )
        };
        for (text, fault, line) in [
            (
                "*3\r\n$3\r\nset\r\n$3\r\nfoo\r\n$5\r\nhel",
                "0x              1a: Expected to read 7 bytes, got 3 bytes",
                7,
            ),
            (
                "*3\r\n$3\r\nset\r\n3\r\nfoo\r\n$5\r\nhel",
                "0x               d: Expected prefix '$', got: '3'",
                4,
            ),
            (
                "*3\r\n$3\r\nset\r\n$3\r\nfoo22\r\n$5\r\nhel",
                "0x              11: Expected \\r\\n, got: 3232",
                5,
            ),
            ("*x\r\n$3\r\nset\r\n", "0x               0: Expected \\r\\n, got: 780d", 1),
            ("*1\r\n$4\r\nexec\r\n", "0x               8: Unexpected EXEC in AOF t", 4),
            (
                "*1\r\n$5\r\nmulti\r\n*1\r\n$5\r\nmulti\r\n",
                "0x              17: Unexpected MULTI in AOF t",
                7,
            ),
        ] {
            let (is_well, said) = run(&memory(&[("t", text)]), "t", Repair::None);
            let verdict = "AOF t is not valid. Use the --fix option to try fixing it.\n";
            let expected =
                format!("Start checking Old-Style AOF\n{fault}\n{}{verdict}", analyzed(text.len(), 0, line));
            assert_eq!((is_well, said), (false, expected), "{text:?}");
        }
        let (is_well, said) = run(&memory(&[("t", SET)]), "t", Repair::None);
        let expected = format!("Start checking Old-Style AOF\n{}AOF t is valid\n", analyzed(33, 33, 8));
        assert_eq!((is_well, said), (true, expected));
    }

    #[test]
    fn only_the_last_file_of_several_is_repaired() {
        let damaged = format!("{MULTI}{SET}!!!");
        let files = memory(&[("d/m", MANIFEST), ("d/a.1.base.aof", SET), ("d/a.1.incr.aof", &damaged)]);
        assert!(!run(&files, "d/m", Repair::None).0);
        let (is_well, said) = run(&files, "d/m", Repair::Fix);
        assert!(is_well && said.contains("from 51 bytes, with 51 bytes, to 0 bytes\nContinue?"), "{said}");
        let (is_well, said) = run(&files, "d/m", Repair::None);
        assert!(
            is_well
                && said.ends_with("INCR AOF a.1.incr.aof is empty\nAll AOF files and manifest are valid\n")
        );

        let files = memory(&[("d/m", MANIFEST), ("d/a.1.base.aof", &damaged), ("d/a.1.incr.aof", SET)]);
        let (is_well, said) = run(&files, "d/m", Repair::Fix);
        assert!(
            !is_well
                && said.ends_with("Failed to truncate AOF a.1.base.aof because it is not the last file\n")
        );
        let refusing = Memory { agrees: false, ..memory(&[("t", "!!!")]) };
        assert!(run(&refusing, "t", Repair::Fix).1.ends_with("Aborting...\n"));
    }

    #[test]
    fn a_file_is_cut_off_before_what_is_later_than_a_time() {
        let text = format!("#TS:100\r\n{SET}#TS:200\r\n{SET}");
        let files = memory(&[("t", &text)]);
        let (is_well, said) = run(&files, "t", Repair::ToTimestamp(99));
        assert!(!is_well && said.ends_with("AOF t has nothing before timestamp 99, aborting...\n"));
        assert!(
            run(&files, "t", Repair::ToTimestamp(200))
                .1
                .contains("Truncate nothing in AOF t to timestamp 200\n")
        );
        assert!(run(&files, "t", Repair::ToTimestamp(150)).0);
        assert_eq!(files.files.borrow()[&b"t"[..]].len(), "#TS:100\r\n".len() + SET.len());
    }
}
