//! Which arguments of a call in a script may be keys, and whether all these are declared ones.
//!
//! Only part of the arguments is known before the script runs. Whatever they may turn out to be, no key that the command
//! touches may escape; so what depends on an unknown argument (a count, a keyword that it could be) is taken for any.

/// How the first key of a group is found. Arguments are counted from the command's name, which is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    Index(usize),
    /// The argument after `keyword`, which is searched for from argument `from` on (negative: from the end, backwards).
    Keyword {
        keyword: &'static str,
        from: isize,
    },
}

/// How the other keys of a group are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// `last` counts from the first key; negative: from the end of the arguments. `limit`: with `last` -1, 2 means the
    /// first half of the remaining arguments, 3 a third; 0 and 1 mean all.
    Range { last: isize, step: usize, limit: usize },
    /// The argument `at` places after the begin is the number of keys, which follow from `first` on.
    Count { at: usize, first: usize, step: usize },
}

/// One group of keys of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyGroup {
    pub begin: Begin,
    pub find: Find,
}

/// What a call of a command does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallFacts {
    /// Together they name every key that it may touch, all of them in the selected database.
    pub keys: Vec<KeyGroup>,
    pub writes: bool,
}

/// An argument, as far as it is known before the script runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Argument<'a> {
    Literal(&'a [u8]),
    /// A declared key, or something that no command accepts as an argument.
    Key,
    Unknown,
}

/// The arguments of a call, the name among them.
pub(super) struct Arguments<'a> {
    pub(super) fixed: Vec<Argument<'a>>,
    /// After these there may be any number of others, all of this kind.
    pub(super) tail: Option<Argument<'a>>,
}

impl<'a> Arguments<'a> {
    pub(super) fn literals(&self) -> Vec<Option<&'a [u8]>> {
        let literal = |argument: &Argument<'a>| match *argument {
            Argument::Literal(text) => Some(text),
            Argument::Key | Argument::Unknown => None,
        };
        self.fixed.iter().map(literal).collect()
    }

    /// Whether each argument that may be a key of the group is a declared key.
    pub(super) fn are_declared(&self, group: KeyGroup) -> bool {
        let begin = match group.begin {
            Begin::Index(at) => at,
            Begin::Keyword { keyword, from } => match self.find_keyword(keyword, from) {
                Search::At(at) => at + 1,
                Search::Nowhere => return true,
                Search::Unknown => return false,
            },
        };
        match group.find {
            Find::Range { last, step, limit } => self.is_range_declared(begin, last, step, limit),
            Find::Count { at, first, step } => {
                let count = match self.at(begin + at) {
                    Some(Argument::Literal(text)) => {
                        std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok())
                    }
                    Some(Argument::Key | Argument::Unknown) | None => None,
                };
                let Some(count) = count else { return self.are_all_declared_from(begin + first) };
                // Those past the arguments are seen to by the first of them.
                let positions = (0..count.min(self.fixed.len() + 1)).map(|n| begin + first + n * step);
                self.each_is_declared(positions)
            }
        }
    }

    fn is_range_declared(&self, begin: usize, last: isize, step: usize, limit: usize) -> bool {
        let argc = self.fixed.len();
        if last >= 0 {
            return self.each_is_declared((begin..=begin + last as usize).step_by(step));
        }
        if self.tail.is_some() {
            let whole = last == -1 && limit <= 1;
            let fixed = || (begin..argc).step_by(step).all(|at| self.fixed[at] == Argument::Key);
            return if whole {
                fixed() && self.tail == Some(Argument::Key)
            } else {
                self.are_all_declared_from(begin)
            };
        }
        let last = if limit <= 1 || last != -1 {
            argc.checked_add_signed(last)
        } else {
            Some(begin + (argc.saturating_sub(begin) / limit).saturating_sub(step))
        };
        let Some(last) = last else { return true };
        self.each_is_declared((begin..=last).step_by(step).take_while(|&at| at < argc))
    }

    /// What stands at a position; `None`: nothing, at no call.
    fn at(&self, position: usize) -> Option<Argument<'a>> {
        self.fixed.get(position).copied().or(self.tail)
    }

    fn each_is_declared(&self, mut positions: impl Iterator<Item = usize>) -> bool {
        positions.all(|at| matches!(self.at(at), None | Some(Argument::Key)))
    }

    fn are_all_declared_from(&self, from: usize) -> bool {
        self.each_is_declared(from..from.max(self.fixed.len()) + 1)
    }

    fn find_keyword(&self, keyword: &str, from: isize) -> Search {
        let argc = self.fixed.len();
        let search = |positions: &mut dyn Iterator<Item = usize>| {
            for at in positions {
                match self.fixed[at] {
                    Argument::Literal(text) if text.eq_ignore_ascii_case(keyword.as_bytes()) => {
                        return Search::At(at);
                    }
                    Argument::Literal(_) => {}
                    Argument::Key | Argument::Unknown => return Search::Unknown,
                }
            }
            Search::Nowhere
        };
        if from > 0 {
            match search(&mut (from as usize..argc)) {
                Search::Nowhere if self.tail.is_some() => Search::Unknown,
                found => found,
            }
        } else if self.tail.is_some() {
            Search::Unknown
        } else {
            let start = argc.checked_add_signed(from).unwrap_or(0);
            search(&mut (1..=start.min(argc.saturating_sub(1))).rev())
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Search {
    At(usize),
    Nowhere,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `K` a key, `?` unknown, `K*` and `?*` a tail of them, and literals.
    fn arguments(text: &str) -> Arguments<'_> {
        let mut arguments = Arguments { fixed: Vec::new(), tail: None };
        for word in text.split_whitespace() {
            match word {
                "K" => arguments.fixed.push(Argument::Key),
                "?" => arguments.fixed.push(Argument::Unknown),
                "K*" => arguments.tail = Some(Argument::Key),
                "?*" => arguments.tail = Some(Argument::Unknown),
                literal => arguments.fixed.push(Argument::Literal(literal.as_bytes())),
            }
        }
        arguments
    }

    fn range(first: usize, last: isize, step: usize) -> KeyGroup {
        KeyGroup { begin: Begin::Index(first), find: Find::Range { last, step, limit: 0 } }
    }

    const COUNTED: KeyGroup =
        KeyGroup { begin: Begin::Index(1), find: Find::Count { at: 0, first: 1, step: 1 } };
    const STREAMS: KeyGroup = KeyGroup {
        begin: Begin::Keyword { keyword: "STREAMS", from: 1 },
        find: Find::Range { last: -1, step: 1, limit: 2 },
    };
    const STORE: KeyGroup = KeyGroup {
        begin: Begin::Keyword { keyword: "STORE", from: -2 },
        find: Find::Range { last: 0, step: 1, limit: 0 },
    };

    #[test]
    fn every_position_that_may_be_a_key_has_to_be_one() {
        for (text, group, is_declared) in [
            ("get K", range(1, 0, 1), true),
            ("get x", range(1, 0, 1), false),
            ("get", range(1, 0, 1), true),
            ("get K*", range(1, 0, 1), true),
            ("get ?*", range(1, 0, 1), false),
            ("zadd K ?*", range(1, 0, 1), true),
            ("rename K x", range(1, 1, 1), false),
            ("del K K", range(1, -1, 1), true),
            ("del K x", range(1, -1, 1), false),
            ("del K K*", range(1, -1, 1), true),
            ("del K ?*", range(1, -1, 1), false),
            ("mset K x K ?", range(1, -1, 2), true),
            ("mset K x ? ?", range(1, -1, 2), false),
            ("mset K x ?*", range(1, -1, 2), false),
            ("blpop K 0", range(1, -2, 1), true),
            ("blpop K ? 0", range(1, -2, 1), false),
            ("blpop K ?*", range(1, -2, 1), false),
            ("blpop K K*", range(1, -2, 1), true),
            ("zunion 2 K K weights 1 2", COUNTED, true),
            ("zunion 2 K x", COUNTED, false),
            ("zunion 3 K K ?*", COUNTED, false),
            ("zunion 2 K K ?*", COUNTED, true),
            ("zunion 9 K K", COUNTED, true),
            ("zunion ? K K", COUNTED, true),
            ("zunion ? K K*", COUNTED, true),
            ("zunion ? K withscores", COUNTED, false),
            ("zunion -1 K x", COUNTED, false),
            ("zunion ?*", COUNTED, false),
            ("xread count 2 streams K ?", STREAMS, true),
            ("xread STREAMS K K ? ?", STREAMS, true),
            ("xread streams K x ? ?", STREAMS, false),
            ("xread count ? streams K ?", STREAMS, false),
            ("xread ?*", STREAMS, false),
            ("xread streams K ?*", STREAMS, false),
            ("xread count 2", STREAMS, true),
            ("sort K store K", STORE, true),
            ("sort K store x", STORE, false),
            ("sort K limit 0 1", STORE, false),
            ("sort K ? x", STORE, false),
            ("sort", STORE, true),
        ] {
            assert_eq!(arguments(text).are_declared(group), is_declared, "{text}");
        }
    }
}
