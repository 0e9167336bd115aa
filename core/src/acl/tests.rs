//! What rules allow, how they are described, and their errors.

use super::*;
use crate::call::Forbidden;
use crate::command::admission::Denied;
use crate::command::table::CommandTable;
use crate::protocol::OwnedArgv;
use crate::session::FAMILIES;
use crate::testing::with_seed;

fn table() -> CommandTable {
    CommandTable::new(FAMILIES, &[]).expect("nothing is renamed")
}

/// Users with one, `u`, of these rules.
fn users(table: &CommandTable, rules: &[&str]) -> Result<Users, SetUserError> {
    let mut users = Users::default();
    let rules: Vec<&[u8]> = rules.iter().map(|rule| rule.as_bytes()).collect();
    users.set_user(b"u", &rules, RuleContext { table, all_channels: false })?;
    Ok(users)
}

fn line(table: &CommandTable, rules: &[&str]) -> String {
    let users = users(table, rules).expect("the rules are right");
    String::from_utf8(users.get(b"u").unwrap().line(table)).unwrap()
}

fn check(table: &CommandTable, users: &Users, command: &[&str]) -> Result<(), Denied> {
    let args = OwnedArgv::from_slices(command);
    let entry = crate::command::gate::resolve(table, args.as_argv()).expect("it is a command");
    users.get(b"u").unwrap().check(table, entry, args.as_argv())
}

#[test]
fn a_new_user_may_nothing_but_log_in() {
    let table = table();
    let users = users(&table, &[]).unwrap();
    for entry in table.all().filter(|entry| entry.row.subcommands.is_empty()) {
        let name: Vec<&str> = entry.full_name.split('|').collect();
        let args = OwnedArgv::from_slices(&[name, vec!["x"; 3]].concat());
        let is_allowed = users.get(b"u").unwrap().check(&table, entry, args.as_argv()).is_ok();
        let logs_in = ["auth", "hello", "quit", "reset"].contains(&entry.full_name.as_str());
        assert_eq!(is_allowed, logs_in, "{}", entry.full_name);
    }
}

#[test]
fn rules_are_described_by_the_categories_that_fit_best() {
    let table = table();
    for (rules, described) in [
        (&["+@all"][..], "user u off resetchannels +@all"),
        (&["on", "nopass", "~*", "&*", "+@all"], "user u on nopass ~* &* +@all"),
        (&["~a", "%R~b", "%W~b", "%R~c", "&x", "+get"], "user u off ~a ~b %R~c resetchannels &x -@all +get"),
        (&["+@all", "-config|get"], "user u off resetchannels +@all -config|get"),
        (&["+config", "-config|get"], "user u off resetchannels -@all +config -config|get"),
        (&["+@all", "-get", "-@dangerous"], "user u off resetchannels +@all -@dangerous -get"),
        (&["+@string", "-mset"], "user u off resetchannels -@all +@string -mset"),
        (&["+client", "+auth"], "user u off resetchannels -@all +auth +client"),
        (&["+select|0", "+select|1"], "user u off resetchannels -@all +select|0 +select|1"),
        (&["+select|0", "+select"], "user u off resetchannels -@all +select"),
        (&["(", "+get", "~a", ")"], "user u off resetchannels -@all (~a resetchannels -@all +get)"),
        (&["(", "+get", "(", "~a", ")"], "user u off resetchannels -@all (~a resetchannels -@all)"),
        (&["(+get ~a)", "clearselectors"], "user u off resetchannels -@all"),
        (&["+@all", "~*", "reset"], "user u off sanitize-payload resetchannels -@all"),
        (
            &[">foo", ">bar", "<bar"],
            "user u off #2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae resetchannels -@all",
        ),
    ] {
        assert_eq!(line(&table, rules), described, "{rules:?}");
    }
}

/// Rules and ACL files of Redis name them, and are to be kept.
#[test]
fn rules_know_every_command_of_redis_and_those_that_are_not_there_cover_nothing() {
    let table = table();
    let names = include_str!("../config/commands-7.0.15.txt");
    // These come with modules.
    let is_of_module = |name: &str| {
        ["bit", "geo", "pf"].iter().any(|start| name.starts_with(start)) || name.ends_with("etbit")
    };
    for name in names.split_ascii_whitespace().filter(|name| !is_of_module(name)) {
        let known = table.known_to_rules().filter(|entry| entry.parent.is_none() && entry.row.name == name);
        assert_eq!(known.count(), 1, "{name}");
    }
    for entry in table.known_to_rules().filter(|entry| entry.row.is_absent) {
        let name = entry.full_name.as_str();
        assert!(table.by_full_name(name.as_bytes()).is_none(), "{name}");
        let described = line(&table, &[&format!("+{name}")]);
        assert_eq!(described, format!("user u off resetchannels -@all +{name}"));
        let described = line(&table, &["+@all", &format!("-{name}")]);
        assert_eq!(described, format!("user u off resetchannels +@all -{name}"));
    }
    for (rules, described) in [
        (&["+cluster", "-cluster|slots"][..], "user u off resetchannels -@all +cluster -cluster|slots"),
        (&["+@all", "-@dangerous"], "user u off resetchannels +@all -@dangerous"),
        (&["+migrate|x"], "user u off resetchannels -@all +migrate|x"),
        (&["+@admin", "-replicaof"], "user u off resetchannels -@all +@admin -replicaof"),
    ] {
        assert_eq!(line(&table, rules), described, "{rules:?}");
    }
    assert!(users(&table, &["+cluster|nosuch"]).is_err());
    let dangerous: Vec<&str> =
        of_category(&table, category(b"dangerous").unwrap()).map(|entry| entry.full_name.as_str()).collect();
    assert!(dangerous.contains(&"cluster|forget") && dangerous.contains(&"migrate"));
}

#[test]
fn a_wrong_rule_changes_nothing_and_says_why() {
    let table = table();
    for (rule, text) in [
        ("+nosuch", "Unknown command or category name in ACL"),
        ("-config|nosuch", "Unknown command or category name in ACL"),
        ("+@nosuch", "Unknown command or category name in ACL"),
        ("+config|get|x", "Allowing first-arg of a subcommand is not supported"),
        ("+config|", "Syntax error"),
        ("+select|", "Syntax error"),
        ("%~x", "Syntax error"),
        ("%RR~x", "Syntax error"),
        ("~a b", "Syntax error"),
        ("(on)", "Syntax error"),
        ("((+get))", "Syntax error"),
        (")", "Syntax error"),
        ("nosuch", "Syntax error"),
        ("<x", "The password you are trying to remove from the user does not exist"),
    ] {
        match users(&table, &["+get", rule]).err() {
            Some(SetUserError::Rule(blamed, error)) => {
                assert_eq!((blamed.as_slice(), error.text()), (rule.as_bytes(), text));
            }
            other => panic!("{rule}: {other:?}"),
        }
    }
    assert!(users(&table, &["~*", "~x"]).is_err_and(|error| matches!(error, SetUserError::Rule(..))));
    assert_eq!(users(&table, &["(+get", "~x"]).err(), Some(SetUserError::Unmatched(b"(+get".to_vec())));
}

#[test]
fn a_request_is_allowed_if_one_selector_allows_all_of_it() {
    let table = table();
    let users = users(&table, &["+mget", "~key", "(+mget ~key ~other)", "(+@write %W~w*)"]).unwrap();
    let denied = |what, at| Err(Denied { what, at });
    assert_eq!(check(&table, &users, &["mget", "key", "other"]), Ok(()));
    assert_eq!(check(&table, &users, &["get", "key"]), denied(Forbidden::Command, 0));
    // The last key at which a selector ended is the one that is told.
    assert_eq!(check(&table, &users, &["mget", "other", "third"]), denied(Forbidden::Key, 2));
    assert_eq!(check(&table, &users, &["lpush", "w1", "x"]), Ok(()));
    assert_eq!(check(&table, &users, &["lpush", "key", "x"]), denied(Forbidden::Key, 1));
    // It reads what it sets.
    assert_eq!(check(&table, &users, &["set", "w1", "x"]), Ok(()));
    assert_eq!(check(&table, &users, &["set", "w1", "x", "get"]), denied(Forbidden::Key, 1));
}

/// In Redis the key specs find keys behind a word that is no option, where our own parser of the options stops.
#[test]
fn a_malformed_request_is_refused_by_the_keys_that_its_specs_find() {
    let table = table();
    let users = users(&table, &["+@all", "~k*"]).unwrap();
    let denied = |at| Err(Denied { what: Forbidden::Key, at });
    assert_eq!(check(&table, &users, &["xread", "junk", "junk", "STREAMS", "other", "0"]), denied(4));
    assert_eq!(check(&table, &users, &["xread", "COUNT", "1", "STREAMS", "k1", "k2", "0", "0"]), Ok(()));
}

#[test]
fn subcommands_and_first_arguments_are_judged_by_themselves() {
    let table = table();
    let users = users(&table, &["+config|get", "+client", "-client|kill", "+select|0"]).unwrap();
    for (command, is_allowed) in [
        (&["config", "get", "x"][..], true),
        (&["config", "set", "x", "y"], false),
        (&["client", "id"], true),
        (&["client", "kill", "x"], false),
        (&["select", "0"], true),
        (&["select", "1"], false),
        (&["auth", "x"], true),
    ] {
        assert_eq!(check(&table, &users, command).is_ok(), is_allowed, "{command:?}");
    }
}

#[test]
fn who_may_do_everything_may_do_what_modules_add() {
    use crate::command::table::Command;
    let table = table();
    let users_of = |rules: &[&str]| users(&table, rules).unwrap();
    let (all, most, some) =
        (users_of(&["+@all", "~*"]), users_of(&["+@all", "-get", "~*"]), users_of(&["+@write", "~*"]));
    const NEW: Command = Command::keys("new", 1, |_| Ok(()));
    let table = table.with(&[&NEW]).expect("there is room");
    assert_eq!(check(&table, &all, &["new"]), Ok(()));
    assert_eq!(check(&table, &most, &["new"]), Ok(()));
    assert_eq!(check(&table, &some, &["new"]), Err(Denied { what: Forbidden::Command, at: 0 }));
    assert!(check(&table, &most, &["get", "x"]).is_err());
}

#[test]
fn a_command_whose_row_is_replaced_stays_forbidden() {
    use crate::command::table::Command;
    let table = table();
    let users = users(&table, &["+@all", "-get", "~*"]).unwrap();
    let row = table.lookup(b"get").unwrap().row;
    let new: &'static Command = Box::leak(Box::new(Command { ..*row }));
    let table = table.replacing(&[(new, row)]).expect("there is room");
    assert!(check(&table, &users, &["get", "x"]).is_err());
    assert_eq!(check(&table, &users, &["set", "x", "y"]), Ok(()));
}

#[test]
fn only_the_right_password_opens_and_only_while_the_user_is_on() {
    let table = table();
    let users = users(&table, &["on", ">secret"]).unwrap();
    assert!(users.log_in(b"u", b"secret").is_some());
    assert!(users.log_in(b"u", b"secre").is_none() && users.log_in(b"v", b"secret").is_none());
    let off = self::users(&table, &["off", "nopass"]).unwrap();
    assert!(off.log_in(b"u", b"x").is_none());
    let mut guarded = Users::default();
    assert!(guarded.log_in(DEFAULT_USER, b"anything").is_some());
    guarded.set_default_password(b"se\0cret");
    assert!(guarded.log_in(DEFAULT_USER, b"se").is_none());
    assert!(guarded.log_in(DEFAULT_USER, b"se\0cret").is_some() && !guarded.default_user().is_open());
}

#[test]
fn a_file_is_taken_as_a_whole_or_not_at_all() {
    let table = table();
    let rules = RuleContext { table: &table, all_channels: false };
    let before = users(&table, &["on"]).unwrap();
    let good = before.from_file("f", b"user u on +get ~x\n\n  user v off (+set ~y)\n", rules).unwrap();
    assert_eq!(good.iter().len(), 3);
    assert!(good.default_user().is_open());
    assert!(good.current(before.get(b"u").unwrap()).is_none(), "it is another user of the name");
    assert!(good.current(before.default_user()).is_some());
    let with_nul = b"user a on >x\0y\nuser b on\n";
    assert_eq!(
        before.from_file("f", with_nul, rules).err().unwrap(),
        "f:1: contains a null character. WARNING: ACL errors detected, no change to the previously active ACL rules \
         was performed"
    );
    let bad = b"user a on +nosuch ~x ^\nuser\nfoo\nuser a b\nuser b foo bar +no\nuser c (+get\n";
    assert_eq!(
        before.from_file("f", bad, rules).err().unwrap(),
        "f:1: Error in applying operation '+nosuch': Unknown command or category name in ACL. f:1: Syntax error. f:2 \
         should start with user keyword followed by the username. f:3 should start with user keyword followed by the \
         username. WARNING: Duplicate user 'a' found on line 4. f:5: Syntax error. f:5: Error in applying operation \
         '+no': Unknown command or category name in ACL. f:6: Unmatched parenthesis in selector definition.WARNING: \
         ACL errors detected, no change to the previously active ACL rules was performed"
    );
}

/// The line of a user makes the same user again.
#[test]
fn what_is_described_is_what_was_said() {
    let table = table();
    let names: Vec<&str> = table.all().map(|entry| entry.full_name.as_str()).collect();
    with_seed(|rng| {
        for _ in 0..20 {
            let mut rules = Vec::new();
            for _ in 0..rng.below(8) {
                let sign = if rng.one_in(2) { "+" } else { "-" };
                let rule = match rng.below(4) {
                    0 => format!("{sign}@{}", rng.pick(&crate::command::table::acl::NAMES)),
                    1 => format!("{sign}@all"),
                    2 => format!("{sign}{}", rng.pick(&names)),
                    _ => ["~a*", "%R~b", "%W~c", "resetkeys", "&ch"][rng.below(5)].to_string(),
                };
                rules.push(rule);
            }
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let first = line(&table, &rules);
            let again: Vec<&str> = first.split(' ').skip(2).collect();
            assert_eq!(line(&table, &again), first, "{rules:?}");
            let (one, other) = (users(&table, &rules).unwrap(), users(&table, &again).unwrap());
            let commands = |users: &Users| users.get(b"u").unwrap().root().command_rules(&table);
            assert_eq!(commands(&one), commands(&other));
        }
    });
}
