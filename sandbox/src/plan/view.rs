//! A root put together from parts of the host, and mount points that the parts lack.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};

use super::{READ_ONLY, Steps, c_string, path_string};
use crate::error::{Failure, Result};
use crate::resolve::host_view::{HostFiles, as_path, look};
use crate::sys::mountinfo::unescape;
use crate::wire::{ATTR_NOEXEC, MAKE_DIR, MAKE_FILE, NEW, Step};

/// One name of the root that is the host's.
pub(super) struct Part {
    dest: PathBuf,
    source: PathBuf,
    kind: Kind,
}

enum Kind {
    Directory,
    File,
    Link(PathBuf),
}

/// The system directories of the host.
pub(super) fn of_host(files: &HostFiles) -> Vec<Part> {
    let part = |(path, target): &(&str, Option<PathBuf>)| Part {
        dest: path.into(),
        source: path.into(),
        kind: target.clone().map_or(Kind::Directory, Kind::Link),
    };
    files.view.iter().map(part).collect()
}

/// What is in a directory, but for the names that the sandbox mounts itself.
pub(super) fn of_directory(dir: &Path, own: &[(CString, u32)]) -> Result<Vec<Part>> {
    let unread = |error: std::io::Error| {
        Failure::new("look", dir.display().to_string(), "cannot list the directory").cause(&error).setup()
    };
    let mut parts = Vec::new();
    for entry in fs::read_dir(dir).map_err(unread)? {
        let source = entry.map_err(unread)?.path();
        let dest = Path::new("/").join(source.file_name().unwrap_or_default());
        if own.iter().any(|(own, _)| as_path(own) == dest) {
            continue;
        }
        let Some(meta) = look(&source)? else { continue };
        let kind = if meta.is_symlink() {
            Kind::Link(fs::read_link(&source).map_err(unread)?)
        } else if meta.is_dir() {
            Kind::Directory
        } else {
            Kind::File
        };
        parts.push(Part { dest, source, kind });
    }
    parts.sort_by(|a, b| a.dest.cmp(&b.dest));
    Ok(parts)
}

/// Mounts the parts, all of them read-only.
pub(super) fn show(parts: &[Part], opens: &mut Steps, makes: &mut Steps) -> Result<()> {
    for part in parts {
        match &part.kind {
            Kind::Link(target) => {
                let name = path_string(&Path::new("root").join(below(&part.dest)))?;
                makes.push(Step::Symlink { path: &name, target: &path_string(target)? });
            }
            Kind::Directory | Kind::File => {
                let make = if matches!(part.kind, Kind::File) { MAKE_FILE } else { MAKE_DIR };
                let slot = opens.open_tree(&part.source)?;
                let dest = path_string(&as_path(NEW).join(below(&part.dest)))?;
                makes.push(Step::Bind { slot, dest: &dest, attributes: READ_ONLY, make });
            }
        }
    }
    Ok(())
}

/// Makes mount points in a directory of base. What lies in a part of the host is not made here.
pub(super) fn mount_points(top: &CStr, dests: &[(CString, u32)], parts: &[Part], makes: &mut Steps) -> Result<()> {
    let mut made = BTreeSet::new();
    makes.push(Step::Dir { path: top, mode: 0o755 });
    let own = dests.iter().map(|(dest, make)| (as_path(dest), *make));
    let own = own.filter(|(dest, _)| !parts.iter().any(|part| *dest != part.dest && dest.starts_with(&part.dest)));
    let shown = parts.iter().filter_map(|part| match part.kind {
        Kind::Directory => Some((part.dest.as_path(), MAKE_DIR)),
        Kind::File => Some((part.dest.as_path(), MAKE_FILE)),
        Kind::Link(_) => None,
    });
    for (path, make) in own.chain(shown) {
        let mut at = as_path(top).to_path_buf();
        let below = below(path);
        for (index, name) in below.iter().enumerate() {
            at.push(name);
            if !made.insert(at.clone()) {
                continue;
            }
            let path = path_string(&at)?;
            if index + 1 == below.iter().count() && make == MAKE_FILE {
                makes.push(Step::File { path: &path, mode: 0o644, content: b"" });
            } else {
                makes.push(Step::Dir { path: &path, mode: 0o755 });
            }
        }
    }
    Ok(())
}

/// Mount points that are missing in one directory of the host.
#[derive(Default)]
struct Missing {
    points: Vec<(PathBuf, u32)>,
    /// One of them is a link that leads nowhere: it has to be hidden.
    hides: bool,
}

/// Puts an overlay over each directory in which a mount point is missing: what is read-only stays as it is. `dests` are
/// in the order in which they are mounted; those before `from` are there.
pub(super) fn add_missing(
    parts: &[Part],
    dests: &[(CString, u32)],
    from: usize,
    opens: &mut Steps,
    makes: &mut Steps,
) -> Result<()> {
    // Sorted by their places, so that a directory comes before what lies in it.
    let mut missing: Vec<(PathBuf, PathBuf, Missing)> = Vec::new();
    for (index, (dest, make)) in dests.iter().enumerate().skip(from) {
        let dest = as_path(dest);
        let covered = |(other, _): &(CString, u32)| as_path(other) != dest && dest.starts_with(as_path(other));
        if dests[..index].iter().any(covered) {
            continue;
        }
        let Some(part) = parts.iter().find(|part| dest != part.dest && dest.starts_with(&part.dest)) else { continue };
        let Some((dir, point, hides)) = gap(&part.source.join(below_of(dest, &part.dest)))? else { continue };
        let Some(inside) = inside(parts, &dir) else { continue };
        let at = match missing.binary_search_by(|(known, ..)| known.cmp(&inside)) {
            Ok(at) => at,
            Err(at) => {
                missing.insert(at, (inside, dir, Missing::default()));
                at
            }
        };
        missing[at].2.points.push((point, *make));
        missing[at].2.hides |= hides;
    }
    for (index, (inside, dir, missing)) in missing.iter().enumerate() {
        cover(inside, dir, missing, index, opens, makes)?;
    }
    Ok(())
}

fn cover(
    inside: &Path,
    dir: &Path,
    missing: &Missing,
    index: usize,
    opens: &mut Steps,
    makes: &mut Steps,
) -> Result<()> {
    if mounted_beneath(dir)? {
        let message = format!("{} is missing there, and the directory has mounts in it", missing.points[0].0.display());
        return Err(Failure::new("mount-point", dir.display().to_string(), message)
            .hint("Make the mount point on the host, or choose another destination.")
            .setup());
    }
    let top = c_string(&format!("points-{index}"))?;
    let points = missing.points.iter().map(|(point, make)| Ok((path_string(&Path::new("/").join(point))?, *make)));
    mount_points(&top, &points.collect::<Result<Vec<_>>>()?, &[], makes)?;
    let slot = opens.open_dir(dir)?;
    // An overlay does not take over what the mount below it forbids.
    let noexec =
        nix::sys::statvfs::statvfs(dir).is_ok_and(|of| of.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    let attributes = READ_ONLY | if noexec { ATTR_NOEXEC } else { 0 };
    let (above, dest) = (missing.hides.into(), path_string(inside)?);
    makes.push(Step::Overlay { slot, points: &top, above, dest: &dest, attributes });
    Ok(())
}

/// Where a mount point is missing: the directory that is there, without links in its path, what is missing below it, and
/// whether a link that leads nowhere has its name. `None` where it is there, or can never be.
fn gap(path: &Path) -> Result<Option<(PathBuf, PathBuf, bool)>> {
    let mut there = path;
    let mut hides = false;
    loop {
        match (fs::metadata(there), look(there)?) {
            (Ok(_), _) if there == path => return Ok(None),
            (Ok(meta), _) if meta.is_dir() => break,
            (Ok(_), _) => return Ok(None),
            (Err(_), link) => hides = link.is_some(),
        }
        let Some(parent) = there.parent() else { return Ok(None) };
        there = parent;
    }
    let Ok(dir) = there.canonicalize() else { return Ok(None) };
    Ok(Some((dir, below_of(path, there).to_owned(), hides)))
}

/// Whether a path of the host is there under the same name.
pub(super) fn shows(parts: &[Part], path: &Path) -> bool {
    parts.iter().any(|part| part.dest == part.source && path.starts_with(&part.dest))
}

/// Where a directory of the host is in the sandbox.
fn inside(parts: &[Part], dir: &Path) -> Option<PathBuf> {
    let part = parts.iter().find(|part| matches!(part.kind, Kind::Directory) && dir.starts_with(&part.source))?;
    Some(part.dest.join(below_of(dir, &part.source)))
}

/// Whether something is mounted beneath a directory. See proc_pid_mountinfo(5).
pub(super) fn mounted_beneath(dir: &Path) -> Result<bool> {
    let unread = |error: std::io::Error| {
        Failure::new("look", "/proc/self/mountinfo", "cannot read which file systems are mounted").cause(&error).setup()
    };
    let dir = dir.canonicalize().map_err(unread)?;
    let table = fs::read("/proc/self/mountinfo").map_err(unread)?;
    let places = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(places.map(unescape).any(|place| place != dir && place.starts_with(&dir)))
}

fn below(path: &Path) -> &Path {
    below_of(path, Path::new("/"))
}

fn below_of<'a>(path: &'a Path, top: &Path) -> &'a Path {
    path.strip_prefix(top).unwrap_or(Path::new(""))
}
