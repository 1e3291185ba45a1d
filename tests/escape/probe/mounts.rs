//! Mounts: read-only stays read-only, flags stay, what covers something cannot be lifted, nothing leads back.

use crate::check::{Check, Facts, Held, NotApplicable, Open, Verdict, not_planted, p1, p2};
use crate::matrix;
use crate::sys::{Answer, Mount, c, call, close, denied, denied_io, mounts, name, nested_root, open};
use std::fs;
use std::process::Command;

pub const CHECKS: &[Check] = &[
    p1("fs.ro_bind", "read-only lost at remount", "creates a file in a read-only mount", |f| create(f, "ro")),
    p1("fs.ro_bind_submount", "nsjail, hakoniwa, runc ro against rro", "the same in a mount below it", |f| {
        create(f, "ro_sub")
    }),
    p1("fs.ro_bind_flagged", "hakoniwa 1.8: read-only lost", "the same where the source is nosuid,nodev,noexec", |f| {
        create(f, "flagged")
    }),
    p1("fs.ro_flag", "Landlock hiding a writable mount", "a read-only mount without the flag", |f| {
        flags(f, "ro", libc::ST_RDONLY)
    }),
    p1("fs.ro_flag_submount", "nsjail, hakoniwa, runc ro against rro", "the same in a mount below it", |f| {
        flags(f, "ro_sub", libc::ST_RDONLY)
    }),
    p1("fs.ro_flag_flagged", "hakoniwa 1.8", "the same where the source is nosuid,nodev,noexec", |f| {
        flags(f, "flagged", libc::ST_RDONLY)
    }),
    p1("fs.ro_append", "read-only lost", "appends to a file that anyone may write", |f| {
        let Some(ro) = f.get("ro") else { return not_planted("read-only mount") };
        denied_io(fs::OpenOptions::new().append(true).open(format!("{ro}/open-to-all")))
    }),
    p1("fs.ro_metadata", "read-only lost", "changes the times of a file in a read-only mount", |f| {
        let Some(ro) = f.get("ro") else { return not_planted("read-only mount") };
        let path = c(&format!("{ro}/open-to-all"));
        denied(call!(libc::SYS_utimensat, libc::AT_FDCWD, path.as_ptr(), 0, 0))
    }),
    p1("fs.ro_fd_reopen", "CVE-2024-21626 class", "opens a read-only file again for writing by /proc/self/fd", |f| {
        let Some(ro) = f.get("ro") else { return not_planted("read-only mount") };
        match open(&format!("{ro}/open-to-all"), libc::O_PATH) {
            Ok(fd) => {
                let again = open(&format!("/proc/self/fd/{fd}"), libc::O_WRONLY);
                close(fd);
                denied(again)
            }
            Err(e) => NotApplicable(name(e)),
        }
    }),
    p1("fs.bind_keeps_flags", "CVE-2025-38498, moby", "a bind that lost nosuid,nodev,noexec", |f| {
        flags(f, "flagged", libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC)
    }),
    p1("fs.bind_keeps_flags_rw", "CVE-2025-38498", "a writable bind that lost nosuid,nodev,noexec", |f| {
        flags(f, "flagged_rw", libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC)
    }),
    p1("fs.noexec", "noexec lost", "runs a program from a noexec source", |f| {
        let Some(flagged) = f.get("flagged") else { return not_planted("noexec mount") };
        match Command::new(format!("{flagged}/escape-probe")).arg("--ids").output() {
            Ok(output) if !output.stdout.is_empty() => Open("it ran".into()),
            Ok(_) => Held("it did not run".into()),
            Err(e) => Held(e.to_string()),
        }
    }),
    p1("fs.remount_rw", "trap 11, hakoniwa 1.8", "remounts a read-only mount writable", |f| remount(f, "ro", classic)),
    p1("fs.remount_rw_submount", "trap 11", "remounts a read-only mount below it writable", |f| {
        remount(f, "ro_sub", classic)
    }),
    p1("fs.remount_rw_setattr", "CVE-2021-41133", "the same by mount_setattr", |f| remount(f, "ro", setattr)),
    p1(
        "fs.remount_rw_nested",
        "CVE-2025-38498",
        "the same as root of a nested user namespace",
        |f| match nested_root(0) {
            Ok(()) => remount(f, "ro", classic),
            Err(e) => Held(format!("no namespace: {}", name(e))),
        },
    ),
    p1("fs.remount_flags", "CVE-2025-38498", "takes nosuid,nodev,noexec off", |f| remount(f, "flagged_rw", classic)),
    p1(
        "fs.matrix_flags",
        "CVE-2025-38498, hakoniwa 1.8",
        "sources of 32 sets of flags, bound read-only and writable: one is lost",
        matrix::kept,
    ),
    p1(
        "fs.matrix_remount",
        "CVE-2025-38498, trap 11",
        "any way of remounting makes one of these 64 less strict",
        matrix::remounted,
    ),
    p1("fs.locked_mounts", "CVE-2014-5206, CVE-2014-5207", "lifts a mount to see below it", |f| unmount(f, "ro_sub")),
    p1("fs.unmount_proc", "masks lifted", "unmounts /proc", |f| {
        if f.control() {
            // In the caller's own mount table, a mount of the caller stands for it.
            return unmount(f, "flagged");
        }
        denied(call!(libc::SYS_umount2, c("/proc").as_ptr(), libc::MNT_DETACH))
    }),
    p1("fs.proc_reveal", "CVE-2025-31133 class, trap 16", "mounts a new proc without masks", |f| fresh(f, "proc")),
    p1("fs.proc_reveal_nested", "trap 16", "the same in nested namespaces", |f| {
        match nested_root(libc::CLONE_NEWPID) {
            // The first process of the new PID namespace must be there for the mount.
            Ok(()) => match crate::sys::in_child(|| i32::from(!matches!(fresh(f, "proc"), Open(_)))) {
                Some(0) => Open("it worked".into()),
                _ => Held("the namespace came, the mount did not".into()),
            },
            Err(e) => Held(format!("no namespace: {}", name(e))),
        }
    }),
    p1("fs.sysfs_fresh", "masks lifted", "mounts a new sysfs", |f| fresh(f, "sysfs")),
    p2("fs.devpts_fresh", "CVE-2025-52565 class", "mounts a new devpts", |f| fresh(f, "devpts")),
    p2("fs.overlay_fresh", "CVE-2023-0386", "mounts an overlay", |f| {
        let (Some(ro), Some(rw)) = (f.get("ro"), f.get("rw")) else { return not_planted("directories") };
        let (kind, target) = (c("overlay"), c(rw));
        let options = c(&format!("lowerdir={ro}:{rw}"));
        tried(rw, call!(libc::SYS_mount, kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr()))
    }),
    p1("fs.move_mount", "masks moved away", "moves a mount to another place", |f| {
        let (Some(flagged), Some(rw)) = (f.get("flagged"), f.get("rw")) else { return not_planted("mounts") };
        let (from, to) = (c(flagged), c(rw));
        if f.control() {
            // Below a shared mount nothing can be moved, sandbox or not.
            own_mount_table();
        }
        denied(call!(libc::SYS_mount, from.as_ptr(), to.as_ptr(), 0, libc::MS_MOVE, 0))
    }),
    p1("fs.make_shared", "CVE-2015-1335 class", "makes mounts shared again", |_| {
        let root = c("/");
        denied(call!(libc::SYS_mount, 0, root.as_ptr(), 0, libc::MS_SHARED | libc::MS_REC, 0))
    }),
    p1("fs.chroot_climb", "chroot instead of pivot_root", "climbs above the root by a second chroot", chroot_climb),
    p1("fs.no_shared_mounts", "mounts propagated to the host", "a shared mount", |_| {
        report(mounts().iter().filter(|m| m.propagation.contains("shared:")))
    }),
    p2("fs.no_slave_mounts", "mounts of the host appear inside", "a mount that receives the host's", |_| {
        report(mounts().iter().filter(|m| m.propagation.contains("master:") || m.propagation.contains("shared:")))
    }),
    p1("fs.nosuid_all", "CVE-2014-5207", "a mount that honours set-id programs", |_| {
        report(mounts().iter().filter(|m| !has(m, "nosuid")))
    }),
    p1("fs.nodev_all", "CVE-2014-5207", "a mount that honours device nodes", |_| {
        report(mounts().iter().filter(|m| !has(m, "nodev") && m.kind != "devpts" && !is_device(&m.point)))
    }),
    p1("fs.old_root_gone", "pivot_root without the unmount", "the caller's files below any mount", |f| {
        let canaries = f.list("canaries");
        if canaries.is_empty() {
            return not_planted("canary file");
        }
        for mount in mounts() {
            if let Some(found) = canaries.iter().find(|path| fs::metadata(format!("{}{path}", mount.point)).is_ok()) {
                return Open(format!("{found} below {}", mount.point));
            }
        }
        Held(format!("below none of {} mounts", mounts().len()))
    }),
    p1("fs.root_not_host", "no root of its own", "the root directory is the caller's", |f| {
        use std::os::unix::fs::MetadataExt;
        let Some(host) = f.get("root_id") else { return not_planted("identity of the root") };
        match fs::metadata("/") {
            Ok(meta) if format!("{}:{}", meta.dev(), meta.ino()) == host => Open(host.into()),
            Ok(meta) => Held(format!("{}:{} is not {host}", meta.dev(), meta.ino())),
            Err(e) => NotApplicable(e.to_string()),
        }
    }),
    p1(
        "fs.system_write",
        "system directories of the host writable",
        "creates a file in the host's /usr or /etc",
        |f| {
            use std::os::unix::fs::MetadataExt;
            let hosts = f.list("system_ids");
            for directory in ["/usr", "/etc", "/usr/bin", "/usr/lib"] {
                // A directory of the sandbox's own, as an overlay makes it, is no harm to the host.
                let id = fs::metadata(directory).map(|m| format!("{}.{}", m.dev(), m.ino())).unwrap_or_default();
                if !hosts.contains(&id.as_str()) {
                    continue;
                }
                let path = format!("{directory}/sandcell-escape-probe");
                if fs::write(&path, "").is_ok() {
                    let _ = fs::remove_file(&path);
                    return Open(directory.into());
                }
            }
            Held("none of them".into())
        },
    ),
];

fn has(mount: &Mount, flag: &str) -> bool {
    mount.options.split(',').any(|option| option == flag)
}

fn is_device(point: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(point).is_ok_and(|m| m.file_type().is_char_device())
}

fn report<'a>(found: impl Iterator<Item = &'a Mount>) -> Verdict {
    let points: Vec<&str> = found.map(|m| m.point.as_str()).collect();
    match points.len() {
        0 if mounts().is_empty() => NotApplicable("/proc/self/mountinfo is not readable".into()),
        0 => Held("none".into()),
        count => Open(format!("{count}: {}", points[..count.min(4)].join(" "))),
    }
}

fn create(facts: &Facts, which: &str) -> Verdict {
    let Some(directory) = facts.get(which) else { return not_planted(&format!("mount {which}")) };
    let path = format!("{directory}/written");
    let result = fs::write(&path, "");
    let _ = fs::remove_file(&path);
    denied_io(result)
}

fn flags(facts: &Facts, which: &str, wanted: u64) -> Verdict {
    let Some(directory) = facts.get(which) else { return not_planted(&format!("mount {which}")) };
    let path = c(directory);
    // SAFETY: an all-zero `statvfs` is valid, both pointers are live.
    let about = unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut about) != 0 {
            return NotApplicable(format!("{directory}: {}", name(crate::sys::errno())));
        }
        about
    };
    if about.f_flag & wanted == wanted {
        Held(format!("flags {:#x}", about.f_flag))
    } else {
        Open(format!("flags {:#x} lack {:#x}", about.f_flag, wanted & !about.f_flag))
    }
}

/// For controls: what they change must not reach the caller's mounts, which are shared.
pub fn own_mount_table() {
    let _ = call!(libc::SYS_unshare, libc::CLONE_NEWNS);
    let _ = call!(libc::SYS_mount, 0, c("/").as_ptr(), 0, libc::MS_PRIVATE | libc::MS_REC, 0);
}

/// Whether the mount that holds the file is read-only.
pub fn read_only(path: &str) -> bool {
    let path = c(path);
    // SAFETY: an all-zero `statvfs` is valid, both pointers are live.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        libc::statvfs(path.as_ptr(), &raw mut about) == 0 && about.f_flag & libc::ST_RDONLY != 0
    }
}

fn classic(path: &str) -> Answer {
    let path = c(path);
    call!(libc::SYS_mount, 0, path.as_ptr(), 0, libc::MS_REMOUNT | libc::MS_BIND, 0)
}

fn setattr(path: &str) -> Answer {
    const MOUNT_SETATTR: i64 = 442;
    const RDONLY: u64 = 1;
    let (path, attributes) = (c(path), [0, RDONLY, 0, 0]);
    call!(MOUNT_SETATTR, libc::AT_FDCWD, path.as_ptr(), 0, attributes.as_ptr(), 32)
}

fn remount(facts: &Facts, which: &str, how: fn(&str) -> Answer) -> Verdict {
    match facts.get(which) {
        Some(path) => denied(how(path)),
        None => not_planted(&format!("mount {which}")),
    }
}

fn unmount(facts: &Facts, which: &str) -> Verdict {
    let Some(path) = facts.get(which) else { return not_planted(&format!("mount {which}")) };
    let path = c(path);
    if facts.control() {
        // The tree is still needed by the checks that follow.
        own_mount_table();
    }
    denied(call!(libc::SYS_umount2, path.as_ptr(), libc::MNT_DETACH))
}

fn fresh(facts: &Facts, kind: &str) -> Verdict {
    let Some(rw) = facts.get("rw") else { return not_planted("writable directory") };
    let (kind, target) = (c(kind), c(rw));
    tried(rw, call!(libc::SYS_mount, kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, 0))
}

/// Undoes what worked: the directory is needed by later checks.
pub fn tried(target: &str, answer: Answer) -> Verdict {
    if answer.is_ok() {
        let _ = call!(libc::SYS_umount2, c(target).as_ptr(), libc::MNT_DETACH);
    }
    denied(answer)
}

fn chroot_climb(facts: &Facts) -> Verdict {
    let (Some(rw), Some(canary)) = (facts.get("rw"), facts.list("canaries").first().copied()) else {
        return not_planted("canary file");
    };
    let below = format!("{rw}/climb");
    let _ = fs::create_dir(&below);
    // The classic: a working directory outside the new root is bounded by nothing.
    let first = call!(libc::SYS_chroot, c(rw).as_ptr()).and_then(|_| {
        let above = open("/", libc::O_RDONLY | libc::O_DIRECTORY)?;
        call!(libc::SYS_chroot, c("/climb").as_ptr())?;
        call!(libc::SYS_fchdir, above)?;
        for _ in 0..32 {
            call!(libc::SYS_chdir, c("..").as_ptr())?;
        }
        call!(libc::SYS_chroot, c(".").as_ptr())
    });
    match first {
        Err(e) => Held(name(e)),
        Ok(_) if fs::metadata(canary).is_ok() => Open(format!("{canary} is in sight")),
        Ok(_) => Held("the climb ends at the own root".into()),
    }
}
