//! The supervisor of a live sandbox, seen from outside: its process, its groups, and how it is ended.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::cgroup::{Closed, Placed, Placement, Rlimit};
use crate::error::{Failure, Result};
use crate::ids::{Assigned, UserNamespace};
use crate::launch::Started;
use crate::launch::relay::Relay;
use crate::overlay::upper::DiskUpper;
use crate::report::{Enforced, Mechanism, NetworkReport, Published, Usage};
use crate::subid_tree::{Bound, give_back};
use crate::supervise::keeper;
use crate::supervise::unkillable::{self, DEATH, Remains, Stuck};
use crate::sys;
use crate::sys::procfs;
use crate::wire::keeper::{STATUS_PAUSED, ask};
use crate::wire::{Message, control, reply, stage};

/// The groups of a sandbox while it lives, and what they came to when it is over.
#[derive(Debug)]
enum Group {
    None,
    Live(Placement),
    Over { closed: Closed, oom: bool },
}

/// How long it may take to answer, and to end what it is seen to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How long a sandbox may take to be built, and a program to be executed in it. More is a file system that does not answer.
pub(crate) const START_UP: Duration = Duration::from_secs(60);

/// How often a frozen cell is looked at by whoever waits for it to go on.
const LOOK: Duration = Duration::from_millis(5);

/// The supervisor of one sandbox. Everything in it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Init {
    pub control: OwnedFd,
    pub pidfd: Arc<OwnedFd>,
    pub identity: Assigned,
    pub enforced: Vec<Enforced>,
    pub upper: Option<OwnedFd>,
    /// Resource limits that stand in for limits of a group.
    pub rlimits: Vec<Rlimit>,
    group: Mutex<Group>,
    /// Whether it is frozen; held by those that start programs in it.
    frozen: RwLock<bool>,
    over: AtomicBool,
    /// When it was started, and how long it lived when it was killed or seen to be over.
    since: Instant,
    lived: OnceLock<Duration>,
    /// The caller has ended it.
    pub(crate) killed: AtomicBool,
    /// It was waited for in vain.
    lives_on: AtomicBool,
    /// Where it goes then.
    stuck: Arc<Stuck>,
    /// Held, or kept from others, until everything in it is gone.
    disk_upper: Option<DiskUpper>,
    /// The process that made it: a copy of it in a forked process must not end it.
    owner: u32,
    /// What is given to the caller when it is over, and what of that failed.
    pub(crate) bounds: Vec<Bound>,
    kept_back: Mutex<Vec<String>>,
    /// A keeper has it: nothing ends with this value.
    kept: AtomicBool,
    /// With a connection to a keeper as `control`: who waits for its answer.
    turn: Mutex<()>,
    /// The way out of its network, where there is one.
    relay: Option<Relay>,
}

impl Init {
    pub(crate) fn new(
        started: Started,
        identity: Assigned,
        enforced: Vec<Enforced>,
        placed: Placed,
        upper: Option<DiskUpper>,
        stuck: Arc<Stuck>,
    ) -> Init {
        let Placed { placement, rlimits, .. } = placed;
        let mut init = Init::with(started, identity, enforced, placement, rlimits);
        (init.stuck, init.disk_upper) = (stuck, upper);
        init
    }

    /// What a client of a keeper has of a cell: `started` is its connection to the keeper and a pidfd of init.
    pub(crate) fn of_keeper(
        started: Started,
        identity: Assigned,
        enforced: Vec<Enforced>,
        placement: Option<Placement>,
        rlimits: Vec<Rlimit>,
        since: Instant,
    ) -> Init {
        let mut init = Init::with(started, identity, enforced, placement, rlimits);
        (init.kept, init.since) = (AtomicBool::new(true), since);
        init
    }

    fn with(
        Started { control, pidfd, relay }: Started,
        identity: Assigned,
        enforced: Vec<Enforced>,
        placement: Option<Placement>,
        rlimits: Vec<Rlimit>,
    ) -> Init {
        Init {
            control,
            pidfd: Arc::new(pidfd),
            identity,
            enforced,
            upper: None,
            rlimits,
            group: Mutex::new(placement.map_or(Group::None, Group::Live)),
            frozen: RwLock::new(false),
            over: AtomicBool::new(false),
            since: Instant::now(),
            lived: OnceLock::new(),
            killed: AtomicBool::new(false),
            lives_on: AtomicBool::new(false),
            stuck: Arc::default(),
            disk_upper: None,
            bounds: Vec::new(),
            kept_back: Mutex::default(),
            owner: std::process::id(),
            kept: AtomicBool::new(false),
            turn: Mutex::new(()),
            relay,
        }
    }

    /// The upper of its own on disk, where it has one.
    pub(crate) fn disk_upper(&self) -> Option<&DiskUpper> {
        self.disk_upper.as_ref()
    }

    /// Whether its own end changes nothing but that it is gone: no groups, no relay, no files wait for it.
    pub(crate) fn ends_alone(&self) -> bool {
        matches!(*self.group(), Group::None)
            && self.relay.is_none()
            && self.disk_upper.is_none()
            && !matches!(self.identity.namespace, UserNamespace::Absent)
            && self.owner == std::process::id()
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// From now on a keeper has it, which has copies of all that holds it.
    pub(crate) fn hand_over(&self) {
        self.kept.store(true, Ordering::Release);
        if let Group::Live(placement) = &mut *self.group() {
            placement.release();
        }
        if let Some(relay) = &self.relay {
            relay.hand_over();
        }
    }

    /// What a keeper has to hold besides the groups: locks.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &std::fs::File> {
        let lease = self.identity.lease().into_iter().flat_map(|lease| lease.locks());
        lease.chain(self.disk_upper.as_ref().map(DiskUpper::lock))
    }

    /// Its groups, where it has some.
    pub(crate) fn groups<T>(&self, look: impl FnOnce(&Placement) -> Result<T>) -> Result<Option<T>> {
        match &*self.group() {
            Group::Live(placement) => look(placement).map(Some),
            _ => Ok(None),
        }
    }

    /// Asks the keeper for something; one thread at a time.
    pub(crate) fn ask(&self, kind: u32, value: u32, text: &[u8], fds: &[i32]) -> Result<sys::Heard> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        keeper::ask(self.control.as_fd(), kind, value, text, fds)
    }

    /// A descriptor of the overlay's upper, where there is one.
    pub(crate) fn upper(&self) -> Result<Option<OwnedFd>> {
        if self.is_kept() {
            return match self.ask(ask::UPPER, 0, &[], &[]) {
                Ok((.., upper)) => Ok(upper),
                Err(error) if error.errno() == Some(libc::EINVAL) => Ok(None),
                Err(error) => Err(error),
            };
        }
        let upper = self.upper.as_ref().map(OwnedFd::try_clone).transpose();
        upper.map_err(|_| sys::descriptors(Errno::last()))
    }

    /// What it says of itself.
    pub(crate) fn receive(&self, patience: Duration) -> Result<Option<sys::Heard>> {
        let until = Instant::now() + patience;
        if !sys::wait_readable(&[self.control.as_fd()], Some(until)).map_err(talking)?[0] {
            return Err(self.too_slow("setup", "supervisor"));
        }
        sys::receive(self.control.as_fd()).map_err(talking)
    }

    /// Ends a sandbox in which something has not started in time.
    pub(crate) fn too_slow(&self, stage: &'static str, subject: &str) -> crate::Error {
        self.kill();
        self.reap();
        Failure::new(stage, subject, format!("did not start within {} s", START_UP.as_secs()))
            .hint("Look for a file system that does not answer beneath the layers, the mounts or the program.")
            .setup()
    }

    /// Waits until the sandbox and everything in it is gone, and takes the last figures of its groups. It must have been
    /// told to end. Once only where it does not.
    pub(crate) fn reap(&self) {
        if !self.over.load(Ordering::Acquire) {
            let patience = if self.lives_on.load(Ordering::Acquire) { Duration::ZERO } else { DEATH };
            let ended = sys::wait_readable(&[self.pidfd.as_fd()], Some(Instant::now() + patience));
            if ended.is_ok_and(|ended| !ended[0]) {
                self.lives_on.store(true, Ordering::Release);
            } else if !self.over.swap(true, Ordering::AcqRel) {
                self.lived();
                sys::reap(self.pidfd.as_fd());
                self.give_back();
            }
        }
        if let (Some(relay), true) = (&self.relay, self.over.load(Ordering::Acquire)) {
            relay.finish(self.killed.load(Ordering::Acquire));
        }
        let mut group = self.group();
        if self.is_kept() {
            return;
        }
        if matches!(*group, Group::Live(_))
            && let Group::Live(placement) = std::mem::replace(&mut *group, Group::None)
        {
            let oom = placement.oom_killed();
            let lives_on = self.lives_on.load(Ordering::Acquire) && !self.over.load(Ordering::Acquire);
            let closed = if lives_on { placement.close_within(Duration::ZERO) } else { placement.close() };
            *group = Group::Over { closed, oom };
        }
    }

    /// The same for a sandbox whose time is up: it is waited for as long as one sees that it ends.
    pub(crate) fn reap_while_it_ends(&self) {
        if !self.over.load(Ordering::Acquire) && !unkillable::ends(self.pidfd.as_fd()) {
            self.lives_on.store(true, Ordering::Release);
        }
        self.reap();
    }

    /// While the ids are still leased: afterwards they may be another sandbox's.
    fn give_back(&self) {
        if !self.bounds.is_empty() {
            let failed = give_back(&self.bounds, &self.identity);
            *self.kept_back.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        }
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it has lived; once it was seen to be over, how long it did.
    pub(crate) fn lived(&self) -> Duration {
        if let Some(lived) = self.lived.get() {
            return *lived;
        }
        let lived = self.since.elapsed();
        if sys::is_readable(self.pidfd.as_fd()) { *self.lived.get_or_init(|| lived) } else { lived }
    }

    /// Whether the memory limit has ended a process of the sandbox, at any depth.
    pub(crate) fn out_of_memory(&self) -> bool {
        match &*self.group() {
            Group::None => false,
            Group::Live(placement) => placement.oom_killed(),
            Group::Over { oom, .. } => *oom,
        }
    }

    /// What the groups have counted; theirs are the better figures.
    pub(crate) fn count(&self, usage: &mut Usage) {
        match &*self.group() {
            Group::None => {}
            Group::Live(placement) => placement.usage().fill(usage),
            Group::Over { closed, .. } => closed.usage.fill(usage),
        }
        if self.relay.is_some() {
            // It is ours, and in the groups.
            usage.pids_peak = usage.pids_peak.map(|peak| peak.saturating_sub(1));
        }
    }

    /// What was reached by its network, and what was refused.
    pub(crate) fn network(&self) -> Option<NetworkReport> {
        self.relay.as_ref().map(Relay::report)
    }

    /// Its relay, where there is one.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The ports of it that are published on the host.
    pub(crate) fn published(&self) -> &[Published] {
        self.relay.as_ref().map_or(&[], Relay::published)
    }

    /// What went wrong in cleaning up.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.lives_on.load(Ordering::Acquire) && !self.over.load(Ordering::Acquire) {
            let what = "a process of it was killed and lives on: it waits in the kernel, for a file system that does not answer?";
            warnings.push(what.to_owned());
            if !self.bounds.is_empty() {
                warnings.push("nothing was given back to the caller (`reclaim`) therefore".to_owned());
            }
        }
        warnings.extend_from_slice(&self.kept_back.lock().unwrap_or_else(PoisonError::into_inner));
        if let Group::Over { closed: Closed { removed: Err(error), .. }, .. } = &*self.group() {
            warnings.push(error.to_string());
        }
        warnings
    }

    /// Where a process joins the groups of the sandbox, by writing "0".
    pub(crate) fn entrances(&self) -> Result<Vec<OwnedFd>> {
        let Group::Live(placement) = &*self.group() else { return Ok(Vec::new()) };
        let mut all = placement.join()?;
        all.extend(placement.join_v2()?);
        Ok(all)
    }

    /// What the groups of the sandbox can be told while it lives.
    pub(crate) fn control<T>(&self, act: impl FnOnce(&mut Placement) -> Result<T>) -> Result<T> {
        match &mut *self.group() {
            Group::Live(placement) => act(placement),
            _ if self.killed.load(Ordering::Acquire) => Err(killed("cgroup")),
            _ => Err(Failure::new("cgroup", "cell", "it has no cgroup")
                .hint("start it with a limit that a cgroup holds, such as `pids`; where that is refused, the hint says what the host lacks")
                .unsupported()),
        }
    }

    /// Lets a limit of processes be the programs' where init keeps one beside them.
    pub(crate) fn make_room_for_keeper(&self) -> Result<()> {
        if self.is_kept() {
            // In order before the request that needs it; nobody answers.
            return sys::send(self.control.as_fd(), ask::PLACES, 1).map_err(talking);
        }
        match &mut *self.group() {
            Group::Live(placement) => placement.keepers(1),
            _ => Ok(()),
        }
    }

    /// What is enforced, less what somebody has taken away meanwhile.
    pub(crate) fn still_enforced(&self) -> Vec<Enforced> {
        let mut list = self.enforced.clone();
        if let Group::Over { closed, .. } = &*self.group() {
            for (item, why) in &closed.lost {
                for line in list.iter_mut().filter(|line| line.item == *item) {
                    line.by = Mechanism::Nothing;
                    line.why = Some(why.clone());
                }
            }
        }
        list
    }

    /// Ends it and everything in it, whatever state it is in. `reap` waits for that.
    pub(crate) fn kill(&self) {
        if self.is_kept() {
            let _ = self.ask(ask::KILL, 0, &[], &[]);
            return;
        }
        self.end();
        // Frozen processes do not die on cgroup v1.
        if let Group::Live(placement) = &mut *self.group() {
            placement.let_go();
        }
    }

    fn end(&self) {
        if matches!(self.identity.namespace, UserNamespace::Absent) {
            // Nothing ends with this supervisor but what it ends itself.
            let _ = shutdown(self.control.as_raw_fd(), Shutdown::Both);
            if sys::wait_readable(&[self.pidfd.as_fd()], Some(Instant::now() + PATIENCE)).is_ok_and(|ready| ready[0]) {
                return;
            }
        }
        let _ = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Stops everything in it but the supervisor, which thaws what it has to end.
    pub(crate) fn freeze(&self) -> Result<()> {
        let mut frozen = self.frozen.write().unwrap_or_else(PoisonError::into_inner);
        let pid = self.host_pid()?;
        let freeze = || {
            self.control(|group| {
                let (file, version) = group.thaws_by()?;
                self.tell_of_freezing(&file, version)?;
                group.freeze(pid)?;
                Ok(group.aside())
            })
        };
        if self.is_kept() {
            self.ask(ask::PAUSE, 1, &[], &[])?;
            let told = freeze().and_then(|aside| {
                let Some((parent, name)) = aside else { return Ok(()) };
                self.ask(ask::PAUSE, 2, name.as_bytes(), &[parent.as_raw_fd()]).map(|_| ())
            });
            if told.is_err() {
                let _ = self.ask(ask::PAUSE, 0, &[], &[]);
            }
            return told;
        }
        freeze()?;
        *frozen = true;
        Ok(())
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        let mut frozen = self.frozen.write().unwrap_or_else(PoisonError::into_inner);
        let pid = self.host_pid()?;
        if self.is_kept() {
            // It may have been frozen by somebody else.
            self.control(|group| group.find_aside(pid))?;
        }
        self.control(|group| group.thaw(pid))?;
        if self.is_kept() {
            self.ask(ask::PAUSE, 0, &[], &[])?;
        }
        *frozen = false;
        Ok(())
    }

    fn host_pid(&self) -> Result<i32> {
        if self.killed.load(Ordering::Acquire) {
            return Err(killed("cgroup"));
        }
        procfs::of_pidfd(self.pidfd.as_fd())
            .map(u32::cast_signed)
            .ok_or_else(|| Failure::new("cgroup-freeze", "supervisor", "has ended").hint("Start another cell.").setup())
    }

    fn tell_of_freezing(&self, file: &OwnedFd, version: u32) -> Result<()> {
        let (ours, theirs) = sys::message_sockets().map_err(talking)?;
        let message = Message { kind: control::FREEZE, value: version, length: 0 };
        let fds = [file.as_raw_fd(), theirs.as_raw_fd()];
        sys::transmit(self.control.as_fd(), message, &[], &fds).map_err(talking)?;
        drop(theirs);
        let heard = sys::wait_readable(&[ours.as_fd()], Some(Instant::now() + PATIENCE)).map_err(talking)?;
        if heard[0] && sys::receive(ours.as_fd()).map_err(talking)?.is_some() {
            return Ok(());
        }
        Err(Failure::new("cgroup-freeze", "supervisor", "does not answer").hint("End the cell: `kill`.").io())
    }

    /// Keeps it from being frozen while a program is started. In a frozen cell a program waits for the thaw as long as it
    /// may run: `None` when that has passed, and then the cell is thawed. Without a timeout it is an error at once.
    pub(crate) fn awake(&self, timeout: Option<Duration>) -> Result<Option<RwLockReadGuard<'_, bool>>> {
        // A pause of a cell with a name is somebody else's, who alone ends it.
        let until = timeout.filter(|_| !self.is_kept()).and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let frozen = self.frozen.read().unwrap_or_else(PoisonError::into_inner);
            let paused = || Ok(self.ask(ask::STATUS, 0, &[], &[])?.0.detail & STATUS_PAUSED != 0);
            let stands = *frozen || self.is_kept() && paused()?;
            if !stands {
                return Ok(Some(frozen));
            }
            drop(frozen);
            // The supervisor has thawed it to end something.
            if !self.control(|group| Ok(group.is_frozen()))? {
                self.thaw()?;
                continue;
            }
            let Some(until) = until else {
                return Err(Failure::new("start", "cell", "is frozen").hint("Let it go on first: `thaw()`.").setup());
            };
            if Instant::now() >= until {
                self.thaw()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Why it had to end the sandbox, where it could say so.
    fn last_word(&self) -> Option<Failure> {
        let ready = sys::wait_readable(&[self.control.as_fd()], Some(Instant::now())).ok()?;
        let (reply, ..) = ready[0].then(|| sys::receive(self.control.as_fd()).ok().flatten())??;
        let (name, words) = stage::describe(reply.detail);
        let failure = || Failure::new(name, "supervisor", words).errno(reply.errno);
        let hint = "Look for a security module around the caller that keeps a process from its own /proc.";
        (reply.kind == reply::FAILED).then(|| failure().hint(hint))
    }

    /// The supervisor ended without a word.
    pub(crate) fn lost(&self, stage: &'static str) -> crate::Error {
        if self.is_kept() {
            return if self.killed.load(Ordering::Acquire) { killed(stage) } else { keeper::ended(stage) };
        }
        self.kill();
        self.reap();
        if self.out_of_memory() {
            let message =
                "the limit is too small for the sandbox itself, which was killed for memory before it was done";
            return Failure::new(stage, "memory", message).hint("raise `memory`: 1 MiB is enough to start").setup();
        }
        if self.killed.load(Ordering::Acquire) {
            return killed(stage);
        }
        if let Some(failure) = self.last_word() {
            return failure.io();
        }
        let hint = "Look for an out-of-memory kill in the kernel's log. Without the default `seccomp`, a program can do it, too: \
            by a limit of CPU time.";
        Failure::new(stage, "supervisor", "ended without a word: it was killed").hint(hint).io()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            std::mem::forget(std::mem::replace(&mut *self.group(), Group::None));
            return;
        }
        if self.is_kept() {
            // Closed only: the keeper has its own.
            if let Some(lease) = self.identity.take_lease() {
                lease.hand_over();
            }
            if let Some(upper) = self.disk_upper.take() {
                upper.hand_over();
            }
            return;
        }
        if !self.over.load(Ordering::Acquire) {
            self.kill();
            self.reap();
        }
        if !self.over.load(Ordering::Acquire) {
            let (lease, upper) = (self.identity.take_lease(), self.disk_upper.take());
            match self.pidfd.try_clone() {
                Ok(pidfd) => self.stuck.keep(Remains { pidfd, _lease: lease, _upper: upper }),
                Err(_) => std::mem::forget((lease, upper)),
            }
        }
    }
}

pub(crate) fn talking(errno: Errno) -> crate::Error {
    Failure::new("protocol", "supervisor", "cannot talk with it")
        .errno(errno as i32)
        .hint("the sandbox is out of reach and will be ended: start another")
        .io()
}

/// The error of what is asked of a sandbox that the caller has killed.
pub(crate) fn killed(stage: &'static str) -> crate::Error {
    Failure::new(stage, "sandbox", "it was killed by the caller").hint("Start another one.").io()
}

/// Room, within the limit of processes, for the process that init keeps beside each command of a cell: the caller's number
/// is the programs'.
#[derive(Debug)]
pub(crate) struct Keeper(Arc<Init>);

impl Keeper {
    pub(crate) fn new(init: Arc<Init>) -> Result<Keeper> {
        init.make_room_for_keeper()?;
        Ok(Keeper(init))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.0.is_kept() {
            let _ = sys::send(self.0.control.as_fd(), ask::PLACES, u32::MAX);
        } else if let Group::Live(placement) = &mut *self.0.group() {
            // Too high a limit is what is left otherwise, and the groups' end tells of a group that does not answer.
            let _ = placement.keepers(-1);
        }
    }
}
