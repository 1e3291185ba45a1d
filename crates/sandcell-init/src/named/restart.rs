//! Starting the main program again when it has ended: in the same cell, from the same request.

use super::{Keeper, log};
use crate::now;
use crate::rawsys;
use crate::socket;
use crate::wire::{Message, Reply, control, reply};

/// The first wait, and the longest; each failure doubles it.
const FIRST: u64 = 100_000_000;
const LONGEST: u64 = 60_000_000_000;
/// Whoever has run for so long has not failed at once.
const STABLE: u64 = 10_000_000_000;

pub struct Restart {
    request: Option<&'static [u8]>,
    always: bool,
    at: u64,
    wait: u64,
    since: u64,
    count: u64,
}

pub const NONE: Restart = Restart { request: None, always: false, at: 0, wait: 0, since: 0, count: 0 };

impl Restart {
    pub fn new(request: &'static [u8], always: bool) -> Restart {
        Restart { request: Some(request), always, since: now(), wait: FIRST, ..NONE }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn never(&mut self) {
        (self.request, self.at) = (None, 0);
    }

    /// Whether what has ended so is to be started again. A sandbox that is gone cannot be.
    pub fn wants(&self, over: &Reply) -> bool {
        let failed = over.kind != reply::ENDED || over.value != 0 || over.detail != 0;
        self.request.is_some() && over.kind != 0 && (self.always || failed)
    }

    pub fn schedule(&mut self, now: u64) {
        if now.saturating_sub(self.since) >= STABLE {
            self.wait = FIRST;
        }
        self.at = now + self.wait;
        self.wait = (self.wait * 2).min(LONGEST);
    }

    pub fn is_due(&self) -> bool {
        self.at != 0 && now() >= self.at
    }
}

impl Keeper {
    /// Sends init the request once more, with new pipes.
    pub fn start_again(&mut self) {
        self.restart.at = 0;
        // A frozen cell starts nothing.
        if self.paused || self.send_again().is_err() {
            return self.restart.schedule(now());
        }
        (self.restart.since, self.restart.count) = (now(), self.restart.count + 1);
        self.over = crate::commands::NOT_OVER;
    }

    fn send_again(&mut self) -> Result<(), i32> {
        const AF_UNIX: usize = 1;
        const SEQPACKET: usize = 5;
        let mut sockets = [-1i32; 2];
        let mut pipes = [[-1i32; 2]; 3];
        let had_input = self.stdin >= 0;
        let mut make = || -> Result<(), i32> {
            rawsys::socketpair(AF_UNIX, SEQPACKET, &mut sockets)?;
            for pipe in &mut pipes[usize::from(!had_input)..] {
                rawsys::pipe2(pipe, rawsys::O_CLOEXEC)?;
            }
            log::unblock(pipes[1][0]).and_then(|()| log::unblock(pipes[2][0]))
        };
        let sent = make().and_then(|()| {
            let all = [sockets[1], pipes[0][0], pipes[1][1], pipes[2][1]];
            let message = Message { kind: control::SPAWN, ..Message::default() };
            let request = self.restart.request.unwrap_or_default();
            match pipes[0][0] {
                -1 => socket::forward(self.control, &message, request, &[all[0], all[2], all[3]]),
                _ => socket::forward(self.control, &message, request, &all),
            }
        });
        for fd in [sockets[1], pipes[0][0], pipes[1][1], pipes[2][1]] {
            rawsys::close(fd);
        }
        let ours = [sockets[0], pipes[0][1], pipes[1][0], pipes[2][0]];
        if sent.is_err() {
            ours.iter().for_each(|fd| rawsys::close(*fd));
            return sent;
        }
        self.main = ours[0];
        if pipes[0][1] >= 0 {
            rawsys::close(core::mem::replace(&mut self.stdin, pipes[0][1]));
        }
        // What the one before has left in its pipes.
        self.log.settle(self.outputs, now());
        for (old, new) in self.outputs.iter_mut().zip(&ours[2..]) {
            rawsys::close(core::mem::replace(old, *new));
        }
        Ok(())
    }
}
