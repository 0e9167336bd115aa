//! A tour of the SDK: a module with a command for most of what there is. `tests/tour` asks for all of it, of a Redis server and
//! of Shardis.

mod module;

use shardis_modules_api::*;

struct Tour;

impl Module for Tour {
    const NAME: &'static str = "tour";
    const VERSION: i32 = 3;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        module::load(loader, args)
    }
}

module!(export Tour);
