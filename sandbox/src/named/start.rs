//! Starting a named cell: everything is made as for any cell, and then a keeper has it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::place::{self, Place};
use super::schedule::Ends;
use super::{NamedCell, note};
use crate::api::cell::Cell;
use crate::api::child::Child;
use crate::api::command::Command;
use crate::api::sandbox::Sandbox;
use crate::api::shared::Owner;
use crate::api::system::{INIT, stop_signal};
use crate::cgroup::Handed;
use crate::error::{Error, Failure, Result};
use crate::launch;
use crate::launch::relay::{self, Relay};
use crate::schedule::Schedule;
use crate::sys;
use crate::sys::descriptors;
use crate::wire::keeper::{Keep, OUTCOME_NEW, answer, ask, role};
use crate::wire::{reply, stage};

/// A keeper has nothing to do but to take its cell.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for the outcome, taken ahead.
const OUTCOME: i64 = 64 * 1024;

/// Whether the main program of a named cell is started again when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Restart {
    /// Not at all: the cell ends with it.
    #[default]
    No,
    /// When it has failed: any end but status 0.
    OnFailure,
    /// Whenever it has ended, until the cell is stopped.
    Always,
}

/// How a named cell is started: its name, its log, and what becomes of its main program.
///
/// ```no_run
/// use sandcell::{Detach, Sandbox};
///
/// let sandbox = Sandbox::builder().build()?;
/// let mut server = sandbox.command("/usr/bin/python3");
/// server.args(["-m", "http.server"]);
/// let cell = Detach::new("web").log_max_size(1 << 20).run(&mut server)?;
/// cell.command("echo")?.arg("beside it").status()?;
/// cell.stop(None)?;
/// # Ok::<(), sandcell::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Detach {
    name: String,
    log_size: u64,
    log_files: u32,
    stdin: bool,
    restart: Restart,
    schedule: Option<Schedule>,
    pub(super) overlap: bool,
}

impl Detach {
    /// A cell of this name: letters, digits, `_`, `.` and `-`, at most 64.
    pub fn new(name: impl Into<String>) -> Detach {
        Detach {
            name: name.into(),
            log_size: 10 << 20,
            log_files: 5,
            stdin: false,
            restart: Restart::No,
            schedule: None,
            overlap: false,
        }
    }

    /// Bytes of a file of the log, before the next one is begun; 10 MiB by default.
    pub fn log_max_size(mut self, bytes: u64) -> Detach {
        self.log_size = bytes;
        self
    }

    /// How many files of the log are kept, 1 to 63; 5 by default.
    pub fn log_files(mut self, count: u32) -> Detach {
        self.log_files = count;
        self
    }

    /// Gives the main program a pipe as standard input, for [`NamedCell::attach`]; otherwise it is /dev/null.
    pub fn keep_stdin(mut self, keep: bool) -> Detach {
        self.stdin = keep;
        self
    }

    /// Whether the main program is started again when it has ended: in the same cell, with a pause that doubles from
    /// 100 ms to a minute while it fails at once.
    pub fn restart(mut self, restart: Restart) -> Detach {
        self.restart = restart;
        self
    }

    /// Runs the program at these times, in a fresh sandbox each: [`scheduler`](Detach::scheduler) does it.
    pub fn schedule(mut self, schedule: Schedule) -> Detach {
        self.schedule = Some(schedule);
        self
    }

    /// Whether a run begins at its time although another one goes on; otherwise that time is left out.
    pub fn schedule_overlap(mut self, overlap: bool) -> Detach {
        self.overlap = overlap;
        self
    }

    /// Starts the cell without a main program: it lives until it is stopped.
    ///
    /// # Errors
    /// `Config` for a name that is none, `Setup` where it is taken.
    pub fn start(&self, sandbox: &Sandbox) -> Result<NamedCell> {
        self.make(sandbox, None)
    }

    /// Starts the cell with this main program, whose output is the log: the cell ends with it.
    ///
    /// # Errors
    /// As [`start`](Detach::start), and [`Error::Exec`](crate::Error::Exec) where the program cannot be executed.
    pub fn run(&self, main: &mut Command) -> Result<NamedCell> {
        let sandbox = self.sandbox_of(main)?;
        self.make(&sandbox, Some(main))
    }

    fn sandbox_of(&self, main: &Command) -> Result<Sandbox> {
        main.sandbox().ok_or_else(|| {
            wrong("detach", "the program is one of a cell already", "Make the command by `Sandbox::command`.")
        })
    }

    /// What a schedule is made of.
    pub(super) fn check_scheduled(&self, command: &Command) -> Result<(Schedule, Sandbox)> {
        let Some(schedule) = &self.schedule else {
            return Err(wrong("schedule", "there is none", "Say when: `Detach::schedule`."));
        };
        if self.stdin || self.restart != Restart::No {
            let option = if self.stdin { "keep_stdin" } else { "restart" };
            return Err(wrong(option, "makes no sense for a program that runs at certain times", "Leave it out."));
        }
        let mut plain = self.clone();
        (plain.schedule, plain.overlap) = (None, false);
        plain.check(Some(command))?;
        Ok((schedule.clone(), self.sandbox_of(command)?))
    }

    /// The name, its keeper and its log, of a schedule. What runs is made by its scheduler: the cell is empty.
    pub(super) fn make_scheduled(&self, sandbox: &Sandbox, words: Vec<OsString>, ends: Ends) -> Result<()> {
        let _held = sys::HeldFileSizeSignal::new();
        place::check(&self.name)?;
        let isolation = sandbox.policy().isolation;
        let empty = Sandbox::builder().isolation(isolation).build()?;
        let (place, starting) = place::take(&self.name)?;
        let made = place::make_log_dir(&place).and_then(|(_, log)| {
            let keeper = launch::start_keeper()?;
            let owner = Owner { pidfd: keeper.pidfd.as_fd(), table: None };
            let (init, plan) = empty.shared.launch(true, false, None, Some(owner))?;
            let cell = Cell::new(empty.shared.clone(), init, plan);
            let main = Main::Scheduled(ends, sandbox.clone());
            self.hand_over(&place, &cell, main, &keeper.control, &log, &words, &[])
        });
        if made.is_err() {
            let _ = place.remove();
        }
        drop(starting);
        made
    }

    fn check(&self, main: Option<&Command>) -> Result<()> {
        let wrong = |option: &str, message: &str, hint: &str| Err(wrong(option, message, hint));
        if self.schedule.is_some() {
            return wrong("schedule", "needs somebody who runs the program", "Use `Detach::scheduler`.");
        }
        if self.overlap {
            return wrong("schedule_overlap", "there is no schedule", "Leave it out, or say when: `schedule`.");
        }
        if !(4096..=1 << 40).contains(&self.log_size) {
            return wrong("log_max_size", "is no size for a file of the log", "Choose 4 KiB or more.");
        }
        if !(1..=63).contains(&self.log_files) {
            return wrong("log_files", "is no number of files", "Choose 1 to 63.");
        }
        if self.restart != Restart::No && main.is_none() {
            return wrong("restart", "there is no program to be started again", "Name one.");
        }
        match main {
            Some(main) => main.check_detached(self.restart != Restart::No),
            None => Ok(()),
        }
    }

    fn make(&self, sandbox: &Sandbox, main: Option<&mut Command>) -> Result<NamedCell> {
        let _held = sys::HeldFileSizeSignal::new();
        place::check(&self.name)?;
        let mut own = (main.is_none() && sandbox.policy().init).then(|| sandbox.command(INIT));
        let main = main.or(own.as_mut());
        self.check(main.as_deref())?;
        if sandbox.policy().init && self.restart != Restart::No {
            let failure = Failure::new("option", "restart", "a system is not started again in the same cell");
            return Err(failure.hint("Start the cell anew when it has ended.").config());
        }
        let (place, starting) = place::take(&self.name)?;
        let made = self.make_in(&place, sandbox, main);
        if made.is_err() {
            let _ = place.remove();
        }
        drop(starting);
        made.map(|()| NamedCell::at(place))
    }

    fn make_in(&self, place: &Place, sandbox: &Sandbox, main: Option<&mut Command>) -> Result<()> {
        let (_, log) = place::make_log_dir(place)?;
        let keeper = launch::start_keeper()?;
        // Init ends with its keeper, and that is heard of first: the keeper has said why.
        self.make_with(place, sandbox, main, &log, &keeper).map_err(|error| said(&keeper.control).unwrap_or(error))
    }

    fn make_with(
        &self,
        place: &Place,
        sandbox: &Sandbox,
        main: Option<&mut Command>,
        log: &[OwnedFd],
        keeper: &launch::Started,
    ) -> Result<()> {
        let has_relay = sandbox.shared.policy().network_in_effect().has_relay();
        let table = has_relay.then(|| network_table(place)).transpose()?;
        let owner = Owner { pidfd: keeper.pidfd.as_fd(), table };
        let (init, plan) = sandbox.shared.launch(true, false, None, Some(owner))?;
        let cell = Cell::new(sandbox.shared.clone(), init, plan);
        let mut words = Vec::new();
        let mut request = Vec::new();
        let child = match main {
            Some(main) => {
                words = main.words();
                let child = main.start_in(&cell, self.stdin)?;
                if self.restart != Restart::No {
                    request = main.request_again(&cell, self.stdin)?;
                }
                Main::Program(Box::new(child))
            }
            None => Main::None,
        };
        self.hand_over(place, &cell, child, &keeper.control, log, &words, &request)
    }

    #[expect(clippy::too_many_arguments, reason = "all that a cell is made of")]
    fn hand_over(
        &self,
        place: &Place,
        cell: &Cell,
        main: Main,
        keeper: &OwnedFd,
        log: &[OwnedFd],
        words: &[OsString],
        request: &[u8],
    ) -> Result<()> {
        let (shared, init, plan) = cell.parts();
        let groups = init.groups(|placement| placement.to_hand_over())?.unwrap_or_default();
        let mut told = shared;
        if let Main::Scheduled(_, sandbox) = &main {
            told = &sandbox.shared;
        }
        let mut text = note::write(told, init, plan, &groups.records, words);
        if let Some(schedule) = &self.schedule {
            note::write_schedule(schedule, self.overlap, &mut text);
        }
        let failed = |e: &std::io::Error| place.failed("what clients need to know of it cannot be written", e);
        let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let written = place.open(note::FILE, create).and_then(|mut file| std::io::Write::write_all(&mut file, &text));
        written.map_err(|e| failed(&e))?;
        let room = place.open(OUTCOME_NEW.to_str().unwrap_or_default(), create).map_err(|e| failed(&e))?;
        match nix::fcntl::posix_fallocate(&room, 0, OUTCOME) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL) => {}
            Err(errno) => return Err(failed(&errno.into())),
        }
        let listener = place.listener().map_err(descriptors)?;
        let kept = shared.kept_again()?;
        let mut bag = Bag::default();
        bag.cell(if let Main::Program(child) = &main { child.id() } else { 0 }, &groups, self);
        bag.add(role::CONTROL, init.control.as_fd());
        bag.add(role::INIT, init.pidfd.as_fd());
        bag.add(role::LISTENER, listener.as_fd());
        bag.add(role::DIR, place.dir());
        bag.add(role::LOG_DIR, log[0].as_fd());
        let locks = log[1..].iter().chain(&groups.locks).map(AsFd::as_fd);
        locks
            .chain(init.locks().map(File::as_fd))
            .chain(kept.iter().map(File::as_fd))
            .for_each(|fd| bag.add(role::LOCK, fd));
        if let Some(relay) = init.relay().and_then(Relay::control) {
            // The relay ends when nobody holds it any more.
            bag.add(role::RELAY, relay);
        }
        if let Some(upper) = &init.upper {
            bag.add(role::UPPER, upper.as_fd());
        }
        bag.main(&main);
        if let (true, Some(program)) = (shared.policy().init, words.first()) {
            let signal = stop_signal(&shared.resolved, Path::new(program));
            Keep::StopSignal { signal: signal.cast_unsigned() }.write(&mut bag.text);
        }
        bag.groups(&groups);
        if !request.is_empty() {
            Keep::Restart { request, always: u32::from(self.restart == Restart::Always) }.write(&mut bag.text);
        }
        bag.send(keeper)?;
        init.hand_over();
        if let Main::Program(child) = main {
            child.hand_over();
        }
        Ok(())
    }
}

/// What the cell ends with.
enum Main {
    None,
    Program(Box<Child>),
    Scheduled(Ends, Sandbox),
}

fn wrong(option: &str, message: &str, hint: &str) -> Error {
    Failure::new("option", option, message).hint(hint).config()
}

/// Where the relay of a cell keeps account, for clients and for those who look when it is over.
fn network_table(place: &Place) -> Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    let made = place.open(note::NETWORK, flags).and_then(relay::table_in);
    made.map_err(|e| place.failed("the account of its network cannot be kept", &e))
}

fn failed(heard: &crate::wire::Reply) -> crate::Error {
    let (name, words) = stage::describe(heard.detail);
    let hint = "Look for what limits new processes of the caller: a resource limit, a security module, a full disk.";
    Failure::new(name, "keeper", words).errno(heard.errno).hint(hint).setup()
}

/// What a keeper has said that did not begin.
fn said(keeper: &OwnedFd) -> Option<crate::Error> {
    let said = sys::is_readable(keeper.as_fd()).then(|| sys::receive(keeper.as_fd()).ok().flatten())??.0;
    (said.kind == reply::FAILED).then(|| failed(&said))
}

/// What is sent to the keeper.
#[derive(Default)]
struct Bag<'a> {
    text: Vec<u8>,
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Bag<'a> {
    fn cell(&mut self, main: u32, groups: &Handed, detach: &Detach) {
        let pids = groups.pids.as_ref().map_or(0, |(_, limit)| *limit);
        Keep::Cell { main, pids, log_size: detach.log_size, log_files: detach.log_files }.write(&mut self.text);
    }

    /// Behind the memory file of the message, or the place where none is.
    fn index(&self) -> u32 {
        self.fds.len() as u32 + 1
    }

    fn add(&mut self, role: u32, fd: BorrowedFd<'a>) {
        Keep::Descriptor { index: self.index(), role }.write(&mut self.text);
        self.fds.push(fd);
    }

    fn main(&mut self, main: &'a Main) {
        let child = match main {
            Main::None => return,
            Main::Scheduled(ends, _) => {
                self.add(role::MAIN, ends.line.as_fd());
                self.add(role::STDOUT, ends.stdout.as_fd());
                return self.add(role::STDERR, ends.stderr.as_fd());
            }
            Main::Program(child) => child,
        };
        self.add(role::MAIN, child.socket());
        let pipes = [
            (role::STDIN, child.stdin.as_ref().map(AsFd::as_fd)),
            (role::STDOUT, child.stdout.as_ref().map(AsFd::as_fd)),
            (role::STDERR, child.stderr.as_ref().map(AsFd::as_fd)),
        ];
        for (role, fd) in pipes {
            if let Some(fd) = fd {
                self.add(role, fd);
            }
        }
    }

    fn groups(&mut self, groups: &'a Handed) {
        if let Some((file, _)) = &groups.pids {
            self.add(role::PIDS, file.as_fd());
        }
        let name = |name: &'a CString| name.as_c_str();
        for (fd, file) in &groups.figures {
            Keep::Figure { index: self.index(), name: name(file) }.write(&mut self.text);
            self.fds.push(fd.as_fd());
        }
        for (fd, group) in &groups.groups {
            Keep::Group { index: self.index(), name: name(group) }.write(&mut self.text);
            self.fds.push(fd.as_fd());
        }
    }

    /// Sends it, and hears whether the keeper has it.
    fn send(self, keeper: &OwnedFd) -> Result<()> {
        let fds: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let letter = sys::Letter::new(c"sandcell-cell", &self.text).map_err(descriptors)?;
        letter.send(keeper.as_fd(), ask::HOLD, 0, &fds).map_err(descriptors)?;
        let gone = || {
            Failure::new("keeper", "cell", "its keeper did not take it")
                .hint("Look for what ends new processes of the caller: a limit, a security module.")
                .setup()
        };
        let until = Some(Instant::now() + PATIENCE);
        if !sys::wait_readable(&[keeper.as_fd()], until).map_err(descriptors)?[0] {
            return Err(gone());
        }
        match sys::receive(keeper.as_fd()).map_err(descriptors)? {
            Some((heard, ..)) if heard.kind == answer::DONE => Ok(()),
            Some((heard, ..)) if heard.kind == reply::FAILED => Err(failed(&heard)),
            _ => Err(gone()),
        }
    }
}
