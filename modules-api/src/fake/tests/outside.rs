//! What happens outside of commands, on the fake server.

use super::*;
use crate::fake::Item;
use crate::{
    Aof, Args, BoolConfig, CallOptions, CallValue, Command, CommandResult, ConfigFlags, Context, DataType,
    Defrag, Digest, EnumConfig, Error, Event, EventKind, KeyFlags, KeySpec, Loader, Loading, ModuleStr,
    ModuleString, NotifyClass, NumericConfig, Row, Saver, ServerBytes, ServerNumber, StringConfig,
    TypeHandle,
};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

struct Outside;

impl Module for Outside {
    const NAME: &'static str = "outside";
    const VERSION: i32 = 1;

    fn load(loader: &mut Loader<'_>, args: Args<'_>) -> Result<(), Error> {
        if args.first().is_some_and(|word| word.is_word("wrong")) {
            return Err(Error::new("ERR that is wrong"));
        }
        loader.data_type(&NOTES)?;
        loader.config(&LIMIT)?;
        loader.config(&IS_ON)?;
        loader.config(&COLOUR)?;
        loader.config(&TITLE)?;
        loader.follow(&SAMPLES)?;
        loader.on_event(EventKind::FlushDb, |ctx, event| ctx.log(LogLevel::Notice, &format!("{event:?}")))?;
        loader.on_event(EventKind::FlushDb, |ctx, _event| ctx.log(LogLevel::Notice, "again"))?;
        loader
            .on_event(EventKind::Shutdown, |ctx, event| ctx.log(LogLevel::Notice, &format!("{event:?}")))?;
        loader.on_keyspace_event(NotifyClass::Hash | NotifyClass::Expired, |ctx, class, event, key| {
            ctx.log(LogLevel::Debug, &format!("{class:?} {event:?} {key:?}"));
        })?;
        loader.on_info(|info| {
            if info.section(c"") {
                info.integer(c"limit", LIMIT.get());
                info.group(c"parts", |info| {
                    info.text(c"a", "b");
                    info.double(c"half", 0.5);
                });
            }
        })?;
        loader.command::<Note>()?;
        loader.command::<Wait>()?;
        loader.command::<Pop>()?;
        loader.command::<Timer>()?;
        loader.command::<Ask>()?;
        loader.command::<Scan>()
    }
}

static LIMIT: NumericConfig = NumericConfig::new("limit", 10, 0, 100, ConfigFlags::NONE)
    .checked(|limit| if limit % 2 == 0 { Ok(()) } else { Err(Error::new("ERR it is odd")) })
    .applied(|ctx| ctx.log(LogLevel::Notice, &format!("limit {}", LIMIT.get())));
static IS_ON: BoolConfig = BoolConfig::new("on", true, ConfigFlags::NONE);
static COLOUR: EnumConfig = EnumConfig::new("colour", 2, &[("red", 1), ("green", 2)], ConfigFlags::NONE);
static TITLE: StringConfig = StringConfig::new("title", "none", ConfigFlags::NONE);
static SAMPLES: ServerNumber = ServerNumber::new("samples", 5);

/// A type: texts in the order in which they were noted.
#[derive(Clone, Default)]
struct Notes(Vec<ServerBytes>);

static NOTES: TypeHandle<Notes> = TypeHandle::new();

impl DataType for Notes {
    const NAME: &'static str = "fakenotes";
    const VERSION: i32 = 2;
    const HAS_AUX: bool = true;

    fn save(&self, to: &mut Saver<'_>) {
        to.unsigned(self.0.len() as u64);
        self.0.iter().for_each(|note| to.bytes(note));
        to.signed(-1);
        to.double(0.5);
    }

    fn load(from: &mut Loading<'_>, version: i32) -> Option<Notes> {
        let mut notes = Notes::default();
        for _ in 0..from.unsigned()? {
            notes.0.push(ServerBytes::new(&from.bytes()?));
        }
        if version > 1 && (from.signed()?, from.double()?) != (-1, 0.5) {
            return None;
        }
        Some(notes)
    }

    fn rewrite(&self, key: ModuleStr<'_>, aof: &mut Aof<'_>) {
        self.0.iter().for_each(|note| aof.emit(c"note", &[key.as_bytes(), note]));
    }

    fn memory_bytes(&self) -> usize {
        self.0.iter().map(|note| note.len()).sum()
    }

    fn digest(&self, digest: &mut Digest<'_>) {
        digest.integer(self.0.len() as i64);
        self.0.iter().for_each(|note| digest.bytes(note));
        digest.end_sequence();
    }

    fn copy(&self) -> Option<Notes> {
        (self.0.len() < 3).then(|| self.clone())
    }

    fn free_effort(&self) -> usize {
        self.0.len()
    }

    fn defrag(&mut self, defrag: &mut Defrag<'_>) -> bool {
        let at = defrag.cursor() as usize;
        if let Some(note) = self.0.get_mut(at) {
            defrag.bytes(note);
            defrag.set_cursor(at as u64 + 1);
        }
        at + 1 >= self.0.len() || !defrag.should_stop()
    }

    fn save_aux(to: &mut Saver<'_>, is_before_keys: bool) {
        to.signed(i64::from(is_before_keys));
    }

    fn load_aux(from: &mut Loading<'_>, _version: i32, is_before_keys: bool) -> Option<()> {
        (from.signed()? == i64::from(is_before_keys)).then_some(())
    }
}

/// note key [text ...]: Reply: array, all notes.
struct Note;

impl Command for Note {
    const ROW: Row = Row { keys: &[KeySpec::at(1, KeyFlags::RW)], ..Row::new("note", -2) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let reply = ctx.reply();
        let mut key = ctx.open_for_writing(&args[1])?;
        if key.value(&NOTES)?.is_none() {
            key.set_value(&NOTES, Notes::default())?;
        }
        let notes = key.value_mut(&NOTES)?.expect("it was just set");
        notes.0.extend(args[2..].iter().map(|text| ServerBytes::new(text.as_bytes())));
        reply.array(notes.0.len());
        notes.0.iter().for_each(|note| reply.bytes(note));
        Ok(())
    }
}

/// wait timeout-ms: a thread asks for the server's name, and answers with it, or that the server is busy.
struct Wait;

impl Command for Wait {
    const ROW: Row = Row::new("wait", 2);

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let timeout_ms = args[1].to_integer()?;
        let mut client = ctx.block_client(Some(timeout_ms), |ctx| {
            ctx.reply().simple(c"late");
            Ok(())
        })?;
        client.on_disconnect(ctx, || HAS_GONE.store(true, Ordering::Relaxed));
        let mut own = ctx.thread_context();
        assert!(own.try_lock().is_none(), "a command has the lock");

        std::thread::spawn(move || {
            drop(lock(&GATE));
            let mut context = client.thread_context();
            let name = {
                let mut ctx = context.lock();
                let name = ctx.call(c"NAME", &[], CallOptions::default());
                name.map(|name| format!("{:?}", name.value()))
            };
            drop(context);
            client.unblock(move |ctx| {
                ctx.reply().bytes(name?.as_bytes());
                Ok(())
            });
        });
        Ok(())
    }
}

/// Who holds it has the threads of `wait` wait.
static GATE: Mutex<()> = Mutex::new(());
/// A client of `wait` has gone.
static HAS_GONE: AtomicBool = AtomicBool::new(false);

/// pop list timeout-ms: Reply: the next element of a list.
struct Pop;

impl Command for Pop {
    const ROW: Row = Row { keys: &[KeySpec::at(1, KeyFlags::RW)], ..Row::new("pop", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        fn pop(ctx: &mut Context<'_>, key: ModuleStr<'_>, suffix: &Vec<u8>) -> Result<bool, Error> {
            let mut open = ctx.open_for_writing(&key)?;
            let Some(element) = open.list_mut()?.pop(End::Head) else { return Ok(false) };
            drop(open);
            ctx.reply().bytes(&[element.as_bytes(), suffix].concat());
            Ok(true)
        }

        if pop(ctx, args[1], &Vec::new())? {
            return Ok(());
        }
        let timeout_ms = args[2].to_integer()?;
        ctx.block_client_on_keys(&args[1..2], Some(timeout_ms), b"!".to_vec(), pop, |ctx| {
            ctx.reply().null();
            Ok(())
        })
    }
}

/// timer ms list: pushes to a list in so many milliseconds, and starts and stops another timer.
struct Timer;

impl Command for Timer {
    const ROW: Row = Row { keys: &[KeySpec::at(2, KeyFlags::RW)], ..Row::new("timer", 3) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let (in_ms, list) = (args[1].to_integer()?, args[2].as_bytes().to_vec());
        let timer = ctx.start_timer(in_ms, move |ctx| {
            let name = ModuleString::new(&list);
            let mut key = ctx.open_for_writing(&name.as_str()).expect("a timer opens any key");
            key.list_mut().expect("it is a list").push(End::Tail, name.as_str());
        });
        let other = ctx.start_timer(in_ms, |_ctx| panic!("it was stopped"));
        let (is_stopped, is_stopped_again) = (ctx.stop_timer(other), ctx.stop_timer(other));
        assert_eq!((is_stopped, is_stopped_again), (true, false));
        ctx.reply().integer(ctx.timer_remaining_ms(timer).expect("it runs") as i64);
        Ok(())
    }
}

/// ask command [argument ...]: Reply: what the command replied.
struct Ask;

impl Command for Ask {
    const ROW: Row = Row::new("ask", -2);

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let name = CString::new(args[1].as_bytes()).map_err(|_| Error::SYNTAX)?;
        let reply =
            ctx.call(&name, &args[2..], CallOptions { refuse_writes: true, ..CallOptions::default() })?;
        match reply.value() {
            CallValue::Map(entries) => {
                ctx.reply().array(entries.len());
                for (key, value) in entries {
                    ctx.reply().bytes(format!("{key:?}: {value:?}").as_bytes());
                }
            }
            _ => ctx.reply().call_reply(&reply),
        }
        Ok(())
    }
}

/// scan [key]: Reply: what there is.
struct Scan;

impl Command for Scan {
    const ROW: Row = Row { keys: &[KeySpec::from(1, KeyFlags::RO)], ..Row::new("scan", -1) };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let mut found = Vec::new();
        match args.get(1) {
            None => ctx.scan(|name| found.push(format!("{name:?}")))?,
            Some(key) => ctx.open(key)?.scan(|field, value| found.push(format!("{field:?} {value:?}"))),
        }
        ctx.reply().bytes(found.join(", ").as_bytes());
        Ok(())
    }
}

/// The tests share the module's statics, so those that look at its directives or wait run one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn lock(mutex: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    // A test that failed with it has left nothing behind.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn turn() -> MutexGuard<'static, ()> {
    lock(&TURN)
}

fn texts(texts: &[&str]) -> FakeReply {
    FakeReply::Array(texts.iter().map(FakeReply::bytes).collect())
}

#[test]
fn a_module_that_refuses_does_not_load() {
    let log = FakeHost::try_load::<Outside>(&["wrong"]).err().expect("it refuses");
    assert_eq!(log, ["warning: module outside does not load: ERR that is wrong"]);
}

#[test]
fn values_are_saved_and_loaded_in_all_versions() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    assert_eq!(host.call(&["note", "n", "a", ""]), texts(&["a", ""]));
    let saved = host.save("n");
    let bytes = |text: &str| Item::Bytes(text.as_bytes().to_vec());
    assert_eq!(saved, [Item::Unsigned(2), bytes("a"), bytes(""), Item::Signed(-1), Item::Double(0.5)]);

    assert!(host.load_value::<Notes>("m", &saved, 2));
    assert_eq!(host.call(&["note", "m"]), texts(&["a", ""]));
    assert!(host.load_value::<Notes>("old", &saved[..3], 1));
    assert_eq!(host.call(&["note", "old", "b"]), texts(&["a", "", "b"]));
    for (damaged, version) in [
        (&saved[..4], 2),
        (&saved[..2], 2),
        (&saved[1..], 2),
        (&[], 2),
        (&saved[..], 1),
        (&saved[..], 3),
        (&[Item::Unsigned(0), Item::Signed(-1), Item::Double(0.0)], 2),
    ] {
        assert!(!host.load_value::<Notes>("x", damaged, version), "{damaged:?}");
        assert!(!host.is_there("x"));
    }
    assert_eq!(host.save_aux::<Notes>(true), [Item::Signed(1)]);
    assert!(host.load_aux::<Notes>(&[Item::Signed(0)], 2, false));
    assert!(!host.load_aux::<Notes>(&[Item::Signed(0)], 2, true));
}

#[test]
fn values_are_described_copied_and_moved() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    host.set_string("s", b"text");
    assert_eq!(host.call(&["note", "s"]), FakeReply::error(&Error::WRONG_TYPE.to_string()));
    host.call(&["note", "n", "one", "two"]);

    let rewritten: Vec<_> = host.rewrite("n").iter().map(|command| command.join(&b' ')).collect();
    assert_eq!(rewritten, [b"note n one", b"note n two"]);
    assert_eq!((host.memory_bytes("n"), host.free_effort("n")), (6, 2));
    let digest = [Item::Signed(2), Item::Bytes(b"one".to_vec()), Item::Bytes(b"two".to_vec())];
    assert_eq!(host.digest("n"), [digest]);
    assert_eq!(host.defrag("n"), 2);
    assert!(host.copy("n", "copy"));
    assert_eq!(host.call(&["note", "n", "three"]), texts(&["one", "two", "three"]));
    assert!(!host.copy("n", "copy"), "the type refuses");
    assert_eq!(host.call(&["note", "copy"]), texts(&["one", "two"]));
    assert!(host.delete("n") && !host.is_there("n"));
}

#[test]
fn directives_are_checked_set_and_followed() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    let names = ["outside.limit", "outside.on", "outside.colour", "outside.title"];
    let all = |host: &FakeHost| names.map(|name| host.directive(name).expect("it is registered"));
    assert_eq!(all(&host), ["10", "yes", "green", "none"]);
    for (name, value) in names.into_iter().zip(["12", "no", "red", "some"]) {
        assert_eq!(host.set_directive(name, value), Ok(()));
    }
    assert_eq!(all(&host), ["12", "no", "red", "some"]);
    assert_eq!(
        (LIMIT.get(), IS_ON.get(), COLOUR.get(), TITLE.get()),
        (12, false, 1, b"some".to_vec()),
        "{:?}",
        host.done()
    );
    assert!(host.done().log.contains(&"notice: limit 12".to_string()));
    assert_eq!(host.set_directive("outside.limit", "13"), Err("it is odd".to_string()));
    for (name, value) in names.into_iter().zip(["102", "maybe", "blue"]) {
        assert!(host.set_directive(name, value).is_err(), "{name}");
    }
    assert_eq!(all(&host), ["12", "no", "red", "some"]);

    assert_eq!(SAMPLES.get(), 5);
    assert_eq!(host.set_directive("samples", "7"), Ok(()));
    assert_eq!(SAMPLES.get(), 7);
    let info = host.info();
    assert_eq!((&info["outside_limit"][..], &info["outside_parts"][..]), ("12", "a=b,half=0.5"));
    assert_eq!(host.set_directive("samples", "5"), Ok(()));
}

#[test]
fn events_and_notifications_reach_all_who_listen() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    host.fire(&Event::FlushDb { is_over: false, is_synchronous: true, db: None });
    host.fire(&Event::Other { kind: EventKind::Shutdown, subevent: 0 });
    host.fire(&Event::Cron { hz: 10 });
    host.notify(NotifyClass::Hash, "hset", "h");
    host.notify(NotifyClass::String, "set", "s");
    assert_eq!(
        host.done().log,
        [
            "notice: FlushDb { is_over: false, is_synchronous: true, db: None }",
            "notice: again",
            "notice: Other { kind: Shutdown, subevent: 0 }",
            "debug: Hash \"hset\" \"h\"",
        ]
    );
}

#[test]
fn a_client_waits_for_a_thread_that_calls_commands() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    host.on_call(|command| (command[0] == b"NAME").then(|| FakeReply::bytes("fake")));
    assert_eq!(host.call(&["wait", "0"]), FakeReply::bytes("Bytes([102, 97, 107, 101])"));
    assert_eq!(host.done().called, [[b"NAME".to_vec()]]);
    host.on_call(|_| Some(FakeReply::error("ERR not now")));
    assert_eq!(host.call(&["wait", "0"]), FakeReply::error("ERR not now"));
    host.set_may_not_wait(true);
    assert_eq!(host.call(&["wait", "0"]), FakeReply::error("ERR the command cannot wait here"));
}

#[test]
fn a_client_may_go_or_wait_too_long() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    let gate = lock(&GATE);
    let (late, gone) = (host.start(&["wait", "50"]), host.start(&["wait", "0"]));
    host.advance_ms(49);
    assert_eq!(host.reply(&late), None);
    host.advance_ms(1);
    assert_eq!(host.reply(&late), Some(FakeReply::Simple("late".to_string())));
    assert!(!HAS_GONE.load(Ordering::Relaxed), "nobody has gone");
    host.disconnect(gone);
    assert!(HAS_GONE.load(Ordering::Relaxed));
    drop(gate);
    // What the threads answer goes to nobody.
    assert_eq!(host.call(&["wait", "0"]), FakeReply::error("ERR unknown command 'name'"));
}

#[test]
fn a_client_waits_for_a_key() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    let first = host.start(&["pop", "l", "100"]);
    let second = host.start(&["pop", "l", "100"]);
    let gone = host.start(&["pop", "l", "0"]);
    host.disconnect(gone);
    assert_eq!(host.call(&["timer", "30", "l"]), FakeReply::Integer(30));
    assert_eq!(host.timer_count(), 1);
    host.advance_ms(29);
    assert_eq!(host.reply(&first), None);
    host.advance_ms(1);
    assert_eq!((host.wait(&first), host.reply(&second)), (FakeReply::bytes("l!"), None));
    assert!(!host.is_there("l"));
    host.advance_ms(70);
    assert_eq!(host.wait(&second), FakeReply::Null);

    host.set_list("l", &["x"]);
    assert_eq!(host.call(&["pop", "l", "0"]), FakeReply::bytes("x"));
}

#[test]
fn commands_are_called_as_the_test_or_the_module_answers() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    assert_eq!(host.call(&["ask", "NOSUCH"]), FakeReply::error("ERR unknown command 'nosuch'"));
    host.call(&["note", "n", "a"]);
    assert_eq!(host.call(&["ask", "note", "n"]), texts(&["a"]));
    host.on_call(|command| {
        let pair = vec![FakeReply::Simple("f".to_string()), FakeReply::Set(vec![FakeReply::Bool(true)])];
        (command[0] == b"HGETALL").then_some(FakeReply::Map(pair))
    });
    assert_eq!(host.call(&["ask", "HGETALL"]), texts(&["Bytes([102]): Set(1 elements)"]));
}

#[test]
fn keys_and_elements_are_scanned() {
    let _turn = turn();
    let mut host = FakeHost::load::<Outside>(&[]);
    host.set_hash("h", &[("f", "v")]);
    host.set_set("s", &["x", "y"]);
    host.set_zset("z", &[("m", 1.5)]);
    for (line, found) in [
        ("scan", r#""h", "s", "z""#),
        ("scan h", r#""f" Some("v")"#),
        ("scan s", r#""x" None, "y" None"#),
        ("scan z", r#""m" Some("1.5")"#),
        ("scan none", ""),
    ] {
        assert_eq!(host.call(&line.split(' ').collect::<Vec<_>>()), FakeReply::bytes(found), "{line}");
    }
}
