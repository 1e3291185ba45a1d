//! Starts init: one clone with all namespaces, at once followed by an exec. See `child.rs` for what lies between.
#![allow(unsafe_code)]

pub(crate) mod attach;
mod child;
pub(crate) mod ports;
pub(crate) mod relay;

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::cgroup::{CpuClock, Placement};
use crate::error::{Failure, Result};
use crate::ids::{Assigned, UserNamespace};
use crate::rawsys;
use crate::sys::namespaces::{read_number, refused};
use crate::sys::{self, descriptors, lift};
use crate::wire::{control, network, stage};

/// What stays the same for every start of one [`Sandbox`](crate::Sandbox).
#[derive(Debug)]
pub(crate) struct InitBinary {
    init: OwnedFd,
    proc: OwnedFd,
    /// Where the network is `user`.
    relay: Option<OwnedFd>,
}

/// What a start needs besides the image.
pub(crate) struct Launch<'a> {
    pub plan: &'a [u8],
    pub identity: &'a Assigned,
    pub placement: Option<&'a Placement>,
    /// Where init reads the CPU time of all, if that is limited.
    pub clock: Option<CpuClock>,
    /// Whose end ends it: the caller's, or that of a keeper, and then it is nobody's child.
    pub owner: Option<BorrowedFd<'a>>,
    /// What the relay is told, where there is to be one.
    pub relay: Option<relay::Setup>,
    /// Capabilities that programs keep in the sandbox's own user namespace.
    pub keeps: u64,
}

/// A process that is on its way to be a supervisor.
pub(crate) struct Started {
    pub control: OwnedFd,
    pub pidfd: OwnedFd,
    pub relay: Option<relay::Relay>,
}

impl InitBinary {
    /// Puts init into a memory file and opens /proc.
    pub(crate) fn new(with_relay: bool) -> Result<InitBinary> {
        let relay = with_relay.then(|| program(c"sandcell-relay", sandcell_relay::PROGRAM)).transpose()?;
        InitBinary::of(program(c"sandcell-init", sandcell_init::PROGRAM)?, relay)
    }

    /// The same for the keeper of a named cell.
    pub(crate) fn keeper() -> Result<InitBinary> {
        InitBinary::of(program(c"sandcell-keeper", sandcell_init::KEEPER)?, None)
    }

    fn of(init: OwnedFd, relay: Option<OwnedFd>) -> Result<InitBinary> {
        let fail =
            |what: &str, errno: Errno| Failure::new("image", what, "cannot prepare the supervisor").errno(errno as i32);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = nix::fcntl::open("/proc", flags, Mode::empty()).map_err(|e| fail("/proc", e).setup())?;
        // Something else mounted there could take the writes of the id maps without effect (CVE-2019-16884).
        if fstatfs(&proc).map_err(|e| fail("/proc", e).setup())?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Failure::new("image", "/proc", "is not a proc file system").hint("mount proc there").setup());
        }
        Ok(InitBinary { init: lift(init)?, proc: lift(proc)?, relay: relay.map(lift).transpose()? })
    }
}

/// A program of ours in a memory file.
fn program(name: &CStr, bytes: &[u8]) -> Result<OwnedFd> {
    let fail =
        |what: &str, errno: Errno| Failure::new("image", what, "cannot prepare the supervisor").errno(errno as i32);
    match sys::sealed_memory(name, bytes, true) {
        // vm.memfd_noexec=2 forbids memory files that can be executed.
        Err(Errno::EACCES | Errno::EPERM) => on_disk(bytes).map_err(|e| {
            let failure = fail("/var/tmp", e);
            failure.hint("executing memory files is forbidden here (sysctl vm.memfd_noexec), and /var/tmp and /tmp allow no program either").unsupported()
        }),
        other => other.map_err(|e| fail("memory file", e).setup()),
    }
}

/// The same in a file that has no name and that nobody has open for writing any more.
fn on_disk(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let in_dir = |place: &str| {
        let dir = nix::fcntl::open(place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        if fstatvfs(&dir)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(Errno::EACCES);
        }
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mut file = File::from(nix::fcntl::open(place, flags, Mode::from_bits_retain(0o555))?);
        let _held = sys::HeldFileSizeSignal::new();
        file.write_all(bytes).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    };
    in_dir("/var/tmp").or_else(|_| in_dir("/tmp"))
}

impl Launch<'_> {
    /// Starts init and hands it the Plan. What it makes of it is told on the control socket.
    pub(crate) fn start(mut self, image: &InitBinary) -> Result<Started> {
        let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
        let (ours, theirs) = (lift(ours)?, lift(theirs)?);
        let plan = sys::Letter::new(c"sandcell-plan", self.plan).map_err(descriptors)?;
        let caller = match self.owner {
            Some(owner) => owner.try_clone_to_owned().map_err(|_| descriptors(Errno::last()))?,
            None => own_pidfd()?,
        };
        let trees = &self.identity.trees;
        let pidfd = self.clone(image, theirs.as_raw_fd()).map_err(|error| last_word(&ours).unwrap_or(error))?;
        let mut started = Started { control: ours, pidfd, relay: None };
        // Not before the maps are written: this message is what init waits for.
        let clock = self.clock.as_ref().map(|clock| clock.file.as_raw_fd());
        let fds = std::iter::once(caller.as_raw_fd()).chain(clock);
        let to_relay = self.relay.as_ref().map(|_| sys::message_sockets()).transpose();
        let to_relay = to_relay.map_err(descriptors).inspect_err(|_| self.give_up(&started))?;
        let with_relay = if to_relay.is_some() { network::WITH_RELAY } else { 0 };
        let fds = fds.chain(trees.iter().map(|tree| tree.mount.as_raw_fd()));
        let fds: Vec<_> = fds.chain(to_relay.iter().map(|(init, _)| init.as_raw_fd())).collect();
        plan.send(started.control.as_fd(), control::SETUP, trees.len() as u32 | with_relay, &fds)
            .map_err(descriptors)
            .inspect_err(|_| self.give_up(&started))?;
        // Beside init, which builds the sandbox meanwhile.
        if let (Some((_, to_init)), Some(setup)) = (&to_relay, self.relay.take()) {
            let relay = relay::Relay::start(image, self.placement, setup, to_init, self.owner.is_some());
            started.relay = Some(relay.inspect_err(|_| self.give_up(&started))?);
        }
        Ok(started)
    }

    fn give_up(&self, started: &Started) {
        end(started.pidfd.as_fd(), started.control.as_raw_fd());
    }

    fn clone(&self, image: &InitBinary, control: RawFd) -> Result<OwnedFd> {
        let enter = match &self.identity.namespace {
            UserNamespace::OneId | UserNamespace::Written | UserNamespace::Absent => -1,
            UserNamespace::Nested(fd) => fd.as_raw_fd(),
        };
        let namespaces = !matches!(self.identity.namespace, UserNamespace::Absent);
        let flags = rawsys::CLONE_NEWUSER
            | rawsys::CLONE_NEWNS
            | rawsys::CLONE_NEWPID
            | rawsys::CLONE_NEWIPC
            | rawsys::CLONE_NEWUTS;
        let (join, group) = self.placement.map_or_else(|| Ok(Default::default()), Placement::doors)?;
        let mut orders = child::Orders {
            name: c"sandcell-init",
            raw_packets: self.relay.is_some(),
            keeps: self.keeps,
            namespaces,
            join: join.iter().map(AsRawFd::as_raw_fd).collect(),
            enter,
            detached: self.owner.is_some(),
            writes_own_maps: namespaces && !self.identity.namespace.allows_setgroups(),
            deny_groups: !self.identity.namespace.allows_setgroups(),
            proc: image.proc.as_raw_fd(),
            uid_map: self.identity.uid_map.to_string().into_bytes(),
            gid_map: self.identity.gid_map.to_string().into_bytes(),
            clone3: true,
            flags: rawsys::CLONE_PIDFD | if namespaces { flags } else { 0 },
            cgroup: group.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            control,
            init: image.init.as_raw_fd(),
            stack: Vec::with_capacity(child::STACK),
            pidfd: -1,
            fault: None,
        };
        let mut result = run(&mut orders);
        // The files in /proc of a caller that has made itself undumpable, and of all that share its memory, belong to
        // root. Once init is executed its own do not.
        if result.as_ref().is_err_and(|&(stage, errno)| (stage, errno) == (stage::LAUNCH_SETGROUPS, rawsys::EACCES)) {
            orders.writes_own_maps = false;
            orders.fault = None;
            result = run(&mut orders);
        }
        match result {
            // Other sandboxes refuse clone3, whose flags they cannot see; EPERM may also be what it says.
            Err((stage::LAUNCH_CLONE, errno)) if errno == rawsys::ENOSYS || errno == rawsys::EPERM => {
                orders.clone3 = false;
                orders.fault = None;
                // clone cannot start a process in a cgroup: it steps in before it executes anything.
                let entrance = self.placement.map_or(Ok(None), Placement::join_v2)?;
                orders.join.extend(entrance.iter().map(AsRawFd::as_raw_fd));
                run(&mut orders)
            }
            other => other,
        }
        .map_err(|(stage, errno)| explain(stage, errno))
    }
}

/// What tells init of the caller's death.
fn own_pidfd() -> Result<OwnedFd> {
    sys::pidfd_open(std::process::id().cast_signed()).map_err(|errno| match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => descriptors(errno),
        _ => Failure::new("pidfd", "pidfd_open", "cannot watch the calling process")
            .errno(errno as i32)
            .hint("Linux 5.12 or later is needed, and a seccomp filter around the caller must allow it")
            .unsupported(),
    })
}

/// Starts the keeper of a named cell, as nobody's child. It waits for what it is to hold on its socket, and ends with that.
pub(crate) fn start_keeper() -> Result<Started> {
    let image = InitBinary::keeper()?;
    let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
    let (ours, theirs) = (lift(ours)?, lift(theirs)?);
    let mut orders = child::Orders {
        raw_packets: false,
        keeps: 0,
        namespaces: false,
        join: Vec::new(),
        enter: -1,
        detached: true,
        name: c"sandcell-keeper",
        writes_own_maps: false,
        deny_groups: false,
        proc: image.proc.as_raw_fd(),
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        clone3: true,
        flags: rawsys::CLONE_PIDFD,
        cgroup: -1,
        control: theirs.as_raw_fd(),
        init: image.init.as_raw_fd(),
        stack: Vec::with_capacity(child::STACK),
        pidfd: -1,
        fault: None,
    };
    let mut result = run(&mut orders);
    if result.as_ref().is_err_and(|(_, errno)| [rawsys::ENOSYS, rawsys::EPERM].contains(errno)) {
        (orders.clone3, orders.fault) = (false, None);
        result = run(&mut orders);
    }
    let pidfd = result.map_err(|(stage, errno)| explain(stage, errno))?;
    Ok(Started { control: ours, pidfd, relay: None })
}

/// Why init has ended already, where it has said so: nobody can write the maps of a process that is gone.
fn last_word(control: &OwnedFd) -> Option<crate::Error> {
    let said = sys::is_readable(control.as_fd()).then(|| sys::receive(control.as_fd()).ok().flatten())??;
    let (name, words) = stage::describe(said.0.detail);
    Some(Failure::new(name, "", words).errno(said.0.errno).setup())
}

/// How long a process that has gone wrong is waited for.
const DEATH: Duration = Duration::from_secs(5);

/// Ends a process that has gone wrong. `control`: an end of its socket.
fn end(pidfd: BorrowedFd<'_>, control: RawFd) {
    if sys::pidfd_kill(pidfd, libc::SIGKILL).is_err() {
        // A filter around the caller refuses it. Init ends by itself when there is nobody to send it a Plan.
        let _ = shutdown(control, Shutdown::Both);
    }
    if sys::wait_readable(&[pidfd], Some(Instant::now() + DEATH)).is_ok_and(|ended| ended[0]) {
        sys::reap(pidfd);
    }
}

/// Clones, waits for the exec, and sees to it that the maps are written.
fn run(orders: &mut child::Orders) -> Result<OwnedFd, (u32, i32)> {
    let entering = orders.enter >= 0 || orders.detached;
    let writing = orders.namespaces && !entering && !orders.writes_own_maps;
    let mut stack: Vec<u8> = Vec::with_capacity(child::STACK);
    let blocked =
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(|errno| (stage::LAUNCH_CLONE, errno as i32))?;
    let orders = &raw mut *orders;
    // SAFETY: signals are blocked; orders and stack outlive the child's use of them, which ends before this returns.
    let (result, fault, pidfd) = unsafe {
        let result = if entering {
            child::vfork(orders, rawsys::CLONE_FILES, stack.as_mut_ptr(), child::enter)
        } else {
            child::vfork(orders, (*orders).flags, stack.as_mut_ptr(), child::become_init)
        };
        (result, (&raw const (*orders).fault).read_volatile(), (&raw const (*orders).pidfd).read_volatile())
    };
    let _ = blocked.thread_set_mask();
    let pid = result.map_err(|errno| (stage::LAUNCH_CLONE, errno))?;
    if entering {
        // The process that entered the namespace has done its work; init is its sibling.
        // SAFETY: reaps exactly this child; where somebody else was quicker there is nothing to do.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
    }
    // SAFETY: made by the kernel for this call, in our table of descriptors.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    // Nobody can write the maps of a process that is gone: that is not what went wrong.
    let is_gone = || pidfd.as_ref().is_some_and(|pidfd| sys::is_readable(pidfd.as_fd()));
    let fault = match fault {
        // SAFETY: the child has executed or ended; nobody else has the pointer any more.
        None if writing => match child::write_maps(unsafe { &*orders }, pid) {
            Err((_, rawsys::EACCES)) if is_gone() => Some((stage::PROTOCOL, Errno::ECONNRESET as i32)),
            other => other.err(),
        },
        fault => fault,
    };
    match (fault, pidfd) {
        (None, Some(pidfd)) => Ok(pidfd),
        (fault, pidfd) => {
            if let Some(pidfd) = pidfd {
                // SAFETY: the child has executed or ended; nobody else has the pointer any more.
                end(pidfd.as_fd(), unsafe { (*orders).control });
            }
            Err(fault.unwrap_or((stage::LAUNCH_CLONE, Errno::ECHILD as i32)))
        }
    }
}

/// The words for a failed start, with the remedy that fits the host.
fn explain(stage: u32, errno: i32) -> crate::Error {
    let (name, words) = stage::describe(stage);
    let failure = Failure::new(name, "", words).errno(errno);
    match (stage, Errno::from_raw(errno)) {
        (stage::LAUNCH_CLONE, errno) => refused(failure, errno),
        (
            stage::LAUNCH_UID_MAP | stage::LAUNCH_GID_MAP | stage::LAUNCH_SETGROUPS | stage::LAUNCH_CAPABILITIES,
            Errno::EPERM | Errno::EACCES,
        ) if read_number(c"/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) => failure
            .hint("AppArmor takes the rights of unprivileged user namespaces away: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile with `userns,` for the calling program")
            .unsupported(),
        (stage::LAUNCH_UID_MAP, Errno::EPERM) if nix::unistd::geteuid().is_root() => failure
            .hint("the kernel maps UID 0 for callers with CAP_SETFCAP only: leave root that capability, or start as another user")
            .unsupported(),
        (stage::LAUNCH_EXEC, Errno::EACCES | Errno::EPERM) => {
            failure.hint("executing memory files is forbidden here: sysctl vm.memfd_noexec=0").unsupported()
        }
        _ => failure.setup(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seccompiler::{SeccompAction, SeccompFilter, apply_filter};

    /// A failed newuidmap(1) ends init, which waits for its Plan then.
    #[test]
    fn a_start_that_fails_comes_to_an_end_where_signals_by_pidfd_are_refused() {
        let image = InitBinary::new(false).unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (ours, theirs) = sys::message_sockets().unwrap();
            let path = format!("/proc/self/fd/{}", image.init.as_raw_fd());
            let mut child = std::process::Command::new(path).stdin(theirs.try_clone().unwrap()).spawn().unwrap();
            let pidfd = sys::pidfd_open(child.id().cast_signed()).unwrap();
            let rules = [(libc::SYS_pidfd_send_signal, vec![])].into();
            let refused = SeccompAction::Errno(libc::EPERM as u32);
            let filter =
                SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into().unwrap());
            // Of this thread alone.
            let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
            apply_filter(&program).unwrap();
            assert_eq!(sys::pidfd_kill(pidfd.as_fd(), 0), Err(Errno::EPERM), "the control");
            end(pidfd.as_fd(), theirs.as_raw_fd());
            drop(ours);
            said.send(child.try_wait().map_err(|error| error.raw_os_error())).unwrap();
        });
        let ended = heard.recv_timeout(Duration::from_secs(60)).expect("it waits for ever");
        // Reaped already, or to be reaped.
        assert!(!matches!(ended, Ok(None)), "it lives on");
    }
}
