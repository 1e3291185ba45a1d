//! What is alive: the supervisor of a sandbox, the programs in it, and the cells that hold many of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};

use crate::changes::{self, Change};
use crate::command::{Command, Pipes};
use crate::error::{Failure, Result};
use crate::identity::{Assigned, UserNamespace};
use crate::launch::Started;
use crate::limits::{Closed, Placed, Placement, Rlimit};
use crate::outcome::{Enforced, IdentityReport, Leftover, Mechanism, Outcome, Output, Report, Usage};
use crate::plan::Plan;
use crate::policy::{Leftovers, Limits};
use crate::remains::{Remains, Stuck};
use crate::sandbox::{Runner, Shared, send_request, setup_failure};
use crate::sys;
use crate::syscalls;
use crate::upper::DiskUpper;
use crate::wire::{self, Reply, command, reply, stage};

/// The groups of a sandbox while it lives, and what they came to when it is over.
#[derive(Debug)]
enum Group {
    None,
    Live(Placement),
    Over { closed: Closed, oom: bool },
}

/// How much longer than timeout and grace the supervisor may take before the sandbox is ended from outside: it can be
/// held up by a terminal that takes no output, or by a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a sandbox that was told to end is waited for: its memory may take a while, but what waits in the kernel for a
/// file system that does not answer ends when that does, and not before. See `remains.rs`.
const DEATH: Duration = Duration::from_secs(5);

/// How long init may take to say of a program that it has ended.
const MOMENT: Duration = Duration::from_millis(100);

/// The supervisor of one sandbox. Everything in it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Init {
    pub control: OwnedFd,
    pub pidfd: OwnedFd,
    pub identity: Assigned,
    pub enforced: Vec<Enforced>,
    pub upper: Option<OwnedFd>,
    /// Resource limits that stand in for limits of a group.
    pub rlimits: Vec<Rlimit>,
    group: Mutex<Group>,
    over: AtomicBool,
    /// The caller has ended it.
    killed: AtomicBool,
    /// It was waited for in vain.
    lives_on: AtomicBool,
    /// Where it goes then.
    stuck: Arc<Stuck>,
    /// Held, or kept from others, until everything in it is gone.
    disk_upper: Option<DiskUpper>,
    /// The process that made it: a copy of it in a forked process must not end it.
    owner: u32,
}

impl Init {
    pub(crate) fn new(
        started: Started,
        identity: Assigned,
        enforced: Vec<Enforced>,
        placed: Placed,
        upper: Option<DiskUpper>,
        stuck: Arc<Stuck>,
    ) -> Init {
        let group = Mutex::new(placed.placement.map_or(Group::None, Group::Live));
        let rlimits = placed.rlimits;
        let Started { control, pidfd } = started;
        Init {
            control,
            pidfd,
            identity,
            enforced,
            upper: None,
            rlimits,
            group,
            over: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            lives_on: AtomicBool::new(false),
            stuck,
            disk_upper: upper,
            owner: std::process::id(),
        }
    }

    pub(crate) fn receive(&self) -> Result<Option<sys::Heard>> {
        sys::receive(self.control.as_fd()).map_err(talking)
    }

    /// Waits until the sandbox and everything in it is gone, and takes the last figures of its groups. It must have been
    /// told to end. Once only where it does not.
    fn reap(&self) {
        if !self.over.load(Ordering::Acquire) {
            let patience = if self.lives_on.load(Ordering::Acquire) { Duration::ZERO } else { DEATH };
            let ended = sys::wait_readable(&[self.pidfd.as_fd()], Some(Instant::now() + patience));
            if ended.is_ok_and(|ended| !ended[0]) {
                self.lives_on.store(true, Ordering::Release);
            } else if !self.over.swap(true, Ordering::AcqRel) {
                sys::reap(self.pidfd.as_fd());
            }
        }
        let mut group = self.group();
        if matches!(*group, Group::Live(_))
            && let Group::Live(placement) = std::mem::replace(&mut *group, Group::None)
        {
            let oom = placement.oom_killed();
            *group = Group::Over { closed: placement.close(), oom };
        }
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the memory limit has ended a process of the sandbox, at any depth.
    fn out_of_memory(&self) -> bool {
        match &*self.group() {
            Group::None => false,
            Group::Live(placement) => placement.oom_killed(),
            Group::Over { oom, .. } => *oom,
        }
    }

    /// What the groups have counted; theirs are the better figures.
    fn count(&self, usage: &mut Usage) {
        match &*self.group() {
            Group::None => {}
            Group::Live(placement) => placement.usage().fill(usage),
            Group::Over { closed, .. } => closed.usage.fill(usage),
        }
    }

    /// What went wrong in cleaning up.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.lives_on.load(Ordering::Acquire) && !self.over.load(Ordering::Acquire) {
            let what = "a process of it was killed and lives on: it waits in the kernel, for a file system that does not answer?";
            warnings.push(what.to_owned());
        }
        if let Group::Over { closed: Closed { removed: Err(error), .. }, .. } = &*self.group() {
            warnings.push(error.to_string());
        }
        warnings
    }

    /// Where a process joins the groups of the sandbox, by writing "0".
    pub(crate) fn entrances(&self) -> Result<Vec<OwnedFd>> {
        let Group::Live(placement) = &*self.group() else { return Ok(Vec::new()) };
        let copies = placement.join().iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>();
        let mut all = copies.map_err(|_| crate::launch::descriptors(Errno::last()))?;
        all.extend(placement.join_v2()?);
        Ok(all)
    }

    /// What the groups of the sandbox can be told while it lives.
    fn control<T>(&self, act: impl FnOnce(&mut Placement) -> Result<T>) -> Result<T> {
        match &mut *self.group() {
            Group::Live(placement) => act(placement),
            _ => Err(Failure::new("cgroup", "cell", "it has no cgroup")
                .hint("start it with a limit, on a host where the caller has cgroups")
                .unsupported()),
        }
    }

    /// What is enforced, less what somebody has taken away meanwhile.
    fn still_enforced(&self) -> Vec<Enforced> {
        let mut list = self.enforced.clone();
        if let Group::Over { closed, .. } = &*self.group() {
            for (item, why) in &closed.lost {
                for line in list.iter_mut().filter(|line| line.item == *item) {
                    line.by = Mechanism::Nothing;
                    line.why = Some(why.clone());
                }
            }
        }
        list
    }

    fn kill(&self) {
        if matches!(self.identity.namespace, UserNamespace::Absent) {
            // Nothing ends with this supervisor but what it ends itself.
            let _ = shutdown(self.control.as_raw_fd(), Shutdown::Both);
            if sys::wait_readable(&[self.pidfd.as_fd()], Some(Instant::now() + PATIENCE)).is_ok_and(|ready| ready[0]) {
                return;
            }
        }
        let _ = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// The supervisor ended without a word.
    pub(crate) fn lost(&self, stage: &'static str) -> crate::Error {
        self.kill();
        self.reap();
        if self.out_of_memory() {
            let message =
                "the limit is too small for the sandbox itself, which was killed for memory before it was done";
            return Failure::new(stage, "memory", message).hint("raise `memory`: 1 MiB is enough to start").setup();
        }
        Failure::new(stage, "supervisor", "ended without a word: something outside killed it")
            .hint("look for an out-of-memory kill in the kernel's log")
            .io()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            std::mem::forget(std::mem::replace(&mut *self.group(), Group::None));
            return;
        }
        if !self.over.load(Ordering::Acquire) {
            self.kill();
            self.reap();
        }
        if !self.over.load(Ordering::Acquire) {
            let (lease, upper) = (self.identity.take_lease(), self.disk_upper.take());
            match self.pidfd.try_clone() {
                Ok(pidfd) => self.stuck.keep(Remains { pidfd, _lease: lease, _upper: upper }),
                Err(_) => std::mem::forget((lease, upper)),
            }
        }
    }
}

fn talking(errno: Errno) -> crate::Error {
    Failure::new("protocol", "supervisor", "cannot talk with it")
        .errno(errno as i32)
        .hint("the sandbox is out of reach and will be ended: start another")
        .io()
}

/// What a command asked for that matters until its end.
pub(crate) struct Options {
    pub changes: bool,
    pub learn: bool,
    pub counted: bool,
    /// Timeout and grace together.
    pub timeout: Option<Duration>,
}

/// A program that runs in a sandbox. Dropping it ends the program; a one-shot sandbox ends with it.
#[derive(Debug)]
pub struct Child {
    /// The program's standard input, if it was asked to be a pipe.
    pub stdin: Option<ChildStdin>,
    /// The program's standard output, if it was asked to be a pipe.
    pub stdout: Option<ChildStdout>,
    /// The program's standard error, if it was asked to be a pipe.
    pub stderr: Option<ChildStderr>,
    shared: Arc<Shared>,
    init: Arc<Init>,
    socket: Arc<OwnedFd>,
    /// Of the program itself; a one-shot sandbox ends with its supervisor.
    pidfd: Option<OwnedFd>,
    one_shot: bool,
    changes: bool,
    counted: bool,
    since: Instant,
    /// When a program with a timeout must be over at the latest.
    overdue: Option<Instant>,
    pid: u32,
    leftovers: Vec<Leftover>,
    /// The numbers of the calls that were made, where that was asked for.
    calls: Option<Vec<u32>>,
    report: Option<Report>,
}

impl Child {
    pub(crate) fn new(
        shared: Arc<Shared>,
        init: Arc<Init>,
        socket: OwnedFd,
        pipes: Pipes,
        one_shot: bool,
        options: &Options,
    ) -> Child {
        Child {
            stdin: pipes.stdin.map(ChildStdin::from),
            stdout: pipes.stdout.map(ChildStdout::from),
            stderr: pipes.stderr.map(ChildStderr::from),
            shared,
            init,
            socket: Arc::new(socket),
            pidfd: None,
            one_shot,
            changes: options.changes,
            counted: options.counted,
            since: Instant::now(),
            overdue: options.timeout.and_then(|timeout| Instant::now().checked_add(timeout + PATIENCE)),
            pid: 0,
            leftovers: Vec::new(),
            calls: None,
            report: None,
        }
    }

    /// Waits until the program runs, or learns why it does not.
    pub(crate) fn started(&mut self, plan: &Plan, program: &str) -> Result<()> {
        let ready = sys::wait_readable(&[self.socket.as_fd(), self.init.control.as_fd()], None).map_err(talking)?;
        if ready[0]
            && let Some((reply, _, pidfd)) = sys::receive(self.socket.as_fd()).map_err(talking)?
        {
            return match reply.kind {
                reply::STARTED => {
                    self.pid = reply.value;
                    self.pidfd = pidfd;
                    Ok(())
                }
                reply::NOT_STARTED => Err(not_started(program, &reply)),
                _ => Err(talking(Errno::EPROTO)),
            };
        }
        match self.init.receive()? {
            Some((reply, ..)) if reply.kind == reply::FAILED => {
                self.init.reap();
                Err(setup_failure(plan, &reply))
            }
            _ => Err(self.init.lost("start")),
        }
    }

    /// The program's process number inside the sandbox.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Who the program is.
    pub fn identity(&self) -> IdentityReport {
        identity_report(&self.init.identity)
    }

    /// What is enforced, and by what.
    pub fn enforced(&self) -> &[Enforced] {
        &self.init.enforced
    }

    /// Something that can signal and end this program from any thread.
    pub fn controller(&self) -> Controller {
        Controller { socket: self.socket.clone() }
    }

    /// Sends a signal to the program. No error if it has ended already.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.controller().signal(signal)
    }

    /// Ends the program and all that it started, at once. `wait` tells what came of it.
    pub fn kill(&self) -> Result<()> {
        self.controller().kill()
    }

    /// Waits for the end. A pipe for standard input that is still here is closed first, as `std::process` does.
    pub fn wait(&mut self) -> Result<Report> {
        drop(self.stdin.take());
        match self.wait_until(None)? {
            Some(report) => Ok(report),
            None => Err(self.init.lost("wait")),
        }
    }

    /// Waits for the end, but not longer than this; `None` if it still runs.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Report>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Whether it has ended. With an output limit, or where output is counted, a program has not ended before what it
    /// wrote is read.
    pub fn try_wait(&mut self) -> Result<Option<Report>> {
        self.wait_timeout(Duration::ZERO)
    }

    fn wait_until(&mut self, until: Option<Instant>) -> Result<Option<Report>> {
        while self.report.is_none() {
            let soonest = [until, self.overdue].into_iter().flatten().min();
            let ready = sys::wait_readable(&[self.socket.as_fd()], soonest).map_err(talking)?;
            if ready[0] {
                self.hear()?;
                continue;
            }
            if self.pidfd.as_ref().is_some_and(|pidfd| sys::is_readable(pidfd.as_fd())) {
                // It has ended: what init has to say of it is on its way, but for output that somebody has yet to read.
                let moment = Instant::now().checked_add(MOMENT).max(soonest);
                if sys::wait_readable(&[self.socket.as_fd()], moment).map_err(talking)?[0] {
                    continue;
                }
            }
            if !self.give_up()? {
                return Ok(None);
            }
        }
        Ok(self.report.clone())
    }

    /// What can be told of a program whose supervisor is gone.
    fn watched(&self) -> Usage {
        Usage { wall: self.since.elapsed(), ..Usage::default() }
    }

    /// Ends a sandbox whose supervisor should have ended the program by now. Whether that time has come.
    fn give_up(&mut self) -> Result<bool> {
        let overdue = self.overdue.is_some_and(|overdue| Instant::now() >= overdue);
        if overdue {
            self.init.killed.store(true, Ordering::Release);
            self.init.kill();
            self.init.reap();
            self.report = Some(self.report(Outcome::TimedOut, self.watched())?);
        }
        Ok(overdue)
    }

    /// Takes in what init has to say next.
    fn hear(&mut self) -> Result<()> {
        let heard = sys::receive(self.socket.as_fd()).map_err(talking)?;
        let report = match heard {
            Some((reply, text, _)) if reply.kind == reply::LEFTOVER => {
                let command = String::from_utf8_lossy(&text).into_owned();
                self.leftovers.push(Leftover { pid: reply.value, command });
                return Ok(());
            }
            Some((reply, bits, _)) if reply.kind == reply::CALLS => {
                let set = |call: &u32| bits.get(*call as usize / 8).is_some_and(|byte| byte >> (call % 8) & 1 == 1);
                self.calls = Some((0..bits.len() as u32 * 8).filter(set).collect());
                return Ok(());
            }
            Some((reply, ..)) if reply.kind == reply::ENDED => {
                if self.one_shot {
                    self.init.reap();
                }
                let outcome = match outcome(&reply, self.shared.filter.is_some()) {
                    // Whether the program itself was the victim or something that it started.
                    Outcome::Exited(_) if self.one_shot && self.init.out_of_memory() => Outcome::OutOfMemory,
                    Outcome::Signaled { .. } if self.init.out_of_memory() => Outcome::OutOfMemory,
                    other => other,
                };
                let mut report = self.report(outcome, usage(&reply, self.counted));
                if let (Ok(report), true) = (&mut report, reply.errno != 0) {
                    let why = Errno::from_raw(reply.errno);
                    report.warnings.push(format!("output of the program was lost, it could not be written: {why}"));
                }
                report
            }
            Some(_) => return Err(talking(Errno::EPROTO)),
            // The supervisor is gone without a word: with the group that it was in, or because the cell was ended.
            None if self.init.out_of_memory() => {
                self.init.reap();
                self.report(Outcome::OutOfMemory, self.watched())
            }
            None if self.one_shot => return Err(self.init.lost("wait")),
            // The cell was ended while the program ran.
            None if !self.init.killed.load(Ordering::Acquire) => return Err(self.init.lost("wait")),
            None => self.report(Outcome::Killed, self.watched()),
        };
        self.report = Some(report?);
        Ok(())
    }

    fn report(&mut self, outcome: Outcome, mut usage: Usage) -> Result<Report> {
        if self.one_shot {
            self.init.count(&mut usage);
        }
        let changes = match (&self.init.upper, self.changes) {
            (Some(upper), true) => Some(changes::list(upper.as_fd(), &self.shared.policy, &self.init.identity)?),
            _ => None,
        };
        Ok(Report {
            outcome,
            usage,
            identity: self.identity(),
            enforced: self.init.still_enforced(),
            leftovers: std::mem::take(&mut self.leftovers),
            leftovers_fail: self.shared.policy.leftovers == Leftovers::Fail,
            changes,
            learned: self
                .calls
                .as_deref()
                .map(|calls| self.shared.profile().narrowed(&self.shared.policy.cap_add, calls)),
            warnings: self.init.warnings(),
        })
    }

    /// Closes standard input, reads both outputs to their end and waits. What a process that outlives the program in
    /// a cell writes later is not waited for.
    pub fn wait_with_output(&mut self, input: Option<&[u8]>) -> Result<Output> {
        let (stdout, stderr) = self.exchange(input, None)?.unwrap_or_default();
        let mut report = self.wait()?;
        report.usage.output_bytes.get_or_insert((stdout.len() + stderr.len()) as u64);
        Ok(Output { stdout, stderr, report })
    }

    /// Writes the input and reads the outputs, whichever are pipes, until the program has ended. `None` if the time
    /// came first; what has been read by then is lost.
    pub(crate) fn exchange(
        &mut self,
        input: Option<&[u8]>,
        until: Option<Instant>,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut stdin = self.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let mut rest = input.unwrap_or_default();
        if rest.is_empty() {
            stdin = None;
        }
        let mut outputs = [
            self.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))),
            self.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))),
        ];
        for pipe in outputs.iter().flatten().chain(&stdin) {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(talking)?;
        }
        let mut read = [Vec::new(), Vec::new()];
        loop {
            let ended = self.report.is_some();
            let mut wanted = Vec::new();
            if !ended {
                wanted.push((self.socket.as_fd(), PollFlags::POLLIN));
            }
            wanted.extend(outputs.iter().flatten().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)));
            wanted.extend(stdin.iter().map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)));
            if ended {
                // What is in the pipes now is all that belongs to the program.
                drain(&mut outputs, &mut read);
                let [stdout, stderr] = read;
                return Ok(Some((stdout, stderr)));
            }
            let soonest = [until, self.overdue].into_iter().flatten().min();
            let ready = sys::wait(&wanted, soonest).map_err(talking)?;
            if !ready.contains(&true) {
                if !self.give_up()? {
                    return Ok(None);
                }
                continue;
            }
            let heard = ready[0];
            drain(&mut outputs, &mut read);
            if let Some(pipe) = &mut stdin {
                match pipe.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    // The program does not want it: not our error.
                    Err(_) => rest = &[],
                }
                if rest.is_empty() {
                    stdin = None;
                }
            }
            if heard {
                self.hear()?;
            }
        }
    }
}

/// Reads what is there without waiting; a stream that is at its end is dropped.
fn drain(outputs: &mut [Option<File>; 2], read: &mut [Vec<u8>; 2]) {
    for (output, bytes) in outputs.iter_mut().zip(read) {
        if let Some(pipe) = output
            // Reads until the pipe is empty (an error that says so) or closed.
            && pipe.read_to_end(bytes).is_ok()
        {
            *output = None;
        }
    }
}

impl AsFd for Child {
    /// A pidfd: readable when the program has ended (and, if it was alone, its sandbox with it).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().unwrap_or(&self.init.pidfd).as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.report.is_none() {
            let _ = self.kill();
        }
    }
}

/// Signals and ends a program, from any thread.
#[derive(Debug, Clone)]
pub struct Controller {
    socket: Arc<OwnedFd>,
}

impl Controller {
    /// Sends a signal to the program. No error if it has ended already.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new("option", "signal", format!("{signal} is no signal")).hint("1 to 64").config());
        }
        self.tell(command::SIGNAL, signal as u32)
    }

    /// Ends the program and all that it started.
    pub fn kill(&self) -> Result<()> {
        self.tell(command::KILL, 0)
    }

    fn tell(&self, kind: u32, value: u32) -> Result<()> {
        match sys::send(self.socket.as_fd(), kind, value) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Ok(()),
            Err(errno) => Err(talking(errno)),
        }
    }
}

/// A started sandbox in which many programs can be run. Clones share it; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Cell {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    shared: Arc<Shared>,
    init: Arc<Init>,
    plan: Plan,
}

impl Cell {
    pub(crate) fn new(shared: Arc<Shared>, init: Init, plan: Plan) -> Cell {
        Cell { inside: Arc::new(Inside { shared, init: Arc::new(init), plan }) }
    }

    /// A program to run in this cell.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(Runner::Cell(self.clone()), program.as_ref())
    }

    /// Who its programs are.
    pub fn identity(&self) -> IdentityReport {
        identity_report(&self.inside.init.identity)
    }

    /// What is enforced, and by what.
    pub fn enforced(&self) -> &[Enforced] {
        &self.inside.init.enforced
    }

    /// The files that differ from the layers so far. Empty for a root that is no overlay.
    pub fn changes(&self) -> Result<Vec<Change>> {
        match &self.inside.init.upper {
            Some(upper) => changes::list(upper.as_fd(), &self.inside.shared.policy, &self.inside.init.identity),
            None => Ok(Vec::new()),
        }
    }

    /// What the cell has used so far, as far as its cgroups count it.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.inside.init.count(&mut usage);
        usage
    }

    /// Stops everything in it until `thaw`. It needs a cgroup: start the cell with a limit.
    pub fn freeze(&self) -> Result<()> {
        self.inside.init.control(|group| group.freeze())
    }

    /// Lets everything in it go on.
    pub fn thaw(&self) -> Result<()> {
        self.inside.init.control(|group| group.thaw())
    }

    /// Changes the limits that are named; the others stay. Only kinds of limits that it was started with.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        self.inside.init.control(|group| group.update(limits))
    }

    /// Ends it now and everything in it, whoever else holds a clone.
    pub fn kill(&self) {
        self.inside.init.killed.store(true, Ordering::Release);
        self.inside.init.kill();
        self.inside.init.reap();
    }

    /// What its programs share, its supervisor and how it was made.
    pub(crate) fn parts(&self) -> (&Shared, &Init, &Plan) {
        (&self.inside.shared, &self.inside.init, &self.inside.plan)
    }

    pub(crate) fn run(&self, request: &mut Command) -> Result<Child> {
        let Inside { shared, init, plan } = &*self.inside;
        if request.options(&shared.policy).learn {
            return Err(Failure::new("option", "learn", "the programs of a cell share one system call filter")
                .hint("learn from a program in a sandbox of its own: `sandbox.command(..)`")
                .config());
        }
        let (ready, pipes) = request.request(shared, init, (&plan.user, &plan.home), false)?;
        let socket = send_request(init, &ready.bytes, ready.fds)?;
        let mut child =
            Child::new(shared.clone(), init.clone(), socket, pipes, false, &request.options(&shared.policy));
        child.started(plan, &request.program())?;
        Ok(child)
    }
}

impl AsFd for Cell {
    /// A pidfd: readable when the cell has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.init.pidfd.as_fd()
    }
}

fn identity_report(identity: &Assigned) -> IdentityReport {
    let &Assigned { uid, gid, host_uid, host_gid, .. } = identity;
    IdentityReport { uid, gid, host_uid, host_gid }
}

/// A start that failed after the sandbox was built.
fn not_started(program: &str, reply: &Reply) -> crate::Error {
    let (name, words) = stage::describe(reply.detail);
    let failure = Failure::new(name, program, words).errno(reply.errno);
    match (reply.detail, Errno::from_raw(reply.errno)) {
        (stage::PROGRAM_EXEC, Errno::ENOENT) => {
            failure.hint("the path is one inside the sandbox; show it there with `ro`").exec()
        }
        (stage::PROGRAM_EXEC, Errno::EACCES) => {
            failure.hint("is it executable, and may its directories be entered?").exec()
        }
        (stage::PROGRAM_EXEC, Errno::E2BIG) => failure.hint("arguments and environment are too long together").exec(),
        (stage::PROGRAM_INTERPRETER, _) => failure.hint("look at its first line, or at its dynamic linker").exec(),
        (stage::PROGRAM_EXEC, Errno::ENOEXEC) => {
            failure.hint("neither a binary for this machine nor a script with `#!` in its first line").exec()
        }
        (stage::PROGRAM_EXEC, _) => failure.exec(),
        (stage::PROGRAM_CHDIR, _) => failure.hint("the working directory is one inside the sandbox").setup(),
        (stage::PROGRAM_SECCOMP, Errno::EBUSY) => failure
            .hint("something around the caller listens to its system calls already, and the kernel allows one listener")
            .unsupported(),
        (stage::CLONE, Errno::EAGAIN) => failure.hint("RLIMIT_NPROC or a pids limit of the caller is reached").setup(),
        (stage::TOO_MANY, _) => failure.hint("wait until one has ended, or start another cell").setup(),
        (stage::PROGRAM_RLIMIT, Errno::EPERM) => failure.hint("the caller's own hard limit is lower").setup(),
        _ => failure.setup(),
    }
}

fn outcome(reply: &Reply, filtered: bool) -> Outcome {
    let status = reply.value.cast_signed();
    match reply.detail {
        flags if flags & wire::ENDED_DENIED != 0 => Outcome::SyscallDenied { syscall: name_of_call(reply.call) },
        flags if flags & wire::ENDED_OUTPUT_LIMIT != 0 => Outcome::OutputLimit,
        flags if flags & wire::ENDED_TIMED_OUT != 0 => Outcome::TimedOut,
        flags if flags & wire::ENDED_KILLED != 0 => Outcome::Killed,
        // The filter's own signal: for a foreign ABI, by SCMP_ACT_TRAP, or where no listener can be had.
        _ if filtered && libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS => {
            Outcome::SyscallDenied { syscall: "unknown".to_owned() }
        }
        _ if libc::WIFSIGNALED(status) => {
            Outcome::Signaled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        }
        _ => Outcome::Exited(libc::WEXITSTATUS(status)),
    }
}

/// A call by its name, or by its number where it has none here.
fn name_of_call(call: u64) -> String {
    const X86_64: u64 = 0xc000_003e;
    let number = call as u32;
    match (call >> 32, syscalls::name_of(number)) {
        (X86_64, Some(name)) => name.to_owned(),
        (X86_64, None) => number.to_string(),
        (architecture, _) => format!("{number} of the ABI {architecture:#x}"),
    }
}

fn usage(reply: &Reply, counted: bool) -> Usage {
    Usage {
        wall: Duration::from_nanos(reply.wall_ns),
        user: Duration::from_micros(reply.user_us),
        system: Duration::from_micros(reply.system_us),
        memory_peak_bytes: Some(reply.max_rss_kb.saturating_mul(1024)),
        output_bytes: counted.then_some(reply.output),
        ..Usage::default()
    }
}
