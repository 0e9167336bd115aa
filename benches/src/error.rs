//! The operator's errors: what failed, on what, and why, in one line.

use std::fmt;
use std::io;

pub type Result<T> = std::result::Result<T, BenchError>;

#[derive(Debug)]
pub struct BenchError(String);

impl BenchError {
    pub fn new(text: impl Into<String>) -> BenchError {
        BenchError(text.into())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when the system refused.
pub trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| BenchError(format!("{}: {error}", what())))
    }
}
