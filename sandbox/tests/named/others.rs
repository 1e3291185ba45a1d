//! Nobody else has a part in a named cell: no other user, and nothing inside.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::common::{is_root, text};
use super::{empty, told};

/// Where the cell is, as a client finds it.
fn place(name: &str) -> std::path::PathBuf {
    let uid = nix::unistd::geteuid();
    let given =
        std::env::var_os("XDG_RUNTIME_DIR").map(|dir| format!("{}/sandcell/cells/{name}", dir.to_string_lossy()));
    let run = if is_root() { "/run".to_owned() } else { format!("/run/user/{uid}") };
    let all = [Some(format!("{run}/sandcell/cells/{name}")), Some(format!("/tmp/sandcell-{uid}/cells/{name}")), given];
    all.into_iter().flatten().map(std::path::PathBuf::from).find(|path| path.exists()).expect("the cell's directory")
}

#[test]
fn the_directory_of_cells_is_the_users_alone() {
    let cell = empty();
    let place = place(cell.name());
    for dir in [&*place, place.parent().unwrap(), place.parent().unwrap().parent().unwrap()] {
        let mode = std::fs::metadata(dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", dir.display());
    }
    let log = cell.info().unwrap().log_dir.unwrap();
    assert_eq!(std::fs::metadata(log).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn another_user_cannot_see_join_or_stop_a_cell() {
    if !is_root() {
        println!("SKIPPED: acts as other users");
        return;
    }
    let cell = empty();
    let place = place(cell.name());
    // As nobody: the directory, the socket, and the keeper itself. The control is the same as the cell's own user.
    let script = format!(
        "import os, socket, sys\n\
         if sys.argv[1] != '0': os.setgid(65534); os.setuid(int(sys.argv[1]))\n\
         def tried(act):\n\
         \x20   try: act(); return 'done'\n\
         \x20   except OSError as e: return type(e).__name__\n\
         def join():\n\
         \x20   s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{0}/socket')\n\
         print(tried(lambda: os.listdir('{0}')), tried(join))\n",
        place.display()
    );
    let as_user = |uid: &str| {
        let output = Command::new("python3").args(["-c", &script, uid]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(as_user("0"), "done done", "the control");
    assert_eq!(as_user("65534"), "PermissionError PermissionError");
    // Where the mode did not hold: the keeper itself asks who has connected.
    for dir in [&*place, place.parent().unwrap(), place.parent().unwrap().parent().unwrap()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(place.join("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let ask = format!(
        "import os, socket, struct, sys\n\
         if sys.argv[1] != '0': os.setgid(65534); os.setuid(int(sys.argv[1]))\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{}/socket'); s.settimeout(30)\n\
         def asked():\n\
         \x20   try: s.send(struct.pack('=IIQ', 17, 0, 0)); return len(s.recv(4096))\n\
         \x20   except (BrokenPipeError, ConnectionResetError): return 0\n\
         print(asked())\n",
        place.display()
    );
    let asked = |uid: &str| {
        let output = Command::new("python3").args(["-c", &ask, uid]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let answers = (asked("0"), asked("65534"));
    for dir in [place.parent().unwrap().parent().unwrap(), place.parent().unwrap(), &*place] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!((answers.0.as_str(), answers.1.as_str()), ("64", "0"));
}

#[test]
fn the_keeper_cannot_be_read_by_other_processes_of_the_user_and_has_its_own_filter() {
    let cell = empty();
    let keeper = cell.info().unwrap().keeper_pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
    // Root's may remove groups.
    let kept = if is_root() { 2 } else { 0 };
    assert!(status.starts_with("Name:\tsandcell-keeper"), "{status}");
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(
        status.contains(&format!("CapEff:\t000000000000000{kept}"))
            && status.contains(&format!("CapPrm:\t000000000000000{kept}")),
        "{status}"
    );
    let own = |file: &str| std::fs::read(format!("/proc/{keeper}/{file}"));
    if !is_root() {
        assert_eq!(own("environ").unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
    // The control for the environment: an ordinary process of the user's.
    std::fs::read("/proc/self/environ").unwrap();
}

#[test]
fn nothing_inside_sees_the_keeper_or_its_socket() {
    let cell = empty();
    let place = place(cell.name());
    let script = format!("ls {} 2>&1 | grep -c 'No such'; cat /proc/[0-9]*/comm | grep -c keeper", place.display());
    assert_eq!(told(&cell, &script), "1\n0");
}

#[test]
fn a_client_that_says_nonsense_or_nothing_does_not_hold_up_others() {
    let cell = empty();
    let place = place(cell.name());
    let script = format!(
        "import socket, struct, os, time\n\
         all = []\n\
         for i in range(400):\n\
         \x20   s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
         \x20   try: s.connect('{0}/socket')\n\
         \x20   except OSError: continue\n\
         \x20   all.append(s)\n\
         for i, s in enumerate(all[:200]):\n\
         \x20   try:\n\
         \x20       s.send(os.urandom(1 + i * 7))\n\
         \x20       s.send(struct.pack('=IIQ', i if i not in (18, 19) else 0, 2**32 - 1 - i, i % 3 * 10**18) + os.urandom(i * 50))\n\
         \x20       socket.send_fds(s, [struct.pack('=IIQ', 2, 0, i % 2)], [0] * (1 + i))\n\
         \x20   except OSError: pass\n\
         print('said', flush=True); time.sleep(1000)\n",
        place.display()
    );
    let mut client =
        Command::new("python3").args(["-c", &script]).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut said = [0; 4];
    std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut said).unwrap();
    let answer = cell.command("echo").and_then(|mut echo| echo.arg("alive").output()).map(|out| text(&out.stdout));
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(answer.unwrap(), "alive");
    assert_eq!(told(&cell, "echo still"), "still");
}
