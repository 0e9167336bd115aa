//! MIGRATE: keys move to another server, in one step for whoever looks at either server.
//!
//! It is a *program* that keeps to its declared keys (see [`worker::program`](crate::worker::program)). So keys of several shards
//! are gathered under one transaction; it works in an EXEC and in scripts as everywhere; and it can wait: while the keys travel it
//! is suspended until the thread of the connection has the other server's replies ([`peers`](crate::worker::peers)). Whoever
//! wants one of its keys waits for its end, as for that of any suspended program, and everybody else is served meanwhile. In Redis,
//! all would wait.
//!
//! What it does to the keys is done by two commands that nobody else can call: one makes the request that sends a key, with the
//! value as DUMP has it; the other deletes the keys that the other server has acknowledged. Their DEL is its only effect. If the
//! connection ends before an acknowledgement, the key stays, and may be on both servers: it is never on none.

use crate::command::args;
use crate::command::docs::Docs;
use crate::command::keys::{BeginSearch, FindKeys, KeyPositions, KeySpec, key_flag};
use crate::command::table::{Command, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::persist::rdb::dump;
use crate::persist::rdb::write::Writer;
use crate::protocol::{Argv, Reply, Resp};
use crate::shard::event::Event;
use crate::types::module::KeyPlace;
use crate::worker::peers::{OnTransferred, Transfer, TransferFailure, Transferred};
use crate::worker::program::{Control, ProgramCtx, ProgramHandler, ProgramKind, Reach, new_ticket};
use smallvec::SmallVec;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub const COMMANDS: &[Command] = &[MIGRATE];

/// What MIGRATE does to keys.
pub const STEPS: &[Command] = &[PACK, REMOVE];

const MOVED: u32 = key_flag::RW | key_flag::ACCESS | key_flag::DELETE;

const MIGRATE: Command = Command::program("migrate", -6, &HANDLER)
    .flags(flag::WRITE | flag::MOVABLEKEYS)
    .acl(acl::KEYSPACE | acl::DANGEROUS)
    .at(&[
        KeySpec::one(3, MOVED),
        KeySpec {
            flags: MOVED | key_flag::INCOMPLETE,
            begin: BeginSearch::Keyword { keyword: "KEYS", from: -2 },
            find: FindKeys::Range { last: -1, step: 1, limit: 0 },
            notes: "",
        },
    ])
    .find_keys(migrate_keys)
    .secrets(migrate_secrets)
    .docs(
        Docs::new("generic", "2.6.0", "Moves keys to another server, in one step")
            .complexity(
                "That of DUMP and DEL here and of RESTORE there, for each key, and O(N) for the N bytes that are sent",
            )
            .arguments(
                "host port:int key_or_empty_string(key#0 | empty_string'') destination-db:int timeout:int \
                 [COPY@3.0.0] [REPLACE@3.0.0] \
                 [authentication([AUTH password@4.0.7] | [AUTH2{username password}@6.0.0])] [KEYS key#1@3.0.6...]",
            )
            .tips(&["nondeterministic_output"])
            .history(&[
                ("3.0.0", "Options `COPY` and `REPLACE`"),
                ("3.0.6", "Option `KEYS`"),
                ("4.0.7", "Option `AUTH`"),
                ("6.0.0", "Option `AUTH2`"),
            ]),
    );

static HANDLER: ProgramHandler = ProgramHandler {
    kind: ProgramKind::Command,
    flags: |_, flags, _| flags,
    name: |_| None,
    reach: |_, _| Reach::Declared,
    made_keys: |_, _| None,
    may_publish: |_, _| false,
    run: migrate,
    data: &(),
};

/// A word behind MIGRATE's first five arguments.
enum Word {
    Copy,
    Replace,
    /// The one argument that follows is a password.
    Auth,
    /// The two that follow are a user's name and password.
    Auth2,
    /// All that follow are keys.
    Keys,
}

const FIRST_KEY: usize = 3;
const FIRST_WORD: usize = 6;

impl Word {
    fn of(arg: &[u8]) -> Option<Word> {
        const WORDS: [(&str, Word); 5] = [
            ("copy", Word::Copy),
            ("replace", Word::Replace),
            ("auth", Word::Auth),
            ("auth2", Word::Auth2),
            ("keys", Word::Keys),
        ];
        WORDS.into_iter().find(|(name, _)| args::is(arg, name)).map(|(_, word)| word)
    }

    /// How many arguments belong to it.
    fn value_count(&self) -> usize {
        match self {
            Word::Copy | Word::Replace | Word::Keys => 0,
            Word::Auth => 1,
            Word::Auth2 => 2,
        }
    }
}

/// The words, and which arguments they are, up to KEYS. `None`: an argument that is no such word.
fn words(args: Argv<'_>) -> impl Iterator<Item = (usize, Option<Word>)> {
    let mut next = Some(FIRST_WORD);
    std::iter::from_fn(move || {
        let at = next.filter(|&at| at < args.len())?;
        let word = Word::of(args.arg(at));
        next = match &word {
            Some(Word::Keys) => None,
            Some(word) => Some(at + 1 + word.value_count()),
            None => Some(at + 1),
        };
        Some((at, word))
    })
}

/// The key, or those behind KEYS. With both of them the request is malformed, and has none.
fn migrate_keys(args: Argv<'_>, found: &mut KeyPositions) {
    match words(args).find(|(_, word)| matches!(word, Some(Word::Keys))) {
        Some((at, _)) if args.arg(FIRST_KEY).is_empty() => {
            found.extend((at + 1..args.len()).map(|at| (at, MOVED)));
        }
        Some(_) => {}
        None if args.len() > FIRST_KEY => found.push((FIRST_KEY, MOVED)),
        None => {}
    }
}

fn migrate_secrets(args: Argv<'_>) -> SmallVec<[usize; 2]> {
    let mut secrets = SmallVec::new();
    for (at, word) in words(args) {
        let count = word.map_or(0, |word| word.value_count());
        secrets.extend((at + 1..=at + count).filter(|&at| at < args.len()));
    }
    secrets
}

/// What a client asks for.
struct Request<'a> {
    keys: Vec<&'a [u8]>,
    copies: bool,
    replaces: bool,
    transfer: Transfer,
}

impl<'a> Request<'a> {
    fn parse(args: Argv<'a>) -> CommandResult<Request<'a>> {
        const TIMEOUT_MS: i64 = 1000;
        let (mut copies, mut replaces, mut credentials) = (false, false, Vec::new());
        let mut keys = vec![args.arg(FIRST_KEY)];
        for (at, word) in words(args) {
            let word = word.ok_or(CommandError::SYNTAX)?;
            let values = at + 1..at + 1 + word.value_count();
            if values.end > args.len() {
                return Err(CommandError::SYNTAX);
            }
            match word {
                Word::Copy => copies = true,
                Word::Replace => replaces = true,
                Word::Auth | Word::Auth2 => credentials = values.map(|at| args.arg(at).to_vec()).collect(),
                Word::Keys if args.arg(FIRST_KEY).is_empty() => keys = args.slice(at + 1..).iter().collect(),
                Word::Keys => {
                    return Err(CommandError::fixed(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
            }
        }
        let timeout_ms = args::integer(args.arg(5))?;
        let db = args::integer(args.arg(4))?;
        let timeout_ms = if timeout_ms <= 0 { TIMEOUT_MS } else { timeout_ms };
        let transfer = Transfer {
            host: String::from_utf8_lossy(args.arg(1)).into_owned(),
            port: leading_number(args.arg(2)),
            db,
            credentials,
            timeout: Duration::from_millis(timeout_ms as u64),
            requests: Vec::new(),
            request_count: 0,
        };
        Ok(Request { keys, copies, replaces, transfer })
    }
}

/// The number with which a text begins, as C reads it; 0 without one.
fn leading_number(text: &[u8]) -> i64 {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..digits]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] [KEYS key ...]. `timeout`: in
/// milliseconds, of each step; not above 0: a second. A key that does not exist is left out. Reply: OK; NOKEY if none of them
/// exists. Errors: syntax; IOERR; the first error of the other server. The keys that it has acknowledged are gone even so. O(bytes).
fn migrate(ctx: &mut ProgramCtx<'_>) -> CommandResult {
    let Request { keys, copies, replaces, mut transfer } = Request::parse(ctx.args)?;

    let mut sent = Vec::new();
    let mode: &[u8] = if replaces { b"REPLACE" } else { b"KEEP" };
    for key in keys {
        let len = transfer.requests.len();
        if let Control::Stop(text) =
            ctx.call_hidden(&[PACK.name.as_bytes(), key, mode], &mut transfer.requests)
        {
            return Err(CommandError::fixed(text));
        }
        if transfer.requests[len..].starts_with(b"$-1") {
            transfer.requests.truncate(len);
        } else {
            sent.push(key);
        }
    }
    if sent.is_empty() {
        ctx.reply.simple("NOKEY");
        return Ok(());
    }

    transfer.request_count = sent.len();
    let Transferred { accepted, failure, .. } = send(ctx, transfer);
    let accepted = sent.into_iter().zip(accepted).filter(|(_, is_accepted)| *is_accepted);
    let mut removal = vec![REMOVE.name.as_bytes()];
    removal.extend(accepted.map(|(key, _)| key));
    if !copies && removal.len() > 1 {
        // It replies with an integer, or is not called because the program has been stopped.
        let _ = ctx.call_hidden(&removal, &mut Vec::new());
    }

    match failure {
        None => ctx.reply.ok(),
        Some(failure) => return Err(error_of(failure)),
    }
    Ok(())
}

fn error_of(failure: TransferFailure) -> CommandError {
    match failure {
        TransferFailure::Connecting => CommandError::fixed("IOERR error or timeout connecting to the client"),
        TransferFailure::Writing => CommandError::fixed("IOERR error or timeout writing to target instance"),
        TransferFailure::Reading => CommandError::fixed("IOERR error or timeout reading to target instance"),
        TransferFailure::Refused(text) => {
            CommandError::quoting("ERR Target instance replied with error: ", &text, "")
        }
    }
}

/// Has the keys sent, and waits for the replies. The program is suspended meanwhile.
fn send(ctx: &mut ProgramCtx<'_>, transfer: Transfer) -> Transferred {
    let ticket = new_ticket();
    let outcome = Arc::new(Mutex::new(None));
    let worker = ctx.worker();
    let (globals, shard) = (worker.globals, worker.shard.index);
    let of_thread = Arc::clone(&outcome);
    let on_end: OnTransferred = Box::new(move |transferred| {
        *of_thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(transferred);
        globals.outside[shard].resume(ticket);
    });
    worker.send_to_peer(transfer, on_end);
    loop {
        if let Some(transferred) = outcome.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return transferred;
        }
        ctx.wait_outside(ticket);
    }
}

const PACK: Command = Command::keys("migrate-pack", 3, pack)
    .flags(flag::READONLY | flag::SKIP_MONITOR | flag::SKIP_SLOWLOG)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS)])
    .hidden()
    .docs(
        Docs::new("server", "7.0.0", "Makes the request that sends a key")
            .complexity("O(N) for a value of N bytes")
            .arguments("key#0 mode")
            .internal(),
    );

/// MIGRATE-PACK key REPLACE|KEEP. Reply: the RESTORE that makes the key on another server, as the request that is sent there;
/// null without the key. O(bytes).
fn pack(ctx: &mut Ctx<'_>) -> CommandResult {
    let key = ctx.key(1);
    let replaces = args::is(ctx.arg(2), "replace");
    let (compress, now_ms) = (ctx.shard.config.rdbcompression, ctx.shard.now_ms);

    let Some(entry) = ctx.shard.lookup_read(ctx.call, key) else {
        ctx.reply.null();
        return Ok(());
    };
    let ttl_ms = entry.expire_at_ms().map_or(0, |at_ms| (at_ms - now_ms).max(1));
    let mut payload = Vec::new();
    Writer::new(&mut payload, compress).at(KeyPlace::of(ctx.call.db, key.bytes)).value(entry.value());
    dump::seal(&mut payload, 0);

    let mut digits = itoa::Buffer::new();
    let words: [&[u8]; 5] = [b"RESTORE", key.bytes, digits.format(ttl_ms).as_bytes(), &payload, b"REPLACE"];
    let words = if replaces { &words[..] } else { &words[..4] };
    Reply::new(ctx.reply.out, Resp::V2).bulk_array(words);
    Ok(())
}

const REMOVE: Command = Command::keys("migrate-remove", -2, remove)
    .flags(flag::WRITE | flag::SKIP_MONITOR | flag::SKIP_SLOWLOG)
    .at(&[KeySpec::range(1, -1, 1, key_flag::RM | key_flag::DELETE)])
    .hidden()
    .docs(
        Docs::new("server", "7.0.0", "Removes keys that were sent")
            .complexity("That of DEL")
            .arguments("key#0...")
            .internal(),
    );

/// MIGRATE-REMOVE key [key ...]. Deletes keys that are on another server now. Reply: integer, how many there were. O(keys).
fn remove(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut count = 0;
    for at in 1..ctx.args.len() {
        let key = ctx.key(at);
        count += i64::from(ctx.shard.delete(ctx.call, key, Event::DEL));
    }
    if count > 0 && ctx.notes_effects() {
        let mut effect: Vec<&[u8]> = ctx.args.iter().collect();
        effect[0] = b"DEL";
        ctx.effect(&effect);
    }

    ctx.reply.integer(count);
    Ok(())
}
