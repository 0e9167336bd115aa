//! The only room that knows glommio, io_uring, epoll, clocks, files and signals.
pub mod driver;
pub mod epoll;
mod slots;
#[cfg(test)]
mod tests;
pub mod uring;
