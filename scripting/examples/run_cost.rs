//! What a run of a script costs with a host that does nothing: nanoseconds of this thread's CPU time a run, the best
//! of several rounds.
//!
//!     cargo run --release -p shardis-scripting --example run_cost
//!
//! With the name of a script and a number, that script alone runs so many times and nothing is timed: for a profiler.
//!
//!     valgrind --tool=callgrind target/release/examples/run_cost GET 10000

use std::hint::black_box;
use std::time::Duration;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use shardis_scripting::{
    Args, CallOptions, Control, Host, LogLevel, Random, RunOptions, STACK_BYTES, Script, Vm, VmOptions,
};

struct Idle;

impl Host for Idle {
    fn call(&mut self, args: Args<'_>, _: CallOptions, reply: &mut Vec<u8>) -> Control {
        black_box(args.bytes);
        reply.extend_from_slice(b"$5\r\nvalue\r\n");
        Control::GoOn
    }

    fn tick(&mut self) -> Control {
        Control::GoOn
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn replied_error(&mut self, _text: &[u8], _already_counted: bool) {}

    fn may_call(&mut self, _: Args<'_>) -> Option<bool> {
        None
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn best(runs: u32, mut run: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = cpu_time();
            for _ in 0..runs {
                run();
            }
            (cpu_time() - start).as_secs_f64() * 1e9 / f64::from(runs)
        })
        .fold(f64::INFINITY, f64::min)
}

const SCRIPTS: [(&str, &str, u32); 5] = [
    ("return 1", "return 1", 500_000),
    ("GET", "return redis.call('GET', KEYS[1])", 500_000),
    (
        "INCR, EXPIRE",
        "local n = redis.call('INCR', KEYS[1]) if n then redis.call('EXPIRE', KEYS[1], 60) end return n",
        300_000,
    ),
    ("100 calls", "for i = 1, 100 do redis.call('SET', KEYS[1], i) end return 1", 20_000),
    ("cjson", "return #cjson.encode(cjson.decode(ARGV[1]))", 20_000),
];

/// A JSON document of about 1 KB.
fn document() -> String {
    let item = |n: u32| {
        format!(
            r#"{{"id":{n},"name":"item number {n}","price":{n}.25,"tags":["new","sale"],"in_stock":true,"note":null}}"#
        )
    };
    let items: Vec<String> = (1..=10).map(item).collect();
    format!(r#"{{"order":123456,"customer":"c-000042","items":[{}]}}"#, items.join(","))
}

fn once(vm: &Vm, script: &Script, args: &[&[u8]], reply: &mut Vec<u8>) {
    reply.clear();
    vm.run(
        script,
        b"0123456789012345678901234567890123456789",
        &[b"key:1"],
        args,
        RunOptions::default(),
        &mut Idle,
        reply,
    )
    .expect("the script runs");
    black_box(reply);
}

fn main() {
    let vm = Vm::new(VmOptions {
        random: Random::from_state(1),
        redis_version: "7.0.15",
        run_limit_bytes: usize::MAX,
    });
    let document = document();
    let args = [document.as_bytes()];
    let compile = |body: &str| vm.compile(body.as_bytes()).expect("the script compiles");
    let mut reply = Vec::new();
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let [name, runs] = &asked[..] {
        let (_, body, _) = SCRIPTS.iter().find(|(script, ..)| script == name).expect("one of the scripts");
        let script = compile(body);
        for _ in 0..runs.parse::<u32>().expect("a number of runs") {
            once(&vm, &script, &args, &mut reply);
        }
        return;
    }
    for (name, body, runs) in SCRIPTS {
        let script = compile(body);
        println!("{name:14} {:8.0} ns", best(runs, || once(&vm, &script, &args, &mut reply)));
    }
    let script = compile("return redis.call('GET', KEYS[1])");
    let mut stack = Some(DefaultStack::new(STACK_BYTES).expect("there is memory"));
    let vm = &vm;
    let script = &script;
    let cost = best(500_000, || {
        let mut reply = Vec::new();
        let reply = &mut reply;
        let own = stack.take().expect("the stack came back");
        // SAFETY: the coroutine ends before what it borrows.
        let mut coroutine: Coroutine<(), (), (), DefaultStack> =
            unsafe { Coroutine::with_stack_unchecked(own, move |_, ()| once(vm, script, &[], reply)) };
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
        stack = Some(coroutine.into_stack());
    });
    println!("GET, own stack {cost:7.0} ns");
}
