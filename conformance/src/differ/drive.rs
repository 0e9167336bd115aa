//! Sends a sequence to one server, whose replies are not compared: so they may be random, and its clients need not wait for
//! each other. What has come of it is the server's own, and its replica's.

use super::resp::{Broken, encode};
use super::run::{Session, WAITERS_MAX};
use super::sequence::{CLEARING, Over, Sequence};

/// The index of the call at which the connection broke, and how.
type Driven = Result<(), (usize, Broken)>;

/// Sends all calls. Each of the first two clients sends its next batch when it has the replies to its last one, at the same
/// time as the other one; those who may be blocked are left so. With `one_by_one`, without pipelines, and one after the other.
pub fn drive(session: &mut Session, sequence: &Sequence, one_by_one: bool) -> Driven {
    // Replies to be read, of Main and of Other.
    let mut unread = [0, 0];
    let (mut start, mut waiter) = (0, 0);
    let calls = &sequence.calls;
    while start < calls.len() {
        let over = calls[start].over;
        let goes_on = |at: usize| !one_by_one && !calls[at - 1].ends_batch && calls[at].over == over;
        let end = (start + 1..calls.len()).find(|&at| !goes_on(at)).unwrap_or(calls.len());
        let requests: Vec<Vec<u8>> = calls[start..end]
            .iter()
            .flat_map(|call| {
                call.clears_errno.then(|| encode(&CLEARING)).into_iter().chain([encode(&call.args)])
            })
            .collect();
        let own = match over {
            Over::Main => Some(0),
            Over::Other => Some(1),
            Over::Waiter | Over::Listener(_) => None,
        };
        let broken = |broken| (start, broken);
        if let Some(own) = own {
            read(session, over, sequence.resp, &mut unread[own]).map_err(broken)?;
        }
        waiter = (waiter + 1) % WAITERS_MAX;
        let sent =
            session.client(over, waiter, sequence.resp).and_then(|client| client.send(&requests.concat()));
        sent.map_err(broken)?;
        if let Some(own) = own {
            unread[own] = requests.len();
            if one_by_one {
                read(session, over, sequence.resp, &mut unread[own]).map_err(broken)?;
            }
        }
        start = end;
    }
    for (over, unread) in [Over::Main, Over::Other].into_iter().zip(&mut unread) {
        read(session, over, sequence.resp, unread).map_err(|broken| (calls.len(), broken))?;
    }
    Ok(())
}

fn read(session: &mut Session, over: Over, resp: u8, unread: &mut usize) -> Result<(), Broken> {
    for _ in 0..std::mem::take(unread) {
        session.client(over, 0, resp)?.read()?;
    }
    Ok(())
}
