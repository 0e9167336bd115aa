//! Which cells of the grid a search reads: the one of the shape's centre and its eight neighbours, at a step at which
//! these nine contain the shape, less those that the shape does not touch.
//!
//! Their order, and at which step they are, is seen by clients: it is the order of results that are not sorted.

use crate::grid::{Bounds, Cell, STEP_MAX};
use crate::shape::Shape;

/// The cells to read, in this order: the centre, north, south, east, west, then the corners.
const NEIGHBOURS: [(i32, i32); 9] =
    [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

/// The ranges of numbers to read, one after the other, as `(first, end)`. No number is in two of them.
pub fn ranges(shape: &Shape) -> impl Iterator<Item = (u64, u64)> {
    let (centre, skipped) = cells(shape);
    let mut last = None;
    NEIGHBOURS.into_iter().filter(move |&side| !skipped.has(side)).filter_map(move |(columns, rows)| {
        // Where there are but two columns or rows, the same cell comes several times in a row.
        let cell = centre.neighbour(columns, rows);
        (last.replace(cell) != Some(cell)).then(|| cell.numbers())
    })
}

/// The sides on which the centre's cell alone is enough.
#[derive(Debug, Clone, Copy, Default)]
struct Skipped {
    west: bool,
    east: bool,
    south: bool,
    north: bool,
}

impl Skipped {
    fn has(self, (columns, rows): (i32, i32)) -> bool {
        (columns < 0 && self.west)
            || (columns > 0 && self.east)
            || (rows < 0 && self.south)
            || (rows > 0 && self.north)
    }
}

fn cells(shape: &Shape) -> (Cell, Skipped) {
    /// With fewer columns than at this step, a neighbour on one side is also one on the other.
    const STEP_WITH_SIDES: u32 = 2;

    let position = shape.origin.position;
    let mut centre = Cell::around(position, estimated_step(shape.reach_m(), position.latitude));
    let shape = shape.bounds();
    if centre.step > 1 && !neighbours_reach_far_enough(&shape, centre) {
        centre = Cell::around(position, centre.step - 1);
    }

    let mut skipped = Skipped::default();
    if centre.step >= STEP_WITH_SIDES {
        let cell = centre.bounds();
        skipped = Skipped {
            west: cell.west < shape.west,
            east: cell.east > shape.east,
            south: cell.south < shape.south,
            north: cell.north > shape.north,
        };
    }
    (centre, skipped)
}

/// The finest step at which a cell is wider than the shape, but for rounding and the earth's being round.
fn estimated_step(reach_m: f64, latitude: f64) -> u32 {
    /// Half of the square that the Web Mercator projection makes of the earth.
    const MERCATOR_MAX_M: f64 = 20_037_726.37;
    /// Beyond these latitudes, cells are so narrow that a coarser step is needed, and beyond these a coarser one yet.
    const NARROW_LATITUDE: f64 = 66.0;
    const VERY_NARROW_LATITUDE: f64 = 80.0;

    if reach_m == 0.0 {
        return STEP_MAX;
    }
    let mut step = -1i32;
    let mut width_m = reach_m;
    while width_m < MERCATOR_MAX_M {
        width_m *= 2.0;
        step += 1;
    }
    step -= i32::from(latitude.abs() > NARROW_LATITUDE);
    step -= i32::from(latitude.abs() > VERY_NARROW_LATITUDE);
    step.clamp(1, STEP_MAX as i32) as u32
}

/// Whether the outer edges of the four neighbours lie outside of the shape's bounds. (Beyond the ends of the grid they never
/// seem to, which makes the cells coarser than they need be.)
fn neighbours_reach_far_enough(shape: &Bounds, centre: Cell) -> bool {
    centre.neighbour(0, 1).bounds().north >= shape.north
        && centre.neighbour(0, -1).bounds().south <= shape.south
        && centre.neighbour(1, 0).bounds().east >= shape.east
        && centre.neighbour(-1, 0).bounds().west <= shape.west
}
