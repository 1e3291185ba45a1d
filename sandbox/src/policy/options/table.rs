//! The table: one declaration for each option.
//!
//! A row has a line of help, the name, the kind, the field of the policy that holds it (`?`: an `Option`), and what else
//! is to be said of it. To add a limit, add a row to `limits!` and enforce the field of [`Limits`] in `limits/`; then
//! `SANDCELL_WRITE_OPTIONS=1 cargo test -p sandcell --all-features --test options` writes what is made from the table.

use std::path::PathBuf;
use std::time::Duration;

use super::forms::{self, simple};
use super::grammar::Typed;
use super::{Kind, Spec, Value};
use crate::policy::builder::Builder;
use crate::policy::{HostIds, IoMax, Isolation, Landlock, Leftovers, Network, Policy};

/// What the kernel can count of memory and of files.
const BYTES: u64 = i64::MAX as u64;
const PAGE: u64 = 4096;
/// The kernel's PID_MAX_LIMIT on 64-bit machines, less the sandbox's own PID 1.
const PIDS: u64 = 4 * 1024 * 1024 - 1;
/// In milliseconds.
const CENTURY: u64 = 100 * 365 * 86_400 * 1000;
/// Hundredths of a CPU: the kernel's least, and far more than there are.
const CPUS: (u64, u64) = (1, 100_000_000);

/// The Rust type of a kind.
macro_rules! held {
    (Size) => {
        u64
    };
    (Count) => {
        u64
    };
    (SmallCount) => {
        u32
    };
    (Mode) => {
        u32
    };
    (Fraction) => {
        f64
    };
    (Duration) => {
        Duration
    };
    (Flag) => {
        bool
    };
    (Text) => {
        String
    };
    (Path) => {
        PathBuf
    };
}

/// The builder's method. Numbers are taken as they are, so that literals need no type.
macro_rules! method {
    ($help:tt, $name:ident, Text, $set:expr) => { method!(@ $help, $name, impl Into<String>, |b, v| $set(b, v.into())); };
    ($help:tt, $name:ident, Path, $set:expr) => { method!(@ $help, $name, impl Into<PathBuf>, |b, v| $set(b, v.into())); };
    ($help:tt, $name:ident, $kind:ident, $set:expr) => { method!(@ $help, $name, held!($kind), $set); };
    (@ [$($help:literal)+], $name:ident, $type:ty, |$b:ident, $v:ident| $set:expr) => {
        impl Builder {
            $(#[doc = $help])+
            pub fn $name(self, value: $type) -> Builder {
                let ($b, $v) = (self, value);
                $set
            }
        }
    };
    (@ [$($help:literal)+], $name:ident, $type:ty, $set:expr) => {
        impl Builder {
            $(#[doc = $help])+
            pub fn $name(self, value: $type) -> Builder {
                $set(self, value)
            }
        }
    };
}

/// The limits: fields of [`Limits`], methods of [`Builder`], rows of the table.
macro_rules! limits {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident $($say:ident($($what:expr),*))*;)+) => {
        /// Limits on what all processes of a sandbox use together. `None` is no limit.
        #[derive(Debug, Clone, PartialEq, Default)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $help])+ pub $name: Option<held!($kind)>,)+
            /// Per block device: bytes and operations per second.
            pub io_max: Vec<IoMax>,
        }

        $(method!([$($help)+], $name, $kind, put::$name);)+

        mod put {
            use super::*;
            $(pub(super) fn $name(mut builder: Builder, value: held!($kind)) -> Builder {
                builder.policy.limits.$name = (!Typed::is_unlimited(&value)).then_some(value);
                builder
            })+
        }

        pub(super) static LIMITS: &[Spec] = &[
            $(Spec::new(
                stringify!($name),
                Kind::$kind,
                concat!($($help),+),
                |builder, value| forms::typed(stringify!($name), value, |value| put::$name(builder, value)),
                |policy| policy.limits.$name.iter().map(Typed::value).collect(),
            )$(.$say($($what),*))*,)+
            simple!(io_max, "Limit one block device: bytes and operations per second")
                .form("DEVICE,read_bytes=SIZE,write_bytes=SIZE,read_ops=N,write_ops=N")
                .repeats().limit().best_effort().cell().by_hand("add_io_max"),
        ];
    };
}

/// Options of one value that are no limits of a cgroup.
macro_rules! options {
    (@get $path:expr, ?) => { $path.iter().map(Typed::value).collect() };
    (@get $path:expr,) => { vec![Typed::value(&$path)] };
    (@get $path:expr, limit) => { $path.iter().map(Typed::value).collect() };
    (@set $path:expr, $value:ident, ?) => { $path = Some($value) };
    (@set $path:expr, $value:ident, limit) => { $path = (!Typed::is_unlimited(&$value)).then_some($value) };
    (@set $path:expr, $value:ident,) => { $path = $value };
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident => $($field:ident).+ $([$opt:tt])? $(, $say:ident($($what:expr),*))*;)+) => {
        $(method!([$($help)+], $name, $kind, put_option::$name);)+

        mod put_option {
            use super::*;
            $(pub(super) fn $name(mut builder: Builder, value: held!($kind)) -> Builder {
                options!(@set builder.policy.$($field).+, value, $($opt)?);
                builder
            })+
        }

        static OPTIONS: &[Spec] = &[
            $(Spec::new(
                stringify!($name),
                Kind::$kind,
                concat!($($help),+),
                |builder, value| forms::typed(stringify!($name), value, |value| put_option::$name(builder, value)),
                |policy: &Policy| options!(@get policy.$($field).+, $($opt)?),
            )$(.$say($($what),*))*,)+
        ];
    };
}

/// Options that are one of some words.
macro_rules! words {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ident => $($field:ident).+ $(, $say:ident($($what:expr),*))*;)+) => {
        $(impl Builder {
            $(#[doc = $help])+
            pub fn $name(mut self, $name: $type) -> Builder {
                self.policy.$($field).+ = $name;
                self.policy.said.0.push(stringify!($name));
                self
            }
        })+

        static WORDS: &[Spec] = &[
            $(Spec::new(
                stringify!($name),
                Kind::Words($type::WORDS),
                concat!($($help),+),
                |builder, value| Ok(builder.$name(forms::text(&value)?.parse()?)),
                |policy| vec![Value::Text(policy.$($field).+.word().into())],
            )$(.$say($($what),*))*,)+
        ];
    };
}

limits! {
    /// Memory of all processes together, page cache included; more is an out-of-memory kill.
    memory: Size range(PAGE, BYTES) limit() best_effort() cell();
    /// Memory above which the kernel slows the sandbox down to reclaim (cgroup v2).
    memory_high: Size range(PAGE, BYTES) limit() best_effort() cell();
    /// Swap on top of the memory; 0 by default where memory is limited.
    swap: Size range(0, BYTES) limit() best_effort() cell();
    /// Processes and threads.
    pids: Count range(1, PIDS) limit() best_effort() cell();
    /// CPUs, such as 0.5.
    cpus: Fraction range(CPUS.0, CPUS.1) limit() best_effort() cell();
    /// Share of the CPU against others, 1 to 10000; 100 is the kernel's default.
    cpu_weight: SmallCount range(1, 10_000) limit() best_effort() cell();
    /// CPUs that may be used, such as 0-3,8.
    cpuset: Text form("LIST") limit() best_effort() cell();
    /// CPU time of all processes together.
    cpu_time: Duration range(1, u64::MAX) limit() best_effort();
    /// What the throw-away upper, /tmp, the home and the other private directories may hold together.
    disk: Size range(1, BYTES) limit() best_effort();
    /// Files and directories that they may hold together.
    inodes: Count range(1, BYTES) limit() best_effort();
    /// Share of block input and output, 1 to 10000; 100 is the kernel's default.
    io_weight: SmallCount range(1, 10_000) limit() best_effort() cell();
    /// A cgroup v2 directory to work beneath, instead of the one that is found.
    cgroup: Path;
}

options! {
    /// How many ids the program has: 65536 for a whole distribution, with `cap_add` for what changes user.
    id_count: SmallCount => identity.count, range(1, u32::MAX as u64), default("1");
    /// Map the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own.
    keep_id: Flag => identity.keep_caller, deprecated(&["keep_caller"]), default("false");
    /// Give what other ids than the caller's own have made in writable binds to the caller when a run has ended.
    reclaim: Flag => identity.reclaim, default("false");
    /// How long to wait for free ids.
    wait_for_ids: Duration => identity.wait[?], range(0, CENTURY), default("not at all");
    /// The program is the init of a system, PID 1 of its own: systemd, OpenRC, busybox; implies root, 65536 ids, a cgroup and a grace of 30s.
    init: Flag => init, default("false"), best_effort();
    /// The host's name inside.
    hostname: Text => hostname[?], default("cell- and 6 random characters");
    /// Wall-clock time that a program may take; then SIGTERM, `grace`, SIGKILL to all of it.
    timeout: Duration => timeout[limit], range(1, CENTURY), limit();
    /// Between SIGTERM and SIGKILL.
    grace: Duration => grace, range(0, CENTURY), default("2s");
    /// What a program may write to standard output and error together before it is ended.
    output_limit: Size => output_limit[limit], range(1, u64::MAX), limit();
    /// Publish the ports that the image exposes, each at a free port of the host's 127.0.0.1.
    publish_all: Flag => publish_all, default("false");
    /// Pass the caller's environment on.
    keep_env: Flag => keep_env, default("false");
    /// Working directory inside.
    chdir: Path => chdir[?], python("cwd"), rust("current_dir"), default("the home, or the image's");
    /// File mode creation mask.
    umask: Mode => umask, range(0, 0o777), default("022");
}

words! {
    /// Where its UID on the host comes from; auto: a leased sub-UID if available, else the caller's; disjoint: a leased sub-UID or an error; shared: the caller's.
    host_ids: HostIds => identity.host_ids, default("auto");
    /// What keeps programs apart from the host: `landlock` is for hosts that forbid user namespaces, and weaker.
    isolation: Isolation => isolation, default("namespaces");
    /// The network; `loopback` is a private one, `user` the public internet through a relay that keeps rules.
    network: Network => network, default("loopback");
    /// Landlock behind the namespaces: what the kernel can do, every rule or an error, or not at all.
    landlock: Landlock => landlock, default("default");
    /// Processes still alive when the program ends are killed, killed and listed, or make the run a failure.
    leftovers: Leftovers => leftovers, default("kill");
}

/// What has a form of its own: read in `forms.rs`.
static FORMS: &[Spec] = &[
    simple!(root, "Root file system: `host` is a read-only view of the system directories, never the homes")
        .form("host|empty|DIR")
        .default("host")
        .by_hand("set_root_host"),
    #[cfg(feature = "image")]
    simple!(image, "The root is an image of the store; what it says of its runs is the default")
        .form("IMAGE")
        .rust("root")
        .by_hand("set_root_image"),
    #[cfg(feature = "image")]
    simple!(store, "The store of images and volumes")
        .form("DIR")
        .default("$XDG_DATA_HOME/sandcell/images")
        .by_hand("set_store"),
    simple!(layer, "Read-only layer of an overlay root; the first is the lowest")
        .form("DIR")
        .python("layers")
        .repeats()
        .by_hand("add_layer"),
    simple!(upper, "Where writes to the overlay go: thrown away, or kept in DIR")
        .form("tmpfs|DIR")
        .default("tmpfs")
        .by_hand("set_upper_dir"),
    simple!(ro, "Show a file or directory of the host read-only; a colon in a path is written `\\:`")
        .form("SRC[:DEST]")
        .repeats()
        .by_hand("add_ro"),
    simple!(rw, "Show a file or directory of the host, writable as far as the caller's own rights go")
        .form("SRC[:DEST]")
        .repeats()
        .by_hand("add_rw"),
    simple!(tmpfs, "An empty writable directory in memory").form("DEST[:SIZE]").repeats().by_hand("add_tmpfs"),
    simple!(file, "A read-only file with this content; the mode is 644 unless one is given")
        .form("DEST[:MODE]=CONTENT")
        .python("files")
        .repeats()
        .by_hand("add_file"),
    #[cfg(feature = "image")]
    simple!(volume, "A directory of the store that outlives runs")
        .form("NAME:DEST[:ro]")
        .python("volumes")
        .repeats()
        .by_hand("add_volume"),
    simple!(
        device,
        "Show a device of the host, or those in a directory of it, beneath /dev; `ro`: it cannot be opened for writing"
    )
    .form("PATH[:DEST][:ro]")
    .python("devices")
    .repeats()
    .best_effort()
    .by_hand("add_device"),
    simple!(socket, "Show one Unix socket of the host, such as an SSH agent's")
        .form("PATH[:DEST]")
        .repeats()
        .python("sockets")
        .by_hand("add_socket"),
    simple!(
        allow_host,
        "Let a name be reached, at TCP ports 80 and 443 or those given; everything else is refused then"
    )
    .form("NAME[:PORTS][/tcp|/udp]")
    .repeats()
    .python("allow_hosts")
    .by_hand("add_allow_host"),
    simple!(deny_host, "Refuse a name, whatever else is allowed")
        .form("NAME[:PORTS][/tcp|/udp]")
        .repeats()
        .python("deny_hosts")
        .by_hand("add_deny_host"),
    simple!(allow_net, "Let addresses be reached, private ones too")
        .form("CIDR[:PORTS][/tcp|/udp]")
        .repeats()
        .python("allow_nets")
        .by_hand("add_allow_net"),
    simple!(deny_net, "Refuse addresses, whatever else is allowed")
        .form("CIDR[:PORTS][/tcp|/udp]")
        .repeats()
        .python("deny_nets")
        .by_hand("add_deny_net"),
    simple!(
        publish,
        "Publish a port of the sandbox on the host, at 127.0.0.1 unless ADDR is given; HOST 0 is a free port"
    )
    .form("[ADDR:]HOST:CELL[/udp]")
    .repeats()
    .by_hand("add_publish"),
    simple!(host_port, "Let a port of the host's own 127.0.0.1 be reached, as host.containers.internal")
        .form("PORT[/udp]")
        .repeats()
        .python("host_ports")
        .by_hand("add_host_port"),
    simple!(upstream_proxy, "Have connections go by a proxy, which looks names up, too; the rules hold all the same")
        .form("http|socks5://HOST:PORT")
        .by_hand("set_upstream_proxy"),
    simple!(user, "Who the program is inside")
        .form("random|root|caller|UID[:GID]|NAME[:GROUP]")
        .default("the image's user, or random")
        .by_hand("set_user"),
    simple!(rlimit, "Limit of each process, as in setrlimit(2): nofile=256, fsize=64M, stack=unlimited")
        .form("NAME=SOFT[:HARD]")
        .repeats()
        .by_hand("add_rlimit"),
    simple!(seccomp, "System call filter; FILE has the JSON form of Docker's profiles")
        .form("default|off|FILE")
        .default("default")
        .by_hand("set_seccomp"),
    simple!(seccomp_with, "Allow a named set of system calls on top of the filter")
        .form("SET")
        .repeats()
        .by_hand("add_seccomp_set"),
    simple!(seccomp_without, "Take a named set of system calls out of the filter")
        .form("SET")
        .repeats()
        .by_hand("remove_seccomp_set"),
    simple!(allow, "Let programs trace each other, make namespaces inside, or have a socket that gives them the host")
        .form("ptrace|nested|engine-socket")
        .repeats()
        .by_hand("add_allow"),
    simple!(cap_add, "Keep a capability inside; all are dropped otherwise").form("CAP").repeats().by_hand("add_cap"),
    simple!(env_file, "Set variables, one KEY[=VALUE] a line; empty lines and lines with # are skipped")
        .form("FILE")
        .repeats()
        .by_hand("set"),
    simple!(env, "Set a variable, or pass the caller's on").form("KEY[=VALUE]").repeats().by_hand("add_env"),
    simple!(best_effort, "Where the host cannot enforce ITEM (or `all`), go on and say so in the report")
        .form("ITEM")
        .repeats()
        .by_hand("add_best_effort"),
];

pub(super) static TABLES: [&[Spec]; 4] = [FORMS, WORDS, LIMITS, OPTIONS];

/// What a row says beyond its name, kind and help.
impl Spec {
    const fn range(mut self, least: u64, most: u64) -> Spec {
        self.range = (least, most);
        self
    }

    const fn form(mut self, form: &'static str) -> Spec {
        self.form = form;
        self
    }

    const fn default(mut self, default: &'static str) -> Spec {
        self.default = default;
        self
    }

    const fn python(mut self, keyword: &'static str) -> Spec {
        self.python = keyword;
        self
    }

    const fn rust(mut self, method: &'static str) -> Spec {
        self.rust = method;
        self
    }

    const fn by_hand(mut self, setter: &'static str) -> Spec {
        self.c = setter;
        self
    }

    const fn deprecated(mut self, names: &'static [&'static str]) -> Spec {
        self.deprecated = names;
        self
    }

    const fn repeats(mut self) -> Spec {
        self.repeats = true;
        self
    }

    const fn limit(mut self) -> Spec {
        self.limit = true;
        self
    }

    const fn best_effort(mut self) -> Spec {
        self.best_effort = true;
        self
    }

    const fn cell(mut self) -> Spec {
        self.cell = true;
        self
    }
}
