//! What the caller asked for, as plain data. The [`Builder`](crate::Builder) fills it and finds the mistakes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

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

#[cfg(feature = "image")]
impl Root {
    /// [`Root::Image`]: an image in the store, as `app:1` or by its id.
    pub fn image(name: impl Into<String>) -> Root {
        Root::Image(name.into())
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

/// Something mounted into the root file system, in the order of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mount {
    /// A file or directory of the host with everything mounted beneath it.
    #[non_exhaustive]
    Bind {
        /// On the host.
        source: PathBuf,
        /// Inside; absolute.
        dest: PathBuf,
        /// Whether the program may write to it. Read-only holds for submounts too, and for root inside.
        writable: bool,
    },
    /// An empty writable directory in memory.
    #[non_exhaustive]
    Tmpfs {
        /// Inside; absolute.
        dest: PathBuf,
        /// Bytes; without it the directory shares the budget of `disk`.
        size: Option<u64>,
    },
    /// A read-only file with this content.
    #[non_exhaustive]
    File {
        /// Inside; absolute.
        dest: PathBuf,
        /// What stands in it.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
}

impl Mount {
    /// Where it is inside.
    #[cfg(feature = "image")]
    pub(crate) fn dest(&self) -> &std::path::Path {
        let (Mount::Bind { dest, .. } | Mount::Tmpfs { dest, .. } | Mount::File { dest, .. }) = self;
        dest
    }
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
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { user: User::Random, host_ids: HostIds::Auto, count: 1, keep_caller: false, wait: None }
    }
}

/// Limits on what all processes of a sandbox use together. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory, page cache and kernel memory included.
    pub memory: Option<u64>,
    /// Bytes above which the kernel slows the sandbox down to reclaim (cgroup v2 only).
    pub memory_high: Option<u64>,
    /// Bytes of swap on top of `memory`; 0 where a memory limit is set and this is not.
    pub swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPUs, such as 0.5 or 2.
    pub cpus: Option<f64>,
    /// Share of the CPU against others, 1 to 10,000; 100 is the kernel's default.
    pub cpu_weight: Option<u32>,
    /// CPUs that may be used, as `0-3,8`.
    pub cpuset: Option<String>,
    /// Bytes that the throw-away upper, /tmp and the home may hold together.
    pub disk: Option<u64>,
    /// Files and directories that they may hold together.
    pub inodes: Option<u64>,
    /// Share of block input and output, 1 to 10,000.
    pub io_weight: Option<u32>,
    /// Per block device: bytes and operations per second.
    pub io_max: Vec<IoMax>,
    /// CPU time of all processes together.
    pub cpu_time: Option<Duration>,
    /// A cgroup v2 directory to work beneath, instead of the one that is found.
    pub cgroup: Option<PathBuf>,
}

/// Limits on one block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
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

/// Which network the program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Network {
    /// None: a private network namespace in which even loopback is down.
    None,
    /// A private loopback and nothing else.
    #[default]
    Loopback,
    /// The host's network, abstract sockets included.
    Host,
}

impl Network {
    /// The word of the option.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Loopback => "loopback",
            Network::Host => "host",
        }
    }
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
    Profile(crate::syscalls::Profile),
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
#[derive(Debug, Clone, PartialEq)]
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
    pub rlimits: Vec<(nix::sys::resource::Resource, u64, u64)>,
    /// Wall-clock time that a program may take.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL when it has run out.
    pub grace: Duration,
    /// Bytes that a program may write to stdout and stderr together.
    pub output_limit: Option<u64>,
    /// What keeps it apart.
    pub isolation: Isolation,
    /// The network.
    pub network: Network,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// The second wall.
    pub landlock: Landlock,
    /// Capabilities kept inside, by name.
    pub cap_add: Vec<caps::Capability>,
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
    /// What may go unenforced.
    pub best_effort: BestEffort,
    /// The store of images and volumes; the user's own where `None`.
    #[cfg(feature = "image")]
    pub store: Option<PathBuf>,
    /// Volumes, mounted after `mounts`.
    #[cfg(feature = "image")]
    pub volumes: Vec<Volume>,
    /// Whose the files of the image are, for a run of several ids.
    #[cfg(feature = "image")]
    pub(crate) store_ids: Option<crate::identity::StoreIds>,
    /// The layers are an image's: what is the image's own is not covered by private directories and files.
    pub(crate) of_image: bool,
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
            network: Network::default(),
            seccomp: Seccomp::default(),
            landlock: Landlock::default(),
            cap_add: Vec::new(),
            env: Vec::new(),
            keep_env: false,
            chdir: None,
            umask: 0o022,
            leftovers: Leftovers::default(),
            best_effort: BestEffort::default(),
            #[cfg(feature = "image")]
            store: None,
            #[cfg(feature = "image")]
            volumes: Vec::new(),
            #[cfg(feature = "image")]
            store_ids: None,
            of_image: false,
        }
    }
}
