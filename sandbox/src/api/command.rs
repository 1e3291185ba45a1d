//! A program to run, in the manner of `std::process::Command`.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kernel_names::Resource;

use crate::api::cell::Cell;
use crate::api::child::{Child, Options};
use crate::api::pool::Pool;
use crate::api::sandbox::Sandbox;
use crate::api::shared::Shared;
use crate::api::streams::{self, Examined, Passed, Pipes, Request, Stdio, Unset, inherited, pipe, refuse_directory};
use crate::error::{Failure, Result};
use crate::policy::Policy;
use crate::policy::check::{NO_NUL, check_variable};
use crate::report::{Output, Report};
use crate::supervise::init::Init;
use crate::wire::{ASK_COUNT, ASK_LEFTOVERS, ASK_ONE_SHOT, ASK_UNCOUNTED, Ask, TERMINAL_STOPS};

/// A program with its arguments, to be run in a sandbox of its own or in a started cell.
///
/// ```
/// let sandbox = sandcell::Sandbox::builder().build()?;
/// let mut command = sandbox.command("sh");
/// let output = command.args(["-c", "echo $NAME; cat"]).env("NAME", "box").input("typed\n").output()?;
/// assert_eq!(output.stdout, b"box\ntyped\n");
/// # Ok::<(), sandcell::Error>(())
/// ```
pub struct Command {
    pub(super) runner: Runner,
    pub(super) program: OsString,
    arg0: Option<OsString>,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, Option<OsString>)>,
    pub(super) env_clear: bool,
    pub(super) dir: Option<PathBuf>,
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    pub(super) pass: Vec<(OwnedFd, i32)>,
    pub(crate) input: Option<Vec<u8>>,
    /// Whether the caller of this run writes the input into a pipe itself.
    pub(super) feeds_input: bool,
    /// What the streams are that nobody has set, for this run.
    pub(super) unset: [Unset; 3],
    timeout: Option<Duration>,
    pub(super) count_output: bool,
    pub(super) changes: bool,
    pub(super) learn: bool,
    reports_stops: bool,
    direct_files: bool,
    /// Bit n - 1 is signal n.
    ignored: u64,
    /// It is what a named cell lives for.
    pub(super) is_main: bool,
}

impl std::fmt::Debug for Command {
    /// Without the values of variables and the input, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let env: Vec<_> = self.env.iter().map(|(key, _)| key).collect();
        let mut command = f.debug_struct("Command");
        command.field("program", &self.program).field("args", &self.args).field("env", &env).finish_non_exhaustive()
    }
}

/// Where a command runs: in a sandbox of its own, or in a started cell.
#[derive(Debug, Clone)]
pub(super) enum Runner {
    Own(Sandbox),
    Cell(Cell),
    Pool(Pool),
}

impl Runner {
    fn run(&self, command: &mut Command) -> Result<Child> {
        match self {
            Runner::Own(sandbox) => sandbox.run(command),
            Runner::Cell(cell) => cell.run(command),
            Runner::Pool(pool) => pool.run(command),
        }
    }
}

impl Sandbox {
    /// A program to run in a sandbox of its own, made for it and gone with it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Runner::Own(self.clone()), program.as_ref())
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
}

impl Cell {
    /// A program to run in this cell.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Runner::Cell(self.clone()), program.as_ref())
    }
}

impl Pool {
    /// A program to run in a sandbox of its own, of those that are built already; see [`Pool`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Runner::Pool(self.clone()), program.as_ref())
    }
}

impl Command {
    pub(super) fn new(runner: Runner, program: &OsStr) -> Command {
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
            feeds_input: false,
            unset: [Unset::Inherit; 3],
            timeout: None,
            count_output: false,
            changes: false,
            learn: false,
            reports_stops: false,
            direct_files: false,
            ignored: 0,
            is_main: false,
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

    /// Bytes for standard input of every run. `output` and `status` write them into a pipe; a program that is spawned reads
    /// them from a file in memory, and [`Child::stdin`] is `None`. Of a `stdin` set afterwards a run refuses all but a pipe.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Command {
        self.input = Some(bytes.into());
        self.stdin = None;
        self
    }

    /// Wall-clock time for this command, instead of the policy's; `Duration::MAX` is no limit.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Command {
        self.timeout = Some(timeout);
        self
    }

    /// Counts the bytes of stdout and stderr even where they are inherited: they pass through a pipe then.
    pub fn count_output(&mut self, count: bool) -> &mut Command {
        self.count_output = count;
        self
    }

    /// Signals that the program ignores from the start, as under nohup(1): what the caller itself ignores is not inherited.
    /// SIGKILL and SIGSTOP cannot be ignored, and what is no signal is left out. The program `sandcell` names those that it
    /// ignores itself.
    pub fn ignore_signals(&mut self, signals: impl IntoIterator<Item = i32>) -> &mut Command {
        let can_be = |signal: &i32| (1..=64).contains(signal) && ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
        self.ignored = signals.into_iter().filter(can_be).fold(0, |all, signal| all | 1 << (signal - 1));
        self
    }

    /// Gives the program the file itself where its standard output or error goes to a regular file. It can then seek in it,
    /// and cannot open it again as /dev/stdout or /dev/stderr. By default such output passes through a pipe.
    pub fn direct_files(&mut self, direct: bool) -> &mut Command {
        self.direct_files = direct;
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

    /// With a terminal: where the program is stopped, by Ctrl-Z for instance, [`Child::stopped`] tells, and it stays so until the
    /// caller sends SIGCONT to its group. Otherwise a program that Ctrl-Z has stopped goes on at once.
    pub fn report_stops(&mut self, report: bool) -> &mut Command {
        self.reports_stops = report;
        self
    }

    /// What a run refuses of a variable: for front ends whose setters answer at once.
    pub fn check_variable(key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Result<()> {
        check_variable(&key.as_ref().to_owned(), &value.as_ref().to_owned())
    }

    /// The same of the number of a passed descriptor.
    pub fn check_fd_number(number: i32) -> Result<()> {
        if (3..1024).contains(&number) {
            return Ok(());
        }
        let message = format!("{number} is no number for a passed descriptor");
        Err(Failure::new("option", "pass_fd", message).hint("Choose a number from 3 to 1023.").config())
    }

    /// The same of a working directory.
    pub fn check_current_dir(dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        if dir.is_absolute() {
            return Ok(());
        }
        let failure = Failure::new("option", dir.display().to_string(), "the working directory is not absolute");
        Err(failure.hint("begin it with /").config())
    }

    /// Starts the program. Standard streams are inherited by default. As with `std::process`, the command keeps the
    /// descriptors that it was given: drop it before you wait for the end of a pipe of which it has the other end.
    ///
    /// # Errors
    /// [`Error::Exec`](crate::Error::Exec) where the program cannot be executed, [`Error::Setup`](crate::Error::Setup)
    /// where the sandbox cannot be made.
    pub fn spawn(&mut self) -> Result<Child> {
        self.start(false, [Unset::Inherit; 3])
    }

    /// Runs the program to its end.
    pub fn status(&mut self) -> Result<Report> {
        let mut child = self.start(true, [Unset::Inherit; 3])?;
        child.exchange(self.input.as_deref(), None)?;
        child.wait()
    }

    /// Runs the program to its end and captures what it writes. Standard input is /dev/null by default.
    pub fn output(&mut self) -> Result<Output> {
        let mut child = self.start(true, [Unset::Null, Unset::Piped, Unset::Piped])?;
        child.wait_with_output(self.input.as_deref())
    }

    pub(crate) fn start(&mut self, feeds_input: bool, unset: [Unset; 3]) -> Result<Child> {
        (self.feeds_input, self.unset) = (feeds_input, unset);
        let runner = self.runner.clone();
        runner.run(self)
    }

    pub(super) fn options(&self, policy: &Policy) -> Options {
        Options {
            changes: self.changes,
            learn: self.learn,
            counted: self.count_output || policy.output_limit.is_some(),
            terminal_streams: self.terminal_streams(),
            timeout: self.time_limit(policy).map(|timeout| timeout.saturating_add(policy.grace)),
        }
    }

    fn time_limit(&self, policy: &Policy) -> Option<Duration> {
        self.timeout.or(policy.timeout).filter(|timeout| *timeout != Duration::MAX)
    }

    /// The program, as errors name it.
    pub(super) fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// The working directory inside: the command's, the policy's, or the home.
    pub(super) fn working_dir<'a>(&'a self, shared: &'a Shared, home: &'a Path) -> &'a Path {
        self.dir.as_deref().or(shared.resolved.dir.as_deref()).unwrap_or(home)
    }

    /// Puts the request together. All of the caller's mistakes are found here.
    pub(super) fn request(
        &self,
        shared: &Shared,
        init: &Init,
        account: (&str, &Path),
        one_shot: bool,
    ) -> Result<(Request<'_>, Pipes)> {
        let policy = shared.policy();
        let mut bytes = Vec::new();
        let mut fds = Vec::new();
        let terminal = self.terminal()?.map(|setup| self.check_terminal(policy).map(|()| setup)).transpose()?;
        let limits = || policy.rlimits.iter().chain(&shared.rlimits).chain(&init.rlimits);
        let counted = policy.limits.pids.is_some() || limits().any(|limit| limit.0 == Resource::RLIMIT_NPROC);
        self.settings(policy, one_shot, counted).write(&mut bytes);
        let environment = self.environment(&shared.resolved, account, one_shot)?;
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
        let home = if self.is_init(policy, one_shot) { Path::new("/") } else { account.1 };
        let dir = self.working_dir(shared, home);
        Command::check_current_dir(dir)?;
        Ask::WorkDir { path: &string("chdir", dir.as_os_str())? }.write(&mut bytes);
        for (resource, soft, hard) in policy.rlimits.iter().chain(&shared.rlimits) {
            Ask::Rlimit { resource: *resource as u32, soft: *soft, hard: *hard }.write(&mut bytes);
        }
        for (resource, soft, hard) in &init.rlimits {
            // In a cell, and with a terminal, init keeps a process beside each command, which counts as well.
            let more = u64::from((!one_shot || terminal.is_some()) && *resource == Resource::RLIMIT_NPROC);
            Ask::Rlimit { resource: *resource as u32, soft: soft + more, hard: hard + more }.write(&mut bytes);
        }
        if self.ignored != 0 {
            Ask::Ignore { signals: self.ignored }.write(&mut bytes);
        }
        if let Some((size, modes)) = terminal.map(|setup| setup.parts()) {
            let flags = if self.reports_stops { TERMINAL_STOPS } else { 0 };
            Ask::Terminal { streams: self.terminal_streams(), flags, size, modes }.write(&mut bytes);
        }
        let counts = self.count_output || policy.output_limit.is_some();
        let pipes = self.streams(counts, &mut bytes, &mut fds)?;
        if let Some(group) = self.system(shared, init, one_shot, fds.len() as u32 + 2, &mut bytes)? {
            fds.push(Passed::Made(group));
        }
        for (fd, number) in &self.pass {
            Command::check_fd_number(*number)?;
            refuse_directory(fd.as_fd())?;
            Ask::Descriptor { index: fds.len() as u32 + 2, number: *number as u32 }.write(&mut bytes);
            fds.push(Passed::Given(fd.as_fd()));
        }
        match fds.len() {
            0..=200 => Ok((Request { bytes, fds }, pipes)),
            _ => Err(Failure::new("option", "pass_fd", "more than 200 descriptors").config()),
        }
    }

    fn settings(&self, policy: &Policy, one_shot: bool, counted: bool) -> Ask<'static> {
        let mut flags = 0;
        if one_shot {
            flags |= ASK_ONE_SHOT;
        }
        if self.count_output {
            flags |= ASK_COUNT;
        }
        if policy.leftovers.are_listed() {
            flags |= ASK_LEFTOVERS;
        }
        if !counted {
            flags |= ASK_UNCOUNTED;
        }
        let millis = |time: Duration| u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX / 2_000_000);
        Ask::Settings {
            flags,
            umask: policy.umask,
            timeout: self.time_limit(policy).map_or(0, |t| millis(t).max(1)),
            grace: millis(policy.grace),
            output_limit: policy.output_limit.unwrap_or(0),
        }
    }

    fn streams<'a>(&'a self, counts: bool, bytes: &mut Vec<u8>, fds: &mut Vec<Passed<'a>>) -> Result<Pipes> {
        let mut pipes = Pipes::default();
        let mut sent = Vec::new();
        let streams = [self.standard_input()?, self.stdout.as_ref(), self.stderr.as_ref()];
        let terminal = self.terminal_streams();
        for ((stdio, unset), number) in streams.into_iter().zip(self.unset).zip(0u32..) {
            if terminal >> number & 1 == 1 {
                continue;
            }
            let counted = counts && number > 0;
            let fd = match (stdio, unset) {
                (None, _) if number == 0 && self.input.is_some() => Some(self.input_end(&mut pipes)?),
                (Some(Stdio::Null), _) | (None, Unset::Null) if counted => Some(Passed::Made(streams::null_device()?)),
                // A terminal was left out above.
                (Some(Stdio::Null | Stdio::Terminal(_)), _) | (None, Unset::Null) => None,
                (Some(Stdio::Inherit), _) | (None, Unset::Inherit) => inherited(number)?,
                (Some(Stdio::Fd(fd)), _) => Some(Passed::Given(fd.as_fd())),
                (Some(Stdio::Piped), _) | (None, Unset::Piped) => Some(Passed::Made(pipe(number, &mut pipes)?)),
            };
            let examined = fd.as_ref().map(|fd| Examined::new(fd.as_fd())).transpose()?;
            match fd.zip(examined) {
                // What is counted passes through init, wherever it goes.
                Some((fd, examined)) if counted || !examined.is_null_device() => {
                    examined.refuse_directory(fd.as_fd())?;
                    examined.allow_reopening(fd.as_fd(), number)?;
                    // Behind the request itself and the command's socket.
                    Ask::Descriptor { index: fds.len() as u32 + 2, number }.write(bytes);
                    sent.push((number, fds.len(), examined));
                    fds.push(fd);
                }
                // The sandbox has a /dev/null of its own, which programs may open again as /dev/stdout.
                _ => Ask::Null { number }.write(bytes),
            }
        }
        let outputs = sent.into_iter().filter(|(number, ..)| *number > 0);
        let outputs: Vec<_> = outputs.map(|(number, at, examined)| (number, fds[at].as_fd(), examined)).collect();
        let streams = streams::relayed(&outputs, self.direct_files)?;
        Ask::Relay { streams }.write(bytes);
        Ok(pipes)
    }
}

pub(super) fn string(what: &'static str, text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| Failure::new("option", what, format!("{text:?} contains a NUL byte")).hint(NO_NUL).config())
}
