//! Policy → Plan: everything that needs the host is resolved here, into a flat list of steps for init.

mod account;
mod enforced;
mod explain;
mod failure;
#[cfg(feature = "landlock")]
pub(crate) mod isolation;
#[cfg(feature = "landlock")]
mod landlock;
pub(crate) mod relay;
mod root;
mod steering;
mod view;

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::ids::{Assigned, IdMap};
use crate::overlay::upper::DiskUpper;
use crate::policy::Policy;
use crate::resolve::Resolved;
use crate::resolve::host_view::HostFiles;
use crate::seccomp::{Listen, Profile, compile as compile_filter};
use crate::wire::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, Reader, Step};

#[cfg(feature = "landlock")]
pub(crate) use enforced::require_landlock;
pub(crate) use enforced::{enforced, require_read_only_devices};
pub(crate) use explain::{describe, name_of, place_of_mount};
pub(crate) use failure::setup_failure;
#[cfg(feature = "landlock")]
pub(crate) use landlock::report as landlock_report;
pub(crate) use root::hidden_from_init;

/// What is needed for a Plan.
pub(crate) struct Inputs<'a> {
    pub resolved: &'a Resolved,
    pub identity: &'a Assigned,
    pub given: &'a Given,
    pub filter: Option<Filter>,
    /// Whether the caller waits until all is ready: for a descriptor of the upper directory, or for the times.
    pub announce: bool,
    /// Whether init tells how long each step takes.
    pub traced: bool,
    /// What the kernel's Landlock can do.
    #[cfg(feature = "landlock")]
    pub landlock: ::landlock::ABI,
    pub host: &'a HostFiles,
    /// Where the upper lies, if not in memory.
    pub upper: Option<&'a DiskUpper>,
}

/// What a Plan is made of that neither the policy nor the host's files say: with the same once more it is the same Plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub hostname: String,
    /// Nanoseconds per unit of the file that tells the CPU time, where there is one.
    pub cpu_clock: Option<u64>,
    /// What of the host comes to init as a mount.
    pub trees: Vec<PathBuf>,
}

/// Whether a file of base has another content each time.
pub(crate) fn is_random(path: &CStr) -> bool {
    path == c"boot-id" || path == c"machine-id"
}

/// A compiled system call filter: instructions and flags of seccomp(2).
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// The filter that the kernel carries out alone. A learning run has none.
    pub program: Option<(Vec<u8>, u32)>,
    /// The same with a listener, where init has something to do for it.
    pub listener: Option<(Vec<u8>, u32)>,
    pub learn: bool,
}

impl Filter {
    /// The filter of the default profile for programs without capabilities: made ahead, and compared by a test.
    pub(crate) fn of_default() -> Filter {
        Filter { program: Some((crate::seccomp::default_filter().to_vec(), 0)), listener: None, learn: false }
    }

    /// The filter of a profile. One that ends programs gets a listener, so that the outcome can name the call.
    pub(crate) fn new(profile: &Profile, caps: &[crate::kernel_names::Capability]) -> Result<Filter> {
        let of = |listen| compile_filter(profile, caps, listen).map(|program| (program.bytes(), program.flags.bits()));
        let listener = if profile.kills(caps) { Some(of(Listen::Kills)?) } else { None };
        Ok(Filter { program: Some(of(Listen::None)?), listener, learn: false })
    }

    /// The same, but that init notes every call that it lets through.
    pub(crate) fn learning(profile: &Profile, caps: &[crate::kernel_names::Capability]) -> Result<Filter> {
        let program = compile_filter(profile, caps, Listen::Passes)?;
        Ok(Filter { program: None, listener: Some((program.bytes(), program.flags.bits())), learn: true })
    }
}

/// The profile that was asked for; without one everything is allowed.
pub(crate) fn profile(policy: &Policy) -> Profile {
    #[cfg(feature = "landlock")]
    if !policy.isolation.has_namespaces() && policy.seccomp.is_on() {
        return isolation::narrow(policy.profile(), policy);
    }
    policy.profile()
}

/// The steps, and what programs need to know of what they make.
#[derive(Debug)]
pub(crate) struct Plan {
    pub bytes: Vec<u8>,
    /// The program's user name and home.
    pub user: String,
    pub home: PathBuf,
    pub given: Given,
}

impl Plan {
    /// The steps one by one.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(move || Step::next(&mut reader).ok().flatten())
    }
}

/// Compiles the Plan. The order matters: what is the caller's is opened first, under the caller's identity; then
/// the sandbox's own identity is taken on and everything else is made under it.
pub(crate) fn compile(inputs: &Inputs<'_>) -> Result<Plan> {
    let resolved = inputs.resolved;
    let policy = &resolved.policy;
    #[cfg(feature = "landlock")]
    if !policy.isolation.has_namespaces() {
        return without_namespaces(inputs);
    }
    let mapped = inputs.given.trees.iter().cloned().map(Some).collect();
    let mut opens = Steps { mapped, ..Steps::default() };
    let mut makes = Steps::default();
    if inputs.traced {
        opens.push(Step::Trace {});
    }
    opens.push(Step::PrivateMounts {});
    let account = account::Account::find(resolved, inputs.identity)?;
    root::compile(inputs, &account, &mut opens, &mut makes)?;

    let mut steps = opens;
    let identity = inputs.identity;
    become_it(inputs, &mut steps);
    if policy.network_in_effect().has_own_namespace() {
        // Early, for it takes as long as half of the mounts; but after all that the Plan holds open, for a table of
        // descriptors that is shared grows slowly.
        if policy.network_in_effect().has_relay() {
            steps.push(Step::Steering { script: &steering::script(!inputs.resolved.published.is_empty()) });
        }
        steps.push(Step::Network { loopback: policy.network_in_effect().brings_loopback_up().into() });
    }
    steps.append(makes);

    let hostname = c_string(&inputs.given.hostname)?;
    steps.push(Step::Hostname { name: &hostname });
    steps.push(Step::CgroupNamespace {});
    #[cfg(feature = "landlock")]
    if landlock::names_mqueue(inputs) {
        steps.push(Step::Mqueue {});
    }
    steps.push(Step::Pivot {});
    steps.push(Step::Keyring { shut: 0 });
    if policy.network_in_effect().has_own_namespace() {
        steps.push(Step::NetworkEnter {});
    }
    cpu_time(inputs, &mut steps);
    let keep = kept(policy);
    if policy.init {
        steps.push(Step::System {});
    } else if keep != 0 {
        let map = |map: &IdMap| map.inside().to_string().into_bytes();
        steps.push(Step::NestedNamespace { uid_map: &map(&identity.uid_map), gid_map: &map(&identity.gid_map) });
    }
    steps.push(Step::Capabilities { keep });
    filters(inputs, &mut steps);
    #[cfg(feature = "landlock")]
    landlock::compile(inputs, &account.home, &mut steps)?;
    // Init enters the namespaces of a system for each program, which the filter is there to refuse.
    if policy.has_built_in_filter() && !policy.init && inputs.filter.as_ref().is_some_and(|filter| !filter.learn) {
        steps.push(Step::FilterEnter {});
    }
    if inputs.announce {
        steps.push(Step::Announce {});
    }
    Ok(Plan { bytes: steps.bytes, user: account.name, home: account.home, given: inputs.given.clone() })
}

fn become_it(inputs: &Inputs<'_>, steps: &mut Steps) {
    let (resolved, identity) = (inputs.resolved, inputs.identity);
    // A group is there where its id is: a sandbox of one id has none but its own.
    let count = resolved.policy.identity.count;
    let groups = resolved.groups.iter().filter(|gid| count > **gid && identity.setgroups);
    let list: Vec<u8> = groups.flat_map(|gid| gid.to_le_bytes()).collect();
    steps.push(Step::Become { uid: identity.uid, gid: identity.gid, groups: identity.setgroups.into(), list: &list });
}

/// The capabilities that programs keep.
pub(crate) fn kept(policy: &Policy) -> u64 {
    policy.cap_add.iter().fold(0, |set, capability| set | capability.bitmask())
}

fn cpu_time(inputs: &Inputs<'_>, steps: &mut Steps) {
    if let (Some(limit), Some(scale)) = (inputs.resolved.policy.limits.cpu_time, inputs.given.cpu_clock) {
        steps.push(Step::CpuTime { limit: u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), scale });
    }
}

fn filters(inputs: &Inputs<'_>, steps: &mut Steps) {
    if let Some(filter) = &inputs.filter {
        if let Some((program, flags)) = &filter.program {
            steps.push(Step::Filter { program, flags: *flags });
        }
        if let Some((program, flags)) = &filter.listener {
            steps.push(Step::Listener { program, flags: *flags, learn: filter.learn.into() });
        }
    }
}

/// The tier without namespaces: nothing is mounted, and nobody becomes another user.
#[cfg(feature = "landlock")]
fn without_namespaces(inputs: &Inputs<'_>) -> Result<Plan> {
    let mut steps = Steps::default();
    if inputs.traced {
        steps.push(Step::Trace {});
    }
    let identity = inputs.identity;
    if identity.setgroups {
        steps.push(Step::Become { uid: identity.uid, gid: identity.gid, groups: 1, list: &[] });
    }
    // Docker's filter refuses keyctl(2), and so does the default one.
    steps.push(Step::Keyring { shut: (inputs.resolved.policy.has_built_in_filter()).into() });
    cpu_time(inputs, &mut steps);
    steps.push(Step::Capabilities { keep: 0 });
    filters(inputs, &mut steps);
    landlock::for_each_program(inputs.resolved, inputs.landlock, &mut steps)?;
    if inputs.announce {
        steps.push(Step::Announce {});
    }
    let (user, home) = isolation::account()?;
    Ok(Plan { bytes: steps.bytes, user, home, given: inputs.given.clone() })
}

/// Steps being put together, already as bytes.
#[derive(Default)]
struct Steps {
    bytes: Vec<u8>,
    slots: u32,
    /// What comes to init as a mount, as long as nothing has taken it.
    mapped: Vec<Option<PathBuf>>,
}

impl Steps {
    fn push(&mut self, step: Step<'_>) {
        step.write(&mut self.bytes);
    }

    fn append(&mut self, other: Steps) {
        self.bytes.extend_from_slice(&other.bytes);
    }

    fn next_slot(&mut self) -> Result<u32> {
        if self.slots as usize >= crate::wire::SLOTS {
            let message = format!("more than {} layers and mounts", crate::wire::SLOTS);
            return Err(Failure::new("option", "layers and mounts", message).hint("flatten some layers").config());
        }
        self.slots += 1;
        Ok(self.slots - 1)
    }

    /// Opens a layer's directory; its slot.
    fn open_dir(&mut self, path: &Path) -> Result<u32> {
        let slot = self.next_slot()?;
        self.push(Step::OpenDir { slot, path: &path_string(path)? });
        Ok(slot)
    }

    /// Takes the idmapped mount of a path; its slot. `None`: there is none, the path is to be opened as it is.
    fn take_mapped(&mut self, path: &Path) -> Result<Option<u32>> {
        let Some(index) = self.mapped.iter().position(|mapped| mapped.as_deref() == Some(path)) else {
            return Ok(None);
        };
        self.mapped[index] = None;
        let slot = self.next_slot()?;
        self.push(Step::TakeTree { slot, index: index as u32, path: &path_string(path)? });
        Ok(Some(slot))
    }

    /// Takes what the policy names at and beneath a path, mapped where it has to be; its slot.
    fn open_named_tree(&mut self, path: &Path) -> Result<u32> {
        match self.take_mapped(path)? {
            Some(slot) => Ok(slot),
            None => self.open_tree(path),
        }
    }

    /// Takes the mounts at and beneath a path; their slot.
    fn open_tree(&mut self, path: &Path) -> Result<u32> {
        let slot = self.next_slot()?;
        self.push(Step::OpenTree { slot, path: &path_string(path)? });
        Ok(slot)
    }
}

/// The attributes of mounts for ordinary files.
const PLAIN: u64 = ATTR_NOSUID | ATTR_NODEV;
const READ_ONLY: u64 = PLAIN | ATTR_RDONLY;
const INERT: u64 = PLAIN | ATTR_NOEXEC;

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| nul(text))
}

fn path_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| nul(&path.to_string_lossy()))
}

fn nul(text: &str) -> crate::Error {
    Failure::new("option", text.escape_debug().to_string(), "contains a NUL byte").config()
}
