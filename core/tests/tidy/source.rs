//! A source file as the checks see it: code without comments and without the text of its literals, comments without
//! code, line by line. A lexer of Rust as far as that takes, not more.

/// One line, divided.
#[derive(Default)]
pub struct Line {
    /// Literals are there as empty ones: `""`, `' '`.
    pub code: String,
    /// With its `//`, `///` or `//!`; what stands within `/* */` is without them.
    pub comment: String,
}

pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    pub lines: Vec<Line>,
}

/// A function with a body.
pub struct Function<'s> {
    pub name: &'s str,
    /// Its lines, from its signature to its closing brace.
    pub lines: std::ops::Range<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum In {
    Code,
    LineComment,
    /// How deep.
    BlockComment(usize),
    String,
    /// With so many `#`.
    RawString(usize),
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let mut state = In::Code;
        let mut lines = Vec::new();
        for line in text.lines() {
            if state == In::LineComment {
                state = In::Code;
            }
            lines.push(divide(line, &mut state));
        }
        Source { path: path.to_string(), lines }
    }

    /// Whether the whole file is of a test.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
            || self.path.ends_with("/testing.rs")
            || self.path.split('/').any(|part| part == "tests" || part == "fuzz_targets")
    }

    /// The lines before the unit tests at the file's foot; none of a test file.
    pub fn product(&self) -> &[Line] {
        if self.is_test() {
            return &[];
        }
        let foot = self
            .lines
            .windows(2)
            .position(|pair| pair[0].code == "#[cfg(test)]" && pair[1].code.starts_with("mod tests {"));
        &self.lines[..foot.unwrap_or(self.lines.len())]
    }

    /// The functions, nested ones within theirs as well. Relies on rustfmt: a body ends with a brace that is indented as
    /// the signature's first line is.
    pub fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            let Some(name) = function_name(&line.code) else { continue };
            let indent = &line.code[..line.code.len() - line.code.trim_start().len()];
            let end = format!("{indent}}}");
            let signature =
                self.lines[at..].iter().position(|line| line.code.trim_end().ends_with(['{', ';', '}']));
            let opens = signature.is_some_and(|n| self.lines[at + n].code.trim_end().ends_with('{'));
            if opens && let Some(len) = self.lines[at..].iter().position(|line| line.code.trim_end() == end) {
                functions.push(Function { name, lines: at..at + len + 1 });
            }
        }
        functions
    }
}

fn function_name(code: &str) -> Option<&str> {
    let mut words = code.split_whitespace();
    let qualifier = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"\"") || word.starts_with("pub(")
    };
    words.find(|word| !qualifier(word)).filter(|word| *word == "fn")?;
    let name = words.next()?;
    Some(&name[..name.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(name.len())])
}

fn divide(line: &str, state: &mut In) -> Line {
    let mut divided = Line::default();
    let mut rest = line;
    while !rest.is_empty() {
        rest = match *state {
            In::Code => code(rest, state, &mut divided),
            In::LineComment => {
                divided.comment.push_str(rest);
                ""
            }
            In::BlockComment(depth) => {
                let (open, close) = (rest.find("/*"), rest.find("*/"));
                let len = open.into_iter().chain(close).min().map_or(rest.len(), |at| at + 2);
                if open.is_some_and(|open| close.is_none_or(|close| open < close)) {
                    *state = In::BlockComment(depth + 1);
                } else if close.is_some() {
                    *state = if depth == 1 { In::Code } else { In::BlockComment(depth - 1) };
                }
                divided.comment.push_str(rest[..len].trim_end_matches("*/"));
                &rest[len..]
            }
            In::String => match rest.find(['"', '\\']) {
                None => "",
                Some(at) if rest.as_bytes()[at] == b'\\' => skip_chars(&rest[at..], 2),
                Some(at) => leave_literal(&rest[at + 1..], state, &mut divided),
            },
            In::RawString(hashes) => match rest.find(&format!("\"{}", "#".repeat(hashes))) {
                None => "",
                Some(at) => leave_literal(&rest[at + 1 + hashes..], state, &mut divided),
            },
        };
    }
    divided
}

fn leave_literal<'l>(rest: &'l str, state: &mut In, divided: &mut Line) -> &'l str {
    divided.code.push('"');
    *state = In::Code;
    rest
}

/// Takes one token's worth of code, or the beginning of something that is none.
fn code<'l>(rest: &'l str, state: &mut In, divided: &mut Line) -> &'l str {
    if rest.starts_with("//") {
        *state = In::LineComment;
        return rest;
    }
    if let Some(rest) = rest.strip_prefix("/*") {
        *state = In::BlockComment(1);
        return rest;
    }
    let begins_word = !divided.code.ends_with(|c: char| c == '_' || c.is_alphanumeric());
    if begins_word && let Some((hashes, rest)) = raw_string(rest) {
        *state = In::RawString(hashes);
        divided.code.push('"');
        return rest;
    }
    if let Some(rest) = rest.strip_prefix('"') {
        *state = In::String;
        divided.code.push('"');
        return rest;
    }
    if rest.starts_with('\'')
        && let Some(len) = char_literal_len(rest)
    {
        divided.code.push_str("' '");
        return &rest[len..];
    }
    divided.code.extend(rest.chars().next());
    skip_chars(rest, 1)
}

fn raw_string(rest: &str) -> Option<(usize, &str)> {
    let rest = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    Some((hashes, rest[hashes..].strip_prefix('"')?))
}

/// The length of a character literal; `None` for a lifetime.
fn char_literal_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    if chars.next()?.1 == '\\' {
        let (escaped_at, _) = chars.next()?;
        return rest[escaped_at + 1..].find('\'').map(|at| escaped_at + 1 + at + 1);
    }
    let (at, end) = chars.next()?;
    (end == '\'').then_some(at + 1)
}

fn skip_chars(text: &str, count: usize) -> &str {
    let mut chars = text.chars();
    chars.by_ref().take(count).for_each(drop);
    chars.as_str()
}

#[test]
fn literals_and_comments_are_told_from_code() {
    let text = "a(\"x // no\", 'b', '\\'', 'c' /* in */) // out\n\
                let s: &'a str = r#\"un\"safe\"#; \"two \\\"\nlines\"; end /* one\ntwo */ f";
    let source = Source::new("x.rs", text);
    let code: Vec<&str> = source.lines.iter().map(|line| line.code.as_str()).collect();
    let comments: Vec<&str> = source.lines.iter().map(|line| line.comment.trim()).collect();

    assert_eq!(code, ["a(\"\", ' ', ' ', ' ' ) ", "let s: &'a str = \"\"; \"", "\"; end ", " f"]);
    assert_eq!(comments, ["in // out", "", "one", "two"]);
}

#[test]
fn functions_are_found_with_their_lines() {
    let text = "trait T {\n    fn a();\n    pub(super) const fn b<T>(\n        x: T,\n    ) {\n        1\n    }\n}\n";
    let source = Source::new("x.rs", text);
    let found: Vec<_> = source.functions().into_iter().map(|f| (f.name.to_string(), f.lines)).collect();

    assert_eq!(found, [("b".to_string(), 2..7)]);
}
