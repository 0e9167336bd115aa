//! Records what a Redis server answers to the scripts of the conformance test, one line a script:
//! the reply in RESP2, a tab, and the reply in RESP3, with escapes for what is not printable.
//!
//!     redis-server --port 7777 --save '' --daemonize yes
//!     cargo run -p shardis-scripting --example record_conformance 7777 \
//!         < scripting/tests/conformance/scripts.txt > scripting/tests/conformance/redis-7.0.15.tsv

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

#[path = "../tests/common/table.rs"]
mod table;

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn call(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).expect("the server reads");
        let mut reply = Vec::new();
        let mut left = 1;
        while left > 0 {
            left -= 1;
            left += self.read_part(&mut reply);
        }
        reply
    }

    /// Reads a scalar or the header of an aggregate; answers how many replies follow it.
    fn read_part(&mut self, reply: &mut Vec<u8>) -> usize {
        let start = reply.len();
        self.stream.read_until(b'\n', reply).expect("the server answers");
        let line = String::from_utf8_lossy(&reply[start..]).into_owned();
        let (kind, number) = line.split_at(1);
        let number: i64 = number.trim_end().parse().unwrap_or(-1);
        match kind {
            "*" | "~" => usize::try_from(number).unwrap_or(0),
            "%" => 2 * usize::try_from(number).unwrap_or(0),
            "$" | "=" if number >= 0 => {
                let mut text = vec![0; number as usize + 2];
                self.stream.read_exact(&mut text).expect("the server answers");
                reply.extend_from_slice(&text);
                0
            }
            "" => panic!("the server closed the connection"),
            _ => 0,
        }
    }
}

fn main() {
    let port: u16 =
        std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: record_conformance PORT");
    let mut scripts = String::new();
    std::io::stdin().read_to_string(&mut scripts).expect("the scripts are text");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a Redis server listens");
    let mut client = Client { stream: BufReader::new(stream) };
    client.call(&[b"FLUSHALL"]);
    client.call(&[b"FUNCTION", b"FLUSH"]);
    let mut replies = [Vec::new(), Vec::new()];
    for (version, replies) in [b"2", b"3"].into_iter().zip(&mut replies) {
        client.call(&[b"HELLO", version]);
        for script in table::scripts(&scripts) {
            let reply = if script.starts_with("#!lua name=") {
                let mut reply = client.call(&[b"FUNCTION", b"LOAD", b"REPLACE", script.as_bytes()]);
                if script.contains(table::FUNCTION) && !reply.starts_with(b"-") {
                    reply = client.call(&[b"FCALL", b"f", b"0"]);
                }
                reply
            } else {
                client.call(&[b"EVAL", script.as_bytes(), b"0"])
            };
            replies.push(table::line(&reply));
        }
    }
    for (first, second) in replies[0].iter().zip(&replies[1]) {
        println!("{first}\t{second}");
    }
}
