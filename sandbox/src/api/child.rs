//! The programs that run in a sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::kernel_names::Resource;
use nix::errno::Errno;

use crate::api::shared::Shared;
use crate::api::streams::Pipes;
use crate::error::{Failure, Result};
use crate::ids::{Assigned, UserNamespace};
use crate::overlay::changes;
use crate::plan::{Plan, setup_failure};
use crate::policy::Seccomp;
use crate::report::{Enforced, IdentityReport, Leftover, NetworkReport, Outcome, Published, Report, TimeLimit, Usage};
use crate::supervise::controller::{Controller, Line, Pid};
use crate::supervise::ended::{not_started, outcome, usage};
use crate::supervise::ending::Ending;
use crate::supervise::init::{Init, Keeper, PATIENCE, START_UP, talking};
use crate::supervise::terminal::Terminal;
use crate::supervise::unkillable::STILL;
use crate::sys;
use crate::sys::procfs;
use crate::wire::{self, Reply, reply};

/// How much longer than timeout and grace the supervisor may take before the sandbox is ended from outside: it can be
/// held up by a file system that does not answer. Output that nobody takes is its own affair for less than that.
const LATE: Duration = Duration::from_millis(500);

/// How long init may take to say of a program that it has ended.
const MOMENT: Duration = Duration::from_millis(100);

/// What a command asked for that matters until its end.
pub(crate) struct Options {
    pub changes: bool,
    pub learn: bool,
    pub counted: bool,
    /// Bit n: standard stream n is a terminal.
    pub terminal_streams: u32,
    /// Timeout and grace together.
    pub timeout: Option<Duration>,
}

/// A program that runs in a sandbox. Dropping it ends the program; a one-shot sandbox ends with it.
///
/// ```
/// use sandcell::{Outcome, Sandbox, Stdio};
///
/// let sandbox = Sandbox::builder().build()?;
/// let mut child = sandbox.command("sleep").arg("1000").stdout(Stdio::Null).spawn()?;
/// assert!(child.try_wait()?.is_none());
/// child.kill()?;
/// assert_eq!(child.wait()?.outcome, Outcome::Killed);
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug)]
pub struct Child {
    /// The program's standard input, if it was asked to be a pipe.
    pub stdin: Option<ChildStdin>,
    /// The program's standard output, if it was asked to be a pipe.
    pub stdout: Option<ChildStdout>,
    /// The program's standard error, if it was asked to be a pipe.
    pub stderr: Option<ChildStderr>,
    /// The other end of the program's terminal, if it was asked for with [`Stdio::terminal`](crate::Stdio::terminal).
    pub terminal: Option<Terminal>,
    pub(crate) terminal_streams: u32,
    /// The signal that has stopped it, until somebody asks.
    stopped: Option<i32>,
    reading: Option<bool>,
    /// The end of its input was typed already.
    pub(crate) typed_end: bool,
    shared: Arc<Shared>,
    init: Arc<Init>,
    pub(crate) controller: Controller,
    /// Of the program itself; a one-shot sandbox ends with its supervisor.
    pidfd: Option<Arc<OwnedFd>>,
    one_shot: bool,
    changes: bool,
    counted: bool,
    since: Instant,
    /// Timeout, grace and patience together.
    allowed: Option<Duration>,
    /// In a cell: room for its keeper beside the programs that `pids` counts.
    keeper: Option<Keeper>,
    /// When a program with a timeout must be over at the latest.
    pub(crate) overdue: Option<Instant>,
    pid: u32,
    leftovers: Vec<Leftover>,
    /// The numbers of the calls that were made, where that was asked for.
    calls: Option<Vec<u32>>,
    /// What was read of its outputs before a deadline came.
    pub(crate) gathered: [Vec<u8>; 3],
    /// Who waits for the end of its supervisor, where that is not this one.
    ending: Option<Arc<Ending>>,
    /// Of each output only so much of its end is kept.
    pub(crate) tail: usize,
    pub(crate) report: Option<Report>,
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
            terminal: None,
            terminal_streams: options.terminal_streams,
            stopped: None,
            reading: None,
            typed_end: false,
            shared,
            controller: Controller {
                line: Arc::new(Line { socket, heard: AtomicBool::new(false), over: AtomicBool::new(false) }),
                init: Arc::downgrade(&init),
                pidfd: init.pidfd.clone(),
                pid: Pid::Unknown,
                killed: Arc::default(),
            },
            init,
            pidfd: None,
            one_shot,
            changes: options.changes,
            counted: options.counted,
            since: Instant::now(),
            allowed: options.timeout.and_then(|timeout| timeout.checked_add(LATE)),
            overdue: None,
            keeper: None,
            pid: 0,
            leftovers: Vec::new(),
            calls: None,
            gathered: Default::default(),
            ending: None,
            tail: usize::MAX,
            report: None,
        }
    }

    /// A program whose time has passed in a frozen cell.
    pub(crate) fn never_started(
        shared: Arc<Shared>,
        init: Arc<Init>,
        pipes: Pipes,
        options: &Options,
    ) -> Result<Child> {
        let (socket, _) = sys::message_sockets().map_err(talking)?;
        let mut child = Child::new(shared, init, socket, pipes, false, options);
        child.end_with(Outcome::TimedOut)?;
        Ok(child)
    }

    /// When the program has ended, with all that it started, its supervisor's own end is not waited for.
    pub(crate) fn leave_end_to(&mut self, ending: Arc<Ending>) {
        self.ending = Some(ending);
    }

    pub(crate) fn keep(&mut self, keeper: Keeper) {
        self.keeper = Some(keeper);
    }

    /// Waits until the program runs, or learns why it does not. Building a sandbox may take its time; the supervisor of a
    /// cell has nothing to do but to start the program.
    pub(crate) fn started(&mut self, plan: &Plan, program: &str, dir: &Path) -> Result<()> {
        let from_now = |time: Duration| Instant::now().checked_add(time);
        let allowed = self.allowed.filter(|allowed| !self.one_shot && *allowed < START_UP);
        let until = from_now(allowed.unwrap_or(START_UP));
        // The answers of a keeper are for those who have asked it.
        let other = if self.init.is_kept() { self.init.pidfd.as_fd() } else { self.init.control.as_fd() };
        let watched = [self.controller.line.socket.as_fd(), other];
        let mut ready = sys::wait_readable(&watched, until).map_err(talking)?;
        self.overdue = self.allowed.and_then(from_now);
        while ready[0]
            && let Some((reply, _, pidfd)) = sys::receive(watched[0]).map_err(talking)?
        {
            return match reply.kind {
                reply::TERMINAL if self.terminal_streams != 0 && self.terminal.is_none() => {
                    let master = pidfd.ok_or(Errno::EPROTO).and_then(Terminal::new);
                    self.terminal = Some(master.map_err(talking)?);
                    ready = sys::wait_readable(&watched, until).map_err(talking)?;
                    continue;
                }
                reply::STARTED => {
                    self.pid = reply.value;
                    self.pidfd = pidfd.map(Arc::new);
                    self.controller.pid = match self.pidfd {
                        Some(_) => Pid::OfPidfd,
                        None if matches!(self.init.identity.namespace, UserNamespace::Absent) => Pid::Same(self.pid),
                        None => Pid::ChildOfPidfd(self.pid),
                    };
                    self.controller.pidfd = self.pidfd.as_ref().unwrap_or(&self.init.pidfd).clone();
                    Ok(())
                }
                reply::NOT_STARTED => Err(not_started(program, dir, &reply)),
                _ => Err(talking(Errno::EPROTO)),
            };
        }
        if !ready[0] && !ready[1] {
            if allowed.is_none() {
                return Err(self.init.too_slow("start", program));
            }
            self.overdue = Some(Instant::now());
            return self.give_up().map(|_| ());
        }
        if self.init.is_kept() {
            return Err(self.init.lost("start"));
        }
        // Who has let go of our socket has something to say on the other one, or is gone.
        match self.init.receive(PATIENCE)? {
            Some((reply, ..)) if reply.kind == reply::FAILED => {
                self.init.reap();
                Err(setup_failure(plan, &reply))
            }
            _ => Err(self.init.lost("start")),
        }
    }

    /// Somebody else is to hear how it ends: its own socket. Nothing ends with this value any more.
    pub(crate) fn hand_over(self) {
        self.controller.line.over.store(true, Ordering::Release);
    }

    /// The socket on which init tells of it.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.controller.line.socket.as_fd()
    }

    /// The program's process number inside the sandbox.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// The program's process number as the caller sees it, for tools such as perf(1) and gdb(1): kill through
    /// [`Child::signal`], a number may be another process's by then. `None` where the program has ended, and for a
    /// program that is alone in its sandbox where /proc lists no children (CONFIG_PROC_CHILDREN).
    pub fn host_pid(&self) -> Option<u32> {
        self.controller.host_pid()
    }

    /// A new pidfd: readable when the program has ended (and, if it was alone, its sandbox with it). It shares nothing
    /// with the one that is borrowed by `as_fd`: an epoll instance forgets it when it is closed. Of a program that has
    /// ended and was waited for it is an eventfd, which is readable, too.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        self.controller.pidfd()
    }

    /// Who the program is.
    pub fn identity(&self) -> IdentityReport {
        identity_report(&self.init.identity)
    }

    /// The ports that are published on the host, with those that were chosen for 0.
    pub fn published(&self) -> &[Published] {
        self.init.published()
    }

    /// What is enforced, and by what.
    pub fn enforced(&self) -> &[Enforced] {
        &self.init.enforced
    }

    /// Something that can signal and end this program from any thread.
    pub fn controller(&self) -> Controller {
        self.controller.clone()
    }

    /// Sends a signal to the program. No error if it has ended already.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.controller.signal(signal)
    }

    /// Sends a signal to the program and to what it started in its process group, as a terminal does for Ctrl-C. Processes that
    /// have made a group or session of their own do not get it. No error if the program has ended already.
    pub fn signal_group(&self, signal: i32) -> Result<()> {
        self.controller.signal_group(signal)
    }

    /// Ends the program and all that it started, at once. `wait` tells what came of it. A sandbox whose supervisor does
    /// not answer within two seconds is ended as a whole.
    pub fn kill(&self) -> Result<()> {
        self.controller.kill()
    }

    /// The signal that has stopped the program since this was last asked, where [`Command::report_stops`](crate::Command::report_stops)
    /// was said; what has come is taken in by [`try_wait`](Child::try_wait). SIGCONT by `signal_group` lets it go on.
    pub fn stopped(&mut self) -> Option<i32> {
        self.stopped.take()
    }

    /// Whether something inside waits in read(2) for the program's standard input, for job control: a caller that stands between a
    /// terminal and a program in the background stops then, as the kernel would stop the program itself. False where that
    /// cannot be seen.
    pub fn is_reading_stdin(&mut self) -> Result<bool> {
        self.reading = None;
        self.controller.ask_for_readers()?;
        let until = Instant::now() + PATIENCE;
        while self.report.is_none() && self.reading.is_none() {
            if !sys::wait_readable(&[self.controller.line.socket.as_fd()], Some(until)).map_err(talking)?[0] {
                break;
            }
            self.hear()?;
        }
        Ok(self.reading.unwrap_or(false))
    }

    /// Readable when [`try_wait`](Child::try_wait) has something to take in: the end of the program, or that it was stopped.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.controller.line.socket.as_fd()
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
            let ready = sys::wait_readable(&[self.controller.line.socket.as_fd()], soonest).map_err(talking)?;
            if ready[0] {
                self.hear()?;
                continue;
            }
            if self.pidfd.as_ref().is_some_and(|pidfd| sys::is_readable(pidfd.as_fd())) {
                // It has ended: what init has to say of it is on its way, but for output that somebody has yet to read.
                let moment = Instant::now().checked_add(MOMENT).max(soonest);
                if sys::wait_readable(&[self.controller.line.socket.as_fd()], moment).map_err(talking)?[0] {
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
    pub(crate) fn give_up(&mut self) -> Result<bool> {
        let overdue = self.overdue.is_some_and(|overdue| Instant::now() >= overdue);
        if !overdue {
            return Ok(false);
        }
        self.hear_while_it_goes_on()?;
        if self.report.is_none() {
            self.init.killed.store(true, Ordering::Release);
            self.init.kill();
            self.init.reap_while_it_ends();
            self.end_with(Outcome::TimedOut)?;
        }
        Ok(true)
    }

    /// A supervisor that is seen to end many processes, or that a busy machine does not let run, has a little more time.
    fn hear_while_it_goes_on(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut before = procfs::motion(self.init.pidfd.as_fd());
        while self.report.is_none() && Instant::now() < until {
            if sys::wait_readable(&[self.controller.line.socket.as_fd()], Some(Instant::now() + STILL))
                .map_err(talking)?[0]
            {
                self.hear()?;
                continue;
            }
            let now = procfs::motion(self.init.pidfd.as_fd());
            if !now.goes_on(&before) {
                break;
            }
            before = now;
        }
        Ok(())
    }

    fn was_killed(&self) -> bool {
        self.init.killed.load(Ordering::Acquire) || self.controller.killed.load(Ordering::Acquire)
    }

    fn end_with(&mut self, outcome: Outcome) -> Result<()> {
        self.report = Some(self.report(outcome, self.watched())?);
        self.controller.line.over.store(true, Ordering::Release);
        Ok(())
    }

    /// When a program with a timeout is given up, should its supervisor not have ended it by then: whoever waits for the
    /// pidfd does not wait longer, but calls [`try_wait`](Child::try_wait).
    pub fn overdue(&self) -> Option<Instant> {
        self.overdue
    }

    /// Takes in what init has to say next.
    pub(crate) fn hear(&mut self) -> Result<()> {
        let heard = sys::receive(self.controller.line.socket.as_fd()).map_err(talking)?;
        if !heard.as_ref().is_some_and(|(reply, ..)| {
            [reply::LEFTOVER, reply::CALLS, reply::STOPPED, reply::READING].contains(&reply.kind)
        }) {
            self.controller.line.heard.store(true, Ordering::Release);
        }
        let report = match heard {
            Some((reply, ..)) if reply.kind == reply::HEARD => return Ok(()),
            Some((reply, ..)) if reply.kind == reply::READING => {
                self.reading = Some(reply.value != 0);
                return Ok(());
            }
            Some((reply, ..)) if reply.kind == reply::STOPPED => {
                self.stopped = Some(reply.value.cast_signed());
                return Ok(());
            }
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
            Some((reply, ..)) if reply.kind == reply::ENDED && reply.detail & wire::ENDED_UNKNOWN != 0 => {
                let failure = Failure::new("wait", "supervisor", "cannot learn how the program ended");
                return Err(failure.errno(libc::ECHILD).hint("Run it again.").io());
            }
            Some((reply, ..)) if reply.kind == reply::ENDED => self.ended(&reply),
            Some(_) => return Err(talking(Errno::EPROTO)),
            // The supervisor is gone without a word: with the group that it was in, or because the cell was ended.
            None if self.init.out_of_memory() => {
                self.init.reap();
                self.report(Outcome::OutOfMemory, self.watched())
            }
            // The caller ended the program or its cell, and the supervisor with it, or a supervisor that did not answer.
            None if !self.was_killed() => return Err(self.init.lost("wait")),
            None if self.one_shot => {
                self.init.kill();
                self.init.reap();
                self.report(Outcome::Killed, self.watched())
            }
            None => self.report(Outcome::Killed, self.watched()),
        };
        self.report = Some(report?);
        self.keeper = None;
        self.controller.line.over.store(true, Ordering::Release);
        Ok(())
    }

    fn ended(&mut self, reply: &Reply) -> Result<Report> {
        match &self.ending {
            Some(ending) if self.init.ends_alone() => ending.add(self.init.clone()),
            _ if self.one_shot => self.init.reap(),
            _ => {}
        }
        let outcome = match outcome(reply, self.shared.policy().seccomp != Seccomp::Off) {
            // Whether the program itself was the victim or something that it started.
            Outcome::Exited(_) if self.one_shot && self.init.out_of_memory() => Outcome::OutOfMemory,
            Outcome::Signaled { .. } if self.init.out_of_memory() => Outcome::OutOfMemory,
            other => other,
        };
        let mut report = self.report(outcome, usage(reply, self.counted))?;
        if report.timed_out.is_some() && reply.detail & wire::ENDED_CPU_TIME != 0 {
            report.timed_out = Some(TimeLimit::Cpu);
        }
        if reply.errno != 0 {
            let why = Errno::from_raw(reply.errno);
            report.warnings.push(format!("output of the program was lost, it could not be written: {why}"));
        }
        Ok(report)
    }

    fn report(&mut self, outcome: Outcome, mut usage: Usage) -> Result<Report> {
        if self.one_shot {
            self.init.count(&mut usage);
        }
        let (outcome, timed_out) = match outcome {
            Outcome::TimedOut => (Outcome::TimedOut, Some(TimeLimit::Wall)),
            Outcome::Signaled { signal, .. } if self.is_out_of_cpu_time(signal, &usage) => {
                (Outcome::TimedOut, Some(TimeLimit::Cpu))
            }
            other => (other, None),
        };
        let listed = match (&self.init.upper, self.changes) {
            (Some(upper), true) => {
                Some(changes::list_of_run(upper.as_fd(), &self.shared.resolved.files, &self.init.identity)?)
            }
            _ => None,
        };
        let (changes, changes_truncated) = listed.map_or((None, false), |(changes, cut)| (Some(changes), cut));
        let network = self.init.network();
        Ok(Report {
            outcome,
            timed_out,
            usage,
            identity: self.identity(),
            enforced: self.init.still_enforced(),
            leftovers: std::mem::take(&mut self.leftovers),
            leftovers_fail: self.shared.policy().leftovers.fail_the_run(),
            changes,
            changes_truncated,
            learned: self
                .calls
                .as_deref()
                .map(|calls| self.shared.profile().narrowed(&self.shared.policy().cap_add, calls)),
            warnings: self.warnings(&network),
            network,
        })
    }

    fn warnings(&self, network: &Option<NetworkReport>) -> Vec<String> {
        let mut warnings = self.init.warnings();
        if network.as_ref().is_some_and(|network| network.lost) {
            warnings
                .push("the relay of the network ended before the sandbox: from then on nothing was reached".to_owned());
        }
        warnings
    }

    /// Whether the resource limit that stands in for `cpu_time` (best effort) has ended it: SIGXCPU, and SIGKILL a second later.
    fn is_out_of_cpu_time(&self, signal: i32, usage: &Usage) -> bool {
        let limit = self.init.rlimits.iter().find(|(resource, ..)| *resource == Resource::RLIMIT_CPU);
        // The kernel's clock for the limit counts ticks, and rusage what was used: they differ by some hundredths, not by half.
        let used = || 2 * (usage.user.unwrap_or_default() + usage.system.unwrap_or_default());
        limit.is_some_and(|(_, soft, hard)| match signal {
            libc::SIGXCPU => used().as_secs() >= *soft,
            libc::SIGKILL => used().as_secs() >= *hard,
            _ => false,
        })
    }
}

impl AsFd for Child {
    /// A pidfd: readable when the program has ended (and, if it was alone, its sandbox with it).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.controller.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.report.is_none() {
            let _ = self.kill();
        }
    }
}

pub(crate) fn identity_report(identity: &Assigned) -> IdentityReport {
    let &Assigned { uid, gid, host_uid, host_gid, .. } = identity;
    IdentityReport { uid, gid, host_uid, host_gid }
}
