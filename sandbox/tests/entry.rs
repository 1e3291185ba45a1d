//! Processes of the caller's that enter a cell: they have what its programs have, and nothing more.
#![allow(unsafe_code)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use common::{Scratch, sandbox, text};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use sandcell::{Cell, Entry, Error, Landlock, Sandbox};

/// What an entered process said, and how it ended. `None` where it did not get in.
struct Entered {
    said: String,
    child: Pid,
}

impl Entered {
    fn end(self) -> (String, WaitStatus) {
        (self.said, waitpid(self.child, None).unwrap())
    }
}

/// Forks as `Entry` wants it and runs `act` inside. An error is said in words.
fn enter(entry: Entry, act: impl FnOnce() -> String) -> Entered {
    enter_by(entry, true, act)
}

fn enter_by(mut entry: Entry, fork_twice: bool, act: impl FnOnce() -> String) -> Entered {
    let (mut ours, mut theirs) = std::io::pipe().unwrap();
    entry.keep_fd(theirs.as_raw_fd());
    // SAFETY: the children make system calls and use the allocator, which glibc keeps usable across fork(3).
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut said = String::new();
            ours.read_to_string(&mut said).unwrap();
            Entered { said, child }
        }
        ForkResult::Child => {
            let mut say = |text: &str| theirs.write_all(text.as_bytes()).is_ok();
            if let Err(error) = entry.join() {
                say(&words(&error));
                leave(1);
            }
            if fork_twice {
                // SAFETY: as above.
                if let ForkResult::Parent { child } = unsafe { fork() }.unwrap() {
                    match waitpid(child, None) {
                        Ok(WaitStatus::Exited(_, status)) => leave(status),
                        Ok(WaitStatus::Signaled(_, signal, _)) => leave(128 + signal as i32),
                        _ => leave(99),
                    }
                }
            }
            let before = is_dumpable();
            match entry.confine() {
                // Nobody inside can trace it before it is confined (CVE-2016-9962); then it is what a program is.
                Ok(()) if before => say("traceable before it was confined"),
                Ok(()) if !is_dumpable() => say("not traceable at all"),
                Ok(()) => say(&act()),
                Err(error) => {
                    say(&words(&error));
                    leave(1)
                }
            };
            leave(0)
        }
    }
}

fn is_dumpable() -> bool {
    // SAFETY: asks.
    unsafe { nix::libc::prctl(nix::libc::PR_GET_DUMPABLE) == 1 }
}

fn leave(status: i32) -> ! {
    // SAFETY: ends the process without the destructors of what it has a copy of.
    unsafe { nix::libc::_exit(status) }
}

fn words(error: &Error) -> String {
    format!("{}: {error} ({})", error.stage(), error.hint())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}"))
}

fn program(cell: &Cell, script: &str) -> String {
    text(&cell.command("/bin/sh").args(["-c", script]).output().unwrap().stdout)
}

/// The lines of /proc/PID/status that tell what a process may do.
fn rights(status: &str) -> Vec<String> {
    const KEYS: [&str; 12] = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ];
    let is_told = |line: &&str| KEYS.contains(&line.split(':').next().unwrap_or_default());
    let lines: Vec<_> = status.lines().filter(is_told).map(|line| line.trim_end().to_owned()).collect();
    assert!(lines.len() >= 11, "{status}");
    lines
}

#[test]
fn programs_reach_nothing_of_an_entered_process_that_hides_its_memory() {
    for hides in [false, true] {
        // Landlock keeps them apart as well.
        let cell = Sandbox::builder().landlock(Landlock::Off).build().unwrap().start().unwrap();
        let mut entry = cell.entry().unwrap();
        if hides {
            entry.hide_memory();
        }
        // As on its way to another process, too.
        let (bytes, fds) = entry.to_message();
        let fds = fds.into_iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        let mut entry = Entry::from_message(&bytes, fds).unwrap();
        let (mut ours, mut theirs) = std::io::pipe().unwrap();
        let (held, holder) = std::io::pipe().unwrap();
        entry.keep_fd(theirs.as_raw_fd()).keep_fd(held.as_raw_fd());
        // SAFETY: as in `enter_by`.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // SAFETY: as above.
                if entry.join().is_err() || matches!(unsafe { fork() }.unwrap(), ForkResult::Parent { .. }) {
                    leave(0);
                }
                if entry.confine().is_ok() {
                    let _ = write!(theirs, "{}", std::process::id());
                    drop(theirs);
                    let _ = (&held).read(&mut [0]);
                }
                leave(0)
            }
        };
        drop((theirs, held));
        let mut pid = String::new();
        ours.read_to_string(&mut pid).unwrap();
        let script = format!("for f in environ maps mem; do (: < /proc/{pid}/$f) 2>/dev/null && echo $f; done");
        let found = program(&cell, &script);
        drop(holder);
        waitpid(child, None).unwrap();
        assert!(!pid.is_empty());
        assert_eq!(found, if hides { "" } else { "environ\nmaps\nmem" }, "{hides}");
    }
}

#[test]
fn an_entered_process_has_the_rights_and_namespaces_of_a_program() {
    for builder in [
        Sandbox::builder(),
        Sandbox::builder().keep_id(true),
        Sandbox::builder().user(sandcell::User::Root),
        Sandbox::builder().cap_add(caps::Capability::CAP_NET_BIND_SERVICE),
    ] {
        let cell = builder.build().unwrap().start().unwrap();
        let (said, status) = enter(cell.entry().unwrap(), || read("/proc/self/status")).end();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?} {said}");
        assert_eq!(rights(&said), rights(&program(&cell, "cat /proc/self/status")));
        let names = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"];
        let (said, _) = enter(cell.entry().unwrap(), || {
            let link = |name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
            names.map(link).join("\n")
        })
        .end();
        let script = format!("for n in {}; do readlink /proc/self/ns/$n; done", names.join(" "));
        assert_eq!(said, program(&cell, &script));
        assert_ne!(said.lines().next().unwrap(), std::fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
    }
}

#[test]
fn an_entry_that_travelled_as_a_message_is_the_same_and_one_that_lost_something_is_refused() {
    let cell = Sandbox::builder()
        .rlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 77, 77)
        .build()
        .unwrap()
        .start()
        .unwrap();
    let mut entry = cell.entry().unwrap();
    entry.umask(0o31).current_dir("/tmp").unwrap();
    let (bytes, descriptors) = entry.to_message();
    let copies = || descriptors.iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>();
    let again = Entry::from_message(&bytes, copies()).unwrap();
    let told = || format!("{}{:?}{}", read("/proc/self/status"), std::env::current_dir(), read("/proc/self/limits"));
    let (said, status) = enter(again, told).end();
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?} {said}");
    assert!(said.contains("Umask:\t0031") && said.contains("\"/tmp\"") && said.contains(" 77 "), "{said}");
    let mut other = Vec::new();
    for line in
        said.lines().filter(|line| line.starts_with("Cap") || line.starts_with("Uid") || line.starts_with("Sec"))
    {
        other.push(line.trim_end());
    }
    let status = program(&cell, "cat /proc/self/status");
    assert!(other.len() >= 7 && other.iter().all(|line| status.contains(line)), "{other:?} {status}");
    // One that is lost would be a group that is not joined, and its limits.
    let fewer = copies().into_iter().skip(1).collect();
    for lost in [Entry::from_message(&bytes, fewer), Entry::from_message(&bytes[..bytes.len() - 1], copies())] {
        assert!(lost.unwrap_err().to_string().contains("not that of an entry"));
    }
    for length in 0..bytes.len() {
        assert!(Entry::from_message(&bytes[..length], copies()).is_err(), "{length} of {}", bytes.len());
    }
}

#[test]
fn it_sees_the_files_and_processes_of_the_cell_and_none_of_the_host() {
    let home = Scratch::new();
    let secret = home.file("secret", "secret");
    let cell = sandbox().start().unwrap();
    program(&cell, "echo of the cell >/tmp/file");
    let secret = secret.to_str().unwrap().to_owned();
    let (said, _) = enter(cell.entry().unwrap(), move || {
        let written = std::fs::write("/usr/made", "").unwrap_err();
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter(|name| name.file_name().to_string_lossy().parse::<u32>().is_ok());
        // Init, and what it may have ready for the next command.
        let pids = pids.filter(|pid| read(&format!("{}/comm", pid.path().display())) != "sandcell-init\n").count();
        let dir = std::env::current_dir().unwrap();
        format!("{}{}\n{written}\n{pids}\n{}", read("/tmp/file"), read(&secret), dir.display())
    })
    .end();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "of the cell");
    assert!(lines[1].contains("No such file") && lines[2].contains("Read-only"), "{said}");
    // The process itself.
    assert_eq!(lines[3..], ["1", "/home/cell"], "{said}");
}

#[test]
fn the_system_call_filter_holds() {
    let unshare = || {
        // SAFETY: takes flags.
        let result = unsafe { nix::libc::unshare(nix::libc::CLONE_NEWUSER) };
        format!("{result} {}", std::io::Error::last_os_error())
    };
    let off = Sandbox::builder().seccomp(sandcell::Seccomp::Off).landlock(Landlock::Off).build().unwrap();
    assert_eq!(enter(off.start().unwrap().entry().unwrap(), unshare).end().0.split(' ').next(), Some("0"));
    let cell = sandbox().start().unwrap();
    let (said, status) = enter(cell.entry().unwrap(), unshare).end();
    assert!(said.starts_with("-1 ") || matches!(status, WaitStatus::Exited(_, 159)), "{said} {status:?}");
}

#[test]
#[cfg(feature = "landlock")]
fn landlock_keeps_a_kept_file_from_being_opened_anew() {
    let scratch = Scratch::new();
    let path = scratch.file("file", "text");
    let reopened = |landlock| {
        let file = File::open(&path).unwrap();
        let cell = Sandbox::builder().keep_id(true).landlock(landlock).build().unwrap().start().unwrap();
        let mut entry = cell.entry().unwrap();
        let fd = file.as_raw_fd();
        entry.keep_fd(fd);
        let open = move || match std::fs::OpenOptions::new().append(true).open(format!("/proc/self/fd/{fd}")) {
            Ok(_) => "opened".to_owned(),
            Err(error) => error.to_string(),
        };
        enter(entry, open).end().0
    };
    assert_eq!(reopened(Landlock::Off), "opened");
    if !cell_has_landlock() {
        println!("SKIPPED: no Landlock on this kernel");
        return;
    }
    assert!(reopened(Landlock::Default).contains("Permission denied"));
}

fn cell_has_landlock() -> bool {
    let cell = sandbox().start().unwrap();
    cell.enforced().iter().any(|line| line.item == "landlock" && line.by == sandcell::Mechanism::Landlock)
}

#[test]
fn only_the_descriptors_that_were_named_are_there() {
    let scratch = Scratch::new();
    let [kept, other] = ["kept", "other"].map(|name| File::open(scratch.file(name, name)).unwrap());
    let cell = sandbox().start().unwrap();
    let mut entry = cell.entry().unwrap();
    entry.keep_fd(kept.as_raw_fd());
    let (kept, other) = (kept.as_raw_fd(), other.as_raw_fd());
    let (said, _) = enter(entry, move || {
        // SAFETY: asks about numbers.
        let open = |fd| unsafe { nix::libc::fcntl(fd, nix::libc::F_GETFD) } >= 0;
        let count = std::fs::read_dir("/proc/self/fd").unwrap().count();
        format!("{} {} {count}", open(kept), open(other))
    })
    .end();
    // The kept one, the pipe that tells us, and the one that lists.
    assert_eq!(said, "true false 3");
}

#[test]
fn a_directory_is_refused_as_a_descriptor() {
    let dir = File::open("/").unwrap();
    let cell = sandbox().start().unwrap();
    let mut entry = cell.entry().unwrap();
    entry.keep_fd(dir.as_raw_fd());
    let (said, status) = enter(entry, || "inside".to_owned()).end();
    assert!(matches!(status, WaitStatus::Exited(_, 1)), "{said}");
    assert!(said.contains("a directory cannot be kept"), "{said}");
}

#[test]
fn limits_hold_for_it() {
    use nix::sys::resource::{Resource, getrlimit};
    let sandbox = Sandbox::builder().rlimit(Resource::RLIMIT_NOFILE, 64, 64).umask(0o077).build().unwrap();
    let cell = sandbox.start().unwrap();
    let mut entry = cell.entry().unwrap();
    entry.current_dir("/tmp").unwrap();
    let (said, _) = enter(entry, || {
        let dir = std::env::current_dir().unwrap();
        format!("{:?} {}", getrlimit(Resource::RLIMIT_NOFILE).unwrap(), dir.display())
    })
    .end();
    assert_eq!(said, "(64, 64) /tmp");
    match Sandbox::builder().memory(256 << 20).pids(16).build().unwrap().start() {
        Ok(cell) => {
            let (said, _) = enter(cell.entry().unwrap(), || read("/proc/self/cgroup")).end();
            assert_eq!(said.trim_end(), program(&cell, "cat /proc/self/cgroup"));
            // The twin: the caller itself is elsewhere.
            assert_ne!(said, read("/proc/self/cgroup"));
        }
        Err(Error::Unsupported(failure)) => println!("SKIPPED: {failure}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_end_of_the_cell_is_the_end_of_what_entered_it() {
    let cell = sandbox().start().unwrap();
    let other = cell.clone();
    let killer = std::thread::spawn(move || {
        common::patiently("entering", || program(&other, "cat /tmp/entered 2>/dev/null") == "yes");
        other.kill();
    });
    let entered = enter(cell.entry().unwrap(), || {
        std::fs::write("/tmp/entered", "yes").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1000));
        "lived on".to_owned()
    });
    killer.join().unwrap();
    let (said, status) = entered.end();
    assert_eq!(said, "");
    assert!(matches!(status, WaitStatus::Exited(_, code) if code == 128 + Signal::SIGKILL as i32), "{status:?}");
    let (said, _) = enter(cell.entry().unwrap(), || "inside".to_owned()).end();
    assert!(said.starts_with("enter-cell: ") && said.contains("the cell has ended"), "{said}");
}

#[test]
fn a_process_with_threads_is_refused_and_stays_where_it_is() {
    let here = std::fs::read_link("/proc/self/ns/user").unwrap();
    let cell = sandbox().start().unwrap();
    let entry = cell.entry().unwrap();
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let error = entry.join().unwrap_err();
    assert_eq!(error.stage(), "enter-cell");
    assert!(error.hint().contains("one thread"), "{}", error.hint());
    drop(stop);
    let _ = thread.join();
    assert_eq!(std::fs::read_link("/proc/self/ns/user").unwrap(), here);
}

#[test]
fn a_process_that_was_not_forked_after_joining_is_refused() {
    let cell = sandbox().start().unwrap();
    let (said, _) = enter_by(cell.entry().unwrap(), false, || "inside".to_owned()).end();
    assert!(said.starts_with("enter-outside: "), "{said}");
}

#[test]
fn a_copy_of_the_cell_in_a_forked_process_does_not_end_it() {
    let cell = sandbox().start().unwrap();
    // SAFETY: the child drops a value and ends.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(cell);
            leave(0)
        }
        ForkResult::Parent { child } => {
            waitpid(child, None).unwrap();
            assert_eq!(program(&cell, "echo alive"), "alive");
        }
    }
}
