//! Checks over all rows, and tables to which commands are added or from which they are removed.

use super::*;
use crate::session::FAMILIES;

fn nothing(_ctx: &mut Ctx<'_>) -> CommandResult {
    Ok(())
}

/// A row made at run time, as a module's is.
fn made(name: &str, arity: i32, subcommands: &'static [Command]) -> &'static Command {
    let row = Command::keys(name.to_string().leak(), arity, nothing).with_subcommands(subcommands);
    Box::leak(Box::new(row))
}

const SUBCOMMANDS: &[Command] = &[Command::keys("one", 2, nothing), Command::keys("two", 3, nothing)];

#[test]
fn constant_time_is_what_the_documentation_says() {
    let table = CommandTable::new(FAMILIES, &[]).unwrap();
    for entry in table.all() {
        // What a program does is not known beforehand.
        let is_documented = entry.row.docs.complexity == "O(1)" && !matches!(entry.row.run, Run::Program(_));
        assert_eq!(entry.row.is_constant_time, is_documented, "{}", entry.full_name);
    }
}

#[test]
fn other_commands_keep_their_ids_when_commands_are_added_and_removed() {
    let first = CommandTable::new(FAMILIES, &[]).unwrap();
    let table = first.with(&[made("late.a", 1, SUBCOMMANDS), made("late.b", 1, &[])]).unwrap();
    for entry in first.all() {
        assert_eq!(table.entry(entry.id).full_name, entry.full_name);
    }
    assert_eq!(table.id_count(), first.id_count() + 4);
    let id = |table: &CommandTable, name: &str| table.by_full_name(name.as_bytes()).map(|entry| entry.id);
    let (a, two) = (id(&table, "LATE.A").unwrap(), id(&table, "late.a|two").unwrap());
    let b = id(&table, "late.b").unwrap();
    assert_eq!(table.entry(two).parent, Some(a));

    let without = table.without(&[a]);
    assert_eq!((id(&without, "late.a"), id(&without, "late.b")), (None, Some(b)));
    assert_eq!(without.all().count(), first.all().count() + 1);
    assert_eq!(without.top_level().count(), first.top_level().count() + 1);
    assert_eq!(without.entry(two).full_name, "late.a|two", "calls may be under way");

    let again = without.with(&[made("late.a", 1, SUBCOMMANDS)]).unwrap();
    assert_eq!((id(&again, "late.a"), id(&again, "late.a|two")), (Some(a), Some(two)));
    let other = without.with(&[made("late.a", 2, SUBCOMMANDS)]).unwrap();
    assert_eq!(id(&other, "late.a").unwrap().index(), without.id_count());
}

#[test]
fn a_taken_name_is_refused_and_the_old_name_of_a_renamed_command_is_free() {
    let renames = [("get".to_string(), "fetch".to_string())];
    let table = CommandTable::new(FAMILIES, &renames).unwrap();
    assert!(table.with(&[made("fetch", 1, &[])]).is_err());
    assert!(table.with(&[made("late", 1, &[]), made("late", 1, &[])]).is_err());
    let table = table.with(&[made("get", 1, &[])]).unwrap();
    assert_eq!(table.lookup(b"GET").unwrap().row.arity, 1);
    assert_eq!(table.lookup(b"FETCH").unwrap().row.arity, 2);
}

#[test]
fn more_than_the_maximum_of_commands_is_refused() {
    let table = CommandTable::new(FAMILIES, &[]).unwrap();
    let room = COMMANDS_MAX - table.id_count();
    let rows: Vec<_> = (0..=room).map(|number| made(&format!("late{number}"), 1, &[])).collect();
    assert!(table.with(&rows).is_err());
    assert_eq!(table.with(&rows[1..]).unwrap().id_count(), COMMANDS_MAX);
}

#[test]
fn a_row_that_replaces_another_has_its_names_and_calls_under_way_run_by_the_old_id() {
    let renames = [("copy".to_string(), "duplicate".to_string())];
    let first = CommandTable::new(FAMILIES, &renames).unwrap();
    let replace = |name: &str| {
        let row = first.by_own_name(name.as_bytes()).unwrap().row;
        let new: &'static Command = Box::leak(Box::new(Command { categories: 77, ..*row }));
        (new, row)
    };
    let table = first.replacing(&[replace("copy"), replace("memory")]).unwrap();
    for name in ["duplicate", "memory", "memory|usage"] {
        let (old, new) =
            (first.by_full_name(name.as_bytes()).unwrap(), table.by_full_name(name.as_bytes()).unwrap());
        assert_eq!(new.plain, Some(old.id), "{name}");
        assert_eq!(table.entry(old.id).full_name, new.full_name);
        assert_eq!((old.row.name, table.name(new.id)), (new.row.name, first.name(old.id)));
    }
    assert!(table.lookup(b"copy").is_none());
    assert_eq!(table.by_own_name(b"copy").unwrap().row.categories, 77);
    assert_eq!(table.all().count(), first.all().count());
    assert_eq!(table.top_level().count(), first.top_level().count());
    assert!(table.lookup(b"get").unwrap().plain.is_none());

    let restored = table.restoring(|row| row.categories == 77 && row.name != "copy");
    assert_eq!(restored.by_own_name(b"copy").unwrap().row.categories, 77);
    let (old, back) = (first.by_own_name(b"memory").unwrap(), restored.by_own_name(b"memory").unwrap());
    assert_eq!((back.id, back.row.categories, back.plain), (old.id, old.row.categories, None));
    let usage = restored.by_full_name(b"memory|usage").unwrap();
    assert_eq!(Some(usage.id), table.by_full_name(b"memory|usage").unwrap().plain);
    assert_eq!(restored.all().count(), first.all().count());
    let taken = table.by_own_name(b"memory").unwrap().id;
    assert_eq!(table.predecessor(taken, &first), Some(old.id));
    assert_eq!(restored.predecessor(old.id, &table), Some(taken));
    assert_eq!(restored.predecessor(taken, &table), None);
    // It is the same entry that takes its place again.
    let again = restored.replacing(&[replace("memory")]).unwrap();
    assert_eq!((again.by_own_name(b"memory").unwrap().id, again.id_count()), (taken, table.id_count()));
    assert!(table.restoring(|_| true).lookup(b"duplicate").unwrap().plain.is_none());
}
