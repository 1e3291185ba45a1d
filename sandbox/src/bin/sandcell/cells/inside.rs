//! A process of ours that is in a cell for a while, and what passes between it and us. The cell may stand still: whoever waits for
//! the process looks now and then whether it does, and gives up.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Whence, lseek};
use sandcell::{Cell, CellState, Entry, Error, printable_lines};

use crate::options::amended;
use crate::sys;

/// Statuses of the process inside: an error number, or one of these.
const NOT_A_FILE: i32 = 200;
const NO_ENTRY: i32 = 201;
/// It has written what is wrong.
const TOLD: i32 = 202;
/// What it writes of what it has left out, at most: that fits into any pipe, which is read in the end.
const MOST_TOLD: usize = 4000;

/// How often it is looked whether the cell is paused while nothing passes.
const LOOK: Duration = Duration::from_millis(500);
/// How long nothing may pass: the process may be stopped, or wait for a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

const DEVICES: &str = "Let a program read it: `sandcell exec NAME -- head -c SIZE FILE`.";

pub fn mistake(subject: &str, message: &str, hint: &str) -> Error {
    amended(Error::option(subject, message), |failure| failure.hint = hint.to_owned())
}

pub fn failed(path: &Path, error: &io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "Name one that is there; `cp` makes no directories above it.",
        io::ErrorKind::PermissionDenied => {
            "Name a path that you may use; in a cell, one that its user may use (`sandcell exec NAME ls -ld DIR`)."
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Free some space; that of a cell is limited by its `disk`."
        }
        io::ErrorKind::ReadOnlyFilesystem => "Name a path that can be written to, such as /tmp.",
        io::ErrorKind::NotADirectory => "Name a directory.",
        io::ErrorKind::InvalidData => {
            "Give it a tar archive that is complete, and not compressed: `tar -c DIR | sandcell cp - NAME:PATH`."
        }
        _ => "Look at what is there, or name another path.",
    };
    mistake(&path.display().to_string(), &of_system(error), hint)
}

/// Without Rust's `(os error 2)`.
fn of_system(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| nix::errno::Errno::from_raw(errno).desc().to_owned())
}

pub fn pipe(subject: &Path) -> Result<(OwnedFd, OwnedFd), Error> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(subject, &errno.into()))
}

/// The beginning of a path that is long.
pub fn short(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
    if path.len() > 200 { text + "…" } else { text }
}

/// What the process inside says, by a pipe of its own.
pub struct Told {
    pipe: File,
    length: usize,
    more: usize,
}

impl Told {
    pub fn left(&mut self, path: &[u8], what: &str) {
        self.say(&format!("left out: {}: {what}", short(path)));
    }

    fn say(&mut self, text: &str) {
        let line = text.replace('\n', "?") + "\n";
        if self.length + line.len() > MOST_TOLD {
            self.more += 1;
            return;
        }
        self.length += line.len();
        let _ = self.pipe.write_all(line.as_bytes());
    }
}

/// Does it as a process of the cell, which has descriptors for this and nothing else of ours.
pub fn inside(cell: &str, kept: &[i32], act: impl FnOnce(&mut Told) -> io::Result<()>) -> Result<Process, Error> {
    let mut entry: Entry = Cell::find(cell)?.cell()?.entry()?;
    let (told, pipe) = pipe(Path::new("cp"))?;
    // Our memory and our environment are the caller's.
    entry.keep_fd(pipe.as_raw_fd()).hide_memory();
    for fd in kept {
        entry.keep_fd(*fd);
    }
    let forked = sys::forked(|| {
        // Who is killed takes the process inside along, even where that is frozen.
        let _ = set_pdeathsig(Signal::SIGKILL);
        if entry.join().is_err() {
            return NO_ENTRY;
        }
        let child = sys::forked(|| {
            if entry.confine().is_err() || set_pdeathsig(Signal::SIGKILL).is_err() {
                return NO_ENTRY;
            }
            let mut told = Told { pipe: File::from(pipe), length: 0, more: 0 };
            let done = act(&mut told);
            if told.more > 0 {
                let text = format!("and {} more\n", told.more);
                let _ = told.pipe.write_all(text.as_bytes());
            }
            match done {
                Ok(()) => 0,
                Err(error) if error.raw_os_error() == Some(libc::EISDIR) => NOT_A_FILE,
                Err(error) => match error.raw_os_error() {
                    Some(errno) if (1..200).contains(&errno) => errno,
                    _ => {
                        let _ = told.pipe.write_all(format!("\0{error}").as_bytes());
                        TOLD
                    }
                },
            }
        });
        // Whoever reads a pipe waits for all who could write into it.
        sys::close_all();
        child.map_or(NO_ENTRY, status)
    });
    let pid = forked.map_err(|errno| failed(Path::new("cp"), &errno.into()))?;
    Ok(Process { cell: cell.to_owned(), pid, told, moves: None, stands: RefCell::new(None) })
}

fn status(process: nix::unistd::Pid) -> i32 {
    loop {
        match waitpid(process, None) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, status)) => return status,
            _ => return NO_ENTRY,
        }
    }
}

/// The process outside that waits for the one inside.
pub struct Process {
    cell: String,
    pid: nix::unistd::Pid,
    /// At its end when the process inside has ended.
    told: OwnedFd,
    /// Shared with the process inside, which reads it: its offset tells that it goes on.
    moves: Option<File>,
    /// Why it is given up.
    stands: RefCell<Option<Error>>,
}

impl Process {
    /// What it writes.
    pub fn reader(&self, pipe: OwnedFd) -> Passing<'_> {
        Passing { process: self, pipe: pipe.into() }
    }

    /// What it reads. Ours alone: that it does not block is not seen inside.
    pub fn writer(&self, pipe: OwnedFd) -> io::Result<Passing<'_>> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Passing { process: self, pipe: pipe.into() })
    }

    pub fn moves(&mut self, file: File) {
        self.moves = Some(file);
    }

    /// Whether it was given up.
    pub fn stands(&self) -> bool {
        self.stands.borrow().is_some()
    }

    /// Waits until something passes, and gives up where nothing does.
    fn wait(&self, fd: impl AsFd, flags: PollFlags) -> io::Result<()> {
        let place = || self.moves.as_ref().and_then(|file| lseek(file, 0, Whence::SeekCur).ok());
        let (mut since, mut last) = (Instant::now(), place());
        loop {
            let mut polls = [PollFd::new(fd.as_fd(), flags)];
            match poll(&mut polls, PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => {}
                Err(Errno::EINTR) => continue,
                other => return other.map(|_| ()).map_err(io::Error::from),
            }
            if self.stands() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let now = place();
            if now != last {
                (since, last) = (Instant::now(), now);
            }
            if let Some(error) = self.why_it_stands(since) {
                *self.stands.borrow_mut() = Some(error);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn why_it_stands(&self, since: Instant) -> Option<Error> {
        let paused = || {
            let info = Cell::find(&self.cell).and_then(|cell| cell.info());
            info.is_ok_and(|info| info.state == CellState::Paused)
        };
        if paused() {
            let hint = format!("Let it go on with `sandcell unpause {}`, and copy again.", self.cell);
            return Some(mistake(&self.cell, "the cell was paused while files were copied", &hint));
        }
        (since.elapsed() >= PATIENCE).then(|| {
            let message = format!("the copy has not gone on for {PATIENCE:?}");
            let hint = "Look whether the cell is frozen, or waits for a file system that does not answer.";
            mistake(&self.cell, &message, hint)
        })
    }

    pub fn ended(self, path: &Path) -> Result<(), Error> {
        let subject = path.display().to_string();
        let mut told = Vec::new();
        if !self.stands() {
            let mut pipe =
                Passing { process: &self, pipe: self.told.try_clone().map_err(|e| failed(path, &e))?.into() };
            let _ = (&mut pipe).take(2 * MOST_TOLD as u64).read_to_end(&mut told);
        }
        let given_up = self.stands.take();
        if given_up.is_some() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        let status = status(self.pid);
        let text = String::from_utf8_lossy(&told);
        let (left, why) = text.split_once('\0').unwrap_or((&text, ""));
        for line in left.lines() {
            complain!("sandcell: {}", printable_lines(line, ""));
        }
        if let Some(error) = given_up {
            return Err(error);
        }
        match status {
            0 => Ok(()),
            NOT_A_FILE => Err(mistake(&subject, "is no ordinary file in the cell", DEVICES)),
            TOLD => Err(failed(path, &io::Error::new(io::ErrorKind::InvalidData, sandcell::printable(why)))),
            NO_ENTRY => {
                Err(mistake(&subject, "the cell cannot be entered", "Has it ended meanwhile? `sandcell ps` tells."))
            }
            errno => Err(failed(path, &io::Error::from_raw_os_error(errno))),
        }
    }
}

/// One end of a pipe whose other end the process inside has.
pub struct Passing<'a> {
    process: &'a Process,
    pipe: File,
}

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.process.wait(&self.pipe, PollFlags::POLLIN)?;
        self.pipe.read(buffer)
    }
}

impl Write for Passing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.process.wait(&self.pipe, PollFlags::POLLOUT)?;
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
