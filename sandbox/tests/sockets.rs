//! Unix sockets of the host in a sandbox.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use common::{Scratch, run, text, told};
use sandcell::{Allow, Builder, HostIds, Mechanism, Mount, Sandbox};

/// A socket that answers each client with what it has said.
fn echo(path: &Path, mode: u32) -> PathBuf {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut said = String::new();
            let _ = client.read_to_string(&mut said);
            let _ = client.write_all(said.to_uppercase().as_bytes());
        }
    });
    path.to_owned()
}

/// Talks to a socket; the error's number where that fails.
const TALK: &str = r#"
import socket, sys
one = socket.socket(socket.AF_UNIX)
try:
    one.connect(sys.argv[1])
except OSError as error:
    sys.exit(print("errno", error.errno))
one.send(b"hello"); one.shutdown(1); print(one.recv(99).decode())
"#;

fn talk(builder: Builder, path: &str) -> String {
    told(builder.file("/run/talk", TALK), &format!("python3 /run/talk {path}"))
}

fn refused(builder: Builder) -> sandcell::Error {
    match builder.build() {
        Ok(sandbox) => sandbox.command("true").output().unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn a_socket_is_reached_where_it_is_shown_and_without_that_nowhere() {
    let scratch = Scratch::new();
    let socket = echo(&scratch.path().join("service"), 0o666);
    let place = format!("{}", socket.display());
    assert_eq!(talk(Sandbox::builder().socket(&socket, "/run/service"), "/run/service"), "HELLO");
    assert_eq!(talk(Sandbox::builder().socket(&socket, "/opt/a/b/service"), "/opt/a/b/service"), "HELLO");
    assert_eq!(talk(Sandbox::builder(), &place), "errno 2");
    // Nothing but to connect: it is a mount of its own, without any right.
    let script =
        "rm -f /run/service; chmod 600 /run/service; grep ' /run/service ' /proc/self/mountinfo | cut -d' ' -f6";
    let output = run(Sandbox::builder().socket(&socket, "/run/service"), script);
    assert!(text(&output.stdout).starts_with("ro,nosuid,nodev,noexec"), "{output:?}");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
}

#[test]
fn a_socket_of_the_callers_alone_is_reached_under_the_callers_id_or_refused() {
    let scratch = Scratch::new();
    let socket = echo(&scratch.path().join("service"), 0o600);
    let builder = || Sandbox::builder().socket(&socket, "/run/service");
    assert_eq!(talk(builder(), "/run/service"), "HELLO");
    if !common::is_root() {
        let error = refused(builder().host_ids(HostIds::Disjoint));
        assert!(error.kind() == "unsupported" && error.to_string().contains("others may not connect"), "{error}");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o400)).unwrap();
        let error = refused(builder());
        assert_eq!((error.stage(), error.subject()), ("usable", "/run/service"), "{error}");
    }
}

#[test]
fn what_is_no_socket_is_refused() {
    let scratch = Scratch::new();
    for (path, words) in [
        (scratch.file("file", ""), "is no Unix socket"),
        (scratch.dir("dir"), "is no Unix socket"),
        (scratch.path().join("missing"), "cannot be used"),
    ] {
        let error = refused(Sandbox::builder().socket(&path, "/run/service"));
        assert!(error.kind() == "config" && error.to_string().contains(words), "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
}

#[test]
fn the_socket_of_a_container_engine_is_refused_by_any_name_unless_it_is_insisted_upon() {
    let scratch = Scratch::new();
    for name in ["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock", "bus"] {
        let socket = echo(&scratch.path().join(name), 0o666);
        let link = scratch.path().join("harmless");
        let _ = fs::remove_file(&link);
        symlink(&socket, &link).unwrap();
        for path in [&socket, &link] {
            for mount in
                [Mount::socket(path, "/run/x"), Mount::bind(path, "/run/x", false), Mount::bind(path, "/run/x", true)]
            {
                let wait = std::time::Duration::from_secs(100);
                let builder = || Sandbox::builder().mount(mount.clone()).wait_for_ids(wait);
                let error = refused(builder());
                assert!(
                    error.kind() == "config" && error.to_string().contains("gives whoever reaches it the host"),
                    "{error}"
                );
                assert!(error.hint().contains("engine-socket"), "{error}");
                let output = run(builder().allow(Allow::EngineSocket), "test -S /run/x && echo there");
                assert_eq!(text(&output.stdout), "there");
                let line =
                    output.report.enforced.iter().find(|line| line.item == "socket").expect("the report says so");
                assert!(line.by == Mechanism::Nothing && line.why.is_some(), "{line:?}");
            }
        }
    }
}

/// In a process of its own, whose environment is what the test is about.
#[test]
fn programs_are_told_of_a_socket_that_the_caller_is_told_of() {
    const AGAIN: &str = "SANDCELL_SOCKETS_AGAIN";
    let tell = "echo ${SSH_AUTH_SOCK-none} ${WAYLAND_DISPLAY-none} ${DBUS_SESSION_BUS_ADDRESS-none}";
    if let Some(dir) = env::var_os(AGAIN) {
        let dir = PathBuf::from(dir);
        let shown = |name: &str| Sandbox::builder().allow(Allow::EngineSocket).socket(dir.join(name), "/run/it");
        assert_eq!(told(shown("agent"), tell), "/run/it none none");
        assert_eq!(told(shown("wayland-7"), tell), "none /run/it none");
        assert_eq!(told(shown("bus"), tell), "none none unix:path=/run/it");
        assert_eq!(told(shown("other"), tell), "none none none");
        assert_eq!(told(shown("agent").env("SSH_AUTH_SOCK", "mine"), tell), "mine none none");
        return;
    }
    let scratch = Scratch::new();
    for name in ["agent", "wayland-7", "bus", "other"] {
        echo(&scratch.path().join(name), 0o666);
    }
    // A link is the same socket.
    symlink(scratch.path().join("agent"), scratch.path().join("link")).unwrap();
    let output = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "programs_are_told_of_a_socket_that_the_caller_is_told_of", "--nocapture"])
        .env(AGAIN, scratch.path())
        .env("SSH_AUTH_SOCK", scratch.path().join("link"))
        .env("XDG_RUNTIME_DIR", scratch.path())
        .env("WAYLAND_DISPLAY", "wayland-7")
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={},guid=0", scratch.path().join("bus").display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn an_ssh_agent_is_used_from_inside() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("agent");
    let key = scratch.path().join("key");
    let sh = format!(
        "ssh-keygen -q -t ed25519 -N '' -C inside -f '{key}' && eval $(ssh-agent -a '{socket}') >/dev/null && \
         SSH_AUTH_SOCK='{socket}' ssh-add -q '{key}' && echo $SSH_AGENT_PID",
        key = key.display(),
        socket = socket.display()
    );
    let output = std::process::Command::new("sh").args(["-c", &sh]).output().unwrap();
    if !output.status.success() {
        return println!("SKIPPED: no ssh-agent: {}", text(&output.stderr));
    }
    let pid: i32 = text(&output.stdout).trim().parse().unwrap();
    let list = |builder: Builder| run(builder.env("SSH_AUTH_SOCK", "/run/agent").keep_id(true), "ssh-add -l");
    let (with, without) = (list(Sandbox::builder().socket(&socket, "/run/agent")), list(Sandbox::builder()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(text(&with.stdout).contains("inside (ED25519)"), "{with:?}");
    assert_eq!(text(&without.stdout), "");
}
