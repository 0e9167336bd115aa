//! A server of a few commands for the engine's tests.

#![allow(dead_code, reason = "each test crate uses a part")]

use std::collections::BTreeMap;

use shardis_scripting::{
    Args, CallOptions, Control, Host, Library, LogLevel, Random, Resp, RunOptions, ScriptError, Vm, VmOptions,
};

pub mod table;

pub use table::SCRIPT_NAME;

pub const RUN_LIMIT_BYTES: usize = 16 << 20;

pub fn vm() -> Vm {
    Vm::new(VmOptions {
        random: Random::from_state(1),
        redis_version: "7.0.15",
        run_limit_bytes: RUN_LIMIT_BYTES,
    })
}

/// Strings under keys, and what the scripts asked for.
#[derive(Default)]
pub struct Server {
    pub strings: BTreeMap<Vec<u8>, Vec<u8>>,
    pub logged: Vec<(LogLevel, String)>,
    pub options: Vec<CallOptions>,
    pub ticks: usize,
    /// The errors within replies, and whether each of them stands in the statistics already.
    pub errors: Vec<(String, bool)>,
    /// Ends the run at the tick of this number, and at each one after it.
    pub stop_at_tick: Option<usize>,
    pub stop_at_call: Option<usize>,
}

pub const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";

impl Host for Server {
    fn call(&mut self, args: Args<'_>, options: CallOptions, reply: &mut Vec<u8>) -> Control {
        let args: Vec<&[u8]> = args.iter().collect();
        self.options.push(options);
        if self.stop_at_call == Some(self.options.len()) {
            return Control::Stop(KILLED);
        }
        let name = args[0].to_ascii_lowercase();
        let null: &[u8] = if options.resp == Resp::V3 { b"_\r\n" } else { b"$-1\r\n" };
        match (name.as_slice(), &args[1..]) {
            (b"echo", [text]) => bulk(reply, text),
            (b"get", [key]) => match self.strings.get(*key) {
                Some(value) => bulk(reply, value),
                None => reply.extend_from_slice(null),
            },
            (b"set", [key, value]) => {
                self.strings.insert(key.to_vec(), value.to_vec());
                reply.extend_from_slice(b"+OK\r\n");
            }
            (b"lpush", [_, _]) => {
                reply.extend_from_slice(
                    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
                );
            }
            (b"strlen", [key]) => {
                let len = self.strings.get(*key).map_or(0, Vec::len);
                reply.extend_from_slice(format!(":{len}\r\n").as_bytes());
            }
            (b"mget", keys) => {
                reply.extend_from_slice(format!("*{}\r\n", keys.len()).as_bytes());
                for key in keys {
                    match self.strings.get(*key) {
                        Some(value) => bulk(reply, value),
                        None => reply.extend_from_slice(null),
                    }
                }
            }
            (b"hgetall", [_]) => {
                reply.extend_from_slice(if options.resp == Resp::V3 { b"%0\r\n" } else { b"*0\r\n" })
            }
            (b"sadd" | b"zadd", _) => reply.extend_from_slice(b":1\r\n"),
            (b"smembers", [_]) => {
                reply.extend_from_slice(if options.resp == Resp::V3 { b"~1\r\n" } else { b"*1\r\n" });
                bulk(reply, b"a");
            }
            (b"zscore", [_, _]) => match options.resp {
                Resp::V2 => bulk(reply, b"1.5"),
                Resp::V3 => reply.extend_from_slice(b",1.5\r\n"),
            },
            // Answers its argument as the reply.
            (b"reply", [raw]) => reply.extend_from_slice(raw),
            (b"get" | b"set" | b"echo" | b"lpush" | b"strlen", _) => {
                reply.extend_from_slice(b"-ERR Wrong number of args calling Redis command from script\r\n");
            }
            _ => reply.extend_from_slice(b"-ERR Unknown Redis command called from script\r\n"),
        }
        Control::GoOn
    }

    fn tick(&mut self) -> Control {
        self.ticks += 1;
        match self.stop_at_tick {
            Some(tick) if self.ticks >= tick => Control::Stop(KILLED),
            _ => Control::GoOn,
        }
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        self.logged.push((level, String::from_utf8_lossy(message).into_owned()));
    }

    fn replied_error(&mut self, text: &[u8], already_counted: bool) {
        self.errors.push((String::from_utf8_lossy(text).into_owned(), already_counted));
    }

    fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        match args.iter().next()?.to_ascii_lowercase().as_slice() {
            b"get" | b"set" => Some(true),
            b"flushall" => Some(false),
            _ => None,
        }
    }
}

fn bulk(reply: &mut Vec<u8>, text: &[u8]) {
    reply.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    reply.extend_from_slice(text);
    reply.extend_from_slice(b"\r\n");
}

/// What a client gets for an EVAL.
pub fn eval(vm: &Vm, server: &mut Server, body: &str, resp: Resp) -> Vec<u8> {
    eval_with(vm, server, body.as_bytes(), &[], &[], resp)
}

pub fn eval_with(
    vm: &Vm,
    server: &mut Server,
    body: &[u8],
    keys: &[&[u8]],
    args: &[&[u8]],
    client_resp: Resp,
) -> Vec<u8> {
    let script = match vm.compile(body) {
        Ok(script) => script,
        Err(error) => return [b"-".as_slice(), &error.text, b"\r\n"].concat(),
    };
    let mut reply = Vec::new();
    let result =
        vm.run(&script, SCRIPT_NAME.as_bytes(), keys, args, RunOptions { client_resp }, server, &mut reply);
    answer(result, reply)
}

/// What a client gets for an FCALL.
pub fn fcall(
    vm: &Vm,
    server: &mut Server,
    library: &Library,
    name: &str,
    keys: &[&[u8]],
    args: &[&[u8]],
) -> Vec<u8> {
    fcall_in(vm, server, library, name, keys, args, Resp::V2)
}

pub fn fcall_in(
    vm: &Vm,
    server: &mut Server,
    library: &Library,
    name: &str,
    keys: &[&[u8]],
    args: &[&[u8]],
    client_resp: Resp,
) -> Vec<u8> {
    let position = library.position(name.as_bytes()).expect("the library has the function");
    let mut reply = Vec::new();
    let result =
        vm.call_function(library, position, keys, args, RunOptions { client_resp }, server, &mut reply);
    answer(result, reply)
}

fn answer(result: Result<(), ScriptError>, reply: Vec<u8>) -> Vec<u8> {
    match result {
        Ok(()) => reply,
        Err(error) => {
            assert!(reply.is_empty(), "an error leaves no reply");
            [b"-".as_slice(), &error.text, b"\r\n"].concat()
        }
    }
}
