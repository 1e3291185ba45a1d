//! System calls and what stands close to them: the forms of /proc files, locks, opening beneath a descriptor.

pub(crate) mod beneath;
mod calls;
pub(crate) mod lock;
pub(crate) mod mountinfo;
pub(crate) mod namespaces;
pub(crate) mod procfs;

pub(crate) use calls::*;
