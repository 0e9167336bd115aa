//! Values of modules, and data of modules that belongs to no key.
//!
//! ```text
//! value   type id  { opcode what it says }  EOF
//! data    type id  UINT when  { opcode what it says }  EOF
//! ```
//!
//! Type ids and opcodes are written as lengths. What a module writes is tagged with opcodes, so it can be walked without the
//! module: that is how files are taken apart and checked. The module reads it on the shard that owns the key or, if it may not
//! do so on several at the same time, on the thread that takes the file apart.

use super::read::{ModuleData, ReadError, ReadResult, Reader};
use super::write::Writer;
use super::{ValueKind, opcode};
use crate::types::module::{
    AuxPlace, KeyPlace, LoadSource, ModulePtr, ModuleType, ModuleTypeId, ModuleTypes, ModuleValue, SaveSink,
};
use crate::types::{Object, OwnedValue};

/// What comes next of what a module has written.
mod tag {
    pub(super) const EOF: u64 = 0;
    /// Never written by Redis, whose modules' signed numbers are unsigned ones of the same bits.
    pub(super) const SINT: u64 = 1;
    pub(super) const UINT: u64 = 2;
    pub(super) const FLOAT: u64 = 3;
    pub(super) const DOUBLE: u64 = 4;
    pub(super) const STRING: u64 = 5;
}

/// Which modules' values can be read, and where the value that is read next is.
#[derive(Clone, Copy)]
pub struct Modules<'a> {
    pub types: &'a ModuleTypes,
    pub place: KeyPlace<'a>,
}

impl Modules<'static> {
    /// No values of modules are read.
    pub fn none() -> Modules<'static> {
        static NO_TYPES: ModuleTypes = ModuleTypes::new();
        Modules { types: &NO_TYPES, place: KeyPlace::default() }
    }
}

/// A module's data that belongs to no key, as it stands in a file.
#[derive(Clone, Copy, Debug)]
pub struct AuxData<'w> {
    pub id: ModuleTypeId,
    pub when: AuxPlace,
    /// What the module has written, with the EOF behind.
    pub bytes: &'w [u8],
    /// Where in the file they begin.
    pub offset: u64,
}

/// Writes a value without its kind, which is returned.
pub(super) fn write_value(writer: &mut Writer<'_>, value: &ModuleValue) -> ValueKind {
    writer.length(value.module_type().id().0);
    value.save(writer.place, &mut Tagged(writer));
    writer.length(tag::EOF);
    ValueKind::Module2
}

/// Appends the data that modules want to have at this place of a file.
pub fn write_aux(types: &ModuleTypes, when: AuxPlace, compress: bool, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out, compress);
    for of in types.all().into_iter().filter(|of| of.saves_aux(when)) {
        writer.byte(opcode::MODULE_AUX);
        writer.length(of.id().0);
        writer.length(tag::UINT);
        writer.length(when as u64);
        of.save_aux(when, &mut Tagged(&mut writer));
        writer.length(tag::EOF);
    }
}

/// What a module writes of one value alone, without tags around it.
pub fn save_alone(of: &dyn ModuleType, ptr: ModulePtr) -> Vec<u8> {
    let mut bytes = Vec::new();
    of.save(ptr, KeyPlace::default(), &mut Tagged(&mut Writer::new(&mut bytes, false)));
    bytes
}

/// Reads what [`save_alone`] has written.
pub fn load_alone(of: &dyn ModuleType, bytes: &[u8], encver: u16) -> Option<ModulePtr> {
    let mut reader = Reader::new(bytes, 0);
    let mut source = Source { reader: &mut reader, failed: None };
    of.load(&mut source, encver, KeyPlace::default())
}

struct Tagged<'w, 'o>(&'w mut Writer<'o>);

impl SaveSink for Tagged<'_, '_> {
    fn unsigned(&mut self, number: u64) {
        self.0.length(tag::UINT);
        self.0.length(number);
    }

    fn float(&mut self, number: f32) {
        self.0.length(tag::FLOAT);
        self.0.bytes(&number.to_le_bytes());
    }

    fn double(&mut self, number: f64) {
        self.0.length(tag::DOUBLE);
        self.0.double(number);
    }

    fn string(&mut self, bytes: &[u8]) {
        self.0.length(tag::STRING);
        self.0.string(bytes);
    }
}

struct Source<'r, 'b> {
    reader: &'r mut Reader<'b>,
    failed: Option<ReadError>,
}

impl<'b> Source<'_, 'b> {
    fn next<T>(&mut self, expected: u64, read: impl FnOnce(&mut Reader<'b>) -> ReadResult<T>) -> Option<T> {
        if self.failed.is_some() {
            return None;
        }
        let outcome = match self.reader.length() {
            Ok(found) if found == expected => read(self.reader),
            Ok(_) => Err(self.reader.damaged("what a module reads is not what it wrote")),
            Err(error) => Err(error),
        };
        outcome.map_err(|error| self.failed = Some(error)).ok()
    }
}

impl LoadSource for Source<'_, '_> {
    fn unsigned(&mut self) -> Option<u64> {
        self.next(tag::UINT, Reader::length)
    }

    fn float(&mut self) -> Option<f32> {
        self.next(tag::FLOAT, Reader::float)
    }

    fn double(&mut self) -> Option<f64> {
        self.next(tag::DOUBLE, Reader::double)
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.next(tag::STRING, |reader| reader.string()?.into_vec())
    }

    fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

/// Reads a value.
///
/// # Errors
/// No module has this type; the module refuses what it gets, or does not read all of it; damage.
pub(super) fn read_value(reader: &mut Reader<'_>, modules: &Modules<'_>) -> ReadResult<OwnedValue> {
    let id = ModuleTypeId(reader.length()?);
    let (name, data) = (id.name(), ModuleData::Value);
    let of = modules.types.find(id).ok_or(ReadError::NoModule { name, data })?;
    let mut source = Source { reader, failed: None };
    let ptr = of.load(&mut source, id.encver(), modules.place);
    let failed = source.failed.take();
    // From here on it is freed if it is not returned.
    let value = ptr.map(|ptr| ModuleValue::new(of, ptr));
    match (value, failed) {
        (Some(value), None) => {
            read_end(reader, name, data)?;
            Ok(OwnedValue::Object(Box::new(Object::Module(value))))
        }
        (_, Some(error @ ReadError::Incomplete { .. })) => Err(error),
        (None, _) | (_, Some(_)) => Err(ReadError::ModuleRefused { name, data }),
    }
}

/// The type that what a module has beside its keys belongs to.
///
/// # Errors
/// It is one of a module that is not loaded.
pub fn aux_type(aux: &AuxData<'_>, types: &ModuleTypes) -> ReadResult<&'static dyn ModuleType> {
    types.find(aux.id).ok_or(ReadError::NoModule { name: aux.id.name(), data: ModuleData::Aux })
}

/// Has a module read its data.
///
/// # Errors
/// As for a value.
pub fn read_aux(aux: &AuxData<'_>, types: &ModuleTypes) -> ReadResult<()> {
    let (name, data) = (aux.id.name(), ModuleData::Aux);
    let of = aux_type(aux, types)?;
    let mut reader = Reader::new(aux.bytes, aux.offset);
    let mut source = Source { reader: &mut reader, failed: None };
    if !of.load_aux(&mut source, aux.id.encver(), aux.when) || source.failed.is_some() {
        return Err(ReadError::ModuleRefused { name, data });
    }
    read_end(&mut reader, name, data)
}

fn read_end(reader: &mut Reader<'_>, name: [u8; ModuleTypeId::NAME_LEN], data: ModuleData) -> ReadResult<()> {
    match reader.length()? {
        tag::EOF => Ok(()),
        _ => Err(ReadError::ModuleLeftSome { name, data }),
    }
}

/// Moves behind a value.
pub(super) fn skip_value(reader: &mut Reader<'_>) -> ReadResult<()> {
    reader.length()?;
    skip_tagged(reader)
}

/// Moves behind what a module has written, and the EOF.
fn skip_tagged(reader: &mut Reader<'_>) -> ReadResult<()> {
    loop {
        match reader.length()? {
            tag::EOF => return Ok(()),
            tag::SINT | tag::UINT => reader.length().map(drop)?,
            tag::FLOAT => reader.float().map(drop)?,
            tag::DOUBLE => reader.double().map(drop)?,
            tag::STRING => reader.string().map(drop)?,
            _ => return Err(reader.damaged("an unknown opcode in what a module wrote")),
        }
    }
}

/// Reads what stands behind the opcode of a module's data.
pub(super) fn find_aux<'w>(reader: &mut Reader<'w>) -> ReadResult<AuxData<'w>> {
    let id = ModuleTypeId(reader.length()?);
    let when = match (reader.length()?, reader.length()?) {
        (tag::UINT, 1) => AuxPlace::BeforeKeys,
        (tag::UINT, 2) => AuxPlace::AfterKeys,
        _ => return Err(reader.damaged("a module's data at an unknown place")),
    };
    let (at, offset) = (reader.position(), reader.offset());
    skip_tagged(reader)?;
    Ok(AuxData { id, when, bytes: reader.since(at), offset })
}
