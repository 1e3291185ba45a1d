//! What all runs of one sandbox share, and the start of init.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::api::streams::Passed;
use crate::cgroup::{self, CpuClock, Facts, Placement};
use crate::error::{Failure, Result};
use crate::ids::{Assigned, MappedTree};
use crate::launch::ports::Ports;
use crate::launch::{InitBinary, Launch, relay};
use crate::overlay::upper::DiskUpper;
use crate::plan::{self, Filter, Given, Inputs, Plan};
use crate::policy::rules::Rules;
use crate::policy::{Isolation, Mount, Policy};
use crate::report::Enforced;
use crate::report::trace::{StartStage, Trace};
use crate::resolve::Resolved;
use crate::resolve::host_view::HostFiles;
use crate::seccomp::Profile;
use crate::subid_tree::Bound;
use crate::supervise::init::{Init, START_UP, talking};
use crate::supervise::unkillable::Stuck;
use crate::sys::{self, descriptors};
use crate::wire::{control, reply};

/// What all runs of one [`Sandbox`](crate::Sandbox) share.
pub(crate) struct Shared {
    pub resolved: Resolved,
    pub trace: Trace,
    /// `None` in a client of a keeper, which starts no sandbox.
    pub image: Option<InitBinary>,
    /// Who holds the limits, found out at the first start: a caller may step into a group of its own before that.
    pub limits: OnceLock<cgroup::Prepared>,
    /// What of the host's files sandboxes are made of, looked at once.
    pub host: OnceLock<HostFiles>,
    pub filter: Option<Filter>,
    /// What the kernel's Landlock can do: asked once, each question makes a ruleset.
    #[cfg(feature = "landlock")]
    pub landlock: landlock::ABI,
    /// Resource limits that stand in for others, and those that always hold.
    pub rlimits: Vec<(crate::kernel_names::Resource, u64, u64)>,
    /// Sandboxes that were killed and could not be waited for.
    pub stuck: Arc<Stuck>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy().fmt(f)
    }
}

impl Shared {
    /// What was asked for.
    pub(crate) fn policy(&self) -> &Policy {
        &self.resolved.policy
    }

    /// The profile that was asked for; without one everything is allowed.
    pub(crate) fn profile(&self) -> Profile {
        plan::profile(self.policy())
    }

    pub(crate) fn host_files(&self) -> Result<&HostFiles> {
        match self.host.get() {
            Some(files) => Ok(files),
            None => {
                let files = HostFiles::look()?;
                Ok(self.host.get_or_init(|| files))
            }
        }
    }

    /// Who the next sandbox is.
    pub(crate) fn identity(&self) -> Result<Assigned> {
        match self.policy().isolation {
            Isolation::Namespaces => self.resolved.ids.assign_for(&self.resolved.files),
            Isolation::Landlock => Assigned::caller(),
        }
    }

    pub(crate) fn plan(
        &self,
        identity: &Assigned,
        clock: Option<&CpuClock>,
        upper: Option<&DiskUpper>,
        keep_upper: bool,
        learn: bool,
    ) -> Result<(Plan, Vec<Enforced>)> {
        let given = Given {
            hostname: self.policy().hostname.clone().map_or_else(random_name, Ok)?,
            cpu_clock: clock.map(|clock| if clock.nanoseconds { 1 } else { 1000 }),
            trees: identity.trees.iter().map(|tree| tree.path.clone()).collect(),
        };
        let plan = self.plan_of(&given, identity, upper, keep_upper, learn)?;
        let enforced = plan::enforced(&self.resolved, identity, upper.is_some_and(DiskUpper::is_private));
        #[cfg(feature = "landlock")]
        let enforced = [enforced, plan::landlock_report(&self.resolved, self.landlock)].concat();
        Ok((plan, enforced))
    }

    /// The Plan, with what is another one each time as it is given.
    pub(crate) fn plan_of(
        &self,
        given: &Given,
        identity: &Assigned,
        upper: Option<&DiskUpper>,
        keep_upper: bool,
        learn: bool,
    ) -> Result<Plan> {
        let policy = self.policy();
        let filter =
            if learn { Some(Filter::learning(&self.profile(), &policy.cap_add)?) } else { self.filter.clone() };
        let inputs = Inputs {
            resolved: &self.resolved,
            identity,
            given,
            filter,
            announce: keep_upper || self.trace.is_on(),
            traced: self.trace.is_on(),
            #[cfg(feature = "landlock")]
            landlock: self.landlock,
            host: self.host_files()?,
            upper,
        };
        plan::compile(&inputs)
    }

    /// The kernel says only "out of memory" where a start does not fit into the limit that was asked for; execve(2)
    /// says that there are too many arguments, when it has no page for them.
    pub(crate) fn name_the_limit(&self, error: crate::Error) -> crate::Error {
        match self.policy().limits.memory {
            Some(limit)
                if error.errno() == Some(libc::ENOMEM)
                    || matches!(error.errno(), Some(libc::E2BIG | libc::EFAULT)) && error.stage() == "exec-init" =>
            {
                let message =
                    format!("the limit of {limit} bytes is too small to start in: {}", error.failure().message);
                let failure = Failure { errno: error.errno(), ..Failure::new(error.stage(), "memory", message) };
                failure.hint("raise `memory`: 1 MiB is enough to start").setup()
            }
            _ => error,
        }
    }

    /// What this holds in the store, held once more for a process that outlives this one.
    pub(crate) fn kept_again(&self) -> Result<Vec<std::fs::File>> {
        #[cfg(feature = "image")]
        return self.resolved.kept.again().map_err(|e| {
            Failure::new("image-lock", "store", "the image cannot be held for the cell").cause(&e).setup()
        });
        #[cfg(not(feature = "image"))]
        Ok(Vec::new())
    }

    /// The image's name, where the root is one.
    pub(crate) fn image_name(&self) -> Option<String> {
        #[cfg(feature = "image")]
        return self
            .resolved
            .kept
            .image()
            .map(|image| image.names.first().cloned().unwrap_or_else(|| image.id.to_string()));
        #[cfg(not(feature = "image"))]
        None
    }

    /// What a client of a keeper has: nothing that starts a sandbox.
    pub(crate) fn of_keeper(resolved: Resolved) -> Shared {
        Shared {
            resolved,
            trace: Trace::default(),
            image: None,
            limits: OnceLock::new(),
            host: OnceLock::new(),
            filter: None,
            #[cfg(feature = "landlock")]
            landlock: crate::landlock::running_abi(),
            rlimits: own_rlimits(),
            stuck: Arc::default(),
        }
    }

    /// Who holds the limits: found out once.
    pub(crate) fn limits(&self) -> Result<&cgroup::Prepared> {
        match self.limits.get() {
            Some(limits) => Ok(limits),
            None => {
                let found = cgroup::prepare(&self.policy().limits, &self.policy().best_effort, false)?;
                Ok(self.limits.get_or_init(|| found))
            }
        }
    }

    /// The groups of one sandbox. What lives for `long` is to be looked at, and may be frozen: with groups where there can be
    /// some.
    fn place(&self, facts: Facts, long: bool) -> Result<cgroup::Placed> {
        let policy = self.policy();
        let counted = || cgroup::prepare(&policy.limits, &policy.best_effort, true)?.place(facts);
        match long.then(counted) {
            Some(Ok(placed)) => Ok(placed),
            Some(Err(_)) | None => self.limits()?.place(facts),
        }
    }

    /// Starts init. With a request it is sent along, so that init finds it when the sandbox is built. `owner`: the process
    /// with which the sandbox ends, if not the caller.
    pub(crate) fn launch(
        &self,
        keep_upper: bool,
        learn: bool,
        request: Option<FirstRequest<'_>>,
        owner: Option<Owner<'_>>,
    ) -> Result<(Init, Plan)> {
        self.launch_seen(keep_upper, learn, request, owner, &mut |_, _, _| {})
    }

    /// The same; `seen` is told of the Plan before anything of the host is opened for it.
    pub(crate) fn launch_seen(
        &self,
        keep_upper: bool,
        learn: bool,
        request: Option<FirstRequest<'_>>,
        owner: Option<Owner<'_>>,
        seen: Seen<'_>,
    ) -> Result<(Init, Plan)> {
        let policy = self.policy();
        let (owner, table) = owner.map_or((None, None), |owner| (Some(owner.pidfd), owner.table));
        let _held = sys::HeldFileSizeSignal::new();
        let mut stages = self.trace.clock();
        self.stuck.look_again();
        // Before anything is made: a port that is taken is nobody's surprise then.
        let ports = Ports::open(&self.resolved.published)?;
        let upper = DiskUpper::of(&self.resolved.files, policy, self.host_files()?.upper_in_memory)?;
        let mut identity = self.identity()?;
        if owner.is_some() {
            identity.set_lease_apart()?;
        }
        if let Some(dir) = &self.resolved.files.upper {
            identity.note_in(dir)?;
        }
        let bounds = self.bounds(request.is_some())?;
        stages.lap("ids");
        let facts = Facts { host_root: identity.host_uid == 0, ids: policy.identity.count };
        let mut placed = self.place(facts, owner.is_some() || policy.init)?;
        stages.lap("cgroup");
        let clock = placed.placement.as_ref().map_or(Ok(None), Placement::cpu_clock)?;
        let (plan, mut enforced) = self.plan(&identity, clock.as_ref(), upper.as_ref(), keep_upper, learn)?;
        enforced.append(&mut placed.enforced);
        stages.lap("plan");
        let relay = policy.network_in_effect().has_relay().then(|| self.relay(ports, table)).transpose()?;
        if let (Some(_), Some(placement)) = (&relay, &mut placed.placement) {
            // It is in the group, and not to be counted.
            placement.keepers(1)?;
        }
        seen(&plan, &identity.trees, relay.as_ref().map(|relay| &relay.config[..]));
        let placement = placed.placement.as_ref();
        let keeps = if policy.init { plan::kept(policy) } else { 0 };
        let launch = Launch { keeps, plan: &plan.bytes, identity: &identity, placement, clock, relay, owner };
        let Some(image) = &self.image else {
            return Err(Failure::new("start", "cell", "a client of a cell starts no other").setup());
        };
        let started = launch.start(image).map_err(|error| self.name_the_limit(error))?;
        stages.lap("clone");
        identity.trees.clear();
        let mut init = Init::new(started, identity, enforced, placed, upper, self.stuck.clone());
        init.bounds = bounds;
        if let Some(request) = request {
            request(&init, &plan)?;
            stages.lap("request");
        }
        if keep_upper || self.trace.is_on() {
            init.upper = self.until_ready(&init, &plan)?;
            stages.lap("setup");
        }
        Ok((init, plan))
    }

    /// What is to be given to the caller at the end of a run.
    fn bounds(&self, is_run: bool) -> Result<Vec<Bound>> {
        let policy = self.policy();
        if policy.identity.reclaim && !is_run {
            let failure = Failure::new("reclaim", "cell", "a cell gives nothing back: nobody would hear what failed");
            return Err(failure
                .hint("Give the directory back when it has ended: `sandcell files reclaim DIR`.")
                .unsupported());
        }
        let writable = |mount: &Mount| match mount {
            Mount::Bind { source, writable: true, .. } => Some(Bound::open(source)),
            Mount::Bind { .. }
            | Mount::Tmpfs { .. }
            | Mount::File { .. }
            | Mount::Device { .. }
            | Mount::Socket { .. } => None,
        };
        let binds = policy.mounts.iter().filter(|_| policy.identity.reclaim);
        binds.filter_map(writable).collect()
    }

    /// What the relay is started with.
    fn relay(&self, ports: Ports, table: Option<File>) -> Result<relay::Setup> {
        let policy = self.policy();
        let config = plan::relay::config(policy, &self.resolved.published)?;
        Ok(relay::Setup { config, rules: Rules { policy }.texts(), ports, table })
    }

    /// Waits until init has built the sandbox. A descriptor of the upper directory, where it keeps one.
    fn until_ready(&self, init: &Init, plan: &Plan) -> Result<Option<OwnedFd>> {
        let until = Instant::now() + START_UP;
        let mut steps = plan.steps().enumerate();
        loop {
            match init.receive(until.saturating_duration_since(Instant::now()))? {
                Some((reply, _, upper)) if reply.kind == reply::READY => return Ok(upper),
                // One for each step, in their order: more cannot come.
                Some((reply, ..)) if reply.kind == reply::STEP => match steps.next() {
                    Some((index, step)) if index as u32 == reply.value => {
                        let (name, (subject, _)) = (plan::name_of(&step), plan::describe(&step));
                        let took = Duration::from_nanos(reply.wall_ns);
                        self.trace.tell(&StartStage { name: &name, subject: &subject, inside: true, took });
                    }
                    _ => return Err(talking(Errno::EPROTO)),
                },
                Some((reply, ..)) => return Err(self.name_the_limit(plan::setup_failure(plan, &reply))),
                None => return Err(init.lost("setup")),
            }
        }
    }
}

/// The keeper with which a sandbox ends, and where a relay keeps account for its clients.
pub(crate) struct Owner<'a> {
    pub pidfd: BorrowedFd<'a>,
    pub table: Option<File>,
}

/// Is told of a Plan, of what was opened for it already, and of what the relay is told.
pub(crate) type Seen<'a> = &'a mut dyn FnMut(&Plan, &[MappedTree], Option<&[u8]>);

/// Sends the request that is to be carried out as soon as the sandbox is built.
pub(crate) type FirstRequest<'a> = &'a mut dyn FnMut(&Init, &Plan) -> Result<()>;

/// Hands a request to init; our end of the command's own socket.
pub(crate) fn send_request(init: &Init, bytes: &[u8], fds: &[Passed<'_>]) -> Result<OwnedFd> {
    let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
    let letter = sys::Letter::new(c"sandcell-request", bytes).map_err(descriptors)?;
    let fds = fds.iter().map(|fd| fd.as_fd().as_raw_fd());
    let all: Vec<_> = std::iter::once(theirs.as_raw_fd()).chain(fds).collect();
    match letter.send(init.control.as_fd(), control::SPAWN, 0, &all) {
        // It may have ended with a step that failed; what it said is still there to read.
        Ok(()) | Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => Ok(ours),
        Err(errno) => Err(descriptors(errno)),
    }
}

/// A core dump would be written by the host, to the host's idea of a place.
pub(crate) fn own_rlimits() -> Vec<cgroup::Rlimit> {
    vec![(crate::kernel_names::Resource::RLIMIT_CORE, 0, 0)]
}

fn random_name() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let random = sys::random::<6>().map_err(|errno| {
        Failure::new("hostname", "", "the kernel gives no random numbers").errno(errno as i32).setup()
    })?;
    let letters = random.map(|byte| LETTERS[usize::from(byte) % LETTERS.len()] as char);
    Ok(format!("cell-{}", letters.iter().collect::<String>()))
}
