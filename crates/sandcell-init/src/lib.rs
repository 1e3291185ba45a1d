//! init: the first process of a sandbox. It builds the sandbox as the Plan says, then starts programs on request,
//! reaps, keeps time, and ends everything when the library lets go of its control socket or the caller dies.
//!
//! A static program of a few pages without libc and without an allocator; `build.rs` compiles it and the library
//! carries it. It trusts the library; the programs that it starts cannot reach it.
//!
//! As a crate it is the program as bytes, [`PROGRAM`], and what the library shares with it.
#![no_std]
#![allow(unsafe_code, missing_docs)]
// One thread: its state lies in statics. What this suggests instead, a reference to a static that changes, is what rustc
// warns of (static_mut_refs).
#![allow(clippy::deref_addrof)]

mod commands;
mod end;
mod keeper;
pub mod landlock;
mod leftovers;
mod listener;
mod mounts;
mod named;
mod network;
mod ownlimits;
mod proc;
mod pump;
mod reading;
mod ready;
mod reap;
mod serve;
mod setup;
mod socket;
mod spawn;
mod starts;
mod steering;
mod system;
mod terminal;
mod text;
mod wait;

pub(crate) use sandcell_protocol as wire;
pub(crate) use sandcell_raw as rawsys;

use rawsys::{call, nr};
pub use wire::{At, Fault};
use wire::{Message, Reply, control, reply, stage};

/// The static program.
#[cfg(not(sandcell_init_program))]
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// The keeper of a named cell: another static program.
#[cfg(not(sandcell_init_program))]
pub static KEEPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keeper"));

pub use named::keep;

/// The control socket: where the launch child put it.
pub const CONTROL: i32 = 0;

/// The Plan, where it came in a message. It is needed as long as there are programs to start.
static mut PLAN: [u8; wire::MOST_INLINE] = [0; wire::MOST_INLINE];

/// The program, from its first instruction on.
pub extern "C" fn main() -> ! {
    if let Err((step, fault)) = run() {
        let reply =
            Reply { kind: reply::FAILED, value: step, detail: fault.stage, errno: fault.errno, ..Reply::default() };
        socket::tell(CONTROL, &reply, &[], -1);
        rawsys::exit(1);
    }
    serve::forever();
}

fn run() -> Result<(), (u32, Fault)> {
    prepare().map_err(|fault| (u32::MAX, fault))?;
    let mut fds = [-1; socket::MOST_DESCRIPTORS];
    let protocol = (u32::MAX, Fault { stage: stage::PROTOCOL, errno: rawsys::EPROTO });
    // SAFETY: the one use of this buffer; what it holds is only read from here on.
    let buffer = unsafe { &mut *(&raw mut PLAN) };
    let Some(letter) = socket::receive_letter(CONTROL, &mut fds, buffer) else {
        // The caller is gone before it began.
        rawsys::exit(0);
    };
    let (message, count) = (letter.message, letter.count);
    let with_relay = message.value & wire::network::WITH_RELAY != 0;
    let mounts = (message.value & !wire::network::WITH_RELAY) as usize;
    let count = count.saturating_sub(usize::from(with_relay));
    if message.kind != control::SETUP || count < 2 + mounts {
        return Err(protocol);
    }
    if with_relay {
        steering::hold_relay(fds[count]);
    }
    serve::watch(fds[1], if count - mounts > 2 { fds[2] } else { -1 });
    // Not before: whoever writes our id maps has to own our files in /proc. Nothing else runs in here yet.
    // Neither /proc/1/* nor ptrace may open the supervisor to programs with the same UID.
    rawsys::set_dumpable(false).at(stage::DUMPABLE).map_err(|fault| (u32::MAX, fault))?;
    let plan = letter.open(&fds, buffer).at(stage::MAP_PLAN).map_err(|fault| (u32::MAX, fault))?;
    setup::carry_out(plan, &fds[count - mounts..count])?;
    serve::prepare().map_err(|fault| (u32::MAX, fault))
}

fn prepare() -> Result<(), Fault> {
    let _ = rawsys::set_name(c"sandcell-init");
    // Standard streams of programs never collide with a descriptor received later.
    rawsys::dup3(CONTROL, 1, rawsys::O_CLOEXEC).at(stage::EVENTS)?;
    rawsys::dup3(CONTROL, 2, rawsys::O_CLOEXEC).at(stage::EVENTS)?;
    rawsys::setsid().at(stage::SESSION)?;
    // What a caller has made of itself for debugging, such as addresses without randomness, is not passed on.
    rawsys::personality(0).at(stage::SESSION)?;
    rawsys::set_timer_slack(rawsys::DEFAULT_TIMER_SLACK).at(stage::SESSION)?;
    spawn::default_signals()
}

/// Maps a memory file of the library read-only, for as long as this process lives or until `unmap`.
pub fn map(fd: i32, message: &Message) -> Result<&'static [u8], i32> {
    const PROT_READ: usize = 1;
    const MAP_PRIVATE: usize = 2;
    const MAP_POPULATE: usize = 0x8000;
    let length = message.length as usize;
    // SAFETY: a new mapping of a file that the library sealed against changes; nothing else refers to it.
    unsafe {
        let address = call!(nr::MMAP, 0, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0)?;
        rawsys::close(fd);
        Ok(core::slice::from_raw_parts(address as *const u8, length))
    }
}

pub fn unmap(bytes: &'static [u8]) {
    // SAFETY: the mapping was made by `map`; the caller keeps no reference to it.
    let _ = unsafe { call!(nr::MUNMAP, bytes.as_ptr(), bytes.len()) };
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let mut time = [0u64; 2];
    let _ = rawsys::clock(1, &mut time);
    time[0] * 1_000_000_000 + time[1]
}
