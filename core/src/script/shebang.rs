//! The first line of a script or of a library: `#!lua flags=no-writes` and `#!lua name=mylib`.
//!
//! The line is not code; the engine passes it over.

use super::flags::ScriptFlags;
use crate::command::{CommandError, CommandResult};
use crate::protocol::OwnedArgv;
use crate::protocol::inline::split_words;

/// What a script that EVAL or SCRIPT LOAD brought says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScriptHeader {
    pub flags: ScriptFlags,
}

impl ScriptHeader {
    /// # Errors
    /// A shebang of another engine, with options or flags that do not exist, or without an end.
    pub fn parse(script: &[u8]) -> CommandResult<ScriptHeader> {
        if !script.starts_with(b"#!") {
            return Ok(ScriptHeader { flags: ScriptFlags::COMPATIBLE });
        }
        let line_len = end_of_line(script).ok_or(CommandError::fixed("ERR Invalid script shebang"))?;
        let words =
            words(&script[..line_len]).ok_or(CommandError::fixed("ERR Invalid engine in script shebang"))?;
        let words = words.as_argv();
        if words.arg(0) != b"#!lua" {
            return Err(quoting("ERR Unexpected engine in script shebang: ", words.arg(0)));
        }
        let mut flags = ScriptFlags::NONE;
        for option in words.iter().skip(1) {
            let names = option
                .strip_prefix(b"flags=")
                .ok_or_else(|| quoting("ERR Unknown lua shebang option: ", option))?;
            let is_none = names.is_empty();
            for name in names.split(|&byte| byte == b',').filter(|_| !is_none) {
                // Unlike those of functions, these are in lower case.
                let flag = ScriptFlags::named(name).filter(|_| !name.iter().any(u8::is_ascii_uppercase));
                flags =
                    flags | flag.ok_or_else(|| quoting("ERR Unexpected flag in script shebang: ", name))?;
            }
        }
        Ok(ScriptHeader { flags })
    }
}

/// What a library says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryHeader {
    pub name: Vec<u8>,
}

impl LibraryHeader {
    /// # Errors
    /// No shebang, or one without a name, with a bad name, with other words, or of another engine.
    pub fn parse(library: &[u8]) -> CommandResult<LibraryHeader> {
        const INVALID: CommandError = CommandError::fixed("ERR Invalid library metadata");
        if !library.starts_with(b"#!") {
            return Err(CommandError::fixed("ERR Missing library metadata"));
        }
        let line_len = end_of_line(library).ok_or(INVALID)?;
        let words = words(&library[..line_len]).ok_or(INVALID)?;
        let words = words.as_argv();
        let mut name = None;
        for option in words.iter().skip(1) {
            let Some((_, value)) =
                option.split_at_checked(NAME.len()).filter(|(key, _)| key.eq_ignore_ascii_case(NAME))
            else {
                return Err(quoting("ERR Invalid metadata value given: ", option));
            };
            if name.is_some() {
                return Err(CommandError::fixed(
                    "ERR Invalid metadata value, name argument was given multiple times",
                ));
            }
            name = Some(value);
        }
        let name = name.ok_or(CommandError::fixed("ERR Library name was not given"))?;
        if !is_valid_name(name) {
            return Err(CommandError::fixed(INVALID_NAME));
        }
        let engine = words.arg(0).get(2..).unwrap_or_default();
        if !engine.eq_ignore_ascii_case(b"lua") {
            return Err(CommandError::quoting("ERR Engine '", engine, "' not found"));
        }
        Ok(LibraryHeader { name: name.to_vec() })
    }
}

const NAME: &[u8] = b"name=";

/// The error of a library, or of a function, whose name has other characters.
pub const INVALID_NAME: &str = "ERR Library names can only contain letters, numbers, or underscores(_) and must be at \
                                least one character long";

/// Whether a library, or a function, can have this name.
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn end_of_line(text: &[u8]) -> Option<usize> {
    // A string of C ends at a zero byte, where Redis stops looking for the end of the line.
    memchr::memchr2(b'\n', 0, text).filter(|&at| text[at] == b'\n')
}

/// The words of a line, at least one.
fn words(line: &[u8]) -> Option<OwnedArgv> {
    split_words(line).ok().filter(|words| !words.is_empty())
}

fn quoting(text: &str, quoted: &[u8]) -> CommandError {
    CommandError::quoting(text, quoted, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(script: &str, text: &str) {
        assert_eq!(ScriptHeader::parse(script.as_bytes()).unwrap_err().text(), text, "{script}");
    }

    #[test]
    fn a_script_without_a_shebang_runs_as_before() {
        let header = ScriptHeader::parse(b"return 1").unwrap();
        assert_eq!(header, ScriptHeader { flags: ScriptFlags::COMPATIBLE });
    }

    #[test]
    fn a_scripts_shebang_has_flags() {
        let script = b"#!lua flags=no-writes,allow-oom 'flags=allow-stale'\nreturn 1";
        let header = ScriptHeader::parse(script).unwrap();
        assert_eq!(header.flags.names().collect::<Vec<_>>(), ["no-writes", "allow-oom", "allow-stale"]);
        for bare in ["#!lua\n", "#!lua flags=\n"] {
            assert_eq!(ScriptHeader::parse(bare.as_bytes()).unwrap().flags, ScriptFlags::NONE);
        }
    }

    #[test]
    fn a_scripts_shebang_is_refused_as_redis_does() {
        refuses("#!lua", "ERR Invalid script shebang");
        refuses("#!lua \"x\nreturn 1", "ERR Invalid engine in script shebang");
        refuses("#! lua\n", "ERR Unexpected engine in script shebang: #!");
        refuses("#!LUA flags=no-writes\n", "ERR Unexpected engine in script shebang: #!LUA");
        refuses("#!lua foo\n", "ERR Unknown lua shebang option: foo");
        refuses("#!lua Flags=no-writes\n", "ERR Unknown lua shebang option: Flags=no-writes");
        refuses("#!lua flags=No-Writes\n", "ERR Unexpected flag in script shebang: No-Writes");
        refuses("#!lua flags=no-writes,\n", "ERR Unexpected flag in script shebang: ");
    }

    #[test]
    fn a_librarys_shebang_names_it() {
        let header = LibraryHeader::parse(b"#!LUA Name=a_1\nx").unwrap();
        assert_eq!(header, LibraryHeader { name: b"a_1".to_vec() });
        for (library, text) in [
            ("x", "ERR Missing library metadata"),
            ("#!lua", "ERR Invalid library metadata"),
            ("#!lua \"name=a\n", "ERR Invalid library metadata"),
            ("#!lua\n", "ERR Library name was not given"),
            ("#!lua name=\n", INVALID_NAME),
            ("#!lua name=a-b\n", INVALID_NAME),
            ("#!lua name=a name=b\n", "ERR Invalid metadata value, name argument was given multiple times"),
            ("#!lua name=a foo=x\n", "ERR Invalid metadata value given: foo=x"),
            ("#! lua name=a\n", "ERR Invalid metadata value given: lua"),
            ("#!foo name=a\n", "ERR Engine 'foo' not found"),
        ] {
            assert_eq!(LibraryHeader::parse(library.as_bytes()).unwrap_err().text(), text, "{library}");
        }
    }
}
