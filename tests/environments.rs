//! Odd callers and odd hosts: a sandbox is started there as anywhere, or one clear error tells why not.

use sandcell_tests::escape::build;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn cell() -> &'static str {
    env!("CARGO_BIN_EXE_escape-cell")
}

/// `wrapper` gets the program and its arguments behind its own; nothing may take longer than half a minute.
fn start(wrapper: &[&str], program: &str) -> Output {
    let mut words = vec!["timeout", "-k", "1", "30"];
    words.extend(wrapper);
    words.extend([cell(), "--", program]);
    Command::new(words[0]).args(&words[1..]).output().unwrap()
}

fn runs(wrapper: &[&str]) {
    let output = start(wrapper, "/bin/true");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrapper:?}: {:?} {complaint}", output.status);
}

/// The error's stage stands in brackets, the remedy behind `hint:`.
fn is_refused(wrapper: &[&str], stage: &str, hint: &str) {
    let output = start(wrapper, "/bin/true");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{wrapper:?}: {complaint}");
    let ours: Vec<&str> = complaint.lines().filter(|line| line.starts_with("escape-cell: ")).collect();
    assert_eq!(ours.len(), 1, "{complaint}");
    assert!(ours[0].ends_with(&format!("[{stage}]")) && complaint.contains(hint), "{complaint}");
}

fn is_root() -> bool {
    // SAFETY: a call without arguments or effects.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn a_caller_with_odd_streams_directories_and_variables_is_served() {
    runs(&[]);
    for script in [
        r#"exec "$@" <&-"#,
        r#""$@" <&- >&- 2>&-"#,
        r#"directory=$(mktemp -d); cd "$directory"; rmdir "$directory"; exec "$@""#,
        r#"umask 0777; exec "$@""#,
        r#"trap '' CHLD HUP TERM PIPE; exec "$@""#,
        r#"exec env -i "$@""#,
        r#"TMPDIR=/nonexistent HOME=/nonexistent XDG_RUNTIME_DIR=/nonexistent exec "$@""#,
        r#"cd /proc/self/fd; exec "$@""#,
    ] {
        runs(&["sh", "-c", script, "sh"]);
    }
}

#[test]
fn a_caller_with_odd_attributes_is_served() {
    runs(&["setpriv", "--no-new-privs"]);
    runs(&["prlimit", "--core=unlimited", "--stack=8388608"]);
    runs(&["nice", "-n", "15"]);
    runs(&["setsid", "-w"]);
    let prepare = |line: &str| {
        format!("import ctypes, os, signal, sys\nlibc = ctypes.CDLL(None)\n{line}\nos.execv(sys.argv[1], sys.argv[1:])")
    };
    for line in [
        "libc.prctl(36, 1)",
        "libc.prctl(4, 0)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "os.set_inheritable(os.open('/', os.O_RDONLY), True)",
        "import resource; top = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (top, top)); os.dup2(0, top - 1)",
    ] {
        runs(&["python3", "-c", &prepare(line)]);
    }
}

#[test]
fn a_caller_that_is_short_of_something_gets_one_clear_error_or_a_sandbox() {
    for limit in ["--nofile=16", "--nofile=24", "--nofile=40", "--nproc=1", "--as=100000000"] {
        let output = start(&["prlimit", limit], "/bin/true");
        let complaint = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => assert!(complaint.is_empty(), "{limit}: {complaint}"),
            Some(125) => {
                assert!(complaint.starts_with("escape-cell: ") && complaint.contains(']'), "{limit}: {complaint}");
                assert!(complaint.contains("hint: "), "{limit}: {complaint}");
            }
            other => panic!("{limit}: {other:?} {complaint}"),
        }
    }
}

#[test]
fn containers_of_others_hold_sandboxes_where_they_allow_them() {
    const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--mount", "--pid"];
    runs(&[&UNSHARE[..], &["--fork", "--kill-child", "--mount-proc"]].concat());
    let hidden = r#"mount -t proc -o hidepid=2 proc /proc && exec "$@""#;
    runs(&[&UNSHARE[..], &["--fork", "--kill-child", "sh", "-c", hidden, "sh"]].concat());
    runs(&["bwrap", "--dev-bind", "/", "/"]);
    // The kernel shows no whole /proc to whoever was given one with covers on it, as bubblewrap gives it to root.
    let masked =
        ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"];
    if is_root() { is_refused(&masked, "fsmount", "masked") } else { runs(&masked) }
}

#[test]
fn a_host_with_odd_mounts_or_clocks_holds_sandboxes() {
    for script in [
        "mount -t tmpfs -o noexec,nosuid,nodev none /tmp",
        "mount -t tmpfs -o size=4k,nr_inodes=2 none /tmp",
        "mount -t tmpfs -o ro none /tmp",
        "mount -t tmpfs none /run && mount -t tmpfs none /dev/shm",
    ] {
        // The program is opened before: what was built may lie beneath what is covered.
        let script = format!(r#"exec 9<"$1" && shift && {script} && exec /proc/self/fd/9 "$@""#);
        runs(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    }
    // Everything read-only but what has to be written: /proc for the maps.
    runs(&["bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc"]);
    let later = ["unshare", "--user", "--map-root-user", "--time", "--fork", "--kill-child"];
    runs(&[&later[..], &["--monotonic", "1000000", "--boottime", "1000000"]].concat());
}

/// The kernel makes no user namespaces for whom chroot(2) has put beneath the root of its mounts.
#[test]
fn a_changed_root_is_named() {
    let script = r#"mount --rbind / /mnt && exec chroot /mnt "$@""#;
    is_refused(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"], "clone", "chroot");
}

#[test]
fn a_host_without_user_namespaces_is_named_with_the_remedy() {
    // In a user namespace the number holds for that namespace alone.
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces && exec "$@""#;
    is_refused(
        &["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"],
        "clone",
        "sysctl user.max_user_namespaces",
    );
}

#[test]
fn a_place_without_proc_is_named() {
    is_refused(&["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/proc"], "image", "mount proc there");
}

#[test]
fn a_sandbox_in_a_sandbox_is_refused_with_what_is_in_its_way() {
    let sandcell: PathBuf = build::sandcell().unwrap();
    let directory = Path::new(cell()).parent().unwrap();
    let show = format!("{}:/inner", directory.display());
    let outer = |options: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "30"]).arg(&sandcell).args(["run", "--ro", &show]).args(options);
        command.args(["--", "/inner/escape-cell", "--", "/bin/true"]).output().unwrap()
    };
    for (options, stage, hint) in [
        (&[][..], "[clone]", "forbids user namespaces"),
        (&["--seccomp", "off", "--landlock", "off"][..], "[fsmount]", "masked"),
    ] {
        let output = outer(options);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{options:?}: {complaint}");
        assert!(complaint.contains(stage) && complaint.contains(hint), "{options:?}: {complaint}");
    }
}

#[test]
fn a_root_without_capabilities_is_told_which_one_it_needs() {
    if !is_root() {
        println!("SKIPPED: only root can give its capabilities up");
        return;
    }
    is_refused(&["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "uid-map", "CAP_SETFCAP");
}
