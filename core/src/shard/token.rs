//! Programs and locks: how others give way to programs, and the token.
//!
//! A transaction past its lock point ends after a few messages, and so does everything that it is to wait in line for.
//! Programs are different. One that runs for long is suspended while it holds its keys, and one that is *wide* (it touches
//! keys that it has not declared) asks for keys while it holds others. Two rules keep the argument of
//! [`txn`](super::txn) valid: nobody waits in line behind a program, and only one wide transaction is under way at a
//! time.
//!
//! # Giving way
//!
//! The lock requests of suspended programs, and all those of the token's holder, are marked as *programs'* in the
//! [lock table](super::lock::programs). A request that would have to wait in a line in which a program's request stands
//! has *met* that program. It does not wait there, but outside the lines, until all programs that it has met here have
//! released their requests:
//!
//! - *A command or an EXEC of one shard* holds nothing anyway, and now keeps nobody from its other keys either; one for
//!   the whole keyspace holds up nobody. Later commands of its client on this shard follow it outside, so a connection's
//!   requests keep their order.
//! - *The plan of a transaction* has all shards on which it holds locks release them ([`GiveBack`]). Each of them, and
//!   home if it has locked ahead, keeps its share and locks it again when the plan comes by. The plan itself waits at the
//!   shard where it has met the program, and then starts anew at its first shard, in its next *round*. A `GiveBack` that
//!   is overtaken by the plan of a later round is void, because the lock it is about is now held in its turn. Nothing of
//!   the transaction has run before its lock point, so there is nothing else to undo. (Watched keys are checked again at
//!   each lock, and no longer watched only from the lock point on.)
//! - *The transaction of a woken command* (BLMOVE) also releases the key on offer, and its client keeps its place among
//!   the waiters. Others may take from the key meanwhile; then the command finds nothing, and its client stays blocked.
//! - *A coalesced pipeline, and what it falls back to,* are plans as any other. A client's stalled connection notices
//!   nothing, and one that has disconnected changes nothing: the transaction is driven by messages alone.
//!
//! A request can become a program's later, when its owner is suspended; at its other shards this takes a message
//! ([`Mark`]). Whoever waits behind it at that moment is sent outside as if it had just arrived. A key that is split off
//! such a request for the clients blocked on it is marked as well, because its handoff waits for the program's end.
//!
//! A mark lasts until its request is released, a handoff's after the program's end as well, and it is on all keys of the request,
//! also on those that the transaction of a woken command adds to the handoff's lock. If they had none, a request might wait for
//! one of them and hold another key meanwhile. Then the transaction changes its key, that is split off, and offered to a
//! program, which waits for the token. As it counts as marked, nobody would be sent outside from its line now, and the holder of
//! the token might come to the key that the waiting request holds: it would wait for its own end.
//!
//! # The token
//!
//! There is one token for the process; the first shard keeps it, and lends it to the shards in the order in which they ask.
//! A shard uses it for what waits for it there, first in, first out, and for [`RUN_MAX`] of these at most before it is another
//! shard's turn: handing it on takes two messages, and a hold by itself may be shorter. Its holder may wait for keys while
//! it holds others, in any order. Plans that are not granted in whole are sent outside from the lines of its requests, and
//! so is a plan for the whole keyspace. It waits for what is granted, and for the units that stand in these lines already:
//! if it went before one, it might come before one command of a client and behind a later one, which has run. The token is
//! taken by
//!
//! - a wide transaction, before its first lock, up to its end;
//! - a wide unit, with its first lock, up to its end;
//! - whoever has met programs too often ([`MEETINGS_MAX`](super::lock::programs::MEETINGS_MAX)), before it starts again,
//!   and up to the moment when it holds all its locks.
//!
//! A plan that has taken it for that reason gives way to programs as before, so that it holds nothing while it waits for them. But it
//! starts at the shard where it has met the last one, and when that has ended it is granted its locks there before all others, and
//! goes on from there. Only if it has met programs again and again
//! ([`MEETINGS_WITH_TOKEN_MAX`](super::lock::programs::MEETINGS_WITH_TOKEN_MAX)), because they follow each other on
//! several shards or over several keys, it waits in their lines with what it has.
//!
//! # Wide transactions
//!
//! A wide transaction is a program by itself, with nothing locked but an empty request at its home, or an EXEC that
//! contains one, with the keys of its queue. Its program runs at home, and declared keys are not checked out for it. A
//! command that it calls runs at once if its keys are home's, and in its hand or free. Any other is a *call*: a
//! transaction of that one command, whose plan goes along its shards and adds its locks to those that the wide transaction
//! holds there, waiting where it must. Then it runs like any transaction, as a list on one shard, on several, on all, or
//! over checked-out entries at home; only its locks stay. At the end home has all shards release them ([`End`]), and then
//! returns the token.
//!
//! The effects are pieces of one unit, ordered by the number of the call. A shard leaves its piece when it releases its
//! locks, so when all locks of the transaction are held; the number of pieces is known by then. Whether they are recorded
//! is decided at the transaction's lock point (of the locks that it starts with). A reader of the stream cannot attach
//! between that and the end: it locks the whole keyspace of all shards, home's included.
//!
//! A key that a call changes is split off for the clients blocked on it, as for any transaction, and is still in the
//! program's hand; its handoff begins when the transaction has ended on that shard. What a program changes among home's
//! keys is reported to their observers at the end, as with checked-out keys.
//!
//! # Wide units
//!
//! On a server of one shard a wide program by itself is a unit. If nothing is locked when it is called, it begins at once,
//! without the token and without locks: nothing else runs until it is suspended for the first time. At that moment it locks
//! the keys that it has declared or touched, which are free still, and takes the token, which is free because whoever holds
//! it holds locks. If something is locked when it is called, it first asks for the token, and then for its declared keys.
//! From then on it is what a wide transaction is: it locks the keys of each command that it calls, and waits where it must.
//! It calls the command when it is granted them, so there are no plans and no pieces of effects.
//!
//! Its client's other requests wait for its end, as for a transaction's: it may come to their keys.
//!
//! # Why this is correct
//!
//! *No deadlock.* Let those be *ordinary* that have no request marked as a program's. (1) An ordinary request that waits
//! in lines does not wait for a program, at whatever distance: no program's request stands in its lines, or it would have
//! met it, and the same holds for all requests before it in these lines, since they wait in lines too. A handoff's
//! request is the exception: it waits behind a program's. But it is for one key only, and in that key's line the
//! program's request stands, too, so whoever would have to wait behind it has met the program. (Between the suspension of
//! a program and the arrival of `Mark` at another shard this does not hold; that lasts for the time of a message.) Hence
//! ordinary requests wait for ordinary ones alone, by the order of shards, and the argument of [`txn`](super::txn) applies:
//! each of them is granted, and released, in the end. So is the transaction of a woken command whose lock was marked for a
//! program that has ended: it waits as ordinary ones do, and none of these waits in line behind it. A unit that stands before a
//! request of the token's holder is ordinary, too. (2) A suspended program without the token asks for nothing more, and
//! so ends by itself. (3) The holder of the token waits for requests that are granted, or units': ordinary ones, which end by (1),
//! because an ordinary transaction that waits elsewhere and meets the holder there gives its locks back; suspended
//! programs, which end by (2), in their lines or outside; earlier holders, which are past their lock point or at their end. It
//! does not wait for a handoff that waits for its own end: what is split off its requests is in its hand, and does not count
//! against its request for the whole keyspace; and a handoff that it meets outside is lent to it as one in its line. So the
//! holder ends. (4) Who waits outside waits for programs, which end by (2) and (3),
//! or for the token, or for an earlier command of its client that waits outside; and it holds nothing that anyone could
//! wait for.
//!
//! *No starvation.* Among ordinary requests, those in line are granted in order of arrival; the holder of the token
//! overtakes, but there is one at a time. Whoever waits outside starts anew when the programs have ended that were there
//! when it came, so newer ones do not prolong that wait. After `MEETINGS_MAX` of those it gets the token in its turn, and
//! with it all its locks, for it gives way a limited number of times then.
//!
//! *Nothing is seen half.* A transaction that gives way has done nothing. A wide transaction keeps every lock to its end,
//! so it takes effect at one moment: when it holds the last of them. Its calls run under locks as those of any
//! transaction.
//!
//! *No client is lost.* What waits outside keeps its waiter or its plan, and each of these is started again by the release
//! of a program's request on the shard where it waits, or by the token.
//!
//! [`GiveBack`]: super::txn::TxnMessage::GiveBack
//! [`Mark`]: super::txn::TxnMessage::Mark
//! [`End`]: super::txn::TxnMessage::End

use std::collections::VecDeque;

/// The shard that keeps the token.
pub const TOKEN_SHARD: usize = 0;

/// So many holders on one shard may follow one another before the token is offered to other shards.
pub const RUN_MAX: u32 = 32;

/// Messages about the token.
pub enum TokenMessage {
    /// To the shard that keeps it: `shard` wants it.
    Ask { shard: usize },
    /// You have it. Return it afterwards. `was_held`: it was another's when you asked.
    Granted { was_held: bool },
    /// To the shard that keeps it: the holder needs it no more. `again`: this shard wants it again, in its turn.
    Return { again: Option<usize> },
}

/// At the shard that keeps it: whether it is held, and which shards wait for it.
#[derive(Default)]
pub struct Token {
    is_held: bool,
    queue: VecDeque<usize>,
}

impl Token {
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// A shard asks for it. Returns who is to be told that it has it now.
    pub fn ask(&mut self, shard: usize) -> Option<usize> {
        self.queue.push_back(shard);
        self.pass_on()
    }

    /// Takes it for what need not ask, because it is free.
    pub fn take_free(&mut self) {
        assert!(!std::mem::replace(&mut self.is_held, true), "the token is free");
    }

    /// Its holder returns it. Returns who is to be told that it has it now.
    pub fn give_back(&mut self, again: Option<usize>) -> Option<usize> {
        assert!(std::mem::take(&mut self.is_held), "the token is returned once");
        self.queue.extend(again);
        self.pass_on()
    }

    fn pass_on(&mut self) -> Option<usize> {
        if self.is_held {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.is_held = true;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_from_one_shard_to_the_next_in_the_order_of_asking() {
        let mut token = Token::default();
        assert_eq!(token.ask(1), Some(1));
        assert_eq!(token.ask(2), None);
        assert_eq!(token.ask(0), None);
        assert_eq!(token.give_back(Some(1)), Some(2));
        assert_eq!(token.give_back(None), Some(0));
        assert_eq!(token.give_back(None), Some(1));
        assert_eq!(token.give_back(None), None);
        token.take_free();
        assert_eq!(token.ask(2), None);
        assert_eq!(token.give_back(None), Some(2));
    }
}
