//! Other system call ABIs of the same processor: a filter that only knows x86-64 numbers is walked around.

use crate::check::{Check, Held, NotApplicable, Open, Verdict, p1};
use crate::sys::{call, denied, name};

pub const CHECKS: &[Check] = &[
    p1("abi.x32", "x32 not filtered", "getpid through the x32 ABI", |_| denied(call!(X32 | libc::SYS_getpid))),
    p1("abi.x32_unshare", "x32 not filtered", "unshare(CLONE_NEWUSER) through the x32 ABI", |_| {
        denied(call!(X32 | libc::SYS_unshare, libc::CLONE_NEWUSER))
    }),
    p1("abi.i386_int80", "i386 not filtered", "getpid through int 0x80", |_| i386(I386_GETPID, 0, 0, 0)),
    p1("abi.i386_unshare", "i386 not filtered", "unshare(CLONE_NEWUSER) through int 0x80", |_| {
        i386(I386_UNSHARE, libc::CLONE_NEWUSER as u32, 0, 0)
    }),
    p1("abi.i386_clone", "i386 not filtered", "clone(CLONE_NEWUSER) through int 0x80", |_| {
        // With CLONE_THREAD missing its partners the call fails with EINVAL, but only after a filter let it pass.
        match i386_raw(I386_CLONE, libc::CLONE_NEWUSER as u32 | libc::CLONE_THREAD as u32, 0, 0) {
            Some(value) if value == -libc::EINVAL => Open("reached: EINVAL".into()),
            Some(value) if value >= 0 => Open("it worked".into()),
            Some(value) => Held(name(-value)),
            None => NotApplicable("not an x86-64 program".into()),
        }
    }),
    p1("abi.i386_socketcall", "i386 socketcall: AF_VSOCK behind a pointer", "an AF_VSOCK socket by socketcall", |_| {
        match low_memory(&[libc::AF_VSOCK as u32, libc::SOCK_STREAM as u32, 0]) {
            Some(arguments) => i386(I386_SOCKETCALL, 1, arguments, 0),
            None => NotApplicable("no memory below 4 GiB".into()),
        }
    }),
    p1("abi.i386_socket", "i386 not filtered", "an AF_VSOCK socket through int 0x80", |_| {
        i386(I386_SOCKET, libc::AF_VSOCK as u32, libc::SOCK_STREAM as u32, 0)
    }),
    p1("abi.i386_keyctl", "i386 not filtered", "keyctl through int 0x80", |_| i386(I386_KEYCTL, 0, (-3i32) as u32, 0)),
    p1("abi.i386_ptrace", "i386 not filtered", "ptrace through int 0x80", |_| i386(I386_PTRACE, 0, 0, 0)),
    p1("abi.i386_personality", "i386 not filtered", "personality through int 0x80", |_| {
        i386(I386_PERSONALITY, 0x0040_0000, 0, 0)
    }),
    p1("abi.i386_ipc", "i386 ipc multiplexer", "shmget through the ipc call", |_| {
        // A segment that is not there: nothing is made, and ENOENT shows that the call was reached.
        const SHMGET: u32 = 23;
        match i386_raw(I386_IPC, SHMGET, 0x5ce1_0001, 0) {
            Some(value) if value >= 0 || value == -libc::ENOENT => Open(format!("reached: {value}")),
            Some(value) => Held(name(-value)),
            None => NotApplicable("not an x86-64 program".into()),
        }
    }),
    p1("abi.i386_mount", "i386 not filtered", "umount through int 0x80", |_| {
        // An unknown flag: EINVAL where the call is reached, and nothing is ever unmounted.
        match i386_raw(I386_UMOUNT2, 0, 0x4000_0000, 0) {
            Some(value) if value == -libc::EINVAL => Open("reached: EINVAL".into()),
            Some(value) if value >= 0 => Open("it worked".into()),
            Some(value) => Held(name(-value)),
            None => NotApplicable("not an x86-64 program".into()),
        }
    }),
];

const X32: libc::c_long = 0x4000_0000;
const I386_GETPID: u32 = 20;
const I386_PTRACE: u32 = 26;
const I386_UMOUNT2: u32 = 52;
const I386_SOCKETCALL: u32 = 102;
const I386_IPC: u32 = 117;
const I386_CLONE: u32 = 120;
const I386_PERSONALITY: u32 = 136;
const I386_KEYCTL: u32 = 288;
const I386_UNSHARE: u32 = 310;
const I386_SOCKET: u32 = 359;

fn i386(number: u32, first: u32, second: u32, third: u32) -> Verdict {
    match i386_raw(number, first, second, third) {
        Some(value) if value >= 0 => Open(format!("it worked: {value}")),
        Some(value) => Held(name(-value)),
        None => NotApplicable("not an x86-64 program".into()),
    }
}

#[cfg(target_arch = "x86_64")]
fn i386_raw(number: u32, first: u32, second: u32, third: u32) -> Option<i32> {
    let value: u64;
    // SAFETY: the kernel preserves everything but eax and, in old ones, r8 to r11; rbx is saved here because the
    // compiler keeps it for itself. A kernel without the i386 ABI raises SIGSEGV, which ends this check alone.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, {first:e}",
            "int 0x80",
            "pop rbx",
            first = in(reg) first,
            inlateout("rax") u64::from(number) => value,
            in("rcx") u64::from(second),
            in("rdx") u64::from(third),
            in("rsi") 0u64,
            in("rdi") 0u64,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    Some(value as u32 as i32)
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_raw(_: u32, _: u32, _: u32, _: u32) -> Option<i32> {
    None
}

/// Words at an address that a 32-bit register can hold.
fn low_memory(words: &[u32]) -> Option<u32> {
    #[cfg(target_arch = "x86_64")]
    let low = libc::MAP_32BIT;
    #[cfg(not(target_arch = "x86_64"))]
    let low = 0;
    // SAFETY: a fresh private page; it is left to the end of the process.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | low,
            -1,
            0,
        )
    };
    let address = u32::try_from(page as usize).ok()?;
    // SAFETY: the page is writable and larger than `words`.
    unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), page.cast::<u32>(), words.len()) };
    Some(address)
}
