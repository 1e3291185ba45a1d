//! `sandcell run` and `test`: one program in a sandbox of its own, with the caller's signals passed on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use sandcell::{
    Child, Command, Connection, Error, Leftover, NetworkReport, Outcome, Report, Requested, Sandbox, TimeLimit,
    printable,
};

use crate::background::{self, Background};
use crate::cells::of_cell;
use crate::options::{Options, amended, wrong};
use crate::{FAILED, late, named, sys, tell, terminal};

/// So many leftovers are named, each with so many characters of its command line.
const NAMED: usize = 20;
const COMMAND: usize = 200;
/// By which programs reach the host.
const HOST_NAME: &str = "host.containers.internal";

/// How a run ended: the status for it, and the signal if one ended the program.
pub struct Ended {
    status: u8,
    signal: Option<i32>,
}

impl Ended {
    /// For shells: 128 + n for a signal.
    pub fn status(self) -> ExitCode {
        self.status.into()
    }

    /// For test runners, which tell a crash from a failure: as the program ended, so do we.
    pub fn same(self) -> ExitCode {
        if let Some(signal) = self.signal {
            sys::end_by(signal);
        }
        self.status()
    }
}

impl From<u8> for Ended {
    fn from(status: u8) -> Ended {
        Ended { status, signal: None }
    }
}

/// What is said of a run beside its sandbox and its program.
pub struct Run<'a> {
    pub report: Option<&'a OsStr>,
    /// With a terminal of the sandbox's own.
    pub tty: bool,
}

impl Run<'_> {
    pub fn run(
        &self,
        sandbox: impl FnOnce() -> Result<Sandbox, Error>,
        mut command: impl FnMut(&Sandbox) -> Result<Command, Error>,
    ) -> Ended {
        self.run_first(sandbox, |sandbox| Ok(vec![command(sandbox)?]))
    }

    /// Runs the first of the commands whose program is there.
    pub fn run_first(
        &self,
        sandbox: impl FnOnce() -> Result<Sandbox, Error>,
        commands: impl FnOnce(&Sandbox) -> Result<Vec<Command>, Error>,
    ) -> Ended {
        // Opened first: a place that cannot be written to is found before anything runs.
        let mut file = match self.report.map(open).transpose() {
            Ok(file) => file,
            Err(error) => {
                tell(&error);
                return FAILED.into();
            }
        };
        let result = sandbox().and_then(|sandbox| {
            let signals = Signals::hold(self.tty)?;
            let mut result = Err(Error::option("program", "no program is named"));
            for mut command in commands(&sandbox)? {
                result = self.attend(&mut command, file.is_some(), &signals, chooses_ports(&sandbox));
                if !matches!(&result, Err(Error::Exec(failure)) if failure.errno == Some(nix::libc::ENOENT)) {
                    break;
                }
            }
            result
        });
        finish(result, file.as_mut())
    }

    fn attend(
        &self,
        command: &mut Command,
        is_reported: bool,
        signals: &Signals,
        tells_ports: bool,
    ) -> Result<Report, Error> {
        let started = |child: &Child| {
            for port in child.published().iter().filter(|_| tells_ports) {
                complain!("sandcell: published {port}");
            }
        };
        command.ignore_signals(signals.ignored.iter().copied());
        if self.tty {
            return terminal::run(command, &signals.held, started);
        }
        // The bytes are counted in a pipe; a program that talks to a terminal keeps the terminal.
        command.count_output(is_reported && !std::io::stdout().is_terminal());
        command.spawn().inspect(started).and_then(|child| attend(child, signals))
    }
}

/// Whether some ports are known only when the sandbox has been started.
fn chooses_ports(sandbox: &Sandbox) -> bool {
    sandbox.policy().publish_all || sandbox.policy().publish.iter().any(|rule| rule.host_port == 0)
}

/// A command that is complete, with the caller's signals passed on: `sandcell exec`.
/// `timeout`: its own, which holds instead of the cell's.
pub fn command(mut command: Command, tty: bool, cell: &str, timeout: Option<Duration>) -> ExitCode {
    let mut result =
        Signals::hold(tty).and_then(|signals| Run { report: None, tty }.attend(&mut command, false, &signals, false));
    if let (Ok(report), Some(timeout)) = (&mut result, timeout) {
        for line in report.enforced.iter_mut().filter(|line| line.item == "timeout") {
            line.requested = Requested::Number(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
    }
    finish(result.map_err(|error| of_cell(cell, error)), None).status()
}

/// `sandcell run --trace`: a line for each stage; steps of init's are set in.
pub fn tell_stage(stage: &sandcell::StartStage<'_>) {
    let micros = stage.took.as_nanos() as f64 / 1000.0;
    let name = format!("{}{}", if stage.inside { "  " } else { "" }, stage.name);
    let line = format!("trace: {micros:9.1} µs  {name:<18} {}", printable(stage.subject));
    // In one call: the stages that follow are measured already.
    let _ = std::io::stderr().write_all((line.trim_end().to_owned() + "\n").as_bytes());
}

/// `sandcell learn`: the same run, but that what it needed is written down.
pub fn learn(options: &Options, place: &Path, words: &[OsString]) -> ExitCode {
    let result = named::output(place)
        .map_err(|error| wrong("--output", place.as_os_str(), format!("cannot be written: {error}")))
        .and_then(|file| options.sandbox().map(|sandbox| (file, sandbox)));
    match result {
        Ok((file, sandbox)) => finish(learn_in(&sandbox, file, place, words), None).status(),
        Err(error) => finish(Err(error), None).status(),
    }
}

fn learn_in(sandbox: &Sandbox, mut file: File, place: &Path, words: &[OsString]) -> Result<Report, Error> {
    let mut command = sandbox.command(&words[0]);
    let signals = Signals::hold(false)?;
    command.ignore_signals(signals.ignored.iter().copied());
    let child = command.args(&words[1..]).learn(true).spawn()?;
    let report = attend(child, &signals)?;
    if let Some(profile) = &report.learned {
        let written = file.write_all(profile.to_json()?.as_bytes());
        written.map_err(|error| wrong("--output", place.as_os_str(), format!("cannot be written: {error}")))?;
    }
    Ok(report)
}

fn open(place: &OsStr) -> Result<File, Error> {
    let opened = match place.to_str().and_then(|text| text.strip_prefix("fd:")) {
        Some(number) => match number.parse() {
            Ok(number) => sys::inherited(number),
            Err(_) => return Err(wrong("--report", place, "not the number of a descriptor")),
        },
        None => named::output(Path::new(place)),
    };
    // A descriptor that can only be read is found here, too, and not when there is something to write.
    let writable = |file: &File| {
        let mode = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
        if mode == OFlag::O_RDONLY { Err(std::io::Error::from(Errno::EBADF)) } else { Ok(()) }
    };
    opened.and_then(|file| writable(&file).map(|()| file)).map_err(|error| {
        let error = wrong("--report", place, format!("cannot be written: {error}"));
        amended(error, |failure| failure.hint = "name a file or a descriptor that can be written to".to_owned())
    })
}

/// The report of a command line that could not be understood. What is wrong has been said already.
pub fn report_mistake(place: &OsStr, mistake: &Error) {
    if let Ok(mut file) = open(place) {
        let _ = writeln!(file, "{}", sandcell::report::error_to_json(mistake));
    }
}

/// From here on the signals that are meant for the program wait in a descriptor, but those that are ignored: a signal
/// that is blocked is kept even where it is ignored. No handler: the library's caller
/// could not have one either.
struct Signals {
    held: SignalFd,
    ignored: Vec<i32>,
}

impl Signals {
    /// `tty`: those, too, that would end us with the terminal as it is.
    fn hold(tty: bool) -> Result<Signals, Error> {
        use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
        let ignored = sys::ignored_signals();
        let passed = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGWINCH];
        let fatal = sys::FATAL.iter().filter(|_| tty).filter_map(|signal| Signal::try_from(*signal).ok());
        let mut set = SigSet::empty();
        let taken = passed.into_iter().chain(fatal).filter(|signal| !ignored.contains(&(*signal as i32)));
        taken.for_each(|signal| set.add(signal));
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let held = set.thread_block().and_then(|()| SignalFd::with_flags(&set, flags));
        let held = held.map_err(|errno| Error::option("signals", format!("cannot be held back: {errno}")))?;
        Ok(Signals { held, ignored })
    }
}

/// Passes signals on until the program has ended.
fn attend(mut child: Child, signals: &Signals) -> Result<Report, Error> {
    let mut background = Background::new(&signals.ignored);
    let signals = &signals.held;
    loop {
        let mut polls =
            [PollFd::new(child.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let left = child.overdue().map(|at| at.saturating_duration_since(std::time::Instant::now()).as_millis() + 1);
        let look = background.next().map(|time| time.as_millis());
        let left = left.into_iter().chain(look).min();
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let polled = poll(&mut polls, timeout);
        let ended = polls[0].any().unwrap_or(true);
        match polled {
            Err(Errno::EINTR) => continue,
            // Waiting works without: only the passing on is lost.
            Err(_) => return child.wait(),
            // The supervisor should have ended it by now.
            Ok(0) if look.is_some() && child.is_reading_stdin()? => {
                stop_in_background(&child, signals, &mut background)?;
                continue;
            }
            Ok(0) => match child.try_wait()? {
                Some(report) => return Ok(report),
                None => continue,
            },
            Ok(_) => {}
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            pass_on(&child, &signal)?;
        }
        if ended {
            return child.wait();
        }
    }
}

/// As the kernel does with the job of who reads its terminal in the background.
fn stop_in_background(child: &Child, signals: &SignalFd, background: &mut Background) -> Result<(), Error> {
    background::stop(child)?;
    sys::stop_job(Signal::SIGTTIN);
    let mut continued = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        continued |= signal.ssi_signo == Signal::SIGCONT as u32;
        pass_on(child, &signal)?;
    }
    background.gone_on(continued);
    child.signal_group(Signal::SIGCONT as i32)
}

/// A program inside is alone in its session, where the kernel ignores SIGTSTP: it is stopped for good instead, and
/// then we stop as we were told. SIGCONT wakes us before we read that it came.
///
/// What a terminal sends is for the whole group, so that a script's child is interrupted with it; what another process sends
/// is for the program alone.
fn pass_on(child: &Child, held: &siginfo) -> Result<(), Error> {
    let signal = held.ssi_signo.cast_signed();
    if signal != Signal::SIGTSTP as i32 {
        let of_terminal = held.ssi_code == nix::libc::SI_KERNEL || signal == Signal::SIGCONT as i32;
        return if of_terminal { child.signal_group(signal) } else { child.signal(signal) };
    }
    background::stop(child)?;
    sys::stop(Signal::SIGTSTP);
    child.signal_group(Signal::SIGCONT as i32)
}

/// Some of the processes, each with the beginning of its command line: programs choose how many there are, and what
/// stands there.
fn named(leftovers: &[Leftover]) -> String {
    let name = |left: &Leftover| {
        let short: String = left.command.chars().take(COMMAND).collect();
        let cut = if short.len() < left.command.len() { "…" } else { "" };
        format!("{}{cut} (pid {})", printable(&short), left.pid)
    };
    let mut names: Vec<_> = leftovers.iter().take(NAMED).map(name).collect();
    if leftovers.len() > NAMED {
        names.push(format!("and {} more", leftovers.len() - NAMED));
    }
    names.join(", ")
}

/// Why the program did not end by itself, where a limit or the filter was the reason: its status alone (124, 137, 153, 159) could be the
/// program's own.
pub fn ended_by_us(report: &Report) -> Option<String> {
    let asked = |item: &str| report.enforced.iter().find(|line| line.item == item).map(|line| &line.requested);
    let number = |item: &str| match asked(item) {
        Some(Requested::Number(number)) => Some(*number),
        _ => None,
    };
    let time = |item: &str| number(item).map(|millis| format!("{:?}", Duration::from_millis(millis)));
    Some(match &report.outcome {
        Outcome::TimedOut if report.timed_out == Some(TimeLimit::Cpu) => match time("cpu_time") {
            Some(time) => format!("used up its {time} of CPU time"),
            None => "used up its CPU time".to_owned(),
        },
        Outcome::TimedOut => match time("timeout") {
            Some(time) => format!("timed out after {time}"),
            None => "timed out".to_owned(),
        },
        Outcome::OutOfMemory => match number("memory") {
            Some(bytes) => format!("out of memory: the limit is {bytes} bytes"),
            None => "out of memory".to_owned(),
        },
        Outcome::OutputLimit => match number("output_limit") {
            Some(bytes) => format!("wrote more than its output limit of {bytes} bytes"),
            None => "wrote more than its output limit".to_owned(),
        },
        Outcome::SyscallDenied { syscall, .. } => format!("made the denied system call {}", printable(syscall)),
        _ => return None,
    })
}

/// What a program that has failed could not reach: that may be why.
fn tell_of_network(network: &NetworkReport) {
    if network.lost {
        complain!("sandcell: the relay of the network ended before the program did");
    }
    for refused in network.refused().take(NAMED) {
        let why = refused.why.as_deref().unwrap_or_default();
        complain!("sandcell: refused: {}: {}", printable(refused.target()), printable(why));
    }
    let refused = network.refused().count();
    if refused > NAMED {
        complain!("sandcell: and {} more that were refused", refused - NAMED);
    }
    let is_denied = |refused: &Connection| refused.rule.as_deref().is_some_and(|rule| rule.starts_with("deny-"));
    let is_host = |refused: &Connection| {
        refused.host.as_deref() == Some(HOST_NAME)
            || refused.why.as_deref().is_some_and(|why| why.contains("host-port"))
    };
    if refused > 0 && network.refused().all(is_host) {
        // A name that was asked for has none but that of its server.
        let port = network.refused().find(|refused| refused.protocol != "dns").map(|refused| refused.port);
        let port = port.map_or("PORT".to_owned(), |port| port.to_string());
        complain!("hint: Let the host's own port be reached: --host-port {port}; it is {HOST_NAME}:{port} inside.");
    } else if refused > 0 && network.refused().all(is_denied) {
        complain!(
            "hint: Leave out the rule that denies it, --deny-host or --deny-net: it holds whatever else is allowed."
        );
    } else if refused > 0 {
        complain!("hint: Allow what it needs: --allow-host NAME[:PORTS] or --allow-net CIDR[:PORTS].");
    }
}

/// Writes the report, says what went wrong, and finds the status to end with.
fn finish(result: Result<Report, Error>, file: Option<&mut File>) -> Ended {
    let json = sandcell::report::to_json(&result);
    let ended = match result {
        Ok(report) => {
            if report.timed_out.is_some() {
                late::hurry();
            }
            if !report.leftovers.is_empty() {
                complain!("sandcell: still alive when the program ended: {}", named(&report.leftovers));
            }
            if let Some(what) = ended_by_us(&report) {
                complain!("sandcell: {what}");
            }
            if let (false, Some(network)) = (report.success(), &report.network) {
                tell_of_network(network);
            }
            let signal = match report.outcome {
                Outcome::Signaled { signal, .. } => Some(signal),
                _ => None,
            };
            Ended { status: report.exit_status() as u8, signal }
        }
        Err(error) => {
            let status = match (&error, error.errno()) {
                (Error::Exec(_), Some(nix::libc::ENOENT)) if error.stage() == "exec" => 127,
                (Error::Exec(_), _) => 126,
                _ => FAILED,
            };
            tell(&error);
            status.into()
        }
    };
    if let Some(file) = file
        && let Err(error) = late::say(file.as_fd(), (json + "\n").as_bytes())
    {
        complain!("sandcell: the report cannot be written: {error}");
        return FAILED.into();
    }
    ended
}
