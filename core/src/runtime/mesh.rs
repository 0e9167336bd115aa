//! The mesh: a ring from every shard to every other one, and a bell for each shard.
//!
//! A ring has one writer and one reader. A full ring never blocks: what does not fit waits, in order, at the
//! sender, and goes with one of the next turns. A bell is a system call, so it is rung once a turn and only
//! if the peer sleeps: the sender publishes, fences, and looks at the peer's flag; the peer sets its flag,
//! fences, and looks at its rings. One of the two sees the other.

use crate::runtime::driver::BellHandle;
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A shard's door bell and whether it would have to be rung.
struct Door {
    asleep: AtomicBool,
    bell: BellHandle,
}

struct Outgoing<M> {
    ring: Producer<M>,
    /// What did not fit into the ring.
    overflow: VecDeque<M>,
    /// Something was published since the bell was last looked after.
    unannounced: bool,
}

/// One shard's end of the mesh.
pub struct MeshEnd<M> {
    index: usize,
    out: Vec<Option<Outgoing<M>>>,
    incoming: Vec<Option<Consumer<M>>>,
    doors: Arc<[Door]>,
}

/// Builds the rings between `bells.len()` shards, each of `capacity` messages. `bells[i]` wakes shard `i`.
pub fn build<M>(bells: &[BellHandle], capacity: usize) -> Vec<MeshEnd<M>> {
    let count = bells.len();
    let doors: Arc<[Door]> =
        bells.iter().map(|bell| Door { asleep: AtomicBool::new(false), bell: bell.clone() }).collect();
    let mut ends: Vec<MeshEnd<M>> = (0..count)
        .map(|index| MeshEnd {
            index,
            out: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            doors: Arc::clone(&doors),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (ring, consumer) = RingBuffer::new(capacity);
            ends[from].out[to] = Some(Outgoing { ring, overflow: VecDeque::new(), unannounced: false });
            ends[to].incoming[from] = Some(consumer);
        }
    }
    ends
}

impl<M> MeshEnd<M> {
    /// Queues a message for another shard. Never blocks, keeps the order.
    pub fn send(&mut self, to: usize, message: M) {
        let out = self.out[to].as_mut().expect("a shard does not send to itself through the mesh");
        out.unannounced = true;
        if !out.overflow.is_empty() {
            out.overflow.push_back(message);
        } else if let Err(rtrb::PushError::Full(message)) = out.ring.push(message) {
            out.overflow.push_back(message);
        }
    }

    /// Ends a turn: moves on what waited for room, and rings those who sleep over new messages.
    pub fn flush(&mut self) {
        let mut fenced = false;
        for (to, out) in self.out.iter_mut().enumerate() {
            let Some(out) = out else { continue };
            while let Some(message) = out.overflow.pop_front() {
                if let Err(rtrb::PushError::Full(message)) = out.ring.push(message) {
                    out.overflow.push_front(message);
                    break;
                }
                out.unannounced = true;
            }
            if !std::mem::take(&mut out.unannounced) {
                continue;
            }
            if !std::mem::replace(&mut fenced, true) {
                fence(Ordering::SeqCst);
            }
            let door = &self.doors[to];
            if door.asleep.load(Ordering::Relaxed) && door.asleep.swap(false, Ordering::Relaxed) {
                door.bell.ring();
            }
        }
    }

    /// Takes up to `limit` messages from each peer.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(usize, M)) {
        for (from, ring) in self.incoming.iter_mut().enumerate() {
            let Some(ring) = ring else { continue };
            for _ in 0..limit {
                let Ok(message) = ring.pop() else { break };
                each(from, message);
            }
        }
    }

    /// Whether a message lies in a ring to this shard, or waits for room in one from it.
    pub fn has_work(&self) -> bool {
        self.incoming.iter().flatten().any(|ring| !ring.is_empty())
            || self.out.iter().flatten().any(|out| !out.overflow.is_empty())
    }

    /// Announces that this shard is about to wait for its bell. False: there is something to do first.
    /// `woke` must follow.
    pub fn prepare_sleep(&self) -> bool {
        self.doors[self.index].asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.has_work()
    }

    pub fn woke(&self) {
        self.doors[self.index].asleep.store(false, Ordering::Relaxed);
    }

    /// Messages that wait at this shard for room in a ring.
    pub fn overflow_len(&self) -> usize {
        self.out.iter().flatten().map(|out| out.overflow.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn messages_arrive_in_order_through_a_ring_that_is_far_too_small() {
        let bells: Vec<_> = (0..2).map(|_| BellHandle::new().expect("an eventfd")).collect();
        let mut ends = build::<u64>(&bells, 2);
        let mut receiver = ends.pop().expect("two ends");
        let mut sender = ends.pop().expect("two ends");
        const COUNT: u64 = 100_000;
        let reader = thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                receiver.drain(16, |from, message| {
                    assert_eq!((from, message), (0, next));
                    next += 1;
                });
                thread::yield_now();
            }
        });
        for n in 0..COUNT {
            sender.send(1, n);
            if n % 7 == 0 {
                sender.flush();
            }
        }
        while sender.has_work() {
            sender.flush();
            thread::yield_now();
        }
        reader.join().expect("the reader saw every message in order");
    }
}
