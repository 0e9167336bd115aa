//! The module against Redis' own commands.

use shardis_modules_testing::{Library, Outcome, PREFIX, Pair, Random, Request, Server, from_environment};

/// A server with the module. None if there is none to compare with.
fn start() -> Option<Server> {
    let library = Library::Package("shardis-hyperloglog");
    Server::start(library, &["PREFIX", PREFIX], &["--notify-keyspace-events", "EA"])
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn random_request(random: &mut Random, different: u64) -> Request {
    let key = random.pick(&KEYS).to_string();
    let mut words: Vec<String> = Vec::new();
    match random.below(24) {
        0..14 => {
            words.extend(["pfadd".into(), key]);
            let count = if random.below(20) == 0 { 300 } else { 5 };
            (0..random.below(count)).for_each(|_| words.push(format!("element:{}", random.below(different))));
        }
        14..17 => words.extend(["pfcount".into(), key]),
        17 => {
            words.push("pfcount".into());
            (0..random.below(4)).for_each(|_| words.push(random.pick(&KEYS).into()));
        }
        18 => {
            words.push("pfmerge".into());
            (0..random.below(4)).for_each(|_| words.push(random.pick(&KEYS).into()));
        }
        19 => words.extend(["pfdebug".into(), random.pick(&["decode", "ENCODING", "none", "x"]).into(), key]),
        20 => match random.below(8) {
            0 => words.extend(["pfdebug".into(), random.pick(&["todense", "getreg"]).into(), key]),
            1 => words.extend(["pfdebug".into(), key]),
            _ => words.extend(["pfadd".into(), key, "one".into()]),
        },
        21 => match random.below(8) {
            0 => words.extend([
                "SET".into(),
                key,
                random.pick(&["", "12", "HYLL", "foobarfoobarfoobar"]).into(),
            ]),
            1 => words.extend(["LPUSH".into(), key, "x".into()]),
            2 => words.extend(["EXPIRE".into(), key, "1000".into()]),
            // Not its opcodes: of those Redis reads no more than it needs, and the module all.
            3 => words.extend(["SETRANGE".into(), key, random.below(5).to_string(), "Y".into()]),
            4 => words.extend(["COPY".into(), key, random.pick(&KEYS).into(), "REPLACE".into()]),
            _ => words.extend(["DEL".into(), key]),
        },
        22 => words.extend(["DEL".into(), key]),
        _ => {
            let max = [3000, 0, 100, random.below(4000)][random.below(4) as usize];
            words.extend(["CONFIG".into(), "SET".into(), "hll-sparse-max-bytes".into(), max.to_string()]);
        }
    }
    words.into_iter().map(String::into_bytes).collect()
}

/// PFDEBUG turns a string into the dense form without telling those who watch it, in Redis.
fn settle(theirs: &mut Outcome, ours: &mut Outcome) {
    if ours.reply.starts_with("*16384") || ours.reply == ":1\r\n" && ours.is_dirty && !theirs.touches {
        theirs.touches = ours.touches;
    }
}

#[test]
fn random_commands_do_what_they_do_in_redis() {
    let Some(server) = start() else { return };
    let mut pair = Pair::new(&server);
    let mut random = Random::new("random_commands_do_what_they_do_in_redis");
    let count = from_environment("COUNT").unwrap_or(1500);
    let mut different = 10;
    for number in 1..=count {
        if random.below(200) == 0 {
            different = 10u64.pow(1 + random.below(5) as u32);
        }
        pair.check(&random_request(&mut random, different), &KEYS, settle);
        if number % 50 == 0 {
            pair.check_events();
        }
    }
}
