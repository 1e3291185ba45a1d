//! Starts init: one clone with all namespaces, at once followed by an exec. See `child.rs` for what lies between.
#![allow(unsafe_code)]

mod child;
pub(crate) mod enter;

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Failure, Result};
use crate::identity::{Assigned, UserNamespace};
use crate::limits::Placement;
use crate::rawsys;
use crate::sys;
use crate::wire::{control, stage};

static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// What stays the same for every start of one [`Sandbox`](crate::Sandbox).
#[derive(Debug)]
pub(crate) struct Image {
    init: OwnedFd,
    proc: OwnedFd,
}

/// What a start needs besides the image.
pub(crate) struct Launch<'a> {
    pub plan: &'a [u8],
    pub identity: &'a Assigned,
    pub placement: Option<&'a Placement>,
}

/// A process that is on its way to be a supervisor.
pub(crate) struct Started {
    pub control: OwnedFd,
    pub pidfd: OwnedFd,
}

impl Image {
    /// Puts init into a memory file and opens /proc.
    pub(crate) fn new() -> Result<Image> {
        let fail =
            |what: &str, errno: Errno| Failure::new("image", what, "cannot prepare the supervisor").errno(errno as i32);
        let init = match sys::sealed_memory(c"sandcell-init", INIT, true) {
            // vm.memfd_noexec=2 forbids memory files that can be executed.
            Err(Errno::EACCES | Errno::EPERM) => on_disk().map_err(|e| {
                let failure = fail("/var/tmp", e);
                failure.hint("executing memory files is forbidden here (sysctl vm.memfd_noexec), and /var/tmp and /tmp allow no program either").unsupported()
            })?,
            other => other.map_err(|e| fail("memory file", e).setup())?,
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = nix::fcntl::open("/proc", flags, Mode::empty()).map_err(|e| fail("/proc", e).setup())?;
        // Something else mounted there could take the writes of the id maps without effect (CVE-2019-16884).
        if fstatfs(&proc).map_err(|e| fail("/proc", e).setup())?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Failure::new("image", "/proc", "is not a proc file system").hint("mount proc there").setup());
        }
        Ok(Image { init: lift(init)?, proc: lift(proc)? })
    }
}

/// A process that does nothing until the value goes, or the calling process: init that never gets a Plan.
#[cfg(feature = "systemd")]
#[derive(Debug)]
pub(crate) struct Idle {
    child: std::process::Child,
    control: Option<OwnedFd>,
}

#[cfg(feature = "systemd")]
impl Idle {
    pub(crate) fn start() -> std::io::Result<Idle> {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
        let init = sys::sealed_memory(c"sandcell-init", INIT, true)?;
        let (ours, theirs) = sys::message_sockets()?;
        let mut command = Command::new(format!("/proc/self/fd/{}", init.as_raw_fd()));
        command.env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // SAFETY: one system call; what the caller left open for others is not held open here.
        unsafe { command.pre_exec(|| rawsys::cloexec_from(3).map_err(std::io::Error::from_raw_os_error)) };
        Ok(Idle { child: command.spawn()?, control: Some(ours) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

#[cfg(feature = "systemd")]
impl Drop for Idle {
    fn drop(&mut self) {
        // It ends when the other side of its socket is gone.
        drop(self.control.take());
        let _ = self.child.wait();
    }
}

/// init in a file that has no name and that nobody has open for writing any more.
fn on_disk() -> Result<OwnedFd, Errno> {
    let in_dir = |place: &str| {
        let dir = nix::fcntl::open(place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        if fstatvfs(&dir)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(Errno::EACCES);
        }
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mut file = File::from(nix::fcntl::open(place, flags, Mode::from_bits_retain(0o555))?);
        file.write_all(INIT).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    };
    in_dir("/var/tmp").or_else(|_| in_dir("/tmp"))
}

/// Moves a descriptor away from the numbers of the standard streams, which a caller may have closed.
pub(crate) fn lift(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    let raw = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3)).map_err(descriptors)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The error of a caller that has run out of descriptors, or of memory for them.
pub(crate) fn descriptors(errno: Errno) -> crate::Error {
    Failure::new("descriptors", "", "cannot make the descriptors for a start").errno(errno as i32).setup()
}

impl Launch<'_> {
    /// Starts init and hands it the Plan. What it makes of it is told on the control socket.
    pub(crate) fn start(&self, image: &Image) -> Result<Started> {
        let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
        let (ours, theirs) = (lift(ours)?, lift(theirs)?);
        let plan = sys::Letter::new(c"sandcell-plan", self.plan).map_err(descriptors)?;
        let caller = sys::pidfd_open(std::process::id().cast_signed()).map_err(|errno| match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => descriptors(errno),
            _ => Failure::new("pidfd", "pidfd_open", "cannot watch the calling process")
                .errno(errno as i32)
                .hint("Linux 5.12 or later is needed, and a seccomp filter around the caller must allow it")
                .unsupported(),
        })?;
        let trees = &self.identity.trees;
        let pidfd = self.clone(image, theirs.as_raw_fd()).map_err(|error| last_word(&ours).unwrap_or(error))?;
        let started = Started { control: ours, pidfd };
        // Not before the maps are written: this message is what init waits for.
        let clock = self.placement.and_then(Placement::cpu_clock).map(|clock| clock.file.as_raw_fd());
        let fds = std::iter::once(caller.as_raw_fd()).chain(clock);
        let fds: Vec<_> = fds.chain(trees.iter().map(|tree| tree.mount.as_raw_fd())).collect();
        match plan.send(started.control.as_fd(), control::SETUP, trees.len() as u32, &fds) {
            Ok(()) => Ok(started),
            Err(errno) => {
                end(started.pidfd.as_fd());
                Err(descriptors(errno))
            }
        }
    }

    fn clone(&self, image: &Image, control: RawFd) -> Result<OwnedFd> {
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
        let mut orders = child::Orders {
            namespaces,
            join: self.placement.map_or(&[][..], Placement::join).iter().map(AsRawFd::as_raw_fd).collect(),
            enter,
            writes_own_maps: namespaces && !self.identity.namespace.allows_setgroups(),
            deny_groups: !self.identity.namespace.allows_setgroups(),
            proc: image.proc.as_raw_fd(),
            uid_map: self.identity.uid_map.to_string().into_bytes(),
            gid_map: self.identity.gid_map.to_string().into_bytes(),
            clone3: true,
            flags: rawsys::CLONE_PIDFD | if namespaces { flags } else { 0 },
            cgroup: self.placement.and_then(Placement::clone_into).map_or(-1, |fd| fd.as_raw_fd()),
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

/// Why init has ended already, where it has said so: nobody can write the maps of a process that is gone.
fn last_word(control: &OwnedFd) -> Option<crate::Error> {
    let said = sys::is_readable(control.as_fd()).then(|| sys::receive(control.as_fd()).ok().flatten())??;
    let (name, words) = stage::describe(said.0.detail);
    Some(Failure::new(name, "", words).errno(said.0.errno).setup())
}

/// Ends a process that has gone wrong.
fn end(pidfd: BorrowedFd<'_>) {
    let _ = sys::pidfd_kill(pidfd, libc::SIGKILL);
    sys::reap(pidfd);
}

/// Clones, waits for the exec, and sees to it that the maps are written.
fn run(orders: &mut child::Orders) -> Result<OwnedFd, (u32, i32)> {
    let entering = orders.enter >= 0;
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
                end(pidfd.as_fd());
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
        (stage::LAUNCH_CLONE, Errno::ENOSPC) if read_number(c"/proc/sys/user/max_user_namespaces") == Some(0) => failure
            .hint("user namespaces are switched off here: sysctl user.max_user_namespaces=10000; or a weaker sandbox without them: `isolation` landlock")
            .unsupported(),
        (stage::LAUNCH_CLONE, Errno::ENOSPC) => {
            failure.hint("a limit on namespaces is reached: raise user.max_*_namespaces").setup()
        }
        (stage::LAUNCH_CLONE, Errno::EPERM) if read_number(c"/proc/sys/kernel/unprivileged_userns_clone") == Some(0) => {
            failure.hint("sysctl kernel.unprivileged_userns_clone=1").unsupported()
        }
        (stage::LAUNCH_CLONE, Errno::EPERM | Errno::ENOSYS) => failure
            .hint("something around the caller forbids user namespaces: a container's seccomp profile, a chroot, or AppArmor; a weaker sandbox does without them: `isolation` landlock")
            .unsupported(),
        (stage::LAUNCH_CLONE, Errno::EAGAIN) => failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup(),
        (stage::LAUNCH_CLONE, Errno::EUSERS) => failure.hint("user namespaces are nested too deeply here").unsupported(),
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

fn read_number(path: &CStr) -> Option<u32> {
    let file = File::open(path.to_str().ok()?).ok()?;
    std::io::read_to_string(file).ok()?.trim().parse().ok()
}
