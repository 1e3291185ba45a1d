//! Sandboxes of one user are different users on the host. The twin of each denial is the same thing with
//! `HostIds::Shared`, where it is possible.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{User, geteuid};
use sandcell::{Builder, Error, HostIds, Output, Sandbox, Upper};

/// Whether there are ids to lease here; if not, says so.
fn has_ids() -> bool {
    let uid = geteuid();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
    let named = |file| fs::read_to_string(file).is_ok_and(|t| t.lines().any(|l| l.starts_with(&format!("{name}:"))));
    let helpers = ["newuidmap", "newgidmap"].iter().all(|p| Path::new("/usr/bin").join(p).exists());
    let found = uid.is_root() || named("/etc/subuid") && named("/etc/subgid") && helpers;
    if !found {
        eprintln!("SKIPPED: needs root, or an ordinary user with sub-ids and newuidmap");
    }
    found
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

fn sandbox(builder: Builder) -> Sandbox {
    builder.build().expect("a sandbox")
}

fn sh(sandbox: &Sandbox, script: &str) -> Output {
    sandbox.command("/bin/sh").args(["-c", script]).output().expect("a run")
}

fn why(output: &Output) -> (bool, String) {
    let identity = output.enforced.iter().find(|line| line.item == "identity").expect("a line about the identity");
    (identity.disjoint.expect("said either way"), identity.why.clone().unwrap_or_default())
}

/// A directory of the caller's that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, mode: u32) -> Scratch {
        let path = std::env::temp_dir().join(format!("sandcell-disjoint-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The processes on the host with that UID.
fn processes_of(uid: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        line.split_whitespace().any(|id| id == uid.to_string())
    })
    .collect()
}

#[test]
fn two_sandboxes_of_one_user_are_two_users_on_the_host() {
    if !has_ids() {
        return;
    }
    let sandbox = sandbox(Sandbox::builder());
    let (one, two) = (sandbox.start().expect("a cell"), sandbox.start().expect("another"));
    let (a, b) = (one.identity(), two.identity());
    let caller = geteuid().as_raw();
    assert!(a.host_uid != b.host_uid && a.host_uid != caller && b.host_uid != caller, "{a:?} {b:?}");
    assert_ne!(a.host_gid, b.host_gid);
    for id in [a, b] {
        assert!(!processes_of(id.host_uid).is_empty(), "what is reported is what the kernel knows: {id:?}");
    }
}

#[test]
fn two_sandboxes_with_shared_ids_are_the_caller() {
    let sandbox = sandbox(Sandbox::builder().host_ids(HostIds::Shared));
    let (one, two) = (sandbox.start().expect("a cell"), sandbox.start().expect("another"));
    assert_eq!(one.identity().host_uid, geteuid().as_raw());
    assert_eq!(two.identity().host_uid, geteuid().as_raw());
}

/// Writes a private file in one sandbox and reads it in another; what the other saw.
fn reads_of_the_other(ids: HostIds, name: &str) -> String {
    let shared = Scratch::new(name, 0o1777);
    let sandbox = sandbox(Sandbox::builder().host_ids(ids).rw(&shared.0, "/data"));
    let own = sh(&sandbox, "umask 077; echo secret > /data/file; cat /data/file");
    assert_eq!(own.stdout, b"secret\n", "the owner reads it: {own:?}");
    let other = sh(&sandbox, "cat /data/file; rm -f /data/file; ls /data");
    String::from_utf8_lossy(&other.stdout).into_owned()
}

#[test]
fn a_private_file_in_a_shared_directory_stays_private() {
    if has_ids() {
        assert_eq!(reads_of_the_other(HostIds::Disjoint, "private"), "file\n", "neither read nor removed");
    }
}

#[test]
fn with_shared_ids_a_private_file_is_everybodys() {
    assert_eq!(reads_of_the_other(HostIds::Shared, "everybody"), "secret\n", "read and removed");
}

/// Whether a process of the host under that UID may signal a process, and whether it may read what is behind the same
/// check as ptrace(2). An ordinary user becomes one of its sub-ids the way in which everybody can, in a user namespace.
fn reaches(from: u32, target: i32) -> (bool, bool) {
    let caller = geteuid();
    let run = |script: String| {
        let mut command = std::process::Command::new("/bin/sh");
        if !caller.is_root() && from != caller.as_raw() {
            command = std::process::Command::new("/usr/bin/unshare");
            let id = from.to_string();
            for option in ["--map-users", "--map-groups"] {
                command.args([option, &format!("{id},{id},1")]);
            }
            command.args(["--user", "--setuid", &id, "--setgid", &id, "/bin/sh"]);
        }
        command.args(["-c", &script]).current_dir("/").stderr(Stdio::null()).stdout(Stdio::null());
        if caller.is_root() {
            command.uid(from).gid(from);
        }
        command.status().expect("sh").success()
    };
    (run(format!("kill -0 {target}")), run(format!("cat /proc/{target}/environ")))
}

/// The supervisor of a cell, as the host knows it.
fn first_of(uid: u32) -> i32 {
    processes_of(uid).into_iter().min().expect("a process")
}

#[test]
fn the_uid_of_one_sandbox_can_neither_signal_nor_trace_the_processes_of_another() {
    if !has_ids() {
        return;
    }
    let sandbox = sandbox(Sandbox::builder());
    let (one, two) = (sandbox.start().expect("a cell"), sandbox.start().expect("another"));
    let (a, b) = (one.identity().host_uid, two.identity().host_uid);
    assert_eq!(reaches(a, first_of(b)), (false, false));
    assert_eq!(reaches(b, first_of(a)), (false, false));
    // The twin: what shares a UID can be signalled.
    assert!(reaches(a, first_of(a)).0 && reaches(b, first_of(b)).0);
}

#[test]
fn with_shared_ids_the_processes_of_one_sandbox_can_be_signalled_with_the_uid_of_another() {
    let sandbox = sandbox(Sandbox::builder().host_ids(HostIds::Shared));
    let (one, two) = (sandbox.start().expect("a cell"), sandbox.start().expect("another"));
    let (a, b) = (one.identity().host_uid, two.identity().host_uid);
    let mark = format!("7{:09}", std::process::id());
    let mut child = two.command("/bin/sleep").arg(&mark).spawn().expect("a program");
    let found = || {
        processes_of(b).into_iter().find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(format!("{mark}\0").as_bytes()))
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let target = loop {
        if let Some(pid) = found() {
            break pid;
        }
        assert!(Instant::now() < deadline, "the program never slept");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(reaches(a, target).0, "{a} is {b}");
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
}

#[test]
fn a_process_outside_can_be_traced_by_its_own_uid() {
    if !is_root() {
        return; // the twin of "neither … nor trace" needs a process under a UID of choice
    }
    let mut plain = std::process::Command::new("/bin/sleep")
        .arg("60")
        .uid(2_013_265_921)
        .gid(2_013_265_921)
        .spawn()
        .expect("sleep");
    let reached = reaches(2_013_265_921, plain.id().cast_signed());
    plain.kill().expect("SIGKILL");
    plain.wait().expect("reaped");
    assert_eq!(reached, (true, true));
}

#[test]
fn a_root_callers_files_are_out_of_reach() {
    if !is_root() {
        return;
    }
    let read = "head -c 5 /etc/shadow";
    assert_eq!(sh(&sandbox(Sandbox::builder()), read).stdout, b"");
    assert_eq!(sh(&sandbox(Sandbox::builder().host_ids(HostIds::Shared)), read).stdout, b"root:");
}

#[test]
fn a_writable_bind_of_the_callers_works_and_its_new_files_are_the_callers() {
    let own = Scratch::new("rw", 0o700);
    let output = sh(&sandbox(Sandbox::builder().rw(&own.0, "/data")), "echo new > /data/file; cat /data/file");
    assert_eq!(output.stdout, b"new\n", "{output:?}");
    assert_eq!(fs::metadata(own.0.join("file")).expect("the file").uid(), geteuid().as_raw());
    let (disjoint, why) = why(&output);
    if geteuid().is_root() {
        assert!(disjoint && output.identity.host_uid != 0, "idmapped: {why}");
    } else {
        assert!(!disjoint && !why.is_empty(), "{why}");
    }
    if !geteuid().is_root() && has_ids() {
        assert!(why.contains("others may not write there"), "{why}");
    }
}

#[test]
fn what_only_the_caller_may_use_is_refused_where_disjoint_ids_are_a_must_and_nothing_can_be_idmapped() {
    let own = Scratch::new("must", 0o700);
    let path = own.0.as_path();
    for builder in [
        Sandbox::builder().rw(path, "/data"),
        Sandbox::builder().ro(path, "/data"),
        Sandbox::builder().layer(path),
        Sandbox::builder().layer("/").upper(Upper::Dir(path.to_owned())),
    ] {
        let started = sandbox(builder.host_ids(HostIds::Disjoint)).start();
        if geteuid().is_root() {
            assert_ne!(started.expect("idmapped").identity().host_uid, 0);
            continue;
        }
        let error = started.expect_err("must be refused");
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("chmod");
    if has_ids() {
        let open = sandbox(Sandbox::builder().rw(path, "/data").host_ids(HostIds::Disjoint));
        assert!(why(&sh(&open, "true")).0, "open to all, it is no obstacle");
    }
}

#[test]
fn a_file_system_without_idmapped_mounts_leaves_root_its_own_id_and_the_report_says_why() {
    if !is_root() {
        return;
    }
    // proc has none, and that directory is root's alone.
    let builder = || Sandbox::builder().ro("/proc/1/map_files", "/data");
    let output = sh(&sandbox(builder()), "true");
    let (disjoint, why) = why(&output);
    assert!(!disjoint && output.identity.host_uid == 0, "{why}");
    assert!(why.contains("others may not read it") && why.contains("without idmapped mounts"), "{why}");
    let error = sandbox(builder().host_ids(HostIds::Disjoint)).start().expect_err("must be refused");
    assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains("idmapped"), "{error}");
}

#[test]
fn roots_files_are_the_programs_in_idmapped_mounts_and_other_users_stay_out_of_reach() {
    if !is_root() {
        return;
    }
    let own = Scratch::new("idmapped", 0o700);
    let path = own.0.as_path();
    fs::write(path.join("roots"), "secret\n").expect("a file");
    fs::set_permissions(path.join("roots"), PermissionsExt::from_mode(0o600)).expect("chmod");
    fs::write(path.join("others"), "closed\n").expect("a file");
    fs::set_permissions(path.join("others"), PermissionsExt::from_mode(0o600)).expect("chmod");
    std::os::unix::fs::chown(path.join("others"), Some(12345), Some(12345)).expect("chown");
    let script =
        "cat /data/roots; cat /data/others; echo x > /data/others; chown 5 /data/roots; rm /data/roots && echo removed";
    let output = sh(&sandbox(Sandbox::builder().rw(path, "/data").host_ids(HostIds::Disjoint)), script);
    assert_eq!(output.stdout, b"secret\nremoved\n", "{output:?}");
    assert_eq!(fs::read(path.join("others")).expect("the file"), b"closed\n");
    // The twin: with the host's UID 0 it is no other.
    let twin =
        sh(&sandbox(Sandbox::builder().rw(path, "/data").host_ids(HostIds::Shared)), "echo x > /data/new && id -u");
    assert!(twin.outcome.success() && twin.identity.host_uid == 0, "{twin:?}");
}

#[test]
fn a_read_only_bind_of_roots_stays_read_only_when_idmapped_and_so_do_mounts_beneath_it() {
    if !is_root() {
        return;
    }
    let own = Scratch::new("idmapped-ro", 0o700);
    fs::write(own.0.join("file"), "there\n").expect("a file");
    let script = "cat /data/file; echo x > /data/file; echo x > /data/new; ls /data";
    let output = sh(&sandbox(Sandbox::builder().ro(&own.0, "/data").host_ids(HostIds::Disjoint)), script);
    assert_eq!(output.stdout, b"there\nfile\n", "{output:?}");
    let writable = sh(&sandbox(Sandbox::builder().rw(&own.0, "/data").host_ids(HostIds::Disjoint)), script);
    assert_eq!(writable.stdout, b"there\nfile\nnew\n", "the twin: {writable:?}");
}

#[test]
fn what_is_mounted_read_only_and_writable_is_both_whichever_comes_first() {
    if !is_root() {
        return;
    }
    let own = Scratch::new("both", 0o755);
    let script = "echo x > /data/new && echo written; echo x > /seen/other || cat /seen/new; rm /data/new";
    for builder in [
        Sandbox::builder().ro(&own.0, "/seen").rw(&own.0, "/data"),
        Sandbox::builder().rw(&own.0, "/data").ro(&own.0, "/seen"),
    ] {
        let output = sh(&sandbox(builder.host_ids(HostIds::Disjoint)), script);
        assert_eq!(output.stdout, b"written\nx\n", "{output:?}");
    }
}

#[test]
fn a_layer_that_only_the_caller_may_enter_can_be_read_and_written() {
    let layer = Scratch::new("layer", 0o700);
    fs::create_dir_all(layer.0.join("bin")).expect("bin");
    fs::create_dir_all(layer.0.join("etc")).expect("etc");
    fs::copy("/bin/busybox", layer.0.join("bin/sh")).expect("busybox is installed");
    fs::write(layer.0.join("etc/motd"), "hello\n").expect("a file");
    let output = sh(
        &sandbox(Sandbox::builder().layer(&layer.0)),
        "echo new >> /etc/motd && echo > /new; while read l; do echo $l; done < /etc/motd",
    );
    assert_eq!(output.stdout, b"hello\nnew\n", "{output:?}");
    assert_eq!(fs::read(layer.0.join("etc/motd")).expect("the file"), b"hello\n");
}

const UNDUMPABLE: &str = "SANDCELL_TEST_UNDUMPABLE";

/// Not a test of its own: the one below, in a process that may change.
#[test]
fn starts_undumpable_for_another_test() {
    if std::env::var_os(UNDUMPABLE).is_none() {
        return;
    }
    nix::sys::prctl::set_dumpable(false).expect("prctl");
    for ids in [HostIds::Shared, HostIds::Auto] {
        let output = sh(&sandbox(Sandbox::builder().host_ids(ids)), "echo ran");
        assert_eq!(output.stdout, b"ran\n", "{ids:?}: {output:?}");
    }
    println!("\nBOTH RAN");
}

#[test]
fn a_caller_that_made_itself_undumpable_can_start_sandboxes() {
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "starts_undumpable_for_another_test", "--nocapture"])
        .env(UNDUMPABLE, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("BOTH RAN"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

const HOLDER: &str = "SANDCELL_TEST_HOLDS";

/// Not a test of its own: starts cells for the one below, in another process.
#[test]
fn holds_cells_for_another_test() {
    let Some(count) = std::env::var(HOLDER).ok().and_then(|count| count.parse::<usize>().ok()) else { return };
    let sandbox = sandbox(Sandbox::builder().host_ids(HostIds::Disjoint));
    let cells: Vec<_> = (0..count).map(|_| sandbox.start().expect("a cell")).collect();
    for cell in &cells {
        println!("\nHELD {}", cell.identity().host_uid);
    }
    println!("\nHELD all");
    std::io::stdout().flush().expect("stdout");
    loop {
        std::thread::park();
    }
}

#[test]
fn two_hundred_sandboxes_of_eight_processes_have_two_hundred_uids_and_leave_none_leased_when_killed() {
    if !has_ids() {
        return;
    }
    let mut holders: Vec<_> = (0..8)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "holds_cells_for_another_test", "--nocapture"])
                .env(HOLDER, "25")
                .stdout(Stdio::piped())
                .spawn()
                .expect("a process")
        })
        .collect();
    let mut uids = HashSet::new();
    let mut count = 0;
    for holder in &mut holders {
        for line in BufReader::new(holder.stdout.as_mut().expect("piped")).lines().map_while(Result::ok) {
            match line.strip_prefix("HELD ") {
                Some("all") => break,
                Some(uid) => {
                    uids.insert(uid.parse::<u32>().expect("a UID"));
                    count += 1;
                }
                None => {}
            }
        }
    }
    let leased = uids.iter().filter(|&&uid| is_leased(uid)).count();
    for holder in &mut holders {
        holder.kill().expect("SIGKILL");
        holder.wait().expect("reaped");
    }
    assert_eq!((count, uids.len(), leased), (200, 200, 200));
    // The supervisors see the end of their callers and end, each in its own time.
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(uid) = uids.iter().find(|&&uid| is_leased(uid) || !processes_of(uid).is_empty()) {
        assert!(Instant::now() < deadline, "{uid} is still leased or in use");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether somebody holds the lock on the byte that stands for this UID. See `docs/identity.md`.
fn is_leased(uid: u32) -> bool {
    let caller = geteuid();
    let run = if caller.is_root() { "/run".to_owned() } else { format!("/run/user/{caller}") };
    let places = [format!("{run}/sandcell/ids"), format!("/tmp/sandcell-{caller}/ids")];
    let files: Vec<File> =
        places.iter().filter_map(|path| File::options().read(true).write(true).open(path).ok()).collect();
    assert!(!files.is_empty(), "none of {places:?} is there");
    files.iter().any(|file| {
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: i64::from(uid),
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).expect("F_OFD_GETLK");
        lock.l_type != libc::F_UNLCK as i16
    })
}

#[test]
fn kept_capabilities_hold_over_the_whole_range_of_ids() {
    if !has_ids() {
        return;
    }
    let script = "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status";
    let builder =
        Sandbox::builder().user(sandcell::User::Root).id_count(1000).cap_add(sandcell::Capability::CAP_SETUID);
    let output = sh(&sandbox(builder), script);
    let words: Vec<_> = std::str::from_utf8(&output.stdout).expect("text").split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", "1000", "CapEff:", "0000000000000080"], "{output:?}");
    let none = sh(&sandbox(Sandbox::builder().user(sandcell::User::Root).id_count(1000)), script);
    assert!(String::from_utf8_lossy(&none.stdout).ends_with("0000000000000000\n"), "{none:?}");
}
