//! Publish and subscribe: who listens to what, on which shards, and in which order messages arrive.
//!
//! A client's subscriptions are kept by its home, in [`Subscribers`]. The [`Directory`] tells all shards how many
//! subscribers of a channel or a pattern each shard has. A shard publishes by its [`Publisher`]: it looks the channel up in
//! its own copy of that part of the directory, which is replaced when it has changed, and so knows at once how many clients
//! get the message, and on which shards they are. Nothing is locked, nobody is asked, and a shard without subscribers hears
//! nothing of it. So PUBLISH runs wherever its caller does: alone, in an EXEC, a script, or a coalesced pipeline.
//!
//! # The order of messages
//!
//! What is published travels in messages between shards, and two that come from different shards may arrive in either
//! order. So every shard has a counter of *positions* in the directory. Who publishes draws, from the counter of each shard
//! with subscribers, the next position, before anything that could be a consequence (a reply, a message) leaves its own
//! shard. The receiving shard delivers in the order of positions, and waits for one that is missing. So:
//!
//! - If publishing B is a consequence of A having been published, B has the higher position on every shard that gets both.
//! - What one shard publishes keeps its order, and what one EXEC or script publishes has one position, so that nothing
//!   comes between.
//! - Each subscriber sees an order that one server could have made. Two messages that are published at the same time on
//!   different shards, so that neither is a consequence of the other, may come to subscribers on different shards in
//!   either order.
//!
//! One client's requests are in order, too: what it publishes, or what others are told of its commands, waits until its
//! earlier requests have run, if these went to other shards.
//!
//! The commands that MONITOR shows are published in the same way, each by the shard that runs it.
//!
//! # When a subscription begins and ends
//!
//! Each part of the directory has a *version*, one more with each change. A message carries the versions by which its
//! receivers were counted, and a subscriber gets it if it had been added by then, and not removed: whoever was counted gets
//! the message, and nobody else.
//!
//! SUBSCRIBE reads the position of its shard, and then adds the subscription to the directory. Its confirmation is sent
//! when the messages before that position have been delivered. Who publishes and counts the subscriber has seen the change,
//! so it draws a later position: no message comes before the confirmation. Who publishes after the confirmation was
//! received sees the change: no message is missed.
//!
//! UNSUBSCRIBE removes the subscription from the directory first, and reads the position then. Who publishes a message by
//! itself draws positions, and looks at the versions once more: if one has changed, its count may be wrong, so the drawn
//! positions stay empty and it starts again. If none has changed, whoever was counted and is removed later reads a position
//! behind the message, and so gets it before its confirmation. (The positions of an EXEC or a script are drawn at its end.
//! If a client of another shard unsubscribes while it runs, it may have been counted and not get the message. A client whose
//! connection ends may be counted, too, as on any server.)

mod directory;
mod names;
mod publisher;
mod subscribers;

pub use directory::{Directory, Kind};
pub use publisher::{Delivery, OpenMessages, Published, Publisher};
pub use subscribers::{Confirmation, Forms, Subscribers, Subscriptions};

#[cfg(test)]
mod tests;
