//! SORT and SORT_RO: the elements of a list, a set or a sorted set in another order.
//!
//! `options` reads the arguments, `elements` has the elements and puts them in order, `pattern` are BY's and GET's names of
//! other keys. Those keys may be on any shard, and are known only after a look at the elements: they are *derived keys* of
//! the row ([`DerivedKeys`]), which have been brought here when the handler runs.
//!
//! Nothing is changed by it, unlike in Redis, which makes a small sorted set that is sorted into a big one.

mod elements;
mod options;
mod pattern;

use crate::command::docs::Docs;
use crate::command::keys::{BeginSearch, FindKeys, KeyPositions, KeySpec, key_flag};
use crate::command::table::{Command, DerivedKeys, acl, flag};
use crate::command::{CommandError, CommandResult, Ctx};
use crate::protocol::Argv;
use crate::shard::event::Event;
use crate::types::list::{End, List};
use crate::types::listpack::Item;
use crate::types::{Collection, SetExpire, ValueRef, ValueType};
use elements::{Elements, Weights};
use options::{Options, Storing};
use pattern::Pattern;
use std::ops::Range;

pub const COMMANDS: &[Command] = &[SORT, SORT_RO];

/// What key specs cannot tell: where it stands depends on other arguments, or on what is sorted.
const fn somewhere(flags: u32, notes: &'static str) -> KeySpec {
    KeySpec { flags, begin: BeginSearch::Unknown, find: FindKeys::Unknown, notes }
}

const PATTERNS: KeySpec = somewhere(
    key_flag::RO | key_flag::ACCESS,
    "Of BY and GET: the names of these keys depend on the elements that are sorted",
);
const DESTINATION: KeySpec =
    somewhere(key_flag::OW | key_flag::UPDATE, "Of STORE, which may stand anywhere among the arguments");

const SORT: Command = Command::keys("sort", -2, sort)
    .flags(flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS)
    .acl(acl::SET | acl::SORTEDSET | acl::LIST | acl::DANGEROUS)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS), PATTERNS, DESTINATION])
    .find_keys(sort_keys)
    .derived_keys(DerivedKeys { are_asked: sort_derives_keys, refusal: options::refusal, find: sort_derived_keys })
    .docs(
        Docs::new("generic", "1.0.0", "Sorts the elements of a list, a set or a sorted set, and may store the result")
            .complexity("O(N+M*log(M)) for N elements of which M are returned, O(N) where nothing is sorted")
            .arguments(
                "key#0 [BY pattern:pattern#1] [LIMIT offset_count{offset:int count:int}] [GET pattern:pattern#1...+] [order(ASC | DESC)] [sorting(ALPHA)] [STORE destination#2]",
            ),
    );

const SORT_RO: Command = Command::keys("sort_ro", -2, sort_ro)
    .flags(flag::READONLY | flag::MOVABLEKEYS)
    .acl(acl::SET | acl::SORTEDSET | acl::LIST | acl::DANGEROUS)
    .at(&[KeySpec::one(1, key_flag::RO | key_flag::ACCESS), PATTERNS])
    .find_keys(sort_ro_keys)
    .derived_keys(DerivedKeys { are_asked: sort_ro_derives_keys, refusal: options::refusal, find: sort_ro_derived_keys })
    .docs(
        Docs::new("generic", "7.0.0", "Sorts the elements of a list, a set or a sorted set")
            .complexity("O(N+M*log(M)) for N elements of which M are returned, O(N) where nothing is sorted")
            .arguments(
                "key#0 [BY pattern:pattern#1] [LIMIT offset_count{offset:int count:int}] [GET pattern:pattern#1...+] [order(ASC | DESC)] [sorting(ALPHA)]",
            ),
    );

fn sort_keys(args: Argv<'_>, found: &mut KeyPositions) {
    sort_ro_keys(args, found);
    if let Some(destination) = options::destination(args) {
        found.push((destination, key_flag::OW | key_flag::UPDATE));
    }
}

fn sort_ro_keys(args: Argv<'_>, found: &mut KeyPositions) {
    if args.len() > 1 {
        found.push((1, key_flag::RO | key_flag::ACCESS));
    }
}

fn sort_derives_keys(args: Argv<'_>) -> bool {
    Options::parse(args, Storing::Taken).is_ok_and(|options| options.names_keys())
}

fn sort_ro_derives_keys(args: Argv<'_>) -> bool {
    Options::parse(args, Storing::Refused).is_ok_and(|options| options.names_keys())
}

fn sort_derived_keys(ctx: &mut Ctx<'_>) -> Vec<Vec<u8>> {
    Options::parse(ctx.args, Storing::Taken).map_or(Vec::new(), |options| derived_keys(ctx, &options))
}

fn sort_ro_derived_keys(ctx: &mut Ctx<'_>) -> Vec<Vec<u8>> {
    Options::parse(ctx.args, Storing::Refused).map_or(Vec::new(), |options| derived_keys(ctx, &options))
}

/// The keys that BY and GET name for the elements that are there now.
fn derived_keys(ctx: &mut Ctx<'_>, options: &Options<'_>) -> Vec<Vec<u8>> {
    let now_ms = ctx.shard.now_ms;
    let entry = ctx.shard.lookup_stored(ctx.call.db, ctx.key(1)).filter(|entry| !entry.is_expired(now_ms));
    let Some(value) = entry.map(|entry| entry.value()).filter(|&value| is_sortable(value)) else {
        return Vec::new();
    };
    let how = options.how(value.value_type(), ctx.call.in_script);
    let mut elements = Elements::load(value, &how);
    let weights = options.by.filter(|by| how.sorts && !how.by_element && by.names_keys());
    // Without weights of other keys the order is known already, and so is which elements are returned.
    let can_order = weights.is_none() && elements.weigh_by_themselves(&how).is_ok();
    if can_order {
        elements.order(&how);
    }

    let mut names = Vec::new();
    let mut add = |pattern: &Pattern<'_>, elements: &Elements, window: Range<usize>| {
        for at in window {
            let mut name = Vec::new();
            if pattern.name(elements.text(at), &mut name) {
                names.push(name);
            }
        }
    };
    if let Some(by) = weights {
        add(&by, &elements, 0..elements.len());
    }
    let window = if can_order { elements.window(&how) } else { 0..elements.len() };
    options.get.iter().for_each(|get| add(get, &elements, window.clone()));
    names
}

fn is_sortable(value: ValueRef<'_>) -> bool {
    matches!(value.value_type(), ValueType::List | ValueType::Set | ValueType::ZSet)
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE destination]. Sorts the elements
/// of a list, set or sorted set as numbers, with ALPHA as bytes; BY sorts by the values of keys named after the elements (a
/// pattern without `*`: not at all), GET returns such values, `#` the element. Reply: array of the elements, or of the
/// values, with null for one that is not there; with STORE, integer, the length of the list that was stored; an empty one
/// deletes the destination. Errors: WRONGTYPE; syntax; LIMIT no integers; an element or weight that is no number. O(N + M
/// log M).
fn sort(ctx: &mut Ctx<'_>) -> CommandResult {
    let options = Options::parse(ctx.args, Storing::Taken)?;
    run(ctx, &options)
}

/// SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]. As SORT without STORE.
fn sort_ro(ctx: &mut Ctx<'_>) -> CommandResult {
    let options = Options::parse(ctx.args, Storing::Refused)?;
    run(ctx, &options)
}

fn run(ctx: &mut Ctx<'_>, options: &Options<'_>) -> CommandResult {
    let key = ctx.key(1);
    let value = ctx.shard.lookup_read(ctx.call, key).map(|entry| entry.value());
    if value.is_some_and(|value| !is_sortable(value)) {
        return Err(CommandError::WRONG_TYPE);
    }
    let how = options.how(value.map_or(ValueType::List, ValueRef::value_type), ctx.call.in_script);
    let mut elements = value.map_or_else(Elements::default, |value| Elements::load(value, &how));

    if how.sorts {
        match options.by.filter(|_| !how.by_element) {
            Some(by) => weigh_by_keys(ctx, &mut elements, &by, how.is_alpha)?,
            None => elements.weigh_by_themselves(&how)?,
        }
        elements.order(&how);
    }
    let window = elements.window(&how);
    match options.store {
        Some(destination) => store(ctx, &elements, window, &options.get, destination),
        None => reply(ctx, &elements, window, &options.get),
    }
    Ok(())
}

/// Gives each element the weight that BY's key has. One that is not there counts as 0, or as less than any text.
fn weigh_by_keys(
    ctx: &mut Ctx<'_>,
    elements: &mut Elements,
    by: &Pattern<'_>,
    is_alpha: bool,
) -> CommandResult {
    let mut name = Vec::new();
    let mut weights = Weights::default();
    for at in 0..elements.len() {
        by.look_up(ctx.shard, ctx.call, elements.text(at), &mut name, |weight| match is_alpha {
            true => {
                weights.push_text(weight);
                Ok(())
            }
            false => weights.push_number(weight),
        })?;
    }
    elements.weigh(weights);
    Ok(())
}

fn reply(ctx: &mut Ctx<'_>, elements: &Elements, window: Range<usize>, get: &[Pattern<'_>]) {
    ctx.reply.array(window.len() * get.len().max(1));
    let mut name = Vec::new();
    for at in window {
        let element = elements.text(at);
        if get.is_empty() {
            ctx.reply.bulk(element);
        }
        for pattern in get {
            let reply = &mut ctx.reply;
            pattern.look_up(ctx.shard, ctx.call, element, &mut name, |value| match value {
                Some(value) => reply.bulk(value),
                None => reply.null(),
            });
        }
    }
}

fn store(
    ctx: &mut Ctx<'_>,
    elements: &Elements,
    window: Range<usize>,
    get: &[Pattern<'_>],
    destination: usize,
) {
    let mut list = List::new(super::list::limits(ctx.shard));
    let mut name = Vec::new();
    for at in window {
        let element = elements.text(at);
        if get.is_empty() {
            list.push(End::Tail, Item::of(element));
        }
        for pattern in get {
            // What is not there is stored as an empty element.
            let push = |value: Option<&[u8]>| list.push(End::Tail, Item::of(value.unwrap_or_default()));
            pattern.look_up(ctx.shard, ctx.call, element, &mut name, push);
        }
    }
    let key = ctx.key(destination);
    let len = list.len();
    match list.into_value() {
        Some(value) => {
            ctx.shard.set(ctx.call, key, value.into(), SetExpire::Clear, Event::SORTSTORE);
            ctx.shard.changed(len as u64 - 1);
        }
        None => {
            ctx.shard.delete(ctx.call, key, Event::DEL);
        }
    }
    ctx.reply.integer(len as i64);
}
