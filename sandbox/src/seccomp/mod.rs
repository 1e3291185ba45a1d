//! Which system calls a program may make: profiles, and their translation to BPF.
//!
//! [`Profile`] says it in rules, `compile` turns it into the kernel's form before anything is started.

mod compile;
#[cfg(feature = "json")]
mod json;
mod profile;
mod sets;
mod table;

pub use profile::{Action, Compare, Condition, Profile};
pub use sets::{Set, sets};
pub use table::name_of;

pub(crate) use compile::{Listen, compile};
pub(crate) use table::{audit, default_filter};
