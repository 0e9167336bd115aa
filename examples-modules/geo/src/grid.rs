//! The grid of the earth: positions as numbers whose order keeps neighbours together (a Z-order curve, known as geohash).
//!
//! Longitude and latitude are halved alternately; of each halving a bit says which half it was. At *step* s both were
//! halved s times, so a cell has a column and a row of s bits. Interleaved (columns at the odd bits, rows at the even
//! ones) they are the cell's number, and all cells within a larger one have that one's number as their prefix: so the
//! positions in a cell are one range of numbers. Positions are kept at step 26, whose 52 bits are exact in a double: that
//! is a member's score.
//!
//! Latitudes end at 85.05112878 degrees, where the Web Mercator projection (EPSG:3857) becomes a square.

/// Halvings of a position's coordinates.
pub const STEP_MAX: u32 = 26;

pub const LONGITUDE_MAX: f64 = 180.0;
pub const LATITUDE_MAX: f64 = 85.05112878;

/// A point: degrees east and degrees north.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    pub longitude: f64,
    pub latitude: f64,
}

impl Position {
    /// None outside of the grid, and for NaN.
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let inside = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        inside.then_some(Self { longitude, latitude })
    }

    /// The middle of the cell with this number. Scores that no position has (a sorted set may have any) become some
    /// position in the grid.
    pub fn of_score(score: f64) -> Self {
        let bounds = Cell::of_number(score_bits(score)).bounds();
        let middle = |low: f64, high: f64, max: f64| ((low + high) / 2.0).clamp(-max, max);
        Self {
            longitude: middle(bounds.west, bounds.east, LONGITUDE_MAX),
            latitude: middle(bounds.south, bounds.north, LATITUDE_MAX),
        }
    }

    /// The position's number at the finest step: its member's score.
    pub fn number(self) -> u64 {
        Cell::around(self, STEP_MAX).number()
    }

    /// The first eleven characters of the position's standard geohash (geohash.org). Of the last one no bits are known; it
    /// is always 0.
    pub fn geohash(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        const CHARACTER_BITS: u32 = 5;
        // The standard halves all latitudes up to the poles.
        const POLE: f64 = 90.0;
        let number = interleave(
            fraction_to_index(self.longitude, LONGITUDE_MAX, STEP_MAX),
            fraction_to_index(self.latitude, POLE, STEP_MAX),
        );
        let mut text = [ALPHABET[0]; 11];
        for (at, character) in text[..10].iter_mut().enumerate() {
            let shift = 2 * STEP_MAX - CHARACTER_BITS * (at as u32 + 1);
            *character = ALPHABET[(number >> shift) as usize % ALPHABET.len()];
        }
        text
    }
}

/// A cell of the grid at some step. A coordinate at the grid's upper end lies in a column or row after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub step: u32,
    column: u32,
    row: u32,
}

/// The edges of a cell, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub west: f64,
    pub east: f64,
    pub south: f64,
    pub north: f64,
}

impl Cell {
    pub fn around(position: Position, step: u32) -> Self {
        Self {
            step,
            column: fraction_to_index(position.longitude, LONGITUDE_MAX, step),
            row: fraction_to_index(position.latitude, LATITUDE_MAX, step),
        }
    }

    fn of_number(number: u64) -> Self {
        Self { step: STEP_MAX, column: every_second_bit(number >> 1), row: every_second_bit(number) }
    }

    fn number(self) -> u64 {
        interleave(self.column, self.row)
    }

    /// The numbers of the positions in the cell: from the first up to, but without, the second.
    pub fn numbers(self) -> (u64, u64) {
        let finer_bits = 2 * (STEP_MAX - self.step);
        (self.number() << finer_bits, (self.number() + 1) << finer_bits)
    }

    /// The cell so many columns to the east and rows to the north. Columns and rows go on at the other end.
    pub fn neighbour(self, columns: i32, rows: i32) -> Self {
        let mask = (1 << self.step) - 1;
        let moved = |index: u32, by: i32| match by {
            0 => index,
            _ => index.wrapping_add_signed(by) & mask,
        };
        Self { step: self.step, column: moved(self.column, columns), row: moved(self.row, rows) }
    }

    pub fn bounds(self) -> Bounds {
        let cells = f64::from(1u32 << self.step);
        let edge = |index: f64, max: f64| -max + index / cells * (2.0 * max);
        let (column, row) = (f64::from(self.column), f64::from(self.row));
        Bounds {
            west: edge(column, LONGITUDE_MAX),
            east: edge(column + 1.0, LONGITUDE_MAX),
            south: edge(row, LATITUDE_MAX),
            north: edge(row + 1.0, LATITUDE_MAX),
        }
    }
}

/// The column or row of a coordinate in -max..=max.
fn fraction_to_index(coordinate: f64, max: f64, step: u32) -> u32 {
    let fraction = (coordinate + max) / (2.0 * max);
    (fraction * f64::from(1u32 << step)) as u32
}

/// A score as C converts it on x86-64: towards zero; negative scores wrap around, and what does not fit has only the
/// highest bit, or none.
fn score_bits(score: f64) -> u64 {
    const HIGHEST_BIT: f64 = 9_223_372_036_854_775_808.0;
    let converted = |value: f64| {
        if (-HIGHEST_BIT..HIGHEST_BIT).contains(&value) { value as i64 } else { i64::MIN }
    };
    if score < HIGHEST_BIT {
        converted(score) as u64
    } else {
        (converted(score - HIGHEST_BIT) as u64) ^ (1 << 63)
    }
}

/// Columns at the odd bits, rows at the even ones.
fn interleave(column: u32, row: u32) -> u64 {
    (spread(column) << 1) | spread(row)
}

/// Doubles the distance of the bits, by halves: first of 16 bits each, at last of single bits.
fn spread(index: u32) -> u64 {
    let mut bits = u64::from(index);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

/// The even bits, together: the inverse of [`spread`].
fn every_second_bit(number: u64) -> u32 {
    let mut bits = number & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(longitude: f64, latitude: f64) -> Position {
        Position::new(longitude, latitude).expect("it lies in the grid")
    }

    #[test]
    fn numbers_are_those_of_redis() {
        assert_eq!(position(13.361389, 38.115556).number(), 3479099956230698);
        assert_eq!(position(0.0, 0.0).number(), 3377699720527872);
    }

    #[test]
    fn a_score_becomes_the_middle_of_its_cell() {
        let middle = Position::of_score(3479099956230698.0);
        assert_eq!(middle, position(13.361389338970184, 38.1155563954963));
        assert_eq!(middle.number(), 3479099956230698);
    }

    #[test]
    fn scores_that_no_position_has_become_positions_in_the_grid() {
        for score in [-1.0, 1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY, 9_223_372_036_854_775_808.0, 0.5]
        {
            let Position { longitude, latitude } = Position::of_score(score);
            assert!(Position::new(longitude, latitude).is_some(), "{score}: {longitude} {latitude}");
        }
        assert_eq!(score_bits(-1.0), u64::MAX);
        assert_eq!(score_bits(f64::INFINITY), 0);
        assert_eq!(score_bits(9_223_372_036_854_775_808.0), 1 << 63);
    }

    #[test]
    fn geohashes_are_the_standard_ones() {
        assert_eq!(&Position::of_score(3479099956230698.0).geohash(), b"sqc8b49rny0");
        assert_eq!(&position(0.0, 0.0).geohash(), b"s0000000000");
    }

    #[test]
    fn a_position_lies_in_its_cell_at_each_step() {
        let here = position(-122.27652, 37.805186);
        for step in 1..=STEP_MAX {
            let cell = Cell::around(here, step);
            let (first, end) = cell.numbers();
            assert!((first..end).contains(&here.number()), "step {step}");
            let bounds = cell.bounds();
            assert!((bounds.west..bounds.east).contains(&here.longitude), "step {step}");
            assert!((bounds.south..bounds.north).contains(&here.latitude), "step {step}");
        }
    }

    #[test]
    fn neighbours_share_an_edge_and_wrap_around() {
        let cell = Cell::around(position(13.4, 52.5), 10);
        assert_eq!(cell.neighbour(1, 0).bounds().west, cell.bounds().east);
        assert_eq!(cell.neighbour(0, -1).bounds().north, cell.bounds().south);
        let last = Cell::around(position(179.99, 85.0), 4);
        assert_eq!(last.neighbour(1, 1), Cell { step: 4, column: 0, row: 0 });
    }

    #[test]
    fn interleaving_is_undone() {
        for (column, row) in [(0, 0), (1, 0), (0, 1), (0x0155_5555, 0x02aa_aaaa), (u32::MAX, 0x1234_5678)] {
            let number = interleave(column, row);
            assert_eq!((every_second_bit(number >> 1), every_second_bit(number)), (column, row));
        }
    }
}
