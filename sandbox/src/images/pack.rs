//! A directory, or an overlay's upper, as a tar that is the same for the same files: members in the order of their
//! bytes, whole seconds, no names of users, pax headers only where a plain one does not suffice.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::store::because;
use super::stream::CHUNK;
use super::tar::{BLOCK, Kind, PATH_LIMIT, Xattr, shown};
use crate::error::{Failure, Result};
use crate::subid_tree::Reach;
use crate::sys::beneath::{self, Opener};

/// A run of ids, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the image.
    pub inside: u32,
    /// First id on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// Whom packed files belong to in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    as_they_are: bool,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

impl Owners {
    /// To the ids that they have here.
    pub fn as_they_are() -> Owners {
        Owners { as_they_are: true, uids: Vec::new(), gids: Vec::new() }
    }

    /// To root: right for a sandbox with a single id.
    pub fn root() -> Owners {
        Owners::mapped(Vec::new(), Vec::new())
    }

    /// Through the maps of the sandbox that wrote them; an id outside the maps becomes root.
    pub fn mapped(uids: Vec<IdRange>, gids: Vec<IdRange>) -> Owners {
        Owners { as_they_are: false, uids, gids }
    }

    /// To whom they belonged in the run that wrote this kept upper (the directory given as
    /// [`Upper::Dir`](crate::Upper::Dir)): the ids of a run of several are noted there; else to root.
    ///
    /// # Errors
    /// `Setup` where the note cannot be read.
    pub fn of_upper(dir: &Path) -> Result<Owners> {
        let Some(record) = crate::ids::record::read(dir)? else { return Ok(Owners::root()) };
        let ranges = |map: &crate::ids::IdMap| {
            map.lines().iter().map(|l| IdRange { inside: l.inside, host: l.host, count: l.count }).collect()
        };
        let owners = Owners::mapped(ranges(&record.uids), ranges(&record.gids));
        // Whoever the only one was: another run is somebody else.
        Ok(if owners.has_several() { owners } else { Owners::root() })
    }

    /// Whether root is one of several, so that what is root's is so on purpose.
    fn has_several(&self) -> bool {
        self.uids.iter().map(|range| u64::from(range.count)).sum::<u64>() > 1
    }

    fn ids(&self, uid: u32, gid: u32) -> (u32, u32) {
        let inside = |ranges: &[IdRange], id: u32| {
            let range = ranges.iter().find(|r| id >= r.host && id - r.host < r.count);
            range.map_or(0, |r| r.inside + (id - r.host))
        };
        if self.as_they_are { (uid, gid) } else { (inside(&self.uids, uid), inside(&self.gids, gid)) }
    }
}

/// Owner, group and mode of the layers below, for what was copied up from them (paths in bytes).
pub(crate) type Below = HashMap<Vec<u8>, (u32, u32, u32)>;

/// Writes tars.
pub(crate) struct TarWriter<W> {
    out: W,
    pub bytes: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct NewMember<'a> {
    pub path: &'a [u8],
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: i64,
    pub link: &'a [u8],
    pub xattrs: &'a [Xattr],
}

impl<'a> NewMember<'a> {
    pub fn file(path: &'a [u8], size: u64) -> NewMember<'a> {
        NewMember { path, kind: Kind::File, mode: 0o644, uid: 0, gid: 0, size, mtime: 0, link: b"", xattrs: &[] }
    }
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out, bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// A header; the content follows with [`content`](TarWriter::content).
    pub fn header(&mut self, member: &NewMember<'_>) -> io::Result<()> {
        self.header_with(member, Vec::new())
    }

    /// A file with holes, of which only the segments (offset and length) are written: version 1.0 of GNU's pax forms. Not for
    /// layers, in which the specification of images does not want it.
    #[cfg(feature = "cli")]
    pub fn sparse(&mut self, member: &NewMember<'_>, segments: &[(u64, u64)], data: impl Read) -> io::Result<()> {
        let mut map = format!("{}\n", segments.len() + 1);
        // The last one is empty and tells GNU tar where the file ends.
        for (offset, len) in segments.iter().chain([&(member.size, 0)]) {
            map += &format!("{offset}\n{len}\n");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let size = map.len() as u64 + segments.iter().map(|(_, len)| len).sum::<u64>();
        let name = member.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let path = [b"GNUSparseFile.0/", name].concat();
        let extended = [("major", b"1".to_vec()), ("minor", b"0".to_vec()), ("name", member.path.to_vec())];
        let length = ("realsize", member.size.to_string().into_bytes());
        let key = |key: &str| format!("GNU.sparse.{key}").into_bytes();
        let extended = extended.into_iter().chain([length]).map(|(name, value)| (key(name), value)).collect();
        self.header_with(&NewMember { path: &path, size, ..*member }, extended)?;
        self.content(size, map.as_slice().chain(data))
    }

    /// With records of an extended header besides those that the member needs.
    fn header_with(&mut self, member: &NewMember<'_>, mut pax: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let mut path = member.path.to_vec();
        if member.kind == Kind::Dir {
            path.push(b'/');
        }
        let mut number = |key: &[u8], value: u64, digits: u32| {
            if value >> (3 * digits) == 0 {
                return value;
            }
            pax.push((key.to_vec(), value.to_string().into_bytes()));
            0
        };
        let uid = number(b"uid", u64::from(member.uid), 7);
        let gid = number(b"gid", u64::from(member.gid), 7);
        let size = number(b"size", member.size, 11);
        let mtime = match u64::try_from(member.mtime) {
            Ok(mtime) => number(b"mtime", mtime, 11),
            Err(_) => {
                pax.push((b"mtime".to_vec(), member.mtime.to_string().into_bytes()));
                0
            }
        };
        let mut name = |key: &[u8], value: &[u8]| {
            if value.len() > 100 || !value.is_ascii() {
                pax.push((key.to_vec(), value.to_vec()));
            }
            value[..value.len().min(100)].to_vec()
        };
        let short = name(b"path", &path);
        let link = name(b"linkpath", member.link);
        for (key, value) in member.xattrs {
            pax.push(([b"SCHILY.xattr.", &key[..]].concat(), value.clone()));
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let header = block(b"PaxHeaders/member", b'x', 0o644, [0, 0], records.len() as u64, 0, b"");
            self.put(&header)?;
            self.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        let kind = match member.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Dir => b'5',
            Kind::Fifo => b'6',
        };
        self.put(&block(&short, kind, member.mode, [uid, gid], size, mtime, &link))
    }

    pub fn content(&mut self, size: u64, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = from.read(&mut buffer[..most])?;
            if bytes == 0 {
                return Err(io::Error::other("it became shorter while it was read"));
            }
            self.put(&buffer[..bytes])?;
            left -= bytes as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.put(&[0; BLOCK][..padding])
    }

    /// The end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn block(name: &[u8], kind: u8, mode: u32, ids: [u64; 2], size: u64, mtime: u64, link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{:07o}", ids[0]).as_bytes());
    put(116, format!("{:07o}", ids[1]).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The length of a pax record counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// What is done to reach all files of a tree, for errors.
fn failed(dir: &Path, path: &[u8], doing: &str, error: impl Into<io::Error>) -> crate::Error {
    let error = error.into();
    let subject = format!("{}/{}", dir.display(), shown(path));
    let failure = Failure::new("image-pack", subject, doing);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.cause(&error).hint("pack it as the user whom the files belong to").setup()
        }
        _ => because(failure, &error),
    }
}

/// Packs a tree; an overlay's whiteouts and opaque directories become OCI's.
///
/// Directories are opened anew from the root, never through a link: a program may have written this tree.
/// `latest`: no file is to seem younger.
pub(crate) fn pack<W: Write>(
    dir: &Path,
    out: W,
    owners: &Owners,
    below: Option<&Below>,
    latest: Option<i64>,
) -> Result<W> {
    let root = beneath::top(dir).map_err(|e| failed(dir, b"", "opening a directory", e))?;
    pack_opened(dir, root, out, owners, below, latest)
}

/// The same for a directory that is open. `dir` stands in errors.
pub(crate) fn pack_opened<W: Write>(
    dir: &Path,
    root: OwnedFd,
    out: W,
    owners: &Owners,
    below: Option<&Below>,
    latest: Option<i64>,
) -> Result<W> {
    let mut packer = Packer {
        dir,
        root,
        owners,
        below,
        tar: TarWriter::new(out),
        links: HashMap::new(),
        reach: Reach::default(),
        latest,
    };
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let mut inner = packer.directory(&path)?;
        // A stack: the first is packed next.
        inner.reverse();
        pending.extend(inner);
    }
    packer.tar.finish().map_err(|e| failed(dir, b"", "writing a tar", e))
}

struct Packer<'a, W> {
    dir: &'a Path,
    root: OwnedFd,
    owners: &'a Owners,
    below: Option<&'a Below>,
    tar: TarWriter<W>,
    /// Files with several names that were packed once.
    links: HashMap<(u64, u64), Vec<u8>>,
    reach: Reach,
    latest: Option<i64>,
}

impl<W: Write> Packer<'_, W> {
    fn failed(&self, path: &[u8], doing: &str, error: impl Into<io::Error>) -> crate::Error {
        failed(self.dir, path, doing, error)
    }

    fn refuse(&self, path: &[u8], message: &str) -> crate::Error {
        Failure::new("image-pack", format!("{}/{}", self.dir.display(), shown(path)), message).setup()
    }

    /// Packs a directory with everything in it but its directories, whose paths it gives back in order.
    fn directory(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        if path.len() > PATH_LIMIT - 300 {
            return Err(self.refuse(path, "too deep for an archive"));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = (self.reach.open_below(self.root.as_fd(), Path::new(OsStr::from_bytes(path)), flags))
            .map_err(|e| self.failed(path, "opening a directory", e))?;
        let stat = fstat(&dir).map_err(|e| self.failed(path, "opening a directory", e))?;
        let (xattrs, opaque) = self.xattrs(dir.as_fd(), path)?;
        self.add(path, Kind::Dir, &stat, b"", &xattrs)?;
        if opaque {
            let marker = joined(path, b".wh..wh..opq");
            self.tar.header(&NewMember::file(&marker, 0)).map_err(|e| self.failed(path, "writing a tar", e))?;
        }
        let names = beneath::names(dir.as_fd()).map_err(|e| self.failed(path, "listing a directory", e))?;
        let mut inner = Vec::new();
        for name in names {
            let path = joined(path, name.to_bytes());
            if name.to_bytes().starts_with(b".wh.") {
                return Err(self.refuse(&path, "a name that begins with .wh. would be a whiteout in a layer"));
            }
            let stat = self.reach.stat(dir.as_fd(), &name).map_err(|e| self.failed(&path, "looking at a file", e))?;
            match beneath::kind(&stat) {
                SFlag::S_IFDIR => inner.push(path),
                _ => self.entry(dir.as_fd(), &name, path, &stat)?,
            }
        }
        Ok(inner)
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: Vec<u8>, stat: &FileStat) -> Result<()> {
        let kind = beneath::kind(stat);
        if beneath::is_whiteout(stat) {
            let (parent, name) = path.split_at(path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1));
            let marker = [parent, b".wh.", name].concat();
            let header = NewMember::file(&marker, 0);
            return self.tar.header(&header).map_err(|e| self.failed(&path, "writing a tar", e));
        }
        if stat.st_nlink > 1 && matches!(kind, SFlag::S_IFREG | SFlag::S_IFLNK) {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.add(&path, Kind::HardLink, stat, &first, &[]);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            SFlag::S_IFREG => self.file(dir, name, &path, stat),
            SFlag::S_IFLNK => {
                let target = self.reach.read_link(dir, name).map_err(|e| self.failed(&path, "reading a link", e))?;
                self.add(&path, Kind::Symlink, stat, target.as_bytes(), &[])
            }
            SFlag::S_IFIFO => self.add(&path, Kind::Fifo, stat, b"", &[]),
            // A socket means nothing without its process, and tar has no kind for it; a device is not an image's.
            _ => Ok(()),
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], stat: &FileStat) -> Result<()> {
        // From here on by descriptor: a program that still runs may put something else in its place.
        let place = self.reach.open(dir, name, OFlag::O_PATH).map_err(|e| self.failed(path, "opening a file", e))?;
        let found = fstat(&place).map_err(|e| self.failed(path, "opening a file", e))?;
        if beneath::identity(&found) != beneath::identity(stat) || beneath::kind(&found) != SFlag::S_IFREG {
            return Err(self.refuse(path, "it was replaced while it was read"));
        }
        let file = match self.reach.reopen(place.as_fd()) {
            // The owner's own file that even its owner may not read, such as /etc/gshadow: let us in for a moment.
            Err(Errno::EACCES) if found.st_uid == nix::unistd::geteuid().as_raw() => {
                let mode = found.st_mode & 0o7777;
                beneath::chmod(place.as_fd(), mode | 0o400).map_err(|e| self.failed(path, "opening a file", e))?;
                let file = self.reach.reopen(place.as_fd());
                beneath::chmod(place.as_fd(), mode).map_err(|e| self.failed(path, "restoring a mode", e))?;
                file
            }
            other => other,
        }
        .map_err(|e| self.failed(path, "opening a file", e))?;
        let opened = fstat(&file).map_err(|e| self.failed(path, "opening a file", e))?;
        let (xattrs, _) = self.xattrs(file.as_fd(), path)?;
        self.add(path, Kind::File, &opened, b"", &xattrs)?;
        let size = opened.st_size as u64;
        self.tar.content(size, File::from(file)).map_err(|e| self.failed(path, "reading a file", e))
    }

    fn add(&mut self, path: &[u8], kind: Kind, stat: &FileStat, link: &[u8], xattrs: &[Xattr]) -> Result<()> {
        let (mut uid, mut gid) = self.owners.ids(stat.st_uid, stat.st_gid);
        let mut mode = if kind == Kind::Symlink { 0o777 } else { stat.st_mode & 0o7777 };
        // A run of one id has everything as its user's: what was copied up gets its owner back.
        if (uid, gid) == (0, 0)
            && let Some((below_uid, below_gid, below_mode)) = self.below.and_then(|below| below.get(path))
        {
            if !self.owners.has_several() {
                (uid, gid) = (*below_uid, *below_gid);
            }
            if kind == Kind::Dir && mode == below_mode & 0o1777 | 0o700 {
                mode = *below_mode;
            }
        }
        let path = if path.is_empty() { b"." } else { path };
        let size = if kind == Kind::File { stat.st_size as u64 } else { 0 };
        let mtime = self.latest.map_or(stat.st_mtime, |latest| latest.min(stat.st_mtime));
        let member = NewMember { path, kind, mode, uid, gid, size, mtime, link, xattrs };
        self.tar.header(&member).map_err(|e| self.failed(path, "writing a tar", e))
    }

    /// Attributes that belong into an image, and whether overlayfs calls the directory opaque.
    fn xattrs(&self, file: BorrowedFd<'_>, path: &[u8]) -> Result<(Vec<Xattr>, bool)> {
        let mut list = vec![0u8; 64 << 10];
        let length = match rustix::fs::flistxattr(file, &mut list[..]) {
            Err(rustix::io::Errno::NOTSUP) => return Ok((Vec::new(), false)),
            other => other.map_err(|e| self.failed(path, "listing attributes", e))?,
        };
        let mut xattrs = Vec::new();
        let mut opaque = false;
        for name in list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let overlay = name.strip_prefix(b"user.overlay.").or_else(|| name.strip_prefix(b"trusted.overlay."));
            if overlay.is_none() && !name.starts_with(b"user.") && name != b"security.capability" {
                continue;
            }
            let mut value = vec![0u8; 64 << 10];
            let c_name =
                CString::new(name).map_err(|e| self.failed(path, "reading an attribute", io::Error::other(e)))?;
            let length = (self.reach.attribute(file, &c_name, &mut value[..]))
                .map_err(|e| self.failed(path, &format!("reading attribute {}", shown(name)), e))?;
            value.truncate(length);
            match overlay {
                Some(b"opaque") => opaque = matches!(&value[..], b"y" | b"x"),
                Some(b"redirect" | b"metacopy") => {
                    return Err(
                        self.refuse(path, "its content is in another layer (overlay redirect); mount without it")
                    );
                }
                Some(_) => {}
                None if name == b"security.capability" => xattrs.push((name.to_vec(), plain_capability(value))),
                None => xattrs.push((name.to_vec(), value)),
            }
        }
        xattrs.sort();
        Ok((xattrs, opaque))
    }
}

/// Capabilities of a file that were given in a user namespace name its root on this host (version 3); an image has
/// them without (version 2).
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
