//! Command lines as Redis 7.0.15 takes them. What is expected was taken from its own reports.

use std::path::PathBuf;

use super::*;
use crate::config::{LogLevel, Text};

struct OneFile;

impl Files for OneFile {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match path.to_str() {
            Some("/start/base.conf") => Ok(b"port 7000\nsave 900 1\n".to_vec()),
            _ => Err("No such file or directory".to_owned()),
        }
    }

    fn expand(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    fn resolve_dir(&self, _: &Path) -> Result<PathBuf, String> {
        Ok(PathBuf::from("/start"))
    }
}

fn run_as(program: &str, args: &[&str]) -> Invocation {
    let args: Vec<OsString> = std::iter::once(&program).chain(args).map(OsString::from).collect();
    interpret(&args, &OneFile, &mut || Ok(b"timeout 7\n".to_vec()), &|_| true)
}

fn config(args: &[&str]) -> Config {
    match run_as("shardis", args) {
        Invocation::Serve(config) => *config,
        Invocation::Exit { stderr, .. } => panic!("{args:?}: {stderr}"),
        Invocation::ModuleApi => panic!("{args:?}: the module API is listed"),
        Invocation::CheckRdb(path) | Invocation::CheckAof { path, .. } => {
            panic!("{args:?}: {path:?} is checked")
        }
    }
}

fn stderr(args: &[&str]) -> String {
    match run_as("shardis", args) {
        Invocation::Serve(_)
        | Invocation::CheckRdb(_)
        | Invocation::CheckAof { .. }
        | Invocation::ModuleApi => {
            panic!("{args:?} is no error")
        }
        Invocation::Exit { status, stdout, stderr } => {
            assert_eq!((status, stdout.as_str()), (1, ""), "{args:?}");
            stderr
        }
    }
}

fn show(config: &Config, name: &str) -> String {
    let found = config.get_matching(&[name.as_bytes()]);
    String::from_utf8(found[0].1.clone()).unwrap()
}

#[test]
fn reports_of_wrong_arguments_are_those_of_redis() {
    let reports: &[(&[&str], usize, &str, &str)] = &[
        (&["--port"], 2, "port", "wrong number of arguments"),
        (&["--port", "6380", "--loglevel"], 3, "loglevel", "wrong number of arguments"),
        (&["--port", "6379", "6380"], 2, r#"port "6379" "6380""#, "wrong number of arguments"),
        (
            &["--port", "--loglevel", "verbose"],
            2,
            r#"port "--loglevel" "verbose""#,
            "wrong number of arguments",
        ),
        (
            &["--port", "--bla", "--loglevel", "verbose"],
            2,
            r#"port "--bla""#,
            "argument couldn't be parsed into an integer",
        ),
        (
            &["--logfile", "--my--log--file", "--loglevel", "--bla"],
            3,
            r#"loglevel "--bla""#,
            "argument(s) must be one of the following: debug, verbose, notice, warning",
        ),
        (
            &["--shutdown-on-sigint"],
            2,
            "shutdown-on-sigint",
            "argument(s) must be one of the following: default, save, nosave, now, force",
        ),
        (
            &["--shutdown-on-sigint", "now force", "--shutdown-on-sigterm"],
            3,
            "shutdown-on-sigterm",
            "argument(s) must be one of the following: default, save, nosave, now, force",
        ),
        (&["--replicaof", "127.0.0.1", "abc"], 2, r#"replicaof "127.0.0.1" "abc""#, "Invalid master port"),
        (
            &["--replicaof", "--127.0.0.1", "abc"],
            2,
            r#"replicaof "--127.0.0.1" "abc""#,
            "Invalid master port",
        ),
        (
            &["--replicaof", "--127.0.0.1", "--abc"],
            2,
            r#"replicaof "--127.0.0.1""#,
            "wrong number of arguments",
        ),
        (&["--bogus", "1"], 2, r#"bogus "1""#, "Bad directive or wrong number of arguments"),
        (&["--port=7000"], 2, "port=7000", "Bad directive or wrong number of arguments"),
        (&["-x"], 2, r#""-x""#, "Bad directive or wrong number of arguments"),
        (&["-p", "7000"], 2, r#""-p" "7000""#, "Bad directive or wrong number of arguments"),
        (&["--port", "7000", "--help"], 3, "help", "Bad directive or wrong number of arguments"),
        (&["--port", "7000", "--", "x", "y"], 3, r#""x" "y""#, "Bad directive or wrong number of arguments"),
        (
            &["--port", "7000", "--", "--port", "abc"],
            3,
            r#""--port" "abc""#,
            "Bad directive or wrong number of arguments",
        ),
        (&["--port 7000", "abc"], 2, r#"port 7000 "abc""#, "wrong number of arguments"),
        (
            &["--maxmemory \"5", "--port", "abc"],
            2,
            "maxmemory \"5",
            "Unbalanced quotes in configuration line",
        ),
        (
            &["--port", "7000", "--maxmemory", "a\n\\\"\u{e9}"],
            3,
            r#"maxmemory "a\n\\\"\xc3\xa9""#,
            "argument must be a memory value",
        ),
        (&["base.conf", "--port", "abc"], 4, r#"port "abc""#, "argument couldn't be parsed into an integer"),
        (&["base.conf", "maxmemory", "abc"], 4, r#""maxmemory" "abc""#, "argument must be a memory value"),
        (&["base.conf", "-", "--port", "1"], 4, r#""-""#, "Bad directive or wrong number of arguments"),
        (&["base.conf", "-v"], 4, r#""-v""#, "Bad directive or wrong number of arguments"),
    ];
    for (args, number, line, why) in reports {
        assert_eq!(
            stderr(args),
            format!(
                "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line \
                 {number}\n>>> '{line}'\n{why}\n"
            ),
            "{args:?}"
        );
    }
}

#[test]
fn a_name_and_its_value_may_be_one_argument() {
    let both =
        config(&["base.conf", "--maxmemory 700mb", "--proc-title-template 'a  b'", "--loglevel", "debug"]);
    assert_eq!(both.maxmemory_bytes, 700 << 20);
    assert_eq!(both.proc_title_template, Text::from("a  b"));
    assert_eq!(both.loglevel, LogLevel::Debug);
    let dashes = config(&["--proc-title-template --my--title--template", "--loglevel verbose"]);
    assert_eq!(dashes.proc_title_template, Text::from("--my--title--template"));
    assert_eq!(dashes.loglevel, LogLevel::Verbose);
}

#[test]
fn the_first_directive_needs_no_dashes_behind_a_file() {
    let config = config(&["base.conf", "loglevel", "verbose", "--maxmemory '700mb'"]);
    assert_eq!(config.loglevel, LogLevel::Verbose);
    assert_eq!(config.maxmemory_bytes, 700 << 20);
}

#[test]
fn a_value_may_begin_with_dashes() {
    let config = config(&["--proc-title-template", "--my--title--template", "--loglevel", "verbose"]);
    assert_eq!(config.proc_title_template, Text::from("--my--title--template"));
    assert_eq!(config.loglevel, LogLevel::Verbose);
}

#[test]
fn save_without_a_value_is_save_with_an_empty_one() {
    let cases: &[&[&str]] = &[
        &["base.conf", "--save", "--loglevel", "verbose"],
        &["base.conf", "--loglevel", "verbose", "--save"],
        &["base.conf", "--save", "", "--loglevel", "verbose"],
        &["base.conf", "--loglevel", "verbose", "--save", ""],
        &["base.conf", "--proc-title-template", "--save", "--save", "", "--loglevel", "verbose"],
        &["base.conf", "--SAVE", "--loglevel", "verbose"],
    ];
    for args in cases {
        let config = config(args);
        assert_eq!(show(&config, "save"), "", "{args:?}");
        assert_eq!(config.loglevel, LogLevel::Verbose, "{args:?}");
    }
    assert_eq!(show(&config(&["base.conf", "--save", "100", "100"]), "save"), "900 1 100 100");
    assert_eq!(show(&config(&["--save", "3600", "1", "60", "1000"]), "save"), "3600 1 60 1000");
}

#[test]
fn several_values_may_be_one_argument_or_several() {
    let config =
        config(&["--shutdown-on-sigint", "nosave", "force", "now", "--shutdown-on-sigterm", "nosave force"]);
    assert_eq!(show(&config, "shutdown-on-sigint"), "nosave now force");
    assert_eq!(show(&config, "shutdown-on-sigterm"), "nosave force");
}

#[test]
fn our_own_directives_are_options_like_any_other() {
    let config =
        config(&["--shards", "4", "--io-backend", "epoll", "--metrics-port", "9121", "--appendonly", "no"]);
    assert_eq!(config.shards, 4);
    assert_eq!(config.io_backend.as_str(), "epoll");
    assert_eq!(config.metrics_port, 9121);
}

#[test]
fn standard_input_is_read_first_or_last() {
    assert_eq!(config(&["-"]).timeout_s, 7);
    assert_eq!(config(&["-", "--timeout", "9"]).timeout_s, 9, "the arguments count more");
    let both = config(&["base.conf", "--port", "7001", "-"]);
    assert_eq!((both.timeout_s, both.port), (7, 7001));
    assert_eq!(config(&[]).timeout_s, 0);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    assert_eq!(
        stderr(&["nothing.conf"]),
        "Fatal error, can't open config file '/start/nothing.conf': No such file or directory\n"
    );
}

#[test]
fn version_and_help_are_printed() {
    for flag in ["-v", "--version"] {
        let Invocation::Exit { status, stdout, stderr } = run_as("redis-server", &[flag]) else { panic!() };
        assert_eq!((status, stderr.as_str()), (0, ""));
        let words: Vec<&str> = stdout.trim_end().split(' ').collect();
        assert_eq!(words[..2], ["Shardis", "server"]);
        assert_eq!(words[2], concat!("v=", env!("CARGO_PKG_VERSION")));
        assert_eq!(words[3], "redis=7.0.15");
    }
    for flag in ["-h", "--help"] {
        let Invocation::Exit { status, stdout, stderr } = run_as("shardis", &[flag]) else { panic!() };
        assert_eq!((status, stderr.as_str()), (0, ""));
        assert!(stdout.contains("shardis [/path/to/redis.conf | -] [--directive value ...]"), "{stdout}");
        assert!(stdout.contains("--port 7000 --shards 4"), "{stdout}");
    }
}

#[test]
fn what_is_not_available_says_so() {
    assert!(stderr(&["--sentinel"]).contains("no Sentinel mode"));
    assert!(stderr(&["base.conf", "--sentinel"]).contains("no Sentinel mode"));
    assert!(stderr(&["--test-memory", "100"]).contains("--test-memory is not available"));
    assert!(stderr(&["--check-system"]).contains("--check-system is not available"));
    let Invocation::Exit { status: 1, .. } = run_as("/usr/bin/redis-sentinel", &["x.conf"]) else { panic!() };
    // As a value it is no option.
    assert_eq!(config(&["--requirepass", "--sentinel"]).requirepass, Text::from("--sentinel"));
}

#[test]
fn a_file_is_checked_by_an_option_or_by_the_name_of_the_program() {
    let check_aof = |repair| Invocation::CheckAof { path: PathBuf::from("m"), repair };
    assert_eq!(run_as("redis-check-aof", &["m"]), check_aof(Repair::None));
    assert_eq!(run_as("shardis", &["--check-aof", "--fix", "m"]), check_aof(Repair::Fix));
    let until = ["--truncate-to-timestamp", "5", "m"];
    assert_eq!(run_as("/usr/bin/redis-check-aof", &until), check_aof(Repair::ToTimestamp(5)));
    assert!(matches!(run_as("redis-check-aof", &["--mend", "m"]), Invocation::Exit { status: 1, .. }));
    let checked = Invocation::CheckRdb(PathBuf::from("dump.rdb"));
    assert_eq!(run_as("shardis", &["--check-rdb", "dump.rdb"]), checked);
    assert_eq!(run_as("/usr/bin/redis-check-rdb", &["dump.rdb"]), checked);
    let usage = "Usage: redis-check-rdb <rdb-file-name>\n".to_owned();
    assert_eq!(
        run_as("redis-check-rdb", &[]),
        Invocation::Exit { status: 1, stdout: String::new(), stderr: usage }
    );
}
