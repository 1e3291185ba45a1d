//! A copy of pytest that does nothing but fork: the processes of tests are copies of it, and not of pytest itself,
//! which can go on meanwhile and has no page of its memory copied for each of them.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cell::Cell;
use crate::{raise, sys, watch};

/// Descriptors before those of the entry: the last word, and those of the test's own pipes.
const OWN: usize = 3;
/// With those of the entry, which are the cell's init and its groups, one of each hierarchy.
const MOST: usize = 64;
/// How many descriptors and bytes an order has.
const HEADER: usize = 3 * size_of::<u32>();

/// Seen from pytest's process.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Template {
    pid: Pid,
    /// Nothing once it is closed: then it ends.
    socket: Mutex<Option<UnixStream>>,
}

/// In a process of a test, which has to `confine` itself.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Entered {
    /// Nothing once it has been used.
    entry: Mutex<Option<sandcell::Entry>>,
    #[pyo3(get)]
    answer: RawFd,
    #[pyo3(get)]
    question: RawFd,
    #[pyo3(get)]
    home: PathBuf,
}

#[pymethods]
impl Entered {
    /// Becomes what a program of the cell is.
    fn confine(&self) -> PyResult<()> {
        let entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner).take();
        entry.ok_or_else(|| PyValueError::new_err("it is confined"))?.confine().map_err(raise)
    }
}

/// The template itself.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Server {
    socket: UnixStream,
}

#[pymethods]
impl Server {
    /// Forks as it is asked to; returns in the processes of tests. `kept`: the descriptors that they have, besides their pipes.
    fn serve(&self, kept: Vec<RawFd>) -> Entered {
        serve(&self.socket, &kept)
    }
}

/// Forks. To the caller a `Template`, to the copy a `Server`.
#[pyfunction]
pub fn fork_template(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork_interpreter(|| ())? {
        sys::Forked::Parent(pid) => {
            let socket = Mutex::new(Some(ours));
            Ok(Py::new(py, Template { pid: Pid::from_raw(pid), socket })?.into_any())
        }
        sys::Forked::Child(()) => Ok(Py::new(py, Server { socket: theirs })?.into_any()),
    }
}

#[pymethods]
impl Template {
    /// Has it fork into the cell. Of the pipes the first is written to by the process that watches from outside (see
    /// `watch`), the others are the test's: for its answers and for what it is asked.
    fn fork(&self, cell: &Cell, cwd: PathBuf, umask: u32, pipes: [RawFd; OWN]) -> PyResult<()> {
        let cell = cell.open()?;
        let mut entry = cell.entry().map_err(raise)?;
        entry.current_dir(cwd).map_err(raise)?.umask(umask);
        let (order, descriptors) = entry.to_message();
        let home = cell.home().into_os_string().into_encoded_bytes();
        let mut numbers = pipes.to_vec();
        numbers.extend(descriptors.iter().map(AsRawFd::as_raw_fd));
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = socket.as_ref().ok_or_else(|| PyValueError::new_err("the template is closed"))?;
        let header = [numbers.len(), home.len(), order.len()].map(|length| (length as u32).to_ne_bytes()).concat();
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&header)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(io::Error::from)?;
        socket.write_all(&[home, order].concat())?;
        Ok(())
    }

    /// Whether it has forked as it was asked to, once for each time. It may have been killed before.
    fn forked(&self, py: Python<'_>) -> bool {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |mut socket: &UnixStream| socket.read_exact(&mut [0]).is_ok();
        py.detach(|| socket.as_ref().is_some_and(heard))
    }

    /// Ends it. The processes that it has forked go on.
    fn close(&self) {
        if self.socket.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            let _ = waitpid(self.pid, None);
        }
    }
}

/// What is asked of the template.
struct Order {
    entry: sandcell::Entry,
    home: PathBuf,
    last_word: OwnedFd,
    answer: OwnedFd,
    question: OwnedFd,
}

fn serve(socket: &UnixStream, kept: &[RawFd]) -> Entered {
    // Among the others are the control sockets of cells: where pytest is killed, nothing may keep these alive.
    sys::close_all_but(&[kept, &[socket.as_raw_fd()]].concat());
    // Ctrl-C is pytest's to mind.
    let interrupts = sys::ignore_interrupts();
    loop {
        // Nothing more is asked, or not in a way that it can be answered.
        let Ok(order) = receive(socket) else { sys::exit(0) };
        // Of its own, since without a fork nobody else says it.
        let last_word = order.last_word.try_clone();
        match sys::fork_interpreter(|| order.carry_out(kept)) {
            Ok(sys::Forked::Child(entered)) => {
                sys::restore_interrupts(interrupts);
                return entered;
            }
            // Who does not hear of it knows that there is nobody.
            Ok(sys::Forked::Parent(_)) => {
                let _ = (&*socket).write_all(&[1]);
            }
            Err(error) => {
                let _ = last_word.map(|pipe| watch::say_failed(&error.to_string(), pipe.as_raw_fd()));
                let _ = (&*socket).write_all(&[1]);
            }
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }
}

impl Order {
    /// In a fork of the template, which watches; returns in a fork of that.
    fn carry_out(mut self, kept: &[RawFd]) -> Entered {
        let last_word = self.last_word.as_raw_fd();
        if let Err(error) = self.entry.join() {
            watch::fail(&format!("{error} {}", error.failure().hint), last_word);
        }
        match sys::fork() {
            Ok(0) => {}
            Ok(inside) => watch::watch(inside, last_word),
            Err(error) => watch::fail(&error.to_string(), last_word),
        }
        let [answer, question] = [self.answer, self.question].map(IntoRawFd::into_raw_fd);
        for fd in kept.iter().chain([&answer, &question]) {
            self.entry.keep_fd(*fd);
        }
        // `confine` closes it.
        std::mem::forget(self.last_word);
        Entered { entry: Mutex::new(Some(self.entry)), answer, question, home: self.home }
    }
}

fn receive(mut socket: &UnixStream) -> io::Result<Order> {
    let mut header = [0; HEADER];
    let mut space = cmsg_space!([RawFd; MOST]);
    let mut pieces = [IoSliceMut::new(&mut header)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            descriptors.extend(numbers.into_iter().map(sys::adopt));
        }
    }
    let complete = received.bytes == HEADER;
    let [count, home, order] =
        [0, 4, 8].map(|at| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize);
    if !complete || count != descriptors.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut rest = vec![0; home + order];
    socket.read_exact(&mut rest)?;
    let entry = sandcell::Entry::from_message(&rest[home..], descriptors.split_off(OWN)).map_err(io::Error::other)?;
    let home = OsString::from_vec(rest[..home].to_vec()).into();
    match <[OwnedFd; OWN]>::try_from(descriptors) {
        Ok([last_word, answer, question]) => Ok(Order { entry, home, last_word, answer, question }),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
