//! What of the host's file system sandboxes are made of.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};

/// What the host view shows, where the host has it. Never the homes, /var, /srv, /mnt, /media.
pub(crate) const VIEW: [&str; 12] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu", "/snap"];
/// Devices that are harmless and that programs expect. See null(4), random(4), tty(4).
pub(crate) const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// Files and directories of /proc that tell about the host or act on it, and that are not per process.
const MASKED: [&str; 22] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/locks",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];
/// By this programs know that two of them run on the same machine: each sandbox has one of its own.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const READ_ONLY_PROC: [&str; 6] =
    ["/proc/bus", "/proc/driver", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Our own account files: name in base, destination.
pub(crate) const ACCOUNTS: [(&CStr, &CStr); 4] = [
    (c"passwd", c"/etc/passwd"),
    (c"group", c"/etc/group"),
    (c"hosts", c"/etc/hosts"),
    (c"hostname", c"/etc/hostname"),
];

/// By this programs know a machine again. Only where the root is the host's: a layer has its own.
pub(crate) const MACHINE_ID: &CStr = c"/etc/machine-id";

/// Looked at once for all sandboxes of a handle.
#[derive(Debug)]
pub(crate) struct HostFiles {
    /// Directories of the host view; links with where they lead.
    pub(crate) view: Vec<(&'static str, Option<PathBuf>)>,
    /// Which of [`ACCOUNTS`] there are.
    pub(crate) accounts: [bool; ACCOUNTS.len()],
    pub(crate) machine_id: bool,
    pub(crate) devices: Vec<&'static str>,
    pub(crate) masked: Vec<(&'static str, Secret)>,
    pub(crate) restricted: Vec<&'static str>,
    /// Whether the kernel has POSIX message queues.
    #[cfg(feature = "landlock")]
    pub(crate) mqueue: bool,
    /// Whether the upper of an overlay can lie in memory.
    pub(crate) upper_in_memory: bool,
}

/// What has to be hidden in /proc.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Secret {
    Directory,
    File,
    /// A file that nobody but the host's root may open.
    Guarded,
    /// [`BOOT_ID`].
    BootId,
}

impl HostFiles {
    pub(crate) fn look() -> Result<HostFiles> {
        let mut files = HostFiles {
            view: Vec::new(),
            accounts: [false; ACCOUNTS.len()],
            machine_id: found(as_path(MACHINE_ID), fs::metadata(as_path(MACHINE_ID)))?.is_some(),
            devices: Vec::new(),
            masked: Vec::new(),
            restricted: Vec::new(),
            #[cfg(feature = "landlock")]
            mqueue: look(Path::new("/proc/sys/fs/mqueue"))?.is_some(),
            upper_in_memory: crate::overlay::upper::memory_has_attributes()?,
        };
        for path in VIEW {
            match look(Path::new(path))? {
                Some(meta) if meta.is_symlink() => {
                    let target = fs::read_link(path).map_err(|e| unseen(Path::new(path), &e))?;
                    files.view.push((path, Some(target)));
                }
                Some(meta) if meta.is_dir() => files.view.push((path, None)),
                _ => {}
            }
        }
        for (there, (_, path)) in files.accounts.iter_mut().zip(ACCOUNTS) {
            let path = as_path(path);
            *there = found(path, fs::metadata(path))?.is_some();
        }
        for path in DEVICES {
            if found(Path::new(path), fs::metadata(path))?.is_some() {
                files.devices.push(path);
            }
        }
        // The host's own /proc tells what this kernel has: a new one has the same.
        for path in MASKED {
            if let Some(meta) = look(Path::new(path))? {
                let guarded = meta.uid() == 0 && meta.mode() & 0o077 == 0;
                let file = if guarded { Secret::Guarded } else { Secret::File };
                files.masked.push((path, if meta.is_dir() { Secret::Directory } else { file }));
            }
        }
        if look(Path::new(BOOT_ID))?.is_some() {
            files.masked.push((BOOT_ID, Secret::BootId));
        }
        for path in READ_ONLY_PROC {
            if look(Path::new(path))?.is_some() {
                files.restricted.push(path);
            }
        }
        Ok(files)
    }
}

/// Files and directories beneath this one that not everybody may read, and whether each is a directory. Links are nothing
/// by themselves.
pub(crate) fn closed(top: &Path, found: &mut Vec<(PathBuf, bool)>) -> Result<()> {
    for entry in fs::read_dir(top).map_err(|e| unseen(top, &e))? {
        let entry = entry.map_err(|e| unseen(top, &e))?;
        let path = entry.path();
        if entry.file_type().map_err(|e| unseen(&path, &e))?.is_symlink() {
            continue;
        }
        let Some(meta) = look(&path)? else { continue };
        let needed = if meta.is_dir() { 0o5 } else { 0o4 };
        if meta.mode() & needed != needed {
            found.push((path, meta.is_dir()));
        } else if meta.is_dir() {
            closed(&path, found)?;
        }
    }
    Ok(())
}

pub(crate) fn as_path(path: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

/// What is at a path, if anything. What cannot be seen must not pass for absent: what hangs on it may be a wall.
pub(crate) fn look(path: &Path) -> Result<Option<fs::Metadata>> {
    found(path, fs::symlink_metadata(path))
}

fn found(path: &Path, meta: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>> {
    match meta {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(unseen(path, &error)),
    }
}

fn unseen(path: &Path, error: &io::Error) -> crate::Error {
    Failure::new("look", path.display().to_string(), "cannot find out whether it is there").cause(error).setup()
}
