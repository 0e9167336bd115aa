//! Finds the end of a value without reading it: whoever takes a file apart hands the values over as they are.

use super::read::{ReadError, ReadResult, Reader};
use super::{ValueKind, container};

/// Moves behind a value. Only what is needed to find its end is checked.
pub fn skip_value(reader: &mut Reader<'_>, kind: ValueKind) -> ReadResult<()> {
    match kind {
        ValueKind::String
        | ValueKind::HashZipmap
        | ValueKind::ListZiplist
        | ValueKind::SetIntset
        | ValueKind::ZSetZiplist
        | ValueKind::HashZiplist
        | ValueKind::HashListpack
        | ValueKind::ZSetListpack
        | ValueKind::SetListpack => skip_strings(reader, 1),
        ValueKind::List | ValueKind::Set | ValueKind::ListQuicklist => {
            let count = reader.length()?;
            skip_strings(reader, count)
        }
        ValueKind::Hash => {
            let count = reader.length()?;
            skip_strings(reader, count)?;
            skip_strings(reader, count)
        }
        ValueKind::ZSet => repeat(reader, |reader| {
            skip_strings(reader, 1)?;
            reader.text_double().map(drop)
        }),
        ValueKind::ZSet2 => repeat(reader, |reader| {
            skip_strings(reader, 1)?;
            reader.double().map(drop)
        }),
        ValueKind::ListQuicklist2 => repeat(reader, |reader| match reader.length()? {
            container::PLAIN | container::PACKED => skip_strings(reader, 1),
            _ => Err(reader.damaged("Quicklist integrity check failed: an unknown container")),
        }),
        ValueKind::Stream | ValueKind::Stream2 | ValueKind::Stream3 => skip_stream(reader, kind),
        ValueKind::Module2 => super::module::skip_value(reader),
    }
}

fn skip_strings(reader: &mut Reader<'_>, count: u64) -> ReadResult<()> {
    skip_all(reader, count, |reader| reader.string().map(drop))
}

fn skip_lengths(reader: &mut Reader<'_>, count: usize) -> ReadResult<()> {
    for _ in 0..count {
        reader.length()?;
    }
    Ok(())
}

/// Skips what a count says is there.
fn repeat(reader: &mut Reader<'_>, skip: impl FnMut(&mut Reader<'_>) -> ReadResult<()>) -> ReadResult<()> {
    let count = reader.length()?;
    skip_all(reader, count, skip)
}

/// How far ahead of what is needed for certain a guess may go.
const GUESSED_BYTES_MAX: usize = 64 << 20;

/// Skips so many elements. If they are not all there, the error tells the length that they probably have, by those that are
/// there: a long collection would otherwise be gone over many times while the window grows.
fn skip_all(
    reader: &mut Reader<'_>,
    count: u64,
    mut skip: impl FnMut(&mut Reader<'_>) -> ReadResult<()>,
) -> ReadResult<()> {
    let start = reader.position();
    for done in 0..count {
        skip(reader).map_err(|error| match error {
            ReadError::Incomplete { len_min } if done > 0 => {
                let so_far = len_min.saturating_sub(start) as u64;
                let rest = (so_far / done).saturating_mul(count - done);
                let guessed = usize::try_from(rest.saturating_add(rest / 32))
                    .unwrap_or(usize::MAX)
                    .min(GUESSED_BYTES_MAX);
                ReadError::Incomplete { len_min: len_min.saturating_add(guessed) }
            }
            error => error,
        })?;
    }
    Ok(())
}

/// As `stream` describes it.
fn skip_stream(reader: &mut Reader<'_>, kind: ValueKind) -> ReadResult<()> {
    let (has_counters, has_active_time) = (kind != ValueKind::Stream, kind == ValueKind::Stream3);
    repeat(reader, |reader| skip_strings(reader, 2))?;
    skip_lengths(reader, if has_counters { 8 } else { 3 })?;
    repeat(reader, |reader| {
        skip_strings(reader, 1)?;
        skip_lengths(reader, if has_counters { 3 } else { 2 })?;
        repeat(reader, |reader| {
            reader.take(16 + 8)?;
            skip_lengths(reader, 1)
        })?;
        repeat(reader, |reader| {
            skip_strings(reader, 1)?;
            reader.take(if has_active_time { 16 } else { 8 })?;
            repeat(reader, |reader| reader.take(16).map(drop))
        })
    })
}
