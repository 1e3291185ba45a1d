//! Those who are connected to the keeper. The kernel says whose processes they are; what they say is bounded, and nobody
//! is waited for.

use super::{Keeper, protocol};
use crate::rawsys::{self, call, nr};
use crate::socket::{self, MOST_DESCRIPTORS};
use crate::wire::keeper::{answer, ask};
use crate::wire::{self, Message, Reply, command, control, reply, stage};

/// Each command that is run by exec has one.
pub const MOST_CLIENTS: usize = 320;

#[derive(Clone, Copy)]
pub struct Client {
    pub taken: bool,
    pub fd: i32,
    /// For how many commands of its there is room in the limit of processes.
    places: i32,
    attached: bool,
    /// Whether it has said anything yet.
    heard: bool,
}

pub const NOBODY: Client = Client { taken: false, fd: 0, places: 0, attached: false, heard: false };

/// What a client asks for, until it is passed on.
static mut REQUEST: [u8; wire::MOST_INLINE] = [0; wire::MOST_INLINE];

impl Keeper {
    /// Takes in who connects, if it is the same user.
    pub fn welcome(&mut self) {
        const CLOEXEC_NONBLOCK: usize = rawsys::O_CLOEXEC | rawsys::O_NONBLOCK;
        let Ok(fd) = rawsys::accept(self.listener, CLOEXEC_NONBLOCK) else { return };
        if peer(fd) != Some(self.uid) {
            return rawsys::close(fd);
        }
        let places = self.clients[..self.used].iter();
        let free = places.clone().position(|client| !client.taken);
        // Who says nothing makes room for others.
        let silent = || places.clone().position(|client| !client.heard && !client.attached);
        let at = match free {
            Some(at) => at,
            None if self.used < MOST_CLIENTS => self.used,
            None => match silent() {
                Some(at) => {
                    rawsys::close(self.clients[at].fd);
                    at
                }
                None => {
                    refuse(fd, rawsys::EBUSY);
                    return rawsys::close(fd);
                }
            },
        };
        self.used = self.used.max(at + 1);
        self.clients[at] = Client { taken: true, fd, ..NOBODY };
    }

    /// What a client wants.
    pub fn hear_client(&mut self, at: usize) {
        let mut fds = [-1; MOST_DESCRIPTORS];
        // SAFETY: the one use of this buffer, which ends with this function.
        let buffer = unsafe { &mut *(&raw mut REQUEST) };
        let client = self.clients[at].fd;
        let Some((message, count, length)) = socket::receive_into(client, &mut fds, buffer) else {
            return self.dismiss(at);
        };
        self.clients[at].heard = true;
        let fds = &fds[..count];
        match message.kind {
            control::SPAWN => self.pass_on_program(&message, &buffer[..length], fds),
            control::FREEZE => {
                let _ = socket::forward(self.control, &message, &[], fds);
            }
            _ => self.answer(at, &message, &buffer[..length], fds),
        }
        fds.iter().for_each(|fd| rawsys::close(*fd));
    }

    /// To init, which answers to the client itself.
    fn pass_on_program(&mut self, message: &Message, text: &[u8], fds: &[i32]) {
        let fault = if self.paused {
            Err((stage::FROZEN, rawsys::EBUSY))
        } else {
            socket::forward(self.control, message, text, fds).map_err(|errno| (stage::TOO_MANY, errno))
        };
        if let (Err((detail, errno)), Some(&fd)) = (fault, fds.get(usize::from(message.length > 0))) {
            let _ = socket::answer(fd, &Reply { kind: reply::NOT_STARTED, detail, errno, ..Reply::default() }, -1);
        }
    }

    fn answer(&mut self, at: usize, message: &Message, text: &[u8], fds: &[i32]) {
        let client = self.clients[at].fd;
        let done = match message.kind {
            ask::STATUS => return give(client, &self.status(), self.init),
            ask::UPPER if self.upper >= 0 => return done(client, self.upper),
            ask::ATTACH => match self.attach(at, message.value == 1) {
                Ok(()) => return done(client, self.stdin),
                Err(errno) => Err(errno),
            },
            ask::STOP | ask::KILL => {
                // Whoever waits is answered by the end of the connection.
                done(client, -1);
                match message.kind {
                    ask::STOP => self.stop(message.value),
                    _ => self.end_now(),
                }
                return;
            }
            ask::SIGNAL => self.signal_main(command::SIGNAL, message.value),
            ask::PLACES => {
                let wanted = message.value.cast_signed();
                let had = self.clients[at].places;
                // Never less than it has had.
                let change = wanted.clamp(-had, MOST_CLIENTS as i32 - had);
                self.clients[at].places += change;
                self.places += i64::from(change);
                self.write_pids();
                // Nobody waits for an answer.
                return;
            }
            ask::PIDS => {
                self.pids = u64::from(message.value);
                self.write_pids();
                Ok(())
            }
            ask::CLOSE_STDIN => {
                rawsys::close(core::mem::replace(&mut self.stdin, -1));
                Ok(())
            }
            ask::PAUSE => self.pause(message.value, text, fds),
            _ => Err(rawsys::EINVAL),
        };
        match done {
            Ok(()) => self::done(client, -1),
            Err(errno) => refuse(client, errno),
        }
    }

    fn status(&self) -> Reply {
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let attached = self.clients[..self.used].iter().any(|client| client.attached);
        Reply {
            kind: answer::STATUS,
            value: if self.main >= 0 { self.main_pid } else { 0 },
            detail: flag(self.paused, protocol::STATUS_PAUSED)
                | flag(self.stdin >= 0, protocol::STATUS_STDIN)
                | flag(self.stop_by != 0, protocol::STATUS_STOPPING)
                | flag(attached, protocol::STATUS_ATTACHED),
            errno: self.log.errno(),
            wall_ns: crate::now().saturating_sub(self.since),
            output: self.log.written(),
            call: self.restart.count(),
            ..Reply::default()
        }
    }

    /// Gives a client the main program's standard input, if nobody else has it.
    fn attach(&mut self, at: usize, takeover: bool) -> Result<(), i32> {
        let other = self.clients[..self.used].iter().position(|client| client.attached);
        if let Some(other) = other.filter(|other| *other != at) {
            // One that has gone and was not heard of yet stands in nobody's way.
            if !takeover && !is_gone(self.clients[other].fd) {
                return Err(rawsys::EBUSY);
            }
            self.dismiss(other);
        }
        self.clients[at].attached = true;
        Ok(())
    }

    /// While the cell is frozen no program is started: it would be born where the supervisor is, outside of the group.
    fn pause(&mut self, value: u32, text: &[u8], fds: &[i32]) -> Result<(), i32> {
        if value == 2 {
            let &fd = fds.first().ok_or(rawsys::EINVAL)?;
            let mut name = [0; protocol::MOST_NAME];
            name.get_mut(..text.len()).filter(|_| text.len() < protocol::MOST_NAME).ok_or(rawsys::EINVAL)?;
            name[..text.len()].copy_from_slice(text);
            let fd = rawsys::dup_above(fd, 3)?;
            rawsys::close(core::mem::replace(&mut self.aside, (fd, name)).0);
            return Ok(());
        }
        self.paused = value == 1;
        if !self.paused {
            rawsys::close(core::mem::replace(&mut self.aside, (-1, [0; protocol::MOST_NAME])).0);
        }
        Ok(())
    }

    pub fn dismiss(&mut self, at: usize) {
        let client = core::mem::replace(&mut self.clients[at], NOBODY);
        rawsys::close(client.fd);
        self.places -= i64::from(client.places);
        if client.places != 0 {
            self.write_pids();
        }
    }

    fn end_now(&mut self) -> ! {
        self.reason = protocol::BY_KILL;
        self.finish()
    }
}

fn done(client: i32, fd: i32) {
    give(client, &Reply { kind: answer::DONE, ..Reply::default() }, fd);
}

fn refuse(client: i32, errno: i32) {
    let _ = socket::answer(client, &Reply { kind: answer::REFUSED, errno, ..Reply::default() }, -1);
}

/// An answer with a descriptor may fail for others of the same user, who have too many on their way (unix(7)): the client
/// asks again.
fn give(client: i32, reply: &Reply, fd: i32) {
    if let Err(errno) = socket::answer(client, reply, fd) {
        refuse(client, errno);
    }
}

/// Whether the other side of a connection is closed.
fn is_gone(fd: i32) -> bool {
    const POLLHUP: i16 = 0x10;
    let mut polls = [crate::wait::PollFd::new(fd, 0)];
    super::poll(&mut polls, Some(crate::now()));
    polls[0].returned & POLLHUP != 0
}

/// Whose process has connected.
fn peer(fd: i32) -> Option<u32> {
    const SOL_SOCKET: usize = 1;
    const SO_PEERCRED: usize = 17;
    // struct ucred: pid, uid, gid.
    let mut who = [0u32; 3];
    let mut length = size_of_val(&who) as u32;
    // SAFETY: the layout of struct ucred, as long as is said.
    unsafe { call!(nr::GETSOCKOPT, fd, SOL_SOCKET, SO_PEERCRED, who.as_mut_ptr(), &raw mut length) }.ok()?;
    Some(who[1])
}
