//! A program to run, in the manner of `std::process::Command`.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::pipe2;

use crate::builder::check_variable;
use crate::error::{Failure, Result};
use crate::launch::{descriptors, lift};
use crate::outcome::{Output, Report};
use crate::policy::{Leftovers, Policy};
use crate::running::{Child, Init, Options};
use crate::sandbox::{Runner, Shared};
use crate::wire::{ASK_COUNT, ASK_LEFTOVERS, ASK_ONE_SHOT, Ask};

/// What execve(2) cannot carry.
pub(crate) const NO_NUL: &str = "leave the byte out: the kernel would end the text there";

/// Where a standard stream of the program comes from or goes to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// The caller's own.
    #[default]
    Inherit,
    /// /dev/null of the sandbox.
    Null,
    /// A new pipe, whose other end is in the [`Child`].
    Piped,
    /// This descriptor. Directories are refused: they would lead out (CVE-2024-21626).
    Fd(OwnedFd),
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Stdio::Fd(file.into())
    }
}

/// A program with its arguments, to be run in a sandbox of its own or in a started cell.
#[derive(Debug)]
pub struct Command {
    runner: Runner,
    program: OsString,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    env_clear: bool,
    dir: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    pass: Vec<(OwnedFd, i32)>,
    input: Option<Vec<u8>>,
    timeout: Option<Duration>,
    count_output: bool,
    changes: bool,
    learn: bool,
}

/// A request as init wants it, with the descriptors that go along.
pub(crate) struct Request {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// The caller's ends of the pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Command {
    pub(crate) fn new(runner: Runner, program: &OsStr) -> Command {
        Command {
            runner,
            program: program.to_owned(),
            arg0: None,
            args: Vec::new(),
            env: Vec::new(),
            env_clear: false,
            dir: None,
            stdin: None,
            stdout: None,
            stderr: None,
            pass: Vec::new(),
            input: None,
            timeout: None,
            count_output: false,
            changes: false,
            learn: false,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Command {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What the program finds as its own name; the program's path by default.
    pub fn arg0(&mut self, name: impl AsRef<OsStr>) -> &mut Command {
        self.arg0 = Some(name.as_ref().to_owned());
        self
    }

    /// Sets an environment variable, over those of the policy.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.env.push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Sets several environment variables.
    pub fn envs(&mut self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> &mut Command {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Starts from an empty environment, without the defaults and those of the policy.
    pub fn env_clear(&mut self) -> &mut Command {
        self.env_clear = true;
        self.env.clear();
        self
    }

    /// Working directory inside; that of the policy by default.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Command {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Standard input; inherited by default, nothing with `output`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stdin = Some(stdio.into());
        self
    }

    /// Standard output; inherited by default, captured with `output`.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stdout = Some(stdio.into());
        self
    }

    /// Standard error; inherited by default, captured with `output`.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Command {
        self.stderr = Some(stdio.into());
        self
    }

    /// Passes a descriptor on as `number` inside (3 or more).
    pub fn pass_fd(&mut self, fd: impl Into<OwnedFd>, number: i32) -> &mut Command {
        self.pass.push((fd.into(), number));
        self
    }

    /// Bytes for standard input, written while the output is read; for `output` and `status`.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Command {
        self.input = Some(bytes.into());
        self.stdin = Some(Stdio::Piped);
        self
    }

    /// Wall-clock time for this command, instead of the policy's.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Command {
        self.timeout = Some(timeout);
        self
    }

    /// Counts the bytes of stdout and stderr even where they are inherited: they pass through a pipe then.
    pub fn count_output(&mut self, count: bool) -> &mut Command {
        self.count_output = count;
        self
    }

    /// Lists the files that the run added, changed or removed in its overlay: [`Report::changes`]. One-shot only;
    /// a cell has [`Cell::changes`](crate::Cell::changes).
    pub fn track_changes(&mut self, track: bool) -> &mut Command {
        self.changes = track;
        self
    }

    /// Notes every system call that the program, its threads and its children make, and puts the smallest profile that
    /// lets them through into [`Report::learned`]. The policy's own profile holds meanwhile, so that what comes of it is
    /// never more than that. Each call takes some microseconds longer. One-shot only: a cell refuses it.
    ///
    /// What the calls point to is not looked at, and nothing is decided by it. A run shows what that run needed: learn
    /// from one that does everything, failures included.
    pub fn learn(&mut self, learn: bool) -> &mut Command {
        self.learn = learn;
        self
    }

    /// Starts the program. Standard streams are inherited by default. The request is used up: what was given as a
    /// descriptor is closed here.
    ///
    /// # Errors
    /// [`Error::Exec`](crate::Error::Exec) where the program cannot be executed, [`Error::Setup`](crate::Error::Setup)
    /// where the sandbox cannot be made.
    pub fn spawn(&mut self) -> Result<Child> {
        self.start(Stdio::Inherit, Stdio::Inherit)
    }

    /// Runs the program to its end.
    pub fn status(&mut self) -> Result<Report> {
        let input = self.input.take();
        let mut child = self.start(Stdio::Inherit, Stdio::Inherit)?;
        child.exchange(input.as_deref(), None)?;
        child.wait()
    }

    /// Runs the program to its end and captures what it writes. Standard input is /dev/null by default.
    pub fn output(&mut self) -> Result<Output> {
        let input = self.input.take();
        self.stdin.get_or_insert(Stdio::Null);
        let mut child = self.start(Stdio::Piped, Stdio::Piped)?;
        child.wait_with_output(input.as_deref())
    }

    fn start(&mut self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.stdout.get_or_insert(stdout);
        self.stderr.get_or_insert(stderr);
        let runner = self.runner.clone();
        runner.run(self)
    }

    pub(crate) fn options(&self, policy: &Policy) -> Options {
        Options {
            changes: self.changes,
            learn: self.learn,
            counted: self.count_output || policy.output_limit.is_some(),
            timeout: self.timeout.or(policy.timeout).map(|timeout| timeout.saturating_add(policy.grace)),
        }
    }

    /// The program, as errors name it.
    pub(crate) fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Puts the request together. All of the caller's mistakes are found here.
    pub(crate) fn request(
        &mut self,
        shared: &Shared,
        init: &Init,
        account: (&str, &Path),
        one_shot: bool,
    ) -> Result<(Request, Pipes)> {
        let policy = &shared.policy;
        let mut bytes = Vec::new();
        let mut fds = Vec::new();
        self.settings(policy, one_shot).write(&mut bytes);
        let environment = self.environment(policy, account)?;
        for candidate in self.candidates(&environment)? {
            Ask::Program { path: &candidate }.write(&mut bytes);
        }
        let name = self.arg0.as_ref().unwrap_or(&self.program);
        for text in std::iter::once(name).chain(&self.args) {
            Ask::Argument { text: &string("argument", text)? }.write(&mut bytes);
        }
        for (key, value) in &environment {
            check_variable(key, value)?;
            let mut text = key.clone();
            text.push("=");
            text.push(value);
            Ask::Variable { text: &string("env", &text)? }.write(&mut bytes);
        }
        let dir = self.dir.as_deref().or(policy.chdir.as_deref()).unwrap_or(account.1);
        if !dir.is_absolute() {
            let failure = Failure::new("option", dir.display().to_string(), "the working directory is not absolute");
            return Err(failure.hint("begin it with /").config());
        }
        Ask::WorkDir { path: &string("chdir", dir.as_os_str())? }.write(&mut bytes);
        for (resource, soft, hard) in policy.rlimits.iter().chain(&shared.rlimits).chain(&init.rlimits) {
            Ask::Rlimit { resource: *resource as u32, soft: *soft, hard: *hard }.write(&mut bytes);
        }
        let pipes = self.streams(&mut bytes, &mut fds)?;
        for (fd, number) in self.pass.drain(..) {
            if !(3..1024).contains(&number) {
                let message = format!("{number} is no number for a passed descriptor");
                return Err(Failure::new("option", "pass_fd", message).hint("3 to 1023").config());
            }
            refuse_directory(&fd)?;
            Ask::Descriptor { index: fds.len() as u32 + 2, number: number as u32 }.write(&mut bytes);
            fds.push(fd);
        }
        if fds.len() > 200 {
            return Err(Failure::new("option", "pass_fd", "more than 200 descriptors").config());
        }
        Ok((Request { bytes, fds }, pipes))
    }

    fn settings(&self, policy: &Policy, one_shot: bool) -> Ask<'static> {
        let mut flags = 0;
        if one_shot {
            flags |= ASK_ONE_SHOT;
        }
        if self.count_output {
            flags |= ASK_COUNT;
        }
        if policy.leftovers != Leftovers::Kill {
            flags |= ASK_LEFTOVERS;
        }
        let millis = |time: Duration| u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX / 2_000_000);
        Ask::Settings {
            flags,
            umask: policy.umask,
            timeout: self.timeout.or(policy.timeout).map_or(0, |t| millis(t).max(1)),
            grace: millis(policy.grace),
            output_limit: policy.output_limit.unwrap_or(0),
        }
    }

    /// The clean default, the policy's, the command's: later ones win.
    fn environment(&self, policy: &Policy, (user, home): (&str, &Path)) -> Result<Vec<(OsString, OsString)>> {
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |key: &OsStr, value: Option<&OsStr>| {
            all.retain(|(k, _)| k != key);
            if let Some(value) = value {
                all.push((key.to_owned(), value.to_owned()));
            }
        };
        if !self.env_clear {
            if policy.keep_env {
                std::env::vars_os().for_each(|(key, value)| set(&key, Some(&value)));
            }
            let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
            let path = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            for (key, value) in [
                ("PATH", path),
                ("HOME", home.as_os_str()),
                ("USER", OsStr::new(user)),
                ("LANG", OsStr::new("C.UTF-8")),
                ("TERM", &term),
            ] {
                // Home and user are the sandbox's even where the rest of the caller's environment is kept.
                if !policy.keep_env || matches!(key, "HOME" | "USER") {
                    set(OsStr::new(key), Some(value));
                }
            }
            policy.env.iter().for_each(|(key, value)| set(key, Some(value)));
        }
        self.env.iter().for_each(|(key, value)| set(key, value.as_deref()));
        Ok(all)
    }

    /// As execvp(3): a name without a slash is looked for along the PATH that the program will have.
    fn candidates(&self, environment: &[(OsString, OsString)]) -> Result<Vec<CString>> {
        if self.program.is_empty() {
            return Err(Failure::new("option", "program", "no program is named").hint("name one").config());
        }
        if self.program.as_bytes().contains(&b'/') {
            return Ok(vec![string("program", &self.program)?]);
        }
        let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_os_str());
        path.unwrap_or(OsStr::new("/usr/bin:/bin"))
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(|dir| {
                let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
                string("program", dir.join(&self.program).as_os_str())
            })
            .collect()
    }

    fn streams(&mut self, bytes: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> Result<Pipes> {
        let mut pipes = Pipes::default();
        let streams = [self.stdin.take(), self.stdout.take(), self.stderr.take()];
        for (stdio, number) in streams.into_iter().zip(0u32..) {
            let fd = match stdio.unwrap_or_default() {
                Stdio::Null => None,
                Stdio::Inherit => inherited(number)?,
                Stdio::Fd(fd) => Some(fd),
                Stdio::Piped => {
                    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(descriptors)?;
                    let (read, write) = (lift(read)?, lift(write)?);
                    let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
                    match number {
                        0 => pipes.stdin = Some(ours),
                        1 => pipes.stdout = Some(ours),
                        _ => pipes.stderr = Some(ours),
                    }
                    Some(theirs)
                }
            };
            match fd {
                None => Ask::Null { number }.write(bytes),
                Some(fd) => {
                    refuse_directory(&fd)?;
                    // Behind the request itself and the command's socket.
                    Ask::Descriptor { index: fds.len() as u32 + 2, number }.write(bytes);
                    fds.push(fd);
                }
            }
        }
        Ok(pipes)
    }
}

/// The caller's own stream; nothing where the caller has closed it.
fn inherited(number: u32) -> Result<Option<OwnedFd>> {
    use nix::errno::Errno;
    let duplicate = match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned(),
        1 => std::io::stdout().as_fd().try_clone_to_owned(),
        _ => std::io::stderr().as_fd().try_clone_to_owned(),
    };
    match duplicate {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(None),
        Err(error) => Err(descriptors(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))),
    }
}

fn refuse_directory(fd: &OwnedFd) -> Result<()> {
    let subject = || format!("descriptor {}", fd.as_raw_fd());
    let fail =
        |message: &str| Failure::new("option", subject(), message).hint("pass a file, a pipe or a socket").config();
    let unknown = |errno| Failure::new("descriptors", subject(), "cannot be examined").errno(errno as i32).setup();
    let stat = fstat(fd).map_err(unknown)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(fail("is a directory: it would lead out of the sandbox"));
    }
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain).map_err(unknown)?;
    if flags.contains(OFlag::O_PATH) {
        return Err(fail("is a path, not an open file"));
    }
    Ok(())
}

fn string(what: &'static str, text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| Failure::new("option", what, format!("{text:?} contains a NUL byte")).hint(NO_NUL).config())
}
