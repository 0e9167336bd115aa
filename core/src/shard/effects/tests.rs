//! The log on its own: which effects it records, and which of them are a unit.

use super::merger::Delivery;
use super::*;
use crate::protocol::OwnedArgv;

/// A log with a reader, and the merger behind it.
struct Stream {
    log: EffectLog,
    merger: Merger,
    changes: u64,
    next_seq: u64,
}

impl Stream {
    fn new() -> Stream {
        let mut stream = Stream {
            log: EffectLog::default(),
            merger: Merger::new(Consumer::Replicas),
            changes: 40,
            next_seq: 0,
        };
        stream.log.begin_sync(1, stream.changes);
        assert_eq!(stream.pump(), [Delivery::Sync { number: 1, offset: 0 }]);
        stream
    }

    /// Runs a command that counts as `changes` changes.
    fn command(&mut self, words: &str, changes: u64) {
        let args = OwnedArgv::from_slices(&words.split(' ').collect::<Vec<_>>());
        self.changes += changes;
        if self.log.is_on() {
            self.log.end_command(0, Some(args.as_argv()), self.changes, false);
        }
    }

    fn pump(&mut self) -> Vec<Delivery> {
        if let Some(taken) = self.log.take()
            && taken.for_replicas
        {
            self.merger.push(self.next_seq, taken.batch);
            self.next_seq += 1;
        }
        self.merger.take()
    }

    /// The new requests of the stream but for SELECT, each with its words joined by blanks.
    fn requests(&mut self) -> Vec<String> {
        let deliveries = self.pump();
        let bytes: Vec<u8> = deliveries
            .into_iter()
            .flat_map(|delivery| match delivery {
                Delivery::Bytes(bytes) => bytes,
                Delivery::Sync { .. } | Delivery::Lost { .. } | Delivery::NewPart { .. } => {
                    panic!("{delivery:?}")
                }
            })
            .collect();
        requests(&bytes).into_iter().filter(|request| !request.starts_with("SELECT")).collect()
    }
}

/// The requests of a stream, each with its words joined by blanks.
pub(in crate::shard::effects) fn requests(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("the effects here are text");
    let mut lines = text.split("\r\n");
    let mut found = Vec::new();
    while let Some(count) = lines.next().filter(|line| !line.is_empty()) {
        let count: usize = count[1..].parse().expect("a count");
        let words: Vec<&str> = (0..count).map(|_| lines.nth(1).expect("a length and a word")).collect();
        found.push(words.join(" "));
    }
    found
}

#[test]
fn a_command_that_changed_something_has_its_arguments_as_effect() {
    let mut stream = Stream::new();
    stream.command("SET a 1", 1);
    stream.command("GET a", 0);
    stream.command("DEL none", 0);
    stream.log.force();
    stream.command("FLUSHALL", 0);
    stream.command("DEL none", 0);
    assert_eq!(stream.requests(), ["SET a 1", "FLUSHALL"]);
}

#[test]
fn effects_that_the_handler_names_replace_the_arguments_of_that_command_only() {
    let mut stream = Stream::new();
    stream.log.replace(0, &[b"SREM", b"s", b"x"]);
    stream.log.replace(0, &[b"SREM", b"s", b"y"]);
    stream.command("SPOP s 2", 2);
    stream.command("SADD s z", 1);
    assert_eq!(stream.requests(), ["MULTI", "SREM s x", "SREM s y", "EXEC", "SADD s z"]);
}

#[test]
fn a_transaction_on_one_shard_is_one_unit() {
    let mut stream = Stream::new();
    stream.log.begin_local();
    stream.command("SET a 1", 1);
    stream.command("GET a", 0);
    stream.log.removed(0, b"old", true);
    stream.command("SET b 1", 1);
    stream.log.end_local();
    stream.log.begin_local();
    stream.command("SET c 1", 1);
    stream.log.end_local();
    stream.log.begin_local();
    stream.command("GET c", 0);
    stream.log.end_local();
    assert_eq!(stream.requests(), ["MULTI", "SET a 1", "UNLINK old", "SET b 1", "EXEC", "SET c 1"]);
}

#[test]
fn a_piece_is_kept_while_the_shard_runs_other_commands() {
    let mut stream = Stream::new();
    let id = PieceId { txn: TxnId { home: 0, number: 1 }, over_checked_out: false };
    stream.log.resume_piece(id, stream.changes);
    stream.command("SET a 1", 1);
    stream.log.suspend_piece();
    stream.command("SET other 1", 1);
    stream.log.resume_piece(id, stream.changes);
    stream.log.set_order(2);
    stream.command("SET c 1", 1);
    stream.log.suspend_piece();
    stream.log.end_piece(id, 1, true);
    stream.command("SET another 1", 1);
    assert_eq!(stream.requests(), ["SET other 1", "MULTI", "SET a 1", "SET c 1", "EXEC", "SET another 1"]);
    assert!(stream.merger.is_idle());
}

#[test]
fn a_recorded_transaction_is_recorded_even_on_a_shard_that_records_nothing_else() {
    let mut stream = Stream::new();
    stream.log.end_syncs(1);
    stream.command("SET a 1", 1);
    let id = PieceId { txn: TxnId { home: 0, number: 1 }, over_checked_out: false };
    stream.log.resume_piece(id, stream.changes);
    stream.command("SET b 1", 1);
    stream.log.suspend_piece();
    assert!(!stream.log.is_on());
    stream.log.end_piece(id, 1, true);
    assert_eq!(stream.requests(), ["SET b 1"]);
}

#[test]
fn a_synchronization_that_nobody_waits_for_any_more_begins_nothing() {
    let mut stream = Stream::new();
    stream.log.end_syncs(2);
    stream.merger.end(2);
    stream.log.begin_sync(2, stream.changes);
    assert!(!stream.log.is_on());
    stream.command("SET a 1", 1);
    assert!(stream.requests().is_empty());

    stream.log.begin_sync(3, stream.changes);
    stream.log.end_syncs(2);
    assert!(stream.log.is_on(), "it has ended for those before alone");
    stream.command("SET b 1", 1);
    let deliveries = stream.pump();
    let [Delivery::Sync { number: 3, offset: 0 }, Delivery::Bytes(bytes)] = deliveries.as_slice() else {
        panic!("{deliveries:?}");
    };
    assert_eq!(requests(bytes), ["SELECT 0", "SET b 1"]);
}

#[test]
fn a_stream_that_misses_effects_is_over_and_a_later_one_has_all() {
    let mut stream = Stream::new();
    stream.command("SET a 1", 1);
    stream.log.lose();
    stream.command("SET b 1", 1);
    stream.log.begin_sync(2, stream.changes);
    stream.command("SET c 1", 1);
    let deliveries = stream.pump();
    let [
        Delivery::Bytes(first),
        Delivery::Lost { last_number: 1 },
        Delivery::Sync { number: 2, offset },
        Delivery::Bytes(second),
    ] = deliveries.as_slice()
    else {
        panic!("{deliveries:?}");
    };
    assert_eq!(requests(first), ["SELECT 0", "SET a 1"]);
    assert_eq!(*offset, first.len() as u64);
    assert_eq!(requests(second), ["SELECT 0", "SET c 1"]);
}

/// Pushes what the log has to both mergers. Returns what the one of the file delivers.
fn pump_both(stream: &mut Stream, file: &mut Merger, file_seq: &mut u64) -> Vec<Delivery> {
    if let Some(taken) = stream.log.take() {
        if taken.for_file {
            file.push(*file_seq, Arc::clone(&taken.batch));
            *file_seq += 1;
        }
        if taken.for_replicas {
            stream.merger.push(stream.next_seq, taken.batch);
            stream.next_seq += 1;
        }
    }
    file.take()
}

#[test]
fn the_file_reads_in_parts_whether_there_are_replicas_or_not() {
    let mut stream = Stream::new();
    let (mut file, mut file_seq) = (Merger::new(Consumer::File), 0);
    stream.log.begin_part(1, stream.changes);
    stream.command("SET a 1", 1);
    stream.log.begin_part(2, stream.changes);
    stream.command("SET b 1", 1);
    let deliveries = pump_both(&mut stream, &mut file, &mut file_seq);
    let [
        Delivery::NewPart { number: 1 },
        Delivery::Bytes(first),
        Delivery::NewPart { number: 2 },
        Delivery::Bytes(second),
    ] = deliveries.as_slice()
    else {
        panic!("{deliveries:?}");
    };
    assert_eq!(requests(first), ["SELECT 0", "SET a 1"]);
    assert_eq!(requests(second), ["SELECT 0", "SET b 1"], "each part selects its database");
    assert_eq!(stream.requests(), ["SET a 1", "SET b 1"], "replicas do not notice the parts");

    stream.log.lose();
    stream.log.end_syncs(1);
    stream.command("SET c 1", 1);
    let deliveries = pump_both(&mut stream, &mut file, &mut file_seq);
    let [Delivery::Bytes(third)] = deliveries.as_slice() else { panic!("{deliveries:?}") };
    assert_eq!(requests(third), ["SET c 1"], "the file loses nothing");
    stream.log.end_file();
    stream.command("SET d 1", 1);
    assert!(!stream.log.is_on() && pump_both(&mut stream, &mut file, &mut file_seq).is_empty());
}

/// As a script may ask by `redis.set_repl`.
#[test]
fn an_effect_is_for_those_readers_that_it_is_recorded_for() {
    let mut stream = Stream::new();
    let (mut file, mut file_seq) = (Merger::new(Consumer::File), 0);
    stream.log.begin_part(1, stream.changes);
    stream.log.begin_local();
    let [none, replicas, only_file] =
        [(false, false), (true, false), (false, true)].map(|(replicas, file)| Readers { replicas, file });
    for (readers, words) in [
        (Readers::ALL, "SET a 1"),
        (none, "SET b 2"),
        (only_file, "SET c 3"),
        (replicas, "SET d 4"),
        (Readers::ALL, "SET e 5"),
    ] {
        stream.log.record_for(readers);
        stream.command(words, 1);
    }
    stream.log.end_local();
    stream.log.record_for(only_file);
    stream.log.removed(0, b"f", false);
    stream.command("SET g 7", 1);
    let deliveries = pump_both(&mut stream, &mut file, &mut file_seq);
    let [Delivery::NewPart { number: 1 }, Delivery::Bytes(bytes)] = deliveries.as_slice() else {
        panic!("{deliveries:?}");
    };
    let unit = ["MULTI", "SET a 1", "SET c 3", "SET e 5", "EXEC"];
    let of_file = [&["SELECT 0"], &unit[..], &["MULTI", "DEL f", "SET g 7", "EXEC"]].concat();
    assert_eq!(requests(bytes), of_file);
    let of_replicas = ["MULTI", "SET a 1", "SET d 4", "SET e 5", "EXEC", "DEL f"];
    assert_eq!(stream.requests(), of_replicas, "keys that expire are removed for all");
}
