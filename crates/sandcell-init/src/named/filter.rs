//! The keeper's own system call filter: seccomp(2). What it never does ends it.

use crate::rawsys::{self, call, nr};

/// All that it does once the cell is its own.
const ALLOWED: [usize; 23] = [
    nr::READ,
    nr::WRITE,
    nr::CLOSE,
    nr::WAIT_POLL,
    nr::PREAD64,
    nr::FCNTL,
    nr::FTRUNCATE,
    nr::SENDMSG,
    nr::RECVMSG,
    nr::SHUTDOWN,
    nr::GETSOCKOPT,
    nr::ACCEPT4,
    nr::SOCKETPAIR,
    nr::PIPE2,
    nr::OPENAT,
    nr::GETDENTS64,
    nr::UNLINKAT,
    nr::RENAMEAT,
    nr::CLOCK_GETTIME,
    nr::EXIT_GROUP,
    nr::PIDFD_SEND_SIGNAL,
    nr::RESTART_SYSCALL,
    nr::SCHED_YIELD,
];

const LENGTH: usize = ALLOWED.len() + 6;

/// struct sock_filter.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    when_true: u8,
    when_false: u8,
    value: u32,
}

const fn instruction(code: u16, when_true: u8, when_false: u8, value: u32) -> Instruction {
    Instruction { code, when_true, when_false, value }
}

static PROGRAM: [Instruction; LENGTH] = program();

const fn program() -> [Instruction; LENGTH] {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let mut program = [instruction(RETURN, 0, 0, KILL); LENGTH];
    program[0] = instruction(LOAD, 0, 0, 4);
    program[1] = instruction(EQUAL, 1, 0, rawsys::AUDIT_ARCH);
    program[3] = instruction(LOAD, 0, 0, 0);
    let mut at = 0;
    while at < ALLOWED.len() {
        // Behind those that are left, and the end that kills.
        program[4 + at] = instruction(EQUAL, (ALLOWED.len() - at) as u8, 0, ALLOWED[at] as u32);
        at += 1;
    }
    program[LENGTH - 1] = instruction(RETURN, 0, 0, ALLOW);
    program
}

pub fn enter() -> Result<(), i32> {
    const SET_MODE_FILTER: usize = 1;
    // struct sock_fprog: the length, then the address.
    let program = [LENGTH, &raw const PROGRAM as usize];
    // SAFETY: the layout of struct sock_fprog, of which the kernel reads two bytes and the address.
    unsafe {
        rawsys::set_no_new_privs()?;
        call!(nr::SECCOMP, SET_MODE_FILTER, 0, program.as_ptr()).map(|_| ())
    }
}
