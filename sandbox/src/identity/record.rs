//! The note beside a kept upper that says whose the files in it are: the ids of the sandbox that wrote them.
//!
//! The next sandbox on the same upper leases the same slice again. The note lies where no sandbox can see it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::identity::map::IdMap;

const NAME: &str = "sandcell-ids";

/// Two maps, as the sandbox had them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub uids: IdMap,
    pub gids: IdMap,
}

impl Record {
    /// How many ids the sandbox had.
    pub(crate) fn count(&self) -> u32 {
        self.uids.total()
    }

    /// Whether the ids on disk are those inside.
    pub(crate) fn is_plain(&self) -> bool {
        self.uids.is_plain() && self.gids.is_plain()
    }

    /// Where its slices of UIDs and GIDs begin. What stands for the caller's own is not from them.
    pub(crate) fn slices(&self, own_uid: u32, own_gid: u32) -> Option<(u32, u32)> {
        let start = |map: &IdMap, own| {
            let line = map.lines().iter().find(|line| line.host != own)?;
            line.host.checked_sub(line.inside)
        };
        Some((start(&self.uids, own_uid)?, start(&self.gids, own_gid)?))
    }
}

/// The note in a directory.
pub(crate) fn read(dir: &Path) -> Result<Option<Record>> {
    let path = dir.join(NAME);
    let text = match fs::read_to_string(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(|e| failed(&path, "cannot be read").cause(&e).setup())?,
    };
    let map =
        |word| IdMap::parse(text.lines().filter_map(|line| line.strip_prefix(word))).filter(|m| !m.lines().is_empty());
    match (map("uid "), map("gid ")) {
        (Some(uids), Some(gids)) => Ok(Some(Record { uids, gids })),
        _ => Err(failed(&path, "does not name the ids of the files beside it")
            .hint("`sandcell files reclaim` gives them to the caller and removes it")
            .setup()),
    }
}

/// The note in the directory or beside it: `DIR` as well as `DIR/upper`.
pub(crate) fn beside(tree: &Path) -> Result<Option<Record>> {
    match (read(tree)?, tree.parent()) {
        (None, Some(above)) => read(above),
        (found, _) => Ok(found),
    }
}

/// Written under another name and renamed, so that it is never half a note.
pub(crate) fn write(dir: &Path, record: &Record) -> Result<()> {
    let path = dir.join(NAME);
    let text = |word, map: &IdMap| map.to_string().lines().map(|line| format!("{word} {line}\n")).collect::<String>();
    let new = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&new, text("uid", &record.uids) + &text("gid", &record.gids))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|e| failed(&path, "cannot be written").cause(&e).setup())
}

/// The files belong to nobody's slice any more.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    let path = dir.join(NAME);
    match fs::remove_file(&path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(failed(&path, "cannot be removed").cause(&e).setup())
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path, message: &str) -> Failure {
    Failure::new("upper", path.display().to_string(), message)
}
