//! What is said to somebody who may not listen: a terminal or a pipe that nobody reads. As long as a program may run, its caller may take
//! its time; once its time is up, nobody waits for that.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// How long something that is said late may take.
const MOMENT: Duration = Duration::from_millis(200);

static LATE: AtomicBool = AtomicBool::new(false);
/// Nobody has listened.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// From here on nobody is waited for.
pub fn hurry() {
    LATE.store(true, Ordering::Relaxed);
}

/// To standard error. Nobody is told that it cannot be written.
pub fn complain(text: &str) {
    if !UNHEARD.load(Ordering::Relaxed) {
        let _ = say(io::stderr().as_fd(), text.as_bytes());
    }
}

/// Writes all of it; late, not longer than a moment.
pub fn say(to: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut to = File::from(to.try_clone_to_owned()?);
    if !LATE.load(Ordering::Relaxed) || to.metadata()?.is_file() {
        return to.write_all(bytes);
    }
    // A thread can be left where it waits: a descriptor of the caller's cannot be kept from blocking without changing it for others.
    let bytes = bytes.to_vec();
    let (tell, told) = sync_channel(1);
    thread::Builder::new().spawn(move || tell.send(to.write_all(&bytes)))?;
    told.recv_timeout(MOMENT).unwrap_or_else(|_| {
        UNHEARD.store(true, Ordering::Relaxed);
        Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"))
    })
}

/// A way to what cannot be kept from blocking: a pipe that does not, and a thread that carries what comes out of it.
pub struct Carried(Receiver<()>);

impl Carried {
    pub fn to(mut end: File) -> io::Result<(File, Carried)> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (tell, told) = sync_channel(1);
        thread::Builder::new().spawn(move || {
            let _ = carry(read, &mut end);
            let _ = tell.send(());
        })?;
        Ok((File::from(write), Carried(told)))
    }

    /// Whether all is written, which it is some time after the pipe was closed.
    pub fn is_over(&self, patience: Duration) -> bool {
        !matches!(self.0.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }
}

fn carry(from: OwnedFd, to: &mut File) -> io::Result<()> {
    let mut from = File::from(from);
    let mut buffer = [0; 4096];
    loop {
        match io::Read::read(&mut from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
