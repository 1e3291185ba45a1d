//! A rootless sandbox for Linux as a call in your own process.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let sandbox = sandcell::Sandbox::builder().timeout(Duration::from_secs(10)).build()?;
//! let output = sandbox.command("/bin/sh").args(["-c", "id -u"]).output()?; // a sandbox of its own
//! assert_eq!(output.outcome, sandcell::Outcome::Exited(0));
//!
//! let cell = sandbox.start()?; // start once, run many
//! cell.command("/bin/true").status()?;
//! # Ok::<(), sandcell::Error>(())
//! ```
//!
//! [`Builder`] takes the options, [`Sandbox`] is a checked policy, [`Command`] a program to run in a sandbox of its own or in a
//! [`Cell`], [`Child`] one that runs, [`Output`] and [`Report`] what came of it. `docs/rust.md` has recipes.
//!
//! # Features
//!
//! - `landlock` (default): Landlock beside the namespaces, and `Isolation::Landlock` where user namespaces are forbidden.
//! - `serde`: `serde::Serialize` for reports and what is in them.
//! - `json`: reports and explanations as JSON, seccomp profiles in the JSON form of Docker's (`report`).
//! - `image`: images: the store, loading, running, building, commit and export (`image`).
//! - `pull`: images from registries.
//! - `systemd`: limits in a transient scope of systemd, where no cgroup was delegated to the caller.
//! - `caps`, `nix`: `From` between [`Capability`], [`Resource`] and the types of these crates.
//! - `tokio`: programs for callers that are async (`tokio`).
//! - `tracing`: [`Builder::on_start_stage`] tells how long each stage of a start takes.
//! - `cli`: the program `sandcell`.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("sandcell runs on Linux on x86-64 and aarch64 only");

/// The recipes, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/rust.md")]
struct Recipes;

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../../docs/async.md")]
struct AsyncRecipes;

mod api;
#[cfg(feature = "image")]
mod build;
mod cgroup;
mod doctor;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod ids;
#[cfg(feature = "image")]
mod images;
mod kernel_names;
#[cfg(feature = "landlock")]
mod landlock;
mod launch;
mod named;
mod overlay;
mod plan;
mod policy;
mod printable;
#[cfg(not(feature = "serde"))]
mod report;
#[cfg(feature = "serde")]
pub mod report;
mod resolve;
mod schedule;
pub mod seccomp;
pub mod subid_tree;
mod supervise;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
/// For the program `sandcell` alone.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod trees;

/// Images: the store, loading, building, commit and export. Running one is [`Root::image`](crate::Root::image).
#[cfg(feature = "image")]
pub mod image {
    pub use crate::build::{Build, BuildStep, Commit, ImageOption};
    pub use crate::images::*;
    pub use crate::resolve::image::base_of;
}

/// The name of [`subid_tree`] before.
#[deprecated(since = "0.1.0", note = "use `subid_tree`")]
pub mod owned {
    pub use crate::subid_tree::*;
}

/// The name of [`seccomp`] before.
#[deprecated(since = "0.1.0", note = "use `seccomp`")]
pub mod syscalls {
    pub use crate::seccomp::*;
}

/// Names of the system, read.
#[deprecated(since = "0.1.0", note = "use `options::resource` and `options::capability`")]
pub mod words {
    pub use crate::policy::options::{capability, resource};
}

use sandcell_protocol as wire;
use sandcell_raw as rawsys;

pub use api::attach::Entry;
pub use api::cell::Cell;
pub use api::child::Child;
pub use api::command::Command;
pub use api::pool::{Pool, PoolStats};
pub use api::sandbox::Sandbox;
pub use api::streams::Stdio;
pub use cgroup::adopt_cgroup;
pub use doctor::doctor;
pub use error::{Error, Failure, Result};
pub use kernel_names::{Capability, Resource};
#[cfg(feature = "json")]
pub use named::json::cells_to_json;
pub use named::{Attached, CellInfo, CellState, Detach, LogLine, LogReader, NamedCell, Restart, Scheduler, cells};
#[cfg(feature = "image")]
pub use policy::Volume;
pub use policy::builder::Builder;
pub use policy::{
    Allow, BestEffort, HostIds, HostPortRule, HostRule, Identity, IoMax, Isolation, Landlock, Leftovers, Limits, Mount,
    NetRule, Network, Policy, Ports, PublishRule, Root, Seccomp, Upper, UpstreamProxy, User, options,
};
pub use printable::{printable, printable_json, printable_lines};
#[cfg(feature = "tracing")]
pub use report::StartStage;
pub use report::{
    Change, ChangeKind, Connection, Enforced, Finding, IdentityReport, Leftover, Mechanism, NetworkReport, Outcome,
    Output, PlannedStep, Published, Report, Requested, TimeLimit, Usage, Verdict,
};
pub use schedule::Schedule;
pub use supervise::controller::Controller;
pub use supervise::terminal::{Terminal, TerminalSetup, TerminalSize};
