//! Small sorted sets: a listpack of members, each followed by its score, in order.
//!
//! This is Redis' layout, byte for byte: a score is an integer if it is one, and else the text that `%.17g` prints.

use crate::types::blob::Blob;
use crate::types::double::{F64Text, parse_short_f64};
use crate::types::listpack::{self, Digits, Item, Listpack, ListpackMut};
use std::cmp::Ordering;
use std::ops::Range;

/// A small sorted set to read.
#[derive(Clone, Copy)]
pub struct Packed<'a>(Listpack<'a>);

/// Scores beyond this are never stored as integers.
const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;

/// A score as it is stored.
enum Stored {
    Integer(i64),
    Text(F64Text),
}

impl Stored {
    #[inline]
    fn of(score: f64) -> Stored {
        let integer = score as i64;
        if score.abs() <= INTEGER_MAX && integer as f64 == score {
            return Stored::Integer(integer);
        }
        Stored::Text(F64Text::new(score))
    }

    #[inline]
    fn item(&self) -> Item<'_> {
        match self {
            Stored::Integer(number) => Item::Int(*number),
            Stored::Text(text) => Item::Str(text.as_bytes()),
        }
    }
}

/// The number that a stored score is; `None` if it is not one.
fn parse_score(item: Item<'_>) -> Option<f64> {
    match item {
        Item::Int(number) => Some(number as f64),
        Item::Str(text) => parse_short_f64(text).or_else(|| {
            let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            (!score.is_nan()).then_some(score)
        }),
    }
}

impl<'a> Packed<'a> {
    /// `bytes` are a listpack of members and scores.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Packed(Listpack::new(bytes))
    }

    #[inline]
    pub fn len(self) -> usize {
        self.0.len() / 2
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// The position of a member.
    #[inline]
    pub fn find(self, member: &[u8]) -> Option<usize> {
        self.0.find(member, self.0.first()?, 1)
    }

    /// The score of the member at a position, and where the score is.
    #[inline]
    fn score_behind(self, pos: usize) -> (f64, usize) {
        let at = self.0.next(pos).expect("a score follows its member");
        (parse_score(self.0.at(at)).expect("a score is a number"), at)
    }

    /// The score of the member at a position.
    #[inline]
    pub fn score_at(self, pos: usize) -> f64 {
        self.score_behind(pos).0
    }

    /// A member's rank and score.
    pub fn rank(self, member: &[u8]) -> Option<(usize, f64)> {
        let pos = self.find(member)?;
        let mut rank = 0;
        let mut before = pos;
        while let Some(previous) = self.before(before) {
            before = previous;
            rank += 1;
        }
        Some((rank, self.score_at(pos)))
    }

    /// The position of the member before a position.
    fn before(self, pos: usize) -> Option<usize> {
        self.0.prev(pos).and_then(|score| self.0.prev(score))
    }

    /// The element of a rank that exists.
    pub fn at(self, rank: usize) -> (Item<'a>, f64) {
        let pos = self.seek(rank);
        (self.0.at(pos), self.score_at(pos))
    }

    fn seek(self, rank: usize) -> usize {
        self.0.seek(2 * rank as isize).expect("the rank exists")
    }

    /// Whether the element of a member at a position and a score belongs before one of this score and member.
    #[inline]
    fn is_before(self, pos: usize, other: f64, score: f64, member: &[u8]) -> bool {
        other < score || (other == score && compare(self.0.at(pos), member) == Ordering::Less)
    }

    /// The position before which an element of this score and member belongs.
    fn place(self, score: f64, member: &[u8]) -> usize {
        let end = self.0.end();
        // Many scores come in order.
        let last = self.place_up_to(end, score, member, 1);
        if last == end { end } else { self.place_from(self.0.first().unwrap_or(end), score, member) }
    }

    /// The same, if it belongs at a position from `pos` on.
    #[inline]
    fn place_from(self, mut pos: usize, score: f64, member: &[u8]) -> usize {
        let end = self.0.end();
        while pos < end {
            let (other, at) = self.score_behind(pos);
            if !self.is_before(pos, other, score, member) {
                break;
            }
            pos = self.0.next(at).unwrap_or(end);
        }
        pos
    }

    /// The same, if it belongs at a position up to `pos`. No more than `steps` elements are passed over.
    #[inline]
    fn place_up_to(self, mut pos: usize, score: f64, member: &[u8], steps: usize) -> usize {
        for _ in 0..steps {
            let Some(at) = self.0.prev(pos) else { break };
            let before = self.0.prev(at).expect("a member precedes its score");
            let other = parse_score(self.0.at(at)).expect("a score is a number");
            if self.is_before(before, other, score, member) {
                break;
            }
            pos = before;
        }
        pos
    }

    fn count_while(self, mut is_counted: impl FnMut(usize) -> bool) -> usize {
        let (mut pos, mut count) = (self.0.first(), 0);
        while let Some(at) = pos.filter(|&at| is_counted(at)) {
            pos = self.0.next(self.score_behind(at).1);
            count += 1;
        }
        count
    }

    /// How many elements have a lower score than this, or the same if `with` it.
    pub fn count_to_score(self, score: f64, with: bool) -> usize {
        self.count_while(|pos| {
            let other = self.score_at(pos);
            other < score || (with && other == score)
        })
    }

    /// In a set whose scores are all the same: how many members are less than this, or equal if `with` it.
    pub fn count_to_member(self, member: &[u8], with: bool) -> usize {
        self.count_while(|pos| match compare(self.0.at(pos), member) {
            Ordering::Less => true,
            Ordering::Equal => with,
            Ordering::Greater => false,
        })
    }

    /// The elements of some ranks, from both ends. The ranks exist.
    pub fn iter(self, ranks: Range<usize>) -> Iter<'a> {
        let len = self.len();
        let position = |rank: usize| if rank == len { self.0.end() } else { self.seek(rank) };
        let front = position(ranks.start);
        let back = if ranks.is_empty() { front } else { position(ranks.end) };
        Iter { packed: self, front, back }
    }
}

impl<'a> Packed<'a> {
    /// Calls `visit` with all members and scores, as they are stored.
    pub fn each_stored(self, mut visit: impl FnMut(Item<'a>, Item<'a>)) {
        let mut items = self.0.iter().map(|(_, item)| item);
        while let (Some(member), Some(score)) = (items.next(), items.next()) {
            visit(member, score);
        }
    }
}

/// The elements of a small set, in order.
pub struct Iter<'a> {
    packed: Packed<'a>,
    /// The positions of the next member, and of what follows the last one.
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let listpack = self.packed.0;
        let member = listpack.at(self.front);
        let (score, at) = self.packed.score_behind(self.front);
        self.front = listpack.next(at).unwrap_or(listpack.end());
        Some((member, score))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = self.packed.before(self.back).expect("there is an element from the front on");
        Some((self.packed.0.at(self.back), self.packed.score_at(self.back)))
    }
}

/// The order of members, which is that of their bytes.
#[inline]
fn compare(item: Item<'_>, member: &[u8]) -> Ordering {
    item.bytes(&mut Digits::new()).cmp(member)
}

/// A small sorted set to change, in any [`Blob`].
pub struct PackedMut<'b, B: Blob + ?Sized>(&'b mut B);

impl<'b, B: Blob + ?Sized> PackedMut<'b, B> {
    /// `blob` holds a listpack of members and scores.
    #[inline]
    pub fn new(blob: &'b mut B) -> Self {
        PackedMut(blob)
    }

    #[inline]
    pub fn as_ref(&self) -> Packed<'_> {
        Packed::new(self.0.bytes())
    }

    /// Adds a member that is not there yet. `score` is a number.
    pub fn insert(&mut self, member: &[u8], score: f64) {
        let place = self.as_ref().place(score, member);
        let stored = Stored::of(score);
        let pair = [Item::of(member), stored.item()];
        ListpackMut::new(self.0).insert_many_before(place, pair.into_iter());
    }

    /// Changes the score of the member at a position, where `member` was found.
    pub fn set_score(&mut self, pos: usize, member: &[u8], score: f64) {
        let stored = Stored::of(score);
        let mut listpack = ListpackMut::new(self.0);
        let packed = Packed(listpack.as_ref());
        let (old, at) = packed.score_behind(pos);
        let after = packed.0.next(at).unwrap_or(packed.0.end());
        let place = if score > old {
            packed.place_from(after, score, member)
        } else {
            packed.place_up_to(pos, score, member, usize::MAX)
        };
        // What lies behind the score moves if that becomes longer or shorter.
        let grown = listpack.replace(at, stored.item());
        let moved = |behind: usize| behind.wrapping_add_signed(grown);
        if place > after {
            listpack.move_before(pos..moved(after), moved(place));
        } else if place < pos {
            listpack.move_before(pos..moved(after), place);
        }
    }

    /// Removes the member at a position.
    pub fn remove(&mut self, pos: usize) {
        ListpackMut::new(self.0).remove(pos, 2);
    }

    /// Removes the elements of some ranks.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) {
        if !ranks.is_empty() {
            ListpackMut::new(self.0).remove_range(2 * ranks.start as isize, 2 * ranks.len());
        }
    }

    /// Appends an element, which is behind all others.
    pub fn push(&mut self, member: Item<'_>, score: f64) {
        let stored = Stored::of(score);
        let pair = [member, stored.item()];
        ListpackMut::new(self.0).append_many(pair.into_iter());
    }
}

/// Checks that bytes from elsewhere are a listpack of members and scores; whether they are in order is not checked, as
/// Redis does not. With `deep`, all of it is checked, and not only the ends.
///
/// # Errors
/// What is wrong.
pub fn validate(bytes: &[u8], deep: bool) -> Result<(), &'static str> {
    listpack::validate(bytes, deep).map_err(|_| "a damaged listpack")?;
    let listpack = Listpack::new(bytes);
    if !listpack.len().is_multiple_of(2) {
        return Err("a member without a score");
    }
    if !deep {
        return Ok(());
    }
    let mut seen = std::collections::HashSet::new();
    let mut pos = listpack.first();
    while let Some(member) = pos {
        let score = listpack.next(member).ok_or("a member without a score")?;
        parse_score(listpack.at(score)).ok_or("a score that is not a number")?;
        if !seen.insert(listpack.at(member).to_vec()) {
            return Err("a member that is there twice");
        }
        pos = listpack.next(score);
    }
    Ok(())
}
