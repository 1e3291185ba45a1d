//! The way of a forked interpreter into a started cell; for the pytest plugin.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::raise;

/// Made before the fork. See `sandcell::Entry` for the two steps.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Entry {
    /// Nothing once it has been used.
    inner: Mutex<Option<sandcell::Entry>>,
}

impl Entry {
    pub fn new(entry: sandcell::Entry) -> Entry {
        Entry { inner: Mutex::new(Some(entry)) }
    }
}

#[pymethods]
impl Entry {
    /// In a forked process: enters the namespaces of the cell. What it forks now is inside.
    fn join(&self) -> PyResult<()> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().ok_or_else(used)?.join().map_err(raise)
    }

    /// In the process that was forked then: becomes what a program of the cell is.
    fn confine(&self) -> PyResult<()> {
        let entry = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        entry.ok_or_else(used)?.confine().map_err(raise)
    }
}

fn used() -> PyErr {
    PyValueError::new_err("the entry has been used")
}
