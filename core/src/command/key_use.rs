//! What the analysis of scripts is told of commands: which of their arguments may be keys, and whether they write.
//!
//! Only part of the arguments is known to it. So a command is told of only if its key specs alone name its keys, all of them in the
//! selected database, whatever the unknown arguments are.

use crate::command::keys::{BeginSearch, FindKeys, KeySpec, key_flag};
use crate::command::table::{Command, CommandTable, Scope, flag};
use shardis_scripting::{Begin, CallFacts, Commands, Find, KeyGroup};

/// With an option, its second key is in another database.
const COPY: &str = "copy";

impl Commands for CommandTable {
    fn facts(&self, args: &[Option<&[u8]>], is_complete: bool) -> Option<CallFacts> {
        let entry = self.lookup((*args.first()?)?)?;
        let entry = match args.get(1) {
            _ if entry.row.subcommands.is_empty() => entry,
            // Without its subcommand a container does nothing.
            None if is_complete => {
                return Some(CallFacts { keys: Vec::new(), writes: false, publishes: false });
            }
            sub => self.subcommand(entry, (*sub?)?)?,
        };
        // A script that keeps to its keys calls a command as it was before its row was replaced.
        let row = entry.plain.map_or(entry.row, |plain| self.entry(plain).row);
        let keys = key_groups(row, args, is_complete)?;
        let publishes = row.has(flag::PUBSUB);
        Some(CallFacts { keys, writes: row.has(flag::WRITE | flag::MAY_REPLICATE), publishes })
    }
}

fn key_groups(row: &Command, args: &[Option<&[u8]>], is_complete: bool) -> Option<Vec<KeyGroup>> {
    let names_all_keys = match row.scope {
        // What a module's command touches is known to the module alone.
        Scope::Keys => !row.has(flag::TOUCHES_ARBITRARY_KEYS | flag::MODULE),
        Scope::Session => row.selects.is_none(),
        Scope::Every(_)
        | Scope::Shard(_)
        | Scope::Walk { .. }
        | Scope::Watch
        | Scope::Multi
        | Scope::Exec
        | Scope::Custom(_) => false,
    };
    let plain_len = if row.name == COPY { Some(3) } else { row.derived_keys.map(|_| 2) };
    let is_plain = plain_len.is_none_or(|len| is_complete && args.len() <= len);
    if !names_all_keys || !is_plain || row.unlisted_key.is_some() || row.other_db.is_some() {
        return None;
    }
    if plain_len == Some(2) {
        // The specs of SORT name what its options would.
        return key_group(&row.keys[0]).map(|group| vec![group]);
    }
    let specs = row.keys.iter().filter(|spec| spec.flags & key_flag::NOT_KEY == 0);
    specs.map(key_group).collect()
}

fn key_group(spec: &KeySpec) -> Option<KeyGroup> {
    let begin = match spec.begin {
        BeginSearch::Index(at) => Begin::Index(at),
        BeginSearch::Keyword { keyword, from } => Begin::Keyword { keyword, from },
        BeginSearch::Unknown => return None,
    };
    let find = match spec.find {
        FindKeys::Range { last, step, limit } => Find::Range { last, step, limit },
        FindKeys::KeyNum { at, first, step } => Find::Count { at, first, step },
        FindKeys::Unknown => return None,
    };
    (spec.flags & key_flag::INCOMPLETE == 0).then_some(KeyGroup { begin, find })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::FAMILIES;
    use shardis_scripting::script_key_use;

    #[test]
    fn commands_are_known_by_their_key_specs() {
        let table = CommandTable::new(FAMILIES, &[]).expect("nothing is renamed");
        for (source, wide) in [
            ("redis.call('SET', KEYS[1], 1, 'EX', ARGV[1])", None),
            ("redis.call('OBJECT', 'ENCODING', KEYS[1])", None),
            ("redis.call('XGROUP', 'CREATE', KEYS[1], 'g', '$')", None),
            ("redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'STREAMS', KEYS[1], '>')", None),
            ("redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[2], KEYS[3], 'AGGREGATE', ARGV[1])", None),
            ("redis.call('TIME') redis.call('ECHO', ARGV[1]) redis.call('PING')", None),
            ("redis.call('COPY', KEYS[1], KEYS[2])", None),
            ("redis.call('SORT', KEYS[1])", None),
            ("redis.call('OBJECT')", None),
            ("redis.call('COPY', KEYS[1], KEYS[2], 'DB', 1)", Some("COPY may touch any key")),
            ("redis.call('MOVE', KEYS[1], 1)", Some("MOVE may touch any key")),
            ("redis.call('SORT', KEYS[1], 'BY', 'w_*')", Some("SORT may touch any key")),
            ("redis.call('SORT', KEYS[1], 'STORE', KEYS[2])", Some("SORT may touch any key")),
            ("redis.call('SELECT', 1)", Some("SELECT may touch any key")),
            ("redis.call('RANDOMKEY')", Some("RANDOMKEY may touch any key")),
            ("redis.call('SCAN', 0)", Some("SCAN may touch any key")),
            ("redis.call('KEYS', '*')", Some("KEYS may touch any key")),
            ("redis.call('DBSIZE')", Some("DBSIZE may touch any key")),
            ("redis.call('FLUSHALL')", Some("FLUSHALL may touch any key")),
            ("redis.call('SWAPDB', 0, 1)", Some("SWAPDB may touch any key")),
            ("redis.call('DEBUG', 'OBJECT', KEYS[1])", Some("DEBUG may touch any key")),
            ("redis.call('OBJECT', ARGV[1], KEYS[1])", Some("OBJECT may touch any key")),
            ("redis.call('OBJECT', unpack(ARGV))", Some("OBJECT may touch any key")),
            ("redis.call('nosuch')", Some("nosuch may touch any key")),
            ("redis.call('SUNIONSTORE', KEYS[1], 'x')", None),
            ("redis.call('SUNIONSTORE', KEYS[1], ARGV[#ARGV])", Some("has a key")),
            ("redis.call('XREAD', 'STREAMS', KEYS[1], 'x' .. ARGV[1] + 1, 0, 0)", Some("has a key")),
        ] {
            let found = script_key_use(source.as_bytes(), &table).wide.map(|reason| reason.to_string());
            let is_as_expected = match (wide, &found) {
                (None, None) => true,
                (Some(wide), Some(found)) => found.contains(wide),
                (None, Some(_)) | (Some(_), None) => false,
            };
            assert!(is_as_expected, "{source}: {found:?}");
        }
    }

    #[test]
    fn a_row_that_replaces_another_is_judged_as_that() {
        let table = CommandTable::new(FAMILIES, &[]).expect("nothing is renamed");
        let replaced = ["copy", "flushall"].map(|name| {
            let row = table.lookup(name.as_bytes()).expect("it is there").row;
            let new: &'static Command = Box::leak(Box::new(Command { scope: Scope::Keys, ..*row }));
            (new, row)
        });
        let table = table.replacing(&replaced).expect("there is room");
        let is_narrow = |source: &str| script_key_use(source.as_bytes(), &table).wide.is_none();
        assert!(is_narrow("redis.call('COPY', KEYS[1], KEYS[2])"));
        assert!(!is_narrow("redis.call('FLUSHALL')"));
    }

    #[test]
    fn no_row_escapes_the_specs() {
        let table = CommandTable::new(FAMILIES, &[]).expect("nothing is renamed");
        let mut narrow_count = 0;
        for entry in table.all() {
            let name = entry.full_name.split('|').map(|part| Some(part.as_bytes()));
            let args: Vec<Option<&[u8]>> = name.chain([None; 3]).collect();
            let Some(facts) = table.facts(&args, false) else { continue };
            narrow_count += 1;
            let row = entry.row;
            let real_keys = row.keys.iter().filter(|spec| spec.flags & key_flag::NOT_KEY == 0).count();
            assert_eq!(facts.keys.len(), real_keys, "{}", entry.full_name);
            assert!(row.derived_keys.is_none() && row.other_db.is_none(), "{}", entry.full_name);
        }
        assert!(narrow_count > 100, "most commands are known");
    }
}
