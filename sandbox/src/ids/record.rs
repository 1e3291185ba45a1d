//! The note beside a kept upper that says whose the files in it are: the ids of the sandbox that wrote them.
//!
//! The next sandbox on the same upper leases the same slice again. The note lies where no sandbox can see it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use crate::error::{Failure, Result};
use crate::ids::map::IdMap;
use crate::sys::beneath::{self, Plain, Refused};

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

/// The note in the directory of a kept upper. Whatever else is there under its name is an error.
pub(crate) fn read(dir: &Path) -> Result<Option<Record>> {
    let path = dir.join(NAME);
    let found = beneath::place(dir).map_err(Refused::from).and_then(|top| {
        let place = beneath::open(top.as_fd(), Path::new(NAME), OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let (note, holder) = (fstat(&place)?, fstat(&top)?);
        let ours = note.st_uid == geteuid().as_raw() || note.st_uid == holder.st_uid;
        Ok((ours, beneath::read(beneath::regular(&Plain, place.as_fd())?, beneath::SHORT)?))
    });
    let no_note = |message: &str| {
        failed(&path, message).hint("`sandcell files reclaim` gives the files beside it to the caller and removes it")
    };
    let (ours, bytes) = match found {
        Err(why) if why.is_absent() || why == Refused::System(Errno::EACCES) => return Ok(None),
        other => other.map_err(|why| why.told(no_note("cannot be read")).setup())?,
    };
    if !ours {
        return Err(no_note("was written by somebody else").setup());
    }
    let text = String::from_utf8_lossy(&bytes);
    let map =
        |word| IdMap::parse(text.lines().filter_map(|line| line.strip_prefix(word))).filter(|m| !m.lines().is_empty());
    match (map("uid "), map("gid ")) {
        (Some(uids), Some(gids)) => Ok(Some(Record { uids, gids })),
        _ => Err(no_note("does not name the ids of the files beside it").setup()),
    }
}

/// The note about a tree: the directory of a kept upper, or something in it.
pub(crate) fn beside(tree: &Path) -> Result<Option<Record>> {
    holder(tree).map_or(Ok(None), |dir| read(&dir))
}

/// The directory of the kept upper that a tree belongs to. Of several the outermost: what lies in an upper, programs
/// wrote, and it may look like another kept upper with a note of its own.
fn holder(tree: &Path) -> Option<PathBuf> {
    let tree = std::path::absolute(tree).ok()?;
    let mut outer: Vec<&Path> = tree.ancestors().collect();
    outer.reverse();
    let holds = |pair: &&[&Path]| {
        let name = pair[1].file_name();
        name.is_some_and(|name| name == "upper" || name == "work") && is_kept(pair[0])
    };
    let found = outer.windows(2).find(holds).map(|pair| pair[0]);
    found.or_else(|| Some(tree.as_path()).filter(|tree| is_kept(tree))).map(Path::to_owned)
}

/// Whether an overlay was mounted with an upper here: the kernel makes `work/work`.
fn is_kept(dir: &Path) -> bool {
    let Ok(top) = beneath::place(dir) else { return false };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    ["upper", "work"].iter().all(|name| beneath::open(top.as_fd(), Path::new(name), flags).is_ok())
        && !matches!(beneath::open(top.as_fd(), Path::new("work/work"), flags), Err(Errno::ENOENT | Errno::ENOTDIR))
}

/// Written under another name and renamed, so that it is never half a note.
pub(crate) fn write(dir: &Path, record: &Record) -> Result<()> {
    let path = dir.join(NAME);
    let text = |word, map: &IdMap| map.to_string().lines().map(|line| format!("{word} {line}\n")).collect::<String>();
    let new = PathBuf::from(format!("{}.new", path.display()));
    // What a killed process left under this name, or anybody else put there, is not written to.
    let _ = fs::remove_file(&new);
    File::create_new(&new)
        .and_then(|mut file| file.write_all((text("uid", &record.uids) + &text("gid", &record.gids)).as_bytes()))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|e| failed(&path, "cannot be written").cause(&e).setup())
}

/// The files belong to nobody's slice any more, where the tree is a whole upper.
pub(crate) fn forget(tree: &Path) -> Result<()> {
    let Some(dir) = holder(tree) else { return Ok(()) };
    let whole = std::path::absolute(tree).is_ok_and(|tree| tree == dir || tree == dir.join("upper"));
    if !whole {
        return Ok(());
    }
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
