//! /proc and /sys: a view of its own, without the host's secrets and switches.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{c, call, denied, name, openable, status_of};
use std::fs;
use std::io::Read;

pub const CHECKS: &[Check] = &[
    p1("proc.own", "a /proc of the host bound in", "/proc is not of the own PID namespace", own),
    p1("proc.host_pids", "processes of the host seen", "finds the caller's other process in /proc", host_pids),
    p1(
        "proc.host_environ",
        "secrets in /proc/PID/environ",
        "reads the environment of any process for the secret",
        |f| search_processes("environ", f.get("secret")),
    ),
    p1("proc.host_cmdline", "secrets in /proc/PID/cmdline", "reads any command line for the caller's", |f| {
        search_processes("cmdline", f.get("caller_argument"))
    }),
    p1("mask.proc.kcore", "CVE-2025-31133", "/proc/kcore", |_| content("/proc/kcore")),
    p1("mask.proc.keys", "keys of the host listed", "/proc/keys", |_| content("/proc/keys")),
    p1("mask.proc.locks", "locks of the host and of other sandboxes", "/proc/locks", |_| content("/proc/locks")),
    p2("mask.proc.key_users", "keys of the host counted", "/proc/key-users", |_| content("/proc/key-users")),
    p1("mask.proc.timer_list", "addresses and processes of the host", "/proc/timer_list", |_| {
        content("/proc/timer_list")
    }),
    p1("mask.proc.sched_debug", "processes of the host", "/proc/sched_debug", |_| content("/proc/sched_debug")),
    p1("mask.proc.latency_stats", "processes of the host", "/proc/latency_stats", |_| content("/proc/latency_stats")),
    p1("mask.proc.kallsyms", "addresses of the kernel", "/proc/kallsyms", |_| addresses("/proc/kallsyms")),
    p1("mask.proc.iomem", "addresses of the kernel", "/proc/iomem", |_| addresses("/proc/iomem")),
    p1("mask.proc.vmallocinfo", "addresses of the kernel", "/proc/vmallocinfo", |_| content("/proc/vmallocinfo")),
    p1("mask.proc.slabinfo", "side channel", "/proc/slabinfo", |_| content("/proc/slabinfo")),
    p1("mask.proc.kpagecount", "rowhammer, page sharing", "/proc/kpagecount", |_| content("/proc/kpagecount")),
    p1("mask.proc.kpageflags", "rowhammer, page sharing", "/proc/kpageflags", |_| content("/proc/kpageflags")),
    p1("mask.proc.kmsg", "kernel log", "/proc/kmsg", |_| openable("/proc/kmsg", libc::O_RDONLY)),
    p1("mask.proc.acpi", "CVE-2018-10892", "/proc/acpi", |_| directory("/proc/acpi")),
    p1("mask.proc.scsi", "CVE-2017-16539", "/proc/scsi", |_| directory("/proc/scsi")),
    p2("mask.proc.asound", "hardware of the host", "/proc/asound", |_| directory("/proc/asound")),
    p2("mask.proc.interrupts", "key presses timed", "/proc/interrupts", |_| content("/proc/interrupts")),
    p1("mask.sys.firmware", "tables of the firmware", "/sys/firmware", |_| directory("/sys/firmware")),
    p1("mask.sys.powercap", "CVE-2020-8694 (PLATYPUS)", "/sys/devices/virtual/powercap", |_| {
        directory("/sys/devices/virtual/powercap")
    }),
    p1("mask.sys.debug", "kernel internals", "/sys/kernel/debug", |_| directory("/sys/kernel/debug")),
    p1("mask.sys.tracing", "kernel functions traced", "/sys/kernel/tracing", |_| directory("/sys/kernel/tracing")),
    p1("mask.sys.security", "policies of the host", "/sys/kernel/security", |_| directory("/sys/kernel/security")),
    p2("mask.sys.block", "disks of the host", "/sys/block", |_| directory("/sys/block")),
    p2("mask.sys.net", "network devices of the host", "/sys/class/net beyond lo", |_| {
        match fs::read_dir("/sys/class/net") {
            Err(e) => Held(format!("/sys/class/net: {}", name(e.raw_os_error().unwrap_or(0)))),
            Ok(entries) => match entries.flatten().find(|e| e.file_name() != "lo" && !own_kind(&e.file_name())) {
                Some(other) => Open(other.file_name().to_string_lossy().into_owned()),
                None => Held("only lo".into()),
            },
        }
    }),
    p1(
        "w.core_pattern",
        "CVE-2019-5736 class: the host runs a program",
        "writes /proc/sys/kernel/core_pattern",
        |_| writable("/proc/sys/kernel/core_pattern"),
    ),
    p1("w.modprobe", "the host runs a program", "writes /proc/sys/kernel/modprobe", |_| {
        writable("/proc/sys/kernel/modprobe")
    }),
    p1("w.sysrq_trigger", "CVE-2025-31133", "writes /proc/sysrq-trigger", |_| writable("/proc/sysrq-trigger")),
    p1("w.binfmt_misc", "the host runs a program", "writes binfmt_misc/register", |_| {
        writable("/proc/sys/fs/binfmt_misc/register")
    }),
    p1("w.drop_caches", "host slowed", "writes /proc/sys/vm/drop_caches", |_| writable("/proc/sys/vm/drop_caches")),
    p1("w.panic_on_oom", "machine stopped", "writes /proc/sys/vm/panic_on_oom", |_| {
        writable("/proc/sys/vm/panic_on_oom")
    }),
    p1("w.printk", "host log", "writes /proc/sys/kernel/printk", |_| writable("/proc/sys/kernel/printk")),
    p1("w.aslr", "host weakened", "writes /proc/sys/kernel/randomize_va_space", |_| {
        writable("/proc/sys/kernel/randomize_va_space")
    }),
    p1("w.hostname", "UTS changed", "writes /proc/sys/kernel/hostname", |_| writable("/proc/sys/kernel/hostname")),
    p1("w.ip_forward", "network changed", "writes /proc/sys/net/ipv4/ip_forward", |_| {
        writable("/proc/sys/net/ipv4/ip_forward")
    }),
    p1("w.max_user_namespaces", "limits lifted", "writes /proc/sys/user/max_user_namespaces", |_| {
        writable("/proc/sys/user/max_user_namespaces")
    }),
    p2("w.shmmax", "limits lifted", "writes /proc/sys/kernel/shmmax", |_| writable("/proc/sys/kernel/shmmax")),
    p1("w.uevent_helper", "CVE-2022-0492 class: the host runs a program", "writes /sys/kernel/uevent_helper", |_| {
        writable("/sys/kernel/uevent_helper")
    }),
    p1("w.power_state", "machine stopped", "writes /sys/power/state", |_| writable("/sys/power/state")),
    p1("sys.readonly", "switches of the host", "/sys is mounted writable", sys_writable),
    p1("proc.self_exe", "CVE-2019-5736", "opens its own program for writing", |_| {
        openable("/proc/self/exe", libc::O_WRONLY).held_unless_busy("/proc/self/exe")
    }),
];

impl Verdict {
    /// ETXTBSY is no refusal: the file is only in use right now, and the kernel says so before it looks at the mount.
    pub fn held_unless_busy(self, path: &str) -> Verdict {
        match self {
            Held(detail) if detail.ends_with("ETXTBSY") && crate::mounts::read_only(path) => {
                Held(format!("{detail}, and its mount is read-only"))
            }
            Held(detail) if detail.ends_with("ETXTBSY") => Open(detail),
            other => other,
        }
    }
}

fn own_kind(name: &std::ffi::OsStr) -> bool {
    // Tunnel devices that the kernel puts into every new network namespace.
    ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "bonding_masters"]
        .iter()
        .any(|own| name == *own)
}

fn own(facts: &Facts) -> Verdict {
    let told = fs::read_link("/proc/self").map(|l| l.to_string_lossy().into_owned());
    let pid = std::process::id().to_string();
    match told {
        Err(e) => NotApplicable(format!("/proc/self: {e}")),
        Ok(told) if told != pid => Open(format!("/proc/self is {told}, this is {pid}")),
        Ok(_)
            if fs::read_link("/proc/self/ns/pid").is_ok_and(|l| Some(&*l.to_string_lossy()) == facts.get("ns.pid")) =>
        {
            Open("it is the caller's".into())
        }
        Ok(_) => Held("it is the own one".into()),
    }
}

fn processes() -> Vec<String> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .collect()
}

fn host_pids(facts: &Facts) -> Verdict {
    let Some(victim) = facts.get("victim_name") else { return not_planted("other process") };
    let processes = processes();
    match processes.iter().find(|p| status_of(p, "Name").as_deref() == Some(victim)) {
        Some(pid) => Open(format!("it is {pid}")),
        None => Held(format!("not among {} processes", processes.len())),
    }
}

fn search_processes(file: &str, wanted: Option<&str>) -> Verdict {
    let Some(wanted) = wanted else { return not_planted(file) };
    let processes = processes();
    for pid in &processes {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        if String::from_utf8_lossy(&bytes).contains(wanted) {
            return Open(format!("in that of process {pid}"));
        }
    }
    Held(format!("in none of {} processes", processes.len()))
}

/// Held where it cannot be opened or is empty.
fn content(path: &str) -> Verdict {
    match fs::File::open(path).and_then(|mut file| file.read(&mut [0; 64])) {
        Ok(0) => Held(format!("{path} is empty")),
        Ok(_) => Open(format!("{path} has content")),
        Err(e) => Held(format!("{path}: {}", name(e.raw_os_error().unwrap_or(0)))),
    }
}

/// Held where every line begins with zeros.
fn addresses(path: &str) -> Verdict {
    let mut head = vec![0; 16384];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut head));
    let count = match read {
        Ok(count) => count,
        Err(e) => return Held(format!("{path}: {}", name(e.raw_os_error().unwrap_or(0)))),
    };
    let text = String::from_utf8_lossy(&head[..count]);
    let shown = text.lines().any(|line| {
        let first = line.trim_start().split([' ', '-']).next().unwrap_or_default();
        first.bytes().any(|digit| digit != b'0')
    });
    if shown { Open(format!("{path} shows addresses")) } else { Held(format!("{path}: only zeros")) }
}

fn directory(path: &str) -> Verdict {
    match fs::read_dir(path).map(Iterator::count) {
        Ok(0) => Held(format!("{path} is empty")),
        Ok(entries) => Open(format!("{path} has {entries} entries")),
        Err(e) => Held(format!("{path}: {}", name(e.raw_os_error().unwrap_or(0)))),
    }
}

/// Opens for writing and writes nothing.
fn writable(path: &str) -> Verdict {
    openable(path, libc::O_WRONLY)
}

fn sys_writable(facts: &Facts) -> Verdict {
    for path in ["/sys", "/sys/kernel", "/sys/fs/cgroup"] {
        // SAFETY: an all-zero `statvfs` is valid.
        let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
        let path_c = c(path);
        // SAFETY: both pointers are live.
        let known = unsafe { libc::statvfs(path_c.as_ptr(), &raw mut about) } == 0;
        if known && about.f_flag & libc::ST_RDONLY == 0 && std::path::Path::new(&format!("{path}/.")).exists() {
            let allowed = denied(call!(libc::SYS_faccessat, libc::AT_FDCWD, path_c.as_ptr(), libc::W_OK));
            if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
                return Open(format!("{path} is mounted writable ({allowed:?})"));
            }
        }
    }
    let _ = facts;
    Held("absent, empty or read-only".into())
}
