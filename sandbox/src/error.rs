//! What can go wrong, in one shape: what failed, while doing what, why, and what to do.

use std::fmt;
use std::io;

use crate::printable::sentence;

/// The result of every call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the sandbox, never of the program in it: what the program came to is an
/// [`Outcome`](crate::Outcome).
///
/// ```
/// let error = sandcell::Sandbox::builder().build()?.command("/no/such/program").status().unwrap_err();
/// assert_eq!((error.kind(), error.stage(), error.errno()), ("exec", "exec", Some(2)));
/// eprintln!("{error}\nhint: {}", error.hint());
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked for something that makes no sense. Found before anything starts.
    #[error("{0}")]
    Config(Box<Failure>),
    /// This host cannot enforce what was asked for. `hint` names the remedy.
    #[error("{0}")]
    Unsupported(Box<Failure>),
    /// A step of building the sandbox failed. Nothing of it is left.
    #[error("{0}")]
    Setup(Box<Failure>),
    /// The program itself could not be executed (`errno` is `ENOENT`, `EACCES`, `ENOEXEC`, …).
    #[error("{0}")]
    Exec(Box<Failure>),
    /// Talking with the program or the sandbox failed.
    #[error("{0}")]
    Io(Box<Failure>),
}

/// The particulars of an [`Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Stable name of the step, such as `mount-proc`, `uid-map` or `option`.
    pub stage: &'static str,
    /// The system's error number, where a system call failed.
    pub errno: Option<i32>,
    /// The path, option, program or limit that it is about.
    pub subject: String,
    /// What went wrong, in words, without the subject.
    pub message: String,
    /// What the reader can do about it; empty where nothing sensible can be said.
    pub hint: String,
}

/// On one line, and fit for a terminal: the subject may be a name that a program made.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.subject.is_empty() {
            write!(f, "{}: ", sentence(&self.subject))?;
        }
        write!(f, "{}", sentence(&self.message))?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", nix::errno::Errno::from_raw(errno))?;
        }
        write!(f, " [{}]", self.stage)
    }
}

impl Failure {
    /// A failure without an error number and without a hint; the `with_` methods add them.
    pub(crate) fn new(stage: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { stage, errno: None, subject: subject.into(), message: message.into(), hint: String::new() }
    }

    pub(crate) fn errno(mut self, errno: impl Into<i32>) -> Failure {
        self.errno = Some(errno.into());
        self
    }

    pub(crate) fn cause(mut self, error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(errno) => self.errno = Some(errno),
            None => self.message = format!("{}: {error}", self.message),
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// A caller that is out of descriptors, or may write no larger file, learns just that, wherever it meets the limit.
    fn boxed(mut self) -> Box<Failure> {
        match self.errno {
            Some(libc::EMFILE | libc::ENFILE) => {
                self.hint = "close some descriptors, or raise RLIMIT_NOFILE".to_owned();
            }
            Some(libc::EFBIG) => {
                self.hint = "Raise RLIMIT_FSIZE of the caller (`ulimit -f`); a start needs 1 MiB, and the size of \
                             the largest file that is written."
                    .to_owned();
            }
            _ => {}
        }
        Box::new(self)
    }

    pub(crate) fn config(self) -> Error {
        Error::Config(self.boxed())
    }

    pub(crate) fn unsupported(self) -> Error {
        Error::Unsupported(self.boxed())
    }

    pub(crate) fn setup(self) -> Error {
        let hint = self.usual_hint();
        Error::Setup(self.or_hint(hint).boxed())
    }

    pub(crate) fn exec(self) -> Error {
        Error::Exec(self.or_hint("execve(2) lists what this number can mean; the path is one inside").boxed())
    }

    /// What to do where nobody has said more: by the step that failed, and by what the system answered.
    fn usual_hint(&self) -> &'static str {
        const OF_THE_HOST: &[&str] = &[
            "user-namespace",
            "id-map",
            "idmapped-mount",
            "clone",
            "private-mounts",
            "mount",
            "pivot-root",
            "keyring",
            "nested",
            "landlock",
            "seccomp",
            "cgroup",
            "uid-map",
            "gid-map",
            "setgroups",
            "overlay",
            "network",
            "loopback",
            "fsopen",
            "fsmount",
            "fsconfig",
            "base-",
            "sub-ids",
            "capabilities",
            "ambient-capabilities",
            "bounding-set",
            "exec-init",
            "no-new-privs",
            "open-tree",
            "root-",
            "restrict",
        ];
        match self.errno {
            Some(libc::EDQUOT) if self.stage == "keyring" => {
                "Run fewer sandboxes at once as this user, or raise kernel.keys.maxkeys: each takes a keyring."
            }
            Some(libc::ENOSPC | libc::EDQUOT) => {
                "Free some space on the file system, or name a directory on another one."
            }
            Some(libc::EROFS) => "Name a directory on a file system that can be written to.",
            Some(libc::ENOMEM) => "Free some memory, or raise the limit of the caller's own cgroup.",
            Some(libc::EPIPE) => "Find out why whoever reads the output has ended.",
            Some(libc::EIO) => "Look at the kernel's log: the device or file system answers with an error.",
            _ if OF_THE_HOST.iter().any(|known| self.stage.starts_with(known)) => {
                "`sandcell doctor` (or `doctor()`) tries out what this host allows"
            }
            Some(libc::ENOENT | libc::ENOTDIR) => "Name a path that exists.",
            Some(libc::EACCES | libc::EPERM) => "Name a path that the caller may use, or change its permissions.",
            Some(libc::EMFILE | libc::ENFILE) => "Raise the limit of open files, or close some.",
            Some(_) => "Look for a seccomp filter or a security module around the caller that refuses this call.",
            None => "",
        }
    }

    fn or_hint(self, hint: &str) -> Failure {
        if self.hint.is_empty() { self.hint(hint) } else { self }
    }

    pub(crate) fn io(self) -> Error {
        Error::Io(self.boxed())
    }
}

impl Error {
    /// [`Error::Config`] for an option that cannot even be read: what the command line and other languages find
    /// before there is a [`Builder`](crate::Builder).
    pub fn option(subject: impl Into<String>, message: impl Into<String>) -> Error {
        Failure::new("option", subject, message).config()
    }

    /// The particulars, whatever the kind.
    pub fn failure(&self) -> &Failure {
        match self {
            Error::Config(f) | Error::Unsupported(f) | Error::Setup(f) | Error::Exec(f) | Error::Io(f) => f,
        }
    }

    /// `config`, `unsupported`, `setup`, `exec` or `io`: the same words in every language and in the report.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Config(_) => "config",
            Error::Unsupported(_) => "unsupported",
            Error::Setup(_) => "setup",
            Error::Exec(_) => "exec",
            Error::Io(_) => "io",
        }
    }

    /// Stable name of the step that failed.
    pub fn stage(&self) -> &'static str {
        self.failure().stage
    }

    /// The system's error number, where a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.failure().errno
    }

    /// What it is about: a path, an option, a program, a limit.
    pub fn subject(&self) -> &str {
        &self.failure().subject
    }

    /// What to do about it; may be empty.
    pub fn hint(&self) -> &str {
        &self.failure().hint
    }
}

impl From<Error> for io::Error {
    /// Keeps the error number where there is one, so that `kind()` stays useful.
    fn from(error: Error) -> io::Error {
        let kind = match (error.errno(), &error) {
            (Some(errno), _) => io::Error::from_raw_os_error(errno).kind(),
            (None, Error::Config(_)) => io::ErrorKind::InvalidInput,
            (None, Error::Unsupported(_)) => io::ErrorKind::Unsupported,
            (None, _) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
