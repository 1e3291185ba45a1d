//! init, seen from outside while its sandbox lives: its process and its groups, signals, the end.

pub(crate) mod controller;
pub(crate) mod ended;
pub(crate) mod ending;
pub(crate) mod init;
pub(crate) mod keeper;
pub(crate) mod terminal;
pub(crate) mod unkillable;
