//! Long work on images, which cannot be cut into slices: another thread does it, while this one sees to Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::raise;

/// How often it is looked whether a signal has come, and at most how often a callback is told of bytes.
const SLICE: Duration = Duration::from_millis(50);

/// How long it is waited after an interrupt for the work to tidy up; with a slice well below what a person notices.
const TIDY: Duration = Duration::from_millis(150);

/// What the work is told, and what it has to tell.
pub struct Watch {
    /// Set when the work is to end early.
    pub stop: Arc<AtomicBool>,
    callback: Option<Py<PyAny>>,
    told: Mutex<Option<Instant>>,
    /// The callback's first error.
    error: Mutex<Option<PyErr>>,
}

impl Watch {
    pub fn new(callback: Option<Py<PyAny>>) -> Watch {
        Watch { stop: Arc::default(), callback, told: Mutex::new(None), error: Mutex::new(None) }
    }

    /// Calls the caller's callback with these words. Its first error ends the work.
    pub fn tell<Words>(&self, words: Words)
    where
        Words: for<'py> pyo3::call::PyCallArgs<'py>,
    {
        if let (Some(callback), false) = (&self.callback, self.stop.load(Ordering::Relaxed)) {
            Python::attach(|py| {
                if let Err(error) = callback.call1(py, words) {
                    self.stop.store(true, Ordering::Relaxed);
                    self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
    }

    /// As `tell`, for what comes often: most of it is passed over, but never the last.
    pub fn tell_bytes(&self, done: u64, total: u64) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if done < total && told.is_some_and(|told| told.elapsed() < SLICE) {
                return;
            }
            *told = Some(Instant::now());
        }
        self.tell((done, total));
    }
}

/// Does the work in a thread of its own, which is gone when this returns; but after Ctrl-C it may take a moment longer
/// where it waits for a server that says nothing.
pub fn patiently<T: Send + 'static>(
    py: Python<'_>,
    watch: Watch,
    work: impl FnOnce(&Watch) -> sandcell::Result<T> + Send + 'static,
) -> PyResult<T> {
    let watch = Arc::new(watch);
    let (tell, heard) = sync_channel(1);
    let theirs = watch.clone();
    let worker = std::thread::Builder::new().name("sandcell-image".into());
    let worker = worker.spawn(move || {
        let _ = tell.send(work(&theirs));
    })?;
    // For `detach`, which takes nothing that belongs to one thread.
    let heard = Mutex::new(heard);
    let listen = |time| heard.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(time);
    let done = loop {
        match py.detach(|| listen(SLICE)) {
            Ok(done) => break done,
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("the work on images panicked")),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(interrupt) = py.check_signals() {
                    watch.stop.store(true, Ordering::Relaxed);
                    let _ = py.detach(|| listen(TIDY));
                    return Err(interrupt);
                }
            }
        }
    };
    let _ = py.detach(|| worker.join());
    match watch.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => done.map_err(raise),
    }
}
