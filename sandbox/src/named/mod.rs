//! Cells that have a name and outlive whoever started them. Each has a keeper: see `sandcell-init/named`.

mod attach;
mod info;
#[cfg(feature = "json")]
pub(crate) mod json;
pub(crate) mod log;
pub(crate) mod note;
pub(crate) mod outcome;
mod place;
mod schedule;
mod start;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::api::cell::Cell;
use crate::api::command::Command;
use crate::api::sandbox::Sandbox;
use crate::api::shared::Shared;
use crate::cgroup::Placement;
use crate::error::{Failure, Result};
use crate::launch::Started;
use crate::launch::relay::Relay;
use crate::report::{NetworkReport, Report};
use crate::resolve::Resolved;
use crate::supervise::init::Init;
use crate::supervise::keeper;
use crate::sys;
use crate::wire::keeper::ask;
pub use attach::Attached;
pub use info::{CellInfo, CellState};
pub use log::{LogLine, LogReader};
use place::{Held, Place};
pub use schedule::Scheduler;
pub use start::{Detach, Restart};

/// How long a cell that was told to end may take, beyond what it was given itself.
const DEATH: Duration = Duration::from_secs(20);

/// A cell with a name, of the calling user: it lives on when whoever started it has ended. Dropping this ends nothing.
///
/// ```no_run
/// let sandbox = sandcell::Sandbox::builder().build()?;
/// sandbox.detach("work")?;
/// // In another process, later:
/// let cell = sandcell::Cell::find("work")?;
/// let output = cell.command("hostname")?.output()?;
/// cell.stop(None)?;
/// cell.remove()?;
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug)]
pub struct NamedCell {
    place: Place,
}

/// All named cells of the calling user, by name: those that live, and those that have ended and were not removed.
pub fn cells() -> Vec<NamedCell> {
    place::all().into_iter().filter(is_something).map(NamedCell::at).collect()
}

/// What a keeper that was killed has left is nothing.
fn is_something(place: &Place) -> bool {
    place.is_over() || place.held().is_ok_and(|held| held != Held::Nobody)
}

impl Sandbox {
    /// Starts a cell with a name, without a main program. [`Detach`] says more: a program, its log, its restarts.
    ///
    /// # Errors
    /// `Config` for a name that is none, `Setup` where it is taken.
    pub fn detach(&self, name: &str) -> Result<NamedCell> {
        Detach::new(name).start(self)
    }
}

impl Cell {
    /// The cell of this name, of the calling user.
    ///
    /// # Errors
    /// `Config` where there is none.
    pub fn find(name: &str) -> Result<NamedCell> {
        match place::find(name)?.filter(is_something) {
            Some(place) => Ok(NamedCell::at(place)),
            None => Err(Failure::new("cell-name", name, "there is no cell of this name")
                .errno(libc::ENOENT)
                .hint("`sandcell ps -a` lists those of the calling user.")
                .config()),
        }
    }
}

impl NamedCell {
    fn at(place: Place) -> NamedCell {
        NamedCell { place }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// A program to run in it, as in any cell. It ends with the calling process.
    ///
    /// # Errors
    /// `Io` where the cell has ended.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(self.cell()?.command(program))
    }

    /// The live cell, for all that a cell can do. [`Cell::kill`] ends it for everybody; dropping it does not.
    ///
    /// # Errors
    /// `Io` where it has ended.
    pub fn cell(&self) -> Result<Cell> {
        let note = self.note()?;
        let control = self.connect()?;
        if let Some(schedule) = note.schedule() {
            let message =
                format!("is no cell but a program that runs at its times ({schedule}), in a fresh sandbox each");
            let hint = "`sandcell logs` shows its runs, `sandcell kill -s` and `sandcell stop` reach them.";
            return Err(Failure::new("cell", self.name(), message).hint(hint).unsupported());
        }
        let pidfd = keeper::ask(control.as_fd(), ask::STATUS, 0, &[], &[])?.2.ok_or_else(|| keeper::ended("keeper"))?;
        let placement = Placement::of_keeper(&note.groups)?;
        let relay = self.relay(&note)?;
        let started = Started { control, pidfd, relay };
        let init = Init::of_keeper(started, note.identity, note.enforced, placement, note.rlimits, note.since);
        let shared = Shared::of_keeper(Resolved::of_keeper(note.policy, note.layers, note.env)?);
        Ok(Cell::new(std::sync::Arc::new(shared), init, note.plan))
    }

    /// What is known of its relay, where it has one.
    fn relay(&self, note: &note::Note) -> Result<Option<Relay>> {
        match self.place.open(note::NETWORK, nix::fcntl::OFlag::O_RDONLY) {
            Ok(table) => Ok(Some(Relay::of_keeper(table, note.rules.clone(), note.published.clone()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.place.failed("the account of its network cannot be read", &e)),
        }
    }

    /// What has come of its network. That the relay is gone is no news then.
    fn network_when_over(&self, note: &note::Note) -> Option<NetworkReport> {
        let report = self.relay(note).ok()??.report();
        Some(NetworkReport { lost: false, ..report })
    }

    fn connect(&self) -> Result<OwnedFd> {
        self.place.connect()?.ok_or_else(|| keeper::ended("keeper"))
    }

    fn note(&self) -> Result<note::Note> {
        let mut bytes = Vec::new();
        let read = self
            .place
            .open(note::FILE, nix::fcntl::OFlag::O_RDONLY)
            .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, note::MOST), &mut bytes));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let failure = Failure::new("cell", self.name(), "is being started, or was removed");
                return Err(failure.errno(libc::ENOENT).hint("Look again: `sandcell ps -a`.").io());
            }
            other => other.map_err(|e| self.place.failed("cannot be read", &e))?,
        };
        note::read(&bytes).map_err(|_| {
            Failure::new("cell", self.name(), "what is noted of it cannot be read")
                .hint("Was it started by another version of sandcell? That one can stop it.")
                .io()
        })
    }

    fn ask(&self, kind: u32, value: u32) -> Result<sys::Heard> {
        keeper::ask(self.connect()?.as_fd(), kind, value, &[], &[])
    }

    /// SIGTERM for the main program; what is left after `grace` is killed. Without a main program the cell ends at once.
    /// The policy's own grace by default. Waits for the end; no error if it has ended already.
    ///
    /// # Errors
    /// `Io` where it does not end.
    pub fn stop(&self, grace: Option<Duration>) -> Result<()> {
        let Some(connection) = self.place.connect()? else { return Ok(()) };
        let grace = match grace {
            Some(grace) => grace,
            None => self.note().map_or(Duration::from_secs(2), |note| note.policy.grace),
        };
        // A frozen program takes no signal.
        if self.info().is_ok_and(|info| info.state == CellState::Paused) {
            self.resume()?;
        }
        let millis = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        match keeper::ask(connection.as_fd(), ask::STOP, millis, &[], &[]) {
            Err(error) if error.errno() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
        self.gone(&connection, Instant::now().checked_add(grace.saturating_add(DEATH)))
    }

    /// Ends it now and everything in it. Waits for the end; no error if it has ended already.
    ///
    /// # Errors
    /// `Io` where it does not end.
    pub fn kill(&self) -> Result<()> {
        let Some(connection) = self.place.connect()? else { return Ok(()) };
        match keeper::ask(connection.as_fd(), ask::KILL, 0, &[], &[]) {
            Err(error) if error.errno() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
        self.gone(&connection, Some(Instant::now() + DEATH))
    }

    /// Waits for the end of a keeper that was told to end.
    fn gone(&self, connection: &OwnedFd, until: Option<Instant>) -> Result<()> {
        if self.closed(connection, until)? {
            return Ok(());
        }
        Err(Failure::new("keeper", self.name(), "was told to end and has not ended")
            .hint("Look for a process in it that waits for a file system that does not answer.")
            .io())
    }

    fn closed(&self, connection: &OwnedFd, until: Option<Instant>) -> Result<bool> {
        let failed = |errno: nix::errno::Errno| self.place.failed("cannot be waited for", &errno.into());
        loop {
            if !sys::wait_readable(&[connection.as_fd()], until).map_err(failed)?[0] {
                return Ok(false);
            }
            if sys::receive(connection.as_fd()).map_err(failed)?.is_none() {
                return Ok(true);
            }
        }
    }

    /// A signal for the main program.
    ///
    /// # Errors
    /// `Io` where there is no main program, or it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::new("option", "signal", format!("{signal} is no signal")).hint("1 to 64").config());
        }
        self.ask(ask::SIGNAL, signal.unsigned_abs()).map(|_| ())
    }

    /// Stops everything in it until `resume`: [`Cell::freeze`].
    ///
    /// # Errors
    /// `Unsupported` where it has no cgroup.
    pub fn pause(&self) -> Result<()> {
        self.cell()?.freeze()
    }

    /// Lets everything in it go on.
    ///
    /// # Errors
    /// `Io` where it has ended.
    pub fn resume(&self) -> Result<()> {
        self.cell()?.thaw()
    }

    /// Waits for the end: what came of the main program, or of a cell without one.
    ///
    /// # Errors
    /// `Io` where nobody knows, because the keeper was killed.
    pub fn wait(&self) -> Result<Report> {
        match self.wait_until(None)? {
            Some(report) => Ok(report),
            None => Err(keeper::ended("wait")),
        }
    }

    /// The same, but not longer than this; `None` if it lives.
    ///
    /// # Errors
    /// As there.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Report>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&self, until: Option<Instant>) -> Result<Option<Report>> {
        if let Some(connection) = self.place.connect()?
            && !self.closed(&connection, until)?
        {
            return Ok(None);
        }
        match outcome::read(&self.place).map_err(|e| self.place.failed("its outcome cannot be read", &e))? {
            Some(left) => {
                let note = self.note()?;
                let mut report = left.report(&note)?;
                report.network = self.network_when_over(&note);
                Ok(Some(report))
            }
            None if place::find(self.name())?.is_none() => {
                let failure = Failure::new("wait", self.name(), "was removed").errno(libc::ENOENT);
                Err(failure.hint("`sandcell ps -a` lists those that are there.").io())
            }
            None => Err(Failure::new("wait", self.name(), "its keeper was killed, and the cell with it")
                .hint("Start it again; the name is free.")
                .io()),
        }
    }

    /// Removes what a cell that has ended has left: its outcome and its log.
    ///
    /// # Errors
    /// `Setup` where it lives.
    pub fn remove(&self) -> Result<()> {
        if !self.place.is_over() && self.place.held().is_ok_and(|held| held != Held::Nobody) {
            return Err(Failure::new("cell", self.name(), "is alive")
                .errno(libc::EBUSY)
                .hint(format!("Stop it first: `sandcell stop {}`.", self.name()))
                .setup());
        }
        // It has left its outcome a moment before its end.
        if let Some(connection) = self.place.connect()? {
            self.gone(&connection, Some(Instant::now() + DEATH))?;
        }
        self.place.remove_unheld()
    }
}
