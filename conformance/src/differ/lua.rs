//! Lua at random: values of all types and what Redis' libraries make of them, from a small world, sometimes at its limits.
//!
//! Nothing here shows an address, the time, or a random number; and no setting of a library is changed, because it would
//! last as long as the interpreter.

use super::random::Random;

/// What a piece of code may name.
#[derive(Clone, Copy)]
pub struct Names {
    pub keys: &'static str,
    pub args: &'static str,
}

pub const SCRIPT: Names = Names { keys: "KEYS", args: "ARGV" };
pub const FUNCTION: Names = Names { keys: "keys", args: "args" };

const NUMBERS: [&str; 34] = [
    "0",
    "1",
    "-1",
    "3",
    "100",
    "3.99",
    "-3.99",
    "0.1",
    "1e15",
    "1e17",
    "1e100",
    "1e-5",
    "-0.0",
    "1/0",
    "-1/0",
    "0/0",
    "127",
    "128",
    "-129",
    "255",
    "256",
    "32768",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "0x1F",
    "1234567.891",
];

const STRINGS: [&[u8]; 16] = [
    b"",
    b"a",
    b"abc",
    b"hello world",
    b"10",
    b"0x10",
    b" 5 ",
    b"1e2",
    b"nan",
    b"\0",
    b"\xff\x80",
    b"\"quoted\" \\ /",
    b"line\r\nline",
    b"\xc3\xa4\xe2\x82\xac",
    b"\x7f\x1b\t",
    b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
];

const JSONS: [&str; 24] = [
    "{}",
    "[]",
    "[1,2,3]",
    r#"{"a":1}"#,
    r#"{"a":{"b":[1,{"c":null}]}}"#,
    "[null,true,false]",
    "1",
    r#""a""#,
    "[1e3,1E-2,-0,0.5,1.5e300]",
    r#"["\u00e4\u20ac\ud83d\ude00\n\"\\\/"]"#,
    "[12345678901234567890]",
    "[1,]",
    "{a:1}",
    "[",
    "",
    "nul",
    r#"["\ud800"]"#,
    r#"["\x"]"#,
    "[0x10,inf,nan]",
    "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]",
    r#"{"1":"x"}"#,
    "[1] 2",
    " [ 1 , 2 ] ",
    r#"{"a":1,"a":2}"#,
];

const FORMATS: [&str; 26] = [
    "i", "I", "b", "B", "h", "H", "l", "L", "<i4", ">i4", "=I8", "s", "c0", "c3", "x", "f", "d", ">d", "i3",
    "bhi", "!4bi", "c0s", "z", "i9", ">I2<I2", "Bc0",
];

const PATTERNS: [&str; 12] =
    ["%a+", "(%w)(%w)", "^a", ".-b", "[^a]", "%d*", "%b()", "(", "%", "a-", "()", "%f[%w]"];

const PRINTF: [&str; 14] =
    ["%d", "%5.2f", "%s", "%q", "%x", "%c", "%g", "%i", "%-5s|", "%05d", "%e", "%%", "%.20s", "%y"];

/// `bytes` as a string in Lua.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for &byte in bytes {
        match byte {
            b' '..=b'~' if byte != b'\'' && byte != b'\\' => text.push(byte as char),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text.push('\'');
    text
}

fn number(random: &mut Random) -> String {
    if random.chance(50) { random.between(-20, 300).to_string() } else { random.pick(&NUMBERS).to_owned() }
}

fn string(random: &mut Random) -> String {
    quoted(STRINGS[random.below(STRINGS.len())])
}

fn scalar(random: &mut Random, names: Names) -> String {
    match random.below(10) {
        0 => "nil".to_owned(),
        1 => "true".to_owned(),
        2 => "false".to_owned(),
        3..=5 => number(random),
        6 => format!("{}[{}]", names.args, random.below(4)),
        7 => format!("{}[{}]", names.keys, random.below(4)),
        _ => string(random),
    }
}

/// An expression of any type. What it has in it becomes less with `depth`.
pub fn value(random: &mut Random, names: Names, depth: usize) -> String {
    if depth == 0 {
        return scalar(random, names);
    }
    match random.weighted(&[6, 5, 5, 2, 1]) {
        0 => scalar(random, names),
        1 => table(random, names, depth - 1),
        2 => call(random, names, depth - 1),
        3 => reply(random, names, depth - 1),
        _ => operation(random, names, depth - 1),
    }
}

fn table(random: &mut Random, names: Names, depth: usize) -> String {
    let mut parts = Vec::new();
    for _ in 0..random.below(5) {
        let value = value(random, names, depth);
        parts.push(match random.below(8) {
            0 => format!("a={value}"),
            1 => format!("[{}]={value}", random.between(-1, 12)),
            2 => format!("['{}']={value}", random.pick(&["b", "1", "ok", "x y", ""])),
            _ => value,
        });
    }
    format!("{{{}}}", parts.join(","))
}

/// A table that becomes a reply of a type of its own.
fn reply(random: &mut Random, names: Names, depth: usize) -> String {
    let value = value(random, names, depth);
    match random.below(10) {
        0 => format!("{{ok={value}}}"),
        1 => format!("{{err={value}}}"),
        2 => format!("{{double={value}}}"),
        3 => format!("{{map={{a={value},[{}]={}}}}}", number_key(random), string(random)),
        4 => format!("{{set={{a=true,['{}']={value}}}}}", random.below(3)),
        5 => format!("{{big_number={value}}}"),
        6 => format!("{{verbatim_string={{string={value},format='txt'}}}}"),
        7 => format!("redis.status_reply({value})"),
        8 => format!("redis.error_reply({value})"),
        _ => format!("{{err='{}',ok=1}}", random.pick(&["My Err", "-CODE text", "CODE", "", "two\r\nlines"])),
    }
}

fn number_key(random: &mut Random) -> i64 {
    random.between(1, 9)
}

fn operation(random: &mut Random, names: Names, depth: usize) -> String {
    let (a, b) = (value(random, names, depth), value(random, names, depth));
    let operator = random.pick(&["+", "-", "*", "/", "%", "^", "..", "==", "~=", "<", "<=", "and", "or"]);
    match random.below(8) {
        0 => format!("(#{a})"),
        1 => format!("(not {a})"),
        2 => format!("(-{a})"),
        _ => format!("({a} {operator} {b})"),
    }
}

/// A call of a function of one of the libraries.
fn call(random: &mut Random, names: Names, depth: usize) -> String {
    let a = value(random, names, depth);
    match random.below(12) {
        0 => format!("cjson.encode({a})"),
        1 => format!("cjson.decode({})", quoted(random.pick(&JSONS).as_bytes())),
        2 => format!("cjson.encode(cjson.decode({}))", quoted(random.pick(&JSONS).as_bytes())),
        3 => format!("cmsgpack.pack({a})"),
        4 => message_pack(random, &a),
        5 => structure(random, names, depth),
        6 => bits(random),
        7 => text(random, &a),
        8 => mathematics(random),
        9 => redis(random, &a),
        _ => basic(random, &a),
    }
}

fn message_pack(random: &mut Random, value: &str) -> String {
    let bytes: Vec<u8> = (0..random.below(8)).map(|_| pack_byte(random)).collect();
    let bytes = quoted(&bytes);
    match random.below(5) {
        0 => format!("cmsgpack.unpack(cmsgpack.pack({value}))"),
        1 => format!("{{cmsgpack.unpack(cmsgpack.pack({value},{value}))}}"),
        2 => format!("{{cmsgpack.unpack({bytes})}}"),
        3 => format!("{{cmsgpack.unpack_one({bytes},{})}}", random.between(-1, 4)),
        _ => {
            format!("{{cmsgpack.unpack_limit({bytes},{},{})}}", random.between(-1, 3), random.between(-1, 4))
        }
    }
}

/// Bytes that begin something in MessagePack, and small numbers.
fn pack_byte(random: &mut Random) -> u8 {
    match random.below(4) {
        0 => 0xc0 + random.below(0x20) as u8,
        1 => [0x80, 0x81, 0x90, 0x91, 0x92, 0xa0, 0xa1, 0xa3][random.below(8)],
        2 => random.below(256) as u8,
        _ => random.below(0x80) as u8,
    }
}

fn structure(random: &mut Random, names: Names, depth: usize) -> String {
    let format = quoted(random.pick(&FORMATS).as_bytes());
    match random.below(4) {
        0 => {
            let (a, b) = (value(random, names, depth), value(random, names, depth));
            format!("struct.pack({format},{a},{b})")
        }
        1 => format!("struct.pack({format},{},{})", number(random), string(random)),
        2 => {
            let bytes: Vec<u8> = (0..random.below(14)).map(|_| random.below(256) as u8).collect();
            let from = if random.chance(80) { String::new() } else { format!(",{}", random.between(-2, 9)) };
            format!("{{struct.unpack({format},{}{from})}}", quoted(&bytes))
        }
        _ => format!("struct.size({format})"),
    }
}

fn bits(random: &mut Random) -> String {
    let (a, b) = (number(random), number(random));
    match random.below(4) {
        0 => format!("bit.{}({a})", random.pick(&["tobit", "bnot", "bswap"])),
        1 => format!("bit.{}({a},{b})", random.pick(&["band", "bor", "bxor"])),
        2 => {
            format!(
                "bit.{}({a},{})",
                random.pick(&["lshift", "rshift", "arshift", "rol", "ror"]),
                random.between(-2, 40)
            )
        }
        _ => format!("bit.tohex({a},{})", random.between(-9, 9)),
    }
}

fn text(random: &mut Random, value: &str) -> String {
    let s = string(random);
    let pattern = quoted(random.pick(&PATTERNS).as_bytes());
    let (from, to) = (random.between(-4, 6), random.between(-4, 6));
    match random.below(11) {
        0 => format!("string.format({},{value})", quoted(random.pick(&PRINTF).as_bytes())),
        1 => format!("string.sub({s},{from},{to})"),
        2 => format!("string.rep({s},{})", random.between(-1, 5)),
        3 => format!("{{string.find({s},{pattern})}}"),
        4 => format!(
            "{{string.gsub({s},{pattern},{})}}",
            quoted(random.pick(&["%0", "%1", "x", "%", "%2"]).as_bytes())
        ),
        5 => format!("{{string.match({s},{pattern})}}"),
        6 => format!("{{string.byte({s},{from},{to})}}"),
        7 => format!("string.char({},{})", random.between(0, 260), random.between(0, 255)),
        8 => format!("string.{}({s})", random.pick(&["upper", "lower", "reverse", "len"])),
        9 => format!("string.format({},{})", quoted(random.pick(&PRINTF).as_bytes()), number(random)),
        _ => format!("({s}):rep(2, {value})"),
    }
}

fn mathematics(random: &mut Random) -> String {
    let (a, b) = (number(random), number(random));
    match random.below(4) {
        0 => format!("math.{}({a},{b})", random.pick(&["max", "min", "fmod", "pow", "ldexp"])),
        1 => format!("{{math.{}({a})}}", random.pick(&["modf", "frexp"])),
        2 => format!("tostring({a})"),
        _ => format!("math.{}({a})", random.pick(&["floor", "ceil", "abs", "sqrt"])),
    }
}

fn redis(random: &mut Random, value: &str) -> String {
    match random.below(8) {
        0 => format!("redis.sha1hex({value})"),
        1 => "redis.REDIS_VERSION".to_owned(),
        2 => "redis.REDIS_VERSION_NUM".to_owned(),
        3 => "{redis.LOG_DEBUG,redis.LOG_VERBOSE,redis.LOG_NOTICE,redis.LOG_WARNING}".to_owned(),
        4 => "{redis.REPL_NONE,redis.REPL_AOF,redis.REPL_SLAVE,redis.REPL_REPLICA,redis.REPL_ALL}".to_owned(),
        5 => format!("redis.setresp({})", random.below(5)),
        6 => format!(
            "redis.acl_check_cmd({},'a')",
            quoted(random.pick(&["get", "set", "nosuch", ""]).as_bytes())
        ),
        _ => {
            format!("redis.{}({value})", random.pick(&["nosuch", "error_reply", "status_reply", "set_repl"]))
        }
    }
}

fn basic(random: &mut Random, value: &str) -> String {
    match random.below(12) {
        0 => format!("type({value})"),
        1 => format!("tonumber({value})"),
        2 => format!("tonumber({},{})", string(random), random.below(38)),
        3 => format!("select('#',{value},nil)"),
        4 => format!("{{unpack({value})}}"),
        5 => format!("table.concat({{1,'a',{}}},',')", number(random)),
        6 => format!("{{pcall(error,{value})}}"),
        7 => format!("{{pcall(function() return {value} end)}}"),
        8 => format!("(function(...) return select('#',...) end)({value})"),
        9 => format!("{{xpcall(function() error('x') end, function(e) return {value} end)}}"),
        10 => "cjson.null".to_owned(),
        _ => format!("{{next({{{value}}})}}"),
    }
}

/// What ends a script with an error (but `error({})`, at which Redis 7.0.15 crashes), or would if the sandbox let it.
const FAULTS: [&str; 45] = [
    "return x",
    "x = 1",
    "KEYS.a.b = 1",
    "return nil + 1",
    "return {} .. 'a'",
    "return {} < {}",
    "return #nil",
    "nosuch()",
    "redis.nosuch()",
    "error('plain')",
    "error('plain', 0)",
    "error('plain', 2)",
    "error({err='My Err'})",
    "error({err='CODE My Err'})",
    "error()",
    "error(nil)",
    "error(5)",
    "assert(false)",
    "assert(nil, 'told')",
    "assert(false, {err='table'})",
    "return redis.call()",
    "return redis.call({})",
    "return redis.call(nil)",
    "return redis.call('get')",
    "return redis.call('get', {})",
    "return redis.call('nosuch')",
    "return redis.call('eval', 'return 1', 0)",
    "return redis.call('multi')",
    "return redis.pcall('nosuch', 'a')",
    "return redis.pcall()",
    "redis.x = 1",
    "redis.call = nil",
    "string.x = 1",
    "setmetatable(_G, {})",
    "rawset(_G, 'x', 1)",
    "table.insert(redis, 'x')",
    "setfenv(1, {})  return x",
    "getmetatable(_G).__index = nil",
    "return loadstring('return 1 +')",
    "return loadstring('return 7')()",
    "return string.dump(function() end)",
    "local function f() return f() + 1 end return f()",
    "return string.rep('x', -1, {})",
    "for i = 1, 3 do if i == 2 then error('at ' .. i) end end",
    "return (function() return redis.call('nosuch') end)()",
];

pub fn fault(random: &mut Random) -> String {
    random.pick(&FAULTS).to_owned()
}

/// Sources that do not compile.
const BROKEN: [&str; 14] = [
    "return 1 +",
    "return )",
    "local",
    "if true then",
    "return 'open",
    "return [[open",
    "for i = 1 do end",
    "x = = 1",
    "return 1 return 2",
    "f\n(g)",
    "goto a",
    "\x1bLua",
    "return 0x",
    "return '\\400'",
];

pub fn broken(random: &mut Random) -> String {
    random.pick(&BROKEN).to_owned()
}
