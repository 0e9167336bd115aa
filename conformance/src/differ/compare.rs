//! When two replies to the same command count as equal: byte for byte, but for what has no order or is a moment.

use std::collections::BTreeSet;

use super::resp::{Body, Reply};

/// How the replies to a command are compared. Errors are always compared byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Exact,
    /// The elements have no order.
    Unordered,
    /// The elements of no array within have an order.
    Nested,
    /// Fields and values in turn (or a map), in no order.
    Pairs,
    /// A cursor, and elements that need not be the same.
    Scan,
    /// A scan that takes everything at once: the same elements, if both say that they are all.
    Whole,
    /// Times that go on between the two calls: integers that are near each other.
    Time,
    /// Streams' replies with times since something happened.
    Stream,
    /// The same of a master and its replica, which has the times at which entries were delivered.
    ReplicaStream,
    /// Elements chosen at random: the same shape here, and `pick.rs` checks the rest.
    Pick,
    /// The words of texts have no order.
    Words,
    /// Entries of SLOWLOG GET: the same arguments by the same clients, however long they took.
    Slowlog,
    /// Lines of CLIENT LIST: the same clients, but for what is a moment or the inside of a server.
    Clients,
    /// Only the same RESP type.
    Kind,
}

/// The name of the client that asks between the calls, each server something else: nothing of it is compared.
pub const ADMIN: &str = "admin";

/// How far apart two times may be, in whatever unit.
const TIME_DIFFERENCE_MAX: i64 = 5_000;
/// What `XINFO` tells that is a moment, or is about the inside of Redis' radix tree.
const MOMENTS: [&[u8]; 5] = [b"idle", b"seen-time", b"active-time", b"inactive", b"radix-tree-nodes"];
/// What `XINFO` tells that a master does not send: when a consumer was there, and, unless XREADGROUP is told NOACK, how many
/// entries its group has read. A real Redis 7.0.15 differs from its real replica in these.
const UNSENT: [&[u8]; 4] = [b"seen-time", b"entries-read", b"lag", b"radix-tree-nodes"];
/// Unix times in milliseconds lie above: delivery times.
const UNIX_MS_MIN: i64 = 1_600_000_000_000;

impl How {
    pub fn named(word: &str) -> Option<How> {
        Some(match word {
            "unordered" => How::Unordered,
            "nested" => How::Nested,
            "pairs" => How::Pairs,
            "scan" => How::Scan,
            "whole" => How::Whole,
            "time" => How::Time,
            "stream" => How::Stream,
            "pick" => How::Pick,
            "words" => How::Words,
            "slowlog" => How::Slowlog,
            "clients" => How::Clients,
            "kind" => How::Kind,
            _ => return None,
        })
    }

    pub fn same(self, a: &Reply, b: &Reply) -> bool {
        if a == b {
            return true;
        }
        if a.is_error() || b.is_error() || a.kind != b.kind {
            return false;
        }
        match self {
            How::Exact => false,
            How::Unordered => sorted(a) == sorted(b),
            How::Nested => sorted_within(a) == sorted_within(b),
            How::Pairs => sorted_pairs(a) == sorted_pairs(b),
            How::Scan => match (a.items(), b.items()) {
                (Some([_, a]), Some([_, b])) => a.kind == b.kind,
                _ => false,
            },
            How::Whole => match (a.items(), b.items()) {
                (Some([a_cursor, a]), Some([b_cursor, b])) => {
                    let is_whole = [a_cursor, b_cursor].iter().all(|cursor| cursor.text() == Some(b"0"));
                    !is_whole || sorted(a) == sorted(b)
                }
                _ => false,
            },
            How::Time => match (a.integer(), b.integer()) {
                (Some(a), Some(b)) => (a - b).abs() <= TIME_DIFFERENCE_MAX && (a < 0) == (b < 0),
                _ => false,
            },
            How::Stream => without_moments(a) == without_moments(b),
            How::ReplicaStream => as_sent(a) == as_sent(b),
            How::Pick => match (&a.body, &b.body) {
                (Body::Items(a), Body::Items(b)) => a.len() == b.len(),
                (Body::Text(_), Body::Text(_)) => true,
                _ => false,
            },
            How::Words => with_sorted_words(a) == with_sorted_words(b),
            How::Slowlog => slow_calls(a) == slow_calls(b),
            How::Clients => client_lines(a) == client_lines(b),
            How::Kind => matches!(a.body, Body::Nil) == matches!(b.body, Body::Nil),
        }
    }
}

fn sorted(reply: &Reply) -> Vec<&Reply> {
    let mut items: Vec<&Reply> = reply.items().unwrap_or_default().iter().collect();
    items.sort();
    items
}

fn sorted_within(reply: &Reply) -> Reply {
    let Some(items) = reply.items() else { return reply.clone() };
    let mut items: Vec<Reply> = items.iter().map(sorted_within).collect();
    items.sort();
    Reply { kind: reply.kind, body: Body::Items(items) }
}

fn with_sorted_words(reply: &Reply) -> Reply {
    let body = match &reply.body {
        Body::Items(items) => Body::Items(items.iter().map(with_sorted_words).collect()),
        Body::Text(text) => {
            // Parentheses stand at words of rules.
            let mut words: Vec<&[u8]> = text.split(|byte| b" ()".contains(byte)).collect();
            words.sort_unstable();
            Body::Text(words.join(&b' '))
        }
        Body::Nil => Body::Nil,
    };
    Reply { kind: reply.kind, body }
}

/// What is compared of an entry of the slow log.
type SlowCall<'a> = (Option<&'a [Reply]>, bool, Option<&'a [u8]>);

/// The arguments of each entry, whether a script has called it, and the client's name, in no order: shards that log at the
/// same time have none.
fn slow_calls(reply: &Reply) -> Vec<SlowCall<'_>> {
    let mut calls: Vec<SlowCall<'_>> = Vec::new();
    for entry in reply.items().unwrap_or_default().iter().filter_map(Reply::items) {
        let text = |at: usize| entry.get(at).and_then(Reply::text);
        if text(5) != Some(ADMIN.as_bytes()) {
            calls.push((entry.get(3).and_then(Reply::items), text(4) == Some(b"?:0"), text(5)));
        }
    }
    calls.sort();
    calls
}

/// Fields of a line of CLIENT LIST that are the same for the same client of each server.
const CLIENT_FIELDS: [&str; 8] = ["name", "db", "sub", "psub", "ssub", "user", "redir", "resp"];

fn client_lines(reply: &Reply) -> Vec<String> {
    let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
    // Redis queues nothing more once the EXEC is sure to fail; with us another shard may know that.
    let shown = |field: &&str| {
        let (name, value) = field.split_once('=').unwrap_or_default();
        CLIENT_FIELDS.contains(&name) || name == "multi" && value == "-1"
    };
    let lines = text.lines().map(|line| line.split(' ').filter(shown).collect::<Vec<_>>().join(" "));
    let mut lines: Vec<String> = lines.filter(|line| !line.starts_with(&format!("name={ADMIN} "))).collect();
    lines.sort();
    lines
}

fn sorted_pairs(reply: &Reply) -> Vec<&[Reply]> {
    let items = reply.items().unwrap_or_default();
    // Pairs may be arrays of their own (ZRANDMEMBER in RESP3).
    let nested = items.iter().all(|item| item.items().is_some());
    let mut pairs: Vec<&[Reply]> = items.chunks(if nested { 1 } else { 2 }).collect();
    pairs.sort();
    pairs
}

/// The reply of XINFO STREAM FULL without what a master does not send: some fields, and consumers that hold no entry. XREADGROUP
/// makes a consumer, and only the entries that it gets tell a replica of it.
fn as_sent(reply: &Reply) -> Reply {
    let Some(items) = reply.items() else { return reply.clone() };
    let mut result: Vec<Reply> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let name = at.checked_sub(1).and_then(|before| items[before].text());
        if name.is_some_and(|name| UNSENT.contains(&name)) {
            result.push(masked());
        } else if !is_idle_consumer(item) {
            result.push(as_sent(item));
        }
    }
    Reply { kind: reply.kind, body: Body::Items(result) }
}

/// Whether it tells of a consumer that holds no entry.
fn is_idle_consumer(reply: &Reply) -> bool {
    let items = reply.items().unwrap_or_default();
    let value = |name: &[u8]| items.iter().skip_while(|item| item.text() != Some(name)).nth(1);
    value(b"seen-time").is_some() && value(b"pel-count").and_then(Reply::integer) == Some(0)
}

fn masked() -> Reply {
    Reply { kind: b':', body: Body::Text(b"moment".to_vec()) }
}

/// The reply with times since an event, and delivery times, made equal.
fn without_moments(reply: &Reply) -> Reply {
    let Some(items) = reply.items() else {
        let is_moment =
            reply.integer().is_some_and(|number| number > UNIX_MS_MIN && number < 4 * UNIX_MS_MIN);
        return if is_moment { masked() } else { reply.clone() };
    };
    let mut result: Vec<Reply> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let named = at > 0 && items[at - 1].text().is_some_and(|name| MOMENTS.contains(&name));
        // An entry of XPENDING: its ID, its consumer, the milliseconds since its delivery, its deliveries.
        let pending = items.len() == 4 && at == 2 && items[0].kind == b'$' && items[1].kind == b'$';
        let is_moment = item.integer().is_some() && (named || pending);
        result.push(if is_moment { masked() } else { without_moments(item) });
    }
    Reply { kind: reply.kind, body: Body::Items(result) }
}

/// What elements the picks of one call may have: `source` is the whole collection (SMEMBERS, HKEYS, ...), with values if
/// `values`. Gives what is wrong with `reply`.
pub fn wrong_pick(reply: &Reply, source: &[Reply], distinct: bool, values: bool) -> Option<String> {
    if reply.is_error() || reply.kind == b'_' || matches!(reply.body, Body::Nil) {
        return None;
    }
    let single = std::slice::from_ref(reply);
    let items = reply.items().unwrap_or(single);
    let flat: Vec<&Reply> =
        items.iter().flat_map(|item| item.items().unwrap_or(std::slice::from_ref(item))).collect();
    let text = |reply: &Reply| reply.text().unwrap_or_default().to_vec();
    let width = if values { 2 } else { 1 };
    let all: BTreeSet<Vec<Vec<u8>>> =
        source.chunks(width).map(|chunk| chunk.iter().map(text).collect()).collect();
    let mut seen = BTreeSet::new();
    for pick in flat.chunks(width) {
        let pick: Vec<Vec<u8>> = pick.iter().map(|part| text(part)).collect();
        if !all.contains(&pick) {
            return Some("an element that the collection does not have".to_owned());
        }
        if !seen.insert(pick) && distinct {
            return Some("an element twice".to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply { kind: b'$', body: Body::Text(text.as_bytes().to_vec()) }
    }

    fn int(number: i64) -> Reply {
        Reply { kind: b':', body: Body::Text(number.to_string().into_bytes()) }
    }

    fn array(items: &[Reply]) -> Reply {
        Reply { kind: b'*', body: Body::Items(items.to_vec()) }
    }

    #[test]
    fn order_counts_unless_it_is_said_not_to() {
        let (a, b) = (array(&[bulk("a"), bulk("b"), bulk("b")]), array(&[bulk("b"), bulk("a"), bulk("b")]));

        assert!(!How::Exact.same(&a, &b));
        assert!(How::Unordered.same(&a, &b));
        assert!(!How::Unordered.same(&a, &array(&[bulk("a"), bulk("b"), bulk("a")])));
    }

    #[test]
    fn nested_arrays_have_no_order_either() {
        let of = |inner: [Reply; 2]| array(&[bulk("x"), array(&inner)]);
        let (a, b) = (of([bulk("a"), bulk("b")]), of([bulk("b"), bulk("a")]));

        assert!(!How::Unordered.same(&a, &b) && How::Nested.same(&a, &b));
        assert!(!How::Nested.same(&a, &of([bulk("a"), bulk("c")])));
    }

    #[test]
    fn words_of_texts_are_compared_as_sets() {
        let of = |text| array(&[bulk("commands"), bulk(text)]);

        assert!(How::Words.same(&of("-@all +get +set"), &of("-@all +set +get")));
        assert!(How::Words.same(&of("(~a +get +set)"), &of("(~a +set +get)")));
        assert!(!How::Words.same(&of("-@all +get +set"), &of("-@all +get -set")));
    }

    #[test]
    fn of_slow_calls_and_of_clients_only_what_is_no_moment_is_compared() {
        let entry = |id, args: &str, name: &str| {
            let args = array(&args.split(' ').map(bulk).collect::<Vec<_>>());
            array(&[int(id), int(1), int(id * 7), args, bulk("127.0.0.1:1"), bulk(name)])
        };
        let log = array(&[entry(3, "GET a", ""), entry(2, "INFO", ADMIN), entry(1, "AUTH (redacted)", "")]);
        assert!(How::Slowlog.same(&log, &array(&[entry(9, "AUTH (redacted)", ""), entry(8, "GET a", "")])));
        assert!(!How::Slowlog.same(&log, &array(&[entry(9, "AUTH pass", ""), entry(8, "GET a", "")])));

        let lines = "id=3 name= db=0 user=u1 qbuf=3\nid=4 name=admin db=0 user=default qbuf=0\n";
        assert!(How::Clients.same(&bulk(lines), &bulk("id=7 name= db=0 user=u1 qbuf=9\n")));
        assert!(!How::Clients.same(&bulk(lines), &bulk("id=7 name= db=0 user=u2 qbuf=9\n")));
    }

    #[test]
    fn pairs_stay_together() {
        let a = array(&[bulk("f"), bulk("1"), bulk("g"), bulk("2")]);

        assert!(How::Pairs.same(&a, &array(&[bulk("g"), bulk("2"), bulk("f"), bulk("1")])));
        assert!(!How::Pairs.same(&a, &array(&[bulk("g"), bulk("1"), bulk("f"), bulk("2")])));
    }

    #[test]
    fn moments_of_streams_are_not_compared() {
        let pending = |idle, count| array(&[array(&[bulk("1-1"), bulk("c"), int(idle), int(count)])]);

        assert!(How::Stream.same(&pending(3, 1), &pending(5, 1)));
        assert!(!How::Stream.same(&pending(3, 1), &pending(3, 2)));
        assert!(!How::Stream.same(&array(&[bulk("lag"), int(3)]), &array(&[bulk("lag"), int(4)])));
        assert!(How::Stream.same(&array(&[bulk("idle"), int(3)]), &array(&[bulk("idle"), int(4)])));
    }

    #[test]
    fn a_replica_has_the_times_of_deliveries_and_not_what_it_is_not_sent() {
        let group = |read, delivered| array(&[bulk("entries-read"), read, bulk("pending"), int(delivered)]);
        let nil = || Reply { kind: b'$', body: Body::Nil };

        assert!(How::ReplicaStream.same(&group(int(1), 1_700_000_000_000), &group(nil(), 1_700_000_000_000)));
        assert!(
            !How::ReplicaStream.same(&group(int(1), 1_700_000_000_000), &group(int(1), 1_700_000_000_001))
        );
        assert!(!How::ReplicaStream.same(&group(int(1), 1_700_000_000_000), &group(int(1), 0)));

        let consumers = |held: &[i64]| {
            let consumer = |&held: &i64| array(&[bulk("seen-time"), int(1), bulk("pel-count"), int(held)]);
            array(&held.iter().map(consumer).collect::<Vec<_>>())
        };
        assert!(How::ReplicaStream.same(&consumers(&[0, 1]), &consumers(&[1])));
        assert!(!How::ReplicaStream.same(&consumers(&[1, 1]), &consumers(&[1])));
    }

    #[test]
    fn picks_are_of_the_collection_and_distinct_where_they_have_to_be() {
        let source = [bulk("a"), bulk("b")];

        assert_eq!(wrong_pick(&bulk("a"), &source, true, false), None);
        assert_eq!(wrong_pick(&array(&[bulk("a"), bulk("a")]), &source, false, false), None);
        assert!(wrong_pick(&array(&[bulk("a"), bulk("a")]), &source, true, false).is_some());
        assert!(wrong_pick(&bulk("c"), &source, true, false).is_some());
        assert!(wrong_pick(&array(&[bulk("b"), bulk("a")]), &source, false, true).is_some());
    }
}
