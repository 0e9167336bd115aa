//! The table against Redis 7.0.15's own, and what values may be.

mod load;
mod rewrite;
mod set;

use std::path::Path;

use super::*;
use crate::protocol::inline::quote;

/// `name<TAB>default` of every directive that CONFIG GET * lists on Redis 7.0.15, both names of those with two.
const REDIS_DIRECTIVES: &str = include_str!("tests/redis-7.0.15.tsv");

/// `name<TAB>value<TAB>OK, or why not<TAB>what CONFIG GET then shows`: CONFIG SET of a fresh Redis 7.0.15 with
/// enable-protected-configs, each at its default before.
const REDIS_CONFIG_SET: &str = include_str!("tests/config-set-7.0.15.tsv");

const OURS: &[&str] = &["shards", "io-backend", "metrics-port", "script-memory-limit", "builtin-modules"];

const MAY_ALL: Caller = Caller { may_set_protected: true, is_loading: false };

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("these tests use text")
}

fn show(config: &Config, name: &str) -> String {
    text(lookup(name.as_bytes()).unwrap_or_else(|| panic!("no {name}")).value(config))
}

#[test]
fn every_directive_of_redis_is_in_the_table_with_its_default() {
    let config = Config::default();
    for line in REDIS_DIRECTIVES.lines() {
        let (name, default) = line.split_once('\t').expect("name, tab, default");
        assert_eq!(show(&config, name), default, "default of {name}");
    }
}

#[test]
fn the_table_shows_nothing_that_redis_does_not_have_but_our_own() {
    let theirs: Vec<&str> = REDIS_DIRECTIVES.lines().map(|line| line.split('\t').next().unwrap()).collect();
    for row in DIRECTIVES.iter().filter(|row| !row.flags.contains(Flags::HIDDEN)) {
        for name in row.names() {
            assert!(theirs.contains(&name) || OURS.contains(&name), "{name}");
        }
    }
}

#[test]
fn no_two_rows_share_a_name() {
    let mut names: Vec<&str> = DIRECTIVES.iter().flat_map(Directive::names).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(names.iter().all(|name| *name == name.to_lowercase()));
}

#[test]
fn defaults_pass_their_own_rules_and_come_back_unchanged() {
    let mut config = Config::default();
    for row in DIRECTIVES.iter() {
        let value = row.value(&config);
        if row.name == "replicaof" {
            continue; // Redis too shows an empty text that it would not take.
        }
        config.assign(row, &[&value], Origin::Set).unwrap_or_else(|why| panic!("{}: {why}", row.name));
        assert_eq!(row.value(&config), value, "{}", row.name);
    }
    assert_eq!(config, Config::default());
}

#[test]
fn config_set_takes_and_refuses_what_redis_does_in_the_same_words() {
    for line in REDIS_CONFIG_SET.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, value, outcome, shown] = fields[..] else { panic!("four fields: {line}") };
        let mut outcome = outcome.to_owned();
        if name == "proto-max-bulk-len" {
            // The one bound that is not Redis': no request is longer than this.
            if value == i64::MAX.to_string() {
                outcome = "argument must be between 1048576 and 9223372036854775807 inclusive".to_owned();
            }
            outcome = outcome.replace("9223372036854775807", "4294967295");
        }
        let ours = Config::default().set_many(&[(name.as_bytes(), value.as_bytes())], MAY_ALL);
        match ours {
            Ok((config, _)) => {
                assert_eq!(outcome, "OK", "{name} {value:?}");
                assert_eq!(show(&config, name), shown, "{name} {value:?}");
            }
            Err(SetError::Failed { why, .. }) => assert_eq!(why, outcome, "{name} {value:?}"),
            Err(other) => panic!("{name} {value:?}: {other:?}"),
        }
    }
}

#[test]
fn sizes_are_read_in_every_unit() {
    let sizes = [
        ("0", 0),
        ("", 0),
        ("12", 12),
        ("12b", 12),
        ("1k", 1000),
        ("1KB", 1024),
        ("2m", 2_000_000),
        ("2Mb", 2 << 20),
        ("3g", 3_000_000_000),
        ("3GB", 3 << 30),
        ("18446744073709551615", u64::MAX),
        ("18446744073709551616", u64::MAX),
        ("17179869184gb", 0),
        ("99999999999999gb", 14_131_891_009_335_853_056),
        ("1\0kb", 1),
    ];
    for (text, bytes) in sizes {
        assert_eq!(parse_memory(text.as_bytes()), Some(bytes), "{text}");
    }
    for text in ["-1", "+1", "1 kb", "kbb", "1tb", "1.5gb", "1gb ", &"9".repeat(128)] {
        assert_eq!(parse_memory(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_quoted_value_is_read_back_byte_for_byte() {
    let every_byte: Vec<u8> = (1..=255).collect();
    for value in [&every_byte[..], b"", b"\\x41", b"a b\"c'd", "caf\u{e9}".as_bytes()] {
        let words = split_words(&quote(value)).expect("balanced");
        assert_eq!(words.as_argv().iter().collect::<Vec<_>>(), [value]);
    }
}

#[test]
fn what_would_promise_too_much_is_refused_and_its_default_is_not() {
    let refusals = [
        ("cluster-enabled", "yes", "no cluster mode"),
        #[cfg(not(feature = "tls"))]
        ("tls-port", "6380", "no TLS, because it was built without its feature `tls`"),
    ];
    for (name, value, absence) in refusals {
        let row = lookup(name.as_bytes()).unwrap();
        let why = Config::default().assign(row, &[value.as_bytes()], Origin::Load { first: true });
        assert_eq!(why, Err(format!("this version of Shardis has {absence}").into()), "{name}");
        if row.name != "replicaof" {
            let default = row.value(Config::defaults());
            assert_eq!(Config::default().assign(row, &[&default], Origin::Set), Ok(()), "{name}");
        }
    }
    let no_one = [&b"no"[..], b"one"];
    let replicaof = lookup(b"replicaof").unwrap();
    assert_eq!(Config::default().assign(replicaof, &no_one, Origin::Load { first: true }), Ok(()));
}

/// The sources that act on directives: everything but this room, the command line and tests; of this room what makes
/// the process' title.
fn sources_that_act() -> String {
    fn visit(dir: &Path, sources: &mut String) {
        for entry in std::fs::read_dir(dir).expect("the sources are there").map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if path.is_dir() {
                if !path.ends_with("src/config") && name != "tests" && name != "cli" {
                    visit(&path, sources);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "cli.rs" {
                sources.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut sources = include_str!("title.rs").to_owned();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    sources
}

#[test]
fn what_the_table_calls_live_is_read_by_somebody() {
    let sources = sources_that_act();
    let is_read = |field: &str| {
        sources.match_indices(&format!(".{field}")).any(|(at, found)| {
            let next = sources[at + found.len()..].chars().next();
            !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
        })
    };
    // Modules read directives by name.
    let is_read_by_a_module = |name: &str| name == "hll-sparse-max-bytes";
    let dead: Vec<&str> = DIRECTIVES
        .iter()
        .filter(|row| row.status == Status::Live && !is_read(row.field) && !is_read_by_a_module(row.name))
        .map(|row| row.name)
        .collect();
    assert_eq!(dead, Vec::<&str>::new(), "live by the table, but nothing reads them");
}

#[test]
fn warnings_name_what_has_no_effect_and_only_that() {
    let mut config = Config::default();
    let assign = |config: &mut Config, name: &str, value: &str| {
        config.assign(lookup(name.as_bytes()).unwrap(), &[value.as_bytes()], Origin::Set).unwrap();
    };
    assert_eq!(warnings(&config), Vec::<String>::new());

    assign(&mut config, "appendfsync", "always");
    assign(&mut config, "cluster-node-timeout", "1");
    assign(&mut config, "rdbcompression", "no");
    assign(&mut config, "io-threads", "4");
    assign(&mut config, "maxclients", "100");
    assert_eq!(
        warnings(&config),
        [
            "WARNING this version of Shardis has no use for some directives: set without effect: io-threads",
            "WARNING this version of Shardis has no cluster mode: set without effect: cluster-node-timeout",
        ]
    );
}

#[test]
fn a_title_is_filled_in() {
    let mut config = Config::default();
    let mut title = |template: &str, title: &str| {
        config.proc_title_template = Text::from(template);
        expand_proc_title(&config, title.as_bytes()).map(text)
    };
    assert_eq!(title("{title} {listen-addr} {server-mode}", "shardis"), Some("shardis *:6379".to_owned()));
    assert_eq!(
        title("{{x} {port}|{tls-port}|{unixsocket}|{config-file}", ""),
        Some("{x} 6379|0||".to_owned())
    );
    assert_eq!(title("{title", ""), None);
    assert_eq!(title("{nonsense}", ""), None);
}
