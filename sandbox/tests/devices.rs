//! Devices of the host in a sandbox's /dev.

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scratch, again_in_own_mounts, is_root, run, text, told};
use sandcell::{Builder, HostIds, Landlock, Mechanism, Mount, Root, Sandbox};

/// Whether a device can be opened for reading and for writing.
const TRY: &str = "try() { (exec 3<$1) 2>/dev/null && printf r; (exec 3>$1) 2>/dev/null && printf w; echo; }";

/// The end of a pseudo-terminal that is a device of the caller's own, and what keeps it.
fn terminal() -> (OwnedFd, PathBuf) {
    let open = nix::pty::openpty(None, None).unwrap();
    let name = nix::unistd::ttyname(&open.slave).unwrap();
    assert!(fs::metadata(&name).unwrap().file_type().is_char_device());
    (open.master, name)
}

fn refused(builder: Builder) -> sandcell::Error {
    match builder.build() {
        Ok(sandbox) => sandbox.command("true").output().unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn a_device_can_be_opened_where_it_is_shown_and_without_that_nowhere() {
    let (_kept, device) = terminal();
    let script = format!("{TRY}; try /dev/modem; try {}", device.display());
    assert_eq!(told(Sandbox::builder().device(&device, "/dev/modem"), &script), "rw");
    assert_eq!(told(Sandbox::builder(), &script), "");
    // Elsewhere than in /dev a mount has no devices.
    assert_eq!(told(Sandbox::builder().rw(&device, "/tmp/modem"), &format!("{TRY}; try /tmp/modem")), "");
    // Deeper, and in every kind of root.
    let scratch = Scratch::new();
    for root in [Sandbox::builder().layer(scratch.dir("layer")), Sandbox::builder().root(Root::Empty)] {
        let system = ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|dir| Path::new(dir).exists());
        let root = system.fold(root, |root, dir| root.ro(dir, dir));
        let root = root.device("/dev/full", "/dev/a/b/full");
        assert_eq!(told(root, &format!("{TRY}; try /dev/a/b/full")), "rw");
    }
}

#[test]
fn a_device_takes_commands_and_is_not_executed() {
    let (_kept, device) = terminal();
    let builder = || Sandbox::builder().device(&device, "/dev/modem");
    // TCGETS, which Landlock counts among the commands of a device.
    assert_eq!(told(builder(), "stty -F /dev/modem -a | grep -c '^speed'"), "1");
    let flags = told(builder(), "grep ' /dev/modem ' /proc/self/mountinfo | cut -d' ' -f6");
    assert!(flags.contains("nosuid") && flags.contains("noexec") && !flags.contains("nodev"), "{flags}");
    assert!(!run(builder(), "/dev/modem").success());
}

#[test]
fn a_read_only_device_is_not_opened_for_writing() {
    let (_kept, device) = terminal();
    let script = format!("{TRY}; try /dev/modem; try /dev/full; stty -F /dev/modem >/dev/null && echo commands");
    let read_only = || Sandbox::builder().mount(Mount::device(&device, "/dev/modem", false));
    let output = run(read_only(), &script);
    assert_eq!(text(&output.stdout), "r\nrw\ncommands");
    let line = output.report.enforced.iter().find(|line| line.item == "device").expect("the report says so");
    assert_eq!(line.by, Mechanism::Landlock);
    // Where nothing would keep programs from writing, it is refused, or said.
    for open in [read_only().landlock(Landlock::Off), read_only().cap_add(sandcell::Capability::CAP_CHOWN)] {
        let error = refused(open.clone());
        assert_eq!((error.kind(), error.subject()), ("unsupported", "device"), "{error}");
        let output = run(open.best_effort("device"), &format!("{TRY}; try /dev/modem"));
        assert_eq!(text(&output.stdout), "rw");
        let line = output.report.enforced.iter().find(|line| line.item == "device").unwrap();
        assert!(line.by == Mechanism::Nothing && line.why.is_some(), "{line:?}");
    }
    // By another name the same device would be writable.
    for other in [
        read_only().device(&device, "/dev/again"),
        Sandbox::builder().mount(Mount::device("/dev/full", "/dev/a", false)),
    ] {
        let error = refused(other);
        assert!(error.kind() == "config" && error.to_string().contains("writable, too"), "{error}");
    }
}

#[test]
fn the_devices_of_a_directory_are_shown_and_nothing_else_in_it() {
    let scratch = Scratch::new();
    let error = refused(Sandbox::builder().device(scratch.file("dir/plain", "").parent().unwrap(), "/dev/dir"));
    assert!(error.kind() == "config" && error.to_string().contains("none in it"), "{error}");
    if !is_root() {
        return;
    }
    if !again_in_own_mounts("the_devices_of_a_directory_are_shown_and_nothing_else_in_it", "mount -t tmpfs t /mnt") {
        return;
    }
    let make = "mkdir /mnt/d /mnt/d/deep; mknod -m 666 /mnt/d/one c 1 7; mknod -m 666 /mnt/d/deep/two c 1 5; \
                echo x >/mnt/d/file; ln -s one /mnt/d/link";
    assert!(Command::new("sh").args(["-c", make]).status().unwrap().success());
    let list = "cd /dev/d; find . | sort | tr '\\n' ' '; head -c1 deep/two | od -An -tx1";
    assert_eq!(told(Sandbox::builder().device("/mnt/d", "/dev/d"), list), ". ./deep ./deep/two ./one  00");
}

#[test]
fn a_device_on_a_file_system_without_devices_is_refused() {
    if !is_root() {
        return;
    }
    if !again_in_own_mounts("a_device_on_a_file_system_without_devices_is_refused", "mount -t tmpfs -o nodev t /mnt") {
        return;
    }
    assert!(Command::new("mknod").args(["-m", "666", "/mnt/node", "c", "1", "7"]).status().unwrap().success());
    let error = refused(Sandbox::builder().device("/mnt/node", "/dev/node"));
    assert!(error.kind() == "config" && error.to_string().contains("nodev"), "{error}");
}

#[test]
fn what_is_no_device_or_has_no_place_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    let missing = scratch.path().join("missing");
    for (source, dest, words) in [
        (file.as_path(), "/dev/file", "is no device"),
        (&missing, "/dev/missing", "cannot be used"),
        (Path::new("/dev/full"), "/tmp/full", "is not beneath /dev"),
        (Path::new("/dev/full"), "/dev", "is not beneath /dev"),
        (Path::new("/dev/full"), "/dev/null", "of its own"),
        (Path::new("/dev/full"), "/dev/pts/0", "of its own"),
        (Path::new("/dev/full"), "/dev/../etc/x", "`..`"),
    ] {
        let error = refused(Sandbox::builder().device(source, dest));
        assert!(error.kind() == "config" && error.to_string().contains(words), "{dest}: {error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
}

/// The caller's own terminal: nobody else may open it.
#[test]
fn a_device_that_only_the_caller_may_open_keeps_the_callers_id_or_is_refused() {
    let (_kept, device) = terminal();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o600)).unwrap();
    let builder = || Sandbox::builder().device(&device, "/dev/modem");
    let script = format!("{TRY}; try /dev/modem");
    assert_eq!(told(builder(), &script), "rw");
    assert_eq!(told(builder().host_ids(HostIds::Shared), &script), "rw");
    let error = refused(builder().host_ids(HostIds::Disjoint));
    assert!(error.kind() == "unsupported" && error.to_string().contains("others may not read and write it"), "{error}");
    // Not even the caller: the kernel is asked before a program runs.
    if !is_root() {
        let error = refused(Sandbox::builder().device("/dev/loop-control", "/dev/loop-control"));
        assert_eq!((error.kind(), error.stage()), ("unsupported", "usable"), "{error}");
        assert!(error.subject() == "/dev/loop-control" && error.hint().contains("host_ids"), "{error}");
    }
}

/// A file system of a program's own, mounted inside.
#[test]
fn a_fuse_program_mounts_inside_with_its_device_and_not_without() {
    if !is_root() {
        return println!("SKIPPED: the device is root's here, and a mode for all cannot be given to a copy");
    }
    if !Path::new("/usr/bin/fuse-overlayfs").exists() {
        return println!("SKIPPED: fuse-overlayfs is not installed");
    }
    if !again_in_own_mounts("a_fuse_program_mounts_inside_with_its_device_and_not_without", "mount -t tmpfs t /mnt") {
        return;
    }
    // As udev has it on most hosts.
    assert!(Command::new("mknod").args(["-m", "666", "/mnt/fuse", "c", "10", "229"]).status().unwrap().success());
    let script = "mkdir /tmp/low /tmp/up /tmp/work /tmp/all; echo below >/tmp/low/file; \
        fuse-overlayfs -o lowerdir=/tmp/low,upperdir=/tmp/up,workdir=/tmp/work /tmp/all || exit; \
        cat /tmp/all/file; echo above >/tmp/all/file; cat /tmp/low/file /tmp/up/file; \
        grep -c ' /tmp/all .*fuse.fuse-overlayfs' /proc/self/mountinfo";
    let nested = format!("unshare -rm sh -c '{}'", script.replace('\'', "'\\''"));
    let with = Sandbox::builder().device("/mnt/fuse", "/dev/fuse");
    assert_eq!(told(with.clone().allow(sandcell::Allow::Nested), &nested), "below\nbelow\nabove\n1");
    let without = run(Sandbox::builder().allow(sandcell::Allow::Nested), &nested);
    assert!(
        text(&without.stderr).contains("/dev/fuse") || text(&without.stderr).contains("fuse: device"),
        "{without:?}"
    );
    assert_eq!(text(&without.stdout), "");
}

#[test]
fn the_tier_without_namespaces_shows_a_device_at_its_own_place() {
    let (_kept, device) = terminal();
    let builder = || Sandbox::builder().isolation(sandcell::Isolation::Landlock);
    let script = format!("{TRY}; try {}", device.display());
    assert_eq!(told(builder().device(&device, "/dev/own").isolation(sandcell::Isolation::Namespaces), "echo x"), "x");
    assert_eq!(told(builder(), &script), "");
    assert_eq!(refused(builder().device(&device, "/dev/other")).kind(), "config");
}
