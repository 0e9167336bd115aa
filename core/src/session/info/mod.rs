//! INFO: what clients and monitors read of a server, in sections of `name:value` lines.
//!
//! Names, order and formats are those of Redis 7.0; what monitors compute from these lines depends on all three. Values
//! are sums over the shards' counters, which can be read without asking the shards. Of features that this version lacks,
//! the fields have the values which Redis shows while the feature is idle. Our own fields stand at the end of Server
//! and in sections of their own, Transactions, Programs, Shards and Holds.

mod memory;
mod sections;

pub use memory::MemoryFigures;

use crate::command::CommandResult;
use crate::command::docs::Docs;
use crate::command::table::{Command, Merge, acl, flag};
use crate::modules;
use crate::protocol::{Argv, until_nul};
use crate::session::session;
use crate::worker::{SessionCtx, SessionHandler};
use sections::Source;

pub const COMMANDS: &[Command] = &[INFO];

const INFO: Command = session("info", -1, &(info as SessionHandler))
    .flags(flag::LOADING | flag::STALE | flag::AFTER_HANDOFFS)
    .acl(acl::DANGEROUS)
    .constant_time()
    // While keys are handed to blocked clients it runs on all shards, and any shard's reply is the reply.
    .merge(Merge::With(|replies, _, out| out.extend_from_slice(replies[0])))
    .docs(
        Docs::new("server", "1.0.0", "Describes the server and tells its counters")
            .complexity("O(1)")
            .arguments("[section...]")
            .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
            .history(&[("7.0.0", "Added support for taking multiple section arguments.")]),
    );

/// When a section is shown besides being asked for by name. Each includes the ones after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Shown {
    /// With `everything`.
    Everything,
    /// With `all`.
    All,
    /// With `default`, or nothing asked for.
    Default,
}

struct Section {
    /// As its heading; asked for in any case.
    name: &'static str,
    shown: Shown,
    write: fn(&Source<'_>, &mut Lines),
}

/// In the order in which they are shown.
static SECTIONS: [Section; 17] = [
    Section { name: "Server", shown: Shown::Default, write: sections::server },
    Section { name: "Clients", shown: Shown::Default, write: sections::clients },
    Section { name: "Memory", shown: Shown::Default, write: sections::memory },
    Section { name: "Persistence", shown: Shown::Default, write: sections::persistence },
    Section { name: "Stats", shown: Shown::Default, write: sections::stats },
    Section { name: "Replication", shown: Shown::Default, write: sections::replication },
    Section { name: "CPU", shown: Shown::Default, write: sections::cpu },
    Section { name: "Modules", shown: Shown::Default, write: sections::modules },
    Section { name: "Commandstats", shown: Shown::All, write: sections::commandstats },
    Section { name: "Errorstats", shown: Shown::Default, write: sections::errorstats },
    Section { name: "Latencystats", shown: Shown::All, write: sections::latencystats },
    Section { name: "Cluster", shown: Shown::Default, write: sections::cluster },
    Section { name: "Keyspace", shown: Shown::Default, write: sections::keyspace },
    Section { name: "Transactions", shown: Shown::Everything, write: sections::transactions },
    Section { name: "Programs", shown: Shown::Everything, write: sections::programs },
    Section { name: "Shards", shown: Shown::Everything, write: sections::shards },
    Section { name: "Holds", shown: Shown::Everything, write: sections::holds },
];

/// The sections that INFO's arguments ask for, each once. Unknown names ask for nothing.
fn chosen(args: Argv<'_>) -> impl Iterator<Item = &'static Section> {
    let mut from_level = (args.len() == 1).then_some(Shown::Default);
    let mut named: Vec<&[u8]> = Vec::new();
    for name in args.iter().skip(1).map(until_nul) {
        let level = match name.to_ascii_lowercase().as_slice() {
            b"default" => Shown::Default,
            b"all" => Shown::All,
            b"everything" => Shown::Everything,
            _ => {
                named.push(name);
                continue;
            }
        };
        from_level = Some(from_level.map_or(level, |other| other.min(level)));
    }
    SECTIONS.iter().filter(move |section| {
        from_level.is_some_and(|level| section.shown >= level)
            || named.iter().any(|name| name.eq_ignore_ascii_case(section.name.as_bytes()))
    })
}

/// Which sections of modules are asked for.
#[derive(PartialEq, Eq, Debug)]
enum OfModules {
    None,
    All,
    /// Those of these names, in lower case, which are no names of the server's.
    Named(Vec<Vec<u8>>),
}

fn sections_of_modules(args: Argv<'_>) -> OfModules {
    let names = args.iter().skip(1).map(|name| until_nul(name).to_ascii_lowercase());
    let mut named = Vec::new();
    for name in names {
        match name.as_slice() {
            b"everything" | b"modules" => return OfModules::All,
            b"default" | b"all" => {}
            _ if SECTIONS.iter().any(|section| section.name.as_bytes().eq_ignore_ascii_case(&name)) => {}
            _ => named.push(name),
        }
    }
    if named.is_empty() { OfModules::None } else { OfModules::Named(named) }
}

/// INFO [section ...]. Reply: text. O(shards x commands) at most.
fn info(ctx: &mut SessionCtx<'_>) -> CommandResult {
    // What this turn has changed so far; other shards' changes are published by now.
    ctx.worker.publish();
    let source = Source::new(ctx.worker);
    let mut lines = Lines(Vec::new());

    for section in chosen(ctx.args) {
        lines.heading(section.name);
        (section.write)(&source, &mut lines);
    }

    match sections_of_modules(ctx.args) {
        OfModules::None => {}
        OfModules::All => modules::info::append(&mut lines.0, None),
        OfModules::Named(names) => modules::info::append(&mut lines.0, Some(&names)),
    }

    ctx.reply.verbatim("txt", &lines.0);
    Ok(())
}

/// INFO's text as it grows.
struct Lines(Vec<u8>);

impl Lines {
    fn heading(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.extend_from_slice(b"\r\n");
        }
        self.0.extend_from_slice(b"# ");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }

    fn field(&mut self, name: impl std::fmt::Display, value: impl std::fmt::Display) {
        use std::io::Write;
        write!(self.0, "{name}:{value}\r\n").expect("memory takes all");
    }

    /// A field whose value has bytes of a client.
    fn field_of_bytes(&mut self, name: impl std::fmt::Display, value: &[u8]) {
        self.field(name, "");
        let end = self.0.len() - b"\r\n".len();
        self.0.splice(end..end, value.iter().copied());
    }

    /// Fields of features that are idle, or not there yet.
    fn fixed<V: std::fmt::Display>(&mut self, fields: &[(&str, V)]) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn names(args: &[&str]) -> String {
        let args = OwnedArgv::from_slices(args);
        chosen(args.as_argv()).map(|section| section.name).collect::<Vec<_>>().join(" ")
    }

    const DEFAULT: &str =
        "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace";
    const ALL: &str = "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats \
                       Latencystats Cluster Keyspace";

    #[test]
    fn sections_are_chosen_by_name_or_by_group_and_shown_once_in_order() {
        assert_eq!(names(&["INFO"]), DEFAULT);
        assert_eq!(names(&["INFO", "default"]), DEFAULT);
        assert_eq!(names(&["INFO", "ALL"]), ALL);
        assert_eq!(names(&["INFO", "everything"]), format!("{ALL} Transactions Programs Shards Holds"));
        assert_eq!(names(&["INFO", "keyspace", "cpu", "CPU", "sentinel"]), "CPU Keyspace");
        assert_eq!(names(&["INFO", "cpu", "default"]), DEFAULT);
        assert_eq!(names(&["INFO", "all", "default"]), ALL);
        assert_eq!(names(&["INFO", "nosuch"]), "");
    }

    #[test]
    fn sections_of_modules_are_asked_for_by_name_or_all_together() {
        let of = |args: &[&str]| sections_of_modules(OwnedArgv::from_slices(args).as_argv());
        assert_eq!(of(&["INFO"]), OfModules::None);
        assert_eq!(of(&["INFO", "all", "Keyspace"]), OfModules::None);
        assert_eq!(of(&["INFO", "cpu", "Modules"]), OfModules::All);
        assert_eq!(of(&["INFO", "everything"]), OfModules::All);
        assert_eq!(of(&["INFO", "cpu", "Mod_X"]), OfModules::Named(vec![b"mod_x".to_vec()]));
    }

    #[test]
    fn sections_are_apart_by_an_empty_line() {
        let mut lines = Lines(Vec::new());
        lines.heading("A");
        lines.field("x", 1);
        lines.heading("B");
        lines.fixed(&[("y", "z")]);
        assert_eq!(lines.0, b"# A\r\nx:1\r\n\r\n# B\r\ny:z\r\n");
    }
}
