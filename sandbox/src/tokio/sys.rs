//! Descriptors and the runtime's reactor.
#![allow(unsafe_code)]

use std::fs::File;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::error::Result;

/// Has a descriptor watched as long as the value lives.
pub(super) fn watched(file: File, interest: Interest) -> Result<AsyncFd<File>> {
    // SAFETY: a File has one descriptor from its beginning to its end, and nobody in this module puts another one in its place.
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) };
    watched.map_err(|error| super::failed(&error.into_parts().1))
}
