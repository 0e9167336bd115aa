//! Keys that a script makes of pieces that are known before it runs: `'user:' .. ARGV[1]`.

/// A piece of a key. Elements are counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Text(Vec<u8>),
    /// An element of KEYS.
    Key(usize),
    /// An element of ARGV.
    Arg(usize),
}

/// What a key is made of, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyTemplate {
    pieces: Vec<Piece>,
}

/// A template's number in [`Templates`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TemplateId(usize);

/// A key of more pieces is not followed.
const PIECES_MAX: usize = 16;
/// Nor are more templates of one script.
const TEMPLATES_MAX: usize = 64;
/// A number of more digits is written otherwise where it is part of a text.
const EXACT_DIGITS_MAX: usize = 14;

impl KeyTemplate {
    fn of(piece: Piece) -> KeyTemplate {
        KeyTemplate { pieces: vec![piece] }
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The key, of these elements of KEYS and ARGV. `None`: one is missing. A script that asks for it fails there.
    pub fn key<'a>(&'a self, keys: &[&'a [u8]], args: &[&'a [u8]]) -> Option<Vec<u8>> {
        let text_of = |piece: &'a Piece| -> Option<&'a [u8]> {
            match piece {
                Piece::Text(text) => Some(text),
                Piece::Key(at) => keys.get(at - 1).copied(),
                Piece::Arg(at) => args.get(at - 1).copied(),
            }
        };
        let mut len = 0;
        for piece in &self.pieces {
            len += text_of(piece)?.len();
        }
        let mut key = Vec::with_capacity(len);
        self.pieces.iter().filter_map(text_of).for_each(|text| key.extend_from_slice(text));
        Some(key)
    }
}

/// The templates of a script, each of them once.
#[derive(Default)]
pub(super) struct Templates {
    all: Vec<KeyTemplate>,
}

impl Templates {
    pub(super) fn get(&self, id: TemplateId) -> &KeyTemplate {
        &self.all[id.0]
    }

    /// `None`: there are too many.
    fn add(&mut self, template: KeyTemplate) -> Option<TemplateId> {
        if let Some(known) = self.all.iter().position(|other| *other == template) {
            return Some(TemplateId(known));
        }
        if self.all.len() == TEMPLATES_MAX || template.pieces.len() > PIECES_MAX {
            return None;
        }
        self.all.push(template);
        Some(TemplateId(self.all.len() - 1))
    }

    /// That of an element of a list. `index`: the literal in brackets.
    pub(super) fn element(&mut self, index: &[u8], piece: fn(usize) -> Piece) -> Option<TemplateId> {
        let at = std::str::from_utf8(index).ok()?.parse().ok().filter(|&at: &usize| at > 0)?;
        self.add(KeyTemplate::of(piece(at)))
    }

    /// Whether it is an element of KEYS.
    pub(super) fn is_key(&self, id: TemplateId) -> bool {
        matches!(self.get(id).pieces[..], [Piece::Key(_)])
    }

    /// Whether it needs ARGV.
    pub(super) fn has_arg(&self, id: TemplateId) -> bool {
        self.get(id).pieces.iter().any(|piece| matches!(piece, Piece::Arg(_)))
    }

    /// That of a literal, which is written so in a text.
    pub(super) fn literal(&mut self, text: &[u8]) -> Option<TemplateId> {
        let is_long_number = text.len() > EXACT_DIGITS_MAX && text.iter().all(u8::is_ascii_digit);
        if is_long_number { None } else { self.add(KeyTemplate::of(Piece::Text(text.to_vec()))) }
    }

    /// One behind the other.
    pub(super) fn concat(&mut self, parts: &[TemplateId]) -> Option<TemplateId> {
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in parts.iter().flat_map(|&part| &self.get(part).pieces) {
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.extend_from_slice(text),
                _ => pieces.push(piece.clone()),
            }
        }
        self.add(KeyTemplate { pieces })
    }
}
