//! The command line: `shardis [redis.conf | -] [--directive value ...]`.
//!
//! Called `redis-check-rdb`, by a link, it checks an RDB file, as `--check-rdb` does; called `redis-check-aof`, an
//! append-only file, as `--check-aof` does.
//!
//! A few options are for this program; everything else is directives, by the rules of Redis 7.0. `--name` begins a
//! directive, and what follows are its values, up to the next argument that begins with `--`. Directly behind a bare
//! `--name` even that is a value (`--requirepass --secret`), but for `--save`, whose missing value is the empty one. Name
//! and values may also be one argument: `"--maxmemory 1gb"`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::REDIS_VERSION;
use crate::config::{Config, Files, Sources, directive_lines};
use crate::persist::aof::check::Repair;

const EXAMPLES: &str = "\
Examples:
  shardis                                     all defaults, all cores
  shardis /etc/redis/redis.conf
  shardis /etc/redis/redis.conf --port 7000 --shards 4
  shardis --port 7000 --save \"\" --maxmemory 1gb
  echo 'maxmemory 128mb' | shardis -";

#[derive(Parser)]
#[command(
    name = "shardis",
    about = "A Redis-compatible in-memory data server whose cores share nothing.",
    override_usage = "shardis [/path/to/redis.conf | -] [--directive value ...]",
    after_help = EXAMPLES,
    disable_version_flag = true
)]
struct Options {
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,

    /// Check an RDB file, and end
    #[arg(long, value_name = "FILE")]
    check_rdb: Option<OsString>,

    /// Check an append-only file, by its manifest or a single file of it, and end
    #[arg(long, value_name = "[--fix | --truncate-to-timestamp SECONDS] FILE")]
    check_aof: Option<OsString>,

    /// List the functions of Redis' module API, and which are served
    #[arg(long)]
    module_api: bool,

    /// Not available
    #[arg(long, num_args = 0..=1, value_name = "MEGABYTES", hide = true)]
    test_memory: Option<Option<OsString>>,

    /// Not available
    #[arg(long, hide = true)]
    check_system: bool,

    /// A configuration file in redis.conf's syntax, or `-` for standard input; then any directives of it, as options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CONFIG AND DIRECTIVES")]
    rest: Vec<OsString>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    Serve(Box<Config>),
    /// Check an RDB file and end.
    CheckRdb(PathBuf),
    /// Check an append-only file and end.
    CheckAof {
        path: PathBuf,
        repair: Repair,
    },
    /// List the functions of the module API and end.
    ModuleApi,
    /// Print something and end.
    Exit {
        status: i32,
        stdout: String,
        stderr: String,
    },
}

impl Invocation {
    fn print(stdout: String) -> Invocation {
        Invocation::Exit { status: 0, stdout, stderr: String::new() }
    }

    fn fail(message: String) -> Invocation {
        Invocation::Exit { status: 1, stdout: String::new(), stderr: message + "\n" }
    }
}

/// `shardis --version`. Its shape is that of `redis-server --version`.
pub fn version_line() -> String {
    format!(
        "Shardis server v={} redis={REDIS_VERSION} sha={}:0 malloc=jemalloc bits={}",
        env!("CARGO_PKG_VERSION"),
        option_env!("SHARDIS_GIT_SHA").unwrap_or("00000000"),
        usize::BITS
    )
}

/// Understands the arguments, the program's name first. Standard input is read only if they ask for it.
pub fn interpret(
    args: &[OsString],
    files: &dyn Files,
    read_stdin: &mut dyn FnMut() -> Result<Vec<u8>, String>,
    is_command: &dyn Fn(&[u8]) -> bool,
) -> Invocation {
    let program = args.first().map_or(Path::new("shardis"), Path::new);
    if program.file_name().is_some_and(|name| name == "redis-sentinel") {
        return no_sentinel();
    }
    if program.file_name().is_some_and(|name| name == "redis-check-rdb") {
        return match args {
            [_, file] => Invocation::CheckRdb(file.into()),
            _ => Invocation::fail(format!("Usage: {} <rdb-file-name>", program.display())),
        };
    }
    if program.file_name().is_some_and(|name| name == "redis-check-aof") {
        return check_aof(program, &args[1..]);
    }
    if args.get(1).is_some_and(|arg| arg == "--check-aof") {
        return check_aof(Path::new("shardis --check-aof"), &args[2..]);
    }
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(answer) if answer.use_stderr() => return Invocation::fail(answer.to_string()),
        Err(help) => return Invocation::print(help.to_string()),
    };
    if options.version {
        return Invocation::print(version_line() + "\n");
    }
    if let Some(file) = options.check_rdb {
        return Invocation::CheckRdb(file.into());
    }
    if options.module_api {
        return Invocation::ModuleApi;
    }
    if options.test_memory.is_some() {
        return Invocation::fail("Shardis has no memory test: --test-memory is not available.".to_owned());
    }
    if options.check_system {
        return Invocation::fail("Shardis has no system check: --check-system is not available.".to_owned());
    }

    let mut rest: Vec<&[u8]> = options.rest.iter().map(|arg| arg.as_bytes()).collect();
    let mut sources = Sources::default();
    let mut from_stdin = false;
    match rest.first() {
        Some(&b"-") => from_stdin = true,
        Some(path) if !path.starts_with(b"-") => {
            sources.file = Some(Path::new(&options.rest[0])).filter(|path| !path.as_os_str().is_empty());
        }
        Some(_) | None => {}
    }
    if from_stdin || rest.first().is_some_and(|first| !first.starts_with(b"-")) {
        rest.remove(0);
    }
    if rest.last() == Some(&&b"-"[..]) {
        from_stdin = true;
        rest.pop();
    }
    sources.args = directive_lines(&rest);
    if sources.args.iter().any(|line| line.eq_ignore_ascii_case(b"sentinel")) {
        return no_sentinel();
    }
    if from_stdin {
        match read_stdin() {
            Ok(text) => sources.stdin = Some(text),
            Err(why) => return Invocation::fail(format!("Fatal error, can't read standard input: {why}")),
        }
    }
    match Config::from_sources(&sources, files, is_command) {
        Ok(config) => Invocation::Serve(Box::new(config)),
        Err(error) => Invocation::fail(error.to_string()),
    }
}

/// Understands the arguments of redis-check-aof.
fn check_aof(program: &Path, args: &[OsString]) -> Invocation {
    let words: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let (repair, path) = match words[..] {
        [b"--fix", _] => (Some(Repair::Fix), 1),
        [b"--truncate-to-timestamp", until, _] => {
            let until = std::str::from_utf8(until).ok().and_then(|text| text.parse().ok());
            (until.map(Repair::ToTimestamp), 2)
        }
        [path] if !path.starts_with(b"--") => (Some(Repair::None), 0),
        _ => (None, 0),
    };
    match repair {
        Some(repair) => Invocation::CheckAof { path: PathBuf::from(&args[path]), repair },
        None => Invocation::Exit {
            status: 1,
            stdout: format!(
                "Usage: {} [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>\n",
                program.display()
            ),
            stderr: String::new(),
        },
    }
}

fn no_sentinel() -> Invocation {
    Invocation::fail("Shardis has no Sentinel mode: use redis-sentinel.".to_owned())
}

#[cfg(test)]
mod tests;
