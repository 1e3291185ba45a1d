//! What comes back: how a program ended and what it used, what is enforced, which files changed, what a host supports.
//! The functions write it as JSON, features `serde` and `json`.

#[cfg(feature = "serde")]
mod json;
pub(crate) mod network;
mod outcome;
pub(crate) mod trace;

use std::path::PathBuf;

#[cfg(feature = "serde")]
pub use json::*;
pub use network::{Connection, NetworkReport, Published, Verdict};
pub use outcome::{
    Enforced, IdentityReport, Leftover, Mechanism, Outcome, Output, Report, Requested, TimeLimit, Usage,
};
#[cfg(feature = "tracing")]
pub use trace::StartStage;

/// How a path differs from the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is in none of the layers.
    Added,
    /// It is in the layers with other content or attributes.
    Modified,
    /// It is in the layers and is gone.
    Deleted,
}

/// A path that differs from the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Inside; absolute.
    pub path: PathBuf,
}

/// One step of a run in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedStep {
    /// Stable name of the kind of step.
    pub name: String,
    /// The path or name that it is about; may be empty.
    pub subject: String,
    /// What it does.
    pub words: String,
}

/// One thing that sandboxes need or can use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Stable name, such as `sandbox`, `overlay` or `sub-ids`.
    pub name: &'static str,
    /// Whether it works here.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where it works.
    pub remedy: String,
}
