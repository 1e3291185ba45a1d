//! Sandboxes that are built before a request comes. See `runs.rs` for how one is handed out.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::poll::PollFlags;
use nix::sys::stat::fstat;

use crate::api::sandbox::Sandbox;
use crate::api::shared::Shared;
use crate::error::{Failure, Result};
use crate::ids::MappedTree;
use crate::plan::{self, Plan};
use crate::resolve::host_view::as_path;
use crate::supervise::ending::Ending;
use crate::supervise::init::Init;
use crate::sys;
use crate::wire::Step;

/// Each holds two processes, descriptors and perhaps an id of the host.
const MOST: usize = 1000;
/// How many are launched by one call at most: that which it takes, and one of those that were lost.
const AT_ONCE: usize = 2;

/// Sandboxes of one policy that are built ahead, so that a program starts about as fast as without a sandbox. Clones share
/// it; what waits in it ends with the last one, or with the calling process.
///
/// Each serves one command and is never used again: a command takes one that waits, and launches the next one, which builds
/// itself while the command runs. There is no thread. Where none waits, the command makes a sandbox of its own, as
/// [`Sandbox::command`] does.
///
/// All that a [`Command`](crate::Command) says is bound when it takes the sandbox: program, arguments, environment, descriptors,
/// input, time. What the policy says is bound before, and so [`track_changes`](crate::Command::track_changes) and
/// [`learn`](crate::Command::learn) are refused: another policy is another pool. What of the host the policy reads or shows is
/// as fresh as in a new sandbox: where a source of a mount is another one, a file has another content or something was mounted
/// since, what waited is thrown away. But what a process inherits (nice value, processors, resource limits) is what the caller had
/// when the sandbox was launched. In a forked process a pool is empty and stays so.
///
/// When a command has ended, nothing of its sandbox runs any more, but the kernel may still be letting go of its mounts.
///
/// ```
/// let pool = sandcell::Sandbox::builder().build()?.pool(2)?;
/// assert!(pool.command("true").status()?.success());
/// assert_eq!(pool.stats().hits, 1);
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    inside: Arc<Inside>,
}

/// What a [`Pool`] has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Commands that took a sandbox that waited.
    pub hits: u64,
    /// Commands for which none was there.
    pub misses: u64,
    /// Sandboxes that wait now.
    pub waiting: usize,
}

struct Inside {
    sandbox: Sandbox,
    size: usize,
    state: Mutex<State>,
    hits: AtomicU64,
    misses: AtomicU64,
    ending: Arc<Ending>,
    /// Who made it. Its copy in a forked process must touch neither what waits, nor a lock that another thread held.
    owner: u32,
}

struct State {
    waiting: VecDeque<Parked>,
    launching: usize,
    /// Becomes readable by POLLPRI when something is mounted or unmounted; see proc_pid_mountinfo(5).
    mounts: File,
    /// How often that has happened.
    epoch: u64,
}

/// A sandbox without a request.
pub(crate) struct Parked {
    pub init: Init,
    pub plan: Plan,
    places: Vec<Place>,
    relay: Option<Vec<u8>>,
    epoch: u64,
}

/// Device and number of what was at a path.
type Place = Option<(u64, u64)>;

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("size", &self.size).field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Builds `size` sandboxes ahead, and keeps as many waiting: see [`Pool`].
    ///
    /// # Errors
    /// `Config` where the policy allows only one sandbox at a time: an upper on disk that is kept. A sandbox that cannot be built
    /// is an error of the first command.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        if !(1..=MOST).contains(&size) {
            let message = format!("{size} is no size for a pool");
            return Err(Failure::new("option", "pool", message).hint("Choose a number from 1 to 1000.").config());
        }
        let (policy, resolved) = (self.policy(), &self.shared.resolved);
        let only_one = [
            ("upper", resolved.files.upper.is_some(), "only one sandbox at a time can be on an upper that is kept"),
            ("publish", !resolved.published.is_empty(), "only one sandbox at a time can have a port of the host"),
            ("reclaim", policy.identity.reclaim, "what is given back belongs to one run"),
            ("init", policy.init, "a system is started for its own init"),
        ];
        if let Some((option, _, message)) = only_one.into_iter().find(|(_, set, _)| *set) {
            let hint = "Leave the option out, or run it in a sandbox that is made for it: `sandbox.command(..)`.";
            return Err(Failure::new("option", option, message).hint(hint).config());
        }
        let mounts = File::open("/proc/self/mountinfo").map_err(|error| {
            Failure::new("pool", "/proc/self/mountinfo", "cannot watch what is mounted").cause(&error).setup()
        })?;
        let state = State { waiting: VecDeque::new(), launching: 0, mounts, epoch: 0 };
        let pool = Pool {
            inside: Arc::new(Inside {
                sandbox: self.clone(),
                size,
                state: Mutex::new(state),
                hits: AtomicU64::new(0),
                misses: AtomicU64::new(0),
                ending: Arc::default(),
                owner: std::process::id(),
            }),
        };
        for _ in 0..size {
            pool.launch_one()?;
        }
        Ok(pool)
    }
}

impl Pool {
    /// The policy's sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.inside.sandbox
    }

    /// What it has done so far, and how many sandboxes wait.
    pub fn stats(&self) -> PoolStats {
        let waiting =
            if self.is_ours() { self.lock().waiting.iter().filter(|parked| parked.lives()).count() } else { 0 };
        PoolStats {
            hits: self.inside.hits.load(Ordering::Relaxed),
            misses: self.inside.misses.load(Ordering::Relaxed),
            waiting,
        }
    }

    pub(crate) fn ending(&self) -> Arc<Ending> {
        self.inside.ending.clone()
    }

    fn is_ours(&self) -> bool {
        self.inside.owner == std::process::id()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inside.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one that has waited longest and is as one would be that was made now.
    pub(crate) fn claim(&self) -> Option<Parked> {
        while self.is_ours() {
            let (parked, epoch) = {
                let mut state = self.lock();
                state.look_at_mounts();
                (state.waiting.pop_front(), state.epoch)
            };
            let Some(parked) = parked else { break };
            if parked.lives() && parked.epoch == epoch && parked.is_fresh(&self.inside.sandbox.shared) {
                self.inside.hits.fetch_add(1, Ordering::Relaxed);
                return Some(parked);
            }
        }
        self.inside.misses.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Of a command that could not be asked for.
    pub(crate) fn put_back(&self, parked: Parked) {
        self.inside.hits.fetch_sub(1, Ordering::Relaxed);
        self.lock().waiting.push_front(parked);
    }

    /// Launches what is missing. What fails is left to the next command, which says why when it makes its own.
    pub(crate) fn fill(&self) {
        for _ in 0..AT_ONCE {
            if !self.is_ours() || !self.launch_one().unwrap_or(false) {
                return;
            }
        }
    }

    /// Whether one was missing.
    fn launch_one(&self) -> Result<bool> {
        let epoch = {
            let mut state = self.lock();
            if state.waiting.len() + state.launching >= self.inside.size {
                return Ok(false);
            }
            state.look_at_mounts();
            state.launching += 1;
            state.epoch
        };
        let parked = Parked::launch(&self.inside.sandbox.shared, epoch);
        let mut state = self.lock();
        state.launching -= 1;
        state.waiting.push_back(parked?);
        Ok(true)
    }
}

impl State {
    fn look_at_mounts(&mut self) {
        let changed = sys::wait(&[(self.mounts.as_fd(), PollFlags::POLLPRI)], Some(Instant::now()));
        // What cannot be asked may have changed.
        self.epoch += u64::from(changed.map_or(true, |changed| changed[0]));
    }
}

impl Parked {
    fn launch(shared: &Shared, epoch: u64) -> Result<Parked> {
        let (mut places, mut relay) = (Vec::new(), None);
        let mut see = |plan: &Plan, trees: &[MappedTree], config: Option<&[u8]>| {
            places = self::places(shared, plan, trees);
            relay = config.map(<[u8]>::to_vec);
        };
        let (init, plan) = shared.launch_seen(false, false, None, None, &mut see)?;
        Ok(Parked { init, plan, places, relay, epoch })
    }

    fn lives(&self) -> bool {
        !sys::is_readable(self.init.pidfd.as_fd())
    }

    /// Whether a sandbox that was made now would be the same.
    fn is_fresh(&self, shared: &Shared) -> bool {
        let (init, given) = (&self.init, &self.plan.given);
        let again = shared.plan_of(given, &init.identity, init.disk_upper(), false, false);
        let Ok(again) = again else { return false };
        let relay = || {
            plan::relay::config(shared.policy(), &shared.resolved.published)
                .is_ok_and(|config| self.relay.as_ref() == Some(&config))
        };
        is_same(&self.plan, &again) && self.places == places(shared, &again, &[]) && (self.relay.is_none() || relay())
    }

    pub(crate) fn into_parts(self) -> (Init, Plan) {
        (self.init, self.plan)
    }
}

/// But for what is random.
fn is_same(one: &Plan, other: &Plan) -> bool {
    let same = |one: &Step<'_>, other: &Step<'_>| match (one, other) {
        (Step::File { path, .. }, Step::File { path: other, .. }) if plan::is_random(path) => path == other,
        _ => one == other,
    };
    one.bytes.len() == other.bytes.len() && one.steps().zip(other.steps()).all(|(one, other)| same(&one, &other))
}

/// What lies where the Plan opens something of the host, or lay there when it was opened as one of `trees`. Whoever has other
/// namespaces or another root by now sees another host.
fn places(shared: &Shared, plan: &Plan, trees: &[MappedTree]) -> Vec<Place> {
    let at = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let paths_are_the_hosts = !shared.policy().isolation.has_namespaces();
    let opened = plan.steps().filter_map(|step| match step {
        Step::TakeTree { index, path, .. } => Some(match trees.get(index as usize) {
            Some(tree) => fstat(&tree.mount).ok().map(|stat| (stat.st_dev, stat.st_ino)),
            None => at(as_path(path)),
        }),
        Step::OpenDir { path, .. } | Step::OpenTree { path, .. } => Some(at(as_path(path))),
        Step::LandlockPath { path, .. } if paths_are_the_hosts => Some(at(as_path(path))),
        _ => None,
    });
    ["/proc/self/ns/mnt", "/"].into_iter().map(|path| at(Path::new(path))).chain(opened).collect()
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // All at once, and then each is waited for.
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            state.waiting.iter().for_each(|parked| parked.init.kill());
        }
    }
}
