//! What every row of the command table has: a description, and flags that do not contradict each other.

use shardis_core::command::docs::Docs;
use shardis_core::command::keys::key_flag;
use shardis_core::command::syntax;
use shardis_core::command::table::{Command, Merge, Run, Scope, acl, flag};
use shardis_core::session::FAMILIES;

/// The groups that redis-cli's help knows.
const GROUPS: [&str; 16] = [
    "generic",
    "string",
    "list",
    "set",
    "sorted-set",
    "hash",
    "pubsub",
    "transactions",
    "connection",
    "server",
    "scripting",
    "hyperloglog",
    "cluster",
    "geo",
    "stream",
    "bitmap",
];

/// What is wrong with a row, in words.
fn faults(row: &Command) -> Vec<&'static str> {
    let docs = &row.docs;
    let writes = row.has(flag::WRITE);
    let is_container = matches!(row.run, Run::Container);
    let takes_arguments = row.arity != 1 && !is_container && row.subcommands.is_empty();
    let checks = [
        (
            docs.summary.len() < 10 || docs.summary.ends_with('.'),
            "the summary is one sentence without a full stop",
        ),
        (docs.summary.starts_with(char::is_lowercase), "the summary begins with a capital letter"),
        (!is_version(docs.since), "`since` is a version of Redis"),
        (!GROUPS.contains(&docs.group), "the group is one that redis-cli knows"),
        (docs.complexity.is_empty() && !is_container, "the complexity is known"),
        (syntax::parse(docs.arguments).is_err(), "the arguments can be parsed"),
        (takes_arguments && docs.arguments.is_empty() && row.arity > 2, "the arguments are described"),
        (writes && row.has(flag::READONLY), "a command writes or it does not"),
        (row.has(flag::DENYOOM) && !writes && row.keys.is_empty(), "who may need memory writes"),
        (
            has_keys(row) && !writes && !row.has(flag::READONLY | flag::MAY_REPLICATE) && touches_values(row),
            "a command over keys reads or writes",
        ),
        (has_keys(row) && matches!(row.scope, Scope::Session), "a session command has no keys"),
        (matches!(row.merge, Merge::Gather) && row.keys.is_empty(), "who gathers by key has keys"),
        (
            row.name.chars().any(|c| c.is_uppercase() || c.is_whitespace()),
            "the name is one word in lower case",
        ),
        (row.arity == 0, "a command has its name as an argument, at least"),
        (
            row.has(flag::ADMIN) && row.categories & acl::FAST != 0,
            "categories that follow from flags are not named",
        ),
    ];
    checks.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, what)| what).collect()
}

fn has_keys(row: &Command) -> bool {
    row.keys.iter().any(|spec| spec.flags & key_flag::NOT_KEY == 0)
}

fn touches_values(row: &Command) -> bool {
    row.subcommands.is_empty() && !matches!(row.scope, Scope::Watch)
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

#[test]
fn every_row_is_described() {
    let mut found = Vec::new();
    let mut count = 0;
    for row in FAMILIES.iter().flat_map(|family| family.iter()).filter(|row| !row.is_absent) {
        for row in std::iter::once(row).chain(row.subcommands) {
            count += 1;
            found.extend(faults(row).into_iter().map(|what| format!("{}: {what}", row.name)));
        }
    }
    assert!(count > 100, "the table has more rows than {count}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_row_without_words_is_found() {
    fn nothing(_: &mut shardis_core::command::Ctx<'_>) -> shardis_core::command::CommandResult {
        Ok(())
    }
    let bare = Command::keys("Bare", 2, nothing).flags(flag::WRITE | flag::READONLY);
    let wordy = Command::keys("wordy", 2, nothing).docs(Docs::new("nowhere", "later", "It does it all."));

    assert_eq!(faults(&bare).len(), 6, "{:?}", faults(&bare));
    assert_eq!(faults(&wordy).len(), 4, "{:?}", faults(&wordy));
}
