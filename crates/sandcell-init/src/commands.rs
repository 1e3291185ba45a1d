//! The programs that run, and what is kept of each: its time, its output, its end.

use crate::pump::{IDLE, Pump};
use crate::rawsys;
use crate::wire::{self, Reply};
use crate::{end, keeper, now};

const ETIMEDOUT: i32 = 110;
/// How long the keeper of a command that was killed is waited for.
const DEATH: u64 = 5_000_000_000;

#[derive(Clone, Copy)]
pub struct Command {
    /// 0 where no program runs here.
    pub pid: i32,
    /// The process between us and the program; 0 in a one-shot sandbox, unless its program has a terminal.
    pub keeper: i32,
    /// Its own place among the commands.
    pub place: usize,
    /// What is told of a program that has ended as soon as its output is carried; until then of no kind.
    pub over: Reply,
    pub socket: i32,
    pub one_shot: bool,
    pub leftovers: bool,
    /// Whether something may be made ahead for the one after it.
    pub ahead: bool,
    /// Set when it has ended in another way than by itself.
    pub flags: u32,
    pub started: u64,
    /// Monotonic nanoseconds; 0 is never.
    pub deadline: u64,
    pub grace: u64,
    pub warned: bool,
    /// Its programs are killed: when its keeper should have said so at the latest, or 0.
    pub kill_by: u64,
    pub output: u64,
    pub output_limit: u64,
    pub pumps: [Pump; 2],
    /// The call for which the filter's listener ended it.
    pub denied: u64,
}

pub const FREE: Command = Command {
    pid: 0,
    keeper: 0,
    place: 0,
    over: NOT_OVER,
    socket: 0,
    one_shot: false,
    leftovers: false,
    ahead: false,
    flags: 0,
    started: 0,
    deadline: 0,
    grace: 0,
    warned: false,
    kill_by: 0,
    output: 0,
    output_limit: 0,
    pumps: [IDLE; 2],
    denied: 0,
};

pub const NOT_OVER: Reply = Reply {
    kind: 0,
    value: 0,
    detail: 0,
    errno: 0,
    wall_ns: 0,
    user_us: 0,
    system_us: 0,
    max_rss_kb: 0,
    output: 0,
    call: 0,
};

impl Command {
    pub fn is_over(&self) -> bool {
        self.over.kind != 0
    }

    pub fn is_free(&self) -> bool {
        self.pid == 0 && !self.is_over()
    }

    /// Whether its keeper has told of its end already. If not, it will not any more.
    pub fn is_told(&self) -> bool {
        self.keeper > 0 && keeper::has_told(self.place)
    }

    /// Signals a program and all that it started: all there is in a one-shot sandbox.
    pub fn signal_all(&mut self, signal: i32) {
        if self.keeper == 0 {
            return end::signal_all(signal);
        }
        if signal == rawsys::SIGKILL {
            keeper::drain(self.place);
        }
        end::signal_command(self.keeper, signal);
        if signal == rawsys::SIGKILL {
            // A keeper that a program has stopped would never say that this is over.
            end::kill(self.keeper, rawsys::SIGCONT);
            self.kill_by = now() + DEATH;
        }
    }

    /// Whether its output is not waited for any longer.
    pub fn keep_time(&mut self) -> bool {
        let time = now();
        if self.kill_by != 0 && time >= self.kill_by {
            self.kill_by = 0;
            end::kill(self.keeper, rawsys::SIGKILL);
        }
        if self.is_free() || self.deadline == 0 || time < self.deadline {
            return false;
        }
        if self.is_told() {
            self.deadline = 0;
            return false;
        }
        if self.is_over() {
            self.pumps.iter_mut().filter(|pump| pump.open()).for_each(|pump| pump.lose(ETIMEDOUT));
            return true;
        }
        self.flags |= wire::ENDED_TIMED_OUT;
        if self.warned || self.grace == 0 {
            self.deadline = 0;
            self.signal_all(rawsys::SIGKILL);
        } else {
            self.signal_all(rawsys::SIGTERM);
            self.warned = true;
            self.deadline = time.saturating_add(self.grace);
        }
        false
    }
}

/// Carries a chunk of output and ends the program when it has written too much. Returns the bytes carried.
pub fn carry(command: &mut Command, pump: usize) -> u64 {
    let room = if command.output_limit == 0 { u64::MAX } else { command.output_limit - command.output };
    let had = command.pumps[pump].carry(room);
    command.output += had.min(room);
    if had > room {
        command.flags |= wire::ENDED_OUTPUT_LIMIT;
        // The number of a program that is over may be somebody else's.
        if !command.is_over() {
            command.signal_all(rawsys::SIGKILL);
        }
    }
    had
}

/// Whether a program's time is over while it is being started.
pub struct Late {
    /// In monotonic nanoseconds; 0: none.
    pub deadline: u64,
    pub seen: bool,
}

impl Late {
    /// `timeout`: milliseconds from then; 0: none.
    pub fn after(started: u64, timeout: u64) -> Late {
        let deadline = if timeout > 0 { started.saturating_add(timeout.saturating_mul(1_000_000)) } else { 0 };
        Late { deadline, seen: false }
    }

    /// Whether it is over now, or has been seen to be.
    pub fn now(&mut self) -> bool {
        self.seen |= self.deadline != 0 && now() >= self.deadline;
        self.seen
    }
}
