//! Configurations of any bytes: what loads is written and read again without loss, and CONFIG GET and SET never panic.
//!
//! Input: a configuration text, up to the first `\xff`; behind it, separated by `\xff`, names and values for CONFIG SET
//! and command line arguments.

#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use shardis_pure::config::{Append, Caller, Config, Files, Sources, directive_lines, rewrite};

/// A file system where `self` is the configuration and nothing else is a file.
struct OneFile<'a>(&'a [u8]);

impl Files for OneFile<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        if path == Path::new("/start/self") { Ok(self.0.to_vec()) } else { Err("No such file or directory".to_owned()) }
    }

    fn expand(&self, pattern: &Path) -> Vec<PathBuf> {
        if pattern == Path::new("/start/*") { vec!["/start/self".into()] } else { Vec::new() }
    }

    fn resolve_dir(&self, path: &Path) -> Result<PathBuf, String> {
        Ok(Path::new("/start").join(path).components().collect())
    }
}

fn load(text: &[u8], args: Vec<Vec<u8>>) -> Result<Config, String> {
    let sources = Sources { file: None, stdin: Some(text.to_vec()), args };
    let is_command = |name: &[u8]| name.eq_ignore_ascii_case(b"get") || name.eq_ignore_ascii_case(b"set");
    Config::from_sources(&sources, &OneFile(text), &is_command).map_err(|error| error.to_string())
}

/// The configuration without what CONFIG REWRITE leaves to the file's own lines.
fn values(config: &Config) -> Config {
    Config { renamed_commands: Vec::new(), ..config.clone() }
}

fn survives_rewriting(text: &[u8], config: &Config) {
    let all = rewrite(b"", config, Append::All);
    assert_eq!(load(&all, Vec::new()).map(|config| values(&config)).as_ref(), Ok(&values(config)));
    let new = rewrite(text, config, Append::Changed);
    if load(text, Vec::new()).is_ok() {
        assert_eq!(load(&new, Vec::new()).map(|config| values(&config)).as_ref(), Ok(&values(config)));
    }
    assert_eq!(rewrite(&new, config, Append::Changed), new);
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|&byte| byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let words: Vec<&[u8]> = parts.take(64).collect();

    let config = load(text, Vec::new()).or_else(|_| load(b"", Vec::new())).expect("nothing is wrong with nothing");
    survives_rewriting(text, &config);
    config.get_matching(&words);

    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let caller = Caller { may_set_protected: true, is_loading: false };
    match config.set_many(&pairs, caller) {
        // The server replaces what was asked for by what it found, an absolute path.
        Ok((changed, _)) if changed.dir == config.dir => survives_rewriting(text, &changed),
        Ok(_) => {}
        Err(error) => assert!(!error.reply().is_empty()),
    }

    if let Ok(config) = load(text, directive_lines(&words)) {
        survives_rewriting(text, &config);
    }
});
