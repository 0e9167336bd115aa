//! The way of a snapshot to a replica: from the thread that writes it, or reads it from a file, to the shard that serves
//! the replica. The thread waits while enough is under way; the shard takes what is there, and never waits.

use crate::runtime::driver::BellHandle;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// So many bytes may wait for the shard; a single chunk may be longer.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// A file is read in pieces of this length.
const FILE_CHUNK_LEN: usize = 128 << 10;
/// A thread that waits looks this often whether there is a reason to wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    /// Of a file, until the shard has taken it.
    total_bytes: Option<u64>,
    is_file: bool,
    chunks: VecDeque<Arc<Vec<u8>>>,
    waiting_bytes: usize,
    /// All of it has been handed over; `Some(false)`: it is not whole.
    ended: Option<bool>,
    /// The replica is gone.
    is_closed: bool,
}

/// See the module's documentation.
pub struct Payload {
    state: Mutex<State>,
    room: Condvar,
    /// Wakes the shard.
    bell: Option<BellHandle>,
}

/// What a shard finds.
pub enum Next {
    /// The length of what follows.
    Length(u64),
    Chunk(Arc<Vec<u8>>),
    /// Nothing yet.
    Nothing,
    /// It was complete.
    Complete,
    Failed,
}

impl Payload {
    pub fn new(bell: Option<BellHandle>) -> Payload {
        Payload { state: Mutex::default(), room: Condvar::new(), bell }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of a payload panics")
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// Hands a chunk over when there is room. Returns false if the replica is gone, or `is_over`.
    fn push(&self, chunk: &Arc<Vec<u8>>, is_over: &dyn Fn() -> bool) -> bool {
        let mut state = self.state();
        while state.waiting_bytes > WAITING_BYTES_MAX && !state.is_closed && !is_over() {
            (state, _) = self.room.wait_timeout(state, LOOK_INTERVAL).expect("no holder of a payload panics");
        }
        if state.is_closed || is_over() {
            return false;
        }
        state.waiting_bytes += chunk.len();
        state.chunks.push_back(Arc::clone(chunk));
        drop(state);
        self.ring();
        true
    }

    /// All was handed over, or no more comes.
    pub fn end(&self, is_complete: bool) {
        self.state().ended.get_or_insert(is_complete);
        self.ring();
    }

    /// As [`Payload::end`], unless a thread is handing a file over.
    pub fn end_unless_sent(&self, is_complete: bool) {
        if !self.state().is_file {
            self.end(is_complete);
        }
    }

    /// Hands all of it over at once.
    pub fn give_whole(&self, bytes: Vec<u8>) {
        let mut state = self.state();
        state.chunks.push_back(Arc::new(bytes));
        state.ended = Some(true);
    }

    /// The replica is gone.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.chunks.clear();
        state.waiting_bytes = 0;
        self.room.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// What comes next.
    pub fn next(&self) -> Next {
        let mut state = self.state();
        if let Some(total_bytes) = state.total_bytes.take() {
            return Next::Length(total_bytes);
        }
        match state.chunks.pop_front() {
            Some(chunk) => {
                state.waiting_bytes = state.waiting_bytes.saturating_sub(chunk.len());
                self.room.notify_all();
                Next::Chunk(chunk)
            }
            None => match state.ended {
                None => Next::Nothing,
                Some(true) => Next::Complete,
                Some(false) => Next::Failed,
            },
        }
    }

    /// Has a thread hand a file over, which is so long.
    pub fn send_file(self: &Arc<Payload>, mut file: Box<dyn Read + Send>, len_bytes: u64) {
        let payload = Arc::clone(self);
        {
            let mut state = payload.state();
            (state.total_bytes, state.is_file) = (Some(len_bytes), true);
        }
        let thread = std::thread::Builder::new().name("replica-file".to_owned());
        let run = move || {
            let outcome = payload.read_all(&mut *file, len_bytes);
            payload.end(outcome.is_ok());
        };
        thread.spawn(run).expect("the system can start a thread");
    }

    fn read_all(&self, file: &mut dyn Read, len_bytes: u64) -> io::Result<()> {
        let mut left = len_bytes;
        while left > 0 {
            let mut chunk = vec![0; left.min(FILE_CHUNK_LEN as u64) as usize];
            file.read_exact(&mut chunk)?;
            left -= chunk.len() as u64;
            if !self.push(&Arc::new(chunk), &|| false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }
}

/// Hands a chunk over to all replicas that are still there. Returns false if there is none, or `is_over`.
pub fn push_to_all(payloads: &[Arc<Payload>], chunk: Vec<u8>, is_over: &dyn Fn() -> bool) -> bool {
    if chunk.is_empty() {
        return payloads.iter().any(|payload| !payload.is_closed());
    }
    let chunk = Arc::new(chunk);
    payloads.iter().fold(false, |goes_on, payload| payload.push(&chunk, is_over) || goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_arrives_whole_and_a_short_one_fails() {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|n| n as u8).collect();
        for missing in [0, 1] {
            let payload = Arc::new(Payload::new(None));
            let len_bytes = bytes.len() as u64;
            payload.send_file(Box::new(io::Cursor::new(bytes[missing..].to_vec())), len_bytes);
            let mut received = Vec::new();
            let is_complete = loop {
                match payload.next() {
                    Next::Length(len) => assert_eq!(len, len_bytes),
                    Next::Chunk(chunk) => received.extend_from_slice(&chunk),
                    Next::Nothing => std::thread::yield_now(),
                    Next::Complete => break true,
                    Next::Failed => break false,
                }
                assert!(payload.state().waiting_bytes <= WAITING_BYTES_MAX + FILE_CHUNK_LEN);
            };
            assert_eq!(is_complete, missing == 0);
            assert!(missing == 1 || received == bytes);
        }
    }

    #[test]
    fn who_is_gone_holds_nobody_up() {
        let payloads = [(); 2].map(|()| Arc::new(Payload::new(None)));
        payloads[0].close();
        assert!(push_to_all(&payloads, vec![1; WAITING_BYTES_MAX + 1], &|| false));
        assert!(!push_to_all(&payloads, vec![1; 10], &|| true), "it is over");
        payloads[1].close();
        assert!(!push_to_all(&payloads, vec![1; 10], &|| false));
    }
}
