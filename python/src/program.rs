//! A program with its environment and its streams, as `spawn` of a sandbox and of a cell takes it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use sandcell::{Command, Error, Stdio};

use crate::child::Child;
use crate::{raise, sys};

/// subprocess's own numbers.
const PIPE: i32 = -1;
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
    /// Each is nothing (the caller's own), `PIPE`, `DEVNULL` or a descriptor.
    streams: [Option<i32>; 3],
    pass_fds: Vec<RawFd>,
    timeout: Option<f64>,
}

impl Program {
    /// Starts it in what `command` makes commands for.
    pub fn spawn(self, py: Python<'_>, command: impl FnOnce(&OsString) -> Command) -> PyResult<Child> {
        let [name, args @ ..] = self.argv.as_slice() else {
            return Err(raise(Error::option("args", "is empty: it needs the program at least")));
        };
        let mut command = command(self.executable.as_ref().unwrap_or(name));
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
        let [stdin, stdout, stderr] = self.streams;
        command.stdin(stream(stdin)?).stdout(stream(stdout)?).stderr(stream(stderr)?);
        for fd in self.pass_fds {
            command.pass_fd(sys::duplicate(fd)?, fd);
        }
        py.detach(|| command.spawn()).map(Child::new).map_err(raise)
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
