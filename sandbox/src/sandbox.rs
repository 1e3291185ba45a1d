//! A checked policy with what all its runs share, and the start of a sandbox from it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crate::builder::Builder;
use crate::command::Command;
use crate::error::{Failure, Result};
use crate::identity::{Assigned, IdPool};
#[cfg(feature = "image")]
use crate::image::Kept;
use crate::launch::{Image, Launch, descriptors};
use crate::limits::{self, CpuClock, Facts, Placement};
use crate::outcome::{Enforced, Mechanism, Requested};
use crate::plan::{self, Filter, Inputs, Plan};
#[cfg(feature = "landlock")]
use crate::policy::Landlock;
use crate::policy::{Isolation, Network, Policy, Seccomp};
use crate::remains::Stuck;
use crate::running::{Cell, Child, Init, Options};
use crate::sys;
use crate::syscalls::{Action, Profile};
use crate::upper::DiskUpper;
use crate::wire::{control, reply, stage};

/// A policy that has been checked, ready to run programs: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub(crate) shared: Arc<Shared>,
}

/// What all runs of one [`Sandbox`] share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub policy: Policy,
    pub image: Image,
    pub ids: IdPool,
    /// Who holds the limits, found out at the first start: a caller may step into a group of its own before that.
    pub limits: OnceLock<limits::Prepared>,
    /// What of the host's files sandboxes are made of, looked at once.
    pub host: OnceLock<plan::HostFiles>,
    pub filter: Option<Filter>,
    /// What the kernel's Landlock can do: asked once, each question makes a ruleset.
    #[cfg(feature = "landlock")]
    pub landlock: landlock::ABI,
    /// Resource limits that stand in for others, and those that always hold.
    pub rlimits: Vec<(nix::sys::resource::Resource, u64, u64)>,
    /// Sandboxes that were killed and could not be waited for.
    pub stuck: Arc<Stuck>,
    /// What the store may not remove while this lives.
    #[cfg_attr(not(feature = "image"), expect(dead_code, reason = "there are no images"))]
    pub kept: Kept,
}

#[cfg(not(feature = "image"))]
type Kept = ();

impl Shared {
    /// The profile that was asked for; without one everything is allowed.
    pub(crate) fn profile(&self) -> Profile {
        profile(&self.policy)
    }

    fn host_files(&self) -> Result<&plan::HostFiles> {
        match self.host.get() {
            Some(files) => Ok(files),
            None => {
                let files = plan::HostFiles::look()?;
                Ok(self.host.get_or_init(|| files))
            }
        }
    }

    /// Who the next sandbox is.
    fn identity(&self) -> Result<Assigned> {
        match self.policy.isolation {
            Isolation::Namespaces => self.ids.assign_for(&self.policy),
            Isolation::Landlock => Assigned::caller(),
        }
    }
}

fn profile(policy: &Policy) -> Profile {
    let profile = match &policy.seccomp {
        Seccomp::Off => return Profile::new(Action::Allow),
        Seccomp::Default => Profile::default(),
        Seccomp::Profile(profile) => profile.clone(),
    };
    #[cfg(feature = "landlock")]
    if policy.isolation == Isolation::Landlock {
        return crate::isolation::narrow(profile, policy);
    }
    profile
}

/// Sends the request that is to be carried out as soon as the sandbox is built.
type FirstRequest<'a> = &'a mut dyn FnMut(&Init, &Plan) -> Result<()>;

/// Where a command runs: in a sandbox of its own, or in a started cell.
#[derive(Debug, Clone)]
pub(crate) enum Runner {
    Own(Sandbox),
    Cell(Cell),
}

impl Runner {
    pub(crate) fn run(&self, command: &mut Command) -> Result<Child> {
        match self {
            Runner::Own(sandbox) => sandbox.run(command),
            Runner::Cell(cell) => cell.run(command),
        }
    }
}

impl Sandbox {
    /// Everything has a default; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn prepare(policy: Policy, found_ids: Option<IdPool>, kept: Kept) -> Result<Sandbox> {
        let filter = match &policy.seccomp {
            Seccomp::Off => None,
            _ => Some(Filter::new(&profile(&policy), &policy.cap_add)?),
        };
        #[cfg(feature = "landlock")]
        if policy.isolation == Isolation::Landlock {
            crate::isolation::check_kernel(&policy, crate::landlock::running_abi())?;
        }
        #[cfg(feature = "landlock")]
        if policy.landlock == Landlock::Required {
            require(&policy)?;
        }
        // A core dump would be written by the host, to the host's idea of a place.
        let rlimits = vec![(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)];
        let ids = match found_ids {
            Some(ids) => ids,
            None => IdPool::new(&policy.identity)?,
        };
        Ok(Sandbox {
            shared: Arc::new(Shared {
                policy,
                image: Image::new()?,
                ids,
                limits: OnceLock::new(),
                host: OnceLock::new(),
                filter,
                #[cfg(feature = "landlock")]
                landlock: crate::landlock::running_abi(),
                rlimits,
                stuck: Arc::default(),
                kept,
            }),
        })
    }

    /// The policy that it was built from.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// The image that is the root, where it is one. It stays in the store as long as this sandbox lives.
    #[cfg(feature = "image")]
    pub fn image(&self) -> Option<&crate::image::Image> {
        self.shared.kept.image()
    }

    /// The image's own program: its entry point with `words` as arguments, or with the image's `Cmd` where there are
    /// none; without an entry point the words, or the `Cmd`, are the program itself.
    ///
    /// # Errors
    /// `Config` where nothing names a program.
    #[cfg(feature = "image")]
    pub fn image_command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
        let argv = self.image_argv(words)?;
        let mut command = self.command(&argv[0]);
        command.args(&argv[1..]);
        Ok(command)
    }

    /// The program of [`Sandbox::image_command`] and its arguments, at least one word.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "image")]
    pub fn image_argv(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Vec<std::ffi::OsString>> {
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let config = self.image().map(|image| image.config.run()).unwrap_or_default();
        let own = if words.is_empty() { config.cmd.unwrap_or_default() } else { Vec::new() };
        let entrypoint = config.entrypoint.unwrap_or_default();
        let argv: Vec<std::ffi::OsString> = entrypoint.into_iter().chain(own).map(Into::into).chain(words).collect();
        if argv.is_empty() {
            let failure = Failure::new("option", "program", "the image names no program");
            return Err(failure.hint("name one yourself").config());
        }
        Ok(argv)
    }

    /// A program to run in a sandbox of its own, made for it and gone with it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Runner::Own(self.clone()), program.as_ref())
    }

    /// Does ahead of the first run what takes some milliseconds: newuidmap(1) and newgidmap(1), where sub-ids are used.
    pub fn prepare_ids(&self) -> Result<()> {
        self.shared.ids.prepare()
    }

    /// Starts a sandbox in which many programs can be run, one after another or at once.
    pub fn start(&self) -> Result<Cell> {
        let (init, plan) = self.launch(true, false, None)?;
        Ok(Cell::new(self.shared.clone(), init, plan))
    }

    /// The steps that a run would take. Nothing is run.
    pub fn explain(&self) -> Result<Vec<PlannedStep>> {
        let upper = DiskUpper::of(&self.shared.policy, self.shared.host_files()?.upper_in_memory)?;
        let identity = self.shared.identity()?;
        let (plan, _) = self.plan(&identity, None, upper.as_ref(), false, false)?;
        Ok(plan
            .steps()
            .map(|step| {
                let (subject, words) = plan::describe(&step);
                PlannedStep { name: plan::name_of(&step), subject, words }
            })
            .collect())
    }

    pub(crate) fn plan(
        &self,
        identity: &Assigned,
        clock: Option<&CpuClock>,
        upper: Option<&DiskUpper>,
        keep_upper: bool,
        learn: bool,
    ) -> Result<(Plan, Vec<Enforced>)> {
        let policy = &self.shared.policy;
        let filter = if learn {
            Some(Filter::learning(&self.shared.profile(), &policy.cap_add)?)
        } else {
            self.shared.filter.clone()
        };
        let hostname = policy.hostname.clone().map_or_else(random_name, Ok)?;
        let inputs = Inputs {
            policy,
            identity,
            hostname: &hostname,
            filter,
            cpu_clock: clock.map(|clock| if clock.nanoseconds { 1 } else { 1000 }),
            keep_upper,
            #[cfg(feature = "landlock")]
            landlock: self.shared.landlock,
            host: self.shared.host_files()?,
            upper,
        };
        let plan = plan::compile(&inputs)?;
        let enforced = enforced(policy, identity, upper.is_some_and(DiskUpper::is_private));
        #[cfg(feature = "landlock")]
        let enforced = [enforced, plan::landlock_report(policy, self.shared.landlock)].concat();
        Ok((plan, enforced))
    }

    /// The kernel says only "out of memory" where a start does not fit into the limit that was asked for; execve(2)
    /// says that there are too many arguments, when it has no page for them.
    fn name_the_limit(&self, error: crate::Error) -> crate::Error {
        match self.shared.policy.limits.memory {
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

    /// Starts init. With a request it is sent along, so that init finds it when the sandbox is built.
    fn launch(&self, keep_upper: bool, learn: bool, request: Option<FirstRequest<'_>>) -> Result<(Init, Plan)> {
        let policy = &self.shared.policy;
        self.shared.stuck.look_again();
        let upper = DiskUpper::of(policy, self.shared.host_files()?.upper_in_memory)?;
        let mut identity = self.shared.identity()?;
        if let Some(crate::policy::Upper::Dir(dir)) = &self.shared.policy.upper {
            identity.note_in(dir)?;
        }
        let facts = Facts { host_root: identity.host_uid == 0, ids: policy.identity.count };
        let limits = match self.shared.limits.get() {
            Some(limits) => limits,
            None => {
                let found = limits::prepare(&policy.limits, &policy.best_effort, false)?;
                self.shared.limits.get_or_init(|| found)
            }
        };
        let mut placed = limits.place(facts)?;
        let clock = placed.placement.as_ref().and_then(Placement::cpu_clock);
        let (plan, mut enforced) = self.plan(&identity, clock, upper.as_ref(), keep_upper, learn)?;
        enforced.append(&mut placed.enforced);
        let launch = Launch { plan: &plan.bytes, identity: &identity, placement: placed.placement.as_ref() };
        let started = launch.start(&self.shared.image).map_err(|error| self.name_the_limit(error))?;
        identity.trees.clear();
        let mut init = Init::new(started, identity, enforced, placed, upper, self.shared.stuck.clone());
        if let Some(request) = request {
            request(&init, &plan)?;
        }
        if keep_upper {
            match init.receive()? {
                Some((reply, _, upper)) if reply.kind == reply::READY => init.upper = upper,
                Some((reply, ..)) => return Err(self.name_the_limit(setup_failure(&plan, &reply))),
                None => return Err(init.lost("setup")),
            }
        }
        Ok((init, plan))
    }

    fn run(&self, command: &mut Command) -> Result<Child> {
        let Options { changes, learn, .. } = command.options(&self.shared.policy);
        let mut child = None;
        let (init, plan) = self.launch(
            changes,
            learn,
            Some(&mut |init: &Init, plan: &Plan| {
                let (request, pipes) = command.request(&self.shared, init, (&plan.user, &plan.home), true)?;
                let socket = send_request(init, &request.bytes, request.fds)?;
                child = Some((socket, pipes));
                Ok(())
            }),
        )?;
        let (socket, pipes) = child.expect("the request was sent above");
        let mut child =
            Child::new(self.shared.clone(), Arc::new(init), socket, pipes, true, &command.options(&self.shared.policy));
        child.started(&plan, &command.program()).map_err(|error| self.name_the_limit(error))?;
        Ok(child)
    }
}

/// Hands a request to init; our end of the command's own socket.
pub(crate) fn send_request(init: &Init, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = sys::message_sockets().map_err(descriptors)?;
    let letter = sys::Letter::new(c"sandcell-request", bytes).map_err(descriptors)?;
    let all: Vec<_> = std::iter::once(&theirs).chain(&fds).map(AsRawFd::as_raw_fd).collect();
    match letter.send(init.control.as_fd(), control::SPAWN, 0, &all) {
        // It may have ended with a step that failed; what it said is still there to read.
        Ok(()) | Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => Ok(ours),
        Err(errno) => Err(descriptors(errno)),
    }
}

/// What init said about a step that failed, in words.
pub(crate) fn setup_failure(plan: &Plan, reply: &crate::wire::Reply) -> crate::Error {
    use nix::errno::Errno;
    let (name, words) = stage::describe(reply.detail);
    let subject = plan.steps().nth(reply.value as usize).map_or(String::new(), |step| plan::describe(&step).0);
    let failure = Failure::new(name, subject, words).errno(reply.errno);
    let unsupported = |failure: Failure, hint: &str| failure.hint(hint).unsupported();
    match (reply.detail, Errno::from_raw(reply.errno)) {
        (_, Errno::ENOSYS) => {
            unsupported(failure, "Linux 5.12 or later is needed, without a filter that refuses this call")
        }
        (stage::OVERLAY_MOUNT, Errno::EPERM | Errno::ENODEV) => {
            unsupported(failure, "overlays in user namespaces need Linux 5.11 and the overlay module")
        }
        (stage::OVERLAY_MOUNT, Errno::EINVAL) => failure
            .hint(
                "the layers or the upper lie on a file system that cannot be part of an overlay, or inside each other",
            )
            .setup(),
        (stage::OVERLAY_MOUNT, Errno::ELOOP) => {
            failure.hint("a layer stands there twice, or lies inside another: name each directory once").setup()
        }
        (stage::OVERLAY_UPPER, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            failure.hint("the upper has to be a directory of the caller's own that can be written to").setup()
        }
        (stage::OVERLAY_UPPER, Errno::EOPNOTSUPP) => unsupported(
            failure,
            "an upper needs a file system with user attributes: ext4, xfs, btrfs, or tmpfs from Linux 6.6 on",
        ),
        (stage::NETWORK, Errno::ENOSPC) => {
            unsupported(failure, "network namespaces are used up or switched off: raise user.max_net_namespaces")
        }
        (stage::FS_MOUNT | stage::FS_OPTION, Errno::EPERM) => unsupported(
            failure,
            "the caller is in a container whose own /proc is masked; run it with an unmasked /proc",
        ),
        (stage::BASE_OPTION, Errno::EINVAL) => failure.hint("the size is out of range").setup(),
        (stage::MOUNT_POINT, Errno::EROFS | Errno::ENOENT) => failure
            .hint("the destination lies beneath something read-only: choose another, or make it in the source")
            .setup(),
        (stage::OPEN_TREE | stage::OPEN_DIR, Errno::EACCES) => {
            failure.hint("the caller may not reach this path itself").setup()
        }
        (stage::NETWORK | stage::NESTED, Errno::EAGAIN) => {
            failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup()
        }
        (_, Errno::ENOSPC) => failure
            .hint("the private tmpfs is too small for what the sandbox itself needs: raise `disk` or `inodes`")
            .setup(),
        _ => failure.setup(),
    }
}

/// Every rule of Landlock, but those that may be left out, is one that this kernel can enforce.
#[cfg(feature = "landlock")]
fn require(policy: &Policy) -> Result<()> {
    for line in plan::landlock_report(policy, crate::landlock::running_abi()) {
        let Requested::Word(rule) = &line.requested else { continue };
        let item = format!("landlock:{rule}");
        let left_out = policy.best_effort.allows("landlock") || policy.best_effort.allows(&item);
        if line.by == Mechanism::Nothing && !left_out {
            let why = line.why.unwrap_or_default();
            return Err(Failure::new("landlock", rule, format!("this rule cannot be enforced here: {why}"))
                .hint(format!("do without it: best effort for {item:?}"))
                .unsupported());
        }
    }
    Ok(())
}

/// One step of a run in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedStep {
    /// Stable name of the kind of step.
    pub name: String,
    /// The path or name that it is about; may be empty.
    pub subject: String,
    /// What it does.
    pub words: String,
}

fn random_name() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let random = sys::random::<6>().map_err(|errno| {
        Failure::new("hostname", "", "the kernel gives no random numbers").errno(errno as i32).setup()
    })?;
    let letters = random.map(|byte| LETTERS[usize::from(byte) % LETTERS.len()] as char);
    Ok(format!("cell-{}", letters.iter().collect::<String>()))
}

/// Why nothing enforces the host's network: it was asked for.
pub(crate) const HOST_NETWORK: &str = "it was asked for: the program has the host's network, abstract sockets included";

/// What carries out what was asked for.
fn enforced(policy: &Policy, identity: &Assigned, upper_on_disk: bool) -> Vec<Enforced> {
    let mut list = Vec::new();
    #[cfg(feature = "landlock")]
    if policy.isolation == Isolation::Landlock {
        list = crate::isolation::report(policy, identity);
    }
    if policy.isolation == Isolation::Namespaces {
        list = separated(policy, identity);
    }
    let mut number = |item, value: Option<u64>, by| {
        if let Some(value) = value {
            list.push(Enforced::new(item, Requested::Number(value), by));
        }
    };
    if !upper_on_disk {
        number("disk", policy.limits.disk, Mechanism::Tmpfs);
        number("inodes", policy.limits.inodes, Mechanism::Tmpfs);
    }
    number("timeout", policy.timeout.map(|t| t.as_millis() as u64), Mechanism::Supervisor);
    number("output_limit", policy.output_limit, Mechanism::Supervisor);
    for (resource, soft, hard) in &policy.rlimits {
        let hard = if hard == soft { String::new() } else { format!(":{hard}") };
        list.push(Enforced::new("rlimit", Requested::Word(format!("{resource:?}={soft}{hard}")), Mechanism::Rlimit));
    }
    if policy.seccomp != Seccomp::Off {
        let word = if policy.seccomp == Seccomp::Default { "default" } else { "profile" };
        list.push(Enforced::new("seccomp", Requested::Word(word.to_owned()), Mechanism::Seccomp));
    }
    for (item, limit) in [("disk", policy.limits.disk), ("inodes", policy.limits.inodes)] {
        if let (Some(limit), true) = (limit, upper_on_disk) {
            let why = "before Linux 6.6 the upper of the overlay lies on disk, where it has no limit";
            list.push(Enforced::new(item, Requested::Number(limit), Mechanism::Nothing).why(why));
        }
    }
    list
}

/// What the namespaces carry out.
fn separated(policy: &Policy, identity: &Assigned) -> Vec<Enforced> {
    let word = |word: &str| Requested::Word(word.to_owned());
    let mut list = Vec::new();
    let mut who = Enforced::new("identity", Requested::Word(policy.identity.user.word()), Mechanism::Namespace);
    who.host_uid = Some(identity.host_uid);
    who.disjoint = Some(identity.disjoint);
    who.why = identity.why_shared.clone();
    list.push(who);
    let groups = Enforced::new("groups", Requested::Word("none".to_owned()), Mechanism::Namespace);
    list.push(if identity.groups_dropped {
        groups
    } else {
        let why = "the kernel lets no one-id map drop the caller's supplementary groups: give the user sub-ids";
        Enforced { by: Mechanism::Nothing, ..groups }.why(why)
    });
    let network = Enforced::new("network", word(policy.network.word()), Mechanism::Namespace);
    list.push(match policy.network {
        Network::Host => Enforced { by: Mechanism::Nothing, ..network }.why(HOST_NETWORK),
        _ => network,
    });
    list
}
