//! A module with a command that does nothing but answer. The bench `modules` compares it with PING.

use shardis_modules_api::*;

struct Empty;

impl Module for Empty {
    const NAME: &'static str = "empty-sdk";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, _args: Args<'_>) -> Result<(), Error> {
        loader.command::<Answer>()
    }
}

module!(export Empty);

/// EMPTY.SDK. Reply: PONG.
struct Answer;

impl Command for Answer {
    const ROW: Row = Row { flags: "readonly fast", summary: "Answers.", ..Row::new("empty.sdk", 1) };

    fn run(ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        ctx.reply().simple(c"PONG");
        Ok(())
    }
}
