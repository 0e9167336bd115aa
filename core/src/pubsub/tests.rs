//! Publishers and a subscribing shard on threads of their own: whatever the order in which they come to the directory,
//! counts and deliveries agree.

use super::*;
use crate::protocol::Resp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

const CHANNEL: &[u8] = b"news";
const CLIENT: u64 = 7;
const PUBLISHERS: usize = 3;
const MESSAGES: usize = 3000;

/// The subscribing shard.
struct Listener {
    subscribers: Subscribers<()>,
    inbox: Receiver<Delivery>,
    heard: BTreeSet<String>,
}

impl Listener {
    /// Delivers what has come.
    fn deliver(&mut self) {
        while let Some(messages) = self.subscribers.next_deliveries() {
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let (run, after) = rest.split_at(self.subscribers.run_len(rest));
                rest = after;
                self.subscribers.each_hearer(run, |_, client, _, first| {
                    assert_eq!(client, CLIENT);
                    for (_, message) in &run[first..] {
                        let text = String::from_utf8(message.payload.to_vec()).unwrap();
                        assert!(self.heard.insert(text), "a message comes once");
                    }
                });
            }
        }
    }

    /// Waits until everything before a position has been delivered.
    fn reach(&mut self, position: u64) {
        self.deliver();
        while !self.subscribers.has_reached(position) {
            let delivery = self.inbox.recv().expect("who draws a position sends what is there");
            self.subscribers.receive(delivery);
            self.deliver();
        }
    }
}

#[test]
fn whoever_is_counted_gets_the_message_and_nobody_else() {
    for pattern in [false, true] {
        let (kind, name) = if pattern { (Kind::Pattern, &b"n*"[..]) } else { (Kind::Channel, CHANNEL) };
        let directory = Arc::new(Directory::new(1));
        let (sender, inbox) = channel();
        let mut listener = Listener { subscribers: Subscribers::default(), inbox, heard: BTreeSet::new() };
        let name: Arc<[u8]> = name.into();
        let subscribe = |listener: &mut Listener| {
            let position = directory.position(0);
            let since = directory.add(kind, &name, 0);
            listener.subscribers.add(kind, &name, (0, CLIENT), since, position);
            since
        };
        let mut since = subscribe(&mut listener);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|shard| {
                let (directory, sender) = (Arc::clone(&directory), sender.clone());
                std::thread::spawn(move || {
                    let mut publisher = Publisher::new(directory);
                    let publish = |n: usize| {
                        let count =
                            publisher.publish(Kind::Channel, CHANNEL, format!("{shard} {n}").as_bytes());
                        for (_, delivery) in publisher.take_ready() {
                            sender.send(delivery).expect("the listener listens to the end");
                        }
                        count
                    };
                    (0..MESSAGES).map(publish).collect::<Vec<u64>>()
                })
            })
            .collect();
        drop(sender);

        // As long as something comes, which is so at least once: nothing has changed before the first message.
        while let Ok(delivery) = listener.inbox.recv() {
            listener.subscribers.receive(delivery);
            listener.deliver();
            let until = directory.remove(kind, &name, 0);
            listener.subscribers.end(kind, &name, 0, since, until);
            listener.reach(directory.position(0));
            listener.subscribers.remove(kind, &name, 0, since);
            since = subscribe(&mut listener);
        }

        let counts: Vec<Vec<u64>> = publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
        listener.reach(directory.position(0));
        for (shard, counts) in counts.iter().enumerate() {
            for (n, &count) in counts.iter().enumerate() {
                assert_eq!(u64::from(listener.heard.contains(&format!("{shard} {n}"))), count, "{shard} {n}");
            }
        }
        assert!(counts.iter().flatten().any(|&count| count > 0));
    }
}

#[test]
fn what_a_unit_publishes_has_one_position() {
    let directory = Arc::new(Directory::new(2));
    directory.add(Kind::Channel, b"a", 0);
    directory.add(Kind::Pattern, b"*", 1);
    let mut publisher = Publisher::new(Arc::clone(&directory));

    assert!(publisher.begin_unit());
    assert!(!publisher.begin_unit(), "a unit within it is a part of it");
    assert_eq!(publisher.publish(Kind::Channel, b"a", b"1"), 2);
    assert_eq!(publisher.publish(Kind::Channel, b"b", b"2"), 1);
    publisher.end_unit();
    assert_eq!(publisher.publish(Kind::Channel, b"a", b"3"), 2);

    let sent = publisher.take_ready().into_iter();
    let sent: Vec<(usize, u64, usize)> =
        sent.map(|(shard, delivery)| (shard, delivery.position, delivery.messages.len())).collect();
    assert_eq!(sent, [(0, 0, 1), (1, 0, 2), (0, 1, 1), (1, 1, 1)]);
}

#[test]
fn a_unit_that_is_suspended_publishes_at_its_end() {
    let directory = Arc::new(Directory::new(1));
    directory.add(Kind::Channel, b"a", 0);
    let mut publisher = Publisher::new(directory);

    publisher.begin_unit();
    publisher.publish(Kind::Channel, b"a", b"1");
    let open = publisher.suspend_unit();
    assert_eq!(publisher.publish(Kind::Channel, b"a", b"between"), 1);
    publisher.resume_unit(open);
    publisher.publish(Kind::Channel, b"a", b"2");
    publisher.end_unit();

    let payloads: Vec<Vec<u8>> = publisher
        .take_ready()
        .into_iter()
        .flat_map(|(_, delivery)| delivery.messages)
        .map(|message| message.payload.to_vec())
        .collect();
    assert_eq!(payloads, [&b"between"[..], b"1", b"2"]);
}

/// The runs of what is delivered at once, as the bytes that each client gets.
fn delivered(subscribers: &mut Subscribers<()>) -> Vec<(u64, String)> {
    let mut pieces = Vec::new();
    let messages = subscribers.next_deliveries().unwrap();
    let mut rest = &messages[..];
    while !rest.is_empty() {
        let (run, after) = rest.split_at(subscribers.run_len(rest));
        rest = after;
        subscribers.each_hearer(run, |_, client, forms, first| {
            let text = String::from_utf8_lossy(forms.of(Resp::V2, first));
            pieces.push((client, text.replace("\r\n", " ")));
        });
    }
    pieces
}

#[test]
fn alike_messages_that_come_together_are_handed_over_in_one_piece() {
    let directory = Arc::new(Directory::new(1));
    let mut subscribers = Subscribers::<()>::default();
    let subscribe = |subscribers: &mut Subscribers<()>, kind, name: &[u8], at: u32, since_position| {
        let name: Arc<[u8]> = name.into();
        let since = directory.add(kind, &name, 0);
        subscribers.add(kind, &name, (at, u64::from(at)), since, since_position);
    };
    subscribe(&mut subscribers, Kind::Channel, b"a", 1, 0);
    subscribe(&mut subscribers, Kind::Channel, b"b", 1, 0);
    // It has become a subscriber while messages of the run were under way.
    subscribe(&mut subscribers, Kind::Channel, b"a", 2, 1);
    let mut publisher = Publisher::new(Arc::clone(&directory));
    let mut publish = |subscribers: &mut Subscribers<()>| {
        for (channel, payload) in [("a", "0"), ("a", "1"), ("b", "2"), ("a", "3")] {
            publisher.publish(Kind::Channel, channel.as_bytes(), payload.as_bytes());
        }
        publisher.take_ready().into_iter().for_each(|(_, delivery)| subscribers.receive(delivery));
    };
    publish(&mut subscribers);
    let [a0, a1, b2, a3] = [("a", 0), ("a", 1), ("b", 2), ("a", 3)]
        .map(|(channel, payload)| format!("*3 $7 message $1 {channel} $1 {payload} "));
    let whole = [(1, format!("{a0}{a1}")), (2, a1.clone()), (1, b2), (1, a3.clone()), (2, a3)];
    assert_eq!(delivered(&mut subscribers), whole);

    // A client that is a subscriber by a pattern too gets each message twice before the next.
    subscribe(&mut subscribers, Kind::Pattern, b"a*", 1, 4);
    publish(&mut subscribers);
    let to_first: Vec<String> = delivered(&mut subscribers)
        .into_iter()
        .filter(|(client, _)| *client == 1)
        .map(|(_, text)| text)
        .collect();
    assert_eq!(to_first[..3], [a0, "*4 $8 pmessage $2 a* $1 a $1 0 ".to_string(), a1]);
}
