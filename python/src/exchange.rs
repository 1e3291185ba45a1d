//! Carrying a program's input and outputs until it has ended, with the interpreter free and Ctrl-C prompt.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sandcell::Report;

use crate::child::{SLICE, Told, told};
use crate::raise;

/// The report, and what came out of the pipes.
pub type Finished = (Told, Option<Py<PyBytes>>, Option<Py<PyBytes>>);

/// More than a pipe holds.
const AT_ONCE: u64 = 2 << 20;

struct Pipes<'a> {
    stdin: Option<File>,
    input: &'a [u8],
    outputs: [Option<File>; 2],
    read: [Vec<u8>; 2],
}

/// Sees the program to its end. After an error it still runs, and ends with `child`.
pub fn exchange(
    py: Python<'_>,
    child: &mut sandcell::Child,
    stdin: Option<File>,
    outputs: [Option<File>; 2],
    input: &[u8],
) -> PyResult<Finished> {
    let piped = [outputs[0].is_some(), outputs[1].is_some()];
    let mut pipes =
        Pipes { stdin: stdin.filter(|_| !input.is_empty()), input, outputs, read: [Vec::new(), Vec::new()] };
    pipes.set_nonblocking()?;
    let report = loop {
        if let Some(report) = py.detach(|| pipes.slice(child))? {
            break report;
        }
        py.check_signals()?;
    };
    let bytes = |at: usize| piped[at].then(|| PyBytes::new(py, &pipes.read[at]).unbind());
    Ok((told(report)?, bytes(0), bytes(1)))
}

impl Pipes<'_> {
    fn set_nonblocking(&self) -> PyResult<()> {
        for pipe in self.outputs.iter().flatten().chain(&self.stdin) {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    /// Works until the program ends, a signal comes or the slice is over.
    fn slice(&mut self, child: &mut sandcell::Child) -> PyResult<Option<Report>> {
        let until = Instant::now() + SLICE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut wanted = vec![PollFd::new(child.as_fd(), PollFlags::POLLIN)];
            wanted.extend(self.outputs.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            wanted.extend(self.stdin.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
            let woken = poll(&mut wanted, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
            let ended = wanted[0].any().unwrap_or(false);
            self.drain();
            self.feed();
            if ended || left.is_zero() || woken == Err(Errno::EINTR) {
                let report = child.try_wait().map_err(raise)?;
                // What is in the pipes now is all that belongs to the program.
                self.drain();
                return Ok(report);
            }
        }
    }

    /// Reads what is there, but not for ever where it comes faster; an output that is at its end is closed.
    fn drain(&mut self) {
        for (output, bytes) in self.outputs.iter_mut().zip(&mut self.read) {
            if let Some(pipe) = output {
                match Read::by_ref(pipe).take(AT_ONCE).read_to_end(bytes) {
                    Ok(length) if length as u64 == AT_ONCE => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => *output = None,
                }
            }
        }
    }

    /// Writes what the pipe takes; closed when there is no more, or nobody to read it.
    fn feed(&mut self) {
        if let Some(pipe) = &mut self.stdin {
            match pipe.write(self.input) {
                Ok(written) => self.input = &self.input[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.input = &[],
            }
            if self.input.is_empty() {
                self.stdin = None;
            }
        }
    }
}
