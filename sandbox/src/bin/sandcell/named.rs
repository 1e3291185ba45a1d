//! Files that are named on the command line. A program of an earlier run may have had its directory writable: a link there
//! would lead what is written to another file of the caller's, and a FIFO would be waited for without end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// A file to write, made or emptied. In /dev, where no program can put anything, it may be whatever it is: `/dev/stdout`, or
/// what a shell makes of `>(...)`.
pub fn output(place: &Path) -> io::Result<File> {
    if of_the_kernel(place) {
        return File::create(place);
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // Not emptied before it is known to be an ordinary file.
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).custom_flags(flags).open(place);
    let file = opened.map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        Errno::ELOOP => io::Error::other("it is a symbolic link"),
        Errno::ENXIO => io::Error::other("it is no ordinary file"),
        _ => error,
    })?;
    regular(&file)?;
    file.set_len(0)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

fn of_the_kernel(place: &Path) -> bool {
    ["/dev", "/dev/fd", "/proc/self/fd"].iter().any(|dir| place.parent() == Some(Path::new(dir)))
}

fn regular(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_dir() {
        "a directory"
    } else {
        "a device"
    };
    Err(io::Error::other(format!("it is {what}, not an ordinary file")))
}
