//! The native half of the Python package: policies, programs and their ends. Everything that has subprocess's
//! shape (text, checks, pipes being read and written) is Python, in `sandcell/`.

mod cell;
mod child;
mod exchange;
mod image;
mod named;
mod options;
mod ours;
mod owned;
mod patience;
mod pool;
mod program;
mod sys;
mod template;
mod watch;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sandcell::Error;

use crate::cell::Cell;
use crate::child::Child;
use crate::exchange::Finished;
use crate::pool::Pool;
use crate::program::Program;

pyo3::create_exception!(
    sandcell._native,
    NativeError,
    pyo3::exceptions::PyException,
    "(kind, stage, errno, subject, message, hint); the Python half turns it into its own exceptions."
);

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

#[pymethods]
impl Sandbox {
    #[new]
    fn new(options: &Bound<'_, PyDict>) -> PyResult<Sandbox> {
        let inner = options::builder(options)?.build().map_err(options::raise_option)?;
        Ok(Sandbox { inner })
    }

    /// The program that the image names, with these words.
    fn image_argv(&self, words: Vec<std::ffi::OsString>) -> PyResult<Vec<std::ffi::OsString>> {
        self.inner.image_argv(words).map_err(raise)
    }

    /// Starts a program in a sandbox of its own.
    fn spawn(&self, py: Python<'_>, program: Program) -> PyResult<Child> {
        program.spawn(py, |name| self.inner.command(name))
    }

    /// Runs a program in a sandbox of its own to its end: the report as JSON, and what came out of the pipes.
    fn run(&self, py: Python<'_>, program: Program, input: &[u8]) -> PyResult<Finished> {
        program.run(py, input, |name| self.inner.command(name))
    }

    /// The steps that a run would take, as a JSON array of {name, subject, words}.
    fn explain(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.explain()).map(|steps| sandcell::report::steps_to_json(&steps)).map_err(raise)
    }

    /// Does ahead of the first run what takes some milliseconds where sub-ids are used.
    fn prepare_ids(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.prepare_ids()).map_err(raise)
    }

    /// Sandboxes that are built ahead.
    fn pool(&self, py: Python<'_>, size: usize) -> PyResult<Pool> {
        py.detach(|| self.inner.pool(size)).map(Pool::new).map_err(raise)
    }

    /// Starts a sandbox in which many programs can be run.
    fn start(&self, py: Python<'_>) -> PyResult<Cell> {
        py.detach(|| self.inner.start()).map(Cell::new).map_err(raise)
    }
}

/// Moves this process and its children into a cgroup of their own, so that limits can be enforced beside it.
#[pyfunction]
fn adopt_cgroup(py: Python<'_>) -> PyResult<std::path::PathBuf> {
    py.detach(sandcell::adopt_cgroup).map_err(raise)
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
    module.add_class::<image::Store>()?;
    module.add_class::<Cell>()?;
    module.add_class::<Child>()?;
    module.add_class::<Pool>()?;
    module.add_class::<named::NamedCell>()?;
    module.add_class::<named::Log>()?;
    module.add_class::<named::Attached>()?;
    module.add_class::<template::Template>()?;
    module.add_class::<template::Server>()?;
    module.add_class::<template::Entered>()?;
    module.add_function(wrap_pyfunction!(template::fork_template, module)?)?;
    module.add_function(wrap_pyfunction!(options::options_table, module)?)?;
    module.add_function(wrap_pyfunction!(options::options_of, module)?)?;
    module.add_function(wrap_pyfunction!(options::read, module)?)?;
    module.add_function(wrap_pyfunction!(named::detach, module)?)?;
    module.add_function(wrap_pyfunction!(named::find_cell, module)?)?;
    module.add_function(wrap_pyfunction!(named::named_cells, module)?)?;
    module.add_function(wrap_pyfunction!(adopt_cgroup, module)?)?;
    module.add_function(wrap_pyfunction!(doctor, module)?)?;
    module.add_function(wrap_pyfunction!(owned::owned_list, module)?)?;
    module.add_function(wrap_pyfunction!(owned::owned_copy_out, module)?)?;
    module.add_function(wrap_pyfunction!(owned::owned_reclaim, module)?)?;
    module.add_function(wrap_pyfunction!(owned::owned_remove, module)?)
}
