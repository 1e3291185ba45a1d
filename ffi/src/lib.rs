//! sandcell for C and C++: opaque handles, error objects, nothing printed, no panic let out.
//!
//! The header `include/sandcell.h` is made from these files; what callers must keep to stands at its head
//! (`cbindgen.toml`). Each `SAFETY` line here leans on that contract.

mod cell;
mod changes;
mod child;
mod command;
mod entry;
mod error;
mod files;
#[cfg(feature = "image")]
mod image;
mod limits;
mod owned;
mod policy;
#[cfg(feature = "image")]
mod pull;
mod result;
mod run;
mod text;
mod usage;

pub use cell::*;
pub use changes::*;
pub use child::*;
pub use command::*;
pub use entry::*;
pub use error::*;
pub use files::*;
#[cfg(feature = "image")]
pub use image::*;
pub use limits::*;
pub use owned::*;
pub use policy::*;
#[cfg(feature = "image")]
pub use pull::*;
pub use result::*;
pub use run::*;
pub use text::sandcell_text_free;
pub use usage::*;
