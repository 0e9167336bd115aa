//! All users of the server, by name.
//!
//! Like the configuration, it never changes once it is shared: a change makes another one, which all shards take over.

use crate::acl::file;
use crate::acl::password::PasswordHash;
use crate::acl::rules::{RuleContext, RuleError, merge_selectors};
use crate::acl::user::{DEFAULT_ID, DEFAULT_USER, User, UserId};
use crate::command::table::CommandTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The users, in the order of their names. The default user is always there.
#[derive(Clone)]
pub struct Users {
    by_name: BTreeMap<Vec<u8>, Arc<User>>,
    /// Those of modules as whom clients have logged in.
    of_modules: BTreeMap<UserId, Arc<User>>,
    next_id: u64,
}

/// Why ACL SETUSER changes nothing.
#[derive(PartialEq, Eq, Debug)]
pub enum SetUserError {
    /// The word at which a selector begins that does not end.
    Unmatched(Vec<u8>),
    /// A rule, and what is wrong with it.
    Rule(Vec<u8>, RuleError),
}

impl Default for Users {
    /// Those of a server without rules: the default user may do everything, without a password.
    fn default() -> Users {
        let mut root = crate::acl::selector::Selector::default();
        root.commands = crate::acl::commands::CommandSet::all();
        (root.has_all_commands, root.has_all_keys, root.has_all_channels) = (true, true, true);
        let blank = User::new(DEFAULT_ID, DEFAULT_USER, true);
        let user = User { is_enabled: true, needs_no_password: true, selectors: vec![root], ..blank };
        let by_name = BTreeMap::from([(DEFAULT_USER.to_vec(), Arc::new(user))]);
        Users { by_name, of_modules: BTreeMap::new(), next_id: 1 }
    }
}

impl SetUserError {
    /// Redis' words, which quote the word up to a NUL.
    pub fn text(&self) -> Vec<u8> {
        let quoted = |before: &str, word: &[u8], after: &str| {
            let word = word.split(|&byte| byte == 0).next().unwrap_or_default();
            [before.as_bytes(), word, after.as_bytes()].concat()
        };
        match self {
            SetUserError::Unmatched(word) => {
                quoted("Unmatched parenthesis in acl selector starting at '", word, "'.")
            }
            SetUserError::Rule(rule, error) => {
                quoted("Error in ACL SETUSER modifier '", rule, &format!("': {}", error.text()))
            }
        }
    }
}

impl User {
    /// Changes it by rules.
    ///
    /// # Errors
    /// A rule cannot be; those before it have taken effect.
    pub fn change(&mut self, rules: &[&[u8]], ctx: RuleContext<'_>) -> Result<(), SetUserError> {
        let rules = merge_selectors(rules).map_err(|word| SetUserError::Unmatched(word.to_vec()))?;
        for rule in rules {
            self.apply(&rule, ctx).map_err(|error| SetUserError::Rule(rule, error))?;
        }
        Ok(())
    }
}

impl Users {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// What has become of a user. `None`: it is not there any more.
    pub fn current(&self, user: &User) -> Option<&Arc<User>> {
        self.get(&user.name).filter(|now| now.id == user.id).or_else(|| self.of_modules.get(&user.id))
    }

    /// Whether all may do everything, those of modules included.
    pub fn are_unrestricted(&self) -> bool {
        self.by_name.values().chain(self.of_modules.values()).all(|user| user.is_unrestricted())
    }

    /// Adds a user of a module, or replaces it.
    pub fn set_of_module(&mut self, user: Arc<User>) {
        self.of_modules.insert(user.id, user);
    }

    pub fn remove_of_module(&mut self, id: UserId) {
        self.of_modules.remove(&id);
    }

    pub fn default_user(&self) -> &Arc<User> {
        &self.by_name[DEFAULT_USER]
    }

    /// Whether there are only those of a server without rules.
    pub fn is_untouched(&self) -> bool {
        let default = self.default_user();
        self.by_name.len() == 1
            && default.is_open()
            && default.root().is_unrestricted()
            && default.other_selectors().is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// The user of this name and password.
    pub fn log_in(&self, name: &[u8], password: &[u8]) -> Option<&Arc<User>> {
        self.get(name).filter(|user| user.opens(password))
    }

    /// Creates a user, or changes it by rules.
    ///
    /// # Errors
    /// A rule cannot be; nothing has changed then.
    pub fn set_user(
        &mut self,
        name: &[u8],
        rules: &[&[u8]],
        ctx: RuleContext<'_>,
    ) -> Result<(), SetUserError> {
        let known = self.get(name).map(|user| User::clone(user));
        let mut user = known.unwrap_or_else(|| User::new(UserId(self.next_id), name, ctx.all_channels));
        user.change(rules, ctx)?;
        self.insert(user);
        Ok(())
    }

    pub(super) fn insert(&mut self, user: User) {
        self.next_id = self.next_id.max(user.id.0 + 1);
        self.by_name.insert(user.name.clone(), Arc::new(user));
    }

    /// Removes a user. Returns whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        debug_assert!(name != DEFAULT_USER, "the caller refuses that");
        self.by_name.remove(name).is_some()
    }

    /// Gives the default user the password of requirepass; none if that is empty.
    pub fn set_default_password(&mut self, password: &[u8]) {
        let user = User::clone(self.default_user());
        let passwords = if password.is_empty() { Vec::new() } else { vec![PasswordHash::of(password)] };
        self.insert(User { needs_no_password: password.is_empty(), passwords, ..user });
    }

    /// The lines of all users.
    pub fn lines(&self, table: &CommandTable) -> Vec<Vec<u8>> {
        self.iter().map(|user| user.line(table)).collect()
    }

    /// The users of an ACL file, instead of these. The default user stays if the file does not name it. Others are not the
    /// same users as before, even if they have their names.
    ///
    /// # Errors
    /// Redis' words for all that is wrong in the file.
    pub fn from_file(&self, name: &str, text: &[u8], ctx: RuleContext<'_>) -> Result<Users, String> {
        let mut new =
            Users { by_name: BTreeMap::new(), of_modules: self.of_modules.clone(), next_id: self.next_id };
        file::read(&mut new, name, text, ctx)?;
        let default = match new.by_name.remove(DEFAULT_USER) {
            Some(user) => User { id: DEFAULT_ID, ..User::clone(&user) },
            None => User::clone(Users::default().default_user()),
        };
        new.insert(default);
        Ok(new)
    }

    /// Adds a user that does not exist yet, to be given rules.
    pub(super) fn blank(&self, name: &[u8], ctx: RuleContext<'_>) -> User {
        User::new(UserId(self.next_id), name, ctx.all_channels)
    }

    /// Adds the users of a configuration's `user` lines: names and rules.
    ///
    /// # Errors
    /// Redis' words for the first that is wrong.
    pub fn add_configured(&mut self, lines: &[Vec<Vec<u8>>], ctx: RuleContext<'_>) -> Result<(), String> {
        for line in lines {
            let Some((name, rules)) = line.split_first() else { continue };
            let mut user = match self.get(name) {
                Some(user) => User::clone(user),
                None => self.blank(name, ctx),
            };
            let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
            let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
            let rules = merge_selectors(&rules).map_err(|word| {
                format!("Error in user declaration '{}': Unmatched parenthesis", shown(word))
            })?;
            let reset = b"reset".to_vec();
            for rule in std::iter::once(&reset).chain(&rules) {
                user.apply(rule, ctx).map_err(|error| {
                    format!("Error in user declaration '{}': {}", shown(rule), error.text())
                })?;
            }
            self.insert(user);
        }
        Ok(())
    }
}
