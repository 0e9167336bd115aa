//! Several runs of one VM under way at once, each on its own stack, suspended in calls and ticks in any order.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{KILLED, Server, vm};
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use shardis_scripting::{Args, CallOptions, Control, Host, LogLevel, RunOptions, STACK_BYTES, Script, Vm};

/// A host that lets the others have control at each call and tick.
struct Suspending<'a> {
    yielder: &'a Yielder<bool, ()>,
    server: Server,
}

impl Host for Suspending<'_> {
    fn call(&mut self, args: Args<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control {
        if self.yielder.suspend(()) {
            return Control::Stop(KILLED);
        }
        self.server.call(args, options, reply)
    }

    fn tick(&mut self) -> Control {
        if self.yielder.suspend(()) { Control::Stop(KILLED) } else { Control::GoOn }
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        self.server.log(level, message);
    }

    fn replied_error(&mut self, _text: &[u8], _already_counted: bool) {}

    fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        self.server.may_call(args)
    }
}

struct Running {
    coroutine: Coroutine<bool, (), String, DefaultStack>,
    expected: String,
    number: usize,
    /// It was resumed once, and waits in its host.
    is_under_way: bool,
}

fn start(vm: &Rc<Vm>, script: &Rc<Script>, number: usize, expected: String) -> Running {
    let (vm, script) = (vm.clone(), script.clone());
    let stack = DefaultStack::new(STACK_BYTES).expect("there is memory for a stack");
    let coroutine = Coroutine::with_stack(stack, move |yielder, _| {
        let mut host = Suspending { yielder, server: Server::default() };
        let number = number.to_string();
        let mut reply = Vec::new();
        let result = vm.run(
            &script,
            number.as_bytes(),
            &[b"key", number.as_bytes()],
            &[number.as_bytes()],
            RunOptions::default(),
            &mut host,
            &mut reply,
        );
        match result {
            Ok(()) => String::from_utf8(reply).expect("a reply of text"),
            Err(error) => String::from_utf8(error.text).expect("an error of text"),
        }
    });
    Running { coroutine, expected, number, is_under_way: false }
}

fn next(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below
}

/// Runs 200 runs of one script and of another, up to 12 at once, in an order out of `seed`.
fn interleave(seed: u64) {
    println!("seed {seed}");
    let vm = Rc::new(vm());
    let slow = Rc::new(
        vm.compile(
            b"local own = {KEYS[2], ARGV[1]}
              local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(redis.call('echo', ARGV[1] .. ':' .. i)) end end)
              for i = 1, 3 do
                  redis.call('set', KEYS[1], KEYS[2])
                  local n = 0 for j = 1, 30000 do n = n + 1 end
                  if co() ~= KEYS[2] .. ':' .. i then return 'mixed' end
                  local ok, e = pcall(function() return redis.call('lpush', 'x', 'y') end)
                  if ok or not string.find(e, 'WRONGTYPE') then return 'mixed' end
                  if redis.call('get', 'key') ~= KEYS[2] or own[1] ~= KEYS[2] or own[2] ~= ARGV[1] then return 'mixed' end
                  if loadstring('return KEYS[2]')() ~= own[1] then return 'mixed' end
              end
              return {KEYS[2], ARGV[1]}",
        )
        .unwrap(),
    );
    let raising = Rc::new(vm.compile(b"redis.call('echo', 'x')\nerror(KEYS[2])").unwrap());
    let mut state = seed;
    let mut running: Vec<Running> = Vec::new();
    let mut started = 0;
    while started < 200 || !running.is_empty() {
        if started < 200 && running.len() < 12 && next(&mut state, 3) == 0 {
            let number = started;
            let text = number.to_string();
            running.push(if next(&mut state, 4) == 0 {
                let expected = format!("ERR user_script:2: {text} script: {text}, on @user_script:2.");
                start(&vm, &raising, number, expected)
            } else {
                let bulk = format!("${}\r\n{text}\r\n", text.len());
                start(&vm, &slow, number, format!("*2\r\n{bulk}{bulk}"))
            });
            started += 1;
        }
        if running.is_empty() {
            continue;
        }
        let chosen = next(&mut state, running.len());
        let stops = next(&mut state, 200) == 0 && running[chosen].is_under_way;
        running[chosen].is_under_way = true;
        if stops {
            running[chosen].expected = format!("{KILLED} script: {}", running[chosen].number);
        }
        match running[chosen].coroutine.resume(stops) {
            CoroutineResult::Yield(()) => {}
            CoroutineResult::Return(reply) => {
                let done = running.swap_remove(chosen);
                assert!(reply.starts_with(&done.expected), "seed {seed}, run {}: {reply}", done.number);
            }
        }
    }
}

#[test]
fn interleaved_runs_do_not_see_each_other() {
    interleave(1);
    interleave(u64::from(std::process::id()));
}

#[test]
fn a_script_is_dropped_while_others_run() {
    let vm = Rc::new(vm());
    let script = Rc::new(vm.compile(b"redis.call('echo', 'x') return KEYS[2]").unwrap());
    let mut first = start(&vm, &script, 1, String::new());
    let mut second = start(&vm, &script, 2, String::new());
    assert!(matches!(first.coroutine.resume(false), CoroutineResult::Yield(())));
    assert!(matches!(second.coroutine.resume(false), CoroutineResult::Yield(())));
    let log = RefCell::new(Vec::new());
    for other in 0..50 {
        let other = vm
            .compile(
                format!("local t = {{}} for i = 1, 1000 do t[i] = {other} .. i end return #t").as_bytes(),
            )
            .unwrap();
        let mut reply = Vec::new();
        vm.run(&other, b"x", &[], &[], RunOptions::default(), &mut Server::default(), &mut reply).unwrap();
        log.borrow_mut().push(reply);
    }
    drop(script);

    let replies = [first, second].map(|mut running| match running.coroutine.resume(false) {
        CoroutineResult::Return(reply) => reply,
        CoroutineResult::Yield(()) => panic!("the script calls once"),
    });

    assert_eq!(replies, ["$1\r\n1\r\n", "$1\r\n2\r\n"]);
    assert!(log.borrow().iter().all(|reply| reply == b":1000\r\n"));
}
