//! Distances on a sphere, by the haversine formula.

use crate::grid::Position;

/// The radius of the sphere, in metres: the quadratic mean of the earth's (WGS 84).
pub const EARTH_RADIUS_M: f64 = 6_372_797.560856;

/// Where distances are measured from, with what is the same for all of them.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub position: Position,
    longitude_rad: f64,
    pub latitude_rad: f64,
    pub latitude_cos: f64,
}

impl Origin {
    pub fn new(position: Position) -> Self {
        let latitude_rad = radians(position.latitude);
        Self {
            position,
            longitude_rad: radians(position.longitude),
            latitude_rad,
            latitude_cos: latitude_rad.cos(),
        }
    }

    /// The distance to a point, in metres.
    pub fn distance_m(&self, to: Position) -> f64 {
        let across = (self.half_longitude_rad(to)).sin();
        if across == 0.0 {
            return self.meridian_distance_m(to.latitude);
        }
        let to_latitude_rad = radians(to.latitude);
        let along = ((to_latitude_rad - self.latitude_rad) / 2.0).sin();
        let haversine = along * along + self.latitude_cos * to_latitude_rad.cos() * across * across;
        // Of points opposite each other, rounding may make it more than 1.
        2.0 * EARTH_RADIUS_M * haversine.sqrt().min(1.0).asin()
    }

    /// The distance to the parallel of a latitude, in metres.
    pub fn meridian_distance_m(&self, latitude: f64) -> f64 {
        EARTH_RADIUS_M * (radians(latitude) - self.latitude_rad).abs()
    }

    /// Half of how far a point lies to the east, in radians.
    pub fn half_longitude_rad(&self, to: Position) -> f64 {
        (radians(to.longitude) - self.longitude_rad) / 2.0
    }
}

pub fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

pub fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}
