//! Scripts from a grammar, through the engine with a server of a few commands: whatever they do ends with a reply or an error,
//! and the VM goes on as if it had not been.
//!
//! Input: each byte is a choice of the grammar.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use shardis_scripting::{
    Args, CallOptions, Control, Host, LogLevel, Random, Resp, RunOptions, Vm, VmOptions,
};

const RUN_LIMIT_BYTES: usize = 16 << 20;
/// A run is stopped at this tick.
const TICKS_MAX: usize = 20;
/// How deep expressions are nested.
const DEPTH_MAX: usize = 5;
const SCRIPT_LEN_MAX: usize = 8 << 10;

/// Answers some commands, all of them with what a script must be able to bear.
struct Server {
    ticks: usize,
    calls: usize,
}

impl Host for Server {
    fn call(&mut self, args: Args<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control {
        self.calls += 1;
        let is_3 = options.resp == Resp::V3;
        let answer: &[u8] = match args.iter().next().unwrap_or_default() {
            b"nil" => b"$-1\r\n",
            b"null" if is_3 => b"_\r\n",
            b"ok" => b"+OK\r\n",
            b"number" => b":42\r\n",
            b"list" => b"*3\r\n:1\r\n$1\r\na\r\n*1\r\n+x\r\n",
            b"map" if is_3 => b"%1\r\n$1\r\nk\r\n:1\r\n",
            b"set" if is_3 => b"~2\r\n:1\r\n:2\r\n",
            b"double" if is_3 => b",1.5\r\n",
            b"true" if is_3 => b"#t\r\n",
            b"big" if is_3 => b"(123456789012345678901234567890\r\n",
            b"verbatim" if is_3 => b"=5\r\ntxt:a\r\n",
            _ => b"-ERR no such command\r\n",
        };
        reply.extend_from_slice(answer);
        if self.calls > 1000 { Control::Stop("ERR stopped") } else { Control::GoOn }
    }

    fn tick(&mut self) -> Control {
        self.ticks += 1;
        if self.ticks >= TICKS_MAX { Control::Stop("ERR stopped") } else { Control::GoOn }
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn replied_error(&mut self, _text: &[u8], _already_counted: bool) {}

    fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        args.iter().next()?.first().map(|byte| byte % 2 == 0)
    }
}

/// Writes a script as the input chooses.
struct Grammar<'i> {
    choices: &'i [u8],
    script: String,
    depth: usize,
}

const NAMES: [&str; 8] = ["a", "b", "c", "t", "f", "s", "KEYS", "ARGV"];
const FUNCTIONS: [&str; 74] = [
    "redis.call", "redis.pcall", "redis.error_reply", "redis.status_reply", "redis.sha1hex", "redis.log", "redis.setresp",
    "redis.set_repl", "redis.acl_check_cmd", "redis.replicate_commands", "redis.breakpoint", "redis.debug",
    "cjson.encode", "cjson.decode", "cjson.new", "cjson.encode_max_depth", "cjson.decode_max_depth",
    "cjson.encode_sparse_array", "cjson.encode_keep_buffer", "cmsgpack.pack", "cmsgpack.unpack", "cmsgpack.unpack_one",
    "cmsgpack.unpack_limit", "struct.pack", "struct.unpack", "struct.size", "bit.tohex", "bit.band", "bit.lshift",
    "string.rep", "string.sub", "string.gsub", "string.gmatch", "string.find", "string.format", "string.byte",
    "string.char", "string.reverse", "string.upper", "string.dump", "table.concat", "table.insert", "table.remove",
    "table.sort", "table.getn", "table.maxn", "table.setn", "table.foreach", "math.random", "math.randomseed",
    "math.floor", "math.fmod", "coroutine.create", "coroutine.resume", "coroutine.wrap", "coroutine.yield",
    "coroutine.running", "coroutine.status", "pcall", "xpcall", "error", "assert", "load", "loadstring", "select",
    "tonumber", "tostring", "unpack", "setmetatable", "getmetatable", "rawset", "rawget", "next", "collectgarbage",
];
/// None between: up to 2^31 Lua takes for a count, and loops so often in one native call.
const NUMBERS: [&str; 20] = [
    "0", "1", "2", "3", "-1", "10", "100", "1000", "1e6", "2^22", "2^22-1", "-2^22", "2^32", "2^53", "2^63", "-2^63", "1/0",
    "0/0", "0.5", "-0",
];
const STRINGS: [&str; 30] = [
    "''", "'a'", "'k'", "'nil'", "'list'", "'map'", "'ok'", "'number'", "'double'", "'__index'", "'__gc'", "'%s%d%q'",
    "'%99.99f'", "'(.-)%1'", "'%b()%f[a]'", "'[[1,{\"a\":null}]]'", "'{\"a\":[1.5e3,\"\\\\u00e9\"]}'", "'[[[['", "'!8i16sc0'",
    "'>i4<d'", "'c2147483647'", "'\\145\\145\\1'", "'\\129\\161a\\192'", "'\\221\\255\\255\\255\\255'", "'return 1'",
    "'return function(...) return ... end'", "'\\27Lua'", "'#!lua name=x'", "string.rep('[', 2000)", "[==[ ]] ]==]",
];

impl Grammar<'_> {
    fn choose(&mut self, count: usize) -> usize {
        let Some((choice, rest)) = self.choices.split_first() else { return 0 };
        self.choices = rest;
        usize::from(*choice) % count
    }

    fn pick(&mut self, from: &[&str]) {
        let text = from[self.choose(from.len())];
        self.put(text);
    }

    fn put(&mut self, text: &str) {
        self.script.push_str(text);
    }

    fn block(&mut self) {
        let count = self.choose(4);
        for _ in 0..count {
            if self.script.len() > SCRIPT_LEN_MAX {
                return;
            }
            self.statement();
            self.put("\n");
        }
    }

    fn statement(&mut self) {
        self.depth += 1;
        match if self.depth > DEPTH_MAX { 0 } else { self.choose(16) } {
            0..=2 => self.call(),
            3 => {
                self.put("local ");
                self.pick(&NAMES);
                self.put(" = ");
                self.expression();
            }
            4 | 5 => {
                self.pick(&NAMES);
                self.put(" = ");
                self.expression();
            }
            6 => {
                self.put("if ");
                self.expression();
                self.put(" then ");
                self.block();
                self.put(" end");
            }
            7 => {
                self.put("for a = 1, ");
                self.expression();
                self.put(" do ");
                self.block();
                self.put(" end");
            }
            8 => {
                self.put("while ");
                self.expression();
                self.put(" do ");
                self.block();
                self.put(" end");
            }
            9 => {
                self.put("for a, b in pairs(");
                self.expression();
                self.put(") do ");
                self.block();
                self.put(" end");
            }
            10 | 11 => {
                self.put("local ok, a = pcall(function() ");
                self.block();
                self.put(" end)");
            }
            12 => {
                self.put("local function f(a, ...) ");
                self.block();
                self.put(" return ");
                self.expression();
                self.put(" end");
            }
            13 => {
                self.put("t[");
                self.expression();
                self.put("] = ");
                self.expression();
            }
            14 => {
                let library = self.choose(4);
                let name = ["redis", "cjson", "string", "_G"][library];
                self.put(&format!("pcall(function() {name}.a = "));
                self.expression();
                self.put(" end)");
            }
            _ => {
                self.put("setmetatable(t, {__index=");
                self.expression();
                self.put(", __newindex=");
                self.expression();
                self.put("})");
            }
        }
        self.depth -= 1;
    }

    fn call(&mut self) {
        self.pick(&FUNCTIONS);
        self.put("(");
        let count = self.choose(4);
        for at in 0..count {
            if at > 0 {
                self.put(",");
            }
            self.expression();
        }
        self.put(")");
    }

    fn expression(&mut self) {
        self.depth += 1;
        match if self.depth > DEPTH_MAX { self.choose(8) } else { self.choose(20) } {
            0 | 1 => self.pick(&NUMBERS),
            2..=4 => self.pick(&STRINGS),
            5 | 6 => self.pick(&NAMES),
            7 => self.pick(&["nil", "true", "false", "{}", "cjson.null", "_G", "redis", "print"]),
            8..=12 => self.call(),
            13 => {
                self.put("{");
                for _ in 0..self.choose(4) {
                    self.expression();
                    self.put(",");
                }
                self.put("}");
            }
            14 => {
                self.put("{[");
                self.expression();
                self.put(" or 1]=");
                self.expression();
                self.put("}");
            }
            15 => {
                self.put("function(a, b) ");
                self.block();
                self.put(" return ");
                self.expression();
                self.put(" end");
            }
            16 => self.pick(&FUNCTIONS),
            17 => {
                self.put("(");
                self.expression();
                self.pick(&["+", "-", "..", "==", "<", " and ", " or ", "^", "%"]);
                self.expression();
                self.put(")");
            }
            18 => {
                self.put("#(");
                self.expression();
                self.put(")");
            }
            _ => {
                self.put("coroutine.wrap(function(...) ");
                self.block();
                self.put(" coroutine.yield(");
                self.expression();
                self.put(") end)");
            }
        }
        self.depth -= 1;
    }
}

thread_local! {
    static STATE: RefCell<Option<Vm>> = const { RefCell::new(None) };
}

fn new_vm() -> Vm {
    Vm::new(VmOptions {
        random: Random::from_state(1),
        redis_version: "7.0.15",
        run_limit_bytes: RUN_LIMIT_BYTES,
    })
}

fn run(vm: &Vm, body: &[u8], client_resp: Resp) -> Result<Vec<u8>, Vec<u8>> {
    let script = vm.compile(body).map_err(|error| error.text)?;
    let mut reply = Vec::new();
    let mut server = Server { ticks: 0, calls: 0 };
    let keys: [&[u8]; 2] = [b"k1", b"k2"];
    let args: [&[u8]; 2] = [b"list", b"[1,{\"a\":2}]"];
    vm.run(&script, b"x", &keys, &args, RunOptions { client_resp }, &mut server, &mut reply)
        .map(|()| reply)
        .map_err(|error| error.text)
}

fuzz_target!(|input: &[u8]| {
    let mut grammar = Grammar { choices: input, script: String::new(), depth: 0 };
    grammar.put("local a, b, c, t, f, s = 1, 'x', nil, {1, 2, x = 3}, function(...) return ... end, 'text'\n");
    let client_resp = if grammar.choose(2) == 0 { Resp::V2 } else { Resp::V3 };
    for _ in 0..6 {
        grammar.statement();
        grammar.put("\n");
    }
    grammar.put("return ");
    grammar.expression();
    let script = grammar.script;

    STATE.with_borrow_mut(|state| {
        let vm = state.get_or_insert_with(new_vm);
        match run(vm, script.as_bytes(), client_resp) {
            Ok(reply) => assert!(reply.ends_with(b"\r\n"), "{script}"),
            Err(error) => assert!(!error.is_empty() && !error.contains(&b'\n'), "{script}"),
        }
        // Nothing of it is left.
        let probe = b"return {#KEYS, cjson.encode({1}), string.rep('x', 3)}";
        let told = run(vm, probe, Resp::V2).unwrap_or_else(|error| error);
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("[1]") && told.contains("xxx"), "{told} after {script}");
    });
});
