//! Waiting for children: wait4(2).

use crate::rawsys::{self, call, nr};

pub const WNOHANG: usize = 1;
pub const WUNTRACED: usize = 2;
pub const WALL: usize = 0x4000_0000;

/// The part of struct rusage that is of use: two times and the resident set.
#[derive(Clone, Copy)]
pub struct Usage(pub [i64; 18]);

impl Usage {
    pub fn user_us(&self) -> u64 {
        (self.0[0] * 1_000_000 + self.0[1]) as u64
    }
    pub fn system_us(&self) -> u64 {
        (self.0[2] * 1_000_000 + self.0[3]) as u64
    }
    pub fn max_rss_kb(&self) -> u64 {
        self.0[4] as u64
    }
    /// Without the time that was used before, when it was not for this.
    pub fn since(mut self, before: &Usage) -> Usage {
        for at in [0, 2] {
            let used = |usage: &Usage| usage.0[at] * 1_000_000 + usage.0[at + 1];
            let left = (used(&self) - used(before)).max(0);
            (self.0[at], self.0[at + 1]) = (left / 1_000_000, left % 1_000_000);
        }
        self
    }
}

/// The next child that has ended, if one has. An error that is not "there is none" ends the sandbox: it would be blind.
pub fn wait_any(flags: usize) -> Option<(i32, i32, Usage)> {
    wait(-1, flags)
}

/// The same of this child alone, without waiting.
pub fn wait_one(pid: i32) -> Option<(i32, Usage)> {
    wait(pid, WNOHANG).map(|(_, status, usage)| (status, usage))
}

fn wait(whom: i32, flags: usize) -> Option<(i32, i32, Usage)> {
    let mut status = 0i32;
    let mut usage = Usage([0; 18]);
    loop {
        // SAFETY: the layouts of int and struct rusage.
        match unsafe { call!(nr::WAIT4, whom, &raw mut status, flags | WALL, &raw mut usage) } {
            Ok(0) | Err(rawsys::ECHILD) => return None,
            Ok(pid) => return Some((pid as i32, status, usage)),
            Err(rawsys::EINTR) => {}
            Err(_) => rawsys::exit(1),
        }
    }
}

pub fn children_usage() -> Usage {
    const RUSAGE_CHILDREN: i32 = -1;
    usage_of(RUSAGE_CHILDREN)
}

pub fn own_usage() -> Usage {
    const RUSAGE_SELF: i32 = 0;
    usage_of(RUSAGE_SELF)
}

fn usage_of(who: i32) -> Usage {
    let mut usage = Usage([0; 18]);
    // SAFETY: the layout of struct rusage.
    let _ = unsafe { call!(nr::GETRUSAGE, who, &raw mut usage) };
    usage
}
