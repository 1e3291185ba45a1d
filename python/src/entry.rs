//! The way of a forked interpreter into a started cell; for the pytest plugin.

use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::{raise, sys, watch};

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
    /// Forks into the cell. To the caller the pid of the process that watches from outside (see `watch`), which writes to
    /// `last_word`; 0 to the process inside, which has to `confine` itself.
    fn fork(&self, last_word: RawFd) -> PyResult<i32> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.as_ref().ok_or_else(used)?;
        let forked = sys::fork_interpreter(|fork| {
            if let Err(error) = entry.join() {
                watch::fail(&error, last_word);
            }
            match fork()? {
                0 => Ok(()),
                inside => {
                    sys::ignore_interrupts();
                    watch::watch(inside, last_word)
                }
            }
        });
        forked.map_err(Into::into)
    }

    /// In the process inside: becomes what a program of the cell is.
    fn confine(&self) -> PyResult<()> {
        let entry = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        entry.ok_or_else(used)?.confine().map_err(raise)
    }
}

fn used() -> PyErr {
    PyValueError::new_err("the entry has been used")
}
