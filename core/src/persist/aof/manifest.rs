//! The manifest: the list of the files that are the append-only file. One line a file:
//!
//! ```text
//! file appendonly.aof.1.base.rdb seq 1 type b
//! file appendonly.aof.1.incr.aof seq 1 type i
//! ```
//!
//! Type `b` is the base, of which there is at most one, `h` history, `i` a file of commands. Those of commands are in the
//! order of their sequence numbers. A name with special characters is quoted as in redis.conf.

use crate::protocol::inline::{quote, split_words};
use std::fmt;

/// The longest line, its end included.
const LINE_LEN_MAX: usize = 1024;

/// The greatest number that a file may have. There are always some behind it.
const SEQ_MAX: u64 = i64::MAX as u64;

/// What a file of the list is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    Base,
    /// It was replaced, and can be removed.
    History,
    /// Commands.
    Incr,
}

impl FileKind {
    fn letter(self) -> char {
        match self {
            FileKind::Base => 'b',
            FileKind::History => 'h',
            FileKind::Incr => 'i',
        }
    }
}

/// A file of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileInfo {
    /// In the directory of the manifest.
    pub name: Vec<u8>,
    pub seq: u64,
    pub kind: FileKind,
}

/// The list. The default is an empty one, as before anything was written.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub base: Option<FileInfo>,
    pub history: Vec<FileInfo>,
    /// In the order of their numbers.
    pub incrs: Vec<FileInfo>,
    /// The highest numbers that were given.
    base_seq: u64,
    incr_seq: u64,
}

/// Why a manifest cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestError {
    /// From 1.
    pub line_number: usize,
    pub line: Vec<u8>,
    /// In Redis' words.
    pub why: &'static str,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestError { line_number, line, why } = self;
        write!(f, "line {line_number}: '{}': {why}", line.escape_ascii())
    }
}

impl Manifest {
    /// Whether it names no file that has data.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.incrs.is_empty()
    }

    /// The files to be loaded, in order.
    pub fn files(&self) -> impl Iterator<Item = &FileInfo> {
        self.base.iter().chain(&self.incrs)
    }

    /// Makes a new base of `prefix`, with its extension. The present one is history.
    pub fn add_base(&mut self, prefix: &[u8], extension: &str) -> FileInfo {
        self.base_seq += 1;
        let seq = self.base_seq;
        let name = [prefix, format!(".{seq}.base.{extension}").as_bytes()].concat();
        self.set_base(FileInfo { name, seq, kind: FileKind::Base })
    }

    /// Takes a file over as the base, under its name.
    pub fn set_base(&mut self, base: FileInfo) -> FileInfo {
        self.base_seq = self.base_seq.max(base.seq);
        if let Some(old) = self.base.replace(base.clone()) {
            self.history.insert(0, FileInfo { kind: FileKind::History, ..old });
        }
        base
    }

    /// Makes a new file of commands, behind the present ones.
    pub fn add_incr(&mut self, prefix: &[u8]) -> FileInfo {
        self.incr_seq += 1;
        let seq = self.incr_seq;
        let name = [prefix, format!(".{seq}.incr.aof").as_bytes()].concat();
        let incr = FileInfo { name, seq, kind: FileKind::Incr };
        self.incrs.push(incr.clone());
        incr
    }

    /// The files of commands but for the last `kept` ones are history: what they have is in the base.
    pub fn retire_incrs(&mut self, kept: usize) {
        let kept = self.incrs.split_off(self.incrs.len().saturating_sub(kept));
        for old in std::mem::replace(&mut self.incrs, kept) {
            self.history.insert(0, FileInfo { kind: FileKind::History, ..old });
        }
    }

    /// Takes the last file of commands out again. No other file gets its number: a manifest that names it may be on the disk.
    pub fn give_up_last_incr(&mut self) {
        self.incrs.pop();
    }

    /// The text of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for FileInfo { name, seq, kind } in self.base.iter().chain(&self.history).chain(&self.incrs) {
            text.extend_from_slice(b"file ");
            text.extend_from_slice(&quoted_if_needed(name));
            text.extend_from_slice(format!(" seq {seq} type {}\n", kind.letter()).as_bytes());
        }
        text
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let mut manifest = Manifest::default();
        if text.is_empty() {
            let why = "Found an empty AOF manifest";
            return Err(ManifestError { line_number: 1, line: Vec::new(), why });
        }
        for (at, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let line_number = at + 1;
            let outcome = manifest.add_line(line);
            outcome.map_err(|why| ManifestError { line_number, line: line.trim_ascii().to_vec(), why })?;
        }
        Ok(manifest)
    }

    fn add_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        if line.len() >= LINE_LEN_MAX {
            return Err("The AOF manifest file contains too long line");
        }
        let info = parse_line(line.trim_ascii())?;
        match info.kind {
            FileKind::Base if self.base.is_some() => return Err("Found duplicate base file information"),
            FileKind::Base => {
                self.base_seq = info.seq;
                self.base = Some(info);
            }
            FileKind::History => self.history.push(info),
            FileKind::Incr if info.seq <= self.incr_seq => {
                return Err("Found a non-monotonic sequence number");
            }
            FileKind::Incr => {
                self.incr_seq = info.seq;
                self.incrs.push(info);
            }
        }
        Ok(())
    }
}

/// The words of a line are keys and values. Those that are not known are of a later version.
fn parse_line(line: &[u8]) -> Result<FileInfo, &'static str> {
    const INVALID: &str = "Invalid AOF manifest file format";
    let words = split_words(line).map_err(|_| INVALID)?;
    let words = words.as_argv();
    if words.len() < 6 || !words.len().is_multiple_of(2) {
        return Err(INVALID);
    }
    let (mut name, mut seq, mut kind) = (None, None, None);
    for at in (0..words.len()).step_by(2) {
        let (key, value) = (words.arg(at), words.arg(at + 1));
        if key.eq_ignore_ascii_case(b"file") {
            if value.contains(&b'/') {
                return Err("File can't be a path, just a filename");
            }
            name = Some(value.to_vec());
        } else if key.eq_ignore_ascii_case(b"seq") {
            let text = std::str::from_utf8(value).ok();
            seq = text.and_then(|text| text.parse::<u64>().ok()).filter(|seq| (1..=SEQ_MAX).contains(seq));
        } else if key.eq_ignore_ascii_case(b"type") {
            kind = Some(match value {
                b"b" => FileKind::Base,
                b"h" => FileKind::History,
                b"i" => FileKind::Incr,
                _ => return Err("Unknown AOF file type"),
            });
        }
    }
    match (name, seq, kind) {
        (Some(name), Some(seq), Some(kind)) if !name.is_empty() => Ok(FileInfo { name, seq, kind }),
        _ => Err(INVALID),
    }
}

/// A name in quotes if it has characters that are special in a line.
fn quoted_if_needed(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if name.iter().all(is_plain) {
        return name.to_vec();
    }
    quote(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> &'static str {
        Manifest::parse(text.as_bytes()).expect_err("it is wrong").why
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let mut manifest = Manifest::default();
        for (prefix, extension) in [(&b"appendonly.aof"[..], "rdb"), (b" file seq \n\n.aof ", "aof")] {
            manifest.add_base(prefix, extension);
            manifest.add_incr(prefix);
            assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest.clone()));
        }
        let expected = "file \" file seq \\n\\n.aof .2.base.aof\" seq 2 type b\n\
                        file appendonly.aof.1.base.rdb seq 1 type h\n\
                        file appendonly.aof.1.incr.aof seq 1 type i\n\
                        file \" file seq \\n\\n.aof .2.incr.aof\" seq 2 type i\n";
        assert_eq!(String::from_utf8_lossy(&manifest.to_bytes()), expected);

        manifest.retire_incrs(1);
        let retired = "file \" file seq \\n\\n.aof .2.base.aof\" seq 2 type b\n\
                       file appendonly.aof.1.incr.aof seq 1 type h\n\
                       file appendonly.aof.1.base.rdb seq 1 type h\n\
                       file \" file seq \\n\\n.aof .2.incr.aof\" seq 2 type i\n";
        assert_eq!(String::from_utf8_lossy(&manifest.to_bytes()), retired);
        assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest.clone()));
        manifest.retire_incrs(0);
        assert_eq!((manifest.incrs.len(), manifest.history.len()), (0, 3));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_redis() {
        let base = "file a.1.base.aof seq 1 type b\n";
        assert_eq!(why(""), "Found an empty AOF manifest");
        assert_eq!(why(&format!("{base}\n")), "Invalid AOF manifest file format");
        assert_eq!(why("filx a seq 1 type b\n"), "Invalid AOF manifest file format");
        assert_eq!(why(&format!("file a seq {} type b\n", u64::MAX)), "Invalid AOF manifest file format");
        assert_eq!(why("file a seq 1 type b newkey\n"), "Invalid AOF manifest file format");
        assert_eq!(why("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(why("file ../a seq 1 type b\n"), "File can't be a path, just a filename");
        assert_eq!(why(&base.repeat(2)), "Found duplicate base file information");
        let incrs = "file a.2.incr.aof seq 2 type i\nfile a.1.incr.aof seq 1 type i\n";
        assert_eq!(why(incrs), "Found a non-monotonic sequence number");
        assert_eq!(why(&format!("{}\n", "x".repeat(2000))), "The AOF manifest file contains too long line");
    }

    #[test]
    fn comments_and_keys_of_later_versions_are_passed_over() {
        let text = "# made by hand\nfile a seq 1 type b newkey newvalue\nfile b seq 7 type i\n";
        let mut manifest = Manifest::parse(text.as_bytes()).expect("it is right");
        assert_eq!(manifest.files().count(), 2);
        assert_eq!(manifest.add_incr(b"x").name, b"x.8.incr.aof");
    }
}
