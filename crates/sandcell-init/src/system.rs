//! A whole system as a program: its init is PID 1 of a PID namespace of its own, with a /proc of that one, and sees the
//! control group that it was given as the root of all. Programs that start after it enter these namespaces.
//!
//! We stay outside, where nothing of the system can reach us, and keep CAP_SYS_ADMIN of the sandbox's user namespace for
//! that; the system has it not, and cannot touch a mount.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::mounts::{attach, clone_tree, new_fs, open, set_attributes};
use crate::rawsys::{self, call, nr};
use crate::wire::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, NO_SLOT, stage};
use crate::{At, Fault};

/// Of each list: more than any kernel has.
const MOST_PATHS: usize = 48;
const INERT: u64 = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;

static EXPECTED: AtomicBool = AtomicBool::new(false);
/// A pidfd of its init, or 0. Keepers, which share our memory and descriptors, read it too.
static FIRST: AtomicI32 = AtomicI32::new(0);

/// What the request for an init says.
#[derive(Clone, Copy)]
pub struct System {
    /// The descriptor of its group by its index in the message.
    pub index: u32,
    pub masked: &'static [u8],
    pub restricted: &'static [u8],
}

pub fn expect() {
    EXPECTED.store(true, Ordering::Release);
}

/// Whether this is a sandbox for a system.
pub fn is_expected() -> bool {
    EXPECTED.load(Ordering::Acquire)
}

/// Its init runs.
pub fn began(pidfd: i32) -> Result<(), Fault> {
    let kept = rawsys::dup_above(pidfd, 3).at(stage::SYSTEM_ENTER)?;
    FIRST.store(kept as i32, Ordering::Release);
    Ok(())
}

/// What this process starts from here on is a process of the system. For keepers: we stay outside.
pub fn enter() -> Result<(), Fault> {
    const TRIES: u32 = 1000;
    let first = FIRST.load(Ordering::Acquire);
    if first <= 0 {
        return Ok(());
    }
    let mut tries = 0;
    loop {
        match rawsys::setns(first, rawsys::CLONE_NEWPID | rawsys::CLONE_NEWCGROUP) {
            // In the middle of its execve(2) it cannot be looked into: it is what we are, and then what it is to be.
            Err(rawsys::EPERM) if tries < TRIES => tries += 1,
            done => return done.map(|_| ()).at(stage::SYSTEM_ENTER),
        }
        let _ = rawsys::poll(&mut [], 1);
    }
}

impl System {
    /// Makes the calling process, the first of its PID namespace, ready to be an init.
    pub fn begin(&self, fds: &[i32]) -> Result<(), Fault> {
        if self.index != NO_SLOT {
            let group = *fds.get(self.index as usize).ok_or(rawsys::EPROTO).at(stage::PROTOCOL)?;
            // SAFETY: one byte, then numbers.
            unsafe {
                call!(nr::WRITE, group, b"0".as_ptr(), 1).at(stage::SYSTEM_GROUP)?;
                rawsys::unshare(rawsys::CLONE_NEWCGROUP).at(stage::CGROUP_NAMESPACE)?;
            }
            mount(c"cgroup2", c"/sys/fs/cgroup")?;
        }
        self.mount_proc()
    }

    /// A /proc of the new namespace over that of the sandbox. What hides and what restricts parts of that one does so here.
    fn mount_proc(&self) -> Result<(), Fault> {
        let mut covers = [-1; MOST_PATHS];
        for (cover, path) in covers.iter_mut().zip(paths(self.masked)) {
            *cover = clone_tree(rawsys::AT_FDCWD, path?, 0).at(stage::SYSTEM_MOUNTS)?;
        }
        mount(c"proc", c"/proc")?;
        for (cover, path) in covers.iter().zip(paths(self.masked)) {
            put(*cover, path?)?;
        }
        for path in paths(self.restricted) {
            let path = path?;
            let same = clone_tree(rawsys::AT_FDCWD, path, rawsys::AT_RECURSIVE).at(stage::SYSTEM_MOUNTS)?;
            set_attributes(same, INERT | ATTR_RDONLY, true).at(stage::SYSTEM_MOUNTS)?;
            put(same, path)?;
        }
        Ok(())
    }
}

fn mount(kind: &CStr, dest: &CStr) -> Result<(), Fault> {
    put(new_fs(kind, b"", INERT, [stage::FS_OPEN, stage::FS_OPTION, stage::FS_MOUNT])?, dest)
}

fn put(mount: i32, dest: &CStr) -> Result<(), Fault> {
    let place = open(rawsys::AT_FDCWD, dest, rawsys::O_PATH, 0).at(stage::SYSTEM_MOUNTS)?;
    attach(mount, place).at(stage::SYSTEM_MOUNTS)?;
    rawsys::close(place);
    rawsys::close(mount);
    Ok(())
}

/// Paths one after the other, each with its NUL. Too many, or one without its end, are a message that makes no sense.
fn paths(list: &'static [u8]) -> impl Iterator<Item = Result<&'static CStr, Fault>> {
    let malformed = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
    let count = list.iter().filter(|byte| **byte == 0).count();
    let all = list.split_inclusive(|byte| *byte == 0);
    all.map(move |path| match CStr::from_bytes_with_nul(path) {
        Ok(path) if count <= MOST_PATHS => Ok(path),
        _ => Err(malformed),
    })
}
