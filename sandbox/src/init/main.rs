//! init: the first process of a sandbox. It builds the sandbox as the Plan says, then starts programs on request,
//! reaps, keeps time, and ends everything when the library lets go of its control socket or the caller dies.
//!
//! A static program of a few pages without libc and without an allocator; `build.rs` compiles it and the library
//! carries it. It trusts the library; the programs that it starts cannot reach it.
#![no_std]
#![no_main]

#[path = "../rawsys.rs"]
mod rawsys;
#[path = "../wire.rs"]
mod wire;

mod end;
mod landlock;
mod listener;
mod mounts;
mod network;
mod pump;
mod serve;
mod setup;
mod socket;
mod spawn;

use rawsys::{call, nr};
pub use wire::{At, Fault};
use wire::{Message, Reply, control, reply, stage};

/// The control socket: where the launch child put it.
pub const CONTROL: i32 = 0;

/// The Plan, where it came in a message. It is needed as long as there are programs to start.
static mut PLAN: [u8; wire::MOST_INLINE] = [0; wire::MOST_INLINE];

core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);

extern "C" fn main() -> ! {
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
    let mounts = message.value as usize;
    if message.kind != control::SETUP || count < 2 + mounts {
        return Err(protocol);
    }
    serve::watch(fds[1], if count - mounts > 2 { fds[2] } else { -1 });
    // Not before: whoever writes our id maps has to own our files in /proc. Nothing else runs in here yet.
    // Neither /proc/1/* nor ptrace may open the supervisor to programs with the same UID.
    // SAFETY: numbers only.
    unsafe { call!(nr::PRCTL, rawsys::PR_SET_DUMPABLE, 0) }
        .at(stage::DUMPABLE)
        .map_err(|fault| (u32::MAX, fault))?;
    let plan = letter.open(&fds, buffer).at(stage::MAP_PLAN).map_err(|fault| (u32::MAX, fault))?;
    setup::carry_out(plan, &fds[count - mounts..count])?;
    serve::prepare().map_err(|fault| (u32::MAX, fault))
}

fn prepare() -> Result<(), Fault> {
    // SAFETY: prctl, dup3, setsid and rt_sigaction with valid constants; the strings are NUL-terminated.
    unsafe {
        let _ = call!(nr::PRCTL, rawsys::PR_SET_NAME, c"sandcell-init".as_ptr());
        // Standard streams of programs never collide with a descriptor received later.
        call!(nr::DUP3, CONTROL, 1, rawsys::O_CLOEXEC).at(stage::EVENTS)?;
        call!(nr::DUP3, CONTROL, 2, rawsys::O_CLOEXEC).at(stage::EVENTS)?;
        call!(nr::SETSID).at(stage::SESSION)?;
        // What a caller has made of itself for debugging, such as addresses without randomness, is not passed on.
        call!(nr::PERSONALITY, 0).at(stage::SESSION)?;
        const DEFAULT_TIMER_SLACK: usize = 50_000;
        call!(nr::PRCTL, rawsys::PR_SET_TIMERSLACK, DEFAULT_TIMER_SLACK).at(stage::SESSION)?;
    }
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
    // SAFETY: `time` has the layout of struct timespec.
    let _ = unsafe { call!(nr::CLOCK_GETTIME, 1, time.as_mut_ptr()) };
    time[0] * 1_000_000_000 + time[1]
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    rawsys::exit(70)
}

/// What the compiler expects a libc to bring.
mod builtins {
    use core::arch::asm;

    // SAFETY: (all four) the contracts of memcpy, memmove, memset and memcmp; no calls that could recurse.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        unsafe { asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _) };
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= count {
            return unsafe { memcpy(to, from, count) };
        }
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") count => _,
                 inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
                 inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _);
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        unsafe { asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8) };
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
        for at in 0..count {
            let (a, b) = unsafe { (*left.add(at), *right.add(at)) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
        unsafe { memcmp(left, right, count) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        while unsafe { *text.add(length) } != 0 {
            length += 1;
        }
        length
    }
}
