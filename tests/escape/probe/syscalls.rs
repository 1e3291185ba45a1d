//! System calls that a program without capabilities does not need and that have been ways out before.
//!
//! Where success would need rights, the arguments are useless on purpose: `sys::unreached` only takes a refusal
//! for an answer, so the kernel's own check of rights counts, and a complaint about the arguments does not.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{Answer, c, call, close, denied, name, open, status_of, unreached};
use std::fs;

// Numbers that are the same on every architecture, from after the unification of the tables.
const OPEN_TREE: i64 = 428;
const MOVE_MOUNT: i64 = 429;
const FSOPEN: i64 = 430;
const FSCONFIG: i64 = 431;
const FSMOUNT: i64 = 432;
const FSPICK: i64 = 433;
const PIDFD_OPEN: i64 = 434;
const PIDFD_GETFD: i64 = 438;
const PROCESS_MADVISE: i64 = 440;
const MOUNT_SETATTR: i64 = 442;
const QUOTACTL_FD: i64 = 443;
const PROCESS_MRELEASE: i64 = 448;
const OPEN_TREE_ATTR: i64 = 467;

const BAD_FD: i64 = -1;
const BAD_POINTER: usize = 1;

pub const CHECKS: &[Check] = &[
    p1("sec.filter", "filter not applied to all threads", "a thread without a system call filter", filter),
    p1("sec.strict_mode_off", "filters taken off", "leaves seccomp filter mode", |_| {
        let before = status_of("self", "Seccomp");
        let _ = call!(libc::SYS_prctl, libc::PR_SET_SECCOMP, 0, 0, 0, 0);
        match status_of("self", "Seccomp") {
            Some(mode) if mode == "2" => Held("mode stays 2".into()),
            after => Open(format!("{before:?} then {after:?}")),
        }
    }),
    // The mount API of 2019.
    p1("sys.open_tree", "CVE-2021-41133", "open_tree with a copy of the root", |_| {
        denied(call!(OPEN_TREE, libc::AT_FDCWD, c("/").as_ptr(), 1))
    }),
    p1("sys.open_tree_attr", "CVE-2021-41133 class", "open_tree_attr with a copy of the root", |_| {
        let attributes = [0u64; 4];
        denied(call!(OPEN_TREE_ATTR, libc::AT_FDCWD, c("/").as_ptr(), 1, attributes.as_ptr(), 32))
    }),
    p1("sys.move_mount", "CVE-2021-41133", "move_mount", |_| {
        unreached(call!(MOVE_MOUNT, BAD_FD, c("").as_ptr(), BAD_FD, c("").as_ptr(), 4 | 0x40))
    }),
    p1("sys.fsopen", "CVE-2022-0185", "fsopen of a tmpfs", |_| denied(call!(FSOPEN, c("tmpfs").as_ptr(), 1))),
    p1("sys.fsconfig", "CVE-2022-0185", "fsconfig", |_| unreached(call!(FSCONFIG, BAD_FD, 0, 0, 0, 0))),
    p1("sys.fsmount", "CVE-2021-41133", "fsmount", |_| unreached(call!(FSMOUNT, BAD_FD, 0, 0))),
    p1("sys.fspick", "CVE-2021-41133", "fspick of the root", |_| {
        denied(call!(FSPICK, libc::AT_FDCWD, c("/").as_ptr(), 1))
    }),
    p1("sys.mount_setattr", "CVE-2021-41133", "mount_setattr that changes nothing", |f| {
        let attributes = [0u64; 4];
        let path = c(f.get("rw").unwrap_or("/"));
        denied(call!(MOUNT_SETATTR, libc::AT_FDCWD, path.as_ptr(), 0, attributes.as_ptr(), 32))
    }),
    p1("sys.pivot_root", "root changed", "pivot_root", |_| {
        unreached(call!(libc::SYS_pivot_root, c("/nonexistent").as_ptr(), c("/nonexistent").as_ptr()))
    }),
    // io_uring does its work outside the system call filter.
    p1("sys.io_uring_setup", "CVE-2022-29582, CVE-2023-2598", "io_uring_setup", |_| {
        let mut parameters = [0u32; 30];
        unreached(call!(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()))
    }),
    p1("sys.io_uring_enter", "CVE-2022-29582", "io_uring_enter", |_| {
        unreached(call!(libc::SYS_io_uring_enter, BAD_FD, 1, 0, 0, 0, 0))
    }),
    p1("sys.io_uring_register", "CVE-2021-41073", "io_uring_register", |_| {
        unreached(call!(libc::SYS_io_uring_register, BAD_FD, 0, 0, 0))
    }),
    // Kernel code that runs what it is given, or looks into others.
    p1("sys.bpf_map", "CVE-2021-3490", "bpf: a map", |_| bpf(0)),
    p1("sys.bpf_program", "CVE-2020-8835, CVE-2021-31440", "bpf: a program", |_| bpf(5)),
    p1("sys.perf_event_open", "CVE-2013-2094", "perf_event_open of a software counter", perf),
    p1("sys.userfaultfd", "races in the kernel won at leisure", "userfaultfd, user mode only", |_| {
        unreached(call!(libc::SYS_userfaultfd, 1))
    }),
    p1("sys.fanotify_init", "file systems watched", "fanotify_init as anyone may", |_| {
        const REPORT_FID: i32 = 0x200;
        unreached(call!(libc::SYS_fanotify_init, REPORT_FID, 0))
    }),
    p1("sys.kcmp", "kernel addresses compared", "kcmp of itself", |_| {
        let own = std::process::id();
        unreached(call!(libc::SYS_kcmp, own, own, 0, 0, 0))
    }),
    p1("sys.ptrace_traceme", "CVE-2019-13272", "ptrace(TRACEME)", |_| unreached(call!(libc::SYS_ptrace, 0, 0, 0, 0))),
    p1("sys.ptrace_seize", "CVE-2022-30594", "ptrace(SEIZE) of its own child", seize),
    p1("sys.process_vm_readv", "CVE-2016-9962 class", "process_vm_readv of itself", |_| {
        process_vm(libc::SYS_process_vm_readv)
    }),
    p1("sys.process_vm_writev", "CVE-2016-9962 class", "process_vm_writev of itself", |_| {
        process_vm(libc::SYS_process_vm_writev)
    }),
    p1("sys.pidfd_getfd", "descriptors stolen", "pidfd_getfd from itself", |_| {
        match call!(PIDFD_OPEN, std::process::id(), 0) {
            Ok(pidfd) => unreached(call!(PIDFD_GETFD, pidfd, 0, 0)),
            Err(_) => unreached(call!(PIDFD_GETFD, BAD_FD, 0, 0)),
        }
    }),
    p2("sys.process_madvise", "memory of others", "process_madvise", |_| {
        unreached(call!(PROCESS_MADVISE, BAD_FD, BAD_POINTER, 1, 0, 0))
    }),
    p2("sys.process_mrelease", "memory of others", "process_mrelease", |_| {
        unreached(call!(PROCESS_MRELEASE, BAD_FD, 0))
    }),
    p1("sys.personality_no_aslr", "CVE-2016-3672 class", "personality: no address randomization", |_| {
        unreached(call!(libc::SYS_personality, 0x0040_0000 | 0x0004_0000))
    }),
    p1("sys.personality_exec_all", "memory made executable", "personality: READ_IMPLIES_EXEC", |_| {
        unreached(call!(libc::SYS_personality, 0x0040_0000))
    }),
    p1("sys.modify_ldt", "CVE-2015-5157", "modify_ldt", modify_ldt),
    p1("sys.keyctl", "CVE-2016-0728", "keyctl", |_| unreached(call!(libc::SYS_keyctl, 0, -3, 0))),
    p1("sys.add_key", "CVE-2017-15299, quota of all", "add_key", |_| {
        const PROCESS_KEYRING: i32 = -2;
        let (kind, label) = (c("user"), c("escape-probe"));
        unreached(call!(libc::SYS_add_key, kind.as_ptr(), label.as_ptr(), c("x").as_ptr(), 1, PROCESS_KEYRING))
    }),
    p1("sys.request_key", "CVE-2017-2647", "request_key", |_| {
        unreached(call!(libc::SYS_request_key, c("user").as_ptr(), c("escape-probe").as_ptr(), 0, 0))
    }),
    p1("sys.mbind", "memory policies", "mbind of nothing", |_| unreached(call!(libc::SYS_mbind, 0, 0, 0, 0, 0, 0))),
    p1("sys.migrate_pages", "memory of others moved", "migrate_pages", |_| {
        unreached(call!(libc::SYS_migrate_pages, std::process::id(), 0, 0, 0))
    }),
    p1("sys.move_pages", "CVE-2010-0415", "move_pages of nothing", |_| {
        unreached(call!(libc::SYS_move_pages, 0, 0, 0, 0, 0, 0))
    }),
    p1("sys.quotactl", "disk quotas", "quotactl", |_| {
        unreached(call!(libc::SYS_quotactl, 0x0080_0001u32 << 8, 0, 0, 0))
    }),
    p1("sys.quotactl_fd", "disk quotas", "quotactl_fd", |_| unreached(call!(QUOTACTL_FD, BAD_FD, 0, 0, 0))),
    p1("sys.open_by_handle_at", "shocker (2014)", "open_by_handle_at", by_handle),
    p2("sys.name_to_handle_at", "shocker", "name_to_handle_at", |_| {
        let mut handle = [0u32; 34];
        handle[0] = 128;
        let mut mount = 0i32;
        let path = c("/");
        unreached(call!(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0
        ))
    }),
    // Calls for the machine's owner.
    p1("sys.init_module", "kernel modules", "init_module", |_| {
        unreached(call!(libc::SYS_init_module, BAD_POINTER, 1, c("").as_ptr()))
    }),
    p1("sys.finit_module", "kernel modules", "finit_module", |_| {
        unreached(call!(libc::SYS_finit_module, BAD_FD, c("").as_ptr(), 0))
    }),
    p1("sys.delete_module", "kernel modules", "delete_module of one that is not there", |_| {
        unreached(call!(libc::SYS_delete_module, c("sandcell_no_such_module").as_ptr(), 0))
    }),
    p1("sys.kexec_load", "another kernel", "kexec_load", |_| unreached(call!(libc::SYS_kexec_load, 0, 0, 0, u32::MAX))),
    p1("sys.kexec_file_load", "another kernel", "kexec_file_load", |_| {
        unreached(call!(libc::SYS_kexec_file_load, BAD_FD, BAD_FD, 0, 0, u32::MAX))
    }),
    p1("sys.reboot", "machine stopped", "reboot with a wrong magic number", |_| {
        unreached(call!(libc::SYS_reboot, 0, 0, 0, 0))
    }),
    p1("sys.swapon", "swap changed", "swapon", |_| unreached(call!(libc::SYS_swapon, BAD_POINTER, 0))),
    p1("sys.swapoff", "swap changed", "swapoff", |_| unreached(call!(libc::SYS_swapoff, BAD_POINTER))),
    p1("sys.acct", "host files written by the kernel", "acct", |_| unreached(call!(libc::SYS_acct, BAD_POINTER))),
    p1("sys.vhangup", "terminal of others", "vhangup", |_| {
        // In a session without a terminal there is nothing to hang up where the call works.
        let _ = call!(libc::SYS_setsid);
        unreached(call!(libc::SYS_vhangup))
    }),
    p1("sys.syslog", "kernel log read", "syslog: size of the buffer", |_| unreached(call!(libc::SYS_syslog, 10, 0, 0))),
    p1("sys.clock_adjtime", "host clock set", "clock_adjtime that sets a tick", adjtime),
    p2("sys.uselib", "CVE-2004-1235", "uselib", |_| legacy(134)),
    p2("sys.ustat", "obsolete code", "ustat", |_| legacy(136)),
    p2("sys.sysfs", "obsolete code", "sysfs", |_| legacy(139)),
    p2("sys.nfsservctl", "obsolete code", "nfsservctl", |_| legacy(180)),
    p2("sys.set_mempolicy", "CVE-2017-7616 class", "set_mempolicy", |_| {
        unreached(call!(libc::SYS_set_mempolicy, 0, 0, 0))
    }),
    p2("sys.seccomp_listener", "seccomp-unotify", "a filter with a listener of its own", |_| {
        // return SECCOMP_RET_ALLOW
        let program = [0x7fff_0000_0000_0006u64];
        let header: [u64; 2] = [1, program.as_ptr() as u64];
        const SET_MODE_FILTER: i32 = 1;
        const NEW_LISTENER: i32 = 8;
        unreached(call!(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER, header.as_ptr()))
    }),
];

fn filter(_: &Facts) -> Verdict {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receive.recv());
    let mut modes = Vec::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let name = task.file_name();
        modes.push(status_of(&format!("self/task/{}", name.to_string_lossy()), "Seccomp").unwrap_or_default());
    }
    drop(send);
    let _ = thread.join();
    match modes.as_slice() {
        [] => NotApplicable("/proc/self/task is not readable".into()),
        all if all.iter().all(|mode| mode == "2") => Held(format!("mode 2 in {} threads", all.len())),
        all => Open(format!("modes {all:?}")),
    }
}

fn bpf(command: i32) -> Verdict {
    // A map of one array element, or a program of no instructions.
    let attributes = [2u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    unreached(call!(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)))
}

fn perf(_: &Facts) -> Verdict {
    const SOFTWARE: u32 = 1;
    const TASK_CLOCK: u64 = 1;
    const DISABLED_EXCLUDE_KERNEL: u64 = 1 | 1 << 5 | 1 << 6;
    let mut attributes = [0u64; 16];
    attributes[0] = u64::from(SOFTWARE) | (128 << 32);
    attributes[1] = TASK_CLOCK;
    attributes[5] = DISABLED_EXCLUDE_KERNEL;
    unreached(call!(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0))
}

fn seize(_: &Facts) -> Verdict {
    const PTRACE_SEIZE: i32 = 0x4206;
    let (reader, writer) = match std::io::pipe() {
        Ok(ends) => ends,
        Err(e) => return NotApplicable(e.to_string()),
    };
    // SAFETY: one thread; the child only waits for the end of the pipe.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(writer);
        let _ = std::io::Read::read(&mut { reader }, &mut [0]);
        // SAFETY: does not return.
        unsafe { libc::_exit(0) };
    }
    let answer = call!(libc::SYS_ptrace, PTRACE_SEIZE, child, 0, 0);
    drop(writer);
    unreached(answer)
}

fn process_vm(number: i64) -> Verdict {
    let (mut from, mut to) = ([7u8; 8], [0u8; 8]);
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: from.as_mut_ptr().cast(), iov_len: 8 };
    unreached(call!(number, std::process::id(), &raw const local, 1, &raw const remote, 1, 0))
}

#[cfg(target_arch = "x86_64")]
fn modify_ldt(_: &Facts) -> Verdict {
    let mut table = [0u8; 64];
    unreached(call!(libc::SYS_modify_ldt, 0, table.as_mut_ptr(), table.len()))
}

#[cfg(not(target_arch = "x86_64"))]
fn modify_ldt(_: &Facts) -> Verdict {
    NotApplicable("not an x86-64 kernel".into())
}

/// Old x86-64 numbers; the arguments are useless everywhere.
fn legacy(number: i64) -> Verdict {
    if cfg!(not(target_arch = "x86_64")) {
        return NotApplicable("not an x86-64 kernel".into());
    }
    let answer: Answer = call!(number, if number == 139 { 3usize } else { BAD_POINTER }, BAD_POINTER, 0);
    unreached(answer)
}

fn adjtime(_: &Facts) -> Verdict {
    const ADJ_TICK: u32 = 0x4000;
    // SAFETY: an all-zero `timex` is valid.
    let mut now: libc::timex = unsafe { std::mem::zeroed() };
    if let Err(e) = call!(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, &raw mut now) {
        return Held(name(e));
    }
    // A tick far outside what the kernel takes: EINVAL where the right is there, EPERM where it is not.
    now.modes = ADJ_TICK;
    now.tick = 1;
    unreached(call!(libc::SYS_clock_adjtime, libc::CLOCK_REALTIME, &raw mut now))
}

fn by_handle(facts: &Facts) -> Verdict {
    let Some(directory) = facts.get("ro") else { return not_planted("read-only directory") };
    let anchor = match open(directory, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(fd) => fd,
        Err(e) => return NotApplicable(format!("{directory}: {}", name(e))),
    };
    // The handle of the root directory of an ext4: inode 2, generation 0, as the first such attack guessed it.
    let handle: [u32; 4] = [8, 1, 2, 0];
    let answer = call!(libc::SYS_open_by_handle_at, anchor, handle.as_ptr(), libc::O_RDONLY);
    close(anchor);
    unreached(answer)
}
