//! Scripts as applications have them, over a server of four shards, by a client library, from many threads. None of them
//! uses hash tags, and most derive keys that they do not declare.

use crate::harness::{Server, Setup};
use redis::{Connection, FromRedisValue, RedisResult, ToRedisArgs, cmd};
use std::thread;

pub const FOUR_SHARDS: Setup = Setup { shards: 4, io_backend: "auto" };

/// No arguments.
pub const NONE: [&str; 0] = [];

pub fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).expect("an address");
    client.get_connection().expect("a connection")
}

/// Runs a script as client libraries do: by its SHA-1, and by its source if the server does not know it.
pub fn try_script<T: FromRedisValue>(
    connection: &mut Connection,
    source: &str,
    keys: &[&str],
    args: impl ToRedisArgs,
) -> RedisResult<T> {
    let mut evalsha = cmd("EVALSHA");
    evalsha.arg(sha1_smol::Sha1::from(source).digest().to_string()).arg(keys.len()).arg(keys).arg(&args);
    match evalsha.query(connection) {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            cmd("EVAL").arg(source).arg(keys.len()).arg(keys).arg(&args).query(connection)
        }
        result => result,
    }
}

#[track_caller]
pub fn script<T: FromRedisValue>(
    connection: &mut Connection,
    source: &str,
    keys: &[&str],
    args: impl ToRedisArgs,
) -> T {
    try_script(connection, source, keys, args).expect("the script runs")
}

/// Runs `client` on as many threads, each with its number and a connection of its own.
pub fn crowd<T: Send>(
    server: &Server,
    count: usize,
    client: impl Fn(usize, &mut Connection) -> T + Sync,
) -> Vec<T> {
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> =
            (0..count).map(|at| scope.spawn(move || client(at, &mut connect(server)))).collect();
        clients.into_iter().map(|client| client.join().expect("the client ends")).collect()
    })
}

pub fn keys(connection: &mut Connection, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = cmd("KEYS").arg(pattern).query(connection).expect("KEYS");
    keys.sort();
    keys
}
