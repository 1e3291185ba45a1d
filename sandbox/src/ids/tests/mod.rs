//! One file a subject.

mod lease;
mod namespace;
mod newidmap;
mod pool;
mod ranges;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// An empty directory that goes away with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sandcell-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("make a directory for a test");
        Scratch(path)
    }
}

impl Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a shell script that can be executed.
pub fn script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("write a program");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
}

/// Whether this is an ordinary user with sub-ids and newuidmap; if not, says so, for tests that need it.
pub fn has_sub_ids() -> bool {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|u| u.name).unwrap_or_default();
    let named =
        |file| std::fs::read_to_string(file).is_ok_and(|text| text.lines().any(|l| l.starts_with(&format!("{name}:"))));
    let all = !uid.is_root()
        && named("/etc/subuid")
        && named("/etc/subgid")
        && ["newuidmap", "newgidmap"].iter().all(|p| Path::new("/usr/bin").join(p).exists());
    if !all {
        eprintln!("SKIPPED: needs an ordinary user with sub-ids and newuidmap");
    }
    all
}
