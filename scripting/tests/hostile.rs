//! Scripts that try to break out of the sandbox, to live on, or to break the VM: known holes of Lua 5.1.5 and of
//! Redis' sandbox by their numbers, and what a program may not do.
//!
//! Under AddressSanitizer, which watches the C code of Lua as well:
//!
//! ```text
//! CFLAGS="-fsanitize=address --param asan-stack=0" RUSTFLAGS="-Zsanitizer=address -Cllvm-args=-asan-stack=0" \
//!     cargo +nightly test -p shardis-scripting --profile quick --target x86_64-unknown-linux-gnu
//! ```
//!
//! All tests of this crate passed so on 2026-12-01, with leaks looked for, and nothing was found. With the guards of objects on
//! the stack, too (without the last two options), two test programs end early: the frames of Lua's parser are too big then for the
//! stacks of [`stack`], and errors of Lua jump out of frames whose guards stay on these stacks, which the sanitizer does not know
//! as such.

mod common;

use common::{KILLED, RUN_LIMIT_BYTES, Server, eval, eval_with, vm};
use shardis_scripting::{Resp, Vm};

fn reply(vm: &Vm, body: &str) -> String {
    String::from_utf8_lossy(&eval(vm, &mut Server::default(), body, Resp::V2)).into_owned()
}

/// Each script ends with the text.
fn all_end_with(bodies: &[&str], text: &str) {
    let vm = vm();
    for body in bodies {
        let reply = reply(&vm, body);
        assert!(reply.contains(text), "{body}: {reply}");
        // The VM is as it was.
        assert_eq!(self::reply(&vm, "return {1 + 1, #KEYS}"), "*2\r\n:2\r\n:0\r\n", "{body}");
    }
}

/// Ways to catch an error and to go on.
const SWALLOWING: [&str; 12] = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(pcall, pcall, function() while true do end end) end",
    "while true do xpcall(function() while true do end end, function(e) return e end) end",
    "xpcall(function() while true do end end, function(e) while true do end end) while true do end",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "while true do pcall(coroutine.wrap(function() while true do end end)) end",
    "while true do coroutine.wrap(function() return 1 end)() end",
    "local t = setmetatable({}, {__index = function(t, k) while true do pcall(error) end end}) while true do pcall(function() return t.x end) end",
    "while true do load(function() while true do end end) end",
    "while true do pcall(table.sort, {3, 1, 2}, function(a, b) while true do end end) end",
    "while true do pcall(string.gsub, 'abc', '%a', function() while true do end end) end",
];

#[test]
fn a_script_that_is_stopped_at_a_tick_ends_whatever_it_catches() {
    let vm = vm();
    for body in SWALLOWING {
        let mut server = Server { stop_at_tick: Some(3), ..Server::default() };

        let reply = String::from_utf8_lossy(&eval(&vm, &mut server, body, Resp::V2)).into_owned();

        assert!(reply.starts_with(&format!("-{KILLED}")), "{body}: {reply}");
        assert_eq!(server.ticks, 3, "the host is not asked again: {body}");
    }
}

#[test]
fn a_script_that_is_stopped_in_a_call_ends_whatever_it_catches() {
    let vm = vm();
    let mut server = Server { stop_at_call: Some(2), ..Server::default() };

    let reply = eval(
        &vm,
        &mut server,
        "while true do pcall(redis.call, 'set', 'a', 'b') redis.pcall('set', 'c', 'd') end",
        Resp::V2,
    );

    assert!(String::from_utf8_lossy(&reply).starts_with(&format!("-{KILLED} script: ")));
    assert_eq!(server.options.len(), 2, "no command runs after the one that stopped it");
    assert!(!server.strings.contains_key(b"c".as_slice()));
}

/// Ways to allocate without end.
const GREEDY: [&str; 12] = [
    "local t = {} while true do t[#t + 1] = {} end",
    "local s = 'x' while true do s = s .. s end",
    "return string.rep('x', 2000000000)",
    "local t = {} for i = 1, 1e9 do t[i] = tostring(i) end",
    "local t = {} while true do pcall(function() while true do t[#t + 1] = string.rep('x', 100000 + #t) end end) end",
    "while true do local ok, e = pcall(string.rep, 'x', 1e9) end",
    "while true do xpcall(function() return string.rep('x', 1e9) end, function(e) return string.rep('x', 1e9) end) end",
    "while true do coroutine.resume(coroutine.create(function() return string.rep('x', 1e9) end)) end",
    "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    "while true do loadstring(string.rep('x', 1e9)) end",
    "load(function() return string.rep('x', 1e6) end)",
    "return string.rep('x', 1e6):gsub('.', string.rep('y', 1e6))",
];

#[test]
fn a_script_that_allocates_without_end_fails_alone() {
    let vm = vm();
    reply(&vm, "collectgarbage()");
    let before = vm.memory_bytes();
    for body in GREEDY {
        let reply = reply(&vm, body);

        assert!(reply.starts_with("-ERR Script used more memory than a script may"), "{body}: {reply}");
        assert!(vm.memory_bytes() < before + 2 * RUN_LIMIT_BYTES, "{body}");
        self::reply(&vm, "for i = 1, 8 do collectgarbage() end");
        assert!(vm.memory_bytes() < before + (1 << 20), "{body} left {}", vm.memory_bytes());
    }
}

#[test]
fn garbage_does_not_count_for_ever() {
    let vm = vm();

    let reply = reply(&vm, "for i = 1, 2000 do local s = string.rep('x', 100000) .. i end return 'done'");

    assert_eq!(reply, "$4\r\ndone\r\n");
}

/// CVE-2025-49844: the parser's own string of the chunk's name was freed while it parsed.
#[test]
fn a_chunk_name_stays_while_its_chunk_is_parsed() {
    all_end_with(
        &[
            "local n = 0
             return select(2, load(function()
                 n = n + 1
                 collectgarbage()
                 local rubbish = {} for i = 1, 100 do rubbish[i] = '@name' .. i .. n end
                 if n < 50 then return ' local a' .. n .. ' = 1 ' end
                 return n == 50 and 'x x' or nil
             end, '@na' .. 'me\\0' .. 'x'))",
            "for i = 1, 200 do
                 local rubbish = string.rep('x', 10000)
                 loadstring('local f = function() return 1 end x' .. rubbish, '@name' .. i .. rubbish)
             end
             return 'name:1: '",
        ],
        "name:1: ",
    );
}

/// CVE-2025-46819: the lexer read beyond its source after a long bracket that it had miscounted.
#[test]
fn long_brackets_of_any_level_are_read_or_refused() {
    let vm = vm();
    for level in [0, 1, 2, 100, 70_000, 1 << 20] {
        let e = "=".repeat(level);
        assert_eq!(reply(&vm, &format!("--[{e}[ a comment ]{e}] return [{e}[text]{e}]")), "$4\r\ntext\r\n");
        for body in [
            format!("return [{e}[text]{e}"),
            format!("return [{e}[text]{e}=]"),
            format!("return [{e}"),
            format!("return [{e}x"),
            format!("--[{e}[ a comment"),
        ] {
            let refused = reply(&vm, &body);
            assert!(refused.starts_with("-ERR Error compiling script"), "level {level}: {:.80}", refused);
        }
    }
    let body = "local e = string.rep('=', 100000)
        for _, source in ipairs({'return [' .. e, '[' .. e .. '[x]' .. e, '--[' .. e .. '[', 'x = [' .. e .. 'x'}) do
            if loadstring(source) then return source end
        end
        return loadstring('return [' .. e .. '[text]' .. e .. ']')()";
    assert_eq!(reply(&vm, body), "$4\r\ntext\r\n");
}

/// CVE-2025-46817: the number of elements was computed in an `int`.
#[test]
fn unpack_of_a_huge_range_is_an_error() {
    all_end_with(
        &[
            "return {unpack({1, 2, 3}, -2, 2147483647)}",
            "return {unpack({1, 2, 3}, 0, 2147483647)}",
            "return {unpack({1, 2, 3}, -2147483648, 2147483647)}",
            "return {unpack({1, 2, 3}, -2147483648, -1)}",
            "return {unpack({1, 2, 3}, 1, 8001)}",
            "return {unpack({1, 2, 3}, -1e9, 1e9)}",
        ],
        "too many results to unpack",
    );
}

/// CVE-2025-46818, CVE-2022-24735: what one script changes, another would run.
#[test]
fn nothing_that_scripts_share_can_be_changed() {
    all_end_with(
        &[
            "getmetatable('').__index = nil",
            "getmetatable('').__add = function() end",
            "rawset(getmetatable(''), '__index', nil)",
            "table.insert(getmetatable(''), 1)",
            "setmetatable(getmetatable(''), {})",
            "getmetatable(_G).__index = nil",
            "rawset(getmetatable(_G), '__index', nil)",
            "setmetatable(getmetatable(_G), {})",
            "setmetatable(_G, {})",
            "x = 1",
            "_G.x = 1",
            "rawset(_G, 'x', 1)",
            "function f() end",
            "redis.call = nil",
            "redis = nil",
            "string.format = nil",
            "rawset(string, 'format', nil)",
            "table.insert(table, 1)",
            "cjson.encode = nil",
            "bit.x = 1",
            "KEYS = nil",
            "rawset(_G, 'ARGV', {})",
            "loadstring('x = 1')()",
            "coroutine.wrap(function() x = 1 end)()",
            "for k, v in pairs({_G, redis, string, table, math, coroutine, cjson, cmsgpack, struct, bit}) do
                 local ok = pcall(rawset, v, 'x', 1) if ok then return 'changed' end
                 local ok = pcall(setmetatable, v, nil) if ok then return 'changed' end
                 local ok = pcall(function() v.x = 1 end) if ok then return 'changed' end
             end
             x = 1",
        ],
        "Attempt to modify a readonly table",
    );
}

#[test]
fn a_script_leaves_nothing_behind() {
    let vm = vm();
    let first = reply(
        &vm,
        "KEYS.left = 1 ARGV.left = 1 setmetatable(KEYS, {__index = function() return 'left' end})
         pcall(function() left = 1 end) pcall(rawset, _G, 'left', 1) pcall(rawset, redis, 'left', 1) return 'done'",
    );

    let second = reply(
        &vm,
        "local found = {}
         for _, t in ipairs({_G, redis, string, table, KEYS, ARGV, getmetatable('')}) do
             found[#found + 1] = tostring(rawget(t, 'left')) for k in pairs(t) do if k == 'left' then return k end end
         end
         return {table.concat(found, ' '), tostring(KEYS[1]), tostring(getmetatable(KEYS))}",
    );

    assert_eq!(first, "$4\r\ndone\r\n");
    assert_eq!(second, "*3\r\n$27\r\nnil nil nil nil nil nil nil\r\n$3\r\nnil\r\n$3\r\nnil\r\n");
}

/// CVE-2022-0543 and the like: files, the environment, the process, and the insides of Lua.
#[test]
fn a_script_finds_nothing_outside_of_the_sandbox() {
    let names = [
        "os", "io", "package", "require", "module", "debug", "dofile", "loadfile", "print", "getfenv",
        "setfenv", "newproxy", "jit", "ffi", "_LOADED", "arg",
    ];
    let bodies: Vec<String> = names.iter().map(|name| format!("return {name}")).collect();
    all_end_with(
        &bodies.iter().map(String::as_str).collect::<Vec<_>>(),
        "Script attempted to access nonexistent global",
    );
}

/// CVE-2024-46981: a `__gc` ran when the VM was closed.
#[test]
fn no_collector_calls_a_script() {
    let vm = vm();

    let reply = reply(
        &vm,
        "local t = setmetatable({}, {__gc = function() while true do end end}) t = nil collectgarbage() return 'done'",
    );
    drop(vm);

    assert_eq!(reply, "$4\r\ndone\r\n");
}

/// CVE-2015-4335, CVE-2022-24736: the VM believes what stands in bytecode.
#[test]
fn bytecode_is_not_loaded() {
    all_end_with(
        &[
            "return select(2, loadstring(string.dump(function() return 1 end)))",
            "local code = string.dump(function() return 1 end)
             return select(2, load(function() local c = code code = nil return c end))",
            "local code = string.dump(function() return 1 end)
             local at = 0
             return select(2, load(function() at = at + 1 if at <= #code then return code:sub(at, at) end end))",
            "return select(2, loadstring('\\27'))",
        ],
        "unexpected symbol near 'char(27)'",
    );
    let vm = vm();
    let compiled = vm.compile(b"\x1bLuaQ\0\x01\x04\x08\x04\x08\0");
    assert!(compiled.is_err());
}

/// CVE-2021-32626 and recursion without end, on a stack of the length that the engine asks for.
const DEEP: [&str; 16] = [
    "local function r() return r() + 1 end return r()",
    "local function r(n) return pcall(r, n) end return {r(1)}",
    "local function r() return (string.gsub('x', 'x', r)) end return r()",
    "local function r() return (string.gsub('x', 'x', function() return pcall(r) end)) end return r()",
    "local function r() local t = {2, 1} table.sort(t, function(a, b) r() return a < b end) end r()",
    "local function r() return coroutine.wrap(r)() end return r()",
    "local function r() return coroutine.wrap(function() return (string.gsub('x', 'x', r)) end)() end return r()",
    "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) return t[1]",
    "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
    "local t = setmetatable({}, {}) getmetatable(t).__call = t return t()",
    "local t = setmetatable({}, {__tostring = function(t) return tostring(t) end}) return tostring(t)",
    "local function r() return (xpcall(r, error)) end return {r()}",
    "local function r() return load(r) end return r()",
    "return loadstring('return ' .. string.rep('(', 10000))",
    "return loadstring(string.rep('do ', 10000) .. string.rep('function f() ', 10000))",
    "return loadstring('local a = ' .. string.rep('{', 10000))",
];

/// What recurses in C alone.
const DEEP_IN_C: [&str; 8] = [
    "return string.find(string.rep('a', 100000), string.rep('a?', 4000) .. string.rep('a', 4000))",
    "return string.find(string.rep('a', 100000), string.rep('a?', 100000))",
    "return string.find(string.rep('a', 3000), string.rep('(', 32) .. '.-b')",
    "return string.find('a', string.rep('(', 100000))",
    "local t = {} for i = 1, 100000 do t = {t} end return t",
    "local t = {} for i = 1, 100000 do t = {map = {t}} end return t",
    "local t = {} for i = 1, 100000 do t = {t} end return pcall(cjson.encode, t)",
    "local t = {} for i = 1, 100000 do t = {t} end return pcall(cmsgpack.pack, t)",
];

mod stack {
    use corosensei::stack::{Stack, StackPointer};
    use shardis_scripting::STACK_BYTES;

    const PAINT: u64 = 0xA5A5_5A5A_A5A5_5A5A;
    const ALIGN_BYTES: usize = 64;

    /// A stack without guard, that tells how much of it was used.
    pub struct Painted {
        words: Box<[u64]>,
    }

    impl Painted {
        pub fn new() -> Painted {
            Painted { words: vec![PAINT; STACK_BYTES / 8].into_boxed_slice() }
        }

        pub fn used_bytes(&self) -> usize {
            let untouched = self.words.iter().take_while(|word| **word == PAINT).count();
            (self.words.len() - untouched) * 8
        }

        fn limit_address(&self) -> usize {
            self.words.as_ptr() as usize
        }
    }

    // SAFETY: base and limit are those of memory that the struct owns and that does not move.
    unsafe impl Stack for Painted {
        fn base(&self) -> StackPointer {
            let end = (self.limit_address() + self.words.len() * 8) / ALIGN_BYTES * ALIGN_BYTES;
            StackPointer::new(end).expect("an address")
        }

        fn limit(&self) -> StackPointer {
            StackPointer::new(self.limit_address().next_multiple_of(ALIGN_BYTES)).expect("an address")
        }
    }
}

/// The C stack that the script takes.
fn stack_used_bytes(body: &'static str) -> usize {
    let mut coroutine = corosensei::Coroutine::with_stack(
        stack::Painted::new(),
        move |_: &corosensei::Yielder<(), ()>, ()| {
            let vm = vm();
            let mut server = Server { stop_at_tick: Some(200), ..Server::default() };
            assert!(eval(&vm, &mut server, body, Resp::V2).ends_with(b"\r\n"));
            assert_eq!(self::reply(&vm, "return 1"), ":1\r\n", "{body}");
        },
    );
    assert!(matches!(coroutine.resume(()), corosensei::CoroutineResult::Return(())), "{body}");
    coroutine.into_stack().used_bytes()
}

#[test]
fn the_deepest_recursion_fits_the_stack_twice() {
    let mut deepest = (0, "");
    for body in DEEP.iter().chain(&DEEP_IN_C) {
        let used = stack_used_bytes(body);
        println!("{used:8} {}", body.lines().next().unwrap_or_default());
        deepest = deepest.max((used, body));
    }

    assert!(deepest.0 <= shardis_scripting::STACK_BYTES / 2, "{} bytes: {}", deepest.0, deepest.1);
}

#[test]
fn a_pattern_that_recurses_without_end_is_refused() {
    all_end_with(
        &[
            "return string.find('a', string.rep('a?', 5000))",
            "return string.match('a', string.rep('a-', 5000))",
            "return string.gsub('a', string.rep('a*', 5000), '')",
            "for x in string.gmatch('a', string.rep('a+', 5000)) do end",
            "for x in string.gfind('a', string.rep('a+', 5000)) do end",
            "return ('a'):find(string.rep('a?', 5000))",
        ],
        "pattern too complex",
    );
}

/// CVE-2024-31449, CVE-2018-11218, CVE-2018-11219, CVE-2020-14147: the C libraries that Redis ships.
#[test]
fn arguments_out_of_range_are_answered_or_refused() {
    let vm = vm();
    for body in [
        "return bit.tohex(65535, -2147483648)",
        "return bit.tohex(1, 2147483647)",
        "return {pcall(struct.pack, 'i2147483648', 1)}",
        "return {pcall(struct.unpack, 'i', 'abcd', 2147483647)}",
        "return {pcall(struct.unpack, 'c0', 'abcd')}",
        "return {pcall(struct.unpack, 'Bc2147483647', 'abcd')}",
        "return {pcall(struct.size, '>!16' .. string.rep('i16', 1000))}",
        "return {pcall(cmsgpack.unpack, string.rep('\\x91', 100000))}",
        "return {pcall(cmsgpack.unpack, string.char(0xdd, 0xff, 0xff, 0xff, 0xff))}",
        "return {pcall(cmsgpack.unpack, string.char(0xdb, 0xff, 0xff, 0xff, 0xff))}",
        "return {pcall(cmsgpack.unpack_limit, 'abc', 1, 1e10)}",
        "return {pcall(cjson.decode, string.rep('[', 100000))}",
        "return {pcall(cjson.decode, '\"\\\\ud800')}",
    ] {
        let reply = reply(&vm, body);
        assert!(!reply.is_empty(), "{body}");
        assert_eq!(self::reply(&vm, "return 1"), ":1\r\n", "{body}");
    }
}

#[test]
fn a_body_may_be_any_bytes() {
    let seed = std::process::id();
    println!("seed {seed}");
    let vm = vm();
    for seed in [1, seed] {
        let mut state = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for _ in 0..2_000 {
            let mut body = b"return ".to_vec();
            while !state.is_multiple_of(11) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let words: [&[u8]; 12] = [
                    b"(",
                    b")",
                    b"{",
                    b"}",
                    b"[[",
                    b"\0",
                    b"\x1b",
                    b"function",
                    b" end ",
                    b"'",
                    b"--",
                    b"...",
                ];
                body.extend_from_slice(words[(state >> 40) as usize % words.len()]);
                body.push((state >> 33) as u8);
            }
            state += 1;

            let mut server = Server { stop_at_tick: Some(1), ..Server::default() };
            let reply = eval_with(&vm, &mut server, &body, &[], &[], Resp::V3);

            assert!(reply.ends_with(b"\r\n"), "seed {seed}: {body:?}");
        }
    }
}
