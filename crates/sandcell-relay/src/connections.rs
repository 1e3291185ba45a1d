//! The connections of programs, from the first packet to the end, and how their bytes are carried.
//!
//! Bytes are peeked at, sent, and taken out of the one socket as far as the other took them. So nothing is ever kept here:
//! what a slow reader has not taken stays in the kernel's buffers, which press back on the sender.

use sandcell_raw::{self as raw, EAGAIN};

use crate::account::{NO_ENTRY, Place};
use crate::packet::{Flow, NO_FLOW, NO_PACKET, Packet};
use crate::sys;

/// How many there may be at once.
pub const MOST: usize = 4096;
/// How many of them may wait for their peer.
pub const MOST_WAITING: usize = 1024;
/// How often one connection is carried before the others have their turn.
const ROUNDS: usize = 16;
/// How much is carried at once.
pub const CHUNK: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Free,
    /// The peer is dialled; the program's first packet is held.
    Dialling,
    /// The proxy has been reached, and is asked for the peer.
    Asking,
    /// The first packet was let through; the connection is about to be accepted.
    Admitted,
    /// From outside: the program is dialled.
    Entering,
    Up,
}

/// What is done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Carry,
    /// Questions for names.
    Names,
}

#[derive(Clone, Copy)]
pub struct Connection {
    pub state: State,
    pub purpose: Purpose,
    pub generation: u32,
    /// The program's side and the peer's; -1 where there is none.
    pub fds: [i32; 2],
    pub flow: Flow,
    pub first: Packet,
    /// Since when it waits, or when it was admitted; milliseconds.
    pub since: u64,
    pub place: Place,
    pub rule: u32,
    /// Whether the first bytes of the program are yet to be looked at, and whether a rule for a name let it through.
    pub unseen: bool,
    pub by_name: bool,
    /// Which directions have come to their end: from the program, from the peer.
    pub ended: [bool; 2],
    /// How far the proxy has been asked.
    pub step: u8,
    /// A question is being answered.
    pub asking: bool,
}

const FREE: Connection = Connection {
    state: State::Free,
    purpose: Purpose::Carry,
    generation: 0,
    fds: [0; 2],
    flow: NO_FLOW,
    first: NO_PACKET,
    since: 0,
    place: 0,
    rule: 0,
    unseen: false,
    by_name: false,
    ended: [false; 2],
    step: 0,
    asking: false,
};

pub struct Connections {
    all: [Connection; MOST],
    /// Places ever used: what lies beyond is never touched, so it costs no memory.
    used: usize,
    /// The free places below `used`.
    free: [u32; MOST],
    free_count: usize,
    waiting: [u32; MOST_WAITING],
    waiting_count: usize,
    pub open: usize,
}

impl Connections {
    /// All zeros.
    pub const fn new() -> Connections {
        Connections {
            all: [FREE; MOST],
            used: 0,
            free: [0; MOST],
            free_count: 0,
            waiting: [0; MOST_WAITING],
            waiting_count: 0,
            open: 0,
        }
    }

    pub fn get(&mut self, at: usize) -> &mut Connection {
        &mut self.all[at]
    }

    /// A place for a connection that waits.
    pub fn begin(&mut self, flow: Flow, first: Packet) -> Option<usize> {
        if self.waiting_count == MOST_WAITING {
            return None;
        }
        let at = if self.free_count > 0 {
            self.free_count -= 1;
            self.free[self.free_count] as usize
        } else if self.used < MOST {
            self.used += 1;
            self.used - 1
        } else {
            return None;
        };
        let generation = self.all[at].generation;
        let state = State::Dialling;
        self.all[at] = Connection { state, generation, flow, first, fds: [-1; 2], place: NO_ENTRY, ..FREE };
        self.waiting[self.waiting_count] = at as u32;
        self.waiting_count += 1;
        self.open += 1;
        Some(at)
    }

    /// The one that waits with these ends.
    pub fn waiting(&self, flow: &Flow) -> Option<usize> {
        let is = |at: &&u32| self.all[**at as usize].flow == *flow;
        self.waiting[..self.waiting_count].iter().find(is).map(|at| *at as usize)
    }

    pub fn all_waiting(&self) -> &[u32] {
        &self.waiting[..self.waiting_count]
    }

    pub fn waits_no_more(&mut self, at: usize) {
        if let Some(place) = self.waiting[..self.waiting_count].iter().position(|waiting| *waiting as usize == at) {
            self.waiting_count -= 1;
            self.waiting[place] = self.waiting[self.waiting_count];
        }
    }

    /// Ends it. `reset`: not as if it had come to its end.
    pub fn end(&mut self, at: usize, reset: bool) {
        if self.all[at].state == State::Free {
            return;
        }
        if self.all[at].state != State::Up {
            self.waits_no_more(at);
        }
        let connection = &mut self.all[at];
        for fd in connection.fds {
            if fd >= 0 {
                if reset {
                    sys::reset_on_close(fd);
                }
                raw::close(fd);
            }
        }
        connection.state = State::Free;
        connection.generation = connection.generation.wrapping_add(1);
        self.free[self.free_count] = at as u32;
        self.free_count += 1;
        self.open -= 1;
    }

    /// Whether there is any that is up.
    pub fn any_up(&self) -> bool {
        self.open > self.waiting_count
    }
}

/// What a turn has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Carried {
    /// Until there is something to tell of it.
    Waits,
    /// There is more, but it is the turn of others.
    More,
    Broken,
}

impl Connection {
    /// Carries what there is from one side to the other; the bytes that went.
    pub fn carry(&mut self, from: usize, buffer: &mut [u8]) -> (Carried, u64) {
        let (source, target) = (self.fds[from], self.fds[1 - from]);
        let mut sum = 0;
        if self.ended[from] {
            return (Carried::Waits, 0);
        }
        for _ in 0..ROUNDS {
            let had = match sys::peek(source, buffer) {
                Err(EAGAIN) => return (Carried::Waits, sum),
                Err(_) => return (Carried::Broken, sum),
                Ok(0) => {
                    self.ended[from] = true;
                    sys::shut_writing(target);
                    return (Carried::Waits, sum);
                }
                Ok(had) => had,
            };
            let sent = match sys::send(target, &buffer[..had]) {
                Err(EAGAIN) => return (Carried::Waits, sum),
                Err(_) => return (Carried::Broken, sum),
                Ok(sent) => sent,
            };
            sum += sent as u64;
            if sys::discard(source, sent) != Ok(sent) {
                return (Carried::Broken, sum);
            }
            if sent < had {
                // The target tells when there is room again.
                return (Carried::Waits, sum);
            }
        }
        (Carried::More, sum)
    }

    pub fn is_over(&self) -> bool {
        self.ended == [true; 2]
    }
}
