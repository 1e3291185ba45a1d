//! The writable directory of an overlay where it lies on disk: a kept upper, which one sandbox at a time may use, or
//! where a tmpfs cannot be an upper (before Linux 6.6 it has no user attributes) a private one that is thrown away.
//!
//! Both are held by a lock of the kernel's (flock(2)) as long as the sandbox lives. What a caller that was killed has
//! left of private ones is swept away by the next sandbox that needs one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use crate::error::{Failure, Result};
use crate::policy::files::Files;
use crate::policy::{Identity, Policy};
use crate::subid_tree;
use crate::sys;
use crate::sys::beneath;
use crate::sys::lock::Lock;

/// Not /tmp, which may be a tmpfs.
const PLACE: &str = "/var/tmp";

/// An upper on disk. Private ones are removed with it.
#[derive(Debug)]
pub(crate) struct DiskUpper {
    /// Where `upper` and `work` lie, or will.
    pub dir: PathBuf,
    private: bool,
    /// Unlocked when it is closed.
    lock: Lock,
}

impl DiskUpper {
    /// The upper that this policy needs on disk, if any. `in_memory`: whether a tmpfs can be one.
    pub(crate) fn of(files: &Files, policy: &Policy, in_memory: bool) -> Result<Option<DiskUpper>> {
        match &files.upper {
            Some(dir) => kept(dir).map(Some),
            None if files.layers().is_some() && !in_memory => private(policy).map(Some),
            None => Ok(None),
        }
    }

    /// What holds it: whoever has a copy of it holds it, too.
    pub(crate) fn lock(&self) -> &File {
        self.lock.file()
    }

    /// Somebody else holds it now: neither let go nor removed.
    pub(crate) fn hand_over(mut self) {
        self.lock.hand_over();
        self.private = false;
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
            let _ = subid_tree::remove(&self.dir);
        } else {
            let _ = let_owner_in(&self.dir);
        }
    }
}

/// The kernel leaves a directory of mode 000 in `work`, which `rm -r` of its owner stops at. Overlayfs replaces it when
/// the next sandbox starts.
fn let_owner_in(dir: &Path) -> Result<(), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let work = beneath::open(beneath::top(dir)?.as_fd(), Path::new("work/work"), flags)?;
    let stat = fstat(&work)?;
    if stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o700 != 0o700 {
        beneath::chmod(work.as_fd(), 0o700)?;
    }
    Ok(())
}

/// The overlay's upper in a directory that was given as [`Upper::Dir`](crate::Upper::Dir), for reading. What is in it, programs wrote.
#[cfg(feature = "image")]
pub(crate) fn open_kept(dir: &Path) -> Result<OwnedFd> {
    let wrong = |path: &Path, message: &str| Failure::new("upper", path.display().to_string(), message);
    let top = beneath::top(dir)
        .map_err(|errno| wrong(dir, "cannot be opened as the directory of a kept upper").errno(errno as i32).setup())?;
    let open = |name: &str, flags| beneath::open(top.as_fd(), Path::new(name), flags | OFlag::O_DIRECTORY);
    let absent = |errno| matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP);
    match open("work", OFlag::O_PATH).and_then(|_| open("upper", OFlag::O_PATH)) {
        Err(errno) if absent(errno) => {
            Err(wrong(dir, "is not a kept upper: it lacks the directories `upper` and `work`")
                .hint("Name the directory that was given as the upper, not what is in it.")
                .config())
        }
        Err(errno) => Err(wrong(dir, "cannot be opened").errno(errno as i32).setup()),
        Ok(upper) => beneath::list(&subid_tree::Reach::default(), upper.as_fd())
            .map_err(|errno| wrong(&dir.join("upper"), "cannot be read").errno(errno as i32).setup()),
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
        Ok(lock) => Ok(DiskUpper { dir: dir.to_owned(), private: false, lock }),
        Err(Errno::EWOULDBLOCK) => Err(fail(dir, "another sandbox is running on this upper")
            .errno(libc::EBUSY)
            .hint("an overlay's upper has one user at a time: wait for its end, or name another directory")
            .setup()),
        Err(errno) => Err(fail(dir, "cannot be locked").errno(errno as i32).setup()),
    }
}

/// So many files of each layer are looked at before a start.
const LOOKED_AT: usize = 10_000;

/// Refuses layers beneath a kept upper in which the first write would fail with EOVERFLOW: the overlay copies a file or
/// directory with its owner and group, and a sandbox of one id has no number for those that are not the caller's.
pub(crate) fn check_owners(files: &Files, identity: &Identity) -> Result<()> {
    let (Some(_), Some(layers)) = (&files.upper, files.layers()) else { return Ok(()) };
    // Ids of the sandbox's own: the layers are mapped, or the start is refused for another reason.
    if identity.count > 1 || files.of_image || identity.host_ids.must_be_disjoint() {
        return Ok(());
    }
    let caller = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
    for layer in layers {
        let mut pending = vec![layer.clone()];
        let mut looked_at = 0;
        // An overlay shows nothing of what is mounted in a layer.
        let device = fs::symlink_metadata(layer).map(|meta| meta.dev()).ok();
        while let Some(path) = pending.pop().filter(|_| looked_at < LOOKED_AT) {
            looked_at += 1;
            // What is not there, or closed to the caller, is for the start to complain about.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if Some(meta.dev()) != device {
                continue;
            }
            let owner = (meta.uid(), meta.gid());
            let writable = meta.mode() & 0o002 != 0 || owner.0 == caller.0 && meta.mode() & 0o200 != 0;
            if owner != caller && writable && !meta.is_symlink() {
                let message = format!(
                    "belongs to UID {} and GID {}, which the sandbox has no ids for: with a kept upper, the first write to it \
                     would fail with EOVERFLOW",
                    owner.0, owner.1
                );
                let hint = format!(
                    "Give the layer to yourself: `chown -R {}:{} {}`, or load it as an image: \
                     `sandcell load --format rootfs -t NAME DIR`.",
                    caller.0,
                    caller.1,
                    layer.display()
                );
                return Err(Failure::new("upper", path.display().to_string(), message).hint(hint).config());
            }
            if meta.is_dir() {
                pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
        }
    }
    Ok(())
}

fn private(policy: &Policy) -> Result<DiskUpper> {
    let limits = [("disk", policy.limits.disk), ("inodes", policy.limits.inodes)];
    let weaker = |(item, limit): &&(&str, Option<u64>)| limit.is_some() && !policy.best_effort.allows(item);
    if let Some((item, _)) = limits.iter().find(weaker) {
        let message = "before Linux 6.6 the upper of an overlay lies on disk, where it has no limit";
        return Err(Failure::new("upper", *item, message)
            .hint("name an upper of your own on a file system with a quota, or allow it with `best_effort`")
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
        Ok(lock) => Ok(DiskUpper { dir, private: true, lock }),
        Err(errno) => Err(fail(&dir, "cannot be locked").errno(errno as i32).setup()),
    }
}

/// Removes what nobody holds.
fn sweep(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        if lock(&entry.path()).is_ok() {
            let _ = subid_tree::remove(entry.path());
        }
    }
}

fn lock(dir: &Path) -> Result<Lock, Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    Lock::try_exclusive(File::open(dir).map_err(errno)?).map_err(errno)?.ok_or(Errno::EWOULDBLOCK)
}

/// Whether files in memory can have user attributes, as overlays in user namespaces need them: tmpfs of Linux 6.6.
pub(crate) fn memory_has_attributes() -> Result<bool> {
    let file: OwnedFd = sys::sealed_memory(c"sandcell-attributes", b"", false).map_err(crate::sys::descriptors)?;
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
