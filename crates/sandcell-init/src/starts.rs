//! Starting programs, with a listener of their filter where there is to be one. Apart from what keeps the time of those that
//! run, so that this goes on while a program takes long to start.

use crate::Fault;
use crate::listener::{self, Calls, Listened};
use crate::rawsys;
use crate::serve::MOST_COMMANDS;
use crate::spawn::{self, Request, Start, Tend};
use crate::wire::{self, stage};

pub struct Starts {
    /// Of filters that are still in use, by whatever a program has left behind in a cell too; 0 where the place is free.
    pub listeners: [i32; MOST_COMMANDS],
    pub listening: usize,
    pub calls: Calls,
}

/// All zeros, so that it takes no room in the file.
pub const NONE: Starts = Starts { listeners: [0; MOST_COMMANDS], listening: 0, calls: Calls([0; wire::CALL_WORDS]) };

impl Starts {
    /// A place for a listener: looked for before there is one, because a filter without its listener refuses instead
    /// of ending.
    pub fn place_for_listener(&mut self) -> Result<usize, Fault> {
        if !spawn::listens() {
            return Ok(0);
        }
        match self.listeners[..self.listening].iter().position(|listener| *listener == 0) {
            Some(at) => Ok(at),
            None if self.listening < MOST_COMMANDS => {
                self.listening += 1;
                Ok(self.listening - 1)
            }
            None => Err(Fault { stage: stage::TOO_MANY, errno: rawsys::EAGAIN }),
        }
    }

    pub fn keep_listener(&mut self, place: usize, program: &Listened) {
        if spawn::listens() {
            self.listeners[place] = program.listener.max(0);
        }
    }
}

/// Starts the program, with its end of its terminal or -1; its pid, a pidfd of it, and the call for which it was ended at once.
pub fn start(request: &Request, fds: &[i32], slave: i32, calls: &mut Calls, tend: Tend<'_>) -> Result<Listened, Fault> {
    if !spawn::listens() {
        let (pid, pidfd) = spawn::start(request, fds, slave, tend)?;
        return Ok(Listened { pid, pidfd, listener: -1, denied: 0 });
    }
    let mut note = |notice: &listener::Notice| calls.note(notice);
    let note: Option<&mut dyn FnMut(&listener::Notice)> = if spawn::learns() { Some(&mut note) } else { None };
    listener::start(&mut Start::new(request, fds, slave), note, tend)
}
