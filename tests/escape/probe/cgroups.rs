//! Control groups: whoever may write there leaves every limit, or runs a program on the host.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::sys::{c, call, name, nested_root};
use std::fs;
use std::path::{Path, PathBuf};

pub const CHECKS: &[Check] = &[
    p1("cgroup.not_writable", "CVE-2022-0492, CVE-2023-25809", "makes a group, or moves itself", |_| {
        let groups = groups();
        for group in &groups {
            let own = group.join("sandcell-escape-probe");
            if fs::create_dir(&own).is_ok() {
                let _ = fs::remove_dir(&own);
                return Open(format!("made {}", own.display()));
            }
            for file in ["cgroup.procs", "tasks"] {
                if fs::OpenOptions::new().write(true).open(group.join(file)).is_ok() {
                    return Open(format!("{} can be written", group.join(file).display()));
                }
            }
        }
        Held(format!("{} groups in sight", groups.len()))
    }),
    p1("cgroup.release_agent", "CVE-2022-0492", "writes a release_agent", |_| each("release_agent")),
    p1("cgroup.limits", "limits lifted", "writes a limit of its own group", |_| {
        for file in ["memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cgroup.freeze", "cgroup.kill"] {
            if let open @ Open(_) = each(file) {
                return open;
            }
        }
        Held("none".into())
    }),
    p1("cgroup.mount_v2", "CVE-2022-0492", "mounts the cgroup2 file system", |f| mount(f, "cgroup2", "")),
    p1("cgroup.mount_v1", "CVE-2022-0492", "mounts a cgroup v1 hierarchy", |f| mount(f, "cgroup", "memory")),
    p1("cgroup.mount_nested", "CVE-2022-0492", "the same as root of a nested user namespace", |f| {
        match nested_root(libc::CLONE_NEWCGROUP) {
            Ok(()) => match mount(f, "cgroup2", "") {
                Held(first) => match mount(f, "cgroup", "memory") {
                    Held(_) => Held(first),
                    other => other,
                },
                other => other,
            },
            Err(e) => Held(format!("no namespace: {}", name(e))),
        }
    }),
    p2("cgroup.path", "paths of the host", "the path of its group on the host", |_| {
        match fs::read_to_string("/proc/self/cgroup") {
            Err(e) => NotApplicable(e.to_string()),
            Ok(text) => match text.lines().find(|line| !line.ends_with(":/")) {
                Some(line) => Open(line.into()),
                None => Held("/ in every hierarchy".into()),
            },
        }
    }),
];

/// The groups that can be seen, two levels deep.
fn groups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |directory: &Path| {
        if directory.join("cgroup.procs").exists() {
            found.push(directory.to_path_buf());
        }
    };
    let top = Path::new("/sys/fs/cgroup");
    add(top);
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        add(&entry.path());
        for below in fs::read_dir(entry.path()).into_iter().flatten().flatten().take(64) {
            add(&below.path());
        }
    }
    found
}

fn each(file: &str) -> Verdict {
    let mut seen = 0;
    for path in groups().iter().map(|group| group.join(file)).filter(|path| path.exists()) {
        seen += 1;
        if fs::OpenOptions::new().write(true).open(&path).is_ok() {
            return Open(format!("{} can be written", path.display()));
        }
    }
    Held(format!("{seen} such files in sight"))
}

fn mount(facts: &Facts, kind: &str, options: &str) -> Verdict {
    let Some(rw) = facts.get("rw") else { return not_planted("writable directory") };
    let (kind, target, options) = (c(kind), c(rw), c(options));
    let flags = 0;
    crate::mounts::tried(
        rw,
        call!(libc::SYS_mount, kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr()),
    )
}
