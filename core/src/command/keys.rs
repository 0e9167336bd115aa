//! Key specifications: which arguments of a request are keys, and what the command does to them.
//!
//! The same specs serve routing, ACL, COMMAND INFO and COMMAND GETKEYS. As in Redis 7, a spec says how to find the
//! first key, and then how to find the others.

use crate::command::table::{Command, KeyShape, Scope, flag};
use crate::protocol::Argv;
use smallvec::SmallVec;

/// What a command does to the keys of one spec, in the bits of COMMAND INFO.
pub mod key_flag {
    pub const RO: u32 = 1 << 0;
    pub const RW: u32 = 1 << 1;
    pub const OW: u32 = 1 << 2;
    pub const RM: u32 = 1 << 3;
    pub const ACCESS: u32 = 1 << 4;
    pub const UPDATE: u32 = 1 << 5;
    pub const INSERT: u32 = 1 << 6;
    pub const DELETE: u32 = 1 << 7;
    pub const NOT_KEY: u32 = 1 << 8;
    pub const INCOMPLETE: u32 = 1 << 9;
    pub const VARIABLE_FLAGS: u32 = 1 << 10;
}

/// How the first key is found.
#[derive(Clone, Copy, Debug)]
pub enum BeginSearch {
    Index(usize),
    /// The argument after `keyword`, which is searched for from argument `from` on (negative: from the end, backwards).
    Keyword {
        keyword: &'static str,
        from: isize,
    },
    Unknown,
}

/// How the other keys are found.
#[derive(Clone, Copy, Debug)]
pub enum FindKeys {
    /// `last` counts from the first key; negative: from the end of the arguments. `limit`: with `last` -1,
    /// 2 means the first half of the remaining arguments, 3 a third; 0 and 1 mean all.
    Range {
        last: isize,
        step: usize,
        limit: usize,
    },
    /// The argument `at` places after the begin is the number of keys, which follow from `first` on.
    KeyNum {
        at: usize,
        first: usize,
        step: usize,
    },
    Unknown,
}

/// One group of keys of a command.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub flags: u32,
    pub begin: BeginSearch,
    pub find: FindKeys,
    pub notes: &'static str,
}

/// Keys as clients before Redis 7 know them: first, last (negative: from the end of the arguments) and step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegacyRange {
    pub first: i64,
    pub last: i64,
    pub step: i64,
    /// It has all keys of the command.
    pub is_whole: bool,
}

/// Specs of neighbouring keys, the last of which may run to the end, read as one range. `None`: no spec is a range.
pub fn legacy_range(specs: &[KeySpec]) -> Option<LegacyRange> {
    let mut range: Option<LegacyRange> = None;
    let mut is_whole = true;
    for spec in specs {
        is_whole &= spec.flags & key_flag::INCOMPLETE == 0;
        let (BeginSearch::Index(begin), FindKeys::Range { last, step, limit: 0 | 1 }) =
            (spec.begin, spec.find)
        else {
            is_whole = false;
            continue;
        };
        let begin = begin as i64;
        let last = if last >= 0 { begin + last as i64 } else { last as i64 };
        match &mut range {
            None => range = Some(LegacyRange { first: begin, last, step: step as i64, is_whole: true }),
            Some(range) if range.step == 1 && range.last >= 0 && begin == range.last + 1 && step == 1 => {
                range.last = last;
            }
            Some(_) => is_whole = false,
        }
    }
    range.map(|range| LegacyRange { is_whole, ..range })
}

impl KeySpec {
    /// The one key at argument `index`.
    pub const fn one(index: usize, flags: u32) -> KeySpec {
        KeySpec::range(index, 0, 1, flags)
    }

    /// Keys from argument `first` to `last` (from the first; negative: from the end), every `step` arguments.
    pub const fn range(first: usize, last: isize, step: usize, flags: u32) -> KeySpec {
        KeySpec {
            flags,
            begin: BeginSearch::Index(first),
            find: FindKeys::Range { last, step, limit: 0 },
            notes: "",
        }
    }

    /// The keys behind argument `index`, which is their number.
    pub const fn counted(index: usize, flags: u32) -> KeySpec {
        KeySpec {
            flags,
            begin: BeginSearch::Index(index),
            find: FindKeys::KeyNum { at: 0, first: 1, step: 1 },
            notes: "",
        }
    }
}

/// Positions of keys among the arguments, with the flags of their spec.
pub type KeyPositions = SmallVec<[(usize, u32); 4]>;

/// Positions of channels among the arguments that are published or subscribed to, and whether they are patterns of channels.
pub type ChannelPositions = SmallVec<[(usize, bool); 4]>;

/// The keys of a request, in order. A spec that does not match the request finds no keys.
pub fn positions(row: &Command, args: Argv<'_>) -> KeyPositions {
    let mut found = KeyPositions::new();
    each(row, args, |at, flags| found.push((at, flags)));
    found
}

/// The same for access control, with what the key specs find besides: of a request that is malformed, that may be more.
pub fn positions_to_check(row: &Command, args: Argv<'_>) -> KeyPositions {
    let mut found = positions(row, args);
    if row.find_keys.is_some() {
        found.extend(positions_by_specs(row, args).into_iter().flatten());
    }
    found
}

/// The same for COMMAND GETKEYS, which goes by the key specs if they say it all, and does not look for what is behind a
/// keyword that is not there. `None`: a spec does not match the request.
pub fn exact_positions(row: &Command, args: Argv<'_>) -> Option<KeyPositions> {
    let by_specs = positions_by_specs(row, args);
    by_specs.or_else(|| row.find_keys.map(|_| positions(row, args)))
}

/// `None`: the specs do not say it all, or one does not match the request.
fn positions_by_specs(row: &Command, args: Argv<'_>) -> Option<KeyPositions> {
    const NOT_ALL: u32 = key_flag::INCOMPLETE | key_flag::VARIABLE_FLAGS;
    let mut found = KeyPositions::new();
    let has_finder = row.find_keys.is_some();
    if has_finder && (row.keys.is_empty() || row.keys.iter().any(|spec| spec.flags & NOT_ALL != 0)) {
        return None;
    }
    for spec in row.keys.iter().filter(|spec| spec.flags & key_flag::NOT_KEY == 0) {
        let is_optional = matches!(spec.begin, BeginSearch::Keyword { .. });
        if !find(spec, args, &mut |at, flags| found.push((at, flags))) && !is_optional {
            return None;
        }
    }
    Some(found)
}

/// Calls `found` with the position of each key of a request, in order, and the flags of its spec.
pub fn each(row: &Command, args: Argv<'_>, mut found: impl FnMut(usize, u32)) {
    if let Some(find_keys) = row.find_keys {
        let mut positions = KeyPositions::new();
        find_keys(args, &mut positions);
        positions.iter().for_each(|&(at, flags)| found(at, flags));
        return;
    }
    for spec in row.keys {
        if spec.flags & key_flag::NOT_KEY == 0 {
            find(spec, args, &mut found);
        }
    }
}

/// The same for all keys that a request reads or changes, including those that its key specs do not name.
pub fn each_locked(row: &Command, args: Argv<'_>, mut found: impl FnMut(usize, u32)) {
    each(row, args, &mut found);
    if let Some(unlisted) = row.unlisted_key {
        unlisted(args).into_iter().for_each(|at| found(at, key_flag::RO));
    }
}

/// Returns whether the spec matches the request.
fn find(spec: &KeySpec, args: Argv<'_>, found: &mut impl FnMut(usize, u32)) -> bool {
    let argc = args.len();
    let begin = match spec.begin {
        BeginSearch::Index(index) => index,
        BeginSearch::Keyword { keyword, from } => match find_keyword(keyword, from, args) {
            Some(at) => at + 1,
            None => return false,
        },
        BeginSearch::Unknown => return false,
    };
    if begin >= argc {
        return false;
    }
    match spec.find {
        FindKeys::Range { last, step, limit } => {
            let last = if last >= 0 {
                begin + last as usize
            } else if limit <= 1 || last != -1 {
                match argc.checked_add_signed(last) {
                    Some(last) => last,
                    None => return false,
                }
            } else {
                begin + ((argc - begin) / limit).saturating_sub(step)
            };
            let mut at = begin;
            while at <= last && at < argc {
                found(at, spec.flags);
                at += step;
            }
            true
        }
        FindKeys::KeyNum { at, first, step } => {
            let count = args.get(begin + at).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let count: usize = count.unwrap_or(0);
            let positions = (0..count.min(argc)).map(|n| begin + first + n * step);
            if count > argc || positions.clone().next_back().is_none_or(|last| last >= argc) {
                return false;
            }
            positions.for_each(|position| found(position, spec.flags));
            true
        }
        FindKeys::Unknown => false,
    }
}

fn find_keyword(keyword: &str, from: isize, args: Argv<'_>) -> Option<usize> {
    let matches = |at: &usize| args.get(*at).is_some_and(|arg| arg.eq_ignore_ascii_case(keyword.as_bytes()));
    if from > 0 {
        (from as usize..args.len()).find(matches)
    } else {
        let start = args.len().checked_add_signed(from)?;
        (1..=start).rev().find(matches)
    }
}

/// The argument that is a command's first key, if its keys stand behind their number and the specs name no other.
pub(crate) fn first_counted(row: &Command) -> Option<u8> {
    match row.keys {
        [
            KeySpec {
                begin: BeginSearch::Index(number),
                find: FindKeys::KeyNum { at: 0, first, step: 1 },
                ..
            },
        ] => u8::try_from(number + first).ok(),
        _ => None,
    }
}

/// The short form of a row's key specs that routing uses.
pub(crate) fn shape(row: &Command) -> KeyShape {
    // What specs say of a module's command that finds its keys itself need not be all.
    let is_found_otherwise = row.find_keys.is_some() && (row.keys.is_empty() || row.has(flag::MOVABLEKEYS));
    if !matches!(row.scope, Scope::Keys) || is_found_otherwise {
        return KeyShape::Complex;
    }
    match row.keys {
        keys if keys.iter().all(|spec| spec.flags & key_flag::NOT_KEY != 0) => KeyShape::None,
        [
            KeySpec {
                begin: BeginSearch::Index(first),
                find: FindKeys::Range { last, step, limit: 0 | 1 },
                ..
            },
        ] => {
            // A module may declare a key for a command that does not need one.
            let has_first = row.arity >= 2 || row.arity <= -2;
            if *first == 1 && *last == 0 && has_first {
                KeyShape::First
            } else if *last < 0 {
                KeyShape::Range { first: *first, last: *last, step: *step }
            } else {
                KeyShape::Complex
            }
        }
        _ => KeyShape::Complex,
    }
}
