//! A selector: a set of commands, and the keys and channels that they may name. A user may do what any one of its
//! selectors allows as a whole.

use crate::acl::channels;
use crate::acl::commands::{CommandSet, KeyPattern, number};
use crate::call::Forbidden;
use crate::command::admission::Denied;
use crate::command::keys::{self, KeyPositions, key_flag};
use crate::command::table::{CommandEntry, CommandTable, flag};
use crate::protocol::Argv;
use crate::types::glob::glob_matches;
use std::collections::BTreeMap;

/// A rule about commands, keys and channels.
#[derive(Clone, Default)]
pub struct Selector {
    pub(super) commands: CommandSet,
    /// `+@all` was the last rule about commands.
    pub(super) has_all_commands: bool,
    pub(super) has_all_keys: bool,
    pub(super) has_all_channels: bool,
    pub(super) keys: Vec<KeyPattern>,
    pub(super) channels: Vec<Vec<u8>>,
    /// By the number of a command that is not allowed: first arguments with which it is, all the same.
    pub(super) first_args: BTreeMap<usize, Vec<Vec<u8>>>,
}

/// The keys of a request, found when the first selector needs them.
pub(super) type FoundKeys = Option<KeyPositions>;

/// What is done to a key whose spec has these flags: whether its value is read, and whether it is changed.
fn needs(flags: u32) -> (bool, bool) {
    let changes = key_flag::INSERT | key_flag::DELETE | key_flag::UPDATE;
    (flags & key_flag::ACCESS != 0, flags & changes != 0)
}

impl Selector {
    /// Whether it allows everything.
    pub fn is_unrestricted(&self) -> bool {
        self.has_all_commands && self.has_all_keys && self.has_all_channels
    }

    /// Whether it allows a request.
    ///
    /// # Errors
    /// What it does not allow: the command, or the first key or channel.
    pub(super) fn check(
        &self,
        table: &CommandTable,
        entry: &CommandEntry,
        args: Argv<'_>,
        found: &mut FoundKeys,
    ) -> Result<(), Denied> {
        let is_allowed = self.has_all_commands
            || entry.row.has(flag::NO_AUTH)
            || self.commands.has(number(table, entry))
            || self.allows_first_arg(table, entry, args);
        if !is_allowed {
            return Err(Denied { what: Forbidden::Command, at: 0 });
        }
        if !self.has_all_keys {
            let positions = found.get_or_insert_with(|| keys::positions_to_check(entry.row, args));
            let denied = positions.iter().find(|&&(at, flags)| !self.allows_key(args.arg(at), flags));
            if let Some(&(at, _)) = denied {
                return Err(Denied { what: Forbidden::Key, at });
            }
        }
        self.check_channels(entry, args)
    }

    fn check_channels(&self, entry: &CommandEntry, args: Argv<'_>) -> Result<(), Denied> {
        if self.has_all_channels {
            return Ok(());
        }
        let channels = channels::of_request(entry, args);
        match channels.iter().find(|&&(at, is_pattern)| !self.allows_channel(args.arg(at), is_pattern)) {
            Some(&(at, _)) => Err(Denied { what: Forbidden::Channel, at }),
            None => Ok(()),
        }
    }

    /// Whether the command, which is not allowed, is allowed with this first argument.
    #[cold]
    fn allows_first_arg(&self, table: &CommandTable, entry: &CommandEntry, args: Argv<'_>) -> bool {
        let Some(allowed) = self.first_args.get(&number(table, entry)) else { return false };
        let first = args.get(if entry.parent.is_some() { 2 } else { 1 });
        first.is_some_and(|first| allowed.iter().any(|known| known.eq_ignore_ascii_case(first)))
    }

    /// Whether a key may be used as the flags of its spec tell.
    pub(super) fn allows_key(&self, key: &[u8], flags: u32) -> bool {
        let (reads, writes) = needs(flags);
        self.has_all_keys || self.keys.iter().any(|pattern| pattern.allows(key, reads, writes))
    }

    /// Whether it allows to read all keys there are.
    pub(super) fn may_read_all_keys(&self) -> bool {
        self.has_all_keys || self.keys.iter().any(|known| known.may_read && known.pattern == b"*")
    }

    /// Whether a channel, or all channels of a pattern, may be used. Patterns are not compared by what they match, but
    /// letter by letter.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let allows = |known: &Vec<u8>| {
            if is_pattern { known == channel } else { glob_matches(known, channel) }
        };
        self.has_all_channels || self.channels.iter().any(allows)
    }
}
