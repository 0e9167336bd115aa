//! MONITOR: each command that runs is shown to the clients that watch all commands, by the shard that runs it, behind the
//! commands that ran there before. The lines travel as messages do: see [`crate::pubsub`].
//!
//! While nobody watches, that costs one look at a counter for a group of requests. Otherwise every command takes the way of
//! those that admission has to check, and transactions over several shards run at home, command by command.

use super::Worker;
use super::run::Invocation;
use crate::client::{Client, ClientId};
use crate::command::Call;
use crate::command::admission::ProgramKind;
use crate::command::table::{CommandEntry, flag};
use crate::protocol::inline::quote;
use crate::protocol::{Argv, OwnedArgv};
use crate::pubsub::Kind;
use crate::shard::slowlog::REDACTED;
use ahash::AHashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The home of each client, and its address as MONITOR shows it: the shard that runs a command knows only its client's number.
#[derive(Default)]
pub struct ClientAddrs(Mutex<AHashMap<ClientId, (u16, Box<str>)>>);

impl ClientAddrs {
    fn lock(&self) -> MutexGuard<'_, AHashMap<ClientId, (u16, Box<str>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, client: &Client, home: usize) {
        let shown = match client.addr.strip_suffix(":0").filter(|_| client.unix_socket) {
            Some(path) => format!("unix:{path}").into(),
            None => client.addr.as_str().into(),
        };
        self.lock().insert(client.id, (home as u16, shown));
    }

    pub(super) fn remove(&self, client: ClientId) {
        self.lock().remove(&client);
    }

    fn of(&self, client: ClientId) -> Option<Box<str>> {
        self.lock().get(&client).map(|(_, shown)| shown.clone())
    }

    /// The shard that serves a client; `None`: it is not connected.
    pub(super) fn home_of(&self, client: ClientId) -> Option<u16> {
        self.lock().get(&client).map(|&(home, _)| home)
    }
}

impl Worker {
    /// Whether clients watch all commands.
    #[inline(always)]
    pub(super) fn is_monitored(&self) -> bool {
        self.globals.directory.name_count(Kind::Commands) != 0
    }

    /// Whether clients are told of what commands do: then each of them takes the way on which that is in order. Events of keys
    /// are published even if nobody listens at the moment, but then their order is nobody's concern.
    #[inline(always)]
    pub(super) fn is_observed(&self) -> bool {
        self.is_monitored() || self.shard.observers.publishes() && self.globals.directory.has_listeners()
    }

    /// A command has run: shows it, unless it is none of those that are shown.
    #[cold]
    pub(super) fn show_command(&mut self, command: &Invocation<'_>) {
        let Invocation { entry, call, args, conn, .. } = *command;
        if entry.row.has(flag::SKIP_MONITOR | flag::ADMIN) {
            return;
        }
        // SELECT is shown with the database that it has selected.
        let caller = conn.and_then(|at| self.connections[at].as_deref());
        let db = caller.map_or(call.db, |connection| connection.client.db);
        self.show_line(entry, &Call { db, ..*call }, args);
    }

    /// The call of an EXEC, which may run on another shard, with what it takes to show the command as the client has sent it.
    pub(super) fn exec_to_show(&self, exec: &Call, args: Argv<'_>) -> Call {
        if !self.is_monitored() {
            return *exec;
        }
        let letters = args.arg(0).iter().zip(0..u8::BITS);
        let upper = letters.filter(|(letter, _)| letter.is_ascii_uppercase());
        Call { upper_letters: upper.map(|(_, at)| 1 << at).sum(), ..*exec }
    }

    /// An EXEC has run what was queued.
    #[inline]
    pub(super) fn show_exec(&mut self, exec: &Call) {
        if self.is_monitored() {
            self.show_exec_line(exec);
        }
    }

    #[cold]
    fn show_exec_line(&mut self, exec: &Call) {
        let mut name = self.table.name(exec.command).to_vec();
        for (letter, at) in name.iter_mut().zip(0..u8::BITS) {
            if exec.upper_letters >> at & 1 != 0 {
                letter.make_ascii_uppercase();
            }
        }
        self.show_line(self.table.entry(exec.command), exec, OwnedArgv::from_slices(&[name]).as_argv());
    }

    /// The running program calls a command: a script is shown before the first of them.
    #[cold]
    pub(super) fn show_running_script(&mut self, args: Argv<'_>) {
        if let Some((entry, call)) = self.take_unshown_script() {
            self.show_line(entry, &call, args);
        }
    }

    /// A program has ended that was not shown.
    #[cold]
    pub(super) fn show_program_call(
        &mut self,
        entry: &'static CommandEntry,
        kind: ProgramKind,
        call: &Call,
        args: Argv<'_>,
    ) {
        match kind {
            ProgramKind::Module | ProgramKind::Command => {
                self.show_command(&Invocation::new(entry, call, args, None))
            }
            ProgramKind::Script | ProgramKind::Function => self.show_line(entry, call, args),
        }
    }

    fn show_line(&mut self, entry: &CommandEntry, call: &Call, args: Argv<'_>) {
        let now_us = self.time.clock.wall_us();
        let caller = match call.in_script {
            true => "lua".into(),
            false => self.globals.client_addrs.of(call.client).unwrap_or_default(),
        };
        let (secs, micros) = (now_us / 1_000_000, now_us % 1_000_000);
        let mut line = format!("{secs}.{micros:06} [{} {caller}]", call.db).into_bytes();
        let secrets = (entry.row.secrets)(args);
        for (at, arg) in args.iter().enumerate() {
            line.push(b' ');
            let shown = if secrets.contains(&at) { REDACTED } else { arg };
            line.extend_from_slice(&quote(shown));
        }
        self.shard.publish_command(&line);
    }
}
