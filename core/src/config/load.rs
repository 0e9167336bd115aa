//! From redis.conf and the command line to a `Config`.
//!
//! A configuration text is lines of words (see `protocol::inline` for their quoting); a line whose first byte is `#` is
//! a comment. The file, standard input and the arguments are read in this order as if they were one text, as Redis
//! reads them, so that the last word is the command line's. `include` is taken in where it stands.
//!
//! A wrong line stops everything: a server that guessed would run with what its operator did not ask for.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, DIRECTIVES, Directive, Origin, REDIS_VERSION, RenamedCommand, Text, Why, lookup};
use crate::protocol::inline::{quote, split_words};

/// An include in an include in an include: deeper than this it is a file that includes itself.
const INCLUDE_DEPTH_MAX: usize = 16;

/// Every command of Redis 7.0.15, in lower case, between blanks.
const REDIS_COMMANDS: &str = include_str!("commands-7.0.15.txt");

/// The file system, as far as a configuration needs it. Errors are the system's words.
pub trait Files {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;

    /// The files that a shell would put in place of a pattern, in order; none if there are none.
    fn expand(&self, pattern: &Path) -> Vec<PathBuf>;

    /// The absolute path of a directory that can be worked in, symbolic links resolved.
    fn resolve_dir(&self, path: &Path) -> Result<PathBuf, String>;
}

/// What a server was told at its start.
#[derive(Default)]
pub struct Sources<'a> {
    pub file: Option<&'a Path>,
    /// What standard input had to say, if it was asked.
    pub stdin: Option<Vec<u8>>,
    /// Lines made from the arguments (see `cli`).
    pub args: Vec<Vec<u8>>,
}

/// Why there is no configuration. The text is for the operator.
#[derive(Debug, PartialEq, Eq)]
pub enum LoadError {
    /// A line that cannot be. `file`: where it is, if it is in a file.
    Line { file: Option<PathBuf>, number: usize, line: Vec<u8>, why: Why },
    /// A file that cannot be read.
    Open { path: PathBuf, why: String },
    /// The directory the server was started in.
    Dir { why: String },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Line { file, number, line, why } => {
                let name = file.as_ref().map(|file| format!(" {}", file.display())).unwrap_or_default();
                let line = String::from_utf8_lossy(line);
                write!(
                    f,
                    "\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***\nReading the configuration \
                     file{name}, at line {number}\n>>> '{line}'\n{why}"
                )
            }
            LoadError::Open { path, why } => {
                write!(f, "Fatal error, can't open config file '{}': {why}", path.display())
            }
            LoadError::Dir { why } => write!(f, "Fatal error, can't use the current directory: {why}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl Config {
    /// Reads all sources. `is_command` knows the commands that rename-command may name.
    pub fn from_sources(
        sources: &Sources<'_>,
        files: &dyn Files,
        is_command: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Config, LoadError> {
        let start_dir = files.resolve_dir(Path::new(".")).map_err(|why| LoadError::Dir { why })?;
        let config = Config { dir: Text::from(start_dir.as_path()), ..Config::default() };
        let mut loader = Loader { config, files, is_command, seen: vec![false; DIRECTIVES.len()] };
        let mut next_line_number = 1;
        if let Some(path) = sources.file {
            let path = start_dir.join(path);
            loader.config.config_file = Text::from(path.as_path());
            let text = loader.read(&path)?;
            next_line_number = loader.take_text(&text, 1, Some(&path), 0)?;
        }
        if let Some(text) = &sources.stdin {
            next_line_number = loader.take_text(text, next_line_number, None, 0)?;
        }
        // Redis puts a line end before its arguments, so they begin on a line of their own, one further down.
        for (number, line) in (next_line_number + 1..).zip(&sources.args) {
            loader.take_line(line, number, None, 0)?;
        }
        Ok(loader.config)
    }
}

/// Makes configuration lines of arguments. Values are quoted, so that they are read as they were given; a name is not,
/// so that it may bring values along.
pub fn directive_lines(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    // The directive before has no value yet.
    let mut takes_anything = false;
    for arg in args {
        match arg.strip_prefix(b"--").filter(|_| !takes_anything) {
            Some(directive) => {
                let word_count = split_words(directive).map_or(usize::MAX, |words| words.len());
                takes_anything = word_count <= 1 && !directive.eq_ignore_ascii_case(b"save");
                lines.push(directive.to_vec());
            }
            None => {
                if lines.is_empty() {
                    lines.push(Vec::new());
                }
                let line = lines.last_mut().expect("one was pushed");
                if !line.is_empty() {
                    line.push(b' ');
                }
                line.extend_from_slice(&quote(arg));
                takes_anything = false;
            }
        }
    }
    lines
}

struct Loader<'a> {
    config: Config,
    files: &'a dyn Files,
    is_command: &'a dyn Fn(&[u8]) -> bool,
    /// By row: whether a line has named it.
    seen: Vec<bool>,
}

impl Loader<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, LoadError> {
        self.files.read(path).map_err(|why| LoadError::Open { path: path.to_owned(), why })
    }

    /// Returns the number of the last line, the empty one behind the last line end included: the next text's first
    /// line has the same, as if the texts were joined.
    fn take_text(
        &mut self,
        text: &[u8],
        first_number: usize,
        file: Option<&Path>,
        depth: usize,
    ) -> Result<usize, LoadError> {
        let mut number = first_number;
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            number = first_number + index;
            self.take_line(line, number, file, depth)?;
        }
        Ok(number)
    }

    fn take_line(
        &mut self,
        line: &[u8],
        number: usize,
        file: Option<&Path>,
        depth: usize,
    ) -> Result<(), LoadError> {
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            return Ok(());
        }
        let fail =
            |why: Why| LoadError::Line { file: file.map(Path::to_owned), number, line: line.to_vec(), why };
        let Ok(words) = split_words(line) else {
            return Err(fail("Unbalanced quotes in configuration line".into()));
        };
        let words: Vec<&[u8]> = words.as_argv().iter().collect();
        let Some((name, args)) = words.split_first() else { return Ok(()) };

        match self.take_directive(name, args).map_err(fail)? {
            Taken::Done => Ok(()),
            Taken::Include(_) if depth == INCLUDE_DEPTH_MAX => {
                Err(fail("include is nested too deeply, or a file includes itself".into()))
            }
            Taken::Include(paths) => {
                for path in paths {
                    let text = self.read(&path)?;
                    self.take_text(&text, 1, Some(&path), depth + 1)?;
                }
                Ok(())
            }
        }
    }

    fn take_directive(&mut self, name: &[u8], args: &[&[u8]]) -> Result<Taken, Why> {
        const BAD: Why = Why::Borrowed("Bad directive or wrong number of arguments");
        if let Some(row) = lookup(name) {
            let at =
                DIRECTIVES.iter().position(|known| std::ptr::eq(known, row)).expect("a row of the table");
            let first = !std::mem::replace(&mut self.seen[at], true);
            self.take_value(row, args, first)?;
            return Ok(Taken::Done);
        }
        match (name.to_ascii_lowercase().as_slice(), args) {
            (b"include", [path]) => return Ok(Taken::Include(self.include(path))),
            (b"rename-command", [from, to]) => self.rename_command(from, to)?,
            // What Redis 2.6 knew and later versions still let pass.
            (b"list-max-ziplist-entries" | b"list-max-ziplist-value", [_]) => {}
            (b"user", [_, ..]) => self.add_user(args)?,
            (b"loadmodule", [_, ..]) => {
                self.config.loaded_modules.push(args.iter().map(|arg| arg.to_vec()).collect());
            }
            (b"sentinel", _) => return Err("sentinel directive while not in sentinel mode".into()),
            // A module's directive.
            (name, []) if name.contains(&b'.') => return Err("Module config specified without value".into()),
            (name, args) if name.contains(&b'.') => {
                self.config.module_settings.push((name.to_vec(), args.join(&b' ')));
            }
            _ => return Err(BAD),
        }
        Ok(Taken::Done)
    }

    fn take_value(&mut self, row: &Directive, args: &[&[u8]], first: bool) -> Result<(), Why> {
        let dir_before = self.config.dir.clone();
        self.config.assign(row, args, Origin::Load { first })?;
        if self.config.dir != dir_before {
            self.config.dir = self.resolve_dir(&dir_before)?;
        }
        Ok(())
    }

    /// The new `dir`, which counts from the one before it.
    fn resolve_dir(&self, before: &Text) -> Result<Text, Why> {
        if self.config.dir.is_empty() {
            return Err("No such file or directory".into());
        }
        let path = before.as_path().join(self.config.dir.as_path());
        Ok(Text::from(self.files.resolve_dir(&path)?.as_path()))
    }

    /// A name that is no pattern must exist, and opening it will tell; a pattern may stand for no file.
    fn include(&self, path: &[u8]) -> Vec<PathBuf> {
        let is_pattern = path.iter().any(|byte| b"*?[".contains(byte));
        let path = self.config.dir.as_path().join(Text::from(path).as_path());
        if is_pattern { self.files.expand(&path) } else { vec![path] }
    }

    fn add_user(&mut self, args: &[&[u8]]) -> Result<(), Why> {
        if self.config.users.iter().any(|known| known[0] == args[0]) {
            let name = String::from_utf8_lossy(args[0]);
            return Err(format!(
                "Error in user declaration '{name}': Duplicate user found. A user can only be defined once in config \
                 files"
            )
            .into());
        }
        self.config.users.push(args.iter().map(|arg| arg.to_vec()).collect());
        Ok(())
    }

    fn rename_command(&mut self, from: &[u8], to: &[u8]) -> Result<(), Why> {
        if !self.command_exists(from) {
            let is_of_redis = REDIS_COMMANDS
                .split_ascii_whitespace()
                .any(|name| name.as_bytes().eq_ignore_ascii_case(from));
            let was_there = (self.is_command)(from);
            // A command that this version does not have is as good as renamed away: configurations that do so load.
            return if is_of_redis && !was_there {
                Ok(())
            } else {
                Err("No such command in rename-command".into())
            };
        }
        // Its own name in another case is free by the time it is taken.
        if !to.is_empty() && !from.eq_ignore_ascii_case(to) && self.command_exists(to) {
            return Err("Target command name already exists".into());
        }
        self.config.renamed_commands.push(RenamedCommand { from: Text::from(from), to: Text::from(to) });
        Ok(())
    }

    /// Whether a command of this name is left, or came to be, after the renames so far.
    fn command_exists(&self, name: &[u8]) -> bool {
        let mut exists = (self.is_command)(name);
        for renamed in &self.config.renamed_commands {
            if renamed.from.as_bytes().eq_ignore_ascii_case(name) {
                exists = false;
            }
            if renamed.to.as_bytes().eq_ignore_ascii_case(name) {
                exists = true;
            }
        }
        exists
    }
}

enum Taken {
    Done,
    Include(Vec<PathBuf>),
}
