//! SORT's options, in any order.

use super::pattern::Pattern;
use crate::command::args;
use crate::command::{CommandError, CommandResult};
use crate::protocol::Argv;
use crate::types::ValueType;
use smallvec::SmallVec;

/// Whether STORE is an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Storing {
    Taken,
    Refused,
}

pub(super) struct Options<'a> {
    pub(super) by: Option<Pattern<'a>>,
    /// One of BY's patterns had no `*`: the elements are not sorted.
    is_unsorted: bool,
    /// LIMIT's offset and count; a negative count: all.
    limit: (i64, i64),
    pub(super) get: SmallVec<[Pattern<'a>; 4]>,
    is_descending: bool,
    is_alpha: bool,
    /// The argument that is the destination.
    pub(super) store: Option<usize>,
}

/// What is done with the elements of a value.
pub(super) struct How {
    pub(super) sorts: bool,
    /// By the elements, whatever BY says.
    pub(super) by_element: bool,
    pub(super) is_alpha: bool,
    pub(super) is_descending: bool,
    pub(super) limit: (i64, i64),
}

const FIRST_OPTION: usize = 2;

impl<'a> Options<'a> {
    /// # Errors
    /// Syntax; LIMIT with what is no integer: the first that is met.
    pub(super) fn parse(args: Argv<'a>, storing: Storing) -> CommandResult<Options<'a>> {
        let mut options = Options {
            by: None,
            is_unsorted: false,
            limit: (0, -1),
            get: SmallVec::new(),
            is_descending: false,
            is_alpha: false,
            store: None,
        };
        let mut at = FIRST_OPTION;
        while at < args.len() {
            let option = args.arg(at);
            let left = args.len() - at - 1;
            if args::is(option, "asc") {
                options.is_descending = false;
            } else if args::is(option, "desc") {
                options.is_descending = true;
            } else if args::is(option, "alpha") {
                options.is_alpha = true;
            } else if args::is(option, "limit") && left >= 2 {
                options.limit = (args::integer(args.arg(at + 1))?, args::integer(args.arg(at + 2))?);
                at += 2;
            } else if storing == Storing::Taken && args::is(option, "store") && left >= 1 {
                options.store = Some(at + 1);
                at += 1;
            } else if args::is(option, "by") && left >= 1 {
                let by = Pattern::parse(args.arg(at + 1));
                options.is_unsorted |= !by.names_keys();
                options.by = Some(by);
                at += 1;
            } else if args::is(option, "get") && left >= 1 {
                options.get.push(Pattern::parse(args.arg(at + 1)));
                at += 1;
            } else {
                return Err(CommandError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }

    /// Whether any pattern stands for keys that are looked up.
    pub(super) fn names_keys(&self) -> bool {
        self.by.is_some_and(|by| by.names_keys() && !self.is_unsorted)
            || self.get.iter().any(Pattern::names_keys)
    }

    /// `in_script`: a script calls SORT.
    pub(super) fn how(&self, value_type: ValueType, in_script: bool) -> How {
        // A set has no order of its own, and what is stored must be the same on a replica. Scripts rely on an order, too.
        let needs_order = self.store.is_some() || in_script;
        let by_element = self.is_unsorted && value_type == ValueType::Set && needs_order;
        How {
            sorts: !self.is_unsorted || by_element,
            by_element: by_element || self.by.is_none(),
            is_alpha: self.is_alpha || by_element,
            is_descending: self.is_descending,
            limit: self.limit,
        }
    }
}

/// The error for a client that may not read all keys: BY with a pattern, and GET with anything, are not for it.
pub(super) fn refusal(args: Argv<'_>) -> Option<CommandError> {
    let mut at = FIRST_OPTION;
    while at + 1 < args.len() {
        let option = args.arg(at);
        if args::is(option, "limit") {
            at += 2;
        } else if args::is(option, "get") {
            return Some(CommandError::fixed(
                "ERR GET option of SORT denied due to insufficient ACL permissions.",
            ));
        } else if args::is(option, "by") {
            if Pattern::parse(args.arg(at + 1)).names_keys() {
                return Some(CommandError::fixed(
                    "ERR BY option of SORT denied due to insufficient ACL permissions.",
                ));
            }
            at += 1;
        } else if args::is(option, "store") {
            at += 1;
        }
        at += 1;
    }
    None
}

/// The argument that is the destination; the last STORE counts.
pub(super) fn destination(args: Argv<'_>) -> Option<usize> {
    let mut found = None;
    let mut at = FIRST_OPTION;
    while at < args.len() {
        let option = args.arg(at);
        if args::is(option, "limit") {
            at += 2;
        } else if args::is(option, "get") || args::is(option, "by") {
            at += 1;
        } else if args::is(option, "store") && at + 1 < args.len() {
            found = Some(at + 1);
            at += 1;
        }
        at += 1;
    }
    found
}
