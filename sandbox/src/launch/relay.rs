//! The relay of a sandbox with the network `user`, seen from outside: how it is started, heard and ended.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::cgroup::Placement;
use crate::error::Result;
use crate::launch::ports::Ports;
use crate::launch::{InitBinary, child, explain, run};
use crate::rawsys;
use crate::report::{NetworkReport, Published};
use crate::sys::{self, descriptors, lift};
use crate::wire::network::{RELAY_SETUP, Table};

/// How long it may take to carry the last bytes of a sandbox that is over.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// How long one that was killed is waited for.
const DEATH: Duration = Duration::from_secs(5);

/// What one is started with.
pub(crate) struct Setup {
    /// What it is told.
    pub config: Vec<u8>,
    /// The rules by their numbers, in words.
    pub rules: Vec<String>,
    pub ports: Ports,
    /// Where its account is kept; in memory by default.
    pub table: Option<File>,
}

/// A relay that runs, and its account. It ends with this value, unless a keeper has it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// `None` in a client of a keeper.
    process: Option<Process>,
    table: File,
    rules: Vec<String>,
    published: Vec<Published>,
    state: Mutex<State>,
    owner: u32,
}

#[derive(Debug)]
struct Process {
    /// It ends when this is closed.
    control: OwnedFd,
    pidfd: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// A keeper has it.
    Kept,
    /// It has ended by itself with the sandbox, or was told to.
    Ended,
    /// It has ended before.
    Lost,
}

/// A file in memory as large as the table, and never another size.
fn table() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let noexec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(c"sandcell-network", flags | noexec) {
        Err(Errno::EINVAL) => memfd_create(c"sandcell-network", flags)?,
        other => other?,
    };
    let _held = sys::HeldFileSizeSignal::new();
    nix::unistd::ftruncate(&fd, size_of::<Table>() as i64)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL))?;
    Ok(fd)
}

/// A table of the directory of a named cell, for others to read. As long as the relay has it mapped, it has the lock of whoever
/// has made it: a lock of flock(2) belongs to the open file, and so does the mapping.
pub(crate) fn table_in(file: File) -> std::io::Result<File> {
    nix::fcntl::posix_fallocate(&file, 0, size_of::<Table>() as i64)?;
    file.try_lock()?;
    Ok(file)
}

/// Whether the relay that writes this table lives. `table`: opened anew.
fn is_mapped(table: &File) -> bool {
    match table.try_lock_shared() {
        Ok(()) => table.unlock().is_err(),
        Err(_) => true,
    }
}

impl Relay {
    /// Starts it, with its end of the socket to init, and tells it the policy.
    pub(super) fn start(
        image: &InitBinary,
        placement: Option<&Placement>,
        setup: Setup,
        to_init: &OwnedFd,
        detached: bool,
    ) -> Result<Relay> {
        let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
        let (ours, theirs) = (lift(ours)?, lift(theirs)?);
        let table = setup.table.map_or_else(|| table().map(File::from), Ok).map_err(descriptors)?;
        let letter = sys::Letter::new(c"sandcell-relay-config", &setup.config).map_err(descriptors)?;
        let program = image.relay.as_ref().expect("it is prepared where the network is `user`");
        let (join, group) = placement.map_or_else(|| Ok(Default::default()), Placement::doors)?;
        let mut orders = child::Orders {
            name: c"sandcell-relay",
            detached,
            namespaces: false,
            raw_packets: false,
            keeps: 0,
            join: join.iter().map(AsRawFd::as_raw_fd).collect(),
            enter: -1,
            writes_own_maps: false,
            deny_groups: false,
            proc: image.proc.as_raw_fd(),
            uid_map: Vec::new(),
            gid_map: Vec::new(),
            clone3: true,
            flags: rawsys::CLONE_PIDFD,
            cgroup: group.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            control: theirs.as_raw_fd(),
            init: program.as_raw_fd(),
            stack: Vec::with_capacity(child::STACK),
            pidfd: -1,
            fault: None,
        };
        let mut result = run(&mut orders);
        if matches!(result, Err((crate::wire::stage::LAUNCH_CLONE, rawsys::ENOSYS | rawsys::EPERM))) {
            (orders.clone3, orders.fault) = (false, None);
            let entrance = placement.map_or(Ok(None), Placement::join_v2)?;
            orders.join.extend(entrance.iter().map(AsRawFd::as_raw_fd));
            result = run(&mut orders);
        }
        let pidfd = result.map_err(|(stage, errno)| explain(stage, errno))?;
        let owner = std::process::id();
        let Ports { sockets, published } = setup.ports;
        let fds = [to_init.as_raw_fd(), table.as_raw_fd()];
        let fds: Vec<_> = fds.into_iter().chain(sockets.iter().map(AsRawFd::as_raw_fd)).collect();
        let state = Mutex::new(State::Runs);
        let process = Some(Process { control: ours, pidfd });
        let relay = Relay { process, table, rules: setup.rules, published, state, owner };
        let control = relay.control().expect("it has just been started");
        letter.send(control, RELAY_SETUP, 0, &fds).map_err(descriptors)?;
        Ok(relay)
    }

    /// What a client of a keeper knows of it.
    pub(crate) fn of_keeper(table: File, rules: Vec<String>, published: Vec<Published>) -> Relay {
        Relay { process: None, table, rules, published, state: Mutex::new(State::Kept), owner: std::process::id() }
    }

    /// It lives as long as somebody holds this.
    pub(crate) fn control(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.control.as_fd())
    }

    /// From now on a keeper has it.
    pub(crate) fn hand_over(&self) {
        if let Ok(mut state) = self.state.lock() {
            *state = State::Kept;
        }
    }

    pub(crate) fn rules(&self) -> &[String] {
        &self.rules
    }

    pub(crate) fn published(&self) -> &[Published] {
        &self.published
    }

    /// Waits for the end of a relay whose sandbox is over; it carries what is on its way. `at_once`: it does not.
    pub(crate) fn finish(&self, at_once: bool) {
        let (Ok(mut state), Some(Process { control, pidfd })) = (self.state.lock(), &self.process) else { return };
        if *state != State::Runs {
            return;
        }
        let patience = if at_once { Duration::ZERO } else { LAST_BYTES };
        let ended = sys::wait_readable(&[pidfd.as_fd()], Some(Instant::now() + patience));
        let by_itself = ended.is_ok_and(|ended| ended[0]);
        if !by_itself {
            let _ = sys::pidfd_kill(pidfd.as_fd(), libc::SIGKILL);
            // A filter around the caller may refuse that; then it ends by itself, for there is nobody to serve.
            let _ = shutdown(control.as_raw_fd(), Shutdown::Both);
            let _ = sys::wait_readable(&[pidfd.as_fd()], Some(Instant::now() + DEATH));
        }
        // With the sandbox it ends with 0; before, by a signal, or because it could not begin.
        let status = waitid(
            Id::PIDFd(pidfd.as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WNOTHREAD | WaitPidFlag::__WALL,
        );
        let fine = matches!(status, Ok(WaitStatus::Exited(_, 0)) | Err(_));
        *state = if by_itself && !fine { State::Lost } else { State::Ended };
    }

    /// What it has noted so far.
    pub(crate) fn report(&self) -> NetworkReport {
        let state = self.state.lock().map_or(State::Ended, |state| *state);
        let is_gone = || match &self.process {
            Some(process) => sys::is_readable(process.pidfd.as_fd()),
            None => !is_mapped(&self.table),
        };
        let lost = state == State::Lost || matches!(state, State::Runs | State::Kept) && is_gone();
        let mut table = vec![0; size_of::<Table>()];
        // What cannot be read is empty.
        let _ = self.table.read_exact_at(&mut table, 0);
        crate::report::network::read(&table, &self.rules, self.published.clone(), lost)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            self.finish(true);
        }
    }
}
