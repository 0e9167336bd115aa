//! The notation in which a row describes its arguments, and the tree that COMMAND DOCS makes of it.
//!
//! ```text
//! key#0                a key, found by key spec 0
//! offset:int           an argument of a type: int, double, unix, pattern; else a string
//! value@6.2.0          since that version
//! key#0...             once or more; `...+`: its token is repeated with it
//! NX                   a word that stands for itself (upper case)
//! auto_id'*'           the same, with a name of its own
//! EX seconds:int       a word and the argument it announces
//! [ ... ]              optional
//! < a | b >, name(a | b)   one of these
//! name{a b}            these together, by name; a bracket with several items is such a block, too
//! AUTH{user password}  a block that a word announces
//! ```
//!
//! The notation is parsed when a client asks for it; a test parses that of all rows.

use crate::protocol::Reply;

/// A node of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub kind: Kind,
    pub key_spec: Option<usize>,
    pub token: Option<String>,
    pub since: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub arguments: Vec<Argument>,
}

/// Redis' argument types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }
}

/// Parses the notation. Errors: where it is invalid, for the test that parses all rows.
pub fn parse(text: &str) -> Result<Vec<Argument>, String> {
    let mut parser = Parser { text: text.as_bytes(), at: 0 };
    let items = parser.sequence()?;
    if parser.at < parser.text.len() {
        return Err(format!("unexpected '{}' in '{text}'", parser.text[parser.at] as char));
    }
    Ok(items)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            let text = String::from_utf8_lossy(self.text);
            return Err(format!("'{}' expected at byte {} of '{text}'", byte as char, self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// Items up to a closing bracket, a bar or the end.
    fn sequence(&mut self) -> Result<Vec<Argument>, String> {
        let mut items = Vec::new();
        while let Some(byte) = self.peek() {
            if b"]>)}|".contains(&byte) {
                break;
            }
            let item = self.item()?;
            items.push(item);
        }
        Ok(announced(items))
    }

    /// The contents of brackets: one item, one of several, or several together.
    fn group(&mut self, name: Option<String>) -> Result<Argument, String> {
        let mut choices = vec![block(self.sequence()?)];
        while self.peek() == Some(b'|') {
            self.at += 1;
            choices.push(block(self.sequence()?));
        }
        let mut argument = if choices.len() == 1 && name.is_none() {
            choices.remove(0)
        } else {
            let joined = choices.iter().map(|choice| choice.name.as_str()).collect::<Vec<_>>().join("_");
            Argument { name: joined, kind: Kind::OneOf, arguments: choices, ..Argument::default() }
        };
        if let Some(name) = name {
            argument.name = name;
        }
        Ok(argument)
    }

    fn item(&mut self) -> Result<Argument, String> {
        let mut argument = match self.peek() {
            Some(b'[') => {
                self.at += 1;
                let mut inner = self.group(None)?;
                self.expect(b']')?;
                inner.optional = true;
                inner
            }
            Some(b'<') => {
                self.at += 1;
                let inner = self.group(None)?;
                self.expect(b'>')?;
                inner
            }
            _ => self.word()?,
        };
        self.suffixes(&mut argument)?;
        Ok(argument)
    }

    fn word(&mut self) -> Result<Argument, String> {
        let start = self.at;
        while self
            .text
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_/*+%.".contains(byte))
        {
            if self.text[self.at..].starts_with(b"...") {
                break;
            }
            self.at += 1;
        }
        let word = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        if word.is_empty() {
            return Err(format!(
                "a word expected at byte {start} of '{}'",
                String::from_utf8_lossy(self.text)
            ));
        }
        if self.text.get(self.at) == Some(&b'\'') {
            return self.named_token(word);
        }
        let is_token = !word.bytes().any(|byte| byte.is_ascii_lowercase());
        match self.text.get(self.at) {
            Some(b'(') => {
                self.at += 1;
                let inner = self.group(Some(word))?;
                self.expect(b')')?;
                Ok(inner)
            }
            Some(b'{') => {
                self.at += 1;
                let arguments = self.sequence()?;
                self.expect(b'}')?;
                let names = arguments.iter().map(|item| item.name.as_str()).collect::<Vec<_>>().join("_");
                let token = is_token.then(|| word.clone());
                let name = if is_token { names } else { word };
                Ok(Argument { name, kind: Kind::Block, token, arguments, ..Argument::default() })
            }
            _ if is_token => Ok(Argument {
                name: word.to_ascii_lowercase(),
                kind: Kind::PureToken,
                token: Some(word),
                ..Argument::default()
            }),
            _ => Ok(Argument { name: word, ..Argument::default() }),
        }
    }

    /// A word in quotes, which stands for itself and may announce a block, behind its name.
    fn named_token(&mut self, name: String) -> Result<Argument, String> {
        self.at += 1;
        let start = self.at;
        while self.text.get(self.at).is_some_and(|&byte| byte != b'\'') {
            self.at += 1;
        }
        let token = Some(String::from_utf8_lossy(&self.text[start..self.at]).into_owned());
        self.expect(b'\'')?;
        if self.text.get(self.at) != Some(&b'{') {
            return Ok(Argument { name, kind: Kind::PureToken, token, ..Argument::default() });
        }
        self.at += 1;
        let arguments = self.sequence()?;
        self.expect(b'}')?;
        Ok(Argument { name, kind: Kind::Block, token, arguments, ..Argument::default() })
    }

    fn suffixes(&mut self, argument: &mut Argument) -> Result<(), String> {
        loop {
            match self.text.get(self.at) {
                Some(b'#') => {
                    let number = self.suffix_text();
                    argument.key_spec =
                        Some(number.parse().map_err(|_| format!("'{number}' is no key spec"))?);
                    argument.kind = Kind::Key;
                }
                Some(b':') => {
                    argument.kind = match self.suffix_text().as_str() {
                        "int" => Kind::Integer,
                        "double" => Kind::Double,
                        "unix" => Kind::UnixTime,
                        "pattern" => Kind::Pattern,
                        other => return Err(format!("'{other}' is no type")),
                    };
                }
                Some(b'@') => argument.since = Some(self.suffix_text()),
                Some(b'.') => {
                    self.at += 3;
                    argument.multiple = true;
                    if self.text.get(self.at) == Some(&b'+') {
                        self.at += 1;
                        argument.multiple_token = true;
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn suffix_text(&mut self) -> String {
        let start = self.at + 1;
        self.at = start;
        while self.text.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
            && !self.text[self.at..].starts_with(b"...")
        {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }
}

/// A word followed by an argument announces it: `EX seconds` is one argument with a token.
fn announced(items: Vec<Argument>) -> Vec<Argument> {
    let mut joined: Vec<Argument> = Vec::new();
    for mut item in items {
        let announces = joined.last().is_some_and(|last| {
            last.kind == Kind::PureToken && !last.optional && last.since.is_none() && !last.multiple
        });
        if announces && item.kind != Kind::PureToken && item.token.is_none() && !item.optional {
            item.token = joined.pop().and_then(|word| word.token);
        }
        joined.push(item);
    }
    joined
}

/// Several items in one bracket are a block.
fn block(mut items: Vec<Argument>) -> Argument {
    if items.len() == 1 {
        return items.remove(0);
    }
    let name = items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>().join("_");
    Argument { name, kind: Kind::Block, arguments: items, ..Argument::default() }
}

/// Writes the tree as COMMAND DOCS has it: an array of maps.
pub fn write(arguments: &[Argument], reply: &mut Reply<'_>) {
    reply.array(arguments.len());
    for argument in arguments {
        let has_flags = argument.optional || argument.multiple || argument.multiple_token;
        let field_count = 2
            + usize::from(argument.key_spec.is_some())
            + usize::from(argument.token.is_some())
            + usize::from(argument.since.is_some())
            + usize::from(has_flags)
            + usize::from(!argument.arguments.is_empty());
        reply.map(field_count);
        reply.bulk(b"name");
        reply.bulk(argument.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(argument.kind.name().as_bytes());
        if let Some(spec) = argument.key_spec {
            reply.bulk(b"key_spec_index");
            reply.integer(spec as i64);
        }
        if let Some(token) = &argument.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if let Some(since) = &argument.since {
            reply.bulk(b"since");
            reply.bulk(since.as_bytes());
        }
        if has_flags {
            reply.bulk(b"flags");
            let flags = [
                (argument.optional, "optional"),
                (argument.multiple, "multiple"),
                (argument.multiple_token, "multiple_token"),
            ];
            let set = flags.iter().filter(|(is_set, _)| *is_set);
            reply.set(set.clone().count());
            set.for_each(|(_, name)| reply.simple(name));
        }
        if !argument.arguments.is_empty() {
            reply.bulk(b"arguments");
            write(&argument.arguments, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::Command;
    use crate::session::FAMILIES;

    #[test]
    fn the_arguments_of_set_become_redis_tree() {
        let arguments = parse("key#0 value [condition(NX | XX)@2.6.12] [EX seconds:int | KEEPTTL@6.0.0]")
            .expect("it is valid");
        let names: Vec<_> =
            arguments.iter().map(|argument| (argument.name.as_str(), argument.kind)).collect();
        assert_eq!(
            names,
            [
                ("key", Kind::Key),
                ("value", Kind::String),
                ("condition", Kind::OneOf),
                ("seconds_keepttl", Kind::OneOf),
            ]
        );
        assert_eq!(arguments[0].key_spec, Some(0));
        assert_eq!(arguments[2].since.as_deref(), Some("2.6.12"));
        assert!(arguments[2].optional);
        assert_eq!(arguments[3].arguments[0].token.as_deref(), Some("EX"));
        assert_eq!(arguments[3].arguments[0].kind, Kind::Integer);
        assert_eq!(arguments[3].arguments[1].kind, Kind::PureToken);
    }

    #[test]
    fn blocks_repeat_and_brackets_nest() {
        let arguments =
            parse("key_value{key#0 value}... [protover [AUTH{username password}] [SETNAME name]]");
        let arguments = arguments.expect("it is valid");
        assert_eq!((arguments[0].kind, arguments[0].multiple), (Kind::Block, true));
        let hello = &arguments[1].arguments;
        assert_eq!(hello[1].token.as_deref(), Some("AUTH"));
        assert_eq!(hello[1].arguments.len(), 2);
        assert_eq!((hello[2].name.as_str(), hello[2].token.as_deref()), ("name", Some("SETNAME")));
    }

    #[test]
    fn every_row_is_documented_in_sound_notation() {
        fn check(row: &Command, full_name: &str) {
            parse(row.docs.arguments).unwrap_or_else(|error| panic!("{full_name}: {error}"));
            assert!(!row.docs.summary.is_empty(), "{full_name} has no summary");
            assert!(!row.docs.since.is_empty(), "{full_name} has no since");
            for sub in row.subcommands {
                check(sub, &format!("{full_name}|{}", sub.name));
            }
        }
        let rows = FAMILIES.iter().flat_map(|family| family.iter());
        rows.filter(|row| !row.is_absent).for_each(|row| check(row, row.name));
    }
}
