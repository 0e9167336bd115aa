//! What arguments of several commands stand for, and how COMMAND DOCS describes them.

use crate::grid::Position;
use crate::shape::Extent;
use crate::text;
use shardis_modules_api::{Argument, ArgumentKind, Error, ModuleStr};

/// Units of length by name, in metres.
const UNITS: [(&str, f64); 4] = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];

/// A number. Errors: "ERR value is not a valid float".
fn number(argument: ModuleStr<'_>) -> Result<f64, Error> {
    // Plain decimals mean the same everywhere, and are read faster here.
    let bytes = argument.as_bytes();
    let is_plain = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-'));
    match std::str::from_utf8(bytes).map(str::parse) {
        Ok(Ok(value)) if is_plain => Ok(value),
        _ => argument.to_float(),
    }
}

/// A number, or an error that says what it should have been.
fn number_or(argument: ModuleStr<'_>, error: Error) -> Result<f64, Error> {
    number(argument).map_err(|_| error)
}

/// Longitude and latitude. Errors: one of them is no number, or outside of the grid.
pub fn position(longitude: ModuleStr<'_>, latitude: ModuleStr<'_>) -> Result<Position, Error> {
    let (longitude, latitude) = (number(longitude)?, number(latitude)?);
    Position::new(longitude, latitude).ok_or_else(|| {
        let mut message = b"ERR invalid longitude,latitude pair ".to_vec();
        text::push_plain(&mut message, longitude);
        message.push(b',');
        text::push_plain(&mut message, latitude);
        Error::new(message)
    })
}

/// A unit of length, in metres.
pub fn unit_m(name: ModuleStr<'_>) -> Result<f64, Error> {
    let unit = UNITS.iter().find(|(unit, _)| name.is_word(unit));
    unit.map(|&(_, metres)| metres)
        .ok_or(Error::from_text(c"ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// RADIUS UNIT, with the unit in metres.
pub fn radius(radius: ModuleStr<'_>, unit: ModuleStr<'_>) -> Result<(Extent, f64), Error> {
    let radius = number_or(radius, Error::from_text(c"ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(Error::from_text(c"ERR radius cannot be negative"));
    }
    Ok((Extent::Radius(radius), unit_m(unit)?))
}

/// WIDTH HEIGHT UNIT, with the unit in metres.
pub fn rectangle(
    width: ModuleStr<'_>,
    height: ModuleStr<'_>,
    unit: ModuleStr<'_>,
) -> Result<(Extent, f64), Error> {
    let width = number_or(width, Error::from_text(c"ERR need numeric width"))?;
    let height = number_or(height, Error::from_text(c"ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(Error::from_text(c"ERR height or width cannot be negative"));
    }
    Ok((Extent::Box { width, height }, unit_m(unit)?))
}

/// A word that stands alone.
pub const fn token(name: &'static str, token: &'static str) -> Argument {
    Argument { token, ..Argument::new(name, ArgumentKind::PureToken) }
}

pub const fn optional(argument: Argument) -> Argument {
    Argument { is_optional: true, ..argument }
}

pub const UNIT: Argument = Argument {
    parts: &[token("m", "M"), token("km", "KM"), token("ft", "FT"), token("mi", "MI")],
    ..Argument::new("unit", ArgumentKind::OneOf)
};

pub const KEY: Argument = Argument::new("key", ArgumentKind::Key(0));
pub const LONGITUDE: Argument = Argument::new("longitude", ArgumentKind::Double);
pub const LATITUDE: Argument = Argument::new("latitude", ArgumentKind::Double);
pub const MEMBER: Argument = Argument::new("member", ArgumentKind::String);
