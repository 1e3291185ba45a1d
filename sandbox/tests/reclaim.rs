//! `reclaim`: what programs of many ids make in a directory of the caller's is the caller's when the run has ended, and
//! nothing else is.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Scratch, is_root, text};
use nix::unistd::{User as Account, getegid, geteuid};
use sandcell::subid_tree;
use sandcell::{Builder, Capability, Report, Sandbox, User};

/// Whether there are ids to lease here; if not, says so.
fn has_ids() -> bool {
    let name = Account::from_uid(geteuid()).ok().flatten().map(|user| user.name).unwrap_or_default();
    let named = |file| fs::read_to_string(file).is_ok_and(|t| t.lines().any(|l| l.starts_with(&format!("{name}:"))));
    let found = is_root() || named("/etc/subuid") && named("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists();
    if !found {
        eprintln!("SKIPPED: needs root, or an ordinary user with sub-ids and newuidmap");
    }
    found
}

/// Root over 1,000 ids.
fn many() -> Builder {
    let caps = [Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER, Capability::CAP_SETUID];
    caps.into_iter().fold(Sandbox::builder().user(User::Root).id_count(1000), Builder::cap_add)
}

fn run(builder: Builder, script: &str) -> Report {
    let output = builder.build().expect("a sandbox").command("/bin/sh").args(["-c", script]).output().expect("a run");
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    output.report.clone()
}

/// A directory that is removed whoever owns what is in it.
struct Workspace(Scratch);

impl Workspace {
    fn new() -> Workspace {
        let workspace = Workspace(Scratch::new());
        workspace.0.dir("work");
        workspace
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn bound(&self) -> Builder {
        many().rw(self.path(), "/work").reclaim(true)
    }

    fn owner(&self, name: &str) -> (u32, u32) {
        owner(&self.path().join(name))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = subid_tree::remove(self.path());
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (stat.uid(), stat.gid())
}

fn caller() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

const MAKE: &str = "cd /work && mkdir -p deep/er closed && echo a > file && echo b > deep/er/file && ln -s /etc/passwd link \
    && mkfifo pipe && echo c > closed/inner && cp /bin/true setuid && echo d > group \
    && chown -h 33:44 link pipe deep deep/er deep/er/file file closed/inner setuid && chmod 6755 setuid \
    && chgrp 55 group && chmod 600 file && chmod 0 closed && chown 7:7 closed";
const MADE: [&str; 8] = ["link", "pipe", "deep", "deep/er", "deep/er/file", "file", "setuid", "group"];

#[test]
fn what_a_run_of_many_ids_made_in_a_bind_is_the_callers_at_the_end() {
    if !has_ids() {
        return;
    }
    let workspace = Workspace::new();
    let report = run(workspace.bound(), MAKE);
    assert_eq!(report.warnings, [""; 0]);
    for name in MADE.iter().chain(&["closed", "."]) {
        assert_eq!(workspace.owner(name), caller(), "{name}");
    }
    let mode =
        |name: &str| fs::symlink_metadata(workspace.path().join(name)).expect(name).permissions().mode() & 0o7777;
    assert_eq!((mode("file"), mode("closed"), mode("setuid")), (0o600, 0, 0o755), "modes stay, but for set-user-ID");
    fs::set_permissions(workspace.path().join("closed"), PermissionsExt::from_mode(0o700)).expect("its owner may");
    assert_eq!(workspace.owner("closed/inner"), caller(), "behind a directory that nobody may enter");
    fs::remove_dir_all(workspace.path()).expect("the caller removes its own files");
}

#[test]
fn without_it_they_belong_to_others() {
    if !has_ids() {
        return;
    }
    let workspace = Workspace::new();
    run(workspace.bound().reclaim(false), MAKE);
    for name in MADE {
        assert_ne!(workspace.owner(name), caller(), "{name}");
    }
}

#[test]
fn the_directory_itself_and_a_file_that_is_bound_alone_come_back_too() {
    if !has_ids() {
        return;
    }
    let workspace = Workspace::new();
    let alone = workspace.0.file("alone", "");
    let report = run(workspace.bound().rw(&alone, "/alone"), "chown 33:33 /work /alone && chmod 700 /work");
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!((workspace.owner("."), owner(&alone)), (caller(), caller()));
}

#[test]
fn a_bind_that_is_open_to_all_comes_back_from_a_sandbox_of_a_single_id() {
    if !has_ids() {
        return;
    }
    let workspace = Workspace::new();
    fs::set_permissions(workspace.path(), PermissionsExt::from_mode(0o1777)).expect("chmod");
    let single = || Sandbox::builder().rw(workspace.path(), "/work");
    let host = run(single(), "echo a > /work/before").identity.host_uid;
    if host == caller().0 {
        return eprintln!("SKIPPED: the sandbox has the caller's own id");
    }
    assert_eq!(workspace.owner("before").0, host, "the control");
    run(single().reclaim(true), "echo a > /work/file");
    assert_eq!(workspace.owner("file"), caller());
}

#[test]
fn what_belongs_to_ids_of_nobody_in_the_sandbox_stays_as_it_is() {
    if !has_ids() {
        return;
    }
    let workspace = Workspace::new();
    // Of somebody else: root can make such a file, an ordinary user has one that another sandbox made.
    let others = workspace.path().join("others");
    if is_root() {
        fs::write(&others, "").expect("a file");
        chown(&others, Some(33), Some(33)).expect("root gives it away");
    } else {
        run(
            workspace.bound().reclaim(false),
            "echo a > /work/others && chown 33:33 /work/others && chmod 666 /work/others",
        );
    }
    let before = owner(&others);
    fs::hard_link(&others, workspace.path().join("again"))
        .or_else(|_| symlink(&others, workspace.path().join("again")))
        .expect("a link");
    let script = "cd /work && mkdir in && echo a > mine && chown 33:33 mine in && ln others in/linked 2>/dev/null; \
        ln -s ../others in/link; mv again in/moved; chown -h 33:33 in/link; true";
    run(workspace.bound(), script);
    assert_eq!(owner(&others), before);
    assert_eq!(
        (workspace.owner("mine"), workspace.owner("in"), workspace.owner("in/link")),
        (caller(), caller(), caller())
    );
}

#[test]
fn names_that_change_while_it_is_given_back_lead_to_nothing_outside() {
    if !has_ids() {
        return;
    }
    let (outside, workspace) = (Workspace::new(), Workspace::new());
    let (work, target) = (workspace.path(), outside.path());
    let make = "cd /work && rm -rf d? new? && mkdir victim && for i in 1 2 3 4 5 6 7 8; do mkdir -p d$i/sub && touch d$i/sub/f victim/f new$i; done; \
        chmod 777 d? d?/sub victim && chown -R 33:33 d? victim new?";
    for round in 0..10 {
        // Its files are the sandbox's own, and outside when it ends: what a walk that goes through a link gives away.
        let victim = target.join(format!("victim{round}"));
        let waiting = Waiting::start(workspace.bound(), make);
        fs::rename(work.join("victim"), &victim).expect("out of the bind");
        let before = (owner(&victim), owner(&victim.join("f")));
        let link = work.join("link");
        let _ = fs::remove_file(&link);
        symlink(&victim, &link).expect("a link");
        let stop = AtomicBool::new(false);
        let report = std::thread::scope(|scope| {
            // Another program that has the directory, with the caller's ids.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for dir in (1..9).map(|i| work.join(format!("d{i}/sub"))) {
                        exchange(&dir, &link);
                        exchange(&dir, &link);
                    }
                }
            });
            let report = waiting.end();
            stop.store(true, Ordering::Relaxed);
            report
        });
        assert_ne!(before.1, caller());
        assert_eq!((owner(&victim), owner(&victim.join("f"))), before, "{:?}", report.warnings);
        // Or it is said that they were not.
        let all = (1..9).all(|i| workspace.owner(&format!("new{i}")) == caller());
        assert!(all || !report.warnings.is_empty());
    }
}

/// A run that has carried out a script and waits for its end.
struct Waiting(sandcell::Child);

impl Waiting {
    fn start(builder: Builder, script: &str) -> Waiting {
        let sandbox = builder.build().expect("a sandbox");
        let mut command = sandbox.command("/bin/sh");
        command.args(["-c", &format!("{script} && echo made && read go")]);
        command.stdin(sandcell::Stdio::Piped).stdout(sandcell::Stdio::Piped);
        let mut child = command.spawn().expect("a run");
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("made");
        Waiting(child)
    }

    fn end(mut self) -> Report {
        std::io::Write::write_all(self.0.stdin.as_mut().expect("a pipe"), b"go\n").expect("read");
        self.0.wait().expect("a report")
    }
}

/// Two names, each for what the other was.
fn exchange(a: &Path, b: &Path) {
    let (at, flags) = (nix::fcntl::AT_FDCWD, nix::fcntl::RenameFlags::RENAME_EXCHANGE);
    let _ = nix::fcntl::renameat2(at, a, at, b, flags);
}

#[test]
fn what_cannot_be_given_back_is_a_warning_of_the_run() {
    if !is_root() {
        return eprintln!("SKIPPED: only root makes a file that no chown(2) changes");
    }
    let workspace = Workspace::new();
    let frozen = workspace.path().join("frozen");
    let chattr = |how: &str| std::process::Command::new("chattr").args([OsStr::new(how), frozen.as_os_str()]).status();
    let waiting =
        Waiting::start(workspace.bound(), "cd /work && echo a > frozen && echo a > file && chown 33:33 frozen file");
    if !chattr("+i").is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: this file system has no immutable files");
    }
    let warnings = waiting.end().warnings;
    chattr("-i").expect("as before");
    assert!(warnings.len() == 1 && warnings[0].contains("/frozen: EPERM"), "{warnings:?}");
    assert_eq!(workspace.owner("file"), caller(), "the others are given back");
}

#[test]
fn a_cell_refuses_it() {
    let scratch = Scratch::new();
    let sandbox = Sandbox::builder().rw(scratch.path(), "/work").reclaim(true).build().expect("a sandbox");
    let error = sandbox.start().expect_err("a cell");
    assert_eq!((error.kind(), error.stage()), ("unsupported", "reclaim"), "{error}");
    assert!(error.to_string().contains("cell"), "{error}");
    Sandbox::builder().rw(scratch.path(), "/work").build().expect("a sandbox").start().expect("the control");
}
