//! Rules: the words of ACL SETUSER, of `user` lines in a configuration, and of ACL files.

use crate::acl::commands::{self, CommandSet, KeyPattern, category, named, number};
use crate::acl::password::PasswordHash;
use crate::acl::selector::Selector;
use crate::acl::user::{SanitizePayload, User};
use crate::command::table::CommandTable;
use crate::protocol::inline::split_words;

/// Why a rule cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleError {
    Unknown,
    Syntax,
    KeyAfterAll,
    ChannelAfterAll,
    NoSuchPassword,
    BadHash,
    FirstArgOfSubcommand,
}

impl RuleError {
    /// Redis' words.
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::KeyAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::ChannelAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// What rules go by.
#[derive(Clone, Copy)]
pub struct RuleContext<'t> {
    pub table: &'t CommandTable,
    /// acl-pubsub-default is allchannels.
    pub all_channels: bool,
}

/// Names of users, and patterns, have no blanks and no NUL: they stand unquoted in a file.
pub fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|&byte| byte.is_ascii_whitespace() || byte == b'\x0b' || byte == 0)
}

/// Puts the words of each selector, which stands in parentheses, together. As in Redis, one that begins within another takes
/// the place of that. `Err`: the word at which one begins that has no end.
pub fn merge_selectors<'a>(words: &[&'a [u8]]) -> Result<Vec<Vec<u8>>, &'a [u8]> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for &word in words {
        let ends = word.last() == Some(&b')');
        if word.first() == Some(&b'(') && !ends {
            open = Some((word, word.to_vec()));
            continue;
        }
        match &mut open {
            None => merged.push(word.to_vec()),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if ends {
                    merged.extend(open.take().map(|(_, selector)| selector));
                }
            }
        }
    }
    match open {
        None => Ok(merged),
        Some((word, _)) => Err(word),
    }
}

impl User {
    /// Applies one rule.
    ///
    /// # Errors
    /// The rule cannot be; the user is as before.
    pub(super) fn apply(&mut self, rule: &[u8], ctx: RuleContext<'_>) -> Result<(), RuleError> {
        let Some((&sign, rest)) = rule.split_first() else { return Ok(()) };
        match rule.to_ascii_lowercase().as_slice() {
            b"on" => self.is_enabled = true,
            b"off" => self.is_enabled = false,
            b"nopass" => {
                self.needs_no_password = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.needs_no_password = false;
                self.passwords.clear();
            }
            b"skip-sanitize-payload" => self.sanitize = SanitizePayload::Skip,
            b"sanitize-payload" => self.sanitize = SanitizePayload::Yes,
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => {
                let cleared = User::new(self.id, &self.name, ctx.all_channels);
                *self = User { sanitize: SanitizePayload::Yes, ..cleared };
            }
            _ => match sign {
                b'>' => self.add_password(PasswordHash::of(rest)),
                b'#' => self.add_password(PasswordHash::from_hex(rest).ok_or(RuleError::BadHash)?),
                b'<' => self.remove_password(PasswordHash::of(rest))?,
                b'!' => self.remove_password(PasswordHash::from_hex(rest).ok_or(RuleError::BadHash)?)?,
                b'(' if rule.last() == Some(&b')') => {
                    let selector = parse_selector(&rule[1..rule.len() - 1], ctx)?;
                    self.selectors.push(selector);
                }
                _ => self.selectors[0].apply(rule, ctx)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, hash: PasswordHash) {
        self.needs_no_password = false;
        if !self.passwords.iter().any(|known| known.is_same(&hash)) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| known.is_same(&hash));
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }
}

/// The selector of the rules between parentheses.
fn parse_selector(text: &[u8], ctx: RuleContext<'_>) -> Result<Selector, RuleError> {
    let mut selector = Selector { has_all_channels: ctx.all_channels, ..Selector::default() };
    let words = split_words(text).map_err(|_| RuleError::Syntax)?;
    for word in words.as_argv().iter() {
        selector.apply(word, ctx)?;
    }
    Ok(selector)
}

impl Selector {
    /// Applies a rule about commands, keys or channels.
    ///
    /// # Errors
    /// The rule cannot be; the selector is as before.
    fn apply(&mut self, rule: &[u8], ctx: RuleContext<'_>) -> Result<(), RuleError> {
        let Some((&sign, rest)) = rule.split_first() else { return Ok(()) };
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => {
                self.has_all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.has_all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.has_all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.has_all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => {
                self.commands = CommandSet::all();
                self.has_all_commands = true;
                self.first_args.clear();
            }
            b"nocommands" | b"-@all" => {
                self.commands = CommandSet::default();
                self.has_all_commands = false;
                self.first_args.clear();
            }
            _ => match sign {
                b'~' => self.add_key(rest, true, true)?,
                b'%' => self.add_key_for(rest)?,
                b'&' => self.add_channel(rest)?,
                b'+' if rest.first() == Some(&b'@') => self.set_category(&rest[1..], true, ctx.table)?,
                b'-' if rest.first() == Some(&b'@') => self.set_category(&rest[1..], false, ctx.table)?,
                b'+' => self.add_command(rest, ctx.table)?,
                b'-' => self.set_command(rest, false, ctx.table)?,
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    /// `RW~pattern`, in any order and case, each letter at most once.
    fn add_key_for(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        if self.has_all_keys {
            return Err(RuleError::KeyAfterAll);
        }
        let (mut may_read, mut may_write) = (false, false);
        for (at, byte) in rule.iter().enumerate() {
            match byte.to_ascii_uppercase() {
                b'R' if !may_read => may_read = true,
                b'W' if !may_write => may_write = true,
                b'~' if may_read || may_write => return self.add_key(&rule[at + 1..], may_read, may_write),
                _ => return Err(RuleError::Syntax),
            }
        }
        // As in Redis 7.0, a rule that ends before its pattern is one for the empty key.
        if may_read || may_write { self.add_key(b"", may_read, may_write) } else { Err(RuleError::Syntax) }
    }

    fn add_key(&mut self, pattern: &[u8], may_read: bool, may_write: bool) -> Result<(), RuleError> {
        if self.has_all_keys {
            return Err(RuleError::KeyAfterAll);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => {
                known.may_read |= may_read;
                known.may_write |= may_write;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), may_read, may_write }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.has_all_channels {
            return Err(RuleError::ChannelAfterAll);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    pub(super) fn set_category(
        &mut self,
        name: &[u8],
        is_allowed: bool,
        table: &CommandTable,
    ) -> Result<(), RuleError> {
        let category = category(name).ok_or(RuleError::Unknown)?;
        for entry in commands::of_category(table, category) {
            self.commands.set_with_subcommands(table, entry, is_allowed);
            self.first_args.remove(&number(table, entry));
        }
        self.has_all_commands &= is_allowed;
        Ok(())
    }

    fn set_command(&mut self, name: &[u8], is_allowed: bool, table: &CommandTable) -> Result<(), RuleError> {
        let entry = named(table, name).ok_or(RuleError::Unknown)?;
        self.commands.set_with_subcommands(table, entry, is_allowed);
        self.first_args.remove(&number(table, entry));
        self.has_all_commands &= is_allowed;
        Ok(())
    }

    /// A command, a subcommand, or a command with a certain first argument.
    fn add_command(&mut self, name: &[u8], table: &CommandTable) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|&byte| byte == b'|') else {
            return self.set_command(name, true, table);
        };
        let (command, first) = (&name[..bar], &name[bar + 1..]);
        let entry = named(table, command).ok_or(RuleError::Unknown)?;
        if entry.parent.is_some() {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if first.is_empty() {
            return Err(RuleError::Syntax);
        }
        if !entry.row.subcommands.is_empty() {
            return self.set_command(name, true, table);
        }
        let allowed = self.first_args.entry(number(table, entry)).or_default();
        if !allowed.iter().any(|known| known.eq_ignore_ascii_case(first)) {
            allowed.push(first.to_vec());
        }
        Ok(())
    }
}
