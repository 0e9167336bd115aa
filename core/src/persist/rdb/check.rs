//! What redis-check-rdb says of a file. All values are read, and none is kept.

use super::file::{CHECKSUM_VERSION_MIN, FileReader, Item, Record};
use super::module::Modules;
use super::read::ReadError;
use super::value::Limits;
use super::window::{FileError, for_each_item};
use std::io::{self, Read, Write};

/// The counts at the end.
#[derive(Default)]
struct Counts {
    keys: u64,
    expires: u64,
    expired: u64,
}

/// Where the check was when it failed: in a value of this key and kind.
struct Place {
    offset: u64,
    doing: &'static str,
    value: Option<(Vec<u8>, super::ValueKind)>,
}

/// Why the check has stopped.
enum Stop {
    File(FileError),
    Output(io::Error),
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Stop {
        Stop::File(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        Stop::File(FileError::Read(error))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// Checks a file, and writes what redis-check-rdb would. Returns where the file ends; `None` if it is not sound. What comes
/// behind, as in an append-only file, is not looked at.
///
/// # Errors
/// Those of writing.
pub fn check(source: &mut dyn Read, name: &str, now_ms: i64, out: &mut dyn Write) -> io::Result<Option<u64>> {
    writeln!(out, "[offset 0] Checking RDB file {name}")?;
    let mut counts = Counts::default();
    let mut place = Place { offset: 0, doing: "start", value: None };
    let mut reader = FileReader::new(true);
    let mut has_checksum = false;
    let outcome = for_each_item(source, &mut reader, |item, offset| {
        place = Place { offset, doing: "read-type", value: None };
        let text = |string: super::read::RdbString<'_>| {
            string.into_vec().map(|bytes| bytes.escape_ascii().to_string())
        };
        match item {
            Item::Aux { name, value } => {
                writeln!(out, "[offset {offset}] AUX FIELD {} = '{}'", text(name)?, text(value)?)?;
            }
            Item::SelectDb { db } => writeln!(out, "[offset {offset}] Selecting DB ID {db}")?,
            Item::Record(record) => check_record(&record, now_ms, &mut counts, &mut place)?,
            Item::End => {
                if has_checksum {
                    writeln!(out, "[offset {offset}] Checksum OK")?;
                }
                writeln!(out, "[offset {offset}] \\o/ RDB looks OK! \\o/")?;
            }
            Item::Header { version } => has_checksum = version >= CHECKSUM_VERSION_MIN,
            Item::ModuleAux(aux) => writeln!(out, "[offset {}] MODULE AUX for: {}", aux.offset, aux.id)?,
            Item::ResizeDb { .. } | Item::SlotInfo | Item::Library { .. } => {}
        }
        Ok(())
    });
    let end = match outcome {
        Ok(()) => Some(reader.offset()),
        Err(Stop::Output(error)) => return Err(error),
        Err(Stop::File(error)) => {
            report(&error, &place, out)?;
            None
        }
    };
    writeln!(out, "[info] {} keys read", counts.keys)?;
    writeln!(out, "[info] {} expires", counts.expires)?;
    writeln!(out, "[info] {} already expired", counts.expired)?;
    Ok(end)
}

/// Reads a key's value.
fn check_record(
    record: &Record<'_>,
    now_ms: i64,
    counts: &mut Counts,
    place: &mut Place,
) -> Result<(), Stop> {
    let key = record.key.into_vec()?;
    *place = Place { offset: record.offset, doing: "read-object-value", value: Some((key, record.kind)) };
    match record.read_value(&Limits::default(), &Modules::none()) {
        // A server leaves out a collection without elements. What a module has written was walked when its end was looked
        // for, and no more is known of it here.
        Ok(_) | Err(ReadError::EmptyKey | ReadError::NoModule { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    place.offset += record.value.len() as u64;
    place.doing = "read-type";
    place.value = None;
    counts.keys += 1;
    if let Some(at_ms) = record.expire_at_ms {
        counts.expires += 1;
        counts.expired += u64::from(at_ms < now_ms);
    }
    Ok(())
}

fn report(error: &FileError, place: &Place, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "--- RDB ERROR DETECTED ---")?;
    let (what, doing) = match error {
        FileError::Truncated { .. } => ("Unexpected EOF reading RDB file".to_owned(), place.doing),
        FileError::Read(ReadError::Checksum { .. }) => ("RDB CRC error".to_owned(), "check-sum"),
        FileError::Read(ReadError::Version { version, .. }) => {
            (format!("Can't handle RDB format version {version}"), place.doing)
        }
        FileError::Read(_) | FileError::Io(_) => (error.to_string(), place.doing),
    };
    writeln!(out, "[offset {}] {what}", place.offset)?;
    writeln!(out, "[additional info] While doing: {doing}")?;
    if let Some((key, kind)) = &place.value {
        writeln!(out, "[additional info] Reading key '{}'", key.escape_ascii())?;
        writeln!(out, "[additional info] Reading type {} ({})", *kind as u8, kind.name())?;
    }
    Ok(())
}
