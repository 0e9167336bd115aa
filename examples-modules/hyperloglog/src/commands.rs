//! PFADD, PFCOUNT and PFMERGE.

use crate::registers::{self, DENSE_LEN_BYTES, Dense, REGISTER_COUNT, Registers};
use crate::string::{self, Content, Growable, Refusal};
use crate::{GROUP, estimate, sparse_len_max_bytes};
use shardis_modules_api::{
    Args, Argument, ArgumentKind, Command, CommandResult, Context, Error, Key, KeyFlags, KeySpec, ModuleStr,
    NotifyClass, Row, StringMut, WriteKey,
};

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Foreign => Error::from_text(c"WRONGTYPE Key is not a valid HyperLogLog string value."),
            Refusal::Corrupted => Error::from_text(c"INVALIDOBJ Corrupted HLL object detected"),
        }
    }
}

/// The string of a key, in place.
pub struct InKey<'k>(StringMut<'k>);

impl Growable for InKey<'_> {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn resize(&mut self, len_bytes: usize) {
        // The least limit that a server can be given is 1 MB.
        self.0.resize(len_bytes).expect("a HyperLogLog is shorter than any limit on strings");
    }
}

impl InKey<'_> {
    /// Errors: WRONGTYPE.
    pub fn of<'k>(key: &'k mut WriteKey<'_>) -> Result<InKey<'k>, Error> {
        // Bytes to write to change the encoding of a number, and a command that fails changes nothing.
        if key.string()?.is_some_and(|string| !string::has_header(string)) {
            return Err(Refusal::Foreign.into());
        }
        Ok(InKey(key.string_mut()?))
    }

    /// The string of a key, with a HyperLogLog without elements put there if there is none. Gives whether that was so.
    /// Errors: WRONGTYPE.
    fn made<'k>(key: &'k mut WriteKey<'_>) -> Result<(InKey<'k>, bool), Error> {
        let is_new = key.is_empty();
        let mut string = InKey::of(key)?;
        if is_new {
            let empty = string::empty();
            string.resize(empty.len());
            string.bytes_mut().copy_from_slice(&empty);
        }
        Ok((string, is_new))
    }
}

/// PFADD key [element ...]. Makes the key if there is none. Reply: integer, 1 if the key was made or a register raised.
/// Nothing is propagated otherwise. Errors: WRONGTYPE, also of a string that is no HyperLogLog; INVALIDOBJ.
/// O(elements), and O(bytes of the string) in the sparse form.
pub struct PfAdd;

impl Command for PfAdd {
    const ROW: Row = Row {
        flags: "write deny-oom fast",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::INSERT))],
        group: GROUP,
        acl_categories: "hyperloglog",
        summary: "Adds the specified elements to the specified HyperLogLog.",
        complexity: "O(1) to add every element.",
        since: "2.8.9",
        arguments: &[
            Argument::new("key", ArgumentKind::Key(0)),
            Argument {
                is_optional: true,
                is_multiple: true,
                ..Argument::new("element", ArgumentKind::String)
            },
        ],
        ..Row::new("pfadd", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let elements = args[2..].iter().map(|element| element.as_bytes());

        let mut key = ctx.open_for_writing(&args[1])?;
        let (mut string, is_new) = InKey::made(&mut key)?;

        let is_changed = string::add(&mut string, elements, sparse_len_max_bytes())? || is_new;
        if is_changed {
            string::mark_stale(string.bytes_mut());
        }
        drop(key);
        if is_changed {
            ctx.replicate_verbatim();
            ctx.notify(NotifyClass::String, c"pfadd", &args[1]);
        }

        ctx.reply().integer(is_changed.into());
        Ok(())
    }
}

/// PFCOUNT key [key ...]. Reply: integer, the estimated number of different elements of all keys together. Of a single key
/// it is kept in the string's header, which is propagated. Errors: WRONGTYPE, also of a string that is no HyperLogLog;
/// INVALIDOBJ. O(keys).
pub struct PfCount;

impl Command for PfCount {
    const ROW: Row = Row {
        flags: "readonly may-replicate",
        keys: &[KeySpec {
            notes: "RW because it may change the internal representation of the key, and propagate to replicas",
            ..KeySpec::from(1, KeyFlags::RW.and(KeyFlags::ACCESS))
        }],
        group: GROUP,
        acl_categories: "hyperloglog",
        summary: "Return the approximated cardinality of the set(s) observed by the HyperLogLog at key(s).",
        complexity: "O(1) with a very small average constant time when called with a single key. O(N) with N \
                     being the number of keys, and much bigger constant times, when called with multiple keys.",
        since: "2.8.9",
        arguments: &[Argument { is_multiple: true, ..Argument::new("key", ArgumentKind::Key(0)) }],
        ..Row::new("pfcount", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let cardinality = match &args[1..] {
            [key] => cardinality_of_one(ctx, key)?,
            keys => {
                let mut registers = [0; REGISTER_COUNT];
                merge_keys(ctx, keys, &mut registers)?;
                estimate::cardinality(&registers::histogram(&registers))
            }
        };

        ctx.reply().integer(cardinality as i64);
        Ok(())
    }
}

/// Raises each register to its greatest value in any of the keys. Gives whether one of them is dense. Errors: those of PFCOUNT.
fn merge_keys(ctx: &Context<'_>, names: &[ModuleStr<'_>], registers: &mut Registers) -> Result<bool, Error> {
    let keys = names.iter().map(|name| ctx.open(name)).collect::<Result<Vec<_>, _>>()?;
    let mut dense = Vec::with_capacity(keys.len());
    for key in &keys {
        match key.string()?.map(string::open).transpose()? {
            Some(Content::Dense(own)) => dense.push(own),
            Some(sparse) => sparse.merge_into(registers),
            None => {}
        }
    }
    registers::merge(registers, &dense);
    Ok(!dense.is_empty())
}

/// If the destination is dense, and so are all others that exist: merges these into it, where it lies. Returns whether that is
/// so. Errors: those of PFCOUNT.
fn merge_in_place<'k>(
    ctx: &'k mut Context<'_>,
    destination: &ModuleStr<'k>,
    sources: &[ModuleStr<'_>],
) -> Result<bool, Error> {
    let others: Vec<ModuleStr<'_>> = sources.iter().copied().filter(|source| source != destination).collect();
    let (mut key, keys) = ctx.open_for_writing_beside(destination, &others)?;
    let Some(Content::Dense(_)) = key.string()?.map(string::open).transpose()? else { return Ok(false) };
    let Some(dense) = all_dense(&keys)? else { return Ok(false) };
    string::merge_dense(&mut InKey::of(&mut key)?, &dense);
    Ok(true)
}

/// The same, whatever forms the keys have: in a copy of all registers, for which a command that merges in place makes no room.
#[inline(never)]
fn merge_in_copy(ctx: &mut Context<'_>, args: Args<'_>) -> Result<(), Error> {
    let mut merged = [0; DENSE_LEN_BYTES];
    if merge_dense_keys(ctx, &args[1..], &mut merged)? {
        let mut key = ctx.open_for_writing(&args[1])?;
        let (mut string, _) = InKey::made(&mut key)?;
        return Ok(string::set_all(&mut string, &merged)?);
    }
    let mut registers = [0; REGISTER_COUNT];
    let is_any_dense = merge_keys(ctx, &args[1..], &mut registers)?;
    let mut key = ctx.open_for_writing(&args[1])?;
    let (mut string, _) = InKey::made(&mut key)?;
    Ok(string::raise_all(&mut string, &registers, is_any_dense, sparse_len_max_bytes())?)
}

/// The registers of the keys that exist; `None`: one of them is not dense. Errors: those of PFCOUNT.
fn all_dense<'k>(keys: &'k [Key<'_>]) -> Result<Option<Vec<&'k Dense>>, Error> {
    let mut dense = Vec::with_capacity(keys.len());
    for key in keys {
        match key.string()?.map(string::open).transpose()? {
            Some(Content::Dense(own)) => dense.push(own),
            Some(Content::Sparse(_)) => return Ok(None),
            None => {}
        }
    }
    Ok(Some(dense))
}

/// If all the keys that exist are dense, and one does: each register's greatest value in any of them. Returns whether that
/// is so. Errors: those of PFCOUNT.
fn merge_dense_keys(ctx: &Context<'_>, names: &[ModuleStr<'_>], merged: &mut Dense) -> Result<bool, Error> {
    let keys = names.iter().map(|name| ctx.open(name)).collect::<Result<Vec<_>, _>>()?;
    let Some(dense) = all_dense(&keys)? else { return Ok(false) };
    if !dense.is_empty() {
        registers::merge_packed(merged, &dense);
    }
    Ok(!dense.is_empty())
}

fn cardinality_of_one(ctx: &mut Context<'_>, name: &ModuleStr<'_>) -> Result<u64, Error> {
    let key = ctx.open(name)?;
    let Some(bytes) = key.string()? else { return Ok(0) };
    let content = string::open(bytes)?;
    if let Some(cardinality) = string::cached_cardinality(bytes) {
        return Ok(cardinality);
    }
    let cardinality = content.cardinality();
    drop(key);

    let mut key = ctx.open_for_writing(name)?;
    string::cache_cardinality(InKey::of(&mut key)?.bytes_mut(), cardinality);
    drop(key);
    ctx.replicate_verbatim();
    Ok(cardinality)
}

/// PFMERGE destkey [sourcekey ...]. Raises each register of destkey, which is made if there is none, to the greatest of all
/// keys. Reply: OK. Errors: WRONGTYPE, also of a string that is no HyperLogLog; INVALIDOBJ. O(keys).
pub struct PfMerge;

impl Command for PfMerge {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[
            KeySpec::at(1, KeyFlags::RW.and(KeyFlags::ACCESS).and(KeyFlags::INSERT)),
            KeySpec::from(2, KeyFlags::RO.and(KeyFlags::ACCESS)),
        ],
        group: GROUP,
        acl_categories: "hyperloglog",
        summary: "Merge N different HyperLogLogs into a single one.",
        complexity: "O(N) to merge N HyperLogLogs, but with high constant times.",
        since: "2.8.9",
        arguments: &[
            Argument::new("destkey", ArgumentKind::Key(0)),
            Argument { is_multiple: true, ..Argument::new("sourcekey", ArgumentKind::Key(1)) },
        ],
        ..Row::new("pfmerge", -2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        if !merge_in_place(ctx, &args[1], &args[2..])? {
            merge_in_copy(ctx, args)?;
        }
        ctx.replicate_verbatim();
        // An event of its own for merging does not exist: it adds many elements.
        ctx.notify(NotifyClass::String, c"pfadd", &args[1]);

        ctx.reply().ok();
        Ok(())
    }
}
