//! The relay: the way out of a sandbox with a network. A process beside init, in the host's network, that gets sockets of the
//! sandbox's network from init, decides what its programs may reach, dials that, and carries the bytes. `docs/network.md` has
//! the picture.
//!
//! A static program without libc and without an allocator; `build.rs` compiles it and the library carries it. It trusts the
//! library. Whatever comes out of the sandbox is hostile: packets, questions for names, the first bytes of TLS. Those are read by
//! modules without system calls, and all of it behind a filter of system calls that knows no file and no program.
//!
//! As a crate it is the program as bytes, [`PROGRAM`].
#![no_std]
#![allow(unsafe_code, missing_docs)]
// One thread: its state lies in statics, as in init.
#![allow(clippy::deref_addrof)]

#[cfg(test)]
extern crate std;

mod account;
mod connections;
pub mod dns;
mod flows;
mod gate;
mod inbound;
pub mod packet;
mod pins;
mod policy;
pub mod proxy;
mod questions;
mod relay;
mod sys;
pub mod tls;

use sandcell_protocol::network::{MOST_PUBLISHED, RELAY_SETUP, Relay as Record, Table};
use sandcell_protocol::{MOST_INLINE, Reader};
use sandcell_raw::{self as raw, call, nr};

use relay::{CONTROL, Relay, Watched, relay, token};

/// The static program.
#[cfg(not(sandcell_init_program))]
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/relay"));

/// The policy, where it came in the message.
static mut POLICY: [u8; MOST_INLINE] = [0; MOST_INLINE];

/// How the relay ends where it cannot begin.
const UNFIT: i32 = 71;

/// The program, from its first instruction on.
pub extern "C" fn main() -> ! {
    let (relay, buffer) = relay();
    if start(relay).is_none() {
        raw::exit(UNFIT);
    }
    relay.run(buffer)
}

fn start(relay: &mut Relay) -> Option<()> {
    confine(relay)?;
    let (mut head, mut fds) = ([0; 16], [-1; 3 + MOST_PUBLISHED]);
    // SAFETY: the one use of this buffer; what it holds is only read from here on.
    let buffer = unsafe { &mut *(&raw mut POLICY) };
    let (inline, count) = sys::receive_descriptors(CONTROL, &mut head, buffer, &mut fds)?;
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = word(8) as usize;
    let in_file = length > 0;
    if word(0) != RELAY_SETUP || count < 2 + usize::from(in_file) {
        return None;
    }
    let policy = if in_file {
        // SAFETY: the file is sealed, the mapping stays as long as this process.
        unsafe { core::slice::from_raw_parts(map(fds[0], length, false)?, length) }
    } else {
        &buffer[..inline]
    };
    let fds = &fds[usize::from(in_file)..count];
    let (init, table, mut published) = (fds[0], fds[1], fds[2..].iter());
    // SAFETY: a file of that size, sealed against another, that the library made for this.
    relay.account = unsafe { account::Account::open(map(table, size_of::<Table>(), true)?.cast()) };
    relay.init = init;
    relay.epoll = sys::epoll_create().ok()?;
    sys::watch(relay.epoll, CONTROL, sys::EPOLLIN, token(Watched::Control, 0, 0, 0)).ok()?;
    sys::watch(relay.epoll, init, sys::EPOLLIN, token(Watched::Init, 0, 0, 0)).ok()?;
    let mut filter = None;
    let mut reader = Reader::new(policy);
    while let Some(record) = Record::next(&mut reader).ok()? {
        match record {
            Record::Filter { program } => filter = Some(program),
            Record::Server { address } => relay.questions.add_server(address.try_into().ok()?),
            Record::Known { name, address } => relay.questions.add_known(name, address.try_into().ok()?),
            Record::Publish { port, protocol } => {
                relay.publish(*published.next()?, u16::try_from(port).ok()?, protocol)?;
            }
            other => relay.policy.take(other)?,
        }
    }
    install(filter?)
}

/// Gives up what the caller has and a relay does not need.
fn confine(relay: &mut Relay) -> Option<()> {
    const RLIMIT_NOFILE: usize = 7;
    let mut limit = [0u64; 2];
    // SAFETY: numbers, NUL-terminated text, and room for what is asked.
    unsafe {
        let _ = call!(nr::PRCTL, raw::PR_SET_NAME, c"sandcell-relay".as_ptr());
        // Away from the caller's terminal and its signals.
        call!(nr::SETSID).ok()?;
        call!(nr::PRCTL, raw::PR_SET_DUMPABLE, 0).ok()?;
        call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, 0, limit.as_mut_ptr()).ok()?;
        limit[0] = limit[1];
        call!(nr::PRLIMIT64, 0, RLIMIT_NOFILE, limit.as_ptr(), 0).ok()?;
        raw::set_capabilities(0, 0, 0).ok()?;
        call!(nr::PRCTL, raw::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).ok()?;
    }
    relay.descriptors = usize::try_from(limit[0]).unwrap_or(usize::MAX);
    Some(())
}

fn map(fd: i32, length: usize, writable: bool) -> Option<*mut u8> {
    const PROT_READ: usize = 1;
    const PROT_WRITE: usize = 2;
    const MAP_SHARED: usize = 1;
    const MAP_PRIVATE: usize = 2;
    let (protection, kind) = if writable { (PROT_READ | PROT_WRITE, MAP_SHARED) } else { (PROT_READ, MAP_PRIVATE) };
    // SAFETY: a new mapping of a file that the library has sealed at its size; it stays as long as this process.
    unsafe {
        let address = call!(nr::MMAP, 0, length, protection, kind, fd, 0).ok()?;
        raw::close(fd);
        Some(address as *mut u8)
    }
}

/// From here on there are few system calls.
fn install(program: &'static [u8]) -> Option<()> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const u8,
    }
    let program = Program { length: u16::try_from(program.len() / 8).ok()?, filter: program.as_ptr() };
    // SAFETY: struct sock_fprog of as many instructions as are there.
    unsafe { call!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, 0, &raw const program) }.ok().map(|_| ())
}
