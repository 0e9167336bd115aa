//! The only room that knows glommio, io_uring, epoll, clocks, files and signals.
mod accept;
pub mod allocator;
pub mod clock;
pub mod crash;
pub mod disk;
pub mod driver;
pub mod epoll;
pub mod files;
pub mod host;
pub mod listener;
pub mod log;
pub mod mesh;
pub mod os_error;
pub mod outgoing;
pub mod probe;
pub mod signals;
mod slots;
pub mod supervisor;
#[cfg(test)]
mod tests;
pub mod threads;
pub mod title;
pub mod tls;
pub mod uring;
pub mod watchdog;
pub mod watcher;
