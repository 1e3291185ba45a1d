//! A layer's tar onto the disk, where nothing outside the layer's own directory is touched whatever the tar says.
//!
//! Every parent directory is opened by the kernel beneath the layer's root (`openat2` with `RESOLVE_IN_ROOT`, Linux
//! 5.6), and the last component is only ever created anew (`O_EXCL`, `mkdirat`, …) or handled without following a link.
//!
//! What the tree on the disk does not say is written beside it, one JSON line a member (see [`Withheld`]): everything
//! belongs to the caller, devices are not made, set-id bits and attributes that mean privilege are left out, and
//! directories always let their owner in, so that the owner can remove them.

mod whiteouts;

use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::tar::{Kind, Member, Reader, Refusal, Segment, Xattr, clean, shown};
use whiteouts::{AUFS_LINKS, is_of_aufs};

/// Parents that stay open. Archives are nearly always packed directory by directory, so a few suffice.
const OPEN_DIRS: usize = 24;

/// What a member has in the archive and not on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Withheld {
    /// Path in the layer, bytes outside printable ASCII and `%` as `%XX`.
    pub path: String,
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
    /// Permission bits in the image, set-id bits included.
    pub mode: u32,
    /// A device that was not made: `c` or `b`, major, minor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(char, u32, u32)>,
    /// Extended attributes that were left out, values in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, String)>,
}

/// Marks a directory that the layer needs and does not list: what it is, the layers below say (see `implied`). The
/// kernel keeps overlay's attributes from whoever looks at the mounted tree.
pub(crate) const IMPLIED: &str = "user.overlay.sandcell.implied";

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub members: u64,
    /// Directories that no member is, see [`IMPLIED`].
    pub implied: u64,
    /// Whiteouts, and devices that were not made.
    pub whiteouts: u64,
    pub devices: u64,
    /// Content of files.
    pub bytes: u64,
    /// Sizes of all files that the tree has in the end, by name.
    pub tree_bytes: u64,
}

pub(crate) struct Unpacker<'a> {
    root: OwnedFd,
    /// The parents used last, the latest at the end.
    dirs: Vec<(Vec<u8>, OwnedFd)>,
    /// Times of directories, which can be set only when nothing more is created in them; on disk because a hostile
    /// archive can have a million of them.
    times: BufWriter<File>,
    withheld: BufWriter<File>,
    limits: &'a Limits,
    counts: Counts,
    /// Whether modes given at creation count as they are, see [`private_umask`].
    exact_modes: bool,
}

/// Gives this thread a umask of its own, of zero, so that modes need no second system call. The thread must be one
/// that we made: the caller's umask is not ours to change. False where the kernel or a filter refuses.
pub(crate) fn private_umask() -> bool {
    let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok();
    if alone {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    }
    alone
}

fn failed(member: &[u8], doing: &str, errno: Errno) -> Refusal {
    Refusal { member: shown(member), message: doing.to_owned(), io: Some(errno.into()) }
}

fn refuse(member: &[u8], message: &str) -> Refusal {
    Refusal { member: shown(member), message: message.to_owned(), io: None }
}

/// Parent and last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

impl<'a> Unpacker<'a> {
    /// `root` is an empty directory of the caller; `times` and `withheld` are empty files outside it, `times` open
    /// for reading too.
    pub fn new(root: OwnedFd, times: File, withheld: File, limits: &'a Limits, exact_modes: bool) -> Unpacker<'a> {
        let (times, withheld) = (BufWriter::new(times), BufWriter::new(withheld));
        Unpacker { root, dirs: Vec::new(), times, withheld, limits, counts: Counts::default(), exact_modes }
    }

    /// Unpacks the whole stream and reads it to its end.
    pub fn run<R: BufRead>(mut self, reader: &mut Reader<R>) -> Result<Counts, Refusal> {
        while let Some(member) = reader.next()? {
            self.counts.members += 1;
            self.check_members(&member.path)?;
            self.counts.bytes = self.counts.bytes.saturating_add(member.size);
            if self.counts.bytes > self.limits.layer_bytes {
                return Err(refuse(&member.path, &format!("more than {} bytes in a layer", self.limits.layer_bytes)));
            }
            self.member(&member, reader)?;
        }
        self.remove_links_of_aufs()?;
        self.set_directory_times()?;
        self.withheld.flush().map_err(|e| self.spool_failed(e))?;
        Ok(self.counts)
    }

    /// Directories that nobody listed count too: a single path can have two thousand.
    fn check_members(&self, path: &[u8]) -> Result<(), Refusal> {
        if self.counts.members + self.counts.implied > self.limits.members {
            return Err(refuse(path, &format!("more than {} members in a layer", self.limits.members)));
        }
        Ok(())
    }

    fn member<R: BufRead>(&mut self, member: &Member, reader: &mut Reader<R>) -> Result<(), Refusal> {
        let path = &member.path[..];
        if path.is_empty() {
            if member.kind != Kind::Dir {
                return Err(refuse(b".", "the root of a layer must be a directory"));
            }
            rustix::fs::fchmod(&self.root, on_disk_mode(member)).map_err(|e| failed(b".", "setting its mode", e))?;
            self.remember_time(member)?;
            return self.withhold(member, Vec::new());
        }
        let (parent, name) = split(path);
        if is_of_aufs(parent) {
            // Hard links elsewhere may lead to such files, and they go at the end.
            if parent != AUFS_LINKS || member.kind != Kind::File {
                return Ok(());
            }
        } else if parent.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(refuse(path, "a member beneath a whiteout"));
        } else if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(member, parent, hidden);
        }
        let at = self.parent(path, parent)?;
        let mut left_out = Vec::new();
        match member.kind {
            Kind::File => left_out = self.file(at, member, name, reader)?,
            Kind::Dir => left_out = self.directory(at, member, name)?,
            Kind::Symlink => {
                let make = |dir: BorrowedFd<'_>| rustix::fs::symlinkat(&member.link[..], dir, name);
                self.create(at, path, name, make)?;
                self.set_time_of(at, member, name)?;
                left_out = member.xattrs.iter().collect();
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(member.mode & 0o1777);
                self.create(at, path, name, |dir| rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0))?;
                if !self.exact_modes {
                    // There is no link here to follow: the name was made just now, and the layer is ours alone.
                    let dir = self.dirs[at].1.as_fd();
                    rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
                        .map_err(|e| failed(path, "setting its mode", e))?;
                }
                self.set_time_of(at, member, name)?;
                left_out = member.xattrs.iter().collect();
            }
            Kind::HardLink => self.hard_link(at, member, name)?,
            // Not made: a device gives whoever reaches it the hardware, and a sandbox has a /dev of its own. What it
            // replaces goes; for the layers below see `implied`.
            Kind::CharDevice | Kind::BlockDevice => {
                self.remove(at, path, name)?;
                self.counts.devices += 1;
                left_out = member.xattrs.iter().collect();
            }
        }
        if member.kind == Kind::HardLink {
            return Ok(());
        }
        let left_out = left_out.into_iter().map(|(k, v)| (shown(k), hex(v))).collect();
        self.withhold(member, left_out)
    }

    fn file<'m, R: BufRead>(
        &mut self,
        at: usize,
        member: &'m Member,
        name: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<Vec<&'m Xattr>, Refusal> {
        let mode = on_disk_mode(member);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        self.create(at, &member.path, name, |dir| {
            file = Some(File::from(rustix::fs::openat(dir, name, flags, mode)?));
            Ok(())
        })?;
        let Some(mut file) = file else { return Ok(Vec::new()) };
        self.counts.tree_bytes += member.size;
        let failed_to_write =
            |e: std::io::Error| Refusal { member: shown(&member.path), message: "writing it".to_owned(), io: Some(e) };
        let whole = [Segment { offset: 0, len: member.size }];
        for segment in member.segments.as_deref().unwrap_or(&whole) {
            if member.segments.is_some() {
                file.seek(SeekFrom::Start(segment.offset)).map_err(failed_to_write)?;
            }
            let mut left = segment.len;
            while left > 0 {
                let piece = reader.piece()?;
                let bytes = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.write_all(&piece[..bytes]).map_err(failed_to_write)?;
                reader.consume(bytes);
                left -= bytes as u64;
            }
        }
        if member.segments.is_some() {
            file.set_len(member.size).map_err(failed_to_write)?;
        }
        let chmod = |mode| rustix::fs::fchmod(&file, mode).map_err(|e| failed(&member.path, "setting its mode", e));
        // Attributes are for those who may write to the file, whatever the descriptor may do.
        let closed = !member.xattrs.is_empty() && !mode.contains(Mode::WUSR);
        if closed {
            chmod(mode | Mode::WUSR)?;
        } else if !self.exact_modes {
            chmod(mode)?;
        }
        let left_out = set_xattrs(file.as_fd(), member)?;
        if closed {
            chmod(mode)?;
        }
        rustix::fs::futimens(&file, &times(member.mtime)).map_err(|e| failed(&member.path, "setting its time", e))?;
        Ok(left_out)
    }

    fn directory<'m>(&mut self, at: usize, member: &'m Member, name: &[u8]) -> Result<Vec<&'m Xattr>, Refusal> {
        let path = &member.path[..];
        let mode = on_disk_mode(member);
        let dir = self.dirs[at].1.as_fd();
        let mut hides_lower = false;
        let mut existed = false;
        match rustix::fs::mkdirat(dir, name, mode) {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed(path, "looking at what is there already", e))?;
                existed = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if !existed {
                    hides_lower = is_whiteout(&stat);
                    self.create(at, path, name, |dir| rustix::fs::mkdirat(dir, name, mode))?;
                }
            }
            other => other.map_err(|e| failed(path, "making a directory", e))?,
        }
        let opened = self.open_dir(at, path, name)?;
        if existed || !self.exact_modes {
            rustix::fs::fchmod(&opened, mode).map_err(|e| failed(path, "setting its mode", e))?;
        }
        if hides_lower {
            make_opaque(opened.as_fd(), path)?;
        }
        if existed {
            self.mark_listed(opened.as_fd(), path)?;
        }
        let left_out = set_xattrs(opened.as_fd(), member)?;
        self.remember_time(member)?;
        if !existed {
            self.keep_open(path, opened);
        }
        Ok(left_out)
    }

    fn hard_link(&mut self, at: usize, member: &Member, name: &[u8]) -> Result<(), Refusal> {
        let path = &member.path[..];
        let target = clean(&member.link).map_err(|why| refuse(path, why))?;
        let of_aufs = split(&target).0 == AUFS_LINKS;
        if target.is_empty() || !of_aufs && target.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(refuse(path, &format!("a hard link to {}, which is no file", shown(&target))));
        }
        if target == path {
            return Err(refuse(path, "a hard link to itself"));
        }
        let (target_parent, target_name) = split(&target);
        // The target's directory must be there: a link to a lower layer's file is not possible.
        let target_dir = resolve(self.root.as_fd(), target_parent).map_err(|e| {
            failed(path, &format!("a hard link to {}, which this layer does not have", shown(&target)), e)
        })?;
        let stat = rustix::fs::statat(&target_dir, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| {
            failed(path, &format!("a hard link to {}, which this layer does not have", shown(&target)), e)
        })?;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Directory | FileType::CharacterDevice) {
            return Err(refuse(path, &format!("a hard link to {}, which is no file", shown(&target))));
        }
        self.create(at, path, name, |dir| rustix::fs::linkat(&target_dir, target_name, dir, name, AtFlags::empty()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.counts.tree_bytes += stat.st_size as u64;
        }
        // The name that has the owner goes with the directory of aufs.
        if of_aufs { self.withhold(member, Vec::new()) } else { Ok(()) }
    }

    /// Makes something at a name; what this layer had there before is replaced, as by every unpacker.
    fn create(
        &mut self,
        at: usize,
        path: &[u8],
        name: &[u8],
        mut make: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<(), Refusal> {
        match make(self.dirs[at].1.as_fd()) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| failed(path, "making it", e)),
        }
        self.remove(at, path, name)?;
        make(self.dirs[at].1.as_fd()).map_err(|e| failed(path, "making it", e))
    }

    /// Takes away what this layer has at a name, if anything.
    fn remove(&mut self, at: usize, path: &[u8], name: &[u8]) -> Result<(), Refusal> {
        let dir = self.dirs[at].1.as_fd();
        let old = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(|e| failed(path, "looking at what is there already", e))?,
        };
        if FileType::from_raw_mode(old.st_mode) == FileType::RegularFile {
            self.counts.tree_bytes -= old.st_size as u64;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => return Err(refuse(path, "it would replace a directory that is not empty")),
                other => other,
            },
            other => other,
        }
        .map_err(|e| failed(path, "replacing what was there", e))?;
        // Paths through what is gone now lead elsewhere; the parent itself is still right. No path has a zero in it.
        for (index, (path, _)) in self.dirs.iter_mut().enumerate() {
            if index != at {
                *path = vec![0];
            }
        }
        Ok(())
    }

    /// Opens the parent of a member, making what the archive did not mention; the index is good until the next call.
    fn parent(&mut self, path: &[u8], parent: &[u8]) -> Result<usize, Refusal> {
        if let Some(at) = self.dirs.iter().rposition(|(open, _)| open == parent) {
            return Ok(at);
        }
        let dir = match resolve(self.root.as_fd(), parent) {
            // Not a directory: a whiteout perhaps, in whose place the layer has something new.
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path, parent)?,
            other => other.map_err(|e| match e {
                Errno::NOSYS => failed(path, "opening its directory safely needs openat2, Linux 5.6", e),
                _ => failed(path, "opening its directory", e),
            })?,
        };
        Ok(self.keep_open(parent, dir))
    }

    fn make_parents(&mut self, path: &[u8], parent: &[u8]) -> Result<OwnedFd, Refusal> {
        let mut dir = resolve(self.root.as_fd(), b"").map_err(|e| failed(path, "opening the root", e))?;
        let ends = parent.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([parent.len()]);
        for end in ends {
            let (_, name) = split(&parent[..end]);
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let made =
                        open_nofollow(dir.as_fd(), name).map_err(|e| failed(path, "opening its directory", e))?;
                    if !self.exact_modes {
                        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
                            .map_err(|e| failed(path, "making its directory", e))?;
                    }
                    rustix::fs::fsetxattr(&made, IMPLIED, b"y", XattrFlags::empty())
                        .map_err(|e| failed(path, "marking its directory as not listed", e))?;
                    self.counts.implied += 1;
                    self.check_members(path)?;
                }
                Err(Errno::EXIST) => self.replace_whiteout(dir.as_fd(), name, path)?,
                Err(e) => return Err(failed(path, "making its directory", e)),
            }
            dir = resolve(self.root.as_fd(), &parent[..end]).map_err(|e| match e {
                Errno::NOENT => refuse(path, "its path goes through a link that leads nowhere in this layer"),
                Errno::NOTDIR => failed(path, "its directory is no directory in this layer", e),
                e => failed(path, "opening its directory", e),
            })?;
        }
        Ok(dir)
    }

    fn keep_open(&mut self, path: &[u8], dir: OwnedFd) -> usize {
        if self.dirs.len() >= OPEN_DIRS {
            self.dirs.remove(0);
        }
        self.dirs.push((path.to_vec(), dir));
        self.dirs.len() - 1
    }

    fn open_dir(&self, at: usize, path: &[u8], name: &[u8]) -> Result<OwnedFd, Refusal> {
        open_nofollow(self.dirs[at].1.as_fd(), name).map_err(|e| failed(path, "opening it", e))
    }

    fn set_time_of(&self, at: usize, member: &Member, name: &[u8]) -> Result<(), Refusal> {
        rustix::fs::utimensat(&self.dirs[at].1, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(&member.path, "setting its time", e))
    }

    fn remember_time(&mut self, member: &Member) -> Result<(), Refusal> {
        let (seconds, nanoseconds) = member.mtime;
        let mut record = Vec::with_capacity(member.path.len() + 14);
        record.extend_from_slice(&(member.path.len() as u16).to_le_bytes());
        record.extend_from_slice(&seconds.to_le_bytes());
        record.extend_from_slice(&nanoseconds.to_le_bytes());
        record.extend_from_slice(&member.path);
        self.times.write_all(&record).map_err(|e| self.spool_failed(e))
    }

    fn set_directory_times(&mut self) -> Result<(), Refusal> {
        self.times.flush().map_err(|e| self.spool_failed(e))?;
        self.times.get_mut().seek(SeekFrom::Start(0)).map_err(|e| self.spool_failed(e))?;
        let mut spool = std::io::BufReader::new(self.times.get_ref());
        let mut head = [0u8; 14];
        let mut path = Vec::new();
        while !spool.fill_buf().map_err(|e| self.spool_failed(e))?.is_empty() {
            spool.read_exact(&mut head).map_err(|e| self.spool_failed(e))?;
            let number = |range: std::ops::Range<usize>| {
                head[range].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            path.resize(number(0..2) as usize, 0);
            spool.read_exact(&mut path).map_err(|e| self.spool_failed(e))?;
            let mtime = (number(2..10) as i64, number(10..14) as u32);
            // Gone or replaced by a later member: then there is no time to set.
            let Ok(dir) = resolve(self.root.as_fd(), &path) else { continue };
            rustix::fs::futimens(&dir, &times(mtime)).map_err(|e| failed(&path, "setting its time", e))?;
        }
        Ok(())
    }

    fn withhold(&mut self, member: &Member, xattrs: Vec<(String, String)>) -> Result<(), Refusal> {
        let device = match member.kind {
            Kind::CharDevice => Some(('c', member.device.0, member.device.1)),
            Kind::BlockDevice => Some(('b', member.device.0, member.device.1)),
            _ => None,
        };
        let same_mode = member.kind == Kind::Symlink || on_disk_mode(member).as_raw_mode() == member.mode;
        if (member.uid, member.gid) == (0, 0) && same_mode && device.is_none() && xattrs.is_empty() {
            return Ok(());
        }
        let path = escape(&member.path);
        let record = Withheld { path, uid: member.uid, gid: member.gid, mode: member.mode, device, xattrs };
        let mut line = serde_json::to_vec(&record).map_err(|e| self.spool_failed(e.into()))?;
        line.push(b'\n');
        self.withheld.write_all(&line).map_err(|e| self.spool_failed(e))
    }

    fn spool_failed(&self, error: std::io::Error) -> Refusal {
        Refusal {
            member: String::new(),
            message: "writing what the layer's tree cannot say".to_owned(),
            io: Some(error),
        }
    }
}

/// Opens a directory of the layer for real, so that attributes can be set on it. Links on the way are followed as they
/// would be inside the running image: the layer's root is their `/` and its own parent.
fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    undisturbed(|| rustix::fs::openat2(root, path, flags, Mode::empty(), how))
}

/// Again where something was renamed or mounted elsewhere in the system while the kernel walked a `..` of a link.
pub(super) fn undisturbed<T>(open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut attempts = 0;
    loop {
        match open() {
            Err(Errno::AGAIN) if attempts < 64 => attempts += 1,
            other => return other,
        }
    }
}

fn open_nofollow(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn make_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Refusal> {
    rustix::fs::fsetxattr(dir, "user.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(|e| failed(path, "marking its directory as opaque", e))
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Sets what is harmless and gives back the rest: only `user.*` is an image's to set, and of that not overlay's own,
/// which would make the kernel see whiteouts, redirects and other files' content where the image says so.
fn set_xattrs<'m>(file: BorrowedFd<'_>, member: &'m Member) -> Result<Vec<&'m Xattr>, Refusal> {
    let mut left_out = Vec::new();
    for attribute in &member.xattrs {
        let (name, value) = attribute;
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            left_out.push(attribute);
            continue;
        }
        rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty())
            .map_err(|e| failed(&member.path, &format!("setting its attribute {}", shown(name)), e))?;
    }
    Ok(left_out)
}

/// No set-id bits, and directories let their owner in whatever the archive says.
fn on_disk_mode(member: &Member) -> Mode {
    let open = if member.kind == Kind::Dir { 0o700 } else { 0 };
    Mode::from_raw_mode(member.mode & 0o1777 | open)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Any path as printable ASCII, back with [`unescape`].
pub(crate) fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                path.push(value);
                rest = &after[2..];
            }
            None => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    path
}
