//! What can be said on the command line, and the [`Builder`] that it comes to.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::resource::Resource;
use sandcell::{
    Builder, Command, Error, Failure, HostIds, Isolation, Landlock, Leftovers, Network, Root, Sandbox, Seccomp, Upper,
    User, syscalls::Profile,
};

use crate::images::ImageAction;
use crate::values;

/// Runs a program in a rootless sandbox.
#[derive(Parser)]
#[command(name = "sandcell", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    /// Run a program and pass its exit status on
    #[command(after_help = STATUSES)]
    Run {
        #[command(flatten)]
        options: Box<Options>,
        /// Where the JSON report goes when the run ends, also when it failed: a file, or fd:N
        #[arg(long, value_name = "FILE|fd:N")]
        report: Option<OsString>,
        #[command(flatten)]
        program: Program,
    },
    /// Run a test program: the source tree read-only, the build directory writable, the environment kept
    #[command(after_help = STATUSES)]
    Test {
        #[command(flatten)]
        options: Box<Options>,
        /// The source tree, shown read-only [default: found from the working directory]
        #[arg(long, value_name = "DIR")]
        source: Option<PathBuf>,
        /// A build directory, shown writable; repeat [default: found from the program and the working directory]
        #[arg(long, value_name = "DIR")]
        build: Vec<PathBuf>,
        /// Where the JSON report goes when the run ends, also when it failed: a file, or fd:N
        #[arg(long, value_name = "FILE|fd:N")]
        report: Option<OsString>,
        #[command(flatten)]
        program: Program,
    },
    /// Print every step that a run would take; nothing is run
    Explain {
        #[command(flatten)]
        options: Box<Options>,
        /// As a JSON array
        #[arg(long)]
        json: bool,
        /// The system call profile in words, instead of the steps
        #[arg(long, conflicts_with = "json")]
        syscalls: bool,
        #[command(flatten)]
        program: Program,
    },
    /// Run a program and write the smallest system call profile that it needs
    Learn {
        #[command(flatten)]
        options: Box<Options>,
        /// Where the profile goes, in the JSON form of Docker's
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        program: Program,
    },
    /// Tell what this host allows, what blocks, and the remedy
    Doctor {
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Work on trees whose files belong to leased ids: kept uppers, homes, images
    #[command(subcommand)]
    Files(crate::files::Files),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man,
    #[command(flatten)]
    Image(ImageAction),
}

const STATUSES: &str = "Exit status: the program's own; 128+n ended by signal n; 124 timed out; 125 the sandbox \
    failed; 126 cannot be executed; 127 not found; 137 out of memory; 153 output limit; 159 system call denied.";

#[derive(Args)]
pub struct Program {
    /// The program and its arguments; those of the image's entry point with --image, if any
    #[arg(required_unless_present = "image", trailing_var_arg = true, value_name = "PROGRAM")]
    pub words: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum NetworkWord {
    None,
    Loopback,
    Host,
}

impl From<NetworkWord> for Network {
    fn from(word: NetworkWord) -> Network {
        match word {
            NetworkWord::None => Network::None,
            NetworkWord::Loopback => Network::Loopback,
            NetworkWord::Host => Network::Host,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum IsolationWord {
    Namespaces,
    Landlock,
}

#[derive(Clone, Copy, ValueEnum)]
enum LandlockWord {
    Default,
    Required,
    Off,
}

#[derive(Clone, Copy, ValueEnum)]
enum LeftoversWord {
    Kill,
    Report,
    Fail,
}

#[derive(Args)]
pub struct Options {
    /// Root file system: `host` is a read-only view of the system directories, never the homes
    #[arg(long, value_name = "host|empty|DIR", conflicts_with = "layer")]
    root: Option<PathBuf>,
    /// The root is an image of the store; what it says of its runs is the default
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["root", "layer"])]
    image: Option<String>,
    /// Run this instead of the image's entry point
    #[arg(long, value_name = "PROGRAM", requires = "image")]
    entrypoint: Option<OsString>,
    /// A directory of the store that outlives runs
    #[arg(long, value_name = "NAME:DEST[:ro]")]
    volume: Vec<String>,
    /// The store of images and volumes [default: $XDG_DATA_HOME/sandcell/images]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Read-only layer of an overlay root; repeat, the first is the lowest
    #[arg(long, value_name = "DIR")]
    layer: Vec<PathBuf>,
    /// Where writes to the overlay go: thrown away, or kept in DIR [default: tmpfs]
    #[arg(long, value_name = "tmpfs|DIR")]
    upper: Option<PathBuf>,
    /// Show a file or directory of the host read-only; a colon in a path is written `\\:`
    #[arg(long, value_name = "SRC[:DEST]")]
    ro: Vec<OsString>,
    /// Show a file or directory of the host writable
    #[arg(long, value_name = "SRC[:DEST]")]
    rw: Vec<OsString>,
    /// An empty writable directory in memory
    #[arg(long, value_name = "DEST[:SIZE]")]
    tmpfs: Vec<OsString>,
    /// Who the program is inside [default: the image's user, or random]
    #[arg(long, value_name = "random|root|caller|UID[:GID]", value_parser = values::user)]
    user: Option<User>,
    /// Where its UID on the host comes from: leased where the host has ids, leased or refused, or the caller's own
    #[arg(long, value_name = "auto|disjoint|shared", value_parser = values::host_ids, default_value = "auto")]
    host_ids: HostIds,
    /// The program's UID and GID are the caller's on the host, so that the caller's files are its own
    #[arg(long)]
    keep_caller: bool,
    /// How many ids the program has: 65536 for a whole distribution, with --cap-add for what changes user
    #[arg(long, value_name = "N", default_value = "1")]
    id_count: u32,
    /// How long to wait for free ids [default: not at all]
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    wait_for_ids: Option<Duration>,
    /// The host's name inside [default: cell- and 6 random characters]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Memory of all processes: 512K, 64M, 2G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// Swap on top of the memory
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    swap: Option<u64>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pids: Option<u64>,
    /// CPUs, such as 0.5
    #[arg(long, value_name = "F")]
    cpus: Option<f64>,
    /// CPUs that may be used, such as 0-3,8
    #[arg(long, value_name = "LIST")]
    cpuset: Option<String>,
    /// What the private writable directories may hold together
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    disk: Option<u64>,
    /// Limit of each process, as in setrlimit(2): nofile=256, fsize=64M
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = values::rlimit)]
    rlimit: Vec<(Resource, u64, u64)>,
    /// Wall-clock time: 500ms, 30s, 5m; then TERM, the grace, KILL of all
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Between TERM and KILL
    #[arg(long, value_name = "DUR", value_parser = values::duration, default_value = "2s")]
    grace: Duration,
    /// Standard output and error together
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    output_limit: Option<u64>,
    /// What keeps the program apart: `landlock` is for hosts that forbid user namespaces, and weaker
    #[arg(long, value_enum, default_value = "namespaces")]
    isolation: IsolationWord,
    /// The network; `loopback` is a private one
    #[arg(long, value_enum, default_value = "loopback")]
    network: NetworkWord,
    /// System call filter; FILE has the JSON form of Docker's profiles
    #[arg(long, value_name = "default|off|FILE", default_value = "default")]
    seccomp: PathBuf,
    /// The second wall behind the namespaces
    #[arg(long, value_enum, default_value = "default")]
    landlock: LandlockWord,
    /// Keep a capability inside; all are dropped otherwise
    #[arg(long, value_name = "CAP", value_parser = values::capability)]
    cap_add: Vec<caps::Capability>,
    /// Set a variable, or pass the caller's on
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<OsString>,
    /// Variables, one KEY[=VALUE] a line; empty lines and lines with # are skipped
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Pass the caller's whole environment on
    #[arg(long)]
    keep_env: bool,
    /// Working directory inside [default: the home]
    #[arg(short = 'C', long, value_name = "DIR")]
    chdir: Option<PathBuf>,
    /// Where the host cannot enforce ITEM (or `all`), go on and say so in the report
    #[arg(long, value_name = "ITEM")]
    best_effort: Vec<String>,
    /// Processes still alive when the program ends [default: kill; with `test`: report]
    #[arg(long, value_enum)]
    leftovers: Option<LeftoversWord>,
}

impl Options {
    /// The program that was asked for, in a sandbox of its own.
    pub fn command(&self, sandbox: &Sandbox, words: &[OsString]) -> Result<Command, Error> {
        let (program, args) = match (&self.entrypoint, &self.image) {
            (Some(program), _) => (program, words),
            (None, Some(_)) => return sandbox.image_command(words),
            (None, None) => (&words[0], &words[1..]),
        };
        let mut command = sandbox.command(program);
        command.args(args);
        Ok(command)
    }

    /// The sandbox that was asked for, or what is wrong with what was said.
    pub fn sandbox(&self) -> Result<Sandbox, Error> {
        self.applied_to(Sandbox::builder())?.build()
    }

    /// The system call profile in words.
    pub fn syscalls(&self) -> Result<String, Error> {
        Ok(match self.filter()? {
            Seccomp::Off => "Every system call: allowed.\n".to_owned(),
            Seccomp::Profile(profile) => profile.explain(&self.cap_add),
            _ => Profile::default().explain(&self.cap_add),
        })
    }

    /// What was said, over the defaults that `builder` comes with.
    pub fn applied_to(&self, mut builder: Builder) -> Result<Builder, Error> {
        if self.keep_env {
            builder = builder.keep_env(true);
        }
        if self.keep_caller {
            builder = builder.keep_caller(true);
        }
        if let Some(leftovers) = self.leftovers {
            builder = builder.leftovers(match leftovers {
                LeftoversWord::Kill => Leftovers::Kill,
                LeftoversWord::Report => Leftovers::Report,
                LeftoversWord::Fail => Leftovers::Fail,
            });
        }
        builder = builder
            .grace(self.grace)
            .host_ids(self.host_ids)
            .id_count(self.id_count)
            .isolation(match self.isolation {
                IsolationWord::Namespaces => Isolation::Namespaces,
                IsolationWord::Landlock => Isolation::Landlock,
            })
            .network(self.network.into())
            .landlock(match self.landlock {
                LandlockWord::Default => Landlock::Default,
                LandlockWord::Required => Landlock::Required,
                LandlockWord::Off => Landlock::Off,
            })
            .seccomp(self.filter()?);
        builder = match self.root.as_deref().map(|root| (root, root.to_str())) {
            None | Some((_, Some("host"))) => builder,
            Some((_, Some("empty"))) => builder.root(Root::Empty),
            Some((dir, _)) => builder.root(Root::Dir(dir.to_owned())),
        };
        if let Some(user) = self.user {
            builder = builder.user(user);
        }
        if let Some(image) = &self.image {
            builder = builder.root(Root::image(image));
        }
        if let Some(store) = &self.store {
            builder = builder.store(store);
        }
        for text in &self.volume {
            let (name, dest, writable) = values::volume(text).map_err(|e| wrong("--volume", text.as_ref(), e))?;
            builder = builder.volume(name, dest, writable);
        }
        builder = self.layer.iter().fold(builder, |builder, layer| builder.layer(layer));
        if let Some(upper) = &self.upper {
            builder = builder.upper(match upper.to_str() {
                Some("tmpfs") => Upper::Tmpfs,
                _ => Upper::Dir(upper.clone()),
            });
        }
        for text in &self.ro {
            let (source, dest) = values::bind(text).map_err(|e| wrong("--ro", text, e))?;
            builder = builder.ro(source, dest);
        }
        for text in &self.rw {
            let (source, dest) = values::bind(text).map_err(|e| wrong("--rw", text, e))?;
            builder = builder.rw(source, dest);
        }
        for text in &self.tmpfs {
            let (dest, size) = values::tmpfs(text).map_err(|e| wrong("--tmpfs", text, e))?;
            builder = builder.tmpfs(dest, size);
        }
        for (resource, soft, hard) in &self.rlimit {
            builder = builder.rlimit(*resource, *soft, *hard);
        }
        builder = self.cap_add.iter().fold(builder, |builder, cap| builder.cap_add(*cap));
        builder = self.best_effort.iter().fold(builder, |builder, item| builder.best_effort(item));
        self.variables(self.limits(builder))
    }

    fn limits(&self, mut builder: Builder) -> Builder {
        macro_rules! pass {
            ($($option:ident => $method:ident),*) => {
                $(if let Some(value) = self.$option.clone() { builder = builder.$method(value); })*
            };
        }
        pass!(hostname => hostname, memory => memory, swap => swap, pids => pids, cpus => cpus, cpuset => cpuset,
              disk => disk, wait_for_ids => wait_for_ids, timeout => timeout, output_limit => output_limit, chdir => current_dir);
        builder
    }

    fn filter(&self) -> Result<Seccomp, Error> {
        Ok(match self.seccomp.to_str() {
            Some("default") => Seccomp::Default,
            Some("off") => Seccomp::Off,
            _ => {
                let (option, file) = ("--seccomp", self.seccomp.as_os_str());
                let text = String::from_utf8(read(&self.seccomp, option)?)
                    .map_err(|_| wrong(option, file, "is no profile: not UTF-8"))?;
                let profile = Profile::from_json(&text).map_err(|error| {
                    amended(error, |failure| {
                        failure.subject = format!("{option} {}: {}", file.display(), failure.subject);
                        failure.hint = "mend the profile; `default` is the built-in one".to_owned();
                    })
                });
                Seccomp::Profile(profile?)
            }
        })
    }

    /// Those of files first, so that the command line wins.
    fn variables(&self, mut builder: Builder) -> Result<Builder, Error> {
        let mut lines = Vec::new();
        for file in &self.env_file {
            // Bytes: a value need not be UTF-8.
            let text = read(file, "--env-file")?;
            let text = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let wanted = text.filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"));
            lines.extend(wanted.map(|line| OsString::from_vec(line.to_vec())));
        }
        for line in lines.iter().chain(&self.env) {
            let bytes = line.as_bytes();
            builder = match bytes.iter().position(|b| *b == b'=') {
                Some(at) => {
                    let (key, value) = (&bytes[..at], &bytes[at + 1..]);
                    builder.env(OsString::from_vec(key.to_vec()), OsString::from_vec(value.to_vec()))
                }
                // Not a name at all is a mistake, which `build` names; a variable that is not set is none.
                None if bytes.is_empty() || bytes.contains(&0) => builder.env(line, ""),
                None => match std::env::var_os(line) {
                    Some(value) => builder.env(line, value),
                    None => builder,
                },
            };
        }
        Ok(builder)
    }
}

fn read(file: &std::path::Path, option: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        let error = wrong(option, file.as_os_str(), format!("cannot be read: {error}"));
        amended(error, |failure| failure.hint = "name a file that you may read".to_owned())
    })
}

/// A mistake in what was said on the command line.
pub fn wrong(option: &str, value: &OsStr, message: impl Into<String>) -> Error {
    Error::option(format!("{option} {}", value.to_string_lossy()), message)
}

/// The same mistake with more said of it.
pub fn amended(mut error: Error, amend: impl FnOnce(&mut Failure)) -> Error {
    if let Error::Config(failure) = &mut error {
        amend(failure);
    }
    error
}
