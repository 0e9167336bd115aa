//! The language of `commands.txt`, in which a line describes what calls of a command look like.
//!
//! ```text
//! [WEIGHT] WORD ITEM... [: HOW...]
//!
//! SET 0 'k'      a literal: what has no lower-case letter in front, or is quoted
//! k score        an argument made by the generator of that name (`values.rs`)
//! script         a script and its keys and arguments; `parameters`: those of a function; `library`: a library's source
//!                (`scripts.rs`); `sha`, `knownscript`, `payload`: what is known of some of them
//! (A b | C)      one of them
//! [A b | C]      one of them, or nothing
//! {A | B c}      up to three of them in any order, perhaps one of them twice
//! ITEM...        the item once to four times
//! HOW            how replies are compared (`compare.rs`); `alone`: neither in an EXEC nor in a pipeline; `fixed`: its
//!                arguments are never disturbed; `waits`: it goes over a connection of its own, which may be blocked;
//!                `errno`: what clears Redis' error number goes before it; `other`: it goes over the second client;
//!                `listens`: over one of those that listen to channels (`listen.rs`)
//! ```
//!
//! A line `family NAME KEY... [: apart]` begins a family and names the keys that its commands mostly use; only these, and
//! nobody else uses them, if it keeps apart. Then no argument of its commands is disturbed.

use std::collections::BTreeMap;

use super::compare::How;
use super::random::Random;
use super::scripts::{self, Inner};
use super::values::{self, Generator};
use crate::{Result, Trouble};

#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub keys: Vec<Vec<u8>>,
    /// Its keys are only its own commands', which have no others.
    pub keeps_apart: bool,
    pub patterns: Vec<Pattern>,
}

impl Family {
    /// Its commands run scripts, which call commands of the others.
    pub fn has_programs(&self) -> bool {
        matches!(self.name.as_str(), "scripts" | "functions")
    }
}

/// One line: what calls of a command look like.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub weight: u32,
    /// In lower case; with subcommand, as COMMAND INFO names it, in `words`.
    pub name: String,
    items: Vec<Item>,
    pub how: How,
    pub alone: bool,
    pub fixed: bool,
    pub waits: bool,
    pub is_others: bool,
    pub listens: bool,
    pub clears_errno: bool,
}

#[derive(Debug, Clone)]
enum Item {
    Word(Vec<u8>),
    Key,
    Value(Generator),
    Script,
    Parameters,
    Library,
    OneOf(Vec<Vec<Item>>),
    Perhaps(Vec<Vec<Item>>),
    Any(Vec<Vec<Item>>),
    Repeated(Box<Item>),
}

/// Repetitions of `ITEM...`.
const REPEATS_MAX: usize = 4;
/// Picks of `{A|B}`.
const PICKS_MAX: usize = 3;

/// The families of `commands.txt` by name, in order.
pub fn families(text: &str) -> Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    let mut numbers = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| Trouble::new(format!("commands.txt:{}: {what}: {line}", at + 1));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("family ") {
            let mut words = rest.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let keeps_apart = rest.ends_with(" : apart");
            if numbers.insert(name.clone(), families.len()).is_some() {
                return Err(wrong("that family exists".to_owned()));
            }
            let keys = words.take_while(|word| *word != ":").map(|word| word.as_bytes().to_vec()).collect();
            families.push(Family { name, keys, keeps_apart, patterns: Vec::new() });
        } else {
            let family = families.last_mut().ok_or_else(|| wrong("no family yet".to_owned()))?;
            family.patterns.push(pattern(line).map_err(wrong)?);
        }
    }
    Ok(families)
}

fn pattern(line: &str) -> std::result::Result<Pattern, String> {
    let (text, hows) = line.split_once(" : ").unwrap_or((line, ""));
    let mut tokens = tokens(text);
    tokens.reverse();
    let weight = match tokens.last().and_then(|token| token.parse().ok()) {
        Some(weight) => {
            tokens.pop();
            weight
        }
        None => 1,
    };
    let name = tokens.last().ok_or("no command")?.to_ascii_lowercase();
    let items = sequence(&mut tokens, &[])?;
    let mut pattern = Pattern {
        weight,
        name,
        items,
        how: How::Exact,
        alone: false,
        fixed: false,
        waits: false,
        is_others: false,
        listens: false,
        clears_errno: false,
    };
    for word in hows.split_whitespace() {
        match word {
            "alone" => pattern.alone = true,
            "fixed" => pattern.fixed = true,
            "waits" => pattern.waits = true,
            "other" => pattern.is_others = true,
            "listens" => pattern.listens = true,
            "errno" => pattern.clears_errno = true,
            _ => pattern.how = How::named(word).ok_or_else(|| format!("unknown way of comparing {word}"))?,
        }
    }
    Ok(pattern)
}

/// Words, and each bracket, bar and ellipsis by itself.
fn tokens(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for part in text.split_inclusive(['[', ']', '(', ')', '{', '}', '|']) {
        match part.char_indices().last() {
            Some((at, last)) if "[](){}|".contains(last) => {
                spaced.push_str(&part[..at]);
                spaced.extend([' ', last, ' ']);
            }
            _ => spaced.push_str(part),
        }
    }
    spaced.replace("...", " ... ").split_whitespace().map(str::to_owned).collect()
}

/// Items up to one of the tokens of `ends`, which stays. `tokens` has the next one last.
fn sequence(tokens: &mut Vec<String>, ends: &[&str]) -> std::result::Result<Vec<Item>, String> {
    let mut items = Vec::new();
    while let Some(token) = tokens.last() {
        if ends.contains(&token.as_str()) {
            break;
        }
        let token = tokens.pop().unwrap_or_default();
        let item = match token.as_str() {
            "(" => Item::OneOf(alternatives(tokens, ")")?),
            "[" => Item::Perhaps(alternatives(tokens, "]")?),
            "{" => Item::Any(alternatives(tokens, "}")?),
            "..." => Item::Repeated(Box::new(items.pop().ok_or("nothing to repeat")?)),
            "k" => Item::Key,
            "script" => Item::Script,
            "parameters" => Item::Parameters,
            "library" => Item::Library,
            ")" | "]" | "}" | "|" => return Err(format!("unexpected {token}")),
            word => match word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
                Some(literal) => Item::Word(literal.as_bytes().to_vec()),
                None if word.starts_with(|first: char| first.is_ascii_lowercase()) => {
                    Item::Value(values::named(word).ok_or_else(|| format!("unknown generator {word}"))?)
                }
                None => Item::Word(word.as_bytes().to_vec()),
            },
        };
        items.push(item);
    }
    Ok(items)
}

fn alternatives(tokens: &mut Vec<String>, end: &str) -> std::result::Result<Vec<Vec<Item>>, String> {
    let mut all = Vec::new();
    loop {
        all.push(sequence(tokens, &["|", end])?);
        match tokens.pop() {
            Some(token) if token == end => return Ok(all),
            Some(_) => {}
            None => return Err(format!("no {end}")),
        }
    }
}

/// What calls are made of.
pub trait World {
    fn key(&self, random: &mut Random) -> Vec<u8>;

    /// A call that a script can make; `None`: the chosen one is none.
    fn inner(&self, random: &mut Random) -> Option<Inner>;
}

impl Pattern {
    pub fn call(&self, random: &mut Random, world: &dyn World) -> Vec<Vec<u8>> {
        let mut args = Vec::new();
        expand(&self.items, random, world, &mut args);
        args
    }
}

fn expand(items: &[Item], random: &mut Random, world: &dyn World, args: &mut Vec<Vec<u8>>) {
    let mut calls = |random: &mut Random| world.inner(random);
    for item in items {
        match item {
            Item::Word(word) => args.push(random_case(word, random)),
            Item::Key => args.push(world.key(random)),
            Item::Value(generator) => args.push(generator(random)),
            Item::Script => args.extend(scripts::script(random, &mut calls)),
            Item::Parameters => args.extend(scripts::parameters(random, &mut calls)),
            Item::Library => args.push(scripts::library(random, &mut calls)),
            Item::OneOf(all) => expand(&all[random.below(all.len())], random, world, args),
            Item::Perhaps(all) => {
                if random.chance(50) {
                    expand(&all[random.below(all.len())], random, world, args);
                }
            }
            Item::Any(all) => {
                for _ in 0..random.below(PICKS_MAX + 1) {
                    expand(&all[random.below(all.len())], random, world, args);
                }
            }
            Item::Repeated(item) => {
                for _ in 0..1 + random.below(REPEATS_MAX) {
                    expand(std::slice::from_ref(item), random, world, args);
                }
            }
        }
    }
}

fn random_case(word: &[u8], random: &mut Random) -> Vec<u8> {
    if random.chance(90) { word.to_vec() } else { word.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneKey;

    impl World for OneKey {
        fn key(&self, _random: &mut Random) -> Vec<u8> {
            b"key".to_vec()
        }

        fn inner(&self, _random: &mut Random) -> Option<Inner> {
            None
        }
    }

    fn calls(line: &str) -> Vec<String> {
        let pattern = pattern(line).expect("a pattern");
        let mut random = Random::new(1);
        let mut all: Vec<String> = (0..200)
            .map(|_| {
                let args = pattern.call(&mut random, &OneKey);
                String::from_utf8(args.join(&b' ')).expect("ASCII").to_ascii_uppercase()
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn groups_give_what_they_say() {
        assert_eq!(calls("A k"), ["A KEY"]);
        assert_eq!(calls("3 A (B | C 'd')"), ["A B", "A C D"]);
        assert_eq!(calls("A [B|C]"), ["A", "A B", "A C"]);
        assert_eq!(calls("A B..."), ["A B", "A B B", "A B B B", "A B B B B"]);
        assert_eq!(calls("A {B|C}").len(), 1 + 2 + 4 + 8);
        assert_eq!(calls("A (B 'c')..."), ["A B C", "A B C B C", "A B C B C B C", "A B C B C B C B C"]);
    }

    #[test]
    fn ways_of_comparing_stand_behind_a_colon() {
        let keys = pattern("5 KEYS '*' : unordered alone").expect("a pattern");

        assert_eq!(
            (keys.weight, keys.name.as_str(), keys.how, keys.alone),
            (5, "keys", How::Unordered, true)
        );
        assert!(pattern("KEYS : nosuch").is_err());
        assert!(pattern("KEYS nosuch").is_err());
        assert!(pattern("KEYS (A").is_err());
        assert!(pattern("KEYS A)").is_err());
    }
}
