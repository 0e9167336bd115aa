//! Looks connections up for the CLIENT commands.

use super::{Connection, Worker};
use crate::client::ClientId;

impl Worker {
    /// The connections of this shard, with their indexes, but the server's own.
    pub fn clients(&self) -> impl Iterator<Item = (usize, &Connection)> {
        let all = self.connections.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.as_deref()?)));
        all.filter(|(_, connection)| !connection.client.is_server)
    }

    /// The index of the connection of a client, if it is connected to this shard.
    pub fn find_client(&self, id: ClientId) -> Option<usize> {
        self.by_client.get(&id).map(|&at| at as usize)
    }
}
