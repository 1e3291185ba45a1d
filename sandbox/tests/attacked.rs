//! The library's own work, attacked while it goes on: what the escape suite's probe, a program among others, cannot try.
#![allow(unsafe_code)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Scratch, shell, text, told};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;
use sandcell::seccomp::Profile;
use sandcell::{Outcome, Sandbox, Seccomp, Upper, subid_tree};

const TRACES: &str = "SANDCELL_TRACES";

/// Inside: tries to trace every process to come, until /tmp/over is there. Whoever is traced and is no program yet is an escape.
#[test]
fn a_tracer_for_another_test() {
    if std::env::var_os(TRACES).is_none() {
        return;
    }
    // SAFETY: numbers, and a place for a status.
    unsafe {
        let seize = |pid: i32| libc::ptrace(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEEXEC) == 0;
        // The twin: a process of its own.
        let own = libc::fork();
        if own == 0 {
            loop {
                libc::pause();
            }
        }
        println!("\nOWN {}", seize(own));
        libc::kill(own, libc::SIGKILL);
        let (mut refused, mut traced, mut early) = (0u64, 0, 0);
        assert!(!seize(1), "the supervisor");
        fs::write("/tmp/ready", "").unwrap();
        let mut done = own;
        while !Path::new("/tmp/over").exists() {
            // The last field is the last number that was given out in here.
            let last = fs::read_to_string("/proc/loadavg").unwrap();
            let last: i32 = last.split_whitespace().last().unwrap().parse().unwrap();
            for pid in last.max(done + 1)..last + 2 {
                if seize(pid) {
                    traced += 1;
                    done = pid;
                    // The link first: while it is on its way, what it executes is the supervisor.
                    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                    libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
                    let mut status = 0;
                    let mut is_first = true;
                    while libc::waitpid(pid, &raw mut status, libc::__WALL) == pid && libc::WIFSTOPPED(status) {
                        if std::mem::take(&mut is_first) && !is_program(pid, &exe) {
                            early += 1;
                        }
                        libc::ptrace(libc::PTRACE_CONT, pid, 0, 0);
                    }
                } else if std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
                    refused += 1;
                }
            }
        }
        println!("\nREFUSED {refused} TRACED {traced} EARLY {early}");
    }
}

/// Without capabilities and handles of its maker's, behind the filter, and what it was to execute.
fn is_program(pid: i32, exe: &Path) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let has = |line: &str| status.lines().any(|l| l.replace(char::is_whitespace, "") == line);
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().map(|entry| fs::read_link(entry.path()));
    let links: Vec<String> = links.flatten().map(|link| link.display().to_string()).collect();
    // Files of the program's own it may have opened by now.
    let of_its_maker = |link: &String| ["socket:", "anon_inode:", "/memfd:"].iter().any(|kind| link.starts_with(kind));
    let bare = has("CapPrm:0000000000000000") && has("NoNewPrivs:1") && has("Seccomp:2");
    if !bare || links.iter().any(of_its_maker) || exe.to_string_lossy().contains("memfd:") {
        println!("{} with {links:?}: {status}", exe.display());
        return false;
    }
    true
}

/// CVE-2016-9962: a process that is on its way into the sandbox has handles and rights of the outside.
#[test]
fn nothing_inside_can_trace_a_program_before_it_is_one() {
    let profile = Seccomp::Profile(Profile::default().with("ptrace").unwrap());
    let own = std::env::current_exe().unwrap();
    let place = own.parent().unwrap().to_str().unwrap();
    let sandbox = Sandbox::builder().seccomp(profile).ro(place, "/tests").env(TRACES, "1");
    let sandbox = sandbox.timeout(Duration::from_secs(60)).build().unwrap();
    let cell = sandbox.start().unwrap();
    let mut tracer = cell.command(format!("/tests/{}", own.file_name().unwrap().to_str().unwrap()));
    tracer.args(["--exact", "a_tracer_for_another_test", "--nocapture"]);
    tracer.stdout(sandcell::Stdio::Piped).stderr(sandcell::Stdio::Null);
    let mut tracer = tracer.spawn().unwrap();
    common::patiently("the tracer", || told_in(&cell, "test -e /tmp/ready && echo yes") == "yes");
    for _ in 0..1000 {
        // One that was caught goes on and ends as well.
        assert_eq!(cell.command("/bin/true").status().unwrap().outcome, Outcome::Exited(0));
    }
    told_in(&cell, "touch /tmp/over");
    let said = text(&tracer.wait_with_output(None).unwrap().stdout);
    assert!(said.contains("OWN true"), "{said}");
    let figure = |name: &str| said.split_whitespace().skip_while(|word| *word != name).nth(1).unwrap().parse::<u64>();
    println!("{said}");
    // Most are caught on the way: each of these calls would have had what the outside has.
    assert!(figure("REFUSED").unwrap() > 0, "{said}");
    assert_eq!(figure("EARLY"), Ok(0), "{said}");
}

fn told_in(cell: &sandcell::Cell, script: &str) -> String {
    text(&cell.command("/bin/sh").args(["-c", script]).output().unwrap().stdout)
}

/// CVE-2024-21626: a working directory that is a descriptor of whoever prepares the program.
#[test]
fn a_working_directory_by_proc_does_not_lead_out() {
    let scratch = Scratch::new();
    scratch.file("canary", "secret of the caller");
    let leaked = fs::File::open(scratch.path()).unwrap();
    // SAFETY: numbers.
    let number = unsafe { libc::fcntl(leaked.as_raw_fd(), libc::F_DUPFD, 40) };
    assert!(number >= 40);
    // The twin: without a sandbox it leads there.
    let twin = std::process::Command::new("cat").arg("canary").current_dir(format!("/proc/self/fd/{number}")).output();
    assert_eq!(text(&twin.unwrap().stdout), "secret of the caller");

    let shared = scratch.dir("shared");
    symlink(format!("/proc/self/fd/{number}"), shared.join("link")).unwrap();
    let sandbox = Sandbox::builder().ro(&shared, "/shared").build().unwrap();
    let cell = sandbox.start().unwrap();
    let mut places: Vec<String> = (0..64).map(|fd| format!("/proc/self/fd/{fd}")).collect();
    places.extend(["/proc/1/cwd", "/proc/1/root", "/proc/1/fd/0", "/shared/link"].map(str::to_owned));
    for place in &places {
        for mut command in [sandbox.command("/bin/sh"), cell.command("/bin/sh")] {
            command.args(["-c", "pwd -P; cat canary ./canary /proc/self/cwd/canary; cd ..; cat */canary"]);
            match command.current_dir(place).output() {
                Ok(output) => assert!(!text(&output.stdout).contains("secret"), "{place}: {output:?}"),
                Err(error) => assert!(!error.stage().is_empty(), "{error}"),
            }
        }
    }
    // SAFETY: made above.
    unsafe { libc::close(number) };
}

/// CVE-2024-32462 and its kind: a name that is taken for an option, or for a list.
#[test]
fn names_that_look_like_something_else_are_taken_as_they_are() {
    const NAMES: [&str; 9] =
        ["-rf", "--help", "-o remount,rw", "a,b=c:d", "line\nfeed", "=", "$(id) `id` %s", "\\", " \" ' "];
    for name in NAMES {
        let scratch = Scratch::new();
        let layer = scratch.dir(&format!("layer/{name}"));
        scratch.file(&format!("layer/{name}/of-the-layer"), name);
        let source = scratch.dir(&format!("source/{name}"));
        let program =
            scratch.file(&format!("source/{name}/{name}"), "#!/bin/sh\nprintf '%s|' \"$0\" \"$@\"; cat \"$1\"");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let upper = scratch.dir(&format!("upper/{name}"));
        let base = |builder: sandcell::Builder| {
            builder.ro(&source, format!("/ro/{name}")).rw(&source, format!("/rw/{name}")).env("NAME", name)
        };
        let inside = format!("/ro/{name}/{name}");
        let output = base(Sandbox::builder())
            .build()
            .unwrap()
            .command(&inside)
            .args([name, "--"])
            .current_dir(format!("/rw/{name}"))
            .output();
        let output = output.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        // By its own path, and `cat` then takes the name for what it is.
        assert!(text(&output.stdout).starts_with(&format!("{inside}|{name}|--|")), "{name:?}: {output:?}");

        let sandbox = base(Sandbox::builder().layer(&layer).ro("/usr", "/usr").upper(Upper::Dir(upper.clone())));
        let sandbox = match fs::read_link("/bin") {
            Ok(_) => sandbox.ro("/usr/bin", "/bin").ro("/usr/lib", "/lib").ro("/usr/lib64", "/lib64"),
            Err(_) => sandbox.ro("/bin", "/bin").ro("/lib", "/lib").ro("/lib64", "/lib64"),
        };
        let script = "cat /of-the-layer; printf %s \"$NAME\" >\"/$NAME\"; cp /of-the-layer \"/rw/$NAME/copied\"";
        assert_eq!(told(sandbox, script), name, "{name:?}");
        assert_eq!(fs::read_to_string(source.join("copied")).unwrap(), name);
        let copy = scratch.path().join(format!("copy {name}"));
        subid_tree::copy_out(&upper, &copy).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let copied = subid_tree::list(&copy).unwrap();
        assert!(copied.iter().any(|entry| entry.path.file_name() == Some(OsStr::new(name))), "{name:?}: {copied:?}");
        subid_tree::remove(&upper).unwrap();
        assert!(!upper.exists());
    }
}

/// CVE-2021-30465, CVE-2018-15664, CVE-2023-0778: where a mount goes, or what is copied, becomes a link meanwhile.
#[test]
fn a_target_that_turns_into_a_link_leads_nothing_outside() {
    let scratch = Scratch::new();
    let outside = scratch.dir("outside");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("canary"), "secret").unwrap();
    let shared = scratch.dir("shared");
    let (plain, link) = (shared.join("target"), shared.join("other"));
    fs::create_dir(&plain).unwrap();
    symlink(&outside, &link).unwrap();
    let source = scratch.dir("source");
    let upper = scratch.dir("upper");
    let swapped = |body: &mut dyn FnMut()| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = || renameat2(AT_FDCWD, &plain, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE);
                while !over.load(Ordering::Relaxed) {
                    exchange().unwrap();
                }
            });
            body();
            over.store(true, Ordering::Relaxed);
        });
    };
    // The twin: whoever goes by the path gets there.
    let mut seen = (0, 0);
    swapped(&mut || {
        for _ in 0..100_000 {
            match plain.join("canary").exists() {
                true => seen.0 += 1,
                false => seen.1 += 1,
            }
            if seen.0 * seen.1 > 0 {
                return;
            }
        }
    });
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");

    let sandbox = Sandbox::builder().rw(&shared, "/shared").ro(&source, "/shared/target/made/deep").build().unwrap();
    let mut outcomes = (0, 0);
    swapped(&mut || {
        for _ in 0..200 {
            match shell(&sandbox, "cat /shared/target/canary /shared/other/canary 2>/dev/null; ls /shared").output() {
                Ok(output) => {
                    assert!(!text(&output.stdout).contains("secret"), "{output:?}");
                    outcomes.0 += 1;
                }
                Err(error) => {
                    assert!(!error.stage().is_empty() && error.errno() != Some(0), "{error}");
                    outcomes.1 += 1;
                }
            }
        }
    });
    println!("{outcomes:?}");
    let names = || fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    assert_eq!(names(), ["canary"]);

    // What is copied out of a tree whose directories are exchanged for links: the link, or the directory.
    fs::write(if plain.is_symlink() { &link } else { &plain }.join("own"), "own").unwrap();
    swapped(&mut || {
        for round in 0..200 {
            let copy = upper.join(round.to_string());
            // An entry may be gone when it is looked at: that is an error.
            let _ = subid_tree::copy_out(&shared, &copy);
            for entry in walk(&copy) {
                let secret = !entry.is_symlink() && fs::read(&entry).is_ok_and(|content| content == b"secret");
                assert!(!secret || entry.is_symlink(), "{}", entry.display());
            }
        }
    });
}

/// Files beneath a directory; links are not followed.
fn walk(top: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(walk(&path)),
            _ => found.push(path),
        }
    }
    found
}
