//! What came of a run: the outcome, what it used, and what was enforced by what.

use std::fmt;
use std::time::Duration;

/// How a program ended. A failure of the sandbox is an [`Error`](crate::Error) and never one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It ended by itself with this status (0 to 255).
    Exited(i32),
    /// A signal ended it.
    #[non_exhaustive]
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// It ran past its timeout, or used up its CPU time, and was ended: [`Report::timed_out`] tells which.
    TimedOut,
    /// The memory limit ended it, or a process of its tree.
    OutOfMemory,
    /// It wrote more than the output limit and was ended.
    OutputLimit,
    /// The system call filter ended it.
    #[non_exhaustive]
    SyscallDenied {
        /// The call's name, or its number where it has no name here; `unknown` where the kernel ended the program by
        /// itself (SIGSYS): for a call of a 32-bit ABI, by `SCMP_ACT_TRAP`, or where something around the caller
        /// already has the one listener that the kernel allows.
        syscall: String,
    },
    /// The caller ended it: `kill`, a dropped handle, or the end of its cell.
    Killed,
}

impl Outcome {
    /// Whether the program ended by itself with status 0.
    pub fn success(&self) -> bool {
        *self == Outcome::Exited(0)
    }

    /// The exit status, if the program ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self {
            Outcome::Exited(code) => Some(*code),
            _ => None,
        }
    }

    /// `exited`, `signaled`, `timed_out`, `out_of_memory`, `output_limit`, `syscall_denied` or `killed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Exited(_) => "exited",
            Outcome::Signaled { .. } => "signaled",
            Outcome::TimedOut => "timed_out",
            Outcome::OutOfMemory => "out_of_memory",
            Outcome::OutputLimit => "output_limit",
            Outcome::SyscallDenied { .. } => "syscall_denied",
            Outcome::Killed => "killed",
        }
    }

    /// The status that a shell would show: the program's own, 128 + n for a signal, 124 timed out,
    /// 137 out of memory or killed, 153 (as for SIGXFSZ) output limit, 159 (as for SIGSYS) system call denied.
    pub fn exit_status(&self) -> i32 {
        match self {
            Outcome::Exited(code) => *code,
            Outcome::Signaled { signal, .. } => 128 + signal,
            Outcome::TimedOut => 124,
            Outcome::OutOfMemory | Outcome::Killed => 128 + libc::SIGKILL,
            Outcome::OutputLimit => 128 + libc::SIGXFSZ,
            Outcome::SyscallDenied { .. } => 128 + libc::SIGSYS,
        }
    }
}

/// A limit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeLimit {
    /// Time on the clock: `timeout`.
    Wall,
    /// CPU time of all processes: `cpu_time`.
    Cpu,
}

impl TimeLimit {
    /// `wall` or `cpu`.
    pub fn as_str(self) -> &'static str {
        match self {
            TimeLimit::Wall => "wall",
            TimeLimit::Cpu => "cpu",
        }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(code) => write!(f, "exited with status {code}"),
            Outcome::Signaled { signal, core_dumped } => {
                let name = nix::sys::signal::Signal::try_from(*signal).map_or("unknown", |s| s.as_str());
                write!(f, "ended by signal {signal} ({name})")?;
                if *core_dumped { write!(f, ", core dumped") } else { Ok(()) }
            }
            Outcome::TimedOut => write!(f, "timed out"),
            Outcome::OutOfMemory => write!(f, "out of memory"),
            Outcome::OutputLimit => write!(f, "wrote more than its output limit"),
            Outcome::SyscallDenied { syscall } => write!(f, "made the denied system call {syscall}"),
            Outcome::Killed => write!(f, "killed by the caller"),
        }
    }
}

/// What a run used. `None` where nothing on this host counted it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// From the start of the program to its end; of a cell, from its start to now, or to its end.
    pub wall: Duration,
    /// CPU time in user mode, all processes of the run.
    pub user: Option<Duration>,
    /// CPU time in the kernel, all processes of the run.
    pub system: Option<Duration>,
    /// The most memory held at once, bytes: of the cgroup where there is one, otherwise of the largest single process.
    pub memory_peak_bytes: Option<u64>,
    /// The most processes and threads at once (cgroup only).
    pub pids_peak: Option<u64>,
    /// Bytes written to standard output and standard error, where the library carried them.
    pub output_bytes: Option<u64>,
    /// Bytes read from block devices (cgroup only).
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices (cgroup only).
    pub io_write_bytes: Option<u64>,
    /// Time that processes had to wait because of the CPU limit (cgroup only).
    pub throttled: Option<Duration>,
    /// Processes killed for memory (cgroup only).
    pub oom_kills: Option<u64>,
    /// Forks and threads refused because of the pids limit (cgroup only).
    pub pids_refused: Option<u64>,
    /// Share of time, 0 to 100 %, in which some process waited for memory (average over 10 s; cgroup v2 only).
    pub memory_pressure: Option<f32>,
    /// The same for the CPU.
    pub cpu_pressure: Option<f32>,
    /// The same for input and output.
    pub io_pressure: Option<f32>,
}

/// What carries out a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// A namespace of the kernel: namespaces(7).
    Namespace,
    /// cgroup v2: cgroups(7).
    Cgroup2,
    /// cgroup v1.
    Cgroup1,
    /// A resource limit per process or per user: setrlimit(2).
    Rlimit,
    /// The size of a private tmpfs.
    Tmpfs,
    /// A system call filter: seccomp(2).
    Seccomp,
    /// Landlock: landlock(7).
    Landlock,
    /// Our own process that watches over the program.
    Supervisor,
    /// Nothing: the caller said that best effort is enough, or asked for less isolation; `why` tells what is missing.
    Nothing,
}

impl Mechanism {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Namespace => "namespace",
            Mechanism::Cgroup2 => "cgroup2",
            Mechanism::Cgroup1 => "cgroup1",
            Mechanism::Rlimit => "rlimit",
            Mechanism::Tmpfs => "tmpfs",
            Mechanism::Seccomp => "seccomp",
            Mechanism::Landlock => "landlock",
            Mechanism::Supervisor => "supervisor",
            Mechanism::Nothing => "nothing",
        }
    }
}

/// One line of the list of what was enforced and by what.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Enforced {
    /// What was asked for, named as the option: `memory`, `pids`, `network`, `identity`, …
    pub item: &'static str,
    /// The figure or word that was asked for.
    pub requested: Requested,
    /// What carries it out.
    pub by: Mechanism,
    /// What the reader should know about it: why nothing enforces it, or in what it is weaker than it sounds.
    pub why: Option<String>,
    /// For `identity`: the UID on the host.
    pub host_uid: Option<u32>,
    /// For `identity`: whether no other live sandbox of any user can have that UID.
    pub disjoint: Option<bool>,
}

/// The figure or word of a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Requested {
    /// Bytes, a count, or milliseconds.
    Number(u64),
    /// CPUs.
    Fraction(f64),
    /// A word.
    Word(String),
}

impl Enforced {
    pub(crate) fn new(item: &'static str, requested: Requested, by: Mechanism) -> Enforced {
        Enforced { item, requested, by, why: None, host_uid: None, disjoint: None }
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Enforced {
        self.why = Some(why.into());
        self
    }
}

/// Who the program was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityReport {
    /// UID inside.
    pub uid: u32,
    /// GID inside.
    pub gid: u32,
    /// The same UID as the host sees it.
    pub host_uid: u32,
    /// The same GID as the host sees it.
    pub host_gid: u32,
}

/// All that is known of a run when it is over.
///
/// ```
/// let report = sandcell::Sandbox::builder().build()?.command("true").status()?;
/// assert!(report.success() && report.timed_out.is_none());
/// for line in &report.enforced {
///     println!("{}: {}", line.item, line.by.as_str());
/// }
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// How the program ended.
    pub outcome: Outcome,
    /// Which time ran out, with [`Outcome::TimedOut`].
    pub timed_out: Option<TimeLimit>,
    /// What it used.
    pub usage: Usage,
    /// Who it was.
    pub identity: IdentityReport,
    /// What was enforced, and by what.
    pub enforced: Vec<Enforced>,
    /// Processes that were alive when it ended, where that was asked for.
    pub leftovers: Vec<Leftover>,
    /// Leftovers make a failure of the run: [`Leftovers::Fail`](crate::Leftovers::Fail).
    pub(crate) leftovers_fail: bool,
    /// What it changed in its overlay, where that was asked for.
    pub changes: Option<Vec<super::Change>>,
    /// The list of changes is not complete: it would be longer than 40 MiB, or something moved directories meanwhile.
    pub changes_truncated: bool,
    /// The smallest profile that lets the run's system calls through, where that was asked for.
    pub learned: Option<crate::seccomp::Profile>,
    /// With the network `user`: what was reached, and what was refused. In a cell, by all its programs so far.
    pub network: Option<crate::NetworkReport>,
    /// What went wrong in cleaning up; the result stands all the same.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether all went well: the program ended by itself with status 0 and, under
    /// [`Leftovers::Fail`](crate::Leftovers::Fail), left no process behind.
    pub fn success(&self) -> bool {
        self.exit_status() == 0
    }

    /// [`Outcome::exit_status`], but 125 instead of 0 where leftovers make the run a failure.
    pub fn exit_status(&self) -> i32 {
        match self.outcome.exit_status() {
            0 if self.leftovers_fail && !self.leftovers.is_empty() => 125,
            status => status,
        }
    }
}

/// A [`Report`] with what the program wrote; the report's fields can be reached through it.
///
/// ```
/// let output = sandcell::Sandbox::builder().build()?.command("echo").arg("hello").output()?;
/// assert_eq!(output.stdout, b"hello\n");
/// assert_eq!(output.outcome.code(), Some(0)); // a field of the report
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Everything else.
    pub report: Report,
}

impl std::ops::Deref for Output {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

/// A process that was still alive when the program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Its number inside the sandbox.
    pub pid: u32,
    /// Its command line, arguments separated by blanks, or its name in brackets.
    pub command: String,
}
