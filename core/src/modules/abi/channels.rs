//! Messages of channels.

use super::given::{Ctx, Str, server_functions};
use crate::pubsub::Kind;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::c_int;

pub(super) const SERVED: &[Served] = served! {
    PublishMessage = publish_message,
    PublishMessageShard = publish_message_shard,
};

server_functions! {
    /// Publishes a message to a channel. Returns how many clients get it.
    fn publish_message(ctx: Ctx, channel: Str, message: Str) -> c_int {
        let Some(shard) = ctx.shard() else { return 0 };
        shard.publish_message(Kind::Channel, channel.bytes(), message.bytes()) as c_int
    }

    /// The same for a shard channel.
    fn publish_message_shard(ctx: Ctx, channel: Str, message: Str) -> c_int {
        let Some(shard) = ctx.shard() else { return 0 };
        shard.publish_message(Kind::ShardChannel, channel.bytes(), message.bytes()) as c_int
    }
}
