//! A module on the fake server: what its commands reply and do.

use super::*;
use crate::{
    AddOptions, Args, Begin, Command, CommandResult, Context, End, Error, Find, KeyFlags, KeySpec, Loader,
    LogLevel, NotifyClass, Row, ScoreRange,
};

mod outside;

struct Sample;

impl Module for Sample {
    const NAME: &'static str = "sample";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        if let Some(prefix) = args.first() {
            loader.set_prefix(&String::from_utf8_lossy(prefix.as_bytes()));
        }
        loader.command::<Bit>()?;
        loader.command::<Ranks>()?;
        loader.command::<Everything>()?;
        loader.command::<Keys>()
    }
}

/// bit key offset: sets a bit. Reply: integer, what it was.
struct Bit;

impl Command for Bit {
    const ROW: Row = Row { keys: &[KeySpec::at(1, KeyFlags::RW)], ..Row::new("bit", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let offset = usize::try_from(args[2].to_integer()?).map_err(|_| Error::NOT_AN_INTEGER)?;
        let (at, mask) = (offset / 8, 0x80_u8 >> (offset % 8));
        let mut key = ctx.open_for_writing(&args[1])?;
        let mut bytes = key.string_mut()?;
        if bytes.len() <= at {
            bytes.resize(at + 1)?;
        }
        let was_set = bytes[at] & mask != 0;
        if !was_set {
            bytes[at] |= mask;
        }
        drop(key);
        if !was_set {
            ctx.replicate_verbatim();
            ctx.notify(NotifyClass::String, c"bit", &args[1]);
        }
        ctx.reply().integer(was_set.into());
        Ok(())
    }
}

/// ranks key [score element ...]: adds elements. Reply: all, from the highest score.
struct Ranks;

impl Command for Ranks {
    const ROW: Row = Row { keys: &[KeySpec::at(1, KeyFlags::RW)], ..Row::new("ranks", -2) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let mut key = ctx.open_for_writing(&args[1])?;
        let mut zset = key.zset_mut()?;
        for pair in args[2..].chunks_exact(2) {
            zset.add(pair[0].to_float()?, pair[1], AddOptions::default())?;
        }
        drop(key);
        ctx.replicate(c"ZADD", &args[1..]);

        let reply = ctx.reply();
        let mut key = ctx.open(&args[1])?;
        let Some(mut zset) = key.zset()? else {
            reply.null_array();
            return Ok(());
        };
        reply.begin_array();
        let (mut range, mut count) = (zset.range_backwards(ScoreRange::ALL), 0);
        while let Some((element, score)) = range.next() {
            reply.array(2);
            reply.bytes(element);
            reply.double(score);
            count += 1;
        }
        reply.end_array(count);
        Ok(())
    }
}

/// everything list hash: what lists, hashes, replies and the log can do.
struct Everything;

impl Command for Everything {
    const ROW: Row = Row { keys: &[KeySpec::from(1, KeyFlags::RW)], ..Row::new("everything", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        ctx.log(LogLevel::Notice, "here");
        let reply = ctx.reply();
        reply.array(4);
        let mut key = ctx.open_for_writing(&args[1])?;
        let mut list = key.list_mut()?;
        list.push(End::Tail, args[1]);
        list.push(End::Head, args[2]);
        reply.string(list.get(-1).expect("it was pushed").as_str());
        reply.string(list.pop(End::Head).expect("it was pushed").as_str());
        drop(key);
        let mut key = ctx.open_for_writing(&args[2])?;
        let mut hash = key.hash_mut()?;
        let was_new = [hash.set(args[1], args[2]), hash.set(args[1], args[2])];
        reply.map(1);
        reply.bool(was_new == [true, false]);
        reply.string(hash.get(args[1]).expect("it was set").as_str());
        hash.remove(args[1]);
        reply.human_double(-13.361389338970184);
        Ok(())
    }
}

/// keys ...: Reply: the arguments that it may open, by its many key specs.
struct Keys;

impl Command for Keys {
    const ROW: Row = Row {
        keys: &[
            KeySpec::at(1, KeyFlags::RO),
            KeySpec::behind("STORE", 2, KeyFlags::OW),
            KeySpec::behind("LAST", -1, KeyFlags::OW),
            KeySpec::counted(2, KeyFlags::RO),
            KeySpec {
                begin: Begin::Keyword("PAIRS", 2),
                find: Find::Range { last: -2, step: 2 },
                flags: KeyFlags::RW,
                notes: "",
            },
        ],
        find_keys: Some(|args, key| {
            (3..args.len())
                .filter(|at| args[*at].as_bytes().starts_with(b"!"))
                .for_each(|at| key(at, KeyFlags::RO));
        }),
        ..Row::new("keys", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let reply = ctx.reply();
        reply.begin_array();
        let mut count = 0;
        for argument in &args[1..] {
            if ctx.open(argument).is_ok() {
                reply.string(*argument);
                count += 1;
            }
        }
        reply.end_array(count);
        Ok(())
    }
}

#[test]
fn keys_are_those_that_the_row_declares() {
    let mut host = FakeHost::load::<Sample>(&[]);
    for (line, expected) in [
        ("keys a", "a"),
        ("keys a b c", "a"),
        ("keys a 2 b c d", "a b c"),
        ("keys a 9 b c", "a b c"),
        ("keys a 0 b c", "a"),
        ("keys a -1 b c", "a"),
        ("keys a x store b c", "a b"),
        ("keys a x store", "a"),
        ("keys a STORE b STORE c", "a b"),
        ("keys a x LAST b y LAST c", "a c"),
        ("keys a PAIRS b 1 c 2", "a b c"),
        ("keys a x !b c !d", "a !b !d"),
        // A string with the bytes of a key is that key.
        ("keys a x a", "a a"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let expected = expected.split(' ').map(FakeReply::bytes).collect();
        assert_eq!(host.call(&arguments), FakeReply::Array(expected), "{line}");
    }
}

#[test]
fn a_command_replies_and_leaves_its_traces() {
    let mut host = FakeHost::load::<Sample>(&[]);
    assert_eq!(host.arity("bit"), Some(3));

    assert_eq!(host.call(&["BIT", "k", "9"]), FakeReply::Integer(0));
    assert_eq!(host.string("k"), Some(vec![0, 0x40]));
    let expected = Done {
        replicated: vec![vec![b"BIT".to_vec(), b"k".to_vec(), b"9".to_vec()]],
        notified: vec![("bit".to_string(), b"k".to_vec())],
        modified: vec![b"k".to_vec()],
        ..Done::default()
    };
    assert_eq!(host.done(), expected);

    assert_eq!(host.call(&["bit", "k", "9"]), FakeReply::Integer(1));
    assert_eq!(host.done(), Done::default());
}

#[test]
fn errors_are_replies() {
    let mut host = FakeHost::load::<Sample>(&["my."]);
    host.set_zset("z", &[("a", 1.0)]);
    assert_eq!(
        host.call(&["my.bit", "k"]),
        FakeReply::error("ERR wrong number of arguments for 'my.bit' command")
    );
    assert_eq!(host.call(&["my.bit", "z", "1"]), FakeReply::error(&Error::WRONG_TYPE.to_string()));
    assert_eq!(host.call(&["my.bit", "k", "x"]), FakeReply::error(&Error::NOT_AN_INTEGER.to_string()));
    assert!(!host.is_there("k"));
}

#[test]
fn sorted_sets_have_an_order() {
    let mut host = FakeHost::load::<Sample>(&[]);
    assert_eq!(host.call(&["ranks", "z"]), FakeReply::NullArray);
    let pair =
        |element: &str, score| FakeReply::Array(vec![FakeReply::bytes(element), FakeReply::Double(score)]);
    assert_eq!(
        host.call(&["ranks", "z", "2", "b", "-inf", "a", "2", "c"]),
        FakeReply::Array(vec![pair("c", 2.0), pair("b", 2.0), pair("a", f64::NEG_INFINITY)])
    );
    assert_eq!(host.done().replicated[0][..2], [b"ZADD".to_vec(), b"z".to_vec()]);
    assert_eq!(host.done().modified, [b"z"]);
    assert_eq!(host.zset("z").expect("it is there").len(), 3);
}

#[test]
fn lists_and_hashes_hold_what_they_were_given() {
    let mut host = FakeHost::load::<Sample>(&[]);
    host.set_list("l", &["first"]);
    let human = if cfg!(target_arch = "x86_64") { -13.361389338970184 } else { return };
    assert_eq!(
        host.call(&["everything", "l", "h"]),
        FakeReply::Array(vec![
            FakeReply::bytes("l"),
            FakeReply::bytes("h"),
            FakeReply::Map(vec![FakeReply::Bool(true), FakeReply::bytes("h")]),
            FakeReply::Double(human),
        ])
    );
    assert!(host.is_there("l") && !host.is_there("h"), "a hash without fields is no key");
    assert_eq!(host.done().log, ["notice: here"]);
}
