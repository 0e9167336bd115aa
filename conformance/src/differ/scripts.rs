//! Scripts and libraries at random: calls of the commands of other families, and values (`lua.rs`).

use super::compare::How;
use super::lua::{self, FUNCTION, Names, SCRIPT};
use super::random::Random;
use super::values::Generator;

/// A call within a script.
pub struct Inner {
    pub args: Vec<Vec<u8>>,
    /// Those of its arguments that are keys.
    pub keys: Vec<Vec<u8>>,
    pub how: How,
}

/// Gives calls of other families; `None`: none that a script could make.
pub type Calls<'a> = dyn FnMut(&mut Random) -> Option<Inner> + 'a;

const CALLS_MAX: usize = 6;
/// Declared keys, of a hundred that are used.
const DECLARED_PERCENT: usize = 60;

/// A source, the number of keys, the keys and the arguments.
pub fn script(random: &mut Random, calls: &mut Calls) -> Vec<Vec<u8>> {
    let mut parts = Parts { names: SCRIPT, keys: Vec::new(), args: Vec::new() };
    let body = match random.weighted(&[12, 5, 2, 1]) {
        0 => parts.calling(random, calls),
        1 => parts.returning(random),
        2 => lua::fault(random),
        _ => lua::broken(random),
    };
    let mut all = vec![[shebang(random), body].concat().into_bytes()];
    all.extend(parts.numbered());
    all
}

/// The keys and the arguments with which a function is called.
pub fn parameters(random: &mut Random, calls: &mut Calls) -> Vec<Vec<u8>> {
    let mut parts = Parts { names: FUNCTION, keys: Vec::new(), args: Vec::new() };
    for _ in 0..1 + random.below(2) {
        if let Some(inner) = calls(random) {
            parts.keys.extend(inner.keys);
            parts.args.extend(inner.args.into_iter().skip(1).take(2));
        }
    }
    parts.keys.truncate(3);
    parts.args.truncate(3);
    parts.numbered()
}

/// The source of a library.
pub fn library(random: &mut Random, calls: &mut Calls) -> Vec<u8> {
    let name = random.pick(&["lib1", "lib1", "lib2", "lib3", "bad name", ""]);
    let head = match random.below(12) {
        0 => "#!lua\n".to_owned(),
        1 => format!("#!js name={name}\n"),
        2 => format!("#!lua name={name} nosuch=1\n"),
        3 => String::new(),
        _ => format!("#!lua name={name}\n"),
    };
    let mut text = head;
    if random.chance(20) {
        text.push_str(&format!("local shared = {}\n", lua::value(random, SCRIPT_AT_LOAD, 1)));
    }
    for _ in 0..[0, 1, 1, 1, 2][random.below(5)] {
        let mut parts = Parts { names: FUNCTION, keys: Vec::new(), args: Vec::new() };
        let body = match random.weighted(&[6, 5, 1]) {
            0 => parts.calling(random, calls),
            1 => parts.returning(random),
            _ => lua::fault(random),
        };
        let name = random.pick(&["f1", "f1", "f2", "f3", "bad-name", ""]);
        text.push_str(&match random.below(6) {
            0 => format!("redis.register_function({{function_name='{name}', callback=function(keys, args) {body} end, flags={{{}}}}})\n", flags(random)),
            1 => format!("redis.register_function{{function_name='{name}', description='told', callback=function(keys, args) {body} end}}\n"),
            2 if random.chance(20) => "redis.register_function('f1')\n".to_owned(),
            2 if random.chance(20) => "redis.register_function{function_name='f1', nosuch=1}\n".to_owned(),
            _ => format!("redis.register_function('{name}', function(keys, args) {body} end)\n"),
        });
    }
    match random.below(14) {
        0 => text.push_str(&lua::fault(random)),
        1 => text.push_str(&lua::broken(random)),
        2 => text.push_str("redis.call('set', 'a', 1)\n"),
        _ => {}
    }
    text.into_bytes()
}

/// Neither keys nor arguments are there when a library is loaded.
const SCRIPT_AT_LOAD: Names = Names { keys: "({'k'})", args: "({'a'})" };

fn flags(random: &mut Random) -> String {
    let all = ["'no-writes'", "'allow-oom'", "'allow-stale'", "'no-cluster'", "'nosuch'", "1"];
    let count = random.below(3);
    (0..count).map(|_| random.pick(&all)).collect::<Vec<_>>().join(",")
}

fn shebang(random: &mut Random) -> String {
    if random.chance(85) {
        return String::new();
    }
    let lines = [
        "#!lua",
        "#!lua flags=",
        "#!lua flags=no-writes",
        "#!lua flags=no-writes,allow-oom",
        "#!lua flags=allow-stale,no-cluster,allow-cross-slot-keys",
        "#!lua flags=nosuch",
        "#!lua nosuch=1",
        "#!js",
        "#!",
        "#!lua flags=no-writes,",
    ];
    format!("{}{}", random.pick(&lines), if random.chance(95) { "\n" } else { "" })
}

struct Parts {
    names: Names,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Parts {
    fn numbered(self) -> Vec<Vec<u8>> {
        let count = self.keys.len().to_string().into_bytes();
        [vec![count], self.keys, self.args].concat()
    }

    /// `return` of an expression, with some keys and arguments.
    fn returning(&mut self, random: &mut Random) -> String {
        for _ in 0..random.below(3) {
            self.keys.push([b"a", b"b", b"c"][random.below(3)].to_vec());
            self.args.push([b"10".as_slice(), b"x", b"", b"-1.5", b"\xff"][random.below(5)].to_vec());
        }
        let depth = random.below(4);
        format!("{}return {}", setresp(random), lua::value(random, self.names, depth))
    }

    /// Calls whose results are returned, as far as they are laid down.
    fn calling(&mut self, random: &mut Random, calls: &mut Calls) -> String {
        let resp = setresp(random);
        let sorts = resp.is_empty();
        let mut lines = vec![format!("{resp}local r = {{}}")];
        for _ in 0..1 + random.below(CALLS_MAX) {
            let Some(inner) = calls(random) else { continue };
            let call = self.call(random, &inner);
            lines.push(match inner.how {
                How::Exact => match random.below(8) {
                    0 => format!("for i = 1, {} do r[#r + 1] = {call} end", random.below(4)),
                    1 => format!("local v = {call} if v then r[#r + 1] = v else r[#r + 1] = 'none' end"),
                    2 => format!("r[#r + 1] = type({call})"),
                    3 => format!("do local v = {call} r[#r + 1] = type(v) == 'table' and (v.err or v.ok or #v) or v end"),
                    _ => format!("r[#r + 1] = {call}"),
                },
                How::Unordered if sorts => {
                    format!("do local v = {call} if v.err then return v end table.sort(v) r[#r + 1] = v end")
                }
                How::Unordered
                | How::Nested
                | How::Pairs
                | How::Scan
                | How::Whole
                | How::Time
                | How::Stream
                | How::ReplicaStream
                | How::Pick
                | How::Words
                | How::Slowlog
                | How::Clients
                | How::Kind => call,
            });
        }
        if random.chance(10) {
            lines.push(format!("if #r > {} then {} end", random.below(4), lua::fault(random)));
        }
        lines.push("return r".to_owned());
        lines.join(if random.chance(50) { "\n" } else { " " })
    }

    /// One call. A key is mostly named as a declared one.
    fn call(&mut self, random: &mut Random, inner: &Inner) -> String {
        let mut words = Vec::new();
        for (at, arg) in inner.args.iter().enumerate() {
            let is_key = at > 0 && inner.keys.contains(arg);
            words.push(if is_key && random.chance(DECLARED_PERCENT) {
                format!("{}[{}]", self.names.keys, place(&mut self.keys, arg))
            } else if at > 0 && !is_key && random.chance(15) {
                format!("{}[{}]", self.names.args, place(&mut self.args, arg))
            } else if arg.len() < 10
                && !arg.is_empty()
                && arg.iter().all(u8::is_ascii_digit)
                && random.chance(50)
            {
                String::from_utf8_lossy(arg).trim_start_matches('0').to_owned()
            } else {
                lua::quoted(arg)
            });
        }
        words.retain(|word| !word.is_empty());
        let words = words.join(",");
        match random.below(10) {
            0..=5 => format!("redis.call({words})"),
            6 => format!("select(2, pcall(redis.call, {words}))"),
            _ => format!("redis.pcall({words})"),
        }
    }
}

/// The place of a text in a list, from 1. It is added if it is not there.
fn place(list: &mut Vec<Vec<u8>>, text: &[u8]) -> usize {
    let at = list.iter().position(|this| this == text).unwrap_or_else(|| {
        list.push(text.to_vec());
        list.len() - 1
    });
    at + 1
}

fn setresp(random: &mut Random) -> String {
    if random.chance(25) {
        format!("redis.setresp({}) ", random.pick(&["3", "3", "2", "4"]))
    } else {
        String::new()
    }
}

/// Scripts that are called by their SHA-1, which stands behind each: for two keys and two arguments.
const KNOWN: [(&str, &str); 6] = [
    ("return {KEYS[1],KEYS[2],ARGV[1],ARGV[2]}", "a42059b356c875f0717db19a51f6aaca9ae659ea"),
    ("return redis.call('GET',KEYS[1])", "620cd258c2c9c88c9d10db67812ccf663d96bdc6"),
    (
        "redis.call('RPUSH',KEYS[1],ARGV[1]) return redis.call('LRANGE',KEYS[1],0,-1)",
        "477a6ccbd604b00f2005488f7ffd9e5beeff290b",
    ),
    (
        "redis.call('SET',KEYS[1]..':x',ARGV[1]) return redis.call('GET',KEYS[1]..':x')",
        "bf36aa3d36590d8ca681ad86063107eba736692f",
    ),
    ("return redis.error_reply('MY '..ARGV[1])", "36af19eeb8801fa194e167afc1d755dee9f2f74a"),
    (
        "#!lua flags=no-writes\nreturn redis.call('SET',KEYS[1],ARGV[1])",
        "0b6bd5ab6755bc3fc89c461f3601060abe728324",
    ),
];

/// Generators of arguments, as the table of commands names them.
pub fn generator(name: &str) -> Option<Generator> {
    Some(match name {
        "knownscript" => known_script,
        "sha" => known_sha,
        "payload" => payload,
        "libname" => |r| r.pick(&["lib1", "lib1", "lib2", "lib3", "lib*", "nosuch", ""]).as_bytes().to_vec(),
        "fname" => |r| r.pick(&["f1", "f1", "f1", "f2", "f3", "nosuch", ""]).as_bytes().to_vec(),
        _ => return None,
    })
}

fn known_script(random: &mut Random) -> Vec<u8> {
    KNOWN[random.below(KNOWN.len())].0.as_bytes().to_vec()
}

fn known_sha(random: &mut Random) -> Vec<u8> {
    let sha = KNOWN[random.below(KNOWN.len())].1;
    if random.chance(90) { sha.as_bytes().to_vec() } else { sha.to_ascii_uppercase().into_bytes() }
}

/// What Redis 7.0.15 gave for FUNCTION DUMP: a library `lib1` with a function `f1`.
const DUMPED: &[u8] =
    b"\xf5\xc3@a@k\x1f#!lua name=lib1\nredis.register_f\runction('f1', \xe0\x00\x0e\x19keys, args) \
return {'resto @ (\x00#\xe0\x01 \x08[1]} end)\n\x00Y\xe9l\x1dJ\xe9C\x98";

/// A payload for FUNCTION RESTORE, sometimes a damaged one.
fn payload(random: &mut Random) -> Vec<u8> {
    let mut payload = DUMPED.to_vec();
    match random.below(10) {
        0 => payload.truncate(random.below(DUMPED.len())),
        1 => payload[random.below(DUMPED.len())] ^= 1 << random.below(8),
        2 => payload.clear(),
        _ => {}
    }
    payload
}
