//! The mesh: a ring from every shard to every other one, and a door for each shard.
//!
//! A ring has one writer and one reader. A full ring never blocks: what does not fit waits, in order, at the
//! sender, and goes with one of the next turns. A bell is a system call, so it is rung once a turn and only
//! if the peer sleeps.
//!
//! A turn does not look at every peer: with many shards that would be most of what a turn costs. Who has sent something
//! sets its bit in the *mail* of the receiver's door, and the receiver looks into the rings of those bits alone.
//!
//! Neither messages nor wake-ups are lost, by one argument used three times: each side writes what it has to say, fences,
//! and then reads what the other has to say; so one of the two sees the other.
//!
//! - *Mail.* The sender publishes and reads the mail; the receiver takes the mail and reads the rings. A sender
//!   that still finds its bit need not set it: the receiver takes the mail later, and finds the message.
//! - *Sleep.* The sender sets its bit and reads `asleep`; the receiver sets `asleep` and reads its mail.
//! - *New room.* A sender with messages that did not fit may sleep. The receiver takes messages out and reads
//!   `starving` and `asleep`; the sender sets both and looks for room.
//!
//! What goes through a ring are the addresses of messages, eight in a cache line. A slot says itself whether it is in use, so
//! that a message costs both sides no other line: no shared head or tail.
//!
//! N shards have N (N - 1) rings. The more there are, the shorter is each ([`capacity`]), so that all of them stay in the
//! caches: 24 KiB at 2 shards, 120 KiB at 16, 1 MiB at 64.

use crate::runtime::driver::BellHandle;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

/// Messages that the rings to one shard hold together, about.
const CAPACITY_PER_SHARD: usize = 1024;

/// Messages that a ring holds at least, and at most. More wait at their sender.
const CAPACITY_MIN: usize = 32;
const CAPACITY_MAX: usize = 512;

/// How many messages each ring between so many shards holds. A power of two.
pub fn capacity(shard_count: usize) -> usize {
    let share = CAPACITY_PER_SHARD / shard_count.max(1).next_power_of_two();
    share.clamp(CAPACITY_MIN, CAPACITY_MAX)
}

/// A message, as it travels: a slot holds its address, and in the address's lowest bits which of these it is.
#[derive(PartialEq, Eq, Debug)]
pub enum Parcel<B, M> {
    /// Goes to another shard,
    There(Box<B>),
    /// and comes back from it, in the same allocation.
    Back(Box<B>),
    Other(Box<M>),
}

const THERE: usize = 1;
const BACK: usize = 2;
const KIND: usize = 3;

impl<B, M> Parcel<B, M> {
    #[inline]
    fn into_address(self) -> *mut () {
        const { assert!(align_of::<B>() > KIND && align_of::<M>() > KIND) };
        match self {
            Parcel::There(bulk) => Box::into_raw(bulk).cast::<()>().map_addr(|address| address | THERE),
            Parcel::Back(bulk) => Box::into_raw(bulk).cast::<()>().map_addr(|address| address | BACK),
            Parcel::Other(message) => Box::into_raw(message).cast(),
        }
    }

    /// # Safety
    /// `address` came from `into_address`, and has not been turned back before.
    #[inline]
    unsafe fn from_address(address: *mut ()) -> Parcel<B, M> {
        let whole = address.map_addr(|address| address & !KIND);
        // SAFETY: the lowest bits say which box this is, and the caller that it is nobody else's.
        unsafe {
            match address.addr() & KIND {
                THERE => Parcel::There(Box::from_raw(whole.cast())),
                BACK => Parcel::Back(Box::from_raw(whole.cast())),
                _ => Parcel::Other(Box::from_raw(whole.cast())),
            }
        }
    }
}

/// The slots between one writer and one reader. Each side knows for itself at which slot it goes on; an empty one is null.
struct Ring<B, M> {
    slots: Box<[AtomicPtr<()>]>,
    _holds: PhantomData<Parcel<B, M>>,
}

impl<B, M> Ring<B, M> {
    fn new(capacity: usize) -> Ring<B, M> {
        assert!(capacity.is_power_of_two());
        let slots = (0..capacity).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        Ring { slots, _holds: PhantomData }
    }

    #[inline]
    fn slot(&self, number: usize) -> &AtomicPtr<()> {
        &self.slots[number & (self.slots.len() - 1)]
    }
}

impl<B, M> Drop for Ring<B, M> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let address = *slot.get_mut();
            if !address.is_null() {
                // SAFETY: nobody has taken it out of its slot, and nobody else has a reference to the ring any more.
                drop(unsafe { Parcel::<B, M>::from_address(address) });
            }
        }
    }
}

/// A set of shards, as bits of one word. Beyond 64 shards several share a bit: a set may hold more than was put in.
type ShardBits = u64;

fn bit_of(shard: usize) -> ShardBits {
    1 << (shard % ShardBits::BITS as usize)
}

/// The shards, out of so many, that `bits` stand for.
fn shards_of(bits: ShardBits, shard_count: usize) -> impl Iterator<Item = usize> {
    let mut rest = bits;
    let each_bit = std::iter::from_fn(move || {
        let first = (rest != 0).then(|| rest.trailing_zeros() as usize);
        rest &= rest.wrapping_sub(1);
        first
    });
    each_bit.flat_map(move |first| (first..shard_count).step_by(ShardBits::BITS as usize))
}

/// What others have to know of a shard. Alone on its cache lines: others read it every turn.
#[repr(align(128))]
struct Door {
    /// Its bell would have to be rung.
    asleep: AtomicBool,
    /// Those that have sent something since the shard took its mail last.
    mail: AtomicU64,
    /// Those that wait for room in their ring to this shard.
    starving: AtomicU64,
    bell: BellHandle,
}

impl Door {
    fn new(bell: BellHandle) -> Door {
        Door { asleep: AtomicBool::new(false), mail: AtomicU64::new(0), starving: AtomicU64::new(0), bell }
    }

    /// For after a fence behind the push. Several messages before the receiver looks are one write to its door.
    fn announce_mail(&self, from: ShardBits) {
        if self.mail.load(Ordering::Relaxed) & from == 0 {
            // Sequentially consistent: it is the fence before `asleep` is read.
            self.mail.fetch_or(from, Ordering::SeqCst);
        }
        self.ring_if_asleep();
    }

    /// For after a fence. Of several senders, one rings.
    fn ring_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

struct Outgoing<B, M> {
    ring: Arc<Ring<B, M>>,
    /// The number of the next slot to fill.
    next: usize,
    /// What did not fit into the ring.
    overflow: VecDeque<Parcel<B, M>>,
    /// It is in the list of those with something new.
    is_listed: bool,
}

struct Incoming<B, M> {
    ring: Arc<Ring<B, M>>,
    /// The number of the next slot to empty.
    next: usize,
}

/// One shard's end of the mesh.
pub struct MeshEnd<B, M> {
    index: usize,
    out: Vec<Option<Outgoing<B, M>>>,
    incoming: Vec<Option<Incoming<B, M>>>,
    doors: Arc<[Door]>,
    /// Those to which something was published since their doors were last looked after.
    unannounced: Vec<u16>,
    /// Messages that wait for room, to all shards together.
    overflow_len: usize,
    /// Those whose rings to this shard may hold something that the mail says no more.
    unread: ShardBits,
}

/// Builds the rings between `bells.len()` shards, each of `capacity` messages, a power of two. `bells[i]` wakes shard `i`.
pub fn build<B: Send, M: Send>(bells: &[BellHandle], capacity: usize) -> Vec<MeshEnd<B, M>> {
    let count = bells.len();
    let doors: Arc<[Door]> = bells.iter().map(|bell| Door::new(bell.clone())).collect();
    let mut ends: Vec<MeshEnd<B, M>> = (0..count)
        .map(|index| MeshEnd {
            index,
            out: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            doors: Arc::clone(&doors),
            unannounced: Vec::with_capacity(count),
            overflow_len: 0,
            unread: 0,
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let ring = Arc::new(Ring::new(capacity));
            ends[to].incoming[from] = Some(Incoming { ring: Arc::clone(&ring), next: 0 });
            ends[from].out[to] =
                Some(Outgoing { ring, next: 0, overflow: VecDeque::new(), is_listed: false });
        }
    }
    ends
}

impl<B, M> MeshEnd<B, M> {
    /// Queues a message for another shard. Never blocks, keeps the order.
    pub fn send(&mut self, to: usize, message: Parcel<B, M>) {
        let out = self.out[to].as_mut().expect("a shard does not send to itself through the mesh");
        if !std::mem::replace(&mut out.is_listed, true) {
            self.unannounced.push(to as u16);
        }
        if !out.overflow.is_empty() || !out.has_room() {
            out.overflow.push_back(message);
            self.overflow_len += 1;
        } else {
            out.push(message);
        }
    }

    /// Ends a turn: moves on what waited for room, tells the receivers of new messages, and rings those that sleep.
    pub fn flush(&mut self) {
        if self.overflow_len > 0 {
            self.push_overflow();
        }
        if self.unannounced.is_empty() {
            return;
        }
        fence(Ordering::SeqCst);
        let me = bit_of(self.index);
        for to in self.unannounced.drain(..) {
            if let Some(out) = &mut self.out[to as usize] {
                out.is_listed = false;
            }
            self.doors[to as usize].announce_mail(me);
        }
    }

    #[cold]
    fn push_overflow(&mut self) {
        for (to, out) in self.out.iter_mut().enumerate() {
            let Some(out) = out else { continue };
            let moved = out.push_overflow();
            self.overflow_len -= moved;
            if moved > 0 && !std::mem::replace(&mut out.is_listed, true) {
                self.unannounced.push(to as u16);
            }
        }
    }

    /// Takes up to `limit` messages from each peer. Returns how many there were.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(usize, Parcel<B, M>)) -> usize {
        self.take_mail();
        let senders = std::mem::take(&mut self.unread);
        let mut total = 0;
        for from in shards_of(senders, self.incoming.len()) {
            let Some(incoming) = &mut self.incoming[from] else { continue };
            let mut taken = 0;
            while taken < limit {
                let Some(message) = incoming.pop() else { break };
                taken += 1;
                each(from, message);
            }
            if taken == limit {
                self.unread |= bit_of(from);
            }
            total += taken;
        }
        if total > 0 {
            self.announce_room(senders);
        }
        total
    }

    /// Takes over who has sent something. Behind it the rings hold all that was announced.
    fn take_mail(&mut self) {
        let mail = &self.doors[self.index].mail;
        if mail.load(Ordering::Relaxed) != 0 {
            self.unread |= mail.swap(0, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// Wakes those of `senders` that wait for room in a ring to this shard.
    fn announce_room(&self, senders: ShardBits) {
        fence(Ordering::SeqCst);
        let starving = &self.doors[self.index].starving;
        let waiting = starving.load(Ordering::Relaxed) & senders;
        if waiting == 0 {
            return;
        }
        starving.fetch_and(!waiting, Ordering::SeqCst);
        // Only the shard that sleeps needs the bell: one that does not looks for room before it does.
        for from in shards_of(waiting, self.doors.len()) {
            self.doors[from].ring_if_asleep();
        }
    }

    /// Whether a message lies in a ring to this shard, or one that waits at this shard could go.
    pub fn has_work(&self) -> bool {
        self.unread != 0
            || self.doors[self.index].mail.load(Ordering::Relaxed) != 0
            || self.overflow_len > 0
                && self.out.iter().flatten().any(|out| !out.overflow.is_empty() && out.has_room())
    }

    /// Announces that this shard is about to wait for its bell. False: there is something to do first.
    /// `woke` must follow.
    pub fn prepare_sleep(&self) -> bool {
        if self.overflow_len > 0 {
            for (to, out) in self.out.iter().enumerate() {
                if out.as_ref().is_some_and(|out| !out.overflow.is_empty()) {
                    self.doors[to].starving.fetch_or(bit_of(self.index), Ordering::Relaxed);
                }
            }
        }
        self.doors[self.index].asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.has_work()
    }

    pub fn woke(&self) {
        self.doors[self.index].asleep.store(false, Ordering::Relaxed);
    }

    /// Messages that wait at this shard for room in a ring: what a shard must bound by taking in less work.
    pub fn overflow_len(&self) -> usize {
        self.overflow_len
    }
}

impl<B, M> Outgoing<B, M> {
    #[inline]
    fn has_room(&self) -> bool {
        self.ring.slot(self.next).load(Ordering::Relaxed).is_null()
    }

    /// Fills the next slot, which is empty. Its last message is in the reader's hands, and no concern of this one.
    #[inline]
    fn push(&mut self, message: Parcel<B, M>) {
        debug_assert!(self.has_room());
        self.ring.slot(self.next).store(message.into_address(), Ordering::Release);
        self.next = self.next.wrapping_add(1);
    }

    /// Moves what there is room for; returns how many messages.
    fn push_overflow(&mut self) -> usize {
        let mut moved = 0;
        while self.has_room()
            && let Some(message) = self.overflow.pop_front()
        {
            self.push(message);
            moved += 1;
        }
        moved
    }
}

impl<B, M> Incoming<B, M> {
    #[inline]
    fn pop(&mut self) -> Option<Parcel<B, M>> {
        let slot = self.ring.slot(self.next);
        let address = slot.load(Ordering::Acquire);
        if address.is_null() {
            return None;
        }
        slot.store(ptr::null_mut(), Ordering::Release);
        self.next = self.next.wrapping_add(1);
        // SAFETY: the only writer has put it there, and this is the only reader, which has emptied the slot.
        Some(unsafe { Parcel::from_address(address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::driver::{CloseReason, ConnId, Driver, Events, PeerAddr};
    use crate::runtime::epoll::EpollDriver;
    use std::os::fd::OwnedFd;
    use std::thread;
    use std::time::Duration;

    /// A shard that sleeps is woken within this, or its wake-up is lost.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct BellOnly;

    impl Events for BellOnly {
        fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
        fn accept_failed(&mut self, _: usize, _: std::io::Error) {}
        fn received(&mut self, _: ConnId, _: &[u8]) {}
        fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
        fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
        fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
        fn send_failed(&mut self, _: ConnId, _: i32) {}
        fn bell(&mut self) {}
    }

    type End = MeshEnd<u64, u64>;

    /// Messages of all kinds.
    fn parcel(number: u64) -> Parcel<u64, u64> {
        match number % 3 {
            0 => Parcel::There(Box::new(number)),
            1 => Parcel::Back(Box::new(number)),
            _ => Parcel::Other(Box::new(number)),
        }
    }

    /// The number of a message of the right kind.
    fn number_of(message: Parcel<u64, u64>) -> u64 {
        let number = match &message {
            Parcel::There(number) | Parcel::Back(number) | Parcel::Other(number) => **number,
        };
        assert_eq!(message, parcel(number));
        number
    }

    fn ends(count: usize, capacity: usize) -> Vec<(End, BellHandle)> {
        let bells: Vec<_> = (0..count).map(|_| BellHandle::new().expect("an eventfd")).collect();
        build(&bells, capacity).into_iter().zip(bells).collect()
    }

    /// What a shard does after a turn.
    enum Next {
        Turn,
        Sleep,
        End,
    }

    /// The loop of a shard that has nothing but its mesh. `turn` flushes what it sends.
    fn run_shard(mut end: End, bell: BellHandle, mut turn: impl FnMut(&mut End) -> Next) {
        let mut driver = EpollDriver::new(bell).expect("an epoll set");
        loop {
            match turn(&mut end) {
                Next::Turn => continue,
                Next::End => return,
                Next::Sleep => {}
            }
            if end.prepare_sleep() {
                let woken = driver.turn(Some(PATIENCE), &mut BellOnly).expect("the driver works");
                assert_eq!(woken, 1, "the bell was not rung");
            }
            end.woke();
        }
    }

    #[test]
    fn the_rings_of_many_shards_take_little_memory() {
        let ring_bytes = |shards: usize| shards * (shards - 1) * capacity(shards) * size_of::<*mut u64>();
        assert!(ring_bytes(2) <= 24 << 10, "{}", ring_bytes(2));
        assert!(ring_bytes(16) <= 120 << 10, "{}", ring_bytes(16));
        assert!(ring_bytes(64) <= 1 << 20, "{}", ring_bytes(64));
    }

    #[test]
    fn messages_arrive_in_order_through_a_ring_that_is_far_too_small() {
        let mut ends = ends(2, 2);
        let (receiver, receiver_bell) = ends.pop().expect("two ends");
        let (sender, sender_bell) = ends.pop().expect("two ends");
        const COUNT: u64 = 100_000;
        let reader = thread::spawn(move || {
            let mut next = 0;
            run_shard(receiver, receiver_bell, |end| {
                end.drain(16, |from, message| {
                    assert_eq!((from, number_of(message)), (0, next));
                    next += 1;
                });
                if next < COUNT { Next::Sleep } else { Next::End }
            });
        });
        let mut sent = 0;
        run_shard(sender, sender_bell, |end| {
            for _ in 0..7 {
                if sent < COUNT {
                    end.send(1, parcel(sent));
                    sent += 1;
                }
            }
            end.flush();
            match end.overflow_len() {
                0 if sent == COUNT => Next::End,
                0 => Next::Turn,
                _ if sent < COUNT && sent % 3 == 0 => Next::Turn,
                _ => Next::Sleep,
            }
        });
        reader.join().expect("the reader saw every message in order");
    }

    #[test]
    fn a_message_to_a_sleeper_wakes_it() {
        // Each round trip is two chances to lose a wake-up.
        const ROUNDS: u64 = 30_000;
        let mut ends = ends(2, 8);
        let (pong, pong_bell) = ends.pop().expect("two ends");
        let (ping, ping_bell) = ends.pop().expect("two ends");
        let answering = thread::spawn(move || {
            run_shard(pong, pong_bell, |end| {
                let mut last = 0;
                end.drain(8, |_, message| last = number_of(message));
                if last > 0 {
                    end.send(0, parcel(last));
                    end.flush();
                }
                if last < ROUNDS { Next::Sleep } else { Next::End }
            });
        });
        let mut answered = 0;
        let mut asked = 0;
        run_shard(ping, ping_bell, |end| {
            end.drain(8, |_, message| answered = number_of(message));
            if answered == asked && asked < ROUNDS {
                asked += 1;
                end.send(1, parcel(asked));
                end.flush();
            }
            if answered < ROUNDS { Next::Sleep } else { Next::End }
        });
        assert_eq!(answered, ROUNDS);
        answering.join().expect("both ended");
    }

    #[test]
    fn everybody_talks_to_everybody() {
        const SHARDS: usize = 4;
        const COUNT: u64 = 20_000;
        let threads: Vec<_> = ends(SHARDS, 4)
            .into_iter()
            .enumerate()
            .map(|(me, (end, bell))| {
                thread::spawn(move || {
                    let mut sent = 0;
                    let mut next = [0; SHARDS];
                    run_shard(end, bell, |end| {
                        for _ in 0..5 {
                            if sent < COUNT && end.overflow_len() < 100 {
                                (0..SHARDS).filter(|&to| to != me).for_each(|to| end.send(to, parcel(sent)));
                                sent += 1;
                            }
                        }
                        end.drain(3, |from, message| {
                            assert_eq!(number_of(message), next[from]);
                            next[from] += 1;
                        });
                        end.flush();
                        let heard_all = (0..SHARDS).all(|from| from == me || next[from] == COUNT);
                        match end.overflow_len() {
                            0 if sent == COUNT && heard_all => Next::End,
                            len if sent < COUNT && len < 100 => Next::Turn,
                            _ => Next::Sleep,
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("everybody heard everything in order");
        }
    }

    #[test]
    fn bits_stand_for_every_shard_that_shares_them() {
        let shards = |bits, count| shards_of(bits, count).collect::<Vec<_>>();
        assert_eq!(shards(bit_of(0) | bit_of(5), 16), [0, 5]);
        assert_eq!(shards(bit_of(3), 200), [3, 67, 131, 195]);
        assert_eq!(shards(bit_of(130), 200), [2, 66, 130, 194]);
        assert_eq!(shards(0, 16), [0; 0]);
        assert_eq!(shards(ShardBits::MAX, 130).len(), 130);
    }

    #[test]
    fn what_a_turn_leaves_in_a_ring_is_work_for_the_next_one() {
        let mut ends = ends(70, 8);
        // The third and the last but one share a bit.
        let (mut last, _) = ends.remove(66);
        let (mut receiver, _) = ends.remove(5);
        for n in 0..5 {
            last.send(5, parcel(n));
        }
        last.flush();
        let mut taken = Vec::new();
        for left in [true, true, false] {
            receiver.drain(2, |from, message| taken.push((from, number_of(message))));
            assert_eq!(receiver.has_work(), left);
        }
        assert_eq!(taken, [(66, 0), (66, 1), (66, 2), (66, 3), (66, 4)]);
    }

    #[test]
    fn a_sender_without_room_sleeps_until_there_is_some() {
        let mut ends = ends(2, 2);
        let (mut receiver, _bell) = ends.pop().expect("two ends");
        let (mut sender, sender_bell) = ends.pop().expect("two ends");
        for n in 0..5 {
            sender.send(1, parcel(n));
        }
        sender.flush();
        assert_eq!(sender.overflow_len(), 3);
        assert!(sender.prepare_sleep(), "nothing can be done now");

        let mut driver = EpollDriver::new(sender_bell).expect("an epoll set");
        assert_eq!(driver.turn(Some(Duration::ZERO), &mut BellOnly).expect("it works"), 0);
        assert_eq!(receiver.drain(1, |_, _| {}), 1);
        assert_eq!(driver.turn(Some(PATIENCE), &mut BellOnly).expect("it works"), 1, "there is room");
        sender.woke();
        assert!(sender.has_work());
        sender.flush();
        assert_eq!(sender.overflow_len(), 2);
    }

    #[test]
    fn a_bell_is_rung_only_for_a_sleeper_and_only_once() {
        let mut ends = ends(3, 8);
        let (third, third_bell) = ends.pop().expect("three ends");
        let (mut second, _) = ends.pop().expect("three ends");
        let (mut first, _) = ends.pop().expect("three ends");
        let mut driver = EpollDriver::new(third_bell).expect("an epoll set");
        let mut heard = || driver.turn(Some(Duration::ZERO), &mut BellOnly).expect("it works");

        first.send(2, parcel(1));
        first.flush();
        assert_eq!(heard(), 0, "it is awake");
        assert!(!third.prepare_sleep(), "there is a message");
        third.woke();

        let mut third = third;
        third.drain(8, |_, _| {});
        assert!(third.prepare_sleep());
        first.send(2, parcel(2));
        first.flush();
        assert_eq!(heard(), 1);
        second.send(2, parcel(3));
        second.flush();
        first.send(2, parcel(4));
        first.flush();
        assert_eq!(heard(), 0, "it was woken already");
    }
}
