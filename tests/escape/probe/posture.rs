//! Everything that tells a strong sandbox from a weak one, in lines that are the same for every run: the fault
//! injection compares them.

use crate::sys::{self, call};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// `host` are the caller's namespaces, as `user=4026531837,…`; `caller` is the caller's UID.
pub fn print(host: &str, caller: &str) {
    let files = identity(caller).into_iter().chain(namespaces(host)).chain(mounts()).chain(process());
    let text: String = files.chain(trials()).map(|(name, value)| format!("{name}: {value}\n")).collect();
    // In one piece: whoever counts the reader's system calls finds the same number each time.
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(3);
    }
}

/// Whose namespaces the asking process is in, as `print` wants them.
pub fn own_namespaces() -> String {
    NAMESPACES.map(|name| format!("{name}={}", inode(name))).join(",")
}

type Line = (String, String);

fn line(name: impl Into<String>, value: impl ToString) -> Line {
    (name.into(), value.to_string())
}

fn inode(name: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{name}")).map_or(0, |m| m.ino())
}

fn namespaces(host: &str) -> Vec<Line> {
    let known: Vec<&str> = host.split(',').collect();
    let whose = |name: &str| if known.contains(&format!("{name}={}", inode(name)).as_str()) { "HOST" } else { "own" };
    NAMESPACES.map(|name| line(format!("namespace {name}"), whose(name))).into()
}

fn identity(caller: &str) -> Vec<Line> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask", "SigBlk", "SigIgn", "TracerPid"];
    let mut lines: Vec<Line> = status
        .lines()
        .filter_map(|text| text.split_once(':'))
        .filter(|(name, _)| wanted.contains(name) || name.starts_with("Cap") || name.starts_with("Speculation"))
        .map(|(name, value)| line(name, value.trim()))
        .collect();
    // A random number is as good as any other; root and the caller are not.
    let word = |id: u32| match id {
        0 => "0".to_string(),
        65534 => "unmapped".to_string(),
        id if id.to_string() == caller => "the caller".to_string(),
        _ => "other".to_string(),
    };
    // SAFETY: calls without arguments or effects.
    let ids = unsafe { [libc::getuid(), libc::geteuid(), libc::getgid(), libc::getegid()] };
    lines.push(line("ids", ids.map(word).join(" ")));
    // Which host ids stand behind: a one-id map of the caller is another posture than a leased one.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outside: Vec<String> = map
        .lines()
        .filter_map(|text| Some((text.split_whitespace().nth(1)?.parse().ok()?, text.split_whitespace().nth(2)?)))
        .map(|(first, count): (u32, _)| format!("{} x{count}", word(first)))
        .collect();
    lines.push(line("uid_map", outside.join(", ")));
    lines.push(line("setgroups", fs::read_to_string("/proc/self/setgroups").unwrap_or_default().trim()));
    lines
}

fn mounts() -> Vec<Line> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_else(|e| e.to_string());
    let mut lines = vec![];
    for record in text.lines() {
        let fields: Vec<&str> = record.split(' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == "-") else { continue };
        let kind = fields[dash + 1];
        let options: Vec<&str> = fields[dash + 3]
            .split(',')
            .filter(|option| {
                ["ro", "rw", "size", "nr_inodes", "mode"].contains(&option.split('=').next().unwrap_or(""))
            })
            .collect();
        let shared = fields[6..dash].join(",");
        lines
            .push(line(format!("mount {}", fields[4]), format!("{kind} {} {} {shared}", fields[5], options.join(","))));
    }
    lines
}

fn process() -> Vec<Line> {
    let mut lines = vec![];
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|e| format!("{:?}", e.kind()));
    let link = |path: &str| fs::read_link(path).map_or_else(|e| format!("{:?}", e.kind()), |p| p.display().to_string());
    let mut descriptors: Vec<String> = fs::read_dir("/proc/self/fd")
        .map(|list| list.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    descriptors.sort();
    for number in descriptors {
        let target = link(&format!("/proc/self/fd/{number}"));
        let kind = target.split('[').next().unwrap_or_default();
        if !kind.ends_with("/fd") {
            lines.push(line(format!("descriptor {number}"), kind));
        }
    }
    let mut variables: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    variables.sort();
    lines.push(line("environment", variables.join(" ")));
    lines.push(line("cwd", link("/proc/self/cwd")));
    for limit in read("/proc/self/limits").lines().skip(1) {
        lines.push(line("limit", limit.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    // SAFETY: numbers only.
    let (sid, group, pid) = unsafe { (libc::getsid(0), libc::getpgid(0), libc::getpid()) };
    lines.push(line("session", format!("own {} group {}", sid == pid, group == pid)));
    lines.push(line("oom_score_adj", read("/proc/self/oom_score_adj").trim()));
    lines.push(line("cgroup", read("/proc/self/cgroup").lines().filter(|l| !l.ends_with(":/")).count()));
    for name in ["environ", "maps", "fd", "root", "cwd"] {
        let path = format!("/proc/1/{name}");
        let opened = fs::File::open(&path).and_then(|file| file.metadata()).map_or("closed", |_| "OPEN");
        lines.push(line(path, opened));
    }
    let count = fs::read_dir("/proc")
        .map(|list| list.flatten().filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok()).count());
    lines.push(line("processes", count.unwrap_or(0)));
    let name = read("/proc/sys/kernel/hostname");
    lines.push(line("hostname", if name.starts_with("cell-") { "random" } else { name.trim() }));
    let interfaces = read("/proc/net/dev");
    let interfaces: Vec<&str> = interfaces.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
    lines.push(line("interfaces", interfaces.join(" ")));
    lines
}

/// Calls whose answer shows a wall that no file tells of.
fn trials() -> Vec<Line> {
    const CLONE_NEWUSER: i64 = 0x1000_0000;
    let word = |answer: sys::Answer| answer.map_or_else(sys::name, |_| "works".into());
    let mut lines = vec![
        line("try unshare", word(call!(libc::SYS_unshare, CLONE_NEWUSER))),
        line("try clone3", word(call!(libc::SYS_clone3, 0, 0))),
        line("try mount", word(call!(libc::SYS_mount, 0, c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0))),
        line("try open_tree", word(call!(libc::SYS_open_tree, -100, c"/tmp".as_ptr(), 1))),
        line("try ptrace", word(call!(libc::SYS_ptrace, 0x4206, 1, 0, 0))),
        line("try vsock", word(call!(libc::SYS_socket, 40, 1, 0))),
        line("try io_uring", word(call!(libc::SYS_io_uring_setup, 1, 0))),
        line("try keyctl", word(call!(libc::SYS_keyctl, 0, -3, 0))),
        line("try bpf", word(call!(libc::SYS_bpf, 0, 0, 0))),
        line("try bind", loopback()),
    ];
    for place in ["/", "/etc", "/usr", "/dev", "/tmp", "/proc", "/var/tmp", "/run"] {
        let path = std::ffi::CString::new(format!("{place}/sandcell-posture")).unwrap_or_default();
        let made = call!(libc::SYS_mkdirat, libc::AT_FDCWD, path.as_ptr(), 0o700);
        let _ = call!(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), libc::AT_REMOVEDIR);
        lines.push(line(format!("try mkdir {place}"), word(made)));
    }
    // The kernel stacks 16 domains: how many are left tells how many there were.
    lines.push(line("landlock domains", 16 - free_domains()));
    lines
}

/// Whether the loopback interface is up.
fn loopback() -> String {
    let listener = match std::net::TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => return sys::name(error.raw_os_error().unwrap_or(0)),
    };
    let Ok(address) = listener.local_addr() else { return "no address".into() };
    match std::net::TcpStream::connect(address) {
        Ok(_) => "works".into(),
        Err(error) => sys::name(error.raw_os_error().unwrap_or(0)),
    }
}

/// Comes last: each one found is used up.
fn free_domains() -> i64 {
    let handled = [1u64 << 12, 0, 0];
    let mut count = 0;
    while count < 16 {
        let Ok(ruleset) = call!(libc::SYS_landlock_create_ruleset, handled.as_ptr(), 8, 0) else { break };
        let entered = call!(libc::SYS_landlock_restrict_self, ruleset, 0);
        let _ = call!(libc::SYS_close, ruleset);
        if entered.is_err() {
            break;
        }
        count += 1;
    }
    count
}
