//! Which files differ from the layers of an overlay.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use sandcell::{Change, ChangeKind};

use crate::error::free;
use crate::text::c_text;

/// The path is in none of the layers.
pub const SANDCELL_CHANGE_ADDED: c_int = 1;
/// It is in the layers with other content or attributes.
pub const SANDCELL_CHANGE_MODIFIED: c_int = 2;
/// It is in the layers and is gone.
pub const SANDCELL_CHANGE_DELETED: c_int = 3;

/// The files that differ from the layers, sorted by path. It never changes: any number of threads may read it at once.
#[derive(Debug)]
pub struct Changes {
    list: Vec<(c_int, CString)>,
}

impl From<&[Change]> for Changes {
    fn from(changes: &[Change]) -> Changes {
        let kind = |kind| match kind {
            ChangeKind::Added => SANDCELL_CHANGE_ADDED,
            ChangeKind::Modified => SANDCELL_CHANGE_MODIFIED,
            ChangeKind::Deleted => SANDCELL_CHANGE_DELETED,
            _ => 0,
        };
        Changes { list: changes.iter().map(|c| (kind(c.kind), c_text(c.path.as_os_str().as_bytes()))).collect() }
    }
}

#[cfg(feature = "image")]
impl From<&[sandcell::image::Change]> for Changes {
    fn from(changes: &[sandcell::image::Change]) -> Changes {
        let kind = |kind| match kind {
            sandcell::image::ChangeKind::Added => SANDCELL_CHANGE_ADDED,
            sandcell::image::ChangeKind::Modified => SANDCELL_CHANGE_MODIFIED,
            sandcell::image::ChangeKind::Deleted => SANDCELL_CHANGE_DELETED,
            _ => 0,
        };
        Changes { list: changes.iter().map(|c| (kind(c.kind), c_text(c.path.as_os_str().as_bytes()))).collect() }
    }
}

/// How many there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_changes_count(changes: Option<&Changes>) -> usize {
    changes.map_or(0, |c| c.list.len())
}

/// One of the SANDCELL_CHANGE_ numbers; 0 beyond the last.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_changes_kind(changes: Option<&Changes>, index: usize) -> c_int {
    changes.and_then(|c| c.list.get(index)).map_or(0, |(kind, _)| *kind)
}

/// The absolute path inside; "" beyond the last. It lives as long as the list.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_changes_path(changes: Option<&Changes>, index: usize) -> *const c_char {
    changes.and_then(|c| c.list.get(index)).map_or(c"", |(_, path)| path).as_ptr()
}

/// Frees a list that sandcell_cell_changes handed out; those of results belong to them. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_changes_free(changes: Option<Box<Changes>>) {
    free(changes)
}
