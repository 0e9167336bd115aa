//! A module in C that is compiled against the official `redismodule.h` and knows nothing of this server: `official.c`. The header
//! is that of the official suite, as the conformance command has fetched it, or below `REDIS_SRC`.

use super::{KEYS, compiled_with, expect};
use crate::harness::{Connection, SETUPS, Server, free_port, leave_out};
use crate::rdb::Dir;
use std::path::{Path, PathBuf};

/// The library. `None`: there is no header; says so.
fn library(name: &str) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/cache/redis-7.0.15");
    let roots = std::env::var_os("REDIS_SRC").map(PathBuf::from).into_iter().chain([fetched]);
    let mut dirs = roots.map(|root| root.join("src"));
    let Some(dir) = dirs.find(|dir| dir.join("redismodule.h").is_file()) else {
        leave_out("no redismodule.h (cargo conformance fetches it; or set REDIS_SRC)");
        return None;
    };
    Some(compiled_with("official", name, &["-I", dir.to_str().expect("a path in UTF-8")]))
}

fn counter(sum: i64, adds: i64) -> String {
    format!("*2\r\n:{sum}\r\n:{adds}\r\n")
}

#[test]
fn values_of_a_module_against_the_official_header_are_copied_moved_and_reloaded() {
    let Some(path) = library("values") else { return };
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("official-values");
        let options =
            ["--loadmodule", path, "--enable-debug-command", "yes", "--dir", dir.path(), "--save", ""];
        let server = Server::start_with(setup, &options);
        let mut client = server.connect();
        let [a, b, c] = KEYS;
        expect(&mut client, &["OFFICIAL.ADD", a, "40"], ":40\r\n");
        expect(&mut client, &["OFFICIAL.ADD", a, "2"], ":42\r\n");
        expect(&mut client, &["OFFICIAL.ADD", a, "x"], "-ERR it is no number\r\n");
        assert!(client.call(&["OFFICIAL.ADD", a]).starts_with("-ERR wrong number"));
        expect(&mut client, &["TYPE", a], "+official1\r\n");
        expect(&mut client, &["SET", c, "x"], "+OK\r\n");
        assert!(client.call(&["OFFICIAL.ADD", c, "1"]).starts_with("-WRONGTYPE"));
        assert!(client.call(&["GET", a]).starts_with("-WRONGTYPE"));
        expect(&mut client, &["COPY", a, b], ":1\r\n");
        expect(&mut client, &["OFFICIAL.ADD", b, "100"], ":142\r\n");
        expect(&mut client, &["RENAME", b, c], "+OK\r\n");
        expect(&mut client, &["OFFICIAL.GET", a, b, c], &counter(184, 5));
        expect(&mut client, &["OFFICIAL.MOVE", c, b], "+OK\r\n");
        expect(&mut client, &["OFFICIAL.MOVE", c, b], "$-1\r\n");
        expect(&mut client, &["OFFICIAL.GET", b], &counter(142, 3));
        client.request(&[b"DUMP", b.as_bytes()]);
        let dump = client.reply();
        let start = dump.iter().position(|&byte| byte == b'\n').expect("it is bulk") + 1;
        client.request(&[b"RESTORE", c.as_bytes(), b"0", &dump[start..dump.len() - 2]]);
        assert_eq!(client.reply(), b"+OK\r\n");
        let digest = client.call(&["DEBUG", "DIGEST-VALUE", b]);
        expect(&mut client, &["DEBUG", "DIGEST-VALUE", c], &digest);
        assert!(client.call(&["MEMORY", "USAGE", a]).starts_with(':'));
        expect(&mut client, &["DEBUG", "RELOAD"], "+OK\r\n");
        expect(&mut client, &["OFFICIAL.GET", a, b, c], &counter(326, 8));
        expect(&mut client, &["EVAL", "return redis.call('official.get', ARGV[1])", "0", a], &counter(42, 2));
    }
}

#[test]
fn values_of_a_module_against_the_official_header_survive_load_and_a_restart() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 150;
    let Some(path) = library("load") else { return };
    let path = path.to_str().expect("a path in UTF-8");
    for setup in SETUPS {
        let dir = Dir::new("official-load");
        let options = ["--loadmodule", path, "--dir", dir.path(), "--save", ""];
        let server = Server::start_with(setup, &options);
        let play = |number: usize, client: &mut Connection| {
            let own = [0, 1, 2].map(|at| format!("{number}:{at}"));
            for round in 0..ROUNDS {
                let (from, to) = (&own[round % 3], &own[(round + 1) % 3]);
                let sum = client.call(&["OFFICIAL.ADD", from, "2"]);
                assert_eq!(sum, format!(":{}\r\n", 2 * (round + 1)), "nothing is lost on its way");
                // From shard to shard, by the module and by the server.
                match round % 3 {
                    0 => expect(client, &["OFFICIAL.MOVE", from, to], "+OK\r\n"),
                    1 => expect(client, &["RENAME", from, to], "+OK\r\n"),
                    _ => {
                        expect(client, &["COPY", from, to, "REPLACE"], ":1\r\n");
                        expect(client, &["DEL", from], ":1\r\n");
                    }
                }
                client.call(&["OFFICIAL.GET", "0:0", "1:1", "2:2", "3:0"]);
            }
        };
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (server, play) = (&server, &play);
                scope.spawn(move || play(number, &mut server.connect()));
            }
        });
        let mut client = server.connect();
        expect(&mut client, &["DBSIZE"], &format!(":{CLIENTS}\r\n"));
        expect(&mut client, &["SAVE"], "+OK\r\n");
        drop(server);

        let mut server = Server::spawn(setup, free_port(), &options);
        server.wait_for_line("Ready to accept connections");
        let mut client = server.connect();
        for number in 0..CLIENTS {
            let rounds = ROUNDS as i64;
            expect(
                &mut client,
                &["OFFICIAL.GET", &format!("{number}:{}", ROUNDS % 3)],
                &counter(2 * rounds, rounds),
            );
        }
    }
}
