//! What the tests of modules share.
//!
//! - [`Server`]: a real redis-server 7.0, or another one, with a module loaded, and [`Client`]s of it.
//! - [`Pair`]: a module's commands and the server's own of the same names, side by side.
//! - [`Random`]: random numbers, whose seed is printed.
//!
//! A test that finds no redis-server 7.0 on PATH, or where REDIS_SERVER says, has nothing to compare with: it says so and
//! passes.

mod client;
mod library;
mod pair;
mod server;

pub use client::{Client, Request, request};
pub use library::Library;
pub use pair::{Outcome, PREFIX, Pair};
pub use server::Server;

/// Random numbers, so that a failure can be repeated: the seed is printed.
pub struct Random(fastrand::Rng);

impl Random {
    /// With a fresh seed, or the one in the environment's SEED.
    pub fn new(test: &str) -> Random {
        let seed = from_environment("SEED").unwrap_or_else(|| fastrand::u64(..));
        println!("{test}: SEED={seed}");
        Random(fastrand::Rng::with_seed(seed))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    /// In 0.0..1.0.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// One of a list, which is not empty.
    pub fn pick<'l>(&mut self, list: &[&'l str]) -> &'l str {
        list[self.0.usize(..list.len())]
    }
}

/// A number that an environment variable holds. None if it is not set, or no number.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
