//! Which commands a selector allows.
//!
//! Commands are known by the number of the entry that the table gave them first: an entry whose row is replaced at run time
//! gets another number, and who was allowed the command stays so.

use crate::command::table::{CommandEntry, CommandTable, acl, flag};
use crate::types::glob::glob_matches;

/// A set of commands.
#[derive(Clone, Default)]
pub struct CommandSet {
    words: Vec<u64>,
    /// Whether commands beyond the words are in it: those that modules add after `+@all`.
    has_later: bool,
}

const WORD_BITS: usize = u64::BITS as usize;

impl CommandSet {
    /// All commands, also those that are yet to come.
    pub fn all() -> CommandSet {
        CommandSet { words: Vec::new(), has_later: true }
    }

    pub fn has_later(&self) -> bool {
        self.has_later
    }

    #[inline]
    pub fn has(&self, number: usize) -> bool {
        self.words
            .get(number / WORD_BITS)
            .map_or(self.has_later, |word| word >> (number % WORD_BITS) & 1 != 0)
    }

    pub fn set(&mut self, number: usize, is_in: bool) {
        let word = number / WORD_BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, if self.has_later { u64::MAX } else { 0 });
        }
        let bit = 1 << (number % WORD_BITS);
        if is_in { self.words[word] |= bit } else { self.words[word] &= !bit }
    }

    /// Adds or removes a command and its subcommands.
    pub fn set_with_subcommands(&mut self, table: &CommandTable, entry: &CommandEntry, is_in: bool) {
        self.set(number(table, entry), is_in);
        for sub in table.subcommands(entry) {
            self.set(number(table, sub), is_in);
        }
    }

    /// How many commands of a category are in it, and how many are not. Later ones than those of Redis 7.0 do not count, so
    /// that the categories that describe a set best are the same as there.
    pub fn count(&self, table: &CommandTable, category: u32) -> (usize, usize) {
        let of_category =
            of_category(table, category).filter(|entry| !entry.row.docs.since.starts_with("7.2"));
        of_category.fold(
            (0, 0),
            |(on, off), entry| {
                if self.has(number(table, entry)) { (on + 1, off) } else { (on, off + 1) }
            },
        )
    }
}

/// The number by which sets know a command.
#[inline]
pub fn number(table: &CommandTable, entry: &CommandEntry) -> usize {
    let mut id = entry.id;
    let mut plain = entry.plain;
    while let Some(earlier) = plain {
        id = earlier;
        plain = table.entry(earlier).plain;
    }
    id.index()
}

/// The command of this name, or `container|subcommand`, whatever rename-command has made of it.
pub fn named<'t>(table: &'t CommandTable, name: &[u8]) -> Option<&'t CommandEntry> {
    let (container, sub) = match name.iter().position(|&byte| byte == b'|') {
        None => (name, None),
        Some(bar) => (&name[..bar], Some(&name[bar + 1..])),
    };
    let entry = table.by_own_name_for_rules(container)?;
    match sub {
        None => Some(entry),
        Some(sub) => table.subcommand(entry, sub),
    }
}

/// The category of this name, as a bit, in upper or lower case.
pub fn category(name: &[u8]) -> Option<u32> {
    acl::NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name)).map(|at| 1 << at)
}

/// The commands and subcommands of a category. As in Redis 7.0, commands of loaded modules are in none.
pub fn of_category(table: &CommandTable, category: u32) -> impl Iterator<Item = &CommandEntry> {
    table
        .known_to_rules()
        .filter(move |entry| entry.row.acl_categories() & category != 0 && !entry.row.has(flag::MODULE))
}

/// A pattern of keys, and what may be done to those that it matches.
#[derive(Clone)]
pub struct KeyPattern {
    pub pattern: Vec<u8>,
    pub may_read: bool,
    pub may_write: bool,
}

impl KeyPattern {
    #[inline]
    pub fn allows(&self, key: &[u8], reads: bool, writes: bool) -> bool {
        (self.may_read || !reads) && (self.may_write || !writes) && glob_matches(&self.pattern, key)
    }
}
