//! Trees whose files belong to leased ids, for `sandcell.owned`.

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;
use sandcell::subid_tree::{self, EntryKind};

use crate::raise;

/// Path, kind, mode, size, UID and GID on the host, UID and GID inside.
type Entry = (OsString, &'static str, u32, u64, u32, u32, Option<u32>, Option<u32>);

fn entry(entry: subid_tree::Entry) -> Entry {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        _ => "other",
    };
    let subid_tree::Entry { path, mode, size, host_uid, host_gid, uid, gid, .. } = entry;
    (path.into_os_string(), kind, mode, size, host_uid, host_gid, uid, gid)
}

/// Everything in a tree.
#[pyfunction]
pub fn owned_list(py: Python<'_>, tree: PathBuf) -> PyResult<Vec<Entry>> {
    py.detach(|| subid_tree::list(tree)).map(|list| list.into_iter().map(entry).collect()).map_err(raise)
}

/// Copies a tree as the caller's own; what has no copy.
#[pyfunction]
pub fn owned_copy_out(py: Python<'_>, tree: PathBuf, dest: PathBuf) -> PyResult<Vec<OsString>> {
    let left = py.detach(|| subid_tree::copy_out(tree, dest)).map_err(raise)?;
    Ok(left.into_iter().map(PathBuf::into_os_string).collect())
}

/// Makes the caller the owner of a tree.
#[pyfunction]
pub fn owned_reclaim(py: Python<'_>, tree: PathBuf) -> PyResult<()> {
    py.detach(|| subid_tree::reclaim(tree)).map_err(raise)
}

/// Removes a tree.
#[pyfunction]
pub fn owned_remove(py: Python<'_>, tree: PathBuf) -> PyResult<()> {
    py.detach(|| subid_tree::remove(tree)).map_err(raise)
}
