//! The real init, fed by a library that has gone mad: it refuses or obeys, but never crashes and never stays.
//!
//! A changed Plan names other paths of the host, so as root this runs as somebody who may not write them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::Random;
#[cfg(test)]
use super::rounds;
use crate::launch::Launch;
use crate::wire::{Ask, Message, control};
use crate::{HostIds, Sandbox, sys};

fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    let program = CString::new("/bin/true").expect("no NUL");
    for ask in [
        Ask::Settings { flags: 1, umask: 0o22, timeout: 2000, grace: 0, output_limit: 0 },
        Ask::Program { path: &program },
        Ask::Argument { text: &program },
        Ask::Variable { text: c"A=b" },
        Ask::WorkDir { path: c"/" },
        Ask::Rlimit { resource: 4, soft: 0, hard: 0 },
        Ask::Null { number: 0 },
        Ask::Null { number: 1 },
        Ask::Descriptor { index: 2, number: 2 },
    ] {
        ask.write(&mut bytes);
    }
    bytes
}

/// A request as it should be, or nearly.
fn ask(socket: &OwnedFd, random: &mut Random) {
    let mut bytes = request();
    if random.below(2) == 0 {
        random.mutate(&mut bytes);
    }
    let memory = sys::sealed_memory(c"request", &bytes, false).expect("memory");
    let (_ours, theirs) = sys::message_sockets().expect("sockets");
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let mut fds = vec![theirs.as_raw_fd(), null.as_raw_fd()];
    let mut message = Message { kind: control::SPAWN, value: 0, length: 0 };
    let text: &[u8] = if random.below(2) == 0 {
        &bytes
    } else {
        fds.insert(0, memory.as_raw_fd());
        message.length = bytes.len() as u64;
        &[]
    };
    match random.below(12) {
        0 => message.kind = random.edge() as u32,
        1 => message.length = random.below(bytes.len() + 1) as u64,
        2 => fds.truncate(random.below(3)),
        3 => fds.extend(std::iter::repeat_n(null.as_raw_fd(), random.below(200))),
        4 => fds.reverse(),
        _ => {}
    }
    let _ = sys::transmit(socket.as_fd(), message, text, &fds);
}

/// How init ended, within the time that the slowest machine needs.
fn end(pidfd: &OwnedFd) -> Option<WaitStatus> {
    let until = Instant::now() + Duration::from_secs(20);
    if !sys::wait_readable(&[pidfd.as_fd()], Some(until)).expect("poll")[0] {
        let _ = sys::pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
        return None;
    }
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL).ok()
}

/// Runs this test again as an ordinary user, where it is root's. Whether it has.
#[cfg(test)]
fn as_an_ordinary_user(test: &str) -> bool {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        return false;
    }
    let user = nix::unistd::User::from_name("sandcell-test").ok().flatten();
    let (uid, gid) = user.map_or((1001, 1001), |user| (user.uid.as_raw(), user.gid.as_raw()));
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = command.args([test, "--exact", "--nocapture"]).uid(uid).gid(gid).output().expect("this test again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// One sandbox; whether init did all that it was told.
fn run(sandbox: &Sandbox, random: &mut Random) -> bool {
    let identity = sandbox.shared.resolved.ids.assign().expect("ids");
    let mut plan = sandbox.shared.plan(&identity, None, None, false, false).expect("a plan").0.bytes;
    if random.below(2) == 0 {
        random.mutate(&mut plan);
        // An empty mapping is refused by the kernel.
        plan.push(0);
    }
    let launch =
        Launch { keeps: 0, plan: &plan, identity: &identity, placement: None, clock: None, relay: None, owner: None };
    let started = launch.start(sandbox.shared.image.as_ref().expect("it starts sandboxes")).expect("started");
    for _ in 0..=random.below(3) {
        ask(&started.control, random);
    }
    // Until init has said something or has ended; then the library lets go.
    let until = Instant::now() + Duration::from_millis(random.below(30) as u64);
    let _ = sys::wait_readable(&[started.pidfd.as_fd()], Some(until));
    drop(started.control);
    match end(&started.pidfd) {
        Some(WaitStatus::Exited(_, status @ (0 | 1))) => status == 0,
        other => panic!("{other:?} after {plan:x?}"),
    }
}

fn sandbox() -> Sandbox {
    Sandbox::builder().host_ids(HostIds::Shared).build().expect("a sandbox")
}

#[cfg(fuzzing)]
pub fn hostile_parent(bytes: &[u8]) {
    assert!(!nix::unistd::geteuid().is_root(), "a changed Plan names other paths of the host: not as root");
    thread_local!(static SANDBOX: Sandbox = sandbox());
    SANDBOX.with(|sandbox| run(sandbox, &mut Random::Bytes(bytes.to_vec().into_iter())));
}

#[test]
fn whatever_the_library_sends_init_ends_in_order() {
    if as_an_ordinary_user("fuzz::hostile_parent::whatever_the_library_sends_init_ends_in_order") {
        return;
    }
    let sandbox = sandbox();
    let (count, mut random) = rounds(200);
    let obeyed = (0..count).filter(|_| run(&sandbox, &mut random)).count();
    assert!(obeyed > count / 10, "{obeyed} of {count}");
}
