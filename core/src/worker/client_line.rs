//! One client as CLIENT LIST and CLIENT INFO describe it: a line of `name=value` fields in Redis 7.0's order, with
//! `lib-name` and `lib-ver` of 7.2 behind them.
//!
//! Some fields tell how Redis keeps a connection's bytes. Here a shard's driver receives into buffers that all its
//! connections share, and replies are written into buffers from a common stock; the fields give what comes nearest:
//!
//! - `qbuf`: bytes received and not done with. `qbuf-free`: room for more that is kept for the connection: its own
//!   buffer's, and while it is active its share of the receive buffers.
//! - `rbs`: the size of the buffer it gets for its next replies; `rbp`: the most it has filled lately.
//! - `obl`: unsent reply bytes up to one such buffer; `oll`, `omem`: what exceeds it, as Redis would keep it: in blocks of
//!   its reply list.

use std::io::Write;

use crate::client::TrackingMode;
use crate::command::gate;
use crate::command::table::{CommandEntry, CommandTable};
use crate::protocol::{Argv, Limits, Parsed, RequestParser, Resp};
use crate::pubsub::Kind;
use crate::worker::Connection;

/// The arguments of a client whose EXEC runs are those of the EXEC.
pub(super) const EXEC_LEN_BYTES: usize = "exec".len();

/// A request that CLIENT PAUSE holds.
struct HeldRequest<'t> {
    command: Option<&'t CommandEntry>,
    /// Of its arguments together.
    args_len_bytes: usize,
    request_len_bytes: usize,
}

/// The request that a connection would run if CLIENT PAUSE did not hold it. It was read once already: it breaks no limit.
fn held_request<'t>(connection: &Connection, table: &'t CommandTable) -> Option<HeldRequest<'t>> {
    let query = connection.paused_query()?;
    let limits = Limits { bulk_len_max: u64::MAX, ..Limits::default() };
    let mut ranges = Vec::new();
    let held = |args: Argv<'_>, request_len_bytes| HeldRequest {
        command: gate::named(table, args),
        args_len_bytes: args.total_len_bytes(),
        request_len_bytes,
    };
    match RequestParser::default().parse(query, &limits, &mut ranges) {
        Parsed::Request { consumed } => Some(held(Argv::new(query, &ranges), consumed)),
        Parsed::Inline { consumed, argv } => Some(held(argv.as_argv(), consumed)),
        Parsed::Empty { .. } | Parsed::Incomplete { .. } | Parsed::Error(_) => None,
    }
}

/// Appends the line of a connection, with its line end. `running_args_bytes`: the arguments of the command it is running.
/// `is_served`: it is getting what it was blocked for.
pub fn write_line(
    out: &mut Vec<u8>,
    connection: &Connection,
    table: &CommandTable,
    now_ms: i64,
    running_args_bytes: usize,
    is_served: bool,
) {
    let client = &connection.client;
    let held = held_request(connection, table);
    let (query_len_bytes, begun_args_bytes) = connection.query_len_bytes();
    let running_args_bytes = if client.executing.is_some() { EXEC_LEN_BYTES } else { running_args_bytes };
    let args_len_bytes = held.as_ref().map_or(running_args_bytes, |held| held.args_len_bytes);
    let args_len_bytes = args_len_bytes + begun_args_bytes;
    let command = held.as_ref().and_then(|held| held.command);
    let command = command.or_else(|| client.last_command.map(|id| table.entry(id)));
    let command = command.map_or("NULL", |entry| entry.full_name.as_str());
    let subscription_count = |kind| client.subscriptions.as_deref().map_or(0, |all| all.count(kind));
    let mut write = |arguments: std::fmt::Arguments<'_>| out.write_fmt(arguments).expect("memory takes all");
    write(format_args!(
        "id={} addr={} laddr={} fd={} name=",
        client.id, client.addr, client.laddr, client.fd
    ));
    write(format_args!("{}", Ascii(&client.name)));
    write(format_args!(
        " age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={}",
        (now_ms - client.created_at_ms).max(0) / 1000,
        (now_ms - client.active_at_ms).max(0) / 1000,
        flags(connection, is_served),
        client.db,
        subscription_count(Kind::Channel),
        subscription_count(Kind::Pattern),
        subscription_count(Kind::ShardChannel),
        client.queued().map_or(-1, |queued| queued.commands as i64),
    ));
    write(format_args!(
        " qbuf={} qbuf-free={} argv-mem={args_len_bytes} multi-mem={} rbs={} rbp={}",
        query_len_bytes - held.map_or(0, |held| held.request_len_bytes),
        connection.query_free_bytes(now_ms),
        client.queued().map_or(0, |queued| queued.memory_bytes),
        connection.reply_buffer_bytes(),
        connection.reply_peak_bytes(),
    ));
    write(format_args!(
        " obl={} oll={} omem={} tot-mem={} events={} cmd={command} user={} redir={} resp={}",
        connection.output_len_bytes().min(connection.reply_buffer_bytes()),
        connection.output_list_len(),
        connection.output_list_bytes(),
        connection.memory_bytes() + args_len_bytes,
        events(connection),
        String::from_utf8_lossy(&client.user().name),
        client.tracking.as_deref().map_or(-1, |tracking| tracking.redirect as i64),
        match client.resp {
            Resp::V2 => 2,
            Resp::V3 => 3,
        },
    ));
    write(format_args!(" lib-name={} lib-ver={}\n", Ascii(&client.lib_name), Ascii(&client.lib_ver)));
}

/// Text that was found to be printable ASCII when it was set.
struct Ascii<'a>(&'a [u8]);

impl std::fmt::Display for Ascii<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|&byte| std::fmt::Write::write_char(f, byte as char))
    }
}

/// One letter for each peculiarity, in Redis' order; `N` for none.
fn flags(connection: &Connection, is_served: bool) -> String {
    let client = &connection.client;
    let tracking = client.tracking.as_deref();
    let letters: String = [
        (client.monitors_since.is_some(), 'O'),
        (client.is_replica(), 'S'),
        (client.subscriptions.is_some(), 'P'),
        (client.queued().is_some(), 'x'),
        (connection.is_paused() || connection.is_blocked() && !is_served, 'b'),
        (tracking.is_some(), 't'),
        (tracking.is_some_and(|tracking| tracking.is_broken), 'R'),
        (tracking.is_some_and(|tracking| tracking.mode == TrackingMode::Broadcast), 'B'),
        (connection.is_closing(), 'c'),
        (client.unix_socket, 'U'),
        (client.no_evict, 'e'),
        (client.no_touch, 'T'),
    ]
    .iter()
    .filter_map(|&(is_set, letter)| is_set.then_some(letter))
    .collect();
    if letters.is_empty() { "N".to_string() } else { letters }
}

/// The letters that stand before `d`.
const BEFORE_D: &[u8] = b"OSPxbtRB";

/// Adds the flag `d` to a line: a key that the client watches has changed. The client's own shard does not know that of
/// the keys of others.
pub fn flag_watch_change(line: &mut Vec<u8>) {
    const NAME: &[u8] = b" flags=";
    let at = memchr::memmem::rfind(line, NAME).expect("a line has all fields") + NAME.len();
    let before = line[at..].iter().take_while(|letter| BEFORE_D.contains(letter)).count();
    match &mut line[at + before] {
        none @ b'N' => *none = b'd',
        _ => line.insert(at + before, b'd'),
    }
}

/// What the driver watches the socket for: `r`, `w`, both or nothing.
fn events(connection: &Connection) -> &'static str {
    match (connection.is_receiving(), connection.is_sending()) {
        (true, true) => "rw",
        (true, false) => "r",
        (false, true) => "w",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::session::FAMILIES;

    #[test]
    fn a_new_connection_has_all_fields_in_order() {
        let table = CommandTable::new(FAMILIES, &[]).unwrap();
        let mut client = Client::new(5, 1_000, true);
        client.addr = "127.0.0.1:50000".to_string();
        client.laddr = "127.0.0.1:6379".to_string();
        client.fd = 9;
        client.name = b"me".to_vec();
        client.lib_name = b"redis-py".to_vec();
        client.last_command = Some(table.by_full_name(b"client|list").unwrap().id);
        let connection = Connection::for_test(client);
        let mut out = Vec::new();

        write_line(&mut out, &connection, &table, 4_500, 10, false);

        let line = String::from_utf8(out).unwrap();
        let names: Vec<&str> =
            line.trim_end().split(' ').map(|field| field.split('=').next().unwrap()).collect();
        assert_eq!(
            names.join(" "),
            "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp \
             obl oll omem tot-mem events cmd user redir resp lib-name lib-ver"
        );
        assert!(line.starts_with(
            "id=5 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=9 name=me age=3 idle=3 flags=N db=0 sub=0"
        ));
        assert!(line.contains(" multi=-1 qbuf=0 qbuf-free=0 argv-mem=10 multi-mem=0 "), "{line}");
        assert!(line.ends_with(
            " events=r cmd=client|list user=default redir=-1 resp=2 lib-name=redis-py lib-ver=\n"
        ));
    }

    #[test]
    fn flags_are_letters_or_n() {
        let mut client = Client::new(1, 0, true);
        client.unix_socket = true;
        client.no_evict = true;
        assert_eq!(flags(&Connection::for_test(client), false), "Ue");
        assert_eq!(flags(&Connection::for_test(Client::new(1, 0, true)), false), "N");
        let mut client = Client::new(1, 0, true);
        client.multi = Some(Box::default());
        assert_eq!(flags(&Connection::for_test(client), false), "x");
    }

    #[test]
    fn the_flag_of_a_changed_watch_has_its_place_among_the_others() {
        for (before, after) in
            [("N", "d"), ("x", "xd"), ("Ue", "dUe"), ("xbU", "xbdU"), ("Px", "Pxd"), ("xtBU", "xtBdU")]
        {
            let mut line =
                format!("id=1 name=flags=N age=0 flags={before} db=0 lib-name=flags=N\n").into_bytes();
            flag_watch_change(&mut line);
            let expected = format!("id=1 name=flags=N age=0 flags={after} db=0 lib-name=flags=N\n");
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
