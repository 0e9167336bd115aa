//! A user: how it logs in, and what it may do.

use crate::acl::password::PasswordHash;
use crate::acl::selector::Selector;
use crate::call::Forbidden;
use crate::command::admission::Denied;
use crate::command::table::{CommandEntry, CommandTable};
use crate::protocol::Argv;
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes a user from others that had its name before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UserId(pub(super) u64);

/// That of the default user, whatever becomes of it.
pub(super) const DEFAULT_ID: UserId = UserId(0);

/// That of nobody. Those of the users of modules count down from here, those of others up from the default user's.
const NOBODY_ID: UserId = UserId(u64::MAX);

/// How many users modules have made.
static USERS_OF_MODULES: AtomicU64 = AtomicU64::new(0);

/// Whether a user's RESTORE is to look into the payload. It is shown, and nothing else: payloads are always looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SanitizePayload {
    Unset,
    Yes,
    Skip,
}

/// The user that clients have who have not named one.
pub const DEFAULT_USER: &[u8] = b"default";

/// A user. It never changes: a rule makes another one of it.
#[derive(Clone)]
pub struct User {
    pub id: UserId,
    pub name: Vec<u8>,
    pub(super) is_enabled: bool,
    /// Any password will do.
    pub(super) needs_no_password: bool,
    pub(super) sanitize: SanitizePayload,
    pub(super) passwords: Vec<PasswordHash>,
    /// The first is that of the rules outside parentheses.
    pub(super) selectors: Vec<Selector>,
}

impl User {
    /// A user that may do nothing. `all_channels`: whether it may use all channels (acl-pubsub-default).
    pub(super) fn new(id: UserId, name: &[u8], all_channels: bool) -> User {
        User {
            id,
            name: name.to_vec(),
            is_enabled: false,
            needs_no_password: false,
            sanitize: SanitizePayload::Unset,
            passwords: Vec::new(),
            selectors: vec![Selector { has_all_channels: all_channels, ..Selector::default() }],
        }
    }

    /// Who has been somebody and is not any more. It may do nothing.
    pub fn nobody() -> User {
        User::new(NOBODY_ID, b"", false)
    }

    /// A user of a module, which may do nothing yet: no rule or command knows it by its name.
    pub fn of_module(name: &[u8], all_channels: bool) -> User {
        let number = USERS_OF_MODULES.fetch_add(1, Ordering::Relaxed) + 1;
        User::new(UserId(NOBODY_ID.0 - number), name, all_channels)
    }

    /// Whether it may do everything.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_unrestricted)
    }

    pub fn is_default(&self) -> bool {
        self.id == DEFAULT_ID
    }

    /// Whether it may be logged in as.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether clients have this user without a password.
    pub fn is_open(&self) -> bool {
        self.is_enabled && self.needs_no_password
    }

    pub fn needs_no_password(&self) -> bool {
        self.needs_no_password
    }

    /// Whether it may log in with this password. Takes a time that does not depend on how the password differs.
    pub fn opens(&self, password: &[u8]) -> bool {
        if !self.is_enabled {
            return false;
        }
        let given = PasswordHash::of(password);
        let is_known = self.passwords.iter().fold(false, |found, known| found | known.is_same(&given));
        self.needs_no_password || is_known
    }

    /// Whether it may make a request.
    ///
    /// # Errors
    /// What it may not: the command, if no selector has it, else the last key or channel at which a selector ended.
    pub fn check(&self, table: &CommandTable, entry: &CommandEntry, args: Argv<'_>) -> Result<(), Denied> {
        let mut found = None;
        let mut denied = Denied { what: Forbidden::Command, at: 0 };
        for selector in &self.selectors {
            match selector.check(table, entry, args, &mut found) {
                Ok(()) => return Ok(()),
                Err(other) => denied = denied.max(other),
            }
        }
        Err(denied)
    }

    /// Whether it may make a request, by a selector that lets it read all keys there are.
    pub fn may_read_all_keys_for(&self, table: &CommandTable, entry: &CommandEntry, args: Argv<'_>) -> bool {
        let mut found = None;
        let allows = |selector: &Selector| {
            selector.may_read_all_keys() && selector.check(table, entry, args, &mut found).is_ok()
        };
        self.selectors.iter().any(allows)
    }

    /// Whether it may use a key as a spec with these flags says.
    pub fn allows_key(&self, key: &[u8], flags: u32) -> bool {
        self.selectors.iter().any(|selector| selector.allows_key(key, flags))
    }

    /// Whether it may use a channel, or a pattern of channels.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors.iter().any(|selector| selector.allows_channel(channel, is_pattern))
    }
}
