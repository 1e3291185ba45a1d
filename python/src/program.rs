//! A program with its environment and its streams, as a sandbox and a cell take it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use pyo3::prelude::*;
use sandcell::{Command, Error, Stdio, TerminalSize};

use crate::child::Child;
use crate::exchange::{Finished, exchange};
use crate::{raise, sys};

/// subprocess's own numbers.
const PIPE: i32 = -1;
const STDOUT: i32 = -2;
const DEVNULL: i32 = -3;

/// What the Python half hands over as a dictionary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Program {
    argv: Vec<OsString>,
    executable: Option<OsString>,
    cwd: Option<PathBuf>,
    /// The whole environment; without it that of the policy.
    env: Option<Vec<(OsString, OsString)>>,
    /// Each is nothing (the caller's own), `PIPE`, `DEVNULL` or a descriptor; the last may be `STDOUT`.
    streams: [Option<i32>; 3],
    pass_fds: Vec<RawFd>,
    timeout: Option<f64>,
    track_changes: bool,
    learn: bool,
    /// Rows and columns of a terminal, which the streams that are the caller's own otherwise are then.
    terminal: Option<(u16, u16)>,
}

impl Program {
    /// Starts it. The streams are no pipes of ours: subprocess makes its own.
    pub fn spawn(self, py: Python<'_>, make: impl FnOnce(&OsString) -> Command) -> PyResult<Child> {
        let (mut command, _) = self.command(make)?;
        py.detach(|| command.spawn()).map(Child::new).map_err(raise)
    }

    /// Runs it to its end.
    pub fn run(self, py: Python<'_>, input: &[u8], make: impl FnOnce(&OsString) -> Command) -> PyResult<Finished> {
        let (mut command, merged) = self.command(make)?;
        let mut child = py.detach(|| command.spawn()).map_err(raise)?;
        // The write ends of the merged pipe, if they are not used up.
        drop(command);
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from).or(merged);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let done =
            exchange(py, &mut child, stdin.map(File::from), [stdout, stderr].map(|fd| fd.map(File::from)), input);
        // What is not over ends here, and may take a moment.
        py.detach(|| drop(child));
        done
    }

    /// The command, and our end of the pipe that standard output and error share, where they do.
    fn command(self, make: impl FnOnce(&OsString) -> Command) -> PyResult<(Command, Option<OwnedFd>)> {
        let [name, args @ ..] = self.argv.as_slice() else {
            return Err(raise(Error::option("args", "is empty: it needs the program at least")));
        };
        let mut command = make(self.executable.as_ref().unwrap_or(name));
        if self.executable.is_some() {
            command.arg0(name);
        }
        command.args(args);
        if let Some(dir) = self.cwd {
            command.current_dir(dir);
        }
        if let Some(env) = self.env {
            command.env_clear().envs(env);
        }
        if let Some(seconds) = self.timeout {
            let timeout = Duration::try_from_secs_f64(seconds.max(0.0))
                .map_err(|error| raise(Error::option("timeout", format!("{seconds}: {error}"))))?;
            command.timeout(timeout);
        }
        command.track_changes(self.track_changes).learn(self.learn);
        let mut ours = None;
        let size = self.terminal.map(|(rows, columns)| TerminalSize::new(rows, columns));
        let stream = |wanted: Option<i32>| match (wanted, size) {
            (None, Some(size)) => Ok(Stdio::terminal(size)),
            _ => stream(wanted),
        };
        let (stdout, stderr) = match self.streams {
            [_, Some(PIPE), Some(STDOUT)] => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(std::io::Error::from)?;
                ours = Some(read);
                (Stdio::Fd(write.try_clone()?), Stdio::Fd(write))
            }
            [_, None, Some(STDOUT)] if size.is_some() => (stream(None)?, stream(None)?),
            // The caller's own standard output, where nothing else was said.
            [_, stdout, Some(STDOUT)] => (stream(stdout)?, stream(stdout.or(Some(1)))?),
            [_, stdout, stderr] => (stream(stdout)?, stream(stderr)?),
        };
        command.stdin(stream(self.streams[0])?).stdout(stdout).stderr(stderr);
        for fd in self.pass_fds {
            command.pass_fd(sys::duplicate(fd)?, fd);
        }
        Ok((command, ours))
    }
}

fn stream(wanted: Option<i32>) -> PyResult<Stdio> {
    Ok(match wanted {
        None => Stdio::Inherit,
        Some(PIPE) => Stdio::Piped,
        Some(DEVNULL) => Stdio::Null,
        Some(fd) => Stdio::Fd(sys::duplicate(fd)?),
    })
}
