//! Two sandboxes of one user, each hostile to the other: nothing crosses but what is shared on purpose.
//!
//! Each attempt runs in one cell while the other one offers what would be crossed to. Its control makes the same attempt
//! inside the first cell, where it must succeed.

mod common;

use std::time::Duration;

use common::{Scratch, patiently, text};
use sandcell::seccomp::Profile;
use sandcell::{Builder, Cell, HostIds, Sandbox, Seccomp};

/// Two cells of the same policy. With shared ids both are the caller on the host, which is the harder case.
struct Pair {
    victim: Cell,
    other: Cell,
}

fn pair(change: impl Fn(Builder) -> Builder) -> Pair {
    let start = || {
        let builder = Sandbox::builder().host_ids(HostIds::Shared).timeout(Duration::from_secs(60));
        change(builder).build().unwrap().start().unwrap()
    };
    Pair { victim: start(), other: start() }
}

fn python(cell: &Cell, script: &str) -> String {
    let output = cell.command("/usr/bin/python3").args(["-c", script]).output().unwrap();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn sh(cell: &Cell, script: &str) -> String {
    let output = cell.command("/bin/sh").args(["-c", script]).output().unwrap();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

impl Pair {
    /// The victim runs `offer` in the background until it is dropped and has made /tmp/ready; then both try.
    fn tries(&self, offer: &str, attempt: &str) -> (String, String) {
        let offer = format!("{offer}\nopen('/tmp/ready', 'w').close()\nimport time\ntime.sleep(1000)");
        let child = self.victim.command("/usr/bin/python3").args(["-c", &offer]).spawn().unwrap();
        patiently("what the victim offers", || sh(&self.victim, "test -e /tmp/ready && echo yes") == "yes");
        let answers = (python(&self.victim, attempt), python(&self.other, attempt));
        drop(child);
        sh(&self.victim, "rm /tmp/ready");
        answers
    }
}

#[test]
fn processes_of_one_sandbox_are_not_there_for_the_other() {
    let pair = pair(|builder| builder.seccomp(Seccomp::Off));
    let offer = "import ctypes\nctypes.CDLL(None).prctl(15, b'the-victim', 0, 0, 0)";
    let attempt = "
import glob, os, signal
pids = [int(path.split('/')[2]) for path in glob.glob('/proc/[0-9]*/comm') if open(path).read().strip() == 'the-victim']
print('sees', len(pids))
for pid in pids: os.kill(pid, 0); print('may signal')
for pid in range(2, 5000):
    try:
        if pid not in (os.getpid(), os.getppid()): os.kill(pid, signal.SIGCONT)
    except ProcessLookupError: pass
    except PermissionError: print('there is one')";
    let (control, crossed) = pair.tries(offer, attempt);
    assert_eq!((control.as_str(), crossed.as_str()), ("sees 1\nmay signal", "sees 0"));
}

#[test]
fn sockets_without_a_path_and_with_one_of_the_private_directories_do_not_cross() {
    let pair = pair(|builder| builder);
    let offer = "
import socket
kept = []
for address in ('\\0of-the-victim', '/tmp/socket', '/dev/shm/socket'):
    server = socket.socket(socket.AF_UNIX); server.bind(address); server.listen(); kept.append(server)";
    let attempt = "
import socket
for address in ('\\0of-the-victim', '/tmp/socket', '/dev/shm/socket'):
    try: socket.socket(socket.AF_UNIX).connect(address); print('connected')
    except OSError as error: print(error.strerror)
print(any('of-the-victim' in line for line in open('/proc/net/unix')))";
    let (control, crossed) = pair.tries(offer, attempt);
    assert_eq!(control, "connected\nconnected\nconnected\nTrue");
    assert_eq!(crossed, "Connection refused\nNo such file or directory\nNo such file or directory\nFalse");
}

#[test]
fn shared_memory_queues_and_semaphores_do_not_cross() {
    let pair = pair(|builder| builder.seccomp(Seccomp::Off));
    let offer = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmget(4711, 4096, 0o1666); libc.semget(4712, 1, 0o1666); libc.msgget(4713, 0o1666)
libc.syscall(240, b'victim', 0o102, 0o666, None)
from multiprocessing import shared_memory
kept = shared_memory.SharedMemory('victim', True, 4096)";
    let attempt = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(*[answer >= 0 for answer in (libc.shmget(4711, 4096, 0o666), libc.semget(4712, 1, 0o666), libc.msgget(4713, 0o666),
    libc.syscall(240, b'victim', 2, 0o666, None))], os.path.exists('/dev/shm/victim'))";
    let (control, crossed) = pair.tries(offer, attempt);
    assert_eq!((control.as_str(), crossed.as_str()), ("True True True True True", "False False False False False"));
}

/// Keys of a user are the user's, whoever of the user's programs asks: a sandbox has keyrings of its own.
#[test]
fn keys_do_not_cross() {
    let profile = || Seccomp::Profile(Profile::default().with("keyring").unwrap());
    let pair = pair(|builder| builder.seccomp(profile()));
    // add_key(2) and keyctl(2), KEYCTL_SEARCH, to the session, user and user session keyrings.
    let offer = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print([libc.syscall(248, b'user', b'of-the-victim', b'secret', 6, ring) for ring in (-3, -4, -5)])";
    let attempt = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(*[libc.syscall(250, 10, ring, b'user', b'of-the-victim', 0) > 0 for ring in (-3, -4, -5)])";
    let (control, crossed) = pair.tries(offer, attempt);
    assert!(control.contains("True"), "{control}");
    assert_eq!(crossed, "False False False");
}

/// Locks and leases on a file of a read-only layer, which both see: taking one must not hold the other up.
#[test]
fn locks_on_what_both_only_read_do_not_cross() {
    let scratch = Scratch::new();
    let shared = scratch.file("shared/file", "of the caller");
    std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let layer = scratch.path().join("shared");
    // In an overlay each sandbox has an inode of its own.
    let bin = |mut builder: Builder| {
        for name in ["bin", "lib", "lib64"] {
            let path = std::path::Path::new("/").join(name);
            builder = match std::fs::canonicalize(&path) {
                Ok(real) => builder.ro(real, path),
                Err(_) => builder,
            };
        }
        builder.ro("/usr", "/usr")
    };
    let pair = pair(|builder| bin(builder.layer(&layer)));
    let offer = "
import fcntl
kept = open('/file'); fcntl.flock(kept, fcntl.LOCK_EX)
writes = open('/file', 'r+'); fcntl.lockf(writes, fcntl.LOCK_EX)";
    let attempt = "
import fcntl
def tries(name, act):
    try: act(); print(name, 'free')
    except OSError: print(name, 'held')
tries('flock', lambda: fcntl.flock(open('/file'), fcntl.LOCK_EX | fcntl.LOCK_NB))
tries('posix', lambda: fcntl.lockf(open('/file', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB))";
    let (control, crossed) = pair.tries(offer, attempt);
    assert_eq!(control, "flock held\nposix held");
    assert_eq!(crossed, "flock free\nposix free");
}

/// A bind is shared on purpose, and so are its locks. This is the control of the controls.
#[test]
fn what_is_shared_on_purpose_crosses() {
    let scratch = Scratch::new();
    let shared = scratch.dir("shared");
    let pair = pair(|builder| builder.rw(&shared, "/shared"));
    let offer = "
import fcntl
kept = open('/shared/file', 'w'); fcntl.flock(kept, fcntl.LOCK_EX); kept.write('said'); kept.flush()
import socket
server = socket.socket(socket.AF_UNIX); server.bind('/shared/socket'); server.listen()";
    let attempt = "
import fcntl, socket
try: fcntl.flock(open('/shared/file'), fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')
except OSError: print('held')
print(open('/shared/file').read())
socket.socket(socket.AF_UNIX).connect('/shared/socket'); print('connected')";
    let (control, crossed) = pair.tries(offer, attempt);
    assert_eq!(control, "held\nsaid\nconnected");
    assert_eq!(crossed, control);
}

/// Names by which one could be told from the other, or both be known to run on one machine.
#[test]
fn nothing_tells_of_the_other_or_of_the_machine() {
    let pair = pair(|builder| builder);
    let ask = "cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/boot_id; cat /proc/locks 2>&1; hostname; \
               cat /proc/self/cgroup | grep -c sandcell-; find /sys/fs/cgroup -name 'sandcell-*' 2>/dev/null | wc -l";
    let (one, two) = (sh(&pair.victim, ask), sh(&pair.other, ask));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (lines(&one), lines(&two));
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // A UUID of its own, the same as often as one asks.
    assert_eq!((one[0].len(), &one[0], &one[0][14..15]), (36, &one[1], "4"), "{one:?}");
    assert!(one[0] != two[0] && one[0] != host.trim(), "{one:?} {two:?}");
    // /proc/locks is not to be read or empty; then the name, and no group of ours by its name.
    let tail = |lines: &[String]| lines[lines.len() - 3..].to_vec();
    assert_ne!(tail(&one)[0], tail(&two)[0]);
    for all in [&one, &two] {
        assert_eq!(tail(all)[1..], ["0", "0"], "{all:?}");
        assert!(!all.join("\n").contains("POSIX") && !all.join("\n").contains("FLOCK"), "{all:?}");
    }
}

/// What one of them writes is not in the other, in any place that both have.
#[test]
fn what_one_writes_the_other_does_not_see() {
    let pair = pair(|builder| builder);
    let write = "for d in /tmp /var/tmp /run /dev/shm \"$HOME\" /etc /usr /; do echo x 2>/dev/null >$d/of-the-victim && echo $d; done 2>/dev/null; :";
    let look = "find / -xdev -name of-the-victim 2>/dev/null; ls /tmp/of-the-victim /var/tmp/of-the-victim /dev/shm/of-the-victim \"$HOME\"/of-the-victim 2>/dev/null; :";
    let wrote = sh(&pair.victim, write);
    assert!(wrote.lines().count() >= 4, "the control: {wrote}");
    assert!(!sh(&pair.victim, look).is_empty(), "the control");
    assert_eq!(sh(&pair.other, look), "");
}
