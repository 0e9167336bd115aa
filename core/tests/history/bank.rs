//! What transactions are for: money is neither made nor lost, and two who look before they leap do not leap together.
//!
//! Both were seen to fail where EXEC takes no notice of what it finds about its watched keys, and the second alone where
//! the chain does not lock keys that are only watched.

use crate::harness::{Connection, PATIENCE, Server, encode};
use crate::{Random, SETUPS};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

const ACCOUNTS: usize = 8;
const OPENING_BALANCE: i64 = 1000;

/// Transfers of each clerk.
const TRANSFERS: usize = 200;

fn account(n: usize) -> String {
    format!("account:{n}")
}

/// MULTI, some commands, EXEC in one write. Returns the reply to EXEC.
fn exec(connection: &mut Connection, commands: &[Vec<String>]) -> String {
    let mut bytes = encode(&[b"MULTI"]);
    for words in commands {
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        bytes.extend(encode(&args));
    }
    bytes.extend(encode(&[b"EXEC"]));
    connection.send(&bytes);
    assert_eq!(connection.reply(), b"+OK\r\n");
    for words in commands {
        assert_eq!(connection.reply(), b"+QUEUED\r\n", "{words:?}");
    }
    String::from_utf8(connection.reply()).expect("replies here are text")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// The numbers among the bulk strings of a reply.
fn numbers(reply: &str) -> Vec<i64> {
    reply.lines().filter_map(|line| line.parse().ok()).collect()
}

fn balances(connection: &mut Connection) -> Vec<i64> {
    let names: Vec<String> = (0..ACCOUNTS).map(account).collect();
    let mut mget = vec!["MGET"];
    mget.extend(names.iter().map(String::as_str));
    numbers(&connection.call(&mget))
}

/// Who transfers money, and what has come of it.
struct Clerk {
    connection: Connection,
    random: Random,
    /// What each account has gained by this clerk's transfers.
    gains: [i64; ACCOUNTS],
    /// Transfers that had to be begun again.
    retries: usize,
}

impl Clerk {
    fn new(server: &Server, n: u64) -> Clerk {
        Clerk { connection: server.connect(), random: Random::new(n), gains: [0; ACCOUNTS], retries: 0 }
    }

    /// Two different accounts and an amount.
    fn draw_transfer(&mut self) -> (usize, usize, i64) {
        let from = self.random.below(ACCOUNTS);
        (from, (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS, 1 + self.random.below(50) as i64)
    }

    fn note(&mut self, from: usize, to: usize, amount: i64) {
        self.gains[from] -= amount;
        self.gains[to] += amount;
    }

    /// Reads both balances, and sets both if nobody has changed one meanwhile.
    fn transfer_watching(&mut self) {
        let (from, to, amount) = self.draw_transfer();
        let (source, target) = (account(from), account(to));
        loop {
            assert_eq!(self.connection.call(&["WATCH", &source, &target]), "+OK\r\n");
            let [has, gets] =
                [&source, &target].map(|name| numbers(&self.connection.call(&["GET", name]))[0]);
            let commands = [
                words(&["SET", &source, &(has - amount).to_string()]),
                words(&["SET", &target, &(gets + amount).to_string()]),
            ];
            match exec(&mut self.connection, &commands).as_str() {
                "*2\r\n+OK\r\n+OK\r\n" => break self.note(from, to, amount),
                "*-1\r\n" => self.retries += 1,
                other => panic!("EXEC replied {other:?}"),
            }
        }
    }

    /// Counts one down and the other up, whatever they are.
    fn transfer_blindly(&mut self) {
        let (from, to, amount) = self.draw_transfer();
        let commands = [
            words(&["DECRBY", &account(from), &amount.to_string()]),
            words(&["INCRBY", &account(to), &amount.to_string()]),
        ];
        let reply = exec(&mut self.connection, &commands);
        assert!(reply.starts_with("*2\r\n:"), "{reply:?}");
        self.note(from, to, amount);
    }
}

#[test]
fn transfers_between_accounts_on_all_shards_keep_the_sum_and_lose_no_update() {
    let total = OPENING_BALANCE * ACCOUNTS as i64;
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut auditor = server.connect();
        for n in 0..ACCOUNTS {
            assert_eq!(auditor.call(&["SET", &account(n), &OPENING_BALANCE.to_string()]), "+OK\r\n");
        }
        let closed = AtomicBool::new(false);
        let (clerks, audits) = thread::scope(|scope| {
            let clerks: Vec<_> = (0..6)
                .map(|n| {
                    let mut clerk = Clerk::new(&server, n);
                    scope.spawn(move || {
                        for _ in 0..TRANSFERS {
                            if n < 4 { clerk.transfer_watching() } else { clerk.transfer_blindly() }
                        }
                        clerk
                    })
                })
                .collect();
            let audit = scope.spawn(|| {
                let mut connection = server.connect();
                let halves: Vec<Vec<String>> = [0..ACCOUNTS / 2, ACCOUNTS / 2..ACCOUNTS]
                    .map(|half| std::iter::once("MGET".to_string()).chain(half.map(account)).collect())
                    .into();
                let mut audits = 0;
                while !closed.load(Ordering::Relaxed) {
                    let seen = balances(&mut connection);
                    assert_eq!(seen.iter().sum::<i64>(), total, "{setup:?}: MGET saw {seen:?}");
                    let reply = exec(&mut connection, &halves);
                    let seen: i64 = numbers(&reply).iter().sum();
                    assert_eq!(seen, total, "{setup:?}: EXEC saw {reply:?}");
                    audits += 1;
                }
                audits
            });
            let clerks: Vec<_> = clerks.into_iter().map(|clerk| clerk.join()).collect();
            closed.store(true, Ordering::Relaxed);
            let audits = audit.join().expect("the sums were right");
            let clerks: Vec<Clerk> =
                clerks.into_iter().map(|clerk| clerk.expect("its replies were right")).collect();
            (clerks, audits)
        });

        assert!(audits > 0 && clerks.iter().any(|clerk| clerk.retries > 0), "{setup:?}: nobody met anybody");
        let gained = |n: usize| clerks.iter().map(|clerk| clerk.gains[n]).sum::<i64>();
        let expected: Vec<i64> = (0..ACCOUNTS).map(|n| OPENING_BALANCE + gained(n)).collect();
        assert_eq!(balances(&mut auditor), expected, "{setup:?}: an update was lost");
    }
}

/// Leaves if both are on call. Returns false if somebody changed that meanwhile.
fn leave(doctor: &mut Connection, keys: [&str; 2], own: &str) -> bool {
    assert_eq!(doctor.call(&["WATCH", keys[0], keys[1]]), "+OK\r\n");
    if doctor.call(&["MGET", keys[0], keys[1]]) != "*2\r\n$1\r\n1\r\n$1\r\n1\r\n" {
        assert_eq!(doctor.call(&["UNWATCH"]), "+OK\r\n");
        return true;
    }
    exec(doctor, &[words(&["SET", own, "0"])]) == "*1\r\n+OK\r\n"
}

/// Two doctors on call, and each may leave if the other stays: both look, both see the other, one leaves.
#[test]
fn two_who_read_both_keys_and_write_one_each_do_not_both_succeed() {
    const ROUNDS_MIN: usize = 200;
    const REFUSALS_MIN: usize = 20;
    let keys = ["on_call:ada", "on_call:grace"];
    let shards: BTreeSet<usize> =
        keys.iter().map(|key| shardis_core::shard::slot::shard_of(key.as_bytes(), 4)).collect();
    assert_eq!(shards.len(), 2, "they are on different shards");
    for setup in SETUPS {
        let server = Server::start(setup);
        let mut admin = server.connect();
        let (done, results) = channel();
        thread::scope(|scope| {
            let doctors = keys.map(|own| {
                let (begin, rounds) = channel();
                let (done, server) = (done.clone(), &server);
                scope.spawn(move || {
                    let mut doctor = server.connect();
                    while rounds.recv().is_ok() {
                        let is_refused = !leave(&mut doctor, keys, own);
                        done.send(is_refused).expect("somebody counts");
                    }
                });
                begin
            });
            let deadline = Instant::now() + PATIENCE;
            let (mut rounds, mut refusals) = (0, 0);
            while rounds < ROUNDS_MIN || refusals < REFUSALS_MIN {
                assert!(Instant::now() < deadline, "{setup:?}: {refusals} refusals in {rounds} rounds");
                assert_eq!(admin.call(&["MSET", keys[0], "1", keys[1], "1"]), "+OK\r\n");
                doctors.iter().for_each(|begin| begin.send(()).expect("both are there"));
                let is_refused = |_: &&Sender<()>| results.recv_timeout(PATIENCE).expect("both come back");
                refusals += doctors.iter().filter(is_refused).count();
                let left = admin.call(&["MGET", keys[0], keys[1]]);
                assert_eq!(
                    left.matches("\r\n1\r\n").count(),
                    1,
                    "{setup:?}: one leaves, one stays: {left:?}"
                );
                rounds += 1;
            }
        });
    }
}
