//! What a sequence left: digests, types, encodings and times of all keys, and each key's DUMP restored by the other server.
//! Of a master and its replica: digests, types, values and times of all keys, and libraries of functions.

use super::compare::How;
use super::resp::{Broken, Client, Reply, encode, quoted};
use super::run::{Difference, Session};

/// Databases that calls may reach: the generator `db`.
const DATABASES: [&str; 3] = ["0", "1", "2"];
/// The database in which dumps are restored.
const RESTORED_IN: &str = "9";
/// How the ends of times to live may differ, in milliseconds.
const EXPIRY: How = How::Time;

/// A label of the server whose connection broke, and how.
pub type Asked<T> = Result<T, (String, Broken)>;

/// The first difference. `sorts`: SORT was called, by which Redis makes a small sorted set a big one, and we do not.
pub fn compare(sessions: &mut [Session], sorts: bool) -> Asked<Option<Difference>> {
    compare_data(sessions, |sessions, database, names| compare_keys(sessions, database, names, sorts))
}

/// The first difference between a master and its replica.
pub fn compare_replica(sessions: &mut [Session; 2]) -> Asked<Option<Difference>> {
    let libraries = of_each(sessions, &[request(&FUNCTIONS)])?;
    if !How::Nested.same(&libraries[0][0], &libraries[1][0]) {
        let what = FUNCTIONS.join(" ");
        return Ok(Some(difference(sessions, &what, 1, &libraries[0][0], &libraries[1][0])));
    }
    compare_data(sessions, |sessions, database, names| {
        let answers = ask_about(sessions, names, &OF_REPLICAS)?;
        Ok(first_unlike(&labels(sessions), database, names, &OF_REPLICAS, &answers, |_| false))
    })
}

/// Compares the names of keys, then what `compare_keys` compares of those of a database, then the digests.
fn compare_data(
    sessions: &mut [Session],
    mut compare_keys: impl FnMut(&mut [Session], &str, &[Vec<u8>]) -> Asked<Option<Difference>>,
) -> Asked<Option<Difference>> {
    let digests = of_each(sessions, &[request(&["DEBUG", "DIGEST"])])?;
    for database in DATABASES {
        let keys = of_each(sessions, &[request(&["SELECT", database]), request(&["KEYS", "*"])])?;
        for (index, replies) in keys.iter().enumerate().skip(1) {
            if !How::Unordered.same(&keys[0][1], &replies[1]) {
                let what = format!("KEYS * of database {database}");
                return Ok(Some(difference(sessions, &what, index, &keys[0][1], &replies[1])));
            }
        }
        let names: Vec<Vec<u8>> = keys[0][1].items().unwrap_or_default().iter().filter_map(name).collect();
        if names.is_empty() {
            continue;
        }
        if let Some(difference) = compare_keys(sessions, database, &names)? {
            return Ok(Some(difference));
        }
    }
    // Last, because it does not say which key.
    let differs = (1..digests.len()).find(|&index| digests[index] != digests[0]);
    Ok(differs.map(|index| difference(sessions, "DEBUG DIGEST", index, &digests[0][0], &digests[index][0])))
}

fn name(reply: &Reply) -> Option<Vec<u8>> {
    reply.text().map(<[u8]>::to_vec)
}

/// What is asked of each key: the words before and behind it, and how the replies are compared.
type Question = (&'static [&'static str], &'static [&'static str], How);

const QUESTIONS: [Question; 6] = [
    (&["TYPE"], &[], How::Exact),
    (&["OBJECT", "ENCODING"], &[], How::Exact),
    (&["PEXPIRETIME"], &[], EXPIRY),
    (&["DEBUG", "DIGEST-VALUE"], &[], How::Exact),
    (&["XINFO", "STREAM"], &["FULL"], How::Stream),
    (&["DUMP"], &[], How::Kind),
];
const UNKNOWN_COMMAND: &[u8] = b"ERR unknown command";
const DUMP: usize = 5;

/// What is asked of a master and of its replica. Times to live have to be the same to the millisecond. Encodings need not be:
/// they depend on the commands that a value has seen, and these are others where effects are sent.
const OF_REPLICAS: [Question; 4] = [
    (&["TYPE"], &[], How::Exact),
    (&["PEXPIRETIME"], &[], How::Exact),
    (&["DEBUG", "DIGEST-VALUE"], &[], How::Exact),
    (&["XINFO", "STREAM"], &["FULL"], How::ReplicaStream),
];
const FUNCTIONS: [&str; 3] = ["FUNCTION", "LIST", "WITHCODE"];

/// The answers of each server to all `questions` about the first key, then about the second one, and so on.
fn ask_about(sessions: &mut [Session], names: &[Vec<u8>], questions: &[Question]) -> Asked<Vec<Vec<Reply>>> {
    let requests: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|name| questions.iter().map(|(before, behind, _)| about_key(before, name, behind)))
        .collect();
    of_each(sessions, &requests)
}

/// The first of `answers` that is not as the first server's, unless that one `is_excused`.
fn first_unlike(
    labels: &[String],
    database: &str,
    names: &[Vec<u8>],
    questions: &[Question],
    answers: &[Vec<Reply>],
    is_excused: impl Fn(&Reply) -> bool,
) -> Option<Difference> {
    let unknown = |reply: &Reply| reply.text().is_some_and(|text| text.starts_with(UNKNOWN_COMMAND));
    for (at, first) in answers[0].iter().enumerate() {
        let (before, behind, how) = questions[at % questions.len()];
        for index in 1..answers.len() {
            let other = &answers[index][at];
            if !is_excused(first) && !unknown(other) && !how.same(first, other) {
                let key = quoted(&names[at / questions.len()]);
                let what = format!("{} {key} {} of database {database}", before.join(" "), behind.join(" "));
                return Some(unlike(labels, &what, index, first, other));
            }
        }
    }
    None
}

fn compare_keys(
    sessions: &mut [Session],
    database: &str,
    names: &[Vec<u8>],
    sorts: bool,
) -> Asked<Option<Difference>> {
    let answers = ask_about(sessions, names, &QUESTIONS)?;
    let is_excused = |first: &Reply| sorts && first.text() == Some(b"skiplist");
    let unlike = first_unlike(&labels(sessions), database, names, &QUESTIONS, &answers, is_excused);
    if unlike.is_some() {
        return Ok(unlike);
    }
    for (at, name) in names.iter().enumerate() {
        let of_key = |index: usize, question: usize| &answers[index][at * QUESTIONS.len() + question];
        for index in 1..sessions.len() {
            let (Some(theirs), Some(ours)) = (of_key(0, DUMP).text(), of_key(index, DUMP).text()) else {
                continue;
            };
            if of_key(0, DUMP).is_error() || of_key(index, DUMP).is_error() {
                continue;
            }
            // Not what the key itself has: a sorted set that becomes small by it loses the sign of -0.
            let expected = restored(&mut sessions[0], database, name, theirs)?;
            for (from, into, payload) in [(0, index, theirs), (index, 0, ours)] {
                let found = restored(&mut sessions[into], database, name, payload)?;
                if found != expected {
                    let what = format!(
                        "RESTORE and DEBUG DIGEST-VALUE of {} of database {database}, out of the dump of {} in {}",
                        quoted(name),
                        sessions[from].label,
                        sessions[into].label
                    );
                    let text =
                        |told: &[Reply]| told.iter().map(Reply::to_string).collect::<Vec<_>>().join(", ");
                    let label = sessions[index].label.clone();
                    return Ok(Some(Difference::new(0, what, text(&expected), &label, text(&found))));
                }
            }
        }
    }
    Ok(None)
}

/// Restores `payload` in a database of its own, and tells what came of it.
fn restored(session: &mut Session, database: &str, name: &[u8], payload: &[u8]) -> Asked<Vec<Reply>> {
    let requests = [
        request(&["SELECT", RESTORED_IN]),
        encode(&[b"RESTORE".as_slice(), name, b"0", payload, b"REPLACE"]),
        about_key(&["DEBUG", "DIGEST-VALUE"], name, &[]),
        about_key(&["OBJECT", "ENCODING"], name, &[]),
        request(&["SELECT", database]),
    ];
    let mut replies = pipeline(session, &requests)?;
    replies.pop();
    replies.remove(0);
    Ok(replies)
}

fn labels(sessions: &[Session]) -> Vec<String> {
    sessions.iter().map(|session| session.label.clone()).collect()
}

fn difference(sessions: &[Session], what: &str, index: usize, a: &Reply, b: &Reply) -> Difference {
    unlike(&labels(sessions), what, index, a, b)
}

fn unlike(labels: &[String], what: &str, index: usize, a: &Reply, b: &Reply) -> Difference {
    let answers = [(labels[0].clone(), a.to_string()), (labels[index].clone(), b.to_string())];
    Difference { at: 0, what: what.to_owned(), answers }
}

fn request(words: &[&str]) -> Vec<u8> {
    encode(words)
}

fn about_key(before: &[&str], key: &[u8], behind: &[&str]) -> Vec<u8> {
    let mut args: Vec<&[u8]> = before.iter().map(|word| word.as_bytes()).collect();
    args.push(key);
    args.extend(behind.iter().map(|word| word.as_bytes()));
    encode(&args)
}

/// Sends `requests` to every server at once.
fn of_each(sessions: &mut [Session], requests: &[Vec<u8>]) -> Asked<Vec<Vec<Reply>>> {
    let bytes = requests.concat();
    for session in sessions.iter_mut() {
        session.admin.send(&bytes).map_err(|broken| (session.label.clone(), broken))?;
    }
    sessions.iter_mut().map(|session| read(&session.label, &mut session.admin, requests.len())).collect()
}

fn pipeline(session: &mut Session, requests: &[Vec<u8>]) -> Asked<Vec<Reply>> {
    session.admin.send(&requests.concat()).map_err(|broken| (session.label.clone(), broken))?;
    read(&session.label, &mut session.admin, requests.len())
}

fn read(label: &str, client: &mut Client, count: usize) -> Asked<Vec<Reply>> {
    (0..count).map(|_| client.read().map_err(|broken| (label.to_owned(), broken))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::resp::Body;
    use super::*;

    fn reply(kind: u8, text: &str) -> Reply {
        Reply { kind, body: Body::Text(text.as_bytes().to_vec()) }
    }

    /// What a server says of the keys a and b: strings, the second one with a time to live.
    fn answers() -> Vec<Reply> {
        let no_stream = || reply(b'-', "WRONGTYPE");
        let of_key = |time: &str, digest: &str| {
            [reply(b'+', "string"), reply(b':', time), reply(b'+', digest), no_stream()]
        };
        [of_key("-1", "aaaa"), of_key("1700000000000", "bbbb")].concat()
    }

    /// What differs if the replica says `wrong` where its master has the answer at this place.
    fn found(place: usize, wrong: Reply) -> Option<String> {
        let (master, mut replica) = (answers(), answers());
        replica[place] = wrong;
        let labels = ["redis".to_owned(), "1 shard".to_owned()];
        let names = [b"a".to_vec(), b"b".to_vec()];
        first_unlike(&labels, "2", &names, &OF_REPLICAS, &[master, replica], |_| false)
            .map(|difference| difference.what)
    }

    #[test]
    fn the_first_key_that_a_replica_has_otherwise_is_named() {
        assert_eq!(found(0, reply(b'+', "string")), None);
        assert_eq!(found(2, reply(b'+', "cccc")).as_deref(), Some("DEBUG DIGEST-VALUE a  of database 2"));
        assert_eq!(found(4, reply(b'+', "list")).as_deref(), Some("TYPE b  of database 2"));
        // Not nearly the same: an effect has to say when, and not in how long.
        assert_eq!(found(5, reply(b':', "1700000000001")).as_deref(), Some("PEXPIRETIME b  of database 2"));
    }
}
