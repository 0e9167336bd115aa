//! What the module registers when it is loaded.

mod background;
mod commands;
mod values;

use shardis_modules_api::*;

pub fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
    match args.as_slice() {
        [] => {
            values::load(loader)?;
            background::listen_to_keys(loader)?;
        }
        // While a module listens to keys, Shardis runs commands that write as programs.
        [word] if word.is_word("DEAF") => {}
        // Without a type of its own a module can be unloaded.
        [word, prefix] if word.is_word("PREFIX") => {
            loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
        }
        _ => return Err(Error::new("ERR arguments are [DEAF | PREFIX prefix]")),
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
