//! Events of replication, of which modules are told: the server's part in it, its master, its replicas.

use super::context::Access;
use super::events::{self, Loading, of_program, tell};
use super::server;
use crate::worker::hooks::SnapshotEvent;
use crate::worker::program::Task;
use shardis_modules_api::abi::*;
use std::ffi::{CString, c_int};

/// What is known of the server's part when it changes.
#[derive(Default)]
struct Part {
    master_host: CString,
    master_port: c_int,
    ids: [CString; 2],
    offsets: [u64; 2],
}

impl Part {
    fn now(is_replica: bool) -> Part {
        let Some(globals) = server::globals() else { return Part::default() };
        let master = globals.link.master().filter(|_| is_replica);
        let ids = globals.stream.ids();
        Part {
            master_host: master
                .as_ref()
                .and_then(|master| CString::new(&*master.host).ok())
                .unwrap_or_default(),
            master_port: master.map_or(0, |master| c_int::from(master.port)),
            ids: [ids.id, ids.id2].map(|id| CString::new(id).unwrap_or_default()),
            // As in Redis, -1 where there is no second name.
            offsets: [globals.stream.offset(), ids.second_offset.cast_unsigned()],
        }
    }
}

/// The server has become a replica, or a master.
pub(super) fn role_changed(is_replica: bool) -> Task {
    let part = Part::now(is_replica);
    Box::new(move |program| {
        let mut data = RedisModuleReplicationInfo {
            version: 1,
            master: c_int::from(!is_replica),
            masterhost: part.master_host.as_ptr().cast_mut(),
            masterport: part.master_port,
            replid1: part.ids[0].as_ptr().cast_mut(),
            replid2: part.ids[1].as_ptr().cast_mut(),
            repl1_offset: part.offsets[0],
            repl2_offset: part.offsets[1],
        };
        let subevent = match is_replica {
            true => REDISMODULE_EVENT_REPLROLECHANGED_NOW_REPLICA,
            false => REDISMODULE_EVENT_REPLROLECHANGED_NOW_MASTER,
        };
        let event = REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED;
        tell(of_program(program), event, subevent, (&raw mut data).cast());
    })
}

/// The link to the master has come up, or gone down.
pub(super) fn link_changed(is_up: bool) -> Task {
    let subevent =
        if is_up { REDISMODULE_SUBEVENT_MASTER_LINK_UP } else { REDISMODULE_SUBEVENT_MASTER_LINK_DOWN };
    tells_nothing_more(REDISMODULE_EVENT_MASTER_LINK_CHANGE, subevent)
}

/// A replica gets the stream, or has left that did.
pub(super) fn replica_changed(is_online: bool) -> Task {
    let subevent = match is_online {
        true => REDISMODULE_SUBEVENT_REPLICA_CHANGE_ONLINE,
        false => REDISMODULE_SUBEVENT_REPLICA_CHANGE_OFFLINE,
    };
    tells_nothing_more(REDISMODULE_EVENT_REPLICA_CHANGE, subevent)
}

fn tells_nothing_more(event: u64, subevent: u64) -> Task {
    Box::new(move |program| tell(of_program(program), event, subevent, std::ptr::null_mut()))
}

/// The snapshot of a master is loaded: see [`events::tell_loading`]. What modules have beside their keys is theirs to keep until it
/// is complete, if it is loaded beside the present data.
pub(super) fn snapshot_loads(how: SnapshotEvent, keeps_data: bool) {
    let (loading, aside) = match how {
        SnapshotEvent::Begins => (Loading::Replication, REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_STARTED),
        SnapshotEvent::Loaded => (Loading::Ended, REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_COMPLETED),
        SnapshotEvent::Failed => (Loading::Failed, REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_ABORTED),
    };
    let tell_aside = || {
        if keeps_data {
            tell(Access::Nothing, REDISMODULE_EVENT_REPL_ASYNC_LOAD, aside, std::ptr::null_mut());
        }
    };
    // As Redis: the one lies within the other.
    if how == SnapshotEvent::Begins {
        tell_aside();
    }
    events::tell_loading(loading);
    if how != SnapshotEvent::Begins {
        tell_aside();
    }
}
