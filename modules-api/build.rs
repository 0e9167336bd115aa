//! Compiles the entry points that only C can define; modules have no use for them.

fn main() {
    println!("cargo:rerun-if-changed=src/host/variadic.c");
    #[cfg(feature = "host")]
    cc::Build::new()
        .file("src/host/variadic.c")
        .warnings(true)
        .extra_warnings(true)
        .compile("shardis_module_host");
}
