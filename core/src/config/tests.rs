//! The table against Redis 7.0.15's own, and what values may be.

use super::*;

/// `name<TAB>default` of every directive that CONFIG GET * lists on Redis 7.0.15, both names of those with two.
const REDIS_DIRECTIVES: &str = include_str!("tests/redis-7.0.15.tsv");

/// What differs between the machine the list was taken on and a configuration that was never loaded: nothing but this.
const NOT_COMPARED: &[&str] = &["dir"];

#[test]
fn every_directive_of_redis_is_in_the_table_with_its_default() {
    let config = Config::default();
    for line in REDIS_DIRECTIVES.lines() {
        let (name, default) = line.split_once('\t').expect("name, tab, default");
        let row = lookup(name.as_bytes()).unwrap_or_else(|| panic!("{name} is missing"));
        if !NOT_COMPARED.contains(&name) {
            assert_eq!(String::from_utf8(row.value(&config)).unwrap(), default, "default of {name}");
        }
    }
}

#[test]
fn the_table_shows_nothing_that_redis_does_not_have_but_our_own() {
    const OURS: &[&str] = &["shards", "io-backend", "metrics-port"];
    let theirs: Vec<&str> = REDIS_DIRECTIVES.lines().map(|line| line.split('\t').next().unwrap()).collect();
    for row in DIRECTIVES.iter().filter(|row| !row.flags.contains(Flags::HIDDEN)) {
        for name in row.names() {
            assert!(theirs.contains(&name) || OURS.contains(&name), "{name}");
        }
    }
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
