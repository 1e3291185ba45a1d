//! A tree as a tar stream and back, for `sandcell cp`. Both ends may be hostile: a program can write the tree while it is read, and what
//! comes out of a cell may be any bytes. So nothing is reached through a link, devices and FIFOs are neither opened nor made, and all lists have an end.

mod pack;
mod sparse;
mod unpack;

use std::io;

use crate::images::tar::shown;

pub use pack::{pack_file, pack_tree};
pub use sparse::{PLAIN, SPARSE, copy_file, send_file};
pub use unpack::{unpack, unpack_file};

/// Hears of what is left out: its path, and what it is.
pub type Left<'a> = &'a mut dyn FnMut(&[u8], &str);

/// More names in one directory are refused.
const MOST_NAMES: usize = 1_000_000;

/// What the system says of a path. The kind stays: a pipe that is broken is the other side's affair.
fn failed(path: &[u8], error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{}: {error}", shown(path)))
}

fn refused(path: &[u8], why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", shown(path)))
}
