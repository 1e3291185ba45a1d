//! The registers of a process that is stopped at a system call: its number, an argument, its answer.

#[cfg(target_arch = "x86_64")]
mod ours {
    fn poke(pid: i32, register: i32, value: u64) {
        let offset = register as usize * size_of::<u64>();
        // SAFETY: a stopped tracee; the first member of struct user is the registers.
        unsafe { libc::ptrace(libc::PTRACE_POKEUSER, pid, offset, value) };
    }

    /// On the way out: what the call has answered.
    pub fn answer(pid: i32, value: i64) {
        poke(pid, libc::RAX, value.cast_unsigned());
    }

    /// On the way in: none is made.
    pub fn no_call(pid: i32) {
        poke(pid, libc::ORIG_RAX, u64::MAX);
    }

    pub fn fourth_argument(pid: i32, value: u64) {
        poke(pid, libc::R10, value);
    }
}

#[cfg(target_arch = "aarch64")]
mod ours {
    const NT_PRSTATUS: usize = 1;
    const NT_ARM_SYSTEM_CALL: usize = 0x404;

    /// A general register: x0 has the first argument and the answer.
    fn set(pid: i32, register: usize, value: u64) {
        // The registers x0 to x30, sp, pc and pstate.
        let mut all = [0u64; 34];
        let ask = |request, all: &mut [u64; 34]| {
            let mut place = libc::iovec { iov_base: all.as_mut_ptr().cast(), iov_len: size_of_val(all) };
            // SAFETY: a stopped tracee, and room for its registers.
            unsafe { libc::ptrace(request, pid, NT_PRSTATUS, &raw mut place) }
        };
        ask(libc::PTRACE_GETREGSET, &mut all);
        all[register] = value;
        ask(libc::PTRACE_SETREGSET, &mut all);
    }

    /// On the way out: what the call has answered.
    pub fn answer(pid: i32, value: i64) {
        set(pid, 0, value.cast_unsigned());
    }

    /// On the way in: none is made.
    pub fn no_call(pid: i32) {
        let mut number = -1i32;
        let mut place = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of_val(&number) };
        // SAFETY: a stopped tracee, and the number of its call.
        unsafe { libc::ptrace(libc::PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &raw mut place) };
    }

    pub fn fourth_argument(pid: i32, value: u64) {
        set(pid, 3, value);
    }
}

pub use ours::{answer, fourth_argument, no_call};
