//! Users as rules: as ACL LIST, ACL GETUSER and files have them.

use crate::acl::commands::{CommandSet, number};
use crate::acl::selector::Selector;
use crate::acl::user::{SanitizePayload, User};
use crate::command::table::{CommandTable, acl};

impl User {
    /// The rules that are one word each: `on`, `nopass`.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_enabled { "on" } else { "off" }];
        if self.needs_no_password {
            flags.push("nopass");
        }
        match self.sanitize {
            SanitizePayload::Unset => {}
            SanitizePayload::Yes => flags.push("sanitize-payload"),
            SanitizePayload::Skip => flags.push("skip-sanitize-payload"),
        }
        flags
    }

    /// The digests of its passwords, in hexadecimal.
    pub fn password_hashes(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(|hash| hash.to_hex())
    }

    /// The selector of the rules outside parentheses.
    pub fn root(&self) -> &Selector {
        &self.selectors[0]
    }

    /// The selectors in parentheses.
    pub fn other_selectors(&self) -> &[Selector] {
        &self.selectors[1..]
    }

    /// The line of ACL LIST and of files: `user`, the name, and the rules that make it.
    pub fn line(&self, table: &CommandTable) -> Vec<u8> {
        [b"user ", self.name.as_slice(), b" ", &self.rules(table)].concat()
    }

    /// The rules that make it, with blanks between them.
    pub fn rules(&self, table: &CommandTable) -> Vec<u8> {
        let mut line = self.flags().join(" ").into_bytes();
        for hash in self.password_hashes() {
            line.extend_from_slice(b" #");
            line.extend_from_slice(hash.as_bytes());
        }
        line.push(b' ');
        line.extend_from_slice(&self.root().rules(table));
        for selector in self.other_selectors() {
            line.extend_from_slice(b" (");
            line.extend_from_slice(&selector.rules(table));
            line.push(b')');
        }
        line
    }
}

/// Puts words together with blanks.
fn join(words: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    words.into_iter().collect::<Vec<_>>().join(&b' ')
}

impl Selector {
    fn rules(&self, table: &CommandTable) -> Vec<u8> {
        let keys = self.key_rules();
        let channels = self.channel_rules();
        let reset = if self.has_all_channels { Vec::new() } else { b"resetchannels".to_vec() };
        let commands = self.command_rules(table).into_bytes();
        join([keys, reset, channels, commands].into_iter().filter(|part| !part.is_empty()))
    }

    /// Its patterns of keys, with blanks between them.
    pub fn key_rules(&self) -> Vec<u8> {
        if self.has_all_keys {
            return b"~*".to_vec();
        }
        join(self.keys.iter().map(|known| {
            let sign: &[u8] = match (known.may_read, known.may_write) {
                (true, false) => b"%R~",
                (false, true) => b"%W~",
                (true, true) | (false, false) => b"~",
            };
            [sign, &known.pattern].concat()
        }))
    }

    /// Its patterns of channels, with blanks between them.
    pub fn channel_rules(&self) -> Vec<u8> {
        if self.has_all_channels {
            return b"&*".to_vec();
        }
        join(self.channels.iter().map(|pattern| [b"&", pattern.as_slice()].concat()))
    }

    /// Rules that give the same commands: first categories, each time the one that fits best to what is not described yet,
    /// then the commands that differ.
    pub fn command_rules(&self, table: &CommandTable) -> String {
        let adds = !self.commands.has_later();
        let (mut rules, mut described) = match adds {
            true => ("-@all".to_string(), Selector::default()),
            false => ("+@all".to_string(), Selector { commands: CommandSet::all(), ..Selector::default() }),
        };
        let sign = |is_allowed| if is_allowed { '+' } else { '-' };
        // What the categories chosen so far do not describe.
        let mut rest = self.clone();
        let mut is_left = [true; acl::NAMES.len()];
        while let Some(best) = best_category(&rest.commands, table, adds, &is_left) {
            let name = acl::NAMES[best];
            described.set_category(name.as_bytes(), adds, table).expect("it is a category");
            rest.set_category(name.as_bytes(), !adds, table).expect("it is a category");
            rules.push_str(&format!(" {}@{name}", sign(adds)));
            is_left[best] = false;
        }

        for entry in table.known_to_rules().filter(|entry| entry.parent.is_none()) {
            let with_subs = std::iter::once(entry).chain(table.subcommands(entry));
            for entry in with_subs {
                let number = number(table, entry);
                let is_allowed = self.commands.has(number);
                if is_allowed != described.commands.has(number) {
                    described.commands.set_with_subcommands(table, entry, is_allowed);
                    rules.push_str(&format!(" {}{}", sign(is_allowed), entry.full_name));
                }
                if !is_allowed {
                    for first in self.first_args.get(&number).into_iter().flatten() {
                        let first = String::from_utf8_lossy(first);
                        rules.push_str(&format!(" +{}|{first}", entry.full_name));
                    }
                }
            }
        }
        rules
    }
}

/// The category that has more commands in common with those to be described than others: the one with the fewest others,
/// and of these the one with the most in common. The first of equals.
fn best_category(
    rest: &CommandSet,
    table: &CommandTable,
    adds: bool,
    is_left: &[bool; acl::NAMES.len()],
) -> Option<usize> {
    let mut best: Option<(usize, usize, usize)> = None;
    for at in (0..acl::NAMES.len()).filter(|&at| is_left[at]) {
        let (on, off) = rest.count(table, 1 << at);
        let (same, others) = if adds { (on, off) } else { (off, on) };
        let is_better =
            best.is_none_or(|(_, fewest, most)| others < fewest || others == fewest && same > most);
        if same > others && is_better {
            best = Some((at, others, same));
        }
    }
    best.map(|(at, ..)| at)
}
