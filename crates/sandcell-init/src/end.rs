//! The end of everything in the sandbox, or of a command and all that it started.
//!
//! As the first process of a PID namespace we signal "all", and the kernel ends what is left when we exit. Without one
//! "all" would be the whole host: there it is our descendants, which come to us (PR_SET_CHILD_SUBREAPER).

use crate::proc::{self, Stat};
use crate::rawsys;
use crate::reap::wait_any;
use crate::wire::{Reply, reply, stage};
use crate::{CONTROL, socket};

/// How long what a command has started is looked for one by one before all programs of the cell are ended.
const LOOKING: u64 = 1_000_000_000;

/// Where the sandbox's group is thawed, and what is to be written there; -1 while it is not frozen.
static mut THAW: (i32, &[u8]) = (-1, b"");

/// Whether we are the first process of a PID namespace of the sandbox's own.
pub fn is_first() -> bool {
    own_pid() == 1
}

pub fn own_pid() -> u32 {
    rawsys::getpid().unwrap_or(0) as u32
}

pub fn kill(pid: i32, signal: i32) {
    let _ = rawsys::kill(pid, signal);
}

/// The group is about to be frozen, without us: from now on whatever is ended is thawed as well.
pub fn frozen(file: i32, text: &'static [u8]) {
    thaw();
    // SAFETY: one thread, and nobody holds a reference.
    unsafe { THAW = (file, text) };
}

/// Frozen processes do not die on cgroup v1, and take no SIGTERM on v2. A signal that was sent before comes first.
pub fn thaw() {
    // SAFETY: one thread; the text is as long as is said.
    unsafe {
        let (file, text) = THAW;
        if file >= 0 {
            let _ = rawsys::write(file, text);
            rawsys::close(file);
            THAW = (-1, b"");
        }
    }
}

/// Signals every program.
pub fn signal_all(signal: i32) {
    if is_first() {
        kill(-1, signal);
    } else {
        signal_beneath(own_pid(), signal);
    }
    thaw();
}

/// Signals a command of a cell and all that it started: they are beneath its keeper, wherever they have gone.
pub fn signal_command(keeper: i32, signal: i32) {
    signal_beneath(keeper as u32, signal);
    thaw();
}

/// What forks faster than it is found does not get away: then all programs of the sandbox are ended.
fn signal_beneath(ancestor: u32, signal: i32) {
    let until = crate::now() + LOOKING;
    let mut before = 0u64;
    loop {
        let mut seen = 0u64;
        let looked = proc::each(|pid| {
            // A process that has been killed can fork no more: twice the same ones are all of them.
            if proc::descends(pid, ancestor)? && Stat::of(pid)?.is_some_and(|stat| stat.is_alive()) {
                seen = (seen.rotate_left(7) ^ u64::from(pid)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                kill(pid as i32, signal);
            }
            Ok(())
        });
        // Without a namespace there is no other way than to go on.
        if looked.is_err() || is_first() && crate::now() > until {
            return all_for_one(signal, looked.err());
        }
        if signal != rawsys::SIGKILL || seen == 0 || seen == before {
            return;
        }
        before = seen;
    }
}

/// What one has started cannot be told from the rest.
fn all_for_one(signal: i32, why: Option<i32>) {
    if is_first() {
        kill(-1, signal);
    } else if signal == rawsys::SIGKILL {
        if let Some(errno) = why {
            let failed = Reply { kind: reply::FAILED, detail: stage::PROC, errno, ..Reply::default() };
            socket::tell(CONTROL, &failed, &[], -1);
        }
        // PR_SET_PDEATHSIG ends what we have started.
        rawsys::exit(1);
    }
}

/// Ends every process of the sandbox but us, and reaps them all.
pub fn everything() {
    // Without a namespace each that dies may leave us its children.
    loop {
        signal_all(rawsys::SIGKILL);
        if wait_any(0).is_none() {
            break;
        }
        if is_first() {
            while wait_any(0).is_some() {}
            break;
        }
    }
}

/// Ends the sandbox.
pub fn now() -> ! {
    if is_first() {
        // The kernel ends what is left, but not what is frozen.
        signal_all(rawsys::SIGKILL);
    } else {
        everything();
    }
    rawsys::exit(0)
}
