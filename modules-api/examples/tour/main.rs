//! A tour of the SDK: a module with a command for most of what there is. `tests/redis.rs` loads it into a Redis server.

mod background;
mod commands;
mod values;

use shardis_modules_api::*;

struct Tour;

impl Module for Tour {
    const NAME: &'static str = "tour";
    const VERSION: i32 = 3;
    // TOUR.CALL calls commands with keys that it does not declare.
    const SHARD_SAFE: bool = false;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        match args.as_slice() {
            [] => values::load(loader)?,
            // Without a type of its own a module can be unloaded.
            [word, prefix] if word.is_word("PREFIX") => {
                loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
            }
            _ => return Err(Error::new("ERR arguments are [PREFIX prefix]")),
        }
        loader.command::<commands::Replies>()?;
        loader.command::<commands::Numbers>()?;
        loader.command::<commands::SetByte>()?;
        loader.command::<commands::Concat>()?;
        loader.command::<commands::Scores>()?;
        loader.command::<commands::Collections>()?;
        loader.command::<commands::Call>()?;
        loader.command::<commands::Second>()?;
        loader.command::<commands::Stray>()?;
        loader.command::<commands::Panic>()?;
        background::load(loader)
    }
}

module!(export Tour);
