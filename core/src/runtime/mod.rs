//! The only room that knows glommio, io_uring, epoll, clocks, files and signals.
pub mod clock;
pub mod driver;
pub mod epoll;
pub mod listener;
pub mod log;
pub mod mesh;
mod slots;
#[cfg(test)]
mod tests;
pub mod uring;
