//! Clients that listen to channels, and to what happens to keys. After each batch, every server has to have told them the same.
//!
//! Nothing says when a message comes to a client of another shard, so the reference is asked first, and the others may take
//! their time to tell as much. What comes beyond that is seen after the next batch.

use std::time::{Duration, Instant};

use super::compare::ADMIN;
use super::resp::{Body, Broken, Client, Reply, encode};

/// Clients that may listen, besides the one that is told what happens to keys.
pub const LISTENERS_MAX: usize = 3;
/// The one that is.
pub const EVENTS: usize = LISTENERS_MAX;

/// The directive that says what it is told, and what it subscribes to.
pub const EVENTS_DIRECTIVE: &str = "notify-keyspace-events";
pub const EVENTS_PATTERN: &str = "__key*@*__:*";

/// How long a server may take to tell what the reference has told.
const PATIENCE: Duration = Duration::from_secs(3);

/// What happens to keys by itself, and so at another time in each server.
const BY_THEMSELVES: [&[u8]; 2] = [b"expired", b"evicted"];

/// The version of the protocol that a listener speaks.
pub fn resp_of(listener: usize) -> u8 {
    if listener.is_multiple_of(2) { 2 } else { 3 }
}

/// The addresses of a server's clients, and the names by which they are the same ones of each server.
pub type Addresses = [(String, String)];

/// All that a listener has been told since the last call; at least `expected`, if that comes in time.
pub fn heard(
    client: &mut Client,
    addresses: &Addresses,
    marker: &str,
    expected: usize,
) -> Result<Vec<Reply>, Broken> {
    client.send(&encode(&["PING", marker]))?;
    let mut messages = Vec::new();
    loop {
        let reply = client.read()?;
        if is_pong(&reply, marker) {
            break;
        }
        messages.extend(comparable(reply, addresses));
    }
    let deadline = Instant::now() + PATIENCE;
    while in_order(messages.clone()).len() < expected && Instant::now() < deadline {
        if client.is_ready(Duration::from_millis(1))? {
            messages.extend(comparable(client.read()?, addresses));
        }
    }
    Ok(in_order(messages))
}

/// A message as it may be compared: a line of MONITOR without its time and with its client's name, and of each key that is
/// invalidated, one. None at all of what is not compared.
fn comparable(reply: Reply, addresses: &Addresses) -> Vec<Reply> {
    if let Some((place, call)) = monitored(&reply) {
        let (db, addr) = place.split_once(' ').unwrap_or_default();
        let name = addresses.iter().find(|(known, _)| known == addr).map_or(addr, |(_, name)| name);
        // Its own questions, one after each batch.
        if name == ADMIN || call.starts_with("\"PING\" \"heard ") {
            return Vec::new();
        }
        return vec![Reply {
            kind: b'+',
            body: Body::Text(format!("{MONITORED}[{db} {name}] {call}").into_bytes()),
        }];
    }
    if is_invalidation(&reply)
        && let Some([kind, keys]) = reply.items()
        && let Some(keys) = keys.items()
    {
        let alone = |key: &Reply| {
            let keys = Reply { kind: b'*', body: Body::Items(vec![key.clone()]) };
            Reply { kind: reply.kind, body: Body::Items(vec![kind.clone(), keys]) }
        };
        return keys.iter().map(alone).collect();
    }
    Some(reply).filter(counts).into_iter().collect()
}

fn is_invalidation(reply: &Reply) -> bool {
    matches!(reply.items(), Some([kind, _]) if kind.text() == Some(b"invalidate"))
}

/// Whether it tells that any key may have changed.
pub fn is_of_all_keys(reply: &Reply) -> bool {
    is_invalidation(reply) && reply.items().is_some_and(|items| items[1].items().is_none())
}

/// How a line of MONITOR begins in place of its time.
const MONITORED: &str = "monitor ";

/// The database and the client, and the call of a line of MONITOR.
fn monitored(reply: &Reply) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(reply.text().filter(|_| reply.kind == b'+')?).into_owned();
    let (time, rest) = text.split_once(" [")?;
    let (place, call) = rest.split_once("] ")?;
    time.parse::<f64>().ok()?;
    Some((place.to_owned(), call.to_owned()))
}

/// Whether the order of messages says nothing: shards show what they run each by itself, and tell of keys when they come to it.
fn is_unordered(messages: &[Reply]) -> bool {
    messages.iter().any(|message| {
        let text = message.text().filter(|_| message.kind == b'+').unwrap_or_default();
        text.starts_with(MONITORED.as_bytes()) || is_invalidation(message)
    })
}

fn is_pong(reply: &Reply, marker: &str) -> bool {
    let is_marker = |reply: &Reply| reply.text() == Some(marker.as_bytes());
    is_marker(reply)
        || matches!(reply.items(), Some([pong, told]) if pong.text() == Some(b"pong") && is_marker(told))
}

/// Whether a message is one that all servers tell at the same time.
fn counts(reply: &Reply) -> bool {
    let Some([_, .., channel, payload]) = reply.items() else { return true };
    let (channel, payload) = (channel.text().unwrap_or_default(), payload.text().unwrap_or_default());
    let is_of = |event: &&[u8]| {
        channel.starts_with(b"__keyspace@") && payload == *event
            || channel.starts_with(b"__keyevent@") && channel.ends_with(&[b"__:", *event].concat())
    };
    !BY_THEMSELVES.iter().any(|event| is_of(event))
}

/// The messages with those sorted whose order is not laid down: of one message, those by several patterns; and the ends of all
/// subscriptions at once.
fn in_order(messages: Vec<Reply>) -> Vec<Reply> {
    let mut ordered: Vec<Reply> = Vec::with_capacity(messages.len());
    for run in messages.chunk_by(is_alike) {
        let mut run = run.to_vec();
        let ends = run[0]
            .items()
            .is_some_and(|items| items[0].text().is_some_and(|kind| kind.ends_with(b"unsubscribe")));
        if ends {
            // How many are left is counted down, whatever goes first.
            let columns = |place: usize| {
                let mut column: Vec<Reply> = run.iter().map(|message| item(message, place).clone()).collect();
                column.sort();
                column
            };
            let (names, counts) = (columns(1), columns(2));
            for ((message, name), count) in run.iter_mut().zip(names).zip(counts) {
                let kind = item(message, 0).clone();
                message.body = Body::Items(vec![kind, name, count]);
            }
        } else {
            run.sort();
        }
        ordered.append(&mut run);
    }
    if is_unordered(&ordered) {
        ordered.sort();
        // A key may be invalidated once for two changes that come together, or twice.
        ordered.dedup_by(|a, b| a == b && is_invalidation(a));
    }
    ordered
}

fn item(message: &Reply, place: usize) -> &Reply {
    &message.items().expect("it is alike with others, which are arrays")[place]
}

/// Whether two messages that come one behind the other may come in the other order.
fn is_alike(a: &Reply, b: &Reply) -> bool {
    let (Some(a), Some(b)) = (a.items(), b.items()) else { return false };
    let kind = a.first().and_then(Reply::text).unwrap_or_default();
    if a.len() != b.len() || b.first().and_then(Reply::text) != Some(kind) {
        return false;
    }
    match a.len() {
        3 => kind.ends_with(b"unsubscribe"),
        4 => kind == b"pmessage" && (a[2..] == b[2..] || is_miss(a) && is_miss(b)),
        _ => false,
    }
}

/// Whether it tells of a key that was looked up in vain: SORT looks keys up in the order of a set, which has none.
fn is_miss(message: &[Reply]) -> bool {
    let text = |place: usize| message[place].text().unwrap_or_default();
    text(3) == b"keymiss" || text(2).ends_with(b"__:keymiss")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(words: &[&str]) -> Reply {
        let text = |word: &&str| Reply { kind: b'$', body: Body::Text(word.as_bytes().to_vec()) };
        Reply { kind: b'*', body: Body::Items(words.iter().map(text).collect()) }
    }

    #[test]
    fn only_what_has_no_order_is_sorted() {
        let of = |lines: [&[&str]; 4]| in_order(lines.map(message).to_vec());
        let by = |pattern: &'static str| vec!["pmessage", pattern, "c", "x"];
        let (a, b, end_a, end_b) = (by("a*"), by("b*"), ["unsubscribe", "a", "1"], ["unsubscribe", "b", "0"]);
        let crossed = (["unsubscribe", "b", "1"], ["unsubscribe", "a", "0"]);

        assert_eq!(of([&a, &b, &end_a, &end_b]), of([&b, &a, &crossed.0, &crossed.1]));
        assert_ne!(of([&a, &b, &end_a, &end_b]), of([&a, &end_a, &b, &end_b]));
        assert_ne!(
            in_order(vec![message(&["message", "c", "1"]), message(&["message", "c", "2"])]),
            in_order(vec![message(&["message", "c", "2"]), message(&["message", "c", "1"])])
        );
    }

    #[test]
    fn lines_of_monitor_and_keys_that_are_invalidated_are_the_same_in_any_order() {
        let line = |text: &str| Reply { kind: b'+', body: Body::Text(text.as_bytes().to_vec()) };
        let heard = |replies: &[Reply], own: &str| {
            let addresses = [(own.to_owned(), "main".to_owned()), ("1.1.1.1:9".to_owned(), ADMIN.to_owned())];
            in_order(replies.iter().flat_map(|reply| comparable(reply.clone(), &addresses)).collect())
        };
        let invalid = |keys: &[&str]| {
            let Body::Items(keys) = message(keys).body else { unreachable!() };
            let keys = Reply { kind: b'*', body: Body::Items(keys) };
            let kind = Reply { kind: b'$', body: Body::Text(b"invalidate".to_vec()) };
            Reply { kind: b'>', body: Body::Items(vec![kind, keys]) }
        };
        let one = [
            line("1.5 [0 1.1.1.1:2] \"GET\" \"a\""),
            line("1.6 [0 1.1.1.1:9] \"INFO\""),
            invalid(&["a", "b"]),
        ];
        let other =
            [invalid(&["b"]), invalid(&["a"]), line("2.5 [0 1.1.1.1:3] \"GET\" \"a\""), invalid(&["a"])];

        assert_eq!(heard(&one, "1.1.1.1:2"), heard(&other, "1.1.1.1:3"));
        assert_ne!(heard(&one, "1.1.1.1:2"), heard(&other[..3], "1.1.1.1:4"));
        assert_eq!(heard(&one, "1.1.1.1:2").len(), 3);
    }

    #[test]
    fn what_happens_by_itself_does_not_count() {
        assert!(!counts(&message(&["pmessage", "__key*@*__:*", "__keyspace@0__:a", "expired"])));
        assert!(!counts(&message(&["pmessage", "__key*@*__:*", "__keyevent@1__:expired", "a"])));
        assert!(counts(&message(&["pmessage", "__key*@*__:*", "__keyspace@0__:expired", "set"])));
        assert!(counts(&message(&["message", "c", "expired"])));
    }
}
