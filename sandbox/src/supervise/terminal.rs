//! A terminal of the sandbox's own, from outside: the other end of the program's pseudo-terminal, see pty(7).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;

use crate::sys;
use crate::wire::TERMIOS_BYTES;

/// The size of a terminal, in characters and, where that is known, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Width in pixels; 0 is unknown.
    pub width: u16,
    /// Height in pixels; 0 is unknown.
    pub height: u16,
}

impl TerminalSize {
    /// So many lines of so many characters.
    pub fn new(rows: u16, columns: u16) -> TerminalSize {
        TerminalSize { rows, columns, width: 0, height: 0 }
    }

    /// The size of a terminal that the caller has.
    ///
    /// # Errors
    /// ENOTTY where it is no terminal.
    pub fn of(terminal: impl AsFd) -> io::Result<TerminalSize> {
        let [rows, columns, width, height] = sys::terminal_size(terminal.as_fd())?;
        Ok(TerminalSize { rows, columns, width, height })
    }

    fn numbers(self) -> [u16; 4] {
        [self.rows, self.columns, self.width, self.height]
    }
}

impl Default for TerminalSize {
    /// 24 lines of 80 characters.
    fn default() -> TerminalSize {
        TerminalSize::new(24, 80)
    }
}

/// What a terminal is to be like when the program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalSetup {
    size: TerminalSize,
    /// The kernel's struct termios, or its defaults.
    modes: Option<[u8; TERMIOS_BYTES]>,
}

impl TerminalSetup {
    pub(crate) fn new(size: TerminalSize) -> TerminalSetup {
        TerminalSetup { size, modes: None }
    }

    pub(crate) fn like(terminal: BorrowedFd<'_>) -> io::Result<TerminalSetup> {
        Ok(TerminalSetup { size: TerminalSize::of(terminal)?, modes: Some(sys::terminal_modes(terminal)?) })
    }

    /// Size and modes as a request has them.
    pub(crate) fn parts(&self) -> (u64, &[u8]) {
        let bytes = self.size.numbers().map(u16::to_ne_bytes);
        let size = u64::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]].concat().try_into().unwrap_or_default());
        (size, self.modes.as_ref().map_or(&[], |modes| modes))
    }
}

/// The other end of a program's terminal: what is written is typed, what the program shows can be read. When this is dropped
/// the terminal hangs up, and the program gets SIGHUP.
///
/// What is read is the program's: escape sequences act on a terminal that they are shown on.
///
/// ```
/// use std::io::{Read, Write};
/// use sandcell::{Sandbox, Stdio, TerminalSize};
///
/// let sandbox = Sandbox::builder().build()?;
/// let mut child = sandbox.command("sh").stdin(Stdio::terminal(TerminalSize::new(50, 132))).spawn()?;
/// let mut terminal = child.terminal.take().unwrap();
/// terminal.write_all(b"stty size; exit\n")?;
/// let mut shown = String::new();
/// terminal.read_to_string(&mut shown)?;
/// assert!(shown.contains("50 132"));
/// # child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Terminal {
    /// O_NONBLOCK is set, so that no call waits longer than its caller wants.
    master: File,
}

impl Terminal {
    /// What came from init, if it is what it should be.
    pub(crate) fn new(fd: OwnedFd) -> nix::Result<Terminal> {
        const PTMX: u64 = libc::makedev(5, 2);
        let stat = nix::sys::stat::fstat(&fd)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != PTMX {
            return Err(Errno::EPROTO);
        }
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        Ok(Terminal { master: File::from(fd) })
    }

    /// Reads what the program has shown, for which it waits as long as this at most: `None` where nothing came. 0 bytes: nobody
    /// has the terminal any more.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn read_timeout(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        self.read_until(buffer, Instant::now().checked_add(timeout))
    }

    /// Types what the program takes within this time; how many bytes that was.
    ///
    /// # Errors
    /// Those of write(2). EIO: nobody has the terminal, and the kernel takes no more for whoever may open it again.
    pub fn write_timeout(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        let until = Instant::now().checked_add(timeout);
        let mut written = 0;
        while written < bytes.len() {
            match self.write_until(&bytes[written..], until) {
                Ok(Some(count)) => written += count,
                Ok(None) => break,
                // What was taken before counts; the next call tells of the error.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn read_until(&self, buffer: &mut [u8], until: Option<Instant>) -> io::Result<Option<usize>> {
        if buffer.is_empty() {
            return Ok(Some(0));
        }
        self.ready(until, PollFlags::POLLIN, || match (&self.master).read(buffer) {
            // Its other end is closed, and what was in it has been read.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        })
    }

    fn write_until(&self, bytes: &[u8], until: Option<Instant>) -> io::Result<Option<usize>> {
        self.ready(until, PollFlags::POLLOUT, || match (&self.master).write(bytes) {
            // The kernel would call it ready for ever.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_hung_up()? => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            other => other,
        })
    }

    /// Whether nobody has its other end.
    fn is_hung_up(&self) -> io::Result<bool> {
        Ok(sys::wait(&[(self.master.as_fd(), PollFlags::empty())], Some(Instant::now()))?[0])
    }

    fn ready(
        &self,
        until: Option<Instant>,
        wanted: PollFlags,
        mut act: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            if !sys::wait(&[(self.master.as_fd(), wanted)], until)?[0] {
                return Ok(None);
            }
        }
    }

    /// Changes the size; programs in the foreground get SIGWINCH.
    ///
    /// # Errors
    /// Those of TIOCSWINSZ, see ioctl_tty(2).
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(sys::set_terminal_size(self.master.as_fd(), size.numbers())?)
    }

    /// The size that it has.
    ///
    /// # Errors
    /// Those of TIOCGWINSZ, see ioctl_tty(2).
    pub fn size(&self) -> io::Result<TerminalSize> {
        TerminalSize::of(&self.master)
    }

    /// The character that ends the input of a program that reads lines; Ctrl-D unless it was changed.
    pub fn end_of_file(&self) -> u8 {
        // Four flags of 32 bits and the discipline's number come first.
        const END_OF_FILE: usize = 17 + libc::VEOF;
        sys::terminal_modes(self.master.as_fd()).map_or(4, |modes| modes[END_OF_FILE])
    }

    /// Another handle of the same end: the terminal hangs up when all are dropped.
    ///
    /// # Errors
    /// EMFILE, where the caller has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Terminal> {
        Ok(Terminal { master: self.master.try_clone()? })
    }
}

impl Read for Terminal {
    /// Waits until the program shows something. 0: nobody has the terminal any more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Read for &Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_until(buffer, None)?.unwrap_or(0))
    }
}

impl Write for Terminal {
    /// Waits until the program, or the kernel for it, takes something.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.write_until(bytes, None)?.unwrap_or(0))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Terminal {
    /// For poll(2) and the like. O_NONBLOCK is set.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

impl AsRawFd for Terminal {
    fn as_raw_fd(&self) -> RawFd {
        self.master.as_raw_fd()
    }
}

impl IntoRawFd for Terminal {
    fn into_raw_fd(self) -> RawFd {
        self.master.into_raw_fd()
    }
}

impl TryFrom<OwnedFd> for Terminal {
    type Error = io::Error;

    /// A descriptor that a [`Terminal`] was turned into, or a copy of it.
    fn try_from(fd: OwnedFd) -> io::Result<Terminal> {
        Ok(Terminal::new(fd)?)
    }
}

impl From<Terminal> for OwnedFd {
    fn from(terminal: Terminal) -> OwnedFd {
        terminal.master.into()
    }
}
