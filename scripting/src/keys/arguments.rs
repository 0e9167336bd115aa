//! Which arguments of a call in a script may be keys, and whether all these are known before the script runs.
//!
//! Only part of the arguments is known before the script runs. Whatever they may turn out to be, no key that the command
//! touches may escape; so what depends on an unknown argument (a count, a keyword that it could be) is taken for any.

use crate::keys::template::TemplateId;

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
    /// It sends a message to a channel.
    pub publishes: bool,
}

/// An argument, as far as it is known before the script runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Argument<'a> {
    Literal(&'a [u8]),
    /// A declared key, or something that no command accepts as an argument.
    Key,
    /// What these pieces make.
    Made(TemplateId),
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
            Argument::Key | Argument::Made(_) | Argument::Unknown => None,
        };
        self.fixed.iter().map(literal).collect()
    }

    /// The arguments that may be keys of the group and are no declared keys. `None`: one of them is unknown.
    pub(super) fn undeclared(&self, group: KeyGroup) -> Option<Vec<Argument<'a>>> {
        let begin = match group.begin {
            Begin::Index(at) => at,
            Begin::Keyword { keyword, from } => match self.find_keyword(keyword, from) {
                Search::At(at) => at + 1,
                Search::Nowhere => return Some(Vec::new()),
                Search::Unknown => return None,
            },
        };
        match group.find {
            Find::Range { last, step, limit } => self.undeclared_in_range(begin, last, step, limit),
            Find::Count { at, first, step } => {
                let count = match self.at(begin + at) {
                    Some(Argument::Literal(text)) => {
                        std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok())
                    }
                    Some(Argument::Key | Argument::Made(_) | Argument::Unknown) | None => None,
                };
                let Some(count) = count else { return self.undeclared_from(begin + first) };
                // Those past the arguments are seen to by the first of them.
                let positions = (0..count.min(self.fixed.len() + 1)).map(|n| begin + first + n * step);
                self.undeclared_at(positions)
            }
        }
    }

    fn undeclared_in_range(
        &self,
        begin: usize,
        last: isize,
        step: usize,
        limit: usize,
    ) -> Option<Vec<Argument<'a>>> {
        let argc = self.fixed.len();
        if last >= 0 {
            return self.undeclared_at((begin..=begin + last as usize).step_by(step));
        }
        if let Some(tail) = self.tail {
            let whole = last == -1 && limit <= 1 && tail == Argument::Key;
            return if whole {
                self.undeclared_at((begin..argc).step_by(step))
            } else {
                self.undeclared_from(begin)
            };
        }
        let last = if limit <= 1 || last != -1 {
            argc.checked_add_signed(last)
        } else {
            Some(begin + (argc.saturating_sub(begin) / limit).saturating_sub(step))
        };
        let Some(last) = last else { return Some(Vec::new()) };
        self.undeclared_at((begin..=last).step_by(step).take_while(|&at| at < argc))
    }

    /// What stands at a position; `None`: nothing, at no call.
    fn at(&self, position: usize) -> Option<Argument<'a>> {
        self.fixed.get(position).copied().or(self.tail)
    }

    fn undeclared_at(&self, positions: impl Iterator<Item = usize>) -> Option<Vec<Argument<'a>>> {
        let mut found = Vec::new();
        for argument in positions.filter_map(|at| self.at(at)) {
            match argument {
                Argument::Key => {}
                Argument::Literal(_) | Argument::Made(_) => found.push(argument),
                Argument::Unknown => return None,
            }
        }
        Some(found)
    }

    fn undeclared_from(&self, from: usize) -> Option<Vec<Argument<'a>>> {
        self.undeclared_at(from..from.max(self.fixed.len()) + 1)
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
                    Argument::Key | Argument::Made(_) | Argument::Unknown => return Search::Unknown,
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
    fn every_position_that_may_be_a_key_has_to_be_known() {
        for (text, group, undeclared) in [
            ("get K", range(1, 0, 1), Some("")),
            ("get x", range(1, 0, 1), Some("x")),
            ("get", range(1, 0, 1), Some("")),
            ("get K*", range(1, 0, 1), Some("")),
            ("get ?*", range(1, 0, 1), None),
            ("zadd K ?*", range(1, 0, 1), Some("")),
            ("rename K x", range(1, 1, 1), Some("x")),
            ("del K K", range(1, -1, 1), Some("")),
            ("del K x", range(1, -1, 1), Some("x")),
            ("del K K*", range(1, -1, 1), Some("")),
            ("del K ?*", range(1, -1, 1), None),
            ("mset K x K ?", range(1, -1, 2), Some("")),
            ("mset K x ? ?", range(1, -1, 2), None),
            ("mset K x ?*", range(1, -1, 2), None),
            ("blpop K 0", range(1, -2, 1), Some("")),
            ("blpop K ? 0", range(1, -2, 1), None),
            ("blpop K ?*", range(1, -2, 1), None),
            ("blpop K K*", range(1, -2, 1), Some("")),
            ("zunion 2 K K weights 1 2", COUNTED, Some("")),
            ("zunion 2 K x", COUNTED, Some("x")),
            ("zunion 3 K K ?*", COUNTED, None),
            ("zunion 2 K K ?*", COUNTED, Some("")),
            ("zunion 9 K K", COUNTED, Some("")),
            ("zunion ? K K", COUNTED, Some("")),
            ("zunion ? K K*", COUNTED, Some("")),
            ("zunion ? K withscores", COUNTED, Some("withscores")),
            ("zunion -1 K x", COUNTED, Some("x")),
            ("zunion ?*", COUNTED, None),
            ("xread count 2 streams K ?", STREAMS, Some("")),
            ("xread STREAMS K K ? ?", STREAMS, Some("")),
            ("xread streams K x ? ?", STREAMS, Some("x")),
            ("xread count ? streams K ?", STREAMS, None),
            ("xread ?*", STREAMS, None),
            ("xread streams K ?*", STREAMS, None),
            ("xread count 2", STREAMS, Some("")),
            ("sort K store K", STORE, Some("")),
            ("sort K store x", STORE, Some("x")),
            ("sort K limit 0 1", STORE, None),
            ("sort K ? x", STORE, None),
            ("sort", STORE, Some("")),
        ] {
            let found = arguments(text).undeclared(group).map(|found| {
                let words = found.iter().map(|argument| match argument {
                    Argument::Literal(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                });
                words.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found.as_deref(), undeclared, "{text}");
        }
    }
}
