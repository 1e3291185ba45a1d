//! Overlays on disk: the writable directory of one, and what is changed in it.

pub(crate) mod changes;
pub(crate) mod upper;
