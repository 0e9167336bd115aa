//! redis.conf and its errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// Files in memory. Every directory exists but `/nowhere`.
#[derive(Default)]
pub(crate) struct FakeFiles(BTreeMap<PathBuf, Vec<u8>>);

impl FakeFiles {
    pub(crate) fn with(files: &[(&str, &str)]) -> FakeFiles {
        let file = |(path, text): &(&str, &str)| (PathBuf::from(path), text.as_bytes().to_vec());
        FakeFiles(files.iter().map(file).collect())
    }
}

impl Files for FakeFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "No such file or directory".to_owned())
    }

    fn expand(&self, pattern: &Path) -> Vec<PathBuf> {
        let pattern = pattern.to_str().unwrap().as_bytes();
        let matches =
            |path: &&PathBuf| crate::types::glob::glob_matches(pattern, path.to_str().unwrap().as_bytes());
        self.0.keys().filter(matches).cloned().collect()
    }

    fn resolve_dir(&self, path: &Path) -> Result<PathBuf, String> {
        if path.starts_with("/nowhere") {
            return Err("No such file or directory".to_owned());
        }
        let mut resolved = PathBuf::from("/start");
        for part in path.components() {
            match part {
                std::path::Component::ParentDir => {
                    resolved.pop();
                }
                std::path::Component::CurDir => {}
                part => resolved.push(part),
            }
        }
        Ok(resolved)
    }
}

fn is_command(name: &[u8]) -> bool {
    [&b"get"[..], b"set", b"config"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn load_from(files: &FakeFiles, text: &str) -> Result<Config, LoadError> {
    let sources = Sources { stdin: Some(text.as_bytes().to_vec()), ..Sources::default() };
    Config::from_sources(&sources, files, &is_command)
}

fn load(text: &str) -> Result<Config, LoadError> {
    load_from(&FakeFiles::default(), text)
}

/// The last two lines of the report: the line at fault and the reason.
fn fault(text: &str) -> (String, String) {
    let report = load(text).expect_err(text).to_string();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[1], "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***");
    let line =
        lines[3].strip_prefix(">>> '").and_then(|line| line.strip_suffix('\'')).expect("a quoted line");
    (line.to_owned(), lines[4].to_owned())
}

#[test]
fn a_file_in_redis_syntax_loads() {
    let text = "# a comment\n\n  # another\n\tmaxmemory   1gb\t\nMAXCLIENTS 5\r\nrequirepass \"a \\x41\\\"\\n\"\n\
                logfile ''\nbind 127.0.0.1 -::1\nslave-priority 7\nproc-title-template 'a b'";
    let config = load(text).unwrap();
    assert_eq!(config.maxmemory_bytes, 1 << 30);
    assert_eq!(config.maxclients, 5);
    assert_eq!(config.requirepass.as_bytes(), b"a A\"\n");
    assert_eq!(show(&config, "bind"), "127.0.0.1 -::1");
    assert_eq!(config.replica_priority, 7);
    assert_eq!(config.proc_title_template, Text::from("a b"));
    assert_eq!(config.dir, Text::from("/start"));
}

#[test]
fn the_report_of_a_wrong_line_is_redis_own() {
    assert_eq!(
        load("\nport abc\n").unwrap_err().to_string(),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 2\n>>> 'port \
         abc'\nargument couldn't be parsed into an integer"
    );
}

#[test]
fn a_wrong_line_in_a_file_is_reported_with_the_files_name() {
    let files = FakeFiles::with(&[
        ("/etc/redis.conf", "port 7000\ninclude sub/*.conf\n"),
        ("/start/sub/a.conf", "timeout 5\n"),
        ("/start/sub/b.conf", "\n\nhz\n"),
    ]);
    let sources = Sources { file: Some(Path::new("/etc/redis.conf")), ..Sources::default() };
    let error = Config::from_sources(&sources, &files, &is_command).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file /start/sub/b.conf, at \
         line 3\n>>> 'hz'\nwrong number of arguments"
    );
}

#[test]
fn lines_are_refused_in_redis_words() {
    let bad = "Bad directive or wrong number of arguments";
    let faults = [
        ("port", "wrong number of arguments"),
        ("port 1 2", "wrong number of arguments"),
        ("maxmemory 5 # no comment here", "wrong number of arguments"),
        ("maxmemory \"5\"mb", "Unbalanced quotes in configuration line"),
        ("maxmemory '5", "Unbalanced quotes in configuration line"),
        ("\"\"", bad),
        ("bogus 1", bad),
        ("include", bad),
        ("include a b", bad),
        ("loadmodule", bad),
        ("user", bad),
        ("rename-command get", bad),
        ("foo.bar", "Module config specified without value"),
        ("sentinel monitor x", "sentinel directive while not in sentinel mode"),
        ("dir /nowhere", "No such file or directory"),
        ("dir \"\"", "No such file or directory"),
        ("dir", "wrong number of arguments"),
        ("replicaof a", "wrong number of arguments"),
        ("replicaof a 65536", "Invalid master port"),
        ("save 1", "Invalid save parameters"),
        ("save \"100 100 50\"", "Invalid save parameters"),
        ("unixsocketperm 999", "argument couldn't be parsed as an octal number"),
        ("unixsocketperm 7777", "argument must be between 0 and 777 inclusive"),
        ("unixsocketperm -1", "argument must be between 0 and 777 inclusive"),
        ("bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", "Too many bind addresses specified."),
        ("rename-command nosuch foo", "No such command in rename-command"),
        ("rename-command get SET", "Target command name already exists"),
        ("shards 1025", "argument must be between 0 and 1024 inclusive"),
        ("io-backend kqueue", "argument(s) must be one of the following: auto, uring, epoll"),
    ];
    for (line, why) in faults {
        assert_eq!(fault(line), (line.to_owned(), why.to_owned()));
    }
}

#[test]
fn save_lines_add_up_after_the_first_and_an_empty_one_clears() {
    let save = |text: &str| show(&load(text).unwrap(), "save");
    assert_eq!(save(""), "3600 1 300 100 60 10000");
    assert_eq!(save("save 900 1"), "900 1");
    assert_eq!(save("save 900 1\nsave 100 100 50 2"), "900 1 100 100 50 2");
    assert_eq!(save("save \"900 1  100 100\""), "900 1 100 100");
    for empty in ["save", "save \"\"", "save ''", "save \"''\""] {
        assert_eq!(save(&format!("save 1 2\n{empty}")), "", "{empty}");
        assert_eq!(save(&format!("{empty}\nsave 3 4")), "3 4", "{empty}");
    }
}

#[test]
fn several_words_may_be_one_argument() {
    let config =
        load("bind \"127.0.0.1   '::1'\"\noom-score-adj-values \"1 2 3\"\nshutdown-on-sigint \"nosave now\"");
    let config = config.unwrap();
    assert_eq!(show(&config, "bind"), "127.0.0.1 ::1");
    assert_eq!(config.oom_score_adj_values, OomScoreAdjValues([1, 2, 3]));
    assert_eq!(show(&config, "shutdown-on-sigint"), "nosave now");
    assert_eq!(show(&load("bind \"\"").unwrap(), "bind"), "");
}

#[test]
fn a_directive_counts_where_it_stands_last() {
    let files = FakeFiles::with(&[("/start/inc.conf", "timeout 2\nhz 30\n")]);
    let config = load_from(&files, "timeout 1\nhz 20\ninclude inc.conf\ntimeout 3").unwrap();
    assert_eq!((config.timeout_s, config.hz), (3, 30));
}

#[test]
fn an_include_must_exist_unless_it_is_a_pattern() {
    assert!(load("include nothing_*.conf").is_ok());
    assert_eq!(
        load("include nothing.conf").unwrap_err().to_string(),
        "Fatal error, can't open config file '/start/nothing.conf': No such file or directory"
    );
}

#[test]
fn includes_are_looked_for_in_the_directory_of_dir() {
    let files = FakeFiles::with(&[("/start/conf/inc.conf", "timeout 2\n")]);
    let config = load_from(&files, "dir conf\ninclude inc.conf").unwrap();
    assert_eq!(config.timeout_s, 2);
    assert_eq!(config.dir, Text::from("/start/conf"));
}

#[test]
fn a_file_that_includes_itself_is_an_error_not_a_crash() {
    let files = FakeFiles::with(&[("/start/self.conf", "hz 5\ninclude self.conf\n")]);
    let report = load_from(&files, "include self.conf").unwrap_err().to_string();
    assert!(report.contains("/start/self.conf, at line 2\n>>> 'include self.conf'\n"), "{report}");
}

#[test]
fn renamed_commands_are_judged_one_after_the_other() {
    let renamed = |text: &str| load(text).unwrap().renamed_commands.len();
    assert_eq!(renamed("rename-command CONFIG foo\nrename-command FOO bar"), 2);
    assert_eq!(renamed("rename-command GET \"\"\nrename-command SET get"), 2);
    assert_eq!(renamed("rename-command GET Get"), 1);
    let twice = "rename-command get xget\nrename-command GET yget";
    assert_eq!(
        fault(twice),
        ("rename-command GET yget".to_owned(), "No such command in rename-command".to_owned())
    );
}

#[test]
fn commands_that_only_redis_has_may_be_renamed() {
    // Many hardened configurations do this, and there is nothing left to take away.
    let config = load("rename-command BGREWRITEAOF \"\"\nrename-command georadius hidden").unwrap();
    assert_eq!(config.renamed_commands, []);
}

#[test]
fn the_command_line_comes_after_the_file_and_its_lines_are_counted_on() {
    let files = FakeFiles::with(&[("/start/base.conf", "port 7000\nsave 900 1\n")]);
    let load = |args: &[&str]| {
        let args = args.iter().map(|line| line.as_bytes().to_vec()).collect();
        let sources = Sources { file: Some(Path::new("base.conf")), stdin: None, args };
        Config::from_sources(&sources, &files, &is_command)
    };
    let config = load(&["port 7001", "save 100 100"]).unwrap();
    assert_eq!(config.port, 7001);
    assert_eq!(show(&config, "save"), "900 1 100 100");
    assert_eq!(config.config_file, Text::from("/start/base.conf"));
    let report = load(&["port \"abc\""]).unwrap_err().to_string();
    assert!(report.contains("\nReading the configuration file, at line 4\n>>> 'port \"abc\"'\n"), "{report}");
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let sources = Sources { stdin: Some(b"requirepass \xff\xfe\n".to_vec()), ..Sources::default() };
    let config = Config::from_sources(&sources, &FakeFiles::default(), &is_command).unwrap();
    assert_eq!(config.requirepass.as_bytes(), b"\xff\xfe");
}

/// The parts of the configurations that the official test suite starts its servers with.
#[test]
fn the_configurations_of_the_official_tests_load() {
    let default_conf = "always-show-logo yes\nnotify-keyspace-events KEA\ndaemonize no\npidfile /var/run/redis.pid\n\
        port 6379\ntimeout 0\nbind 127.0.0.1\nloglevel verbose\nlogfile ''\ndatabases 16\n\
        latency-monitor-threshold 1\nrepl-diskless-sync-delay 0\nsave 900 1\nrdbcompression yes\n\
        dbfilename dump.rdb\ndir ./\nslave-serve-stale-data yes\nappendonly no\nappendfsync everysec\n\
        no-appendfsync-on-rewrite no\nactiverehashing yes\nenable-protected-configs yes\n\
        enable-debug-command yes\nenable-module-command yes\npropagation-error-behavior panic\n";
    let overrides = "crash-memcheck-enabled no\nuse-exit-on-panic yes\nappendfilename appendonly.aof\n\
        aof-use-rdb-preamble yes\ncluster-port 27000\ncluster-node-timeout 1\nlist-max-ziplist-size 16\n\
        hash-max-ziplist-entries 1\nhash-max-listpack-value 16\nzset-max-ziplist-entries 0\n\
        set-max-intset-entries 512\nstream-node-max-entries 0\nkey-load-delay 50\n\
        loading-process-events-interval-bytes 1024\nrename-command config badger\nrequirepass foobar\n\
        maxclients 10\nproto-max-bulk-len 2000000000\nclient-query-buffer-limit 1gb\nlua-time-limit 5000\n\
        lua-enable-deprecated-api yes\nacl-pubsub-default allchannels\nsanitize-dump-payload no\n";
    let config = load(&format!("{default_conf}{overrides}")).unwrap();
    assert_eq!(config.loglevel, LogLevel::Verbose);
    assert_eq!(config.enable_debug_command, ProtectedAccess::Yes);
    assert_eq!(show(&config, "notify-keyspace-events"), "AKE");
    assert_eq!(config.hash_max_listpack_entries, 1);
}

#[test]
fn directives_of_modules_are_kept_for_them() {
    let sources = Sources { stdin: Some(b"mod.a one  two\nMOD.b \"x\"".to_vec()), ..Sources::default() };
    let config = Config::from_sources(&sources, &FakeFiles::default(), &|_| false).expect("it loads");
    let expected = [(b"mod.a".to_vec(), b"one two".to_vec()), (b"mod.b".to_vec(), b"x".to_vec())];
    assert_eq!(config.module_settings, expected);
}
