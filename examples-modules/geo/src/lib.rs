//! The geo commands of Redis as a module: members of sorted sets as points on the earth.
//!
//! A member's score is the number of its position in a grid whose numbers keep neighbours together (`grid`). A search reads
//! the ranges of scores of the grid's cells that cover a shape (`cover`), keeps the members inside (`shape`, `distance`),
//! and sorts them (`order`). All of that knows no server; the commands, which do, are in `commands`.
//!
//! Which members are found, in which order, and each digit of a reply are those of Redis 7.0.15.
//!
//! Argument of the module: `PREFIX p`, which the names of all commands begin with then. So it loads into a server that has
//! commands of these names itself.

#![deny(unsafe_code)]

mod commands;
mod cover;
mod distance;
mod grid;
mod order;
mod search;
mod shape;
mod text;

use shardis_modules_api::{Args, Error, Loader, Module, module};

struct Geo;

impl Module for Geo {
    const NAME: &'static str = "geo";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        match args.as_slice() {
            [] => {}
            [word, prefix] if word.is_word("prefix") => {
                loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
            }
            _ => return Err(Error::from_text(c"ERR the arguments are none, or PREFIX and a text")),
        }
        commands::register(loader)
    }
}

module!(Geo);
