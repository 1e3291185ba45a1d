//! The program's standard streams: which descriptors may be passed, and which go through a pipe of the sandbox's own.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Whence, lseek, pipe2};

use crate::error::{Failure, Result};
use crate::supervise::terminal::{TerminalSetup, TerminalSize};
use crate::sys;
use crate::sys::{descriptors, lift};
use crate::wire::{RELAY_SAME, RELAY_STDERR, RELAY_STDOUT};

/// Where a standard stream of the program comes from or goes to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// The caller's own.
    #[default]
    Inherit,
    /// /dev/null of the sandbox.
    Null,
    /// A new pipe, whose other end is in the [`Child`](crate::Child).
    Piped,
    /// This descriptor. Directories are refused: they would lead out (CVE-2024-21626).
    Fd(OwnedFd),
    /// A terminal of the sandbox's own, whose other end is in the [`Child`](crate::Child): see [`Stdio::terminal`].
    Terminal(TerminalSetup),
}

impl Stdio {
    /// A new pipe, whose other end is in the [`Child`](crate::Child): as `std::process::Stdio::piped`.
    pub fn piped() -> Stdio {
        Stdio::Piped
    }

    /// The caller's own stream.
    pub fn inherit() -> Stdio {
        Stdio::Inherit
    }

    /// /dev/null of the sandbox.
    pub fn null() -> Stdio {
        Stdio::Null
    }
}

impl Stdio {
    /// A terminal of the sandbox's own, in its own devpts: the program's controlling terminal, with job control, a size and
    /// `/dev/tty`. Its other end is [`Child::terminal`](crate::Child::terminal). A command has one: all streams that are set to a terminal, and those that
    /// nobody has set, are the same one.
    pub fn terminal(size: TerminalSize) -> Stdio {
        Stdio::Terminal(TerminalSetup::new(size))
    }

    /// The same, with the size and the modes (see termios(3)) of a terminal that the caller has.
    ///
    /// # Errors
    /// ENOTTY where it is no terminal.
    pub fn terminal_like(terminal: impl AsFd) -> std::io::Result<Stdio> {
        TerminalSetup::like(terminal.as_fd()).map(Stdio::Terminal)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

/// What `std::process::Stdio` can be made from, and sockets.
macro_rules! stdio_from {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Stdio {
            fn from(stream: $kind) -> Stdio {
                Stdio::Fd(stream.into())
            }
        })*
    };
}

stdio_from!(
    File,
    std::io::PipeReader,
    std::io::PipeWriter,
    std::net::TcpStream,
    std::os::unix::net::UnixStream,
    std::process::ChildStdin,
    std::process::ChildStdout,
    std::process::ChildStderr
);

/// What a stream is that nobody has set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unset {
    Inherit,
    Null,
    Piped,
}

/// A request as init wants it, with the descriptors that go along.
pub(crate) struct Request<'a> {
    pub bytes: Vec<u8>,
    pub fds: Vec<Passed<'a>>,
}

/// A descriptor that goes along with a request: made for it, or the command's, which may be run again.
pub(crate) enum Passed<'a> {
    Made(OwnedFd),
    Given(BorrowedFd<'a>),
}

impl AsFd for Passed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Passed::Made(fd) => fd.as_fd(),
            Passed::Given(fd) => *fd,
        }
    }
}

/// The caller's ends of the pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Which of the outputs init carries, bits of `Ask::Relay`. A regular file of the caller's is nothing that the program may open,
/// so /dev/stdout could not be opened by name either: it writes into a pipe of the sandbox's, and init into the file.
pub(crate) fn relayed(outputs: &[(u32, BorrowedFd<'_>, Examined)], direct_files: bool) -> Result<u32> {
    let mut streams = 0;
    for (number, _, examined) in outputs {
        if !direct_files && examined.is_written_file() {
            streams |= if *number == 1 { RELAY_STDOUT } else { RELAY_STDERR };
        }
    }
    if let [(_, stdout, first), (_, stderr, second)] = outputs
        && is_same((*stdout, first), (*stderr, second))?
    {
        streams |= RELAY_SAME;
    }
    Ok(streams)
}

/// Whether what is written to the two ends up in the order in which it is written.
fn is_same(one: (BorrowedFd<'_>, &Examined), other: (BorrowedFd<'_>, &Examined)) -> Result<bool> {
    let (first, second) = (one.1, other.1);
    if (first.stat.st_dev, first.stat.st_ino) != (second.stat.st_dev, second.stat.st_ino) {
        return Ok(false);
    }
    match sys::is_same_description(one.0, other.0) {
        Ok(true) => Ok(true),
        // Another description of the same file keeps the order where both append. Without kcmp(2) (a filter around the
        // caller, CONFIG_KCMP), one description and two that stand at the same place look alike.
        answer => {
            let append = first.flags.contains(OFlag::O_APPEND) && second.flags.contains(OFlag::O_APPEND);
            let place = |fd| lseek(fd, 0, Whence::SeekCur);
            Ok(append || answer.is_err() && first.flags == second.flags && place(one.0) == place(other.0))
        }
    }
}

/// A new pipe for a standard stream; the program's end of it.
pub(crate) fn pipe(number: u32, pipes: &mut Pipes) -> Result<OwnedFd> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(descriptors)?;
    let (read, write) = (lift(read)?, lift(write)?);
    let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
    match number {
        0 => pipes.stdin = Some(ours),
        1 => pipes.stdout = Some(ours),
        _ => pipes.stderr = Some(ours),
    }
    Ok(theirs)
}

/// What is thrown away, and counted before.
pub(crate) fn null_device() -> Result<OwnedFd> {
    let file = std::fs::File::options().write(true).open("/dev/null");
    file.map(OwnedFd::from).map_err(|e| descriptors(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))))
}

/// The caller's own stream; nothing where the caller has closed it.
pub(crate) fn inherited(number: u32) -> Result<Option<Passed<'static>>> {
    let duplicate = match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned(),
        1 => std::io::stdout().as_fd().try_clone_to_owned(),
        _ => std::io::stderr().as_fd().try_clone_to_owned(),
    };
    match duplicate {
        Ok(fd) => Ok(Some(Passed::Made(fd))),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(None),
        Err(error) => Err(descriptors(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))),
    }
}

/// A descriptor that is to be a stream of the program, looked at once.
pub(crate) struct Examined {
    stat: FileStat,
    flags: OFlag,
}

impl Examined {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Result<Examined> {
        let unknown = |errno| {
            let subject = format!("descriptor {}", fd.as_raw_fd());
            Failure::new("descriptors", subject, "cannot be examined").errno(errno as i32).setup()
        };
        let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        Ok(Examined { stat: fstat(fd).map_err(unknown)?, flags: flags.map_err(unknown)? })
    }

    fn is(&self, kind: SFlag) -> bool {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT == kind
    }

    pub(crate) fn is_null_device(&self) -> bool {
        self.is(SFlag::S_IFCHR) && self.stat.st_rdev == libc::makedev(1, 3)
    }

    fn is_written_file(&self) -> bool {
        self.is(SFlag::S_IFREG) && self.flags & OFlag::O_ACCMODE != OFlag::O_RDONLY
    }

    pub(crate) fn refuse_directory(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let fail = |message: &str| {
            let failure = Failure::new("option", format!("descriptor {}", fd.as_raw_fd()), message);
            Err(failure.hint("pass a file, a pipe or a socket").config())
        };
        if self.is(SFlag::S_IFDIR) {
            return fail("is a directory: it would lead out of the sandbox");
        }
        if self.flags.contains(OFlag::O_PATH) {
            return fail("is a path, not an open file");
        }
        Ok(())
    }

    /// Lets the program open a pipe again by /dev/stdin, /dev/stdout or /dev/stderr, as it could without a sandbox: the pipe
    /// is the caller's, and the program another user. Only processes that have the pipe can name it.
    pub(crate) fn allow_reopening(&self, fd: BorrowedFd<'_>, number: u32) -> Result<()> {
        const PIPEFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x5049_5045);
        // One direction only: what others write into the same pipe is not for the program to read.
        let wanted = if number == 0 { 0o044 } else { 0o022 };
        if !self.is(SFlag::S_IFIFO) || self.stat.st_mode & wanted == wanted {
            return Ok(());
        }
        // Not a FIFO in a file system: others could open that one.
        if nix::sys::statfs::fstatfs(fd).map_err(descriptors)?.filesystem_type() == PIPEFS_MAGIC {
            // Another user's pipe stays as it is.
            let _ = fchmod(fd, Mode::from_bits_truncate(self.stat.st_mode | wanted));
        }
        Ok(())
    }
}

pub(crate) fn refuse_directory(fd: BorrowedFd<'_>) -> Result<()> {
    Examined::new(fd)?.refuse_directory(fd)
}
