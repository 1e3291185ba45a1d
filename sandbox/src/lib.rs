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

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("sandcell runs on Linux on x86-64 only");

mod builder;
mod changes;
mod command;
mod entry;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod host;
mod identity;
#[cfg(feature = "image")]
pub mod image;
#[cfg(feature = "landlock")]
mod isolation;
#[cfg(feature = "landlock")]
mod landlock;
mod launch;
mod limits;
mod lock;
mod outcome;
pub mod owned;
mod plan;
mod policy;
mod rawsys;
mod remains;
#[cfg(feature = "json")]
pub mod report;
mod running;
mod sandbox;
mod sys;
pub mod syscalls;
mod upper;
mod wire;
pub mod words;

pub use builder::Builder;
pub use changes::{Change, ChangeKind};
pub use command::{Command, Stdio};
pub use entry::Entry;
pub use error::{Error, Failure, Result};
pub use host::{Finding, doctor};
pub use limits::adopt_cgroup;
pub use outcome::{Enforced, IdentityReport, Leftover, Mechanism, Outcome, Output, Report, Requested, Usage};
#[cfg(feature = "image")]
pub use policy::Volume;
pub use policy::{
    BestEffort, HostIds, Identity, IoMax, Isolation, Landlock, Leftovers, Limits, Mount, Network, Policy, Root,
    Seccomp, Upper, User,
};
pub use running::{Cell, Child, Controller};
pub use sandbox::{PlannedStep, Sandbox};
