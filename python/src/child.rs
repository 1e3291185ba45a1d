//! A program that runs, or has run: waiting, signalling, ending.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyAny;
use sandcell::seccomp::Profile;
use sandcell::{Controller, Report, report};

use crate::ours::Ours;
use crate::{options, raise, sys};

/// How long a wait may last before Python looks whether a signal has come.
pub const SLICE: Duration = Duration::from_millis(200);

/// A report as JSON, and the system call profile that was learned, as Docker's JSON.
pub type Told = (String, Option<String>);

pub fn told(report: Report) -> PyResult<Told> {
    let learned = report.learned.as_ref().map(Profile::to_json).transpose().map_err(raise)?;
    Ok((report::to_json(&Ok(report)), learned))
}

/// A program that runs, or has run. All that it started ends when this is gone.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Child {
    inner: Mutex<Ours<sandcell::Child>>,
    controller: Controller,
    /// The program's process number inside.
    #[pyo3(get)]
    pid: u32,
    pidfd: RawFd,
}

impl Child {
    pub fn new(child: sandcell::Child) -> Child {
        Child {
            controller: child.controller(),
            pidfd: child.as_fd().as_raw_fd(),
            pid: child.id(),
            inner: Mutex::new(Ours::new(child)),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Ours<sandcell::Child>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Child {
    /// A descriptor that becomes readable when the program ends; it lives as long as this object.
    fn fileno(&self) -> RawFd {
        self.pidfd
    }

    /// The program's process number as the caller sees it; nothing if it has ended by now.
    fn host_pid(&self) -> Option<i32> {
        sys::process_of(self.pidfd, self.pid)
    }

    /// The other end of its terminal, once: whoever takes it closes it.
    fn take_terminal(&self) -> Option<RawFd> {
        self.locked().terminal.take().map(IntoRawFd::into_raw_fd)
    }

    /// Who it is, what is enforced and published, as JSON: {identity, enforced, published}.
    fn standing(&self, py: Python<'_>) -> String {
        py.detach(|| {
            let child = self.locked();
            report::standing_to_json(&child.identity(), child.enforced(), child.published())
        })
    }

    /// Waits for the end, at most `timeout` seconds; the report, or nothing while it still runs.
    /// The interpreter is free meanwhile, signals are seen to at once in the main thread, and other threads may ask.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Told>> {
        let timeout = timeout.map(|value| options::seconds("timeout", value)).transpose()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(report) = py.detach(|| self.locked().try_wait()).map_err(raise)? {
                return told(report).map(Some);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            // Not under the lock: another thread that only asks must not wait for this one.
            py.detach(|| sys::wait_readable(self.pidfd, left.unwrap_or(SLICE).min(SLICE)));
            py.check_signals()?;
        }
    }

    /// Sends a signal to the program.
    fn send_signal(&self, signal: i32) -> PyResult<()> {
        self.controller.signal(signal).map_err(raise)
    }

    /// Sends a signal to the program's process group.
    fn send_signal_group(&self, signal: i32) -> PyResult<()> {
        self.controller.signal_group(signal).map_err(raise)
    }

    /// Ends the program and all that it started. A first process that does not answer is given two seconds.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.controller.kill()).map_err(raise)
    }
}
