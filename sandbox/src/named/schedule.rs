//! A program that runs at certain times, in a fresh sandbox each. The name, its lock and its log are those of a named cell, which is otherwise
//! empty; whoever has the library runs the program, and stands to the keeper as init does for a main program.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::PollFlags;

use super::start::Detach;
use crate::api::child::Child;
use crate::api::command::Command;
use crate::api::streams::Stdio;
use crate::error::Result;
use crate::schedule::Schedule;
use crate::sys::{self, descriptors};
use crate::wire::{Message, Reply, command, reply};

/// The time of day may be set meanwhile: it is looked at so often.
const LOOK: Duration = Duration::from_secs(20);
/// With overlaps: no more at once.
const MOST_RUNS: usize = 64;

/// A schedule that has a name, and that runs as long as [`run`](Scheduler::run) does.
///
/// ```no_run
/// use sandcell::{Detach, Sandbox, Schedule};
///
/// let sandbox = Sandbox::builder().build()?;
/// let mut command = sandbox.command("date");
/// let nightly = Detach::new("nightly").schedule(Schedule::parse("0 3 * * *")?);
/// nightly.scheduler(&mut command)?.run()?; // until `sandcell stop nightly`
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug)]
pub struct Scheduler<'a> {
    schedule: Schedule,
    overlap: bool,
    command: &'a mut Command,
    grace: Duration,
    /// To the keeper: its end is ours, and ours its.
    line: OwnedFd,
    log: File,
    runs: Vec<Run>,
    count: u64,
    last_status: i32,
}

#[derive(Debug)]
struct Run {
    number: u64,
    child: Child,
}

/// What the keeper gets of it.
pub(super) struct Ends {
    pub line: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Detach {
    /// Takes the name for a program that runs at the times of [`schedule`](Detach::schedule), in a fresh sandbox each. Nothing runs before
    /// [`Scheduler::run`] does, and nothing any more when the value is gone.
    ///
    /// # Errors
    /// As [`run`](Detach::run), and `Config` where there is no schedule.
    pub fn scheduler<'a>(&self, command: &'a mut Command) -> Result<Scheduler<'a>> {
        let (schedule, sandbox) = self.check_scheduled(command)?;
        let (line, theirs) = sys::message_sockets().map_err(descriptors)?;
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(descriptors);
        let ((stdout, stdout_in), (stderr, stderr_in)) = (pipe()?, pipe()?);
        let log = File::from(stderr_in.try_clone().map_err(|_| descriptors(nix::errno::Errno::EMFILE))?);
        command.stdin(Stdio::Null).stdout(stdout_in).stderr(stderr_in);
        self.make_scheduled(&sandbox, command.words(), Ends { line: theirs, stdout, stderr })?;
        let grace = sandbox.policy().grace;
        let runs = Vec::new();
        Ok(Scheduler { schedule, overlap: self.overlap, command, grace, line, log, runs, count: 0, last_status: 0 })
    }
}

impl Scheduler<'_> {
    /// Runs the program at its times, until the name is stopped. A time that comes while a run goes on is left out, unless
    /// [`schedule_overlap`](Detach::schedule_overlap) says otherwise; of times that were missed, because the machine has slept, the last one counts.
    ///
    /// # Errors
    /// Where the keeper cannot be heard; what becomes of the runs is in the log.
    pub fn run(mut self) -> Result<()> {
        let mut next = self.schedule.next_after(SystemTime::now());
        loop {
            self.wait(next)?;
            if let Some(signal) = self.heard()? {
                return self.finish(signal);
            }
            self.take_in_ends()?;
            let now = SystemTime::now();
            if next.is_some_and(|next| next <= now) {
                self.begin();
                next = self.schedule.next_after(now);
            } else {
                // The time of day may have been set back.
                next = self.schedule.next_after(now);
            }
        }
    }

    /// Waits until something happens, or it is time.
    fn wait(&self, next: Option<SystemTime>) -> Result<()> {
        let left = next.and_then(|next| next.duration_since(SystemTime::now()).ok());
        let left = if next.is_some() { left.unwrap_or_default() } else { LOOK };
        let lines = self.runs.iter().map(|run| (run.child.events(), PollFlags::POLLIN));
        let watched: Vec<_> = std::iter::once((self.line.as_fd(), PollFlags::POLLIN)).chain(lines).collect();
        sys::wait(&watched, Some(Instant::now() + left.min(LOOK))).map_err(descriptors).map(|_| ())
    }

    /// What the keeper passes on: a signal for the runs that end all. `Some(0)`: it is gone.
    fn heard(&mut self) -> Result<Option<i32>> {
        if !sys::is_readable(self.line.as_fd()) {
            return Ok(None);
        }
        let Some(Message { kind, value, .. }) = sys::receive_message(self.line.as_fd()).map_err(descriptors)? else {
            return Ok(Some(0));
        };
        let signal = value.cast_signed();
        if kind != command::SIGNAL {
            return Ok(None);
        }
        for run in &self.runs {
            let _ = run.child.signal(signal);
        }
        Ok(Some(signal).filter(|signal| *signal == libc::SIGTERM))
    }

    /// Starts a run, unless one goes on.
    fn begin(&mut self) {
        if let Some(run) = self.runs.first()
            && (!self.overlap || self.runs.len() >= MOST_RUNS)
        {
            let text = format!("a time of the schedule is left out: run {} goes on", run.number);
            return self.say(&text);
        }
        self.count += 1;
        let number = self.count;
        self.say(&format!("run {number} begins"));
        match self.command.spawn() {
            Ok(child) => {
                self.tell(reply::STARTED, child.id());
                self.runs.push(Run { number, child });
            }
            Err(error) => {
                self.last_status = 125;
                self.say(&format!("run {number} cannot be started: {error}; {}", error.hint()));
            }
        }
    }

    fn take_in_ends(&mut self) -> Result<()> {
        let mut at = 0;
        while at < self.runs.len() {
            let ended = match self.runs[at].child.try_wait() {
                Ok(None) => {
                    at += 1;
                    continue;
                }
                Ok(Some(report)) => {
                    self.last_status = report.exit_status();
                    format!("{}, after {:.3} s", report.outcome, report.usage.wall.as_secs_f64())
                }
                Err(error) => {
                    self.last_status = 125;
                    format!("lost: {error}")
                }
            };
            let run = self.runs.remove(at);
            self.say(&format!("run {} has ended: {ended}", run.number));
            self.tell(reply::STARTED, self.runs.last().map_or(0, |run| run.child.id()));
        }
        Ok(())
    }

    /// The end of all: the runs have what the policy grants them after SIGTERM, unless the keeper is gone before.
    fn finish(mut self, signal: i32) -> Result<()> {
        let until = Instant::now() + self.grace;
        while signal != 0 && !self.runs.is_empty() && Instant::now() < until {
            let lines = self.runs.iter().map(|run| run.child.events());
            let watched: Vec<_> = std::iter::once(self.line.as_fd()).chain(lines).collect();
            let ready = sys::wait_readable(&watched, Some(until)).map_err(descriptors)?;
            if ready[0] && sys::receive_message(self.line.as_fd()).map_err(descriptors)?.is_none() {
                return Ok(());
            }
            self.take_in_ends()?;
        }
        // What is left ends with this.
        self.runs.clear();
        let status = self.last_status.clamp(0, 255).unsigned_abs() << 8;
        self.tell(reply::ENDED, status);
        Ok(())
    }

    /// A line of the log; nobody waits for a log that is full for ever: the keeper's end is the pipe's.
    fn say(&mut self, text: &str) {
        let _ = self.log.write_all(format!("sandcell: {}\n", crate::printable(text)).as_bytes());
    }

    fn tell(&self, kind: u32, value: u32) {
        let _ = sys::send_reply(self.line.as_fd(), &Reply { kind, value, ..Reply::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, CellState, NamedCell, Sandbox};

    /// A name that is free again afterwards.
    struct Name(String);

    impl Name {
        fn new(what: &str) -> Name {
            Name(format!("schedule-{what}-{}", std::process::id()))
        }

        fn cell(&self) -> NamedCell {
            Cell::find(&self.0).unwrap()
        }

        /// The log, once it has a line with this at its end.
        fn log_until(&self, end: &str) -> Vec<String> {
            let mut reader = self.cell().log().unwrap();
            let mut lines: Vec<String> = Vec::new();
            while !lines.last().is_some_and(|line| line.contains(end)) {
                match reader.next_line().unwrap() {
                    Some(line) => lines.push(String::from_utf8_lossy(&line.text).into_owned()),
                    None => assert!(
                        reader.wait(Some(Instant::now() + Duration::from_secs(60))).unwrap(),
                        "{end} never comes: {lines:?}"
                    ),
                }
            }
            lines
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            if let Ok(cell) = Cell::find(&self.0) {
                let _ = cell.kill();
                let _ = cell.remove();
            }
        }
    }

    fn detach(name: &Name) -> Detach {
        Detach::new(&name.0).schedule(Schedule::parse("0 0 29 2 *").unwrap())
    }

    fn until_ended(scheduler: &mut Scheduler<'_>) {
        while !scheduler.runs.is_empty() {
            let events = scheduler.runs[0].child.events();
            assert!(sys::wait_readable(&[events], Some(Instant::now() + Duration::from_secs(60))).unwrap()[0]);
            scheduler.take_in_ends().unwrap();
        }
    }

    #[test]
    fn each_run_has_a_fresh_sandbox_and_is_in_the_log() {
        let name = Name::new("fresh");
        let sandbox = Sandbox::builder().build().unwrap();
        let mut command = sandbox.command("sh");
        command.args(["-c", "ls /tmp; : >/tmp/left; echo out; exit 3"]);
        let mut scheduler = detach(&name).scheduler(&mut command).unwrap();
        for _ in 0..2 {
            scheduler.begin();
            until_ended(&mut scheduler);
        }
        let lines = name.log_until("run 2 has ended");
        let told = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((told("out"), told("left"), told("status 3")), (2, 0, 2), "{lines:?}");
        assert!(lines[0].contains("run 1 begins"));
    }

    #[test]
    fn a_time_that_comes_while_a_run_goes_on_is_left_out_unless_overlaps_are_asked_for() {
        for overlap in [false, true] {
            let name = Name::new(if overlap { "overlap" } else { "alone" });
            let sandbox = Sandbox::builder().build().unwrap();
            let mut command = sandbox.command("sleep");
            let detach = detach(&name).schedule_overlap(overlap);
            let mut scheduler = detach.scheduler(command.arg("1000")).unwrap();
            scheduler.begin();
            scheduler.begin();
            assert_eq!(scheduler.runs.len(), if overlap { 2 } else { 1 });
            let lines = name.log_until(if overlap { "run 2 begins" } else { "left out: run 1 goes on" });
            assert_eq!(lines.len(), 2, "{lines:?}");
            while name.cell().info().unwrap().state != CellState::Running {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn stopping_ends_a_run_with_grace_and_then_the_schedule() {
        let name = Name::new("stop");
        let sandbox = Sandbox::builder().grace(Duration::from_secs(60)).build().unwrap();
        let mut command = sandbox.command("sh");
        command.args(["-c", "trap 'echo stopped; exit 7' TERM; echo ready; while :; do sleep 0.01; done"]);
        let mut scheduler = detach(&name).scheduler(&mut command).unwrap();
        scheduler.begin();
        name.log_until("ready");
        std::thread::scope(|scope| {
            let run = scope.spawn(move || scheduler.run());
            name.cell().stop(None).unwrap();
            run.join().unwrap().unwrap();
        });
        assert_eq!(name.cell().wait().unwrap().exit_status(), 7);
        name.log_until("run 1 has ended");
    }

    #[test]
    fn a_name_of_a_schedule_is_no_cell_and_goes_with_its_scheduler() {
        let name = Name::new("gone");
        let sandbox = Sandbox::builder().build().unwrap();
        let mut command = sandbox.command("sleep");
        let scheduler = detach(&name).scheduler(command.arg("1000")).unwrap();
        let info = name.cell().info().unwrap();
        assert_eq!((info.state, info.schedule.as_deref()), (CellState::Waiting, Some("0 0 29 2 *")));
        assert!(info.next_run.unwrap() > SystemTime::now());
        let error = name.cell().command("true").unwrap_err();
        assert!(error.to_string().contains("no cell but a program that runs at its times"), "{error}");
        assert!(detach(&name).scheduler(&mut sandbox.command("true")).is_err(), "the name is taken");
        drop(scheduler);
        assert!(name.cell().wait().is_err());
    }

    #[test]
    fn what_makes_no_sense_with_a_schedule_is_refused() {
        let sandbox = Sandbox::builder().build().unwrap();
        let name = Name::new("refused");
        let plain = Detach::new(&name.0);
        let mut command = sandbox.command("true");
        assert!(plain.clone().scheduler(&mut command).unwrap_err().to_string().contains("there is none"));
        assert!(detach(&name).keep_stdin(true).scheduler(&mut command).is_err());
        assert!(detach(&name).restart(crate::Restart::Always).scheduler(&mut command).is_err());
        assert!(detach(&name).run(&mut command).unwrap_err().hint().contains("scheduler"));
        assert!(plain.schedule_overlap(true).run(&mut command).unwrap_err().to_string().contains("no schedule"));
        assert!(Cell::find(&name.0).is_err());
    }
}
