//! A rootless sandbox for Linux as a call in your own process.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("sandcell runs on Linux on x86-64 only");

mod error;
mod identity;
#[cfg(feature = "image")]
pub mod image;
mod limits;
mod outcome;
mod policy;
pub mod syscalls;

pub use error::{Error, Failure, Result};
pub use outcome::{Enforced, IdentityReport, Leftover, Mechanism, Outcome, Requested, Usage};
pub use policy::{
    BestEffort, HostIds, Identity, IoMax, Landlock, Leftovers, Limits, Mount, Network, Policy, Root, Seccomp, Upper,
    User,
};
