//! The shapes to search in: a circle, or a box along the meridians and parallels, around a position.

use crate::distance::{EARTH_RADIUS_M, Origin, degrees, radians};
use crate::grid::{Bounds, Position};
use std::f64::consts::FRAC_PI_2;

/// How far a shape reaches, in some unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extent {
    Radius(f64),
    Box { width: f64, height: f64 },
}

/// What a search looks for.
#[derive(Debug, Clone)]
pub struct Shape {
    pub origin: Origin,
    /// In metres.
    extent: Extent,
    reach_m: f64,
    quick: Quick,
}

/// Bounds that sort out most positions outside of a shape without sines. They only say what is certainly outside.
#[derive(Debug, Clone)]
struct Quick {
    /// No position inside has a longer haversine; infinite if that says nothing.
    haversine_max: f64,
    /// Of the origin and of the parallel inside the shape that is nearest to a pole: the product of their cosines.
    cosines: f64,
    half_latitude_rad: f64,
}

impl Shape {
    /// The extent is in a unit of so many metres.
    pub fn new(centre: Position, extent: Extent, unit_m: f64) -> Self {
        let origin = Origin::new(centre);
        let reach_m = extent.reach() * unit_m;
        let extent_m = match extent {
            Extent::Radius(radius) => Extent::Radius(radius * unit_m),
            Extent::Box { width, height } => Extent::Box { width: width * unit_m, height: height * unit_m },
        };
        Self { quick: Quick::new(&origin, extent_m), origin, extent: extent_m, reach_m }
    }

    /// No position inside is farther from the centre, in metres.
    pub fn reach_m(&self) -> f64 {
        self.reach_m
    }

    /// A position's distance from the centre in metres, if it is inside.
    pub fn distance_m_inside(&self, position: Position) -> Option<f64> {
        if self.quick.is_outside(&self.origin, position) { None } else { self.measure(position) }
    }

    fn measure(&self, position: Position) -> Option<f64> {
        match self.extent {
            Extent::Radius(radius) => {
                let distance = self.origin.distance_m(position);
                (distance <= radius).then_some(distance)
            }
            Extent::Box { width, height } => {
                if self.origin.meridian_distance_m(position.latitude) > height / 2.0 {
                    return None;
                }
                // How far it is to the east or west is measured along its own parallel.
                let same_parallel = Position { latitude: position.latitude, ..self.origin.position };
                if Origin::new(position).distance_m(same_parallel) > width / 2.0 {
                    return None;
                }
                Some(self.origin.distance_m(position))
            }
        }
    }

    /// A box of meridians and parallels around the shape. Where the shape reaches over a pole, west may be east of east.
    pub fn bounds(&self) -> Bounds {
        let Position { longitude, latitude } = self.origin.position;
        let (half_width, half_height) = match self.extent {
            Extent::Radius(radius) => (radius, radius),
            Extent::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let latitude_delta = degrees(half_height / EARTH_RADIUS_M);
        // The widest parallel, in degrees, is the one nearest to the pole of this hemisphere.
        let widest = if latitude < 0.0 { latitude - latitude_delta } else { latitude + latitude_delta };
        let longitude_delta = degrees(half_width / EARTH_RADIUS_M / radians(widest).cos());
        Bounds {
            west: longitude - longitude_delta,
            east: longitude + longitude_delta,
            south: latitude - latitude_delta,
            north: latitude + latitude_delta,
        }
    }
}

impl Extent {
    fn reach(self) -> f64 {
        match self {
            Extent::Radius(radius) => radius,
            Extent::Box { width, height } => {
                let (half_width, half_height) = (width / 2.0, height / 2.0);
                (half_width * half_width + half_height * half_height).sqrt()
            }
        }
    }
}

impl Quick {
    /// More than all rounding in the comparison together.
    const SLACK: f64 = 1.0 + 1e-9;
    /// Metres that rounding may add to the shortest distances.
    const SLACK_M: f64 = 1e-3;

    fn new(origin: &Origin, extent_m: Extent) -> Self {
        // Halves of the angles at the earth's centre.
        let half_angle = |metres: f64| (metres + Self::SLACK_M) / EARTH_RADIUS_M / 2.0;
        let (height, width) = match extent_m {
            Extent::Radius(radius) => (half_angle(radius), 0.0),
            Extent::Box { width, height } => (half_angle(height / 2.0), half_angle(width / 2.0)),
        };
        let nearest_pole = origin.latitude_rad.abs() + 2.0 * height;
        // Over a pole, and around half of the earth, everything may be inside.
        if nearest_pole >= FRAC_PI_2 || width >= FRAC_PI_2 {
            return Self { haversine_max: f64::INFINITY, cosines: 0.0, half_latitude_rad: 0.0 };
        }
        let square_of_sine = |angle: f64| angle.sin() * angle.sin();
        // A box's width is measured along the position's own parallel, which is shortest next to the pole.
        let corner = origin.latitude_cos / nearest_pole.cos() * square_of_sine(width);
        Self {
            haversine_max: (square_of_sine(height) + corner) * Self::SLACK,
            cosines: origin.latitude_cos * nearest_pole.cos(),
            half_latitude_rad: origin.latitude_rad / 2.0,
        }
    }

    /// The haversine of any position is at least this estimate of it, because `x - x^3/6` is below the sine of `x`, and
    /// a parallel nearer to the equator than the one we take has a greater cosine.
    #[inline]
    fn is_outside(&self, origin: &Origin, position: Position) -> bool {
        let below_sine = |x: f64| (x - x * x * x / 6.0).max(0.0);
        let along = below_sine((radians(position.latitude) / 2.0 - self.half_latitude_rad).abs());
        let across = below_sine(origin.half_longitude_rad(position).abs());
        along * along + self.cosines * across * across > self.haversine_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardis_modules_testing::Random;

    #[test]
    fn what_is_sorted_out_quickly_is_outside() {
        let mut random = Random::new("what_is_sorted_out_quickly_is_outside");
        let mut between = |low: f64, high: f64| low + random.unit() * (high - low);
        let (mut inside, mut sorted_out) = (0, 0);
        for round in 0..200_000 {
            let scale = 0.1f64.powi(round % 8);
            let centre = Position { longitude: between(-180.0, 180.0), latitude: between(-85.0, 85.0) };
            let there = Position {
                longitude: (centre.longitude + scale * between(-180.0, 180.0)).clamp(-180.0, 180.0),
                latitude: (centre.latitude + scale * between(-85.0, 85.0)).clamp(-85.0, 85.0),
            };
            // The position lies at the very edge of some of the shapes, and in a corner of some boxes.
            let mut size = |edge: f64| if between(0.0, 1.0) < 0.5 { edge } else { scale * between(0.0, 2e7) };
            let same_parallel = Position { latitude: there.latitude, ..centre };
            let extent = match round % 2 {
                0 => Extent::Radius(size(Origin::new(centre).distance_m(there))),
                _ => Extent::Box {
                    width: size(2.0 * Origin::new(there).distance_m(same_parallel)),
                    height: size(2.0 * Origin::new(centre).meridian_distance_m(there.latitude)),
                },
            };
            let shape = Shape::new(centre, extent, 1.0);
            let is_outside = shape.quick.is_outside(&shape.origin, there);
            let measured = shape.measure(there);
            assert!(!is_outside || measured.is_none(), "{centre:?} {there:?} {extent:?}");
            inside += usize::from(measured.is_some());
            sorted_out += usize::from(is_outside);
        }
        assert!(inside > 60_000 && sorted_out > 20_000, "{inside} {sorted_out}");
    }

    #[test]
    fn a_box_measures_along_the_parallel_of_the_position() {
        let centre = Position { longitude: 0.0, latitude: 60.0 };
        let shape = Shape::new(centre, Extent::Box { width: 20.0, height: 2_000.0 }, 1000.0);
        let inside =
            |latitude: f64| shape.distance_m_inside(Position { longitude: 0.17, latitude }).is_some();
        assert!(inside(60.0) && inside(62.0));
        assert!(!inside(55.0), "a degree is wider there");
    }
}
