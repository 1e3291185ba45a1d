//! What the caller asked for, as plain data. The [`Builder`](crate::Builder) fills it and finds the mistakes.

pub(crate) mod builder;
pub(crate) mod check;
pub(crate) mod files;
mod mount;
pub(crate) mod network;
pub mod options;
pub(crate) mod ports;
pub(crate) mod proxy;
pub(crate) mod rules;
mod system;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::seccomp::{Action, Profile};
pub use mount::Mount;
pub use network::Network;
pub use options::Limits;
pub use ports::{HostPortRule, PublishRule};
pub use proxy::UpstreamProxy;
pub use rules::{HostRule, NetRule, Ports};

/// The root file system that the program sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Root {
    /// A read-only view of the host's system directories (/usr, /bin, /lib*, /etc, /opt …), never the homes.
    #[default]
    Host,
    /// Nothing but what is mounted into it.
    Empty,
    /// This directory, read-only, with what is mounted beneath it.
    Dir(PathBuf),
    /// An overlay of read-only layers, the lowest first: overlayfs in a user namespace, Linux 5.11.
    Layers(Vec<PathBuf>),
    /// The layers of an image in the store, by its name or id; what the image says of its runs is the default of
    /// everything that is not asked for otherwise.
    #[cfg(feature = "image")]
    Image(String),
}

impl Root {
    /// [`Root::Image`]: an image in the store, as `app:1` or by its id.
    #[cfg(feature = "image")]
    pub fn image(name: impl Into<String>) -> Root {
        Root::Image(name.into())
    }

    pub(crate) fn is_image(&self) -> bool {
        match self {
            #[cfg(feature = "image")]
            Root::Image(_) => true,
            Root::Host | Root::Empty | Root::Dir(_) | Root::Layers(_) => false,
        }
    }
}

/// Where writes to an overlay go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Upper {
    /// To memory (a private tmpfs); thrown away with the sandbox.
    #[default]
    Tmpfs,
    /// To `DIR/upper` (with `DIR/work` beside it for the kernel); kept.
    Dir(PathBuf),
}

/// A named directory of the store that outlives runs.
#[cfg(feature = "image")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// Letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Inside; absolute.
    pub dest: PathBuf,
    /// Whether the program may write to it.
    pub writable: bool,
}

/// Who the program is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum User {
    /// A random UID, new for every sandbox, with GID 0 (the OpenShift convention).
    #[default]
    Random,
    /// UID 0 and GID 0, without capabilities.
    Root,
    /// The caller's own numbers.
    Caller,
    /// These numbers; the GID is the UID where none is given.
    #[non_exhaustive]
    Fixed {
        /// UID inside.
        uid: u32,
        /// GID inside.
        gid: u32,
    },
}

impl User {
    /// These numbers: [`User::Fixed`], which may get more fields.
    pub fn fixed(uid: u32, gid: u32) -> User {
        User::Fixed { uid, gid }
    }

    /// The word or numbers of the option.
    pub(crate) fn word(self) -> String {
        match self {
            User::Random => "random".to_owned(),
            User::Root => "root".to_owned(),
            User::Caller => "caller".to_owned(),
            User::Fixed { uid, gid } => format!("{uid}:{gid}"),
        }
    }
}

/// Where the host's UID of a sandbox comes from. See `docs/identity.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HostIds {
    /// A leased slice of the caller's sub-ids where the host has them, otherwise the caller's own UID.
    #[default]
    Auto,
    /// A leased slice, or [`Error::Unsupported`](crate::Error::Unsupported).
    Disjoint,
    /// The caller's own UID: sandboxes of one user then share it on the host.
    Shared,
}

/// As of [`Network`]: what a word means is asked here.
impl HostIds {
    /// Nothing but a slice that no other sandbox has will do.
    pub(crate) fn must_be_disjoint(self) -> bool {
        match self {
            HostIds::Disjoint => true,
            HostIds::Auto | HostIds::Shared => false,
        }
    }

    /// The caller's own UID, although there may be others.
    pub(crate) fn are_the_callers(self) -> bool {
        match self {
            HostIds::Shared => true,
            HostIds::Auto | HostIds::Disjoint => false,
        }
    }
}

/// The host's ids of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Who the program is inside.
    pub user: User,
    /// Where the host's ids come from.
    pub host_ids: HostIds,
    /// How many ids the sandbox has; 1 unless programs in it must change user (65,536 for a whole distribution).
    pub count: u32,
    /// Map the caller's own UID and GID to the program's, so that bind mounts of the caller's files stay usable.
    pub keep_caller: bool,
    /// How long to wait for free ids before giving up; none means not at all.
    pub wait: Option<Duration>,
    /// Give what its programs have made in writable binds to the caller when it has ended.
    pub reclaim: bool,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity {
            user: User::Random,
            host_ids: HostIds::Auto,
            count: 1,
            keep_caller: false,
            wait: None,
            reclaim: false,
        }
    }
}

/// Limits on one block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoMax {
    /// The device, such as /dev/sda, or `8:0`.
    pub device: String,
    /// Bytes per second read.
    pub read_bytes: Option<u64>,
    /// Bytes per second written.
    pub write_bytes: Option<u64>,
    /// Reads per second.
    pub read_ops: Option<u64>,
    /// Writes per second.
    pub write_ops: Option<u64>,
}

/// What keeps a program apart from the rest of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Namespaces of its own, and within them the system call filter and Landlock.
    #[default]
    Namespaces,
    /// Landlock, the system call filter and resource limits alone, for hosts that forbid user namespaces (default
    /// Docker, AppArmor). The program is a process of the caller's among others; `docs/security.md` says what that
    /// leaves open, and so does each report. Linux 6.12.
    Landlock,
}

impl Isolation {
    /// Whether there are namespaces around it.
    pub(crate) fn has_namespaces(self) -> bool {
        match self {
            Isolation::Namespaces => true,
            Isolation::Landlock => false,
        }
    }
}

/// Which system calls the program may make.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Seccomp {
    /// The built-in allow-list.
    #[default]
    Default,
    /// All of them.
    Off,
    /// A profile read from Docker's or OCI's JSON, or put together by hand.
    Profile(crate::seccomp::Profile),
}

impl Seccomp {
    /// There is a filter.
    #[cfg(feature = "landlock")]
    pub(crate) fn is_on(&self) -> bool {
        match self {
            Seccomp::Default | Seccomp::Profile(_) => true,
            Seccomp::Off => false,
        }
    }

    /// The built-in filter.
    pub(crate) fn is_built_in(&self) -> bool {
        match self {
            Seccomp::Default => true,
            Seccomp::Off | Seccomp::Profile(_) => false,
        }
    }
}

/// What programs get only where it is asked for. `docs/threat-model.md` says what each of them opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allow {
    /// Looking into and steering other processes of the sandbox: strace, gdb.
    Ptrace,
    /// User, mount and other namespaces inside: bubblewrap, sandcell itself. Landlock's rules about files go with it, and
    /// nothing in /proc is masked, unless the sandbox maps the host's root.
    Nested,
    /// The socket of a container engine, of the service manager or of a message bus, by which programs get at the host.
    EngineSocket,
}

impl Allow {
    /// The system call filter lets more through then.
    fn opens_calls(self) -> bool {
        match self {
            Allow::Ptrace | Allow::Nested => true,
            Allow::EngineSocket => false,
        }
    }
}

/// Whether Landlock stands behind the namespaces as a second wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Landlock {
    /// What the running kernel can do; the report names every rule, and why where the kernel cannot.
    #[default]
    Default,
    /// Every rule, or [`Error::Unsupported`](crate::Error::Unsupported), but for those that `best_effort` names as
    /// `landlock:RULE`: `files`, `truncate`, `device commands`, `TCP ports`, `UDP ports`, `signals`, `abstract sockets`.
    Required,
    /// Not at all.
    Off,
}

impl Landlock {
    #[cfg(feature = "landlock")]
    pub(crate) fn is_on(self) -> bool {
        match self {
            Landlock::Default | Landlock::Required => true,
            Landlock::Off => false,
        }
    }

    /// A rule that the kernel cannot enforce is an error.
    #[cfg(feature = "landlock")]
    pub(crate) fn must_hold(self) -> bool {
        match self {
            Landlock::Required => true,
            Landlock::Default | Landlock::Off => false,
        }
    }
}

/// What happens to processes that are still alive when the program of a single run ends. A cell keeps what its programs
/// have started until it ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Leftovers {
    /// They are killed.
    #[default]
    Kill,
    /// They are listed in the report and killed.
    Report,
    /// They are listed and killed, and the run counts as failed: [`Report::success`](crate::Report::success) and
    /// [`Report::exit_status`](crate::Report::exit_status) say so.
    Fail,
}

impl Leftovers {
    /// init has to say which there are.
    pub(crate) fn are_listed(self) -> bool {
        match self {
            Leftovers::Report | Leftovers::Fail => true,
            Leftovers::Kill => false,
        }
    }

    /// With one of them the run has failed.
    pub(crate) fn fail_the_run(self) -> bool {
        match self {
            Leftovers::Fail => true,
            Leftovers::Kill | Leftovers::Report => false,
        }
    }
}

/// What may go unenforced where the host cannot do it, and is then reported as such.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BestEffort {
    all: bool,
    items: Vec<String>,
}

impl BestEffort {
    /// Whether the caller accepts that `item` is not enforced.
    pub fn allows(&self, item: &str) -> bool {
        self.all || self.items.iter().any(|i| i == item)
    }

    pub(crate) fn allows_all(&self) -> bool {
        self.all
    }

    pub(crate) fn named(&self) -> &[String] {
        &self.items
    }

    pub(crate) fn add(&mut self, item: &str) {
        if item == "all" {
            self.all = true;
        } else {
            // As options are spelled on the command line, too.
            self.items.push(item.replace('-', "_"));
        }
    }
}

/// Everything that the caller asked for.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// The root file system.
    pub root: Root,
    /// Where writes to an overlay go; `None` for roots that are no overlay.
    pub upper: Option<Upper>,
    /// What is mounted into the root.
    pub mounts: Vec<Mount>,
    /// Who the program is.
    pub identity: Identity,
    /// The host's name inside; random where `None`.
    pub hostname: Option<String>,
    /// Limits of the whole sandbox.
    pub limits: Limits,
    /// Limits of each process: resource, soft, hard.
    pub rlimits: Vec<(crate::Resource, u64, u64)>,
    /// Wall-clock time that a program may take.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL when it has run out.
    pub grace: Duration,
    /// Bytes that a program may write to stdout and stderr together.
    pub output_limit: Option<u64>,
    /// What keeps it apart.
    pub isolation: Isolation,
    /// The program is the init of a system.
    pub init: bool,
    /// The network.
    pub network: Network,
    /// Names that may be reached.
    pub allow_host: Vec<HostRule>,
    /// Names that may not, whatever else is allowed.
    pub deny_host: Vec<HostRule>,
    /// Addresses that may be reached, private ones too.
    pub allow_net: Vec<NetRule>,
    /// Addresses that may not, whatever else is allowed.
    pub deny_net: Vec<NetRule>,
    /// Ports of the sandbox that the host has, too.
    pub publish: Vec<PublishRule>,
    /// Also those that the image exposes, each at a free port.
    pub publish_all: bool,
    /// Ports of the host's own loopback that programs reach.
    pub host_port: Vec<HostPortRule>,
    /// The proxy by which connections go.
    pub upstream_proxy: Option<UpstreamProxy>,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The second wall.
    pub landlock: Landlock,
    /// Capabilities kept inside, by name.
    pub cap_add: Vec<crate::Capability>,
    /// What programs get besides.
    pub allow: Vec<Allow>,
    /// Environment variables in addition to the clean default.
    pub env: Vec<(OsString, OsString)>,
    /// Pass the caller's environment on.
    pub keep_env: bool,
    /// Working directory inside; the home, or /, where `None`.
    pub chdir: Option<PathBuf>,
    /// File mode creation mask.
    pub umask: u32,
    /// What happens to processes that outlive the program.
    pub leftovers: Leftovers,
    /// The options of one word that were said.
    pub(crate) said: network::Said,
    /// What may go unenforced.
    pub best_effort: BestEffort,
    /// The store of images and volumes; the user's own where `None`.
    #[cfg(feature = "image")]
    pub store: Option<PathBuf>,
    /// Volumes, mounted after `mounts`.
    #[cfg(feature = "image")]
    pub volumes: Vec<Volume>,
    /// Who the program is, by a name that the image knows.
    #[cfg(feature = "image")]
    pub(crate) image_user: Option<String>,
    /// The image's directories for temporary files are kept where they are empty, too: steps of a build leave files there for
    /// the next.
    #[cfg(feature = "image")]
    pub(crate) keeps_tmp: bool,
}

impl Policy {
    pub(crate) fn allows(&self, what: Allow) -> bool {
        self.allow.contains(&what)
    }

    /// The system call profile, with what is allowed besides; without one everything is.
    pub fn profile(&self) -> Profile {
        let profile = match &self.seccomp {
            Seccomp::Off => return Profile::new(Action::Allow),
            Seccomp::Default if self.init => with(Profile::default(), "device-events"),
            Seccomp::Default => Profile::default(),
            Seccomp::Profile(profile) => profile.clone(),
        };
        self.allow.iter().fold(profile, |profile, allow| match allow {
            Allow::Ptrace => with(with(profile, "ptrace"), "debug"),
            Allow::Nested => with(with(profile, "nested-namespaces"), "session-keyring"),
            Allow::EngineSocket => profile,
        })
    }

    /// The filter is the built-in one as it is, which lets init do all that it has to do.
    pub(crate) fn has_built_in_filter(&self) -> bool {
        self.seccomp.is_built_in() && !self.allow.iter().any(|allow| allow.opens_calls())
    }

    /// The network that a sandbox gets: a rule that allows something, or a port, makes the private loopback one with a way to
    /// just that. Not one that was asked for by name.
    pub(crate) fn network_in_effect(&self) -> Network {
        let none = self.allow_host.is_empty() && self.allow_net.is_empty() && self.host_port.is_empty();
        let opens = !none || self.publish_all || !self.publish.is_empty();
        match self.network {
            Network::Loopback if opens && !self.said.0.contains(&"network") => Network::User,
            network => network,
        }
    }
}

fn with(profile: Profile, set: &str) -> Profile {
    profile.with(set).expect("a set of ours")
}

/// What differs from the defaults, without the values of variables and the contents of files.
impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut policy = f.debug_struct("Policy");
        for (name, values) in self.options() {
            policy.field(name, &format_args!("{}", values.join(", ")));
        }
        policy.finish()
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            root: Root::default(),
            upper: None,
            mounts: Vec::new(),
            identity: Identity::default(),
            hostname: None,
            limits: Limits::default(),
            rlimits: Vec::new(),
            timeout: None,
            grace: Duration::from_secs(2),
            output_limit: None,
            isolation: Isolation::default(),
            init: false,
            network: Network::default(),
            allow_host: Vec::new(),
            deny_host: Vec::new(),
            allow_net: Vec::new(),
            deny_net: Vec::new(),
            publish: Vec::new(),
            publish_all: false,
            host_port: Vec::new(),
            upstream_proxy: None,
            seccomp: Seccomp::default(),
            landlock: Landlock::default(),
            cap_add: Vec::new(),
            allow: Vec::new(),
            env: Vec::new(),
            keep_env: false,
            chdir: None,
            umask: 0o022,
            leftovers: Leftovers::default(),
            said: network::Said::default(),
            best_effort: BestEffort::default(),
            #[cfg(feature = "image")]
            store: None,
            #[cfg(feature = "image")]
            volumes: Vec::new(),
            #[cfg(feature = "image")]
            image_user: None,
            #[cfg(feature = "image")]
            keeps_tmp: false,
        }
    }
}
