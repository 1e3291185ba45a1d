//! The user network, inside: routes, rules and sockets by which every packet comes to the relay. What is done is a script of
//! the library's (`network::Steer`); this carries it out in the new network namespace and passes the sockets on. Nothing
//! of it stays with init.

use crate::rawsys::{self, call, nr};
use crate::wire::network::{self, RELAY_SOCKETS, ROLE_NONE, ROLES, Steer};
use crate::wire::{Message, Reader, stage};
use crate::{At, Fault, socket};

struct Steering {
    script: &'static [u8],
    relay: i32,
    /// /proc/sys, or -1. What is looked up beneath it is of the namespace of whoever looks.
    settings: i32,
}

static mut STEERING: Steering = Steering { script: &[], relay: -1, settings: -1 };

fn steering() -> &'static mut Steering {
    // SAFETY: init writes it before the network is begun; then only the process that makes the network reads it.
    unsafe { &mut *(&raw mut STEERING) }
}

/// The socket to the relay. It stays open: its end tells the relay that the sandbox is over.
pub fn hold_relay(fd: i32) {
    steering().relay = fd;
}

pub fn prepare(script: &'static [u8]) {
    const O_PATH: usize = 0o10_000_000;
    steering().script = script;
    // Later there may be another root.
    let opened = rawsys::openat(-1i32, c"/proc/sys", O_PATH, 0);
    steering().settings = opened.unwrap_or(-1);
}

/// The sockets that are passed on, with the roles that they have.
struct Sockets {
    fds: [i32; ROLES],
    roles: [u32; ROLES],
    count: usize,
}

/// Runs in the new network namespace, and nothing where there is no script.
pub fn carry_out() -> Result<(), Fault> {
    let Steering { script, relay, settings } = *steering();
    if script.is_empty() {
        return Ok(());
    }
    let mut sockets = Sockets { fds: [-1; ROLES], roles: [0; ROLES], count: 0 };
    let done = run(script, &mut sockets);
    let passed = done.and_then(|()| pass(relay, &sockets));
    sockets.fds[..sockets.count].iter().for_each(|fd| rawsys::close(*fd));
    rawsys::close(settings);
    passed
}

fn run(script: &'static [u8], sockets: &mut Sockets) -> Result<(), Fault> {
    let mut reader = Reader::new(script);
    let (mut current, mut kept, mut optional, mut at) = (-1, false, false, stage::STEER_SOCKET);
    loop {
        let malformed = Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO };
        let step = Steer::next(&mut reader).map_err(|_| malformed)?;
        if matches!(step, None | Some(Steer::Socket { .. })) && current >= 0 && !kept {
            rawsys::close(current);
        }
        let done = match step {
            None => return Ok(()),
            Some(Steer::Stage { stage }) => {
                at = stage;
                continue;
            }
            Some(Steer::Socket { family, kind, protocol, role, optional: may_lack }) => {
                (current, kept, optional) = (-1, false, may_lack != 0);
                match rawsys::socket(family as usize, kind as usize, protocol) {
                    Err(errno) => Err(errno),
                    Ok(fd) => {
                        current = fd;
                        if role != ROLE_NONE {
                            let place = sockets.fds.get_mut(sockets.count).ok_or(malformed)?;
                            (*place, sockets.roles[sockets.count]) = (current, role);
                            (sockets.count, kept) = (sockets.count + 1, true);
                        }
                        Ok(())
                    }
                }
            }
            Some(Steer::Setting { path, value }) => {
                write_setting(path, value);
                continue;
            }
            // Left out.
            Some(_) if current < 0 => continue,
            Some(other) => act(current, other),
        };
        match done {
            Err(_) if optional => {
                if kept {
                    sockets.count -= 1;
                }
                rawsys::close(current);
                (current, kept) = (-1, false);
            }
            other => other.at(at)?,
        }
    }
}

fn act(socket: i32, step: Steer<'_>) -> Result<(), i32> {
    const BACKLOG: usize = 1024;
    // SAFETY: numbers, and buffers as long as is said.
    unsafe {
        match step {
            Steer::Option { level, name, value } => {
                call!(nr::SETSOCKOPT, socket, level, name, &raw const value, 4).map(|_| ())
            }
            Steer::Bind { address } => call!(nr::BIND, socket, address.as_ptr(), address.len()).map(|_| ()),
            Steer::Listen {} => rawsys::listen(socket, BACKLOG),
            Steer::Request { messages } => request(socket, messages),
            Steer::Socket { .. } | Steer::Stage { .. } | Steer::Setting { .. } => Ok(()),
        }
    }
}

/// In a container /proc/sys may be read-only: then it stays as it was.
fn write_setting(path: &core::ffi::CStr, value: &[u8]) {
    let flags = rawsys::O_WRONLY | rawsys::O_CLOEXEC;
    if let Ok(fd) = rawsys::openat(steering().settings, path, flags, 0) {
        let _ = rawsys::write(fd, value);
        rawsys::close(fd);
    }
}

/// Sends messages that ask for an answer each (NLM_F_ACK) and reads the answers.
fn request(socket: i32, messages: &[u8]) -> Result<(), i32> {
    const NLMSG_ERROR: u16 = 2;
    const HEADER: usize = 16;
    const NLM_F_ACK: u16 = 4;
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let half = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let mut answers = 0;
    let mut at = 0;
    while at + HEADER <= messages.len() {
        answers += u32::from(half(messages, at + 6) & NLM_F_ACK != 0);
        at += (word(messages, at) as usize).max(HEADER).next_multiple_of(4);
    }
    let mut buffer = [0u8; 4096];
    rawsys::send(socket, messages)?;
    while answers > 0 {
        let length = rawsys::read(socket, &mut buffer)?;
        let mut at = 0;
        while at + HEADER + 4 <= length {
            if half(&buffer, at + 4) == NLMSG_ERROR {
                match word(&buffer, at + HEADER) as i32 {
                    0 => answers -= 1,
                    error => return Err(-error),
                }
            }
            at += (word(&buffer, at) as usize).max(HEADER).next_multiple_of(4);
        }
    }
    Ok(())
}

fn pass(relay: i32, sockets: &Sockets) -> Result<(), Fault> {
    let message = Message { kind: RELAY_SOCKETS, value: sockets.count as u32, length: 0 };
    let mut roles = [0u8; 4 * network::ROLES];
    for (at, role) in sockets.roles.iter().enumerate() {
        roles[4 * at..4 * at + 4].copy_from_slice(&role.to_ne_bytes());
    }
    let (text, fds) = (&roles[..4 * sockets.count], &sockets.fds[..sockets.count]);
    socket::pass_all(relay, &message, text, fds).at(stage::STEER_PASS)
}
