//! What a sequence left: digests, types, encodings and times of all keys, and each key's DUMP restored by the other server.

use super::compare::How;
use super::resp::{Broken, Client, Reply, encode, quoted};
use super::run::{Difference, Session};

/// Databases that calls may reach: the generator `db`.
const DATABASES: [&str; 3] = ["0", "1", "2"];
/// The database in which dumps are restored.
const RESTORED_IN: &str = "9";
/// How the ends of times to live may differ, in milliseconds.
const EXPIRY: How = How::Time;

type Asked<T> = Result<T, (String, Broken)>;

/// The first difference. `sorts`: SORT was called, by which Redis makes a small sorted set a big one, and we do not.
pub fn compare(sessions: &mut [Session], sorts: bool) -> Asked<Option<Difference>> {
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
        if let Some(difference) = compare_keys(sessions, database, &names, sorts)? {
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
const QUESTIONS: [(&[&str], &[&str], How); 6] = [
    (&["TYPE"], &[], How::Exact),
    (&["OBJECT", "ENCODING"], &[], How::Exact),
    (&["PEXPIRETIME"], &[], EXPIRY),
    (&["DEBUG", "DIGEST-VALUE"], &[], How::Exact),
    (&["XINFO", "STREAM"], &["FULL"], How::Stream),
    (&["DUMP"], &[], How::Kind),
];
const UNKNOWN_COMMAND: &[u8] = b"ERR unknown command";
const DUMP: usize = 5;

fn compare_keys(
    sessions: &mut [Session],
    database: &str,
    names: &[Vec<u8>],
    sorts: bool,
) -> Asked<Option<Difference>> {
    let requests: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|name| QUESTIONS.map(|(before, behind, _)| about_key(before, name, behind)))
        .collect();
    let answers = of_each(sessions, &requests)?;
    let unknown = |reply: &Reply| reply.text().is_some_and(|text| text.starts_with(UNKNOWN_COMMAND));
    for at in 0..requests.len() {
        let (before, behind, how) = QUESTIONS[at % QUESTIONS.len()];
        for index in 1..answers.len() {
            let is_excused = sorts && answers[0][at].text() == Some(b"skiplist");
            if !is_excused && !unknown(&answers[index][at]) && !how.same(&answers[0][at], &answers[index][at])
            {
                let key = quoted(&names[at / QUESTIONS.len()]);
                let what = format!("{} {key} {} of database {database}", before.join(" "), behind.join(" "));
                return Ok(Some(difference(sessions, &what, index, &answers[0][at], &answers[index][at])));
            }
        }
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

fn difference(sessions: &[Session], what: &str, index: usize, a: &Reply, b: &Reply) -> Difference {
    Difference::new(0, what.to_owned(), a.to_string(), &sessions[index].label, b.to_string())
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
