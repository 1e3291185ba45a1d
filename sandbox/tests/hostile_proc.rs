//! /proc replaced, covered or full of pipes: the first process does not go by what a program can put there.

mod common;

use std::os::unix::fs::symlink;
use std::time::Duration;

use common::{Scratch, marker, patiently, processes_with, shell, text, within_a_minute};
use sandcell::Capability;
use sandcell::{Builder, Leftovers, Outcome, Output, Sandbox, Seccomp};

/// A sandbox that names what is alive at the end of its program.
fn names_leftovers() -> Builder {
    Sandbox::builder().leftovers(Leftovers::Report).timeout(Duration::from_secs(20)).grace(Duration::ZERO)
}

fn ran(builder: Builder, script: &str) -> Output {
    let (builder, script) = (builder, script.to_owned());
    within_a_minute(&script.clone(), move || shell(&builder.build().unwrap(), &script).output().unwrap())
}

/// A root whose /proc is a link to a directory that a program can rename.
fn root_with_a_link(scratch: &Scratch) -> Builder {
    let layer = scratch.dir("layer");
    scratch.dir("layer/other/place");
    symlink("other/place", layer.join("proc")).unwrap();
    let mut builder = names_leftovers().layer(&layer).ro("/usr", "/usr");
    for (name, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        if std::path::Path::new("/").join(name).is_symlink() {
            symlink(target, layer.join(name)).unwrap();
        } else {
            builder = builder.ro(format!("/{name}"), format!("/{name}"));
        }
    }
    builder
}

/// Every number that may be given out next gets a pipe that nobody writes to, in what looks like /proc.
const PIPES: &str =
    "mkdir -p /tmp/p; for n in $(seq 1 60); do mkdir /tmp/p/$n; mkfifo /tmp/p/$n/stat /tmp/p/$n/cmdline; done";

#[test]
fn a_link_in_the_place_of_proc_that_turns_to_pipes_blocks_nobody_and_hides_nothing() {
    let scratch = Scratch::new();
    let script = format!(
        "{PIPES}; rm /proc && ln -s /tmp/p /proc; mkfifo /tmp/p/self; cat /proc/1/stat & \
         test -p /proc/1/stat && echo replaced; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.5; exit 3"
    );
    let output = ran(root_with_a_link(&scratch), &script);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    // The control: the path leads to the pipes.
    assert!(said.contains("replaced"), "{said}");
    assert_eq!(output.outcome, Outcome::Exited(3), "{said}");
    assert!(output.leftovers.iter().any(|left| left.command == "sleep 1000"), "{:?}", output.leftovers);
}

/// Whoever keeps CAP_SYS_ADMIN may cover what is mounted: /proc as a whole, and single processes in it.
#[test]
fn a_cover_over_proc_blocks_nobody_and_hides_nothing() {
    for cover in [
        "mount -t tmpfs none /proc && mkdir -p /proc/9 && cp -r /tmp/p/. /proc/",
        "for n in /proc/[0-9]*; do mount --bind /tmp/p/1 $n; done",
        "mount -t tmpfs none /proc && mount -o remount,ro /proc",
    ] {
        let script = format!(
            "{PIPES}; setsid sleep 1000 >/dev/null 2>&1 & sleep 0.2; {cover}; echo covered; test -e /proc/1/status || echo gone; exit 3"
        );
        let builder = names_leftovers().seccomp(Seccomp::Off).cap_add(Capability::CAP_SYS_ADMIN);
        let output = ran(builder, &script);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(said.contains("covered\ngone"), "{cover}: {said}");
        assert_eq!(output.outcome, Outcome::Exited(3), "{cover}: {said}");
        assert!(output.leftovers.iter().any(|left| left.command == "sleep 1000"), "{cover}: {:?}", output.leftovers);
    }
}

/// In a cell, where commands are looked for one by one.
#[test]
fn a_command_that_covers_proc_is_ended_with_all_that_it_started() {
    let marker = marker();
    let sleeps = marker.clone();
    within_a_minute("a cell whose /proc is covered", move || {
        let builder = Sandbox::builder().seccomp(Seccomp::Off).cap_add(Capability::CAP_SYS_ADMIN);
        let cell = builder.build().unwrap().start().unwrap();
        let script = format!(
            "{PIPES}; (setsid sleep {sleeps} >/dev/null 2>&1 &) ; \
             mount -t tmpfs none /proc && cp -r /tmp/p/. /proc/; exec sleep {sleeps}"
        );
        let child = cell.command("/bin/sh").args(["-c", &script]).spawn().unwrap();
        let seen = cell.clone();
        patiently("two sleeps behind pipes", || {
            let look = seen.command("/bin/sh").args(["-c", "test -p /proc/1/stat"]).status();
            look.unwrap().outcome.success() && processes_with(&sleeps).len() == 2
        });
        let mut child = child;
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
        assert!(processes_with(&sleeps).is_empty());
        assert!(cell.command("/bin/true").status().unwrap().outcome.success());
    });
}

#[test]
fn a_working_directory_that_is_gone_changes_nothing() {
    let script =
        "mkdir /tmp/d && cd /tmp/d && rmdir /tmp/d && { setsid sleep 1000 >/dev/null 2>&1 & } ; sleep 0.5; exit 3";
    let output = ran(names_leftovers(), script);
    assert_eq!(output.outcome, Outcome::Exited(3), "{}", text(&output.stderr));
    assert_eq!(output.leftovers.len(), 1, "{:?}", output.leftovers);
}

/// A process whose main thread has ended looks like a zombie.
#[test]
fn a_process_whose_main_thread_has_ended_is_a_leftover_by_its_name() {
    let script = "
import ctypes, os, sys, threading, time
if os.fork() == 0:
    os.setsid()
    threading.Thread(target=time.sleep, args=(1000,)).start()
    # Of this thread alone: exit(2) without exit_group(2).
    ctypes.CDLL(None).syscall(60, 0)
while open('/proc/%d/stat' % (os.getpid() + 1)).read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(0.01)
sys.stdout.write('looks dead'); sys.stdout.flush()
os._exit(3)";
    let output = within_a_minute("a zombie that lives", move || {
        names_leftovers().build().unwrap().command("/usr/bin/python3").args(["-c", script]).output().unwrap()
    });
    assert_eq!((output.outcome.clone(), &*text(&output.stdout)), (Outcome::Exited(3), "looks dead"), "{output:?}");
    assert_eq!(output.leftovers.len(), 1, "{:?}", output.leftovers);
    assert!(output.leftovers[0].command.contains("python3"), "{:?}", output.leftovers);
    // The control: what is really dead, and not reaped, is no leftover.
    let dead = "import os, sys, time\nif os.fork() == 0: os._exit(0)\ntime.sleep(0.3); os._exit(3)";
    let output = names_leftovers().build().unwrap().command("/usr/bin/python3").args(["-c", dead]).output().unwrap();
    assert!(output.leftovers.is_empty(), "{:?}", output.leftovers);
}
