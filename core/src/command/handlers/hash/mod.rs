//! Commands over hashes.

mod number;
mod random;
mod read;
mod write;

use crate::command::Ctx;
use crate::command::keys::{KeySpec, key_flag};
use crate::command::table::Command;
use crate::types::hash::HashLimits;

pub const COMMANDS: &[Command] = &[
    number::HINCRBY,
    number::HINCRBYFLOAT,
    random::HRANDFIELD,
    random::HSCAN,
    read::HEXISTS,
    read::HGET,
    read::HGETALL,
    read::HKEYS,
    read::HLEN,
    read::HMGET,
    read::HSTRLEN,
    read::HVALS,
    write::HDEL,
    write::HMSET,
    write::HSET,
    write::HSETNX,
];

/// The key of commands that return fields or values.
const READ_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)];
/// The key of commands that return something about the hash.
const LOOKED_AT_KEY: &[KeySpec] = &[KeySpec::one(1, key_flag::RO)];

fn limits(ctx: &Ctx<'_>) -> HashLimits {
    let config = &ctx.shard.config;
    HashLimits {
        len: config.hash_max_listpack_entries as usize,
        string_len_bytes: config.hash_max_listpack_value_bytes as usize,
    }
}
