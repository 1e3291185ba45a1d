//! What the tests of this directory share. Each subject has its own room.

pub mod escape;
pub mod faults;
