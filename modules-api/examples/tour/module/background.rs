//! What happens outside of commands: directives, events, fields of INFO, timers, clients that wait, threads, scans.

use shardis_modules_api::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

static LIMIT: NumericConfig = NumericConfig::new("limit", 10, 0, 1 << 40, ConfigFlags::MEMORY)
    .checked(|limit| match limit % 2 {
        0 => Ok(()),
        _ => Err(Error::new("ERR the limit is to be even")),
    })
    .applied(|_ctx| see(format!("the limit is {}", LIMIT.get())));
static IS_LOUD: BoolConfig = BoolConfig::new("loud", false, ConfigFlags::NONE);
static COLOUR: EnumConfig = EnumConfig::new("colour", 1, &[("red", 1), ("green", 2)], ConfigFlags::NONE);
static NAME: StringConfig =
    StringConfig::new("name", "nobody", ConfigFlags::NONE).checked(|name| match name.is_empty() {
        false => Ok(()),
        true => Err(Error::new("ERR everybody has a name")),
    });

/// A directive of the server that the module goes by.
static SAMPLES: ServerNumber = ServerNumber::new("maxmemory-samples", 0);

static FIRED: AtomicI64 = AtomicI64::new(0);
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn see(what: String) {
    SEEN.lock().expect("nothing panics with the lock").push(what);
}

pub fn listen_to_keys(loader: &mut Loader<'_>) -> Result<(), Error> {
    loader.on_keyspace_event(NotifyClass::String | NotifyClass::Hash, |_ctx, class, event, key| {
        see(format!("{class:?} {event:?} {key:?}"));
    })
}

pub fn load(loader: &mut Loader<'_>) -> Result<(), Error> {
    loader.config(&LIMIT)?;
    loader.config(&IS_LOUD)?;
    loader.config(&COLOUR)?;
    loader.config(&NAME)?;
    loader.follow(&SAMPLES)?;
    loader.on_event(EventKind::Config, |_ctx, event| see(format!("{event:?}")))?;
    loader.on_event(EventKind::FlushDb, |_ctx, event| see(format!("{event:?}")))?;
    loader.on_info(|info| {
        if info.section(c"") {
            info.integer(c"fired", FIRED.load(Ordering::Relaxed));
            info.text(c"motto", "keep it simple");
            info.group(c"parts", |info| {
                info.double(c"half", 0.5);
                info.integer(c"one", 1);
            });
        }
    })?;
    loader.command::<Seen>()?;
    loader.command::<Configs>()?;
    loader.command::<Timers>()?;
    loader.command::<Wait>()?;
    loader.command::<Thread>()?;
    loader.command::<Scan>()?;
    loader.command::<Narrow>()?;
    loader.command::<Pop>()?;
    loader.container(&GROUP)?;
    loader.subcommand::<GroupHello>(&GROUP)
}

/// TOUR.SEEN. Reply: array, what happened since the last time.
pub struct Seen;

impl Command for Seen {
    const ROW: Row = Row::new("tour.seen", 1);

    fn run(ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        let seen = std::mem::take(&mut *SEEN.lock().expect("nothing panics with the lock"));
        ctx.reply().array(seen.len());
        for what in seen {
            ctx.reply().bytes(what.as_bytes());
        }
        Ok(())
    }
}

/// TOUR.CONFIGS. Reply: the values of the directives.
pub struct Configs;

impl Command for Configs {
    const ROW: Row = Row::new("tour.configs", 1);

    fn run(ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        let name = NAME.get();
        let name = String::from_utf8_lossy(&name);
        let all = format!("{} {} {} {name} {}", LIMIT.get(), IS_LOUD.get(), COLOUR.get(), SAMPLES.get());
        ctx.reply().bytes(all.as_bytes());
        Ok(())
    }
}

/// TOUR.TIMERS ms. Starts two timers, and stops one of them twice. Reply: whether it was going to fire, and was running.
pub struct Timers;

impl Command for Timers {
    const ROW: Row = Row::new("tour.timers", 2);

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let in_ms = args[1].to_integer()?;

        ctx.start_timer(in_ms, |ctx| {
            FIRED.fetch_add(1, Ordering::Relaxed);
            ctx.log(LogLevel::Notice, "the timer fired");
        });
        let other = ctx.start_timer(in_ms, |_ctx| see("the stopped timer fired".to_string()));
        let is_to_fire =
            ctx.timer_remaining_ms(other).is_some_and(|remaining_ms| remaining_ms <= in_ms as u64);
        let were_running = [is_to_fire, ctx.stop_timer(other), ctx.stop_timer(other)];

        ctx.reply().bytes(format!("{were_running:?}").as_bytes());
        Ok(())
    }
}

/// TOUR.WAIT timeout-ms (ANSWER text | FAIL | DROP | SLEEP ms). A thread decides what becomes of the client.
pub struct Wait;

impl Command for Wait {
    const ROW: Row = Row { flags: "blocking", ..Row::new("tour.wait", -3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let timeout_ms = Some(args[1].to_integer()?).filter(|timeout_ms| *timeout_ms > 0);
        let text = args.get(3).map_or_else(Vec::new, |text| text.as_bytes().to_vec());
        let action = args[2].as_bytes().to_ascii_uppercase();

        let mut client = ctx.block_client(timeout_ms, |ctx| {
            ctx.reply().simple(c"it took too long");
            Ok(())
        })?;
        client.on_disconnect(ctx, || see("a client has gone".to_string()));

        std::thread::spawn(move || match &action[..] {
            b"ANSWER" => client.unblock(move |ctx| {
                ctx.reply().bytes(&text);
                Ok(())
            }),
            b"FAIL" => client.unblock(|_ctx| Err(Error::SYNTAX)),
            b"SLEEP" => {
                let ms = String::from_utf8_lossy(&text).parse().unwrap_or(0);
                client.start_measuring();
                std::thread::sleep(std::time::Duration::from_millis(ms));
                client.stop_measuring();
                client.unblock(|ctx| {
                    ctx.reply().ok();
                    Ok(())
                });
            }
            _ => drop(client),
        });
        Ok(())
    }
}

/// TOUR.THREAD key. A thread increments the key, as a command would, and answers what became of it.
pub struct Thread;

impl Command for Thread {
    const ROW: Row = Row {
        flags: "write blocking",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        ..Row::new("tour.thread", 2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let key = args[1].as_bytes().to_vec();
        let client = ctx.block_client(None, |_ctx| Ok(()))?;

        std::thread::spawn(move || {
            let mut context = client.thread_context();
            let result = {
                let mut ctx = context.lock();
                let key = ModuleString::new(&key);
                match ctx.call(c"INCR", &[key.as_str()], CallOptions::default()) {
                    Ok(reply) => Ok(format!("{:?}", reply.value())),
                    Err(error) => Err(error),
                }
            };
            drop(context);
            client.unblock(move |ctx| {
                ctx.reply().bytes(result?.as_bytes());
                Ok(())
            });
        });
        Ok(())
    }
}

/// TOUR.NARROW key (WAIT | WAITKEY | SCAN | CALL command [argument ...] | SILENTLY command [argument ...] | TWICE). Asks for what
/// its row says nothing of, calls a command that leaves effects or none, or increments the key twice. Reply: what the called command
/// replied, or OK. Errors: what the server has against it.
pub struct Narrow;

impl Command for Narrow {
    const ROW: Row = Row {
        flags: "write",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        ..Row::new("tour.narrow", -3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        fn reply_ok(ctx: &mut Context<'_>) -> CommandResult {
            ctx.reply().ok();
            Ok(())
        }

        let recorded = CallOptions { replicate: true, ..CallOptions::default() };
        match &args[2..] {
            [word, name, arguments @ ..] if word.is_word("CALL") || word.is_word("SILENTLY") => {
                let name = std::ffi::CString::new(name.as_bytes()).map_err(|_| Error::SYNTAX)?;
                let options = if word.is_word("CALL") { recorded } else { CallOptions::default() };
                ctx.reply().call_reply(&ctx.call(&name, arguments, options)?);
                return Ok(());
            }
            [word] if word.is_word("TWICE") => {
                ctx.call(c"INCR", &args[1..2], recorded)?;
                ctx.call(c"INCR", &args[1..2], recorded)?;
            }
            [word] if word.is_word("WAIT") => {
                ctx.block_client(None, reply_ok)?.unblock(reply_ok);
                return Ok(());
            }
            [word] if word.is_word("WAITKEY") => {
                return ctx.block_client_on_keys(&args[1..2], Some(1), (), |_, _, ()| Ok(false), reply_ok);
            }
            [word] if word.is_word("SCAN") => ctx.scan(|_| ())?,
            _ => return Err(Error::SYNTAX),
        }
        reply_ok(ctx)
    }
}

/// TOUR.POP key timeout-ms prefix. Waits for an element of a list, and takes it. Reply: the element behind the prefix.
pub struct Pop;

impl Command for Pop {
    const ROW: Row = Row {
        flags: "write blocking",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::DELETE))],
        ..Row::new("tour.pop", 4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        struct Waiting {
            prefix: Vec<u8>,
        }
        fn pop(ctx: &mut Context<'_>, key: ModuleStr<'_>, waiting: &Waiting) -> Result<bool, Error> {
            let mut open = ctx.open_for_writing(&key)?;
            let popped = open.list_mut()?.pop(End::Head);
            drop(open);
            let Some(element) = popped else { return Ok(false) };
            ctx.replicate(c"LPOP", &[key]);
            ctx.reply().bytes(&[&waiting.prefix[..], element.as_bytes()].concat());
            Ok(true)
        }

        let timeout_ms = args[2].to_integer()?;
        let waiting = Waiting { prefix: args[3].as_bytes().to_vec() };

        if pop(ctx, args[1], &waiting)? {
            return Ok(());
        }
        ctx.block_client_on_keys(&args[1..2], Some(timeout_ms), waiting, pop, |ctx| {
            ctx.reply().null();
            Ok(())
        })
    }
}

/// TOUR.GROUP, a command that has subcommands.
const GROUP: Row = Row::new("tour.group", -2);

/// TOUR.GROUP HELLO name. Reply: a greeting.
pub struct GroupHello;

impl Command for GroupHello {
    const ROW: Row = Row { summary: "Greets.", ..Row::new("hello", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        ctx.reply().bytes(&[b"hello ", args[2].as_bytes()].concat());
        Ok(())
    }
}

/// TOUR.SCAN [key]. Reply: array, the names of all keys, or the elements of one, in order.
pub struct Scan;

impl Command for Scan {
    const ROW: Row = Row {
        flags: "readonly",
        is_wide: true,
        keys: &[KeySpec::from(1, KeyFlags::RO)],
        ..Row::new("tour.scan", -1)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let mut found = Vec::new();
        match args.get(1) {
            None => ctx.scan(|name| found.push(format!("{name:?}")))?,
            Some(key) => {
                let key = ctx.open(key)?;
                key.scan(|field, value| found.push(format!("{field:?} {value:?}")));
            }
        }

        found.sort();
        ctx.reply().bytes(found.join(", ").as_bytes());
        Ok(())
    }
}
