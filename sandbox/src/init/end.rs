//! The end of everything in the sandbox.
//!
//! As the first process of a PID namespace we signal "all", and the kernel ends what is left when we exit. Without one
//! "all" would be the whole host: there it is our children, and theirs as they become ours (PR_SET_CHILD_SUBREAPER).

use crate::rawsys::{self, call, nr};
use crate::serve::{read_proc, wait_any};

/// Whether we are the first process of a PID namespace of the sandbox's own.
pub fn is_first() -> bool {
    own_pid() == 1
}

fn own_pid() -> u32 {
    // SAFETY: no arguments.
    unsafe { call!(nr::GETPID) }.unwrap_or(0) as u32
}

/// Signals every process of a one-shot sandbox; without a PID namespace the program's own process group.
pub fn signal_all(program: i32, signal: i32) {
    if signal == rawsys::SIGKILL && !is_first() {
        kill_children();
    }
    // SAFETY: numbers only.
    let _ = unsafe { call!(nr::KILL, if is_first() { -1 } else { -program }, signal) };
}

/// Ends every process of the sandbox but us, and reaps them all.
pub fn everything() {
    if is_first() {
        // SAFETY: numbers only.
        let _ = unsafe { call!(nr::KILL, -1i32, rawsys::SIGKILL) };
        while wait_any(0).is_some() {}
    } else {
        // Each that dies may leave us its children.
        loop {
            kill_children();
            if wait_any(0).is_none() {
                break;
            }
        }
    }
}

/// Ends the sandbox.
pub fn now() -> ! {
    // In a PID namespace the kernel is quicker.
    if !is_first() {
        everything();
    }
    rawsys::exit(0)
}

/// Our children are not reaped while we look at them, so their numbers are their own.
fn kill_children() {
    let own = own_pid();
    each_process(|pid| {
        if parent(pid) == own {
            // SAFETY: numbers only.
            let _ = unsafe { call!(nr::KILL, pid, rawsys::SIGKILL) };
        }
    });
}

/// Whether a process is of this sandbox, and not us.
pub fn is_ours(pid: u32) -> bool {
    if is_first() {
        return pid > 1;
    }
    let own = own_pid();
    let mut ancestor = parent(pid);
    while ancestor > 1 && ancestor != own {
        ancestor = parent(ancestor);
    }
    ancestor == own
}

/// The parent's number; 0 where there is none, or the process is gone.
fn parent(pid: u32) -> u32 {
    let mut stat = [0u8; 128];
    let stat = read_proc(pid.into(), b"stat", &mut stat);
    // PID (NAME) STATE PARENT: the name may hold anything.
    let Some(end) = stat.iter().rposition(|&byte| byte == b')') else { return 0 };
    let digits = stat.get(end + 4..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u32, |number, byte| number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
}

/// Calls `visit` with the number of each process that /proc shows.
pub fn each_process(mut visit: impl FnMut(u32)) {
    #[repr(align(8))]
    struct Buffer([u8; 2048]);
    let mut buffer = Buffer([0; 2048]);
    // SAFETY: NUL-terminated path; the buffer is as long as is said.
    unsafe {
        let flags = rawsys::O_DIRECTORY | rawsys::O_CLOEXEC;
        let Ok(proc) = call!(nr::OPENAT, rawsys::AT_FDCWD, c"/proc".as_ptr(), flags) else { return };
        while let Ok(length @ 1..) = call!(nr::GETDENTS64, proc, buffer.0.as_mut_ptr(), buffer.0.len()) {
            let mut at = 0;
            while at < length {
                let record = usize::from(u16::from_ne_bytes([buffer.0[at + 16], buffer.0[at + 17]]));
                if let Some(pid) = rawsys::number(&buffer.0[at + 19..at + record]) {
                    visit(pid as u32);
                }
                at += record;
            }
        }
        rawsys::close(proc as i32);
    }
}
