//! Files of the host, changed as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::Result;

fn told<T>(path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

/// One at a time. A lock on a directory leaves no file.
pub fn lock(dir: &Path) -> Result<Flock<File>> {
    let file = told(dir, File::open(dir))?;
    let busy = |_| "another `sandcell doctor --fix` is at work".to_owned();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| busy(errno))
}

/// The bytes of an ordinary file; `None` where there is none. A link is somebody's arrangement, and not ours to change.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(metadata) if !metadata.is_file() => {
            Err(format!("{} is no ordinary file: change it by hand", path.display()))
        }
        Ok(_) => told(path, fs::read(path)).map(Some),
    }
}

/// Where the new content is put together, beside the file.
pub fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sandcell-new");
    name.into()
}

/// Replaces a file by one of the same mode and owner, or makes a new one of mode 0644.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = draft(path);
    let before = fs::metadata(path).ok();
    let mode = before.as_ref().map_or(0o644, |metadata| metadata.mode() & 0o7777);
    let write = || {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        if let Some(before) = &before {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    told(path, write()).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// Removes a file, or what was to become one; where there is none, it is gone already.
pub fn remove(path: &Path) -> Result<()> {
    let _ = fs::remove_file(draft(path));
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("{}: {error}", path.display())),
        _ => Ok(()),
    }
}

/// The directories on the way to a file that are not there, the highest first.
pub fn missing_directories(file: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> = file.ancestors().skip(1).take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

pub fn make_directory(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => told(path, made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))),
    }
}

/// Removes a directory that is empty. One that is not has become somebody else's, too.
pub fn remove_directory(path: &Path) -> bool {
    fs::remove_dir(path).is_ok() || !path.exists()
}

/// The lock that shadow's programs (useradd, usermod) take, as long as this value lives.
pub struct ShadowLock(PathBuf);

impl ShadowLock {
    pub fn take(file: &Path) -> Result<ShadowLock> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        // As shadow's programs see it: the lock of a process that is no more is none.
        let holder = fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let holder = holder.and_then(|text| text.trim_end_matches('\0').trim().parse::<i32>().ok());
        if holder.is_some_and(|pid| pid > 0 && !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_file(&path);
        }
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut lock = lock.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                format!(
                    "{} is being changed by another program; remove {} if there is none",
                    file.display(),
                    path.display()
                )
            }
            _ => format!("{}: {error}", path.display()),
        })?;
        let _ = write!(lock, "{}\0", std::process::id());
        Ok(ShadowLock(path))
    }
}

impl Drop for ShadowLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether nobody but the owner of the root can change what runs under this path.
pub fn is_safe(root: &Path, path: &Path) -> bool {
    let Ok(owner) = fs::metadata(root).map(|metadata| metadata.uid()) else { return false };
    path.ancestors().take_while(|dir| dir.starts_with(root)).all(|part| {
        part.symlink_metadata().is_ok_and(|metadata| {
            let kind = metadata.file_type();
            metadata.uid() == owner && metadata.mode() & 0o022 == 0 && (kind.is_file() || kind.is_dir())
        })
    })
}
