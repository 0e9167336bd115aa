//! The module of `examples/tour` as one that is not shard-safe: its callbacks run one at a time, and all of its commands may
//! do everything.

#[path = "../tour/module/mod.rs"]
mod module;

use shardis_modules_api::*;

struct Tour;

impl Module for Tour {
    const NAME: &'static str = "tour";
    const VERSION: i32 = 3;
    const SHARD_SAFE: bool = false;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        module::load(loader, args)
    }
}

module!(export Tour);
