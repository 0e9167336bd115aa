//! Tasks, programs that no client has called, and clients that programs hold, tested with THOLD of `sim/rows.rs`.

use super::effects::Replica;
use super::*;
use shardis_core::protocol::Resp;
use shardis_core::shard::effects::Readers;
use shardis_core::worker::program::{CallOptions, ProgramCtx, Task};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const OPTIONS: CallOptions = CallOptions {
    resp: Resp::V2,
    readers: Readers::ALL,
    is_read_only: false,
    allows_oom: false,
    is_as_script: false,
};

/// Hands a task over to the client's shard, as a thread does, and has the server come to rest.
fn start(server: &mut Server, task: Task) {
    let shard = server.cluster.workers.len() - 1;
    start_on(server, shard, task);
}

fn start_on(server: &mut Server, shard: usize, task: Task) {
    server.cluster.workers[shard].globals.outside[shard].start(task);
    settle(server);
}

/// Every shard has a turn, and what follows from it comes to rest.
fn settle(server: &mut Server) {
    server.cluster.tick();
    server.cluster.settle();
}

fn call(ctx: &mut ProgramCtx<'_>, words: &str, reply: &mut Vec<u8>) {
    let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    let _ = ctx.call(&words, OPTIONS, reply);
}

#[test]
fn a_task_calls_commands_over_any_keys_as_one_unit() {
    on_one_and_three_shards(|server| {
        let mut replica = Replica::attach(server);
        let replies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&replies);
        // Keys on shards 0, 1 and 2 of three.
        start(
            server,
            Box::new(move |ctx| {
                let mut reply = Vec::new();
                for words in ["SET a 1", "INCR b", "SET c 3", "MGET a b c"] {
                    call(ctx, words, &mut reply);
                }
                *seen.lock().expect("nobody panics") = reply;
            }),
        );
        let replies = String::from_utf8(replies.lock().expect("nobody panics").clone()).expect("it is text");
        assert_eq!(replies, "+OK\r\n:1\r\n+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n3\r\n");
        server.expect(&[("MGET a b c", "*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n3")]);
        assert_eq!(replica.read(server), ["SELECT 0", "MULTI", "SET a 1", "INCR b", "SET c 3", "EXEC"]);
    });
}

#[test]
fn a_task_that_waits_for_its_thread_keeps_its_keys_and_nothing_else() {
    const TICKET: u64 = 7;
    let mut server = Server::new(3);
    let progress = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&progress);
    start(
        &mut server,
        Box::new(move |ctx| {
            call(ctx, "SET a 1", &mut Vec::new());
            while shared.load(Ordering::Relaxed) == 0 {
                ctx.wait_outside(TICKET);
            }
            call(ctx, "SET b 1", &mut Vec::new());
            shared.store(2, Ordering::Relaxed);
        }),
    );
    server.expect(&[("SET c 1", "+OK"), ("GET b", "$-1")]);
    let other = server.cluster.connect(0);
    assert_eq!(server.cluster.call(other, &["GET", "a"]), "", "the key is the task's");
    progress.store(1, Ordering::Relaxed);
    server.cluster.workers[2].globals.outside[2].resume(TICKET);
    server.expect(&[("PING", "+PONG")]);
    assert_eq!(server.cluster.received(other), b"$1\r\n1\r\n");
    assert_eq!(progress.load(Ordering::Relaxed), 2);
    server.expect(&[("GET b", "$1\r\n1")]);
}

/// `c`, which a program has changed, goes to BMOVE, which changes `b`, and that is offered to a program. This one waits for the
/// token, whose holder comes to `c` when it has both. Another command wants both keys.
#[test]
fn who_wants_a_key_on_offer_to_a_program_keeps_the_holder_of_the_token_from_no_other_key() {
    const TICKET: u64 = 8;
    // Both keys are on shard 0.
    let mut server = Server::new(2);
    let [held, mover, other] = [1, 1, 0].map(|shard| server.cluster.connect(shard));
    assert_eq!(server.cluster.call(held, &["HTAKE", "b", "0"]), "");
    assert_eq!(server.cluster.call(mover, &["BMOVE", "c", "b", "0"]), "");
    server.cluster.hold(0, 1);
    start_on(&mut server, 0, Box::new(|ctx| call(ctx, "TPUSH c x", &mut Vec::new())));
    let progress = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&progress);
    start_on(
        &mut server,
        0,
        Box::new(move |ctx| {
            while shared.load(Ordering::Relaxed) == 0 {
                ctx.wait_outside(TICKET);
            }
            call(ctx, "TTAKE c", &mut Vec::new());
            shared.store(2, Ordering::Relaxed);
        }),
    );
    // The offer arrives, then the plan of BMOVE, whose entries are on their way now.
    for (arriving, leaving) in [((0, 1), (1, 0)), ((1, 0), (0, 1))] {
        server.cluster.hold(leaving.0, leaving.1);
        server.cluster.release(arriving.0, arriving.1);
        server.cluster.settle();
    }
    assert_eq!(server.cluster.call(other, &["DEL", "b", "c"]), "", "they are locked");
    server.cluster.release(0, 1);
    settle(&mut server);
    assert_eq!(server.cluster.received(mover), b"*2\r\n$1\r\nc\r\n$1\r\nx\r\n");
    assert_eq!(server.cluster.received(held), b"", "its program waits for the token");

    progress.store(1, Ordering::Relaxed);
    server.cluster.workers[0].globals.outside[0].resume(TICKET);
    settle(&mut server);
    assert_eq!(progress.load(Ordering::Relaxed), 2, "it waits for what waits for its end");
    assert_eq!(server.cluster.received(held), b"*2\r\n$1\r\nb\r\n$1\r\nx\r\n");
    assert_eq!(server.cluster.received(other), b":0\r\n");
}

#[test]
fn nobody_can_call_or_see_a_task() {
    on_one_and_three_shards(|server| {
        let unknown = "-ERR unknown command 'task', with args beginning with: '1' ";
        server.expect(&[("task 1", unknown), ("COMMAND INFO task", "*1\r\n$-1")]);
        start(server, Box::new(|ctx| call(ctx, "SET a 1", &mut Vec::new())));
        assert!(!server.call("INFO commandstats").contains("cmdstat_task"));
        assert!(!server.call("COMMAND LIST").contains("task\r\n"));
    });
}

/// Runs THOLD for the client of `server`, whose reply does not come.
fn held(server: &mut Server, name: &str, timeout_ms: &str) -> String {
    let name = format!("{name}:{}", server.cluster.workers.len());
    server.expect(&[(&format!("CLIENT SETNAME {name}"), "+OK")]);
    assert_eq!(server.call(&format!("THOLD {name} {timeout_ms}")), "");
    name
}

/// What was written by the end of a hold.
fn ended(server: &mut Server, name: &str) -> String {
    let other = server.cluster.connect(0);
    server.cluster.call(other, &["GET", &format!("ended:{name}")])
}

#[test]
fn a_held_client_gets_the_reply_of_what_ends_its_wait_and_its_later_requests_wait() {
    on_one_and_three_shards(|server| {
        let name = held(server, "released", "0");
        let (client, other) = (server.client, server.cluster.connect(0));
        assert_eq!(server.cluster.call(client, &["GET", &format!("ended:{name}")]), "");
        assert_eq!(server.cluster.call(other, &["GET", &format!("began:{name}")]), "$1\r\n1\r\n");
        assert!(server.cluster.call(other, &["INFO", "clients"]).contains("blocked_clients:1"));
        assert_eq!(server.cluster.call(other, &["TRELEASE", &name]), "+OK\r\n");
        // The shard looks there at its next turn.
        settle(server);
        assert_eq!(server.cluster.received(client), b"+Released\r\n$8\r\nReleased\r\n");
        assert!(server.cluster.call(other, &["INFO", "clients"]).contains("blocked_clients:0"));
        // It has ended.
        assert_eq!(server.cluster.call(other, &["TRELEASE", &name]), "+OK\r\n");
        server.expect(&[("PING", "+PONG")]);
    });
}

#[test]
fn a_held_client_times_out_or_is_unblocked() {
    on_one_and_three_shards(|server| {
        let name = held(server, "late", "100");
        server.wait_ms(101);
        settle(server);
        assert_eq!(server.cluster.received(server.client), b"+TimedOut\r\n");
        assert_eq!(ended(server, &name), "$8\r\nTimedOut\r\n");

        let id = server.call("CLIENT ID")[1..].trim_end().to_owned();
        let name = held(server, "unblocked", "100000");
        let other = server.cluster.connect(0);
        assert_eq!(server.cluster.call(other, &["CLIENT", "UNBLOCK", &id]), ":1\r\n");
        assert_eq!(server.cluster.received(server.client), b"+TimedOut\r\n");
        assert_eq!(ended(server, &name), "$8\r\nTimedOut\r\n");

        let name = held(server, "refused", "100000");
        assert_eq!(server.cluster.call(other, &["CLIENT", "UNBLOCK", &id, "ERROR"]), ":1\r\n");
        settle(server);
        let error = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        assert_eq!(server.cluster.received(server.client), error);
        assert_eq!(ended(server, &name), "$4\r\nGone\r\n");

        held(server, "endless", "0");
        assert_eq!(server.cluster.call(other, &["CLIENT", "UNBLOCK", &id]), ":0\r\n");
    });
}

#[test]
fn the_end_of_a_held_client_is_told_and_what_cannot_wait_is_refused() {
    on_one_and_three_shards(|server| {
        server.expect(&[("MULTI", "+OK"), ("THOLD x 0", "+QUEUED")]);
        assert_eq!(server.call("EXEC"), "*1\r\n-ERR the client cannot wait\r\n");

        let id = server.call("CLIENT ID")[1..].trim_end().to_owned();
        let name = held(server, "killed", "0");
        let other = server.cluster.connect(0);
        assert_eq!(server.cluster.call(other, &["CLIENT", "KILL", "ID", &id]), ":1\r\n");
        settle(server);
        assert_eq!(ended(server, &name), "$4\r\nGone\r\n");
        assert!(server.cluster.call(other, &["INFO", "clients"]).contains("blocked_clients:0"));
    });
}
