//! The style of the sources, as far as a program can see it: which room may know what, where `unsafe` stands and why,
//! how long a file gets, that nothing is unfinished, and that every command is described.
//!
//! A check is a function over one [`Source`]. Beside each stands a sample that it must object to.

mod dead;
mod rows;
mod source;

use source::Source;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that grows past this is split by verb.
const FILE_LINES_MAX: usize = 1000;

/// The longest function there is. It goes down, never up.
const FUNCTION_LINES_MAX: usize = 104;

/// How far the innermost line of a function may be indented within it, in steps.
const NESTING_MAX: usize = 7;

/// Where `unsafe` may stand: pure structures, the machine's interface, the stacks of programs, what calls Lua, the ABI of
/// modules, vector instructions that a processor may lack, what the tests and benches need of libc, and where the
/// simulator frees what a process keeps for ever, and has a module.
const UNSAFE_ROOMS: [&str; 16] = [
    "core/src/types/",
    "core/src/modules/",
    "core/src/runtime/",
    "core/src/worker/program/stack.rs",
    "core/tests/server/harness.rs",
    "core/tests/server/modules/notes/",
    "core/tests/sim/cluster.rs",
    "core/tests/sim/module.rs",
    "benches/src/sys.rs",
    "examples-modules/bitmap/src/bits.rs",
    "examples-modules/hyperloglog/src/registers.rs",
    "modules-api/",
    "scripting/src/",
    "scripting/examples/run_cost.rs",
    "scripting/tests/hostile.rs",
    "scripting/tests/libs/vm.rs",
];

/// Each room of the server, and which others it may name. What is not listed sees all: the composition (server, main),
/// and who reports on all rooms (metrics).
const ROOMS: [(&str, &[&str]); 15] = [
    ("types", &[]),
    ("protocol", &["types"]),
    ("config", &["protocol", "types"]),
    ("call", &["protocol", "types"]),
    ("runtime", &["config"]),
    ("persist", &["protocol", "types"]),
    ("pubsub", &["call", "protocol", "types"]),
    ("shard", &["call", "config", "persist", "protocol", "pubsub", "types"]),
    ("command", &["call", "config", "persist", "protocol", "pubsub", "shard", "types"]),
    ("acl", &["call", "command", "protocol", "types"]),
    ("client", &["acl", "call", "command", "protocol", "pubsub"]),
    ("script", &["command", "config", "persist", "protocol", "types"]),
    (
        "worker",
        &[
            "acl", "call", "client", "command", "config", "persist", "protocol", "pubsub", "runtime",
            "script", "shard", "types",
        ],
    ),
    (
        "modules",
        &[
            "acl", "call", "client", "command", "config", "persist", "protocol", "pubsub", "runtime",
            "shard", "types", "worker",
        ],
    ),
    (
        "session",
        &[
            "acl", "call", "client", "command", "config", "modules", "persist", "protocol", "pubsub",
            "runtime", "script", "shard", "types", "worker",
        ],
    ),
];

/// What only some files may name: (name, where it may stand, below the workspace's root).
const CONFINED: [(&str, &[&str]); 14] = [
    ("glommio::", &["core/src/runtime/"]),
    ("io_uring::", &["core/src/runtime/"]),
    ("libloading::", &["core/src/modules/"]),
    ("corosensei::", &["core/src/worker/program/stack.rs"]),
    // The slab asks the kernel for huge pages, and nothing else.
    ("libc::", &["core/src/runtime/", "core/src/types/slab.rs"]),
    ("Instant::now", &["core/src/runtime/", "core/src/metrics.rs"]),
    ("SystemTime", &["core/src/runtime/"]),
    ("thread::sleep", &["core/src/runtime/", "core/src/metrics.rs"]),
    ("std::net::", &["core/src/runtime/", "core/src/metrics.rs"]),
    ("dyn Error", &[]),
    // Whether a command may run is decided in admission. Besides it there are only those who set what it goes by, and show it.
    (
        ".authenticated",
        &[ADMISSION, "core/src/client.rs", "core/src/session/connection.rs", "core/src/protocol/"],
    ),
    (
        "requirepass",
        &[
            ADMISSION,
            "core/src/config/",
            // It is the default user's password.
            "core/src/session/acl.rs",
            "core/src/session/config/",
            "core/src/metrics.rs",
        ],
    ),
    (
        "maxmemory_bytes",
        &[ADMISSION, "core/src/config/", "core/src/session/info/", "core/src/command/handlers/object.rs"],
    ),
    ("globals.pause(", &["core/src/worker/mod.rs", "core/src/worker/cron.rs"]),
];

const ADMISSION: &str = "core/src/command/admission.rs";

/// What an unfinished or silenced thing is called.
const UNFINISHED_WORDS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
const UNFINISHED_CODE: [&str; 4] = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];

type Check = fn(&Source) -> Vec<String>;

/// Every check of sources, and a sample it must object to: a path and a text.
const CHECKS: [(Check, &str, &str); 11] = [
    (opens_with_its_idea, "core/src/shard/x.rs", "use a::B;\n"),
    (unsafe_stands_in_its_rooms, "core/src/shard/x.rs", "// SAFETY: none.\nunsafe { a() };\n"),
    (unsafe_has_a_reason, "core/src/types/x.rs", "// Fast.\nunsafe { a() };\n"),
    (nothing_is_unfinished, "core/src/x.rs", "// TODO: the rest.\n"),
    (silence_has_a_reason, "core/src/x.rs", "#[allow(dead_code)]\nfn f() {}\n"),
    (rooms_descend, "core/src/shard/x.rs", "use crate::worker::Worker;\n"),
    (names_stay_where_they_belong, "core/src/worker/x.rs", "let now = Instant::now();\n"),
    (a_failure_says_what_failed, "core/src/worker/x.rs", "let one = list.first().unwrap();\n"),
    (
        handlers_have_a_contract,
        "core/src/command/handlers/x.rs",
        "fn get(ctx: &mut Ctx<'_>) -> CommandResult {\n",
    ),
    (functions_are_short, "core/src/x.rs", "fn f() {\n                                1;\n}\n"),
    (tests_assert, "core/tests/x.rs", "#[test]\nfn f() {\n    g();\n}\n"),
];

fn opens_with_its_idea(source: &Source) -> Vec<String> {
    let opens = source.lines.first().is_some_and(|line| line.comment.starts_with("//! "));
    if opens { Vec::new() } else { vec![format!("{}: begins without `//!`: what is its idea?", source.path)] }
}

fn unsafe_stands_in_its_rooms(source: &Source) -> Vec<String> {
    if UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    lines_where(source, &source.lines, |code| has_word(code, "unsafe"), "unsafe outside of its rooms")
}

/// Clippy asks for a comment before a block or an `impl`; this also asks that it stands right before the statement.
fn unsafe_has_a_reason(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let code = line.code.as_str();
        if !(code.contains("unsafe {") || code.contains("unsafe impl")) {
            continue;
        }
        let is_before = |code: &str| code.ends_with([';', '}']) || code.ends_with("=> {");
        let reasoned = source.lines[..=at]
            .iter()
            .rev()
            .enumerate()
            .take_while(|(n, line)| *n == 0 || !is_before(line.code.trim_end()))
            .any(|(_, line)| line.comment.contains("SAFETY:"));
        if !reasoned {
            found.push(format!("{}:{}: unsafe without `// SAFETY:`", source.path, at + 1));
        }
    }
    found
}

fn nothing_is_unfinished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let word = UNFINISHED_WORDS.iter().find(|word| has_word(&line.comment, word));
        let code = UNFINISHED_CODE.iter().find(|text| line.code.contains(*text));
        if let Some(what) = word.or(code) {
            found.push(format!("{}:{}: {what}", source.path, at + 1));
        }
    }
    found
}

/// A lint is silenced for a reason, and the reason stands there.
fn silence_has_a_reason(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let opens = line.code.contains("#[allow(") || line.code.contains("#![allow(");
        let mut attribute = source.lines[at..].iter().take(4);
        if opens && !attribute.any(|line| line.code.contains("reason = ")) {
            found.push(format!("{}:{}: allow without `reason`", source.path, at + 1));
        }
    }
    found
}

/// A room names the rooms below it, and no others; its unit tests may.
fn rooms_descend(source: &Source) -> Vec<String> {
    let Some(rest) = source.path.strip_prefix("core/src/") else { return Vec::new() };
    let room = rest.split(['/', '.']).next().unwrap_or_default();
    let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == room) else { return Vec::new() };
    let mut found = Vec::new();
    let code = source.product().iter().map(|line| line.code.as_str()).collect::<Vec<_>>().join("\n");
    for (at, named) in rooms_named(&code) {
        if named != room && !below.contains(&named) {
            let line = code[..at].matches('\n').count() + 1;
            found.push(format!("{}:{line}: {room}/ must not know {named}/", source.path));
        }
    }
    found
}

/// What stands behind `crate::`, but for the crate's own constants and types, and where it stands.
fn rooms_named(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let first = at + path.len();
        if code[first..].starts_with('{') {
            found.extend(members(code, first + 1));
        } else {
            found.push((first, first_word(&code[first..])));
        }
    }
    found.retain(|(_, name)| name.starts_with(char::is_lowercase));
    found
}

/// The first word of each member of a group whose brace opens before `start`; groups within it are left out.
fn members(code: &str, start: usize) -> Vec<(usize, &str)> {
    let (mut depth, mut begins) = (0, true);
    let mut found = Vec::new();
    for (n, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !c.is_whitespace() => {
                found.push((start + n, first_word(&code[start + n..])));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())]
}

fn names_stay_where_they_belong(source: &Source) -> Vec<String> {
    if !source.path.starts_with("core/src/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, places) in CONFINED {
        if !places.iter().any(|place| source.path.starts_with(place)) {
            let what = format!("{name} outside of its place");
            found.extend(lines_where(source, source.product(), |code| code.contains(name), &what));
        }
    }
    found
}

/// Outside of tests, a bug's assertion has a sentence, and a failure that is no bug has a type.
fn a_failure_says_what_failed(source: &Source) -> Vec<String> {
    let is_mute = |code: &str| code.contains(".unwrap()") || code.contains("panic!()");
    lines_where(source, source.product(), is_mute, "fails without a word")
}

/// The docstring of a handler: its command, the reply, the errors, the cost.
fn handlers_have_a_contract(source: &Source) -> Vec<String> {
    if !["core/src/command/handlers/", "core/src/session/"].iter().any(|room| source.path.starts_with(room)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let lines = source.product();
    for (at, line) in lines.iter().enumerate() {
        let is_handler = line.code.starts_with("fn ")
            && (line.code.contains("(ctx: &mut Ctx<'_>) -> CommandResult")
                || line.code.contains("(ctx: &mut SessionCtx<'_>) -> CommandResult"));
        let described = || {
            let before = lines[..at].iter().rev().find(|line| !line.code.starts_with("#["));
            before.is_some_and(|line| line.comment.starts_with("/// "))
        };
        if is_handler && !described() {
            found.push(format!("{}:{}: a handler without its contract", source.path, at + 1));
        }
    }
    found
}

fn functions_are_short(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if source.lines.len() > FILE_LINES_MAX {
        found.push(format!("{}: {} lines: split it by verb", source.path, source.lines.len()));
    }
    for function in source.functions() {
        let lines = &source.lines[function.lines.clone()];
        let indent = |code: &str| (code.len() - code.trim_start().len()) / 4;
        let depths = lines.iter().filter(|line| !line.code.trim().is_empty()).map(|line| indent(&line.code));
        let depth = depths.max().unwrap_or(0) - indent(&lines[0].code);
        if lines.len() > FUNCTION_LINES_MAX || depth > NESTING_MAX {
            let at = function.lines.start + 1;
            let (name, len) = (function.name, lines.len());
            found.push(format!("{}:{at}: {name} has {len} lines, {depth} deep", source.path));
        }
    }
    found
}

/// A test asserts, or calls a function of its file that does, or one whose name says that it does; `expect(&[..])` is a
/// dialog of requests and replies.
fn tests_assert(source: &Source) -> Vec<String> {
    let functions = source.functions();
    let asserts = |lines: &std::ops::Range<usize>| {
        let words = ["assert", "panic!", "check", "expect(&[", "expect_err", "unwrap_err", "unreachable!"];
        source.lines[lines.clone()].iter().any(|line| words.iter().any(|word| line.code.contains(word)))
    };
    let helpers: BTreeSet<&str> =
        functions.iter().filter(|function| asserts(&function.lines)).map(|function| function.name).collect();
    let mut found = Vec::new();
    for function in &functions {
        let attributes = source.lines[..function.lines.start].iter().rev();
        let is_test = attributes
            .take_while(|line| line.code.trim_start().starts_with("#["))
            .any(|line| line.code.trim() == "#[test]");
        let calls_helper = || {
            source.lines[function.lines.clone()]
                .iter()
                .any(|line| helpers.iter().any(|helper| has_word(&line.code, helper)))
        };
        if is_test && !asserts(&function.lines) && !calls_helper() {
            let at = function.lines.start + 1;
            found.push(format!("{}:{at}: {} asserts nothing", source.path, function.name));
        }
    }
    found
}

fn lines_where(
    source: &Source,
    lines: &[source::Line],
    is_bad: impl Fn(&str) -> bool,
    what: &str,
) -> Vec<String> {
    let bad = lines.iter().enumerate().filter(|(_, line)| is_bad(&line.code));
    bad.map(|(at, _)| format!("{}:{}: {what}", source.path, at + 1)).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c == '_' || c.is_alphanumeric();
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a member of the workspace")
}

/// The files of the workspace with one of these endings, as paths from its root.
fn files(endings: &[&str]) -> Vec<String> {
    const NOT_OURS: [&str; 6] = ["target", ".git", "results", "corpus", "artifacts", "coverage"];
    fn walk(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in
            fs::read_dir(dir).expect("the sources are readable").map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                walk(&path, endings, found);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), endings, &mut found);
    let from_root =
        |path: PathBuf| path.strip_prefix(root()).expect("it is below").to_string_lossy().into_owned();
    let mut found: Vec<String> = found.into_iter().map(from_root).collect();
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_sources_keep_to_the_style() {
    let paths = files(&[".rs"]);
    assert!(paths.len() > 150, "the workspace has more sources than {}", paths.len());
    let sources: Vec<Source> = paths.iter().map(|path| Source::new(path, &read(path))).collect();

    let found: Vec<String> = CHECKS.iter().flat_map(|(check, ..)| sources.iter().flat_map(check)).collect();

    assert!(found.is_empty(), "{} offences against the style:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_check_objects_to_its_sample() {
    for (at, (check, path, text)) in CHECKS.iter().enumerate() {
        assert_eq!(check(&Source::new(path, text)).len(), 1, "check {at} on {text:?}");
    }
}

#[test]
fn a_group_of_rooms_may_stand_on_several_lines() {
    let text = "use crate::{\n    Shard,\n    client::{Client, line},\n    types,\n    worker::Worker,\n};\n";
    assert_eq!(
        rooms_named(text).iter().map(|(_, name)| *name).collect::<Vec<_>>(),
        ["client", "types", "worker"]
    );
    assert_eq!(
        rooms_descend(&Source::new("core/src/shard/x.rs", text)),
        [
            "core/src/shard/x.rs:3: shard/ must not know client/",
            "core/src/shard/x.rs:5: shard/ must not know worker/"
        ]
    );
}

/// Hosts from which packages and toolchains are fetched: where a machine fetches from is its own affair.
const REGISTRIES: [&str; 10] = [
    "deb.debian.org",
    "archive.ubuntu.com",
    "crates.io",
    "static.rust-lang.org",
    "sh.rustup.rs",
    "pypi.org",
    "registry.npmjs.org",
    "proxy.golang.org",
    "docker.io",
    "ghcr.io",
];

fn registries_named(path: &str, text: &str) -> Vec<String> {
    let names = |line: &str| REGISTRIES.iter().any(|host| line.contains(host));
    let lines = text.lines().enumerate().filter(|(_, line)| names(line));
    lines.map(|(at, line)| format!("{path}:{}: {line}", at + 1)).collect()
}

#[test]
fn no_registry_stands_anywhere() {
    assert_eq!(registries_named("x.sh", "curl https://deb.debian.org/debian\n").len(), 1);
    let paths = files(&[".rs", ".md", ".toml", ".sh", ".tsv", ".yml", ".yaml", ".py", "Dockerfile", "run"]);
    // Only these tests name them. Cargo.lock names the index of each crate, whatever it is replaced by.
    let ours = paths.iter().filter(|path| !path.starts_with("core/tests/tidy/"));
    let found: Vec<String> = ours.flat_map(|path| registries_named(path, &read(path))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_other_files_hold_nothing_unfinished_either() {
    let mut found = Vec::new();
    for path in files(&[".md", ".toml", ".sh", ".tsv", "run"]) {
        for (at, line) in read(&path).lines().enumerate() {
            // The names of official tests are Redis'.
            let is_ours = !path.ends_with(".tsv");
            if is_ours && UNFINISHED_WORDS.iter().any(|word| has_word(line, word)) {
                found.push(format!("{path}:{}: {line}", at + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_member_of_the_workspace_takes_its_lints() {
    let files = files(&["Cargo.toml"]);
    for path in files.iter().filter(|path| !read(path).contains("\n[workspace]\n") && *path != "Cargo.toml") {
        assert!(
            read(path).contains("\n[lints]\nworkspace = true\n"),
            "{path} does not take the workspace's lints"
        );
    }
}

#[test]
fn the_code_map_of_the_readme_names_what_there_is() {
    let readme = read("README.md");
    let (_, map) = readme.split_once("\n## The code\n").expect("README has a code map");
    let mut top = String::new();
    let mut named = BTreeSet::new();
    for line in map.lines().filter(|line| line.starts_with("    ")) {
        let entry = line.split_whitespace().next().expect("a line that is not empty");
        if line.starts_with("      ") {
            named.insert(format!("{top}{entry}"));
        } else {
            top = entry.to_string();
            named.insert(top.clone());
        }
    }

    for path in &named {
        assert!(root().join(path).exists(), "README names {path}, which is not there");
    }
    for dir in ["core/src", "core/tests"] {
        for entry in
            fs::read_dir(root().join(dir)).expect("a directory").map(|entry| entry.expect("an entry"))
        {
            let path = format!("{dir}/{}/", entry.file_name().to_string_lossy());
            let is_module_dir = entry.path().with_extension("rs").exists();
            assert!(
                !entry.path().is_dir() || is_module_dir || named.contains(&path),
                "README's code map does not name {path}"
            );
        }
    }
}

/// Lines of code without those that are blank or documentation.
fn code_lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("///")).collect()
}

#[test]
fn the_handlers_that_the_documentation_shows_are_those_that_run() {
    let docs = read("core/src/shard/txn.rs");
    let docs: Vec<&str> = docs.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let docs = docs.join("\n");
    let shown: Vec<&str> = docs.split("```").skip(1).step_by(2).collect();
    assert!(shown.len() >= 2, "a handler over several keys, and one that waits");

    let rows = read("core/tests/sim/rows.rs");
    let rows = code_lines(&rows);
    for example in shown {
        let example = code_lines(example.strip_prefix("text").expect("it is code, and not a doctest"));
        let is_there = rows.windows(example.len()).any(|lines| lines == example);
        assert!(is_there, "core/tests/sim/rows.rs has no such lines:\n{}", example.join("\n"));
    }
}
