//! CONFIG GET and CONFIG SET.

use super::*;

fn get(config: &Config, patterns: &[&str]) -> Vec<(String, String)> {
    let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
    config.get_matching(&patterns).into_iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn names(config: &Config, patterns: &[&str]) -> Vec<String> {
    get(config, patterns).into_iter().map(|(name, _)| name).collect()
}

fn set(config: &Config, pairs: &[(&str, &str)], caller: Caller) -> Result<Config, String> {
    let pairs: Vec<(&[u8], &[u8])> =
        pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    config
        .set_many(&pairs, caller)
        .map(|(config, _)| config)
        .map_err(|error| String::from_utf8(error.reply()).expect("no bytes of a client's"))
}

fn failed(argument: &str, why: &str) -> Result<Config, String> {
    Err(format!("ERR CONFIG SET failed (possibly related to argument '{argument}') - {why}"))
}

#[test]
fn get_takes_names_and_patterns_in_any_case_and_answers_each_once() {
    let config = Config::default();
    assert_eq!(get(&config, &["MaxMemory"]), [("MaxMemory".to_owned(), "0".to_owned())]);
    assert_eq!(names(&config, &["MAXMEM*TENACITY", "*tenacity"]), ["maxmemory-eviction-tenacity"]);
    assert_eq!(names(&config, &["maxmemory", "MAXMEMORY"]), ["maxmemory"]);
    assert_eq!(names(&config, &["*of"]), ["replicaof", "slaveof"]);
    assert_eq!(
        names(&config, &["hash-max-*-entries"]),
        ["hash-max-listpack-entries", "hash-max-ziplist-entries"]
    );
    assert_eq!(names(&config, &["nonsense", "no*sense"]), Vec::<String>::new());
}

#[test]
fn get_everything_is_what_redis_has_and_our_own_answer_to_their_names() {
    let config = Config::default();
    let mut all = names(&config, &["*"]);
    all.sort();
    let theirs = REDIS_DIRECTIVES.lines().map(|line| line.split('\t').next().unwrap());
    let mut expected: Vec<&str> = theirs.collect();
    expected.sort_unstable();
    assert_eq!(all, expected);
    for name in OURS {
        assert_eq!(names(&config, &[name]), [*name]);
    }
}

#[test]
fn hidden_directives_answer_to_their_name_alone() {
    let config = Config::default();
    assert_eq!(names(&config, &["key-load-delay"]), ["key-load-delay"]);
    assert_eq!(names(&config, &["key-load-dela?", "key-load*"]), Vec::<String>::new());
}

#[test]
fn set_changes_several_at_once() {
    let pairs = [("maxmemory", "10mb"), ("SAVE", "3000 5"), ("slave-priority", "7")];
    let config = set(&Config::default(), &pairs, Caller::default()).unwrap();
    assert_eq!(config.maxmemory_bytes, 10 << 20);
    assert_eq!(config.save, SavePoints(vec![SavePoint { period_s: 3000, change_count: 5 }]));
    assert_eq!(config.replica_priority, 7);
}

#[test]
fn set_names_the_first_argument_that_may_not_be_set() {
    let config = Config::default();
    let set = |pairs: &[(&str, &str)]| set(&config, pairs, Caller::default());
    let unknown =
        |name: &str| Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"));
    assert_eq!(set(&[("bogus", "1")]), unknown("bogus"));
    assert_eq!(set(&[("maxmemory", "abc"), ("bogus", "1")]), unknown("bogus"));
    assert_eq!(set(&[("rename-command", "GET x")]), unknown("rename-command"));
    assert_eq!(
        set(&[("DAEMONIZE", "yes"), ("bogus", "1")]),
        failed("DAEMONIZE", "can't set immutable config")
    );
    assert_eq!(set(&[("replicaof", "no one")]), failed("replicaof", "can't set immutable config"));
    assert_eq!(set(&[("dir", "/"), ("daemonize", "yes")]), failed("dir", "can't set protected config"));
    assert_eq!(set(&[("maxmemory", "1"), ("MAXMEMORY", "2")]), failed("MAXMEMORY", "duplicate parameter"));
    assert_eq!(
        set(&[("PORT", "abc")]),
        failed("port", "argument couldn't be parsed into an integer"),
        "values are judged under the directive's name"
    );
}

/// What Redis 7.0.15 shows after CONFIG SET, or why it refuses.
#[test]
fn values_are_read_as_c_reads_them() {
    const SIZE_ERROR: &str = "argument must be a memory value";
    const LIMIT_ERROR: &str = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
    const OTHERS: &str = "slave 268435456 67108864 60 pubsub 33554432 8388608 60";
    const MEMORY_OR_PERCENT: &str = "argument must be a memory or percent value";
    const PERCENT_ERROR: &str = "percentage argument must be less or equal to 100";
    const INTEGER_ERROR: &str = "argument couldn't be parsed into an integer";
    let nines = "9".repeat(128);
    let limits = |normal: &str| format!("normal {normal} {OTHERS}");
    let cases: [(&str, &str, Result<String, &str>); 49] = [
        ("save", "1 4294967297", Ok("1 1".into())),
        ("save", "1 2147483648", Ok("1 -2147483648".into())),
        ("save", "1 99999999999999999999", Ok("1 -1".into())),
        ("save", "99999999999999999999 1", Ok("9223372036854775807 1".into())),
        ("save", "1 -1", Err("Invalid save parameters")),
        ("save", "1 0x1", Err("Invalid save parameters")),
        ("save", "+5 +6", Ok("5 6".into())),
        ("save", "1 ", Ok("1 0".into())),
        ("save", "1 1\0z", Ok("1 1".into())),
        ("save", "\01", Ok(String::new())),
        ("save", "\t7 1", Ok("7 1".into())),
        ("client-output-buffer-limit", "normal 0 0 99999999999", Ok(limits("0 0 1215752191"))),
        ("client-output-buffer-limit", "normal 0 0 99999999999999999999", Err(LIMIT_ERROR)),
        ("client-output-buffer-limit", "normal  0 0", Ok(limits("0 0 0"))),
        ("client-output-buffer-limit", "normal\0z 1 b +5", Ok(limits("1 0 5"))),
        ("client-output-buffer-limit", "normal 1 1 -1", Err(LIMIT_ERROR)),
        (
            "client-output-buffer-limit",
            "normal 18446744073709551616 0 0",
            Ok(limits("18446744073709551615 0 0")),
        ),
        ("oom-score-adj-values", "0 0 ", Ok("0 0 0".into())),
        ("oom-score-adj-values", "0 -1 +2\0", Ok("0 -1 2".into())),
        ("maxmemory-clients", "99999999999999999999999", Ok("1%".into())),
        ("maxmemory-clients", "18446744073709551516", Ok("100%".into())),
        ("maxmemory-clients", "18446744073709551515", Err(PERCENT_ERROR)),
        ("maxmemory-clients", "101%", Err(PERCENT_ERROR)),
        ("maxmemory-clients", "-5%", Err(MEMORY_OR_PERCENT)),
        ("maxmemory-clients", "5%\0", Err(MEMORY_OR_PERCENT)),
        ("maxmemory-clients", "5\0%", Ok("5".into())),
        ("maxmemory-clients", "0%", Ok("0".into())),
        ("maxmemory", "99999999999999999999999", Ok("18446744073709551615".into())),
        ("maxmemory", "99999999999999gb", Ok("14131891009335853056".into())),
        ("maxmemory", "1\0", Ok("1".into())),
        ("maxmemory", &nines, Err(SIZE_ERROR)),
        ("maxmemory", "1 kb", Err(SIZE_ERROR)),
        (
            "repl-backlog-size",
            "99999999999999gb",
            Err("argument must be between 1 and 9223372036854775807 inclusive"),
        ),
        ("hz", "10\0", Err(INTEGER_ERROR)),
        ("hz", "99999999999999999999", Err(INTEGER_ERROR)),
        ("slowlog-log-slower-than", "9223372036854775808", Err(INTEGER_ERROR)),
        ("notify-keyspace-events", "KEA\0q", Ok("AKE".into())),
        ("appendonly", "no\0", Ok("no".into())),
        ("loglevel", "Notice\0x", Ok("notice".into())),
        ("oom-score-adj", "no\0", Ok("no".into())),
        ("shutdown-on-sigterm", "save\0 now\0", Ok("save now".into())),
        ("requirepass", "a\0b", Ok("a\0b".into())),
        ("masterauth", "a\0b", Ok("a\0b".into())),
        ("masteruser", "a\0b", Ok("a".into())),
        ("tls-key-file-pass", "a\0b", Ok("a".into())),
        ("replica-announce-ip", "1\0", Ok("1".into())),
        ("bind", "127.0.0.1\0x", Ok("127.0.0.1".into())),
        (
            "latency-tracking-info-percentiles",
            "50\0",
            Err("Invalid latency-tracking-info-percentiles parameters"),
        ),
        ("latency-tracking-info-percentiles", "0x10", Ok("16".into())),
    ];
    for (name, value, expected) in cases {
        let shown = set(&Config::default(), &[(name, value)], Caller::default())
            .map(|config| get(&config, &[name]).remove(0).1);
        let expected = expected.or_else(|why| failed(name, why).map(|_| unreachable!("it failed")));
        assert_eq!(shown, expected, "{name} {value:?}");
    }
}

#[test]
fn what_no_request_can_hold_is_no_limit_for_an_argument() {
    let set = |value: &str| set(&Config::default(), &[("proto-max-bulk-len", value)], Caller::default());
    assert_eq!(set("4294967295").unwrap().proto_max_bulk_len_bytes, 4_294_967_295);
    assert_eq!(
        set("5gb"),
        failed("proto-max-bulk-len", "argument must be between 1048576 and 4294967295 inclusive")
    );
}

#[test]
fn both_names_of_a_directive_are_no_duplicate_and_the_last_counts() {
    let pairs = [("hash-max-listpack-entries", "1"), ("hash-max-ziplist-entries", "2")];
    let config = set(&Config::default(), &pairs, Caller::default()).unwrap();
    assert_eq!(config.hash_max_listpack_entries, 2);
}

#[test]
fn protected_and_loading_depend_on_the_caller() {
    let config = Config::default();
    let loading = Caller { may_set_protected: true, is_loading: true };
    assert_eq!(set(&config, &[("dbfilename", "x")], MAY_ALL).unwrap().dbfilename, Text::from("x"));
    assert_eq!(
        set(&config, &[("maxmemory", "abc"), ("dir", "/")], loading),
        Err("LOADING Redis is loading the dataset in memory".to_owned())
    );
    assert_eq!(set(&config, &[("loglevel", "debug")], loading).unwrap().loglevel, LogLevel::Debug);
}

#[test]
fn hz_is_held_in_its_range_without_a_word() {
    let config = Config::default();
    for (asked, given) in [("0", 1), ("1", 1), ("500", 500), ("100000", 500)] {
        assert_eq!(set(&config, &[("hz", asked)], MAY_ALL).unwrap().hz, given);
    }
}

#[test]
fn buffer_limits_keep_the_classes_that_are_not_named() {
    let pairs = [("client-output-buffer-limit", "pubsub 1mb 2k 3")];
    let config = set(&Config::default(), &pairs, MAY_ALL).unwrap();
    assert_eq!(
        show(&config, "client-output-buffer-limit"),
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 2000 3"
    );
}

#[test]
fn a_failed_set_leaves_nothing_behind() {
    let config = set(&Config::default(), &[("maxmemory", "10000002")], MAY_ALL).unwrap();
    let pairs =
        [("maxmemory", "10000001"), ("maxmemory-clients", "200%"), ("client-query-buffer-limit", "invalid")];
    assert_eq!(
        set(&config, &pairs, MAY_ALL),
        failed("maxmemory-clients", "percentage argument must be less or equal to 100")
    );
    assert_eq!(config.maxmemory_bytes, 10000002);
}

/// Several directives in one CONFIG SET, a random one of them wrong: nothing changes, whatever the order.
#[test]
fn set_is_all_or_nothing_wherever_the_wrong_value_stands() {
    let right = [("maxmemory", "5"), ("hz", "50"), ("save", "1 2"), ("loglevel", "debug"), ("timeout", "9")];
    for at in 0..right.len() {
        let mut pairs = right.to_vec();
        pairs.insert(at, ("maxclients", "0"));
        let config = Config::default();
        assert_eq!(
            set(&config, &pairs, MAY_ALL),
            failed("maxclients", "argument must be between 1 and 4294967295 inclusive")
        );
        assert_eq!(config, Config::default());
    }
}

type Log = Vec<(SideEffect, u16, u16)>;

/// Applies an update whose `SideEffect::Listen` fails; returns what was done, with the ports before and after.
fn apply_with_busy_port(pairs: &[(&[u8], &[u8])]) -> (Result<Config, String>, Log) {
    let mut log = Log::new();
    let update = Config::default().stage(pairs, MAY_ALL).unwrap();
    let outcome = update.apply(|effect, from, to| {
        log.push((effect, from.port, to.port));
        match effect {
            SideEffect::Listen if to.port != 6379 => {
                Err("Unable to listen on this port. Check server logs.".into())
            }
            _ => Ok(()),
        }
    });
    (
        outcome
            .map(|(config, _)| config)
            .map_err(|error| String::from_utf8(error.reply()).expect("no bytes of a client's")),
        log,
    )
}

#[test]
fn work_that_fails_undoes_the_work_before_it_in_reverse() {
    let (outcome, log) = apply_with_busy_port(&[
        (b"oom-score-adj", b"yes"),
        (b"oom-score-adj-values", b"1 1 1"),
        (b"maxclients", b"5"),
        (b"port", b"7000"),
        (b"loglevel", b"debug"),
    ]);
    assert_eq!(
        outcome,
        failed("port", "Unable to listen on this port. Check server logs."),
        "the first failure is the one that is told"
    );
    assert_eq!(
        log,
        [
            (SideEffect::OomScoreAdj, 6379, 7000),
            (SideEffect::MaxClients, 6379, 7000),
            (SideEffect::Listen, 6379, 7000),
            (SideEffect::MaxClients, 7000, 6379),
            (SideEffect::OomScoreAdj, 7000, 6379),
        ]
    );
}

#[test]
fn values_that_do_not_change_bring_no_work() {
    let (outcome, log) =
        apply_with_busy_port(&[(b"port", b"6379"), (b"maxclients", b"10000"), (b"hz", b"20")]);
    assert_eq!(outcome.unwrap().hz, 20);
    assert_eq!(log, []);
}

#[test]
fn work_may_correct_the_new_value() {
    let update = Config::default().stage(&[(b"dir", b"..")], MAY_ALL).unwrap();
    assert_eq!(update.effects(), [(SideEffect::ChangeDir, "dir")]);
    assert!(update.changes()[0].is_new);
    assert_eq!(update.config().dir, Text::from(".."));

    let (config, _) = update
        .apply(|_, _, to| {
            to.dir = Text::from("/var/lib");
            Ok(())
        })
        .unwrap();

    assert_eq!(config.dir, Text::from("/var/lib"));
}
