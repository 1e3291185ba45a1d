//! A process that does nothing but fork, from which each fork goes into a cell of its own: a copy of pytest, so that pytest
//! itself can go on meanwhile and has no page of its memory copied for each test; or the Python of a `sandcell.Template`.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cell::Cell;
use crate::{raise, sys, watch};

/// The last word, those of the fork, and those of the entry, which are the cell's init and its groups, one of each hierarchy.
const MOST: usize = 64;
/// How many descriptors an order has, how many of these are the fork's own, and how many bytes the home, the environment and
/// the entry have.
const HEADER: usize = 5 * size_of::<u32>();

/// Seen from the caller's process.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Template {
    /// Where it is a copy of this process, and nobody else waits for it.
    pid: Option<Pid>,
    /// Nothing once it is closed: then it ends.
    socket: Mutex<Option<UnixStream>>,
}

/// In a fork, which has to `confine` itself.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Entered {
    /// Nothing once it has been used.
    entry: Mutex<Option<sandcell::Entry>>,
    /// Those that it was given, in their order.
    #[pyo3(get)]
    descriptors: Vec<RawFd>,
    #[pyo3(get)]
    home: PathBuf,
    environment: Vec<u8>,
}

#[pymethods]
impl Entered {
    /// Becomes what a program of the cell is.
    fn confine(&self) -> PyResult<()> {
        let entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner).take();
        entry.ok_or_else(|| PyValueError::new_err("it is confined"))?.confine().map_err(raise)
    }

    /// What a program of the cell has: names and values.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let pair = |line: &[u8]| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((text(&line[..at]), text(&line[at + 1..])))
        };
        self.environment.split(|byte| *byte == 0).filter_map(pair).collect()
    }
}

/// The template itself.
#[pyclass(frozen, module = "sandcell._native")]
pub struct Server {
    socket: UnixStream,
    /// A pidfd of the caller.
    caller: Option<OwnedFd>,
}

#[pymethods]
impl Server {
    /// Takes over the socket whose other end is the caller's, and a pidfd of the caller: when it ends, so does this process,
    /// whoever else has a copy of that end.
    #[new]
    fn new(socket: RawFd, caller: RawFd) -> Server {
        Server { socket: sys::adopt(socket).into(), caller: Some(sys::adopt(caller)) }
    }

    /// Forks as it is asked to; returns in the forks. `kept`: the descriptors that they have, besides those that they are given.
    fn serve(&self, kept: Vec<RawFd>) -> Entered {
        serve(self, &kept)
    }
}

/// Forks. To the caller a `Template`, to the copy a `Server`.
#[pyfunction]
pub fn fork_template(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork_interpreter(|| ())? {
        sys::Forked::Parent(pid) => {
            let socket = Mutex::new(Some(ours));
            Ok(Py::new(py, Template { pid: Some(Pid::from_raw(pid)), socket })?.into_any())
        }
        sys::Forked::Child(()) => Ok(Py::new(py, Server { socket: theirs, caller: None })?.into_any()),
    }
}

#[pymethods]
impl Template {
    /// Of another program, which has the other end of the socket and becomes a `Server`. Takes the socket over.
    #[new]
    fn new(socket: RawFd) -> Template {
        Template { pid: None, socket: Mutex::new(Some(sys::adopt(socket).into())) }
    }

    /// Has it fork into the cell. Of the pipes the first is written to by the process that watches from outside (see
    /// `watch`), the others are the fork's. Without a directory and a mask it has those of the cell.
    fn fork(&self, cell: &Cell, cwd: Option<PathBuf>, umask: Option<u32>, pipes: Vec<RawFd>) -> PyResult<()> {
        let cell = cell.open()?;
        let mut entry = cell.entry().map_err(raise)?;
        if let Some(cwd) = cwd {
            entry.current_dir(cwd).map_err(raise)?;
        }
        if let Some(umask) = umask {
            entry.umask(umask);
        }
        let (order, descriptors) = entry.to_message();
        let home = cell.home().into_os_string().into_encoded_bytes();
        let environment = block(cell.environment().map_err(raise)?);
        let own = pipes.len();
        let mut numbers = pipes;
        numbers.extend(descriptors.iter().map(AsRawFd::as_raw_fd));
        if own == 0 || numbers.len() > MOST {
            return Err(PyValueError::new_err("too few descriptors, or too many"));
        }
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = socket.as_ref().ok_or_else(|| PyValueError::new_err("the template is closed"))?;
        let header = [numbers.len(), own, home.len(), environment.len(), order.len()];
        let header = header.map(|length| (length as u32).to_ne_bytes()).concat();
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&header)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(io::Error::from)?;
        socket.write_all(&[home, environment, order].concat())?;
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
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        let was_open = socket.is_some();
        // Before it is waited for.
        drop(socket);
        if let Some(pid) = self.pid.filter(|_| was_open) {
            let _ = waitpid(pid, None);
        }
    }
}

/// As environ(7) lies in memory.
fn block(environment: Vec<(OsString, OsString)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in environment {
        block.extend([name.into_vec(), vec![b'='], value.into_vec(), vec![0]].concat());
    }
    block
}

/// What is asked of the template.
struct Order {
    entry: sandcell::Entry,
    home: PathBuf,
    environment: Vec<u8>,
    last_word: OwnedFd,
    own: Vec<OwnedFd>,
}

fn serve(server: &Server, kept: &[RawFd]) -> Entered {
    let caller = server.caller.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    // Among the others are the control sockets of cells: where pytest is killed, nothing may keep these alive.
    sys::close_all_but(&[kept, &[server.socket.as_raw_fd(), caller]].concat());
    // Ctrl-C is the caller's to mind.
    let interrupts = sys::ignore_interrupts();
    loop {
        // Nothing more is asked, or not in a way that it can be answered.
        let Some(order) = server.is_asked().then(|| receive(&server.socket).ok()).flatten() else { sys::exit(0) };
        // Of its own, since without a fork nobody else says it.
        let last_word = order.last_word.try_clone();
        match sys::fork_interpreter(|| order.carry_out(kept)) {
            Ok(sys::Forked::Child(entered)) => {
                sys::restore_interrupts(interrupts);
                return entered;
            }
            // Who does not hear of it knows that there is nobody.
            Ok(sys::Forked::Parent(_)) => {
                let _ = (&server.socket).write_all(&[1]);
            }
            Err(error) => {
                let _ = last_word.map(|pipe| watch::say_failed(&error.to_string(), pipe.as_raw_fd()));
                let _ = (&server.socket).write_all(&[1]);
            }
        }
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }
}

impl Server {
    /// Waits. Whether there is something to read, be it the end, and the caller lives.
    fn is_asked(&self) -> bool {
        let mut wanted = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        wanted.extend(self.caller.iter().map(|caller| PollFd::new(caller.as_fd(), PollFlags::POLLIN)));
        while let Err(nix::errno::Errno::EINTR) = poll(&mut wanted, PollTimeout::NONE) {}
        !wanted.get(1).is_some_and(|caller| caller.any().unwrap_or(true))
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
        let descriptors: Vec<RawFd> = self.own.into_iter().map(IntoRawFd::into_raw_fd).collect();
        for fd in kept.iter().chain(&descriptors) {
            self.entry.keep_fd(*fd);
        }
        // `confine` closes it.
        std::mem::forget(self.last_word);
        Entered { entry: Mutex::new(Some(self.entry)), descriptors, home: self.home, environment: self.environment }
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
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let [count, own, home, environment, order] = [0, 4, 8, 12, 16].map(word);
    if !complete || count != descriptors.len() || own == 0 || own > count {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; home + environment + order];
    socket.read_exact(&mut bytes)?;
    let order = bytes.split_off(home + environment);
    let environment = bytes.split_off(home);
    let entry = sandcell::Entry::from_message(&order, descriptors.split_off(own)).map_err(io::Error::other)?;
    let last_word = descriptors.remove(0);
    Ok(Order { entry, home: OsString::from_vec(bytes).into(), environment, last_word, own: descriptors })
}
