//! What is followed and what is not, and scripts that try to be called narrow wrongly.

mod shapes;

use super::template::Piece;
use super::*;

/// Some commands of Redis.
struct Table;

fn range(first: usize, last: isize, step: usize) -> KeyGroup {
    KeyGroup { begin: Begin::Index(first), find: Find::Range { last, step, limit: 0 } }
}

fn counted(first: usize) -> KeyGroup {
    KeyGroup { begin: Begin::Index(first), find: Find::Count { at: 0, first: 1, step: 1 } }
}

impl Commands for Table {
    fn facts(&self, args: &[Option<&[u8]>], is_complete: bool) -> Option<CallFacts> {
        let name = args[0].expect("the name").to_ascii_lowercase();
        let keys = match name.as_slice() {
            b"get" | b"set" | b"incr" | b"incrby" | b"decrby" | b"expire" | b"pexpire" | b"ttl" | b"pttl"
            | b"type" | b"hget" | b"hset" | b"hmset" | b"hmget" | b"hgetall" | b"hincrby" | b"hdel"
            | b"lpush" | b"rpush" | b"lpop" | b"lrange" | b"lrem" | b"llen" | b"sadd" | b"srem"
            | b"sismember" | b"zadd" | b"zrem" | b"zcard" | b"zscore" | b"zrange" | b"zrangebyscore"
            | b"zremrangebyscore" | b"zrevrank" | b"zrevrange" | b"xadd" | b"publish_to" => {
                vec![range(1, 0, 1)]
            }
            b"del" | b"exists" | b"mget" | b"sinter" => vec![range(1, -1, 1)],
            b"mset" => vec![range(1, -1, 2)],
            b"blpop" => vec![range(1, -2, 1)],
            b"lmove" | b"rpoplpush" | b"rename" => vec![range(1, 1, 1)],
            b"zunionstore" => vec![range(1, 0, 1), counted(2)],
            b"zinter" => vec![counted(1)],
            b"object" => vec![range(2, 0, 1)],
            b"ping" | b"time" | b"publish" => Vec::new(),
            b"sort" if is_complete && args.len() == 2 => vec![range(1, 0, 1)],
            _ => return None,
        };
        let reads: [&[u8]; 21] = [
            b"get",
            b"ttl",
            b"pttl",
            b"type",
            b"hget",
            b"hmget",
            b"hgetall",
            b"lrange",
            b"llen",
            b"sismember",
            b"zcard",
            b"zscore",
            b"zrange",
            b"zrangebyscore",
            b"zrevrank",
            b"exists",
            b"mget",
            b"sinter",
            b"zinter",
            b"ping",
            b"time",
        ];
        let publishes = name == b"publish";
        Some(CallFacts { keys, writes: !reads.contains(&name.as_slice()), publishes })
    }
}

fn analysed(source: &str) -> KeyUse {
    script_key_use(source.as_bytes(), &Table)
}

#[track_caller]
fn assert_narrow(sources: &[&str]) {
    for source in sources {
        assert_eq!(verdict(&analysed(source)), None, "{source}");
    }
}

/// Why it is wide, or which undeclared keys it makes: `makes KEYS[1]..:lock`.
fn verdict(found: &KeyUse) -> Option<String> {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Piece::Key(at) => format!("KEYS[{at}]"),
        Piece::Arg(at) => format!("ARGV[{at}]"),
    };
    let key = |key: &KeyTemplate| key.pieces().iter().map(piece).collect::<Vec<_>>().join("..");
    match &found.wide {
        Some(reason) => Some(reason.to_string()),
        None if found.undeclared.is_empty() => None,
        None => Some(format!("makes {}", found.undeclared.iter().map(key).collect::<Vec<_>>().join(", "))),
    }
}

#[track_caller]
fn assert_wide(sources: &[(&str, &str)]) {
    for (source, expected) in sources {
        let found = verdict(&analysed(source));
        assert!(
            found.as_ref().is_some_and(|found| found.contains(expected)),
            "{source}\n{expected}\n{found:?}"
        );
    }
}

#[test]
fn a_key_is_followed_through_variables() {
    assert_narrow(&[
        "return redis.call('GET', KEYS[1])",
        "return redis.call('get', KEYS[ARGV[1] + 1])",
        "return redis.call('GET', (KEYS)[1])",
        "return (redis).call('GET', KEYS[1])",
        "return redis['call']('GET', KEYS[1])",
        "redis.call('PING') redis.call'PING'",
        "local k = KEYS[1]; return redis.call('GET', k)",
        "local k; if ARGV[1] then k = KEYS[1] else k = KEYS[2] end; return redis.call('GET', k)",
        "local k = ARGV[1] == 'a' and KEYS[1] or KEYS[2]; return redis.call('GET', k)",
        "local k = KEYS[2] or KEYS[1]; return redis.call('GET', k)",
        "local keys = KEYS; return redis.call('GET', keys[1])",
        "local r = redis; local call, pcall_ = r.call, r.pcall; call('DEL', KEYS[1]); pcall_('GET', KEYS[2])",
        "local cmd = 'GET'; return redis.call(cmd, KEYS[1])",
        "local a, b = KEYS[1], KEYS[2]; a, b = b, a; return redis.call('LMOVE', a, b, 'LEFT', 'RIGHT')",
        "local a, b = unpack(KEYS); return redis.call('RENAME', a, b)",
        "local k = KEYS[1]; do local k = 'other' end; return redis.call('GET', k)",
        "local k repeat local k = KEYS[1]; redis.call('DEL', k) until redis.call('GET', k)",
        "while true do local v = redis.call('LPOP', KEYS[1]) if not v then break end end",
    ]);
}

#[test]
fn a_key_is_followed_through_loops_and_functions() {
    assert_narrow(&[
        "for _, k in ipairs(KEYS) do redis.call('DEL', k) end",
        "for i, k in pairs(KEYS) do redis.call('SET', k, ARGV[i]) end",
        "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end",
        "for i = 1, table.getn(KEYS), 2 do local a, b = KEYS[i], KEYS[i + 1]; redis.call('RENAME', a, b) end",
        "return redis.call('MGET', unpack(KEYS))",
        "local unpack = unpack or table.unpack; return redis.call('DEL', unpack(KEYS, 2))",
        "return redis.call('SADD', KEYS[1], unpack(ARGV))",
        "return redis.call('ZINTER', #KEYS, unpack(KEYS))",
        "return redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[2], KEYS[3], 'WEIGHTS', 1, ARGV[1])",
        "return redis.call('ZUNIONSTORE', KEYS[1], #KEYS - 1, unpack(KEYS, 2))",
        "return redis.call('MSET', KEYS[1], ARGV[1], KEYS[2], tostring(2))",
        "local function get(key) return redis.call('GET', key) end; return { get(KEYS[1]), get(KEYS[2]) }",
        "local function key(i) return KEYS[i] end; return redis.call('GET', key(1))",
        "local function both() return KEYS[1], KEYS[2] end; return redis.call('MGET', both())",
        "local f; local function g(n) if n > 0 then return f(n - 1, KEYS[1]) end end
         f = function(n, k) redis.call('INCR', k) return g(n) end; return g(3)",
        "local function each(f) for _, k in ipairs(KEYS) do f(k) end end; each(function(k) redis.call('DEL', k) end)",
        "return pcall(redis.call, 'GET', KEYS[1])",
        "local ok, e = pcall(function() return redis.call('GET', KEYS[1]) end); return ok",
        "local function fail(k) redis.call('DEL', k); error('x') end; return pcall(fail, KEYS[1])",
        "table.sort(ARGV, function(a, b) return redis.call('ZSCORE', KEYS[1], a) < b end)",
        "local t = setmetatable({}, { __index = function(t, k) return redis.call('HGET', KEYS[1], k) end }); return t.x",
    ]);
}

#[test]
fn what_is_no_element_of_keys_is_no_key() {
    assert_wide(&[
        ("return redis.call('GET', 'a')", "makes a"),
        ("\n\nreturn redis.call('GET', ARGV[1])", "makes ARGV[1]"),
        ("return redis.call('GET', KEYS[1] .. ':lock')", "makes KEYS[1]..:lock"),
        ("return redis.call('GET', tostring(KEYS[1]))", "GET has a key"),
        ("return redis.call('GET', KEYS[1] or 'default')", "GET has a key"),
        ("local k = KEYS[1]; k = k .. 'x'; return redis.call('GET', k)", "GET has a key"),
        ("local k = KEYS[1]; redis.call('DEL', k); k = ARGV[1]", "DEL has a key"),
        ("local k = KEYS[1]; local f = function() k = 'x' end; f(); redis.call('DEL', k)", "DEL has a key"),
        ("for _, k in ipairs(KEYS) do k = k .. 'x'; redis.call('DEL', k) end", "DEL has a key"),
        ("for k in pairs(KEYS) do redis.call('DEL', k) end", "DEL has a key"),
        ("for _, k in ipairs(ARGV) do redis.call('DEL', k) end", "DEL has a key"),
        ("for _, k in ipairs(KEYS), ARGV do redis.call('DEL', k) end", "an iterator over KEYS"),
        ("local keys = { KEYS[1] }; return redis.call('GET', keys[1])", "GET has a key"),
        ("local f = function(k) redis.call('DEL', k) end; f(KEYS[1]); f('x')", "DEL has a key"),
        ("local f = function(a, k) redis.call('DEL', k) end; f(unpack(ARGV))", "DEL has a key"),
        ("local f = function(k) redis.call('DEL', k) end; f(KEYS[1]); ARGV[1] = f", "DEL has a key"),
        ("local f = function(k) redis.call('DEL', k) end; pcall(f, 'x')", "makes x"),
        ("local f = function(k) redis.call('DEL', k) end; string.gsub('x', 'x', f)", "DEL has a key"),
        ("local f = function(...) redis.call('DEL', ...) end; f(KEYS[1])", "DEL has a key"),
        ("return redis.call('DEL', KEYS[1], unpack(ARGV))", "DEL has a key"),
        ("return redis.call('DEL', select(2, unpack(KEYS)))", "DEL has a key"),
        ("return redis.call('LMOVE', KEYS[1], ARGV[1], 'LEFT', 'LEFT')", "makes ARGV[1]"),
        ("return redis.call('ZUNIONSTORE', KEYS[1], ARGV[1], KEYS[2], ARGV[2])", "makes ARGV[2]"),
        ("return redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[2], 'x')", "makes x"),
        ("return redis.call('MSET', KEYS[1], 1, unpack(ARGV))", "MSET has a key"),
        ("return redis.call('BLPOP', KEYS[1], 'x', 0)", "makes x"),
        ("return redis.call('OBJECT', KEYS[1], 'x')", "makes x"),
        (
            "local function both() return KEYS[1], 'x' end; return redis.call('MGET', both())",
            "MGET has a key",
        ),
        (
            "local function both() return KEYS[1], unpack(ARGV) end; local _, k = both() redis.call('GET', k)",
            "GET has a key",
        ),
        ("return redis.call('GET', nil or 'x')", "makes x"),
        ("return redis.call('GET', false, 'x') or redis.call('GET', 7)", "makes 7"),
        ("return KEYS[1]:gsub('a', function(k) return redis.call('GET', k) end)", "GET has a key"),
    ]);
}

#[test]
fn a_key_is_made_of_literals_and_elements() {
    assert_wide(&[
        (
            "local k = 'user:' .. ARGV[1] .. ':' .. ARGV[2]; redis.call('GET', k)",
            "makes user:..ARGV[1]..:..ARGV[2]",
        ),
        (
            "redis.call('GET', ('a' .. 'b') .. KEYS[2]) redis.call('DEL', 'ab' .. KEYS[2])",
            "makes ab..KEYS[2]",
        ),
        ("redis.call('GET', 'n' .. 007 .. 1)", "makes n71"),
        ("redis.call('MGET', 'a', KEYS[1], 'b' .. ARGV[3])", "makes a, b..ARGV[3]"),
        (
            "local a, key = ARGV, 'k:'; local function f(n) return redis.call('GET', key .. n) end; f(a[1])",
            "makes k:..ARGV[1]",
        ),
        ("local function key(n) return 'k:' .. n end; redis.call('GET', key(ARGV[2]))", "makes k:..ARGV[2]"),
        (
            "if #ARGV > 1 and type(ARGV) == 'table' then redis.call('SET', ARGV[1], cjson.encode(ARGV)) end",
            "makes ARGV[1]",
        ),
        ("for i, v in ipairs(ARGV) do redis.call('RPUSH', 'l' .. ARGV[1], v) end", "makes l..ARGV[1]"),
        ("redis.call('SADD', ARGV[1], unpack(ARGV, 2))", "makes ARGV[1]"),
        ("local k; if ARGV[2] then k = ARGV[1] end; redis.call('GET', k)", "makes ARGV[1]"),
    ]);
    assert_narrow(&[
        "local k; if ARGV[1] then k = KEYS[1] else k = KEYS[2] end; return redis.call('GET', k)",
    ]);
}

#[test]
fn a_key_that_may_be_otherwise_is_not_known() {
    assert_wide(&[
        ("redis.call('GET', 'k' .. ARGV[#ARGV])", "GET has a key"),
        ("redis.call('GET', 'k' .. redis.call('GET', KEYS[1]))", "GET has a key"),
        ("for i = 1, 3 do redis.call('GET', 'k' .. i) end", "GET has a key"),
        ("local k = 'k'; for _ = 1, 3 do k = k .. ARGV[1] end; redis.call('GET', k)", "GET has a key"),
        ("local k = ARGV[3] and 'a' .. ARGV[1] or 'b' .. ARGV[1]; redis.call('GET', k)", "GET has a key"),
        ("redis.call('GET', 'n' .. 123456789012345)", "GET has a key"),
        ("redis.call('GET', 'n' .. 1.5)", "GET has a key"),
        ("redis.call('GET', 'n' .. -1)", "GET has a key"),
        // Nor is one of ARGV after it may have been changed.
        ("ARGV[1] = 'x'; redis.call('GET', ARGV[1])", "GET has a key"),
        ("redis.call('GET', ARGV[1]) ARGV.n = 1", "GET has a key"),
        ("local a = ARGV; a[1] = 'x'; redis.call('GET', 'k' .. ARGV[1])", "GET has a key"),
        ("table.insert(ARGV, 1, 'x') redis.call('GET', ARGV[1])", "GET has a key"),
        ("table.sort(ARGV) redis.call('GET', ARGV[1])", "GET has a key"),
        ("rawset(ARGV, 1, 'x') redis.call('GET', ARGV[1])", "GET has a key"),
        ("local t = { ARGV }; t[1][1] = 'x'; redis.call('GET', ARGV[1])", "GET has a key"),
        ("local _, t = ipairs(ARGV); t[1] = 'x'; redis.call('GET', ARGV[1])", "GET has a key"),
        ("select(2, pairs(ARGV))[1] = 'x'; redis.call('GET', ARGV[1])", "GET has a key"),
        ("local f = function(t) t[1] = 'x' end; f(ARGV); redis.call('GET', ARGV[1])", "GET has a key"),
        ("local f = function() return ARGV end; f()[1] = 'x'; redis.call('GET', ARGV[1])", "GET has a key"),
        ("local f = function(...) (...)[1] = 'x' end; f(ARGV); redis.call('GET', ARGV[1])", "GET has a key"),
        (
            "local t = setmetatable({}, { __concat = function(_, a) a[1] = 'x' end }); local _ = t .. ARGV redis.call('GET', ARGV[1])",
            "GET has a key",
        ),
        ("pcall(rawset, ARGV, 1, 'x') redis.call('GET', ARGV[1])", "GET has a key"),
        ("for k, v in next, ARGV do end redis.call('GET', ARGV[1])", "GET has a key"),
    ]);
    assert_functions(
        "#!lua name=lib
         local held, name
         redis.register_function('made', function(keys, args) return redis.call('GET', keys[1] .. ':' .. args[2]) end)
         redis.register_function('held', function(keys, args)
            local id = args[1]
            return pcall(function() return redis.call('GET', 'k' .. id) end)
         end)",
        &[("made", Some("makes KEYS[1]..:..ARGV[2]")), ("held", Some("GET has a key"))],
    );
    assert_functions(
        "#!lua name=lib
         local held
         redis.register_function('keeps', function(keys, args) held = args return redis.call('GET', args[1]) end)",
        &[("keeps", Some("GET has a key"))],
    );
}

#[test]
fn a_command_has_to_be_known() {
    assert_wide(&[
        ("return redis.call('KEYS', '*')", "KEYS may touch any key"),
        ("return redis.call('nosuch', KEYS[1])", "nosuch may touch any key"),
        ("return redis.call('SORT', KEYS[1], 'BY', ARGV[1])", "SORT may touch any key"),
        ("return redis.call('SORT', KEYS[1], unpack(ARGV))", "SORT may touch any key"),
        ("redis.call('SELECT', 1)", "SELECT may touch any key"),
        ("return redis.call(ARGV[1], KEYS[1])", "the name of a command is computed"),
        ("return redis.call(unpack(ARGV))", "the name of a command is computed"),
        ("return redis.call(KEYS[1])", "the name of a command is computed"),
        ("return redis.call('G' .. 'ET', KEYS[1])", "the name of a command is computed"),
        (
            "local c = 'GET'; if ARGV[1] then c = 'SET' end; redis.call(c, KEYS[1], 1)",
            "the name of a command is computed",
        ),
    ]);
    assert_narrow(&["return redis.call('SORT', KEYS[1])", "return redis.call()"]);
}

#[test]
fn keys_has_to_stay_as_it_is() {
    assert_wide(&[
        ("KEYS = { 'x' }; return redis.call('GET', KEYS[1])", "the global KEYS is assigned"),
        ("KEYS[1] = 'x'; return redis.call('GET', KEYS[1])", "KEYS is changed"),
        ("local k = KEYS; k[1] = 'x'; return redis.call('GET', KEYS[1])", "KEYS is changed"),
        ("local k; k = { 'x' }; k = KEYS; k[1] = 'x'", "KEYS is used in a way"),
        (
            "local k = KEYS; if ARGV[1] then k = ARGV end; return redis.call('GET', k[1])",
            "KEYS is used in a way",
        ),
        ("function KEYS.x() end", "KEYS is changed"),
        (
            "local f = function(t) t[1] = 'x' end; f(KEYS); return redis.call('GET', KEYS[1])",
            "KEYS is changed",
        ),
        ("table.insert(KEYS, 'x')", "KEYS is used in a way"),
        ("table.sort(KEYS)", "KEYS is used in a way"),
        ("rawset(KEYS, 1, 'x')", "KEYS is used in a way"),
        ("setmetatable(KEYS, { __index = ARGV })", "KEYS is used in a way"),
        ("local t = { KEYS }; t[1][1] = 'x'", "KEYS is used in a way"),
        ("local t = { k = KEYS }", "KEYS is used in a way"),
        (
            "local t = setmetatable({}, { __add = function(a, b) b[1] = 'x' end }); local _ = t + KEYS",
            "KEYS is used in a way",
        ),
        (
            "local t = setmetatable({}, { __index = function(_, k) k[1] = 'x' end }); local _ = t[KEYS]",
            "KEYS is used in a way",
        ),
        ("local f = function(...) select(1, ...)[1] = 'x' end; f(KEYS)", "KEYS is used in a way"),
        ("local f = function() return KEYS end; f()[1] = 'x'", "KEYS is used in a way"),
        ("local _, t = ipairs(KEYS); t[1] = 'x'", "an iterator over KEYS is changed"),
        ("select(2, ipairs(KEYS))[1] = 'x'", "an iterator over KEYS is used"),
        ("xpcall(function() error(KEYS) end, function(k) k[1] = 'x' end)", "KEYS is used in a way"),
        ("coroutine.wrap(function(k) k[1] = 'x' end)(KEYS)", "KEYS is used in a way"),
        ("for _, v in next, KEYS do redis.call('DEL', v) end", "KEYS is used in a way"),
        ("_G.KEYS[1] = 'x'", "the global _G"),
        ("_G['KE' .. 'YS'][1] = 'x'", "the global _G"),
        ("getfenv().KEYS[1] = 'x'", "the global getfenv"),
        ("setfenv(1, { redis = redis, KEYS = ARGV })", "the global setfenv"),
        ("loadstring('KEYS[1] = 1')()", "the global loadstring"),
        ("load(function() return nil end)", "the global load"),
        ("dofile('x')", "the global dofile"),
        ("getmetatable('').__index = function() end", "the global getmetatable"),
    ]);
    assert_narrow(&[
        "local KEYS = KEYS; return redis.call('GET', KEYS[1])",
        "if #KEYS ~= 2 or type(KEYS) ~= 'table' then return table.concat(KEYS, ',') end",
        "return cjson.encode(KEYS)",
        "return KEYS",
        "local t = {}; t[KEYS[1]] = KEYS[2]; return { KEYS[1], k = KEYS[2], [KEYS[1]] = 1 }",
    ]);
}

#[test]
fn redis_call_goes_by_its_names_only() {
    assert_wide(&[
        ("local t = { call = redis.call }; t.call('GET', 'x')", "redis.call is used in a way"),
        ("local t = {}; t.c = redis.call; t.c('GET', 'x')", "redis.call is used in a way"),
        ("local t = { redis }; t[1].call('GET', 'x')", "redis is used in a way"),
        ("for _, f in pairs(redis) do pcall(f, 'GET', 'x') end", "redis is used in a way"),
        ("redis[ARGV[1]]('GET', 'x')", "a field of redis by a computed name"),
        ("redis['ca' .. 'll']('GET', 'x')", "a field of redis by a computed name"),
        ("rawget(redis, 'call')('GET', 'x')", "redis is used in a way"),
        ("setmetatable({}, { __index = redis }).call('GET', 'x')", "redis is used in a way"),
        ("local c = redis.call; c = print; c('GET', 'x')", "the global print"),
        (
            "local c = redis.call; if ARGV[1] then c = tostring end; c('GET', 'x')",
            "redis.call is used in a way",
        ),
        ("local c = ARGV[1] and redis.call or redis.log; c('GET', 'x')", "redis.call is used in a way"),
        ("xpcall(redis.call, error)", "redis.call is used in a way"),
        ("coroutine.wrap(redis.call)('GET', 'x')", "redis.call is used in a way"),
        ("string.gsub('x', '.', redis.call)", "redis.call is used in a way"),
        ("local f = function() return redis.call end; f()('GET', 'x')", "redis.call is used in a way"),
        ("redis:call('GET', 'x')", "redis is used in a way"),
        ("redis.call = function() end", "redis is changed"),
        ("redis.nosuch()", "redis.nosuch"),
        ("local f = function(c) c('GET', 'x') end; f(redis.call)", "makes x"),
        ("pcall(pcall, redis.call, 'GET', 'x')", "makes x"),
        ("pcall(redis.pcall, 'GET', 'x')", "makes x"),
        (
            "local redis = { call = function(_, k) return redis.call('GET', k) end }; redis.call('GET', KEYS[1])",
            "GET has a key",
        ),
        ("local KEYS = { 'x' }; return redis.call('GET', KEYS[1])", "GET has a key"),
        (
            "local ipairs = function(t) return next, ARGV end; for _, k in ipairs(KEYS) do redis.call('DEL', k) end",
            "DEL has a key",
        ),
        ("local unpack = function() return 'x' end; redis.call('GET', unpack(KEYS))", "KEYS"),
    ]);
    assert_narrow(&[
        "local redis = { call = function(_, k) return k end }; return redis.call('GET', 'x')",
        "local t = {}; t.call = function(_, k) return k end; return t.call('GET', 'x')",
    ]);
}

#[test]
fn what_lua_sees_is_what_is_analysed() {
    assert_wide(&[
        ("-- note\rredis.call('DEL', 'x')", "makes x"),
        ("--[[ note ]]redis.call('DEL', 'x')", "makes x"),
        ("--[==[ ]] ]==]redis.call('DEL', 'x') --[[ ]]", "makes x"),
        ("--[=x\nredis.call('DEL', 'x')", "makes x"),
        ("local s = '\\\\' redis.call('DEL', 'x') --'", "makes x"),
        ("local s = [==[ ]] ]==] redis.call('DEL', 'x') --]]", "makes x"),
        ("local s = \"\\z\" redis.call('DEL', 'x') --\"", "makes x"),
        ("local s = 'a\\\nb' redis.call('DEL', 'x')", "makes x"),
        ("redis.call('\\68\\069\\76', 'x')", "makes x"),
        ("redis.call('GE\\84', 'x')", "makes x"),
        ("redis.call([[\nGET]], 'x')", "makes x"),
        ("#!lua flags=no-writes\rredis.call('DEL', 'x')\nredis.call('GET', 'y')", "makes y"),
        ("\x1bLua", "a character that Lua does not know"),
        ("return redis.call('GET', KEYS[1]", "a missing sign"),
        ("local s = [[ [[ ]]", "nested"),
        ("return x != 1", "a character"),
        ("goto done", "unexpected"),
        ("return 1 return 2", "unexpected"),
        ("a.b", "unexpected"),
        ("f() = 1", "an assignment to what is no variable"),
    ]);
    assert_narrow(&[
        "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])",
        "#!lua",
        "",
        "-- redis.call('DEL', 'x')\nreturn redis.call('GET', KEYS[1]) -- redis.call('DEL', 'x')",
        "--[[ redis.call('DEL', 'x')\n]] return redis.call('GET', KEYS[1])",
        "local s = \"redis.call('DEL', 'x')\"; return 1;",
        "return { [1] = 2, a = 3; 4, f = function() end, }",
        "local a = -2 ^ 2 .. 'x' == not #ARGV < 1e3 and 0x1F or .5 % 3; return a",
        "local o = { n = {} } function o.n.f(a, ...) return ... end function o.n:g() return self end return o.n:g{}:f'x'",
    ]);
}

#[test]
fn a_script_that_may_publish_is_told() {
    for (source, may_publish) in [
        ("return redis.call('GET', KEYS[1])", false),
        ("if ARGV[1] then redis.call('PUBLISH', ARGV[1], 'x') end", true),
        ("local f = function() return redis.pcall('publish', 'c', 'x') end", true),
        ("return redis.call(ARGV[1], KEYS[1])", true),
        ("return redis.call('nosuch', KEYS[1])", true),
        ("return 1 +", true),
    ] {
        assert_eq!(analysed(source).may_publish, may_publish, "{source}");
    }
}

#[test]
fn a_script_that_writes_nothing_is_told() {
    for (source, may_write) in [
        ("return redis.call('GET', KEYS[1])", false),
        ("return redis.call('GET', 'x')", false),
        ("return 1", false),
        ("local f = function() redis.call('SET', KEYS[1], 1) end", true),
        ("return redis.call(ARGV[1], KEYS[1])", true),
        ("return redis.call('KEYS', '*')", true),
        ("local t = { redis.call }", true),
        ("syntax error", true),
    ] {
        assert_eq!(analysed(source).may_write, may_write, "{source}");
    }
}

#[test]
fn sources_of_any_depth_end_within_a_small_stack() {
    // Frames are bigger where codegen units are not optimised together, as in the quick profile.
    const STACK_LEN: usize = if cfg!(debug_assertions) { 2 << 20 } else { 512 << 10 };
    const COUNT: usize = 20_000;
    let nested = |open: &str, middle: &str, close: &str| {
        let count = COUNT.min((SOURCE_LEN_MAX - 100) / (open.len() + close.len()));
        [open.repeat(count), middle.to_string(), close.repeat(count)].concat()
    };
    let sources = [
        ("return ", nested("(", "1", ")"), false),
        ("return ", nested("{", "1", "}"), false),
        ("return ", nested("not ", "1", ""), false),
        ("return ", nested("- ", "1", ""), false),
        ("return ", nested("1 .. ", "1", ""), false),
        ("return ", nested("tostring(", "1", ")"), false),
        ("return ", nested("ARGV[", "1", "]"), false),
        ("", nested("do ", "", "end "), false),
        ("", nested("if 1 then ", "", "end "), false),
        ("", nested("if 1 then else ", "", "end "), false),
        ("return ", nested("function() return ", "1", " end"), false),
        ("return ", nested("", "1", "+1"), true),
        ("return ", nested("", "1", " or 1 and 1"), true),
        ("return ARGV", nested("", "", "[1]"), true),
        ("return ARGV", nested("", "", "()"), true),
        ("return ARGV", nested("", "", ".a"), true),
        ("if 1 then ", nested("", "", "elseif 1 then "), false),
        ("", nested("local a = 1 ", "", ""), false),
        // As deep as it may be, in all ways at once.
        ("return ", format!("{}1{}", "{f(-(".repeat(49).replace('f', "tostring"), "))}".repeat(49)), true),
    ];
    let run = move || {
        for (begin, rest, is_narrow) in sources {
            let source = format!("{begin}{rest}");
            let found = analysed(&source);
            assert_eq!(found.is_narrow(), is_narrow, "{}", &source[..source.len().min(60)]);
        }
    };
    std::thread::Builder::new()
        .stack_size(STACK_LEN)
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
    let too_long = format!("return 1 --{}", "x".repeat(SOURCE_LEN_MAX));
    assert_wide(&[(too_long.as_str(), "too long")]);
}

fn library(source: &str) -> LibraryKeyUse {
    library_key_use(source.as_bytes(), &Table)
}

#[track_caller]
fn assert_functions(source: &str, expected: &[(&str, Option<&str>)]) {
    let found = library(source);
    for (name, reason) in expected {
        let wide = verdict(found.function(name.as_bytes()));
        let as_expected = match (reason, &wide) {
            (None, None) => true,
            (Some(reason), Some(wide)) => wide.contains(reason),
            (None, Some(_)) | (Some(_), None) => false,
        };
        assert!(as_expected, "{source}\n{name}: {wide:?}");
    }
}

#[test]
fn each_function_of_a_library_is_judged_by_itself() {
    assert_functions(
        "#!lua name=lib
         local call = redis.call
         local LIMIT = 10
         local function get(k) return call('GET', k) end
         local function named(name) return call('DEL', name) end
         local function good(keys, args) return get(keys[1]) end
         redis.register_function('good', good)
         redis.register_function('anonymous', function(keys, args) return call('SET', keys[1], args[1]) end)
         redis.register_function{ function_name = 'table', callback = function(k) return call('MGET', unpack(k)) end,
                                  flags = { 'no-writes' } }
         redis.register_function('bad', function(keys, args) return named(args[1]) end)
         redis.register_function('keyless', function() return LIMIT end)
         redis.register_function('undeclared', function() return redis.call('GET', 'x') end)",
        &[
            ("good", None),
            ("anonymous", None),
            ("table", None),
            ("keyless", None),
            ("bad", Some("makes ARGV[1]")),
            ("undeclared", Some("makes x")),
            ("nosuch", Some("the call that registers the function is not understood")),
        ],
    );
    let found = library(
        "#!lua name=lib
         local function write(k) redis.call('DEL', k) end
         redis.register_function('a', function(k) write(k[1]) end)
         redis.register_function('b', function(k) return redis.call('GET', k[1]) end)",
    );
    assert!(found.function(b"a").may_write && !found.function(b"b").may_write);
}

#[test]
fn a_key_of_one_run_of_a_function_is_none_of_the_next() {
    assert_functions(
        "local last
         redis.register_function('f', function(keys) local k = last; last = keys[1]; return redis.call('GET', k) end)",
        &[("f", Some("GET has a key"))],
    );
    assert_functions(
        "local last
         redis.register_function('f', function(keys) last = keys; return redis.call('GET', last[1]) end)",
        &[("f", Some("could outlive the run"))],
    );
    assert_functions(
        "local cache = {}
         redis.register_function('f', function(keys)
           local k = keys[1]
           if cache.f then cache.f() end
           cache.f = function() redis.call('DEL', k) end
         end)",
        &[("f", Some("DEL has a key"))],
    );
    assert_functions(
        "local cache = {}
         redis.register_function('f', function(keys) cache.f = function() redis.call('DEL', keys[1]) end end)",
        &[("f", Some("could outlive the run"))],
    );
    assert_functions(
        "local co
         redis.register_function('f', function(keys) co = co or coroutine.wrap(function(k)
           while true do coroutine.yield(redis.call('GET', k[1])) end end); return co(keys) end)",
        &[("f", Some("the global coroutine"))],
    );
    assert_functions(
        "local function register(name) local last
           redis.register_function(name, function(keys) local k = last; last = keys[1]; redis.call('GET', k) end)
         end
         register('f')",
        &[("f", Some("GET has a key"))],
    );
}

#[test]
fn a_function_is_judged_by_all_that_may_call_it() {
    assert_functions(
        "local function f(keys, args) return redis.call('GET', keys[1]) end
         redis.register_function('f', f)
         redis.register_function('g', function(keys, args) return f({ 'x' }, args) end)",
        &[("f", Some("KEYS is used in a way")), ("g", Some("KEYS is used in a way"))],
    );
    assert_functions(
        "local t = {}
         function t.f(k) return redis.call('GET', k) end
         redis.register_function('f', function(keys) return redis.call('GET', keys[1]) end)",
        &[("f", Some("line 2: GET has a key"))],
    );
    assert_functions(
        "local t = { f = function(keys) return redis.call('GET', keys[1]) end }
         redis.register_function('f', t.f)",
        &[("f", Some("is not understood"))],
    );
    assert_functions(
        "redis.register_function('f', function(...) return redis.call('GET', select(1, ...)[1]) end)
         redis.register_function('g', function(keys) return redis.call('GET', KEYS[1]) end)",
        &[("f", Some("the global KEYS")), ("g", Some("the global KEYS"))],
    );
    assert_functions(
        "redis.register_function('f', function(...) return redis.call('GET', select(1, ...)[1]) end)",
        &[("f", Some("GET has a key"))],
    );
    assert_functions(
        "local name = 'f'
         local cb = function(keys) return redis.call('GET', keys[1]) end
         if redis.REDIS_VERSION_NUM > 1 then cb = function(_, args) return redis.call('GET', args[1]) end end
         redis.register_function(name, cb)",
        &[("f", Some("is not understood"))],
    );
}
