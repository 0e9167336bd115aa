//! The binary: see `shardis_core`.

use shardis_core::{command, runtime, server, worker};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut port = 6379;
    let mut shards = 1;
    let mut backend = "io_uring";
    let args: Vec<String> = std::env::args().collect();
    for pair in args[1..].chunks(2) {
        match pair[0].as_str() {
            "--port" => port = pair[1].parse().expect("a port"),
            "--shards" => shards = pair[1].parse().expect("a number"),
            "--io-backend" if pair[1] == "epoll" => backend = "epoll",
            _ => {}
        }
    }
    let table = command::table::CommandTable::new(command::handlers::FAMILIES, &[]).expect("a sound table");
    let globals = worker::Globals::new(worker::GlobalsInit {
        config: shardis_core::config::Config::default(),
        table,
        shard_count: shards,
        seed: 1,
        run_id: "0".repeat(40),
        started_at_ms: 0,
        io_backend: backend,
        executable: args[0].clone(),
    });
    let listeners = runtime::listener::tcp(&["127.0.0.1".to_string()], port, 511).expect("a free port");
    server::run(Box::leak(Box::new(globals)), listeners).expect("a working driver");
}
