//! Random scripts that pass keys, arguments, tables of these and `redis.call` around in all ways, run by the real engine: one
//! whose keys are said to be known touches its declared keys and those alone, and one that is said to write nothing does not.

use std::time::{SystemTime, UNIX_EPOCH};

use shardis_scripting::{
    Args, Begin, CallFacts, CallOptions, Commands, Control, Find, Host, KeyGroup, KeyUse, LogLevel, Random,
    RunOptions, Vm, VmOptions, library_key_use, script_key_use,
};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }
}

/// Commands by the groups of their keys.
struct Table;

fn group(begin: usize, find: Find) -> KeyGroup {
    KeyGroup { begin: Begin::Index(begin), find }
}

const ONE: Find = Find::Range { last: 0, step: 1, limit: 0 };

impl Commands for Table {
    fn facts(&self, args: &[Option<&[u8]>], _is_complete: bool) -> Option<CallFacts> {
        let (keys, writes) = match args[0]?.to_ascii_lowercase().as_slice() {
            b"get" => (vec![group(1, ONE)], false),
            b"set" => (vec![group(1, ONE)], true),
            b"mget" => (vec![group(1, Find::Range { last: -1, step: 1, limit: 0 })], false),
            b"rename" => (vec![group(1, Find::Range { last: 1, step: 1, limit: 0 })], true),
            b"zunionstore" => (vec![group(1, ONE), group(2, Find::Count { at: 0, first: 1, step: 1 })], true),
            _ => return None,
        };
        Some(CallFacts { keys, writes, publishes: false })
    }
}

/// Notes whether a run touched other keys than the declared ones.
struct Watcher {
    declared: Vec<Vec<u8>>,
    touched_others: Vec<Vec<u8>>,
    wrote: bool,
    call_count: usize,
    tick_count: usize,
}

const TICKS_MAX: usize = 20;

impl Host for Watcher {
    fn call(&mut self, args: Args<'_>, _options: CallOptions, reply: &mut Vec<u8>) -> Control {
        let args: Vec<&[u8]> = args.iter().collect();
        self.call_count += 1;
        let keys: Vec<&[u8]> = match args[0].to_ascii_lowercase().as_slice() {
            b"get" | b"set" => args.iter().skip(1).take(1).copied().collect(),
            b"mget" => args[1..].to_vec(),
            b"rename" => args.iter().skip(1).take(2).copied().collect(),
            b"zunionstore" => {
                let count = args.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
                let sources = args.iter().skip(3).take(count.unwrap_or(0));
                args.iter().skip(1).take(1).chain(sources).copied().collect()
            }
            _ => Vec::new(),
        };
        self.wrote |= matches!(args[0].to_ascii_lowercase().as_slice(), b"set" | b"rename" | b"zunionstore");
        self.touched_others.extend(
            keys.iter().filter(|key| !self.declared.iter().any(|this| this == *key)).map(|key| key.to_vec()),
        );
        reply.extend_from_slice(b"$2\r\nk9\r\n");
        if self.call_count > 200 { Control::Stop("ERR enough") } else { Control::GoOn }
    }

    fn tick(&mut self) -> Control {
        self.tick_count += 1;
        if self.tick_count > TICKS_MAX { Control::Stop("ERR enough") } else { Control::GoOn }
    }

    fn log(&mut self, _level: LogLevel, _message: &[u8]) {}

    fn replied_error(&mut self, _text: &[u8], _already_counted: bool) {}

    fn may_call(&mut self, _args: Args<'_>) -> Option<bool> {
        Some(true)
    }
}

/// Writes a script.
struct Author {
    rng: Rng,
    /// What the keys and the arguments are called.
    keys: &'static str,
    args: &'static str,
    text: String,
    /// Fewer and fewer are allowed.
    budget: usize,
}

const VARIABLES: [&str; 6] = ["a", "b", "c", "k", "t", "f"];

impl Author {
    fn variable(&mut self) -> &'static str {
        self.rng.pick(&VARIABLES)
    }

    fn key(&mut self) -> String {
        let keys = self.keys;
        match self.rng.below(12) {
            0 => self.variable().to_string(),
            1 => self.expr(1),
            2 => format!("{}[1]", self.variable()),
            3 => format!("unpack({keys})"),
            4 => format!("{keys}[#{keys}]"),
            5 => format!("({keys}[2] or {keys}[1])"),
            6 => format!("'p:' .. {}[{}]", self.args, self.rng.pick(&["1", "2"])),
            _ => format!("{keys}[{}]", 1 + self.rng.below(2)),
        }
    }

    /// The arguments of a command, its name first.
    fn command(&mut self) -> String {
        let key = self.key();
        match self.rng.below(8) {
            0 => format!("'SET', {key}, {}", self.expr(1)),
            1 => format!("'MGET', {key}, {}", self.key()),
            2 => format!("'RENAME', {key}, {}", self.key()),
            3 => format!(
                "'ZUNIONSTORE', {key}, {}, {}",
                self.rng.pick(&["1", "2", "#KEYS", "ARGV[1]"]),
                self.key()
            ),
            4 => self.expr(1),
            _ => format!("'GET', {key}"),
        }
    }

    fn call(&mut self) -> String {
        let command = self.command();
        let callee = match self.rng.below(10) {
            0 => self.variable().to_string(),
            1 => format!("{}.call", self.variable()),
            2 => "redis.pcall".to_string(),
            3 => return format!("pcall(redis.call, {command})"),
            4 => return format!("pcall({}, {command})", self.variable()),
            _ => "redis.call".to_string(),
        };
        format!("{callee}({command})")
    }

    fn expr(&mut self, depth: usize) -> String {
        if depth == 0 || self.budget == 0 {
            return self.variable().to_string();
        }
        let (keys, args) = (self.keys, self.args);
        match self.rng.below(30) {
            0..=4 => format!("{keys}[{}]", self.rng.pick(&["1", "2", "i", "#KEYS", "'x'"])),
            5 => keys.to_string(),
            6 => format!("{args}[1]"),
            7 => "'other'".to_string(),
            8 => "'GET'".to_string(),
            9 => format!("{{ {}, {} }}", self.expr(depth - 1), self.expr(depth - 1)),
            10 => format!("{{ call = {}, [1] = {} }}", self.expr(depth - 1), self.expr(depth - 1)),
            11 => format!("({} or {})", self.expr(depth - 1), self.expr(depth - 1)),
            12 => format!("({} and {})", self.expr(depth - 1), self.expr(depth - 1)),
            13 => format!("unpack({})", self.expr(depth - 1)),
            14 => "redis.call".to_string(),
            15 => "redis".to_string(),
            16 => format!("{}[1]", self.variable()),
            17 => format!("{}({}, {})", self.variable(), self.expr(depth - 1), self.expr(depth - 1)),
            18 => self.call(),
            19 => format!("({} .. 'x')", self.expr(depth - 1)),
            20 => self.function(),
            21 => format!("tostring({})", self.expr(depth - 1)),
            22 => format!("select(2, {}, {})", self.expr(depth - 1), self.expr(depth - 1)),
            23 => "nil".to_string(),
            24 => format!("setmetatable({{}}, {{ __index = {} }})", self.expr(depth - 1)),
            25 => format!("({})", self.expr(depth - 1)),
            26 => args.to_string(),
            27 => format!("({} .. {args}[{}])", self.expr(depth - 1), self.rng.pick(&["1", "2", "3", "i"])),
            _ => self.variable().to_string(),
        }
    }

    fn function(&mut self) -> String {
        let params = self.rng.pick(&["a, b", "k", "k, t", "...", "", "f, ..."]);
        let body = self.nested();
        let result = if params.contains("...") && self.rng.below(2) == 0 {
            "...".to_string()
        } else {
            format!("{}, {}", self.expr(1), self.expr(1))
        };
        format!("function({params}) {body} return {result} end")
    }

    /// Statements, as a text of their own.
    fn nested(&mut self) -> String {
        let outer = std::mem::take(&mut self.text);
        for _ in 0..1 + self.rng.below(3) {
            self.statement();
        }
        std::mem::replace(&mut self.text, outer)
    }

    fn statement(&mut self) {
        if self.budget == 0 {
            return;
        }
        self.budget -= 1;
        let (keys, args) = (self.keys, self.args);
        let statement = match self.rng.below(25) {
            0..=3 => format!("local {} = {}", self.variable(), self.expr(2)),
            4 | 5 => format!("{} = {}", self.variable(), self.expr(2)),
            6 => {
                format!("local {}, {} = {}, {}", self.variable(), self.variable(), self.expr(2), self.expr(1))
            }
            7 => format!("{}[1] = {}", self.variable(), self.expr(2)),
            8 => format!("{}.call = {}", self.variable(), self.expr(2)),
            9 => format!("table.insert({}, {})", self.variable(), self.expr(1)),
            10 => format!("pcall(function() {} end)", self.nested()),
            11 => format!("if {} then {} else {} end", self.expr(1), self.nested(), self.nested()),
            12 => format!("for i = 1, #{keys} do {} end", self.nested()),
            13 => format!("for i, {} in ipairs({}) do {} end", self.variable(), self.expr(1), self.nested()),
            14 => format!("for i, {} in ipairs({keys}) do {} end", self.variable(), self.nested()),
            15 => format!("local f = {}", self.function()),
            16 => format!("local function f(k, t) {} return {} end", self.nested(), self.expr(1)),
            17 => format!("{}({}, {})", self.variable(), self.expr(1), self.expr(1)),
            18 => format!("repeat local k = {} {} until true", self.expr(1), self.nested()),
            19 => format!("{args}[1] = {}", self.rng.pick(&["'z'", "k", "nil"])),
            _ => self.call(),
        };
        // A call may not begin with what looks like arguments of the statement before.
        let statement = if statement.ends_with(')') && self.rng.below(3) > 0 {
            format!("pcall(function() {statement} end)")
        } else {
            statement
        };
        self.text.push_str(&statement);
        self.text.push_str(";\n");
    }
}

fn author(seed: u64, keys: &'static str, args: &'static str) -> Author {
    Author { rng: Rng(seed), keys, args, text: String::new(), budget: 14 }
}

fn script(seed: u64) -> String {
    let mut author = author(seed, "KEYS", "ARGV");
    let declared = "local a, b, c, k, t, f, i\n";
    for _ in 0..8 {
        author.statement();
    }
    format!("{declared}{}", author.text)
}

/// Two functions that share variables.
fn library(seed: u64) -> String {
    let mut author = author(seed, "keys", "args");
    let mut text = "local a, b, c, k, t, f, i\n".to_string();
    for name in ["one", "two"] {
        author.budget += 8;
        let body = author.nested();
        let own = if author.rng.below(3) == 0 { "" } else { "local a, b, c, k, t, f, i\n" };
        text.push_str(&format!("redis.register_function('{name}', function(keys, args) {own}{body} end)\n"));
    }
    text
}

fn vm() -> Vm {
    Vm::new(VmOptions { random: Random::from_state(1), redis_version: "7.0.15", run_limit_bytes: 64 << 20 })
}

fn watcher(declared: &[&[u8]]) -> Watcher {
    Watcher {
        declared: declared.iter().map(|key| key.to_vec()).collect(),
        touched_others: Vec::new(),
        wrote: false,
        call_count: 0,
        tick_count: 0,
    }
}

#[track_caller]
fn check(found: &KeyUse, watcher: &Watcher, args: &[&[u8]], seed: u64, source: &str) {
    let declared: Vec<&[u8]> = watcher.declared.iter().map(Vec::as_slice).collect();
    let made: Vec<Vec<u8>> =
        found.undeclared.iter().filter_map(|template| template.key(&declared, args)).collect();
    let others: Vec<_> = watcher.touched_others.iter().filter(|key| !made.contains(key)).collect();
    let others: Vec<_> = others.into_iter().map(|key| String::from_utf8_lossy(key)).collect();
    assert!(found.wide.is_some() || others.is_empty(), "seed {seed}: it touched {others:?}\n{source}");
    assert!(found.may_write || !watcher.wrote, "seed {seed}: it wrote\n{source}");
}

/// Seeds that are the same each time, and some that are not.
fn seeds() -> impl Iterator<Item = u64> {
    const FIXED: u64 = 5_000;
    const FRESH: u64 = 1_000;
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
    println!("fresh seeds from {fresh}");
    (0..FIXED).chain((0..FRESH).map(move |n| fresh.wrapping_add(n)))
}

const ONE_RUN: [&[u8]; 2] = [b"k1", b"k2"];
const OTHER_RUN: [&[u8]; 2] = [b"k3", b"k4"];

#[test]
fn a_script_that_is_called_narrow_is_so() {
    let vm = vm();
    let (mut narrow_count, mut made_count, mut wide_that_strays) = (0, 0, 0);
    for seed in seeds() {
        let source = script(seed);
        let found = script_key_use(source.as_bytes(), &Table);
        let Ok(compiled) = vm.compile(source.as_bytes()) else { continue };
        let mut watcher = watcher(&ONE_RUN);
        let mut reply = Vec::new();
        let args: [&[u8]; 2] = [b"k7", b"2"];
        let _ =
            vm.run(&compiled, &[b'0'; 40], &ONE_RUN, &args, RunOptions::default(), &mut watcher, &mut reply);
        check(&found, &watcher, &args, seed, &source);
        narrow_count += usize::from(found.is_narrow() && watcher.call_count > 0);
        made_count += usize::from(found.wide.is_none() && !watcher.touched_others.is_empty());
        wide_that_strays += usize::from(found.wide.is_some() && !watcher.touched_others.is_empty());
    }
    println!(
        "{narrow_count} narrow ones that call, {made_count} that touch keys that they make, {wide_that_strays} others"
    );
    assert!(
        narrow_count > 200 && made_count > 30 && wide_that_strays > 20,
        "{narrow_count}, {made_count} and {wide_that_strays}"
    );
}

#[test]
fn a_function_that_is_called_narrow_is_so_in_every_run() {
    let vm = vm();
    let (mut narrow_count, mut made_count) = (0, 0);
    for seed in seeds() {
        let source = library(seed);
        let found = library_key_use(source.as_bytes(), &Table);
        let mut loading = watcher(&[]);
        let Ok(library) = vm.load_library(source.as_bytes(), &mut loading) else { continue };
        let runs = [("one", ONE_RUN), ("two", OTHER_RUN), ("one", OTHER_RUN), ("two", ONE_RUN)];
        for ((name, keys), first_arg) in runs.into_iter().zip([b"k7", b"k8", b"k9", b"k6"]) {
            let position = library.position(name.as_bytes()).expect("it is registered");
            let mut watcher = watcher(&keys);
            let mut reply = Vec::new();
            let args: [&[u8]; 2] = [first_arg, b"2"];
            let _ = vm.call_function(
                &library,
                position,
                &keys,
                &args,
                RunOptions::default(),
                &mut watcher,
                &mut reply,
            );
            let found = found.function(name.as_bytes());
            check(found, &watcher, &args, seed, &source);
            narrow_count += usize::from(found.is_narrow() && watcher.call_count > 0);
            made_count += usize::from(found.wide.is_none() && !watcher.touched_others.is_empty());
        }
    }
    println!(
        "{narrow_count} runs of narrow functions that call, {made_count} of some that touch keys that they make"
    );
    assert!(narrow_count > 50 && made_count > 10, "{narrow_count} and {made_count}");
}
