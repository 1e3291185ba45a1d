//! No new namespaces: each one opens kernel code that is otherwise for root only.

use crate::check::{Check, Facts, Held, Open, Verdict, p1, p2};
use crate::sys::{Answer, call, denied, name, nested_root};

const CLONE_NEWTIME: i32 = 0x80;

pub const CHECKS: &[Check] = &[
    p1("userns.unshare", "CVE-2022-0185, CVE-2023-32233, CVE-2024-1086", "unshare(CLONE_NEWUSER)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWUSER))
    }),
    p1("userns.clone", "CVE-2022-0185", "clone(CLONE_NEWUSER)", |_| denied(clone(libc::CLONE_NEWUSER as u64))),
    p1("userns.clone_highbits", "CVE-2019-10063 class", "clone(CLONE_NEWUSER) with high bits set", |_| {
        // The kernel looks at the lower 32 bits of clone's flags only; a filter that compares 64 sees another number.
        denied(clone(libc::CLONE_NEWUSER as u64 | 1 << 40))
    }),
    p1("userns.clone3", "CVE-2021-41133", "clone3(CLONE_NEWUSER)", |_| denied(clone3(libc::CLONE_NEWUSER as u64))),
    p1("userns.clone3_all", "CVE-2021-41133", "clone3 with every namespace at once", |_| {
        denied(clone3(
            (libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS) as u64,
        ))
    }),
    p1("userns.unshare_mnt", "CVE-2022-0185", "unshare(CLONE_NEWNS)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWNS))
    }),
    p1("userns.unshare_net", "CVE-2022-25636", "unshare(CLONE_NEWNET)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWNET))
    }),
    p1("userns.unshare_pid", "nested PID 1", "unshare(CLONE_NEWPID)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWPID))
    }),
    p2("userns.unshare_ipc", "kernel surface", "unshare(CLONE_NEWIPC)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWIPC))
    }),
    p2("userns.unshare_uts", "kernel surface", "unshare(CLONE_NEWUTS)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWUTS))
    }),
    p2("userns.unshare_cgroup", "CVE-2022-0492", "unshare(CLONE_NEWCGROUP)", |_| {
        denied(call!(libc::SYS_unshare, libc::CLONE_NEWCGROUP))
    }),
    p2("userns.unshare_time", "kernel surface", "unshare(CLONE_NEWTIME)", |_| {
        denied(call!(libc::SYS_unshare, CLONE_NEWTIME))
    }),
    p1("userns.nested_caps", "CVE-2022-0185", "gets capabilities in a nested user namespace", nested_caps),
    p1("userns.nested_netfilter", "CVE-2022-25636, CVE-2024-1086", "opens nf_tables in a nested namespace", netfilter),
];

fn clone(flags: u64) -> Answer {
    let child = call!(libc::SYS_clone, flags | libc::SIGCHLD as u64, 0, 0, 0, 0)?;
    reap(child)
}

fn clone3(flags: u64) -> Answer {
    let mut arguments = [0u64; 8];
    arguments[0] = flags;
    arguments[4] = libc::SIGCHLD as u64;
    let child = call!(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments))?;
    reap(child)
}

fn reap(child: i64) -> Answer {
    if child == 0 {
        // SAFETY: does not return.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: the status is not asked for.
    unsafe { libc::waitpid(child as i32, std::ptr::null_mut(), 0) };
    Ok(child)
}

fn nested_caps(_: &Facts) -> Verdict {
    if let Err(e) = nested_root(0) {
        return Held(name(e));
    }
    match crate::sys::status("CapEff") {
        Some(bits) if bits.chars().any(|digit| digit != '0') => Open(format!("has {bits}")),
        other => Held(format!("the namespace came, its capabilities did not: {other:?}")),
    }
}

fn netfilter(_: &Facts) -> Verdict {
    const NETLINK_NETFILTER: i32 = 12;
    if let Err(e) = nested_root(libc::CLONE_NEWNET) {
        return Held(name(e));
    }
    denied(call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_NETFILTER))
}
