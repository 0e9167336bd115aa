//! The module against Redis' own commands.

use shardis_modules_testing::{
    Library, Outcome, PREFIX, Pair, Random, Request, Server, from_environment, request,
};

/// A server with the module. None if there is none to compare with.
fn start() -> Option<Server> {
    let library = Library::Package("shardis-bitmap");
    Server::start(library, &["PREFIX", PREFIX], &["--notify-keyspace-events", "EA"])
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn integer(random: &mut Random) -> String {
    match random.below(12) {
        0 => "x".to_string(),
        1 => (-1 - random.below(20) as i64).to_string(),
        2 => random.pick(&["-0", "01", "+1", "", "9223372036854775807", "-9223372036854775808"]).to_string(),
        3 => (random.below(1 << 40) as i64 - (1 << 39)).to_string(),
        _ => random.below(40).to_string(),
    }
}

fn offset(random: &mut Random) -> String {
    // The last valid one, 4294967295, makes strings of 512 MiB, which take minutes to compare: it has a test of its own.
    match random.below(30) {
        0 => random.pick(&["-1", "x", "4294967296", "", "1.5", "9223372036854775807"]).to_string(),
        1 => (random.below(10_000)).to_string(),
        _ => random.below(300).to_string(),
    }
}

fn field_type(random: &mut Random) -> String {
    if random.below(20) == 0 {
        return random.pick(&["i0", "u0", "i65", "u64", "x8", "i", "u-8", "u08", "I8"]).to_string();
    }
    let bits = [1, 5, 8, 16, 31, 63, 64][random.below(7) as usize];
    if random.below(2) == 0 { format!("i{bits}") } else { format!("u{}", bits.min(63)) }
}

fn field_operation(random: &mut Random, words: &mut Vec<String>) {
    let hash = random.pick(&["", "", "#"]);
    // Counted in fields of up to 64 bits, an offset makes strings of a size that is tedious to compare.
    let offset = if hash.is_empty() { offset(random) } else { random.below(20).to_string() };
    match random.below(8) {
        0 => words.extend(["get".to_string(), field_type(random), format!("{hash}{offset}")]),
        1 | 2 => words.extend([
            "overflow".to_string(),
            random.pick(&["wrap", "sat", "fail", "Fail", "sat", "none"]).to_string(),
        ]),
        3 => words.push(random.pick(&["get", "set", "incrby", "overflow", "nonsense"]).to_string()),
        4 | 5 => {
            words.extend(["SET".to_string(), field_type(random), format!("{hash}{offset}"), integer(random)]);
        }
        _ => {
            words.extend([
                "incrby".to_string(),
                field_type(random),
                format!("{hash}{offset}"),
                integer(random),
            ]);
        }
    }
}

fn random_request(random: &mut Random) -> Request {
    let key = random.pick(&KEYS).to_string();
    let mut words: Vec<String> = Vec::new();
    match random.below(16) {
        0..3 => words.extend([
            "setbit".into(),
            key,
            offset(random),
            random.pick(&["0", "1", "1", "2", "x"]).into(),
        ]),
        3 | 4 => words.extend(["getbit".into(), key, offset(random)]),
        5 | 6 => {
            words.extend(["bitcount".into(), key]);
            (0..random.below(4)).for_each(|_| words.push(integer(random)));
            words.push(random.pick(&["bit", "BYTE", "byt", "1"]).into());
            words.truncate(2 + random.below(4) as usize);
        }
        7 | 8 => {
            words.extend(["bitpos".into(), key, random.pick(&["0", "1", "0", "1", "2", "x"]).into()]);
            words.extend([
                integer(random),
                integer(random),
                random.pick(&["bit", "BYTE", "byt", "1"]).into(),
            ]);
            words.truncate(3 + random.below(4) as usize);
        }
        9 | 10 => {
            words.extend(["bitop".into(), random.pick(&["and", "OR", "Xor", "not", "nand"]).into(), key]);
            (0..random.below(4)).for_each(|_| words.push(random.pick(&KEYS).into()));
        }
        11 | 12 => {
            words.extend(["bitfield".into(), key]);
            (0..random.below(4)).for_each(|_| field_operation(random, &mut words));
        }
        13 => {
            words.extend(["bitfield_ro".into(), key]);
            (0..random.below(3)).for_each(|_| {
                words.extend(["get".into(), field_type(random), offset(random)]);
            });
            if random.below(6) == 0 {
                field_operation(random, &mut words);
            }
        }
        14 => match random.below(6) {
            0 => words.extend(["DEL".into(), key]),
            1 => words.extend(["SET".into(), key, random.below(100_000).to_string()]),
            2 => words.extend(["SET".into(), key, String::new()]),
            3 => words.extend(["LPUSH".into(), key, "x".into()]),
            4 => words.extend(["EXPIRE".into(), key, "1000".into()]),
            _ => words.extend(["SETRANGE".into(), key, random.below(60).to_string(), "foobar".into()]),
        },
        _ => {
            let name = ["setbit", "getbit", "bitcount", "bitpos", "bitop", "bitfield", "bitfield_ro"];
            words.push(random.pick(&name).into());
            (0..random.below(3)).for_each(|_| words.push(random.pick(&KEYS).into()));
        }
    }
    words.into_iter().map(String::into_bytes).collect()
}

/// A BITFIELD of which all writes fail makes the string longer all the same. Redis 7.0 does not propagate that, so that its
/// replicas have a shorter string.
fn settle(theirs: &mut Outcome, ours: &mut Outcome) {
    if ours.reply.contains("$-1") && !theirs.touches {
        theirs.touches = ours.touches;
        theirs.is_dirty = ours.is_dirty;
    }
}

#[test]
fn random_commands_do_what_they_do_in_redis() {
    let Some(server) = start() else { return };
    let mut pair = Pair::new(&server);
    let mut random = Random::new("random_commands_do_what_they_do_in_redis");
    let count = from_environment("COUNT").unwrap_or(1500);
    for number in 1..=count {
        pair.check(&random_request(&mut random), &KEYS, settle);
        if number % 50 == 0 {
            pair.check_events();
        }
    }
}

#[test]
fn offsets_go_as_far_as_strings_may() {
    let Some(server) = start() else { return };
    let mut pair = Pair::new(&server);
    for text in [
        "getbit a 4294967295",
        "getbit a 4294967296",
        "CONFIG SET proto-max-bulk-len 2000000",
        "setbit a 15999999 1",
        "setbit a 16000000 1",
        "bitfield a set u8 15999999 255",
        "bitfield a set u8 16000000 255",
        "getbit a 15999999",
        "bitcount a",
        "bitpos a 1",
        "bitpos a 0",
        "bitop not b a",
        "bitop and b a b",
        "bitpos b 0 1",
    ] {
        pair.check(&request(text), &["a", "b"], |_, _| {});
    }
}

/// Redis lends the bytes of a number by putting a string in its place, whereupon a key that was open a second time had been
/// left with the number that was gone.
#[test]
fn a_number_may_be_a_source_several_times() {
    let Some(server) = start() else { return };
    let mut pair = Pair::new(&server);
    for text in ["SET a 22975", "bitop and a a a", "SET a 22975", "bitop xor b a a a", "bitop not a a"] {
        pair.check(&request(text), &["a", "b"], |_, _| {});
    }
}

/// BITFIELD is for users who may only read a key, as long as it does nothing else.
#[test]
fn what_bitfield_does_with_its_key_follows_from_its_subcommands() {
    let Some(server) = start() else { return };
    let mut client = server.connect();
    let mut kinds = [0, 0];
    for arguments in [
        "",
        " get u4 0",
        " overflow wrap GET u4 0 get u4 1",
        " set u4 0 1",
        " get u4 0 incrby u4 0 1",
        " get u4",
        " get u4 0 overflow",
        " foo",
    ] {
        let expected = client.line(&format!("COMMAND GETKEYSANDFLAGS bitfield k{arguments}"));
        kinds[usize::from(expected.contains("RW"))] += 1;
        let own = client.line(&format!("COMMAND GETKEYSANDFLAGS {PREFIX}bitfield k{arguments}"));
        assert_eq!(own, expected, "{arguments}");
    }
    assert_eq!(kinds, [3, 5]);
}
