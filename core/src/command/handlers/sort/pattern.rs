//! The patterns of BY and GET: names of keys in which the first `*` stands for an element, perhaps with the field of a
//! hash behind an arrow.

use crate::command::typed::{Digits, StringRef};
use crate::command::{Call, Key};
use crate::shard::Shard;
use crate::types::hash::HashRef;
use crate::types::hash_key;
use memchr::memmem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern<'a> {
    /// `#`
    Element,
    /// Without `*`: no key.
    Nothing,
    Key {
        prefix: &'a [u8],
        suffix: &'a [u8],
        field: Option<&'a [u8]>,
    },
}

impl<'a> Pattern<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = memchr::memchr(b'*', text) else { return Pattern::Nothing };
        let (prefix, rest) = (&text[..star], &text[star + 1..]);
        let arrow = memmem::find(rest, b"->").filter(|arrow| arrow + 2 < rest.len());
        match arrow {
            Some(arrow) => Pattern::Key { prefix, suffix: &rest[..arrow], field: Some(&rest[arrow + 2..]) },
            None => Pattern::Key { prefix, suffix: rest, field: None },
        }
    }

    pub(super) fn names_keys(&self) -> bool {
        matches!(self, Pattern::Key { .. })
    }

    /// Puts the name of the key for `element` into `name`. Returns whether there is one.
    pub(super) fn name(&self, element: &[u8], name: &mut Vec<u8>) -> bool {
        let Pattern::Key { prefix, suffix, .. } = self else { return false };
        name.clear();
        name.extend_from_slice(prefix);
        name.extend_from_slice(element);
        name.extend_from_slice(suffix);
        true
    }

    /// Calls `found` with the value for `element`, or with None if there is none: a key of a type that does not fit counts
    /// as not there. `name` is scratch memory.
    pub(super) fn look_up<T>(
        &self,
        shard: &mut Shard,
        call: &Call,
        element: &[u8],
        name: &mut Vec<u8>,
        found: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        if *self == Pattern::Element {
            return found(Some(element));
        }
        if !self.name(element, name) {
            return found(None);
        }
        let key = Key { bytes: name, hash: hash_key(name) };
        let value = shard.lookup_read(call, key).map(|entry| entry.value());
        let mut digits = Digits::new();
        match (self, value) {
            (Pattern::Key { field: None, .. }, Some(value)) => {
                found(StringRef::of(value).ok().map(|string| string.bytes(&mut digits)))
            }
            (Pattern::Key { field: Some(field), .. }, Some(value)) => {
                let item = HashRef::of(value).and_then(|hash| hash.get(field));
                found(item.map(|item| item.bytes(&mut digits)))
            }
            _ => found(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_star_stands_for_the_element_and_an_arrow_for_a_field() {
        let key = |prefix, suffix, field| Pattern::Key { prefix, suffix, field };

        assert_eq!(Pattern::parse(b"#"), Pattern::Element);
        assert_eq!(Pattern::parse(b"nosort"), Pattern::Nothing);
        assert_eq!(Pattern::parse(b"w_*"), key(b"w_", b"", None));
        assert_eq!(Pattern::parse(b"w_*_*"), key(b"w_", b"_*", None));
        assert_eq!(Pattern::parse(b"h_*_x->f"), key(b"h_", b"_x", Some(b"f")));
        // An arrow before the star, or without a field, is part of the name.
        assert_eq!(Pattern::parse(b"a->b_*"), key(b"a->b_", b"", None));
        assert_eq!(Pattern::parse(b"h_*->"), key(b"h_", b"->", None));
    }
}
