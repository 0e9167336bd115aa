//! The commands of Redis 7.0.15 that this version does not have yet, as far as rules are about them: rules and ACL files that
//! name them are those of Redis, and are kept and shown as Redis does. Nobody can call them, or see them by COMMAND.
//!
//! ACL CAT lists them, too, for it tells what a rule about a category is about. To ACL DRYRUN there is no such command, as to
//! whoever calls it.

use crate::command::table::{Command, flag};

pub const COMMANDS: &[Command] = &[absent("cluster", 0).with_subcommands(CLUSTER)];

const CLUSTER: &[Command] = &[
    absent("addslots", flag::ADMIN),
    absent("addslotsrange", flag::ADMIN),
    absent("bumpepoch", flag::ADMIN),
    absent("count-failure-reports", flag::ADMIN),
    absent("countkeysinslot", 0),
    absent("delslots", flag::ADMIN),
    absent("delslotsrange", flag::ADMIN),
    absent("failover", flag::ADMIN),
    absent("flushslots", flag::ADMIN),
    absent("forget", flag::ADMIN),
    absent("getkeysinslot", 0),
    absent("help", 0),
    absent("info", 0),
    absent("keyslot", 0),
    absent("links", 0),
    absent("meet", flag::ADMIN),
    absent("myid", 0),
    absent("nodes", 0),
    absent("replicas", flag::ADMIN),
    absent("replicate", flag::ADMIN),
    absent("reset", flag::ADMIN),
    absent("saveconfig", flag::ADMIN),
    absent("set-config-epoch", flag::ADMIN),
    absent("setslot", flag::ADMIN),
    absent("shards", 0),
    absent("slaves", flag::ADMIN),
    absent("slots", 0),
];

const fn absent(name: &'static str, flags: u64) -> Command {
    Command::container(name, &[]).flags(flags).absent()
}
