//! The generator behind `math.random`: the 48-bit linear congruential one of POSIX' `lrand48`, as Redis has it, so
//! that a script that seeds it gets the same numbers on every machine.

use std::cell::Cell;
use std::rc::Rc;

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const STATE_MASK: u64 = (1 << 48) - 1;
/// The low bits of the state after seeding.
const SEED_LOW_BITS: u64 = 0x330E;

/// A generator. Clones share its state.
#[derive(Clone, Debug)]
pub struct Random {
    state: Rc<Cell<u64>>,
}

impl Random {
    /// A generator whose first state is the low 48 bits of `seed`.
    pub fn from_state(seed: u64) -> Random {
        Random { state: Rc::new(Cell::new(seed & STATE_MASK)) }
    }

    /// What `math.randomseed` does.
    pub(crate) fn seed(&self, seed: i32) {
        self.state.set(((seed as u32 as u64) << 16) | SEED_LOW_BITS);
    }

    /// The next number, of 31 bits.
    pub(crate) fn next(&self) -> i32 {
        let state = self.state.get().wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & STATE_MASK;
        self.state.set(state);
        (state >> 17) as i32
    }

    /// The next number in 0..1.
    pub(crate) fn next_fraction(&self) -> f64 {
        f64::from(self.next() % i32::MAX) / f64::from(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_redis() {
        let random = Random::from_state(0);
        random.seed(0);

        let first: Vec<String> = (0..3).map(|_| format!("{:.14}", random.next_fraction())).collect();

        assert_eq!(first, ["0.17082803611217", "0.74990198051087", "0.09637165539729"]);
    }
}
