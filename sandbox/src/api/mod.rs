//! What a caller holds: a checked policy, a started sandbox, a command, a program that runs.

pub(crate) mod attach;
pub(crate) mod cell;
pub(crate) mod child;
pub(crate) mod command;
pub(crate) mod detached;
pub(crate) mod environment;
pub(crate) mod exchange;
pub(crate) mod input;
pub(crate) mod pool;
pub(crate) mod runs;
pub(crate) mod sandbox;
pub(crate) mod shared;
pub(crate) mod streams;
pub(crate) mod system;
