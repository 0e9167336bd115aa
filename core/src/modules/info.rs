//! What modules add to INFO.

use super::context::in_turn_while_loaded;
use super::module::{Module, every};
use crate::types::double::F64Text;
use shardis_modules_api::abi::RedisModuleInfoCtx;

/// `RedisModuleInfoCtx`: the fields of a module, as it says them.
pub(super) struct InfoText<'a> {
    module: &'static Module,
    /// In lower case; `None`: all sections are wanted.
    wanted: Option<&'a [Vec<u8>]>,
    text: &'a mut Vec<u8>,
    place: Place,
}

/// Where the module is in its text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first section, or in one that is not wanted.
    Outside,
    Section,
    /// In a field that has fields of its own, so many.
    Dict(u32),
}

/// Appends the sections of modules to INFO's text. `wanted`: their names, in lower case; `None`: all.
pub fn append(text: &mut Vec<u8>, wanted: Option<&[Vec<u8>]>) {
    for module in every() {
        let Some(callback) = module.info_callback() else { continue };
        let mut info = InfoText { module, wanted, text, place: Place::Outside };
        let pointer = std::ptr::from_mut(&mut info).cast::<RedisModuleInfoCtx>();
        // SAFETY: the module has registered the function for this; the text lasts until it returns.
        in_turn_while_loaded(module, "info", || unsafe { callback(pointer, 0) });
        info.end_dict();
    }
}

impl InfoText<'_> {
    /// Begins a section. Without a name it has the module's. Returns whether it is wanted.
    pub(super) fn begin_section(&mut self, name: &[u8]) -> bool {
        self.end_dict();
        let module = self.module.name().to_bytes();
        let full_name = if name.is_empty() { module.to_vec() } else { [module, name].join(&b'_') };
        let full_name = safe(&full_name);
        let is_it =
            |wanted: &Vec<u8>| wanted.eq_ignore_ascii_case(&full_name) || wanted.eq_ignore_ascii_case(module);
        if self.wanted.is_some_and(|wanted| !wanted.iter().any(is_it)) {
            self.place = Place::Outside;
            return false;
        }
        if !self.text.is_empty() {
            self.text.extend_from_slice(b"\r\n");
        }
        for part in [&b"# "[..], &full_name, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        self.place = Place::Section;
        true
    }

    /// Begins a field that has fields of its own. Returns whether its section is wanted.
    pub(super) fn begin_dict(&mut self, name: &[u8]) -> bool {
        self.end_dict();
        if self.place == Place::Outside {
            return false;
        }
        self.name(name);
        self.place = Place::Dict(0);
        true
    }

    /// Returns whether there was one.
    pub(super) fn end_dict(&mut self) -> bool {
        let Place::Dict(_) = self.place else { return false };
        self.text.extend_from_slice(b"\r\n");
        self.place = Place::Section;
        true
    }

    /// Adds a field. Returns whether its section is wanted.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> bool {
        let value = safe(value);
        match self.place {
            Place::Outside => return false,
            Place::Section => {
                self.name(name);
                self.text.extend_from_slice(&value);
                self.text.extend_from_slice(b"\r\n");
            }
            Place::Dict(count) => {
                let comma: &[u8] = if count == 0 { b"" } else { b"," };
                for part in [comma, &safe(name), b"=", &value] {
                    self.text.extend_from_slice(part);
                }
                self.place = Place::Dict(count + 1);
            }
        }
        true
    }

    pub(super) fn double(&mut self, name: &[u8], value: f64) -> bool {
        self.field(name, F64Text::new(value).as_bytes())
    }

    fn name(&mut self, name: &[u8]) {
        for part in [self.module.name().to_bytes(), b"_", &safe(name), b":"] {
            self.text.extend_from_slice(part);
        }
    }
}

/// Without the characters that have a meaning in INFO.
fn safe(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&byte| if b"#:\n\r".contains(&byte) { b'_' } else { byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_sections_that_are_wanted() {
        let module = Module::new(b"x", Vec::new(), None);
        module.identify(c"mod", 1, 1);
        let write = |wanted: Option<&[Vec<u8>]>| {
            let mut text = b"# Server\r\n".to_vec();
            let mut info = InfoText { module, wanted, text: &mut text, place: Place::Outside };
            assert!(!info.field(b"early", b"1"));
            info.begin_section(b"");
            info.field(b"one", b"a:b");
            info.begin_section(b"more");
            info.begin_dict(b"dict");
            info.double(b"x", 0.5);
            info.field(b"y", b"2");
            info.end_dict();
            info.field(b"z", b"3");
            String::from_utf8(text).expect("it is text")
        };
        let more = "\r\n# mod_more\r\nmod_dict:x=0.5,y=2\r\nmod_z:3\r\n";
        assert_eq!(write(None), format!("# Server\r\n\r\n# mod\r\nmod_one:a_b\r\n{more}"));
        assert_eq!(write(Some(&[b"mod_more".to_vec()])), format!("# Server\r\n{more}"));
        assert_eq!(write(Some(&[b"other".to_vec()])), "# Server\r\n");
    }
}
