//! The composition root: makes the shards, gives each a thread with a driver, and runs them.

use crate::runtime::clock::SystemClock;
use crate::runtime::driver::{BellHandle, Driver};
use crate::runtime::listener;
use crate::runtime::mesh::{self, MeshEnd};
use crate::shard::message::Message;
use crate::worker::{Globals, IoRequest, NewConnectionInfo, Worker};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Messages a ring between two shards holds; more wait at their sender.
const MESH_CAPACITY: usize = 1024;

/// Messages taken from each peer in one turn, so that sockets are looked at in between.
const MESH_DRAIN_MAX: usize = 64;

/// Runs one shard until the server stops.
pub fn shard_loop<D: Driver>(
    mut driver: D,
    mut mesh: MeshEnd<Message>,
    mut worker: Worker,
    listeners: Vec<OwnedFd>,
) -> std::io::Result<()> {
    for listener in listeners {
        driver.listen(listener);
    }
    while !worker.globals.is_stopping() {
        let timeout = if mesh.prepare_sleep() {
            Duration::from_millis(worker.idle_ms() as u64)
        } else {
            Duration::ZERO
        };
        worker.before_wait();
        driver.turn(Some(timeout), &mut worker)?;
        mesh.woke();
        worker.begin_turn();
        mesh.drain(MESH_DRAIN_MAX, |from, message| worker.deliver(from, message));
        worker.end_turn();
        carry_out(&mut driver, &mut worker);
        for (to, message) in worker.outgoing.drain(..) {
            mesh.send(to, message);
        }
        mesh.flush();
        worker.shard.stats.mesh_queue_depth.set(mesh.overflow_len() as u64);
    }
    Ok(())
}

fn carry_out<D: Driver>(driver: &mut D, worker: &mut Worker) {
    let mut requests = std::mem::take(&mut worker.requests);
    for request in requests.drain(..) {
        match request {
            IoRequest::Send(conn, buf) => driver.send(conn, buf),
            IoRequest::RecvExact { conn, buf, want } => driver.recv_exact(conn, buf, want),
            IoRequest::Pause(conn) => driver.pause(conn),
            IoRequest::Resume(conn) => driver.resume(conn),
            IoRequest::Close(conn) => driver.close(conn),
            IoRequest::Adopt(new) => {
                let (socket, fd, info) = NewConnectionInfo::split(*new);
                if !info.unix_socket {
                    listener::tune(&socket, worker.shard.config.tcp_keepalive_s);
                }
                let conn = driver.add(socket);
                worker.connected(conn, fd, info);
            }
        }
    }
    debug_assert!(worker.requests.is_empty());
    worker.requests = requests;
}

/// Starts a thread a shard and waits until all have ended.
pub fn run(globals: &'static Globals, mut listeners: Vec<OwnedFd>) -> std::io::Result<()> {
    let count = globals.stats.len();
    let bells = (0..count).map(|_| BellHandle::new()).collect::<std::io::Result<Vec<_>>>()?;
    let ends = mesh::build::<Message>(&bells, MESH_CAPACITY);
    let mut threads = Vec::new();
    for (index, (end, bell)) in ends.into_iter().zip(bells).enumerate() {
        let listeners = std::mem::take(&mut listeners);
        let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            let worker = Worker::new(index, globals, SystemClock::get());
            match globals.io_backend {
                "io_uring" => {
                    shard_loop(crate::runtime::uring::UringDriver::new(bell)?, end, worker, listeners)
                }
                _ => shard_loop(crate::runtime::epoll::EpollDriver::new(bell)?, end, worker, listeners),
            }
        })?;
        threads.push(thread);
    }
    for thread in threads {
        thread.join().expect("a shard's panic ends the process")?;
    }
    Ok(())
}
