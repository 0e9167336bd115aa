//! Commands: replies, arguments, and keys of every type.

use shardis_modules_api::*;

/// TOUR.REPLIES. Reply: one of each type.
pub struct Replies;

impl Command for Replies {
    const ROW: Row = Row { flags: "fast", ..Row::new("tour.replies", 1) };

    fn run(ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        let reply = ctx.reply();
        reply.array(13);
        reply.integer(-3);
        reply.bytes(b"bulk\0\r\n");
        reply.ok();
        reply.error(&Error::SYNTAX);
        reply.null();
        reply.null_array();
        reply.begin_map();
        reply.simple(c"pi");
        reply.double(3.25);
        reply.simple(c"human");
        reply.human_double(13.361389338970184);
        reply.end_map(2);
        reply.begin_set();
        reply.bool(true);
        reply.end_set(1);
        reply.big_number("123456789012345678901234567890");
        reply.verbatim(b"shown as it is");
        reply.human_double(-0.1);
        reply.double(f64::NEG_INFINITY);
        reply.empty_array();
        Ok(())
    }
}

/// TOUR.NUMBERS integer float. Reply: array, both. Errors: either is none.
pub struct Numbers;

impl Command for Numbers {
    const ROW: Row = Row::new("tour.numbers", 3);

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let (integer, float) = (args[1].to_integer()?, args[2].to_float()?);

        ctx.reply().array(2);
        ctx.reply().integer(integer);
        ctx.reply().double(float);
        Ok(())
    }
}

/// TOUR.SETBYTE key offset byte. Reply: integer, the byte that was there. Errors: WRONGTYPE.
pub struct SetByte;

impl Command for SetByte {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::UPDATE))],
        group: "string",
        summary: "Sets a byte of a string.",
        complexity: "O(1)",
        since: "1.0.0",
        tips: "nondeterministic_output",
        history: &[("1.0.1", "It is there.")],
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument::new("offset", ArgumentKind::Integer),
            Argument {
                is_optional: true,
                parts: &[
                    Argument { token: "NX", ..Argument::new("nx", ArgumentKind::PureToken) },
                    Argument::new("value", ArgumentKind::Double),
                ],
                ..Argument::new("byte", ArgumentKind::OneOf)
            },
        ],
        ..Row::new("tour.setbyte", 4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let offset = usize::try_from(args[2].to_integer()?).map_err(|_| Error::NOT_AN_INTEGER)?;
        let byte = u8::try_from(args[3].to_integer()?).map_err(|_| Error::NOT_AN_INTEGER)?;

        let mut key = ctx.open_for_writing(&args[1])?;
        let mut bytes = key.string_mut()?;

        if bytes.len() <= offset {
            bytes.resize(offset + 1)?;
        }
        // To borrow it mutably is to change it.
        let old = bytes[offset];
        if old != byte {
            bytes[offset] = byte;
        }
        drop(key);
        if old != byte {
            ctx.replicate_verbatim();
            ctx.notify(NotifyClass::String, c"tour.setbyte", &args[1]);
        }

        ctx.reply().integer(old.into());
        Ok(())
    }
}

/// TOUR.CONCAT destination source [source ...]. Reply: integer, the length. Errors: WRONGTYPE.
pub struct Concat;

impl Command for Concat {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::OW.and(KeyFlags::UPDATE)), KeySpec::from(2, KeyFlags::RO)],
        ..Row::new("tour.concat", -3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let len = if args[2..].contains(&args[1]) {
            let mut all = Vec::new();
            for source in &args[2..] {
                let key = ctx.open(source)?;
                all.extend_from_slice(key.string()?.unwrap_or_default());
            }
            ctx.open_for_writing(&args[1])?.set_string(&all);
            all.len()
        } else {
            let (mut key, sources) = ctx.open_for_writing_beside(&args[1], &args[2..])?;
            key.delete();
            let mut bytes = key.string_mut()?;
            for source in &sources {
                let source = source.string()?.unwrap_or_default();
                let len = bytes.len();
                bytes.resize(len + source.len())?;
                bytes[len..].copy_from_slice(source);
            }
            bytes.len()
        };
        ctx.replicate_verbatim();

        ctx.reply().integer(i64::try_from(len).expect("it is in memory"));
        Ok(())
    }
}

/// TOUR.SCORES key (ADD score element | GET element | REM element | RANGE min max | REVRANGE min max).
pub struct Scores;

impl Command for Scores {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        ..Row::new("tour.scores", -4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let reply = ctx.reply();
        match &args[2..] {
            [word, score, element] if word.is_word("ADD") => {
                let score = score.to_float()?;
                let mut key = ctx.open_for_writing(&args[1])?;
                let added = key.zset_mut()?.add(score, *element, AddOptions::default())?;
                reply.bytes(format!("{added:?}").as_bytes());
            }
            [word, element] if word.is_word("GET") => match ctx.open(&args[1])?.zset()? {
                Some(zset) => match zset.score(*element) {
                    Some(score) => reply.double(score),
                    None => reply.null(),
                },
                None => reply.null(),
            },
            [word, element] if word.is_word("REM") => {
                let mut key = ctx.open_for_writing(&args[1])?;
                reply.bool(key.zset_mut()?.remove(*element));
            }
            [word, min, max] if word.is_word("RANGE") || word.is_word("REVRANGE") => {
                let range = ScoreRange {
                    min: ScoreBound::Inclusive(min.to_float()?),
                    max: ScoreBound::Exclusive(max.to_float()?),
                };
                let mut key = ctx.open(&args[1])?;
                let Some(mut zset) = key.zset()? else {
                    reply.empty_array();
                    return Ok(());
                };
                let mut range = match word.is_word("RANGE") {
                    true => zset.range(range),
                    false => zset.range_backwards(range),
                };
                let mut count = 0;
                reply.begin_array();
                while let Some((element, score)) = range.next() {
                    reply.bytes(element);
                    reply.double(score);
                    count += 2;
                }
                reply.end_array(count);
            }
            _ => return Err(Error::SYNTAX),
        }
        Ok(())
    }
}

/// TOUR.COLLECTIONS list hash stream. Makes one of each, and replies with what is in them.
pub struct Collections;

impl Command for Collections {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::from(1, KeyFlags::OW)],
        ..Row::new("tour.collections", 4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let [a, b, c] = [&b"a"[..], b"b", b"c"].map(ModuleString::new);
        let (a, b, c) = (a.as_str(), b.as_str(), c.as_str());
        let reply = ctx.reply();
        reply.array(3);

        let mut key = ctx.open_for_writing(&args[1])?;
        let mut list = key.list_mut()?;
        list.push(End::Tail, b);
        list.push(End::Head, a);
        list.insert(-1, c);
        list.set(0, c);
        list.remove(1);
        let popped = list.pop(End::Head).expect("there is one");
        let last = list.get(0).expect("there is one");
        reply.array(2);
        reply.string(popped.as_str());
        reply.string(last.as_str());
        drop(key);

        let mut key = ctx.open_for_writing(&args[2])?;
        let mut hash = key.hash_mut()?;
        let was_new = [hash.set(a, b), hash.set(a, c), hash.set(b, b)];
        let was_there = [hash.remove(b), hash.remove(b)];
        drop(key);
        let key = ctx.open(&args[2])?;
        let hash = key.hash()?.expect("it was made");
        reply.array(5);
        reply.bytes(format!("{was_new:?} {was_there:?}").as_bytes());
        reply.integer(i64::try_from(hash.len()).expect("few"));
        reply.string(hash.get(a).expect("it is there").as_str());
        reply.bool(hash.has(a));
        reply.bool(hash.has(b));
        drop(key);

        let mut key = ctx.open_for_writing(&args[3])?;
        let mut stream = key.stream_mut()?;
        let id = abi::RedisModuleStreamID { ms: 5, seq: 1 };
        stream.add(Some(id), &[a, b, b, c])?;
        stream.add(None, &[c, c])?;
        let is_refused = stream.add(Some(id), &[a, a]).is_err();
        drop(key);
        let mut key = ctx.open(&args[3])?;
        let mut stream = key.stream()?.expect("it was made");
        let entries: Vec<_> = stream.range(None, Some(id)).map(|(id, fields)| (id.ms, fields)).collect();
        reply.bytes(format!("{} {is_refused} {entries:?}", stream.len()).as_bytes());
        Ok(())
    }
}

/// TOUR.CALL command [argument ...]. Reply: what that command replied.
pub struct Call;

impl Command for Call {
    const ROW: Row = Row { flags: "write", is_wide: true, ..Row::new("tour.call", -2) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let name = std::ffi::CString::new(args[1].as_bytes()).map_err(|_| Error::SYNTAX)?;
        let options = CallOptions { replicate: true, resp3: ctx.is_resp3(), ..CallOptions::default() };
        let called = ctx.call(&name, &args[2..], options)?;

        match called.value() {
            CallValue::Array(elements) => {
                ctx.reply().array(elements.len());
                for element in elements {
                    ctx.reply().call_reply(&element);
                }
            }
            _ => ctx.reply().call_reply(&called),
        }
        Ok(())
    }
}

/// TOUR.SECOND word key [word key ...]. Reply: integer, how many of the keys are there.
pub struct Second;

impl Command for Second {
    const ROW: Row = Row {
        flags: "readonly getkeys-api",
        find_keys: Some(|args, key| (2..args.len()).step_by(2).for_each(|at| key(at, KeyFlags::RO))),
        ..Row::new("tour.second", -3)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let mut count = 0;
        for name in args.iter().skip(2).step_by(2) {
            count += i64::from(!ctx.open(name)?.is_empty());
        }

        ctx.reply().integer(count);
        Ok(())
    }
}

/// TOUR.STRAY key other. Opens a key that it does not declare.
pub struct Stray;

impl Command for Stray {
    const ROW: Row =
        Row { flags: "readonly", keys: &[KeySpec::at(1, KeyFlags::RO)], ..Row::new("tour.stray", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        ctx.open(&args[1])?;
        ctx.open(&args[2])?;
        ctx.reply().ok();
        Ok(())
    }
}

/// TOUR.PANIC. Ends the server.
pub struct Panic;

impl Command for Panic {
    const ROW: Row = Row::new("tour.panic", 1);

    fn run(_ctx: &mut Context<'_>, _args: Args<'_>) -> CommandResult {
        panic!("as it was told");
    }
}
