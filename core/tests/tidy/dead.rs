//! Public items that the product does not use. `pub` in a library hides them from the compiler: what a test or a bench
//! alone names is dead weight, unless it is there for them.

use super::source::{Line, Source};
use super::{files, has_word, read};
use std::collections::{HashMap, HashSet};

/// What the product itself does not name, and why it is there: (file, item, reason).
const KEPT: [(&str, &str, &str); 12] = [
    ("core/src/command/table.rs", "SENTINEL", NUMBERED_AS_IN_REDIS),
    ("core/src/command/table.rs", "ONLY_SENTINEL", NUMBERED_AS_IN_REDIS),
    ("core/src/command/table.rs", "BITMAP", NUMBERED_AS_IN_REDIS),
    ("core/src/command/table.rs", "GEO", NUMBERED_AS_IN_REDIS),
    ("core/src/command/table.rs", "HYPERLOGLOG", NUMBERED_AS_IN_REDIS),
    ("core/src/config/set.rs", "set_many", "CONFIG SET without a server, for the tests and the fuzz target"),
    ("core/src/runtime/log.rs", "set_role", "of replicas, which come with replication"),
    ("core/src/worker/transact/yielding.rs", "hold_for_program", HELD_IN_SIMULATOR),
    ("core/src/worker/transact/yielding.rs", "end_program_hold", HELD_IN_SIMULATOR),
    ("core/src/shard/blocking.rs", "waits_on", "the simulator watches who is served first"),
    ("core/src/shard/watch.rs", "client_count", "tests see that nothing is left"),
    ("core/src/types/hashing.rs", "fix_hash_seed", "the simulator repeats its runs"),
];

const HELD_IN_SIMULATOR: &str = "the simulator holds keys as suspended programs do";
const NUMBERED_AS_IN_REDIS: &str = "a flag or category of Redis, in its place among the others";

/// A public item: where its definition is, and how far it goes.
struct Item<'s> {
    name: &'s str,
    is_trait: bool,
    source: usize,
    lines: std::ops::Range<usize>,
}

/// The name that a line defines publicly, and whether it is a trait's.
fn defined(code: &str) -> Option<(&str, bool)> {
    const QUALIFIERS: [&str; 4] = ["const", "async", "unsafe", "extern"];
    const KINDS: [&str; 7] = ["fn", "struct", "enum", "static", "type", "trait", "union"];
    let mut words = code.trim_start().strip_prefix("pub ")?.split_whitespace().peekable();
    let mut kind = words.next()?;
    while QUALIFIERS.contains(&kind) && words.peek().is_some_and(|next| !next.contains(':')) {
        kind = words.next()?;
    }
    let name = if KINDS.contains(&kind) || kind == "const" { words.next()? } else { return None };
    let end = name.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(name.len());
    Some((&name[..end], kind == "trait")).filter(|(name, _)| !name.is_empty())
}

/// For each line, whether it is part of a `use` that gives nothing another name.
fn imports(lines: &[Line]) -> Vec<bool> {
    let mut is_open = false;
    let mut found = Vec::new();
    for line in lines {
        let code = line.code.trim();
        let begins = code.starts_with("use ") || code.starts_with("pub use ") || code.starts_with("pub(");
        let begins = begins && has_word(code, "use");
        found.push((is_open || begins) && !has_word(code, "as"));
        is_open = (is_open || begins) && !code.ends_with(';');
    }
    found
}

/// The public items of the sources, and of the `#[cfg(test)]` ones none.
fn items<'s>(sources: &'s [Source]) -> Vec<Item<'s>> {
    let mut items = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let bodies: HashMap<usize, usize> = source
            .functions()
            .into_iter()
            .map(|function| (function.lines.start, function.lines.end))
            .collect();
        let lines = source.product();
        for (n, line) in lines.iter().enumerate() {
            let Some((name, is_trait)) = defined(&line.code) else { continue };
            let attributes = lines[..n].iter().rev().take_while(|line| line.code.trim().starts_with("#["));
            let is_test = attributes.into_iter().any(|line| line.code.contains("cfg(test)"));
            if !is_test {
                let end = bodies.get(&n).copied().unwrap_or(n + 1);
                items.push(Item { name, is_trait, source: at, lines: n..end });
            }
        }
    }
    items
}

/// The public items that no line of the product names outside of their own definitions.
fn dead(sources: &[Source]) -> Vec<(String, String)> {
    let items = items(sources);
    let names: HashSet<&str> = items.iter().map(|item| item.name).collect();
    // The source, the line, and whether it begins an `impl`: that is no use of a type, but one of a trait.
    let mut places: HashMap<&str, Vec<(usize, usize, bool)>> = HashMap::new();
    for (at, source) in sources.iter().enumerate() {
        let imports = imports(source.product());
        for (n, line) in source.product().iter().enumerate() {
            if imports[n] {
                continue;
            }
            let is_impl = line.code.trim_start().starts_with("impl");
            for word in line.code.split(|c: char| c != '_' && !c.is_alphanumeric()) {
                if let Some(&name) = names.get(word) {
                    places.entry(name).or_default().push((at, n, is_impl));
                }
            }
        }
    }
    let is_dead = |item: &&Item| {
        let places = places.get(item.name).map(Vec::as_slice).unwrap_or_default();
        !places.iter().any(|(source, line, is_impl)| {
            (item.is_trait || !is_impl) && (*source != item.source || !item.lines.contains(line))
        })
    };
    items
        .iter()
        .filter(is_dead)
        .map(|item| (sources[item.source].path.clone(), item.name.to_string()))
        .collect()
}

#[test]
fn nothing_public_is_dead() {
    let sources: Vec<Source> = files(&[".rs"])
        .iter()
        .filter(|path| path.starts_with("core/src/"))
        .map(|path| Source::new(path, &read(path)))
        .collect();
    let dead = dead(&sources);
    let listed = || KEPT.iter().map(|&(path, name, _)| (path, name));
    let is_kept = |(path, name): &&(String, String)| listed().any(|kept| kept == (path, name));

    let found: Vec<String> =
        dead.iter().filter(|item| !is_kept(item)).map(|(path, name)| format!("{path}: {name}")).collect();
    assert!(found.is_empty(), "no product code names:\n{}", found.join("\n"));
    for (path, name) in listed() {
        let is_dead = dead.contains(&(path.to_string(), name.to_string()));
        assert!(is_dead, "{path}: {name} is gone, or used: it is to go from the list");
    }
}

#[test]
fn what_only_its_own_definition_imports_and_tests_name_is_dead() {
    let text = "pub fn used() {}\npub const fn alone() {\n    alone();\n}\npub struct Shown;\nimpl Shown {}\n\
                pub const LIMIT: u32 = 1;\npub(crate) fn inner() {}\n#[cfg(test)]\npub fn tested() {}\n\
                fn f() {\n    used();\n}\n#[cfg(test)]\nmod tests {\n    alone();\n}\n";
    let importing = "use crate::{\n    Shown,\n    x::LIMIT,\n};\npub use crate::alone;\n";
    let sources = [Source::new("core/src/x.rs", text), Source::new("core/src/y.rs", importing)];
    let names: Vec<String> = dead(&sources).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["alone", "Shown", "LIMIT"]);
}
