//! What is mounted into the root of a sandbox.

use std::path::PathBuf;

/// Something mounted into the root file system, in the order of the requests.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    /// A file or directory of the host with everything mounted beneath it.
    #[non_exhaustive]
    Bind {
        /// On the host.
        source: PathBuf,
        /// Inside; absolute.
        dest: PathBuf,
        /// Whether the program may write to it. Read-only holds for submounts too, and for root inside.
        writable: bool,
    },
    /// An empty writable directory in memory.
    #[non_exhaustive]
    Tmpfs {
        /// Inside; absolute.
        dest: PathBuf,
        /// Bytes; without it the directory shares the budget of `disk`.
        size: Option<u64>,
    },
    /// A read-only file with this content.
    #[non_exhaustive]
    File {
        /// Inside; absolute.
        dest: PathBuf,
        /// What stands in it.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// A device of the host, or each one in a directory of the host.
    #[non_exhaustive]
    Device {
        /// On the host.
        source: PathBuf,
        /// Inside; beneath /dev.
        dest: PathBuf,
        /// Whether the program may open it for writing. Commands (ioctl(2)) it takes either way.
        writable: bool,
    },
    /// A socket of the host in the file system, to which programs may connect.
    #[non_exhaustive]
    Socket {
        /// On the host.
        source: PathBuf,
        /// Inside; absolute.
        dest: PathBuf,
    },
}

impl Mount {
    /// [`Mount::Bind`], which may get more fields.
    pub fn bind(source: impl Into<PathBuf>, dest: impl Into<PathBuf>, writable: bool) -> Mount {
        Mount::Bind { source: source.into(), dest: dest.into(), writable }
    }

    /// [`Mount::Tmpfs`].
    pub fn tmpfs(dest: impl Into<PathBuf>, size: Option<u64>) -> Mount {
        Mount::Tmpfs { dest: dest.into(), size }
    }

    /// [`Mount::File`].
    pub fn file(dest: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Mount {
        Mount::File { dest: dest.into(), content: content.into(), mode }
    }

    /// [`Mount::Device`].
    pub fn device(source: impl Into<PathBuf>, dest: impl Into<PathBuf>, writable: bool) -> Mount {
        Mount::Device { source: source.into(), dest: dest.into(), writable }
    }

    /// [`Mount::Socket`].
    pub fn socket(source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Mount {
        Mount::Socket { source: source.into(), dest: dest.into() }
    }

    /// Where it is inside.
    pub(crate) fn dest(&self) -> &PathBuf {
        match self {
            Mount::Bind { dest, .. }
            | Mount::Tmpfs { dest, .. }
            | Mount::File { dest, .. }
            | Mount::Device { dest, .. }
            | Mount::Socket { dest, .. } => dest,
        }
    }

    pub(crate) fn dest_mut(&mut self) -> &mut PathBuf {
        match self {
            Mount::Bind { dest, .. }
            | Mount::Tmpfs { dest, .. }
            | Mount::File { dest, .. }
            | Mount::Device { dest, .. }
            | Mount::Socket { dest, .. } => dest,
        }
    }
}

impl std::fmt::Debug for Mount {
    /// Without the content of a file, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mount::Bind { source, dest, writable } => {
                write!(f, "Bind {{ source: {source:?}, dest: {dest:?}, writable: {writable} }}")
            }
            Mount::Tmpfs { dest, size } => write!(f, "Tmpfs {{ dest: {dest:?}, size: {size:?} }}"),
            Mount::File { dest, content, mode } => {
                write!(f, "File {{ dest: {dest:?}, content: {} bytes, mode: {mode:o} }}", content.len())
            }
            Mount::Device { source, dest, writable } => {
                write!(f, "Device {{ source: {source:?}, dest: {dest:?}, writable: {writable} }}")
            }
            Mount::Socket { source, dest } => write!(f, "Socket {{ source: {source:?}, dest: {dest:?} }}"),
        }
    }
}
