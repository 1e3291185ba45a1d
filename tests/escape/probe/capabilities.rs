//! No capability in any set, and nothing that needs one works.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{c, call, close, denied, denied_io, name, open, status};
use std::fs;
use std::os::unix::fs::chown;

pub const CHECKS: &[Check] = &[
    p1("cap.eff", "CVE-2022-0492", "the effective set is not empty", |_| empty("CapEff")),
    p1("cap.prm", "CVE-2022-0492", "the permitted set is not empty", |_| empty("CapPrm")),
    p1("cap.inh", "CVE-2022-27650, CVE-2022-29162, CVE-2025-27612", "the inheritable set is not empty", |_| {
        empty("CapInh")
    }),
    p1("cap.amb", "CVE-2022-27650 class", "the ambient set is not empty", |_| empty("CapAmb")),
    p1("cap.bnd", "CVE-2020-15257 class", "the bounding set is not empty", |_| empty("CapBnd")),
    p1("cap.mount", "trap 11: flags lifted by root inside", "mounts a tmpfs", |f| {
        let Some(rw) = f.get("rw") else { return not_planted("writable directory") };
        crate::mounts::tried(rw, call!(libc::SYS_mount, c("none").as_ptr(), c(rw).as_ptr(), c("tmpfs").as_ptr(), 0, 0))
    }),
    p1("cap.chroot", "chroot escape", "chroot", |_| denied(call!(libc::SYS_chroot, c("/").as_ptr()))),
    p1("cap.mknod", "device nodes made inside", "mknod of a null device", mknod),
    p1("cap.sethostname", "UTS changed", "sethostname", |_| denied(set_name(libc::SYS_sethostname))),
    p1("cap.setdomainname", "UTS changed", "setdomainname", |_| denied(set_name(libc::SYS_setdomainname))),
    p1("cap.rawsock", "CVE-2020-14386", "a raw IP socket", |_| {
        denied(call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))
    }),
    p1("cap.net_admin", "CVE-2022-25636 class", "takes the loopback device down", net_admin),
    p1("cap.chown", "files given to other ids", "chown to another id", |f| {
        let Some(rw) = f.get("rw") else { return not_planted("writable directory") };
        let path = format!("{rw}/chown");
        let _ = fs::write(&path, "");
        let result = chown(&path, Some(1), None);
        let _ = fs::remove_file(&path);
        denied_io(result)
    }),
    p1("cap.dac_override", "files of others read", "reads a file of mode 000", |f| {
        let Some(path) = f.get("mode_000") else { return not_planted("file of mode 000") };
        denied_io(fs::read(path))
    }),
    p1("cap.sys_time", "host clock set", "settimeofday without values", |_| {
        denied(call!(libc::SYS_settimeofday, 0, 0))
    }),
    p1("cap.sys_rawio", "port I/O", "ioperm", |_| ports(IOPERM, [0x80, 1, 1])),
    p1("cap.sys_rawio_iopl", "port I/O", "iopl", |_| ports(IOPL, [3, 0, 0])),
    p2("cap.linux_immutable", "files that the caller cannot delete", "makes a file immutable", immutable),
    p2("cap.bset_regain", "CVE-2022-29162", "raises an ambient capability", |_| {
        const RAISE: i32 = 2;
        denied(call!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, RAISE, 13, 0, 0))
    }),
    p1("cap.capset", "CVE-2000-0506 class", "capset to the full set", capset),
];

fn empty(set: &str) -> Verdict {
    match status(set) {
        None => NotApplicable("/proc/self/status is not readable".into()),
        Some(bits) if bits.chars().all(|digit| digit == '0') => Held("empty".into()),
        Some(bits) => Open(bits),
    }
}

/// Sets the name that is there already: nothing changes where it works.
fn set_name(number: i64) -> Result<i64, i32> {
    let file = if number == libc::SYS_sethostname { "hostname" } else { "domainname" };
    let text = fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
    let name = text.trim();
    call!(number, c(name).as_ptr(), name.len())
}

fn mknod(facts: &Facts) -> Verdict {
    let Some(rw) = facts.get("rw") else { return not_planted("writable directory") };
    let path = c(&format!("{rw}/null"));
    let answer = call!(libc::SYS_mknodat, libc::AT_FDCWD, path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3));
    if answer.is_ok() {
        let _ = call!(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0);
    }
    denied(answer)
}

fn net_admin(_: &Facts) -> Verdict {
    let socket = match call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM, 0) {
        Ok(fd) => fd,
        Err(e) => return Held(format!("no socket: {}", name(e))),
    };
    // SAFETY: an all-zero `ifreq` is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    let read = call!(libc::SYS_ioctl, socket, libc::SIOCGIFFLAGS, &raw mut request);
    // The flags that were read are written back: what is asked for is the right, not the change.
    let written = call!(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw mut request);
    close(socket);
    denied(read.and(written))
}

fn immutable(facts: &Facts) -> Verdict {
    const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
    static IMMUTABLE: i32 = 0x10;
    static NONE: i32 = 0;
    let Some(rw) = facts.get("rw") else { return not_planted("writable directory") };
    let path = format!("{rw}/immutable");
    let _ = fs::write(&path, "");
    let verdict = match open(&path, libc::O_RDONLY) {
        Err(e) => Held(name(e)),
        Ok(fd) => {
            let answer = call!(libc::SYS_ioctl, fd, FS_IOC_SETFLAGS, &raw const IMMUTABLE);
            let _ = call!(libc::SYS_ioctl, fd, FS_IOC_SETFLAGS, &raw const NONE);
            denied(answer)
        }
    };
    let _ = fs::remove_file(&path);
    verdict
}

fn capset(_: &Facts) -> Verdict {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let full = [!0u32, !0, 0, 0x1ff, 0x1ff, 0];
    let answer = call!(libc::SYS_capset, header.as_ptr(), full.as_ptr());
    if answer.is_ok() {
        return Open("it worked".into());
    }
    // Root outside has less than every bit there is: what it holds already can be set again.
    let held = u64::from_str_radix(&status("CapPrm").unwrap_or_default(), 16).unwrap_or(0);
    if held == 0 {
        return Held(name(answer.unwrap_err()));
    }
    Open(format!("{held:x} are held already"))
}

#[cfg(target_arch = "x86_64")]
const IOPERM: Option<i64> = Some(libc::SYS_ioperm);
#[cfg(target_arch = "x86_64")]
const IOPL: Option<i64> = Some(libc::SYS_iopl);
#[cfg(not(target_arch = "x86_64"))]
const IOPERM: Option<i64> = None;
#[cfg(not(target_arch = "x86_64"))]
const IOPL: Option<i64> = None;

fn ports(call: Option<i64>, [first, second, third]: [i32; 3]) -> Verdict {
    match call {
        Some(number) => denied(call!(number, first, second, third)),
        None => NotApplicable("this architecture has no ports".into()),
    }
}
