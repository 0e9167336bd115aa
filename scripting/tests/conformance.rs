//! What scripts and libraries answer, compared with Redis 7.0.15 to the byte. `examples/record_conformance.rs` records
//! what Redis answers.

mod common;

use common::table::{self, line, scripts};
use common::{Server, eval, fcall_in, vm};
use shardis_scripting::Resp;

const SCRIPTS: &str = include_str!("conformance/scripts.txt");
const REPLIES: &str = include_str!("conformance/redis-7.0.15.tsv");

fn compare(column: usize, resp: Resp) {
    let vm = vm();
    let mut server = Server::default();
    let mut differences = String::new();
    let mut count = 0;
    for (script, replies) in scripts(SCRIPTS).zip(REPLIES.lines()) {
        let expected = replies.split('\t').nth(column).expect("a line has two replies");
        let reply = if script.starts_with("#!lua name=") {
            load_and_call(&vm, &mut server, script, resp)
        } else {
            eval(&vm, &mut server, script, resp)
        };
        let reply = line(&reply);
        if reply != expected {
            differences.push_str(&format!("{script}\n  Redis: {expected}\n  we:    {reply}\n"));
        }
        count += 1;
    }
    assert_eq!(count, scripts(SCRIPTS).count());
    assert!(differences.is_empty(), "\n{differences}");
}

fn load_and_call(vm: &shardis_scripting::Vm, server: &mut Server, code: &str, resp: Resp) -> Vec<u8> {
    match vm.load_library(code.as_bytes(), server) {
        Err(error) => [b"-".as_slice(), &error.text, b"\r\n"].concat(),
        Ok(library) if code.contains(table::FUNCTION) => fcall_in(vm, server, &library, "f", &[], &[], resp),
        Ok(_) => b"$1\r\nq\r\n".to_vec(),
    }
}

#[test]
fn replies_to_a_client_of_resp2_are_those_of_redis() {
    compare(0, Resp::V2);
}

#[test]
fn replies_to_a_client_of_resp3_are_those_of_redis() {
    compare(1, Resp::V3);
}
