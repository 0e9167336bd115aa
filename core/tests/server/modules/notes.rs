//! A module with a data type that is written with the crate `redis-module`, which knows nothing of this server:
//! `notes/`.

use super::{KEYS, expect};
use crate::harness::{Connection, SETUPS, Server, free_port, leave_out};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where libclang is, which the crate needs to be built: Debian's places.
const CLANG_DIRS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

fn has_libclang() -> bool {
    let is_it = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libclang-"))
    };
    std::env::var_os("LIBCLANG_PATH").is_some()
        || CLANG_DIRS.iter().any(|dir| std::fs::read_dir(dir).is_ok_and(|mut all| all.any(is_it)))
}

/// The library, built once. `None`: what it is built with is not here; says so.
fn library() -> Option<&'static str> {
    static BUILT: OnceLock<Option<String>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

fn build() -> Option<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/modules/notes/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notes");
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).arg("--locked").arg("--manifest-path").arg(&manifest);
        // The crate's directory names a toolchain, which rustup's rustc would take.
        let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
        if rustc.exists() {
            command.env("RUSTC", rustc);
        }
        // What cargo says to this test is not for another crate.
        command
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", &target);
        command.status().expect("cargo runs").success()
    };
    if !has_libclang() {
        leave_out("no libclang (apt-get install libclang-dev)");
        return None;
    }
    if !cargo(&["fetch", "--quiet"]) {
        leave_out("the crate redis-module cannot be fetched");
        return None;
    }
    assert!(cargo(&["build", "--release", "--quiet"]), "the module is built");
    let library: PathBuf = target.join("release/libnotes_module.so");
    Some(library.to_str().expect("a path in UTF-8").to_string())
}

#[test]
fn values_of_a_module_in_rust_are_dumped_copied_moved_and_reloaded() {
    let Some(path) = library() else { return };
    let dir = std::env::temp_dir().join(format!("shardis-notes-reload-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    for setup in SETUPS {
        let dir = dir.to_str().expect("a path in UTF-8");
        let options = ["--loadmodule", path, "--enable-debug-command", "yes", "--dir", dir, "--save", ""];
        let server = Server::start_with(setup, &options);
        server.connect().call(&["FLUSHALL"]);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        let two = "*2\r\n$3\r\none\r\n$3\r\ntwo\r\n";
        expect(&mut client, &["NOTES.ADD", a, "one"], ":1\r\n");
        expect(&mut client, &["NOTES.ADD", a, "two"], ":2\r\n");
        assert!(client.call(&["NOTES.ADD", a]).starts_with("-ERR wrong number"));
        expect(&mut client, &["TYPE", a], "+notes-tst\r\n");
        expect(&mut client, &["SET", c, "x"], "+OK\r\n");
        assert!(client.call(&["NOTES.GET", c]).contains("wrong"));
        expect(&mut client, &["DEL", c], ":1\r\n");
        expect(&mut client, &["COPY", a, b], ":1\r\n");
        expect(&mut client, &["NOTES.ADD", b, "more"], ":3\r\n");
        expect(&mut client, &["NOTES.MOVE", a, c], "+OK\r\n");
        expect(&mut client, &["NOTES.GET", c], two);
        client.request(&[b"DUMP", c.as_bytes()]);
        let dump = client.reply();
        let start = dump.iter().position(|&byte| byte == b'\n').expect("it is bulk") + 1;
        client.request(&[b"RESTORE", a.as_bytes(), b"0", &dump[start..dump.len() - 2]]);
        assert_eq!(client.reply(), b"+OK\r\n");
        expect(&mut client, &["NOTES.GET", a], two);
        expect(&mut client, &["DEBUG", "RELOAD"], "+OK\r\n");
        expect(&mut client, &["NOTES.GET", a], two);
        expect(&mut client, &["EVAL", "return redis.call('notes.get', ARGV[1])", "0", c], two);
        assert!(client.call(&["MEMORY", "USAGE", a]).starts_with(':'));
    }
    std::fs::remove_dir_all(dir).expect("it can be removed");
}

#[test]
fn values_of_a_module_in_rust_survive_load_and_a_restart() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 150;
    let Some(path) = library() else { return };
    let dir = std::env::temp_dir().join(format!("shardis-notes-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    let options = ["--loadmodule", path, "--dir", dir.to_str().expect("a path in UTF-8"), "--save", ""];
    for setup in SETUPS {
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        client.call(&["FLUSHALL"]);
        let play = |number: usize, client: &mut Connection| {
            let own = [0, 1, 2].map(|at| format!("{number}:{at}"));
            for round in 0..ROUNDS {
                let (from, to) = (&own[round % 3], &own[(round + 1) % 3]);
                let line = format!("note {round}");
                let len = client.call(&["NOTES.ADD", from, &line]);
                assert_eq!(len, format!(":{}\r\n", round + 1), "nothing is lost on its way");
                // From shard to shard, by the module and by the server.
                match round % 2 {
                    0 => expect(client, &["NOTES.MOVE", from, to], "+OK\r\n"),
                    _ => {
                        expect(client, &["COPY", from, to, "REPLACE"], ":1\r\n");
                        expect(client, &["DEL", from], ":1\r\n");
                    }
                }
                client.call(&["NOTES.GET", "0:0", "1:1", "2:2", "3:0"]);
            }
        };
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (server, play) = (&server, &play);
                scope.spawn(move || play(number, &mut server.connect()));
            }
        });
        expect(&mut client, &["DBSIZE"], &format!(":{CLIENTS}\r\n"));
        expect(&mut client, &["SAVE"], "+OK\r\n");
        drop(server);

        let mut server = Server::spawn(setup, free_port(), &options);
        server.wait_for_line("Ready to accept connections");
        let mut client = server.connect();
        for number in 0..CLIENTS {
            let key = format!("{number}:{}", ROUNDS % 3);
            let notes = client.call(&["NOTES.GET", &key]);
            assert!(notes.starts_with(&format!("*{ROUNDS}\r\n$6\r\nnote 0\r\n")), "{setup:?}: {notes}");
        }
    }
    std::fs::remove_dir_all(dir).expect("it can be removed");
}
