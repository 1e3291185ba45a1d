//! Cells with a name, which outlive whoever started them.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sandcell::{Detach, Error, LogReader, Restart};

use crate::cell::Cell;
use crate::child::{SLICE, Told, told};
use crate::{Sandbox, options, raise};

/// A cell with a name. It ends nothing when it goes.
#[pyclass(frozen, module = "sandcell._native")]
pub struct NamedCell {
    inner: sandcell::NamedCell,
}

/// How it is started, besides its name and its program.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Settings {
    cwd: Option<PathBuf>,
    /// The whole environment; without it that of the policy.
    env: Option<Vec<(OsString, OsString)>>,
    log_max_size: Size,
    log_files: u32,
    keep_stdin: bool,
    restart: String,
}

/// Bytes, as a number or as options have them.
#[derive(FromPyObject)]
enum Size {
    Bytes(u64),
    Text(String),
}

/// Starts a cell with a name: with this main program, or without one.
#[pyfunction]
pub fn detach(
    py: Python<'_>,
    sandbox: &Bound<'_, Sandbox>,
    name: String,
    argv: Vec<OsString>,
    settings: Settings,
) -> PyResult<NamedCell> {
    let sandbox = &sandbox.get().inner;
    let size = match settings.log_max_size {
        Size::Bytes(bytes) => bytes,
        Size::Text(text) => sandcell::options::size("log_max_size", &text).map_err(raise)?,
    };
    let restart = match settings.restart.as_str() {
        "no" => Restart::No,
        "on-failure" => Restart::OnFailure,
        "always" => Restart::Always,
        other => {
            let message = format!("{other:?} is none of no, on-failure and always");
            return Err(raise(Error::option("restart", message)));
        }
    };
    let detach = Detach::new(name).log_max_size(size).log_files(settings.log_files);
    let detach = detach.keep_stdin(settings.keep_stdin).restart(restart);
    let start = || match argv.as_slice() {
        [] => detach.start(sandbox),
        [program, args @ ..] => {
            let mut command = sandbox.command(program);
            command.args(args);
            if let Some(dir) = settings.cwd {
                command.current_dir(dir);
            }
            if let Some(env) = settings.env {
                command.env_clear().envs(env);
            }
            detach.run(&mut command)
        }
    };
    py.detach(start).map(|inner| NamedCell { inner }).map_err(raise)
}

/// The cell of this name.
#[pyfunction]
pub fn find_cell(py: Python<'_>, name: &str) -> PyResult<NamedCell> {
    py.detach(|| sandcell::Cell::find(name)).map(|inner| NamedCell { inner }).map_err(raise)
}

/// All cells of the calling user.
#[pyfunction]
pub fn named_cells(py: Python<'_>) -> Vec<NamedCell> {
    py.detach(sandcell::cells).into_iter().map(|inner| NamedCell { inner }).collect()
}

#[pymethods]
impl NamedCell {
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// The live cell. Closing it ends nothing.
    fn open(&self, py: Python<'_>) -> PyResult<Cell> {
        py.detach(|| self.inner.cell()).map(Cell::of_keeper).map_err(raise)
    }

    /// What can be told of it, as a JSON array with one object.
    fn info(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.info()).map(|info| sandcell::cells_to_json(&[info])).map_err(raise)
    }

    fn stop(&self, py: Python<'_>, grace: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let grace = grace.map(|value| options::seconds("grace", value)).transpose()?;
        py.detach(|| self.inner.stop(grace)).map_err(raise)
    }

    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.kill()).map_err(raise)
    }

    fn send_signal(&self, py: Python<'_>, signal: i32) -> PyResult<()> {
        py.detach(|| self.inner.signal(signal)).map_err(raise)
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.pause()).map_err(raise)
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.resume()).map_err(raise)
    }

    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.remove()).map_err(raise)
    }

    /// Waits for its end, at most `timeout` seconds; the report, or nothing while it lives.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Told>> {
        let timeout = timeout.map(|value| options::seconds("timeout", value)).transpose()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()).min(SLICE));
            if let Some(report) = py.detach(|| self.inner.wait_timeout(left)).map_err(raise)? {
                return told(report).map(Some);
            }
            if left.is_zero() {
                return Ok(None);
            }
            py.check_signals()?;
        }
    }

    fn log(&self, py: Python<'_>) -> PyResult<Log> {
        py.detach(|| self.inner.log()).map(|reader| Log { inner: Mutex::new(reader) }).map_err(raise)
    }

    fn attach(&self, py: Python<'_>, takeover: bool) -> PyResult<Attached> {
        let inner = py.detach(|| self.inner.attach(takeover)).map_err(raise)?;
        Ok(Attached { inner: Mutex::new(Some(inner)) })
    }
}

/// Reads the log of a cell.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Log {
    inner: Mutex<LogReader>,
}

/// offset, next, seconds since 1970, time as text, stream, whether it goes on, text
type Line = (u64, u64, f64, String, i32, bool, Py<PyBytes>);

impl Log {
    fn locked(&self) -> MutexGuard<'_, LogReader> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Log {
    fn next_line(&self, py: Python<'_>) -> PyResult<Option<Line>> {
        let line = py.detach(|| self.locked().next_line()).map_err(raise)?;
        Ok(line.map(|line| {
            let seconds = line.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let text = PyBytes::new(py, &line.text).unbind();
            (line.offset, line.next, seconds, line.stamp, line.stream, line.partial, text)
        }))
    }

    /// Waits until there may be more; false where the cell has ended and all is read.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        loop {
            let slice: Duration = SLICE;
            let (more, live) = py
                .detach(|| {
                    let mut reader = self.locked();
                    reader.wait_timeout(slice).map(|more| (more, reader.is_live()))
                })
                .map_err(raise)?;
            if more || !live {
                return Ok(more);
            }
            py.check_signals()?;
        }
    }

    fn seek(&self, offset: u64) {
        self.locked().seek(offset);
    }

    fn tail(&self, py: Python<'_>, count: usize) -> PyResult<()> {
        py.detach(|| self.locked().tail(count)).map_err(raise)
    }

    fn skipped(&self) -> u64 {
        self.locked().skipped()
    }
}

/// The standard input of a cell's main program.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Attached {
    /// Nothing once it is let go.
    inner: Mutex<Option<sandcell::Attached>>,
}

#[pymethods]
impl Attached {
    fn write(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
        py.detach(|| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(attached) = inner.as_mut() else { return Err(PyValueError::new_err("it is closed")) };
            attached.write_all(bytes).map_err(PyErr::from)
        })
    }

    /// Lets go of it; with `end` the program reads its end.
    fn close(&self, py: Python<'_>, end: bool) -> PyResult<()> {
        let attached = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        match attached {
            Some(attached) if end => py.detach(|| attached.close()).map_err(raise),
            _ => Ok(()),
        }
    }
}
