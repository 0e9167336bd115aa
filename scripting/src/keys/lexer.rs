//! The tokens of Lua 5.1, to the byte as its own lexer divides a source: what a script runs must be what is analysed.
//!
//! What looks the same to a general tool is not always: a carriage return ends a comment here, `\z` is the letter `z`, a
//! name is ASCII. Source: llex.c of Lua 5.1.5.

/// A source that Lua refuses, or that the analysis leaves alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub(super) line: u32,
    pub(super) what: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token<'s> {
    Name(&'s [u8]),
    Word(Word),
    /// A number: its digits if these are all it consists of.
    Number(Option<&'s [u8]>),
    Text(Vec<u8>),
    /// One or several of the characters that are no names, numbers or strings.
    Sign(&'static str),
    End,
}

/// The reserved words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    And,
    Break,
    Do,
    Else,
    Elseif,
    End,
    False,
    For,
    Function,
    If,
    In,
    Local,
    Nil,
    Not,
    Or,
    Repeat,
    Return,
    Then,
    True,
    Until,
    While,
}

const WORDS: [(&[u8], Word); 21] = [
    (b"and", Word::And),
    (b"break", Word::Break),
    (b"do", Word::Do),
    (b"else", Word::Else),
    (b"elseif", Word::Elseif),
    (b"end", Word::End),
    (b"false", Word::False),
    (b"for", Word::For),
    (b"function", Word::Function),
    (b"if", Word::If),
    (b"in", Word::In),
    (b"local", Word::Local),
    (b"nil", Word::Nil),
    (b"not", Word::Not),
    (b"or", Word::Or),
    (b"repeat", Word::Repeat),
    (b"return", Word::Return),
    (b"then", Word::Then),
    (b"true", Word::True),
    (b"until", Word::Until),
    (b"while", Word::While),
];

/// Longer signs before those that they begin with. `[[` and the like are seen to before.
const SIGNS: [&str; 24] = [
    "...", "..", "==", "<=", ">=", "~=", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(", ")", "{",
    "}", "[", "]", ";", ":",
];

pub(super) struct Lexer<'s> {
    source: &'s [u8],
    at: usize,
    pub(super) line: u32,
}

impl<'s> Lexer<'s> {
    /// `line` is the number of the first line of `source`.
    pub(super) fn new(source: &'s [u8], line: u32) -> Lexer<'s> {
        Lexer { source, at: 0, line }
    }

    pub(super) fn next(&mut self) -> Result<Token<'s>, Refused> {
        loop {
            let Some(byte) = self.byte(0) else { return Ok(Token::End) };
            match byte {
                b'\n' | b'\r' => self.newline(),
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.byte(1) == Some(b'-') => self.comment()?,
                b'"' | b'\'' => return self.text(byte),
                b'[' => match self.bracket_level() {
                    Some(level) => return Ok(Token::Text(self.long_text(level)?)),
                    None if self.byte(1) == Some(b'=') => {
                        return self.refuse("an invalid long string delimiter");
                    }
                    None => return self.sign(),
                },
                b'0'..=b'9' => return Ok(self.number()),
                b'.' if self.byte(1).is_some_and(|next| next.is_ascii_digit()) => return Ok(self.number()),
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => return Ok(self.name()),
                _ => return self.sign(),
            }
        }
    }

    /// The token that `next` will return.
    pub(super) fn peek(&self) -> Result<Token<'s>, Refused> {
        Lexer { source: self.source, at: self.at, line: self.line }.next()
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    fn refuse<T>(&self, what: &'static str) -> Result<T, Refused> {
        Err(Refused { line: self.line, what })
    }

    /// Skips one line end: `\n`, `\r`, or two different ones.
    fn newline(&mut self) {
        let first = self.byte(0);
        self.at += 1;
        if matches!(self.byte(0), Some(b'\n' | b'\r')) && self.byte(0) != first {
            self.at += 1;
        }
        self.line += 1;
    }

    fn comment(&mut self) -> Result<(), Refused> {
        self.at += 2;
        if let Some(level) = self.bracket_level() {
            self.long_text(level)?;
            return Ok(());
        }
        while !matches!(self.byte(0), None | Some(b'\n' | b'\r')) {
            self.at += 1;
        }
        Ok(())
    }

    /// How many `=` the long bracket has that opens here; `None`: none opens.
    fn bracket_level(&self) -> Option<usize> {
        if self.byte(0) != Some(b'[') {
            return None;
        }
        let level = self.source[self.at + 1..].iter().take_while(|&&byte| byte == b'=').count();
        (self.byte(1 + level) == Some(b'[')).then_some(level)
    }

    fn long_text(&mut self, level: usize) -> Result<Vec<u8>, Refused> {
        let mut text = Vec::new();
        self.at += 2 + level;
        if matches!(self.byte(0), Some(b'\n' | b'\r')) {
            self.newline();
        }
        loop {
            match self.byte(0) {
                None => return self.refuse("an unfinished long string or comment"),
                Some(b'\n' | b'\r') => {
                    self.newline();
                    text.push(b'\n');
                }
                Some(b']') if self.closes(level) => {
                    self.at += 2 + level;
                    return Ok(text);
                }
                Some(b'[') if level == 0 && self.byte(1) == Some(b'[') => {
                    return self.refuse("nested [[...]]");
                }
                Some(byte) => {
                    self.at += 1;
                    text.push(byte);
                }
            }
        }
    }

    fn closes(&self, level: usize) -> bool {
        let rest = &self.source[self.at + 1..];
        rest.len() > level && rest[..level].iter().all(|&byte| byte == b'=') && rest[level] == b']'
    }

    fn text(&mut self, quote: u8) -> Result<Token<'s>, Refused> {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            match self.byte(0) {
                None | Some(b'\n' | b'\r') => return self.refuse("an unfinished string"),
                Some(b'\\') => self.escape(&mut text)?,
                Some(byte) => {
                    self.at += 1;
                    if byte == quote {
                        return Ok(Token::Text(text));
                    }
                    text.push(byte);
                }
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Refused> {
        self.at += 1;
        let Some(byte) = self.byte(0) else { return self.refuse("an unfinished string") };
        let meant = match byte {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\n' | b'\r' => {
                self.newline();
                text.push(b'\n');
                return Ok(());
            }
            b'0'..=b'9' => {
                let digits = self.source[self.at..].iter().take(3).take_while(|digit| digit.is_ascii_digit());
                let (count, number) =
                    digits.fold((0, 0), |(n, number), digit| (n + 1, number * 10 + u32::from(digit - b'0')));
                let Ok(byte) = u8::try_from(number) else {
                    return self.refuse("an escape sequence too large");
                };
                self.at += count;
                text.push(byte);
                return Ok(());
            }
            other => other,
        };
        self.at += 1;
        text.push(meant);
        Ok(())
    }

    fn number(&mut self) -> Token<'s> {
        let start = self.at;
        while self.byte(0).is_some_and(|byte| byte.is_ascii_digit() || byte == b'.') {
            self.at += 1;
        }
        if matches!(self.byte(0), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
        }
        self.skip_word();
        let digits = &self.source[start..self.at];
        Token::Number(digits.iter().all(u8::is_ascii_digit).then_some(digits))
    }

    fn name(&mut self) -> Token<'s> {
        let start = self.at;
        self.skip_word();
        let name = &self.source[start..self.at];
        match WORDS.iter().find(|(word, _)| *word == name) {
            Some(&(_, word)) => Token::Word(word),
            None => Token::Name(name),
        }
    }

    fn skip_word(&mut self) {
        while self.byte(0).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.at += 1;
        }
    }

    fn sign(&mut self) -> Result<Token<'s>, Refused> {
        let rest = &self.source[self.at..];
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(sign.as_bytes())) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        if rest[0] == b'.' || rest[0] == b',' {
            self.at += 1;
            return Ok(Token::Sign(if rest[0] == b'.' { "." } else { "," }));
        }
        self.refuse("a character that Lua does not know")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Result<Vec<Token<'_>>, Refused> {
        let mut lexer = Lexer::new(source.as_bytes(), 1);
        let mut tokens = Vec::new();
        loop {
            match lexer.next()? {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    fn text(text: &str) -> Token<'static> {
        Token::Text(text.as_bytes().to_vec())
    }

    #[test]
    fn a_carriage_return_ends_a_comment() {
        assert_eq!(tokens("-- a\rb"), Ok(vec![Token::Name(b"b")]));
        assert_eq!(tokens("--[==[ a\rb ]] ]==] c --[=x\nd"), Ok(vec![Token::Name(b"c"), Token::Name(b"d")]));
    }

    #[test]
    fn escapes_are_those_of_lua_5_1() {
        assert_eq!(tokens(r#""\65\066\10c\z\x41\"\q""#), Ok(vec![text("AB\nczx41\"q")]));
        assert_eq!(tokens("'a\\\r\nb'"), Ok(vec![text("a\nb")]));
        assert!(tokens(r#""\256""#).is_err());
        assert!(tokens("'a\nb'").is_err());
    }

    #[test]
    fn long_strings_lose_their_first_line_end_only() {
        assert_eq!(tokens("[[\r\na\r\nb]]"), Ok(vec![text("a\nb")]));
        assert_eq!(tokens("[=[]]]=]"), Ok(vec![text("]]")]));
        assert!(tokens("[[ [[ ]]").is_err());
        assert!(tokens("[[ a").is_err());
        assert!(tokens("[= a").is_err());
    }

    #[test]
    fn signs_are_as_long_as_they_can_be() {
        let signs = ["...", "..", ".", "[", "[", "~=", "<="].map(Token::Sign).to_vec();
        assert_eq!(tokens("... .. . [ [ ~= <="), Ok(signs));
        assert!(tokens("a != b").is_err());
        assert!(tokens("~").is_err());
    }

    #[test]
    fn a_number_is_told_by_its_digits() {
        let numbers =
            vec![Token::Number(Some(b"12")), Token::Number(None), Token::Number(None), Token::Number(None)];
        assert_eq!(tokens("12 0x1F 1e+5 .5"), Ok(numbers));
    }
}
