//! sandcell for C and C++: opaque handles, error objects, nothing printed, no panic let out.
//!
//! The header `include/sandcell.h` is made from these files; what callers must keep to stands at its head
//! (`cbindgen.toml`). The types of `pointers.rs` say the same in Rust, so that the functions here need no `unsafe`.

mod cell;
mod changes;
mod child;
mod command;
mod entry;
mod error;
mod files;
mod filter;
#[cfg(feature = "image")]
mod image;
mod limits;
#[cfg(feature = "image")]
mod load;
#[cfg(feature = "image")]
mod make;
mod named;
mod network;
mod owned;
mod pointers;
mod policy;
mod pool;
mod result;
mod run;
mod setters;
mod stack;
mod terminal;
mod text;
mod usage;

pub use cell::*;
pub use changes::*;
pub use child::*;
pub use command::*;
pub use entry::*;
pub use error::*;
pub use files::*;
pub use filter::*;
#[cfg(feature = "image")]
pub use image::*;
pub use limits::*;
#[cfg(feature = "image")]
pub use load::*;
#[cfg(feature = "image")]
pub use make::*;
pub use named::*;
pub use owned::*;
pub use policy::*;
pub use pool::*;
pub use result::*;
pub use run::*;
pub use setters::*;
pub use terminal::*;
pub use text::sandcell_text_free;
pub use usage::*;
