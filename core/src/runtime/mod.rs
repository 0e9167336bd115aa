//! The only room that knows glommio, io_uring, epoll, clocks, files and signals.
