//! Whole systems: an init as PID 1 of its own, programs beside it, the end that it expects.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command as Host;
use std::time::Duration;

use sandcell::{Builder, Detach, Error, NamedCell, Outcome, Sandbox, Upper};

mod common;
#[path = "common/gone.rs"]
mod gone;
use common::{Scratch, is_root, patiently, text};
use gone::Gone;

fn name() -> String {
    format!("system-{}", common::marker())
}

/// A root with busybox, whose init starts what the table says.
fn busybox(scratch: &Scratch, inittab: &str) -> PathBuf {
    let root = scratch.dir(&format!("root{}", common::marker()));
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is installed");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for program in
        ["sh", "sleep", "cat", "id", "ps", "mount", "umount", "kill", "echo", "mkdir", "grep", "readlink", "chown"]
    {
        symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    symlink("../bin/busybox", root.join("sbin/init")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    fs::write(root.join("etc/inittab"), inittab).unwrap();
    root
}

fn system(layer: &std::path::Path) -> Builder {
    // An ordinary user may have ids for one system at a time.
    let wait = Duration::from_secs(60);
    Sandbox::builder().layer(layer).upper(Upper::Tmpfs).init(true).wait_for_ids(wait)
}

/// Whether this caller can have the groups and ids that an init needs; the reason is printed.
fn can_be(scratch: &Scratch) -> bool {
    let layer = busybox(scratch, "");
    match system(&layer).build().and_then(|sandbox| sandbox.command("/bin/sh").args(["-c", "true"]).status()) {
        Ok(_) => true,
        Err(error) => {
            assert!(!is_root(), "{error} ({})", error.hint());
            assert!(matches!(error, Error::Unsupported(_)) && !error.hint().is_empty(), "{error}");
            println!("SKIPPED: needs a cgroup v2 that the caller may divide: {error}");
            false
        }
    }
}

fn told(cell: &NamedCell, script: &str) -> String {
    let output = cell.command("/bin/sh").unwrap().args(["-c", script]).output().unwrap();
    format!("{}{}", text(&output.stdout), text(&output.stderr)).trim_end().to_owned()
}

fn log(cell: &NamedCell) -> String {
    let mut reader = cell.log().unwrap();
    let mut all = String::new();
    while let Some(line) = reader.next_line().unwrap() {
        all += &text(&line.text);
        all.push('\n');
    }
    all
}

#[test]
fn busybox_init_boots_is_pid_1_and_powers_off_when_the_cell_is_stopped() {
    let scratch = Scratch::new();
    if !can_be(&scratch) {
        return;
    }
    let layer =
        busybox(&scratch, "::sysinit:/bin/echo booted\n::respawn:/bin/sleep 1000\n::shutdown:/bin/echo powering off\n");
    let cell = Gone(Detach::new(name()).start(&system(&layer).build().unwrap()).unwrap());
    patiently("the boot", || log(&cell).contains("booted"));
    assert_eq!(told(&cell, "cat /proc/1/comm; readlink /proc/1/exe"), "init\n/bin/busybox");
    // Beside it: the same processes, and no number of ours.
    let seen = told(&cell, "ps -o pid,comm; echo self $$");
    assert!(seen.contains("sleep") && !seen.contains("sandcell"), "{seen}");
    cell.stop(None).unwrap();
    assert!(log(&cell).contains("powering off"), "{}", log(&cell));
    assert!(matches!(cell.wait().unwrap().outcome, Outcome::Exited(_)), "{:?}", cell.wait());
}

#[test]
fn a_system_has_a_group_of_its_own_and_nothing_is_left_of_the_groups_that_it_made() {
    let scratch = Scratch::new();
    if !can_be(&scratch) {
        return;
    }
    let layer = busybox(&scratch, "::respawn:/bin/sleep 1000\n");
    let cell = Gone(Detach::new(name()).start(&system(&layer).build().unwrap()).unwrap());
    assert_eq!(told(&cell, "cat /proc/1/cgroup | grep ^0:"), "0::/");
    assert_eq!(
        told(
            &cell,
            "mkdir -p /sys/fs/cgroup/a/b/c && echo 1 > /sys/fs/cgroup/a/b/c/cgroup.procs && cat /proc/1/cgroup | grep ^0:"
        ),
        "0::/a/b/c"
    );
    // What limits it is not its own.
    assert!(told(&cell, "echo max > /sys/fs/cgroup/cgroup.max.descendants").contains("denied"));
    let pid = cell.info().unwrap().pid.unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
    let found = |own: &str| {
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .iter()
            .any(|top| PathBuf::from(format!("{top}{own}/system")).exists())
    };
    assert!(found(&own), "the control: {own}");
    cell.kill().unwrap();
    assert!(!found(&own));
}

#[test]
fn root_of_a_system_has_no_power_over_mounts_and_sees_no_more_than_a_program_does() {
    let scratch = Scratch::new();
    if !can_be(&scratch) {
        return;
    }
    let shown = scratch.file("shown", "kept");
    let layer = busybox(&scratch, "::respawn:/bin/sleep 1000\n");
    let sandbox = system(&layer).ro(&shown, "/shown").build().unwrap();
    let cell = Gone(Detach::new(name()).start(&sandbox).unwrap());
    for script in [
        "mount -o remount,rw /shown",
        "umount /proc/sys",
        "umount /proc/kallsyms",
        "umount /proc",
        "mount -t proc proc /tmp",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /shown",
    ] {
        let status = cell.command("/bin/sh").unwrap().args(["-c", script]).output().unwrap();
        assert!(!status.success(), "{script}");
    }
    // The controls: it is root of its own files, and has users.
    assert_eq!(told(&cell, "echo y > /etc/made && chown 65534 /etc/made && cat /etc/made && id -u"), "y\n0");
    assert_eq!(told(&cell, "cat /proc/kallsyms; cat /proc/cmdline; cat /shown"), "kept");
    assert!(!told(&cell, "grep -c . /proc/1/environ").is_empty());
    for who in ["1", "self"] {
        let status = told(&cell, &format!("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{who}/status"));
        assert!(
            status.contains("CapEff:\t00000000800405fb") && status.contains("CapBnd:\t00000000800405fb"),
            "{status}"
        );
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    }
}

#[test]
fn without_a_group_a_system_is_refused_unless_best_effort_does_without() {
    let scratch = Scratch::new();
    if can_be(&scratch) {
        println!("this caller has groups");
    }
    let layer = busybox(&scratch, "::sysinit:/bin/echo booted\n::respawn:/bin/sleep 1000\n");
    let cell = Gone(Detach::new(name()).start(&system(&layer).best_effort("init").build().unwrap()).unwrap());
    patiently("the boot", || log(&cell).contains("booted"));
    assert_eq!(told(&cell, "cat /proc/1/comm; id -u"), "init\n0");
    cell.stop(None).unwrap();
    assert!(matches!(cell.wait().unwrap().outcome, Outcome::Exited(_)), "{:?}", cell.wait());
}

#[test]
fn an_init_runs_once_in_a_sandbox_of_its_own_too_and_all_ends_with_it() {
    let scratch = Scratch::new();
    if !can_be(&scratch) {
        return;
    }
    let layer = busybox(&scratch, "");
    let sandbox = system(&layer).build().unwrap();
    let output =
        sandbox.command("/bin/sh").args(["-c", "sleep 1000 & echo $$ $container; pwd; exit 7"]).output().unwrap();
    assert_eq!((output.report.outcome.clone(), text(&output.stdout).as_str()), (Outcome::Exited(7), "1 sandcell\n/"));
}

#[test]
fn what_an_init_cannot_have_is_refused() {
    let scratch = Scratch::new();
    let layer = busybox(&scratch, "");
    for builder in [
        Sandbox::builder().init(true),
        system(&layer).user(sandcell::User::Caller),
        system(&layer).keep_id(true),
        system(&layer).cap_add(sandcell::Capability::CAP_SYS_ADMIN),
        system(&layer).cap_add(sandcell::Capability::CAP_NET_ADMIN),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::Config(_)) && !error.hint().is_empty(), "{error}");
    }
    let sandbox = system(&layer).build().unwrap();
    let error = sandbox.start().unwrap_err();
    assert!(matches!(error, Error::Config(_)) && error.hint().contains("Detach"), "{error}");
    let restarted = Detach::new(name()).restart(sandcell::Restart::Always).start(&sandbox).unwrap_err();
    assert!(restarted.to_string().contains("not started again"), "{restarted}");
}

/// Debian's systemd, from the archive that this machine's apt knows.
fn debian(scratch: &Scratch) -> Option<PathBuf> {
    if let Some(root) = std::env::var_os("SANDCELL_DEBIAN_SYSTEM") {
        return Some(root.into());
    }
    if !is_root() {
        println!("SKIPPED: makes a Debian with its owners");
        return None;
    }
    let root = scratch.path().join("debian");
    let made = Host::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm"])
        .arg(&root)
        .status();
    assert!(made.expect("mmdebstrap is installed").success());
    Some(root)
}

#[test]
fn systemd_reaches_running_starts_and_stops_thirty_services_and_keeps_a_journal() {
    let scratch = Scratch::new();
    let Some(root) = debian(&scratch) else { return };
    let cell = Gone(Detach::new(name()).start(&system(&root).build().unwrap()).unwrap());
    patiently("the boot", || {
        !["", "offline", "initializing", "starting"]
            .contains(&told(&cell, "systemctl is-system-running 2>/dev/null").as_str())
    });
    let failed = || told(&cell, "systemctl --failed --no-pager --no-legend");
    assert_eq!(told(&cell, "systemctl is-system-running"), "running", "{}", failed());
    let units = "for i in $(seq 30); do printf '[Service]\\nExecStart=/bin/sh -c \"echo of %s; exec sleep 1000\"\\nUser=nobody\\n' svc$i \
                 > /etc/systemd/system/svc$i.service; done; systemctl daemon-reload";
    assert_eq!(told(&cell, units), "");
    let states = "systemctl is-active $(seq -f svc%g 30) | sort | uniq -c | tr -s ' '";
    assert_eq!(told(&cell, &format!("systemctl start $(seq -f svc%g 30); {states}")), " 30 active");
    patiently("the journal", || told(&cell, "journalctl --no-pager -o cat -u svc7").contains("of svc7"));
    assert_eq!(told(&cell, &format!("systemctl stop $(seq -f svc%g 30); {states}")), " 30 inactive");
    cell.stop(None).unwrap();
    assert_eq!(cell.wait_timeout(Duration::ZERO).unwrap().unwrap().outcome, Outcome::Exited(0));
}
