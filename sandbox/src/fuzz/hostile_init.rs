//! The library, fed by an init that says anything: an error or a report, never a crash, and never a wait for ever.

#[cfg(test)]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::Random;
#[cfg(test)]
use super::rounds;
use crate::api::child::{Child, Options};
use crate::api::streams::Pipes;
use crate::cgroup::Placed;
use crate::launch::Started;
use crate::supervise::init::Init;
use crate::wire::{Reply, reply};
use crate::{HostIds, Sandbox, sys};

/// A message that may make sense.
fn message(random: &mut Random) -> Vec<u8> {
    let kinds =
        [reply::READY, reply::FAILED, reply::STARTED, reply::NOT_STARTED, reply::ENDED, reply::LEFTOVER, reply::HEARD];
    let mut bytes = vec![0; Reply::SIZE];
    let kind = if random.below(8) == 0 { random.edge() as u32 } else { kinds[random.below(kinds.len())] };
    bytes[..4].copy_from_slice(&kind.to_ne_bytes());
    for at in [4, 8, 12] {
        bytes[at..at + 4].copy_from_slice(&(random.edge() as u32).to_ne_bytes());
    }
    for at in (16..Reply::SIZE - 8).step_by(8) {
        bytes[at..at + 8].copy_from_slice(&random.edge().to_ne_bytes());
    }
    if random.below(4) == 0 {
        random.mutate(&mut bytes);
    }
    let text = random.below(40);
    bytes.extend((0..text).map(|_| random.next() as u8));
    bytes
}

fn say(socket: &OwnedFd, random: &mut Random) {
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    for _ in 0..random.below(5) {
        let bytes = message(random);
        let fds = [null.as_raw_fd(), null.as_raw_fd()];
        let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        let rights = if random.below(3) == 0 { &rights[..] } else { &[] };
        let vectors = [std::io::IoSlice::new(&bytes)];
        let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
        let _ = nix::sys::socket::sendmsg::<()>(socket.as_raw_fd(), &vectors, rights, flags, None);
    }
}

/// The process that stands for init: it has ended, or will when it is told to.
fn process(random: &mut Random) -> OwnedFd {
    let program = if random.below(2) == 0 { "true" } else { "cat" };
    let spawned = Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn();
    sys::pidfd_open(spawned.expect("a process").id().cast_signed()).expect("a pidfd")
}

/// One run; whether the library made a report of it.
fn run(sandbox: &Sandbox, random: &mut Random) -> bool {
    let identity = sandbox.shared.resolved.ids.assign().expect("ids");
    let (plan, enforced) = sandbox.shared.plan(&identity, None, None, false, false).expect("a plan");
    let (control, theirs) = sys::message_sockets().expect("sockets");
    let (socket, its) = sys::message_sockets().expect("sockets");
    let started = Started { control, pidfd: process(random), relay: None };
    let placed = Placed { placement: None, enforced: Vec::new(), rlimits: Vec::new() };
    let init = Arc::new(Init::new(started, identity, enforced, placed, None, Arc::default()));
    say(&theirs, random);
    say(&its, random);
    drop((theirs, its));
    let options = Options {
        changes: false,
        counted: true,
        terminal_streams: if random.below(4) == 0 { 7 } else { 0 },
        timeout: Some(Duration::from_secs(1)),
        learn: random.below(4) == 0,
    };
    let one_shot = random.below(2) == 0;
    let mut child = Child::new(sandbox.shared.clone(), init, socket, Pipes::default(), one_shot, &options);
    if child.started(&plan, "program", std::path::Path::new("/")).is_err() {
        return false;
    }
    let _ = child.signal(15);
    child.wait().is_ok()
}

fn sandbox() -> Sandbox {
    Sandbox::builder().host_ids(HostIds::Shared).build().expect("a sandbox")
}

#[cfg(fuzzing)]
pub fn hostile_init(bytes: &[u8]) {
    thread_local!(static SANDBOX: Sandbox = sandbox());
    SANDBOX.with(|sandbox| run(sandbox, &mut Random::Bytes(bytes.to_vec().into_iter())));
}

#[test]
fn whatever_init_says_the_library_comes_to_an_end() {
    let sandbox = sandbox();
    let (count, mut random) = rounds(300);
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    let reports = (0..count).filter(|_| run(&sandbox, &mut random)).count();
    assert!(reports > 0, "none of {count}");
    // Other tests run meanwhile; a descriptor kept in each round would be many more.
    assert!(std::fs::read_dir("/proc/self/fd").expect("/proc").count() < descriptors + 200);
}

#[test]
fn a_descriptor_that_nobody_asked_for_is_closed() {
    let (ours, theirs) = sys::message_sockets().expect("sockets");
    let (kept, sent) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let bytes = [0u8; Reply::SIZE];
    let fds = [sent.as_raw_fd(), sent.as_raw_fd(), sent.as_raw_fd()];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let vectors = [std::io::IoSlice::new(&bytes)];
    let flags = nix::sys::socket::MsgFlags::empty();
    nix::sys::socket::sendmsg::<()>(theirs.as_raw_fd(), &vectors, &rights, flags, None).expect("sent");
    drop(sent);
    drop(sys::receive(ours.as_fd()));
    // Nobody holds the writing end any more: the reader is told so.
    assert!(sys::is_readable(kept.as_fd()));
    assert_eq!(nix::unistd::read(&kept, &mut [0; 1]), Ok(0));
}
