//! Scripts in the shapes that applications use.

use super::*;

const NARROW: [&str; 10] = [
    // A window of fixed length.
    r#"
    local current = redis.call("INCR", KEYS[1])
    if tonumber(current) == 1 then
        redis.call("EXPIRE", KEYS[1], ARGV[1])
    end
    return current
    "#,
    // A sliding window over a log of requests.
    r#"
    local key, now, window, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
    local used = redis.call('ZCARD', key)
    if used >= limit then
        local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
        return { 0, tostring(oldest[2] + window - now) }
    end
    redis.call('ZADD', key, now, now .. '-' .. redis.call('INCR', KEYS[2]))
    redis.call('PEXPIRE', key, window); redis.call('PEXPIRE', KEYS[2], window)
    return { 1, limit - used - 1 }
    "#,
    // A token bucket.
    r#"
    local tokens_key = KEYS[1]
    local timestamp_key = KEYS[2]
    local rate, capacity, now, requested = unpack(ARGV)
    local fill_time = capacity / rate
    local ttl = math.floor(fill_time * 2)
    local last_tokens = tonumber(redis.call("get", tokens_key)) or tonumber(capacity)
    local last_refreshed = tonumber(redis.call("get", timestamp_key)) or 0
    local delta = math.max(0, now - last_refreshed)
    local filled = math.min(capacity, last_tokens + (delta * rate))
    local allowed = filled >= tonumber(requested)
    if allowed then filled = filled - requested end
    redis.call("set", tokens_key, filled, "EX", ttl)
    redis.call("set", timestamp_key, now, "EX", ttl)
    return { allowed and 1 or 0, filled }
    "#,
    // The release of a lock, and the extension of one over several keys.
    r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#,
    r#"
    for i, key in ipairs(KEYS) do
      if redis.call("get", key) ~= ARGV[1] then return 0 end
    end
    for i, key in ipairs(KEYS) do redis.call("pexpire", key, ARGV[2]) end
    return #KEYS
    "#,
    // What is due leaves a sorted set.
    r#"
    local key, now = KEYS[1], ARGV[1]
    local jobs = redis.call("zrangebyscore", key, "-inf", now, "limit", 0, 1)
    if jobs[1] then
      redis.call("zrem", key, jobs[1])
      return jobs[1]
    end
    "#,
    // A leaderboard's neighbours.
    r#"
    local board = KEYS[1]
    local rank = redis.call('ZREVRANK', board, ARGV[1])
    if not rank then return {} end
    local from = math.max(0, rank - ARGV[2])
    local found = redis.call('ZREVRANGE', board, from, rank + ARGV[2], 'WITHSCORES')
    local reply = {}
    for i = 1, #found, 2 do reply[#reply + 1] = cjson.encode({ rank = from + (i - 1) / 2, name = found[i] }) end
    return reply
    "#,
    // A reservation over several keys: all or nothing.
    r#"
    local function stock(key) return tonumber(redis.call('HGET', key, 'stock') or '0') end
    for i = 1, #KEYS do
      if stock(KEYS[i]) < tonumber(ARGV[i]) then
        return redis.error_reply('SOLDOUT ' .. KEYS[i])
      end
    end
    for i = 1, #KEYS do redis.call('HINCRBY', KEYS[i], 'stock', -ARGV[i]) end
    return redis.status_reply('RESERVED')
    "#,
    // A queue that moves jobs to a list of those in work.
    r#"
    local pending, active = KEYS[1], KEYS[2]
    local job = redis.call('RPOPLPUSH', pending, active)
    if job == false then return false end
    local ok, data = pcall(cjson.decode, job)
    if not ok or type(data) ~= 'table' then
      redis.log(redis.LOG_WARNING, 'not a job: ' .. job)
      redis.call('LREM', active, 1, job)
      return redis.error_reply('BADJOB')
    end
    redis.call('HSET', KEYS[3], data.id, ARGV[1])
    return job
    "#,
    // A helper in a table, which is given everything it needs.
    r#"
    local util = {}
    function util.clamp(n, low, high) return math.min(math.max(n, low), high) end
    function util:parse(text) return cjson.decode(text) end
    local value = util:parse(redis.call('GET', KEYS[1]) or '{"n":0}')
    value.n = util.clamp(value.n + ARGV[1], 0, 100)
    redis.call('SET', KEYS[1], cjson.encode(value))
    return value.n
    "#,
];

const WIDE: [(&str, &str); 7] = [
    // A queue that derives its keys from a prefix.
    (
        r#"
        local prefix = ARGV[1]
        local id = redis.call('INCR', prefix .. ':id')
        redis.call('HSET', prefix .. ':' .. id, 'data', ARGV[2])
        redis.call('LPUSH', prefix .. ':wait', id)
        return id
        "#,
        "line 4: HSET has a key",
    ),
    // Its helpers get keys in a table.
    (
        r#"
        local keys = { wait = KEYS[1], active = KEYS[2] }
        return redis.call('RPOPLPUSH', keys.wait, keys.active)
        "#,
        "RPOPLPUSH has a key",
    ),
    // Jobs whose keys stand in other keys.
    (
        r#"
        local rcall = redis.call
        local jobs = rcall('LRANGE', KEYS[1], 0, -1)
        for _, id in ipairs(jobs) do rcall('DEL', ARGV[1] .. id) end
        return #jobs
        "#,
        "line 4: DEL has a key",
    ),
    // A lock with a list of who waits for it.
    (
        r#"
        if redis.call('GET', KEYS[1]) == ARGV[1] then
          redis.call('DEL', KEYS[1])
          redis.call('RPUSH', KEYS[1] .. ':wake', 1)
        end
        "#,
        "makes KEYS[1]..:wake",
    ),
    // Deletion by pattern.
    (
        r#"
        local cursor, count = '0', 0
        repeat
          local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1])
          cursor = page[1]
          for _, key in ipairs(page[2]) do count = count + redis.call('DEL', key) end
        until cursor == '0'
        return count
        "#,
        "line 4: SCAN may touch any key",
    ),
    // A wrapper of redis.call.
    (
        r#"
        local function call(...) return redis.call(...) end
        return call('GET', KEYS[1])
        "#,
        "line 2: the name of a command is computed",
    ),
    // A transaction described by JSON.
    (
        r#"
        for _, step in ipairs(cjson.decode(ARGV[1])) do
          redis.call(step.cmd, unpack(step.args))
        end
        "#,
        "line 3: the name of a command is computed",
    ),
];

#[test]
fn scripts_that_declare_their_keys_are_narrow() {
    assert_narrow(&NARROW);
}

#[test]
fn scripts_that_derive_keys_are_wide_and_told_where() {
    assert_wide(&WIDE);
}
