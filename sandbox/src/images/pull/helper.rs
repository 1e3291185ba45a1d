//! A credential helper: a program of the caller's, which may hang, or say more than anybody wants to read.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};

use crate::images::stream::Stop;

/// The longest answer that is read.
const ANSWER_LIMIT: u64 = 1 << 20;
/// How often the caller is asked whether it wants to go on, in milliseconds.
const LOOK: u16 = 50;

/// How long a helper may take, and who may end it before.
pub(super) struct Asking<'a> {
    pub time: Duration,
    pub stop: &'a Stop,
}

/// It and what it has started; killed with the value, unless it has ended.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        // Not reaped yet, so the number is still that of its group.
        let _ = killpg(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Whether it says that it has succeeded, and what it has written.
pub(super) fn ask(program: &str, server: &str, asking: &Asking<'_>) -> io::Result<(bool, Vec<u8>)> {
    let until = Instant::now() + asking.time;
    let mut helper = Helper(
        Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?,
    );
    let nonblocking = |fd: std::os::fd::BorrowedFd<'_>| fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| ());
    if let Some(mut stdin) = helper.0.stdin.take() {
        nonblocking(stdin.as_fd())?;
        // A helper that does not read is not worth an error of its own.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut stdout = helper.0.stdout.take();
    if let Some(stdout) = &stdout {
        nonblocking(stdout.as_fd())?;
    }
    let mut answer = Vec::new();
    loop {
        // Before it is read: what it has started may hold the pipe open, and what it wrote itself is in there now.
        let ended = helper.0.try_wait()?;
        if let Some(pipe) = &mut stdout {
            match pipe.take(ANSWER_LIMIT + 1 - answer.len() as u64).read_to_end(&mut answer) {
                Ok(_) if answer.len() as u64 > ANSWER_LIMIT => {
                    return Err(io::Error::other(format!("it says more than {ANSWER_LIMIT} bytes")));
                }
                Ok(_) => stdout = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(status) = ended {
            return Ok((status.success(), answer));
        }
        asking.stop.check()?;
        if Instant::now() >= until {
            return Err(io::Error::other(format!("it has not ended after {:?} and was killed", asking.time)));
        }
        let mut polls: Vec<_> = stdout.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut polls, PollTimeout::from(LOOK));
    }
}
