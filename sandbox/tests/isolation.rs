//! The tier without namespaces: what holds, what is refused, what the report says is open, and that nothing survives.
#![cfg(feature = "landlock")]

mod common;

use std::process::{Command, Stdio};

use common::{Scratch, marker, patiently, processes_with, run, shell, text, told};
use sandcell::{Builder, Isolation, Leftovers, Mechanism, Network, Outcome, Root, Sandbox, User};

fn bare() -> Builder {
    Sandbox::builder().isolation(Isolation::Landlock)
}

#[test]
fn a_program_runs_without_a_namespace_and_without_rights() {
    let said = told(bare(), "echo begun; cat /proc/self/status; readlink /proc/self/ns/user /proc/self/ns/mnt");
    let ns = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert!(said.starts_with("begun\n") && said.ends_with(&format!("{}\n{}", ns("user"), ns("mnt"))), "{said}");
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

#[test]
fn the_tier_is_never_chosen_silently_where_user_namespaces_are_forbidden() {
    let test = "the_tier_is_never_chosen_silently_where_user_namespaces_are_forbidden";
    if std::env::var_os("SANDCELL_FORBIDDEN").is_none() {
        // The host that forbids them is a user namespace in which their number is 0.
        let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --exact {test} --nocapture");
        let mut command = Command::new("unshare");
        command.args(["-r", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        let output = command.env("SANDCELL_FORBIDDEN", "1").output().unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let error = shell(&common::sandbox(), "true").output().unwrap_err();
    assert_eq!((error.kind(), error.stage()), ("unsupported", "clone"), "{error}");
    assert!(error.hint().contains("isolation"), "{}", error.hint());
    assert_eq!(told(bare(), "echo here"), "here");
}

#[test]
fn files_are_read_and_written_only_where_that_was_asked_for() {
    let scratch = Scratch::new();
    let (open, shut) = (scratch.dir("open"), scratch.dir("shut"));
    let secret = scratch.file("shut/secret", "secret");
    let read = scratch.file("read", "may be read");
    let script = format!(
        "cat {read}; cat {secret}; ls {shut}; echo x > {shut}/f; echo x > {read}; echo x > {open}/f && cat {open}/f; \
         ls /tmp; ls /root /home; echo x > /etc/f; mkdir {shut}-d; head -c 1 /dev/zero | wc -c; echo x > /dev/null && echo end",
        read = read.display(),
        secret = secret.display(),
        shut = shut.display(),
        open = open.display()
    );
    let outside = Command::new("sh").args(["-c", &format!("cat {}", secret.display())]).output().unwrap();
    assert_eq!(text(&outside.stdout), "secret");
    let output = run(bare().rw(&open, &open).ro(&read, &read), &script);
    assert_eq!(text(&output.stdout), "may be readx\n1\nend", "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).matches("ermission denied").count(), 9, "{}", text(&output.stderr));
}

/// There is no other id that the modes of /etc would keep out.
#[test]
fn of_etc_root_reads_what_everybody_may_and_an_ordinary_user_what_it_may() {
    let script = "cat /etc/passwd >/dev/null && ls /etc >/dev/null && echo read; cat /etc/shadow";
    let output = run(bare(), script);
    assert_eq!((text(&output.stdout), &output.outcome), ("read".into(), &Outcome::Exited(1)), "{output:?}");
    // The twin: root reads it where that was asked for.
    let output = run(bare().ro("/etc/shadow", "/etc/shadow"), script);
    assert_eq!(output.outcome == Outcome::Exited(0), common::is_root(), "{output:?}");
}

#[test]
fn other_processes_of_the_caller_cannot_be_signalled_traced_or_looked_into() {
    let mut victim = Command::new("sleep").arg("1000").env("SECRET", "secret").stdout(Stdio::null()).spawn().unwrap();
    let pid = victim.id();
    let script = format!("cat /proc/{pid}/environ; kill -0 {pid}; kill -9 {pid}; kill -9 $PPID; cat /proc/{pid}/comm");
    let environ = || std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    patiently("its environment", || text(&environ()).contains("SECRET=secret"));
    let output = run(bare(), &script);
    let alive = victim.try_wait().unwrap().is_none();
    let _ = victim.kill();
    victim.wait().unwrap();
    assert!(alive && !text(&output.stdout).contains("secret"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).ends_with("sleep"), "{} {}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn limits_and_priorities_of_other_processes_are_theirs_and_its_own_can_be_changed() {
    let mut victim = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let script = format!(
        "import os, resource as r
pid = {pid}
def may(what, *arguments):
    try: what(*arguments); print('done', end=' ')
    except PermissionError: print('refused', end=' ')
for who in (pid, 0):
    may(r.prlimit, who, r.RLIMIT_NOFILE, (100, 100))
    may(os.setpriority, os.PRIO_PROCESS, who, 19)
    may(os.sched_setaffinity, who, os.sched_getaffinity(0))
may(os.setpriority, os.PRIO_USER, 0, 0 if os.getuid() == 0 else 19)",
        pid = victim.id()
    );
    // Without its last line, which is about every process of the user.
    let outside = Command::new("/usr/bin/python3").args(["-c", script.rsplit_once('\n').unwrap().0]).output();
    let inside = bare().build().unwrap().command("/usr/bin/python3").args(["-c", &script]).output();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(text(&outside.unwrap().stdout).matches("done").count(), 6);
    assert_eq!(text(&inside.unwrap().stdout), "refused refused refused done done done refused ");
}

#[test]
fn modes_and_times_of_the_callers_files_can_be_changed_only_by_who_may_write_somewhere() {
    let scratch = Scratch::new();
    let (file, open) = (scratch.file("file", "text"), scratch.dir("open"));
    let script = format!("chmod 600 {0}; touch -d 2001-01-01 {0}; stat -c '%a %Y' {0}", file.display());
    let now = told(bare(), &format!("stat -c '%a %Y' {}", file.display()));
    let output = run(bare().ro(&file, &file), &script);
    assert_eq!(text(&output.stdout), now, "{}", text(&output.stderr));
    let held = |output: &sandcell::Output| {
        let asked = sandcell::Requested::Word("file metadata".to_owned());
        output.enforced.iter().find(|e| e.requested == asked).unwrap().by
    };
    assert_eq!(held(&output), Mechanism::Seccomp);
    // The twin: a writable directory is of little use without, and the report says what that means.
    let output = run(bare().rw(&open, &open), &format!("touch {0}/f && chmod 600 {0}/f && {script}", open.display()));
    assert!(text(&output.stdout).starts_with("600 "), "{}", text(&output.stderr));
    assert_eq!(held(&output), Mechanism::Nothing);
}

#[test]
fn a_profile_that_refuses_pairs_of_sockets_is_not_widened() {
    use sandcell::seccomp::{Action, Profile};
    let refused = Action::Errno(nix::errno::Errno::EPERM as u16);
    let profile = Profile::new(Action::Allow).rule(&["socketpair"], refused, &[]).unwrap();
    let script = "import socket
try: socket.socketpair(); print('open')
except PermissionError: print('refused')";
    for (builder, expected) in [(bare().seccomp(sandcell::Seccomp::Profile(profile)), "refused"), (bare(), "open")] {
        let output = builder.build().unwrap().command("/usr/bin/python3").args(["-c", script]).output().unwrap();
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    }
}

#[test]
fn no_socket_can_be_opened_unless_the_hosts_network_was_asked_for() {
    let script = "import socket
for family, kind in ((socket.AF_INET, 1), (socket.AF_UNIX, 1), (socket.AF_UNIX, 2), (socket.AF_NETLINK, 3)):
    try: socket.socket(family, kind); print('open')
    except PermissionError: print('refused')
for kind in (1, 2, 5):
    try: a, b = socket.socketpair(socket.AF_UNIX, kind); a.send(b'x'); print(b.recv(1))
    except PermissionError: print('refused')";
    let said = |builder: Builder| {
        let output = builder.build().unwrap().command("/usr/bin/python3").args(["-c", script]).output().unwrap();
        assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
        text(&output.stdout).replace('\n', " ")
    };
    for network in [Network::Loopback, Network::None] {
        assert_eq!(said(bare().network(network)), "refused refused refused refused b'x' refused b'x'");
    }
    assert_eq!(said(bare().network(Network::Host)), "open open open open b'x' b'x' b'x'");
}

#[test]
fn the_report_says_what_is_not_isolated() {
    let output = run(bare(), "true");
    let line = |item: &str, word: &str| {
        let asked = sandcell::Requested::Word(word.to_owned());
        output
            .enforced
            .iter()
            .find(|e| e.item == item && e.requested == asked)
            .unwrap_or_else(|| panic!("{item} {word}"))
    };
    for (item, word) in [
        ("identity", "random"),
        ("isolation", "mounts"),
        ("isolation", "processes"),
        ("isolation", "hostname"),
        ("isolation", "temporary directories"),
    ] {
        let line = line(item, word);
        assert!(line.by == Mechanism::Nothing && line.why.is_some(), "{line:?}");
    }
    assert_eq!((line("network", "loopback").by, line("isolation", "ipc").by), (Mechanism::Seccomp, Mechanism::Seccomp));
    assert_eq!(line("landlock", "files").by, Mechanism::Landlock);
    // Root may lay its groups down.
    let by = if common::is_root() { Mechanism::Supervisor } else { Mechanism::Nothing };
    assert_eq!(line("groups", "none").by, by);
    assert_eq!(output.identity.host_uid, nix::unistd::geteuid().as_raw());
}

#[test]
fn what_only_namespaces_can_give_is_refused_by_name() {
    let refused: [(&str, Builder); 11] = [
        ("root", bare().root(Root::Empty)),
        ("root", bare().layer("/usr")),
        ("mount", bare().ro("/usr", "/elsewhere")),
        ("tmpfs", bare().tmpfs("/scratch", None)),
        ("file", bare().file("/file", "text")),
        ("user", bare().user(User::Root)),
        ("identity", bare().id_count(2)),
        ("hostname", bare().hostname("name")),
        ("disk", bare().disk(1 << 20)),
        ("cap_add", bare().cap_add(sandcell::Capability::CAP_NET_RAW)),
        ("landlock", bare().landlock(sandcell::Landlock::Off)),
    ];
    for (subject, builder) in refused {
        let error = builder.build().unwrap_err();
        assert_eq!((error.kind(), error.subject()), ("config", subject), "{error}");
        assert!(!error.hint().is_empty());
    }
    assert!(bare().user(User::Caller).ro("/usr", "/usr").build().is_ok());
}

#[test]
fn nothing_survives_the_program_however_it_hides() {
    let name = marker();
    // In a session of its own, ignoring signals, its parent gone.
    let executed = common::until_executed(&name, 2);
    let script = format!("setsid sh -c 'trap \"\" HUP TERM; sleep {name} & sleep {name}' & {executed}; echo done");
    let output = run(bare().leftovers(Leftovers::Report), &script);
    assert_eq!(text(&output.stdout), "done");
    assert!(output.leftovers.iter().any(|l| l.command.contains(&name)), "{:?}", output.leftovers);
    assert!(output.leftovers.iter().all(|l| l.command.contains(&name)), "not ours: {:?}", output.leftovers);
    assert_eq!(processes_with(&name), Vec::<u32>::new());
}

#[test]
fn nothing_survives_a_timeout_a_kill_a_dropped_handle_or_a_cell() {
    let sandbox = bare().grace(std::time::Duration::ZERO).build().unwrap();
    let name = marker();
    let script = format!("setsid sleep {name} & sleep {name}");
    let gone = || patiently("the end of all", || processes_with(&name).is_empty());
    let there = || patiently("their start", || processes_with(&name).len() == 2);
    let output = shell(&sandbox, &script).timeout(std::time::Duration::from_millis(300)).output().unwrap();
    assert_eq!(output.outcome, Outcome::TimedOut);
    gone();
    let mut child = shell(&sandbox, &script).spawn().unwrap();
    there();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Killed);
    gone();
    let child = shell(&sandbox, &script).spawn().unwrap();
    there();
    drop(child);
    gone();
    let cell = sandbox.start().unwrap();
    let child = cell.command("/bin/sh").args(["-c", &script]).spawn().unwrap();
    there();
    cell.kill();
    gone();
    drop(child);
}

#[test]
fn nothing_survives_the_caller() {
    let test = "nothing_survives_the_caller";
    if let Some(name) = std::env::var_os("SANDCELL_MARKER") {
        let name = name.to_str().unwrap().to_owned();
        let _child = shell(&bare().build().unwrap(), &format!("setsid sleep {name} & sleep {name}")).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
    let name = marker();
    let mut caller = Command::new(std::env::current_exe().unwrap());
    let mut caller =
        caller.args(["--exact", test]).env("SANDCELL_MARKER", &name).stdout(Stdio::null()).spawn().unwrap();
    patiently("the start", || processes_with(&name).len() == 2);
    caller.kill().unwrap();
    caller.wait().unwrap();
    patiently("the end of all", || processes_with(&name).is_empty());
}

#[test]
fn a_thread_that_ends_does_not_end_its_program() {
    let sandbox = bare().build().unwrap();
    let mut child = std::thread::spawn(move || shell(&sandbox, "sleep 0.3; exit 7").spawn().unwrap()).join().unwrap();
    assert_eq!(child.wait().unwrap().outcome, Outcome::Exited(7));
}

#[test]
fn a_program_ends_with_its_supervisor() {
    let (name, sandbox) = (marker(), bare().build().unwrap());
    let mut child = sandbox.command("/bin/sleep").arg(&name).spawn().unwrap();
    patiently("the start", || !processes_with(&name).is_empty());
    let program = processes_with(&name)[0];
    let stat = std::fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
    let supervisor: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{supervisor}/comm")).unwrap().trim(), "sandcell-init");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
    patiently("the program's end", || processes_with(&name).is_empty());
    assert_eq!(child.wait().unwrap_err().kind(), "io");
}

#[test]
#[cfg(feature = "json")]
fn it_works_under_dockers_default_profile_where_namespaces_do_not() {
    let test = "it_works_under_dockers_default_profile_where_namespaces_do_not";
    if std::env::var_os("SANDCELL_DOCKER").is_some() {
        let error = shell(&common::sandbox(), "true").output().unwrap_err();
        // With sub-ids it is the namespace that maps them which cannot be made.
        assert!(["clone", "user-namespace"].contains(&error.stage()), "{error}");
        assert_eq!(error.errno(), Some(1), "{error}");
        assert_eq!(told(bare(), "echo here"), "here");
        return;
    }
    let moby = sandcell::seccomp::Profile::from_json(include_str!("data/moby-default-seccomp.json")).unwrap();
    let program = std::env::current_exe().unwrap();
    let like_docker = bare().network(Network::Host).seccomp(sandcell::Seccomp::Profile(moby)).ro(&program, &program);
    let sandbox = like_docker.build().unwrap();
    let mut command = sandbox.command(&program);
    let output = command.args(["--exact", test]).env("SANDCELL_DOCKER", "1").output().unwrap();
    assert!(text(&output.stdout).contains("1 passed"), "{}{}", text(&output.stdout), text(&output.stderr));
}
