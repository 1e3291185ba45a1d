//! The writable directory of an overlay where it lies on disk: a kept upper, which one sandbox at a time may use, or
//! where a tmpfs cannot be an upper (before Linux 6.6 it has no user attributes) a private one that is thrown away.
//!
//! Both are held by a lock of the kernel's (flock(2)) as long as the sandbox lives. What a caller that was killed has
//! left of private ones is swept away by the next sandbox that needs one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::error::{Failure, Result};
use crate::lock::Lock;
use crate::owned;
use crate::policy::{Policy, Root, Upper};
use crate::sys;

/// Not /tmp, which may be a tmpfs.
const PLACE: &str = "/var/tmp";

/// An upper on disk. Private ones are removed with it.
#[derive(Debug)]
pub(crate) struct DiskUpper {
    /// Where `upper` and `work` lie, or will.
    pub dir: PathBuf,
    private: bool,
    /// Unlocked when it is closed.
    _lock: Lock,
}

impl DiskUpper {
    /// The upper that this policy needs on disk, if any. `in_memory`: whether a tmpfs can be one.
    pub(crate) fn of(policy: &Policy, in_memory: bool) -> Result<Option<DiskUpper>> {
        match (&policy.upper, &policy.root) {
            (Some(Upper::Dir(dir)), _) => kept(dir).map(Some),
            (_, Root::Layers(_)) if !in_memory => private(policy).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether it is thrown away in the end.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }
}

impl Drop for DiskUpper {
    fn drop(&mut self) {
        if self.private {
            // What cannot be removed now is swept away with the next one.
            let _ = owned::remove(&self.dir);
        }
    }
}

/// Makes the two directories of a kept upper.
fn kept(dir: &Path) -> Result<DiskUpper> {
    let fail = |path: &Path, message: &str| Failure::new("upper", path.display().to_string(), message);
    for name in ["upper", "work"] {
        let path = dir.join(name);
        fs::create_dir_all(&path).map_err(|e| {
            let failure = fail(&path, "cannot make the directory of the upper").cause(&e);
            failure.hint("name a directory of your own, or a place where one can be made").setup()
        })?;
    }
    match lock(dir) {
        Ok(lock) => Ok(DiskUpper { dir: dir.to_owned(), private: false, _lock: lock }),
        Err(Errno::EWOULDBLOCK) => Err(fail(dir, "another sandbox is running on this upper")
            .errno(libc::EBUSY)
            .hint("an overlay's upper has one user at a time: wait for its end, or name another directory")
            .setup()),
        Err(errno) => Err(fail(dir, "cannot be locked").errno(errno as i32).setup()),
    }
}

fn private(policy: &Policy) -> Result<DiskUpper> {
    let limits = [("disk", policy.limits.disk), ("inodes", policy.limits.inodes)];
    let weaker = |(item, limit): &&(&str, Option<u64>)| limit.is_some() && !policy.best_effort.allows(item);
    if let Some((item, _)) = limits.iter().find(weaker) {
        let message = "before Linux 6.6 the upper of an overlay lies on disk, where it has no limit";
        return Err(Failure::new("upper", *item, message)
            .hint("name an upper of your own on a file system with a quota, or allow it with best_effort")
            .unsupported());
    }
    let fail = |path: &Path, message: &str| Failure::new("upper", path.display().to_string(), message);
    let home = Path::new(PLACE).join(format!("sandcell-{}", geteuid()));
    let made = DirBuilder::new().mode(0o700).create(&home);
    let meta = fs::symlink_metadata(&home).map_err(|e| {
        let failure = fail(&home, "cannot make a place on disk for the upper");
        made.err().map_or(failure.clone(), |why| failure.cause(&why)).cause(&e).setup()
    })?;
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(fail(&home, "is not a directory of the caller's alone").hint("remove it").setup());
    }
    // Nobody sweeps while another one is between making and locking.
    let turn = File::open(&home).map_err(|e| fail(&home, "cannot be opened").cause(&e).setup())?;
    let _turn = Lock::exclusive(turn).map_err(|e| fail(&home, "cannot be locked").cause(&e).setup())?;
    sweep(&home);
    let random = sys::random().map_err(|errno| {
        fail(&home, "the kernel gives no random numbers for a name in it").errno(errno as i32).setup()
    })?;
    let dir = home.join(format!("{:016x}", u64::from_be_bytes(random)));
    // Whoever the sandbox is on the host makes upper and work itself, so as to own them: it needs the right to write
    // here, and nobody else gets past the directory above.
    let made = DirBuilder::new().create(&dir).and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o777)));
    made.map_err(|e| fail(&dir, "cannot be made").cause(&e).setup())?;
    match lock(&dir) {
        Ok(lock) => Ok(DiskUpper { dir, private: true, _lock: lock }),
        Err(errno) => Err(fail(&dir, "cannot be locked").errno(errno as i32).setup()),
    }
}

/// Removes what nobody holds.
fn sweep(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if lock(&entry.path()).is_ok() {
            let _ = owned::remove(entry.path());
        }
    }
}

fn lock(dir: &Path) -> Result<Lock, Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    Lock::try_exclusive(File::open(dir).map_err(errno)?).map_err(errno)?.ok_or(Errno::EWOULDBLOCK)
}

/// Whether files in memory can have user attributes, as overlays in user namespaces need them: tmpfs of Linux 6.6.
pub(crate) fn memory_has_attributes() -> Result<bool> {
    let file: OwnedFd = sys::sealed_memory(c"sandcell-attributes", b"", false).map_err(crate::launch::descriptors)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok(sys::set_attribute(&path, c"user.overlay.sandcell", b"y") != Err(Errno::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_in_use_is_refused_and_is_free_again_afterwards() {
        let dir = std::env::temp_dir().join(format!("sandcell-upper-{}", std::process::id()));
        let first = kept(&dir).unwrap();
        let refused = kept(&dir).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EBUSY), "{refused}");
        drop(first);
        drop(kept(&dir).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_private_upper_is_gone_with_its_holder_and_what_a_dead_one_left_is_swept() {
        let one = private(&Policy::default()).unwrap();
        let left = one.dir.with_file_name("left-by-a-dead-one");
        fs::create_dir_all(left.join("upper/file")).unwrap();
        let two = private(&Policy::default()).unwrap();
        assert!(!left.exists());
        assert!(one.dir.exists(), "it is in use");
        let dirs = [one.dir.clone(), two.dir.clone()];
        drop((one, two));
        assert!(!dirs.iter().any(|dir| dir.exists()));
    }

    #[test]
    fn a_size_that_the_disk_cannot_keep_is_refused_unless_that_is_allowed() {
        let mut policy = Policy::default();
        policy.limits.disk = Some(1 << 20);
        assert!(private(&policy).unwrap_err().to_string().contains("Linux 6.6"));
        policy.best_effort.add("disk");
        assert!(private(&policy).is_ok());
    }
}
