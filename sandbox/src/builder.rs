//! The caller's words, checked: every mistake that can be found without starting anything is found in `build`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::Resource;

use crate::error::{Failure, Result};
use crate::plan::destination;
use crate::policy::{
    HostIds, IoMax, Isolation, Landlock, Leftovers, Mount, Network, Policy, Root, Seccomp, Upper, User,
};
use crate::sandbox::Sandbox;

/// Puts a [`Sandbox`] together. Everything has a default: a read-only view of the host's system directories, private
/// temporary directories, a random UID, a private loopback, no limits.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Builder {
    policy: Policy,
    /// The caller said who the program is: an image does not then.
    #[cfg(feature = "image")]
    user_given: bool,
}

/// What can be named in [`Builder::best_effort`].
const BEST_EFFORT: [&str; 25] = [
    "all",
    "memory",
    "memory_high",
    "swap",
    "pids",
    "cpus",
    "cpu_weight",
    "cpuset",
    "disk",
    "inodes",
    "io_weight",
    "io_max",
    "cpu_time",
    "output_limit",
    "timeout",
    "network",
    "seccomp",
    "landlock",
    "landlock:files",
    "landlock:truncate",
    "landlock:device commands",
    "landlock:TCP ports",
    "landlock:UDP ports",
    "landlock:signals",
    "landlock:abstract sockets",
];

impl Builder {
    /// The root file system; [`Root::Host`] by default.
    pub fn root(mut self, root: Root) -> Builder {
        self.policy.root = root;
        self
    }

    /// Adds a read-only layer on top of those before; the root becomes an overlay of them. Linux 5.11.
    pub fn layer(mut self, dir: impl Into<PathBuf>) -> Builder {
        match &mut self.policy.root {
            Root::Layers(layers) => layers.push(dir.into()),
            _ => self.policy.root = Root::Layers(vec![dir.into()]),
        }
        self
    }

    /// Where writes to the overlay go; [`Upper::Tmpfs`] where there are layers.
    pub fn upper(mut self, upper: Upper) -> Builder {
        self.policy.upper = Some(upper);
        self
    }

    /// Shows a file or directory of the host at `dest`, read-only, everything mounted beneath it included.
    pub fn ro(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::Bind { source: source.into(), dest: dest.into(), writable: false })
    }

    /// Shows a file or directory of the host at `dest`, writable as far as the caller's own rights go.
    pub fn rw(self, source: impl Into<PathBuf>, dest: impl Into<PathBuf>) -> Builder {
        self.mount(Mount::Bind { source: source.into(), dest: dest.into(), writable: true })
    }

    /// The store of images and volumes; by default the user's own, `$XDG_DATA_HOME/sandcell/images`.
    #[cfg(feature = "image")]
    pub fn store(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.policy.store = Some(dir.into());
        self
    }

    /// A named directory of the store at `dest`, made at its first use and kept until it is removed
    /// ([`Store::remove_volume`](crate::image::Store::remove_volume)).
    #[cfg(feature = "image")]
    pub fn volume(mut self, name: impl Into<String>, dest: impl Into<PathBuf>, writable: bool) -> Builder {
        self.policy.volumes.push(crate::policy::Volume { name: name.into(), dest: dest.into(), writable });
        self
    }

    /// An empty writable directory in memory at `dest`, of at most `size` bytes.
    pub fn tmpfs(self, dest: impl Into<PathBuf>, size: Option<u64>) -> Builder {
        self.mount(Mount::Tmpfs { dest: dest.into(), size })
    }

    /// A read-only file with this content at `dest`.
    pub fn file(self, dest: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Builder {
        self.file_mode(dest, content, 0o644)
    }

    /// The same with these permission bits: 0o755 for a script.
    pub fn file_mode(self, dest: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) -> Builder {
        self.mount(Mount::File { dest: dest.into(), content: content.into(), mode })
    }

    /// Adds a mount; later ones may lie beneath earlier ones.
    pub fn mount(mut self, mount: Mount) -> Builder {
        self.policy.mounts.push(mount);
        self
    }

    /// Who the program is inside; [`User::Random`] by default, or whom the image names.
    pub fn user(mut self, user: User) -> Builder {
        self.policy.identity.user = user;
        #[cfg(feature = "image")]
        {
            self.user_given = true;
        }
        self
    }

    /// Where the host's UID comes from; [`HostIds::Auto`] by default.
    pub fn host_ids(mut self, host_ids: HostIds) -> Builder {
        self.policy.identity.host_ids = host_ids;
        self
    }

    /// How many ids the sandbox has; 1 by default.
    pub fn id_count(mut self, count: u32) -> Builder {
        self.policy.identity.count = count;
        self
    }

    /// Maps the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own.
    pub fn keep_caller(mut self, keep: bool) -> Builder {
        self.policy.identity.keep_caller = keep;
        self
    }

    /// How long to wait for free ids; not at all by default.
    pub fn wait_for_ids(mut self, wait: Duration) -> Builder {
        self.policy.identity.wait = Some(wait);
        self
    }

    /// The host's name inside; `cell-` and six random characters by default.
    pub fn hostname(mut self, name: impl Into<String>) -> Builder {
        self.policy.hostname = Some(name.into());
        self
    }

    /// Bytes of memory, page cache included.
    pub fn memory(mut self, bytes: u64) -> Builder {
        self.policy.limits.memory = Some(bytes);
        self
    }

    /// Bytes above which the kernel slows the sandbox down (cgroup v2).
    pub fn memory_high(mut self, bytes: u64) -> Builder {
        self.policy.limits.memory_high = Some(bytes);
        self
    }

    /// Bytes of swap on top of the memory.
    pub fn swap(mut self, bytes: u64) -> Builder {
        self.policy.limits.swap = Some(bytes);
        self
    }

    /// Processes and threads.
    pub fn pids(mut self, count: u64) -> Builder {
        self.policy.limits.pids = Some(count);
        self
    }

    /// CPUs, such as 0.5.
    pub fn cpus(mut self, cpus: f64) -> Builder {
        self.policy.limits.cpus = Some(cpus);
        self
    }

    /// Share of the CPU against others, 1 to 10,000.
    pub fn cpu_weight(mut self, weight: u32) -> Builder {
        self.policy.limits.cpu_weight = Some(weight);
        self
    }

    /// CPUs that may be used, as `0-3,8`.
    pub fn cpuset(mut self, list: impl Into<String>) -> Builder {
        self.policy.limits.cpuset = Some(list.into());
        self
    }

    /// Bytes that the throw-away upper, /tmp, the home and the other private directories may hold together.
    pub fn disk(mut self, bytes: u64) -> Builder {
        self.policy.limits.disk = Some(bytes);
        self
    }

    /// Files and directories that they may hold together.
    pub fn inodes(mut self, count: u64) -> Builder {
        self.policy.limits.inodes = Some(count);
        self
    }

    /// Share of block input and output, 1 to 10,000.
    pub fn io_weight(mut self, weight: u32) -> Builder {
        self.policy.limits.io_weight = Some(weight);
        self
    }

    /// Limits one block device.
    pub fn io_max(mut self, limit: IoMax) -> Builder {
        self.policy.limits.io_max.push(limit);
        self
    }

    /// CPU time of all processes together.
    pub fn cpu_time(mut self, time: Duration) -> Builder {
        self.policy.limits.cpu_time = Some(time);
        self
    }

    /// A cgroup v2 directory to work beneath.
    pub fn cgroup(mut self, path: impl Into<PathBuf>) -> Builder {
        self.policy.limits.cgroup = Some(path.into());
        self
    }

    /// A limit of each process: setrlimit(2). Core dumps are always off.
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Builder {
        self.policy.rlimits.push((resource, soft, hard));
        self
    }

    /// Wall-clock time that a program may take; then SIGTERM, `grace`, SIGKILL to all of it.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.policy.timeout = Some(timeout);
        self
    }

    /// Between SIGTERM and SIGKILL; 2 s by default.
    pub fn grace(mut self, grace: Duration) -> Builder {
        self.policy.grace = grace;
        self
    }

    /// Bytes that a program may write to stdout and stderr together before it is ended.
    pub fn output_limit(mut self, bytes: u64) -> Builder {
        self.policy.output_limit = Some(bytes);
        self
    }

    /// What keeps programs apart from the host; [`Isolation::Namespaces`] by default, and never anything else unless
    /// it is asked for here.
    pub fn isolation(mut self, isolation: Isolation) -> Builder {
        self.policy.isolation = isolation;
        self
    }

    /// The network; [`Network::Loopback`] by default.
    pub fn network(mut self, network: Network) -> Builder {
        self.policy.network = network;
        self
    }

    /// The system call filter; [`Seccomp::Default`] by default.
    pub fn seccomp(mut self, seccomp: Seccomp) -> Builder {
        self.policy.seccomp = seccomp;
        self
    }

    /// The second wall; [`Landlock::Default`] by default: what the kernel can do.
    pub fn landlock(mut self, landlock: Landlock) -> Builder {
        self.policy.landlock = landlock;
        self
    }

    /// Keeps a capability inside. It reaches what the sandbox owns, never the mounts made for it.
    pub fn cap_add(mut self, capability: caps::Capability) -> Builder {
        self.policy.cap_add.push(capability);
        self
    }

    /// Adds an environment variable to the clean default.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Builder {
        self.policy.env.push((key.into(), value.into()));
        self
    }

    /// Passes the caller's environment on.
    pub fn keep_env(mut self, keep: bool) -> Builder {
        self.policy.keep_env = keep;
        self
    }

    /// Working directory inside; the home by default.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.policy.chdir = Some(dir.into());
        self
    }

    /// File mode creation mask; 022 by default.
    pub fn umask(mut self, mask: u32) -> Builder {
        self.policy.umask = mask;
        self
    }

    /// What happens to processes that are alive when the program ends; [`Leftovers::Kill`] by default.
    pub fn leftovers(mut self, leftovers: Leftovers) -> Builder {
        self.policy.leftovers = leftovers;
        self
    }

    /// Goes on where the host cannot enforce `item` (an option's name with `_` or `-`, or `all`), and says so in the
    /// report.
    pub fn best_effort(mut self, item: &str) -> Builder {
        self.policy.best_effort.add(item);
        self
    }

    /// What has been asked for so far.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Checks everything and prepares what all runs share.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for what makes no sense, [`Error::Unsupported`](crate::Error::Unsupported)
    /// for what this host cannot enforce.
    pub fn build(self) -> Result<Sandbox> {
        let mut policy = self.policy;
        #[cfg(feature = "image")]
        let (ids, kept) = crate::image::resolve(&mut policy, self.user_given)?;
        #[cfg(not(feature = "image"))]
        let (ids, kept) = (None, ());
        check(&mut policy)?;
        Sandbox::prepare(policy, ids, kept)
    }
}

fn wrong(subject: &str, message: impl Into<String>, hint: &str) -> crate::Error {
    Failure::new("option", subject, message).hint(hint).config()
}

fn check(policy: &mut Policy) -> Result<()> {
    for mount in &mut policy.mounts {
        let (Mount::Bind { dest, .. } | Mount::Tmpfs { dest, .. } | Mount::File { dest, .. }) = mount;
        *dest = destination(dest)?;
        match mount {
            Mount::Tmpfs { size: Some(0), .. } => {
                return Err(wrong("tmpfs", "a size of 0 bytes", "leave the size out for no limit of its own"));
            }
            Mount::File { dest, mode, .. } if *mode > 0o777 => {
                let message = format!("the mode {mode:o} of {} has bits beyond 777", dest.display());
                return Err(wrong("file", message, "three octal digits, such as 755"));
            }
            _ => {}
        }
    }
    match (&policy.root, &policy.upper) {
        (Root::Layers(layers), _) if layers.is_empty() => {
            return Err(wrong("layers", "no layer is given", "name at least one directory"));
        }
        (Root::Layers(layers), _) if layers.len() > 498 => {
            return Err(wrong(
                "layers",
                "at most 498 layers: the kernel stacks 500, and two are the sandbox's",
                "flatten some of them",
            ));
        }
        (Root::Layers(_), _) | (_, None) => {}
        (_, Some(_)) => {
            return Err(wrong("upper", "there are no layers that it could lie on", "give the layers of an overlay"));
        }
    }
    if let Some(name) = &policy.hostname {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.len() > 63 || !name.chars().all(fine) {
            return Err(wrong("hostname", format!("{name:?} is no host name"), "1 to 63 letters, digits, `-` and `.`"));
        }
    }
    if let Some(dir) = &policy.chdir
        && (!dir.is_absolute() || dir.as_os_str().as_bytes().contains(&0))
    {
        return Err(wrong("chdir", format!("{} is not an absolute path", dir.display()), "begin it with /"));
    }
    if policy.umask > 0o777 {
        return Err(wrong(
            "umask",
            format!("{:o} has bits beyond 777", policy.umask),
            "three octal digits, such as 022",
        ));
    }
    check_limits(policy)?;
    for (key, value) in &policy.env {
        check_variable(key, value)?;
    }
    if let User::Fixed { uid: u32::MAX, .. } | User::Fixed { gid: u32::MAX, .. } = policy.identity.user {
        return Err(wrong("user", "4294967295 is no id", "it means `no change` to the kernel"));
    }
    #[cfg(not(feature = "landlock"))]
    if policy.landlock == Landlock::Required {
        return Err(wrong(
            "landlock",
            "this library was built without Landlock",
            "build it with the feature `landlock`",
        ));
    }
    if policy.isolation == Isolation::Landlock {
        #[cfg(feature = "landlock")]
        crate::isolation::check(policy)?;
        #[cfg(not(feature = "landlock"))]
        return Err(wrong(
            "isolation",
            "this library was built without Landlock",
            "build it with the feature `landlock`",
        ));
    }
    for item in policy.best_effort.named() {
        if !BEST_EFFORT.contains(&item.as_str()) {
            let hint = format!("one of {}", BEST_EFFORT.join(", "));
            return Err(wrong("best_effort", format!("{item:?} is nothing that can be left out"), &hint));
        }
    }
    Ok(())
}

fn check_limits(policy: &Policy) -> Result<()> {
    for (subject, zero) in [
        ("timeout", policy.timeout == Some(Duration::ZERO)),
        ("output_limit", policy.output_limit == Some(0)),
        ("memory", policy.limits.memory == Some(0)),
        ("pids", policy.limits.pids == Some(0)),
        ("disk", policy.limits.disk == Some(0)),
        ("inodes", policy.limits.inodes == Some(0)),
        ("cpu_time", policy.limits.cpu_time == Some(Duration::ZERO)),
    ] {
        if zero {
            return Err(wrong(subject, "a limit of 0 lets nothing run", "leave it out for no limit"));
        }
    }
    if let Some(cpus) = policy.limits.cpus
        && !(cpus.is_finite() && cpus >= 0.01)
    {
        return Err(wrong("cpus", format!("{cpus:?} is no number of CPUs"), "0.01 or more"));
    }
    if let Some(timeout) = policy.timeout
        && timeout > Duration::from_secs(100 * 365 * 86400)
    {
        return Err(wrong("timeout", "is longer than a century", "leave it out for no limit"));
    }
    crate::limits::check(&policy.limits)?;
    for (resource, soft, hard) in &policy.rlimits {
        if soft > hard {
            let message = format!("{resource:?}: the soft limit is above the hard one");
            return Err(wrong("rlimit", message, "the soft limit comes first: SOFT:HARD"));
        }
        if *resource == Resource::RLIMIT_CORE && *soft > 0 {
            let message = "core dumps are off: the host would write them, to where the host thinks fit";
            return Err(wrong("rlimit", message, "leave RLIMIT_CORE at 0"));
        }
    }
    Ok(())
}

/// An environment variable as execve(2) can carry it.
pub(crate) fn check_variable(key: &OsString, value: &OsString) -> Result<()> {
    let key_bytes = key.as_bytes();
    if key_bytes.is_empty() || key_bytes.contains(&b'=') || key_bytes.contains(&0) {
        return Err(wrong("env", format!("{key:?} is no name of a variable"), "no `=`, no NUL, not empty"));
    }
    if value.as_bytes().contains(&0) {
        return Err(wrong("env", format!("the value of {key:?} contains a NUL byte"), crate::command::NO_NUL));
    }
    Ok(())
}
