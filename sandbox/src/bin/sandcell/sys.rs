//! Calls for which there is no safe form: taking over a descriptor that the shell has opened, and ending by a signal.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;

/// A copy of the caller's descriptor `number`. To be called before this program opens anything of its own, which
/// could have the same number.
pub fn inherited(number: i32) -> io::Result<File> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is used for this one call only, and a number that is not open makes the call fail with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fd.try_clone_to_owned().map(File::from)
}

/// The signals that this process was started with ignored, as by nohup(1) or `trap '' INT`. Not SIGPIPE, which Rust ignores
/// itself, nor SIGCHLD, by which programs learn of their children.
pub fn ignored_signals() -> Vec<i32> {
    let is_ignored = |signal: &i32| {
        // SAFETY: nothing is set; the answer has room in a zeroed structure.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
        }
    };
    (1..=31).filter(|signal| ![libc::SIGPIPE, libc::SIGCHLD].contains(signal)).filter(is_ignored).collect()
}

/// Blocks SIGXFSZ in this thread and in those that it starts.
pub fn block_file_size_signal() -> nix::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    set.thread_block()
}

/// Those that end a process and that nobody sends to have something passed on: where the terminal has to be restored, they wait
/// in the descriptor of signals, too. Faults of our own are not among them.
pub const FATAL: [i32; 7] =
    [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGIO, libc::SIGPWR, libc::SIGXCPU, libc::SIGSTKFLT];

/// Stops this process as a terminal does, until SIGCONT. Where no shell could let it go on the kernel refuses, and this
/// returns at once. The signal may be one that is held back.
pub fn stop(signal: nix::sys::signal::Signal) {
    let_stop(signal, || nix::sys::signal::raise(signal));
}

/// The same with all processes of our job, as a terminal does, too.
pub fn stop_job(signal: nix::sys::signal::Signal) {
    let_stop(signal, || nix::sys::signal::killpg(nix::unistd::Pid::from_raw(0), signal));
}

fn let_stop(signal: nix::sys::signal::Signal, send: impl FnOnce() -> nix::Result<()>) {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let mut set = SigSet::empty();
    set.add(signal);
    let _ = send();
    if let Ok(before) = set.thread_swap_mask(SigmaskHow::SIG_UNBLOCK) {
        let _ = before.thread_set_mask();
    }
}

/// Ends this process by `signal`, without a core dump: it would be ours, not the program's. Returns where the signal
/// ends nothing.
pub fn end_by(signal: i32) {
    let _ = nix::sys::prctl::set_dumpable(false);
    // SAFETY: no handler is installed, one is removed (Rust's own for SIGSEGV would return); the set is initialised
    // before it is used, and nothing but this thread runs.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// Closes all descriptors but the standard streams, in a forked process that only waits.
pub fn close_all() {
    // SAFETY: what had them is not used any more; this process ends by _exit(2), without what would close them again.
    let _ = unsafe { libc::close_range(3, u32::MAX, 0) };
}

/// Forks; the child runs `child` and ends with what that returns.
pub fn forked(child: impl FnOnce() -> i32) -> nix::Result<nix::unistd::Pid> {
    // SAFETY: this process has one thread, so the child may do what its parent might.
    match unsafe { nix::unistd::fork()? } {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        nix::unistd::ForkResult::Child => {
            let status = child();
            // SAFETY: ends the child without what the parent wants done at its own end.
            unsafe { libc::_exit(status) }
        }
    }
}
