//! Pure data structures: no RESP, no argv, no clock.
