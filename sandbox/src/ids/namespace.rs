//! A process in another user namespace that makes system calls on our behalf.
//!
//! A user namespace needs a process in it while its map is written, and files of sub-ids can only be touched from a
//! namespace in which they are mapped. The caller itself cannot enter one: setns(2) refuses multi-threaded processes.
//! So a [`Proxy`] shares the caller's memory and descriptors (no page table is copied, however big the caller is),
//! stays on a small stack of its own, and does nothing but the system calls that it is handed. What it opens, the
//! caller can use.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Failure, Result};
use crate::ids::sys;
use crate::rawsys::call;
use crate::rawsys::{self, nr};

const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_WAKE_PRIVATE: usize = 129;
const PR_SET_PDEATHSIG: usize = 1;
const STACK: usize = 32 * 1024;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

/// What both sides see. Only the side whose turn it is touches the fields behind `state`.
#[repr(C)]
struct Desk {
    state: AtomicU32,
    parent: u32,
    enter: RawFd,
    number: usize,
    arguments: [usize; 6],
    answer: isize,
}

/// See the module. It ends with the value, and with the thread that made it.
pub(crate) struct Proxy {
    pid: u32,
    pidfd: OwnedFd,
    desk: *mut Desk,
    _stack: Vec<u128>,
    /// `PR_SET_PDEATHSIG` is about the thread that made the process, so the value stays on it.
    _not_send: PhantomData<*const ()>,
}

impl Proxy {
    /// In a new user namespace without a map.
    pub(crate) fn in_new_namespace() -> Result<Proxy> {
        Proxy::start(rawsys::CLONE_NEWUSER, -1).map_err(|errno| {
            let failure = Failure::new("user-namespace", "", "a user namespace cannot be made").errno(errno);
            crate::sys::namespaces::refused(failure, nix::errno::Errno::from_raw(errno))
        })
    }

    /// In a namespace that exists; the caller must be its owner.
    pub(crate) fn in_namespace(namespace: &impl AsFd) -> Result<Proxy> {
        let failed = |errno: i32| {
            Failure::new("user-namespace", "", "the kept user namespace cannot be entered").errno(errno).setup()
        };
        let proxy = Proxy::start(0, namespace.as_fd().as_raw_fd()).map_err(failed)?;
        // The answer to the first, empty request is that of setns.
        match proxy.wait() {
            0 => Ok(proxy),
            errno => Err(failed(-errno as i32)),
        }
    }

    fn start(extra: u64, enter: RawFd) -> Result<Proxy, i32> {
        let desk = Box::into_raw(Box::new(Desk {
            state: AtomicU32::new(if enter < 0 { IDLE } else { ASKED }),
            parent: std::process::id(),
            enter,
            number: 0,
            arguments: [0; 6],
            answer: 0,
        }));
        let mut stack: Vec<u128> = vec![0; STACK / size_of::<u128>()];
        let mut pidfd: RawFd = -1;
        // No exit signal: nothing for the caller's SIGCHLD handler, and a SIGCHLD that is ignored, or a `waitpid(-1)`
        // in another thread, cannot take the child away from us.
        let flags = rawsys::CLONE_VM | rawsys::CLONE_FILES | rawsys::CLONE_PIDFD | extra;
        let top = stack.as_mut_ptr_range().end;
        let every: u64 = !0;
        let mut before: u64 = 0;
        // SAFETY: the masks are 64 bits as is said. The stack is new, writable, 16-byte aligned at its top, and lives
        // until the child is reaped, as does the desk; the child never returns and calls nothing but the kernel.
        let result = unsafe {
            // The child must not run a handler of the caller's.
            let _ = call!(nr::RT_SIGPROCMASK, libc::SIG_SETMASK, &raw const every, &raw mut before, 8);
            let args = rawsys::clone_args(flags, top as usize, &raw mut pidfd as usize, 0);
            let result = rawsys::clone_onto(nr::CLONE, args, serve, desk.cast());
            let _ = call!(nr::RT_SIGPROCMASK, libc::SIG_SETMASK, &raw const before, 0, 8);
            rawsys::check(result)
        };
        match result {
            Ok(pid) => {
                // SAFETY: the kernel has just made this descriptor for us.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Proxy { pid: pid as u32, pidfd, desk, _stack: stack, _not_send: PhantomData })
            }
            Err(errno) => {
                // SAFETY: there is no child, so the desk is ours alone.
                drop(unsafe { Box::from_raw(desk) });
                Err(errno)
            }
        }
    }

    /// Its number in the caller's PID namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The user namespace that it is in. It lives as long as the descriptor.
    pub(crate) fn namespace(&self) -> Result<OwnedFd> {
        // Opened by the proxy itself: a process may always look at itself, while the caller may be forbidden to.
        // SAFETY: the path ends with NUL; the descriptor, in the shared table, is new.
        unsafe {
            let path = c"/proc/self/ns/user".as_ptr();
            self.call(nr::OPENAT, [rawsys::AT_FDCWD as usize, path as usize, rawsys::O_CLOEXEC, 0, 0, 0])
                .map(|fd| OwnedFd::from_raw_fd(fd as i32))
        }
        .map_err(|errno| {
            Failure::new("user-namespace", "/proc/self/ns/user", "cannot be opened")
                .errno(errno)
                .hint("Mount /proc.")
                .setup()
        })
    }

    /// Makes a system call over there.
    ///
    /// # Safety
    /// The arguments must be what the call of that number wants, in our memory. The call must not end, replace or
    /// fork the process or change its memory map.
    pub(crate) unsafe fn call(&self, number: usize, arguments: [usize; 6]) -> Result<usize, i32> {
        // SAFETY: the state is not `ASKED`, so it is our turn; the desk lives as long as we do.
        unsafe {
            (*self.desk).number = number;
            (*self.desk).arguments = arguments;
            (*self.desk).state.store(ASKED, Ordering::Release);
            let _ = call!(nr::FUTEX, &raw const (*self.desk).state, FUTEX_WAKE_PRIVATE, 1);
        }
        rawsys::check(self.wait())
    }

    /// Waits for the answer.
    fn wait(&self) -> isize {
        // Now and then a look whether it still lives: somebody may have killed it, and then nothing would wake us.
        let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        loop {
            // SAFETY: the desk and the timeout live on; the answer is read only after the state says that it is there.
            unsafe {
                let desk = self.desk;
                if (*desk).state.load(Ordering::Acquire) == ANSWERED {
                    return (*desk).answer;
                }
                let slept = call!(nr::FUTEX, &raw const (*desk).state, FUTEX_WAIT_PRIVATE, ASKED, &raw const second);
                if slept == Err(libc::ETIMEDOUT)
                    && self.has_ended()
                    && (*desk).state.load(Ordering::Acquire) != ANSWERED
                {
                    return -(libc::ESRCH as isize);
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        let mut fds = [nix::poll::PollFd::new(self.pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO) == Ok(1)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        sys::pidfd_kill(self.pidfd.as_fd());
        sys::pidfd_reap(self.pidfd.as_fd());
        // SAFETY: the child is dead and reaped; nobody else has the pointer.
        drop(unsafe { Box::from_raw(self.desk) });
    }
}

/// The child: one system call after the other until it is killed.
///
/// # Safety
/// Runs only as the child of `Proxy::start`, with its desk.
unsafe extern "C" fn serve(desk: *mut u8) -> ! {
    let desk: *mut Desk = desk.cast();
    // SAFETY: the desk outlives this process; its fields are touched only when the state says that it is our turn, and
    // through the raw pointer, because the other side has one too.
    unsafe {
        let _ = call!(nr::PRCTL, PR_SET_PDEATHSIG, rawsys::SIGKILL);
        // The parent may have died before the line above; nobody would end us then.
        if call!(nr::GETPPID) != Ok((*desk).parent as usize) {
            loop {
                let _ = call!(nr::EXIT, 0);
            }
        }
        if (*desk).enter >= 0 {
            let namespace = (*desk).enter as usize;
            answer(desk, rawsys::syscall6(nr::SETNS, namespace, rawsys::CLONE_NEWUSER as usize, 0, 0, 0, 0));
        }
        loop {
            let state = (*desk).state.load(Ordering::Acquire);
            if state == ASKED {
                let [a, b, c, d, e, f] = (*desk).arguments;
                answer(desk, rawsys::syscall6((*desk).number, a, b, c, d, e, f));
            } else {
                let _ = call!(nr::FUTEX, &raw const (*desk).state, FUTEX_WAIT_PRIVATE, state);
            }
        }
    }
}

/// # Safety
/// It is the child's turn.
unsafe fn answer(desk: *mut Desk, answer: isize) {
    // SAFETY: as above; the address is that of a living futex.
    unsafe {
        (*desk).answer = answer;
        (*desk).state.store(ANSWERED, Ordering::Release);
        let _ = call!(nr::FUTEX, &raw const (*desk).state, FUTEX_WAKE_PRIVATE, 1);
    }
}
