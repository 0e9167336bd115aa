//! The ABI of Redis modules as Rust declarations: `redismodule.h` of Redis 7.0, and what 7.2 added to it.
//!
//! All names are those of the C header, so that what is known about one holds for the other and a search finds both.
//!
//! - [`types`](self): opaque types, callbacks, and structures that cross the boundary.
//! - [`constants`](self): flags and codes.
//! - [`functions`](FUNCTIONS): the table of all functions. Each has a type in [`signature`], a slot in [`Api`] (what a module
//!   fills), and an entry in [`FUNCTIONS`] (what a server goes by).
//! - [`reason_not_served`]: why a server lacks a function.
//!
//! # On several shards
//!
//! Redis runs modules on one thread. Shardis has a thread for each shard, and keeps to what the header promises in these ways.
//! They are about modules that do not know of several threads; a module of this crate's SDK has its commands run in parallel,
//! on the shards of their keys.
//!
//! | | What holds in Shardis |
//! |---|---|
//! | commands | One runs at a time in the process. `OpenKey` and `Call` reach keys of all shards: they wait for a key that is elsewhere, and the shard serves others meanwhile. Nobody sees a command half done. |
//! | other callbacks | No two run at the same time, and none beside a command, but for the next row. What frees a value is never waited for: it runs when no other callback does. `free_effort` is asked only if no other callback runs; if one does, the value is freed later. |
//! | `IsKeysPositionRequest`, `IsChannelsPositionRequest` | With `getkeys-api` or `getchannels-api`, a command's callback is asked where its keys or channels are whenever a request of it is looked at: before it waits for anything, on the thread of any shard, several times, and also while other code of the module runs. It must look at nothing but its arguments then, which is all that it needs. It cannot have its turn like others: a thread of the module may have that for seconds, and a request has no place yet where it could wait without its shard. |
//! | `ThreadSafeContextLock` | It is a command that lasts until the unlock: what the thread has used stays locked, other modules' code waits, and everything else goes on. |
//! | `BlockClient` and the like | On any shard, also for keys of several. The callbacks run on the client's shard. A key is kept for a client that is blocked on it until the module has looked. |
//! | timers, `EventLoopAdd` | One thread waits for all of them, and the first shard calls the callbacks, each as a command of its own. |
//! | server events | A flush, a swap or a save tells of itself before and after it. What happens by itself (clients, time, background saves) is told soon after. |
//! | key events | What a module's call does is told before the call returns. What clients do is told after it, before their reply; what the module does then takes effect by itself. |
//! | `Yield` | Others are served, with or without the flag for clients. What the command has used stays locked. With the flag, others get -BUSY and the module's text past busy-reply-threshold; then a command with `allow-busy` that declares no keys runs beside it, and finds no keys. In a callback that loads a value it lets others of the module run: the server goes on answering -LOADING, but DEBUG RELOAD waits for the callback. |
//! | `Scan`, `ScanKey` | All keys of all shards, each shard in its turn. A cursor goes on where it was, on whichever shard the callback runs. |
//! | defragmentation | There is none: callbacks are accepted and never called, as in a Redis whose allocator cannot do it. |
//! | command filters | Each command of a client or a script waits for its turn to be filtered, for as long as a filter is there. |
//! | `ExportSharedAPI` | A pointer that other modules get as it is. Both sides run one at a time, so it is called as in Redis. |
//! | users | A client that a module logs in is that user from the reply on, on all shards. A user of a module is nobody's until a client has logged in as it. |
//! | `MODULE UNLOAD` | `OnUnload` is the last callback, and is called once. A command that was queued or waited then is answered as an unknown one. The reply comes when no shard is in the library any more, and it is closed: loaded again, it is as new. |
//! | clients | A callback can ask about those of the shard on which it runs. A command runs on its client's. |

mod constants;
mod functions;
mod reasons;
mod types;

pub use constants::*;
pub use functions::*;
pub use reasons::{NOT_SERVED, reason_not_served};
pub use types::*;
