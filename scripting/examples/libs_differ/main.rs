//! Compares the libraries with those of a Redis server: random scripts run here and there, and have to tell the same.
//!
//! ```text
//! cargo run --release -p shardis-scripting --example libs_differ -- 127.0.0.1:6379 COUNT [SEED]
//! cargo run --release -p shardis-scripting --example libs_differ -- 127.0.0.1:6379 table COUNT [SEED]
//! cargo run --release -p shardis-scripting --example libs_differ -- 127.0.0.1:6379 time COUNT
//! ```
//!
//! The order in which `pairs` visits keys is compared as well. It is not the same where keys are strings of more than 31
//! bytes (Redis' Lua hashes all of them, Lua 5.1.5 every second or fewer): such cases are not made.
//!
//! The second form prints cases with the server's results, as `tests/libs/cases.txt` has them. The third measures the
//! processor time that COUNT calls take in a loop, here and on the server (`INFO cpu`), less that of the empty loop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

mod generate;
mod time;
#[path = "../../tests/libs/vm.rs"]
mod vm;

use generate::Generator;
use vm::Vm;

const MEMORY_BYTES_MAX: usize = 1 << 30;
/// Results that are longer do not go into the table.
const TABLE_RESULT_LEN_MAX: usize = 300;
const DIFFERENCES_MAX: usize = 20;
/// How many cases are sent at once.
const BATCH_LEN: usize = 256;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let form = args.get(1).filter(|arg| arg.parse::<usize>().is_err()).cloned().unwrap_or_default();
    if !form.is_empty() {
        args.remove(1);
    }
    let (Some(address), Some(Ok(count))) = (args.first(), args.get(1).map(|count| count.parse::<usize>()))
    else {
        eprintln!("usage: libs_differ ADDRESS [table | time] COUNT [SEED]");
        return ExitCode::FAILURE;
    };
    let seed = args.get(2).and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh_seed);
    eprintln!("seed {seed}");

    let mut server = Server::connect(address);
    let mut generator = Generator::new(seed);
    match form.as_str() {
        "table" => print_table(&mut server, &mut generator, count),
        "time" => time::compare(&mut server, count),
        _ => {
            let differences = compare(&mut server, &mut generator, count);
            println!("{count} cases, {differences} differences");
            if differences > 0 {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn compare(server: &mut Server, generator: &mut Generator, count: usize) -> usize {
    let mut vm = Vm::new(MEMORY_BYTES_MAX);
    let mut differences = 0;
    for batch_at in (0..count).step_by(BATCH_LEN) {
        let cases: Vec<Vec<u8>> =
            (batch_at..count.min(batch_at + BATCH_LEN)).map(|_| generator.case()).collect();
        for case in &cases {
            server.send_case(case);
        }
        server.flush();
        for case in &cases {
            let ours = vm.run(case);
            let theirs = server.receive();
            // The order of pairs cannot be the same where tables are keys, which go by their address.
            let has_table_key = theirs.windows(2).any(|pair| pair == b"}=");
            if ours != theirs && !has_table_key {
                differences += 1;
                println!("case   {}", escaped(case));
                println!("server {}", escaped(&theirs));
                println!("ours   {}\n", escaped(&ours));
            }
        }
        if differences >= DIFFERENCES_MAX {
            break;
        }
    }
    differences
}

fn print_table(server: &mut Server, generator: &mut Generator, count: usize) {
    let mut printed = 0;
    while printed < count {
        let case = generator.case();
        let result = server.run(&case);
        if result.len() <= TABLE_RESULT_LEN_MAX {
            println!("{}\n{}", escaped(&case), escaped(&result));
            printed += 1;
        }
    }
}

fn fresh_seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64)
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

struct Server {
    stream: BufReader<TcpStream>,
    /// The runner's.
    sha: Vec<u8>,
    unsent: Vec<u8>,
}

impl Server {
    fn connect(address: &str) -> Server {
        let stream = TcpStream::connect(address).expect("the server's address");
        stream.set_nodelay(true).expect("a socket");
        let mut server = Server { stream: BufReader::new(stream), sha: Vec::new(), unsent: Vec::new() };
        // A new state, with default settings.
        server.call(&[b"SCRIPT", b"FLUSH"]);
        server.sha = server.call(&[b"SCRIPT", b"LOAD", vm::RUNNER.as_bytes()]);
        server
    }

    fn run(&mut self, case: &[u8]) -> Vec<u8> {
        self.send_case(case);
        self.flush();
        self.receive()
    }

    fn send_case(&mut self, case: &[u8]) {
        let sha = self.sha.clone();
        self.send(&[b"EVALSHA", &sha, b"0", case]);
    }

    fn call(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.send(args);
        self.flush();
        self.receive()
    }

    fn send(&mut self, args: &[&[u8]]) {
        self.unsent.extend(format!("*{}\r\n", args.len()).into_bytes());
        for arg in args {
            self.unsent.extend(format!("${}\r\n", arg.len()).into_bytes());
            self.unsent.extend_from_slice(arg);
            self.unsent.extend(b"\r\n");
        }
    }

    fn flush(&mut self) {
        self.stream.get_mut().write_all(&self.unsent).expect("the server's connection");
        self.unsent.clear();
    }

    /// The bytes of a string or an error.
    fn receive(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("the server's connection");
        line.truncate(line.len().saturating_sub(2));
        let Some(len) = line.strip_prefix(b"$") else { return line };
        let len: usize = String::from_utf8_lossy(len).parse().expect("a length");
        let mut bytes = vec![0; len + 2];
        self.stream.read_exact(&mut bytes).expect("the server's connection");
        bytes.truncate(len);
        bytes
    }
}
