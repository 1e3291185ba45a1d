//! A started sandbox in which many programs are run.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sandcell::{ChangeKind, report};

use crate::child::Child;
use crate::exchange::Finished;
use crate::ours::Ours;
use crate::program::Program;
use crate::{options, raise};

/// Everything in it ends when it is closed, or gone.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Cell {
    /// Nothing once it is closed.
    inner: Mutex<Option<Ours<sandcell::Cell>>>,
    /// Whether it is a keeper's: then closing it ends nothing.
    kept: bool,
}

impl Cell {
    pub fn new(cell: sandcell::Cell) -> Cell {
        Cell { inner: Mutex::new(Some(Ours::new(cell))), kept: false }
    }

    pub fn of_keeper(cell: sandcell::Cell) -> Cell {
        Cell { kept: true, ..Cell::new(cell) }
    }

    /// A clone to work with: no call holds the lock, so that `close` never waits for one.
    pub fn open(&self) -> PyResult<sandcell::Cell> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_deref().cloned().ok_or_else(|| PyValueError::new_err("the cell is closed"))
    }
}

#[pymethods]
impl Cell {
    /// Starts a program in it.
    fn spawn(&self, py: Python<'_>, program: Program) -> PyResult<Child> {
        let cell = self.open()?;
        program.spawn(py, |name| cell.command(name))
    }

    /// Runs a program in it to its end: the report as JSON, and what came out of the pipes.
    fn run(&self, py: Python<'_>, program: Program, input: &[u8]) -> PyResult<Finished> {
        let cell = self.open()?;
        program.run(py, input, |name| cell.command(name))
    }

    /// A descriptor that becomes readable when the cell ends; it lives until `close`.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.open()?.as_fd().as_raw_fd())
    }

    /// What it has used so far, as JSON.
    fn usage(&self) -> PyResult<String> {
        Ok(report::usage_to_json(&self.open()?.usage()))
    }

    /// Who its programs are, what is enforced and published, as JSON: {identity, enforced, published}.
    fn standing(&self) -> PyResult<String> {
        let cell = self.open()?;
        Ok(report::standing_to_json(&cell.identity(), cell.enforced(), cell.published()))
    }

    /// The files that differ from the layers so far: kind and path.
    fn changes(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, OsString)>> {
        let cell = self.open()?;
        let kind = |kind| match kind {
            ChangeKind::Added => "added",
            ChangeKind::Deleted => "deleted",
            _ => "modified",
        };
        let changes = py.detach(|| cell.changes()).map_err(raise)?;
        Ok(changes.into_iter().map(|change| (kind(change.kind), change.path.into_os_string())).collect())
    }

    /// Stops everything in it.
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        let cell = self.open()?;
        py.detach(|| cell.freeze()).map_err(raise)
    }

    /// Lets it go on.
    fn thaw(&self, py: Python<'_>) -> PyResult<()> {
        let cell = self.open()?;
        py.detach(|| cell.thaw()).map_err(raise)
    }

    /// Changes the limits that are named; the others stay.
    fn set_limits(&self, py: Python<'_>, limits: &Bound<'_, PyDict>) -> PyResult<()> {
        let cell = self.open()?;
        let limits = options::builder(limits)?.policy().limits.clone();
        py.detach(|| cell.set_limits(&limits)).map_err(raise)
    }

    /// Ends it and everything in it. A second time does nothing.
    fn close(&self, py: Python<'_>) {
        let cell = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cell) = cell.filter(|_| !self.kept) {
            py.detach(|| cell.kill());
        }
    }
}
