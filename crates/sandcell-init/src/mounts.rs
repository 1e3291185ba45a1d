//! The new root: every destination is resolved beneath it, whatever the layers contain.

use core::ffi::CStr;

use crate::rawsys;
use crate::socket::MOST_DESCRIPTORS;
use crate::text::Text;
use crate::wire::{self, NO_SLOT, SLOTS, stage};
use crate::{At, Fault};

const OPEN_TREE_CLONE: usize = 1;
const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
const MOVE_MOUNT_T_EMPTY_PATH: usize = 0x40;
const MS_RDONLY: usize = 1;
const MS_NOSUID: usize = 2;
const MS_NODEV: usize = 4;
const MS_BIND: usize = 1 << 12;
const MS_REC: usize = 1 << 14;
const MS_PRIVATE: u64 = 1 << 18;
const MNT_DETACH: usize = 2;
const RESOLVE_NO_MAGICLINKS: u64 = 0x2;
const RESOLVE_IN_ROOT: u64 = 0x10;
const ELOOP: i32 = 40;
const INERT: u64 = wire::ATTR_RDONLY | wire::ATTR_NOSUID | wire::ATTR_NODEV | wire::ATTR_NOEXEC;
/// mount(2) takes a page of options.
const OPTIONS: usize = 4096;

/// The tree as it grows. Descriptors are 0 while there is none: that is the control socket's number.
pub struct Tree {
    /// What is held open for later steps. Whoever closes one takes it out: while the network is made beside, the
    /// number may be somebody else's at once.
    slots: [i32; SLOTS],
    base: i32,
    root: i32,
    /// The root is an overlay of ours.
    overlay: bool,
    pub upper: i32,
    /// Mounts that came with the Plan.
    given: [i32; MOST_DESCRIPTORS],
    /// The Landlock ruleset in the making.
    pub landlock: i32,
    /// The POSIX message queues, until Landlock has its rule for them.
    pub mqueue: i32,
}

static mut TREE: Tree = Tree {
    slots: [0; SLOTS],
    base: 0,
    root: 0,
    overlay: false,
    upper: 0,
    given: [-1; MOST_DESCRIPTORS],
    landlock: 0,
    mqueue: 0,
};

/// The one tree of this process.
pub fn tree() -> &'static mut Tree {
    // SAFETY: one thread, and the reference is taken once, by `setup::carry_out`.
    unsafe { &mut *(&raw mut TREE) }
}

/// Sets attributes on a mount and, with `recursive`, on those beneath it; cuts them off from their peers too.
pub fn set_attributes(fd: i32, set: u64, recursive: bool) -> Result<(), i32> {
    set_attributes_at(fd, c"", set, recursive)
}

fn set_attributes_at(dir: i32, path: &CStr, set: u64, recursive: bool) -> Result<(), i32> {
    let flags = rawsys::AT_EMPTY_PATH | if recursive { rawsys::AT_RECURSIVE } else { 0 };
    // Nothing is cleared.
    rawsys::mount_setattr(dir, path, flags, &[set, 0, MS_PRIVATE, 0])
}

/// mount(2) with MS_BIND. Both paths are relative to base, the working directory while everything is made.
fn bind_within(from: &CStr, to: &CStr, flags: usize) -> Result<(), i32> {
    rawsys::mount(from, to, MS_BIND | flags)
}

/// Whether a destination is a path in base; see `Step`.
fn in_base(dest: &CStr) -> bool {
    !dest.to_bytes().starts_with(b"/")
}

pub fn attach(fd: i32, to: i32) -> Result<(), i32> {
    rawsys::move_mount(fd, c"", to, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
}

/// Attaches a mount to a path whose names are our own.
fn attach_at(fd: i32, dir: i32, path: &CStr) -> Result<(), i32> {
    rawsys::move_mount(fd, c"", dir, path, MOVE_MOUNT_F_EMPTY_PATH)
}

pub fn clone_tree(dir: i32, path: &CStr, flags: usize) -> Result<i32, i32> {
    rawsys::open_tree(dir, path, OPEN_TREE_CLONE | flags)
}

pub fn open(dir: i32, path: &CStr, flags: usize, mode: u32) -> Result<i32, i32> {
    rawsys::openat(dir, path, flags, mode)
}

/// Cuts everything below / off from the host's mounts.
pub fn private() -> Result<(), Fault> {
    rawsys::mount(c"none", c"/", MS_REC | MS_PRIVATE as usize).at(stage::PRIVATE_MOUNTS)
}

/// A new, detached file system.
pub fn new_fs(kind: &CStr, options: &[u8], attributes: u64, stages: [u32; 3]) -> Result<i32, Fault> {
    const FSOPEN_CLOEXEC: usize = 1;
    const FSMOUNT_CLOEXEC: usize = 1;
    let context = rawsys::fsopen(kind, FSOPEN_CLOEXEC).at(stages[0])?;
    for option in options.split_inclusive(|&byte| byte == 0) {
        set_option(context, option).at(stages[1])?;
    }
    rawsys::fsconfig_create(context).at(stages[1])?;
    let mount = rawsys::fsmount(context, FSMOUNT_CLOEXEC, attributes).at(stages[2])?;
    rawsys::close(context);
    Ok(mount)
}

/// `option`: a name, or a name and its value with `=` in between, and a NUL.
fn set_option(context: i32, option: &[u8]) -> Result<(), i32> {
    let text = |bytes| CStr::from_bytes_with_nul(bytes).map_err(|_| rawsys::EINVAL);
    let Some(at) = option.iter().position(|&byte| byte == b'=') else {
        return rawsys::fsconfig_flag(context, text(option)?);
    };
    let mut name = [0u8; 64];
    let name = name.get_mut(..=at).ok_or(rawsys::EINVAL)?;
    name[..at].copy_from_slice(&option[..at]);
    rawsys::fsconfig_string(context, text(name)?, text(&option[at + 1..])?)
}

impl Tree {
    fn slot(&mut self, slot: u32) -> Result<&mut i32, Fault> {
        self.slots.get_mut(slot as usize).ok_or(Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO })
    }

    pub fn open_dir(&mut self, slot: u32, path: &CStr) -> Result<(), Fault> {
        let fd = open(rawsys::AT_FDCWD, path, rawsys::O_PATH | rawsys::O_DIRECTORY, 0).at(stage::OPEN_DIR)?;
        *self.slot(slot)? = fd;
        Ok(())
    }

    pub fn open_tree(&mut self, slot: u32, path: &CStr) -> Result<(), Fault> {
        let fd = clone_tree(rawsys::AT_FDCWD, path, rawsys::AT_RECURSIVE).at(stage::OPEN_TREE)?;
        *self.slot(slot)? = fd;
        Ok(())
    }

    pub fn give(&mut self, mounts: &[i32]) {
        self.given[..mounts.len()].copy_from_slice(mounts);
    }

    pub fn take_tree(&mut self, slot: u32, index: u32) -> Result<(), Fault> {
        let protocol = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
        *self.slot(slot)? = self.given.get(index as usize).copied().filter(|fd| *fd >= 0).ok_or(protocol)?;
        Ok(())
    }

    /// Overlays take attached mounts only (before Linux 6.15). This one goes with the old root.
    pub fn attach_tree(&mut self, slot: u32, path: &CStr) -> Result<(), Fault> {
        attach_at(*self.slot(slot)?, self.base, path).at(stage::ROOT_ATTACH)?;
        Ok(())
    }

    pub fn open_in(&mut self, slot: u32, tree: u32, path: &CStr, make: bool) -> Result<(), Fault> {
        if make {
            rawsys::mkdirat(*self.slot(tree)?, path, 0o755).at(stage::DIR)?;
        }
        let flags = rawsys::O_PATH | rawsys::O_DIRECTORY | rawsys::O_NOFOLLOW;
        *self.slot(slot)? = open(*self.slot(tree)?, path, flags, 0).at(stage::OPEN_DIR)?;
        Ok(())
    }

    /// Mounts base over /dev of the old root, from which everything has been taken by now. Not over /: then two
    /// mounts would have to be let go of at the end, each with a wait for RCU.
    pub fn base(&mut self, size: u64, inodes: u64) -> Result<(), Fault> {
        let mut options = Text::<96>::new();
        options.push(b"mode=0755\0");
        for (name, value) in [(b"size=", size), (b"nr_inodes=".as_slice(), inodes)] as [(&[u8], u64); 2] {
            if value > 0 {
                options.push(name);
                options.push_number(value);
                options.push(b"\0");
            }
        }
        self.base = new_fs(
            c"tmpfs",
            options.bytes(),
            wire::ATTR_NOSUID | wire::ATTR_NODEV,
            [stage::BASE_OPEN, stage::BASE_OPTION, stage::BASE_MOUNT],
        )?;
        let place = open(rawsys::AT_FDCWD, c"/dev", rawsys::O_PATH | rawsys::O_DIRECTORY, 0).at(stage::BASE_ATTACH)?;
        attach(self.base, place).at(stage::BASE_ATTACH)?;
        rawsys::close(place);
        self.enter_base().at(stage::BASE_ATTACH)?;
        self.dir(wire::NEW, 0o755)?;
        self.dir(wire::INERT_VIEW, 0o755)?;
        bind_within(c".", wire::INERT_VIEW, 0).at(stage::BASE_ATTACH)?;
        set_attributes_at(self.base, wire::INERT_VIEW, INERT, false).at(stage::BASE_ATTACH)?;
        Ok(())
    }

    fn enter_base(&self) -> Result<(), i32> {
        rawsys::fchdir(self.base)
    }

    pub fn dir(&self, path: &CStr, mode: u32) -> Result<(), Fault> {
        // The caller's umask must not matter; init's is 0.
        match rawsys::mkdirat(self.base, path, mode) {
            Ok(_) | Err(rawsys::EEXIST) => Ok(()),
            Err(errno) => Err(Fault { stage: stage::DIR, errno }),
        }
    }

    pub fn file(&self, path: &CStr, mode: u32, content: &[u8]) -> Result<(), Fault> {
        if content.is_empty() {
            const S_IFREG: u32 = 0o100000;
            return match rawsys::mknodat(self.base, path, S_IFREG | mode) {
                // A mount point that two requests share is made once.
                Ok(_) | Err(rawsys::EEXIST) => Ok(()),
                Err(errno) => Err(Fault { stage: stage::FILE, errno }),
            };
        }
        let flags = rawsys::O_CREAT | rawsys::O_EXCL | rawsys::O_WRONLY;
        let fd = open(self.base, path, flags, mode).at(stage::FILE)?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rawsys::write(fd, rest).at(stage::FILE)?;
            rest = &rest[written..];
        }
        rawsys::close(fd);
        Ok(())
    }

    pub fn symlink(&self, path: &CStr, target: &CStr) -> Result<(), Fault> {
        rawsys::symlinkat(target, self.base, path).at(stage::SYMLINK)?;
        Ok(())
    }

    fn attach_root(&mut self, mount: i32) -> Result<(), Fault> {
        attach_at(mount, self.base, wire::NEW).at(stage::ROOT_ATTACH)?;
        self.root = mount;
        Ok(())
    }

    pub fn root_base(&mut self, path: &CStr) -> Result<(), Fault> {
        let mount = clone_tree(self.base, path, 0).at(stage::ROOT_TREE)?;
        self.attach_root(mount)
    }

    pub fn root_tree(&mut self, slot: u32, attributes: u64) -> Result<(), Fault> {
        let mount = core::mem::take(self.slot(slot)?);
        set_attributes(mount, attributes, true).at(stage::ROOT_ATTRIBUTES)?;
        self.attach_root(mount)
    }

    /// The layers are named by descriptor, relative to /proc/self/fd: short, nothing to escape, no path of the host
    /// in the sandbox's mount table, and each layer is the directory that was opened, whatever happens to its path.
    pub fn root_overlay(
        &mut self,
        lower: &[u8],
        upper: u32,
        work: u32,
        writable: bool,
        keep: bool,
    ) -> Result<(), Fault> {
        let mut options = Text::<OPTIONS>::new();
        options.push(b"userxattr,lowerdir=");
        for slot in lower.chunks_exact(4) {
            let mut number = [0; 4];
            number.copy_from_slice(slot);
            options.push_number(*self.slot(u32::from_le_bytes(number))? as u64);
            options.push(b":");
        }
        let dir = rawsys::O_PATH | rawsys::O_DIRECTORY;
        let stub = open(self.base, c"stub", dir, 0).at(stage::OVERLAY_OPEN)?;
        options.push_number(stub as u64);
        rawsys::chdir(c"/proc/self/fd").at(stage::OVERLAY_OPEN)?;
        let mut flags = MS_NOSUID | MS_NODEV;
        if writable {
            let upper = if upper == NO_SLOT {
                open(self.base, c"upper", dir, 0).at(stage::OVERLAY_OPEN)?
            } else {
                *self.slot(upper)?
            };
            let work = if work == NO_SLOT {
                open(self.base, c"work", dir, 0).at(stage::OVERLAY_OPEN)?
            } else {
                *self.slot(work)?
            };
            // Some file systems (tmpfs before Linux 6.6) mount as an upper and then fail at the first whiteout.
            let mut name = Text::<16>::new();
            name.push_number(upper as u64);
            name.push(b"\0");
            let (name, attribute) = (name.c_str().at(stage::OVERLAY_UPPER)?, c"user.overlay.sandcell");
            rawsys::setxattr(name, attribute, b"y").at(stage::OVERLAY_UPPER)?;
            rawsys::removexattr(name, attribute).at(stage::OVERLAY_UPPER)?;
            options.push(b",upperdir=");
            options.push_number(upper as u64);
            options.push(b",workdir=");
            options.push_number(work as u64);
            if !keep {
                options.push(b",volatile");
            }
            self.upper = upper;
        } else {
            flags |= MS_RDONLY;
        }
        options.push(b"\0");
        let mut target = Text::<16>::new();
        let place = open(self.base, wire::NEW, dir, 0).at(stage::ROOT_ATTACH)?;
        target.push_number(place as u64);
        target.push(b"\0");
        let (target, options) = (target.c_str().at(stage::OVERLAY_MOUNT)?, options.c_str().at(stage::OVERLAY_MOUNT)?);
        rawsys::mount_new(c"overlay", target, flags, options).at(stage::OVERLAY_MOUNT)?;
        rawsys::close(place);
        self.enter_base().at(stage::OVERLAY_OPEN)?;
        self.overlay = true;
        self.root = open(self.base, wire::NEW, dir, 0).at(stage::ROOT_ATTACH)?;
        Ok(())
    }

    /// Covers a directory of the new root by itself and the mount points that it lacks. Nothing is ever written there.
    pub fn overlay(
        &mut self,
        slot: u32,
        points: &CStr,
        above: bool,
        dest: &CStr,
        attributes: u64,
    ) -> Result<(), Fault> {
        let dir = rawsys::O_PATH | rawsys::O_DIRECTORY;
        let points = open(self.base, points, dir, 0).at(stage::OVERLAY_OPEN)?;
        let place = self.beneath(dest, dir).at(stage::MOUNT_POINT)?;
        let source = core::mem::take(self.slot(slot)?);
        let (top, bottom) = if above { (points, source) } else { (source, points) };
        let mut options = Text::<64>::new();
        options.push(b"userxattr,lowerdir=");
        options.push_number(top as u64);
        options.push(b":");
        options.push_number(bottom as u64);
        options.push(b"\0");
        let mut target = Text::<16>::new();
        target.push_number(place as u64);
        target.push(b"\0");
        rawsys::chdir(c"/proc/self/fd").at(stage::OVERLAY_OPEN)?;
        let (target, options) = (target.c_str().at(stage::OVERLAY_MOUNT)?, options.c_str().at(stage::OVERLAY_MOUNT)?);
        let flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
        rawsys::mount_new(c"overlay", target, flags, options).at(stage::OVERLAY_MOUNT)?;
        self.enter_base().at(stage::OVERLAY_OPEN)?;
        for fd in [points, place, source] {
            rawsys::close(fd);
        }
        let mount = self.beneath(dest, dir).at(stage::MOUNT_POINT)?;
        set_attributes(mount, attributes, false).at(stage::MOUNT_ATTRIBUTES)?;
        rawsys::close(mount);
        Ok(())
    }

    /// Opens a path beneath the new root; links in it lead nowhere else.
    pub fn beneath(&self, path: &CStr, flags: usize) -> Result<i32, i32> {
        let how = [(rawsys::O_PATH | rawsys::O_CLOEXEC | flags) as u64, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS];
        let mut attempts = 0;
        loop {
            match rawsys::openat2(self.root, path, &how) {
                // Something was renamed or mounted elsewhere in the system while the kernel walked a `..` of a link.
                Err(rawsys::EAGAIN) if attempts < 64 => attempts += 1,
                other => return other,
            }
        }
    }

    /// The mount point, made with its parents where it is missing and `make` allows it. A link that leads nowhere is
    /// missing too: what is mounted on a file's place covers the link itself, and a directory takes its place where the link
    /// is the sandbox's own. In what the caller has bound nothing is removed.
    fn mount_point(&self, dest: &CStr, make: u32) -> Result<i32, i32> {
        match self.beneath(dest, 0) {
            Err(rawsys::ENOENT | ELOOP) if make != wire::MAKE_NOTHING => {}
            other => return other,
        }
        let path = dest.to_bytes();
        let mut parent = self.beneath(c"/", 0)?;
        let mut at = 1;
        while at < path.len() {
            let end = path[at..].iter().position(|&byte| byte == b'/').map_or(path.len(), |next| at + next);
            let mut prefix = Text::<OPTIONS>::new();
            prefix.push(&path[..end]);
            prefix.push(b"\0");
            let prefix = prefix.c_str()?;
            let next = match self.beneath(prefix, 0) {
                Err(rawsys::ENOENT | ELOOP) => {
                    let mut name = Text::<256>::new();
                    name.push(&path[at..end]);
                    name.push(b"\0");
                    // A single component, so nothing but `parent` is touched.
                    let name = name.c_str()?;
                    if let Ok(link) = rawsys::openat(parent, name, rawsys::O_PATH | rawsys::O_NOFOLLOW, 0) {
                        if end == path.len() && make == wire::MAKE_FILE {
                            rawsys::close(parent);
                            return Ok(link);
                        }
                        let own = self.is_own_link(parent, link);
                        rawsys::close(link);
                        if !own? {
                            return Err(rawsys::ENOENT);
                        }
                        rawsys::unlinkat(parent, name, 0)?;
                    }
                    if end == path.len() && make == wire::MAKE_FILE {
                        let flags = rawsys::O_CREAT | rawsys::O_EXCL | rawsys::O_NOFOLLOW;
                        rawsys::close(rawsys::openat(parent, name, flags, 0o644)?);
                    } else {
                        rawsys::mkdirat(parent, name, 0o755)?;
                    }
                    self.beneath(prefix, 0)?
                }
                other => other?,
            };
            rawsys::close(parent);
            parent = next;
            at = end + 1;
        }
        Ok(parent)
    }

    /// Whether it is a link, in a directory of the overlay that is the root: of a layer, or of the sandbox's own upper.
    fn is_own_link(&self, parent: i32, link: i32) -> Result<bool, i32> {
        const S_IFMT: u32 = 0o170000;
        const S_IFLNK: u32 = 0o120000;
        let (root, parent, link) = (rawsys::fstat(self.root)?, rawsys::fstat(parent)?, rawsys::fstat(link)?);
        Ok(self.overlay && root.0 == parent.0 && link.1 & S_IFMT == S_IFLNK)
    }

    fn mount(&self, fd: i32, dest: &CStr, make: u32) -> Result<(), Fault> {
        if in_base(dest) {
            attach_at(fd, self.base, dest).at(stage::MOUNT_ATTACH)?;
            rawsys::close(fd);
            return Ok(());
        }
        let place = self.mount_point(dest, make).at(stage::MOUNT_POINT)?;
        attach(fd, place).at(stage::MOUNT_ATTACH)?;
        rawsys::close(place);
        rawsys::close(fd);
        Ok(())
    }

    pub fn bind(&mut self, slot: u32, dest: &CStr, attributes: u64, make: u32) -> Result<(), Fault> {
        let fd = core::mem::take(self.slot(slot)?);
        if attributes != 0 {
            set_attributes(fd, attributes, true).at(stage::MOUNT_ATTRIBUTES)?;
        }
        self.mount(fd, dest, make)
    }

    pub fn bind_base(&self, path: &CStr, dest: &CStr, attributes: u64, make: u32) -> Result<(), Fault> {
        // What the source carries need not be said again: a system call less for most mounts.
        let inert = path.to_bytes().starts_with(wire::INERT_VIEW.to_bytes());
        let missing = attributes & !if inert { INERT } else { wire::ATTR_NOSUID | wire::ATTR_NODEV };
        if in_base(dest) {
            bind_within(path, dest, 0).at(stage::MOUNT_ATTACH)?;
            if missing != 0 {
                set_attributes_at(self.base, dest, attributes, false).at(stage::MOUNT_ATTRIBUTES)?;
            }
            return Ok(());
        }
        let fd = clone_tree(self.base, path, 0).at(stage::OPEN_TREE)?;
        if missing != 0 {
            set_attributes(fd, attributes, false).at(stage::MOUNT_ATTRIBUTES)?;
        }
        self.mount(fd, dest, make)
    }

    pub fn new_fs(&self, kind: &CStr, options: &[u8], dest: &CStr, attributes: u64, make: u32) -> Result<(), Fault> {
        let fd = new_fs(kind, options, attributes, [stage::FS_OPEN, stage::FS_OPTION, stage::FS_MOUNT])?;
        if kind == c"proc" {
            crate::proc::keep(fd).at(stage::PROC)?;
        }
        self.mount(fd, dest, make)
    }

    /// In base, so that it goes with it: a mount that was never attached would cost a wait for RCU of its own.
    pub fn mqueue(&mut self) -> Result<(), Fault> {
        self.dir(c"mqueue", 0o700)?;
        self.mqueue = crate::landlock::open_mqueue()?;
        attach_at(self.mqueue, self.base, c"mqueue").at(stage::MOUNT_ATTACH)?;
        Ok(())
    }

    pub fn restrict(&self, dest: &CStr, attributes: u64) -> Result<(), Fault> {
        bind_within(dest, dest, MS_REC).at(stage::RESTRICT)?;
        set_attributes_at(self.base, dest, attributes, true).at(stage::RESTRICT)?;
        Ok(())
    }

    pub fn attributes(&self, dest: &CStr, attributes: u64) -> Result<(), Fault> {
        set_attributes_at(self.base, dest, attributes, true).at(stage::MOUNT_ATTRIBUTES)?;
        Ok(())
    }

    pub fn move_to(&self, path: &CStr, dest: &CStr, make: u32) -> Result<(), Fault> {
        let place = self.mount_point(dest, make).at(stage::MOUNT_POINT)?;
        rawsys::move_mount(self.base, path, place, c"", MOVE_MOUNT_T_EMPTY_PATH).at(stage::MOUNT_ATTACH)?;
        rawsys::close(place);
        Ok(())
    }

    pub fn root_attributes(&self, attributes: u64) -> Result<(), Fault> {
        set_attributes(self.root, attributes, false).at(stage::ROOT_ATTRIBUTES)?;
        Ok(())
    }

    /// pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is let go.
    pub fn pivot(&mut self) -> Result<(), Fault> {
        rawsys::fchdir(self.root).at(stage::PIVOT)?;
        rawsys::pivot_root(c".", c".").at(stage::PIVOT)?;
        rawsys::umount(c".", MNT_DETACH).at(stage::DETACH)?;
        rawsys::chdir(c"/").at(stage::DETACH)?;
        // Nothing may keep a way to the host: not even here, where no program can see it.
        for slot in &self.slots {
            if *slot > 0 && *slot != self.upper {
                rawsys::close(*slot);
            }
        }
        rawsys::close(self.base);
        rawsys::close(self.root);
        Ok(())
    }
}
