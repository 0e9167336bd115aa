//! The binary: a memory allocator, and the arguments.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    shardis_core::server::main(std::env::args_os().collect())
}
