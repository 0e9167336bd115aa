//! CONFIG GET and CONFIG SET: pure functions from one configuration to answers or to the next configuration.
//!
//! CONFIG SET is all or nothing, in steps that Redis takes too: every argument is looked up and may be set by this
//! caller; every value is judged; what the server has to do for it is done; only then the new configuration counts. A
//! failure of a step undoes those before it. `Config::stage` is the first two steps, `Update::apply` the rest.

use super::{Config, DIRECTIVES, Directive, Flags, Origin, SideEffect, Why, lookup};
use crate::protocol::until_nul;
use crate::types::glob::glob_matches_nocase;

/// What the one who calls CONFIG SET may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// enable-protected-configs lets this client change the protected directives.
    pub may_set_protected: bool,
    /// The data set is being loaded.
    pub is_loading: bool,
}

/// Why CONFIG SET changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// A directive that does not exist, spelled as the client did.
    Unknown {
        name: Vec<u8>,
    },
    /// A directive that must wait until the data set is loaded.
    Loading,
    Failed {
        name: Vec<u8>,
        why: Why,
    },
}

impl SetError {
    /// The error reply, code first; a name as the client spelled it.
    pub fn reply(&self) -> Vec<u8> {
        match self {
            SetError::Unknown { name } => {
                [b"ERR Unknown option or number of arguments for CONFIG SET - '", until_nul(name), b"'"]
                    .concat()
            }
            SetError::Loading => b"LOADING Redis is loading the dataset in memory".to_vec(),
            SetError::Failed { name, why } => [
                b"ERR CONFIG SET failed (possibly related to argument '",
                until_nul(name),
                b"') - ",
                why.as_bytes(),
            ]
            .concat(),
        }
    }
}

/// One directive that CONFIG SET named.
#[derive(Clone, Copy)]
pub struct Change {
    pub directive: &'static Directive,
    /// The name it was called by, the current or the old one, in lower case.
    pub name: &'static str,
    /// False if the directive already had this value.
    pub is_new: bool,
}

/// A CONFIG SET that is judged to be right and is not in effect yet.
pub struct Update {
    before: Config,
    after: Config,
    changes: Vec<Change>,
}

impl Config {
    /// CONFIG GET: names and values of the directives that match any of the patterns, each name once. A pattern without
    /// `*`, `?` or `[` is a name, and is answered as it was spelled; only so are hidden directives shown.
    pub fn get_matching(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |name: &[u8], row: &Directive| {
            if !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                found.push((name.to_vec(), row.value(self)));
            }
        };
        for pattern in patterns {
            if !pattern.iter().any(|byte| b"*?[".contains(byte)) {
                if let Some(row) = lookup(pattern) {
                    add(pattern, row);
                }
                continue;
            }
            for row in DIRECTIVES.iter().filter(|row| !row.flags.contains(Flags::HIDDEN)) {
                for name in row.names().filter(|name| glob_matches_nocase(pattern, name.as_bytes())) {
                    add(name.as_bytes(), row);
                }
            }
        }
        found
    }

    /// CONFIG SET without any work for the server: for tests and for callers that do the work themselves.
    pub fn set_many(
        &self,
        pairs: &[(&[u8], &[u8])],
        caller: Caller,
    ) -> Result<(Config, Vec<Change>), SetError> {
        self.stage(pairs, caller)?.apply(|_, _, _| Ok(()))
    }

    /// Judges a CONFIG SET: the names first, all of them, then the values.
    pub fn stage(&self, pairs: &[(&[u8], &[u8])], caller: Caller) -> Result<Update, SetError> {
        let mut changes: Vec<Change> = Vec::with_capacity(pairs.len());
        for (spelled, _) in pairs {
            let fail = |why: &'static str| SetError::Failed { name: spelled.to_vec(), why: why.into() };
            let Some(directive) = lookup(spelled) else {
                return Err(SetError::Unknown { name: spelled.to_vec() });
            };
            let name = directive.names().find(|name| name.as_bytes().eq_ignore_ascii_case(spelled));
            let name = name.expect("it was looked up by one of its names");
            if directive.flags.contains(Flags::IMMUTABLE) {
                return Err(fail("can't set immutable config"));
            }
            if directive.flags.contains(Flags::PROTECTED) && !caller.may_set_protected {
                return Err(fail("can't set protected config"));
            }
            if directive.flags.contains(Flags::DENY_LOADING) && caller.is_loading {
                return Err(SetError::Loading);
            }
            // Two names of one directive are no duplicates: the last one counts, as in Redis.
            if changes.iter().any(|change| change.name == name) {
                return Err(fail("duplicate parameter"));
            }
            changes.push(Change { directive, name, is_new: false });
        }

        let mut after = self.clone();
        for (change, (_, value)) in changes.iter().zip(pairs) {
            after
                .assign(change.directive, &[value], Origin::Set)
                .map_err(|why| SetError::Failed { name: change.name.as_bytes().to_vec(), why })?;
        }
        for change in &mut changes {
            change.is_new = !(change.directive.same)(self, &after);
        }
        Ok(Update { before: self.clone(), after, changes })
    }
}

impl Update {
    /// The configuration to be.
    pub fn config(&self) -> &Config {
        &self.after
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The work that new values bring, each once, with the name to blame if it fails.
    pub fn effects(&self) -> Vec<(SideEffect, &'static str)> {
        let mut effects: Vec<(SideEffect, &'static str)> = Vec::new();
        let counts = |change: &&Change| change.is_new || change.directive.flags.contains(Flags::VOLATILE);
        for change in self.changes.iter().filter(counts) {
            if let Some(effect) = change.directive.effect
                && !effects.iter().any(|(known, _)| *known == effect)
            {
                effects.push((effect, change.name));
            }
        }
        effects
    }

    /// Has the work done, `work(effect, from, to)` for each, and returns the new configuration, which the caller then
    /// publishes. `work` may correct `to` by what it found (the absolute path of `dir`). If one fails, those before it
    /// are done again the other way round, last first, and their failures are not heeded: there is nothing left to do.
    pub fn apply(
        mut self,
        mut work: impl FnMut(SideEffect, &Config, &mut Config) -> Result<(), Why>,
    ) -> Result<(Config, Vec<Change>), SetError> {
        let effects = self.effects();
        for (done, (effect, name)) in effects.iter().enumerate() {
            let Err(why) = work(*effect, &self.before, &mut self.after) else { continue };
            for (effect, _) in effects[..done].iter().rev() {
                let _ = work(*effect, &self.after, &mut self.before);
            }
            return Err(SetError::Failed { name: name.as_bytes().to_vec(), why });
        }
        Ok((self.after, self.changes))
    }
}
