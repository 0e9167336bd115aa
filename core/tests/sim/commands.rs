//! Random commands. Those of `rows.rs` are drawn first, which take strings for lists of words; [`of_type`] makes commands
//! of Redis over values of some type out of them.

use super::cluster::Random;
use super::model::score_of;
use super::request::{awaited, keys_of, timeout_ms, words};
use shardis_core::types::ValueType;
use std::collections::BTreeSet;

/// ZADD of some members.
pub fn zadd(key: &str, members: &[String]) -> Vec<String> {
    let pairs = members.iter().flat_map(|member| [score_of(member).to_string(), member.clone()]);
    ["ZADD".to_string(), key.to_string()].into_iter().chain(pairs).collect()
}

/// XADD of an entry whose ID and value tell a number.
pub fn xadd(key: &str, number: u32) -> Vec<String> {
    ["XADD", key, &format!("{number}-0"), "f", &format!("v{number}")].map(str::to_string).to_vec()
}

/// The command over values of a type that is like one over strings of words; often also such a value in place of a
/// string. `unique`: the number of the last value. A program may not call all of those (`is_in_program`).
pub fn of_type(
    value_type: ValueType,
    random: &mut Random,
    unique: u32,
    command: Vec<String>,
    is_in_program: bool,
) -> Vec<String> {
    if matches!(command[0].as_str(), "TPROGRAM" | "TMADE" | "TWIDE") {
        let mut parts = command.split(|word| word == "/");
        let mut mapped = parts.next().expect("a command has words").to_vec();
        for call in parts {
            mapped.push("/".to_string());
            mapped.extend(of_type(value_type, random, unique, call.to_vec(), true));
        }
        return mapped;
    }
    match value_type {
        ValueType::String => command,
        ValueType::List => over_lists(random, command, is_in_program),
        ValueType::ZSet => over_zsets(random, command, is_in_program),
        ValueType::Set => over_sets(random, command, is_in_program),
        ValueType::Hash => over_hashes(random, command, is_in_program),
        ValueType::Stream => over_streams(random, unique, &command, is_in_program).unwrap_or(command),
        ValueType::Module(_) => unreachable!("no command here makes values of modules"),
    }
}

fn over_zsets(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "SET" if is_often => zadd(&command[1], &command[2..]),
        "GET" if is_often => words("ZRANGE", &command[1..], &["0", "-1"]),
        "TPUSH" => zadd(&command[1], &command[2..]),
        "TTAKE" => words("ZPOPMIN", &command[1..], &[]),
        "TJOIN" => {
            let args = [command[3].clone(), "2".to_string(), command[1].clone(), command[2].clone()];
            words("ZUNIONSTORE", &args, &["AGGREGATE", "MAX"])
        }
        "BTAKE" | "BMOVE" if is_often || is_in_program => {
            words("BZMPOP", &many_keys(&command), &["MIN", "COUNT", "2"])
        }
        "BTAKE" | "BMOVE" => words("BZPOPMIN", awaited(&command), &[timeout(&command)]),
        _ => command,
    }
}

fn over_lists(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "SET" if is_often => words("RPUSH", &command[1..], &[]),
        "GET" if is_often => words("LRANGE", &command[1..], &["0", "-1"]),
        "TPUSH" => words("RPUSH", &command[1..], &[]),
        "TTAKE" => words("LPOP", &command[1..], &[]),
        "TJOIN" => words("LMOVE", &[command[1].clone(), command[3].clone()], &["LEFT", "RIGHT"]),
        "BTAKE" if is_often || is_in_program => {
            words("BLMPOP", &many_keys(&command), &["LEFT", "COUNT", "2"])
        }
        "BTAKE" => words("BLPOP", &command[1..], &[]),
        "BMOVE" => {
            let pair = [command[1].clone(), command[command.len() - 2].clone()];
            match is_in_program {
                true => words("LMOVE", &pair, &["LEFT", "RIGHT"]),
                false => words("BLMOVE", &pair, &["LEFT", "RIGHT", timeout(&command)]),
            }
        }
        _ => command,
    }
}

/// Sets of few members; clients block on lists.
fn over_sets(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let member = |random: &mut Random| format!("m{}", random.below(4));
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "SET" if is_often => words("SADD", &command[1..2], &[&member(random)]),
        "GET" if is_often => words("SMEMBERS", &command[1..], &[]),
        "TPUSH" if is_often => words("SADD", &command[1..2], &[&member(random), &member(random)]),
        "TTAKE" => words("SREM", &command[1..2], &[&member(random), &member(random)]),
        "TJOIN" => match random.below(5) {
            0 => words("SMOVE", &command[1..3], &[&member(random)]),
            1 => words("SINTER", &command[1..3], &[]),
            how => {
                let name = ["SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE"][how - 2];
                words(name, &command[3..], &[&command[1], &command[2]])
            }
        },
        _ => over_lists(random, command, is_in_program),
    }
}

/// Hashes of few fields; clients block on lists.
fn over_hashes(random: &mut Random, command: Vec<String>, is_in_program: bool) -> Vec<String> {
    let field = |random: &mut Random| format!("f{}", random.below(4));
    let is_often = random.below(2) == 0;
    match command[0].as_str() {
        "SET" if is_often => words("HSET", &command[1..2], &[&field(random), &command[2]]),
        "GET" if is_often => words("HGETALL", &command[1..], &[]),
        "TPUSH" if is_often => {
            let value = &command[2];
            words("HSET", &command[1..2], &[&field(random), value, &field(random), value])
        }
        "TTAKE" => words("HDEL", &command[1..2], &[&field(random), &field(random)]),
        "TJOIN" if is_often => words("HINCRBY", &command[1..2], &["n", "2"]),
        "TJOIN" => words("HSETNX", &command[1..2], &[&field(random), &command[2]]),
        _ => over_lists(random, command, is_in_program),
    }
}

/// Streams with at most one group `g`, of consumers `c` and `d`. `None`: the command as it is.
fn over_streams(
    random: &mut Random,
    unique: u32,
    command: &[String],
    is_in_program: bool,
) -> Option<Vec<String>> {
    let id = |random: &mut Random| format!("{}-0", unique.saturating_sub(random.below(8) as u32));
    let consumer = |random: &mut Random| ["c", "d"][random.below(2)];
    let is_often = random.below(2) == 0;
    let key = command.get(1..2).unwrap_or_default();
    Some(match command[0].as_str() {
        "SET" if is_often => xadd(&key[0], unique),
        "GET" if is_often => match random.below(2) {
            0 => words("XRANGE", key, &["-", "+"]),
            _ => words("XPENDING", key, &["g"]),
        },
        "TPUSH" if is_often => create_group(&key[0]),
        "TPUSH" => xadd(&key[0], unique),
        "TTAKE" => match random.below(4) {
            0 => words("XACK", key, &["g", &id(random)]),
            1 => words("XDEL", key, &[&id(random)]),
            2 => words("XAUTOCLAIM", key, &["g", consumer(random), "0", "0"]),
            _ => read_group(consumer(random), &[], key),
        },
        "TJOIN" => match random.below(6) {
            0 => vec!["XGROUP".into(), "DESTROY".into(), key[0].clone(), "g".into()],
            1..3 => read_group(consumer(random), &[], &command[1..3]),
            _ => create_group(&key[0]),
        },
        "BTAKE" | "BMOVE" => {
            let keys = if random.below(2) == 0 { key } else { awaited(command) };
            let timeout_ms = timeout_ms(command).to_string();
            // A program may not give BLOCK.
            let block = if is_in_program { Vec::new() } else { vec!["BLOCK", timeout_ms.as_str()] };
            match is_often {
                true => read_group(consumer(random), &block, keys),
                false => {
                    let ids: Vec<String> = keys.iter().map(|_| id(random)).collect();
                    let head = ["COUNT", "2"].into_iter().chain(block).chain(["STREAMS"]);
                    let head: Vec<String> = head.map(str::to_string).collect();
                    words("XREAD", &[&head[..], keys, &ids].concat(), &[])
                }
            }
        }
        _ => return None,
    })
}

/// XGROUP CREATE of the group, for all entries.
pub fn create_group(key: &str) -> Vec<String> {
    ["XGROUP", "CREATE", key, "g", "0", "MKSTREAM"].map(str::to_string).to_vec()
}

/// `block`: BLOCK and its argument, or nothing.
fn read_group(consumer: &str, block: &[&str], keys: &[String]) -> Vec<String> {
    let head = ["GROUP", "g", consumer, "COUNT", "1"].into_iter();
    let head: Vec<String> =
        head.chain(block.iter().copied()).chain(["STREAMS"]).map(str::to_string).collect();
    words("XREADGROUP", &[&head[..], keys].concat(), &vec![">"; keys.len()])
}

/// The timeout of BTAKE or BMOVE, in seconds.
fn timeout(command: &[String]) -> &str {
    &command[command.len() - 1]
}

/// What BTAKE or BMOVE waits for, as arguments of BLMPOP and BZMPOP.
fn many_keys(command: &[String]) -> Vec<String> {
    let keys = awaited(command);
    [&[timeout(command).to_string(), keys.len().to_string()], keys].concat()
}

/// How many databases are used.
pub const DB_COUNT: usize = 2;

pub const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A random command of Redis. `unique` numbers the values, so that each value identifies the command that wrote it.
fn plain_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    let value = format!("v{unique}");
    match random.below(16) {
        0..=2 => vec!["GET".into(), first],
        3..=5 => vec!["SET".into(), first, value],
        6..=7 => vec!["MGET".into(), first, second, third],
        8..=9 => vec!["MSET".into(), first, value.clone(), second, value],
        10 => vec!["MSETNX".into(), first, value.clone(), second, value],
        11 => vec!["DEL".into(), first, second],
        12 => vec!["EXISTS".into(), first, second, third],
        13 if first != second => vec!["RENAME".into(), first, second],
        14 if first != second => vec!["COPY".into(), first, second],
        13 | 14 => vec!["GET".into(), first],
        _ => match random.below(6) {
            0 => vec!["FLUSHALL".into()],
            _ => vec!["DBSIZE".into()],
        },
    }
}

/// A random command over few keys, many of them blocking.
pub fn crowd_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let timeout = ["0", "0", "0.005", "0.02"][random.below(4)].to_string();
    let mut key = || KEYS[random.below(3)].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    match random.below(20) {
        0..=3 => vec!["BTAKE".into(), first, timeout],
        4..=6 => vec!["BTAKE".into(), first, second, timeout],
        7 => vec!["BMOVE".into(), first, second, timeout],
        8..=11 => vec!["BMOVE".into(), first, second, third, timeout],
        12..=13 => vec!["TPUSH".into(), first, format!("v{unique}")],
        14..=15 => vec!["TPUSH".into(), first, format!("v{unique}a"), format!("v{unique}b")],
        16..=17 if first != second => vec!["RENAME".into(), first, second],
        18 => vec!["MSET".into(), first, format!("v{unique}"), second, format!("v{unique}")],
        _ => vec!["TTAKE".into(), first],
    }
}

/// A random command, blocking or not.
pub fn random_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    if random.below(7) < 4 {
        return plain_command(random, unique);
    }
    let timeout = ["0", "0", "0.005", "0.02", "0.1"][random.below(5)].to_string();
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second, third) = (key(), key(), key());
    *unique += 1;
    match random.below(12) {
        0..=3 => vec!["TPUSH".into(), first, format!("v{unique}a"), format!("v{unique}b")],
        4 => vec!["TTAKE".into(), first],
        5 => vec!["TJOIN".into(), first, second, third],
        6..=7 => vec!["BTAKE".into(), first, timeout],
        8..=9 => vec!["BTAKE".into(), first, second, third, timeout],
        10 => vec!["BMOVE".into(), first, second, timeout],
        _ => vec!["BMOVE".into(), first, second, third, timeout],
    }
}

/// A random TWIDE, which calls other commands. It declares some key or none.
fn wide_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut command = vec!["TWIDE".to_string(), random.below(2).to_string()];
    if command[1] == "1" {
        command.push(KEYS[random.below(KEYS.len())].to_string());
    }
    for _ in 0..1 + random.below(4) {
        let call = match random.below(6) {
            0 => WHOLE_CALLS[random.below(WHOLE_CALLS.len())].split(' ').map(str::to_string).collect(),
            _ => random_command(random, unique),
        };
        command.extend(std::iter::once("/".to_string()).chain(call));
    }
    command
}

/// Commands about the whole keyspace whose replies programs pass on as the model has them.
const WHOLE_CALLS: [&str; 4] = ["FLUSHDB", "SWAPDB 0 1", "DBSIZE", "FLUSHALL"];

/// A random program, which calls other commands: TPROGRAM, TMADE or TWIDE.
pub fn program_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    if random.below(2) == 0 {
        return wide_command(random, unique);
    }
    let mut calls = Vec::new();
    let mut keys = BTreeSet::new();
    for _ in 0..1 + random.below(3) {
        let call = random_command(random, unique);
        // A program must not call commands about the whole keyspace.
        if let Some(of_call) = keys_of(0, &call) {
            keys.extend(of_call.into_iter().map(|(_, key)| key));
            calls.extend(std::iter::once("/".to_string()).chain(call));
        }
    }
    if calls.is_empty() {
        return vec!["GET".to_string(), KEYS[0].to_string()];
    }
    let head = if *unique % 2 == 0 {
        let declared = keys.len() / 2;
        vec!["TMADE".to_string(), (keys.len() - declared).to_string(), declared.to_string()]
    } else {
        vec!["TPROGRAM".to_string(), keys.len().to_string()]
    };
    head.into_iter().chain(keys).chain(calls).collect()
}

/// A random TWIDE that calls a command of the module.
fn script_over_module(random: &mut Random, unique: &mut u32) -> Vec<String> {
    let mut command = wide_command(random, unique);
    command.push("/".to_string());
    command.extend(module_steps(random, unique, false));
    command
}

/// A random command of the module, or a program that calls one.
pub fn module_command(random: &mut Random, unique: &mut u32) -> Vec<String> {
    match random.below(4) {
        0 => script_over_module(random, unique),
        _ => module_steps(random, unique, true),
    }
}

/// A random command of the module, over keys that it mostly does not declare.
fn module_steps(random: &mut Random, unique: &mut u32, calls_scripts: bool) -> Vec<String> {
    let key = |random: &mut Random| KEYS[random.below(KEYS.len())].to_string();
    let mut command = match random.below(2) {
        0 => vec!["MCALL".to_string()],
        _ => vec!["MCALLKEY".to_string(), key(random)],
    };
    for _ in 0..1 + random.below(6) {
        let step = match random.below(12) {
            0 => WHOLE_CALLS[random.below(WHOLE_CALLS.len())].split(' ').map(str::to_string).collect(),
            1..=3 => vec!["YIELD".to_string()],
            4 => vec!["KEEP".to_string(), key(random)],
            5 if calls_scripts => wide_command(random, unique),
            6..=9 => open_key(random, unique),
            _ => random_command(random, unique),
        };
        command.push(";".to_string());
        command.extend(step);
    }
    command
}

/// A step of the module's in which it opens a key.
fn open_key(random: &mut Random, unique: &mut u32) -> Vec<String> {
    // Few, so that others come to them as well.
    let key = KEYS[random.below(3)].to_string();
    *unique += 1;
    match random.below(6) {
        0 | 1 => words("OPEN", &["GET".to_string(), key], &[]),
        2 | 3 => words("OPEN", &["SET".to_string(), key], &[&format!("v{unique}")]),
        4 => words("OPEN", &["DEL".to_string(), key], &[]),
        _ => words("OPEN", &["EXISTS".to_string(), key], &[]),
    }
}

/// The program with pauses between its calls, in which it computes for so long that it may be over busy-reply-threshold.
pub fn with_pauses(random: &mut Random, program: Vec<String>) -> Vec<String> {
    let mut words = Vec::new();
    for word in program {
        if word == "/" && random.below(2) == 0 {
            let ms = 1 + random.below(6);
            words.extend(["/".to_string(), "SPIN".to_string(), ms.to_string()]);
        }
        words.push(word);
    }
    words
}

/// A random command about the whole keyspace or another database, or a session command about a key. Some of them create
/// keys in databases where clients are blocked.
pub fn whole_command(random: &mut Random) -> Vec<String> {
    let db = random.below(DB_COUNT).to_string();
    let mut key = || KEYS[random.below(KEYS.len())].to_string();
    let (first, second) = (key(), key());
    let command = match random.below(14) {
        0 => "FLUSHALL",
        1 => "FLUSHDB",
        2 | 3 => "SWAPDB 0 1",
        4 => "DBSIZE",
        5 => "KEYS *",
        6 => "RANDOMKEY",
        7 => "SCAN 0 COUNT 100",
        8 | 9 => &format!("DEBUG OBJECT {first}"),
        10 => &format!("COPY {first} {second} DB {db}"),
        11 => &format!("MOVE {first} {db}"),
        _ => &format!("SELECT {db}"),
    };
    command.split(' ').map(str::to_string).collect()
}
