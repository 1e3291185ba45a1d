//! Process numbers, as /proc of the caller shows them.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sys;

/// Another pidfd of the same process, with an open file description of its own; for a process that is reaped something
/// else that is readable.
pub(crate) fn reopen(pidfd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let reaped = || EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).map(OwnedFd::from);
    let Some(pid) = of_pidfd(pidfd) else { return reaped() };
    let fd = match sys::pidfd_open(pid.cast_signed()) {
        Err(Errno::ESRCH) => return reaped(),
        other => other?,
    };
    // Its number was still its own when it was opened if it is so now.
    if of_pidfd(pidfd) == Some(pid) { Ok(fd) } else { reaped() }
}

/// The number of the process that a pidfd stands for; `None` where it is gone.
pub(crate) fn of_pidfd(pidfd: BorrowedFd<'_>) -> Option<u32> {
    // -1 once the process is reaped, 0 where it is in no namespace of ours.
    field(&format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()), "Pid:")?.parse().ok().filter(|pid| *pid != 0)
}

/// What the supervisor of a sandbox and its children do: two of these tell whether it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Motion {
    /// It wants to run.
    runs: bool,
    /// How long it ran.
    ran: String,
    children: String,
    /// The letter of each: proc_pid_stat(5).
    states: Vec<u8>,
}

pub(crate) fn motion(pidfd: BorrowedFd<'_>) -> Motion {
    let pid = of_pidfd(pidfd).unwrap_or(0).to_string();
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let state = |pid: &str| {
        let stat = read(format!("/proc/{pid}/stat"));
        // The name is whatever the program likes; what follows is not.
        stat.as_bytes().rsplit(|byte| *byte == b')').next().and_then(|rest| rest.get(1).copied()).unwrap_or(0)
    };
    let mut ran = read(format!("/proc/{pid}/schedstat"));
    ran.truncate(ran.find(' ').unwrap_or(0));
    let children = read(format!("/proc/{pid}/task/{pid}/children"));
    let states = children.split(' ').filter(|pid| !pid.is_empty()).take(MOST_STATES).map(state).collect();
    Motion { runs: state(&pid) == RUNS, ran, children, states }
}

const RUNS: u8 = b'R';
/// Of so many children the state is looked at.
const MOST_STATES: usize = 64;

impl Motion {
    /// Whether the supervisor is at its work: there are fewer processes than before, or nobody lets it run.
    pub(crate) fn goes_on(&self, before: &Motion) -> bool {
        self.children.len() < before.children.len() || self.runs && before.runs && self.ran == before.ran
    }

    /// Whether it ends, with all that was killed: something of it still runs, or is not what it was.
    pub(crate) fn ends(&self, before: &Motion) -> bool {
        self.runs || self.states.contains(&RUNS) || self != before
    }
}

/// The child of a process, or the child of a child, that has this number in its own, innermost namespace.
pub(crate) fn child_named(parent: u32, inside: u32) -> Option<u32> {
    let of = |parent: &u32| {
        let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let children = of(&parent);
    let inside = inside.to_string();
    let named = |pid: &u32| {
        let numbers = field(&format!("/proc/{pid}/status"), "NSpid:");
        numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some(&inside))
    };
    children.iter().copied().find(named).or_else(|| children.iter().flat_map(of).find(named))
}

/// What follows a name at the beginning of a line.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}
