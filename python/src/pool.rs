//! Sandboxes that are built before a request comes.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::child::Child;
use crate::exchange::Finished;
use crate::ours::Ours;
use crate::program::Program;

/// What waits in it ends when it is closed, or gone.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Pool {
    /// Nothing once it is closed.
    inner: Mutex<Option<Ours<sandcell::Pool>>>,
}

impl Pool {
    pub fn new(pool: sandcell::Pool) -> Pool {
        Pool { inner: Mutex::new(Some(Ours::new(pool))) }
    }

    /// A clone to work with: no call holds the lock.
    fn open(&self) -> PyResult<sandcell::Pool> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_deref().cloned().ok_or_else(|| PyValueError::new_err("the pool is closed"))
    }
}

#[pymethods]
impl Pool {
    /// Starts a program in one of its sandboxes.
    fn spawn(&self, py: Python<'_>, program: Program) -> PyResult<Child> {
        let pool = self.open()?;
        program.spawn(py, |name| pool.command(name))
    }

    /// Runs a program to its end: the report as JSON, and what came out of the pipes.
    fn run(&self, py: Python<'_>, program: Program, input: &[u8]) -> PyResult<Finished> {
        let pool = self.open()?;
        program.run(py, input, |name| pool.command(name))
    }

    /// Hits, misses, and how many wait.
    fn stats(&self) -> PyResult<(u64, u64, usize)> {
        let stats = self.open()?.stats();
        Ok((stats.hits, stats.misses, stats.waiting))
    }

    /// Ends what waits. Programs that run go on.
    fn close(&self, py: Python<'_>) {
        let pool = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(pool));
    }
}
