//! Standard streams by their names in /dev, and POSIX message queues.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use common::{Scratch, sandbox, shell, text, told};
use nix::fcntl::OFlag;
use nix::unistd::{mkfifo, pipe2};
use sandcell::{Outcome, Sandbox, Stdio};

const BY_NAME: &str =
    "echo out >/dev/stdout && echo err >/dev/stderr && cat /dev/stdin && echo more | tee -a /dev/stderr";

#[test]
fn pipes_can_be_opened_again_by_name() {
    let output = shell(&sandbox(), BY_NAME).input("in\n").output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\nin\nmore", "err\nmore"));
    let cell = sandbox().start().unwrap();
    let mut command = cell.command("/bin/sh");
    let output = command.args(["-c", BY_NAME]).input("in\n").output().unwrap();
    assert_eq!(output.outcome, Outcome::Exited(0), "{}", text(&output.stderr));
}

#[test]
fn the_null_device_can_be_opened_again_by_name() {
    let null = || Stdio::from(fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
    let report = shell(&sandbox(), BY_NAME).stdin(null()).stdout(null()).stderr(null()).status().unwrap();
    assert_eq!(report.outcome, Outcome::Exited(0));
}

#[test]
fn what_others_write_into_the_programs_output_is_not_for_it_to_read() {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let mut other = File::from(writer.as_fd().try_clone_to_owned().unwrap());
    other.write_all(b"from another process\n").unwrap();
    let script = "echo mine >/dev/stdout && { head -n 1 </proc/self/fd/1 >&2 || echo refused >&2; }";
    let mut command = shell(&sandbox(), script);
    let output = command.stdout(writer).output().unwrap();
    drop((other, command));
    if !output.enforced.iter().any(|line| line.disjoint == Some(true)) {
        eprintln!("SKIPPED: here the program has the caller's own UID");
        return;
    }
    assert!(text(&output.stderr).ends_with("refused"), "{}", text(&output.stderr));
    let mut all = String::new();
    File::from(reader).read_to_string(&mut all).unwrap();
    assert_eq!(all, "from another process\nmine\n");
}

#[test]
fn a_named_pipe_keeps_its_mode() {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let fifo = fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
    assert!(shell(&sandbox(), "echo x").stdout(fifo).status().unwrap().success());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn message_queues_work_and_are_the_sandboxes_own() {
    const QUEUE: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
attributes = (ctypes.c_long * 8)(0, 4, 64)
queue = libc.mq_open(b"/sandcell-test", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, attributes)
if queue < 0: sys.exit(os.strerror(ctypes.get_errno()))
got = ctypes.create_string_buffer(64)
print(libc.mq_send(queue, b"hi", 2, 0), libc.mq_receive(queue, got, 64, None), got.value.decode())
"#;
    for _ in 0..2 {
        let builder = Sandbox::builder().file("/tmp/queue.py", QUEUE);
        assert_eq!(told(builder, "python3 /tmp/queue.py"), "0 2 hi");
    }
}
