//! Commands that are added and removed while the server runs.

use super::*;
use cluster::request_bytes;
use shardis_core::command::keys::{KeySpec, key_flag};
use shardis_core::command::table::{Command, CommandTable, Merge, acl, flag};
use shardis_core::command::{CommandResult, Ctx};
use shardis_core::runtime::driver::{ConnId, Events};
use shardis_core::shard::slot::shard_of;
use shardis_core::worker::IoRequest;

/// LATE.COUNT key [key ...]. Reply: integer, how many of the keys exist.
fn count(ctx: &mut Ctx<'_>) -> CommandResult {
    let there = (1..ctx.args.len()).filter(|&at| {
        let key = ctx.key(at);
        ctx.shard.exists(ctx.call.db, key)
    });
    let there = there.count();
    ctx.reply.integer(there as i64);
    Ok(())
}

const KEYS: &[KeySpec] = &[KeySpec::range(1, -1, 1, key_flag::RO)];

/// A row whose strings are only known at run time.
fn row(name: &str) -> &'static Command {
    let row = Command::keys(name.to_string().leak(), -2, count)
        .flags(flag::READONLY | flag::MODULE)
        .acl(acl::KEYSPACE)
        .at(KEYS)
        .merge(Merge::Sum);
    Box::leak(Box::new(row))
}

impl Server {
    fn change_table(&self, change: impl FnOnce(&CommandTable) -> Result<CommandTable, String>) {
        self.cluster.workers[0].globals.update_table(change).unwrap();
    }

    fn load(&self, name: &str) {
        self.change_table(|table| table.with(&[row(name)]));
    }

    fn unload(&self, name: &str) {
        self.change_table(|table| {
            let entry = table.lookup(name.as_bytes()).unwrap();
            Ok(table.without(&[entry.id]))
        });
    }
}

#[test]
fn a_command_added_at_run_time_is_called_counted_and_shown_until_it_is_removed() {
    on_one_and_three_shards(|server| {
        let unknown = "-ERR unknown command 'late.count', with args beginning with: 'a' ";
        let keys = ["a", "b", "c", "d", "e"];
        let command_count = server.call("COMMAND COUNT");
        for key in keys {
            server.expect(&[(&format!("SET {key} 1"), "+OK")]);
        }
        server.expect(&[("late.count a", unknown)]);
        assert!(!server.call("COMMAND INFO late.count").contains("late.count"));

        server.load("late.count");
        for key in keys {
            server.expect(&[(&format!("LATE.count {key}"), ":1")]);
        }
        server.expect(&[("late.count a b c d e f", ":5")]);
        server.expect(&[
            ("MULTI", "+OK"),
            ("late.count a b", "+QUEUED"),
            ("late.count c", "+QUEUED"),
            ("EXEC", "*2\r\n:2\r\n:1"),
        ]);
        assert!(
            server.call("COMMAND INFO late.count").starts_with("*1\r\n*10\r\n$10\r\nlate.count\r\n:-2\r\n")
        );
        assert_ne!(server.call("COMMAND COUNT"), command_count);
        assert!(server.call("COMMAND LIST").contains("late.count"));
        assert!(server.call("INFO commandstats").contains("cmdstat_late.count:calls=8,"));

        server.unload("late.count");
        server.expect(&[("late.count a", unknown)]);
        assert!(!server.call("COMMAND INFO late.count").contains("late.count"));
        assert_eq!(server.call("COMMAND COUNT"), command_count);
        assert!(!server.call("COMMAND LIST").contains("late.count"));
        assert!(!server.call("INFO commandstats").contains("late.count"));

        server.load("late.other");
        server.load("late.count");
        server.expect(&[("late.other a", ":1"), ("late.count a", ":1")]);
        assert!(server.call("INFO commandstats").contains("cmdstat_late.other:calls=1,"));
    });
}

/// A shard in the middle of a turn that has not adopted the new table yet gets a message that names the new command.
#[test]
fn a_message_may_name_a_command_that_was_added_during_the_turn() {
    let mut server = Server::new(2);
    let key =
        (0..).map(|number| format!("key:{number}")).find(|key| shard_of(key.as_bytes(), 2) == 0).unwrap();
    server.load("late.count");
    let [other, home] = &mut server.cluster.workers[..] else { panic!("two shards") };

    home.before_wait();
    home.begin_turn();
    home.received(ConnId::new(0, 0), &request_bytes(&["late.count", &key]));
    home.end_turn();
    let messages = home.outbox.drain().collect::<Vec<_>>();
    assert!(!messages.is_empty());
    for (_, message) in messages {
        other.deliver(1, message);
    }
    other.end_turn();
    for (_, message) in other.outbox.drain().collect::<Vec<_>>() {
        home.deliver(0, message);
    }
    home.end_turn();

    let sent = home.requests.iter().find_map(|request| match request {
        IoRequest::Send(_, bytes) => Some(&bytes[..]),
        _ => None,
    });
    assert_eq!(sent, Some(&b":0\r\n"[..]));
}
