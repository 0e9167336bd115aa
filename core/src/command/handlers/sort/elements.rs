//! The elements that are sorted, copied into one allocation, and their order.
//!
//! Each has a number by which it is compared first: its weight, in such bits that they compare as the doubles do, or the
//! first eight bytes of its text. Only where these are equal the texts are compared.

use super::options::How;
use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_f64;
use crate::types::ValueRef;
use crate::types::decimal::parse_i64;
use crate::types::list::ListRef;
use crate::types::listpack::{Digits, Item};
use crate::types::set::SetRef;
use crate::types::zset::ZSetView;
use std::cmp::Ordering;
use std::ops::Range;

#[derive(Default)]
pub(super) struct Elements {
    texts: Vec<u8>,
    elements: Vec<Element>,
    /// The texts that they are compared by, if those are not their own.
    weights: Option<Vec<u8>>,
    /// The range of the value's elements that `elements` are, if not all were taken.
    is_cut: bool,
}

#[derive(Clone, Copy)]
struct Element {
    /// What is compared first.
    first: u64,
    start: usize,
    /// Where its weight is among the weights' texts.
    weight_start: usize,
    len: u32,
    weight_len: u32,
    has_weight: bool,
}

/// The weights of all elements, in their order.
#[derive(Default)]
pub(super) struct Weights {
    texts: Vec<u8>,
    all: Vec<Weight>,
}

enum Weight {
    Number(f64),
    Text(Range<usize>),
    Nothing,
}

impl Weights {
    pub(super) fn push_text(&mut self, text: Option<&[u8]>) {
        self.all.push(match text {
            Some(text) => {
                let start = self.texts.len();
                self.texts.extend_from_slice(text);
                Weight::Text(start..self.texts.len())
            }
            None => Weight::Nothing,
        });
    }

    /// # Errors
    /// It is no number.
    pub(super) fn push_number(&mut self, text: Option<&[u8]>) -> CommandResult {
        self.all.push(Weight::Number(text.map_or(Ok(0.0), number)?));
        Ok(())
    }
}

/// A text as a number, as C's strtod takes it: blanks before it are skipped, an empty text is 0, and what comes behind a
/// zero byte does not count.
fn number(text: &[u8]) -> CommandResult<f64> {
    if let Some(number) = parse_i64(text) {
        return Ok(number as f64);
    }
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    if text.is_empty() {
        return Ok(0.0);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let blanks = text.iter().take_while(|byte| is_blank(byte)).count();
    let number = parse_f64(&text[blanks..]);
    // One that is too small to be exact is out of range as well.
    let is_exact = |number: &f64| *number == 0.0 || !number.is_subnormal();
    number
        .filter(is_exact)
        .ok_or(CommandError::fixed("ERR One or more scores can't be converted into double"))
}

/// Bits that compare as the doubles do. Both zeros are the same.
fn ordered_bits(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The first eight bytes as a number that compares as they do.
fn first_bytes(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = text.len().min(8);
    first[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(first)
}

impl Elements {
    /// The elements of a list, set or sorted set. What is not sorted is cut to LIMIT's range at once.
    pub(super) fn load(value: ValueRef<'_>, how: &How) -> Elements {
        let mut elements = Elements::default();
        let reverses = !how.sorts && how.is_descending;
        let mut digits = Digits::new();
        if let Some(list) = ListRef::of(value) {
            let len = list.len();
            let range = elements.cut(len, how);
            let mut left = range.len();
            let push = |item: Item<'_>| {
                elements.push(item.bytes(&mut digits));
                left -= 1;
                left > 0
            };
            match reverses {
                _ if range.is_empty() => {}
                true => list.walk_back(len - 1 - range.start, push),
                false => list.walk(range.start, push),
            }
        } else if let Some(set) = SetRef::of(value) {
            set.each(|member| elements.push(member.bytes(&mut digits)));
        } else if let Some(set) = ZSetView::of(value) {
            elements.load_sorted_set(set, how);
        }
        elements
    }

    fn load_sorted_set(&mut self, set: ZSetView<'_>, how: &How) {
        let len = set.len();
        let range = self.cut(len, how);
        let reverses = !how.sorts && how.is_descending;
        let ranks = if reverses { len - range.end..len - range.start } else { range };
        let mut digits = Digits::new();
        set.for_each(ranks, reverses, |member, _| self.push(member.bytes(&mut digits)));
    }

    /// Which of `len` elements to take.
    fn cut(&mut self, len: usize, how: &How) -> Range<usize> {
        self.is_cut = !how.sorts;
        if how.sorts { 0..len } else { limited(len, how.limit) }
    }

    fn push(&mut self, text: &[u8]) {
        let start = self.texts.len();
        self.texts.extend_from_slice(text);
        let len = text.len() as u32;
        self.elements.push(Element {
            first: 0,
            start,
            weight_start: 0,
            len,
            weight_len: 0,
            has_weight: false,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    pub(super) fn text(&self, at: usize) -> &[u8] {
        self.text_of(&self.elements[at])
    }

    fn text_of(&self, element: &Element) -> &[u8] {
        &self.texts[element.start..element.start + element.len as usize]
    }

    /// The elements are their own weights.
    ///
    /// # Errors
    /// One of them is no number, unless they are compared as texts.
    pub(super) fn weigh_by_themselves(&mut self, how: &How) -> CommandResult {
        for element in &mut self.elements {
            let text = &self.texts[element.start..element.start + element.len as usize];
            element.first = if how.is_alpha { first_bytes(text) } else { ordered_bits(number(text)?) };
        }
        Ok(())
    }

    /// Takes one weight for each element.
    pub(super) fn weigh(&mut self, weights: Weights) {
        for (element, weight) in self.elements.iter_mut().zip(weights.all) {
            match weight {
                Weight::Number(number) => element.first = ordered_bits(number),
                Weight::Text(range) => {
                    element.first = first_bytes(&weights.texts[range.clone()]);
                    element.weight_start = range.start;
                    element.weight_len = range.len() as u32;
                    element.has_weight = true;
                }
                Weight::Nothing => {}
            }
        }
        self.weights = Some(weights.texts);
    }

    /// Puts the elements in order, as far as LIMIT takes them.
    pub(super) fn order(&mut self, how: &How) {
        let range = limited(self.len(), how.limit);
        if range.is_empty() {
            return;
        }
        let mut elements = std::mem::take(&mut self.elements);
        let compare = |a: &Element, b: &Element| {
            let order = a.first.cmp(&b.first).then_with(|| self.compare_texts(a, b, how.is_alpha));
            if how.is_descending { order.reverse() } else { order }.then(a.start.cmp(&b.start))
        };
        if range.end < elements.len() {
            elements.select_nth_unstable_by(range.end - 1, compare);
        }
        elements[..range.end].sort_unstable_by(compare);
        self.elements = elements;
    }

    /// The order of two elements with the same first number.
    fn compare_texts(&self, a: &Element, b: &Element, is_alpha: bool) -> Ordering {
        match &self.weights {
            // What is not there is less than any text.
            Some(weights) if is_alpha => {
                let weight = |element: &Element| {
                    let end = element.weight_start + element.weight_len as usize;
                    element.has_weight.then(|| &weights[element.weight_start..end])
                };
                weight(a).cmp(&weight(b))
            }
            _ => self.text_of(a).cmp(self.text_of(b)),
        }
    }

    /// Which of them are returned.
    pub(super) fn window(&self, how: &How) -> Range<usize> {
        if self.is_cut { 0..self.len() } else { limited(self.len(), how.limit) }
    }
}

/// The range of `len` elements that LIMIT's offset and count take. However big these are, nothing overflows
/// (CVE-2022-35977).
fn limited(len: usize, (offset, count): (i64, i64)) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(0).min(len);
    let count = usize::try_from(count).unwrap_or(len).min(len - start);
    start..start + count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_by_strtod() {
        let read = |text: &[u8]| number(text).ok();

        assert_eq!(read(b"12"), Some(12.0));
        assert_eq!(read(b" \t1.5"), Some(1.5));
        assert_eq!(read(b"0x10"), Some(16.0));
        assert_eq!(read(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(read(b""), Some(0.0));
        assert_eq!(read(b"\0x"), Some(0.0));
        assert_eq!(read(b"7\0x"), Some(7.0));
        for text in [b"1.5 ".as_slice(), b"  ", b"abc", b"nan", b"1e400", b"5e-324", b"1,5"] {
            assert_eq!(read(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn bits_compare_as_doubles_do() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];

        assert!(numbers.map(ordered_bits).is_sorted());
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
    }

    #[test]
    fn limits_of_any_size_are_ranges_within_the_elements() {
        assert_eq!(limited(10, (0, -1)), 0..10);
        assert_eq!(limited(10, (-5, 3)), 0..3);
        assert_eq!(limited(10, (8, 5)), 8..10);
        assert_eq!(limited(10, (3, 0)), 3..3);
        assert_eq!(limited(10, (i64::MAX, i64::MAX)), 10..10);
        assert_eq!(limited(10, (i64::MIN, i64::MAX)), 0..10);
        assert_eq!(limited(0, (1, 2)), 0..0);
    }
}
