//! The native half of the Python package: policies, programs and their ends. Everything that has subprocess's
//! shape (text, checks, pipes being read and written) is Python, in `sandcell/`.

mod options;
mod sys;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use sandcell::{Controller, Error, Stdio};

pyo3::create_exception!(
    sandcell._native,
    NativeError,
    pyo3::exceptions::PyException,
    "(kind, stage, errno, subject, message, hint); the Python half turns it into its own exceptions."
);

/// How long a wait may last before Python looks whether a signal has come.
const SLICE: Duration = Duration::from_millis(200);

/// subprocess's own numbers.
const PIPE: i32 = -1;
const DEVNULL: i32 = -3;

/// An error of the library as [`NativeError`].
fn raise(error: Error) -> PyErr {
    let failure = error.failure();
    NativeError::new_err((
        error.kind(),
        failure.stage,
        failure.errno,
        failure.subject.clone(),
        failure.message.clone(),
        failure.hint.clone(),
    ))
}

/// A checked policy.
#[pyclass(frozen, module = "sandcell._native")]
struct Sandbox {
    inner: sandcell::Sandbox,
}

/// A program, its environment and its streams, as `spawn` takes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Program {
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

#[pymethods]
impl Sandbox {
    #[new]
    fn new(options: &Bound<'_, PyDict>) -> PyResult<Sandbox> {
        let inner = options::builder(options)?.build().map_err(raise)?;
        Ok(Sandbox { inner })
    }

    /// Starts a program in a sandbox of its own.
    fn spawn(&self, py: Python<'_>, program: Program) -> PyResult<Child> {
        let [name, args @ ..] = program.argv.as_slice() else {
            return Err(raise(Error::option("args", "is empty: it needs the program at least")));
        };
        let mut command = self.inner.command(program.executable.as_ref().unwrap_or(name));
        if program.executable.is_some() {
            command.arg0(name);
        }
        command.args(args);
        if let Some(dir) = program.cwd {
            command.current_dir(dir);
        }
        if let Some(env) = program.env {
            command.env_clear().envs(env);
        }
        if let Some(seconds) = program.timeout {
            let timeout = Duration::try_from_secs_f64(seconds.max(0.0))
                .map_err(|error| raise(Error::option("timeout", format!("{seconds}: {error}"))))?;
            command.timeout(timeout);
        }
        let [stdin, stdout, stderr] = program.streams;
        command.stdin(stream(stdin)?).stdout(stream(stdout)?).stderr(stream(stderr)?);
        for fd in program.pass_fds {
            command.pass_fd(sys::duplicate(fd)?, fd);
        }
        let mut child = py.detach(|| command.spawn()).map_err(raise)?;
        let raw = |fd: Option<OwnedFd>| fd.map(IntoRawFd::into_raw_fd);
        Ok(Child {
            controller: child.controller(),
            pidfd: child.as_fd().as_raw_fd(),
            pid: child.id(),
            pipes: (
                raw(child.stdin.take().map(OwnedFd::from)),
                raw(child.stdout.take().map(OwnedFd::from)),
                raw(child.stderr.take().map(OwnedFd::from)),
            ),
            inner: Mutex::new(child),
        })
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

/// A program that runs, or has run. All that it started ends when this is gone.
#[pyclass(frozen, module = "sandcell._native")]
struct Child {
    inner: Mutex<sandcell::Child>,
    controller: Controller,
    /// The program's process number inside.
    #[pyo3(get)]
    pid: u32,
    /// Our ends of stdin, stdout and stderr: the caller closes them.
    #[pyo3(get)]
    pipes: (Option<RawFd>, Option<RawFd>, Option<RawFd>),
    pidfd: RawFd,
}

impl Child {
    fn locked(&self) -> MutexGuard<'_, sandcell::Child> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Child {
    /// A descriptor that becomes readable when the program ends; it lives as long as this object.
    fn fileno(&self) -> RawFd {
        self.pidfd
    }

    /// Waits for the end, at most `timeout` seconds; the report as JSON, or nothing while it still runs.
    /// The interpreter is free meanwhile, and signals are seen to five times a second.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<String>> {
        let timeout = timeout.map(|value| options::seconds("timeout", value)).transpose()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.unwrap_or(SLICE).min(SLICE);
            let report = py.detach(|| self.locked().wait_timeout(slice)).map_err(raise)?;
            if let Some(report) = report {
                return Ok(Some(sandcell::report::to_json(&Ok(report))));
            }
            if left.is_some_and(|left| left <= SLICE) {
                return Ok(None);
            }
            py.check_signals()?;
        }
    }

    /// Sends a signal to the program.
    fn send_signal(&self, signal: i32) -> PyResult<()> {
        self.controller.signal(signal).map_err(raise)
    }

    /// Ends the program and all that it started.
    fn kill(&self) -> PyResult<()> {
        self.controller.kill().map_err(raise)
    }
}

/// What this host allows, as a JSON array.
#[pyfunction]
fn doctor(py: Python<'_>) -> String {
    py.detach(|| sandcell::report::findings_to_json(&sandcell::doctor()))
}

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("NativeError", module.py().get_type::<NativeError>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Sandbox>()?;
    module.add_class::<Child>()?;
    module.add_function(wrap_pyfunction!(doctor, module)?)
}
