//! What can be told of a named cell: what it was started with, how it stands, what it uses.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::unistd::SysconfVar;

use super::note::Note;
use super::place::Held;
use super::{NamedCell, outcome};
use crate::api::child::identity_report;
use crate::cgroup::Placement;
use crate::error::Error;
use crate::error::Result;
use crate::report::{Enforced, IdentityReport, Published, Report, Usage};
use crate::supervise::keeper;
use crate::sys::procfs;
use crate::wire::keeper::{STATUS_ATTACHED, STATUS_PAUSED, STATUS_STDIN, STATUS_STOPPING, ask};

/// How a named cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CellState {
    /// Somebody is starting it.
    Starting,
    /// It lives.
    Running,
    /// Its program runs at certain times, and this is none.
    Waiting,
    /// It lives, and everything in it stands still.
    Paused,
    /// It was told to end.
    Stopping,
    /// It has ended and left its outcome.
    Ended,
}

impl CellState {
    /// `starting`, `running`, `waiting`, `paused`, `stopping` or `ended`.
    pub fn as_str(self) -> &'static str {
        match self {
            CellState::Starting => "starting",
            CellState::Running => "running",
            CellState::Waiting => "waiting",
            CellState::Paused => "paused",
            CellState::Stopping => "stopping",
            CellState::Ended => "ended",
        }
    }
}

/// All that can be told of a named cell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CellInfo {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: CellState,
    /// When it was started.
    pub started: SystemTime,
    /// How long it has lived, or did.
    pub lived: Duration,
    /// The main program and its arguments; empty where there is none.
    pub words: Vec<OsString>,
    /// The image that is its root, where it is one.
    pub image: Option<String>,
    /// Its network, as the option has it.
    pub network: String,
    /// The ports of it that are published on the host.
    pub published: Vec<Published>,
    /// Who its programs are.
    pub identity: IdentityReport,
    /// The process number of its supervisor on the host, while it lives.
    pub pid: Option<u32>,
    /// The process number of its keeper on the host, while it lives. Whoever ends that ends the cell.
    pub keeper_pid: Option<u32>,
    /// The process number of the main program inside, while that runs.
    pub main_pid: Option<u32>,
    /// Bytes of memory in use: of its cgroup, or else of its processes together.
    pub memory_bytes: Option<u64>,
    /// Processes in it, its supervisor and the like included.
    pub pids: Option<u64>,
    /// What it has used so far; in the end, what it came to.
    pub usage: Usage,
    /// Whether the main program's standard input was kept, for [`NamedCell::attach`].
    pub stdin: bool,
    /// Whether somebody is attached.
    pub attached: bool,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Where the log is.
    pub log_dir: Option<PathBuf>,
    /// Why its log cannot be written at the moment: the error number. The main program waits meanwhile.
    pub log_errno: Option<i32>,
    /// How often the main program was started again.
    pub restarts: u64,
    /// When its program runs, where that is at certain times.
    pub schedule: Option<String>,
    /// When it runs next, as long as it lives.
    pub next_run: Option<SystemTime>,
    /// What came of it, once it has ended.
    pub outcome: Option<Result<Report, Error>>,
    /// What was asked for beyond the defaults, by the names of the options.
    pub options: Vec<(String, String)>,
    /// What is enforced, and by what.
    pub enforced: Vec<Enforced>,
}

impl NamedCell {
    /// How it stands, and what it uses.
    ///
    /// # Errors
    /// `Io` where it is only being started, or was removed meanwhile.
    pub fn info(&self) -> Result<CellInfo> {
        let note = self.note()?;
        let mut info = self.noted(&note);
        let left = outcome::read(&self.place).map_err(|e| self.place.failed("its outcome cannot be read", &e))?;
        if let Some(left) = left {
            let report = left.report(&note);
            (info.state, info.restarts) = (CellState::Ended, left.restarts());
            if let Ok(report) = &report {
                (info.usage, info.lived) = (report.usage.clone(), report.usage.wall);
            }
            info.outcome = Some(report);
            return Ok(info);
        }
        match self.place.held() {
            Ok(Held::ByStarter) => info.state = CellState::Starting,
            _ => self.ask_status(&note, &mut info)?,
        }
        Ok(info)
    }

    fn noted(&self, note: &Note) -> CellInfo {
        CellInfo {
            name: self.name().to_owned(),
            state: CellState::Running,
            started: note.started,
            lived: note.since.elapsed(),
            words: note.words.clone(),
            image: note.image.clone(),
            network: note.network.clone(),
            published: note.published.clone(),
            identity: identity_report(&note.identity),
            pid: None,
            keeper_pid: None,
            main_pid: None,
            memory_bytes: None,
            pids: None,
            usage: Usage::default(),
            stdin: false,
            attached: false,
            log_bytes: 0,
            log_dir: self.place.log_dir().ok(),
            log_errno: None,
            restarts: 0,
            schedule: note.schedule().map(|schedule| schedule.to_string()),
            next_run: None,
            outcome: None,
            options: note.options.clone(),
            enforced: note.enforced.clone(),
        }
    }

    fn ask_status(&self, note: &Note, info: &mut CellInfo) -> Result<()> {
        let connection = self.connect()?;
        let (status, _, pidfd) = keeper::ask(connection.as_fd(), ask::STATUS, 0, &[], &[])?;
        let schedule = note.schedule();
        info.next_run = schedule.as_ref().and_then(|schedule| schedule.next_after(SystemTime::now()));
        let has = |flag| status.detail & flag != 0;
        info.state = match () {
            () if has(STATUS_STOPPING) => CellState::Stopping,
            () if has(STATUS_PAUSED) => CellState::Paused,
            () if schedule.is_some() && status.value == 0 => CellState::Waiting,
            () => CellState::Running,
        };
        info.main_pid = Some(status.value).filter(|pid| *pid != 0);
        (info.stdin, info.attached) = (has(STATUS_STDIN), has(STATUS_ATTACHED));
        info.log_bytes = status.output;
        info.log_errno = Some(status.errno).filter(|errno| *errno != 0);
        info.restarts = status.call;
        info.usage.wall = info.lived;
        let pidfd = pidfd.as_ref().map(AsFd::as_fd);
        info.pid = pidfd.and_then(procfs::of_pidfd);
        let who = nix::sys::socket::getsockopt(&connection, nix::sys::socket::sockopt::PeerCredentials);
        info.keeper_pid = who.ok().and_then(|who| u32::try_from(who.pid()).ok()).filter(|pid| *pid != 0);
        // Groups of a cell that is just ending are not there any more.
        if let Ok(Some(placement)) = Placement::of_keeper(&note.groups) {
            placement.usage().fill(&mut info.usage);
            (info.memory_bytes, info.pids) = placement.current();
        }
        if (info.memory_bytes.is_none() || info.pids.is_none() || info.usage.user.is_none())
            && let Some(pidfd) = pidfd
        {
            count(pidfd, info);
        }
        Ok(())
    }
}

/// Adds up what the processes of a cell without groups of its own use: those beneath its supervisor. What has ended is
/// not counted.
fn count(init: BorrowedFd<'_>, info: &mut CellInfo) {
    let page = nix::unistd::sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096).unsigned_abs();
    let tick = nix::unistd::sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).unsigned_abs().max(1);
    let Some(first) = procfs::of_pidfd(init) else { return };
    let mut pending = VecDeque::from([first]);
    let (mut seen, mut memory, mut user, mut system) = (0u64, 0, 0, 0);
    // A cell can have no more than the kernel numbers.
    while let Some(pid) = pending.pop_front().filter(|_| seen < 1 << 22) {
        seen += 1;
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let number = |text: &str, at: usize| text.split_whitespace().nth(at).and_then(|n| n.parse::<u64>().ok());
        memory += number(&read("statm"), 1).unwrap_or(0) * page;
        // The name, which the program chooses, is in brackets.
        let stat = read("stat");
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        user += number(rest, 11).unwrap_or(0);
        system += number(rest, 12).unwrap_or(0);
        pending
            .extend(read(&format!("task/{pid}/children")).split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / tick);
    info.memory_bytes.get_or_insert(memory);
    info.pids.get_or_insert(seen);
    info.usage.user.get_or_insert(time(user));
    info.usage.system.get_or_insert(time(system));
}
